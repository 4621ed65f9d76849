"""Runs collectors in threads of this process, one for each watched queue."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

from pymongo.errors import PyMongoError
from structlog.contextvars import bind_contextvars

from jobmon.collector.collector import RETRY_AFTER_S, STOP_TIMEOUT_S, Collector
from jobmon.collector.error_log import RepeatedErrorLog
from jobmon.collector.share import Share
from jobmon.notify.notifications import Notifications
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import FAILURE, OwnDatabase, connect_as_writer, rollup_database
from jobmon.settings import Settings, load_queues
from jobmon.signals import running_threads
from jobmon.store.connection import Connection, connect_queues

log = logging.getLogger(__name__)

# The pause after an unexpected exception; it doubles after each run of less than a minute.
RESTART_AFTER_S, MAX_RESTART_AFTER_S = 2.0, 60.0


@contextmanager
def collecting(
    settings: Settings, on_failure: Callable[[], None] | None = None
) -> Iterator[threading.Event]:
    """Run a collector for each queue, with connections that only collectors use.

        with collecting(settings) as failed:
            ...

    An unexpected exception is logged with its stack and sets the yielded event. If there is one
    queue, `on_failure` is called then. Without `on_failure`, or with several queues, the failed
    collector is started again after a pause; the other collectors go on. Raises SettingsError, for
    example if a receiver of notifications cannot be used.
    """
    queues = load_queues(settings)
    stop, failed = threading.Event(), threading.Event()
    share, redactor = Share(queues), Redactor(settings.redact_keys)
    report_failure = on_failure if len(queues) == 1 else None

    def run_collector(connection: Connection) -> None:
        if settings.queues is not None:
            bind_contextvars(queue=connection.settings.queue)
        pause_s, error_log = RESTART_AFTER_S, RepeatedErrorLog(logging.ERROR, "the collector waits")
        while not stop.is_set():
            started = time.monotonic()
            try:
                Collector(
                    connection,
                    rollup_database(own_connection),
                    stop,
                    share,
                    redactor,
                    notifications=notifications,
                ).run()
            except PyMongoError as error:  # also from `rollup_database`, if DNS fails
                error_log.log(error)
                stop.wait(RETRY_AFTER_S)
            except Exception as error:
                log.exception("the collector failed")
                failed.set()
                if report_failure is not None:
                    report_failure()
                    return
                with suppress(PyMongoError):
                    database = rollup_database(own_connection)
                    _write_failure(OwnDatabase(database, connection.queue_key), error)
                has_run_long = time.monotonic() - started > MAX_RESTART_AFTER_S
                pause_s = RESTART_AFTER_S if has_run_long else min(2 * pause_s, MAX_RESTART_AFTER_S)
                stop.wait(pause_s)

    with (
        closing(connect_as_writer(settings)) as own_connection,
        # Without majority reads, a collector counts writes that a failover undoes without an event.
        connect_queues(queues, majority_reads=True) as connections,
    ):
        notifications = Notifications(settings, own_connection, redactor)
        tasks = [partial(run_collector, connection) for connection in connections]
        if len(queues) > 1:
            tasks.append(partial(share.run, lambda: rollup_database(own_connection), stop))
        threads = [threading.Thread(target=task, name="collector", daemon=True) for task in tasks]
        with running_threads(threads, stop, STOP_TIMEOUT_S):
            yield failed


def _write_failure(own: OwnDatabase, error: Exception) -> None:
    """Store the failure, so that web services show it to people who cannot read this log."""
    own.write_state(FAILURE, {"exception": type(error).__name__})
