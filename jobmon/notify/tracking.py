"""Decides when a receiver gets news: a problem begins, gets worse, lasts for long, or ends.

Pure functions of the tracked problems, the present problems, and the time. The time is the
database's, so that a machine with a wrong clock neither repeats nor delays a message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from jobmon.actions.mutes import NO_MUTES, ActiveMutes
from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.notify.problems import FoundProblems, Problem

# A problem that is gone for this time is over.
CLEAR_FOR = timedelta(minutes=5)
WORSE_FACTOR, MIN_WORSE = 2, 10  # worse: at least twice as many jobs or types, and ten more


class Change(StrEnum):
    """Why a problem is in a message."""

    BEGINS = "begins"
    WORSE = "worse"
    CONTINUES = "continues"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When a problem is sent. `delay`: how long it must last, or be worse, before it is sent.

    `repeat`: the time after which an open problem is sent again; None for never.
    """

    delay: timedelta
    repeat: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class TrackedProblem:
    """A problem that a receiver got, or will get if it lasts.

    `problem`: as last reported, or as first seen at `seen_at` if it was not reported.
    `is_confirmed`: it has lasted for the delay, so its end is reported, too. `worse_at`: since
    when it is worse than reported. `gone_at`: since when it is gone. `was_muted`: it was muted
    after it was reported, so it is sent again when the mute ends.
    """

    problem: Problem
    seen_at: datetime
    is_confirmed: bool = False
    reported_at: datetime | None = None
    worse_at: datetime | None = None
    gone_at: datetime | None = None
    was_muted: bool = False


@dataclass(frozen=True, kw_only=True)
class News:
    """An item of a message. `ended_at`: since when the problem is gone; None unless it is over."""

    change: Change
    problem: Problem
    ended_at: datetime | None = None


TrackedProblems = Mapping[CheckKind, TrackedProblem]


def track(
    tracked: TrackedProblems, found: FoundProblems, now: datetime, timing: Timing
) -> dict[CheckKind, TrackedProblem]:
    """The tracked problems after a check; a problem that was not checked completely stays open."""
    updated: dict[CheckKind, TrackedProblem] = {}
    for kind in CheckKind:
        entry, problem = tracked.get(kind), found.problems.get(kind)
        if entry is not None:
            entry = _limit_to_past(entry, now)
        if problem is not None:
            if entry is not None:
                entry = _forget_types(entry, found.muted.get(kind, frozenset()))
            entry = entry or TrackedProblem(problem=problem, seen_at=now)
            entry = _update(entry, problem, now, timing)
        elif kind in found.muted:
            # A problem that was not sent yet begins again when the mute ends.
            is_known = entry is not None and entry.reported_at is not None
            entry = _mark_muted(entry) if entry is not None and is_known else None
        elif entry is not None and kind in found.unknown:
            entry = replace(entry, gone_at=None)
        elif entry is not None:
            entry = replace(entry, gone_at=entry.gone_at or now) if entry.is_confirmed else None
        if entry is not None:
            updated[kind] = entry
    return updated


def list_news(
    tracked: TrackedProblems,
    found: FoundProblems,
    now: datetime,
    timing: Timing,
    mutes: ActiveMutes = NO_MUTES,
) -> list[News]:
    """The news to send now, the most urgent first.

    The end of a muted problem is sent when the mute ends.
    """
    news = []
    for kind, entry in tracked.items():
        problem = found.problems.get(kind)
        if entry.gone_at is not None:
            is_over = now >= entry.gone_at + CLEAR_FOR
            if is_over and not mutes.is_muted(kind, entry.problem.types):
                news.append(News(change=Change.OVER, problem=entry.problem, ended_at=entry.gone_at))
        elif problem is not None:
            change = _find_change(entry, now, timing)
            acknowledged = mutes.is_acknowledged(kind, problem.types, entry.seen_at)
            if change is Change.CONTINUES and acknowledged and not entry.was_muted:
                continue
            if change is not None:
                news.append(News(change=change, problem=problem))
    return sorted(
        news, key=lambda item: (item.change is Change.OVER, item.problem.level is not Level.BAD)
    )


