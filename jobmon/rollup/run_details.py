"""The details of runs that a bucket of the history has: errors, workers and the slowest attempts.

Each part is bounded. Errors and workers beyond a bound are counted as `(other)`: sums stay exact.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType
from typing import NamedTuple, Self, TypeVar

from jobmon.domain import AttemptStatus
from jobmon.rollup.documents import require_type
from jobmon.rollup.histogram import Histogram, add_counts, pack, unpack
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document

# Limits of a bucket. Sizes are for names of 200 characters of 4 bytes.
MAX_PAIRS = 1_000  # pairs of an error group and a type; also of an error group and a worker
MAX_WORKER_TYPES = 500  # pairs of a worker and a type, up to 5 KB each
MAX_SLOW_TYPES = 200  # types with slowest attempts, up to 12 KB each
SLOWEST = 5  # attempts of a type
P = TypeVar("P", bound=tuple[str, str])


class ErrorPair(NamedTuple):
    """A group of errors, and the `subject` of the runs with them: a type of jobs, or a worker."""

    group: str
    subject: str


class WorkerType(NamedTuple):
    """A worker and a type of its jobs; either may be `(other)`."""

    worker: str
    type: str


class SlowRun(NamedTuple):
    """A finished run; `finished_at` is UTC. `attempt` is None if attempts are not numbered."""

    duration_ms: int
    job_id: str
    attempt: int | None
    worker: str | None
    outcome: str
    finished_at: datetime


@dataclass
class WorkerTally:
    """Finished runs of a worker: by outcome, by duration, and when the last of them ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    run: Histogram = field(default_factory=Counter)
    last_at: datetime | None = None

    def add(self, other: Self) -> None:
        add_counts(self.outcomes, other.outcomes)
        add_counts(self.run, other.run)
        self.add_end(other.last_at)

    def add_end(self, at: datetime | None) -> None:
        """Update `last_at` with the end of a run; None if the end is unknown."""
        if self.last_at is None or (at is not None and at > self.last_at):
            self.last_at = at

    @property
    def runs(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """The number of runs that did not succeed."""
        return self.runs - self.outcomes[AttemptStatus.SUCCEEDED.value]


@dataclass
class RunDetails:
    """The details of the finished runs in some time.

    `by_type` counts every failed run once, by its group of errors and its type; `by_worker` counts
    every failed run of a known worker by group and worker. `worker_types` counts every run of a
    known worker once, even a success. `slowest` has the longest runs of each type, the longest
    first.
    """

    by_type: Counter[ErrorPair] = field(default_factory=Counter)
    by_worker: Counter[ErrorPair] = field(default_factory=Counter)
    worker_types: dict[WorkerType, WorkerTally] = field(default_factory=dict)
    slowest: dict[str, list[SlowRun]] = field(default_factory=dict)

    def add(self, other: Self) -> None:
        add_counts(self.by_type, other.by_type)
        add_counts(self.by_worker, other.by_worker)
        for pair, tally in other.worker_types.items():
            self.find_tally(pair).add(tally)
        for job_type, runs in other.slowest.items():
            present = self.slowest.get(job_type)
            self.slowest[job_type] = select_slowest([*present, *runs]) if present else runs

    def find_tally(self, pair: WorkerType) -> WorkerTally:
        """The tally of a worker and a type, to add to it; a new tally if there is none."""
        if (tally := self.worker_types.get(pair)) is None:
            tally = self.worker_types[pair] = WorkerTally()
        return tally

    def maximum(self, other: Self) -> "RunDetails":
        """For each type and worker the details that have more runs: both may lack some runs."""
        workers, other_workers = self.tally_workers(), other.tally_workers()
        from_other = {
            name
            for name, tally in other_workers.items()
            if name not in workers or tally.runs > workers[name].runs
        }
        worker_types = {
            pair: tally
            for pair, tally in self.worker_types.items()
            if pair.worker not in from_other
        }
        worker_types |= {
            pair: tally for pair, tally in other.worker_types.items() if pair.worker in from_other
        }
        slowest = dict(self.slowest)
        for job_type, runs in other.slowest.items():
            all_runs = [*runs, *slowest.get(job_type, [])]
            unique = {(run.job_id, run.finished_at): run for run in all_runs}
            slowest[job_type] = select_slowest(unique.values())
        return RunDetails(
            by_type=_select_larger(self.by_type, other.by_type),
            by_worker=_select_larger(self.by_worker, other.by_worker),
            worker_types=worker_types,
            slowest=slowest,
        )

    def add_unknown_errors(self, failed: Mapping[str, int]) -> None:
        """Count as `(other)` the failed runs (`failed`: their number by type) that have no group.

        No more are counted than the two sums differ: `by_type` may have folded a rare type.
        """
        missing = sum(failed.values()) - self.failed
        if missing <= 0:
            return
        unknown = Counter(failed)
        for pair, count in self.by_type.items():
            unknown[pair.subject] -= count
        for job_type, count in (+unknown).items():
            added = min(count, missing)
            self.by_type[ErrorPair(OTHER, job_type)] += added
            missing -= added

    @property
    def failed(self) -> int:
        return self.by_type.total()

    @property
    def runs(self) -> int:
        """The number of runs that are known in detail: failed runs, and runs of known workers."""
        succeeded = sum(tally.runs - tally.failed for tally in self.worker_types.values())
        return self.failed + succeeded

    @property
    def lacks_types(self) -> bool:
        """Whether runs of a worker are counted without their type."""
        return any(job_type == OTHER for _, job_type in self.worker_types)

    def tally_workers(self, types: Collection[str] = ()) -> dict[str, WorkerTally]:
        """The runs of each worker: of these types, or of all. Callers must not change a tally."""
        by_worker: dict[str, list[WorkerTally]] = {}
        for (worker, job_type), tally in self.worker_types.items():
            if not types or job_type in types:
                by_worker.setdefault(worker, []).append(tally)
        return {
            worker: tallies[0] if len(tallies) == 1 else _sum_tallies(tallies)
            for worker, tallies in by_worker.items()
        }


def _sum_tallies(tallies: Iterable[WorkerTally]) -> WorkerTally:
    total = WorkerTally()
    for tally in tallies:
        total.add(tally)
    return total


def _select_larger(first: Counter[ErrorPair], second: Counter[ErrorPair]) -> Counter[ErrorPair]:
    """For each type or worker its counts from the argument in which it has more runs."""
    difference: Counter[str] = Counter()
    for pair, count in second.items():
        difference[pair.subject] += count
    for pair, count in first.items():
        difference[pair.subject] -= count
    from_first = {pair: count for pair, count in first.items() if difference[pair.subject] <= 0}
    from_second = {pair: count for pair, count in second.items() if difference[pair.subject] > 0}
    return Counter(from_first | from_second)


def select_slowest(runs: Iterable[SlowRun]) -> list[SlowRun]:
    """The `SLOWEST` longest of these runs, the longest first, without duplicates."""
    return sorted(set(runs), key=lambda run: (-run.duration_ms, run.finished_at, run.job_id))[
        :SLOWEST
    ]


def merge_details(parts: Iterable[RunDetails]) -> RunDetails:
    merged = RunDetails()
    for details in parts:
        merged.add(details)
    return merged


def fold_details(details: RunDetails) -> RunDetails:
    """The details within the bounds of a bucket; the rarest errors and workers become `(other)`."""
    folded = RunDetails(
        by_type=_fold_errors(details.by_type),
        by_worker=_fold_errors(details.by_worker),
    )
    runs = {pair: tally.runs for pair, tally in details.worker_types.items()}
    for pair, names in _fold_pairs(runs, MAX_WORKER_TYPES):
        tally = folded.find_tally(WorkerType(*names))
        tally.add(details.worker_types[pair])
    longest = sorted(details.slowest.items(), key=lambda item: -item[1][0].duration_ms)
    folded.slowest = dict(longest[:MAX_SLOW_TYPES])
    return folded


def _fold_errors(counts: Counter[ErrorPair]) -> Counter[ErrorPair]:
    folded: Counter[ErrorPair] = Counter()
    for pair, names in _fold_pairs(counts, MAX_PAIRS):
        folded[ErrorPair(*names)] += counts[pair]
    return folded


def _fold_pairs(counts: Mapping[P, int], limit: int) -> Iterator[tuple[P, tuple[str, str]]]:
    """Each pair with the two names under which it is counted: at most `limit` different pairs.

    The rare pairs of a group (or worker) are counted together, as the group and `(other)`; a single
    rare pair keeps its names. Groups beyond the limit are counted as `(other)` and `(other)`.
    """
    if len(counts) <= limit:
        yield from ((pair, pair) for pair in counts)
        return
    ranked, half = sorted(counts, key=lambda pair: (-counts[pair], pair)), limit // 2
    rare: dict[str, list[P]] = {}
    for pair in ranked[half:]:
        rare.setdefault(pair[0], []).append(pair)
    yield from ((pair, pair) for pair in ranked[:half])
    largest = sorted(rare, key=lambda name: (-sum(map(counts.__getitem__, rare[name])), name))
    for rank, name in enumerate(largest):
        for pair in rare[name]:
            if rank >= limit - half - 1:
                yield pair, (OTHER, OTHER)
            else:
                yield pair, pair if len(rare[name]) == 1 else (name, OTHER)


def dump_details(details: RunDetails) -> Document:
    """The stored form. Texts of watched documents are values in it, never keys."""
    return {
        "errorsByType": [[*pair, count] for pair, count in details.by_type.items()],
        "errorsByWorker": [[*pair, count] for pair, count in details.by_worker.items()],
        "workerTypes": [
            [
                *pair,
                [list(pair) for pair in sorted(tally.outcomes.items())],
                pack(tally.run),
                tally.last_at,
            ]
            for pair, tally in details.worker_types.items()
        ],
        "slowest": [[job_type, *run] for job_type, runs in details.slowest.items() for run in runs],
    }


def load_details(document: Document) -> RunDetails:
    """The details, or a part of them, that `dump_details` stored.

    Raises KeyError, TypeError or ValueError for another document.
    """
    details = RunDetails()
    for counts, name in ((details.by_type, "errorsByType"), (details.by_worker, "errorsByWorker")):
        for group, subject, count in document.get(name, ()):
            pair = ErrorPair(require_type(group, str), require_type(subject, str))
            counts[pair] += require_type(count, int)
    for worker, job_type, outcomes, run, last_at in document.get("workerTypes", ()):
        worker_type = WorkerType(require_type(worker, str), require_type(job_type, str))
        details.worker_types[worker_type] = WorkerTally(
            outcomes=Counter(
                {require_type(name, str): require_type(count, int) for name, count in outcomes}
            ),
            run=unpack(run),
            last_at=require_type(last_at, datetime, NoneType),
        )
    for job_type, duration_ms, job_id, attempt, worker, outcome, at in document.get("slowest", ()):
        run = SlowRun(
            duration_ms=require_type(duration_ms, int),
            job_id=require_type(job_id, str),
            attempt=require_type(attempt, int, NoneType),
            worker=require_type(worker, str, NoneType),
            outcome=require_type(outcome, str),
            finished_at=require_type(at, datetime),
        )
        details.slowest.setdefault(require_type(job_type, str), []).append(run)
    return details
