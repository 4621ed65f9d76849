"""`jobmon init` against a real server with authentication: catches a setup that lacks a
right, grants an unnecessary right, removes a right, or cannot be run twice."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import Mute
from jobmon.actions.request import ActionRequest, Person
from jobmon.actions.requests import ActionRequests
from jobmon.actions.target import Target
from jobmon.actor.acting import acting
from jobmon.app import create_app
from jobmon.cli import main
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue, LeaseLostError
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.setup.check import check_deployment
from jobmon.setup.findings import Finding, Level
from jobmon.setup.users import WRITING, connection_string
from jobmon.store.connection import Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.filter import JobFilter

from ..conftest import NOW, SECRET, Api
from ..support.commands import (
    all_names,
    database_uri,
    guarded_server,
    init,
    init_as_root,
    make_uri,
    problems,
)
from ..support.waiting import eventually


def check_readable(collection: Collection[dict[str, Any]]) -> None:
    """Raise OperationFailure if the user may not read the collection."""
    assert collection.find_one({"absent": 1}) is None


CREATED_LINES = (
    "ok       replica set  rs0: initiated",
    "ok       role         jobmonReader.shop.jobs: created",
    "ok       user         reader@shop: may read jobs and job_attempts, "
    "read jobmon_rollups and collections of jobmon_state: created",
    "ok       user         collector@shop: may read jobs and job_attempts, "
    "write jobmon_rollups and collections of jobmon_state: created",
    "ok       index        jobs(status, type, -createdAt, -_id): created, as "
    "status_1_type_1_createdAt_-1__id_-1",
)


@pytest.fixture(scope="module")
def init_server(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """The server after `jobmon init`."""
    with guarded_server(tmp_path_factory.mktemp("authentication")) as server:
        lines = init_as_root(server).output.splitlines()
        assert set(CREATED_LINES) <= set(lines)
        yield server


def test_init_run_again_reports_that_everything_exists(init_server: Mongod) -> None:
    result = init_as_root(init_server)
    assert "replica set  rs0: exists" in result.output
    assert ": created" not in result.output


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "mongodb://a:b@[::1],db2:27018/?tls=true&appName=x&authSource=x&replicaSet=old",
            "mongodb://ADMIN:PASSWORD@[::1]:27017,db2:27018/shop?authSource=admin&replicaSet=rs0"
            "&tls=true&appName=x",
        ),
        (
            "mongodb+srv://a:b@db.example/?w=majority",
            "mongodb+srv://ADMIN:PASSWORD@db.example/shop?authSource=admin&w=majority",
        ),
    ],
)
def test_a_connection_string_for_another_user_keeps_addresses_and_tls(
    uri: str, expected: str
) -> None:
    assert connection_string(uri, "ADMIN", "shop", "rs0", auth_source="admin") == expected


def test_init_prints_connection_strings_that_work(init_server: Mongod) -> None:
    uris = re.findall(r"JOBMON_\w+_URI='(.*)'", init_as_root(init_server).output)
    assert len(uris) == 2
    for uri, user in zip(uris, ("reader", "collector"), strict=True):
        assert "authSource=shop" in uri
        assert "replicaSet=rs0" in uri
        assert "directConnection" not in uri
        with MongoClient(uri.replace("PASSWORD", f"{user}pw")) as client:
            check_readable(client.get_default_database().jobs)


def test_service_works_with_the_rights_of_the_reader(
    init_server: Mongod, make_settings: Callable[..., Settings]
) -> None:
    with MongoClient(root_uri(init_server, "shop")) as root:
        queue = JobQueue(root.shop)
        job_id = queue.enqueue("email.send", created_by="ada")
        lease = queue.lease("worker-1")
        queue.report_success(lease)
    app = create_app(make_settings(mongo_uri=make_uri(init_server, "reader")))
    api = Api(app)
    assert api.get("/readyz").status_code == 200
    assert api.get_as_admin("/admin/jobs/stats").json["statusCounts"]["succeeded"] == 1
    assert api.get_as_admin("/admin/jobs/queue", status="succeeded").json["meta"]["total"] == 1
    # The rights must suffice for a sort, for filters and for an export, too.
    queries = ({"sort": "createdAt"}, {"error_code": "E"}, {"job_id": "none"}, {"format": "csv"})
    for query in queries:
        assert api.get_as_admin("/admin/jobs/queue", **query).status_code == 200
    assert [job["jobId"] for job in api.get_as_owner("/jobs", "ada").json["data"]] == [job_id]
    assert api.get_as_owner(f"/jobs/{job_id}", "ada").json["attempts"][0]["status"] == "succeeded"
    app.extensions["jobmon_connection"].client.close()


def test_collector_and_service_work_with_their_own_rights(
    init_server: Mongod, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        mongo_uri=make_uri(init_server, "reader"),
        rollup_uri=make_uri(init_server, "collector"),
    )
    app = create_app(settings)

    def read_rollup_stats() -> Any:
        stats = Api(app).get_as_admin("/admin/jobs/stats").json
        return stats if stats["source"] == "rollup" else None

    with collecting(settings):
        stats = eventually(read_rollup_stats)
    assert stats["totalJobs"] == 1
    app.extensions["jobmon_connection"].client.close()


def test_a_wrong_password_returns_503_without_details(
    init_server: Mongod, make_settings: Callable[..., Settings]
) -> None:
    uri = make_uri(init_server, "reader").replace("readerpw", "not-the-password")
    app = create_app(make_settings(mongo_uri=uri))
    answer = Api(app).get("/readyz")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "database_unavailable"
    assert "password" not in answer.text
    app.extensions["jobmon_connection"].client.close()


def init_with_passwords(connection_string: str, *options: str, **environment: str) -> Result:
    """Run `jobmon init` with the passwords of two users, and the default names of databases."""
    defaults = {
        "JOBMON_ADMIN_MONGO_URI": connection_string,
        "JOBMON_READER_PASSWORD": "readerpw",
        "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
    }
    return CliRunner().invoke(main, ["init", *options], env=defaults | environment)


def root_uri(server: Mongod, database: str) -> str:
    return f"mongodb://root:rootpw@{server.address}/{database}?authSource=admin&replicaSet=rs0"


@pytest.mark.parametrize(
    ("name", "jobs", "attempts"),
    [("store", "jobs", "job_attempts"), ("shop", "mails", "mail_attempts")],
    ids=["other database", "same database"],
)
def test_init_of_a_second_queue_keeps_the_rights_of_the_first(
    init_server: Mongod, name: str, jobs: str, attempts: str
) -> None:
    """Both queues use the same user names: in one database these are the same users."""
    with MongoClient(root_uri(init_server, "shop")) as root:
        query = {"rolesInfo": ["jobmonReader", "jobmonReader.shop.jobs"], "showPrivileges": True}
        find_jobs = {"resource": {"db": "shop", "collection": "jobs"}, "actions": ["find"]}
        # The role that an older version of jobmon created.
        if not root.admin.command("rolesInfo", "jobmonReader")["roles"]:
            root.admin.command("createRole", "jobmonReader", privileges=[find_jobs], roles=[])
        before = root.admin.command(query)["roles"]
        result = init_with_passwords(
            root_uri(init_server, name),
            *("--create", "--reader", "reader", "--collector", "collector"),
            *("--jobs", jobs, "--attempts", attempts),
        )
        assert result.exit_code == 0, result.output
        assert root.admin.command(query)["roles"] == before
    with MongoClient(make_uri(init_server, "reader")) as client:
        check_readable(client.shop.jobs)
        check_readable(client.shop.job_attempts)
    second_uri = make_uri(init_server, "reader").replace("/shop", f"/{name}")
    with MongoClient(second_uri) as client:
        check_readable(client[name][jobs])
        check_readable(client[name][attempts])


def test_init_with_other_settings_only_adds_rights(init_server: Mongod) -> None:
    """Catches a removed right. The user is new: a role from another test could hide the removal."""
    options = ("--reader", "lasting", "--create")
    for rollups in ("jobmon_rollups", "more_rollups"):
        result = init_with_passwords(
            root_uri(init_server, "shop"), *options, "--rollup-db", rollups
        )
        assert result.exit_code == 0, result.output
    with MongoClient(make_uri(init_server, "lasting").replace("lastingpw", "readerpw")) as client:
        check_readable(client.jobmon_rollups.state)
        check_readable(client.more_rollups.state)


@pytest.fixture
def own_queue(init_server: Mongod) -> Iterator[Database[dict[str, Any]]]:
    """A queue with one job in a database that only this test uses, as the root user sees it."""
    with MongoClient[dict[str, Any]](root_uri(init_server, "shop")) as root:
        database = root[f"own_{uuid.uuid4().hex}"]
        database.jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
        yield database
        database.command("dropAllUsersFromDatabase")
        for suffix in ("", "_rollups", "_state"):
            root.drop_database(f"{database.name}{suffix}")


def test_init_narrows_the_roles_of_an_older_version(
    init_server: Mongod, own_queue: Database[dict[str, Any]]
) -> None:
    """Catches a collector's user who may still file requests after `jobmon init`."""
    name, root = own_queue.name, own_queue.client
    role, options = f"jobmonCollector.{name}.jobs", ("--create", "--collector", "collector")
    admin = root_uri(init_server, name)
    settings = Settings(
        mongo_uri=admin,
        rollup_uri=make_uri(init_server, "collector").replace("/shop", f"/{name}"),
        actions=True,
    )

    def file_request(request_id: str) -> None:
        with MongoClient(settings.rollup_uri) as client:
            client.jobmon_state.action_decisions.insert_one({"_id": request_id})

    def find_warnings() -> list[str]:
        messages = [finding.message for finding in check_deployment(settings)]
        return [message for message in messages if "anybody can request" in message]

    assert init_with_passwords(admin, *options).exit_code == 0
    foreign_right = {"resource": {"db": name, "collection": "own"}, "actions": ["find"]}
    older_right = {
        "resource": {"db": "jobmon_state", "collection": ""},
        "actions": [*WRITING],
    }
    root.admin.command("grantPrivilegesToRole", role, privileges=[older_right, foreign_right])
    file_request(f"{name}/1")
    assert len(find_warnings()) == 1
    result = init_with_passwords(admin, *options)
    assert f"{role}: exists, with fewer rights than an older version granted" in result.output
    with pytest.raises(OperationFailure, match="not authorized"):
        file_request(f"{name}/2")
    assert find_warnings() == []
    (narrowed_role,) = root.admin.command("rolesInfo", role, showPrivileges=True)["roles"]
    assert foreign_right in narrowed_role["privileges"]
    assert "fewer rights" not in init_with_passwords(admin, *options).output
    root.jobmon_state.action_decisions.delete_many({"_id": f"{name}/1"})


