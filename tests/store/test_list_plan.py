"""How each list is read, on the real server: catches a list that scans the collection or sorts more
than a few jobs, a wrong job or order, and a 422 that does not name what to change."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.api import owner_counts
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store import list_plan
from jobmon.store.bson_json import to_iso
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_plan import ListPlanner

from ..conftest import NOW, SECRET, Api
from ..support.commands import database_uri, index_queue
from .test_queries import profiled

MongoDb = Database[dict[str, Any]]
JOB_COUNT, MAX_MATCHES = 3_000, 200
QUEUE_PATH, OWN_JOBS_PATH = "/admin/jobs/queue", "/jobs"
Job = dict[str, Any]
Matches = Callable[[Job], bool]
STATUSES = {1: "dlq", 2: "queued", 3: "failed"}  # by number % 20; all other jobs succeeded
TYPES = ("webhook.a", "webhook.b", "mail", "webhooks")
LATER = NOW + timedelta(days=400)  # the scheduled jobs are due from this time on


def make_job(number: int) -> Job:
    status = STATUSES.get(number % 20, "succeeded")
    is_waiting = status in ("queued", "failed")
    finished_at = NOW + timedelta(seconds=number * 7 % JOB_COUNT)
    next_run_at = (LATER if number % 40 == 2 else NOW) + timedelta(seconds=number)
    return {
        "jobId": f"job-{number:04}",
        "type": f"many.{number % 300 // 10}" if number % 10 == 0 else TYPES[number % 4],
        "status": status,
        "createdBy": "rare" if number % 100 == 50 else f"owner-{number % 2}",
        "createdAt": NOW + timedelta(seconds=number // 3),
        "nextRunAt": next_run_at if is_waiting else None,
        "finishedAt": None if is_waiting else finished_at,
        "attemptCount": 1 + number // 50 % 6 if number % 50 == 0 else 1,
        "priority": number % 3 - 1,
        "lastError": {"code": f"E{number // 20 % 2}"} if number % 20 in (1, 3) else None,
    }


ALL_JOBS = [make_job(number) for number in range(JOB_COUNT)]


@pytest.fixture(scope="module")
def queue_db(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[MongoDb]:
    database = mongo["test_list_plan"]
    database.jobs.insert_many(ALL_JOBS)
    filters = ("attempts", "finished", "priority")
    index_queue(Settings(mongo_uri=database_uri(mongod, database), filters=filters))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_plan, "MAX_MATCHES", MAX_MATCHES)
        patch.setattr(list_plan, "MAX_SCANNED", MAX_MATCHES)
        yield database
    mongo.drop_database(database.name)


@pytest.fixture(scope="module")
def serve(mongod: Mongod, queue_db: MongoDb) -> Iterator[Callable[..., Api]]:
    """A function that returns the service with these values of JOBMON_FILTERS."""
    apps: dict[tuple[str, ...], Api] = {}

    def serve_with(*filters: str) -> Api:
        if filters not in apps:
            uri = database_uri(mongod, queue_db)
            settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, filters=filters)
            apps[filters] = Api(create_app(settings))
        return apps[filters]

    yield serve_with
    for api in apps.values():
        api.app.extensions["jobmon_connection"].client.close()


@pytest.fixture(scope="module")
def api(serve: Callable[..., Api]) -> Api:
    return serve("attempts", "finished", "priority")


def add_seconds(seconds: int) -> datetime:
    """The date that is so many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def is_finished_between(job: Job, first: int, last: int) -> bool:
    """Whether a job finished from `first` to before `last` seconds after NOW."""
    date = job["finishedAt"]
    return date is not None and add_seconds(first) <= date < add_seconds(last)


def filter_by_finish(first: int, last: int) -> dict[str, str]:
    """The query parameters for `is_finished_between`."""
    return {"finished_from": to_iso(add_seconds(first)), "finished_to": to_iso(add_seconds(last))}


def filter_by_due_time(first: int, last: int, start: datetime = LATER) -> dict[str, str]:
    """The query parameters for a nextRunAt from `first` to before `last` seconds after `start`."""
    return {
        "due_from": to_iso(start + timedelta(seconds=first)),
        "due_to": to_iso(start + timedelta(seconds=last)),
    }


