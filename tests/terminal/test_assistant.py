"""`jobmon mcp`: catches a tool that an assistant cannot use, that is not declared as read-only, or
that leaks secrets."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.terminal.client import ApiClient

from ..conftest import Api, serve_over_http
from ..support.waiting import eventually
from .conftest import make_client


def open_assistant(client: ApiClient) -> Any:
    """An assistant that is connected to the tools.

    Importing mcp takes a second, and every process of a test run imports this file. So this
    function imports it.
    """
    from mcp import Client  # noqa: PLC0415

    from jobmon.terminal.assistant import make_server  # noqa: PLC0415

    return Client(make_server(client))


def call_tool(client: ApiClient, tool: str, **arguments: Any) -> Any:
    async def request() -> Any:
        async with open_assistant(client) as assistant:
            return await assistant.call_tool(tool, arguments)

    return asyncio.run(request())


def test_every_tool_is_described_and_declared_as_read_only(client: ApiClient) -> None:
    async def request() -> Any:
        async with open_assistant(client) as assistant:
            return (await assistant.list_tools()).tools

    tools = asyncio.run(request())
    assert {tool.name for tool in tools} == {
        "queue_overview", "error_groups", "explain_job", "list_jobs", "workers", "schedule",
    }  # fmt: skip
    for tool in tools:
        assert tool.annotations.read_only_hint is True
        assert tool.description.endswith(".")


def test_tools_give_the_answers_of_the_api(client: ApiClient) -> None:
    # On a busy machine the first reading takes longer than the service waits for it.
    eventually(lambda: client.get_queue()["notices"])
    overview = call_tool(client, "queue_overview").structured_content
    assert overview["stats"]["statusCounts"]["dlq"] == 1
    assert overview["queue"]["notices"][0]["level"] == "bad"
    job = call_tool(client, "explain_job", job_id="dead").structured_content
    assert job["payload"] == {"apiKey": "[redacted]"}
    assert job["attempts"][0]["workerId"] == "w-1"
    dead_jobs = call_tool(client, "list_jobs", status="dlq", limit=1_000).structured_content
    assert [job["jobId"] for job in dead_jobs["data"]] == ["dead"]
    assert not call_tool(client, "schedule").is_error
    for tool in ("error_groups", "workers"):  # they need a collector, and none runs
        assert "collector" in call_tool(client, tool).content[0].text


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("explain_job", {"job_id": "no-such-job"}),
        ("list_jobs", {"status": "odd"}),
        ("list_jobs", {"cursor": "odd"}),
        ("queue_overview", {"window": "1y"}),
    ],
)
def test_bad_arguments_are_an_error_for_the_assistant(
    client: ApiClient, tool: str, arguments: dict[str, Any]
) -> None:
    answer = call_tool(client, tool, **arguments)
    assert answer.is_error
    assert answer.content[0].text


def test_assistant_of_an_owner_sees_only_own_jobs(
    api: Api, queue: Database[dict[str, Any]]
) -> None:
    owner = make_client(api, subject="bob", role="user")
    own_jobs = call_tool(owner, "list_jobs").structured_content
    assert [job["jobId"] for job in own_jobs["data"]] == ["dead"]
    for tool, arguments in (
        ("queue_overview", {}),
        ("workers", {}),
        ("explain_job", {"job_id": "queued-0"}),
    ):
        assert call_tool(owner, tool, **arguments).is_error


def test_jobmon_mcp_answers_on_stdin_and_stdout(
    api: Api, queue: Database[dict[str, Any]], make_settings: Callable[..., Any]
) -> None:
    from mcp import Client, StdioServerParameters  # noqa: PLC0415
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    async def request(url: str) -> Any:
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "jobmon.cli", "mcp"],
            env=dict(os.environ) | {"JOBMON_URL": url, "JOBMON_TOKEN": api.token()},
        )
        async with Client(stdio_client(command)) as assistant:
            return await assistant.call_tool("explain_job", {"job_id": "dead"})

    with serve_over_http(api.app) as url:
        assert asyncio.run(request(url)).structured_content["status"] == "dlq"