def test_init_keeps_roles_and_password_of_an_existing_user(init_server: Mongod) -> None:
    options = ("--create", "--reader", "billing")
    with MongoClient(root_uri(init_server, "shop")) as root:
        root.shop.command("createUser", "billing", pwd="billingpw", roles=["readWrite"])
        result = init_with_passwords(root_uri(init_server, "shop"), *options)
        (user,) = root.shop.command("usersInfo", "billing")["users"]
    assert result.exit_code == 0, result.output
    assert {role["role"] for role in user["roles"]} == {"readWrite", "jobmonReader.shop.jobs"}
    assert "exists, role added, password not changed; it also has readWrite@shop" in result.output
    assert "--change-passwords" in result.output
    with MongoClient(make_uri(init_server, "billing")) as client:
        client.shop.notes.insert_one({})
    result = init_with_passwords(root_uri(init_server, "shop"), *options, "--change-passwords")
    assert "had the role, password set; it also has readWrite@shop" in result.output
    with MongoClient(make_uri(init_server, "billing").replace("billingpw", "readerpw")) as client:
        check_readable(client.shop.jobs)


def test_init_changes_the_password_of_a_user_that_it_created(init_server: Mongod) -> None:
    options = ("--create", "--reader", "rotating")
    admin = root_uri(init_server, "shop")
    assert init_with_passwords(admin, *options).exit_code == 0
    result = init_with_passwords(admin, *options, JOBMON_READER_PASSWORD="rotatingpw")
    assert "exists, had the role, password set" in result.output
    with MongoClient(make_uri(init_server, "rotating")) as client:
        check_readable(client.shop.jobs)


