"""The metrics of queues, for `GET /metrics`."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar, cast

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.diagnosis.error_groups import count_statuses
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.diagnosis.evidence_reader import find_pauses, gather_forecast_evidence
from jobmon.diagnosis.forecast import Forecast, Outlook, forecast_queue
from jobmon.diagnosis.pauses import are_all_due_paused, find_overdue
from jobmon.domain import FINAL_ATTEMPT_STATUSES, JobStatus
from jobmon.rollup.buckets import Tally
from jobmon.rollup.histogram import Histogram, rounded_ms
from jobmon.rollup.reader import Totals
from jobmon.single_flight import SingleFlightCache
from jobmon.store.failures import Failure, classify_failure, describe_error
from jobmon.store.labels import OTHER
from jobmon.store.live_stats import MAX_COUNTED
from jobmon.store.probe import CACHE_TTL_MS, DatabaseHealth
from jobmon.store.stats import QueueStats
from jobmon.web.queues import ParallelReader, WatchedQueue

log = logging.getLogger(__name__)
F = TypeVar("F", GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily)

SCRAPE_WITHIN_S = 5.0  # Prometheus waits ten seconds
CHECK_WITHIN_S = 3.0  # longer than the default of JOBMON_SERVER_SELECTION_TIMEOUT_MS
MAX_UNKNOWN_STATUSES = 10  # statuses that jobmon does not know, with labels of their own
MAX_QUEUES = 1_000  # queues with cached values
MAX_CACHED_AGE_S = 60.0  # of forecasts, and of counts of error groups
MAX_REASONS = 5  # reasons in one line of the log
# Upper bounds in seconds: jobs take from milliseconds to hours.
JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600)
_NOT_READ = "not read within 5 s, or reading failed: see the log"


class Families:
    """The metric families of one queue; each sample has the label `queue`."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._families: dict[str, Metric] = {}

    def gauge(self, name: str, help_text: str, value: float, **labels: str) -> None:
        """Add a sample of a gauge."""
        family = self._find(GaugeMetricFamily, name, help_text, labels)
        family.add_metric([self._queue, *labels.values()], float(value))

    def counter(self, name: str, help_text: str, value: float, **labels: str) -> None:
        """Add a sample of a counter."""
        family = self._find(CounterMetricFamily, name, help_text, labels)
        family.add_metric([self._queue, *labels.values()], value)

    def histogram(self, name: str, help_text: str, durations: Histogram, **labels: str) -> None:
        """Add a sample of a histogram: the buckets of durations."""
        family = self._find(HistogramMetricFamily, name, help_text, labels)
        family.add_metric([self._queue, *labels.values()], *_accumulate(durations))

    def all(self) -> Iterable[Metric]:
        """The families, each of which has a sample."""
        return self._families.values()

    def _find(
        self, family_type: type[F], name: str, help_text: str, labels: Mapping[str, str]
    ) -> F:
        if name not in self._families:
            self._families[name] = family_type(name, help_text, labels=["queue", *labels])
        return cast(F, self._families[name])


