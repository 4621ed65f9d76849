"""Decisions while an actor works: catches a paused or stopped request that still changes jobs, a
resumed request that skips jobs, and a request that changes many more jobs than a person confirmed.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from jobmon.actions.records import DECISIONS, PROGRESS
from jobmon.actions.state import Phase
from jobmon.actor.actor import NO_ACTOR, OVER_APPROVAL, OVER_APPROVED, OVER_LIMIT

from .conftest import ADA, BOB, ActingQueue, run_all_rounds, select_dead
from .test_crashes import add_dead_jobs

JOB_COUNT = 250
FAST = 1_000_000  # jobs per second, so that the actor does not pause between batches


@pytest.fixture(autouse=True)
def _dead_jobs(queue: ActingQueue) -> None:
    add_dead_jobs(queue, JOB_COUNT)


def count_statuses(queue: ActingQueue) -> dict[str, int]:
    return Counter(job["status"] for job in queue.jobs.find({}, {"status": True}))


def test_paused_request_changes_nothing_until_it_is_resumed(queue: ActingQueue) -> None:
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    actor = queue.make_actor(actions_per_second=FAST)
    assert actor.run_round()
    assert count_statuses(queue) == {"queued": 100, "dlq": 150}
    queue.requests.pause(filed.request.id, BOB, "wrong filter?")
    assert not actor.run_round()
    state = queue.state(filed)
    assert (state.phase, state.counts.done) == (Phase.PAUSED, 100)
    assert count_statuses(queue) == {"queued": 100, "dlq": 150}
    queue.requests.resume(filed.request.id, ADA)
    run_all_rounds(actor)
    state = queue.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, JOB_COUNT, 0)
    assert count_statuses(queue) == {"queued": JOB_COUNT}
    history = [(record.kind, record.by and record.by.subject) for record in state.history]
    assert history == [
        ("requested", "ada"),
        ("claimed", None),
        ("paused", "bob"),
        ("resumed", "ada"),
        ("finished", None),
    ]


def test_interrupted_request_names_the_time_without_an_actor(queue: ActingQueue) -> None:
    """Catches a reason that includes the days for which a person had paused the request."""
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    actor = queue.make_actor(actions_per_second=FAST)
    assert actor.run_round()
    queue.requests.pause(filed.request.id, BOB, "wrong filter?")
    queue.requests.resume(filed.request.id, ADA)
    database, now = queue.connection.database, datetime.now(UTC)
    for name in (DECISIONS, PROGRESS):
        database[name].update_many({}, {"$set": {"at": now - timedelta(days=3)}})
    resumed = {"kind": "resumed"}
    database[DECISIONS].update_one(resumed, {"$set": {"at": now - timedelta(minutes=20)}})
    assert not actor.run_round()
    state = queue.state(filed)
    assert (state.phase, state.reason) == (Phase.PAUSED, NO_ACTOR.format(minutes=20))


def test_stopped_request_changes_no_further_jobs(queue: ActingQueue) -> None:
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    actor = queue.make_actor(actions_per_second=FAST)
    assert actor.run_round()
    assert queue.requests.stop(filed.request.id, BOB, "enough").phase is Phase.STOPPING
    run_all_rounds(actor)
    state = queue.state(filed)
    assert (state.phase, state.counts.done) == (Phase.STOPPED, 100)
    assert count_statuses(queue) == {"queued": 100, "dlq": 150}
    assert len(queue.outcomes(filed)) == 100


def test_request_changes_up_to_a_tenth_more_jobs_than_confirmed(queue: ActingQueue) -> None:
    filed = queue.file("retry", select_dead(), expected=228)  # 22 more are all 250 jobs
    queue.act()
    assert queue.state(filed).phase is Phase.FINISHED
    assert count_statuses(queue) == {"queued": JOB_COUNT}


def test_request_that_matches_many_more_jobs_than_confirmed_is_paused(queue: ActingQueue) -> None:
    filed = queue.file("retry", select_dead(), expected=227)
    actor = queue.make_actor(actions_per_second=FAST)
    run_all_rounds(actor)
    state = queue.state(filed)
    assert state.phase is Phase.PAUSED
    assert state.counts.done < JOB_COUNT
    assert "confirmed" in state.reason
    queue.requests.resume(filed.request.id, ADA)
    run_all_rounds(actor)
    assert queue.state(filed).phase is Phase.FINISHED
    assert count_statuses(queue) == {"queued": JOB_COUNT}


def test_interruption_lasts_until_it_is_resumed_although_clocks_differ(
    queue: ActingQueue,
) -> None:
    """Catches a request that goes beyond the confirmed number although nobody has resumed it."""
    filed = queue.file("retry", select_dead(), expected=1)
    queue.requests.pause(filed.request.id, BOB)
    queue.requests.resume(filed.request.id, ADA)
    ahead = datetime.now(UTC) + timedelta(minutes=5)  # the clock of the web service is fast
    decisions = queue.connection.database[DECISIONS]
    decisions.update_many({"kind": {"$in": ["paused", "resumed"]}}, {"$set": {"at": ahead}})
    actor = queue.make_actor(actions_per_second=FAST)
    for _ in range(2):
        assert not actor.run_round()
    assert queue.state(filed).phase is Phase.PAUSED
    assert count_statuses(queue) == {"dlq": JOB_COUNT}
    assert queue.requests.resume(filed.request.id, ADA).phase is Phase.RUNNING


def test_resumed_request_cannot_exceed_the_approval_limit(queue: ActingQueue) -> None:
    """Catches a way around the approval: confirm one job, and resume the request."""
    filed = queue.file("retry", select_dead(), expected=1)
    actor = queue.make_actor(actions_per_second=FAST, actions_approval_above=JOB_COUNT - 1)
    for reason in (OVER_LIMIT.format(expected=1), OVER_APPROVAL.format(limit=JOB_COUNT - 1)):
        run_all_rounds(actor)
        state = queue.state(filed)
        assert (state.phase, state.reason) == (Phase.PAUSED, reason)
        queue.requests.resume(filed.request.id, ADA)
    assert state.counts.done < JOB_COUNT


def test_approved_request_cannot_exceed_the_approved_number_if_it_is_resumed(
    queue: ActingQueue,
) -> None:
    """Catches a way around the approval: get it for a few jobs of a filter that matches many."""
    requests = queue.open_requests(actions_approval_above=5)
    filed = queue.file("retry", select_dead(), expected=6)
    requests.approve(filed.request.id, BOB)
    actor = queue.make_actor(actions_per_second=FAST, actions_approval_above=5)
    for _ in range(2):
        run_all_rounds(actor)
        state = requests.get(filed.request.id)
        assert state is not None
        assert (state.phase, state.reason) == (Phase.PAUSED, OVER_APPROVED.format(expected=6))
        requests.resume(filed.request.id, ADA)
    assert count_statuses(queue) == {"dlq": JOB_COUNT}
