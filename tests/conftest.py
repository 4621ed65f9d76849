"""Fixtures: the service under test, in-memory databases, and databases on a real MongoDB server.

If the real server cannot start, the tests with the fixture `mongod` are skipped. In CI (if `CI` is
set) they fail, because a run without them proves little.
"""

import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import mongomock
import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from mongomock import filtering
from mongomock.filtering import TYPE_MAP
from pymongo import MongoClient
from pymongo.database import Database
from werkzeug.routing import Rule
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from jobmon.app import create_app
from jobmon.collector import changes, history_writer
from jobmon.demo.mongod import Mongod, MongodUnavailableError
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

from .support.commands import database_uri
from .support.preloaded import stop_server
from .support.processes import adopt_orphans, await_no_descendants
from .support.waiting import PATIENCE_S

# BSON types that mongomock does not know. Queries name them, but no value in the tests has them.
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
    """`$type` of mongomock accepts only one type; MongoDB also accepts a list."""
    names = types if isinstance(types, list) else [types]
    return any(_has_type(value, name, **options) for name in names)


filtering._filterer_inst._operator_map["$type"] = _has_any_type

# A collector in the tests' process has shorter pauses, because tests wait for its counts.
changes.POLL_PAUSE_S = changes.IDLE_POLL_PAUSE_S = 0.2
history_writer.MAX_PAUSE_S = 0.2

