"""`jobmon init` against a real server with authentication: would catch a set-up that lacks a
right, grants one too many, takes one from somebody, or cannot be run twice."""

import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from jobmon.app import create_app
from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.rollup.collector import collecting
from jobmon.settings import Settings

from ..conftest import NOW, SECRET, Api
from ..support.commands import all_names, init, problems
from ..support.waiting import eventually


@pytest.fixture(scope="module")
def guarded(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A server as docker-compose starts it: root user, key file, replica set not yet initiated."""
    folder = tmp_path_factory.mktemp("guarded")
    key = folder / "replica.key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    with (
        Mongod(folder / "data", replica_set=None) as alone,
        MongoClient(alone.uri) as client,
    ):
        client.admin.command("createUser", "root", pwd="rootpw", roles=["root"])
    options = ("--keyFile", str(key))
    with Mongod(folder / "data", initiate=False, options=options) as server:
        yield server


def uri(server: Mongod, user: str, options: str) -> str:
    return f"mongodb://{user}:{user}pw@{server.address}/shop?{options}"


def run_init(server: Mongod, *more: str) -> Result:
    admin = uri(server, "root", "authSource=admin&directConnection=true")
    command = ["init", "--create", "--replica-set", f"rs0/{server.address}", *more]
    command += ["--reader", "reader", "--collector", "collector"]
    environment = {
        "JOBMON_ADMIN_MONGO_URI": admin,
        "JOBMON_READER_PASSWORD": "readerpw",
        "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
    }
    return CliRunner().invoke(main, command, env=environment)


@pytest.fixture(scope="module")
def initiated(guarded: Mongod) -> Mongod:
    result = run_init(guarded)
    assert result.exit_code == 0, result.output
    for line in (
        "ok       replica set  rs0: initiated",
        "ok       role         jobmonReader.shop.jobs: created",
        "ok       user         reader@shop: may read jobs and job_attempts, "
        "read jobmon_rollups and jobmon_state: created",
        "ok       user         collector@shop: may read jobs and job_attempts, "
        "write jobmon_rollups and jobmon_state: created",
        "ok       index        jobs(status, type, -createdAt, -_id): created, as "
        "status_1_type_1_createdAt_-1__id_-1",
    ):
        assert line in result.output.splitlines()
    return guarded


def test_init_run_again_changes_nothing_and_says_so(initiated: Mongod) -> None:
    result = run_init(initiated)
    assert result.exit_code == 0, result.output
    assert "replica set  rs0: exists" in result.output
    assert ": created" not in result.output


def test_the_connection_strings_that_are_printed_work(initiated: Mongod) -> None:
    printed = re.findall(r"JOBMON_\w+_URI='(.*)'", run_init(initiated).output)
    assert len(printed) == 2
    for connection_string, user in zip(printed, ("reader", "collector"), strict=True):
        assert "authSource=shop" in connection_string
        assert "replicaSet=rs0" in connection_string
        assert "directConnection" not in connection_string
        with MongoClient(connection_string.replace("PASSWORD", f"{user}pw")) as client:
            assert client.get_default_database().jobs.find_one({"none": 1}) is None


def test_the_service_needs_no_more_than_the_reader_may(
    initiated: Mongod, make_settings: Callable[..., Settings]
) -> None:
    with MongoClient(uri(initiated, "root", "authSource=admin&replicaSet=rs0")) as root:
        queue = JobQueue(root.shop)
        job_id = queue.enqueue("email.send", created_by="ada")
        lease = queue.lease("worker-1")
        queue.report_success(lease)
    app = create_app(make_settings(mongo_uri=uri(initiated, "reader", "replicaSet=rs0")))
    api = Api(app)
    assert api.get("/readyz").status_code == 200
    assert api.as_admin("/admin/jobs/stats").json["statusCounts"]["succeeded"] == 1
    assert api.as_admin("/admin/jobs/queue", status="succeeded").json["meta"]["total"] == 1
    for how in ({"sort": "createdAt"}, {"error_code": "E"}, {"job_id": "none"}, {"format": "csv"}):
        assert api.as_admin("/admin/jobs/queue", **how).status_code == 200  # an explain, a sort
    assert [job["jobId"] for job in api.as_owner("/jobs", "ada").json["data"]] == [job_id]
    assert api.as_owner(f"/jobs/{job_id}", "ada").json["attempts"][0]["status"] == "succeeded"
    app.extensions["jobmon_connection"].client.close()


def test_collector_and_service_work_together_with_their_own_rights_only(
    initiated: Mongod, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        mongo_uri=uri(initiated, "reader", "replicaSet=rs0"),
        rollup_uri=uri(initiated, "collector", "replicaSet=rs0"),
    )
    app = create_app(settings)
    with collecting(settings):
        stats = eventually(
            lambda: (
                (stats := Api(app).as_admin("/admin/jobs/stats").json)["source"] == "rollup"
                and stats
            )
        )
    assert stats["totalJobs"] == 1
    app.extensions["jobmon_connection"].client.close()


@pytest.mark.parametrize("user", ["reader", "collector"])
@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.shop.jobs.insert_one({}),
        lambda client: client.shop.jobs.update_many({}, {"$set": {"status": "cancelled"}}),
        lambda client: client.shop.job_attempts.delete_many({}),
        lambda client: client.shop.jobs.create_index("payload"),
        lambda client: client.shop.jobs.drop(),
        lambda client: client.shop.other.find_one(),
        lambda client: client.other.jobs.find_one(),
    ],
    ids=["insert", "update", "delete", "index", "drop", "other collection", "other database"],
)
def test_the_server_refuses_both_users_everything_else(
    initiated: Mongod, write: Callable[[MongoClient], object], user: str
) -> None:
    with (
        MongoClient(uri(initiated, user, "replicaSet=rs0")) as client,
        pytest.raises(OperationFailure, match="not authorized"),
    ):
        write(client)


def test_a_wrong_password_is_a_503_that_tells_the_caller_nothing(
    initiated: Mongod, make_settings: Callable[..., Settings]
) -> None:
    wrong = uri(initiated, "reader", "replicaSet=rs0").replace("readerpw", "not-the-password")
    app = create_app(make_settings(mongo_uri=wrong))
    answer = Api(app).get("/readyz")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "database_unavailable"
    assert "password" not in answer.text
    app.extensions["jobmon_connection"].client.close()


def test_the_reader_may_not_write_the_rollups(initiated: Mongod) -> None:
    with (
        MongoClient(uri(initiated, "reader", "replicaSet=rs0")) as client,
        pytest.raises(OperationFailure, match="not authorized"),
    ):
        client.jobmon_rollups.state.insert_one({})


@pytest.mark.parametrize("user", ["reader", "collector"])
def test_a_user_without_a_password_is_refused_before_anything_is_done(
    guarded: Mongod, user: str
) -> None:
    result = CliRunner().invoke(main, ["init", "--mongo-uri", guarded.uri, f"--{user}", "x"])
    assert result.exit_code == 2
    assert f"JOBMON_{user.upper()}_PASSWORD" in result.output


def init_as(server: Mongod, connection_string: str, *options: str, **environment: str) -> Result:
    """`jobmon init` with passwords for two users, as somebody with this connection string."""
    given = {
        "JOBMON_ADMIN_MONGO_URI": connection_string,
        "JOBMON_READER_PASSWORD": "readerpw",
        "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
    }
    return CliRunner().invoke(main, ["init", *options], env=given | environment)


def as_root(server: Mongod, database: str) -> str:
    return f"mongodb://root:rootpw@{server.address}/{database}?authSource=admin&replicaSet=rs0"


@pytest.mark.parametrize(
    ("database", "jobs", "attempts"),
    [("store", "jobs", "job_attempts"), ("shop", "mails", "mail_attempts")],
    ids=["other database", "same database"],
)
def test_a_second_queue_leaves_the_rights_of_the_first(
    initiated: Mongod, database: str, jobs: str, attempts: str
) -> None:
    """Both queues have the same names of users: in one database they are the same users."""
    with MongoClient(as_root(initiated, "shop")) as root:
        ours = {"rolesInfo": ["jobmonReader", "jobmonReader.shop.jobs"], "showPrivileges": True}
        watched = {"resource": {"db": "shop", "collection": "jobs"}, "actions": ["find"]}
        if not root.admin.command("rolesInfo", "jobmonReader")["roles"]:  # of an older jobmon
            root.admin.command("createRole", "jobmonReader", privileges=[watched], roles=[])
        before = root.admin.command(ours)["roles"]
        result = init_as(
            initiated,
            as_root(initiated, database),
            *("--create", "--reader", "reader", "--collector", "collector"),
            *("--jobs", jobs, "--attempts", attempts),
        )
        assert result.exit_code == 0, result.output
        assert root.admin.command(ours)["roles"] == before
    with MongoClient(uri(initiated, "reader", "replicaSet=rs0")) as client:
        assert client.shop.jobs.find_one({"none": 1}) is None
        assert client.shop.job_attempts.find_one({"none": 1}) is None
    second = uri(initiated, "reader", "replicaSet=rs0").replace("/shop", f"/{database}")
    with MongoClient(second) as client:
        assert client[database][jobs].find_one({"none": 1}) is None
        assert client[database][attempts].find_one({"none": 1}) is None


def test_other_settings_for_the_same_queue_add_rights_and_take_none(initiated: Mongod) -> None:
    """With a user of this test only: a role that another test gives would hide what is taken."""
    options = ("--reader", "lasting", "--create")
    for rollups in ("jobmon_rollups", "more_rollups"):
        again = (*options, "--rollup-db", rollups)
        result = init_as(initiated, as_root(initiated, "shop"), *again)
        assert result.exit_code == 0, result.output
    with MongoClient(
        uri(initiated, "lasting", "replicaSet=rs0").replace("lastingpw", "readerpw")
    ) as client:
        assert client.jobmon_rollups.state.find_one({"none": 1}) is None
        assert client.more_rollups.state.find_one({"none": 1}) is None


def test_a_user_that_exists_keeps_its_other_roles_and_its_password(initiated: Mongod) -> None:
    options = ("--create", "--reader", "theirs")
    with MongoClient(as_root(initiated, "shop")) as root:
        root.shop.command("createUser", "theirs", pwd="theirspw", roles=["readWrite"])
        result = init_as(initiated, as_root(initiated, "shop"), *options)
        (user,) = root.shop.command("usersInfo", "theirs")["users"]
    assert result.exit_code == 0, result.output
    assert {role["role"] for role in user["roles"]} == {"readWrite", "jobmonReader.shop.jobs"}
    assert "exists, role added, password not changed; it also has readWrite@shop" in result.output
    assert "--change-passwords" in result.output
    with MongoClient(uri(initiated, "theirs", "replicaSet=rs0")) as client:
        client.shop.notes.insert_one({})
    changed = init_as(initiated, as_root(initiated, "shop"), *options, "--change-passwords")
    assert "had the role, password set; it also has readWrite@shop" in changed.output
    with MongoClient(
        uri(initiated, "theirs", "replicaSet=rs0").replace("theirspw", "readerpw")
    ) as client:
        assert client.shop.jobs.find_one({"none": 1}) is None


def test_the_password_of_a_user_that_init_made_can_be_changed_by_it(initiated: Mongod) -> None:
    options = ("--create", "--reader", "rotating")
    root = as_root(initiated, "shop")
    assert init_as(initiated, root, *options).exit_code == 0
    changed = init_as(initiated, root, *options, JOBMON_READER_PASSWORD="rotatingpw")
    assert "exists, had the role, password set" in changed.output
    with MongoClient(uri(initiated, "rotating", "replicaSet=rs0")) as client:
        assert client.shop.jobs.find_one({"none": 1}) is None


def test_two_users_need_two_names(initiated: Mongod) -> None:
    options = ("--reader", "one", "--collector", "one")
    result = init_as(initiated, as_root(initiated, "shop"), *options)
    assert result.exit_code == 2
    assert "two names" in result.output


@pytest.mark.parametrize(
    ("roles", "lacks"),
    [
        ([], None),
        (["read"], "createRole, grantRole, viewRole on admin; createUser, viewUser on {shop}; "),
        (["readWrite"], "createRole, grantRole, viewRole on admin; createUser, viewUser on {shop}"),
        (["readWrite", "userAdmin"], "createRole, grantRole, viewRole on admin"),
        ([{"role": "userAdminAnyDatabase", "db": "admin"}], None),
        (["read", {"role": "userAdminAnyDatabase", "db": "admin"}], "createIndex on {shop}.jobs"),
    ],
    ids=["none", "read", "readWrite", "one database's users", "users only", "no indexes"],
)
def test_a_right_that_is_missing_is_named_before_anything_is_made(
    initiated: Mongod, roles: list[Any], lacks: str | None
) -> None:
    name = f"rights_{uuid.uuid4().hex}"
    with MongoClient(as_root(initiated, name)) as root:
        root[name].jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
        root[name].command("createUser", "admin", pwd="adminpw", roles=roles)
        before = all_names(root, name)
        admin = f"mongodb://admin:adminpw@{initiated.address}/{name}?replicaSet=rs0"
        result = init(admin, "--reader", "reader", "--collector", "collector")
        assert result.exit_code == 1
        (problem,) = problems(result)
        assert all_names(root, name) == before
        preview = init(admin, "--reader", "reader", "--dry-run")
        assert len(problems(preview)) == 1
        root.drop_database(name)
        root[name].command("dropAllUsersFromDatabase")
    assert problem.startswith("problem  rights ")
    if lacks is None:  # not even what is in the collection can be seen
        assert re.search(f"may not run (aggregate|find) on {name}\\.", problem)
    else:
        assert f"The user admin@{name} in JOBMON_ADMIN_MONGO_URI may not" in problem
        assert lacks.format(shop=name) in problem
        assert "jobmon init --print" in result.output


def test_what_the_page_says_is_needed_is_enough(initiated: Mongod) -> None:
    name = f"rights_{uuid.uuid4().hex}"
    own = [{"role": "readWrite", "db": f"{name}_{which}"} for which in ("rollups", "state")]
    roles = ["readWrite", *own, {"role": "userAdminAnyDatabase", "db": "admin"}]
    with MongoClient(as_root(initiated, name)) as root:
        root[name].jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
        root[name].command("createUser", "admin", pwd="adminpw", roles=roles)
        admin = f"mongodb://admin:adminpw@{initiated.address}/{name}?replicaSet=rs0"
        for options in ((), ("--dry-run",), ("--print",)):
            result = init(admin, "--reader", "reader", "--collector", "collector", *options)
            assert result.exit_code == 0, result.output
        for options in (("--dry-run",), ("--print",), ()):
            result = init(admin, "--remove", *options)
            assert result.exit_code == 0, result.output
        assert all_names(root, name)["users"] == ["admin"]
        for database in all_names(root, name)["databases"]:
            root.drop_database(database)
        root[name].command("dropAllUsersFromDatabase")


def test_indexes_are_made_without_a_right_to_the_databases_of_jobmon(initiated: Mongod) -> None:
    name = f"rights_{uuid.uuid4().hex}"
    with MongoClient(as_root(initiated, name)) as root:
        root[name].jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
        root[name].command("createUser", "admin", pwd="adminpw", roles=["readWrite"])
        result = init(f"mongodb://admin:adminpw@{initiated.address}/{name}?replicaSet=rs0")
        root.drop_database(name)
        root[name].command("dropAllUsersFromDatabase")
    assert result.exit_code == 0, result.output
    assert "created, as status_1_createdAt_-1__id_-1" in result.output
    assert result.output.count("`jobmon init --remove` will not know") == 1


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--print",), ("--remove",)])
@pytest.mark.parametrize(
    ("who", "says"),
    [
        ("root:no5ecret@", "does not know this user or password."),
        ("", "answers only to users who sign in."),
    ],
    ids=["wrong password", "no user"],
)
def test_a_server_that_does_not_let_us_in_is_one_line(
    initiated: Mongod, who: str, says: str, options: tuple[str, ...]
) -> None:
    source = "authSource=admin&" if who else ""
    away = f"mongodb://{who}{initiated.address}/shop?{source}directConnection=true"
    for more in ((), ("--replica-set", f"rs0/{initiated.address}")):
        result = init(away, "--reader", "reader", *options, *more)
        assert result.exit_code == 1
        (problem,) = problems(result)
        assert says in problem
        assert "5ecret" not in result.output
        assert "JOBMON_ADMIN_MONGO_URI" in result.output


def test_a_user_who_may_not_revoke_learns_which_one_may(initiated: Mongod) -> None:
    environment = {
        "JOBMON_MONGO_URI": uri(initiated, "reader", "replicaSet=rs0"),
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    for command in (["revoke", "leaked"], ["revoke", "--sub", "ada"]):
        refused = CliRunner().invoke(main, command, env=environment)
        assert refused.exit_code == 1
        assert refused.output.startswith(
            "Error: not revoked: the user of JOBMON_MONGO_URI may not write jobmon_state. "
            "Use the collector's user: set JOBMON_ROLLUP_URI"
        )
        assert "docker compose exec collector jobmon revoke" in refused.output
        assert refused.output.count("\n") == 1
    own = {"JOBMON_ROLLUP_URI": uri(initiated, "collector", "replicaSet=rs0")}
    assert CliRunner().invoke(main, ["revoke", "leaked"], env=environment | own).exit_code == 0
    assert CliRunner().invoke(main, ["revoke", "--list"], env=environment).exit_code == 0


def test_nothing_is_removed_where_not_all_may_be(initiated: Mongod) -> None:
    name = f"rights_{uuid.uuid4().hex}"
    roles = ["readWrite", {"role": "userAdminAnyDatabase", "db": "admin"}]
    with MongoClient(as_root(initiated, name)) as root:
        root[name].jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
        root[name].command("createUser", "admin", pwd="adminpw", roles=roles)
        assert init(as_root(initiated, name), "--reader", "reader").exit_code == 0
        before = all_names(root, name)
        result = init(
            f"mongodb://admin:adminpw@{initiated.address}/{name}?replicaSet=rs0", "--remove"
        )
        assert all_names(root, name) == before
        assert init(as_root(initiated, name), "--remove").exit_code == 0
        root[name].command("dropAllUsersFromDatabase")
        for database in before["databases"]:
            root.drop_database(database)
    assert result.exit_code == 1
    assert f"may not run find on {name}_state" in problems(result)[0]
