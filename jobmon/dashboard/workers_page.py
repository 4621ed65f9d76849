"""The page of the workers or of one worker: the jobs that each runs now and ran in a window."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from jobmon.api.workers import (
    FoundWorkers,
    WorkerParameters,
    WorkerQuery,
    WorkerReader,
    count_silent,
)
from jobmon.dashboard import session
from jobmon.dashboard.error_rows import read_top_errors
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.parts import render_page
from jobmon.dashboard.worker_rows import make_row
from jobmon.diagnosis.error_groups import ErrorFilter
from jobmon.rollup.run_history import is_over
from jobmon.web.queues import current_queue

PER_PAGE = 50
_SCHEMA = WorkerParameters()


class WorkersPage:
    """The route of the page of all workers and, with `?worker=NAME`, of one worker."""

    def __init__(self, reader: WorkerReader) -> None:
        self._reader = reader

    def page(self) -> Response | str:
        """The workers of a window, or only one with its errors."""
        session.require_admin()
        query: WorkerQuery = replace(_SCHEMA.read(request), per_page=PER_PAGE)
        queue = current_queue()
        page_window = PageWindow.from_request("1h")
        window = page_window.resolve(queue.series, datetime.now(UTC))
        found_workers = self._reader.find(queue, window, query)
        top_errors = None
        if query.worker is not None:
            errors = ErrorFilter(worker=query.worker)
            top_errors = read_top_errors(queue, page_window, window, errors)
        context = {
            "window": page_window,
            "shown_window": window,
            "parameters": {
                **page_window.parameters,
                "worker": query.worker,
                "text": query.text,
                "type": query.types,
                "sort": query.sort,
            },
            "top_errors": top_errors,
            "can_filter_by_worker": queue.known_fields.can_filter_by_worker,
            **_describe_list(found_workers, query, page_window),
        }
        return render_page("workers", **context)


def _describe_list(
    found_workers: FoundWorkers, query: WorkerQuery, page_window: PageWindow
) -> dict[str, Any]:
    """The variables of the template for a page of the list."""
    workers, history = found_workers.workers or [], found_workers.history
    pages = max(1, math.ceil(len(workers) / PER_PAGE))
    page = min(query.page, pages)
    start = (page - 1) * PER_PAGE
    return {
        "rows": [
            make_row(worker, found_workers, page_window) for worker in workers[start:][:PER_PAGE]
        ],
        "total": len(workers),
        "is_total_exact": found_workers.is_complete,
        "silent_count": count_silent(found_workers.workers) or 0,
        "reasons": found_workers.reasons,
        "now": found_workers.running.as_of,
        "is_complete": history is None or history.is_complete,
        "is_over": history is not None and is_over(found_workers.window, history),
        "page": page,
        "pages": pages,
    }
