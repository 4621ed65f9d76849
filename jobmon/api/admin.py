"""`/admin/jobs/…`: the routes for operators of the queue."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Response

from jobmon.api import (
    error_groups,
    examples,
    mutes,
    queue_examples,
    recurring,
    schedule,
    slowest,
    suggestions,
    workers,
)
from jobmon.api.answers import JobList
from jobmon.api.job_lists import ListResponder
from jobmon.api.jobs import document_access_denied, get_callers_job
from jobmon.api.neighbors import (
    NeighborParameters,
    NeighborQuery,
    NeighborsAnswer,
    find_neighbors,
)
from jobmon.api.openapi import Access, Routes
from jobmon.api.queries import ListParameters, ListQuery
from jobmon.api.queue_answers import JobStats, TimeSeries, TypeList
from jobmon.api.shared_response import SharedResponse
from jobmon.api.window_queries import TimeSeriesParameters, WindowParameters, WindowQuery
from jobmon.api.windows import (
    explain_history_errors,
    explain_untyped_runs,
    format_window,
    resolve_window,
)
from jobmon.diagnosis.evidence import NOT_COUNTED
from jobmon.diagnosis.evidence_reader import read_forecast, read_type_forecasts
from jobmon.rollup.buckets import MINUTE, QueueSample
from jobmon.rollup.series import MAX_CACHED_ANSWERS, Activity, Durations, History
from jobmon.rollup.windows import Window
from jobmon.store.live_stats import UNCOUNTED
from jobmon.store.stats import QueueStats
from jobmon.web.queues import WatchedQueue, current_queue

K = TypeVar("K")


def blueprint(
    lists: ListResponder, worker_reader: workers.WorkerReader, queue_count: int
) -> Routes:
    """The routes below `/admin/jobs`; all need the permission of the queue.

    Some caches have an entry for each queue: `queue_count` is their size.
    """
    routes = Routes("admin", __name__, access=Access.ADMIN, url_prefix="/admin/jobs")
    stats_response = SharedResponse(JobStats.shared(), queue_count)
    series_response = SharedResponse(TimeSeries.shared(), MAX_CACHED_ANSWERS)
    types_response = SharedResponse(TypeList.shared(), MAX_CACHED_ANSWERS)

    @routes.get("/queue")
    @routes.doc(operationId="listJobs")
    @routes.arguments(ListParameters, location="query")
    @routes.response(HTTPStatus.OK, JobList, example=examples.JOB_LIST)
    @routes.document_files("job", "JobSummary")
    def jobs(query: ListQuery) -> Response:
        """List all jobs.

        A job must match all filters; empty filters are ignored. Each field in JOBMON_SEARCH_FIELDS
        is a parameter, too: `payload.orderId=8425`. See `sort` for the order.
        """
        return lists.respond(query)

    @routes.get("/neighbors")
    @routes.doc(operationId="getNeighbors")
    @routes.arguments(NeighborParameters, location="query")
    @document_access_denied(routes)
    @routes.response(HTTPStatus.OK, NeighborsAnswer, example=examples.NEIGHBORS)
    def neighbors(query: NeighborQuery) -> dict[str, Any]:
        """Get the jobs before and after a job in the list of all jobs.

        The filters and the order are as in `GET /admin/jobs/queue`. A job that no longer matches
        the filters has neighbors, too.
        """
        return find_neighbors(lists, query.list_query, get_callers_job(query.job_id))

    @routes.get("/stats")
    @routes.doc(operationId="getStats")
    @routes.response(HTTPStatus.OK, JobStats, example=queue_examples.JOB_STATS)
    def queue_stats() -> Response:
        """Get statistics of the whole queue.

        `asOf` is the time that the statistics describe, `source` is how the jobs were counted.
        """
        queue = current_queue()
        stats = queue.stats.stats()
        return stats_response.respond(
            stats,
            lambda: _format_stats(stats) | {"forecast": read_forecast(queue, stats)},
        )

    @routes.get("/timeseries")
    @routes.doc(operationId="getTimeSeries")
    @routes.arguments(TimeSeriesParameters, location="query")
    @routes.response(HTTPStatus.OK, TimeSeries, example=queue_examples.SERIES)
    def timeseries(query: WindowQuery) -> Response:
        """Get the activity of the queue by step: jobs enqueued, attempts by outcome, durations.

        `meta.marks` has the deployments and other events that `jobmon mark` recorded. The activity
        is from the collector's history. Without a collector, windows of up to six hours are counted
        live; for longer windows the answer is 503.
        """
        queue = current_queue()
        series, window = queue.series, resolve_window(queue.series, query)
        with explain_history_errors():
            history = series.history_by_step(window, query.types)
        marks = queue.marks.find(window.start, window.end)

        def make_answer() -> dict[str, Any]:
            samples = {} if query.types else series.samples(window)
            meta = _format_meta(window, history) | {
                "marks": marks and marks.shown,
                "omitted_marks": marks and marks.omitted,
            }
            data = _format_steps(history, samples, queue.known_fields.unknown)
            return {"meta": meta, "data": data}

        return series_response.respond(history, make_answer, marks)

    @routes.get("/types")
    @routes.doc(operationId="listTypes")
    @routes.arguments(WindowParameters, location="query")
    @routes.response(HTTPStatus.OK, TypeList, example=queue_examples.TYPE_LIST)
    def types(query: WindowQuery) -> Response:
        """List the types of jobs, each with its jobs by status now and its activity in a window.

        The activity is from the collector's history. Without a collector, windows of up to six
        hours are counted live; for longer windows the answer is 503.
        """
        queue = current_queue()
        window = resolve_window(queue.series, query)
        with explain_history_errors():
            history = queue.series.history_by_type(window)
        stats = queue.stats.stats()

        def make_answer() -> dict[str, Any]:
            data = _format_types(queue, window, history, stats)
            meta = _format_meta(window, history)
            if stats.counts is None:
                meta["reasons"]["statusCounts"] = UNCOUNTED
            if reason := explain_untyped_runs(history, stats):
                meta["reasons"]["type"] = reason
            return {"meta": meta, "data": data}

        return types_response.respond(history, make_answer, stats.as_of)

    error_groups.add_routes(routes)
    schedule.add_routes(routes, queue_count)
    recurring.add_routes(routes)
    mutes.add_routes(routes)
    slowest.add_routes(routes)
    suggestions.add_routes(routes)
    workers.add_routes(routes, worker_reader)
    return routes


# The fields of `QueueHealth` that may be unknown, each with its field in the answer.
_ANSWER_FIELDS = {
    "oldest_queued": "oldestQueuedJobAgeMs",
    "oldest_queued_by_type": "oldestQueuedJobAgeMsByType",
    "expired_leases": "expiredLeases",
    "due": "dueJobs",
    "scheduled": "scheduledJobs",
}


def _format_stats(stats: QueueStats) -> dict[str, Any]:
    health = stats.health
    reasons = {
        _ANSWER_FIELDS[name]: reason
        for name, reason in health.unknown.items()
        if name in _ANSWER_FIELDS
    }
    if stats.counts is None:
        unknown = ("statusCounts", "typeCounts", _ANSWER_FIELDS["oldest_queued_by_type"])
        reasons |= dict.fromkeys(unknown, UNCOUNTED)
    return {
        "totalJobs": stats.total,
        "statusCounts": stats.status_counts(),
        "typeCounts": stats.type_counts(),
        "oldestQueuedJobAgeMs": stats.oldest_queued_age_ms(),
        "oldestQueuedJobAgeMsByType": {
            job_type: stats.age_ms(created_at)
            for job_type, created_at in health.oldest_queued_by_type.items()
        },
        "expiredLeases": health.expired_leases,
        "dueJobs": health.due,
        "scheduledJobs": health.scheduled,
        "estimatedTotalJobs": health.estimated_total,
        "reasons": reasons,
        "asOf": stats.as_of,
        "source": stats.source,
    }


def _format_steps(
    history: History[datetime],
    samples: Mapping[datetime, QueueSample],
    unknown: frozenset[str],
) -> list[dict[str, Any]]:
    return [
        {
            "at": start,
            **(
                _UNKNOWN_ACTIVITY
                if start in history.uncounted
                else _format_activity(activity, unknown)
            ),
            **_format_sample(samples.get(start)),
        }
        for start, activity in history.activity.items()
    ]


def _format_types(
    queue: WatchedQueue, window: Window, history: History[str], stats: QueueStats
) -> list[dict[str, Any]]:
    """The fields of each `TypeStats`, in the order of the types' names."""
    forecasts = read_type_forecasts(queue, stats)
    counts = stats.type_counts_for(history.activity)
    if counts is None:
        counts = dict.fromkeys(history.activity)
    minutes = (min(window.end, history.as_of) - window.start) / MINUTE
    no_activity, unknown = Activity.from_tallies([]), queue.known_fields.unknown
    data = []
    for job_type in sorted(counts):
        activity = history.activity.get(job_type, no_activity)
        rate = round(activity.finished / minutes, 3) if minutes > 0 else None
        data.append(
            {
                "type": job_type,
                "forecast": forecasts.get(job_type),
                "statusCounts": counts[job_type],
                "finishedPerMinute": None if "finishedAt" in unknown else rate,
                **(_UNKNOWN_ACTIVITY if history.is_ahead else _format_activity(activity, unknown)),
            }
        )
    return data


def _format_meta(window: Window, history: History[Any]) -> dict[str, Any]:
    reasons = {"data": NOT_COUNTED.reason} if history.is_ahead else {}
    return format_window(window, history) | {"source": history.source, "reasons": reasons}


# The fields of the activity in a time that is not counted yet.
_UNKNOWN_ACTIVITY: dict[str, Any] = dict.fromkeys(
    ("enqueued", "succeeded", "failed", "dlq", "failureRate")
) | dict.fromkeys(("waitMs", "runMs"), Durations.from_histogram(Counter()))


def _format_sample(sample: QueueSample | None) -> dict[str, Any]:
    return {
        "statusCounts": None if sample is None else sample.status_counts,
        "oldestQueuedJobAgeMs": None if sample is None else sample.oldest_queued_ms,
    }


def _format_activity(activity: Activity, unknown: frozenset[str]) -> dict[str, Any]:
    """The fields of an `Activity`; a count is None if the documents lack the date for it."""
    rate = None if "finishedAt" in unknown else activity.failure_rate
    return {
        **activity.known_counts(unknown),
        "failureRate": None if rate is None else round(rate, 4),
        "waitMs": activity.wait,
        "runMs": activity.run,
    }
