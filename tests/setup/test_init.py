"""`jobmon init` for queues of other programs: catches an index that makes their writes fail, an
index on a field that no document has, a new empty collection, and an incomplete setup."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.setup.findings import SetupError
from jobmon.setup.indexes import create_index, estimate_bytes
from jobmon.setup.replica_set import start_replica_set
from jobmon.store.connection import Connection
from jobmon.store.indexes import required_indexes

from ..conftest import NOW
from ..support.commands import (
    all_names,
    database_uri,
    init,
    outcomes,
    problems,
)

Document = dict[str, Any]
MongoDb = Database[Document]


@pytest.fixture
def shop(database: MongoDb) -> MongoDb:
    return database


def make_job(job_id: int, **fields: Any) -> Document:
    """A job with only the required fields."""
    return {"jobId": str(job_id), "status": "queued", "createdAt": NOW, **fields}


def insert_jobs(shop: MongoDb, types: tuple[str, ...]) -> None:
    """Insert 4,000 jobs of 50 owners, with the fields that the queue library writes."""
    JobQueue(shop).enqueue(types[0])
    template = shop.jobs.find_one_and_delete({})
    assert template is not None
    del template["_id"]
    shop.jobs.insert_many(
        template
        | {
            "jobId": str(uuid4()),
            "type": types[index % len(types)],
            "payload": {"n": index},
            "createdBy": f"user-{index % 50}",
            "createdAt": template["createdAt"] + timedelta(milliseconds=index),
            "leasedBy": None if index % 4 else f"worker-{index % 12}",
        }
        for index in range(4_000)
    )


# By test id: a function that makes the database unsuitable, and the message of the command.
UNSUITABLE: dict[str, tuple[Any, str]] = {
    "missing": (lambda shop: None, "There is no collection {shop}.jobs: "),
    "empty": (lambda shop: shop.create_collection("jobs"), "{shop}.jobs is empty: "),
    "other fields": (
        lambda shop: shop.jobs.insert_one({"number": 1, "state": "paid"}),
        "None of the newest documents of jobs has jobId, status, createdAt (1 read). "
        "They have _id, number, state.",
    ),
    "another name of a field": (
        lambda shop: shop.jobs.insert_many(
            [{"job_id": str(index), "status": "queued", "createdAt": NOW} for index in range(3)]
        ),
        "None of the newest documents of jobs has jobId (3 read). "
        "They have _id, createdAt, job_id, status.",
    ),
    "view": (
        lambda shop: (
            shop.real.insert_one(make_job(1)),
            shop.create_collection("jobs", viewOn="real", pipeline=[]),
        ),
        "{shop}.jobs is a view: ",
    ),
    "time series": (
        lambda shop: shop.create_collection("jobs", timeseries={"timeField": "createdAt"}),
        "{shop}.jobs is a time series collection: ",
    ),
    "attempts of another program": (
        lambda shop: (
            shop.jobs.insert_one(make_job(1)),
            shop.job_attempts.insert_one({"login": 1}),
        ),
        "None of the newest documents of job_attempts has jobId, attemptNumber, status (1 read).",
    ),
}


@pytest.mark.parametrize("case", UNSUITABLE)
def test_init_of_an_unsuitable_queue_creates_nothing(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb, case: str
) -> None:
    prepare, message = UNSUITABLE[case]
    prepare(shop)
    before = all_names(mongo, shop.name)
    result = init(database_uri(mongod, shop), "--reader", "reader", "--collector", "collector")
    assert result.exit_code == 1
    (problem,) = problems(result)
    assert message.format(shop=shop.name) in problem
    remedy = result.output.splitlines()[-1]
    assert "JOBMON_" in remedy
    assert all_names(mongo, shop.name) == before


@pytest.mark.parametrize("profile", ["agenda", "celery"])
def test_init_stops_if_documents_do_not_match_the_profile(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb, profile: str
) -> None:
    shop.users.insert_one({"name": "ada", "status": "here", "nextRunAt": NOW})
    before = all_names(mongo, shop.name)
    result = init(database_uri(mongod, shop), "--jobs", "users", PROFILE=profile)
    assert result.exit_code == 1
    assert len(problems(result)) == 1
    assert all_names(mongo, shop.name) == before


def test_init_names_the_condition_that_no_document_matches(mongod: Mongod, shop: MongoDb) -> None:
    """Catches a collection with documents that is reported as empty."""
    shop.jobs.insert_one({"_t": "SetDto"})
    result = init(database_uri(mongod, shop), PROFILE="hangfire", JOBS_COLLECTION="jobs")
    (problem,) = problems(result)
    assert f"No document of {shop.name}.jobs matches `where` of the profile: " in problem


def test_init_create_stops_if_documents_do_not_match(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb
) -> None:
    shop.jobs.insert_one({"number": 1})
    before = all_names(mongo, shop.name)
    assert init(database_uri(mongod, shop), "--create").exit_code == 1
    assert all_names(mongo, shop.name) == before


def test_init_suggests_where_the_jobs_may_be(mongod: Mongod, shop: MongoDb) -> None:
    shop.work.insert_one({**make_job(1), "nextRunAt": NOW})
    result = init(database_uri(mongod, shop))
    assert "These look like jobs: work. Set JOBMON_JOBS_COLLECTION to one." in result.output


def test_init_lets_other_programs_insert_without_an_id(mongod: Mongod, shop: MongoDb) -> None:
    """Catches a unique index on jobId: the second insert without a jobId would fail."""
    shop.jobs.insert_one(make_job(1))
    assert init(database_uri(mongod, shop)).exit_code == 0
    shop.jobs.insert_many([{"status": "queued"}, {"status": "queued"}])
    # The other program can still create a unique index of its own.
    shop.jobs.delete_many({"jobId": None})
    shop.jobs.create_index([("jobId", 1)], unique=True)
    assert not any(name == "job_attempts" for name in shop.list_collection_names())


def test_init_creates_indexes_only_for_fields_of_documents(mongod: Mongod, shop: MongoDb) -> None:
    shop.jobs.insert_many(make_job(index) for index in range(3))
    first = outcomes(result := init(database_uri(mongod, shop)))
    assert result.exit_code == 0
    created = {index for index, outcome in first.items() if outcome == "created"}
    assert created == {
        "jobs(jobId)",
        "jobs(-createdAt, -_id)",
        "jobs(status, -createdAt, -_id)",
        "jobs(status, type, -createdAt, -_id)",  # this index also counts the jobs by status
    }
    assert "no document in the samples has lastError.code" in result.output
    assert "There is no collection" in result.output  # of job_attempts
    # One document is enough, even the oldest. For lastError.code, a null lastError is enough.
    shop.jobs.insert_one({"_id": "", "lastError": None, "createdBy": "ada"})
    second = outcomes(init(database_uri(mongod, shop)))
    created = {index for index, outcome in second.items() if outcome == "created"}
    assert created == {
        "jobs(createdBy, -createdAt, -_id, type)",
        "jobs(createdBy, status, -createdAt, -_id, type)",
        "jobs(lastError.code, -createdAt, -_id, status, type)",
        "jobs(lastError.code, finishedAt, _id, status, type)",
    }


def test_init_finds_a_field_that_few_documents_have(mongod: Mongod, shop: MongoDb) -> None:
    shop.jobs.insert_many(make_job(index, priority=index) for index in range(2_500))
    shop.jobs.update_many({"priority": {"$mod": [100, 50]}}, {"$set": {"nextRunAt": NOW}})
    assert (
        outcomes(init(database_uri(mongod, shop)))["jobs(status, nextRunAt, _id, type)"]
        == "created"
    )


def test_init_create_prepares_an_empty_queue(mongod: Mongod, shop: MongoDb) -> None:
    result = init(database_uri(mongod, shop), "--create", "--unique")
    assert result.exit_code == 0, result.output
    assert set(outcomes(result).values()) == {"created"}
    assert set(shop.list_collection_names()) == {"jobs", "job_attempts"}
    JobQueue(shop).create_indexes()
    second = init(database_uri(mongod, shop), "--create", "--unique")
    assert set(outcomes(second).values()) == {"exists"}


def test_init_unique_is_refused_if_documents_lack_the_field_or_share_a_value(
    mongod: Mongod, shop: MongoDb
) -> None:
    shop.jobs.insert_many([make_job(1), {"status": "queued", "createdAt": NOW}])
    refusal = "documents without jobId, and 1 of the newest 2 have none"
    script = init(database_uri(mongod, shop), "--unique", "--print").output
    assert f"{refusal}.\n" in script
    assert '{"jobId": 1}' not in script
    for preview in (("--dry-run",), ()):
        result = init(database_uri(mongod, shop), "--unique", *preview)
        assert result.exit_code == 1
        assert refusal in result.output
    shop.jobs.update_many({}, {"$set": {"jobId": "twice"}})
    result = init(database_uri(mongod, shop), "--unique")
    assert result.exit_code == 1
    assert "jobs(jobId): cannot be unique, two documents have the same values." in result.output
    assert not any(index.get("unique") for index in shop.jobs.list_indexes())
    shop.jobs.delete_one({})
    assert init(database_uri(mongod, shop), "--unique").exit_code == 0
    with pytest.raises(DuplicateKeyError):
        shop.jobs.insert_one({"jobId": "twice"})


def test_init_dry_run_estimates_sizes_and_writes_nothing(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb
) -> None:
    insert_jobs(shop, ("email.send", "payout.execute", "report.build"))
    options = ("--reader", "reader", "--collector", "collector")
    before = all_names(mongo, shop.name), shop.command("dbHash")["md5"]
    preview = init(database_uri(mongod, shop), *options, "--dry-run")
    assert preview.exit_code == 0, preview.output
    assert (all_names(mongo, shop.name), shop.command("dbHash")["md5"]) == before
    assert "MiB (for filters of lists: `attempts` in JOBMON_FILTERS)" in preview.output
    for name in ("reader", "collector"):
        assert f"{name}@{shop.name}: may read jobs" in preview.output
    expected = {
        index for index, outcome in outcomes(preview).items() if outcome == "would be created"
    }
    created = {
        index
        for index, outcome in outcomes(init(database_uri(mongod, shop), *options)).items()
        if outcome == "created"
    }
    assert expected == created
    assert len(created) == 16


def test_init_estimates_two_thirds_to_six_times_the_size_of_an_index(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb
) -> None:
    insert_jobs(shop, tuple(f"type-{index}" for index in range(5)))
    connection = Connection(Settings(mongo_uri=database_uri(mongod, shop)))
    indexes = [index for index in required_indexes(connection) if index.collection.name == "jobs"]
    estimates = {str(index): estimate_bytes(index, connection.max_time_ms) for index in indexes}
    names = {str(index): create_index(index) for index in indexes}
    connection.client.close()
    mongo.admin.command("fsync")
    sizes = shop.command("collStats", "jobs")["indexSizes"]
    for index, name in names.items():
        # A small index has at least 20 kB, whatever it holds.
        assert sizes[name] / 1.5 <= estimates[index] + 20_000, (index, sizes[name])
        assert estimates[index] <= 6 * sizes[name], (index, sizes[name], estimates[index])


def test_init_of_a_standalone_server_starts_no_replica_set(
    tmp_path: Path,
) -> None:
    with Mongod(tmp_path, replica_set=None) as server, MongoClient(server.uri) as client:
        client.shop.jobs.insert_one(make_job(1, updatedAt=NOW))
        result = init(f"{server.uri}shop")
        assert outcomes(result)["jobs(updatedAt)"] == "created"
        for preview in ([], ["--dry-run"], ["--print"]):
            options = ("--replica-set", f"rs0/{server.address}", *preview)
            result = init(f"{server.uri}shop", *options)
            assert result.exit_code == 1
            assert "was not started as a member of a replica set" in result.output
            assert "--replSet rs0" in result.output


def test_init_over_a_direct_connection_to_a_secondary_is_refused() -> None:
    """Catches a wait of a minute for this server to become the primary."""
    hello = {"setName": "rs0", "secondary": True, "isWritablePrimary": False, "primary": "db-1:1"}
    client = Mock(**{"admin.command.return_value": hello})
    with pytest.raises(SetupError) as raised:
        start_replica_set(client, "rs0/db-2:1")
    message = "The server is a secondary of rs0; the primary is db-1:1."
    assert raised.value.finding.message == message
    client.admin.command.assert_called_once_with("hello")


@pytest.mark.parametrize("preview", [(), ("--dry-run",), ("--print",)])
def test_init_refuses_a_member_of_another_replica_set(
    mongod: Mongod, shop: MongoDb, preview: tuple[str, ...]
) -> None:
    """Catches a preview of steps that `jobmon init` then refuses."""
    options = ("--replica-set", f"other/{mongod.address}", *preview)
    result = init(database_uri(mongod, shop), *options)
    assert result.exit_code == 1
    assert "in the replica set rs0, not in other" in result.output


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mongodb://ada:5ecret@127.0.0.1:1/shop?serverSelectionTimeoutMS=100", "does not answer"),
        ("mongodb+srv://ada:5ecret@nowhere.invalid/shop", "nowhere.invalid"),
        ("nonsense", "JOBMON_ADMIN_MONGO_URI: Not a MongoDB connection string"),
        ("mongodb://ada:5ecret@db/shop?tls=true&tlsCAFile=/nowhere/ca.pem", "cannot be read"),
    ],
    ids=["no server", "no DNS name", "no URI", "no certificate"],
)
@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--print",), ("--remove",)])
def test_init_of_an_unreachable_database_prints_one_problem(
    uri: str, message: str, options: tuple[str, ...]
) -> None:
    result = init(uri, *options)
    assert result.exit_code == 1
    assert len(problems(result)) == 1
    assert message in result.output
    assert "5ecret" not in result.output


def test_init_with_a_bad_setting_prints_one_problem(mongod: Mongod, shop: MongoDb) -> None:
    result = init(database_uri(mongod, shop), JOB_FIELDS="color=colour")
    assert result.exit_code == 1
    assert "JOBMON_JOB_FIELDS: Unknown: color." in problems(result)[0]


def test_init_options_override_settings(mongod: Mongod, shop: MongoDb) -> None:
    for name in ("results", "tasks"):
        shop[name].insert_one({"_id": "1", "status": "SUCCESS", "date_done": NOW})
    environment = {"PROFILE": "celery", "JOBS_COLLECTION": "results"}
    by_setting = outcomes(init(database_uri(mongod, shop), **environment))
    assert by_setting["results(status, date_done, _id)"] == "created"
    by_option = outcomes(init(database_uri(mongod, shop), "--jobs", "tasks", **environment))
    assert by_option["tasks(status, date_done, _id)"] == "created"


def test_init_with_a_profile_grants_only_its_collections(
    mongod: Mongod, mongo: MongoClient[Document], shop: MongoDb
) -> None:
    shop.agendaJobs.insert_one({"name": "mail", "data": {}, "nextRunAt": NOW})
    result = init(database_uri(mongod, shop), "--reader", "reader", PROFILE="agenda")
    assert result.exit_code == 0, result.output
    name = f"jobmonReader.{shop.name}.agendaJobs"
    (role,) = mongo.admin.command("rolesInfo", name, showPrivileges=True)["roles"]
    resources = {
        (privilege["resource"]["db"], privilege["resource"]["collection"])
        for privilege in role["privileges"]
    }
    state = f"{shop.name}_state"
    outside_state = {resource for resource in resources if resource[0] != state}
    assert outside_state == {(f"{shop.name}_rollups", ""), (shop.name, "agendaJobs")}
    assert (state, "") not in resources
