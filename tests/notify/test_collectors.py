"""Notifications of real collectors: catches a message that is sent again after a failover."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import LEADER, NOTIFICATIONS
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..support.commands import database_uri
from ..support.preloaded import start_python
from ..support.processes import end_process
from ..support.receiver import SIGNING_SECRET, WebhookReceiver
from ..support.waiting import eventually
from ..support.watched_queue import Documents, temporary_database


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[Documents]:
    with temporary_database(mongo) as database:
        yield database


def start_collector(uri: str, database: Documents, receiver: WebhookReceiver) -> subprocess.Popen:
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": uri,
        "JOBMON_ROLLUP_DB": f"{database.name}_rollups",
        "JOBMON_NOTIFY_URLS": f"{receiver.url}?jobmon_level=bad",
        "JOBMON_NOTIFY_SECRET": SIGNING_SECRET,
        "JOBMON_NOTIFY_DELAY_S": "0",
    }
    with open(os.devnull, "w") as nowhere:
        return start_python("jobmon.cli", "collector", env=environment, stderr=nowhere)


def make_job(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"type": "mail", "attemptCount": 1, "createdAt": now, "updatedAt": now, **fields}


def test_collector_that_replaces_a_killed_one_sends_nothing_twice(
    mongod: Mongod, database: Documents, receiver: WebhookReceiver
) -> None:
    uri = database_uri(mongod, database)
    connection = Connection(Settings(mongo_uri=uri))
    create_indexes(connection)
    connection.client.close()
    rollups = database.client[f"{database.name}_rollups"]
    expired = datetime.now(UTC) - timedelta(minutes=1)
    database.jobs.insert_one(make_job(jobId="a", status="leased", leaseExpiresAt=expired))
    with ExitStack() as running:
        first = start_collector(uri, database, receiver)
        running.callback(end_process, first, None)
        eventually(lambda: rollups.state.find_one({"name": NOTIFICATIONS, "receivers.sent": 1}))
        leader = rollups.leases.find_one({"name": LEADER})["holder"]
        running.callback(end_process, start_collector(uri, database, receiver), None)
        first.kill()
        now = datetime.now(UTC)
        database.jobs.insert_one(make_job(jobId="b", status="dlq", finishedAt=now))
        database.job_attempts.insert_one(
            {
                "jobId": "b",
                "attemptNumber": 1,
                "status": "failed",
                "startedAt": now,
                "finishedAt": now,
            }
        )
        eventually(lambda: rollups.state.find_one({"name": NOTIFICATIONS, "receivers.sent": 2}))
        assert rollups.leases.find_one({"name": LEADER})["holder"] != leader
    assert [each.changes for each in receiver.received] == [
        [("begins", "expired_leases")],
        [("begins", "new_dead_jobs")],
    ]
    assert [notice["text"] for each in receiver.received for notice in each.notices] == [
        "1 job stuck: its lease expired and no worker has picked it up",
        "1 job died in the last hour: mail",
    ]
