"""Explains the state of a job by a code and in sentences: why it waits, and when it will run.

Pure functions of a job and of what is known of its queue.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from jobmon.diagnosis.expected_start import estimate_wait, find_place, is_stalled, measure_silence
from jobmon.diagnosis.forecast import round_duration
from jobmon.diagnosis.job_facts import JobFacts, QueueFacts
from jobmon.diagnosis.pauses import describe_pause
from jobmon.domain import CappedCount, JobStatus
from jobmon.humanize import duration, grouped
from jobmon.rollup.series import Activity
from jobmon.store.lease_order import Place

# The 99th percentile of a period with fewer runs of the type is not used.
MIN_RUNS = 100
# Durations in the history are known within 4%.
PERCENTILE_ERROR = 1.04
_MILLISECOND = timedelta(milliseconds=1)
Parts = tuple[str | datetime, ...]  # texts, names of workers and dates, to be joined


class ExplanationCode(StrEnum):
    """The state of a job, and why it does not run, as a code."""

    NOT_DUE = "not_due"
    RETRY_SCHEDULED = "retry_scheduled"
    WAITING = "waiting"  # due, as far as is known
    TYPE_PAUSED = "type_paused"  # due, and workers take no jobs of its type until it is resumed
    TYPE_STALLED = "type_stalled"  # due, but no job of its type runs or has ended lately
    RUNNING = "running"
    RUNNING_LONG = "running_long"  # longer than 99% of the runs of its type
    LEASE_EXPIRED = "lease_expired"
    ATTEMPTS_USED_UP = "attempts_used_up"
    DEAD = "dead"  # dead-lettered with attempts left, or with an unknown number of attempts
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    OTHER_STATUS = "other_status"  # a status that jobmon does not know, or no status


class WorkerName(str):
    """A worker's name among the parts of a text: pages link it to the worker's page."""

    is_worker = True


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The state of a job, and when a job that waits will run. An unknown date or count is None.

    `parts` make one or more sentences: texts, names of workers, and dates, which are shown relative
    to now. `since`: when the job became due, started or ended, or its lease expired. `until`: when
    the job becomes due or its lease ends. `ahead`: due jobs that workers take before it.
    `expected_start`: estimated from the present rate. `reasons`: why a value is None or not exact,
    by the name of its field in the API.
    """

    code: ExplanationCode
    parts: Parts
    since: datetime | None = None
    until: datetime | None = None
    ahead: CappedCount | None = None
    expected_start: datetime | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def format_text(self, now: datetime) -> str:
        """The sentences, with dates such as `4 min ago`."""
        return "".join(
            part if isinstance(part, str) else _format_date(part, now) for part in self.parts
        )


def explain(job: JobFacts, queue: QueueFacts, now: datetime) -> Explanation:
    """The explanation of a job at the aware time `now`."""
    match job.status:
        case JobStatus.QUEUED | JobStatus.FAILED if job.is_due(now):
            return _explain_due(job, queue, now)
        case JobStatus.QUEUED | JobStatus.FAILED:
            return _explain_early(job, queue)
        case JobStatus.LEASED:
            return _explain_leased(job, queue, now)
        case JobStatus.SUCCEEDED | JobStatus.DLQ | JobStatus.CANCELLED:
            return _explain_end(job, now)
    return Explanation(code=ExplanationCode.OTHER_STATUS, parts=(_describe_other_status(job),))


def _explain_early(job: JobFacts, queue: QueueFacts) -> Explanation:
    due = job.next_run_at
    assert due is not None  # noqa: S101 - otherwise the job is due
    if job.status == JobStatus.FAILED:
        parts = (f"The last attempt failed. {_name_retry(job)} is due ", due)
        code = ExplanationCode.RETRY_SCHEDULED
    else:
        subject = "The next run" if job.is_recurring else "Not due yet: it"
        parts, code = (f"{subject} is due ", due), ExplanationCode.NOT_DUE
    return Explanation(code=code, parts=(*parts, *_describe_pause(queue), "."), until=due)


def _describe_pause(queue: QueueFacts) -> Parts:
    """The sentences about the pause of the job's type, to be added before the last full stop."""
    pause = queue.pause
    if pause is None:
        return ()
    start: Parts = (". Its type is paused",)
    if pause.since is not None:
        start = (". Its type was paused ", pause.since)
    return (*start, describe_pause(pause), ". No worker takes the job until the type is resumed")


def _name_retry(job: JobFacts) -> str:
    """`Retry 2 of 4`, or `Retry 2` if the maximum is unknown or already exceeded.

    `The next one` for a recurring job, or if the number of the attempt is unknown.
    """
    retries = None if job.max_attempts is None else job.max_attempts - 1
    if job.is_recurring or not job.attempt:
        return "The next one"
    if retries is None or retries < job.attempt:
        return f"Retry {grouped(job.attempt)}"
    return f"Retry {grouped(job.attempt)} of {grouped(retries)}"


