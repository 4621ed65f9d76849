"""Selects the notices of a queue for one receiver: by its level and types, without muted ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from jobmon.actions.mutes import NO_MUTES, ActiveMutes
from jobmon.diagnosis.attention import run_checks
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.notice_address import find_notice_address
from jobmon.diagnosis.notices import KINDS_BY_TYPE, Check, CheckKind, Level
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.series import History
from jobmon.settings.name_patterns import matches_any
from jobmon.settings.receivers import ReceiverAddress
from jobmon.store.labels import OTHER

MAX_TYPES = 100  # a problem with more types is kept without types
MAX_TEXT_LENGTH = 500  # characters
_NOT_SELECTED = Missing(reason="it is about all types")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A notice without the fields that only pages need.

    `since` is UTC; None if unknown. `count`: how many jobs or types; None if unknown. `types`: the
    types that it is about; empty if it is about the whole queue, or more than 100 types. `address`:
    the page that shows these jobs or types; empty if there is no page.
    """

    kind: CheckKind
    level: Level
    text: str
    since: datetime | None = None
    count: int | None = None
    types: frozenset[str] = frozenset()
    address: str = ""


@dataclass(frozen=True)
class FoundProblems:
    """The problems of a queue, without muted ones, and the kinds that were not checked completely.

    `muted`: the muted types of each kind that is muted completely or for some types. `problems`
    has such a kind only for its other types.
    """

    problems: Mapping[CheckKind, Problem] = field(default_factory=dict)
    unknown: frozenset[CheckKind] = frozenset()
    muted: Mapping[CheckKind, frozenset[str]] = field(default_factory=dict)


def find_problems(
    evidence: Evidence,
    receiver: ReceiverAddress,
    redactor: Redactor,
    mutes: ActiveMutes = NO_MUTES,
) -> FoundProblems:
    """The problems for a receiver: of its level or a worse one, of its types, and not muted."""
    kinds = frozenset(CheckKind)
    if receiver.types:
        patterns = receiver.types
        evidence = _select_types(evidence, lambda name: matches_any(name, patterns))
        kinds = KINDS_BY_TYPE
    checks = run_checks(evidence)
    with_muted = _select_problems(checks, kinds, receiver, redactor)
    problems, muted = dict(with_muted.problems), {}
    for check in checks if mutes.mutes else ():
        names = frozenset(name for notice in check.notices for name in notice.about_types)
        if check.kind not in problems:
            continue
        types = mutes.select_muted(check.kind, names)
        is_muted = mutes.is_muted(check.kind, names)
        if is_muted or types:
            del problems[check.kind]
            muted[check.kind] = frozenset(map(redactor.redact, types))
        if types and not is_muted:
            other_types = _select_types(evidence, partial(_is_not_in, types))
            rechecks = [new for new in run_checks(other_types) if new.kind is check.kind]
            problems |= _select_problems(rechecks, kinds, receiver, redactor).problems
    return FoundProblems(problems, with_muted.unknown, muted)


def _is_not_in(types: frozenset[str], name: str) -> bool:
    return name not in types


def _select_problems(
    checks: Sequence[Check],
    kinds: frozenset[CheckKind],
    receiver: ReceiverAddress,
    redactor: Redactor,
) -> FoundProblems:
    """The problems of these kinds that are urgent enough for a receiver."""
    problems, unknown = {}, set()
    for check in checks:
        if check.kind not in kinds:
            continue
        for notice in check.notices:
            if receiver.level in (notice.level, Level.WATCH):
                text = redactor.redact(notice.text[:MAX_TEXT_LENGTH])
                types = notice.about_types if len(notice.about_types) <= MAX_TYPES else frozenset()
                problems[check.kind] = Problem(
                    kind=check.kind,
                    level=notice.level,
                    text=text,
                    since=notice.since,
                    count=notice.count,
                    types=frozenset(map(redactor.redact, types)),
                    # If a type's name contains a secret, the redacted address leads to no page.
                    address=redactor.redact(find_notice_address(notice)),
                )
        if check.not_checked:
            unknown.add(check.kind)
    return FoundProblems(problems, frozenset(unknown))


def _select_types(evidence: Evidence, is_selected: Callable[[str], bool]) -> Evidence:
    """The evidence about only some types, for the checks of `KINDS_BY_TYPE`."""

    def select(by_type: Mapping[str, T]) -> dict[str, T]:
        return {type_name: value for type_name, value in by_type.items() if is_selected(type_name)}

    def select_history(
        history: History[str] | Missing, also: frozenset[str] = frozenset()
    ) -> History[str] | Missing:
        if isinstance(history, Missing):
            return history
        others = {name: history.activity[name] for name in also & history.activity.keys()}
        return replace(history, activity=select(history.activity) | others)

    # Runs in `(other)` may be of any type: without them, a type would look stalled.
    recent = {
        length: select_history(history, frozenset({OTHER}))
        for length, history in evidence.recent.items()
    }
    health = evidence.stats.health
    is_none_dead = evidence.new_dead is not None and not evidence.new_dead.value
    return replace(
        evidence,
        stats=replace(
            evidence.stats,
            health=replace(health, overdue_by_type=select(health.overdue_by_type)),
        ),
        hour_by_type=select_history(evidence.hour_by_type),
        recent=recent,
        hour_by_minute=_NOT_SELECTED,
        new_dead=evidence.new_dead if is_none_dead else None,
        pauses=select(evidence.pauses),
    )
