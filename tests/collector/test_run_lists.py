"""The runs of recurring jobs, on a real replica set: catches a run that is lost or stored
twice, even after a crash or with two collectors, a secret in an error, and a list without limit."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from bson import ObjectId
from pymongo.errors import BulkWriteError

from jobmon.collector import run_lists as run_lists_module
from jobmon.collector.leader import LeaseLostError
from jobmon.collector.run_lists import RunLists
from jobmon.collector.runs import FinishedRun
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.recurring_runs import MAX_RUNS, RECURRING_RUNS, load_runs, run_list_name
from jobmon.store.repetition import Repetition

from ..api.test_recurring import PATH
from ..support.queue_service import QueueService
from ..support.waiting import eventually
from .test_event_counter import Queue, SteppedCollector, agenda, make_queue, now, running_collector

__all__ = ["agenda", "make_queue"]  # fixtures

HOURLY = Repetition(interval="1 hour")


class Run(NamedTuple):
    """A run of a job; `error` is its message."""

    status: str
    started_at: datetime | None
    error: str | None


Runs = dict[ObjectId, list[Run]]


class RecurringJobs:
    """Recurring jobs of an Agenda queue; `runs` are the runs that they had."""

    def __init__(self, queue: Queue, count: int) -> None:
        self.queue = queue
        job = {"data": {}, "lockedAt": None, "repeatInterval": "1 hour", "repeatAt": None}
        self.ids = [
            queue.jobs.insert_one(job | {"name": f"job {index}", "nextRunAt": now()}).inserted_id
            for index in range(count)
        ]
        self.runs: Runs = {job_id: [] for job_id in self.ids}

    def run(self, job_id: ObjectId, error: str | None = None) -> None:
        started = self.start(job_id)
        at = now()
        fields: dict[str, Any] = {"lockedAt": None, "lastFinishedAt": at}
        if error is not None:
            fields |= {"failedAt": at, "failReason": error}
        self.queue.jobs.update_one({"_id": job_id}, {"$set": fields})
        self.runs[job_id].append(Run("failed" if error else "succeeded", started, error))

    def start(self, job_id: ObjectId) -> datetime:
        locked, started = now(), now()
        started = started.replace(microsecond=started.microsecond // 1_000 * 1_000)
        self.queue.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": locked}})
        fields = {"lastRunAt": started, "nextRunAt": started + timedelta(hours=1)}
        self.queue.jobs.update_one({"_id": job_id}, {"$set": fields})
        return started

    def read_stored_runs(self) -> Runs:
        """The runs in jobmon's own database."""
        runs_by_job = {}
        for job_id in self.ids:
            name = self.queue.rollups.id(run_list_name(job_id))
            document = self.queue.rollups[RECURRING_RUNS].find_one({"_id": name})
            runs = load_runs(document) if document else []
            runs_by_job[job_id] = [Run(run.status, run.started_at, run.message) for run in runs]
        return runs_by_job

    def list_newest_runs(self) -> Runs:
        return {job_id: runs[-MAX_RUNS:] for job_id, runs in self.runs.items()}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_every_run_is_stored_once_through_random_crashes(agenda: Queue, seed: int) -> None:
    rng = random.Random(seed)
    jobs = RecurringJobs(agenda, 3)
    collector = SteppedCollector(agenda)
    collector.begin()
    checkpoint = collector.checkpoint()
    for _ in range(60):
        jobs.run(rng.choice(jobs.ids), rng.choice([None, None, "ETIMEDOUT", "SMTP 550"]))
        match rng.randrange(12):
            case 0 | 1 | 2:
                collector.count_changes()
            case 3:
                collector.count_changes()
                checkpoint = collector.checkpoint()
            case 4:  # a crash: all changes since the last checkpoint are read again
                collector = SteppedCollector(agenda)
                collector.resume(checkpoint)
    collector.count_changes()
    assert jobs.read_stored_runs() == jobs.list_newest_runs()
    assert any(len(runs) > MAX_RUNS // 2 for runs in jobs.runs.values())


def test_only_one_of_two_collectors_stores_runs(agenda: Queue) -> None:
    jobs = RecurringJobs(agenda, 1)
    frozen = SteppedCollector(agenda)
    frozen.begin()
    jobs.run(jobs.ids[0])
    frozen.count_changes()
    checkpoint = frozen.checkpoint()
    follower = SteppedCollector(agenda)
    follower.resume(checkpoint)
    jobs.run(jobs.ids[0])
    follower.count_changes()
    with pytest.raises(LeaseLostError):
        frozen.count_changes()
    jobs.run(jobs.ids[0])
    follower.count_changes()
    assert jobs.read_stored_runs() == jobs.list_newest_runs()


def test_list_that_another_collector_wrote_is_not_overwritten(agenda: Queue) -> None:
    run = FinishedRun("mail", "succeeded", "1", now(), repetition=HOURLY)
    first, second = (RunLists(agenda.rollups, Redactor()) for _ in range(2))
    for run_lists in (first, second):
        run_lists.add("new", run, "01")
    first.write("01")
    with pytest.raises(LeaseLostError):
        second.write("01")
    third, fourth = (RunLists(agenda.rollups, Redactor()) for _ in range(2))
    for run_lists in (third, fourth):
        run_lists.add("new", run, "02")
    third.write("02")
    with pytest.raises(LeaseLostError):
        fourth.write("02")


def test_write_without_a_majority_is_not_a_lost_lease(agenda: Queue) -> None:
    run_lists = RunLists(agenda.rollups, Redactor())
    run_lists.add("new", FinishedRun("mail", "succeeded", "1", now(), repetition=HOURLY), "01")
    runs = agenda.rollups[RECURRING_RUNS]
    failure = {"code": 64, "errmsg": "waiting for replication timed out"}
    fault = {"failCommands": ["insert"], "writeConcernError": failure, "namespace": runs.full_name}
    admin = runs.database.client.admin
    admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fault)
    with pytest.raises(BulkWriteError):
        run_lists.write("01")


