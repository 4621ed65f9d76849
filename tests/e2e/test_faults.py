"""Faults under load, with real servers and processes.

Catches wrong statistics, an answer that is late or never comes, a service that needs a restart, and
a count that is lost or doubled. `bench/faults.py` causes such faults for minutes.
"""

import os
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from bson import ObjectId
from pymongo import WriteConcern
from pymongo.database import Database
from pymongo.errors import PyMongoError

from jobmon.collector.collecting import collecting
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod, free_port
from jobmon.rollup.gaps import GapReason
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.series import NoCollectorError, SeriesReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.web.admission import MAX_WAITING

from ..conftest import Api
from ..support.commands import database_uri
from ..support.faults import (
    Answer,
    Proxy,
    ReplicaSet,
    SystemUnderLoad,
    Viewers,
    await_full_count,
    check_nothing_lost,
    system_under_load,
)
from ..support.processes import child_processes
from ..support.services import Web, serving
from ..support.waiting import eventually

pytestmark = pytest.mark.long

# The fail point at which a read waits before its first document.
WAIT_FAIL_POINT = "waitInFindBeforeMakingBatch"
STATS, QUEUE = "/admin/jobs/stats", "/admin/jobs/queue?per_page=1"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, mongod: Mongod) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("mongod"), election_ms=1_000) as servers:
        yield servers


def test_writes_lost_with_the_primary_are_not_counted(
    servers: ReplicaSet, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = servers.uri.replace("/jobmon?", "/lossy?")
    settings = make_settings(mongo_uri=uri, rollup_db="lossy_rollups")
    primary, recount = servers.await_primary(), SegmentMap.recount
    secondaries = [member for member in servers.members if member is not primary]
    connection = Connection(settings)
    reader, has_counted_lost_jobs = RollupReader(connection), threading.Event()
    # Writes that only the primary has to confirm.
    primary_jobs = connection.jobs.collection.with_options(write_concern=WriteConcern(1))

    def read_total() -> int | None:
        with suppress(PyMongoError):
            return None if (stats := reader.stats()) is None else stats.total
        return None

    def recount_unreplicated_writes(segments: SegmentMap) -> int:
        if not segments._marked_ids or has_counted_lost_jobs.is_set():
            return recount(segments)
        servers.cut_off(*secondaries)
        primary_jobs.insert_many([{"jobId": f"lost-{number}"} for number in range(5)])
        result = recount(segments)
        has_counted_lost_jobs.set()
        return result

    def change_kept_job() -> bool:
        primary_jobs.update_one({"jobId": "kept"}, {"$inc": {"changes": 1}})
        return has_counted_lost_jobs.wait(0.5)

    with collecting(settings):
        eventually(lambda: read_total() == 0)
        monkeypatch.setattr(SegmentMap, "recount", recount_unreplicated_writes)
        connection.jobs.collection.insert_one({"jobId": "kept"})
        # Several changes, because an interrupted collector counts the job without a recount.
        eventually(change_kept_job)
        servers.kill(primary)  # while the collector waits for the replication of its write
        servers.reconnect(*secondaries)
        eventually(lambda: read_total() is not None)
        servers.await_writable()
        eventually(lambda: read_total() == 1)
    connection.client.close()
    servers.start(primary)


def test_runs_of_deleted_jobs_are_counted_once_through_a_failover(
    servers: ReplicaSet, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        mongo_uri=servers.uri.replace("/jobmon?", "/deleting?"),
        rollup_db="deleting_rollups",
        profile="mongo-message-queue",
        jobs_collection="_queue",
    )
    connection = Connection(settings)
    rollup, jobs = RollupReader(connection), connection.jobs.collection
    series = SeriesReader(connection, rollup)

    def repeat_until_confirmed(write: Callable[[], Any]) -> None:
        def is_confirmed() -> bool:
            with suppress(PyMongoError):
                write()
                return True
            return False

        eventually(is_confirmed)

    def run_jobs(count: int) -> None:
        """Run jobs like a worker of mongo-message-queue, which deletes a job when it is done."""
        for _ in range(count):
            job = {"_id": ObjectId(), "type": "t", "dateCreated": datetime.now(UTC)}
            by_id, lease = {"_id": job["_id"]}, {"receivedTime": datetime.now(UTC)}
            repeat_until_confirmed(partial(jobs.replace_one, by_id, job, upsert=True))
            repeat_until_confirmed(partial(jobs.update_one, by_id, {"$set": lease}))
            repeat_until_confirmed(partial(jobs.delete_one, by_id))

    def read_counts() -> tuple[int, int] | None:
        """The numbers of enqueued and of succeeded jobs."""
        with suppress(PyMongoError, NoCollectorError):
            now = datetime.now(UTC)
            window = series.window(now - timedelta(minutes=10), now, None)
            activity = series.history_by_type(window).activity.get("t")
            return None if activity is None else (activity.enqueued, activity.succeeded)
        return None

    jobs.insert_one({})  # so that the collection exists
    create_indexes(connection)
    with collecting(settings):
        eventually(rollup.counts_changes)
        run_jobs(10)
        primary = servers.await_primary()
        servers.kill(primary)
        run_jobs(10)
        servers.start(primary)
        run_jobs(10)
        eventually(lambda: read_counts() == (30, 30))
    history = rollup.event_history()
    assert history is not None
    assert [gap.reason for gap in history.gaps] == [GapReason.BEFORE_COLLECTOR]
    connection.client.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(502, b"<html>"), (404, b"{}"), (503, b"[]"), (200, b""), (200, b"null"), (200, b"{}")],
)
def test_viewers_report_an_answer_with_an_unexpected_body(status: int, body: bytes) -> None:
    """Catches a viewer whose thread ends at such an answer: then no wrong answer is reported."""
    viewers = Viewers(free_port(), "", Mock())
    answer = Answer(free_port(), STATS)
    answer.status, answer.body = status, body
    viewers.record(answer)
    answers, _, wrong_answers = viewers.take_results()
    assert answers == {f"answer {status}": 1}
    assert len(wrong_answers) == 1


