"""`jobmon notify`: shows how many messages each receiver got, or sends each a test message."""

import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime

import click
from pymongo.errors import PyMongoError

from jobmon import logs
from jobmon.humanize import count
from jobmon.notify.delivery import Receiver, open_receivers
from jobmon.notify.message import Message, Sender
from jobmon.rollup.documents import connect_as_writer
from jobmon.rollup.notification_health import ReceiverHealth
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.store.connection import connect_queues
from jobmon.store.failures import describe_error


@click.command("notify")
@click.option("--test", "sends_test", is_flag=True, help="Send a test message to each receiver.")
def notify_command(*, sends_test: bool) -> None:
    """Show how many notifications reached each receiver; --test sends a test message.

    Run it with the settings of the collector. It exits with 1 if messages do not reach a receiver.
    """
    try:
        settings = Settings.from_env(require_keys=False)
        queues, receivers = load_queues(settings), open_receivers(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if not receivers:
        raise click.ClickException("JOBMON_NOTIFY_URLS is not set")
    logs.configure("ERROR", logs.find_secrets(settings, queues))
    results = _send_tests(queues[0], receivers) if sends_test else _read_health(settings, queues)
    click.echo("\n".join(line for line, _ in results))
    sys.exit(0 if all(is_good for _, is_good in results) else 1)


def _send_tests(settings: Settings, receivers: list[Receiver]) -> list[tuple[str, bool]]:
    """A line for each receiver, and whether it accepted the message."""
    message = Message(
        id=f"msg_{uuid.uuid4().hex}",
        made_at=datetime.now(UTC),
        sender=Sender.from_settings(settings),
    )
    outcomes = [(receiver.name, receiver.submit(message)) for receiver in receivers]
    errors = [(name, outcome.exception()) for name, outcome in outcomes]  # waits for each
    return [
        (f"{name}: sent" if error is None else f"{name}: not sent, {error}", error is None)
        for name, error in errors
    ]


def _read_health(settings: Settings, queues: tuple[Settings, ...]) -> list[tuple[str, bool]]:
    """A line for each queue and receiver, and whether messages reach the receiver."""
    lines: list[tuple[str, bool]] = []
    with (
        closing(connect_as_writer(settings)) as own,
        connect_queues(queues) as connections,
    ):
        for connection in connections:
            name = connection.settings.queue
            try:
                receivers = RollupReader(connection, own).notifications()
            except PyMongoError as error:
                lines.append((f"{name}: {describe_error(error)}", False))
                continue
            lines += [_describe(name, health) for health in receivers] or [
                (f"{name}: nothing was sent yet", True)
            ]
    return lines


def _describe(queue: str, health: ReceiverHealth) -> tuple[str, bool]:
    line = f"{queue}, {health.name}: {count(health.sent, 'message')} sent"
    if health.failures:
        line += f", {count(health.failures, 'attempt')} failed"
    if health.failing_since is not None:
        line += f"; failing since {health.failing_since:%Y-%m-%d %H:%M} UTC: {health.reason}"
    return line, health.failing_since is None
