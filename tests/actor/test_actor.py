"""The actor on a real server: catches a job that is changed twice, never or without permission, an
outcome that does not match the document, and an invalid request that is carried out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from bson import Int64, ObjectId
from pymongo.errors import BulkWriteError, ExecutionTimeout, OperationFailure

from jobmon.actions.catalog import RequestError
from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.preview import ActionPreviewer
from jobmon.actions.records import Decision, Progress, Result, make_outcome
from jobmon.actions.request import ActionRequest
from jobmon.actions.state import Phase
from jobmon.actions.target import Target
from jobmon.actor.actor import QUERY_FAILED
from jobmon.actor.batches import BatchRunner
from jobmon.actor.job_changes import ProfileJobChanges
from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.domain import JobCondition
from jobmon.profiles.transitions import Transition
from jobmon.queue import RefusedActionError
from jobmon.redaction.redactor import Redactor
from jobmon.store.failures import name_error
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import MAX_MATCHES, ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.paused_types import PausedTypes, TypePause

from ..conftest import NOW
from .conftest import ADA, BOB, ActingQueue, select_dead

PROFILE_THAT_CHANGES_ERRORS = """\
status = { path = "state", names = { broken = "dlq", new = "queued" } }

[fields]
jobId = "_id"
type = "lane"
payload = { object = { body = "body", note = "note" } }
lastError = { object = { message = "failure.text" }, when = { state = "broken" } }

[attempts]
in = "array"
array = "log"
status = { path = "s" }
fields = { error = "e" }

