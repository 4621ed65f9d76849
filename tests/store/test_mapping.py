"""Field mappings: catches a query for the wrong field or value, an index on fields that no
document has, and a document that is read wrongly."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from jobmon.domain import MAPPED_JOB_FIELDS
from jobmon.profiles import load_profile
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.labels import label
from jobmon.store.mapping import IS_ARRAY, DerivedStatus, FieldMapping
from jobmon.store.profiles import Profile

from ..conftest import NOW

ID = ObjectId("6b0569950000000000000001")
RENAMED_MAPPING = FieldMapping(
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
ID_MAPPING = FieldMapping(paths={"jobId": "_id", "createdAt": "_id", "type": "kind"})
DERIVED_MAPPING = FieldMapping(
    paths={"type": "kind"},
    derived=DerivedStatus(
        expression={"$cond": ["$locked", "leased", "queued"]},
        needs={"leased": {"locked": True}, "queued": {"locked": None}},
    ),
)
MATCHES_NOTHING = {"_id": {"$in": []}}


def make_mapping(**paths: str) -> FieldMapping:
    """A mapping with these paths, and the contract's names for the other fields."""
    return FieldMapping(paths={name: name for name in MAPPED_JOB_FIELDS} | paths)


def test_documents_with_the_names_of_the_contract_are_not_translated() -> None:
    mapping = make_mapping()
    query: dict[str, Any] = {
        "status": {"$in": ["dlq", "failed"]},
        "$nor": [{"createdBy": IS_ARRAY}],
    }
    stages = [{"$match": query}]
    job = {"_id": 1, "odd": 2}
    assert not mapping.translates
    assert mapping.translate_query(query) == query
    assert mapping.translate_pipeline(stages) == stages
    assert mapping.to_contract(job) is job
    assert mapping.projection(None) is None
    assert mapping.missing_fields == frozenset()
    assert make_mapping(jobId="job_id").translates


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
        # The stored `failed` means dlq, and the stored `done` means succeeded: no job has these
        # statuses of the contract.
        ({"status": {"$in": ["failed"]}}, {"state": {"$in": []}}),
        ({"status": {"$in": ["done", "queued"]}}, {"state": "queued"}),
        ({"leaseExpiresAt": {"$lt": NOW}}, {"locked_at": {"$lt": NOW - timedelta(minutes=10)}}),
        ({"nextRunAt": {"$gt": NOW}}, MATCHES_NOTHING),
        ({"nextRunAt": None}, {}),
        ({"createdBy": {"$in": ["ada"]}}, MATCHES_NOTHING),
        ({"$expr": {"$gt": ["$createdAt", NOW]}}, {"$expr": {"$gt": ["$made.at", NOW]}}),
    ],
    ids=str,
)
def test_a_query_is_translated(query: Any, expected: Any) -> None:
    assert RENAMED_MAPPING.translate_query(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"jobId": "abc"}, {"_id": "abc"}),
        ({"jobId": {"$in": [str(ID), ID]}}, {"_id": {"$in": [str(ID), ID]}}),
        ({"createdAt": {"$type": "date"}}, {"_id": {"$type": "objectId"}}),
    ],
    ids=str,
)
def test_job_id_and_creation_time_can_be_queried_by_id(query: Any, expected: Any) -> None:
    assert ID_MAPPING.translate_query(query) == expected


@pytest.mark.parametrize(
    ("moment", "first_second"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 2),  # 1 µs after second 1: rounded up
        (datetime(1969, 12, 31, tzinfo=UTC), 0),  # before the first second of an ObjectId
        (datetime(2200, 1, 1, tzinfo=UTC), 0xFFFF_FFFF),  # after the last second of an ObjectId
    ],
)
def test_a_date_is_rounded_up_to_a_second_that_an_object_id_can_hold(
    moment: datetime, first_second: int
) -> None:
    query = {"createdAt": {"$gte": moment}}
    first_id = ObjectId(f"{first_second:08x}{'0' * 16}")
    assert ID_MAPPING.translate_query(query) == {"_id": {"$gte": first_id}}


