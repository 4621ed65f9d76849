"""Workers and slow attempts over HTTP: catches a worker that is missing or counted twice, a silent
worker that is not first, and an unknown number that is shown as 0."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import json_util

from jobmon.api.workers import NO_NAMES
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.rollup.buckets import HOUR, MINUTE, floor
from jobmon.rollup.run_details import MAX_SLOW_TYPES, MAX_WORKER_TYPES
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.bson_json import to_iso
from jobmon.store.labels import OTHER

from ..conftest import Api
from ..support.error_history import ErrorHistory
from ..support.queue_service import MongoDb, QueueService

WORKERS, SLOWEST = "/admin/jobs/workers", "/admin/jobs/slowest"
SAMPLES = Path(__file__).parents[1] / "adapters" / "samples"
NOW = floor(datetime.now(UTC), MINUTE) + timedelta(seconds=30)
SECOND = timedelta(seconds=1)


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Runs of three workers and of an unknown worker; w1 has errors of two groups."""
    history = ErrorHistory(NOW)
    history.add("timeout of 3000 ms", "mail", "w1", at=NOW - 2 * MINUTE, took=3 * SECOND)
    history.add("timeout of 500 ms", "mail", "w1", at=NOW - 3 * MINUTE, took=SECOND / 2)
    history.add({"code": "E_BANK", "message": "account 4711"}, "pay", "w1", at=NOW - 4 * MINUTE)
    history.succeed("pay", "w1", at=NOW - MINUTE, took=9 * SECOND)
    history.succeed("pay", "w2", at=NOW - 20 * MINUTE, took=2 * SECOND)
    history.succeed("mail", None, at=NOW - MINUTE, took=SECOND)
    history.succeed("mail", "long gone", at=NOW - 3 * HOUR, took=SECOND)
    return history.serve(monkeypatch)


@pytest.fixture
def running_jobs(watched: Any) -> None:
    """One job of w1, two of w3 (with expired leases), one without a worker; w4 runs no job."""

    def make_job(
        name: str, worker: str | None, lease_left: timedelta, job_type: str = "pay"
    ) -> dict[str, Any]:
        lease = {"leasedBy": worker, "leaseExpiresAt": datetime.now(UTC) + lease_left}
        return {"jobId": name, "type": job_type, "status": "leased", "attemptCount": 2, **lease}

    watched.jobs.insert_many(
        [
            make_job("a", "w3", -HOUR),
            make_job("b", "w3", -2 * MINUTE),
            make_job("c", "w1", HOUR, "mail"),
            make_job("d", None, HOUR),
            {"jobId": "e", "type": "mail", "status": "queued", "leasedBy": "w4"},
        ]
    )
    attempt = {"jobId": "c", "attemptNumber": 2, "startedAt": NOW - MINUTE, "workerId": "w1"}
    watched.job_attempts.insert_one(attempt)


