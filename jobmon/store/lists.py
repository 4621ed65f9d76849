"""Lists of jobs, page by page or all of them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId

from jobmon.domain import MAPPED_JOB_FIELDS, CappedCount
from jobmon.redaction.redactor import Redactor
from jobmon.store import indexes
from jobmon.store.bson_json import to_json
from jobmon.store.connection import Connection
from jobmon.store.cursor import BY_ID_KEY, SORT_KEY, Cursor, after, after_id, sort_of
from jobmon.store.filter import JobFilter
from jobmon.store.identity import identity_values, is_identity
from jobmon.store.jobs import attempt_count, last_attempt
from jobmon.store.mapping import Document, Keys
from jobmon.store.truncate import CharacterBudget

BATCH = 500
# In characters: what is longer is cut.
MAX_FIELD_LENGTH = 10_000
# More than can be skipped within any time limit, and it still fits the server's numbers.
_MAX_SKIP = 2**31

# A list needs neither payload nor stacks, and a job may hold megabytes of what is not ours.
_SUMMARY_FIELDS = ("_id", *(name for name in MAPPED_JOB_FIELDS if name != "payload"))
_SMALL = (datetime, int, float, ObjectId)  # values that are never cut


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """One page of a list; `next_cursor` is None on the last page, `prev_cursor` on the first."""

    jobs: list[Document]
    page: int
    next_cursor: Cursor | None
    prev_cursor: Cursor | None


class _PageSlice(NamedTuple):
    """The jobs of a page, and whether the list has others before and behind them."""

    jobs: list[Document]
    page: int
    oldest_first: bool
    is_first: bool
    is_last: bool


class JobLists:
    """Reads lists of the watched jobs; PyMongoError when they cannot be read."""

    def __init__(self, connection: Connection, redactor: Redactor) -> None:
        self._redactor = redactor  # for the values in a cursor
        self._jobs = connection.jobs
        self._by_id = connection.jobs.names.orders_by_id

    def page(
        self,
        job_filter: JobFilter,
        *,
        page: int = 1,
        per_page: int = 20,
        oldest_first: bool = False,
        cursor: Cursor | None = None,
        total: CappedCount | None = None,
    ) -> JobPage:
        """A page of the jobs that match, newest first unless `oldest_first`.

        With `cursor`, the page beyond it, in the order of the list that made it: that costs the
        same at any depth, whereas a page number skips index keys. With the `total` of this filter,
        a page past the end is not looked for. Raises what `JobFilter.check` does.

            page = lists.page(JobFilter(statuses=("dlq",)), per_page=50)
            if page.next_cursor is not None:
                page = lists.page(JobFilter(statuses=("dlq",)), cursor=page.next_cursor)
        """
        job_filter.check(self._jobs)
        job_filter = self._without_needless(job_filter)
        if cursor is not None:
            shown = self._stretch_beyond(cursor, job_filter, per_page)
        else:
            end = total.value if total is not None and total.is_exact else _MAX_SKIP
            shown = self._stretch(job_filter, page, per_page, oldest_first, end)
        ends = [
            self._place_in(job_filter, job, page=shown.page, oldest_first=shown.oldest_first)
            for job in shown.jobs[:1] + shown.jobs[-1:]
        ]
        return JobPage(
            jobs=shown.jobs,
            page=shown.page,
            next_cursor=ends[-1] if ends and not shown.is_last else None,
            prev_cursor=replace(ends[0], backwards=True) if ends and not shown.is_first else None,
        )

    def batches(
        self, job_filter: JobFilter, *, oldest_first: bool = False
    ) -> Iterator[list[Document]]:
        """Every job that matches, in list order, 500 at a time, each batch by a query of its own.

        Raises what `JobFilter.check` does, before the first batch.
        """
        job_filter.check(self._jobs)
        job_filter = self._without_needless(job_filter)
        place, page, skip = None, 0, 0
        while jobs := self._read(job_filter, place, BATCH, ascending=oldest_first, skip=skip):
            yield jobs
            if len(jobs) < BATCH:
                return
            page += 1
            place, skip = (
                self._place_in(job_filter, jobs[-1], page=page, oldest_first=oldest_first),
                0,
            )
            if place.by_page:
                place, skip = None, page * BATCH

    def look_up(
        self, ids: Collection[str], job_filter: JobFilter, owner: str | None = None
    ) -> list[tuple[Document, bool]]:
        """The jobs that have these ids now, each with whether `job_filter` matches it.

        With `owner`, only that owner's. Index: (jobId) unique.
        """
        if not ids:
            return []
        confined = JobFilter(owner=owner)
        values = [value for job_id in ids for value in identity_values(job_id)]
        named = confined.match() | {"jobId": {"$in": values}}
        found = [
            job
            for job in self._jobs.find(named, _SUMMARY_FIELDS, index=indexes.JOB_ID, each=_summary)
            if any(is_identity(job.get("jobId"), job_id) for job_id in ids)
        ]
        matching = {"$and": [job_filter.match(), named]}
        matches = self._jobs.find(matching, ("_id",), index=indexes.JOB_ID)
        matching_ids = [job["_id"] for job in matches]
        return [(job, job["_id"] in matching_ids) for job in _owned(found, confined)]

    def _stretch(
        self,
        job_filter: JobFilter,
        page: int,
        per_page: int,
        oldest_first: bool,
        end: int = _MAX_SKIP,
    ) -> _PageSlice:
        """The jobs of a page by its number, none where that begins at `end` or beyond."""
        jobs, skip = [], (page - 1) * per_page
        if skip < end:
            jobs = self._read(job_filter, None, per_page + 1, ascending=oldest_first, skip=skip)
        return _PageSlice(jobs[:per_page], page, oldest_first, page == 1, len(jobs) <= per_page)

    def _stretch_beyond(self, place: Cursor, job_filter: JobFilter, per_page: int) -> _PageSlice:
        if place.by_page or job_filter.date is not None:
            page = max(1, place.page - 1) if place.backwards else place.page + 1
            return self._stretch(job_filter, page, per_page, place.oldest_first)
        jobs = self._read(job_filter, place, per_page + 1, ascending=place.ascending)
        there_is_more = len(jobs) > per_page
        if not place.backwards:
            page = place.page + 1
            return _PageSlice(jobs[:per_page], page, place.oldest_first, False, not there_is_more)
        if len(jobs) < per_page:
            # Less than a page is left before the place: show the first page in full.
            return self._stretch(job_filter, 1, per_page, place.oldest_first)
        page = max(1, place.page - 1)
        return _PageSlice(jobs[:per_page][::-1], page, place.oldest_first, not there_is_more, False)

    def _read(
        self,
        job_filter: JobFilter,
        place: Cursor | None,
        limit: int,
        *,
        ascending: bool,
        skip: int = 0,
    ) -> list[Document]:
        """Jobs in the order of the walk: from its start, or what lies beyond `place`."""
        if job_filter.date is not None:
            return self._jobs.find(
                job_filter.match(),
                _SUMMARY_FIELDS,
                index=job_filter.index(self._jobs.names),
                order=[(job_filter.date, 1 if ascending else -1)],
                skip=skip,
                limit=limit,
                each=_summary,
            )
        if not self._has_order(job_filter, ascending=ascending):
            found = self._sorted(job_filter, place, limit, ascending=ascending, skip=skip)
            return _owned(found, job_filter)
        jobs: list[Document] = []
        for clause in self._beyond(place, job_filter) if place else ({},):
            jobs += self._find(
                job_filter, clause, limit - len(jobs), ascending=ascending, skip=skip
            )
            if len(jobs) >= limit:
                break
        return _owned(jobs, job_filter)

    def _find(
        self, job_filter: JobFilter, clause: Document, limit: int, *, ascending: bool, skip: int
    ) -> list[Document]:
        """Jobs as the index has them, in either direction."""
        return self._jobs.find(
            {"$and": [job_filter.match(), clause]},
            _SUMMARY_FIELDS,
            index=job_filter.index(self._jobs.names),
            order=sort_of(clause, ascending=ascending),
            skip=skip,
            limit=limit,
            each=_summary,
        )

    def _sorted(
        self, job_filter: JobFilter, place: Cursor | None, limit: int, *, ascending: bool, skip: int
    ) -> list[Document]:
        """Jobs that no index has in order: summaries sorted in memory.

        Those by id are 1,000 at most; others are as many as match, within the time limit.
        """
        beyond = "$gt" if ascending else "$lt"
        names = self._jobs.names
        pipeline: list[Document] = [
            {"$match": job_filter.match()},
            {
                "$project": dict.fromkeys(_SUMMARY_FIELDS, True)
                | {"_at": BY_ID_KEY if self._by_id else SORT_KEY}
            },
            {"$match": {"_at": {beyond: self._sort_key(place)}} if place else {}},
            {"$sort": {"_at": 1 if ascending else -1}},
            {"$skip": skip},
            {"$limit": limit},
            {"$unset": "_at"},
        ]
        return self._jobs.aggregate(
            pipeline,
            index=job_filter.index(self._jobs.names),
            batch_size=limit + 1,
            each=lambda document: _summary(names.document(document)),
        )

    def _sort_key(self, place: Cursor) -> Document:
        return {"i": place.id} if self._by_id else place.sort_key

    def _has_order(self, job_filter: JobFilter, *, ascending: bool) -> bool:
        """Whether an index has these jobs in the order of the walk."""
        if job_filter.job_id is not None:
            return False
        return (
            self._by_id
            or not ascending
            or self._has_no_array("createdAt", job_filter.index(self._jobs.names))
        )

    def _beyond(self, place: Cursor, job_filter: JobFilter) -> Iterator[Document]:
        if self._by_id:
            return after_id(place)
        return after(place, only_dates=job_filter.is_ranged)

    def _without_needless(self, job_filter: JobFilter) -> JobFilter:
        """The filter, less the condition on arrays where its index proves that there are none."""
        if job_filter.owner is None or job_filter.job_id is not None:
            return job_filter
        return replace(
            job_filter,
            may_have_arrays=not self._has_no_array("createdBy", job_filter.index(self._jobs.names)),
        )

    def _has_no_array(self, field: str, index: Keys) -> bool:
        """Whether the index exists and was made of no array in this field: its plan shows."""
        path = self._jobs.names.paths.get(field, "")
        return any(paths.get(path) == [] for paths in _multikey_paths(self._jobs.plan(index)))

    def _place_in(
        self, job_filter: JobFilter, job: Document, *, page: int, oldest_first: bool
    ) -> Cursor:
        """The place of a job in a list; by its page where createdAt is not its order."""
        if job_filter.date is None:
            return self._place_at(job, page=page, oldest_first=oldest_first)
        return Cursor(created_at=None, id=None, page=page, oldest_first=oldest_first, by_page=True)

    def _place_at(self, job: Document, *, page: int, oldest_first: bool) -> Cursor:
        """The place of a job; by its page, where it cannot be told, or not to everybody."""
        created_at = job.get("_at", job.get("createdAt"))
        place = Cursor(created_at=created_at, id=job["_id"], page=page, oldest_first=oldest_first)
        if place.is_plain:
            return place if self._is_shown(place) else self._without_values(place)
        if isinstance(created_at, list) and created_at:
            # An array stands where its greatest element does: ask the server.
            place = replace(place, created_at=self._computed(place, {"$max": "$createdAt"}))
        key = BY_ID_KEY if self._by_id else SORT_KEY
        can_be_told = (
            place.fits
            and self._is_shown(place)
            # Deprecated types and text that is not UTF-8 are decoded to something else.
            and self._computed(place, {"$eq": [key, {"$literal": self._sort_key(place)}]})
        )
        return place if can_be_told else self._without_values(place)

    def _is_shown(self, place: Cursor) -> bool:
        """Whether nothing in its values is a secret: a cursor is no more than encoded."""
        return all(
            self._redactor.redact(shown) == shown
            for shown in (to_json(place.created_at), to_json(place.id))
        )

    @staticmethod
    def _without_values(place: Cursor) -> Cursor:
        return replace(place, created_at=None, id=None, by_page=True)

    def _computed(self, place: Cursor, expression: Document) -> Any:
        """What an expression is for the job at a place; None if there is none."""
        pipeline = [{"$match": {"_id": {"$eq": place.id}}}, {"$project": {"is": expression}}]
        return next(iter(self._jobs.aggregate(pipeline)), {}).get("is")


def _owned(jobs: list[Document], job_filter: JobFilter) -> list[Document]:
    """Those of the filter's owner by our own comparison, whatever the database takes for equal."""
    owner = job_filter.owner
    return [job for job in jobs if owner is None or is_identity(job.get("createdBy"), owner)]


def _summary(job: Document) -> Document:
    """What a list shows of a job, made as it comes: a hundred may be 16 MB each."""
    shown = {name: value for name, value in job.items() if name not in ("attempts", "startedAt")}
    shown["attemptCount"] = attempt_count(job, default=len(last_attempt(job)))
    error = shown.pop("lastError", None)
    summary = {name: _cut(value) for name, value in shown.items()}
    if isinstance(error, dict):
        summary["lastError"] = {name: _cut(error.get(name)) for name in ("code", "message")}
    else:
        summary["lastError"] = _cut(error)
    return summary


def _cut(value: Any) -> Any:
    """As much of a field as there is room for; nearly always that is all of it."""
    if value is None or (type(value) is str and len(value) <= MAX_FIELD_LENGTH):
        return value
    return value if isinstance(value, _SMALL) else CharacterBudget(MAX_FIELD_LENGTH).truncate(value)


def _multikey_paths(plan: Any) -> Iterator[Document]:
    """What an explained plan says of its indexes' arrays: field -> the paths that hold some."""
    if isinstance(plan, dict):
        if "multiKeyPaths" in plan:
            yield plan["multiKeyPaths"]
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _multikey_paths(inner)
