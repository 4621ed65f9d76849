"""Prometheus's rules, Alertmanager's example and Grafana's dashboard in `deploy/`.

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
from typing import Any

import pytest
import yaml

from .api.test_queue_metrics import TALLY, Rollup, promtool, render_metrics, samples
from .conftest import Api

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/jobmon.json"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}

Series = dict[str, str]
Labels = dict[str, str]
SERVICE = 'job="jobmon",instance="$instance",queue="$queue"'
MAIL = f'{SERVICE},type="mail"'
FINISHED, DEAD = "jobmon_attempts_finished_total", "jobmon_jobs_dead_lettered_total"


def series_of_service(name: str) -> str:
    return f"{name}{{{SERVICE}}}"


def attempts(outcome: str) -> str:
    return f'{FINISHED}{{{MAIL},outcome="{outcome}"}}'


def run_time_bucket(seconds: str) -> str:
    return f'jobmon_attempt_run_seconds_bucket{{{MAIL},le="{seconds}"}}'


DUE, COLLECTOR, DATABASE = (
    series_of_service(f"jobmon_{name}") for name in ("due_jobs", "collector_up", "database_up")
)
GROWS = series_of_service("jobmon_backlog_grows")
NEW_ERRORS = f'jobmon_error_groups{{{SERVICE},status="new"}}'
FAILING = f'jobmon_notifications_failing{{{SERVICE},receiver="slack"}}'
AGE, LEASES = (
    series_of_service("jobmon_counters_age_seconds"),
    series_of_service("jobmon_expired_leases"),
)
HISTORY, ESTIMATED = (
    series_of_service("jobmon_history_age_seconds"),
    series_of_service("jobmon_jobs_estimated"),
)
READABLE, OWN, SCRAPED = (
    series_of_service("jobmon_database_readable"),
    series_of_service("jobmon_own_database_readable"),
    series_of_service("jobmon_queue_scraped"),
)


def jobs(status: str) -> str:
    return f'jobmon_jobs{{{MAIL},status="{status}"}}'


# For each alert about a queue: series that fire, the nearest series that do not fire, and the
# labels that the alert adds. A series has one value a minute; the 60th minute is evaluated.
CASES: dict[str, tuple[Series, Series, Labels]] = {
    "JobmonQueueStalled": (
        {DUE: "5x90", attempts("succeeded"): "9x90"},
        {DUE: "5x90", attempts("succeeded"): "0+1x90"},
        {},
    ),
    "JobmonBacklogGrowing": ({DUE: "0+10x90"}, {DUE: "300+1x90"}, {}),
    "JobmonBacklogDoesNotClear": (
        {DUE: "200x90", GROWS: "1x90"},
        {DUE: "200x90", GROWS: "1x50 0 1x40"},
        {},
    ),
    "JobmonDeadLetters": (
        {f"{DEAD}{{{MAIL}}}": "0x50 0+1x40"},
        {f"{DEAD}{{{MAIL}}}": "3x90"},
        {"type": "mail"},
    ),
    "JobmonNewErrors": ({NEW_ERRORS: "0x50 2x40"}, {NEW_ERRORS: "0x59 1x30"}, {}),
    "JobmonFailureRate": (
        {attempts("succeeded"): "0+4x90", attempts("expired"): "0+2x90"},
        {attempts("succeeded"): "0+9x90", attempts("failed"): "0+1x90"},
        {"type": "mail"},
    ),
    "JobmonExpiredLeases": ({LEASES: "1x90"}, {LEASES: "0x57 1x30"}, {}),
    "JobmonSlowAttempts": (
        {
            run_time_bucket("300.0"): "0+5x90",
            run_time_bucket("900.0"): "0+9x90",
            run_time_bucket("+Inf"): "0+9x90",
        },
        {
            run_time_bucket("300.0"): "0+9x90",
            run_time_bucket("900.0"): "0+9x90",
            run_time_bucket("+Inf"): "0+9x90",
        },
        {"type": "mail"},
    ),
    "JobmonCollectorAbsent": (
        {COLLECTOR: "0x90", DATABASE: "1x90"},
        {COLLECTOR: "0x90", DATABASE: "0x90"},
        {},
    ),
    "JobmonCollectorLagging": (
        {AGE: "90x90", COLLECTOR: "1x90"},
        {AGE: "15x90", COLLECTOR: "1x90"},
        {},
    ),
    "JobmonHistoryStalled": (
        {HISTORY: "0x30 0+60x60", COLLECTOR: "1x90"},
        {HISTORY: "15x90", COLLECTOR: "1x90"},
        {},
    ),
    "JobmonStatisticsDiffer": (
        {jobs("queued"): "500x90", jobs("dlq"): "300x90", ESTIMATED: "1200x90"},
        {jobs("queued"): "500x90", jobs("dlq"): "300x90", ESTIMATED: "950x90"},
        {},
    ),
    "JobmonOwnDatabaseUnreadable": ({OWN: "0x90"}, {OWN: "1x90"}, {}),
    "JobmonDatabaseUnreadable": (
        {READABLE: "0x90", DATABASE: "1x90"},
        {READABLE: "1x90", DATABASE: "1x90"},
        {},
    ),
    "JobmonDatabaseDown": ({DATABASE: "0x90"}, {DATABASE: "1x90"}, {}),
    "JobmonQueueIncomplete": (
        {SCRAPED: "0x90", DATABASE: "1x90"},
        {SCRAPED: "1x90", DATABASE: "1x90"},
        {},
    ),
    "JobmonNotificationsFailing": (
        {FAILING: "0x40 1x50"},
        {FAILING: "0x50 1x40"},
        {"receiver": "slack"},
    ),
}


def from_two_services(series: Series, queue: str) -> Series:
    """The series of a queue, as two web services report them."""
    return {
        Template(name).substitute(queue=queue, instance=instance): values
        for name, values in series.items()
        for instance in ("a", "b")
    }


def expected_alert(name: str, queue: str, added: Labels) -> dict[str, Any]:
    """The alert that the rule sends for a queue, in promtool's form."""
    rule = ALERTS[name]
    labels = {"job": "jobmon", "queue": queue, **added}
    texts = {}
    for key, text in rule["annotations"].items():
        texts[key] = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)
    return {"exp_labels": labels | rule["labels"], "exp_annotations": texts}


