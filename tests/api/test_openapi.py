"""The OpenAPI document: catches a route, parameter or error that it lacks, and an answer that
does not match it, even an answer about a job with odd values."""

import copy
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import mongomock
import pytest
from bson import Decimal128, ObjectId
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pymongo.errors import AutoReconnect, ExecutionTimeout

from jobmon.api import examples
from jobmon.app import create_app
from jobmon.cli import main
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.stats import StatsReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.jobs import JobStore
from jobmon.store.live_stats import LiveStats

from ..conftest import NOW, SECRET, Api

ROOT = Path(__file__).parents[2]
QUEUE, STATS, SERIES, TYPES = (
    f"/admin/jobs/{name}" for name in ["queue", "stats", "timeseries", "types"]
)
# The blueprints that the document leaves out: two without JSON routes, and its own.
UNDOCUMENTED = {"dashboard", "openapi", "metrics"}

ODD_JOBS = [
    {},
    {"jobId": "odd", "status": 7, "type": None, "priority": "high", "createdAt": "yesterday"},
    {"jobId": 5, "status": "on-hold", "createdBy": {"team": 1}, "createdAt": [NOW]},
    {"jobId": "inf", "priority": float("inf"), "maxAttempts": Decimal128("3.5"), "attempts": 2},
    {"jobId": "err", "lastError": "broken", "updatedAt": NOW, "nextRunAt": 12, "payload": [1]},
    {"jobId": "err2", "lastError": {"code": 5, "message": {"a": 1}, "stack": ["x"], "more": 1}},
    {"jobId": "many", "attempts": [{"startedAt": "x", "error": 3}, {"waitMs": "x"}, 5, {}]},
    {"jobId": "true", "priority": True, "attemptCount": "many", "leasedBy": ObjectId()},
    {"jobId": "late", "status": "queued", "type": "a", "createdAt": NOW, "attemptCount": 1.0},
]


@pytest.fixture
def api(watched: Any, make_settings: Callable[..., Settings]) -> Api:
    """The service with all routes."""
    return Api(create_app(make_settings(actions=True), watched.client))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of a service with all routes: no test changes it."""
    settings = Settings(mongo_uri="mongodb://127.0.0.1/x", jwt_secret_key=SECRET, actions=True)
    client = mongomock.MongoClient(settings.mongo_uri, tz_aware=True)
    answer = Api(create_app(settings, client)).get("/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    return answer.json


def iterate_operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation with its path; the operation has its `method` as a further key."""
    for path, methods in document["paths"].items():
        for method in ("get", "post"):
            if method in methods:
                yield path, {**methods[method], "method": method}


def resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A part of the document; if it is a `$ref`, the component that it refers to."""
    while "$ref" in part:
        *_, kind, name = part["$ref"].split("/")
        part = document["components"][kind][name]
    return part


def close_schema(part: Any) -> Any:
    """The same schema, with `additionalProperties: false` in every object that has properties."""
    if isinstance(part, list):
        return [close_schema(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    closed = {"additionalProperties": False} if isinstance(part.get("properties"), dict) else {}
    return {key: close_schema(inner) for key, inner in part.items()} | closed


class ClosedComponents:
    """Keeps the closed components of a document: closing takes longer than checking a value."""

    def __init__(self) -> None:
        self._components: Any = None
        self._closed: Any = None

    def close(self, components: dict[str, Any]) -> Any:
        if components is not self._components:
            self._components, self._closed = components, close_schema(components)
        return self._closed


_closed_components = ClosedComponents()


def check_value(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Check a value by a schema of the document; a key that the schema lacks is refused."""
    components = _closed_components.close(document["components"])
    root = close_schema(schema) | {"components": components}
    formats = Draft202012Validator.FORMAT_CHECKER
    assert "date-time" in formats.checkers
    Draft202012Validator(root, format_checker=formats).validate(value)


