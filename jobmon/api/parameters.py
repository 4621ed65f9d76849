"""What all schemas of query parameters share."""

from collections.abc import Mapping
from typing import Any, Self

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema
from webargs.multidictproxy import MultiDictProxy

from jobmon.api.fields import TimeSpan, default_none, describe
from jobmon.store.labels import MAX_LABEL_LENGTH

ISO = "ISO 8601; UTC if it has no offset."


class Parameters(Schema):
    """Query parameters: unknown ones are ignored, and only a list may be given repeatedly."""

    class Meta:
        unknown = EXCLUDE

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """The schema itself: each decorator of a route copies the documentation so far."""
        return self

    @validates_schema(pass_original=True)
    def _refuse_repeated(self, _: dict[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        if not isinstance(given, MultiDictProxy):
            return
        repeated = {name for name in given if len(given.getlist(name)) > 1}
        wrong = [
            field.data_key or name
            for name, field in (self.fields.items() if repeated else ())
            if (field.data_key or name) in repeated and not isinstance(field, fields.List)
        ]
        if wrong:
            raise ValidationError({name: ["Given more than once."] for name in wrong})


def optional_text(description: str, *, max_length: int | None = None) -> fields.String:
    """A text of at most `max_length` characters; None if it is not given."""
    return fields.String(
        load_default=default_none,
        validate=validate.Length(max=max_length) if max_length else None,
        **describe(description),
    )


def range_field(description: str) -> TimeSpan:
    """A range of time that ends now; None if it is not given."""
    return TimeSpan(
        load_default=default_none,
        **describe(
            f"{description} A number with `m`, `h` or `d`, such as `15m`, `24h` or `7d`. Cannot be "
            "combined with `from` and `to`."
        ),
    )


def check_range(query: Mapping[str, Any]) -> None:
    """Refuse a `range` together with `start` or `end`; raises ValidationError."""
    if query.get("range") and (query.get("start") or query.get("end")):
        raise ValidationError({"range": ["Cannot be combined with `from` and `to`."]})


def repeatable_field(what: str, max_values: int) -> fields.List[Any]:
    """Up to `max_values` labels, any of which matches; `what` is the start of the description."""
    return fields.List(
        fields.String(validate=validate.Length(max=MAX_LABEL_LENGTH)),
        load_default=list,
        validate=validate.Length(max=max_values),
        **describe(
            f"{what}. Repeat it to match any of several values. `null` matches a missing or null "
            'value, `"null"` (in quotes) the text null, and `""` the empty text.'
        ),
    )
