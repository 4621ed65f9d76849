"""Makes conditions for searches in the payload: an index serves each of them."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, ObjectId
from bson.regex import Regex

from jobmon.store.bson_json import UUID_SUBTYPES
from jobmon.store.mapping import Document

_ANY_END = "*"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_OBJECT_ID = re.compile("[0-9a-fA-F]{24}")
_LONGEST_NUMBER = 45  # in characters: a Decimal128 with its sign and exponent
_END_OF_INT64 = 2**63


@dataclass(frozen=True, kw_only=True)
class SearchTerm:
    """A search for jobs that have any of `texts` in a field of the payload, also inside arrays.

    `field`: its declared name, `payload.orderId`. A text means each value that is written in this
    way: a string, a number of any type, an ObjectId, a UUID, a boolean or a date. `text*` means all
    strings with this beginning. A text in double quotes means only the string in the quotes, even
    with a `*`, and the string with its quotes.

    >>> SearchTerm(field="payload.orderId", texts=("8425",)).condition()
    {'$in': ['8425', 8425]}
    """

    field: str
    texts: tuple[str, ...]
    # The texts that redaction hides: they find no strings.
    hidden: tuple[str, ...] = ()

    @property
    def has_prefix(self) -> bool:
        """Whether strings are searched by their beginning: no index has them in list order."""
        return any(map(is_prefix, self.texts))

    def hide(self, is_secret: Callable[[str], bool]) -> "SearchTerm":
        """The term without the strings that are secret; it may be empty then."""
        hidden = tuple(text for text in self.texts if is_secret(_read_string(text)))
        return replace(self, hidden=hidden)

    def condition(self) -> Document:
        """The condition on the field. A text never becomes an operator of a query."""
        return {"$in": [value for text in self.texts for value in self._list_values(text)]}

    @property
    def is_empty(self) -> bool:
        """Whether the term has no value to search."""
        return not self.condition()["$in"]

    def _list_values(self, text: str) -> Iterator[Any]:
        is_hidden, string = text in self.hidden, _read_string(text)
        if is_prefix(text):
            if not is_hidden:
                yield prefix_pattern(text)
            return
        if not is_hidden:
            yield text
            if string != text:
                yield string
        if string == text:
            yield from _list_other_types(text)


def explain_unsearchable(text: str) -> str | None:
    """The reason why no index can find the strings that a text with `*` means; None if it can."""
    if not is_prefix(text):
        return None
    if text == _ANY_END:
        return "Needs a character before `*`."
    # A pattern cannot contain NUL, and with an escaped `\|` MongoDB does not use an index.
    if "\0" in text or "\\|" in text:
        return "Before `*` neither `\\|` nor NUL is possible."
    return None


def is_prefix(text: str) -> bool:
    """Whether a text ends in `*`: it means all strings with this beginning."""
    return text.endswith(_ANY_END)


def matches_filter(value_label: str, filter_text: str) -> bool:
    """Whether a filter by a text, which may end in `*`, finds the jobs with a label."""
    if not is_prefix(filter_text):
        return value_label == filter_text
    prefix = filter_text.removesuffix(_ANY_END)  # a label that ends in `*` is in quotes
    return value_label.startswith((prefix, f'"{prefix}'))


def prefix_pattern(text: str) -> Regex[str]:
    """The pattern of the strings that a text with `*` means; its `^` lets an index serve it."""
    return Regex(f"^{re.escape(_read_string(text))}")


def _read_string(text: str) -> str:
    """The string that a text means, without its quotes or its `*`."""
    if is_prefix(text):
        return text.removesuffix(_ANY_END)
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text


def _list_other_types(text: str) -> Iterator[Any]:
    """The values that a text means in addition to strings."""
    if text in ("true", "false"):
        yield text == "true"
    if _OBJECT_ID.fullmatch(text):
        yield ObjectId(text)
    yield from _list_numbers(text)
    try:
        uuid = UUID(text).bytes
    except ValueError:
        pass
    else:
        yield from (Binary(uuid, subtype) for subtype in UUID_SUBTYPES)
    if (moment := _read_date(text)) is not None:
        yield moment


def _list_numbers(text: str) -> Iterator[Any]:
    """The numbers that a text means: one int, which also finds equal numbers of other types.

    For a number that is not whole, or beyond 64 bits: a double, a decimal, or both.
    """
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return
    number = Decimal(text)
    if -_END_OF_INT64 <= number < _END_OF_INT64 and number == int(number):
        yield int(number)
        return
    double = float(number)
    if math.isfinite(double) and number in (Decimal(repr(double)), Decimal(double)):
        yield double
    try:
        yield Decimal128(number)
    except DecimalException:  # more digits than a Decimal128 has
        return


def _read_date(text: str) -> datetime | None:
    """The date that is written in ISO 8601, in UTC if it has no offset; None for another text."""
    if "-" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if moment.microsecond % 1_000 else moment  # BSON dates have milliseconds
