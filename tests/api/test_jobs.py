"""`GET /jobs/{jobId}` and `GET /jobs`: catches a field that is wrong, missing or leaked, and a
job shown to a caller who does not own it."""

from datetime import timedelta
from typing import Any

import pytest
from bson import Decimal128, ObjectId

from jobmon.store.jobs import AMBIGUOUS

from ..conftest import DATE, NOW, Api

OWNER = ObjectId("65f0c0ffee0123456789abcd")
LATER = NOW + timedelta(milliseconds=1_234)

FULL_JOB = {
    "jobId": "j1",
    "type": "payout.execute",
    "status": "failed",
    "payload": {"to": "ada", "auth": {"apiKey": "k", "list": [{"password": "p", "ok": 1}]}},
    "priority": 3,
    "createdBy": OWNER,
    "createdAt": NOW,
    "updatedAt": LATER,
    "nextRunAt": NOW + timedelta(hours=1),
    "maxAttempts": 5,
    "attemptCount": 2,
    "leasedBy": None,
    "leaseExpiresAt": None,
    "finishedAt": None,
    "lastError": {"code": "E", "message": "broken", "stack": "at line 1", "extra": "ignored"},
    "__v": 7,
}
SUMMARY = {
    "jobId": "j1",
    "type": "payout.execute",
    "status": "failed",
    "priority": 3,
    "createdBy": str(OWNER),
    "createdAt": f"{DATE}T03:00:00.000Z",
    "updatedAt": f"{DATE}T03:00:01.234Z",
    "nextRunAt": f"{DATE}T04:00:00.000Z",
    "maxAttempts": 5,
    "attemptCount": 2,
    "leasedBy": None,
    "leaseExpiresAt": None,
    "finishedAt": None,
    "lastError": {"code": "E", "message": "broken"},
}


def test_a_job_has_all_fields_and_its_attempts_in_order(api: Api, watched: Any) -> None:
    watched.jobs.insert_one(dict(FULL_JOB))
    error = {"code": "E", "message": "broken", "stack": "s", "token": "t"}
    watched.job_attempts.insert_many(
        [
            {"jobId": "j1", "attemptNumber": 2, "status": "running", "startedAt": LATER},
            {
                "jobId": "j1",
                "attemptNumber": 1,
                "status": "failed",
                "workerId": "w1",
                "eligibleAt": NOW - timedelta(milliseconds=250),
                "startedAt": NOW,
                "finishedAt": LATER,
                "error": error,
            },
            {"jobId": "another", "attemptNumber": 1},
        ]
    )
    job = api.get_as_admin("/jobs/j1").json
    assert job.pop("explanation")["code"] == "waiting"
    assert job == SUMMARY | {
        "lastError": {"code": "E", "message": "broken", "stack": "at line 1"},
        "payload": {
            "to": "ada",
            "auth": {
                "apiKey": "[redacted]",
                "list": [{"password": "[redacted]", "ok": "[redacted]"}],
            },
        },
        "attempts": [
            {
                "attemptNumber": 1,
                "status": "failed",
                "workerId": "w1",
                "eligibleAt": f"{DATE}T02:59:59.750Z",
                "startedAt": f"{DATE}T03:00:00.000Z",
                "finishedAt": f"{DATE}T03:00:01.234Z",
                "waitMs": 250,
                "durationMs": 1_234,
                "error": {"code": "E", "message": "broken", "stack": "s"},
                "errorGroup": None,
            },
            {
                "attemptNumber": 2,
                "status": "running",
                "workerId": None,
                "eligibleAt": None,
                "startedAt": f"{DATE}T03:00:01.234Z",
                "finishedAt": None,
                "waitMs": None,
                "durationMs": None,
                "error": None,
                "errorGroup": None,
            },
        ],
        "errorGroup": None,
        "links": [],
        "reasons": {},
        "isRecurring": None,
        "repetition": None,
    }


def test_a_list_has_neither_payload_nor_stacks(api: Api, watched: Any) -> None:
    watched.jobs.insert_one(dict(FULL_JOB))
    expected = {
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
        "data": [SUMMARY],
    }
    assert api.get_as_admin("/admin/jobs/queue").json == expected
    assert api.get_as_owner("/jobs", str(OWNER)).json == expected


