"""The metrics of queues: catches an unknown value that is shown as 0, a label without a limit, and
a queue that delays another queue."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from pymongo.errors import AutoReconnect

from jobmon.api import queue_metrics
from jobmon.api.queue_metrics import QueueMetrics, Scrape
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.rollup.buckets import QueueSample, Tally
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.histogram import bucket
from jobmon.rollup.notification_health import ReceiverHealth
from jobmon.rollup.reader import Totals
from jobmon.rollup.run_details import RunDetails
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.series import Activity, History
from jobmon.rollup.windows import Window
from jobmon.settings.rules import Rules
from jobmon.store.labels import OTHER
from jobmon.store.mapping import FieldMapping
from jobmon.store.probe import DatabaseHealth
from jobmon.store.stats import QueueHealth, QueueStats

from ..conftest import NOW
from ..support.waiting import PATIENCE_S, eventually

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_samples(text: str) -> Samples:
    """The values of the samples in a scrape, by their name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def find_value(scrape: Samples, name: str, **labels: str) -> float | None:
    """The value of a sample, by default of the queue `default`; None if there is no such sample."""
    if not name.startswith("jobmon_http_"):
        labels.setdefault("queue", "default")
    return scrape.get((name, frozenset(labels.items())))


def find_promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        assert not os.environ.get("CI"), "promtool is missing: apt-get install prometheus"
        pytest.skip("no promtool")
    return path


class Rollup:
    """Replaces all readers of a collector's documents.

    In the last half hour 300 jobs were enqueued, and `completed` attempts succeeded.
    """

    completed = 600
    paused_types: Sequence[str] | None = ()

    def __init__(self, counts: dict[tuple[str, str], int], tallies: dict[str, Tally]) -> None:
        self._stats = QueueStats(
            as_of=datetime.now(UTC) - timedelta(seconds=2),
            source="rollup",
            counts=counts,
            total=sum(counts.values()),
            health=QueueHealth(
                estimated_total=1,
                expired_leases=3,
                due=4,
                scheduled=5,
                oldest_queued=datetime.now(UTC) - timedelta(seconds=62),
                oldest_queued_by_type={},
                overdue_by_type={"mail": datetime.now(UTC) - timedelta(seconds=32)},
            ),
        )
        self._totals = Totals(by_type=tallies, age_s=1.5)

    def stats(self) -> QueueStats:
        return self._stats

    cached_stats = stats

    is_readable = True
    unknown: frozenset[str] = frozenset()

    def totals(self) -> Totals:
        return self._totals

    def history_age_s(self) -> float:
        return 2.5

    def notifications(self) -> list[ReceiverHealth]:
        return [ReceiverHealth(name="slack", sent=3)]

    def estimated_total(self) -> int:
        return 17

    def progress(self) -> bool:
        return True

    def read_groups(self) -> RunHistory:
        seen_at = {"new": NOW - timedelta(minutes=5), "quiet": NOW - timedelta(hours=9)}
        groups = {
            name: ErrorGroup(name, None, "boom", None, None, None, moment, moment, ())
            for name, moment in seen_at.items()
        }
        return RunHistory(as_of=NOW, is_complete=True, details=RunDetails(), groups=groups)

    @property
    def rollup(self) -> Self:
        return self

    def history_by_type(self, _: Window) -> History[str]:
        tally = Tally(enqueued=100)
        tally.outcomes["succeeded"] = self.completed // 3
        return History(NOW, "rollup", {"mail": Activity.from_tallies([tally])})

    def samples(self, window: Window) -> dict[datetime, QueueSample]:
        counts = dict(self._stats.status_counts() or {})
        counts["queued"] = counts.get("queued", 0) + self.completed - 300
        return {window.start: QueueSample(status_counts=counts, oldest_queued_ms=0)}


class HealthyProbe:
    """A probe of a database that responds."""

    def check(self) -> DatabaseHealth:
        return DatabaseHealth(ping_ms=0.4, is_up=True, is_readable=True, is_ready=True)


def scrape_queue(rollup: Rollup, max_types: int = 100) -> Samples:
    """The samples of a scrape of one queue with these documents of a collector."""
    return parse_samples(render_metrics(rollup, max_types))


def render_metrics(rollup: Rollup, max_types: int = 100) -> str:
    """The metrics of a queue with these documents of a collector, as text."""
    return render_queues([make_queue("default", rollup)], QueueMetrics(max_types))