def test_init_refuses_one_name_for_two_users(init_server: Mongod) -> None:
    options = ("--reader", "one", "--collector", "one")
    result = init_with_passwords(root_uri(init_server, "shop"), *options)
    assert result.exit_code == 2
    assert "different names" in result.output


RIGHTS_ON_ADMIN = "createRole, grantRole, revokeRole, viewRole on admin"
RIGHTS_ON_SHOP = "changePassword, createUser, viewUser on {shop}"


def create_admin(server: Mongod, queue: Database[dict[str, Any]], roles: list[Any]) -> str:
    """Create a user with these roles in the queue's database; returns its connection string."""
    queue.command("createUser", "admin", pwd="adminpw", roles=roles)
    return f"mongodb://admin:adminpw@{server.address}/{queue.name}?replicaSet=rs0"


@pytest.mark.parametrize(
    ("roles", "missing_rights"),
    [
        ([], None),
        (["read"], f"{RIGHTS_ON_ADMIN}; {RIGHTS_ON_SHOP}; "),
        (["readWrite"], f"{RIGHTS_ON_ADMIN}; {RIGHTS_ON_SHOP}"),
        (["readWrite", "userAdmin"], RIGHTS_ON_ADMIN),
        ([{"role": "userAdminAnyDatabase", "db": "admin"}], None),
        (["read", {"role": "userAdminAnyDatabase", "db": "admin"}], "createIndex on {shop}.jobs"),
    ],
    ids=["none", "read", "readWrite", "no users in admin", "users only", "no indexes"],
)
def test_init_names_missing_rights_before_it_creates_anything(
    init_server: Mongod,
    own_queue: Database[dict[str, Any]],
    roles: list[Any],
    missing_rights: str | None,
) -> None:
    name, admin = own_queue.name, create_admin(init_server, own_queue, roles)
    before = all_names(own_queue.client, name)
    result = init(admin, "--reader", "reader", "--collector", "collector")
    assert result.exit_code == 1
    (problem,) = problems(result)
    assert all_names(own_queue.client, name) == before
    preview = init(admin, "--reader", "reader", "--dry-run")
    assert len(problems(preview)) == 1
    assert problem.startswith("problem  rights ")
    if missing_rights is None:  # the user may not even read the collection
        assert re.search(f"may not run (aggregate|find) on {name}\\.", problem)
    else:
        assert f"The user admin@{name} in JOBMON_ADMIN_MONGO_URI may not" in problem
        assert missing_rights.format(shop=name) in problem
        assert "add --print to the same options" in result.output


