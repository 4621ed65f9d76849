"""Queries that take long, named in the log: what was asked for, never with which values."""

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

_ASKED = ("filter", "query", "pipeline")
_LONGEST_SHAPE = 500


class SlowQueries(CommandListener):
    """Warns of each command that takes longer than `slow_ms`, whether it succeeds or fails."""

    def __init__(self, slow_ms: int) -> None:
        self._slow_ms = slow_ms
        self._running: dict[int, Mapping[str, Any]] = {}

    def started(self, event: CommandStartedEvent) -> None:
        """Remember it; not what waits on purpose, as a change stream does for changes."""
        if not (event.command_name == "getMore" and "maxTimeMS" in event.command):
            self._running[event.request_id] = event.command

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Warn, if it took long."""
        self._ended(event, "succeeded")

    def failed(self, event: CommandFailedEvent) -> None:
        """Warn, if it took long."""
        self._ended(event, "failed")

    def _ended(self, event: CommandSucceededEvent | CommandFailedEvent, outcome: str) -> None:
        command = self._running.pop(event.request_id, None)
        duration_ms = event.duration_micros / 1_000
        if command is None or duration_ms <= self._slow_ms:
            return
        asked = next((command[name] for name in _ASKED if name in command), None)
        log.warning(
            "slow query",
            command=event.command_name,
            collection=str(command.get(event.command_name)),
            index=str(dict(command["hint"])) if command.get("hint") else None,
            shape=json.dumps(_shape(asked))[:_LONGEST_SHAPE],
            outcome=outcome,
            duration_ms=round(duration_ms, 1),
        )


def _shape(value: Any) -> Any:
    """Names and operators, without values."""
    if isinstance(value, Mapping):
        return {str(name): _shape(inner) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return [_shape(inner) for inner in value]
    return "?"