def get_json(api: Api, path: str = WORKERS, **query: Any) -> dict[str, Any]:
    answer = api.get_as_admin(path, **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json
    return body


def list_names(answer: dict[str, Any]) -> list[str]:
    return [worker["name"] for worker in answer["data"]]


@pytest.mark.usefixtures("history", "running_jobs")
def test_list_has_jobs_and_attempts_of_each_worker_and_silent_workers_first(api: Api) -> None:
    answer = get_json(api)
    assert list_names(answer) == ["w3", "w1", "w2"]
    w3, w1, w2 = answer["data"]
    assert (w3["state"], w3["note"], w3["runningJobs"]) == ("expired", "its lease has expired", 2)
    assert [job["jobId"] for job in w3["jobs"]] == ["a", "b"]
    assert -3_700_000 < w3["jobs"][0]["leaseLeftMs"] <= -3_600_000
    assert w3["since"] == w3["jobs"][0]["leaseExpiresAt"]
    assert (w3["lastSeen"], w3["attempts"], w3["failures"], w3["failureRate"]) == (None, 0, 0, None)
    (job,) = w1["jobs"]
    assert (job["jobId"], job["type"], job["attemptNumber"]) == ("c", "mail", 2)
    assert job["startedAt"] == w1["since"] == w1["lastSeen"] == to_iso(NOW - MINUTE)
    assert (w1["state"], w1["attempts"], w1["failures"], w1["failureRate"]) == (
        "running",
        4,
        3,
        0.75,
    )
    assert w1["runMs"]["p95"] == pytest.approx(9_000, rel=0.04)
    assert w1["topError"] | {"id": ""} == {
        "id": "",
        "code": None,
        "pattern": "timeout of <duration>",
        "failures": 2,
    }
    detail = get_json(api, f"/admin/jobs/errors/{w1['topError']['id']}")
    assert detail["data"]["count"] == 2
    assert (w2["state"], w2["attempts"], w2["jobs"], w2["topError"]) == ("idle", 1, [], None)
    meta = answer["meta"]
    assert (meta["total"], meta["total_is_exact"], meta["silent_workers"]) == (3, True, 1)
    assert meta["reasons"] == {"runningJobs": "1 running job does not name the worker"}


LISTS_OF_WORKERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"worker": "w1"}, ["w1"]),
    ({"worker": "w"}, []),
    ({"text": "W"}, ["w3", "w1", "w2"]),
    ({"text": "3"}, ["w3"]),
    ({"type": "mail"}, ["w1"]),
    ({"type": "pay"}, ["w3", "w1", "w2"]),
    ({"type": ["mail", "none"], "from": to_iso(NOW - 4 * HOUR)}, ["w1", "long gone"]),
    ({"type": "pay", "sort": "-failures", "per_page": 1}, ["w1"]),
    ({"type": "none"}, []),
    ({"sort": "-attempts"}, ["w1", "w2", "w3"]),
    ({"sort": "name", "per_page": 2, "page": 2}, ["w3"]),
    ({"from": to_iso(NOW - 4 * HOUR)}, ["w3", "w1", "w2", "long gone"]),
]


@pytest.mark.usefixtures("history", "running_jobs")
def test_list_is_filtered_and_sorted(api: Api) -> None:
    for query, expected in LISTS_OF_WORKERS:
        assert list_names(get_json(api, **query)) == expected, query


@pytest.mark.usefixtures("history", "running_jobs")
def test_workers_of_a_type_have_only_attempts_of_this_type(api: Api) -> None:
    answer = get_json(api, type="pay")
    counts = {
        worker["name"]: (worker["attempts"], worker["failures"], worker["failureRate"])
        for worker in answer["data"]
    }
    assert counts == {"w1": (2, 1, 0.5), "w2": (1, 0, 0.0), "w3": (0, 0, None)}
    w1 = next(worker for worker in answer["data"] if worker["name"] == "w1")
    assert (w1["state"], w1["runningJobs"]) == ("running", 1)
    assert w1["runMs"]["p95"] == pytest.approx(9_000, rel=0.04)
    assert w1["topError"] is None
    assert answer["meta"]["reasons"]["topError"] == "errors of workers are not counted by type"
    assert answer["meta"]["total_is_exact"]
    (w1,) = get_json(api, type="mail")["data"]
    assert (w1["attempts"], w1["failures"]) == (2, 2)
    assert w1["runMs"]["p95"] == pytest.approx(3_000, rel=0.04)


@pytest.mark.parametrize(
    ("untyped_until", "expected"),
    [
        (NOW - 20 * MINUTE, f"before {NOW - 20 * MINUTE:%Y-%m-%d %H:%M} UTC are not counted by"),
        (NOW + MINUTE, f"only {MAX_WORKER_TYPES} pairs of a worker and a type are counted"),
    ],
    ids=["earlier version", "too many"],
)
def test_list_of_a_type_has_the_reason_why_workers_may_be_missing(
    api: Api, history: ErrorHistory, untyped_until: datetime, expected: str
) -> None:
    """Catches a worker that is shown without runs because its runs were not counted by type."""
    history.overrides["untyped_until"] = untyped_until
    meta = get_json(api, type="pay")["meta"]
    assert expected in meta["reasons"]["attempts"]
    assert not meta["total_is_exact"]
    meta = get_json(api)["meta"]
    assert "attempts" not in meta["reasons"]
    assert meta["total_is_exact"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"sort": "age"}, "sort"),
        ({"per_page": "1_0"}, "per_page"),
        ({"page": 0}, "page"),
        ({"worker": ["a", "b"]}, "worker"),
        ({"from": "soon"}, "from"),
    ],
    ids=str,
)
def test_error_details_name_the_bad_parameter(
    idle_api: Api, query: dict[str, Any], parameter: str
) -> None:
    answer = idle_api.get_as_admin(WORKERS, **query)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [parameter]


