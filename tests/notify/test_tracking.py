"""Tracking of problems: catches a message that a receiver gets twice, never or too early."""

from dataclasses import replace
from datetime import datetime, timedelta

from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.notify.problems import FoundProblems, Problem
from jobmon.notify.tracking import (
    CLEAR_FOR,
    Timing,
    TrackedProblem,
    list_news,
    record_sent,
    track,
)

from ..conftest import NOW

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
TIMING = Timing(delay=2 * MINUTE, repeat=24 * HOUR)
STUCK = Problem(kind=CheckKind.LEASES, level=Level.BAD, text="3 jobs stuck", count=3)
GROWING = Problem(kind=CheckKind.BACKLOG, level=Level.WATCH, text="Backlog growing", count=100)
FAILING = Problem(
    kind=CheckKind.FAILURES, level=Level.WATCH, text="a fails", count=1, types=frozenset("a")
)


class Receiver:
    """A receiver that gets each message without delay. The test moves its clock."""

    def __init__(self, timing: Timing = TIMING) -> None:
        self.now = NOW
        self.timing = timing
        self.tracked: dict[CheckKind, TrackedProblem] = {}

    def check(self, *problems: Problem, unknown: frozenset[CheckKind] = frozenset()) -> list[str]:
        """Send the news of a check that finds these problems; returns "change kind" for each."""
        found = FoundProblems({problem.kind: problem for problem in problems}, unknown)
        self.tracked = track(self.tracked, found, self.now, self.timing)
        news = list_news(self.tracked, found, self.now, self.timing)
        self.tracked = record_sent(self.tracked, news, self.now)
        return [f"{item.change} {item.problem.kind}" for item in news]

    def check_for(self, length: timedelta, *problems: Problem) -> list[tuple[timedelta, str]]:
        """Find these problems every 15 seconds; returns the sent news with their times."""
        start, sent = self.now, []
        while self.now < start + length:
            sent += [(self.now - start, line) for line in self.check(*problems)]
            self.now += 15 * SECOND
        return sent


def test_a_problem_is_sent_once_after_the_delay_and_again_after_a_day() -> None:
    receiver = Receiver()
    assert receiver.check_for(26 * HOUR, STUCK) == [
        (2 * MINUTE, "begins expired_leases"),
        (24 * HOUR + 2 * MINUTE, "continues expired_leases"),
    ]


def test_without_a_repeat_a_problem_is_sent_only_once() -> None:
    receiver = Receiver(replace(TIMING, repeat=None))
    assert receiver.check_for(26 * HOUR, STUCK) == [(2 * MINUTE, "begins expired_leases")]


def test_a_problem_that_vanishes_within_the_delay_is_never_sent() -> None:
    receiver = Receiver()
    assert receiver.check_for(2 * MINUTE, STUCK) == []
    assert receiver.check_for(HOUR) == []
    assert receiver.tracked == {}


def test_problem_is_over_after_five_minutes_without_it() -> None:
    receiver = Receiver()
    receiver.check_for(10 * MINUTE, STUCK)
    assert receiver.check_for(HOUR) == [(CLEAR_FOR, "over expired_leases")]
    assert receiver.tracked == {}
    assert receiver.check_for(3 * MINUTE, STUCK) == [(2 * MINUTE, "begins expired_leases")]


def test_problem_that_returns_within_five_minutes_is_not_sent_again() -> None:
    receiver = Receiver()
    receiver.check_for(10 * MINUTE, STUCK)
    for _ in range(5):
        assert receiver.check_for(4 * MINUTE) == []
        assert receiver.check_for(MINUTE, STUCK) == []


def test_problems_that_are_due_together_are_one_message_with_the_worst_first() -> None:
    receiver = Receiver()
    receiver.check(GROWING, STUCK)
    receiver.now += 2 * MINUTE
    assert receiver.check(GROWING, STUCK) == ["begins expired_leases", "begins backlog_growth"]


def test_unknown_check_neither_begins_nor_ends_a_problem() -> None:
    """Catches "over" after a failover, before the new collector has counted the history."""
    receiver, unknown = Receiver(), frozenset({CheckKind.LEASES})
    receiver.check_for(3 * MINUTE, STUCK)
    for _ in range(100):
        assert receiver.check(unknown=unknown) == []
        receiver.now += MINUTE
    receiver.check()
    receiver.now += CLEAR_FOR
    assert receiver.check(unknown=unknown) == []
    receiver.check()
    receiver.now += CLEAR_FOR
    assert receiver.check() == ["over expired_leases"]


