"""The registry of groups of errors on the real server: catches a group that is lost, hides a new
one, or forgets since when it is known."""

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
from jobmon.rollup.error_registry import ErrorGroup, load_error_group
from jobmon.store.labels import OTHER

from ..conftest import NOW

Db = Database[dict[str, Any]]


@pytest.fixture
def own(database: Db) -> OwnDatabase:
    return OwnDatabase(database, "q")


def make_groups(own: OwnDatabase) -> ErrorGroups:
    return ErrorGroups(own, Redactor())


def make_run(code: str | None, minutes: float, message: str = "m", job: str = "j") -> FinishedRun:
    """A failed run that ended this many minutes after NOW."""
    return FinishedRun(
        type="mail",
        outcome="failed",
        job_id=job,
        finished_at=NOW + timedelta(minutes=minutes),
        error={"code": code, "message": message},
    )


def read(own: OwnDatabase) -> dict[str | None, ErrorGroup]:
    """The stored groups by code."""
    found = own["errors"].find(own.scope)
    return {group.code: group for group in own.read("errors", found, load_error_group)}


def test_a_new_error_takes_the_place_of_the_group_that_was_seen_longest_ago(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS", 3)
    groups = make_groups(own)
    quiet = ONGOING_FOR / MINUTE
    old = [make_run(code, minutes) for minutes, code in enumerate(("first", "second", "third"))]
    ids = groups.group(old)
    # All groups have recent errors: there is no room yet.
    assert groups.group([make_run("new", quiet)]) == [OTHER]
    # An older run, as a first count of the history finds it, takes no other group's place.
    assert groups.group([make_run("past", -100)]) == [OTHER]
    groups.write()
    new = make_run("new", quiet + 0.5)
    assert groups.group([new]) == [classify_error(new.error).id]
    groups.write()
    assert set(read(own)) == {"second", "third", "new"}
    # A group that was removed and comes back has the same id.
    assert groups.group([old[0]]) == [OTHER]
    assert groups.group([make_run("first", quiet + 2)]) == ids[:1]


def test_a_new_message_takes_the_place_of_a_quiet_one_of_its_code(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS_OF_CODE", 2)
    groups = make_groups(own)
    for code in ("Error", None):
        groups.group([make_run(code, 0, "alpha"), make_run(code, 1, "bravo")])
        folded = groups.group([make_run(code, 2, "charlie")])
        later = make_run(code, 30, "delta")
        assert groups.group([later]) == [classify_error(later.error).id] != folded
    groups.write()
    stored = {(group["code"], group["pattern"]) for group in own["errors"].find()}
    assert stored == {
        (code, pattern)
        for code in ("Error", None)
        for pattern in ("bravo", OTHER_MESSAGES, "delta")
    } - {(code, "alpha") for code in ("Error", None)}


def test_codes_beyond_the_number_of_groups_use_no_memory(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS", 5)
    groups = make_groups(own)
    groups.group(make_run(f"E_{number}", number / 1_000) for number in range(500))
    assert len(groups._ids_by_code) == 5


def test_groups_keep_first_and_last_time_through_restarts_recounts_and_two_collectors(
    own: OwnDatabase,
) -> None:
    first, second = make_groups(own), make_groups(own)
    second.delete_unseen(NOW)  # it has read that there are no groups
    first.group([make_run("E", minutes, job=f"j{minutes}") for minutes in range(3)])
    first.write()
    sample = read(own)["E"]
    # Another collector, which does not know these runs, has seen a later and an earlier run.
    second.group([make_run("E", 10, job="j10"), make_run("E", -5, job="j-5")])
    second.write()
    # The first collector has lost its lease, and does not know that yet.
    first.group([make_run("E", 3, job="j3")])
    first.write()
    again = make_groups(own)
    again.group([make_run("E", minutes, job=f"j{minutes}") for minutes in (10, 3, 1)])
    again.write()
    (group,) = read(own).values()
    assert group.first_seen == NOW - 5 * MINUTE
    assert group.last_seen == NOW + 10 * MINUTE
    assert [job.job_id for job in group.jobs] == ["j10", "j3", "j1", "j-5"]
    assert (group.message, group.stack) == (sample.message, sample.stack) == ("m", None)


def test_a_text_that_no_database_stores_keeps_no_other_group_from_being_stored(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an error in JSON with half a character, which only Python can hold."""
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS_OF_CODE", 1)
    groups = make_groups(own)
    odd = '{"password": "x", "a": "\\ud800"}'
    groups.group([make_run("E\ud800", 0, "m\ud800"), make_run("E\ud800", 0, "other")])
    groups.group([make_run("whole", 0), make_run("json", 0, f"no {odd}")])
    run = make_run("stack", 0)
    groups.group([run._replace(error={**run.error, "stack": "Error: \udc00\n  at a (/b.js:1:1)"})])
    groups.write()
    assert set(read(own)) == {"E?", "whole", "json", "stack"}


def test_groups_that_were_not_seen_for_the_retention_are_deleted_and_may_come_back(
    own: OwnDatabase,
) -> None:
    groups = make_groups(own)
    groups.group([make_run("old", 0), make_run("young", 60)])
    groups.write()
    groups.delete_unseen(NOW + HOUR)
    assert set(read(own)) == {"young"}
    groups.group([make_run("old", 0)])
    groups.write()
    assert set(read(own)) == {"young", "old"}