def test_init_and_remove_work_with_the_documented_rights(
    init_server: Mongod, own_queue: Database[dict[str, Any]]
) -> None:
    own_databases = (f"{own_queue.name}_{suffix}" for suffix in ("rollups", "state"))
    own_roles = [{"role": "readWrite", "db": name} for name in own_databases]
    roles = ["readWrite", *own_roles, {"role": "userAdminAnyDatabase", "db": "admin"}]
    admin = create_admin(init_server, own_queue, roles)
    for options in ((), ("--dry-run",), ("--print",)):
        result = init(admin, "--reader", "reader", "--collector", "collector", *options)
        assert result.exit_code == 0, result.output
    for options in (("--dry-run",), ("--print",), ()):
        result = init(admin, "--remove", *options)
        assert result.exit_code == 0, result.output
    assert all_names(own_queue.client, own_queue.name)["users"] == ["admin"]


def test_init_without_rights_to_jobmons_own_databases_creates_indexes(
    init_server: Mongod, own_queue: Database[dict[str, Any]]
) -> None:
    result = init(create_admin(init_server, own_queue, ["readWrite"]))
    assert result.exit_code == 0, result.output
    assert "created, as status_1_createdAt_-1__id_-1" in result.output
    assert result.output.count("`jobmon init --remove` will not remove") == 1


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--print",), ("--remove",)])
@pytest.mark.parametrize(
    ("credentials", "message"),
    [("root:no5ecret@", "does not know this user or password."), ("", "requires a user.")],
    ids=["wrong password", "no user"],
)
def test_init_with_a_refused_sign_in_prints_one_problem(
    init_server: Mongod, credentials: str, message: str, options: tuple[str, ...]
) -> None:
    source = "authSource=admin&" if credentials else ""
    admin = f"mongodb://{credentials}{init_server.address}/shop?{source}directConnection=true"
    for replica_set in ((), ("--replica-set", f"rs0/{init_server.address}")):
        result = init(admin, "--reader", "reader", *options, *replica_set)
        assert result.exit_code == 1
        (problem,) = problems(result)
        assert message in problem
        assert "5ecret" not in result.output
        assert "JOBMON_ADMIN_MONGO_URI" in result.output


