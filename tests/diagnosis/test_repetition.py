"""Descriptions of intervals, and their due times: catches an interval of Agenda or another program
that is parsed wrongly, and due times for an interval that jobmon cannot compute."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from jobmon.diagnosis.repetition import describe_repetition, parse_timetable
from jobmon.store.repetition import Repetition

from ..conftest import NOW

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("interval", "description", "length"),
    [
        ("1 second", "every second", SECOND),
        ("5 minutes", "every 5 minutes", 5 * MINUTE),
        ("1 hour", "every hour", HOUR),
        ("one hour", "every hour", HOUR),
        ("hour", "every hour", HOUR),
        ("Two Days", "every 2 days", 48 * HOUR),
        ("an hour and 30 minutes", "every 90 minutes", 90 * MINUTE),
        ("1 minute, 5 seconds", "every 65 seconds", 65 * SECOND),
        ("1.5 hours", "every 90 minutes", 90 * MINUTE),
        ("2 weeks", "every 2 weeks", 336 * HOUR),
        ("60000", "every minute", MINUTE),  # in milliseconds
        ("1500", "every 1.5 s", 1.5 * SECOND),
    ],
)
def test_an_interval_is_parsed_and_described(
    interval: str, description: str, length: timedelta
) -> None:
    repetition = Repetition(interval=interval)
    assert describe_repetition(repetition) == description
    timetable = parse_timetable(repetition)
    assert timetable is not None
    assert timetable.list_due(NOW, NOW + 2.5 * length, 9) == [NOW + length, NOW + 2 * length]
    assert timetable.count_due(NOW, NOW + 2.5 * length, 9) == 2


@pytest.mark.parametrize(
    ("interval", "description", "due"),  # due: minutes after NOW, which is 03:00 UTC
    [
        ("*/5 * * * *", "every 5 minutes", [5, 10, 15]),
        ("* * * * *", "every minute", [1, 2]),
        ("0 * * * *", "every hour", [60, 120]),
        ("0 */2 * * *", "every 2 hours", [60, 180]),
        ("*/7 * * * *", "every seventh minute of every hour", [7, 14]),
        ("30 0 4 * * *", "at 04:00:30 every day", [60.5, 1_500.5]),
    ],
)
def test_a_cron_expression_is_parsed_and_described(
    interval: str, description: str, due: list[float]
) -> None:
    repetition = Repetition(interval=interval)
    assert describe_repetition(repetition) == description
    timetable = parse_timetable(repetition)
    assert timetable is not None
    due_times = timetable.list_due(NOW, NOW + timedelta(days=2), len(due))
    assert due_times == [NOW + minutes * MINUTE for minutes in due]


def test_a_cron_expression_is_about_the_time_zone_of_its_job() -> None:
    timetable = parse_timetable(Repetition(interval="0 6 * * *", timezone="Europe/Berlin"))
    assert timetable is not None
    due_times = timetable.list_due(NOW, NOW + timedelta(days=2), 9)
    berlin = ZoneInfo("Europe/Berlin")
    assert [f"{due_time.astimezone(berlin):%H:%M}" for due_time in due_times] == ["06:00"] * 2


@pytest.mark.parametrize(
    "repetition",
    [
        Repetition(),
        Repetition(interval="every full moon"),
        Repetition(interval="0 minutes"),
        Repetition(interval="-5"),
        Repetition(interval="nan"),
        Repetition(interval="1e300"),
        Repetition(interval="9999999999 weeks"),
        Repetition(interval="61 * * * *"),
        Repetition(interval="* * * * *", timezone="Mars/Base"),
        Repetition(interval="* * * * *", timezone="../etc/passwd"),
        Repetition(interval="1 month"),
        Repetition(time_of_day="3:30pm"),
        Repetition(interval="1 day", has_exceptions=True),
    ],
    ids=str,
)
def test_an_interval_that_cannot_be_computed_has_no_due_times(repetition: Repetition) -> None:
    assert parse_timetable(repetition) is None
    assert describe_repetition(repetition)


def test_a_text_that_is_no_interval_is_its_own_description() -> None:
    assert describe_repetition(Repetition(interval="every full moon")) == "every full moon"
    assert describe_repetition(Repetition(time_of_day="3:30pm")) == "every day at 3:30pm"
