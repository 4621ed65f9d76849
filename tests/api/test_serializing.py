"""How jobs are serialized: catches a list that answers otherwise than its marshmallow schema."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.tz_util import utc
from flask import Flask
from marshmallow import Schema

from jobmon.api.answers import JobDetail, JobSummary, ListedJob
from jobmon.redaction.redactor import Redactor

NOW = datetime.now(UTC)
VALUES: list[Any] = [
    None,
    "",
    "text",
    "password=hunter2",
    Code("text", {}),
    0,
    Int64(7),
    True,
    1.5,
    float("nan"),
    NOW,
    NOW.replace(tzinfo=utc),
    NOW.replace(tzinfo=None),
    NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
    DatetimeMS(2**60),
    ObjectId(),
    Decimal128("1.50"),
    Binary(b"text"),
    Regex("text"),
    Timestamp(7, 1),
    DBRef("jobs", 7),
    ["text", {"password": "secret"}],
    {"code": "E1", "message": NOW, "stack": "at line 1"},
]


# What jobmon adds to a document, and never holds another type.
ADDED = {"attempts", "explanation", "links", "reasons", "repetition", "isRecurring", "errorGroup"}


@pytest.mark.parametrize("schema", [JobSummary(), ListedJob(), JobDetail()], ids=type)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_job_is_serialized_as_marshmallow_does(schema: JobSummary, value: Any) -> None:
    job = dict.fromkeys(schema.dump_fields.keys() - ADDED - {"durationMs"}, value)
    attempt = {"startedAt": value, "finishedAt": NOW, "error": value}
    app = Flask("test")
    app.extensions["jobmon_redactor"] = Redactor(())
    with app.app_context():
        for given in ({}, job, job | {"attempts": [attempt], "durationMs": 7, "other": value}):
            assert schema.dump(given) == Schema.dump(schema, given)
