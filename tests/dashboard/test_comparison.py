"""The comparison with the previous period: catches a change from half a period, with the wrong
sign, or between periods of different lengths, and an overview without the reason."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from jobmon.api.window_queries import WindowQuery
from jobmon.dashboard.charts import previous_columns
from jobmon.dashboard.facts import Facts, Previous, read_previous
from jobmon.dashboard.overview import overview
from jobmon.dashboard.page_window import PageWindow
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.evidence import Missing
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.series import History, NoCollectorError
from jobmon.rollup.windows import Window

from ..support.commands import database_uri
from ..support.pages import Viewer
from ..support.waiting import eventually
from ..support.watched_queue import WatchedQueue, init, temporary_database
from .conftest import Make, signed_in
from .test_overview import NOW, START, Steps, facts, minute, past, sample, tally

GAP = Gap(start=minute(2), end=minute(4), reason=GapReason.STREAM_LOST)


def make_previous(steps: Steps | None = None, **samples: QueueSample) -> Previous:
    """The hour before: activity and samples by the number of a minute."""
    shifted = {at - HOUR: activity for at, activity in past(steps).activity.items()}
    by_step = {minute(int(name[1:])) - HOUR: found for name, found in samples.items()}
    return Previous(past=History(NOW, "rollup", shifted), samples=by_step, distance=HOUR)


def compared(shown: Facts, previous: Previous | Missing | None) -> dict[str, tuple[str, str]]:
    """The changes of the tiles that have a change: the short text, and the sentence."""
    tiles = overview(replace(shown, previous=previous)).tiles
    return {tile.name: (tile.change.text, tile.change.sentence) for tile in tiles if tile.change}


def reasons(shown: Facts, previous: Previous | Missing | None) -> list[str]:
    return overview(replace(shown, previous=previous)).uncompared


@pytest.mark.parametrize(
    ("now", "then", "text", "sentence"),
    [
        (60, 40, "▲ 50%", "50% more attempts than in the hour before"),
        (40, 60, "▼ 33%", "33% fewer attempts than in the hour before"),
        (7, 7, "± 0", "the same as in the hour before"),
        (1_200, 0, "▲ 1,200", "1,200 more attempts than in the hour before"),
        (0, 0, "± 0", "the same as in the hour before"),
    ],
)
def test_attempts_are_compared_with_the_hour_before(
    now: int, then: int, text: str, sentence: str
) -> None:
    changes = compared(
        facts(activity={10: {"a": tally(now)}}), make_previous({50: {"b": tally(then)}})
    )
    assert changes["Throughput"] == (text, sentence)


@pytest.mark.parametrize(
    ("now", "then", "text"),
    [
        ((90, 10), (95, 5), "▲ 5 points"),
        ((99, 1), (90, 10), "▼ 9 points"),
        ((2, 1), (2, 1), "± 0"),
        ((9_999, 1), (10_000, 0), "± 0"),
        ((1, 0), (0, 0), None),
        ((0, 0), (1, 0), None),
    ],
)
def test_failure_rates_are_compared_in_points_where_attempts_finished_in_both_periods(
    now: tuple[int, int], then: tuple[int, int], text: str | None
) -> None:
    shown = facts(activity={10: {"a": tally(*now)}})
    found = compared(shown, make_previous({50: {"b": tally(*then)}})).get("Failure rate")
    assert (found and found[0]) == text


def test_the_step_in_progress_is_in_neither_period() -> None:
    """Catches a fall that is due only to the unfinished last minute."""
    steps: Steps = {number: {"a": tally(10)} for number in range(60)}
    shown = facts(activity={number: steps[number] for number in range(59)})
    assert compared(shown, make_previous(steps))["Throughput"][0] == "± 0"


def test_jobs_by_status_are_compared_with_the_sample_of_an_hour_ago() -> None:
    shown = facts({("queued", "a"): 30, ("dlq", "a"): 2, ("leased", "a"): 4})
    then = make_previous(_59=sample(queued=1_040, dlq=2, other=1), _58=sample(queued=7))
    assert {
        name: found for name, found in compared(shown, then).items() if name != "Throughput"
    } == {
        "Queued": ("▼ 1,010", "1,010 fewer than an hour ago"),
        "Running": ("▲ 4", "4 more than an hour ago"),
        "Retrying": ("± 0", "the same as an hour ago"),
        "Dead": ("± 0", "the same as an hour ago"),
    }


def test_any_window_is_compared_with_the_time_before() -> None:
    """Catches "the last hour" for another window, and present jobs next to jobs of the past."""
    query = WindowQuery(start=START, end=START + HOUR)
    shown = facts({("dlq", "a"): 3}, activity={10: {"a": tally(60)}}, samples={0: sample(dlq=1)})
    over = replace(past({10: {"a": tally(60)}}), as_of=START + 2 * HOUR)
    window = replace(shown, page_window=PageWindow(query=query), past=over)
    previous = make_previous({50: {"b": tally(40)}}, m59=sample(dlq=2))
    words = {"Throughput": ("▲ 50%", "50% more attempts than in the time before")}
    rate = {"Failure rate": ("± 0", "the same as in the time before")}
    assert compared(window, previous) == words | rate
    assert reasons(window, previous) == [
        "Jobs by status are not compared with the time before: they are as of now."
    ]


def test_nothing_is_compared_without_the_choice() -> None:
    shown = facts({("queued", "a"): 30}, activity={10: {"a": tally(5)}})
    assert compared(shown, None) == {}
    assert reasons(shown, None) == []


def change_past(shown: Facts, **changes: Any) -> Facts:
    assert isinstance(shown.past, History)
    return replace(shown, past=replace(shown.past, **changes))


def change_previous(previous: Previous, **changes: Any) -> Previous:
    return replace(previous, past=replace(previous.past, **changes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gaps": (GAP,)}, "runs may be missing from a part of the time."),
        ({"is_complete": False}, "the collector is still counting the history."),
    ],
)
def test_attempts_of_a_period_with_a_gap_or_uncounted_are_not_compared(
    change: dict[str, Any], reason: str
) -> None:
    """Catches a change that is really a gap. Jobs by status do not depend on runs."""
    shown = facts({("queued", "a"): 1}, activity={10: {"a": tally(5)}})
    previous = make_previous({10: {"a": tally(5)}}, _59=sample(queued=1))
    assert compared(shown, previous).keys() >= {"Throughput", "Failure rate", "Queued"}
    assert reasons(shown, previous) == []
    for one, other in (
        (change_past(shown, **change), previous),
        (shown, change_previous(previous, **change)),
    ):
        assert compared(one, other).keys() == {"Queued", "Running", "Retrying", "Dead"}
        assert reasons(one, other) == [f"Attempts are not compared with the hour before: {reason}"]


def test_jobs_by_status_without_a_sample_or_a_count_are_not_compared() -> None:
    shown, previous = facts(activity={10: {"a": tally(5)}}), make_previous(_58=sample(queued=1))
    assert compared(shown, previous).keys() == {"Throughput"}
    assert reasons(shown, previous) == [
        "Jobs by status are not compared with the hour before: "
        "no collector recorded the state of the queue then."
    ]
    uncounted = facts(known=False)
    assert "Queued" not in compared(uncounted, make_previous(_59=sample(queued=1)))


def test_runs_without_an_end_are_not_compared() -> None:
    shown = facts({("queued", "a"): 1}, unknown=frozenset({"finishedAt"}))
    assert (
        compared(shown, make_previous(_59=sample(queued=1)))
        .keys()
        .isdisjoint({"Throughput", "Failure rate"})
    )


def test_one_reason_for_everything_is_shown_once_with_its_remedy() -> None:
    missing = Missing(reason="that is before the retained history", remedy="Keep more.")
    assert compared(facts({("queued", "a"): 30}), missing) == {}
    assert reasons(facts(), missing) == [
        "Values are not compared with the hour before: "
        "that is before the retained history. Keep more."
    ]


def test_grey_lines_have_no_value_where_runs_may_be_missing() -> None:
    gap = Gap(start=minute(2) - HOUR, end=minute(4) - HOUR, reason=GapReason.STREAM_LOST)
    previous = change_previous(make_previous({1: {"a": tally(5)}, 3: {"a": tally(6)}}), gaps=(gap,))
    columns = previous_columns(previous.past)
    assert columns.keys() == {"succeeded", "waitP95", "runP95"}
    assert columns["succeeded"][:6] == [0, 5, None, None, 0, 0]
    assert len(columns["succeeded"]) == 60
    assert previous_columns(previous.past, frozenset({"finishedAt"}))["succeeded"] == [None] * 60


def test_page_without_a_collector_gives_the_reason_and_counts_nothing_live(
    service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    admin = signed_in(service())
    monkeypatch.setattr(
        "jobmon.rollup.series.count_activity", lambda *window: counted.append(window[1:3]) or {}
    )
    page = admin.get("/dashboard?compare=previous").text
    assert "not compared with the hour before: no collector keeps a history" in page
    assert admin.get("/dashboard/charts?compare=previous").json["previous"] is None
    assert len({start for start, _ in counted if start < datetime.now(UTC) - 2 * HOUR}) <= 1


def test_a_collector_that_stops_between_two_reads_is_a_reason_and_no_fault() -> None:
    queue = Mock()
    queue.series.window.return_value = Window(start=START - HOUR, end=START, step=MINUTE)
    queue.series.history_by_step.side_effect = NoCollectorError
    window = Window(start=START, end=START + HOUR, step=MINUTE)
    found = read_previous(queue, window, HOUR)
    assert isinstance(found, Missing)
    assert found.reason == "no collector keeps a history"


def test_choice_is_kept_in_every_address_of_the_page(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "1", "type": "a", "status": "queued"})
    page = admin.page("/dashboard?compare=previous&range=24h")
    ours = [found for found in page.addresses() if "by=" in found or "/charts?" in found]
    without = [address for address in ours if "compare=previous" not in address]
    assert len(ours) > 10
    assert without == ["?range=24h&by=-queued"]  # the link that ends the comparison
    refused = admin.get("/dashboard?compare=next")
    assert refused.status_code == 422
    assert "Only previous." in refused.text


@pytest.fixture
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    """A queue with 3 attempts in the last hour and 12 in the hour before, of which 3 failed."""
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        for number in range(15):
            ended = now - (timedelta(minutes=90) if number < 12 else timedelta(minutes=30))
            status = "failed" if number < 3 else "succeeded"
            job = {"jobId": str(number), "type": "a", "status": "succeeded", "createdAt": ended}
            database.jobs.insert_one(job | {"finishedAt": ended})
            database.job_attempts.insert_one(
                {
                    "jobId": str(number),
                    "attemptNumber": 1,
                    "status": status,
                    "startedAt": ended - MINUTE,
                    "finishedAt": ended,
                }
            )
        init(database_uri(mongod, database))
        watching = WatchedQueue(mongod, database)
        with watching.running_collector():
            yield watching
        watching.close()


@pytest.mark.real
def test_page_and_charts_compare_what_the_api_has_of_both_windows(queue: WatchedQueue) -> None:
    admin = signed_in(queue.api)

    def page() -> str:
        return admin.get("/dashboard?compare=previous").text

    assert eventually(lambda: "75% fewer attempts than in the hour before" in page())
    assert "25 points fewer than in the hour before" in page()
    assert "not compared" in page()  # jobs by status: no sample is that old
    charts = admin.get("/dashboard/charts?compare=previous").json
    assert sum(charts["previous"]["succeeded"]) == 9
    # The youngest minute may be null: it is not counted yet.
    assert sum(filter(None, admin.get("/dashboard/charts").json["succeeded"])) == 3
    assert admin.get("/dashboard/charts").json["previous"] is None
    start = datetime.fromtimestamp(charts["at"][0], UTC) - HOUR
    window = {"from": start.isoformat(), "to": (start + HOUR).isoformat(), "step": 60}
    steps = queue.get("/admin/jobs/timeseries", **window)["data"]
    assert [step["succeeded"] for step in steps] == charts["previous"]["succeeded"][:60]
    end = datetime.now(UTC) - 5 * MINUTE
    window = f"from={quote(f'{end - HOUR:%FT%TZ}')}&to={quote(f'{end:%FT%TZ}')}"
    shown = admin.get(f"/dashboard?compare=previous&{window}").text
    assert "75% fewer attempts than in the time before" in shown
    columns = admin.get(f"/dashboard/charts?compare=previous&{window}").json
    assert (sum(columns["succeeded"]), sum(columns["previous"]["succeeded"])) == (3, 9)
    month = admin.get("/dashboard?compare=previous&range=30d").text
    assert "Set JOBMON_HOUR_RETENTION_DAYS to 61 or more." in month