def _explain_due(job: JobFacts, queue: QueueFacts, now: datetime) -> Explanation:
    reasons, due_parts = dict[str, str](), _describe_due(job, now)
    explanation = Explanation(
        code=ExplanationCode.WAITING, parts=due_parts, since=job.due_since, reasons=reasons
    )
    place, wait = find_place(job, queue), estimate_wait(job, queue)
    if isinstance(place, str):
        reasons["ahead"] = place
    else:
        explanation = replace(explanation, ahead=place.ahead)
        if not place.is_exact:
            reasons["ahead"] = (
                f"{_format_count(place.tied)} other due jobs have the same place in the order"
                if place.ahead.is_exact
                else "more jobs are ahead than are counted"
            )
    if (
        queue.has_other_pauses
        and not isinstance(place, str)
        and place.ahead.value > place.same_type
    ):
        reasons.setdefault("ahead", "jobs of paused types are counted, too")
    if queue.pause is not None:
        reasons["expectedStart"] = "its type is paused"
        parts = (*due_parts, *_describe_pause(queue), ".")
        return replace(explanation, code=ExplanationCode.TYPE_PAUSED, parts=parts)
    if is_stalled(job, queue.evidence):
        reasons["expectedStart"] = "no job of its type seems to be started"
        length, is_exact = measure_silence(queue)
        silence = f"{'' if is_exact else 'more than '}{duration(length / _MILLISECOND)}"
        sentence = f". No attempt of its type runs, and none has ended for {silence}."
        parts = (*due_parts, sentence)
        return replace(explanation, code=ExplanationCode.TYPE_STALLED, parts=parts)
    ahead = "" if isinstance(place, str) else f"; {_describe_place(place)}"
    if isinstance(wait, str):
        reasons["expectedStart"] = wait
        return replace(explanation, parts=(*due_parts, f"{ahead}."))
    text = f"{ahead}. At the present rate it starts in about {round_duration(wait)}."
    return replace(explanation, parts=(*due_parts, text), expected_start=now + wait)


def _describe_due(job: JobFacts, now: datetime) -> Parts:
    """Since when the job has been due, in one or more sentences without the last full stop."""
    subject = "The next run" if job.is_recurring else "It"
    if job.status == JobStatus.FAILED:
        retry = _name_retry(job)
        subject = f"The last attempt failed. {retry}" if retry == "The next one" else retry
    if "nextRunAt" in job.unknown:
        return (f"{subject} waits. The documents do not record when it is due",)
    if "nextRunAt" in job.unreadable:
        return (f"{subject} waits. When it is due is unknown: nextRunAt is not a date",)
    if job.next_run_at is not None:
        return (f"{subject} became due ", _limit_to_now(job.next_run_at, now))
    if job.due_since is not None:
        return (f"{subject} has been due since it was created ", _limit_to_now(job.due_since, now))
    return (f"{subject} is due",)


def _describe_place(place: Place) -> str:
    ahead, count = place.ahead, place.ahead.value
    all_same = place.each_type or (place.is_exact and count == place.same_type > 0)
    jobs = "due jobs of its type are" if all_same else "due jobs are"
    if not ahead.is_exact:
        return f"more than {grouped(count)} {jobs} ahead of it"
    if count < 2:
        jobs = jobs.replace("jobs", "job").replace("are", "is")
    text = f"{grouped(count) if count else 'no'} {jobs} ahead of it"
    if place.tied.value:
        have = "has" if place.tied == (1, True) else "have"
        return f"{text}, and {_format_count(place.tied)} {have} the same place in the order"
    if all_same or not count:
        return text
    return f"{text}, {grouped(place.same_type) if place.same_type else 'none'} of its type"


def _format_count(count: CappedCount) -> str:
    return grouped(count.value) if count.is_exact else f"more than {grouped(count.value)}"


def _explain_leased(job: JobFacts, queue: QueueFacts, now: datetime) -> Explanation:
    expires, started = job.lease_expires_at, job.started_at
    if expires is not None and expires <= now:
        return _explain_expired(job, expires)
    code, since, reasons = ExplanationCode.RUNNING, None, dict[str, str]()
    if started is None:
        reasons["since"] = "the start of the attempt is not recorded"
        worker = (" by ", WorkerName(job.worker)) if job.worker else ()
        attempt = f" for {_name_attempt(job)}" if job.attempt else ""
        start: Parts = ("It is leased", *worker, attempt)
        suffix = ". No start of the attempt is recorded."
    else:
        since, suffix = _limit_to_now(started, now), "."
        worker = (" on ", WorkerName(job.worker)) if job.worker else ()
        attempt = (_name_attempt(job) or "an attempt").capitalize()
        start = (f"{attempt} started ", since, *worker)
        if comparison := _compare_runs(now - started, queue.runs):
            code, suffix = ExplanationCode.RUNNING_LONG, comparison
    if expires is None:
        lease: Parts = ("; it is unknown whether it still runs",)
    else:
        lease = ("; the lease ends ", expires, _describe_assumed_lease(job))
    return Explanation(
        code=code, parts=(*start, *lease, suffix), since=since, until=expires, reasons=reasons
    )


