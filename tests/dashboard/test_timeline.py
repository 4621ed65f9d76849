"""The timeline of a job: catches a step that is missing, shown twice or of negative length, and
a job of another program that cannot be shown."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from jobmon.dashboard.job_view import AttemptView, JobView
from jobmon.dashboard.timeline import MAX_ATTEMPTS, TimelineStep, is_finished, make_timeline
from jobmon.redaction.redactor import Redactor

from ..conftest import DATE

NOW = datetime.fromisoformat(f"{DATE}T03:00:05Z")


def moment_at(second: int) -> datetime:
    """The moment at this second of the minute of NOW; NOW is at second 5."""
    return NOW.replace(second=second)


def make_attempt(number: int | None, status: str | None = "failed", **fields: Any) -> AttemptView:
    return AttemptView(**{"number": number, "status": status, "worker": "w1"} | fields)


def list_steps(**fields: Any) -> list[TimelineStep]:
    """The steps of a job, the oldest first."""
    defaults = {"status": "queued", "created_at": moment_at(0), "max_attempts": 3}
    return make_timeline(JobView(**defaults | fields), NOW)[::-1]


def summarize_steps(**fields: Any) -> list[tuple[str, str, bool]]:
    """For each step of a job: its name, its note and whether it is in the future."""
    return [(step.name, read_note(step), step.is_future) for step in list_steps(**fields)]


def read_note(step: TimelineStep) -> str:
    """The note with the worker, as the page shows them."""
    return " ".join(filter(None, (step.note, step.worker)))


ENQUEUED = ("Enqueued", "", False)


@pytest.mark.parametrize(
    ("fields", "later_steps"),
    [
        ({}, []),
        ({"status": None}, []),
        ({"status": "odd", "next_run_at": moment_at(9)}, []),
        ({"next_run_at": moment_at(9)}, [("Due", "attempt 1 of 3", True)]),
        (
            {"status": "failed", "next_run_at": moment_at(9), "attempt_count": 1},
            [("Next retry", "attempt 2 of 3", True)],
        ),
        (
            {"status": "failed", "next_run_at": moment_at(9), "max_attempts": None},
            [("Next retry", "", True)],
        ),
        ({"next_run_at": moment_at(9), "attempt_count": None}, [("Due", "attempt ? of 3", True)]),
        ({"next_run_at": moment_at(9), "attempt_count": 3}, [("Due", "attempt 4", True)]),
        (
            {"status": "leased", "leased_by": "w1", "lease_expires_at": moment_at(9)},
            [("Lease expires", "w1", True)],
        ),
        ({"status": "leased"}, [("Lease expires", "", True)]),
        (
            {"status": "leased", "leased_by": "w1", "lease_expires_at": moment_at(1)},
            [("Lease expired", "w1", False)],
        ),
        ({"status": "leased", "lease_expires_at": "no date"}, [("Lease expires", "", True)]),
        ({"status": "succeeded", "finished_at": moment_at(9)}, [("Succeeded", "", False)]),
        ({"status": "dlq", "finished_at": moment_at(9)}, [("Dead", "", False)]),
        ({"status": "cancelled", "finished_at": moment_at(9)}, [("Cancelled", "", False)]),
        ({"status": "odd", "finished_at": moment_at(9)}, [("Finished", "", False)]),
        ({"status": None, "finished_at": moment_at(9)}, [("Finished", "", False)]),
        ({"status": "succeeded"}, []),
    ],
)
def test_timeline_of_each_status_ends_with_its_last_step(
    fields: dict[str, Any], later_steps: list[Any]
) -> None:
    assert summarize_steps(**fields) == [ENQUEUED, *later_steps]


def test_steps_have_the_time_that_an_attempt_waited_and_ran() -> None:
    steps = list_steps(
        owner="ada",
        status="succeeded",
        finished_at=moment_at(30),
        attempts=[
            make_attempt(1, started_at=moment_at(5), finished_at=moment_at(6), run_ms=1_000),
            make_attempt(
                2, "succeeded", started_at=moment_at(20), finished_at=moment_at(30), wait_ms=250
            ),
        ],
    )
    assert [
        (step.name, read_note(step), step.wait_ms, step.run_ms, step.total_ms) for step in steps
    ] == [
        ("Enqueued", "by ada", None, None, None),
        ("Attempt 1", "failed on w1", 5_000, 1_000, None),
        # It waited since its retry was due, not since attempt 1 failed.
        ("Attempt 2", "succeeded on w1", 250, None, None),
        ("Succeeded", "", None, None, 30_000),
    ]


def test_attempt_that_became_due_later_has_a_delay() -> None:
    steps = list_steps(
        attempts=[
            make_attempt(
                1, eligible_at=moment_at(0), started_at=moment_at(1), finished_at=moment_at(2)
            ),
            make_attempt(
                2, "expired", eligible_at=moment_at(7), started_at=moment_at(9), wait_ms=2_000
            ),
            make_attempt(3, eligible_at=moment_at(3), started_at=moment_at(12)),
        ]
    )
    assert [(step.name, step.delay_ms, step.wait_ms) for step in steps[1:]] == [
        ("Attempt 1", None, 1_000),
        ("Attempt 2", 5_000, 2_000),
        ("Attempt 3", None, None),  # the end of attempt 2 is unknown
    ]


def test_newest_step_is_the_first() -> None:
    attempts = [make_attempt(1), make_attempt(2, "expired")]
    job = JobView(status="failed", next_run_at=moment_at(9), attempts=attempts, attempt_count=2)
    assert [(step.key, step.name) for step in make_timeline(job, NOW)] == [
        ("next", "Next retry"),
        ("attempt-2", "Attempt 2"),
        ("attempt-1", "Attempt 1"),
        ("start", "Enqueued"),
    ]
    ended = make_timeline(JobView(status="dlq", finished_at=moment_at(9), attempts=attempts), NOW)
    assert [step.key for step in ended] == ["end", "attempt-2", "attempt-1", "start"]


def make_error(message: str, stack: str | None = None) -> dict[str, str | None]:
    return {"code": "E", "message": message, "stack": stack}


def test_equal_attempts_before_the_newest_are_folded() -> None:
    """Catches forty copies of one error, which hide the different error of the first attempt."""
    attempts = [
        make_attempt(1, error=make_error("refused")),
        make_attempt(2, error=make_error("refused"), started_at=moment_at(2)),
        *(
            make_attempt(
                number, error=make_error("late", f"stack {number}"), started_at=moment_at(number)
            )
            for number in range(3, 9)
        ),
    ]
    newest, folded, first, _ = list_steps(attempts=attempts)[::-1]
    assert (newest.name, read_note(newest), newest.folded) == ("Attempt 8", "failed on w1", ())
    assert (folded.name, read_note(folded), folded.at) == (
        "Attempts 3 to 7",
        "the same error",
        moment_at(7),
    )
    assert folded.error == make_error("late", "stack 7")
    assert [step.name for step in folded.folded] == [
        f"Attempt {number}" for number in (7, 6, 5, 4, 3)
    ]
    assert (first.name, first.error) == ("Attempts 1 to 2", make_error("refused"))
    assert len({newest.key, folded.key, first.key, *(step.key for step in folded.folded)}) == 8


@pytest.mark.parametrize(
    ("earlier", "names"),
    [
        ([make_attempt(1), make_attempt(2, "expired")], ["Attempt 1", "Attempt 2"]),
        (
            [make_attempt(1, "succeeded"), make_attempt(2, "succeeded")],
            ["Attempts 1 to 2: all succeeded"],
        ),
        ([make_attempt(1, None), make_attempt(2, None)], ["Attempts 1 to 2: all unknown"]),
        (
            [make_attempt(1, error=make_error("a")), make_attempt(2, error=make_error("b"))],
            ["Attempt 1", "Attempt 2"],
        ),
        ([make_attempt(None), make_attempt(None)], ["2 attempts: all failed"]),
        (
            [
                make_attempt(1, error=make_error("no answer in 20 s")),
                make_attempt(2, error=make_error("no answer in 3 s")),
            ],
            ["Attempts 1 to 2: the same error"],
        ),
    ],
)
def test_only_equal_attempts_are_folded(earlier: list[AttemptView], names: list[str]) -> None:
    steps = list_steps(attempts=[*earlier, make_attempt(3, "running")])[1:-1]
    shown_names = [f"{step.name}: {step.note}" if step.folded else step.name for step in steps]
    assert shown_names == names


def test_last_attempt_without_a_number_has_no_wait() -> None:
    """A recurring job records only its last run, which did not wait since the job's creation."""
    last = make_attempt(None, "succeeded", started_at=moment_at(40), finished_at=moment_at(45))
    (step,) = list_steps(attempts=[last])[1:]
    assert (step.name, step.at, step.wait_ms) == ("Last attempt", moment_at(40), None)
    attempts = [make_attempt(None, "failed", started_at=moment_at(1)), make_attempt(2, "succeeded")]
    assert [step.name for step in list_steps(attempts=attempts)[1:]] == ["Attempt ?", "Attempt 2"]


