"""Reads attempts from a log: an event when a run starts, another when it succeeds or fails.

The profile names paths whose values the events of one run share. The event that ends a run belongs
to the latest earlier event of the same job with the same values, if that one started a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmon.domain import FINAL_ATTEMPT_STATUSES, AttemptStatus, JobStatus
from jobmon.store.bson_json import make_aware
from jobmon.store.mapping import Document, FieldMapping, Keys

# The indexes of a log, with the newest events first.
EVENT: Keys = [("jobId", 1), ("finishedAt", -1)]
EVENT_TIME: Keys = [("finishedAt", -1)]
DURATION = "_duration"
_SEARCH_BACK = timedelta(days=1)  # how long before a window its runs may have started
_LONGEST_MS = 100 * 365 * 86_400_000  # a larger number is not a duration


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """The rules by which the events of a log are combined into attempts.

    `same`: the paths whose values the events of one run share. The mapping of the log has a run's
    duration as `DURATION`, in units of `duration_unit` milliseconds, and the time of an event as
    `finishedAt`.
    """

    same: tuple[str, ...]
    duration_unit: float = 1

    @property
    def paths(self) -> dict[str, str]:
        """The paths in `same`, each by a name for its value."""
        return {f"_same{number}": path for number, path in enumerate(self.same)}

    @property
    def start_expression(self) -> Document:
        """An expression for a run's start from the event at its end; null if that has no start.

        It is the event's `startedAt`, or else the event's time minus the duration of the run.
        """
        time, duration = "$finishedAt", f"${DURATION}"
        is_known = [
            {"$eq": [{"$type": time}, "date"]},
            {"$isNumber": duration},
            {"$gte": [duration, 0]},
            {"$lte": [duration, _LONGEST_MS / self.duration_unit]},
        ]
        milliseconds = {"$toLong": {"$multiply": [duration, self.duration_unit]}}
        by_duration = {"$cond": [{"$and": is_known}, {"$subtract": [time, milliseconds]}, None]}
        return {"$ifNull": ["$startedAt", by_duration]}

    def look_up_start(
        self, log: str, mapping: FieldMapping, since: datetime, name: str
    ) -> list[Document]:
        """Stages, in the documents' names, that add the event that started a run as field `name`.

        For most runs one event is read, by the index (jobId, -finishedAt). For a run without such
        an event, all earlier events of the job may be read, back to a day before `since`.
        """
        job, time = mapping.paths["jobId"], mapping.paths["finishedAt"]
        paths = {f"same{number}": path for number, path in enumerate(self.same)}
        values = {"job": job, "time": time, "id": "_id"} | paths
        conditions = [
            {"$eq": [f"${job}", "$$job"]},
            {"$lte": [f"${time}", "$$time"]},
            {"$ne": ["$_id", "$$id"]},
            *({"$eq": [_read_or_null(path), f"$${variable}"]} for variable, path in paths.items()),
        ]
        recent = mapping.translate_query({"finishedAt": {"$gte": since - _SEARCH_BACK}})
        pipeline = [
            {"$match": {"$and": [{"$expr": {"$and": conditions}}, mapping.where, recent]}},
            {"$sort": {time: -1}},
            {"$limit": 1},
            {"$match": mapping.translate_query({"status": AttemptStatus.RUNNING.value})},
        ]
        variables = {variable: _read_or_null(path) for variable, path in values.items()}
        lookup = {"from": log, "let": variables, "pipeline": pipeline, "as": name}
        return [{"$lookup": lookup}, {"$set": {name: {"$first": f"${name}"}}}]

    def pair(self, events: Sequence[Document], job: Document) -> list[Document]:
        """The attempts of a job from its events, which may be in any order.

        A run without an end is running if its start is the newest event of a leased job. Otherwise
        it is expired: its worker crashed, or its end was not logged. If the job itself has a newer
        attempt, that is added.
        """
        oldest_first = sorted(events, key=_sort_key)
        attempts = self._pair_in_order(oldest_first)
        newest = oldest_first[-1] if oldest_first else {}
        for attempt in attempts:
            is_over = attempt["status"] != AttemptStatus.RUNNING
            is_newest = attempt.get("_id") == newest.get("_id")
            if not is_over and not (is_newest and job.get("status") == JobStatus.LEASED):
                attempt["status"] = AttemptStatus.EXPIRED.value
        attempts += _list_unlogged(job, newest.get("finishedAt"))
        for attempt in attempts:
            attempt.pop("_id", None)
        return attempts

    def _pair_in_order(self, events: list[Document]) -> list[Document]:
        open_runs: dict[str, Document] = {}
        attempts: list[Document] = []
        for event in events:
            run = repr([event.get(name) for name in self.paths])
            if event.get("status") == AttemptStatus.RUNNING:
                attempt = _copy(event, "attemptNumber", "workerId", "eligibleAt", "startedAt")
                attempt.setdefault("startedAt", event.get("finishedAt"))
                open_runs[run] = attempt
                attempts.append(attempt)
            elif event.get("status") in FINAL_ATTEMPT_STATUSES:
                open_attempt = open_runs.pop(run, None)
                attempt = {} if open_attempt is None else open_attempt
                if open_attempt is None:
                    attempts.append(attempt)
                attempt |= _copy(event, "attemptNumber", "workerId", "eligibleAt", "error")
                attempt["finishedAt"] = event.get("finishedAt")
                if (start := self._find_start(event)) is not None:
                    attempt["startedAt"] = start
        return attempts

    def _find_start(self, event: Document) -> Any:
        """The start of a run from the event at its end: `start_expression` in Python."""
        time, duration = event.get("finishedAt"), event.get(DURATION)
        if (started_at := event.get("startedAt")) is not None:
            return started_at
        if isinstance(duration, bool) or not isinstance(duration, int | float):
            return None
        milliseconds = duration * self.duration_unit
        if not isinstance(time, datetime) or not 0 <= milliseconds <= _LONGEST_MS:
            return None
        return time - timedelta(milliseconds=int(milliseconds))


def _copy(event: Document, *names: str) -> Document:
    copied = {name: event[name] for name in names if event.get(name) is not None}
    return {"_id": event.get("_id"), "status": event["status"]} | copied


def _list_unlogged(job: Document, logged_until: Any) -> list[Document]:
    """The last attempt that the job itself holds, if it started after the newest event."""
    embedded: list[Document] = job.get("attempts") or []
    return [
        attempt
        for attempt in embedded[-1:]
        if isinstance(logged_until, datetime)
        and isinstance(started_at := attempt.get("startedAt"), datetime)
        and make_aware(started_at) > make_aware(logged_until)
    ]


def _sort_key(event: Document) -> tuple[float, str]:
    """The time in seconds since 1970, then the _id. An event without a date comes first."""
    time = event.get("finishedAt")
    return make_aware(time).timestamp() if isinstance(time, datetime) else 0.0, str(
        event.get("_id")
    )


def _read_or_null(path: str) -> Document:
    return {"$ifNull": [f"${path}", None]}
