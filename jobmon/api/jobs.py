"""`/jobs`, `/jobs/{job_id}`, `/job` and routes below `/job`: for the owners of jobs and admins."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response
from werkzeug.routing import BaseConverter

from jobmon.api import examples, owner_counts
from jobmon.api.answers import JobDetail, JobList
from jobmon.api.error_links import add_error_groups
from jobmon.api.explaining import dump_explanation, read_explanation
from jobmon.api.job_actions import describe_actions
from jobmon.api.job_lists import ListResponder
from jobmon.api.links import list_links
from jobmon.api.neighbors import (
    NeighborQuery,
    NeighborsAnswer,
    OwnNeighborParameters,
    find_neighbors,
)
from jobmon.api.openapi import Access, Decorator, Routes
from jobmon.api.queries import (
    JobParameters,
    ListQuery,
    OwnListParameters,
)
from jobmon.api.recurring import find_repetition
from jobmon.store.filter import JobFilter
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError
from jobmon.web.queues import current_queue

JOB_ID = {
    "in": "path",
    "name": "job_id",
    "required": True,
    "description": "The job's id as lists print it, percent-encoded; a slash can be sent as `%2F` "
    "or `/`. For the ids `.` and `..`, which clients and proxies remove, use `GET /job`.",
    "schema": {"type": "string", "minLength": 1},
    "example": examples.JOB_DETAIL["jobId"],
}


class RestOfPath(BaseConverter):
    """The rest of a path, unchanged: a job's id may contain slashes and line breaks."""

    regex = r"[\s\S]+"
    part_isolating = False


def blueprint(lists: ListResponder, counter: owner_counts.OwnerJobCounter) -> Routes:
    """The routes of this module, and `GET /job/counts`."""
    routes = Routes("jobs", __name__, access=Access.SIGNED_IN)
    routes.before_request(auth.require_known_queue)
    routes.record(lambda state: state.app.url_map.converters.update(anything=RestOfPath))

    @routes.get("/jobs")
    @routes.doc(operationId="listOwnJobs")
    @routes.arguments(OwnListParameters, location="query")
    @routes.response(HTTPStatus.OK, JobList, example=examples.JOB_LIST)
    @routes.document_files("job", "JobSummary")
    def own_jobs(query: ListQuery) -> Response:
        """List the caller's own jobs.

        Their createdBy is the token's `sub`. A job must match all filters; empty filters are
        ignored. Filters that only `GET /admin/jobs/queue` has return 422. Each field in
        JOBMON_SEARCH_FIELDS is a parameter, too. See `sort` for the order.
        """
        return lists.respond(query.confine_to(auth.subject()))

    def document_job(view: Callable[..., Document]) -> Callable[..., Any]:
        documented_view: Callable[..., Any] = routes.response(
            HTTPStatus.OK, JobDetail, example=examples.JOB_DETAIL
        )(document_access_denied(routes)(view))
        return documented_view

    @routes.get("/jobs/<anything:job_id>", parameters=[JOB_ID])
    @routes.doc(operationId="getJob")
    @document_job
    def job(job_id: str) -> Document:
        """Get a job with its attempts, as its owner or an admin."""
        return get_detailed_job(job_id)

    @routes.get("/job")
    @routes.doc(operationId="getJobByQuery")
    @routes.arguments(JobParameters, location="query")
    @document_job
    def job_by_query(job_id: str) -> Document:
        """Get a job by its id as a query parameter, as its owner or an admin.

        It takes every id, even those that a path cannot hold: `.`, `..` and the empty id.
        """
        return get_detailed_job(job_id)

    @routes.get("/job/neighbors")
    @routes.doc(operationId="getOwnNeighbors")
    @routes.arguments(OwnNeighborParameters, location="query")
    @document_access_denied(routes)
    @routes.response(HTTPStatus.OK, NeighborsAnswer, example=examples.NEIGHBORS)
    def own_neighbors(query: NeighborQuery) -> dict[str, Any]:
        """Get the jobs before and after a job in the list of the caller's own jobs.

        The filters and the order are as in `GET /jobs`. A job that no longer matches the filters
        has neighbors, too.
        """
        own_list = query.list_query.confine_to(auth.subject())
        return find_neighbors(lists, own_list, get_callers_job(query.job_id))

    owner_counts.add_routes(routes, counter)
    return routes


def document_access_denied(routes: Routes) -> Decorator:
    """A decorator for views of one job: documents the answer 403 for a caller without access."""
    description = "There is no such job, or it is another owner's: both have the same answer."
    return routes.document_error(HTTPStatus.FORBIDDEN, "access_denied", description)


def get_detailed_job(job_id: str) -> Document:
    """The job with the fields that `JobDetail` serializes. Raises what `get_callers_job` raises."""
    job, now = get_callers_job(job_id), datetime.now(UTC)
    queue = current_queue()
    explanation = dump_explanation(read_explanation(queue, job, now), now)
    detail = {**job, "explanation": explanation, "links": list_links(queue.settings, job)}
    if queue.actions is not None:
        detail["actions"] = describe_actions(queue, job, now)
    return detail


def require_own_job(job_ids: Collection[str]) -> None:
    """Raise ApiError 403, as `get_callers_job` does, unless the caller owns one of these jobs."""
    if not current_queue().lists.look_up(job_ids, JobFilter(), auth.subject()):
        raise _make_access_error()


def _make_access_error() -> ApiError:
    return ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")


def get_callers_job(job_id: str) -> Document:
    """The job with this id, its error groups and its repetition, if the caller may see it.

    Raises ApiError 403, the same for a job that does not exist and for another owner's job.
    """
    queue, is_admin = current_queue(), auth.is_admin()
    job = queue.jobs.get_job(job_id, owner=None if is_admin else auth.subject())
    if job is None:
        raise _make_access_error()
    job = add_error_groups(queue, job, may_see=is_admin)
    return {**job, "repetition": find_repetition(queue, job)}
