"""The list of paused types, on the real server: catches a malformed list that breaks a page."""

from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.paused_types import PausedTypes, TypePause

from ..support.commands import database_uri


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, set()),
        ({}, set()),
        ({"types": ["mail", "a b"]}, {"mail", "a b"}),
        ({"types": ["mail", 7, None]}, {"mail"}),
        ({"types": "mail"}, set()),
    ],
    ids=["no document", "no field", "texts", "with other values", "text instead of a list"],
)
def test_paused_types_are_the_texts_in_the_list(
    mongod: Mongod, database: Database[dict[str, Any]], stored: Any, expected: set[str]
) -> None:
    if stored is not None:
        database.job_controls.insert_one({"_id": "paused", **stored})
    settings = Settings(mongo_uri=database_uri(mongod, database))
    connection = Connection(settings)
    assert PausedTypes(connection).find() == dict.fromkeys(expected, TypePause())
    connection.close()
