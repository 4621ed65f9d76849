"""The alerts of Prometheus, the example for Alertmanager and the dashboard of Grafana in `deploy/`.

Catches an alert that never fires or always fires, an alert without a section in the runbook, and a
panel with an unknown metric.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pytest
import yaml

from .api.test_queue_metrics import TALLY, Rollup, find_promtool, parse_samples, render_metrics
from .conftest import Api

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/jobmon.json"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}

Series = dict[str, str]  # a name with labels -> values in the form of promtool, one per minute
Labels = dict[str, str]
# `report_from_two_services` fills in $instance and $queue.
QUEUE_LABELS = 'job="jobmon",instance="$instance",queue="$queue"'
MAIL_LABELS = f'{QUEUE_LABELS},type="mail"'


def name_series(metric: str) -> str:
    return f"jobmon_{metric}{{{QUEUE_LABELS}}}"


def name_attempts(outcome: str) -> str:
    return f'jobmon_attempts_finished_total{{{MAIL_LABELS},outcome="{outcome}"}}'


def name_bucket(upper_bound_s: str) -> str:
    return f'jobmon_attempt_run_seconds_bucket{{{MAIL_LABELS},le="{upper_bound_s}"}}'


def name_jobs(status: str) -> str:
    return f'jobmon_jobs{{{MAIL_LABELS},status="{status}"}}'


BACKLOG_GROWS = name_series("backlog_grows")
COLLECTOR_UP = name_series("collector_up")
COUNTERS_AGE = name_series("counters_age_seconds")
DATABASE_READABLE = name_series("database_readable")
DATABASE_UP = name_series("database_up")
DEAD_LETTERED = f"jobmon_jobs_dead_lettered_total{{{MAIL_LABELS}}}"
DUE_JOBS = name_series("due_jobs")
ALL_PAUSED = name_series("due_jobs_all_paused")
ESTIMATED_JOBS = name_series("jobs_estimated")
EXPIRED_LEASES = name_series("expired_leases")
HISTORY_AGE = name_series("history_age_seconds")
STALLED = {DUE_JOBS: "5x90", name_attempts("succeeded"): "9x90"}
NEW_ERRORS = f'jobmon_error_groups{{{QUEUE_LABELS},status="new"}}'
NOTIFICATIONS_FAILING = f'jobmon_notifications_failing{{{QUEUE_LABELS},receiver="slack"}}'
OWN_DB_READABLE = name_series("own_database_readable")
QUEUE_SCRAPED = name_series("queue_scraped")


class AlertCase(NamedTuple):
    """An alert about a queue: series that fire, and the nearest series that do not."""

    firing: Series
    quiet: Series
    labels: Labels  # the alert's labels, without `job` and `queue`


CASES = {
    "JobmonQueueStalled": AlertCase(
        STALLED,
        {DUE_JOBS: "5x90", name_attempts("succeeded"): "0+1x90"},
        {},
    ),
    "JobmonBacklogGrowing": AlertCase({DUE_JOBS: "0+10x90"}, {DUE_JOBS: "300+1x90"}, {}),
    "JobmonBacklogDoesNotClear": AlertCase(
        {DUE_JOBS: "200x90", BACKLOG_GROWS: "1x90"},
        {DUE_JOBS: "200x90", BACKLOG_GROWS: "1x50 0 1x40"},
        {},
    ),
    "JobmonDeadLetters": AlertCase(
        {DEAD_LETTERED: "0x50 0+1x40"}, {DEAD_LETTERED: "3x90"}, {"type": "mail"}
    ),
    "JobmonNewErrors": AlertCase({NEW_ERRORS: "0x50 2x40"}, {NEW_ERRORS: "0x59 1x30"}, {}),
    "JobmonFailureRate": AlertCase(
        {name_attempts("succeeded"): "0+4x90", name_attempts("expired"): "0+2x90"},
        {name_attempts("succeeded"): "0+9x90", name_attempts("failed"): "0+1x90"},
        {"type": "mail"},
    ),
    "JobmonExpiredLeases": AlertCase({EXPIRED_LEASES: "1x90"}, {EXPIRED_LEASES: "0x57 1x30"}, {}),
    "JobmonSlowAttempts": AlertCase(
        {
            name_bucket("300.0"): "0+5x90",
            name_bucket("900.0"): "0+9x90",
            name_bucket("+Inf"): "0+9x90",
        },
        {
            name_bucket("300.0"): "0+9x90",
            name_bucket("900.0"): "0+9x90",
            name_bucket("+Inf"): "0+9x90",
        },
        {"type": "mail"},
    ),
    "JobmonCollectorAbsent": AlertCase(
        {COLLECTOR_UP: "0x90", DATABASE_UP: "1x90"}, {COLLECTOR_UP: "0x90", DATABASE_UP: "0x90"}, {}
    ),
    "JobmonCollectorLagging": AlertCase(
        {COUNTERS_AGE: "90x90", COLLECTOR_UP: "1x90"},
        {COUNTERS_AGE: "15x90", COLLECTOR_UP: "1x90"},
        {},
    ),
    "JobmonHistoryStalled": AlertCase(
        {HISTORY_AGE: "0x30 0+60x60", COLLECTOR_UP: "1x90"},
        {HISTORY_AGE: "15x90", COLLECTOR_UP: "1x90"},
        {},
    ),
    "JobmonStatisticsDiffer": AlertCase(
        {name_jobs("queued"): "500x90", name_jobs("dlq"): "300x90", ESTIMATED_JOBS: "1200x90"},
        {name_jobs("queued"): "500x90", name_jobs("dlq"): "300x90", ESTIMATED_JOBS: "950x90"},
        {},
    ),
    "JobmonOwnDatabaseUnreadable": AlertCase(
        {OWN_DB_READABLE: "0x90"}, {OWN_DB_READABLE: "1x90"}, {}
    ),
    "JobmonDatabaseUnreadable": AlertCase(
        {DATABASE_READABLE: "0x90", DATABASE_UP: "1x90"},
        {DATABASE_READABLE: "1x90", DATABASE_UP: "1x90"},
        {},
    ),
    "JobmonDatabaseDown": AlertCase({DATABASE_UP: "0x90"}, {DATABASE_UP: "1x90"}, {}),
    "JobmonQueueIncomplete": AlertCase(
        {QUEUE_SCRAPED: "0x90", DATABASE_UP: "1x90"},
        {QUEUE_SCRAPED: "1x90", DATABASE_UP: "1x90"},
        {},
    ),
    "JobmonNotificationsFailing": AlertCase(
        {NOTIFICATIONS_FAILING: "0x40 1x50"},
        {NOTIFICATIONS_FAILING: "0x50 1x40"},
        {"receiver": "slack"},
    ),
}


def report_from_two_services(series: Series, queue: str) -> Series:
    """The series of a queue, as two web services report them."""
    return {
        Template(name).substitute(queue=queue, instance=instance): values
        for name, values in series.items()
        for instance in ("a", "b")
    }


def build_alert(name: str, queue: str, more_labels: Labels) -> dict[str, Any]:
    """The alert that the rule `name` sends for a queue, in promtool's form."""
    rule = ALERTS[name]
    labels = {"job": "jobmon", "queue": queue, **more_labels}
    texts = {}
    for key, text in rule["annotations"].items():
        texts[key] = re.sub(r"{{ \$labels\.(\w+) }}", lambda match: labels[match[1]], text)
    return {"exp_labels": labels | rule["labels"], "exp_annotations": texts}