def test_revoke_without_rights_names_a_user_who_has_them(init_server: Mongod) -> None:
    environment = {
        "JOBMON_MONGO_URI": make_uri(init_server, "reader"),
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    for command in (["revoke", "leaked"], ["revoke", "--sub", "ada"]):
        result = CliRunner().invoke(main, command, env=environment)
        assert result.exit_code == 1
        assert result.output.startswith(
            "Error: not revoked: the user of JOBMON_MONGO_URI may not write jobmon_state. "
            "Use the collector's user: set JOBMON_ROLLUP_URI"
        )
        assert "docker compose exec collector jobmon revoke" in result.output
        assert result.output.count("\n") == 1
    writer = {"JOBMON_ROLLUP_URI": make_uri(init_server, "collector")}
    assert CliRunner().invoke(main, ["revoke", "leaked"], env=environment | writer).exit_code == 0
    assert CliRunner().invoke(main, ["revoke", "--list"], env=environment).exit_code == 0


def test_mark_without_rights_names_a_user_who_has_them(init_server: Mongod) -> None:
    environment = {"JOBMON_MONGO_URI": make_uri(init_server, "reader")}
    result = CliRunner().invoke(main, ["mark", "v1"], env=environment)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "not marked: the user of JOBMON_MONGO_URI may not write jobmon_state. "
        "Use the collector's user: set JOBMON_ROLLUP_URI"
    )
    assert "docker compose exec collector jobmon mark" in result.stderr
    writer = {"JOBMON_ROLLUP_URI": make_uri(init_server, "collector")}
    result = CliRunner().invoke(main, ["mark", "v1"], env=environment | writer)
    assert result.output == "marked: v1\n"


def test_remove_without_all_rights_removes_nothing(
    init_server: Mongod, own_queue: Database[dict[str, Any]]
) -> None:
    roles = ["readWrite", {"role": "userAdminAnyDatabase", "db": "admin"}]
    admin = create_admin(init_server, own_queue, roles)
    assert init(root_uri(init_server, own_queue.name), "--reader", "reader").exit_code == 0
    before = all_names(own_queue.client, own_queue.name)
    result = init(admin, "--remove")
    assert all_names(own_queue.client, own_queue.name) == before
    assert result.exit_code == 1
    assert f"may not run find on {own_queue.name}_state" in problems(result)[0]


def test_users_on_another_server_than_jobmons_own_get_rights_only_on_the_queue(
    init_server: Mongod, own_queue: Database[dict[str, Any]], mongod: Mongod, tmp_path: Path
) -> None:
    """Catches a right that `jobmon check` reports as missing although it is not needed there."""
    path, name = tmp_path / "queues.toml", own_queue.name
    path.write_text(
        f'[far]\nuri = "{make_uri(init_server, "far", "").replace("/shop", f"/{name}")}"'
    )
    queues = {"JOBMON_QUEUES": str(path), "JOBMON_MONGO_URI": database_uri(mongod, name)}
    options = ("--create", "--reader", "far", "--collector", "writer")
    variables = {"JOBMON_READER_PASSWORD": "farpw", **queues}
    result = init_with_passwords(root_uri(init_server, name), *options, **variables)
    assert result.exit_code == 0, result.output
    assert f"far@{name}: may read jobs and job_attempts: created" in result.output
    roles = own_queue.client.admin.command(
        {"rolesInfo": [f"jobmon{kind}.{name}.jobs" for kind in ("Reader", "Collector")]},
        showPrivileges=True,
    )["roles"]
    privileges = [privilege for role in roles for privilege in role["privileges"]]
    assert len(privileges) == 4
    assert {privilege["resource"]["db"] for privilege in privileges} == {name}
    result = CliRunner().invoke(main, ["check", "--json", "--queue", "far"], env=queues)
    report = json.loads(result.output)
    findings = [finding for finding in report["findings"] if finding["queue"] == "far"]
    assert [finding["level"] for finding in findings if finding["check"] == "rights"] == ["ok"]


def test_init_of_all_queues_gives_one_user_the_rights_on_each_queue(
    init_server: Mongod, tmp_path: Path
) -> None:
    path = tmp_path / "queues.toml"
    path.write_text(
        '[one]\ncollection = "one"\nattempts_collection = "one_attempts"\n'
        '[two]\ncollection = "two"\nattempts_collection = "two_attempts"'
    )
    queues = {"JOBMON_QUEUES": str(path), "JOBMON_MONGO_URI": make_uri(init_server, "many", "")}
    variables = {"JOBMON_READER_PASSWORD": "manypw", **queues}
    admin = root_uri(init_server, "shop")
    for _ in range(2):
        result = init_with_passwords(admin, "--create", "--reader", "many", **variables)
        assert result.exit_code == 0, result.output
    with MongoClient(make_uri(init_server, "many")) as client:
        check_readable(client.shop.one)
        check_readable(client.shop.two_attempts)
        check_readable(client.jobmon_rollups.state)


