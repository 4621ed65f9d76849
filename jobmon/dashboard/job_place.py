"""The list from which the viewer opened a job: its address, and the jobs before and after."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from flask import request
from marshmallow import ValidationError
from pymongo.errors import PyMongoError

from jobmon.api.job_lists import ListResponder
from jobmon.api.neighbors import find_neighbors
from jobmon.dashboard.list_form import read_parameters
from jobmon.dashboard.list_pages import load_query
from jobmon.page_addresses import job_address, query
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError

log = logging.getLogger(__name__)

# The parameter with the name of the list; it is missing if the job was not opened from a list.
_LIST = "list"
_OWN_LIST = "my"
_PAGE_PARAMETERS = ("page", "per_page", "cursor", "format")


@dataclass(frozen=True, kw_only=True)
class PlaceInList:
    """The name and address of a list, and the addresses of the jobs before and after a job.

    Addresses are relative to the path of the queue. `previous` and `next` are None if there is no
    such job, or if it is unknown.
    """

    name: str
    address: str
    previous: str | None = None
    next: str | None = None


def find_place(lists: ListResponder, job: Document) -> PlaceInList:
    """The place of a job from the store, in the list that this request's address names.

    If it names no list, the place is in the list of all jobs or own jobs, without neighbors.
    """
    filters = {
        name: value
        for name, value in read_parameters().items()
        if value and name not in _PAGE_PARAMETERS
    }
    list_name = request.args.get(_LIST)
    is_own = list_name == _OWN_LIST or not auth.is_admin()
    path, name = ("/dashboard/my", "My jobs") if is_own else ("/dashboard/jobs", "Jobs")
    place = PlaceInList(
        name=f"{name} (filtered)" if filters else name, address=path + query(**filters)
    )
    if list_name is None:
        return place
    neighbor_ids = _find_neighbors(lists, job, filters, auth.subject() if is_own else None)
    previous_address, next_address = (
        None if job_id is None else job_address(job_id, **{_LIST: list_name}, **filters)
        for job_id in neighbor_ids
    )
    return replace(place, previous=previous_address, next=next_address)


def _find_neighbors(
    lists: ListResponder, job: Document, filters: dict[str, Any], owner: str | None
) -> tuple[str | None, str | None]:
    """The ids of the jobs before and after a job; None if there is no such job, or unknown."""
    try:
        list_query = load_query({"status": [], "type": [], **filters}, owner)
        neighbors = find_neighbors(lists, list_query, job)
    except (ValidationError, ApiError):  # the list is refused, or needs a collector
        return None, None
    except PyMongoError as error:  # then the page has no links to neighbors
        log.warning("the jobs before and after a job were not read: %s", describe_error(error))
        return None, None
    return neighbors["previousJobId"], neighbors["nextJobId"]
