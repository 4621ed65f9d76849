"""Lists of jobs: which ones (the filter), page by page or all of them, and how many there are."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bson import ObjectId

from jobmon.domain import MAPPED_JOB_FIELDS, JobCondition, JobStatus
from jobmon.redaction import Redactor
from jobmon.single_flight import SingleFlightCache
from jobmon.store import indexes
from jobmon.store.bson_json import CharacterBudget, plain
from jobmon.store.connection import Connection
from jobmon.store.cursor import BY_ID_KEY, NEWEST_FIRST, SORT_KEY, Cursor, after, after_id, sort_of
from jobmon.store.identity import identity_ranges, identity_values, is_identity, label_values
from jobmon.store.jobs import NOT_DATES, JobStore, attempt_count, last_attempt
from jobmon.store.mapping import IS_ARRAY, Document, Keys

COUNT_EXACTLY_UP_TO = 10_000
# Counting takes 0.7 µs a job: from here on more than the page itself, so it is shared.
SHARE_FROM = 1_000
SHARE_S = 2
KEEP_TOTALS = 1_000
MAX_ID_MATCHES = 1_000
BATCH = 500
# In characters: what is longer is cut.
ROOM_FOR_A_FIELD = 10_000
# More than can be skipped within any time limit, and it still fits the server's numbers.
_MAX_SKIP = 2**31

# A list needs neither payload nor stacks, and a job may hold megabytes of what is not ours.
_SUMMARY_FIELDS = ("_id", *(name for name in MAPPED_JOB_FIELDS if name != "payload"))
_SMALL = (datetime, int, float, ObjectId)  # values that are never cut


class NotKeptByCodeError(ValueError):
    """The watched documents have no field that is an error's code."""


class DateNotKeptError(ValueError):
    """The watched documents have no field for the date that a filter needs."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class TooManyMatchesError(ValueError):
    """More than 1,000 jobs have an id that begins as the filter says."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs: any of `statuses`, any of `types`, those of `owner`; empty means all.

    Statuses and types are given by the labels that they are counted by, so that `null` finds those
    that are missing.

    `created_from` (inclusive) and `created_to` (exclusive) are aware dates; a job whose createdAt
    is no date is in no range. `error_code` is the newest error's, in full, `job_id` how the id
    begins. No index serves `owner` together with `error_code`: ValueError. A createdBy that is an
    array has no owner, but MongoDB finds it by each element; `may_have_arrays` excludes it, which
    takes the job itself and not only the index. `condition` is as of the moment of the query;
    `finished_from` (inclusive) is of finishedAt. A list by one of these two is in the order of its
    date: nextRunAt, leaseExpiresAt or finishedAt.
    """

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    owner: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    error_code: str | None = None
    job_id: str | None = None
    may_have_arrays: bool = True
    condition: JobCondition | None = None
    finished_from: datetime | None = None

    def __post_init__(self) -> None:
        if self.owner is not None and self.error_code is not None:
            raise ValueError("a list is by owner or by error code")

    def match(self) -> Document:
        """The filter as a query of typed values."""
        query: Document = {}
        if self.statuses:
            query["status"] = {"$in": list(self.statuses)}
        if self.types:
            query["type"] = {
                "$in": [value for label in self.types for value in label_values(label)]
            }
        if self.owner is not None:
            query["createdBy"] = {"$in": identity_values(self.owner)}
            if self.may_have_arrays:
                query["$and"] = [{"$nor": [{"createdBy": IS_ARRAY}]}]
        if self.error_code is not None:
            query["lastError.code"] = {"$in": _code_values(self.error_code)}
        if self.is_ranged:
            bounds = {"$gte": self.created_from, "$lt": self.created_to}
            query["createdAt"] = {
                operator: moment for operator, moment in bounds.items() if moment is not None
            }
        if self.job_id is not None:
            query |= self.match_id()
        if self.date is not None:
            known = _STATUSES_BY_DATE[self.date]
            asked = [status for status in known if not self.statuses or status in self.statuses]
            query |= {"status": {"$in": asked}} | self._match_date()
        return query

    def _match_date(self) -> Document:
        now = datetime.now(UTC)
        match self.condition:
            case JobCondition.DUE:  # a job without nextRunAt is due at once
                return {"$nor": [{"nextRunAt": {"$gt": now}}, {"nextRunAt": {"$type": NOT_DATES}}]}
            case JobCondition.EXPIRED:
                return {"leaseExpiresAt": {"$lt": now}}
            case _:
                return {"finishedAt": {"$gte": self.finished_from}}

    @property
    def date(self) -> str | None:
        """The date that the list is by, unless it is by createdAt."""
        if self.condition is not None:
            return "nextRunAt" if self.condition is JobCondition.DUE else "leaseExpiresAt"
        return None if self.finished_from is None else "finishedAt"

    def match_id(self) -> Document:
        """The jobs whose id begins so, as ranges of the index, one for each type of id."""
        ranges = [{"jobId": condition} for condition in identity_ranges(self.job_id or "")]
        return {"$or": ranges} if len(ranges) > 1 else ranges[0]

    @property
    def is_ranged(self) -> bool:
        """Whether only jobs with a date can match."""
        return self.created_from is not None or self.created_to is not None

    @property
    def is_by_status_and_type(self) -> bool:
        """Whether the queue's figures tell how many match."""
        return self == JobFilter(statuses=self.statuses, types=self.types)

    @property
    def index(self) -> Keys:
        """The index that finds these jobs: in list order, except those by id."""
        if self.job_id is not None:
            return indexes.JOB_ID
        if self.date is not None:
            return _INDEX_BY_DATE[self.date]
        if self.owner is not None:
            return indexes.BY_OWNER_AND_STATUS if self.statuses else indexes.BY_OWNER
        if self.error_code is not None:
            return indexes.BY_ERROR_CODE
        if self.statuses:
            return indexes.BY_STATUS_AND_TYPE if self.types else indexes.BY_STATUS
        return indexes.BY_TYPE if self.types else NEWEST_FIRST