def find_open_level(tracked: TrackedProblems) -> Level | None:
    """The level of the worst problem that a receiver got and that is not over; None without one."""
    levels = {entry.problem.level for entry in tracked.values() if entry.reported_at is not None}
    return next((level for level in Level if level in levels), None)


def record_sent(
    tracked: TrackedProblems, news: Sequence[News], now: datetime
) -> dict[CheckKind, TrackedProblem]:
    """The tracked problems after a receiver got this news."""
    updated = dict(tracked)
    for item in news:
        kind, problem = item.problem.kind, item.problem
        entry = updated.pop(kind, None)
        if item.change is Change.OVER:
            if entry is not None and entry.gone_at is None:  # it has returned
                updated[kind] = TrackedProblem(problem=entry.problem, seen_at=now)
            continue
        entry = entry or TrackedProblem(problem=problem, seen_at=now)
        if item.change is Change.WORSE and problem.types and entry.problem.types:
            # A type that disappears and returns is reported only once.
            problem = replace(problem, types=problem.types | entry.problem.types)
        updated[kind] = replace(
            entry,
            problem=problem,
            is_confirmed=True,
            reported_at=now,
            worse_at=None,
            was_muted=False,
        )
    return {kind: updated[kind] for kind in CheckKind if kind in updated}


def _update(
    entry: TrackedProblem, problem: Problem, now: datetime, timing: Timing
) -> TrackedProblem:
    is_confirmed = entry.is_confirmed or now >= entry.seen_at + timing.delay
    worse_at = None
    if entry.reported_at is not None and _is_worse(problem, entry.problem):
        worse_at = entry.worse_at or now
    return replace(entry, is_confirmed=is_confirmed, worse_at=worse_at, gone_at=None)


def _mark_muted(entry: TrackedProblem) -> TrackedProblem:
    return replace(entry, worse_at=None, gone_at=None, was_muted=True)


def _forget_types(entry: TrackedProblem, muted: frozenset[str]) -> TrackedProblem:
    """The entry as if the muted types had not been reported: they are news when the mute ends."""
    types = entry.problem.types - muted
    if types == entry.problem.types:
        return entry
    return replace(
        entry,
        problem=replace(entry.problem, types=types),
        was_muted=entry.was_muted or (not types and entry.reported_at is not None),
    )


def _find_change(entry: TrackedProblem, now: datetime, timing: Timing) -> Change | None:
    if entry.reported_at is None:
        return Change.BEGINS if entry.is_confirmed else None
    if entry.worse_at is not None and now >= entry.worse_at + timing.delay:
        return Change.WORSE
    if entry.was_muted:
        return Change.CONTINUES
    if timing.repeat is not None and now >= entry.reported_at + timing.repeat:
        return Change.CONTINUES
    return None


def _is_worse(problem: Problem, reported: Problem) -> bool:
    """Whether a problem is more urgent than reported, has a further type, or is much larger."""
    if problem.level is Level.BAD and reported.level is not Level.BAD:
        return True
    if reported.types and problem.types - reported.types:
        return True
    if problem.count is None or reported.count is None:
        return False
    return problem.count >= max(WORSE_FACTOR * reported.count, reported.count + MIN_WORSE)


def _limit_to_past(entry: TrackedProblem, now: datetime) -> TrackedProblem:
    """The entry with `now` for each time in the future: the clock was set back."""

    def limit(moment: datetime | None) -> datetime | None:
        return None if moment is None else min(moment, now)

    return replace(
        entry,
        seen_at=min(entry.seen_at, now),
        reported_at=limit(entry.reported_at),
        worse_at=limit(entry.worse_at),
        gone_at=limit(entry.gone_at),
    )
