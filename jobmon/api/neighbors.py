"""The jobs before and after a job in a list: for the JSON routes and for the page of the job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import fields, post_load

from jobmon.api.answers import Answer, mapping, string
from jobmon.api.fields import clean_text, describe
from jobmon.api.job_lists import ListResponder
from jobmon.api.queries import AdminFilters, FilterParameters, ListQuery, OwnFilters
from jobmon.store.mapping import Document

NO_ID = "the job at this place has no id"


@dataclass(frozen=True, kw_only=True)
class NeighborQuery:
    """A request for the jobs before and after the job `job_id` in the list of `list_query`."""

    job_id: str
    list_query: ListQuery


class _NeighborParameters(FilterParameters):
    """A job, and the filters and the order of a list."""

    id = fields.String(required=True, **describe("The job's id, as lists print it."))

    @post_load(pass_original=True)
    def _make_query(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> Any:
        list_query = super()._make_query(query, sent)
        return NeighborQuery(job_id=query["id"], list_query=list_query)


class NeighborParameters(AdminFilters, _NeighborParameters):
    """A job, and the filters and the order of a list of all jobs."""


class OwnNeighborParameters(OwnFilters, _NeighborParameters):
    """A job, and the filters and the order of a list of the caller's own jobs."""


class NeighborsAnswer(Answer):
    """The jobs before and after a job in a list."""

    previousJobId = string("Id of the previous job; null if none is known.", nullable=True)
    nextJobId = string("Id of the next job; null if none is known.", nullable=True)
    reasons = mapping(fields.String(), "By field name: why it is null, if there may be a job.")


def find_neighbors(lists: ListResponder, query: ListQuery, job: Document) -> dict[str, Any]:
    """The fields of a `NeighborsAnswer` about a job's document; raises ApiError 422 or 503."""
    neighbors = lists.find_neighbors(query, job)
    ids, reasons = {}, {}
    for name, neighbor in (("previousJobId", neighbors.previous), ("nextJobId", neighbors.next)):
        ids[name] = None if neighbor is None else clean_text(neighbor.get("jobId"))
        reason = NO_ID if neighbor is not None and ids[name] is None else neighbors.reason
        if reason:
            reasons[name] = reason
    return {**ids, "reasons": reasons}
