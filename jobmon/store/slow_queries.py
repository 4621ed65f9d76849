"""Logs the shape of slow queries, never the values in them."""

import json
from collections.abc import Mapping
from typing import Any

import structlog
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

log = structlog.get_logger(__name__)

_QUERY_KEYS = ("filter", "query", "pipeline")
_MAX_SHAPE_LENGTH = 500


class SlowQueries(CommandListener):
    """Logs a warning for each command that takes longer than `slow_ms`, even if it fails."""

    def __init__(self, slow_ms: int) -> None:
        self._slow_ms = slow_ms
        self._running: dict[int, Mapping[str, Any]] = {}

    def started(self, event: CommandStartedEvent) -> None:
        """Remember the command, unless it waits on purpose for the next change."""
        if not (event.command_name == "getMore" and "maxTimeMS" in event.command):
            self._running[event.request_id] = event.command

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._finish(event, "succeeded")

    def failed(self, event: CommandFailedEvent) -> None:
        self._finish(event, "failed")

    def _finish(self, event: CommandSucceededEvent | CommandFailedEvent, outcome: str) -> None:
        command = self._running.pop(event.request_id, None)
        duration_ms = event.duration_micros / 1_000
        if command is None or duration_ms <= self._slow_ms:
            return
        query = next((command[name] for name in _QUERY_KEYS if name in command), None)
        log.warning(
            "slow query",
            command=event.command_name,
            collection=str(command.get(event.command_name)),
            index=_describe_index(command.get("hint")),
            shape=json.dumps(_describe_shape(query))[:_MAX_SHAPE_LENGTH],
            outcome=outcome,
            duration_ms=round(duration_ms, 1),
        )


def _describe_index(hint: Any) -> str | None:
    """The index that a command's hint names, by its keys or its name; None without a hint."""
    if not hint:
        return None
    return hint if isinstance(hint, str) else str(dict(hint))


def _describe_shape(value: Any) -> Any:
    """The names and operators of a query, without its values."""
    if isinstance(value, Mapping):
        return {str(name): _describe_shape(inner) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return [_describe_shape(inner) for inner in value]
    return "?"