@pytest.fixture(scope="module")
def system(
    servers: ReplicaSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SystemUnderLoad]:
    with system_under_load(
        servers, tmp_path_factory.mktemp("logs"), viewer_count=2, jobs_per_second=12
    ) as system:
        yield system


# Each of these functions causes a fault and returns a function that ends it.
def kill_primary(system: SystemUnderLoad) -> Callable[[], Any]:
    member = system.servers.await_primary()
    system.servers.kill(member)
    return lambda: system.servers.start(member)


def step_down(system: SystemUnderLoad) -> Callable[[], Any]:
    system.servers.step_down()
    return lambda: None


def freeze_primary(system: SystemUnderLoad) -> Callable[[], Any]:
    member = system.servers.await_primary()
    os.kill(member.pid, signal.SIGSTOP)
    return lambda: os.kill(member.pid, signal.SIGCONT)


def restart_all(system: SystemUnderLoad) -> Callable[[], Any]:
    for member in system.servers.members:
        system.servers.kill(member)
    eventually(lambda: Answer(system.port, "/readyz").status == 503)
    assert Answer(system.port, "/healthz").status == 200
    system.servers.start(*system.servers.members)
    return lambda: None


@pytest.mark.parametrize("fault", [step_down, kill_primary, freeze_primary, restart_all])
def test_database_fault_gives_expected_errors_and_jobmon_recovers(
    system: SystemUnderLoad, fault: Callable[[SystemUnderLoad], Callable[[], Any]]
) -> None:
    system.servers.await_all()
    system.viewers.take_results()
    end_fault = fault(system)
    try:
        system.await_recovery()
    finally:
        end_fault()
    answers, _, wrong_answers = system.viewers.take_results()
    assert wrong_answers == []
    assert not [code for code in answers if "broken" in code], "a request without an answer"
    system.check_all_threads_answer(workers=2, threads=8)