@pytest.fixture(scope="module")
def actor_server(init_server: Mongod) -> Mongod:
    """The server after `jobmon init --actor`."""
    environment = {
        "JOBMON_ADMIN_MONGO_URI": root_uri(init_server, "shop"),
        "JOBMON_ACTOR_PASSWORD": "actorpw",
    }
    result = CliRunner().invoke(main, ["init", "--create", "--actor", "actor"], env=environment)
    assert result.exit_code == 0, result.output
    for line in (
        "ok       role         jobmonActor.shop.jobs: created",
        "ok       user         actor@shop: may read jobs and job_attempts, "
        "update documents of jobs and job_attempts: created",
    ):
        assert line in result.output.splitlines()
    assert "actor: JOBMON_ACTOR_MONGO_URI='mongodb://actor:PASSWORD@" in result.output
    return init_server


def test_actions_need_only_the_rights_that_init_grants(actor_server: Mongod) -> None:
    """Catches a right that the web service or the actor needs, but `init` does not grant."""
    settings = Settings(
        mongo_uri=make_uri(actor_server, "reader"),
        actor_mongo_uri=make_uri(actor_server, "actor"),
        jwt_secret_key=SECRET,
    )
    web = Connection(settings)
    requests = ActionRequests(web, web, Redactor(()))
    with MongoClient(root_uri(actor_server, "shop")) as root:
        queue = JobQueue(root.shop)
        queue.enqueue("report", job_id="held")
        held_lease = queue.lease("worker-1")
        queue.enqueue("mail", job_id="dead")
        lease = queue.lease("worker-1")
        assert held_lease
        assert lease
        queue.report_failure(lease, "E", "no answer", retry=False)
        ada = Person(subject="ada")

        def make_request(action: str, target: Target) -> ActionRequest:
            return ActionRequest(action=action, target=target, by=ada, expected=1, reason="back")

        with acting(settings):
            filed = [
                requests.file(make_request(action, target))
                for action, target in (
                    ("retry", Target(job_filter=JobFilter(statuses=("dlq",), types=("mail",)))),
                    ("cancel", Target(job_ids=("held",))),
                    ("pause_type", Target(types=("mail",))),
                )
            ]
            ids = [state.request.id for state in filed]

            def count_done() -> list[int] | None:
                states = [requests.get(request_id) for request_id in ids]
                ended = [state for state in states if state is not None and state.is_over]
                return [state.counts.done for state in ended] if len(ended) == 3 else None

            assert eventually(count_done) == [1, 1, 1]
        assert root.shop.jobs.find_one({"jobId": "dead"})["status"] == "queued"
        with pytest.raises(LeaseLostError):
            queue.report_success(held_lease)
        attempt = root.shop.job_attempts.find_one({"jobId": "held"})
        assert (attempt["status"], attempt["error"]["code"]) == ("failed", "cancelled")
        assert JobQueue(root.shop).lease("worker-2") is None
        root.shop.job_controls.update_one({}, {"$set": {"types": []}})
    assert requests.list_job_outcomes("dead")[0][1].by == ada
    check_mutes(actor_server, web, ada)
    web.close()


def check_mutes(server: Mongod, web: Connection, person: Person) -> None:
    """Check that the collector's user reads the mutes of the web service and of `jobmon mute`."""
    writer = make_uri(server, "collector")
    environment = {"JOBMON_MONGO_URI": web.settings.mongo_uri, "JOBMON_ROLLUP_URI": writer}
    command = ["mute", "all", "--for", "1h", "--reason", "by a command"]
    assert CliRunner().invoke(main, command, env=environment).exit_code == 0
    records = MuteRecords(web, web, Redactor(()))
    until = datetime.now(UTC) + timedelta(hours=1)
    added = records.add(Mute(kind=None, by=person, until=until, reason="by a page"))
    with Connection(replace(web.settings, mongo_uri=writer)).client as client:
        mutes = MuteRecords(web, Connection(web.settings, client), Redactor(())).list_recent()
    assert {mute.reason for mute in mutes} == {"by a command", "by a page"}
    assert records.end(added, person).end is not None


