"""Paused types: the check for them, and the words that explain a pause."""

from collections.abc import Iterable
from datetime import datetime

from jobmon.diagnosis.evidence import Evidence
from jobmon.diagnosis.notices import Check, CheckKind, Level, Notice, TypeCondition
from jobmon.humanize import duration, grouped
from jobmon.rollup.buckets import MINUTE
from jobmon.store.labels import label
from jobmon.store.paused_types import TypePause
from jobmon.store.stats import QueueStats

MAX_NAME_LENGTH, MAX_REASON_LENGTH = 60, 200  # characters of the person's name, and of the reason


def find_overdue(stats: QueueStats, pauses: Iterable[str]) -> dict[str, datetime]:
    """By type that is not paused: since when its oldest due job has been due."""
    paused = set(map(label, pauses))
    overdue = stats.health.overdue_by_type.items()
    return {job_type: due_since for job_type, due_since in overdue if job_type not in paused}


def are_all_due_paused(stats: QueueStats, pauses: Iterable[str] | None) -> bool | None:
    """Whether jobs are due, all of paused types; None if it is unknown.

    `pauses` is None if the paused types are unknown, or if the queue cannot pause types.
    """
    health = stats.health
    if pauses is None or health.due is None or "overdue_by_type" in health.unknown:
        return None
    return bool(health.overdue_by_type) and not find_overdue(stats, pauses)


def check_paused_types(evidence: Evidence) -> Check:
    """Whether types are paused: no worker takes their jobs until a person resumes them."""
    kind, pauses = CheckKind.PAUSED, evidence.pauses
    if not pauses:
        return Check(kind=kind)
    starts = {name: pause.since for name, pause in pauses.items() if pause.since is not None}
    longest = min(starts, key=lambda name: (starts[name], name)) if starts else min(pauses)
    since = starts.get(longest)
    length = ""
    if since is not None:  # in whole minutes, so that the notice changes once a minute
        length = duration(max(1, (evidence.stats.as_of - since) // MINUTE) * 60_000)
    if len(pauses) == 1:
        text = f"{longest} is paused" + (f" for {length}" if length else "")
        text += describe_pause(pauses[longest])
    else:
        text = f"{grouped(len(pauses))} types are paused"
        text += f", the longest for {length}: {longest}" if length else ""
    notice = Notice(
        level=Level.WATCH,
        text=text,
        since=since,
        types=TypeCondition.PAUSED,
        type_name=longest if len(pauses) == 1 else "",
        count=len(pauses),
        about_types=frozenset(pauses),
    )
    return Check(kind=kind, notices=(notice,))


def describe_pause(pause: TypePause) -> str:
    """The words after "is paused": by whom and why, without a full stop; may be empty."""
    by = f" by {pause.by[:MAX_NAME_LENGTH]}" if pause.by else ""
    reason = " ".join(pause.reason.split()).rstrip(".")
    if len(reason) > MAX_REASON_LENGTH:
        reason = f"{reason[:MAX_REASON_LENGTH]}…"
    return f"{by}: {reason}" if reason else by
