"""jobmon's own documents: each belongs to one watched queue and has a format version.

Any number of queues, and two versions of jobmon during an upgrade, share one database without
seeing each other's documents: queue and format are part of each `_id` and lead each index.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from bson.errors import InvalidDocument, InvalidStringData
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DocumentTooLarge, WriteError

from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document, Keys

log = logging.getLogger(__name__)
T = TypeVar("T")

# To be raised whenever a reader of the version before would misunderstand a document.
FORMAT = 1

# BSONObjectTooLarge, and what an update gives whose result is too large.
_TOO_LARGE = (10_334, 17_419, 17_420)
_MAX_REPORTS = 100
_reported: set[tuple[str, str]] = set()


class MalformedError(ValueError):
    """A document of ours is not as this version writes it."""


def typed(value: Any, *kinds: type[T]) -> T:
    """`value` if it is of one of these types, else MalformedError; a bool is no number."""
    if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
        return value
    raise MalformedError(f"{type(value).__name__} instead of {kinds[0].__name__}")


def connect_as_writer(settings: Settings) -> Connection:
    """A connection as the user that may write jobmon's own databases."""
    return Connection(replace(settings, mongo_uri=settings.rollup_uri or settings.mongo_uri))


def rollup_database(connection: Connection) -> Database[Document]:
    """jobmon's own database in the deployment of this connection; DatabaseAwayError."""
    return connection.reachable_client[connection.settings.rollup_db]


class OwnDatabase:
    """The documents of one queue, in this version's format, in jobmon's own database."""

    def __init__(self, database: Database[Document], queue: str) -> None:
        self._database = database
        self.queue = queue

    @classmethod
    def from_connection(cls, connection: Connection) -> "OwnDatabase":
        """The documents of the queue that `connection` watches; PyMongoError."""
        return cls(rollup_database(connection), connection.queue_key)

    def __getitem__(self, name: str) -> Collection[Document]:
        return self._database[name]

    @property
    def name(self) -> str:
        """The database's name."""
        return self._database.name

    @property
    def database(self) -> Database[Document]:
        """The database itself, for commands."""
        return self._database

    @property
    def scope(self) -> Document:
        """What each document has, and what a query by anything but `_id` begins with."""
        return {"queue": self.queue, "format": FORMAT}

    def id(self, name: str) -> str:
        """The `_id` of the document of this name."""
        return f"{self.queue}/{FORMAT}/{name}"

    def new(self, name: str, fields: Document) -> Document:
        """A whole document of this name."""
        return {"_id": self.id(name), **self.scope, "name": name, **fields}

    def index(self, *fields: str) -> Keys:
        """The keys of an index on these fields of the queue's documents."""
        return [("queue", 1), ("format", 1), *((field, 1) for field in fields)]

    def write(self, what: str, action: Callable[[], object]) -> bool:
        """Run a write; False if it is of a document that cannot be stored.

        That is logged once and skipped: the other figures go on. Raises PyMongoError otherwise.
        """
        try:
            action()
        except DocumentTooLarge:
            report(what, "not written: it is larger than a document may be")
        except WriteError as error:
            if error.code not in _TOO_LARGE:
                raise
            report(what, "not written: it is larger than a document may be")
        except (InvalidDocument, InvalidStringData, OverflowError, UnicodeError) as error:
            report(what, f"not written: BSON cannot hold it ({type(error).__name__})")
        else:
            return True
        return False

    def read(
        self, what: str, found: Iterable[Document | None], load: Callable[[Document], T]
    ) -> Iterator[T]:
        """What `load` makes of each document that this version understands.

        One of another format, or one that another program wrote, is skipped and logged once.
        """
        for document in found:
            if document is None:
                continue
            form = document.get("format")
            if form != FORMAT:
                report(what, f"skipped: format {_in_short(form)}, this version reads {FORMAT}")
                continue
            try:
                loaded = load(document)
            except KeyError as error:
                report(what, f"skipped: no {_in_short(error.args[0])}")
            except (MalformedError, TypeError, ValueError, AttributeError, IndexError) as error:
                report(what, f"skipped: {_in_short(error)}")
            else:
                yield loaded


def report(what: str, reason: str) -> None:
    """Log once in this process what became of documents of a kind."""
    if (what, reason) not in _reported and len(_reported) < _MAX_REPORTS:
        _reported.add((what, reason))
        log.warning("%s in jobmon's own database: %s", what, reason)


def _in_short(value: object) -> str:
    return ascii(str(value))[1:-1][:80]
