"""Example answers for the OpenAPI document: errors, jobs, recurring jobs, health.

A test checks the examples of this module and of `action_…`, `queue_…` and `run_examples`.
"""

from typing import Any

ERROR_MESSAGES = {
    "authentication_required": "A bearer token is required.",
    "token_expired": "The token has expired.",
    "token_invalid": "The token is not valid.",
    "permission_denied": "This needs ADMIN_DASHBOARD.",
    "access_denied": "Job not found or access denied.",
    "conflict": "The request is finished.",
    "not_found": "There is nothing at this address.",
    "validation_error": "Bad value for per_page.",
    "rate_limited": "More than 600 per 1 minute.",
    "server_error": "Internal server error.",
    "database_unavailable": "The database does not answer. Try again.",
    "identity_provider_unavailable": "The token cannot be checked now. Try again.",
    "collector_unavailable": "Without a collector a window has at most six hours.",
    "revocations_lost": "The list of revoked tokens is lost; the log has details.",
    "overloaded": "Too many requests at once. Try again.",
}
ERRORS: dict[str, dict[str, Any]] = {
    code: {"error": {"code": code, "message": message}} for code, message in ERROR_MESSAGES.items()
}
ERRORS["validation_error"]["error"]["details"] = {
    "per_page": ["Must be greater than or equal to 1 and less than or equal to 100."]
}

JOB = {
    "jobId": "7b1f2c3e-9d64-4f0c-a1c8-2f6b5d0e9a11",
    "type": "payout.execute",
    "status": "failed",
    "priority": 0,
    "createdBy": "65f0c0ffee0123456789abcd",
    "createdAt": "2026-11-24T01:12:07.512Z",
    "updatedAt": "2026-11-24T01:12:07.866Z",
    "nextRunAt": "2026-11-24T01:12:09.366Z",
    "maxAttempts": 5,
    "attemptCount": 1,
    "leasedBy": None,
    "leaseExpiresAt": None,
    "finishedAt": None,
    "lastError": {"code": "RATE_LIMITED", "message": "The provider asks us to wait 30 s."},
}
STACK = "Error: The provider asks us to wait 30 s.\n    at pay (/app/payout.js:12:3)"
_ERROR = {**JOB["lastError"], "stack": STACK}  # type: ignore[dict-item]

JOB_LIST = {
    "meta": {
        "page": 1,
        "per_page": 20,
        "total": 1,
        "total_is_exact": True,
        "total_pages": 1,
        "next_cursor": None,
        "prev_cursor": None,
        "page_is_exact": True,
        "reasons": {},
    },
    "data": [JOB],
}

JOB_DETAIL = {
    **JOB,
    "payload": {"amount": 1200, "currency": "EUR", "iban": "[redacted]"},
    "lastError": _ERROR,
    "errorGroup": "5d1b0c9a7e2f4380",
    "isRecurring": None,
    "repetition": None,
    "attempts": [
        {
            "attemptNumber": 1,
            "status": "failed",
            "workerId": "worker-2",
            "eligibleAt": "2026-11-24T01:12:07.512Z",
            "startedAt": "2026-11-24T01:12:07.792Z",
            "finishedAt": "2026-11-24T01:12:07.866Z",
            "waitMs": 280,
            "durationMs": 74,
            "error": _ERROR,
            "errorGroup": "5d1b0c9a7e2f4380",
        }
    ],
    "explanation": {
        "code": "retry_scheduled",
        "text": "The last attempt failed. Retry 1 of 4 is due in 1 s.",
        "since": None,
        "until": "2026-11-24T01:12:09.366Z",
        "ahead": None,
        "aheadIsExact": False,
        "expectedStart": None,
        "reasons": {},
    },
    "links": [
        {
            "name": "Logs",
            "url": "https://logs.example/?q=7b1f2c3e-9d64-4f0c-a1c8-2f6b5d0e9a11",
            "reason": None,
        },
        {"name": "Trace", "url": None, "reason": "payload.traceId has no value"},
    ],
    "reasons": {},
}

NEIGHBORS: dict[str, Any] = {
    "previousJobId": None,
    "nextJobId": "7d0b6c1e-58a2-4f0e-9a57-0c4d4e0f7b11",
    "reasons": {},
}

LIVENESS = {"status": "ok"}
READINESS = {
    "status": "ready",
    "checks": {"database": {"pingMs": 0.4, "isReadable": True}, "rollup": {"isFresh": True}},
}
_REASON = "not authorized to read jobs"
NOT_READY: dict[str, Any] = {
    "database_unavailable": {
        "error": {
            "code": "database_unavailable",
            "message": f"Not ready: {_REASON}.",
            "details": {"database": [_REASON]},
        }
    },
    "revocations_lost": ERRORS["revocations_lost"],
}

_RUN = {
    "status": "succeeded",
    "at": "2026-11-24T02:00:00.103Z",
    "until": None,
    "count": 1,
    "finishedAt": "2026-11-24T02:00:00.503Z",
    "durationMs": 400,
    "error": None,
}
_FAILED_RUN = {
    **_RUN,
    "status": "failed",
    "at": "2026-11-24T02:05:00.101Z",
    "finishedAt": "2026-11-24T02:05:30.101Z",
    "durationMs": 30_000,
    "error": {"code": None, "message": "ETIMEDOUT"},
}
_MISSED_RUN = {
    "status": "missed",
    "at": "2026-11-24T02:10:00.101Z",
    "until": "2026-11-24T02:10:00.101Z",
    "count": 1,
    "finishedAt": None,
    "durationMs": None,
    "error": None,
}
_LAST_RUN = {**_RUN, "at": "2026-11-24T02:15:00.214Z", "finishedAt": "2026-11-24T02:15:00.614Z"}
REPETITION = {
    "interval": "5 minutes",
    "timeOfDay": None,
    "timezone": None,
    "intervalText": "every 5 minutes",
    "overdueSince": None,
    "lastRun": _LAST_RUN,
    "missedRuns": 1,
    "runs": [_RUN, _FAILED_RUN, _MISSED_RUN, _LAST_RUN],
    "reasons": {},
}
RECURRING_LIST = {
    "meta": {
        "as_of": "2026-11-24T02:17:10.004Z",
        "per_page": 20,
        "total": 1,
        "total_is_exact": True,
        "next_cursor": None,
        "reasons": {},
    },
    "data": [{**JOB, "status": "queued", "lastError": None, "repetition": REPETITION}],
}
