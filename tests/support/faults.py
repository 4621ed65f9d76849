"""Puts jobmon under load on a database that fails, to check that its answers stay correct.

This module has a replica set of three real servers, a proxy that drops or delays bytes, writers
that use the queue library, and viewers that check each answer against the writers' counts.
`tests/e2e/test_faults.py` uses it for seconds, `bench/faults.py` for minutes.
"""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

import jwt
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, PyMongoError

from jobmon.demo.mongod import Mongod, free_port
from jobmon.queue import JobQueue
from jobmon.settings import Settings

from ..conftest import SECRET
from .commands import index_queue
from .preloaded import start_python
from .processes import end_process
from .queue_worker import RETRY
from .services import Web
from .waiting import PATIENCE_S, eventually

TYPES = ("email.send", "payout.execute", "webhook.deliver")
MAX_STATS_AGE_S = 5.0  # jobmon does not show the collector's statistics if they are older
Document = dict[str, Any]


class ReplicaSet:
    """Three servers on this machine; after `election_ms` without a primary they elect one."""

    def __init__(self, folder: Path, *, election_ms: int = 10_000) -> None:
        options = ("--oplogSize", "64")
        options += ("--setParameter", "enableTestCommands=1")
        if election_ms < 10_000:  # so that secondaries leave a frozen primary as early
            options += ("--setParameter", "oplogNetworkTimeoutBufferSeconds=1")
        self.members = [
            Mongod(folder / str(index), initiate=False, cache_gb=0.25, options=options)
            for index in range(3)
        ]
        self._election_ms = election_ms
        # A server dies with the thread that started it.
        self._starters = ThreadPoolExecutor(len(self.members))

    @property
    def uri(self) -> str:
        """A connection string with the database `jobmon`."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/jobmon?replicaSet=rs0"

    def __enter__(self) -> Self:
        try:
            self.start(*self.members)
            addresses = [member.address for member in self.members]
            members = [{"_id": index, "host": host} for index, host in enumerate(addresses)]
            config = {"_id": "rs0", "members": members}
            config["settings"] = {
                "electionTimeoutMillis": self._election_ms,
                "heartbeatIntervalMillis": min(2_000, self._election_ms // 2),
            }
            self._command(self.members[0], {"replSetInitiate": config})
            self.await_primary(60)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all members, even frozen ones."""
        for member in self.members:
            with suppress(AssertionError, ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
            member.stop()
        self._starters.shutdown()

    def start(self, *members: Mongod) -> None:
        """Start these members in parallel and wait until they answer."""
        list(self._starters.map(Mongod.start, members))

    def primary(self) -> Mongod | None:
        """The member that accepts writes now; None if no member does."""
        for member in self.members:
            with suppress(PyMongoError, AssertionError):
                if self._command(member, {"hello": 1})["isWritablePrimary"]:
                    return member
        return None

    def await_primary(self, within_s: float = PATIENCE_S) -> Mongod:
        """Wait for a primary and return it."""
        deadline = time.monotonic() + within_s
        while (member := self.primary()) is None:
            assert time.monotonic() < deadline, f"no primary in {within_s} s"
            time.sleep(0.05)
        return member

    def await_writable(self, within_s: float = PATIENCE_S) -> float:
        """Wait until a majority accepts writes; returns the monotonic time.

        After an election this takes until another member stops following the old primary.
        """
        deadline = time.monotonic() + within_s
        insert = {"insert": "notes", "documents": [{}], "$db": "probe"}
        insert |= {"writeConcern": {"w": "majority", "wtimeout": 500}}
        while True:
            with suppress(PyMongoError):
                answer = self._command(self.await_primary(), insert)
                if "writeConcernError" not in answer:
                    return time.monotonic()
            assert time.monotonic() < deadline, f"no majority in {within_s} s"
            time.sleep(0.05)

    def await_all(self, within_s: float = PATIENCE_S) -> None:
        """Wait until every member is primary or secondary."""
        deadline = time.monotonic() + within_s
        while True:
            with suppress(PyMongoError):
                status = self._command(self.await_primary(), {"replSetGetStatus": 1})
                if all(member["state"] in (1, 2) for member in status["members"]):
                    return
            assert time.monotonic() < deadline, f"a member is not back in {within_s} s"
            time.sleep(0.1)

    def kill(self, member: Mongod) -> None:
        """Send SIGKILL to a member."""
        os.kill(member.pid, signal.SIGKILL)
        member.stop()

    def step_down(self) -> None:
        """Make the primary a secondary."""
        self._command(self.await_primary(), {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 4})

    def cut_off(self, *members: Mongod) -> None:
        """Stop the replication of these members; returns when it has stopped."""
        for member in members:
            stop = {"configureFailPoint": "stopReplProducer", "mode": "alwaysOn"}
            times_entered = self._command(member, stop)["count"] + 1
            wait = {"waitForFailPoint": "stopReplProducer", "timesEntered": times_entered}
            self._command(member, wait | {"maxTimeMS": 10_000})

    def reconnect(self, *members: Mongod) -> None:
        """Resume the replication of these members."""
        for member in members:
            self._command(member, {"configureFailPoint": "stopReplProducer", "mode": "off"})

    def _command(self, member: Mongod, command: Document) -> Document:
        with MongoClient[Document](
            member.address,
            directConnection=True,
            serverSelectionTimeoutMS=500,
            connectTimeoutMS=500,
            socketTimeoutMS=1_000 if "hello" in command else 15_000,
        ) as client:
            fields = dict(command)  # the caller may send `command` again
            return client[fields.pop("$db", "admin")].command(fields, check=True)


class Proxy:
    """Forwards bytes to a port on this machine, or drops or delays them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self.delay_s = 0.0
        self.is_dropping = False
        self._connections: list[Any] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept_connections, daemon=True).start()

    def _accept_connections(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_dropping:
                self._connections.append(client)  # accepted but never served, as with a cut cable
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._connections += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=[source, target], daemon=True).start()

    def _forward(self, source: Any, target: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if not self.is_dropping:
                    target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.close()

    def heal(self) -> None:
        """Forward again at once; close all connections, because some have lost bytes."""
        self.is_dropping, self.delay_s = False, 0.0
        self.close_connections()

    def close_connections(self) -> None:
        """Close every connection."""
        connections, self._connections = self._connections, []
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._listener.close()
        self.close_connections()


class Writers:
    """A producer that counts its acknowledged jobs, and queue workers in their own processes."""

    def __init__(self, uri: str, *, jobs_per_second: float = 30, worker_count: int = 2) -> None:
        self._uri = uri
        self._client = MongoClient[Document](uri, serverSelectionTimeoutMS=1_000)
        self.database = self._client.get_default_database()
        self._queue = JobQueue(self.database, retry=RETRY)
        self._queue.create_indexes()
        self.initial_count = self.database.jobs.count_documents({})
        self._stop = threading.Event()
        self._interval_s = 1 / jobs_per_second
        # A daemon: an enqueue that has begun never returns while the database is unreachable.
        self._thread = threading.Thread(target=self._produce, daemon=True)
        # When each enqueue began and when it was acknowledged, by the monotonic clock.
        self.begun: list[float] = []
        self.acknowledged: list[float] = []
        self.ids: list[str] = []
        self.workers = [self._start_worker(index) for index in range(worker_count)]
        self._next_worker = worker_count

    def start(self) -> None:
        self._thread.start()

    def count_known_jobs(self, moment: float) -> int:
        """The number of initial jobs and of jobs acknowledged until a monotonic time."""
        return self.initial_count + bisect_right(self.acknowledged, moment)

    def replace_worker(self, index: int) -> None:
        """Kill a queue worker and start another."""
        end_process(self.workers[index], None)
        self.workers[index] = self._start_worker(self._next_worker)
        self._next_worker += 1

    def drain(self, within_s: float = PATIENCE_S) -> None:
        """Stop producing; wait until every job is finished and every attempt is recorded."""
        self.stop_producing()
        jobs, attempts = self.database.jobs, self.database.job_attempts
        deadline = time.monotonic() + within_s
        while True:
            with suppress(PyMongoError):
                open_jobs = jobs.count_documents({"status": {"$nin": ["succeeded", "dlq"]}})
                if not open_jobs and not attempts.count_documents({"status": "running"}):
                    return
            assert time.monotonic() < deadline, "the queue did not drain"
            time.sleep(0.2)

    def stop_producing(self) -> None:
        self._stop.set()
        self._thread.join()

    def stop(self) -> None:
        self._stop.set()
        for worker in self.workers:
            end_process(worker, None)
        self._client.close()

    def _produce(self) -> None:
        due_at = time.monotonic()
        while not self._stop.is_set():
            job_id = str(uuid.uuid4())
            self.begun.append(time.monotonic())
            self.ids.append(job_id)
            while not self._enqueue(job_id):
                time.sleep(0.1)  # try again even after `stop`, because the enqueue has begun
            self.acknowledged.append(time.monotonic())
            due_at = max(due_at + self._interval_s, time.monotonic() - 1)
            self._stop.wait(max(0.0, due_at - time.monotonic()))

    def _enqueue(self, job_id: str) -> bool:
        try:
            self._queue.enqueue(random.choice(TYPES), job_id=job_id, max_attempts=3)
        except DuplicateKeyError:
            return True  # an earlier try has reached the database
        except PyMongoError:
            return False
        return True

    def _start_worker(self, index: int) -> subprocess.Popen[bytes]:
        arguments = (self._uri, f"worker-{index}")
        return start_python("tests.support.queue_worker", *arguments, env=dict(os.environ))


class Answer:
    """Sends a GET, and holds its answer; `status` is 0 if the connection broke or timed out."""

    def __init__(
        self, port: int, path: str, token: str = "", timeout_s: float = PATIENCE_S
    ) -> None:
        started = time.monotonic()
        self.path, self.sent_at, self.status, self.body = path, started, 0, b""
        self.retry_after = None
        connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            self.body = response.read()
            self.status = response.status
            self.retry_after = response.getheader("Retry-After")
        except (OSError, HTTPException) as error:
            self.body = repr(error).encode()
        finally:
            connection.close()
        self.took_s = time.monotonic() - started

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code, or the status if there is none; `broken` if there is no answer."""
        if self.status == 0:
            return "broken"
        with suppress(ValueError, LookupError, TypeError):
            return str(self.json["error"]["code"])
        return str(self.status)


class Viewers:
    """Clients that send requests during a block, and check the answers."""

    PATHS = (
        "/admin/jobs/stats",
        "/admin/jobs/queue?per_page=5",
        "/admin/jobs/stats",
        "/readyz",
        "/admin/jobs/timeseries",
        "/jobs?per_page=5",
    )

    def __init__(self, port: int, token: str, writers: Writers, count: int = 4) -> None:
        self._port, self._token, self._writers = port, token, writers
        self._stop = threading.Event()
        self.wrong_answers: list[str] = []
        self.answers: Counter[str] = Counter()
        self.longest_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._send_requests, args=[index]) for index in range(count)
        ]
        self._threads.append(threading.Thread(target=self._check_health))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def take_results(self) -> tuple[Counter[str], dict[str, float], list[str]]:
        """Return the results since the last call, and forget them.

        They are the number of answers by kind and code, the longest time to an answer in seconds by
        kind and code, and descriptions of the wrong answers.
        """
        with self._lock:
            results = self.answers, self.longest_s, self.wrong_answers
            self.answers, self.longest_s, self.wrong_answers = Counter(), {}, []
        return results

    def _send_requests(self, first_path: int) -> None:
        paths = islice(cycle(self.PATHS), first_path, None)
        while not self._stop.wait(0.2):
            self.record(Answer(self._port, next(paths), self._token))

    def _check_health(self) -> None:
        while not self._stop.wait(0.3):
            self.record(Answer(self._port, "/healthz"))

    def record(self, answer: Answer) -> None:
        """Count an answer, and remember it if it is wrong."""
        kind = "healthz" if answer.path == "/healthz" else "answer"
        key = f"{kind} {answer.code}"
        with self._lock:
            self.answers[key] += 1
            self.longest_s[key] = max(self.longest_s.get(key, 0.0), answer.took_s)
        try:
            self.check(answer)
        except (AssertionError, ValueError, LookupError, TypeError) as error:
            self.wrong_answers.append(f"{answer.path} {answer.status}: {error!r}")

    def check(self, answer: Answer) -> None:
        """Raise AssertionError for an answer that is neither correct nor an expected error."""
        if answer.status == 0:
            return  # it is counted: only the caller can know whether a broken connection is a fault
        if answer.path == "/healthz":
            assert answer.status == 200
            return
        if answer.status == 503:
            assert answer.code in ("database_unavailable", "overloaded"), answer.code
            assert int(answer.retry_after or 0) > 0
            return
        assert answer.status == 200, answer.body[:300]
        if answer.path == "/admin/jobs/stats":
            self._check_stats(answer)

    def _check_stats(self, answer: Answer) -> None:
        stats = answer.json
        total = stats["totalJobs"]
        if stats["statusCounts"] is not None:
            assert total == sum(stats["statusCounts"].values()), "the sums differ"
            by_type = (sum(counts.values()) for counts in stats["typeCounts"].values())
            assert total == sum(by_type), "the sums by type differ"
        minimum = self._writers.count_known_jobs(answer.sent_at - MAX_STATS_AGE_S - 0.5)
        maximum = self._writers.initial_count + len(self._writers.begun)
        message = f"{total} is not in {minimum} to {maximum} ({stats['source']})"
        assert minimum <= total <= maximum, message


