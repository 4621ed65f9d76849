"""`GET /metrics`: the queue and the service's own requests, for Prometheus.

gunicorn's hooks (`jobmon.serving`) must run before this module is imported: on import,
prometheus_client decides whether the workers add up their counts in files (multiprocess mode).
"""

import logging
import os
import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from pymongo.errors import PyMongoError

from jobmon.domain import FINAL_ATTEMPT_STATUSES, JobStatus
from jobmon.rollup.buckets import Tally
from jobmon.rollup.histogram import Histogram as Durations
from jobmon.rollup.histogram import rounded_ms
from jobmon.rollup.reader import RollupReader, Totals
from jobmon.rollup.stats import StatsReader
from jobmon.settings import Settings
from jobmon.single_flight import SingleFlight
from jobmon.store.failures import describe_error
from jobmon.store.known_fields import KnownFields
from jobmon.store.labels import OTHER
from jobmon.store.live_stats import MAX_COUNTED
from jobmon.store.probe import KEEP_MS, DatabaseHealth, DatabaseProbe
from jobmon.store.stats import QueueStats
from jobmon.web import auth

log = logging.getLogger(__name__)

OTHER_METHOD = "other"
UNMATCHED = "unmatched"
MAX_UNKNOWN_STATUSES = 10
# In seconds: jobs take from milliseconds to hours.
JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600)
HTTP_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter


class RequestMetrics:
    """Counts the requests of one app.

    In multiprocess mode prometheus_client keeps one count per process and metric: there a process
    must have one app only, as gunicorn's workers do.
    """

    def __init__(self) -> None:
        self._requests = Counter(
            "jobmon_http_requests_total",
            "Requests answered by jobmon, by route, method and status.",
            ["route", "method", "status"],
            registry=None,
        )
        self._seconds = Histogram(
            "jobmon_http_request_duration_seconds",
            "Time until jobmon began to respond, by route and method.",
            ["route", "method"],
            buckets=HTTP_BUCKETS,
            registry=None,
        )

    def observe(self, response: Response) -> Response:
        """Count a request. Labels are bounded: the route's rule, a known method, a status."""
        route = request.url_rule.rule if request.url_rule is not None else UNMATCHED
        method = request.method if request.method in _METHODS else OTHER_METHOD
        self._requests.labels(route, method, str(response.status_code)).inc()
        self._seconds.labels(route, method).observe(time.perf_counter() - g.jobmon_began)
        return response

    def register(self, registry: CollectorRegistry) -> None:
        """Add these metrics to a scrape; in multiprocess mode those of all workers."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._requests)
            registry.register(self._seconds)


def register(app: Flask, settings: Settings, queue: "QueueMetrics") -> None:
    """Count the app's requests and serve `/metrics`, unless `settings.metrics` is off."""
    if settings.metrics == "off":
        return
    requests = RequestMetrics()
    app.after_request(requests.observe)
    routes = Blueprint("metrics", __name__)
    if settings.metrics == "token":
        # A scrape must be able to report that the database is away.
        routes.before_request(partial(auth.require_admin, require_revocation_check=False))

    @routes.get("/metrics")
    def metrics() -> Response:
        """All metrics, in the format that the scraper prefers."""
        registry = CollectorRegistry()  # per scrape: multiprocess mode requires it
        registry.register(queue)
        requests.register(registry)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    app.register_blueprint(routes)


