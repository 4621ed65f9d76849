"""Errors that repeat: catches a log that is full of one error, or that lacks a second outage."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect, OperationFailure

from jobmon.collector import collector as collector_module
from jobmon.collector import error_log as error_log_module
from jobmon.collector.collector import Collector
from jobmon.collector.error_log import RepeatedErrorLog
from jobmon.collector.share import Share
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import rollup_database
from jobmon.settings import Settings
from jobmon.store.connection import Connection

from ..support.commands import database_uri

UNREACHABLE = "the collector waits, the database is unreachable: AutoReconnect"


def test_a_repeated_error_is_logged_when_it_changes_and_when_it_returns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log = RepeatedErrorLog(logging.ERROR, "the collector waits")
    refused = OperationFailure("", details={"codeName": "Unauthorized"})
    for error in (AutoReconnect(), AutoReconnect(), refused, AutoReconnect()):
        error_log.log(error)
    refusal = "the collector waits, the database refuses: Unauthorized"
    assert caplog.messages == [UNREACHABLE, refusal, UNREACHABLE]
    monkeypatch.setattr(error_log_module, "OVER_AFTER_S", -1.0)  # any earlier error counts as over
    error_log.log(AutoReconnect())
    assert caplog.messages[3:] == [UNREACHABLE]


def test_a_collector_that_cannot_read_its_queue_logs_this_once(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches two lines each second while only the queue's own deployment is unreachable."""
    tries_left, stop = 3, threading.Event()

    def work(_: Collector) -> None:
        nonlocal tries_left
        tries_left -= 1
        if not tries_left:
            stop.set()
        raise AutoReconnect

    monkeypatch.setattr(Collector, "_work", work)
    monkeypatch.setattr(collector_module, "RETRY_AFTER_S", 0.0)
    caplog.set_level(logging.INFO, "jobmon.collector")
    uri = database_uri(mongod, database)
    settings = make_settings(mongo_uri=uri, rollup_db=database.name)
    connection = Connection(settings)
    share = Share([settings])
    Collector(connection, rollup_database(connection), stop, share, Redactor()).run()
    connection.close()
    starts = [message for message in caplog.messages if "collecting as" in message]
    assert (tries_left, len(starts), caplog.messages.count(UNREACHABLE)) == (0, 1, 1)