def await_recovery(
    port: int, token: str, writers: Writers, within_s: float = PATIENCE_S
) -> tuple[float, float]:
    """Wait until jobmon has recovered; returns the monotonic times of two requests.

    The first is the earliest of ten successive requests with status 200. The answer to the second
    had statistics from the collector that were at most two seconds old.
    """
    deadline = time.monotonic() + within_s
    served_at: float | None = None
    in_a_row, first_at, reason = 0, 0.0, ""
    while True:
        answer = Answer(port, "/admin/jobs/stats", token)
        if answer.status == 200:
            first_at = first_at if in_a_row else answer.sent_at
            in_a_row += 1
            if in_a_row >= 10 and served_at is None:
                served_at = first_at
            stats = answer.json
            minimum = writers.count_known_jobs(answer.sent_at - 2)
            is_fresh = stats["totalJobs"] >= minimum
            if served_at is not None and stats["source"] == "rollup" and is_fresh:
                return served_at, answer.sent_at
            reason = f"{stats['totalJobs']} jobs of {minimum} ({stats['source']}, {in_a_row} good)"
        else:
            in_a_row, reason = 0, repr(answer.body[:300])
        assert time.monotonic() < deadline, f"not recovered in {within_s} s: {reason}"
        time.sleep(0.05)


