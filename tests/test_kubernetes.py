"""The Helm chart in `deploy/helm`, and the plain manifests in `deploy/kubernetes`.

Catches a pod that a cluster with pod security "restricted" refuses, a process with the secret of
another process, a field that Kubernetes does not know, and manifests that differ from the chart.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pymongo.database import Database

from jobmon import __version__
from jobmon.demo.mongod import Mongod, free_port

from .api.test_queue_metrics import promtool
from .conftest import SECRET
from .support.commands import database_uri
from .support.processes import end_process
from .support.proxies import read_blocks
from .support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy/helm/jobmon"
MANIFESTS = ROOT / "deploy/kubernetes"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
RULES = ROOT / "deploy/prometheus/alerts.yml"
# The oldest that the chart allows, and the newest whose schemas the package has.
VERSIONS = ("1.27", kubernetes_validate.latest_version())
COMPONENTS = ("web", "collector", "actor", "init")
WORKLOADS = ("Deployment", "Job")

# Everything that values.yaml can turn on.
ALL = {
    "actor.enabled": "true",
    "collector.replicas": "2",
    "env[0].name": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "env[0].value": "https://otel.example.com",
    "files.queues\\.toml": "[orders]",
    "files.rules\\.toml": "failure_rate = 0.3",
    "image.digest": f"sha256:{'0' * 64}",
    "imagePullSecrets[0].name": "registry",
    "ingress.enabled": "true",
    "ingress.className": "nginx",
    "ingress.path": "/jobmon",
    "ingress.tlsSecret": "jobmon-tls",
    "monitoring.dashboard.enabled": "true",
    "monitoring.prometheusRule.enabled": "true",
    "monitoring.serviceMonitor.enabled": "true",
    "networkPolicy.mongoTo[0].ipBlock.cidr": "10.0.0.0/8",
    "networkPolicy.webFrom[0].namespaceSelector.matchLabels.name": "ingress",
    "nodeSelector.disk": "ssd",
    "podAnnotations.team": "payments",
    "podLabels.team": "payments",
    "priorityClassName": "high",
    "settings.JOBMON_QUEUES": "/etc/jobmon/./queues.toml",
    "settings.JOBMON_STATS_TTL_MS": "2000000",
    "tolerations[0].operator": "Exists",
}

Objects = list[dict[str, Any]]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm, which `make .venv/bin/helm` installs where there is none."""
    tool = shutil.which("helm") or shutil.which("helm", path=str(Path(sys.executable).parent))
    if tool is None:
        assert not os.environ.get("CI"), "helm is missing: make .venv/bin/helm"
        pytest.skip("no helm")
    return subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)


def render(values: dict[str, str] | None = None, release: str = "jobmon", *files: str) -> Objects:
    """The objects that the chart makes with these values; `files` are values as `name=path`."""
    options = [f"--set={name}={value}" for name, value in (values or {}).items()]
    options += [f"--set-file={file}" for file in files]
    done = helm("template", release, str(CHART), "--namespace", "tools", *options)
    assert done.returncode == 0, done.stderr
    return [it for it in yaml.safe_load_all(done.stdout) if it]


@pytest.fixture(scope="module")
def default() -> Objects:
    return render()


@pytest.fixture(scope="module")
def complete() -> Objects:
    return render(ALL)


