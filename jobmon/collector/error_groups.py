"""Groups failed runs by the kind of their error, and keeps a record of each group.

The counts by group are in the buckets of the history. A group itself is one document: what the
error is, when it was seen first and last, the last jobs, and one message and stack as a sample.
"""

import heapq
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from datetime import datetime

from pymongo import UpdateOne

from jobmon.collector.runs import FinishedRun
from jobmon.diagnosis.error_kinds import ONGOING_FOR, ErrorKind, classify_error, fold_kind
from jobmon.diagnosis.error_texts import ErrorTexts, prepare_error, prepare_stack
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import ERRORS, OwnDatabase
from jobmon.rollup.error_group_document import (
    MAX_RECENT_JOBS,
    WITHOUT_SAMPLE,
    ErrorGroup,
    FailedJob,
    dump_error_group,
    error_group_name,
    load_error_group,
)
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document

MAX_GROUPS = 2_000
MAX_GROUPS_OF_CODE = 100  # so that a code with ever new messages leaves room for other codes
MAX_REMEMBERED = 50_000  # runs whose group is remembered: each minute is counted many times


class ErrorGroups:
    """The groups of one queue; methods may be called from any thread.

    `group` assigns runs to groups, `write` stores the changed groups. If there are too many groups,
    some groups without recent errors are removed for new groups. `redactor` hides secrets in the
    texts of errors and in names of workers. Methods raise PyMongoError.
    """

    def __init__(self, own: OwnDatabase, redactor: Redactor) -> None:
        self._own = own
        self.redactor = redactor
        self._lock = threading.Lock()
        self._remembered: OrderedDict[int, str] = OrderedDict()  # hash of a run -> id of its group
        # A sample (message and stack) may be large: it is here only until its group is stored.
        self._groups: dict[str, ErrorGroup] | None = None
        self._ids_by_code: dict[str | None, set[str]] = {}
        # By code (OTHER: all codes): a run that ended at this time or before it gets no new group.
        self._full_until: dict[str | None, datetime] = {}
        self._changed: set[str] = set()
        self._removed: set[str] = set()

    def group(self, runs: Iterable[FinishedRun]) -> list[str]:
        """The id of each run's group; `(other)` if there are too many groups."""
        with self._lock:
            return [self._assign_group(run) for run in runs]

    def redact_worker(self, worker: str | None) -> str | None:
        """The name of a worker with its secrets hidden, to store it."""
        redacted = self.redactor.redact(worker)
        return None if redacted is None else str(redacted)

    def write(self) -> None:
        with self._lock:
            if not (self._changed or self._removed):
                return
            groups = self._load_groups()
            changed = [groups[name] for name in self._changed if name in groups]
            if changed:
                updates = [self._make_update(group) for group in changed]
                self._own.write(
                    ERRORS, lambda: self._own[ERRORS].bulk_write(updates, ordered=False)
                )
            if self._removed:
                ids = [self._own.id(error_group_name(group_id)) for group_id in self._removed]
                self._own[ERRORS].delete_many({"_id": {"$in": ids}})
            for group in changed:
                groups[group.id] = group._replace(message=None, stack=None)
            self._changed.clear()
            self._removed.clear()

    def delete_unseen(self, since: datetime) -> None:
        """Delete the groups without an error since this time."""
        with self._lock:
            unseen = [group for group in self._load_groups().values() if group.last_seen < since]
            for group in unseen:
                self._remove_group(group)
        self.write()

    def _load_groups(self) -> dict[str, ErrorGroup]:
        if self._groups is None:
            self._own[ERRORS].create_index(self._own.index())
            documents = self._own[ERRORS].find(self._own.scope, WITHOUT_SAMPLE)
            groups = self._own.read(ERRORS, documents, load_error_group)
            self._groups = {group.id: group for group in groups}
            for group in self._groups.values():
                self._ids_by_code.setdefault(group.code, set()).add(group.id)
        return self._groups

    def _assign_group(self, run: FinishedRun) -> str:
        groups = self._load_groups()
        # The job's id may be unknown, and then several runs may end at the same time.
        key = hash((run.job_id, run.finished_at, run.worker, run.outcome, repr(run.error)))
        known_id = self._remembered.get(key)
        if known_id is not None and (known_id in groups or known_id == OTHER):
            return known_id
        group_id = self._remembered[key] = self._add_to_group(run)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return group_id

    def _add_to_group(self, run: FinishedRun) -> str:
        groups = self._load_groups()
        error = prepare_error(run.error, run.outcome, self.redactor)
        kind = classify_error(error)
        ids_of_code = self._ids_by_code.get(kind.code, set())
        if kind.id not in groups and not self._make_room(
            ids_of_code, MAX_GROUPS_OF_CODE, run, kind.code
        ):
            kind = fold_kind(kind)
        if kind.id not in groups and not self._make_room(groups, MAX_GROUPS, run, OTHER):
            return OTHER
        groups[kind.id] = _add_run(groups.get(kind.id) or self._make_group(kind, run, error), run)
        self._ids_by_code.setdefault(kind.code, set()).add(kind.id)
        self._changed.add(kind.id)
        self._removed.discard(kind.id)
        return kind.id

    def _make_room(
        self, ids: Collection[str], limit: int, run: FinishedRun, code: str | None
    ) -> bool:
        """Whether the groups `ids` of a `code` (OTHER: all codes) have room for a new group.

        At the `limit`, up to a twentieth of the groups is removed: the oldest, if they have no
        recent errors; their counts stay in the history. A group with recent errors stays: otherwise
        runs that each need a new group would remove all others. `run` needs the new group.
        """
        if len(ids) < limit:
            return True
        full_until = self._full_until.get(code)
        if full_until is not None and run.finished_at <= full_until:
            return False
        groups, quiet_since = self._load_groups(), run.finished_at - ONGOING_FOR
        oldest = heapq.nsmallest(
            max(1, limit // 20), map(groups.__getitem__, ids), key=lambda group: group.last_seen
        )
        quiet = [group for group in oldest if group.last_seen < quiet_since]
        for group in quiet:
            self._remove_group(group)
        if not quiet:
            self._full_until[code] = oldest[0].last_seen + ONGOING_FOR
        return bool(quiet)

    def _remove_group(self, group: ErrorGroup) -> None:
        del self._load_groups()[group.id]
        ids_of_code = self._ids_by_code[group.code]
        ids_of_code.discard(group.id)
        if not ids_of_code:
            del self._ids_by_code[group.code]
        self._removed.add(group.id)

    def _make_group(
        self, kind: ErrorKind, run: FinishedRun, error: ErrorTexts | None
    ) -> ErrorGroup:
        _, message, stack = error or ErrorTexts(None, None, None)
        return ErrorGroup(
            id=kind.id,
            code=kind.code,
            pattern=kind.pattern,
            frame=self.redactor.redact(kind.frame),
            message=message,
            stack=None if stack is None else prepare_stack(stack, self.redactor),
            first_seen=run.finished_at,
            last_seen=run.finished_at,
            jobs=(),
        )

    def _make_update(self, group: ErrorGroup) -> UpdateOne:
        """An update that merges the group with what another collector may have stored for it."""
        document = self._own.new(error_group_name(group.id), dump_error_group(group))
        merged: Document = {
            **{name: {"$ifNull": [f"${name}", f"$$new.{name}"]} for name in WITHOUT_SAMPLE},
            "firstSeen": {"$min": ["$firstSeen", "$$new.firstSeen"]},
            "lastSeen": {"$max": ["$lastSeen", "$$new.lastSeen"]},
            "jobs": {"$cond": [{"$gt": ["$lastSeen", "$$new.lastSeen"]}, "$jobs", "$$new.jobs"]},
        }
        with_new = {
            "vars": {"new": {"$literal": document}},
            "in": {"$mergeObjects": ["$$new", merged]},
        }
        update = [{"$replaceWith": {"$let": with_new}}]
        return UpdateOne({"_id": document["_id"]}, update, upsert=True)


def _add_run(group: ErrorGroup, run: FinishedRun) -> ErrorGroup:
    job = FailedJob(run.job_id, run.type, run.worker, run.finished_at)
    jobs = sorted({*group.jobs, job}, key=lambda job: (job.at, job.job_id), reverse=True)
    return group._replace(
        first_seen=min(group.first_seen, run.finished_at),
        last_seen=max(group.last_seen, run.finished_at),
        jobs=tuple(jobs[:MAX_RECENT_JOBS]),
    )
