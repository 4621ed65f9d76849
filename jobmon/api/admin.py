"""`/admin/jobs/…`: the routes of whoever runs the queue."""

from http import HTTPStatus
from typing import Any

from flask_smorest import Blueprint

from jobmon.api import auth, ratelimit
from jobmon.api.jobs import page_of_jobs
from jobmon.api.schemas import JobList, JobStats, ListQuery
from jobmon.store.jobs import JobStore


def blueprint(store: JobStore) -> Blueprint:
    """The routes below `/admin/jobs`; all need ADMIN_DASHBOARD."""
    routes = Blueprint("admin", __name__, url_prefix="/admin/jobs")
    routes.before_request(auth.require_admin)
    routes.before_request(ratelimit.check)

    @routes.get("/queue")
    @routes.arguments(ListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList)
    def queue(query: dict[str, Any]) -> dict[str, Any]:
        """All jobs, newest first."""
        return page_of_jobs(store, query)

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

    return routes