def make_queue(name: str, rollup: Rollup, probe: Any = None) -> Any:
    """A queue on its own MongoDB server, with these documents of a collector."""
    return SimpleNamespace(
        name=name,
        settings=SimpleNamespace(mongo_uri=name, queues=None),
        probe=probe or HealthyProbe(),
        rollup=rollup,
        stats=rollup,
        series=rollup,
        known_fields=rollup,
        runs=rollup,
        pauses=SimpleNamespace(find=lambda: rollup.paused_types),
        connection=SimpleNamespace(
            jobs=SimpleNamespace(mapping=FieldMapping(paths={})),
            settings=SimpleNamespace(rules=Rules()),
        ),
    )


def render_queues(queues: Sequence[Any], reader: QueueMetrics | None = None) -> str:
    """A scrape of these queues as text."""
    reader = reader or QueueMetrics(100)
    encode, _ = choose_encoder("text/plain")
    registry = CollectorRegistry()
    registry.register(Scrape(reader.read(queues)))
    return encode(registry).decode()


TALLY = Tally(enqueued=7, dlq=1)
TALLY.outcomes.update({"succeeded": 4, "failed": 2, "expired": 1})
TALLY.wait.update({bucket(40): 3, bucket(9_000): 1})
TALLY.run.update({bucket(700): 4})


def test_queue_metrics_are_in_base_units() -> None:
    scrape = scrape_queue(Rollup({("queued", "mail"): 2, ("dlq", "mail"): 1}, {"mail": TALLY}))
    assert find_value(scrape, "jobmon_database_up") == 1
    assert find_value(scrape, "jobmon_collector_up") == 1
    assert find_value(scrape, "jobmon_jobs", status="queued", type="mail") == 2
    assert find_value(scrape, "jobmon_jobs", status="failed", type="mail") == 0
    assert find_value(scrape, "jobmon_oldest_queued_job_age_seconds") == pytest.approx(60, abs=0.1)
    assert find_value(scrape, "jobmon_expired_leases") == 3
    assert find_value(scrape, "jobmon_due_jobs") == 4
    due_s = find_value(scrape, "jobmon_oldest_due_job_seconds", type="mail")
    assert due_s == pytest.approx(30, abs=0.1)
    assert find_value(scrape, "jobmon_scheduled_jobs") == 5
    assert find_value(scrape, "jobmon_backlog_grows") == 0
    assert find_value(scrape, "jobmon_backlog_clears_seconds") == pytest.approx(4 / 10 * 60)
    assert 2 <= (find_value(scrape, "jobmon_stats_age_seconds", source="rollup") or 0) < 10
    assert find_value(scrape, "jobmon_counters_age_seconds") == 1.5
    assert find_value(scrape, "jobmon_history_age_seconds") == 2.5
    assert find_value(scrape, "jobmon_jobs_estimated") == 17
    assert find_value(scrape, "jobmon_database_readable") == 1
    assert find_value(scrape, "jobmon_own_database_readable") == 1
    assert find_value(scrape, "jobmon_queue_scraped") == 1
    groups = [find_value(scrape, "jobmon_error_groups", status=name) for name in GroupStatus]
    assert groups == [1, 0, 1]


@pytest.mark.parametrize(
    ("paused_types", "unknown", "expected"),
    [
        ((), {}, 0),
        (("sms",), {}, 0),
        (("mail", "sms"), {}, 1),
        (("mail", "sms"), {"overdue_by_type": "only the first 50,000 due jobs are read"}, None),
        (None, {}, None),
    ],
    ids=["none", "others", "all", "not all due jobs are read", "paused types are unknown"],
)
def test_jobs_are_all_paused_only_if_each_due_type_is_known_to_be_paused(
    paused_types: Sequence[str] | None, unknown: dict[str, str], expected: float | None
) -> None:
    """Catches an alert about paused types, and a silent alert while other jobs may be due."""
    rollup = Rollup({("queued", "mail"): 1}, {})
    rollup.paused_types = paused_types
    rollup._stats = replace(rollup._stats, health=replace(rollup._stats.health, unknown=unknown))
    assert find_value(scrape_queue(rollup), "jobmon_due_jobs_all_paused") == expected


def test_oldest_due_job_of_a_paused_type_has_no_sample() -> None:
    """Catches an alert about a type that nobody is to run."""
    rollup = Rollup({("queued", "mail"): 1}, {})
    rollup.paused_types = ["mail"]
    assert find_value(scrape_queue(rollup), "jobmon_oldest_due_job_seconds", type="mail") is None


def test_groups_of_errors_have_no_sample_without_a_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rollup, "read_groups", lambda _: None)
    assert "jobmon_error_groups" not in {name for name, _ in scrape_queue(Rollup({}, {}))}