def await_full_count(
    port: int, token: str, writers: Writers, within_s: float = 240
) -> tuple[Document, str]:
    """Wait until the collector has counted all jobs and attempts; returns stats and metrics."""
    deadline = time.monotonic() + within_s
    total = writers.database.jobs.count_documents({})
    events = total + writers.database.job_attempts.count_documents({})
    while True:
        stats = Answer(port, "/admin/jobs/stats", token)
        metrics = Answer(port, "/metrics", token)
        if stats.status == metrics.status == 200 and stats.json["source"] == "rollup":
            counts = sum_counters(metrics.body.decode())
            counted_events = sum(
                count for (name, _), count in counts.items() if name in ("enqueued", "attempts")
            )
            if stats.json["totalJobs"] == total and counted_events >= events:
                return stats.json, metrics.body.decode()
        assert time.monotonic() < deadline, (stats.body[:500], total, events)
        time.sleep(0.2)


_COUNTER_NAMES = {
    "jobmon_jobs_enqueued_total": "enqueued",
    "jobmon_attempts_finished_total": "attempts",
    "jobmon_jobs_dead_lettered_total": "dlq",
}


def sum_counters(metrics: str) -> Counter[tuple[str, str]]:
    """The queue's counters by name and outcome, summed over all types."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in metrics.splitlines():
        name, _, labels = line.partition("{")
        if name in _COUNTER_NAMES:
            outcome = labels.partition('outcome="')[2].partition('"')[0]
            counts[_COUNTER_NAMES[name], outcome] += round(float(line.rsplit(" ", 1)[1]))
    return counts


def check_nothing_lost(writers: Writers, stats: Document, metrics: str) -> dict[str, int]:
    """Check that a drained queue lost and duplicated nothing, and that jobmon's counts are right.

    Raises AssertionError; returns counts to print.
    """
    jobs = list(writers.database.jobs.find({}, {"jobId": 1, "status": 1, "attemptCount": 1}))
    attempts = list(writers.database.job_attempts.find({}))
    assert sorted(job["jobId"] for job in jobs) == sorted(writers.ids), "jobs lost or duplicated"
    by_status = Counter(job["status"] for job in jobs)
    counts = {status: count for status, count in stats["statusCounts"].items() if count}
    assert counts == dict(by_status), "the statistics differ from the jobs"
    attempts_by_job: dict[str, list[Document]] = {}
    for attempt in attempts:
        attempts_by_job.setdefault(attempt["jobId"], []).append(attempt)
    for job in jobs:
        job_attempts = attempts_by_job.get(job["jobId"], [])
        job_attempts.sort(key=lambda attempt: attempt["attemptNumber"])
        numbers = [attempt["attemptNumber"] for attempt in job_attempts]
        assert numbers == list(range(1, job["attemptCount"] + 1)), (job, numbers)
        expected = ("succeeded",) if job["status"] == "succeeded" else ("failed", "expired")
        assert job_attempts[-1]["status"] in expected, (job, job_attempts[-1])
    outcomes = Counter(attempt["status"] for attempt in attempts)
    counters = {key: count for key, count in sum_counters(metrics).items() if count}
    totals = {("enqueued", ""): len(jobs), ("dlq", ""): by_status["dlq"]}
    totals |= {("attempts", outcome): count for outcome, count in outcomes.items()}
    assert counters == {key: count for key, count in totals.items() if count}, "the counters differ"
    return {"jobs": len(jobs), "attempts": len(attempts), **outcomes}


@contextmanager
def run_collector(uri: str, log: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Run a collector during the block; yields a function that ends it and starts another.

    The function ends it with SIGKILL, or with SIGTERM if `kill` is False.
    """
    environment = dict(os.environ) | {"JOBMON_MONGO_URI": uri, "JOBMON_JWT_SECRET_KEY": SECRET}

    def start() -> subprocess.Popen[bytes]:
        with log.open("a") as stderr:
            return start_python("jobmon.cli", "collector", env=environment, stderr=stderr)

    process = start()

    def restart(*, kill: bool = True) -> subprocess.Popen[bytes]:
        nonlocal process
        end_process(process, None if kill else signal.SIGTERM)
        process = start()
        return process

    try:
        yield restart
    finally:
        end_process(process)


