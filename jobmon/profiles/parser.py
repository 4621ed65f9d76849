"""Parses a profile's content, and checks what its JSON Schema cannot express."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.profiles.conditions import Query, has_now
from jobmon.profiles.schema import TomlMistakeError, UnlistedKeyError, profile_schema
from jobmon.profiles.sources import Source, SourceContext, parse_source
from jobmon.profiles.stored_values import PER_SECOND
from jobmon.profiles.toml_lines import KeyPath
from jobmon.profiles.transitions import Transition, parse_transition

_DATES = ("createdAt", "updatedAt", "nextRunAt", "leaseExpiresAt", "startedAt", "finishedAt")
# Queries find jobs by these fields with an index, which needs a path.
_NEED_PATH = ("jobId", "createdBy", "createdAt")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A status, and the query for its documents. Without a query: for all other documents."""

    when: Query | None
    status: str


@dataclass(frozen=True, kw_only=True)
class ParsedStatus:
    """How a status is determined: by rules or, if there are none, by the value at `path`.

    `names`: label of a stored status -> status of the contract.
    """

    rules: tuple[Rule, ...] = ()
    path: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ParsedEvents:
    """How changes of a job show its runs; the JSON Schema describes each field."""

    running: Query | None = None
    end_fields: tuple[str, ...] = ()
    end_statuses: tuple[str, ...] = ()
    lease_field: str | None = None
    deleted: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParsedLog:
    """A collection of events: a run has a document for its start, and one for its end.

    `status`: `running` for an event that starts a run. `fields` has the time of an event as
    `finishedAt`. `same`: the paths whose values the events of one run share. `duration`: the path
    of a run's duration, which is stored in units of `duration_unit` milliseconds.
    """

    fields: Mapping[str, Source]
    status: ParsedStatus
    same: tuple[str, ...]
    duration: str | None
    duration_unit: float = 1


@dataclass(frozen=True, kw_only=True)
class ParsedAttempts:
    """Where attempts are, and how their fields are read.

    `place`: "collection", "array" (at the path `array` of a job), "log" (of events) or "job" (only
    the last attempt). With "log", a job without events is read as with "job". `outcome`: for "job"
    and "log", rules for how the last run of a job ended.
    """

    place: str
    array: str | None
    fields: Mapping[str, Source]
    status: ParsedStatus
    outcome: tuple[Rule, ...]
    log: ParsedLog | None
    events: ParsedEvents


@dataclass(frozen=True, kw_only=True)
class ParsedLease:
    """The order in which workers take due jobs: pairs (field of the contract, 1 or -1).

    With `each_type`, workers take the jobs of each type separately, in this order. `index`: the
    index that serves the order, as pairs (field in the documents, 1 or -1); if empty,
    `jobmon init` creates one.
    """

    order: tuple[tuple[str, int], ...]
    each_type: bool = False
    index: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ParsedRepetition:
    """The paths that show how often a recurring job runs; the JSON Schema describes each field."""

    interval: str | None = None
    time_of_day: str | None = None
    timezone: str | None = None
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ParsedProfile:
    """A profile whose fields, rules and conditions are parsed.

    `where`: which documents are jobs. `order`: the path that orders lists if `createdAt` is
    unknown. `is_recurring`: a queued job may have run before. `recurring`: a query for the jobs
    that run again after a success; None if the profile has none. `repetition`: how often they run.
    `always`: fields that every document has. `lease`: the order in which workers take jobs; None if
    it is unknown. `transitions`: how each action changes a job.
    """

    fields: Mapping[str, Source]
    status: ParsedStatus
    attempts: ParsedAttempts
    where: Query
    order: str
    is_recurring: bool
    recurring: Query | None
    repetition: ParsedRepetition | None
    always: tuple[str, ...]
    lease: ParsedLease | None
    transitions: Mapping[str, Transition]


