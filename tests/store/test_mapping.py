"""Field mappings: catches a query for the wrong field or value, an index on fields that no
document has, and a document that is read wrongly."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from jobmon.domain import MAPPED_JOB_FIELDS
from jobmon.profiles import load_profile
from jobmon.settings import Settings
from jobmon.store.labels import label
from jobmon.store.mapping import IS_ARRAY, DerivedStatus, FieldMapping
from jobmon.store.profiles import Profile

from ..conftest import NOW

ID = ObjectId("6b0569950000000000000001")
SNAKE = FieldMapping(
    paths={
        "jobId": "job_id",
        "type": "kind",
        "status": "state",
        "createdAt": "made.at",
        "lastError": "error",
        "leaseExpiresAt": "locked_at",
    },
    statuses={"done": "succeeded", "ok": "succeeded", "failed": "dlq"},
    offsets={"leaseExpiresAt": timedelta(minutes=10)},
)
BY_ID = FieldMapping(paths={"jobId": "_id", "createdAt": "_id", "type": "kind"})
DERIVED = FieldMapping(
    paths={"type": "kind"},
    derived=DerivedStatus(
        expression={"$cond": ["$locked", "leased", "queued"]},
        needs={"leased": {"locked": True}, "queued": {"locked": None}},
    ),
)
NOTHING = {"_id": {"$in": []}}


def map_jobs(**paths: str) -> FieldMapping:
    """A mapping with these paths, and the contract's names for the other fields."""
    return FieldMapping(paths={name: name for name in MAPPED_JOB_FIELDS} | paths)


def test_documents_of_the_contract_are_not_translated() -> None:
    mapping = map_jobs()
    query: dict[str, Any] = {
        "status": {"$in": ["dlq", "failed"]},
        "$nor": [{"createdBy": IS_ARRAY}],
    }
    stages = [{"$match": query}]
    job = {"_id": 1, "odd": 2}
    assert mapping.is_identity
    assert mapping.translate_query(query) == query
    assert mapping.translate_pipeline(stages) == stages
    assert mapping.to_contract(job) is job
    assert mapping.projection(None) is None
    assert mapping.unknown == frozenset()
    assert not map_jobs(jobId="job_id").is_identity


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {}),
        ({"type": "a"}, {"kind": "a"}),
        ({"type": "a", "_id": 3}, {"$and": [{"kind": "a"}, {"_id": 3}]}),
        ({"$nor": [{"type": "a"}, {}]}, {"$nor": [{"kind": "a"}, {}]}),
        ({"lastError.code": "E"}, {"error.code": "E"}),
        ({"status": "queued"}, {"state": "queued"}),
        ({"status": "succeeded"}, {"state": {"$in": ["done", "ok", "succeeded"]}}),
        ({"status": "dlq"}, {"state": {"$in": ["failed", "dlq"]}}),
        (
            {"status": {"$in": ["failed"]}},
            {"state": {"$in": []}},
        ),  # the name of `dlq` here
        ({"status": {"$in": ["done", "queued"]}}, {"state": "queued"}),
        ({"leaseExpiresAt": {"$lt": NOW}}, {"locked_at": {"$lt": NOW - timedelta(minutes=10)}}),
        ({"nextRunAt": {"$gt": NOW}}, NOTHING),
        ({"nextRunAt": None}, {}),
        ({"createdBy": {"$in": ["ada"]}}, NOTHING),
        ({"$expr": {"$gt": ["$createdAt", NOW]}}, {"$expr": {"$gt": ["$made.at", NOW]}}),
    ],
    ids=str,
)
def test_a_query_is_translated(query: Any, expected: Any) -> None:
    assert SNAKE.translate_query(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"jobId": "abc"}, {"_id": "abc"}),
        ({"jobId": {"$in": [str(ID), ID]}}, {"_id": {"$in": [str(ID), ID]}}),
        ({"createdAt": {"$type": "date"}}, {"_id": {"$type": "objectId"}}),
    ],
    ids=str,
)
def test_an_id_and_a_creation_time_may_be_at_the_objectid(query: Any, expected: Any) -> None:
    assert BY_ID.translate_query(query) == expected


