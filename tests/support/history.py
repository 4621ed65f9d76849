"""Runs the part of a collector that writes the history, without its other parts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.history_writer import HistoryWriter
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.store.connection import Connection


def make_history_writer(connection: Connection, **options: Any) -> HistoryWriter:
    """A writer for the history of the queue that `connection` watches."""
    database = OwnDatabase(rollup_database(connection), connection.queue_key)
    return HistoryWriter(connection, database, ErrorGroups(database, Redactor()), **options)


@contextmanager
def writing_history(connection: Connection) -> Iterator[None]:
    """Run a history writer in a thread during the block."""
    stop = threading.Event()
    thread = threading.Thread(target=make_history_writer(connection).run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