_STATUSES_BY_DATE = {
    "nextRunAt": (JobStatus.QUEUED.value, JobStatus.FAILED.value),
    "leaseExpiresAt": (JobStatus.LEASED.value,),
    "finishedAt": (
        JobStatus.SUCCEEDED.value,
        JobStatus.DLQ.value,
        JobStatus.CANCELLED.value,
    ),
}
_INDEX_BY_DATE = {
    "nextRunAt": indexes.BY_NEXT_RUN,
    "leaseExpiresAt": indexes.BY_LEASE,
    "finishedAt": indexes.BY_FINISH,
}


def _code_values(code: str) -> list[Any]:
    """What an error's code may hold: the text, or the whole number that it spells (11000, say)."""
    digits = code.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 18 and str(int(code)) == code:
        return [code, int(code)]
    return [code]


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """One page of a list.

    Unless `total_is_exact` there are at least `total` jobs. `next_cursor` is None on the last
    page, `prev_cursor` on the first.
    """

    jobs: list[Document]
    page: int
    total: int
    total_is_exact: bool
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

    def __init__(self, connection: Connection, store: JobStore, redactor: Redactor) -> None:
        self._redactor = redactor  # of what a cursor would tell
        self._jobs = connection.jobs
        self._store = store
        self._by_id = connection.jobs.names.orders_by_id
        self._totals: SingleFlightCache[int] = SingleFlightCache(KEEP_TOTALS)

    def page(
        self,
        wanted: JobFilter,
        *,
        page: int = 1,
        per_page: int = 20,
        oldest_first: bool = False,
        place: Cursor | None = None,
    ) -> JobPage:
        """A page of the jobs that match, newest first unless `oldest_first`.

        With `place`, the page beyond it, in the order that it was made under: that costs the same
        at any depth, whereas a page number skips index keys. TooManyMatchesError,
        NotKeptByCodeError.
        """
        self._check_fields(wanted)
        wanted = self._without_needless(wanted)
        total, is_exact = self._total(wanted)
        if place is not None:
            shown = self._stretch_beyond(place, wanted, per_page)
        else:
            # Past the end there is nothing to look for.
            end = total if is_exact else _MAX_SKIP
            shown = self._stretch(wanted, page, per_page, oldest_first, end)
        ends = [
            self._place_in(wanted, job, page=shown.page, oldest_first=shown.oldest_first)
            for job in shown.jobs[:1] + shown.jobs[-1:]
        ]
        return JobPage(
            jobs=shown.jobs,
            page=shown.page,
            total=total,
            total_is_exact=is_exact,
            next_cursor=ends[-1] if ends and not shown.is_last else None,
            prev_cursor=replace(ends[0], backwards=True) if ends and not shown.is_first else None,
        )

    def batches(self, wanted: JobFilter, *, oldest_first: bool = False) -> Iterator[list[Document]]:
        """Every job that matches, in list order, 500 at a time, each batch by a query of its own.

        TooManyMatchesError and NotKeptByCodeError come before the first batch.
        """
        self._check_fields(wanted)
        self._check_id(wanted)
        wanted = self._without_needless(wanted)
        place, page, skip = None, 0, 0
        while jobs := self._read(wanted, place, BATCH, ascending=oldest_first, skip=skip):
            yield jobs
            if len(jobs) < BATCH:
                return
            page += 1
            place, skip = (
                self._place_in(wanted, jobs[-1], page=page, oldest_first=oldest_first),
                0,
            )
            if place.by_page:
                place, skip = None, page * BATCH

    def look_up(
        self, ids: Collection[str], wanted: JobFilter, owner: str | None = None
    ) -> list[tuple[Document, bool]]:
        """The jobs that have these ids now, each with whether `wanted` matches it.

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
        matching = {"$and": [wanted.match(), named]}
        matches = self._jobs.find(matching, ("_id",), index=indexes.JOB_ID)
        matching_ids = [job["_id"] for job in matches]
        return [(job, job["_id"] in matching_ids) for job in _owned(found, confined)]

    def _stretch(
        self, wanted: JobFilter, page: int, per_page: int, oldest_first: bool, end: int = _MAX_SKIP
    ) -> _PageSlice:
        """The jobs of a page by its number, none where that begins at `end` or beyond."""
        jobs, skip = [], (page - 1) * per_page
        if skip < end:
            jobs = self._read(wanted, None, per_page + 1, ascending=oldest_first, skip=skip)
        return _PageSlice(jobs[:per_page], page, oldest_first, page == 1, len(jobs) <= per_page)

    def _stretch_beyond(self, place: Cursor, wanted: JobFilter, per_page: int) -> _PageSlice:
        if place.by_page or wanted.date is not None:
            page = max(1, place.page - 1) if place.backwards else place.page + 1
            return self._stretch(wanted, page, per_page, place.oldest_first)
        jobs = self._read(wanted, place, per_page + 1, ascending=place.ascending)
        there_is_more = len(jobs) > per_page
        if not place.backwards:
            page = place.page + 1
            return _PageSlice(jobs[:per_page], page, place.oldest_first, False, not there_is_more)
        if len(jobs) < per_page:
            # Less than a page is left before the place: show the first page in full.
            return self._stretch(wanted, 1, per_page, place.oldest_first)
        page = max(1, place.page - 1)
        return _PageSlice(jobs[:per_page][::-1], page, place.oldest_first, not there_is_more, False)

    def _read(
        self, wanted: JobFilter, place: Cursor | None, limit: int, *, ascending: bool, skip: int = 0
    ) -> list[Document]:
        """Jobs in the order of the walk: from its start, or what lies beyond `place`."""
        if wanted.date is not None:
            return self._jobs.find(
                wanted.match(),
                _SUMMARY_FIELDS,
                index=self._index(wanted),
                order=[(wanted.date, 1 if ascending else -1)],
                skip=skip,
                limit=limit,
                each=_summary,
            )
        if not self._has_order(wanted, ascending=ascending):
            found = self._sorted(wanted, place, limit, ascending=ascending, skip=skip)
            return _owned(found, wanted)
        jobs: list[Document] = []
        for clause in self._beyond(place, wanted) if place else ({},):
            jobs += self._find(wanted, clause, limit - len(jobs), ascending=ascending, skip=skip)
            if len(jobs) >= limit:
                break
        return _owned(jobs, wanted)

    def _find(
        self, wanted: JobFilter, clause: Document, limit: int, *, ascending: bool, skip: int
    ) -> list[Document]:
        """Jobs as the index has them, in either direction."""
        return self._jobs.find(
            {"$and": [wanted.match(), clause]},
            _SUMMARY_FIELDS,
            index=wanted.index,
            order=sort_of(clause, ascending=ascending),
            skip=skip,
            limit=limit,
            each=_summary,
        )

    def _sorted(
        self, wanted: JobFilter, place: Cursor | None, limit: int, *, ascending: bool, skip: int
    ) -> list[Document]:
        """Jobs that no index has in order: summaries sorted in memory.

        Those by id are 1,000 at most; others are as many as match, within the time limit.
        """
        beyond = "$gt" if ascending else "$lt"
        names = self._jobs.names
        pipeline: list[Document] = [
            {"$match": wanted.match()},
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
            index=wanted.index,
            batch_size=limit + 1,
            each=lambda document: _summary(names.document(document)),
        )

    def _sort_key(self, place: Cursor) -> Document:
        return {"i": place.id} if self._by_id else place.sort_key

    def _has_order(self, wanted: JobFilter, *, ascending: bool) -> bool:
        """Whether an index has these jobs in the order of the walk."""
        if wanted.job_id is not None:
            return False
        return self._by_id or not ascending or self._has_no_array("createdAt", wanted.index)

    def _beyond(self, place: Cursor, wanted: JobFilter) -> Iterator[Document]:
        if self._by_id:
            return after_id(place)
        return after(place, only_dates=wanted.is_ranged)

    def _without_needless(self, wanted: JobFilter) -> JobFilter:
        """The filter, less the condition on arrays where its index proves that there are none."""
        if wanted.owner is None or wanted.job_id is not None:
            return wanted
        return replace(wanted, may_have_arrays=not self._has_no_array("createdBy", wanted.index))

    def _has_no_array(self, field: str, index: Keys) -> bool:
        """Whether the index exists and was made of no array in this field: its plan shows."""
        path = self._jobs.names.paths.get(field, "")
        return any(paths.get(path) == [] for paths in _multikey_paths(self._jobs.plan(index)))

    def _index(self, wanted: JobFilter) -> Keys:
        is_waiting = wanted.condition is JobCondition.DUE
        if is_waiting and not self._jobs.names.has_status:
            return indexes.BY_WAITING
        return wanted.index

    def _place_in(
        self, wanted: JobFilter, job: Document, *, page: int, oldest_first: bool
    ) -> Cursor:
        """The place of a job in a list; by its page where createdAt is not its order."""
        if wanted.date is None:
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
            for shown in (plain(place.created_at), plain(place.id))
        )

    @staticmethod
    def _without_values(place: Cursor) -> Cursor:
        return replace(place, created_at=None, id=None, by_page=True)

    def _computed(self, place: Cursor, expression: Document) -> Any:
        """What an expression is for the job at a place; None if there is none."""
        pipeline = [{"$match": {"_id": {"$eq": place.id}}}, {"$project": {"is": expression}}]
        return next(iter(self._jobs.aggregate(pipeline)), {}).get("is")

    def _total(self, wanted: JobFilter) -> tuple[int, bool]:
        """How many jobs match, and whether that is exact.

        Counted up to 10,000, in the keys of the list's own index; beyond that it is as the
        queue's figures say, or at least 10,000 where they do not tell or would have to be counted
        without an index. From 1,000 on the count may be
        two seconds old.
        """
        if wanted.job_id is not None:
            self._check_id(wanted)
            return self._jobs.count(wanted.match(), index=wanted.index), True
        if not wanted.is_by_status_and_type:
            return self._counted(wanted)
        figures = self._store.cached_stats()
        if figures is None:
            counted, is_exact = self._counted(wanted)
            if is_exact:
                return counted, True
            if not self._jobs.names.has_status:
                # No index counts them: figures would cost more than any list.
                return counted if wanted.match() else self._jobs.estimated_count(), False
            figures = self._store.figures()
        known = figures.matching(wanted.statuses, wanted.types)
        if known is not None and known > COUNT_EXACTLY_UP_TO:
            return known, True
        if known is None and not wanted.match():
            return figures.total, False
        return self._counted(wanted)

    def _counted(self, wanted: JobFilter) -> tuple[int, bool]:
        """A long list is counted once for all who look at it within two seconds."""
        few = min(SHARE_FROM, COUNT_EXACTLY_UP_TO)
        counted = self._count(wanted, few + 1)
        if counted > few:
            question = (wanted, int(time.monotonic() // SHARE_S))
            counted = self._totals.get(
                question, lambda: self._count(wanted, COUNT_EXACTLY_UP_TO + 1)
            )
        return min(counted, COUNT_EXACTLY_UP_TO), counted <= COUNT_EXACTLY_UP_TO

    def _count(self, wanted: JobFilter, limit: int) -> int:
        return self._jobs.count(wanted.match(), index=self._index(wanted), limit=limit)

    def count(self, wanted: JobFilter) -> tuple[int, bool]:
        """How many jobs match, and whether that is exact; else there are at least so many.

        DateNotKeptError, NotKeptByCodeError, TooManyMatchesError.
        """
        self._check_fields(wanted)
        return self._total(wanted)

    def _check_fields(self, wanted: JobFilter) -> None:
        if wanted.date is not None and not self._jobs.names.finds(wanted.date):
            raise DateNotKeptError("finished_from" if wanted.condition is None else "condition")
        if wanted.error_code is not None and not self._jobs.names.finds("lastError.code"):
            raise NotKeptByCodeError

    def _check_id(self, wanted: JobFilter) -> None:
        if wanted.job_id is None:
            return
        query, most = wanted.match_id(), MAX_ID_MATCHES + 1
        matches = self._jobs.count(query, index=indexes.JOB_ID, limit=most)
        if matches > MAX_ID_MATCHES:
            raise TooManyMatchesError(f"matches more than {MAX_ID_MATCHES:,} jobs")


def _owned(jobs: list[Document], wanted: JobFilter) -> list[Document]:
    """Those of the filter's owner by our own comparison, whatever the database takes for equal."""
    owner = wanted.owner
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
    if value is None or (type(value) is str and len(value) <= ROOM_FOR_A_FIELD):
        return value
    return value if isinstance(value, _SMALL) else CharacterBudget(ROOM_FOR_A_FIELD).cut(value)


def _multikey_paths(plan: Any) -> Iterator[Document]:
    """What an explained plan says of its indexes' arrays: field -> the paths that hold some."""
    if isinstance(plan, dict):
        if "multiKeyPaths" in plan:
            yield plan["multiKeyPaths"]
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _multikey_paths(inner)
