"""The check of links to other systems: catches a misspelled field that is not reported."""

from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.settings.links import make_links
from jobmon.setup.findings import Level
from jobmon.setup.links import check_links
from jobmon.store.connection import Connection

from ..support.commands import database_uri


@pytest.mark.parametrize(
    ("field", "level", "message"),
    [
        ("payload.trace.id", Level.OK, "1 link to other systems can be made."),
        ("jobId", Level.OK, "1 link to other systems can be made."),
        ("payload.traceId", Level.WARNING, "No job of a sample has a value in payload.traceId"),
    ],
)
def test_check_names_a_field_that_no_job_has(
    mongod: Mongod, database: Database[dict[str, Any]], field: str, level: Level, message: str
) -> None:
    database.jobs.insert_one({"jobId": "a", "payload": {"trace": {"id": 1}, "traceId": None}})
    links = make_links({"Trace": f"https://trace.example/{{{field}}}"})
    settings = Settings(mongo_uri=database_uri(mongod, database), links=links)
    connection = Connection(settings)
    with connection.client:
        (finding,) = check_links(settings, connection)
    assert finding.level == level
    assert finding.message.startswith(message)