[transitions.retry]
from = ["dlq"]
set = { state = "new", lane = "fast", "failure.text" = "", note = "" }
unset = ["body.to", "log", "why"]
inc = { "body.tries" = 1 }
"""
LATER = NOW + timedelta(days=9)


def test_retry_of_a_dead_job_lets_a_worker_run_it_again(queue: ActingQueue) -> None:
    queue.add("dead", "dlq")
    filed = queue.file("retry", "dead")
    assert filed.phase is Phase.WAITING
    queue.act()
    job, state = queue.job("dead"), queue.state(filed)
    assert (job["status"], job["finishedAt"], job["lastError"]["code"]) == ("queued", None, "EHOST")
    assert (job["lastAction"]["id"], job["lastAction"]["by"]) == (filed.request.id, "ada")
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 1, 0)
    lease = queue.job_queue.lease("w2")
    assert lease is not None
    assert lease.attempt_number == 2
    ((outcome, request),) = queue.requests.list_job_outcomes("dead")
    assert (outcome.before["status"], outcome.after["status"]) == ("dlq", "queued")
    assert (request.by, request.reason) == (ADA, "the provider is back")


def test_retry_by_a_filter_changes_only_matching_dead_jobs(queue: ActingQueue) -> None:
    for index in range(250):
        queue.add(f"dead-{index}", "dlq", type="mail" if index % 2 else "report")
    queue.add("waits")
    filed = queue.file("retry", select_dead(types=("mail",)), expected=125)
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 125, 0)
    assert queue.jobs.count_documents({"status": "queued", "type": "mail"}) == 125 + 1  # `waits`
    assert queue.jobs.count_documents({"status": "dlq", "type": "report"}) == 125


@pytest.mark.parametrize(
    ("action", "status", "request_fields", "expected"),
    [
        ("cancel", "queued", {}, {"status": "cancelled"}),
        ("cancel", "leased", {}, {"status": "cancelled", "leasedBy": None}),
        ("reschedule", "queued", {"run_at": LATER}, {"nextRunAt": LATER}),
        ("prioritize", "queued", {"priority": 7}, {"priority": 7, "status": "queued"}),
        ("retry", "cancelled", {"reset_attempts": True}, {"status": "queued", "maxAttempts": 1}),
    ],
    ids=["cancel waiting", "cancel running", "reschedule", "prioritize", "retry cancelled"],
)
def test_action_sets_the_fields_of_its_transition(
    queue: ActingQueue, action: str, status: str, request_fields: dict, expected: dict
) -> None:
    queue.add("job", status)
    filed = queue.file(action, "job", **request_fields)
    queue.act()
    job = queue.job("job")
    assert {name: job[name] for name in expected} == expected
    assert queue.outcomes(filed) == {"job": ("done", "")}


@pytest.mark.parametrize(
    "error",
    [
        ExecutionTimeout("too slow", 50, {"codeName": "MaxTimeMSExpired"}),
        OperationFailure("bad pattern", 51_091, {"codeName": "Location51091"}),
    ],
    ids=["too slow", "refused query"],
)
def test_request_whose_query_fails_does_not_hold_up_newer_requests(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch, error: OperationFailure
) -> None:
    """Catches an actor that tries the same query again and again for fifteen minutes."""
    queue.add("dead", "dlq")
    failing = queue.file("retry", select_dead())
    newer = queue.file("retry", "dead")
    monkeypatch.setattr(JobLists, "page", Mock(side_effect=error))
    queue.act()
    assert queue.outcomes(newer) == {"dead": ("done", "")}
    state = queue.state(failing)
    assert (state.phase, state.reason) == (
        Phase.PAUSED,
        QUERY_FAILED.format(error=name_error(error)),
    )


def test_a_list_that_is_sorted_in_memory_is_changed_in_batches(queue: ActingQueue) -> None:
    """Catches hundreds of jobs in one batch, faster than allowed, and no pause between them."""
    for index in range(7):
        queue.add(f"dead-{index}", "dlq")
    filed = queue.file("retry", Target(job_filter=JobFilter(job_id="dead-")), expected=7)
    actor = queue.make_actor(actions_per_second=3)
    assert actor.run_round()
    queue.requests.pause(filed.request.id, BOB)
    assert not actor.run_round()
    assert queue.state(filed).counts.done == queue.jobs.count_documents({"status": "queued"}) == 3
    queue.requests.resume(filed.request.id, BOB)
    actor.release()
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 7, 0)
    assert set(queue.outcomes(filed).values()) == {("done", "")}


def test_selected_jobs_that_do_not_allow_an_action_are_skipped_with_the_reason(
    queue: ActingQueue,
) -> None:
    queue.add("dead", "dlq")
    queue.add("waits")
    filed = queue.file("retry", Target(job_ids=("dead", "waits", "missing")), expected=3)
    queue.act()
    assert queue.outcomes(filed) == {
        "dead": ("done", ""),
        "waits": ("skipped", "it is queued"),
        "missing": ("skipped", "there is no such job"),
    }


def test_an_id_without_a_job_is_not_taken_for_the_stored_id_of_another_job(
    queue: ActingQueue,
) -> None:
    """Catches a job that is never changed because its `_id` looks like a missing `jobId`."""
    queue.add("first", "dlq")
    queue.jobs.insert_one({**queue.job("first"), "_id": "absent", "jobId": "second"})
    queue.jobs.delete_one({"jobId": "first"})
    filed = queue.file("retry", Target(job_ids=("absent", "second")), expected=2)
    queue.act()
    assert queue.job("second")["status"] == "queued"
    assert queue.outcomes(filed) == {
        "absent": ("skipped", "there is no such job"),
        "second": ("done", ""),
    }


def test_an_action_on_an_id_is_for_all_jobs_whose_ids_are_printed_alike(
    queue: ActingQueue,
) -> None:
    """Catches a preview that counts two jobs, and an actor that takes one of them."""
    queue.add("7", "dlq")
    queue.jobs.insert_one({**queue.job("7"), "_id": "number", "jobId": 7})
    target = Target(job_ids=("7", "missing"))
    preview = make_previewer(queue).preview("retry", target)
    assert (preview.count, preview.unsuitable) == (2, 1)
    filed = queue.file("retry", target, expected=preview.count)
    queue.act()
    assert queue.job("7")["status"] == "queued"
    page = queue.requests.list_outcomes(filed.request.id, limit=10)
    assert sorted((outcome.result, outcome.reason) for outcome in page.outcomes) == [
        ("done", ""),
        ("skipped", "its jobId is not a text"),
        ("skipped", "there is no such job"),
    ]


def test_dry_run_changes_nothing_and_records_the_jobs_that_it_would_change(
    queue: ActingQueue,
) -> None:
    queue.add("dead", "dlq")
    job_before = queue.job("dead")
    filed = queue.file("retry", select_dead(), dry_run=True)
    queue.act()
    assert queue.job("dead") == job_before
    assert queue.outcomes(filed) == {"dead": ("possible", "")}
    assert queue.requests.list_job_outcomes("dead") == []


def test_a_request_that_waited_too_long_expires(queue: ActingQueue) -> None:
    queue.add("dead", "dlq")
    filed = queue.file("retry", "dead", at=datetime.now(UTC) - timedelta(minutes=16))
    assert queue.state(filed).phase is Phase.EXPIRED
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.reason) == (Phase.EXPIRED, "No actor took it within 15 minutes.")
    assert queue.job("dead")["status"] == "dlq"
    assert [record.kind for record in state.history] == ["requested", "expired"]


def test_a_request_above_the_approval_limit_waits_until_another_person_approves(
    queue: ActingQueue,
) -> None:
    queue.add("dead", "dlq")
    queue.requests = requests = queue.open_requests(actions_approval_above=0)
    filed = queue.file("retry", "dead")
    queue.act(actions_approval_above=0)
    assert queue.state(filed).phase is Phase.AWAITING_APPROVAL
    # A record in which a person approves their own request does not count.
    requests.records.add_decision(filed.request.id, Decision.APPROVED, ADA)
    queue.act(actions_approval_above=0)
    assert queue.job("dead")["status"] == "dlq"
    queue.database.action_decisions.delete_one({"kind": "approved"})
    requests.approve(filed.request.id, BOB)
    queue.act(actions_approval_above=0)
    assert queue.state(filed).phase is Phase.FINISHED
    assert queue.job("dead")["status"] == "queued"


def test_requests_show_whether_an_actor_works(queue: ActingQueue) -> None:
    assert queue.open_requests().has_actor() is False
    actor = queue.make_actor()
    actor.run_round()
    assert queue.open_requests().has_actor() is True
    actor.release()
    assert queue.open_requests().has_actor() is False


@pytest.mark.parametrize("action", ["retry", "pause_type"])
def test_request_without_the_right_to_change_jobs_is_interrupted_with_the_reason(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Catches an actor that tries again until the request expires, and holds up all others."""

    def refuse(*_: Any) -> Any:
        raise OperationFailure("not authorized", 13, {"codeName": "Unauthorized"})

    queue.add("dead", "dlq")
    target = Target(types=("mail",)) if action == "pause_type" else select_dead()
    filed, stopped = queue.file(action, target), queue.file(action, target)
    with monkeypatch.context() as patches:
        patches.setattr(BatchRunner, "_apply", refuse)
        patches.setattr("jobmon.actor.actor.change_types", refuse)
        queue.act()
        state = queue.state(filed)
        assert (state.phase, "lacks a right (Unauthorized)" in state.reason) == (Phase.PAUSED, True)
        queue.requests.resume(filed.request.id, BOB)
        queue.act()  # by a new actor
        assert queue.state(filed).phase is Phase.PAUSED
        queue.requests.stop(stopped.request.id, BOB)
        queue.act()
        assert queue.state(stopped).phase is Phase.STOPPED
    queue.requests.resume(filed.request.id, BOB)
    queue.act()
    assert set(queue.outcomes(filed).values()) == {("done", "")}


