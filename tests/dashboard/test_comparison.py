"""The comparison with the previous period: catches a change with the wrong sign, or between
periods of different lengths, and an overview that compares nothing without giving the reason."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from jobmon.api.window_queries import WindowQuery
from jobmon.dashboard.charts import make_past_columns
from jobmon.dashboard.facts import Facts, PreviousPeriod, read_previous
from jobmon.dashboard.overview import make_overview
from jobmon.dashboard.page_window import PageWindow
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.evidence import Missing
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.series import History, NoCollectorError
from jobmon.rollup.windows import Window, WindowError

from ..support.commands import database_uri
from ..support.pages import Viewer
from ..support.queue_service import QueueService, init, temporary_database
from ..support.waiting import eventually
from .conftest import MakeApi, signed_in
from .test_overview import NOW, START, Steps, make_facts, make_history, minute, sample, tally

GAP = Gap(start=minute(2), end=minute(4), reason=GapReason.STREAM_LOST)


def make_previous(
    steps: Steps | None = None, samples: dict[int, QueueSample] | None = None
) -> PreviousPeriod:
    """The hour before: its activity and samples by the index of a minute, 0 to 59."""
    shifted = {at - HOUR: activity for at, activity in make_history(steps).activity.items()}
    by_step = {minute(index) - HOUR: state for index, state in (samples or {}).items()}
    return PreviousPeriod(
        history_by_step=History(NOW, "rollup", shifted), samples=by_step, distance=HOUR
    )


def read_changes(
    facts: Facts, previous: PreviousPeriod | Missing | None
) -> dict[str, tuple[str, str]]:
    """The change of each tile that has one, by the tile's name: its short text and its sentence."""
    tiles = make_overview(replace(facts, previous=previous)).tiles
    return {tile.name: (tile.change.text, tile.change.sentence) for tile in tiles if tile.change}


def read_reasons(facts: Facts, previous: PreviousPeriod | Missing | None) -> list[str]:
    """Why values of the overview are not compared."""
    return make_overview(replace(facts, previous=previous)).uncompared


@pytest.mark.parametrize(
    ("attempts", "attempts_before", "text", "sentence"),
    [
        (60, 40, "▲ 50%", "50% more attempts than in the hour before"),
        (40, 60, "▼ 33%", "33% fewer attempts than in the hour before"),
        (7, 7, "± 0", "the same as in the hour before"),
        (1_200, 0, "▲ 1,200", "1,200 more attempts than in the hour before"),
        (0, 0, "± 0", "the same as in the hour before"),
    ],
)
def test_attempts_are_compared_with_the_hour_before(
    attempts: int, attempts_before: int, text: str, sentence: str
) -> None:
    facts = make_facts(activity={10: {"a": tally(attempts)}})
    changes = read_changes(facts, make_previous({50: {"b": tally(attempts_before)}}))
    assert changes["Throughput"] == (text, sentence)


@pytest.mark.parametrize(
    ("outcomes", "outcomes_before", "text"),  # succeeded and failed attempts
    [
        ((90, 10), (95, 5), "▲ 5 points"),
        ((99, 1), (90, 10), "▼ 9 points"),
        ((2, 1), (2, 1), "± 0"),
        ((9_999, 1), (10_000, 0), "± 0"),
        ((1, 0), (0, 0), None),
        ((0, 0), (1, 0), None),
    ],
)
def test_failure_rates_are_compared_in_points_if_attempts_finished_in_both_periods(
    outcomes: tuple[int, int], outcomes_before: tuple[int, int], text: str | None
) -> None:
    facts = make_facts(activity={10: {"a": tally(*outcomes)}})
    changes = read_changes(facts, make_previous({50: {"b": tally(*outcomes_before)}}))
    assert changes.get("Failure rate", (None, ""))[0] == text


def test_minute_in_progress_is_left_out_of_both_periods() -> None:
    """Catches a fall that is caused only by the incomplete last minute."""
    steps: Steps = {index: {"a": tally(10)} for index in range(60)}
    facts = make_facts(activity={index: steps[index] for index in range(59)})
    assert read_changes(facts, make_previous(steps))["Throughput"][0] == "± 0"


