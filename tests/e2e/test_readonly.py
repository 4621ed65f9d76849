"""jobmon on a MongoDB server with TLS, as users without the right to write to the queue's database.

Catches an attempt or a right to write to that database, a connection that falls back to plain text,
and a password in the log.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.demo.workload import run_workload
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.setup.replica_set import start_replica_set
from jobmon.setup.users import (
    OwnDatabaseNames,
    QueueRoles,
    User,
    UserKind,
    create_roles,
    create_users,
)
from jobmon.store.connection import Connection

from ..api import test_access as access
from ..api.test_queue_metrics import find_value, parse_samples
from ..conftest import Api
from ..support.certificates import Authority
from ..support.pages import PART
from ..support.waiting import eventually

WATCHED, ROLLUP, STATE = "shop", "jobmon_rollups", "jobmon_state"
COLLECTIONS = ("jobs", "job_attempts")
ROLES = QueueRoles(WATCHED, COLLECTIONS, OwnDatabaseNames(ROLLUP, STATE))
# Paths that begin with one of these get 503 if there is no collector.
NEED_COLLECTOR = ("/admin/jobs/errors", "/admin/jobs/slowest", "/dashboard/errors/")
PASSWORDS = {"reader": "the-readers-password", "collector": "the-collectors-password"}
# Users that an operator created without `jobmon init`, and their roles.
NARROW_USERS: dict[str, Any] = {
    "find_only": [{"role": "find_only", "db": WATCHED}],
    "read_role": [{"role": "read", "db": WATCHED}],
    "no_roles": [],
    "jobs_only": [{"role": "jobs_only", "db": WATCHED}],
}
ROOT_PASSWORD = "the-roots-password"
UNAUTHORIZED = 13  # the server's error code


class SecureServer:
    """A MongoDB server that requires TLS and a user, and the connection strings of its users."""

    def __init__(self, mongod: Mongod, authority: Authority, other_authority: Authority) -> None:
        self.mongod = mongod
        self.authority = authority
        self.other_authority = other_authority
        self.certificate, self.subject = authority.issue("monitor")  # of a user without a password

    def build_uri(self, user: str, password: str | None = None, **options: str) -> str:
        password = password or PASSWORDS.get(
            user, ROOT_PASSWORD if user == "root" else f"{user}-password"
        )
        source = "admin" if user == "root" else WATCHED
        return self._build_uri(f"{user}:{password}@", authSource=source, **options)

    def build_certificate_uri(self, file: Path) -> str:
        options = {"authMechanism": "MONGODB-X509", "authSource": "%24external"}
        return self._build_uri("", tlsCertificateKeyFile=str(file), **options)

    def _build_uri(self, user: str, **options: str) -> str:
        options = {"tls": "true", "tlsCAFile": str(self.authority.file)} | options
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"mongodb://{user}{self.mongod.address}/{WATCHED}?replicaSet=rs0&{query}"

    def connect_as_root(self, **options: Any) -> MongoClient[dict[str, Any]]:
        return MongoClient(self.build_uri("root"), tz_aware=True, **options)


@pytest.fixture(scope="module")
def server(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    """A server with the users of docs/security.md and of `NARROW_USERS`; it requires TLS."""
    folder = tmp_path_factory.mktemp("guarded")
    authority, other_authority = Authority("ours", folder), Authority("stranger", folder)
    key = folder / "replica.key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    options = ["--keyFile", str(key), "--tlsMode", "preferTLS"]
    options += ["--tlsCertificateKeyFile", str(authority.issue("server")[0])]
    options += ["--tlsCAFile", str(authority.file), "--tlsAllowConnectionsWithoutCertificates"]
    with Mongod(folder / "data", initiate=False, options=tuple(options)) as process:
        with MongoClient[dict[str, Any]](process.address, directConnection=True) as local:
            start_replica_set(local, f"rs0/{process.address}")
            local.admin.command("createUser", "root", pwd=ROOT_PASSWORD, roles=["root"])
        server = SecureServer(process, authority, other_authority)
        with server.connect_as_root() as root:
            users = [
                User(name=name, password=password, kind=UserKind(name))
                for name, password in PASSWORDS.items()
            ]
            assert len([*create_roles(root, ROLES), *create_users(root, ROLES, users)]) == 4
            role = {"role": ROLES.name(UserKind.READER), "db": "admin"}
            root["$external"].command("createUser", server.subject, roles=[role])
            for name, collections in (("find_only", COLLECTIONS), ("jobs_only", COLLECTIONS[:1])):
                privileges = [
                    {"resource": {"db": WATCHED, "collection": collection}, "actions": ["find"]}
                    for collection in collections
                ]
                root[WATCHED].command("createRole", name, privileges=privileges, roles=[])
            for name, roles in NARROW_USERS.items():
                root[WATCHED].command("createUser", name, pwd=f"{name}-password", roles=roles)
            create_indexes(Connection(Settings(mongo_uri=server.build_uri("root")), root))
            root.admin.command("setParameter", 1, tlsMode="requireTLS")
        yield server


@contextmanager
def serve(settings: Settings) -> Iterator[Api]:
    app = create_app(settings)
    try:
        yield Api(app)
    finally:
        app.extensions["jobmon_connection"].client.close()


def request_with_parameters(api: Api, ranges: tuple[str, ...]) -> None:
    """Request the GET routes, also with the parameters that change their queries."""
    tokens = {"admin": api.token(), "owner": api.token("alice", "user")}

    def get(path: str, role: str = "admin") -> Any:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        # A part of a page has the same queries and is cheaper to render.
        answer = api.client.get(path, headers=headers | (PART if "?" in path else {}))
        # No job or file has one of these names; `test_access` has paths of the job `adas`.
        is_missing = "nothing" in path or "none" in path or "adas" in path
        is_uncounted = answer.status_code == 503 and path.startswith(NEED_COLLECTOR)
        assert answer.status_code < 400 or is_missing or is_uncounted, path
        assert answer.data is not None  # reads a stream completely
        return answer

    jobs = get("/admin/jobs/queue?per_page=1").json
    job_id = jobs["data"][0]["jobId"]
    routes = access.ANYONE_ROUTES | access.SIGNED_IN_ROUTES | access.ADMIN_ROUTES
    routes |= access.PAGES_OF_SIGNED_IN | access.PAGES_OF_ADMINS
    for path in routes.values():
        get(path)
    for path in ("/jobs", "/dashboard", "/dashboard/my", "/jobs?format=csv"):
        get(path, "owner")
    for path in (*access.OWNER_ROUTES.values(), *access.PAGES_OF_OWNERS.values()):
        get(path.format(job_id))
        get(path.format("none"))
        get(path.format("none"), "owner")
    for path in ("/admin/jobs/neighbors", "/job/neighbors"):
        get(f"{path}?id={job_id}")
    for query in (
        "status=queued",
        "status=queued&type=email.send",
        "type=email.send&sort=createdAt",
        "owner=alice",
        "owner=alice&status=dlq",
        "error_code=E",
        "worker=worker-1",
        f"job_id={job_id[:6]}",
        "created_from=1999-01-01&sort=createdAt",
        "finished_from=1999-01-01&finished_to=2999-01-01",
        "page=2&per_page=1",
        f"cursor={jobs['meta']['next_cursor']}&per_page=1",
        "format=csv",
        "format=ndjson&sort=createdAt",
    ):
        get(f"/admin/jobs/queue?{query}")
        get(f"/dashboard/jobs?{query}".replace("per_page=1", ""))
    for query in ("", "?type=email.send", "?step=600"):
        get(f"/admin/jobs/timeseries{query}")
    for query in ("?worker=worker-1", "?type=email.send&sort=-attempts"):
        get(f"/admin/jobs/workers{query}")
        get(f"/dashboard/workers{query}")
    for window in ranges:
        get(f"/dashboard/overview?range={window}")
        get(f"/dashboard/charts?range={window}")
        get(f"/dashboard/overview?range={window}&compare=previous")
        get(f"/dashboard/charts?range={window}&compare=previous")


def list_paths(api: Api, job_id: str) -> dict[str, list[str]]:
    """A path of each GET and POST route, by method; KeyError for an unknown route parameter."""
    values = {"job_id": job_id, "name": "jobmon.css", "version": "0", "_path": "nothing"}
    values["group_id"] = "(other)"
    by_id = ("/job", "/job/neighbors", "/admin/jobs/neighbors", "/dashboard/job")
    queries = dict.fromkeys(by_id, f"?id={job_id}")
    by_method: dict[str, list[str]] = {"GET": [], "POST": []}
    for rule in api.app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: values[match[1]], rule.rule)
        for method in by_method.keys() & (rule.methods or set()):
            by_method[method].append(path + queries.get(path, ""))
    return by_method


def read_highest_statuses(api: Api) -> dict[str, int]:
    """The highest HTTP status of each path for an admin; pages are requested whole and as parts."""
    token = api.token()
    headers = {"Authorization": f"Bearer {token}"}
    job_id = api.get_as_admin("/admin/jobs/queue", per_page=1).json["data"][0]["jobId"]
    paths = list_paths(api, job_id)
    answers = [
        (path, api.client.get(path, headers=headers | part_header))
        for path in paths["GET"]
        for part_header in ({}, PART)
    ]
    answers += [(path, api.client.post(path, data={"token": token})) for path in paths["POST"]]
    highest_statuses: dict[str, int] = {}
    for path, answer in answers:
        assert answer.data is not None  # reads a stream completely
        highest_statuses[path] = max(highest_statuses.get(path, 0), answer.status_code)
    assert highest_statuses.pop("/dashboard/nothing") == 404
    return highest_statuses


# The pairs (operation, command) that the profiler may record of jobmon.
READS = {
    ("query", "find"),
    ("getmore", "getMore"),
    ("command", "aggregate"),
    ("command", "count"),
    ("command", "explain"),
    ("command", "killCursors"),
    ("killcursors", "killCursors"),
}


def get_operation_and_command(entry: Mapping[str, Any]) -> tuple[str, str]:
    command = entry.get("command") or {}
    return entry["op"], next(iter(command), "")


def list_stages(entry: Mapping[str, Any]) -> set[str]:
    pipelines = [
        (entry.get(name) or {}).get("pipeline", []) for name in ("command", "originatingCommand")
    ]
    return {stage for pipeline in pipelines for step in pipeline for stage in step}


def read_refusals(mongod: Mongod) -> list[str]:
    """The messages of refused operations in the server's log: the profiler does not record them."""
    lines = (mongod.data / "mongod.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if "Checking authorization failed" in line]
    return [entry["attr"]["error"]["errmsg"] for entry in entries]


@contextmanager
def profile(root: MongoClient[dict[str, Any]], name: str) -> Iterator[None]:
    """Let the profiler record every operation on this database during the block."""
    root[name].command("profile", 0)
    root[name].drop_collection("system.profile")
    root[name].create_collection("system.profile", capped=True, size=200_000_000)
    root[name].command("profile", 2)
    try:
        yield
    finally:
        root[name].command("profile", 0)


def test_service_and_collector_never_try_to_write_to_the_watched_database(
    server: SecureServer, make_settings: Callable[..., Settings]
) -> None:
    web_settings = make_settings(mongo_uri=server.build_uri("reader"))
    collector_settings = make_settings(mongo_uri=server.build_uri("collector"))
    with server.connect_as_root(appname="jobmon") as root, run_workload(server.build_uri("root")):
        eventually(lambda: root[WATCHED].jobs.count_documents({}) > 100)
        refusals_before = read_refusals(server.mongod)
        with profile(root, WATCHED), profile(root, ROLLUP), serve(web_settings) as api:
            request_with_parameters(api, ("1h",))  # counted live
            with collecting(collector_settings):
                stats, series = "/admin/jobs/stats", "/admin/jobs/timeseries"
                eventually(lambda: api.get_as_admin(stats).json["source"] == "rollup")
                eventually(lambda: api.get_as_admin(series).json["meta"]["source"] == "rollup")
                request_with_parameters(api, ("1h", "30d"))
            assert read_refusals(server.mongod) == refusals_before
            # A write and a refused write, which must be recorded: else this test could not fail.
            root[WATCHED].jobs.update_one({"_id": "control"}, {"$set": {"status": "dlq"}})
            with (
                MongoClient(server.build_uri("reader"), appname="jobmon") as reader,
                pytest.raises(OperationFailure, match="not authorized"),
            ):
                reader[WATCHED].jobs.insert_one({})
            refusals = eventually(lambda: read_refusals(server.mongod)[len(refusals_before) :])
            assert len(refusals) == 1
            assert "insert" in refusals[0]
            queue_entries = list(root[WATCHED]["system.profile"].find({"appName": "jobmon"}))
            rollup_entries = list(root[ROLLUP]["system.profile"].find({"appName": "jobmon"}))
    by_user = {
        user: [entry for entry in queue_entries if user in entry["user"]] for user in PASSWORDS
    }
    assert {entry["op"] for entry in queue_entries if entry["user"] == "root@admin"} >= {"update"}
    assert all(len(entries) > 20 for entries in by_user.values())
    for user, entries in by_user.items():
        operations = {get_operation_and_command(entry) for entry in entries}
        assert operations <= READS, (user, operations - READS)
        stages = {stage for entry in entries for stage in list_stages(entry)}
        assert not {"$out", "$merge"} & stages
    # The service also reads jobmon's own database; only the collector writes to it.
    by_reader = {
        get_operation_and_command(entry) for entry in rollup_entries if "reader" in entry["user"]
    }
    by_collector = {entry["op"] for entry in rollup_entries if "collector" in entry["user"]}
    assert by_reader <= READS
    assert by_reader
    assert {"insert", "update"} <= by_collector


def read_samples(api: Api, source: str) -> list[dict[str, int]]:
    """The counts by status of each sampled step of the last hour."""
    series = api.get_as_admin("/admin/jobs/timeseries").json
    assert series["meta"]["source"] == source
    return [step["statusCounts"] for step in series["data"] if step["statusCounts"] is not None]


# Users of a web service, and whether each may read jobmon's own databases.
READS_ROLLUP_BY_USER = {"find_only": False, "read_role": False, "reader": True, "collector": True}


@pytest.mark.parametrize("has_collector", [False, True], ids=["no collector", "collector"])
def test_every_route_works_for_every_documented_user(
    server: SecureServer, make_settings: Callable[..., Settings], *, has_collector: bool
) -> None:
    """Catches a route that fails for a user who cannot read jobmon's own databases."""
    collector_settings = make_settings(mongo_uri=server.build_uri("collector"))
    with ExitStack() as cleanup:
        root = cleanup.enter_context(server.connect_as_root())
        with run_workload(server.build_uri("root")):
            eventually(lambda: root[WATCHED].jobs.count_documents({}) > 20)
        root.drop_database(ROLLUP)
        apis = {
            user: cleanup.enter_context(serve(make_settings(mongo_uri=server.build_uri(user))))
            for user in READS_ROLLUP_BY_USER
        }
        if has_collector:
            cleanup.enter_context(collecting(collector_settings))
            reader = apis["reader"]
            eventually(lambda: reader.get_as_admin("/admin/jobs/stats").json["source"] == "rollup")
            series = "/admin/jobs/timeseries"
            eventually(lambda: reader.get_as_admin(series).json["meta"]["source"] == "rollup")
        for user, reads_rollups in READS_ROLLUP_BY_USER.items():
            api = apis[user]
            source = "rollup" if has_collector and reads_rollups else "live"
            # All routes as the user with the fewest rights that has this source; the test above
            # requests the live ones as the reader.
            if user == ("reader" if has_collector else "find_only"):
                failures = {
                    path: status
                    for path, status in read_highest_statuses(api).items()
                    if status >= 400
                }
                uncounted = {path for path in failures if path.startswith(NEED_COLLECTOR)}
                assert failures == (dict.fromkeys(uncounted, 503) if source == "live" else {}), user
            if user == "find_only" and not has_collector:
                request_with_parameters(api, ("1h",))
            assert api.get_as_admin("/admin/jobs/stats").json["source"] == source
            marks = api.get_as_admin("/admin/jobs/timeseries").json["meta"]["marks"]
            assert marks == ([] if reads_rollups else None)
            read_counts = partial(read_samples, api, source)
            # Without a collector the samples are null, not the zeros of an empty queue.
            assert eventually(read_counts) if source == "rollup" else not read_counts()
            checks = api.get("/readyz").json["checks"]
            assert checks["database"]["isReadable"] is True
            assert checks["rollup"]["isFresh"] is (source == "rollup")
            assert ("cannot read" in checks["rollup"].get("reason", "")) == (not reads_rollups)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("no_roles", None, "not authorized to read jobs, job_attempts"),
        ("jobs_only", None, "not authorized to read job_attempts"),
        ("reader", "not-the-password", "authentication failed"),
    ],
)
def test_readyz_is_503_with_the_reason_if_the_watched_collections_cannot_be_read(
    server: SecureServer,
    make_settings: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
    user: str,
    password: str | None,
    reason: str,
) -> None:
    with serve(make_settings(mongo_uri=server.build_uri(user, password))) as api:
        answer = api.get("/readyz")
        metrics = parse_samples(api.get_as_admin("/metrics").text)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    error = answer.json["error"]
    assert (error["code"], error["details"]) == ("database_unavailable", {"database": [reason]})
    for secret in ("mongodb://", "password", server.mongod.address, user):
        assert secret not in answer.text
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert reason in lines[0]
    assert find_value(metrics, "jobmon_database_readable") == 0


