"""Profiles for queues whose status is no plain word in a field: catches a running, dead or retried
job that is counted as another one, and a queue for which nothing is proposed."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.profiles import parse_file
from jobmon.setup.discover import discover
from jobmon.setup.discovery_report import Candidate, Discovery
from jobmon.setup.recognition import Certainty
from jobmon.store.labels import label

from ..support.commands import database_uri

Document = dict[str, Any]
MongoDb = Database[Document]
Jobs = dict[str, Document]  # by the expected status

NOW = datetime.now(UTC).replace(microsecond=0)
PAST, FUTURE = NOW - timedelta(minutes=5), NOW + timedelta(hours=5)
LOCAL_TEXT = NOW.strftime("%Y-%m-%d %H:%M:%S")
PAST_S = int(PAST.timestamp())


@pytest.fixture
def search(mongod: Mongod, database: MongoDb) -> Callable[[], Discovery]:
    return lambda: discover(database_uri(mongod, database), "JOBMON_MONGO_URI", set())


@pytest.fixture
def propose(database: MongoDb, search: Callable[[], Discovery]) -> Callable[..., Candidate]:
    """Inserts each document twice, and returns the only candidate."""

    def run(collection: str, documents: Iterable[Document]) -> Candidate:
        jobs = [document for document in documents for _ in range(2)]
        database[collection].insert_many(job | {"_id": n} for n, job in enumerate(jobs, 1))
        (candidate,) = search().candidates
        return candidate

    return run


def list_statuses(candidate: Candidate) -> list[str]:
    """The statuses in the preview, the oldest first."""
    return [status for _, _, status, *_ in reversed(candidate.jobs[1:])]


def double(values: Iterable[str]) -> list[str]:
    return [value for value in values for _ in range(2)]


FLAGS = {"args": {}, "tries": 0, "processing": False, "done": False, "failed": False}
NESTED = {"owner": "", "completed": False, "in_prog": False, "err_count": 0}
LOCKS = {"handler": "--- x", "attempts": 0, "run_at": PAST, "created_at": PAST}
SECONDS = {"queue": "mail", "payload": "{}", "attempts": 0, "reserved": 0, "reserved_at": None}
DATES = {"method": "mail", "arguments": "[]", "run_at": PAST, "started_at": None}
BLOCKED = {"payload": {}, "blockedUntil": PAST, "retries": 0, "done": False}
UNSET = {"payload": {}, "lockTime": datetime.min.replace(tzinfo=UTC), "attempts": 0}  # Go's "none"
VISIBLE = {"body": {}, "visible_at": PAST, "claim_id": "", "attempts": 0}
REMOVED = {"payload": {}, "createdAt": PAST, "visible": PAST, "tries": 0}
STATES = {"payload": {}, "processingAt": None, "processedAt": None, "retryAt": None, "attempts": 0}
LIMITED = {"data": {}, "locked_by": None, "attempts": 0, "max_attempts": 3}

QUEUES: dict[str, Jobs] = {
    "flags": {
        "queued": FLAGS,
        "leased": FLAGS | {"processing": True},
        "succeeded": FLAGS | {"done": True, "tries": 1},
        "dlq": FLAGS | {"failed": True, "tries": 3},
        "failed": FLAGS | {"tries": 1},
    },
    "flags in a document": {
        "queued": {"job": {}, "status": NESTED},
        "leased": {"job": {}, "status": NESTED | {"in_prog": True, "owner": "w"}},
        "succeeded": {"job": {}, "status": NESTED | {"completed": True, "owner": "w"}},
        "dlq": {"job": {}, "status": NESTED | {"completed": True, "err_count": 1, "owner": "w"}},
    },
    "locks and dates": {
        "queued": LOCKS,
        "leased": LOCKS | {"locked_at": NOW, "locked_by": "w"},
        "failed": LOCKS | {"attempts": 1, "last_error": "boom"},
        "dlq": LOCKS | {"attempts": 25, "last_error": "boom", "failed_at": NOW},
    },
    "numbers as flags": {
        "queued": SECONDS,
        "leased": SECONDS | {"reserved": 1, "reserved_at": PAST_S, "attempts": 1},
        "failed": SECONDS | {"attempts": 1},
    },
    "only dates": {
        "queued": DATES,
        "leased": DATES | {"started_at": PAST},
        "succeeded": DATES | {"started_at": PAST, "completed_at": NOW},
        "dlq": DATES | {"started_at": PAST, "failed_at": NOW},
    },
    "a lease end in every job": {
        "queued": BLOCKED,
        "leased": BLOCKED | {"blockedUntil": FUTURE, "retries": 1},
        "failed": BLOCKED | {"retries": 1, "error": "boom"},
        "succeeded": BLOCKED | {"done": True, "retries": 1},
    },
    "a date in place of none": {
        "queued": UNSET,
        "leased": UNSET | {"lockTime": NOW, "attempts": 1},
        "failed": UNSET | {"attempts": 1},
    },
    "a date of the last failure": {
        "queued": LOCKS,
        "leased": LOCKS | {"locked_at": NOW, "failed_at": PAST, "run_at": NOW, "attempts": 1},
        "failed": LOCKS | {"failed_at": PAST, "run_at": FUTURE, "attempts": 1},
        "dlq": LOCKS | {"failed_at": NOW, "attempts": 3},
    },
    "a date for each state": {
        "queued": STATES,
        "leased": STATES | {"processingAt": PAST, "attempts": 1},
        "failed": STATES | {"retryAt": FUTURE, "attempts": 1},
        "succeeded": STATES | {"processingAt": PAST, "processedAt": NOW, "attempts": 1},
        "dlq": STATES | {"deadAt": NOW, "attempts": 5},
    },
    "visibility": {
        "queued": VISIBLE,
        "leased": VISIBLE | {"visible_at": FUTURE, "claim_id": "c", "attempts": 1},
        "failed": VISIBLE | {"attempts": 1},
    },
    "visibility and a removal": {
        "queued": REMOVED,
        "leased": REMOVED | {"visible": FUTURE, "ack": "a", "tries": 1},
        "failed": REMOVED | {"ack": "a", "tries": 1},
        "succeeded": REMOVED | {"visible": FUTURE, "ack": "a", "tries": 1, "deleted": NOW},
        "dlq": REMOVED | {"ack": "a", "tries": 9, "deleted": NOW, "dead": True},
    },
    "a limit of attempts": {
        "queued": LIMITED,
        "leased": LIMITED | {"locked_by": "w", "attempts": 3},
        "failed": LIMITED | {"attempts": 1},
        "dlq": LIMITED | {"attempts": 3},
    },
    "a status without a word for running jobs": {
        "queued": {"state": "pending", "lock": {"at": None}, "tries": 0},
        "leased": {"state": "pending", "lock": {"at": NOW}, "tries": 1},
        "succeeded": {"state": "done", "lock": {"at": None}, "tries": 1},
    },
}


@pytest.mark.parametrize("jobs", QUEUES.values(), ids=QUEUES.keys())
def test_status_follows_from_flags_locks_and_dates(
    jobs: Jobs, propose: Callable[..., Candidate]
) -> None:
    candidate = propose("work_jobs", jobs.values())
    assert list_statuses(candidate) == double(jobs)


def test_rules_are_explained_and_written_only_if_they_are_clear(
    propose: Callable[..., Candidate],
) -> None:
    candidate = propose("jobs", [LOCKS, LOCKS | {"locked_at": NOW, "attempts": 1}])
    assert candidate.certainty is Certainty.PROBABLE
    assert candidate.doubts[:3] == (
        "no field holds a status: the rules are made of locked_at, attempts",
        "no field shows that a job has succeeded: if the program deletes such jobs, add "
        '[attempts.events] with deleted = "succeeded", so that their runs are counted',
        "no field shows that a job is dead: if jobs stay after their last attempt, add "
        '{ is = "dlq", when = { "attempts" = { "$gte" = N } } } before the rule of failed',
    )


@pytest.mark.parametrize("errors", [[], "", None], ids=["array", "text", "null"])
def test_error_decides_without_an_index_of_its_text(
    errors: Any, propose: Callable[..., Candidate]
) -> None:
    """Catches an index of whole stack traces in the watched collection."""
    error = ["boom"] if errors == [] else "boom"
    job: Document = {"args": {}, "busy": False, "done": False, "errors": errors, "run_at": PAST}
    if not isinstance(errors, list):
        job["error"] = job.pop("errors")
    name = "errors" if "errors" in job else "error"
    jobs = [job, job | {name: error}, job | {"done": True}, job | {"done": True, name: error}]
    candidate = propose("jobs", jobs)
    assert list_statuses(candidate) == double(["queued", "failed", "succeeded", "dlq"])
    rules = parse_file(candidate.stem, str(candidate.text)).content["status"]
    assert {path for rule in rules for path in rule.get("when", ())} == {"busy", "done", "$expr"}


def test_empty_text_among_many_workers_is_no_worker(
    database: MongoDb, search: Callable[[], Discovery]
) -> None:
    workers = ["" if n % 2 else f"worker-{n}" for n in range(180)]
    database.jobs.insert_many(LOCKS | {"_id": n, "worker": w} for n, w in enumerate(workers))
    (candidate,) = search().candidates
    assert list_statuses(candidate) == ["leased", "queued"] * 5


def test_lock_that_every_job_has_is_only_possibly_a_status(
    propose: Callable[..., Candidate],
) -> None:
    """Catches a lock that stays after the run: all jobs would count as running."""
    candidate = propose("jobs", [LOCKS | {"locked_at": NOW}])
    assert candidate.certainty is Certainty.POSSIBLE
    assert "every document of the sample has the same state" in " ".join(candidate.doubts)


@pytest.mark.parametrize("number", [int, float])
def test_meaning_of_numbers_follows_from_what_only_such_jobs_have(
    number: type, propose: Callable[..., Candidate]
) -> None:
    waiting: Document = {"args": {}, "Worker": None, "StartedAt": None, "FinishedAt": None}
    running = waiting | {"Worker": "w", "StartedAt": PAST_S}
    done = waiting | {"StartedAt": PAST_S, "FinishedAt": PAST_S}
    dead = done | {"Error": "boom"}
    jobs = [job | {"Status": number(n)} for n, job in enumerate((waiting, running, done, dead))]
    candidate = propose("work", jobs)
    assert candidate.certainty is Certainty.POSSIBLE
    assert list_statuses(candidate) == double(["queued", "leased", "succeeded", "dlq"])
    assert "3 is read as dlq: such jobs have StartedAt, FinishedAt, Error" in " ".join(
        candidate.doubts
    )


def test_number_of_a_dead_or_cancelled_job_follows_from_its_own_date(
    propose: Callable[..., Candidate],
) -> None:
    """Catches a dead job that is shown as running, because it has started and not completed."""
    waiting: Document = {"Job": {}, "Started": None, "Completed": None, "Faulted": None}
    started = waiting | {"Started": PAST}
    ends = [{"Completed": NOW}, {"Faulted": NOW}, {"CancelledAt": NOW}]
    jobs = [waiting, *(started | end for end in ends)]
    candidate = propose("job.saga", [job | {"CurrentState": n} for n, job in enumerate(jobs)])
    assert list_statuses(candidate)[2:] == double(["succeeded", "dlq", "cancelled"])


@pytest.mark.parametrize("end", ["failed_at", "finished_at"])
@pytest.mark.parametrize("is_due_again", [True, False])
def test_number_of_a_failed_job_that_is_due_again_is_not_that_of_a_dead_one(
    end: str, *, is_due_again: bool, propose: Callable[..., Candidate]
) -> None:
    """Catches a job that waits for its retry and is shown as dead."""
    job: Document = {"data": {}, "run_at": PAST, "started_at": None, "finished_at": None}
    started = job | {"started_at": PAST}
    failed = started | {end: NOW, "error": "boom", "run_at": FUTURE if is_due_again else PAST}
    jobs = [job, started, started | {"finished_at": NOW}, failed]
    candidate = propose("work", [job | {"state": n} for n, job in enumerate(jobs)])
    assert list_statuses(candidate)[-2:] == double(["3" if is_due_again else "dlq"])
    assert ("3 is unknown" in " ".join(candidate.doubts)) is is_due_again


def test_outbox_without_arguments_is_possibly_a_queue(propose: Callable[..., Candidate]) -> None:
    message = {"Body": b"{}", "Topic": "order", "Dispatched": None}
    candidate = propose("app_outbox", [message, message | {"Dispatched": NOW}])
    assert candidate.certainty is Certainty.POSSIBLE
    assert list_statuses(candidate) == double(["queued", "succeeded"])


def test_numbers_that_nothing_distinguishes_have_no_meaning(
    propose: Callable[..., Candidate],
) -> None:
    """Catches a guess: a cancelled job also ends without an error."""
    waiting: Document = {"args": {}, "worker": None, "finished": None}
    running = waiting | {"worker": "w"}
    ended = waiting | {"finished": NOW}
    jobs = [waiting | {"status": 0}, waiting | {"status": 1}, running | {"status": 2}]
    jobs += [ended | {"status": 3}, ended | {"status": 4}]
    candidate = propose("job", jobs)
    assert list_statuses(candidate) == double(["0", "1", "leased", "3", "4"])
    assert '# "4" = "…"  # unsure: such jobs have finished' in str(candidate.text)


WORDS = [
    ("zustand", ("wartend", "in Bearbeitung", "erledigt", "fehlgeschlagen", "abgebrochen")),
    ("etat", ("en attente", "en cours", "terminé", "échoué", "annulé")),
    ("estado", ("pendiente", "en proceso", "completado", "fallido", "cancelado")),
    ("status", ("в очереди", "выполняется", "завершено", "ошибка", "отменено")),
    ("状态", ("待处理", "处理中", "已完成", "失败", "已取消")),
    ("status", ("대기", "진행중", "완료", "실패", "취소")),
    ("durum", ("bekliyor", "isleniyor", "TAMAMLANDI", "ba\u015far\u0131s\u0131z", "iptal edildi")),
    ("status", ("đang chờ", "đang xử lý", "hoàn thành", "thất bại", "đã hủy")),
    ("status", ("menunggu", "diproses", "selesai", "gagal", "dibatalkan")),
    ("State", ("READY", "EXECUTING", "COMPLETED", "FIZZLED", "DEFUSED")),
    ("status", ("STATE_QUEUED", "JOB_RUNNING", "TaskSucceeded", "is failed", "job.canceled")),
]


@pytest.mark.parametrize(("field", "words"), WORDS)
@pytest.mark.parametrize("is_nested", [False, True])
def test_words_of_other_languages_and_programs_are_statuses_in_a_field_of_any_name(
    field: str, words: tuple[str, ...], *, is_nested: bool, propose: Callable[..., Candidate]
) -> None:
    jobs = [
        {"data": {}, "attempts": 1, "worker": "w"}
        | ({"status": {"name": word, "since": NOW}} if is_nested else {field: word})
        for word in words
    ]
    candidate = propose("work", jobs)
    assert candidate.certainty is Certainty.PROBABLE
    statuses = ["queued", "leased", "succeeded", "dlq", "cancelled"]
    assert list_statuses(candidate) == double(statuses)


STATUS_WORDS = [
    (
        ("PUBLISHED", "PROCESSING", "COMPLETED", "RESUBMITTED", "FAILED"),
        ("queued", "leased", "succeeded", "failed", "dlq"),
    ),
    (("pending", "published"), ("queued", "succeeded")),
    (("QUEUED", "CONSUMED", "DONE", "REJECTED"), ("queued", "leased", "succeeded", "dlq")),
    (("new", "processing", "consumed"), ("queued", "leased", "succeeded")),
    (("queued", "dequeued", "complete"), ("queued", "leased", "succeeded")),
    (("scheduled", "executing", "dequeued"), ("queued", "leased", "dequeued")),
    (("NEW", "PUBLISHED", "CONSUMED", "REJECTED"), ("queued", "succeeded", "succeeded", "dlq")),
]


@pytest.mark.parametrize(("words", "statuses"), STATUS_WORDS, ids="-".join)
def test_other_statuses_decide_what_a_word_with_two_meanings_means(
    words: tuple[str, ...], statuses: tuple[str, ...], propose: Callable[..., Candidate]
) -> None:
    """Catches a waiting message that is shown as succeeded, and an ended job as running."""
    jobs = [{"data": {}, "attempts": 1, "run_at": PAST, "status": word} for word in words]
    assert list_statuses(propose("jobs", jobs)) == double(statuses)


def test_outcome_shows_which_ended_jobs_are_dead(propose: Callable[..., Candidate]) -> None:
    """Catches a failed job that is shown as succeeded, because it is completed."""
    job: Document = {"args": {}, "attempts": 1, "run_at": PAST, "conclusion": None}
    jobs = [job | {"status": "queued"}, job | {"status": "in_progress"}]
    ends = ("success", "failure", "cancelled")
    jobs += [job | {"status": "completed", "conclusion": end} for end in ends]
    candidate = propose("jobs", jobs)
    statuses = ["queued", "leased", "succeeded", "dlq", "cancelled"]
    assert list_statuses(candidate) == double(statuses)
    assert "count as dlq if conclusion is failure" in " ".join(candidate.doubts)


@pytest.mark.parametrize("has_lock", [True, False])
def test_outcome_does_not_hide_that_no_status_is_for_running_jobs(
    has_lock: bool, propose: Callable[..., Candidate]
) -> None:
    """Catches a running job that is shown as queued, in a queue with outcomes."""
    job: Document = {"data": {}, "attempts": 1, "conclusion": None}
    running = job | {"status": "pending", "attempts": 2} | ({"locked_at": NOW} if has_lock else {})
    ends = ("success", "failure")
    jobs = [job | {"status": "pending"}, running]
    jobs += [job | {"status": "done", "conclusion": end} for end in ends]
    candidate = propose("jobs", jobs)
    statuses = ["queued", "leased" if has_lock else "queued", "succeeded", "dlq"]
    assert list_statuses(candidate) == double(statuses)
    doubts = " ".join(candidate.doubts)
    assert ("pending count as running by locked_at" in doubts) is has_lock
    assert ("no value of status is for jobs that run" in doubts) is not has_lock


def test_outcome_makes_no_rules_for_numbers(propose: Callable[..., Candidate]) -> None:
    """Catches jobs that are all in the status `other`, because no number matches a text."""
    job: Document = {"data": {}, "worker": None, "finished": None, "outcome": None}
    running, ended = job | {"worker": "w"}, job | {"worker": "w", "finished": NOW}
    jobs = [job | {"state": 0}, running | {"state": 1}]
    jobs += [ended | {"state": 2, "outcome": outcome} for outcome in ("success", "failure")]
    candidate = propose("jobs", jobs)
    assert list_statuses(candidate)[:4] == double(["queued", "leased"])
    assert "other" not in list_statuses(candidate)


@pytest.mark.parametrize("text", ["$done", "", "done*"])
def test_text_that_a_rule_cannot_have_gets_none(
    text: str, propose: Callable[..., Candidate]
) -> None:
    """Catches a rule that compares with a constant, so that the profile cannot be read.

    The label of an empty text, and of one with a star, has quotes: a rule would match no job.
    """
    job: Document = {"data": {}, "attempts": 1, "run_at": PAST, "conclusion": None}
    jobs = [job | {"status": status} for status in ("queued", "running", text)]
    ends = ("$failure", "failure")
    jobs += [job | {"status": "done", "conclusion": end} for end in ends]
    statuses = ["queued", "leased", "other", "succeeded", "dlq"]
    candidate = propose("jobs", jobs)
    assert list_statuses(candidate) == double(statuses)
    assert json.dumps(label(text)) not in str(candidate.text)


@pytest.mark.parametrize("has_running", [True, False])
def test_statuses_without_one_for_running_jobs_are_reported(
    has_running: bool, propose: Callable[..., Candidate]
) -> None:
    """Catches a running job that counts as queued, because the program calls it pending."""
    states = ["new", "pending", "successful", *(["running"] if has_running else [])]
    candidate = propose("tasks", [{"payload": {}, "retries": 0, "status": s} for s in states])
    assert ("no value of status is for jobs that run" in str(candidate.doubts)) is not has_running


@pytest.mark.parametrize("failure", [{}, {"result": "failed"}], ids=["no outcome", "outcome"])
@pytest.mark.parametrize("start", [{}, {"started_at": NOW}], ids=["no start", "start"])
def test_status_that_only_started_jobs_have_leaves_the_others_queued(
    start: Document, failure: Document, propose: Callable[..., Candidate]
) -> None:
    """Catches waiting jobs that are left out, because they have no field of a run."""
    job: Document = {"data": {}, "attempts": 0, "run_at": NOW}
    running, done = (job | start | {"status": status} for status in ("running", "done"))
    candidate = propose("jobs", [job, running, done | failure])
    assert list_statuses(candidate) == double(
        ["queued", "leased", "dlq" if failure else "succeeded"]
    )
    assert "documents without status are jobs with the status queued" in candidate.doubts


@pytest.mark.parametrize(
    ("failure", "status", "shown"),
    [({}, "null", "-"), ({"result": "failed"}, "other", "other")],
    ids=["names", "rules"],
)
def test_the_doubt_about_jobs_without_a_status_names_the_one_that_they_get(
    failure: Document, status: str, shown: str, propose: Callable[..., Candidate]
) -> None:
    job: Document = {"data": {}, "attempts": 0, "run_at": NOW}
    jobs = [job | {"status": name} for name in ("queued", "running", "done")]
    candidate = propose("jobs", [job, *jobs, jobs[2] | failure])
    assert list_statuses(candidate)[0] == shown
    assert f"documents without status are jobs with the status {status}" in candidate.doubts


def test_documents_that_are_no_jobs_are_not_queued_in_a_queue_with_outcomes(
    propose: Callable[..., Candidate],
) -> None:
    """Catches notes that are shown as waiting jobs, because they are more than the jobs."""
    job: Document = {"data": {}, "attempts": 0, "run_at": NOW}
    jobs = [job | {"status": "running"}, job | {"status": "done"}]
    jobs += [job | {"status": "done", "result": "failed"}]
    candidate = propose("jobs", [*jobs, *([{"note": "", "title": ""}] * 3)])
    assert list_statuses(candidate) == double(["leased", "succeeded", "dlq"])
    assert "documents without status are left out" in candidate.doubts
    assert '"queued"' not in str(candidate.text)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("jobs.waiting", "queued"),
        ("runningJobs", "leased"),
        ("queue_done", "succeeded"),
        ("failed_jobs", "dlq"),
        ("dead_letter_queue", "dlq"),
    ],
)
def test_collection_for_each_state_has_the_status_in_its_name(
    name: str, status: str, propose: Callable[..., Candidate]
) -> None:
    candidate = propose(name, [{"type": "mail", "data": {}, "attempts": 1}])
    assert candidate.certainty is Certainty.PROBABLE
    assert list_statuses(candidate) == [status] * 2
    assert "only the collection's name shows the state" in " ".join(candidate.doubts)


def test_failed_job_with_a_date_that_does_not_show_a_run_is_dead(
    propose: Callable[..., Candidate],
) -> None:
    """The date of a schedule's start is before each due date, even before the first run.

    Catches a dead job that is shown as waiting for a retry.
    """
    trigger = {"job": {}, "startTime": PAST, "nextFireTime": FUTURE}
    candidate = propose("jobs", [trigger | {"state": "waiting"}, trigger | {"state": "error"}])
    assert list_statuses(candidate) == double(["queued", "dlq"])


def test_states_in_an_array_get_no_profile(propose: Callable[..., Candidate]) -> None:
    """Catches a running job that is shown as queued."""
    states = [{"status": "running", "at": NOW}, {"status": "enqueued", "at": PAST}]
    candidate = propose("jobs", [{"payload": {}, "statuses": states}])
    assert candidate.profile is None
    assert "an array seems to hold its states" in " ".join(candidate.doubts)


def test_documents_that_are_no_jobs_are_left_out(propose: Callable[..., Candidate]) -> None:
    other = {"class": "Lock", "holder": "w"}
    jobs = [LOCKS, LOCKS | {"locked_at": NOW}, LOCKS | {"failed_at": NOW}]
    candidate = propose("jobs", [*jobs, other])
    assert list_statuses(candidate) == double(["queued", "leased", "dlq"])


@pytest.mark.parametrize("other", [LOCAL_TEXT, NOW], ids=["text", "date"])
def test_date_that_cannot_be_read_is_reported(
    other: Any, propose: Callable[..., Candidate]
) -> None:
    """Catches a job without dates whose reader does not learn why."""
    job: Document = {"payload": {}, "worker": "w", "tries": 1, "created": LOCAL_TEXT}
    states = ("new", "running")
    candidate = propose(
        "jobs",
        [job | {"state": state} for state in states] + [job | {"state": "done", "created": other}],
    )
    assert "created has dates in several forms" in " ".join(candidate.doubts)


def test_json_text_is_read_as_the_payload(propose: Callable[..., Candidate]) -> None:
    """Catches a secret in a text that is not recognized by the name of its field."""
    payload = json.dumps({"password": "hunter2"})
    candidate = propose("jobs", [{"state": "new", "payload": payload, "worker": "w", "tries": 1}])
    profile = parse_file(candidate.stem, str(candidate.text)).content
    assert profile["fields"]["payload"] == {"json": "payload"}


def test_date_of_death_is_the_end_of_the_run(propose: Callable[..., Candidate]) -> None:
    """Without it, dead jobs are in no chart."""
    candidate = propose("jobs", [LOCKS, LOCKS | {"failed_at": NOW}])
    profile = parse_file(candidate.stem, str(candidate.text)).content
    assert profile["fields"]["finishedAt"] == {"path": "failed_at", "only_in": ["dlq"]}


def test_attempts_of_jobs_that_never_started_are_a_limit(
    propose: Callable[..., Candidate],
) -> None:
    """Catches a waiting job that is shown with attempts."""
    waiting: Document = {"task": "mail", "args": [], "attempts": 5, "retries": 0}
    started = waiting | {"started": PAST, "worker": ObjectId()}
    jobs = [waiting | {"state": "inactive"}, started | {"state": "active"}]
    jobs += [started | {"state": "finished", "retries": 2}]
    candidate = propose("minion.jobs", jobs)
    profile = parse_file("x", str(candidate.text)).content
    assert "attemptCount" not in profile["fields"]
    assert profile["fields"]["maxAttempts"] == "attempts"
    doubts = " ".join(candidate.doubts)
    assert "attempts is read as the limit" in doubts
    assert "replace maxAttempts with attemptCount" in doubts


@pytest.mark.parametrize(
    ("unused", "is_clear"), [({"attempts": 0}, True), ({}, False)], ids=["0", "missing"]
)
def test_attempts_of_a_released_job_are_no_limit(
    unused: Document, is_clear: bool, propose: Callable[..., Candidate]
) -> None:
    """Catches jobs without their attempts, because one was released before its start."""
    job: Document = {"task": "mail", "args": [], "retries": 0, "started": None}
    jobs = [job | {"state": "queued"} | unused, job | {"state": "queued", "attempts": 1}]
    jobs += [job | {"state": "active", "started": PAST, "attempts": 1}]
    candidate = propose("jobs", jobs)
    fields = parse_file("x", str(candidate.text)).content["fields"]
    assert fields["attemptCount"] == "attempts"
    assert "maxAttempts" not in fields
    assert ("attempts is read as the count" not in " ".join(candidate.doubts)) is is_clear


def test_message_in_one_field_is_the_payload_and_names_its_queue(
    propose: Callable[..., Candidate],
) -> None:
    message = {"queue_name": "default", "actor_name": "mail", "args": [1], "options": {}}
    states = ("QUEUED", "CONSUMED", "DONE", "REJECTED")
    candidate = propose("default", [{"msg": message, "state": state} for state in states])
    assert candidate.certainty is Certainty.POSSIBLE
    assert list_statuses(candidate) == double(["queued", "leased", "succeeded", "dlq"])
    assert parse_file("x", str(candidate.text)).content["fields"]["payload"] == "msg"


def test_event_that_waits_for_its_listener_is_queued(propose: Callable[..., Candidate]) -> None:
    event = {"publicationDate": PAST, "listenerId": "Mailer.on", "event": {"order": 1}}
    candidate = propose("event_publication", [event, event | {"completionDate": NOW}])
    assert candidate.certainty is Certainty.POSSIBLE
    assert list_statuses(candidate) == double(["queued", "succeeded"])
    fields = parse_file("x", str(candidate.text)).content["fields"]
    assert (fields["createdAt"], fields["finishedAt"]) == ("publicationDate", "completionDate")


OTHERS: dict[str, Document] = {
    "todos": {"title": "x", "completed": False, "dueAt": NOW, "priority": 1},
    "sessions": {"data": {}, "expiresAt": NOW, "type": "web", "createdAt": NOW},
    "payments": {"amount": 1, "processed": True, "attempts": 1, "data": {}},
    "locks": {"name": "x", "lockUntil": NOW, "lockedAt": NOW, "lockedBy": "w"},
    "servers": {"name": ObjectId(), "running": True, "lastHeartbeat": NOW, "data": {}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_collection_with_flags_and_dates_but_without_jobs_is_no_queue(
    name: str, database: MongoDb, search: Callable[[], Discovery]
) -> None:
    database[name].insert_many(OTHERS[name] | {"_id": n} for n in range(10))
    assert search().candidates == ()