def test_killed_processes_break_only_their_own_requests(system: SystemUnderLoad) -> None:
    system.viewers.take_results()
    for index in range(2):
        os.kill(child_processes(system.web.process.pid)[0], signal.SIGKILL)
        system.restart_collector()
        system.writers.replace_worker(index)
        system.pause(1)
    system.await_recovery()
    answers, _, wrong_answers = system.viewers.take_results()
    assert wrong_answers == []
    # Each of the two killed workers had at most one request of each client: two viewers, and the
    # client that checks the health.
    assert sum(count for code, count in answers.items() if "broken" in code) <= 2 * 3
    system.check_all_threads_answer(workers=2, threads=8)


def test_no_job_or_count_is_lost_after_all_faults(system: SystemUnderLoad) -> None:
    system.servers.await_all()
    system.writers.drain()
    system.restart_collector(kill=False)  # a new collector recounts the last 15 minutes
    stats, metrics = await_full_count(system.port, system.token, system.writers)
    counts = check_nothing_lost(system.writers, stats, metrics)
    assert counts["jobs"] > 100
    assert counts["attempts"] > counts["jobs"]


@pytest.fixture
def proxy_and_web(
    mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path
) -> Iterator[tuple[Proxy, Web]]:
    """A proxy that drops all data, and a web service that reaches its database only through it."""
    database.jobs.insert_many([{"jobId": str(number)} for number in range(7)])
    proxy = Proxy(mongod.port)
    proxy.is_dropping = True
    uri = f"mongodb://127.0.0.1:{proxy.port}/{database.name}?directConnection=true"
    limits = {"JOBMON_SERVER_SELECTION_TIMEOUT_MS": "1000", "JOBMON_QUERY_TIMEOUT_MS": "2000"}
    try:
        with serving(uri, tmp_path, **limits) as web:
            yield proxy, web
    finally:
        proxy.close()


def test_silent_network_leaves_no_request_without_an_answer(
    proxy_and_web: tuple[Proxy, Web], real_api: Api
) -> None:
    proxy, web = proxy_and_web
    token, stop = real_api.token(), threading.Event()
    answers: list[Answer] = []

    def send_requests() -> None:
        while not stop.wait(0.1):
            answers.append(Answer(web.port, STATS, token))

    def await_answer() -> None:
        eventually(lambda: answers[-1].status == 200 and answers[-1].json["totalJobs"] == 7)

    def check_outage() -> None:
        """Check the answers while no data passes, and await the recovery when it passes again."""
        eventually(lambda: Answer(web.port, "/readyz").status == 503)
        for _ in range(10):
            assert Answer(web.port, "/healthz").status == 200
        eventually(lambda: answers and answers[-1].code == "database_unavailable")
        proxy.heal()
        await_answer()
        eventually(lambda: Answer(web.port, "/readyz").status == 200)

    clients = [threading.Thread(target=send_requests) for _ in range(12)]
    try:
        for client in clients:  # the service has never reached its database
            client.start()
        check_outage()
        proxy.delay_s = 0.1
        # Queries are slow and the clients send requests, so this one may be refused at first.
        eventually(lambda: Answer(web.port, QUEUE, token).status == 200)
        proxy.is_dropping = True
        check_outage()
        proxy.heal()  # closes all connections
        await_answer()
    finally:
        stop.set()
        for client in clients:
            client.join()
    codes = {answer.code for answer in answers} - {"overloaded"}
    assert codes == {"200", "database_unavailable"}
    assert all(int(answer.retry_after or 0) > 0 for answer in answers if answer.status == 503)


