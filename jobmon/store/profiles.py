"""Makes field mappings, queries for statuses and a list of indexes from a parsed profile."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobmon.profiles import ProfileFile, load_profile
from jobmon.profiles.conditions import (
    Query,
    find_due_fields,
    list_elements,
    negate_query,
    select_indexable,
    to_expression,
)
from jobmon.profiles.parser import (
    ParsedAttempts,
    ParsedLease,
    ParsedLog,
    ParsedProfile,
    ParsedStatus,
    Rule,
)
from jobmon.profiles.sources import Source
from jobmon.settings import Settings
from jobmon.store.conversions import prefix_expression
from jobmon.store.event_log import DURATION, EventLog
from jobmon.store.identity import label_values, match_any
from jobmon.store.mapping import DerivedStatus, Document, FieldMapping, Keys
from jobmon.store.profile_indexes import list_profile_indexes
from jobmon.store.profile_reader import FieldReader, JobReader
from jobmon.store.repetition import list_repetition_paths
from jobmon.store.run_rules import RunRules


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a queue's documents hold jobs and attempts, and which additional indexes they need.

    `outcome` and `indexes` have the documents' names.
    """

    jobs: FieldMapping
    # None if attempts have no collection: then a job contains its attempts, or only the last one.
    attempts: FieldMapping | None
    # How to combine the documents of the attempts' collection, if they are events of attempts.
    log: EventLog | None = None
    # An expression for the status of the last attempt; None if the job's status shows it.
    outcome: Any = None
    # The keys of each additional index.
    indexes: tuple[Keys, ...] = ()
    # Whether a job contains its attempts, not only the last one.
    has_attempt_array: bool = False
    # Whether a queued job may have run before.
    is_recurring: bool = False
    # Whether the status follows from the rules of a shipped profile.
    has_shipped_rules: bool = False
    # The order in which workers take due jobs; None if it is unknown.
    lease: ParsedLease | None = None
    # The fields that every document has.
    always: tuple[str, ...] = ()
    # The name of a shipped profile, or a hash of the content of a file.
    identity: str = ""
    # The dates that change a status when they pass: pairs of a path and the date's form there.
    due_fields: tuple[tuple[str, str], ...] = ()
    # How changes of jobs show their runs, where no attempts are recorded.
    runs: RunRules = field(default_factory=RunRules)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Profile":
        """The profile that the settings name, with their names for fields and statuses."""
        profile = cls.from_file(settings.read_profile(), settings.jobs_collection)
        return replace(
            profile,
            jobs=replace(profile.jobs, search_paths=settings.find_search_paths()),
            # The identity is the file's alone: `queue_key` adds the names in the settings.
            identity=load_profile(settings.profile).identity,
        )

    @classmethod
    def from_file(cls, file: ProfileFile, collection: str) -> "Profile":
        """The profile in a file, for the jobs of a collection."""
        parsed = file.parse(collection)
        rules = parsed.status.rules
        jobs = _map_jobs(parsed)
        outcome_rules, log = parsed.attempts.outcome, parsed.attempts.log
        outcome = _make_status_expression(outcome_rules) if outcome_rules else None
        return cls(
            jobs=jobs,
            attempts=_map_recorded(parsed.attempts),
            log=None if log is None else _make_log(log),
            outcome=outcome,
            indexes=list_profile_indexes(jobs, rules),
            lease=parsed.lease,
            has_attempt_array=parsed.attempts.array is not None,
            is_recurring=parsed.is_recurring,
            has_shipped_rules=bool(rules) and file.has_shipped_status,
            always=parsed.always,
            identity=file.identity,
            runs=RunRules.from_profile(
                parsed.attempts.events, jobs, outcome, is_recurring=parsed.is_recurring
            ),
            due_fields=tuple(sorted(set().union(*(find_due_fields(rule.when) for rule in rules)))),
        )

    @property
    def reads_last_attempt(self) -> bool:
        """Whether the profile defines the attempts of a job that has no recorded attempts."""
        return self.attempts is None or self.log is not None


def _map_jobs(parsed: ParsedProfile) -> FieldMapping:
    mapping = _map_fields(parsed.fields, parsed.status)
    reads, computed = dict(mapping.reads), dict(mapping.computed)
    if parsed.attempts.place != "collection":
        reads["attempts"] = _list_attempt_inputs(parsed.attempts)
        if expressions := _make_attempt_expressions(parsed.attempts):
            computed["attempts"] = expressions
    if parsed.recurring is not None:
        computed["recurring"] = to_expression(parsed.recurring)
    return replace(
        mapping,
        paths={
            "createdAt": parsed.order,
            **mapping.paths,
            **list_repetition_paths(parsed.repetition),
        },
        reads=reads,
        computed=computed,
        where=parsed.where,
        add_fields=JobReader(parsed).add_fields,
        has_creation_time="createdAt" in parsed.fields,
    )


