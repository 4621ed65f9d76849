"""`GET /queues`: the watched queues, each with its state."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self

from pymongo.errors import PyMongoError

from jobmon.actions.mutes import ActiveMutes
from jobmon.api import queue_examples
from jobmon.api.openapi import Access, Routes
from jobmon.api.queue_answers import QueueList
from jobmon.diagnosis.attention import run_checks
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.evidence_reader import gather_evidence
from jobmon.diagnosis.forecast import Forecast, forecast_queue
from jobmon.diagnosis.notices import (
    UNKNOWN,
    Notice,
    collect_notices,
    describe_unchecked,
    summary_level,
)
from jobmon.domain import failure_rate
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.series import History
from jobmon.settings import Settings
from jobmon.single_flight import SingleFlight
from jobmon.store.failures import describe_error
from jobmon.web import auth
from jobmon.web.queues import ParallelReader, WatchedQueue, WatchedQueues, all_queues

log = logging.getLogger(__name__)

CACHE_TTL_MS = 500
# A summary is reused for two seconds or, if that is longer, ten times its reading time (max. 10 s).
SUMMARY_TTL_S = 2.0
PAUSE_FACTOR = 10
# For a queue that does not answer:
WAIT_S = 1.5  # how long callers wait for its first summary
SHORT_WAIT_S = 0.2  # how long callers wait for a later summary
MAX_AGE_S = 10.0  # how long its last summary is shown

NO_PERMISSION = "Your role does not have the permission of this queue."
NO_ANSWER = "Not read: the database does not answer."
FIRST_READ = "Not known yet: it is being read for the first time."


@dataclass(frozen=True, kw_only=True)
class QueueSummary:
    """The state of a queue. An unknown value is None; `reasons` explain it, as sentences.

    `muted` has the notices that are muted completely; `notices` has all others, and `level` is
    about these.
    """

    level: str = UNKNOWN
    notices: tuple[Notice, ...] = ()
    muted: tuple[Notice, ...] = ()
    reasons: tuple[str, ...] = ()
    status_counts: dict[str, int] | None = None
    oldest_queued_ms: int | None = None
    finished_per_minute: float | None = None
    failure_rate: float | None = None
    forecast: Forecast | None = None
    as_of: datetime | None = None
    source: str | None = None

    @classmethod
    def from_evidence(cls, evidence: Evidence, mutes: ActiveMutes) -> Self:
        """The summary that follows from the evidence."""
        checks, stats = run_checks(evidence), evidence.stats
        unmuted = mutes.leave_out_muted(checks)
        notices = collect_notices(unmuted)
        finished, failed = _count_finished(evidence.hour_by_type)
        return cls(
            level=summary_level(unmuted),
            notices=tuple(notices),
            muted=tuple(notice for notice in collect_notices(checks) if notice not in notices),
            reasons=tuple(describe_unchecked(checks)),
            status_counts=stats.status_counts(),
            oldest_queued_ms=stats.oldest_queued_age_ms(),
            finished_per_minute=None if finished is None else round(finished / (HOUR / MINUTE), 3),
            failure_rate=failure_rate(failed, finished) if finished else None,
            forecast=forecast_queue(evidence),
            as_of=stats.as_of,
            source=stats.source,
        )


def _count_finished(hour: History[str] | Missing) -> tuple[int | None, int]:
    """How many attempts finished (None if unknown), and how many of these failed."""
    if isinstance(hour, Missing):
        return None, 0
    by_type = hour.activity.values()
    finished = sum(activity.finished for activity in by_type)
    return finished, sum(activity.failed for activity in by_type)


class QueueSummaries:
    """Caches a summary of each queue for all callers.

    A queue that does not answer delays callers only for a moment. Its last summary is shown until
    it is ten seconds old; after that, an empty summary with the reason.
    """

    def __init__(self, queues: WatchedQueues) -> None:
        self._queues = queues
        self._reader = ParallelReader(self._read)
        self._shared = SingleFlight(self._update, CACHE_TTL_MS)
        self._summaries: dict[str, _TimedSummary] = {}

    def get(self) -> dict[str, QueueSummary]:
        """The summary of each queue, by its name."""
        return self._shared.get()

    def _update(self) -> dict[str, QueueSummary]:
        now = time.monotonic()
        queues = self._queues.open_all()
        outdated = [
            queue for queue in queues if not self._is_recent(queue.name, now, SUMMARY_TTL_S)
        ]
        has_new = any(queue.name not in self._summaries for queue in outdated)
        self._reader.read(outdated, WAIT_S if has_new else SHORT_WAIT_S)
        now = time.monotonic()
        return {
            queue.name: self._summaries[queue.name].summary
            if self._is_recent(queue.name, now, MAX_AGE_S)
            else QueueSummary(reasons=(NO_ANSWER if queue.name in self._summaries else FIRST_READ,))
            for queue in queues
        }

    def _read(self, queue: WatchedQueue) -> None:
        """Read and cache a summary; it is useful even if nobody waits for it any more."""
        started = time.monotonic()
        summary = _summarize(queue)
        # A failed summary has no `as_of`; a slow failure is not cached longer than a quick one.
        took_s = 0.0 if summary.as_of is None else time.monotonic() - started
        self._summaries[queue.name] = _TimedSummary(summary, time.monotonic(), took_s)

    def _is_recent(self, name: str, now: float, max_age_s: float) -> bool:
        """Whether the cached summary can still be used; one that took long to read lasts longer."""
        cached = self._summaries.get(name)
        if cached is None:
            return False
        return now - cached.read_at < max(max_age_s, min(MAX_AGE_S, PAUSE_FACTOR * cached.took_s))


@dataclass(frozen=True)
class _TimedSummary:
    summary: QueueSummary
    read_at: float  # `time.monotonic`
    took_s: float


def _summarize(queue: WatchedQueue) -> QueueSummary:
    try:
        now = datetime.now(UTC)
        return QueueSummary.from_evidence(gather_evidence(queue, now), queue.mutes.find_active(now))
    except PyMongoError as error:
        reason = queue.probe.check().reason or describe_error(error)
        return QueueSummary(reasons=(f"Not read: {reason}.",))
    except Exception as error:  # the other queues are still listed
        log.error("the queue %s cannot be summarized", queue.name, exc_info=error)
        return QueueSummary(reasons=("Not read: jobmon failed; its log has the reason.",))


def list_queues(summaries: QueueSummaries) -> list[tuple[Settings, QueueSummary | None]]:
    """The queues that the caller may see, or may own jobs in, each with its summary.

    The summary is None without the permission of the queue: then the caller sees only their own
    jobs in it.
    """
    by_name = summaries.get()
    return [
        (queue, by_name[queue.queue] if auth.may_see(queue) else None)
        for queue in all_queues().all_settings()
        if auth.may_know(queue)
    ]


def blueprint(summaries: QueueSummaries) -> Routes:
    """`GET /queues`, for everybody with a valid token."""
    routes = Routes("queues", __name__, access=Access.SIGNED_IN)

    @routes.get("/queues")
    @routes.doc(operationId="listQueues")
    @routes.response(HTTPStatus.OK, QueueList, example=queue_examples.QUEUE_LIST)
    def queues() -> dict[str, Any]:
        """List the watched queues, each with its notices and main statistics.

        Only callers with the permission of a queue see its notices and statistics. For other
        callers the values are null, and queues that are closed to owners are left out.
        """
        return {
            "data": [_format_queue(queue, summary) for queue, summary in list_queues(summaries)]
        }

    return routes


def _format_queue(queue: Settings, summary: QueueSummary | None) -> dict[str, Any]:
    shown = summary or QueueSummary(reasons=(NO_PERMISSION,))
    return {
        "name": queue.queue,
        "environment": queue.environment,
        "isDefault": queue is all_queues().default,
        "level": shown.level,
        "notices": [
            vars(notice) | {"isMuted": is_muted}
            for notices, is_muted in ((shown.notices, False), (shown.muted, True))
            for notice in notices
        ],
        "unchecked": shown.reasons,
        "statusCounts": shown.status_counts,
        "oldestQueuedJobAgeMs": shown.oldest_queued_ms,
        "forecast": shown.forecast,
        "finishedPerMinute": shown.finished_per_minute,
        "failureRate": None if shown.failure_rate is None else round(shown.failure_rate, 4),
        "asOf": shown.as_of,
        "source": shown.source,
    }
