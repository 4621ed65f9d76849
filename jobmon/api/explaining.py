"""Reads the facts that explain why a job does not run, and formats the explanation."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import PyMongoError

from jobmon.api.fields import clean_free_text, clean_number, clean_text
from jobmon.diagnosis.evidence import (
    COUNTED_TOGETHER,
    NO_CURRENT_STATS,
    Evidence,
    Missing,
)
from jobmon.diagnosis.evidence_reader import (
    explain_missing_history,
    find_pauses,
    gather_base_evidence,
    read_history,
    read_recent,
)
from jobmon.diagnosis.expected_start import RECENT_LENGTH, is_stalled
from jobmon.diagnosis.explanation import (
    MIN_RUNS,
    Explanation,
    explain,
)
from jobmon.diagnosis.job_facts import JobFacts, QueueFacts
from jobmon.domain import WAITING_STATUSES, AttemptStatus, JobStatus
from jobmon.rollup.buckets import DAY, HOUR, MINUTE
from jobmon.rollup.series import Activity, History, NoCollectorError, TooManyTypesError
from jobmon.store.attempts import recorded_count
from jobmon.store.bson_json import make_aware, read_date
from jobmon.store.failures import describe_error
from jobmon.store.labels import label
from jobmon.store.lease_order import Place, UnknownPlaceError
from jobmon.store.mapping import Document
from jobmon.store.profiles import Profile
from jobmon.web import auth
from jobmon.web.queues import WatchedQueue

log = logging.getLogger(__name__)

_NOT_READ = Missing(reason="the history could not be read")


def read_explanation(queue: WatchedQueue, job: Document, now: datetime) -> Explanation:
    """The explanation of a job (from `JobStore.get_job`) at the aware time `now`.

    For a waiting job it reads the paused types, for a due job it also counts the jobs ahead. For a
    leased job, or a due job of a type that is not paused, it reads the history, if there is one.
    Raises PyMongoError if the watched collections cannot be read.
    """
    facts, queue_facts = _read_facts(queue, job), QueueFacts()
    if facts.status in WAITING_STATUSES:
        queue_facts = _read_pause(queue, job)
    if facts.is_due(now):
        place: Place | str
        try:
            place = queue.places.find_place(job, now)
        except UnknownPlaceError as error:
            place = str(error)
        activity = QueueFacts() if queue_facts.pause else _read_type_activity(queue, facts, now)
        queue_facts = replace(
            activity,
            place=place,
            pause=queue_facts.pause,
            has_other_pauses=queue_facts.has_other_pauses,
        )
    elif facts.status == JobStatus.LEASED:
        queue_facts = QueueFacts(runs=_read_periods(queue, facts.job_type, now))
    return explain(facts, queue_facts, now)


def dump_explanation(explanation: Explanation, now: datetime) -> Document:
    """The fields of an `ExplanationAnswer`."""
    ahead = explanation.ahead
    return {
        "code": explanation.code.value,
        "text": explanation.format_text(now),
        "since": explanation.since,
        "until": explanation.until,
        "ahead": None if ahead is None else ahead.value,
        "aheadIsExact": ahead is not None and "ahead" not in explanation.reasons,
        "expectedStart": explanation.expected_start,
        "reasons": dict(explanation.reasons),
    }


def _read_facts(queue: WatchedQueue, job: Document) -> JobFacts:
    date_fields = {  # by fact
        "created_at": "createdAt",
        "updated_at": "updatedAt",
        "next_run_at": "nextRunAt",
        "finished_at": "finishedAt",
        "lease_expires_at": "leaseExpiresAt",
    }
    dates: dict[str, Any] = {
        fact: make_aware(value)
        for fact, name in date_fields.items()
        if isinstance(value := job.get(name), datetime)
    }
    mapping, profile = queue.connection.jobs.mapping, queue.connection.profile
    max_attempts = clean_number(job.get("maxAttempts"))
    if max_attempts is not None and max_attempts != int(max_attempts):
        max_attempts = None
    return JobFacts(
        status=clean_text(job.get("status")),
        job_type=label(job.get("type")),
        max_attempts=None if max_attempts is None else int(max_attempts),
        is_recurring=bool(job.get("isRecurring")),
        unreadable=frozenset(
            name
            for fact, name in date_fields.items()
            if fact not in dates and job.get(name) is not None
        ),
        unknown=mapping.missing_fields,
        has_shipped_rules=profile.has_shipped_rules,
        assumed_lease=mapping.offsets.get("leaseExpiresAt"),
        **dates,
        **_read_run(profile, job),
    )


def _read_run(profile: Profile, job: Document) -> dict[str, Any]:
    """The `started_at`, `worker` and `attempt` of the newest run, as far as known."""
    last_attempt = job["attempts"][-1] if job["attempts"] else {}
    is_running = last_attempt.get("status") == AttemptStatus.RUNNING
    has_only_last_attempt = profile.reads_last_attempt and not profile.has_attempt_array
    if has_only_last_attempt and not is_running and job.get("status") == JobStatus.LEASED:
        return {}  # a worker has the lease, but has not started: the fields are of an earlier run
    attempt_number = job["attemptCount"]
    if has_only_last_attempt and last_attempt:
        attempt_number = recorded_count({"attemptCount": last_attempt.get("attemptNumber")})
    return {
        "started_at": read_date((last_attempt if is_running else job).get("startedAt")),
        "worker": clean_free_text(job.get("leasedBy")),
        "attempt": attempt_number or None,
    }


def _read_pause(queue: WatchedQueue, job: Document) -> QueueFacts:
    """Whether the job's type and other types are paused; only operators see by whom and why."""
    pauses = find_pauses(queue) or {}
    # A `bson.Code` is a str that cannot be hashed.
    pause = pauses.get(job["type"]) if type(job.get("type")) is str else None
    if pause is not None and not auth.is_admin():
        pause = replace(pause, by=None, reason="")
    return QueueFacts(pause=pause, has_other_pauses=len(pauses) > (pause is not None))


