"""The time axis of a job: catches a part at a wrong position or of a wrong length, a part for a
time without recorded attempts, and a bar that changes with each update."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.dashboard.job_view import AttemptView, JobView
from jobmon.dashboard.time_axis import TimeAxis, make_time_axis

from ..conftest import NOW

START = NOW - timedelta(seconds=100)


def moment_at(offset_s: float) -> datetime:
    """The moment so many seconds after START."""
    return START + timedelta(seconds=offset_s)


def make_attempt(
    number: int | None, status: str, start_s: float, end_s: float | None
) -> AttemptView:
    """An attempt from `start_s` to `end_s` seconds after START; without an end if that is None."""
    finished_at = None if end_s is None else moment_at(end_s)
    return AttemptView(
        number=number, status=status, started_at=moment_at(start_s), finished_at=finished_at
    )


def make_axis(status: str | None = "dlq", now: datetime = NOW, **fields: Any) -> TimeAxis | None:
    return make_time_axis(JobView(**{"status": status, "created_at": START} | fields), now)


def list_parts(axis: TimeAxis | None) -> list[tuple[str, float, float]]:
    """The kind, start and width of each part; start and width in percent of the axis."""
    return [] if axis is None else [(part.kind, part.start, part.width) for part in axis.parts]


def test_axis_can_end_at_the_latest_date() -> None:
    """Catches an OverflowError: some queues write such a date for "never"."""
    latest = datetime.max.replace(tzinfo=UTC)
    axis = make_axis("leased", attempts=[make_attempt(1, "running", 10, None)], now=latest)
    assert axis is not None
    assert axis.end == latest
    assert list_parts(make_axis("queued", next_run_at=latest)) == [("delayed", 0, 100)]


def test_waits_and_runs_of_a_job_are_parts_in_proportion_to_their_time() -> None:
    retried = AttemptView(
        number=2,
        status="succeeded",
        eligible_at=moment_at(50),
        started_at=moment_at(60),
        finished_at=moment_at(100),
    )
    attempts = [make_attempt(1, "failed", 10, 30), retried]
    axis = make_axis("succeeded", attempts=attempts, finished_at=moment_at(100))
    assert list_parts(axis) == [
        ("waiting", 0, 10),
        ("failed", 10, 20),
        ("delayed", 30, 20),
        ("waiting", 50, 10),
        ("succeeded", 60, 40),
    ]
    assert axis is not None
    assert [part.text for part in axis.parts] == [
        "waited 10 s",
        "attempt 1: failed after 20 s",
        "not due for 20 s",
        "waited 10 s",
        "attempt 2: succeeded after 40 s",
    ]
    assert (axis.start, axis.end, axis.is_open) == (START, NOW, False)
    assert axis.marks == ((30, "+30 s"), (60, "+1 min"), (90, "+1 min 30 s"))
    assert axis.legend == {
        "waiting": "waiting",
        "failed": "failed",
        "delayed": "not due",
        "succeeded": "succeeded",
    }


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"status": "queued"}, [("waiting", 0, 100)]),
        ({"status": "queued", "next_run_at": moment_at(200)}, [("delayed", 0, 100)]),
        (
            {"status": "queued", "next_run_at": moment_at(40)},
            [("delayed", 0, 40), ("waiting", 40, 60)],
        ),
        ({"status": "queued", "next_run_at": moment_at(-40)}, [("waiting", 0, 100)]),
        (
            {"status": "leased", "attempts": [make_attempt(1, "running", 20, None)]},
            [("waiting", 0, 20), ("leased", 20, 80)],
        ),
        ({"status": "cancelled", "finished_at": moment_at(50)}, [("waiting", 0, 100)]),
        (  # an expired attempt without an end, of a job that waits again
            {"status": "failed", "attempts": [make_attempt(1, "expired", 20, None)]},
            [("waiting", 0, 20)],
        ),
    ],
)
def test_each_status_has_parts_for_waits_and_runs(fields: dict[str, Any], parts: list[Any]) -> None:
    axis = make_axis(**fields)
    assert list_parts(axis) == parts
    assert axis is not None
    assert axis.is_open == (fields["status"] != "cancelled")


@pytest.mark.parametrize(
    "fields",
    [
        {"created_at": None, "status": "queued"},
        {"created_at": "yesterday", "status": "queued"},
        {"status": "leased"},
        # No attempt is recorded.
        {"status": "dlq", "attempt_count": 3, "finished_at": moment_at(9)},
        {"status": "failed", "attempt_count": 3},
        {"status": "odd"},
        {"status": None},
        {"status": "cancelled", "finished_at": START},
    ],
)
def test_job_without_a_known_wait_or_run_has_no_axis(fields: dict[str, Any]) -> None:
    assert make_axis(**fields) is None


def test_axis_begins_with_the_first_recorded_attempt() -> None:
    axis = make_axis(
        attempts=[make_attempt(4, "failed", 50, 60), make_attempt(5, "failed", 90, 100)]
    )
    assert list_parts(axis) == [("failed", 0, 20), ("waiting", 20, 60), ("failed", 80, 20)]


def test_time_between_runs_of_a_recurring_job_is_not_a_wait() -> None:
    attempts = [make_attempt(1, "succeeded", 0, 20), make_attempt(2, "succeeded", 80, 100)]
    axis = make_axis(
        "queued", moment_at(200), attempts=attempts, recurring=True, next_run_at=moment_at(500)
    )
    assert list_parts(axis) == [("succeeded", 0, 10), ("succeeded", 40, 10)]


def test_clocks_that_differ_give_no_negative_width() -> None:
    attempts = [make_attempt(1, "failed", -5, -9), make_attempt(2, "failed", 40, 30)]
    axis = make_axis(attempts=attempts, finished_at=moment_at(20))
    assert axis is not None
    assert all(part.width >= 0 and 0 <= part.start <= 100 for part in axis.parts)


def test_end_of_an_open_axis_moves_in_steps() -> None:
    """Catches a page whose parts change each second, so that no answer is a 304."""
    hour = timedelta(hours=1)
    axes = {
        make_axis("queued", START + hour + timedelta(seconds=seconds)) for seconds in range(1, 20)
    }
    (unchanged_axis,) = axes
    assert make_axis("queued", START + hour + timedelta(seconds=31)) != unchanged_axis
    assert unchanged_axis is not None
    assert [text for _, text in unchanged_axis.marks] == ["+15 min", "+30 min", "+45 min"]


def test_axis_of_many_attempts_shows_the_newest_fifty() -> None:
    attempts = [make_attempt(number, "failed", number, number + 0.5) for number in range(1, 99)]
    axis = make_axis(attempts=attempts)
    assert axis is not None
    assert axis.start == moment_at(48.5)
    assert sum(part.kind == "failed" for part in axis.parts) == 50


@pytest.mark.parametrize("length", [timedelta(milliseconds=3), timedelta(days=20_000)])
def test_axis_of_any_length_has_few_marks(length: timedelta) -> None:
    axis = make_axis("cancelled", finished_at=START + length)
    assert axis is not None
    assert 1 <= len(axis.marks) <= 20