def build_unit_test(name: str, series: Series, alerts: list[dict[str, Any]]) -> dict[str, Any]:
    """A test for promtool: from these series, the rule `name` must send exactly these alerts."""

    def add_step(values: str) -> str:
        """`5+0x90` for `5x90`: promtool requires a step."""
        return re.sub(r"(^| )(\d+)x", r"\1\2+0x", values)

    # JobmonBacklogGrowing compares with an hour ago, and must hold for a quarter of an hour.
    evaluated_at = "80m" if name == "JobmonBacklogGrowing" else "60m"
    return {
        "interval": "1m",
        "input_series": [
            {"series": series_name, "values": add_step(values)}
            for series_name, values in series.items()
        ],
        "alert_rule_test": [{"eval_time": evaluated_at, "alertname": name, "exp_alerts": alerts}],
    }


def test_each_alert_fires_only_for_queues_above_its_limit(tmp_path: Path) -> None:
    """Catches an alert that another queue hides or causes, also a queue with the same name in
    another Prometheus job, and an alert that each web service repeats."""
    tests = []
    for name, case in CASES.items():
        queues = {"mails": case.firing, "payouts": case.firing, "reports": case.quiet}
        # Another Prometheus job has a queue with the name of one that fires.
        series = {
            name.replace('job="jobmon"', 'job="staging"'): values
            for name, values in report_from_two_services(case.quiet, "mails").items()
        }
        for queue, queue_series in queues.items():
            series |= report_from_two_services(queue_series, queue)
        alerts = [build_alert(name, queue, case.labels) for queue in ("mails", "payouts")]
        tests.append(build_unit_test(name, series, alerts))
    run_promtool(tmp_path, tests)