def test_attempts_are_not_compared_if_all_are_in_the_step_in_progress() -> None:
    """Catches "the same as before" when a queue has only just begun to work."""
    facts, previous = make_facts(activity={59: {"a": tally(10)}}), make_previous()
    assert "Throughput" not in read_changes(facts, previous)
    reason = "attempts finished only in the step in progress."
    assert f"Attempts are not compared with the hour before: {reason}" in read_reasons(
        facts, previous
    )


def test_jobs_by_status_are_compared_with_the_sample_of_an_hour_ago() -> None:
    facts = make_facts({("queued", "a"): 30, ("dlq", "a"): 2, ("leased", "a"): 4})
    samples = {59: sample(queued=1_040, dlq=2, other=1), 58: sample(queued=7)}
    changes = read_changes(facts, make_previous(samples=samples))
    assert {name: change for name, change in changes.items() if name != "Throughput"} == {
        "Queued": ("▼ 1,010", "1,010 fewer than an hour ago"),
        "Running": ("▲ 4", "4 more than an hour ago"),
        "Retrying": ("± 0", "the same as an hour ago"),
        "Dead": ("± 0", "the same as an hour ago"),
    }


def test_window_between_two_dates_is_compared_with_the_time_before() -> None:
    """Catches "the hour before" for such a window, and present jobs compared with past ones."""
    query = WindowQuery(start=START, end=START + HOUR)
    activity: Steps = {10: {"a": tally(60)}}
    present = make_facts({("dlq", "a"): 3}, activity=activity, samples={0: sample(dlq=1)})
    counted = make_history(activity, as_of=START + 2 * HOUR)
    facts = replace(present, page_window=PageWindow(query=query), history_by_step=counted)
    previous = make_previous({50: {"b": tally(40)}}, {59: sample(dlq=2)})
    assert read_changes(facts, previous) == {
        "Throughput": ("▲ 50%", "50% more attempts than in the time before"),
        "Failure rate": ("± 0", "the same as in the time before"),
    }
    assert read_reasons(facts, previous) == [
        "Jobs by status are not compared with the time before: they are as of now."
    ]


def test_jobs_by_status_are_compared_with_the_beginning_of_a_window_that_ends_later() -> None:
    """Catches a comparison with the time one window length ago, before this window began."""
    facts = make_facts({("queued", "a"): 30})
    stats = replace(facts.evidence.stats, as_of=minute(30))
    window = PageWindow(query=WindowQuery(start=START, end=START + HOUR))
    facts = replace(facts, page_window=window, evidence=replace(facts.evidence, stats=stats))
    previous = make_previous(samples={59: sample(queued=20), 30: sample(queued=7)})
    assert read_changes(facts, previous)["Queued"] == (
        "▲ 10",
        "10 more than when this window began",
    )


def test_nothing_is_compared_unless_a_comparison_is_requested() -> None:
    facts = make_facts({("queued", "a"): 30}, activity={10: {"a": tally(5)}})
    assert read_changes(facts, None) == {}
    assert read_reasons(facts, None) == []


def change_current(facts: Facts, **changes: Any) -> Facts:
    assert isinstance(facts.history_by_step, History)
    return replace(facts, history_by_step=replace(facts.history_by_step, **changes))


def change_previous(previous: PreviousPeriod, **changes: Any) -> PreviousPeriod:
    return replace(previous, history_by_step=replace(previous.history_by_step, **changes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gaps": (GAP,)}, "runs may be missing from a part of the time."),
        ({"is_complete": False}, "the collector is still counting the history."),
    ],
)
def test_attempts_are_not_compared_if_one_period_has_a_gap_or_is_still_counted(
    change: dict[str, Any], reason: str
) -> None:
    """Catches a change that is caused only by a gap. Jobs by status do not depend on runs."""
    facts = make_facts({("queued", "a"): 1}, activity={10: {"a": tally(5)}})
    previous = make_previous({10: {"a": tally(5)}}, {59: sample(queued=1)})
    assert read_changes(facts, previous).keys() >= {"Throughput", "Failure rate", "Queued"}
    assert read_reasons(facts, previous) == []
    for periods in (
        (change_current(facts, **change), previous),
        (facts, change_previous(previous, **change)),
    ):
        assert read_changes(*periods).keys() == {"Queued", "Running", "Retrying", "Dead"}
        assert read_reasons(*periods) == [
            f"Attempts are not compared with the hour before: {reason}"
        ]


