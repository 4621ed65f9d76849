"""Lists the jobs with the longest runs, from the bounded lists that the collector keeps."""

from datetime import timedelta
from typing import NamedTuple

from jobmon.api.slowest import explain_slowest
from jobmon.api.window_queries import WindowQuery
from jobmon.api.windows import NO_COLLECTOR, explain_history_errors, resolve_window
from jobmon.rollup.run_details import SLOWEST, RunDetails, SlowRun
from jobmon.single_flight import SingleFlightCache
from jobmon.store.bson_json import to_text
from jobmon.store.filter import JobFilter
from jobmon.store.mapping import Document
from jobmon.store.search import matches_filter
from jobmon.web.queues import WatchedQueue

MAX_JOBS = 100
MAX_LOOKED_UP = 1_000  # jobs whose status decides whether they are listed
CACHE_TTL_S = 2
MAX_CACHED = 20  # lists
DEFAULT_LENGTH = timedelta(days=1)  # of a window for which no start is requested
LONGEST_ONLY = (
    f"of each type only the {SLOWEST} longest runs that ended in the window are kept, and jobs "
    "that no longer exist are left out"
)


class LongestRuns(NamedTuple):
    """The jobs with the longest runs, and the `reason` why jobs may be missing."""

    jobs: list[Document]
    reason: str


class LongestRunReader:
    """Lists jobs by the length of their longest run; callers share a list for two seconds."""

    def __init__(self) -> None:
        self._lists: SingleFlightCache[LongestRuns] = SingleFlightCache(MAX_CACHED)

    def list(self, queue: WatchedQueue, job_filter: JobFilter) -> LongestRuns:
        """At most 100 jobs, each with the `durationMs` of its longest run, the longest first.

        Only runs that ended from `finished_from` to before `finished_to` count, by default runs of
        the last 24 hours. Of the other filters, only status and type are used. Raises ApiError 422
        or 503 for a window without a history, and PyMongoError.
        """
        key = queue.name, job_filter
        return self._lists.get(key, lambda: _read_longest(queue, job_filter), CACHE_TTL_S)


def drop_dates(job_filter: JobFilter) -> JobFilter:
    """The filter of the listed jobs: its dates are those of their runs."""
    return JobFilter(statuses=job_filter.statuses, types=job_filter.types)


def _read_longest(queue: WatchedQueue, job_filter: JobFilter) -> LongestRuns:
    start, end = job_filter.finished_from, job_filter.finished_to
    query = WindowQuery(start=start, end=end, length=DEFAULT_LENGTH)
    window = resolve_window(queue.series, query, prefix="finished_")
    with explain_history_errors(NO_COLLECTOR):
        history = queue.runs.read(window)
    runs = _select_runs(history.details, job_filter)
    # The status of a job is known only after the look-up.
    limit = MAX_LOOKED_UP if job_filter.statuses else MAX_JOBS
    looked_up = queue.lists.look_up(list(runs)[:limit], drop_dates(job_filter))
    jobs: list[Document] = [
        job | {"durationMs": runs[job_id].duration_ms}
        for job, is_match in looked_up
        if is_match and (job_id := to_text(job.get("jobId"))) in runs
    ]
    jobs.sort(key=lambda job: -int(job["durationMs"]))
    reasons = (explain_slowest(queue, history), history.incomplete_reason, LONGEST_ONLY)
    return LongestRuns(jobs[:MAX_JOBS], "; ".join(filter(None, reasons)))


def _select_runs(details: RunDetails, job_filter: JobFilter) -> dict[str, SlowRun]:
    """By job id: the longest run of each job; the longest run first."""
    start, end, types = job_filter.finished_from, job_filter.finished_to, job_filter.types
    matching = [
        run
        for job_type, runs in details.slowest.items()
        if not types or any(matches_filter(job_type, pattern) for pattern in types)
        for run in runs[:SLOWEST]
        if (start is None or run.finished_at >= start) and (end is None or run.finished_at < end)
    ]
    matching.sort(key=lambda run: (-run.duration_ms, run.finished_at, run.job_id))
    by_job: dict[str, SlowRun] = {}
    for run in matching:
        by_job.setdefault(run.job_id, run)
    return by_job
