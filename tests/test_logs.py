"""The log: catches a secret in a line, a line that is not JSON, and data in an exception's text."""

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
from jobmon.logs import LogFormatter
from jobmon.settings import Settings, load_queues

from .conftest import SECRET, unconfigured_log

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb290In0.c2lnbmF0dXJl"
PASSWORD = "pass%2Fword-of-the-reader"
CLIENT_SECRET = "what the identity provider knows"


@pytest.fixture
def format_line(make_settings: Callable[..., Settings]) -> Any:
    """A function that formats a message and returns the line's JSON as a dictionary."""
    uri = f"mongodb://reader:{PASSWORD}@one:27017,two:27017/shop"
    formatter = LogFormatter(is_terminal=False)
    settings = make_settings(mongo_uri=uri, oidc_client_secret=CLIENT_SECRET)
    formatter.secrets.update(logs.find_secrets(settings, load_queues(settings)))

    def format_message(
        message: str, *arguments: Any, error: BaseException | None = None
    ) -> dict[str, Any]:
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord("some", logging.WARNING, "", 0, message, arguments, exc_info)
        line = formatter.format(record)
        assert "\n" not in line
        fields: dict[str, Any] = json.loads(line)
        return fields

    return format_message


def test_a_line_is_one_json_object_that_begins_with_time_and_level(format_line: Any) -> None:
    values = format_line("two\nlines of %s", "Grüße")
    assert list(values)[:4] == ["timestamp", "level", "logger", "event"]
    assert (values["level"], values["logger"]) == ("warning", "some")
    assert values["event"] == "two\nlines of Grüße"
    assert values["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (f"key {SECRET}!", "key [redacted]!"),
        (f"client {CLIENT_SECRET}.", "client [redacted]."),
        ("pass/word-of-the-reader", "[redacted]"),
        (PASSWORD, "[redacted]"),
        (f"got {TOKEN}", "got [redacted]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("Basic YWRhOmIxcmNo and basic checks", "Basic [redacted] and basic checks"),
        ("redis://user:short@host:1/0 is away", "redis://user:[redacted]@host:1/0 is away"),
    ],
)
def test_no_secret_is_logged(format_line: Any, message: str, event: str) -> None:
    assert format_line(message)["event"] == event
    assert format_line("%s", message)["event"] == event


def test_an_exception_is_logged_with_its_stack_and_without_its_message(format_line: Any) -> None:
    pin = "-".join(["47", "11"])  # no literal, because the stack quotes lines of this file

    def raise_error(pin: str) -> None:
        try:
            int(pin)
        except ValueError as error:
            raise OperationFailure(pin, 2, {"codeName": "BadValue"}) from error

    try:
        raise_error(pin)
    except OperationFailure as error:
        exception = format_line("failed", error=error)["exception"]
    assert "in raise_error" in exception
    assert "ValueError\nwhich led to:" in exception
    assert exception.endswith("OperationFailure BadValue")
    assert pin not in exception
    assert "invalid literal" not in exception


def test_the_message_of_an_os_error_is_logged(format_line: Any) -> None:
    assert format_line("failed", error=FileNotFoundError(2, "No such file", "/x"))["exception"] == (
        "FileNotFoundError: [Errno 2] No such file: '/x'"
    )


# Characters that change how a text looks or move the cursor: writing directions, C1 controls, line
# separators, invisible characters.
MISLEADING = "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\x7f\x80\x85\x9b\x9f"
MISLEADING += "\u2028\u2029\ufeff\u200b\U000e0041"


def make_structlog_record(
    event: str, error: BaseException | bool, **values: Any
) -> logging.LogRecord:
    """A record as structlog passes it to the formatter; with True, `error` is the current one."""
    message: Any = {"event": event, "exc_info": error, **values}
    record = logging.LogRecord("some", logging.WARNING, "", 0, message, (), None)
    vars(record).update(_logger=None, _name="warning")
    return record


def test_the_current_exception_of_a_structlog_event_is_logged_with_its_stack() -> None:
    try:
        raise LookupError
    except LookupError:
        line = LogFormatter(is_terminal=False).format(make_structlog_record("failed", True))
    assert "in test_the_current_exception" in json.loads(line)["exception"]


def test_misleading_characters_are_escaped_in_a_json_line() -> None:
    formatter = LogFormatter(is_terminal=False)
    for character in MISLEADING:
        text = f"a{character}b"
        error = FileNotFoundError(2, text)
        record = make_structlog_record(text, error, address=text, nested=[{"a": text}])
        line = formatter.format(record)
        assert character not in line
        assert json.loads(line)["event"] == json.loads(line)["address"] == text
        assert text in json.loads(line)["exception"]


