"""`jobmon check` on real servers: catches a finding that is missing or always reported, a
printed line that does not work, and a printed password."""

import itertools
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.cli import main
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.settings import Settings
from jobmon.setup import fields
from jobmon.setup.check import check_deployment
from jobmon.setup.findings import Finding, Level
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..conftest import DATE, NOW, SECRET
from ..support.commands import database_uri, guarded_server, init_as_root, make_uri
from ..support.waiting import eventually

Findings = list[Finding]
MongoDb = Database[dict[str, Any]]
MakeSettings = Callable[..., Settings]


def select(findings: Findings, check: str, *levels: Level) -> Findings:
    """The findings of one check with these levels; by default warnings and problems."""
    expected = levels or (Level.WARNING, Level.PROBLEM)
    return [finding for finding in findings if finding.check == check and finding.level in expected]


def select_one(findings: Findings, check: str, *levels: Level) -> Finding:
    """The single finding that `select` finds."""
    (finding,) = select(findings, check, *levels)
    return finding


@pytest.fixture
def settings(mongod: Mongod, database: MongoDb, make_settings: MakeSettings) -> Settings:
    """Settings for the test's database and rollups."""
    uri = database_uri(mongod, database)
    return make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups")


@pytest.fixture
def complete_queue(database: MongoDb, settings: Settings) -> MongoDb:
    """A queue with indexes, and three jobs: one succeeded, one is dead-lettered, one runs."""
    with MongoClient[dict[str, Any]](settings.mongo_uri) as client:
        create_indexes(Connection(settings, client), unique=True)
    queue = JobQueue(database)
    for outcome in ("succeed", "fail", "run"):
        queue.enqueue(outcome, created_by="ada", max_attempts=1)
        lease = queue.lease("worker-1")
        assert lease
        if outcome == "succeed":
            queue.report_success(lease)
        if outcome == "fail":
            queue.report_failure(lease, code="E", message="no")
    return database


def run_check(uri: str, *options: str, **variables: str) -> Result:
    environment = {"JOBMON_MONGO_URI": uri, "JOBMON_JWT_SECRET_KEY": SECRET, **variables}
    return CliRunner().invoke(main, ["check", *options], env=environment)


def test_check_of_a_complete_setup_finds_no_problem(
    complete_queue: MongoDb, settings: Settings
) -> None:
    with collecting(settings):
        eventually(lambda: not select(list(check_deployment(settings)), "collector"))
        findings = list(check_deployment(settings))
    warnings = [finding for finding in findings if finding.level is not Level.OK]
    # The only warning: the tests' server has no authentication.
    assert [finding.check for finding in warnings] == ["rights"], warnings
    messages = {finding.check: finding.message for finding in findings}
    assert f"MongoDB {complete_queue.client.server_info()['version']}," in messages["database"]
    assert "replica set rs0, 1 member" in messages["database"]
    assert "change stream" in messages["changes"]
    assert "The statistics are" in messages["collector"]
    assert len(select(findings, "collections", Level.OK)) == 2
    assert len(select(findings, "fields", Level.OK)) == 2


def test_check_prints_findings_with_their_remedies_and_a_summary(
    complete_queue: MongoDb, settings: Settings
) -> None:
    complete_queue.jobs.drop_indexes()
    result = run_check(settings.mongo_uri)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("ok       settings     The settings are valid: jobs and")
    assert any(line.startswith("problem  indexes ") for line in lines)
    assert any('db.getCollection("jobs").createIndex(' in line for line in lines)
    assert lines[-1] == "Problems: 1. Warnings: 2."


def test_check_json_has_level_message_and_remedy(
    complete_queue: MongoDb, settings: Settings
) -> None:
    result = run_check(settings.mongo_uri, "--json")
    report = json.loads(result.output)
    assert result.exit_code == 0  # warnings alone do not fail the check
    assert report["ok"] is True
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert findings["indexes"]["level"] == "ok"
    assert findings["collector"]["level"] == "warning"
    assert findings["collector"]["message"].startswith("No collector has stored statistics")
    assert findings["collector"]["remedy"]


def test_check_names_the_setting_of_a_missing_certificate() -> None:
    result = run_check("mongodb://ada:5ecret@db/shop?tls=true&tlsCAFile=/nowhere/ca.pem")
    assert result.exit_code == 1
    assert (
        "JOBMON_MONGO_URI: A file named in the connection string cannot be read." in result.output
    )


