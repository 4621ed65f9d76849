"""Marks: moments such as deployments, each with a short text; charts and time series have them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import NoneType
from typing import Self
from urllib.parse import urlsplit

from pymongo.errors import OperationFailure

from jobmon.redaction.redactor import Redactor
from jobmon.rollup.buckets import MINUTE
from jobmon.rollup.documents import MARKS, OwnDatabase, require_type, state_database
from jobmon.single_flight import SingleFlightCache
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized
from jobmon.store.mapping import Document
from jobmon.store.read_collection import request_comment

MAX_TEXT_LENGTH, MAX_LINK_LENGTH = 200, 500  # characters
MAX_SHOWN = 200  # marks of a window: the newest
MAX_AHEAD = 5 * MINUTE  # a mark may be this far in the future, because clocks differ
CACHE_S, CACHED_WINDOWS = 1.0, 100


class MarkError(ValueError):
    """A mark cannot be stored; `field` is the name of the wrong field: `text`, `at` or `link`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment (UTC), a text such as a version, and a web address; wrong fields raise MarkError."""

    at: datetime
    text: str
    link: str | None = None

    def __post_init__(self) -> None:
        _require_printable("text", self.text, MAX_TEXT_LENGTH)
        if self.link is not None:
            _require_printable("link", self.link, MAX_LINK_LENGTH)
            if not _is_web_address(self.link):
                raise MarkError("link", "must be an address such as https://ci.example.com/42")

    def require_within(self, retention: timedelta, now: datetime) -> None:
        """Raise MarkError for a mark too far ahead of `now`, or before the retained history."""
        if self.at > now + MAX_AHEAD:
            raise MarkError("at", "is in the future")
        if self.at <= now - retention:
            raise MarkError("at", f"is before the retained history ({retention.days} days)")

    def redact(self, redactor: Redactor) -> "Mark":
        """The mark with its secrets replaced. If that makes its link invalid, it has no link."""
        link = None if self.link is None else redactor.redact(self.link)
        is_valid = link is not None and len(link) <= MAX_LINK_LENGTH and _is_web_address(link)
        text = redactor.redact(self.text)[:MAX_TEXT_LENGTH]
        return replace(self, text=text, link=link if is_valid else None)

    def dump(self) -> Document:
        return {"at": self.at, "text": self.text, "link": self.link}

    @classmethod
    def load(cls, document: Mapping[str, object]) -> Self:
        """The mark that `dump` stored.

        Raises MarkError, MalformedError or KeyError for another document.
        """
        return cls(
            at=require_type(document["at"], datetime),
            text=require_type(document["text"], str),
            link=require_type(document["link"], str, NoneType),
        )


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks of a window in order of time; `omitted` counts older marks that are not shown."""

    shown: tuple[Mark, ...]
    omitted: int = 0


class MarkReader:
    """Reads the marks of the queue of `connection`, over the connection `own`.

    Secrets in the marks are replaced. All callers for a window get the same result for a second.

        MarkReader(connection, own, redactor).find(start, end).shown
    """

    def __init__(self, connection: Connection, own: Connection, redactor: Redactor) -> None:
        self._connection = connection
        self._own = own
        self._redactor = redactor
        self._reported: set[tuple[str, str]] = set()
        self._windows: SingleFlightCache[Marks | None] = SingleFlightCache(CACHED_WINDOWS)

    def find(self, start: datetime, end: datetime) -> Marks | None:
        """The marks from `start` to before `end`; None if the user has no right to read them.

        Raises PyMongoError. Index: queue, format, at.
        """
        return self._windows.get((start, end), lambda: self._read_marks(start, end), CACHE_S)

    def _read_marks(self, start: datetime, end: datetime) -> Marks | None:
        own = OwnDatabase(state_database(self._own), self._connection.queue_key, self._reported)
        query = {**own.scope, "at": {"$gte": start, "$lt": end}}
        limit_ms = self._connection.max_time_ms
        try:
            newest = own[MARKS].find(query, **request_comment()).sort("at", -1)
            documents = list(newest.limit(MAX_SHOWN + 1).max_time_ms(limit_ms))
            count = len(documents)
            if count > MAX_SHOWN:
                count = own[MARKS].count_documents(query, maxTimeMS=limit_ms)
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            own.report(MARKS, "no right to read them: charts show none")
            return None
        newest_first = own.read(
            MARKS,
            documents[:MAX_SHOWN],
            lambda document: Mark.load(document).redact(self._redactor),
        )
        return Marks(shown=tuple(newest_first)[::-1], omitted=max(0, count - MAX_SHOWN))


def _require_printable(field: str, text: str, max_length: int) -> None:
    """Raise MarkError for a text that is empty, too long, or has unprintable characters."""
    if not text.strip():
        raise MarkError(field, "is empty")
    if len(text) > max_length:
        raise MarkError(field, f"has more than {max_length} characters")
    unprintable = next((character for character in text if not character.isprintable()), None)
    if unprintable is not None:
        code_point = f"U+{ord(unprintable):04X}"
        raise MarkError(field, f"contains {code_point}, a character that is not printed")


def _is_web_address(link: str) -> bool:
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in link
