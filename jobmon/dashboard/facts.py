"""Reads the facts that the overview shows: the present evidence, and a time window."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobmon.dashboard.page_window import PageWindow
from jobmon.diagnosis.evidence import START_A_COLLECTOR, Evidence, Missing
from jobmon.diagnosis.evidence_reader import gather_evidence, read_history
from jobmon.rollup.buckets import DAY, HOUR, QueueSample
from jobmon.rollup.marks import Marks
from jobmon.rollup.run_history import is_over
from jobmon.rollup.series import History, NoCollectorError
from jobmon.rollup.windows import Window, WindowError
from jobmon.web.queues import WatchedQueue


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The period before a window: its history `past` and its `samples`, both by step.

    Each of its steps begins `distance` before the corresponding step of the window.
    """

    past: History[datetime]
    samples: Mapping[datetime, QueueSample]
    distance: timedelta


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The present evidence, and a time window: `past` is its history by step, `types` by type.

    `page_window` is the window that the address names, `window` the same in whole steps. `samples`
    are by step. `marks` is None without the right to read them. `previous` is None if no comparison
    is requested.
    """

    evidence: Evidence
    page_window: PageWindow
    window: Window
    past: History[datetime] | Missing
    types: History[str] | Missing
    samples: Mapping[datetime, QueueSample]
    marks: Marks | None
    previous: Previous | Missing | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of jobs by status; empty if they could not be counted."""
        return self.evidence.stats.status_counts() or {}

    @property
    def is_over(self) -> bool:
        """Whether the window lies in the past and is counted, if the history is known."""
        past = self.past
        if isinstance(past, Missing):
            return self.window.end <= datetime.now(UTC)
        return is_over(self.window, past)


def gather(
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
        past=read_history(lambda: series.history_by_step(window, ()), evidence, partly=True),
        types=read_history(lambda: series.history_by_type(window), evidence, partly=True),
        samples=series.samples(window),
        marks=queue.marks.find(window.start, window.end),
        previous=read_previous(queue, window, page_window.distance(window)) if compares else None,
    )


def read_previous(queue: WatchedQueue, window: Window, distance: timedelta) -> Previous | Missing:
    """The period that begins `distance` before a window, step by step; raises PyMongoError.

    It is read only from the collector's history: to count it live would double the cost of a page.
    """
    series = queue.series
    no_history = Missing(reason="no collector keeps a history", remedy=START_A_COLLECTOR)
    if series.rollup.progress() is None:
        return no_history
    try:
        previous = series.window(window.start - distance, window.end - distance, window.step)
        if previous.no_data_before is not None:
            raise WindowError("from", "Before the retained history.")
        past = series.history_by_step(previous, ())
    except WindowError:
        span_name = "MINUTE" if window.span < HOUR else "HOUR" if window.span < DAY else "DAY"
        days = (datetime.now(UTC) - window.start + distance).days + 1
        return Missing(
            reason="that is before the retained history",
            remedy=f"Set JOBMON_{span_name}_RETENTION_DAYS to {days} or more.",
        )
    except NoCollectorError:  # it stopped a moment ago
        return no_history
    return Previous(past=past, samples=series.samples(previous), distance=distance)