RefusedCommand = tuple[str, str, str, dict[str, Any]]  # database, command, collection, arguments
CHANGE = {"updates": [{"q": {}, "u": {"$set": {"a": 1}}, "multi": True}]}
UPSERT = {"updates": [{"q": {"_id": 0}, "u": {"$set": {"a": 1}}, "upsert": True}]}
DELETION = {"deletes": [{"q": {}, "limit": 0}]}
INSERT = {"documents": [{"a": 1}]}
ACTOR_RECORDS = ("action_progress", "action_outcomes", "action_leases")
INDEX = {"indexes": [{"key": {"a": 1}, "name": "a"}]}
CHANGES = (("update", CHANGE), ("update", UPSERT), ("delete", DELETION))
WRITES = (("insert", INSERT), *CHANGES)
# Commands that the server must refuse.
ACTOR_MAY_NOT: list[RefusedCommand] = [
    *(("shop", "insert", name, INSERT) for name in ("jobs", "job_attempts", "job_controls")),
    *(("shop", "update", name, UPSERT) for name in ("jobs", "job_attempts", "job_controls")),
    *(("shop", "delete", name, DELETION) for name in ("jobs", "job_attempts", "job_controls")),
    ("shop", "findAndModify", "jobs", {"query": {}, "remove": True}),
    ("shop", "drop", "jobs", {}),
    ("shop", "createIndexes", "jobs", INDEX),
    ("shop", "collMod", "jobs", {"validator": {"a": 1}}),
    ("shop", "aggregate", "jobs", {"pipeline": [{"$merge": "jobs"}], "cursor": {}}),
    ("shop", "aggregate", "jobs", {"pipeline": [{"$out": "stolen"}], "cursor": {}}),
    ("shop", "find", "customers", {}),
    ("jobmon_state", "insert", "action_decisions", INSERT),
    *(("jobmon_state", "find", name, {}) for name in ("revoked_tokens", "marks", "notice_mutes")),
    ("jobmon_state", "insert", "notice_mutes", INSERT),
    *(
        ("jobmon_state", command, name, arguments)
        for name in ("action_decisions", "action_progress", "action_outcomes")
        for command, arguments in CHANGES
    ),
    *(
        ("jobmon_state", "createIndexes", name, INDEX)
        for name in ("action_progress", "action_outcomes")
    ),
    ("jobmon_state", "drop", "action_outcomes", {}),
    ("jobmon_rollups", "find", "state", {}),
    ("jobmon_rollups", "insert", "state", INSERT),
]
READER_AND_COLLECTOR_MAY_NOT: list[RefusedCommand] = [
    *(
        ("shop", command, name, arguments)
        for name in ("jobs", "job_attempts", "job_controls")
        for command, arguments in (("insert", INSERT), ("update", CHANGE), ("delete", DELETION))
    ),
    ("shop", "createIndexes", "jobs", INDEX),
    ("shop", "drop", "jobs", {}),
    ("shop", "find", "customers", {}),
    ("other", "find", "jobs", {}),
]
READER_MAY_NOT: list[RefusedCommand] = [
    *READER_AND_COLLECTOR_MAY_NOT,
    ("jobmon_rollups", "insert", "state", INSERT),
    *(
        ("jobmon_state", command, name, arguments)
        for name in ("action_decisions", "notice_mutes")
        for command, arguments in (*CHANGES, ("drop", {}), ("createIndexes", INDEX))
    ),
    *(
        ("jobmon_state", command, name, arguments)
        for name in (*ACTOR_RECORDS, "revoked_tokens", "marks")
        for command, arguments in WRITES
    ),
    ("jobmon_state", "find", "init_indexes", {}),
]
COLLECTOR_MAY_NOT: list[RefusedCommand] = [
    *READER_AND_COLLECTOR_MAY_NOT,
    *(
        ("jobmon_state", command, name, arguments)
        for name in ("action_decisions", *ACTOR_RECORDS)
        for command, arguments in (*WRITES, ("find", {}), ("drop", {}), ("createIndexes", INDEX))
    ),
    *(("jobmon_state", command, "notice_mutes", arguments) for command, arguments in CHANGES),
    ("jobmon_state", "delete", "revoked_tokens", DELETION),
    ("jobmon_state", "find", "init_indexes", {}),
    *(
        ("jobmon_rollups", "aggregate", "state", {"pipeline": [{stage: target}], "cursor": {}})
        for stage, target in (
            ("$out", {"db": "jobmon_state", "coll": "action_decisions"}),
            ("$merge", {"into": {"db": "jobmon_state", "coll": "action_decisions"}}),
        )
    ),
]


@pytest.mark.parametrize(
    ("user", "refused"),
    [
        ("actor", ACTOR_MAY_NOT),
        ("reader", READER_MAY_NOT),
        ("collector", COLLECTOR_MAY_NOT),
    ],
    ids=["actor", "reader", "collector"],
)
def test_the_server_refuses_what_a_user_does_not_need(
    actor_server: Mongod, user: str, refused: list[RefusedCommand]
) -> None:
    with MongoClient[dict[str, Any]](make_uri(actor_server, user)) as client:
        for database, command, collection, arguments in refused:
            with pytest.raises(OperationFailure) as caught:
                client[database].command(command, collection, **arguments)
            assert caught.value.code == UNAUTHORIZED, (command, collection, arguments)