def test_jobs_by_status_without_a_sample_or_a_count_are_not_compared() -> None:
    facts = make_facts(activity={10: {"a": tally(5)}})
    previous = make_previous(samples={58: sample(queued=1)})
    assert read_changes(facts, previous).keys() == {"Throughput"}
    assert read_reasons(facts, previous) == [
        "Jobs by status are not compared with the hour before: "
        "no collector recorded the state of the queue then."
    ]
    changes = read_changes(make_facts(is_counted=False), make_previous({}, {59: sample(queued=1)}))
    assert "Queued" not in changes
    assert "Throughput" in changes


def test_attempts_without_end_times_are_not_compared() -> None:
    activity: Steps = {10: {"a": tally(5)}}
    facts = make_facts(activity=activity, unknown=frozenset({"finishedAt"}))
    changes = read_changes(facts, make_previous(activity, {59: sample(queued=1)}))
    assert changes.keys() == {"Queued", "Running", "Retrying", "Dead"}


def test_reason_for_all_values_is_shown_once_with_its_remedy() -> None:
    missing = Missing(
        reason="no history in such short steps is kept from that time", remedy="Keep more."
    )
    assert read_changes(make_facts({("queued", "a"): 30}), missing) == {}
    assert read_reasons(make_facts(), missing) == [
        "Values are not compared with the hour before: "
        "no history in such short steps is kept from that time. Keep more."
    ]


def test_lines_of_the_previous_period_have_no_value_where_runs_may_be_missing() -> None:
    gap = Gap(start=minute(2) - HOUR, end=minute(4) - HOUR, reason=GapReason.STREAM_LOST)
    previous = change_previous(make_previous({1: {"a": tally(5)}, 3: {"a": tally(6)}}), gaps=(gap,))
    columns = make_past_columns(previous.history_by_step, MINUTE)
    assert columns.keys() == {"succeeded", "waitP95", "runP95"}
    assert columns["succeeded"][:6] == [0, 5, None, None, 0, 0]
    assert len(columns["succeeded"]) == 60
    columns = make_past_columns(previous.history_by_step, MINUTE, frozenset({"finishedAt"}))
    assert columns["succeeded"] == [None] * 60
    start = minute(2) - HOUR + MINUTE / 4
    within = replace(gap, start=start, end=start + MINUTE / 4)
    columns = make_past_columns(change_previous(previous, gaps=(within,)).history_by_step, MINUTE)
    assert columns["succeeded"][:4] == [0, 5, None, 6]