def test_check_of_a_rate_limit_without_a_storage_for_several_workers_is_a_problem() -> None:
    settings = Settings(mongo_uri="mongodb://127.0.0.1:1", rate_limit="1/minute", workers=2)
    problem = next(iter(check_deployment(settings)))
    assert (problem.check, problem.level) == ("settings", Level.PROBLEM)
    assert "JOBMON_RATE_LIMIT_STORAGE_URI" in problem.message


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_check_with_a_bad_setting_reports_a_finding(options: tuple[str, ...]) -> None:
    result = run_check("not a URI", *options)
    assert result.exit_code == 1
    assert "JOBMON_MONGO_URI: Not a MongoDB connection string" in result.output


@pytest.mark.parametrize(
    "uri",
    ["mongodb://ada:5ecret@127.0.0.1:1/shop", "mongodb+srv://ada:5ecret@nowhere.invalid/shop"],
    ids=["no server", "no DNS name"],
)
def test_check_of_an_unreachable_database_prints_one_problem_without_the_password(uri: str) -> None:
    result = run_check(uri, JOBMON_SERVER_SELECTION_TIMEOUT_MS="200")
    assert result.exit_code == 1
    assert "5ecret" not in result.output
    problems = [line for line in result.output.splitlines() if line.startswith("problem")]
    assert len(problems) == 1, result.output
    assert problems[0].startswith("problem  database     The database at ")
    assert "Problems: 1. Warnings: 0." in result.output


def test_check_of_missing_collections_suggests_one_that_looks_like_jobs(
    database: MongoDb, settings: Settings
) -> None:
    database.users.insert_one({"name": "ada", "status": "here", "type": "person"})
    assert "another name" in str(select(list(check_deployment(settings)), "collections")[0].remedy)
    database.work.insert_one({"jobId": "1", "status": "queued", "nextRunAt": NOW})
    jobs, attempts = select(list(check_deployment(settings)), "collections")
    assert jobs.level is Level.PROBLEM
    assert jobs.message == f"There is no collection {database.name}.jobs."
    assert jobs.remedy == "These look like jobs: work. Set JOBMON_JOBS_COLLECTION to one."
    assert attempts.level is Level.WARNING
    assert "JOBMON_ATTEMPTS_COLLECTION" in str(attempts.remedy)
    # No index is required while the collections may be the wrong ones.
    assert not select(list(check_deployment(settings)), "indexes")


def test_check_without_a_collection_of_jobs_does_not_report_complete_indexes(
    complete_queue: MongoDb, settings: Settings
) -> None:
    complete_queue.jobs.drop()
    findings = list(check_deployment(settings))
    assert "There is no collection" in select_one(findings, "collections").message
    assert not select(findings, "indexes", *Level)


def test_check_suggests_another_database_that_has_the_collection(
    mongo: MongoClient[dict[str, Any]], database: MongoDb, settings: Settings
) -> None:
    other_database = mongo[f"{database.name}_other"]
    other_database.jobs.insert_one({"jobId": "1"})
    try:
        finding = select(list(check_deployment(settings)), "collections")[0]
        assert other_database.name in str(finding.remedy)
        assert "JOBMON_MONGO_URI" in str(finding.remedy)
    finally:
        mongo.drop_database(other_database.name)


def test_check_reports_an_empty_collection_and_a_view(
    database: MongoDb, settings: Settings
) -> None:
    database.create_collection("jobs")
    database.create_collection("job_attempts", viewOn="jobs", pipeline=[])
    jobs, attempts = select(list(check_deployment(settings)), "collections")
    assert (jobs.level, jobs.message) == (Level.WARNING, f"{database.name}.jobs is empty.")
    assert attempts.level is Level.PROBLEM
    assert "is a view" in attempts.message


def test_check_reports_a_time_series_collection_and_a_collation(
    database: MongoDb, settings: Settings
) -> None:
    database.create_collection("jobs", timeseries={"timeField": "createdAt"})
    database.create_collection("job_attempts", collation={"locale": "en", "strength": 2})
    database.job_attempts.insert_one({"jobId": "1"})
    jobs, attempts = select(list(check_deployment(settings)), "collections")
    assert jobs.level is Level.PROBLEM
    assert "is a time series collection" in jobs.message
    assert attempts.level is Level.WARNING
    assert "default collation (locale en, strength 2)" in attempts.message