def test_misleading_characters_are_escaped_in_a_line_on_a_terminal() -> None:
    formatter = LogFormatter(is_terminal=True)
    record = make_structlog_record("ab", OSError(), address="ab", nested=1)
    harmless_line = formatter.format(record).partition("\n")[0]
    for character in MISLEADING + "\0\x07\b\r\n\x1b":
        text = f"a{character}b"
        error = FileNotFoundError(2, text)
        record = make_structlog_record(text, error, address=text, nested=[{"a": text}])
        output = formatter.format(record)
        first_line, _, stack = output.partition("\n")
        assert f"a{json.dumps(character)[1:-1]}b" in first_line
        assert first_line.count("\x1b") == harmless_line.count("\x1b")  # only the colour codes
        assert "\nb" not in stack
        assert character in "\x1b\n" or character not in output
        assert "FileNotFoundError" in stack


def test_lines_are_readable_on_a_terminal_and_json_otherwise() -> None:
    program = "from jobmon import logs; import logging; logs.configure('INFO');"
    program += "logging.getLogger('some').warning('a %s', 'word')"
    screen, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=terminal)
    os.close(terminal)
    output = os.read(screen, 10_000).decode()
    os.close(screen)
    assert "a word" in output
    assert "{" not in output
    piped = subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.PIPE)
    assert json.loads(piped.stderr)["event"] == "a word"


def test_lines_of_threads_are_not_mixed() -> None:
    program = """
import logging, threading
from jobmon import logs
logs.configure("INFO")
def work(name):
    for number in range(50):
        logging.getLogger("some").warning("%s", f"{name} {number} " + "ü" * 1_500)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    piped = subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.PIPE)
    events = [json.loads(line)["event"] for line in piped.stderr.splitlines()]
    expected = [f"{name} {number} {'ü' * 1_500}" for name in "abcdefgh" for number in range(50)]
    assert sorted(events) == sorted(expected)


def test_a_line_that_is_written_in_parts_is_complete() -> None:
    program = """
import logging, os
from jobmon import logs
logs.configure("INFO")
write = os.write
os.write = lambda file, data: write(file, data[:100])  # as if a signal came after 100 bytes
logging.getLogger("some").warning("%s", "x" * 1_000 + "\\ud800")
"""
    piped = subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.PIPE)
    assert json.loads(piped.stderr)["event"] == "x" * 1_000 + "\ud800"


def test_the_secrets_of_every_app_of_a_process_are_hidden(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with unconfigured_log():
        logs.configure("INFO", {"secret of one"})
        logs.configure("INFO", {"secret of two"})
        logging.getLogger("some").warning("secret of one, secret of two")
    (logged,) = capfd.readouterr().err.splitlines()
    assert json.loads(logged)["event"] == "[redacted], [redacted]"


def test_configure_keeps_the_handlers_and_the_level_of_another_program() -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    assert handlers  # pytest's
    logs.configure("DEBUG")
    assert (root.handlers, root.level) == (handlers, level)
    assert logging.getLogger("pymongo").level == logging.INFO


def test_an_event_is_one_line_without_secrets() -> None:
    """Catches an event with a secret or a nested value that gets only the fast formatting."""
    formatter = LogFormatter(is_terminal=False)
    formatter.secrets.add("the-key-of-tokens")

    def format_event(**fields: Any) -> dict[str, Any]:
        record = logging.LogRecord("some", logging.INFO, "", 0, "", (), None)
        event = {"logger": "some", "event": "request", "level": "info", "timestamp": "now"}
        record.__dict__ |= {"msg": event | fields, "_logger": None, "_name": "info"}
        line = formatter.format(record)
        assert not {"\u202e", "\n"} & set(line)
        values: dict[str, Any] = json.loads(line)
        assert list(values)[:4] == ["timestamp", "level", "logger", "event"]
        return {name: values[name] for name in fields}

    fields = {"user": "ü", "status": 200, "duration_ms": 1.5, "reason": None, "is_late": True}
    assert format_event(**fields) == fields
    assert format_event(user=f"Bearer {TOKEN}") == {"user": "Bearer [redacted]"}
    assert format_event(user="x the-key-of-tokens", status=2) == {
        "user": "x [redacted]",
        "status": 2,
    }
    assert format_event(user="a\u202eb\n{") == {"user": "a\u202eb\n{"}
    assert format_event(user="\ud800", status=2**70) == {"user": "\ud800", "status": 2**70}
    assert format_event(nested=[TOKEN, {"a": 1}]) == {"nested": ["[redacted]", {"a": 1}]}
