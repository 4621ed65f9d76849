"""Finds the jobs whose newest error belongs to a group, among the jobs that match a filter."""

from collections.abc import Iterable

from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.redaction.redactor import Redactor
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document
from jobmon.store.summaries import ERROR_FIELDS, shorten_last_error

MAX_COMPARED = 20_000  # jobs; to compare one takes 0.1 ms
_TOO_MANY = (
    f"The group would be searched in more than {MAX_COMPARED:,} jobs: add error_code, type, or "
    "created_from and created_to."
)
_SEVERAL_KINDS = "This group has errors of several kinds: use error_code instead."


class GroupJobReader:
    """Reads the jobs of error groups; methods raise PyMongoError.

    The group is computed from the job's own error, not read from the history of errors. So jobs
    with an error older than the history are found, too.
    """

    def __init__(self, planner: ListPlanner, redactor: Redactor) -> None:
        self._redactor = redactor
        self.lists = JobLists(planner, redactor, fields=ERROR_FIELDS, transform=shorten_last_error)

    def find(self, job_filter: JobFilter, group_id: str) -> list[Document]:
        """All jobs of a group that match a filter, in the order of the filter's list.

        Raises RefusedFilterError if the filter cannot be listed, if more than 20,000 jobs match it,
        and for a group that `select` refuses.
        """
        group_jobs: list[Document] = []
        compared = 0
        for batch in self.lists.batches(job_filter):
            compared += len(batch)
            if compared > MAX_COMPARED:
                raise RefusedFilterError("error_group", _TOO_MANY)
            group_jobs += self.select(batch, group_id)
        return group_jobs

    def select(self, jobs: Iterable[Document], group_id: str) -> list[Document]:
        """The jobs whose newest error belongs to the group; only for jobs that `lists` has read.

        Raises RefusedFilterError if the id is that of the group `(other messages)` of a job's code.
        """
        selected = []
        for job in jobs:
            if job.get("lastError") is None:
                continue
            kind = classify_error(prepare_error(job["lastError"], None, self._redactor))
            if kind is not None and kind.id == group_id:
                selected.append(job)
            elif kind is not None and fold_kind(kind).id == group_id:
                raise RefusedFilterError("error_group", _SEVERAL_KINDS)
        return selected
