"""Checks which callers may call each route; the tables list the routes by group of callers.

Catches a route that no table lists, a route that answers a caller without access, and a difference
between the answers for another owner's job and for a missing job.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import jwt
import mongomock
import pytest
from bson import ObjectId
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import Mute
from jobmon.actions.request import Person
from jobmon.actions.requests import ActionRequests, OutcomePage
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.settings.actions import (
    ACTION_PERMISSIONS,
    JOBS_APPROVE,
    JOBS_CANCEL,
    JOBS_EDIT,
    JOBS_RETRY,
    NOTICES_MUTE,
)
from jobmon.store import indexes
from jobmon.web.auth import SESSION_COOKIE
from jobmon.web.revocation import REVOKED

from ..conftest import SECRET, Api
from ..support.commands import database_uri
from ..support.error_history import ErrorHistory
from ..support.pages import PART, Page

# The owner of each job, by its id. The id is the owner's name with an s; `nobodys` has no owner.
OWNER_BY_JOB = {"adas": "ada", "bobs": "bob", "nobodys": None, "roots": "root", "olgas": "olga"}
RETRY_ADAS = {"action": "retry", "ids": ["adas"]}

# The routes for each group of callers, each route with a path to request; `{}` is the id of a job.
ANYONE_ROUTES = {
    "/": "/",
    "/dashboard/": "/dashboard/",
    "/healthz": "/healthz",
    "/readyz": "/readyz",
    "/openapi.json": "/openapi.json",
    "/docs": "/docs",
    "/dashboard/sign-in": "/dashboard/sign-in",
    "/dashboard/static/<path:name>": "/dashboard/static/jobmon.css",
    "/dashboard/static/v-<version>/<path:name>": "/dashboard/static/v-0/jobmon.css",
    "/dashboard/<anything:_path>": "/dashboard/nothing/here",
}
SIGNED_IN_ROUTES = {"/jobs": "/jobs", "/queues": "/queues", "/job/counts": "/job/counts"}
ADMIN_ROUTES = {
    "/metrics": "/metrics",
    "/admin/jobs/queue": "/admin/jobs/queue",
    "/admin/jobs/neighbors": "/admin/jobs/neighbors?id=adas",
    "/admin/jobs/stats": "/admin/jobs/stats",
    "/admin/jobs/schedule": "/admin/jobs/schedule",
    "/admin/jobs/mutes": "/admin/jobs/mutes",
    "/admin/jobs/slowest": "/admin/jobs/slowest",
    "/admin/jobs/workers": "/admin/jobs/workers",
    "/admin/jobs/errors": "/admin/jobs/errors",
    "/admin/jobs/errors/<group_id>": "/admin/jobs/errors/(other)",
    "/admin/jobs/recurring": "/admin/jobs/recurring",
    "/admin/jobs/suggestions": "/admin/jobs/suggestions?q=mail",
    "/admin/jobs/timeseries": "/admin/jobs/timeseries",
    "/admin/jobs/types": "/admin/jobs/types",
}
OWNER_ROUTES = {
    "/jobs/<anything:job_id>": "/jobs/{}",
    "/job": "/job?id={}",
    "/job/neighbors": "/job/neighbors?id={}",
}
PAGES_OF_SIGNED_IN = {
    "/dashboard/my": "/dashboard/my",
    "/dashboard": "/dashboard",
    "/dashboard/queues": "/dashboard/queues",
    "/dashboard/find": "/dashboard/find",
    "/dashboard/queues/find": "/dashboard/queues/find",
}
PAGES_OF_ADMINS = {
    "/dashboard/jobs": "/dashboard/jobs",
    "/dashboard/schedule": "/dashboard/schedule",
    "/dashboard/workers": "/dashboard/workers",
    "/dashboard/types/<anything:name>": "/dashboard/types/mail",
    "/dashboard/type": "/dashboard/type?name=..",
    "/dashboard/recurring": "/dashboard/recurring",
    "/dashboard/overview": "/dashboard/overview",
    "/dashboard/charts": "/dashboard/charts",
    "/dashboard/errors": "/dashboard/errors",
    "/dashboard/errors/<group_id>": "/dashboard/errors/(other)",
    "/dashboard/errors/<group_id>/chart": "/dashboard/errors/(other)/chart",
}
PAGES_OF_OWNERS = {
    "/dashboard/jobs/<anything:job_id>": "/dashboard/jobs/{}",
    "/dashboard/job": "/dashboard/job?id={}",
}
FORM_ROUTES = {"/dashboard/session", "/dashboard/sign-out"}

# The routes that JOBMON_ACTIONS adds. By method and route: a path to request, a body, and the
# permission that a caller needs in addition to reading the queue (None: no other permission). `{}`
# is the id of a request to retry `adas`.
ACTION_ROUTES: dict[tuple[str, str], tuple[str, Any, str | None]] = {
    ("GET", "/admin/actions"): ("/admin/actions", None, None),
    ("GET", "/admin/actions/<string(length=20):action_id>"): ("/admin/actions/{}", None, None),
    ("GET", "/admin/actions/<string(length=20):action_id>/outcomes"): (
        "/admin/actions/{}/outcomes",
        None,
        None,
    ),
    ("POST", "/admin/actions"): ("/admin/actions", RETRY_ADAS, JOBS_RETRY),
    ("POST", "/admin/actions/preview"): ("/admin/actions/preview", RETRY_ADAS, JOBS_RETRY),
    ("POST", "/admin/actions/<string(length=20):action_id>/approve"): (
        "/admin/actions/{}/approve",
        {},
        JOBS_APPROVE,
    ),
    ("POST", "/admin/actions/<string(length=20):action_id>/reject"): (
        "/admin/actions/{}/reject",
        {},
        JOBS_APPROVE,
    ),
    ("POST", "/admin/actions/<string(length=20):action_id>/pause"): (
        "/admin/actions/{}/pause",
        {},
        JOBS_RETRY,
    ),
    ("POST", "/admin/actions/<string(length=20):action_id>/resume"): (
        "/admin/actions/{}/resume",
        {},
        JOBS_RETRY,
    ),
    ("POST", "/admin/actions/<string(length=20):action_id>/undo"): (
        "/admin/actions/{}/undo",
        {},
        JOBS_EDIT,
    ),
    ("POST", "/admin/actions/<string(length=20):action_id>/stop"): (
        "/admin/actions/{}/stop",
        {},
        JOBS_RETRY,
    ),
}
MUTE_ID = "0" * 20
_MUTE_UNTIL = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
ACTION_ROUTES |= {
    ("POST", "/admin/jobs/mutes"): (
        "/admin/jobs/mutes",
        {"until": _MUTE_UNTIL, "reason": "x"},
        NOTICES_MUTE,
    ),
    ("POST", "/admin/jobs/mutes/<string(length=20):mute_id>/end"): (
        f"/admin/jobs/mutes/{MUTE_ID}/end",
        {},
        NOTICES_MUTE,
    ),
}
OWNER_ACTION = ("POST", "/job/actions")
_REQUEST_PAGE = "/dashboard/actions/<string(length=20):action_id>"
_RETRY_FORM = {"action": "retry", "id": "adas"}
# The same for pages; the body is a form. A caller who may not read the queue can use these pages to
# retry one job of their own, and to see the requests that they filed.
ACTION_PAGES: dict[tuple[str, str], tuple[str, Any, str | None]] = {
    ("GET", "/dashboard/actions"): ("/dashboard/actions", None, None),
    ("GET", _REQUEST_PAGE): ("/dashboard/actions/{}", None, None),
    ("GET", f"{_REQUEST_PAGE}/toast"): ("/dashboard/actions/{}/toast", None, None),
    ("GET", "/dashboard/type-actions"): ("/dashboard/type-actions?name=mail", None, None),
    ("GET", "/dashboard/errors/<group_id>/actions"): (
        "/dashboard/errors/(other)/actions",
        None,
        None,
    ),
    ("POST", _REQUEST_PAGE): ("/dashboard/actions/{}", {"decision": "pause"}, JOBS_RETRY),
    ("POST", f"{_REQUEST_PAGE}/undo"): ("/dashboard/actions/{}/undo", {"key": "k"}, JOBS_EDIT),
    ("GET", "/dashboard/actions/confirm"): (
        "/dashboard/actions/confirm?action=retry&id=adas",
        None,
        JOBS_RETRY,
    ),
    ("POST", "/dashboard/actions/confirm"): ("/dashboard/actions/confirm", _RETRY_FORM, JOBS_RETRY),
    ("POST", "/dashboard/actions"): ("/dashboard/actions", _RETRY_FORM, JOBS_RETRY),
    ("GET", "/dashboard/mutes/confirm"): (
        "/dashboard/mutes/confirm?kind=backlog_growth",
        None,
        NOTICES_MUTE,
    ),
    ("POST", "/dashboard/mutes"): (
        "/dashboard/mutes",
        {"kind": "backlog_growth", "minutes": "60", "mode": "mute", "reason": "x"},
        NOTICES_MUTE,
    ),
    ("POST", "/dashboard/mutes/end"): ("/dashboard/mutes/end", {"id": MUTE_ID}, NOTICES_MUTE),
}

# The status and the error code of the answer to each caller without a valid token.
UNAUTHENTICATED = {
    "none": (401, "authentication_required"),
    "expired": (401, "token_expired"),
    "forged": (401, "token_invalid"),
    "revoked": (401, "token_invalid"),
}
ODD_ROLES: dict[str, Any] = {
    "document as role": {"admin": True},
    "number as role": 1,
    "documents as roles": [{"admin": "admin"}, ["admin"]],
    "roles without access": ["user", "Admin"],
}
USERS = ("user", *ODD_ROLES, "no role")
ADMINISTRATORS = ("ops", "admin", "admin among roles")
OK, PERMISSION_DENIED = (200, None), (403, "permission_denied")
ACCESS_DENIED = (403, "access_denied")
CALLERS = (*UNAUTHENTICATED, *USERS, *ADMINISTRATORS)


def sign_token(sub: str, role: Any, secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": sub, "role": role} | claims, secret, "HS256")


TOKENS = {
    "none": None,
    "expired": sign_token("ada", "admin", exp=1),
    "forged": sign_token("ada", "admin", "another secret of thirty-two bytes or more"),
    "revoked": sign_token("ada", "admin", jti="revoked"),
    "user": sign_token("ada", "user"),
    **{caller: sign_token("ada", role) for caller, role in ODD_ROLES.items()},
    "no role": jwt.encode({"sub": "ada"}, SECRET, "HS256"),
    "ops": sign_token("olga", "ops"),
    "admin": sign_token("root", "admin"),
    "admin among roles": sign_token("root", ["user", "admin"]),
}


@pytest.fixture(scope="module")
def _history() -> Iterator[None]:
    """An empty history of errors in place of queries that mongomock does not support."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobmon.rollup.series.count_activity", lambda *_: {})
        ErrorHistory(datetime.now(UTC)).serve(patched)
        yield


