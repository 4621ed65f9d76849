"""The commands that print answers: catches output that a program or a person cannot use."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo.database import Database

from jobmon.cli import main
from jobmon.terminal.client import AnswerError, ApiClient

from ..conftest import Api, serve_over_http
from ..support.waiting import eventually
from .conftest import make_client


@pytest.fixture
def url(api: Api, queue: Database[dict[str, Any]]) -> Iterator[str]:
    with serve_over_http(api.app) as address:
        yield address


def run_command(api: Api, url: str, *arguments: str) -> Result:
    environment = {"JOBMON_URL": url, "JOBMON_TOKEN": api.token(), "COLUMNS": "160"}
    return CliRunner().invoke(main, arguments, env=environment)


def test_stats_print_counts_notices_and_types(api: Api, url: str) -> None:
    # On a busy machine the first reading takes longer than the service waits for it.
    eventually(lambda: make_client(api).get_queue()["notices"])
    result = run_command(api, url, "stats")
    assert result.exit_code == 0, result.output
    assert result.output.split()[:3] == ["due", "scheduled", "running"]
    assert "! 1 job died in the last hour" in result.output
    assert "mail" in result.output
    answer = json.loads(run_command(api, url, "stats", "--json").output)
    assert answer["stats"]["totalJobs"] == 4
    assert answer["queue"]["notices"][0]["level"] == "bad"


def test_jobs_are_filtered_and_paged(api: Api, url: str) -> None:
    dead_jobs = run_command(api, url, "jobs", "--status", "dlq", "--owner", "bob").output
    assert "1 of 1 jobs" in dead_jobs
    assert "queued-0" not in dead_jobs
    first_page = run_command(api, url, "jobs", "--limit", "2").output
    assert "2 of 4 jobs" in first_page
    cursor = first_page.strip().rpartition(" ")[2]
    second_page = json.loads(run_command(api, url, "jobs", "--cursor", cursor, "--json").output)
    assert [job["jobId"] for job in second_page["data"]] == ["queued-2", "dead"]


def test_own_jobs_as_json_are_the_answer_of_the_api(api: Api, url: str) -> None:
    environment = {"JOBMON_URL": url, "JOBMON_TOKEN": api.token("ada", "user")}
    result = CliRunner().invoke(main, ["jobs", "--json"], env=environment)
    assert json.loads(result.stdout) == api.get("/jobs", token=api.token("ada", "user")).json
    reason = "only your own jobs are listed: This needs ADMIN_DASHBOARD.\n"
    assert result.stderr == reason
    assert CliRunner().invoke(main, ["jobs"], env=environment).stdout.endswith(reason)


def test_job_prints_its_answer_and_errors_need_a_collector(api: Api, url: str) -> None:
    assert "w-1" in run_command(api, url, "job", "dead").output
    assert json.loads(run_command(api, url, "job", "dead", "--json").output)["jobId"] == "dead"
    assert run_command(api, url, "errors").output.startswith("Error: Only a collector knows this")


def test_unknown_list_has_its_reason_in_place_of_rows(
    monkeypatch: pytest.MonkeyPatch, api: Api, url: str
) -> None:
    """Catches a stack trace, and a list that looks complete although jobs may be missing."""
    reasons = {"data": "A document is too large."}
    unknown = {"data": None, "meta": {"total": None, "reasons": reasons}}
    monkeypatch.setattr(ApiClient, "get_errors", lambda *_, **__: unknown)
    result = run_command(api, url, "errors")
    assert (result.exit_code, result.output) == (
        0,
        "groups: unknown\ndata: A document is too large.\n",
    )
    lacking = {"data": [], "meta": {"total": 0, "total_is_exact": False, "reasons": reasons}}
    monkeypatch.setattr(ApiClient, "list_jobs", lambda *_, **__: (lacking, ""))
    output = run_command(api, url, "jobs").output
    assert output.endswith("0 of at least 0 jobs\ndata: A document is too large.\n")


def test_service_cannot_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch, api: Api, url: str
) -> None:
    """Catches control characters in a cursor, a reason, the text of an error, and in JSON."""
    hostile = "x\x9b2J\u202e\ud800"
    meta = {"total": 0, "next_cursor": hostile, "reasons": {hostile: hostile}}
    answer = {"data": [], "meta": meta}
    monkeypatch.setattr(ApiClient, "list_jobs", lambda *_, **__: (answer, ""))
    output = run_command(api, url, "jobs").output
    assert output.count("x\\x9b2J\\u202e\\ud800") == 3
    assert output.replace("\n", "").isprintable()
    output = run_command(api, url, "jobs", "--json").output
    assert json.loads(output) == answer
    assert output.replace("\n", "").isprintable()

    def refuse(*_: Any, **__: Any) -> None:
        raise AnswerError(hostile)

    monkeypatch.setattr(ApiClient, "list_jobs", refuse)
    assert run_command(api, url, "jobs").output == "Error: x\\x9b2J\\u202e\\ud800\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("job", "no-such-job"), "Error: "),
        (("jobs", "--sort", "nothing"), "Error: "),
        (("stats", "--queue", "other"), "Error: "),
        (("stats", "--url", "http://127.0.0.1:9"), "Error: no answer from http://127.0.0.1:9"),
        (("stats", "--url", "no address"), "Error: no answer from "),
    ],
)
def test_failure_is_an_exit_code_and_one_line(
    api: Api, url: str, arguments: tuple[str, ...], message: str
) -> None:
    result = run_command(api, url, *arguments)
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert len(result.output.splitlines()) == 1


def test_command_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    result = CliRunner().invoke(main, ["mcp"])
    assert result.exit_code == 1
    assert "pip install 'mongo-jobmon[mcp]'" in result.output


def test_answer_of_another_form_is_one_line(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a stack trace if the service is older, or no jobmon."""
    wrong_number = {"data": [], "meta": {"total": "many"}}
    for answer in ({"items": []}, {"data": [], "meta": None}, wrong_number):
        monkeypatch.setattr(ApiClient, "list_jobs", lambda *_, answer=answer, **__: (answer, ""))
        result = run_command(api, url, "jobs")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert "answers in an unknown form" in result.output


def test_a_mistake_of_the_program_does_not_look_like_another_version(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a cause that is lost: an exception while printing is no fault of the service."""
    monkeypatch.setattr("jobmon.terminal.commands._print", lambda *_: {}["x"])
    assert isinstance(run_command(api, url, "jobs").exception, KeyError)