def check_actions(server: Mongod, *, web: str, actor: str, options: str = "") -> list[Finding]:
    """What `jobmon check` reports about actions with these users."""
    settings = Settings(
        mongo_uri=make_uri(server, web, f"replicaSet=rs0{options}"),
        actor_mongo_uri=make_uri(server, actor, f"replicaSet=rs0{options}"),
        actions=True,
    )
    return find_actor_findings(settings)


def find_actor_findings(settings: Settings) -> list[Finding]:
    return [finding for finding in check_deployment(settings) if finding.check == "actor"]


def test_check_reports_missing_and_unneeded_rights_for_actions(actor_server: Mongod) -> None:
    web, actor, _ = check_actions(actor_server, web="reader", actor="actor")
    assert (web.level, web.message) == (
        Level.OK,
        "The web service's user may store requests, but not change records.",
    )
    assert (actor.level, actor.message) == (
        Level.OK,
        "User actor@shop may do what the actor needs.",
    )
    web, actor, unneeded, _ = check_actions(actor_server, web="actor", actor="reader")
    assert (web.level, actor.level) == (Level.PROBLEM, Level.PROBLEM)
    expected = "The web service's user may not insert in action_decisions, find in notice_m"
    assert web.message.startswith(expected)
    assert actor.message.startswith("The actor's user may not update in jobs, update in job_attem")
    assert "insert in action_progress" in actor.message
    assert "may also insert in action_decisions; the actor does" in unneeded.message
    assert "--actor USER" in actor.commands[0]


def test_check_with_the_settings_of_the_collector_finds_no_problem(actor_server: Mongod) -> None:
    """With the key for tokens, it is a web service with the wrong user: that is a problem."""
    uri = make_uri(actor_server, "collector", "replicaSet=rs0")
    settings = Settings(mongo_uri=uri, actions=True)
    requester, presence = find_actor_findings(settings)
    assert (requester.level, presence.level) == (Level.OK, Level.OK)
    assert requester.message.startswith("This is the collector's user, who needs no right to store")
    assert presence.message.startswith("This user may not read action_leases")
    requester, _ = find_actor_findings(replace(settings, jwt_secret_key="k" * 32))
    assert requester.level is Level.PROBLEM
    assert "insert in action_decisions" in requester.message


def test_check_warns_if_the_paused_types_cannot_be_read(actor_server: Mongod) -> None:
    jobs = {"db": "shop", "collection": "jobs"}
    with MongoClient[dict[str, Any]](root_uri(actor_server, "shop")) as root:
        privileges = [{"resource": jobs, "actions": ["find"]}]
        root.shop.command("createRole", "onlyJobs", privileges=privileges, roles=[])
        root.shop.command("createUser", "narrow", pwd="narrowpw", roles=["onlyJobs"])
    settings = Settings(mongo_uri=make_uri(actor_server, "narrow"), actions=True)
    findings = check_deployment(settings)
    (finding,) = [finding for finding in findings if "job_controls" in finding.message]
    assert (finding.check, finding.level) == ("actor", Level.WARNING)
    assert "may not read job_controls" in finding.message


def test_check_warns_of_an_administrator_as_the_user_of_the_actor(actor_server: Mongod) -> None:
    options = "&authSource=admin"
    web, actor, _ = check_actions(actor_server, web="root", actor="root", options=options)
    assert (web.level, actor.level) == (Level.WARNING, Level.WARNING)
    assert "may also change records of actions" in web.message
    assert "collMod in jobs, convertToCapped in jobs" in actor.message
    assert "remove in jobs" in actor.message
    assert "update in jobs," not in actor.message


def test_only_the_setting_for_deletion_lets_the_actor_delete(actor_server: Mongod) -> None:
    environment = {
        "JOBMON_ADMIN_MONGO_URI": root_uri(actor_server, "shop"),
        "JOBMON_ACTOR_PASSWORD": "actorpw",
        "JOBMON_ACTIONS_ALLOW_DELETE": "true",
    }
    options = ("--create", "--jobs", "others", "--actor", "deleter")
    result = CliRunner().invoke(main, ["init", *options], env=environment)
    assert "update and delete documents of others and job_attempts" in result.output
    with MongoClient[dict[str, Any]](
        f"mongodb://deleter:actorpw@{actor_server.address}/shop?replicaSet=rs0"
    ) as client:
        client.shop.others.delete_one({"jobId": "none"})
        with pytest.raises(OperationFailure, match="not authorized"):
            client.shop.job_controls.delete_one({"jobId": "none"})
