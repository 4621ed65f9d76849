"""Writes marks, such as deployments, to jobmon's own database, never to the watched database."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from jobmon.rollup.documents import (
    MARKS,
    OwnDatabase,
    connect_as_writer,
    describe_missing_right,
    state_database,
)
from jobmon.rollup.marks import Mark
from jobmon.settings import Settings
from jobmon.store.connection import connect_queues
from jobmon.store.failures import describe_error, is_unauthorized

MAX_KEPT = 1_000  # marks of a queue; of more, the oldest are deleted


def write_marks(
    settings: Settings, queues: Sequence[Settings], mark: Mark
) -> Iterator[tuple[str, str | None]]:
    """Mark each queue; yields its name, and why it was not marked (None if it was marked).

    A stored mark with the same time and text is replaced. Raises MarkError if the time is before
    the retained history, or too far in the future.
    """
    retention = timedelta(days=settings.day_retention_days)
    mark.require_within(retention, datetime.now(UTC))
    with (
        closing(connect_as_writer(settings)) as own_connection,
        connect_queues(queues) as connections,  # of which only the keys are read
    ):
        for connection in connections:
            try:
                marks = OwnDatabase(state_database(own_connection), connection.queue_key)
                failure = _write_mark(marks, mark, mark.at + retention)
            except PyMongoError as error:
                failure = describe_error(error)
                if is_unauthorized(error):
                    failure = describe_missing_right(settings, settings.state_db, "write", "mark")
            yield connection.settings.queue, failure


def _write_mark(own: OwnDatabase, mark: Mark, expires_at: datetime) -> str | None:
    """Store a mark and delete marks above the limit; returns why this one was deleted, or None."""
    marks = own[MARKS]
    marks.create_index(own.index("at"))
    marks.create_index("expiresAt", expireAfterSeconds=0)
    digest = hashlib.sha256(mark.text.encode()).hexdigest()[:16]
    name = f"{mark.at.isoformat(timespec='milliseconds')}/{digest}"
    document = own.new(name, mark.dump() | {"expiresAt": expires_at})
    marks.replace_one({"_id": document["_id"]}, document, upsert=True)
    newest_first = marks.find(own.scope, {"_id": True}).sort([("at", -1), ("_id", -1)])
    beyond_limit = [old_mark["_id"] for old_mark in newest_first.skip(MAX_KEPT)]
    if beyond_limit:
        marks.delete_many({"_id": {"$in": beyond_limit}})
    if document["_id"] in beyond_limit:
        return f"it is not among the {MAX_KEPT:,} newest marks, which are kept"
    return None
