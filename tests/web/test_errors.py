"""Error answers: catches a wrong status or code, a body of a wrong form, a check that comes too
late, and an answer that reveals internals."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, WTimeoutError
from werkzeug.test import TestResponse

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobLists
from jobmon.web.auth import SESSION_COOKIE

from ..conftest import NEXT_DATE, SECRET, Api
from ..support.commands import database_uri, index_queue
from ..support.waiting import eventually

QUEUE, STATS = "/admin/jobs/queue", "/admin/jobs/stats"
PROTECTED = [QUEUE, STATS, "/jobs", "/jobs/some-id"]


def assert_error(
    answer: Any, status: int, code: str, *, has_details: bool = False
) -> dict[str, Any]:
    """Check the status and the form of an error answer; returns its `error`."""
    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert list(answer.json) == ["error"]
    error = answer.json["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message"} | ({"details"} if has_details else set())
    assert error["message"]
    return error


@pytest.mark.parametrize(
    "path", ["/favicon.ico", "/nope", "/admin", "/admin/jobs/none", "/admin/jobs/queue/a", "/jobs/"]
)
def test_unknown_route_is_404(idle_api: Api, path: str) -> None:
    assert_error(idle_api.get(path), 404, "not_found")


def test_job_id_can_contain_slashes(idle_api: Api) -> None:
    assert_error(idle_api.get("/jobs/a/b"), 401, "authentication_required")
    assert_error(idle_api.get_as_owner("/jobs/a/b", "ada"), 403, "access_denied")


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
@pytest.mark.parametrize("path", [*PROTECTED, "/healthz", "/readyz"])
def test_method_that_is_not_allowed_is_405_with_the_allowed_methods(
    idle_api: Api, path: str, method: str
) -> None:
    answer = getattr(idle_api.client, method)(path)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", [QUEUE, "/jobs"])
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("page", "0"),
        ("page", "-1"),
        ("page", "1.5"),
        ("page", "x"),
        ("page", ""),
        ("page", "9" * 5_000),
        ("page", "1_0"),
        ("page", "\uff11"),
        ("page", ["1", "2"]),
        ("sort", ["createdAt", "createdAt"]),
        ("per_page", "0"),
        ("per_page", "101"),
        ("per_page", "x"),
        ("status", "s" * 201),
        ("status", [f"s{index}" for index in range(11)]),
        ("type", "t" * 201),
        ("type", [f"t{index}" for index in range(21)]),
        ("cursor", "!"),
        ("cursor", "c" * 4_097),
    ],
)
def test_invalid_parameter_is_named(idle_api: Api, path: str, parameter: str, value: Any) -> None:
    answer = idle_api.get_as_admin(path, **{parameter: value})
    error = assert_error(answer, 422, "validation_error", has_details=True)
    assert list(error["details"]) == [parameter]
    assert all(isinstance(message, str) for message in error["details"][parameter])
    assert parameter in error["message"]


def test_several_invalid_parameters_are_named_in_one_answer(idle_api: Api) -> None:
    answer = idle_api.get_as_admin(QUEUE, page="x", per_page="0", status="s" * 201)
    assert set(answer.json["error"]["details"]) == {"page", "per_page", "status"}


@pytest.mark.parametrize("path", ["/admin/jobs/timeseries", "/admin/jobs/types"])
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"to": "0001-01-01T00:30:00Z"}, "to"),
        ({"from": "9999-12-31T23:59:59.5Z", "to": "9999-12-31T23:59:59.9Z"}, "to"),
        ({"to": [f"{NEXT_DATE}T01:00:00Z", f"{NEXT_DATE}T02:00:00Z"]}, "to"),
    ],
)
def test_window_beyond_the_possible_dates_or_with_a_repeated_bound_is_422(
    idle_api: Api, path: str, query: dict[str, Any], parameter: str
) -> None:
    answer = idle_api.get_as_admin(path, **query)
    error = assert_error(answer, 422, "validation_error", has_details=True)
    assert list(error["details"]) == [parameter]


@pytest.mark.parametrize(
    "query", [{"page": "1", "per_page": "100"}, {"status": ["a", ""]}, {"type": ""}, {"other": "x"}]
)
def test_valid_and_unknown_parameters_are_accepted(idle_api: Api, query: dict[str, Any]) -> None:
    assert idle_api.get_as_admin(QUEUE, **query).status_code == 200


def test_too_many_requests_are_429_only_for_the_owner_of_their_token(
    watched: Any, make_settings: Callable[..., Settings]
) -> None:
    api = Api(create_app(make_settings(rate_limit="2/hour"), watched.client))
    assert [api.get_as_admin(STATS).status_code for _ in range(2)] == [200, 200]
    refused = api.get_as_admin("/jobs")
    assert_error(refused, 429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3_600
    assert api.get_as_owner("/jobs", "ada").status_code == 200
    assert_error(api.get(STATS), 401, "authentication_required")
    assert api.get("/healthz").status_code == 200


@pytest.fixture
def unreachable_api(make_settings: Callable[..., Settings]) -> Any:
    """The service over an address where no database listens."""
    settings = make_settings(
        mongo_uri="mongodb://user:hidden@127.0.0.1:1/x", server_selection_timeout_ms=100
    )
    app = create_app(settings)
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@pytest.mark.parametrize("path", [QUEUE, STATS, "/jobs", "/jobs/some-id", "/readyz"])
def test_unreachable_database_is_503_with_retry_after_and_one_logged_error(
    unreachable_api: Api, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = unreachable_api.get_as_admin(path)
    assert_error(answer, 503, "database_unavailable", has_details=path == "/readyz")
    assert int(answer.headers["Retry-After"]) > 0
    # Only errors: another test can have enabled the request log, which has the level INFO.
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == 1
    assert "ServerSelectionTimeoutError" in logged[0].getMessage()
    assert "hidden" not in answer.text + caplog.text


def test_healthz_is_200_while_the_database_is_unreachable(unreachable_api: Api) -> None:
    answer = unreachable_api.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


API_PATHS = [
    "/jobs",
    "/jobs/some-id",
    QUEUE,
    f"{QUEUE}?page=99&status=dlq",
    f"{QUEUE}?format=csv",
    f"{QUEUE}?sort=createdAt",
    f"{QUEUE}?job_id=some",
    STATS,
    "/admin/jobs/timeseries",
    "/admin/jobs/types",
]
PAGE_PATHS = ["/dashboard", "/dashboard/jobs", "/dashboard/jobs/some-id"]
MAX_TIME_EXPIRED = 50  # the server's code for a query that reached its time limit


@pytest.fixture(scope="module")
def indexed_settings(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[Settings]:
    """The settings of a queue with its indexes and three jobs on the real server."""
    uri = database_uri(mongod, "test_web_errors")
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, stats_ttl_ms=0)
    index_queue(settings)
    jobs = mongo["test_web_errors"].jobs
    jobs.insert_many([{"jobId": f"some-{index}", "status": "dlq"} for index in range(3)])
    yield settings
    mongo.drop_database("test_web_errors")


def read_answers_while_failing(
    settings: Settings, mongo: MongoClient[dict[str, Any]], code: int
) -> dict[str, TestResponse]:
    """The answers by path, while every command that reads fails with this code."""
    api = Api(create_app(settings))
    commands = ["find", "aggregate", "count", "explain", "getMore"]
    failing = {"failCommands": commands, "errorCode": code, "appName": "jobmon"}
    mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=failing)
    headers = {"Authorization": f"Bearer {api.token()}"}
    try:
        answers = {path: api.client.get(path, headers=headers) for path in API_PATHS}
        api.client.set_cookie(SESSION_COOKIE, api.token(), path="/dashboard", domain="localhost")
        return answers | {path: api.client.get(path) for path in PAGE_PATHS}
    finally:
        mongo.admin.command("configureFailPoint", "failCommand", mode="off")
        api.app.extensions["jobmon_connection"].client.close()


def test_query_that_takes_too_long_is_503_with_a_hint(
    indexed_settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    for path, answer in read_answers_while_failing(
        indexed_settings, mongo, MAX_TIME_EXPIRED
    ).items():
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10"), path
        assert "The query took longer" in answer.text, path
        if not path.startswith("/dashboard"):
            assert_error(answer, 503, "database_unavailable")


# Errors that the server can return for a valid query: their codes by name.
DEPLOYMENT_ERRORS = {
    "HostUnreachable": 6,
    "LockTimeout": 24,
    "NamespaceNotFound": 26,
    "IndexNotFound": 27,
    "CursorNotFound": 43,
    "NetworkTimeout": 89,
    "ShutdownInProgress": 91,
    "OperationFailed": 96,
    "WriteConflict": 112,
    "CappedPositionLost": 136,
    "CursorInUse": 143,
    "ExceededMemoryLimit": 146,
    "StaleEpoch": 150,
    "QueryPlanKilled": 175,
    "PrimarySteppedDown": 189,
    "NetworkInterfaceExceededTimeLimit": 202,
    "CursorKilled": 237,
    "SnapshotTooOld": 239,
    "SnapshotUnavailable": 246,
    "StaleDbVersion": 249,
    "TooManyLogicalSessions": 261,
    "ExceededTimeLimit": 262,
    "TooManyFilesOpen": 264,
    "MigrationConflict": 272,
    "ClientDisconnect": 279,
    "QueryExceededMemoryLimitNoDiskUseAllowed": 292,
    "InterruptedDueToStorageChange": 355,
    "TemporarilyUnavailable": 365,
    "NotWritablePrimary": 10107,
    "InterruptedAtShutdown": 11600,
    "Interrupted": 11601,
    "InterruptedDueToReplStateChange": 11602,
    "StaleConfig": 13388,
    "NotPrimaryNoSecondaryOk": 13435,
    "NotPrimaryOrSecondary": 13436,
    "OutOfDiskSpace": 14031,
    "Unauthorized": 13,
    "AuthenticationFailed": 18,
    "AtlasError": 8000,
}


@pytest.mark.parametrize("name", DEPLOYMENT_ERRORS)
def test_error_that_the_deployment_causes_is_503(
    idle_api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fault = OperationFailure("quoted", DEPLOYMENT_ERRORS[name], {"codeName": name})
    monkeypatch.setattr(JobStore, "get_job", make_failing(fault))
    for path in ("/jobs/some-id", "/dashboard/jobs/some-id"):
        answer = idle_api.get_as_admin(path)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "quoted" not in answer.text
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [name in line for line in lines] == [True, True]


@pytest.mark.parametrize("label", ["SystemOverloadedError", "TransientTransactionError"])
def test_error_with_an_unknown_code_is_503_if_its_label_means_temporary(
    idle_api: Api, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    fault = OperationFailure("hidden", 999_999, {"errorLabels": [label]})
    monkeypatch.setattr(JobStore, "get_job", make_failing(fault))
    assert_error(idle_api.get_as_admin("/jobs/some-id"), 503, "database_unavailable")


# The driver raises OperationFailure, CursorNotFound, OperationFailure and, after a retry of the
# query, NotPrimaryError.
@pytest.mark.parametrize("code", [13, 43, 11601, 10107])
def test_reading_routes_are_503_while_the_database_refuses_or_ends_queries(
    indexed_settings: Settings, mongo: MongoClient[dict[str, Any]], code: int
) -> None:
    for path, answer in read_answers_while_failing(indexed_settings, mongo, code).items():
        assert answer.status_code == 503, path
        assert int(answer.headers["Retry-After"]) > 0, path
        if not path.startswith("/dashboard"):
            assert_error(answer, 503, "database_unavailable")


WAIT_FAIL_POINT = "waitInFindBeforeMakingBatch"


class QueryKiller:
    """Ends a query of jobmon on the real server while the query waits at a fail point."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self._database = database

    def send_and_end(self, send: Callable[[], Any], end_query: Callable[[int], Any]) -> Any:
        """Send a request and end its query while the query waits; returns the answer.

        `end_query` gets the id of the query's operation on the server.
        """
        admin, answers = self._database.client.admin, []
        data = {"shouldCheckForInterrupt": True, "nss": f"{self._database.name}.jobs"}
        admin.command("configureFailPoint", WAIT_FAIL_POINT, mode="alwaysOn", data=data)
        thread = threading.Thread(target=lambda: answers.append(send()))
        try:
            thread.start()
            operation = eventually(self._find_operation)
            end_query(operation["opid"])
        finally:
            admin.command("configureFailPoint", WAIT_FAIL_POINT, mode="off")
            thread.join()
        return answers[0]

    def _find_operation(self) -> Any:
        waiting_query = {
            "appName": "jobmon",
            "ns": f"{self._database.name}.jobs",
            "failpointMsg": WAIT_FAIL_POINT,
            # A waiting query checks only every 10 ms whether its collection was dropped.
            "microsecs_running": {"$gte": 50_000},
        }
        operations = [{"$currentOp": {"allUsers": True}}, {"$match": waiting_query}]
        return next(self._database.client.admin.aggregate(operations), None)