def parse_profile(content: Mapping[str, Any], collection: str) -> ParsedProfile:
    """The profile for the jobs in a collection; raises TomlMistakeError."""
    for name in content.get("constants", {}):
        if name in profile_schema()["properties"]:
            raise UnlistedKeyError(("constants", name), "cannot be the name of a constant")
    constants = {f"$const.{name}": value for name, value in content.get("constants", {}).items()}
    constants["$collection"] = collection
    context = SourceContext(constants=constants, readings=content.get("readings", {}))
    if "status" not in content:
        raise TomlMistakeError((), "needs status")
    fields = _parse_fields(content.get("fields", {}), context, ("fields",))
    _check_fields(fields)
    where = _parse_timeless_query(content.get("where", {}), context, ("where",))
    recurring = content.get("recurring", False)
    if isinstance(recurring, dict):
        recurring = _parse_timeless_query(recurring, context, ("recurring",))
    status = _parse_status(content["status"], context, ("status",))
    statuses = {*JobStatus, *_list_statuses(status)}
    for name, source in fields.items():
        _check_statuses(source.only_in, statuses, ("fields", name, "only_in"))
    if status.path is None and not status.rules:
        raise TomlMistakeError(("status",), "needs path")
    attempts = _parse_attempts(content.get("attempts", {"in": "job"}), context)
    end_statuses = ("attempts", "events", "end_statuses")
    _check_statuses(attempts.events.end_statuses, statuses, end_statuses)
    transitions: Mapping[str, Any] = content.get("transitions", {})
    for action, spec in transitions.items():
        _check_statuses(spec["from"], statuses, ("transitions", action, "from"))
    return ParsedProfile(
        fields=fields,
        status=status,
        attempts=attempts,
        where=where,
        order=content.get("order", "_id"),
        is_recurring=recurring is not False,
        recurring=recurring if isinstance(recurring, dict) else None,
        repetition=_parse_repetition(content),
        always=tuple(content.get("always", ())),
        lease=_parse_lease(content["lease"]) if "lease" in content else None,
        transitions={
            action: parse_transition(action, spec, context) for action, spec in transitions.items()
        },
    )


def _parse_repetition(content: Mapping[str, Any]) -> ParsedRepetition | None:
    spec = content.get("repetition")
    if spec is None:
        return None
    key_path: KeyPath = ("repetition",)
    if not isinstance(content.get("recurring"), dict):
        raise TomlMistakeError(key_path, "needs recurring, with a query for the recurring jobs")
    if not {"interval", "timeOfDay"} & spec.keys():
        raise TomlMistakeError(key_path, "needs interval or timeOfDay")
    return ParsedRepetition(
        interval=spec.get("interval"),
        time_of_day=spec.get("timeOfDay"),
        timezone=spec.get("timezone"),
        exceptions=tuple(spec.get("exceptions", ())),
    )


def _parse_timeless_query(query: Query, context: SourceContext, key_path: KeyPath) -> Query:
    """A query that must not depend on the present moment; raises TomlMistakeError if it does."""
    parsed = context.parse_query(query, key_path)
    if has_now(parsed):
        raise TomlMistakeError(key_path, "must not depend on $now")
    return parsed


def _list_statuses(status: ParsedStatus) -> set[str]:
    """The statuses that the profile names."""
    return {*status.names.values(), *(rule.status for rule in status.rules)}


def _check_statuses(names: Iterable[str], statuses: Collection[str], key_path: KeyPath) -> None:
    """Raise TomlMistakeError for a name in the list at `key_path` that is none of `statuses`."""
    for index, name in enumerate(names):
        if name not in statuses:
            allowed = ", ".join(sorted(statuses))
            message = f"{name!r} is not one of {allowed}: the statuses of this profile"
            raise TomlMistakeError((*key_path, index), message)


def _parse_fields(
    specs: Mapping[str, Any], context: SourceContext, key_path: KeyPath
) -> dict[str, Source]:
    return {name: parse_source(spec, context, (*key_path, name)) for name, spec in specs.items()}