def test_check_needs_no_index_on_a_field_that_no_document_has(
    database: MongoDb, settings: Settings
) -> None:
    """Catches an index that `jobmon check` requires, but `jobmon init` does not create."""
    database.jobs.insert_one({"jobId": "1", "status": "queued", "createdAt": NOW})
    _, *lines = select_one(list(check_deployment(settings)), "indexes").commands
    assert len(lines) == 4
    environment = {"JOBMON_ADMIN_MONGO_URI": settings.mongo_uri}
    environment |= {"JOBMON_ROLLUP_DB": settings.rollup_db}
    assert CliRunner().invoke(main, ["init"], env=environment).exit_code == 0
    assert select(list(check_deployment(settings)), "indexes") == []
    database.jobs.update_one({}, {"$set": {"leaseExpiresAt": None}})
    assert "leaseExpiresAt" in select_one(list(check_deployment(settings)), "indexes").commands[-1]


def test_check_prints_lines_that_create_the_missing_indexes(
    complete_queue: MongoDb, settings: Settings
) -> None:
    complete_queue.jobs.drop_index("jobId_1")
    complete_queue.jobs.drop_index("status_1_type_1_createdAt_-1__id_-1")
    finding = select_one(list(check_deployment(settings)), "indexes")
    assert finding.level is Level.PROBLEM
    assert finding.message.startswith("2 indexes missing")
    init, *lines = finding.commands
    create = 'db.getCollection("jobs").createIndex'
    assert lines == [
        f'{create}({{"jobId": 1}}, {{"name": "jobmon_jobId_1"}})',
        f'{create}({{"status": 1, "type": 1, "createdAt": -1, "_id": -1}})',
    ]
    *assignments, program, command = shlex.split(init)
    assert (program, command) == ("jobmon", "init")
    environment = dict(assignment.split("=", 1) for assignment in assignments)
    result = CliRunner().invoke(main, ["init"], env=environment)
    assert result.exit_code == 0, result.output
    with MongoClient[dict[str, Any]](settings.mongo_uri) as client:
        assert set(create_indexes(Connection(settings, client)).values()) == {"exists"}


@pytest.mark.parametrize("name", ["my-jobs", "_queue", "stats", "ada's jobs"])
def test_check_prints_commands_with_the_configured_names(
    database: MongoDb, settings: Settings, make_settings: MakeSettings, name: str
) -> None:
    """Catches a name that ends the quotes, and `db.stats`, which is no collection in mongosh."""
    database[name].insert_one({"jobId": "1"})
    renamed = make_settings(mongo_uri=settings.mongo_uri, jobs_collection=name)
    init, line, *_ = select_one(list(check_deployment(renamed)), "indexes").commands
    assert init.startswith("JOBMON_JOBS_COLLECTION='")
    assert shlex.split(init)[0] == f"JOBMON_JOBS_COLLECTION={name}"
    assert " JOBMON_ADMIN_MONGO_URI='mongodb://" in init
    assert line.startswith(f'db.getCollection("{name}").createIndex(')


def test_check_reports_missing_fields_and_the_consequences(
    database: MongoDb, settings: Settings
) -> None:
    database.jobs.insert_many(
        {"job_id": job_id, "status": "leased", "createdAt": NOW, "attempts": 1}
        for job_id in ("1", "2", "3")
    )
    database.job_attempts.insert_one({"jobId": "1", "attemptNumber": 1, "status": "running"})
    findings = select(list(check_deployment(settings)), "fields")
    job_id_finding, *other_findings = (
        finding for finding in findings if "of jobs " in finding.message
    )
    assert job_id_finding.level is Level.PROBLEM
    assert job_id_finding.message == (
        "None of the newest documents of jobs has jobId (3 read): "
        "a job cannot be opened or followed."
    )
    assert job_id_finding.remedy == "If job_id is that field, set JOBMON_JOB_FIELDS=jobId=job_id."
    assert {finding.level for finding in other_findings} == {Level.WARNING}
    names = {finding.message.partition(" (")[0].rpartition(" ")[2] for finding in other_findings}
    # No job has ended or failed, so finishedAt and lastError may be missing. The number in
    # `attempts` is read as attemptCount.
    expected = {"type", "updatedAt", "createdBy", "payload", "priority", "nextRunAt", "maxAttempts"}
    assert names == expected | {"leasedBy", "leaseExpiresAt"}
    assert "with status leased has leasedBy" in str(other_findings)
    attempt_findings = [finding for finding in findings if "job_attempts" in finding.message]
    assert len(attempt_findings) == 2  # workerId, startedAt


