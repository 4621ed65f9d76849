"""The watched queues, and which one a request is about.

`/queues/{name}/…` is the path `/…` of the queue with that name. A path without this prefix is
about the default queue.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from flask import Flask, request
from pymongo import MongoClient
from structlog.contextvars import bind_contextvars

from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.preview import ActionPreviewer
from jobmon.actions.requests import ActionRequests
from jobmon.actions.support import ActionSupport, find_support
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.marks import MarkReader
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.run_history import RunHistoryReader
from jobmon.rollup.series import SeriesCache, SeriesReader
from jobmon.rollup.stats import StatsReader
from jobmon.settings import Settings
from jobmon.store.client import DatabaseClient
from jobmon.store.connection import Connection
from jobmon.store.decoding import large_document_check
from jobmon.store.finder import JobFinder
from jobmon.store.jobs import JobStore
from jobmon.store.known_fields import KnownFields
from jobmon.store.lease_order import PlaceFinder
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document
from jobmon.store.paused_types import PausedTypes
from jobmon.store.probe import DatabaseProbe
from jobmon.store.recurring import RecurringJobs
from jobmon.store.running_jobs import RunningJobReader
from jobmon.store.schedule import ScheduleReader
from jobmon.store.summaries import ERROR_FIELDS, shorten_last_error
from jobmon.web.context import current_request, extension, request_values
from jobmon.web.errors import ApiError

log = logging.getLogger(__name__)

# Threads for each deployment: in one thread, a hundred queries would take seconds.
MAX_READERS = 8
_PATH = re.compile(r"(/queues/([^/]+))(/.*)?", re.DOTALL)
# Keys in the WSGI environment: the queue's name, its settings, and the path before `/queues`.
_NAME, _SETTINGS, _ROOT = "jobmon.queue", "jobmon.settings", "jobmon.root"

T = TypeVar("T")
StartResponse = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class QueueActions:
    """The actions that a queue has, the requests for them, and their previews."""

    support: ActionSupport
    requests: ActionRequests
    previewer: ActionPreviewer


class WatchedQueue:
    """A queue's settings and its readers. Nothing connects before the first query.

    `own`: the connection to jobmon's own databases. `name`: the queue's name in the file of queues;
    `default` without a file. `actions`: None unless JOBMON_ACTIONS is set. `pauses`: the paused
    types; None without actions, or if the types of this queue cannot be paused.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        own: Connection,
        redactor: Redactor,
        series_cache: SeriesCache,
    ) -> None:
        planner = ListPlanner(connection)
        self.settings = settings
        self.name = settings.queue
        self.connection = connection
        self.probe = DatabaseProbe(connection, settings.server_selection_timeout_ms)
        self.rollup = RollupReader(connection, own)
        self.stats = StatsReader(planner, self.rollup)
        self.series = SeriesReader(connection, self.rollup, series_cache)
        self.marks = MarkReader(connection, own, redactor)
        self.mutes = MuteRecords(connection, own, redactor)
        self.runs = RunHistoryReader(self.rollup, self.series)
        self.jobs = JobStore(connection)
        self.lists = JobLists(planner, redactor)
        self.failed_jobs = JobLists(
            planner, redactor, fields=ERROR_FIELDS, transform=shorten_last_error
        )
        self.finder = JobFinder(connection)
        self.places = PlaceFinder(connection)
        self.known_fields = KnownFields(connection, self.rollup.counts_changes)
        self.schedule = ScheduleReader(connection)
        self.running = RunningJobReader(connection)
        self.recurring = RecurringJobs(planner, redactor)
        self.actions: QueueActions | None = None
        self.pauses: PausedTypes | None = None
        if settings.actions:
            support = find_support(settings)
            self.actions = QueueActions(
                support=support,
                requests=ActionRequests(connection, own, redactor),
                previewer=ActionPreviewer(
                    self.lists, ListCounter(planner), support, GroupJobReader(planner, redactor)
                ),
            )
            if support.has_type_actions:
                self.pauses = PausedTypes(connection, self.actions.requests.describe_pauses)


class WatchedQueues:
    """The queues of an app, the default queue first. Each is opened when it is first used.

    Queues with the same connection string share a client. If `client` is given, all queues use it.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[Settings],
        redactor: Redactor,
        client: MongoClient[Document] | None = None,
    ) -> None:
        self._settings = {queue.queue: queue for queue in queues}
        self._redactor = redactor
        self._lock = threading.Lock()
        self._opened: dict[str, WatchedQueue] = {}
        self._series_cache = SeriesCache()
        uris = {settings.mongo_uri, *(queue.mongo_uri for queue in queues)}
        self._clients = {
            uri: DatabaseClient(replace(settings, mongo_uri=uri), client) for uri in uris
        }
        # The connection to jobmon's own databases.
        self.own = Connection(settings, self._clients[settings.mongo_uri])
        self.default = queues[0]

    def __len__(self) -> int:
        return len(self._settings)

    @property
    def deployment_count(self) -> int:
        """In how many deployments (by connection string) the queues are."""
        return len({queue.mongo_uri for queue in self.all_settings()})

    def open_all(self, may_see: Callable[[Settings], bool] | None = None) -> list["WatchedQueue"]:
        """All queues, or only those for which `may_see` is true."""
        return [
            self.open(settings)
            for settings in self.all_settings()
            if may_see is None or may_see(settings)
        ]

    def all_settings(self) -> Iterable[Settings]:
        """The settings of each queue; no queue is opened."""
        return self._settings.values()

    def find_settings(self, name: str) -> Settings | None:
        """The settings of the queue with this name; None if there is no such queue."""
        return self._settings.get(name)

    def open(self, settings: Settings) -> WatchedQueue:
        """The queue with these settings, which must be in `all_settings`."""
        name = settings.queue
        with self._lock:
            if name not in self._opened:
                connection = self.own
                if settings is not self.own.settings:
                    connection = Connection(settings, self._clients[settings.mongo_uri])
                self._opened[name] = WatchedQueue(
                    settings, connection, self.own, self._redactor, self._series_cache
                )
            return self._opened[name]

    def close(self) -> None:
        """Close every client; no queue can be read after that."""
        for client in self._clients.values():
            client.close()


class QueuePath:
    """WSGI middleware that moves `/queues/{name}` from the path to SCRIPT_NAME.

    So every route exists once, and the addresses that Flask makes keep the queue.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], queues: WatchedQueues) -> None:
        self._app = app
        self._queues = queues

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        environ[_SETTINGS] = self._queues.default
        if match is not None:
            prefix, name, path = match.groups()
            root = environ.get("SCRIPT_NAME", "").rstrip("/")
            environ[_ROOT], environ[_NAME] = root, _decode(name)
            environ[_SETTINGS] = self._queues.find_settings(environ[_NAME])
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = root + prefix, path or "/"
        return self._app(environ, start_response)