def test_a_job_with_only_an_id_has_every_field(api: Api, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "bare"})
    assert api.get_as_admin("/jobs/bare").json == dict.fromkeys(SUMMARY) | {
        "jobId": "bare",
        "payload": None,
        "attemptCount": 0,
        "attempts": [],
        "errorGroup": None,
        "explanation": {
            "code": "other_status",
            "text": "It has no status, so it is unknown whether it will be started.",
            "since": None,
            "until": None,
            "ahead": None,
            "aheadIsExact": False,
            "expectedStart": None,
            "reasons": {},
        },
        "links": [],
        "reasons": {},
        "isRecurring": None,
        "repetition": None,
    }


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("status", "on-hold", "on-hold"),
        ("status", 7, "7"),
        ("type", ["a"], '["a"]'),
        ("createdAt", "yesterday", "yesterday"),
        ("createdAt", 1_234_567_890_123, "1234567890123"),
        ("finishedAt", True, "true"),
        ("createdBy", "ada", "ada"),
        ("priority", "high", None),
        ("priority", Decimal128("2"), None),
        ("maxAttempts", 3.5, 3.5),
        ("maxAttempts", float("nan"), None),
        ("payload", "just text", "just text"),
        ("payload", [1, {"secret": 2}], [1, {"secret": "[redacted]"}]),
        ("payload", {"at": NOW, "id": OWNER}, {"at": f"{DATE}T03:00:00.000Z", "id": str(OWNER)}),
        ("lastError", "boom", {"code": None, "message": "boom", "stack": None}),
        ("lastError", "", None),
        ("lastError", {}, None),
        ("lastError", False, None),
        ("lastError", 0, {"code": None, "message": "0", "stack": None}),
        ("lastError", {"code": 500}, {"code": "500", "message": None, "stack": None}),
        (
            "lastError",
            {"message": {"token": "t", "at": 1}},
            {"code": None, "message": '{"token": "[redacted]", "at": 1}', "stack": None},
        ),
    ],
)
def test_a_field_of_another_type_is_converted_or_null(
    api: Api, watched: Any, field: str, value: Any, expected: Any
) -> None:
    watched.jobs.insert_one({"jobId": "odd", field: value})
    assert api.get_as_admin("/jobs/odd").json[field] == expected
    assert api.get_as_admin("/admin/jobs/queue").status_code == 200
    assert api.get_as_admin("/admin/jobs/stats").json["totalJobs"] == 1


ENDED_ATTEMPT = {"status": "failed", "startedAt": NOW, "finishedAt": LATER}


@pytest.mark.parametrize(
    ("job", "stored_count", "count", "attempt_numbers"),
    [
        ({"attemptCount": 4}, 0, 4, []),
        ({"attemptCount": 4}, 2, 4, [1, 2]),
        ({}, 2, 2, [1, 2]),
        ({"attempts": 3}, 0, 3, []),
        ({"attempts": 3.0}, 0, 3, []),
        ({"attempts": [ENDED_ATTEMPT, ENDED_ATTEMPT]}, 0, 2, [1, 2]),
        ({"attempts": [ENDED_ATTEMPT | {"attemptNumber": 7}]}, 0, 1, [7]),
        ({"attempts": [ENDED_ATTEMPT, "odd"]}, 0, 2, [1]),
        ({"attempts": [ENDED_ATTEMPT] * 3}, 1, 3, [1]),
        ({"attemptCount": None, "attempts": "many"}, 0, 0, []),
        ({"attemptCount": float("inf")}, 0, 0, []),
        ({"attemptCount": Decimal128("6")}, 0, 6, []),
        ({"attemptCount": True}, 1, 1, [1]),
    ],
)
def test_attempts_are_read_from_their_collection_or_from_the_job(
    api: Api,
    watched: Any,
    job: dict[str, Any],
    stored_count: int,
    count: int,
    attempt_numbers: list[int],
) -> None:
    watched.jobs.insert_one({"jobId": "j", **job})
    for attempt_number in range(1, stored_count + 1):
        watched.job_attempts.insert_one({"jobId": "j", "attemptNumber": attempt_number})
    detail = api.get_as_admin("/jobs/j").json
    assert detail["attemptCount"] == count
    assert [attempt["attemptNumber"] for attempt in detail["attempts"]] == attempt_numbers
    reason = "the queue does not record every attempt"
    if not attempt_numbers:
        reason = "the queue records only the number of attempts"
    assert detail["reasons"] == ({} if len(attempt_numbers) == count else {"attempts": reason})


