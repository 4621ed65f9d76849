"""Actions on jobs of Agenda: catches a job that Agenda does not run after an action, a change of a
field that should stay, and a change of a running job."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.actions.catalog import RequestError
from jobmon.actions.support import find_support
from jobmon.actions.target import Target
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.filter import JobFilter

from ..actor.conftest import ActingQueue
from ..conftest import SECRET
from ..support.commands import database_uri, index_queue
from ..support.queue_service import temporary_database


@pytest.mark.parametrize("version", [pytest.param("5", marks=pytest.mark.long), "6"])
def test_agenda_runs_jobs_after_actions(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    run_agenda: Callable[..., dict[str, str]],
    run_due_jobs: Callable[..., dict[str, int]],
    version: str,
) -> None:
    with temporary_database(mongo) as database:
        uri = database_uri(mongod, database)
        ids = run_agenda(version, uri)
        settings = Settings(
            mongo_uri=uri,
            profile="agenda",
            jobs_collection="agendaJobs",
            jwt_secret_key=SECRET,
            rollup_db=f"{database.name}_rollups",
            state_db=database.name,
        )
        index_queue(settings)
        queue = ActingQueue(settings, database)
        jobs_before = {job["name"]: job for job in database.agendaJobs.find()}
        filed_requests = [
            queue.file("retry", ids["fails"]),
            queue.file("run_now", ids["scheduled"]),
            queue.file("enable", ids["disabled"]),
            queue.file("prioritize", ids["repeats"], priority=7),
        ]
        queue.act()
        for filed in filed_requests:
            assert set(queue.outcomes(filed).values()) == {("done", "")}
        run_now = queue.file("run_now", ids["disabled"])
        # A running job is not released, and a succeeded job is not retried.
        release = queue.file("release", ids["runs"])
        retry = queue.file("retry", ids["succeeds"])
        queue.act()
        assert queue.outcomes(run_now)[ids["disabled"]] == ("done", "")
        assert queue.outcomes(release) == {ids["runs"]: ("skipped", "its lease has not expired")}
        assert queue.outcomes(retry) == {ids["succeeds"]: ("skipped", "it is succeeded")}
        jobs_after = {job["name"]: job for job in database.agendaJobs.find()}
        assert jobs_after["runs"] == jobs_before["runs"]
        changed_fields = {
            name: {
                field
                for field in job.keys() | jobs_before[name].keys()
                if job.get(field) != jobs_before[name].get(field)
            }
            for name, job in jobs_after.items()
        }
        assert {name: fields for name, fields in changed_fields.items() if fields} == {
            "fails": {"nextRunAt"},
            "scheduled": {"nextRunAt"},
            "disabled": {"nextRunAt", "disabled"},
            "repeats": {"priority"},
        }
        with pytest.raises(RequestError, match="JOBMON_ACTIONS_ALLOW_DELETE=true"):
            queue.support.require("cancel")  # Agenda cancels a job by deleting its document
        queue.connection.close()
        runs = run_due_jobs(version, uri, "fails", "scheduled", "disabled")
        assert runs == {"fails": 1, "scheduled": 1, "disabled": 1}


def test_cancel_deletes_waiting_agenda_jobs_if_the_setting_allows_it(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    with temporary_database(mongo) as database:
        settings = Settings(
            mongo_uri=database_uri(mongod, database),
            profile="agenda",
            jobs_collection="agendaJobs",
            jwt_secret_key=SECRET,
            state_db=database.name,
            actions_allow_delete=True,
        )
        queue = ActingQueue(settings, database)
        index_queue(settings)
        job = {"name": "mail", "nextRunAt": None, "lockedAt": None, "failedAt": None}
        waiting = [{**job, "nextRunAt": queue.now()} for _ in range(3)]
        succeeded = {**job, "lastFinishedAt": queue.now()}
        database.agendaJobs.insert_many([*waiting, succeeded])
        cancel = queue.file("cancel", Target(job_filter=JobFilter(types=("mail",))), expected=3)
        queue.act()
        assert [result for result, _ in queue.outcomes(cancel).values()] == ["done"] * 3
        assert [job["_id"] for job in database.agendaJobs.find()] == [succeeded["_id"]]
        queue.connection.close()


@pytest.mark.parametrize(
    ("profile", "message"),
    [("celery", "Celery's results are only what"), ("hangfire", "declares no transitions")],
)
def test_queues_without_transitions_refuse_actions_with_a_reason(
    make_settings: Callable[..., Settings], profile: str, message: str
) -> None:
    support = find_support(replace(make_settings(), profile=profile))
    assert support.list_actions() == []
    with pytest.raises(RequestError, match=message):
        support.require("retry")
