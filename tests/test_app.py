"""Imports of jobmon in other programs, and several apps in one process.

Catches an import of `jobmon.queue` that loads the web service or changes the producer's logging,
and two apps that share counters or export slots.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.store.lists import JobLists

from .conftest import Api

ROOT = Path(__file__).parents[1]
CONFIGURE_STRUCTLOG = """
import structlog
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
before = structlog.get_config()
"""


def run_in_new_interpreter(script: str, *options: str) -> Any:
    """The value that `script` prints as JSON."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", *options, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return json.loads(process.stdout)


def test_import_of_queue_loads_nothing_of_the_web_service() -> None:
    """Catches a producer that must install Flask and other libraries of the web service."""
    loaded = run_in_new_interpreter(
        "import json, sys, jobmon.queue; print(json.dumps(sorted(sys.modules)))"
    )
    jobmon_modules = {name for name in loaded if name.split(".")[0] == "jobmon"}
    queue_modules = {f"jobmon.queue.{name}" for name in ("attempts", "changes", "job_queue")}
    assert jobmon_modules == {"jobmon", "jobmon.domain", "jobmon.queue"} | queue_modules
    web_libraries = {"flask", "werkzeug", "marshmallow", "prometheus_client", "gunicorn"}
    assert (web_libraries | {"structlog"}).isdisjoint(loaded)


def test_jobmon_has_its_version_before_it_is_installed() -> None:
    """Catches a checkout whose import needs installed metadata or a dependency."""
    script = """
import json, sys
sys.path.insert(0, ".")
import jobmon
public = sorted(name for name in vars(jobmon) if not name.startswith("__"))
print(json.dumps([public, jobmon.__version__, sorted(sys.modules)]))
"""
    # Without site-packages there is neither metadata nor any dependency.
    public, version, loaded = run_in_new_interpreter(script, "-I", "-S")
    assert public == []
    assert version[0].isdigit()
    assert "importlib.metadata" not in loaded


def test_imports_do_not_configure_logging() -> None:
    script = """
import json, logging, jobmon.queue, jobmon.logs, jobmon.app, structlog
print(json.dumps([structlog.is_configured(), len(logging.getLogger().handlers)]))
"""
    assert run_in_new_interpreter(script) == [False, 0]


def test_imports_keep_the_logging_of_a_producer() -> None:
    script = f"""{CONFIGURE_STRUCTLOG}
import json, jobmon.queue, jobmon.logs, jobmon.app
print(json.dumps(structlog.get_config() == before))
"""
    assert run_in_new_interpreter(script) is True


def test_create_app_keeps_the_logging_of_a_producer() -> None:
    script = f"""{CONFIGURE_STRUCTLOG}
import json, logging
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel("ERROR")
from jobmon.app import create_app
from jobmon.settings import Settings
create_app(Settings(mongo_uri="mongodb://localhost", jwt_secret_key="-" * 32))
root = logging.getLogger()
print(json.dumps([structlog.get_config() == before, root.handlers == [handler], root.level]))
"""
    assert run_in_new_interpreter(script) == [True, True, 40]  # 40 is ERROR


def test_apps_in_one_process_count_their_own_requests_and_exports(
    watched: Any, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a request or an export that another app in the process counts, too."""
    monkeypatch.setattr(JobLists, "batches", lambda *_, **__: iter([[{"jobId": "a"}]] * 2))
    api_1, api_2 = (
        Api(create_app(make_settings(metrics="open"), watched.client)) for _ in range(2)
    )
    # One person may run one export at a time; these two run at the same time.
    exports = [api.get_as_owner("/jobs", "ada", format="csv") for api in (api_1, api_2)]
    assert [answer.status_code for answer in exports] == [200, 200]
    for answer in exports:
        answer.close()
    assert 'route="/jobs"' in api_1.get("/metrics").text
    assert api_1.get("/healthz").status_code == 200
    assert 'route="/healthz"' in api_1.get("/metrics").text
    assert 'route="/healthz"' not in api_2.get("/metrics").text
