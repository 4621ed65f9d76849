"""Statuses and actions of jobs.

Catches a status that is missing or misspelled, and an action that is offered although the dates of
the job do not allow it.
"""

from datetime import timedelta
from typing import Any

import pytest

from jobmon.domain import JobStatus, explain_refusal

from .conftest import NOW

SECOND = timedelta(seconds=1)


def test_job_statuses_are_those_of_the_queue() -> None:
    assert [*JobStatus] == ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]


@pytest.mark.parametrize(
    ("action", "job", "reason"),
    [
        ("run_now", {"nextRunAt": NOW + SECOND}, None),
        ("run_now", {"nextRunAt": (NOW + SECOND).replace(tzinfo=None)}, None),
        ("run_now", {"nextRunAt": NOW}, "it is due already"),
        ("run_now", {"nextRunAt": None}, "it is due already"),
        ("release", {"leaseExpiresAt": NOW}, None),
        ("release", {"leaseExpiresAt": NOW + SECOND}, "its lease has not expired"),
        ("release", {"leaseExpiresAt": "soon"}, "its lease has not expired"),
        ("retry", {"nextRunAt": NOW + SECOND}, None),
    ],
    ids=["scheduled", "no zone", "due", "no date", "expired", "not expired", "text", "any date"],
)
def test_explain_refusal_returns_why_the_dates_do_not_allow_an_action(
    action: str, job: dict[str, Any], reason: str | None
) -> None:
    assert explain_refusal(action, job, NOW) == reason
