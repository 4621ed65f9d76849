"""The content of the overview: notices, tiles, types and charts, all from the same facts."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobmon.actions.mutes import NO_MUTES, ActiveMutes
from jobmon.api.windows import explain_untyped_runs
from jobmon.dashboard.comparison import describe_uncompared
from jobmon.dashboard.facts import Facts
from jobmon.dashboard.formatting import capitalize_first
from jobmon.dashboard.mute_lines import MuteLine, list_mute_lines
from jobmon.dashboard.status_strip import StatusStrip, StripNotice, make_strip
from jobmon.dashboard.tiles import Tile, make_tiles
from jobmon.dashboard.type_table import TypeRow, make_type_rows
from jobmon.diagnosis.attention import failing_types, run_checks, stalled_types
from jobmon.diagnosis.evidence import Missing
from jobmon.diagnosis.forecast import MIN_JOBS, Forecast, Outlook, forecast_queue
from jobmon.diagnosis.notice_address import find_notice_address
from jobmon.diagnosis.notices import (
    ALL_CLEAR,
    UNKNOWN,
    CheckKind,
    Level,
    Notice,
    TypeCondition,
    describe_unchecked,
)
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.marks import Mark
from jobmon.rollup.series import History

ALL_CLEAR_TEXT = "All clear: no expired leases, stalled types or new dead jobs."
MUTES_SHOWN = 20
ONLY_MUTED_TEXT = "Nothing else needs attention: all notices are muted."


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything that the page shows.

    `total` is the number of jobs. The strip also has a notice for each reason why checks could not
    be made. `mutes` are the lines of the active mutes, `omitted_mutes` counts further lines.
    `are_types_counted`: whether `types` has all types that have jobs. `types_by_condition` has the
    types of each `TypeCondition`. `has_history`: whether the attempts of the window are known.
    `gaps` are the parts of the window in which runs may be missing, each with the reason. `marks`
    are the deployments and other marks of the window, the newest first; None without the right to
    read them. `omitted_marks` counts older marks that are not in `marks`. `uncompared` has a
    sentence for each reason why tiles have no change. `no_forecast_reason` is why the forecast for
    the due jobs is unknown; empty if it is known, if few are due, or without any history.
    `is_over`: as in `Facts`. `untyped_reason` is why runs have no type; empty if all have one.
    """

    total: int
    tiles: list[Tile]
    strip: StatusStrip
    mutes: list[MuteLine]
    omitted_mutes: int
    types: list[TypeRow]
    are_types_counted: bool
    types_by_condition: Mapping[str, frozenset[str]]
    has_history: bool
    gaps: list[tuple[Gap, str]]
    marks: list[Mark] | None
    omitted_marks: int
    uncompared: list[str]
    no_forecast_reason: str
    is_over: bool
    untyped_reason: str = ""


# The words for each reason why runs may be missing from a part of the history.
GAPS = {
    GapReason.BEFORE_COLLECTOR: "no collector followed this queue yet",
    GapReason.STREAM_LOST: "the changes of the jobs were lost",
    GapReason.NO_CHANGE_STREAM: "a standalone server has no change stream",
    GapReason.NO_COLLECTOR: "no collector is running",
    GapReason.TOO_MANY_RUNNING: "more jobs ran than a collector remembers",
}


def make_overview(facts: Facts, mutes: ActiveMutes = NO_MUTES) -> Overview:
    """The overview for these facts; muted notices are not in the strip, but in lines below it."""
    checks = run_checks(facts.evidence)
    notices = sorted(
        (
            _make_strip_notice(check.kind, notice)
            for check in mutes.leave_out_muted(checks)
            for notice in check.notices
        ),
        key=lambda chip: chip.level != Level.BAD,
    )
    are_all_muted = any(check.notices for check in checks) and not notices
    text, level = (ONLY_MUTED_TEXT, "quiet") if are_all_muted else (ALL_CLEAR_TEXT, ALL_CLEAR)
    unchecked = [StripNotice(level=UNKNOWN, text=reason) for reason in describe_unchecked(checks)]
    forecast, mute_lines = forecast_queue(facts.evidence), list_mute_lines(checks, mutes)
    return Overview(
        total=facts.evidence.stats.total,
        tiles=make_tiles(facts, forecast),
        strip=make_strip([*notices, *unchecked], text, level),
        mutes=mute_lines[:MUTES_SHOWN],
        omitted_mutes=len(mute_lines[MUTES_SHOWN:]),
        types=make_type_rows(facts),
        types_by_condition={
            TypeCondition.STALLED: frozenset(stalled_types(facts.evidence)),
            TypeCondition.PAUSED: frozenset(facts.evidence.pauses),
            TypeCondition.FAILING: frozenset(failing_types(facts.evidence)),
        },
        are_types_counted=facts.evidence.stats.counts is not None,
        has_history=isinstance(facts.history_by_type, History)
        and "finishedAt" not in facts.evidence.unknown,
        gaps=[(gap, GAPS[gap.reason]) for gap in facts.history_by_step.gaps]
        if isinstance(facts.history_by_step, History)
        else [],
        marks=None if facts.marks is None else list(reversed(facts.marks.shown)),
        omitted_marks=0 if facts.marks is None else facts.marks.omitted,
        uncompared=describe_uncompared(facts),
        no_forecast_reason=_explain_no_forecast(facts, forecast),
        is_over=facts.is_over,
        untyped_reason=explain_untyped_runs(facts.history_by_type, facts.evidence.stats)
        if isinstance(facts.history_by_type, History)
        else "",
    )


def _explain_no_forecast(facts: Facts, forecast: Forecast) -> str:
    evidence = facts.evidence
    is_backlog = (evidence.stats.health.due or 0) >= MIN_JOBS
    if not is_backlog or isinstance(evidence.blocks, Missing):
        return ""
    return capitalize_first(forecast.text) if forecast.outlook is Outlook.UNKNOWN else ""


def _make_strip_notice(kind: CheckKind, notice: Notice) -> StripNotice:
    return StripNotice(
        level=notice.level.value,
        text=notice.text,
        link=find_notice_address(notice),
        since=notice.since,
        kind=kind.value,
    )
