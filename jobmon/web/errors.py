"""Every failure as `{"error": {"code", "message", "details"?}}` with the right status.

The codes are those of the contract. A fault is logged once, with its cause; the caller gets
neither stack nor query.
"""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, jsonify, request
from pymongo.errors import PyMongoError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, UnprocessableEntity

from jobmon.logs import cause
from jobmon.store.connection import DatabaseAwayError
from jobmon.store.failures import Failure, classify_failure

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
RETRY_SLOW_AFTER_S = 10

AWAY = "The database does not answer. Try again."
INTERRUPTED = "The database ended the query before it was done. Try again."
TOO_SLOW = (
    "The query took longer than the database may work at one. Ask for less: a narrower filter, "
    "or the next pages by cursor instead of a page far from 1."
)
# What a caller is answered where the deployment, not the query, is at fault: the message, and
# after how many seconds the same query may succeed.
_UNAVAILABLE = {
    Failure.AWAY: (AWAY, RETRY_AFTER_S),
    Failure.INTERRUPTED: (INTERRUPTED, RETRY_AFTER_S),
    Failure.TOO_SLOW: (TOO_SLOW, RETRY_SLOW_AFTER_S),
    Failure.TOO_LARGE: (
        "The query needs more memory than the database allows. Ask for less: a narrower filter.",
        RETRY_SLOW_AFTER_S,
    ),
    Failure.REFUSED: (
        "The database refuses jobmon's user; /readyz and the log name the reason.",
        RETRY_AFTER_S,
    ),
}

_CODES = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "This address does not answer that."),
}


class ApiError(Exception):
    """A failure to be told to the caller as it is."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers or {}


def unavailable(
    code: str,
    message: str,
    retry_after_s: int = RETRY_AFTER_S,
    *,
    details: dict[str, Any] | None = None,
) -> ApiError:
    """503 with Retry-After: something that jobmon depends on does not answer."""
    headers = {"Retry-After": str(retry_after_s)}
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, code, message, details=details, headers=headers)


def invalid(parameter: str, *messages: str) -> ApiError:
    """422 that names one bad parameter."""
    return _validation_error({parameter: list(messages)})


def register(app: Flask) -> None:
    """Let the app answer every exception as this module says."""
    app.register_error_handler(Exception, lambda error: _answer(explain(error)))


def explain(error: Exception) -> ApiError:
    """What to tell the caller of any failure; a fault is logged here, once.

    The code is also for the line that is logged of the request.
    """
    match error:
        case ApiError():
            known = error
        case HTTPException():
            known = _http_error(error)
        case PyMongoError():
            known = _database_error(error)
        case _:
            known = _server_error(error)
    g.jobmon_error_code = known.code
    return known


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


def _http_error(error: HTTPException) -> ApiError:
    if isinstance(error, UnprocessableEntity) and hasattr(error, "data"):
        return _validation_error(_by_parameter(error.data["messages"]))
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    code, message = _CODES.get(
        status, (status.phrase.lower().replace(" ", "_"), error.description or status.phrase)
    )
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return ApiError(status, code, message, headers=headers)


def _by_parameter(messages: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """webargs' {location: {parameter: messages or {position: messages}}}, flattened."""
    flat: dict[str, list[str]] = {}
    for parameters in messages.values():
        for parameter, said in parameters.items():
            nested = said.values() if isinstance(said, dict) else [said]
            flat[parameter] = list(dict.fromkeys(text for texts in nested for text in texts))
    return flat


def _database_error(error: PyMongoError) -> ApiError:
    failure = classify_failure(error)
    if failure is None:
        return _server_error(error)
    if not isinstance(error, DatabaseAwayError):  # of these the first was logged, there are many
        log.error("%s: database unavailable: %s", request.endpoint, cause(error))
    return unavailable("database_unavailable", *_UNAVAILABLE[failure])


def _server_error(error: Exception) -> ApiError:
    log.error("%s %s failed", request.method, request.endpoint, exc_info=error)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "Internal server error.")