def make_previewer(queue: ActingQueue) -> ActionPreviewer:
    planner = ListPlanner(queue.connection)
    lists, groups = JobLists(planner, Redactor(())), GroupJobReader(planner, Redactor(()))
    return ActionPreviewer(lists, ListCounter(planner), queue.support, groups)


def test_retry_of_an_error_group_changes_only_jobs_with_such_an_error(
    queue: ActingQueue,
) -> None:
    for index in range(6):
        error = {"code": "E", "message": f"no answer from host {index}", "stack": None}
        if index % 2:
            error["message"] = f"the disk {index} is full"
        queue.add(f"dead-{index}", "dlq", lastError=error)
    error = {"code": "E", "message": "no answer from host 9", "stack": None}
    kind = classify_error(prepare_error(error, None, Redactor(())))
    target = select_dead(error_group=kind.id)
    previewer = make_previewer(queue)
    preview = previewer.preview("retry", target)
    assert (preview.count, len(preview.sample)) == (3, 3)
    filed = queue.file("retry", target, expected=preview.count)
    queue.act()
    assert queue.outcomes(filed) == dict.fromkeys(("dead-0", "dead-2", "dead-4"), ("done", ""))
    with pytest.raises(RefusedFilterError, match="several kinds"):
        previewer.preview("retry", select_dead(error_group=fold_kind(kind).id))


