"""The time window in the address of a page: its steps, its words, and links that keep it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Self

from marshmallow import ValidationError

from jobmon.api.parameters import read_parameter
from jobmon.api.window_queries import WindowParameters, WindowQuery
from jobmon.api.windows import resolve_window
from jobmon.humanize import duration
from jobmon.page_addresses import instant
from jobmon.rollup.series import SeriesReader
from jobmon.rollup.windows import Window
from jobmon.web.errors import ApiError, invalid

_SCHEMA = WindowParameters()
_QUERY_CACHE_SIZE = 100
_MILLISECOND = timedelta(milliseconds=1)
_UNITS = {"m": "minute", "h": "hour", "d": "day"}
# Lists may filter by the time when jobs finished or were created, instead of a window.
_BOUNDS = (("from", "to"), ("finished_from", "finished_to"), ("created_from", "created_to"))


@dataclass(frozen=True, kw_only=True)
class PageWindow:
    """A window: a `range` until now, such as `24h`; or between bounds, then `range` is empty.

    window = PageWindow.from_request("1h")
    f"{errors} errors in {window.phrase}"  # "12 errors in the last hour"
    """

    query: WindowQuery
    range: str = ""

    @classmethod
    def from_range(cls, name: str) -> Self:
        """The window of a length until now, such as `24h`."""
        return cls(query=_parse({"range": name}), range=name)

    @classmethod
    def from_request(cls, default: str) -> Self:
        """The window that this request's address names, or else the range `default`.

        A `to` without `from` gets the length of `default`. Raises ApiError 422, which names the
        bad parameter.
        """
        names = ("from", "to", "range")
        parameters = {name: text for name in names if (text := read_parameter(name))}
        try:
            query = _parse(parameters)
        except ValidationError as error:
            name, messages = next(iter(error.messages_dict.items()))
            raise invalid(name, " ".join(messages)) from None
        if "range" in parameters:
            return cls(query=query, range=parameters["range"])
        default_window = cls.from_range(default)
        if not parameters:
            return default_window
        return cls(query=replace(query, length=default_window.query.length))

    def resolve(self, series: SeriesReader, now: datetime) -> Window:
        """The steps of the window; raises ApiError 422 if none is in the retained history."""
        return resolve_window(series, self.query, now)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters that name this window in the addresses of pages."""
        if self.range:
            return {"range": self.range}
        bounds = {"from": self.query.start, "to": self.query.end}
        return {name: instant(moment) for name, moment in bounds.items() if moment}

    @property
    def name(self) -> str:
        """The length of a window with a `range`: `24 hours`."""
        count, unit = self.range[:-1], _UNITS[self.range[-1]]
        return f"{count} {unit}" if count == "1" else f"{count} {unit}s"

    @property
    def phrase(self) -> str:
        """The words for the window after "in": `the last 24 hours`, `this window`."""
        return f"the last {self.name.removeprefix('1 ')}" if self.range else "this window"

    @property
    def previous(self) -> str:
        """The words for the period of the same length before the window: `the 24 hours before`."""
        return f"the {self.name.removeprefix('1 ')} before" if self.range else "the time before"

    @property
    def beginning(self) -> str:
        """The words for the time when the window began: `24 hours ago`."""
        if not self.range:
            return "when this window began"
        name = "an hour" if self.range == "1h" else self.name
        return f"{name} ago"

    def distance(self, window: Window) -> timedelta:
        """How far the period before begins before `window`: the window's length, in whole steps."""
        if not self.range:
            return window.length
        return -(-self.query.length // window.step) * window.step


def describe_steps(window: Window) -> str:
    """The length of a window's steps in words; if they are longer than usual, also the reason."""
    text = f"steps of {duration(window.step / _MILLISECOND)}"
    is_coarse = window.step > window.finest_step
    return f"{text}: finer data of this time is no longer kept" if is_coarse else text


def find_kept_window() -> Mapping[str, str]:
    """The parameters of this request's window, for links that keep it; empty if none or bad.

    On lists, the window is the time in which jobs finished or were created.
    """
    try:
        parameters = {"range": read_parameter("range")}
        if not parameters["range"]:
            names = next((pair for pair in _BOUNDS if any(map(read_parameter, pair))), ())
            parameters = dict(zip(("from", "to"), map(read_parameter, names), strict=False))
        parameters = {name: text for name, text in parameters.items() if text}
        _parse(parameters)
    except (ValidationError, ApiError):
        return {}
    return parameters


def _parse(parameters: Mapping[str, str]) -> WindowQuery:
    """The query with these parameters; raises ValidationError."""
    return _load(tuple(parameters.items()))


@lru_cache(_QUERY_CACHE_SIZE)
def _load(parameters: tuple[tuple[str, str], ...]) -> WindowQuery:
    query: WindowQuery = _SCHEMA.load(dict(parameters))
    return query


PRESETS = tuple(map(PageWindow.from_range, ("1h", "24h", "7d", "30d")))
