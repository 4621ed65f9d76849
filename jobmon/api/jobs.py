"""`GET /jobs/{jobId}` and `GET /jobs`: the routes of whoever started a job."""

import math
from http import HTTPStatus
from typing import Any

from flask_smorest import Blueprint

from jobmon.api import auth, ratelimit
from jobmon.api.errors import ApiError, invalid
from jobmon.api.schemas import JobDetail, JobList, ListQuery
from jobmon.store.connection import Document
from jobmon.store.jobs import JobFilter, JobStore
from jobmon.store.ordering import Place


def blueprint(store: JobStore) -> Blueprint:
    """The routes below `/jobs`."""
    routes = Blueprint("jobs", __name__, url_prefix="/jobs")
    routes.before_request(auth.require_token)
    routes.before_request(ratelimit.check)

    @routes.get("")
    @routes.arguments(ListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList)
    def own_jobs(query: dict[str, Any]) -> dict[str, Any]:
        """The caller's own jobs, newest first."""
        return page_of_jobs(store, query, owner=auth.subject())

    @routes.get("/<job_id>")
    @routes.response(HTTPStatus.OK, JobDetail)
    def job(job_id: str) -> Document:
        """One job with its attempts, for its owner or an admin."""
        found = store.get_job(job_id, owner=None if auth.is_admin() else auth.subject())
        if found is None:
            raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")
        return found

    return routes


def page_of_jobs(
    store: JobStore, query: dict[str, Any], owner: str | None = None
) -> dict[str, Any]:
    """The page that a `ListQuery` asks for, as a `JobList`; 422 for a cursor that is none."""
    wanted = JobFilter(statuses=query["status"], types=query["type"], owner=owner)
    page = store.list_jobs(
        wanted, page=query["page"], per_page=query["per_page"], place=_place(query["cursor"])
    )
    meta = {
        "page": page.page,
        "per_page": query["per_page"],
        "total": page.total,
        "total_pages": math.ceil(page.total / query["per_page"]),
        "next_cursor": page.next_place.token() if page.next_place else None,
    }
    return {"meta": meta, "data": page.jobs}


def _place(cursor: str) -> Place | None:
    try:
        return Place.from_token(cursor) if cursor else None
    except ValueError:
        raise invalid("cursor", "Not a cursor that a list has given.") from None