# Lists whose jobs an index has in list order: the query parameters, a function that returns whether
# a job matches, and the order.
SERVED: list[tuple[dict[str, Any], Matches, str]] = [
    ({"type": "webhook.*"}, lambda job: job["type"].startswith("webhook."), "-createdAt"),
    (
        {"type": ["webhook*", "mail"], "status": ["dlq", "failed"], "sort": "createdAt"},
        lambda job: not job["type"].startswith("many.") and job["status"] in ("dlq", "failed"),
        "createdAt",
    ),
    (
        {"type": "webhook.*", "created_to": to_iso(add_seconds(300))},
        lambda job: job["type"].startswith("webhook.") and job["createdAt"] < add_seconds(300),
        "-createdAt",
    ),
    (
        {"owner": "owner-1", "type": "web*"},
        lambda job: job["createdBy"] == "owner-1" and job["type"].startswith("web"),
        "-createdAt",
    ),
    ({"min_attempts": 2}, lambda job: job["attemptCount"] >= 2, "-createdAt"),
    (
        {"min_attempts": 4, "status": "succeeded", "type": "many.*", "sort": "createdAt"},
        lambda job: job["attemptCount"] >= 4,
        "createdAt",
    ),
    ({"priority": -1}, lambda job: job["priority"] == -1, "-createdAt"),
    (
        {"priority": 1, "created_from": to_iso(add_seconds(400)), "sort": "createdAt"},
        lambda job: job["priority"] == 1 and job["createdAt"] >= add_seconds(400),
        "createdAt",
    ),
    (filter_by_finish(100, 900), lambda job: is_finished_between(job, 100, 900), "-finishedAt"),
    (
        filter_by_finish(0, JOB_COUNT) | {"type": "mail", "sort": "finishedAt"},
        lambda job: is_finished_between(job, 0, JOB_COUNT) and job["type"] == "mail",
        "finishedAt",
    ),
    (
        filter_by_finish(0, JOB_COUNT) | {"type": "webhook.*", "status": "succeeded"},
        lambda job: job["status"] == "succeeded" and job["type"].startswith("webhook."),
        "-finishedAt",
    ),
    (
        filter_by_finish(0, JOB_COUNT) | {"error_code": "E1", "type": "webhook.b"},
        lambda job: (
            is_finished_between(job, 0, JOB_COUNT)
            and (job["lastError"] or {}).get("code") == "E1"
            and job["type"] == "webhook.b"
        ),
        "-finishedAt",
    ),
    (
        {"status": ["dlq", "succeeded"], "sort": "-finishedAt"},
        lambda job: job["status"] in ("dlq", "succeeded"),
        "-finishedAt",
    ),
    ({"condition": "scheduled"}, lambda job: (job["nextRunAt"] or NOW) >= LATER, "-nextRunAt"),
    (
        {"condition": "scheduled", "type": "mail", "sort": "nextRunAt"},
        lambda job: (job["nextRunAt"] or NOW) >= LATER and job["type"] == "mail",
        "nextRunAt",
    ),
    (
        filter_by_due_time(0, 2_000) | {"sort": "nextRunAt"},
        lambda job: LATER <= (job["nextRunAt"] or NOW) < LATER + timedelta(seconds=2_000),
        "nextRunAt",
    ),
    (
        filter_by_due_time(500, 1_500, NOW) | {"status": "queued", "condition": "due"},
        lambda job: (
            job["status"] == "queued" and add_seconds(500) <= job["nextRunAt"] < add_seconds(1_500)
        ),
        "-nextRunAt",
    ),
    (
        {"status": ["queued", "failed"], "sort": "-nextRunAt"},
        lambda job: job["status"] in ("queued", "failed"),
        "-nextRunAt",
    ),
]
# Lists whose jobs are compared one by one, or sorted in memory, because there are few.
SMALL: list[tuple[dict[str, Any], Matches, str]] = [
    (
        {"owner": "rare", "priority": 0},
        lambda job: job["createdBy"] == "rare" and job["priority"] == 0,
        "-createdAt",
    ),
    (
        filter_by_finish(0, JOB_COUNT) | {"owner": "rare", "sort": "finishedAt"},
        lambda job: is_finished_between(job, 0, JOB_COUNT) and job["createdBy"] == "rare",
        "finishedAt",
    ),
    (
        {"status": "dlq", "priority": 1, "sort": "createdAt"},
        lambda job: job["status"] == "dlq" and job["priority"] == 1,
        "createdAt",
    ),
    (
        {"status": "dlq", "finished_from": to_iso(NOW), "sort": "createdAt"},
        lambda job: job["status"] == "dlq",
        "createdAt",
    ),
    (
        filter_by_finish(300, 450) | {"priority": 1},
        lambda job: is_finished_between(job, 300, 450) and job["priority"] == 1,
        "-finishedAt",
    ),
    (
        {"error_code": "E0", "condition": "due"},
        lambda job: job["status"] == "failed" and (job["lastError"] or {}).get("code") == "E0",
        "-nextRunAt",
    ),
    (
        {"condition": "scheduled", "min_attempts": 1},
        lambda job: (job["nextRunAt"] or NOW) >= LATER,
        "-nextRunAt",
    ),
    (
        {"type": "many.1*", "job_id": "job-01"},
        lambda job: job["type"].startswith("many.1") and job["jobId"].startswith("job-01"),
        "-createdAt",
    ),
]


