"""`jobmon init --discover`: catches a queue that is missing or has a wrong profile, another
collection that is reported as a queue, a mapping that does not fit the documents, a write, and a
secret."""

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.profiles import load_profile
from jobmon.queue import JobQueue
from jobmon.setup import discover as discover_module
from jobmon.setup.discover import discover
from jobmon.setup.discovery_report import Candidate, Discovery, strip_uri
from jobmon.setup.recognition import Certainty

from ..adapters.test_samples import CASES, Case, load_sample
from ..support.commands import database_uri
from ..support.watched_queue import WatchedQueue, init

Document = dict[str, Any]
Documents = Database[Document]

NOW = datetime.now(UTC).replace(microsecond=0)
TEXT = NOW.strftime("%Y-%m-%dT%H:%M:%S.000Z")
SECRET = "hunter2-hunter2-hunter2"
STATES = ("pending", "running", "done", "retry", "failed", "aborted")
NAMES = ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]


def make_work_item(number: int) -> Document:
    """A job of a program that jobmon does not know."""
    state = STATES[number % 6]
    return {
        "kind": ("mail", "export")[number % 2],
        "state": state,
        "args": {"user_id": f"u-{number % 7}", "password": SECRET},
        "created_at": NOW - timedelta(minutes=number),
        "run_at_ms": int(NOW.timestamp() * 1_000) + number,
        "tries": number % 4,
        "max_tries": 5,
        "lock": {"owner": "w-1", "until": NOW} if state == "running" else None,
        "finished_at": NOW if state in ("done", "failed", "aborted") else None,
        "last_error": {"message": "boom"} if state in ("retry", "failed") else None,
    }


def make_order(number: int) -> Document:
    """A document with a status that is no job."""
    return {
        "number": number,
        "status": ("pending", "paid", "shipped", "cancelled", "completed")[number % 5],
        "type": ("web", "shop")[number % 2],
        "data": {"customer": number},
        "createdAt": NOW,
        "updatedAt": NOW,
        "scheduledFor": NOW,  # the delivery
    }


def make_user(number: int) -> Document:
    return {"name": f"u{number}", "status": ("active", "inactive")[number % 2], "createdAt": NOW}


