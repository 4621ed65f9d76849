"""Shortens errors, in Python or in the database, with the same result.

A text of several lines keeps both ends, because it may be a stack. Python prints the frame that
raised the error last, and the JVM prints the root cause last; other languages print them first.
"""

from typing import Any

from bson import Decimal128, ObjectId

from jobmon.store.truncate import CUT

MAX_LINE_LENGTH = 1_000  # characters of a text with one line
HEAD, TAIL = 4_000, 6_000  # characters of a longer text with several lines
GAP = f"\n{CUT}\n"  # between the two ends
_PARTS = ("code", "message", "stack")
_NUMBERS = ("int", "long", "double", "decimal", "bool", "objectId")


def shorten_error(error: Any) -> Any:
    """An error with shortened texts; a value of an unexpected type becomes None.

    >>> shorten_error({"code": 7, "message": ["x"], "input": "y"})
    {'code': 7, 'message': None, 'stack': None}
    """
    if not isinstance(error, dict):
        return _shorten_text(error)
    return {name: _shorten_text(error.get(name)) for name in _PARTS}


def make_short_error_expression(error: str) -> dict[str, Any]:
    """`shorten_error` for the error at a path, as an aggregation expression."""
    parts = {name: _make_short_text_expression(f"{error}.{name}") for name in _PARTS}
    is_document = {"$eq": [{"$type": error}, "object"]}
    return {"$cond": [is_document, parts, _make_short_text_expression(error)]}


def _shorten_text(value: Any) -> Any:
    if type(value) is not str:  # BSON code is a subclass of str
        return value if isinstance(value, int | float | Decimal128 | ObjectId) else None
    if "\n" not in value:
        return value[:MAX_LINE_LENGTH]
    is_short = len(value) <= HEAD + len(GAP) + TAIL
    return value if is_short else f"{value[:HEAD]}{GAP}{value[-TAIL:]}"


def _make_short_text_expression(value: str) -> dict[str, Any]:
    number = {"$cond": [{"$in": [{"$type": value}, list(_NUMBERS)]}, value, None]}
    length, has_lines = {"$strLenCP": value}, {"$gte": [{"$indexOfCP": [value, "\n"]}, 0]}
    head = {"$substrCP": [value, 0, HEAD]}
    tail = {"$substrCP": [value, {"$subtract": [length, TAIL]}, TAIL]}
    is_short = {"$lte": [length, HEAD + len(GAP) + TAIL]}
    lines = {"$cond": [is_short, value, {"$concat": [head, GAP, tail]}]}
    text = {"$cond": [has_lines, lines, {"$substrCP": [value, 0, MAX_LINE_LENGTH]}]}
    return {"$cond": [{"$eq": [{"$type": value}, "string"]}, text, number]}
