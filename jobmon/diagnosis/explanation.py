"""Explains why a job does not run, and when it will: its condition as a code and a sentence.

Pure functions of a job and of what is known of its queue. What is unknown is not claimed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from jobmon.diagnosis.attention import stalled_types
from jobmon.diagnosis.evidence import STALLED_AFTER, Evidence, Missing
from jobmon.diagnosis.forecast import LONGEST, find_start_rate, round_duration
from jobmon.diagnosis.job_facts import JobFacts, QueueFacts
from jobmon.domain import CappedCount, JobStatus
from jobmon.humanize import duration, grouped
from jobmon.rollup.buckets import DAY, HOUR, MINUTE
from jobmon.rollup.series import Activity, History
from jobmon.store.lease_order import Place

# A type that ends fewer attempts has no 99th percentile.
MIN_RUNS = 100
# Run times in the history are known within 4 %.
PERCENTILE_ERROR = 1.04
# The newest minutes, in which a type must still end attempts if it usually ends some.
RECENT, MIN_EXPECTED = 3 * MINUTE, 3
_MILLISECOND = timedelta(milliseconds=1)


class ExplanationCode(StrEnum):
    """The condition of a job."""

    NOT_DUE = "not_due"
    RETRY_SCHEDULED = "retry_scheduled"
    WAITING = "waiting"  # due, as far as is known
    TYPE_STALLED = "type_stalled"  # due, and no job of its type is started
    RUNNING = "running"
    RUNNING_LONG = "running_long"  # longer than 99 % of its type
    LEASE_EXPIRED = "lease_expired"
    ATTEMPTS_USED_UP = "attempts_used_up"
    DEAD = "dead"  # dead-lettered with attempts left, or with an unknown number of attempts
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    OTHER_STATUS = "other_status"  # a status that is not one of jobmon's


class WorkerName(str):
    """The name of a worker in a sentence."""

    is_worker = True


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a job does not run, and when it will; None where that is unknown or has no meaning.

    `parts` make one or two sentences: texts, names of workers, and dates, which are shown
    relative to now. `since` is
    when the condition began, `until` when it ends. `ahead`: due jobs that workers take before it.
    `expected_start` is at the present rate. `reasons`: by field, why it is None or a lower bound.
    """

    code: ExplanationCode
    parts: tuple[str | datetime, ...]
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


def explain(job: JobFacts, others: QueueFacts, now: datetime) -> Explanation:
    """The explanation of a job at the aware time `now`."""
    match job.status:
        case JobStatus.QUEUED | JobStatus.FAILED if job.is_due(now):
            return _explain_due(job, others, now)
        case JobStatus.QUEUED | JobStatus.FAILED:
            return _explain_early(job)
        case JobStatus.LEASED:
            return _explain_leased(job, others, now)
        case JobStatus.SUCCEEDED | JobStatus.DLQ | JobStatus.CANCELLED:
            return _explain_end(job, now)
    return Explanation(code=ExplanationCode.OTHER_STATUS, parts=(_describe_other_status(job),))


def is_stalled(job: JobFacts, evidence: Evidence | Missing) -> bool:
    """Whether jobs of its type have been due for ten minutes, and none is started."""
    if isinstance(evidence, Missing) or job.due_since is None or "finishedAt" in evidence.unknown:
        return False
    health = evidence.stats.health
    oldest = min(job.due_since, health.overdue_by_type.get(job.job_type, job.due_since))
    overdue = replace(health, overdue_by_type={job.job_type: oldest})
    return job.job_type in stalled_types(
        replace(evidence, stats=replace(evidence.stats, health=overdue))
    )


def _explain_early(job: JobFacts) -> Explanation:
    due = job.next_run_at
    assert due is not None  # noqa: S101 - otherwise the job is due
    if job.status == JobStatus.FAILED:
        parts = (f"The last attempt failed. {_name_retry(job)} is due ", due, ".")
        return Explanation(code=ExplanationCode.RETRY_SCHEDULED, parts=parts, until=due)
    what = "The next run" if job.is_recurring else "Not due yet: it"
    return Explanation(code=ExplanationCode.NOT_DUE, parts=(f"{what} is due ", due, "."), until=due)


def _name_retry(job: JobFacts) -> str:
    """`Retry 2 of 4`, as far as the numbers are known."""
    retries = None if job.max_attempts is None else job.max_attempts - 1
    if job.is_recurring or not job.attempt:
        return "The next one"
    if retries is None or retries < job.attempt:
        return f"Retry {grouped(job.attempt)}"
    return f"Retry {grouped(job.attempt)} of {grouped(retries)}"


