"""Requests to a real gunicorn, most of them malformed.

Catches a worker that still accepts a revoked token, an accepted request that is too large or
ambiguous, and a proxy that is trusted without the setting.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from pymongo.database import Database

from jobmon.cli import main
from jobmon.demo.mongod import Mongod

from ..conftest import SECRET, Api
from ..support.commands import database_uri
from ..support.services import Web, serving
from ..support.waiting import PATIENCE_S, eventually

REVOCATIONS_CACHED_S = 2  # how long a worker caches the list of revoked tokens
WORKERS = 2


@pytest.fixture
def uri(mongod: Mongod, database: Database[dict[str, Any]]) -> str:
    return database_uri(mongod, database)


@pytest.fixture
def rollup_setting(database: Database[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The setting that names a new rollup database."""
    name = f"rollups_{uuid4().hex}"
    yield {"JOBMON_ROLLUP_DB": name}
    database.client.drop_database(name)


def test_every_worker_refuses_a_revoked_token_after_two_seconds(
    uri: str, rollup_setting: dict[str, str], api: Api, tmp_path: Path
) -> None:
    with serving(uri, tmp_path, JOBMON_WORKERS=str(WORKERS), **rollup_setting) as web:
        token, valid_token = api.token(), api.token()
        assert {web.get("/jobs", token) for _ in range(4 * WORKERS)} == {200}
        settings = {"JOBMON_MONGO_URI": uri, "JOBMON_JWT_SECRET_KEY": SECRET, **rollup_setting}
        result = CliRunner().invoke(main, ["revoke", "--token-stdin"], input=token, env=settings)
        assert result.exit_code == 0, result.output
        revoked_at = time.monotonic()
        eventually(lambda: {web.get("/jobs", token) for _ in range(4 * WORKERS)} == {401})
        # After this time, each worker's cached list is newer than the revocation.
        eventually(lambda: time.monotonic() > revoked_at + REVOCATIONS_CACHED_S)
        assert {web.get("/jobs", token) for _ in range(8 * WORKERS)} == {401}
        assert {web.get("/jobs", valid_token) for _ in range(WORKERS)} == {200}


def send_request(web: Web, line: bytes, *headers: bytes, body: bytes = b"") -> tuple[int, str]:
    """Send a request line, Host and `headers`; returns the status and the whole answer."""
    lines = [line + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE_S) as connection:
        with suppress(ConnectionError):  # the service may refuse a request before it is complete
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
    return int(answer.split()[1]), answer.decode()