@pytest.fixture(scope="module")
def api(_history: None) -> Api:
    read_queue = frozenset({ADMIN_DASHBOARD})
    settings = Settings(
        mongo_uri="mongodb://127.0.0.1/watched",
        jwt_secret_key=SECRET,
        role_permissions={"admin": read_queue, "ops": read_queue},
    )
    client: Any = mongomock.MongoClient(settings.mongo_uri, tz_aware=True)
    client.watched.jobs.insert_many(
        {"jobId": job_id, "createdBy": owner} for job_id, owner in OWNER_BY_JOB.items()
    )
    client[settings.state_db][REVOKED].insert_one({"_id": "revoked"})
    return Api(create_app(settings, client))


# The same for everybody: a message must not show which jobs exist.
PART_MESSAGES = {
    "access_denied": "Job not found or access denied.",
    "permission_denied": "This needs ADMIN_DASHBOARD.",
}


def get(api: Api, path: str, caller: str, **headers: str) -> Any:
    """The answer to a caller's GET. Pages get the token in the cookie, the API in the header."""
    client, token = api.app.test_client(), TOKENS[caller]
    if token is not None and path.startswith("/dashboard"):
        client.set_cookie(SESSION_COOKIE, token, path="/dashboard")
    elif token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return client.get(path, headers=headers)


