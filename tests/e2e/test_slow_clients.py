"""Slow clients of a real gunicorn.

Catches a client that holds a thread, the event loop or a connection because it sends or reads
slowly, and a wrong answer to a request that arrives in pieces.
"""

import json
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.dashboard import views
from jobmon.demo.mongod import Mongod
from jobmon.serving import limits
from jobmon.web.admission import MAX_BODY_BYTES

from ..conftest import Api
from ..support.certificates import Authority
from ..support.services import Web, serving
from ..support.waiting import PATIENCE_S, eventually

# Heads of requests, without the empty line at their end.
FORM = (
    b"POST /dashboard/session HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
HEALTH_REQUEST = HEALTH + b"Connection: close\r\n\r\n"
MANY_CLIENTS = 80  # more clients than the worker has threads


@contextmanager
def serve_with_limits(
    mongod: Mongod, folder: Path, options: str = "", **limits_s: int
) -> Iterator[Web]:
    """Run a service with one worker on the database `slow`.

    `options` are gunicorn's; `limits_s` replace values of `jobmon.serving.limits`.
    """
    lines = [
        "from jobmon.serving import limits",
        "from jobmon.serving.gunicorn_config import *",
        *(f"limits.{name} = {value}" for name, value in limits_s.items()),
    ]
    config = folder / "gunicorn.conf.py"
    config.write_text("\n".join(lines))
    settings = {"JOBMON_THREADS": "2", "GUNICORN_CMD_ARGS": f"--config {config} {options}"}
    with serving(mongod.uri.replace("/?", "/slow?"), folder, **settings) as web:
        yield web


@pytest.fixture(scope="module")
def patient_web(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A service with timeouts that no client reaches, even on a slow machine."""
    timeouts = dict.fromkeys(("REQUEST_TIMEOUT_S", "STALLED_TIMEOUT_S"), 10 * PATIENCE_S)
    with serve_with_limits(mongod, tmp_path_factory.mktemp("slow"), **timeouts) as web:
        yield web


@pytest.fixture(scope="module")
def impatient_web(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A service that waits five seconds for a request, and for a client to read its answer."""
    folder = tmp_path_factory.mktemp("impatient")
    with serve_with_limits(mongod, folder, STALLED_TIMEOUT_S=5) as web:
        yield web


def connect(web: Web, opening: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE_S)
    client.sendall(opening)
    return client


def connect_non_reader(web: Web, opening: bytes) -> socket.socket:
    """A client whose kernel receives only a few kilobytes before the test reads them."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", web.port))
    client.sendall(opening)
    return client


def read_all(client: socket.socket) -> bytes:
    """The bytes until the service closes; ConnectionResetError if it resets the connection."""
    answer = b""
    while part := client.recv(65_536):
        answer += part
    return answer


def read_statuses(answer: bytes) -> list[int]:
    """The status of each answer in these bytes."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


# By kind of client: the bytes that it sends first, and the bytes that it then sends repeatedly.
SLOW_CLIENTS = {
    "idle": (b"", b""),
    "head stops": (HEALTH + b"X-Half: ", b""),
    "head drips": (HEALTH + b"X-Drip: ", b"x"),
    "body stops": (FORM + b"Content-Length: 1000\r\n\r\n", b""),
    "body drips": (FORM + b"Content-Length: 60000\r\n\r\n", b"x"),
    "chunks drip": (FORM + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "size of a chunk drips": (FORM + b"Transfer-Encoding: chunked\r\n\r\n5", b"0"),
    "answered": (HEALTH_REQUEST, b""),  # this client does not close after the answer
    "refused": (b"nonsense\r\n\r\n", b""),
}


def test_clients_that_send_slowly_delay_no_other_client_and_get_408(impatient_web: Web) -> None:
    """Catches a thread or an event loop that waits for a client, and a late request without 408."""
    # All kinds at the same time, each with more clients than the worker has threads.
    with ExitStack() as connections:
        head_client, body_client, idle_client = (
            connections.enter_context(connect(impatient_web, opening))
            for opening in (HEALTH, FORM + b"Content-Length: 9\r\n\r\n1234", b"")
        )
        clients = {
            connections.enter_context(connect(impatient_web, opening)): (kind, drip)
            for kind, (opening, drip) in SLOW_CLIENTS.items()
            for _ in range(MANY_CLIENTS + 10)
        }

        def find_open_kinds() -> set[str]:
            assert impatient_web.get("/healthz", "") == 200
            assert impatient_web.get("/openapi.json", "") == 200
            for client, (_, drip) in list(clients.items()):
                if _is_closed(client, drip):
                    del clients[client]
            return {kind for kind, _ in clients.values()}

        # Every client is disconnected when the time for its request is over.
        eventually(lambda: not find_open_kinds())
        for client in (head_client, body_client):
            head, body = read_all(client).split(b"\r\n\r\n")
            assert read_statuses(head) == [408]
            assert b"Connection: close" in head
            assert json.loads(body)["error"]["code"] == "request_timeout"
        assert read_all(idle_client) == b""  # there was no request to answer
    assert impatient_web.get("/healthz", "") == 200


def _is_closed(client: socket.socket, drip: bytes) -> bool:
    """Whether the service has closed the connection; sends `drip` if it has not."""
    try:
        if select.select([client], [], [], 0)[0] and not client.recv(65_536):
            return True
        client.sendall(drip)
    except ConnectionError:
        return True
    return False


def test_a_request_in_pieces_gets_the_same_status(patient_web: Web) -> None:
    """Catches an end of a head or body that is missed because it arrives in two pieces."""
    body = b"token=" + b"x" * 40
    chunks = b"4\r\ntoke\r\n3;a=b\r\nn=x\r\n0\r\nX-Trailer: x\r\n\r\n"
    requests = {
        HEALTH_REQUEST: 200,
        b"\r\n" + HEALTH_REQUEST: 200,
        HEALTH_REQUEST.replace(b"1.1", b"1.0"): 200,
        FORM + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body): 303,
        FORM + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks: 303,
        FORM + b"Connection: close\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
        FORM + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n": 400,
        HEALTH.replace(b"\r\n", b"\n"): 400,
    }
    for request, status in requests.items():
        for piece_bytes in (1, 7, 64, 10_000):
            with connect(patient_web) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for start in range(0, len(request), piece_bytes):
                    client.sendall(request[start : start + piece_bytes])
                assert read_statuses(read_all(client).replace(b"1.0", b"1.1")) == [status], request


def test_pipelined_requests_are_answered_in_order(patient_web: Web) -> None:
    body = b"Content-Length: 7\r\n\r\ntoken=x"
    jobs = b"GET /jobs HTTP/1.1\r\nHost: a\r\n\r\n"
    pipelined = HEALTH + b"\r\n" + FORM + body + jobs + HEALTH_REQUEST
    with connect(patient_web, pipelined) as client:
        assert read_statuses(read_all(client)) == [200, 303, 401, 200]
    with connect(patient_web, pipelined[:-10]) as client:
        client.sendall(pipelined[-10:])
        assert read_statuses(read_all(client)) == [200, 303, 401, 200]


@pytest.mark.parametrize(
    ("end", "statuses"),
    [(b"0\r\n\r\n", [303, 200]), (b"0\r\nno trailer\r\n\r\n", [400])],
    ids=["valid", "malformed"],
)
def test_the_end_of_the_largest_body_is_read(
    patient_web: Web, end: bytes, statuses: list[int]
) -> None:
    """Catches an end that is taken for the next request, or is not checked."""
    body = b"token=" + b"x" * (MAX_BODY_BYTES - 6)
    chunked = FORM + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)
    with connect(patient_web, chunked + end + HEALTH_REQUEST) as client:
        assert read_statuses(read_all(client)) == statuses


def test_a_client_that_expects_100_continue_gets_it_before_the_body(patient_web: Web) -> None:
    expecting = FORM + b"Connection: close\r\nExpect: 100-continue\r\n"
    with connect(patient_web, expecting + b"Content-Length: 7\r\n\r\n") as client:
        assert client.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"token=x")
        assert read_statuses(read_all(client)) == [303]
    with connect(patient_web, expecting + b"Content-Length: 7\r\n\r\ntoken=x") as client:
        assert read_statuses(read_all(client)) == [303]
    with connect(patient_web, expecting + b"Content-Length: 70000\r\n\r\n") as client:
        assert read_statuses(read_all(client)) == [413]


