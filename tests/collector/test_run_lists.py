"""The runs of recurring jobs, on a real replica set: catches a run that is lost or kept twice,
also after a crash and with two collectors, a secret in an error, and a list without bound."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from jobmon.collector import run_lists as run_lists_module
from jobmon.collector.leader import LeaseLostError
from jobmon.collector.run_lists import RunLists
from jobmon.collector.runs import FinishedRun
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.recurring_runs import MAX_RUNS, RECURRING_RUNS, load_runs, run_list_name
from jobmon.store.repetition import Repetition

from ..api.test_recurring import PATH
from ..support.waiting import eventually
from ..support.watched_queue import WatchedQueue
from .test_event_counter import Queue, Reading, agenda, collected, make_queue, now

__all__ = ["agenda", "make_queue"]  # fixtures

HOURLY = Repetition(interval="1 hour")
Runs = list[tuple[str, datetime | None, str | None]]


class Recurring:
    """Recurring jobs of an Agenda queue, and the runs that they really had."""

    def __init__(self, queue: Queue, names: int) -> None:
        self.queue = queue
        job = {"data": {}, "lockedAt": None, "repeatInterval": "1 hour", "repeatAt": None}
        self.ids = [
            queue.jobs.insert_one(job | {"name": f"job {number}", "nextRunAt": now()}).inserted_id
            for number in range(names)
        ]
        self.truth: dict[ObjectId, Runs] = {job_id: [] for job_id in self.ids}

    def run(self, job_id: ObjectId, error: str | None = None) -> None:
        started = self.start(job_id)
        at = now()
        fields: dict[str, Any] = {"lockedAt": None, "lastFinishedAt": at}
        if error is not None:
            fields |= {"failedAt": at, "failReason": error}
        self.queue.jobs.update_one({"_id": job_id}, {"$set": fields})
        self.truth[job_id].append(("failed" if error else "succeeded", started, error))

    def start(self, job_id: ObjectId) -> datetime:
        locked, started = now(), now()
        started = started.replace(microsecond=started.microsecond // 1_000 * 1_000)
        self.queue.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": locked}})
        fields = {"lastRunAt": started, "nextRunAt": started + timedelta(hours=1)}
        self.queue.jobs.update_one({"_id": job_id}, {"$set": fields})
        return started

    def kept(self) -> dict[ObjectId, Runs]:
        """The runs in jobmon's own database."""
        found = {}
        for job_id in self.ids:
            name = self.queue.own.id(run_list_name(job_id))
            stored = self.queue.own[RECURRING_RUNS].find_one({"_id": name})
            runs = load_runs(stored) if stored else []
            found[job_id] = [(run.status, run.started_at, run.message) for run in runs]
        return found

    def newest(self) -> dict[ObjectId, Runs]:
        return {job_id: runs[-MAX_RUNS:] for job_id, runs in self.truth.items()}


