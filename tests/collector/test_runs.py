"""Runs in single changes: catches a run that is counted twice, not at all, or with a wrong end."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.collector.job_changes import JobChange, apply_change, project_events, select_paths
from jobmon.collector.runs import JobVersion, count_change
from jobmon.rollup.buckets import Tally
from jobmon.rollup.histogram import bucket
from jobmon.store.run_rules import RunRules

from ..conftest import NOW

SECOND = timedelta(seconds=1)
RULES = RunRules(end_fields=("finishedAt",))
OWN_END = RunRules(end_fields=("endedAt",), has_own_end=True, has_outcome=True)


def change(operation: str = "update", **more: Any) -> JobChange:
    default = {"job_id": 1, "position": "1", "at": NOW, "document": None, "written": {}}
    return JobChange(**default | {"operation": operation, "removed": (), "shortened": {}} | more)


def facts(status: str = "queued", **more: Any) -> JobVersion:
    outcomes = {"succeeded": "succeeded", "failed": "failed", "dlq": "failed"}
    default = {"type": "t", "status": status, "is_running": status == "leased", "attempt": None}
    dates = dict.fromkeys(("started_at", "finished_at", "created_at", "due_at"))
    return JobVersion(**default | dates | {"outcome": outcomes.get(status)} | more)


def count(
    made: JobChange, before: JobVersion | None, after: JobVersion | None, rules: RunRules = RULES
) -> list[tuple[datetime, str, Tally]]:
    return [shown[:3] for shown in count_change(made, before, after, rules)]


def run(outcome: str, at: datetime = NOW) -> list[tuple[datetime, str, Tally]]:
    return [(at, "t", Tally(outcomes=Counter([outcome])))]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("succeeded", run("succeeded")),
        ("failed", run("failed")),
        ("dlq", [*run("failed"), (NOW, "t", Tally(dlq=1))]),
        ("queued", []),
        ("cancelled", []),
        ("leased", []),
    ],
)
def test_running_job_that_changes_its_status_ends_a_run(
    status: str, expected: list[tuple[datetime, str, Tally]]
) -> None:
    assert count(change(written={"state": "x"}), facts("leased"), facts(status)) == expected


def test_written_end_counts_a_run_of_a_job_that_was_not_known() -> None:
    after = facts("succeeded", finished_at=NOW - SECOND, started_at=NOW - 2 * SECOND)
    made = change(written={"finishedAt": NOW - SECOND})
    tally = Tally(outcomes=Counter(["succeeded"]), run=Counter([bucket(1_000)]))
    assert count(made, None, after) == [(NOW - SECOND, "t", tally)]
    assert count(change(written={"payload": 1}), None, after) == []
    assert count(change(written={"finishedAt": None}), None, facts("succeeded")) == []


def test_end_that_is_written_in_two_steps_is_one_run() -> None:
    dated = change(written={"finishedAt": NOW})
    assert count(dated, facts("succeeded"), facts("succeeded", finished_at=NOW)) == []
    leased = facts("leased", finished_at=NOW)  # the date first
    assert count(dated, facts("leased"), leased) == []
    made = change(written={"state": 2})
    assert count(made, leased, facts("succeeded", finished_at=NOW)) == run("succeeded")


def test_own_end_field_is_the_only_end() -> None:
    """A worker that stops unlocks its jobs. Catches a second count of an earlier failed run."""
    running = facts("leased", outcome="failed")
    unlocked = facts("failed", finished_at=NOW - timedelta(days=1))
    assert count(change(removed=("lockedAt",)), running, unlocked, OWN_END) == []
    ended = facts("queued", outcome="succeeded", finished_at=NOW)
    assert count(change(written={"endedAt": NOW}), running, ended, OWN_END) == run("succeeded")
    # Twice, if two workers ran the job: its lease had expired.
    assert count(change(written={"endedAt": NOW}), ended, ended, OWN_END) == run("succeeded")
    assert count(change(written={"endedAt": None}), running, ended, OWN_END) == []


def test_deleted_running_job_has_the_outcome_of_the_profile() -> None:
    rules = RunRules(deleted="succeeded")
    running = facts("leased", started_at=NOW - SECOND)
    tally = Tally(outcomes=Counter(["succeeded"]), run=Counter([bucket(1_000)]))
    assert count(change("delete"), running, None, rules) == [(NOW, "t", tally)]
    assert count(change("delete"), running, None) == []
    for before in (None, facts("queued"), facts("succeeded")):
        assert count(change("delete"), before, None, rules) == []


def test_new_lease_of_a_running_job_ends_the_run_before() -> None:
    rules = RunRules(lease_field="ack")
    made = change(written={"ack": "b"})
    assert count(made, facts("leased"), facts("leased"), rules) == run("expired")
    assert count(made, facts("queued"), facts("leased"), rules) == []
    assert count(change(written={"visible": 1}), facts("leased"), facts("leased"), rules) == []


def test_insert_counts_an_enqueued_job_unless_it_is_an_old_one() -> None:
    new = facts(created_at=NOW - SECOND)
    assert count(change("insert"), None, new) == [(NOW - SECOND, "t", Tally(enqueued=1))]
    old = facts("succeeded", created_at=NOW - timedelta(days=2), finished_at=NOW - timedelta(1))
    assert count(change("insert", document={"finishedAt": 1}), None, old) == []


def test_replacement_ends_a_run_once() -> None:
    """A program that saves whole documents may save a finished job again."""
    ended = facts("succeeded", finished_at=NOW)
    made = change("replace", document={"finishedAt": NOW})
    assert count(made, facts("leased"), ended) == run("succeeded")
    assert count(made, ended, ended) == []
    assert count(made, None, ended) == run("succeeded")


def test_first_attempt_waited_since_it_was_due() -> None:
    dates = {"created_at": NOW - 9 * SECOND, "started_at": NOW - 2 * SECOND, "finished_at": NOW}
    before = facts("leased", due_at=NOW - 5 * SECOND)
    after = facts("succeeded", attempt=1, due_at=NOW + SECOND, **dates)
    ((_, _, tally),) = count(change(written={"state": 2}), before, after)
    assert (tally.wait, tally.run) == (Counter([bucket(3_000)]), Counter([bucket(2_000)]))
    again = facts("succeeded", attempt=2, **dates)
    ((_, _, tally),) = count(change(written={"state": 2}), before, again)
    assert not tally.wait


def test_end_of_an_earlier_run_is_not_that_of_this_one() -> None:
    after = facts("failed", started_at=NOW - SECOND, finished_at=NOW - timedelta(minutes=5))
    ((at, _, _),) = count(change(written={"state": 2}), facts("leased"), after)
    assert at == NOW


def test_update_is_applied_to_the_remembered_fields() -> None:
    document = {"_id": 1, "a": {"b": 1, "c": 2}, "log": [{"x": 1}, {"x": 2}, 3], "gone": 1}
    made = change(
        written={"a.b": 7, "log.0.x": 9, "log.2": {"x": 4}, "d.e": 5, "log.9": "unknown"},
        removed=("gone", "a.c"),
        shortened={"log": 2},
    )
    assert apply_change(document, made) == {
        "_id": 1,
        "a": {"b": 7},
        "log": [{"x": 9}, {"x": 2}, {"x": 4}],
        "d": {"e": 5},
    }
    assert document["a"] == {"b": 1, "c": 2}
    assert document["log"] == [{"x": 1}, {"x": 2}, 3]


def test_only_the_fields_of_the_rules_are_remembered() -> None:
    document = {"_id": 1, "error": {"cancelled": True, "stack": "long"}, "log": [1], "data": 2}
    paths = ("error.cancelled", "log.x", "missing.y")
    kept = {"_id": 1, "error": {"cancelled": True}, "log": [1]}
    assert select_paths(document, paths) == kept


def test_change_shows_which_values_it_set() -> None:
    made = change(written={"a.b": 1, "c": {"d": 1}, "e": None, "ab": 1})
    assert [made.has_written(path) for path in ("a", "a.b", "a.b.x", "c.d")] == [True] * 4
    assert [made.has_written(path) for path in ("e", "b", "a.c", "abc")] == [False] * 4
    assert change("insert", document={"a": {"b": 1}}).has_written("a.b")
    assert not change("insert", document={"a": None}).has_written("a.b")
    assert project_events(["b", "a"])["fullDocument"] == {"_id": True, "b": True, "a": True}
