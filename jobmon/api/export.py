"""Streams all jobs of a list as a CSV or NDJSON file.

A complete file ends with a marker and the number of rows. A fault before that closes the
connection; a reader behind an HTTP/1.0 proxy sees only that the marker is missing.
"""

import csv
import errno
import io
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from flask import Flask, Response, current_app, request
from pymongo.errors import PyMongoError

from jobmon.api.answers import JobSummary
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError
from jobmon.web.json_text import encode_line

log = logging.getLogger(__name__)

# Per process: a running export holds a thread and keeps the database busy.
MAX_EXPORTS = 4
PER_CALLER = 1  # so that one caller cannot take all exports
RETRY_AFTER_S = 10
CHUNK_ROWS = 125  # about 64 KiB, at most some 20 MB

_COLUMNS = [name for name in JobSummary().fields if name != "lastError"]
_CSV_COLUMNS = [*_COLUMNS, "lastErrorCode", "lastErrorMessage"]
_CSV_END = "#end"
_pick_columns = itemgetter(*_COLUMNS)
# Spreadsheets trim blanks, drop invisible characters and read full-width forms as ASCII ones.
_FORMULA = re.compile(
    r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]"
)


def _render_csv(jobs: Iterable[dict[str, Any]]) -> bytes:
    return _write_csv(map(_make_cells, jobs))


def _make_cells(job: dict[str, Any]) -> list[Any]:
    error = job["lastError"] or {}
    return [
        # A letter or a digit begins no formula: this spares most cells the search.
        value if type(value) is not str or value[:1].isalnum() else _escape_formula(value)
        for value in (*_pick_columns(job), error.get("code"), error.get("message"))
    ]


def _render_csv_end(rows: int, reason: str) -> bytes:
    return _write_csv([[_CSV_END, rows, reason or None, *[None] * (len(_CSV_COLUMNS) - 3)]])


def _write_csv(rows: Iterable[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="replace")


def _escape_formula(text: str) -> str:
    """`text`, with a quote in front if a spreadsheet would run it or it looks like the end row."""
    return f"'{text}" if _FORMULA.match(text) or text == _CSV_END else text


def _render_ndjson(jobs: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(map(encode_line, jobs))


def _render_ndjson_end(rows: int, reason: str) -> bytes:
    end = {"end": True, "rows": rows} | ({"reason": reason} if reason else {})
    return f"{json.dumps(end)}\n".encode()  # with the documented blanks


class _Layout(NamedTuple):
    """Parts of a file: its header, some `JobSummary` rows, and its end.

    The end has the number of rows, and the reason why jobs may be missing, if there is one.
    """

    mimetype: str
    header: bytes
    render: Callable[[Iterable[dict[str, Any]]], bytes]
    end: Callable[[int, str], bytes]


_LAYOUTS = {
    "csv": _Layout("text/csv", _write_csv([_CSV_COLUMNS]), _render_csv, _render_csv_end),
    "ndjson": _Layout("application/x-ndjson", b"", _render_ndjson, _render_ndjson_end),
}


class ExportSlots:
    """The exports that are running, by caller. One app has one; its workers do not share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def take(self, caller: str) -> None:
        """Count an export of `caller`, who must `release` it; raises ApiError 429 if too many."""
        with self._lock:
            if self._running[caller] >= PER_CALLER:
                raise _too_many("You already have an export running. Try again when it has ended.")
            if self._running.total() >= MAX_EXPORTS:
                raise _too_many(f"{MAX_EXPORTS} exports are already running. Try again later.")
            self._running[caller] += 1

    def release(self, caller: str) -> None:
        """An export of `caller` has ended."""
        with self._lock:
            self._running[caller] -= 1
            self._running = +self._running  # drops callers without exports


def _too_many(message: str) -> ApiError:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers=headers)


def export(
    batches: Iterator[list[Document]], file_format: str, slots: ExportSlots, reason: str = ""
) -> Response:
    """The jobs of all batches as a file, in the `file_format` csv or ndjson; raises ApiError 429.

    `reason`: why jobs may be missing in the batches; it is in the last line of the file.
    The first batch is read before the response begins, so that its faults become normal errors.
    """
    caller = auth.subject()
    slots.take(caller)
    with ExitStack() as stack:
        stack.callback(slots.release, caller)
        batches = chain([next(batches, [])], batches)
        slot = stack.pop_all()  # released once: at the end of the file, or when the caller leaves
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    layout = _LAYOUTS[file_format]
    content = _render(app, batches, layout, str(request.endpoint), reason)
    response = Response(_hold_slot(slot, content), mimetype=layout.mimetype)
    response.call_on_close(slot.close)
    name = f"jobs-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{file_format}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _hold_slot(slot: ExitStack, content: Iterator[bytes]) -> Iterator[bytes]:
    with slot:
        yield from content


def _render(
    app: Flask, batches: Iterator[list[Document]], layout: _Layout, endpoint: str, reason: str
) -> Iterator[bytes]:
    show = JobSummary().dump
    rows = 0
    if layout.header:
        yield layout.header
    try:
        for batch in batches:
            for start in range(0, len(batch), CHUNK_ROWS):
                with app.app_context():  # the request has ended
                    chunk = layout.render(map(show, batch[start : start + CHUNK_ROWS]))
                yield chunk
            rows += len(batch)
    except PyMongoError as error:
        log.error("%s: export aborted: %s", endpoint, describe_error(error))
        # gunicorn then closes the connection without the last chunk.
        raise ConnectionResetError(errno.ECONNRESET, "export aborted") from None
    yield layout.end(rows, reason)
