"""Finds the errors of failed runs that are counted from changes, unless they are uncertain."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jobmon.collector.job_changes import JobChange, select_paths
from jobmon.collector.job_evaluator import JobEvaluator
from jobmon.collector.runs import FinishedRun, lacks_error
from jobmon.domain import AttemptStatus
from jobmon.store.bson_json import encode_key
from jobmon.store.mapping import Document
from jobmon.store.run_rules import RunRules


@dataclass(frozen=True)
class EndedRun:
    """A run, the change that ended it, and the `document` of its job after the change.

    `knows_error`: whether the document has all fields of the job's error.
    """

    run: FinishedRun
    change: JobChange
    document: Document
    knows_error: bool


def complete_errors(
    ended_runs: Sequence[EndedRun], evaluator: JobEvaluator, rules: RunRules
) -> list[FinishedRun | None]:
    """Each run with its error; None for a failed run whose error is unknown.

    A change does not contain the run's error if the previous error was the same, or if the error is
    written later. Then the error in the present document is used if the document shows the same
    run; otherwise the previous error, if it is remembered. Index: _id. Raises PyMongoError.
    """
    if not rules.reads_error:
        return [
            None if ended.run.outcome == AttemptStatus.FAILED else ended.run for ended in ended_runs
        ]
    incomplete = {
        index: ended for index, ended in enumerate(ended_runs) if _needs_lookup(ended, rules)
    }
    runs: list[FinishedRun | None] = [ended.run for ended in ended_runs]
    if not incomplete:
        return runs
    documents = evaluator.find_by_id([ended.change.job_id for ended in incomplete.values()])
    present = {encode_key(document["_id"]): document for document in documents}
    shown = {
        index: present[ended.change.key]
        for index, ended in incomplete.items()
        if ended.change.key in present and _shows_run(present[ended.change.key], ended, rules)
    }
    now = datetime.now(UTC)
    versions = evaluator.evaluate([(document, now) for document in shown.values()])
    errors = {
        index: version.error for index, version in zip(shown, versions, strict=True) if version
    }
    for index, ended in incomplete.items():
        if index in errors:
            runs[index] = ended.run._replace(error=errors[index])
        elif not ended.knows_error or lacks_error(ended.run):
            runs[index] = None
    return runs


def _needs_lookup(ended: EndedRun, rules: RunRules) -> bool:
    """Whether a run failed, and its change perhaps does not show the error."""
    if ended.run.outcome != AttemptStatus.FAILED or ended.change.operation != "update":
        return False
    is_written = any(map(ended.change.has_changed, rules.error_paths or rules.error_reads))
    return bool(rules.error_reads) and not (ended.knows_error and is_written)


def _shows_run(document: Document, ended: EndedRun, rules: RunRules) -> bool:
    """Whether the document still shows this run: no later change has started or ended a run.

    Only a date that the change wrote proves this: a job may fail twice with the same status.
    """
    if rules.finished_path is None or not ended.change.has_written(rules.finished_path):
        return False
    present = select_paths(document, rules.remembered)
    return present == select_paths(ended.document, rules.remembered)
