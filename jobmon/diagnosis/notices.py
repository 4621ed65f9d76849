"""The checks of a queue and their notices: kinds, levels and the reasons for missing checks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobmon.store.filter import JobFilter


class Level(StrEnum):
    """How urgent a notice is."""

    BAD = "bad"
    WATCH = "watch"


# The levels of a queue without notices: after all checks, and if a check was not made completely.
ALL_CLEAR, UNKNOWN = "ok", "unknown"


class CheckKind(StrEnum):
    """What a check is about; also the kind of its notices."""

    FINISHING = "nothing_finishes"
    LEASES = "expired_leases"
    STALLED = "stalled_types"
    PAUSED = "paused_types"
    OLDEST_DUE = "oldest_due_job"
    DEAD = "new_dead_jobs"
    COUNTS = "jobs_not_counted"
    NEW_STATUSES = "new_statuses"
    BACKLOG = "backlog_growth"
    FAILURES = "failure_rates"
    COLLECTOR = "collector"


# The notices of these checks are about types of jobs; all others are about the whole queue.
KINDS_BY_TYPE = frozenset(
    {
        CheckKind.STALLED,
        CheckKind.PAUSED,
        CheckKind.OLDEST_DUE,
        CheckKind.DEAD,
        CheckKind.FAILURES,
    }
)


class TypeCondition(StrEnum):
    """The condition of the types that a notice counts."""

    STALLED = "stalled"
    PAUSED = "paused"
    FAILING = "failing"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that needs attention, and the jobs or types that a page shows for it.

    `since` is when it began, UTC; None if that is unknown. `jobs`, `types`: what the page of the
    notice lists; None if it has no such page. `type_name`: the type whose page shows it, if it is
    about one type and not about dead jobs. `count`: how many jobs or types it is about; None if
    unknown. `about_types`: the types that it is about, for `KINDS_BY_TYPE`.
    """

    level: Level
    text: str
    since: datetime | None = None
    jobs: JobFilter | None = None
    types: TypeCondition | None = None
    type_name: str = ""
    count: int | None = None
    about_types: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of a check. It found no problem if `notices` and `not_checked` are empty.

    `not_checked`: why it was not made, or not completely. `remedy`: what to do about that.
    """

    kind: CheckKind
    notices: tuple[Notice, ...] = ()
    not_checked: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        """What it checks, in words for people."""
        return _NAMES[self.kind]


_NAMES = {
    CheckKind.FINISHING: "whether jobs finish",
    CheckKind.LEASES: "expired leases",
    CheckKind.STALLED: "stalled types",
    CheckKind.PAUSED: "paused types",
    CheckKind.OLDEST_DUE: "the oldest due job",
    CheckKind.DEAD: "new dead jobs",
    CheckKind.COUNTS: "counts by status",
    CheckKind.NEW_STATUSES: "new statuses",
    CheckKind.BACKLOG: "backlog growth",
    CheckKind.FAILURES: "failure rates",
    CheckKind.COLLECTOR: "the collector",
}


def collect_notices(checks: list[Check]) -> list[Notice]:
    """The notices of all checks, the worst first."""
    notices = [notice for check in checks for notice in check.notices]
    return sorted(notices, key=lambda notice: notice.level is not Level.BAD)


def group_by_reason(checks: list[Check]) -> Iterator[tuple[str, str, list[str]]]:
    """Each reason why checks were not made completely, its remedy, and the names of the checks."""
    groups: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check.not_checked:
            groups.setdefault((check.not_checked, check.remedy), []).append(check.name)
    for (reason, remedy), names in groups.items():
        yield reason, remedy, names


def describe_unchecked(checks: list[Check]) -> Iterator[str]:
    """A sentence for each reason why checks were not made completely."""
    for reason, remedy, names in group_by_reason(checks):
        yield f"Not checked: {', '.join(names)} ({reason}). {remedy}".rstrip()


def is_all_clear(checks: list[Check]) -> bool:
    """Whether every check was made completely, and none has a notice."""
    return not any(check.notices or check.not_checked for check in checks)


def summary_level(checks: list[Check]) -> str:
    """The level of the worst notice; without one ALL_CLEAR, or UNKNOWN if a check is incomplete."""
    if notices := collect_notices(checks):
        return notices[0].level.value
    return ALL_CLEAR if is_all_clear(checks) else UNKNOWN
