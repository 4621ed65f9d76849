"""What the tests share: the service under test, and databases, make-believe and real.

The real server is the wheel's mongod. Where it cannot run, the tests marked `real` are skipped by
name; in CI (`CI=true`) they fail, because a suite without them proves little.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import mongomock
import pytest
from flask import Flask
from flask.testing import FlaskClient
from mongomock import filtering
from mongomock.filtering import TYPE_MAP
from pymongo import MongoClient
from pymongo.database import Database
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod, MongodUnavailableError
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

from .support.processes import adopt_orphans, await_no_descendants

# Types that no document in mongomock can have, but that a query may ask for.
TYPE_MAP.update(
    dict.fromkeys(
        (
            "regex",
            "timestamp",
            "dbPointer",
            "javascript",
            "javascriptWithScope",
            "symbol",
            "maxKey",
        ),
        lambda _: False,
    )
)

_has_type = filtering._type_op


def _has_any_type(value: Any, types: Any, **options: Any) -> bool:
    """mongomock knows no list of types."""
    each = types if isinstance(types, list) else [types]
    return any(_has_type(value, one, **options) for one in each)


filtering._filterer_inst._operator_map["$type"] = _has_any_type

SECRET = "a shared secret that is long enough for every one of the HMAC algorithms"
# Yesterday's: past for every writer, and still kept by the minute. The first process of a run
# decides, so that the others agree with it when midnight passes.
DATE = os.environ.setdefault("TESTS_DATE", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
NOW = datetime.fromisoformat(f"{DATE}T03:00Z")
# A hundred processes are started: the first one keeps what it has compiled for the others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
NEXT_DATE = f"{NOW + timedelta(days=1):%Y-%m-%d}"


# A failing example is shown as it was found: to shrink it can take minutes on a real server. The
# same examples at every run, so that a failure is one of the change that is tested.
hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


LONGEST = (
    "tests/e2e/test_browser.py",
    "tests/e2e/test_faults.py",
    "tests/test_documentation.py",
    "tests/e2e/test_serving.py",
    "tests/api/test_openapi_tools.py",
    "tests/e2e/test_stack.py",
    "tests/e2e/test_slow_clients.py",
    "tests/fuzz/test_fuzz.py",
    "tests/setup/",
    "tests/e2e/",
    "tests/adapters/",
)


def _turn(item: pytest.Item) -> int:
    """When a test's file is begun. (`--no-loadscope-reorder` keeps xdist from changing it.)"""
    turns = (turn for turn, start in enumerate(LONGEST) if item.nodeid.startswith(start))
    return next(turns, len(LONGEST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest files first: the processes then end at about the same time.
    items.sort(key=_turn)
    for item in items:
        if "mongod" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """The first fixture, hence the last to end: no process outlives the tests that started it."""
    adopt_orphans()
    yield
    left = await_no_descendants(within_s=10)
    assert not left, f"these processes were left behind: {left}"


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A real MongoDB server, a one-member replica set, for the whole session."""
    try:
        # Test commands let a test make the server slow at will (failCommand).
        parameters = ("enableTestCommands=1", "ttlMonitorSleepSecs=1")
        options = tuple(f"--setParameter={parameter}" for parameter in parameters)
        server = Mongod(tmp_path_factory.mktemp("mongod"), options=options).start()
    except MongodUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real MongoDB server: {error}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mongo(mongod: Mongod) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of the real server that reads and writes."""
    options: dict[str, Any] = {"tz_aware": True, "datetime_conversion": "DATETIME_AUTO"}
    with MongoClient[dict[str, Any]](mongod.uri, **options) as client:
        yield client


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """An empty database of this test's own on the real server."""
    database = mongo[f"test_{uuid.uuid4().hex}"]
    yield database
    mongo.drop_database(database.name)


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """Settings for a test: those of a small installation, less or more what is given."""

    def make(**given: Any) -> Settings:
        defaults = {"mongo_uri": "mongodb://127.0.0.1/watched", "jwt_secret_key": SECRET}
        return Settings(**(defaults | {"stats_ttl_ms": 0} | given))

    return make


class Api:
    """The service as callers see it, each with a token of its own."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client: FlaskClient = app.test_client()

    def token(self, subject: str = "root", role: str = "admin", seconds: int = 3_600) -> str:
        with self.app.app_context():
            return issue_token(subject, role, timedelta(seconds=seconds))

    def get(self, path: str, *, token: str | None = None, **query: Any) -> TestResponse:
        """GET with exactly this token, or none."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self.client.get(path, query_string=query, headers=headers)

    def as_admin(self, path: str, **query: Any) -> TestResponse:
        return self.get(path, token=self.token(), **query)

    def as_owner(self, path: str, subject: str, **query: Any) -> TestResponse:
        return self.get(path, token=self.token(subject, "user"), **query)


def _without_marks(method: Callable[..., Any]) -> Callable[..., Any]:
    """mongomock knows no hint of a find, no comment and no collation."""

    def unmarked(*arguments: Any, **options: Any) -> Any:
        options.pop("comment", None)
        options.pop("collation", None)
        if method.__name__ == "find":
            options.pop("hint", None)
        return method(*arguments, **options)

    return unmarked


_command = mongomock.Database.command


def _commanded(database: Any, command: Any, **options: Any) -> Any:
    """mongomock knows no hello: it is a standalone server."""
    return {"ok": 1.0} if command == "hello" else _command(database, command, **options)


mongomock.Database.command = _commanded


for name in ("find", "count_documents", "estimated_document_count"):
    setattr(mongomock.Collection, name, _without_marks(getattr(mongomock.Collection, name)))


def _without_plans(method: Callable[..., Any]) -> Callable[..., Any]:
    """Nor does it explain: as if an index with arrays served it, under the simple collation."""
    plan = {"multiKeyPaths": {name: [name] for name in ("createdAt", "createdBy")}}

    def answer(database: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(command, dict) and "explain" in command:
            return {"queryPlanner": {"winningPlan": plan}}
        return method(database, command, *arguments, **options)

    return answer


mongomock.Database.command = _without_plans(mongomock.Database.command)


@pytest.fixture
def watched() -> Database[dict[str, Any]]:
    """An empty make-believe database, the one that `api` watches."""
    client = mongomock.MongoClient("mongodb://127.0.0.1/watched", tz_aware=True)
    return client.get_default_database()


@pytest.fixture
def api(watched: Database[dict[str, Any]], make_settings: Callable[..., Settings]) -> Api:
    """The service over `watched`."""
    return Api(create_app(make_settings(), watched.client))


@pytest.fixture
def real_api(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Api]:
    """The service over `database`, on the real server, connected as in production."""
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    app = create_app(make_settings(mongo_uri=uri))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@contextmanager
def unconfigured_log() -> Iterator[None]:
    """A root logger without handlers, as in a process that has not configured its log."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


@contextmanager
def serve_over_http(app: Flask) -> Iterator[str]:
    """Serve an app by HTTP from a thread of the test's own; where it listens."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