@pytest.mark.parametrize(
    ("moment", "first"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 2),  # ids of second 1 are earlier
        (datetime(1969, 12, 31, tzinfo=UTC), 0),
        (datetime(2200, 1, 1, tzinfo=UTC), 0xFFFF_FFFF),
    ],
)
def test_a_date_becomes_the_first_id_that_is_not_earlier(moment: datetime, first: int) -> None:
    query = {"createdAt": {"$gte": moment}}
    assert BY_ID.translate_query(query) == {"_id": {"$gte": ObjectId(f"{first:08x}{'0' * 16}")}}


def test_a_derived_status_is_queried_by_its_expression() -> None:
    expression = DERIVED.derived and DERIVED.derived.expression
    assert DERIVED.translate_query({"status": "leased"}) == {
        "$and": [
            {"$or": [{"locked": True}]},
            {"$expr": {"$in": [expression, {"$literal": ["leased"]}]}},
        ]
    }
    # No document can have this status.
    assert DERIVED.translate_query({"status": {"$in": ["odd"]}}) == NOTHING
    grouped = {"$group": {"_id": {"status": "$status", "type": "$type"}}}
    assert DERIVED.translate_pipeline([grouped]) == [
        {"$group": {"_id": {"status": expression, "type": "$kind"}}}
    ]
    assert DERIVED.projection(("status", "type")) == {
        "_id": False,
        "kind": True,
        "_status": expression,
    }
    assert DERIVED.to_contract({"_status": "leased", "kind": "a"}) == {
        "status": "leased",
        "type": "a",
    }


def test_index_keys_are_translated_or_none() -> None:
    by_status = [("status", 1), ("createdAt", -1), ("_id", -1), ("type", 1)]
    assert SNAKE.translate_keys(by_status) == [
        ("state", 1),
        ("made.at", -1),
        ("_id", -1),
        ("kind", 1),
    ]
    assert SNAKE.translate_keys([("createdBy", 1), ("createdAt", -1)]) is None
    assert DERIVED.translate_keys(by_status) is None
    assert BY_ID.translate_keys([("type", 1), ("createdAt", -1), ("_id", -1)]) == [
        ("kind", 1),
        ("_id", -1),
    ]
    # _id alone always has an index, which is ascending.
    assert BY_ID.translate_keys([("createdAt", -1), ("_id", -1)]) == [("_id", 1)]
    assert BY_ID.translate_keys([("jobId", 1)]) == [("_id", 1)]
    assert BY_ID.translate_order([("createdAt", -1), ("_id", -1), ("nextRunAt", 1)]) == [
        ("_id", -1)
    ]


def test_an_expression_is_translated_without_its_literals() -> None:
    expression = {"$cond": [{"$eq": ["$type", {"$literal": "$type"}]}, "$$NOW", "$nextRunAt"]}
    assert SNAKE.translate_expression(expression) == {
        "$cond": [{"$eq": ["$kind", {"$literal": "$type"}]}, "$$NOW", None]
    }
    assert SNAKE.translate_expression("$type", under="_job") == "$_job.kind"
    assert BY_ID.translate_expression("$createdAt", under="_job") == {
        "$convert": {"input": "$_job._id", "to": "date", "onError": None}
    }


def test_a_projection_has_the_paths_of_the_fields_once() -> None:
    names = FieldMapping(paths={"payload": "data", "createdBy": "data.user.id", "jobId": "_id"})
    assert names.projection(("payload", "createdBy")) == {"_id": False, "data": True}
    assert names.projection(("createdBy", "jobId")) == {"_id": True, "data.user.id": True}
    assert names.projection(None) == {"_id": True, "data": True}