def test_summary_of_an_alert_about_a_queue_begins_with_the_queue() -> None:
    for name in CASES:
        assert ALERTS[name]["annotations"]["summary"].startswith("Queue {{ $labels.queue }}: ")


def test_unreachable_services_cause_alerts_with_any_job_name(tmp_path: Path) -> None:
    """Catches a Prometheus job without alerts because of its name, or because another job is up."""

    def name_up(job: str, instance: str) -> str:
        return f'up{{job="{job}",app="jobmon",instance="{instance}"}}'

    def build_down_alert(name: str, text: str, **labels: str) -> list[dict[str, Any]]:
        rule = ALERTS[name]
        summary = f"Prometheus cannot scrape jobmon{text}."
        annotations = rule["annotations"] | {"summary": summary}
        return [{"exp_labels": labels | rule["labels"], "exp_annotations": annotations}]

    shop_a, shop_b = name_up("shop/jobmon", "a"), name_up("shop/jobmon", "b")
    crm = name_up("crm/monitor", "a")
    not_jobmon = 'up{job="web",instance="a"}'
    job_down = build_down_alert("JobmonDown", ": job shop/jobmon", job="shop/jobmon")
    instance_down = build_down_alert(
        "JobmonInstanceDown",
        " at a (job shop/jobmon). Other web services of the job answer",
        job="shop/jobmon",
        instance="a",
        app="jobmon",
    )
    # Series, and the alerts of JobmonDown and of JobmonInstanceDown.
    cases: list[tuple[Series, list[dict[str, Any]], list[dict[str, Any]]]] = [
        ({shop_a: "1x90", shop_b: "1x90", crm: "1x90", not_jobmon: "0x90"}, [], []),
        ({shop_a: "0x90", shop_b: "1x90", crm: "1x90"}, [], instance_down),
        ({shop_a: "0x90", shop_b: "0x90", crm: "1x90"}, job_down, []),
        ({shop_a: "1x40 stale", shop_b: "1x40 stale", crm: "1x90"}, job_down, []),
        ({shop_a: "1x40 stale", shop_b: "1x90"}, [], []),  # a pod was replaced
        ({not_jobmon: "1x90"}, build_down_alert("JobmonDown", "", app="jobmon"), []),
    ]
    tests = []
    for series, job_alerts, instance_alerts in cases:
        tests.append(build_unit_test("JobmonDown", series, job_alerts))
        tests.append(build_unit_test("JobmonInstanceDown", series, instance_alerts))
    run_promtool(tmp_path, tests)


