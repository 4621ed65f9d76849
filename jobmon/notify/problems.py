"""The notices of a queue as one receiver gets them: one of each kind, about its types only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from jobmon.diagnosis.attention import run_checks
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.notice_address import find_notice_address
from jobmon.diagnosis.notices import KINDS_BY_TYPE, CheckKind, Level
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.series import History
from jobmon.settings.name_patterns import matches_any
from jobmon.settings.receivers import ReceiverAddress

MAX_TYPES = 100
MAX_TEXT_LENGTH = 500
_NOT_SELECTED = Missing(reason="it is about all types")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A notice without the fields that only pages need.

    `since` is UTC; None if unknown. `count`: jobs or types; None if unknown. `types`: the types it
    counts; empty for a notice about the whole queue, and if there are more than 100. `address`: the
    page that shows them; empty if there is none.
    """

    kind: CheckKind
    level: Level
    text: str
    since: datetime | None = None
    count: int | None = None
    types: frozenset[str] = frozenset()
    address: str = ""


@dataclass(frozen=True)
class Findings:
    """The problems of a queue, and the kinds that could not be checked: these may have problems."""

    problems: Mapping[CheckKind, Problem] = field(default_factory=dict)
    unknown: frozenset[CheckKind] = frozenset()


def find_problems(evidence: Evidence, receiver: ReceiverAddress, redactor: Redactor) -> Findings:
    """The problems that a receiver gets: of its level and of its types."""
    kinds = frozenset(CheckKind)
    if receiver.types:
        evidence, kinds = _select_types(evidence, receiver.types), KINDS_BY_TYPE
    problems, unknown = {}, set()
    for check in run_checks(evidence):
        if check.kind not in kinds:
            continue
        for notice in check.notices:
            if receiver.level in (notice.level, Level.WATCH):
                text = redactor.redact(notice.text[:MAX_TEXT_LENGTH])
                few = len(notice.counted) <= MAX_TYPES
                problems[check.kind] = Problem(
                    kind=check.kind,
                    level=notice.level,
                    text=text,
                    since=notice.since,
                    count=notice.count,
                    types=frozenset(map(redactor.redact, notice.counted if few else ())),
                    # If a type's name contains a secret, the redacted address leads to no page.
                    address=redactor.redact(find_notice_address(notice)),
                )
        if check.not_checked:
            unknown.add(check.kind)
    return Findings(problems, frozenset(unknown))


def _select_types(evidence: Evidence, patterns: Sequence[str]) -> Evidence:
    """The evidence of only the types that match a pattern; evidence without types is left out."""

    def select(by_type: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in by_type.items() if matches_any(name, patterns)}

    def select_history(history: History[str] | Missing) -> History[str] | Missing:
        if isinstance(history, Missing):
            return history
        return replace(history, activity=select(history.activity))

    health = evidence.stats.health
    return replace(
        evidence,
        stats=replace(
            evidence.stats,
            health=replace(health, overdue_by_type=select(health.overdue_by_type)),
        ),
        hour=select_history(evidence.hour),
        recent={length: select_history(history) for length, history in evidence.recent.items()},
        minutes=_NOT_SELECTED,
        new_dead=None,
        pauses=select(evidence.pauses),
    )