def component(it: dict[str, Any]) -> str:
    name: str = it["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The spec of each process's pod."""
    return {
        component(it): it["spec"]["template"]["spec"] for it in objects if it["kind"] in WORKLOADS
    }


def container(objects: Objects, name: str) -> dict[str, Any]:
    (it,) = pods(objects)[name]["containers"]
    found: dict[str, Any] = it
    return found


def only(objects: Objects, kind: str, process: str = "web") -> dict[str, Any]:
    (found,) = (it for it in objects if it["kind"] == kind and component(it) == process)
    return found


def test_chart_passes_helm_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_chart_has_the_version_of_jobmon() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.parametrize("values", [{}, ALL], ids=["default", "everything"])
@pytest.mark.parametrize("version", VERSIONS)
def test_objects_match_the_schemas_of_kubernetes(values: dict[str, str], version: str) -> None:
    """Catches a misspelled field, which Kubernetes would ignore or refuse."""
    known = [it for it in render(values) if not it["apiVersion"].startswith("monitoring.")]
    assert len(known) >= 9
    for it in known:
        kubernetes_validate.validate(it, version, strict=True)


def read_filled_lines(file: Path) -> list[str]:
    """The lines of a file; versions of Helm differ in empty ones."""
    return [line for line in file.read_text().splitlines() if line.strip()]


def test_plain_manifests_are_what_the_chart_makes(tmp_path: Path) -> None:
    """Catches a change of the chart without `make manifests`."""
    options = ("--namespace", "jobmon", "--set", "init.hook=false", "--output-dir", str(tmp_path))
    assert " ".join(options[:4]) in (ROOT / "Makefile").read_text()
    done = helm("template", "jobmon", str(CHART), *options)
    assert done.returncode == 0, done.stderr
    rendered = {file.name: file for file in (tmp_path / "jobmon/templates").iterdir()}
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    files = {file.name for file in MANIFESTS.iterdir()} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"]) == {*rendered, "namespace.yaml"}
    for name, file in rendered.items():
        assert read_filled_lines(MANIFESTS / name) == read_filled_lines(file), name


def test_plain_manifests_have_a_namespace_that_refuses_other_pods() -> None:
    namespace = yaml.safe_load((MANIFESTS / "namespace.yaml").read_text())
    kubernetes_validate.validate(namespace, VERSIONS[-1], strict=True)
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("name", COMPONENTS)
def test_pods_meet_pod_security_restricted(complete: Objects, name: str) -> None:
    """All rules of the profile: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pod = pods(complete)[name]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (it,) = pod["containers"]
    assert it["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert all("hostPort" not in port for port in it.get("ports", []))
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir"}
    # More than the profile requires:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # JOBMON_PORT would look like a setting
    assert {"requests", "limits"} <= it["resources"].keys()


@pytest.mark.parametrize("name", COMPONENTS)
def test_pods_run_the_commands_of_compose(complete: Objects, name: str) -> None:
    """Catches a pod whose command or folder in memory differs from the compose file's."""
    pod, it = pods(complete)[name], container(complete, name)
    service = COMPOSE[name]
    if name == "init":  # MongoDB is there already: no replica set, no empty collections
        assert it["command"][:2] == service["command"][:2]
        assert "--reader jobmon --collector collector" in " ".join(service["command"])
        assert it["command"][2:] == [
            *("--reader", "jobmon", "--collector", "collector", "--actor", "actor")
        ]
    else:
        assert it["command"] == service.get("command", ["gunicorn", "wsgi:app"])
    assert pod["shareProcessNamespace"] is service["init"]  # Python is not process 1
    assert service["tmpfs"] == ["/tmp:size=64m"]
    assert {"name": "tmp", "mountPath": "/tmp"} in it["volumeMounts"]
    memory = {"medium": "Memory", "sizeLimit": "64Mi"}
    assert {"name": "tmp", "emptyDir": memory} in pod["volumes"]


def test_probes_restart_hung_processes_and_stop_requests_that_would_fail(default: Objects) -> None:
    web, collector = container(default, "web"), container(default, "collector")
    paths = {
        probe: web[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    check = COMPOSE["collector"]["healthcheck"]["test"][1:]
    assert collector["readinessProbe"]["exec"]["command"] == check
    for probe in (collector["startupProbe"], collector["livenessProbe"]):
        assert probe["exec"]["command"] == check
        # Longer than MongoDB takes to restart: the collector waits for it meanwhile.
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 900


def test_web_pods_end_after_the_last_request_arrived(default: Objects) -> None:
    """Catches requests that are lost when a pod is replaced or a node is drained."""
    it, pod = container(default, "web"), pods(default)["web"]
    (seconds,) = re.findall(r"sleep\((\d+)\)", it["lifecycle"]["preStop"]["exec"]["command"][-1])
    graceful_s = 20  # gunicorn's graceful_timeout
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + graceful_s
    deployment = only(default, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = only(default, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_each_process_has_its_own_secret_and_no_other(complete: Objects) -> None:
    """Catches a web service that gets the rights of the actor."""
    for name in COMPONENTS:
        sources = container(complete, name)["envFrom"]
        assert sources == [{"secretRef": {"name": f"jobmon-{name}"}}]
    assert "Secret" not in {it["kind"] for it in complete}


def test_actor_is_off_by_default_and_turns_actions_on(default: Objects, complete: Objects) -> None:
    assert set(pods(default)) == {"web", "collector", "init"}
    assert "--actor" not in container(default, "init")["command"]

    def allows_actions(objects: Objects, name: str) -> bool:
        return {"name": "JOBMON_ACTIONS", "value": "true"} in container(objects, name).get(
            "env", []
        )

    assert not allows_actions(default, "web")
    assert allows_actions(complete, "web")
    assert allows_actions(complete, "actor")
    assert not allows_actions(complete, "collector")


def test_ingress_path_is_the_prefix_of_all_addresses(complete: Objects, default: Objects) -> None:
    """Catches links that leave the path, and so lead to another service of the host."""
    (rule,) = only(complete, "Ingress")["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/jobmon"]
    prefix = {"name": "JOBMON_PATH_PREFIX", "value": "/jobmon"}
    assert prefix in container(complete, "web")["env"]
    assert "env" not in container(default, "web")


def test_ingress_in_the_docs_equals_the_ingress_of_the_chart() -> None:
    (block,) = read_blocks("yaml", "Kubernetes")
    ingress = yaml.safe_load(block)
    for version in VERSIONS:
        kubernetes_validate.validate(ingress, version, strict=True)
    values = {"ingress.enabled": "true", "ingress.host": "tools.example", "ingress.path": "/jobmon"}
    assert ingress["spec"] == only(render(values), "Ingress")["spec"]


def test_numbers_and_files_reach_every_process(complete: Objects) -> None:
    """Catches a number as 2e+06, and a hook that needs an object which does not exist yet."""
    for name in COMPONENTS:
        it, pod = container(complete, name), pods(complete)[name]
        env = {entry["name"]: entry["value"] for entry in it["env"]}
        assert env["JOBMON_STATS_TTL_MS"] == "2000000"
        assert env["JOBMON_RULES"] == "/etc/jobmon/rules.toml"
        assert env["JOBMON_QUEUES"] == "/etc/jobmon/./queues.toml"  # the value that was set
        (files,) = (volume for volume in pod["volumes"] if volume["name"] == "files")
        (config,) = (
            it
            for it in complete
            if it["kind"] == "ConfigMap" and it["metadata"]["name"] == files["configMap"]["name"]
        )
        assert config["data"] == {"queues.toml": "[orders]", "rules.toml": "failure_rate = 0.3"}
        hook = "helm.sh/hook" in config["metadata"].get("annotations", {})
        assert hook is (name == "init")


def test_init_runs_before_everything_else_changes(complete: Objects) -> None:
    hooks = {
        it["kind"]: it["metadata"]["annotations"]
        for it in complete
        if "helm.sh/hook" in it["metadata"].get("annotations", {})
    }
    assert set(hooks) == {"Job", "ConfigMap", "NetworkPolicy"}
    assert all(it["helm.sh/hook"] == "pre-install,pre-upgrade" for it in hooks.values())
    weights = {kind: int(it["helm.sh/hook-weight"]) for kind, it in hooks.items()}
    assert weights["Job"] > max(weights["ConfigMap"], weights["NetworkPolicy"])
    assert "serviceAccountName" not in pods(complete)["init"]  # it does not exist yet
    assert pods(complete)["init"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", COMPONENTS)
def test_network_policies_allow_only_what_a_process_needs(complete: Objects, name: str) -> None:
    spec = only(complete, "NetworkPolicy", name)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {53, 27017}
    if name != "web":
        assert "ingress" not in spec
        return
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]


def test_selectors_find_the_pods_of_their_component(complete: Objects) -> None:
    labels = {
        component(it): it["spec"]["template"]["metadata"]["labels"]
        for it in complete
        if it["kind"] in WORKLOADS
    }
    for it in complete:
        spec = it.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        if wanted := selector.get("matchLabels", selector):
            found = {name for name, of_pod in labels.items() if wanted.items() <= of_pod.items()}
            assert found == {component(it)}, it["metadata"]


def test_service_monitor_gives_targets_the_labels_of_the_rules(complete: Objects) -> None:
    """Catches a label that JobmonDown does not find, and two releases with one job name."""
    (endpoint,) = only(complete, "ServiceMonitor")["spec"]["endpoints"]
    service = only(complete, "Service")
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    labels = {rule["targetLabel"]: rule["replacement"] for rule in endpoint["relabelings"]}
    assert labels == {"app": "jobmon", "job": "tools/jobmon"}
    assert 'up{app="jobmon"}' in RULES.read_text()
    (other,) = only(render(ALL, release="crm"), "ServiceMonitor")["spec"]["endpoints"]
    assert {"targetLabel": "job", "replacement": "tools/crm-jobmon"} in other["relabelings"]


def test_grafana_finds_the_shipped_dashboard(complete: Objects) -> None:
    config = only(complete, "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    shipped = (ROOT / "deploy/grafana/dashboards/jobmon.json").read_text()
    assert json.loads(config["data"]["jobmon.json"]) == json.loads(shipped)


def test_prometheus_rule_has_the_shipped_alerts_with_links(tmp_path: Path) -> None:
    link = "https://git.example.com/jobmon/runbook.md"
    values = ALL | {"monitoring.prometheusRule.runbookUrl": link}
    spec = only(render(values), "PrometheusRule")["spec"]
    shipped = yaml.safe_load(RULES.read_text().replace("docs/runbook.md", link))
    assert spec == shipped
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(spec))
    command = [promtool(), "check", "rules", str(file)]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_rule_can_have_rules_of_another_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yml"
    rule = {
        "alert": "Own",
        "expr": "up == 0",
        "annotations": {"summary": "{{ $labels.job }}, down"},
    }
    file.write_text(yaml.safe_dump({"groups": [{"name": "own", "rules": [rule]}]}))
    spec = only(render(ALL, "jobmon", f"monitoring.prometheusRule.file={file}"), "PrometheusRule")
    assert spec["spec"] == yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("wbe.replicas=1", "additional properties 'wbe' not allowed"),
        ("web.replicas=two", "at '/web/replicas': got string, want integer"),
        ("web.existingSecret=", "at '/web/existingSecret': minLength"),
        ("settings.JOBMON_MONGO_URI=x", "settings.JOBMON_MONGO_URI: a secret belongs in"),
        ("settings.MAILS_MONGO_URI=x", "settings.MAILS_MONGO_URI: a secret belongs in"),
        ("settings.JOBMON_OIDC_CLIENT_SECRET=x", "a secret belongs in the existingSecret"),
    ],
)
def test_mistakes_in_values_are_refused(option: str, message: str) -> None:
    done = helm("template", "jobmon", str(CHART), "--set", option)
    assert done.returncode != 0
    assert message in done.stderr


def test_values_all_have_a_schema() -> None:
    """Catches a new value that the schema does not know, so that nobody can set it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(values: dict[str, Any], schema: dict[str, Any]) -> None:
        if schema.get("additionalProperties") is not False:
            return
        assert values.keys() == schema["properties"].keys() - {"global"}
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][name])

    compare(values, schema)


@pytest.fixture
def environment(
    mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path
) -> Iterator[dict[str, dict[str, str]]]:
    """The keys and values of each secret, as docs/kubernetes.md describes them."""

    def uri(user: str) -> str:
        address = database_uri(mongod, database).partition("://")[2]
        return f"mongodb://{user}:{user}pw@{address}"

    shared = {
        "JOBMON_ROLLUP_DB": f"{database.name}_rollups",
        "JOBMON_STATE_DB": f"{database.name}_s",
    }
    yield {
        "jobmon-init": shared
        | {
            "JOBMON_ADMIN_MONGO_URI": database_uri(mongod, database),
            "JOBMON_READER_PASSWORD": "jobmonpw",
            "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
        },
        "jobmon-web": shared | {"JOBMON_MONGO_URI": uri("jobmon"), "JOBMON_JWT_SECRET_KEY": SECRET},
        "jobmon-collector": shared | {"JOBMON_MONGO_URI": uri("collector")},
    }
    for name in shared.values():
        database.client.drop_database(name)
    database.command("dropAllUsersFromDatabase")
    database.command("dropAllRolesFromDatabase")


def answers(port: int, path: str) -> bool:
    """Whether an HTTP probe of this path succeeds."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_commands_and_probes_of_the_pods_work_with_their_secrets(
    default: Objects, environment: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Catches a secret without a key that a process needs, and a probe that never succeeds."""

    def prepare(name: str, command: list[str]) -> tuple[list[str], dict[str, str]]:
        (source,) = container(default, name)["envFrom"]
        folder = str(Path(sys.executable).parent)
        return command, {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            **environment[source["secretRef"]["name"]],
        }

    def run(name: str, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        argv, env = prepare(name, command)
        return subprocess.run(
            argv, env=env, cwd=tmp_path, check=False, capture_output=True, timeout=PATIENCE_S
        )

    init = run("init", [*container(default, "init")["command"], "--create"])
    assert init.returncode == 0, init.stdout + init.stderr
    port = free_port()
    started = []
    try:
        for name in ("web", "collector"):
            argv, env = prepare(name, container(default, name)["command"])
            env |= {"JOBMON_BIND": f"127.0.0.1:{port}", "JOBMON_WORKERS": "1"}
            with (tmp_path / f"{name}.log").open("w") as log:
                started.append(subprocess.Popen(argv, env=env, cwd=ROOT, stderr=log))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container(default, "web")[probe]["httpGet"]["path"]
            eventually(lambda path=path: answers(port, path))
        check = container(default, "collector")["readinessProbe"]["exec"]["command"]
        eventually(lambda: run("collector", check).returncode == 0)
    finally:
        for process in started:
            assert end_process(process) == 0
