"""Example answers for the OpenAPI document: statistics, queues, history, schedule."""

from typing import Any

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
                    "isMuted": False,
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

OWN_COUNTS = {
    "statusCounts": JOB_STATS["statusCounts"],
    "totalJobs": JOB_STATS["totalJobs"],
    "reasons": {},
    "asOf": "2026-11-24T01:12:10.004Z",
}

WINDOW: dict[str, Any] = {
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
ACTIVITY = {
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
    **ACTIVITY,
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
SERIES = {"meta": {**WINDOW, **_MARKS}, "data": [_STEP]}
_TYPE_STATS = {
    "type": "payout.execute",
    "forecast": _FORECAST,
    **ACTIVITY,
    "statusCounts": JOB_STATS["typeCounts"]["payout.execute"],  # type: ignore[index]
    "finishedPerMinute": 1.69,
}
TYPE_LIST = {"meta": WINDOW, "data": [_TYPE_STATS]}

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
