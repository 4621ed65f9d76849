"""Logs one line for each request, and gives each request an id.

The id is the caller's `X-Request-ID` if that is well-formed, otherwise a new one. The id is in
the answer, in every line that the request logs, and in the `comment` of its queries of jobs and
history in MongoDB.
"""

import logging
import re
import secrets
import time
from functools import partial
from typing import Any

from flask import Flask, Response
from structlog.contextvars import bind_contextvars, clear_contextvars

from jobmon import logs, tracing
from jobmon.web import auth
from jobmon.web.context import current_request, request_values
from jobmon.web.queues import named_queue

REQUEST_ID = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

log = logging.getLogger("jobmon.request")


def register(app: Flask) -> None:
    """Give each request its id; log it when its answer is ready, or when a streamed answer ends."""
    is_traced = tracing.is_enabled()
    app.before_request(_begin)
    app.after_request(partial(_end, is_traced=is_traced))


def _begin() -> None:
    request_id = current_request().headers.get(REQUEST_ID)
    clear_contextvars()  # not at the end of a request: an export that is still sent keeps its id
    if request_id is None or _WELL_FORMED.fullmatch(request_id) is None:
        request_id = secrets.token_hex(16)
    bind_contextvars(request_id=request_id)
    values = request_values()
    values.jobmon_request_id, values.jobmon_began = request_id, time.perf_counter()


def _end(response: Response, *, is_traced: bool) -> Response:
    request, values = current_request(), request_values()
    request_id = values.jobmon_request_id
    response.headers.add(REQUEST_ID, request_id)
    rule = request.url_rule
    line: dict[str, Any] = {
        "method": request.method,
        "route": None if rule is None else rule.rule,
        **({"queue": queue} if (queue := named_queue()) else {}),
        "status": response.status_code,
        **({"code": code} if (code := values.get("jobmon_error_code")) else {}),
        **({"reason": reason} if (reason := values.get("jobmon_refusal_reason")) else {}),
        "user": auth.subject() if auth.is_authenticated() else None,
        "address": request.remote_addr,
        **(tracing.current_span_ids() if is_traced else {}),
        "request_id": request_id,
    }
    started_at = values.jobmon_began

    def write_line() -> None:
        line["duration_ms"] = round((time.perf_counter() - started_at) * 1_000, 1)
        logs.log_event(log, "request", line)

    if response.is_streamed:
        response.call_on_close(write_line)
    else:
        write_line()
    return response
