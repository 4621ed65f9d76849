"""Actors that are killed, suspended or disconnected during a batch: catches a job that is changed
twice or never, and an outcome that does not match the document."""

import math
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import NotPrimaryError

from jobmon.actions.records import ActionRecords, Progress
from jobmon.actions.state import Phase
from jobmon.actions.support import DELETION_OFF
from jobmon.actions.target import Target
from jobmon.actor import batches
from jobmon.actor.batches import DELETED, GONE, MALFORMED, TOO_LARGE, UNKNOWN
from jobmon.actor.job_changes import CONDITION_NOT_MET, STOPPED
from jobmon.actor.type_pauses import NO_CHANGE
from jobmon.collector.leader import LeaseLostError

from ..support.preloaded import start_python
from ..support.waiting import PATIENCE_S
from .conftest import BOB, ActingQueue, run_all_rounds, select_dead

JOB_COUNT = 230  # two batches of 100 jobs and a batch of 30
PROFILE = """\
status = { path = "state", names = { done = "succeeded" } }
fields = { jobId = "_id" }

[transitions]
delete = { from = ["succeeded"], when = { keep = { "$ne" = true } }, delete = true }
"""


def add_dead_jobs(queue: ActingQueue, count: int = JOB_COUNT) -> None:
    now = datetime.now(UTC)
    queue.jobs.insert_many(
        {
            "jobId": f"dead-{index:03}",
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
        for index in range(count)
    )


def run_until_killed(queue: ActingQueue, step: str, count: int, **variables: str) -> None:
    """Run an actor in a process that kills itself when it reaches a step for the `count`th time."""
    settings = {
        "JOBMON_MONGO_URI": queue.settings.mongo_uri,
        "JOBMON_STATE_DB": queue.settings.state_db,
        "JOBMON_ROLLUP_DB": queue.settings.rollup_db,
        "JOBMON_ACTIONS_PER_SECOND": "100000",
    }
    environment = dict(os.environ) | settings | variables
    actor = start_python("tests.support.dying_actor", step, str(count), env=environment)
    assert actor.wait(PATIENCE_S) == -signal.SIGKILL
    # As if the lease of the killed actor had expired.
    queue.database.action_leases.delete_many({})


def crash_after_intent(queue: ActingQueue) -> None:
    """End an actor between the record of the changes and the changes."""

    def crash(step: str) -> None:
        assert step != "intent"

    with pytest.raises(AssertionError):
        queue.make_actor(crash).run_round()
    queue.database.action_leases.delete_many({})


def count_changes(queue: ActingQueue) -> dict[str, int]:
    """By job id: how many updates in the oplog set the job's status to queued."""
    oplog = queue.database.client["local"]["oplog.rs"]
    namespace = queue.jobs.full_name
    updates = oplog.find({"ns": namespace, "op": "u", "o.diff.u.status": "queued"})
    ids = {job["_id"]: job["jobId"] for job in queue.jobs.find({}, {"jobId": True})}
    counts = dict.fromkeys(ids.values(), 0)
    for update in updates:
        if update["o2"]["_id"] in ids:
            counts[ids[update["o2"]["_id"]]] += 1
    return counts


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("intent", 1),
        pytest.param("job", 1, marks=pytest.mark.long),
        ("job", 150),
        ("changed", 2),
        ("outcomes", 1),
        pytest.param("outcomes", 3, marks=pytest.mark.long),
    ],
)
def test_each_job_is_changed_once_if_the_actor_is_killed(
    queue: ActingQueue, step: str, count: int
) -> None:
    add_dead_jobs(queue)
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    run_until_killed(queue, step, count)
    state_before = queue.state(filed)
    assert (state_before.phase, state_before.is_over) == (Phase.RUNNING, False)
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, JOB_COUNT, 0)
    assert set(count_changes(queue).values()) == {1}
    assert set(queue.outcomes(filed).values()) == {("done", "")}
    assert queue.jobs.count_documents({"lastAction.id": filed.request.id}) == JOB_COUNT


