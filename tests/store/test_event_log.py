"""Attempts from a log of events: catches a run that is shown twice, with the end of another run, or
as running for ever."""

from datetime import timedelta
from typing import Any

import pytest

from jobmon.store.attempts import number_attempts
from jobmon.store.event_log import EventLog

from ..conftest import NOW

LOG = EventLog(same=("worker",))  # the events of a run have the same worker, in `_same0`
Attempt = dict[str, Any]


def make_event(at_s: float, status: str, **fields: Any) -> Attempt:
    """An event of the worker w-1, this many seconds after `NOW`; `fields` replace its fields."""
    time = NOW + timedelta(seconds=at_s)
    return {"_id": f"{at_s:09.3f}", "finishedAt": time, "status": status, "_same0": "w-1"} | fields


def describe(attempts: list[Attempt]) -> list[tuple[Any, ...]]:
    """Status, start and end of each attempt; dates are in seconds after `NOW`."""

    def to_seconds(value: Any) -> Any:
        return (value - NOW).total_seconds() if hasattr(value, "year") else value

    return [
        (
            attempt["status"],
            to_seconds(attempt.get("startedAt")),
            to_seconds(attempt.get("finishedAt")),
        )
        for attempt in attempts
    ]


@pytest.mark.parametrize(
    ("events", "attempts"),
    [
        ([], []),
        ([make_event(1, "running"), make_event(3, "succeeded")], [("succeeded", 1, 3)]),
        (
            [
                make_event(1, "running"),
                make_event(2, "failed"),
                make_event(3, "running"),
                make_event(4, "succeeded"),
            ],
            [("failed", 1, 2), ("succeeded", 3, 4)],
        ),
        ([make_event(1, "running")], [("running", 1, None)]),
        (
            [make_event(1, "running"), make_event(9, "running")],
            [("expired", 1, None), ("running", 9, None)],
        ),
        ([make_event(1, "running"), make_event(2, "expired")], [("expired", 1, 2)]),
        # The lock of w-1 expired, so w-2 ran the job. Later the run of w-1 ended, too.
        (
            [
                make_event(1, "running"),
                make_event(5, "running", _same0="w-2"),
                make_event(6, "succeeded", _same0="w-2"),
                make_event(8, "failed"),
            ],
            [("failed", 1, 8), ("succeeded", 5, 6)],
        ),
        # A second end of a run becomes an attempt of its own, because counts include it.
        (
            [make_event(1, "running"), make_event(5, "failed"), make_event(6, "succeeded")],
            [("failed", 1, 5), ("succeeded", None, 6)],
        ),
        ([make_event(6, "succeeded", _duration=2_500)], [("succeeded", 3.5, 6)]),
        ([make_event(6, "failed", startedAt=NOW)], [("failed", 0, 6)]),
        (
            [make_event(1, "running", _same0=None), make_event(2, "succeeded", _same0=None)],
            [("succeeded", 1, 2)],
        ),
    ],
)
def test_events_are_paired_to_attempts(events: list[Attempt], attempts: list[Any]) -> None:
    assert describe(LOG.pair(events, {"status": "leased"})) == attempts
    assert describe(LOG.pair(events[::-1], {"status": "leased"})) == attempts


def test_run_without_end_of_a_job_that_is_not_leased_is_expired() -> None:
    (attempt,) = LOG.pair([make_event(1, "running")], {"status": "queued"})
    assert attempt["status"] == "expired"


@pytest.mark.parametrize("status", [None, "ignored", 7, ["failed"]], ids=str)
def test_event_with_an_unknown_status_is_ignored(status: Any) -> None:
    unknown_event: Attempt = {"_id": 7, "status": status, "finishedAt": NOW}
    events = [make_event(1, "running"), unknown_event, make_event(3, "succeeded")]
    assert describe(LOG.pair(events, {})) == [("succeeded", 1, 3)]


@pytest.mark.parametrize("time", [None, "yesterday", 7, [NOW]], ids=str)
def test_event_with_an_invalid_time_becomes_an_attempt_that_keeps_the_value(time: Any) -> None:
    odd_event = make_event(0, "failed", finishedAt=time, _duration=5, _same0="w-2")
    attempts = LOG.pair([make_event(1, "running"), odd_event, make_event(3, "succeeded")], {})
    assert describe(attempts) == [("failed", None, time), ("succeeded", 1, 3)]


@pytest.mark.parametrize("duration", [-1, 1e300, float("nan"), "7", True, None], ids=str)
def test_attempt_with_an_invalid_duration_has_no_start(duration: Any) -> None:
    attempts = LOG.pair([make_event(6, "succeeded", _duration=duration)], {})
    assert describe(attempts) == [("succeeded", None, 6)]


def test_duration_is_in_the_unit_of_the_log() -> None:
    log = EventLog(same=(), duration_unit=1_000)
    assert describe(log.pair([make_event(6, "failed", _duration=1.5)], {})) == [("failed", 4.5, 6)]


def test_last_attempt_of_the_job_is_added_unless_it_is_logged() -> None:
    last_attempt = {"status": "running", "startedAt": NOW + timedelta(seconds=9), "workerId": "w-1"}
    job = {"status": "leased", "attempts": [last_attempt], "attemptCount": 3}
    attempts = LOG.pair([make_event(1, "running"), make_event(2, "failed")], job)
    assert describe(attempts) == [("failed", 1, 2), ("running", 9, None)]
    numbered = number_attempts(attempts, job, is_complete=True)
    assert [attempt["attemptNumber"] for attempt in numbered] == [2, 3]
    logged = LOG.pair([make_event(9, "running")], job)
    assert describe(logged) == [("running", 9, None)]


@pytest.mark.parametrize(
    ("count", "is_complete", "numbers"),
    [(0, True, [1, 2]), (1, True, [1, 2]), (7, True, [6, 7]), (7, False, [6, 7])],
)
def test_last_number_is_the_attempt_count_or_the_number_of_attempts_if_that_is_larger(
    count: int, is_complete: bool, numbers: list[int]
) -> None:
    job = {"attemptCount": count}
    numbered = number_attempts([{}, {}], job, is_complete=is_complete)
    assert [attempt["attemptNumber"] for attempt in numbered] == numbers


def test_numbers_are_unknown_if_older_attempts_were_not_read_and_the_count_is_too_small() -> None:
    assert number_attempts([{}, {}], {"attemptCount": 1}, is_complete=False) == [{}, {}]
