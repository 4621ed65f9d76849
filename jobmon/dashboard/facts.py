"""Reads what the overview and the page of a type show: present evidence, and a window's history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobmon.dashboard.page_window import PageWindow
from jobmon.diagnosis.evidence import START_A_COLLECTOR, Evidence, Missing
from jobmon.diagnosis.evidence_reader import gather_evidence, read_history
from jobmon.rollup.buckets import DAY, HOUR, QueueSample
from jobmon.rollup.marks import Marks
from jobmon.rollup.run_history import is_over
from jobmon.rollup.series import History, NoCollectorError, SeriesReader
from jobmon.rollup.windows import Window, WindowError
from jobmon.web.queues import WatchedQueue


@dataclass(frozen=True, kw_only=True)
class PreviousPeriod:
    """The period before a window: its history and its `samples`, both by step.

    Each of its steps begins `distance` before the corresponding step of the window.
    """

    history_by_step: History[datetime]
    samples: Mapping[datetime, QueueSample]
    distance: timedelta


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The present evidence, and the history of a time window.

    `page_window` is the window that the address names, `window` the same in whole steps. `samples`
    are by step. `marks` is None without the right to read them. `previous` is None if no comparison
    is requested.
    """

    evidence: Evidence
    page_window: PageWindow
    window: Window
    history_by_step: History[datetime] | Missing
    history_by_type: History[str] | Missing
    samples: Mapping[datetime, QueueSample]
    marks: Marks | None
    previous: PreviousPeriod | Missing | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of jobs by status; empty if they could not be counted."""
        return self.evidence.stats.status_counts() or {}

    @property
    def is_over(self) -> bool:
        """Whether the window has ended; if the history is known, also whether it is counted."""
        history = self.history_by_step
        if isinstance(history, Missing):
            return self.window.end <= datetime.now(UTC)
        return is_over(self.window, history)


def gather_facts(
    queue: WatchedQueue, page_window: PageWindow, now: datetime, *, compares: bool = False
) -> Facts:
    """Read everything that the overview shows for a window; raises ApiError 422 and PyMongoError.

    With `compares` it also reads the period before the window.
    """
    series = queue.series
    window = page_window.resolve(series, now)
    evidence = gather_evidence(queue, now)
    return Facts(
        evidence=evidence,
        page_window=page_window,
        window=window,
        history_by_step=read_history(
            lambda: series.history_by_step(window, ()), evidence, allow_incomplete=True
        ),
        history_by_type=read_history(
            lambda: series.history_by_type(window), evidence, allow_incomplete=True
        ),
        samples=series.samples(window),
        marks=queue.marks.find(window.start, window.end),
        previous=read_previous(queue, window, page_window.distance(window)) if compares else None,
    )


def read_previous(
    queue: WatchedQueue, window: Window, distance: timedelta
) -> PreviousPeriod | Missing:
    """The period that begins `distance` before a window, or why it is missing.

    It is read only from the collector's history: to count it live would double the cost of a page.
    Raises PyMongoError.
    """
    series = queue.series
    no_history = Missing(reason="no collector keeps a history", remedy=START_A_COLLECTOR)
    if series.rollup.progress() is None:
        return no_history
    try:
        previous = _find_window(series, window, distance)
        history = None if previous is None else series.history_by_step(previous, ())
    except NoCollectorError:  # it stopped a moment ago
        return no_history
    if previous is None or history is None:
        span_name = "MINUTE" if window.span < HOUR else "HOUR" if window.span < DAY else "DAY"
        days = (datetime.now(UTC) - window.start + distance).days + 1
        return Missing(
            reason="no history in such short steps is kept from that time",
            remedy=f"Set JOBMON_{span_name}_RETENTION_DAYS to {days} or more.",
        )
    samples = series.samples(previous)
    return PreviousPeriod(history_by_step=history, samples=samples, distance=distance)


def _find_window(series: SeriesReader, window: Window, distance: timedelta) -> Window | None:
    """The window that is `distance` earlier; None if its steps are not kept."""
    try:
        earlier = series.window(window.start - distance, window.end - distance, window.step)
    except WindowError:
        return None
    return earlier if earlier.no_data_before is None else None
