"""How answers are serialized: catches an answer that differs from marshmallow's own output."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.tz_util import utc
from flask import Flask
from marshmallow import Schema

from jobmon.api import examples, queue_examples, run_examples
from jobmon.api.answers import (
    Answer,
    Error,
    JobDetail,
    JobList,
    JobListMeta,
    JobSummary,
    ListedJob,
)
from jobmon.api.error_answers import ErrorGroupList
from jobmon.api.queue_answers import JobStats, QueueList, TimeSeries, TypeList, WindowBounds
from jobmon.redaction.redactor import Redactor
from jobmon.store.bson_json import to_iso

from ..conftest import Api

NOW = datetime.now(UTC)
BSON_VALUES: list[Any] = [
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


# The fields that jobmon computes. Only fields of the watched documents can hold any BSON type.
COMPUTED_FIELDS = {"attempts", "durationMs", "explanation", "links", "reasons", "repetition"}
COMPUTED_FIELDS |= {"isRecurring", "errorGroup"}
JOB_SCHEMAS: list[JobSummary] = [JobSummary(), ListedJob(), JobDetail()]


@pytest.fixture(autouse=True)
def app_context() -> Iterator[None]:
    """The context of an app with a redactor, which fields of documents need."""
    app = Flask("test")
    app.extensions["jobmon_redactor"] = Redactor(())
    with app.app_context():
        yield


def dump_by_marshmallow(schema: Answer, value: Any) -> Any:
    """The output of marshmallow's own code, which also serializes the nested schemas."""

    def dump(nested: Answer, obj: Any, *, many: bool | None = None) -> Any:
        prepared = map(nested.prepare, obj) if many else nested.prepare(obj)
        return Schema.dump(nested, prepared, many=many)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answer, "dump", dump)
        return schema.dump(value)


@pytest.mark.parametrize("schema", JOB_SCHEMAS, ids=type)
@pytest.mark.parametrize("value", BSON_VALUES, ids=lambda value: type(value).__name__)
def test_a_job_is_serialized_as_marshmallow_does(schema: JobSummary, value: Any) -> None:
    job = dict.fromkeys(schema.dump_fields.keys() - COMPUTED_FIELDS, value)
    attempt = {"startedAt": value, "finishedAt": NOW, "error": value}
    for document in ({}, job, job | {"attempts": [attempt], "durationMs": 7, "other": value}):
        assert schema.dump(document) == dump_by_marshmallow(schema, document)


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (JobList(), examples.JOB_LIST),
        (JobDetail(), examples.JOB_DETAIL | {"repetition": None}),
        (JobStats(), queue_examples.JOB_STATS),
        (QueueList(), queue_examples.QUEUE_LIST),
        (TimeSeries(), queue_examples.SERIES),
        (TypeList(), queue_examples.TYPE_LIST),
        (ErrorGroupList(), run_examples.ERROR_LIST),
        (Error(), examples.ERRORS["not_found"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_is_serialized_as_marshmallow_does(schema: Answer, example: Any) -> None:
    """Catches a type of field that no schema of a job has, and that is serialized differently."""
    answer = rename_keys(schema, example)
    assert schema.dump(answer) == dump_by_marshmallow(schema, answer)


def rename_keys(schema: Answer, example: Any) -> Any:
    """The example with the names of the schema's fields as keys, as a route passes it to `dump`."""
    names_by_key = {field.data_key: name for name, field in schema.dump_fields.items()}
    return {names_by_key.get(key) or key: value for key, value in example.items()}


@dataclass
class Window:
    start: datetime
    end: datetime


def test_an_object_is_serialized_by_its_attributes() -> None:
    bounds = WindowBounds().dump(Window(NOW, NOW))
    assert bounds["from"] == bounds["to"] == to_iso(NOW)


def test_a_value_of_another_type_is_converted() -> None:
    meta = {"page": "3", "next_cursor": 7, "reasons": {1: 2}}
    assert JobListMeta().dump(meta) == {"page": 3, "next_cursor": "7", "reasons": {"1": "2"}}


@pytest.mark.parametrize("path", ["/admin/jobs/queue", "/admin/jobs/stats", "/healthz", "/nowhere"])
def test_an_answer_ends_with_a_line_feed(api: Api, path: str) -> None:
    """Catches an answer after which curl leaves the shell's prompt on the same line."""
    assert api.get_as_admin(path).data.endswith(b"}\n")