def test_queries_and_projections_of_a_derived_status_have_its_expression() -> None:
    expression = DERIVED_MAPPING.derived and DERIVED_MAPPING.derived.expression
    assert DERIVED_MAPPING.translate_query({"status": "leased"}) == {
        "$and": [
            {"$or": [{"locked": True}]},
            {"$expr": {"$in": [expression, {"$literal": ["leased"]}]}},
        ]
    }
    # No document can have this status.
    assert DERIVED_MAPPING.translate_query({"status": {"$in": ["odd"]}}) == MATCHES_NOTHING
    group_stage = {"$group": {"_id": {"status": "$status", "type": "$type"}}}
    assert DERIVED_MAPPING.translate_pipeline([group_stage]) == [
        {"$group": {"_id": {"status": expression, "type": "$kind"}}}
    ]
    assert DERIVED_MAPPING.projection(("status", "type")) == {
        "_id": False,
        "kind": True,
        "_status": expression,
    }
    assert DERIVED_MAPPING.to_contract({"_status": "leased", "kind": "a"}) == {
        "status": "leased",
        "type": "a",
    }


def test_index_keys_are_translated_only_if_the_fields_are_stored() -> None:
    by_status = [("status", 1), ("createdAt", -1), ("_id", -1), ("type", 1)]
    assert RENAMED_MAPPING.translate_keys(by_status) == [
        ("state", 1),
        ("made.at", -1),
        ("_id", -1),
        ("kind", 1),
    ]
    assert RENAMED_MAPPING.translate_keys([("createdBy", 1), ("createdAt", -1)]) is None
    assert DERIVED_MAPPING.translate_keys(by_status) is None
    assert ID_MAPPING.translate_keys([("type", 1), ("createdAt", -1), ("_id", -1)]) == [
        ("kind", 1),
        ("_id", -1),
    ]
    # MongoDB's own index on _id, which is ascending, replaces an index that begins with _id.
    assert ID_MAPPING.translate_keys([("createdAt", -1), ("_id", -1)]) == [("_id", 1)]
    assert ID_MAPPING.translate_keys([("jobId", 1)]) == [("_id", 1)]


def test_a_sort_order_omits_fields_without_a_path() -> None:
    order = [("createdAt", -1), ("_id", -1), ("nextRunAt", 1)]
    assert ID_MAPPING.translate_order(order) == [("_id", -1)]


def test_an_expression_is_translated_except_its_literals_and_variables() -> None:
    expression = {"$cond": [{"$eq": ["$type", {"$literal": "$type"}]}, "$$NOW", "$nextRunAt"]}
    assert RENAMED_MAPPING.translate_expression(expression) == {
        "$cond": [{"$eq": ["$kind", {"$literal": "$type"}]}, "$$NOW", None]
    }
    assert RENAMED_MAPPING.translate_expression("$type", under="_job") == "$_job.kind"
    assert ID_MAPPING.translate_expression("$createdAt", under="_job") == {
        "$convert": {"input": "$_job._id", "to": "date", "onError": None}
    }


def test_a_projection_omits_a_path_inside_another_path() -> None:
    mapping = FieldMapping(paths={"payload": "data", "createdBy": "data.user.id", "jobId": "_id"})
    assert mapping.projection(("payload", "createdBy")) == {"_id": False, "data": True}
    assert mapping.projection(("createdBy", "jobId")) == {"_id": True, "data.user.id": True}
    assert mapping.projection(None) == {"_id": True, "data": True}


def test_a_read_without_fields_reads_only_the_id(
    watched: Any, make_settings: Callable[..., Settings]
) -> None:
    """Catches a projection that leaves out `_id`, and so reads all other fields."""
    watched.jobs.insert_one({"_id": 1, "payload": "large"})
    jobs = Connection(make_settings(), watched.client).jobs
    assert jobs.find({}, ()) == [{"_id": 1}]
    assert jobs.find({}, ["payload"]) == [{"payload": "large"}]


def test_a_document_gets_the_names_and_values_of_the_contract() -> None:
    document: dict[str, Any] = {"_id": 7, "kind": "a", "state": "ok", "status": 9}
    document |= {"made": {"at": NOW}, "locked_at": NOW}
    assert RENAMED_MAPPING.to_contract(document) == {
        "_id": 7,
        "type": "a",
        "status": "succeeded",
        "createdAt": NOW,
        "leaseExpiresAt": NOW + timedelta(minutes=10),
    }
    assert RENAMED_MAPPING.to_contract(
        {"_id": 7, "made": "then", "state": ["ok"], "locked_at": "now"}
    ) == {"_id": 7, "status": ["ok"], "leaseExpiresAt": "now"}
    assert ID_MAPPING.to_contract({"_id": ID}) == {
        "_id": ID,
        "jobId": ID,
        "createdAt": ID.generation_time,
    }
    job_without_date = {"_id": "text", "jobId": "text", "createdAt": None}
    assert ID_MAPPING.to_contract({"_id": "text"}) == job_without_date


