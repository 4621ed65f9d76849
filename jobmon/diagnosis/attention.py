"""Checks a queue: each check has notices, and a reason if it was not made completely.

Pure functions of an `Evidence`, whose rules have the thresholds. An unknown value is neither
reported as a problem nor as fine.
"""

from datetime import datetime, timedelta

from jobmon.diagnosis.evidence import (
    READ_THE_LOG,
    RUNS_MAY_BE_MISSING,
    START_A_COLLECTOR,
    Evidence,
    Missing,
)
from jobmon.diagnosis.notices import Check, CheckKind, Level, Notice, TypeCondition
from jobmon.diagnosis.onset import find_first_death, find_last_finish, has_ended_since
from jobmon.diagnosis.pauses import check_paused_types, find_overdue
from jobmon.diagnosis.statuses import check_new_statuses
from jobmon.domain import JobCondition, JobStatus
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.rollup.buckets import MINUTE
from jobmon.rollup.series import History
from jobmon.store.filter import MAX_TYPES, JobFilter
from jobmon.store.labels import OTHER, can_filter_by

# In a time in which three jobs usually finish, by chance none finishes in 5% of the cases.
MIN_EXPECTED_JOBS = 3
# A shorter time without a finished job causes no notice. The last end is known to the minute only:
# the real silence can be up to a minute longer.
MIN_SILENCE = timedelta(seconds=45)
MIN_OVERDUE = MINUTE
MIN_SAMPLE_AGE = timedelta(minutes=2)  # a younger sample shows no trend
MAX_SAMPLE_DISTANCE = timedelta(minutes=3)  # longer: for some time no collector took samples
ENDS_NOT_SHOWN = "jobs have ended whose end the history does not show"
COMPARE_CLOCKS = "If this lasts for minutes, compare the clocks of the workers."
JOBS_NOT_COUNTED = "the jobs could not be counted"
COUNTED_AS_OTHER = "runs of some types are counted together, as `(other)`"

_QUEUED, _LEASED = JobStatus.QUEUED.value, JobStatus.LEASED.value


def run_checks(evidence: Evidence) -> list[Check]:
    """The results of all checks; `collect_notices` puts their urgent notices first."""
    return [
        _check_finishing(evidence),
        _check_leases(evidence),
        _check_stalled_types(evidence),
        check_paused_types(evidence),
        _check_oldest_due(evidence),
        _check_new_dead(evidence),
        _check_counts(evidence),
        check_new_statuses(evidence),
        _check_backlog(evidence),
        _check_failures(evidence),
        _check_collector(evidence),
    ]


def stalled_types(evidence: Evidence, *, ignore_other: bool = False) -> dict[str, timedelta]:
    """The stalled types: how long the oldest due job of each has been due, the longest first.

    A type is stalled if a job has been due for longer than `stalled_after`, no attempt of the type
    ended in this time, and none runs. A type is left out if this is unknown, or if it is paused.
    With `ignore_other`, a type is not left out because runs in `(other)` may be of this type.
    """
    counts, stats = evidence.stats.type_counts(), evidence.stats
    stalled: dict[str, timedelta] = {}
    if counts is None:
        return stalled
    for job_type, due_since in find_overdue(evidence.stats, evidence.pauses).items():
        thresholds = evidence.rules.for_type(job_type)
        recent = evidence.find_recent(thresholds)
        if isinstance(recent, Missing) or recent.gaps:
            continue
        waited, activity = stats.as_of - due_since, recent.activity
        # A type without counts of its own is counted in `(other)`; runs there may be of any type.
        other = set[str]() if ignore_other else {OTHER}
        is_counted = job_type in counts or ignore_other
        running = counts.get(job_type if is_counted else OTHER, {}).get(_LEASED, 0)
        finished = [activity[name].finished for name in {job_type, *other} & activity.keys()]
        if waited > thresholds.stalled_after and not running and not any(finished):
            stalled[job_type] = waited
    return dict(sorted(stalled.items(), key=lambda pair: (-pair[1], pair[0])))


def describe_stall(waited: str, stalled_after: timedelta) -> str:
    """The signs of a stalled type; `waited` is how long its oldest due job has been due."""
    return f"oldest due job waiting {waited}, none finished in {_format_minutes(stalled_after)}"


def failing_types(evidence: Evidence) -> dict[str, float]:
    """The types with a high failure rate in the last hour, and that rate, the highest first.

    The rate is of the attempts in the history; some attempts may be missing there.
    """
    if isinstance(evidence.hour_by_type, Missing):
        return {}
    rates = {
        job_type: rate
        for job_type, activity in evidence.hour_by_type.activity.items()
        if (rate := activity.failure_rate) is not None
        and evidence.rules.for_type(job_type).is_failing(activity.finished, rate)
    }
    return dict(sorted(rates.items(), key=lambda pair: (-pair[1], pair[0])))


