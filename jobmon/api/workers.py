"""Lists the workers of a queue: what each worker runs and has run, and which are silent."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from marshmallow import fields, post_load, validate

from jobmon.api import run_examples
from jobmon.api.fields import describe, redact
from jobmon.api.openapi import Routes
from jobmon.api.parameters import optional_text, page_field, page_size_field, repeatable_field
from jobmon.api.window_queries import WindowParameters, WindowQuery
from jobmon.api.windows import format_window, resolve_window
from jobmon.api.worker_answers import JOBS_SHOWN, WorkerList
from jobmon.diagnosis.evidence import NO_END_TIMES, NOT_COUNTED
from jobmon.diagnosis.evidence_reader import find_pauses
from jobmon.diagnosis.workers import (
    SILENT,
    SORTS,
    TopError,
    Worker,
    explain_unchecked,
    find_workers,
    select_types,
    sort_workers,
)
from jobmon.domain import failure_rate
from jobmon.humanize import grouped
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.run_details import MAX_WORKER_TYPES
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.series import Durations, NoCollectorError
from jobmon.rollup.windows import Window
from jobmon.single_flight import SingleFlightCache
from jobmon.store.labels import MAX_LABEL_LENGTH, OTHER
from jobmon.store.running_jobs import MAX_READ, RunningJob, RunningJobs
from jobmon.web.queues import WatchedQueue, current_queue

NO_NAMES = "the documents do not record which worker runs a job"
NOT_NAMED = "no job and no run in the window names its worker"
NO_COLLECTOR = "no collector keeps a history"
MAX_CACHED = 20  # lists of workers; a list of 20,000 workers takes about 5 MB
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class WorkerQuery(WindowQuery):
    """A request for workers: one by its exact name, or the workers whose name contains a text.

    With `types`: only workers that run a job of these types now or ended one in the window, and
    only their runs of these types.
    """

    worker: str | None = None
    text: str = ""
    sort: str = "state"
    page: int = 1
    per_page: int = 20


class WorkerParameters(WindowParameters):
    """The workers of a queue, with their attempts in a window; by default in the last hour."""

    worker = optional_text("The worker with exactly this name.", max_length=MAX_LABEL_LENGTH + 1)
    text = optional_text("Workers whose name contains this text.", max_length=MAX_LABEL_LENGTH)
    type = repeatable_field(
        "Workers that run a job of this type now or ended one in the window. Their attempts, "
        "failures and run times are of this type; the other fields are about all of their jobs",
        20,
    )
    sort = fields.String(
        load_default="state",
        validate=validate.OneOf([*SORTS, ""]),
        **describe(
            "The field to sort by; with a leading `-` the largest or latest is first. `state`: "
            "silent workers first, then workers that run a job. `(other)` is always last."
        ),
    )
    page = page_field()
    per_page = page_size_field("Workers")

    @post_load
    def _make_query(self, query: dict[str, Any], **_: Any) -> WorkerQuery:
        window = super()._make_query(query)
        return WorkerQuery(
            **vars(window),
            worker=query["worker"] or None,
            text=query["text"] or "",
            sort=query["sort"] or "state",
            page=query["page"],
            per_page=query["per_page"],
        )


@dataclass(frozen=True, kw_only=True)
class FoundWorkers:
    """The workers of a queue, in the order of a query; `workers` and `history` are None if unknown.

    `reasons`: by field of the answer, why it is null or not complete. `lacks_workers`: whether
    matching workers may be missing, or counted as `(other)`.
    """

    window: Window
    history: RunHistory | None
    running: RunningJobs
    workers: list[Worker] | None
    lacks_workers: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all matching workers are known by name."""
        has_all_jobs = self.running.is_complete and not self.running.reason
        return has_all_jobs and self.workers is not None and not self.lacks_workers

    @property
    def groups(self) -> Mapping[str, ErrorGroup]:
        """The known groups of errors, by id."""
        return {} if self.history is None else self.history.groups


