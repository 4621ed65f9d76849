"""Counts the details of finished runs: errors by group, workers and the slowest runs."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from pymongo.errors import OperationFailure

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.runs import FinishedRun
from jobmon.domain import AttemptStatus
from jobmon.rollup.buckets import Tallies, count_failed, floor
from jobmon.rollup.histogram import bucket
from jobmon.rollup.run_details import (
    SLOWEST,
    ErrorPair,
    RunDetails,
    SlowRun,
    WorkerType,
    select_slowest,
)
from jobmon.rollup.run_sources import (
    RunSource,
    aggregate_by_minute,
    find_run_sources,
    minute_expression,
)
from jobmon.store.attempts import recorded_count
from jobmon.store.bson_json import make_aware, read_date
from jobmon.store.connection import Connection
from jobmon.store.failures import Failure, classify_failure
from jobmon.store.labels import MAX_LABEL_LENGTH, OTHER, label, worker_label
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError, ReadCollection
from jobmon.store.short_errors import make_short_error_expression, shorten_error

log = logging.getLogger(__name__)

MAX_ERRORS_READ = 10_000  # failed runs in one query; further runs are counted as `(other)`
# After such a failure the query may succeed for a shorter window, or without a malformed document.
# None is an unclassified failure, for example because a text is not valid UTF-8.
_DIVIDED_FAILURES = (None, Failure.TOO_SLOW, Failure.TOO_LARGE)
T = TypeVar("T")


class RunDetailsCounter:
    """Counts details of the watched queue's finished runs, with errors grouped by `groups`.

    Methods raise PyMongoError.
    """

    def __init__(self, connection: Connection, groups: ErrorGroups) -> None:
        self._connection = connection
        self._groups = groups
        self._has_warned = False

    def count(
        self,
        counted: Mapping[datetime, Tallies],
        span: timedelta,
        *,
        only: Collection[datetime] | None = None,
        jobs: ReadCollection | None = None,
    ) -> dict[datetime, RunDetails]:
        """The details of the spans that begin at the times in `only`; by default of all spans.

        `counted` is the activity of all spans. Each failed run is in one group: `(other)` if its
        error cannot be read. `jobs`: a snapshot to count instead of the present jobs.
        """
        jobs = jobs or self._connection.jobs
        spans: dict[datetime, _SpanCounts] = {}
        finished = sorted(at for at, tallies in counted.items() if _count_finished(tallies))
        only = counted.keys() if only is None else only
        for is_counted, group in groupby(finished, lambda at: at in only):
            starts = list(group)  # no run ended between these spans
            if not is_counted:
                continue
            end = starts[-1] + span
            spans |= self._read_divided(partial(self._count_runs, jobs, span), starts[0], end, span)
            failed = {at: spans[at].failed for at in starts if at in spans and spans[at].failed}
            for first, last in _list_windows(failed, span):
                read_errors = partial(self._read_errors, jobs, span)
                errors = self._read_divided(read_errors, first, last, span)
                for at in errors.keys() & failed.keys():
                    spans[at].errors = errors[at]
        return {at: spans.get(at, _SpanCounts()).to_details(counted[at]) for at in only}

    def _read_divided(
        self,
        read: Callable[[datetime, datetime], dict[datetime, T]],
        start: datetime,
        end: datetime,
        span: timedelta,
    ) -> dict[datetime, T]:
        """The result of `read` from `start` to before `end`, without spans that cannot be read."""
        try:
            return read(start, end)
        except OperationFailure as error:
            is_missing = isinstance(error, NoIndexError)
            if is_missing or classify_failure(error) not in _DIVIDED_FAILURES:
                raise
            if end - start <= span:
                if not self._has_warned:
                    self._has_warned = True
                    log.warning("runs of one time span cannot be read: %s", type(error).__name__)
                return {}
        middle = start + max(1, (end - start) // span // 2) * span
        earlier = self._read_divided(read, start, middle, span)
        return earlier | self._read_divided(read, middle, end, span)

    def _count_runs(
        self, jobs: ReadCollection, span: timedelta, start: datetime, end: datetime
    ) -> dict[datetime, "_SpanCounts"]:
        spans: dict[datetime, _SpanCounts] = {}
        for source in find_run_sources(self._connection, jobs, {"$gte": start, "$lt": end}):
            for group in _group_runs(source):
                at = floor(group["_id"]["at"], span)
                self._add_group(spans.setdefault(at, _SpanCounts()), group, source)
        return spans

    def _add_group(self, counts: "_SpanCounts", group: Document, source: RunSource) -> None:
        outcome = source.read_outcome(group["_id"].get("outcome"))
        if outcome is None:
            return
        job_type, details = label(group["_id"].get("type")), counts.details
        worker = self._groups.redact_worker(worker_label(group["_id"].get("worker")))
        if outcome != AttemptStatus.SUCCEEDED:
            counts.failed_by_type[job_type] += len(group["run"])
            if worker is not None:
                counts.failed_by_worker[worker] += len(group["run"])
        if worker is not None:
            tally = details.find_tally(WorkerType(worker, job_type))
            tally.outcomes[outcome] += len(group["run"])
            for run_bucket in group["run"]:
                if run_bucket is not None:
                    tally.run[int(run_bucket)] += 1
            tally.add_end(read_date(group["last"]))
        runs = [
            SlowRun(
                duration_ms=int(duration_ms),
                job_id=label(job_id),
                attempt=recorded_count({"attemptCount": attempt}) or None,
                worker=worker,
                outcome=outcome,
                finished_at=make_aware(finished_at),
            )
            for duration_ms, job_id, attempt, finished_at in group["slowest"]
            if duration_ms is not None and job_id is not None and isinstance(finished_at, datetime)
        ]
        if runs:
            details.slowest[job_type] = select_slowest([*details.slowest.get(job_type, []), *runs])

    def _read_errors(
        self, jobs: ReadCollection, span: timedelta, start: datetime, end: datetime
    ) -> dict[datetime, RunDetails]:
        """The errors of the failed runs by span; at most `MAX_ERRORS_READ` runs of each source."""
        errors: dict[datetime, RunDetails] = {}
        for source in find_run_sources(self._connection, jobs, {"$gte": start, "$lt": end}):
            runs = self._read_failed(source)
            for run, group_id in zip(runs, self._groups.group(runs), strict=True):
                at = floor(run.finished_at, span)
                add_error(errors.setdefault(at, RunDetails()), run, group_id)
        return errors

    def _read_failed(self, source: RunSource) -> list[FinishedRun]:
        """The failed runs of a source, with their errors shortened, by the server if it can."""
        pipeline: list[Document] = [
            *source.stages,
            {"$match": source.failed},
            {"$limit": MAX_ERRORS_READ},
        ]
        run_fields: Document = {
            "_type": source.type,
            "_worker": _truncate_name(source.worker),
            "_outcome": source.outcome,
            "_jobId": _truncate_name(source.job_id),
            "_finishedAt": "$finishedAt",
        }
        if source.documents.mapping.can_compute(source.error_field):
            shortened = make_short_error_expression("$_error")
            pipeline += [
                {"$set": {"_error": f"${source.error_field}"}},
                {"$project": {"_id": 0, **run_fields, "_short": shortened}},
            ]
        else:
            pipeline.append({"$project": {source.error_field: True, **run_fields}})
        results = source.documents.aggregate(
            pipeline,
            index=source.index,
            require_index=True,
            # Converted one by one: a document may be large.
            transform=lambda document: {"run": self._make_run(document, source)},
        )
        return [result["run"] for result in results if result["run"] is not None]

    def _make_run(self, document: Document, source: RunSource) -> FinishedRun | None:
        outcome = source.read_outcome(document.get("_outcome"))
        finished_at = document.get("_finishedAt")
        is_failed = outcome not in (None, AttemptStatus.SUCCEEDED.value)
        if not is_failed or not isinstance(finished_at, datetime):
            return None
        if "_short" in document:
            error = document["_short"]
        else:
            contract = source.documents.mapping.to_contract(document)
            error = shorten_error(contract.get(source.error_field))
        return FinishedRun(
            type=label(document.get("_type")),
            worker=self._groups.redact_worker(worker_label(document.get("_worker"))),
            outcome=str(outcome),
            job_id=label(document.get("_jobId")),
            finished_at=make_aware(finished_at),
            error=error,
        )


@dataclass
class _SpanCounts:
    """A span's details without errors, its counts of failed runs, and the errors read so far."""

    details: RunDetails = field(default_factory=RunDetails)
    failed_by_type: Counter[str] = field(default_factory=Counter)
    failed_by_worker: Counter[str] = field(default_factory=Counter)
    errors: RunDetails = field(default_factory=RunDetails)

    @property
    def failed(self) -> int:
        return self.failed_by_type.total()

    def to_details(self, tallies: Tallies) -> RunDetails:
        """The details with all errors; errors that were not read are counted as `(other)`.

        `tallies`: the activity of the span, with all of its failed runs.
        """
        details = replace(
            self.details,
            by_type=_add_unread(self.errors.by_type, self.failed_by_type),
            by_worker=_add_unread(self.errors.by_worker, self.failed_by_worker),
        )
        details.add_unknown_errors(count_failed(tallies))
        return details


