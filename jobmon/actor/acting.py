"""Runs actors in threads of this process, one for each queue whose jobs have actions."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from pymongo.errors import PyMongoError
from structlog.contextvars import bind_contextvars

from jobmon.actions.records import ensure_record_indexes
from jobmon.actions.support import find_support
from jobmon.actor.actor import Actor
from jobmon.collector.error_log import RepeatedErrorLog
from jobmon.collector.leader import make_holder
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import state_database
from jobmon.settings import Settings, load_queues
from jobmon.signals import running_threads
from jobmon.store.connection import Connection, connect_queues

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
STOP_TIMEOUT_S = 10.0


@contextmanager
def acting(
    settings: Settings,
    on_failure: Callable[[], None] | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Run an actor for each queue with actions until the block ends, over new connections.

    An unexpected exception ends the actor of a queue: it is logged with its stack, and `on_failure`
    is called. `on_step` is for tests: see `Actor`.
    """
    queues = [queue.choose_actor_uri() for queue in load_queues(settings)]
    stop, redactor, holder = threading.Event(), Redactor(settings.redact_keys), make_holder()

    def work(connection: Connection, own: Connection) -> None:
        if settings.queues is not None:
            bind_contextvars(queue=connection.settings.queue)
        error_log = RepeatedErrorLog(logging.ERROR, "the actor waits")
        has_indexes = False
        while not stop.is_set():
            try:
                if not has_indexes:
                    ensure_record_indexes(state_database(own))
                    has_indexes = True
                Actor(connection, own, redactor, stop, holder=holder, on_step=on_step).run()
            except PyMongoError as error:
                error_log.log(error)
                stop.wait(RETRY_AFTER_S)
            except Exception:
                log.exception("the actor failed")
                if on_failure is not None:
                    on_failure()
                return

    supported = list(_select_supported(queues))
    with (
        closing(Connection(settings.choose_actor_uri())) as own,
        connect_queues(supported) as connections,
    ):
        threads = [
            threading.Thread(target=work, args=(connection, own), name="actor", daemon=True)
            for connection in connections
        ]
        with running_threads(threads, stop, STOP_TIMEOUT_S):
            yield


def _select_supported(queues: Sequence[Settings]) -> Iterator[Settings]:
    for queue in queues:
        support = find_support(queue)
        if support.list_actions():
            yield queue
        else:
            log.warning("no actions for the queue %s: %s", queue.queue, support.reason)
