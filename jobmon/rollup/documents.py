"""jobmon's own documents: each has a format version, and nearly all belong to a watched queue.

The queue and the format are in the `_id`, and at the beginning of most indexes. So any number of
queues can share one database, and during an upgrade two versions of jobmon.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from bson.errors import InvalidDocument, InvalidStringData
from pymongo import ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DocumentTooLarge, WriteError

from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.failures import DOCUMENT_TOO_LARGE
from jobmon.store.mapping import Document, Keys

log = logging.getLogger(__name__)
T = TypeVar("T")

# Increase it when a reader of the previous version would misunderstand a document.
FORMAT = 2

# The collections of jobmon's own database.
STATE, BUCKETS, SAMPLES, ERRORS = "state", "buckets", "samples", "errors"
CHECKPOINTS, LEASES = "checkpoints", "leases"
# A collection of `state_database`: its content must outlive the rollup.
MARKS = "marks"
# The documents of `state`: a queue has one of each.
STATS = "stats"
BUILD = "build"  # the progress of a first count
FAILURE = "failure"  # the exception with which a collector failed, before it was started again
CHECKPOINT = "checkpoint"
PROGRESS = "progress"  # of counting the history
COUNTERS = "counters"  # the running totals
EVENTS = "events"  # which part of the history is counted from changes, and its gaps
NOTIFICATIONS = "notifications"  # what each receiver got
# A document of `leases`.
LEADER = "collector"

_MAX_REPORTS = 100
# What `load` raises for odd values, OverflowError among them.
_LOAD_ERRORS = (TypeError, ValueError, ArithmeticError, AttributeError, IndexError)
_ENCODING_ERRORS = (InvalidDocument, InvalidStringData, OverflowError, UnicodeError)


class MalformedError(ValueError):
    """A document of jobmon's own does not have the form that this version writes."""


def require_type(value: Any, *kinds: type[T]) -> T:
    """`value` if it has one of these types; else raises MalformedError. A bool is no int here."""
    if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
        return value
    raise MalformedError(f"{type(value).__name__} instead of {kinds[0].__name__}")


def connect_as_writer(settings: Settings) -> Connection:
    """A connection as the user that may write jobmon's own databases."""
    return Connection(replace(settings, mongo_uri=settings.rollup_uri or settings.mongo_uri))


def rollup_database(connection: Connection) -> Database[Document]:
    """The database for the rollups, in this deployment; raises DatabaseUnreachableError."""
    return connection.own_database(connection.settings.rollup_db)


def state_database(connection: Connection) -> Database[Document]:
    """The database for documents that must outlive the rollups, in this deployment.

    Raises DatabaseUnreachableError.
    """
    return connection.own_database(connection.settings.state_db)


def describe_missing_right(settings: Settings, database: str, verb: str, command: str) -> str:
    """A message: the user of `connect_as_writer` has no right to `verb` a database.

    It advises to use the collector's user. `verb`: read or write. `command`: the command to run
    again, without `jobmon`.
    """
    setting = "JOBMON_ROLLUP_URI" if settings.rollup_uri else "JOBMON_MONGO_URI"
    return (
        f"the user of {setting} may not {verb} {database}. Use the collector's user: set "
        "JOBMON_ROLLUP_URI to its connection string (with Docker: docker compose exec collector "
        f"jobmon {command} …). `jobmon init --collector USER` creates this user."
    )


def index_keys(*fields: str) -> Keys:
    """The keys of an index on these fields of a queue's documents."""
    return [("queue", 1), ("format", 1), *((field, 1) for field in fields)]


