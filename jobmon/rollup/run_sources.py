"""Finds where a queue records its finished runs, and makes the stages that select them.

All runs come from one collection, so that none is counted twice: from the event log if the queue
has one, else from the recorded attempts if there are any, else from the jobs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from jobmon.domain import (
    FINAL_ATTEMPT_STATUSES,
    LAST_OUTCOMES,
    STATUSES_AFTER_ATTEMPT,
    AttemptStatus,
    JobStatus,
)
from jobmon.rollup.histogram import bucket_expression
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.event_log import EVENT_TIME, EventLog
from jobmon.store.indexes import ATTEMPT_FINISHED, BY_FINISH, attempt_end_index
from jobmon.store.known_fields import has_finish_times
from jobmon.store.mapping import Document, FieldMapping, Keys
from jobmon.store.read_collection import NoIndexError, ReadCollection

_FAILED_OUTCOMES = [AttemptStatus.FAILED.value, AttemptStatus.EXPIRED.value]
_FAILED_ATTEMPTS: Document = {"status": {"$in": _FAILED_OUTCOMES}}


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """Runs that finished in a period: `stages` find them by `index`; each document is one run.

    `type`, `outcome` and the fields from `eligible_at` to `worker` are expressions about a run;
    `error_field` is the name of a field. `read_outcome` converts a value of `outcome`; it returns
    None if the run has not ended. `failed` is a query for the runs that did not succeed. If a run
    starts after its end, its duration is 0 if the source `is_exact`. Otherwise it is unknown: the
    start belongs to a later run.
    """

    documents: ReadCollection
    index: Keys
    stages: list[Document]
    type: Any
    outcome: Any
    failed: Document
    read_outcome: Callable[[Any], str | None]
    eligible_at: Any
    started_at: Any
    job_id: Any
    attempt: Any
    worker: Any
    error_field: str
    is_exact: bool = True

    @property
    def wait_bucket(self) -> Document:
        """The histogram bucket of the wait before the run; null if it is unknown."""
        return self._make_bucket(self.eligible_at, self.started_at)

    @property
    def run_bucket(self) -> Document:
        """The histogram bucket of the run's duration; null if it is unknown."""
        return self._make_bucket(self.started_at, "$finishedAt")

    @property
    def run_ms(self) -> Document:
        """The run's duration in ms; null if it is unknown."""
        return self._make_if_known(
            self.started_at,
            "$finishedAt",
            {"$max": [0, {"$subtract": ["$finishedAt", self.started_at]}]},
        )

    def _make_bucket(self, start: Any, end: Any) -> Document:
        return self._make_if_known(start, end, bucket_expression({"$subtract": [end, start]}))

    def _make_if_known(self, start: Any, end: Any, value: Any) -> Document:
        conditions: list[Document] = [{"$eq": [{"$type": date}, "date"]} for date in (start, end)]
        if not self.is_exact:
            conditions.append({"$lte": [start, end]})
        return {"$cond": [{"$and": conditions}, value, None]}


def find_run_sources(
    connection: Connection, jobs: ReadCollection, within: Document
) -> list[RunSource]:
    """The sources of the runs that finished `within` a range of dates; raises PyMongoError."""
    attempts, log = connection.attempts, connection.profile.log
    if attempts is not None and log is not None:
        return list(_make_log_sources(attempts, jobs, log, within))
    if attempts is not None and connection.has_recorded_attempts():
        return [_make_attempt_source(connection, attempts, jobs, within)]
    return [_make_job_source(connection, jobs, within)]


def aggregate_by_minute(
    watched: ReadCollection, pipeline: list[Document], index: Keys
) -> Iterator[Document]:
    """The groups that have a minute; none if the index is missing and no document has finishedAt.

    `jobmon init` creates no index for a field without values, so a missing one is no mistake.
    """
    try:
        groups = watched.aggregate(pipeline, index=index, require_index=True)
    except NoIndexError:
        if index == NEWEST_FIRST or has_finish_times(watched):
            raise
        return
    for group in groups:
        if group["_id"].get("at") is not None:
            yield group


def minute_expression(date_path: str) -> Document:
    """The minute of a date; null for an array of dates, which also matches a range of dates."""
    milliseconds = {"$mod": [{"$toLong": date_path}, 60_000]}
    is_date = {"$eq": [{"$type": date_path}, "date"]}
    return {"$cond": [is_date, {"$subtract": [date_path, milliseconds]}, None]}


def _make_attempt_source(
    connection: Connection, attempts: ReadCollection, jobs: ReadCollection, within: Document
) -> RunSource:
    eligible_at = {"$ifNull": ["$eligibleAt", _find_creation(jobs, "$attemptNumber")]}
    return RunSource(
        documents=attempts,
        index=attempt_end_index(connection.profile),
        stages=[_match_ended(within), *_look_up_job(attempts, jobs)],
        type=jobs.mapping.translate_expression("$type", under="_job"),
        outcome="$status",
        failed=_FAILED_ATTEMPTS,
        read_outcome=_make_attempt_reader(attempts),
        eligible_at=eligible_at,
        started_at="$startedAt",
        job_id="$jobId",
        attempt="$attemptNumber",
        worker="$workerId",
        error_field="error",
    )


