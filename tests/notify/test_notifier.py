"""Notifications of one queue over real HTTP: catches a message that is sent twice or lost."""

import logging
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import ActiveMutes, Mute, MuteMode
from jobmon.actions.request import Person
from jobmon.diagnosis.evidence import Evidence
from jobmon.diagnosis.notices import CheckKind
from jobmon.notify import notifier as notifier_module
from jobmon.notify.delivery import Receiver, open_receivers
from jobmon.notify.notifier import Notifier
from jobmon.notify.state import StateStore
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import NOTIFICATIONS, OwnDatabase
from jobmon.settings import Settings
from jobmon.settings.receivers import parse_receivers

from ..conftest import NOW
from ..diagnosis.test_attention import A_OVERDUE, make_evidence
from ..support.receiver import SIGNING_SECRET, WebhookReceiver
from ..support.waiting import eventually

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ADA = Person(subject="ada")
HEALTHY, STUCK = make_evidence(), make_evidence(expired_leases=3)
# The changes in a message about `STUCK`.
BEGINS, OVER = [("begins", "expired_leases")], [("over", "expired_leases")]


@dataclass
class Queue:
    """A queue, the result of its next check (`evidence`), and the database of its collectors.

    It is also used as the `MuteRecords` of the queue.
    """

    settings: Settings
    rollup: OwnDatabase
    evidence: Evidence | Exception = HEALTHY
    now: datetime = NOW
    mutes: tuple[Mute, ...] = ()

    def find_active(self, now: datetime) -> ActiveMutes:
        return ActiveMutes(tuple(mute for mute in self.mutes if mute.is_active(now)))

    def mute(self, **changes: Any) -> None:
        """Mute expired leases for an hour; `changes` replace fields of the mute."""
        fields = {"kind": CheckKind.LEASES, "reason": "known", "by": ADA, "at": self.now}
        mute = Mute(**{**fields, "until": self.now + HOUR, **changes})
        self.mutes = (mute, *self.mutes)

    def start(self) -> "Collector":
        """Start another collector, which continues from the stored state."""
        return Collector(self, open_receivers(self.settings))


class Collector:
    """The notifications of a collector. The test calls each of its steps."""

    def __init__(self, queue: Queue, receivers: list[Receiver]) -> None:
        watched_queue = MagicMock()
        watched_queue.name = "default"
        watched_queue.connection.settings = queue.settings
        self.receivers = receivers
        self.queue = queue
        self.notifier = Notifier(
            watched_queue,
            queue.rollup,
            receivers,
            Redactor(),
            cast("MuteRecords", queue),
            clock=lambda: self.queue.now,
        )

    def check(self, after: timedelta = timedelta()) -> None:
        """Check the queue some time later, and deliver the messages."""
        self.start_deliveries(after)
        wait([attempt.outcome for attempt in self.notifier._attempts.values()])
        self.notifier.step()

    def start_deliveries(self, after: timedelta = timedelta()) -> None:
        """Check the queue some time later, and start deliveries without waiting for them."""
        self.queue.now += after
        self.notifier._check_at = 0.0
        self.notifier.step()

    def read_health(self, name: str = "webhook") -> Any:
        stored = StateStore(self.queue.rollup).load()
        return next(state.health for state in stored.receivers if state.health.name == name)


@pytest.fixture
def make_queue(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Queue]:
    def make(*urls: str) -> Queue:
        settings = make_settings(
            notify_urls=parse_receivers(" ".join(urls)), notify_secret=SIGNING_SECRET
        )
        queue = Queue(settings, OwnDatabase(watched, "q"))

        def gather(*_: Any) -> Evidence:
            if isinstance(queue.evidence, Exception):
                raise queue.evidence
            return queue.evidence

        monkeypatch.setattr(notifier_module, "gather_evidence", gather)
        return queue

    return make


@pytest.fixture
def queue(receiver: WebhookReceiver, make_queue: Callable[..., Queue]) -> Queue:
    return make_queue(receiver.url)


