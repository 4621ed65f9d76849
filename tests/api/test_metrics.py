"""`GET /metrics`: catches a scrape that counts jobs, a scrape with a queue that the token may not
see, and a scrape that fails because a database is unreachable."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import ADMIN_DASHBOARD, Settings

from ..conftest import Api
from ..support.commands import database_uri
from .test_queue_metrics import find_value, parse_samples


def test_requests_are_counted_by_route_not_by_path(api: Api) -> None:
    before = parse_samples(api.get_as_admin("/metrics").text)
    api.get_as_admin("/jobs/no-such-job")
    api.get_as_admin("/jobs/no-other-job")
    api.get_as_admin("/not/a/route")
    api.client.open("/healthz", method="BREW")
    after = parse_samples(api.get_as_admin("/metrics").text)

    def count_new(**labels: str) -> float:
        key = ("jobmon_http_requests_total", frozenset(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    assert count_new(route="/jobs/<anything:job_id>", method="GET", status="403") == 2
    assert count_new(route="unmatched", method="GET", status="404") == 1
    other_methods = [dict(labels) for _, labels in after if ("method", "other") in labels]
    assert sum(count_new(**labels) for labels in other_methods) == 1
    assert count_new(route="/metrics", method="GET", status="200") == 1
    duration = "jobmon_http_request_duration_seconds_count"
    assert find_value(after, duration, route="/jobs/<anything:job_id>", method="GET") >= 2  # type: ignore[operator]
    assert "no-such-job" not in str(after)


@pytest.mark.parametrize(
    ("access", "anonymous", "owner", "admin"),
    [("token", 401, 403, 200), ("open", 200, 200, 200), ("off", 404, 404, 404)],
)
def test_the_setting_decides_who_may_scrape(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    access: str,
    anonymous: int,
    owner: int,
    admin: int,
) -> None:
    api = Api(create_app(make_settings(metrics=access), watched.client))
    answers = (api.get("/metrics"), api.get_as_owner("/metrics", "u"), api.get_as_admin("/metrics"))
    assert [answer.status_code for answer in answers] == [anonymous, owner, admin]


QUEUES_TOML = """
[payouts]
collection = "payouts"

[mails]
collection = "mails"
permission = "MAILS"
"""


@pytest.mark.parametrize(
    ("role", "path", "expected"),
    [
        ("admin", "/metrics", {"payouts"}),
        ("mailer", "/metrics", {"mails"}),
        ("operator", "/metrics", {"mails", "payouts"}),
        ("user", "/metrics", 403),
        ("mailer", "/queues/mails/metrics", {"mails"}),
        ("operator", "/queues/payouts/metrics", {"payouts"}),
        ("mailer", "/queues/payouts/metrics", 403),
        ("admin", "/queues/mails/metrics", 403),
        ("admin", "/queues/unknown/metrics", 404),
        ("mailer", "/queues/unknown/metrics", 403),
        (None, "/metrics", {"mails", "payouts"}),
        (None, "/queues/mails/metrics", {"mails"}),
        (None, "/queues/unknown/metrics", 404),
    ],
)
def test_a_scrape_has_the_queues_that_the_token_may_see(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    role: str | None,
    path: str,
    expected: set[str] | int,
) -> None:
    """A case without a role has JOBMON_METRICS=open and sends no token."""
    file = tmp_path / "queues.toml"
    file.write_text(QUEUES_TOML)
    permissions = {"admin": {ADMIN_DASHBOARD}, "mailer": {"MAILS"}}
    permissions["operator"] = {ADMIN_DASHBOARD, "MAILS"}
    settings = make_settings(
        queues=str(file),
        metrics="token" if role else "open",
        role_permissions={name: frozenset(names) for name, names in permissions.items()},
    )
    api = Api(create_app(settings, watched.client))
    answer = api.get(path, token=api.token(role=role) if role else None)
    if isinstance(expected, int):
        assert answer.status_code == expected
        return
    assert answer.status_code == 200
    labels = [dict(labels) for _, labels in parse_samples(answer.text)]
    assert {sample["queue"] for sample in labels if "queue" in sample} == expected


def test_accept_header_chooses_the_format_of_the_metrics(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.token()}"}
    text_format = api.client.get("/metrics", headers=headers)
    assert text_format.content_type.startswith("text/plain; version=")
    open_metrics = api.client.get(
        "/metrics", headers=headers | {"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert open_metrics.content_type.startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


def test_an_unreachable_database_does_not_hide_the_metrics_of_the_service(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(mongo_uri="mongodb://127.0.0.1:1/", server_selection_timeout_ms=50)
    api = Api(create_app(settings))
    assert api.get_as_admin("/metrics").status_code == 200
    scrape = parse_samples(api.get_as_admin("/metrics").text)  # includes the request before it
    assert find_value(scrape, "jobmon_database_up") == 0
    for name in ("database_readable", "own_database_readable", "collector_up", "jobs_estimated"):
        assert find_value(scrape, f"jobmon_{name}") is None
    assert not any(name.startswith("jobmon_jobs") for name, _ in scrape)
    assert find_value(
        scrape, "jobmon_http_requests_total", route="/metrics", method="GET", status="200"
    )
    api.app.extensions["jobmon_connection"].client.close()


def test_a_queue_whose_server_does_not_answer_is_down_and_the_others_are_up(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = tmp_path / "queues.toml"
        uri = f"mongodb://127.0.0.1:{silent.getsockname()[1]}/app"
        file.write_text(f'[responding]\n[frozen]\nuri = "{uri}"')
        settings = make_settings(
            mongo_uri=database_uri(mongod, database),
            queues=str(file),
            server_selection_timeout_ms=1_000,
        )
        api = Api(create_app(settings))
        scrape = parse_samples(api.get_as_admin("/metrics").text)
        for queue in api.app.extensions["jobmon_queues"].open_all():
            queue.connection.close()
    queues = ("responding", "frozen")
    up_by_queue = {name: find_value(scrape, "jobmon_database_up", queue=name) for name in queues}
    assert up_by_queue == {"responding": 1, "frozen": 0}
    assert find_value(scrape, "jobmon_queue_scraped", queue="frozen") == 0
    assert find_value(scrape, "jobmon_jobs_estimated", queue="responding") == 0


class CommandRecorder(CommandListener):
    """Records the commands that a client sends to MongoDB."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, str]] = []  # the name of each, and its collection or value
        self.finds: list[Any] = []

    def started(self, event: Any) -> None:
        if event.command_name == "find":
            self.finds.append(event.command)
        self.commands.append((event.command_name, str(event.command.get(event.command_name))))

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def test_a_scrape_reads_no_watched_document(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> None:
    recorder = CommandRecorder()
    uri = database_uri(mongod, database)
    with MongoClient[dict[str, Any]](uri, event_listeners=[recorder], tz_aware=True) as client:
        api = Api(create_app(make_settings(mongo_uri=uri), client))
        assert api.get_as_admin("/metrics").status_code == 200
        commands = set(recorder.commands)
    assert commands == {
        ("ping", "1"),
        ("hello", "1"),  # for the kind of deployment, once per process
        ("aggregate", "state"),
        ("find", "revoked_tokens"),
        ("find", "jobs"),  # the _id of one job, from its index
        ("find", "job_attempts"),
        ("count", "jobs"),  # has no filter, so MongoDB answers it from the metadata
    }
    finds = [command for command in recorder.finds if command["find"] != "revoked_tokens"]
    assert [command["hint"] for command in finds] == [{"_id": 1}, {"_id": 1}]
    assert all(command["projection"] == {"_id": True} for command in finds)
