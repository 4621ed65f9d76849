"""BSON values as JSON holds them: whatever a document has in it, an answer can be made of it."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, MaxKey, MinKey, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.regex import Regex

MAX_NAME_LENGTH = 200
CUT = "…"
MAX_STATUSES, MAX_TYPES = 100, 5_000  # that are told by name
UNNAMED = "(other)"
UUID_SUBTYPES = (4, 3)  # 3 was written by old drivers, some with the bytes in another order
_DOCUMENT = "{…}"
_QUOTED = ("null", "")
_DECIMAL = Context(prec=34)  # as many digits as a Decimal128 has
_ROOM_OF_A_SCALAR = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_IN_400_YEARS = 146_097 * 86_400_000  # the Gregorian calendar repeats itself after as many


def plain(value: Any) -> Any:
    """`value` with every BSON type turned into what JSON knows, at any depth."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return str(value)  # of BSON code, which is a str, without its scope
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case DBRef():
            return plain(dict(value.as_doc()))
        case _:
            return _scalar(value)


def text(value: Any) -> str:
    """`value` as a text, whatever it is; `null` for None.

    Numbers that MongoDB takes for equal are printed alike: 1, 1.0 and 1.00 as `1`.
    """
    if isinstance(value, float | Decimal128):
        return str(_number(value))
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def label(value: Any) -> str:
    """`text` of a status or a type that is counted: short, and of a document it tells no value.

    What is longer than a filter may be is cut, so that it is none; documents are counted together.
    No value is called `(other)`: that is what those are told as that have no name of their own.
    The texts that a filter takes for something else are in quotes: `"null"`, and `""` for the
    empty one.
    """
    told = text(_nameless(value))
    if told == UNNAMED:
        return UNNAMED + CUT
    if value is not None and told in _QUOTED:
        return f'"{told}"'
    return told if len(told) <= MAX_NAME_LENGTH else f"{told[:MAX_NAME_LENGTH]}{CUT}"


def is_filter(told: str) -> bool:
    """Whether a filter by this `label` finds what was counted by it: no part, and not the rest."""
    return len(told) <= MAX_NAME_LENGTH and told not in (UNNAMED, UNNAMED + CUT, _DOCUMENT)


class LabelBudget:
    """The statuses or types that are counted by name, each as its `label`: the first `most` ones.

    The rest are counted together as `(other)`: a writer that gives each job a type of its own must
    not make the figures grow with the jobs. While there is such a rest nothing new gets a name, for
    its jobs may be in the rest already.
    """

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._most = most
        self._always = frozenset(known)
        self._known = set(known)

    def learn(self, words: Iterable[str]) -> None:
        """These have been counted so before."""
        self._known.update(words)

    def forget(self, *, all_but: Iterable[str]) -> None:
        """Only these are still counted: if there is no rest among them, others can have names."""
        if len(self._known) < self._most:
            return
        counted = set(all_but)
        if UNNAMED not in counted:
            self._known = counted | self._always

    def word(self, value: Any) -> str:
        """What `value` is counted as."""
        told = label(value)
        if told not in self._known:
            if UNNAMED in self._known or len(self._known) >= self._most:
                told = UNNAMED
            self._known.add(told)
        return told


def _nameless(value: Any) -> Any:
    match value:
        case dict() | DBRef():
            return _DOCUMENT
        case list():
            return [_nameless(inner) for inner in value[:MAX_NAME_LENGTH]]
        case str() | bytes() if not is_uuid(value):
            return value[: MAX_NAME_LENGTH + 1]
        case float() | Decimal128():
            return _number(value)
        case _:
            return value


def _number(value: float | Decimal128) -> int | str:
    """What MongoDB takes for equal, and so counts together, has one name: 1, 1.0 and 1.00."""
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    try:
        whole = int(number)
    except ValueError:
        return "nan"
    except OverflowError:
        return "inf" if number > 0 else "-inf"
    if number == whole and -(2**63) <= whole < 2**63:
        return whole
    return str(number.normalize(_DECIMAL) if isinstance(number, Decimal) else number).lower()


def is_uuid(value: Any) -> bool:
    """Whether a binary value is a UUID, of the subtype in use or of the old one."""
    return isinstance(value, Binary) and value.subtype in UUID_SUBTYPES and len(value) == 16


class CharacterBudget:
    """How many characters there is room for: a document may hold 16 MB where a word belongs."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def cut(self, value: Any, *, at_least: int = 0) -> Any:
        """`value`, less what there is no room for, at any depth; `…` stands where that was."""
        self._left = max(self._left, at_least)
        return self._cut(value)

    def _cut(self, value: Any) -> Any:
        match value:
            case str() | bytes() if len(value) <= self._left:
                self._left -= len(value)
                return value
            case str():
                return self._all_of(value) + CUT
            case bytes():
                return base64.b64encode(self._all_of(value)).decode() + CUT
            case dict():
                return self._cut_document(value)
            case list():
                return self._cut_array(value)
            case DBRef():
                return self._cut_document(value.as_doc())
            case Regex() if len(value.pattern) > self._left:
                return self._cut(value.pattern)
            case _:
                self._left -= _ROOM_OF_A_SCALAR
                return value

    def _all_of(self, value: Any) -> Any:
        left, self._left = max(0, self._left), 0
        return value[:left]

    def _cut_document(self, value: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if self._left <= 0:
                kept[CUT] = CUT
                break
            name = self._cut(key)
            kept[name] = self._cut(inner)
        return kept

    def _cut_array(self, value: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for inner in value:
            if self._left <= 0:
                kept.append(CUT)
                break
            kept.append(self._cut(inner))
            self._left -= 1
        return kept


def iso(moment: datetime | DatetimeMS) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as JavaScript's `toISOString` prints it."""
    if isinstance(moment, DatetimeMS):
        cycles, ms = divmod(int(moment), _MS_IN_400_YEARS)
        within = _EPOCH + timedelta(milliseconds=ms)
        year = within.year + 400 * cycles
        sign = "" if 0 <= year <= 9999 else "-" if year < 0 else "+"
        shown = f"{sign}{abs(year):0{6 if sign else 4}d}"
        return f"{shown}{within.strftime('-%m-%dT%H:%M:%S')}.{within.microsecond // 1000:03d}Z"
    return aware(moment).astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def aware(moment: datetime) -> datetime:
    """MongoDB's dates are UTC, also those that come without saying so."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _scalar(value: Any) -> str:
    match value:
        case datetime() | DatetimeMS():
            return iso(value)
        case Timestamp():
            return iso(value.as_datetime())
        case Binary() if is_uuid(value):
            return str(UUID(bytes=bytes(value)))
        case bytes():
            return base64.b64encode(value).decode()
        case Regex():
            return str(value.pattern)
        case MinKey() | MaxKey():
            return type(value).__name__
        case _:
            return str(value)