def unit_test(alert: str, series: Series, expected: list[dict[str, Any]]) -> dict[str, Any]:
    """A test for promtool: the series must cause exactly the expected alerts."""

    def values(short: str) -> str:
        """`5x90` is ninety times 5; promtool requires a step, `5+0x90`."""
        return re.sub(r"(^| )(\d+)x", r"\1\2+0x", short)

    # JobmonBacklogGrowing compares with an hour ago, and must hold for a quarter of an hour.
    evaluated_at = "80m" if alert == "JobmonBacklogGrowing" else "60m"
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values(short)} for name, short in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": evaluated_at, "alertname": alert, "exp_alerts": expected}
        ],
    }


def test_alerts_near_their_limit_fire_only_above_it(tmp_path: Path) -> None:
    """Catches an alert that another queue hides or causes, or that each web service repeats."""
    tests = []
    for name, (firing, quiet, added) in CASES.items():
        queues = {"mails": firing, "payouts": firing, "reports": quiet}
        series: Series = {}
        for queue, of_queue in queues.items():
            series |= from_two_services(of_queue, queue)
        expected = [expected_alert(name, queue, added) for queue in ("mails", "payouts")]
        tests.append(unit_test(name, series, expected))
    run_promtool(tmp_path, tests)


def test_alerts_about_a_queue_name_it() -> None:
    for name in CASES:
        assert ALERTS[name]["annotations"]["summary"].startswith("Queue {{ $labels.queue }}: ")