def list_expected_ids(matches: Matches, sort: str) -> list[str]:
    """The ids of the jobs that match, by date and then by insertion; reversed for a `-`."""
    field = sort.removeprefix("-")
    dates = [(job[field], index) for index, job in enumerate(ALL_JOBS) if matches(job)]
    return [ALL_JOBS[index]["jobId"] for _, index in sorted(dates, reverse=sort != field)]


@pytest.mark.parametrize(
    ("query", "matches", "sort"), SERVED + SMALL, ids=[str(case[0]) for case in SERVED + SMALL]
)
def test_a_list_has_its_jobs_in_order_and_reads_few_other_jobs(
    api: Api, queue_db: MongoDb, query: dict[str, Any], matches: Matches, sort: str
) -> None:
    expected = list_expected_ids(matches, sort)
    assert len(expected) > 6

    def get_page(**position: Any) -> tuple[list[str], dict[str, Any]]:
        """The ids of a page, and its `meta`."""
        answer = api.get_as_admin(QUEUE_PATH, per_page=3, **query, **position)
        assert answer.status_code == 200, answer.text
        return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]

    with profiled(queue_db) as entries:
        ids, first_meta = get_page()
        assert (ids, first_meta["total"]) == (expected[:3], len(expected))
        ids, second_meta = get_page(cursor=first_meta["next_cursor"])
        assert ids == expected[3:6]
        assert get_page(cursor=second_meta["prev_cursor"])[0] == expected[:3]
        assert get_page(page=2)[0] == expected[3:6]
    is_served = (query, matches, sort) in SERVED
    for entry in entries:
        command = entry["command"]
        if "explain" in command:
            continue
        summary = f"{entry['planSummary']} {command}"
        assert "COLLSCAN" not in entry["planSummary"], summary
        if is_served:
            assert not entry.get("hasSortStage"), summary
            is_count = "aggregate" in command
            assert entry["docsExamined"] <= (0 if is_count else entry["nreturned"] + 1), summary
        else:
            assert entry["docsExamined"] <= MAX_MATCHES + 1, summary
    assert not is_served or any("find" in entry["command"] for entry in entries)


def test_lists_by_finish_and_by_due_time_are_read_from_the_cursor_without_skipping(
    api: Api, queue_db: MongoDb
) -> None:
    """Catches pages by number, in which a job that finishes moves the other jobs."""
    for query in (filter_by_finish(0, JOB_COUNT), {"condition": "scheduled"}):
        cursor = api.get_as_admin(QUEUE_PATH, per_page=3, **query).json["meta"]["next_cursor"]
        with profiled(queue_db) as entries:
            api.get_as_admin(QUEUE_PATH, per_page=3, cursor=cursor, **query)
        finds = [entry["command"] for entry in entries if "find" in entry["command"]]
        assert finds
        assert not any("skip" in command for command in finds)


@pytest.mark.parametrize(
    ("query", "parameter", "message"),
    [
        (
            {"priority": 1, "status": "succeeded"},
            "priority",
            "No index serves these filters together. Add a filter",
        ),
        ({"type": "many.*"}, "type", ": give more of the type."),
        ({"min_attempts": 1}, "min_attempts", "give 2 or more"),
        ({"finished_from": to_iso(NOW), "sort": "createdAt"}, "sort", "Remove `sort`"),
        ({"owner": "owner-1", "priority": 1}, "priority", "these filters together"),
    ],
    ids=str,
)
def test_a_list_that_no_index_serves_is_422_and_names_what_to_change(
    api: Api, query: dict[str, Any], parameter: str, message: str
) -> None:
    for answer_format in ("json", "csv"):
        answer = api.get_as_admin(QUEUE_PATH, format=answer_format, **query)
        assert answer.status_code == 422
        ((name, (text,)),) = answer.json["error"]["details"].items()
        assert name == parameter
        assert message in text


@pytest.mark.parametrize("answer_format", ["json", "csv"])
def test_filters_without_a_common_index_are_served_if_few_jobs_match(
    api: Api, answer_format: str
) -> None:
    query = {"error_code": "E0", "worker": "w", "format": answer_format}
    assert api.get_as_admin(QUEUE_PATH, **query).status_code == 200


