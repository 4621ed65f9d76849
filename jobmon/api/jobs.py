"""`GET /jobs/{jobId}` and `GET /jobs`: the routes of whoever started a job."""

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response
from werkzeug.routing import BaseConverter

from jobmon.api import examples
from jobmon.api.export import export
from jobmon.api.openapi import Access, Routes
from jobmon.api.schemas import Error, JobDetail, JobList, JobQuery, OwnListQuery
from jobmon.domain import JobCondition
from jobmon.rollup.stats import StatsReader
from jobmon.store.cursor import Cursor
from jobmon.store.filter import (
    MAX_ID_MATCHES,
    DateNotKeptError,
    JobFilter,
    NotKeptByCodeError,
    TooManyMatchesError,
)
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError, invalid

OLDEST_FIRST = "createdAt"
JOB_ID = {
    "in": "path",
    "name": "job_id",
    "required": True,
    "description": "The job's id as lists print it, percent-encoded; a slash may be `%2F` or `/`. "
    "Clients and proxies drop `.` and `..` from a path: such an id takes `GET /job`.",
    "schema": {"type": "string", "minLength": 1},
    "example": examples.JOB_DETAIL["jobId"],
}


class RestOfPath(BaseConverter):
    """The rest of a path, unchanged: a job's id may contain slashes and line breaks."""

    regex = r"[\s\S]+"
    part_isolating = False


def blueprint(store: JobStore, lists: JobLists, stats: StatsReader) -> Routes:
    """`/jobs`, a job below it, and `/job` for ids that no path can hold."""
    routes = Routes("jobs", __name__, access=Access.SIGNED_IN)
    routes.record(lambda state: state.app.url_map.converters.update(anything=RestOfPath))

    @routes.get("/jobs")
    @routes.doc(operationId="listOwnJobs")
    @routes.arguments(OwnListQuery, location="query")
    @routes.response(HTTPStatus.OK, JobList, example=examples.JOB_LIST)
    @routes.as_files
    def own_jobs(query: dict[str, Any]) -> dict[str, Any] | Response:
        """The caller's own jobs.

        Those whose createdBy is the token's `sub`; newest first by createdAt. Filters combine; one
        that is given but empty is no filter. `owner` and `error_code` are a 422: admins have them.
        """
        return list_of_jobs(lists, stats, query, owner=auth.subject())

    def answers_a_job(view: Callable[..., Document]) -> Callable[..., Any]:
        view = routes.alt_response(
            HTTPStatus.FORBIDDEN,
            schema=Error,
            description="No such job, or not the caller's: the same answer for both.",
            example=examples.ERRORS["access_denied"],
        )(view)
        answered: Callable[..., Any] = routes.response(
            HTTPStatus.OK, JobDetail, example=examples.JOB_DETAIL
        )(view)
        return answered

    @routes.get("/jobs/<anything:job_id>", parameters=[JOB_ID])
    @routes.doc(operationId="getJob")
    @answers_a_job
    def job(job_id: str) -> Document:
        """One job with its attempts, for its owner or an admin."""
        return job_of_caller(store, job_id)

    @routes.get("/job")
    @routes.doc(operationId="getJobByQuery")
    @routes.arguments(JobQuery, location="query")
    @answers_a_job
    def job_by_query(query: dict[str, Any]) -> Document:
        """The same for an id that a path cannot hold: `.`, `..` or the empty one.

        Any other id opens here, too, whatever a proxy does to paths.
        """
        return job_of_caller(store, query["id"])

    return routes


def job_of_caller(store: JobStore, job_id: str) -> Document:
    """The job with this id if the caller may see it; ApiError 403, the same if there is none."""
    found = store.get_job(job_id, owner=None if auth.is_admin() else auth.subject())
    if found is None:
        raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")
    return found


def list_of_jobs(
    lists: JobLists, stats: StatsReader, query: dict[str, Any], owner: str | None = None
) -> dict[str, Any] | Response:
    """What a `ListQuery` asks for: a page as a `JobList`, or everything as a file.

    422 for a filter that matches too much or that no field serves, or a cursor that is none; 429
    for one export too many.
    """
    try:
        if query["format"] == "json":
            return page_of_jobs(lists, stats, query, owner)
        wanted = filter_of(query, owner)
        oldest_first = query["sort"] == OLDEST_FIRST
        return export(lists.batches(wanted, oldest_first=oldest_first), query["format"])
    except NotKeptByCodeError:
        raise invalid("error_code", "The watched documents keep no code to look for.") from None
    except DateNotKeptError as error:
        raise invalid(error.parameter, "The watched documents do not keep that date.") from None
    except TooManyMatchesError:
        raise invalid(
            "job_id", f"Matches more than {MAX_ID_MATCHES:,} jobs: give more of the id."
        ) from None


def page_of_jobs(
    lists: JobLists, stats: StatsReader, query: dict[str, Any], owner: str | None = None
) -> dict[str, Any]:
    """The page that a `ListQuery` asks for, as a `JobList`; TooManyMatchesError, 422 for a cursor.

    `owner` is whose jobs a caller is confined to.
    """
    oldest_first = query["sort"] == OLDEST_FIRST
    job_filter = filter_of(query, owner)
    total = stats.count(job_filter)
    page = lists.page(
        job_filter,
        page=query["page"],
        per_page=query["per_page"],
        oldest_first=oldest_first,
        cursor=_place(query["cursor"], oldest_first=oldest_first),
        total=total,
    )
    meta = {
        "page": page.page,
        "per_page": query["per_page"],
        "total": total.value,
        "total_is_exact": total.is_exact,
        "total_pages": math.ceil(total.value / query["per_page"]),
        "next_cursor": page.next_cursor.token() if page.next_cursor else None,
        "prev_cursor": page.prev_cursor.token() if page.prev_cursor else None,
    }
    return {"meta": meta, "data": page.jobs}


def filter_of(query: dict[str, Any], owner: str | None) -> JobFilter:
    """The jobs that a `ListQuery` asks for; of those of `owner` only, if one is given."""
    condition = query.get("condition")
    return JobFilter(
        statuses=query["status"],
        types=query["type"],
        owner=query["owner"] if owner is None else owner,
        created_from=query["created_from"],
        created_to=query["created_to"],
        error_code=query["error_code"],
        job_id=query["job_id"],
        condition=JobCondition(condition) if condition else None,
        finished_from=query.get("finished_from"),
    )


def _place(cursor: str, *, oldest_first: bool) -> Cursor | None:
    try:
        place = Cursor.decode(cursor) if cursor else None
    except ValueError:
        raise invalid("cursor", "Not a cursor that a list has given.") from None
    if place is not None and place.oldest_first != oldest_first:
        raise invalid("cursor", "Given by a list in another order: see sort.")
    return place