def test_a_document_is_returned_with_the_contracts_names() -> None:
    job = {"_id": 7, "kind": "a", "state": "ok", "made": {"at": NOW}, "locked_at": NOW, "status": 9}
    assert SNAKE.to_contract(job) == {
        "_id": 7,
        "type": "a",
        "status": "succeeded",
        "createdAt": NOW,
        "leaseExpiresAt": NOW + timedelta(minutes=10),
    }
    assert SNAKE.to_contract({"_id": 7, "made": "then", "state": ["ok"], "locked_at": "now"}) == {
        "_id": 7,
        "status": ["ok"],
        "leaseExpiresAt": "now",
    }
    assert BY_ID.to_contract({"_id": ID}) == {
        "_id": ID,
        "jobId": ID,
        "createdAt": ID.generation_time,
    }
    assert BY_ID.to_contract({"_id": "text"}) == {"_id": "text", "jobId": "text", "createdAt": None}


STATES = map_jobs(status="done")
STATES = replace(
    STATES, statuses={"true": "succeeded", "false": "queued", "null": "unseen", "1": "leased"}
)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "succeeded"),
        ("true", "succeeded"),
        (False, "queued"),
        (None, "unseen"),
        (1.0, "leased"),
        ("null", "null"),
        ("odd", "odd"),
        (2, 2),
    ],
)
def test_status_names_map_every_value_that_has_the_label(value: Any, word: Any) -> None:
    assert STATES.to_contract_status(value) == word
    assert STATES.to_contract({"_id": 1, "done": value})["status"] == word
    query = STATES.translate_query({"status": label(word)})["done"]
    assert value in (query["$in"] if isinstance(query, dict) else [query])


def test_status_names_map_a_missing_status() -> None:
    assert STATES.to_contract({"_id": 1})["status"] == "unseen"
    assert "status" not in map_jobs().to_contract({"_id": 1})
    assert map_jobs().translate_query({"status": "null"}) == {"status": None}
    assert map_jobs().translate_query({"status": '"null"'}) == {
        "status": {"$in": ['"null"', "null"]}
    }


def test_an_array_is_queried_at_every_part_of_a_path() -> None:
    names = FieldMapping(paths={"createdBy": "input.user.id"})
    parts = ("input", "input.user", "input.user.id")
    assert names.translate_query({"createdBy": IS_ARRAY}) == {
        "$or": [{part: IS_ARRAY} for part in parts]
    }


def test_a_changed_profile_has_no_transitions_of_other_fields_and_statuses(tmp_path: Path) -> None:
    """Catches a profile that cannot be loaded, and an action that writes to another field."""
    agenda = load_profile("agenda")
    assert agenda.content["transitions"]
    for change in ({"fields": {"status": "state"}}, {"statuses": {"odd": "queued"}}):
        names = {"fields": {}, "statuses": {}, "attempt_fields": {}, "attempt_statuses": {}}
        assert "transitions" not in agenda.override(**names | change).content
    path = tmp_path / "shop.toml"
    path.write_text('extends = "agenda"\n[status]\npath = "state"')
    assert "transitions" not in load_profile(str(path)).content


def test_settings_change_a_profile() -> None:
    def jobs(**settings: Any) -> FieldMapping:
        return Profile.from_settings(Settings(mongo_uri="mongodb://db", **settings)).jobs

    assert "createdAt" in jobs(profile="celery").unknown
    assert jobs(profile="celery", job_fields={"createdAt": "made"}).has_creation_time
    assert jobs(profile="celery", status_names={"PROGRESS": "leased"}).to_contract_status(
        "PROGRESS"
    ) == ("leased")
    assert jobs(profile="celery").to_contract_status("PROGRESS") == "PROGRESS"
    changed = jobs(profile="agenda", job_fields={"status": "state", "leaseExpiresAt": "until"})
    assert changed.translate_query({"status": "dlq"}) == {"state": "dlq"}
    assert changed.translate_query({"leaseExpiresAt": {"$lt": NOW}}) == {"until": {"$lt": NOW}}
    assert jobs(profile="agenda").unknown == {"createdBy", "maxAttempts", "updatedAt"}