class QueueMetrics(Collector):
    """The queue's metrics. A scrape reads four small documents of the collector, and no job.

    An unknown value has no sample: a 0 would look healthy. The `max_types` types with most jobs
    have gauges of their own. Counters are for the types that were seen first instead, since a
    counter must not move between its type and `(other)`.
    """

    def __init__(
        self,
        probe: DatabaseProbe,
        stats: StatsReader,
        rollup: RollupReader,
        known_fields: KnownFields,
        max_types: int,
    ) -> None:
        self._probe = probe
        self._stats = stats
        self._known_fields = known_fields
        self._rollup = rollup
        self._max_types = max_types
        self._estimated = SingleFlight(stats.estimated_total, KEEP_MS)

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        database = self._probe.check()
        yield _make_gauge("jobmon_database_up", "Whether the database responds.", database.answers)
        if database.readable is not None:
            about = "Whether jobmon's user may read the watched collections."
            yield _make_gauge("jobmon_database_readable", about, database.readable)
        if not database.answers:
            return
        for families in (self._collect_estimate, self._collect_rollup):
            try:
                yield from list(families(database))
            except PyMongoError as error:
                log.error("metrics of the queue are missing: %s", describe_error(error))

    def _collect_estimate(self, database: DatabaseHealth) -> Iterator[Metric]:
        if database.readable:
            about = "Number of jobs according to the collection's metadata."
            yield _make_gauge("jobmon_jobs_estimated", about, self._estimated.get())

    def _collect_rollup(self, _: DatabaseHealth) -> Iterator[Metric]:
        has_fresh_stats = self._rollup.stats() is not None
        readable = self._rollup.is_readable
        yield _make_gauge(
            "jobmon_own_database_readable",
            "Whether jobmon's user may read jobmon's own database.",
            readable,
        )
        if readable:
            about = "Whether a collector keeps the queue statistics fresh."
            yield _make_gauge("jobmon_collector_up", about, has_fresh_stats)
        # Without a collector, statistics that another request had counted, if they are still good.
        if (stats := self._stats.cached_stats()) is not None:
            yield from self._collect_stats(stats)
        if (age_s := self._rollup.history_age_s()) is not None:
            about = "Time since the collector counted the newest minutes of the history."
            yield _make_gauge("jobmon_history_age_seconds", about, age_s)
        if (totals := self._rollup.totals()) is not None:
            yield from self._collect_totals(totals)

    def _collect_stats(self, stats: QueueStats) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "jobmon_stats_age_seconds",
            "Age of the queue statistics, by source.",
            labels=["source"],
        )
        age_s = (datetime.now(UTC) - stats.as_of).total_seconds()
        age.add_metric([stats.source], max(0.0, age_s))
        yield age
        if stats.counts is not None:
            yield self._count_jobs(stats.counts)
        health = stats.health
        if (oldest_ms := stats.oldest_queued_age_ms()) is not None:
            yield _make_gauge(
                "jobmon_oldest_queued_job_age_seconds",
                "Age of the oldest queued job; 0 if none is queued.",
                oldest_ms / 1_000,
            )
        if health.expired_leases is not None:
            yield _make_gauge(
                "jobmon_expired_leases",
                "Leased jobs whose lease has expired.",
                health.expired_leases,
            )
        # A lower bound, so that alerts go on firing.
        eligible = MAX_COUNTED if health.too_many_due else health.eligible
        if eligible is not None:
            about = "Waiting jobs that are due; at most 500,000 if as many are scheduled."
            yield _make_gauge("jobmon_eligible_jobs", about, eligible)
        if health.scheduled is not None:
            yield _make_gauge(
                "jobmon_scheduled_jobs",
                "Waiting jobs whose nextRunAt is in the future.",
                health.scheduled,
            )

    def _count_jobs(self, counts: Mapping[tuple[str, str], int]) -> Metric:
        by_status: Count[str] = Count({status.value: 0 for status in JobStatus})
        by_type: Count[str] = Count()
        for (status, job_type), count in counts.items():
            by_status[status] += count
            by_type[job_type] += count
        known = {status.value for status in JobStatus}
        unknown = (status for status, _ in by_status.most_common() if status not in {*known, OTHER})
        status_label = _fold_labels([*known, *unknown], len(known) + MAX_UNKNOWN_STATUSES)
        ranked = (job_type for job_type, _ in by_type.most_common() if job_type != OTHER)
        type_label = _fold_labels(ranked, self._max_types)
        folded: Count[tuple[str, str]] = Count()
        for (status, job_type), count in counts.items():
            folded[status_label(status), type_label(job_type)] += count
        # Zeros for the known statuses: it is hard to alert on a series that comes and goes.
        for job_type in {type_label(job_type) for job_type in by_type}:
            for status in known:
                folded[status, job_type] += 0
        jobs = GaugeMetricFamily(
            "jobmon_jobs", "Jobs by status and type.", labels=["status", "type"]
        )
        for labels, count in sorted(folded.items()):
            jobs.add_metric(labels, count)
        return jobs

    def _collect_totals(self, totals: Totals) -> Iterator[Metric]:
        label = _fold_labels(totals.by_type, self._max_types)
        folded: dict[str, Tally] = {}
        for job_type, tally in totals.by_type.items():
            folded.setdefault(label(job_type), Tally()).add(tally)
        attempts = CounterMetricFamily(
            "jobmon_attempts_finished_total",
            "Attempts finished, by outcome and type of job.",
            labels=["outcome", "type"],
        )
        enqueued = CounterMetricFamily(
            "jobmon_jobs_enqueued_total", "Jobs enqueued, by type.", labels=["type"]
        )
        dead = CounterMetricFamily(
            "jobmon_jobs_dead_lettered_total", "Jobs dead-lettered, by type.", labels=["type"]
        )
        wait = HistogramMetricFamily(
            "jobmon_attempt_wait_seconds",
            "Time from when an attempt was due to its start, within 4 %, by type.",
            labels=["type"],
        )
        run = HistogramMetricFamily(
            "jobmon_attempt_run_seconds",
            "Time from an attempt's start to its end, within 4 %, by type.",
            labels=["type"],
        )
        for job_type, tally in folded.items():
            # Zeros too: Prometheus does not see an increase from no sample.
            for outcome in FINAL_ATTEMPT_STATUSES:
                attempts.add_metric([outcome, job_type], tally.outcomes[outcome])
            enqueued.add_metric([job_type], tally.enqueued)
            dead.add_metric([job_type], tally.dlq)
            wait.add_metric([job_type], *_accumulate(tally.wait))
            run.add_metric([job_type], *_accumulate(tally.run))
        yield _make_gauge(
            "jobmon_counters_age_seconds",
            "Time since the collector updated the counters.",
            totals.age_s,
        )
        yield attempts
        if "createdAt" not in self._known_fields.unknown:
            yield enqueued
        yield from (dead, wait, run)


def _make_gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _fold_labels(ranked: Iterable[str], most: int) -> Callable[[str], str]:
    """A function that keeps the first `most` values and labels the others `(other)`."""
    named = set(islice(ranked, most))
    return lambda value: value if value in named else OTHER


def _accumulate(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    """The cumulative counts of `JOB_BUCKETS` and of infinity, and the sum in seconds."""
    values_s = [(rounded_ms(index) / 1_000, count) for index, count in durations.items()]
    buckets = [
        (str(float(edge)), float(sum(count for value, count in values_s if value <= edge)))
        for edge in JOB_BUCKETS
    ]
    total = sum(count for _, count in values_s)
    return [*buckets, ("+Inf", float(total))], sum(value * count for value, count in values_s)