def _explain_expired(job: JobFacts, expires: datetime) -> Explanation:
    lease = ("The lease of ", WorkerName(job.worker)) if job.worker else ("Its lease",)
    parts: Parts = (*lease, " expired ", expires, _describe_assumed_lease(job))
    if job.updated_at is not None and job.updated_at <= expires:
        parts += ("; the job was last changed ", job.updated_at)
    parts += (". No other worker has taken the job.",)
    return Explanation(code=ExplanationCode.LEASE_EXPIRED, parts=parts, since=expires)


def _describe_assumed_lease(job: JobFacts) -> str:
    """How long a lease is assumed to last; empty if the documents record its end."""
    if job.assumed_lease is None:
        return ""
    return f", if a lease lasts {duration(job.assumed_lease / _MILLISECOND)}"


def _compare_runs(length: timedelta, runs: Iterable[tuple[str, Activity]]) -> str:
    """A sentence if the run is longer than 99% of the runs of its type, else empty.

    `runs` are the activity of the type in some periods: the first with enough runs is compared.
    """
    for period, activity in runs:
        p99 = activity.run.p99
        if p99 is not None and activity.run.count >= MIN_RUNS:
            is_longer = length / _MILLISECOND > p99 * PERCENTILE_ERROR
            text = f". 99% of the runs of its type took up to about {duration(p99)} {period}."
            return text if is_longer else ""
    return ""


def _name_attempt(job: JobFacts) -> str:
    """`attempt 2 of 4`, `attempt 2` without a known maximum; empty if its number is unknown."""
    if not job.attempt:
        return ""
    if job.max_attempts is None or job.max_attempts < job.attempt:
        return f"attempt {grouped(job.attempt)}"
    return f"attempt {grouped(job.attempt)} of {grouped(job.max_attempts)}"


def _explain_end(job: JobFacts, now: datetime) -> Explanation:
    ended = job.finished_at
    reasons = {} if ended is not None else {"since": "the end of the job is not recorded"}
    date: Parts = () if ended is None else (" ", _limit_to_now(ended, now))
    if job.status == JobStatus.SUCCEEDED:
        code, event, suffix = ExplanationCode.SUCCEEDED, "It succeeded", "."
        if job.attempt and job.attempt > 1 and not job.is_recurring:
            event = f"Attempt {grouped(job.attempt)} succeeded"
    elif job.status == JobStatus.CANCELLED:
        code, event, suffix = ExplanationCode.CANCELLED, "It was cancelled", "."
    elif job.attempt and job.max_attempts and job.attempt >= job.max_attempts:
        few = {1: "Its only attempt is", 2: "Both attempts are"}
        attempts = few.get(job.max_attempts, f"All {grouped(job.max_attempts)} attempts are")
        code, event = ExplanationCode.ATTEMPTS_USED_UP, f"{attempts} used up: it died"
        suffix = ", and is not retried."
    else:
        code, event, suffix = ExplanationCode.DEAD, "It died", ", and is not retried."
        if job.attempt:
            suffix = f" after {_name_attempt(job)}{suffix}"
    return Explanation(code=code, parts=(event, *date, suffix), since=ended, reasons=reasons)


# By status that only shipped profiles have: what it means for the start of a job.
_OTHER_STATUSES = {
    "disabled": "It is disabled, and not started until it is enabled.",
    "unscheduled": "No run is scheduled.",
    "awaiting": "It waits until another job has ended.",
}


def _describe_other_status(job: JobFacts) -> str:
    if job.status is None:
        return "It has no status, so it is unknown whether it will be started."
    if job.has_shipped_rules and job.status in _OTHER_STATUSES:
        return _OTHER_STATUSES[job.status]
    return f'Its status is "{job.status[:60]}": it is unknown whether it will be started.'


def _limit_to_now(moment: datetime, now: datetime) -> datetime:
    """`moment`, but at most `now`: the clock of its writer may be ahead."""
    return min(moment, now)


def _format_date(moment: datetime, now: datetime) -> str:
    length = abs(now - moment)
    if length < timedelta(seconds=1):
        return "now"
    text = duration(length // timedelta(seconds=1) * 1_000)
    return f"{text} ago" if moment < now else f"in {text}"
