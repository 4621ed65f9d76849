"""`GET /jobs/{jobId}` and `GET /jobs`: the routes of whoever started a job."""

import math
from http import HTTPStatus
from typing import Any

from flask import Response

from jobmon.api import auth, examples
from jobmon.api.errors import ApiError, invalid
from jobmon.api.export import export
from jobmon.api.openapi import Access, Routes
from jobmon.api.schemas import Error, JobDetail, JobList, OwnListQuery
from jobmon.store.jobs import JobStore
from jobmon.store.lists import (
    MAX_ID_MATCHES,
    JobFilter,
    JobLists,
    NotKeptByCodeError,
    TooManyMatchesError,
)
from jobmon.store.names import Document
from jobmon.store.ordering import Place

OLDEST_FIRST = "createdAt"
JOB_ID = {
    "in": "path",
    "name": "job_id",
    "required": True,
    "description": "The job's public id. One with a slash is no path here: 404.",
    "schema": {"type": "string", "minLength": 1},
    "example": examples.JOB_DETAIL["jobId"],
}


def blueprint(store: JobStore, lists: JobLists) -> Routes:
    """The routes below `/jobs`."""
    routes = Routes("jobs", __name__, access=Access.SIGNED_IN, url_prefix="/jobs")

    @routes.get("")
    @routes.doc(operationId="listOwnJobs")
    @routes.arguments(OwnListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList, example=examples.JOB_LIST)
    @routes.as_files
    def own_jobs(query: dict[str, Any]) -> dict[str, Any] | Response:
        """The caller's own jobs.

        Those whose createdBy is the token's `sub`; newest first by createdAt. Filters combine; one
        that is given but empty is no filter. `owner` and `error_code` are a 422: admins have them.
        """
        return list_of_jobs(lists, query, owner=auth.subject())

    @routes.get("/<job_id>", parameters=[JOB_ID])
    @routes.doc(operationId="getJob")
    @routes.response(HTTPStatus.OK, JobDetail, example=examples.JOB_DETAIL)
    @routes.alt_response(HTTPStatus.NOT_FOUND, "NOT_FOUND")
    @routes.alt_response(
        HTTPStatus.FORBIDDEN,
        schema=Error,
        description="No such job, or not the caller's: the same answer for both.",
        example=examples.ERRORS["access_denied"],
    )
    def job(job_id: str) -> Document:
        """One job with its attempts, for its owner or an admin."""
        found = store.get_job(job_id, owner=None if auth.is_admin() else auth.subject())
        if found is None:
            raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")
        return found

    return routes


def list_of_jobs(
    lists: JobLists, query: dict[str, Any], owner: str | None = None
) -> dict[str, Any] | Response:
    """What a `ListQuery` asks for: a page as a `JobList`, or everything as a file.

    422 for a filter that matches too much or that no field serves, or a cursor that is none; 429
    for one export too many.
    """
    try:
        if query["format"] == "json":
            return page_of_jobs(lists, query, owner)
        wanted = filter_of(query, owner)
        oldest_first = query["sort"] == OLDEST_FIRST
        return export(lists.batches(wanted, oldest_first=oldest_first), query["format"])
    except NotKeptByCodeError:
        raise invalid("error_code", "The watched documents keep no code to look for.") from None
    except TooManyMatchesError:
        raise invalid(
            "job_id", f"Matches more than {MAX_ID_MATCHES:,} jobs: give more of the id."
        ) from None


def page_of_jobs(
    lists: JobLists, query: dict[str, Any], owner: str | None = None
) -> dict[str, Any]:
    """The page that a `ListQuery` asks for, as a `JobList`; TooManyMatchesError, 422 for a cursor.

    `owner` is whose jobs a caller is confined to.
    """
    oldest_first = query["sort"] == OLDEST_FIRST
    page = lists.page(
        filter_of(query, owner),
        page=query["page"],
        per_page=query["per_page"],
        oldest_first=oldest_first,
        place=_place(query["cursor"], oldest_first=oldest_first),
    )
    meta = {
        "page": page.page,
        "per_page": query["per_page"],
        "total": page.total,
        "total_is_exact": page.total_is_exact,
        "total_pages": math.ceil(page.total / query["per_page"]),
        "next_cursor": page.next_place.token() if page.next_place else None,
        "prev_cursor": page.prev_place.token() if page.prev_place else None,
    }
    return {"meta": meta, "data": page.jobs}


def filter_of(query: dict[str, Any], owner: str | None) -> JobFilter:
    """The jobs that a `ListQuery` asks for; of those of `owner` only, if one is given."""
    return JobFilter(
        statuses=query["status"],
        types=query["type"],
        owner=query["owner"] if owner is None else owner,
        created_from=query["created_from"],
        created_to=query["created_to"],
        error_code=query["error_code"],
        job_id=query["job_id"],
    )


def _place(cursor: str, *, oldest_first: bool) -> Place | None:
    try:
        place = Place.from_token(cursor) if cursor else None
    except ValueError:
        raise invalid("cursor", "Not a cursor that a list has given.") from None
    if place is not None and place.oldest_first != oldest_first:
        raise invalid("cursor", "Given by a list in another order: see sort.")
    return place
