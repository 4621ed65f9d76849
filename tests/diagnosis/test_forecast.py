"""Forecasts: catches a forecast from too little data, and a number that does not follow from the
rates."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.evidence_reader import explain_missing_history, gather_forecast_evidence
from jobmon.diagnosis.forecast import (
    BLOCK_LENGTH,
    Forecast,
    Outlook,
    forecast_queue,
    forecast_types,
    round_duration,
)
from jobmon.rollup.buckets import MINUTE, QueueSample, Tally
from jobmon.rollup.series import Activity, History
from jobmon.store.labels import OTHER
from jobmon.store.paused_types import TypePause
from jobmon.store.stats import QueueHealth, QueueStats

from ..conftest import NOW

START = NOW - 31 * MINUTE
Counts = dict[str, list[tuple[int, int]]]  # by type and block: jobs that came, jobs that ended


def make_activity(arrived: int, completed: int) -> Activity:
    tally = Tally(enqueued=arrived)
    tally.outcomes["succeeded"] = completed
    return Activity.from_tallies([tally])


def make_evidence(
    counts: Counts, due: int | None = 100, *, before: int | None = None, **changes: Any
) -> Evidence:
    """A queue with these counts and `due` jobs; `before` jobs waited at the start of the blocks."""
    blocks = tuple(
        History(
            NOW,
            "rollup",
            {name: make_activity(*flows[index]) for name, flows in counts.items()},
            True,
        )
        for index in range(3)
    )
    waiting = due or 0
    if before is None:
        all_flows = (flow for flows in counts.values() for flow in flows)
        before = waiting - sum(arrived - completed for arrived, completed in all_flows)
    health = QueueHealth(
        estimated_total=0,
        expired_leases=0,
        due=due,
        scheduled=0,
        oldest_queued=None,
        oldest_queued_by_type={},
    )
    stats = QueueStats(
        as_of=NOW,
        source="rollup",
        counts={("queued", job_type): waiting // len(counts) for job_type in counts},
        total=waiting,
        health=health,
    )
    defaults: dict[str, Any] = {
        "stats": stats,
        "hour_start": NOW - timedelta(hours=1),
        "blocks": blocks,
        "blocks_start": START,
        "samples": {START: QueueSample(status_counts={"queued": before}, oldest_queued_ms=0)},
    }
    return Evidence(**defaults | changes)


def mail(*blocks: tuple[int, int]) -> Counts:
    """The counts of the type `mail` in each block."""
    return {"mail": list(blocks)}


def test_a_backlog_clears_at_the_difference_of_the_rates() -> None:
    forecast = forecast_queue(make_evidence(mail((100, 200), (100, 200), (100, 200)), due=350))
    assert (forecast.outlook, forecast.text) == (Outlook.CLEARS, "clears in about 35 min")
    assert forecast.clears_in == timedelta(minutes=35)
    assert (forecast.arrivals, forecast.completions, forecast.backlog) == (10, 20, 350)
    assert (forecast.start, forecast.end) == (START, START + 3 * BLOCK_LENGTH)


def test_a_backlog_that_grows_does_not_clear() -> None:
    forecast = forecast_queue(make_evidence(mail((220, 100), (220, 100), (220, 100)), due=500))
    assert forecast.outlook is Outlook.GROWS
    assert forecast.text == "grows by 12/min and does not clear at this rate"
    assert forecast.clears_in is None


@pytest.mark.parametrize(
    ("blocks", "due", "outlook"),
    [
        ([(100, 100)] * 3, 50, Outlook.STEADY),
        ([(100, 104)] * 3, 50, Outlook.STEADY),  # the difference can be chance
        ([(1_000, 1_100)] * 3, 1_000_000, Outlook.STEADY),  # does not clear within a day
        ([(100, 100)] * 3, 0, Outlook.EMPTY),
        ([(50, 0)] * 3, 500, Outlook.GROWS),  # no job finishes
        ([(0, 50)] * 3, 500, Outlook.CLEARS),  # no job comes
    ],
)
def test_the_outlook_follows_from_the_rates_and_the_backlog(
    blocks: Any, due: int, outlook: Outlook
) -> None:
    assert forecast_queue(make_evidence(mail(*blocks), due)).outlook is outlook


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (
            make_evidence(mail((3, 3), (3, 3), (3, 3))),
            "fewer than 20 jobs came or ended",
        ),
        # The first job came less than ten minutes ago.
        (make_evidence(mail((0, 0), (0, 0), (100, 90))), "the rates varied too much"),
        (
            make_evidence(mail((100, 20), (100, 200), (100, 400))),
            "the rates varied too much",
        ),
    ],
)
def test_the_outlook_is_unknown_with_few_jobs_or_varying_rates(
    evidence: Evidence, reason: str
) -> None:
    forecast = forecast_queue(evidence)
    assert (forecast.outlook, forecast.clears_in) == (Outlook.UNKNOWN, None)
    assert reason in forecast.reason
    assert forecast.text == f"no forecast: {forecast.reason}"


CLEARS = mail(*[(100, 200)] * 3)


def mark_incomplete(evidence: Evidence) -> Evidence:
    assert not isinstance(evidence.blocks, Missing)
    first = replace(evidence.blocks[0], is_complete=False)
    return replace(evidence, blocks=(first, *evidence.blocks[1:]))


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (make_evidence(CLEARS, due=None), "it is unknown how many jobs are due"),
        (make_evidence(CLEARS, before=5_000), "jobs also come or leave in other ways"),
        (
            make_evidence(CLEARS, samples={}),
            "the collector did not count the jobs half an hour ago",
        ),
        (
            make_evidence(CLEARS, unknown=frozenset({"createdAt"})),
            "no job records when it was created",
        ),
        (
            make_evidence(CLEARS, unknown=frozenset({"finishedAt"})),
            "succeeded or dead jobs do not record when they finished",
        ),
        (make_evidence(CLEARS, blocks=Missing(reason="no collector")), "no collector"),
        (mark_incomplete(make_evidence(CLEARS)), "still counting"),
    ],
)
def test_an_unknown_value_leaves_the_outlook_unknown(evidence: Evidence, reason: str) -> None:
    forecast = forecast_queue(evidence)
    assert forecast.outlook is Outlook.UNKNOWN
    assert reason in forecast.reason
    for type_forecast in forecast_types(evidence).values():
        assert (type_forecast.outlook, type_forecast.reason) == (Outlook.UNKNOWN, forecast.reason)


@pytest.mark.parametrize(
    "changes", [{"samples": {}}, {"blocks": Missing(reason="no collector")}, {}]
)
def test_a_queue_without_due_jobs_is_empty_even_if_its_rates_are_unknown(
    changes: dict[str, Any],
) -> None:
    forecast = forecast_queue(make_evidence(CLEARS, due=0, **changes))
    assert (forecast.outlook, forecast.text, forecast.backlog) == (
        Outlook.EMPTY,
        "no job is due",
        0,
    )
    assert (forecast.arrivals is None) == bool(changes)


def test_each_type_has_its_own_forecast() -> None:
    forecasts = forecast_types(
        make_evidence(
            {"mail": [(100, 200)] * 3, "sms": [(200, 100)] * 3, "idle": [(0, 0)] * 3}, 300
        )
    )
    assert {job_type: forecast.outlook for job_type, forecast in forecasts.items()} == {
        "mail": Outlook.CLEARS,
        "sms": Outlook.GROWS,
        "idle": Outlook.UNKNOWN,
    }
    assert forecasts["mail"].clears_in == timedelta(minutes=10)


def test_a_type_without_waiting_jobs_has_no_forecast() -> None:
    assert forecast_types(make_evidence(CLEARS, due=0)) == {}


def test_a_type_that_is_counted_with_others_has_no_forecast() -> None:
    evidence = make_evidence({"mail": [(100, 200)] * 3, OTHER: [(100, 200)] * 3})
    assert not isinstance(evidence.blocks, Missing)
    for block in evidence.blocks:
        del block.activity["mail"]  # type: ignore[attr-defined]
    forecast = forecast_types(evidence)["mail"]
    assert forecast.reason == "its activity is counted together with other types"


def test_the_forecast_of_a_queue_with_many_scheduled_jobs_is_unknown() -> None:
    """Catches a forecast that the backlog grows because many jobs were scheduled for tomorrow."""
    evidence = make_evidence(mail(*[(1_000, 100)] * 3), due=50, before=0)
    counts = {("queued", "mail"): 2_700}
    stats = replace(
        evidence.stats, counts=counts, health=replace(evidence.stats.health, scheduled=2_650)
    )
    forecast = forecast_queue(replace(evidence, stats=stats))
    assert forecast.outlook is Outlook.UNKNOWN
    assert "scheduled for later" in forecast.reason


def test_the_forecast_of_a_type_with_scheduled_jobs_is_unknown() -> None:
    evidence = make_evidence(CLEARS)
    health = replace(evidence.stats.health, scheduled=50)
    evidence = replace(evidence, stats=replace(evidence.stats, health=health))
    forecast = forecast_types(evidence)["mail"]
    assert forecast.reason == "it is unknown how many jobs of this type are due"


@pytest.mark.parametrize(
    ("completed", "outlook"),
    [(200, Outlook.UNKNOWN), (100, Outlook.UNKNOWN), (50, Outlook.GROWS)],
)
def test_a_backlog_with_jobs_of_a_paused_type_does_not_clear(
    completed: int, outlook: Outlook
) -> None:
    queue = make_evidence({"mail": [(100, completed)] * 3, "sms": [(0, 0)] * 3}, due=350)
    paused = replace(queue, pauses={"sms": TypePause()})
    assert forecast_queue(queue).outlook is not Outlook.UNKNOWN
    forecast = forecast_queue(paused)
    assert (forecast.outlook, forecast.clears_in) == (outlook, None)
    assert ("paused types wait" in forecast.reason) == (outlook is Outlook.UNKNOWN)
    assert forecast_types(paused)["mail"] == forecast_types(queue)["mail"]


def test_a_backlog_whose_paused_jobs_may_be_in_other_does_not_clear() -> None:
    queue = make_evidence({"mail": [(100, 200)] * 3, OTHER: [(100, 200)] * 3})
    paused = replace(queue, pauses={"sms": TypePause()})
    assert forecast_queue(queue).outlook is Outlook.CLEARS
    assert forecast_queue(paused).outlook is Outlook.UNKNOWN


def test_a_type_that_was_just_paused_does_not_clear() -> None:
    queue = replace(make_evidence(CLEARS), pauses={"mail": TypePause()})
    forecast = forecast_types(queue)["mail"]
    assert (forecast.outlook, forecast.reason) == (Outlook.UNKNOWN, "the type is paused")


def test_a_paused_type_without_waiting_jobs_changes_no_forecast() -> None:
    queue = replace(make_evidence(CLEARS), pauses={"sms": TypePause()})
    assert forecast_queue(queue).outlook is Outlook.CLEARS


def test_the_evidence_of_a_forecast_has_the_paused_types() -> None:
    queue, stats = MagicMock(), replace(make_evidence({}).stats, source="live")
    assert gather_forecast_evidence(queue, stats, NOW).pauses is queue.pauses.find.return_value


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "1 min"), (7.4, "7 min"), (33, "35 min"), (88, "90 min"), (150, "2.5 h"), (600, "10 h")],
)
def test_a_forecast_is_rounded(minutes: float, text: str) -> None:
    assert round_duration(timedelta(minutes=minutes)) == text


def test_an_unknown_forecast_has_no_numbers() -> None:
    assert Forecast(outlook=Outlook.UNKNOWN, reason="x").text == "no forecast: x"


def test_collector_without_a_history_is_not_called_absent() -> None:
    """Catches "no collector" if one runs, but cannot count: its remedy would not help."""
    queue, stats = MagicMock(), make_evidence({}).stats
    assert explain_missing_history(queue, stats) is None
    queue.series.rollup.progress.return_value = None
    reasons = [
        missing.reason
        for source in ("rollup", "live")
        if (missing := explain_missing_history(queue, replace(stats, source=source))) is not None
    ]
    assert reasons == [
        "the collector has not counted the history for a minute",
        "no collector keeps the statistics up to date",
    ]
