"""`/admin/jobs/…`: the routes of whoever runs the queue."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_smorest import Blueprint

from jobmon.api import auth, ratelimit
from jobmon.api.errors import invalid, unavailable
from jobmon.api.jobs import list_of_jobs
from jobmon.api.schemas import (
    JobList,
    JobStats,
    ListQuery,
    Series,
    SeriesQuery,
    TypeList,
    WindowQuery,
)
from jobmon.domain import AttemptStatus
from jobmon.rollup.histogram import Histogram, percentiles
from jobmon.rollup.series import NoCollectorError, Past, SeriesReader, Window
from jobmon.rollup.throughput import HOUR, MINUTE, Tally, merge
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobLists


def blueprint(store: JobStore, lists: JobLists, series: SeriesReader) -> Blueprint:
    """The routes below `/admin/jobs`; all need ADMIN_DASHBOARD."""
    routes = Blueprint("admin", __name__, url_prefix="/admin/jobs")
    routes.before_request(auth.require_admin)
    routes.before_request(ratelimit.check)

    @routes.get("/queue")
    @routes.arguments(ListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList)
    def queue(query: dict[str, Any]) -> dict[str, Any] | Response:
        """All jobs."""
        return list_of_jobs(lists, query)

    @routes.get("/stats")
    @routes.response(HTTPStatus.OK, JobStats)
    def stats() -> dict[str, Any]:
        """The figures of the whole queue."""
        figures = store.figures()
        conditions = figures.conditions
        return {
            "totalJobs": figures.total,
            "statusCounts": figures.status_counts(),
            "typeCounts": figures.type_counts(),
            "oldestQueuedJobAgeMs": figures.age_ms(conditions.oldest_queued),
            "oldestQueuedJobAgeMsByType": {
                kind: figures.age_ms(at) for kind, at in conditions.oldest_queued_by_type.items()
            },
            "expiredLeases": conditions.expired_leases,
            "eligibleJobs": conditions.eligible,
            "scheduledJobs": conditions.scheduled,
            "estimatedTotalJobs": conditions.estimated_total,
            "asOf": figures.as_of,
            "source": figures.source,
        }

    @routes.get("/timeseries")
    @routes.arguments(SeriesQuery, location="query")
    @routes.response(HTTPStatus.OK, Series)
    def timeseries(query: dict[str, Any]) -> dict[str, Any]:
        """What happened, step by step: enqueued, attempts by outcome, dead letters, durations."""
        window, past = _past(series, query)
        wanted = [kind for kind in query["type"] if kind]
        data = []
        for at, tallies in past.steps.items():
            total = Tally()
            for kind, counted in tallies.items():
                if not wanted or kind in wanted:
                    total.add(counted)
            data.append({"at": at, **_happened(total)})
        return {"meta": _about(window, past), "data": data}

    @routes.get("/types")
    @routes.arguments(WindowQuery, location="query")
    @routes.response(HTTPStatus.OK, TypeList)
    def types(query: dict[str, Any]) -> dict[str, Any]:
        """Every type of job: its jobs by status now, and what happened to it in a window."""
        window, past = _past(series, query)
        by_type = merge(iter(past.steps.values()))
        now = store.figures().type_counts()
        minutes = (min(window.end, past.as_of) - window.start) / MINUTE
        data = []
        for kind in sorted({*by_type, *(now or {})}):
            counted = by_type.get(kind, Tally())
            finished = counted.outcomes.total()
            data.append(
                {
                    "type": kind,
                    "statusCounts": None if now is None else now.get(kind, {}),
                    "finishedPerMinute": round(finished / minutes, 3) if minutes > 0 else 0.0,
                    **_happened(counted),
                }
            )
        return {"meta": _about(window, past), "data": data}

    return routes


def _past(series: SeriesReader, query: dict[str, Any]) -> tuple[Window, Past]:
    """The window that a query asks for and what happened in it; 422 if it cannot be told."""
    end = query.get("end") or datetime.now(UTC)
    start = query.get("start") or end - HOUR
    step = timedelta(seconds=query["step"]) if "step" in query else None
    try:
        window = series.window(start, end, step)
    except (ValueError, OverflowError) as error:
        raise invalid("step" if "step" in str(error) else "from", str(error)) from None
    try:
        return window, series.past(window)
    except NoCollectorError:
        raise unavailable(
            "collector_unavailable", "Without a collector only a few hours can be told."
        ) from None


def _about(window: Window, past: Past) -> dict[str, Any]:
    return {
        "start": window.start,
        "end": window.end,
        "step": round(window.step.total_seconds()),
        "asOf": past.as_of,
        "source": past.source,
    }


def _happened(counted: Tally) -> dict[str, Any]:
    succeeded = counted.outcomes[AttemptStatus.SUCCEEDED]
    finished = counted.outcomes.total()
    return {
        "enqueued": counted.enqueued,
        "succeeded": succeeded,
        "failed": finished - succeeded,
        "dlq": counted.dlq,
        "failureRate": round((finished - succeeded) / finished, 4) if finished else None,
        "waitMs": _percentiles(counted.wait),
        "runMs": _percentiles(counted.run),
    }


def _percentiles(histogram: Histogram) -> dict[str, int | None]:
    told = percentiles(histogram, (0.5, 0.95, 0.99))
    return dict(zip(("p50", "p95", "p99"), told, strict=True))
