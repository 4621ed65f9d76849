"""The registry of groups of errors on the real server: catches a group that is lost, keeps a new
group out, or loses the time of its first error."""

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector import error_groups as error_groups_module
from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.runs import FinishedRun
from jobmon.diagnosis.error_kinds import ONGOING_FOR, OTHER_MESSAGES, classify_error
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.documents import OwnDatabase
from jobmon.rollup.error_group_document import ErrorGroup, load_error_group
from jobmon.store.labels import OTHER

from ..conftest import NOW

MongoDb = Database[dict[str, Any]]


@pytest.fixture
def rollups(database: MongoDb) -> OwnDatabase:
    return OwnDatabase(database, "q")


def make_groups(rollups: OwnDatabase) -> ErrorGroups:
    return ErrorGroups(rollups, Redactor())


def make_run(
    code: str | None, minutes: float, message: str = "m", job_id: str = "j"
) -> FinishedRun:
    """A failed run that ended this many minutes after NOW."""
    return FinishedRun(
        type="mail",
        outcome="failed",
        job_id=job_id,
        finished_at=NOW + timedelta(minutes=minutes),
        error={"code": code, "message": message},
    )


def read_groups(rollups: OwnDatabase) -> dict[str | None, ErrorGroup]:
    """The stored groups by code."""
    documents = rollups["errors"].find(rollups.scope)
    return {group.code: group for group in rollups.read("errors", documents, load_error_group)}


def test_a_new_error_takes_the_place_of_the_group_that_was_seen_longest_ago(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS", 3)
    groups = make_groups(rollups)
    quiet_minute = ONGOING_FOR / MINUTE  # later, the error of `first` is not recent
    old = [make_run(code, minutes) for minutes, code in enumerate(("first", "second", "third"))]
    ids = groups.group(old)
    # All groups have recent errors: none is replaced.
    assert groups.group([make_run("new", quiet_minute)]) == [OTHER]
    # An older run, as in a first count of the history, replaces no group.
    assert groups.group([make_run("past", -100)]) == [OTHER]
    groups.write()
    new = make_run("new", quiet_minute + 0.5)
    assert groups.group([new]) == [classify_error(new.error).id]
    groups.write()
    assert set(read_groups(rollups)) == {"second", "third", "new"}
    # A group that was removed and comes back has the same id.
    assert groups.group([old[0]]) == [OTHER]
    assert groups.group([make_run("first", quiet_minute + 2)]) == ids[:1]


def test_a_new_message_takes_the_place_of_a_quiet_one_of_its_code(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS_OF_CODE", 2)
    groups = make_groups(rollups)
    for code in ("Error", None):
        groups.group([make_run(code, 0, "alpha"), make_run(code, 1, "bravo")])
        folded = groups.group([make_run(code, 2, "charlie")])
        later = make_run(code, 30, "delta")
        assert groups.group([later]) == [classify_error(later.error).id] != folded
    groups.write()
    stored = {(group["code"], group["pattern"]) for group in rollups["errors"].find()}
    assert stored == {
        (code, pattern)
        for code in ("Error", None)
        for pattern in ("bravo", OTHER_MESSAGES, "delta")
    }


def test_codes_beyond_the_limit_of_groups_use_no_memory(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS", 5)
    groups = make_groups(rollups)
    groups.group(make_run(f"E_{index}", index / 1_000) for index in range(500))
    assert len(groups._ids_by_code) == 5


def test_groups_keep_first_and_last_time_through_restarts_recounts_and_two_collectors(
    rollups: OwnDatabase,
) -> None:
    first, second = make_groups(rollups), make_groups(rollups)
    second.delete_unseen(NOW)  # loads the groups, of which there are none yet
    first.group([make_run("E", minutes, job_id=f"j{minutes}") for minutes in range(3)])
    first.write()
    sample = read_groups(rollups)["E"]
    # Another collector, which does not know these runs, has seen a later and an earlier run.
    second.group([make_run("E", 10, job_id="j10"), make_run("E", -5, job_id="j-5")])
    second.write()
    # The first collector has lost its lease, and does not know that yet.
    first.group([make_run("E", 3, job_id="j3")])
    first.write()
    restarted = make_groups(rollups)
    restarted.group([make_run("E", minutes, job_id=f"j{minutes}") for minutes in (10, 3, 1)])
    restarted.write()
    (group,) = read_groups(rollups).values()
    assert group.first_seen == NOW - 5 * MINUTE
    assert group.last_seen == NOW + 10 * MINUTE
    assert [job.job_id for job in group.jobs] == ["j10", "j3", "j1", "j-5"]
    assert (group.message, group.stack) == (sample.message, sample.stack) == ("m", None)


def test_a_text_that_bson_cannot_hold_does_not_prevent_that_groups_are_stored(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a failure at half of a surrogate pair: a Python string can hold it, BSON cannot."""
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS_OF_CODE", 1)
    groups = make_groups(rollups)
    json_text = '{"password": "x", "a": "\\ud800"}'
    groups.group([make_run("E\ud800", 0, "m\ud800"), make_run("E\ud800", 0, "other")])
    groups.group([make_run("whole", 0), make_run("json", 0, f"no {json_text}")])
    run = make_run("stack", 0)
    groups.group([run._replace(error={**run.error, "stack": "Error: \udc00\n  at a (/b.js:1:1)"})])
    groups.write()
    assert set(read_groups(rollups)) == {"E?", "whole", "json", "stack"}


def test_groups_without_an_error_since_a_time_are_deleted_and_may_come_back(
    rollups: OwnDatabase,
) -> None:
    groups = make_groups(rollups)
    groups.group([make_run("old", 0), make_run("young", 60)])
    groups.write()
    groups.delete_unseen(NOW + HOUR)
    assert set(read_groups(rollups)) == {"young"}
    groups.group([make_run("old", 0)])
    groups.write()
    assert set(read_groups(rollups)) == {"young", "old"}
