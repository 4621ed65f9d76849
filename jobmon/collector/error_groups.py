"""Groups failed runs by the kind of their error, and keeps what is known of each group.

The counts by group are in the buckets of the history. A group itself is one document: what the
error is, when it was seen first and last, the last jobs, and one message and stack as a sample.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pymongo import ReplaceOne

from jobmon.collector.runs import FinishedRun
from jobmon.diagnosis.error_kinds import ErrorKind, classify_error, fold_kind, prepare_error
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import ERRORS, OwnDatabase
from jobmon.rollup.error_registry import (
    MAX_RECENT_JOBS,
    ErrorGroup,
    FailedJob,
    dump_error_group,
    error_group_name,
    load_error_group,
)
from jobmon.store.labels import OTHER

MAX_GROUPS = 2_000
MAX_GROUPS_OF_CODE = 100  # so that one code with endless messages leaves room for others
MAX_REMEMBERED = 50_000  # runs whose group is known: a minute is counted again and again


class ErrorGroups:
    """The groups of one queue; methods may be called from any thread.

    `group` gives runs their groups, `write` stores what changed; PyMongoError.
    """

    def __init__(self, own: OwnDatabase, redactor: Redactor) -> None:
        self._own = own
        self._redactor = redactor
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[str, datetime, str | None], str] = OrderedDict()
        self._groups: dict[str, ErrorGroup] | None = None
        self._of_code: defaultdict[str | None, set[str]] = defaultdict(set)
        self._changed: set[str] = set()

    def group(self, runs: Iterable[FinishedRun]) -> list[str]:
        """The id of each run's group, `(other)` for runs beyond the number of groups."""
        with self._lock:
            return [self._group(run) for run in runs]

    def write(self) -> None:
        """Store the groups that changed."""
        with self._lock:
            groups = self._load()
            changed = [groups[name] for name in self._changed if name in groups]
            documents = [
                self._own.new(error_group_name(group.id), dump_error_group(group))
                for group in changed
            ]
            if documents:
                self._own.write(
                    ERRORS,
                    lambda: self._own[ERRORS].bulk_write(
                        [
                            ReplaceOne({"_id": document["_id"]}, document, upsert=True)
                            for document in documents
                        ],
                        ordered=False,
                    ),
                )
            self._changed.clear()

    def delete_unseen(self, since: datetime) -> None:
        """Delete the groups that were seen last before this time."""
        with self._lock:
            old = [group for group in self._load().values() if group.last_seen < since]
            for group in old:
                del self._load()[group.id]
                self._of_code[group.code].discard(group.id)
            ids = [self._own.id(error_group_name(group.id)) for group in old]
            self._own[ERRORS].delete_many({"_id": {"$in": ids}})

    def _load(self) -> dict[str, ErrorGroup]:
        if self._groups is None:
            self._own[ERRORS].create_index(self._own.index())
            found = self._own[ERRORS].find(self._own.scope)
            groups = self._own.read(ERRORS, found, load_error_group)
            self._groups = {group.id: group for group in groups}
            for group in self._groups.values():
                self._of_code[group.code].add(group.id)
        return self._groups

    def _group(self, run: FinishedRun) -> str:
        key = (run.job_id, run.finished_at, run.worker)
        if (known := self._remembered.get(key)) is not None:
            return known
        group = self._find_group(run)
        self._remembered[key] = group
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return group

    def _find_group(self, run: FinishedRun) -> str:
        groups = self._load()
        error = prepare_error(run.error, run.outcome, self._redactor)
        kind = classify_error(error)
        of_code = self._of_code[kind.code]
        if kind.id not in groups and len(of_code) >= MAX_GROUPS_OF_CODE:
            kind = fold_kind(kind)
        if kind.id not in groups and len(groups) >= MAX_GROUPS:
            return OTHER
        of_code.add(kind.id)
        groups[kind.id] = _add_run(groups.get(kind.id) or self._make_group(kind, run, error), run)
        self._changed.add(kind.id)
        return kind.id

    def _make_group(self, kind: ErrorKind, run: FinishedRun, error: Any) -> ErrorGroup:
        message, stack = (
            (error.get("message"), error.get("stack")) if isinstance(error, dict) else (error, None)
        )
        return ErrorGroup(
            id=kind.id,
            code=kind.code,
            pattern=kind.pattern,
            frame=self._redactor.redact(kind.frame),
            message=None if message is None else str(message),
            stack=None if stack is None else self._redactor.redact(str(stack)),
            first_seen=run.finished_at,
            last_seen=run.finished_at,
            jobs=(),
        )


def _add_run(group: ErrorGroup, run: FinishedRun) -> ErrorGroup:
    job = FailedJob(run.job_id, run.type, run.worker, run.finished_at)
    jobs = sorted({*group.jobs, job}, key=lambda job: (job.at, job.job_id), reverse=True)
    return group._replace(
        first_seen=min(group.first_seen, run.finished_at),
        last_seen=max(group.last_seen, run.finished_at),
        jobs=tuple(jobs[:MAX_RECENT_JOBS]),
    )
