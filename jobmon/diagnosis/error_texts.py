"""Reads the code, the message and the stack of an error, and removes secrets from them."""

import re
from typing import Any, NamedTuple

from jobmon.diagnosis.stack_frame import TRACEBACK, find_python_error, find_stack
from jobmon.domain import AttemptStatus
from jobmon.redaction.redactor import Redactor
from jobmon.store.bson_json import to_text
from jobmon.store.short_errors import GAP, HEAD, MAX_LINE_LENGTH, TAIL, shorten_error
from jobmon.store.truncate import CUT

EXPIRED = "The lease expired before the worker reported an outcome."

# `TypeError: …`, `java.io.IOException: …`, `Error [ERR_X]: …`; also without a message.
NAMED = re.compile(
    r"\s{0,20}(?:Uncaught |Exception in thread \"[^\"\n]{0,80}\" )?"
    r"(?P<name>(?:[A-Za-z_$][\w$]{0,60}\.){0,10}[A-Z]\w{0,60}?"
    r"(?:Error|Exception|Failure|Fault|Interrupt|Timeout|Exit)|Error)"
    r"(?: \[(?P<code>[A-Z][A-Z0-9_]{2,60})\])?(?::(?:\s{1,3}|\Z)|\s{0,3}\Z|(?=\n))"
)
# A traceback of Python ends with the name of any class: `shop.models.User.DoesNotExist: …`.
_PYTHON_NAMED = re.compile(r"((?:[A-Za-z_<][\w>]{0,60}\.){0,10}[A-Za-z_]\w{0,60})(?::\s|:?\Z)")
_WORD_ENDS = frozenset(" \t\r\n,;\"'<>(){}[]")
_DIGITS_AND_SEPARATORS = "0123456789 ._-\u2010\u2011\u2012\u2013\u2014\u2015"
# The line break after the cut in a shortened stack, as `_drop_cut_parts` leaves it.
_SEAM = re.compile(rf"(?<= {CUT})\n")


class ErrorTexts(NamedTuple):
    """The texts of an error; None for a text that is missing or empty."""

    code: str | None
    message: str | None
    stack: str | None


class Headline(NamedTuple):
    """The line of a stack that names the error. `code`: the name, or the code in brackets."""

    text: str
    code: str


def read_texts(error: Any) -> ErrorTexts:
    """The texts of `{code, message, stack}` with any BSON values, of a text, or of None.

    A stack inside the message is cut off; without another stack, the whole message is the stack.
    Without a message, the headline of the stack is the message.
    """
    if isinstance(error, ErrorTexts):
        error = error._asdict()
    elif not isinstance(error, dict):
        error = {"message": error}
    code, message, stack = (_read_text(error.get(name)) for name in ErrorTexts._fields)
    if message is not None and (start := find_stack(message)) is not None:
        stack = stack or message
        message = message[:start].partition(TRACEBACK)[0].strip(" ,\n") or None
    if message is None and (headline := find_headline(stack)) is not None:
        message = headline.text
    return ErrorTexts(code, message, stack)


def find_headline(stack: str | None) -> Headline | None:
    """The headline of a stack, at most 1,000 characters: last in Python, else in the first line."""
    if stack is None:
        return None
    first = stack[:MAX_LINE_LENGTH].partition("\n")[0]
    if named := NAMED.match(first):
        return Headline(first, named["code"] or named["name"])
    last = find_python_error(stack)[:MAX_LINE_LENGTH]
    return Headline(last, match[1]) if (match := _PYTHON_NAMED.match(last)) else None


def prepare_error(error: Any, outcome: str | None, redactor: Redactor) -> ErrorTexts | None:
    """The shortened texts of the error of a run, the code and the message without secrets.

    The stack can still contain secrets: call `prepare_stack` before you store it. None if there is
    no error; a run with the outcome `expired` always has one.
    """
    if error is None and outcome != AttemptStatus.EXPIRED:
        return None
    shortened = shorten_error(EXPIRED if error is None else error)
    parts = shortened if isinstance(shortened, dict) else {"message": shortened}
    code, message, stack = read_texts({name: _drop_cut_parts(part) for name, part in parts.items()})
    if message is not None and len(message) > MAX_LINE_LENGTH + len(CUT) + 1:
        message = _drop_last_word(message[:MAX_LINE_LENGTH])
    redacted = redactor.redact({"code": code, "message": message})
    return ErrorTexts(_make_storable(redacted["code"]), _make_storable(redacted["message"]), stack)


def prepare_stack(stack: str, redactor: Redactor) -> str:
    """A stack from `prepare_error` without secrets, in valid Unicode."""
    parts = [redactor.redact({"stack": part})["stack"] for part in _SEAM.split(stack)]
    return str(_make_storable("\n".join(parts)))


def _drop_cut_parts(text: Any) -> Any:
    """A shortened text without the words at its cuts: half a secret would not be recognized.

    A line that was cut loses its last word. A text of several lines keeps only complete lines and,
    after the gap, only the lines from the next frame on.
    """
    if not isinstance(text, str):
        return text
    if "\n" not in text:
        return text if len(text) < MAX_LINE_LENGTH else _drop_last_word(text)
    if len(text) != HEAD + len(GAP) + TAIL or not text.startswith(GAP, HEAD):
        return text
    first, _, last = text[:HEAD].rpartition("\n")
    head = f"{first.rstrip()} {CUT}" if first.strip() else _drop_last_word(last)
    tail = text[HEAD + len(GAP) :].partition("\n")[2]
    start = find_stack(tail)
    return head if start is None else f"{head}\n{tail[start:]}"


def _drop_last_word(text: str) -> str:
    """A text without its last word, and without a number before it that may belong to the word."""
    end = len(text)
    while end and not _ends_word(text[end - 1]):
        end -= 1
    return f"{text[:end].rstrip(_DIGITS_AND_SEPARATORS)} {CUT}"


def _ends_word(character: str) -> bool:
    return character in _WORD_ENDS or not (character.isascii() or character.isalnum())


def _make_storable(value: Any) -> Any:
    """`value`; a text gets `?` for each surrogate, because a database cannot store surrogates."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _read_text(value: Any) -> str | None:
    if isinstance(value, list):
        value = ", ".join(map(to_text, value))
    elif value is not None:
        value = to_text(value)
    return (value or "").strip() or None