def run_promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> None:
    """Run each test with its own rule only: promtool evaluates every rule of a file each minute."""
    tests_by_alert: dict[str, list[dict[str, Any]]] = {}
    for test in tests:
        tests_by_alert.setdefault(test["alert_rule_test"][0]["alertname"], []).append(test)
    files = []
    for name, alert_tests in tests_by_alert.items():
        rules, file = tmp_path / f"{name}.yml", tmp_path / f"{name}.test.yml"
        group = {"name": "jobmon", "rules": [ALERTS[name]]}
        rules.write_text(yaml.safe_dump({"groups": [group]}))
        file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": alert_tests}))
        files.append(str(file))
    process = subprocess.run(
        [find_promtool(), "test", "rules", *files], check=False, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


# The alert, its series, and whether it fires.
UNUSUAL_CASES: list[tuple[str, Series, bool]] = [
    ("JobmonQueueStalled", STALLED | {COUNTERS_AGE: "15x90"}, True),
    ("JobmonQueueStalled", STALLED | {COUNTERS_AGE: "15x40 0+60x50"}, False),  # no collector
    ("JobmonQueueStalled", STALLED | {ALL_PAUSED: "0x90"}, True),
    ("JobmonQueueStalled", STALLED | {ALL_PAUSED: "1x90"}, False),
    ("JobmonHistoryStalled", {COLLECTOR_UP: "1x90"}, True),  # the history was never counted
    ("JobmonHistoryStalled", {COLLECTOR_UP: "0x90", HISTORY_AGE: "900x90"}, False),
    ("JobmonHistoryStalled", {}, False),
    ("JobmonStatisticsDiffer", {name_jobs("queued"): "0x90", ESTIMATED_JOBS: "900x90"}, True),
    ("JobmonStatisticsDiffer", {name_jobs("queued"): "9000x90", ESTIMATED_JOBS: "900x90"}, True),
    ("JobmonStatisticsDiffer", {name_jobs("queued"): "9x90", ESTIMATED_JOBS: "90x90"}, False),
    ("JobmonStatisticsDiffer", {ESTIMATED_JOBS: "90000x90"}, False),  # no statistics
    ("JobmonDatabaseUnreadable", {DATABASE_UP: "0x90"}, False),  # nobody knows if it is readable
    ("JobmonCollectorAbsent", {DATABASE_UP: "1x90", OWN_DB_READABLE: "0x90"}, False),
    ("JobmonCollectorLagging", {COLLECTOR_UP: "1x90"}, False),
    ("JobmonQueueIncomplete", {QUEUE_SCRAPED: "0x90"}, True),  # nobody knows if the database is up
    ("JobmonQueueIncomplete", {QUEUE_SCRAPED: "0x90", DATABASE_UP: "0x90"}, False),
]


def test_alerts_handle_missing_series_and_extreme_values(tmp_path: Path) -> None:
    tests = [
        build_unit_test(
            name,
            report_from_two_services(series, "mails"),
            [build_alert(name, "mails", {})] if is_firing else [],
        )
        for name, series, is_firing in UNUSUAL_CASES
    ]
    run_promtool(tmp_path, tests)


def test_each_alert_has_a_case() -> None:
    assert {*CASES, "JobmonDown", "JobmonInstanceDown"} == set(ALERTS)


def test_prometheus_configuration_passes_promtool(tmp_path: Path) -> None:
    config = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    token = tmp_path / "token"
    token.touch()
    (tmp_path / "alerts.yml").write_text(RULES.read_text())
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace("/run/secrets/metrics_token", str(token)))
    process = subprocess.run(
        [find_promtool(), "check", "config", str(file)], check=False, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


def run_amtool(*arguments: str) -> str:
    """The output of `amtool`, Alertmanager's command, which must succeed."""
    tool = shutil.which("amtool")
    if tool is None:
        assert not os.environ.get("CI"), (
            "amtool is missing: apt-get install prometheus-alertmanager"
        )
        pytest.skip("no amtool")
    process = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "channel")])
