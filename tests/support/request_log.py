"""Captures the log entries of requests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def capture_log() -> Iterator[list[dict[str, Any]]]:
    """Yields a list; during the block each request adds its logged fields to the list."""
    logger, entries = logging.getLogger("jobmon.request"), list[dict[str, Any]]()
    handler, old_level = logging.Handler(), logger.level
    handler.emit = lambda record: entries.append(dict(record.msg))  # type: ignore[method-assign, call-overload]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield entries
    finally:
        logger.setLevel(old_level)
        logger.removeHandler(handler)
