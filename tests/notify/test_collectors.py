"""Notifications of real collectors: catches a message that is sent again after a failover, and a
muted problem that is sent."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import LEADER, NOTIFICATIONS
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..support.commands import database_uri
from ..support.processes import end_process
from ..support.queue_service import MongoDb
from ..support.receiver import SIGNING_SECRET, WebhookReceiver
from ..support.services import start_collector
from ..support.waiting import eventually

pytestmark = pytest.mark.long


@pytest.fixture
def environment(
    mongod: Mongod, database: MongoDb, receiver: WebhookReceiver, tmp_path: Path
) -> dict[str, str]:
    """The environment of the collectors; their rules report a job that was due a minute ago."""
    rules = tmp_path / "rules.toml"
    rules.write_text("stalled_after_minutes = 1440\n[types.'*']\noldest_due_minutes = 1\n")
    return {
        "JOBMON_MONGO_URI": database_uri(mongod, database),
        "JOBMON_ROLLUP_DB": f"{database.name}_rollups",
        "JOBMON_STATE_DB": f"{database.name}_state",
        "JOBMON_RULES": str(rules),
        "JOBMON_NOTIFY_URLS": f"{receiver.url}?jobmon_types=*",
        "JOBMON_NOTIFY_SECRET": SIGNING_SECRET,
        "JOBMON_NOTIFY_DELAY_S": "0",
    }


def make_job(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"type": "mail", "attemptCount": 1, "createdAt": now, "updatedAt": now, **fields}


def insert_overdue_job(database: MongoDb, job_type: str) -> None:
    due = datetime.now(UTC) - timedelta(seconds=70)
    job = make_job(jobId=job_type, type=job_type, status="queued", attemptCount=0, nextRunAt=due)
    database.jobs.insert_one(job)


def run_command(environment: dict[str, str], *arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_collector_after_a_failover_repeats_no_message_and_sends_nothing_muted(
    database: MongoDb, receiver: WebhookReceiver, environment: dict[str, str]
) -> None:
    """The mute lasts through the failover; when the mute ends, its notice is sent."""
    connection = Connection(Settings(mongo_uri=environment["JOBMON_MONGO_URI"]))
    create_indexes(connection)
    connection.client.close()
    rollups = database.client[f"{database.name}_rollups"]
    insert_overdue_job(database, "mail")

    def await_messages(count: int) -> None:
        stored = {"name": NOTIFICATIONS, "receivers.sent": count}
        eventually(lambda: rollups.state.find_one(stored))

    with ExitStack() as running:
        first = start_collector(**environment)
        running.callback(end_process, first, None)
        await_messages(1)
        leader = rollups.leases.find_one({"name": LEADER})["holder"]
        mute = ("mute", "new_dead", "--for", "1h", "--reason", "known")
        mute_output = run_command(environment, *mute)  # begins with the id of the mute
        running.callback(end_process, start_collector(**environment), None)
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
        insert_overdue_job(database, "pdf")
        await_messages(2)
        assert rollups.leases.find_one({"name": LEADER})["holder"] != leader
        run_command(environment, "unmute", mute_output[:8])
        await_messages(3)
    assert [message.changes for message in receiver.received] == [
        [("begins", "oldest_due_job")],
        [("worse", "oldest_due_job")],
        [("begins", "new_dead_jobs")],
    ]
    begins, worse, dead = (message.notices[0] for message in receiver.received)
    assert begins["text"].startswith("The oldest due job of mail has been due for ")
    assert (begins["types"], worse["types"]) == (["mail"], ["mail", "pdf"])
    assert dead["text"] == "1 job died in the last hour: mail"
