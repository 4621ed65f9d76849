"""Kinds of errors: catches an error that cannot be classified, or whose id differs between
processes."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from jobmon.diagnosis.error_kinds import GroupStatus, classify_error, group_status
from jobmon.rollup.buckets import MINUTE

from ..conftest import NOW

STACK = """TypeError: order.items is not iterable
    at sum (/app/node_modules/lodash/sum.js:3:1)
    at Cart.total (/app/cart.js:3:14)"""


@pytest.mark.parametrize(
    ("error", "code", "pattern"),
    [
        ({"code": "E_CARD", "message": "card 4 declined"}, "E_CARD", "card <value> declined"),
        ({"code": 11000, "message": "duplicate"}, "11000", "duplicate"),
        ({"code": 404.0, "message": None}, "404", ""),
        ({"code": "TypeError", "message": "TypeError: x is null"}, "TypeError", "x is null"),
        ({"code": "E1", "message": "TypeError: x is null"}, "E1", "TypeError: x is null"),
        ({"message": ["card declined", 402]}, None, "card declined, <value>"),
        ("TypeError: x is not a function", "TypeError", "x is not a function"),
        ("Error [ERR_BAD_URL]: bad", "ERR_BAD_URL", "bad"),
        ("java.io.IOException: closed", "java.io.IOException", "closed"),
        ("pymongo.errors.DuplicateKeyError: E11000", "pymongo.errors.DuplicateKeyError", "E11000"),
        ("ETIMEDOUT", "ETIMEDOUT", "ETIMEDOUT"),
        ("SMTP 550 mailbox unavailable", None, "SMTP 550 mailbox unavailable"),
        ("Note: this is a sentence", None, "Note: this is a sentence"),
        (f"{STACK}\n", "TypeError", "order.items is not iterable"),
        ({"message": "boom", "stack": "Error: boom\n    at /app/a.js:1:1"}, "Error", "boom"),
        ({"stack": STACK}, "TypeError", "order.items is not iterable"),
        ("Traceback (most recent call last):\n  File \"/a.py\", line 1\nKeyError: 'x'",
         "KeyError", "<text>"),
        ("Traceback (most recent call last):\n  File \"/a.py\", line 1\n    f(…", None, ""),
        (None, None, ""),
        ("", None, ""),
        ({}, None, ""),
        ({"code": "", "message": " ", "stack": ""}, None, ""),
        (503, None, "<value>"),
    ],
)  # fmt: skip
def test_classify_error_reads_each_form(error: Any, code: str | None, pattern: str) -> None:
    kind = classify_error(error)
    assert (kind.code, kind.pattern) == (code, pattern)


def test_classify_error_with_a_stack_has_the_frame_of_the_application() -> None:
    assert classify_error(STACK).frame == "Cart.total (/app/cart.js)"
    assert classify_error({"message": "x", "stack": STACK}).frame == "Cart.total (/app/cart.js)"


def test_classify_error_of_one_cause_has_one_kind() -> None:
    errors = [
        {"code": "E", "message": f"order {uuid4()} failed after {ms} ms", "stack": STACK}
        for ms in (5, 3_000)
    ]
    assert classify_error(errors[0]) == classify_error(errors[1])


@pytest.mark.parametrize(
    "error",
    [
        {"code": "E2", "message": "boom"},
        {"code": "E", "message": "bang"},
        {"code": "E", "message": "boom", "stack": STACK},
        {"code": None, "message": "boom"},
        {"code": "E", "message": ""},
    ],
)
def test_classify_error_with_another_code_message_or_frame_has_another_id(error: Any) -> None:
    assert classify_error({"code": "E", "message": "boom"}).id != classify_error(error).id


def test_classify_error_in_another_process_has_the_same_id() -> None:
    """Catches ids that depend on the process, such as Python's own hash."""
    script = (
        "from jobmon.diagnosis.error_kinds import classify_error;"
        "print(classify_error({'code': 'E', 'message': 'boom é 7'}).id, end='')"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert process.stdout == classify_error({"code": "E", "message": "boom é 7"}).id
    assert process.stdout == "2ff6435b265eae07"  # ids are stored, so they must never change


BSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=20)
    | st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC))
    | st.sampled_from(
        [
            ObjectId(),
            Binary(b"x" * 16, 4),
            Code("f()", {"x": 1}),
            DBRef("c", 1),
            Decimal128("1E+6000"),
            Int64(1),
            MaxKey(),
            Regex("^x"),
            Timestamp(1, 1),
            datetime(1, 1, 1, tzinfo=UTC),
            "\ud800 half of a character",
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(BSON | st.fixed_dictionaries({"code": BSON, "message": BSON, "stack": BSON}))
def test_classify_error_of_any_value_never_raises(error: Any) -> None:
    kind = classify_error(error)
    assert len(kind.id) == 16
    assert set(kind.id) <= set("0123456789abcdef")
    assert kind.code is None or 0 < len(kind.code) <= 200
    assert len(kind.pattern) <= 300
    assert kind.frame is None or 0 < len(kind.frame) <= 200
    assert classify_error(error) == kind


@pytest.mark.parametrize(
    ("first_seen_min", "last_seen_min", "counting_min", "status"),
    [
        (30, 1, 600, GroupStatus.NEW),
        (30, 29, 600, GroupStatus.NEW),
        (60, 0, 600, GroupStatus.NEW),
        (61, 15, 600, GroupStatus.ONGOING),
        (61, 16, 600, GroupStatus.QUIET),
        (30, 1, 40, GroupStatus.ONGOING),  # its first error may have come before counting began
        (30, 20, 40, GroupStatus.QUIET),
        (30, 1, 45, GroupStatus.NEW),
    ],
)
def test_group_status_at_each_threshold(
    first_seen_min: int, last_seen_min: int, counting_min: int, status: GroupStatus
) -> None:
    """The numbers are minutes before `NOW`; counting began `counting_min` minutes before it."""
    ages_min = (first_seen_min, last_seen_min, counting_min)
    first_seen, last_seen, counting_since = (NOW - age * MINUTE for age in ages_min)
    assert group_status(first_seen, last_seen, NOW, counting_since) is status


def test_group_status_without_a_known_start_of_counting_is_new() -> None:
    assert group_status(NOW - 30 * MINUTE, NOW, NOW) is GroupStatus.NEW