def _check_fields(fields: Mapping[str, Source]) -> None:
    _check_paths(fields, ("fields",), _NEED_PATH, "jobs")
    for name, source in fields.items():
        key_path = ("fields", name)
        if name == "createdAt" and source.offset is not None:
            raise TomlMistakeError(
                key_path, "must be a path without plus, because lists are ordered by it"
            )
        if source.reading is not None and name not in _DATES:
            raise TomlMistakeError(key_path, "is not a date, but its path is in readings")
        if name == "type" and source.expression is None:
            raise TomlMistakeError(
                key_path, "must be a value that the database can compute: use an expression"
            )
        path = source.path or ""
        if path.startswith("_id.") or (path == "_id" and name not in ("jobId", "createdAt")):
            raise TomlMistakeError(key_path, "cannot be at _id: only jobId and createdAt can")


def _parse_status(
    spec: Any, context: SourceContext, key_path: KeyPath, *, has_default: bool = True
) -> ParsedStatus:
    if isinstance(spec, list):
        return ParsedStatus(rules=_parse_rules(spec, context, key_path, has_default=has_default))
    return ParsedStatus(path=spec.get("path"), names=spec.get("names", {}))


def _parse_rules(
    spec: list[Any], context: SourceContext, key_path: KeyPath, *, has_default: bool = True
) -> tuple[Rule, ...]:
    """The rules; with `has_default`, the last one is for all other documents."""
    rules = []
    for index, rule in enumerate(spec):
        is_last, rule_path = has_default and index == len(spec) - 1, (*key_path, index)
        if ("when" in rule) == is_last:
            raise TomlMistakeError(
                rule_path,
                "the last rule must not have `when`: it is for all other documents"
                if is_last
                else "needs when: only the last rule is for all other documents",
            )
        when = None if is_last else context.parse_query(rule["when"], (*rule_path, "when"))
        rules.append(Rule(when=when, status=rule["is"]))
    return tuple(rules)


def _parse_lease(spec: Mapping[str, Any]) -> ParsedLease:
    return ParsedLease(
        order=_parse_keys(spec["order"]),
        each_type=spec.get("each_type", False),
        index=_parse_keys(spec.get("index", ())),
    )


