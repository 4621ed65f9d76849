"""Documents of other queue programs, read with the shipped profiles: catches a wrong status, a
count that differs from the list of the same jobs, and a missing attempt, error or date."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import json_util
from pymongo import MongoClient

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.leader import LeaderLease
from jobmon.collector.run_details_counter import RunDetailsCounter
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.activity import count_activity
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.rollup.run_details import merge_details
from jobmon.settings import Settings
from jobmon.setup.check import check_deployment
from jobmon.store.labels import OTHER

from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.queue_service import Answer, QueueService, init, temporary_database
from ..support.waiting import eventually
from .test_agenda import may_scan

TYPES_WITHOUT_PAYLOAD = ("tick", "recovers", "every second", "fails hourly")
# These two programs do not store when a failed attempt ended if a retry is due.
WITHOUT_END_OF_FAILED = ("mongodb-queue", "celery-mongodb")
SEND = "com.shop.MailService.send(java.lang.String,java.lang.Long)"  # a type of JobRunr
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sample, the settings to read it, and the expected contents.

    `customized`: a profile in TOML that changes the shipped one. `jobs`: the number of jobs by
    (type, status). `attempts`: the statuses of the attempts, by (type, status) of their jobs.
    `errors`: how often each message is a job's last error. `next_runs`: the number of jobs with a
    `nextRunAt`. `owners`: the number of jobs by owner. `expired`: the number of expired leases,
    None if unknown. `no_end`: the final statuses whose jobs have no `finishedAt`. `has_creation`:
    whether the jobs have a `createdAt`.
    """

    sample: str
    profile: str
    collection: str
    owner_path: str | None = None
    customized: str = ""
    jobs: dict[tuple[str, str], int]
    attempts: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    next_runs: int = 0
    owners: dict[str, int] = field(default_factory=dict)
    expired: int | None = 0
    no_end: tuple[str, ...] = ()
    has_creation: bool = True