@pytest.mark.usefixtures("running_jobs")
def test_without_a_collector_the_leases_are_shown_and_attempts_are_unknown(api: Api) -> None:
    answer = get_json(api)
    assert list_names(answer) == ["w3", "w1"]
    for worker in answer["data"]:
        assert worker["attempts"] is worker["failures"] is worker["failureRate"] is None
        assert worker["runMs"]["p95"] is None
    assert answer["meta"]["reasons"]["attempts"] == "no collector keeps a history"
    assert answer["meta"]["as_of"] is answer["meta"]["is_complete"] is None
    assert api.get_as_admin(SLOWEST).status_code == 503


def test_attempts_that_may_be_missing_have_a_reason(api: Api, history: ErrorHistory) -> None:
    history.overrides["is_complete"] = False
    reason = "the collector is still counting"
    reasons = get_json(api)["meta"]["reasons"]
    assert reasons["attempts"] == f"some may be missing: {reason}"
    assert reasons["state"].endswith(reason)
    assert get_json(api, SLOWEST)["meta"]["reasons"] == {"data": reason}


def test_worker_is_shown_without_secrets(api: Api, watched: Any) -> None:
    secret = "postgres://ann:hunter22@db/x"
    job = {"status": "leased", "leasedBy": secret, "leaseExpiresAt": datetime.now(UTC) + HOUR}
    watched.jobs.insert_one(job)
    answer = api.get_as_admin(WORKERS)
    assert answer.json["meta"]["total"] == 1
    assert "hunter22" not in answer.text


def test_thousands_of_names_are_listed_page_by_page(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = ErrorHistory(NOW)
    for index in range(3_000):
        history.succeed("mail", f"pod-{index:04}", at=NOW - MINUTE)
    history.succeed("mail", OTHER, at=NOW)
    history.serve(monkeypatch)
    answer = get_json(api, per_page=100)
    assert (answer["meta"]["total"], answer["meta"]["total_pages"]) == (3_001, 31)
    assert not answer["meta"]["total_is_exact"]
    assert str(MAX_WORKER_TYPES) in answer["meta"]["reasons"]["attempts"]
    names = [*(f"pod-{index:04}" for index in range(3_000)), OTHER]
    for page in (1, 2, 30, 31):
        expected = names[100 * (page - 1) : 100 * page]
        assert list_names(get_json(api, per_page=100, page=page)) == expected
    folded = get_json(api, worker=OTHER)["data"][0]
    assert (folded["attempts"], folded["state"], folded["runningJobs"]) == (1, None, None)


@pytest.mark.parametrize(
    ("sample", "profile", "collection", "expected"),
    [
        ("mongodb-queue", "mongodb-queue", "mail", None),
        ("mongo-message-queue", "mongo-message-queue", "_queue", None),
        ("agenda-6", "agenda", "agendaJobs", ["host-a-1", "host-b-2"]),
        ("celery-mongodb", "celery", "celery_taskmeta", []),
    ],
)
def test_workers_of_other_programs_are_listed_or_unknown(
    mongod: Mongod,
    database: MongoDb,
    sample: str,
    profile: str,
    collection: str,
    expected: list[str] | None,
) -> None:
    content = json_util.loads((SAMPLES / f"{sample}.json").read_text())
    database[collection].insert_many(content["collections"][collection]["documents"])
    queue = QueueService(mongod, database, profile=profile, jobs_collection=collection)
    create_indexes(queue.connection)
    answer = get_json(queue.api)
    if expected is None:
        assert answer["data"] is None
        assert answer["meta"]["reasons"] == {"data": NO_NAMES}
        assert answer["meta"]["total"] is answer["meta"]["silent_workers"] is None
    else:
        assert sorted(list_names(answer)) == expected
        for name in expected:
            (worker,) = get_json(queue.api, worker=name)["data"]
            running_ids = {job["jobId"] for job in worker["jobs"]}
            assert set(queue.list_ids(worker=name)) == running_ids != set()
    queue.close()


JOBS_OF_WORKERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"worker": "w3"}, ["b", "a"]),
    ({"worker": "w3", "job_id": "aaaa"}, []),
    ({"worker": "w4"}, ["e"]),
    ({"worker": "w4", "status": "leased"}, []),
    ({"worker": "w1", "type": ["mail", "pay"]}, ["c"]),
    ({"worker": "null"}, []),
    ({"worker": ""}, ["e", "d", "c", "b", "a"]),
]