class SystemUnderLoad:
    """A replica set, gunicorn, a collector, writers, and viewers that check the answers."""

    def __init__(
        self,
        servers: ReplicaSet,
        port: int,
        token: str,
        writers: Writers,
        viewers: Viewers,
        web: Web,
        restart_collector: Callable[..., Any],
    ) -> None:
        self.servers, self.port, self.token, self.web = servers, port, token, web
        self.writers, self.viewers = writers, viewers
        self.restart_collector = restart_collector
        self.kill_for_s = 600.0  # for the fault in which processes are killed

    def await_recovery(self) -> tuple[float, float]:
        """Wait until jobmon has recovered; returns two durations in seconds.

        The first is from the new primary until requests are answered; the second is from the first
        majority write until the statistics come from the collector and are up to date.
        """
        self.servers.await_primary()
        primary_at = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            writable = pool.submit(self.servers.await_writable)
            served_at, counted_at = await_recovery(self.port, self.token, self.writers)
            return max(0.0, served_at - primary_at), max(0.0, counted_at - writable.result())

    def pause(self, seconds: float) -> None:
        """Wait while the load goes on."""
        time.sleep(seconds)

    def check_all_threads_answer(self, workers: int, threads: int) -> None:
        """Send one request for each thread, in parallel, and repeat this until all get a 200.

        Raises AssertionError if this does not happen in time.
        """
        request_count = workers * threads

        def send(_: int) -> str:
            return Answer(self.port, "/admin/jobs/queue?per_page=1", self.token).code

        def all_answer() -> bool:
            return set(pool.map(send, range(request_count))) == {"200"}

        with ThreadPoolExecutor(request_count) as pool:
            # On a slow machine one worker can get most of the requests, and refuse some.
            eventually(all_answer)


