"""Actions on a replica set of three members whose primary steps down between two jobs of a batch.

Catches a job that is changed twice or never, and an actor that does not continue on the new
primary.
"""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import PyMongoError

from jobmon.actions.requests import ActionRequests
from jobmon.actor.acting import acting
from jobmon.queue import JobQueue
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..support.action_requests import retry_all_dead
from ..support.faults import ReplicaSet
from ..support.waiting import eventually

pytestmark = pytest.mark.long

JOB_COUNT = 1_000
# The primary steps down after these numbers of jobs: each is in the middle of a batch of 100.
STEP_DOWN_AT = (150, 555)


def insert_dead_jobs(client: MongoClient[dict[str, Any]]) -> None:
    now = datetime.now(UTC)
    fields = {"type": "mail", "status": "dlq", "createdAt": now, "updatedAt": now}
    fields |= {"finishedAt": now, "nextRunAt": now, "priority": 0, "attemptCount": 1}
    client.jobmon.jobs.insert_many(
        {"jobId": f"dead-{number:04}", "maxAttempts": 1} | fields for number in range(JOB_COUNT)
    )


def count_retries(client: MongoClient[dict[str, Any]]) -> Counter[Any]:
    """How often each job was queued again, according to the oplog of the current primary."""
    oplog = client.get_database("local", read_preference=ReadPreference.PRIMARY)["oplog.rs"]
    query = {"ns": "jobmon.jobs", "op": "u", "o.diff.u.status": "queued"}
    return Counter(entry["o2"]["_id"] for entry in oplog.find(query))


def test_primary_that_steps_down_between_two_jobs_loses_none_and_repeats_none(
    tmp_path: Path,
) -> None:
    with (
        ReplicaSet(tmp_path, election_ms=1_000) as servers,
        MongoClient[dict[str, Any]](servers.uri, w="majority") as client,
    ):
        settings = Settings(mongo_uri=servers.uri, actions=True, actions_per_second=100_000)
        connection = Connection(settings)
        create_indexes(connection)
        JobQueue(client.jobmon).create_indexes()
        insert_dead_jobs(client)
        requests = ActionRequests(connection, connection, Redactor(()))
        step_counts = Counter[str]()
        primaries = [servers.await_primary().address]

        def step_down(step: str) -> None:
            step_counts[step] += 1
            if step == "job" and step_counts[step] in STEP_DOWN_AT:
                servers.step_down()
                primaries.append(servers.await_primary().address)

        with acting(settings, on_step=step_down):
            filed = requests.file(retry_all_dead(JOB_COUNT))

            def is_over() -> bool:
                with suppress(PyMongoError):  # between two primaries
                    state = requests.get(filed.request.id)
                    return state is not None and state.is_over
                return False

            eventually(is_over)
        state = requests.get(filed.request.id)
        assert state is not None
        assert (state.phase, state.counts.done, state.counts.skipped) == ("finished", JOB_COUNT, 0)
        assert len(primaries) == 1 + len(STEP_DOWN_AT)
        assert all(before != after for before, after in pairwise(primaries))
        retries = count_retries(client)
        assert (len(retries), set(retries.values())) == (JOB_COUNT, {1})
        assert client.jobmon.jobs.count_documents({"lastAction.id": filed.request.id}) == JOB_COUNT
        connection.close()