def read_outcome(api: Api, path: str, caller: str) -> tuple[int, str | None]:
    """Status and error code; of a page, from the header for htmx or, for 401, from the text."""
    answer = get(api, path, caller)
    if answer.status_code < 400:
        return answer.status_code, None
    if not path.startswith("/dashboard"):
        return answer.status_code, answer.json["error"]["code"]
    assert answer.content_type == "text/html; charset=utf-8"
    part = get(api, path, caller, **PART)
    assert part.status_code == answer.status_code
    if answer.status_code != 401:
        code = part.headers["X-Error-Code"]
        assert part.text == PART_MESSAGES[code]
        return answer.status_code, code
    assert part.text == ""
    assert part.headers["HX-Refresh"] == "true"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    text = Page(answer.text).text
    if "expired" in text:
        return 401, "token_expired"
    return 401, "token_invalid" if "no longer valid" in text else "authentication_required"


def test_every_route_is_in_a_table(api: Api) -> None:
    api_routes = ANYONE_ROUTES | SIGNED_IN_ROUTES | ADMIN_ROUTES | OWNER_ROUTES
    pages = PAGES_OF_SIGNED_IN | PAGES_OF_ADMINS | PAGES_OF_OWNERS
    rules = list(api.app.url_map.iter_rules())
    read_routes = {rule.rule for rule in rules if (rule.methods or set()) == {"GET", "HEAD"}}
    assert read_routes == set(api_routes | pages)
    assert {rule.rule for rule in rules} - read_routes == FORM_ROUTES
    assert {method for rule in rules for method in rule.methods or ()} == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", ANYONE_ROUTES.values())
