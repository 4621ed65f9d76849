"""The routes for actions: catches a filter with an ignored or unsafe part, a request without its
reason or count, and an answer or a job that does not show what was filed and done."""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import mongomock
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect
from werkzeug.test import TestResponse

from jobmon.actions.records import ActionRecords, Decision, Progress
from jobmon.actions.request import Person
from jobmon.actions.requests import ActionRequests
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.settings.actions import ACTION_PERMISSIONS, JOBS_RETRY
from jobmon.store.bson_json import encode_token

from ..conftest import NOW, Api
from ..support.commands import database_uri
from .test_openapi import ROOT, check_answer

# Another test checks that this file is up to date.
DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
ROLES = {
    "admin": frozenset({ADMIN_DASHBOARD, *ACTION_PERMISSIONS}),
    "reader": frozenset({ADMIN_DASHBOARD}),
    "retrier": frozenset({ADMIN_DASHBOARD, JOBS_RETRY}),
}
DEAD = {"status": ["dlq"]}
ALL_DEAD = {"action": "retry", "filter": DEAD, "expected": 3, "reason": "the provider is back"}


class ActionApi(Api):
    """The service with actions, over jobs in memory, or on the server of the client `mongo`."""

    def __init__(self, settings: Settings, mongo: Any = None) -> None:
        mongo = mongo or mongomock.MongoClient(settings.mongo_uri, tz_aware=True)
        super().__init__(create_app(settings, mongo))
        self.database = mongo.get_default_database()

    def post(
        self, path: str, body: Any = None, role: str = "admin", subject: str = "ada", key: str = ""
    ) -> TestResponse:
        """POST a JSON body; a successful answer must match the OpenAPI document."""
        headers = {"Authorization": f"Bearer {self.token(subject, role)}"}
        if key:
            headers["Idempotency-Key"] = key
        answer = self.client.post(path, json=body, headers=headers)
        if answer.status_code < 300:
            parts = path.partition("?")[0].split("/")
            route = "/".join("{action_id}" if len(part) == 20 else part for part in parts)
            check_answer(DOCUMENT, route, answer, "post")
        return answer

    def read(self, path: str, role: str = "admin", subject: str = "ada", **query: Any) -> Any:
        answer = self.get(path, token=self.token(subject, role), **query)
        assert answer.status_code == 200, answer.text
        return answer.json

    def insert_jobs(self, *ids: str, **fields: Any) -> None:
        self.database.jobs.insert_many(
            {"jobId": job_id, "status": "dlq", "type": "mail", "createdAt": NOW} | fields
            for job_id in ids
        )

    @property
    def records(self) -> ActionRecords:
        """The records of actions, to write what an actor writes."""
        with self.app.test_request_context():
            queues = self.app.extensions["jobmon_queues"]
            return queues.open(queues.default).actions.requests.records

    def finish(self, request_id: str, done: int) -> None:
        """Record that an actor finished the request and changed `done` jobs."""
        counts = {"done": done, "skipped": 0, "possible": 0}
        self.records.add_progress(request_id, Progress.CLAIMED, {})
        self.records.add_progress(
            request_id, Progress.FINISHED, {"phase": "finished", "counts": counts}
        )

    def add_outcome(self, request_id: str, job_id: str, **fields: Any) -> None:
        """Record the outcome of a job, as an actor does; `fields` replace the defaults."""
        outcome = {"key": job_id, "jobId": job_id, "result": "done", "reason": "", "dryRun": False}
        change = {"before": {"status": "dlq"}, "after": {"status": "queued"}}
        self.records.add_outcomes(request_id, [outcome | change | fields])


@pytest.fixture
def make_api(make_settings: Callable[..., Settings]) -> Callable[..., ActionApi]:
    def make(**changes: Any) -> ActionApi:
        api = ActionApi(make_settings(actions=True, role_permissions=ROLES, **changes))
        api.insert_jobs("d1", "d2", "d3", createdBy="bob")
        api.insert_jobs("q1", status="queued")
        return api

    return make


@pytest.fixture
def actions_api(make_api: Callable[..., ActionApi]) -> ActionApi:
    return make_api()