def test_jobs_that_changed_after_a_crash_are_done_or_skipped_with_the_reason(
    queue: ActingQueue,
) -> None:
    add_dead_jobs(queue)
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    run_until_killed(queue, "job", 50)
    assert queue.jobs.count_documents({"status": "queued"}) == 50
    lease = queue.job_queue.lease("w1")
    assert lease is not None
    queue.job_queue.report_success(lease)
    # These two jobs are in the interrupted batch, and the actor has not changed them.
    queue.jobs.update_one({"jobId": "dead-099"}, {"$set": {"attemptCount": 9}})
    queue.jobs.delete_one({"jobId": "dead-098"})
    queue.act()
    state, outcomes = queue.state(filed), queue.outcomes(filed)
    assert outcomes[lease.job_id] == ("done", "")
    assert outcomes["dead-099"] == outcomes["dead-098"] == ("skipped", UNKNOWN)
    assert (state.counts.done, state.counts.skipped) == (JOB_COUNT - 2, 2)
    assert queue.job("dead-099")["status"] == "dlq"
    assert queue.job(lease.job_id)["status"] == "succeeded"


def test_a_job_that_is_gone_after_a_crash_counts_as_deleted(queue: ActingQueue) -> None:
    """Catches the outcome `skipped`: a deletion leaves no document that proves it."""
    add_dead_jobs(queue)
    filed = queue.file("delete", "dead-000")
    run_until_killed(queue, "job", 1, JOBMON_ACTIONS_ALLOW_DELETE="true")
    assert queue.jobs.count_documents({"jobId": "dead-000"}) == 0
    # As if the actor had been killed before it deleted the attempts.
    attempts = queue.database.job_attempts
    attempts.insert_one({"jobId": "dead-000", "attemptNumber": 1, "status": "failed"})
    queue.act(actions_allow_delete=True)
    assert queue.outcomes(filed) == {"dead-000": ("done", DELETED)}
    assert queue.state(filed).counts.done == 1
    assert attempts.count_documents({}) == 0


def test_request_is_refused_if_its_action_is_switched_off_after_a_crash(
    queue: ActingQueue,
) -> None:
    """Catches an actor that fails in every round because of this request."""
    add_dead_jobs(queue)
    filed = queue.file("delete", select_dead(), expected=JOB_COUNT)
    run_until_killed(queue, "outcomes", 1, JOBMON_ACTIONS_ALLOW_DELETE="true")
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.reason, state.counts.done) == (Phase.REFUSED, DELETION_OFF, 100)
    assert queue.jobs.count_documents({}) == JOB_COUNT - 100


def test_job_that_does_not_meet_the_profiles_condition_after_a_crash_is_skipped(
    open_profile_queue: Callable[[str], ActingQueue],
) -> None:
    """Catches a condition `when` that is checked only before the batch."""
    queue = open_profile_queue(PROFILE)
    work = queue.database.work
    jobs = {"kept": {"keep": True}, "changed": {}, "deleted": {}}
    work.insert_many({"_id": job_id, "state": "done", **fields} for job_id, fields in jobs.items())
    filed = queue.file("delete", Target(job_ids=tuple(jobs)), expected=3)
    crash_after_intent(queue)
    work.update_one({"_id": "changed"}, {"$set": {"keep": True}})
    queue.act()
    assert queue.outcomes(filed) == {
        "kept": ("skipped", CONDITION_NOT_MET),
        "changed": ("skipped", UNKNOWN),
        "deleted": ("done", ""),
    }
    assert {job["_id"] for job in work.find()} == {"kept", "changed"}


