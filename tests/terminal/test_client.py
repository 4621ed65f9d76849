"""The client of the API: catches a token that leaks, and a failure without a reason."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from jobmon.settings import Settings, SettingsError
from jobmon.terminal.client import AnswerError, ApiClient, open_client

from ..conftest import SECRET, Api, serve_over_http
from ..support.commands import database_uri
from .conftest import make_client


def make_client_with_answer(answer: httpx.Response | Exception) -> ApiClient:
    def answer_request(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.Client(transport=httpx.MockTransport(answer_request), base_url="http://away.test")
    return ApiClient(http)


def test_client_reads_statistics_queue_and_jobs(client: ApiClient) -> None:
    assert client.get_stats()["statusCounts"]["queued"] == 3
    assert client.get_queue()["name"] == "default"
    assert client.get_job("dead")["payload"] == {"apiKey": "[redacted]"}
    assert [job["jobId"] for job in client.get_jobs(status="dlq", owner=None)["data"]] == ["dead"]
    jobs = client.get_jobs(status=["dlq", "queued"])["data"]
    assert len(jobs) == 4


def test_owner_gets_only_their_own_jobs(api: Api, queue: Database[dict[str, Any]]) -> None:
    owner = make_client(api, subject="bob", role="user")
    jobs = owner.get_jobs()
    assert [job["jobId"] for job in jobs["data"]] == ["dead"]
    reason = "only your own jobs are listed: This needs ADMIN_DASHBOARD."
    assert jobs["meta"]["reasons"] == {"owner": reason}
    with pytest.raises(AnswerError, match="This needs ADMIN_DASHBOARD"):
        owner.get_stats()
    with pytest.raises(AnswerError):
        owner.get_job("queued-0")


def test_refusal_names_the_parameter_or_the_queue(client: ApiClient) -> None:
    with pytest.raises(AnswerError, match=r"per_page: Must be"):
        client.get_jobs(per_page=0)
    with pytest.raises(AnswerError, match="no queue 'other'"):
        ApiClient(client._http, "other").get_queue()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.ConnectError("refused"), "no answer from http://away.test: refused"),
        (httpx.ReadTimeout("late"), "no answer from http://away.test in 15 s"),
        (
            httpx.Response(200, text="<html>"),
            "is no jobmon service: it answers /admin/jobs/stats with 200",
        ),
        (httpx.Response(200, text="[" * 100_000), "is no jobmon service"),
        (httpx.Response(302, headers={"Location": "https://elsewhere.test"}), "with 302"),
        (httpx.Response(500, json={"odd": 1}), "the answer is 500"),
        (httpx.Response(503, json={"error": {"message": "Too busy."}}), "Too busy."),
    ],
)
def test_failure_is_one_line_with_its_reason(
    answer: httpx.Response | Exception, message: str
) -> None:
    with pytest.raises(AnswerError) as error:
        make_client_with_answer(answer).get_stats()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", ["MAX_ANSWER_BYTES", "MAX_ANSWER_S"])
def test_answer_without_end_is_a_failure(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """Catches a service that fills the memory, or that holds `jobmon mcp` forever."""
    monkeypatch.setattr(f"jobmon.terminal.client.{limit}", 0)
    endless = httpx.Response(200, content=itertools.repeat(b" "))
    with pytest.raises(AnswerError, match="does not end within"):
        make_client_with_answer(endless).get_stats()


def test_token_in_a_file_is_sent_to_the_service(
    api: Api, queue: Database[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(api.token() + "\n")
    monkeypatch.setenv("JOBMON_TOKEN_FILE", str(tmp_path / "token"))
    with serve_over_http(api.app) as url, open_client(url) as client:
        assert client.address == url
        assert client.get_stats()["totalJobs"] == 4


def test_service_without_a_token_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOBMON_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="JOBMON_TOKEN"), open_client("http://away.test"):
        pass


@pytest.mark.parametrize("token", ["x.y.z\nx.y.z", "Bearer x.y.z", "x.y.\u2026"])
def test_text_that_cannot_be_a_token_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """Catches a message with the token, and one about an address that does not answer."""
    monkeypatch.setenv("JOBMON_TOKEN", token)
    with pytest.raises(SettingsError) as error, open_client("http://away.test") as client:
        client.get_stats()
    assert str(error.value) == (
        "JOBMON_TOKEN: not a token: it has a blank, a line end or a letter outside ASCII"
    )


def test_without_service_and_database_both_settings_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOBMON_MONGO_URI", raising=False)
    with pytest.raises(SettingsError, match=r"JOBMON_URL .+ JOBMON_MONGO_URI"), open_client(None):
        pass


def test_bad_uri_of_the_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", "postgres://elsewhere")
    with pytest.raises(SettingsError, match="JOBMON_MONGO_URI") as error, open_client(None):
        pass
    assert "JOBMON_URL" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"JOBMON_ROLE_PERMISSIONS": "boss=ADMIN_DASHBOARD,admin=JOBS_RETRY"},
        {"JOBMON_ROLE_CLAIM": "realm.role", "JOBMON_JWT_AUDIENCE": "shop"},
        {"JOBMON_PATH_PREFIX": "/jobmon", "JOBMON_RATE_LIMIT": "1/day"},
    ],
    ids=["defaults", "roles", "claims", "web"],
)
def test_settings_for_callers_do_not_stop_reading_the_database(
    settings: dict[str, str],
    mongod: Any,
    database: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database.jobs.insert_one({"jobId": "one", "type": "mail", "status": "queued"})
    uri = database_uri(mongod, database)
    environment = {"JOBMON_MONGO_URI": uri, "JOBMON_JWT_SECRET_KEY": SECRET, **settings}
    for name in ("ROLLUP_DB", "STATE_DB"):
        environment[f"JOBMON_{name}"] = getattr(make_settings(mongo_uri=uri), name.lower())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with open_client(None) as client:
        for _ in range(2):  # a rate limit of one request does not count
            assert client.get_stats()["totalJobs"] == 1
        assert client.get_job("one")["type"] == "mail"
