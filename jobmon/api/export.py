"""A list as a file: everything that a filter matches, streamed as CSV or NDJSON.

What has been sent cannot be taken back. A complete file ends with a marker and the number of its
rows; a fault before that breaks the connection off, which an HTTP/1.0 proxy hides.
"""

import csv
import errno
import io
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple

from flask import Flask, Response, current_app, request
from pymongo.errors import PyMongoError

from jobmon.api.schemas import JobSummary
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError

log = logging.getLogger(__name__)

# Of a process: each export holds a thread and keeps the database busy as long as it runs.
AT_ONCE = 4
PER_CALLER = 1  # so that nobody keeps all others from exporting
RETRY_AFTER_S = 10

_COLUMNS = [name for name in JobSummary().fields if name != "lastError"]
_CSV_COLUMNS = [*_COLUMNS, "lastErrorCode", "lastErrorMessage"]
_CSV_END = "#end"
# Importers trim blanks, drop what is invisible, and take the full-width forms for the ASCII ones.
_FORMULA = re.compile(
    r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]"
)


def _csv(jobs: list[dict[str, Any]]) -> str:
    rows = []
    for job in jobs:
        error = job["lastError"] or {}
        values = [*(job[name] for name in _COLUMNS), error.get("code"), error.get("message")]
        rows.append([_harmless(value) for value in values])
    return _csv_of(rows)


def _csv_end(rows: int) -> str:
    return _csv_of([[_CSV_END, rows, *[None] * (len(_CSV_COLUMNS) - 2)]])


def _csv_of(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """What a spreadsheet would run as a formula, as text; and so what looks like the end."""
    is_harmful = isinstance(value, str) and (_FORMULA.match(value) or value == _CSV_END)
    return f"'{value}" if is_harmful else value


def _ndjson(jobs: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(job, ensure_ascii=False)}\n" for job in jobs)


def _ndjson_end(rows: int) -> str:
    return f"{json.dumps({'end': True, 'rows': rows})}\n"


class _Form(NamedTuple):
    """How a file looks: its start, a batch of `JobSummary`s in it, and its end by its rows."""

    mimetype: str
    header: str
    render: Callable[[list[dict[str, Any]]], str]
    end: Callable[[int], str]


_FORMS = {
    "csv": _Form("text/csv", _csv_of([_CSV_COLUMNS]), _csv, _csv_end),
    "ndjson": _Form("application/x-ndjson", "", _ndjson, _ndjson_end),
}


class _Slots:
    """How many exports run, and whose."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def take(self, caller: str) -> None:
        """Count one more export of `caller`, who must `give_back`; ApiError 429."""
        with self._lock:
            if self._running[caller] >= PER_CALLER:
                raise _too_many("An export of yours is running. Try again when it has ended.")
            if self._running.total() >= AT_ONCE:
                raise _too_many(f"{AT_ONCE} exports are running. Try again.")
            self._running[caller] += 1

    def give_back(self, caller: str) -> None:
        """An export of `caller` has ended."""
        with self._lock:
            self._running[caller] -= 1
            self._running = +self._running  # forgets who has none


_slots = _Slots()


def _too_many(message: str) -> ApiError:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers=headers)


def export(batches: Iterator[list[Document]], form: str) -> Response:
    """The jobs of all batches as a file, `form` being csv or ndjson; ApiError 429.

    The first batch is read before the answer begins, so its faults are answers like any other.
    """
    caller = auth.subject()
    _slots.take(caller)
    with ExitStack() as slot:
        slot.callback(_slots.give_back, caller)
        batches = chain([next(batches, [])], batches)
        held = slot.pop_all()  # given back once: at the file's end, or when the caller goes before
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    text = _text(app, batches, _FORMS[form], str(request.endpoint))
    response = Response(_holding(held, text), mimetype=_FORMS[form].mimetype)
    response.call_on_close(held.close)
    name = f"jobs-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _holding(held: ExitStack, text: Iterator[str]) -> Iterator[str]:
    with held:
        yield from text


def _text(
    app: Flask, batches: Iterator[list[Document]], form: _Form, endpoint: str
) -> Iterator[str]:
    schema = JobSummary(many=True)
    rows = 0
    if form.header:
        yield form.header
    try:
        for batch in batches:
            with app.app_context():  # the request's has ended
                text = form.render(schema.dump(batch))
            rows += len(batch)
            if text:
                yield text
    except PyMongoError as error:
        log.error("%s: an export broke off: %s", endpoint, describe_error(error))
        # To gunicorn as if the caller had gone: it closes without the last chunk.
        raise ConnectionResetError(errno.ECONNRESET, "the export broke off") from None
    yield form.end(rows)
