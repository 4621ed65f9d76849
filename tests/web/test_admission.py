"""The limit of concurrent requests: catches a slot that is lost, granted twice or waited for too
long, and a probe that has to wait for a slot."""

import io
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import bson
import pytest
from pymongo.database import Database
from werkzeug.test import EnvironBuilder, run_wsgi_app

from jobmon.api import group_jobs, queues
from jobmon.api.answers import JobDetail
from jobmon.api.group_jobs import GroupJobFinder
from jobmon.api.queues import QueueSummary
from jobmon.app import create_app
from jobmon.rollup.documents import ERRORS, OwnDatabase, rollup_database
from jobmon.settings import Settings
from jobmon.store.decoding import LARGE_BYTES, decode
from jobmon.store.filter import GroupJobs, JobFilter
from jobmon.store.jobs import JobStore
from jobmon.web import admission
from jobmon.web.admission import MAX_BODY_BYTES, MAX_LARGE_WAITING, ConcurrencyLimit
from jobmon.web.queues import current_queue

from ..conftest import Api
from ..support.waiting import PATIENCE_S, eventually

JOB = "/jobs/some-id"


def test_acquire_is_refused_without_a_wait_if_all_slots_and_the_queue_are_full() -> None:
    limit = ConcurrencyLimit(2, max_waiting=1, wait_s=PATIENCE_S)
    assert [limit.acquire(), limit.acquire()] == [True, True]
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(limit.acquire)
        eventually(lambda: limit._queue)
        assert limit.acquire() is False
        limit.release()
        assert waiting.result(timeout=PATIENCE_S) is True
    limit.release()
    assert limit.acquire() is True


def test_waiting_callers_get_slots_in_the_order_of_their_calls() -> None:
    limit, served = ConcurrencyLimit(1, max_waiting=5, wait_s=PATIENCE_S), []
    assert limit.acquire() is True

    def work(caller: int) -> None:
        assert limit.acquire()
        served.append(caller)
        limit.release()

    threads = [threading.Thread(target=work, args=[caller]) for caller in range(5)]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        eventually(lambda count=count: len(limit._queue) == count)
    limit.release()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


def test_acquire_waits_for_a_limited_time() -> None:
    limit = ConcurrencyLimit(1, max_waiting=1, wait_s=0.01)
    assert limit.acquire() is True
    assert [limit.acquire(), limit.acquire()] == [False, False]
    assert not limit._queue  # both calls have left the queue
    limit.release()
    assert limit.acquire() is True


class BusyApi(NamedTuple):
    """A service whose two slots are taken by two requests, until `may_end` is set."""

    api: Api
    may_end: threading.Event
    answers: list[Future[Any]]


@pytest.fixture
def busy_api(
    watched: Any, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr(
        admission,
        "ConcurrencyLimit",
        lambda slots, *_, **__: ConcurrencyLimit(slots, max_waiting=0),
    )
    api = Api(create_app(make_settings(threads=2), watched.client))
    may_end, running = threading.Event(), []

    def wait(*_: Any, **__: Any) -> None:
        running.append(1)
        assert may_end.wait(PATIENCE_S)

    monkeypatch.setattr(JobStore, "get_job", wait)
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(api.get_as_admin, JOB) for _ in range(2)]
        eventually(lambda: len(running) == 2)
        yield BusyApi(api, may_end, answers)
        may_end.set()


def test_overload_is_503_except_for_probes_and_metrics(busy_api: BusyApi) -> None:
    api = busy_api.api
    for path in (JOB, "/admin/jobs/stats", "/none"):
        refused = api.get(path)  # before the check of its token, which takes time, too
        assert refused.status_code == 503
        assert refused.json["error"]["code"] == "overloaded"
        assert int(refused.headers["Retry-After"]) > 0
    page = api.get("/dashboard/sign-in")
    assert (page.status_code, page.content_type) == (503, "text/html; charset=utf-8")
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 200
    metrics = api.get_as_admin("/metrics").text
    labels = 'method="GET",route="/jobs/<anything:job_id>",status="503"'
    assert f"jobmon_http_requests_total{{{labels}}}" in metrics
    busy_api.may_end.set()
    assert Counter(answer.result().status_code for answer in busy_api.answers) == {403: 2}


@pytest.mark.parametrize("path", [JOB, "/none", "/admin/jobs/queue", "/jobs", "/dashboard"])
@pytest.mark.parametrize("token", ["guess", None])
def test_request_releases_its_slot_even_if_it_is_refused(
    watched: Any, make_settings: Callable[..., Settings], path: str, token: str | None
) -> None:
    api = Api(create_app(make_settings(threads=1), watched.client))
    statuses = {api.get(path, token=token or api.token()).status_code for _ in range(3)}
    assert 503 not in statuses
    assert len(statuses) == 1


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[ConcurrencyLimit]:
    """The limits of the app that is created next; large requests wait up to PATIENCE_S seconds."""
    limits = list[ConcurrencyLimit]()

    def make(*arguments: Any, **options: Any) -> ConcurrencyLimit:
        limits.append(ConcurrencyLimit(*arguments, **options))
        return limits[-1]

    monkeypatch.setattr(admission, "ConcurrencyLimit", make)
    monkeypatch.setattr(admission, "MAX_LARGE_WAIT_S", PATIENCE_S)
    return limits