def _skip_check(kind: CheckKind, missing: Missing) -> Check:
    return Check(kind=kind, not_checked=missing.reason, remedy=missing.remedy)


def _check_finishing(evidence: Evidence) -> Check:
    """Whether jobs finish while jobs are due."""
    kind = CheckKind.FINISHING
    if isinstance(evidence.hour_by_minute, Missing):
        return _skip_check(kind, evidence.hour_by_minute)
    health, as_of = evidence.stats.health, evidence.hour_by_minute.as_of
    if health.due is None and not health.overdue_by_type:
        reason = health.unknown.get("due", "it is unknown when jobs are due")
        return Check(kind=kind, not_checked=reason)
    oldest = min(find_overdue(evidence.stats, evidence.pauses).values(), default=None)
    if oldest is None and evidence.pauses:  # due jobs that were not read may be of other types
        return Check(kind=kind, not_checked=health.unknown.get("overdue_by_type", ""))
    if oldest is None or health.due == 0 or evidence.stats.as_of - oldest < MIN_OVERDUE:
        return Check(kind=kind)
    gaps = () if isinstance(evidence.day_by_step, Missing) else evidence.day_by_step.gaps
    gaps += evidence.hour_by_minute.gaps
    last_finish = find_last_finish(evidence.hour_by_minute, MINUTE) or find_last_finish(
        evidence.day_by_step, 10 * MINUTE
    )
    if not last_finish and isinstance(evidence.day_by_step, Missing):
        return _skip_check(kind, evidence.day_by_step)
    if not last_finish:
        return Check(kind=kind, not_checked=RUNS_MAY_BE_MISSING if gaps else "")
    since, rate = last_finish
    silence = as_of - since
    longest_silence = evidence.rules.thresholds.stalled_after
    is_long = rate * (silence / MINUTE) >= MIN_EXPECTED_JOBS or silence >= longest_silence
    if silence < MIN_SILENCE or not is_long:
        return Check(kind=kind)
    if any(gap.clip(since, as_of) for gap in gaps):
        return Check(kind=kind, not_checked=RUNS_MAY_BE_MISSING)
    if has_ended_since(evidence, since):
        return Check(kind=kind, not_checked=ENDS_NOT_SHOWN, remedy=COMPARE_CLOCKS)
    due = health.due
    jobs = "jobs are" if due is None else "1 job is" if due == 1 else f"{grouped(due)} jobs are"
    text = (
        f"Nothing has finished for {_format_minutes(max(silence, MINUTE))} while {jobs} due "
        f"(usually {per_minute(rate)})"
    )
    notice = Notice(
        level=Level.BAD,
        text=text,
        since=since,
        jobs=JobFilter(condition=JobCondition.DUE),
        count=due,
    )
    return Check(kind=kind, notices=(notice,))


def _check_counts(evidence: Evidence) -> Check:
    kind = CheckKind.COUNTS
    if evidence.stats.counts is not None:
        return Check(kind=kind)
    text = "Counting the jobs takes too long: only their estimated number is known"
    return Check(kind=kind, notices=(Notice(level=Level.BAD, text=text),))


def _check_leases(evidence: Evidence) -> Check:
    kind = CheckKind.LEASES
    health = evidence.stats.health
    reason = health.unknown.get("expired_leases", "")
    expired = health.expired_leases
    if expired is None:
        return Check(kind=kind, not_checked=reason or "it is unknown when leases expire")
    if not expired:
        return Check(kind=kind, not_checked=reason)
    text = (
        "1 job stuck: its lease expired and no worker has picked it up"
        if expired == 1
        else f"{grouped(expired)} jobs stuck: their leases expired and no worker has picked them up"
    )
    if evidence.assumed_lease is not None:
        text += f" (if a lease lasts {_format_minutes(evidence.assumed_lease)})"
    notice = Notice(
        level=Level.BAD,
        text=text,
        since=evidence.first_expiry,
        jobs=JobFilter(condition=JobCondition.EXPIRED),
        count=expired,
    )
    return Check(kind=kind, notices=(notice,), not_checked=reason)


