"""A job's life in steps: would catch a step that is missing, told twice, or takes less than no
time, and a job that another program wrote and that cannot be told at all."""

from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from jobmon.api.schemas import JobDetail
from jobmon.dashboard.timeline import MAX_ATTEMPTS, TimelineStep, is_finished, timeline
from jobmon.redaction import Redactor

from ..conftest import DATE

AT = DATE + "T03:00:{:02d}.000Z"
NOW = datetime.fromisoformat(AT.format(5))
JOB: dict[str, Any] = {
    "status": "queued",
    "createdBy": None,
    "createdAt": AT.format(0),
    "nextRunAt": None,
    "maxAttempts": 3,
    "attemptCount": 0,
    "leasedBy": None,
    "leaseExpiresAt": None,
    "finishedAt": None,
    "attempts": [],
}


def attempt(number: int | None, status: str | None = "failed", **more: Any) -> dict[str, Any]:
    return {
        "attemptNumber": number,
        "status": status,
        "workerId": "w1",
        "startedAt": None,
        "finishedAt": None,
        "waitMs": None,
        "durationMs": None,
        "error": None,
    } | more


def steps(**more: Any) -> list[TimelineStep]:
    return timeline(JOB | more, NOW)


def told(**more: Any) -> list[tuple[str, str, bool]]:
    return [(step.name, step.note, step.to_come) for step in steps(**more)]


ENQUEUED = ("Enqueued", "", False)


@pytest.mark.parametrize(
    ("job", "rest"),
    [
        ({}, []),
        ({"status": None}, []),
        ({"status": "odd", "nextRunAt": AT.format(9)}, []),
        ({"nextRunAt": AT.format(9)}, [("Due", "attempt 1 of 3", True)]),
        (
            {"status": "failed", "nextRunAt": AT.format(9), "attemptCount": 1},
            [("Next retry", "attempt 2 of 3", True)],
        ),
        (
            {"status": "failed", "nextRunAt": AT.format(9), "maxAttempts": None},
            [("Next retry", "", True)],
        ),
        (
            {"nextRunAt": AT.format(9), "attemptCount": None},
            [("Due", "attempt ? of 3", True)],
        ),
        (
            {"status": "leased", "leasedBy": "w1", "leaseExpiresAt": AT.format(9)},
            [("Lease expires", "w1", True)],
        ),
        ({"status": "leased"}, [("Lease expires", "", True)]),
        (
            {"status": "leased", "leasedBy": "w1", "leaseExpiresAt": AT.format(1)},
            [("Lease expired", "w1", False)],
        ),
        (
            {"status": "leased", "leaseExpiresAt": "no date"},
            [("Lease expires", "", True)],
        ),
        ({"status": "succeeded", "finishedAt": AT.format(9)}, [("Succeeded", "", False)]),
        ({"status": "dlq", "finishedAt": AT.format(9)}, [("Dead", "", False)]),
        ({"status": "cancelled", "finishedAt": AT.format(9)}, [("Cancelled", "", False)]),
        ({"status": "odd", "finishedAt": AT.format(9)}, [("Finished", "", False)]),
        ({"status": None, "finishedAt": AT.format(9)}, [("Finished", "", False)]),
        ({"status": "succeeded"}, []),
    ],
)
def test_each_status_ends_as_it_must(job: dict[str, Any], rest: list[Any]) -> None:
    assert told(**job) == [ENQUEUED, *rest]


def test_waits_and_runs_are_told_from_what_came_before() -> None:
    life = steps(
        createdBy="ada",
        status="succeeded",
        finishedAt=AT.format(30),
        attempts=[
            attempt(1, startedAt=AT.format(5), finishedAt=AT.format(6), durationMs=1_000),
            attempt(2, "succeeded", startedAt=AT.format(20), finishedAt=AT.format(30), waitMs=250),
        ],
    )
    assert [(step.name, step.note, step.wait_ms, step.run_ms) for step in life] == [
        ("Enqueued", "by ada", None, None),
        ("Attempt 1", "failed on w1", 5_000, 1_000),
        ("Attempt 2", "succeeded on w1", 250, None),  # since it was due, not since it failed
        ("Succeeded", "", 30_000, None),
    ]