def test_open_routes_send_every_caller_the_same_answer(api: Api, path: str) -> None:
    answers = {caller: get(api, path, caller) for caller in CALLERS}
    statuses = {answer.status_code for answer in answers.values()}
    assert statuses in ({200}, {302}, {404})
    # /readyz has the duration of a ping; /docs and the missing page show the caller's name.
    if path not in ("/readyz", "/docs", "/dashboard/nothing/here"):
        for caller, answer in answers.items():
            assert answer.data == answers["none"].data, caller


def expect_outcome(caller: str, routes: Mapping[str, str]) -> tuple[int, str | None]:
    if caller in UNAUTHENTICATED:
        return UNAUTHENTICATED[caller]
    is_denied = routes in (ADMIN_ROUTES, PAGES_OF_ADMINS) and caller in USERS
    return PERMISSION_DENIED if is_denied else OK


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    "routes",
    [SIGNED_IN_ROUTES, ADMIN_ROUTES, PAGES_OF_SIGNED_IN, PAGES_OF_ADMINS],
    ids=["signed in", "admins", "pages of signed in", "pages of admins"],
)
def test_a_route_answers_only_its_callers(api: Api, routes: dict[str, str], caller: str) -> None:
    for path in routes.values():
        expected = expect_outcome(caller, routes)
        if path == "/dashboard" and caller in USERS:
            expected = (302, None)  # to the list of the caller's own jobs
        assert read_outcome(api, path, caller) == expected, path
        # Neither a bad query nor the method HEAD bypasses the check.
        if expected[0] >= 400:
            assert read_outcome(api, f"{path}?page=x&range=x&owner=bob", caller) == expected, path
        header = {} if TOKENS[caller] is None else {"Authorization": f"Bearer {TOKENS[caller]}"}
        assert api.client.head(path, headers=header).status_code == expected[0], path


