"""Lists recurring jobs, the earliest nextRunAt first, by partial indexes of only these jobs."""

from dataclasses import dataclass

from jobmon.domain import CappedCount
from jobmon.redaction.redactor import Redactor
from jobmon.store.cursor import Cursor
from jobmon.store.filter import JobFilter
from jobmon.store.indexes import recurring_indexes
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document
from jobmon.store.summaries import SUMMARY_FIELDS, summarize
from jobmon.store.truncate import CharacterBudget

MAX_RUNS = 20  # attempts shown of a job that contains its attempts
_MAX_ATTEMPT_LENGTH = 2_000  # characters, on average for each of these attempts
_SEPARATOR = "."


class BadCursorError(ValueError):
    """The text is not a cursor of this list."""


@dataclass(frozen=True, kw_only=True)
class RecurringPage:
    """Recurring jobs, each with the names of `list_repetition_paths` and its `attempts`.

    `next_cursor` is None on the last page.
    """

    jobs: list[Document]
    next_cursor: str | None
    total: CappedCount


class RecurringJobs:
    """Reads the recurring jobs of a queue; methods raise PyMongoError.

    First come the jobs with an interval, then the jobs with only a time of day; both are in the
    order of (nextRunAt, _id). A missing index raises NoIndexError.
    """

    def __init__(self, planner: ListPlanner, redactor: Redactor) -> None:
        connection = planner.connection
        mapping = connection.jobs.mapping
        self._is_recurring = connection.profile.is_recurring
        self._path_names = tuple(recurring_indexes(mapping))
        repetition = (name for name in mapping.paths if name.startswith("_"))
        self._lists = JobLists(
            planner,
            redactor,
            fields=(*SUMMARY_FIELDS, "recurring", *repetition),
            transform=_summarize,
            require_index=True,
        )
        self._counter = ListCounter(planner)

    @property
    def unknown(self) -> str:
        """The reason why recurring jobs are unknown; empty if they are known."""
        if self._path_names:
            return ""
        if not self._is_recurring:
            return "no job of this kind of queue is known to run repeatedly"
        return "the profile does not define how often recurring jobs run, or when they are due"

    def page(self, cursor: str, per_page: int) -> RecurringPage:
        """The page at `cursor`: the `next_cursor` of another page, or "" for the first page.

        Raises BadCursorError for any other text.
        """
        first_name, place = _decode(cursor, self._path_names)
        jobs: list[Document] = []
        next_cursor = None
        names = self._path_names
        for path_name in names[names.index(first_name) :] if names else ():
            job_filter = JobFilter(repeats_by=path_name)
            if len(jobs) == per_page:
                if self._lists.page(job_filter, per_page=1, oldest_first=True).jobs:
                    next_cursor = f"{path_name}{_SEPARATOR}"
                break
            page = self._lists.page(
                job_filter, per_page=per_page - len(jobs), oldest_first=True, cursor=place
            )
            jobs, place = jobs + page.jobs, None
            if page.next_cursor is not None:
                next_cursor = f"{path_name}{_SEPARATOR}{page.next_cursor.encode()}"
                break
        return RecurringPage(jobs=jobs, next_cursor=next_cursor, total=self._count())

    def _count(self) -> CappedCount:
        filters = (JobFilter(repeats_by=name) for name in self._path_names)
        counts = [self._counter.count(job_filter) for job_filter in filters]
        return CappedCount(
            sum(count.value for count in counts), all(count.is_exact for count in counts)
        )


def _decode(cursor: str, names: tuple[str, ...]) -> tuple[str, Cursor | None]:
    """The list that a cursor continues, as the name of its path, and the place in that list."""
    if not cursor:
        return next(iter(names), ""), None
    name, _, encoded = cursor.partition(_SEPARATOR)
    try:
        place = Cursor.decode(encoded) if encoded else None
    except ValueError:
        raise BadCursorError from None
    if name not in names or (place is not None and place.order_by != "nextRunAt"):
        raise BadCursorError
    return name, place


def _summarize(job: Document) -> Document:
    """A job as the list shows it, with its newest attempts."""
    attempts = job.get("attempts")
    budget = CharacterBudget(_MAX_ATTEMPT_LENGTH * MAX_RUNS)
    return summarize(job) | {
        "attempts": [
            {name: budget.truncate(value) for name, value in attempt.items()}
            for attempt in (attempts if isinstance(attempts, list) else [])[-MAX_RUNS:]
        ]
    }
