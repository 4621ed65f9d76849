"""Formats values as text: catches a wrong unit, and a number for an unknown value."""

from typing import Any

import pytest

from jobmon.dashboard.formatting import (
    environment_kind,
    mark_commands,
    sparkline,
    status_word,
    to_datetime_local,
)
from jobmon.humanize import duration, grouped, percent
from jobmon.page_addresses import instant, query

from ..conftest import DATE, NOW

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.4, "0 ms"),
        (999, "999 ms"),
        (999.6, "1 s"),
        (SECOND, "1 s"),
        (2_540, "2.5 s"),
        (9_940, "9.9 s"),
        (10 * SECOND, "10 s"),
        (59_900, "59 s"),
        (59_999.7, "1 min"),
        (MINUTE, "1 min"),
        (200 * SECOND, "3 min 20 s"),
        (HOUR - 1, "59 min 59 s"),
        (HOUR, "1 h"),
        (HOUR + 59 * SECOND, "1 h"),
        (DAY - MINUTE, "23 h 59 min"),
        (DAY, "1 d"),
        (DAY + 5 * HOUR + 59 * MINUTE, "1 d 5 h"),
        (10**15, "11,574,074 d 1 h"),
    ],
)
def test_duration_has_at_most_two_units(ms: float | None, expected: str) -> None:
    assert duration(ms) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(None, "–"), (0, "0"), (999, "999"), (12_345, "12,345"), (-1_000, "-1,000"), (1.5, "1.5")],
)
def test_grouped_separates_thousands(number: float | None, expected: str) -> None:
    assert grouped(number) == expected


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (None, "–"),
        (0, "0%"),
        (0.0001, "<0.1%"),
        (0.01, "1%"),
        (0.0123, "1.2%"),
        (0.1, "10%"),
        (0.456, "46%"),
        (1, "100%"),
    ],
)
def test_percent_has_a_decimal_below_ten_percent_unless_the_decimal_is_zero(
    fraction: float | None, expected: str
) -> None:
    assert percent(fraction) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "none"),
        ("leased", "running"),
        ("failed", "retrying"),
        ("dlq", "dead"),
        ("Odd", "Odd"),
    ],
)
def test_status_word_translates_only_known_statuses(status: str | None, expected: str) -> None:
    assert status_word(status) == expected


def test_instant_formats_a_moment_and_keeps_a_text_unchanged() -> None:
    moment = NOW.replace(microsecond=123_000)
    assert instant(moment) == f"{DATE}T03:00:00.123Z"
    assert instant("last Tuesday") == "last Tuesday"
    assert instant(None) == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PROD", "prod"),
        ("production eu-1", "prod"),
        ("pre-prod", "staging"),
        ("NonProd", "staging"),
        ("Staging", "staging"),
        ("dev2", "dev"),
        ("product", "1"),
        ("EU", "0"),
        ("Größe", "1"),
    ],
)
def test_environment_kind_depends_on_a_word_or_the_hash_of_the_name(name: str, kind: str) -> None:
    assert environment_kind(name) == kind


def test_mark_commands_marks_only_commands_of_jobmon_and_escapes_the_text() -> None:
    marked = mark_commands("<b> `<i>` `jobmon init`")
    assert marked == "&lt;b&gt; `&lt;i&gt;` <code>jobmon init</code>"


FLAT_VALUES: list[float | None] = [5.0] * 20
FLAT_PATH = "M0.0,2.0" + "".join(f"L{index * 100 / 19:.1f},2.0" for index in range(1, 20))


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ([], ""),
        ([None, None], ""),
        ([5.0] * 19, ""),  # too few for a trend
        (FLAT_VALUES, FLAT_PATH),
        ([0.0] * 20, FLAT_PATH.replace(",2.0", ",23.0")),  # 0 is the lower edge
        ([None, *FLAT_VALUES, None, None], FLAT_PATH),
    ],
)
def test_sparkline_is_a_line_from_zero_over_the_full_width(
    values: list[float | None], path: str
) -> None:
    assert sparkline(values) == path


def test_sparkline_has_gaps_and_a_dot_for_a_value_between_two_gaps() -> None:
    path = sparkline([*FLAT_VALUES, None, 2.5, None, 5.0])
    assert path.endswith("M91.3,12.5h0M100.0,2.0h0")  # `h0` draws a dot


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ""),
        ({"a": None, "b": "", "c": (), "d": []}, ""),
        ({"type": "a b&c=<d>"}, "?type=a+b%26c%3D%3Cd%3E"),
        ({"type": "ü\u202e"}, "?type=%C3%BC%E2%80%AE"),
        ({"status": ("failed", "dlq"), "page": 2}, "?status=failed&status=dlq&page=2"),
        ({"n": 0}, "?n=0"),
    ],
)
def test_query_leaves_out_empty_parameters(parameters: dict[str, Any], expected: str) -> None:
    assert query(**parameters) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (f"{DATE}T03:00:59.999Z", f"{DATE}T03:00"),
        (f"{DATE}T03:00+02:00", f"{DATE}T03:00"),
        ("yesterday", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_to_datetime_local_drops_seconds_and_zone_and_is_empty_for_a_bad_moment(
    moment: str | None, expected: str
) -> None:
    assert to_datetime_local(moment) == expected