@pytest.fixture(scope="module")
def actions_api(_history: None) -> tuple[Api, str]:
    """The service with actions, and the id of root's request to retry `adas`."""
    read_queue = frozenset({ADMIN_DASHBOARD})
    settings = Settings(
        mongo_uri="mongodb://127.0.0.1/watched",
        jwt_secret_key=SECRET,
        actions=True,
        owner_actions=("retry",),
        role_permissions={
            "admin": read_queue | set(ACTION_PERMISSIONS),
            "reader": read_queue,
            "retrier": read_queue | {JOBS_RETRY},
            "canceller": read_queue | {JOBS_CANCEL},
            "approver": read_queue | {JOBS_APPROVE},
            "no queue": frozenset(ACTION_PERMISSIONS),
        },
    )
    client: Any = mongomock.MongoClient(settings.mongo_uri, tz_aware=True)
    client.watched.jobs.insert_many(
        {"jobId": name, "createdBy": owner, "status": "dlq"}
        for name, owner in (("adas", "ada"), ("bobs", "bob"))
    )
    client[settings.state_db][REVOKED].insert_one({"_id": "revoked"})
    api = Api(create_app(settings, client))
    connection = api.app.extensions["jobmon_connection"]
    until, root = datetime.now(UTC) + timedelta(hours=1), Person(subject="root")
    mute = Mute(id=MUTE_ID, kind=None, by=root, until=until, reason="x")
    MuteRecords(connection, connection, Redactor()).add(mute)
    bearer = {"Authorization": f"Bearer {sign_token('root', 'admin')}"}
    answer = api.client.post("/admin/actions", json=RETRY_ADAS, headers=bearer)
    return api, answer.json["id"]