def test_unreachable_services_have_alerts_whatever_their_job_is_called(tmp_path: Path) -> None:
    """Catches a job that has no alert because of its name, or because another job is up."""

    def up(job: str, instance: str) -> str:
        return f'up{{job="{job}",app="jobmon",instance="{instance}"}}'

    def alert(name: str, text: str, **labels: str) -> list[dict[str, Any]]:
        rule = ALERTS[name]
        summary = f"Prometheus cannot scrape jobmon{text}."
        annotations = rule["annotations"] | {"summary": summary}
        return [{"exp_labels": labels | rule["labels"], "exp_annotations": annotations}]

    shop, second, crm = up("shop/jobmon", "a"), up("shop/jobmon", "b"), up("crm/monitor", "a")
    foreign = 'up{job="web",instance="a"}'
    down = alert("JobmonDown", ": job shop/jobmon", job="shop/jobmon")
    one_down = alert(
        "JobmonInstanceDown",
        " at a (job shop/jobmon). Other web services of the job answer",
        job="shop/jobmon",
        instance="a",
        app="jobmon",
    )
    cases: list[tuple[Series, list[dict[str, Any]], list[dict[str, Any]]]] = [
        ({shop: "1x90", second: "1x90", crm: "1x90", foreign: "0x90"}, [], []),
        ({shop: "0x90", second: "1x90", crm: "1x90"}, [], one_down),
        ({shop: "0x90", second: "0x90", crm: "1x90"}, down, []),
        ({shop: "1x40 stale", second: "1x40 stale", crm: "1x90"}, down, []),
        ({shop: "1x40 stale", second: "1x90"}, [], []),  # a pod was replaced
        ({foreign: "1x90"}, alert("JobmonDown", "", app="jobmon"), []),
    ]
    tests = []
    for series, all_down, some_down in cases:
        tests.append(unit_test("JobmonDown", series, all_down))
        tests.append(unit_test("JobmonInstanceDown", series, some_down))
    run_promtool(tmp_path, tests)


def test_alerts_of_several_jobs_are_kept_apart(tmp_path: Path) -> None:
    """Catches a rule that counts queues of one name in several jobs as one queue."""
    tests = []
    for name, (firing, quiet, added) in CASES.items():
        series = from_two_services(firing, "mails") | {
            series.replace('job="jobmon"', 'job="staging"'): values
            for series, values in from_two_services(quiet, "mails").items()
        }
        tests.append(unit_test(name, series, [expected_alert(name, "mails", added)]))
    run_promtool(tmp_path, tests)


def run_promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> None:
    file = tmp_path / "alerts.test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    tested = subprocess.run(
        [promtool(), "test", "rules", str(file)], check=False, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


# More cases: the alert, its series, and whether it fires.
MORE_CASES: list[tuple[str, Series, bool]] = [
    ("JobmonHistoryStalled", {COLLECTOR: "1x90"}, True),  # it has never counted the history
    ("JobmonHistoryStalled", {COLLECTOR: "0x90", HISTORY: "900x90"}, False),
    ("JobmonHistoryStalled", {}, False),
    ("JobmonStatisticsDiffer", {jobs("queued"): "0x90", ESTIMATED: "900x90"}, True),
    ("JobmonStatisticsDiffer", {jobs("queued"): "9000x90", ESTIMATED: "900x90"}, True),
    ("JobmonStatisticsDiffer", {jobs("queued"): "9x90", ESTIMATED: "90x90"}, False),
    ("JobmonStatisticsDiffer", {ESTIMATED: "90000x90"}, False),  # the statistics are unknown
    ("JobmonDatabaseUnreadable", {DATABASE: "0x90"}, False),  # whether it is readable is unknown
    ("JobmonCollectorAbsent", {DATABASE: "1x90", OWN: "0x90"}, False),
    ("JobmonCollectorLagging", {COLLECTOR: "1x90"}, False),
    ("JobmonQueueIncomplete", {SCRAPED: "0x90"}, True),  # whether the database is up is unknown
    ("JobmonQueueIncomplete", {SCRAPED: "0x90", DATABASE: "0x90"}, False),
]


