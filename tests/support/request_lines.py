"""Captures the log lines of requests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def capture_requests() -> Iterator[list[dict[str, Any]]]:
    """Yields a list that gets the logged fields of each request while the block runs."""
    logger, lines = logging.getLogger("jobmon.request"), list[dict[str, Any]]()
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: lines.append(dict(record.msg))  # type: ignore[method-assign, call-overload]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
