"""Runs the part of a collector that writes the history, without its other parts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from jobmon.collector import history_writer
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
    """Run a history writer in a thread during the block, with short pauses.

    No change of a job ends a pause.
    """
    stop = threading.Event()
    thread = threading.Thread(target=make_history_writer(connection).run, args=[stop])
    with patch.multiple(history_writer, MAX_PAUSE_S=0.2, REST_S=0.2):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
