"""Groups errors by their cause: code, message without its variable parts, and own function."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from bson import Decimal128, ObjectId

from jobmon.diagnosis.message_pattern import mask_message
from jobmon.diagnosis.stack_frame import find_own_frame
from jobmon.domain import AttemptStatus
from jobmon.redaction.redactor import Redactor
from jobmon.store.bson_json import to_text
from jobmon.store.truncate import CUT

MAX_CODE_LENGTH = 200
MAX_MESSAGE, MAX_STACK = 1_000, 4_000  # characters that are classified
EXPIRED = "The lease expired before the worker reported an outcome."
OTHER_MESSAGES = "(other messages)"
# A group is new for an hour, and goes on while an error was seen in the last quarter of an hour.
NEW_FOR, ONGOING_FOR = timedelta(hours=1), timedelta(minutes=15)
# What is first seen so soon after counting began may be older.
UNCERTAIN_FOR = timedelta(minutes=15)

# `TypeError: …`, `java.io.IOException: …`, `Error [ERR_X]: …`; also without a message.
_NAMED = re.compile(
    r"\s{0,20}(?:Uncaught |Exception in thread \"[^\"\n]{0,80}\" )?"
    r"(?P<name>(?:[A-Za-z_$][\w$]{0,60}\.){0,10}[A-Z]\w{0,60}?"
    r"(?:Error|Exception|Failure|Fault|Interrupt|Timeout|Exit)|Error)"
    r"(?: \[(?P<code>[A-Z][A-Z0-9_]{2,60})\])?(?::(?:\s{1,3}|\Z)|\s{0,3}\Z|(?=\n))"
)
_SYSTEM_CODE = re.compile(r"\s{0,20}(E[A-Z][A-Z0-9]{2,20}|ERR_[A-Z0-9_]{3,60})\s{0,20}")
_TRACEBACK = "Traceback (most recent call last):"  # of Python
_HEADLINE_LENGTH = 400


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What errors of one group have in common; `id` is the same for every process.

    `pattern` is the message with its variable parts masked, empty if there is no message. `frame`
    is the function and the file of the own code in which the error was raised.
    """

    id: str
    code: str | None
    pattern: str
    frame: str | None


class GroupStatus(StrEnum):
    """Whether the errors of a group are new, go on, or have stopped."""

    NEW = "new"
    ONGOING = "ongoing"
    QUIET = "quiet"


def classify_error(error: Any) -> ErrorKind:
    """The kind of an error: `{code, message, stack}` with any BSON values, a text, or None.

    Never raises. Without `code` it is the name that begins the message (`TypeError: …`) or the
    stack.
    """
    code, message, stack = _read_parts(error)
    headline = _find_headline(stack)
    if message is None:
        message = headline
    named = _NAMED.match(message or "")
    if code is None:
        code = _derive_code(named, message, headline)
    if message and named and code in (named["name"], named["code"]):
        message = message[named.end() :]
    return _make_kind(
        code, mask_message(message) if message else "", find_own_frame(stack) if stack else None
    )


def prepare_error(error: Any, outcome: str | None, redactor: Redactor) -> Any:
    """What is classified of the error of a run: truncated, and without secrets.

    A stack is only truncated if there is a message: then it is only searched for one frame. None if
    there is no error.
    """
    if error is None and outcome == AttemptStatus.EXPIRED:
        return EXPIRED
    short = truncate_error(error)
    if not isinstance(short, dict):
        return _make_storable(redactor.redact(short))
    stack = short.pop("stack")
    prepared = {name: _make_storable(value) for name, value in redactor.redact(short).items()}
    is_headline = _read_parts(prepared)[1] is None  # the message is searched in the stack
    return prepared | {"stack": prepare_stack(stack, redactor) if is_headline else stack}


def prepare_stack(stack: Any, redactor: Redactor) -> Any:
    """A truncated stack without secrets, in valid Unicode."""
    return _make_storable(redactor.redact(stack))