def test_unknown_values_have_no_sample() -> None:
    rollup = Rollup({("queued", "mail"): 1}, {"mail": TALLY})
    fields = dict.fromkeys(("oldest_queued", "due", "scheduled", "expired_leases"))
    health = replace(rollup._stats.health, **fields, unknown=dict.fromkeys(fields, "no dates"))
    rollup._stats = replace(rollup._stats, health=health, counts=None)
    rollup.unknown = frozenset({"createdAt"})
    scrape = {name for name, _ in scrape_queue(rollup)}
    for name in (
        "jobmon_jobs",
        "jobmon_oldest_queued_job_age_seconds",
        "jobmon_expired_leases",
        "jobmon_due_jobs",
        "jobmon_scheduled_jobs",
        "jobmon_jobs_enqueued_total",
    ):
        assert name not in scrape
    assert "jobmon_jobs_dead_lettered_total" in scrape


def test_collector_up_has_no_sample_if_jobmons_own_database_cannot_be_read() -> None:
    rollup = Rollup({}, {})
    rollup.is_readable = False
    scrape = scrape_queue(rollup)
    assert find_value(scrape, "jobmon_own_database_readable") == 0
    assert find_value(scrape, "jobmon_collector_up") is None


def test_a_backlog_that_grows_has_no_time_until_it_clears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rollup, "completed", 30)
    scrape = scrape_queue(Rollup({("queued", "mail"): 2_000}, {}))
    assert find_value(scrape, "jobmon_backlog_grows") == 1
    assert find_value(scrape, "jobmon_backlog_clears_seconds") is None


def test_an_unknown_forecast_has_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rollup, "unknown", frozenset({"createdAt"}))
    scrape = scrape_queue(Rollup({("queued", "mail"): 2_000}, {}))
    assert find_value(scrape, "jobmon_backlog_grows") is None
    assert find_value(scrape, "jobmon_backlog_clears_seconds") is None


def test_a_forecast_is_cached_between_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches scrapes that read half an hour of history again every 15 seconds."""
    gather = Mock(side_effect=queue_metrics.gather_forecast_evidence)
    monkeypatch.setattr(queue_metrics, "gather_forecast_evidence", gather)
    reader, queue = QueueMetrics(100), make_queue("default", Rollup({("queued", "mail"): 9}, {}))
    for _ in range(3):
        scrape = parse_samples(render_queues([queue], reader))
        assert find_value(scrape, "jobmon_backlog_grows") == 0
    assert gather.call_count == 1


def test_due_jobs_beyond_the_count_limit_have_the_limit_as_their_sample() -> None:
    rollup = Rollup({("queued", "mail"): 2_000_000}, {})
    health = replace(rollup._stats.health, due=None, scheduled=None, too_many_due=True)
    rollup._stats = replace(rollup._stats, health=health)
    scrape = scrape_queue(rollup)
    assert find_value(scrape, "jobmon_due_jobs") == 500_000
    assert find_value(scrape, "jobmon_scheduled_jobs") is None


def test_activity_has_counters_and_durations_have_cumulative_buckets() -> None:
    scrape = scrape_queue(Rollup({}, {"mail": TALLY, "quiet": Tally()}))
    metric = "jobmon_attempts_finished_total"
    attempts = {
        name: find_value(scrape, metric, outcome=name, type="mail") for name in TALLY.outcomes
    }
    assert attempts == {"succeeded": 4, "failed": 2, "expired": 1}
    assert find_value(scrape, metric, outcome="failed", type="quiet") == 0
    assert find_value(scrape, "jobmon_jobs_enqueued_total", type="mail") == 7
    assert find_value(scrape, "jobmon_jobs_dead_lettered_total", type="mail") == 1
    wait_buckets = {
        edge: find_value(scrape, "jobmon_attempt_wait_seconds_bucket", le=edge, type="mail")
        for edge in ("0.05", "5.0", "10.0", "+Inf")
    }
    assert wait_buckets == {"0.05": 3, "5.0": 3, "10.0": 4, "+Inf": 4}
    wait_s = find_value(scrape, "jobmon_attempt_wait_seconds_sum", type="mail")
    assert wait_s == pytest.approx(9.12, rel=0.04)
    assert find_value(scrape, "jobmon_attempt_run_seconds_count", type="mail") == 4


def test_types_and_statuses_beyond_the_limit_share_a_label() -> None:
    counts = {("queued", f"type-{index}"): index for index in range(1, 6)}
    counts |= {(f"odd-{index}", "type-5"): 1 for index in range(15)}
    counts[("queued", OTHER)] = 50
    tallies = {f"type-{index}": TALLY for index in range(1, 6)}
    scrape = scrape_queue(Rollup(counts, tallies), max_types=2)
    queued_by_type = {
        dict(labels)["type"]: count
        for (name, labels), count in scrape.items()
        if name == "jobmon_jobs" and ("status", "queued") in labels
    }
    assert queued_by_type == {"type-5": 5, "type-4": 4, "(other)": 56}
    assert find_value(scrape, "jobmon_jobs", status="(other)", type="type-5") == 5
    # Counters name the types that came first, not the largest types: a counter must not fall.
    enqueued_by_type = {
        dict(labels)["type"]: count
        for (name, labels), count in scrape.items()
        if name == "jobmon_jobs_enqueued_total"
    }
    assert enqueued_by_type == {"type-1": 7, "type-2": 7, "(other)": 21}


def test_promtool_accepts_the_metrics_of_several_queues() -> None:
    """Catches a metric that is described twice, and a queue whose samples are lost."""
    promtool = find_promtool()
    queues = [
        make_queue("mails", Rollup({("queued", 'ma"il\n'): 2}, {"mail": TALLY})),
        make_queue("payouts", Rollup({("dlq", "pay"): 3}, {"pay": TALLY})),
    ]
    reader = QueueMetrics(100)
    for _ in range(2):  # the second scrape must not repeat samples of the first
        text = render_queues(queues, reader)
    result = subprocess.run(
        [promtool, "check", "metrics"], check=False, input=text, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    described_names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(described_names) == len(set(described_names))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len({line.rpartition(" ")[0] for line in lines})
    scrape = parse_samples(text)
    assert find_value(scrape, "jobmon_jobs", queue="mails", status="queued", type='ma"il\n') == 2
    assert find_value(scrape, "jobmon_jobs", queue="payouts", status="dlq", type="pay") == 3
    for queue in queues:
        names = {name for name, labels in scrape if ("queue", queue.name) in labels}
        assert names == {name for name, _ in scrape}


class BlockedQueue(HealthyProbe, Rollup):
    """A probe and a collector's documents; neither can be read until `released` is set."""

    def __init__(self) -> None:
        Rollup.__init__(self, {}, {})
        self.released = Event()

    def check(self) -> DatabaseHealth:
        self.released.wait(PATIENCE_S)
        return super().check()

    def stats(self) -> QueueStats:
        self.released.wait(PATIENCE_S)
        return super().stats()