def _make_job_source(connection: Connection, jobs: ReadCollection, within: Document) -> RunSource:
    """The source of the last run of each job."""
    job_outcome = connection.profile.outcome
    has_wait = not connection.profile.is_recurring  # else nextRunAt is when the next run is due
    if job_outcome is not None:
        ended, index = {"finishedAt": within}, ATTEMPT_FINISHED
        failed: Document = {"$expr": {"$in": [job_outcome, _FAILED_OUTCOMES]}}
        read_outcome: Callable[[Any], str | None] = _read_final_status
    else:
        statuses = jobs.mapping.select_statuses("finishedAt", STATUSES_AFTER_ATTEMPT)
        ended, index = {"status": {"$in": list(statuses)}, "finishedAt": within}, BY_FINISH
        failed_statuses = [status for status in statuses if status != JobStatus.SUCCEEDED]
        failed = {"status": {"$in": failed_statuses}}

        def read_outcome(status: Any) -> str | None:
            return LAST_OUTCOMES.get(to_text(jobs.mapping.to_contract_status(status)))

    due = {"$max": ["$createdAt", "$nextRunAt"]}
    return RunSource(
        documents=jobs,
        index=index,
        stages=[{"$match": ended}],
        type="$type",
        outcome="$status" if job_outcome is None else job_outcome,
        failed=failed,
        read_outcome=read_outcome,
        # A first attempt waited since the job was due; for later attempts the wait is unknown.
        eligible_at={"$cond": [{"$eq": ["$attemptCount", 1]}, due, None]} if has_wait else None,
        started_at="$startedAt",
        job_id="$jobId",
        attempt="$attemptCount",
        worker="$leasedBy",
        error_field="lastError",
        is_exact=False,  # if the job runs again, the start of the run that ended is overwritten
    )


def _make_log_sources(
    events: ReadCollection, jobs: ReadCollection, log: EventLog, within: Document
) -> Iterator[RunSource]:
    """Sources for the events that end a run.

    If the log has no fields for waits, the first source is for events that contain the start of
    their run. For all other events, the event that started the run is looked up.
    """
    mapping = events.mapping
    has_number = mapping.translate_expression("$attemptNumber") is not None
    has_wait = has_number or mapping.translate_expression("$eligibleAt") is not None
    job_type, look_up_job = mapping.translate_expression("$type"), []
    if job_type is None or has_number:
        look_up_job = _look_up_job(events, jobs)
    if job_type is None:
        job_type = jobs.mapping.translate_expression("$type", under="_job")
    ended = [_match_ended(within), {"$set": {"_started": log.start_expression}}]
    with_start = RunSource(
        documents=events,
        index=EVENT_TIME,
        stages=[*ended, {"$match": {"_started": {"$ne": None}}}, *look_up_job],
        type=job_type,
        outcome="$status",
        failed=_FAILED_ATTEMPTS,
        read_outcome=_make_attempt_reader(events),
        eligible_at=None,
        started_at="$_started",
        job_id="$jobId",
        attempt=None,
        worker="$workerId",
        error_field="error",
    )
    if not has_wait:
        yield with_start
        ended.append({"$match": {"_started": None}})
    look_up_start = log.look_up_start(events.name, mapping, within["$gte"], "_start")
    stages = [*ended, *look_up_start, *look_up_job]
    yield replace(with_start, stages=stages, **_find_in_both_events(mapping, jobs, has_number))


def _find_in_both_events(
    mapping: FieldMapping, jobs: ReadCollection, has_number: bool
) -> dict[str, Any]:
    """Fields of a `RunSource`, from the event of a run's end, or else of its start (`_start`)."""

    def find_in_start(field: str) -> Any:
        return mapping.translate_expression(field, under="_start")

    attempt_number = {"$ifNull": ["$attemptNumber", find_in_start("$attemptNumber")]}
    created_at = _find_creation(jobs, attempt_number) if has_number else None
    return {
        "eligible_at": {"$ifNull": ["$eligibleAt", find_in_start("$eligibleAt"), created_at]},
        "started_at": {
            "$ifNull": ["$_started", find_in_start("$startedAt"), find_in_start("$finishedAt")]
        },
        "attempt": attempt_number,
        "worker": {"$ifNull": ["$workerId", find_in_start("$workerId")]},
    }


def _make_attempt_reader(attempts: ReadCollection) -> Callable[[Any], str | None]:
    def read_outcome(status: Any) -> str | None:
        return _read_final_status(attempts.mapping.to_contract_status(status))

    return read_outcome


def _read_final_status(status: Any) -> str | None:
    """The status of an attempt; None if the attempt has not ended."""
    outcome = to_text(status)
    return outcome if outcome in FINAL_ATTEMPT_STATUSES else None


def _match_ended(within: Document) -> Document:
    return {"$match": {"finishedAt": within, "status": {"$in": list(FINAL_ATTEMPT_STATUSES)}}}


def _look_up_job(attempts: ReadCollection, jobs: ReadCollection) -> list[Document]:
    """Stages that add the job as `_job`.

    The $lookup has no pipeline: MongoDB 6.0 joins several times faster without one, because it then
    uses its slot-based engine.
    """
    local, foreign = attempts.mapping.paths["jobId"], jobs.mapping.paths["jobId"]
    add_ids: list[Document] = []
    if foreign == "_id":  # an attempt may hold its job's ObjectId as text
        as_id = {"$convert": {"input": "$jobId", "to": "objectId", "onError": "$jobId"}}
        add_ids, local = [{"$set": {"_jobIds": ["$jobId", as_id]}}], "_jobIds"
    by_job_id = {"localField": local, "foreignField": foreign}
    return [
        *add_ids,
        {"$lookup": {"from": jobs.name, **by_job_id, "as": "_job"}},
        {"$set": {"_job": {"$first": "$_job"}}},
    ]


def _find_creation(jobs: ReadCollection, attempt_number: Any) -> Document:
    """When the job was created, for a first attempt; null for later attempts."""
    created_at = jobs.mapping.translate_expression("$createdAt", under="_job")
    return {"$cond": [{"$eq": [attempt_number, 1]}, created_at, None]}