@contextmanager
def system_under_load(
    servers: ReplicaSet, folder: Path, *, viewer_count: int = 4, jobs_per_second: float = 30
) -> Iterator[SystemUnderLoad]:
    """Run writers, a web service, a collector and viewers on these servers during the block.

    The logs are in `folder`.
    """
    token = admin_token()
    index_queue(Settings(mongo_uri=servers.uri))
    writers = Writers(servers.uri, jobs_per_second=jobs_per_second)
    with ExitStack() as stack:
        stack.callback(writers.stop)
        web = Web(servers.uri, folder, JOBMON_WORKERS="2", JOBMON_THREADS="8")
        stack.callback(web.stop)
        with run_collector(servers.uri, folder / "collector.log") as restart:
            writers.start()
            eventually(web.answers)
            with Viewers(web.port, token, writers, viewer_count) as viewers:
                system = SystemUnderLoad(servers, web.port, token, writers, viewers, web, restart)
                system.await_recovery()
                viewers.take_results()
                yield system


def admin_token() -> str:
    """An admin's token, valid for a day, signed with the tests' secret."""
    claims = {"sub": "root", "role": "admin", "type": "access", "exp": time.time() + 86_400}
    claims |= {"iat": time.time(), "nbf": time.time(), "jti": str(uuid.uuid4()), "fresh": False}
    return jwt.encode(claims, SECRET, "HS256")
