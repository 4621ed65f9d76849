"""Reads the facts for the page of a type, and makes its status strip and tiles from them."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jobmon.api.job_lists import ListResponder
from jobmon.api.queries import ListQuery
from jobmon.dashboard.facts import Facts, gather_facts
from jobmon.dashboard.formatting import capitalize_first
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.status_strip import StatusStrip, StripNotice, make_strip
from jobmon.dashboard.tiles import Tile, is_worth_a_note, make_tiles
from jobmon.diagnosis.attention import describe_stall, stalled_types
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.evidence_reader import read_history
from jobmon.diagnosis.forecast import Forecast, forecast_types
from jobmon.diagnosis.notices import Level
from jobmon.domain import WAITING_STATUSES, CappedCount, JobStatus
from jobmon.humanize import duration, grouped, per_minute
from jobmon.page_addresses import query
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.series import History, TooManyTypesError
from jobmon.rollup.windows import Window
from jobmon.store.filter import JobFilter
from jobmon.store.labels import OTHER, can_filter_by
from jobmon.store.running_jobs import RunningJobs
from jobmon.store.stats import QueueStats
from jobmon.web.queues import WatchedQueue

TOO_MANY_TYPES = Missing(reason="this window has too many types to show one alone")
NOT_READ = "no index finds the waiting jobs of a type in this queue"
MILLISECOND = timedelta(milliseconds=1)
NO_FILTER = "jobs cannot be listed by this name"


@dataclass(frozen=True, kw_only=True)
class TypeFacts:
    """A type now and in a time window.

    `facts` are the overview's facts, but the stats, the history by step and the rules are those of
    the type. `forecast` is None without waiting jobs. `oldest` is the waiting job that was created
    first; None if no job waits, or if it is unknown: `oldest_unknown` is the reason. `due` is the
    number of due jobs, None if unknown. `stalled_for` is how long the oldest due job has been due,
    while no job of the type finished or runs; None if the type is not stalled.
    """

    name: str
    facts: Facts
    forecast: Forecast | None
    oldest: JobView | None
    oldest_unknown: str
    due: int | None
    stalled_for: timedelta | None

    @property
    def strip(self) -> StatusStrip:
        """The status strip: a notice if the type is stalled, or else the forecast in words."""
        notices, sentence = [], "No job of this type is waiting"
        if self.facts.evidence.stats.counts is None:
            sentence = "It is not known how many jobs of this type are waiting"
        if self.stalled_for is not None:
            waited = duration(self.stalled_for / MILLISECOND)
            stalled_after = self.facts.evidence.rules.thresholds.stalled_after
            text = f"Stalled: {describe_stall(waited, stalled_after)}"
            since = self.facts.evidence.stats.as_of - self.stalled_for
            notices = [StripNotice(level=Level.BAD.value, text=text, since=since)]
        forecast = self.forecast
        if forecast is not None:
            sentence = capitalize_first(forecast.text)
            if forecast.arrivals is not None:
                sentence += (
                    f" ({per_minute(forecast.arrivals)} enqueued, "
                    f"{per_minute(forecast.completions)} completed, in the last half hour)"
                )
        return make_strip(notices, f"{sentence}.", "quiet")

    @property
    def has_end_times(self) -> bool:
        """Whether the jobs record when they finished."""
        return "finishedAt" not in self.facts.evidence.unknown

    @property
    def has_jobs(self) -> bool:
        """Whether a job of the type exists or was active in the window; True if that is unknown."""
        counts, history = self.facts.evidence.stats.counts, self.facts.history_by_step
        if counts is None or isinstance(history, Missing) or any(counts.values()):
            return True
        return any(step.enqueued or step.finished or step.dlq for step in history.activity.values())


def gather_type(
    queue: WatchedQueue,
    lists: ListResponder,
    name: str,
    page_window: PageWindow,
    now: datetime,
) -> TypeFacts:
    """Read the facts of a type, by its label; raises ApiError 422 and PyMongoError."""
    hour = queue.series.window(now - HOUR, now, MINUTE)
    overview_facts = gather_facts(queue, page_window, now)
    evidence = overview_facts.evidence
    stats = restrict_stats(evidence.stats, name, queue.running.read())
    type_evidence = replace(
        evidence,
        stats=stats,
        hour_by_minute=_read_steps(queue, evidence, hour, name),
        blocks=Missing(reason="the blocks are counts of all types"),
        new_dead=None,
        rules=evidence.rules.restrict(name),
    )
    history = _read_steps(queue, evidence, overview_facts.window, name)
    oldest, oldest_unknown = _find_oldest(queue, lists, name)
    due = None
    if evidence.stats.health.scheduled == 0 and stats.counts is not None:
        due = sum(stats.counts.get((status, name), 0) for status in WAITING_STATUSES)
    return TypeFacts(
        name=name,
        facts=replace(overview_facts, evidence=type_evidence, history_by_step=history, samples={}),
        forecast=forecast_types(evidence).get(name),
        oldest=oldest,
        oldest_unknown=oldest_unknown,
        due=due,
        stalled_for=stalled_types(evidence).get(name),
    )


def _read_steps(
    queue: WatchedQueue, evidence: Evidence, window: Window, name: str
) -> History[datetime] | Missing:
    try:
        return read_history(
            lambda: queue.series.history_by_step(window, (name,)), evidence, allow_incomplete=True
        )
    except TooManyTypesError:
        return TOO_MANY_TYPES


def _find_oldest(
    queue: WatchedQueue, lists: ListResponder, name: str
) -> tuple[JobView | None, str]:
    """The waiting job of the type that was created first, or None; and the reason if unknown."""
    if not can_filter_by(name):
        return None, NO_FILTER
    if not queue.connection.jobs.mapping.has_status:
        return None, NOT_READ
    job_filter = JobFilter(statuses=WAITING_STATUSES, types=(name,))
    page = lists.page(ListQuery(job_filter=job_filter, oldest_first=True, per_page=1))
    return (JobView.from_document(page.jobs[0]) if page.jobs else None), ""


def restrict_stats(stats: QueueStats, name: str, running: RunningJobs) -> QueueStats:
    """The stats of one type; `counts` is None if the jobs of the type are not counted by name."""
    by_type = stats.type_counts()
    by_status: dict[str, int] | None = None
    if by_type is not None:
        by_status = by_type.get(name, None if OTHER in by_type else {})
    counts = None
    if by_status is not None:
        counts = {(status, name): count for status, count in by_status.items()}
    unknown = dict(stats.health.unknown)
    reason, expired = unknown.pop("expired_leases", ""), _count_expired(running, name)
    if expired is not None and not expired.is_exact:
        unknown["expired_leases"] = reason
    health = replace(
        stats.health, expired_leases=None if expired is None else expired.value, unknown=unknown
    )
    total = sum((by_status or {}).values())
    return replace(stats, counts=counts, total=total, health=health)


def _count_expired(running: RunningJobs, name: str) -> CappedCount | None:
    """The number of running jobs of the type whose lease has expired; None if unknown."""
    now, jobs = running.as_of, running.jobs
    # Jobs are read in the order in which their leases end; those without a known end come first.
    last_end = jobs[-1].expires_at if jobs else None
    are_all_read = running.is_complete or (last_end is not None and last_end > now)
    if running.reason or not are_all_read or name == OTHER:
        return None
    of_type = [job for job in jobs if job.type == name]
    expired = sum(job.is_expired(now) for job in of_type)
    is_exact = all(job.expires_at is not None for job in of_type)
    return CappedCount(expired, is_exact) if expired or is_exact else None


def make_type_tiles(type_facts: TypeFacts) -> list[Tile]:
    """The tiles of the overview for one type; their links lead only to jobs of the type."""
    return [_restrict_tile(tile, type_facts) for tile in make_tiles(type_facts.facts, None)]


def _restrict_tile(tile: Tile, type_facts: TypeFacts) -> Tile:
    match tile.name:
        case "Queued":
            due, forecast = type_facts.due, type_facts.forecast
            note = "" if due is None else f"{grouped(due)} due (incl. retries)"
            if forecast and is_worth_a_note(forecast):
                note = forecast.text
            tile = replace(tile, note=note, scheduled="")
        case "Oldest queued":
            tile = _make_oldest_tile(type_facts)
    is_linked = tile.link and can_filter_by(type_facts.name)
    link = f"{tile.link}&{query(type=type_facts.name).removeprefix('?')}" if is_linked else ""
    return replace(tile, link=link)


def _make_oldest_tile(type_facts: TypeFacts) -> Tile:
    job, since = type_facts.oldest, None
    value, note = "none", "no job waits"
    if type_facts.oldest_unknown:
        value, note = "–", type_facts.oldest_unknown
    elif job is not None:
        since = job.created_at if isinstance(job.created_at, datetime) else None
        value, note = "–", "" if since else "its creation time is unknown"
    link = query(status=(JobStatus.QUEUED.value, JobStatus.FAILED.value), sort="createdAt")
    return Tile(name="Oldest waiting", value=value, note=note, link=link, since=since)
