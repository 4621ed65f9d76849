"""Decisions while an actor works: catches a paused or stopped request that goes on, one that loses
jobs by it, and one that changes many more jobs than a person confirmed."""

from collections import Counter

import pytest

from jobmon.actions.state import Phase
from jobmon.actor.actor import OVER_APPROVAL, OVER_LIMIT

from .conftest import ADA, BOB, ActingQueue, all_dead
from .test_crashes import fill

JOBS = 250
FAST = 1_000_000  # jobs a second: no pause between batches


@pytest.fixture(autouse=True)
def _dead_jobs(acting: ActingQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.actor.test_crashes.JOBS", JOBS)
    fill(acting)


def count_statuses(acting: ActingQueue) -> dict[str, int]:
    return Counter(job["status"] for job in acting.jobs.find({}, {"status": True}))


def test_paused_request_changes_nothing_until_it_is_resumed(acting: ActingQueue) -> None:
    filed = acting.file("retry", all_dead(), expected=JOBS)
    actor = acting.make_actor(actions_per_second=FAST)
    assert actor.run_round()
    assert count_statuses(acting) == {"queued": 100, "dlq": 150}
    acting.requests.pause(filed.request.id, BOB, "wrong filter?")
    assert not actor.run_round()
    state = acting.state(filed)
    assert (state.phase, state.counts.done) == (Phase.PAUSED, 100)
    assert count_statuses(acting) == {"queued": 100, "dlq": 150}
    acting.requests.resume(filed.request.id, ADA)
    while actor.run_round():
        pass
    state = acting.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, JOBS, 0)
    assert count_statuses(acting) == {"queued": JOBS}
    persons = [(step.kind, step.by and step.by.subject) for step in state.history]
    assert persons == [
        ("requested", "ada"),
        ("claimed", None),
        ("paused", "bob"),
        ("resumed", "ada"),
        ("finished", None),
    ]


def test_stopped_request_leaves_the_other_jobs_as_they_were(acting: ActingQueue) -> None:
    filed = acting.file("retry", all_dead(), expected=JOBS)
    actor = acting.make_actor(actions_per_second=FAST)
    assert actor.run_round()
    assert acting.requests.stop(filed.request.id, BOB, "enough").phase is Phase.STOPPING
    while actor.run_round():
        pass
    state = acting.state(filed)
    assert (state.phase, state.counts.done) == (Phase.STOPPED, 100)
    assert count_statuses(acting) == {"queued": 100, "dlq": 150}
    assert len(acting.outcomes(filed)) == 100


@pytest.mark.parametrize(("confirmed", "is_over"), [(228, True), (227, False)])
def test_request_for_many_more_jobs_than_confirmed_waits_for_a_person(
    acting: ActingQueue, confirmed: int, is_over: bool
) -> None:
    filed = acting.file("retry", all_dead(), expected=confirmed)
    actor = acting.make_actor(actions_per_second=FAST)
    while actor.run_round():
        pass
    state = acting.state(filed)
    assert state.is_over == is_over
    if is_over:
        assert count_statuses(acting) == {"queued": JOBS}
        return
    assert state.phase is Phase.PAUSED
    assert state.counts.done < JOBS
    assert "confirmed" in state.reason
    acting.requests.resume(filed.request.id, ADA)
    while actor.run_round():
        pass
    assert acting.state(filed).phase is Phase.FINISHED
    assert count_statuses(acting) == {"queued": JOBS}


def test_request_that_is_resumed_still_needs_an_approval_for_many_jobs(
    acting: ActingQueue,
) -> None:
    """Catches a person who confirms one job, resumes the request, and so needs no approval."""
    filed = acting.file("retry", all_dead(), expected=1)
    actor = acting.make_actor(actions_per_second=FAST, actions_approval_above=JOBS - 1)
    for reason in (OVER_LIMIT.format(expected=1), OVER_APPROVAL.format(limit=JOBS - 1)):
        while actor.run_round():
            pass
        state = acting.state(filed)
        assert (state.phase, state.reason) == (Phase.PAUSED, reason)
        acting.requests.resume(filed.request.id, ADA)
    assert state.counts.done < JOBS