def truncate_error(error: Any) -> Any:
    """The first characters of an error's texts; a code, message or stack of another type is None.

    >>> truncate_error({"code": 7, "message": ["x"], "input": "y"})
    {'code': 7, 'message': None, 'stack': None}
    """
    if not isinstance(error, dict):
        return _shorten(error, MAX_MESSAGE)
    lengths = {"code": MAX_MESSAGE, "message": MAX_MESSAGE, "stack": MAX_STACK}
    return {name: _shorten(error.get(name), length) for name, length in lengths.items()}


def fold_kind(kind: ErrorKind) -> ErrorKind:
    """The kind of all errors with this code for whose messages there are too many groups."""
    digest = hashlib.sha256(f"{OTHER_MESSAGES}\0{kind.code}".encode()).hexdigest()
    return ErrorKind(id=digest[:16], code=kind.code, pattern=OTHER_MESSAGES, frame=None)


def group_status(
    first_seen: datetime,
    last_seen: datetime,
    now: datetime,
    counting_since: datetime | None = None,
) -> GroupStatus:
    """The status of a group of errors: all times in UTC.

    New: first seen in the hour before `now`, and at least 15 minutes after errors began to be
    counted (`counting_since`), because earlier ones may be older. Ongoing: last seen in the 15
    minutes before `now`. Otherwise quiet.
    """
    is_certain = counting_since is None or first_seen - counting_since >= UNCERTAIN_FOR
    if now - first_seen <= NEW_FOR and is_certain:
        return GroupStatus.NEW
    return GroupStatus.ONGOING if now - last_seen <= ONGOING_FOR else GroupStatus.QUIET


def _shorten(value: Any, length: int) -> Any:
    """A text up to this length, or a number; None for any other value.

    The last word is left out: a half of a secret has no form by which it is found.
    """
    if isinstance(value, str):
        text = value[:length]
        end = max(text.rfind(" "), text.rfind("\n"))
        return text if len(value) < length or end < 0 else f"{text[:end]} {CUT}"
    return value if isinstance(value, int | float | Decimal128 | ObjectId) else None


def _make_storable(value: Any) -> Any:
    """A text from JSON may have halves of characters, which no database stores."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _read_parts(error: Any) -> tuple[str | None, str | None, str | None]:
    """Code, message and stack as texts; empty ones count as absent."""
    if not isinstance(error, dict):
        error = {"message": error}
    code = _read_text(error.get("code"))
    message, stack = _read_text(error.get("message")), _read_text(error.get("stack"))
    if message is not None and stack is None and "\n" in message:
        stack = message
    if message is not None and message.startswith(_TRACEBACK):
        message = None
    return _clean_code(code), message, stack


def _read_text(value: Any) -> str | None:
    if isinstance(value, list):
        value = ", ".join(map(to_text, value))
    elif value is not None:
        value = to_text(value)
    return (value or "").strip() or None


def _clean_code(code: str | None) -> str | None:
    return " ".join(code[: MAX_CODE_LENGTH * 2].split())[:MAX_CODE_LENGTH] if code else None


def _find_headline(stack: str | None) -> str | None:
    """The line of a stack that has name and message: the last of Python's, else the first."""
    if stack is None:
        return None
    if stack.startswith(_TRACEBACK):
        last = stack[-_HEADLINE_LENGTH:].rstrip().rpartition("\n")[2]
        return last if _NAMED.match(last) else None
    first = stack[:_HEADLINE_LENGTH].partition("\n")[0]
    return first if _NAMED.match(first) else None


def _derive_code(
    named: re.Match[str] | None, message: str | None, headline: str | None
) -> str | None:
    found = named or _NAMED.match(headline or "")
    if found:
        return found["code"] or found["name"]
    system = _SYSTEM_CODE.fullmatch(message or "")
    return system[1] if system else None


@lru_cache(4_096)
def _make_kind(code: str | None, pattern: str, frame: str | None) -> ErrorKind:
    key = json.dumps([code, pattern, frame])
    return ErrorKind(hashlib.sha256(key.encode()).hexdigest()[:16], code, pattern, frame)