def test_page_without_a_collector_does_not_count_the_previous_period(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[datetime] = []  # of the windows that are counted live
    admin = signed_in(make_api())
    monkeypatch.setattr(
        "jobmon.rollup.series.count_activity", lambda _, start, end, step: ends.append(end) or {}
    )
    page = admin.get("/dashboard?compare=previous").text
    assert "not compared with the hour before: no collector keeps a history" in page
    assert admin.get("/dashboard/charts?compare=previous").json["previous"] is None
    # The previous period ends an hour ago.
    assert min(ends) > datetime.now(UTC) - HOUR / 2


def test_collector_that_stops_between_two_reads_is_a_reason_and_not_an_error() -> None:
    queue = Mock()
    queue.series.window.return_value = Window(start=START - HOUR, end=START, step=MINUTE)
    queue.series.history_by_step.side_effect = NoCollectorError
    window = Window(start=START, end=START + HOUR, step=MINUTE)
    previous = read_previous(queue, window, HOUR)
    assert isinstance(previous, Missing)
    assert previous.reason == "no collector keeps a history"


@pytest.mark.parametrize("has_coarser_steps", [True, False])
def test_a_previous_period_whose_steps_are_not_kept_is_a_reason(*, has_coarser_steps: bool) -> None:
    """Catches a reason that denies the coarser history that is kept."""
    queue = Mock()
    window = Window(start=START, end=START + HOUR, step=MINUTE)
    queue.series.window.return_value = replace(window, no_data_before=START)
    if has_coarser_steps:
        queue.series.window.side_effect = WindowError("step", "Must be a multiple of 3600.")
    previous = read_previous(queue, window, HOUR)
    assert isinstance(previous, Missing)
    assert previous.reason == "no history in such short steps is kept from that time"
    assert previous.remedy.startswith("Set JOBMON_MINUTE_RETENTION_DAYS to ")


def test_addresses_of_the_page_keep_the_comparison(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "1", "type": "a", "status": "queued"})
    page = admin.page("/dashboard?compare=previous&range=24h")
    addresses = [link for link in page.addresses() if "by=" in link or "/charts?" in link]
    uncompared = [address for address in addresses if "compare=previous" not in address]
    assert len(addresses) > 10
    assert uncompared == ["?range=24h&by=-queued"]  # the link that ends the comparison
    refused = admin.get("/dashboard?compare=next")
    assert refused.status_code == 422
    assert "Only previous." in refused.text


@pytest.fixture
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    """A queue with 3 attempts in the last hour, and 12 in the hour before: 3 of the 12 failed."""
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        for index in range(15):
            ended = now - (90 * MINUTE if index < 12 else 30 * MINUTE)
            status = "failed" if index < 3 else "succeeded"
            job = {"jobId": str(index), "type": "a", "status": "succeeded", "createdAt": ended}
            database.jobs.insert_one(job | {"finishedAt": ended})
            database.job_attempts.insert_one(
                {
                    "jobId": str(index),
                    "attemptNumber": 1,
                    "status": status,
                    "startedAt": ended - MINUTE,
                    "finishedAt": ended,
                }
            )
        init(database_uri(mongod, database))
        queue = QueueService(mongod, database)
        with queue.running_collector():
            yield queue
        queue.close()


@pytest.mark.real
def test_page_and_charts_compare_the_same_numbers_as_the_api(queue: QueueService) -> None:
    admin = signed_in(queue.api)

    def read_page() -> str:
        return admin.get("/dashboard?compare=previous").text

    assert eventually(lambda: "75% fewer attempts than in the hour before" in read_page())
    assert "25 points fewer than in the hour before" in read_page()
    assert "not compared" in read_page()  # jobs by status: the collector has no sample of that time
    charts = admin.get("/dashboard/charts?compare=previous").json
    assert sum(charts["previous"]["succeeded"]) == 9
    # The newest minute is null until it is counted.
    assert sum(filter(None, admin.get("/dashboard/charts").json["succeeded"])) == 3
    assert admin.get("/dashboard/charts").json["previous"] is None
    start = datetime.fromtimestamp(charts["at"][0], UTC) - HOUR
    window = {"from": start.isoformat(), "to": (start + HOUR).isoformat(), "step": 60}
    steps = queue.get("/admin/jobs/timeseries", **window)["data"]
    assert [step["succeeded"] for step in steps] == charts["previous"]["succeeded"][:60]
    end = datetime.now(UTC) - 5 * MINUTE
    query = f"from={quote(f'{end - HOUR:%FT%TZ}')}&to={quote(f'{end:%FT%TZ}')}"
    past_page = admin.get(f"/dashboard?compare=previous&{query}").text
    assert "75% fewer attempts than in the time before" in past_page
    columns = admin.get(f"/dashboard/charts?compare=previous&{query}").json
    assert (sum(columns["succeeded"]), sum(columns["previous"]["succeeded"])) == (3, 9)
    month_page = admin.get("/dashboard?compare=previous&range=30d").text
    assert "Set JOBMON_HOUR_RETENTION_DAYS to 61 or more." in month_page