STATUS_MAPPING = replace(
    make_mapping(status="done"),
    statuses={"true": "succeeded", "false": "queued", "null": "unseen", "1": "leased"},
)


@pytest.mark.parametrize(
    ("value", "status"),
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
def test_status_names_map_each_stored_value_by_its_label(value: Any, status: Any) -> None:
    assert STATUS_MAPPING.to_contract_status(value) == status
    assert STATUS_MAPPING.to_contract({"_id": 1, "done": value})["status"] == status
    query = STATUS_MAPPING.translate_query({"status": label(status)})["done"]
    assert value in (query["$in"] if isinstance(query, dict) else [query])


def test_label_null_means_a_missing_status_and_not_the_text_null() -> None:
    assert STATUS_MAPPING.to_contract({"_id": 1})["status"] == "unseen"
    assert "status" not in make_mapping().to_contract({"_id": 1})
    assert make_mapping().translate_query({"status": "null"}) == {"status": None}
    # In quotes, the label means the text `null`.
    assert make_mapping().translate_query({"status": '"null"'}) == {
        "status": {"$in": ['"null"', "null"]}
    }


def test_a_condition_for_arrays_applies_to_the_field_and_each_of_its_parents() -> None:
    mapping = FieldMapping(paths={"createdBy": "input.user.id"})
    paths = ("input", "input.user", "input.user.id")
    assert mapping.translate_query({"createdBy": IS_ARRAY}) == {
        "$or": [{path: IS_ARRAY} for path in paths]
    }


def test_a_profile_whose_status_mapping_is_changed_has_no_transitions(tmp_path: Path) -> None:
    """Catches a profile that cannot be loaded, and an action that writes to the wrong field."""
    agenda = load_profile("agenda")
    assert agenda.content["transitions"]
    for change in ({"fields": {"status": "state"}}, {"statuses": {"odd": "queued"}}):
        unchanged = {"fields": {}, "statuses": {}, "attempt_fields": {}, "attempt_statuses": {}}
        assert "transitions" not in agenda.override(**unchanged | change).content
    path = tmp_path / "shop.toml"
    path.write_text('extends = "agenda"\n[status]\npath = "state"')
    assert "transitions" not in load_profile(str(path)).content


def test_settings_replace_fields_and_add_status_names_to_a_profile() -> None:
    def load_mapping(**settings: Any) -> FieldMapping:
        return Profile.from_settings(Settings(mongo_uri="mongodb://db", **settings)).jobs

    celery = load_mapping(profile="celery")
    assert "createdAt" in celery.missing_fields
    assert load_mapping(profile="celery", job_fields={"createdAt": "made"}).has_creation_time
    celery_with_progress = load_mapping(profile="celery", status_names={"PROGRESS": "leased"})
    assert celery_with_progress.to_contract_status("PROGRESS") == "leased"
    assert celery.to_contract_status("PROGRESS") == "PROGRESS"
    agenda = load_mapping(profile="agenda")
    assert agenda.missing_fields == {"createdBy", "maxAttempts", "updatedAt"}
    fields = {"status": "state", "leaseExpiresAt": "until"}
    mapping = load_mapping(profile="agenda", job_fields=fields)
    assert mapping.translate_query({"status": "dlq"}) == {"state": "dlq"}
    assert mapping.translate_query({"leaseExpiresAt": {"$lt": NOW}}) == {"until": {"$lt": NOW}}


def test_query_for_an_empty_list_of_types_matches_no_job() -> None:
    """Catches an empty `$or`, which the server refuses, for a type that is in one of two fields."""
    mapping = FieldMapping(paths={"jobId": "_id"}, alternatives={"type": ("task", "workflow")})
    assert mapping.translate_query({"type": {"$in": []}}) == MATCHES_NOTHING


def test_a_date_beyond_the_years_of_python_is_mapped_and_queried() -> None:
    """Catches a list that fails for all jobs, because one lease ends after the year 9999."""
    last = datetime.max.replace(microsecond=999_000, tzinfo=UTC)
    job = RENAMED_MAPPING.to_contract({"_id": ID, "locked_at": last})
    assert job["leaseExpiresAt"] == DatetimeMS(int(DatetimeMS(last)) + 600_000)
    first = datetime.min.replace(tzinfo=UTC)
    query = RENAMED_MAPPING.translate_query({"leaseExpiresAt": {"$gte": first}})
    assert query == {"locked_at": {"$gte": first}}