@pytest.mark.parametrize(
    "body", [{"action": "retry", "types": ["mail"]}, {"action": "pause_type", "ids": ["d1"]}]
)
def test_preview_of_an_action_for_another_target_is_refused(
    actions_api: ActionApi, body: dict[str, Any]
) -> None:
    """Catches a 500 for an action on jobs with types, and for an action on types with jobs."""
    answer = actions_api.post("/admin/actions/preview", body)
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["action"])


def test_preview_counts_what_would_change_and_stores_nothing(actions_api: ActionApi) -> None:
    body = {"action": "retry", "ids": ["d1", "q1", "none"]}
    answer = actions_api.post("/admin/actions/preview", body).json
    assert (answer["count"], answer["unsuitable"], answer["isReasonNeeded"]) == (1, 2, True)
    assert answer["text"].startswith("1 job will be queued again")
    assert answer["warnings"] == [
        "2 of the selected jobs cannot be changed in this way and will be skipped.",
        "No actor is running: the request waits, and expires after 15 minutes.",
    ]
    answer = actions_api.post("/admin/actions/preview", {"action": "retry", "filter": {}}).json
    assert (answer["count"], answer["unsuitable"]) == (3, None)
    assert {job["jobId"] for job in answer["sample"]} == {"d1", "d2", "d3"}
    assert actions_api.read("/admin/actions")["data"] == []


@pytest.mark.parametrize(
    "job_filter", [{"type": []}, {"type": [""]}, {"type": ["a", ""]}, {"owner": ""}, {"job_id": ""}]
)
def test_filter_without_a_value_is_refused(
    actions_api: ActionApi, job_filter: dict[str, Any]
) -> None:
    """Catches an action on the jobs of all types that was meant for the types of an empty list."""
    body = {"action": "retry", "filter": {"status": ["dlq"], **job_filter}, "expected": 3}
    answer = actions_api.post("/admin/actions", body | {"reason": "it is back"})
    (name,) = job_filter
    message = f"{name} has no value: leave it out for jobs with any value."
    assert (answer.status_code, answer.json["error"]["details"]) == (422, {"filter": [message]})
    assert actions_api.read("/admin/actions")["data"] == []


def test_filed_request_has_its_person_target_and_phase_in_list_and_detail(
    actions_api: ActionApi,
) -> None:
    answer = actions_api.post("/admin/actions", ALL_DEAD)
    assert answer.status_code == 201
    (request,) = actions_api.read("/admin/actions", role="reader")["data"]
    assert request["by"] == {"subject": "ada", "role": "admin", "address": "127.0.0.1"}
    assert (request["phase"], request["expected"]) == ("waiting", 3)
    assert request["target"]["filter"] == DEAD
    detail = actions_api.read(f"/admin/actions/{request['id']}")
    assert detail == answer.json
    assert [record["kind"] for record in detail["history"]] == ["requested"]
    assert (detail["decisions"], detail["isActorRunning"]) == (["pause", "stop"], False)
    # A reader sees the request, but cannot decide on it.
    assert actions_api.read(f"/admin/actions/{request['id']}", role="reader")["decisions"] == []


def test_same_key_files_one_request(actions_api: ActionApi) -> None:
    first, second = (actions_api.post("/admin/actions", ALL_DEAD, key="k1").json for _ in range(2))
    assert first["id"] == second["id"]
    reuse = actions_api.post("/admin/actions", ALL_DEAD | {"expected": 4}, key="k1")
    assert (reuse.status_code, list(reuse.json["error"]["details"])) == (422, ["Idempotency-Key"])
    assert len(actions_api.read("/admin/actions")["data"]) == 1


def test_same_key_files_one_request_although_settings_changed(
    actions_api: ActionApi, make_settings: Callable[..., Settings]
) -> None:
    strict_settings = make_settings(
        actions=True, role_permissions=ROLES, actions_approval_above=2, actions_expire_minutes=5
    )
    strict_api = ActionApi(strict_settings, actions_api.database.client)
    answer = strict_api.post("/admin/actions", ALL_DEAD, key="k1")
    assert (answer.status_code, answer.json["phase"]) == (201, "awaiting_approval")
    repeated = actions_api.post("/admin/actions", ALL_DEAD, key="k1")
    assert (repeated.json["id"], repeated.json["phase"]) == (answer.json["id"], "awaiting_approval")