def test_an_embedded_attempt_has_its_duration(api: Api, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "j", "attempts": [ENDED_ATTEMPT]})
    assert api.get_as_admin("/jobs/j").json["attempts"][0]["durationMs"] == 1_234


@pytest.mark.parametrize(
    ("created_by", "subject", "status"),
    [
        ("ada", "ada", 200),
        (OWNER, str(OWNER), 200),
        (str(OWNER), str(OWNER), 200),
        ("ada", "Ada", 403),
        ("ada", "bob", 403),
        (OWNER, str(OWNER).upper(), 403),
        (None, "None", 403),
        (None, "null", 403),
        (5, "5", 200),
        (5.0, "5", 200),
        (5.5, "5", 403),
        (True, "true", 403),
        ({"$ne": 1}, "x", 403),
        (["ada"], "ada", 403),
        (["ada"], '["ada"]', 403),
        ([OWNER, None], str(OWNER), 403),
    ],
)
def test_only_its_owner_and_admins_see_a_job(
    api: Api, watched: Any, created_by: Any, subject: str, status: int
) -> None:
    watched.jobs.insert_one({"jobId": "j", "createdBy": created_by})
    assert api.get_as_owner("/jobs/j", subject).status_code == status
    own_jobs = api.get_as_owner("/jobs", subject).json["data"]
    assert [job["jobId"] for job in own_jobs] == (["j"] if status == 200 else [])
    assert api.get_as_admin("/jobs/j").status_code == 200


def test_owner_sees_no_attempts_that_can_be_of_another_owners_job(api: Api, watched: Any) -> None:
    """Catches a job that an owner adds with the id of another owner's job, to read its attempts."""
    watched.jobs.insert_one({"jobId": "7", "createdBy": "ada", "attemptCount": 1})
    watched.job_attempts.insert_one({"jobId": "7", "attemptNumber": 1, "error": {"code": "E"}})
    assert len(api.get_as_owner("/jobs/7", "ada").json["attempts"]) == 1
    watched.jobs.insert_one({"jobId": 7, "createdBy": "bob", "attemptCount": 0})
    for owner in ("ada", "bob"):
        hidden = api.get_as_owner("/jobs/7", owner).json
        assert (hidden["attempts"], hidden["reasons"]) == ([], {"attempts": AMBIGUOUS})
    assert len(api.get_as_admin("/jobs/7").json["attempts"]) == 1


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Decimal128("sNaN"), 1),
        (Decimal128("9E+6144"), 1),
        (1e308, 1),
        (float("inf"), 1),
        (Decimal128("3"), 3),
        (2**53, 2**53),
        (2**53 + 1, 1),
        (-1, 1),
    ],
)
def test_attempt_count_is_a_number_that_every_parser_reads(
    api: Api, watched: Any, stored: Any, expected: int
) -> None:
    watched.jobs.insert_one({"jobId": "j", "attemptCount": stored})
    watched.job_attempts.insert_one({"jobId": "j", "attemptNumber": 1})
    assert api.get_as_admin("/jobs/j").json["attemptCount"] == expected


def test_secrets_in_texts_are_redacted_in_the_job_its_lists_and_its_page(
    api: Api, watched: Any
) -> None:
    secret = "hunter2-Zx9"
    texts = [f"password={secret}", f"postgres://u:{secret}@db/x", f"Bearer {secret} refused"]
    error = {"code": texts[0], "message": texts[1], "stack": texts[2]}
    watched.jobs.insert_one(
        {
            "jobId": "j",
            "status": "dlq",
            "createdAt": NOW,
            "leasedBy": texts[1],
            "updatedAt": texts[0],
            "payload": {"note": texts, "headers": [{"name": "Authorization", "value": secret}]},
            "lastError": error,
        }
    )
    watched.job_attempts.insert_one(
        {"jobId": "j", "attemptNumber": 1, "workerId": texts[1], "error": error}
    )
    api.client.set_cookie("jobmon_session", api.token(), path="/dashboard")
    for path, query in (
        ("/jobs/j", {}),
        ("/admin/jobs/queue", {}),
        ("/admin/jobs/queue", {"format": "csv"}),
        ("/admin/jobs/queue", {"format": "ndjson"}),
        ("/dashboard/jobs/j", {}),
    ):
        answer = api.get_as_admin(path, **query)
        assert answer.status_code == 200
        assert secret not in answer.text, path
        assert "[redacted]" in answer.text, path


