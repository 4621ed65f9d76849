"""Parses a profile's content, and checks what its JSON Schema cannot express."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobmon.domain import AttemptStatus
from jobmon.profiles.conditions import Query, has_now, parse_query
from jobmon.profiles.schema import ProfileMistakeError
from jobmon.profiles.sources import Source, SourceContext, parse_source
from jobmon.profiles.toml_lines import KeyPath

_DATES = ("createdAt", "updatedAt", "nextRunAt", "leaseExpiresAt", "startedAt", "finishedAt")
# Jobs are found by these fields with an index, so that they need a path.
_NEED_PATH = ("jobId", "createdBy", "createdAt")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A status, and the query `when` that its documents match; None for all other documents."""

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
class ParsedAttempts:
    """Where attempts are, and how their fields are read.

    `place`: "collection", "array" (at the path `array` of a job) or "job" (only the last one).
    `outcome`: for "job", rules for how the last run ended.
    """

    place: str
    array: str | None
    fields: Mapping[str, Source]
    status: ParsedStatus
    outcome: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class ParsedProfile:
    """A profile whose fields, rules and conditions are parsed.

    `where`: which documents are jobs. `order`: the path that orders lists if `createdAt` is
    unknown. `is_recurring`: a queued job may have run before. `always`: fields of every document.
    """

    fields: Mapping[str, Source]
    status: ParsedStatus
    attempts: ParsedAttempts
    where: Query
    order: str
    is_recurring: bool
    always: tuple[str, ...]


def parse_profile(content: Mapping[str, Any], collection: str) -> ParsedProfile:
    """The profile for the jobs in a collection; raises ProfileMistakeError."""
    constants = {f"$const.{name}": value for name, value in content.get("constants", {}).items()}
    constants["$collection"] = collection
    readings = content.get("readings", {})
    context = SourceContext(constants=constants, readings=readings)
    if "status" not in content:
        raise ProfileMistakeError((), "needs status")
    fields = _parse_fields(content.get("fields", {}), context, ("fields",))
    _check_fields(fields)
    where = parse_query(content.get("where", {}), constants, readings, ("where",))
    if has_now(where):
        raise ProfileMistakeError(("where",), "must not depend on $now")
    status = _parse_status(content["status"], context, ("status",))
    order = content.get("order", "_id")
    if status.path is None and not status.rules:
        raise ProfileMistakeError(("status",), "needs path")
    return ParsedProfile(
        fields=fields,
        status=status,
        attempts=_parse_attempts(content.get("attempts", {"in": "job"}), context),
        where=where,
        order=order,
        is_recurring=content.get("recurring", False),
        always=tuple(content.get("always", ())),
    )


def _parse_fields(
    specs: Mapping[str, Any], context: SourceContext, at: KeyPath
) -> dict[str, Source]:
    return {name: parse_source(spec, context, (*at, name)) for name, spec in specs.items()}


def _check_fields(fields: Mapping[str, Source]) -> None:
    if "jobId" not in fields:
        raise ProfileMistakeError(("fields",), "needs jobId")
    for name, source in fields.items():
        at = ("fields", name)
        is_date = name in _DATES
        if name in _NEED_PATH and source.path is None:
            raise ProfileMistakeError(at, "must be a path, for jobs are found by it")
        if name == "createdAt" and source.offset is not None:
            raise ProfileMistakeError(at, "must be a path without plus, for lists are in its order")
        if source.reading is not None and not is_date:
            raise ProfileMistakeError(at, "is not a date, but its path is in readings")
        if name == "type" and source.expression is None:
            raise ProfileMistakeError(
                at, "must be a value that the database can compute: use an expression"
            )
        path = source.path or ""
        if path.startswith("_id.") or (path == "_id" and name not in ("jobId", "createdAt")):
            raise ProfileMistakeError(at, "cannot be at _id: only jobId and createdAt can")


def _parse_status(spec: Any, context: SourceContext, at: KeyPath) -> ParsedStatus:
    if isinstance(spec, list):
        return ParsedStatus(rules=_parse_rules(spec, context, at))
    return ParsedStatus(path=spec.get("path"), names=spec.get("names", {}))


def _parse_rules(spec: list[Any], context: SourceContext, at: KeyPath) -> tuple[Rule, ...]:
    rules = []
    for index, rule in enumerate(spec):
        is_last, where = index == len(spec) - 1, (*at, index)
        if ("when" in rule) == is_last:
            raise ProfileMistakeError(
                where,
                "the last rule has no `when`: it is for all other documents"
                if is_last
                else "needs when: only the last rule is for all other documents",
            )
        when = rule.get("when")
        if when is not None:
            when = parse_query(when, context.constants, context.readings, (*where, "when"))
        rules.append(Rule(when=when, status=rule["is"]))
    return tuple(rules)


def _parse_attempts(spec: Mapping[str, Any], context: SourceContext) -> ParsedAttempts:
    at: KeyPath = ("attempts",)
    if "in" not in spec:
        raise ProfileMistakeError(at, "needs in")
    place, array = spec["in"], spec.get("array")
    if (place == "array") != (array is not None):
        raise ProfileMistakeError(at, 'array is for in = "array", which needs it')
    if "outcome" in spec and place != "job":
        raise ProfileMistakeError((*at, "outcome"), 'is for in = "job"')
    readings: Mapping[str, str] = context.readings
    if array is not None:
        start = f"{array}."
        readings = {
            path.removeprefix(start): reading
            for path, reading in readings.items()
            if path.startswith(start)
        }
        context = SourceContext(constants=context.constants, readings=readings, base=array)
        element = SourceContext(constants=context.constants, readings=readings)
    else:
        element = context
    status = _parse_status(spec.get("status", {}), element, (*at, "status"))
    for index, rule in enumerate(status.rules):
        _check_attempt_status(rule.status, (*at, "status", index, "is"))
    if status.names and status.path is None:
        raise ProfileMistakeError((*at, "status"), "needs path")
    for name, meaning in status.names.items():
        _check_attempt_status(meaning, (*at, "status", "names", name))
    outcome = _parse_rules(spec["outcome"], element, (*at, "outcome")) if "outcome" in spec else ()
    for index, rule in enumerate(outcome):
        _check_attempt_status(rule.status, (*at, "outcome", index, "is"))
    fields = spec.get("fields", {})
    parsed = {}
    for name, each in fields.items():
        parsed[name] = parse_source(each, context, (*at, "fields", name))
        if place == "collection" and not isinstance(each, str):
            raise ProfileMistakeError(
                (*at, "fields", name), "must be a path, for attempts are in a collection"
            )
    return ParsedAttempts(place=place, array=array, fields=parsed, status=status, outcome=outcome)


def _check_attempt_status(status: str, at: KeyPath) -> None:
    if status not in set(AttemptStatus):
        raise ProfileMistakeError(at, f"{status!r} is not one of {', '.join(AttemptStatus)}")
