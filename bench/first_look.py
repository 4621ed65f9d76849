"""Measure how long two commands take from an installed jobmon to the first list of your own queue.

For samples of other programs it runs `jobmon init --discover --write`, and then the command that
this printed. It requests the list of jobs with the printed token until the answer is a 200.

    .venv/bin/python bench/first_look.py
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bson import json_util
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod, free_port

SAMPLES = Path(__file__).parents[1] / "tests" / "adapters" / "samples"
NAMES = ("agenda-6", "payload", "mongoosejs-task")
LONGEST_S = 120
PROMPT = "To see the queue: "


def run_first_look(name: str, folder: Path, uri: str) -> tuple[float, float, int]:
    """Run both commands; returns the seconds to the discovery and to the list, and its jobs."""
    jobmon = Path(sys.executable).parent / "jobmon"
    port = free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("JOBMON_")},
        "PATH": f"{jobmon.parent}:{os.environ['PATH']}",
        "JOBMON_BIND": f"127.0.0.1:{port}",
    }
    began = time.monotonic()
    output = subprocess.run(
        ["jobmon", "init", "--discover", "--write", folder],
        env=environment | {"JOBMON_MONGO_URI": uri},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    discovered_s = time.monotonic() - began
    (line,) = [line for line in output.splitlines() if PROMPT in line and f"/{name}-" in line]
    command = line.partition(PROMPT)[2]
    with subprocess.Popen(
        ["bash", "-c", command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            token = shell.stdout.readline().strip()  # type: ignore[union-attr]
            jobs = await_list(port, token, began)
            return discovered_s, time.monotonic() - began, jobs
        finally:
            os.killpg(shell.pid, signal.SIGTERM)


def await_list(port: int, token: str, began: float) -> int:
    """Request the list until the answer is a 200; returns the number of jobs, at most 100."""
    while time.monotonic() - began < LONGEST_S:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET", "/admin/jobs/queue?per_page=100", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == http.client.OK:
                return len(json.loads(body)["data"])
        except OSError:  # the service has not started yet
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise SystemExit(f"no list after {LONGEST_S} s")


def main() -> None:
    """Print a line for each sample."""
    with tempfile.TemporaryDirectory() as folder, Mongod(Path(folder) / "db") as mongod:
        client: MongoClient[dict[str, object]] = MongoClient(mongod.uri)
        for name in NAMES:
            sample = json_util.loads((SAMPLES / f"{name}.json").read_text())
            for collection, content in sample["collections"].items():
                client[name][collection].insert_many(content["documents"])
            uri = mongod.uri.replace("/?", f"/{name}?")
            discovered_s, listed_s, jobs = run_first_look(name, Path(folder) / name, uri)
            print(f"{name}: discovered in {discovered_s:.1f} s, {jobs} jobs after {listed_s:.1f} s")
            client.drop_database(name)
        client.close()


if __name__ == "__main__":
    main()
