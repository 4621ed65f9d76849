"""Counts activity in the watched collections: enqueued jobs, finished attempts and dead jobs."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure

from jobmon.domain import FINAL_ATTEMPT_STATUSES, LAST_OUTCOMES, STATUSES_AFTER_ATTEMPT, JobStatus
from jobmon.rollup.buckets import Tallies, Tally, floor
from jobmon.rollup.histogram import bucket_expression
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.event_log import EventLog
from jobmon.store.indexes import ATTEMPT_FINISHED, BY_FINISH, attempt_end_index
from jobmon.store.known_fields import has_finished
from jobmon.store.labels import label
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection, is_bad_hint


def count_activity(
    connection: Connection,
    start: datetime,
    end: datetime,
    span: timedelta,
    *,
    jobs: ReadCollection | None = None,
) -> dict[datetime, Tallies]:
    """Count from `start` to before `end`; returns the tallies by the start of each span.

    Spans without activity are absent. Three queries, each with an index; PyMongoError, with
    `is_bad_hint` where that index is missing. `jobs`: a snapshot of the jobs to count instead.
    """
    within = {"$gte": start, "$lt": end}
    tallies: dict[datetime, Tallies] = {}

    def find_tally(key: Document) -> Tally:
        kind = label(key.get("type"))
        return tallies.setdefault(floor(key["at"], span), {}).setdefault(kind, Tally())

    jobs = jobs or connection.jobs
    if jobs.mapping.has_creation_time:
        created = [{"$match": {"createdAt": within}}, _group_by_type("$createdAt")]
        for group in _aggregate(jobs, created, NEWEST_FIRST):
            find_tally(group["_id"]).enqueued += int(group["count"])
    dead_statuses = jobs.mapping.select_statuses("finishedAt", (JobStatus.DLQ.value,))
    dead = [
        {"$match": {"status": {"$in": list(dead_statuses)}, "finishedAt": within}},
        _group_by_type("$finishedAt"),
    ]
    for group in _aggregate(jobs, dead, BY_FINISH):
        find_tally(group["_id"]).dlq += int(group["count"])
    for group in _count_finished_attempts(connection, jobs, within):
        outcome = group["_id"]["outcome"]
        if outcome not in FINAL_ATTEMPT_STATUSES:
            continue
        tally = find_tally(group["_id"])
        tally.outcomes[outcome] += len(group["run"])
        tally.wait.update(int(bucket) for bucket in group["wait"] if bucket is not None)
        tally.run.update(int(bucket) for bucket in group["run"] if bucket is not None)
    return tallies


def _count_finished_attempts(
    connection: Connection, jobs: ReadCollection, within: Document
) -> Iterator[Document]:
    """Finished attempts by minute, type and outcome, each group with its histogram buckets.

    All come from the recorded attempts or, if none is recorded, all from the jobs: so none is
    counted twice. With a log, all come from there: it may begin later than the queue.
    """
    outcome_of_jobs = connection.profile.outcome
    has_wait = not connection.profile.is_recurring  # else nextRunAt is that of the next run
    attempts, log = connection.attempts, connection.profile.log
    if attempts is not None and (log is not None or connection.has_recorded_attempts()):
        pipelines = (
            [_recorded_attempts_pipeline(attempts, jobs, within)]
            if log is None
            else _list_event_pipelines(attempts, jobs, log, within)
        )
        for pipeline in pipelines:
            for group in _aggregate(attempts, pipeline, attempt_end_index(connection.profile)):
                status = attempts.mapping.to_contract_status(group["_id"].get("status"))
                group["_id"]["outcome"] = status
                yield group
    elif outcome_of_jobs is not None:
        pipeline = _last_attempts_pipeline(
            {"finishedAt": within}, "outcome", outcome_of_jobs, has_wait
        )
        yield from _aggregate(jobs, pipeline, ATTEMPT_FINISHED)
    else:
        statuses = jobs.mapping.select_statuses("finishedAt", STATUSES_AFTER_ATTEMPT)
        ended = {"status": {"$in": list(statuses)}, "finishedAt": within}
        for group in _aggregate(
            jobs, _last_attempts_pipeline(ended, "status", "$status", has_wait), BY_FINISH
        ):
            status = jobs.mapping.to_contract_status(group["_id"].get("status"))
            group["_id"]["outcome"] = LAST_OUTCOMES.get(to_text(status))
            yield group


def _group_by_type(moment: str) -> Document:
    key = {"at": _minute_expression(moment), "type": "$type"}
    return {"$group": {"_id": key, "count": {"$sum": 1}}}


def _minute_expression(moment: str) -> Document:
    """The minute of a date; null for an array of dates, which the match accepts."""
    milliseconds = {"$mod": [{"$toLong": moment}, 60_000]}
    is_date = {"$eq": [{"$type": moment}, "date"]}
    return {"$cond": [is_date, {"$subtract": [moment, milliseconds]}, None]}


def _aggregate(
    watched: ReadCollection, pipeline: list[Document], index: Keys
) -> Iterator[Document]:
    """The groups that have a minute; none if no document has a finishedAt and its index is missing.

    `jobmon init` makes no index for a field that no document has.
    """
    try:
        groups = watched.aggregate(pipeline, index=index, require_index=True)
    except OperationFailure as error:
        if not is_bad_hint(error) or index == NEWEST_FIRST or has_finished(watched):
            raise
        return
    for group in groups:
        if group["_id"].get("at") is not None:
            yield group


def _recorded_attempts_pipeline(
    attempts: ReadCollection, jobs: ReadCollection, within: Document
) -> list[Document]:
    """Groups of recorded attempts, each with the list of its attempts' buckets.

    Grouped by bucket, nearly every attempt would be a group.
    """
    eligible_at = {"$ifNull": ["$eligibleAt", _first_eligible_at(jobs, "$attemptNumber")]}
    job_type = jobs.mapping.translate_expression("$type", under="_job")
    return [
        _match_ended(within),
        *_look_up_job(attempts, jobs),
        _group_by_outcome(job_type, eligible_at, "$startedAt"),
    ]


def _list_event_pipelines(
    events: ReadCollection, jobs: ReadCollection, log: EventLog, within: Document
) -> Iterator[list[Document]]:
    """Pipelines for the events that end a run, with the groups of `_recorded_attempts_pipeline`.

    The first is for events with the time when their run started. Only for the others, the event
    that started the run is looked up, unless it may have the fields from which a wait follows.
    """
    mapping = events.mapping

    def start_field(field: str) -> Any:
        return mapping.translate_expression(field, under="_start")

    job_type, look_up_job = mapping.translate_expression("$type"), []
    has_number = mapping.translate_expression("$attemptNumber") is not None
    has_wait = has_number or mapping.translate_expression("$eligibleAt") is not None
    if job_type is None or has_number:
        look_up_job = _look_up_job(events, jobs)
    if job_type is None:
        job_type = jobs.mapping.translate_expression("$type", under="_job")
    ended = [_match_ended(within), {"$set": {"_started": log.start_expression}}]
    if not has_wait:
        is_known = {"$match": {"_started": {"$ne": None}}}
        yield [*ended, is_known, *look_up_job, _group_by_outcome(job_type, None, "$_started")]
        ended.append({"$match": {"_started": None}})
    number = {"$ifNull": ["$attemptNumber", start_field("$attemptNumber")]}
    first = _first_eligible_at(jobs, number) if has_number else None
    eligible_at = {"$ifNull": ["$eligibleAt", start_field("$eligibleAt"), first]}
    started_at = {"$ifNull": ["$_started", start_field("$startedAt"), start_field("$finishedAt")]}
    yield [
        *ended,
        *log.look_up_start(events.collection.name, mapping, within["$gte"], "_start"),
        *look_up_job,
        _group_by_outcome(job_type, eligible_at, started_at),
    ]


def _match_ended(within: Document) -> Document:
    return {"$match": {"finishedAt": within, "status": {"$in": list(FINAL_ATTEMPT_STATUSES)}}}


def _look_up_job(attempts: ReadCollection, jobs: ReadCollection) -> list[Document]:
    """Stages that add the job as `_job`.

    The $lookup has no pipeline: only then MongoDB 6.0 joins in its slot-based engine, several times
    as fast.
    """
    local, foreign = attempts.mapping.paths["jobId"], jobs.mapping.paths["jobId"]
    either: list[Document] = []
    if foreign == "_id":  # an attempt may hold its job's ObjectId as text
        as_id = {"$convert": {"input": "$jobId", "to": "objectId", "onError": "$jobId"}}
        either, local = [{"$set": {"_jobIds": ["$jobId", as_id]}}], "_jobIds"
    by_job_id = {"localField": local, "foreignField": foreign}
    return [
        *either,
        {"$lookup": {"from": jobs.collection.name, **by_job_id, "as": "_job"}},
        {"$set": {"_job": {"$first": "$_job"}}},
    ]


def _first_eligible_at(jobs: ReadCollection, number: Any) -> Document:
    """When the job was created, for the first attempt."""
    created_at = jobs.mapping.translate_expression("$createdAt", under="_job")
    return {"$cond": [{"$eq": [number, 1]}, created_at, None]}


def _group_by_outcome(job_type: Any, eligible_at: Any, started_at: Any) -> Document:
    return {
        "$group": {
            "_id": {
                "at": _minute_expression("$finishedAt"),
                "type": job_type,
                "status": "$status",
            },
            "wait": {"$push": _bucket_between(eligible_at, started_at)},
            "run": {"$push": _bucket_between(started_at, "$finishedAt")},
        }
    }


def _last_attempts_pipeline(
    match: Document, name: str, outcome: Any, has_wait: bool
) -> list[Document]:
    """Groups of jobs that are their own last attempt, because no attempt is recorded.

    A first attempt waited since the job was due; for later ones the wait is unknown. If the job
    runs again, the start of the attempt that ended is lost.
    """
    started, ended = "$startedAt", "$finishedAt"
    due = {"$max": ["$createdAt", "$nextRunAt"]}
    first_due = {"$cond": [{"$eq": ["$attemptCount", 1]}, due, None]} if has_wait else None
    buckets = {
        "wait": {"$push": _bucket_in_order(first_due, started)},
        "run": {"$push": _bucket_in_order(started, ended)},
    }
    key = {"at": _minute_expression("$finishedAt"), "type": "$type", name: outcome}
    return [{"$match": match}, {"$group": {"_id": key, **buckets}}]


def _bucket_in_order(start: Any, end: Any) -> Document:
    return {"$cond": [{"$lte": [start, end]}, _bucket_between(start, end), None]}


def _bucket_between(start: Any, end: Any) -> Document:
    are_dates = [{"$eq": [{"$type": moment}, "date"]} for moment in (start, end)]
    duration_ms = {"$subtract": [end, start]}
    return {"$cond": [{"$and": are_dates}, bucket_expression(duration_ms), None]}
