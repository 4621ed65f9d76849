"""Changes of jobs: catches a stream that keeps the database busy although no job changes, and a
stream that reports the end although changes are unread."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import NetworkTimeout, OperationFailure
from pymongo.monitoring import CommandListener, CommandStartedEvent

from jobmon.collector import changes as changes_module
from jobmon.collector.changes import PolledChanges, StreamedChanges, StreamLostError
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.mapping import FieldMapping

from ..support.commands import database_uri
from ..support.queue_service import MongoDb


class ReadListener(CommandListener):
    """Records `maxTimeMS` of each getMore: how long (ms) the server may wait for changes."""

    def __init__(self) -> None:
        self.waits_ms = list[int]()

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "getMore":
            self.waits_ms.append(event.command["maxTimeMS"])

    def succeeded(self, _: Any) -> None:
        pass

    def failed(self, _: Any) -> None:
        pass


@pytest.fixture
def read_listener() -> ReadListener:
    return ReadListener()


@pytest.fixture
def connection(
    mongod: Mongod,
    database: MongoDb,
    make_settings: Callable[..., Settings],
    read_listener: ReadListener,
) -> Iterator[Connection]:
    uri = database_uri(mongod, database)
    with MongoClient[dict[str, Any]](uri, event_listeners=[read_listener], tz_aware=True) as client:
        yield Connection(make_settings(mongo_uri=uri), client)


def test_a_stream_does_not_let_the_server_wait_for_changes(
    connection: Connection, read_listener: ReadListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches reads that wake at each write to any collection of the deployment."""
    monkeypatch.setattr(changes_module, "IDLE_POLL_PAUSE_S", 0.01)
    segments = SegmentMap(connection.jobs)
    with closing(StreamedChanges(connection.jobs.collection, None, Event())) as changes:
        for _ in range(3):
            changes.next_batch(segments)
            assert changes.is_at_end
        connection.database.jobs.insert_one({"_id": "new", "status": "queued", "type": "t"})
        changes.next_batch(segments)
    assert segments.recount() == 1
    assert segments.totals == {("queued", "t"): 1}
    assert max(read_listener.waits_ms) <= 1


def test_a_stream_that_cannot_be_opened_leaves_no_session(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that waits, and adds a session to the server with each try."""
    sessions, start = list[ClientSession](), connection.client.start_session

    def start_and_keep() -> ClientSession:
        sessions.append(start())
        return sessions[-1]

    monkeypatch.setattr(connection.client, "start_session", start_and_keep)
    with pytest.raises(OperationFailure):
        StreamedChanges(connection.jobs.collection, {"_data": "no token"}, Event())
    assert [session.has_ended for session in sessions] == [True]


def test_a_batch_that_the_server_cut_is_not_the_end(connection: Connection) -> None:
    """Catches statistics that have the present time while the server has more changes.

    A server ends a batch at 16 MB, even if the batch has fewer events than requested.
    """
    segments, jobs, ends = SegmentMap(connection.jobs), connection.jobs.collection, list[bool]()
    fields = frozenset({"payload"})
    with closing(StreamedChanges(jobs, None, Event(), fields=fields)) as changes:
        job = {"status": "queued", "type": "t", "payload": 1_000_000 * "x"}
        connection.database.jobs.insert_many(dict(job) for _ in range(20))
        while True not in ends:
            changes.next_batch(segments)
            ends.append(changes.is_at_end)
    assert len(ends) > 1
    segments.recount()
    assert segments.totals == {("queued", "t"): 20}


def test_a_stream_is_lost_if_three_reads_get_no_answer_in_time(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches reads that scan the server's log from the same place for ever, more and more of them.

    An abandoned read goes on in the server.
    """
    segments, sent = SegmentMap(connection.jobs), list[str]()
    answers = iter([False, False, True, False, False, False])
    with closing(StreamedChanges(connection.jobs.collection, None, Event())) as changes:
        send = changes._send_command

        def send_command(command: dict[str, Any]) -> Any:
            sent.append(next(iter(command)))
            if sent[-1] == "getMore" and not next(answers):
                raise NetworkTimeout
            return send(command)

        monkeypatch.setattr(changes, "_send_command", send_command)
        for _ in range(5):
            changes.next_batch(segments)
        with pytest.raises(StreamLostError, match="in time"):
            changes.next_batch(segments)
    reopened = ["getMore", "killCursors", "aggregate"]
    assert sent == [*2 * reopened, "getMore", *2 * reopened, "getMore", "killCursors"]


def test_polling_goes_on_with_the_dates_that_have_an_index(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also catches an index that is never used because it was missing at the first poll."""
    monkeypatch.setattr(changes_module, "INDEX_RETRY_S", 0.0)
    monkeypatch.setattr(FieldMapping, "dated_fields", ("createdAt", "updatedAt", "finishedAt"))
    jobs = connection.database.jobs
    jobs.create_index("updatedAt")
    jobs.create_index("finishedAt")
    stop, future = Event(), datetime.now(UTC) + timedelta(days=1)
    stop.set()  # no pause between two polls
    segments, changes = SegmentMap(connection.jobs), PolledChanges(connection.jobs, stop)
    for count, field in enumerate(("updatedAt", "finishedAt", "updatedAt"), 1):
        jobs.insert_one({"status": "queued", "type": "t", field: future})
        changes.next_batch(segments)
        segments.recount()
        assert segments.totals == {("queued", "t"): count}
    jobs.create_index("createdAt")
    jobs.delete_many({})  # so that no other date marks the segment
    jobs.insert_one({"status": "queued", "type": "t", "createdAt": future})
    changes._poll(segments, datetime.now(UTC))  # without the sweep of `next_batch`
    segments.recount()
    assert segments.totals == {("queued", "t"): 1}
    (warning,) = [line for line in caplog.messages if "no index on" in line]
    assert warning.startswith("no index on createdAt:")
