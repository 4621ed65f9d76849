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
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pymongo.database import Database

from jobmon.demo.mongod import Mongod, free_port
from jobmon.serving.gunicorn_config import graceful_timeout

from .api.test_queue_metrics import find_promtool
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
# Kubernetes: the oldest version of the chart, and the newest one of `kubernetes_validate`.
VERSIONS = ("1.27", kubernetes_validate.latest_version())
COMPONENTS = ("web", "collector", "actor", "init")
WORKLOADS = ("Deployment", "Job")

# Values that turn on every optional object, and set values that all pods get.
ALL_OPTIONS = {
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

Object = dict[str, Any]
Objects = list[Object]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm; if it is missing, skip the test, or fail in CI."""
    tool = shutil.which("helm") or shutil.which("helm", path=str(Path(sys.executable).parent))
    if tool is None:
        assert not os.environ.get("CI"), "helm is missing: make .venv/bin/helm"
        pytest.skip("helm is missing: make .venv/bin/helm")
    return subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)


def render(values: dict[str, str] | None = None, release: str = "jobmon", *files: str) -> Objects:
    """The objects of the chart with these values; `files` are `NAME=PATH` of values in files."""
    options = [f"--set={name}={value}" for name, value in (values or {}).items()]
    options += [f"--set-file={file}" for file in files]
    process = run_helm("template", release, str(CHART), "--namespace", "tools", *options)
    assert process.returncode == 0, process.stderr
    return [document for document in yaml.safe_load_all(process.stdout) if document]


@pytest.fixture(scope="module")
def default_objects() -> Objects:
    """The objects of the chart with its default values."""
    return render()


@pytest.fixture(scope="module")
def all_objects() -> Objects:
    """The objects of the chart with all options."""
    return render(ALL_OPTIONS)


def get_component(manifest: Object) -> str:
    name: str = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


def get_pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The specs of the pods, by component."""
    return {
        get_component(manifest): manifest["spec"]["template"]["spec"]
        for manifest in objects
        if manifest["kind"] in WORKLOADS
    }


def get_container(objects: Objects, component: str) -> dict[str, Any]:
    container: dict[str, Any]
    (container,) = get_pods(objects)[component]["containers"]
    return container


def get_object(objects: Objects, kind: str, component: str = "web") -> Object:
    """The only object of a kind in a component."""
    (manifest,) = (
        manifest
        for manifest in objects
        if manifest["kind"] == kind and get_component(manifest) == component
    )
    return manifest


def test_chart_passes_helm_lint() -> None:
    process = run_helm("lint", "--strict", str(CHART))
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("values", [{}, ALL_OPTIONS], ids=["default", "all options"])
@pytest.mark.parametrize("version", VERSIONS)
def test_objects_match_the_schemas_of_kubernetes(values: dict[str, str], version: str) -> None:
    """Catches a misspelled field, which Kubernetes would ignore or refuse."""
    # Kubernetes has no schemas for the objects of the Prometheus operator.
    objects = [
        manifest
        for manifest in render(values)
        if not manifest["apiVersion"].startswith("monitoring.")
    ]
    assert len(objects) >= 9
    for manifest in objects:
        kubernetes_validate.validate(manifest, version, strict=True)


def read_lines_with_text(file: Path) -> list[str]:
    """The lines of a file without empty lines, which depend on Helm's version."""
    return [line for line in file.read_text().splitlines() if line.strip()]


def test_plain_manifests_equal_the_objects_of_the_chart(tmp_path: Path) -> None:
    """Catches a change of the chart without `make manifests`."""
    options = ("--namespace", "jobmon", "--set", "init.hook=false", "--output-dir", str(tmp_path))
    assert " ".join(options[:4]) in (ROOT / "Makefile").read_text()
    process = run_helm("template", "jobmon", str(CHART), *options)
    assert process.returncode == 0, process.stderr
    rendered = {file.name: file for file in (tmp_path / "jobmon/templates").iterdir()}
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    files = {file.name for file in MANIFESTS.iterdir()} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"]) == {*rendered, "namespace.yaml"}
    for name, file in rendered.items():
        assert read_lines_with_text(MANIFESTS / name) == read_lines_with_text(file), name


def test_namespace_of_the_plain_manifests_enforces_pod_security_restricted() -> None:
    namespace = yaml.safe_load((MANIFESTS / "namespace.yaml").read_text())
    kubernetes_validate.validate(namespace, VERSIONS[-1], strict=True)
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("name", COMPONENTS)
def test_pod_meets_pod_security_restricted(all_objects: Objects, name: str) -> None:
    """The rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = get_pods(all_objects)[name]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert all("hostPort" not in port for port in container.get("ports", []))
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir"}
    # The profile does not require these:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # a link's JOBMON_PORT looks like a setting
    assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize("name", COMPONENTS)
def test_pod_runs_the_command_of_the_compose_service(all_objects: Objects, name: str) -> None:
    """Catches a pod whose command or folder in memory differs from the compose file's."""
    pod, container = get_pods(all_objects)[name], get_container(all_objects, name)
    service = COMPOSE[name]
    if name == "init":  # the chart expects an existing queue: no replica set, no new collections
        assert container["command"][:2] == service["command"][:2]
        assert "--reader jobmon --collector collector" in " ".join(service["command"])
        assert container["command"][2:] == [
            *("--reader", "jobmon", "--collector", "collector", "--actor", "actor")
        ]
    else:
        assert container["command"] == service.get("command", ["gunicorn", "wsgi:app"])
    assert pod["shareProcessNamespace"] is service["init"]  # so Python is not process 1
    assert service["tmpfs"] == ["/tmp:size=64m"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    memory = {"medium": "Memory", "sizeLimit": "64Mi"}
    assert {"name": "tmp", "emptyDir": memory} in pod["volumes"]


def test_probes_check_liveness_and_readiness(default_objects: Objects) -> None:
    web, collector = (get_container(default_objects, name) for name in ("web", "collector"))
    paths = {
        probe: web[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    check = COMPOSE["collector"]["healthcheck"]["test"][1:]
    assert collector["readinessProbe"]["exec"]["command"] == check
    for probe in (collector["startupProbe"], collector["livenessProbe"]):
        assert probe["exec"]["command"] == ["jobmon", "collector", "--check-liveness"]
        # A collector must not be ended while a slow MongoDB delays it for up to 15 minutes.
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 900


def test_replaced_web_pod_has_time_to_answer_all_requests(default_objects: Objects) -> None:
    """Catches requests that are lost when a pod is replaced or a node is drained."""
    container, pod = get_container(default_objects, "web"), get_pods(default_objects)["web"]
    script = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    (delay_s,) = re.findall(r"sleep\((\d+)\)", script)
    assert pod["terminationGracePeriodSeconds"] > int(delay_s) + graceful_timeout
    deployment = get_object(default_objects, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = get_object(default_objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_each_process_has_only_its_own_secret(all_objects: Objects) -> None:
    """Catches a web service that gets the rights of the actor."""
    for name in COMPONENTS:
        sources = get_container(all_objects, name)["envFrom"]
        assert sources == [{"secretRef": {"name": f"jobmon-{name}"}}]
    assert "Secret" not in {manifest["kind"] for manifest in all_objects}


def test_actor_is_off_by_default_and_turns_actions_on(
    default_objects: Objects, all_objects: Objects
) -> None:
    assert set(get_pods(default_objects)) == {"web", "collector", "init"}
    assert "--actor" not in get_container(default_objects, "init")["command"]

    def has_actions(objects: Objects, name: str) -> bool:
        variables = get_container(objects, name).get("env", [])
        return {"name": "JOBMON_ACTIONS", "value": "true"} in variables

    assert not has_actions(default_objects, "web")
    assert not has_actions(default_objects, "collector")
    # Without it, the collector's notifications would report paused types as stalled.
    for name in ("web", "collector", "actor"):
        assert has_actions(all_objects, name)
    assert not has_actions(all_objects, "init")


def test_ingress_path_is_the_path_prefix_of_the_web_service(
    default_objects: Objects, all_objects: Objects
) -> None:
    """Catches links without the path prefix: another service of the host would answer them."""
    (rule,) = get_object(all_objects, "Ingress")["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/jobmon"]
    prefix = {"name": "JOBMON_PATH_PREFIX", "value": "/jobmon"}
    assert prefix in get_container(all_objects, "web")["env"]
    assert "env" not in get_container(default_objects, "web")


def test_ingress_in_the_docs_equals_the_ingress_of_the_chart() -> None:
    (block,) = read_blocks("yaml", "Kubernetes")
    ingress = yaml.safe_load(block)
    for version in VERSIONS:
        kubernetes_validate.validate(ingress, version, strict=True)
    values = {"ingress.enabled": "true", "ingress.host": "tools.example", "ingress.path": "/jobmon"}
    assert ingress["spec"] == get_object(render(values), "Ingress")["spec"]


def test_settings_and_files_reach_every_process(all_objects: Objects) -> None:
    """Catches a number rendered as 2e+06, and a hook that needs an object before it exists."""
    for name in COMPONENTS:
        container, pod = get_container(all_objects, name), get_pods(all_objects)[name]
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        assert env["JOBMON_STATS_TTL_MS"] == "2000000"
        assert env["JOBMON_RULES"] == "/etc/jobmon/rules.toml"
        assert env["JOBMON_QUEUES"] == "/etc/jobmon/./queues.toml"  # as set, not the default path
        (files,) = (volume for volume in pod["volumes"] if volume["name"] == "files")
        (config_map,) = (
            manifest
            for manifest in all_objects
            if manifest["kind"] == "ConfigMap"
            and manifest["metadata"]["name"] == files["configMap"]["name"]
        )
        texts = {"queues.toml": "[orders]", "rules.toml": "failure_rate = 0.3"}
        assert config_map["data"] == texts
        is_hook = "helm.sh/hook" in config_map["metadata"].get("annotations", {})
        assert is_hook is (name == "init")


def test_init_runs_before_all_other_objects_change(all_objects: Objects) -> None:
    annotations = {
        manifest["kind"]: manifest["metadata"]["annotations"]
        for manifest in all_objects
        if "helm.sh/hook" in manifest["metadata"].get("annotations", {})
    }
    assert set(annotations) == {"Job", "ConfigMap", "NetworkPolicy"}
    hooks = {values["helm.sh/hook"] for values in annotations.values()}
    assert hooks == {"pre-install,pre-upgrade"}
    weights = {kind: int(values["helm.sh/hook-weight"]) for kind, values in annotations.items()}
    assert weights["Job"] > max(weights["ConfigMap"], weights["NetworkPolicy"])
    pod = get_pods(all_objects)["init"]
    assert "serviceAccountName" not in pod  # the account does not exist yet
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", COMPONENTS)
def test_network_policy_allows_only_what_the_process_needs(all_objects: Objects, name: str) -> None:
    spec = get_object(all_objects, "NetworkPolicy", name)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {53, 27017}
    if name != "web":
        assert "ingress" not in spec
        return
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]


def test_selectors_match_only_the_pods_of_their_component(all_objects: Objects) -> None:
    pod_labels = {
        get_component(manifest): manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in all_objects
        if manifest["kind"] in WORKLOADS
    }
    for manifest in all_objects:
        spec = manifest.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        if required := selector.get("matchLabels", selector):
            matched = {
                component
                for component, labels in pod_labels.items()
                if required.items() <= labels.items()
            }
            assert matched == {get_component(manifest)}, manifest["metadata"]


def test_service_monitor_gives_targets_the_labels_of_the_rules(all_objects: Objects) -> None:
    """Catches a target without the label in JobmonDown's rule, and releases with one job label."""
    (endpoint,) = get_object(all_objects, "ServiceMonitor")["spec"]["endpoints"]
    service = get_object(all_objects, "Service")
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    labels = {rule["targetLabel"]: rule["replacement"] for rule in endpoint["relabelings"]}
    assert labels == {"app": "jobmon", "job": "tools/jobmon"}
    assert 'up{app="jobmon"}' in RULES.read_text()
    crm_objects = render(ALL_OPTIONS, release="crm")
    (endpoint,) = get_object(crm_objects, "ServiceMonitor")["spec"]["endpoints"]
    assert {"targetLabel": "job", "replacement": "tools/crm-jobmon"} in endpoint["relabelings"]


def test_config_map_for_grafana_has_the_shipped_dashboard(all_objects: Objects) -> None:
    config_map = get_object(all_objects, "ConfigMap")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    shipped = (ROOT / "deploy/grafana/dashboards/jobmon.json").read_text()
    assert json.loads(config_map["data"]["jobmon.json"]) == json.loads(shipped)


def test_prometheus_rule_has_the_shipped_alerts_with_links(tmp_path: Path) -> None:
    link = "https://git.example.com/jobmon/runbook.md"
    values = ALL_OPTIONS | {"monitoring.prometheusRule.runbookUrl": link}
    spec = get_object(render(values), "PrometheusRule")["spec"]
    shipped = yaml.safe_load(RULES.read_text().replace("docs/runbook.md", link))
    assert spec == shipped
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(spec))
    command = [find_promtool(), "check", "rules", str(file)]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_prometheus_rule_can_have_the_rules_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yml"
    rule = {
        "alert": "Own",
        "expr": "up == 0",
        "annotations": {"summary": "{{ $labels.job }}, down"},
    }
    file.write_text(yaml.safe_dump({"groups": [{"name": "own", "rules": [rule]}]}))
    objects = render(ALL_OPTIONS, "jobmon", f"monitoring.prometheusRule.file={file}")
    assert get_object(objects, "PrometheusRule")["spec"] == yaml.safe_load(file.read_text())


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
    process = run_helm("template", "jobmon", str(CHART), "--set", option)
    assert process.returncode != 0
    assert message in process.stderr


def test_schema_has_exactly_the_values_of_the_chart() -> None:
    """Catches a new value that nobody can set, because the schema does not know it."""
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
def secrets(mongod: Mongod, database: Database[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The contents of each secret in docs/kubernetes.md, and the names of this test's databases."""

    def build_uri(user: str) -> str:
        address = database_uri(mongod, database).partition("://")[2]
        return f"mongodb://{user}:{user}pw@{address}"

    own_databases = {
        "JOBMON_ROLLUP_DB": f"{database.name}_rollups",
        "JOBMON_STATE_DB": f"{database.name}_state",
    }
    return {
        "jobmon-init": own_databases
        | {
            "JOBMON_ADMIN_MONGO_URI": database_uri(mongod, database),
            "JOBMON_READER_PASSWORD": "jobmonpw",
            "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
        },
        "jobmon-web": own_databases
        | {"JOBMON_MONGO_URI": build_uri("jobmon"), "JOBMON_JWT_SECRET_KEY": SECRET},
        "jobmon-collector": own_databases | {"JOBMON_MONGO_URI": build_uri("collector")},
    }


def probe_succeeds(port: int, path: str) -> bool:
    """Whether an HTTP probe of this path succeeds."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.long
def test_commands_and_probes_of_the_pods_work_with_their_secrets(
    default_objects: Objects, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Catches a secret without a key that a process needs, and a probe that never succeeds."""
    containers = {name: get_container(default_objects, name) for name in get_pods(default_objects)}

    def build_environment(name: str) -> dict[str, str]:
        (source,) = containers[name]["envFrom"]
        folder = str(Path(sys.executable).parent)
        return {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            **secrets[source["secretRef"]["name"]],
        }

    def run(name: str, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            env=build_environment(name),
            cwd=tmp_path,
            check=False,
            capture_output=True,
            timeout=PATIENCE_S,
        )

    init = run("init", [*containers["init"]["command"], "--create"])
    assert init.returncode == 0, init.stdout + init.stderr
    port = free_port()
    processes = []
    try:
        for name in ("web", "collector"):
            env = build_environment(name)
            env |= {"JOBMON_BIND": f"127.0.0.1:{port}", "JOBMON_WORKERS": "1"}
            command = containers[name]["command"]
            with (tmp_path / f"{name}.log").open("w") as log:
                processes.append(subprocess.Popen(command, env=env, cwd=ROOT, stderr=log))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = containers["web"][probe]["httpGet"]["path"]
            eventually(lambda path=path: probe_succeeds(port, path))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            check = containers["collector"][probe]["exec"]["command"]
            eventually(lambda check=check: run("collector", check).returncode == 0)
    finally:
        for process in processes:
            assert end_process(process) == 0
