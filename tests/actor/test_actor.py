"""The actor on a real server: catches a job that is changed twice, forced or lost, an outcome that
does not match the document, and a request that is carried out although it must not be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.preview import ActionPreviewer
from jobmon.actions.records import Decision, Progress
from jobmon.actions.state import Phase
from jobmon.actions.target import Target
from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.redaction.redactor import Redactor
from jobmon.store.filter import RefusedFilterError
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.paused_types import PausedTypes, TypePause

from ..conftest import NOW
from .conftest import ADA, BOB, ActingQueue, all_dead

LATER = NOW + timedelta(days=9)


def test_retry_of_a_dead_job_lets_a_worker_run_it_again(acting: ActingQueue) -> None:
    acting.add("dead", "dlq")
    filed = acting.file("retry", "dead")
    assert filed.phase is Phase.WAITING
    acting.act()
    job, state = acting.job("dead"), acting.state(filed)
    assert (job["status"], job["finishedAt"], job["lastError"]["code"]) == ("queued", None, "EHOST")
    assert (job["lastAction"]["id"], job["lastAction"]["by"]) == (filed.request.id, "ada")
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 1, 0)
    lease = acting.queue.lease("w2")
    assert lease is not None
    assert lease.attempt_number == 2
    ((outcome, request),) = acting.requests.list_job_outcomes("dead")
    assert (outcome.before["status"], outcome.after["status"]) == ("dlq", "queued")
    assert (request.by, request.reason) == (ADA, "the provider is back")


def test_retry_of_a_filter_takes_each_dead_job_once(acting: ActingQueue) -> None:
    for number in range(250):
        acting.add(f"dead-{number}", "dlq", type="mail" if number % 2 else "report")
    acting.add("waits")
    filed = acting.file("retry", all_dead(types=("mail",)), expected=125)
    acting.act()
    state = acting.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 125, 0)
    assert acting.jobs.count_documents({"status": "queued", "type": "mail"}) == 126
    assert acting.jobs.count_documents({"status": "dlq", "type": "report"}) == 125


@pytest.mark.parametrize(
    ("action", "status", "given", "expected"),
    [
        ("cancel", "queued", {}, {"status": "cancelled"}),
        ("cancel", "leased", {}, {"status": "cancelled", "leasedBy": None}),
        (
            "reschedule",
            "queued",
            {"run_at": NOW + timedelta(days=9)},
            {"nextRunAt": NOW + timedelta(days=9)},
        ),
        ("prioritize", "queued", {"priority": 7}, {"priority": 7, "status": "queued"}),
        ("retry", "cancelled", {"reset_attempts": True}, {"status": "queued", "maxAttempts": 1}),
    ],
)
def test_action_sets_the_fields_of_its_transition(
    acting: ActingQueue, action: str, status: str, given: dict, expected: dict
) -> None:
    acting.add("job", status)
    filed = acting.file(action, "job", **given)
    acting.act()
    job = acting.job("job")
    assert {name: job[name] for name in expected} == expected
    assert acting.outcomes(filed) == {"job": ("done", "")}


def test_selected_jobs_that_do_not_allow_an_action_are_skipped_with_the_reason(
    acting: ActingQueue,
) -> None:
    acting.add("dead", "dlq")
    acting.add("waits")
    filed = acting.file("retry", Target(job_ids=("dead", "waits", "missing")), expected=3)
    acting.act()
    assert acting.outcomes(filed) == {
        "dead": ("done", ""),
        "waits": ("skipped", "it is queued"),
        "missing": ("skipped", "there is no such job"),
    }


def test_dry_run_changes_nothing_and_records_what_it_would(acting: ActingQueue) -> None:
    acting.add("dead", "dlq")
    before = acting.job("dead")
    filed = acting.file("retry", all_dead(), dry_run=True)
    acting.act()
    assert acting.job("dead") == before
    assert acting.outcomes(filed) == {"dead": ("possible", "")}
    assert acting.requests.list_job_outcomes("dead") == []


def test_a_request_that_waited_too_long_expires(acting: ActingQueue) -> None:
    acting.add("dead", "dlq")
    filed = acting.file("retry", "dead", at=datetime.now(UTC) - timedelta(minutes=16))
    assert acting.state(filed).phase is Phase.EXPIRED
    acting.act()
    state = acting.state(filed)
    assert (state.phase, state.reason) == (Phase.EXPIRED, "No actor took it within 15 minutes.")
    assert acting.job("dead")["status"] == "dlq"
    assert [record.kind for record in state.history] == ["requested", "expired"]


def test_a_request_above_the_limit_waits_for_the_approval_of_another_person(
    acting: ActingQueue,
) -> None:
    acting.add("dead", "dlq")
    requests = acting.open_requests(actions_approval_above=0)
    acting.requests = requests
    filed = acting.file("retry", "dead")
    acting.act(actions_approval_above=0)
    assert acting.state(filed).phase is Phase.AWAITING_APPROVAL
    # A record in which a person approves their own request does not count.
    requests.records.add_decision(filed.request.id, Decision.APPROVED, ADA)
    acting.act(actions_approval_above=0)
    assert acting.job("dead")["status"] == "dlq"
    acting.database.action_decisions.delete_one({"kind": "approved"})
    requests.approve(filed.request.id, BOB)
    acting.act(actions_approval_above=0)
    assert acting.state(filed).phase is Phase.FINISHED
    assert acting.job("dead")["status"] == "queued"


def test_requests_show_whether_an_actor_works(acting: ActingQueue) -> None:
    assert acting.open_requests().has_actor() is False
    actor = acting.make_actor()
    actor.run_round()
    assert acting.open_requests().has_actor() is True
    actor.release()
    assert acting.open_requests().has_actor() is False


def test_retry_of_a_group_of_errors_takes_only_jobs_whose_error_belongs_to_it(
    acting: ActingQueue,
) -> None:
    for number in range(6):
        error = {"code": "E", "message": f"no answer from host {number}", "stack": None}
        if number % 2:
            error["message"] = f"the disk {number} is full"
        acting.add(f"dead-{number}", "dlq", lastError=error)
    error = {"code": "E", "message": "no answer from host 9", "stack": None}
    kind = classify_error(prepare_error(error, None, Redactor(())))
    target = all_dead(error_group=kind.id)
    planner = ListPlanner(acting.connection)
    lists, groups = JobLists(planner, Redactor(())), GroupJobReader(planner, Redactor(()))
    previewer = ActionPreviewer(lists, ListCounter(planner), acting.support, groups)
    preview = previewer.preview("retry", target)
    assert (preview.count, len(preview.sample)) == (3, 3)
    filed = acting.file("retry", target, expected=preview.count)
    acting.act()
    assert acting.outcomes(filed) == dict.fromkeys(("dead-0", "dead-2", "dead-4"), ("done", ""))
    with pytest.raises(RefusedFilterError, match="several kinds"):
        previewer.preview("retry", all_dead(error_group=fold_kind(kind).id))


def test_undo_restores_jobs_that_nothing_has_changed_since(acting: ActingQueue) -> None:
    for number in range(3):
        acting.add(f"dead-{number}", "dlq")
    before_all = {job["jobId"]: job for job in acting.jobs.find()}
    retried = acting.file("retry", all_dead(), expected=3, reset_attempts=True)
    acting.act()
    lease = acting.queue.lease("w1")
    assert lease is not None
    target = Target(request_id=retried.request.id)
    undone = acting.file("undo", target, expected=3)
    acting.act()
    results = acting.outcomes(undone)
    assert results.pop(lease.job_id) == ("skipped", "it has changed since that request")
    assert len(results) == 2
    assert set(results.values()) == {("done", "")}
    restored = acting.job(next(job_id for job_id in results if job_id))
    before = before_all[restored["jobId"]]
    changed = {"updatedAt", "lastAction"}
    assert {name for name in restored if restored[name] != before.get(name)} == changed
    again = acting.file("undo", target, expected=3)
    acting.act()
    assert {result for result, _ in acting.outcomes(again).values()} == {"skipped"}


def test_an_owners_request_skips_jobs_of_others_as_if_there_were_none(acting: ActingQueue) -> None:
    acting.add("own", "dlq", createdBy="ada")
    acting.add("foreign", "dlq", createdBy="bob")
    ids = ("own", "foreign", "none")
    filed = acting.file("retry", Target(job_ids=ids), owner="ada")
    acting.act()
    missing = ("skipped", "there is no such job")
    assert acting.outcomes(filed) == {"own": ("done", ""), "foreign": missing, "none": missing}
    keys = {each["key"] for each in acting.database.action_outcomes.find({"result": "skipped"})}
    assert keys == {"foreign", "none"}  # the order of the outcomes shows no difference either
    assert acting.job("foreign")["status"] == "dlq"


def test_requests_of_the_same_millisecond_are_listed_once_each(acting: ActingQueue) -> None:
    at = datetime.now(UTC).replace(microsecond=0)
    ids = {acting.file("retry", f"job-{number}", at=at).request.id for number in range(5)}
    listed: list[str] = []
    place = None
    while (page := acting.requests.list_recent(limit=2, before=place)).next_place is not None:
        listed += [state.request.id for state in page.states]
        place = page.next_place
    listed += [state.request.id for state in page.states]
    assert listed == sorted(ids, reverse=True)


def test_unreadable_records_hide_no_other_request(
    acting: ActingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a list that ends with the page of such a record, or that fails."""
    monkeypatch.setattr("jobmon.actions.requests.MAX_LISTED", 2)
    at = datetime.now(UTC).replace(microsecond=0)
    first, other, ended, last = (
        acting.file("retry", f"job-{number}", at=at - timedelta(seconds=number)).request.id
        for number in range(4)
    )
    decisions, own = acting.database.action_decisions, acting.requests.records.own
    decisions.update_one({"request": other}, {"$set": {"target": {"sql": "drop"}}})
    acting.requests.records.add_progress(ended, Progress.FINISHED, {"phase": "melted"})
    foreign = {"kind": "requested", "at": at, "request": "not an id"}
    decisions.insert_one(own.new("foreign", foreign))
    found = [state.request.id for page in acting.requests.list_all() for state in page]
    assert found == [first, last]
    assert acting.requests.list_recent(limit=2).next_place is not None


def test_pause_of_a_type_is_known_with_its_time_person_and_reason(acting: ActingQueue) -> None:
    def find() -> Any:
        return PausedTypes(acting.connection, acting.requests.describe_pauses).find()

    both = Target(types=("mail", "sms"))
    filed = acting.file("pause_type", both, expected=2, reason="the provider is down")
    acting.file("pause_type", Target(types=("push",)), dry_run=True)
    acting.act()
    found = find()
    assert found.keys() == {"mail", "sms"}
    assert (found["mail"].by, found["mail"].reason) == ("ada", "the provider is down")
    assert filed.request.at <= found["mail"].since <= datetime.now(UTC)
    acting.file("resume_type", Target(types=("sms",)), by=BOB)
    acting.act()
    assert find() == {"mail": found["mail"]}
    # Paused by hand: no record of the resumption may be taken for one of the pause.
    acting.database.job_controls.update_one({"_id": "paused"}, {"$push": {"types": "sms"}})
    assert find() == {"mail": found["mail"], "sms": TypePause()}