def test_lease_without_an_expiry_has_no_step_besides_its_attempt() -> None:
    assert summarize_steps(status="leased", attempts=[make_attempt(1, "running")]) == [
        ENQUEUED,
        ("Attempt 1", "running on w1", False),
    ]


def test_attempts_have_the_colour_of_their_outcome() -> None:
    statuses = ["running", "succeeded", "failed", "expired", "odd", None]
    steps = list_steps(attempts=[make_attempt(1, status, worker=None) for status in statuses])
    assert [step.status for step in steps[1:]] == [
        "leased",
        "succeeded",
        "failed",
        "failed",
        "odd",
        "",
    ]
    assert read_note(steps[-1]) == "unknown on an unnamed worker"


def test_differing_clocks_give_no_negative_durations() -> None:
    early = make_attempt(
        1, started_at=moment_at(0) - timedelta(seconds=2), finished_at=moment_at(0), run_ms=-5
    )
    steps = list_steps(
        status="dlq", finished_at=moment_at(0) - timedelta(hours=1), attempts=[early]
    )
    assert [(step.wait_ms, step.run_ms, step.total_ms) for step in steps[1:]] == [
        (0, 0, None),
        (None, None, 0),
    ]


@pytest.mark.parametrize("value", [None, "yesterday", "", "+275760-09-13T00:00:00.000Z", "[1, 2]"])
def test_value_that_is_no_date_is_shown_without_durations(value: str | None) -> None:
    steps = list_steps(
        created_at=value,
        status="succeeded",
        finished_at=moment_at(9),
        attempts=[
            make_attempt(None, started_at=value, finished_at=value),
            make_attempt(2, started_at=moment_at(5)),
        ],
    )
    assert [step.at for step in steps] == [value, value, moment_at(5), moment_at(9)]
    assert [(step.wait_ms, step.total_ms) for step in steps] == [(None, None)] * 4
    assert steps[1].name == "Attempt ?"