Command = Callable[[MongoClient[dict[str, Any]]], object]


def command(*arguments: Any, on: str = WATCHED, **options: Any) -> Command:
    """A function that sends this command to the database `on`."""
    return lambda client: client[on].command(*arguments, **options)


WRITING_STAGES = [
    {"$out": "stolen"},
    {"$out": {"db": "other", "coll": "stolen"}},
    {"$merge": "jobs"},
]
FORBIDDEN: dict[str, Command] = {
    "insert": command("insert", "jobs", documents=[{"jobId": "planted"}]),
    "update": command(
        "update", "jobs", updates=[{"q": {}, "u": {"$set": {"a": 1}}, "multi": True}]
    ),
    "replace": command("update", "jobs", updates=[{"q": {}, "u": {"a": 1}}]),
    "upsert": command("update", "jobs", updates=[{"q": {"_id": 1}, "u": {"a": 1}, "upsert": True}]),
    "delete": command("delete", "jobs", deletes=[{"q": {}, "limit": 0}]),
    "findAndModify": command("findAndModify", "jobs", query={}, update={"$set": {"a": 1}}),
    "findAndRemove": command("findAndModify", "job_attempts", query={}, remove=True),
    "drop": command("drop", "jobs"),
    "dropDatabase": command("dropDatabase"),
    "create": command("create", "planted"),
    "view": command("create", "planted", viewOn="jobs", pipeline=[]),
    "createIndexes": command("createIndexes", "jobs", indexes=[{"key": {"a": 1}, "name": "a"}]),
    "dropIndexes": command("dropIndexes", "jobs", index="*"),
    "collMod": command("collMod", "jobs", validator={"a": 1}),
    "compact": command("compact", "jobs"),
    "reIndex": command("reIndex", "jobs"),
    "convertToCapped": command("convertToCapped", "jobs", size=1),
    "cloneCollectionAsCapped": command(
        "cloneCollectionAsCapped", "jobs", toCollection="planted", size=1_000
    ),
    "rename": command("renameCollection", f"{WATCHED}.jobs", to=f"{WATCHED}.gone", on="admin"),
    "applyOps": command("applyOps", [{"op": "d", "ns": f"{WATCHED}.jobs", "o": {}}], on="admin"),
    **{
        f"aggregate {stage}": command("aggregate", "jobs", pipeline=[stage], cursor={})
        for stage in WRITING_STAGES
    },
    "mapReduce": command(
        "mapReduce", "jobs", map="function(){}", reduce="function(){}", out="planted"
    ),
    "mapReduce merge": command(
        "mapReduce", "jobs", map="function(){}", reduce="function(){}", out={"merge": "jobs"}
    ),
    "createUser": command("createUser", "planted", pwd="x", roles=[]),
    "updateUser": command("updateUser", "reader", roles=["root"]),
    "grantRoles": command("grantRolesToUser", "reader", roles=[{"role": "root", "db": "admin"}]),
    "createRole": command("createRole", "planted", privileges=[], roles=[], on="admin"),
    "updateRole": command("updateRole", ROLES.name(UserKind.READER), roles=["root"], on="admin"),
    "profile": command("profile", 2),
    "setParameter": command("setParameter", 1, notablescan=True, on="admin"),
    "shutdown": command("shutdown", on="admin"),
    "fsync": command("fsync", 1, lock=True, on="admin"),
    "killAllSessions": command("killAllSessions", [], on="admin"),
    "stepDown": command("replSetStepDown", 1, on="admin"),
    "reconfig": command("replSetReconfig", {}, on="admin"),
    "other collection": command("find", "customers"),
    "other database": command("find", "jobs", on="other"),
    "users": command("find", "system.users", on="admin"),
    "profile's entries": command("find", "system.profile"),
    "oplog": command("find", "oplog.rs", on="local"),
    "whole database's changes": command(
        "aggregate", 1, pipeline=[{"$changeStream": {}}], cursor={}
    ),
    "rollup: drop": command("drop", "state", on=ROLLUP),
    "rollup: drop database": command("dropDatabase", on=ROLLUP),
    "rollup: rename": command(
        "renameCollection", f"{ROLLUP}.state", to=f"{ROLLUP}.gone", on="admin"
    ),
    "rollup: merge into the queue": command(
        "aggregate",
        "state",
        pipeline=[{"$merge": {"into": {"db": WATCHED, "coll": "jobs"}}}],
        cursor={},
        on=ROLLUP,
    ),
}
FORBIDDEN |= {
    f"state: {name} of {collection}": command(name, collection, on=STATE, **options)
    for collection in ("action_decisions", "action_progress", "action_outcomes", "action_leases")
    for name, options in (
        ("insert", {"documents": [{"kind": "requested"}]}),
        ("update", {"updates": [{"q": {}, "u": {"$set": {"a": 1}}, "upsert": True}]}),
        ("delete", {"deletes": [{"q": {}, "limit": 0}]}),
        ("drop", {}),
        ("createIndexes", {"indexes": [{"key": {"a": 1}, "name": "a"}]}),
    )
}
FORBIDDEN |= {
    "state: change mutes": command(
        "update", "notice_mutes", updates=[{"q": {}, "u": {"$set": {"a": 1}}}], on=STATE
    ),
    "state: end mutes": command(
        "delete", "notice_mutes", deletes=[{"q": {}, "limit": 0}], on=STATE
    ),
    "state: other collection": command("find", "planted", on=STATE),
    "state: drop database": command("dropDatabase", on=STATE),
    **{
        f"state: {stage} into requests": command(
            "aggregate", "state", pipeline=[{stage: into}], cursor={}, on=ROLLUP
        )
        for stage, into in (
            ("$merge", {"into": {"db": STATE, "coll": "action_decisions"}}),
            ("$out", {"db": STATE, "coll": "action_decisions"}),
        )
    },
}
FORBIDDEN_TO_READER = {
    "state: mute": command("insert", "notice_mutes", documents=[{}], on=STATE),
    "state: mark": command("insert", "marks", documents=[{}], on=STATE),
    "state: revoke": command("insert", "revoked_tokens", documents=[{}], on=STATE),
    "rollup: update": command("update", "state", updates=[{"q": {}, "u": {"a": 1}}], on=ROLLUP),
    "state: end revocations": command(
        "delete", "revoked_tokens", deletes=[{"q": {}, "limit": 0}], on=STATE
    ),
    "rollup: createIndexes": command(
        "createIndexes", "state", indexes=[{"key": {"a": 1}, "name": "a"}], on=ROLLUP
    ),
}


