"""A queue of `jobmon.queue` on the real server, with requests for actions and an actor."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.actions.records import create_record_indexes
from jobmon.actions.request import ActionRequest, Person
from jobmon.actions.requests import ActionRequests
from jobmon.actions.state import ActionState
from jobmon.actions.support import find_support
from jobmon.actions.target import Target
from jobmon.actor.actor import Actor
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter

from ..conftest import SECRET
from ..support.commands import database_uri, index_queue
from ..support.queue_service import temporary_database

ADA, BOB = Person(subject="ada", role="admin", address="10.0.0.1"), Person(subject="bob")
OWN_COLLECTIONS = ("action_decisions", "action_progress", "action_outcomes", "action_leases")


def run_all_rounds(actor: Actor) -> None:
    """Let an actor work until no request has a next step."""
    while actor.run_round():
        pass


class ActingQueue:
    """A queue, the requests for actions on its jobs, and actors that a test runs."""

    def __init__(self, settings: Settings, database: Database[dict[str, Any]]) -> None:
        self.settings = settings
        self.database = database
        self.job_queue = JobQueue(database)
        self.jobs = database.jobs
        self.connection = Connection(settings)
        self.support = find_support(settings)
        self.requests = self.open_requests()

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)

    def open_requests(self, **changes: Any) -> ActionRequests:
        """The requests of this queue, without a cache; `changes` are other settings."""
        connection = self.connection
        if changes:
            connection = Connection(replace(self.settings, **changes), self.connection.client)
        return ActionRequests(connection, connection, Redactor(()))

    def make_actor(self, on_step: Callable[[str], None] = lambda _: None, **changes: Any) -> Actor:
        """An actor that works only in calls of its `recover_all`, `run_round` and `run`."""
        connection = Connection(replace(self.settings, **changes), self.connection.client)
        stop = threading.Event()
        holder = f"test-{id(stop)}"
        return Actor(connection, connection, Redactor(()), stop, holder=holder, on_step=on_step)

    def act(self, **changes: Any) -> None:
        """Let an actor work until no request has a next step; then end the actor's lease."""
        actor = self.make_actor(**{"actions_per_second": 1_000_000} | changes)
        actor.recover_all()
        run_all_rounds(actor)
        actor.release()

    def file(self, action: str, target: Target | str, **changes: Any) -> ActionState:
        """File Ada's request for a target or for one job's id; `changes` are other fields."""
        if isinstance(target, str):
            target = Target(job_ids=(target,))
        values = {"by": ADA, "expected": 1, "reason": "the provider is back"} | changes
        return self.requests.file(ActionRequest(action=action, target=target, **values))

    def add(self, job_id: str, status: str = "queued", **fields: Any) -> str:
        """Add a job with a status (queued, leased, dlq, cancelled) and fields; returns its id."""
        self.job_queue.enqueue(fields.pop("type", "mail"), job_id=job_id, max_attempts=1)
        if status in ("leased", "dlq"):
            lease = self.job_queue.lease("w1")
            assert lease is not None
            assert lease.job_id == job_id
            if status == "dlq":
                self.job_queue.report_failure(lease, "EHOST", "no answer")
        if status == "cancelled":
            self.job_queue.cancel(job_id)
        if fields:
            self.jobs.update_one({"jobId": job_id}, {"$set": fields})
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        job = self.jobs.find_one({"jobId": job_id})
        assert job is not None
        return job

    def state(self, filed: ActionState) -> ActionState:
        """The present state of a request."""
        state = self.requests.get(filed.request.id)
        assert state is not None
        return state

    def outcomes(self, filed: ActionState) -> dict[str | None, tuple[str, str]]:
        """The result and reason of each job of a request."""
        page = self.requests.list_outcomes(filed.request.id, limit=10_000)
        return {outcome.job_id: (outcome.result, outcome.reason) for outcome in page.outcomes}


@pytest.fixture(scope="session")
def _indexed_queue(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[tuple[Settings, Database[dict[str, Any]]]]:
    """The settings and the database of a queue with the indexes of `jobmon init`."""
    with temporary_database(mongo) as database:
        settings = Settings(
            mongo_uri=database_uri(mongod, database),
            jwt_secret_key=SECRET,
            actions=True,
            rollup_db=f"{database.name}_rollups",
            state_db=database.name,
        )
        index_queue(settings)
        JobQueue(database).create_indexes()
        create_record_indexes(database)
        yield settings, database


@pytest.fixture
def queue(_indexed_queue: tuple[Settings, Database[dict[str, Any]]]) -> Iterator[ActingQueue]:
    """A queue without jobs and requests, with the indexes of `jobmon init`."""
    settings, database = _indexed_queue
    queue = ActingQueue(settings, database)
    yield queue
    queue.connection.close()
    for name in ("jobs", "job_attempts", "job_controls", *OWN_COLLECTIONS):
        database[name].delete_many({})


@pytest.fixture
def open_profile_queue(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> Iterator[Callable[[str], ActingQueue]]:
    """Opens a queue in the collection `work`, with the profile in a text."""
    with ExitStack() as stack:

        def open_queue(text: str) -> ActingQueue:
            profile = tmp_path / "shop.toml"
            profile.write_text(text)
            database = stack.enter_context(temporary_database(mongo))
            settings = Settings(
                mongo_uri=database_uri(mongod, database),
                jwt_secret_key=SECRET,
                profile=str(profile),
                jobs_collection="work",
                state_db=database.name,
                actions_allow_delete=True,
            )
            index_queue(settings)
            queue = ActingQueue(settings, database)
            stack.callback(queue.connection.close)
            return queue

        yield open_queue


def select_dead(**filters: Any) -> Target:
    """A target: the dead jobs that match all of these filters."""
    return Target(job_filter=JobFilter(statuses=("dlq",), **filters))
