"""Field types of the JSON API: how values are shown and how parameters are read.

A watched document can hold anything in any field. So a field of an answer never fails: a missing
value is null, and a value of another type is shown as text, or as null if the field is a number.
The pages use the `clean_…` functions, too. `json_schema` is the OpenAPI schema of a field, if its
marshmallow type does not imply it.
"""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from types import NoneType
from typing import Any, ClassVar, TypeAlias

from bson import DBRef
from bson.datetime_ms import DatetimeMS
from flask import current_app
from marshmallow import ValidationError, fields

from jobmon.diagnosis.error_groups import SortKey
from jobmon.redaction.redactor import Redactor
from jobmon.store.bson_json import make_aware, to_iso, to_json, to_text
from jobmon.store.cursor import Cursor


def describe(
    description: str, *, nullable: bool = False, attribute: str | None = None, **metadata: Any
) -> dict[str, Any]:
    """Keyword arguments of a field, which describe it in the OpenAPI document.

    `attribute`: the name of the value in the object to serialize, if it is not the field's name.
    `metadata` may have `enum`, the possible values, and `optional`, for a field that may be absent.
    """
    return {
        "allow_none": nullable,
        "attribute": attribute,
        "metadata": {"description": description, **metadata},
    }


def redact(value: Any) -> Any:
    """`value` as JSON, with the values of secret keys replaced."""
    redactor: Redactor = current_app.extensions["jobmon_redactor"]
    return redactor.redact(to_json(value))


def clean_text(value: Any) -> str | None:
    """A name (an id, a type, a status) as text; a document or an array is redacted."""
    if value is None or type(value) is str:  # what nearly every field holds
        return value
    return to_text(redact(value) if isinstance(value, dict | list | DBRef) else value)


def clean_free_text(value: Any) -> str | None:
    """A value as text, with secrets replaced."""
    return None if value is None else to_text(redact(value))


def clean_date(value: Any) -> datetime | str | None:
    """A date as an aware datetime; any other value, or a year that Python cannot hold, as text."""
    match value:
        case datetime():
            return make_aware(value)
        case DatetimeMS():
            return to_iso(value)
        case _:
            return clean_free_text(value)


def clean_number(value: Any) -> int | float | None:
    """A finite number, or None for anything else."""
    value = to_json(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def clean_error(value: Any, *, stack: bool) -> dict[str, str | None] | None:
    """The `code` and `message` of an error, and its `stack` if requested; None without an error.

    Some programs write an empty text, an empty document or false in place of null.
    """
    if value is None or value is False or value in ("", {}, []):
        return None
    error = redact(value)
    if not isinstance(error, dict):
        error = {"message": error}
    parts = ("code", "message", "stack") if stack else ("code", "message")
    return {part: None if error.get(part) is None else to_text(error[part]) for part in parts}


_Clean: TypeAlias = "staticmethod[[Any], Any]"


class DocumentField(fields.Raw):
    """A field of a watched document: null if missing, otherwise what `clean` returns.

    A value of one of `unchanged_types` is shown unchanged, without a call of `show`.
    """

    json_schema: ClassVar[dict[str, Any]] = {}
    clean: ClassVar[_Clean]
    unchanged_types: ClassVar[frozenset[type]] = frozenset({NoneType})

    def __init__(self, description: str, *, missing: Any = None, **kwargs: Any) -> None:
        metadata = {"description": description}
        super().__init__(dump_default=missing, metadata=metadata, **kwargs)

    def show(self, value: Any) -> Any:
        """A value of the document as JSON; null for None."""
        cleaned = type(self).clean(value)
        return to_iso(cleaned) if isinstance(cleaned, datetime) else cleaned

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return self.show(value)


class Text(DocumentField):
    """A string or null."""

    json_schema: ClassVar[dict[str, Any]] = {"type": ["string", "null"]}
    clean: ClassVar[_Clean] = staticmethod(clean_text)
    unchanged_types: ClassVar[frozenset[type]] = frozenset({NoneType, str})


class FreeText(Text):
    """A string or null, with secrets replaced."""

    clean: ClassVar[_Clean] = staticmethod(clean_free_text)
    unchanged_types: ClassVar[frozenset[type]] = frozenset({NoneType})


class DateOrText(Text):
    """A date as ISO 8601 in UTC, or null; a value that is no date is shown as text."""

    # The schema has no `format`: the value may be text, or have a year of five digits.
    clean: ClassVar[_Clean] = staticmethod(clean_date)
    unchanged_types: ClassVar[frozenset[type]] = frozenset({NoneType})

    def show(self, value: Any) -> Any:
        return to_iso(value) if type(value) is datetime else super().show(value)


class Date(DateOrText):
    """A date that jobmon sets: never null and never text."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date-time"}


class Number(DocumentField):
    """A number or null."""

    json_schema: ClassVar[dict[str, Any]] = {"type": ["number", "null"]}
    clean: ClassVar[_Clean] = staticmethod(clean_number)
    unchanged_types: ClassVar[frozenset[type]] = frozenset({NoneType, int})


class Count(Number):
    """A whole number: the store guarantees it."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "integer"}


class RedactedJson(DocumentField):
    """Any JSON, with the values of secret keys replaced."""

    clean: ClassVar[_Clean] = staticmethod(redact)


class ErrorWithoutStack(DocumentField):
    """A `JobError` or null."""

    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"$ref": "#/components/schemas/JobError"}, {"type": "null"}]
    }
    clean: ClassVar[_Clean] = staticmethod(partial(clean_error, stack=False))