def make_collector_with(queue: Queue, problem: Evidence) -> Collector:
    """A collector that has found this problem for two minutes, the delay of its message."""
    queue.evidence = problem
    collector = queue.start()
    collector.check()
    collector.check(2 * MINUTE)
    return collector


def test_a_removed_receiver_that_failed_is_forgotten(
    queue: Queue, make_queue: Callable[..., Queue], receiver: WebhookReceiver
) -> None:
    """Catches an alert about a receiver that was removed, which lasts until the next message."""
    receiver.status = 500
    collector = make_collector_with(queue, STUCK)
    assert collector.read_health().failing_since == queue.now
    make_queue(f"{receiver.url}?jobmon_name=other").start().check()
    (state,) = StateStore(queue.rollup).load().receivers
    assert state.health.name == "other"


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_problem_is_sent_when_it_begins_and_when_it_is_over(
    queue: Queue, receiver: WebhookReceiver, *, is_restarted: bool
) -> None:
    """Catches a message that is sent twice or lost if each check is by another collector."""
    collector = queue.start()

    def check(after: timedelta = timedelta()) -> None:
        (queue.start() if is_restarted else collector).check(after)

    queue.evidence = STUCK
    check()
    assert receiver.received == []
    check(2 * MINUTE)
    for _ in range(4):
        check(MINUTE)
    queue.evidence = HEALTHY
    check(MINUTE)
    check(5 * MINUTE)
    check(MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS, OVER]
    first, second = (message.id for message in receiver.received)
    assert first != second
    assert (collector.read_health().sent, collector.read_health().failures) == (2, 0)


def test_a_message_whose_outcome_was_not_recorded_is_sent_again_with_the_same_id(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a lost message, and a repeated message that a receiver cannot recognize by its id."""
    queue.evidence = STUCK
    first = queue.start()
    first.check()
    first.start_deliveries(2 * MINUTE)
    wait([attempt.outcome for attempt in first.notifier._attempts.values()])  # then it dies
    second = queue.start()
    second.check(timedelta(seconds=15))
    assert len(receiver.received) == 1  # the first process could still be sending
    second.check(timedelta(seconds=30))
    third = queue.start()
    third.check(MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS] * 2
    assert receiver.received[0].id == receiver.received[1].id
    assert receiver.received[0].body == receiver.received[1].body
    assert third.read_health().sent == 1


def test_receiver_that_was_down_gets_one_late_message_and_then_the_changes(
    queue: Queue, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a receiver that gets many messages after it was down for twelve minutes."""
    receiver.status, queue.evidence = 503, STUCK
    collector = queue.start()
    with caplog.at_level(logging.INFO, logger="jobmon.notify"):
        for _ in range(48):  # twelve minutes
            collector.check(timedelta(seconds=15))
    attempt_count = len(receiver.received)
    assert 4 <= attempt_count <= 6  # retries after about 40, 80, 160 and 300 seconds
    assert len({message.id for message in receiver.received}) == 1
    health = collector.read_health()
    assert (health.sent, health.failures) == (0, attempt_count)
    assert health.reason == "it answered HTTP 503"
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        "a notification did not reach webhook, it is sent again: it answered HTTP 503"
    ]
    receiver.status = 204
    queue.evidence = make_evidence(expired_leases=3, **A_OVERDUE)  # a second problem begins
    for _ in range(40):
        collector.check(timedelta(seconds=15))
    delivered = receiver.received[attempt_count:]
    assert [message.changes for message in delivered] == [
        BEGINS,
        [("begins", "stalled_types")],
    ]
    assert delivered[0].id == receiver.received[0].id
    health = collector.read_health()
    assert (health.sent, health.failing_since, health.reason) == (2, None, "")


