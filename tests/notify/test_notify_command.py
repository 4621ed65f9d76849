"""`jobmon notify`: catches a failing receiver that is shown as working, and a printed address."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient

from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.notify.message import Sender
from jobmon.notify.notifications import Notifications
from jobmon.notify.state import NotificationState, ReceiverState, StateStore
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.rollup.notification_health import ReceiverHealth
from jobmon.settings import Settings
from jobmon.settings.receivers import parse_receivers

from ..conftest import NOW
from ..support.processes import run as run_process
from ..support.queue_service import QueueService, temporary_database
from ..support.receiver import SIGNING_SECRET, WebhookReceiver
from ..support.waiting import PATIENCE_S

SINCE = NOW - timedelta(minutes=7)
NOT_STORED = NotificationState().version
HEALTH = [
    ReceiverHealth(name="slack", sent=3),
    ReceiverHealth(name="hook", failures=1, failing_since=SINCE, reason="it answered HTTP 500"),
]


@pytest.fixture
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    with temporary_database(mongo) as database:
        queue = QueueService(mongod, database)
        yield queue
        queue.close()


@pytest.fixture
def run_notify() -> Callable[..., Result]:
    def run(*arguments: str, **settings: str) -> Result:
        environment = {f"JOBMON_{name}": value for name, value in settings.items()}
        defaults = {"JOBMON_MONGO_URI": "mongodb://127.0.0.1/unused"}
        return CliRunner().invoke(main, ["notify", *arguments], env=defaults | environment)

    return run


def test_a_test_message_reaches_each_receiver_or_has_a_reason(
    run_notify: Callable[..., Result], receiver: WebhookReceiver
) -> None:
    failing = WebhookReceiver()
    failing.status = 404
    with failing.running():
        urls = f"{receiver.url} {failing.url}?jobmon_name=other"
        result = run_notify(
            "--test", NOTIFY_URLS=urls, NOTIFY_SECRET=SIGNING_SECRET, ENVIRONMENT="PROD"
        )
    assert result.output.splitlines() == ["webhook: sent", "other: not sent, it answered HTTP 404"]
    assert result.exit_code == 1
    (request,) = receiver.received
    assert b'"type":"jobmon.test"' in request.body
    assert b"[PROD] jobmon, default: this is a test of notifications" in request.body
    result = run_notify("--test", NOTIFY_URLS=receiver.url, NOTIFY_SECRET=SIGNING_SECRET)
    assert (result.output, result.exit_code) == ("webhook: sent\n", 0)


def test_command_without_receivers_or_a_secret_names_the_setting(
    run_notify: Callable[..., Result], receiver: WebhookReceiver
) -> None:
    assert run_notify("--test").output == "Error: JOBMON_NOTIFY_URLS is not set\n"
    result = run_notify("--test", NOTIFY_URLS=receiver.url)
    assert "JOBMON_NOTIFY_SECRET: not set" in result.output
    assert receiver.url not in result.output
    assert result.exit_code == 1


def test_command_readyz_and_metrics_show_failures(
    queue: QueueService, run_notify: Callable[..., Result], receiver: WebhookReceiver
) -> None:
    settings = {
        "MONGO_URI": queue.settings.mongo_uri,
        "ROLLUP_DB": queue.settings.rollup_db,
        "NOTIFY_URLS": receiver.url,
        "NOTIFY_SECRET": SIGNING_SECRET,
    }
    result = run_notify(**settings)
    assert (result.output, result.exit_code) == ("default: nothing was sent yet\n", 0)
    assert "notifications" not in queue.get("/readyz")["checks"]
    rollup = OwnDatabase(rollup_database(queue.connection), queue.connection.queue_key)
    StateStore(rollup).save([ReceiverState(health=health) for health in HEALTH], NOT_STORED)
    result = run_notify(**settings)
    assert result.output.splitlines() == [
        "default, slack: 3 messages sent",
        f"default, hook: 0 messages sent, 1 attempt failed; failing since {SINCE:%Y-%m-%d %H:%M} "
        "UTC: it answered HTTP 500",
    ]
    assert result.exit_code == 1
    assert queue.get("/readyz")["checks"]["notifications"] == {
        "failing": [
            {
                "name": "hook",
                "since": f"{SINCE:%Y-%m-%dT%H:%M:%S.000Z}",
                "reason": "it answered HTTP 500",
            }
        ]
    }
    text = queue.api.get_as_admin("/metrics").text
    samples = {
        (sample.name, sample.labels["receiver"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "notification" in sample.name
    }
    assert samples == {
        ("jobmon_notifications_sent_total", "slack"): 3,
        ("jobmon_notifications_sent_total", "hook"): 0,
        ("jobmon_notification_failures_total", "slack"): 0,
        ("jobmon_notification_failures_total", "hook"): 1,
        ("jobmon_notifications_failing", "slack"): 0,
        ("jobmon_notifications_failing", "hook"): 1,
    }


def test_removed_receiver_is_no_longer_failing(
    queue: QueueService, receiver: WebhookReceiver
) -> None:
    """Catches an alert about a receiver whose address was removed from the settings."""
    database = rollup_database(queue.connection)
    rollup = OwnDatabase(database, queue.connection.queue_key)
    StateStore(rollup).save([ReceiverState(health=health) for health in HEALTH], NOT_STORED)
    receivers = parse_receivers(f"{receiver.url}?jobmon_queues=other")
    settings = replace(queue.settings, notify_urls=receivers, notify_secret=SIGNING_SECRET)
    notifications = Notifications(settings, queue.connection, Redactor())
    with notifications.running(queue.connection, rollup, lambda: NOW):
        assert queue.get("/readyz")["checks"]["notifications"] == {"failing": []}
    stored = StateStore(rollup).load()
    assert [(state.health.name, state.health.sent) for state in stored.receivers] == [
        ("slack", 3),
        ("hook", 0),
    ]


def test_a_link_of_a_queue_in_the_queues_file_has_the_path_of_the_queue(
    make_settings: Callable[..., Settings],
) -> None:
    values: dict[str, Any] = {"public_url": "https://jobs.example/mon", "queue": "pay.outs"}
    assert Sender.from_settings(make_settings(**values)).make_page_url() == (
        "https://jobs.example/mon/dashboard"
    )
    queue_sender = Sender.from_settings(make_settings(**values, queues="queues.toml"))
    assert queue_sender.make_page_url("/dashboard/jobs?a=b") == (
        "https://jobs.example/mon/queues/pay.outs/dashboard/jobs?a=b"
    )
    assert queue_sender.make_page_url("") is None
    assert Sender.from_settings(make_settings()).make_page_url() is None


def test_collector_with_an_invalid_receiver_does_not_start() -> None:
    """Catches a typo in an address that nobody notices before the first notification."""
    secret = "T0000AAAA-B0000BBBB"
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": "mongodb://127.0.0.1/unused",
        "JOBMON_NOTIFY_URLS": f"slack://{secret}",
    }
    command = [sys.executable, "-m", "jobmon.cli", "collector"]
    result = run_process(
        command, PATIENCE_S, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert result.returncode == 1
    assert result.stdout.decode() == (
        "Error: JOBMON_NOTIFY_URLS: Apprise does not accept the address of slack: "
        "https://appriseit.com/services/ has the form for each service\n"
    )
