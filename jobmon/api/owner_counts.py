"""Counts the jobs of an owner by status, for the JSON route and for the tabs of the list."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from marshmallow import ValidationError, fields, post_load, validates_schema

from jobmon.api import queue_examples
from jobmon.api.answers import Answer, integer, mapping
from jobmon.api.fields import Date
from jobmon.api.openapi import Routes
from jobmon.api.parameters import Parameters, repeatable_field
from jobmon.domain import CappedCount, JobStatus
from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.search import explain_unsearchable
from jobmon.web import auth
from jobmon.web.queues import WatchedQueue, current_queue

STATUS_COUNT_LIMIT = 1_000  # jobs of each status; the total of a list is counted up to 10,000
CACHE_TTL_S = 2
MAX_CACHED = 1_000  # results
TOTAL = "totalJobs"


class OwnerCountParameters(Parameters):
    """Which of the caller's own jobs are counted."""

    type = repeatable_field("Jobs of this type; `text*` matches types that begin with `text`", 20)

    @validates_schema
    def _check_types(self, query: dict[str, Any], **_: Any) -> None:
        if messages := [text for name in query["type"] if (text := explain_unsearchable(name))]:
            raise ValidationError({"type": messages})

    @post_load
    def _make_types(self, query: dict[str, Any], **_: Any) -> tuple[str, ...]:
        return tuple(sorted({*query["type"]} - {""}))


class OwnerCountsAnswer(Answer):
    """The caller's own jobs by status."""

    statusCounts = mapping(
        fields.Integer(allow_none=True),
        f"Jobs by status, each counted up to {STATUS_COUNT_LIMIT:,}. A count is null if unknown.",
    )
    totalJobs = integer("The caller's jobs, counted up to 10,000; null if unknown.", nullable=True)
    reasons = mapping(
        fields.String(),
        "Why a count is null or a lower bound, by status or `totalJobs`.",
    )
    asOf = Date("When the counting began. A count above 100 may be two seconds older.")


@dataclass(frozen=True, kw_only=True)
class OwnerCounts:
    """How many jobs an owner has at `as_of` (UTC), in total (None if unknown) and by status.

    `by_status` has no entry for an unknown count. `reasons`: as in `OwnerCountsAnswer`.
    """

    as_of: datetime
    total: CappedCount | None
    by_status: Mapping[str, CappedCount]
    reasons: Mapping[str, str]


class OwnerJobCounter:
    """Counts the jobs of owners; callers share a result for two seconds."""

    def __init__(self) -> None:
        self._cache: SingleFlightCache[OwnerCounts] = SingleFlightCache(MAX_CACHED)

    def count(self, queue: WatchedQueue, owner: str, types: tuple[str, ...] = ()) -> OwnerCounts:
        """Count the owner's jobs of these types, or of all without `types`; raises PyMongoError.

        Each status is counted up to 1,000 jobs, with the same index as the list of that status.
        """
        key = queue.name, owner, types
        return self._cache.get(key, lambda: _count(queue, owner, types), CACHE_TTL_S)


def _count(queue: WatchedQueue, owner: str, types: tuple[str, ...]) -> OwnerCounts:
    counts: dict[str, CappedCount] = {}
    reasons: dict[str, str] = {}
    as_of, job_filter = datetime.now(UTC), JobFilter(owner=owner, is_own=True, types=types)
    for name in (TOTAL, *(status.value for status in JobStatus)):
        try:
            if name == TOTAL:
                counts[name] = queue.stats.count(job_filter)
            else:
                with_status = replace(job_filter, statuses=(name,))
                counts[name] = queue.stats.count_up_to(with_status, STATUS_COUNT_LIMIT)
        except RefusedFilterError as error:
            reasons[name] = str(error)
        else:
            if not counts[name].is_exact:
                reasons[name] = f"there are more than {counts[name].value:,}"
    return OwnerCounts(
        as_of=as_of, total=counts.pop(TOTAL, None), by_status=counts, reasons=reasons
    )


def add_routes(routes: Routes, counter: OwnerJobCounter) -> None:
    """Add `/job/counts` to the routes for owners of jobs."""

    @routes.get("/job/counts")
    @routes.doc(operationId="countOwnJobs")
    @routes.arguments(OwnerCountParameters, location="query")
    @routes.response(HTTPStatus.OK, OwnerCountsAnswer, example=queue_examples.OWN_COUNTS)
    def count_own_jobs(types: tuple[str, ...]) -> dict[str, Any]:
        """Count the caller's own jobs by status."""
        counts = counter.count(current_queue(), auth.subject(), types)
        values = {name: count.value for name, count in counts.by_status.items()}
        return {
            "statusCounts": {status.value: values.get(status) for status in JobStatus},
            TOTAL: None if counts.total is None else counts.total.value,
            "reasons": counts.reasons,
            "asOf": counts.as_of,
        }
