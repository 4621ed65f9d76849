"""`jobmon init --discover`: catches a queue that is missing or has a wrong profile, another
collection that is reported as a queue, a mapping that does not fit the documents, a write to
MongoDB, and a printed secret."""

import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128, ObjectId
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.profiles import load_profile, parse_file
from jobmon.queue import JobQueue
from jobmon.setup import discover as discover_module
from jobmon.setup.discover import discover
from jobmon.setup.discovery_report import Candidate, Discovery, strip_uri
from jobmon.setup.recognition import Certainty

from ..adapters.test_samples import CASES, Case, load_sample
from ..support.commands import database_uri
from ..support.queue_service import QueueService, init

Document = dict[str, Any]
MongoDb = Database[Document]

NOW = datetime.now(UTC).replace(microsecond=0)
NOW_TEXT = NOW.strftime("%Y-%m-%dT%H:%M:%S.000Z")
SECRET = "hunter2-hunter2-hunter2"
STATES = ("pending", "running", "done", "retry", "failed", "aborted")
# The statuses of jobmon for STATES, in the same order.
STATUSES = ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]


def make_work_item(index: int) -> Document:
    """A job of a program that jobmon does not know."""
    state = STATES[index % 6]
    return {
        "kind": ("mail", "export")[index % 2],
        "state": state,
        "args": {"user_id": f"u-{index % 7}", "password": SECRET},
        "created_at": NOW - timedelta(minutes=index),
        "run_at_ms": int(NOW.timestamp() * 1_000) + index,
        "tries": index % 4,
        "max_tries": 5,
        "lock": {"owner": "w-1", "until": NOW} if state == "running" else None,
        "finished_at": NOW if state in ("done", "failed", "aborted") else None,
        "last_error": {"message": "boom"} if state in ("retry", "failed") else None,
    }


def make_order(index: int) -> Document:
    """A document that has a status, but is no job."""
    return {
        "number": index,
        "status": ("pending", "paid", "shipped", "cancelled", "completed")[index % 5],
        "type": ("web", "shop")[index % 2],
        "data": {"customer": index},
        "createdAt": NOW,
        "updatedAt": NOW,
        "scheduledFor": NOW,  # the time of the delivery
    }


def make_user(index: int) -> Document:
    return {"name": f"u{index}", "status": ("active", "inactive")[index % 2], "createdAt": NOW}