def test_preview_of_an_owners_error_group_shows_only_jobs_of_the_owner(queue: ActingQueue) -> None:
    """Catches a job of another owner that has the same printed id."""
    job_id = ObjectId()
    error = {"code": "E", "message": "no answer", "stack": None}
    queue.add(str(job_id), "dlq", createdBy="ada", lastError=error)
    adas_job = queue.job(str(job_id))
    queue.jobs.insert_one(adas_job | {"_id": 1, "jobId": job_id, "createdBy": "bob"})
    kind = classify_error(prepare_error(error, None, Redactor(())))
    target = select_dead(error_group=kind.id)
    preview = make_previewer(queue).preview("retry", target, owner="ada")
    assert [job["createdBy"] for job in preview.sample] == ["ada"]


def test_preview_and_actor_leave_out_jobs_without_a_creation_time(queue: ActingQueue) -> None:
    """Catches a preview that counts such jobs: the actor does not change them."""
    queue.add("dead", "dlq")
    queue.add("undated", "dlq", createdAt=None)
    preview = make_previewer(queue).preview("retry", select_dead())
    assert (preview.count, [job["jobId"] for job in preview.sample]) == (1, ["dead"])
    filed = queue.file("retry", select_dead(), expected=preview.count)
    queue.act()
    assert queue.outcomes(filed) == {"dead": ("done", "")}


def test_run_now_changes_more_jobs_than_can_be_sorted_in_memory(queue: ActingQueue) -> None:
    """Catches a bound of createdAt that no index serves together with the due time."""
    queue.add("template", "queued", nextRunAt=queue.now() + timedelta(hours=1))
    job = queue.jobs.find_one({"jobId": "template"})
    queue.jobs.insert_many(
        job | {"_id": index, "jobId": f"job-{index}"} for index in range(MAX_MATCHES)
    )
    queue.add("undated", createdAt=None, nextRunAt=queue.now() + timedelta(hours=1))
    target = Target(job_filter=JobFilter(types=("mail",)))
    expected = make_previewer(queue).preview("run_now", target).count
    assert expected == MAX_MATCHES + 2  # only the actor finds out that one has no creation time
    filed = queue.file("run_now", target, expected=expected)
    queue.act(actions_per_second=500)
    state = queue.state(filed)
    assert (state.phase, state.counts.done) == (Phase.FINISHED, MAX_MATCHES + 1)


@pytest.mark.parametrize("action", ["run_now", "release"])
def test_preview_and_actor_find_no_due_job_for_an_action_on_other_jobs(
    queue: ActingQueue, action: str
) -> None:
    """Catches a preview that counts due jobs: the actor does not change them."""
    queue.add("due")
    target = Target(job_filter=JobFilter(condition=JobCondition.DUE))
    assert make_previewer(queue).preview(action, target).count == 0
    filed = queue.file(action, target, expected=0)
    queue.act()
    assert (queue.state(filed).phase, queue.outcomes(filed)) == (Phase.FINISHED, {})


def test_undo_restores_only_jobs_that_have_not_changed_since(queue: ActingQueue) -> None:
    for index in range(3):
        queue.add(f"dead-{index}", "dlq")
    jobs_before = {job["jobId"]: job for job in queue.jobs.find()}
    retry = queue.file("retry", select_dead(), expected=3, reset_attempts=True)
    queue.act()
    lease = queue.job_queue.lease("w1")
    assert lease is not None
    target = Target(request_id=retry.request.id)
    undo = queue.file("undo", target, expected=3)
    queue.act()
    results = queue.outcomes(undo)
    assert results.pop(lease.job_id) == ("skipped", "it has changed since that request")
    assert len(results) == 2
    assert set(results.values()) == {("done", "")}
    job = queue.job(next(job_id for job_id in results if job_id))
    job_before = jobs_before[job["jobId"]]
    changed_fields = {name for name in job if job[name] != job_before.get(name)}
    assert changed_fields == {"updatedAt", "lastAction"}
    second_undo = queue.file("undo", target, expected=3)
    queue.act()
    assert {result for result, _ in queue.outcomes(second_undo).values()} == {"skipped"}


