"""The image and the services of the compose file, in real containers: `make test-containers`.

The tests share one stack and run in this order. After each test except the last, the services run.
"""

import json
import re
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import pytest

from ..support.compose import Stack, docker, find_engine_version
from ..support.waiting import eventually

pytestmark = pytest.mark.containers

MAX_ADDED_MB = 100


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if find_engine_version() is None:
        pytest.skip("no Docker engine answers")
    stack = Stack(tmp_path_factory.mktemp("compose"))
    options = (f"--tag={stack.image}", "--build-arg=VERSION=1.2.3", "--build-arg=REVISION=abc")
    docker("build", "--file=deploy/Dockerfile", *options, ".", cwd=stack.folder)
    try:
        yield stack
    finally:
        stack.down("--volumes")
        docker("image", "rm", "--force", stack.image)


@pytest.fixture(scope="module")
def running_stack(stack: Stack) -> Stack:
    """The stack with the sample workload, after its collector has counted the jobs."""
    stack.up("demo")
    stack.await_stats(stack.token())
    return stack


@pytest.fixture
def token(running_stack: Stack) -> str:
    return running_stack.token()


def run_python(stack: Stack, service: str, code: str) -> str:
    """Run Python code in the service's container; returns its output and errors."""
    return stack.execute(service, "python", "-c", code, check=False)


def test_image_has_a_numeric_user_a_health_check_and_labels(stack: Stack) -> None:
    (image,) = json.loads(docker("image", "inspect", stack.image).stdout)
    config, labels = image["Config"], image["Config"]["Labels"]
    assert config["User"] == "10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Cmd"] == ["gunicorn", "wsgi:app"]
    prefix = "org.opencontainers.image."
    assert (labels[f"{prefix}version"], labels[f"{prefix}revision"]) == ("1.2.3", "abc")
    base = labels[f"{prefix}base.name"].rpartition("/")[2]
    (base_image,) = json.loads(docker("image", "inspect", base).stdout)
    assert (image["Size"] - base_image["Size"]) / 1e6 < MAX_ADDED_MB


def test_image_has_consistent_packages_the_extras_and_the_assets(stack: Stack) -> None:
    run_image = "run", "--rm", stack.image
    assert "No broken requirements" in docker(*run_image, "pip", "check").stdout
    code = (
        "import pathlib, opentelemetry.sdk, jobmon.dashboard as pages;"
        "print((pathlib.Path(pages.__file__).parent / 'static/vendor/htmx.min.js').exists())"
    )
    assert docker(*run_image, "python", "-c", code).stdout.strip() == "True"


def test_container_without_settings_ends_with_the_reason(stack: Stack) -> None:
    process = docker("run", "--rm", stack.image, check=False)
    assert process.returncode != 0
    lines = (process.stdout + process.stderr).strip().splitlines()
    assert len(lines) <= 2  # a line of gunicorn, and the reason
    assert lines[-1].startswith("jobmon: JOBMON_MONGO_URI")


def test_example_settings_without_secrets_are_refused_by_name(stack: Stack) -> None:
    output = stack.compose("--env-file", ".env.example", "config", "--quiet", check=False)
    # Compose names only one of the missing secrets, and not always the same one.
    assert re.search(
        r"variable \w+_(PASSWORD|KEY) is missing a value: see \.env\.example", output
    ), output


def test_stack_starts_with_users_indexes_and_changing_counts(
    running_stack: Stack, token: str
) -> None:
    assert running_stack.inspect("init", "{{.State.ExitCode}}") == "0"
    log = running_stack.compose("logs", "init")
    assert len(re.findall(r"user .*: may read", log)) == 2
    assert len(re.findall(r"index .*: created", log)) >= 10
    for service in ("mongo", "web", "collector"):
        eventually(
            lambda name=service: (
                running_stack.inspect(name, "{{.State.Health.Status}}") == "healthy"
            )
        )
    count_before = running_stack.await_stats(token)["totalJobs"]
    eventually(lambda: running_stack.await_stats(token)["totalJobs"] > count_before)
    assert "Problems: 0" in running_stack.execute("collector", "jobmon", "check")


def test_token_signs_in_and_the_page_shows_the_queue(running_stack: Stack, token: str) -> None:
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    url = f"http://127.0.0.1:{running_stack.port}/dashboard"
    form = urlencode({"token": token, "then": ""}).encode()
    with browser.open(f"{url}/session", form, timeout=30) as answer:
        assert answer.url == url
        assert "email.send" in answer.read().decode()


@pytest.mark.parametrize("service", ["web", "collector"])
def test_services_read_the_file_of_thresholds(running_stack: Stack, service: str) -> None:
    # `Stack` writes this failure rate into the file.
    assert "0.37" in running_stack.execute(service, "jobmon", "alerts")


def test_services_have_no_capabilities_and_write_only_to_tmp(running_stack: Stack) -> None:
    for service in ("web", "collector", "workload"):
        status = running_stack.execute(service, "cat", "/proc/1/status")
        assert re.search(r"^CapBnd:\s+0{16}$", status, re.MULTILINE), service
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), service
        assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE), service
        for folder in ("/app", "/", "/usr/local/bin"):
            code = f"open('{folder}/written', 'w')"
            assert "Read-only file system" in run_python(running_stack, service, code), folder
        assert (
            run_python(running_stack, service, "open('/tmp/written', 'w'); print(1)").strip() == "1"
        )


