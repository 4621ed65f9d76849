"""Actors that are killed, suspended or cut off in the middle of a batch: catches a job that is
changed twice or never, and an outcome that does not match the document."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import NotPrimaryError

from jobmon.actions.state import Phase
from jobmon.actor.batches import DELETED, GONE, MALFORMED, UNKNOWN

from .conftest import ActingQueue, all_dead

JOBS = 230  # two whole batches, and a part


def fill(acting: ActingQueue) -> None:
    """Add dead jobs."""
    now = datetime.now(UTC)
    acting.jobs.insert_many(
        {
            "jobId": f"dead-{number:03}",
            "type": "mail",
            "status": "dlq",
            "createdAt": now,
            "updatedAt": now,
            "finishedAt": now,
            "nextRunAt": now,
            "priority": 0,
            "attemptCount": 1,
            "maxAttempts": 1,
        }
        for number in range(JOBS)
    )


def die(acting: ActingQueue, step: str, number: int, **more: str) -> None:
    """Run an actor in a process that kills itself at the `number`th time of a step."""
    settings = {
        "JOBMON_MONGO_URI": acting.settings.mongo_uri,
        "JOBMON_STATE_DB": acting.settings.state_db,
        "JOBMON_ROLLUP_DB": acting.settings.rollup_db,
        "JOBMON_ACTIONS_PER_SECOND": "100000",
    }
    command = [sys.executable, "-m", "tests.support.dying_actor", step, str(number)]
    done = subprocess.run(command, env=os.environ | settings | more, check=False, timeout=120)
    assert done.returncode == -9
    # As if its lease had expired.
    acting.database.action_leases.delete_many({})


def count_changes(acting: ActingQueue) -> dict[str, int]:
    """How often each job was changed, by the changes in the oplog."""
    oplog = acting.database.client["local"]["oplog.rs"]
    namespace = acting.jobs.full_name
    updates = oplog.find({"ns": namespace, "op": "u", "o.diff.u.status": "queued"})
    ids = {job["_id"]: job["jobId"] for job in acting.jobs.find({}, {"jobId": True})}
    counts = dict.fromkeys(ids.values(), 0)
    for update in updates:
        if update["o2"]["_id"] in ids:
            counts[ids[update["o2"]["_id"]]] += 1
    return counts


@pytest.mark.parametrize(
    ("step", "number"),
    [("intent", 1), ("job", 1), ("job", 150), ("changed", 2), ("outcomes", 1), ("outcomes", 3)],
)
def test_each_job_is_changed_once_if_the_actor_is_killed(
    acting: ActingQueue, step: str, number: int
) -> None:
    fill(acting)
    filed = acting.file("retry", all_dead(), expected=JOBS)
    die(acting, step, number)
    killed = acting.state(filed)
    assert (killed.phase, killed.is_over) == (Phase.RUNNING, False)
    acting.act()
    state = acting.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, JOBS, 0)
    assert set(count_changes(acting).values()) == {1}
    assert set(acting.outcomes(filed).values()) == {("done", "")}
    assert acting.jobs.count_documents({"lastAction.id": filed.request.id}) == JOBS


def test_jobs_that_changed_after_a_crash_are_done_or_skipped_with_the_reason(
    acting: ActingQueue,
) -> None:
    fill(acting)
    filed = acting.file("retry", all_dead(), expected=JOBS)
    die(acting, "job", 50)
    changed = acting.jobs.count_documents({"status": "queued"})
    lease = acting.queue.lease("w1")
    assert lease is not None
    acting.queue.report_success(lease)
    untouched = {"jobId": "dead-099"}  # of the open batch
    acting.jobs.update_one(untouched, {"$set": {"attemptCount": 9}})
    acting.jobs.delete_one({"jobId": "dead-098"})
    acting.act()
    state, outcomes = acting.state(filed), acting.outcomes(filed)
    assert changed == 50
    assert outcomes[lease.job_id] == ("done", "")
    assert outcomes["dead-099"] == outcomes["dead-098"] == ("skipped", UNKNOWN)
    assert (state.counts.done, state.counts.skipped) == (JOBS - 2, 2)
    assert acting.job("dead-099")["status"] == "dlq"
    assert acting.job(lease.job_id)["status"] == "succeeded"


def test_a_job_that_is_gone_after_a_crash_counts_as_deleted(acting: ActingQueue) -> None:
    """No document is left to prove the deletion. Catches an outcome "skipped"."""
    fill(acting)
    filed = acting.file("delete", "dead-000")
    die(acting, "job", 1, JOBMON_ACTIONS_ALLOW_DELETE="true")
    assert acting.jobs.count_documents({"jobId": "dead-000"}) == 0
    acting.act(actions_allow_delete=True)
    assert acting.outcomes(filed) == {"dead-000": ("done", DELETED)}
    assert acting.state(filed).counts.done == 1


def test_a_job_that_another_program_deletes_before_the_update_is_reported_as_gone(
    acting: ActingQueue,
) -> None:
    acting.add("dead", "dlq")
    filed = acting.file("retry", "dead")
    actor = acting.make_actor(lambda step: step == "intent" and acting.jobs.delete_many({}))
    while actor.run_round():
        pass
    assert acting.outcomes(filed) == {"dead": ("skipped", GONE)}


def test_a_document_with_odd_values_is_skipped_and_stops_no_request(acting: ActingQueue) -> None:
    acting.add("odd", "dlq", attemptCount="many")
    acting.add("dead", "dlq")
    filed = acting.file("retry", all_dead(), expected=2)
    acting.act()
    assert acting.outcomes(filed) == {"odd": ("skipped", MALFORMED), "dead": ("done", "")}


def test_a_worker_that_takes_the_job_between_decision_and_update_keeps_it(
    acting: ActingQueue,
) -> None:
    acting.add("waits")
    filed = acting.file("cancel", "waits")
    runs = []

    def take(step: str) -> None:
        if step == "intent":
            lease = acting.queue.lease("w1")
            assert lease is not None
            acting.queue.report_success(lease)
            runs.append(lease.job_id)

    actor = acting.make_actor(take)
    while actor.run_round():
        pass
    assert runs == ["waits"]
    assert acting.job("waits")["status"] == "succeeded"
    assert acting.outcomes(filed) == {
        "waits": ("skipped", "changed between the decision and the update")
    }


def test_two_requests_for_the_same_jobs_change_each_job_once(acting: ActingQueue) -> None:
    fill(acting)
    first = acting.file("retry", all_dead(), expected=JOBS)
    second = acting.file("retry", all_dead(), expected=JOBS)
    acting.act()
    counts = [acting.state(filed).counts for filed in (first, second)]
    assert sum(each.done for each in counts) == JOBS
    assert set(count_changes(acting).values()) == {1}


def test_an_actor_that_was_suspended_agrees_with_the_one_that_took_over(
    acting: ActingQueue,
) -> None:
    fill(acting)
    filed = acting.file("retry", all_dead(), expected=JOBS)
    suspended = []

    def suspend(step: str) -> None:
        if step == "intent" and not suspended:  # for as long as another actor needs
            suspended.append(step)
            acting.database.action_leases.delete_many({})
            acting.act()

    acting.make_actor(suspend, actions_per_second=100_000).run_round()
    state = acting.state(filed)
    assert (state.phase, state.counts.done) == (Phase.FINISHED, JOBS)
    assert set(acting.outcomes(filed).values()) == {("done", "")}
    assert set(count_changes(acting).values()) == {1}


def fail_command(acting: ActingQueue, mongo: MongoClient[dict[str, Any]], times: int) -> None:
    """Let updates of this process's clients fail as on a primary that steps down."""
    mongo.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": {"times": times},
            "data": {
                "failCommands": ["update"],
                "errorCode": 10107,  # NotWritablePrimary
                "namespace": acting.jobs.full_name,
            },
        }
    )


def test_a_primary_that_steps_down_in_a_batch_loses_no_job(
    acting: ActingQueue, mongo: MongoClient[dict[str, Any]]
) -> None:
    fill(acting)
    filed = acting.file("retry", all_dead(), expected=JOBS)
    actor = acting.make_actor(actions_per_second=100_000)
    actor.run_round()
    fail_command(acting, mongo, 2)  # the driver tries an update twice
    with pytest.raises(NotPrimaryError):
        actor.run_round()
    actor.release()
    acting.act()
    state = acting.state(filed)
    assert (state.phase, state.counts.done) == (Phase.FINISHED, JOBS)
    assert set(count_changes(acting).values()) == {1}