def send(api: Api, method: str, path: str, token: str | None, body: Any) -> tuple[int, str | None]:
    """Send a request; returns the status and the error code of the answer."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = api.client.open(path, method=method, json=body, headers=headers)
    code = answer.json["error"]["code"] if answer.status_code >= 400 else None
    return answer.status_code, code


# The action permissions of each role; None if the role may not read the queue.
PERMISSIONS_BY_ROLE = {
    "admin": set(ACTION_PERMISSIONS),
    "reader": set(),
    "retrier": {JOBS_RETRY},
    "canceller": {JOBS_CANCEL},
    "approver": {JOBS_APPROVE},
    "no queue": None,
    "user": None,
}


ACTION_CALLERS = (*UNAUTHENTICATED, *PERMISSIONS_BY_ROLE)


@pytest.mark.parametrize("route", ACTION_ROUTES, ids=" ".join)
def test_a_route_for_actions_answers_only_callers_with_its_permission(
    actions_api: tuple[Api, str], route: tuple[str, str]
) -> None:
    api, request_id = actions_api
    address, body, permission = ACTION_ROUTES[route]
    for caller in ACTION_CALLERS:
        token = TOKENS[caller] if caller in UNAUTHENTICATED else sign_token("ada", caller)
        outcome = send(api, route[0], address.format(request_id), token, body)
        permissions = PERMISSIONS_BY_ROLE.get(caller)
        if caller in UNAUTHENTICATED:
            assert outcome == UNAUTHENTICATED[caller], caller
        elif permissions is None or (permission is not None and permission not in permissions):
            assert outcome == PERMISSION_DENIED, caller
        else:
            # 409: an earlier caller has already decided on the request, or has ended the mute.
            assert outcome in ((200, None), (201, None), (409, "conflict")), caller


@pytest.mark.parametrize("route", ACTION_PAGES, ids=" ".join)
def test_a_page_for_actions_answers_only_callers_with_its_permission(
    actions_api: tuple[Api, str], route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, request_id = actions_api
    monkeypatch.setattr(  # mongomock cannot list outcomes
        ActionRequests, "list_outcomes", lambda *_, **__: OutcomePage(outcomes=[])
    )
    address, form, permission = ACTION_PAGES[route]
    for caller in ACTION_CALLERS:
        token = TOKENS[caller] if caller in UNAUTHENTICATED else sign_token("ada", caller)
        client = api.app.test_client()
        if token is not None:
            client.set_cookie(SESSION_COOKIE, token, path="/dashboard")
        status = client.open(address.format(request_id), method=route[0], data=form).status_code
        if caller in UNAUTHENTICATED:
            assert status == 401, caller
        elif PERMISSIONS_BY_ROLE[caller] is None:
            # The caller owns the job `adas`, but root filed the request.
            is_own_retry = permission == JOBS_RETRY and _REQUEST_PAGE not in route[1]
            assert (status in (200, 303)) == is_own_retry, caller
        else:
            is_granted = permission is None or permission in PERMISSIONS_BY_ROLE[caller]
            assert (status in (200, 303, 409)) == is_granted, caller
            assert is_granted or status == 403, caller


RECORD_LISTS = ("/admin/actions", "/admin/actions/{}/outcomes")
RECORD_PAGES = ("/dashboard/actions", "/dashboard/actions/{}")


@pytest.mark.parametrize("address", [*RECORD_LISTS, *RECORD_PAGES])
def test_an_export_of_action_records_needs_the_access_of_its_list(
    actions_api: tuple[Api, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, request_id = actions_api
    monkeypatch.setattr(  # mongomock cannot list outcomes
        ActionRequests, "list_outcomes", lambda *_, **__: OutcomePage(outcomes=[])
    )
    path = f"{address.format(request_id)}?format=ndjson"
    for caller in ACTION_CALLERS:
        token = TOKENS[caller] if caller in UNAUTHENTICATED else sign_token("ada", caller)
        client = api.app.test_client()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if token is not None and address in RECORD_PAGES:
            client.set_cookie(SESSION_COOKIE, token, path="/dashboard")
        answer = client.get(path, headers={} if address in RECORD_PAGES else headers)
        if caller in UNAUTHENTICATED:
            assert answer.status_code == 401, caller
        elif PERMISSIONS_BY_ROLE[caller] is None:
            assert answer.status_code == 403, caller
        else:
            assert answer.status_code == 200, caller
            assert '"end": true' in answer.text, caller
        # Only the list of requests contains the id of the job: the lists of outcomes are empty.
        is_shown = answer.status_code == 200 and "{}" not in address
        assert ("adas" in answer.text) == is_shown, caller


@pytest.mark.parametrize("job", ["adas", "bobs", "none"])
def test_an_action_on_a_job_is_for_its_owner_and_callers_with_the_permission(
    actions_api: tuple[Api, str], job: str
) -> None:
    api, _ = actions_api
    for caller, action in [(caller, "retry") for caller in ACTION_CALLERS] + [("user", "cancel")]:
        token = TOKENS[caller] if caller in UNAUTHENTICATED else sign_token("ada", caller)
        outcome = send(api, "POST", f"/job/actions?id={job}", token, {"action": action})
        permissions = PERMISSIONS_BY_ROLE.get(caller)
        if caller in UNAUTHENTICATED:
            expected = UNAUTHENTICATED[caller]
        elif action == "cancel" or (permissions is not None and JOBS_RETRY not in permissions):
            expected = PERMISSION_DENIED  # for every job: the permission is checked first
        elif job == "none" or (permissions is None and job != "adas"):
            expected = ACCESS_DENIED
        else:
            expected = (201, None)
        assert outcome == expected, (caller, action)


def test_without_the_setting_no_action_route_exists(api: Api, actions_api: tuple[Api, str]) -> None:
    def list_routes(service: Api) -> set[tuple[str, str]]:
        return {
            (method, rule.rule)
            for rule in service.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }

    added_routes = list_routes(actions_api[0]) - list_routes(api)
    assert added_routes == {*ACTION_ROUTES, *ACTION_PAGES, OWNER_ACTION}
    for method, address, body in (
        ("GET", "/admin/actions", None),
        ("POST", "/admin/actions", RETRY_ADAS),
        ("POST", "/admin/actions/preview", RETRY_ADAS),
        ("POST", "/job/actions?id=adas", {"action": "retry"}),
    ):
        assert send(api, method, address, TOKENS["admin"], body) == (404, "not_found")
    # Without actions, the list of mutes accepts only GET.
    mutes = "/admin/jobs/mutes"
    assert send(api, "POST", mutes, TOKENS["admin"], {}) == (405, "method_not_allowed")
    outcome = send(api, "POST", f"{mutes}/{MUTE_ID}/end", TOKENS["admin"], {})
    assert outcome == (404, "not_found")
    assert "actions" not in get(api, "/jobs/adas", "admin").json


@pytest.mark.parametrize("caller", CALLERS)
def test_a_job_is_shown_to_its_owner_and_to_admins(api: Api, caller: str) -> None:
    for job in (*OWNER_BY_JOB, "none"):
        if caller in UNAUTHENTICATED:
            expected = UNAUTHENTICATED[caller]
        elif caller in ADMINISTRATORS:
            expected = ACCESS_DENIED if job == "none" else OK
        else:
            expected = OK if job == "adas" else ACCESS_DENIED
        for path in (OWNER_ROUTES | PAGES_OF_OWNERS).values():
            assert read_outcome(api, path.format(job), caller) == expected, (job, path)


def test_a_list_of_own_jobs_has_only_the_callers_jobs(api: Api) -> None:
    for caller, own_job in (
        ("user", "adas"),
        ("roles without access", "adas"),
        ("ops", "olgas"),
        ("admin", "roots"),
        ("admin among roles", "roots"),
    ):
        jobs = get(api, "/jobs", caller).json["data"]
        assert [job["jobId"] for job in jobs] == [own_job], caller
        shown_words = set(re.findall(r"\b\w+s\b", get(api, "/dashboard/my", caller).text))
        assert shown_words & set(OWNER_BY_JOB) == {own_job}


ODD_IDS = [
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fadmin",
    "%00",
    "bobs%00",
    "bobs%0a",
    "%20bobs",
    "bobs%20",
    "BOBS",
    "%ff",
    "%ed%a0%80",
    quote("Ünïcödé-名-🦄"),
    quote("\u202ebobs"),
    quote("b\u043ebs"),  # a Cyrillic o
    quote('{"$ne":null}'),
    quote('{"$gt":""}'),
    "$ne",
    "bobs%2C%24ne",
    quote("'||'1'=='1"),
    quote("<script>alert(1)</script>"),
    quote("'; return true; //"),
    "[$ne]=",
    "None",
    "null",
    "0",
    "-1",
    "x" * 10_000,
    "%F0%9F%A6%84" * 800,
    "*",
    ".*",
    "^b",
]


@pytest.mark.parametrize("job_id", ODD_IDS, ids=lambda job_id: job_id[:20])
def test_an_odd_id_matches_no_job(api: Api, job_id: str) -> None:
    for caller in ("user", "admin"):
        assert read_outcome(api, f"/jobs/{job_id}", caller) == ACCESS_DENIED
        assert read_outcome(api, f"/dashboard/jobs/{job_id}", caller) == ACCESS_DENIED
    assert read_outcome(api, f"/jobs/{job_id}", "none") == UNAUTHENTICATED["none"]
    assert read_outcome(api, f"/dashboard/jobs/{job_id}", "none") == UNAUTHENTICATED["none"]


@pytest.mark.parametrize(
    "query", ["job_id[$ne]=x", "job_id=$ne:1", 'job_id={"$ne":1}', "owner[$ne]=x"]
)
def test_an_operator_in_a_query_reveals_no_job_of_another_owner(api: Api, query: str) -> None:
    answer = get(api, f"/jobs?{query}", "user")
    assert answer.status_code == 200
    assert {job["createdBy"] for job in answer.json["data"]} <= {"ada"}


def drop_varying_headers(answer: Any) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer, without the headers that are new in every answer."""
    headers = dict(answer.headers)
    for name in ("Date", "X-Request-ID"):
        headers.pop(name, None)
    return answer.status_code, answer.data, headers