def _explain_due(job: JobFacts, others: QueueFacts, now: datetime) -> Explanation:
    since, reasons = job.due_since, dict[str, str]()
    known = Explanation(
        code=ExplanationCode.WAITING, parts=_describe_due(job, now), since=since, reasons=reasons
    )
    place, started = _find_place(job, others), _find_start(job, others)
    if isinstance(place, str):
        reasons["ahead"] = place
    else:
        known = replace(known, ahead=place.ahead)
        if not place.is_exact:
            reasons["ahead"] = (
                f"{_count(place.tied)} other due jobs have the same place in the order"
                if place.ahead.is_exact
                else "more jobs are ahead than are counted"
            )
    if is_stalled(job, others.evidence):
        reasons["expectedStart"] = "no job of its type is started"
        silence = _describe_silence(others)
        return replace(
            known,
            code=ExplanationCode.TYPE_STALLED,
            parts=(*known.parts, f". No job of its type has been started {silence}."),
        )
    ahead = "" if isinstance(place, str) else f"; {_describe_place(place)}"
    if isinstance(started, str):
        reasons["expectedStart"] = started
        return replace(known, parts=(*known.parts, f"{ahead}."))
    return replace(
        known,
        parts=(
            *known.parts,
            f"{ahead}. At the present rate it starts in about {round_duration(started)}.",
        ),
        expected_start=now + started,
    )


def _describe_due(job: JobFacts, now: datetime) -> tuple[str | datetime, ...]:
    """Since when it has been due, without a full stop."""
    what = "The next run" if job.is_recurring else "It"
    if job.status == JobStatus.FAILED:
        what = _name_retry(job)
        what = f"The last attempt failed. {what}" if what == "The next one" else what
    if "nextRunAt" in job.unknown:
        return (f"{what} waits. The documents do not record when it is due",)
    if "nextRunAt" in job.unreadable:
        return (f"{what} waits. When it is due is unknown: nextRunAt is not a date",)
    if job.next_run_at is not None:
        return (f"{what} became due ", _bound(job.next_run_at, now))
    if job.due_since is not None:
        return (f"{what} has been due since it was created ", _bound(job.due_since, now))
    return (f"{what} is due",)


def _find_place(job: JobFacts, others: QueueFacts) -> Place | str:
    if "nextRunAt" in job.unknown:
        return "the documents do not record when a job is due"
    if "nextRunAt" in job.unreadable:
        return "nextRunAt of the job is not a date"
    place = others.place
    if isinstance(place, Place) and not place.ahead.is_exact and not place.ahead.value:
        return "too many jobs would have to be read"
    return place


def _find_start(job: JobFacts, others: QueueFacts) -> timedelta | str:
    """How long it takes until the job starts at the present rate, or why that is unknown."""
    place = _find_place(job, others)
    if isinstance(place, str):
        return f"it is unknown how many jobs are ahead: {place}"
    if not place.ahead.is_exact or not place.tied.is_exact:
        return "it is unknown exactly how many jobs are ahead"
    if isinstance(others.evidence, Missing):
        return others.evidence.reason
    rate = find_start_rate(others.evidence, job.job_type)
    if isinstance(rate, str):
        return rate
    if place.outranking:
        return "jobs of its type with a higher priority are ahead, and more may come"
    expected = rate.of_type * (RECENT / MINUTE)
    if isinstance(others.recent, Missing):
        return others.recent.reason
    recent = others.recent.activity.get(job.job_type)
    if expected >= MIN_EXPECTED and (recent is None or not recent.finished):
        return "no attempt of its type has ended in the last minutes"
    wait = (place.same_type + 1) / rate.of_type * MINUTE
    of_others = max(0, place.ahead.value + place.tied.value - place.same_type)
    # Its type's rate is not that of the last half hour while many jobs of other types come first.
    if of_others > 2 * rate.of_others * (wait / MINUTE) + MIN_EXPECTED:
        return "more jobs of other types are ahead than usual"
    return wait if wait <= LONGEST else "it does not start within a day at the present rate"


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
        return f"{text}, and {_count(place.tied)} more may be"
    if all_same or not count:
        return text
    return f"{text}, {grouped(place.same_type) if place.same_type else 'none'} of its type"


def _count(number: CappedCount) -> str:
    return grouped(number.value) if number.is_exact else f"more than {grouped(number.value)}"


def _describe_silence(others: QueueFacts) -> str:
    """For how long no attempt of the type has ended, and so none has been started."""
    for past, step in ((others.hour, MINUTE), (others.day, HOUR)):
        if isinstance(past, Missing) or past.gaps:
            continue
        ended = [at for at, activity in past.activity.items() if activity.finished]
        if ended:
            silent = max(MINUTE, past.as_of - max(ended) - step)
            return f"for {duration(silent // MINUTE * 60_000)}"
    if isinstance(others.day, History) and not others.day.gaps:
        return f"for more than {duration(DAY / _MILLISECOND)}"
    has_hour = isinstance(others.hour, History) and not others.hour.gaps
    longest = HOUR if has_hour else STALLED_AFTER
    return f"for more than {duration(longest / _MILLISECOND)}"


