"""What a bucket of the history knows of single runs: errors, workers and the slowest attempts.

Each part is bounded. What is beyond a bound is counted under `(other)`, so that sums stay exact.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Self

from jobmon.domain import AttemptStatus
from jobmon.rollup.documents import require_type
from jobmon.rollup.histogram import Histogram, pack, unpack
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document

# In a bucket: pairs of a group and a type, or a worker; workers; and types with slowest attempts.
MAX_PAIRS = 1_000
MAX_WORKERS = 500
MAX_SLOW_TYPES = 200  # up to 12 KB each, if names have 200 characters of 4 bytes
SLOWEST = 5  # attempts of a type in a bucket


class ErrorGroupOf(NamedTuple):
    """Failed runs of one group of errors and one type, or of one worker; `of` names it."""

    group: str
    of: str


class SlowRun(NamedTuple):
    """A finished run; `finished_at` is UTC. `attempt` is None if the queue does not number them."""

    duration_ms: int
    job_id: str
    attempt: int | None
    worker: str | None
    outcome: str
    finished_at: datetime


@dataclass
class WorkerTally:
    """The finished runs of one worker: by outcome, their durations, and when the last one ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    run: Histogram = field(default_factory=Counter)
    last_at: datetime | None = None

    def add(self, other: Self) -> None:
        """Add the runs of `other`."""
        self.outcomes.update(other.outcomes)
        self.run.update(other.run)
        known = [at for at in (self.last_at, other.last_at) if at is not None]
        self.last_at = max(known, default=None)

    @property
    def failed(self) -> int:
        """Runs with another outcome than success."""
        return self.outcomes.total() - self.outcomes[AttemptStatus.SUCCEEDED.value]


@dataclass
class RunDetails:
    """The details of the finished runs in some time.

    `by_type` and `by_worker` each count every failed run once, by its group of errors. Runs
    without a known worker are only in `by_type`. `slowest` has the longest runs first, by type.
    Unless `is_known`, a part was counted by a version without details.
    """

    by_type: Counter[ErrorGroupOf] = field(default_factory=Counter)
    by_worker: Counter[ErrorGroupOf] = field(default_factory=Counter)
    workers: dict[str, WorkerTally] = field(default_factory=dict)
    slowest: dict[str, list[SlowRun]] = field(default_factory=dict)
    is_known: bool = True

    def add(self, other: Self) -> None:
        """Add the runs of `other`."""
        self.by_type.update(other.by_type)
        self.by_worker.update(other.by_worker)
        for name, tally in other.workers.items():
            self.workers.setdefault(name, WorkerTally()).add(tally)
        for kind, runs in other.slowest.items():
            self.slowest[kind] = select_slowest([*self.slowest.get(kind, []), *runs])
        self.is_known = self.is_known and other.is_known

    def maximum(self, other: Self) -> "RunDetails":
        """For each type and worker the details of more runs: both may lack some."""
        workers = dict(self.workers)
        for name, tally in other.workers.items():
            if name not in workers or tally.outcomes.total() > workers[name].outcomes.total():
                workers[name] = tally
        slowest = dict(self.slowest)
        for kind, runs in other.slowest.items():
            both = {(run.job_id, run.finished_at): run for run in [*runs, *slowest.get(kind, [])]}
            slowest[kind] = select_slowest(both.values())
        return RunDetails(
            by_type=_select_larger(self.by_type, other.by_type),
            by_worker=_select_larger(self.by_worker, other.by_worker),
            workers=workers,
            slowest=slowest,
            is_known=self.is_known and other.is_known,
        )

    def add_unknown_errors(self, failed: Mapping[str, int]) -> None:
        """Count failed runs by type as `(other)`, as far as fewer than these have a group.

        Compares the sums: a rare type may be counted under another name there.
        """
        missing = sum(failed.values()) - self.failed
        if missing <= 0:
            return
        unknown = Counter(failed)
        for pair, count in self.by_type.items():
            unknown[pair.of] -= count
        for kind, count in (+unknown).items():
            added = min(count, missing)
            self.by_type[ErrorGroupOf(OTHER, kind)] += added
            missing -= added

    @property
    def failed(self) -> int:
        """The number of failed runs."""
        return self.by_type.total()

    @property
    def runs(self) -> int:
        """The number of runs that are known in detail: failed ones, and those of known workers."""
        succeeded = sum(tally.outcomes.total() - tally.failed for tally in self.workers.values())
        return self.failed + succeeded

    def count_by_group(self) -> Counter[str]:
        """Failed runs by group of errors."""
        groups: Counter[str] = Counter()
        for (group, _), count in self.by_type.items():
            groups[group] += count
        return groups


