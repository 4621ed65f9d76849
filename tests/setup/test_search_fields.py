"""JOBMON_SEARCH_FIELDS in `init` and `check`: catches an index that is not created, a misspelled
field that is not reported, and a search in values that redaction hides."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.check import check_deployment
from jobmon.setup.findings import Finding, Level

from ..conftest import NOW
from ..support import commands
from ..support.commands import database_uri

MongoDb = Database[dict[str, Any]]
CARD = "4111111111111111"
FIELDS = "payload.orderId,payload.items.sku,payload.note,payload.headers.value,payload.ordrId"
INDEX = "jobs({}, -createdAt, -_id)"


@pytest.fixture
def shop(database: MongoDb) -> MongoDb:
    for index in range(30):
        payload: dict[str, Any] = {
            "orderId": index,
            "items": [{"sku": "a"}],
            "ordrId": None,
            "note": CARD if index % 10 == 0 else "fine",
            "headers": [{"name": "Accept", "value": "text"}],
        }
        if index == 7:
            payload["headers"].append({"name": "Cookie", "value": "plain"})
        job = {"jobId": str(index), "status": "queued", "createdAt": NOW, "payload": payload}
        database.jobs.insert_one(job | {"createdBy": "ada", "type": "t"})
    return database


@pytest.fixture
def init(mongod: Mongod, shop: MongoDb) -> Callable[..., Result]:
    def init(*options: str, fields: str = FIELDS, **settings: str) -> Result:
        uri = database_uri(mongod, shop)
        return commands.init(uri, *options, SEARCH_FIELDS=fields, **settings)

    return init


def list_findings(settings: Settings, check: str) -> list[Finding]:
    return [finding for finding in check_deployment(settings) if finding.check == check]


def test_init_creates_an_index_for_each_field_and_names_a_field_that_no_job_has(
    shop: MongoDb, init: Callable[..., Result]
) -> None:
    preview = init("--dry-run")
    assert preview.exit_code == 0, preview.output
    result = init()
    assert result.exit_code == 0, result.output
    outcomes = {preview.output: "would be created, about", result.output: "created"}
    for output, outcome in outcomes.items():
        for name in FIELDS.split(","):
            assert f"{INDEX.format(name)}: {outcome}" in output
        assert "No job of a sample has a value in payload.ordrId: a search there" in output
    indexes = {index["name"]: index for index in shop.jobs.list_indexes()}
    index = indexes["payload.orderId_1_createdAt_-1__id_-1"]
    assert dict(index["key"]) == {"payload.orderId": 1, "createdAt": -1, "_id": -1}
    assert index["partialFilterExpression"] == {"payload.orderId": {"$exists": True}}
    assert f"{INDEX.format('payload.orderId')}: exists" in init().output


def test_init_prints_the_lines_and_removes_the_indexes(
    shop: MongoDb, init: Callable[..., Result]
) -> None:
    script = init("--print", fields="payload.orderId").output
    assert '{"payload.orderId": 1, "createdAt": -1, "_id": -1}' in script
    assert '"partialFilterExpression": {"payload.orderId": {"$exists": true}}' in script
    init(fields="payload.orderId")
    assert init("--remove", fields="payload.orderId").exit_code == 0
    assert [index["name"] for index in shop.jobs.list_indexes()] == ["_id_"]


def test_init_refuses_a_field_that_redaction_hides(
    shop: MongoDb, init: Callable[..., Result]
) -> None:
    for fields, keys in (("payload.token", "token"), ("payload.orderId", "orderId")):
        result = init(fields=fields, REDACT_KEYS=keys)
        assert result.exit_code == 1
        assert f"JOBMON_SEARCH_FIELDS: {fields} cannot be searched: redaction" in result.output
    assert len(list(shop.jobs.list_indexes())) == 1


def test_check_reports_missing_indexes_and_fields_that_are_unused_or_hidden(
    mongod: Mongod,
    shop: MongoDb,
    init: Callable[..., Result],
    make_settings: Callable[..., Settings],
) -> None:
    assert init(fields="payload.orderId,payload.note").exit_code == 0
    settings = make_settings(
        mongo_uri=database_uri(mongod, shop), search_fields=tuple(FIELDS.split(","))
    )
    (missing,) = list_findings(settings, "indexes")
    assert missing.message.startswith("3 indexes missing")
    assert f"JOBMON_SEARCH_FIELDS='{FIELDS}'" in missing.commands[0]
    unused, note, headers = list_findings(settings, "search")
    assert unused.level is Level.WARNING
    assert "payload.ordrId" in unused.message
    assert "payload.orderId" not in unused.message
    # An index finds the jobs with payload.note; without an index, check reads the newest jobs.
    assert (note.level, headers.level) == (Level.PROBLEM, Level.PROBLEM)
    assert note.message.startswith("Redaction hides the value of payload.note in 3 of 30 jobs")
    assert headers.message.startswith("Redaction hides the value of payload.headers.value in 1 of")
    assert CARD not in note.message
    settings = make_settings(mongo_uri=settings.mongo_uri, search_fields=("payload.orderId",))
    (finding,) = list_findings(settings, "search")
    assert (finding.level, finding.message) == (Level.OK, "Jobs have the fields payload.orderId.")
    assert list_findings(make_settings(mongo_uri=settings.mongo_uri), "search") == []
