"""`jobmon init` against a real server with authentication: would catch a set-up that lacks a
right, grants one too many, or cannot be run twice."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon import create_app
from jobmon.cli import main
from jobmon.embedded import Mongod
from jobmon.queue import JobQueue
from jobmon.rollup.collector import collecting
from jobmon.settings import Settings

from .conftest import Api
from .waiting import eventually


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
    command = ["init", "--replica-set", f"rs0/{server.address}", *more]
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
    assert "replica set rs0: initiated" in result.output
    users = [line for line in result.output.splitlines() if line.startswith("user")]
    own = "jobmon_rollups and jobmon_state"
    assert users == [
        f"user reader@shop: may read jobs and job_attempts, read {own}",
        f"user collector@shop: may read jobs and job_attempts, write {own}",
    ]
    assert "index jobs(status, type, -createdAt, -_id): created" in result.output
    return guarded


def test_init_run_again_changes_nothing_and_says_so(initiated: Mongod) -> None:
    result = run_init(initiated)
    assert result.exit_code == 0, result.output
    assert "replica set rs0: exists" in result.output
    assert ": created" not in result.output


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


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    away = "mongodb://127.0.0.1:1/shop?serverSelectionTimeoutMS=100"
    result = CliRunner().invoke(main, ["init", "--mongo-uri", away])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the database refused or did not answer")


def test_users_of_a_profile_may_read_what_it_reads_and_nothing_else(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    environment = {"JOBMON_PROFILE": "agenda", "JOBMON_READER_PASSWORD": "readerpw"}
    command = ["init", "--mongo-uri", uri, "--reader", "reader"]
    said = CliRunner().invoke(main, command, env=environment).output
    admin = database.client.admin
    (role,) = admin.command("rolesInfo", "jobmonReader", showPrivileges=True)["roles"]
    for name in ("jobmonReader", "jobmonCollector"):
        admin.command("dropRole", name)
    database.command("dropUser", "reader")
    assert f"user reader@{database.name}: may read agendaJobs, read jobmon_rollups" in said
    resources = [
        (each["resource"]["db"], each["resource"]["collection"]) for each in role["privileges"]
    ]
    own = [("jobmon_rollups", ""), ("jobmon_state", "")]
    assert sorted(resources) == [*own, (database.name, "agendaJobs")]


def test_options_of_init_override_the_settings_and_a_bad_one_is_a_line(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    environment = {"JOBMON_PROFILE": "celery", "JOBMON_JOBS_COLLECTION": "results"}
    by_setting = CliRunner().invoke(main, ["init", "--mongo-uri", uri], env=environment)
    assert "index results(status, date_done): created" in by_setting.output
    by_option = CliRunner().invoke(
        main, ["init", "--mongo-uri", uri, "--jobs", "tasks"], env=environment
    )
    assert "index tasks(status, date_done): created" in by_option.output
    bad = CliRunner().invoke(
        main, ["init", "--mongo-uri", uri], env={"JOBMON_JOB_FIELDS": "color=colour"}
    )
    assert bad.exit_code == 1
    assert bad.output.startswith("Error: JOBMON_JOB_FIELDS: Unknown: color.")
    assert bad.output.count("\n") == 1
