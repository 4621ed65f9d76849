"""Tables: catches a text that controls the terminal, and an unknown number shown as 0."""

from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from jobmon.terminal.client import ApiClient
from jobmon.terminal.tables import (
    ERRORS,
    JOBS,
    TYPES,
    describe_meta,
    format_plain,
    format_time,
    show_job,
    show_list,
    show_notices,
    show_stats,
)

from ..conftest import NOW
from .conftest import HOSTILE


def render_text(renderable: RenderableType, width: int = 200) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("", ""),
        (0, "0"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202ex", "\\u202ex"),
        ("Grüße 你", "Grüße 你"),
    ],
)
def test_text_is_one_line_without_control_characters(value: object, text: str) -> None:
    assert format_plain(value) == text


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [
        (timedelta(seconds=90), "02:58:30 (1 min 30 s ago)"),
        (timedelta(seconds=-90), "03:01:30 (in 1 min 30 s)"),
    ],
)
def test_time_shows_its_distance_from_now(elapsed: timedelta, text: str) -> None:
    assert format_time((NOW - elapsed).isoformat(), NOW) == text


def test_time_of_another_day_has_its_date_and_an_unknown_time_is_a_dash() -> None:
    past = NOW - timedelta(days=2)
    assert format_time(past.isoformat(), NOW) == f"{past:%Y-%m-%d %H:%M:%S} (2 d ago)"
    assert format_time(None) == "–"
    for text in ("+012026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"):  # a job can have any text
        assert format_time(text) == text


def test_job_cannot_control_the_terminal(client: ApiClient) -> None:
    for renderable in (
        show_job(client.get_job("dead")),
        show_list(JOBS, client.get_jobs()["data"]),
        show_list(TYPES, [make_type(HOSTILE)]),
    ):
        text = render_text(renderable)
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "x\\x1b[2J\\x1b]0;owned\\x07\\u202ey[red]z" in text  # markup is text, too


def test_job_shows_its_explanation_error_and_attempts(client: ApiClient) -> None:
    text = render_text(show_job(client.get_job("dead")))
    assert "dead" in text.splitlines()[0]
    assert client.get_job("dead")["explanation"]["text"].split(":")[0] in text
    assert "E1: " in text
    assert "w-1" in text
    assert "2 s" in text
    assert "s3cret" not in text


def test_list_keeps_ids_whole_in_a_narrow_terminal(client: ApiClient) -> None:
    (job, *_) = client.get_jobs(status="dlq")["data"]
    job["jobId"] = "0" * 36
    assert "0" * 36 in render_text(show_list(JOBS, [job]), width=80)


def test_unknown_numbers_are_a_dash(client: ApiClient) -> None:
    stats, queue = client.get_stats(), client.get_queue()
    counts = render_text(show_stats(stats, queue)).splitlines()[1].split()
    assert counts[:2] == ["3", "0"]  # due and scheduled jobs
    hour = {"finishedPerMinute": 2.0, "failureRate": 0.25}
    text = render_text(show_stats(stats, queue | hour))
    assert "last hour: 2/min finished, 25% of them failed" in " ".join(text.split())
    assert "oldest queued job: none" in render_text(
        show_stats(stats | {"oldestQueuedJobAgeMs": 0}, queue)
    )
    stats |= {"dueJobs": None, "statusCounts": None, "oldestQueuedJobAgeMs": None}
    stats |= {"reasons": {"dueJobs": "it took too long"}}
    text = render_text(show_stats(stats, queue))
    assert set(text.splitlines()[1].split()) <= {"–", "0"}
    assert "oldest queued job: –" in text
    assert "dueJobs: it took too long" in text
    uncounted = make_type("a") | {"statusCounts": None}
    row = render_text(show_list(TYPES, [uncounted])).splitlines()[-1]
    assert row.split()[1] == "–"  # queued jobs


def test_nothing_needs_attention_only_if_everything_was_checked() -> None:
    def list_lines(**queue: Any) -> list[str]:
        return [text.plain for text in show_notices(queue)]

    bad = {"level": "bad", "text": "12 jobs died"}
    assert list_lines(notices=[bad], unchecked=[]) == ["! 12 jobs died"]
    assert list_lines(notices=[bad | {"isMuted": True}]) == ["! 12 jobs died (muted)"]
    assert list_lines(notices=[], unchecked=["Not checked: leases."]) == ["Not checked: leases."]
    assert list_lines(notices=[], unchecked=[]) == ["nothing needs attention"]
    assert list_lines(notices=None) == ["notices: unknown"]


def test_numbers_that_may_be_too_low_are_explained() -> None:
    """Catches a window that is half counted, or has a gap, and looks like a quiet queue."""
    start, end = NOW.isoformat(), (NOW + timedelta(minutes=5)).isoformat()
    gaps = [{"from": start, "to": end}]
    meta = {"reasons": {"data": "why"}, "is_complete": False, "gaps": gaps}
    assert describe_meta(meta) == [
        "data: why",
        "the collector is still counting this window: numbers may be too low",
        f"runs may be missing between {start} and {end}",
    ]
    assert describe_meta({"reasons": {}, "is_complete": True, "gaps": []}) == []


def test_error_groups_show_count_growth_and_cause() -> None:
    group = {
        "id": "54247c54f044c45f", "code": "E1", "pattern": "no <number>", "status": "new",
        "count": 1_234, "previousCount": 0, "typeCounts": {"mail": 1_234}, "lastSeen": None,
    }  # fmt: skip
    cells = render_text(show_list(ERRORS, [group])).splitlines()[1].split()
    assert cells == ["1,234", "0", "E1", "no", "<number>", "mail", "–", "54247c54f044c45f"]


def make_type(name: str) -> dict[str, Any]:
    return {
        "type": name, "statusCounts": {"queued": 2}, "finishedPerMinute": 1.0,
        "failureRate": None, "waitMs": {"p95": None}, "runMs": {"p95": 5},
    }  # fmt: skip