class OwnDatabase:
    """The documents of one queue, in this version's format, in jobmon's own database.

    `reported` holds the problems that were logged: objects that share it log each problem once.
    """

    def __init__(
        self,
        database: Database[Document],
        queue: str,
        reported: set[tuple[str, str]] | None = None,
    ) -> None:
        self._database = database
        self._reported = set() if reported is None else reported
        self.queue = queue

    def __getitem__(self, name: str) -> Collection[Document]:
        return self._database[name]

    @property
    def scope(self) -> Document:
        """The fields that are in every document; a query without `_id` begins with them."""
        return {"queue": self.queue, "format": FORMAT}

    def id(self, name: str) -> str:
        """The `_id` of the document with this name."""
        return f"{self.queue}/{FORMAT}/{name}"

    def new(self, name: str, fields: Document) -> Document:
        """A complete document with this name."""
        return {"_id": self.id(name), **self.scope, "name": name, **fields}

    def index(self, *fields: str) -> Keys:
        """The keys of an index on these fields of the queue's documents."""
        return index_keys(*fields)

    def find_state(self, name: str, load: Callable[[Document], T]) -> T | None:
        """A document of `state`, loaded; None if it is missing, or this version cannot read it."""
        document = self[STATE].find_one({"_id": self.id(name)})
        return next(self.read(name, [document], load), None)

    def write_state(self, name: str, fields: Document, at: datetime | str = "$$NOW") -> None:
        """Replace a document of `state`; `at` is its time: by default the database's present."""
        document = self.new(name, fields)
        stages: list[Document] = [{"$replaceWith": {"$literal": document}}, {"$set": {"at": at}}]
        self.write(
            name, lambda: self[STATE].update_one({"_id": document["_id"]}, stages, upsert=True)
        )

    def replace(self, name: str, documents: Sequence[Document]) -> bool:
        """Write documents of a collection in place of the documents with the same `_id`s.

        Returns whether any was stored. If a document cannot be stored, the reason is logged once.
        """
        writes = [
            ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents
        ]
        if len(writes) > 1:
            with suppress(BulkWriteError, DocumentTooLarge, *_ENCODING_ERRORS):
                self[name].bulk_write(writes, ordered=False)
                return True
        # One by one, so that every document that can be stored is stored.
        replace_one = partial(self[name].replace_one, upsert=True)
        stored = [
            self.write(name, partial(replace_one, {"_id": document["_id"]}, document))
            for document in documents
        ]
        return any(stored)

    def write(self, name: str, action: Callable[[], object]) -> bool:
        """Run a write; returns False if the document cannot be stored, which is logged once.

        `name`: of the document or of its collection, for the log. Raises PyMongoError for any other
        failure.
        """
        try:
            action()
        except DocumentTooLarge:
            self.report(name, "not written: it is larger than a document may be")
        except WriteError as error:
            if error.code not in DOCUMENT_TOO_LARGE:
                raise
            self.report(name, "not written: it is larger than a document may be")
        except _ENCODING_ERRORS as error:
            self.report(name, f"not written: BSON cannot hold it ({type(error).__name__})")
        else:
            return True
        return False

    def read(
        self, name: str, documents: Iterable[Document | None], load: Callable[[Document], T]
    ) -> Iterator[T]:
        """The result of `load` for each document that this version understands; None is skipped.

        A document of another format, or for which `load` fails, is skipped and logged once under
        `name`.
        """
        for document in documents:
            if document is None:
                continue
            if document.get("format") != FORMAT:
                stored_format = _shorten(document.get("format"))
                self.report(name, f"skipped: format {stored_format}, this version reads {FORMAT}")
                continue
            try:
                loaded = load(document)
            except KeyError as error:
                self.report(name, f"skipped: no {_shorten(error.args[0])}")
            except _LOAD_ERRORS as error:
                self.report(name, f"skipped: {_shorten(error)}")
            else:
                yield loaded

    def report(self, name: str, reason: str) -> None:
        """Log once why documents with this name were skipped or not written."""
        if (name, reason) not in self._reported and len(self._reported) < _MAX_REPORTS:
            self._reported.add((name, reason))
            log.warning("%s in jobmon's own database: %s", name, reason)


def _shorten(value: object) -> str:
    """The first 80 characters of a value's text, in ASCII."""
    return ascii(str(value))[1:-1][:80]
