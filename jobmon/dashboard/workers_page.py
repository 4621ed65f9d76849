"""The page of the workers: what each runs and ran, silent ones first."""

import math
from datetime import UTC, datetime
from typing import Any

from flask import Response, render_template, request
from marshmallow import ValidationError

from jobmon.api.workers import (
    FoundWorkers,
    WorkerParameters,
    WorkerQuery,
    WorkerReader,
    count_silent,
    is_whole,
)
from jobmon.dashboard import session
from jobmon.dashboard.error_rows import read_top_errors
from jobmon.dashboard.facts import RANGE_WORDS, range_window, read_range
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.dashboard.worker_rows import make_row
from jobmon.diagnosis.error_groups import ErrorFilter
from jobmon.web.errors import invalid
from jobmon.web.queues import current_queue

PER_PAGE = 50
PARAMETERS = ("worker", "text", "sort", "page")


class WorkersPage:
    """The route of the page, and of the page of one worker: `?worker=NAME`."""

    def __init__(self, reader: WorkerReader) -> None:
        self._reader = reader

    def page(self) -> Response | str:
        """The workers of a range, or one of them with its errors."""
        session.require_admin()
        query, range_name, queue = _read_query(), read_range("1h"), current_queue()
        window = range_window(queue.series, range_name, datetime.now(UTC))
        found = self._reader.find(queue, window, query)
        top = None
        if query.worker is not None:
            errors = ErrorFilter(worker=query.worker)
            top = read_top_errors(queue, window, range_name, errors)
        context = {
            "parameters": {
                "range": range_name,
                "worker": query.worker,
                "text": query.text,
                "type": query.types,
                "sort": query.sort,
            },
            "words": RANGE_WORDS[range_name],
            "top": top,
            "finds_workers": queue.known_fields.finds_worker_jobs,
            **_describe(found, query, range_name),
        }
        if is_part_request():
            return conditional_response(render_template("dashboard/_workers.html", **context))
        return render_template("dashboard/workers.html", **context)


def _read_query() -> WorkerQuery:
    """The query of this request's address; ApiError 422 names a bad parameter."""
    given = {name: request.args[name] for name in PARAMETERS if request.args.get(name)}
    repeated = {"type": request.args.getlist("type"), "per_page": PER_PAGE}
    try:
        query: WorkerQuery = WorkerParameters().load(given | repeated)
    except ValidationError as error:
        raise invalid(next(iter(error.messages_dict)), "Bad value.") from None
    return query


def _describe(found: FoundWorkers, query: WorkerQuery, range_name: str) -> dict[str, Any]:
    workers = found.workers or []
    pages = max(1, math.ceil(len(workers) / PER_PAGE))
    page = min(query.page, pages)
    start = (page - 1) * PER_PAGE
    return {
        "rows": [make_row(worker, found, range_name) for worker in workers[start:][:PER_PAGE]],
        "total": len(workers),
        "is_whole": is_whole(found),
        "silent": count_silent(found.workers) or 0,
        "reasons": found.reasons,
        "now": found.running.as_of,
        "is_complete": found.history is None or found.history.is_complete,
        "page": page,
        "pages": pages,
    }
