"""`/admin/jobs/…`: the routes of whoever runs the queue."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Response

from jobmon.api import examples
from jobmon.api.jobs import list_of_jobs
from jobmon.api.openapi import Access, Routes
from jobmon.api.schemas import (
    JobList,
    JobStats,
    ListQuery,
    TimeSeries,
    TimeSeriesQuery,
    TypeList,
    WindowQuery,
)
from jobmon.api.shared_response import SharedResponse
from jobmon.rollup.samples import QueueSample
from jobmon.rollup.series import (
    KEEP_ANSWERS,
    Activity,
    Durations,
    History,
    MissingIndexError,
    NoCollectorError,
    SeriesReader,
    TooManyTypesError,
    Window,
)
from jobmon.rollup.stats import StatsReader
from jobmon.rollup.throughput import HOUR, MINUTE
from jobmon.store.known_fields import KnownFields
from jobmon.store.lists import JobLists
from jobmon.store.live_stats import UNCOUNTED
from jobmon.store.stats import QueueStats
from jobmon.web.errors import invalid, unavailable

K = TypeVar("K")


def blueprint(
    lists: JobLists, series: SeriesReader, stats: StatsReader, known_fields: KnownFields
) -> Routes:
    """The routes below `/admin/jobs`; all need ADMIN_DASHBOARD."""
    routes = Routes("admin", __name__, access=Access.ADMIN, url_prefix="/admin/jobs")
    stats_text, series_text = (
        SharedResponse(JobStats(), 1),
        SharedResponse(TimeSeries(), KEEP_ANSWERS),
    )

    @routes.get("/queue")
    @routes.doc(operationId="listJobs")
    @routes.arguments(ListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList, example=examples.JOB_LIST)
    @routes.as_files
    def queue(query: dict[str, Any]) -> dict[str, Any] | Response:
        """All jobs.

        Newest first by createdAt. Filters combine; one that is given but empty is no filter.
        """
        return list_of_jobs(lists, stats, query)

    @routes.get("/stats")
    @routes.doc(operationId="getStats")
    @routes.response(HTTPStatus.OK, JobStats, example=examples.JOB_STATS)
    def queue_stats() -> Response:
        """The figures of the whole queue.

        `asOf` says what moment they are true of, `source` how they were come by.
        """
        current = stats.stats()
        return stats_text.of(current, lambda: _stats(current))

    @routes.get("/timeseries")
    @routes.doc(operationId="getTimeseries")
    @routes.arguments(TimeSeriesQuery, location="query")
    @routes.response(HTTPStatus.OK, TimeSeries, example=examples.SERIES)
    def timeseries(query: dict[str, Any]) -> Response:
        """What happened, step by step: enqueued, attempts by outcome, dead letters, durations.

        From what the collector keeps. Without one counted now, for up to six hours; more is a 503.
        """
        window = _window(series, query)
        types = tuple(sorted({*query["type"]} - {""}))
        past = _told(lambda: series.by_step(window, types))

        def answer() -> dict[str, Any]:
            stood, unknown = {} if types else series.stood(window), known_fields.unknown
            data = [
                {
                    "at": at,
                    **(_NOT_COUNTED if at in past.uncounted else _happened(told, unknown)),
                    **_stood(stood.get(at)),
                }
                for at, told in past.happened.items()
            ]
            return {"meta": _about(window, past), "data": data}

        return series_text.of(past, answer)

    @routes.get("/types")
    @routes.doc(operationId="listTypes")
    @routes.arguments(WindowQuery, location="query")
    @routes.response(HTTPStatus.OK, TypeList, example=examples.TYPE_LIST)
    def types(query: dict[str, Any]) -> dict[str, Any]:
        """Every type of job: its jobs by status now, and what happened to it in a window.

        From what the collector keeps. Without one counted now, for up to six hours; more is a 503.
        """
        window = _window(series, query)
        past, figures = _told(lambda: series.by_type(window)), stats.stats()
        now = figures.type_counts_for(past.happened)
        if now is None:
            now = dict.fromkeys(past.happened)
        minutes = (min(window.end, past.as_of) - window.start) / MINUTE
        nothing, unknown = Activity.of([]), known_fields.unknown
        data = []
        for kind in sorted(now):
            told = past.happened.get(kind, nothing)
            rate = round(told.finished / minutes, 3) if minutes > 0 else 0.0
            data.append(
                {
                    "type": kind,
                    "statusCounts": now[kind],
                    "finishedPerMinute": None if "finishedAt" in unknown else rate,
                    **_happened(told, unknown),
                }
            )
        return {"meta": _about(window, past), "data": data}

    return routes


# The reasons why figures are unknown, under the names that the figures have in an answer.
_UNKNOWN = {
    "oldest_queued": "oldestQueuedJobAgeMs",
    "oldest_queued_by_type": "oldestQueuedJobAgeMsByType",
    "expired_leases": "expiredLeases",
    "eligible": "eligibleJobs",
    "scheduled": "scheduledJobs",
}


def _stats(figures: QueueStats) -> dict[str, Any]:
    health = figures.health
    reasons = {
        _UNKNOWN[name]: reason for name, reason in health.unknown.items() if name in _UNKNOWN
    }
    if figures.counts is None:
        reasons |= dict.fromkeys(("statusCounts", "typeCounts"), UNCOUNTED)
    return {
        "totalJobs": figures.total,
        "statusCounts": figures.status_counts(),
        "typeCounts": figures.type_counts(),
        "oldestQueuedJobAgeMs": figures.oldest_queued_age_ms(),
        "oldestQueuedJobAgeMsByType": {
            kind: figures.age_ms(at) for kind, at in health.oldest_queued_by_type.items()
        },
        "expiredLeases": health.expired_leases,
        "eligibleJobs": health.eligible,
        "scheduledJobs": health.scheduled,
        "estimatedTotalJobs": health.estimated_total,
        "reasons": reasons,
        "asOf": figures.as_of,
        "source": figures.source,
    }


def _window(series: SeriesReader, query: dict[str, Any]) -> Window:
    """The window that a query asks for; 422 if it cannot be told."""
    end = query.get("end") or datetime.now(UTC)
    step = timedelta(seconds=query["step"]) if "step" in query else None
    try:
        return series.window(query.get("start") or end - HOUR, end, step)
    except OverflowError:  # an hour before the first moment, a step after the last
        wrong = "from" if "start" in query else "to"
        raise invalid(wrong, "Too near to the beginning or the end of time.") from None
    except ValueError as error:
        raise invalid("step" if "step" in str(error) else "from", str(error)) from None


def _told(tell: Callable[[], History[K]]) -> History[K]:
    try:
        return tell()
    except MissingIndexError:
        raise unavailable(
            "collector_unavailable", "An index is missing: `jobmon init` creates it."
        ) from None
    except NoCollectorError:
        raise unavailable(
            "collector_unavailable", "Without a collector only a few hours can be told."
        ) from None
    except TooManyTypesError:
        raise invalid("type", "Of so many types no single one is told.") from None


def _about(window: Window, past: History[K]) -> dict[str, Any]:
    return {
        "start": window.start,
        "end": window.end,
        "step": round(window.step.total_seconds()),
        "asOf": past.as_of,
        "source": past.source,
        "complete": past.is_complete,
    }


# A step that no collector has counted yet.
_NOT_COUNTED: dict[str, Any] = dict.fromkeys(
    ("enqueued", "succeeded", "failed", "dlq", "failureRate")
) | dict.fromkeys(("waitMs", "runMs"), Durations.of(Counter()))


def _stood(gauge: QueueSample | None) -> dict[str, Any]:
    return {
        "statusCounts": None if gauge is None else gauge.status_counts,
        "oldestQueuedJobAgeMs": None if gauge is None else gauge.oldest_queued_ms,
    }


def _happened(told: Activity, unknown: frozenset[str]) -> dict[str, Any]:
    ends_unknown = "finishedAt" in unknown
    return {
        "enqueued": None if "createdAt" in unknown else told.enqueued,
        "succeeded": None if ends_unknown else told.succeeded,
        "failed": None if ends_unknown else told.failed,
        "dlq": None if ends_unknown else told.dlq,
        "failureRate": round(told.failed / told.finished, 4) if told.finished else None,
        "waitMs": told.wait,
        "runMs": told.run,
    }
