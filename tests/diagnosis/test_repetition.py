"""Descriptions of intervals, and their due times: catches an interval of Agenda or another program
that is parsed wrongly, and due times for an interval that jobmon cannot compute."""

from datetime import timedelta

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
        ("60000", "every minute", MINUTE),
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
    ("interval", "zone", "description", "due"),
    [
        ("*/5 * * * *", None, "every 5 minutes", [5, 10, 15]),
        ("* * * * *", None, "every minute", [1, 2]),
        ("0 * * * *", None, "every hour", [60, 120]),
        ("0 */2 * * *", None, "every 2 hours", [60, 180]),
        ("*/7 * * * *", None, "every seventh minute of every hour", [7, 14]),
        ("0 6 * * *", "Europe/Berlin", "at 06:00 every day", [120, 1_560]),  # NOW is 03:00 UTC
        ("30 0 4 * * *", None, "at 04:00:30 every day", [60.5, 1_500.5]),
    ],
)
def test_a_cron_expression_is_parsed_in_its_time_zone(
    interval: str, zone: str | None, description: str, due: list[float]
) -> None:
    repetition = Repetition(interval=interval, timezone=zone)
    assert describe_repetition(repetition) == description
    timetable = parse_timetable(repetition)
    assert timetable is not None
    due_times = timetable.list_due(NOW, NOW + timedelta(days=2), len(due))
    if zone is not None:  # Berlin is one or two hours ahead of UTC, by the season
        shift = NOW + due[0] * MINUTE - due_times[0]
        due_times = [due_time + shift for due_time in due_times]
        assert timetable.list_due(NOW, NOW + HOUR * 2, 9)[0] in (NOW + HOUR, NOW + 2 * HOUR)
    assert due_times == [NOW + minutes * MINUTE for minutes in due]


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