def _decode(name: str) -> str:
    """A part of PATH_INFO as text: WSGI has its bytes as Latin-1."""
    return name.encode("latin-1", "replace").decode(errors="replace")


def register(app: Flask, queues: WatchedQueues) -> None:
    """Let requests name one of these queues; call it before other middleware is registered."""
    app.extensions["jobmon_queues"] = queues
    app.wsgi_app = QueuePath(app.wsgi_app, queues)  # type: ignore[method-assign]


def all_queues() -> WatchedQueues:
    queues: WatchedQueues = extension("jobmon_queues")
    return queues


def current_settings() -> Settings | None:
    """The settings of the queue that this request is about; None if there is no such queue."""
    environ = current_request().environ
    settings: Settings | None = environ[_SETTINGS] if _SETTINGS in environ else all_queues().default
    return settings


def current_queue() -> WatchedQueue:
    """The queue that this request is about; raises ApiError 404 if there is no such queue.

    Check the caller's token first: only a caller with a token may learn which queues exist.
    """
    values = request_values()
    queue: WatchedQueue | None = values.get("jobmon_queue")
    if queue is None:
        settings = current_settings()
        if settings is None:
            raise no_such_queue()
        queue = values.jobmon_queue = all_queues().open(settings)
    return queue


def no_such_queue() -> ApiError:
    """The answer about a queue that does not exist, or that the caller may not know."""
    return ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no queue of this name.")


def named_queue() -> str | None:
    """The queue's name in the path of this request; None if the path names no queue."""
    name: str | None = current_request().environ.get(_NAME)
    return name


def root_path() -> str:
    """The path before `/queues/{name}`, without a final slash; usually empty."""
    root: str = request.environ.get(_ROOT, request.script_root)
    return root


class ParallelReader(Generic[T]):
    """Calls `read` for many queues at once, and waits for the results for a limited time.

    Each deployment has up to `MAX_READERS` threads of its own, so a deployment that does not answer
    delays no other deployment. Callers share a read that waits for a thread or is in progress.

        totals = ParallelReader[int](lambda queue: queue.stats.stats().total)
        totals.read(queues, within_s=2)
    """

    def __init__(self, read: Callable[[WatchedQueue], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._running: dict[str, Future[T]] = {}  # by the queue's name
        self._deployments: dict[str, _Deployment[T]] = {}  # by connection string

    def read(self, queues: Sequence[WatchedQueue], within_s: float) -> dict[str, T]:
        """The results by the queue's name; without queues that took longer or could not be read.

        An exception of `read` is logged.
        """
        with self._lock:
            results = {queue.name: self._start(queue) for queue in queues}
        done, _ = wait(results.values(), within_s)
        return {
            name: result.result()
            for name, result in results.items()
            if result in done and result.exception() is None
        }

    def _start(self, queue: WatchedQueue) -> Future[T]:
        """The running read of a queue, or a new one; call it while holding the lock."""
        if (running := self._running.get(queue.name)) is not None:
            return running
        deployment = self._deployments.setdefault(queue.settings.mongo_uri, _Deployment())
        if deployment.reader_count < MAX_READERS:
            read_waiting = partial(self._read_waiting, deployment)
            threading.Thread(target=read_waiting, name="reading", daemon=True).start()
            deployment.reader_count += 1
        result = self._running[queue.name] = Future[T]()
        context = copy_context()
        # The request may end before the read, and would not free the place of a large document.
        context.run(large_document_check.set, None)
        deployment.waiting.append((queue, context, result))
        return result

    def _read_queue(self, queue: WatchedQueue) -> T:
        if queue.settings.queues is not None:
            bind_contextvars(queue=queue.name)  # in this thread's log
        return self._read(queue)

    def _read_waiting(self, deployment: "_Deployment[T]") -> None:
        while True:
            with self._lock:
                if not deployment.waiting:
                    deployment.reader_count -= 1
                    return
                queue, context, result = deployment.waiting.popleft()
            try:
                value = context.run(self._read_queue, queue)
            except Exception as error:
                log.exception("the queue %s could not be read", queue.name)
                finish = partial(result.set_exception, error)
            else:
                finish = partial(result.set_result, value)
            with self._lock:
                del self._running[queue.name]
            finish()


class _Deployment(Generic[T]):
    """The queues of a deployment that wait to be read, and the number of its reading threads."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[WatchedQueue, Context, Future[T]]] = deque()
        self.reader_count = 0