CASES = {
    "agenda": Case(
        sample="agenda-6",
        profile="agenda",
        collection="agendaJobs",
        owner_path="data.user.id",
        jobs={
            ("send email", "succeeded"): 1,
            ("send email", "disabled"): 1,
            ("hourly report", "queued"): 1,
            ("fails hourly", "failed"): 1,
            ("every second", "queued"): 1,
            ("cron nightly", "queued"): 1,
            ("bad email", "dlq"): 1,
            ("video", "leased"): 1,
            ("progress", "leased"): 1,
            ("dies", "leased"): 1,
            ("retry pay", "failed"): 1,
            ("gives up", "dlq"): 1,
            ("recovers", "succeeded"): 1,
            ("sync user", "queued"): 1,
            ("no worker", "queued"): 1,
            ("later", "queued"): 1,
            ("low", "queued"): 1,
        },
        attempts={
            ("send email", "succeeded"): ["succeeded"],
            ("hourly report", "queued"): ["succeeded"],
            ("fails hourly", "failed"): ["failed"],
            ("every second", "queued"): ["succeeded"],
            ("bad email", "dlq"): ["failed"],
            ("video", "leased"): ["running"],
            ("progress", "leased"): ["running"],
            ("dies", "leased"): ["running"],
            ("retry pay", "failed"): ["failed"],
            ("gives up", "dlq"): ["failed"],
            ("recovers", "succeeded"): ["succeeded"],
        },
        errors=Counter({"SMTP 550 mailbox unavailable": 4, "ETIMEDOUT": 1}),
        next_runs=10,
        owners={"bob": 1},
        expired=3,
    ),
    "celery": Case(
        sample="celery-mongodb",
        profile="celery",
        collection="celery_taskmeta",
        owner_path="kwargs.user_id",
        jobs={
            ("retry", "failed"): 1,
            ("bad", "dlq"): 1,
            ("mail", "succeeded"): 1,
            ("long", "succeeded"): 1,
        },
        attempts={
            ("retry", "failed"): ["failed"],
            ("bad", "dlq"): ["failed"],
            ("mail", "succeeded"): ["succeeded"],
            ("long", "succeeded"): ["succeeded"],
        },
        errors=Counter({"503": 1, "card declined, 402": 1}),
        owners={"ada": 1, "bob": 1},
        has_creation=False,
    ),
    "pulse": Case(
        sample="pulse",
        profile="pulse",
        collection="pulseJobs",
        owner_path="data.user.id",
        jobs={
            ("send email", "succeeded"): 1,
            ("send email", "disabled"): 1,
            ("bad email", "dlq"): 1,
            ("video", "leased"): 1,
            ("dies", "leased"): 1,
            ("retry pay", "failed"): 1,
            ("gives up", "dlq"): 1,
            ("recovers", "succeeded"): 1,
            ("result", "succeeded"): 1,
            ("no worker", "queued"): 1,
            ("later", "queued"): 1,
            ("hourly report", "queued"): 1,
            ("fails hourly", "failed"): 1,
            ("every second", "queued"): 1,
            ("cron nightly", "queued"): 1,
        },
        attempts={
            ("send email", "succeeded"): ["succeeded"],
            ("bad email", "dlq"): ["failed"],
            ("video", "leased"): ["running"],
            ("dies", "leased"): ["running"],
            ("retry pay", "failed"): ["failed"],
            ("gives up", "dlq"): ["failed"],
            ("recovers", "succeeded"): ["succeeded"],
            ("result", "succeeded"): ["succeeded"],
            ("hourly report", "queued"): ["succeeded"],
            ("fails hourly", "failed"): ["failed"],
            ("every second", "queued"): ["succeeded"],
        },
        errors=Counter({"SMTP 550 mailbox unavailable": 4, "ETIMEDOUT": 1}),
        next_runs=8,
        owners={"bob": 1},
        expired=2,
    ),
    "payload": Case(
        sample="payload",
        profile="payload",
        collection="payload-jobs",
        owner_path="input.userId",
        jobs={
            ("sendMail", "succeeded"): 1,
            ("charge", "dlq"): 1,
            ("sync", "failed"): 1,
            ("signup", "succeeded"): 1,
            ("sendMail", "queued"): 2,
            ("sendMail", "cancelled"): 1,
            ("export", "leased"): 1,
        },
        attempts={
            ("sendMail", "succeeded"): ["succeeded"],
            ("charge", "dlq"): ["failed", "failed"],
            ("sync", "failed"): ["failed"],
            ("signup", "succeeded"): ["succeeded", "succeeded"],
        },
        errors=Counter({"card declined": 1, "503 CRM": 1}),
        next_runs=3,
        owners={"bob": 1},
        expired=None,  # the program does not store when a lease expires
    ),
    "mongodb-queue": Case(
        sample="mongodb-queue",
        profile="mongodb-queue",
        collection="mail",
        customized='extends = "mongodb-queue"\n[constants]\nmax_tries = 2\n',
        jobs={
            ("mail", "succeeded"): 1,
            ("mail", "dlq"): 1,
            # The leases of these two messages have expired.
            ("mail", "failed"): 2,
            ("mail", "queued"): 2,
        },
        attempts={
            ("mail", "succeeded"): ["succeeded"],
            ("mail", "dlq"): ["failed"],
            ("mail", "failed"): ["failed", "failed"],
        },
        next_runs=4,
    ),
    "mongo-message-queue": Case(
        sample="mongo-message-queue",
        profile="mongo-message-queue",
        collection="_queue",
        jobs={
            ("charge", "dlq"): 1,
            ("sync", "failed"): 1,
            ("export", "leased"): 1,
            ("noWorker", "queued"): 1,
            ("sendMail", "queued"): 1,
        },
        attempts={
            ("charge", "dlq"): ["failed", "failed", "failed"],
            ("sync", "failed"): ["failed"],
        },
        errors=Counter({"gave up after 2 retries": 1, "503": 1}),
        next_runs=2,
        expired=1,
    ),
    "mongoosejs-task": Case(
        sample="mongoosejs-task",
        profile="mongoosejs-task",
        collection="tasks",
        owner_path="params.userId",
        jobs={
            ("mail", "succeeded"): 1,
            ("mail", "queued"): 1,
            ("mail", "cancelled"): 1,
            ("bad", "dlq"): 1,
            ("tick", "succeeded"): 2,
            ("tick", "queued"): 1,
            ("noWorker", "queued"): 1,
            ("long", "leased"): 1,
        },
        attempts={
            ("mail", "succeeded"): ["succeeded"],
            ("bad", "dlq"): ["failed"],
            ("tick", "succeeded"): ["succeeded", "succeeded"],
            ("long", "leased"): ["running"],
        },
        errors=Counter({"boom": 1}),
        next_runs=3,
        owners={"ada": 1},
        expired=1,
        no_end=("cancelled",),
    ),
    "hangfire": Case(
        sample="hangfire-mongo",
        profile="hangfire",
        collection="hangfire.jobGraph",
        jobs={
            ("Shop.Mailer.SendMail", "queued"): 2,
            ("Shop.Mailer.SendMail", "succeeded"): 1,
            ("Shop.Mailer.SendMail", "dlq"): 1,
            ("Shop.Mailer.SendMail", "failed"): 1,
            ("Shop.Mailer.SendMail", "cancelled"): 1,
            ("Shop.Mailer.SendMail", "awaiting"): 1,
            ("Shop.Mailer.Export", "leased"): 1,
        },
        attempts={
            ("Shop.Mailer.SendMail", "succeeded"): ["succeeded"],
            ("Shop.Mailer.SendMail", "dlq"): ["failed"],
            ("Shop.Mailer.SendMail", "failed"): ["failed"],
            ("Shop.Mailer.Export", "leased"): ["running"],
        },
        errors=Counter({"card declined": 1, "503": 1}),
        next_runs=2,
        expired=1,
    ),
    "jobrunr": Case(
        sample="jobrunr",
        profile="jobrunr",
        collection="jobs",
        jobs={
            (SEND, "queued"): 1,
            (SEND, "succeeded"): 1,
            (SEND, "dlq"): 1,
            (SEND, "failed"): 1,
            (SEND, "cancelled"): 1,
            (SEND, "deleted"): 1,
            ("com.shop.ExportService.run()", "queued"): 1,
            ("com.shop.ExportService.run()", "leased"): 1,
            ("com.shop.ExportService.nightly()", "succeeded"): 1,
        },
        attempts={
            (SEND, "succeeded"): ["succeeded"],
            (SEND, "dlq"): ["failed"],
            (SEND, "failed"): ["failed"],
            ("com.shop.ExportService.run()", "leased"): ["running"],
            ("com.shop.ExportService.nightly()", "succeeded"): ["succeeded"],
        },
        errors=Counter({"refused again": 1, "timed out": 1}),
        next_runs=2,
        expired=1,
    ),
}