@pytest.mark.parametrize("user", [*PASSWORDS, "certificate"])
def test_the_server_refuses_every_write(server: SecureServer, user: str) -> None:
    commands = FORBIDDEN if user == "collector" else FORBIDDEN | FORBIDDEN_TO_READER
    uri = (
        server.build_certificate_uri(server.certificate)
        if user == "certificate"
        else server.build_uri(user)
    )
    with server.connect_as_root() as root, MongoClient[dict[str, Any]](uri) as client:
        if root[WATCHED].jobs.find_one({"jobId": "there"}) is None:
            root[WATCHED].jobs.insert_one({"jobId": "there"})
        before = root[WATCHED].command("dbHash")["collections"], root.list_database_names()
        assert client[WATCHED].jobs.count_documents({}) > 0
        outcomes = {}
        for name, send_command in commands.items():
            try:
                outcomes[name] = send_command(client)
            except OperationFailure as error:
                outcomes[name] = error.code
        assert outcomes == dict.fromkeys(commands, UNAUTHORIZED)
        assert (
            root[WATCHED].command("dbHash")["collections"],
            root.list_database_names(),
        ) == before


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "default", "certificate"])
def test_service_answers_over_tls_with_each_authentication_mechanism(
    server: SecureServer, make_settings: Callable[..., Settings], mechanism: str
) -> None:
    if mechanism == "certificate":
        uri = server.build_certificate_uri(server.certificate)
    else:
        uri = server.build_uri("reader", authMechanism="" if mechanism == "default" else mechanism)
    with serve(make_settings(mongo_uri=uri)) as api:
        assert api.get("/readyz").status_code == 200
        assert api.get_as_admin("/admin/jobs/queue").status_code == 200
        assert api.get_as_admin("/admin/jobs/stats").json["totalJobs"] >= 0