def _parse_keys(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """The keys of an order or an index: `-name` is descending."""
    return tuple((name.removeprefix("-"), -1 if name.startswith("-") else 1) for name in names)


def _parse_attempts(spec: Mapping[str, Any], context: SourceContext) -> ParsedAttempts:
    key_path: KeyPath = ("attempts",)
    if "in" not in spec:
        places = profile_schema()["properties"]["attempts"]["properties"]["in"]["enum"]
        raise TomlMistakeError(key_path, f"needs in, with one of {', '.join(places)}")
    place, array = spec["in"], spec.get("array")
    for name in ("array", "log"):
        if (place == name) != (name in spec):
            raise TomlMistakeError(key_path, f'{name} and in = "{name}" need each other')
    outcome_path = (*key_path, "outcome")
    if "outcome" in spec and place not in ("job", "log"):
        raise TomlMistakeError(outcome_path, 'is only used with in = "job" or in = "log"')
    element_context = field_context = context
    if array is not None:
        prefix = f"{array}."
        readings = {
            path.removeprefix(prefix): reading
            for path, reading in context.readings.items()
            if path.startswith(prefix)
        }
        element_context = SourceContext(constants=context.constants, readings=readings)
        field_context = replace(context, base=array)
    status = _parse_attempt_status(spec.get("status", {}), element_context, (*key_path, "status"))
    outcome = _parse_attempt_status(spec.get("outcome", {}), element_context, outcome_path).rules
    fields = _parse_fields(spec.get("fields", {}), field_context, (*key_path, "fields"))
    if place == "collection":
        need_path = ("jobId", "attemptNumber", "finishedAt")
        _check_paths(fields, (*key_path, "fields"), need_path, "attempts")
    if place in ("array", "collection") and not (status.rules or status.path):
        raise TomlMistakeError(key_path, "needs status: without it, no attempt has one")
    return ParsedAttempts(
        place=place,
        array=array,
        fields=fields,
        status=status,
        outcome=outcome,
        log=_parse_log(spec["log"], context) if place == "log" else None,
        events=_parse_events(spec.get("events", {}), context, (*key_path, "events")),
    )


def _parse_log(spec: Mapping[str, Any], context: SourceContext) -> ParsedLog:
    key_path: KeyPath = ("attempts", "log")
    for name in ("collection", "time", "status", "fields"):
        if name not in spec:
            raise TomlMistakeError(key_path, f"needs {name}")
    status_path = (*key_path, "status")
    status = _parse_attempt_status(spec["status"], context, status_path, has_default=False)
    if AttemptStatus.SUCCEEDED not in _list_statuses(status):
        raise TomlMistakeError(status_path, "needs succeeded, for events that end a run")
    if any(has_now(rule.when) for rule in status.rules):
        raise TomlMistakeError(status_path, "must not depend on $now")
    fields = _parse_fields(spec["fields"], context, (*key_path, "fields"))
    _check_paths(fields, (*key_path, "fields"), ("jobId", "attemptNumber"), "attempts")
    if "type" in fields and fields["type"].expression is None:
        raise TomlMistakeError(
            (*key_path, "fields", "type"), "must be a value that the database can compute"
        )
    duration = spec.get("duration")
    unit = context.find_reading(duration or "") or "milliseconds"
    if unit not in PER_SECOND:
        raise TomlMistakeError((*key_path, "duration"), f"must not have the reading {unit}")
    return ParsedLog(
        fields=fields | {"finishedAt": parse_source(spec["time"], context, (*key_path, "time"))},
        status=status,
        same=tuple(spec.get("same", ())),
        duration=duration,
        duration_unit=1_000 / PER_SECOND[unit],
    )


def _parse_attempt_status(
    spec: Any, context: SourceContext, key_path: KeyPath, *, has_default: bool = True
) -> ParsedStatus:
    status = _parse_status(spec, context, key_path, has_default=has_default)
    for index, rule in enumerate(status.rules):
        _check_attempt_status(rule.status, (*key_path, index, "is"))
    if status.path is None and (status.names or not (has_default or status.rules)):
        raise TomlMistakeError(key_path, "needs path")
    for name, meaning in status.names.items():
        _check_attempt_status(meaning, (*key_path, "names", name))
    return status


def _check_paths(
    fields: Mapping[str, Source], key_path: KeyPath, need_path: tuple[str, ...], documents: str
) -> None:
    """Raise TomlMistakeError without jobId, or if a field in `need_path` is not at a path.

    `documents`: what is found by these fields, such as jobs.
    """
    if "jobId" not in fields:
        raise TomlMistakeError(key_path, "needs jobId")
    for name in need_path:
        if name in fields and fields[name].path is None:
            message = f"must be a path, because {documents} are found by it"
            raise TomlMistakeError((*key_path, name), message)


def _parse_events(
    spec: Mapping[str, Any], context: SourceContext, key_path: KeyPath
) -> ParsedEvents:
    running = spec.get("running")
    if running is not None:
        running = _parse_timeless_query(running, context, (*key_path, "running"))
    return ParsedEvents(
        running=running,
        end_fields=tuple(spec.get("end_fields", ())),
        end_statuses=tuple(spec.get("end_statuses", ())),
        lease_field=spec.get("lease_field"),
        deleted=spec.get("deleted"),
    )


def _check_attempt_status(status: str, key_path: KeyPath) -> None:
    if status not in set(AttemptStatus):
        raise TomlMistakeError(key_path, f"{status!r} is not one of {', '.join(AttemptStatus)}")