class WorkerReader:
    """Finds the workers of queues, for the JSON route and for the pages; raises PyMongoError.

    It reads the collector's buckets of a window and a bounded number of running jobs. Callers share
    the result for the same count of the collector and the same running jobs.
    """

    def __init__(self) -> None:
        self._workers: SingleFlightCache[list[Worker]] = SingleFlightCache(MAX_CACHED)

    def find(self, queue: WatchedQueue, window: Window, query: WorkerQuery) -> FoundWorkers:
        """The workers in the window that match the query."""
        reasons: dict[str, str] = {}
        running, history = _read_running(queue, reasons), _read_history(queue, window, reasons)
        found_workers = FoundWorkers(
            window=window, history=history, running=running, workers=None, reasons=reasons
        )
        if not queue.known_fields.has_worker_names:
            return replace(found_workers, reasons={"data": NO_NAMES})

        def find_all() -> list[Worker]:
            pauses = find_pauses(queue) or ()
            return find_workers(window, history, running, queue.stats.stats(), pauses)

        counted_at = None if history is None else history.as_of
        key = queue, window, counted_at, running.as_of
        workers = self._workers.get(key, find_all)
        if history is not None and (
            unchecked := explain_unchecked(window, history, queue.stats.stats())
        ):
            reasons["state"] = f"it is not checked whether workers have stopped: {unchecked}"
        has_runs = history is not None and bool(history.details.slowest or history.details.failed)
        if not workers and (has_runs or running.jobs):
            return replace(found_workers, reasons={"data": NOT_NAMED})
        has_other = any(worker.name == OTHER for worker in workers)
        if query.types:
            all_workers = workers
            workers = self._workers.get(
                (*key, query.types), lambda: select_types(all_workers, history, query.types)
            )
            reasons["topError"] = "errors of workers are not counted by type"
        if history is not None:
            _explain_attempts(history, query, reasons, has_other=has_other)
        matching = [worker for worker in workers if _matches(worker, query)]
        lacks_workers = has_other or bool(query.types and history and history.untyped_until)
        return replace(
            found_workers, workers=sort_workers(matching, query.sort), lacks_workers=lacks_workers
        )


def _read_history(
    queue: WatchedQueue, window: Window, reasons: dict[str, str]
) -> RunHistory | None:
    if "finishedAt" in queue.known_fields.unknown:
        reasons["attempts"] = NO_END_TIMES.reason
        return None
    try:
        history = queue.runs.read(window)
    except NoCollectorError:
        reasons["attempts"] = NO_COLLECTOR
        return None
    if history.is_ahead:
        reasons["attempts"] = NOT_COUNTED.reason
        return None
    return history


def _explain_attempts(
    history: RunHistory, query: WorkerQuery, reasons: dict[str, str], *, has_other: bool
) -> None:
    """Add to `reasons` why attempts may be missing or not counted by type; nothing if all are.

    `has_other`: whether some workers are counted as `(other)`.
    """
    until = history.untyped_until if query.types else None
    if history.incomplete_reason:
        reasons["attempts"] = f"some may be missing: {history.incomplete_reason}"
    elif until is not None and until <= history.as_of:
        reasons["attempts"] = (
            f"some attempts that ended before {until:%Y-%m-%d %H:%M} UTC are not counted by type"
        )
    elif until is not None or has_other:
        reasons["attempts"] = (
            f"of each minute or longer span only {MAX_WORKER_TYPES} pairs of a worker and a type "
            "are counted by name, the others as (other)"
        )


def _read_running(queue: WatchedQueue, reasons: dict[str, str]) -> RunningJobs:
    """The running jobs; `reasons` gets an entry if jobs, or the names of workers, are missing."""
    running = queue.running.read()
    if "leasedBy" in queue.known_fields.unknown:
        running = replace(running, reason="the jobs do not record which worker runs them")
    unnamed_count = sum(job.worker is None for job in running.jobs)
    if running.reason:
        reasons["runningJobs"] = running.reason
    elif not running.is_complete:
        reasons["runningJobs"] = (
            f"only {MAX_READ:,} running jobs are read, those whose lease ends first"
        )
    elif unnamed_count:
        jobs = f"{grouped(unnamed_count)} running jobs do"
        if unnamed_count == 1:
            jobs = "1 running job does"
        reasons["runningJobs"] = f"{jobs} not name the worker"
    return running