def check_answer(
    document: dict[str, Any], path: str, answer: Any, method: str = "get"
) -> dict[str, Any]:
    """Check status, media type, headers and body of an answer; returns the body."""
    responses = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses
    response = resolve(document, responses[str(answer.status_code)])
    for name, header in response.get("headers", {}).items():
        value: Any = answer.headers[name]
        is_integer = header["schema"]["type"] == "integer"
        check_value(document, header["schema"], int(value) if is_integer else value)
    media = response["content"][answer.mimetype]
    if answer.mimetype == "application/json":
        check_value(document, media["schema"], answer.json)
        code = answer.json.get("error", {}).get("code")
        # The messages of `rate_limited`, and of errors with details, vary.
        varies = code == "rate_limited" or "details" in answer.json.get("error", {})
        if code is not None and not varies:
            assert answer.json == examples.ERRORS[code]
        return answer.json
    check_value(document, media["schema"], answer.text)
    return {}


def validate(document: dict[str, Any]) -> None:
    """Check the document with the specification's schema.

    The validator is imported only here, because its import takes half a second and every process
    of a run imports this file.
    """
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415

    OpenAPIV31SpecValidator(document).validate()


def test_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_document_without_actions_has_no_route_for_them(
    document: dict[str, Any], make_settings: Callable[..., Settings], watched: Any
) -> None:
    without_actions = Api(create_app(make_settings(), watched.client)).get("/openapi.json").json
    expected_paths = {
        path: {name: part for name, part in methods.items() if name != "post"}
        for path, methods in document["paths"].items()
        if "action" not in path and not path.endswith("/end")
    }
    assert without_actions["paths"] == expected_paths
    assert len(document["paths"]) == len(expected_paths) + 12
    assert all(set(methods) <= {"get", "parameters"} for methods in expected_paths.values())
    added_tags = [tag["name"] for tag in document["tags"] if tag not in without_actions["tags"]]
    assert added_tags == ["actions", "mutes"]


def test_checked_in_document_is_up_to_date() -> None:
    result = CliRunner().invoke(main, ["openapi"])
    assert result.exit_code == 0
    assert result.output.endswith("}\n")
    is_up_to_date = (ROOT / "docs/openapi.json").read_text(encoding="utf-8") == result.output
    assert is_up_to_date, (
        "docs/openapi.json is out of date; renew it: jobmon openapi > docs/openapi.json"
    )


def test_every_json_route_is_documented_with_its_methods(
    api: Api, document: dict[str, Any]
) -> None:
    routes: dict[str, set[str]] = {}
    for rule in api.app.url_map.iter_rules():
        if rule.endpoint.split(".")[0] not in UNDOCUMENTED:
            path = re.sub("<(?:[^:>]+:)?([a-z_]+)>", r"{\1}", rule.rule)
            routes.setdefault(path, set()).update(set(rule.methods or ()) - {"HEAD"})
    documented_routes = {
        path: {method.upper() for method in methods if method != "parameters"}
        for path, methods in document["paths"].items()
    }
    assert documented_routes == routes
    assert len(routes) >= 8


def test_parameters_and_fields_are_described_and_answers_have_examples(
    document: dict[str, Any],
) -> None:
    operation_ids = []
    for path, operation in iterate_operations(document):
        operation_ids.append(operation["operationId"])
        assert operation["summary"], path
        shared_parameters = document["paths"][path].get("parameters", [])
        for parameter in [*operation.get("parameters", []), *shared_parameters]:
            assert parameter["description"], (path, parameter["name"])
        for status, response in operation["responses"].items():
            media = resolve(document, response)["content"]["application/json"]
            assert "example" in media or "examples" in media, (path, status)
    assert len(set(operation_ids)) == len(operation_ids)
    for name, schema in document["components"]["schemas"].items():
        for field, field_schema in schema["properties"].items():
            assert "description" in field_schema or "$ref" in field_schema, (name, field)


def test_names_follow_one_convention(document: dict[str, Any]) -> None:
    """Catches a name in another case, a boolean without `is`, and milliseconds without `Ms`."""
    for name, schema in document["components"]["schemas"].items():
        assert not name.endswith("Answer"), name
        is_meta = name.endswith("Meta")
        for field, field_schema in schema["properties"].items():
            pattern = "[a-z]+(_[a-z]+)*" if is_meta else "[a-z]+[0-9]*([A-Z][a-z]*)*"
            assert re.fullmatch(pattern, field), (name, field)
            if "boolean" in str(field_schema.get("type")):
                assert re.match("is[A-Z_]|.*(IsExact|_is_exact)$", field), (name, field)
            text = field_schema.get("description", "").lower()
            if "milliseconds" in text and "$ref" not in field_schema:
                assert re.search("Ms|^p[0-9]+$", field), (name, field)
    for path, operation in iterate_operations(document):
        shared_parameters = document["paths"][path].get("parameters", [])
        for parameter in [*operation.get("parameters", []), *shared_parameters]:
            pattern = (
                "[A-Z][a-z]+(-[A-Z][a-z]+)*" if parameter["in"] == "header" else "[a-z]+(_[a-z]+)*"
            )
            assert re.fullmatch(pattern, parameter["name"]), (path, parameter["name"])


