"""Resolves the window of a request, and explains why a window has no history."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from jobmon.api.window_queries import WindowQuery
from jobmon.humanize import count
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.series import (
    History,
    MissingIndexError,
    NoCollectorError,
    SeriesReader,
    TooManyTypesError,
)
from jobmon.rollup.windows import Window, WindowError
from jobmon.store.labels import label
from jobmon.store.stats import QueueStats
from jobmon.web.errors import invalid, unavailable

TOO_LONG = "Without a collector a window has at most six hours."
UNTYPED = (
    "Of {runs} the type is null, but no job has this type now: perhaps jobs were deleted before "
    "their runs were counted. Then their deaths may be missing, too."
)
NO_COLLECTOR = "Only a collector knows this, and none has counted in the last minute."


def resolve_window(
    series: SeriesReader, query: WindowQuery, now: datetime | None = None, *, prefix: str = ""
) -> Window:
    """The window of a request; without an `end` it ends at `now`. Raises ApiError 422.

    The parameters `from` and `to` have a `prefix` in their names, such as `finished_`.
    """
    end = query.end or now or datetime.now(UTC)
    step = timedelta(seconds=query.step) if query.step is not None else None
    try:
        return series.window(query.start or end - query.length, end, step)
    except WindowError as error:
        parameter, message = error.parameter, error.explain(prefix)
    except (OverflowError, ValueError):  # a step begins before year 1 or ends after 9999
        parameter, message = "to" if query.end is not None else "from", "Out of range."
    raise invalid(prefix + parameter, message)


def format_window(window: Window, history: History[Any] | RunHistory | None) -> dict[str, Any]:
    """The window of an answer and its counted part; `history` is None if that is unknown."""
    return {
        "start": window.start,
        "end": window.end,
        "no_data_before": window.no_data_before,
        "step": round(window.step.total_seconds()),
        "as_of": history and history.as_of,
        "is_complete": history and history.is_complete,
        "gaps": history.gaps if history else (),
    }


@contextmanager
def explain_history_errors(no_collector: str = TOO_LONG) -> Iterator[None]:
    """Turn errors of the history into ApiErrors; `no_collector` is the message if none runs."""
    try:
        yield
    except MissingIndexError:
        raise unavailable(
            "collector_unavailable", "An index for counting is missing: `jobmon init` creates it."
        ) from None
    except NoCollectorError:
        raise unavailable("collector_unavailable", no_collector) from None
    except TooManyTypesError:
        raise invalid("type", "Too many job types in this window to filter by type.") from None


def explain_untyped_runs(history: History[str], stats: QueueStats) -> str:
    """Why runs of a window have no type, and deaths may be missing; empty if neither is likely.

    A run that is recorded as an attempt has the type of its job, which may have been deleted.
    """
    no_type = label(None)
    untyped = history.activity.get(no_type)
    if untyped is None or not untyped.finished or untyped.enqueued or stats.counts is None:
        return ""
    if any(job_type == no_type for _, job_type in stats.counts):
        return ""
    return UNTYPED.format(runs=count(untyped.finished, "run"))