BAD_REQUESTS: list[tuple[Any, str]] = [
    ([1], "body"),
    ({}, "action"),
    ({"action": "explode", "ids": ["d1"]}, "action"),
    ({"action": "undo", "ids": ["d1"]}, "action"),  # it has its own route
    ({"action": "disable", "ids": ["d1"]}, "action"),  # this queue does not support it
    ({"action": "delete", "ids": ["d1"]}, "action"),  # the settings do not allow it
    ({"action": "retry"}, "ids"),
    ({"action": "retry", "ids": ["d1"], "filter": DEAD}, "ids"),
    ({"action": "retry", "ids": ["d1", "d1"], "reason": "x"}, "ids"),
    ({"action": "retry", "ids": ["d1", "d2"]}, "reason"),
    ({"action": "retry", "ids": ["d1"], "reason": "a\x00b"}, "reason"),
    ({"action": "retry", "ids": ["d1"], "isReset": 1}, "isReset"),
    ({"action": "retry", "ids": ["d1"], "reasons": "a typing error"}, "reasons"),
    ({"action": "cancel", "ids": ["d1"], "isReset": True}, "isReset"),
    ({"action": "reschedule", "ids": ["d1"]}, "runAt"),
    ({"action": "prioritize", "ids": ["d1"], "priority": "1"}, "priority"),
    ({"action": "prioritize", "ids": ["d1"], "priority": 1.5}, "priority"),
    ({"action": "pause_type", "ids": ["d1"]}, "action"),
    ({"action": "pause_type", "filter": DEAD, "expected": 3, "reason": "x"}, "action"),
    ({"action": "retry", "filter": DEAD, "reason": "x"}, "expected"),
    ({"action": "retry", "filter": DEAD, "expected": 3}, "reason"),
    ({"action": "retry", "filter": {"status": "queued"}, "expected": 1}, "filter.status"),
    (
        {"action": "run_now", "filter": {"condition": "due"}, "expected": 1},
        "filter.condition",
    ),
    (
        {
            "action": "run_now",
            "filter": {"condition": "scheduled", "status": "dlq"},
            "expected": 1,
        },
        "filter.status",
    ),
    ({"action": "retry", "filter": {"state": "dlq"}, "expected": 3}, "filter"),
    ({"action": "retry", "filter": {"per_page": "5"}, "expected": 3}, "filter"),
    ({"action": "retry", "filter": {"owner": {"$ne": 1}}, "expected": 3}, "filter"),
    ({"action": "retry", "filter": {"owner": ["a", "b"]}, "expected": 3}, "filter"),
    ({"action": "retry", "filter": {"range": "x"}, "expected": 3}, "filter.range"),
    ({"action": "retry", "filter": {"payload.x": "1"}, "expected": 3}, "filter.payload.x"),
]


def test_bad_request_is_refused_with_the_field_and_not_filed(actions_api: ActionApi) -> None:
    for body, field in BAD_REQUESTS:
        answer = actions_api.post("/admin/actions", body)
        assert answer.status_code == 422, body
        assert list(answer.json["error"]["details"]) == [field], body
        assert actions_api.read("/admin/actions")["data"] == [], body


@pytest.mark.parametrize(
    "text",
    ['{"action": "retry", "ids": ["\\ud800"]}', '{"action": ' + "[" * 60_000],
    ids=["half a surrogate pair", "60,000 levels"],
)
def test_json_that_cannot_be_stored_or_parsed_is_422(actions_api: ActionApi, text: str) -> None:
    """Catches a 500: MongoDB cannot store half a surrogate pair, and deep JSON is not parsed."""
    headers = {"Authorization": f"Bearer {actions_api.token('ada', 'admin')}"}
    answer = actions_api.client.post("/admin/actions", data=text, headers=headers)
    assert (answer.status_code, [*answer.json["error"]["details"]]) == (422, ["body"])


def test_decisions_change_the_phase_until_the_request_is_over(actions_api: ActionApi) -> None:
    request_id = actions_api.post("/admin/actions", ALL_DEAD).json["id"]
    for decision, phase in (("pause", "paused"), ("resume", "waiting"), ("stop", "stopped")):
        answer = actions_api.post(f"/admin/actions/{request_id}/{decision}", {"reason": "wait"})
        assert (answer.status_code, answer.json["phase"]) == (200, phase)
    too_late = actions_api.post(f"/admin/actions/{request_id}/pause")
    assert (too_late.status_code, too_late.json["error"]["code"]) == (409, "conflict")
    history = actions_api.read(f"/admin/actions/{request_id}")["history"]
    assert [step["kind"] for step in history] == ["requested", "paused", "resumed", "stopped"]
    assert {step["reason"] for step in history[1:]} == {"wait"}
    missing = actions_api.post(f"/admin/actions/{'0' * 20}/stop")
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "not_found")


