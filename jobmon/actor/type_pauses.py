"""Pauses and resumes types of jobs: `jobmon.queue` leases no job of a paused type."""

from collections.abc import Iterator

from pymongo import ReadPreference, WriteConcern

from jobmon.actions.records import Result, make_outcome
from jobmon.actions.request import ActionRequest
from jobmon.domain import CONTROLS, PAUSED, TypeAction
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

NO_CHANGE = "it has this state already"


def change_types(connection: Connection, request: ActionRequest) -> Iterator[Document]:
    """Pause or resume the types of a request; yields an outcome for each. Raises PyMongoError.

    No intent is recorded first: a repetition changes nothing more. After a crash it yields
    `skipped` for types that were changed before the crash.
    """
    is_pause = request.action == TypeAction.PAUSE
    controls = connection.database.get_collection(
        CONTROLS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
    )
    for name in request.target.types:
        if request.dry_run:
            before = controls.find_one({"_id": PAUSED})
        else:
            update = {"$addToSet": {"types": name}} if is_pause else {"$pull": {"types": name}}
            before = controls.find_one_and_update({"_id": PAUSED}, update)
            if before is None:  # `jobmon init --actor`, which creates it, was not run
                before = controls.find_one_and_update({"_id": PAUSED}, update, upsert=True)
        was_paused = name in (before or {}).get("types", ())
        if was_paused == is_pause:
            outcome = make_outcome(name, None, Result.SKIPPED, NO_CHANGE)
        else:
            outcome = make_outcome(
                name,
                None,
                Result.POSSIBLE if request.dry_run else Result.DONE,
                before={"type": name, "paused": was_paused},
                after={"type": name, "paused": is_pause},
            )
        yield outcome | {"dryRun": request.dry_run}