def test_alertmanager_example_routes_alerts_by_severity(severity: str, receiver: str) -> None:
    file = str(ROOT / "deploy/prometheus/alertmanager.yml")
    run_amtool("check-config", file)
    labels = (f"severity={severity}", "alertname=JobmonDeadLetters", "job=jobmon")
    receivers = run_amtool("config", "routes", "test", f"--config.file={file}", *labels)
    assert receivers.split() == [receiver]
    assert severity in {rule["labels"]["severity"] for rule in ALERTS.values()}


def test_alertmanager_example_names_alerts_that_exist() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/alertmanager.yml").read_text())
    (inhibition,) = config["inhibit_rules"]
    names = re.findall(r"Jobmon\w+", " ".join(inhibition["source_matchers"]))
    assert names
    assert set(names) <= set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_annotations_link_to_the_runbook_section(alert: str) -> None:
    path, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert alert in headings
    assert anchor == alert.lower()


def list_exposed_metrics(api: Api) -> set[str]:
    """The names of all samples that a scrape can have; Prometheus itself adds `up`."""
    api.get_as_admin("/admin/jobs/stats")
    service = api.get_as_admin("/metrics").text
    queue = render_metrics(Rollup({("queued", "mail"): 1}, {"mail": TALLY}))
    return {name for text in (service, queue) for name, _ in parse_samples(text)} | {"up"}


def find_metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:jobmon_\w+|up)\b(?=[{\[) ]|$)", expression))


def read_panel_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_panels_use_only_exposed_metrics(api: Api) -> None:
    exposed = list_exposed_metrics(api)
    for expression in (*read_panel_expressions(), *(rule["expr"] for rule in ALERTS.values())):
        names = find_metrics(expression)
        assert names, expression
        assert names <= exposed, expression


def test_dashboard_can_be_imported_into_any_grafana() -> None:
    """Catches a data source that exists only in the compose file's Grafana."""
    dashboard = json.loads(DASHBOARD.read_text())
    source, job, queue = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for variable, query in (
        (job, "label_values(jobmon_queue_scraped, job)"),
        (queue, 'label_values(jobmon_queue_scraped{job=~"$job"}, queue)'),
    ):
        assert (variable["multi"], variable["includeAll"]) == (True, True)
        assert variable["query"]["query"] == query
    parts = [job, queue, *dashboard["panels"]]
    parts += [target for panel in dashboard["panels"] for target in panel["targets"]]
    for part in parts:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_filter_and_group_by_job_and_queue(tmp_path: Path) -> None:
    """Catches an expression that Prometheus refuses, or that includes a queue nobody selected."""
    rules = []
    for expression in read_panel_expressions():
        filters = re.findall(
            r'\bjobmon_(?!http_)\w+({job=~"\$job",queue=~"\$queue"[,}])?', expression
        )
        assert all(filters), expression
        assert all(re.findall(r'\bjobmon_http_\w+({job=~"\$job"})?', expression)), expression
        # Each web service has series of the same queues: `max by` or `min by` keeps one of them.
        for grouping in re.findall(r"(?:max|min) by \(([^)]+)\)", expression):
            assert {"job", "queue"} <= set(grouping.split(", ")), expression
        filled_in = expression.replace("$queue", ".*").replace("$job", ".*")
        rules.append({"record": f"panel:{len(rules)}", "expr": filled_in})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    process = subprocess.run(
        [find_promtool(), "check", "rules", str(file)], check=False, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_metrics_table_has_exactly_the_exposed_metrics(api: Api) -> None:
    documented = set(
        re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in list_exposed_metrics(api)}
    assert documented == families - {"up"}