@pytest.fixture
def blocked_queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockedQueue]:
    """A probe and a collector's documents that cannot be read within the time limits of scrapes."""
    monkeypatch.setattr(queue_metrics, "CHECK_WITHIN_S", 1)
    monkeypatch.setattr(queue_metrics, "SCRAPE_WITHIN_S", 2)
    queue = BlockedQueue()
    yield queue
    queue.released.set()


def test_a_queue_whose_database_is_slow_is_unknown_and_other_queues_are_shown(
    blocked_queue: BlockedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches "the database is unreachable" for a database that is only slow."""
    rollup, reader = Rollup({("queued", "mail"): 2}, {}), QueueMetrics(100)
    queues = [make_queue("slow", rollup, blocked_queue), make_queue("healthy", rollup)]
    for _ in range(2):
        scrape = parse_samples(render_queues(queues, reader))
        slow_samples = {
            name: count for (name, labels), count in scrape.items() if ("queue", "slow") in labels
        }
        assert slow_samples == {"jobmon_queue_scraped": 0}
        assert find_value(scrape, "jobmon_queue_scraped", queue="healthy") == 1
        assert find_value(scrape, "jobmon_database_up", queue="healthy") == 1
        assert find_value(scrape, "jobmon_jobs", queue="healthy", status="queued", type="mail") == 2
    blocked_queue.released.set()
    eventually(
        lambda: find_value(
            parse_samples(render_queues(queues, reader)), "jobmon_queue_scraped", queue="slow"
        )
    )
    assert [record.getMessage() for record in caplog.records] == [
        "metrics are missing for 1 more queue(s): slow: not read within 5 s, or reading failed: "
        "see the log",
        "the metrics are complete again: slow",
    ]


def test_slow_documents_of_the_collector_do_not_hide_the_database(
    blocked_queue: BlockedQueue,
) -> None:
    scrape = parse_samples(render_queues([make_queue("slow", blocked_queue)]))
    assert find_value(scrape, "jobmon_database_up", queue="slow") == 1
    assert find_value(scrape, "jobmon_queue_scraped", queue="slow") == 0
    assert find_value(scrape, "jobmon_collector_up", queue="slow") is None


def test_a_part_that_cannot_be_read_completely_has_no_samples(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Catches "the history was never counted" for a history that could not be read."""
    rollup = Rollup({}, {})
    rollup.history_age_s = Mock(side_effect=AutoReconnect("127.0.0.1:1: closed"))  # type: ignore[method-assign]
    scrape = scrape_queue(rollup)
    assert find_value(scrape, "jobmon_collector_up") is None
    assert find_value(scrape, "jobmon_queue_scraped") == 0
    assert find_value(scrape, "jobmon_jobs_estimated") == 17
    assert "AutoReconnect: 127.0.0.1:1: closed" in caplog.text
