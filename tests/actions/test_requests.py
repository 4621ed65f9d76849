"""Requests for actions, and the state that follows from their records: catches a request that runs
although it is expired or stopped, a stored filter that changes, and a self-approval."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from jobmon.actions.catalog import ACTIONS, RequestError
from jobmon.actions.records import Decision, Progress
from jobmon.actions.request import MAX_JOBS, ActionRequest, Person, make_id
from jobmon.actions.state import Phase, conclude_state
from jobmon.actions.support import ONLY_DELETIONS, ActionSupport, find_support
from jobmon.actions.target import Target, dump_filter, load_filter, narrow_filter
from jobmon.domain import JobCondition
from jobmon.rollup.documents import MalformedError
from jobmon.settings import Settings
from jobmon.store.filter import JobFilter
from jobmon.store.search import SearchTerm

from ..conftest import NOW

ADA, BOB = Person(subject="ada", role="admin", address="::1"), Person(subject="bob")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
COUNTS = {"done": 3, "skipped": 1, "possible": 0}


def make_request(**changes: Any) -> ActionRequest:
    target = Target(job_filter=JobFilter(statuses=("dlq",)))
    values = {"action": "retry", "target": target, "by": ADA, "expected": 5, "reason": "back"}
    return ActionRequest(**(values | {"at": NOW} | changes))


def make_record(kind: Decision | Progress, at: datetime = NOW, **fields: Any) -> dict[str, Any]:
    by = {"by": fields.pop("by", ADA).dump()} if isinstance(kind, Decision) else {}
    return {"kind": kind.value, "at": at, **by, **fields}


FINISHED = make_record(Progress.FINISHED, counts=COUNTS, phase="finished")
CLAIMED, PAUSED = make_record(Progress.CLAIMED), make_record(Decision.PAUSED, reason="wait")
# By name: the records of a request, the age of the request, and its phase at this age.
CASES: dict[str, tuple[list[dict[str, Any]], timedelta, Phase]] = {
    "new": ([], 14 * MINUTE, Phase.WAITING),
    "too old": ([], 16 * MINUTE, Phase.EXPIRED),
    "claimed in time": ([CLAIMED], 16 * MINUTE, Phase.RUNNING),
    "paused before it runs": ([PAUSED], DAY, Phase.PAUSED),
    "resumed late": (
        [PAUSED, make_record(Decision.RESUMED, NOW + DAY)],
        DAY + MINUTE,
        Phase.WAITING,
    ),
    "resumed too long ago": ([PAUSED, make_record(Decision.RESUMED)], 16 * MINUTE, Phase.EXPIRED),
    "paused while it runs": ([CLAIMED, PAUSED], DAY, Phase.PAUSED),
    "paused for too long": ([CLAIMED, PAUSED], 8 * DAY, Phase.EXPIRED),
    "interrupted": ([CLAIMED, make_record(Progress.INTERRUPTED, reason="away")], DAY, Phase.PAUSED),
    "resumed while it runs": ([CLAIMED, PAUSED, make_record(Decision.RESUMED)], DAY, Phase.RUNNING),
    "paused again and again": (
        [CLAIMED, PAUSED, make_record(Decision.RESUMED, NOW + 6 * DAY)],
        10 * DAY,
        Phase.EXPIRED,
    ),
    "stopped before it runs": ([make_record(Decision.STOPPED)], MINUTE, Phase.STOPPED),
    "stopped while it runs": ([CLAIMED, make_record(Decision.STOPPED)], MINUTE, Phase.STOPPING),
    "stopped": (
        [CLAIMED, make_record(Decision.STOPPED), FINISHED | {"phase": "stopped"}],
        MINUTE,
        Phase.STOPPED,
    ),
    "finished": ([CLAIMED, FINISHED], DAY, Phase.FINISHED),
    "refused": ([CLAIMED, FINISHED | {"phase": "refused"}], DAY, Phase.REFUSED),
    "expired": ([make_record(Progress.EXPIRED)], MINUTE, Phase.EXPIRED),
}


@pytest.mark.parametrize("case", CASES)
def test_state_follows_from_the_records(case: str) -> None:
    records, age, phase = CASES[case]
    state = conclude_state(make_request(), records, None, NOW + age)
    assert state.phase is phase
    assert state.is_over == (phase in ("finished", "stopped", "refused", "expired"))


@pytest.mark.parametrize("records", [[PAUSED], [CLAIMED, PAUSED]], ids=["waiting", "running"])
def test_paused_request_has_the_reason_of_the_person(records: list[dict[str, Any]]) -> None:
    assert conclude_state(make_request(), records, None, NOW + MINUTE).reason == "wait"


@pytest.mark.parametrize(
    ("records", "age", "phase"),
    [
        ([], MINUTE, Phase.AWAITING_APPROVAL),
        ([], 25 * timedelta(hours=1), Phase.EXPIRED),
        ([make_record(Decision.APPROVED, by=ADA)], MINUTE, Phase.AWAITING_APPROVAL),
        ([make_record(Decision.APPROVED, by=BOB)], MINUTE, Phase.WAITING),
        (
            [make_record(Decision.APPROVED, NOW + timedelta(hours=9), by=BOB)],
            timedelta(hours=9.2),
            Phase.WAITING,
        ),
        ([make_record(Decision.APPROVED, by=BOB)], 16 * MINUTE, Phase.EXPIRED),
        ([make_record(Decision.REJECTED, by=BOB)], MINUTE, Phase.REJECTED),
    ],
    ids=[
        "new",
        "not approved in time",
        "self-approved",
        "approved",
        "approved late",
        "not claimed in time",
        "rejected",
    ],
)
def test_request_that_needs_an_approval_waits_for_another_person(
    records: list[dict[str, Any]], age: timedelta, phase: Phase
) -> None:
    assert (
        conclude_state(make_request(needs_approval=True), records, None, NOW + age).phase == phase
    )


def test_counts_are_from_the_last_batch_until_the_end_is_recorded() -> None:
    batch = {"counts": COUNTS | {"done": 2}, "at": NOW + MINUTE}
    state = conclude_state(make_request(), [CLAIMED], batch, NOW)
    assert (state.counts.total, state.progress_at) == (3, NOW + MINUTE)
    assert conclude_state(make_request(), [CLAIMED, FINISHED], batch, NOW).counts.done == 3
    expired = conclude_state(make_request(), [CLAIMED, PAUSED], batch, NOW + timedelta(days=8))
    assert (expired.phase, expired.counts.done) == (Phase.EXPIRED, 2)
    assert expired.progress_at is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"action": "explode"}, "action"),
        ({"action": "pause_type"}, "action"),
        ({"reason": " "}, "reason"),
        ({"reason": "a\x1b[2Jb"}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"expected": MAX_JOBS + 1}, "expected"),
        ({"run_at": NOW}, "run_at"),
        ({"action": "reschedule"}, "run_at"),
        ({"action": "reschedule", "run_at": NOW.replace(tzinfo=None)}, "run_at"),
        ({"action": "prioritize"}, "priority"),
        ({"action": "prioritize", "priority": 2**31}, "priority"),
        ({"action": "cancel", "reset_attempts": True}, "reset_attempts"),
    ],
    ids=str,
)
def test_error_names_the_bad_field_of_a_request(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as raised:
        make_request(**changes)
    assert raised.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"job_ids": ("a",), "types": ("mail",)},
        {"job_ids": tuple(map(str, range(1_001)))},
        {"job_ids": ("a", "a")},
        {"job_ids": ("",)},
        {"types": tuple(map(str, range(101)))},
    ],
    ids=["nothing", "ids and types", "too many ids", "same id twice", "empty id", "too many types"],
)
def test_a_bad_target_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Target(**fields)


def test_a_reason_is_not_required_for_one_job_or_a_dry_run() -> None:
    make_request(reason="", target=Target(job_ids=("a",)))
    make_request(reason="", dry_run=True)


FILTERS = {
    "empty": JobFilter(),
    "texts": JobFilter(statuses=("dlq", "failed"), types=("mail", "a*"), owner="ada", is_own=True),
    "dates": JobFilter(created_from=NOW, created_to=NOW + DAY, finished_from=NOW, due_to=NOW),
    "errors": JobFilter(error_code="7", error_group="g", worker="w1", job_id="a", min_attempts=2),
    "condition": JobFilter(condition=JobCondition.DUE, priority=-3, order_by="nextRunAt"),
    "search": JobFilter(search=(SearchTerm(field="payload.to", texts=("ada@*", "8425")),)),
}


@pytest.mark.parametrize("job_filter", FILTERS.values(), ids=FILTERS)
def test_a_loaded_request_equals_the_stored_one(job_filter: JobFilter) -> None:
    for target in (Target(job_filter=job_filter), Target(job_ids=("a", "b"))):
        request = make_request(target=target, owner="ada")
        assert ActionRequest.load(request.dump()) == request
    assert load_filter(dump_filter(job_filter)) == job_filter


@pytest.mark.parametrize(
    "stored_filter",
    [
        {"statuses": "dlq"},
        {"created_from": "yesterday"},
        {"owner": {"$gt": ""}},
        {"plan": {}},
        {"match": 1},
        {"search": [{"field": "payload.to", "texts": [{"$gt": ""}]}]},
        {"condition": "never"},
        [],
    ],
    ids=str,
)
def test_a_stored_filter_with_a_bad_field_or_value_is_refused(stored_filter: Any) -> None:
    """Catches an actor that runs an operator: the web service could insert any document."""
    with pytest.raises((MalformedError, ValueError)):
        load_filter(stored_filter)


def test_a_filter_is_narrowed_to_the_statuses_of_an_action() -> None:
    statuses = ("failed", "dlq")
    assert narrow_filter(JobFilter(), statuses) == JobFilter(statuses=statuses)
    job_filter = JobFilter(statuses=("dlq", "queued"))
    assert narrow_filter(job_filter, statuses) == JobFilter(statuses=("dlq",))
    assert narrow_filter(JobFilter(statuses=("queued",)), statuses) is None


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_an_account_without_a_name_is_recorded_by_its_number(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Catches `jobmon act` and `jobmon mute` that end with a stack trace in a container."""
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=error))
    assert Person.from_terminal(None).subject == f"uid {os.getuid()}"
    assert Person.from_terminal("ada").subject == "ada"


