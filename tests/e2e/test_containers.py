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

MAX_ADDED_MB = 100  # the image may be larger than its base image by this


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
def demo(stack: Stack) -> Stack:
    """The stack with the sample workload, after its collector has counted the jobs."""
    stack.up("demo")
    stack.await_stats(stack.token())
    return stack


@pytest.fixture
def token(demo: Stack) -> str:
    return demo.token()


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


def test_stack_starts_with_users_indexes_and_changing_counts(demo: Stack, token: str) -> None:
    assert demo.inspect("init", "{{.State.ExitCode}}") == "0"
    log = demo.compose("logs", "init")
    assert len(re.findall(r"user .*: may read", log)) == 2
    assert len(re.findall(r"index .*: created", log)) >= 10
    for service in ("mongo", "web", "collector"):
        eventually(lambda name=service: demo.inspect(name, "{{.State.Health.Status}}") == "healthy")
    count_before = demo.await_stats(token)["totalJobs"]
    eventually(lambda: demo.await_stats(token)["totalJobs"] > count_before)
    assert "Problems: 0" in demo.execute("collector", "jobmon", "check")


def test_token_signs_in_and_the_page_shows_the_queue(demo: Stack, token: str) -> None:
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    url = f"http://127.0.0.1:{demo.port}/dashboard"
    form = urlencode({"token": token, "then": ""}).encode()
    with browser.open(f"{url}/session", form, timeout=30) as answer:
        assert answer.url == url
        assert "email.send" in answer.read().decode()


@pytest.mark.parametrize("service", ["web", "collector"])
def test_services_read_the_file_of_thresholds(demo: Stack, service: str) -> None:
    # `Stack` writes this failure rate into the file.
    assert "0.37" in demo.execute(service, "jobmon", "alerts")


def test_services_have_no_capabilities_and_write_only_to_tmp(demo: Stack) -> None:
    for service in ("web", "collector", "workload"):
        status = demo.execute(service, "cat", "/proc/1/status")
        assert re.search(r"^CapBnd:\s+0{16}$", status, re.MULTILINE), service
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), service
        assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE), service
        for folder in ("/app", "/", "/usr/local/bin"):
            code = f"open('{folder}/written', 'w')"
            assert "Read-only file system" in run_python(demo, service, code), folder
        assert run_python(demo, service, "open('/tmp/written', 'w'); print(1)").strip() == "1"


@pytest.mark.parametrize("service", ["web", "collector"])
@pytest.mark.parametrize("write", ["insert_one({})", "delete_many({})", "drop()"])
def test_database_user_of_web_service_and_collector_cannot_write_jobs(
    demo: Stack, service: str, write: str
) -> None:
    code = (
        "import os, pymongo; uri = os.environ['JOBMON_MONGO_URI'];"
        f"pymongo.MongoClient(uri).get_default_database().jobs.{write}"
    )
    assert "not authorized" in run_python(demo, service, code)


def test_actor_retries_a_dead_job_on_request(demo: Stack, token: str) -> None:
    demo.up("demo", "actions")

    def find_dead_job() -> list[Any]:
        _, answer = demo.request("/admin/jobs/queue?status=dlq&per_page=1", token)
        return answer["data"] if answer else []

    (job,) = eventually(find_dead_job)
    body = {"action": "retry", "ids": [job["jobId"]]}
    status, filed = demo.request("/admin/actions", token, body)
    assert status in (201, 202), filed

    def get_ended_action() -> dict[str, Any] | None:
        _, answer = demo.request(f"/admin/actions/{filed['id']}", token)
        return answer if answer and answer["endedAt"] else None

    action = eventually(get_ended_action)
    assert action is not None
    assert action["done"] == 1
    assert "Problems: 0" in demo.execute("web", "jobmon", "check")  # checks the actor's rights


@pytest.mark.parametrize("service", ["web", "collector", "mongo"])
def test_killed_service_restarts_and_the_statistics_come_from_the_collector(
    demo: Stack, token: str, service: str
) -> None:
    demo.kill(service)
    demo.await_stats(token)
    assert demo.inspect(service, "{{.State.Status}}") == "running"


def test_statistics_are_counted_live_while_the_collector_is_stopped(
    demo: Stack, token: str
) -> None:
    demo.compose("stop", "collector")
    demo.await_stats(token, "live")
    demo.compose("start", "collector")
    demo.await_stats(token)


def test_down_and_up_keep_the_jobs_and_init_creates_nothing(demo: Stack, token: str) -> None:
    _, answer = demo.request("/admin/jobs/queue?status=succeeded&per_page=1", token)
    (job,) = answer["data"]
    count_before = demo.await_stats(token)["totalJobs"]
    demo.down()
    demo.up("demo")
    assert demo.await_stats(token)["totalJobs"] >= count_before
    assert demo.request(f"/jobs/{job['jobId']}", token)[0] == 200
    log = demo.compose("logs", "init")
    assert "rs0: exists" in log
    assert not re.search(r"index .*: created", log)


def test_new_secrets_replace_the_old_ones_and_no_secret_is_logged(demo: Stack, token: str) -> None:
    old_secrets = demo.rotate("JOBMON_READER_PASSWORD", "JOBMON_COLLECTOR_PASSWORD")
    demo.up("demo")
    demo.await_stats(token)
    old_secrets += demo.rotate("JOBMON_JWT_SECRET_KEY")
    demo.up("demo")
    eventually(lambda: demo.request("/admin/jobs/stats", token)[0] == 401)
    demo.await_stats(demo.token())
    log = demo.compose("--profile=demo", "logs", "--no-color")
    for secret in [*old_secrets, *demo.secrets]:
        assert secret not in log


def test_revoked_token_is_refused(demo: Stack) -> None:
    token = demo.token("somebody")
    demo.await_stats(token)
    demo.execute("collector", "jobmon", "revoke", "--sub", "somebody")
    eventually(lambda: demo.request("/admin/jobs/stats", token)[0] == 401)


def test_prometheus_scrapes_the_web_service_and_evaluates_the_rules(
    demo: Stack, token: str
) -> None:
    for name, value in ((".metrics-token", token), (".grafana-password", "correct horse")):
        (demo.folder / name).write_text(value)
        (demo.folder / name).chmod(0o644)
    demo.up("demo", "monitoring")

    def query(path: str) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{demo.prometheus_port}{path}", timeout=10) as answer:
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
        assert demo.inspect(service, "{{.HostConfig.ReadonlyRootfs}}") == "true"
        assert demo.inspect(service, "{{.State.Status}} {{.RestartCount}}") == "running 0"


def test_down_removes_all_containers_and_volumes(demo: Stack) -> None:
    """Catches an anonymous volume that each `docker compose down` leaves on the machine."""
    name_filter = f"--filter=name={demo.project}"
    volumes_before = set(docker("volume", "ls", "--quiet").stdout.split())
    demo.down("--volumes")
    assert docker("ps", "--all", "--quiet", name_filter).stdout == ""
    volumes = set(docker("volume", "ls", "--quiet").stdout.split())
    assert [name for name in volumes if demo.project in name] == []
    assert volumes <= volumes_before