def _matches(worker: Worker, query: WorkerQuery) -> bool:
    if query.worker is not None and worker.name != query.worker:
        return False
    return query.text.lower() in worker.name.lower()


def add_routes(routes: Routes, reader: WorkerReader) -> None:
    """Add `/workers` to the routes of operators."""

    @routes.get("/workers")
    @routes.doc(operationId="listWorkers")
    @routes.arguments(WorkerParameters, location="query")
    @routes.response(HTTPStatus.OK, WorkerList, example=run_examples.WORKER_LIST)
    def workers(query: WorkerQuery) -> dict[str, Any]:
        """List the workers, with the jobs that each runs now and its attempts in a window.

        By default silent workers come first. At most 1,000 running jobs are read: those whose lease
        ends first. The attempts come from the collector's history; without a collector they are
        null.
        """
        queue = current_queue()
        window = resolve_window(queue.series, query)
        return format_workers(reader.find(queue, window, query), query)


def format_workers(found_workers: FoundWorkers, query: WorkerQuery) -> dict[str, Any]:
    """The fields of a `WorkerList`."""
    workers, history = found_workers.workers, found_workers.history
    start = (query.page - 1) * query.per_page
    meta = {
        **format_window(found_workers.window, history),
        "running_as_of": found_workers.running.as_of,
        "page": query.page,
        "per_page": query.per_page,
        "total": None if workers is None else len(workers),
        "total_is_exact": found_workers.is_complete,
        "total_pages": None if workers is None else math.ceil(len(workers) / query.per_page),
        "silent_workers": count_silent(workers),
        "reasons": found_workers.reasons,
    }
    if workers is None:
        return {"meta": meta, "data": None}
    page = workers[start : start + query.per_page]
    return {"meta": meta, "data": [format_worker(worker, found_workers) for worker in page]}


def count_silent(workers: list[Worker] | None) -> int | None:
    """How many workers are silent; None if the workers are unknown."""
    return None if workers is None else sum(worker.state in SILENT for worker in workers)


def format_worker(worker: Worker, found_workers: FoundWorkers) -> dict[str, Any]:
    """The fields of a `WorkerAnswer`."""
    has_history, now = found_workers.history is not None, found_workers.running.as_of
    are_jobs_known = not found_workers.running.reason and worker.name != OTHER
    rate = failure_rate(worker.failures, worker.attempts)
    return {
        "name": worker.name,
        "state": worker.state,
        "since": worker.since,
        "note": worker.note or None,
        "runningJobs": len(worker.jobs) if are_jobs_known else None,
        "jobs": [_format_job(job, now) for job in worker.jobs[:JOBS_SHOWN]],
        "lastSeen": worker.last_seen,
        "attempts": worker.attempts if has_history else None,
        "failures": worker.failures if has_history else None,
        "failureRate": round(rate, 4) if has_history and rate is not None else None,
        "runMs": Durations.from_histogram(worker.tally.run if worker.tally else Counter()),
        "topError": worker.top_error and _format_error(worker.top_error, found_workers.groups),
    }


def _format_job(job: RunningJob, now: datetime) -> dict[str, Any]:
    lease_left_ms = None
    if job.expires_at is not None:
        lease_left_ms = round((job.expires_at - now) / _MILLISECOND)
    return job._asdict() | {"leaseLeftMs": lease_left_ms}


def _format_error(error: TopError, groups: Mapping[str, ErrorGroup]) -> dict[str, Any]:
    group = groups.get(error.group)
    return {
        "id": error.group,
        "code": group and redact(group.code),
        "pattern": group and redact(group.pattern),
        "failures": error.failures,
    }
