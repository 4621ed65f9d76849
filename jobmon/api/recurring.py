"""Recurring jobs: how often they run, and how their newest runs ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from marshmallow import fields, validate

from jobmon.api import examples
from jobmon.api.answers import (
    Answer,
    JobSummary,
    RepetitionAnswer,
    array,
    boolean,
    integer,
    mapping,
    nested,
    string,
)
from jobmon.api.fields import Date, clean_error, describe
from jobmon.api.openapi import Routes
from jobmon.api.parameters import Parameters, page_size_field
from jobmon.diagnosis.recurrence import JobState, Recurrence, Run, summarize_recurrence
from jobmon.domain import CappedCount
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.recurring_runs import MAX_JOBS, MAX_RUNS, RecordedRun, run_list_name
from jobmon.store.bson_json import read_date, to_text
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError
from jobmon.store.recurring import BadCursorError
from jobmon.store.repetition import Repetition, read_repetition
from jobmon.store.schedule import NO_INDEX
from jobmon.web.errors import invalid
from jobmon.web.queues import WatchedQueue, current_queue

_NOT_FOLLOWED = "no collector has followed the changes of the jobs"
_NOT_READABLE = "jobmon's MongoDB user cannot read jobmon's own database"


class RecurringJob(JobSummary):
    """A recurring job, with how often it runs and its newest runs."""

    repetition = nested(RepetitionAnswer, "How often it runs, and its newest runs.")


class RecurringJobListMeta(Answer):
    """Position of a page in the list of recurring jobs."""

    as_of = Date("The time that the answer describes.")
    per_page = integer("Maximum number of jobs per page.")
    total = integer("Number of recurring jobs; null if unknown.", nullable=True)
    total_is_exact = boolean("Whether `total` is exact; otherwise it is null or a lower bound.")
    next_cursor = string("`cursor` of the next page; null on the last page.", nullable=True)
    reasons = mapping(fields.String(), "`data`: why `data` and `total` are null.")


class RecurringJobList(Answer):
    """A page of recurring jobs."""

    meta = nested(RecurringJobListMeta, "Position of the page in the list.")
    data = array(RecurringJob, "The jobs; null if it is unknown which jobs recur.", nullable=True)


class RecurringParameters(Parameters):
    """The parameters that choose a page of the recurring jobs."""

    per_page = page_size_field("Jobs")
    cursor = fields.String(
        load_default="",
        validate=validate.Length(max=4_096),
        **describe("The `next_cursor` of a page; empty for the first page."),
    )


@dataclass(frozen=True)
class JobRepetition:
    """How often a job runs, and its newest runs.

    `no_history`: why only the last run is known; empty if earlier runs are known, too.
    """

    repetition: Repetition
    recurrence: Recurrence
    no_history: str

    def to_answer(self) -> dict[str, Any]:
        """The fields of a `RepetitionAnswer`."""
        recurrence = self.recurrence
        reasons = {"runs": self.no_history} if self.no_history else {}
        if recurrence.missed_reason:
            reasons["missedRuns"] = recurrence.missed_reason
        return {
            "interval": self.repetition.interval,
            "timeOfDay": self.repetition.time_of_day,
            "timezone": self.repetition.timezone,
            "intervalText": recurrence.interval_text,
            "overdueSince": recurrence.overdue_since,
            "lastRun": None if recurrence.last_run is None else _format_run(recurrence.last_run),
            "missedRuns": recurrence.missed,
            "runs": [_format_run(run) for run in recurrence.runs],
            "reasons": reasons,
        }


@dataclass(frozen=True)
class RecurringResult:
    """A page of recurring jobs, each a document with its `repetition`; or why they are unknown."""

    as_of: datetime
    jobs: list[Document] | None = None
    total: CappedCount | None = None
    next_cursor: str | None = None
    reason: str = ""


def add_routes(routes: Routes) -> None:
    """Add `/recurring` to the routes of operators."""

    @routes.get("/recurring")
    @routes.doc(operationId="listRecurringJobs")
    @routes.arguments(RecurringParameters, location="query")
    @routes.response(HTTPStatus.OK, RecurringJobList, example=examples.RECURRING_LIST)
    def recurring(query: dict[str, Any]) -> dict[str, Any]:
        """List recurring jobs with their newest runs.

        Jobs with an interval come first, then jobs with only a time of day; both in order of
        nextRunAt.
        """
        result = list_recurring(current_queue(), query["cursor"], query["per_page"])
        return {
            "meta": {
                "as_of": result.as_of,
                "per_page": query["per_page"],
                "total": None if result.total is None else result.total.value,
                "total_is_exact": result.total is not None and result.total.is_exact,
                "next_cursor": result.next_cursor,
                "reasons": {"data": result.reason} if result.reason else {},
            },
            "data": result.jobs,
        }


def list_recurring(queue: WatchedQueue, cursor: str, per_page: int) -> RecurringResult:
    """A page of the recurring jobs of a queue; raises ApiError 422 for a wrong cursor."""
    now = datetime.now(UTC)
    if queue.recurring.unknown:
        return RecurringResult(now, reason=queue.recurring.unknown)
    try:
        page = queue.recurring.page(cursor, per_page)
    except BadCursorError:
        raise invalid("cursor", "Not a cursor of this list.") from None
    except NoIndexError:
        return RecurringResult(now, reason=NO_INDEX)
    repetitions = conclude_repetitions(queue, page.jobs, now)
    jobs = [
        {**job, "repetition": repetition}
        for job, repetition in zip(page.jobs, repetitions, strict=True)
    ]
    return RecurringResult(now, jobs=jobs, total=page.total, next_cursor=page.next_cursor)


def find_repetition(queue: WatchedQueue, job: Document) -> JobRepetition | None:
    """How often a job (from `JobStore.get_job`) recurs; None if it does not, or if unknown."""
    repetition = Repetition() if queue.recurring.unknown else read_repetition(job)
    if repetition.interval is None and repetition.time_of_day is None:
        return None
    return conclude_repetitions(queue, [job], datetime.now(UTC), have_attempts=True)[0]


def conclude_repetitions(
    queue: WatchedQueue, jobs: Sequence[Document], now: datetime, *, have_attempts: bool = False
) -> list[JobRepetition]:
    """How often each of these recurring jobs runs, and how its newest runs ended.

    `have_attempts`: each job contains its recorded attempts, as from `JobStore.get_job`.
    """
    reader = _RunReader(queue, jobs, have_attempts=have_attempts)
    repetitions = []
    for job in jobs:
        repetition = read_repetition(job)
        state = JobState(
            repetition=repetition,
            status=to_text(job.get("status")),
            next_run_at=read_date(job.get("nextRunAt")),
        )
        runs, no_history = reader.read(job)
        recurrence = summarize_recurrence(state, runs, reader.gaps, now, no_history=no_history)
        repetitions.append(JobRepetition(repetition, recurrence, no_history))
    return repetitions


class _RunReader:
    """Reads the runs of recurring jobs: recorded attempts, or runs that the collector saw."""

    def __init__(
        self, queue: WatchedQueue, jobs: Iterable[Document], *, have_attempts: bool
    ) -> None:
        self._jobs = queue.jobs
        profile = queue.connection.profile
        self._has_attempts = profile.log is not None or queue.connection.has_recorded_attempts()
        self._has_attempts_in_job = profile.has_attempt_array or (
            self._has_attempts and have_attempts
        )
        self._seen_runs: dict[str, list[RecordedRun]] = {}  # by `run_list_name`
        self.gaps: tuple[Gap, ...] = ()
        self._no_history = ""
        if self._has_attempts or self._has_attempts_in_job:
            return
        events = queue.rollup.event_history()
        if events is None:
            is_readable = queue.rollup.is_readable
            self._no_history = _NOT_FOLLOWED if is_readable else _NOT_READABLE
            return
        self.gaps = events.gaps
        if events.first_minute is None:
            is_standalone = any(gap.reason is GapReason.NO_CHANGE_STREAM for gap in events.gaps)
            reason = "a standalone server has no change stream" if is_standalone else _NOT_FOLLOWED
            self._no_history = f"the job holds only its last run, and {reason}"
            return
        self._seen_runs = queue.rollup.recorded_runs([job["_id"] for job in jobs])

    def read(self, job: Document) -> tuple[list[Run], str]:
        """The newest runs of a job in order of time; and why earlier runs are unknown, if so."""
        attempts = job.get("attempts") or []
        if self._has_attempts_in_job:
            return list(map(_make_run, attempts[-MAX_RUNS:])), ""
        if self._has_attempts:
            recorded = self._jobs.list_runs(job, MAX_RUNS)
            return list(map(_make_run, recorded or attempts)), ""
        last_run = [_make_run(attempt) for attempt in attempts[-1:]]
        if self._no_history:
            return last_run, self._no_history
        seen_runs = self._seen_runs.get(run_list_name(job["_id"]))
        if seen_runs is None:
            reason = "no run has ended since the collector began, or there are more than "
            return last_run, f"{reason}{MAX_JOBS:,} recurring jobs"
        runs = [Run(**vars(run)) for run in seen_runs]
        # Between the seen runs and a newer run, runs may be missing: the collector stopped, or has
        # not stored them yet.
        newer_runs = [
            replace(run, follows_unknown=True) for run in last_run if _is_newer(run, runs[-1:])
        ]
        return runs + newer_runs, ""


def _is_newer(run: Run, last_seen: Sequence[Run]) -> bool:
    """Whether a run in the job's document started after the last seen run, if there is one."""
    if run.started_at is None:
        return False
    return all(seen.started_at is None or run.started_at > seen.started_at for seen in last_seen)


def _make_run(attempt: Document) -> Run:
    error = clean_error(attempt.get("error"), stack=False) or {}
    return Run(
        status=to_text(attempt.get("status")),
        started_at=read_date(attempt.get("startedAt")),
        ended_at=read_date(attempt.get("finishedAt")),
        code=error.get("code"),
        message=error.get("message"),
    )


def _format_run(run: Run) -> dict[str, Any]:
    duration_ms = None
    if run.started_at is not None and run.ended_at is not None:
        duration_ms = max(0, round((run.ended_at - run.started_at).total_seconds() * 1_000))
    error = {"code": run.code, "message": run.message}
    return {
        "status": run.status,
        "at": run.due or run.started_at or run.ended_at,
        "until": run.last_due,
        "count": run.count,
        "finishedAt": run.ended_at,
        "durationMs": duration_ms,
        "error": error if any(error.values()) else None,
    }
