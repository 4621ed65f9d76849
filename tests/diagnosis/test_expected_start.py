"""Expected starts: catches a rate that the history does not have, and a type that is reported as
stalled although one of its jobs runs."""

from dataclasses import replace
from datetime import datetime

import pytest

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.expected_start import find_start_rate, is_stalled
from jobmon.diagnosis.job_facts import JobFacts
from jobmon.rollup.buckets import HOUR
from jobmon.store.labels import OTHER

from ..conftest import NOW
from .test_explanation import DUE, add_gap, job, make_evidence


def test_the_rate_of_a_type_that_is_counted_with_others_is_unknown() -> None:
    queue = make_evidence(200, 200, 200)
    assert not isinstance(queue.blocks, Missing)
    for block in queue.blocks:
        block.activity[OTHER] = block.activity.pop("mail")
    reason = find_start_rate(queue, "mail")
    assert reason == "its activity is counted together with other types"


def test_start_rates_are_the_rate_of_the_type_and_of_all_other_types() -> None:
    assert find_start_rate(make_evidence(200, 200, 200, others=50), "mail") == (20, 5)


def add_health(queue: Evidence, running: int = 0, **overdue: datetime) -> Evidence:
    """The queue with running jobs of mail, and the due time of the oldest due job of each type."""
    counts = {**(queue.stats.counts or {}), ("leased", "mail"): running}
    health = replace(queue.stats.health, overdue_by_type=overdue)
    return replace(queue, stats=replace(queue.stats, counts=counts, health=health))


@pytest.mark.parametrize(
    ("job_facts", "queue", "expected"),
    [
        (DUE, make_evidence(0, 0, 0), False),  # due for only four minutes
        # Another job of its type has been due for an hour.
        (DUE, add_health(make_evidence(0, 0, 0), mail=NOW - HOUR), True),
        (job(next_run_at=NOW - HOUR), add_health(make_evidence(0, 0, 0), running=1), False),
        (job(next_run_at=NOW - HOUR), make_evidence(0, 0, 1), False),
        (job(next_run_at=NOW - HOUR), Missing(reason="not read"), False),
        (job(unknown=frozenset({"nextRunAt"})), make_evidence(0, 0, 0), False),
        (job(next_run_at=NOW - HOUR), make_evidence(0, 0, 0), True),
        (
            job(next_run_at=NOW - HOUR),
            make_evidence(0, 0, 0, unknown=frozenset({"finishedAt"})),
            False,
        ),
        (job(next_run_at=NOW - HOUR), add_gap(make_evidence(0, 0, 0)), False),
    ],
)
def test_a_type_is_stalled_if_a_job_is_due_for_long_and_none_runs_or_ended(
    job_facts: JobFacts, queue: Evidence | Missing, expected: bool
) -> None:
    assert is_stalled(job_facts, queue) is expected
