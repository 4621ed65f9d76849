"""Debian's Prometheus scrapes a web service with two workers and a real MongoDB server.

Catches counts that depend on the worker that answers, totals that differ from the database, and a
format that Prometheus refuses.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import yaml
from pymongo.database import Database

from jobmon.collector.counters import COUNTERS
from jobmon.demo.mongod import Mongod, free_port
from jobmon.queue import JobQueue
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..conftest import Api
from ..support.commands import database_uri
from ..support.processes import end_process
from ..support.services import Web, serving
from ..support.waiting import PATIENCE_S, eventually

REQUESTS = 20  # requests that the workers count


@contextmanager
def run_prometheus(target_port: int, token: str, folder: Path) -> Iterator[int]:
    """Run Prometheus, which scrapes `target_port`; yields its own port."""
    binary = shutil.which("prometheus")
    if binary is None:
        assert not os.environ.get("CI"), "Prometheus is missing: apt-get install prometheus"
        pytest.skip("no prometheus")
    (folder / "token").write_text(token)
    scrape_config = {
        "job_name": "jobmon",
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "authorization": {"credentials_file": str(folder / "token")},
        "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape_config]}))
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
    try:
        yield port
    finally:
        end_process(process)


def query_prometheus(port: int, query: str) -> dict[str, float]:
    """The values by the text of their only label, or by "" without labels; {} during the start."""
    try:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        with urlopen(url, timeout=PATIENCE_S) as answer:
            samples = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    values = {}
    for sample in samples:
        labels = [text for name, text in sample["metric"].items() if name != "__name__"]
        values[labels[0] if labels else ""] = float(sample["value"][1])
    return values


def run_sample_jobs(queue: JobQueue) -> None:
    """Enqueue seven jobs: three succeed, one is dead-lettered, one is leased, two stay queued."""
    for _ in range(6):
        queue.enqueue("email.send", max_attempts=1)
    queue.enqueue("report.build")
    for number in range(5):
        lease = queue.lease("worker", types=["email.send"])
        assert lease is not None
        if number < 3:
            queue.report_success(lease)
        elif number < 4:
            queue.report_failure(lease, code="X", message="x")


def read_metrics(web: Web, token: str) -> str:
    request = Request(f"{web.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.read().decode()


@pytest.fixture
def web(
    mongod: Mongod, database: Database[dict[str, Any]], real_api: Api, tmp_path: Path
) -> Iterator[Web]:
    connection: Connection = real_api.app.extensions["jobmon_connection"]
    create_indexes(connection)
    rollups = f"{database.name}_rollups"
    settings = {"JOBMON_WORKERS": "2", "JOBMON_COLLECTOR": "true", "JOBMON_ROLLUP_DB": rollups}
    settings["TMPDIR"] = str(tmp_path)
    with serving(database_uri(mongod, database), tmp_path, **settings) as web:
        # The counters count no jobs that ended before the hour in which the collector started.
        state = database.client[rollups].state
        eventually(lambda: state.find_one({"name": COUNTERS}))
        run_sample_jobs(JobQueue(database))
        yield web
    database.client.drop_database(rollups)


def test_queries_return_the_counts_of_the_database_and_of_all_workers(
    web: Web, real_api: Api, tmp_path: Path
) -> None:
    token = real_api.token()
    for _ in range(REQUESTS):  # either worker may answer
        assert web.get("/jobs/none", token) == 403
    expected = {
        'sum by (status) (jobmon_jobs{type="email.send"} > 0)': {
            "queued": 1,
            "leased": 1,
            "succeeded": 3,
            "dlq": 1,
        },
        "sum by (outcome) (jobmon_attempts_finished_total)": {
            "succeeded": 3,
            "failed": 1,
            "expired": 0,
        },
        "sum by (type) (jobmon_jobs_enqueued_total)": {"email.send": 6, "report.build": 1},
        "sum(jobmon_jobs_dead_lettered_total)": {"": 1},
        "sum(jobmon_attempt_run_seconds_count)": {"": 4},
        "sum(jobmon_attempt_wait_seconds_bucket{le='+Inf'})": {"": 4},
        "sum(jobmon_due_jobs)": {"": 2},
        'sum(jobmon_http_requests_total{route="/jobs/<anything:job_id>",status="403"})': {
            "": REQUESTS
        },
        "sum(jobmon_database_up) + sum(jobmon_collector_up)": {"": 2},
        'sum(up{job="jobmon"})': {"": 1},
    }
    with run_prometheus(web.port, token, tmp_path) as port:
        for query, values in expected.items():
            eventually(lambda query=query, values=values: query_prometheus(port, query) == values)  # type: ignore[misc]
    files = list(tmp_path.glob("jobmon-metrics-*/counter_*.db"))
    assert len(files) == 2, "each worker must write its counts to a file of the shared folder"
    os.kill(int(files[0].stem.removeprefix("counter_")), signal.SIGKILL)
    eventually(web.answers)
    requests_total = (
        'jobmon_http_requests_total{method="GET",route="/jobs/<anything:job_id>",status="403"}'
    )
    sample = f"{requests_total} {REQUESTS}.0"
    assert sample in read_metrics(web, token), "the counts of a dead worker must stay"
    log = web.stop()
    assert "Traceback" not in log
    assert not list(tmp_path.glob("jobmon-metrics-*"))