def make_run(index: int) -> Document:
    """A document of a collection of attempts."""
    status = ("running", "done")[index % 2]
    return {"task_id": index // 2, "status": status, "worker": "w", "attempt": 1, "started": NOW}


@pytest.fixture
def search(mongod: Mongod, database: MongoDb) -> Callable[..., Discovery]:
    def run(collection: str | None = None) -> Discovery:
        return discover(database_uri(mongod, database), "JOBMON_MONGO_URI", set(), collection)

    return run


@pytest.fixture
def run_command(mongod: Mongod, database: MongoDb) -> Callable[..., Result]:
    def run(*options: str) -> Result:
        environment = {"JOBMON_MONGO_URI": database_uri(mongod, database)}
        return CliRunner().invoke(main, ["init", "--discover", *options], env=environment)

    return run


def find_candidate(discovery: Discovery, name: str) -> Candidate:
    (candidate,) = [
        candidate for candidate in discovery.candidates if candidate.sample.collection == name
    ]
    return candidate


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_sample_of_a_known_program_is_recognized_with_certainty(
    case: Case, database: MongoDb, search: Callable[..., Discovery]
) -> None:
    load_sample(database, case.sample)
    discovery = search()
    certain = [
        candidate for candidate in discovery.candidates if candidate.certainty is Certainty.CERTAIN
    ]
    profile = "agenda-logs" if "agenda_logs" in database.list_collection_names() else case.profile
    assert [(candidate.sample.collection, candidate.profile) for candidate in certain] == [
        (case.collection, profile)
    ]
    assert not [
        candidate for candidate in discovery.candidates if candidate.certainty is Certainty.PROBABLE
    ]
    titles, *jobs = certain[0].jobs
    assert titles == ("id", "type", "status", "created", "attempts")
    assert len(jobs) == min(10, sum(case.jobs.values()))
    # The customized profile has another limit of attempts, so some jobs have another status.
    if not case.customized:
        assert {(job_type, status) for _, job_type, status, *_ in jobs} <= set(case.jobs)


def test_jobmons_own_queue_is_recognized_and_its_attempts_are_no_queue(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    queue = JobQueue(database)
    for _ in range(5):
        queue.enqueue("mail", {"to": "ada"})
    lease = queue.lease("w-1")
    assert lease is not None
    queue.report_success(lease)
    discovery = search()
    (candidate,) = discovery.candidates
    assert (candidate.sample.collection, candidate.profile) == ("jobs", "jobmon")


@pytest.mark.parametrize(
    ("documents", "profile"),
    [
        ([{"name": "a", "data": {}, "type": "normal", "nextRunAt": NOW, "priority": 0}], None),
        ([{"visible": NOW_TEXT, "payload": 1}], "mongodb-queue"),
        ([{"visible": True, "payload": 1}], None),
        ([{"status": "SUCCESS", "result": "1", "traceback": None, "date_done": NOW}], None),
    ],
    ids=["like agenda", "few fields", "visible is no date", "like celery"],
)
def test_few_fields_of_a_known_program_are_at_most_possible(
    documents: list[Document],
    profile: str | None,
    database: MongoDb,
    search: Callable[..., Discovery],
) -> None:
    database.things.insert_many(documents)
    candidates = search().candidates
    assert {candidate.certainty for candidate in candidates} <= {Certainty.POSSIBLE}
    assert profile is None or [candidate.profile for candidate in candidates] == [profile]


def test_program_with_a_status_is_no_known_program_without_one(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches dead jobs that are shown as waiting, because the names of the dates are the same."""
    states = {"pending": "queued", "running": "leased", "completed": "succeeded", "failed": "dlq"}
    job = {"name": "mail", "data": {}, "priority": 5, "nextRunAt": NOW, "lastRunAt": NOW}
    database.scheduler_jobs.insert_many(
        job | {"status": state, "attempts": 1} | ({"lockedAt": NOW} if state == "running" else {})
        for state in states
        for _ in range(5)
    )
    candidate = find_candidate(search(), "scheduler_jobs")
    assert candidate.certainty is Certainty.PROBABLE
    profile = parse_file(candidate.stem, str(candidate.text)).content
    assert profile["status"]["names"] == states


@pytest.mark.parametrize(
    ("state", "status"), [("failed", "dlq"), ("completed", "succeeded"), ("pending", "queued")]
)
def test_one_status_of_all_jobs_is_enough_for_another_program(
    state: str, status: str, database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches dead jobs that are shown as waiting, because no job has another status."""
    dates = {"nextRunAt": NOW, "lastRunAt": NOW, "lastFinishedAt": NOW}
    job = {"name": "mail", "data": {}, "priority": 5, "status": state} | dates
    database.scheduler_jobs.insert_many(dict(job) for _ in range(20))
    candidate = find_candidate(search(), "scheduler_jobs")
    assert candidate.text is not None
    profile = parse_file(candidate.stem, candidate.text).content
    assert profile["status"]["names"] == {state: status}


def test_known_program_with_another_field_that_is_named_like_a_status_stays_known(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches a field of the users that hides the profile of their program.

    The profile of jobmon reads another status. In each job of Agenda, the field has one value.
    """
    queue = JobQueue(database)
    for _ in range(5):
        queue.enqueue("mail", {"to": "ada"})
    load_sample(database, "agenda-6")
    database.jobs.update_many({}, {"$set": {"stage": "new"}})
    database.jobs.update_one({}, {"$set": {"stage": "done"}})
    database.agendaJobs.update_many({}, {"$set": {"phase": "active"}})
    candidates = [find_candidate(search(), collection) for collection in ("jobs", "agendaJobs")]
    assert [(candidate.profile, candidate.certainty) for candidate in candidates] == [
        ("jobmon", Certainty.CERTAIN),
        ("agenda-logs", Certainty.CERTAIN),
    ]


def test_known_program_that_wrote_few_fields_is_probable_by_its_collection_name(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Celery without `result_extended`, and an Agenda whose jobs never ran, write few fields."""
    ended = {"result": "1", "traceback": None, "children": [], "date_done": NOW}
    database.celery_taskmeta.insert_many({"status": "SUCCESS"} | ended for _ in range(3))
    saved = {"name": "mail", "data": {}, "type": "normal", "priority": 0, "nextRunAt": NOW}
    database.agendaJobs.insert_one(saved)
    candidates = search().candidates
    assert {(candidate.profile, candidate.certainty) for candidate in candidates} == {
        ("celery", Certainty.PROBABLE),
        ("agenda", Certainty.PROBABLE),
    }


def test_known_program_without_its_nulls_is_recognized(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    load_sample(database, "agenda-6")
    jobs = [
        {name: value for name, value in job.items() if value is not None}
        for job in database.agendaJobs.find()
    ]
    database.copies.insert_many(jobs)
    candidate = find_candidate(search(), "copies")
    assert candidate.profile == "agenda"  # not agenda-logs: the log belongs to agendaJobs
    assert candidate.certainty in (Certainty.CERTAIN, Certainty.PROBABLE)


def test_queue_without_leases_and_attempts_is_recognized_by_its_dates(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    database.work.insert_many(
        {
            "func_name": ("mail", "export")[index % 2],
            "args": [index],
            "status": ("queued", "dequeued", "complete")[index % 3],
            "delay": NOW,
            "times": {"enqueued_at": NOW, "dequeued": NOW if index % 3 else None},
            "ended": NOW if index % 3 == 2 else None,
        }
        for index in range(30)
    )
    candidate = find_candidate(search(), "work")
    assert candidate.certainty is Certainty.PROBABLE
    profile = parse_file(candidate.stem, str(candidate.text)).content
    assert profile["status"]["names"]["dequeued"] == "leased"
    assert profile["fields"] == {
        "jobId": "_id",
        "type": "func_name",
        "payload": "args",
        "createdAt": "times.enqueued_at",
        "nextRunAt": {"path": "delay", "only_in": ["queued", "failed"]},
        "startedAt": "times.dequeued",
        "finishedAt": "ended",
    }


@pytest.mark.parametrize(
    ("name", "make_reference", "is_log"),
    [
        ("job_id", lambda index: f"own-{index}", False),
        ("job_id", lambda index: f"shared-{index % 9}", True),
        ("jobId", lambda _: ObjectId(), True),
        ("job", lambda index: {"n": index}, False),
    ],
    ids=["own id", "ids of other documents", "_id of another document", "document"],
)
def test_job_with_its_own_id_is_no_log(
    name: str,
    make_reference: Callable[[int], Any],
    is_log: bool,
    database: MongoDb,
    search: Callable[..., Discovery],
) -> None:
    database.jobs.insert_many(
        {
            name: make_reference(index),
            "status": ("queued", "running", "done")[index % 3],
            "worker": "w-1",
            "attempts": 1,
        }
        for index in range(30)
    )
    discovery = search()
    assert [candidate.certainty for candidate in discovery.candidates] == (
        [] if is_log else [Certainty.PROBABLE]
    )


def test_retried_payment_is_at_most_possible(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    database.payments.insert_many(
        {
            "amount": index,
            "status": ("pending", "succeeded", "failed")[index % 3],
            "attempts": 1,
            "nextRetryAt": NOW,
        }
        for index in range(30)
    )
    assert find_candidate(search(), "payments").certainty is Certainty.POSSIBLE


@pytest.mark.parametrize(("payload", "is_queue"), [("spec", True), ("metadata", False)])
def test_idle_queue_with_arguments_is_possible(
    payload: str, is_queue: bool, database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches a queue without leases and dates that is none as long as no job runs."""
    states = ("WAITING", "PAUSED", "COMPLETED", "FIZZLED", "DEFUSED")
    database.fireworks.insert_many(
        {"name": "relax", "state": states[n % 5], payload: {"n": n}} for n in range(30)
    )
    assert [candidate.certainty for candidate in search().candidates] == (
        [Certainty.POSSIBLE] if is_queue else []
    )


def test_subscription_with_metadata_is_at_most_possible(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches a file for a collection of subscriptions: metadata are no arguments."""
    states = ("pending", "active", "expired", "cancelled")
    database.subscriptions.insert_many(
        {"status": states[n % 4], "metadata": {"plan": n}, "startedAt": NOW, "retries": 0}
        for n in range(30)
    )
    assert find_candidate(search(), "subscriptions").certainty is Certainty.POSSIBLE


def test_queue_with_a_status_unknown_to_its_profile_is_only_possible(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    load_sample(database, "mongoosejs-task")
    database.tasks.update_many({}, {"$set": {"status": "paused"}})
    candidate = find_candidate(search(), "tasks")
    assert candidate.certainty is Certainty.POSSIBLE
    assert "paused" in " ".join(candidate.reasons)


def test_unknown_queue_gets_a_profile_that_counts_each_status_correctly(
    mongod: Mongod, database: MongoDb, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    database.work_items.insert_many(map(make_work_item, range(120)))
    result = run_command("--write", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert f"{database.name}.work_items: probably a queue" in result.output
    path = tmp_path / f"{database.name}.work_items.toml"
    profile = load_profile(str(path)).content
    assert profile["status"]["path"] == "state"
    assert profile["status"]["names"] == dict(zip(STATES, STATUSES, strict=True))
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
    variables = {"PROFILE": str(path), "JOBS_COLLECTION": "work_items"}
    init(database_uri(mongod, database), **variables)
    queue = QueueService(mongod, database, profile=str(path), jobs_collection="work_items")
    stats = queue.get("/admin/jobs/stats")
    assert {name: stats["statusCounts"][name] for name in STATUSES} == dict.fromkeys(STATUSES, 20)
    queue.close()


def test_rare_statuses_among_many_ended_jobs_are_found_with_their_fields(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches a healthy queue that is no queue because its sample has only ended jobs."""
    items = (make_work_item(index) for index in (1, 4, 5, 0))
    database.work_items.insert_many([*items, *(make_work_item(2) for _ in range(3_000))])
    candidate = find_candidate(search(), "work_items")
    assert candidate.certainty is Certainty.PROBABLE
    assert candidate.text is not None
    for state, status in zip(STATES, STATUSES, strict=True):
        assert (f'"{state}" = "{status}"' in candidate.text) is (state != "retry")
    assert 'leaseExpiresAt = { path = "lock.until"' in candidate.text


@pytest.mark.parametrize(
    ("timespec", "zone"),
    [("milliseconds", "Z"), ("seconds", "Z"), ("microseconds", "+00:00"), ("microseconds", "")],
)
def test_dates_as_text_are_proposed_and_counted_in_each_form_of_utc(
    timespec: str, zone: str, mongod: Mongod, database: MongoDb, tmp_path: Path
) -> None:
    """Python writes microseconds and +00:00, other languages whole seconds or milliseconds."""

    def to_text(minutes: int) -> str:
        moment = NOW.replace(tzinfo=None) + timedelta(minutes=minutes, microseconds=1_500)
        return moment.isoformat(timespec=timespec) + zone

    database.work_items.insert_many(
        make_work_item(index)
        | {"created_at": to_text(-60), "run_at_ms": to_text(-5 if index % 4 else 300)}
        for index in range(24)
    )
    discovery = discover(database_uri(mongod, database), "JOBMON_MONGO_URI", set())
    candidate = find_candidate(discovery, "work_items")
    assert candidate.text is not None
    assert ("no time zone" in " ".join(candidate.doubts)) is (zone == "")
    path = tmp_path / "work_items.toml"
    path.write_text(candidate.text)
    queue = QueueService(mongod, database, profile=str(path), jobs_collection="work_items")
    stats = queue.get("/admin/jobs/stats")
    # `pending` are 0, 6, 12, 18; `retry` are 3, 9, 15, 21: two of the eight are due in 5 hours.
    assert (stats["dueJobs"], stats["scheduledJobs"]) == (6, 2)
    assert len(queue.list_ids(status="queued")) == 4
    queue.close()


def test_numbers_that_are_0_in_place_of_a_date_are_proposed_as_dates(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    end_ms = int(NOW.timestamp() * 1_000)
    database.work_items.insert_many(
        make_work_item(index) | {"finished_at": end_ms if index % 6 == 2 else 0, "done": 0}
        for index in range(24)
    )
    text = find_candidate(search(), "work_items").text
    assert text is not None
    assert '"finished_at" = "milliseconds"' in text


@pytest.mark.parametrize("is_job", [True, False])
def test_documents_without_a_status_are_left_out_only_if_they_are_no_jobs(
    is_job: bool, database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """Catches waiting jobs that no count contains, because they have no status yet."""
    database.work_items.insert_many(map(make_work_item, range(60)))
    other = make_work_item(0) if is_job else {"lock": {"owner": "w-1", "until": NOW}}
    other.pop("state", None)
    database.work_items.insert_many(dict(other) for _ in range(3))
    candidate = find_candidate(search(), "work_items")
    profile = parse_file(candidate.stem, str(candidate.text)).content
    assert ("where" in profile) is not is_job
    assert "documents without state are" in " ".join(candidate.doubts)


@pytest.mark.parametrize(
    ("name", "states", "certainty"),
    [
        ("mail_jobs", ("pending", "running", "completed"), Certainty.PROBABLE),
        ("mail_jobs", ("pending", "completed"), Certainty.POSSIBLE),
        ("mails", ("pending", "running", "completed"), Certainty.POSSIBLE),
    ],
)
def test_one_sign_is_enough_if_the_name_the_statuses_and_the_payload_are_those_of_jobs(
    name: str,
    states: tuple[str, ...],
    certainty: Certainty,
    database: MongoDb,
    search: Callable[..., Discovery],
) -> None:
    database[name].insert_many(
        {"status": states[index % len(states)], "input": {}, "attempts": 1} for index in range(30)
    )
    assert find_candidate(search(), name).certainty is certainty


def test_a_count_of_remaining_attempts_is_no_count_of_attempts(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    database.mail_jobs.insert_many(
        {"status": ("waiting", "active")[index % 2], "retries_left": 3} for index in range(30)
    )
    candidate = find_candidate(search(), "mail_jobs")
    assert "it has attempts (retries_left)" in candidate.reasons
    assert "attemptCount" not in " ".join([*candidate.doubts, str(candidate.text)])


def test_owner_is_only_suggested(database: MongoDb, search: Callable[..., Discovery]) -> None:
    """Catches an owner that was guessed: a wrong owner would see the jobs of other people."""
    database.work_items.insert_many(map(make_work_item, range(12)))
    candidate = find_candidate(search(), "work_items")
    assert candidate.text is not None
    assert "createdBy" not in candidate.text
    assert 'createdBy = "args.user_id"' in " ".join(candidate.doubts)


@pytest.mark.parametrize("make_document", [make_order, make_user, make_run])
def test_a_collection_with_a_status_but_without_jobs_is_no_queue(
    make_document: Callable[[int], Document], database: MongoDb, search: Callable[..., Discovery]
) -> None:
    database.things.insert_many(map(make_document, range(60)))
    discovery = search()
    assert discovery.candidates == ()
    ((name, reason),) = discovery.others
    assert name == f"{database.name}.things"
    assert "no worker" in reason or "only a due date" in reason or "another collection" in reason


def test_values_of_unusual_types_do_not_end_the_search(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """BSON code cannot be hashed in Python; a BSON date may be after Python's last year."""
    values = {"type": Code("x"), "priority": Decimal128("1"), "finished_at": DatetimeMS(2**60)}
    database["odd 'queue\""].insert_many(make_work_item(index) | values for index in range(12))
    candidate = find_candidate(search(), "odd 'queue\"")
    assert candidate.certainty is Certainty.PROBABLE
    assert len(candidate.jobs) == 11  # the titles, and ten jobs


def test_statuses_with_an_unclear_meaning_hide_no_failure(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    """The documents do not show whether a `failed` job is retried; `parked` is an unknown word.

    Catches a `failed` job that is counted as one that waits for its retry, only by its name.
    """
    database.work.insert_many(
        {
            "task": "mail",
            "status": ("waiting", "active", "failed", "parked")[index % 4],
            "data": {},
            "attempts": 1,
            "locked_by": "w-1",
            "run_at": NOW,
        }
        for index in range(40)
    )
    candidate = find_candidate(search(), "work")
    assert candidate.certainty is Certainty.POSSIBLE
    assert candidate.text is not None
    assert '"waiting" = "queued"' in candidate.text
    assert '"failed" = "dlq"  # unsure' in candidate.text
    assert '# "parked" = ' in candidate.text
    assert "parked is unknown" in " ".join(candidate.doubts)
    assert "do not show that such jobs are tried again" in " ".join(candidate.doubts)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "dlq"),
        ({"next_run": NOW + timedelta(minutes=2)}, "failed"),
        ({"next_run": NOW - timedelta(days=1)}, "dlq"),
        ({"next_run": None}, "dlq"),
    ],
    ids=["due as before", "due again", "due earlier", "not due"],
)
@pytest.mark.parametrize("has_start", [True, False])
def test_failed_job_is_retried_only_if_it_became_due_again(
    changes: Document,
    status: str,
    *,
    has_start: bool,
    database: MongoDb,
    search: Callable[..., Discovery],
) -> None:
    """A due date stays in the documents of many programs, also in a job that has ended.

    Catches dead jobs that are shown as waiting for a retry.
    """
    last_date = "started_at" if has_start else "updated_at"
    database.work.insert_many(
        {
            "task": "mail",
            "status": ("pending", "running", "completed", "failed")[index % 4],
            "data": {},
            "locked_by": "w-1",
            "next_run": NOW - timedelta(minutes=5),
            "completed_at": NOW if index % 4 == 2 else None,
            last_date: NOW,
        }
        | (changes if index % 4 == 3 else {})
        for index in range(40)
    )
    text = find_candidate(search(), "work").text
    assert text is not None
    assert f'"failed" = "{status}"  # unsure' in text


def test_a_queue_with_numbers_as_statuses_is_only_possible(
    database: MongoDb, search: Callable[..., Discovery]
) -> None:
    database.work.insert_many(
        {"state": index % 3, "data": {}, "attempts": 1, "locked_by": "w-1", "run_at": NOW}
        for index in range(30)
    )
    candidate = find_candidate(search(), "work")
    assert candidate.certainty is Certainty.POSSIBLE
    assert {status for _, _, status, *_ in candidate.jobs[1:]} == {"0", "1", "2"}


def test_nothing_is_written_to_mongodb_and_no_secret_is_printed(
    mongo: MongoClient[Document],
    database: MongoDb,
    run_command: Callable[..., Result],
    tmp_path: Path,
) -> None:
    database.work_items.insert_many(map(make_work_item, range(60)))
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    database.work_items.insert_one(make_work_item(2) | {"kind": token})
    before = database.command("dbHash")["md5"], sorted(database.list_collection_names())
    databases = mongo.admin.command("listDatabases", nameOnly=True)["databases"]
    result = run_command("--write", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert (database.command("dbHash")["md5"], sorted(database.list_collection_names())) == before
    assert mongo.admin.command("listDatabases", nameOnly=True)["databases"] == databases
    written = [path.read_text() for path in tmp_path.iterdir()]
    for text in (result.output, *written):
        assert SECRET not in text
        assert token not in text
        assert "u-1" not in text  # part of a payload


def test_collections_with_similar_names_get_their_own_files(
    database: MongoDb, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    """Catches a queue that is read with the profile of another one, whose file was kept."""
    names = ("jobs.mail", "jobs-mail", "jobs mail", "jobs/mail")
    for name in names:
        database[name].insert_many(map(make_work_item, range(20)))
    output = run_command("--write", str(tmp_path)).output
    assert "was kept" not in output
    written = [path.read_text() for path in tmp_path.iterdir() if path.suffix == ".env"]
    for name in names:
        (text,) = (text for text in written if f"JOBMON_JOBS_COLLECTION='{name}'\n" in text)
        (path,) = re.findall(r"JOBMON_PROFILE='(.*)'", text)
        assert load_profile(path).content["status"]["path"] == "state"


def test_files_are_private_and_existing_ones_are_kept(
    database: MongoDb, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    load_sample(database, "payload")
    folder = tmp_path / "new folder"
    assert "was written" in run_command("--write", str(folder)).output
    (settings_file,) = folder.iterdir()
    text = settings_file.read_text()
    assert settings_file.name == f"{database.name}.payload-jobs.env"
    assert stat.S_IMODE(settings_file.stat().st_mode) == 0o600
    assert "JOBMON_PROFILE='payload'\n" in text
    assert "JOBMON_JWT_SECRET_KEY='" in text
    result = run_command("--write", str(folder))
    assert f"{settings_file} exists and was kept." in result.output
    assert settings_file.read_text() == text
    assert text.partition("SECRET_KEY=")[2].strip("'\n") not in result.output
    result = run_command("--write", f"{settings_file}/below")
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_only_possible_queue_gets_no_file(
    database: MongoDb, run_command: Callable[..., Result], tmp_path: Path
) -> None:
    database.work.insert_many(
        {"state": index % 3, "data": {}, "attempts": 1, "locked_by": "w", "run_at": NOW}
        for index in range(9)
    )
    result = run_command("--write", str(tmp_path))
    assert "only possibly a queue: no file was written" in result.output
    assert not list(tmp_path.iterdir())


def test_the_search_reports_its_limits(
    database: MongoDb, search: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(4):
        database[f"c{index}"].insert_one({"n": index})
    assert search("c3").searched == 1
    monkeypatch.setattr(discover_module, "_MAX_SECONDS", 0.0)
    discovery = search()
    assert discovery.searched == 0
    assert discovery.limits == ("the search ended after 0 s",)


def test_connection_string_in_settings_has_no_user_and_no_secret() -> None:
    uri = "mongodb://root:pw@a:1,b:2/admin?replicaSet=rs0&authSource=admin&tlsCertificateKeyFilePassword=x"
    expected = "mongodb://a:1,b:2/shop?replicaSet=rs0&authSource=shop"
    assert strip_uri(uri, "shop") == expected
    assert strip_uri("mongodb+srv://u:p@db.example.org/?tls=true", "shop") == (
        "mongodb+srv://db.example.org/shop?tls=true&authSource=shop"
    )
    without_user = "mongodb://a:1/?tls=true&authSource=%24external"
    assert strip_uri(without_user, "shop") == "mongodb://a:1/shop?tls=true&authSource=%24external"


def test_missing_options_and_a_wrong_uri_are_refused() -> None:
    runner = CliRunner(env={"JOBMON_MONGO_URI": "", "JOBMON_ADMIN_MONGO_URI": ""})
    for arguments, message in (
        (["--discover"], "--discover needs JOBMON_ADMIN_MONGO_URI or JOBMON_MONGO_URI."),
        (["--write", "."], "--write needs --discover."),
        ([], "Missing option '--mongo-uri'"),
    ):
        result = runner.invoke(main, ["init", *arguments])
        assert result.exit_code == 2
        assert message in result.output
    result = runner.invoke(main, ["init", "--discover"], env={"JOBMON_MONGO_URI": "http://db"})
    assert result.exit_code == 1
    assert "JOBMON_MONGO_URI" in result.output
    uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"
    result = runner.invoke(main, ["init", "--discover"], env={"JOBMON_MONGO_URI": uri})
    assert "Is the address in JOBMON_MONGO_URI correct from this machine?" in result.output


def test_the_environment_of_another_queue_is_ignored(
    database: MongoDb, run_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMON_PROFILE", "./gone.toml")
    load_sample(database, "payload")
    assert "payload-jobs: certainly a queue" in run_command().output


@pytest.fixture(scope="module")
def auth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A server with two users: `all` may read every database, `one` only one collection."""
    folder = tmp_path_factory.mktemp("authentication")
    with Mongod(folder, replica_set=None) as server, MongoClient[Document](server.uri) as client:
        load_sample(client.shop, "payload")
        load_sample(client.other, "mongoosejs-task")
        client.shop.secrets.insert_one({"status": "queued"})
        privilege = {"resource": {"db": "shop", "collection": "payload-jobs"}, "actions": ["find"]}
        client.shop.command("createRole", "one", privileges=[privilege], roles=[])
        roles = {"all": [{"db": "admin", "role": "readAnyDatabase"}], "one": ["one"]}
        for name, role in roles.items():
            client.shop.command("createUser", name, pwd=f"{name}pw", roles=role)
    with Mongod(folder, replica_set=None, options=("--auth",)) as server:
        yield server


def run_as(server: Mongod, credentials: str) -> Result:
    uri = f"mongodb://{credentials}{server.address}/shop?authSource=shop&serverSelectionTimeoutMS=2000"
    environment = {"JOBMON_ADMIN_MONGO_URI": uri}
    return CliRunner().invoke(main, ["init", "--discover"], env=environment)


def test_user_sees_the_queues_that_its_rights_allow(auth_server: Mongod) -> None:
    result = run_as(auth_server, "all:allpw@")
    assert "shop.payload-jobs: certainly a queue" in result.output
    assert "other.tasks: certainly a queue" in result.output
    assert "allpw" not in result.output
    uri = f"mongodb://{auth_server.address}/shop?authSource=shop"
    assert f"JOBMON_MONGO_URI='{uri}'" in result.output
    assert "Add the read-only user that" in result.output
    result = run_as(auth_server, "one:onepw@")
    assert result.exit_code == 0
    assert "1 collection searched, 1 possible queue found" in result.output


@pytest.mark.parametrize("credentials", ["", "one:wrong@"])
def test_user_who_cannot_sign_in_gets_a_problem(credentials: str, auth_server: Mongod) -> None:
    result = run_as(auth_server, credentials)
    assert result.exit_code == 1
    assert result.output.startswith("problem  database")
    assert "wrong" not in result.output.replace("user or password", "")