@pytest.mark.usefixtures("running_jobs")
def test_list_and_export_have_only_the_jobs_of_a_worker(api: Api) -> None:
    for query, expected in JOBS_OF_WORKERS:
        answer = get_json(api, "/admin/jobs/queue", **query)
        assert [job["jobId"] for job in answer["data"]] == expected, query
        assert answer["meta"]["total"] == len(expected), query
        export = api.get_as_admin("/admin/jobs/queue", format="ndjson", **query)
        *lines, _ = export.text.splitlines()
        assert [json.loads(line)["jobId"] for line in lines] == expected, query


COMBINED_FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"owner": "nobody"}, []),
    ({"error_code": "no such code"}, []),
    ({"condition": "scheduled"}, []),
    ({"sort": "createdAt"}, ["a", "b"]),
]


@pytest.mark.usefixtures("running_jobs")
def test_worker_filter_can_be_combined_with_other_parameters(api: Api) -> None:
    for parameters, expected in COMBINED_FILTERS:
        answer = get_json(api, "/admin/jobs/queue", worker="w3", **parameters)
        assert [job["jobId"] for job in answer["data"]] == expected, parameters


def test_owners_cannot_filter_by_worker(api: Api) -> None:
    answer = api.get_as_owner("/jobs", "ada", worker="w1")
    assert list(answer.json["error"]["details"]) == ["worker"]


@pytest.mark.parametrize("profile", ["mongodb-queue", "hangfire"])
def test_worker_filter_is_refused_in_a_queue_that_cannot_be_searched_by_worker(
    watched: Any, make_settings: Callable[..., Settings], profile: str
) -> None:
    settings = make_settings(profile=profile, jobs_collection="x")
    answer = Api(create_app(settings, watched.client)).get_as_admin(
        "/admin/jobs/queue", worker="w1"
    )
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == ["worker"]


@pytest.mark.usefixtures("history")
def test_slowest_attempts_are_listed_the_longest_first(api: Api) -> None:
    answer = get_json(api, SLOWEST)
    runs = [(run["type"], run["durationMs"], run["status"]) for run in answer["data"]]
    assert runs == [
        ("pay", 9_000, "succeeded"),
        ("mail", 3_000, "failed"),
        ("pay", 2_000, "succeeded"),
        ("mail", 1_000, "succeeded"),
        ("mail", 500, "failed"),
    ]
    assert answer["data"][0] == {
        "type": "pay",
        "jobId": "job-3",
        "attemptNumber": 1,
        "workerId": "w1",
        "status": "succeeded",
        "finishedAt": to_iso(NOW - MINUTE),
        "durationMs": 9_000,
    }
    mail_runs = get_json(api, SLOWEST, type="mail")["data"]
    assert [run["durationMs"] for run in mail_runs] == [3_000, 1_000, 500]
    assert get_json(api, SLOWEST, type="none")["data"] == []


def test_slowest_attempts_without_starts_are_unknown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = ErrorHistory(NOW)
    history.succeed("mail", "w1", at=NOW - MINUTE)
    history.serve(monkeypatch)
    answer = get_json(api, SLOWEST)
    assert answer["data"] is None
    assert answer["meta"]["reasons"]["data"] == "no attempt of the window has a known start"


def test_slowest_attempts_of_many_types_are_limited_with_the_reason(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = ErrorHistory(NOW)
    for index in range(600):
        history.succeed(f"type-{index}", "w1", at=NOW - MINUTE, took=(1 + index) * SECOND)
    history.serve(monkeypatch)
    answer = get_json(api, SLOWEST)
    assert [run["type"] for run in answer["data"]] == [f"type-{599 - rank}" for rank in range(20)]
    assert f"{MAX_SLOW_TYPES} types" in answer["meta"]["reasons"]["data"]
