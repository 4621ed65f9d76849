"""What a collector keeps of failed runs, for services over an in-memory database."""

from collections import Counter
from datetime import datetime
from typing import Any, Self

import pytest

from jobmon.diagnosis.error_kinds import classify_error
from jobmon.rollup.error_registry import MAX_RECENT_JOBS, ErrorGroup, FailedJob
from jobmon.rollup.run_details import ErrorGroupOf, RunDetails
from jobmon.rollup.run_history import ErrorSteps, RunHistory, RunHistoryReader
from jobmon.rollup.series import Window
from jobmon.store.labels import OTHER


class ErrorHistory:
    """Failed runs, each with its error, type, worker and time; `as_of` is the collector's time."""

    def __init__(self, as_of: datetime) -> None:
        self.as_of = as_of
        self.groups: dict[str, ErrorGroup] = {}
        self.whole: dict[str, Any] = {}  # what a `RunHistory` has in addition
        self._runs: list[tuple[datetime, str, str, str | None]] = []

    def add(
        self, error: Any, kind: str = "mail", worker: str | None = "w1", *, at: datetime
    ) -> str:
        """Add a failed run; returns the id of its group. The error `OTHER` is not grouped."""
        if error == OTHER:
            self._runs.append((at, OTHER, kind, worker))
            return OTHER
        found = classify_error(error)
        parts = error if isinstance(error, dict) else {"message": error}
        job = FailedJob(f"job-{len(self._runs)}", kind, worker, at)
        old = self.groups.get(found.id)
        jobs = sorted([job, *(old.jobs if old else ())], key=lambda job: job.at, reverse=True)
        self.groups[found.id] = ErrorGroup(
            id=found.id,
            code=found.code,
            pattern=found.pattern,
            frame=found.frame,
            message=parts.get("message"),
            stack=parts.get("stack"),
            first_seen=min(old.first_seen, at) if old else at,
            last_seen=max(old.last_seen, at) if old else at,
            jobs=tuple(jobs[:MAX_RECENT_JOBS]),
        )
        self._runs.append((at, found.id, kind, worker))
        return found.id

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Make every service answer from this history."""
        monkeypatch.setattr(RunHistoryReader, "read", lambda _, window: self._read(window))
        monkeypatch.setattr(
            RunHistoryReader, "errors_by_step", lambda _, window: self._split(window)
        )
        monkeypatch.setattr(
            RunHistoryReader, "known_error_groups", lambda _, ids: self.groups.keys() & set(ids)
        )
        monkeypatch.setattr(RunHistoryReader, "error_group", lambda _, name: self.groups.get(name))
        return self

    def _count(self, start: datetime, end: datetime) -> RunDetails:
        runs = [run for run in self._runs if start <= run[0] < end]
        return RunDetails(
            by_type=Counter(ErrorGroupOf(group, kind) for _, group, kind, _ in runs),
            by_worker=Counter(
                ErrorGroupOf(group, worker) for _, group, _, worker in runs if worker is not None
            ),
        )

    def _read(self, window: Window) -> RunHistory:
        known = {"as_of": self.as_of, "is_complete": True, "groups": self.groups}
        return RunHistory(details=self._count(window.start, window.end), **known | self.whole)

    def _split(self, window: Window) -> ErrorSteps:
        return {at: self._count(at, at + window.step).by_type for at in window.steps()}