def test_documented_kinds_of_steps_are_those_of_a_history(actions_api: ActionApi) -> None:
    """Catches a documented kind that no history has: the steps of batches are not shown."""
    request_id = actions_api.post("/admin/actions", ALL_DEAD).json["id"]
    for decision in Decision:
        actions_api.records.add_decision(request_id, decision, Person(subject="bob"))
    for step in Progress:
        fields = {"phase": "finished", "counts": {}}
        actions_api.records.add_progress(request_id, step, fields, number=1)
    history = actions_api.read(f"/admin/actions/{request_id}")["history"]
    schema = DOCUMENT["components"]["schemas"]["ActionRecord"]["properties"]["kind"]
    assert {step["kind"] for step in history} == {*schema["enum"]}


def test_request_that_is_over_can_be_undone_if_it_changed_jobs(actions_api: ActionApi) -> None:
    request_id = actions_api.post("/admin/actions", ALL_DEAD).json["id"]
    conflict = actions_api.post(f"/admin/actions/{request_id}/undo", {"reason": "x"})
    assert (conflict.status_code, conflict.json["error"]["code"]) == (409, "conflict")
    actions_api.finish(request_id, done=2)
    assert actions_api.read(f"/admin/actions/{request_id}")["decisions"] == ["undo"]
    assert actions_api.read(f"/admin/actions/{request_id}", role="retrier")["decisions"] == []
    answer = actions_api.post(f"/admin/actions/{request_id}/undo", {"reason": "x"}, role="retrier")
    assert answer.status_code == 403
    answer = actions_api.post(f"/admin/actions/{request_id}/undo", {})
    assert answer.json["error"]["details"] == {"reason": ["Required to undo a request."]}
    dry_run = actions_api.post(f"/admin/actions/{request_id}/undo", {"isDryRun": True})
    assert (dry_run.status_code, dry_run.json["isDryRun"]) == (201, True)
    undo = actions_api.post(f"/admin/actions/{request_id}/undo", {"reason": "too early"})
    assert undo.status_code == 201
    assert (undo.json["action"], undo.json["expected"]) == ("undo", 2)
    assert undo.json["target"]["requestId"] == request_id
    # A request to undo cannot be undone.
    actions_api.finish(undo.json["id"], done=2)
    assert actions_api.read(f"/admin/actions/{undo.json['id']}")["decisions"] == []


def test_large_request_needs_another_person(make_api: Callable[..., ActionApi]) -> None:
    api = make_api(actions_approval_above=2)
    assert api.post("/admin/actions/preview", ALL_DEAD).json["isApprovalNeeded"] is True
    filed = api.post("/admin/actions", ALL_DEAD).json
    assert (filed["phase"], filed["decisions"]) == ("awaiting_approval", ["reject", "stop"])
    own_approval = api.post(f"/admin/actions/{filed['id']}/approve")
    assert (own_approval.status_code, own_approval.json["error"]["code"]) == (409, "conflict")
    approved = api.post(f"/admin/actions/{filed['id']}/approve", subject="bob")
    assert approved.json["phase"] == "waiting"


@pytest.mark.parametrize(
    ("target", "needs_reason", "needs_approval"),
    [
        ({"ids": ["d1"]}, False, False),
        ({"ids": ["d1", "q1", "none"]}, True, True),
        ({"filter": DEAD}, True, True),
        ({"types": ["mail"]}, False, False),
        ({"types": ["mail", "sms"]}, True, False),
    ],
    ids=["one id", "ids", "filter", "one type", "types"],
)
def test_preview_and_filing_agree_on_reason_and_approval(
    make_api: Callable[..., ActionApi],
    target: dict[str, Any],
    needs_reason: bool,
    needs_approval: bool,
) -> None:
    """Catches a preview that counts only the jobs that can be changed, or ignores a dry run."""
    api = make_api(actions_approval_above=2)
    body = {"action": "pause_type" if "types" in target else "retry", **target}
    for is_dry_run in (False, True):
        needs = (needs_reason and not is_dry_run, needs_approval and not is_dry_run)
        preview = api.post("/admin/actions/preview", body | {"isDryRun": is_dry_run}).json
        assert (preview["isReasonNeeded"], preview["isApprovalNeeded"]) == needs
        order = body | {"isDryRun": is_dry_run, "expected": preview["count"]}
        assert api.post("/admin/actions", order).status_code == (422 if needs[0] else 201)
        filed = api.post("/admin/actions", order | {"reason": "it is back"}).json
        assert filed["isApprovalNeeded"] is needs[1]