class Sample(QueueService):
    """The service over a sample, with settings from these variables (without `JOBMON_`)."""

    def __init__(
        self, mongod: Mongod, database: Any, case: Case, variables: dict[str, str]
    ) -> None:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(f"JOBMON_{name}", value)
            settings = Settings.for_init("mongodb://db")
        super().__init__(
            mongod,
            database,
            profile=settings.profile,
            jobs_collection=settings.jobs_collection,
            job_fields=settings.job_fields,
        )
        self.case = case

    def list_jobs(self, **query: Any) -> list[Answer]:
        jobs: list[Answer] = self.get("/admin/jobs/queue", per_page=100, **query)["data"]
        return jobs


def load_sample(database: Any, name: str) -> None:
    """Insert the documents of every collection of a sample, without the program's indexes."""
    sample = json_util.loads((SAMPLES / f"{name}.json").read_text())
    for collection_name, collection in sample["collections"].items():
        database[collection_name].insert_many(collection["documents"])


@pytest.fixture(scope="module", params=CASES)
def sample(
    request: pytest.FixtureRequest,
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sample]:
    case = CASES[request.param]
    variables = {"PROFILE": case.profile, "JOBS_COLLECTION": case.collection}
    if case.customized:
        path = tmp_path_factory.mktemp("profiles") / "shop.toml"
        path.write_text(case.customized)
        variables["PROFILE"] = str(path)
    if case.owner_path:
        variables["JOB_FIELDS"] = f"createdBy={case.owner_path}"
    with temporary_database(mongo) as database:
        load_sample(database, case.sample)
        init(database_uri(mongod, database), **variables)
        sample = Sample(mongod, database, case, variables)
        yield sample
        sample.close()


def check_counts(sample: Sample, source: str) -> None:
    stats = sample.get("/admin/jobs/stats")
    assert stats["source"] == source
    by_type: dict[str, dict[str, int]] = {}
    for (job_type, status), count in sample.case.jobs.items():
        by_type.setdefault(job_type, {})[status] = count
    assert stats["typeCounts"] == by_type
    by_status: Counter[str] = Counter()
    for (_, status), count in sample.case.jobs.items():
        by_status[status] += count
    assert +Counter(stats["statusCounts"]) == by_status
    assert stats["totalJobs"] == stats["estimatedTotalJobs"] == sum(by_status.values())
    assert stats["expiredLeases"] == sample.case.expired