def test_parameters_of_lists_have_bounds_and_defaults(
    document: dict[str, Any],
) -> None:
    parameters = {
        parameter["name"]: parameter for parameter in document["paths"][QUEUE]["get"]["parameters"]
    }
    assert parameters["per_page"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 20,
    }
    assert parameters["status"]["schema"]["maxItems"] == 10
    assert (parameters["status"]["style"], parameters["status"]["explode"]) == ("form", True)
    assert parameters["created_from"]["schema"] == {"type": "string", "format": "date-time"}
    assert parameters["owner"]["schema"] == {"type": "string", "maxLength": 1_000}
    owner_parameters = {
        parameter["name"] for parameter in document["paths"]["/jobs"]["get"]["parameters"]
    }
    assert set(parameters) - owner_parameters == {
        "owner",
        "error_code",
        "error_group",
        "worker",
        "condition",
    }


def test_fields_that_can_be_searched_are_documented_once_for_all_queues(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "queues.toml"
    path.write_text(
        '[a]\nsearch_fields = ["payload.orderId"]\n'
        '[b]\ncollection = "b"\nsearch_fields = ["payload.orderId", "payload.customer.email"]'
    )
    api = Api(create_app(make_settings(queues=str(path))))
    render = api.app.extensions["flask-smorest"]["apis"][""]["ext_obj"].to_dict
    document = render()
    validate(document)
    for route in (QUEUE, "/jobs"):
        parameters = document["paths"][route]["get"]["parameters"]
        fields = [field for field in parameters if field["name"].startswith("payload")]
        names = [field["name"] for field in fields]
        assert names == ["payload.orderId", "payload.customer.email"]
        assert fields[0]["schema"]["items"] == {"type": "string", "maxLength": 1_000}
    assert api.get("/openapi.json").json == render() == document


def test_every_example_matches_its_schema(document: dict[str, Any]) -> None:
    checked_count = 0
    for _, operation in iterate_operations(document):
        for response in operation["responses"].values():
            for media in resolve(document, response)["content"].values():
                values = [media["example"]] if "example" in media else []
                values += [example["value"] for example in media.get("examples", {}).values()]
                for value in values:
                    check_value(document, media["schema"], value)
                    checked_count += 1
    assert checked_count > 30


def test_documented_security_matches_the_routes(api: Api, document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, operation in iterate_operations(document):
        method = operation["method"]
        address = path.replace("{job_id}", "some-id").replace("{action_id}", "0" * 20)
        address = address.replace("{mute_id}", "0" * 20)
        answer = api.client.open(address, method=method)
        needs_token = operation["security"] == [{"bearer": []}]
        assert (answer.status_code == 401) == needs_token, path
        assert needs_token == (path not in ("/healthz", "/readyz"))
        check_answer(document, path, answer, method)
        if path.startswith("/admin"):
            header = {"Authorization": f"Bearer {api.token('ada', 'user')}"}
            answer = api.client.open(address, method=method, headers=header)
            assert answer.status_code == 403, path
            check_answer(document, path, answer, method)


def check_job_answers(api: Api, document: dict[str, Any], ids: list[str]) -> None:
    token = api.token()
    for query in ({}, {"per_page": 2}, {"sort": "createdAt"}, {"status": "on-hold"}):
        answer = api.get(QUEUE, token=token, **query)
        assert answer.status_code == 200, answer.text
        assert check_answer(document, QUEUE, answer)["data"]
    for file_format in ("csv", "ndjson"):
        check_answer(document, QUEUE, api.get(QUEUE, token=token, format=file_format))
        check_answer(document, "/jobs", api.get("/jobs", token=token, format=file_format))
    check_answer(document, "/jobs", api.get("/jobs", token=token))
    for job_id in ids:
        answer = api.get(f"/jobs/{job_id}", token=token)
        assert answer.status_code == 200, answer.text
        check_answer(document, "/jobs/{job_id}", answer)
    for path in (STATS, "/healthz", "/readyz"):
        answer = api.get(path, token=token)
        assert answer.status_code == 200, answer.text
        check_answer(document, path, answer)


def test_answers_about_odd_jobs_match_the_openapi_document(
    real_api: Api, database: Any, document: dict[str, Any]
) -> None:
    database.jobs.insert_many(copy.deepcopy(ODD_JOBS))
    database.job_attempts.insert_one(
        {"jobId": "late", "attemptNumber": 1, "status": "failed", "startedAt": NOW,
         "finishedAt": NOW + timedelta(seconds=1), "error": {"code": "E"}}
    )  # fmt: skip
    create_indexes(real_api.app.extensions["jobmon_connection"])
    check_job_answers(
        real_api, document, [job["jobId"] for job in ODD_JOBS if isinstance(job.get("jobId"), str)]
    )
    window = {"from": NOW.isoformat(), "to": (NOW + timedelta(minutes=5)).isoformat()}
    token = real_api.token()
    for path in (SERIES, TYPES):
        answer = real_api.get(path, token=token)
        assert answer.status_code == 200, answer.text
        assert check_answer(document, path, answer)["data"]
        answer = real_api.get(path, token=token, **window | {"to": "1999-01-01"})
        assert answer.status_code == 422
        check_answer(document, path, answer)


def test_errors_match_the_openapi_document(
    api: Api,
    watched: Any,
    document: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    make_settings: Callable[..., Settings],
) -> None:
    def check_status(path: str, expected: int, api: Api = api, **query: Any) -> None:
        answer = api.get_as_admin(path.replace("{job_id}", "none"), **query)
        assert answer.status_code == expected, answer.text
        check_answer(document, path, answer)

    for path in (QUEUE, "/jobs"):
        check_status(path, 422, page="x", status="s" * 201, cursor="!")
    check_status("/jobs", 422, owner="ada", error_code="E")
    for path in (SERIES, TYPES):
        check_status(path, 422, **{"from": "x"})
    check_status("/jobs/{job_id}", 403)
    check_status("/job", 403, id="never")
    check_status("/job", 422)
    answer = api.get_as_admin("/jobs/a/b")
    assert answer.status_code == 403
    check_answer(document, "/jobs/{job_id}", answer)
    limited_api = Api(create_app(make_settings(rate_limit="1/hour"), watched.client))
    check_status(STATS, 200, limited_api)
    check_status(STATS, 429, limited_api)

    def make_failing(fault: Exception) -> Callable[..., Any]:
        def fail(*_: Any, **__: Any) -> Any:
            raise fault

        return fail

    monkeypatch.setattr(RollupReader, "progress", lambda _: None)
    check_status(SERIES, 503, **{"from": (NOW - timedelta(hours=8)).isoformat()})
    monkeypatch.setattr(
        LiveStats, "_counts_by_status_and_type", make_failing(ExecutionTimeout("x", 50))
    )
    check_status(STATS, 200)  # with an estimate
    monkeypatch.setattr(JobStore, "get_job", make_failing(AutoReconnect("x")))
    check_status("/jobs/{job_id}", 503)
    monkeypatch.setattr(StatsReader, "stats", make_failing(RuntimeError("x")))
    check_status(STATS, 500)
    app = create_app(
        make_settings(mongo_uri="mongodb://127.0.0.1:1/x", server_selection_timeout_ms=50)
    )
    check_status("/readyz", 503, Api(app))
    app.extensions["jobmon_connection"].client.close()


def test_docs_page_needs_no_token_has_a_strict_policy_and_explains_missing_assets(
    api: Api,
    watched: Any,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    answer = api.get("/docs")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    )
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    monkeypatch.setattr("jobmon.dashboard.assets.FOLDER", tmp_path)
    text = Api(create_app(make_settings(), watched.client)).get("/docs").text
    assert "make assets" in text
    assert 'href="/openapi.json"' in text
    assert "swagger" not in text
