"""Parameters of lists: catches a parameter that is read wrongly, and a query that can change."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask, request
from marshmallow import ValidationError

from jobmon.api.parameters import MAX_CACHED
from jobmon.api.queries import ListFormat, ListParameters, ListQuery, OwnListParameters
from jobmon.domain import JobCondition
from jobmon.rollup.buckets import MINUTE
from jobmon.store.cursor import Cursor
from jobmon.store.filter import JobFilter

from ..conftest import DATE


def test_empty_filters_are_ignored() -> None:
    """Catches a 500 of an empty list: its page offers to remove a filter by an empty value."""
    repeatable = ("status", "type")
    names = {*ListParameters().fields} - {"start", "end", "page", "per_page", *repeatable}
    empty = dict.fromkeys((*names, "from", "to"), "") | {name: [""] for name in repeatable}
    assert ListParameters().load(empty) == ListParameters().load({})


def test_list_parameters_make_one_typed_query() -> None:
    cursor = Cursor(date=None, id="a", page=3, oldest_first=True)
    query = ListParameters().load(
        {
            "status": ["dlq", ""],
            "type": ["mail"],
            "created_from": f"{DATE}T03:00",
            "sort": "createdAt",
            "per_page": "7",
            "cursor": cursor.encode(),
        }
    )
    start = datetime.fromisoformat(f"{DATE}T03:00").replace(tzinfo=UTC)
    assert query == ListQuery(
        job_filter=JobFilter(statuses=("dlq",), types=("mail",), created_from=start),
        oldest_first=True,
        cursor=cursor,
        per_page=7,
    )
    with pytest.raises(FrozenInstanceError):
        query.page = 2


def test_window_of_a_list_limits_the_time_of_creation() -> None:
    window = {"from": f"{DATE}T03:00", "to": f"{DATE}T04:00Z"}
    start = datetime.fromisoformat(f"{DATE}T03:00").replace(tzinfo=UTC)
    job_filter = ListParameters().load(window).job_filter
    assert job_filter == JobFilter(created_from=start, created_to=start + timedelta(hours=1))
    job_filter = OwnListParameters().load({"range": "90m", "to": ""}).job_filter
    assert job_filter.created_from is not None
    age = datetime.now(UTC) - job_filter.created_from
    assert timedelta() <= age - timedelta(minutes=90) < MINUTE
    assert job_filter.created_to is None


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"range": "1w"}, "range"),
        ({"range": "1h", "to": f"{DATE}T04:00Z"}, "range"),
        ({"range": "1h", "created_to": f"{DATE}T04:00Z"}, "range"),
        ({"from": f"{DATE}T04:00Z", "created_from": f"{DATE}T04:00Z"}, "from"),
        ({"from": f"{DATE}T04:00Z", "to": f"{DATE}T04:00Z"}, "to"),
    ],
)
def test_error_names_the_bad_parameter_of_a_window(query: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ListParameters().load(query)
    assert list(raised.value.messages_dict) == [parameter]


def test_missing_list_parameters_have_defaults_and_words_become_enum_members() -> None:
    assert ListParameters().load({}) == ListQuery(job_filter=JobFilter())
    query = ListParameters().load({"condition": "due", "format": "csv"})
    assert query.job_filter.condition is JobCondition.DUE
    assert query.format is ListFormat.CSV


def test_confine_to_keeps_the_other_filters() -> None:
    query = OwnListParameters().load({"status": ["dlq"]}).confine_to("ada")
    assert query.job_filter == JobFilter(statuses=("dlq",), owner="ada", is_own=True)


def test_a_bad_cursor_and_a_cursor_of_another_sort_are_refused() -> None:
    cursor = Cursor(date=None, id="a", page=1).encode()
    for query in ({"cursor": cursor, "sort": "createdAt"}, {"cursor": "!"}):
        with pytest.raises(ValidationError) as raised:
            ListParameters().load(query)
        assert list(raised.value.messages_dict) == ["cursor"]


def test_a_repeated_query_is_cached_unless_it_has_a_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a cached `range`: its window would end when it was cached, instead of now."""
    parameters = ListParameters()

    def read(query_string: str) -> ListQuery:
        with Flask("test").test_request_context(f"/?{query_string}"):
            query: ListQuery = parameters.read(request)
            return query

    assert read("status=dlq") is read("status=dlq")
    assert read("status=dlq").job_filter.statuses == ("dlq",)
    assert read("").job_filter.statuses == ()
    for query_string in ("range=15m", "r%61nge=15m"):
        first_start = read(query_string).job_filter.created_from
        later = datetime.now(UTC) + timedelta(hours=1)
        with monkeypatch.context() as patch:
            patch.setattr("jobmon.api.queries.datetime", Mock(now=Mock(return_value=later)))
            later_start = read(query_string).job_filter.created_from
        assert first_start is not None
        assert later_start is not None
        assert later_start - first_start >= timedelta(minutes=59)


def test_the_number_of_cached_queries_is_limited() -> None:
    parameters, app = ListParameters(), Flask("test")
    for page in range(1, 3 * MAX_CACHED):
        with app.test_request_context(f"/?page={page}"):
            assert parameters.read(request).page == page
    assert len(parameters._cached) <= MAX_CACHED