def test_another_owners_job_and_a_missing_job_get_the_same_bytes(api: Api) -> None:
    for path in (
        "/jobs/{}",
        "/job?id={}",
        "/job/neighbors?id={}",
        "/dashboard/jobs/{}",
        "/dashboard/job?id={}",
    ):
        for headers in ({}, PART, {"Accept-Encoding": "br, gzip"}, {"If-None-Match": "*"}):
            bobs_answer, missing_answer = (
                drop_varying_headers(get(api, path.format(name), "user", **headers))
                for name in ("bobs", "none")
            )
            assert bobs_answer == missing_answer
            assert bobs_answer[0] == 403


class CommandRecorder(CommandListener):
    """Records the commands that a client sends to MongoDB, with masked job ids."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def started(self, event: Any) -> None:
        if REVOKED in event.command.values() or "explain" in event.command:
            return  # sent once a second or once a minute, not for each request
        varying_keys = ("lsid", "$db", "$clusterTime", "comment")
        command = {key: value for key, value in event.command.items() if key not in varying_keys}
        self.commands.append(_mask_ids(command))

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass

    def record(self, send_request: Callable[[], Any]) -> list[Any]:
        """The commands that the service sends while `send_request` runs."""
        self.commands.clear()
        send_request()
        return list(self.commands)


def _mask_ids(value: Any, key: str = "") -> Any:
    """A command, or a part of it, with `…` in place of each id of the requested job."""
    if isinstance(value, Mapping):
        return {name: _mask_ids(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mask_ids(inner) for inner in value]
    return "…" if key in ("jobId", "$gte", "$lt") else value


@pytest.fixture
def recorded_client(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[tuple[FlaskClient, CommandRecorder]]:
    """A client of the service over a real MongoDB, and a recorder of the service's commands."""
    jobs = [("adas-job", "ada"), ("bobs-job", "bob"), ("object-id-owner", ObjectId())]
    for name, owner in jobs:
        database.jobs.insert_one(
            {"jobId": name, "createdBy": owner, "payload": {"fill": "x" * 9_000}}
        )
        database.job_attempts.insert_one({"jobId": name, "attemptNumber": 1})
    recorder = CommandRecorder()
    uri = database_uri(mongod, database)
    with MongoClient[dict[str, Any]](uri, event_listeners=[recorder], tz_aware=True) as client:
        # The default state database has tokens that other tests on this server revoked.
        settings = make_settings(mongo_uri=uri, state_db=f"{database.name}_state")
        app = create_app(settings, client)
        database.jobs.create_index(indexes.JOB_ID, unique=True)
        yield app.test_client(), recorder


