"""Streams all rows of a list as a CSV or NDJSON file.

A complete file ends with a marker and the number of rows. A failure before that closes the
connection. Behind an HTTP/1.0 proxy, the missing marker is the only sign of the failure.
"""

import csv
import errno
import io
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

from flask import Flask, Response, current_app, request
from pymongo.errors import PyMongoError

from jobmon.api.answers import Answer
from jobmon.store.failures import describe_error
from jobmon.web import auth
from jobmon.web.errors import too_many_requests
from jobmon.web.json_text import encode_line

log = logging.getLogger(__name__)

# Per process: a running export holds a thread and keeps the database busy.
MAX_EXPORTS = 4
MAX_PER_CALLER = 1  # so that one caller cannot occupy all exports
RETRY_AFTER_S = 10
CHUNK_ROWS = 125  # usually about 64 KiB of text, at most about 20 MB

EXPORTS = "jobmon_exports"  # the key of the `ExportSlots` in `app.extensions`
_CSV_END = "#end"
# Spreadsheets trim blanks, drop invisible characters and read full-width forms as ASCII.
_FORMULA = re.compile(
    r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]"
)


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """The kind of rows in a file.

    The name of the file begins with `name`. `answer` serializes a row. In CSV, `pick_cells` makes
    the cells of a row, one for each of `columns`; at least three, because the end has three cells.
    """

    name: str
    answer: Answer
    columns: Sequence[str]
    pick_cells: Callable[[dict[str, Any]], Iterable[Any]]


def _render_csv(rows: FileRows, answers: Iterable[dict[str, Any]]) -> bytes:
    return _write_csv(
        [
            # No formula begins with a letter or a digit, so most cells need no search.
            cell if type(cell) is not str or cell[:1].isalnum() else _escape_formula(cell)
            for cell in rows.pick_cells(answer)
        ]
        for answer in answers
    )


def _render_csv_header(rows: FileRows) -> bytes:
    return _write_csv([rows.columns])


def _render_csv_end(rows: FileRows, count: int, reason: str) -> bytes:
    return _write_csv([[_CSV_END, count, reason or None, *[None] * (len(rows.columns) - 3)]])


def _write_csv(lines: Iterable[Iterable[Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(lines)
    return buffer.getvalue().encode(errors="replace")


def _escape_formula(text: str) -> str:
    """`text`, with a quote in front if a spreadsheet may run it, or if it is the end marker."""
    return f"'{text}" if _FORMULA.match(text) or text == _CSV_END else text


def _render_ndjson(_: FileRows, answers: Iterable[dict[str, Any]]) -> bytes:
    lines = bytearray()
    for answer in answers:
        # Ten times as fast as joining a list of lines: no line is kept in memory.
        lines += encode_line(answer)
    return bytes(lines)


def _render_ndjson_end(_: FileRows, count: int, reason: str) -> bytes:
    end = {"end": True, "rows": count} | ({"reason": reason} if reason else {})
    return f"{json.dumps(end)}\n".encode()  # with spaces, as documented


class _Layout(NamedTuple):
    """How the parts of a file are written: its header, its rows, and its end.

    The end has the number of rows and, if rows may be missing, the reason.
    """

    mimetype: str
    header: Callable[[FileRows], bytes]
    render: Callable[[FileRows, Iterable[dict[str, Any]]], bytes]
    end: Callable[[FileRows, int, str], bytes]


_LAYOUTS = {
    "csv": _Layout("text/csv", _render_csv_header, _render_csv, _render_csv_end),
    "ndjson": _Layout("application/x-ndjson", lambda _: b"", _render_ndjson, _render_ndjson_end),
}


class _File(NamedTuple):
    """A file to write; `reasons`: why rows may be missing."""

    rows: FileRows
    layout: _Layout
    reasons: Collection[str]


class ExportSlots:
    """The running exports of each caller. Each worker process counts only its own exports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def take(self, caller: str) -> None:
        """Count an export of `caller` as running; raises ApiError 429 if too many run already."""
        with self._lock:
            if self._running[caller] >= MAX_PER_CALLER:
                message = "You already have an export running. Try again when it has ended."
                raise too_many_requests(message, RETRY_AFTER_S)
            if self._running.total() >= MAX_EXPORTS:
                message = f"{MAX_EXPORTS} exports are already running. Try again later."
                raise too_many_requests(message, RETRY_AFTER_S)
            self._running[caller] += 1

    def release(self, caller: str) -> None:
        """Count an export of `caller` as ended."""
        with self._lock:
            self._running[caller] -= 1
            self._running = +self._running  # drops callers without exports


def export(
    rows: FileRows, batches: Iterator[list[Any]], file_format: str, reasons: Collection[str] = ()
) -> Response:
    """A file of all batches; `file_format` is csv or ndjson. Raises ApiError 429.

    `rows.answer` serializes the items of the batches. `reasons`: why rows may be missing; the last
    line of the file has them, also those that are added while batches are read. The first batch is
    read before the response begins, so that a failure to read it becomes a normal error.
    """
    slots: ExportSlots = current_app.extensions[EXPORTS]
    caller = auth.subject()
    slots.take(caller)
    with ExitStack() as stack:
        stack.callback(slots.release, caller)
        batches = chain([next(batches, [])], batches)
        slot = stack.pop_all()  # closed once: at the end of the file, or when the caller leaves
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    layout = _LAYOUTS[file_format]
    content = _render(app, _File(rows, layout, reasons), batches, str(request.endpoint))
    response = Response(_hold_slot(slot, content), mimetype=layout.mimetype)
    response.call_on_close(slot.close)
    name = f"{rows.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{file_format}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _hold_slot(slot: ExitStack, content: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content, then release the slot."""
    with slot:
        yield from content


def _render(
    app: Flask, file: _File, batches: Iterator[list[Any]], endpoint: str
) -> Iterator[bytes]:
    rows, layout, reasons = file
    count = 0
    if header := layout.header(rows):
        yield header
    try:
        for batch in batches:
            for start in range(0, len(batch), CHUNK_ROWS):
                with app.app_context():  # the request has ended
                    answers = map(rows.answer.dump, batch[start : start + CHUNK_ROWS])
                    chunk = layout.render(rows, answers)
                yield chunk
            count += len(batch)
    except PyMongoError as error:
        log.error("%s: export aborted: %s", endpoint, describe_error(error))
        # gunicorn then closes the connection without the last chunk.
        raise ConnectionResetError(errno.ECONNRESET, "export aborted") from None
    yield layout.end(rows, count, "; ".join(reasons))
