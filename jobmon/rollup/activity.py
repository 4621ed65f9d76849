"""Counts activity in the watched collections: enqueued and dead-lettered jobs, finished runs."""

from datetime import datetime, timedelta

from jobmon.domain import FINAL_ATTEMPT_STATUSES, JobStatus
from jobmon.rollup.buckets import Tallies, Tally, floor
from jobmon.rollup.run_sources import (
    RunSource,
    aggregate_by_minute,
    find_run_sources,
    minute_expression,
)
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.indexes import BY_FINISH
from jobmon.store.labels import label
from jobmon.store.mapping import Document
from jobmon.store.read_collection import ReadCollection


def count_activity(
    connection: Connection,
    start: datetime,
    end: datetime,
    span: timedelta,
    *,
    jobs: ReadCollection | None = None,
) -> dict[datetime, Tallies]:
    """Count from `start` to before `end`; returns the tallies by the start of each span.

    Spans without activity are absent. Runs up to four aggregations, each with an index. Raises
    PyMongoError, NoIndexError if an index is missing. `jobs`: a snapshot of the jobs to count.
    """
    within = {"$gte": start, "$lt": end}
    tallies: dict[datetime, Tallies] = {}

    def get_tally(key: Document) -> Tally:
        types = tallies.setdefault(floor(key["at"], span), {})
        return types.setdefault(label(key.get("type")), Tally())

    jobs = jobs or connection.jobs
    if jobs.mapping.has_creation_time:
        created = [{"$match": {"createdAt": within}}, _group_by_type("$createdAt")]
        for group in aggregate_by_minute(jobs, created, NEWEST_FIRST):
            get_tally(group["_id"]).enqueued += int(group["count"])
    dead_statuses = jobs.mapping.select_statuses("finishedAt", (JobStatus.DLQ.value,))
    dead_lettered = [
        {"$match": {"status": {"$in": list(dead_statuses)}, "finishedAt": within}},
        _group_by_type("$finishedAt"),
    ]
    for group in aggregate_by_minute(jobs, dead_lettered, BY_FINISH):
        get_tally(group["_id"]).dlq += int(group["count"])
    for source in find_run_sources(connection, jobs, within):
        pipeline = [*source.stages, _group_by_outcome(source)]
        for group in aggregate_by_minute(source.documents, pipeline, source.index):
            outcome = source.read_outcome(group["_id"].get("outcome"))
            if outcome in FINAL_ATTEMPT_STATUSES:
                _add_runs(get_tally(group["_id"]), outcome, group)
    return tallies


def _add_runs(tally: Tally, outcome: str, group: Document) -> None:
    """Add the runs of a group that the stage of `_group_by_outcome` returned."""
    tally.outcomes[outcome] += len(group["run"])
    for histogram, buckets in ((tally.wait, group["wait"]), (tally.run, group["run"])):
        histogram.update(int(bucket) for bucket in buckets if bucket is not None)


def _group_by_type(date_path: str) -> Document:
    key = {"at": minute_expression(date_path), "type": "$type"}
    return {"$group": {"_id": key, "count": {"$sum": 1}}}


def _group_by_outcome(source: RunSource) -> Document:
    """Group the runs by minute, type and outcome; each group lists the buckets of its runs.

    The key has no bucket: otherwise nearly every run would be a group of its own.
    """
    key = {
        "at": minute_expression("$finishedAt"),
        "type": source.type,
        "outcome": source.outcome,
    }
    buckets = {"wait": {"$push": source.wait_bucket}, "run": {"$push": source.run_bucket}}
    return {"$group": {"_id": key, **buckets}}
