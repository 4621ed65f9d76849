"""Carries out a request batch by batch, so that each job is changed at most once.

Before a batch the actor records its planned changes (the intent); after it, the outcome of each
job. An actor that finds an intent whose batch has no recorded end examines the batch's jobs: a job
that proves its change counts as done, an unchanged job is changed now, and any other job is
skipped. For a request that is paused or stopped see `Recovery`.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

from pymongo.errors import WriteError

from jobmon.actions.catalog import RequestError
from jobmon.actions.records import ActionRecords, Progress, Result, make_outcome
from jobmon.actions.request import ActionRequest
from jobmon.actions.state import Counts
from jobmon.actions.target import MAX_ID_LENGTH, TargetKind
from jobmon.actor.job_changes import STOPPED, JobChanges, PlannedChange, StoredJob
from jobmon.actor.targets import Batch, TargetReader, is_changed_since
from jobmon.domain import JobStatus
from jobmon.queue import RefusedActionError
from jobmon.store.bson_json import can_contain, encode_key
from jobmon.store.failures import classify_failure, name_error
from jobmon.store.identity import is_identity
from jobmon.store.mapping import Document

GONE = "there is no such job"
DELETED = "gone: deleted by this request or by another program"
MALFORMED = "its fields have values that the action cannot use"
CHANGED = "changed between the decision and the update"
CHANGED_SINCE = "changed after the request was filed"
UNKNOWN = "changed before its outcome was recorded"
REFUSED = "the database refuses the change (error {error})"
MAX_KEY_BYTES, MAX_CHANGE_BYTES = 100_000, 15_000_000  # of a job in the records
_MAX_REASON_LENGTH = 200  # characters; a reason can contain a job's status
TOO_LARGE = "The ids or other values of these jobs are too large to record: select fewer jobs."


def _make_missing_key(job_id: str) -> Document:
    """The key of the outcome for an id without a job, in a form that jobs do not have as `_id`."""
    return {"missing": job_id}


def _make_record_key(key: Any) -> Any:
    """The key of the outcome for a job: its `_id`, or a hash if that is too large for a record."""
    if can_contain(key, MAX_KEY_BYTES):
        return key
    return {"sha256": hashlib.sha256(encode_key(key)).hexdigest()}


class Recovery(Enum):
    """What to do with the jobs of an unfinished batch that do not prove their change."""

    COMPLETE = "complete"  # change them now
    WAIT = "wait"  # leave them unchanged: the batch stays unfinished
    STOP = "stop"  # skip them


class OverLimitError(Exception):
    """The next batch would change more jobs than the request may change."""


@dataclass
class _BatchPlan:
    """The changes to make in a batch, and the outcomes of the jobs that it does not change."""

    changes: list[PlannedChange] = field(default_factory=list)
    outcomes: list[Document] = field(default_factory=list)

    def add_outcome(self, key: Any, job_id: str | None, result: Result, reason: str = "") -> None:
        is_short = job_id is None or len(job_id) <= MAX_ID_LENGTH
        job_id = job_id if is_short else None
        self.outcomes.append(make_outcome(key, job_id, result, reason[:_MAX_REASON_LENGTH]))


class BatchRunner:
    """Runs the batches of one request; methods raise PyMongoError.

    `on_step` is called with the name of each step, after the step.
    """

    def __init__(
        self,
        records: ActionRecords,
        reader: TargetReader,
        changes: JobChanges,
        request: ActionRequest,
        on_step: Callable[[str], None],
    ) -> None:
        self._records = records
        self._reader = reader
        self._changes = changes
        self._request = request
        self._on_step = on_step

    def recover(self, recovery: Recovery) -> Document | None:
        """Examine the jobs of the last batch if its end is not recorded.

        Returns the record of the last batch with a recorded end; None if there is none.
        """
        last_batch = self._records.find_last(self._request.id, Progress.BATCH)
        intent = self._records.find_last(self._request.id, Progress.INTENT)
        if intent is None or (last_batch is not None and last_batch["number"] >= intent["number"]):
            return last_batch
        changes = [PlannedChange.load(stored) for stored in intent["changes"]]
        recorded = self._find_recorded([change.key for change in changes])
        unfinished = [change for change in changes if encode_key(change.key) not in recorded]
        jobs = self._changes.read([change.key for change in unfinished])
        outcomes = [
            outcome
            for change in unfinished
            if (outcome := self._examine(change, jobs.get(encode_key(change.key)), recovery))
        ]
        self._add_outcomes([*intent["outcomes"], *outcomes])
        if recovery is Recovery.WAIT:
            return last_batch
        return self._record_end(intent, Counts.load(self._records.count_outcomes(self._request.id)))

    def _examine(
        self, change: PlannedChange, job: StoredJob | None, recovery: Recovery
    ) -> Document | None:
        """The outcome of a planned change; None if the job has to wait. `job` is None if gone."""
        if job is not None and self._changes.is_made(job, change):
            return self._make_outcome(change, Result.DONE)
        if job is None and change.deletes:
            self._apply(change)  # the earlier actor may have left the attempts of the job
            return self._make_outcome(change, Result.DONE, DELETED)
        if recovery is Recovery.COMPLETE:
            reason = self._apply(change)
            if reason is None:
                return self._make_outcome(change, Result.DONE)
            reason = UNKNOWN if reason == CHANGED else reason
            return self._make_outcome(change, Result.SKIPPED, reason)
        if recovery is Recovery.STOP:
            return self._make_outcome(change, Result.SKIPPED, STOPPED)
        return None

    def run(self, last_batch: Document | None, size: int, limit: int | None) -> Document:
        """Run the batch after `last_batch` (None: the first); returns the record of its end.

        `limit`: how many jobs may still be changed; None without a limit. Raises OverLimitError
        before a batch that would exceed it, RefusedFilterError if the jobs cannot be listed, and
        RequestError if the plan of even the smallest batch is too large to record.
        """
        position = {} if last_batch is None else last_batch["position"]
        batch = self._reader.read(self._request, position, size)
        if self._request.target.kind is TargetKind.FILTER and len(batch.keys) > size:
            batch = self._limit_size(batch, position, size)
        plan = self._plan_batch(batch)
        if limit is not None and len(plan.changes) > limit:
            raise OverLimitError
        intent: Document = {
            "number": 1 if last_batch is None else last_batch["number"] + 1,
            "position": batch.position,
            "changes": [],
            "outcomes": plan.outcomes,
        }
        if not self._request.dry_run:
            intent["changes"] = [change.dump() for change in plan.changes]
        else:
            intent["outcomes"] += [
                self._make_outcome(change, Result.POSSIBLE) for change in plan.changes
            ]
        if not self._record_intent(intent):
            if size == 1:
                raise RequestError("ids", TOO_LARGE)
            return self.run(last_batch, size // 2, limit)
        self._on_step("intent")
        changed = [] if self._request.dry_run else list(self._make_changes(plan.changes))
        outcomes = [*intent["outcomes"], *changed]
        self._on_step("changed")
        self._add_outcomes(outcomes)
        self._on_step("outcomes")
        counts = Counts() if last_batch is None else Counts.load(last_batch["counts"])
        return self._record_end(intent, counts.add(outcome["result"] for outcome in outcomes))

    def _limit_size(self, batch: Batch, position: Document, size: int) -> Batch:
        """The first `size` jobs without an outcome, of a list that is always read as a whole.

        While more jobs remain, the position stays `position`, and the next batch reads it again.
        """
        record_keys = [_make_record_key(key) for key in batch.keys]
        recorded = self._find_recorded(record_keys)
        keys = [
            key
            for key, record_key in zip(batch.keys, record_keys, strict=True)
            if encode_key(record_key) not in recorded
        ]
        return replace(batch, keys=keys[:size], position=position if len(keys) > size else None)

    def _plan_batch(self, batch: Batch) -> _BatchPlan:
        """What to do with each job of a batch that has no outcome yet."""
        plan = _BatchPlan()
        keys, unusable = list[Any](), list[tuple[Document, str | None, str]]()
        for key in batch.keys:
            if (record_key := _make_record_key(key)) is key:
                keys.append(key)
            else:
                unusable.append((record_key, None, MALFORMED))
        unusable += [(_make_missing_key(job_id), job_id, GONE) for job_id in batch.missing]
        recorded = self._find_recorded([*keys, *(key for key, _, _ in unusable)])
        for record_key, job_id, reason in unusable:
            if encode_key(record_key) not in recorded:
                plan.add_outcome(record_key, job_id, Result.SKIPPED, reason)
        keys = [key for key in keys if encode_key(key) not in recorded]
        jobs = self._changes.read(keys)
        for key in keys:
            job = jobs.get(encode_key(key))
            if job is None:
                plan.add_outcome(key, None, Result.SKIPPED, GONE)
                continue
            try:
                self._check_suitable(job)
                change = self._changes.plan(job)
                if not can_contain(change.dump(), MAX_CHANGE_BYTES):
                    raise RefusedActionError(MALFORMED)
                plan.changes.append(change)
            except RefusedActionError as error:
                plan.add_outcome(key, job.job_id, Result.SKIPPED, str(error))
            except (TypeError, ValueError, ArithmeticError):  # a malformed job stops no request
                plan.add_outcome(key, job.job_id, Result.SKIPPED, MALFORMED)
        return plan

    def _find_recorded(self, keys: list[Any]) -> set[bytes]:
        """Those of these keys that have a recorded outcome, each encoded by `encode_key`."""
        outcomes = self._records.find_outcomes(self._request.id, keys)
        return {encode_key(outcome["key"]) for outcome in outcomes}

    def _check_suitable(self, stored_job: StoredJob) -> None:
        """Raise RefusedActionError for a job that the request is not for."""
        request, job = self._request, stored_job.job
        if request.owner is not None and not is_identity(job.get("createdBy"), request.owner):
            raise RefusedActionError(GONE)  # an owner must not learn that it exists
        is_filter = request.target.kind is TargetKind.FILTER
        # A running job is not checked: each heartbeat changes it.
        if (
            is_filter
            and job.get("status") != JobStatus.LEASED
            and is_changed_since(job, request.at)
        ):
            raise RefusedActionError(CHANGED_SINCE)

    def _make_changes(self, changes: Iterable[PlannedChange]) -> Iterable[Document]:
        """Make the changes one after another; yields the outcome of each."""
        for change in changes:
            reason = self._apply(change)
            is_made = reason is None
            if reason is not None:
                # Another actor may have made the change while this actor was suspended.
                job = self._changes.read([change.key]).get(encode_key(change.key))
                is_made = job is not None and self._changes.is_made(job, change)
                reason = reason if job is not None else GONE
            if is_made:
                yield self._make_outcome(change, Result.DONE)
            else:
                yield self._make_outcome(change, Result.SKIPPED, reason or "")

    def _apply(self, change: PlannedChange) -> str | None:
        """Make a change; returns why the job was not changed, None if it was.

        The database can refuse the change of one job, for example because the job becomes larger
        than a document may be.
        """
        try:
            reason = None if self._changes.apply(change) else CHANGED
        except WriteError as error:
            if classify_failure(error) is not None:
                raise
            reason = REFUSED.format(error=name_error(error))
        self._on_step("job")
        return reason

    def _make_outcome(self, change: PlannedChange, result: Result, reason: str = "") -> Document:
        if result is Result.SKIPPED:
            return make_outcome(change.key, change.job_id, result, reason)
        after = {} if change.deletes else change.new_values
        return make_outcome(
            change.key, change.job_id, result, reason, before=dict(change.before), after=after
        )

    def _add_outcomes(self, outcomes: list[Document]) -> None:
        dry_run = {"dryRun": self._request.dry_run}
        self._records.add_outcomes(self._request.id, [outcome | dry_run for outcome in outcomes])

    def _record_intent(self, intent: Document) -> bool:
        """Record the plan of a batch; False if BSON cannot hold it or it is too large."""
        request_id, number = self._request.id, intent["number"]
        add = partial(self._records.add_progress, request_id, Progress.INTENT, intent, number)
        return self._records.own.write("a batch of a request", add)

    def _record_end(self, intent: Document, counts: Counts) -> Document:
        """Record the end of a batch, with the counts of all outcomes of the request so far."""
        end: Document = {
            "number": intent["number"],
            "position": intent["position"],
            "counts": counts.dump(),
        }
        self._records.add_progress(self._request.id, Progress.BATCH, end, number=end["number"])
        return end