def test_secrets_are_redacted_in_fields_that_are_documents(api: Api, watched: Any) -> None:
    document = {"password": "hidden", "seen": 1}
    job = dict.fromkeys(SUMMARY.keys() - {"jobId", "attemptCount"}, document) | {"jobId": "j"}
    watched.jobs.insert_one({**job, "lastError": [document], "payload": [[document]]})
    watched.job_attempts.insert_one(
        {**dict.fromkeys(("status", "workerId", "error"), document), "jobId": "j"}
    )
    for path in ("/jobs/j", "/admin/jobs/queue", "/admin/jobs/stats"):
        answer = api.get_as_admin(path)
        assert answer.status_code == 200
        assert "hidden" not in answer.text, path
    assert api.get_as_admin("/jobs/j").json["leasedBy"] == '{"password": "[redacted]", "seen": 1}'


def test_long_texts_are_truncated_in_a_list_and_complete_in_the_job(api: Api, watched: Any) -> None:
    error = {"code": "E", "message": "x" * 50_000, "stack": "y" * 50_000}
    watched.jobs.insert_one({"jobId": "j", "type": "t" * 50_000, "lastError": error})
    (summary,) = api.get_as_admin("/admin/jobs/queue").json["data"]
    assert summary["type"] == "t" * 10_000 + "…"
    assert summary["lastError"] == {"code": "E", "message": "x" * 10_000 + "…"}
    detail = api.get_as_admin("/jobs/j").json
    assert (detail["type"], detail["lastError"]) == ("t" * 50_000, error)


def test_payload_and_error_beyond_their_limit_are_cut_with_the_reason(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a text of 15 MB that is searched for secrets for many seconds at each view."""
    monkeypatch.setattr("jobmon.store.jobs.MAX_FIELD_LENGTH", 1_000)
    payload, error = {"a": "x" * 2_000, "b": 1}, {"message": "y" * 2_000}
    watched.jobs.insert_one({"jobId": "long", "payload": payload, "lastError": error})
    watched.jobs.insert_one({"jobId": "short", "payload": {"a": "x" * 900}})
    limit = "only the first 1,000 characters are shown"
    job = api.get_as_admin("/jobs/long").json
    assert (job["payload"], job["reasons"]["payload"]) == ({"a": "x" * 999 + "…", "…": "…"}, limit)
    # The name `message` uses 7 of the 1,000 characters; `…` is added.
    assert (len(job["lastError"]["message"]), job["reasons"]["lastError"]) == (994, limit)
    assert f"The payload is longer: {limit}." in api.get_as_admin("/dashboard/jobs/long").text
    watched.jobs.insert_one({"jobId": "tried", "attempts": [{"error": error}, {"error": error}]})
    job = api.get_as_admin("/jobs/tried").json
    assert [len(attempt["error"]["message"]) for attempt in job["attempts"]] == [1_994, 1_994]
    assert "1,000 characters" in job["reasons"]["attempts.error"]
    job = api.get_as_admin("/jobs/short").json
    assert (job["payload"], "payload" in job["reasons"]) == ({"a": "x" * 900}, False)


def test_errors_of_earlier_attempts_are_truncated_if_their_sum_is_too_long(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.store.jobs.MAX_FIELD_LENGTH", 10_000)
    watched.jobs.insert_one({"jobId": "j"})
    watched.job_attempts.insert_many(
        {"jobId": "j", "attemptNumber": number, "error": {"message": "x" * 7_000}}
        for number in (1, 2, 3)
    )
    attempts = api.get_as_admin("/jobs/j").json["attempts"]
    lengths = [len(attempt["error"]["message"]) for attempt in attempts]
    assert lengths[2] == 7_000
    assert 2_000 < lengths[1] < 3_000
    assert 1_900 < lengths[0] <= 2_001
