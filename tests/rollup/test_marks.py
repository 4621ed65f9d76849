"""Marks: catches a text that changes how a page or terminal looks, a mark of another queue that is
shown, a list that grows without limit, and an empty list although the marks could not be read."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from pymongo.errors import OperationFailure

from jobmon.redaction.redactor import Redactor
from jobmon.rollup import marks
from jobmon.rollup.documents import FORMAT, MARKS, OwnDatabase, state_database
from jobmon.rollup.marks import Mark, MarkError, MarkReader
from jobmon.store.connection import Connection

from ..conftest import NOW, Api

MINUTE = timedelta(minutes=1)
PATH = "/admin/jobs/timeseries"
WINDOW = {"from": NOW.isoformat(), "to": (NOW + 60 * MINUTE).isoformat()}


@pytest.fixture(autouse=True)
def _disable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "CACHE_S", 0)


def open_database(api: Api) -> OwnDatabase:
    connection: Connection = api.app.extensions["jobmon_connection"]
    return OwnDatabase(state_database(connection), connection.queue_key)


def store_mark(api: Api, minute: float, text: str, /, **changes: Any) -> None:
    """Store a mark at this minute of the window; `changes` replace fields, or omit them if "-"."""
    fields = {"at": NOW + minute * MINUTE, "text": text, "link": None}
    document = open_database(api).new(f"{minute}/{text}", fields) | changes
    open_database(api)[MARKS].insert_one(
        {name: value for name, value in document.items() if value != "-"}
    )


def read_marks(api: Api) -> list[tuple[str, str | None]]:
    """The text and the link of each mark of the window."""
    meta = api.get_as_admin(PATH, **WINDOW).json["meta"]
    return [(mark["text"], mark["link"]) for mark in meta["marks"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \u3000", "is empty"),
        ("v" * 201, "has more than 200 characters"),
        ("v2\x1b[31m", "contains U+001B, a character that is not printed"),
        ("v2\n", "contains U+000A, a character that is not printed"),
        ("v2\u202eexe.gpj", "contains U+202E, a character that is not printed"),
        ("v2\udcff", "contains U+DCFF, a character that is not printed"),
    ],
)
def test_text_that_is_empty_too_long_or_not_printable_is_refused_with_the_reason(
    text: str, message: str
) -> None:
    with pytest.raises(MarkError) as refusal:
        Mark(at=NOW, text=text)
    assert (refusal.value.field, str(refusal.value)) == ("text", message)


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JAVASCRIPT://example.com/%0aalert(1)",
        "//example.com/1",
        "https://",
        "https://[",
        "https://example.com/a b",
        "data:text/html,x",
        f"https://example.com/{'a' * 500}",
    ],
)
def test_link_that_is_no_web_address_is_refused(link: str) -> None:
    with pytest.raises(MarkError) as refusal:
        Mark(at=NOW, text="v1", link=link)
    assert refusal.value.field == "link"


def test_time_must_be_in_the_retained_history_or_less_than_5_minutes_ahead() -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    for distance in (-399 * day, 4 * MINUTE):
        Mark(at=now + distance, text="v1").require_within(400 * day, now)
    for distance, message in ((6 * MINUTE, "future"), (-400 * day, "400 days")):
        with pytest.raises(MarkError, match=message):
            Mark(at=now + distance, text="v1").require_within(400 * day, now)


def test_series_has_the_marks_of_its_window_in_order(api: Api) -> None:
    for minute, text in ((60, "after"), (59.9, "last"), (0, "first"), (-0.1, "before")):
        store_mark(api, minute, text, link=f"https://ci.example.com/{text}")
    meta = api.get_as_admin(PATH, **WINDOW).json["meta"]
    assert [mark["text"] for mark in meta["marks"]] == ["first", "last"]
    assert meta["marks"][0] == {
        "at": f"{NOW:%Y-%m-%dT%H:%M}:00.000Z",
        "text": "first",
        "link": "https://ci.example.com/first",
    }
    assert meta["omitted_marks"] == 0
    assert api.get_as_admin(PATH, type="a", **WINDOW).json["meta"]["marks"] == meta["marks"]


def test_new_mark_is_shown_even_if_the_history_is_unchanged(api: Api) -> None:
    store_mark(api, 1, "v1")
    assert read_marks(api) == [("v1", None)]
    store_mark(api, 2, "v2")
    assert read_marks(api) == [("v1", None), ("v2", None)]


def test_newest_marks_are_shown_and_older_marks_are_only_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "MAX_SHOWN", 2)
    for minute in range(5):
        store_mark(api, minute, f"v{minute}")
    meta = api.get_as_admin(PATH, **WINDOW).json["meta"]
    assert [mark["text"] for mark in meta["marks"]] == ["v3", "v4"]
    assert meta["omitted_marks"] == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"queue": "another"},
        {"format": FORMAT + 1},
        {"text": "-"},
        {"text": 7},
        {"text": "v\x00"},
        {"at": "now"},
        {"link": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_marks_of_another_queue_or_format_or_with_invalid_fields_are_skipped(
    api: Api, changes: dict[str, Any]
) -> None:
    store_mark(api, 1, "skipped", **changes)
    store_mark(api, 2, "shown", unknown="ignored")
    assert read_marks(api) == [("shown", None)]


def test_secrets_in_stored_marks_are_redacted(api: Api) -> None:
    store_mark(
        api, 1, "v2 password=hunter2hunter2", link="https://ci.example.com/?token=abcdefgh1234"
    )
    ((text, link),) = read_marks(api)
    assert text == "v2 password=[redacted]"
    assert link == "https://ci.example.com/?token=[redacted]"


def test_without_the_right_to_read_marks_are_none_and_each_reader_logs_this_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches an empty list, which would mean that nothing was deployed."""
    refuse = Mock(side_effect=OperationFailure("not authorized", 13))
    monkeypatch.setattr(OwnDatabase, "__getitem__", refuse)
    for _ in range(2):
        connection: Connection = api.app.extensions["jobmon_connection"]
        reader = MarkReader(connection, connection, Redactor())
        assert reader.find(NOW, NOW + MINUTE) is None
        assert reader.find(NOW, NOW + MINUTE) is None
    assert caplog.text.count("no right to read") == 2
    monkeypatch.setattr(marks, "state_database", Mock(side_effect=OperationFailure("slow", 50)))
    with pytest.raises(OperationFailure):
        reader.find(NOW, NOW + MINUTE)
