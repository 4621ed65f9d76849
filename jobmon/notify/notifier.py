"""Notifies people about one queue: checks the queue, and sends each receiver its news.

Each attempt to send a message is recorded before it begins, and its outcome afterwards. If the
process ends in between, the next collector sends the message again, with the same id. So a receiver
can get a message twice.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from pymongo.errors import PyMongoError

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import ActiveMutes
from jobmon.actions.support import find_support
from jobmon.diagnosis.evidence_reader import EvidenceSources, gather_evidence
from jobmon.notify.delivery import Receiver
from jobmon.notify.message import Message, Sender
from jobmon.notify.problems import FoundProblems, find_problems
from jobmon.notify.state import PendingMessage, ReceiverState, StateStore
from jobmon.notify.tracking import Timing, find_open_level, list_news, record_sent, track
from jobmon.notify.webhook import DeliveryError
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase
from jobmon.rollup.notification_health import ReceiverHealth
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.series import SeriesReader
from jobmon.rollup.stats import StatsReader
from jobmon.store.connection import Connection
from jobmon.store.failures import describe_error
from jobmon.store.known_fields import KnownFields
from jobmon.store.list_plan import ListPlanner
from jobmon.store.paused_types import PausedTypes
from jobmon.store.running_jobs import RunningJobReader

log = logging.getLogger(__name__)

TICK_S = 1.0
CHECK_EVERY_S = 15.0
# The interval is this many times as long as a check took, so that checks take at most a 20th of the
# time; but after a slow check the pause is at most `MAX_CHECK_PAUSE_S`.
CHECK_INTERVAL_FACTOR = 20
MAX_CHECK_PAUSE_S = 60.0
# The first retry is later than the timeout of an attempt: two attempts never run at the same time.
FIRST_RETRY, LAST_RETRY = timedelta(seconds=40), timedelta(minutes=5)
# A message that could not be delivered for so long is replaced by one with the present notices.
REWRITE_AFTER = timedelta(hours=1)
STOP_TIMEOUT_S = 1.0  # after `stop`, outcomes that arrive within this time are still recorded


@dataclass(frozen=True, kw_only=True, eq=False)
class QueueSources:
    """The `EvidenceSources` of a queue in a collector: what the checks of the queue read."""

    name: str
    connection: Connection
    stats: StatsReader
    series: SeriesReader
    running: RunningJobReader
    known_fields: KnownFields
    pauses: PausedTypes | None = None

    @classmethod
    def open(cls, watched: Connection, own: Connection) -> Self:
        """The sources for the queue of `watched`; `own` is the connection to jobmon's databases."""
        rollup = RollupReader(watched, own)
        has_actions = watched.settings.actions
        can_pause = has_actions and find_support(watched.settings).has_type_actions
        return cls(
            name=watched.settings.queue,
            connection=watched,
            stats=StatsReader(ListPlanner(watched), rollup),
            series=SeriesReader(watched, rollup),
            running=RunningJobReader(watched),
            known_fields=KnownFields(watched, rollup.counts_changes),
            pauses=PausedTypes(watched) if can_pause else None,
        )


@dataclass(frozen=True)
class _Attempt:
    message_id: str
    outcome: Future[None]


