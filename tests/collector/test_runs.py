"""The runs that one change shows: catches a run that is lost, counted twice, or has a wrong end."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.collector.job_changes import JobChange, apply_change, project_events, select_paths
from jobmon.collector.runs import JobVersion, count_change, find_lost_run
from jobmon.rollup.buckets import Tally
from jobmon.rollup.histogram import bucket
from jobmon.store.repetition import Repetition
from jobmon.store.run_rules import RunRules

from ..conftest import NOW

SECOND = timedelta(seconds=1)
RULES = RunRules(end_fields=("finishedAt",))
OWN_END_RULES = RunRules(end_fields=("endedAt",), has_own_end=True, has_outcome=True)


def make_change(operation: str = "update", **fields: Any) -> JobChange:
    default = {"job_id": 1, "position": "1", "at": NOW, "document": None, "written": {}}
    return JobChange(**default | {"operation": operation, "removed": (), "shortened": {}} | fields)


def make_version(status: str = "queued", **fields: Any) -> JobVersion:
    outcomes = {"succeeded": "succeeded", "failed": "failed", "dlq": "failed"}
    default = {"type": "t", "status": status, "is_running": status == "leased", "attempt": None}
    dates = dict.fromkeys(("started_at", "finished_at", "created_at", "due_at"))
    return JobVersion(**default | dates | {"outcome": outcomes.get(status)} | fields)


LEASED, QUEUED, SUCCEEDED = map(make_version, ("leased", "queued", "succeeded"))


def count_runs(
    change: JobChange, before: JobVersion | None, after: JobVersion | None, rules: RunRules = RULES
) -> list[tuple[datetime, str, Tally]]:
    """The counted entries: the time, the type, and what is added to its tally."""
    return [entry[:3] for entry in count_change(change, before, after, rules)]


def make_run_entries(outcome: str, at: datetime = NOW) -> list[tuple[datetime, str, Tally]]:
    return [(at, "t", Tally(outcomes=Counter([outcome])))]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("succeeded", make_run_entries("succeeded")),
        ("failed", make_run_entries("failed")),
        ("dlq", [*make_run_entries("failed"), (NOW, "t", Tally(dlq=1))]),
        ("queued", []),
        ("cancelled", []),
        ("leased", []),
    ],
)
def test_succeeded_failed_and_dlq_end_the_run_of_a_running_job(
    status: str, expected: list[tuple[datetime, str, Tally]]
) -> None:
    assert count_runs(make_change(written={"state": "x"}), LEASED, make_version(status)) == expected


def test_written_end_counts_a_run_of_a_job_that_was_not_known() -> None:
    after = make_version("succeeded", finished_at=NOW - SECOND, started_at=NOW - 2 * SECOND)
    change = make_change(written={"finishedAt": NOW - SECOND})
    tally = Tally(outcomes=Counter(["succeeded"]), run=Counter([bucket(1_000)]))
    assert count_runs(change, None, after) == [(NOW - SECOND, "t", tally)]
    assert count_runs(make_change(written={"payload": 1}), None, after) == []
    assert count_runs(make_change(written={"finishedAt": None}), None, SUCCEEDED) == []


def test_end_that_is_written_in_two_steps_is_one_run() -> None:
    dated = make_change(written={"finishedAt": NOW})
    assert count_runs(dated, SUCCEEDED, make_version("succeeded", finished_at=NOW)) == []
    leased = make_version("leased", finished_at=NOW)  # the date first
    assert count_runs(dated, LEASED, leased) == []
    change = make_change(written={"state": 2})
    succeeded = make_version("succeeded", finished_at=NOW)
    assert count_runs(change, leased, succeeded) == make_run_entries("succeeded")


def test_own_end_field_is_the_only_end() -> None:
    """Catches an old failed run that is counted again when a stopping worker unlocks its jobs."""
    running = make_version("leased", outcome="failed")
    unlocked = make_version("failed", finished_at=NOW - timedelta(days=1))
    assert count_runs(make_change(removed=("lockedAt",)), running, unlocked, OWN_END_RULES) == []
    ended = make_version("queued", outcome="succeeded", finished_at=NOW)
    change = make_change(written={"endedAt": NOW})
    assert count_runs(change, running, ended, OWN_END_RULES) == make_run_entries("succeeded")
    # Two workers may run a job whose lease expired: then two runs end.
    assert count_runs(change, ended, ended, OWN_END_RULES) == make_run_entries("succeeded")
    assert count_runs(make_change(written={"endedAt": None}), running, ended, OWN_END_RULES) == []


def test_deleted_running_job_has_the_outcome_of_the_profile() -> None:
    rules = RunRules(deleted="succeeded")
    running = make_version("leased", started_at=NOW - SECOND)
    tally = Tally(outcomes=Counter(["succeeded"]), run=Counter([bucket(1_000)]))
    assert count_runs(make_change("delete"), running, None, rules) == [(NOW, "t", tally)]
    assert count_runs(make_change("delete"), running, None) == []
    for before in (None, QUEUED, SUCCEEDED):
        assert count_runs(make_change("delete"), before, None, rules) == []


def test_new_lease_of_a_running_job_ends_the_run_before() -> None:
    rules = RunRules(lease_field="ack")
    change = make_change(written={"ack": "b"})
    assert count_runs(change, LEASED, LEASED, rules) == make_run_entries("expired")
    assert count_runs(change, QUEUED, LEASED, rules) == []
    assert count_runs(make_change(written={"visible": 1}), LEASED, LEASED, rules) == []


def test_insert_counts_an_enqueued_job_unless_the_job_is_old() -> None:
    new = make_version(created_at=NOW - SECOND)
    assert count_runs(make_change("insert"), None, new) == [(NOW - SECOND, "t", Tally(enqueued=1))]
    yesterday = NOW - timedelta(days=1)
    old = make_version("succeeded", created_at=yesterday, finished_at=yesterday)
    assert count_runs(make_change("insert", document={"finishedAt": 1}), None, old) == []


def test_replacement_ends_a_run_once() -> None:
    """Catches a second run if a program that saves whole documents saves a finished job again."""
    ended = make_version("succeeded", finished_at=NOW)
    change = make_change("replace", document={"finishedAt": NOW})
    assert count_runs(change, LEASED, ended) == make_run_entries("succeeded")
    assert count_runs(change, ended, ended) == []
    assert count_runs(change, None, ended) == make_run_entries("succeeded")


def test_first_attempt_waited_since_it_was_due() -> None:
    dates = {"created_at": NOW - 9 * SECOND, "started_at": NOW - 2 * SECOND, "finished_at": NOW}
    before = make_version("leased", due_at=NOW - 5 * SECOND)
    after = make_version("succeeded", attempt=1, due_at=NOW + SECOND, **dates)
    ((_, _, tally),) = count_runs(make_change(written={"state": 2}), before, after)
    assert (tally.wait, tally.run) == (Counter([bucket(3_000)]), Counter([bucket(2_000)]))
    second_attempt = make_version("succeeded", attempt=2, **dates)
    ((_, _, tally),) = count_runs(make_change(written={"state": 2}), before, second_attempt)
    assert not tally.wait


def test_a_run_does_not_get_the_end_of_an_earlier_run() -> None:
    after = make_version("failed", started_at=NOW - SECOND, finished_at=NOW - timedelta(minutes=5))
    ((at, _, _),) = count_runs(make_change(written={"state": 2}), LEASED, after)
    assert at == NOW


def test_lost_run_of_a_recurring_job_with_a_lease_field_is_found_once() -> None:
    """Catches a run that is counted when the job is leased again, and again when it starts."""
    hourly = {"repetition": Repetition(interval="1 hour")}
    before = make_version("leased", started_at=NOW - timedelta(hours=1), **hourly)
    after = make_version("leased", started_at=NOW, **hourly)
    leased_again = make_change(written={"lockedAt": NOW})
    with_lease = replace(RULES, lease_field="lockedAt")
    for rules, run_count, is_found in ((RULES, 0, True), (with_lease, 1, False)):
        assert len(count_runs(leased_again, before, before, rules)) == run_count
        assert (find_lost_run(before, after, rules) is not None) == is_found


def test_update_is_applied_to_the_remembered_fields() -> None:
    log = [{"x": 1}, {"x": 2, "y": 1}, 3]
    document = {"_id": 1, "a": {"b": 1, "c": 2}, "log": log, "gone": 1}
    change = make_change(
        written={"a.b": 7, "log.0.x": 9, "log.2": {"x": 4}, "d.e": 5, "log.9": "unknown"},
        removed=("gone", "a.c", "log.1.y"),
        shortened={"log": 2},
    )
    assert apply_change(document, change) == {
        "_id": 1,
        "a": {"b": 7},
        "log": [{"x": 9}, {"x": 2}, {"x": 4}],
        "d": {"e": 5},
    }
    assert document["a"] == {"b": 1, "c": 2}
    assert document["log"] == [{"x": 1}, {"x": 2, "y": 1}, 3]


def test_only_the_fields_of_the_rules_are_remembered() -> None:
    document = {"_id": 1, "error": {"cancelled": True, "stack": "long"}, "log": [1], "data": 2}
    paths = ("error.cancelled", "log.x", "missing.y")
    expected = {"_id": 1, "error": {"cancelled": True}, "log": [1]}
    assert select_paths(document, paths) == expected


def test_change_shows_which_values_it_set() -> None:
    change = make_change(written={"a.b": 1, "c": {"d": 1}, "e": None, "ab": 1})
    assert [change.has_written(path) for path in ("a", "a.b", "a.b.x", "c.d")] == [True] * 4
    assert [change.has_written(path) for path in ("e", "b", "a.c", "abc")] == [False] * 4
    assert make_change("insert", document={"a": {"b": 1}}).has_written("a.b")
    assert not make_change("insert", document={"a": None}).has_written("a.b")


def test_events_have_only_the_requested_fields_of_a_job() -> None:
    assert project_events(["b", "a"])["fullDocument"] == {"_id": True, "b": True, "a": True}