def test_problem_that_ended_while_the_receiver_was_down_is_still_sent(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    receiver.status = 500
    collector = make_collector_with(queue, STUCK)
    queue.evidence = HEALTHY
    for _ in range(30):
        collector.check(MINUTE)
    receiver.status = 200
    attempt_count = len(receiver.received)
    for _ in range(12):
        queue.start().check(MINUTE)
    assert [message.changes for message in receiver.received[attempt_count:]] == [BEGINS, OVER]


def test_undelivered_message_is_replaced_by_the_current_state_after_an_hour(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a receiver that gets an old state after it was down for hours."""
    receiver.status = 500
    collector = make_collector_with(queue, STUCK)
    queue.evidence = make_evidence(expired_leases=99)
    for _ in range(70):
        collector.check(MINUTE)
    receiver.status = 200
    attempt_count = len(receiver.received)
    for _ in range(6):
        collector.check(MINUTE)
    (delivered,) = receiver.received[attempt_count:]
    assert delivered.id != receiver.received[0].id
    assert [notice["count"] for notice in delivered.notices] == [99]


def test_a_receiver_that_hangs_delays_no_other_receiver(
    receiver: WebhookReceiver, make_queue: Callable[..., Queue]
) -> None:
    healthy = WebhookReceiver()
    with healthy.running():
        urls = f"{receiver.url}?jobmon_name=hangs", f"{healthy.url}?jobmon_name=healthy"
        queue = make_queue(*urls)
        queue.evidence = STUCK
        receiver.may_answer.clear()
        collector = queue.start()
        collector.start_deliveries()
        collector.start_deliveries(2 * MINUTE)
        wait([collector.notifier._attempts["healthy"].outcome])
        eventually(lambda: receiver.received)
        for _ in range(3):
            collector.start_deliveries(10 * MINUTE)  # must not start a second attempt
        assert [message.changes for message in healthy.received] == [BEGINS]
        assert collector.notifier._attempts.keys() == {"hangs"}
        assert len(receiver.received) == 1
        receiver.may_answer.set()
        collector.check()
        assert collector.read_health("hangs").sent == collector.read_health("healthy").sent == 1


def test_two_collectors_that_both_work_as_the_leader_send_once(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a second message from a paused process that still believes that it has the lease."""
    queue.evidence = STUCK
    first, second = queue.start(), queue.start()
    first.check()
    second.check()
    queue.now += 2 * MINUTE
    for collector in (first, second, first, second):
        collector.check()
    first.check(MINUTE)
    second.check(MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS]


def test_a_clock_that_jumps_neither_repeats_nor_delays_a_message(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    collector = make_collector_with(queue, STUCK)
    collector.check(-10 * HOUR)
    collector.check(10 * HOUR)
    assert len(receiver.received) == 1
    receiver.status, queue.evidence = 500, HEALTHY
    collector.check()
    collector.check(5 * MINUTE)
    attempt_count = len(receiver.received)
    receiver.status = 200
    collector.check(-10 * HOUR)  # the time of the next attempt is now far in the future
    assert [message.changes for message in receiver.received[attempt_count:]] == [OVER]


def test_an_ending_collector_leaves_a_message_that_was_not_stored_to_the_next_one(
    queue: Queue, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a message that is sent twice: the outcome of the first attempt is not recorded."""
    queue.evidence = STUCK
    collector, save, stop = queue.start(), StateStore.save, Event()
    collector.check()
    monkeypatch.setattr(StateStore, "save", MagicMock(side_effect=AutoReconnect("down")))
    collector.check(2 * MINUTE)
    monkeypatch.setattr(StateStore, "save", save)
    stop.set()
    collector.notifier.run(stop)
    wait([attempt.outcome for attempt in collector.notifier._attempts.values()])
    queue.start().check(MINUTE)
    assert len(receiver.received) == 1


def test_a_database_that_does_not_answer_delays_messages_and_loses_none(
    queue: Queue, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.evidence = STUCK
    collector = queue.start()
    collector.check()
    save = StateStore.save

    def fail(*_: Any) -> bool:
        raise AutoReconnect("down")

    monkeypatch.setattr(StateStore, "save", fail)
    collector.check(2 * MINUTE)
    assert receiver.received == []  # an attempt is recorded before it starts
    monkeypatch.setattr(StateStore, "save", save)
    collector.start_deliveries(MINUTE)
    wait([attempt.outcome for attempt in collector.notifier._attempts.values()])
    monkeypatch.setattr(StateStore, "save", fail)
    collector.check(MINUTE)  # delivered, but not recorded yet
    monkeypatch.setattr(StateStore, "save", save)
    collector.check(MINUTE)
    assert len(receiver.received) == 1
    assert collector.read_health().sent == 1


def test_failed_check_delays_no_message(
    queue: Queue, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    collector = make_collector_with(queue, STUCK)
    receiver.status, queue.evidence = 200, ValueError("a bug")
    collector.check(MINUTE)
    collector.check(MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS] * 2
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert sum("cannot check the queue" in line for line in lines) == 1


def test_stats_without_a_collector_change_nothing(queue: Queue, receiver: WebhookReceiver) -> None:
    """Catches "over" and "begins" from live counts, which lack the counts of a collector."""
    collector = make_collector_with(queue, STUCK)
    queue.evidence = replace(HEALTHY, leader=None, stats=replace(HEALTHY.stats, source="live"))
    for _ in range(10):
        collector.check(MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS]


def test_queue_is_checked_again_soon_after_a_slow_check(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a queue that nobody checks for an hour after its database was slow for a moment."""
    now, checks, collector = 1_000.0, 0, queue.start()

    def gather_slowly(*_: Any) -> Evidence:
        nonlocal now, checks
        now, checks = now + 120, checks + 1
        return HEALTHY

    monkeypatch.setattr(notifier_module, "gather_evidence", gather_slowly)
    monkeypatch.setattr(notifier_module, "time", SimpleNamespace(monotonic=lambda: now))
    for waited, expected_checks in ((0, 1), (59, 1), (1, 2)):
        now += waited
        collector.notifier.step()
        assert checks == expected_checks


def test_a_malformed_state_is_replaced(queue: Queue, receiver: WebhookReceiver) -> None:
    state = queue.rollup["state"]
    state.insert_one(queue.rollup.new(NOTIFICATIONS, {"version": "x", "receivers": 3}))
    collector = make_collector_with(queue, STUCK)
    assert len(receiver.received) == 1
    assert collector.read_health().sent == 1


def test_a_receiver_gets_only_the_levels_of_its_address(
    receiver: WebhookReceiver, make_queue: Callable[..., Queue]
) -> None:
    queue = make_queue(f"{receiver.url}?jobmon_level=bad")
    queue.evidence = make_evidence({}, {59: {"a": (0, 40, 0)}})
    collector = queue.start()
    collector.check()
    collector.check(2 * MINUTE)
    assert receiver.received == []
    queue.evidence = STUCK
    collector.check()
    collector.check(2 * MINUTE)
    assert [message.changes for message in receiver.received] == [BEGINS]


def test_the_state_has_no_address_and_no_secret(queue: Queue, receiver: WebhookReceiver) -> None:
    make_collector_with(queue, STUCK)
    stored = str(queue.rollup["state"].find_one({"name": NOTIFICATIONS}))
    assert "/hook" not in stored
    assert SIGNING_SECRET not in stored


def list_changes(receiver: WebhookReceiver) -> list[str]:
    return [f"{change} {kind}" for message in receiver.received for change, kind in message.changes]


def test_a_muted_problem_is_sent_again_when_the_mute_ends(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a message during the mute, and a mute that hides the problem after its end."""
    collector = make_collector_with(queue, STUCK)
    queue.mute()
    queue.evidence = make_evidence(expired_leases=99)  # worse, but muted
    for _ in range(5):
        collector.check(10 * MINUTE)
    assert list_changes(receiver) == ["begins expired_leases"]
    queue.start().check(10 * MINUTE)  # the mute has ended, and another collector works
    assert list_changes(receiver) == ["begins expired_leases", "continues expired_leases"]
    assert receiver.received[1].notices[0]["count"] == 99
    queue.start().check(10 * MINUTE)
    assert len(receiver.received) == 2


def test_a_problem_that_begins_while_muted_is_sent_when_a_person_ends_the_mute(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    queue.mute(kind=None)
    collector = make_collector_with(queue, STUCK)
    collector.check(10 * MINUTE)
    assert receiver.received == []
    queue.mutes = ()
    collector.check(MINUTE)
    collector.check(2 * MINUTE)  # the delay begins when the mute ends
    assert list_changes(receiver) == ["begins expired_leases"]


def test_the_end_of_a_muted_problem_is_sent_when_the_mute_ends(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches an incident that is never closed at a service such as PagerDuty."""
    collector = make_collector_with(queue, STUCK)
    queue.mute()
    queue.evidence = HEALTHY
    for _ in range(5):
        collector.check(10 * MINUTE)
    assert list_changes(receiver) == ["begins expired_leases"]
    collector.check(10 * MINUTE)
    assert list_changes(receiver) == ["begins expired_leases", "over expired_leases"]


def test_a_problem_that_came_and_went_while_muted_is_never_sent(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    queue.mute()
    collector = make_collector_with(queue, STUCK)
    queue.evidence = HEALTHY
    for _ in range(8):
        collector.check(10 * MINUTE)
    assert receiver.received == []


def test_a_message_that_was_not_delivered_is_dropped_when_its_problem_is_muted(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a message that arrives during the mute, because its receiver was down before."""
    receiver.status = 500
    collector = make_collector_with(queue, STUCK)
    receiver.received.clear()
    receiver.status = 200
    queue.mute()
    collector.check(10 * MINUTE)
    assert receiver.received == []


def test_an_acknowledged_problem_is_not_repeated_but_sent_when_worse_and_when_over(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    collector = make_collector_with(queue, STUCK)
    queue.mute(mode=MuteMode.ACKNOWLEDGE, until=queue.now + 100 * HOUR)
    collector.check(30 * HOUR)
    assert list_changes(receiver) == ["begins expired_leases"]
    queue.evidence = make_evidence(expired_leases=99)
    collector.check(MINUTE)
    collector.check(2 * MINUTE)
    queue.evidence = HEALTHY
    collector.check(MINUTE)
    collector.check(5 * MINUTE)
    assert list_changes(receiver)[1:] == ["worse expired_leases", "over expired_leases"]
    queue.evidence = STUCK  # another problem, which nobody has acknowledged
    collector.check(MINUTE)
    collector.check(2 * MINUTE)
    collector.check(24 * HOUR)
    assert list_changes(receiver)[3:] == ["begins expired_leases", "continues expired_leases"]


def test_only_the_muted_types_of_a_notice_are_left_out(
    queue: Queue, receiver: WebhookReceiver
) -> None:
    """Catches a mute of some types that hides others, or that sends a message when they return."""
    mail_and_pdf = make_evidence({}, {59: {"mail.a": (0, 40, 0), "pdf": (0, 40, 0)}})
    only_mail = make_evidence({}, {59: {"mail.a": (0, 40, 0)}})
    queue.mute(kind=CheckKind.FAILURES, types="mail.*", until=queue.now + 3 * HOUR)
    collector = make_collector_with(queue, only_mail)
    assert receiver.received == []
    queue.evidence = mail_and_pdf
    collector.check(MINUTE)
    collector.check(2 * MINUTE)
    (first,) = receiver.received
    assert first.notices[0]["types"] == ["pdf"]
    assert first.notices[0]["text"] == "100% of pdf attempts failed in the last hour"
    only_pdf = make_evidence({}, {59: {"pdf": (0, 40, 0)}})
    for next_evidence in (mail_and_pdf, only_pdf, mail_and_pdf):
        queue.evidence = next_evidence
        collector.check(10 * MINUTE)
    assert len(receiver.received) == 1
    collector.check(3 * HOUR)  # the mute has ended
    collector.check(2 * MINUTE)
    assert list_changes(receiver)[1:] == ["worse failure_rates"]
    assert receiver.received[1].notices[0]["types"] == ["mail.a", "pdf"]