@pytest.mark.parametrize("seed", range(3))
def test_every_run_is_kept_once_through_crashes_at_any_moment(agenda: Queue, seed: int) -> None:
    pick = random.Random(seed)
    jobs = Recurring(agenda, 3)
    reading = Reading(agenda)
    reading.begin()
    checkpoint = reading.checkpoint()
    for _ in range(60):
        jobs.run(pick.choice(jobs.ids), pick.choice([None, None, "ETIMEDOUT", "SMTP 550"]))
        match pick.randrange(12):
            case 0 | 1 | 2:
                reading.read()
            case 3:
                reading.read()
                checkpoint = reading.checkpoint()
            case 4:  # a crash: everything since the last checkpoint is read again
                reading = Reading(agenda)
                reading.resume(checkpoint)
    reading.read()
    assert jobs.kept() == jobs.newest()
    assert any(len(runs) > MAX_RUNS // 2 for runs in jobs.truth.values())


def test_of_two_collectors_one_keeps_runs(agenda: Queue) -> None:
    jobs = Recurring(agenda, 1)
    frozen = Reading(agenda)
    frozen.begin()
    jobs.run(jobs.ids[0])
    frozen.read()
    checkpoint = frozen.checkpoint()
    follower = Reading(agenda)
    follower.resume(checkpoint)
    jobs.run(jobs.ids[0])
    follower.read()
    with pytest.raises(LeaseLostError):
        frozen.read()
    jobs.run(jobs.ids[0])
    follower.read()
    assert jobs.kept() == jobs.newest()


def test_list_that_another_collector_wrote_is_not_overwritten(agenda: Queue) -> None:
    run = FinishedRun("mail", "succeeded", "1", now(), repetition=HOURLY)
    first, second = (RunLists(agenda.own, Redactor()) for _ in range(2))
    for kept in (first, second):
        kept.add("new", run, "01")
    first.write("01")
    with pytest.raises(LeaseLostError):
        second.write("01")
    third, fourth = (RunLists(agenda.own, Redactor()) for _ in range(2))
    for kept in (third, fourth):
        kept.add("new", run, "02")
    third.write("02")
    with pytest.raises(LeaseLostError):
        fourth.write("02")


def test_list_that_could_not_be_stored_is_stored_with_the_next_run(agenda: Queue) -> None:
    """Catches a collector that calls its lease lost after a document that BSON cannot hold."""
    kept = RunLists(agenda.own, Redactor())
    bad = FinishedRun("mail", "succeeded", "1", now(), repetition=Repetition(interval="\ud800"))
    kept.add("new", bad, "01")
    kept.write("01")
    kept._load()[run_list_name("new")].runs.clear()
    for position in ("02", "03"):
        kept.add("new", bad._replace(repetition=HOURLY), position)
        kept.write(position)
    (stored,) = agenda.own[RECURRING_RUNS].find()
    assert (stored["position"], len(load_runs(stored))) == ("03", 2)


def test_run_without_an_end_is_expired(agenda: Queue) -> None:
    jobs = Recurring(agenda, 1)
    reading = Reading(agenda)
    reading.begin()
    started = jobs.start(jobs.ids[0])  # its worker dies, and the lock expires
    jobs.run(jobs.ids[0])
    reading.read()
    (kept,) = jobs.kept().values()
    assert [(status, at) for status, at, _ in kept] == [
        ("expired", started),
        ("succeeded", jobs.truth[jobs.ids[0]][0][1]),
    ]


def test_jobs_that_do_not_recur_have_no_list(agenda: Queue) -> None:
    reading = Reading(agenda)
    reading.begin()
    agenda.run("mail")
    agenda.run("mail", fails=True, remove=True)
    reading.read()
    assert agenda.own[RECURRING_RUNS].count_documents({}) == 0


def test_number_of_jobs_and_length_of_errors_are_bounded(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lists_module, "MAX_JOBS", 3)
    kept = RunLists(agenda.own, Redactor())
    error = {"code": "E" * 900, "message": "password=hunter2 \ud800" + "x" * 100_000}

    def add(job_id: str, at: datetime, position: str) -> None:
        run = FinishedRun("mail", "failed", job_id, at, error=error, repetition=HOURLY)
        kept.add(job_id, run, position)
        kept.write(position)

    long_ago = now() - timedelta(days=8)
    for number in range(30):
        add("idle", long_ago, f"{number:03}")
    for number, job_id in enumerate(("a", "b", "c", "d")):
        add(job_id, now(), f"1{number:02}")
    stored = list(agenda.own[RECURRING_RUNS].find())
    assert {document["name"] for document in stored} == set(map(run_list_name, "abc"))
    assert "hunter2" not in str(stored)
    assert all(len(str(document)) < 2_000 for document in stored)
    assert RunLists(agenda.own, Redactor())._load().keys() == set(map(run_list_name, "abc"))


def test_answers_have_the_runs_through_a_restart(
    agenda: Queue, make_queue: Callable[..., Queue]
) -> None:
    """With the collector itself: the last run of the document is not shown twice."""
    jobs = Recurring(agenda, 1)
    (job_id,) = jobs.ids
    with collected(agenda):
        jobs.run(job_id)
        jobs.run(job_id, "ETIMEDOUT token=abc123secret")
        eventually(lambda: len(jobs.kept()[job_id]) == 2)
    jobs.run(job_id)  # while no collector works
    with collected(agenda):
        jobs.run(job_id)
        eventually(lambda: len(jobs.kept()[job_id]) == 4)
        served = WatchedQueue.from_settings(agenda.settings)
        (listed,) = served.get(PATH)["data"]
        runs = listed["repetition"]["runs"]
        assert [run["status"] for run in runs] == ["succeeded", "failed", "succeeded", "succeeded"]
        assert "abc123secret" not in str(listed)
        assert runs[1]["error"]["message"].startswith("ETIMEDOUT")
        assert listed["repetition"]["missedRuns"] == 0
        assert listed["repetition"]["reasons"] == {}
        jobs.start(job_id)
        runs = served.get(f"/jobs/{job_id}")["repetition"]["runs"]
        assert [run["status"] for run in runs][-2:] == ["succeeded", "running"]
        served.close()


def test_long_error_is_kept_short_and_not_remembered(agenda: Queue) -> None:
    jobs = Recurring(agenda, 1)
    reading = Reading(agenda)
    reading.begin()
    jobs.run(jobs.ids[0], "no route to host " * 9_000)
    reading.read()
    ((run,),) = jobs.kept().values()
    assert run[2] == ("no route to host " * 9_000)[: len(run[2] or "")]
    assert 100 < len(run[2] or "") <= 300
    remembered = reading.checkpoint()["jobs"]
    assert len(remembered) == 1
    assert len(str(remembered)) < 2_000
