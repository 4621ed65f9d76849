"""A history of runs for services over an in-memory database, where no collector can run."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Self

import pytest

from jobmon.collector.run_details_counter import add_run
from jobmon.collector.runs import FinishedRun
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.rollup.error_group_document import MAX_RECENT_JOBS, ErrorGroup, FailedJob
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.run_details import RunDetails
from jobmon.rollup.run_history import ErrorSteps, RunHistory, RunHistoryReader
from jobmon.rollup.windows import Window
from jobmon.store.labels import OTHER


class ErrorHistory:
    """Finished runs, each with its type, worker and end; failed runs have an error.

    They look as if a collector had counted them until `as_of`.
    """

    def __init__(self, as_of: datetime) -> None:
        self.as_of = as_of
        self.groups: dict[str, ErrorGroup] = {}
        self.overrides: dict[str, Any] = {}  # replaces fields of the `RunHistory`
        self._runs: list[tuple[FinishedRun, str | None]] = []  # the run and its error group's id

    def add(
        self,
        error: Any,
        job_type: str = "mail",
        worker: str | None = "w1",
        *,
        at: datetime,
        took: timedelta | None = None,
    ) -> str:
        """Add a run that failed at `at`; returns the id of its group of errors.

        `took` is its duration. With `OTHER` as the error, the run's group is `OTHER`.
        """
        if error == OTHER:
            self._add_run(job_type, worker, "failed", at, took, OTHER)
            return OTHER
        kind = classify_error(error)
        texts = error if isinstance(error, dict) else {"message": error}
        job = FailedJob(f"job-{len(self._runs)}", job_type, worker, at)
        group = self.groups.get(kind.id)
        jobs = sorted([job, *(group.jobs if group else ())], key=lambda job: job.at, reverse=True)
        self.groups[kind.id] = ErrorGroup(
            id=kind.id,
            code=kind.code,
            pattern=kind.pattern,
            frame=kind.frame,
            message=texts.get("message"),
            stack=texts.get("stack"),
            first_seen=min(group.first_seen, at) if group else at,
            last_seen=max(group.last_seen, at) if group else at,
            jobs=tuple(jobs[:MAX_RECENT_JOBS]),
        )
        self._add_run(job_type, worker, "failed", at, took, kind.id)
        return kind.id

    def succeed(
        self, job_type: str, worker: str | None, *, at: datetime, took: timedelta | None = None
    ) -> None:
        """Add a run that succeeded at `at`."""
        self._add_run(job_type, worker, "succeeded", at, took, None)

    def _add_run(
        self,
        job_type: str,
        worker: str | None,
        outcome: str,
        at: datetime,
        took: timedelta | None,
        group: str | None,
    ) -> None:
        run = FinishedRun(
            type=job_type,
            outcome=outcome,
            job_id=f"job-{len(self._runs)}",
            finished_at=at,
            worker=worker,
            attempt=1,
            started_at=None if took is None else at - took,
        )
        self._runs.append((run, group))

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Make all services in this process read this history, for every queue."""
        monkeypatch.setattr(RunHistoryReader, "read", lambda _, window: self._read(window))
        monkeypatch.setattr(
            RunHistoryReader, "errors_by_step", lambda _, window: self._count_by_step(window)
        )
        monkeypatch.setattr(
            RollupReader, "known_error_groups", lambda _, ids: self.groups.keys() & set(ids)
        )
        monkeypatch.setattr(RollupReader, "error_group", lambda _, id_: self.groups.get(id_))
        return self

    def _count(self, start: datetime, end: datetime) -> RunDetails:
        details = RunDetails()
        for run, group in self._runs:
            if start <= run.finished_at < end:
                add_run(details, run, group)
        return details

    def _read(self, window: Window) -> RunHistory:
        fields = {"as_of": self.as_of, "is_complete": True, "groups": self.groups}
        fields["is_ahead"] = window.is_ahead(self.as_of)
        return RunHistory(details=self._count(window.start, window.end), **fields | self.overrides)

    def _count_by_step(self, window: Window) -> ErrorSteps:
        steps: ErrorSteps = {}
        for start in window.steps():
            groups = steps.setdefault(start, {})
            for (group, job_type), count in self._count(start, start + window.step).by_type.items():
                groups.setdefault(group, Counter())[job_type] += count
        return steps