@pytest.mark.parametrize("service", ["web", "collector"])
@pytest.mark.parametrize("write", ["insert_one({})", "delete_many({})", "drop()"])
def test_database_user_of_web_service_and_collector_cannot_write_jobs(
    running_stack: Stack, service: str, write: str
) -> None:
    code = (
        "import os, pymongo; uri = os.environ['JOBMON_MONGO_URI'];"
        f"pymongo.MongoClient(uri).get_default_database().jobs.{write}"
    )
    assert "not authorized" in run_python(running_stack, service, code)


def test_actor_retries_a_dead_job_on_request(running_stack: Stack, token: str) -> None:
    running_stack.up("demo", "actions")

    def find_dead_job() -> list[Any]:
        _, answer = running_stack.request("/admin/jobs/queue?status=dlq&per_page=1", token)
        return answer["data"] if answer else []

    (job,) = eventually(find_dead_job)
    body = {"action": "retry", "ids": [job["jobId"]]}
    status, filed = running_stack.request("/admin/actions", token, body)
    assert status in (201, 202), filed

    def get_ended_action() -> dict[str, Any] | None:
        _, answer = running_stack.request(f"/admin/actions/{filed['id']}", token)
        return answer if answer and answer["endedAt"] else None

    action = eventually(get_ended_action)
    assert action is not None
    assert action["done"] == 1
    assert "Problems: 0" in running_stack.execute(
        "web", "jobmon", "check"
    )  # checks the actor's rights


@pytest.mark.parametrize("service", ["web", "collector", "mongo"])
def test_killed_service_restarts_and_the_statistics_come_from_the_collector(
    running_stack: Stack, token: str, service: str
) -> None:
    running_stack.kill(service)
    running_stack.await_stats(token)
    assert running_stack.inspect(service, "{{.State.Status}}") == "running"


def test_statistics_are_counted_live_while_the_collector_is_stopped(
    running_stack: Stack, token: str
) -> None:
    running_stack.compose("stop", "collector")
    running_stack.await_stats(token, "live")
    running_stack.compose("start", "collector")
    running_stack.await_stats(token)


def test_down_and_up_keep_the_jobs_and_init_creates_nothing(
    running_stack: Stack, token: str
) -> None:
    _, answer = running_stack.request("/admin/jobs/queue?status=succeeded&per_page=1", token)
    (job,) = answer["data"]
    count_before = running_stack.await_stats(token)["totalJobs"]
    running_stack.down()
    running_stack.up("demo")
    assert running_stack.await_stats(token)["totalJobs"] >= count_before
    assert running_stack.request(f"/jobs/{job['jobId']}", token)[0] == 200
    log = running_stack.compose("logs", "init")
    assert "rs0: exists" in log
    assert not re.search(r"index .*: created", log)


def test_new_secrets_replace_the_old_ones_and_no_secret_is_logged(
    running_stack: Stack, token: str
) -> None:
    old_secrets = running_stack.rotate("JOBMON_READER_PASSWORD", "JOBMON_COLLECTOR_PASSWORD")
    running_stack.up("demo")
    running_stack.await_stats(token)
    old_secrets += running_stack.rotate("JOBMON_JWT_SECRET_KEY")
    running_stack.up("demo")
    eventually(lambda: running_stack.request("/admin/jobs/stats", token)[0] == 401)
    running_stack.await_stats(running_stack.token())
    log = running_stack.compose("--profile=demo", "logs", "--no-color")
    for secret in [*old_secrets, *running_stack.secrets]:
        assert secret not in log


def test_revoked_token_is_refused(running_stack: Stack) -> None:
    token = running_stack.token("somebody")
    running_stack.await_stats(token)
    running_stack.execute("collector", "jobmon", "revoke", "--sub", "somebody")
    eventually(lambda: running_stack.request("/admin/jobs/stats", token)[0] == 401)


def test_prometheus_scrapes_the_web_service_and_evaluates_the_rules(
    running_stack: Stack, token: str
) -> None:
    for name, value in ((".metrics-token", token), (".grafana-password", "correct horse")):
        (running_stack.folder / name).write_text(value)
        (running_stack.folder / name).chmod(0o644)
    running_stack.up("demo", "monitoring")

    def query(path: str) -> Any:
        try:
            with urlopen(
                f"http://127.0.0.1:{running_stack.prometheus_port}{path}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def is_scraped() -> bool:
        targets = (query("/api/v1/targets") or {}).get("activeTargets", [])
        return "up" in [target["health"] for target in targets]

    def has_rules() -> bool:
        groups = (query("/api/v1/rules") or {}).get("groups", [])
        rules = [rule for group in groups for rule in group["rules"]]
        return bool(rules) and {rule["health"] for rule in rules} == {"ok"}

    eventually(is_scraped)
    eventually(has_rules)
    for service in ("prometheus", "grafana"):
        assert running_stack.inspect(service, "{{.HostConfig.ReadonlyRootfs}}") == "true"
        assert running_stack.inspect(service, "{{.State.Status}} {{.RestartCount}}") == "running 0"


def test_down_removes_all_containers_and_volumes(running_stack: Stack) -> None:
    """Catches an anonymous volume that each `docker compose down` leaves on the machine."""
    name_filter = f"--filter=name={running_stack.project}"
    volumes_before = set(docker("volume", "ls", "--quiet").stdout.split())
    running_stack.down("--volumes")
    assert docker("ps", "--all", "--quiet", name_filter).stdout == ""
    volumes = set(docker("volume", "ls", "--quiet").stdout.split())
    assert [name for name in volumes if running_stack.project in name] == []
    assert volumes <= volumes_before
