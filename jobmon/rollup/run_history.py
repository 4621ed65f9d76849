"""Errors, workers and the slowest runs over a window of time, from the collector's buckets."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmon.rollup.buckets import HistoryProgress
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.gaps import Gap
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.run_details import RunDetails, merge_details
from jobmon.rollup.series import History, NoCollectorError, SeriesReader
from jobmon.rollup.windows import Window
from jobmon.single_flight import SingleFlightCache

ErrorSteps = dict[datetime, dict[str, Counter[str]]]  # failed runs by step, group and type

MAX_CACHED = 50  # windows of a queue; the history of one takes up to 2 MB, usually a few KB


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """The details of a window as known at `as_of` (UTC).

    Unless `is_complete`, a collector is still counting the window. A window that `is_ahead` begins
    at `as_of` or later: nothing is known of it. `groups` has the groups of errors by id; a group
    without an entry was removed. In `gaps` runs may be missing. Before `counting_since` errors may
    be missing; None if all are counted. `no_data_before`: the beginning of the retained history, if
    an earlier time was requested. Before `untyped_until` the type of a worker's runs may be
    unknown; None if all types are known.
    """

    as_of: datetime
    is_complete: bool
    details: RunDetails
    groups: Mapping[str, ErrorGroup]
    gaps: tuple[Gap, ...] = ()
    counting_since: datetime | None = None
    no_data_before: datetime | None = None
    untyped_until: datetime | None = None
    is_ahead: bool = False

    @property
    def incomplete_reason(self) -> str:
        """Why details of runs may be missing in the window; empty if all are known."""
        if not self.is_complete:
            return "the collector is still counting"
        if self.gaps:
            return "runs may be missing"
        first = self.no_data_before
        return "" if first is None else f"no data is kept from before {first:%Y-%m-%d} UTC"


def is_over(window: Window, history: History[Any] | RunHistory) -> bool:
    """Whether a window is in the past and fully counted; its last minutes may still change."""
    return history.is_complete and window.end <= history.as_of


class RunHistoryReader:
    """Reads the details of runs that the collector stores; its methods raise PyMongoError.

    `read` and `errors_by_step` raise NoCollectorError if no collector counts. After each count of
    the collector they read a window once, for all viewers.

        window = series.window(start, end, None)
        runs.read(window).details.failed  # 12
    """

    def __init__(self, rollup: RollupReader, series: SeriesReader) -> None:
        self._rollup = rollup
        self._series = series
        self._histories: SingleFlightCache[RunHistory] = SingleFlightCache(MAX_CACHED)
        self._error_steps: SingleFlightCache[ErrorSteps] = SingleFlightCache(MAX_CACHED)

    def read(self, window: Window) -> RunHistory:
        """The details of the whole window, summed."""
        progress = self._rollup.progress()
        if progress is None:
            raise NoCollectorError
        counted_at = progress.counted_at

        def compute() -> RunHistory:
            parts = self._rollup.details(window.cover(counted_at))
            untyped_ends = [at + span for (span, at), part in parts.items() if part.lacks_types]
            return RunHistory(
                as_of=counted_at,
                is_complete=progress.covers(window.start, window.end),
                details=merge_details(parts.values()),
                groups=self._rollup.error_groups(),
                gaps=self._series.find_gaps(window, counted_at),
                counting_since=self._find_counting_start(progress),
                no_data_before=window.no_data_before,
                untyped_until=max(untyped_ends, default=None),
                is_ahead=window.is_ahead(counted_at),
            )

        return self._histories.get((window, counted_at), compute)

    def read_groups(self) -> RunHistory | None:
        """All groups of errors, without counts; None if no collector counts."""
        progress = self._rollup.progress()
        if progress is None:
            return None
        return RunHistory(
            as_of=progress.counted_at,
            is_complete=progress.counted_from is None,
            details=RunDetails(),
            groups=self._rollup.error_groups(),
            counting_since=self._find_counting_start(progress),
        )

    def errors_by_step(self, window: Window) -> ErrorSteps:
        """Failed runs by group, then by type, for each step of the window."""
        progress = self._rollup.progress()
        if progress is None:
            raise NoCollectorError

        def compute() -> ErrorSteps:
            parts = window.parts(window.steps())
            steps: ErrorSteps = {at: {} for at in window.steps()}
            for part, details in self._rollup.details(parts, only_errors=True).items():
                groups = steps[parts[part]]
                for (group, job_type), count in details.by_type.items():
                    groups.setdefault(group, Counter())[job_type] += count
            return steps

        return self._error_steps.get((window, progress.counted_at), compute)

    def _find_counting_start(self, progress: HistoryProgress) -> datetime | None:
        events = self._rollup.event_history()
        starts = [progress.counted_from, None if events is None else events.first_minute]
        return max((at for at in starts if at is not None), default=None)
