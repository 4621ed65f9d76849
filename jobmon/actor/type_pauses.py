"""Pauses and resumes types of jobs: `jobmon.queue` leases no job of a paused type."""

from pymongo import ReadPreference, WriteConcern
from pymongo.collection import Collection

from jobmon.actions.records import ActionRecords, Progress, Result, make_outcome
from jobmon.actions.request import ActionRequest
from jobmon.actor.job_changes import STOPPED
from jobmon.domain import CONTROLS, PAUSED, TypeAction
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

NO_CHANGE = "it has this state already"


def change_types(
    connection: Connection, records: ActionRecords, request: ActionRequest
) -> list[Document]:
    """Pause or resume the types of a request; returns an outcome for each. Raises PyMongoError.

    Before the change it records which of the types are paused. So after a crash it returns the same
    outcomes again.
    """
    names, controls = list(request.target.types), _open_controls(connection)
    intent = records.find_last(request.id, Progress.INTENT)
    if intent is None:
        paused = _read_paused(controls)
        intent = {"paused": [name for name in names if name in paused]}
        records.add_progress(request.id, Progress.INTENT, intent, number=1)
    if not request.dry_run:
        update = {"$addToSet": {"types": {"$each": names}}}
        if request.action != TypeAction.PAUSE:
            update = {"$pull": {"types": {"$in": names}}}
        if not controls.update_one({"_id": PAUSED}, update).matched_count:
            # There is no such document: `jobmon init --actor`, which creates it, was not run.
            controls.update_one({"_id": PAUSED}, update, upsert=True)
    return [_describe(request, name, was_paused=name in intent["paused"]) for name in names]


def examine_types(
    connection: Connection, records: ActionRecords, request: ActionRequest
) -> list[Document]:
    """The outcomes of a stopped request, empty if no actor began to change the types.

    A type that has the requested state now counts as changed. Raises PyMongoError.
    """
    intent = records.find_last(request.id, Progress.INTENT)
    if intent is None:
        return []
    paused, is_pause = _read_paused(_open_controls(connection)), request.action == TypeAction.PAUSE
    outcomes = []
    for name in request.target.types:
        outcome = _describe(request, name, was_paused=name in intent["paused"])
        if outcome["result"] == Result.DONE and (name in paused) != is_pause:
            outcome |= make_outcome(name, None, Result.SKIPPED, STOPPED)
        outcomes.append(outcome)
    return outcomes


def _open_controls(connection: Connection) -> Collection[Document]:
    return connection.database.get_collection(
        CONTROLS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
    )


def _read_paused(controls: Collection[Document]) -> list[str]:
    types: list[str] = (controls.find_one({"_id": PAUSED}) or {}).get("types", [])
    return types


def _describe(request: ActionRequest, name: str, *, was_paused: bool) -> Document:
    """The outcome for a type that the request has changed, unless it had this state before."""
    is_pause = request.action == TypeAction.PAUSE
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
    return outcome | {"dryRun": request.dry_run}