@pytest.mark.parametrize(
    ("action", "is_paused"), [("pause_type", True), ("resume_type", False)], ids=["pause", "resume"]
)
def test_types_that_were_changed_before_a_crash_are_done(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch, action: str, is_paused: bool
) -> None:
    """Catches `skipped` for a type that the request paused, and a pause without its person."""
    unchanged_type, changed_type = ("sms", "mail") if is_paused else ("mail", "sms")
    queue.database.job_controls.insert_one({"_id": "paused", "types": ["sms"]})
    filed = queue.file(action, Target(types=("mail", "sms")), expected=2)
    with monkeypatch.context() as crash:
        crash.setattr(ActionRecords, "add_outcomes", None)
        with pytest.raises(TypeError):
            queue.make_actor().run_round()
    assert queue.state(filed).phase is Phase.RUNNING
    queue.database.action_leases.delete_many({})
    queue.act()
    outcomes = queue.database.action_outcomes.find({"request": filed.request.id})
    results = {outcome["key"]: outcome["result"] for outcome in outcomes}
    assert results == {changed_type: "done", unchanged_type: "skipped"}
    (controls,) = queue.database.job_controls.find()
    assert controls["types"] == (["sms", "mail"] if is_paused else [])


@pytest.mark.parametrize("is_changed", [True, False])
def test_outcomes_of_types_are_recorded_if_the_request_is_stopped_after_a_crash(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    """Catches types that stay paused although no record shows who paused them."""
    queue.database.job_controls.insert_one({"_id": "paused", "types": ["sms"]})
    filed = queue.file("pause_type", Target(types=("mail", "sms")), expected=2)
    add_progress = ActionRecords.add_progress

    def add_progress_and_crash(records: ActionRecords, *values: Any, **options: Any) -> bool:
        """Record progress, then fail, except for the first record: that an actor began."""
        is_recorded = add_progress(records, *values, **options)
        assert Progress.CLAIMED in values
        return is_recorded

    with monkeypatch.context() as patch:
        if is_changed:
            patch.setattr(ActionRecords, "add_outcomes", None)
        else:
            patch.setattr(ActionRecords, "add_progress", add_progress_and_crash)
        with pytest.raises((AssertionError, TypeError)):
            queue.make_actor().run_round()
    queue.database.action_leases.delete_many({})
    queue.requests.stop(filed.request.id, BOB, "wrong type")
    queue.act()
    state = queue.state(filed)
    outcomes = queue.database.action_outcomes.find({"request": filed.request.id})
    reasons = {outcome["key"]: (outcome["result"], outcome["reason"]) for outcome in outcomes}
    mail = ("done", "") if is_changed else ("skipped", STOPPED)
    assert reasons == {"mail": mail, "sms": ("skipped", NO_CHANGE)}
    assert (state.phase, state.counts.done) == (Phase.STOPPED, int(is_changed))
    (controls,) = queue.database.job_controls.find()
    assert controls["types"] == (["sms", "mail"] if is_changed else ["sms"])


def test_a_job_that_another_program_deletes_before_the_update_is_reported_as_gone(
    queue: ActingQueue,
) -> None:
    queue.add("dead", "dlq")
    filed = queue.file("retry", "dead")
    actor = queue.make_actor(lambda step: step == "intent" and queue.jobs.delete_many({}))
    run_all_rounds(actor)
    assert queue.outcomes(filed) == {"dead": ("skipped", GONE)}


def test_a_malformed_job_is_skipped_and_does_not_stop_its_request(queue: ActingQueue) -> None:
    queue.add("malformed", "dlq", attemptCount="many")
    queue.add("dead", "dlq")
    filed = queue.file("retry", select_dead(), expected=2)
    queue.act()
    assert queue.outcomes(filed) == {"malformed": ("skipped", MALFORMED), "dead": ("done", "")}


def test_a_batch_that_is_too_large_to_record_is_divided_or_refused(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an actor process that ends at each start: the plan of a batch is one document."""
    monkeypatch.setattr(batches, "MAX_CHANGE_BYTES", math.inf)  # else the large job is skipped
    for job_id, length in (("first", 5), ("second", 5), ("large", 9)):
        queue.add(job_id, "dlq", leasedBy="w" * length * 1_000_000)
    refused = queue.file("retry", "large")
    filed = queue.file("retry", Target(job_ids=("first", "second")), expected=2)
    queue.act()
    state = queue.state(refused)
    assert (state.phase, state.reason, state.counts.total) == (Phase.REFUSED, TOO_LARGE, 0)
    assert queue.job("large")["status"] == "dlq"
    assert queue.outcomes(filed) == {"first": ("done", ""), "second": ("done", "")}


def test_a_job_that_a_worker_finishes_before_the_update_is_not_cancelled(
    queue: ActingQueue,
) -> None:
    queue.add("waits")
    filed = queue.file("cancel", "waits")
    finished_ids = []

    def run_job(step: str) -> None:
        if step == "intent":
            lease = queue.job_queue.lease("w1")
            assert lease is not None
            queue.job_queue.report_success(lease)
            finished_ids.append(lease.job_id)

    actor = queue.make_actor(run_job)
    run_all_rounds(actor)
    assert finished_ids == ["waits"]
    assert queue.job("waits")["status"] == "succeeded"
    assert queue.outcomes(filed) == {
        "waits": ("skipped", "changed between the decision and the update")
    }


def test_each_job_is_changed_once_if_two_requests_are_for_it(queue: ActingQueue) -> None:
    add_dead_jobs(queue)
    first = queue.file("retry", select_dead(), expected=JOB_COUNT)
    second = queue.file("retry", select_dead(), expected=JOB_COUNT)
    queue.act()
    counts = [queue.state(filed).counts for filed in (first, second)]
    assert sum(request_counts.done for request_counts in counts) == JOB_COUNT
    assert set(count_changes(queue).values()) == {1}


def test_a_suspended_actor_records_the_same_as_the_actor_that_took_over(
    queue: ActingQueue,
) -> None:
    add_dead_jobs(queue)
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    suspended_steps = []

    def suspend_once(step: str) -> None:
        """Suspend the actor until another actor has finished the request."""
        if step == "intent" and not suspended_steps:
            suspended_steps.append(step)
            queue.database.action_leases.delete_many({})
            queue.act()

    queue.make_actor(suspend_once, actions_per_second=100_000).run_round()
    state = queue.state(filed)
    assert (state.phase, state.counts.done) == (Phase.FINISHED, JOB_COUNT)
    assert set(queue.outcomes(filed).values()) == {("done", "")}
    assert set(count_changes(queue).values()) == {1}


def test_an_actor_that_loses_its_lease_in_a_batch_changes_no_further_job(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a suspended actor that changes jobs after another actor has stopped the request."""
    add_dead_jobs(queue)
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    monkeypatch.setattr("jobmon.collector.leader.RENEW_EVERY_S", 0)
    later = datetime.now(UTC) + timedelta(hours=1)

    def lose_lease(step: str) -> None:
        if step == "job":
            other = {"holder": "other", "expiresAt": later}
            queue.database.action_leases.update_many({}, {"$set": other})

    with pytest.raises(LeaseLostError):
        queue.make_actor(lose_lease, actions_per_second=100_000).run_round()
    assert queue.jobs.count_documents({"status": "queued"}) == 1
    queue.database.action_leases.delete_many({})
    queue.act()
    assert queue.state(filed).counts.done == JOB_COUNT
    assert set(count_changes(queue).values()) == {1}


def fail_updates(queue: ActingQueue, mongo: MongoClient[dict[str, Any]], times: int) -> None:
    """Let the next `times` updates of jobs fail, as they do on a primary that steps down."""
    mongo.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": {"times": times},
            "data": {
                "failCommands": ["update"],
                "errorCode": 10107,  # NotWritablePrimary
                "namespace": queue.jobs.full_name,
            },
        }
    )


def test_each_job_is_changed_once_if_the_primary_steps_down_in_a_batch(
    queue: ActingQueue, mongo: MongoClient[dict[str, Any]]
) -> None:
    add_dead_jobs(queue)
    filed = queue.file("retry", select_dead(), expected=JOB_COUNT)
    actor = queue.make_actor(actions_per_second=100_000)
    actor.run_round()
    fail_updates(queue, mongo, 2)  # the driver tries an update twice
    with pytest.raises(NotPrimaryError):
        actor.run_round()
    actor.release()
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.counts.done) == (Phase.FINISHED, JOB_COUNT)
    assert set(count_changes(queue).values()) == {1}
