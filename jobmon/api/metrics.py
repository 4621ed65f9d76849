"""`GET /metrics`: the queue, what happened in it, and this service, for Prometheus.

Import it only once gunicorn's hooks have run (`jobmon.serving`): prometheus_client decides when it
is imported whether the workers of one service add up their counts in files.
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

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.rollup.histogram import Histogram as Durations
from jobmon.rollup.histogram import rounded_ms
from jobmon.rollup.reader import RollupReader, Totals
from jobmon.rollup.stats import StatsReader
from jobmon.rollup.throughput import Tally
from jobmon.settings import Settings
from jobmon.single_flight import SingleFlight
from jobmon.store.failures import describe_error
from jobmon.store.known_fields import KnownFields
from jobmon.store.labels import OTHER
from jobmon.store.live_stats import MAX_COUNTED, TOO_MANY
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
_OUTCOMES = tuple(status.value for status in AttemptStatus if status is not AttemptStatus.RUNNING)

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter
REQUESTS = Counter(
    "jobmon_http_requests_total",
    "Requests answered by jobmon, by route, method and status.",
    ["route", "method", "status"],
    registry=None,
)
REQUEST_SECONDS = Histogram(
    "jobmon_http_request_duration_seconds",
    "How long jobmon took until it began to answer, by route and method.",
    ["route", "method"],
    buckets=HTTP_BUCKETS,
    registry=None,
)


def register(app: Flask, settings: Settings, queue: "QueueMetrics") -> None:
    """Count the app's requests and serve `/metrics`, as `settings.metrics` says."""
    if settings.metrics == "off":
        return
    app.after_request(_observe)
    routes = Blueprint("metrics", __name__)
    if settings.metrics == "token":
        # That the database is away has to be told, not answered with.
        routes.before_request(partial(auth.require_admin, require_revocation_check=False))

    @routes.get("/metrics")
    def metrics() -> Response:
        """Everything, in the format that the scraper prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(_registry(queue)), content_type=content_type)

    app.register_blueprint(routes)


def _registry(queue: Collector) -> CollectorRegistry:
    """What one scrape tells: made for it, because only so are ours and the workers' together."""
    registry = CollectorRegistry()
    registry.register(queue)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REQUESTS)
        registry.register(REQUEST_SECONDS)
    return registry


def _observe(response: Response) -> Response:
    """Labels are bounded: the url's rule, a known method, a status."""
    route = request.url_rule.rule if request.url_rule is not None else UNMATCHED
    method = request.method if request.method in _METHODS else OTHER_METHOD
    REQUESTS.labels(route, method, str(response.status_code)).inc()
    REQUEST_SECONDS.labels(route, method).observe(time.perf_counter() - g.jobmon_began)
    return response


