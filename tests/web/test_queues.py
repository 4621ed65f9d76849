"""Several queues in one service: catches a queue that shows the jobs of another queue, or waits for
another queue's database."""

from collections import Counter
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.contextvars import get_contextvars

from jobmon.settings import load_queues
from jobmon.web.queues import MAX_READERS, ParallelReader

from ..conftest import Api
from ..support.queues import QUEUES_FILE, serve_queues
from ..support.waiting import PATIENCE_S, eventually


@pytest.fixture
def queues_api(watched: Any, tmp_path: Path) -> Api:
    return serve_queues(watched, tmp_path)


def list_ids(api: Api, path: str) -> list[str]:
    """The ids of the jobs that a caller with all permissions gets at `path`."""
    answer = api.get(path, token=api.token("ada", "chief"))
    return [job["jobId"] for job in answer.json["data"]]


@pytest.mark.parametrize("path", ["/jobs", "/admin/jobs/queue"])
def test_path_without_a_queue_is_about_the_first_queue(queues_api: Api, path: str) -> None:
    assert list_ids(queues_api, path) == ["mails"]
    for name in ("mails", "payouts", "internal"):
        assert list_ids(queues_api, f"/queues/{name}{path}") == [name]


def test_job_is_found_only_in_its_own_queue(queues_api: Api) -> None:
    token = queues_api.token("ada", "user")
    assert queues_api.get("/queues/payouts/jobs/payouts", token=token).json["jobId"] == "payouts"
    for path in ("/jobs/payouts", "/queues/mails/jobs/payouts"):
        missing = queues_api.get(path, token=token)
        assert (missing.status_code, missing.json["error"]["code"]) == (403, "access_denied")


def test_each_queue_needs_its_own_permission(queues_api: Api) -> None:
    allowed: dict[str, set[str]] = {
        "admin": {"mails", "internal"},
        "payroll": {"payouts"},
        "user": set(),
    }
    for role, allowed_queues in allowed.items():
        token = queues_api.token("ada", role)
        for name in ("mails", "payouts", "internal"):
            for path in ("stats", "queue", "types", "timeseries"):
                answer = queues_api.get(f"/queues/{name}/admin/jobs/{path}", token=token)
                expected = 200 if name in allowed_queues else 403
                assert answer.status_code == expected, (role, name, path)
    refused = queues_api.get(
        "/queues/payouts/admin/jobs/stats", token=queues_api.token("ada", "admin")
    )
    assert refused.json["error"]["message"] == "This needs PAYOUTS."


def test_permission_for_one_queue_shows_no_jobs_of_another_queue(queues_api: Api) -> None:
    token = queues_api.token("bob", "payroll")
    assert queues_api.get("/queues/payouts/jobs/payouts", token=token).status_code == 200
    assert queues_api.get("/queues/mails/jobs/mails", token=token).status_code == 403


@pytest.mark.parametrize("role", ["admin", "user"])
@pytest.mark.parametrize(
    "path", ["/admin/jobs/stats", "/metrics", "/dashboard", "/dashboard/errors"]
)
def test_closed_queue_looks_missing_without_its_permission(
    watched: Any, tmp_path: Path, path: str, role: str
) -> None:
    """Catches a 403 with the permission of a queue that the caller may not know."""
    text = f"{QUEUES_FILE}permission = 'PAYOUTS'\n"
    api = serve_queues(watched, tmp_path, text)
    token = api.token("ada", role)
    closed, missing = (
        api.get(f"/queues/{name}{path}", token=token) for name in ("internal", "nothing")
    )
    assert closed.status_code == missing.status_code
    assert closed.text.replace("internal", "nothing") == missing.text


@pytest.mark.parametrize("role", ["admin", "user"])
def test_closed_default_queue_names_its_permission_on_a_path_without_a_name(
    watched: Any, tmp_path: Path, role: str
) -> None:
    """Catches a 404 for a path of the service itself, and the name of another permission."""
    text = "[internal]\ncollection = 'internal'\nowners = false\npermission = 'PAYOUTS'\n"
    api = serve_queues(watched, tmp_path, text)
    for path in ("/admin/jobs/stats", "/admin/jobs/queue"):
        refused = api.get(path, token=api.token("ada", role))
        assert (refused.status_code, refused.json["error"]["message"]) == (
            403,
            "This needs PAYOUTS.",
        )


def test_queue_that_is_closed_to_owners_looks_missing_to_them(queues_api: Api) -> None:
    user, admin = queues_api.token("ada", "user"), queues_api.token()
    for path, query in (("/jobs", {}), ("/jobs/internal", {}), ("/job", {"id": "internal"})):
        closed, missing = (
            queues_api.get(f"/queues/{name}{path}", token=user, **query)
            for name in ("internal", "nothing")
        )
        assert (closed.status_code, closed.json) == (404, missing.json)
        assert missing.status_code == 404
        assert queues_api.get(f"/queues/internal{path}", token=admin, **query).status_code == 200


@pytest.mark.parametrize("name", ["mails", "nothing", "..", "%00", "\u00e4", "a" * 500])
def test_answers_do_not_reveal_which_queues_exist(queues_api: Api, name: str) -> None:
    for path in ("/jobs", "/admin/jobs/stats", "/metrics", "/readyz"):
        assert queues_api.get(f"/queues/{name}{path}").status_code == 401
    refused = queues_api.get(
        f"/queues/{name}/admin/jobs/stats", token=queues_api.token("eve", "user")
    )
    assert refused.status_code == 403


