"""Example answers for the OpenAPI document. A test checks them against the schemas."""

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

_SUMMARY = {
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
    "lastError": {"code": "RATE_LIMITED", "message": "The provider asks us to slow down."},
}
_ERROR = {**_SUMMARY["lastError"], "stack": "at pay (payout.js:12)"}  # type: ignore[dict-item]

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
    "data": [_SUMMARY],
}

JOB_DETAIL = {
    **_SUMMARY,
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
        "text": "The last attempt failed. Retry 1 of 4 is due in 1.5 s.",
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

_FORECAST = {
    "outlook": "clears",
    "text": "clears in about 12 min",
    "reason": None,
    "dueJobs": 14,
    "arrivalsPerMinute": 2.1,
    "completionsPerMinute": 3.267,
    "clearsInMs": 720_000,
    "from": "2026-11-24T00:41:00.000Z",
    "to": "2026-11-24T01:11:00.000Z",
}
JOB_STATS = {
    "totalJobs": 35,
    "statusCounts": {
        "queued": 15,
        "leased": 2,
        "succeeded": 12,
        "failed": 1,
        "dlq": 3,
        "cancelled": 0,
        "on-hold": 2,
    },
    "typeCounts": {
        "payout.execute": {"queued": 15, "leased": 2, "failed": 1, "dlq": 3, "on-hold": 2},
        "email.send": {"succeeded": 12},
    },
    "oldestQueuedJobAgeMs": 93_412,
    "oldestQueuedJobAgeMsByType": {"payout.execute": 93_412},
    "expiredLeases": 1,
    "dueJobs": 14,
    "scheduledJobs": 2,
    "estimatedTotalJobs": 35,
    "reasons": {},
    "forecast": _FORECAST,
    "asOf": "2026-11-24T01:12:10.004Z",
    "source": "rollup",
}

QUEUE_LIST = {
    "data": [
        {
            "name": "payouts",
            "environment": "production",
            "isDefault": True,
            "level": "bad",
            "notices": [
                {
                    "level": "bad",
                    "text": "1 job has an expired lease",
                    "since": "2026-11-24T01:09:41.000Z",
                }
            ],
            "unchecked": [],
            "statusCounts": JOB_STATS["statusCounts"],
            "oldestQueuedJobAgeMs": 93_412,
            "forecast": _FORECAST,
            "finishedPerMinute": 0.5,
            "failureRate": 0.1667,
            "asOf": JOB_STATS["asOf"],
            "source": "rollup",
        }
    ]
}

NEIGHBORS: dict[str, Any] = {
    "previousJobId": None,
    "nextJobId": "7d0b6c1e-58a2-4f0e-9a57-0c4d4e0f7b11",
    "reasons": {},
}

OWN_COUNTS = {
    "statusCounts": JOB_STATS["statusCounts"],
    "totalJobs": JOB_STATS["totalJobs"],
    "reasons": {},
    "asOf": "2026-11-24T01:12:10.004Z",
}

_WINDOW: dict[str, Any] = {
    "from": "2026-11-24T00:13:00.000Z",
    "to": "2026-11-24T01:13:00.000Z",
    "no_data_before": None,
    "step": 60,
    "as_of": "2026-11-24T01:12:10.004Z",
    "source": "rollup",
    "is_complete": True,
    "gaps": [
        {
            "from": "2026-11-24T00:13:00.000Z",
            "to": "2026-11-24T00:20:41.000Z",
            "reason": "stream_lost",
        }
    ],
    "reasons": {},
}
_ACTIVITY = {
    "enqueued": 120,
    "succeeded": 95,
    "failed": 5,
    "dlq": 1,
    "failureRate": 0.05,
    "waitMs": {"p50": 210, "p95": 1_450, "p99": 2_300},
    "runMs": {"p50": 74, "p95": 130, "p99": 190},
}
_STEP = {
    "at": "2026-11-24T01:11:00.000Z",
    **_ACTIVITY,
    "statusCounts": JOB_STATS["statusCounts"],
    "oldestQueuedJobAgeMs": 41_000,
}
_MARKS = {
    "marks": [
        {
            "at": "2026-11-24T00:40:12.000Z",
            "text": "v2.31",
            "link": "https://ci.example.com/builds/4711",
        }
    ],
    "omitted_marks": 0,
}
SERIES = {"meta": {**_WINDOW, **_MARKS}, "data": [_STEP]}
_TYPE_STATS = {
    "type": "payout.execute",
    "forecast": _FORECAST,
    **_ACTIVITY,
    "statusCounts": JOB_STATS["typeCounts"]["payout.execute"],  # type: ignore[index]
    "finishedPerMinute": 1.69,
}
TYPE_LIST = {"meta": _WINDOW, "data": [_TYPE_STATS]}

_ERROR_WINDOW = {
    name: _WINDOW[name]
    for name in ("from", "to", "no_data_before", "step", "as_of", "is_complete", "gaps")
}
_ERROR_GROUP = {
    "id": "5d1b0c9a7e2f4380",
    "code": "RATE_LIMITED",
    "pattern": "The provider asks us to wait <duration>.",
    "frame": "pay (/app/payout.js)",
    "status": "new",
    "firstSeen": "2026-11-24T00:41:12.004Z",
    "lastSeen": "2026-11-24T01:12:07.866Z",
    "count": 42,
    "previousCount": 0,
    "growth": 42,
    "typeCounts": {"payout.execute": 42},
    "workerCounts": {"worker-2": 40, "worker-3": 2},
    "trend": [0, 12, 30],
    "jobs": [
        {
            "jobId": _SUMMARY["jobId"],
            "type": "payout.execute",
            "workerId": "worker-2",
            "failedAt": "2026-11-24T01:12:07.866Z",
        }
    ],
    "reasons": {},
}
ERROR_LIST = {
    "meta": {
        **_ERROR_WINDOW,
        "total": 1,
        "total_errors": 42,
        "ungrouped_errors": 0,
        "next_cursor": None,
        "reasons": {},
    },
    "data": [_ERROR_GROUP],
}
ERROR_DETAIL = {
    "meta": _ERROR_WINDOW,
    "data": {
        **_ERROR_GROUP,
        "message": "The provider asks us to wait 30 s.",
        "stack": "Error: The provider asks us to wait 30 s.\n    at pay (/app/payout.js:12:3)",
    },
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

SCHEDULE = {
    "asOf": "2026-11-24T01:12:10.004Z",
    "windows": [
        {
            "name": "hour",
            "from": "2026-11-24T01:12:10.004Z",
            "to": "2026-11-24T02:12:10.004Z",
            "step": 300,
            "count": 3,
            "isExact": True,
            "typeCounts": {"payout.execute": 2, "email.send": 1},
            "steps": [
                {
                    "from": "2026-11-24T01:12:10.004Z",
                    "to": "2026-11-24T01:15:00.000Z",
                    "count": 3,
                    "isExact": True,
                    "typeCounts": {"payout.execute": 2, "email.send": 1},
                }
            ],
        }
    ],
    "reasons": {},
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
    "words": "every 5 minutes",
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
    "data": [{**_SUMMARY, "status": "queued", "lastError": None, "repetition": REPETITION}],
}
_RUN_WINDOW = {
    name: _WINDOW[name] for name in ("from", "to", "no_data_before", "as_of", "is_complete", "gaps")
}
SLOWEST_LIST = {
    "meta": {**_RUN_WINDOW, "reasons": {}},
    "data": [
        {
            "type": "payout.execute",
            "jobId": _SUMMARY["jobId"],
            "attemptNumber": 1,
            "workerId": "worker-2",
            "status": "failed",
            "finishedAt": "2026-11-24T01:12:07.866Z",
            "durationMs": 354,
        }
    ],
}
WORKER_LIST = {
    "meta": {
        **_RUN_WINDOW,
        "running_as_of": "2026-11-24T01:12:11.120Z",
        "page": 1,
        "per_page": 20,
        "total": 1,
        "total_is_exact": True,
        "total_pages": 1,
        "silent_workers": 1,
        "reasons": {},
    },
    "data": [
        {
            "name": "worker-2",
            "state": "expired",
            "since": "2026-11-24T01:10:02.000Z",
            "note": "its lease has expired",
            "runningJobs": 1,
            "jobs": [
                {
                    "jobId": _SUMMARY["jobId"],
                    "type": "payout.execute",
                    "attemptNumber": 2,
                    "startedAt": "2026-11-24T01:09:32.000Z",
                    "leaseExpiresAt": "2026-11-24T01:10:02.000Z",
                    "leaseLeftMs": -129_120,
                }
            ],
            "lastSeen": "2026-11-24T01:09:32.000Z",
            "attempts": 120,
            "failures": 40,
            "failureRate": 0.3333,
            "runMs": _ACTIVITY["runMs"],
            "topError": {
                "id": _ERROR_GROUP["id"],
                "code": _ERROR_GROUP["code"],
                "pattern": _ERROR_GROUP["pattern"],
                "failures": 40,
            },
        }
    ],
}

ACTION_BODY = {
    "action": "retry",
    "filter": {"status": ["dlq"], "type": ["payout.execute"]},
    "expected": 812,
    "reason": "the provider is back",
}
ACTION_PREVIEW = {
    "action": "retry",
    "text": "812 jobs will be queued again and may run at once. Each keeps the attempts that are "
    "left, and has at least one.",
    "warnings": [],
    "count": 812,
    "unsuitable": None,
    "isReasonNeeded": True,
    "isApprovalNeeded": False,
    "isActorRunning": True,
    "expiresAfterMinutes": 15,
    "sample": [_SUMMARY],
}
_PERSON = {"subject": "ada", "role": "admin", "address": "10.0.0.1"}
_REQUEST = {
    "id": "5d1b0c9a7e2f43805d1b",
    "action": "retry",
    "phase": "running",
    "phaseReason": "",
    "target": {
        "kind": "filter",
        "ids": None,
        "filter": {"status": ["dlq"], "type": ["payout.execute"]},
        "types": None,
        "requestId": None,
    },
    "by": _PERSON,
    "at": "2026-11-24T01:12:10.004Z",
    "reason": "the provider is back",
    "expected": 812,
    "done": 500,
    "skipped": 0,
    "possible": 0,
    "runAt": None,
    "priority": None,
    "isAnew": False,
    "isDryRun": False,
    "isApprovalNeeded": False,
    "claimedAt": "2026-11-24T01:12:11.100Z",
    "progressAt": "2026-11-24T01:12:12.200Z",
    "endedAt": None,
}
ACTION = {
    **_REQUEST,
    "isActorRunning": True,
    "decisions": ["pause", "stop"],
    "history": [
        {"kind": "requested", "at": _REQUEST["at"], "by": _PERSON, "reason": _REQUEST["reason"]},
        {"kind": "claimed", "at": _REQUEST["claimedAt"], "by": None, "reason": ""},
    ],
}
ACTION_LIST = {"meta": {"next_cursor": None, "is_actor_running": True}, "data": [_REQUEST]}
OUTCOME_LIST = {
    "meta": {"next_cursor": None},
    "data": [
        {
            "jobId": _SUMMARY["jobId"],
            "result": "done",
            "reason": "",
            "at": "2026-11-24T01:12:12.200Z",
            "before": {"status": "dlq", "finishedAt": "2026-11-24T01:10:00.000Z"},
            "after": {"status": "queued", "finishedAt": None},
        }
    ],
}