WAYS_TO_END: dict[str, Callable[[Database[dict[str, Any]], int], Any]] = {
    "killOp": lambda database, opid: database.client.admin.command("killOp", 1, op=opid),
    "drop": lambda database, _: database.jobs.drop(),
    "rename": lambda database, _: database.jobs.rename("elsewhere"),
}


@pytest.mark.parametrize(
    ("path", "way"), [*((QUEUE, way) for way in WAYS_TO_END), ("/dashboard/jobs", "killOp")]
)
def test_query_that_is_ended_on_the_server_is_503(
    real_api: Api, database: Database[dict[str, Any]], path: str, way: str
) -> None:
    database.jobs.create_index(NEWEST_FIRST)  # without the index, jobmon sends each query twice
    database.jobs.insert_many([{"jobId": f"some-{index}", "status": "dlq"} for index in range(300)])
    answer = QueryKiller(database).send_and_end(
        lambda: real_api.get_as_admin(path), lambda opid: WAYS_TO_END[way](database, opid)
    )
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("hidden"),
        OperationFailure("hidden", 2),  # BadValue
        OperationFailure("hidden", 9),  # FailedToParse
        OperationFailure("hidden", 40_324),  # an unknown stage of an aggregation
        OperationFailure("hidden"),
        WTimeoutError("hidden"),
    ],
)
def test_bug_in_jobmon_is_500_without_internals_and_one_logged_error(
    idle_api: Api,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    monkeypatch.setattr(JobLists, "page", make_failing(fault))
    answer = idle_api.get_as_admin(QUEUE)
    assert_error(answer, 500, "server_error")
    assert "hidden" not in answer.text + str(answer.headers)
    assert "Traceback" not in answer.text
    (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert logged.exc_info is not None
    assert logged.exc_info[1] is fault


def make_failing(fault: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise fault

    return fail


def test_answers_of_the_api_forbid_caching(idle_api: Api) -> None:
    for answer in (
        idle_api.get_as_admin(STATS),
        idle_api.get(STATS),
        idle_api.get("/healthz"),
        idle_api.get("/nope"),
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