WRONG_URIS: dict[str, Callable[[SecureServer], str]] = {
    "another authority": lambda server: server.build_uri(
        "reader", tlsCAFile=str(server.other_authority.file)
    ),
    "the system's authorities": lambda server: server.build_uri("reader", tlsCAFile=""),
    "no TLS": lambda server: server.build_uri("reader", tls="false", tlsCAFile=""),
    "another password": lambda server: server.build_uri("reader", "not-the-password"),
    "no such user": lambda server: server.build_uri("somebody", "not-the-password"),
    "a certificate of no user": lambda server: server.build_certificate_uri(
        server.authority.issue("unknown")[0]
    ),
    "a certificate by another authority": lambda server: server.build_certificate_uri(
        server.other_authority.issue("monitor")[0]
    ),
}


@pytest.mark.parametrize("mistake", WRONG_URIS)
def test_a_refusal_by_the_server_is_503_and_one_line_without_a_secret(
    server: SecureServer,
    make_settings: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
    mistake: str,
) -> None:
    caplog.set_level(logging.INFO)
    uri = WRONG_URIS[mistake](server)
    with serve(make_settings(mongo_uri=uri, server_selection_timeout_ms=400)) as api:
        answer = api.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "database_unavailable"
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1, lines
    assert len(lines[0].splitlines()) == 1
    for secret in (*PASSWORDS.values(), "not-the-password", "mongodb://", str(server.certificate)):
        assert secret not in caplog.text + answer.text
