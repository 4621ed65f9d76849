"""Parses the `transitions` of a profile: how each action changes a job's document.

Only the actor makes these changes, when people have requested them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from jobmon.profiles.conditions import Now, Query, resolve_constant
from jobmon.profiles.schema import TomlMistakeError
from jobmon.profiles.sources import SourceContext
from jobmon.profiles.toml_lines import KeyPath

# The actions whose request has a value: a time or a priority.
_ACTIONS_WITH_VALUE = ("reschedule", "prioritize")


@dataclass(frozen=True)
class RequestedValue:
    """The time or priority of the request, stored in the form `reading`."""

    reading: str = "date"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """How an action changes a job's document: by one update, or by its deletion.

    It is allowed if the job has one of `statuses` and its document matches `when`. The values in
    `changes` may be a `Now` or a `RequestedValue`.
    """

    statuses: tuple[str, ...]
    when: Query = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    increments: Mapping[str, float] = field(default_factory=dict)
    deletes: bool = False


def parse_transition(action: str, spec: Mapping[str, Any], context: SourceContext) -> Transition:
    """The transition of an action; raises TomlMistakeError."""
    key_path: KeyPath = ("transitions", action)
    transition = Transition(
        statuses=tuple(spec["from"]),
        when=context.parse_query(spec.get("when", {}), (*key_path, "when")),
        changes={
            path: _parse_value(value, path, context, (*key_path, "set", path))
            for path, value in spec.get("set", {}).items()
        },
        removals=tuple(spec.get("unset", ())),
        increments=spec.get("inc", {}),
        deletes=spec.get("delete", False),
    )
    _check_changes(action, transition, key_path)
    return transition


def _parse_value(value: Any, path: str, context: SourceContext, key_path: KeyPath) -> Any:
    reading = context.find_reading(path) or "date"
    match value:
        case "$now":
            return Now(reading)
        case "$value":
            return RequestedValue(reading)
        case dict() | list():
            raise TomlMistakeError(key_path, "must be a single value")
        case _:
            return resolve_constant(value, context.constants, key_path, "$now", "$value")


def _check_changes(action: str, transition: Transition, key_path: KeyPath) -> None:
    paths = [*transition.changes, *transition.removals, *transition.increments]
    if transition.deletes == bool(paths):
        raise TomlMistakeError(key_path, "needs either delete or a change: set, unset or inc")
    for path in paths:
        if path.startswith("$") or path.partition(".")[0] == "_id":
            raise TomlMistakeError(key_path, f"{path} cannot be changed")
    for path, other_path in permutations(paths, 2):
        if path == other_path or other_path.startswith(f"{path}."):
            raise TomlMistakeError(key_path, f"changes {path} twice")
    has_value = any(isinstance(value, RequestedValue) for value in transition.changes.values())
    if has_value != (action in _ACTIONS_WITH_VALUE):
        allowed = " and ".join(_ACTIONS_WITH_VALUE)
        raise TomlMistakeError(
            (*key_path, "set"), f'"$value" is for {allowed}: use it there and nowhere else'
        )
