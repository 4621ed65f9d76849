"""The overview: catches a number for an unknown value, a trend line across unknown steps, a missing
or a false alarm, and a table in the wrong order."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.actions.mutes import ActiveMutes, Mute, MuteMode
from jobmon.actions.request import Person
from jobmon.dashboard.charts import make_chart_columns
from jobmon.dashboard.facts import Facts
from jobmon.dashboard.overview import ALL_CLEAR_TEXT, ONLY_MUTED_TEXT, make_overview
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.tiles import Tile
from jobmon.dashboard.type_table import SORTS, TypeRow, select_types
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.notices import CheckKind
from jobmon.domain import CappedCount
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample, Tallies, Tally, merge
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.histogram import bucket
from jobmon.rollup.marks import Marks
from jobmon.rollup.series import Activity, History
from jobmon.rollup.stats import StatsReader
from jobmon.rollup.windows import Window
from jobmon.store.labels import OTHER
from jobmon.store.stats import QueueHealth, QueueStats

from .. import conftest
from ..diagnosis.test_forecast import mail, make_evidence
from ..support.pages import Viewer

NOW = conftest.NOW.replace(second=30)
START = conftest.NOW - 59 * MINUTE  # the first minute of the window; NOW is in its last minute
Steps = dict[int, Tallies]  # by the index of a minute, 0 to 59


def minute(index: int) -> datetime:
    """The start of a minute of the window, by its index from 0 to 59."""
    return START + index * MINUTE


def tally(succeeded: int = 0, failed: int = 0, **fields: Any) -> Tally:
    return Tally(outcomes=+Counter({"succeeded": succeeded, "failed": failed}), **fields)


def make_history(steps: Steps | None = None, as_of: datetime = NOW) -> History[datetime]:
    tallies = [(steps or {}).get(index, {}) for index in range(60)]
    by_step = {
        minute(index): Activity.from_tallies(types.values()) for index, types in enumerate(tallies)
    }
    return History(as_of, "rollup", by_step)


def make_type_history(steps: Steps | None, first_index: int = 0) -> History[str]:
    """The activity by type in the minutes from `first_index` on."""
    merged = merge(tallies for index, tallies in (steps or {}).items() if index >= first_index)
    return History(
        NOW, "rollup", {name: Activity.from_tallies([total]) for name, total in merged.items()}
    )


def make_stats(
    counts: dict[tuple[str, str], int] | None, source: str = "rollup", **health: Any
) -> QueueStats:
    """Stats with jobs by status and type; `health` are fields of `QueueHealth`."""
    defaults: dict[str, Any] = {
        "estimated_total": 0,
        "expired_leases": 0,
        "due": 0,
        "scheduled": 0,
        "oldest_queued": None,
        "oldest_queued_by_type": {},
    }
    return QueueStats(
        as_of=NOW,
        source=source,
        counts=counts,
        total=99 if counts is None else sum(counts.values()),
        health=QueueHealth(**defaults | health),
    )


def make_facts(
    counts: dict[tuple[str, str], int] | None = None,
    *,
    is_counted: bool = True,
    activity: Steps | None = None,
    samples: dict[int, QueueSample] | None = None,
    has_history: bool = True,
    source: str = "rollup",
    unknown: frozenset[str] = frozenset(),
    **health: Any,
) -> Facts:
    """The facts of the last hour: present jobs by status and type, activity and samples by minute.

    `is_counted` is False if jobs could not be counted, `has_history` if there is no history.
    """
    by_step = {minute(index): state for index, state in (samples or {}).items()}
    missing = Missing(reason="no collector is running", remedy="Start one.")
    steps = make_history(activity) if has_history else missing
    hour = make_type_history(activity) if has_history else missing
    last_minutes = make_type_history(activity, first_index=50)
    evidence = Evidence(
        stats=make_stats((counts or {}) if is_counted else None, source, **health),
        hour_start=START,
        blocks_start=START,
        hour_by_type=hour,
        recent={10 * MINUTE: last_minutes if has_history else missing},
        hour_by_minute=steps,
        day_by_step=missing,
        samples=by_step,
        unknown=unknown,
    )
    return Facts(
        evidence=evidence,
        page_window=PageWindow.from_range("1h"),
        window=Window(start=START, end=START + HOUR, step=MINUTE),
        history_by_step=steps,
        history_by_type=hour,
        samples=by_step,
        marks=Marks(shown=()),
    )


def read_tiles(facts: Facts) -> dict[str, Tile]:
    return {tile.name: tile for tile in make_overview(facts).tiles}


def sample(oldest_ms: int = 0, **counts: int) -> QueueSample:
    return QueueSample(status_counts=counts, oldest_queued_ms=oldest_ms)


def test_tiles_show_the_state_of_the_queue() -> None:
    tiles = read_tiles(
        make_facts(
            {("queued", "a"): 1_200, ("queued", "b"): 34, ("leased", "a"): 5, ("dlq", "a"): 6},
            activity={10: {"a": tally(30, 10, dlq=2, enqueued=40)}, 50: {"b": tally(20)}},
            due=1_000,
            scheduled=234,
            oldest_queued=NOW - timedelta(minutes=3, seconds=20),
            oldest_queued_by_type={"a": NOW - 3 * MINUTE, "b": NOW - timedelta(seconds=200)},
        )
    )
    assert {name: (tile.value, tile.note, tile.is_alarming) for name, tile in tiles.items()} == {
        "Queued": ("1,234", "1,000 due (incl. retries)", False),
        "Running": ("5", "no expired leases", False),
        "Retrying": ("0", "awaiting retry", False),
        "Dead": ("6", "2 died in the last hour", True),
        "Oldest queued": ("3 min 20 s", "b", False),
        "Enqueued": ("0/min", "40 jobs in the last hour", False),
        "Throughput": ("0/min", "60 attempts in the last hour", False),
        "Failure rate": ("17%", "of attempts in the last hour", False),
    }
    assert tiles["Queued"].scheduled == "234 scheduled"
    assert tiles["Oldest queued"].since == NOW - timedelta(seconds=200)
    assert tiles["Failure rate"].link == "?status=failed&status=dlq"


@pytest.mark.parametrize(
    ("blocks", "due", "note", "reason"),  # blocks: jobs enqueued and finished in 10 minutes
    [
        ([(100, 200)] * 3, 100, "100 due: clears in about 10 min", ""),
        ([(200, 100)] * 3, 100, "100 due: grows by 10/min and does not clear at this rate", ""),
        ([(100, 100)] * 3, 50, "50 due: changes little within a day at this rate", ""),
        ([(100, 100)] * 3, 3, "3 due (incl. retries)", ""),  # too few for a forecast
        (
            [(100, 20), (100, 200), (100, 400)],
            50,
            "50 due (incl. retries)",
            "No forecast: the rates varied too much in the last half hour",
        ),
        ([(3, 3)] * 3, 5, "5 due (incl. retries)", ""),
    ],
)
def test_overview_forecasts_the_due_jobs_or_gives_the_reason_why_not(
    blocks: list[tuple[int, int]], due: int, note: str, reason: str
) -> None:
    view = make_overview(replace(make_facts(), evidence=make_evidence(mail(*blocks), due)))
    assert next(tile.note for tile in view.tiles if tile.name == "Queued") == note
    assert view.no_forecast_reason == reason


@pytest.mark.parametrize(
    ("range_name", "new_dead", "note"),
    [
        ("1h", CappedCount(7, True), "7 died in the last hour"),
        ("1h", CappedCount(1_000, False), "1,000+ died in the last hour"),
        ("1h", None, "2 died in the last hour"),
        ("1h", CappedCount(0, True), "2 died in the last hour"),  # and were retried since
        ("24h", CappedCount(7, True), "2 died in the last 24 hours"),
    ],
)
def test_dead_tile_has_the_same_number_as_the_notice_about_the_last_hour(
    range_name: str, new_dead: CappedCount | None, note: str
) -> None:
    """Catches two numbers for the same jobs: the history is older than the count of the notice."""
    facts = make_facts({("dlq", "a"): 9}, activity={10: {"a": tally(0, 2, dlq=2)}})
    evidence = replace(facts.evidence, new_dead=new_dead)
    window = PageWindow.from_range(range_name)
    tiles = read_tiles(replace(facts, evidence=evidence, page_window=window))
    assert tiles["Dead"].note == note


@pytest.mark.parametrize(
    ("range_name", "steps", "minutes", "new_dead", "alarming_tiles"),
    [
        ("30d", {10: {"a": tally(0, 30, dlq=1)}}, {}, None, set()),  # failures of past days
        ("30d", {}, {10: {"a": tally(0, 19, dlq=1)}}, None, {"Dead"}),
        ("30d", {}, {10: {"a": tally(0, 19, dlq=1)}}, CappedCount(0, True), set()),
        ("1h", {9: {"a": tally(0, 9)}}, {10: {"a": tally(80, 20)}}, None, {"Failure rate"}),
        ("1h", {9: {"a": tally(0, 9)}}, {10: {"a": tally(81, 19)}}, None, set()),
        ("1h", {9: {"a": tally(9)}}, {10: {"a": tally(80, 20)}}, None, set()),  # the tile shows 0%
    ],
)
def test_tiles_alarm_only_about_the_last_hour(
    range_name: str,
    steps: Steps,
    minutes: Steps,
    new_dead: CappedCount | None,
    alarming_tiles: set[str],
) -> None:
    """Catches a red tile because of one job that died in 30 days.

    `steps` is the activity in the window, `minutes` the activity in the last hour.
    """
    facts = make_facts({("dlq", "a"): 1}, activity=steps)
    evidence = replace(facts.evidence, hour_by_minute=make_history(minutes), new_dead=new_dead)
    window = PageWindow.from_range(range_name)
    tiles = read_tiles(replace(facts, evidence=evidence, page_window=window))
    assert {name for name, tile in tiles.items() if tile.is_alarming} == alarming_tiles


def test_enqueued_jobs_are_unknown_without_creation_times() -> None:
    tiles = read_tiles(make_facts(activity={1: {"a": tally(9)}}, unknown=frozenset({"createdAt"})))
    assert (tiles["Enqueued"].value, tiles["Enqueued"].trend) == ("–", [])


def test_past_window_that_is_still_counted_is_not_over() -> None:
    """Catches a page that is not updated while a new collector is still counting its window."""
    facts = make_facts(activity={10: {"a": tally(60)}})
    past_facts = replace(facts, window=Window(start=START, end=START + 50 * MINUTE, step=MINUTE))
    assert (facts.is_over, past_facts.is_over) == (False, True)
    assert read_tiles(past_facts)["Throughput"].value == "1.2/min"  # the mean of the window
    assert isinstance(past_facts.history_by_step, History)
    assert not replace(
        past_facts, history_by_step=replace(past_facts.history_by_step, is_complete=False)
    ).is_over


def test_queued_tile_without_a_count_of_due_jobs_gives_the_reason() -> None:
    tiles = read_tiles(make_facts({("queued", "a"): 2_000_000}, due=None, scheduled=None))
    assert tiles["Queued"].note == "due jobs not counted: too many"


@pytest.mark.parametrize(
    ("unknown", "note"),
    [
        ({}, "500,000 with an expired lease"),
        ({"expired_leases": "500,000 or more"}, "500,000+ with an expired lease"),
    ],
    ids=["exact", "at least"],
)
def test_running_tile_marks_a_lower_bound_of_expired_leases(
    unknown: dict[str, str], note: str
) -> None:
    facts = make_facts({("leased", "a"): 600_000}, expired_leases=500_000)
    stats = facts.evidence.stats
    counted = replace(stats, health=replace(stats.health, unknown=unknown))
    tiles = read_tiles(replace(facts, evidence=replace(facts.evidence, stats=counted)))
    assert tiles["Running"].note == note


def test_other_tile_counts_unknown_statuses_by_name() -> None:
    counts = {("odd", "a"): 1, ("paused", "a"): 1_200, ("paused", "b"): 34, ("null", "a"): 2}
    other_tile = read_tiles(make_facts(counts))["Other"]
    assert (other_tile.value, other_tile.note) == ("1,237", "1,234 paused, 2 null, 1 odd")
    assert other_tile.link == "?status=paused&status=null&status=odd"
    assert "Other" not in read_tiles(make_facts({("queued", "a"): 1, ("cancelled", "a"): 1}))
    many = read_tiles(make_facts({(f"odd-{number}", "a"): 1 for number in range(11)}))["Other"]
    assert (many.value, many.link) == ("11", "")  # no list can have the jobs of all statuses


def test_tiles_that_need_a_field_that_no_document_has_are_unknown() -> None:
    unknown = frozenset({"createdAt", "nextRunAt", "leaseExpiresAt"})
    tiles = read_tiles(make_facts({("failed", "a"): 1}, due=None, scheduled=None, unknown=unknown))
    assert (tiles["Oldest queued"].value, tiles["Oldest queued"].note) == (
        "–",
        "creation times unknown",
    )
    assert tiles["Queued"].note == "due times unknown"
    assert tiles["Running"].note == "lease times unknown"


def test_tiles_without_counts_show_dashes_instead_of_zeros() -> None:
    tiles = read_tiles(
        make_facts(is_counted=False, due=None, oldest_queued=NOW - MINUTE, source="estimate")
    )
    assert [tiles[name].value for name in ("Queued", "Running", "Dead")] == ["–"] * 3
    assert (tiles["Queued"].note, tiles["Queued"].scheduled) == (
        "– due (incl. retries)",
        "0 scheduled",
    )
    assert (tiles["Oldest queued"].value, tiles["Oldest queued"].note) == ("1 min", "")


@pytest.mark.parametrize("address", ["/dashboard", "/dashboard?text=a"])
def test_types_are_unknown_if_the_jobs_could_not_be_counted(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(StatsReader, "stats", lambda _: make_stats(None, "estimate"))
    text = admin.page(address).text
    assert "Types are not known: counting the jobs takes too long" in text
    assert "No types yet" not in text
    assert "No matching types" not in text


def test_overview_without_a_collector_has_no_trend_and_no_throughput() -> None:
    view = make_overview(make_facts({("queued", "a"): 1}, has_history=False, source="live"))
    tiles = {tile.name: tile for tile in view.tiles}
    assert not view.has_history
    assert all(tile.trend == [] for tile in view.tiles)
    assert tiles["Throughput"].value == tiles["Failure rate"].value == "–"
    assert tiles["Dead"].note == ""
    assert [(row.name, row.finished, row.failure_rate) for row in view.types] == [("a", 0, None)]


def test_oldest_queued_of_an_empty_queue_is_none() -> None:
    tiles = read_tiles(make_facts())
    assert (tiles["Oldest queued"].value, tiles["Oldest queued"].note) == ("none", "no queued jobs")
    assert tiles["Failure rate"].value == "–"
    assert not any(tile.is_alarming for tile in tiles.values())


def test_trend_has_a_gap_for_each_step_without_a_sample() -> None:
    tiles = read_tiles(make_facts(samples={0: sample(queued=7), 2: sample(9_000, queued=3, dlq=1)}))
    assert tiles["Queued"].trend == [7, None, 3] + [None] * 57
    assert tiles["Dead"].trend == [0, None, 1] + [None] * 57
    assert tiles["Oldest queued"].trend[:3] == [0, None, 9_000]


def test_trend_of_the_throughput_leaves_out_the_minute_in_progress() -> None:
    tiles = read_tiles(make_facts(activity={index: {"a": tally(6)} for index in range(60)}))
    assert tiles["Throughput"].trend == [6.0] * 59
    assert tiles["Failure rate"].trend == [0.0] * 59
    # 18 attempts in the newest three minutes, of which the last is half over
    assert tiles["Throughput"].value == "7.2/min"


@pytest.mark.parametrize(
    ("per_minute", "last_minute_s", "expected"),
    [(6, 0, "9/min"), (6, 59, "6/min"), (1_000, 30, "1,200/min"), (6, -200, "–")],
)
def test_throughput_is_the_mean_of_the_counted_minutes(
    per_minute: int, last_minute_s: int, expected: str
) -> None:
    """`last_minute_s` is how much of the last minute is counted, in seconds."""
    as_of = minute(59) + timedelta(seconds=last_minute_s)
    minutes = make_history({index: {"a": tally(per_minute)} for index in (57, 58, 59)}, as_of)
    facts = make_facts()
    counted = replace(
        facts, history_by_step=minutes, evidence=replace(facts.evidence, hour_by_minute=minutes)
    )
    assert read_tiles(counted)["Throughput"].value == expected


def test_strip_shows_the_worst_three_and_folds_the_others() -> None:
    view = make_overview(
        make_facts(
            {("queued", "a"): 900, ("leased", "a"): 1, ("dlq", "a"): 1},
            activity={1: {"b": tally(0, 40, dlq=1)}},
            overdue_by_type={"a": NOW - 90 * MINUTE},
            due=900,
            expired_leases=1,
            source="live",
        )
    )
    assert [notice.level for notice in view.strip.worst] == ["bad"] * 3
    assert [notice.level for notice in view.strip.others] == ["watch", "watch", "unknown"]
    assert view.strip.problem_count == 3
    assert view.strip.others[-1].text.startswith("Not checked: backlog growth")
    strip = make_overview(make_facts(samples={0: sample()})).strip
    sentence = "All clear: no expired leases, stalled types or new dead jobs."
    assert (strip.worst, strip.sentence) == ([], sentence)


def test_type_with_a_name_too_long_for_a_filter_has_no_link_to_a_list() -> None:
    name = "t" * 5_000
    view = make_overview(
        make_facts(
            {("queued", name): 1, ("queued", "short"): 1},
            activity={1: {name: tally(0, 30)}},
            overdue_by_type={name: NOW - 90 * MINUTE},
            due=1,
        )
    )
    # By the first 4 characters of a notice: its link, to the jobs or to the type that it is about.
    assert {notice.text[:4]: notice.link for notice in view.strip.worst} == {
        "Noth": "/dashboard/jobs?condition=due&sort=nextRunAt",
        "tttt": f"/dashboard/types/{name}?range=1h",
        "100%": f"/dashboard/types/{name}?range=1h",
    }
    assert {row.name: row.link for row in view.types} == {name: "", "short": "?type=short"}


def test_folded_types_share_one_row_without_a_link_to_a_list() -> None:
    view = make_overview(
        make_facts(
            {("queued", "a"): 5, ("queued", "b"): 3, ("dlq", OTHER): 2, ("queued", OTHER): 1},
            activity={1: {"a": tally(7), "c": tally(1), OTHER: tally(4, 30)}},
        )
    )
    assert {row.name: (row.link, row.status_counts, row.finished) for row in view.types} == {
        "a": ("?type=a", {"queued": 5}, 7),
        "c": ("?type=c", None, 1),  # its jobs may be among the folded ones
        OTHER: ("", {"queued": 4, "dlq": 2}, 34),
    }
    links = [notice.link for notice in view.strip.worst if notice.level != "unknown"]
    assert links == ["/dashboard/types/%28other%29?range=1h"]
    other_tile = read_tiles(make_facts({("odd", "a"): 1, (OTHER, "a"): 4}))["Other"]
    assert (other_tile.note, other_tile.link) == ("4 (other), 1 odd", "?status=odd")


def make_row(name: str, **fields: Any) -> TypeRow:
    defaults: dict[str, Any] = {
        "status_counts": {},
        "finished": 0,
        "failure_rate": None,
        "wait_p95": None,
        "run_p95": None,
        "forecast": "",
    }
    return TypeRow(name=name, **defaults | fields)


def test_type_row_has_the_present_jobs_and_the_attempts_of_the_window() -> None:
    waits = Counter({bucket(100): 95, bucket(9_000): 5})
    view = make_overview(
        make_facts(
            {("queued", "a"): 2, ("dlq", "a"): 1, ("odd", "b"): 4},
            activity={1: {"a": tally(8, 2, wait=waits)}, 2: {"gone": tally(1)}},
        )
    )
    rows = {row.name: row for row in view.types}
    assert set(rows) == {"a", "b", "gone"}
    assert (rows["a"].status_counts, rows["a"].finished, rows["a"].failure_rate) == (
        {"queued": 2, "dlq": 1},
        10,
        0.2,
    )
    assert 96 <= (rows["a"].wait_p95 or 0) <= 104
    assert rows["a"].run_p95 is None
    assert (rows["b"].status_counts, rows["b"].failure_rate) == ({"odd": 4}, None)
    assert rows["gone"].status_counts == {}


ROWS = [
    make_row("b.slow", status_counts={"queued": 1, "leased": 9}, run_p95=900),
    make_row("a.mail", status_counts={"queued": 5, "failed": 1}, finished=7, wait_p95=3),
    make_row("c.Mail", status_counts={"queued": 5, "dlq": 2}, finished=1, failure_rate=0.5),
]


@pytest.mark.parametrize(
    ("by", "initials"),  # of the sorted names
    [
        ("type", "abc"),
        ("-type", "cba"),
        ("queued", "bac"),
        ("-queued", "acb"),  # rows with equal values are in the order of their names
        ("-running", "bac"),
        ("-retrying", "abc"),
        ("-dead", "cab"),
        ("-done", "acb"),
        ("-failing", "cab"),
        ("-wait", "abc"),
        ("-run", "bac"),
    ],
)
def test_select_types_sorts_by_any_column(by: str, initials: str) -> None:
    assert "".join(row.name[0] for row in select_types(ROWS, by, "")) == initials


def test_select_types_accepts_unknown_values_in_every_column() -> None:
    rows = [*ROWS, make_row("d", status_counts=None)]
    assert all(
        len(select_types(rows, f"{sign}{by}", "")) == 4 for by in SORTS for sign in ("", "-")
    )


def test_select_types_finds_a_type_by_any_part_of_its_name() -> None:
    assert [row.name for row in select_types(ROWS, "type", "MAIL")] == ["a.mail", "c.Mail"]
    assert select_types(ROWS, "type", "nothing") == []
    assert select_types(ROWS, "type", ".*") == []


def test_chart_columns_have_no_values_of_the_future() -> None:
    waits = Counter({bucket(1): 1})
    hour = make_history({0: {"a": tally(3, 1, wait=waits, enqueued=5, dlq=1), "b": tally(1)}})
    counted = replace(hour, as_of=minute(1))
    assert set(make_chart_columns(counted, MINUTE, frozenset({"createdAt"}))["enqueued"]) == {None}
    columns = make_chart_columns(counted, MINUTE)
    assert columns.pop("completedSteps") == 1  # the second minute has only begun
    assert columns.pop("step") == 60
    assert columns.pop("gaps") == []
    assert {name: values[:3] for name, values in columns.items()} == {
        "at": [round(minute(index).timestamp()) for index in range(3)],
        "enqueued": [5, 0, None],
        "succeeded": [4, 0, None],
        "failed": [1, 0, None],
        "dlq": [1, 0, None],
        "waitP50": [1, None, None],
        "waitP95": [1, None, None],
        "waitP99": [1, None, None],
        "runP50": [None, None, None],
        "runP95": [None, None, None],
        "runP99": [None, None, None],
    }
    assert {len(values) for values in columns.values()} == {60}


def test_gaps_are_shown_with_their_reason() -> None:
    gap = Gap(start=minute(2), end=minute(4), reason=GapReason.STREAM_LOST)
    facts = make_facts()
    assert isinstance(facts.history_by_step, History)
    assert make_overview(facts).gaps == []
    facts = replace(facts, history_by_step=replace(facts.history_by_step, gaps=(gap,)))
    assert make_overview(facts).gaps == [(gap, "the changes of the jobs were lost")]
    assert make_chart_columns(facts.history_by_step, MINUTE)["gaps"] == [
        [minute(2).timestamp(), minute(4).timestamp()]
    ]


def make_mute(**fields: Any) -> Mute:
    defaults = {"kind": CheckKind.LEASES, "reason": "known", "by": Person(subject="ada"), "at": NOW}
    return Mute(**{**defaults, "until": NOW + HOUR, **fields})


def test_overview_counts_the_mutes_that_it_does_not_show() -> None:
    view = make_overview(make_facts(), ActiveMutes(tuple(make_mute() for _ in range(23))))
    assert (len(view.mutes), view.omitted_mutes) == (20, 3)
    assert make_overview(make_facts(), ActiveMutes((make_mute(),))).omitted_mutes == 0


def test_muted_notice_leaves_the_strip_and_is_shown_with_its_reason() -> None:
    """Catches a page that hides a muted problem, or that shows "All clear" because of the mute."""
    view = make_overview(
        make_facts(expired_leases=3, samples={0: sample()}), ActiveMutes((make_mute(),))
    )
    assert (view.strip.problem_count, view.strip.worst) == (0, [])
    assert (view.strip.sentence, view.strip.level) == (ONLY_MUTED_TEXT, "quiet")
    (line,) = view.mutes
    assert line.text == "3 jobs stuck: their leases expired and no worker has picked them up"
    assert line.link == "/dashboard/jobs?condition=expired&sort=leaseExpiresAt"
    assert line.mode_text == "muted"


def test_acknowledged_notice_stays_in_the_strip_and_a_later_one_is_not_acknowledged() -> None:
    mutes = ActiveMutes((make_mute(mode=MuteMode.ACKNOWLEDGE),))
    facts = make_facts(expired_leases=3)
    view = make_overview(facts, mutes)
    assert view.strip.problem_count == 1
    assert [line.mode_text for line in view.mutes] == ["acknowledged"]
    earlier_mutes = ActiveMutes((make_mute(mode=MuteMode.ACKNOWLEDGE, at=NOW - HOUR / 2),))
    later_facts = replace(facts, evidence=replace(facts.evidence, first_expiry=NOW - HOUR / 4))
    assert [line.notice for line in make_overview(later_facts, earlier_mutes).mutes] == [None]


def test_notice_stays_in_the_strip_if_only_some_of_its_types_are_muted() -> None:
    activity = {59: {"mail": tally(failed=40), "pdf": tally(failed=40)}}
    facts = make_facts(activity=activity, samples={0: sample()})
    mute = make_mute(kind=CheckKind.FAILURES, types="mail*")
    view = make_overview(facts, ActiveMutes((mute,)))
    assert len(view.strip.worst) == 1
    assert [line.mode_text for line in view.mutes] == ["mail* muted"]
    mutes_of_both_types = ActiveMutes((mute, make_mute(kind=CheckKind.FAILURES, types="pdf")))
    assert make_overview(facts, mutes_of_both_types).strip.sentence == ONLY_MUTED_TEXT


def test_mute_without_a_present_notice_shows_its_kind_and_types() -> None:
    mutes = ActiveMutes((make_mute(kind=CheckKind.STALLED, types="mail*"), make_mute(kind=None)))
    view = make_overview(make_facts(), mutes)
    assert [line.text for line in view.mutes] == ["stalled types of mail*", "all notices"]
    assert view.strip.sentence == ALL_CLEAR_TEXT