class Notifier:
    """Notifies about a queue while this process collects it.

    `clock` returns the database's time. Use an object in one thread only:

        Notifier(sources, own, receivers, redactor, mutes, clock=lease.database_time).run(stop)
    """

    def __init__(
        self,
        sources: EvidenceSources,
        own: OwnDatabase,
        receivers: Sequence[Receiver],
        redactor: Redactor,
        mutes: MuteRecords,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        settings = sources.connection.settings
        self._sources = sources
        self._store = StateStore(own)
        self._receivers = receivers
        self._redactor = redactor
        self._mutes = mutes
        self._clock = clock
        self._sender = Sender.from_settings(settings)
        hours = settings.notify_repeat_hours
        self._timing = Timing(
            delay=timedelta(seconds=settings.notify_delay_s),
            repeat=timedelta(hours=hours) if hours else None,
        )
        self._version: int | None = None  # None: the state has to be read
        self._states: dict[str, ReceiverState] = {}
        self._is_changed = False
        self._due: set[str] = set()  # the receivers for which `_save` begins an attempt
        self._attempts: dict[str, _Attempt] = {}  # by receiver, until the outcome is recorded
        self._check_at = 0.0  # monotonic: when the next check is due
        self._failures: dict[str, str] = {}  # by task: its last failure, which was logged

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; no failure ends the work, and a repeated one is logged once."""
        while not stop.is_set():
            self.step()
            stop.wait(TICK_S)
        self._try("store the last notifications", self._finish)

    def step(self) -> None:
        """Check the queue if that is due, and begin to send the messages that are due."""
        if self._version is None and not self._try("read what was sent", self._load):
            return
        self._record_outcomes()
        if time.monotonic() >= self._check_at:
            # If the check fails, messages about earlier news are still sent.
            self._try("check the queue", self._check)
        self._choose_attempts()
        self._try("store what is sent", self._save)

    def _try(self, task: str, action: Callable[[], None]) -> bool:
        """Run the action of a task; False if it failed. A repeated failure is not logged again.

        No exception is raised: the collector counts even without notifications.
        """
        try:
            action()
        except Exception as error:
            if isinstance(error, PyMongoError):
                failure, logged_exception = describe_error(error), None
            else:
                failure, logged_exception = repr(type(error)), error
            if self._failures.get(task) != failure:
                log.error("notifications cannot %s: %s", task, failure, exc_info=logged_exception)
            self._failures[task] = failure
            return False
        self._failures.pop(task, None)
        return True

    def _load(self) -> None:
        stored = self._store.load()
        states = {state.health.name: state for state in stored.receivers}
        names = [receiver.name for receiver in self._receivers]
        self._states = {
            name: states.get(name) or ReceiverState(health=ReceiverHealth(name=name))
            for name in names
        }
        # Save it without removed receivers: their failures would be reported for ever.
        self._is_changed = not states.keys() <= self._states.keys()
        self._version, self._due = stored.version, set()

    def _check(self) -> None:
        """Track the problems that the checks find; without recent rollup stats, do nothing."""
        if self._sources.series.rollup.stats() is None:
            return
        started = time.monotonic()
        self._check_at = started + CHECK_EVERY_S
        evidence = gather_evidence(self._sources, datetime.now(UTC))
        if evidence.stats.source != "rollup":  # meanwhile the rollup's stats have become too old
            return
        now = self._clock()
        mutes = self._mutes.find_active(now)
        for receiver in self._receivers:
            found = find_problems(evidence, receiver.address, self._redactor, mutes)
            self._follow(receiver.name, found, mutes, now)
        took_s = time.monotonic() - started
        interval_s = min(took_s * CHECK_INTERVAL_FACTOR, took_s + MAX_CHECK_PAUSE_S)
        self._check_at = started + max(CHECK_EVERY_S, interval_s)

    def _follow(self, name: str, found: FoundProblems, mutes: ActiveMutes, now: datetime) -> None:
        """Track the problems of a receiver, and write its next message if there is news."""
        state = self._states[name]
        tracked = track(state.tracked, found, now, self._timing)
        pending = state.pending
        if pending is not None and name not in self._attempts:
            is_old = pending.made_at <= now - REWRITE_AFTER
            problems = (item.problem for item in pending.news)
            if is_old or any(mutes.is_muted(problem.kind, problem.types) for problem in problems):
                pending = None
        if pending is None:
            news = tuple(list_news(tracked, found, now, self._timing, mutes))
            if news:
                pending = PendingMessage(
                    id=f"msg_{uuid.uuid4().hex}",
                    made_at=now,
                    news=news,
                    level=find_open_level(record_sent(tracked, news, now)),
                    retry_at=now,
                )
                if state.pending is not None:  # a rewritten message is not sent sooner
                    pending = replace(
                        pending,
                        attempts=state.pending.attempts,
                        retry_at=state.pending.retry_at,
                    )
        self._update(name, replace(state, tracked=tracked, pending=pending))

    def _choose_attempts(self) -> None:
        now = self._clock()
        for name, state in self._states.items():
            pending = state.pending
            if pending is None or name in self._attempts or name in self._due:
                continue
            # A retry that is further away was planned before the clock was set back: it is due.
            if now < pending.retry_at <= now + 2 * LAST_RETRY:
                continue
            delay = min(FIRST_RETRY * 2 ** min(pending.attempts, 10), LAST_RETRY)
            delay *= random.uniform(0.9, 1.1)  # noqa: S311 - no secret
            pending = replace(pending, attempts=pending.attempts + 1, retry_at=now + delay)
            self._update(name, replace(state, pending=pending))
            self._due.add(name)

    def _save(self) -> None:
        """Store the state if it has changed; then begin the attempts that it records."""
        assert self._version is not None  # noqa: S101
        if not self._is_changed:
            return
        if not self._store.save(self._states.values(), self._version):
            log.warning("another collector has sent notifications: reading what it stored")
            self._version = None
            return
        self._version += 1
        self._is_changed = False
        for receiver in self._receivers:
            pending = self._states[receiver.name].pending
            if receiver.name in self._due and pending is not None:
                message = Message(
                    id=pending.id,
                    made_at=pending.made_at,
                    sender=self._sender,
                    news=pending.news,
                    level=pending.level,
                )
                self._attempts[receiver.name] = _Attempt(pending.id, receiver.submit(message))
        self._due.clear()

    def _record_outcomes(self) -> None:
        """Record the outcomes of the attempts that have ended."""
        for name, attempt in list(self._attempts.items()):
            if not attempt.outcome.done():
                continue
            del self._attempts[name]
            error = attempt.outcome.exception()
            state = self._states[name]
            if state.pending is None or state.pending.id != attempt.message_id:
                continue  # another collector has written the state, which was read again
            if error is None:
                self._update(name, self._record_success(state, state.pending))
            else:
                reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
                self._update(name, self._record_failure(state, reason))

    def _record_success(self, state: ReceiverState, pending: PendingMessage) -> ReceiverState:
        health = state.health
        log.info("notified %s of %d notices", health.name, len(pending.news))
        if health.failing_since is not None:
            log.warning("notifications reach %s again", health.name)
        return replace(
            state,
            tracked=record_sent(state.tracked, pending.news, self._clock()),
            pending=None,
            health=replace(health, sent=health.sent + 1, failing_since=None, reason=""),
        )

    def _record_failure(self, state: ReceiverState, reason: str) -> ReceiverState:
        health = state.health
        if health.reason != reason:
            log.error("a notification did not reach %s, it is sent again: %s", health.name, reason)
        return replace(
            state,
            health=replace(
                health,
                failures=health.failures + 1,
                failing_since=health.failing_since or self._clock(),
                reason=reason,
            ),
        )

    def _update(self, name: str, state: ReceiverState) -> None:
        if state != self._states[name]:
            self._states[name] = state
            self._is_changed = True

    def _finish(self) -> None:
        """Cancel attempts that have not begun; record those that end within a second."""
        self._due.clear()  # nobody would record the outcome of an attempt that begins now
        self._attempts = {
            name: attempt
            for name, attempt in self._attempts.items()
            if not attempt.outcome.cancel()
        }
        wait([attempt.outcome for attempt in self._attempts.values()], STOP_TIMEOUT_S)
        if self._version is not None:
            self._record_outcomes()
            self._save()