@pytest.mark.parametrize("path", [b"/dashboard/session", b"/jobs", b"/healthz", b"/none"])
def test_a_body_that_is_too_large_is_413_in_any_framing(patient_web: Web, path: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
    kilobyte = b"400\r\n" + b"x" * 1_024 + b"\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for request in (
        chunked + 65 * kilobyte,
        chunked + b"fffffff\r\n",  # announced and never sent
        head + b"Content-Length: 70000\r\n\r\n",
    ):
        with connect(patient_web, request) as client:
            answer = read_all(client)
        assert read_statuses(answer) == [413], request[:200]
        assert b"request_entity_too_large" in answer or path.startswith(b"/dashboard")
    with connect(patient_web, chunked + 63 * kilobyte + b"0\r\n\r\n") as client:
        assert select.select([client], [], [], PATIENCE_S)[0]
        assert read_statuses(client.recv(12)) != [413]


def test_a_connection_above_the_limit_closes_the_oldest_one(mongod: Mongod, tmp_path: Path) -> None:
    options, timeout_s = "--worker-connections 100", 10 * PATIENCE_S
    with (
        serve_with_limits(mongod, tmp_path, options, REQUEST_TIMEOUT_S=timeout_s) as web,
        ExitStack() as connections,
    ):
        clients = [connections.enter_context(connect(web, HEALTH)) for _ in range(300)]
        assert web.get("/healthz", "") == 200
        eventually(lambda: _is_closed(clients[0], b""))
        assert not _is_closed(clients[-1], b"")