@pytest.mark.parametrize(
    ("query", "parameter", "setting"),
    [
        ({"priority": 1}, "priority", "priority"),
        ({"min_attempts": 2}, "min_attempts", "attempts"),
        (filter_by_finish(0, JOB_COUNT) | {"type": "mail"}, "type", "finished"),
    ],
    ids=str,
)
def test_a_filter_whose_index_is_not_chosen_is_422_and_names_the_setting(
    serve: Callable[..., Api], query: dict[str, Any], parameter: str, setting: str
) -> None:
    answer = serve().get_as_admin(QUEUE_PATH, **query)
    assert answer.status_code == 422
    ((name, (text,)),) = answer.json["error"]["details"].items()
    assert name == parameter
    assert text.startswith(
        f"Its index is not chosen: add `{setting}` to JOBMON_FILTERS and run `jobmon init`"
    ), "the jobs that match are not counted"
    # The few jobs of this owner are compared one by one.
    assert serve().get_as_admin(QUEUE_PATH, **query, owner="rare").status_code == 200
    # A list of own jobs does not use these indexes.
    own_jobs = serve().get_as_owner(OWN_JOBS_PATH, "owner-1", **query)
    assert "JOBMON_FILTERS" not in own_jobs.text
    # The index of `attempts` has no jobs with one attempt.
    one_attempt = serve().get_as_admin(QUEUE_PATH, min_attempts=1)
    assert "give 2 or more" in one_attempt.text


def test_the_types_of_a_prefix_are_not_read_if_more_than_20_other_types_are_given(api: Api) -> None:
    """Catches a query for each type that begins with the prefix, and a list that is not merged."""
    planner = ListPlanner(api.app.extensions["jobmon_connection"])
    others = tuple(f"other.{number}" for number in range(21))
    with pytest.raises(RefusedFilterError, match="More than 20 types are listed only if"):
        planner.prepare(JobFilter(types=(*others, "many.*")))


def test_a_filter_whose_index_is_missing_is_refused_in_a_large_queue(
    mongod: Mongod, queue_db: MongoDb, mongo: MongoClient[dict[str, Any]]
) -> None:
    """Catches a filter that reads every job of a queue where `jobmon init` has not run."""
    unindexed = mongo["test_list_plan_unindexed"]
    unindexed.jobs.insert_many(ALL_JOBS[: MAX_MATCHES + 1])
    settings = Settings(mongo_uri=database_uri(mongod, unindexed), jwt_secret_key=SECRET)
    api = Api(create_app(settings))
    try:
        answer = api.get_as_admin(QUEUE_PATH, min_attempts=2)
        assert answer.status_code == 422
        (text,) = answer.json["error"]["details"]["min_attempts"]
        assert text.startswith("Its index is missing")
    finally:
        api.app.extensions["jobmon_connection"].client.close()
        mongo.drop_database(unindexed.name)


def test_filters_of_an_owner_are_compared_only_with_jobs_of_this_owner(
    api: Api, queue_db: MongoDb
) -> None:
    """Catches a refusal, or an answer, that depends on how many jobs of others match."""
    with profiled(queue_db) as entries:
        query = filter_by_finish(0, JOB_COUNT) | {"min_attempts": 2, "per_page": 100}
        answer = api.get_as_owner(OWN_JOBS_PATH, "rare", **query)
    rare_jobs = [job for job in ALL_JOBS if job["createdBy"] == "rare"]
    expected = {job["jobId"] for job in rare_jobs if job["attemptCount"] > 1}
    assert {job["jobId"] for job in answer.json["data"]} == expected
    hints = {str(entry["command"].get("hint")) for entry in entries} - {"None"}
    assert hints
    assert all("createdBy" in hint for hint in hints)
    # Fewer than 200 jobs have three attempts or more, but the owner must not learn that.
    refusal = api.get_as_owner(OWN_JOBS_PATH, "owner-1", min_attempts=3)
    assert list(refusal.json["error"]["details"]) == ["min_attempts"]
    assert api.get_as_owner(OWN_JOBS_PATH, "owner-1", type="webhook.*").status_code == 200


def test_own_jobs_are_counted_in_the_index_keys_of_the_owner(
    api: Api, queue_db: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a count that reads jobs, or the keys of all jobs of a status."""
    monkeypatch.setattr(owner_counts, "STATUS_COUNT_LIMIT", 50)
    with profiled(queue_db) as entries:
        answer = api.get_as_owner("/job/counts", "owner-1").json
    expected = Counter(job["status"] for job in ALL_JOBS if job["createdBy"] == "owner-1")
    assert answer["totalJobs"] == expected.total()
    assert answer["statusCounts"] == {
        status: min(expected[status], 50) for status in answer["statusCounts"]
    }
    assert {"succeeded": "there are more than 50"}.items() <= answer["reasons"].items()
    counts = [entry for entry in entries if "aggregate" in entry["command"]]
    assert all("createdBy" in entry["planSummary"] for entry in counts)
    assert all(entry["docsExamined"] == 0 for entry in counts)
    by_status = [entry for entry in counts if "status" in str(entry["command"]["pipeline"][0])]
    # For each of the six statuses: 51 keys show that there are more than 50 jobs, and a few more.
    assert 0 < sum(entry["keysExamined"] for entry in by_status) <= 6 * 53
