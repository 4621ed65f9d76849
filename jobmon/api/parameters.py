"""The base class of all schemas of query parameters, and what several routes need to read them."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

from flask import Request, request
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    missing,
    validate,
    validates_schema,
)
from werkzeug.datastructures import MultiDict

from jobmon.api.fields import PlainInteger, TimeSpan, default_none, describe
from jobmon.api.search import is_search
from jobmon.store.labels import MAX_LABEL_LENGTH
from jobmon.web.errors import invalid, invalid_parameters

ISO = "ISO 8601; UTC if it has no offset."

GIVEN_TWICE = "Given more than once."
MAX_CACHED = 200  # queries of each schema
MAX_CACHED_LENGTH = 500  # characters of the query string


class SentParameters(dict[str, Any]):
    """The parameters of a request: a text for each name, or a list of texts if it is repeatable.

    `repeated`: the names that were sent more than once.
    """

    def __init__(self, values: Mapping[str, Any], repeated: Collection[str]) -> None:
        super().__init__(values)
        self.repeated = repeated


class Parameters(Schema):
    """Query parameters. Unknown ones are ignored; of the others, only `List` fields are repeatable.

    Most requests have few of the many parameters. So marshmallow reads only the parameters that
    were sent; `_copy_defaults` sets the others.
    """

    # Whether typed queries are cached. They must be immutable, and only the parameter `range` may
    # make them depend on the time.
    is_cached: ClassVar[bool] = False

    class Meta:
        unknown = EXCLUDE

    def __init__(self) -> None:
        super().__init__()
        self._cached: dict[bytes, Any] = {}
        loaded = self.load_fields
        self.partial = frozenset(name for name, field in loaded.items() if not field.required)
        self._defaults = {
            name: field.load_default
            for name, field in loaded.items()
            if field.load_default is not missing
        }
        self._repeatable = {
            field.data_key or name
            for name, field in loaded.items()
            if isinstance(field, fields.List)
        }
        self.dict_class = self._copy_defaults  # type: ignore[assignment] # called for each load

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """The schema itself: each decorator of a route copies its documentation and schemas."""
        return self

    def read(self, request: Request) -> Any:
        """The typed query of a request; raises ApiError 422 for bad parameters.

        With `is_cached`, the query for a short query string without `range` is cached, because
        pages and programs repeat their requests.
        """
        query_string = request.query_string
        if (cached := self._cached.get(query_string)) is not None:
            return cached
        query = self._parse(request.args)
        is_short = len(query_string) <= MAX_CACHED_LENGTH
        if self.is_cached and is_short and "range" not in request.args:
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
            self._cached[query_string] = query
        return query

    def _parse(self, arguments: MultiDict[str, str]) -> Any:
        sent = SentParameters(
            {
                name: texts if name in self._repeatable or is_search(name) else texts[0]
                for name, texts in arguments.lists()
            },
            [name for name, texts in arguments.lists() if len(texts) > 1],
        )
        try:
            return self.load(sent)
        except ValidationError as error:
            raise invalid_parameters(dict(error.messages_dict)) from None

    def _copy_defaults(self) -> dict[str, Any]:
        return {
            name: default() if callable(default) else default
            for name, default in self._defaults.items()
        }

    @validates_schema(pass_original=True)
    def _refuse_repeated(self, _: dict[str, Any], sent: Mapping[str, Any], **__: Any) -> None:
        if not isinstance(sent, SentParameters) or not sent.repeated:
            return
        known = {field.data_key or name for name, field in self.fields.items()} - self._repeatable
        if refused := known.intersection(sent.repeated):
            raise ValidationError({name: [GIVEN_TWICE] for name in refused})


def read_parameter(name: str, default: str = "") -> str:
    """A parameter without a schema in this request's address; an empty one counts as missing.

    Raises ApiError 422 if it is repeated.
    """
    texts = [text for text in request.args.getlist(name) if text]
    if len(texts) > 1:
        raise invalid(name, GIVEN_TWICE)
    return texts[0] if texts else default


def optional_text(description: str, *, max_length: int | None = None) -> fields.String:
    """A text of at most `max_length` characters; None if the parameter is missing."""
    return fields.String(
        load_default=default_none,
        validate=validate.Length(max=max_length) if max_length else None,
        **describe(description),
    )


def page_field(advice: str = "") -> PlainInteger:
    """The number of a page; `advice` ends its description."""
    return PlainInteger(
        load_default=1,
        validate=validate.Range(min=1),
        **describe(f"Number of the page, from 1. {advice}".strip()),
    )


def page_size_field(items: str, default: int = 20, largest: int = 100) -> PlainInteger:
    """How many `items` a page has."""
    return PlainInteger(
        load_default=default, validate=validate.Range(1, largest), **describe(f"{items} per page.")
    )


def range_field(description: str) -> TimeSpan:
    """A range of time that ends now; None if the parameter is missing."""
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


def repeatable_field(description: str, max_values: int) -> fields.List[Any]:
    """Up to `max_values` labels, any of which may match.

    `description`: the first sentence, without its full stop.
    """
    return fields.List(
        fields.String(validate=validate.Length(max=MAX_LABEL_LENGTH)),
        load_default=list,
        validate=validate.Length(max=max_values),
        **describe(
            f"{description}. Repeat it to match any of several values. `null` matches a missing or "
            'null value, `"null"` (in quotes) the text null, and `""` the empty text.'
        ),
    )
