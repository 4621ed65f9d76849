"""Example answers for the OpenAPI document: groups of errors, slow attempts, workers."""

from jobmon.api.examples import JOB, STACK
from jobmon.api.queue_examples import ACTIVITY, WINDOW

_ERROR_WINDOW = {
    name: WINDOW[name]
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
            "jobId": JOB["jobId"],
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
        "stack": STACK,
    },
}

_RUN_WINDOW = {
    name: WINDOW[name] for name in ("from", "to", "no_data_before", "as_of", "is_complete", "gaps")
}
SLOWEST_LIST = {
    "meta": {**_RUN_WINDOW, "reasons": {}},
    "data": [
        {
            "type": "payout.execute",
            "jobId": JOB["jobId"],
            "attemptNumber": 1,
            "workerId": "worker-2",
            "status": "failed",
            "finishedAt": "2026-11-24T01:12:07.866Z",
            "durationMs": 74,
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
            "since": "2026-11-24T01:09:41.000Z",
            "note": "its lease has expired",
            "runningJobs": 1,
            "jobs": [
                {
                    "jobId": "0f4c8f0a-2b7d-4c55-9a3e-6d1e7f20b4c2",
                    "type": "payout.execute",
                    "attemptNumber": 2,
                    "startedAt": "2026-11-24T01:09:11.000Z",
                    "leaseExpiresAt": "2026-11-24T01:09:41.000Z",
                    "leaseLeftMs": -150_120,
                }
            ],
            "lastSeen": "2026-11-24T01:12:07.866Z",
            "attempts": 120,
            "failures": 40,
            "failureRate": 0.3333,
            "runMs": ACTIVITY["runMs"],
            "topError": {
                "id": _ERROR_GROUP["id"],
                "code": _ERROR_GROUP["code"],
                "pattern": _ERROR_GROUP["pattern"],
                "failures": 40,
            },
        }
    ],
}
