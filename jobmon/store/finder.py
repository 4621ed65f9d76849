"""Finds jobs by ids and values that a person types, with a bounded number of index keys."""

from jobmon.domain import CappedCount
from jobmon.store import indexes
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter
from jobmon.store.identity import identity_values, is_identity, match_prefix
from jobmon.store.list_plan import get_plan
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError

COUNT_UP_TO = 100
_FIELDS = ("jobId", "type", "status")


class JobFinder:
    """Looks up jobs by ids and values; raises PyMongoError.

    It never scans: without the index for a value, nothing is found or counted.
    """

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs

    def find(self, job_id: str) -> Document | None:
        """The id, type and status of the job with this id; None if it is not found."""
        jobs = self._read({"jobId": {"$in": identity_values(job_id)}}, 2)
        return next((job for job in jobs if is_identity(job.get("jobId"), job_id)), None)

    def find_by_prefix(self, prefix: str, limit: int) -> list[Document]:
        """At most `limit` jobs, in the order of the index, whose id begins with this text."""
        jobs = self._read(match_prefix("jobId", prefix), limit)
        return [job for job in jobs if (to_text(job.get("jobId")) or "").startswith(prefix)]

    def count(self, prepared: JobFilter) -> CappedCount | None:
        """The number of jobs that match, counted up to 100; None without the index.

        `prepared` is a filter with a plan, whose index shows which jobs match.
        """
        index = get_plan(prepared).index
        try:
            counted = self._jobs.count(
                prepared.match(), index=index, limit=COUNT_UP_TO + 1, require_index=True
            )
        except NoIndexError:
            return None
        return CappedCount(min(counted, COUNT_UP_TO), counted <= COUNT_UP_TO)

    def _read(self, query: Document, limit: int) -> list[Document]:
        if self._jobs.mapping.translate_keys(indexes.JOB_ID) is None:
            return []
        try:
            return self._jobs.find(
                query, _FIELDS, index=indexes.JOB_ID, limit=limit, require_index=True
            )
        except NoIndexError:
            return []
