"""Checks whether many jobs have got a status that jobmon does not know, as after a renaming."""

from jobmon.diagnosis.evidence import Evidence
from jobmon.diagnosis.notices import Check, CheckKind, Level, Notice
from jobmon.domain import JobStatus
from jobmon.humanize import grouped
from jobmon.store.filter import JobFilter
from jobmon.store.labels import can_filter_by

MIN_JOBS = 20  # fewer jobs cause no notice
_KNOWN = frozenset(status.value for status in JobStatus)


def check_new_statuses(evidence: Evidence) -> Check:
    """Whether jobs have an unknown status that no job had at the first sample of the last hour.

    Such jobs are neither due nor running for jobmon: a full queue would look empty.
    """
    kind, counts = CheckKind.NEW_STATUSES, evidence.stats.status_counts() or {}
    if not evidence.samples:
        return Check(kind=kind)
    before = evidence.samples[min(evidence.samples)].status_counts
    new = {
        name: count
        for name, count in counts.items()
        if name not in _KNOWN and count >= MIN_JOBS and not before.get(name)
    }
    if not new:
        return Check(kind=kind)
    main, total = max(new, key=lambda name: (new[name], name)), sum(new.values())
    status = f"the new status {main}" if len(new) == 1 else f"new statuses such as {main}"
    notice = Notice(
        level=Level.WATCH,
        text=f"{grouped(total)} jobs have {status}: they do not count as queued or running",
        jobs=JobFilter(statuses=tuple(sorted(new))) if all(map(can_filter_by, new)) else None,
        count=total,
    )
    return Check(kind=kind, notices=(notice,))