FORM = b"Content-Type: application/x-www-form-urlencoded"
BEARER = b"Authorization: Bearer "
MEGABYTE = b"x" * 1_000_000
# Refused requests: the request line with headers, and the status and a text of the answer.
REFUSED: dict[str, tuple[tuple[bytes, ...], int, str]] = {
    "a long token": ((b"GET /jobs", BEARER + b"x" * 8_000), 401, "token_invalid"),
    "a longer token": ((b"GET /jobs", BEARER + b"x" * 9_000), 431, ""),
    "a huge token": ((b"GET /jobs", BEARER + MEGABYTE), 431, ""),
    "a huge cookie": ((b"GET /dashboard", b"Cookie: jobmon_session=" + MEGABYTE), 431, ""),
    "a hundred headers": ((b"GET /jobs", *(b"X-%d: x" % n for n in range(100))), 431, ""),
    "a long address": ((b"GET /jobs/" + b"x" * 9_000,), 414, ""),
    "a huge address": ((b"GET /jobs/" + MEGABYTE,), 414, ""),
    "a huge body": ((b"POST /dashboard/session", FORM, b"Content-Length: 1000000000"), 413, ""),
    "two tokens": ((b"GET /jobs", BEARER + b"a", BEARER + b"b"), 401, "token_invalid"),
    "two hosts": ((b"GET /jobs", b"Host: b"), 400, ""),
    "two lengths": ((b"POST /jobs", b"Content-Length: 1", b"Content-Length: 2"), 400, ""),
    "length and chunks": (
        (b"POST /jobs", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        400,
        "",
    ),
    "a folded header": ((b"GET /jobs", b"X-A: a", b" b"), 400, ""),
    "a carriage return in a header": ((b"GET /jobs", b"X-A: a\rX-B: b"), 400, ""),
    "a tab in an address": ((b"GET /jobs/a\tb",), 400, ""),
    "a lower-case method": ((b"get /jobs",), 400, ""),
    "TRACE": ((b"TRACE /jobs",), 405, "method_not_allowed"),
}


def test_requests_that_are_too_large_or_ambiguous_are_refused(
    uri: str, api: Api, tmp_path: Path
) -> None:
    with serving(uri, tmp_path) as web:
        for name, (request, expected_status, text) in REFUSED.items():
            status, answer = send_request(web, *request)
            assert status == expected_status, name
            assert text in answer, name
            assert "Traceback" not in answer, name
        # Without the setting, jobmon trusts no proxy, even on this machine.
        for header in (
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Ssl: on",
            b"X-Forwarded-Protocol: ssl",
            b"X-Forwarded-Host: evil.example",
            b"SCRIPT_NAME: /evil",
            b"PATH_INFO: /dashboard/sign-in",
        ):
            status, answer = send_request(web, b"GET //evil.example/../", header)
            assert status == 404, header
            assert "evil" not in answer, header
            assert "Strict-Transport-Security" not in answer, header
        assert web.get("/jobs", api.token()) == 200
        assert "Traceback" not in web.stop()


def test_a_proxy_is_trusted_with_the_setting(uri: str, tmp_path: Path) -> None:
    with serving(uri, tmp_path, JOBMON_TRUSTED_PROXIES="1") as web:
        proxy_headers = (b"X-Forwarded-Proto: https", b"X-Forwarded-For: 203.0.113.9")
        status, answer = send_request(web, b"GET /jobs", *proxy_headers)
        assert status == 401
        assert "Strict-Transport-Security: max-age=31536000" in answer
        assert "Strict-Transport-Security" not in send_request(web, b"GET /jobs")[1]
        origin = (b"Origin: https://jobs.example", b"X-Forwarded-Host: jobs.example")
        status, answer = send_request(web, b"POST /dashboard/sign-out", *proxy_headers, *origin)
        assert status == 303
        assert "Location: /dashboard/sign-in" in answer
        assert "__Host-jobmon_session=" in answer
        log = web.stop()
        lines = [json.loads(line) for line in log.splitlines()]
        addresses = [line["address"] for line in lines if line.get("route") == "/jobs"]
        assert addresses == ["203.0.113.9", "127.0.0.1"]


def test_only_the_proxy_names_the_person_and_only_once(uri: str, tmp_path: Path) -> None:
    """Catches a client that names the person by another spelling of a header or a second header."""
    user, groups = b"X-Auth-User: root", b"X-Auth-Groups: admin"
    settings = {
        "JOBMON_TRUSTED_PROXIES": "1",
        "JOBMON_TRUSTED_USER_HEADER": "X-Auth-User",
        "JOBMON_TRUSTED_GROUPS_HEADER": "X-Auth-Groups",
    }
    request_line = b"GET /dashboard/jobs"
    from_proxy = {"JOBMON_TRUSTED_HEADER_FROM": "127.0.0.1"}
    with serving(uri, tmp_path, **settings, **from_proxy) as web:
        assert send_request(web, request_line, user, groups)[0] == 200
        assert send_request(web, request_line, user)[0] == 403
        for headers in (
            (b"X_Auth_User: root", b"X_Auth_Groups: admin"),
            (b"X-Auth_User: root", groups),
            (b"X-Auth-User: eve", user, groups),
            (user, b"x-auth-user: eve", groups),
            (b"X-Auth-User : root", groups),
            (b"X-Auth-User:", groups),
        ):
            assert send_request(web, request_line, *headers)[0] in (400, 401), headers
        # A client cannot add a group by another spelling of the proxy's header.
        two_spellings = (b"X-Auth-Groups: staff", b"X_Auth_Groups: admin")
        assert send_request(web, request_line, user, *two_spellings)[0] == 403
    (tmp_path / "second").mkdir()
    from_another_host = {"JOBMON_TRUSTED_HEADER_FROM": "10.9.9.9"}
    with serving(uri, tmp_path / "second", **settings, **from_another_host) as web:
        for header in (b"X-A: x", b"X-Forwarded-For: 10.9.9.9", b"Forwarded: for=10.9.9.9"):
            assert send_request(web, request_line, user, groups, header)[0] == 401