def test_only_one_large_document_is_in_memory_at_a_time(
    limits: list[ConcurrencyLimit],
    real_api: Api,
    database: Database[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches eight simultaneous requests for a job of 7 MB, each of which takes 200 MB."""
    payload = {"text": "x" * (LARGE_BYTES + 1)}
    database.jobs.insert_many([{"jobId": "large", "payload": payload}, {"jobId": "small"}])
    may_end, in_memory = threading.Event(), []
    dump = JobDetail.dump

    def wait_and_dump(schema: JobDetail, job: dict[str, Any], **options: Any) -> Any:
        if job["jobId"] == "large":
            in_memory.append(1)
            assert may_end.wait(PATIENCE_S)
            in_memory.pop()
        return dump(schema, job, **options)

    monkeypatch.setattr(JobDetail, "dump", wait_and_dump)
    with ThreadPoolExecutor(1 + MAX_LARGE_WAITING) as threads:
        answers = [
            threads.submit(real_api.get_as_admin, "/jobs/large")
            for _ in range(1 + MAX_LARGE_WAITING)
        ]
        _, large_limit = limits
        eventually(lambda: in_memory and len(large_limit._queue) == MAX_LARGE_WAITING)
        assert real_api.get_as_admin("/jobs/large").json["error"]["code"] == "overloaded"
        assert real_api.get_as_admin("/jobs/small").status_code == 200
        assert in_memory == [1]
        may_end.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert real_api.get_as_admin("/jobs/large").status_code == 200


def test_queue_that_is_read_after_its_request_has_ended_takes_no_place_of_a_large_document(
    limits: list[ConcurrencyLimit], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a place that nobody frees: every later request for a large document would be 503."""
    large = bson.encode({"text": "x" * (LARGE_BYTES + 1)})
    may_read, are_read = threading.Event(), threading.Event()

    def read_slowly(_: Any) -> QueueSummary:
        assert may_read.wait(PATIENCE_S)
        decode(large)
        are_read.set()
        return QueueSummary()

    monkeypatch.setattr(queues, "_summarize", read_slowly)
    assert api.get_as_admin("/queues").json["data"][0]["statusCounts"] is None
    may_read.set()
    assert are_read.wait(PATIENCE_S)
    _, large_limit = limits
    assert large_limit._free == 1


def test_documents_of_the_collector_take_no_place_of_a_large_document(
    limits: list[ConcurrencyLimit], real_api: Api
) -> None:
    """Catches a 503 for the fourth viewer of a queue with many types or errors."""
    app = real_api.app
    connection = app.extensions["jobmon_connection"]
    own = OwnDatabase(rollup_database(connection), connection.queue_key)
    own[ERRORS].insert_one(own.new("group", {"text": "x" * (LARGE_BYTES + 1)}))
    with app.test_request_context("/jobs", headers={"Authorization": f"Bearer {real_api.token()}"}):
        assert app.preprocess_request() is None
        assert current_queue().rollup.error_groups() == {}
        _, large_limit = limits
        assert large_limit._free == 1


def test_request_with_a_large_document_does_not_wait_for_the_search_of_another_request(
    limits: list[ConcurrencyLimit], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches two 503: each request waits for what the other one has."""
    large, found = bson.encode({"text": "x" * (LARGE_BYTES + 1)}), GroupJobs(("a",), "")
    finder, job_filter = GroupJobFinder(), JobFilter(error_group="e")
    is_searching, has_place = threading.Event(), threading.Event()

    def search(*_: Any) -> GroupJobs:
        is_searching.set()
        assert has_place.wait(PATIENCE_S)
        decode(large)
        return found

    def resolve(*, has_large: bool) -> GroupJobs | None:
        with api.app.test_request_context(
            "/jobs", headers={"Authorization": f"Bearer {api.token()}"}
        ):
            assert api.app.preprocess_request() is None
            if has_large:
                assert is_searching.wait(PATIENCE_S)
                decode(large)
                has_place.set()
            return finder.resolve(current_queue(), job_filter).group_jobs

    monkeypatch.setattr(group_jobs, "_search", search)
    with ThreadPoolExecutor(2) as threads:
        searches = [threads.submit(resolve, has_large=has_large) for has_large in (True, False)]
        assert [search.result(PATIENCE_S) for search in searches] == [found, found]
    _, large_limit = limits
    assert large_limit._free == 1


class OpenConnection(io.RawIOBase):
    """A connection that stays open; on a real one a read would wait for ever, here it fails."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise AssertionError("read")


@pytest.mark.parametrize("path", ["/healthz", "/jobs"])
def test_body_without_length_or_end_is_not_read(api: Api, path: str) -> None:
    """Catches a 413 or an endless wait if the server passes the socket to the app."""
    environ = EnvironBuilder(path, headers={"Transfer-Encoding": "chunked"}).get_environ()
    environ |= {"wsgi.input": OpenConnection()}
    environ.pop("wsgi.input_terminated", None)
    _, status, _ = run_wsgi_app(api.app, environ)
    assert status == ("200 OK" if path == "/healthz" else "401 UNAUTHORIZED")


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 401), (MAX_BODY_BYTES + 1, 413)])
def test_body_that_is_too_long_is_refused_with_and_without_a_content_length(
    api: Api, size: int, status: int
) -> None:
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        environ = EnvironBuilder("/jobs", data=b"x" * size, headers=headers).get_environ()
        if headers:
            del environ["CONTENT_LENGTH"]
            environ["wsgi.input_terminated"] = True
        _, status_line, _ = run_wsgi_app(api.app, environ)
        assert status_line.startswith(f"{status} "), headers
