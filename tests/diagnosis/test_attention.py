"""What needs attention: catches a missing alarm, an alarm without a cause or about unknown values,
and an all-clear about something that was not checked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.diagnosis.attention import failing_types, run_checks, stalled_types
from jobmon.diagnosis.evidence import NO_END_TIMES, Evidence, Missing, died_since
from jobmon.diagnosis.notices import (
    KINDS_BY_TYPE,
    Check,
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

from ..conftest import NOW as MIDNIGHT

NOW = MIDNIGHT + timedelta(seconds=30)
START = MIDNIGHT - HOUR + MINUTE  # the hour's first step; NOW is in the last one
MISSING = Missing(reason="indexes are missing", remedy="Create them.")
Step = dict[str, tuple[int, int, int]]  # succeeded, failed and died, by type


def activity(succeeded: int = 0, failed: int = 0, died: int = 0) -> Activity:
    outcomes = +Counter({"succeeded": succeeded, "failed": failed})
    return Activity.from_tallies([Tally(outcomes=outcomes, dlq=died)])


def history_by_type(steps: dict[int, Step], first: int) -> History[str]:
    total: dict[str, list[int]] = {}
    for number, step in steps.items():
        for kind, counts in step.items() if number >= first else ():
            total[kind] = [a + b for a, b in zip(total.get(kind, [0, 0, 0]), counts, strict=True)]
    return History(NOW, "rollup", {kind: activity(*counts) for kind, counts in total.items()})


def history_by_minute(steps: dict[int, Step]) -> History[datetime]:
    return History(
        NOW,
        "rollup",
        {
            START + number * MINUTE: activity(
                *(sum(counts) for counts in zip(*steps.get(number, {}).values(), strict=True))
            )
            for number in range(60)
        },
    )


def evidence(
    counts: dict[tuple[str, str], int] | None = None,
    steps: dict[int, Step] | None = None,
    samples: dict[datetime, int] | None = None,
    source: str = "rollup",
    known: bool = True,
    **health: Any,
) -> Evidence:
    """A queue without unknown values; `samples` count the queued jobs."""
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
            counts=counts if known else None,
            total=sum(counts.values()),
            health=QueueHealth(**defaults | health),
        ),
        hour_start=START,
        blocks_start=START,
        hour=history_by_type(steps, 0),
        recent={10 * MINUTE: history_by_type(steps, 50)},
        minutes=history_by_minute(steps),
        day=History(NOW, "rollup", {}),
        samples={
            at: QueueSample(status_counts={"queued": count}, oldest_queued_ms=0)
            for at, count in (samples or {NOW - HOUR: 10**9}).items()
        },
    )


def notices(given: Evidence) -> list[Notice]:
    return collect_notices(run_checks(given))


def texts(given: Evidence) -> list[str]:
    return [notice.text for notice in notices(given)]


def unchecked(given: Evidence) -> dict[str, str]:
    return {check.name: check.not_checked for check in run_checks(given) if check.not_checked}


def every_minute(count: int, until: int = 60, kind: str = "a") -> dict[int, Step]:
    return {number: {kind: (count, 0, 0)} for number in range(until)}


def overdue_since(**waited: timedelta) -> dict[str, datetime]:
    return {kind: NOW - length for kind, length in waited.items()}


def test_all_clear_needs_every_check() -> None:
    assert is_all_clear(run_checks(evidence()))
    gaps: dict[str, dict[str, Any]] = {
        "whether jobs finish": {"minutes": MISSING},
        "stalled types": {"recent": {10 * MINUTE: MISSING}},
        "new dead jobs": {"hour": MISSING},
        "backlog growth": {"samples": {}},
    }
    for name, gap in gaps.items():
        checks = run_checks(replace(evidence(), **gap))
        assert not collect_notices(checks), name
        assert not is_all_clear(checks), name
        assert name in {check.name for check in checks if check.not_checked}


def test_a_check_that_was_not_made_has_a_reason_and_a_remedy() -> None:
    """Catches an all-clear over 86 overdue and 60 dead jobs because indexes are missing."""
    given = replace(
        evidence({("queued", "a"): 86, ("dlq", "a"): 60}, due=86),
        hour=MISSING,
        recent={10 * MINUTE: MISSING},
        minutes=MISSING,
        day=MISSING,
    )
    assert notices(given) == []
    assert list(group_by_reason(run_checks(given))) == [
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
    given = evidence({("queued", "a"): 9}, every_minute(50, until=40), **health)
    assert notices(given) == []
    assert unchecked(given) == expected


def test_without_finish_times_nothing_is_concluded_from_them() -> None:
    given = evidence(due=9, overdue_by_type=overdue_since(a=HOUR))
    given = replace(given, hour=NO_END_TIMES, recent={}, minutes=NO_END_TIMES, day=NO_END_TIMES)
    assert notices(given) == []
    assert unchecked(given) == dict.fromkeys(
        ("whether jobs finish", "stalled types", "new dead jobs", "failure rates"),
        "succeeded or dead jobs do not record when they finished",
    )


def add_gap(given: Evidence, start: datetime, end: datetime | None = None) -> Evidence:
    """The evidence of a queue that counts runs from changes, some of which are unknown."""
    gap = Gap(start=start, end=end, reason=GapReason.STREAM_LOST)
    histories = {name: getattr(given, name) for name in ("hour", "minutes", "day")}
    with_gap = {name: replace(history, gaps=(gap,)) for name, history in histories.items()}
    recent = {length: replace(past, gaps=(gap,)) for length, past in given.recent.items()}
    return replace(given, recent=recent, **with_gap)


def test_where_runs_may_be_missing_only_known_runs_raise_an_alarm() -> None:
    """Catches "nothing has finished" where a collector has not seen what did, and an all-clear."""
    steps: dict[int, Step] = {number: {"a": (10, 10, 0)} for number in range(40)}
    given = add_gap(evidence({("queued", "a"): 9}, steps, **STOPPED | A_OVERDUE), NOW - 5 * MINUTE)
    assert texts(given) == ["50% of a attempts failed in the last hour"]
    checks = ("whether jobs finish", "stalled types", "new dead jobs", "failure rates")
    assert unchecked(given) == dict.fromkeys(checks, "runs may be missing from the history")
    died = replace(add_gap(evidence(steps={1: {"a": (0, 0, 5)}}), START), new_dead=(5, True))
    assert texts(died) == ["5 jobs died in the last hour, all a"]
    assert "new dead jobs" in unchecked(died)


def test_runs_that_are_missing_before_the_last_finished_job_change_nothing() -> None:
    given = evidence(steps=every_minute(42, until=55), **STOPPED)
    early = add_gap(given, START, START + 10 * MINUTE)
    assert texts(early) == texts(given) != []


def test_types_are_not_stalled_while_it_is_unknown_what_runs() -> None:
    given = evidence({("leased", "a"): 1}, known=False, **A_OVERDUE)
    assert not stalled_types(given)
    assert unchecked(given)["stalled types"] == "the jobs could not be counted"


def test_jobs_that_are_scheduled_for_later_are_no_growing_backlog() -> None:
    given = evidence({("queued", "a"): 106}, samples={NOW - HOUR: 23}, due=25, scheduled=81)
    assert texts(given) == []


STOPPED = {"due": 86, "overdue_by_type": overdue_since(a=2 * MINUTE)}


def test_that_no_job_finishes_is_the_first_notice() -> None:
    """Catches a dead worker pool that is noticed only when each of its types has stalled."""
    given = evidence(steps=every_minute(42, until=58), expired_leases=3, **STOPPED)
    first = notices(given)[0]
    assert (first.level, first.text) == (
        "bad",
        "Nothing has finished for 1 min while 86 jobs are due (usually 42/min)",
    )
    assert first.jobs == JobFilter(condition=JobCondition.DUE)
    # The last job may have finished 59 s after its minute began.
    as_of = START + 58 * MINUTE + timedelta(seconds=50)
    assert isinstance(given.minutes, History)
    early = replace(given, minutes=History(as_of, "rollup", given.minutes.activity))
    assert texts(early)[0].startswith("Nothing has finished for 1 min")


@pytest.mark.parametrize(
    ("steps", "health", "expected"),
    [
        (every_minute(42), STOPPED, None),
        (every_minute(42, until=59), STOPPED, None),  # half a minute is too short
        (every_minute(42, until=50), STOPPED | {"overdue_by_type": {}}, None),  # no job waits
        (
            every_minute(42, until=50),
            STOPPED | {"overdue_by_type": overdue_since(a=MINUTE / 2)},
            None,
        ),
        (every_minute(1, until=58), STOPPED, None),  # by chance
        (
            every_minute(1, until=56),
            STOPPED,
            "Nothing has finished for 3 min while 86 jobs are due (usually 1/min)",
        ),
        (
            {3: {"a": (1, 0, 0)}, 40: {"a": (0, 1, 0)}},
            STOPPED | {"due": 1},
            "Nothing has finished for 18 min while 1 job is due (usually 0.1/min)",
        ),
        ({}, STOPPED, None),  # no job ever finished
    ],
)
def test_no_finished_job_is_compared_with_the_usual_rate(
    steps: dict[int, Step], health: dict[str, Any], expected: str | None
) -> None:
    assert texts(evidence(steps=steps, **health)) == ([expected] if expected else [])


def test_the_usual_rate_is_known_hours_after_the_last_finished_job() -> None:
    ten = timedelta(minutes=10)
    first = NOW - timedelta(hours=5)
    day = {first + number * ten: activity(20) for number in range(6)}
    given = replace(evidence(**STOPPED), day=History(NOW, "rollup", day))
    assert texts(given) == ["Nothing has finished for 4 h while 86 jobs are due (usually 2/min)"]
    # Steps that are not counted yet may have more.
    assert isinstance(given.day, History)
    partly = replace(given.day, uncounted=frozenset({NOW - 2 * HOUR}))
    assert texts(replace(given, day=partly))[0].startswith("Nothing has finished for 1 h 50 min")


A_OVERDUE = {"overdue_by_type": overdue_since(a=11 * MINUTE)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            evidence({("queued", "a"): 1}, **A_OVERDUE),
            "a is stalled: oldest due job waiting 11 min, none finished in 10 min",
        ),
        (evidence(overdue_by_type=overdue_since(a=9 * MINUTE)), None),
        (evidence(steps={55: {"a": (1, 0, 0)}}, **A_OVERDUE), None),
        (evidence(steps={55: {"a": (0, 1, 0)}}, **A_OVERDUE), None),
        (evidence({("leased", "a"): 1}, **A_OVERDUE), None),
        (evidence(steps={55: {OTHER: (1, 0, 0)}}, **A_OVERDUE), None),
        (evidence({("leased", OTHER): 1}, **A_OVERDUE), None),
        (
            evidence(overdue_by_type=overdue_since(a=15 * MINUTE, b=65 * MINUTE, c=MINUTE)),
            "2 types are stalled, the longest for 1 h 5 min",
        ),
        (
            evidence(
                overdue_by_type=overdue_since(**{f"t{n}": HOUR + n * MINUTE for n in range(1_230)})
            ),
            "1,230 types are stalled, the longest for 21 h 29 min",
        ),
    ],
)
def test_stalled_types_give_one_notice(given: Evidence, expected: str | None) -> None:
    assert texts(given) == ([expected] if expected else [])


def test_a_notice_of_stalled_types_links_to_the_types_that_it_counts() -> None:
    (one,) = notices(evidence(**A_OVERDUE))
    assert one.jobs == JobFilter(types=("a",), condition=JobCondition.DUE)
    given = evidence(overdue_by_type=overdue_since(a=15 * MINUTE, b=65 * MINUTE, c=MINUTE))
    (two,) = notices(given)
    assert (two.types, two.jobs) == (TypeCondition.STALLED, None)
    assert list(stalled_types(given)) == ["b", "a"]


@pytest.mark.parametrize(
    ("steps", "dead", "expected"),
    [
        ({1: {"a": (0, 0, 1)}}, (1, True), "1 job died in the last hour: a"),
        ({1: {"a": (0, 0, 5)}}, (4, True), "4 jobs died in the last hour, all a"),
        (
            {1: {"a": (0, 0, 1)}, 2: {"b": (0, 0, 339)}},
            (340, True),
            "340 jobs died in the last hour, mostly b",
        ),
        (
            {1: {"a": (0, 0, 4), "b": (0, 0, 3), "c": (0, 0, 3)}},
            (10, True),
            "10 jobs died in the last hour, most of them a",
        ),
        (
            {1: {"a": (0, 0, 20_000)}},
            (10_000, False),
            "10,000+ jobs died in the last hour, all a",
        ),
        ({1: {"a": (0, 0, 5)}}, (0, True), None),  # all were retried
    ],
)
def test_new_dead_jobs_are_counted_as_their_list_counts_them(
    steps: dict[int, Step], dead: tuple[int, bool], expected: str | None
) -> None:
    found = notices(replace(evidence(steps=steps), new_dead=dead))
    assert [notice.text for notice in found] == ([expected] if expected else [])
    assert all(notice.jobs == died_since(START) for notice in found)


DEATH: Step = {"a": (0, 1, 1)}
DAY_START = floor(NOW - DAY, 10 * MINUTE)


@pytest.mark.parametrize(
    ("minutes", "day", "since"),
    [
        ([40, 50], [], START + 40 * MINUTE),
        ([2, 50], [START - 40 * MINUTE], START + 2 * MINUTE),  # a pause lies between them
        ([2, 50], [floor(START, 10 * MINUTE)], START + 2 * MINUTE),
        (
            [2],
            [floor(START, 10 * MINUTE) - number * 10 * MINUTE for number in (0, 1, 2, 4)],
            floor(START, 10 * MINUTE) - 20 * MINUTE,
        ),
        ([2], [DAY_START + number * 10 * MINUTE for number in range(144)], None),  # or earlier
    ],
)
def test_new_dead_jobs_have_the_time_from_which_jobs_died_without_a_pause(
    minutes: list[int], day: list[datetime], since: datetime | None
) -> None:
    steps = {DAY_START + n * 10 * MINUTE: activity() for n in range(145)}
    steps |= dict.fromkeys(day, activity(died=1))
    given = evidence(steps=dict.fromkeys(minutes, DEATH))
    (notice,) = notices(replace(given, day=History(NOW, "rollup", steps)))
    assert notice.since == since


def test_notices_have_the_time_of_their_beginning() -> None:
    given = evidence(
        {("queued", "a"): 900},
        every_minute(50, until=40),
        samples={NOW - HOUR: 23, NOW - 30 * MINUTE: 20, NOW - 20 * MINUTE: 400},
        due=900,
        expired_leases=2,
        overdue_by_type=overdue_since(a=HOUR),
    )
    given = replace(given, first_expiry=NOW - 9 * MINUTE)
    found = {notice.text.split()[0]: notice.since for notice in notices(given)}
    assert found == {
        "Nothing": START + 40 * MINUTE,  # the first minute in which none finished
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
    given = evidence({("queued", "a"): queued}, samples=samples, due=queued)
    assert texts(given) == ([f"Backlog growing: {expected}"] if expected else [])


def test_without_a_sample_backlog_growth_is_not_checked() -> None:
    assert unchecked(evidence(samples={NOW - MINUTE: 0})) == {
        "backlog growth": "the first sample is too recent to compare with"
    }


def test_failing_types_give_one_notice() -> None:
    one = evidence(steps={1: {"a": (10, 10, 0), "b": (85, 15, 0), "few": (0, 19, 0)}})
    (notice,) = notices(one)
    assert notice.text == "50% of a attempts failed in the last hour"
    assert (notice.level, notice.types, notice.type_name) == ("watch", "failing", "a")
    many = evidence(steps={1: {"a": (10, 10, 0), "b": (0, 20, 0)}})
    assert texts(many) == [
        "2 types failed in 20% or more of their attempts in the last hour, most often b (100%)"
    ]
    assert list(failing_types(many)) == ["b", "a"]


@pytest.mark.parametrize(
    ("given", "level", "text"),
    [
        (
            evidence(expired_leases=1),
            "bad",
            "1 job stuck: its lease expired and no worker has picked it up",
        ),
        (
            evidence(expired_leases=1_200),
            "bad",
            "1,200 jobs stuck: their leases expired and no worker has picked them up",
        ),
        (
            replace(evidence(expired_leases=1), assumed_lease=10 * MINUTE),
            "bad",
            "1 job stuck: its lease expired and no worker has picked it up "
            "(if a lease lasts 10 min)",
        ),
        (
            evidence(source="live"),
            "watch",
            "No collector is running: jobs are counted at each request. "
            "Start `jobmon collector`, or set JOBMON_COLLECTOR=true for the web service.",
        ),
        (
            replace(
                evidence(source="live"), first_build={"counted": 1_200, "estimated": 5_000_000}
            ),
            "watch",
            "A first count is in progress: 1,200 of about 5,000,000 jobs",
        ),
        (
            replace(evidence(source="live"), leader="host-1"),
            "watch",
            "Collector host-1 is running, but its statistics are not up to date. "
            "The collector's log has the reason.",
        ),
        (
            evidence(known=False),
            "bad",
            "Counting the jobs takes too long: only their estimated number is known",
        ),
    ],
)
def test_other_notices(given: Evidence, level: str, text: str) -> None:
    (notice,) = notices(given)
    assert (notice.level, notice.text) == (level, text)


def test_the_worst_notices_come_first() -> None:
    given = evidence(
        {("queued", "a"): 99},
        due=99,
        samples={NOW - HOUR: 0},
        source="live",
        expired_leases=2,
        **A_OVERDUE,
    )
    assert [notice.level for notice in notices(given)] == ["bad", "bad", "watch", "watch"]
    checks: Callable[[Evidence], list[Check]] = run_checks
    assert not is_all_clear(checks(given))


def test_notices_by_type_name_the_types_that_they_count() -> None:
    """Catches a notification that misses a second type, or that names a type without a notice."""
    steps: dict[int, Step] = {59: {"a": (0, 40, 2), "b": (40, 0, 0), "c": (0, 40, 0)}}
    by_kind = {
        check.kind: (notice.count, notice.counted)
        for check in run_checks(evidence({("leased", "a"): 1}, steps, expired_leases=3))
        for notice in check.notices
    }
    assert by_kind == {
        CheckKind.LEASES: (3, frozenset()),
        CheckKind.DEAD: (2, frozenset("a")),
        CheckKind.FAILURES: (2, frozenset("ac")),
    }
    assert {kind for kind, (_, counted) in by_kind.items() if counted} <= KINDS_BY_TYPE


def rules(**thresholds: Any) -> Rules:
    """The default rules, with other thresholds for the types of reports."""
    return Rules(by_type=(("report.*", Thresholds(**thresholds)),))


def test_failure_rates_are_compared_with_the_threshold_of_their_type() -> None:
    steps = {1: {"report.a": (12, 8, 0), "report.b": (5, 5, 0), "mail": (80, 19, 0)}}
    given = evidence(steps=steps)
    assert texts(given) == ["40% of report.a attempts failed in the last hour"]
    strict = rules(failure_rate=0.5, failure_rate_attempts=10)
    assert failing_types(replace(given, rules=strict)) == {"report.b": 0.5}
    both = replace(strict, thresholds=Thresholds(failure_rate=0.19))
    assert texts(replace(given, rules=both)) == [
        "2 types failed in 19% or more of their attempts in the last hour, "
        "most often report.b (50%)"
    ]


def test_dead_jobs_count_from_the_threshold_of_their_type_on() -> None:
    """Catches a notice whose link lists jobs of other types."""
    given = replace(
        evidence(steps={1: {"report.a": (0, 9, 9), "mail": (0, 1, 1)}}),
        rules=rules(dead_per_hour=10),
    )
    mail = replace(died_since(START), types=("mail",))
    assert given.find_dead_filter() == mail
    (notice,) = notices(replace(given, new_dead=(1, True)))
    assert (notice.text, notice.jobs) == ("1 job died in the last hour: mail", mail)
    given = replace(given, rules=rules(dead_per_hour=9))
    assert given.find_dead_filter() == died_since(START)
    assert texts(replace(given, new_dead=(10, True))) == [
        "10 jobs died in the last hour, mostly report.a"
    ]
    none = replace(given, rules=Rules(thresholds=Thresholds(dead_per_hour=10)))
    assert (none.find_dead_filter(), notices(none)) == (None, [])


def test_folded_types_over_the_threshold_have_no_link() -> None:
    given = evidence(steps={1: {OTHER: (0, 9, 9), "report.a": (0, 1, 1)}})
    given = replace(given, rules=rules(dead_per_hour=10))
    (notice,) = notices(given)
    assert (notice.count, notice.jobs, given.find_dead_filter()) == (9, None, None)


def test_a_type_is_stalled_after_a_time_of_its_own() -> None:
    waited = overdue_since(**{"report.a": 61 * MINUTE, "report.b": 59 * MINUTE, "mail": HOUR})
    given = evidence(overdue_by_type=waited)
    hour = History(NOW, "rollup", {"mail": activity(1)})
    given = replace(given, rules=rules(stalled_after=HOUR), recent={**given.recent, HOUR: hour})
    # A mail ended in the last hour, but none in the last ten minutes.
    assert list(stalled_types(given)) == ["report.a", "mail"]
    busy = replace(
        given, recent={**given.recent, HOUR: replace(hour, activity={"report.a": activity(1)})}
    )
    assert texts(busy) == ["mail is stalled: oldest due job waiting 1 h, none finished in 10 min"]
    counting = replace(given, recent={**given.recent, HOUR: MISSING})
    assert list(stalled_types(counting)) == ["mail"]
    assert unchecked(counting)["stalled types"] == MISSING.reason


def test_nothing_finishes_after_the_time_of_the_rules() -> None:
    """Catches a silence that is never noticed, because the queue ends fewer than three jobs."""
    slow = evidence(
        steps={minute: {"a": (1, 0, 0)} for minute in (0, 25)},
        due=1,
        overdue_by_type=overdue_since(a=9 * MINUTE),
    )
    assert [text.split()[0] for text in texts(slow)] == ["Nothing"]
    patient = Rules(thresholds=Thresholds(stalled_after=40 * MINUTE))
    given = replace(slow, rules=patient, recent={40 * MINUTE: slow.recent[10 * MINUTE]})
    assert texts(given) == []


def test_a_job_that_is_due_for_too_long_is_a_notice_although_others_finish() -> None:
    waited = overdue_since(**{"report.a": 31 * MINUTE, "report.b": 30 * MINUTE, "mail": DAY})
    given = evidence(steps=every_minute(9, kind="mail"), overdue_by_type=waited)
    given = replace(given, rules=rules(oldest_due=30 * MINUTE, stalled_after=HOUR))
    given = replace(given, recent={**given.recent, HOUR: given.recent[10 * MINUTE]})
    (notice,) = notices(given)
    assert notice.text == "The oldest due job of report.a has been due for 31 min"
    assert (notice.level, notice.since) == ("watch", NOW - 31 * MINUTE)
    assert notice.jobs == JobFilter(types=("report.a",), condition=JobCondition.DUE)
    longer = replace(given, rules=rules(oldest_due=29 * MINUTE, stalled_after=HOUR))
    assert texts(longer) == [
        "2 types have jobs that have been due for too long, the longest for 31 min: report.a"
    ]


def test_the_backlog_grows_from_the_thresholds_of_the_rules_on() -> None:
    given = evidence({("queued", "a"): 1_100}, samples={NOW - HOUR: 500}, due=1_100)
    for more_jobs, growth, grows in ((599, 2.1, True), (600, 2.1, False), (20, 2.2, False)):
        own = Rules(backlog_growth_jobs=more_jobs, backlog_growth=growth)
        assert bool(notices(replace(given, rules=own))) == grows


def test_paused_types_are_a_notice_and_no_stalled_ones() -> None:
    """Catches an alarm about what a person has stopped, and an all-clear while it waits."""
    health: dict[str, Any] = {
        "due": 9,
        "overdue_by_type": {"mail": NOW - HOUR, "sms": NOW - HOUR},
    }
    given = evidence({("queued", "mail"): 8, ("queued", "sms"): 1}, **health)
    assert list(stalled_types(given)) == ["mail", "sms"]
    pause = TypePause(since=NOW - 2 * HOUR, by="ada", reason="provider\nis down.")
    paused = replace(given, pauses={"mail": pause})
    assert list(stalled_types(paused)) == ["sms"]
    (notice,) = [each for each in notices(paused) if "paused" in each.text]
    assert notice.text == "mail is paused for 2 h by ada: provider is down"
    assert (notice.since, notice.type_name) == (NOW - 2 * HOUR, "mail")
    assert not is_all_clear(run_checks(paused))
    both = replace(given, pauses={"mail": pause, "sms": TypePause()})
    assert not stalled_types(both)
    (notice,) = [each for each in notices(both) if "paused" in each.text]
    assert notice.text == "2 types are paused, the longest for 2 h: mail"
    assert (notice.types, notice.counted) == (TypeCondition.PAUSED, {"mail", "sms"})
    unknown = replace(given, pauses={"sms": TypePause()})
    assert "sms is paused" in texts(unknown)
