"""The formatter: would catch a secret in a line, a line that no machine can read, and a stack that
quotes the data that it stumbled over."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from jobmon import logs
from jobmon.settings import Settings

from .conftest import SECRET

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb290In0.c2lnbmF0dXJl"
PASSWORD = "pass%2Fword-of-the-reader"


@pytest.fixture
def line(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What one record is logged as."""
    monkeypatch.setattr(logs, "_secrets", set())
    uri = f"mongodb://reader:{PASSWORD}@one:27017,two:27017/shop"
    logs.hide(make_settings(mongo_uri=uri))

    def line(message: str, *arguments: Any, error: BaseException | None = None) -> dict[str, Any]:
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord("some", 30, "", 0, message, arguments, exc_info)
        formatted = logs._formatter(readable=False).format(record)
        assert "\n" not in formatted
        told: dict[str, Any] = json.loads(formatted)
        return told

    return line


def test_a_line_is_one_json_object_that_begins_with_when_and_how_bad(line: Any) -> None:
    told = line("two\nlines of %s", "Grüße")
    assert list(told)[:4] == ["timestamp", "level", "logger", "event"]
    assert (told["level"], told["logger"]) == ("warning", "some")
    assert told["event"] == "two\nlines of Grüße"
    assert told["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"key {SECRET}!", "key [redacted]!"),
        ("pass/word-of-the-reader", "[redacted]"),
        (PASSWORD, "[redacted]"),
        (f"got {TOKEN}", "got [redacted]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("redis://user:short@host:1/0 is away", "redis://user:[redacted]@host:1/0 is away"),
    ],
)
def test_no_secret_is_logged(line: Any, message: str, shown: str) -> None:
    assert line(message)["event"] == shown
    assert line("%s", message)["event"] == shown


def test_an_exception_is_its_stack_without_the_data_that_it_quotes(line: Any) -> None:
    pin = "-".join(["47", "11"])

    def fails(pin: str) -> None:
        try:
            int(pin)
        except ValueError as error:
            raise OperationFailure(pin, 2, {"codeName": "BadValue"}) from error

    try:
        fails(pin)
    except OperationFailure as error:
        told = line("failed", error=error)["exception"]
    assert "in fails" in told
    assert "ValueError\nwhich led to:" in told
    assert told.endswith("OperationFailure BadValue")
    assert pin not in told
    assert "invalid literal" not in told


def test_what_an_exception_says_of_the_machine_is_kept(line: Any) -> None:
    assert line("failed", error=FileNotFoundError(2, "No such file", "/x"))["exception"] == (
        "FileNotFoundError: [Errno 2] No such file: '/x'"
    )


# Each shows a text as another one, or moves the cursor: directions, C1 controls, line separators.
MISLEADING = "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\x7f\x80\x85\x9b\x9f"
MISLEADING += "\u2028\u2029\ufeff\u200b\U000e0041"


def structured(event: str, error: BaseException, **values: Any) -> logging.LogRecord:
    """A record as structlog hands it to the formatter."""
    message: Any = {"event": event, "exc_info": error, **values}
    record = logging.LogRecord("some", 30, "", 0, message, (), None)
    vars(record).update(_logger=None, _name="warning")
    return record


def test_a_line_never_looks_like_another_one(line: Any) -> None:
    formatter = logs._formatter(readable=False)
    for character in MISLEADING:
        told = f"a{character}b"
        error = FileNotFoundError(2, told)
        formatted = formatter.format(structured(told, error, address=told, more=[{"a": told}]))
        assert character not in formatted
        assert json.loads(formatted)["event"] == json.loads(formatted)["address"] == told
        assert told in json.loads(formatted)["exception"]


def test_a_line_on_a_terminal_never_looks_like_another_one() -> None:
    formatter = logs._formatter(readable=True)
    plain = formatter.format(structured("ab", OSError(), address="ab", more=1)).partition("\n")[0]
    for character in MISLEADING + "\0\x07\b\r\n\x1b":
        told = f"a{character}b"
        error = FileNotFoundError(2, told)
        shown = formatter.format(structured(told, error, address=told, more=[{"a": told}]))
        first, _, stack = shown.partition("\n")
        assert f"a{json.dumps(character)[1:-1]}b" in first
        assert first.count("\x1b") == plain.count("\x1b")  # the colours alone
        assert "\nb" not in stack
        assert character in "\x1b\n" or character not in shown
        assert "FileNotFoundError" in stack


def test_on_a_terminal_lines_are_for_people_and_else_json() -> None:
    program = "from jobmon import logs; import logging; logs.configure('INFO');"
    program += "logging.getLogger('some').warning('a %s', 'word')"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=theirs)
    os.close(theirs)
    seen = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "a word" in seen
    assert "{" not in seen
    piped = subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.PIPE)
    assert json.loads(piped.stderr)["event"] == "a word"


def test_logging_that_is_set_up_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure("DEBUG")
    assert (root.handlers, root.level) == (before, level)
    assert logging.getLogger("pymongo").level == logging.INFO
