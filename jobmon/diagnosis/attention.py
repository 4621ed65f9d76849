"""What needs attention in a queue: checks of its figures, each fine, with notices, or not made.

Pure functions of an `Evidence`. No alarm is raised on what is unknown, and nothing is called fine
that was not looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from jobmon.diagnosis import remedies
from jobmon.diagnosis.evidence import STALLED_AFTER, Evidence, Missing, died_since
from jobmon.domain import JobCondition, JobStatus
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.series import Activity, History
from jobmon.store.filter import JobFilter
from jobmon.store.labels import OTHER

MANY_FAIL = 0.2
FEW = 20
GREW_BY = 1.2
# A queue that finishes this many jobs in the time has stopped if it finished none: by chance that
# happens once in twenty times.
EXPECTED_AT_LEAST = 3
SILENT_FOR = timedelta(seconds=45)  # and up to a minute before, which the buckets cannot tell
DUE_FOR = MINUTE
SAMPLE_AGE = timedelta(minutes=2)  # a younger sample is no trend

_QUEUED, _LEASED = JobStatus.QUEUED.value, JobStatus.LEASED.value


class Level(StrEnum):
    """How urgent a notice is."""

    BAD = "bad"
    WATCH = "watch"


class TypeCondition(StrEnum):
    """Which types of jobs a notice counts."""

    STALLED = "stalled"
    FAILING = "failing"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that needs attention, with exactly the jobs or the types that it counts.

    `type_name` is the one type that it is about, where it is about types.
    """

    level: Level
    text: str
    jobs: JobFilter | None = None
    types: TypeCondition | None = None
    type_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question about a queue: its notices, none where all is fine.

    With `not_checked`, the reason, it could not be made, or not in full.
    """

    name: str
    notices: tuple[Notice, ...] = ()
    not_checked: str = ""
    remedy: str = ""


def examine(evidence: Evidence) -> list[Check]:
    """All checks, the most urgent first."""
    return [
        _flow(evidence),
        _leases(evidence),
        _stalled(evidence),
        _dead(evidence),
        _counts(evidence),
        _backlog(evidence),
        _failures(evidence),
        _collector(evidence),
    ]


def notices_of(checks: list[Check]) -> list[Notice]:
    """All notices, the worst first."""
    notices = [notice for check in checks for notice in check.notices]
    return sorted(notices, key=lambda notice: notice.level is not Level.BAD)


def stalled_types(evidence: Evidence) -> dict[str, timedelta]:
    """For how long the oldest due job of each stalled type has been due, the longest first.

    A type is stalled that has had a job due for ten minutes, finished none meanwhile and runs none.
    """
    if isinstance(evidence.lately, Missing):
        return {}
    lately, figures = evidence.lately.activity, evidence.figures
    now = figures.type_counts() or {}
    stalled = {}
    for kind, due in figures.health.overdue_by_type.items():
        waited = figures.as_of - due
        # A type that is counted with others stalls only when all of these do.
        running = now.get(kind, now.get(OTHER, {})).get(_LEASED, 0)
        moving = [lately[name].finished for name in {kind, OTHER} & lately.keys()]
        if waited > STALLED_AFTER and not running and not any(moving):
            stalled[kind] = waited
    return dict(sorted(stalled.items(), key=lambda pair: (-pair[1], pair[0])))


def failing_types(evidence: Evidence) -> dict[str, float]:
    """The failure rate of each type that failed often in the last hour, the highest first."""
    if isinstance(evidence.hour, Missing):
        return {}
    rates = {
        kind: rate
        for kind, happened in evidence.hour.activity.items()
        if happened.finished >= FEW
        and (rate := failure_rate(happened)) is not None
        and rate >= MANY_FAIL
    }
    return dict(sorted(rates.items(), key=lambda pair: (-pair[1], pair[0])))


def failure_rate(happened: Activity) -> float | None:
    """The part of the attempts that failed; None without any."""
    return happened.failed / happened.finished if happened.finished else None


def _unmade(name: str, missing: Missing) -> Check:
    return Check(name=name, not_checked=missing.reason, remedy=missing.remedy)


def _flow(evidence: Evidence) -> Check:
    """Whether anything finishes at all while jobs are due."""
    name = "whether jobs finish"
    if isinstance(evidence.minutes, Missing):
        return _unmade(name, evidence.minutes)
    health, as_of = evidence.figures.health, evidence.minutes.as_of
    if health.eligible is None and not health.overdue_by_type:
        reason = health.unknown.get("eligible", "when jobs are due is not known")
        return Check(name=name, not_checked=reason)
    longest = min(health.overdue_by_type.values(), default=None)
    stopped = _last_finish(evidence.minutes, MINUTE) or _last_finish(evidence.day, 10 * MINUTE)
    if not stopped or longest is None or health.eligible == 0:
        return Check(name=name)
    if evidence.figures.as_of - longest < DUE_FOR:
        return Check(name=name)
    since, rate = stopped
    silent = as_of - since
    is_long = rate * (silent / MINUTE) >= EXPECTED_AT_LEAST or silent >= STALLED_AFTER
    if silent < SILENT_FOR or not is_long:
        return Check(name=name)
    due = health.eligible
    jobs = "jobs are" if due is None else "1 job is" if due == 1 else f"{grouped(due)} jobs are"
    text = (
        f"Nothing has finished for {_minutes(max(silent, MINUTE))} while {jobs} due "
        f"(usually {per_minute(rate)})"
    )
    return Check(
        name=name,
        notices=(Notice(level=Level.BAD, text=text, jobs=JobFilter(condition=JobCondition.DUE)),),
    )


def _last_finish(
    past: History[datetime] | Missing, step: timedelta
) -> tuple[datetime, float] | None:
    """Until when attempts finished, and how many a minute in the hour before; None if none did."""
    if isinstance(past, Missing):
        return None
    finished = {at: happened.finished for at, happened in past.activity.items()}
    moments = [at for at, count in finished.items() if count]
    if not moments:
        return None
    until = max(moments) + step
    start = max(min(moments), until - HOUR)
    total = sum(count for at, count in finished.items() if count and start <= at < until)
    return until, total / ((until - start) / MINUTE)


def _counts(evidence: Evidence) -> Check:
    name = "counts by status"
    if evidence.figures.counts is not None:
        return Check(name=name)
    text = "Counting the jobs takes too long: only an estimate of their number is known"
    return Check(name=name, notices=(Notice(level=Level.BAD, text=text),))


def _leases(evidence: Evidence) -> Check:
    name = "expired leases"
    health = evidence.figures.health
    reason = health.unknown.get("expired_leases", "")
    expired = health.expired_leases
    if expired is None:
        return Check(name=name, not_checked=reason or "the end of leases is not known")
    if not expired:
        return Check(name=name, not_checked=reason)
    text = (
        "1 job stuck: its lease expired and no worker has picked it up"
        if expired == 1
        else f"{grouped(expired)} jobs stuck: their leases expired and no worker has picked them up"
    )
    jobs = JobFilter(condition=JobCondition.EXPIRED)
    return Check(
        name=name,
        notices=(Notice(level=Level.BAD, text=text, jobs=jobs),),
        not_checked=reason,
    )


def _stalled(evidence: Evidence) -> Check:
    name = "stalled types"
    if isinstance(evidence.lately, Missing):
        return _unmade(name, evidence.lately)
    health = evidence.figures.health
    reason = health.unknown.get("eligible") if health.eligible is None else None
    reason = reason or health.unknown.get("overdue_by_type", "")
    stalled = stalled_types(evidence)
    if not stalled:
        return Check(name=name, not_checked=reason)
    kind, waited = next(iter(stalled.items()))
    if len(stalled) == 1:
        notice = Notice(
            level=Level.BAD,
            text=f"{kind} is stalled: oldest due job waiting {_minutes(waited)}, "
            f"none finished in {_minutes(STALLED_AFTER)}",
            jobs=JobFilter(types=(kind,), condition=JobCondition.DUE),
        )
    else:
        notice = Notice(
            level=Level.BAD,
            text=f"{grouped(len(stalled))} types are stalled, the longest for {_minutes(waited)}",
            types=TypeCondition.STALLED,
        )
    return Check(name=name, notices=(notice,), not_checked=reason)


def _dead(evidence: Evidence) -> Check:
    name = "new dead jobs"
    if isinstance(evidence.hour, Missing):
        return _unmade(name, evidence.hour)
    dead = {kind: step.dlq for kind, step in evidence.hour.activity.items() if step.dlq}
    if not dead:
        return Check(name=name)
    count, is_exact = evidence.new_dead or (sum(dead.values()), True)
    if not count:  # all have been started again, or deleted
        return Check(name=name)
    most = max(dead, key=lambda kind: (dead[kind], kind))
    how = "mostly" if dead[most] * 2 > sum(dead.values()) else "most of them"
    how = "all" if len(dead) == 1 else how
    jobs = "1 job" if count == 1 else f"{grouped(count)}{'' if is_exact else '+'} jobs"
    text = f"{jobs} died in the last hour, {how} {most}"
    if count == 1 and len(dead) == 1:
        text = f"1 job died in the last hour: {most}"
    shown = died_since(evidence.hour_start) if evidence.new_dead else None
    return Check(name=name, notices=(Notice(level=Level.BAD, text=text, jobs=shown),))


def _backlog(evidence: Evidence) -> Check:
    name = "backlog growth"
    figures = evidence.figures
    counts = figures.status_counts()
    if counts is None:
        return Check(name=name, not_checked="the jobs could not be counted")
    if not evidence.samples:
        if figures.source == "rollup":
            return Check(name=name, not_checked="the collector has taken no sample yet")
        if evidence.has_collector:
            reason = "the collector has no fresh figures"
            return Check(name=name, not_checked=reason, remedy=remedies.READ_THE_LOG)
        reason, remedy = "no collector is running", remedies.START_A_COLLECTOR
        return Check(name=name, not_checked=reason, remedy=remedy)
    first = min(evidence.samples)
    age = figures.as_of - first
    if age < SAMPLE_AGE:
        return Check(name=name, not_checked="the first sample is too young to compare with")
    was, now = evidence.samples[first].status_counts.get(_QUEUED, 0), counts[_QUEUED]
    if now <= was + FEW or now <= was * GREW_BY:
        return Check(name=name)
    when = "an hour ago" if age >= 55 * MINUTE else f"{_minutes(age)} ago"
    text = f"Backlog growing: {grouped(now)} queued, up from {grouped(was)} {when}"
    notice = Notice(level=Level.WATCH, text=text, jobs=JobFilter(statuses=(_QUEUED,)))
    return Check(name=name, notices=(notice,))


def _failures(evidence: Evidence) -> Check:
    name = "failure rates"
    if isinstance(evidence.hour, Missing):
        return _unmade(name, evidence.hour)
    failing = failing_types(evidence)
    if not failing:
        return Check(name=name)
    kind, rate = next(iter(failing.items()))
    if len(failing) == 1:
        text = f"{percent(rate)} of {kind} attempts failed in the last hour"
    else:
        text = (
            f"{grouped(len(failing))} types failed in {percent(MANY_FAIL)} or more of their "
            f"attempts in the last hour, most often {kind} ({percent(rate)})"
        )
    notice = Notice(
        level=Level.WATCH,
        text=text,
        types=TypeCondition.FAILING,
        type_name=kind if len(failing) == 1 else "",
    )
    return Check(name=name, notices=(notice,))


def _collector(evidence: Evidence) -> Check:
    name = "the collector"
    if evidence.figures.source == "rollup":
        return Check(name=name)
    if evidence.first_build is not None:
        counted, estimated = (evidence.first_build[key] for key in ("counted", "estimated"))
        text = f"A first count is under way: {grouped(counted)} of about {grouped(estimated)} jobs"
    elif evidence.leader is not None:
        text = f"Collector {evidence.leader} runs, but has no fresh figures. "
        text += remedies.READ_THE_LOG
    else:
        text = "No collector is running: figures are counted on request. "
        text += remedies.START_A_COLLECTOR
    return Check(name=name, notices=(Notice(level=Level.WATCH, text=text),))


def _minutes(length: timedelta) -> str:
    """A duration in whole minutes: told anew once a minute, not once a second."""
    return duration(length // MINUTE * 60_000)


def grouped_by_reason(checks: list[Check]) -> Iterator[tuple[str, str, list[str]]]:
    """What could not be checked: the reason, the remedy, and the names of the checks."""
    found: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check.not_checked:
            found.setdefault((check.not_checked, check.remedy), []).append(check.name)
    for (reason, remedy), names in found.items():
        yield reason, remedy, names


def is_all_clear(checks: list[Check]) -> bool:
    """Whether every check was made and gave no notice."""
    return not any(check.notices or check.not_checked for check in checks)
