"""`jobmon demo`, which `make run` starts.

Catches a printed command that fails, a process that outlives the demo, and a write to a watched
database.
"""

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod, free_port

from ..conftest import SECRET
from ..support.commands import database_uri
from ..support.processes import descendants
from ..support.services import Demo, clean_environment
from ..support.waiting import PATIENCE_S, eventually


def run_curl(line: str) -> Any:
    """The answer to a printed curl command, without its `json.tool`."""
    command = shlex.split(line.removesuffix(" | python3 -m json.tool"))
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobmon.cli", "demo", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=clean_environment(**environment),
        timeout=PATIENCE_S,
    )


@pytest.fixture(scope="module")
def demo(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo of the first two tests; the second ends it."""
    # The key of tokens is not set, so the demo must create one.
    demo = Demo(tmp_path_factory.mktemp("demo"), JOBMON_JWT_LEEWAY_S="20")
    yield demo
    if demo.process.poll() is None:
        demo.interrupt()


def test_printed_commands_work_and_statistics_change(demo: Demo) -> None:
    eventually(demo.is_ready)
    tokens = re.findall(r"^http://.*/dashboard/sign-in#access_token=(\S+)$", demo.output(), re.M)
    stats, dead_jobs, own_jobs, one_job, refused_request = demo.curl_lines()
    assert tokens == [re.search(r"Bearer (\S+)'", line)[1] for line in (stats, own_jobs)]
    first_stats = eventually(lambda: (answer := run_curl(stats))["totalJobs"] and answer)
    assert first_stats["totalJobs"] == sum(first_stats["statusCounts"].values())
    eventually(lambda: run_curl(stats)["statusCounts"]["succeeded"] > 0)
    eventually(lambda: run_curl(stats)["totalJobs"] > first_stats["totalJobs"])
    eventually(lambda: run_curl(stats)["statusCounts"]["failed"] > 0)
    assert {job["status"] for job in run_curl(dead_jobs)["data"]} <= {"dlq"}
    assert {job["createdBy"] for job in run_curl(own_jobs)["data"]} == {"alice"}
    assert run_curl(one_job)["payload"]["provider"]["apiKey"] == "[redacted]"
    assert run_curl(refused_request)["error"]["code"] == "permission_denied"
    bearer = {"Authorization": f"Bearer {tokens[0]}"}
    with urlopen(Request(f"http://127.0.0.1:{demo.port}/dashboard", headers=bearer)) as page:
        assert b"email.send" in page.read()


def test_ctrl_c_ends_every_process_and_the_next_run_keeps_the_data(demo: Demo) -> None:
    eventually(demo.is_ready)
    token = re.search(r"Bearer (\S+)'", demo.curl_lines()[0]).group(1)
    eventually(lambda: run_curl(demo.curl_lines()[0])["totalJobs"] >= 250)  # the first burst
    pids = set(descendants(demo.process.pid))
    assert len(pids) >= 4  # mongod, gunicorn and its worker, the workload
    assert demo.interrupt() == 0
    # Orphans become children of this process, and zombies do not count.
    eventually(lambda: pids.isdisjoint(descendants()))
    assert "Traceback" not in demo.output()

    second_run = Demo(demo.log.parent)
    try:
        eventually(second_run.is_ready)
        line = re.sub(r"Bearer \S+'", f"Bearer {token}'", second_run.curl_lines()[0])
        assert run_curl(line)["totalJobs"] >= 250  # the first run's jobs, read with its token
    finally:
        second_run.interrupt()


@pytest.mark.long
def test_port_in_use_prints_one_line_with_alternatives(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = run_demo("--port", str(port), "--state", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: Port {port} is in use: try `jobmon demo --port {port + 1}`, "
        f"or in a checkout `make run PORT={port + 1}`.\n"
    )


def test_demo_without_mongod_prints_one_line_with_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python imports `sitecustomize` when it starts. This one hides the wheel that has mongod.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fiftyone'] = None\n")
    result = run_demo(
        "--port", str(free_port()), "--state", str(tmp_path), PYTHONPATH=str(tmp_path)
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: No MongoDB server to start: install")
    assert "`mongo-jobmon[demo]`" in result.stderr
    assert "JOBMON_MONGO_URI" in result.stderr
    assert result.stderr.count("\n") == 1


def test_configured_database_is_watched_and_not_written(
    mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    database.jobs.insert_one({"jobId": "mine", "status": "queued", "createdBy": "alice"})
    hash_before = database.command("dbHash")["md5"]
    database.command("profile", 2)
    uri = database_uri(mongod, database)
    demo = Demo(tmp_path, JOBMON_MONGO_URI=uri, JOBMON_JWT_SECRET_KEY=SECRET)
    try:
        eventually(demo.is_ready)
        stats, _, own_jobs, *_ = demo.curl_lines()
        assert run_curl(stats)["totalJobs"] == 1
        assert [job["jobId"] for job in run_curl(own_jobs)["data"]] == ["mine"]
    finally:
        assert demo.interrupt() == 0
        database.command("profile", 0)
    operations = {entry["op"] for entry in database["system.profile"].find({"appName": "jobmon"})}
    assert operations == {"query", "command"}
    database["system.profile"].drop()
    assert database.command("dbHash")["md5"] == hash_before
