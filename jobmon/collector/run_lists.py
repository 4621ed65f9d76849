"""Keeps the newest runs of each recurring job; the job's document has only the last run.

A stored list has the position of the last change that was counted when it was written. If changes
are read again, after a crash or by another collector, those up to this position add no run.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError

from jobmon.collector.leader import LeaseLostError
from jobmon.collector.runs import FinishedRun
from jobmon.diagnosis.error_texts import ErrorTexts, prepare_error
from jobmon.domain import AttemptStatus
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, require_type
from jobmon.rollup.recurring_runs import (
    MAX_ERROR_LENGTH,
    MAX_JOBS,
    MAX_RUNS,
    RECURRING_RUNS,
    RecordedRun,
    dump_runs,
    load_runs,
    run_list_name,
)
from jobmon.store.failures import has_only_duplicates
from jobmon.store.mapping import Document
from jobmon.store.repetition import Repetition

# If there are `MAX_JOBS` jobs, a job that has not run for this long is removed for a new job.
_IDLE_AFTER = timedelta(days=7)


@dataclass
class _RunList:
    runs: list[RecordedRun]
    position: str | None = None  # as stored; None if it is not stored yet
    at: datetime | None = None  # the end of the run that was added last
    is_changed: bool = False


class RunLists:
    """The runs of the recurring jobs of one queue; its methods raise PyMongoError."""

    def __init__(self, own: OwnDatabase, redactor: Redactor) -> None:
        self._own = own
        self._redactor = redactor
        self._lists: dict[str, _RunList] | None = None

    def add(self, job_id: Any, run: FinishedRun, position: str) -> None:
        """Add a run of the job with this _id; the change at `position` shows the run.

        Runs of jobs that do not recur are ignored. If there are `MAX_JOBS` jobs, a new job is kept
        only if an idle job can be removed for it.
        """
        if run.repetition is None:
            return
        lists, name = self._load(), run_list_name(job_id)
        if name not in lists and not self._make_room(lists, run.finished_at):
            return
        run_list = lists.setdefault(name, _RunList([]))
        if run_list.position is not None and position <= run_list.position:
            return
        runs = [*run_list.runs, self._make_recorded_run(run, run.repetition)]
        run_list.runs = sorted(runs, key=_get_time)[-MAX_RUNS:]
        run_list.at, run_list.is_changed = run.finished_at, True

    def write(self, position: str) -> None:
        """Store the changed lists; `position` is that of the last change that was added.

        Raises LeaseLostError if another collector has written one of the lists meanwhile.
        """
        lists = self._lists or {}
        changed = {name: run_list for name, run_list in lists.items() if run_list.is_changed}
        if not changed:
            return
        actions = [self._make_write(name, run_list, position) for name, run_list in changed.items()]

        def write() -> None:
            result = self._own[RECURRING_RUNS].bulk_write(actions, ordered=False)
            if result.matched_count + result.inserted_count != len(actions):
                raise LeaseLostError

        try:
            are_written = self._own.write(RECURRING_RUNS, write)
        except BulkWriteError as error:
            if has_only_duplicates(error):
                raise LeaseLostError from None
            raise
        for run_list in changed.values():
            run_list.is_changed = False
            if are_written:
                run_list.position = position

    def _make_write(
        self, name: str, run_list: _RunList, position: str
    ) -> InsertOne[Document] | ReplaceOne[Document]:
        fields = dump_runs(run_list.runs) | {"position": position, "at": run_list.at}
        document = self._own.new(name, fields)
        if run_list.position is None:
            return InsertOne(document)
        return ReplaceOne({"_id": document["_id"], "position": run_list.position}, document)

    def _make_recorded_run(self, run: FinishedRun, repetition: Repetition) -> RecordedRun:
        error: ErrorTexts | None = None
        if run.outcome != AttemptStatus.SUCCEEDED:
            error = prepare_error(run.error, None, self._redactor)
        is_expired = run.outcome == AttemptStatus.EXPIRED
        return RecordedRun(
            status=run.outcome,
            started_at=run.started_at,
            ended_at=None if is_expired else run.finished_at,
            code=error and error.code and error.code[:MAX_ERROR_LENGTH],
            message=error and error.message and error.message[:MAX_ERROR_LENGTH],
            repetition=repetition,
        )

    def _make_room(self, lists: dict[str, _RunList], now: datetime) -> bool:
        """Whether another job can be kept; if necessary, an idle job is removed for it."""
        if len(lists) < MAX_JOBS:
            return True
        idle = next(
            (name for name, kept in lists.items() if kept.at and kept.at < now - _IDLE_AFTER), None
        )
        if idle is None:
            return False
        self._own[RECURRING_RUNS].delete_one({"_id": self._own.id(idle)})
        del lists[idle]
        return True

    def _load(self) -> dict[str, _RunList]:
        if self._lists is None:
            stored = self._own[RECURRING_RUNS]
            stored.create_index(self._own.index("at"))
            documents = stored.find(self._own.scope).sort("at", 1)
            self._lists = dict(self._own.read(RECURRING_RUNS, documents, _load_list))
        return self._lists


def _load_list(document: Document) -> tuple[str, _RunList]:
    position = require_type(document["position"], str)
    at = require_type(document["at"], datetime)
    return document["name"], _RunList(load_runs(document), position, at)


def _get_time(run: RecordedRun) -> datetime:
    """When a run started, else when it ended; the earliest date if neither is known."""
    return run.started_at or run.ended_at or datetime.min.replace(tzinfo=UTC)