JOB_PATHS = [
    "/jobs/{}",
    "/job?id={}",
    "/dashboard/jobs/{}",
    "/jobs?job_id={}",
    "/jobs?job_id={}&format=csv",
]


@pytest.mark.parametrize("address", JOB_PATHS)
def test_another_owners_job_and_a_missing_job_cause_the_same_commands(
    recorded_client: tuple[FlaskClient, CommandRecorder],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
) -> None:
    client, recorder = recorded_client
    bearer = {"Authorization": f"Bearer {TOKENS['user']}"}
    # Whether a field has arrays is read for any job, and then cached.
    monkeypatch.setattr("jobmon.store.read_collection._ARRAYS_TTL_S", float("inf"))
    assert client.get(address.format("other-job"), headers=bearer).status_code in (200, 403)
    commands_by_job = {
        name: recorder.record(
            lambda name=name: client.get(address.format(name), headers=bearer).data
        )
        for name in ("bobs-job", "object-id-owner", "none-job", "adas-job")
    }
    for_missing_job = commands_by_job["none-job"]
    assert commands_by_job["bobs-job"] == commands_by_job["object-id-owner"] == for_missing_job
    assert len(for_missing_job) >= 1
    if "?" not in address:
        # One command reads the job and, if the caller owns it, its attempts. If it has attempts, a
        # second command reads whether another job has the same id.
        assert (len(for_missing_job), len(commands_by_job["adas-job"])) == (1, 2)


def test_the_server_examines_one_key_and_one_document_more_for_another_owners_job(
    recorded_client: tuple[FlaskClient, CommandRecorder], database: Database[dict[str, Any]]
) -> None:
    """An index that hides this difference would slow the queue's writers: see docs/security.md."""
    examined_counts = {}
    for name in ("bobs-job", "none-job"):
        plan = database.jobs.find({"jobId": name, "createdBy": {"$in": ["ada"]}}).explain()
        stats = plan["executionStats"]
        examined_counts[name] = (stats["totalKeysExamined"], stats["totalDocsExamined"])
    assert examined_counts == {"bobs-job": (1, 1), "none-job": (0, 0)}