def test_overloaded_service_refuses_requests_and_answers_probes(
    mongod: Mongod, database: Database[dict[str, Any]], real_api: Api, tmp_path: Path
) -> None:
    database.jobs.insert_one({"jobId": "one", "createdBy": "root"})
    token = real_api.token()
    set_fail_point = partial(database.client.admin.command, "configureFailPoint", WAIT_FAIL_POINT)
    answers: list[Answer] = []

    def send_request() -> None:
        answers.append(Answer(web.port, "/jobs", token))

    clients = [threading.Thread(target=send_request) for _ in range(2 + MAX_WAITING + 20)]
    limits = {"JOBMON_THREADS": "2", "JOBMON_QUERY_TIMEOUT_MS": "60000"}
    with serving(database_uri(mongod, database), tmp_path, **limits) as web:
        set_fail_point(mode="alwaysOn", data={"nss": f"{database.name}.jobs"})
        try:
            for client in clients:
                client.start()
            eventually(lambda: len(answers) >= 20)
            for path in ("/healthz", "/readyz", "/metrics"):
                assert Answer(web.port, path, token).status == 200
            eventually(lambda: len(answers) == MAX_WAITING + 20)
            assert {answer.code for answer in answers} == {"overloaded"}
        finally:
            set_fail_point(mode="off")
            for client in clients:
                client.join()
        # The two running requests succeed. Up to MAX_WAITING others wait before their refusal.
        codes = Counter(answer.code for answer in answers)
        assert codes == {"200": 2, "overloaded": MAX_WAITING + 20}
        refusals = [answer for answer in answers if answer.code == "overloaded"]
        assert all(int(answer.retry_after or 0) > 0 for answer in refusals)
        assert Answer(web.port, "/jobs/one", token).status == 200


def test_worker_that_cannot_write_its_counters_still_serves(
    mongod: Mongod, database: Database[dict[str, Any]], real_api: Api, tmp_path: Path
) -> None:
    """Catches workers that die one after another on a machine with a full disk."""
    token = real_api.token()
    with serving(database_uri(mongod, database), tmp_path) as web:
        assert Answer(web.port, "/jobs", token).status == 200
        resource.prlimit(web.process.pid, resource.RLIMIT_FSIZE, (65_536, 65_536))
        (old_worker,) = web.workers()
        os.kill(old_worker, signal.SIGKILL)
        (new_worker,) = eventually(lambda: web.workers() - {old_worker})
        eventually(web.answers)
        answers = [Answer(web.port, path, token) for path in ("/jobs", STATS, "/metrics") * 20]
        assert {answer.status for answer in answers} == {200}
        assert web.workers() == {new_worker}
        sample = 'jobmon_http_requests_total{method="GET",route="/jobs",status="200"} 1.0'
        assert all(
            sample in answer.body.decode() for answer in answers if answer.path == "/metrics"
        )
        assert web.stop().count("this worker's requests are not counted") == 1


def test_killed_collecting_worker_is_replaced(
    mongod: Mongod, database: Database[dict[str, Any]], real_api: Api, tmp_path: Path
) -> None:
    """Catches statistics that are counted live long after a collector was killed."""
    database.jobs.insert_many([{"jobId": str(number)} for number in range(7)])
    rollups = database.client[f"{database.name}_rollups"]
    settings = {"JOBMON_COLLECTOR": "true", "JOBMON_ROLLUP_DB": rollups.name}

    def find_leader() -> str:
        """The collector that has the lease and has written the statistics; "" if there is none."""
        lease, stats = rollups.leases.find_one(), rollups.state.find_one({"name": "stats"})
        has_counted = lease and stats and lease["holder"] == stats["collector"]
        return lease["holder"] if has_counted else ""

    with serving(database_uri(mongod, database), tmp_path, JOBMON_WORKERS="2", **settings) as web:
        killed_leader = eventually(find_leader)
        eventually(lambda: len(web.workers()) == 2)
        _, process_id, *_ = killed_leader.split(":")
        os.kill(int(process_id), signal.SIGKILL)
        eventually(lambda: find_leader() not in ("", killed_leader))
        stats = Answer(web.port, STATS, real_api.token()).json
        assert (stats["source"], stats["totalJobs"]) == ("rollup", 7)
    database.client.drop_database(rollups.name)