def test_list_that_could_not_be_stored_is_stored_with_the_next_run(agenda: Queue) -> None:
    """Catches a collector that reports a lost lease after a document that BSON cannot hold."""
    run_lists = RunLists(agenda.rollups, Redactor())
    run = FinishedRun("mail", "succeeded", "1", now(), repetition=Repetition(interval="\ud800"))
    run_lists.add("new", run, "01")
    run_lists.write("01")
    run_lists._load()[run_list_name("new")].runs.clear()  # without the run that cannot be stored
    for position in ("02", "03"):
        run_lists.add("new", run._replace(repetition=HOURLY), position)
        run_lists.write(position)
    (stored,) = agenda.rollups[RECURRING_RUNS].find()
    assert (stored["position"], len(load_runs(stored))) == ("03", 2)


def test_run_without_an_end_is_expired(agenda: Queue) -> None:
    jobs = RecurringJobs(agenda, 1)
    collector = SteppedCollector(agenda)
    collector.begin()
    started = jobs.start(jobs.ids[0])  # its worker dies, and the lock expires
    jobs.run(jobs.ids[0])
    collector.count_changes()
    (runs,) = jobs.read_stored_runs().values()
    assert [(run.status, run.started_at) for run in runs] == [
        ("expired", started),
        ("succeeded", jobs.runs[jobs.ids[0]][0].started_at),
    ]


def test_jobs_that_do_not_recur_have_no_list(agenda: Queue) -> None:
    collector = SteppedCollector(agenda)
    collector.begin()
    agenda.run("mail")
    agenda.run("mail", fails=True, remove=True)
    collector.count_changes()
    assert agenda.rollups[RECURRING_RUNS].count_documents({}) == 0


def test_number_of_jobs_and_length_of_errors_are_bounded(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lists_module, "MAX_JOBS", 3)
    run_lists = RunLists(agenda.rollups, Redactor())
    error = {"code": "E" * 900, "message": "password=hunter2 \ud800" + "x" * 100_000}

    def add(job_id: str, at: datetime, position: str) -> None:
        run = FinishedRun("mail", "failed", job_id, at, error=error, repetition=HOURLY)
        run_lists.add(job_id, run, position)
        run_lists.write(position)

    long_ago = now() - timedelta(days=8)
    for index in range(30):
        add("idle", long_ago, f"{index:03}")
    for index, job_id in enumerate(("a", "b", "c", "d")):
        add(job_id, now(), f"1{index:02}")
    stored = list(agenda.rollups[RECURRING_RUNS].find())
    assert {document["name"] for document in stored} == set(map(run_list_name, "abc"))
    assert "hunter2" not in str(stored)
    assert all(len(str(document)) < 2_000 for document in stored)
    assert RunLists(agenda.rollups, Redactor())._load().keys() == set(map(run_list_name, "abc"))


def test_answers_have_the_runs_through_a_restart(
    agenda: Queue, make_queue: Callable[..., Queue]
) -> None:
    """Catches a last run that is shown twice, from the list and from its document."""
    jobs = RecurringJobs(agenda, 1)
    (job_id,) = jobs.ids
    with running_collector(agenda):
        jobs.run(job_id)
        jobs.run(job_id, "ETIMEDOUT token=abc123secret")
        eventually(lambda: len(jobs.read_stored_runs()[job_id]) == 2)
    jobs.run(job_id)  # while no collector works
    with running_collector(agenda):
        jobs.run(job_id)
        eventually(lambda: len(jobs.read_stored_runs()[job_id]) == 4)
        served = QueueService.from_settings(agenda.settings)
        (listed_job,) = served.get(PATH)["data"]
        runs = listed_job["repetition"]["runs"]
        assert [run["status"] for run in runs] == ["succeeded", "failed", "succeeded", "succeeded"]
        assert "abc123secret" not in str(listed_job)
        assert runs[1]["error"]["message"].startswith("ETIMEDOUT")
        assert listed_job["repetition"]["missedRuns"] == 0
        assert listed_job["repetition"]["reasons"] == {}
        jobs.start(job_id)
        runs = served.get(f"/jobs/{job_id}")["repetition"]["runs"]
        assert [run["status"] for run in runs][-2:] == ["succeeded", "running"]
        served.close()


def test_a_long_error_is_shortened_and_not_remembered(agenda: Queue) -> None:
    jobs = RecurringJobs(agenda, 1)
    collector = SteppedCollector(agenda)
    collector.begin()
    jobs.run(jobs.ids[0], "no route to host " * 9_000)
    collector.count_changes()
    ((run,),) = jobs.read_stored_runs().values()
    assert run.error is not None
    assert ("no route to host " * 9_000).startswith(run.error)
    assert 100 < len(run.error) <= 300
    remembered = collector.checkpoint()["jobs"]
    assert len(remembered) == 1
    assert len(str(remembered)) < 2_000
