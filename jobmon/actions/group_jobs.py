"""Finds the jobs whose newest error belongs to a group, among jobs that match other filters."""

from collections.abc import Iterable

from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.redaction.redactor import Redactor
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document
from jobmon.store.summaries import ERROR_FIELDS, shorten_last_error

MAX_COMPARED = 20_000  # jobs whose error is compared before a request: 0.1 ms each
_TOO_MANY = (
    f"More than {MAX_COMPARED:,} jobs would have to be compared: add error_code, type, or "
    "created_from and created_to."
)
_FOLDED = "This group has errors of several kinds: use error_code instead."


class GroupJobReader:
    """Reads the jobs of groups of errors; methods raise PyMongoError.

    The error alone decides the group. So only the jobs have to be read, and an old job is found,
    too.
    """

    def __init__(self, planner: ListPlanner, redactor: Redactor) -> None:
        self._redactor = redactor
        self.lists = JobLists(planner, redactor, fields=ERROR_FIELDS, transform=shorten_last_error)

    def find(self, job_filter: JobFilter, group_id: str) -> list[Document]:
        """All jobs of a group that match a filter, the newest first.

        RefusedFilterError if more than 20,000 jobs would have to be compared.
        """
        found: list[Document] = []
        compared = 0
        for batch in self.lists.batches(job_filter):
            compared += len(batch)
            if compared > MAX_COMPARED:
                raise RefusedFilterError("error_group", _TOO_MANY)
            found += self.select(batch, group_id)
        return found

    def select(self, jobs: Iterable[Document], group_id: str) -> list[Document]:
        """The jobs, of those read by `lists`, whose error belongs to the group.

        RefusedFilterError for a group that collects errors without a group of their own.
        """
        selected = []
        for job in jobs:
            if job.get("lastError") is None:
                continue
            kind = classify_error(prepare_error(job["lastError"], None, self._redactor))
            if kind is not None and kind.id == group_id:
                selected.append(job)
            elif kind is not None and fold_kind(kind).id == group_id:
                raise RefusedFilterError("error_group", _FOLDED)
        return selected