def test_unread_files_hold_no_thread_and_a_reader_gets_all(patient_web: Web) -> None:
    path = b"/dashboard/static/vendor/swagger-ui-bundle.js"
    request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with ExitStack() as connections:
        for _ in range(2 * MANY_CLIENTS):
            connections.enter_context(connect_non_reader(patient_web, request))
            assert patient_web.get("/healthz", "") == 200
        eventually(lambda: patient_web.get("/openapi.json", "") == 200)  # a thread is free
        for _ in range(20):
            assert patient_web.get("/openapi.json", "") == 200
        client = connections.enter_context(connect_non_reader(patient_web, request))
        head, body = read_all(client).split(b"\r\n\r\n", 1)
        assert b"Content-Length: %d" % len(body) in head
        assert len(body) > 1_000_000


def test_unfinished_requests_have_a_limit_in_bytes(patient_web: Web) -> None:
    """Catches memory that grows with unfinished requests, if each large one closes a small one."""
    padding = b"".join(b"X-Pad-%d: %s\r\n" % (number, b"x" * 7_900) for number in range(3))
    body = b"token=" + b"x" * 60_000
    request = FORM + b"Connection: close\r\n" + padding
    request += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    kept_count = limits.MAX_RECEIVED_BYTES // (len(request) - 1)
    with ExitStack() as connections:
        openings = [HEALTH] * 50 + [request[:-1]] * (kept_count + 20)
        clients = [connections.enter_context(connect(patient_web, opening)) for opening in openings]
        expected = ["closed"] * (len(clients) - kept_count) + ["open"] * kept_count
        eventually(lambda: [_get_state(client) for client in clients] == expected)
        for client in (clients[-kept_count], clients[-1]):
            client.sendall(request[-1:])
            assert read_statuses(read_all(client)) == [303]


def _get_state(client: socket.socket) -> str:
    if not select.select([client], [], [], 0)[0]:
        return "open"
    try:
        return "answered" if client.recv(1, socket.MSG_PEEK) else "closed"
    except ConnectionResetError:
        return "closed"