class ErrorWithStack(ErrorWithoutStack):
    """An `AttemptError` or null."""

    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"$ref": "#/components/schemas/AttemptError"}, {"type": "null"}]
    }
    clean: ClassVar[_Clean] = staticmethod(partial(clean_error, stack=True))


def default_none() -> None:
    """None, as a callable so that OpenAPI shows no default."""


class PlainInteger(fields.Integer):
    """A whole number in plain digits: `int` would also accept `1_0`."""

    def _validated(self, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch("-?[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class OptionalInteger(PlainInteger):
    """A whole number in plain digits; an empty value means none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(load_default=default_none, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return None if value == "" else super()._deserialize(value, *args, **kwargs)

    def _validate(self, value: Any) -> None:
        if value is not None:
            super()._validate(value)


class IsoDate(fields.AwareDateTime):
    """A time as ISO 8601, UTC if it has no offset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._deserialize(value, *args, **kwargs).astimezone(UTC)
        except OverflowError:  # in UTC it is before year 1 or after year 9999
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None


class OptionalDate(IsoDate):
    """A time as ISO 8601, UTC if it has no offset; an empty value means none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(load_default=default_none, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return None if value == "" else super()._deserialize(value, *args, **kwargs)


class TimeSpan(fields.String):
    """A length of time in minutes, hours or days, such as `15m`, `24h` or `7d`; None if empty."""

    pattern = r"[1-9][0-9]{0,4}[mhd]"
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": f"^({pattern})?$"}
    _units: ClassVar[dict[str, timedelta]] = {
        "m": timedelta(minutes=1),
        "h": timedelta(hours=1),
        "d": timedelta(days=1),
    }

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, *args, **kwargs)
        if not text:
            return None
        if not re.fullmatch(self.pattern, text):
            raise ValidationError("A number with m, h or d, such as 15m, 24h or 7d.")
        return int(text[:-1]) * self._units[text[-1]]


class EncodedCursor(fields.String):
    """A cursor as an opaque text of at most `max_length` characters; an empty value means none."""

    max_length: ClassVar[int]

    def decode(self, encoded: str) -> Any:
        """The position that a cursor encodes; ValueError or OverflowError for another text."""
        raise NotImplementedError

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        encoded: str = super()._deserialize(value, *args, **kwargs)
        if not encoded:
            return None
        try:
            if len(encoded) > self.max_length:
                raise ValueError
            return self.decode(encoded)
        except (ValueError, OverflowError, RecursionError):
            raise ValidationError("Not a cursor of a list.") from None


class CursorText(EncodedCursor):
    """An encoded `Cursor`."""

    max_length = 4_096
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "maxLength": max_length}

    def decode(self, encoded: str) -> Cursor:
        return Cursor.decode(encoded)


class SortCursor(EncodedCursor):
    """The encoded `SortKey` of the last entry of a page."""

    max_length = 400
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "maxLength": max_length}

    @staticmethod
    def encode(key: SortKey) -> str:
        """The key as an opaque string that is safe in a URL."""
        return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")

    def decode(self, encoded: str) -> SortKey:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), "-_", validate=True)
        match json.loads(raw):
            case [bool() as is_unknown, int() | float() as value, str() as group_id]:
                return is_unknown, float(value), group_id
        raise ValueError