class Scrape(Collector):
    """The metrics of several queues, merged into one answer."""

    def __init__(self, parts: Iterable[Families]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Each metric once, with the samples of all queues."""
        by_name: dict[str, list[Metric]] = {}
        for families in self._parts:
            for family in families.all():
                by_name.setdefault(family.name, []).append(family)
        for name, metrics in by_name.items():
            # A new object, because another scrape may use the same families at the same time.
            merged = Metric(name, metrics[0].documentation, metrics[0].type)
            merged.samples = [sample for metric in metrics for sample in metric.samples]
            yield merged


@dataclass(frozen=True)
class _Details:
    """The metrics read from a queue; `reason`: why a part is missing, None if all were read."""

    parts: Sequence[Families]
    reason: str | None


class QueueMetrics:
    """Reads the metrics of queues: the collector's documents and metadata. It counts no jobs.

    An unknown value has no sample: a 0 would look healthy. At most `max_types` types have labels of
    their own. In gauges these are the types with the most jobs, or with the jobs that have been due
    longest. In counters they are the types that were seen first, because a count must not move
    between its type and `(other)`.
    """

    def __init__(self, max_types: int) -> None:
        self._max_types = max_types
        self._estimates = SingleFlightCache[int](MAX_QUEUES)
        self._forecasts = SingleFlightCache[Forecast](MAX_QUEUES)
        self._groups = SingleFlightCache[dict[GroupStatus, int]](MAX_QUEUES)
        self._checks = ParallelReader[DatabaseHealth](lambda queue: queue.probe.check())
        self._details = ParallelReader[_Details](self._read_details)
        self._reported = frozenset[str]()  # the queues whose missing metrics were logged

    def read(self, queues: Sequence[WatchedQueue]) -> list[Families]:
        """The metrics of each queue, as far as they can be read within `SCRAPE_WITHIN_S`.

        Watched databases are checked first, so jobmon's own slow database delays no check.
        """
        deadline = time.monotonic() + SCRAPE_WITHIN_S
        checked = self._checks.read(queues, CHECK_WITHIN_S)
        unreachable = {name for name, database in checked.items() if not database.is_up}
        reachable = [queue for queue in queues if queue.name in checked.keys() - unreachable]
        details = self._details.read(reachable, deadline - time.monotonic())
        parts: list[Families] = []
        reasons: dict[str, str | None] = {}
        for name in (queue.name for queue in queues):
            queue_details = details.get(name) or _Details((), _NOT_READ)
            if name not in unreachable:  # the probe reports unreachable databases
                reasons[name] = queue_details.reason
            is_complete = name not in unreachable and queue_details.reason is None
            health = _describe_reading(name, checked.get(name), is_complete=is_complete)
            parts += [health, *queue_details.parts]
        self._report(reasons)
        return parts

    def _report(self, reasons: Mapping[str, str | None]) -> None:
        """Log the queues whose metrics have become incomplete, or are complete again.

        `reasons`: by queue, why metrics are missing; None if they are complete.
        """
        newly_missing = {
            name: reason
            for name, reason in reasons.items()
            if reason and name not in self._reported
        }
        complete = {name for name in self._reported if reasons.get(name, "unreachable") is None}
        self._reported = self._reported - complete | newly_missing.keys()
        if newly_missing:
            shown = islice(newly_missing.items(), MAX_REASONS)
            text = "; ".join(f"{name}: {reason}" for name, reason in shown)
            log.error("metrics are missing for %d more queue(s): %s", len(newly_missing), text)
        if complete:
            log.warning("the metrics are complete again: %s", ", ".join(sorted(complete)))

    def _read_details(self, queue: WatchedQueue) -> _Details:
        parts, reason = [], None
        for add in (
            self._add_estimate,
            self._add_rollup,
            self._add_forecast,
            self._add_errors,
            _add_notifications,
        ):
            part = Families(queue.name)
            try:
                add(queue, part)
            except PyMongoError as error:
                reason = describe_error(error)
            else:
                parts.append(part)  # only a complete part: a missing sample means unknown
        return _Details(parts, reason)

    def _add_estimate(self, queue: WatchedQueue, families: Families) -> None:
        help_text = "Number of jobs according to the collection's metadata."
        try:
            estimated = self._estimates.get(
                queue.name, queue.stats.estimated_total, CACHE_TTL_MS / 1_000
            )
        except OperationFailure as error:
            if classify_failure(error) is not Failure.REFUSED:
                raise
            return  # jobmon_database_readable shows it
        families.gauge("jobmon_jobs_estimated", help_text, estimated)

    def _add_rollup(self, queue: WatchedQueue, families: Families) -> None:
        rollup = queue.rollup
        has_fresh_stats = rollup.stats() is not None
        readable = rollup.is_readable
        help_text = "Whether jobmon's user may read jobmon's own database."
        families.gauge("jobmon_own_database_readable", help_text, readable)
        if readable:
            help_text = "Whether a collector keeps the queue statistics fresh."
            families.gauge("jobmon_collector_up", help_text, has_fresh_stats)
        # Without a collector: only what another request counted a moment ago.
        if (stats := queue.stats.cached_stats()) is not None:
            pauses = find_pauses(queue)
            self._add_stats(stats, pauses or (), families)
            if (all_paused := are_all_due_paused(stats, pauses)) is not None:
                help_text = "1 if jobs are due, all of paused types; absent if unknown."
                families.gauge("jobmon_due_jobs_all_paused", help_text, all_paused)
        if (age_s := rollup.history_age_s()) is not None:
            help_text = "Time since the collector counted the newest minutes of the history."
            families.gauge("jobmon_history_age_seconds", help_text, age_s)
        if (totals := rollup.totals()) is not None:
            has_creation_time = "createdAt" not in queue.known_fields.unknown
            self._add_totals(totals, families, has_creation_time=has_creation_time)

    def _add_forecast(self, queue: WatchedQueue, families: Families) -> None:
        """Add the forecast of the backlog; nothing if it is unknown."""
        if (stats := queue.stats.cached_stats()) is None:
            return

        def make_forecast() -> Forecast:
            return forecast_queue(gather_forecast_evidence(queue, stats, datetime.now(UTC)))

        # A forecast is based on whole minutes, and reading them is half of the cost of a scrape.
        forecast = self._forecasts.get(queue.name, make_forecast, MAX_CACHED_AGE_S)
        if forecast.outlook is Outlook.UNKNOWN:
            return
        help_text = "1 if the backlog grows at the present rates, 0 if it does not."
        families.gauge("jobmon_backlog_grows", help_text, forecast.outlook is Outlook.GROWS)
        if forecast.outlook is Outlook.EMPTY or forecast.clears_in is not None:
            clears_in = forecast.clears_in or timedelta(0)
            help_text = (
                "Time until no job is due at the present rates; absent if unknown, or if the "
                "backlog does not clear within a day."
            )
            families.gauge("jobmon_backlog_clears_seconds", help_text, clears_in.total_seconds())

    def _add_errors(self, queue: WatchedQueue, families: Families) -> None:
        """Add how many groups of errors are new, ongoing or quiet; nothing if unknown."""

        def count() -> dict[GroupStatus, int]:
            history = queue.runs.read_groups()
            return {} if history is None else count_statuses(history)

        help_text = "Groups of errors, by whether they are new, ongoing or quiet."
        groups = self._groups.get(queue.name, count, MAX_CACHED_AGE_S)
        for status, group_count in groups.items():
            families.gauge("jobmon_error_groups", help_text, group_count, status=status.value)

    def _add_stats(self, stats: QueueStats, pauses: Iterable[str], families: Families) -> None:
        help_text = "Age of the queue statistics, by source."
        age_s = max(0.0, (datetime.now(UTC) - stats.as_of).total_seconds())
        families.gauge("jobmon_stats_age_seconds", help_text, age_s, source=stats.source)
        if stats.counts is not None:
            self._add_jobs(stats.counts, families)
        health = stats.health
        if (oldest_ms := stats.oldest_queued_age_ms()) is not None:
            help_text = "Age of the oldest queued job; 0 if none is queued."
            families.gauge("jobmon_oldest_queued_job_age_seconds", help_text, oldest_ms / 1_000)
        self._add_oldest_due(stats, find_overdue(stats, pauses), families)
        if health.expired_leases is not None:
            help_text = "Leased jobs whose lease has expired, counted up to 500,000."
            families.gauge("jobmon_expired_leases", help_text, health.expired_leases)
        # With too many due jobs a lower bound is shown, so that alerts still fire.
        due = MAX_COUNTED if health.too_many_due else health.due
        if due is not None:
            help_text = (
                "Waiting jobs that are due; 500,000 is a lower bound if jobmon_scheduled_jobs is "
                "absent."
            )
            families.gauge("jobmon_due_jobs", help_text, due)
        if health.scheduled is not None:
            help_text = "Waiting jobs whose nextRunAt is in the future."
            families.gauge("jobmon_scheduled_jobs", help_text, health.scheduled)

    def _add_oldest_due(
        self, stats: QueueStats, due_since: Mapping[str, datetime], families: Families
    ) -> None:
        oldest_first = sorted(due_since, key=lambda job_type: due_since[job_type])
        label = _fold_labels(oldest_first, self._max_types)
        earliest: dict[str, datetime] = {}
        for job_type, due_at in due_since.items():
            name = label(job_type)
            earliest[name] = min(due_at, earliest.get(name, due_at))
        help_text = (
            "Time since the oldest due job of each type became due; absent if the type is known to "
            "be paused, or if none is among the 50,000 jobs that have been due longest."
        )
        for name, due_at in sorted(earliest.items()):
            age_s = stats.age_ms(due_at) / 1_000
            families.gauge("jobmon_oldest_due_job_seconds", help_text, age_s, type=name)

    def _add_jobs(self, counts: Mapping[tuple[str, str], int], families: Families) -> None:
        by_status: Counter[str] = Counter({status.value: 0 for status in JobStatus})
        by_type: Counter[str] = Counter()
        for (status, job_type), count in counts.items():
            by_status[status] += count
            by_type[job_type] += count
        known = {status.value for status in JobStatus}
        unknown = (status for status, _ in by_status.most_common() if status not in {*known, OTHER})
        status_label = _fold_labels([*known, *unknown], len(known) + MAX_UNKNOWN_STATUSES)
        ranked = (job_type for job_type, _ in by_type.most_common() if job_type != OTHER)
        type_label = _fold_labels(ranked, self._max_types)
        folded: Counter[tuple[str, str]] = Counter()
        for (status, job_type), count in counts.items():
            folded[status_label(status), type_label(job_type)] += count
        # Zeros for the known statuses: it is hard to alert on a series that comes and goes.
        for job_type in {type_label(job_type) for job_type in by_type}:
            for status in known:
                folded[status, job_type] += 0
        help_text = "Jobs by status and type."
        for (status, job_type), count in sorted(folded.items()):
            families.gauge("jobmon_jobs", help_text, count, status=status, type=job_type)

    def _add_totals(self, totals: Totals, families: Families, *, has_creation_time: bool) -> None:
        label = _fold_labels(totals.by_type, self._max_types)
        folded: dict[str, Tally] = {}
        for job_type, tally in totals.by_type.items():
            folded.setdefault(label(job_type), Tally()).add(tally)
        help_text = "Time since the collector last updated the counters."
        families.gauge("jobmon_counters_age_seconds", help_text, totals.age_s)
        for job_type, tally in folded.items():
            # Zeros, too: Prometheus counts no increase from a missing sample.
            help_text = "Attempts finished, by outcome and type of job."
            for outcome in FINAL_ATTEMPT_STATUSES:
                finished = tally.outcomes[outcome]
                families.counter(
                    "jobmon_attempts_finished_total",
                    help_text,
                    finished,
                    outcome=outcome,
                    type=job_type,
                )
            if has_creation_time:
                help_text = "Jobs enqueued, by type."
                families.counter(
                    "jobmon_jobs_enqueued_total", help_text, tally.enqueued, type=job_type
                )
            help_text = "Jobs dead-lettered, by type."
            families.counter("jobmon_jobs_dead_lettered_total", help_text, tally.dlq, type=job_type)
            help_text = "Time from when an attempt was due to its start (±4%), by type."
            families.histogram("jobmon_attempt_wait_seconds", help_text, tally.wait, type=job_type)
            help_text = "Time from an attempt's start to its end (±4%), by type."
            families.histogram("jobmon_attempt_run_seconds", help_text, tally.run, type=job_type)


def _add_notifications(queue: WatchedQueue, families: Families) -> None:
    """Add the deliveries to each receiver; nothing if the collector sends no notifications."""
    for receiver in queue.rollup.notifications():
        name = receiver.name
        help_text = "Messages that were delivered, by receiver of notifications."
        families.counter("jobmon_notifications_sent_total", help_text, receiver.sent, receiver=name)
        help_text = "Failed attempts to send a message, by receiver of notifications."
        failures = receiver.failures
        families.counter("jobmon_notification_failures_total", help_text, failures, receiver=name)
        help_text = "1 if messages cannot be delivered to the receiver now, 0 if they can."
        is_failing = receiver.failing_since is not None
        families.gauge("jobmon_notifications_failing", help_text, is_failing, receiver=name)


def _describe_reading(name: str, database: DatabaseHealth | None, *, is_complete: bool) -> Families:
    """The metrics about reading a queue: whether its database responds, whether all was read."""
    families = Families(name)
    if database is not None:
        help_text = "Whether the database responds."
        families.gauge("jobmon_database_up", help_text, database.is_up)
        if database.is_readable is not None:
            help_text = "Whether jobmon's user may read the watched collections."
            families.gauge("jobmon_database_readable", help_text, database.is_readable)
    help_text = "Whether all metrics of the queue could be read in time."
    families.gauge("jobmon_queue_scraped", help_text, is_complete)
    return families


def _fold_labels(ranked: Iterable[str], limit: int) -> Callable[[str], str]:
    """A function that returns the first `limit` values unchanged, and `(other)` for all others."""
    named_values = set(islice(ranked, limit))
    return lambda value: value if value in named_values else OTHER


def _accumulate(durations: Histogram) -> tuple[list[tuple[str, float]], float]:
    """The number of durations up to each of `JOB_BUCKETS` and in total; their sum in seconds."""
    values_s = [(rounded_ms(index) / 1_000, count) for index, count in durations.items()]
    buckets = [
        (str(float(edge)), float(sum(count for value, count in values_s if value <= edge)))
        for edge in JOB_BUCKETS
    ]
    total = sum(count for _, count in values_s)
    return [*buckets, ("+Inf", float(total))], sum(value * count for value, count in values_s)
