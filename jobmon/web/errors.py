"""Answers failures of the API as `{"error": {"code", "message", "details"?}}` with a status.

A fault is logged once, with its cause; the caller gets neither stack nor query.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, jsonify, request
from pymongo.errors import PyMongoError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from jobmon.store.client import DatabaseUnreachableError
from jobmon.store.failures import Failure, classify_failure, describe_error

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
RETRY_SLOW_AFTER_S = 10

# By kind of database failure: the message, and the seconds of Retry-After.
_UNAVAILABLE = {
    Failure.UNREACHABLE: ("The database does not answer. Try again.", RETRY_AFTER_S),
    Failure.INTERRUPTED: (
        "The database ended the query before it was done. Try again.",
        RETRY_AFTER_S,
    ),
    Failure.TOO_SLOW: (
        "The query took longer than its time limit. Use a narrower filter, or follow `next_cursor` "
        "instead of requesting a page far from 1.",
        RETRY_SLOW_AFTER_S,
    ),
    Failure.TOO_LARGE: (
        "The query needs more memory than the database allows. Use a narrower filter.",
        RETRY_SLOW_AFTER_S,
    ),
    Failure.REFUSED: (
        "The database refuses jobmon's user; /readyz and the log name the reason.",
        RETRY_AFTER_S,
    ),
}

_CODES = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "Method not allowed."),
    # Named here: Python 3.13 gives this status another name.
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("request_entity_too_large", "The body is too large."),
}


@dataclass(eq=False)
class ApiError(Exception):
    """A failure that the caller gets as an answer.

    `failure` is the kind of database failure that caused it, if one did.

    >>> raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such file.")
    """

    status: HTTPStatus
    code: str
    message: str
    _: KW_ONLY
    details: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    failure: Failure | None = None

    def __str__(self) -> str:
        return self.message


def unavailable(
    code: str,
    message: str,
    retry_after_s: int = RETRY_AFTER_S,
    *,
    details: dict[str, Any] | None = None,
    failure: Failure | None = None,
) -> ApiError:
    """An ApiError 503 with Retry-After: the same request may succeed later."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        code,
        message,
        details=details,
        headers={"Retry-After": str(retry_after_s)},
        failure=failure,
    )


def too_many_requests(message: str, retry_after_s: float) -> ApiError:
    """An ApiError 429 with Retry-After."""
    headers = {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers=headers)


def invalid(parameter: str, *messages: str) -> ApiError:
    """An ApiError 422 that names one bad parameter, and what is wrong with it."""
    return _validation_error({parameter: list(messages)})


def invalid_parameters(messages: Mapping[str, Any]) -> ApiError:
    """An ApiError 422 with marshmallow's messages by parameter, each message once.

    For a repeated parameter, marshmallow has the messages by the position of the value.
    """
    details = {}
    for parameter, errors in messages.items():
        by_value = errors.values() if isinstance(errors, dict) else [errors]
        details[parameter] = list(dict.fromkeys(text for texts in by_value for text in texts))
    return _validation_error(details)


def register(app: Flask) -> None:
    """Answer every exception as an ApiError."""
    app.register_error_handler(Exception, lambda error: _answer(explain(error)))


def explain(error: Exception) -> ApiError:
    """The answer to any failure. Logs a fault, and a failure of the database unless it was logged.

    The request's line in the log has the code of the answer, too.
    """
    match error:
        case ApiError():
            answer = error
        case HTTPException():
            answer = _explain_http_error(error)
        case PyMongoError():
            answer = _explain_database_error(error)
        case _:
            answer = _explain_fault(error)
    g.jobmon_error_code = answer.code
    return answer


def _answer(error: ApiError) -> Response:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.details is not None:
        body["details"] = error.details
    response = jsonify(error=body)
    response.status_code = error.status
    response.headers.update(error.headers)
    return response


def _validation_error(details: dict[str, Any]) -> ApiError:
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "validation_error",
        f"Bad value for {', '.join(sorted(details))}.",
        details=details,
    )


def _explain_http_error(error: HTTPException) -> ApiError:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    code, message = _CODES.get(status, (status.name.lower(), error.description or status.phrase))
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return ApiError(status, code, message, headers=headers)


def _explain_database_error(error: PyMongoError) -> ApiError:
    failure = classify_failure(error)
    if failure is None:
        return _explain_fault(error)
    if not isinstance(error, DatabaseUnreachableError):  # logged where it was raised first
        log.error("%s: database unavailable: %s", request.endpoint, describe_error(error))
    return unavailable("database_unavailable", *_UNAVAILABLE[failure], failure=failure)


def _explain_fault(error: Exception) -> ApiError:
    log.error("%s %s failed", request.method, request.endpoint, exc_info=error)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "Internal server error.")