class QueueMetrics(Collector):
    """The queue as the collector's small documents tell it: four of them are read, no job is.

    What is not known is absent, never 0: with the database away everything but that. The types that
    have most jobs get gauges of their own, the types that were seen first get counters: a counter
    must not move between its own name and `(other)`.
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
        database = self._probe.look()
        yield _gauge("jobmon_database_up", "Whether the database answers.", database.answers)
        if database.readable is not None:
            about = "Whether jobmon's user may read the watched collections."
            yield _gauge("jobmon_database_readable", about, database.readable)
        if not database.answers:
            return
        for families in (self._of_estimate, self._of_rollup):
            try:
                yield from list(families(database))
            except PyMongoError as error:
                log.error("the metrics lack the queue's: %s", describe_error(error))

    def _of_estimate(self, database: DatabaseHealth) -> Iterator[Metric]:
        if database.readable:
            about = "Jobs by the collection's own metadata, to compare the figures with."
            yield _gauge("jobmon_jobs_estimated", about, self._estimated.get())

    def _of_rollup(self, _: DatabaseHealth) -> Iterator[Metric]:
        figures = self._rollup.figures()
        readable = self._rollup.is_readable
        yield _gauge(
            "jobmon_own_database_readable",
            "Whether jobmon's user may read jobmon's own database, where the collector writes.",
            readable,
        )
        if readable:
            about = "Whether a collector keeps the figures of this queue fresh."
            yield _gauge("jobmon_collector_up", about, figures is not None)
        # Without a collector, figures that somebody else had counted, if they are still good.
        if (figures := self._stats.cached_stats()) is not None:
            yield from self._of_figures(figures)
        if (age_s := self._rollup.history_age_s()) is not None:
            about = "How long ago the collector counted the newest minutes of the history."
            yield _gauge("jobmon_history_age_seconds", about, age_s)
        if (totals := self._rollup.totals()) is not None:
            yield from self._of_totals(totals)

    def _of_figures(self, figures: QueueStats) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "jobmon_figures_age_seconds",
            "How old the figures of the queue are, by how they were come by.",
            labels=["source"],
        )
        age_s = (datetime.now(UTC) - figures.as_of).total_seconds()
        age.add_metric([figures.source], max(0.0, age_s))
        yield age
        if figures.counts is not None:
            yield self._jobs(figures.counts)
        health = figures.health
        # What is unknown has no sample: a zero would say that all is well.
        if (oldest_ms := figures.oldest_queued_age_ms()) is not None:
            yield _gauge(
                "jobmon_oldest_queued_job_age_seconds",
                "How long ago the oldest queued job was created; 0 when none is queued.",
                oldest_ms / 1_000,
            )
        if health.expired_leases is not None:
            yield _gauge(
                "jobmon_expired_leases",
                "Leased jobs whose lease is past its expiry.",
                health.expired_leases,
            )
        eligible = health.eligible
        if eligible is None and health.unknown.get("eligible") == TOO_MANY:
            eligible = MAX_COUNTED  # at least: an alert must not fall silent because of too many
        if eligible is not None:
            about = "Jobs that wait and are due; no more than 500,000 where as many are scheduled."
            yield _gauge("jobmon_eligible_jobs", about, eligible)
        if health.scheduled is not None:
            yield _gauge(
                "jobmon_scheduled_jobs",
                "Jobs that wait and are not to be leased yet.",
                health.scheduled,
            )

    def _jobs(self, counts: Mapping[tuple[str, str], int]) -> Metric:
        by_status: Count[str] = Count({status.value: 0 for status in JobStatus})
        by_type: Count[str] = Count()
        for (status, kind), count in counts.items():
            by_status[status] += count
            by_type[kind] += count
        known = {status.value for status in JobStatus}
        unknown = (status for status, _ in by_status.most_common() if status not in {*known, OTHER})
        status_label = _labels([*known, *unknown], len(known) + MAX_UNKNOWN_STATUSES)
        ranked = (kind for kind, _ in by_type.most_common() if kind != OTHER)
        type_label = _labels(ranked, self._max_types)
        folded: Count[tuple[str, str]] = Count()
        for (status, kind), count in counts.items():
            folded[status_label(status), type_label(kind)] += count
        # All known statuses of a type: a series that comes and goes is hard to alert on.
        for kind in {type_label(kind) for kind in by_type}:
            for status in known:
                folded[status, kind] += 0
        jobs = GaugeMetricFamily(
            "jobmon_jobs", "Jobs by status and type.", labels=["status", "type"]
        )
        for labels, count in sorted(folded.items()):
            jobs.add_metric(labels, count)
        return jobs

    def _of_totals(self, totals: Totals) -> Iterator[Metric]:
        label = _labels(totals.by_type, self._max_types)
        folded: dict[str, Tally] = {}
        for kind, tally in totals.by_type.items():
            folded.setdefault(label(kind), Tally()).add(tally)
        attempts = CounterMetricFamily(
            "jobmon_attempts_finished_total",
            "Attempts that finished, by outcome and type of job.",
            labels=["outcome", "type"],
        )
        enqueued = CounterMetricFamily(
            "jobmon_jobs_enqueued_total", "Jobs that were created, by type.", labels=["type"]
        )
        dead = CounterMetricFamily(
            "jobmon_jobs_dead_lettered_total", "Jobs that were given up, by type.", labels=["type"]
        )
        wait = HistogramMetricFamily(
            "jobmon_attempt_wait_seconds",
            "From when an attempt was due to its start, within 4 %, by type of job.",
            labels=["type"],
        )
        run = HistogramMetricFamily(
            "jobmon_attempt_run_seconds",
            "From an attempt's start to its end, within 4 %, by type of job.",
            labels=["type"],
        )
        for kind, tally in folded.items():
            for outcome in _OUTCOMES:  # a zero, too: an increase from nothing is not seen
                attempts.add_metric([outcome, kind], tally.outcomes[outcome])
            enqueued.add_metric([kind], tally.enqueued)
            dead.add_metric([kind], tally.dlq)
            wait.add_metric([kind], *_cumulative(tally.wait))
            run.add_metric([kind], *_cumulative(tally.run))
        yield _gauge(
            "jobmon_counters_age_seconds",
            "How long ago the collector brought the counters up to date.",
            totals.age_s,
        )
        yield attempts
        if "createdAt" not in self._known_fields.unknown:
            yield enqueued
        yield from (dead, wait, run)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _labels(ranked: Iterable[str], most: int) -> Callable[[str], str]:
    """How each value is named: the first `most` by themselves, the rest as `(other)`."""
    named = set(islice(ranked, most))
    return lambda value: value if value in named else OTHER


def _cumulative(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    """Counts up to each of `JOB_BUCKETS` in seconds and up to infinity, and the sum."""
    told_s = [(rounded_ms(index) / 1_000, count) for index, count in durations.items()]
    upto = [
        (str(float(edge)), float(sum(count for value, count in told_s if value <= edge)))
        for edge in JOB_BUCKETS
    ]
    total = sum(count for _, count in told_s)
    return [*upto, ("+Inf", float(total))], sum(value * count for value, count in told_s)
