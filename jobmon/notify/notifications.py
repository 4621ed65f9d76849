"""The notifications of all queues that a process collects."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from pymongo.errors import PyMongoError

from jobmon.actions.mute_records import MuteRecords
from jobmon.notify.delivery import open_receivers
from jobmon.notify.notifier import Notifier, QueueSources
from jobmon.notify.state import StateStore
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase
from jobmon.settings import Settings
from jobmon.signals import running_threads
from jobmon.store.connection import Connection

STOP_TIMEOUT_S = 2.0  # a message whose outcome is not recorded by then is sent again


class Notifications:
    """The receivers of a process, for all its queues; SettingsError if one cannot be used."""

    def __init__(self, settings: Settings, own: Connection, redactor: Redactor) -> None:
        self._own = own
        self._redactor = redactor
        self._receivers = open_receivers(settings)

    @contextmanager
    def running(
        self, watched: Connection, database: OwnDatabase, clock: Callable[[], datetime]
    ) -> Iterator[None]:
        """Notify about a queue during the block, in a thread for this queue.

        `clock` returns the time of `database`. The caller must hold the queue's collector lease.
        """
        name = watched.settings.queue
        receivers = [
            receiver for receiver in self._receivers if receiver.address.accepts_queue(name)
        ]
        if not receivers:
            with suppress(PyMongoError):  # the collector reports that it cannot write
                StateStore(database).clear_failures()
            yield
            return
        notifier = Notifier(
            QueueSources.open(watched, self._own),
            database,
            receivers,
            self._redactor,
            MuteRecords(watched, self._own, self._redactor),
            clock=clock,
        )
        stop, context = threading.Event(), contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(notifier.run, stop), name="notify", daemon=True
        )
        with running_threads([thread], stop, STOP_TIMEOUT_S):
            yield
