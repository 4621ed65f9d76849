"""Counts the scheduled jobs by time step and type, from a bounded part of an index."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobmon.domain import WAITING_STATUSES
from jobmon.single_flight import SingleFlight
from jobmon.store.bson_json import make_aware
from jobmon.store.connection import Connection
from jobmon.store.indexes import schedule_index
from jobmon.store.labels import OTHER, label
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError

# The limits for one window: MAX_KEYS index keys if the index has all fields, else MAX_JOBS jobs.
MAX_KEYS, MAX_JOBS = 10_000, 5_000
MAX_NAMED_TYPES = 20  # in a window; other types are counted together
CACHE_TTL_MS = 5_000
_MILLISECOND = timedelta(milliseconds=1)
_WINDOWS = {  # by name: the length of the window, and of its steps
    "hour": (timedelta(hours=1), timedelta(minutes=5)),
    "day": (timedelta(days=1), timedelta(hours=1)),
    "week": (timedelta(days=7), timedelta(days=1)),
}
NO_DUE_TIMES = "the documents do not record when a job is due"
NO_INDEX = "an index is missing: `jobmon init` creates it"


@dataclass(frozen=True, kw_only=True)
class ScheduledStep:
    """The jobs that become due from `start` to before `end` (UTC), in total and by type.

    `jobs` is None if reading stopped before this step; without `is_exact` it is a lower bound.
    """

    start: datetime
    end: datetime
    jobs: int | None
    is_exact: bool
    types: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ScheduledWindow:
    """The jobs that become due in a window of the future: in total, by step and by type.

    `name` is `hour`, `day` or `week`. The first and the last step may be shorter than `step`.
    """

    name: str
    start: datetime
    end: datetime
    step: timedelta
    jobs: int
    is_exact: bool
    steps: tuple[ScheduledStep, ...]
    types: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The jobs that become due in the next hour, day and week.

    For each window, at most the first `limit` jobs are read. `reason`: why there are no windows.
    """

    as_of: datetime
    windows: tuple[ScheduledWindow, ...] = ()
    reason: str = ""
    limit: int = MAX_KEYS


class ScheduleReader:
    """Counts the scheduled jobs; callers share the result for 5 s. Raises PyMongoError."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        mapping = self._jobs.mapping
        is_covered = mapping.has_status and "type" in mapping.paths and not mapping.where
        self._limit = MAX_KEYS if is_covered else MAX_JOBS
        self._shared = SingleFlight(self._count, CACHE_TTL_MS)

    def schedule(self) -> Schedule:
        """The present schedule, at most 5 s old; without an index nothing is counted."""
        return self._shared.get()

    def _count(self) -> Schedule:
        now = _floor(datetime.now(UTC), _MILLISECOND)  # as precise as the dates of documents
        if not self._jobs.mapping.can_query("nextRunAt"):
            return Schedule(as_of=now, reason=NO_DUE_TIMES)
        try:
            windows = tuple(self._count_window(name, now) for name in _WINDOWS)
        except NoIndexError:
            return Schedule(as_of=now, reason=NO_INDEX)
        return Schedule(as_of=now, windows=windows, limit=self._limit)

    def _count_window(self, name: str, now: datetime) -> ScheduledWindow:
        length, step = _WINDOWS[name]
        end, first = now + length, _floor(now, step)
        groups = self._jobs.aggregate(
            self._make_pipeline(now, end, first, step),
            index=schedule_index(self._jobs.mapping),
            require_index=True,
        )
        counts: dict[int, Counter[str]] = {}
        for group in groups:
            if jobs := int(group["jobs"]):
                in_step = counts.setdefault(int(group["_id"]["step"]), Counter())
                in_step[label(group["_id"].get("type"))] += jobs
        has_reached_limit = sum(int(group["read"]) for group in groups) >= self._limit
        read_until = (
            max(make_aware(group["last"]) for group in groups) if has_reached_limit else end
        )
        by_type = sum(counts.values(), Counter())
        named = {job_type for job_type, _ in by_type.most_common(MAX_NAMED_TYPES)}
        steps, start = [], first
        while start < end:
            in_step = counts.get((start - first) // step, Counter())
            is_read = start <= read_until
            steps.append(
                ScheduledStep(
                    start=max(start, now),
                    end=min(start + step, end),
                    jobs=in_step.total() if is_read else None,
                    is_exact=min(start + step, end) <= read_until,
                    types=_fold(in_step, named),
                )
            )
            start += step
        return ScheduledWindow(
            name=name,
            start=now,
            end=end,
            step=step,
            jobs=by_type.total(),
            is_exact=not has_reached_limit,
            steps=tuple(steps),
            types=_fold(by_type, named),
        )

    def _make_pipeline(
        self, now: datetime, end: datetime, first: datetime, step: timedelta
    ) -> list[Document]:
        """A pipeline that counts the first jobs of a window, up to the limit, by step and type.

        If no field holds the status, the status is compared after the limit: jobs that do not wait
        then count towards the limit, so that the query reads no more jobs than it allows.
        """
        mapping = self._jobs.mapping
        waiting = list(mapping.select_statuses("nextRunAt", WAITING_STATUSES))
        match: Document = {"nextRunAt": {"$gt": now, "$lt": end}}
        jobs: Document | int = 1
        if mapping.has_status:
            match["status"] = {"$in": waiting}
        else:
            jobs = {"$cond": [{"$in": ["$status", {"$literal": waiting}]}, 1, 0]}
        milliseconds = {"$subtract": ["$nextRunAt", {"$literal": first}]}
        step_number = {"$floor": {"$divide": [milliseconds, step / _MILLISECOND]}}
        group: Document = {
            "_id": {"step": step_number, "type": "$type"},
            "jobs": {"$sum": jobs},
            "read": {"$sum": 1},
            "last": {"$max": "$nextRunAt"},
        }
        return [
            {"$match": match},
            {"$sort": dict(mapping.translate_order([("nextRunAt", 1)]))},
            {"$limit": self._limit},
            {"$group": group},
        ]


def _floor(moment: datetime, step: timedelta) -> datetime:
    """The start of the step (UTC) that contains a moment."""
    return moment - (moment - datetime.fromtimestamp(0, UTC)) % step


def _fold(counts: Counter[str], named: Collection[str]) -> dict[str, int]:
    """The counts by type, the largest first; types that are not named are `(other)`."""
    folded: Counter[str] = Counter()
    for job_type, jobs in counts.items():
        folded[job_type if job_type in named else OTHER] += jobs
    return dict(folded.most_common())