def test_when_it_became_due_is_told_where_it_was_not_at_once() -> None:
    life = steps(
        attempts=[
            attempt(1, eligibleAt=AT.format(0), startedAt=AT.format(1), finishedAt=AT.format(2)),
            attempt(2, eligibleAt=AT.format(7), startedAt=AT.format(9), waitMs=2_000),
            attempt(3, eligibleAt=AT.format(3), startedAt=AT.format(12)),
        ]
    )
    assert [(step.name, step.note, step.at) for step in life[1:4]] == [
        ("Attempt 1", "failed on w1", AT.format(1)),
        ("Due again", "after 5.0 s", AT.format(7)),
        ("Attempt 2", "failed on w1", AT.format(9)),
    ]
    assert [step.name for step in life[4:]] == ["Attempt 3"]  # its time cannot be told


def test_a_last_attempt_without_a_number_waited_nobody_knows_how_long() -> None:
    """Of a job that runs every hour, the last run is told: it has not waited since creation."""
    last = attempt(None, "succeeded", startedAt=AT.format(40), finishedAt=AT.format(45))
    (step,) = steps(attempts=[last])[1:]
    assert (step.name, step.at, step.wait_ms) == ("Last attempt", AT.format(40), None)
    one_of_two = [attempt(None, "failed", startedAt=AT.format(1)), attempt(2, "succeeded")]
    assert [step.name for step in steps(attempts=one_of_two)[1:]] == ["Attempt ?", "Attempt 2"]


def test_a_lease_of_which_no_end_is_told_runs_out_at_no_time() -> None:
    assert told(status="leased", attempts=[attempt(1, "running")]) == [
        ENQUEUED,
        ("Attempt 1", "running on w1", False),
    ]


def test_attempts_have_the_colour_of_what_they_came_to() -> None:
    statuses = ["running", "succeeded", "failed", "expired", "odd", None]
    life = steps(attempts=[attempt(1, status, workerId=None) for status in statuses])
    assert [step.status for step in life[1:]] == [
        "leased",
        "succeeded",
        "failed",
        "failed",
        "odd",
        "",
    ]
    assert life[-1].note == "unknown on an unnamed worker"


def test_clocks_that_differ_make_no_negative_times() -> None:
    early = attempt(1, startedAt=f"{DATE}T02:59:58.000Z", finishedAt=AT.format(0), durationMs=-5)
    life = steps(status="dlq", finishedAt=f"{DATE}T02:00:00.000Z", attempts=[early])
    assert [(step.wait_ms, step.run_ms) for step in life[1:]] == [(0, 0), (0, None)]


@pytest.mark.parametrize("odd", [None, "yesterday", "", "+275760-09-13T00:00:00.000Z", "[1, 2]"])
def test_what_is_no_date_is_shown_and_measures_nothing(odd: str | None) -> None:
    life = steps(
        createdAt=odd,
        status="succeeded",
        finishedAt=AT.format(9),
        attempts=[attempt(None, startedAt=odd, finishedAt=odd), attempt(2, startedAt=AT.format(5))],
    )
    assert [step.at for step in life] == [odd, odd, AT.format(5), AT.format(9)]
    assert [step.wait_ms for step in life] == [None] * 4
    assert life[1].name == "Attempt ?"


def test_of_many_attempts_the_newest_are_shown_and_the_others_counted() -> None:
    many = [
        attempt(number, startedAt=AT.format(5), finishedAt=AT.format(3))
        for number in range(1, 1_001)
    ]
    life = steps(attempts=many)
    assert len(life) == MAX_ATTEMPTS + 2
    assert (life[1].name, life[2].name) == ("950 attempts", "Attempt 951")
    assert life[2].wait_ms == 2_000  # since the last one that is not shown


def test_attempts_embedded_by_another_program_are_told() -> None:
    app = Flask(__name__)
    app.extensions["jobmon_redactor"] = Redactor()
    with app.app_context():
        detail = JobDetail().dump(
            {"jobId": "x", "attempts": [{"attemptNumber": 1, "error": "broken"}]}
        )
    (enqueued, first) = timeline(detail, NOW)
    assert (enqueued.at, enqueued.note) == (None, "")
    assert first.name == "Attempt 1"
    assert first.error == {"code": None, "message": "broken", "stack": None}


@pytest.mark.parametrize(
    ("status", "finished"),
    [
        ("succeeded", True),
        ("dlq", True),
        ("cancelled", True),
        ("queued", False),
        ("leased", False),
        ("failed", False),
        ("odd", False),
        (None, False),
    ],
)
def test_a_page_updates_itself_until_the_job_is_finished(status: Any, finished: bool) -> None:
    assert is_finished(JOB | {"status": status}) is finished
