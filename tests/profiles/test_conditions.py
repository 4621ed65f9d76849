"""Conditions of profiles: catches a query and an expression that match different documents."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from jobmon.profiles.conditions import (
    list_index_fields,
    negate_query,
    parse_query,
    resolve_now,
    select_indexable,
    to_expression,
)
from jobmon.profiles.stored_values import encode_date

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
STORED_VALUES: list[Any] = [
    None, True, False, 0, 1, 7, 7.5, -3, "", "a", "b", NOW - HOUR, NOW + HOUR,
    encode_date(NOW + HOUR, "iso"), encode_date(NOW - HOUR, "iso"), {"b": 1}, ObjectId(),
    [], [None], [1, None], [1, "a"], [True], [7.5, {"b": 1}], [{"b": 2}, {"b": 1}], {"b": [1, 2]},
]  # fmt: skip
NULL = "$null"
QUERIES: list[dict[str, Any]] = [
    {"a": NULL},
    {"a": {"$ne": NULL}},
    {"a": True},
    {"a": {"$ne": True}},
    {"a": {"$not": {"$eq": NULL}}},
    {"a": {"$gt": 1}},
    {"a": {"$gte": 1, "$lt": 7.5}},
    {"a": {"$lt": 1}},
    {"a": {"$gt": "a"}},
    {"a": {"$gt": "$now"}},
    {"a": {"$lte": "$now"}},
    {"a": {"$in": [1, "a", NULL]}},
    {"a": {"$nin": [1, "a", NULL]}},
    {"a": {"$exists": True}},
    {"a": {"$exists": False}},
    {"a": {"$type": "number"}},
    {"a": {"$type": ["date", "string"]}},
    {"a": {"$not": {"$gt": 1}}},
    {"a.b": 1},
    {"a.b": {"$gt": 1}},
    {"a.0": {"$exists": True}},
    {"a.0": 1},
    {"a.1.b": 1},
    {"a": {"$size": 2}},
    {"a": {"$gt": 0}, "n": {"$lt": 9}},
    {"$or": [{"a": 1}, {"a": "a"}]},
    {"$nor": [{"a": 1}, {"a": {"$ne": NULL}}]},
    {"$and": [{"a": {"$ne": NULL}}, {"n": {"$gt": 3}}]},
    {"$expr": {"$gt": ["$n", 4]}, "a": {"$ne": NULL}},
]


DATE_FORMATS = ["date", "iso", "seconds", "milliseconds", "microseconds"]
NOW_QUERIES = [query for query in QUERIES if "$now" in str(query)]


@pytest.mark.parametrize(
    ("query", "date_format"),
    [*product(QUERIES, DATE_FORMATS[:1]), *product(NOW_QUERIES, DATE_FORMATS[1:])],
    ids=str,
)
def test_a_query_and_its_expression_match_the_same_documents(
    database: Database[dict[str, Any]], query: dict[str, Any], date_format: str
) -> None:
    # The first document lacks `a`, but matches each condition on a large `n`.
    documents: list[dict[str, Any]] = [{"n": 99}, *({"a": value} for value in STORED_VALUES)]
    documents += [{"a": encode_date(NOW + sign * HOUR, date_format)} for sign in (1, -1)]
    documents = [{"n": index} | document for index, document in enumerate(documents)]
    database.c.insert_many(documents)
    parsed = parse_query(query, {}, {"a": date_format}, ())

    def find_numbers(database_query: Any) -> set[int]:
        return {document["n"] for document in database.c.find(database_query)}

    matching = find_numbers(resolve_now(parsed, datetime.now(UTC)))
    assert find_numbers({"$expr": to_expression(parsed)}) == matching
    # The part that an index can serve, and the negation, may match more documents than necessary.
    assert matching <= find_numbers(resolve_now(select_indexable(parsed), datetime.now(UTC)))
    assert matching
    if negated := negate_query(parsed):
        not_matching = {document["n"] for document in documents} - matching
        assert not_matching <= find_numbers(negated)


def test_index_fields_and_indexable_clauses_leave_out_expressions() -> None:
    assert list_index_fields({"a": {"$ne": None}, "b": 1, "$expr": True}) == (["a", "b"], False)
    assert list_index_fields({"a": True}) == (["a"], True)
    assert select_indexable({"$or": [{"a": 1}, {"$expr": 1}]}) == {}
    assert select_indexable({"$and": [{"a": 1}, {"$expr": 1}]}) == {"$and": [{"a": 1}]}