def _select_larger(
    first: Counter[ErrorGroupOf], second: Counter[ErrorGroupOf]
) -> Counter[ErrorGroupOf]:
    """The counts of each type or worker from the one in which it has more."""
    totals: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for total, counts in zip(totals, (first, second), strict=True):
        for pair, count in counts.items():
            total[pair.of] += count
    larger = {pair: n for pair, n in first.items() if totals[0][pair.of] >= totals[1][pair.of]}
    return Counter(
        larger | {pair: n for pair, n in second.items() if totals[1][pair.of] > totals[0][pair.of]}
    )


def select_slowest(runs: Iterable[SlowRun]) -> list[SlowRun]:
    """The `SLOWEST` longest of these runs, the longest first; each once."""
    return sorted(set(runs), key=lambda run: (-run.duration_ms, run.finished_at, run.job_id))[
        :SLOWEST
    ]


def merge_details(many: Iterable[RunDetails]) -> RunDetails:
    """The sum of these details."""
    merged = RunDetails()
    for details in many:
        merged.add(details)
    return merged


def fold_details(details: RunDetails) -> RunDetails:
    """The details within the bounds of a bucket; the rarest of each part become `(other)`."""
    workers, names = details.workers, frozenset(details.workers)
    if len(workers) > MAX_WORKERS:
        ranked = sorted(
            workers, key=lambda name: (name == OTHER, -workers[name].outcomes.total(), name)
        )
        names = frozenset(ranked[: MAX_WORKERS - 1])
    folded = RunDetails(
        by_type=_fold_pairs(details.by_type), by_worker=_fold_pairs(details.by_worker)
    )
    for name, tally in workers.items():
        folded.workers.setdefault(name if name in names else OTHER, WorkerTally()).add(tally)
    longest = sorted(details.slowest, key=lambda kind: -details.slowest[kind][0].duration_ms)
    folded.slowest = {kind: details.slowest[kind] for kind in longest[:MAX_SLOW_TYPES]}
    return folded


def _fold_pairs(counts: Counter[ErrorGroupOf]) -> Counter[ErrorGroupOf]:
    """First the types or workers of a group are folded, then rare groups themselves."""
    if len(counts) <= MAX_PAIRS:
        return counts
    kept = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: MAX_PAIRS // 2])
    rest: Counter[ErrorGroupOf] = Counter()
    for pair, count in counts.items():
        if pair not in kept:
            rest[ErrorGroupOf(pair.group, OTHER)] += count
    folded = Counter(kept)
    for number, (pair, count) in enumerate(
        sorted(rest.items(), key=lambda pair: (-pair[1], pair[0]))
    ):
        is_kept = number < MAX_PAIRS // 2 - 1
        folded[pair if is_kept else ErrorGroupOf(OTHER, OTHER)] += count
    return folded


def dump_details(details: RunDetails) -> Document:
    """The stored form. A text of a watched document is a value there, never a key."""
    return {
        "errorsByType": [[*pair, count] for pair, count in details.by_type.items()],
        "errorsByWorker": [[*pair, count] for pair, count in details.by_worker.items()],
        "workers": [
            {
                "name": name,
                "outcomes": [list(pair) for pair in sorted(tally.outcomes.items())],
                "run": pack(tally.run),
                "lastAt": tally.last_at,
            }
            for name, tally in details.workers.items()
        ],
        "slowest": [[kind, *run] for kind, runs in details.slowest.items() for run in runs],
    }


def load_details(document: Document | None) -> RunDetails:
    """The details that `dump_details` stored, or a part of them; unknown ones if there are none.

    Raises MalformedError, KeyError, TypeError or ValueError for another document.
    """
    if document is None:
        return RunDetails(is_known=False)
    details = RunDetails()
    for counts, name in ((details.by_type, "errorsByType"), (details.by_worker, "errorsByWorker")):
        for group, of, count in document.get(name, ()):
            pair = ErrorGroupOf(require_type(group, str), require_type(of, str))
            counts[pair] += require_type(count, int)
    for worker in document.get("workers", ()):
        last_at = worker["lastAt"]
        details.workers[require_type(worker["name"], str)] = WorkerTally(
            outcomes=Counter(
                {require_type(name, str): require_type(n, int) for name, n in worker["outcomes"]}
            ),
            run=unpack(worker["run"]),
            last_at=None if last_at is None else require_type(last_at, datetime),
        )
    for kind, duration_ms, job_id, attempt, name, outcome, at in document.get("slowest", ()):
        run = SlowRun(
            duration_ms=require_type(duration_ms, int),
            job_id=require_type(job_id, str),
            attempt=None if attempt is None else require_type(attempt, int),
            worker=None if name is None else require_type(name, str),
            outcome=require_type(outcome, str),
            finished_at=require_type(at, datetime),
        )
        details.slowest.setdefault(require_type(kind, str), []).append(run)
    return details
