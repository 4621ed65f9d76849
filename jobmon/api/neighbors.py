"""The jobs before and after a job in a list: for the JSON routes and for the page of the job."""

from typing import Any

from marshmallow import fields

from jobmon.api.answers import Answer, mapping, string
from jobmon.api.fields import clean_text
from jobmon.api.job_lists import ListResponder
from jobmon.api.queries import ListQuery
from jobmon.store.mapping import Document

NO_ID = "the job there has no id"


class NeighborsAnswer(Answer):
    """The jobs before and after a job in a list."""

    previousJobId = string("Id of the job before it; null if it is the first.", nullable=True)
    nextJobId = string("Id of the job after it; null if it is the last.", nullable=True)
    reasons = mapping(fields.String(), "By field name: why it is null although there may be one.")


def find_neighbors(lists: ListResponder, query: ListQuery, job: Document) -> dict[str, Any]:
    """The fields of a `NeighborsAnswer` about a job, as the store reads it; raises ApiError 422."""
    found = lists.find_neighbors(query, job)
    ids, reasons = {}, {}
    for name, neighbor in (("previousJobId", found.previous), ("nextJobId", found.next)):
        ids[name] = None if neighbor is None else clean_text(neighbor.get("jobId"))
        reason = NO_ID if neighbor is not None and ids[name] is None else found.reason
        if reason:
            reasons[name] = reason
    return {**ids, "reasons": reasons}