@pytest.mark.parametrize("path", ["/admin/jobs/stats", "/jobs", "/jobs/a", "/readyz", "/metrics"])
def test_unknown_queue_is_404(queues_api: Api, path: str) -> None:
    answer = queues_api.get(f"/queues/nothing{path}", token=queues_api.token())
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")
    assert answer.json["error"]["message"] == "There is no queue of this name."


def test_service_routes_also_exist_below_the_path_of_a_queue(queues_api: Api) -> None:
    assert queues_api.get("/queues/payouts/healthz").status_code == 200
    assert (
        queues_api.get("/queues/payouts/openapi.json").json["servers"][1]["url"]
        == "/queues/{queue}"
    )
    assert queues_api.get("/queues/payouts/nothing").status_code == 404


def test_export_of_a_queue_has_its_own_jobs(queues_api: Api) -> None:
    path = "/queues/payouts/admin/jobs/queue"
    answer = queues_api.get(path, token=queues_api.token("ada", "chief"), format="csv")
    assert answer.text.splitlines()[1].startswith("payouts,")


def test_cursor_of_another_queue_shows_no_jobs_of_that_queue(queues_api: Api, watched: Any) -> None:
    watched.mails.insert_many([{"jobId": f"m{index}", "type": "mails"} for index in range(3)])
    watched.payouts.insert_many([{"jobId": f"p{index}", "type": "payouts"} for index in range(3)])
    token = queues_api.token("ada", "chief")
    page = queues_api.get("/queues/mails/admin/jobs/queue", token=token, per_page=2).json
    answer = queues_api.get(
        "/queues/payouts/admin/jobs/queue", token=token, cursor=page["meta"]["next_cursor"]
    )
    assert {job["type"] for job in answer.json["data"]} <= {"payouts"}


def test_queues_of_a_file_keep_its_order_and_share_a_client_per_deployment(queues_api: Api) -> None:
    watched_queues = queues_api.app.extensions["jobmon_queues"]
    clients = {id(queue.connection.client) for queue in watched_queues.open_all()}
    assert len(clients) == 1
    assert watched_queues.deployment_count == 1
    settings = queues_api.app.extensions["jobmon_settings"]
    assert [queue.queue for queue in load_queues(settings)] == ["mails", "payouts", "internal"]


def test_log_line_of_a_request_names_the_queue_in_its_path(
    queues_api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jobmon.request")
    queues_api.get("/queues/payouts/healthz")
    queues_api.get("/healthz")
    with_queue, without_queue = (record.msg for record in caplog.records[-2:])
    assert with_queue["queue"] == "payouts"  # type: ignore[index]
    assert "queue" not in without_queue


def make_queues(deployment: str, count: int) -> list[Any]:
    """Queues without database, named `frozen0`, `frozen1` and so on for the deployment `frozen`."""
    settings = SimpleNamespace(mongo_uri=deployment, queues="queues.toml")
    return [
        SimpleNamespace(name=f"{deployment}{index}", settings=settings) for index in range(count)
    ]


class BlockingRead:
    """Reads queues; a read of the deployment `frozen` blocks until `released` is set."""

    def __init__(self) -> None:
        self.released = Event()
        self.started: Counter[str] = Counter()  # the number of reads by queue

    def __call__(self, queue: Any) -> int:
        self.started[queue.name] += 1
        if queue.settings.mongo_uri == "frozen":
            self.released.wait(PATIENCE_S)
        return self.started[queue.name]


def test_deployment_that_does_not_answer_delays_no_other_deployment() -> None:
    read, responding = BlockingRead(), make_queues("responding", 20)
    reader = ParallelReader[int](read)
    queues = [*make_queues("frozen", 20), *responding]
    names = {queue.name for queue in responding}
    eventually(lambda: reader.read(queues, within_s=0.5).keys() == names)
    read.released.set()


def test_queue_is_not_read_again_while_its_last_read_still_runs() -> None:
    read, frozen = BlockingRead(), make_queues("frozen", 20)
    reader = ParallelReader[int](read)
    for _ in range(3):
        assert reader.read(frozen, within_s=0.1) == {}
    expected = dict.fromkeys((queue.name for queue in frozen[:MAX_READERS]), 1)
    eventually(lambda: read.started == expected)
    read.released.set()
    # A caller also waits for earlier reads that have not started. Only the next call reads again.
    assert reader.read(frozen, within_s=PATIENCE_S).keys() == {queue.name for queue in frozen}
    assert set(reader.read(frozen, within_s=PATIENCE_S).values()) == {2}


def test_queues_of_a_deployment_are_read_at_the_same_time() -> None:
    """Catches many queues of a distant deployment that are read one after the other."""
    barrier = Barrier(MAX_READERS, timeout=PATIENCE_S)
    reader = ParallelReader[int](lambda _: barrier.wait())
    assert (
        len(reader.read(make_queues("distant", 3 * MAX_READERS), within_s=PATIENCE_S))
        == 3 * MAX_READERS
    )


def test_failed_read_is_logged_and_stops_no_other_read(caplog: pytest.LogCaptureFixture) -> None:
    failing, working = make_queues("same", 2)
    reader = ParallelReader[float](lambda queue: 1 / (queue is not failing))
    for _ in range(2):
        assert reader.read([failing, working], within_s=PATIENCE_S) == {working.name: 1}
    assert caplog.messages == ["the queue same0 could not be read"] * 2
    assert "ZeroDivisionError" in caplog.text


def test_log_lines_of_a_read_name_its_queue() -> None:
    reader = ParallelReader[Any](lambda _: get_contextvars().get("queue"))
    queues = make_queues("same", 2 * MAX_READERS)
    assert reader.read(queues, within_s=PATIENCE_S) == {queue.name: queue.name for queue in queues}
    assert "queue" not in get_contextvars()