SECRET = "a shared secret that is long enough for every one of the HMAC algorithms"
# Yesterday, 03:00 UTC: in the past, and within the retained minutes of the history. The main
# process sets the date for the parallel ones, so that all have the same date even at midnight.
DATE = os.environ.setdefault("TESTS_DATE", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
NOW = datetime.fromisoformat(f"{DATE}T03:00Z")
NEXT_DATE = f"{NOW + timedelta(days=1):%Y-%m-%d}"
# Write .pyc files, so that the processes that tests start do not compile the same modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Hide this module: with it, jsonschema compiles 38 grammars for formats that no schema here has,
# which takes seconds in each process.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]


class CompiledTemplates(BytecodeCache):
    """Keeps compiled templates for all apps of the process: most tests create a new app."""

    def __init__(self) -> None:
        self._code_by_key: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._code_by_key.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code_by_key[bucket.key] = bucket.bytecode_to_string()


Flask.jinja_options = {"bytecode_cache": CompiledTemplates()}

_compile_builder = Rule._compile_builder
_builders: dict[Any, Any] = {}


def _compile_builder_once(rule: Rule, append_unknown: bool = True) -> Any:
    """Compile each URL builder once in this process: this takes half the time of `create_app`."""
    assert not rule.defaults
    key = rule.rule, tuple(rule._trace), append_unknown
    if key not in _builders:
        _builders[key] = _compile_builder(rule, append_unknown)
    return _builders[key]


Rule._compile_builder = _compile_builder_once  # type: ignore[method-assign]


# No time limit for an example: its duration depends on the machine.
# 40 examples instead of 100: most tests that draw examples also have tables of the odd ones.
hypothesis.settings.register_profile(
    "local",
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# In CI Hypothesis does not shrink a failing example: on a real server that can take minutes. Every
# run has the same examples, so that a new failure comes from a change of the code.
hypothesis.settings.register_profile(
    "ci",
    hypothesis.settings.get_profile("local"),
    derandomize=True,
    database=None,
    print_blob=True,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


MEMORY_FOLDER, NEEDED_BYTES = Path("/dev/shm"), 8 * 2**30

# Files and folders of tests, the slowest first.
SLOWEST_PATHS = (
    "tests/e2e/test_browser.py",
    "tests/e2e/test_readonly.py",
    "tests/collector/test_collector.py",
    "tests/e2e/test_serving.py",
    "tests/test_documentation.py",
    "tests/store/test_queries.py",
    "tests/store/test_cursor.py",
    "tests/e2e/",
    "tests/fuzz/",
    "tests/setup/",
    "tests/adapters/",
    "tests/collector/",
    "tests/rollup/",
    "tests/api/test_openapi_tools.py",
    "tests/store/",
)


def _find_position(item: pytest.Item) -> int:
    """The sort key of a test: the index of its path. `--no-loadscope-reorder` keeps this order."""
    return next(
        (index for index, path in enumerate(SLOWEST_PATHS) if item.nodeid.startswith(path)),
        len(SLOWEST_PATHS),
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In a run without `long` tests, do not import the files that have only such tests.

    Each of the parallel processes would import these files, which takes three seconds of CPU.
    """
    if collection_path.suffix != ".py" or "not long" not in config.getoption("markexpr"):
        return None
    return "\npytestmark = pytest.mark.long\n" in collection_path.read_text() or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The slowest files first, so that the parallel processes end at about the same time.
    items.sort(key=_find_position)
    for item in items:
        if "mongod" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


def pytest_collection_finish() -> None:
    """Exclude modules and tests from garbage collection: they live as long as the process.

    Collect the rest rarely: an app has so many objects that Python would collect for each one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session", autouse=True)
def _check_no_process_is_left() -> Iterator[None]:
    """Fail if a process outlives the tests. This fixture starts first, so it ends last."""
    adopt_orphans()
    yield
    stop_server()
    running = await_no_descendants(PATIENCE_S)
    assert not running, f"processes still run: {running}"


@pytest.fixture(scope="session", autouse=True)
def _remove_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the databases of servers in the temporary folder, even after a failed test.

    The servers' logs are kept.
    """
    yield
    for path in tmp_path_factory.getbasetemp().rglob("*"):
        if path.suffix == ".wt" or path.name.startswith("WiredTiger"):
            path.unlink()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the session's MongoDB server: in memory if 8 GiB are free, for fast writes."""
    if not MEMORY_FOLDER.is_dir() or shutil.disk_usage(MEMORY_FOLDER).free < NEEDED_BYTES:
        yield tmp_path_factory.mktemp("mongod")
        return
    for old_folder in MEMORY_FOLDER.glob("jobmon-tests-*"):  # tests that were killed leave folders
        if not Path(f"/proc/{old_folder.name.split('-')[2]}").exists():
            shutil.rmtree(old_folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"jobmon-tests-{os.getpid()}-", dir=MEMORY_FOLDER))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mongod(data_folder: Path) -> Iterator[Mongod]:
    """A real MongoDB server for the whole session: a replica set of one member."""
    try:
        # Test commands let a test delay or refuse commands (failCommand).
        parameters = ("enableTestCommands=1", "ttlMonitorSleepSecs=1")
        options = tuple(f"--setParameter={parameter}" for parameter in parameters)
        server = Mongod(data_folder, options=options).start()
    except MongodUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real MongoDB server: {error}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mongo(mongod: Mongod) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of the real server, with all rights."""
    options: dict[str, Any] = {"tz_aware": True, "datetime_conversion": "DATETIME_AUTO"}
    with MongoClient[dict[str, Any]](mongod.uri, **options) as client:
        yield client


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """An empty database on the real server; afterwards it and jobmon's own are dropped."""
    database = mongo[f"test_{uuid.uuid4().hex}"]
    yield database
    for suffix in ("", "_rollups", "_state"):
        mongo.drop_database(f"{database.name}{suffix}")


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """A function that creates settings; its arguments replace the tests' default values."""

    def make(**changes: Any) -> Settings:
        defaults = {"mongo_uri": "mongodb://127.0.0.1/watched", "jwt_secret_key": SECRET}
        return Settings(**(defaults | {"stats_ttl_ms": 0} | changes))

    return make


class Api:
    """Sends requests to an app in this process, with the tokens of any subject and role."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client: FlaskClient = app.test_client()

    def token(self, subject: str = "root", role: str = "admin", seconds: int = 3_600) -> str:
        with self.app.app_context():
            return issue_token(subject, role, timedelta(seconds=seconds))

    def get(self, path: str, *, token: str | None = None, **query: Any) -> TestResponse:
        """Send a GET request with `token`, or without a token; `query` has the parameters."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self.client.get(path, query_string=query, headers=headers)

    def get_as_admin(self, path: str, **query: Any) -> TestResponse:
        return self.get(path, token=self.token(), **query)

    def get_as_owner(self, path: str, subject: str, **query: Any) -> TestResponse:
        return self.get(path, token=self.token(subject, "user"), **query)


def _ignore_unsupported_options(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method ignore what mongomock does not support: comment, collation, hint of `find`."""

    def call(*arguments: Any, **options: Any) -> Any:
        options.pop("comment", None)
        options.pop("collation", None)
        if method.__name__ == "find":
            options.pop("hint", None)
        return method(*arguments, **options)

    return call


_command = mongomock.Database.command


def _answer_hello(database: Any, command: Any, **options: Any) -> Any:
    """mongomock does not support hello: answer as a standalone server does."""
    return {"ok": 1.0} if command == "hello" else _command(database, command, **options)


mongomock.Database.command = _answer_hello


for name in ("find", "count_documents", "estimated_document_count"):
    setattr(
        mongomock.Collection, name, _ignore_unsupported_options(getattr(mongomock.Collection, name))
    )


_aggregate = mongomock.Collection.aggregate


def _aggregate_with_lookup(collection: Any, pipeline: list[dict[str, Any]], **options: Any) -> Any:
    """mongomock does not support a pipeline in $lookup: run it here, if it is in the last stage."""
    options = {"session": None}
    *stages, last_stage = pipeline or [{}]
    if "pipeline" not in (lookup := last_stage.get("$lookup", {})):
        return _aggregate(collection, pipeline, **options)
    joined = collection.database[lookup["from"]]
    return [
        document | {lookup["as"]: list(_aggregate(joined, lookup["pipeline"], **options))}
        for document in _aggregate(collection, stages, **options)
    ]


mongomock.Collection.aggregate = _aggregate_with_lookup


_with_options = mongomock.Collection.with_options


def _ignore_codec(collection: Any, codec_options: Any = None, **options: Any) -> Any:
    """mongomock does not support `codec_options`: it has no BSON to decode."""
    return _with_options(collection, **options) if options else collection


mongomock.Collection.with_options = _ignore_codec


def _answer_explain(method: Callable[..., Any]) -> Callable[..., Any]:
    """mongomock does not support explain: answer with a plan that uses a multikey index."""
    plan = {"multiKeyPaths": {name: [name] for name in ("createdAt", "createdBy")}}

    def answer(database: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(command, dict) and "explain" in command:
            return {"queryPlanner": {"winningPlan": plan}}
        return method(database, command, *arguments, **options)

    return answer


mongomock.Database.command = _answer_explain(mongomock.Database.command)


@pytest.fixture
def watched() -> Database[dict[str, Any]]:
    """The empty in-memory database that `api` watches."""
    client = mongomock.MongoClient("mongodb://127.0.0.1/watched", tz_aware=True)
    return client.get_default_database()


@pytest.fixture
def api(watched: Database[dict[str, Any]], make_settings: Callable[..., Settings]) -> Api:
    """The service over `watched`."""
    return Api(create_app(make_settings(), watched.client))


@pytest.fixture(scope="session")
def idle_api() -> Api:
    """A service over an empty database. All tests share both, so a test must not change them."""
    settings = Settings(mongo_uri="mongodb://127.0.0.1/idle", jwt_secret_key=SECRET, stats_ttl_ms=0)
    return Api(create_app(settings, mongomock.MongoClient(settings.mongo_uri, tz_aware=True)))


@pytest.fixture
def real_api(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Api]:
    """The service over `database` on the real server, with a connection of its own."""
    uri = database_uri(mongod, database)
    app = create_app(make_settings(mongo_uri=uri))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@contextmanager
def unconfigured_log() -> Iterator[None]:
    """Remove the root logger's handlers during the block, as if no log were configured."""
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
    """Serve an app over HTTP in a thread; yields its URL without a path."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