def test_many_attempts_show_the_newest_and_count_the_others() -> None:
    attempts = [
        make_attempt(number, started_at=moment_at(5), finished_at=moment_at(3))
        for number in range(1, 1_001)
    ]
    steps = list_steps(attempts=attempts)
    assert [step.name for step in steps] == [
        "Enqueued",
        "950 attempts",
        "Attempts 951 to 999",
        "Attempt 1,000",
    ]
    assert len(steps[2].folded) == MAX_ATTEMPTS - 1
    assert steps[2].folded[-1].wait_ms == 2_000  # since attempt 950, which is not shown


@pytest.mark.parametrize(
    ("count", "recorded", "name"),
    [(3, 0, "3 attempts"), (3, 2, "1 attempt"), (1, 1, "Earlier runs"), (None, 1, "Earlier runs")],
)
def test_unrecorded_attempts_are_shown_as_a_step(
    count: int | None, recorded: int, name: str
) -> None:
    attempts = [make_attempt(None) for _ in range(recorded)]
    reason = "the queue does not record every attempt"
    steps = list_steps(attempt_count=count, attempts=attempts, missing_attempts=reason)
    assert (steps[1].name, steps[1].note) == (name, reason)
    assert len(steps) == 2 + recorded


@pytest.mark.parametrize("recurring", [True, False])
def test_runs_in_a_program_with_recurring_jobs_have_no_measured_wait(recurring: bool) -> None:
    runs = [
        make_attempt(number, started_at=moment_at(number), finished_at=moment_at(number))
        for number in (1, 2)
    ]
    steps = list_steps(created_at=moment_at(0), attempts=runs, recurring=recurring)
    assert [step.wait_ms for step in steps] == [None, None, None]


def test_attempts_embedded_by_another_program_are_shown() -> None:
    app = Flask(__name__)
    app.extensions["jobmon_redactor"] = Redactor()
    with app.app_context():
        job = JobView.from_document(
            {"jobId": "x", "attempts": [{"attemptNumber": 1, "error": "broken"}]}, detail=True
        )
    (first, enqueued) = make_timeline(job, NOW)
    assert (enqueued.at, enqueued.note) == (None, "")
    assert first.name == "Attempt 1"
    assert first.error == {"code": None, "message": "broken", "stack": None, "group": None}


@pytest.mark.parametrize(
    ("status", "expected"),
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
def test_job_is_finished_only_in_a_final_status(status: Any, expected: bool) -> None:
    assert is_finished(JobView(status=status)) is expected
