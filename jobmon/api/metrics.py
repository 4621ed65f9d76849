"""`GET /metrics`: metrics of the queues and of the service's own requests, for Prometheus.

Import this module only after gunicorn's hooks (`jobmon.serving`) have run: on import,
prometheus_client decides whether the workers share their counts in files (multiprocess mode).
"""

import os
import time
from functools import partial

from flask import Blueprint, Flask, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from jobmon.api.queue_metrics import QueueMetrics, Scrape
from jobmon.settings import Settings
from jobmon.web import auth
from jobmon.web.context import current_request, request_values
from jobmon.web.queues import (
    WatchedQueue,
    all_queues,
    current_queue,
    named_queue,
)

OTHER_METHOD = "other"
UNMATCHED = "unmatched"  # the route of a request for an unknown path
HTTP_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # in seconds
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

disable_created_metrics()  # type: ignore[no-untyped-call] # they would add a series to each counter


class RequestMetrics:
    """Counts the requests of one app.

    In multiprocess mode prometheus_client keeps one count for each metric of a process. Then a
    process must have only one app, as gunicorn's workers do.
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
        self._by_labels: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, response: Response) -> Response:
        """Count the request of a response; returns the response.

        The number of labels is bounded: a rule of a route, a known method, a status.
        """
        request = current_request()
        route = UNMATCHED if (rule := request.url_rule) is None else rule.rule
        method = request.method if request.method in _METHODS else OTHER_METHOD
        key = route, method, response.status_code
        if (metrics := self._by_labels.get(key)) is None:
            requests = self._requests.labels(route, method, str(response.status_code))
            metrics = self._by_labels[key] = requests, self._seconds.labels(route, method)
        requests, seconds = metrics
        requests.inc()
        seconds.observe(time.perf_counter() - request_values().jobmon_began)
        return response

    def register(self, registry: CollectorRegistry) -> None:
        """Add these metrics to the registry of a scrape; in multiprocess mode, of all workers."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._requests)
            registry.register(self._seconds)


def register(app: Flask, settings: Settings) -> None:
    """Count the app's requests and serve `/metrics`, unless `settings.metrics` is off."""
    if settings.metrics == "off":
        return
    requests = RequestMetrics()
    app.after_request(requests.observe)
    reader = QueueMetrics(settings.metrics_max_types)
    routes = Blueprint("metrics", __name__)
    if settings.metrics == "token":
        # A scrape must be answered even if the database is unreachable: the scrape reports it.
        routes.before_request(partial(auth.require_any_permission, require_revocation_check=False))

    @routes.get("/metrics")
    def metrics() -> Response:
        """All metrics, in the format that the scraper prefers.

        Below the path of a queue they are about this queue; otherwise about all queues that the
        token may see, or about all queues if no token is needed.
        """
        registry = CollectorRegistry()  # per scrape: multiprocess mode requires it
        registry.register(Scrape(reader.read(_list_scraped_queues(settings))))
        requests.register(registry)
        encode, content_type = choose_encoder(current_request().headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    app.register_blueprint(routes)


def _list_scraped_queues(settings: Settings) -> list[WatchedQueue]:
    if named_queue() is not None:
        return [current_queue()]
    return all_queues().open_all(None if settings.metrics == "open" else auth.may_see)
