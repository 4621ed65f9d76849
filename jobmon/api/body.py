"""Reads JSON bodies of requests."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import orjson
from marshmallow import RAISE, Schema, ValidationError
from werkzeug.wrappers import Request

from jobmon.web.errors import invalid, invalid_parameters


class Body(Schema):
    """A JSON object in the body of a request. Unknown fields are refused: they may be typos."""

    is_required: ClassVar[bool] = True

    class Meta:
        unknown = RAISE

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """The schema itself: each decorator of a route copies its documentation and schemas."""
        return self

    def read(self, request: Request) -> Any:
        """The parsed body of a request; raises ApiError 422."""
        if not self.is_required and not request.get_data():
            return self.read_fields({})
        try:
            values = orjson.loads(request.get_data())
        except ValueError:  # also for half of a surrogate pair, and for more than 1,024 levels
            values = None
        if not isinstance(values, dict):
            raise invalid("body", "Must be a JSON object.")
        return self.read_fields(values)

    def read_fields(self, values: Mapping[str, Any]) -> Any:
        """The parsed fields of a body; raises ApiError 422."""
        try:
            return self.load(values)
        except ValidationError as error:
            raise invalid_parameters(dict(error.messages_dict)) from None