def test_alerts_on_unusual_series_fire_only_when_they_should(tmp_path: Path) -> None:
    tests = [
        unit_test(
            name,
            from_two_services(series, "mails"),
            [expected_alert(name, "mails", {})] if fires else [],
        )
        for name, series, fires in MORE_CASES
    ]
    run_promtool(tmp_path, tests)


def test_alerts_all_have_cases() -> None:
    assert {*CASES, "JobmonDown", "JobmonInstanceDown"} == set(ALERTS)


def test_prometheus_configuration_passes_promtool(tmp_path: Path) -> None:
    config = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    token = tmp_path / "token"
    token.touch()
    (tmp_path / "alerts.yml").write_text(RULES.read_text())
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace("/run/secrets/metrics_token", str(token)))
    checked = subprocess.run(
        [promtool(), "check", "config", str(file)], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def amtool(*arguments: str) -> str:
    """The output of Alertmanager's command."""
    tool = shutil.which("amtool")
    if tool is None:
        assert not os.environ.get("CI"), (
            "amtool is missing: apt-get install prometheus-alertmanager"
        )
        pytest.skip("no amtool")
    done = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "channel")])
def test_alertmanager_example_routes_alerts_by_severity(severity: str, receiver: str) -> None:
    file = str(ROOT / "deploy/prometheus/alertmanager.yml")
    amtool("check-config", file)
    labels = (f"severity={severity}", "alertname=JobmonDeadLetters", "job=jobmon")
    routed = amtool("config", "routes", "test", f"--config.file={file}", *labels)
    assert routed.split() == [receiver]
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


def exposed_metrics(api: Api) -> set[str]:
    """The names of all metrics that a scrape can have."""
    api.get_as_admin("/admin/jobs/stats")
    service = api.get_as_admin("/metrics").text
    rollup = Rollup({("queued", "mail"): 1}, {"mail": TALLY})
    queue = render_metrics(rollup)
    return {name for text in (service, queue) for name, _ in samples(text)} | {"up"}


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:jobmon_\w+|up)\b(?=[{\[) ]|$)", expression))


def panel_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_panels_use_only_exposed_metrics(api: Api) -> None:
    known = exposed_metrics(api)
    for expression in (*panel_expressions(), *(rule["expr"] for rule in ALERTS.values())):
        names = metric_names(expression)
        assert names, expression
        assert names <= known, expression


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
    users = [job, queue, *dashboard["panels"]]
    users += [target for panel in dashboard["panels"] for target in panel["targets"]]
    for user in users:
        assert user["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_show_the_chosen_jobs_and_queues_one_by_one(tmp_path: Path) -> None:
    """Catches an expression that Prometheus refuses, or that adds a queue nobody has chosen."""
    rules = []
    for expression in panel_expressions():
        filters = re.findall(
            r'\bjobmon_(?!http_)\w+({job=~"\$job",queue=~"\$queue"[,}])?', expression
        )
        assert all(filters), expression
        assert all(re.findall(r'\bjobmon_http_\w+({job=~"\$job"})?', expression)), expression
        for grouping in re.findall(r"max by \(([^)]+)\)", expression):
            assert {"job", "queue"} <= set(grouping.split(", ")), expression
        complete = expression.replace("$queue", ".*").replace("$job", ".*")
        rules.append({"record": f"panel:{len(rules)}", "expr": complete})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        [promtool(), "check", "rules", str(file)], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_metrics_table_has_every_exposed_metric(api: Api) -> None:
    documented = set(
        re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed_metrics(api)}
    assert documented == families - {"up"}
