"""Groups errors by code, message without variable parts, and function of the application."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from jobmon.diagnosis.error_texts import NAMED, find_headline, read_texts
from jobmon.diagnosis.message_pattern import mask_message
from jobmon.diagnosis.stack_frame import find_own_frame

MAX_CODE_LENGTH = 200
OTHER_MESSAGES = "(other messages)"
# A group is new for an hour, and ongoing if an error was seen in the last quarter of an hour.
NEW_FOR, ONGOING_FOR = timedelta(hours=1), timedelta(minutes=15)
# A group that is first seen so soon after counting began may be older.
UNCERTAIN_FOR = timedelta(minutes=15)

_SYSTEM_CODE = re.compile(r"\s{0,20}(E[A-Z][A-Z0-9]{2,20}|ERR_[A-Z0-9_]{3,60})\s{0,20}")


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What all errors of one group share; `id` is the same in every process.

    `pattern` is the message with its variable parts masked, empty if there is no message. `frame`
    is the function and the file of the application, not of a library, that raised the error.
    """

    id: str
    code: str | None
    pattern: str
    frame: str | None


class GroupStatus(StrEnum):
    """Whether the errors of a group are new, ongoing, or have stopped."""

    NEW = "new"
    ONGOING = "ongoing"
    QUIET = "quiet"


def classify_error(error: Any) -> ErrorKind:
    """The kind of an error in any form that `read_texts` reads; never raises.

    If the error has no code, its code is the first of these: the name or the bracketed code with
    which the message begins (`TypeError: …`); the code in the stack's headline; a message that is
    only a system code (`ECONNRESET`).
    """
    code, message, stack = read_texts(error)
    code = _find_code(code, message, stack)
    pattern = mask_message(_remove_code(message or "", code))
    return _make_kind(code, pattern, find_own_frame(stack) if stack else None)


def fold_kind(kind: ErrorKind) -> ErrorKind:
    """The kind `(other messages)` of a code, for errors of kinds that have no own group."""
    digest = hashlib.sha256(f"{OTHER_MESSAGES}\0{kind.code}".encode()).hexdigest()
    return ErrorKind(id=digest[:16], code=kind.code, pattern=OTHER_MESSAGES, frame=None)


def group_status(
    first_seen: datetime,
    last_seen: datetime,
    now: datetime,
    counting_since: datetime | None = None,
) -> GroupStatus:
    """The status of a group of errors; all times are UTC.

    New: first seen in the hour before `now`, and at least 15 minutes after counting began
    (`counting_since`), because a group that is first seen sooner may be older. Ongoing: not new,
    and last seen in the 15 minutes before `now`. Otherwise quiet.
    """
    is_certain = counting_since is None or first_seen - counting_since >= UNCERTAIN_FOR
    if now - first_seen <= NEW_FOR and is_certain:
        return GroupStatus.NEW
    return GroupStatus.ONGOING if now - last_seen <= ONGOING_FOR else GroupStatus.QUIET


def _find_code(code: str | None, message: str | None, stack: str | None) -> str | None:
    if code is not None:
        return " ".join(code[: MAX_CODE_LENGTH * 2].split())[:MAX_CODE_LENGTH]
    if named := NAMED.match(message or ""):
        return named["code"] or named["name"]
    if headline := find_headline(stack):
        return headline.code
    system_code = _SYSTEM_CODE.fullmatch(message or "")
    return system_code[1] if system_code else None


def _remove_code(message: str, code: str | None) -> str:
    """The message without the code, or the name that ends in the code, with which it begins."""
    named = NAMED.match(message)
    if named and code in (named["name"], named["code"]):
        return message[named.end() :]
    name, colon, text = message.partition(": ")
    begins_with_code = code and colon and (name == code or name.endswith(f".{code}"))
    return text if begins_with_code else message


@lru_cache(4_096)
def _make_kind(code: str | None, pattern: str, frame: str | None) -> ErrorKind:
    key = json.dumps([code, pattern, frame])
    return ErrorKind(hashlib.sha256(key.encode()).hexdigest()[:16], code, pattern, frame)
