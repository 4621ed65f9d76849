"""Actions on the jobs of Agenda, which change a job as Agenda does: catches a job that Agenda does
not run afterwards, a changed field that should stay, and a change of a running job."""

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
from ..support.watched_queue import temporary_database


@pytest.mark.parametrize("version", ["5", "6"])
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
        acting = ActingQueue(settings, database)
        jobs_before = {job["name"]: job for job in database.agendaJobs.find()}
        request_ids = [
            acting.file("retry", ids["fails"]),
            acting.file("run_now", ids["scheduled"]),
            acting.file("enable", ids["disabled"]),
            acting.file("prioritize", ids["repeats"], priority=7),
        ]
        acting.act()
        for request_id in request_ids:
            assert set(acting.outcomes(request_id).values()) == {("done", "")}
        run_now = acting.file("run_now", ids["disabled"])
        # A running job is not released, and a succeeded job is not retried.
        release = acting.file("release", ids["runs"])
        retry = acting.file("retry", ids["succeeds"])
        acting.act()
        assert acting.outcomes(run_now)[ids["disabled"]] == ("done", "")
        assert acting.outcomes(release) == {ids["runs"]: ("skipped", "its lease has not expired")}
        assert acting.outcomes(retry) == {ids["succeeds"]: ("skipped", "it is succeeded")}
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
            acting.support.require("cancel")  # Agenda cancels a job by deleting its document
        acting.connection.close()
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
        acting = ActingQueue(settings, database)
        index_queue(settings)
        job = {"name": "mail", "nextRunAt": None, "lockedAt": None, "failedAt": None}
        waiting = [{**job, "nextRunAt": acting.now()} for _ in range(3)]
        succeeded = {**job, "lastFinishedAt": acting.now()}
        database.agendaJobs.insert_many([*waiting, succeeded])
        cancel = acting.file("cancel", Target(job_filter=JobFilter(types=("mail",))), expected=3)
        acting.act()
        assert [result for result, _ in acting.outcomes(cancel).values()] == ["done"] * 3
        assert [job["_id"] for job in database.agendaJobs.find()] == [succeeded["_id"]]
        acting.connection.close()


@pytest.mark.parametrize(
    ("profile", "message"),
    [("celery", "Celery's results are only what"), ("hangfire", "declares no transitions")],
)
def test_queues_without_transitions_have_no_actions_and_a_reason(
    make_settings: Callable[..., Settings], profile: str, message: str
) -> None:
    support = find_support(replace(make_settings(), profile=profile))
    assert support.list_actions() == []
    with pytest.raises(RequestError, match=message):
        support.require("retry")