def test_an_owners_request_skips_jobs_of_others_as_if_they_did_not_exist(
    queue: ActingQueue,
) -> None:
    queue.add("adas", "dlq", createdBy="ada")
    queue.add("bobs", "dlq", createdBy="bob")
    filed = queue.file("retry", Target(job_ids=("adas", "bobs", "missing")), owner="ada")
    queue.act()
    skipped = ("skipped", "there is no such job")
    assert queue.outcomes(filed) == {"adas": ("done", ""), "bobs": skipped, "missing": skipped}
    outcomes = queue.database.action_outcomes.find({"result": "skipped"})
    # The key is the id of the job, even of `bobs`: its `_id` would show that it exists.
    assert {outcome["key"]["missing"] for outcome in outcomes} == {"bobs", "missing"}
    assert queue.job("bobs")["status"] == "dlq"


def test_the_same_key_files_a_request_with_microseconds_once(queue: ActingQueue) -> None:
    """Catches a repeated request that differs from the stored one, which has only milliseconds."""
    queue.add("waits")
    moment = LATER + timedelta(microseconds=123_456)
    job_filter = JobFilter(statuses=("queued",), created_to=moment)
    request = ActionRequest(
        action="reschedule",
        target=Target(job_filter=job_filter),
        by=ADA,
        expected=1,
        reason="the provider is down",
        run_at=moment,
    )
    first = queue.requests.file(request, key="k1")
    assert queue.requests.file(request, key="k1").request.id == first.request.id
    with pytest.raises(RequestError, match="another request"):
        queue.requests.file(replace(request, run_at=LATER), key="k1")


def test_requests_of_the_same_millisecond_are_listed_once_each(queue: ActingQueue) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ids = {queue.file("retry", f"job-{index}", at=now).request.id for index in range(5)}
    listed_ids: list[str] = []
    cursor = None
    while (page := queue.requests.list_recent(limit=2, before=cursor)).next_cursor is not None:
        listed_ids += [state.request.id for state in page.states]
        cursor = page.next_cursor
    listed_ids += [state.request.id for state in page.states]
    assert listed_ids == sorted(ids, reverse=True)


