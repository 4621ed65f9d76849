"""Pauses and resumes types of jobs: `jobmon.queue` leases no job of a paused type."""

from collections.abc import Iterator

from pymongo import ReadPreference, WriteConcern

from jobmon.actions.records import ActionRecords, Progress, Result, make_outcome
from jobmon.actions.request import ActionRequest
from jobmon.domain import CONTROLS, PAUSED, TypeAction
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

NO_CHANGE = "it has this state already"


def change_types(
    connection: Connection, records: ActionRecords, request: ActionRequest
) -> Iterator[Document]:
    """Pause or resume the types of a request; yields an outcome for each. Raises PyMongoError.

    Before the change it records which of the types are paused. So after a crash it yields the same
    outcomes again.
    """
    is_pause, names = request.action == TypeAction.PAUSE, list(request.target.types)
    controls = connection.database.get_collection(
        CONTROLS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
    )
    intent = records.find_last(request.id, Progress.INTENT)
    if intent is None:
        types = (controls.find_one({"_id": PAUSED}) or {}).get("types", ())
        intent = {"paused": [name for name in names if name in types]}
        records.add_progress(request.id, Progress.INTENT, intent, number=1)
    if not request.dry_run:
        update = {"$addToSet": {"types": {"$each": names}}}
        if not is_pause:
            update = {"$pull": {"types": {"$in": names}}}
        if not controls.update_one({"_id": PAUSED}, update).matched_count:
            # There is no such document: `jobmon init --actor`, which creates it, was not run.
            controls.update_one({"_id": PAUSED}, update, upsert=True)
    for name in names:
        was_paused = name in intent["paused"]
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
