"""Counts the details of finished runs: errors by group, workers and the slowest runs."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pymongo.errors import OperationFailure

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.runs import FinishedRun
from jobmon.domain import AttemptStatus
from jobmon.rollup.buckets import Tallies, Tally, floor
from jobmon.rollup.histogram import bucket
from jobmon.rollup.run_details import (
    SLOWEST,
    ErrorGroupOf,
    RunDetails,
    SlowRun,
    WorkerTally,
    select_slowest,
)
from jobmon.rollup.run_sources import (
    RunSource,
    aggregate_by_minute,
    find_run_sources,
    minute_expression,
)
from jobmon.store.attempts import attempt_count
from jobmon.store.bson_json import to_text, to_utc
from jobmon.store.connection import Connection
from jobmon.store.failures import Failure, classify_failure
from jobmon.store.labels import OTHER, label, worker_label
from jobmon.store.mapping import Document
from jobmon.store.read_collection import ReadCollection, is_bad_hint
from jobmon.store.truncate import truncated_error

log = logging.getLogger(__name__)

MAX_ERRORS_READ = 10_000  # failed runs in one query; others are counted as `(other)`
# Failures of a query that succeeds for a shorter time, or without an odd document. None: the query
# itself failed, for example at a text that is no valid UTF-8.
_QUERY_FAILED = (None, Failure.TOO_SLOW, Failure.TOO_LARGE)


class RunDetailsCounter:
    """Counts details of the watched queue's finished runs, with errors grouped by `groups`.

    Methods raise PyMongoError.
    """

    def __init__(self, connection: Connection, groups: ErrorGroups) -> None:
        self._connection = connection
        self._groups = groups
        self._warned = False

    def count(
        self,
        counted: Mapping[datetime, Tallies],
        span: timedelta,
        *,
        jobs: ReadCollection | None = None,
    ) -> dict[datetime, RunDetails]:
        """The details of these spans, by their start; `counted` is their activity.

        If the details of a span cannot be read, its failed runs are all counted as `(other)`.
        `jobs`: a snapshot of the jobs to count instead.
        """
        found: dict[datetime, RunDetails] = {}
        jobs = jobs or self._connection.jobs
        finished = [at for at, tallies in counted.items() if any(map(_has_runs, tallies.values()))]
        for start, end in _join(sorted(finished), span):
            found |= self._count(jobs, start, end, span, counted)
        return found

    def _count(
        self,
        jobs: ReadCollection,
        start: datetime,
        end: datetime,
        span: timedelta,
        counted: Mapping[datetime, Tallies],
    ) -> dict[datetime, RunDetails]:
        is_one = end - start <= span
        try:
            details = self._read(jobs, start, end, span, is_one)
        except OperationFailure as error:
            if classify_failure(error) not in _QUERY_FAILED or is_bad_hint(error):
                raise
            details = None
            if is_one and not self._warned:
                self._warned = True
                log.warning("errors of a time are not grouped: %s", type(error).__name__)
        if details is not None:
            return details
        if is_one:
            return {start: _count_as_other(counted.get(start, {}))}
        middle = start + max(1, (end - start) // span // 2) * span
        return {
            **self._count(jobs, start, middle, span, counted),
            **self._count(jobs, middle, end, span, counted),
        }

    def _read(
        self,
        jobs: ReadCollection,
        start: datetime,
        end: datetime,
        span: timedelta,
        is_one: bool,
    ) -> dict[datetime, RunDetails] | None:
        """The details of the spans from `start` to before `end`; None if too many runs failed."""
        found: dict[datetime, RunDetails] = {}
        failed: dict[datetime, _FailedCounts] = {}
        runs: list[FinishedRun] = []
        within = {"$gte": start, "$lt": end}
        for source in find_run_sources(self._connection, jobs, within):
            has_failed = False
            for group in _group_runs(source):
                at = floor(group["_id"]["at"], span)
                _add_group(found.setdefault(at, RunDetails()), group, source)
                counts = failed.setdefault(at, _FailedCounts())
                has_failed = counts.add(group, source) or has_failed
            if has_failed:
                runs += _read_failed(source)
        if len(runs) >= MAX_ERRORS_READ and not is_one:
            return None
        read: dict[datetime, RunDetails] = {}
        for run, name in zip(runs, self._groups.group(runs), strict=True):
            add_error(read.setdefault(floor(run.finished_at, span), RunDetails()), run, name)
        for at, counts in failed.items():
            counts.complete(found[at], read.get(at, RunDetails()))
        return found


class _FailedCounts:
    """Failed runs of a span by type and by worker, whose errors may not all be read."""

    def __init__(self) -> None:
        self._by_type: Counter[str] = Counter()
        self._by_worker: Counter[str] = Counter()

    def add(self, group: Document, source: RunSource) -> bool:
        """Add a group of runs, if they failed; returns whether they did."""
        outcome = source.read_outcome(group["_id"].get("outcome"))
        if outcome in (None, AttemptStatus.SUCCEEDED.value):
            return False
        self._by_type[label(group["_id"].get("type"))] += len(group["run"])
        if (worker := worker_label(group["_id"].get("worker"))) is not None:
            self._by_worker[worker] += len(group["run"])
        return True

    def complete(self, details: RunDetails, read: RunDetails) -> None:
        """Add the errors that were read, and all others as `(other)`."""
        for ours, known, counts in (
            (details.by_type, read.by_type, self._by_type),
            (details.by_worker, read.by_worker, self._by_worker),
        ):
            ours.update(known)
            rest = Counter(counts)
            for pair, count in known.items():
                rest[pair.of] -= count
            for of, count in rest.items():
                if count > 0:
                    ours[ErrorGroupOf(OTHER, of)] += count


def _join(spans: list[datetime], span: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """Start and end of each uninterrupted sequence of spans."""
    start: datetime | None = None
    for number, at in enumerate(spans):
        start = start or at
        if number + 1 == len(spans) or spans[number + 1] != at + span:
            yield start, at + span
            start = None


def _has_runs(tally: Tally) -> bool:
    return tally.outcomes.total() > 0


def _count_as_other(tallies: Tallies) -> RunDetails:
    details = RunDetails()
    for kind, tally in tallies.items():
        failed = tally.outcomes.total() - tally.outcomes[AttemptStatus.SUCCEEDED.value]
        if failed:
            details.by_type[ErrorGroupOf(OTHER, kind)] += failed
    return details


def add_run(details: RunDetails, run: FinishedRun, group: str | None) -> None:
    """Add a run; `group` is that of its error, None if it succeeded."""
    milliseconds = None
    if run.started_at is not None and run.started_at <= run.finished_at:
        milliseconds = (run.finished_at - run.started_at) // timedelta(milliseconds=1)
    if group is not None:
        add_error(details, run, group)
    if run.worker is not None:
        tally = WorkerTally(outcomes=Counter([run.outcome]), last_at=run.finished_at)
        if milliseconds is not None:
            tally.run[bucket(milliseconds)] += 1
        details.workers.setdefault(run.worker, WorkerTally()).add(tally)
    if milliseconds is not None and run.job_id:
        slow = SlowRun(
            duration_ms=milliseconds,
            job_id=run.job_id,
            attempt=run.attempt,
            worker=run.worker,
            outcome=run.outcome,
            finished_at=run.finished_at,
        )
        details.slowest[run.type] = select_slowest([*details.slowest.get(run.type, []), slow])


def add_error(details: RunDetails, run: FinishedRun, group: str) -> None:
    """Count a failed run of this group."""
    details.by_type[ErrorGroupOf(group, run.type)] += 1
    if run.worker is not None:
        details.by_worker[ErrorGroupOf(group, run.worker)] += 1


def _group_runs(source: RunSource) -> Iterator[Document]:
    """The runs by minute, type, worker and outcome, each group with its slowest ones."""
    slowest = {
        "n": SLOWEST,
        "sortBy": {"_ms": -1},
        "output": ["$_ms", source.job_id, source.attempt, "$finishedAt"],
    }
    pipeline: list[Document] = [
        *source.stages,
        {"$set": {"_ms": source.run_ms}},
        {
            "$group": {
                "_id": {
                    "at": minute_expression("$finishedAt"),
                    "type": source.type,
                    "worker": source.worker,
                    "outcome": source.outcome,
                },
                "run": {"$push": source.run_bucket},
                "last": {"$max": "$finishedAt"},
                "slowest": {"$topN": slowest},
            }
        },
    ]
    return aggregate_by_minute(source.documents, pipeline, source.index)


def _add_group(details: RunDetails, group: Document, source: RunSource) -> None:
    outcome = source.read_outcome(group["_id"].get("outcome"))
    if outcome is None:
        return
    kind, worker = label(group["_id"].get("type")), worker_label(group["_id"].get("worker"))
    if worker is not None:
        last = group["last"]
        tally = WorkerTally(
            outcomes=Counter({outcome: len(group["run"])}),
            run=Counter(int(bucket) for bucket in group["run"] if bucket is not None),
            last_at=to_utc(last) if isinstance(last, datetime) else None,
        )
        details.workers.setdefault(worker, WorkerTally()).add(tally)
    runs = [
        SlowRun(
            duration_ms=int(duration_ms),
            job_id=to_text(job_id),
            attempt=attempt_count({"attemptCount": attempt}, default=0) or None,
            worker=worker,
            outcome=outcome,
            finished_at=to_utc(finished_at),
        )
        for duration_ms, job_id, attempt, finished_at in group["slowest"]
        if duration_ms is not None and job_id is not None and isinstance(finished_at, datetime)
    ]
    if runs:
        details.slowest[kind] = select_slowest([*details.slowest.get(kind, []), *runs])


def _read_failed(source: RunSource) -> list[FinishedRun]:
    """The failed runs, with their errors, up to `MAX_ERRORS_READ`."""
    pipeline: list[Document] = [
        *source.stages,
        {"$match": source.failed},
        {"$limit": MAX_ERRORS_READ},
    ]
    run: Document = {
        "_type": source.type,
        "_worker": source.worker,
        "_outcome": source.outcome,
        "_jobId": source.job_id,
        "_finishedAt": "$finishedAt",
    }
    if source.documents.mapping.can_compute(source.error_field):
        pipeline += [
            {"$set": {"_error": f"${source.error_field}"}},
            {"$project": {"_id": 0, **run, "_truncated": truncated_error("$_error")}},
        ]
    else:
        pipeline.append({"$project": {source.error_field: True, **run}})
    found = source.documents.aggregate(
        pipeline,
        index=source.index,
        require_index=True,
        # Reduced one by one: a document may be large.
        transform=lambda document: {"run": _make_run(document, source)},
    )
    return [each["run"] for each in found if each["run"] is not None]


def _make_run(document: Document, source: RunSource) -> FinishedRun | None:
    outcome, ended = source.read_outcome(document.get("_outcome")), document.get("_finishedAt")
    if outcome in (None, AttemptStatus.SUCCEEDED.value) or not isinstance(ended, datetime):
        return None
    mapping = source.documents.mapping
    return FinishedRun(
        type=label(document.get("_type")),
        worker=worker_label(document.get("_worker")),
        outcome=str(outcome),
        job_id=to_text(document.get("_jobId")),
        finished_at=to_utc(ended),
        error=document["_truncated"]
        if "_truncated" in document
        else mapping.to_contract(document).get(source.error_field),
    )