def _map_recorded(attempts: ParsedAttempts) -> FieldMapping | None:
    """The mapping of the collection of attempts or events; None if there is none."""
    if attempts.log is not None:
        return _map_log(attempts.log)
    if attempts.place == "collection":
        return _map_attempts(attempts.fields, attempts.status)
    return None


def _map_attempts(fields: Mapping[str, Source], status: ParsedStatus) -> FieldMapping:
    return replace(_map_fields(fields, status), add_fields=FieldReader(fields).add_fields)


def _map_log(log: ParsedLog) -> FieldMapping:
    """The mapping of events: they are read like attempts, with their time as `finishedAt`."""
    if log.status.path is None:
        where: Query = {"$or": [rule.when for rule in log.status.rules]}
    else:
        values = [value for name in log.status.names for value in label_values(name)]
        where = {log.status.path: match_any(values)}
    fallback = Rule(when=None, status="ignored")  # for events that `where` excludes
    rules = (*log.status.rules, fallback) if log.status.rules else ()
    mapping = _map_attempts(log.fields, replace(log.status, rules=rules))
    paths = {**mapping.paths, **_make_log(log).paths}
    if log.duration is not None:
        paths[DURATION] = log.duration
    return replace(mapping, paths=paths, where=where)


def _make_log(log: ParsedLog) -> EventLog:
    return EventLog(same=log.same, duration_unit=log.duration_unit)


def _map_fields(fields: Mapping[str, Source], status: ParsedStatus) -> FieldMapping:
    paths = {name: source.path for name, source in fields.items() if source.path is not None}
    if status.path is not None:
        paths["status"] = status.path
    pathless = {name: source for name, source in fields.items() if source.path is None}
    return FieldMapping(
        paths=paths,
        statuses=status.names,
        derived=_derive_status(status) if status.rules else None,
        only_in={name: source.only_in for name, source in fields.items() if source.only_in},
        offsets={name: source.offset for name, source in fields.items() if source.offset},
        readings={name: source.reading for name, source in fields.items() if source.reading},
        expressions={
            name: source.expression
            for name, source in fields.items()
            if source.expression is not None and source.expression != f"${source.path}"
        },
        alternatives={
            name: source.alternatives for name, source in pathless.items() if source.alternatives
        },
        constants={
            name: source.read({}) for name, source in pathless.items() if source.is_constant
        },
        reads={name: source.inputs for name, source in pathless.items()},
        computed={name: source.computed for name, source in pathless.items() if source.computed},
    )


def _list_attempt_inputs(attempts: ParsedAttempts) -> tuple[str, ...]:
    if attempts.array is not None:
        return (attempts.array,)
    return tuple(path for source in attempts.fields.values() for path in source.inputs)


def _make_attempt_expressions(attempts: ParsedAttempts) -> Document:
    """By field of an attempt: its expression. `status` is an array: one value for each element."""
    expressions: Document = {
        name: source.computed
        for name, source in attempts.fields.items()
        if source.computed is not None
    }
    if attempts.outcome:
        expressions["outcome"] = _make_status_expression(attempts.outcome)
    if attempts.array is not None and attempts.status.rules:
        status = prefix_expression(_make_status_expression(attempts.status.rules), "$$this.")
        elements = list_elements(f"${attempts.array}")
        expressions["status"] = {"$map": {"input": elements, "in": status}}
    return expressions


def _make_status_expression(rules: Iterable[Rule]) -> Any:
    *conditional, last = rules
    if not conditional:
        return {"$literal": last.status}
    branches = [
        {"case": to_expression(rule.when or {}), "then": {"$literal": rule.status}}
        for rule in conditional
    ]
    return {"$switch": {"branches": branches, "default": {"$literal": last.status}}}


def _derive_status(status: ParsedStatus) -> DerivedStatus:
    needs: dict[str, list[Query]] = {}
    unmatched: Query = {}  # matches every document that no earlier rule matches
    for rule in status.rules:
        query = unmatched if rule.when is None else select_indexable(rule.when)
        needs.setdefault(rule.status, []).append(dict(query))
        if rule.when is not None:
            implied: Mapping[str, Any] = unmatched
            open_clauses = {
                name: condition
                for name, condition in rule.when.items()
                if name not in implied or implied[name] != condition
            }
            for name, condition in negate_query(open_clauses).items():
                unmatched.setdefault(name, condition)
    return DerivedStatus(
        expression=_make_status_expression(status.rules),
        needs={
            name: queries[0] if len(queries) == 1 else {"$or": queries}
            for name, queries in needs.items()
        },
    )