def test_statuses_and_types_are_counted_live(sample: Sample) -> None:
    check_counts(sample, "live")


# The collector counts with the expressions that count live: three profiles show each kind of them.
COUNTED_BY_COLLECTOR = ("mongodb-queue", "payload", "jobrunr")


@pytest.mark.parametrize(
    "sample",
    [
        name if name in COUNTED_BY_COLLECTOR else pytest.param(name, marks=pytest.mark.long)
        for name in CASES
    ],
    indirect=True,
)
def test_statuses_and_types_are_counted_by_the_collector(sample: Sample) -> None:
    with sample.running_collector():
        check_counts(sample, "rollup")


def test_every_count_equals_the_jobs_that_its_filter_finds(sample: Sample) -> None:
    for job_type, by_status in sample.get("/admin/jobs/stats")["typeCounts"].items():
        assert len(sample.list_jobs(type=job_type)) == sum(by_status.values()), job_type
        for status, count in by_status.items():
            jobs = sample.list_jobs(type=job_type, status=status)
            assert len(jobs) == count, (job_type, status)
            assert {(job["type"], job["status"]) for job in jobs} == {(job_type, status)}
    for status, count in sample.get("/admin/jobs/stats")["statusCounts"].items():
        assert len(sample.list_ids(status=status)) == count, status
    assert len(sample.list_ids()) == sum(sample.case.jobs.values())
    assert sample.list_ids(sort="createdAt") == sample.list_ids()[::-1]
    assert len(sample.list_ids(type=job_type)) == sum(by_status.values())
    assert sample.list_ids(type="none of them") == sample.list_ids(status="none of them") == []


def test_every_job_opens_with_its_attempts(sample: Sample) -> None:
    attempts: dict[tuple[str, str], list[str]] = {}
    for job in sample.list_jobs():
        detail = sample.get(f"/jobs/{job['jobId']}")
        error = detail["lastError"] and {key: detail["lastError"][key] for key in job["lastError"]}
        assert job == {name: detail[name] for name in job} | {"lastError": error}
        assert detail["payload"] is not None or job["type"] in TYPES_WITHOUT_PAYLOAD
        for attempt in detail["attempts"]:
            key = (job["type"], job["status"])
            attempts.setdefault(key, []).append(attempt["status"])
            has_end = attempt["finishedAt"] is not None
            is_stored = job["status"] != "failed" or sample.case.sample not in WITHOUT_END_OF_FAILED
            assert has_end == (attempt["status"] != "running" and is_stored)
    assert attempts == sample.case.attempts


def create_order_index(sample: Sample) -> bool:
    """Create the index of the program's lease order, if any; returns whether the order is known."""
    lease = sample.connection.profile.lease
    if lease is not None and lease.index:
        sample.connection.jobs.collection.create_index(list(lease.index), name="lease order")
    return lease is not None


def test_every_job_is_explained_by_its_status(sample: Sample) -> None:
    """Catches an explanation with an order, a start or a date that the documents do not have."""
    codes = {
        "queued": {"not_due", "waiting"},
        "failed": {"retry_scheduled", "waiting"},
        "leased": {"running", "lease_expired"},
        "succeeded": {"succeeded"},
        "dlq": {"dead", "attempts_used_up"},
        "cancelled": {"cancelled"},
    }
    knows_order = create_order_index(sample)
    for job in sample.list_jobs():
        explanation = sample.get(f"/jobs/{job['jobId']}")["explanation"]
        code, reasons = explanation["code"], explanation["reasons"]
        assert code in codes.get(job["status"], {"other_status"})
        assert explanation["expectedStart"] is None
        is_due = code == "waiting" and job["nextRunAt"] is not None
        assert (explanation["ahead"] is not None) == (knows_order and is_due), reasons
        if code == "waiting":
            assert "expectedStart" in reasons
            assert knows_order or "order" in reasons["ahead"] or not is_due
        if code in ("not_due", "retry_scheduled"):
            assert explanation["until"] == job["nextRunAt"]
        if code in ("succeeded", "dead", "attempts_used_up", "cancelled"):
            assert explanation["since"] == job["finishedAt"]
            assert (explanation["since"] is None) == ("since" in reasons)