def test_twice_as_many_jobs_are_worse_if_they_are_ten_more() -> None:
    receiver = Receiver()
    receiver.check_for(3 * MINUTE, STUCK)
    assert receiver.check_for(3 * MINUTE, replace(STUCK, count=12)) == []
    assert receiver.check_for(3 * MINUTE, replace(STUCK, count=13)) == [
        (2 * MINUTE, "worse expired_leases")
    ]
    assert receiver.check_for(3 * MINUTE, replace(STUCK, count=25)) == []
    assert receiver.check_for(3 * MINUTE, replace(STUCK, count=26)) == [
        (2 * MINUTE, "worse expired_leases")
    ]
    assert receiver.check_for(3 * MINUTE, replace(STUCK, count=None)) == []


def test_a_problem_that_is_worse_only_for_a_moment_is_not_sent() -> None:
    receiver = Receiver()
    receiver.check_for(3 * MINUTE, STUCK)
    for _ in range(5):
        assert receiver.check_for(MINUTE, replace(STUCK, count=100)) == []
        assert receiver.check_for(MINUTE, STUCK) == []


def test_another_failing_type_is_worse_even_with_an_equal_count() -> None:
    """Catches a second type that fails unnoticed because the first one has recovered."""
    receiver = Receiver()
    receiver.check_for(3 * MINUTE, FAILING)
    failing_b = replace(FAILING, types=frozenset("b"))
    assert receiver.check_for(3 * MINUTE, failing_b) == [(2 * MINUTE, "worse failure_rates")]
    assert receiver.check_for(HOUR, FAILING) == []  # a type that comes and goes is no news
    assert receiver.check_for(HOUR, failing_b) == []


def test_a_more_urgent_level_is_worse() -> None:
    receiver = Receiver()
    receiver.check_for(3 * MINUTE, GROWING)
    assert receiver.check_for(3 * MINUTE, replace(GROWING, level=Level.BAD)) == [
        (2 * MINUTE, "worse backlog_growth")
    ]


def test_a_clock_that_is_set_back_repeats_and_delays_nothing() -> None:
    receiver = Receiver()
    receiver.check(GROWING)
    receiver.check_for(10 * MINUTE, STUCK, GROWING)
    receiver.now -= 10 * HOUR
    assert receiver.check_for(HOUR, STUCK, GROWING) == []
    assert receiver.check_for(HOUR) == [
        (CLEAR_FOR, "over expired_leases"),
        (CLEAR_FOR, "over backlog_growth"),
    ]


def test_a_clock_that_is_set_back_within_the_delay_restarts_the_delay() -> None:
    receiver = Receiver()
    receiver.check_for(MINUTE, STUCK)
    receiver.now -= 10 * HOUR
    assert receiver.check_for(HOUR, STUCK) == [(2 * MINUTE, "begins expired_leases")]


def test_problem_that_ended_while_the_receiver_was_unreachable_is_sent_later() -> None:
    receiver = Receiver()
    not_sent = TrackedProblem(problem=STUCK, seen_at=NOW, is_confirmed=True)
    receiver.tracked = {STUCK.kind: not_sent}
    assert receiver.check_for(HOUR) == [(CLEAR_FOR, "over expired_leases")]
    assert receiver.tracked == {}


def test_a_problem_that_returned_before_its_end_was_delivered_begins_again() -> None:
    receiver = Receiver()
    receiver.check_for(3 * MINUTE, STUCK)
    receiver.check()
    receiver.now += CLEAR_FOR
    found = FoundProblems()
    tracked = track(receiver.tracked, found, receiver.now, TIMING)
    news = list_news(tracked, found, receiver.now, TIMING)
    assert [item.change for item in news] == ["over"]
    # The problem returns while this message is being delivered.
    returned = FoundProblems({STUCK.kind: STUCK})
    tracked = track(tracked, returned, receiver.now + MINUTE, TIMING)
    delivered_at: datetime = receiver.now + 2 * MINUTE
    receiver.tracked, receiver.now = record_sent(tracked, news, delivered_at), delivered_at
    assert receiver.check_for(3 * MINUTE, STUCK) == [(2 * MINUTE, "begins expired_leases")]