def test_unreadable_records_do_not_hide_other_requests(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an exception, and a list that ends after a page with an unreadable record."""
    monkeypatch.setattr("jobmon.actions.requests.MAX_LISTED", 2)
    now = datetime.now(UTC).replace(microsecond=0)
    first_id, bad_target_id, bad_phase_id, bad_number_id, last_id = (
        queue.file("retry", f"job-{index}", at=now - timedelta(seconds=index)).request.id
        for index in range(5)
    )
    decisions, own_database = queue.database.action_decisions, queue.requests.records.own
    decisions.update_one({"request": bad_target_id}, {"$set": {"target": {"sql": "drop"}}})
    decisions.update_one({"request": bad_number_id}, {"$set": {"validS": Int64(-(2**63))}})
    queue.requests.records.add_progress(bad_phase_id, Progress.FINISHED, {"phase": "unknown"})
    malformed = {"kind": "requested", "at": now, "request": "not an id"}
    decisions.insert_one(own_database.new("malformed", malformed))
    listed_ids = [state.request.id for page in queue.requests.list_all() for state in page]
    assert listed_ids == [first_id, last_id]
    assert queue.requests.list_recent(limit=2).next_cursor is not None


@pytest.mark.parametrize("value", [0, False, "", {}])
def test_action_removes_a_field_with_an_empty_value(queue: ActingQueue, value: Any) -> None:
    """Catches a job that is skipped as if the field with such a value were missing."""
    target = Target(job_ids=("held",))
    request = ActionRequest(action="enable", target=target, by=ADA, expected=1)
    transition = Transition(statuses=("queued",), removals=("hold",))
    changes = ProfileJobChanges(queue.connection, request, transition)
    queue.add("held", hold=value)
    queue.add("free")
    held_job, free_job = (
        changes.read([queue.job(name)["_id"]]).popitem()[1] for name in ("held", "free")
    )
    assert changes.apply(changes.plan(held_job))
    assert "hold" not in queue.job("held")
    with pytest.raises(RefusedActionError, match="it has this value already"):
        changes.plan(free_job)


def test_action_changes_the_number_1_to_true(queue: ActingQueue) -> None:
    """Catches a job that is skipped because True is equal to 1 in Python."""
    request = ActionRequest(action="disable", target=Target(job_ids=("x",)), by=ADA, expected=1)
    transition = Transition(statuses=("queued",), changes={"disabled": True})
    changes = ProfileJobChanges(queue.connection, request, transition)
    queue.add("number", disabled=1)
    queue.add("boolean", disabled=True)
    number, boolean = (
        changes.read([queue.job(name)["_id"]]).popitem()[1] for name in ("number", "boolean")
    )
    change = changes.plan(number)
    assert not changes.is_made(number, change)
    assert changes.apply(change)
    assert queue.job("number")["disabled"] is True
    with pytest.raises(RefusedActionError, match="it has this value already"):
        changes.plan(boolean)


def test_the_records_have_no_payload_or_error_of_mapped_documents(
    open_profile_queue: Callable[[str], ActingQueue],
) -> None:
    """Catches personal data in a record that is kept for months after the job is gone."""
    queue = open_profile_queue(PROFILE_THAT_CHANGES_ERRORS)
    secrets = {"to": "ada@example.org"}
    errors = {"failure": {"text": "ada@example.org"}, "state": "broken", "log": [{"e": secrets}]}
    job = {"_id": "dead", "body": {**secrets, "tries": 4}, "note": "ada@example.org", **errors}
    queue.database.work.insert_one(job | {"lane": "slow", "why": "old"})
    filed = queue.file("retry", "dead")
    queue.act()
    assert queue.outcomes(filed) == {"dead": ("done", "")}
    changed_job = {"_id": "dead", "body": {"tries": 5}, "failure": {"text": ""}, "note": ""}
    assert queue.database.work.find_one() == changed_job | {"state": "new", "lane": "fast"}
    ((outcome, _),) = queue.requests.list_job_outcomes("dead")
    assert outcome.before == {"state": "broken", "lane": "slow", "why": "old"}
    assert outcome.after == {"state": "new", "lane": "fast", "why": None}
    records = [*queue.database.action_progress.find(), *queue.database.action_outcomes.find()]
    assert "ada@example.org" not in str(records)


def test_outcomes_that_are_not_replicated_raise_an_error(queue: ActingQueue) -> None:
    """Catches an outcome that counts as recorded although a failover may undo it."""
    records, outcome = queue.requests.records, make_outcome(1, "job", Result.DONE)
    failure = {"code": 64, "errmsg": "waiting for replication timed out"}
    fault = {"failCommands": ["insert"], "writeConcernError": failure}
    fault["namespace"] = f"{queue.settings.state_db}.action_outcomes"
    for _ in range(2):  # in the second call, the outcome is also a duplicate
        admin = queue.database.client.admin
        admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fault)
        with pytest.raises(BulkWriteError):
            records.add_outcomes("request", [outcome])
    records.add_outcomes("request", [outcome])
    assert records.count_outcomes("request") == {"done": 1}


def test_pause_of_a_type_is_known_with_its_time_person_and_reason(queue: ActingQueue) -> None:
    def find_pauses() -> Any:
        return PausedTypes(queue.connection, queue.requests.describe_pauses).find()

    target = Target(types=("mail", "sms"))
    filed = queue.file("pause_type", target, expected=2, reason="the provider is down")
    queue.file("pause_type", Target(types=("push",)), dry_run=True)
    queue.act()
    pauses = find_pauses()
    assert pauses.keys() == {"mail", "sms"}
    assert (pauses["mail"].by, pauses["mail"].reason) == ("ada", "the provider is down")
    assert filed.request.at <= pauses["mail"].since <= datetime.now(UTC)
    queue.file("resume_type", Target(types=("sms",)), by=BOB)
    queue.act()
    assert find_pauses() == {"mail": pauses["mail"]}
    # This pause is not by jobmon: the record of the earlier pause does not explain it.
    queue.database.job_controls.update_one({"_id": "paused"}, {"$push": {"types": "sms"}})
    assert find_pauses() == {"mail": pauses["mail"], "sms": TypePause()}
