"""Example bodies and answers for the OpenAPI document: actions and mutes."""

from jobmon.api.examples import JOB

ACTION_BODY = {
    "action": "retry",
    "filter": {"status": ["dlq"], "type": ["payout.execute"]},
    "expected": 812,
    "reason": "the provider is back",
}
ACTION_PREVIEW = {
    "action": "retry",
    "text": "812 jobs will be queued again and may run immediately. Each keeps its remaining "
    "attempts; a job without any gets one.",
    "warnings": [],
    "count": 812,
    "unsuitable": None,
    "isReasonNeeded": True,
    "isApprovalNeeded": False,
    "isActorRunning": True,
    "expiresAfterMinutes": 15,
    "sample": [JOB],
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
    "isReset": False,
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
            "jobId": JOB["jobId"],
            "result": "done",
            "reason": "",
            "at": "2026-11-24T01:12:12.200Z",
            "before": {"status": "dlq", "finishedAt": "2026-11-24T01:10:00.000Z"},
            "after": {"status": "queued", "finishedAt": None},
        }
    ],
}
MUTE = {
    "id": "3f6c9a1b7e2f43805d1b",
    "mode": "mute",
    "kind": "stalled_types",
    "types": "mail*",
    "by": _PERSON,
    "at": "2026-11-24T06:02:11.400Z",
    "until": "2026-11-24T08:00:00.000Z",
    "reason": "the provider is away",
    "isActive": True,
    "endedAt": None,
    "endedBy": None,
}
MUTE_BODY = {name: MUTE[name] for name in ("mode", "kind", "types", "until", "reason")}
MUTE_LIST = {"data": [MUTE]}