def test_unread_answers_have_a_limit_in_bytes(patient_web: Web) -> None:
    """Catches memory that clients fill with answers that they never read."""
    file = "dashboard/static/vendor/swagger-ui-bundle.js"
    request = f"GET /{file} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    size = (Path(views.__file__).parent / Path(file).relative_to("dashboard")).stat().st_size
    kernel_bytes = 2 * limits.SEND_BUFFER_BYTES  # more than the kernel keeps of an answer
    (worker_pid,) = patient_web.workers()
    descriptors = Path(f"/proc/{worker_pid}/fd")
    with connect(patient_web, HEALTH + b"\r\n") as idle_client:
        assert idle_client.recv(65_536)
        count_before = len(list(descriptors.iterdir()))
    with ExitStack() as connections:
        clients = [
            connections.enter_context(connect_non_reader(patient_web, request)) for _ in range(80)
        ]
        possible_counts = range(
            limits.MAX_UNSENT_BYTES // size, limits.MAX_UNSENT_BYTES // (size - kernel_bytes) + 1
        )
        eventually(lambda: len(list(descriptors.iterdir())) - count_before in possible_counts)
        assert len(read_all(clients[-1])) > size
        with suppress(ConnectionResetError):
            assert len(read_all(clients[0])) < size


def test_clients_that_disconnect_early_leave_no_connection_open(patient_web: Web) -> None:
    """Catches a connection that stays open although its client has disconnected."""
    path = b"/dashboard/static/vendor/swagger-ui-bundle.js"
    (worker_pid,) = patient_web.workers()
    assert patient_web.get("/openapi.json", "") == 200
    descriptors = Path(f"/proc/{worker_pid}/fd")
    eventually(lambda: patient_web.get("/healthz", "") == 200)
    count_before = len(list(descriptors.iterdir()))
    for_file = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for request in (b"", HEALTH, for_file, HEALTH_REQUEST):
        for _ in range(40):
            client = connect_non_reader(patient_web, request)
            if path in request:
                client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # by a reset
    eventually(lambda: len(list(descriptors.iterdir())) <= count_before + 2)


def test_an_unread_export_ends_and_frees_its_slot(
    impatient_web: Web, mongo: MongoClient[dict[str, Any]], api: Api
) -> None:
    mongo.slow.jobs.insert_many(
        {"jobId": f"job-{number}", "createdBy": "ada", "type": "x" * 2_000}
        for number in range(1_500)
    )
    ada_token, bob_token = api.token("ada", "user"), api.token("bob", "user")
    export = "/jobs?format=ndjson"
    with ExitStack() as connections:
        for _ in range(4):
            request = f"GET {export} HTTP/1.1\r\nHost: a\r\n"
            request += f"Authorization: Bearer {ada_token}\r\n\r\n"
            connections.enter_context(connect_non_reader(impatient_web, request.encode()))
        eventually(lambda: impatient_web.get(export, ada_token) == 429)
        assert impatient_web.get(export, bob_token) == 200  # another caller can export
        eventually(lambda: impatient_web.get(export, ada_token) == 200)
    assert "Traceback" not in impatient_web.log.read_text()


def test_unfinished_tls_handshake_delays_no_other_client(mongod: Mongod, tmp_path: Path) -> None:
    authority = Authority("authority", tmp_path)
    certificate_file, _ = authority.issue("server")
    context = ssl.create_default_context(cafile=str(authority.file))
    options = f"--certfile {certificate_file} --keyfile {certificate_file}"
    web = Web(mongod.uri, tmp_path, JOBMON_THREADS="2", GUNICORN_CMD_ARGS=options)

    def send_request(request: bytes, piece_bytes: int = 10_000) -> bytes:
        with connect(web) as tcp, context.wrap_socket(tcp, server_hostname="127.0.0.1") as tls:
            for start in range(0, len(request), piece_bytes):
                tls.sendall(request[start : start + piece_bytes])
            return read_all(tls)

    def answers_health() -> bool:
        try:
            return read_statuses(send_request(HEALTH_REQUEST)) == [200]
        except OSError:
            return False

    try:
        eventually(answers_health)
        with ExitStack() as connections:
            for opening in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"):
                for _ in range(MANY_CLIENTS):
                    connections.enter_context(connect(web, opening))
            assert answers_health()
            pipelined = HEALTH + b"\r\n" + HEALTH_REQUEST
            assert read_statuses(send_request(pipelined, piece_bytes=11)) == [200, 200]
            file = b"GET /dashboard/static/vendor/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n"
            assert len(send_request(file + b"Connection: close\r\n\r\n")) > 1_000_000
    finally:
        log = web.stop()
    assert "Traceback" not in log