@pytest.mark.parametrize("sample", ["agenda"], indirect=True)
def test_explanation_of_a_due_agenda_job_counts_the_jobs_ahead_of_it(sample: Sample) -> None:
    create_order_index(sample)
    (first,) = sample.list_jobs(type="no worker")
    due_at = datetime.fromisoformat(first["nextRunAt"]) + timedelta(seconds=1)
    second = {"name": "no worker", "priority": 0, "lockedAt": None, "nextRunAt": due_at}
    second_id = sample.database.agendaJobs.insert_one(second).inserted_id
    try:
        explanation = sample.get(f"/jobs/{second_id}")["explanation"]
        assert (explanation["ahead"], explanation["aheadIsExact"]) == (1, True)
        assert "; 1 due job of its type is ahead of it." in explanation["text"]
    finally:
        sample.database.agendaJobs.delete_one({"_id": second_id})
    (disabled,) = sample.list_jobs(status="disabled")
    explanation = sample.get(f"/jobs/{disabled['jobId']}")["explanation"]
    assert explanation["text"] == "It is disabled, and not started until it is enabled."


@pytest.mark.parametrize("sample", ["pulse"], indirect=True)
def test_attempts_that_pulse_only_counts_have_a_number_and_a_reason(sample: Sample) -> None:
    attempt_counts = {"recovers": 3, "every second": 6, "video": 1, "no worker": 0, "bad email": 1}
    for job_type, count in attempt_counts.items():
        (job,) = sample.list_jobs(type=job_type)
        detail = sample.get(f"/jobs/{job['jobId']}")
        assert job["attemptCount"] == detail["attemptCount"] == count
        numbers = [attempt["attemptNumber"] for attempt in detail["attempts"]]
        assert numbers == ([count] if count else [])
        assert detail["isRecurring"] is (job_type == "every second")
        reason = "the queue does not record every attempt"
        assert detail["reasons"] == ({"attempts": reason} if count > 1 else {})


@pytest.mark.parametrize("sample", ["jobrunr"], indirect=True)
def test_state_history_of_a_jobrunr_job_is_read_from_its_json_text(sample: Sample) -> None:
    (dead_lettered,) = sample.list_jobs(type=SEND, status="dlq")
    detail = sample.get(f"/jobs/{dead_lettered['jobId']}")
    assert (detail["attemptCount"], detail["lastError"]["code"]) == (2, "java.net.ConnectException")
    assert detail["payload"][0]["object"] == "u0@x.org"
    (attempt,) = detail["attempts"]
    assert (attempt["attemptNumber"], attempt["durationMs"]) == (2, 250)
    assert attempt["workerId"] == "mail-host"
    (running,) = sample.list_jobs(status="leased")
    assert running["leasedBy"] == "mail-host"
    (attempt,) = sample.get(f"/jobs/{running['jobId']}")["attempts"]
    assert attempt["startedAt"] is not None
    (deleted,) = sample.list_jobs(status="deleted")
    assert sample.get(f"/jobs/{deleted['jobId']}")["finishedAt"] is None


def test_errors_dates_and_owners_are_read(sample: Sample) -> None:
    jobs = sample.list_jobs()
    errors = Counter(job["lastError"]["message"] for job in jobs if job["lastError"])
    assert errors == sample.case.errors
    assert len([job for job in jobs if job["nextRunAt"]]) == sample.case.next_runs
    for job in jobs:
        assert (job["createdAt"] is not None) == sample.case.has_creation
        assert (job["finishedAt"] is not None) == (
            job["status"] in {"succeeded", "dlq", "cancelled"} - set(sample.case.no_end)
        )
    for owner, count in sample.case.owners.items():
        assert len(sample.list_ids(owner=owner)) == count
        assert len(sample.api.get_as_owner("/jobs", owner).json["data"]) == count
    assert sample.list_ids(owner="nobody") == []