def test_requests_are_listed_in_pages(actions_api: ActionApi) -> None:
    ids = [
        actions_api.post("/admin/actions", {"action": "retry", "ids": [f"d{index}"]}).json["id"]
        for index in (1, 2, 3)
    ]
    page_1 = actions_api.read("/admin/actions", per_page=2)
    page_2 = actions_api.read("/admin/actions", per_page=2, cursor=page_1["meta"]["next_cursor"])
    listed_ids = [request["id"] for page in (page_1, page_2) for request in page["data"]]
    assert listed_ids == ids[::-1]
    assert page_2["meta"]["next_cursor"] is None


def test_request_cursor_with_a_time_before_year_1_is_422(actions_api: ActionApi) -> None:
    """Catches a 500: in UTC the time of the cursor is out of Python's range."""
    cursor = f"0001-01-01T00:00:00+14:00_{'0' * 20}"
    answer = actions_api.get("/admin/actions", token=actions_api.token("ada"), cursor=cursor)
    assert (answer.status_code, [*answer.json["error"]["details"]]) == (422, ["cursor"])


@pytest.fixture
def api_and_id(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[tuple[ActionApi, str]]:
    """The service on a real server, and the id of a request with two outcomes."""
    uri = database_uri(mongod, database)
    settings = make_settings(
        mongo_uri=uri, state_db=database.name, actions=True, role_permissions=ROLES
    )
    actions_api = ActionApi(settings, MongoClient(uri, tz_aware=True))
    request_id = actions_api.post("/admin/actions", ALL_DEAD | {"filter": {}}).json["id"]
    actions_api.add_outcome(request_id, "d1", before={"status": "dlq", "password": "p"})
    actions_api.add_outcome(request_id, "d2", result="skipped", reason="it is queued")
    yield actions_api, request_id
    actions_api.database.client.close()


def read_export(actions_api: ActionApi, path: str, role: str = "admin", **query: str) -> list[Any]:
    """The rows of an export; checks that its last line has the number of rows."""
    answer = actions_api.get(path, token=actions_api.token("ada", role), **query)
    assert answer.status_code == 200, answer.text
    if query["format"] == "ndjson":
        *lines, end = map(json.loads, answer.text.splitlines())
        assert (end["end"], end["rows"]) == (True, len(lines))
    else:
        *lines, end_row = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert [*end_row.values()][:2] == ["#end", str(len(lines))]
    answer.close()
    return lines


def test_export_of_outcomes_is_complete_over_several_batches(
    api_and_id: tuple[ActionApi, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.actions.requests.BATCH", 10)
    actions_api, request_id = api_and_id
    for index in range(30):
        actions_api.add_outcome(request_id, f"more-{index:02}", result="skipped", reason="=1+1")
    address = f"/admin/actions/{request_id}/outcomes"
    page = actions_api.read(address, per_page=1_000)["data"]
    assert len(page) == 32
    assert read_export(actions_api, address, format="ndjson") == page
    rows = read_export(actions_api, address, role="reader", format="csv")
    assert [(row["jobId"], row["result"], row["at"]) for row in rows] == [
        (outcome["jobId"], outcome["result"], outcome["at"]) for outcome in page
    ]
    assert json.loads(rows[0]["before"]) == {"status": "dlq", "password": "[redacted]"}
    assert rows[-1]["reason"] == "'=1+1"
    assert len(read_export(actions_api, address, format="ndjson", result="done")) == 1
    answer = actions_api.get(address, token=actions_api.token("ada"), format="csv", cursor="x")
    assert (answer.status_code, [*answer.json["error"]["details"]]) == (422, ["cursor"])


def test_export_of_outcomes_has_a_reason_until_the_request_is_over(
    api_and_id: tuple[ActionApi, str],
) -> None:
    actions_api, request_id = api_and_id

    def read_end() -> Any:
        address, token = f"/admin/actions/{request_id}/outcomes", actions_api.token("ada")
        answer = actions_api.get(address, token=token, format="ndjson")
        return json.loads(answer.text.splitlines()[-1])

    reason = "the request is not over: more jobs may follow"
    assert read_end() == {"end": True, "rows": 2, "reason": reason}
    actions_api.finish(request_id, done=1)
    assert read_end() == {"end": True, "rows": 2}


def test_export_of_requests_has_each_request_with_its_history(
    api_and_id: tuple[ActionApi, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    actions_api, first_id = api_and_id
    later_ids = [actions_api.post("/admin/actions", ALL_DEAD).json["id"] for _ in range(4)]
    actions_api.post(f"/admin/actions/{first_id}/stop", {"reason": "wrong filter"}, subject="bob")
    requests = actions_api.read("/admin/actions")["data"]
    monkeypatch.setattr("jobmon.actions.requests.MAX_LISTED", 2)
    lines = read_export(actions_api, "/admin/actions", format="ndjson")
    assert [line["id"] for line in lines] == [request["id"] for request in requests]
    assert {line["id"] for line in lines} == {first_id, *later_ids}
    *_, oldest = lines
    steps = [(step["kind"], step["by"]["subject"], step["reason"]) for step in oldest["history"]]
    assert steps == [
        ("requested", "ada", "the provider is back"),
        ("stopped", "bob", "wrong filter"),
    ]
    row = read_export(actions_api, "/admin/actions", format="csv")[-1]
    assert (row["bySubject"], row["byRole"], row["byAddress"]) == ("ada", "admin", "127.0.0.1")
    assert (row["phase"], row["isDryRun"]) == ("stopped", "false")
    assert json.loads(row["target"]) == oldest["target"]
    assert json.loads(row["history"]) == oldest["history"]


def test_pages_of_outcomes_show_changes_without_secrets(api_and_id: tuple[ActionApi, str]) -> None:
    actions_api, request_id = api_and_id
    address = f"/admin/actions/{request_id}/outcomes"
    page = actions_api.read(address, per_page=1)
    (outcome,) = page["data"]
    assert (outcome["jobId"], outcome["result"]) == ("d1", "done")
    assert outcome["before"] == {"status": "dlq", "password": "[redacted]"}
    (skipped,) = actions_api.read(address, cursor=page["meta"]["next_cursor"])["data"]
    assert (skipped["jobId"], skipped["reason"]) == ("d2", "it is queued")
    deep: Any = 1
    for _ in range(250):  # a query with it would be nested too deeply for a server
        deep = {"a": deep}
    for cursor in ("!", "é", encode_token({"key": deep})):
        answer = actions_api.get(address, token=actions_api.token("ada"), cursor=cursor)
        assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["cursor"])


def test_job_shows_its_done_and_possible_actions(
    make_api: Callable[..., ActionApi],
) -> None:
    api = make_api(owner_actions=("retry",))
    request_id = api.post("/admin/actions", ALL_DEAD).json["id"]
    job = api.database.jobs.find_one({"jobId": "d1"})
    assert job is not None
    api.add_outcome(request_id, "d1", key=job["_id"])
    actions = api.read("/jobs/d1")["actions"]
    assert actions["possible"] == ["retry"]
    assert [(action["action"], action["by"], action["reason"]) for action in actions["done"]] == [
        ("retry", "ada", "the provider is back")
    ]
    assert api.read("/jobs/d1", role="reader")["actions"]["possible"] == []
    # The owner sees that the job was retried, but not by whom and why.
    actions = api.read("/jobs/d1", role="user", subject="bob")["actions"]
    assert actions["possible"] == ["retry"]
    assert [(action["action"], action["by"], action["reason"]) for action in actions["done"]] == [
        ("retry", None, None)
    ]
    # Nor does an owner see an action on another job with the same id.
    api.add_outcome(request_id, "d1", key="another job")
    owner_actions = api.read("/jobs/d1", role="user", subject="bob")["actions"]
    assert len(owner_actions["done"]) == 1
    assert len(api.read("/jobs/d1")["actions"]["done"]) == 2
    # `run_now` is only for jobs whose due date is in the future.
    assert "run_now" not in api.read("/jobs/q1")["actions"]["possible"]
    assert {"cancel", "reschedule"} <= {*api.read("/jobs/q1")["actions"]["possible"]}


def test_job_with_a_numeric_id_shows_its_done_actions(actions_api: ActionApi) -> None:
    """Catches a history that is always empty in queues whose ids are numbers or ObjectIds."""
    actions_api.database.jobs.insert_one({"jobId": 7, "status": "dlq", "createdAt": NOW})
    request_id = actions_api.post("/admin/actions", {"action": "retry", "ids": ["7"]}).json["id"]
    actions_api.add_outcome(request_id, "7")
    (done,) = actions_api.read("/jobs/7")["actions"]["done"]
    assert done["requestId"] == request_id


def test_job_is_shown_if_the_records_cannot_be_read(
    actions_api: ActionApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disconnected(*_: Any) -> Any:
        raise AutoReconnect("away")

    monkeypatch.setattr(ActionRequests, "list_job_outcomes", raise_disconnected)
    actions = actions_api.read("/jobs/d1")["actions"]
    assert actions["done"] is None
    assert actions["reasons"] == {"done": "the records of actions cannot be read"}


def test_request_of_an_owner_is_limited_to_own_jobs(make_api: Callable[..., ActionApi]) -> None:
    api = make_api(owner_actions=("retry",))
    answer = api.post("/job/actions?id=d1", {"action": "retry"}, role="user", subject="bob")
    assert answer.status_code == 201
    record = api.records.own["action_decisions"].find_one({"kind": "requested"})
    assert record is not None
    assert (record["owner"], record["target"]) == ("bob", {"ids": ["d1"]})


def test_owner_with_too_many_requests_in_an_hour_is_429(
    make_api: Callable[..., ActionApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an owner who files requests without end: the actor lists all of them again."""
    monkeypatch.setattr("jobmon.api.job_actions.MAX_OWNER_REQUESTS", 2)
    api = make_api(owner_actions=("retry",))
    api.insert_jobs("d4", createdBy="eve")

    def request_retry(job_id: str, subject: str, role: str = "user", key: str = "") -> TestResponse:
        path = f"/job/actions?id={job_id}"
        return api.post(path, {"action": "retry"}, role=role, subject=subject, key=key)

    assert [request_retry("d1", "bob", key=key).status_code for key in "ab"] == [201, 201]
    assert request_retry("d1", "bob", key="b").status_code == 201  # the same request
    refused = request_retry("d1", "bob")
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "rate_limited")
    assert 3_500 < int(refused.headers["Retry-After"]) <= 3_600
    assert request_retry("d4", "eve").status_code == 201
    assert request_retry("d1", "bob", role="admin").status_code == 201
    decisions = api.records.own["action_decisions"]
    decisions.update_many({}, {"$set": {"at": datetime.now(UTC) - timedelta(minutes=61)}})
    assert request_retry("d1", "bob").status_code == 201


def test_log_has_who_requested_what_without_the_reason(
    actions_api: ActionApi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jobmon.actions"):
        filed = actions_api.post("/admin/actions", ALL_DEAD | {"reason": "password=hunter2"}).json
    text = "".join(record.getMessage() for record in caplog.records)
    assert all(part in text for part in (filed["id"], "retry", "ada", "127.0.0.1"))
    assert "hunter2" not in text
    assert "hunter2" not in filed["reason"]


def test_running_actor_is_reported_without_a_warning(
    actions_api: ActionApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActionRequests, "has_actor", lambda _: True)
    assert actions_api.post("/admin/actions/preview", ALL_DEAD).json["warnings"] == []
    filed = actions_api.post("/admin/actions", ALL_DEAD).json
    actions_api.finish(filed["id"], done=3)
    detail = actions_api.read(f"/admin/actions/{filed['id']}")
    assert (detail["phase"], detail["done"], detail["isActorRunning"]) == ("finished", 3, True)


@pytest.mark.parametrize(("length", "status"), [(1_000, 200), (1_001, 422)])
def test_a_type_with_a_long_name_can_be_paused(
    actions_api: ActionApi, length: int, status: int
) -> None:
    body = {"action": "pause_type", "types": ["t" * length]}
    assert actions_api.post("/admin/actions/preview", body).status_code == status
