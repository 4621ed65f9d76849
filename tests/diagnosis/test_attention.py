"""The checks of a queue: catches a missing alarm, an alarm without a cause or because of unknown
values, and an all-clear although something was not checked."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.api.queries import AdminFilters
from jobmon.diagnosis.attention import ENDS_NOT_SHOWN, failing_types, run_checks, stalled_types
from jobmon.diagnosis.evidence import NO_END_TIMES, Evidence, Missing, died_since
from jobmon.diagnosis.notices import (
    KINDS_BY_TYPE,
    CheckKind,
    Notice,
    TypeCondition,
    collect_notices,
    group_by_reason,
    is_all_clear,
)
from jobmon.domain import JobCondition
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, QueueSample, Tally, floor
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.series import Activity, History
from jobmon.settings.rules import Rules, Thresholds
from jobmon.store.filter import JobFilter
from jobmon.store.labels import OTHER
from jobmon.store.paused_types import TypePause
from jobmon.store.stats import QueueHealth, QueueStats

from ..conftest import NOW as FULL_HOUR

NOW = FULL_HOUR + timedelta(seconds=30)
START = FULL_HOUR - HOUR + MINUTE  # the hour's first step; NOW is in the last one
MISSING = Missing(reason="indexes are missing", remedy="Create them.")
Step = dict[str, tuple[int, int, int]]  # by type: succeeded attempts, failed attempts, dead jobs


def make_activity(succeeded: int = 0, failed: int = 0, died: int = 0) -> Activity:
    outcomes = +Counter({"succeeded": succeeded, "failed": failed})
    return Activity.from_tallies([Tally(outcomes=outcomes, dlq=died)])


def make_history_by_type(steps: dict[int, Step], first_minute: int) -> History[str]:
    totals: dict[str, list[int]] = {}
    for minute, step in steps.items():
        for job_type, counts in step.items() if minute >= first_minute else ():
            pairs = zip(totals.get(job_type, [0, 0, 0]), counts, strict=True)
            totals[job_type] = [sum(pair) for pair in pairs]
    return History(
        NOW, "rollup", {job_type: make_activity(*counts) for job_type, counts in totals.items()}
    )


def make_history_by_minute(steps: dict[int, Step]) -> History[datetime]:
    return History(
        NOW,
        "rollup",
        {
            START + minute * MINUTE: make_activity(
                *(sum(counts) for counts in zip(*steps.get(minute, {}).values(), strict=True))
            )
            for minute in range(60)
        },
    )


def make_evidence(
    counts: dict[tuple[str, str], int] | None = None,
    steps: dict[int, Step] | None = None,
    samples: dict[datetime, int] | None = None,
    source: str = "rollup",
    is_counted: bool = True,
    **health: Any,
) -> Evidence:
    """The evidence of a queue, by default without unknown values.

    `counts`: the number of jobs by (status, type); unknown unless `is_counted`. `steps`: what ended
    in each minute of the last hour (0 to 59). `samples`: the number of queued jobs by time, by
    default so many that the backlog does not grow.
    """
    defaults: dict[str, Any] = {
        "estimated_total": 0,
        "expired_leases": 0,
        "due": 0,
        "scheduled": 0,
        "oldest_queued": None,
        "oldest_queued_by_type": {},
    }
    steps, counts = steps or {}, counts or {}
    return Evidence(
        stats=QueueStats(
            as_of=NOW,
            source=source,
            counts=counts if is_counted else None,
            total=sum(counts.values()),
            health=QueueHealth(**defaults | health),
        ),
        hour_start=START,
        blocks_start=START,
        hour_by_type=make_history_by_type(steps, 0),
        recent={10 * MINUTE: make_history_by_type(steps, 50)},
        hour_by_minute=make_history_by_minute(steps),
        day_by_step=History(NOW, "rollup", {}),
        samples={
            at: QueueSample(status_counts={"queued": count}, oldest_queued_ms=0)
            for at, count in (samples or {NOW - HOUR: 10**9}).items()
        },
    )


def list_notices(queue: Evidence) -> list[Notice]:
    return collect_notices(run_checks(queue))


def texts(queue: Evidence) -> list[str]:
    return [notice.text for notice in list_notices(queue)]


def list_unchecked(queue: Evidence) -> dict[str, str]:
    return {check.name: check.not_checked for check in run_checks(queue) if check.not_checked}


def make_steps(count: int, until: int = 60, job_type: str = "a") -> dict[int, Step]:
    """In each minute before `until`, `count` jobs of the type succeed."""
    return {minute: {job_type: (count, 0, 0)} for minute in range(until)}


def overdue_since(**waited: timedelta) -> dict[str, datetime]:
    """By type, when its oldest due job became due: this long ago."""
    return {job_type: NOW - length for job_type, length in waited.items()}


def test_a_check_that_was_not_made_prevents_an_all_clear() -> None:
    assert is_all_clear(run_checks(make_evidence()))
    missing_evidence: dict[str, dict[str, Any]] = {
        "whether jobs finish": {"hour_by_minute": MISSING},
        "stalled types": {"recent": {10 * MINUTE: MISSING}},
        "new dead jobs": {"hour_by_type": MISSING},
        "backlog growth": {"samples": {}},
    }
    for name, changes in missing_evidence.items():
        checks = run_checks(replace(make_evidence(), **changes))
        assert not collect_notices(checks), name
        assert not is_all_clear(checks), name
        assert name in {check.name for check in checks if check.not_checked}


def test_a_check_that_was_not_made_has_a_reason_and_a_remedy() -> None:
    """Catches an all-clear for 86 overdue and 60 dead jobs while indexes are missing."""
    queue = replace(
        make_evidence({("queued", "a"): 86, ("dlq", "a"): 60}, due=86),
        hour_by_type=MISSING,
        recent={10 * MINUTE: MISSING},
        hour_by_minute=MISSING,
        day_by_step=MISSING,
    )
    assert list_notices(queue) == []
    assert list(group_by_reason(run_checks(queue))) == [
        (
            "indexes are missing",
            "Create them.",
            ["whether jobs finish", "stalled types", "new dead jobs", "failure rates"],
        )
    ]


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (
            {"due": None, "unknown": {"due": "nextRunAt is a number"}},
            {
                "whether jobs finish": "nextRunAt is a number",
                "stalled types": "nextRunAt is a number",
            },
        ),
        (
            {"expired_leases": None, "unknown": {"expired_leases": "no such field"}},
            {"expired leases": "no such field"},
        ),
        (
            {"unknown": {"overdue_by_type": "only the first are read"}},
            {"stalled types": "only the first are read"},
        ),
    ],
)
def test_unknown_values_give_neither_an_alarm_nor_an_all_clear(
    health: dict[str, Any], expected: dict[str, str]
) -> None:
    queue = make_evidence({("queued", "a"): 9}, make_steps(50, until=40), **health)
    assert list_notices(queue) == []
    assert list_unchecked(queue) == expected


def test_without_finish_times_four_checks_are_not_made() -> None:
    queue = make_evidence(due=9, overdue_by_type=overdue_since(a=HOUR))
    queue = replace(
        queue,
        hour_by_type=NO_END_TIMES,
        recent={},
        hour_by_minute=NO_END_TIMES,
        day_by_step=NO_END_TIMES,
    )
    assert list_notices(queue) == []
    assert list_unchecked(queue) == dict.fromkeys(
        ("whether jobs finish", "stalled types", "new dead jobs", "failure rates"),
        "succeeded or dead jobs do not record when they finished",
    )


def test_silent_hour_without_earlier_history_is_unknown() -> None:
    """Catches an all-clear for a queue whose last finished job is in a history that is missing."""
    queue = replace(make_evidence(**STOPPED), day_by_step=MISSING)
    assert list_unchecked(queue) == {"whether jobs finish": MISSING.reason}


def add_gap(queue: Evidence, start: datetime, end: datetime | None = None) -> Evidence:
    """The queue with a gap in each of its histories, during which runs may be missing."""
    gap = Gap(start=start, end=end, reason=GapReason.STREAM_LOST)
    histories = {
        name: getattr(queue, name) for name in ("hour_by_type", "hour_by_minute", "day_by_step")
    }
    changes = {name: replace(history, gaps=(gap,)) for name, history in histories.items()}
    recent = {length: replace(history, gaps=(gap,)) for length, history in queue.recent.items()}
    return replace(queue, recent=recent, **changes)


def test_if_runs_may_be_missing_only_known_runs_raise_an_alarm() -> None:
    """Catches "nothing has finished" although the collector may have missed runs."""
    steps: dict[int, Step] = {minute: {"a": (10, 10, 0)} for minute in range(40)}
    queue = add_gap(
        make_evidence({("queued", "a"): 9}, steps, **STOPPED | A_OVERDUE), NOW - 5 * MINUTE
    )
    assert texts(queue) == ["50% of a attempts failed in the last hour"]
    checks = ("whether jobs finish", "stalled types", "new dead jobs", "failure rates")
    assert list_unchecked(queue) == dict.fromkeys(checks, "runs may be missing from the history")
    with_deaths = add_gap(make_evidence(steps={1: {"a": (0, 0, 5)}}), START)
    with_deaths = replace(with_deaths, new_dead=(5, True))
    assert texts(with_deaths) == ["5 jobs died in the last hour, all a"]
    assert "new dead jobs" in list_unchecked(with_deaths)


def test_a_gap_before_the_last_finished_job_changes_no_notice() -> None:
    queue = make_evidence(steps=make_steps(42, until=55), **STOPPED)
    with_gap = add_gap(queue, START, START + 10 * MINUTE)
    assert texts(with_gap) == texts(queue) != []


def test_types_are_not_stalled_while_it_is_unknown_what_runs() -> None:
    queue = make_evidence({("leased", "a"): 1}, is_counted=False, **A_OVERDUE)
    assert not stalled_types(queue)
    assert list_unchecked(queue)["stalled types"] == "the jobs could not be counted"


def test_jobs_that_are_scheduled_for_later_are_no_growing_backlog() -> None:
    queue = make_evidence({("queued", "a"): 106}, samples={NOW - HOUR: 23}, due=25, scheduled=81)
    assert texts(queue) == []


# 86 jobs are due, the oldest for two minutes: there is an alarm if no job has finished since then.
STOPPED = {"due": 86, "overdue_by_type": overdue_since(a=2 * MINUTE)}


def test_the_first_notice_is_that_no_job_finishes() -> None:
    """Catches a dead worker pool that is noticed only when each of its types has stalled."""
    queue = make_evidence(steps=make_steps(42, until=58), expired_leases=3, **STOPPED)
    first = list_notices(queue)[0]
    assert (first.level, first.text) == (
        "bad",
        "Nothing has finished for 1 min while 86 jobs are due (usually 42/min)",
    )
    assert first.jobs == JobFilter(condition=JobCondition.DUE)
    # The last minute in which a job finished ended 50 s ago.
    as_of = START + 58 * MINUTE + timedelta(seconds=50)
    assert isinstance(queue.hour_by_minute, History)
    queue = replace(queue, hour_by_minute=History(as_of, "rollup", queue.hour_by_minute.activity))
    assert texts(queue)[0].startswith("Nothing has finished for 1 min")


@pytest.mark.parametrize(
    ("steps", "health", "expected"),
    [
        (make_steps(42), STOPPED, None),
        (make_steps(42, until=59), STOPPED, None),  # the silence of half a minute is too short
        (make_steps(42, until=50), STOPPED | {"overdue_by_type": {}}, None),  # no job is overdue
        (
            make_steps(42, until=50),
            STOPPED | {"overdue_by_type": overdue_since(a=MINUTE / 2)},
            None,
        ),
        (make_steps(1, until=58), STOPPED, None),  # at one job a minute this silence can be chance
        (
            make_steps(1, until=56),
            STOPPED,
            "Nothing has finished for 3 min while 86 jobs are due (usually 1/min)",
        ),
        (
            {3: {"a": (1, 0, 0)}, 40: {"a": (0, 1, 0)}},
            STOPPED | {"due": 1},
            "Nothing has finished for 18 min while 1 job is due (usually 0.1/min)",
        ),
        ({}, STOPPED, None),  # no job finished in the last day
    ],
)
def test_a_silence_is_compared_with_the_usual_rate(
    steps: dict[int, Step], health: dict[str, Any], expected: str | None
) -> None:
    assert texts(make_evidence(steps=steps, **health)) == ([expected] if expected else [])


def test_the_usual_rate_is_known_hours_after_the_last_finished_job() -> None:
    start = NOW - 5 * HOUR
    day = {start + number * 10 * MINUTE: make_activity(20) for number in range(6)}
    queue = replace(make_evidence(**STOPPED), day_by_step=History(NOW, "rollup", day))
    assert texts(queue) == ["Nothing has finished for 4 h while 86 jobs are due (usually 2/min)"]
    # A job may have finished in the step of ten minutes that is not counted yet.
    assert isinstance(queue.day_by_step, History)
    day_with_gap = replace(queue.day_by_step, uncounted=frozenset({NOW - 2 * HOUR}))
    text = texts(replace(queue, day_by_step=day_with_gap))[0]
    assert text.startswith("Nothing has finished for 1 h 50 min")


def test_a_minute_that_begins_after_the_newest_count_does_not_hide_a_silence() -> None:
    """Catches a notice that disappears at each full minute until the collector counts again."""
    queue = make_evidence(steps=make_steps(42, until=50), **STOPPED)
    assert isinstance(queue.hour_by_minute, History)
    with_next_minute = replace(queue.hour_by_minute, uncounted=frozenset({NOW}))
    assert texts(replace(queue, hour_by_minute=with_next_minute)) == texts(queue) != []


A_OVERDUE = {"overdue_by_type": overdue_since(a=11 * MINUTE)}


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        (
            make_evidence({("queued", "a"): 1}, **A_OVERDUE),
            "a is stalled: oldest due job waiting 11 min, none finished in 10 min",
        ),
        (
            make_evidence(overdue_by_type=overdue_since(a=9 * MINUTE)),
            None,
        ),  # due for under ten minutes
        (make_evidence(steps={55: {"a": (1, 0, 0)}}, **A_OVERDUE), None),  # a job succeeded
        (make_evidence(steps={55: {"a": (0, 1, 0)}}, **A_OVERDUE), None),  # an attempt failed
        (make_evidence({("leased", "a"): 1}, **A_OVERDUE), None),  # a job runs
        # The job that succeeded or runs may be of type a: it was counted as `(other)`.
        (make_evidence(steps={55: {OTHER: (1, 0, 0)}}, **A_OVERDUE), None),
        (make_evidence({("leased", OTHER): 1}, **A_OVERDUE), None),
        (
            make_evidence(overdue_by_type=overdue_since(a=15 * MINUTE, b=65 * MINUTE, c=MINUTE)),
            "2 types are stalled, the longest for 1 h 5 min",
        ),
        (
            make_evidence(
                overdue_by_type=overdue_since(**{f"t{n}": HOUR + n * MINUTE for n in range(1_230)})
            ),
            "1,230 types are stalled, the longest for 21 h 29 min",
        ),
    ],
)
def test_stalled_types_give_one_notice(queue: Evidence, expected: str | None) -> None:
    assert texts(queue) == ([expected] if expected else [])


@pytest.mark.parametrize(
    "runs", [{"steps": {55: {OTHER: (1, 0, 0)}}}, {"counts": {("leased", OTHER): 1}}]
)
def test_a_type_whose_runs_may_be_counted_as_other_prevents_an_all_clear(
    runs: dict[str, Any],
) -> None:
    """Catches a false calm with more active types than have counts of their own."""
    queue = make_evidence(**runs, overdue_by_type=overdue_since(a=11 * MINUTE))
    assert list_unchecked(queue)["stalled types"].startswith("runs of some types")
    in_time = make_evidence(**runs, overdue_by_type=overdue_since(a=9 * MINUTE))
    assert "stalled types" not in list_unchecked(in_time)


def test_a_notice_of_stalled_types_links_to_the_types_that_it_counts() -> None:
    (notice,) = list_notices(make_evidence(**A_OVERDUE))
    assert notice.jobs == JobFilter(types=("a",), condition=JobCondition.DUE)
    queue = make_evidence(overdue_by_type=overdue_since(a=15 * MINUTE, b=65 * MINUTE, c=MINUTE))
    (notice,) = list_notices(queue)
    assert (notice.types, notice.jobs) == (TypeCondition.STALLED, None)
    assert list(stalled_types(queue)) == ["b", "a"]


@pytest.mark.parametrize(
    ("steps", "new_dead", "expected"),
    [
        ({1: {"a": (0, 0, 1)}}, (1, True), "1 job died in the last hour: a"),
        ({1: {"a": (0, 0, 5)}}, (4, True), "4 jobs died in the last hour, all a"),
        ({1: {"a": (0, 0, 2), "b": (0, 0, 1)}}, (1, True), "1 job died in the last hour"),
        (
            {1: {"a": (0, 0, 1)}, 2: {"b": (0, 0, 339)}},
            (340, True),
            "340 jobs died in the last hour, mostly b",
        ),
        (
            {1: {"a": (0, 0, 4), "b": (0, 0, 3), "c": (0, 0, 3)}},
            (10, True),
            "10 jobs died in the last hour, most often a",
        ),
        (
            {1: {"a": (0, 0, 20_000)}},
            (10_000, False),
            "10,000+ jobs died in the last hour, all a",
        ),
        ({1: {"a": (0, 0, 5)}}, (0, True), None),  # all jobs that died were retried
    ],
)
def test_new_dead_jobs_have_the_count_of_their_list(
    steps: dict[int, Step], new_dead: tuple[int, bool], expected: str | None
) -> None:
    """`new_dead`: the number of jobs in the list, and whether it is exact."""
    queue = replace(make_evidence(steps=steps), new_dead=new_dead)
    assert texts(queue) == ([expected] if expected else [])
    assert all(notice.jobs == died_since(START) for notice in list_notices(queue))


ONE_DEATH: Step = {"a": (0, 1, 1)}
DAY_START = floor(NOW - DAY, 10 * MINUTE)


@pytest.mark.parametrize(
    ("minutes", "day", "since"),
    [
        ([40, 50], [], START + 40 * MINUTE),
        # No job died in the half hour after the step that begins 40 minutes earlier.
        ([2, 50], [floor(START, 10 * MINUTE) - 40 * MINUTE], START + 2 * MINUTE),
        ([2, 50], [floor(START, 10 * MINUTE)], START + 2 * MINUTE),
        (
            [2],
            [floor(START, 10 * MINUTE) - minutes * MINUTE for minutes in (0, 10, 20, 40)],
            floor(START, 10 * MINUTE) - 20 * MINUTE,
        ),
        # Jobs died all day: the first death may be earlier.
        ([2], [DAY_START + index * 10 * MINUTE for index in range(144)], None),
    ],
)
def test_new_dead_jobs_have_the_time_of_the_first_consecutive_death(
    minutes: list[int], day: list[datetime], since: datetime | None
) -> None:
    """`minutes` (0 to 59) and `day` (steps of ten minutes) are the times in which a job died."""
    steps = {DAY_START + index * 10 * MINUTE: make_activity() for index in range(145)}
    steps |= dict.fromkeys(day, make_activity(died=1))
    queue = make_evidence(steps=dict.fromkeys(minutes, ONE_DEATH))
    (notice,) = list_notices(replace(queue, day_by_step=History(NOW, "rollup", steps)))
    assert notice.since == since


def test_notices_have_the_time_at_which_the_problem_began() -> None:
    queue = make_evidence(
        {("queued", "a"): 900},
        make_steps(50, until=40),
        samples={NOW - HOUR: 23, NOW - 30 * MINUTE: 20, NOW - 29 * MINUTE: 400},
        due=900,
        expired_leases=2,
        overdue_by_type=overdue_since(a=HOUR),
    )
    queue = replace(queue, first_expiry=NOW - 9 * MINUTE)
    assert {notice.text.split()[0]: notice.since for notice in list_notices(queue)} == {
        "Nothing": START + 40 * MINUTE,  # the first minute in which no job finished
        "2": NOW - 9 * MINUTE,
        "a": NOW - HOUR,  # when its oldest job came due
        "Backlog": NOW - 30 * MINUTE,  # the newest sample without growth
    }


@pytest.mark.parametrize(
    ("queued", "samples", "expected"),
    [
        (106, {NOW - HOUR: 23, NOW - MINUTE: 900}, "106 queued, up from 23 an hour ago"),
        (106, {NOW - 3 * MINUTE: 23}, "106 queued, up from 23 (3 min ago)"),
        (106, {NOW - 30 * MINUTE: 23}, "106 queued, up from 23 (30 min ago)"),
        (20, {NOW - HOUR: 0}, None),
        (1_200, {NOW - HOUR: 1_000}, None),
    ],
)
def test_a_growing_backlog_is_compared_with_the_oldest_sample(
    queued: int, samples: dict[datetime, int], expected: str | None
) -> None:
    queue = make_evidence({("queued", "a"): queued}, samples=samples, due=queued)
    assert texts(queue) == ([f"Backlog growing: {expected}"] if expected else [])


def test_without_samples_the_start_of_a_growing_backlog_is_unknown() -> None:
    """Catches a start before an outage of the collector, during which the backlog grew."""
    for last, since in ((20 * MINUTE, None), (MINUTE, NOW - MINUTE)):
        samples = {NOW - HOUR: 23, NOW - last: 20}
        (notice,) = list_notices(make_evidence({("queued", "a"): 900}, samples=samples, due=900))
        assert notice.since == since


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            {("pending", "a"): 1_646, ("queued", "a"): 5},
            ["1,646 jobs have the new status pending: they do not count as queued or running"],
        ),
        (
            {("busy", "a"): 20, ("pending", "a"): 30},
            ["50 jobs have new statuses such as pending: they do not count as queued or running"],
        ),
        ({("pending", "a"): 19, ("archived", "a"): 90}, []),  # few jobs; a status of an hour ago
    ],
)
def test_jobs_with_a_status_that_is_new_are_a_notice(
    counts: dict[tuple[str, str], int], expected: list[str]
) -> None:
    """Catches a queue that looks empty after a deployment has renamed its statuses."""
    queue = make_evidence(counts)
    (sample,) = queue.samples.values()
    earlier = replace(sample, status_counts={"queued": 10**9, "archived": 1})
    assert texts(replace(queue, samples={NOW - HOUR: earlier})) == expected


def test_wrong_clocks_of_workers_are_no_alarm() -> None:
    """Catches "Nothing has finished" while jobs succeed whose end is recorded in the future."""
    queue = make_evidence({("succeeded", "a"): 700}, make_steps(50, until=40), **STOPPED)
    (sample,) = queue.samples.values()
    for succeeded, unchecked in ((700, {}), (699, {"whether jobs finish": ENDS_NOT_SHOWN})):
        counts = sample.status_counts | {"succeeded": succeeded}
        at_stop = {START + 40 * MINUTE: replace(sample, status_counts=counts)}
        stopped = replace(queue, samples=queue.samples | at_stop)
        assert list_unchecked(stopped) == unchecked
        assert any("Nothing has finished" in text for text in texts(stopped)) is not bool(unchecked)


def test_without_an_old_sample_backlog_growth_is_not_checked() -> None:
    assert list_unchecked(make_evidence(samples={NOW - MINUTE: 0})) == {
        "backlog growth": "the first sample is too recent to compare with"
    }


def test_failing_types_give_one_notice() -> None:
    queue = make_evidence(steps={1: {"a": (10, 10, 0), "b": (85, 15, 0), "few": (0, 19, 0)}})
    (notice,) = list_notices(queue)
    assert notice.text == "50% of a attempts failed in the last hour"
    assert (notice.level, notice.types, notice.type_name) == ("watch", "failing", "a")
    queue = make_evidence(steps={1: {"a": (10, 10, 0), "b": (0, 20, 0)}})
    assert texts(queue) == [
        "2 types failed in 20% or more of their attempts in the last hour, most often b (100%)"
    ]
    assert list(failing_types(queue)) == ["b", "a"]


@pytest.mark.parametrize(
    ("queue", "level", "text"),
    [
        (
            make_evidence(expired_leases=1),
            "bad",
            "1 job stuck: its lease expired and no worker has picked it up",
        ),
        (
            make_evidence(expired_leases=1_200),
            "bad",
            "1,200 jobs stuck: their leases expired and no worker has picked them up",
        ),
        (
            replace(make_evidence(expired_leases=1), assumed_lease=10 * MINUTE),
            "bad",
            "1 job stuck: its lease expired and no worker has picked it up "
            "(if a lease lasts 10 min)",
        ),
        (
            make_evidence(source="live"),
            "watch",
            "No collector is running: jobs are counted at each request. "
            "Start `jobmon collector`, or set JOBMON_COLLECTOR=true for the web service.",
        ),
        (
            replace(
                make_evidence(source="live"), first_build={"counted": 1_200, "estimated": 5_000_000}
            ),
            "watch",
            "A first count is in progress: 1,200 of about 5,000,000 jobs",
        ),
        (
            replace(make_evidence(source="live"), leader="host-1"),
            "watch",
            "Collector host-1 is running, but its statistics are not up to date. "
            "The collector's log has the reason.",
        ),
        (
            make_evidence(is_counted=False),
            "bad",
            "Counting the jobs takes too long: only their estimated number is known",
        ),
    ],
)
def test_notices_about_leases_counts_and_the_collector(
    queue: Evidence, level: str, text: str
) -> None:
    (notice,) = list_notices(queue)
    assert (notice.level, notice.text) == (level, text)


def test_the_worst_notices_come_first() -> None:
    queue = make_evidence(
        {("queued", "a"): 99},
        due=99,
        samples={NOW - HOUR: 0},
        source="live",
        expired_leases=2,
        **A_OVERDUE,
    )
    assert [notice.level for notice in list_notices(queue)] == ["bad", "bad", "watch", "watch"]
    assert not is_all_clear(run_checks(queue))


def test_notices_by_type_name_the_types_that_they_count() -> None:
    """Catches a notification that lacks a second type, or that names a type without a problem."""
    steps: dict[int, Step] = {59: {"a": (0, 40, 2), "b": (40, 0, 0), "c": (0, 40, 0)}}
    by_kind = {
        check.kind: (notice.count, notice.about_types)
        for check in run_checks(make_evidence({("leased", "a"): 1}, steps, expired_leases=3))
        for notice in check.notices
    }
    assert by_kind == {
        CheckKind.LEASES: (3, frozenset()),
        CheckKind.DEAD: (2, frozenset("a")),
        CheckKind.FAILURES: (2, frozenset("ac")),
    }
    assert {kind for kind, (_, counted) in by_kind.items() if counted} <= KINDS_BY_TYPE


def make_rules(**thresholds: Any) -> Rules:
    """The default rules, with these thresholds for the types `report.*`."""
    return Rules(by_type=(("report.*", Thresholds(**thresholds)),))


def test_failure_rates_are_compared_with_the_threshold_of_their_type() -> None:
    steps = {1: {"report.a": (12, 8, 0), "report.b": (5, 5, 0), "mail": (80, 19, 0)}}
    queue = make_evidence(steps=steps)
    assert texts(queue) == ["40% of report.a attempts failed in the last hour"]
    by_type = make_rules(failure_rate=0.5, failure_rate_attempts=10)
    assert failing_types(replace(queue, rules=by_type)) == {"report.b": 0.5}
    with_default = replace(by_type, thresholds=Thresholds(failure_rate=0.19))
    assert texts(replace(queue, rules=with_default)) == [
        "2 types failed in 19% or more of their attempts in the last hour, "
        "most often report.b (50%)"
    ]


def test_dead_jobs_of_a_type_are_counted_if_they_reach_its_threshold() -> None:
    """Catches a notice whose link lists jobs of a type below its threshold."""
    queue = replace(
        make_evidence(steps={1: {"report.a": (0, 9, 9), "mail": (0, 1, 1)}}),
        rules=make_rules(dead_per_hour=10),
    )
    mail = replace(died_since(START), types=("mail",))
    assert queue.find_dead_filter() == mail
    (notice,) = list_notices(replace(queue, new_dead=(1, True)))
    assert (notice.text, notice.jobs) == ("1 job died in the last hour: mail", mail)
    queue = replace(queue, rules=make_rules(dead_per_hour=9))
    assert queue.find_dead_filter() == died_since(START)
    assert texts(replace(queue, new_dead=(10, True))) == [
        "10 jobs died in the last hour, mostly report.a"
    ]
    queue = replace(queue, rules=Rules(thresholds=Thresholds(dead_per_hour=10)))
    assert (queue.find_dead_filter(), list_notices(queue)) == (None, [])


def test_folded_types_over_the_threshold_have_no_link() -> None:
    queue = make_evidence(steps={1: {OTHER: (0, 9, 9), "report.a": (0, 1, 1)}})
    queue = replace(queue, rules=make_rules(dead_per_hour=10))
    (notice,) = list_notices(queue)
    assert (notice.count, notice.jobs, queue.find_dead_filter()) == (9, None, None)


@pytest.mark.parametrize(("count", "is_linked"), [(20, True), (21, False)])
def test_a_notice_of_more_types_than_a_list_takes_has_no_link(
    count: int, *, is_linked: bool
) -> None:
    """Catches a link to a page that refuses the filter."""
    names = [f"report.{number:02}" for number in range(count)]
    queue = make_evidence(
        steps={1: dict.fromkeys(names, (9, 0, 2)) | {"mail": (9, 0, 1)}},
        overdue_by_type=overdue_since(**dict.fromkeys(names, DAY)),
    )
    rules = Rules(thresholds=Thresholds(dead_per_hour=2, oldest_due=HOUR))
    checks = run_checks(replace(queue, rules=rules, new_dead=(2 * count, True)))
    links = {check.kind: notice.jobs for check in checks for notice in check.notices}
    dead = replace(died_since(START), types=tuple(names))
    due = JobFilter(types=tuple(names), condition=JobCondition.DUE)
    expected = {CheckKind.DEAD: dead, CheckKind.OLDEST_DUE: due}
    assert {kind: links[kind] for kind in expected} == (
        expected if is_linked else dict.fromkeys(expected)
    )
    assert bool(AdminFilters().validate({"type": names})) != is_linked


def test_a_type_is_stalled_after_the_time_of_its_rule() -> None:
    overdue = overdue_since(**{"report.a": 61 * MINUTE, "report.b": 59 * MINUTE, "mail": HOUR})
    queue = make_evidence(overdue_by_type=overdue)
    last_hour = History(NOW, "rollup", {"mail": make_activity(1)})
    recent = {**queue.recent, HOUR: last_hour}
    queue = replace(queue, rules=make_rules(stalled_after=HOUR), recent=recent)
    # A job of mail ended in the last hour, but none in the last ten minutes.
    assert list(stalled_types(queue)) == ["report.a", "mail"]
    last_hour = replace(last_hour, activity={"report.a": make_activity(1)})
    with_finished_report = replace(queue, recent={**queue.recent, HOUR: last_hour})
    assert texts(with_finished_report) == [
        "mail is stalled: oldest due job waiting 1 h, none finished in 10 min"
    ]
    without_hour = replace(queue, recent={**queue.recent, HOUR: MISSING})
    assert list(stalled_types(without_hour)) == ["mail"]
    assert list_unchecked(without_hour)["stalled types"] == MISSING.reason


def test_a_silence_is_a_notice_after_the_time_of_the_rules() -> None:
    """Catches a long silence without a notice, because usually fewer than three jobs finish."""
    queue = make_evidence(
        steps={minute: {"a": (1, 0, 0)} for minute in (0, 25)},
        due=1,
        overdue_by_type=overdue_since(a=9 * MINUTE),
    )
    assert [text.split()[0] for text in texts(queue)] == ["Nothing"]
    long_limit = Rules(thresholds=Thresholds(stalled_after=40 * MINUTE))
    queue = replace(queue, rules=long_limit, recent={40 * MINUTE: queue.recent[10 * MINUTE]})
    assert texts(queue) == []


def test_a_job_that_is_due_for_too_long_is_a_notice_although_others_finish() -> None:
    overdue = overdue_since(**{"report.a": 31 * MINUTE, "report.b": 30 * MINUTE, "mail": DAY})
    queue = make_evidence(steps=make_steps(9, job_type="mail"), overdue_by_type=overdue)
    queue = replace(queue, rules=make_rules(oldest_due=30 * MINUTE, stalled_after=HOUR))
    queue = replace(queue, recent={**queue.recent, HOUR: queue.recent[10 * MINUTE]})
    (notice,) = list_notices(queue)
    assert notice.text == "The oldest due job of report.a has been due for 31 min"
    assert (notice.level, notice.since) == ("watch", NOW - 31 * MINUTE)
    assert notice.jobs == JobFilter(types=("report.a",), condition=JobCondition.DUE)
    queue = replace(queue, rules=make_rules(oldest_due=29 * MINUTE, stalled_after=HOUR))
    assert texts(queue) == [
        "2 types have jobs that have been due for too long, the longest for 31 min: report.a"
    ]


def test_a_backlog_is_a_notice_only_beyond_the_thresholds_of_the_rules() -> None:
    queue = make_evidence({("queued", "a"): 1_100}, samples={NOW - HOUR: 500}, due=1_100)
    for more_jobs, factor, has_notice in ((599, 2.1, True), (600, 2.1, False), (20, 2.2, False)):
        limits = Rules(backlog_growth_jobs=more_jobs, backlog_growth=factor)
        assert bool(list_notices(replace(queue, rules=limits))) == has_notice


def test_paused_types_are_a_notice_and_are_not_stalled() -> None:
    """Catches an alarm about a type that a person has paused, and an all-clear during the pause."""
    health: dict[str, Any] = {
        "due": 9,
        "overdue_by_type": {"mail": NOW - HOUR, "sms": NOW - HOUR},
    }
    queue = make_evidence({("queued", "mail"): 8, ("queued", "sms"): 1}, **health)
    assert list(stalled_types(queue)) == ["mail", "sms"]
    pause = TypePause(since=NOW - 2 * HOUR, by="ada", reason="provider\nis down.")
    queue = replace(queue, pauses={"mail": pause})
    assert list(stalled_types(queue)) == ["sms"]
    (notice,) = [notice for notice in list_notices(queue) if "paused" in notice.text]
    assert notice.text == "mail is paused for 2 h by ada: provider is down"
    assert (notice.since, notice.type_name) == (NOW - 2 * HOUR, "mail")
    assert not is_all_clear(run_checks(queue))
    queue = replace(queue, pauses={"mail": pause, "sms": TypePause()})
    assert not stalled_types(queue)
    (notice,) = [notice for notice in list_notices(queue) if "paused" in notice.text]
    assert notice.text == "2 types are paused, the longest for 2 h: mail"
    assert (notice.types, notice.about_types) == (TypeCondition.PAUSED, {"mail", "sms"})
    assert "sms is paused" in texts(replace(queue, pauses={"sms": TypePause()}))


def test_paused_types_do_not_hide_that_the_due_jobs_of_other_types_are_unknown() -> None:
    """Catches an all-clear if the jobs that have been due longest are all of paused types."""
    reason = "only the first 50,000 due jobs are read"
    health: dict[str, Any] = {
        "due": 60_000,
        "overdue_by_type": {"mail": NOW - HOUR},
        "unknown": {"overdue_by_type": reason},
    }
    queue = make_evidence({("queued", "mail"): 55_000, ("queued", "sms"): 5_000}, **health)
    checks = run_checks(replace(queue, pauses={"mail": TypePause()}))
    (check,) = (check for check in checks if check.kind is CheckKind.FINISHING)
    assert check.not_checked == reason
