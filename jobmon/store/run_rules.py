"""The rules by which changes of a job show its runs: the fields to read and their meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jobmon.domain import STATUSES_AFTER_ATTEMPT, JobStatus
from jobmon.profiles.conditions import Query, to_expression
from jobmon.profiles.parser import ParsedEvents
from jobmon.store.conversions import list_paths, replace_references
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.repetition import make_repetition_expression
from jobmon.store.short_errors import make_short_error_expression

# The time of a change, added to the documents that are evaluated.
CHANGED_AT = "_changedAt"
_JOB_FIELDS = (
    *("jobId", "type", "status", "leasedBy", "attemptCount"),
    *("startedAt", "finishedAt", "createdAt", "nextRunAt"),
)


@dataclass(frozen=True, kw_only=True)
class RunRules:
    """The rules of a profile for runs that are counted from changes, in the documents' names.

    `paths`: the fields that are read. `remembered`: the fields in `paths` that later changes of the
    job need, too; the other fields are read only for the error. `facts`: expressions for a document
    of these fields, with `CHANGED_AT` as the present moment. `end_fields`: a run has ended when one
    of them is written. Unless `has_own_end`, a run has also ended when a running job stops running.
    `finished_path`: the path of the date of the end; None if no field holds it. `error_reads`: all
    fields from which the error of the last run is computed; empty if documents do not hold it. If
    `reads_error` is false, changes are read without the error. `has_outcome`: whether a fact has
    the outcome of the last run. `has_wait`: whether the time before a run can be measured. For
    `running`, `end_statuses`, `lease_field` and `deleted` see `ParsedEvents`.
    """

    paths: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    running: Query | None = None
    end_fields: tuple[str, ...] = ()
    finished_path: str | None = None
    error_reads: tuple[str, ...] = ()
    reads_error: bool = True
    has_own_end: bool = False
    end_statuses: tuple[str, ...] = STATUSES_AFTER_ATTEMPT
    lease_field: str | None = None
    deleted: str | None = None
    has_outcome: bool = False
    has_wait: bool = True
    has_creation_time: bool = True

    @classmethod
    def from_profile(
        cls, events: ParsedEvents, jobs: FieldMapping, outcome: Any, *, is_recurring: bool
    ) -> "RunRules":
        """The rules for jobs with this mapping; `outcome` computes how the last run ended."""
        facts = _make_facts(events, jobs) | {"outcome": outcome}
        finished = jobs.paths.get("finishedAt")
        # If updatedAt and finishedAt are one field, each update would be counted as an end.
        default_fields = () if finished in (None, jobs.paths.get("updatedAt")) else (finished,)
        end_fields = events.end_fields or default_fields
        remembered = {path for fact in facts.values() for path in list_paths(fact)}
        remembered |= {*end_fields} | ({events.lease_field} if events.lease_field else set())
        error_reads = set(jobs.reads.get("lastError", ()))
        if jobs.can_compute("lastError"):
            error = jobs.translate_expression("$lastError")
            facts["error"] = {
                "$let": {"vars": {"e": error}, "in": make_short_error_expression("$$e")}
            }
            error_reads |= set(list_paths(error))
        paths = remembered | error_reads
        return cls(
            paths=tuple(sorted(paths - {"_id"})),
            remembered=tuple(sorted(remembered - {"_id"})),
            facts={
                name: {"$ifNull": [_evaluate_at_change(fact), None]} for name, fact in facts.items()
            },
            running=events.running,
            end_fields=tuple(path for path in end_fields if path is not None),
            finished_path=finished,
            error_reads=tuple(sorted(error_reads - {"_id"})),
            reads_error=bool(error_reads) or not jobs.holds("lastError"),
            has_own_end=bool(events.end_fields),
            end_statuses=events.end_statuses or STATUSES_AFTER_ATTEMPT,
            lease_field=events.lease_field,
            deleted=events.deleted,
            has_outcome=outcome is not None,
            has_wait=not is_recurring,
            has_creation_time=jobs.has_creation_time,
        )

    @cached_property
    def error_paths(self) -> tuple[str, ...]:
        """The fields that are read only for the error of the last run."""
        return tuple(path for path in self.paths if path not in self.remembered)

    @cached_property
    def sensitive_paths(self) -> tuple[str, ...]:
        """The fields of errors and of workers' names."""
        return tuple({*self.error_reads, *list_paths(self.facts["leasedBy"])})

    @cached_property
    def top_level_fields(self) -> frozenset[str]:
        """The names of the top-level fields that contain `paths`."""
        return frozenset(path.partition(".")[0] for path in self.paths)

    def select_running(self, jobs: FieldMapping) -> Document:
        """A query, in the documents' names, for the jobs whose run has not ended."""
        if self.running is None:
            return jobs.translate_filter({"status": JobStatus.LEASED.value})
        return {"$and": [jobs.where, self.running]} if jobs.where else self.running


def _make_facts(events: ParsedEvents, jobs: FieldMapping) -> dict[str, Any]:
    """The expressions of the facts, without the outcome and the error."""
    facts = {name: jobs.translate_expression(f"${name}") for name in _JOB_FIELDS}
    facts["isJob"] = to_expression(jobs.where) if jobs.where else {"$literal": True}
    if repetition := make_repetition_expression(jobs.paths):
        facts["repetition"] = repetition
    if events.running is not None:
        facts["isRunning"] = to_expression(events.running)
    return facts


def _evaluate_at_change(expression: Any) -> Any:
    """The expression with the time of the change in place of the present moment."""
    return replace_references(expression, lambda name: f"${CHANGED_AT if name == '$NOW' else name}")