def _check_stalled_types(evidence: Evidence) -> Check:
    kind = CheckKind.STALLED
    recent = [evidence.find_recent(limits) for limits in evidence.rules.list_thresholds()]
    missing = next((history for history in recent if isinstance(history, Missing)), None)
    stalled = stalled_types(evidence)
    if missing is not None and not stalled:
        return _skip_check(kind, missing)
    reason = _explain_unknown_due(evidence) if missing is None else missing.reason
    if any(isinstance(history, History) and history.gaps for history in recent):
        reason = RUNS_MAY_BE_MISSING
    elif evidence.stats.counts is None:
        reason = JOBS_NOT_COUNTED
    elif not reason and stalled.keys() != stalled_types(evidence, ignore_other=True).keys():
        reason = COUNTED_AS_OTHER
    if not stalled:
        return Check(kind=kind, not_checked=reason)
    job_type, waited = next(iter(stalled.items()))
    waited_text, is_one = _format_minutes(waited), len(stalled) == 1
    if is_one:
        limit = evidence.rules.for_type(job_type).stalled_after
        text = f"{job_type} is stalled: {describe_stall(waited_text, limit)}"
    else:
        text = f"{grouped(len(stalled))} types are stalled, the longest for {waited_text}"
    due_jobs = JobFilter(types=(job_type,), condition=JobCondition.DUE)
    notice = Notice(
        level=Level.BAD,
        text=text,
        since=evidence.stats.as_of - waited,
        jobs=due_jobs if is_one else None,
        types=None if is_one else TypeCondition.STALLED,
        type_name=job_type if is_one else "",
        count=len(stalled),
        about_types=frozenset(stalled),
    )
    return Check(kind=kind, notices=(notice,), not_checked=reason)


def _explain_unknown_due(evidence: Evidence) -> str:
    """Why it is unknown which types have due jobs; empty if it is known."""
    health = evidence.stats.health
    reason = health.unknown.get("due") if health.due is None else None
    return reason or health.unknown.get("overdue_by_type", "")


def _check_oldest_due(evidence: Evidence) -> Check:
    """Whether a job has been due for longer than the rules allow; by default they set no limit."""
    kind = CheckKind.OLDEST_DUE
    has_limit = any(limits.oldest_due for limits in evidence.rules.list_thresholds())
    reason = _explain_unknown_due(evidence) if has_limit else ""
    overdue = {
        job_type: waited
        for job_type, due_since in find_overdue(evidence.stats, evidence.pauses).items()
        if (limit := evidence.rules.for_type(job_type).oldest_due) is not None
        and (waited := evidence.stats.as_of - due_since) > limit
    }
    if not overdue:
        return Check(kind=kind, not_checked=reason)
    longest = max(overdue, key=lambda job_type: (overdue[job_type], job_type))
    waited_text = _format_minutes(overdue[longest])
    if len(overdue) == 1:
        text = f"The oldest due job of {longest} has been due for {waited_text}"
    else:
        text = (
            f"{grouped(len(overdue))} types have jobs that have been due for too long, "
            f"the longest for {waited_text}: {longest}"
        )
    is_linked = len(overdue) <= MAX_TYPES and all(map(can_filter_by, overdue))
    due_jobs = JobFilter(types=tuple(sorted(overdue)), condition=JobCondition.DUE)
    notice = Notice(
        level=Level.WATCH,
        text=text,
        since=evidence.stats.as_of - overdue[longest],
        jobs=due_jobs if is_linked else None,
        type_name=longest if len(overdue) == 1 else "",
        count=len(overdue),
        about_types=frozenset(overdue),
    )
    return Check(kind=kind, notices=(notice,), not_checked=reason)


def _check_new_dead(evidence: Evidence) -> Check:
    kind = CheckKind.DEAD
    if isinstance(evidence.hour_by_type, Missing):
        return _skip_check(kind, evidence.hour_by_type)
    dead = evidence.count_dead()
    not_checked = RUNS_MAY_BE_MISSING if evidence.hour_by_type.gaps else ""
    if not dead:
        return Check(kind=kind, not_checked=not_checked)
    count, is_exact = evidence.new_dead or (sum(dead.values()), True)
    if not count:  # all were retried or deleted
        return Check(kind=kind, not_checked=not_checked)
    main_type = max(dead, key=lambda job_type: (dead[job_type], job_type))
    share = "mostly" if dead[main_type] * 2 > sum(dead.values()) else "most often"
    share = "all" if len(dead) == 1 else share
    text = (
        f"{grouped(count)}{'' if is_exact else '+'} jobs died in the last hour, {share} {main_type}"
    )
    if count == 1:  # if several types had deaths, the type of the job that is still dead is unknown
        text = "1 job died in the last hour" + (f": {main_type}" if len(dead) == 1 else "")
    dead_jobs = evidence.find_dead_filter() if evidence.new_dead else None
    notice = Notice(
        level=Level.BAD,
        text=text,
        since=find_first_death(evidence),
        jobs=dead_jobs,
        count=count,
        about_types=frozenset(dead),
    )
    return Check(kind=kind, notices=(notice,), not_checked=not_checked)