def test_each_person_and_key_make_their_own_request_id() -> None:
    assert make_id("ada", "k1") == make_id("ada", "k1")
    assert len({make_id("ada", "k1"), make_id("ada", "k2"), make_id("bob", "k1")}) == 3
    assert make_id("a", "b c") != make_id("a b", "c")


def test_refused_deletion_names_the_setting_only_if_the_setting_helps(
    make_settings: Callable[..., Settings],
) -> None:
    """Catches a missing or wrong remedy. In Agenda, to cancel a job is to delete it."""
    settings = replace(make_settings(), profile="agenda")
    for action in ("cancel", "delete"):
        with pytest.raises(RequestError, match="JOBMON_ACTIONS_ALLOW_DELETE=true"):
            find_support(settings).require(action)
        find_support(replace(settings, actions_allow_delete=True)).require(action)
    with pytest.raises(RequestError, match=r"no action delete\. It has: retry\."):
        ActionSupport(statuses={"retry": ("dlq",)}).require("delete")


def test_queue_with_only_deletions_gives_the_reason_why_it_has_no_actions(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Catches a log line or a finding of `jobmon check` that ends before its reason."""
    profile = tmp_path / "shop.toml"
    profile.write_text(
        'fields = { jobId = "_id" }\nstatus = { path = "state", names = { done = "succeeded" } }\n'
        'transitions.delete = { from = ["succeeded"], delete = true }\n'
    )
    settings = replace(make_settings(), profile=str(profile))
    support = find_support(settings)
    assert (support.list_actions(), support.reason) == ([], ONLY_DELETIONS)
    allowed = find_support(replace(settings, actions_allow_delete=True))
    assert (allowed.list_actions(), allowed.reason) == (["delete"], "")


def test_every_action_has_a_label_and_a_permission() -> None:
    for name, action in ACTIONS.items():
        assert action.name == name
        assert action.permission.startswith("JOBS_")
        assert action.label[0].isupper()