def make_run(number: int) -> Document:
    """An attempt in a collection of its own."""
    status = ("running", "done")[number % 2]
    return {"task_id": number // 2, "status": status, "worker": "w", "attempt": 1, "started": NOW}


@pytest.fixture
def search(mongod: Mongod, database: Documents) -> Callable[..., Discovery]:
    def run(collection: str | None = None) -> Discovery:
        return discover(database_uri(mongod, database), "JOBMON_MONGO_URI", set(), collection)

    return run


@pytest.fixture
def run_command(mongod: Mongod, database: Documents, search: Any) -> Callable[..., Result]:
    def run(*options: str) -> Result:
        environment = {"JOBMON_MONGO_URI": database_uri(mongod, database)}
        return CliRunner().invoke(main, ["init", "--discover", *options], env=environment)

    return run


def find_only(discovery: Discovery, name: str) -> Candidate:
    (found,) = [
        candidate for candidate in discovery.candidates if candidate.sample.collection == name
    ]
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_sample_of_a_known_program_is_recognized_with_certainty(
    case: Case, database: Documents, search: Callable[..., Discovery]
) -> None:
    load_sample(database, case.sample)
    found = search()
    certain = [
        candidate for candidate in found.candidates if candidate.certainty is Certainty.CERTAIN
    ]
    profile = "agenda-logs" if "agenda_logs" in database.list_collection_names() else case.profile
    assert [(candidate.sample.collection, candidate.profile) for candidate in certain] == [
        (case.collection, profile)
    ]
    assert not [
        candidate for candidate in found.candidates if candidate.certainty is Certainty.PROBABLE
    ]
    titles, *jobs = certain[0].jobs
    assert titles == ("id", "type", "status", "created", "attempts")
    assert len(jobs) == min(10, sum(case.jobs.values()))
    # The customized profile of mongodb-queue has another limit of attempts.
    if not case.customized:
        assert {(job_type, status) for _, job_type, status, *_ in jobs} <= set(case.jobs)


def test_jobmons_own_queue_is_recognized_and_its_attempts_are_no_queue(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    queue = JobQueue(database)
    for _ in range(5):
        queue.enqueue("mail", {"to": "ada"})
    lease = queue.lease("w-1")
    assert lease is not None
    queue.report_success(lease)
    found = search()
    assert [(candidate.sample.collection, candidate.profile) for candidate in found.candidates] == [
        ("jobs", "jobmon")
    ]


@pytest.mark.parametrize(
    ("documents", "profile"),
    [
        ([{"name": "a", "data": {}, "type": "normal", "nextRunAt": NOW, "priority": 0}], None),
        ([{"visible": TEXT, "payload": 1}], "mongodb-queue"),
        ([{"visible": True, "payload": 1}], None),
        ([{"status": "SUCCESS", "result": "1", "traceback": None, "date_done": NOW}], None),
    ],
    ids=["like agenda", "few fields", "another form of dates", "like celery"],
)
def test_few_fields_of_a_known_program_are_not_certain(
    documents: list[Document],
    profile: str | None,
    database: Documents,
    search: Callable[..., Discovery],
) -> None:
    database.things.insert_many(documents)
    found = search().candidates
    assert {candidate.certainty for candidate in found} <= {Certainty.POSSIBLE}
    assert profile is None or [candidate.profile for candidate in found] == [profile]


def test_known_program_that_wrote_few_fields_is_probable_by_its_collection(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    """Celery without `result_extended`, and an Agenda whose jobs never ran."""
    ended = {"result": "1", "traceback": None, "children": [], "date_done": NOW}
    database.celery_taskmeta.insert_many({"status": "SUCCESS"} | ended for _ in range(3))
    saved = {"name": "mail", "data": {}, "type": "normal", "priority": 0, "nextRunAt": NOW}
    database.agendaJobs.insert_one(saved)
    found = search().candidates
    assert {(candidate.profile, candidate.certainty) for candidate in found} == {
        ("celery", Certainty.PROBABLE),
        ("agenda", Certainty.PROBABLE),
    }


def test_known_program_without_its_nulls_is_recognized(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    load_sample(database, "agenda-6")
    jobs = [
        {name: value for name, value in job.items() if value is not None}
        for job in database.agendaJobs.find()
    ]
    database.others.insert_many(jobs)
    found = find_only(search(), "others")
    assert found.profile == "agenda"  # the log is that of agendaJobs
    assert found.certainty in (Certainty.CERTAIN, Certainty.PROBABLE)


def test_retried_payment_is_at_most_possible(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    database.payments.insert_many(
        {
            "amount": number,
            "status": ("pending", "succeeded", "failed")[number % 3],
            "attempts": 1,
            "nextRetryAt": NOW,
        }
        for number in range(30)
    )
    assert find_only(search(), "payments").certainty is Certainty.POSSIBLE


def test_status_unknown_to_a_profile_makes_it_only_possible(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    load_sample(database, "mongoosejs-task")
    database.tasks.update_many({}, {"$set": {"status": "paused"}})
    found = find_only(search(), "tasks")
    assert found.certainty is Certainty.POSSIBLE
    assert "paused" in " ".join(found.reasons)


def test_unknown_queue_gets_a_mapping_that_counts_as_its_program_does(
    mongod: Mongod,
    database: Documents,
    run_command: Callable[..., Result],
    tmp_path: Path,
) -> None:
    database.work_items.insert_many(map(make_work_item, range(120)))
    done = run_command("--write", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert f"{database.name}.work_items: probably a queue" in done.output
    path = tmp_path / f"{database.name}-work_items.toml"
    profile = load_profile(str(path)).content
    assert profile["status"]["path"] == "state"
    assert profile["status"]["names"] == dict(zip(STATES, NAMES, strict=True))
    assert profile["readings"] == {"run_at_ms": "milliseconds"}
    assert profile["fields"] == {
        "jobId": "_id",
        "type": "kind",
        "payload": "args",
        "createdAt": "created_at",
        "nextRunAt": {"path": "run_at_ms", "only_in": ["queued", "failed"]},
        "finishedAt": "finished_at",
        "leasedBy": {"path": "lock.owner", "only_in": ["leased"]},
        "leaseExpiresAt": {"path": "lock.until", "only_in": ["leased"]},
        "attemptCount": "tries",
        "maxAttempts": "max_tries",
        "lastError": "last_error",
    }
    words = {"PROFILE": str(path), "JOBS_COLLECTION": "work_items"}
    init(database_uri(mongod, database), **words)
    watching = WatchedQueue(mongod, database, profile=str(path), jobs_collection="work_items")
    stats = watching.get("/admin/jobs/stats")
    assert {name: stats["statusCounts"][name] for name in NAMES} == dict.fromkeys(NAMES, 20)
    watching.close()


def test_owner_is_only_suggested(database: Documents, search: Callable[..., Discovery]) -> None:
    """A wrong owner would show a job to somebody else."""
    database.work_items.insert_many(map(make_work_item, range(12)))
    found = find_only(search(), "work_items")
    assert found.text is not None
    assert "createdBy" not in found.text
    assert 'createdBy = "args.user_id"' in " ".join(found.doubts)


@pytest.mark.parametrize("make", [make_order, make_user, make_run])
def test_collection_with_a_status_that_is_no_queue_is_none(
    make: Callable[[int], Document], database: Documents, search: Callable[..., Discovery]
) -> None:
    database.things.insert_many(map(make, range(60)))
    found = search()
    assert found.candidates == ()
    ((name, reason),) = found.others
    assert name == f"{database.name}.things"
    assert "no worker" in reason or "only a due date" in reason or "another collection" in reason


def test_values_of_unusual_types_do_not_end_the_search(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    """Code is a text that cannot be hashed; a date may be beyond the years of Python."""
    odd = {"type": Code("x"), "priority": Decimal128("1"), "finished_at": DatetimeMS(2**60)}
    database["odd 'queue\""].insert_many(make_work_item(number) | odd for number in range(12))
    found = find_only(search(), "odd 'queue\"")
    assert found.certainty is Certainty.PROBABLE
    assert len(found.jobs) == 11


def test_words_that_are_unclear_are_not_mapped(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    """Whether `failed` is retried cannot be seen here, and nobody knows `parked`."""
    database.work.insert_many(
        {
            "task": "mail",
            "status": ("waiting", "active", "failed", "parked")[number % 4],
            "data": {},
            "attempts": 1,
            "locked_by": "w-1",
            "run_at": NOW,
        }
        for number in range(40)
    )
    found = find_only(search(), "work")
    assert found.certainty is Certainty.POSSIBLE
    assert found.text is not None
    assert '"waiting" = "queued"' in found.text
    assert '# "failed" = ' in found.text
    assert '# "parked" = ' in found.text
    assert "parked is unknown" in " ".join(found.doubts)
    assert "whether a job with the status failed is tried again" in " ".join(found.doubts)


def test_numbers_as_statuses_are_left_to_the_reader(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    database.work.insert_many(
        {"state": number % 3, "data": {}, "attempts": 1, "locked_by": "w-1", "run_at": NOW}
        for number in range(30)
    )
    found = find_only(search(), "work")
    assert found.certainty is Certainty.POSSIBLE
    assert {status for _, _, status, *_ in found.jobs[1:]} == {"0", "1", "2"}


def test_queue_without_a_status_gets_no_profile(
    database: Documents, search: Callable[..., Discovery]
) -> None:
    database.work.insert_many(
        {"data": {}, "attempts": 1, "locked_by": "w-1", "run_at": NOW} for _ in range(5)
    )
    found = find_only(search(), "work")
    assert (found.certainty, found.profile, found.text) == (Certainty.POSSIBLE, None, None)
    assert "no field holds a status" in " ".join(found.doubts)


def test_nothing_is_written_to_mongodb_and_no_secret_is_printed(
    mongo: MongoClient[Document],
    database: Documents,
    run_command: Callable[..., Result],
    tmp_path: Path,
) -> None:
    database.work_items.insert_many(map(make_work_item, range(60)))
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    database.work_items.insert_one(make_work_item(2) | {"kind": token})
    before = database.command("dbHash")["md5"], sorted(database.list_collection_names())
    databases = mongo.admin.command("listDatabases", nameOnly=True)["databases"]
    done = run_command("--write", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert (database.command("dbHash")["md5"], sorted(database.list_collection_names())) == before
    assert mongo.admin.command("listDatabases", nameOnly=True)["databases"] == databases
    written = [path.read_text() for path in tmp_path.iterdir()]
    for text in (done.output, *written):
        assert SECRET not in text
        assert token not in text
        assert "u-1" not in text  # part of a payload


def test_files_are_private_and_existing_ones_are_kept(
    database: Documents, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    load_sample(database, "payload")
    folder = tmp_path / "new folder"
    assert "was written" in run_command("--write", str(folder)).output
    (settings,) = folder.iterdir()
    text = settings.read_text()
    assert settings.name == f"{database.name}-payload-jobs.env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert "JOBMON_PROFILE='payload'\n" in text
    assert "JOBMON_JWT_SECRET_KEY='" in text
    again = run_command("--write", str(folder))
    assert f"{settings} exists and was kept." in again.output
    assert settings.read_text() == text
    assert text.partition("SECRET_KEY=")[2].strip("'\n") not in again.output
    refused = run_command("--write", f"{settings}/below")
    assert refused.exit_code == 1
    assert "cannot be written" in refused.output


def test_only_possible_queue_gets_no_file(
    database: Documents, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    database.work.insert_many(
        {"state": n % 3, "data": {}, "attempts": 1, "locked_by": "w", "run_at": NOW}
        for n in range(9)
    )
    done = run_command("--write", str(tmp_path))
    assert "only possibly a queue: no file was written" in done.output
    assert not list(tmp_path.iterdir())


def test_search_is_bounded_and_names_what_it_left_out(
    database: Documents, search: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        database[f"c{number}"].insert_one({"n": number})
    monkeypatch.setattr(discover_module, "MAX_COLLECTIONS", 3)
    found = search()
    assert found.searched == 3
    assert found.limits == ("only 3 collections are searched",)
    assert search("c3").searched == 1


def test_connection_string_in_settings_has_no_user_and_no_secret() -> None:
    uri = "mongodb://root:pw@a:1,b:2/admin?replicaSet=rs0&authSource=admin&tlsCertificateKeyFilePassword=x"
    kept = "mongodb://a:1,b:2/shop?replicaSet=rs0&authSource=admin"
    assert strip_uri(uri, "shop") == kept
    assert strip_uri("mongodb+srv://u:p@db.example.org/?tls=true", "shop") == (
        "mongodb+srv://db.example.org/shop?tls=true"
    )


def test_options_that_do_not_fit_are_refused() -> None:
    runner = CliRunner(env={"JOBMON_MONGO_URI": "", "JOBMON_ADMIN_MONGO_URI": ""})
    for arguments, message in (
        (["--discover"], "--discover needs JOBMON_ADMIN_MONGO_URI or JOBMON_MONGO_URI."),
        (["--write", "."], "--write needs --discover."),
        ([], "Missing option '--mongo-uri'"),
    ):
        refused = runner.invoke(main, ["init", *arguments])
        assert refused.exit_code == 2
        assert message in refused.output
    bad = runner.invoke(main, ["init", "--discover"], env={"JOBMON_MONGO_URI": "http://db"})
    assert bad.exit_code == 1
    assert "JOBMON_MONGO_URI" in bad.output


def test_environment_of_another_queue_does_not_matter(
    database: Documents, run_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMON_PROFILE", "./gone.toml")
    load_sample(database, "payload")
    assert "payload-jobs: certainly a queue" in run_command().output


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A server with users, who may read everything, one collection, or nothing."""
    folder = tmp_path_factory.mktemp("guarded")
    with Mongod(folder, replica_set=None) as server, MongoClient[Document](server.uri) as client:
        load_sample(client.shop, "payload")
        load_sample(client.other, "mongoosejs-task")
        client.shop.secrets.insert_one({"status": "queued"})
        reads = {"resource": {"db": "shop", "collection": "payload-jobs"}, "actions": ["find"]}
        client.shop.command("createRole", "one", privileges=[reads], roles=[])
        roles = {"all": [{"db": "admin", "role": "readAnyDatabase"}], "one": ["one"]}
        for name, role in roles.items():
            client.shop.command("createUser", name, pwd=f"{name}pw", roles=role)
    with Mongod(folder, replica_set=None, options=("--auth",)) as server:
        yield server


def run_as(server: Mongod, user: str) -> Result:
    uri = f"mongodb://{user}{server.address}/shop?authSource=shop&serverSelectionTimeoutMS=2000"
    environment = {"JOBMON_ADMIN_MONGO_URI": uri}
    return CliRunner().invoke(main, ["init", "--discover"], env=environment)


def test_user_sees_the_queues_that_its_rights_allow(guarded: Mongod) -> None:
    done = run_as(guarded, "all:allpw@")
    assert "shop.payload-jobs: certainly a queue" in done.output
    assert "other.tasks: certainly a queue" in done.output
    assert "allpw" not in done.output
    assert f"JOBMON_MONGO_URI='mongodb://{guarded.address}/shop?authSource=shop'" in done.output
    assert "Add the read-only user that" in done.output
    few = run_as(guarded, "one:onepw@")
    assert few.exit_code == 0
    assert "1 collection searched, 1 possible queue found" in few.output


@pytest.mark.parametrize("user", ["", "one:wrong@"])
def test_user_who_cannot_sign_in_gets_a_problem(user: str, guarded: Mongod) -> None:
    refused = run_as(guarded, user)
    assert refused.exit_code == 1
    assert refused.output.startswith("problem  database")
    assert "wrong" not in refused.output.replace("user or password", "")