def _check_backlog(evidence: Evidence) -> Check:
    kind = CheckKind.BACKLOG
    stats = evidence.stats
    counts = stats.status_counts()
    if counts is None:
        return Check(kind=kind, not_checked=JOBS_NOT_COUNTED)
    if not evidence.samples:
        if stats.source == "rollup":
            return Check(kind=kind, not_checked="the collector has not taken a sample yet")
        if evidence.has_collector:
            reason = "the collector's statistics are not up to date"
            return Check(kind=kind, not_checked=reason, remedy=READ_THE_LOG)
        reason, remedy = "no collector is running", START_A_COLLECTOR
        return Check(kind=kind, not_checked=reason, remedy=remedy)
    first_at = min(evidence.samples)
    age = stats.as_of - first_at
    if age < MIN_SAMPLE_AGE:
        return Check(kind=kind, not_checked="the first sample is too recent to compare with")
    queued_then, queued = evidence.samples[first_at].status_counts.get(_QUEUED, 0), counts[_QUEUED]
    # Jobs that are scheduled for later are also `queued`, but they are no backlog yet.
    due = queued if stats.health.due is None else min(queued, stats.health.due)
    rules = evidence.rules
    if due <= max(queued_then + rules.backlog_growth_jobs, queued_then * rules.backlog_growth):
        return Check(kind=kind)
    when = "an hour ago" if age >= 55 * MINUTE else f"({_format_minutes(age)} ago)"
    text = f"Backlog growing: {grouped(queued)} queued, up from {grouped(queued_then)} {when}"
    since = _find_growth_start(evidence, queued_then)
    jobs = JobFilter(statuses=(_QUEUED,))
    notice = Notice(level=Level.WATCH, text=text, since=since, jobs=jobs, count=queued)
    return Check(kind=kind, notices=(notice,))


def _find_growth_start(evidence: Evidence, queued_then: int) -> datetime | None:
    """The newest sample with at most `queued_then` queued jobs; None if no sample follows soon."""
    samples = evidence.samples
    start = max(at for at in samples if samples[at].status_counts.get(_QUEUED, 0) <= queued_then)
    following = min((at for at in samples if at > start), default=evidence.stats.as_of)
    return start if following - start <= MAX_SAMPLE_DISTANCE else None


def _check_failures(evidence: Evidence) -> Check:
    kind = CheckKind.FAILURES
    if isinstance(evidence.hour_by_type, Missing):
        return _skip_check(kind, evidence.hour_by_type)
    not_checked = RUNS_MAY_BE_MISSING if evidence.hour_by_type.gaps else ""
    failing = failing_types(evidence)
    if not failing:
        return Check(kind=kind, not_checked=not_checked)
    job_type, rate = next(iter(failing.items()))
    if len(failing) == 1:
        text = f"{percent(rate)} of {job_type} attempts failed in the last hour"
    else:
        lowest = min(evidence.rules.for_type(name).failure_rate for name in failing)
        text = (
            f"{grouped(len(failing))} types failed in {percent(lowest)} or more of "
            f"their attempts in the last hour, most often {job_type} ({percent(rate)})"
        )
    notice = Notice(
        level=Level.WATCH,
        text=text,
        types=TypeCondition.FAILING,
        type_name=job_type if len(failing) == 1 else "",
        count=len(failing),
        about_types=frozenset(failing),
    )
    return Check(kind=kind, notices=(notice,), not_checked=not_checked)


def _check_collector(evidence: Evidence) -> Check:
    kind = CheckKind.COLLECTOR
    if evidence.stats.source == "rollup":
        return Check(kind=kind)
    if evidence.first_build is not None:
        counted, estimated = (evidence.first_build[key] for key in ("counted", "estimated"))
        text = (
            f"A first count is in progress: {grouped(counted)} of about {grouped(estimated)} jobs"
        )
    elif evidence.leader is not None:
        text = f"Collector {evidence.leader} is running, but its statistics are not up to date. "
        text += READ_THE_LOG
    else:
        text = "No collector is running: jobs are counted at each request. "
        text += START_A_COLLECTOR
    return Check(kind=kind, notices=(Notice(level=Level.WATCH, text=text),))


def _format_minutes(length: timedelta) -> str:
    """A duration in whole minutes, so that a notice changes at most once a minute."""
    return duration(length // MINUTE * 60_000)