def _add_unread(read: Counter[ErrorPair], failed: Counter[str]) -> Counter[ErrorPair]:
    """The errors that were read, and the remaining failed runs as `(other)`."""
    counts, unread = Counter(read), Counter(failed)
    for pair, count in read.items():
        unread[pair.subject] -= count
    for name, count in (+unread).items():
        counts[ErrorPair(OTHER, name)] += count
    return counts


def _list_windows(
    failed: Mapping[datetime, int], span: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    """Start and end of windows: one span, or several with up to `MAX_ERRORS_READ` failed runs."""
    start: datetime | None = None
    end, total = datetime.max.replace(tzinfo=UTC), 0
    for at, count in failed.items():
        if start is not None and total + count > MAX_ERRORS_READ:
            yield start, end
            start, total = None, 0
        start, end, total = start or at, at + span, total + count
    if start is not None:
        yield start, end


def _count_finished(tallies: Tallies) -> int:
    return sum(tally.outcomes.total() for tally in tallies.values())


def add_run(details: RunDetails, run: FinishedRun, group_id: str | None) -> None:
    """Add a run; `group_id`: the group of its error, None if the run succeeded."""
    duration_ms = None
    if run.started_at is not None and run.started_at <= run.finished_at:
        duration_ms = (run.finished_at - run.started_at) // timedelta(milliseconds=1)
    if group_id is not None:
        add_error(details, run, group_id)
    if run.worker is not None:
        tally = details.find_tally(WorkerType(run.worker, run.type))
        tally.outcomes[run.outcome] += 1
        tally.add_end(run.finished_at)
        if duration_ms is not None:
            tally.run[bucket(duration_ms)] += 1
    slowest = details.slowest.get(run.type, [])
    is_slow = len(slowest) < SLOWEST or slowest[-1].duration_ms <= (duration_ms or 0)
    if duration_ms is not None and run.job_id and is_slow:
        slow = SlowRun(
            duration_ms=duration_ms,
            job_id=run.job_id,
            attempt=run.attempt,
            worker=run.worker,
            outcome=run.outcome,
            finished_at=run.finished_at,
        )
        details.slowest[run.type] = select_slowest([*slowest, slow])


def add_error(details: RunDetails, run: FinishedRun, group_id: str) -> None:
    """Count a failed run with an error of this group."""
    details.by_type[ErrorPair(group_id, run.type)] += 1
    if run.worker is not None:
        details.by_worker[ErrorPair(group_id, run.worker)] += 1


def _group_runs(source: RunSource) -> Iterator[Document]:
    """The runs, grouped by minute, type, worker and outcome; each group lists its slowest runs."""
    slowest = {
        "n": SLOWEST,
        "sortBy": {"_ms": -1},
        "output": ["$_ms", _truncate_name(source.job_id), source.attempt, "$finishedAt"],
    }
    pipeline: list[Document] = [
        *source.stages,
        {"$set": {"_ms": source.run_ms}},
        {
            "$group": {
                "_id": {
                    "at": minute_expression("$finishedAt"),
                    "type": source.type,
                    "worker": _truncate_name(source.worker),
                    "outcome": source.outcome,
                },
                "run": {"$push": source.run_bucket},
                "last": {"$max": "$finishedAt"},
                "slowest": {"$topN": slowest},
            }
        },
    ]
    return aggregate_by_minute(source.documents, pipeline, source.index)


def _truncate_name(name: Any) -> Document:
    """The name of a job or a worker; a long text is cut to the part that decides its label."""
    is_text = {"$eq": [{"$type": name}, "string"]}
    # An unmapped field is a constant null here: without `$ifNull` the server refuses its length.
    is_long = {"$gt": [{"$strLenBytes": {"$ifNull": [name, ""]}}, 900]}
    truncated = {"$cond": [is_long, {"$substrCP": [name, 0, MAX_LABEL_LENGTH + 1]}, name]}
    return {"$cond": [is_text, truncated, name]}