def test_check_of_a_profile_in_a_file_advises_to_change_the_file(
    database: MongoDb, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(
        'always = ["nextRunAt"]\nstatus = { path = "state" }\n[fields]\njobId = "_id"\n'
        'nextRunAt = "waitUntil"\n'
    )
    database.jobs.insert_one({"wait_until": NOW, "State": "done"})
    file_settings = replace(settings, profile=str(path))
    status, next_run = select(list(check_deployment(file_settings)), "fields")
    assert status.remedy == f'If State is that field, set status.path = "State" in {path}.'
    assert (
        next_run.remedy
        == f'If wait_until is that field, set fields.nextRunAt = "wait_until" in {path}.'
    )
    connection = Connection(file_settings)
    with connection.client:
        unusable = fields.Sample(
            fields.expected_fields(file_settings, connection)[0]
        ).explain_unusable()
    assert unusable is not None
    assert f'set status.path = "FIELD", fields.nextRunAt = "FIELD" in {path}; docs' in str(unusable)


MISSPELLED_PROFILE = """\
always = ["type"]
where = { kind = { "$exists" = true } }
status = [
  { is = "leased", when = { "lock.until" = { "$gt" = "$now" } } },
  { is = "dlq", when = { stat = 4 } },
  { is = "queued" },
]
[readings]
made = "iso"
mde = "iso"
"runs.at" = "iso"
"args.at" = "iso"
[fields]
jobId = "_id"
type = "kind"
createdAt = "made"
payload = "arguments"
nextRunAt = { json = "args", path = "at" }
leaseExpiresAt = "lock.until"
priority = { path = "prio", when = { urgent = true } }
[attempts]
in = "array"
array = "runs"
status = [{ is = "failed", when = { why = { "$ne" = "$null" } } }, { is = "running" }]
[attempts.fields]
startedAt = "at"
finishedAt = "endd"
"""


def test_check_lists_the_paths_of_a_profiles_file_that_no_document_has(
    database: MongoDb, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(MISSPELLED_PROFILE)
    attempt = {"at": "2026", "end": "2026", "why": "no"}
    database.jobs.insert_many(
        [
            {"kind": "a", "state": 4, "made": "x", "args": "{}", "lock": None, "runs": [attempt]},
            {"kind": "a", "state": 1, "made": "x", "args": "{}", "lock": None, "runs": []},
        ]
    )
    finding = select_one(list(check_deployment(replace(settings, profile=str(path)))), "profile")
    assert finding.level is Level.WARNING
    assert finding.message == (
        f"No sampled document of jobs has these paths of {path}: fields.payload: arguments, "
        "fields.priority: urgent, fields.priority: prio, status.1.when: stat, "
        "attempts.fields.finishedAt: runs.endd, readings: mde."
    )
    path.write_text('extends = "agenda"\n[fields]\ncreatedBy = "data.usr"')
    database.agendaJobs.insert_one({"name": "a", "nextRunAt": NOW, "data": {"user": 1}})
    extended = replace(settings, profile=str(path), jobs_collection="agendaJobs")
    assert (
        ": fields.createdBy: data.usr."
        in select_one(list(check_deployment(extended)), "profile", Level.WARNING).message
    )
    path.write_text(MISSPELLED_PROFILE.replace("where = { kind", "where = { kin"))
    finding = select_one(list(check_deployment(replace(settings, profile=str(path)))), "fields")
    assert finding.message.startswith(
        "None of the documents of jobs matches `where` of the profile"
    )


def test_check_reports_unexpected_types_and_unknown_statuses(
    complete_queue: MongoDb, settings: Settings
) -> None:
    assert select(list(check_deployment(settings)), "fields") == []
    complete_queue.jobs.update_one({"status": "succeeded"}, {"$set": {"createdAt": DATE}})
    # An ObjectId is an expected type of createdBy.
    complete_queue.jobs.update_one({"status": "leased"}, {"$set": {"createdBy": ObjectId()}})
    complete_queue.jobs.update_one({"status": "dlq"}, {"$set": {"status": "pau\x1b[sed"}})
    type_finding, status_finding = select(list(check_deployment(settings)), "fields")
    assert type_finding.message.startswith(
        "createdAt in jobs should be date, but is string in 1 of 3 documents."
    )
    assert status_finding.message.startswith("Unknown statuses in jobs: pau?[sed (1), of 3.")


def test_check_accepts_each_type_of_a_status_and_an_id_that_can_be_searched(
    database: MongoDb, settings: Settings
) -> None:
    """Catches `cannot search by it` about numbers, and a number that has no name."""
    database.jobs.insert_many(
        {"jobId": key, "status": status, "type": status, "createdBy": index, "createdAt": NOW}
        for index, (key, status) in enumerate([(1, 1), (ObjectId(), True), (2**40, 7)])
    )
    named = replace(settings, status_names={"1": "queued", "true": "succeeded"})
    messages = [finding.message for finding in select(list(check_deployment(named)), "fields")]
    assert not [message for message in messages if "cannot search" in message]
    assert "Unknown statuses in jobs: 7 (1), of 3." in " ".join(messages)


def test_check_uses_mapped_fields_and_statuses(
    database: MongoDb, settings: Settings, make_settings: MakeSettings
) -> None:
    database.jobs.insert_one({"key": "1", "at": {"made": "today"}, "state": "done"})
    names = {"jobId": "key", "createdAt": "at.made", "status": "state"}
    renamed = make_settings(
        mongo_uri=settings.mongo_uri, job_fields=names, status_names={"done": "succeeded"}
    )
    findings = select(list(check_deployment(renamed)), "fields")
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []
    messages = [finding.message for finding in findings]
    assert any(
        "with status succeeded or dlq or cancelled has finishedAt" in message
        for message in messages
    )
    assert any(message.startswith("at.made in jobs should be date") for message in messages)
    assert not any("Unknown statuses" in message for message in messages)
    init, first, *_ = select_one(list(check_deployment(renamed)), "indexes").commands
    assert init.startswith("JOBMON_JOB_FIELDS='jobId=key,createdAt=at.made,status=state' ")
    assert first == 'db.getCollection("jobs").createIndex({"key": 1}, {"name": "jobmon_key_1"})'


def test_check_accepts_a_mapped_list_of_attempts_instead_of_attempt_count(
    database: MongoDb, settings: Settings, make_settings: MakeSettings
) -> None:
    database.jobs.insert_one({"jobId": "1", "createdAt": NOW, "status": "queued", "tries": []})
    renamed = make_settings(mongo_uri=settings.mongo_uri, job_fields={"attempts": "tries"})
    messages = [finding.message for finding in select(list(check_deployment(renamed)), "fields")]
    assert any("has priority" in message for message in messages)
    assert not any("has attemptCount" in message for message in messages)


def test_check_expects_the_fields_and_the_collections_of_the_profile(
    database: MongoDb, settings: Settings, make_settings: MakeSettings
) -> None:
    agenda = make_settings(
        mongo_uri=settings.mongo_uri, profile="agenda", jobs_collection="agendaJobs"
    )
    database.agendaJobs.insert_one({"name": "mail", "data": {}, "nextRunAt": NOW})
    findings = list(check_deployment(agenda))
    assert select(findings, "fields") == []
    assert [finding.message for finding in select(findings, "collections", *Level)] == [
        f"{database.name}.agendaJobs holds about 1 document."
    ]
    init, *_ = select_one(findings, "indexes").commands
    assert init.startswith("JOBMON_PROFILE='agenda' JOBMON_ADMIN")


def test_check_samples_only_the_newest_documents(
    complete_queue: MongoDb, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete_queue.jobs.update_many({"status": {"$ne": "leased"}}, {"$set": {"payload": "text"}})
    assert len(select(list(check_deployment(settings)), "fields")) == 1
    monkeypatch.setattr(fields, "SAMPLE_SIZE", 1)
    assert select(list(check_deployment(settings)), "fields") == []


@pytest.mark.parametrize(
    ("offset", "level", "direction"),
    [
        (timedelta(milliseconds=500), Level.OK, "behind"),
        (timedelta(seconds=30), Level.WARNING, "behind"),
        (timedelta(seconds=-30), Level.WARNING, "ahead of"),
    ],
    ids=["half a second behind", "behind", "ahead"],
)
def test_check_reports_a_clock_difference(
    settings: Settings,
    database: MongoDb,
    offset: timedelta,
    level: Level,
    direction: str,
) -> None:
    findings = list(check_deployment(settings, lambda: datetime.now(UTC) + offset))
    finding = select_one(findings, "clock", *Level)
    assert finding.level is level
    assert direction in finding.message


def test_check_does_not_report_a_slow_round_trip_as_a_clock_difference(
    settings: Settings, database: MongoDb
) -> None:
    # By this clock each query takes ten seconds: five to the server and five back.
    now = datetime.now(UTC)
    times = itertools.cycle((now - timedelta(seconds=5), now + timedelta(seconds=5)))
    finding = select_one(list(check_deployment(settings, lambda: next(times))), "clock", *Level)
    assert finding.level is Level.OK
    assert "± 5,000 ms" in finding.message


def test_check_reports_each_state_of_the_collector(
    complete_queue: MongoDb, settings: Settings
) -> None:
    def find_collector() -> Finding:
        return select_one(list(check_deployment(settings)), "collector", *Level)

    assert "No collector has stored statistics" in find_collector().message
    assert find_collector().commands == ("jobmon collector",)
    connection = Connection(settings)
    rollups = OwnDatabase(rollup_database(connection), connection.queue_key)
    now = datetime.now(UTC)
    build = rollups.new("build", {"at": now, "counted": 5, "estimated": 1_000})
    rollups["state"].insert_one(build)
    assert find_collector().message == "A first count is in progress: 5 of about 1,000 jobs."
    rollups["state"].update_one({"name": "build"}, {"$set": {"at": now - timedelta(hours=1)}})
    rollups["state"].insert_one(rollups.new("stats", {"at": now - timedelta(hours=3)}))
    assert find_collector().message.startswith(
        "No collector is running, and its statistics are 3 h"
    )
    lease = {"holder": "box:1", "expiresAt": now + timedelta(hours=1)}
    rollups["leases"].insert_one(rollups.new("collector", lease))
    outdated = "Collector box:1 is running, but its statistics are not up to date."
    assert find_collector().message == outdated
    assert find_collector().level is Level.WARNING
    rollups["state"].update_one({"name": "stats"}, {"$set": {"at": now + timedelta(hours=1)}})
    assert find_collector().level is Level.OK
    assert find_collector().message.endswith("kept by collector box:1.")
    connection.client.close()


@pytest.fixture(scope="module")
def standalone(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("standalone"), replica_set=None) as server:
        yield server


def test_check_of_a_standalone_server_reports_polling(
    standalone: Mongod, make_settings: MakeSettings
) -> None:
    settings = make_settings(mongo_uri=f"{standalone.uri}shop")
    with MongoClient[dict[str, Any]](standalone.uri) as client:
        client.shop.jobs.insert_one({"jobId": "1", "updatedAt": NOW})
        findings = list(check_deployment(settings))
        assert "a standalone server" in select_one(findings, "database", Level.OK).message
        finding = select_one(findings, "changes")
        assert finding.level is Level.WARNING
        assert "finds jobs with a new updatedAt within a second" in finding.message
        assert "jobmon init --replica-set" in finding.remedy
        line = 'db.getCollection("jobs").createIndex({"updatedAt": 1})'
        assert line in select_one(findings, "indexes").commands
        client.shop.jobs.update_one({}, {"$unset": {"updatedAt": 1}})
        assert (
            "no examined job has updatedAt: changes appear within"
            in select_one(list(check_deployment(settings)), "changes").message
        )
        # The profile payload does not require updatedAt, and agenda has no field for it.
        client.shop["payload-jobs"].insert_one({"updatedAt": NOW})
        client.shop.agendaJobs.insert_one({"name": "mail"})
    payload = replace(settings, profile="payload", jobs_collection="payload-jobs")
    finding = select_one(list(check_deployment(payload)), "changes")
    assert "finds jobs with a new updatedAt within a second" in finding.message
    agenda = replace(settings, profile="agenda", jobs_collection="agendaJobs")
    finding = select_one(list(check_deployment(agenda)), "changes")
    assert "jobs with a new _id or lockedAt or lastFinishedAt within a second" in finding.message
    assert finding.message.endswith("which keep only their last run.")


@pytest.fixture(scope="module")
def auth_server(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A server with authentication, the users of `jobmon init`, and users with other rights."""
    with guarded_server(tmp_path_factory.mktemp("authentication")) as server:
        init_as_root(server)
        with MongoClient[dict[str, Any]](make_uri(server, "root", "authSource=admin")) as root:
            root.shop.command("createUser", "writer", pwd="writerpw", roles=["readWrite"])
            root.shop.command("createUser", "nobody", pwd="nobodypw", roles=[])
            find_jobs = {"resource": {"db": "shop", "collection": "jobs"}, "actions": ["find"]}
            root.shop.command("createRole", "finder", privileges=[find_jobs], roles=[])
            root.shop.command("createUser", "finder", pwd="finderpw", roles=["finder"])
            queue = JobQueue(root.shop)
            queue.enqueue("email.send")
            assert queue.lease("worker-1")
        yield server


def test_check_as_the_reader_finds_neither_missing_nor_surplus_rights(
    auth_server: Mongod, make_settings: MakeSettings
) -> None:
    findings = list(check_deployment(make_settings(mongo_uri=make_uri(auth_server, "reader"))))
    assert select(findings, "rights") == [], select(findings, "rights")[0].message
    users, collector = select(findings, "rights", Level.OK)
    assert users.message == "User reader@shop may read everything that jobmon reads."
    assert collector.message.endswith("the web service does not need to.")
    assert select(findings, "indexes") == select(findings, "changes") == []
    assert not [finding for finding in findings if finding.level is Level.PROBLEM]


def test_check_reports_whether_a_collector_may_write(
    auth_server: Mongod, make_settings: MakeSettings
) -> None:
    reader_uri, writer_uri = (make_uri(auth_server, user) for user in ("reader", "collector"))
    for settings in (
        make_settings(mongo_uri=writer_uri),
        make_settings(mongo_uri=reader_uri, rollup_uri=writer_uri),
    ):
        collector = select(list(check_deployment(settings)), "rights", Level.OK)[-1]
        assert collector.message.startswith("A collector may write jobmon_rollups and jobmon_state")
    finding = select_one(
        list(check_deployment(make_settings(mongo_uri=reader_uri, collector=True))), "rights"
    )
    assert finding.level is Level.PROBLEM
    assert "JOBMON_COLLECTOR_PASSWORD=… jobmon init --collector USER" in finding.commands[0]


def test_check_reports_a_collector_whose_commands_would_be_refused(
    auth_server: Mongod, make_settings: MakeSettings
) -> None:
    """Catches `jobmon mark` that is refused although `jobmon check` found no problem."""
    name = "jobmonCollector.shop.jobs"
    with MongoClient[dict[str, Any]](make_uri(auth_server, "root", "authSource=admin")) as root:
        (role,) = root.admin.command("rolesInfo", name, showPrivileges=True)["roles"]
        privileges = role["privileges"]
        kept = [right for right in privileges if right["resource"]["collection"] != "marks"]
        # A right of older versions: its warning must not hide the missing right.
        decisions = {"db": "jobmon_state", "collection": "action_decisions"}
        kept.append({"resource": decisions, "actions": ["insert"]})
        without_marks = {"role": "withoutMarks", "db": "admin"}
        root.admin.command("createRole", "withoutMarks", privileges=kept, roles=[])
        root.shop.command("createUser", "older", pwd="olderpw", roles=[without_marks])
    older_uri = make_uri(auth_server, "older")
    settings = make_settings(mongo_uri=older_uri, rollup_uri=older_uri, actions=True)
    findings = list(check_deployment(settings))
    finding = select_one(findings, "rights", Level.PROBLEM)
    assert finding.message == "A collector may not write jobmon_state.marks with these settings."
    assert "jobmon init --collector USER" in finding.commands[0]
    surplus = select_one(findings, "rights", Level.WARNING)
    assert "may also write jobmon_state.action_decisions" in surplus.message
    assert findings.index(finding) < findings.index(surplus)


def test_check_reports_a_collector_connection_that_fails(
    auth_server: Mongod, make_settings: MakeSettings
) -> None:
    reader_uri = make_uri(auth_server, "reader")
    unreachable_uri = "mongodb://ada:5ecret@127.0.0.1:1/shop"
    for rollup_uri in (unreachable_uri, reader_uri.replace("readerpw", "no5ecret")):
        settings = make_settings(
            mongo_uri=reader_uri, rollup_uri=rollup_uri, server_selection_timeout_ms=1_000
        )
        findings = list(check_deployment(settings))
        finding = select_one(findings, "rights", Level.PROBLEM)
        assert finding.message.startswith("The collector's connection does not work: ")
        assert "5ecret" not in repr(findings)
        assert select(findings, "collector", *Level)  # the other checks run


@pytest.mark.parametrize("user", ["writer", "root"])
def test_check_warns_of_a_user_who_may_write(
    auth_server: Mongod, make_settings: MakeSettings, user: str
) -> None:
    options = "replicaSet=rs0" + ("&authSource=admin" if user == "root" else "")
    findings = list(check_deployment(make_settings(mongo_uri=make_uri(auth_server, user, options))))
    warnings = select(findings, "rights", Level.WARNING)
    assert [finding.message.partition(" (")[0] for finding in warnings] == [
        "The user may also change jobs",
        "The user may also change job_attempts",
    ]
    assert "insert" in warnings[0].message
    assert warnings[0].commands[0].endswith("jobmon init --reader USER")
    assert "ADMIN:PASSWORD@" in warnings[0].commands[0]


def test_check_names_missing_rights(auth_server: Mongod, make_settings: MakeSettings) -> None:
    findings = list(check_deployment(make_settings(mongo_uri=make_uri(auth_server, "finder"))))
    finding = select(findings, "rights", Level.PROBLEM)[0]
    assert finding.message == (
        "The user may not list the indexes of jobs; may not read the size (collStats) of jobs; "
        "may not read job_attempts; may not list the indexes of job_attempts; "
        "may not read jobmon_rollups; may not read jobmon_state."
    )
    assert "may not open a change stream on jobs" in select_one(findings, "changes").message
    assert "Unauthorized" in select_one(findings, "indexes").message


def test_check_without_rights_reports_rights_and_not_missing_collections(
    auth_server: Mongod, make_settings: MakeSettings
) -> None:
    findings = list(check_deployment(make_settings(mongo_uri=make_uri(auth_server, "nobody"))))
    assert "may not read jobs" in select(findings, "rights", Level.PROBLEM)[0].message
    assert select(findings, "collections") == []


@pytest.mark.parametrize(
    "wrong_name",
    [{"jobs_collection": "jobz"}, {"attempts_collection": "tries"}],
    ids=["jobs", "attempts"],
)
def test_check_with_a_user_of_another_collection_does_not_advise_more_rights(
    auth_server: Mongod, make_settings: MakeSettings, wrong_name: dict[str, str]
) -> None:
    """Catches advice to grant rights on another queue, when a name or the user is wrong."""
    settings = make_settings(mongo_uri=make_uri(auth_server, "reader"), **wrong_name)
    findings = list(check_deployment(settings))
    finding = select(findings, "rights", Level.PROBLEM)[0]
    ((setting, name),) = wrong_name.items()
    assert f"may not read {name}" in finding.message
    assert finding.commands == ()
    readable = {"jobs_collection": "jobs", "attempts_collection": "job_attempts"}[setting]
    assert f"It may read {readable}: set JOBMON_JOBS_COLLECTION or" in str(finding.remedy)
    assert select(findings, "changes") == []
    assert not any("--reader" in command for finding in findings for command in finding.commands)


@pytest.mark.parametrize(
    ("user", "message"),
    [("reader:no5ecret@", "does not know this user or password"), ("", "requires a user")],
    ids=["wrong password", "no user"],
)
def test_check_reports_a_refused_sign_in(
    auth_server: Mongod, make_settings: MakeSettings, user: str, message: str
) -> None:
    uri = f"mongodb://{user}{auth_server.address}/shop?directConnection=true"
    findings = list(check_deployment(make_settings(mongo_uri=uri)))
    assert [finding.check for finding in findings] == ["settings", "database"]
    assert message in findings[-1].message
    assert "5ecret" not in repr(findings)


def test_check_never_prints_a_password(auth_server: Mongod, tmp_path: Path) -> None:
    for user in ("reader", "writer", "finder", "nobody"):
        for options in ((), ("--json",)):
            result = run_check(make_uri(auth_server, user), *options)
            assert f"{user}pw" not in result.output
            assert SECRET not in result.output


def test_check_writes_nothing(complete_queue: MongoDb, settings: Settings) -> None:
    before = complete_queue.command("dbHash")["md5"]
    assert len(list(check_deployment(settings))) > 8
    assert complete_queue.command("dbHash")["md5"] == before
    assert settings.rollup_db not in complete_queue.client.list_database_names()