def _explain_leased(job: JobFacts, others: QueueFacts, now: datetime) -> Explanation:
    expires, started = job.lease_expires_at, job.started_at
    worker = WorkerName(job.worker) if job.worker else "an unnamed worker"
    if expires is not None and expires < now:
        parts: tuple[str | datetime, ...] = ("The lease of ", worker, " expired ", expires)
        if job.updated_at is not None and job.updated_at <= expires:
            parts += ("; the worker last reported ", job.updated_at)
        return Explanation(
            code=ExplanationCode.LEASE_EXPIRED,
            parts=(*parts, ". No other worker has taken the job."),
            since=expires,
        )
    running = Explanation(
        code=ExplanationCode.RUNNING,
        parts=(f"{_name_attempt(job)} runs on ", worker, "."),
        until=expires,
    )
    if started is None:
        return replace(running, reasons={"since": "the start of the attempt is not recorded"})
    started = _bound(started, now)
    begun = (f"{_name_attempt(job)} started ", started, " on ", worker)
    running = replace(running, parts=(*begun, " and runs."), since=started)
    if (usual := _find_usual_run(others.runs)) is None:
        return running
    period, longest_ms = usual
    if (now - started) / _MILLISECOND <= longest_ms * PERCENTILE_ERROR:
        return running
    longer = f": it runs longer than 99% of its type, which took up to about {duration(longest_ms)}"
    return replace(
        running, code=ExplanationCode.RUNNING_LONG, parts=(*begun, f"{longer} {period}.")
    )


def _find_usual_run(runs: Iterable[tuple[str, Activity]]) -> tuple[str, int] | None:
    """The period and the 99th percentile in ms, from the first period with enough runs."""
    for period, activity in runs:
        if activity.run.p99 is not None and activity.run.count >= MIN_RUNS:
            return period, activity.run.p99
    return None


def _name_attempt(job: JobFacts) -> str:
    if not job.attempt:
        return "An attempt"
    if job.max_attempts is None or job.max_attempts < job.attempt:
        return f"Attempt {grouped(job.attempt)}"
    return f"Attempt {grouped(job.attempt)} of {grouped(job.max_attempts)}"


def _explain_end(job: JobFacts, now: datetime) -> Explanation:
    ended = job.finished_at
    reasons = {} if ended is not None else {"since": "the end of the job is not recorded"}
    when: tuple[str | datetime, ...] = () if ended is None else (" ", _bound(ended, now))
    if job.status == JobStatus.SUCCEEDED:
        code, first, last = ExplanationCode.SUCCEEDED, "It succeeded", "."
        if job.attempt and job.attempt > 1 and not job.is_recurring:
            first = f"Attempt {grouped(job.attempt)} succeeded"
    elif job.status == JobStatus.CANCELLED:
        code, first, last = ExplanationCode.CANCELLED, "It was cancelled", "."
    elif job.attempt and job.max_attempts and job.attempt >= job.max_attempts:
        all_attempts = f"All {grouped(job.max_attempts)} attempts are used up"
        code, first = ExplanationCode.ATTEMPTS_USED_UP, f"{all_attempts}: it died"
        if job.max_attempts == 1:
            first = "Its only attempt is used up: it died"
        last = ", and is not retried."
    else:
        code, first, last = ExplanationCode.DEAD, "It died", ", and is not retried."
        if job.attempt:
            after = _name_attempt(job)
            last = f" after {after[0].lower()}{after[1:]}{last}"
    return Explanation(code=code, parts=(first, *when, last), since=ended, reasons=reasons)


# Statuses of the shipped profiles whose meaning for the next start is known.
_OTHER_STATUSES = {
    "disabled": "It is disabled, and not started until it is enabled.",
    "unscheduled": "No run is scheduled.",
    "awaiting": "It waits until another job has ended.",
}


def _describe_other_status(job: JobFacts) -> str:
    if job.status is None:
        return "It has no status, so it is unknown whether it will be started."
    if job.has_rules and job.status in _OTHER_STATUSES:
        return _OTHER_STATUSES[job.status]
    return f'Its status is "{job.status[:60]}": it is unknown whether it will be started.'


def _bound(moment: datetime, now: datetime) -> datetime:
    """A moment of the past: the clock of its writer may be ahead."""
    return min(moment, now)


def _format_date(moment: datetime, now: datetime) -> str:
    length = abs(now - moment)
    if length < timedelta(seconds=1):
        return "now"
    text = duration(length // timedelta(seconds=1) * 1_000)
    return f"{text} ago" if moment < now else f"in {text}"