def test_every_failed_run_that_is_counted_has_a_group(sample: Sample) -> None:
    """Catches a failed run whose error is in no group, or a group with another message."""
    connection, end = sample.connection, datetime.now(UTC) + timedelta(days=1)
    activity = count_activity(connection, end - timedelta(days=30), end, timedelta(days=1))
    rollup = OwnDatabase(rollup_database(connection), connection.queue_key)
    groups = ErrorGroups(rollup, Redactor())
    details = RunDetailsCounter(connection, groups).count(activity, timedelta(days=1))
    groups.write()
    failed_by_type: Counter[str] = Counter()
    for tallies in activity.values():
        for job_type, tally in tallies.items():
            failed_by_type[job_type] += tally.outcomes.total() - tally.outcomes["succeeded"]
    merged = merge_details(details.values())
    grouped_by_type: Counter[str] = Counter()
    for (group, job_type), count in merged.by_type.items():
        assert group != OTHER
        grouped_by_type[job_type] += count
    assert grouped_by_type == +failed_by_type
    messages = {group["message"] for group in rollup["errors"].find()} - {None}
    assert messages <= set(sample.case.errors)
    if +failed_by_type and sample.case.errors:
        assert messages


def test_no_list_reads_the_whole_collection(sample: Sample) -> None:
    with profiled(sample.database) as entries:
        for job_type, status in sample.case.jobs:
            sample.get("/admin/jobs/queue", status=status)
            sample.get("/admin/jobs/queue", type=job_type)
            sample.get("/admin/jobs/queue", type=job_type, status=status)
        for owner in sample.case.owners:
            sample.get("/admin/jobs/queue", owner=owner)
        sample.get("/admin/jobs/queue", sort="createdAt")
        sample.get(f"/jobs/{sample.list_jobs()[0]['jobId']}")
    assert entries
    for entry in entries:
        if not entry["ns"].endswith(".system.profile") and not may_scan(entry):
            assert "COLLSCAN" not in entry.get("planSummary", ""), json_util.dumps(entry)


def test_check_finds_nothing_missing(sample: Sample) -> None:
    findings = list(check_deployment(sample.settings))
    created = [finding for finding in findings if finding.check in ("indexes", "collections")]
    assert [finding.message for finding in created if finding.level != "ok"] == []
    fields = [finding for finding in findings if finding.check == "fields"]
    assert not [finding for finding in fields if finding.level == "problem"]
    # Hangfire's profile computes fields, which no index can serve.
    notes = [finding.message for finding in findings if finding.check == "profile"]
    assert bool(notes) == (sample.case.profile == "hangfire")
    assert not notes or all(name in notes[0] for name in ("type", "nextRunAt", "finishedAt"))


def test_collector_recounts_a_job_when_its_lease_expires(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a job that stays `leased` because no document changes when its lease expires.

    The clock of jobmon's own database is ahead: the rules use the clock of the watched server.
    """
    own_time = LeaderLease.database_time
    ahead = timedelta(minutes=1)
    monkeypatch.setattr(LeaderLease, "database_time", lambda lease: own_time(lease) + ahead)
    with temporary_database(mongo) as database:
        variables = {"PROFILE": "mongodb-queue", "JOBS_COLLECTION": "mail"}
        expires_at = datetime.now(UTC) + timedelta(seconds=4)
        for visible_at, message_count in ((expires_at, 2), (expires_at + timedelta(hours=1), 3)):
            text = visible_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message = {"visible": text, "payload": {}, "tries": 1}
            database.mail.insert_many(message | {"ack": str(ack)} for ack in range(message_count))
        ended = (datetime.now(UTC) - timedelta(minutes=2)).isoformat(timespec="milliseconds")
        done = {"visible": ended, "payload": {}, "tries": 1, "ack": "done"}
        database.mail.insert_one(done | {"deleted": ended.replace("+00:00", "Z")})
        init(database_uri(mongod, database), **variables)
        queue = Sample(mongod, database, CASES["mongodb-queue"], variables)

        def read_counts() -> dict[str, int]:
            stats = queue.get("/admin/jobs/stats")
            assert stats["source"] == "rollup"
            return {status: count for status, count in stats["statusCounts"].items() if count}

        with queue.running_collector():
            if datetime.now(UTC) < expires_at - timedelta(seconds=1):
                assert read_counts() == {"leased": 5, "succeeded": 1}
            eventually(lambda: read_counts() == {"leased": 3, "failed": 2, "succeeded": 1})
            eventually(lambda: queue.activity()["enqueued"] == 6)
            assert queue.activity() == {"enqueued": 6, "succeeded": 1, "failed": 0, "dlq": 0}
        assert len(queue.list_ids(status="leased")) == 3
        assert len(queue.list_ids(status="failed")) == 2
        queue.close()
