"""`jobmon alerts`: catches an alert with the threshold of another type or queue."""

import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from jobmon.cli import main

from ..api.test_queue_metrics import find_promtool

ROOT = Path(__file__).parents[2]
RULES = """
failure_rate = 0.3
oldest_due_minutes = 30
stalled_after_minutes = 90
backlog_growth = 2.5
backlog_growth_jobs = 700

[types."report.*"]
failure_rate = 0.5
oldest_due_minutes = 180

[types."report.b"]
dead_per_hour = 50
"""
DEAD_LETTERS = "jobmon_jobs_dead_lettered_total"
LABELS = 'job="jobmon",instance="a",queue="default"'


def run_alerts(rules: Path | None) -> str:
    result = CliRunner().invoke(main, ["alerts"], env={"JOBMON_RULES": rules and str(rules)})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def alerts(tmp_path: Path) -> Path:
    """The file of alert rules for `RULES`."""
    (tmp_path / "rules.toml").write_text(RULES)
    file = tmp_path / "alerts.yml"
    file.write_text(run_alerts(tmp_path / "rules.toml"))
    return file


def test_the_shipped_file_has_the_default_thresholds() -> None:
    """Catches a threshold that was changed in only one place."""
    assert (ROOT / "deploy/prometheus/alerts.yml").read_text() == run_alerts(None)


def test_rules_of_the_whole_queue_have_the_thresholds_of_the_file(alerts: Path) -> None:
    (group,) = yaml.safe_load(alerts.read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    assert "[90m]" in rules["JobmonQueueStalled"]
    assert "> 700 + " in rules["JobmonBacklogGrowing"]
    assert "> 2.5 * " in rules["JobmonBacklogGrowing"]


def test_alerts_fire_at_the_thresholds_of_their_type(alerts: Path, tmp_path: Path) -> None:
    """Catches a type in two branches of an expression, or in none."""
    series, expected = {}, dict[str, list[str]]()
    for job_type, failed, due_minutes, dead in (
        ("mail", 30, 31, 1),
        ("mail2", 29, 30, 0),
        ("report.a", 50, 181, 1),
        ("report.b", 49, 180, 1),  # the first matching pattern is used
        ("reports", 30, 31, 0),
    ):
        labels = f'{LABELS},type="{job_type}"'
        for outcome, count in (("failed", failed), ("succeeded", 100 - failed)):
            name = f'jobmon_attempts_finished_total{{{labels},outcome="{outcome}"}}'
            series[name] = f"0+{count}x120"
        series[f"jobmon_oldest_due_job_seconds{{{labels}}}"] = f"{due_minutes * 60}+0x120"
        series[f"{DEAD_LETTERS}{{{labels}}}"] = f"0+0x90 {dead}+0x30"
    expected["JobmonFailureRate"] = ["mail", "report.a", "reports"]
    expected["JobmonOldestDueJob"] = ["mail", "report.a", "reports"]
    expected["JobmonDeadLetters"] = ["mail", "report.a", "report.b"]
    firing = {
        name: [{"queue": "default", "type": job_type} for job_type in types]
        for name, types in expected.items()
    }
    check_alerts(alerts, tmp_path, series, firing)


def test_each_queue_has_alerts_with_its_own_thresholds(tmp_path: Path) -> None:
    """Catches a queue in two branches of an expression, or in none."""
    (tmp_path / "rules.toml").write_text(
        """
        dead_per_hour = 3
        [queues.payouts]
        dead_per_hour = 9
        backlog_growth_jobs = 100
        [queues.payouts.types.report]
        dead_per_hour = 20
        [queues."pay*"]
        stalled_after_minutes = 30
        """
    )
    alerts = tmp_path / "alerts.yml"
    alerts.write_text(run_alerts(tmp_path / "rules.toml"))
    series, expected = {}, []
    for queue, job_type, dead, fires in (
        ("mails", "a", 3, True),
        ("mails", "report", 2, False),
        ("payouts", "a", 8, False),
        ("payouts", "b", 9, True),
        ("payouts", "report", 19, False),
        ("payslips", "report", 3, True),
    ):
        labels = f'job="jobmon",queue="{queue}",type="{job_type}"'
        series[f"{DEAD_LETTERS}{{{labels}}}"] = f"0+0x90 {dead}+0x30"
        expected += [(queue, job_type)] if fires else []
    for queue, due in (("mails", 50), ("payouts", 50), ("payslips", 50)):
        series[f'jobmon_due_jobs{{job="jobmon",queue="{queue}"}}'] = f"1+0x70 {due}+0x50"
        labels = f'job="jobmon",queue="{queue}",type="a",outcome="succeeded"'
        series[f"jobmon_attempts_finished_total{{{labels}}}"] = "0+1x75 75+0x45"
    check_alerts(
        alerts,
        tmp_path,
        series,
        {
            "JobmonDeadLetters": [{"queue": queue, "type": name} for queue, name in expected],
            "JobmonBacklogGrowing": [{"queue": "mails"}, {"queue": "payslips"}],
            "JobmonQueueStalled": [{"queue": "mails"}, {"queue": "payouts"}],
        },
    )


def check_alerts(
    rules: Path, tmp_path: Path, series: dict[str, str], expected: dict[str, list[dict[str, str]]]
) -> None:
    """Check with promtool for which labels each alert fires after 100 minutes.

    Samples are one minute apart: `0+3x120` begins at 0, and then adds 3 in each of 120 minutes.
    """
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    rules_by_name = {rule["alert"]: rule for rule in group["rules"]}
    alert_tests = [
        {
            "eval_time": "100m",
            "alertname": name,
            "exp_alerts": [
                {
                    "exp_labels": {"job": "jobmon", **labels, **rules_by_name[name]["labels"]},
                    "exp_annotations": {
                        key: text.replace("{{ $labels.queue }}", labels["queue"]).replace(
                            "{{ $labels.type }}", labels.get("type", "")
                        )
                        for key, text in rules_by_name[name]["annotations"].items()
                    },
                }
                for labels in firing
            ],
        }
        for name, firing in expected.items()
    ]
    file, tested_rules = tmp_path / "alerts.test.yml", tmp_path / "tested.yml"
    # promtool evaluates every rule of a file each minute: leave out the others.
    group["rules"] = [rules_by_name[name] for name in expected]
    tested_rules.write_text(yaml.safe_dump({"groups": [group]}))
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": alert_tests,
    }
    file.write_text(yaml.safe_dump({"rule_files": [str(tested_rules)], "tests": [test]}))
    result = subprocess.run(
        [find_promtool(), "test", "rules", str(file)], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_mistake_in_the_file_ends_the_command_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("dead_per_hour = 0")
    result = CliRunner().invoke(main, ["alerts"], env={"JOBMON_RULES": str(file)})
    assert result.exit_code == 1
    message = f"JOBMON_RULES: {file}, line 1: dead_per_hour: 0 is not from 1 to 1000000"
    assert result.output == f"Error: {message}\n"