def _read_type_activity(queue: WatchedQueue, job: JobFacts, now: datetime) -> QueueFacts:
    """The activity of the type of a due job, from the collector; nothing is counted live."""
    stats = queue.stats.cached_stats()
    missing = explain_missing_history(queue, stats)
    if stats is None or missing is not None:
        return QueueFacts(evidence=missing or NO_CURRENT_STATS)
    try:
        evidence = gather_base_evidence(queue, stats, now)
        stalled_after = evidence.rules.for_type(job.job_type).stalled_after
        recent = read_recent(queue, evidence, stalled_after, now)
        evidence = replace(evidence, recent={stalled_after: recent})
        if is_stalled(job, evidence):
            return QueueFacts(
                evidence=evidence,
                hour_by_minute=_read_steps(queue, evidence, job.job_type, now, MINUTE),
                day_by_hour=_read_steps(queue, evidence, job.job_type, now, HOUR),
            )
        return QueueFacts(
            evidence=evidence, recent=read_recent(queue, evidence, RECENT_LENGTH, now)
        )
    except PyMongoError as error:
        return QueueFacts(evidence=_log_failure(queue, error))


def _read_steps(
    queue: WatchedQueue, evidence: Evidence, job_type: str, now: datetime, step: timedelta
) -> History[datetime] | Missing:
    """The history of a type: the last hour in steps of MINUTE, or the last day in steps of HOUR."""
    window = queue.series.window(now - (HOUR if step == MINUTE else DAY), now, step)
    try:
        return read_history(lambda: queue.series.history_by_step(window, (job_type,)), evidence)
    except TooManyTypesError:
        return COUNTED_TOGETHER


def _read_periods(
    queue: WatchedQueue, job_type: str, now: datetime
) -> tuple[tuple[str, Activity], ...]:
    """The activity of a type in the last hour and, if that has too few runs, in the last day.

    Each activity comes with the words for its period. A period that is still being counted is left
    out.
    """
    by_period: list[tuple[str, Activity]] = []
    try:
        for period, length, step in (
            ("in the last hour", HOUR, MINUTE),
            ("in the last 24 h", DAY, HOUR),
        ):
            if queue.rollup.progress() is None:
                break
            history = queue.series.history_by_type(queue.series.window(now - length, now, step))
            if history.is_complete and (activity := history.activity.get(job_type)) is not None:
                by_period.append((period, activity))
                if activity.run.count >= MIN_RUNS:
                    break
    except NoCollectorError:  # the collector has stopped since its progress was read
        return tuple(by_period)
    except PyMongoError as error:
        _log_failure(queue, error)
    return tuple(by_period)


def _log_failure(queue: WatchedQueue, error: PyMongoError) -> Missing:
    log.error("queue %s: a job is explained without history: %s", queue.name, describe_error(error))
    return _NOT_READ
