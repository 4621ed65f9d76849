"""`jobmon check` and `jobmon init` of several queues: catches a queue that is not checked, an
unreachable queue that hides other findings, and a setup in the wrong database."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient

from jobmon.cli import main
from jobmon.demo.mongod import Mongod, free_port
from jobmon.settings import Settings
from jobmon.setup.check_queues import check_queues
from jobmon.setup.deployment import Deployment

from ..conftest import NOW
from ..support.commands import all_names, database_uri, problems
from ..support.queue_service import MongoDb

Document = dict[str, Any]


@pytest.fixture
def shop(database: MongoDb) -> MongoDb:
    """A database with two queues."""
    for name in ("payouts", "mails"):
        database[name].insert_one({"jobId": name, "status": "queued", "createdAt": NOW})
    return database


@pytest.fixture
def environment(mongod: Mongod, shop: MongoDb, tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "queues.toml"
    path.write_text(
        f"""
        [payouts]
        collection = "payouts"
        [unreachable]
        uri = "mongodb://u:hidden@127.0.0.1:{free_port()}/app"
        [mails]
        uri_variable = "MAILS_URI"
        collection = "mails"
        """
    )
    uri = database_uri(mongod, shop)
    return {
        "JOBMON_MONGO_URI": uri,
        "MAILS_URI": uri,
        "JOBMON_QUEUES": str(path),
        "JOBMON_ROLLUP_DB": f"{shop.name}_rollups",
        "JOBMON_STATE_DB": f"{shop.name}_state",
        "JOBMON_SERVER_SELECTION_TIMEOUT_MS": "200",
        "JOBMON_READER_PASSWORD": "readerpw",
    }


def run_cli(environment: dict[str, str], *command: str) -> Result:
    return CliRunner().invoke(main, command, env=environment)


def init(environment: dict[str, str], *options: str, uri: str | None = None) -> Result:
    admin = {"JOBMON_ADMIN_MONGO_URI": uri or environment["JOBMON_MONGO_URI"]}
    return run_cli(environment | admin, "init", *options)


def test_check_reports_thresholds_for_a_missing_queue(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Catches a typo in the name of a queue, whose thresholds would never apply."""
    rules = tmp_path / "rules.toml"
    rules.write_text("[queues.payout]\ndead_per_hour = 5\n[queues.'mail*']\ndead_per_hour = 6\n")
    lines = run_cli(environment | {"JOBMON_RULES": str(rules)}, "check").output.splitlines()
    (index,) = (index for index, line in enumerate(lines) if "JOBMON_RULES" in line)
    assert lines[index].split(maxsplit=2) == [
        "warning",
        "settings",
        "JOBMON_RULES has thresholds for queues that do not exist: payout.",
    ]
    assert lines[index + 1].strip() == "The queues are payouts, unreachable, mails."


def test_check_reports_each_queue_under_its_name(environment: dict[str, str]) -> None:
    result = run_cli(environment, "check")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("ok       settings     The settings are valid: 3 queues are watched")
    assert [line for line in lines if line in ("payouts", "unreachable", "mails")] == [
        "payouts",
        "unreachable",
        "mails",
    ]
    unreachable = lines[lines.index("unreachable") + 1 : lines.index("mails") - 1]
    assert unreachable[0].startswith("problem  database     The database at 127.0.0.1:")
    assert sum("jobmon's own databases, " in line for line in lines) == 1
    assert lines[-1].startswith("Problems: 3. Warnings: ")
    assert lines[-1].endswith(". Queues with problems: payouts, unreachable, mails.")
    assert "hidden" not in result.output


def test_check_json_names_the_queue_of_a_finding(environment: dict[str, str]) -> None:
    findings = json.loads(run_cli(environment, "check", "--json").output)["findings"]
    assert {finding["queue"] for finding in findings} == {None, "payouts", "unreachable", "mails"}
    mails = [finding for finding in findings if finding["queue"] == "mails"]
    (missing,) = [finding for finding in mails if finding["check"] == "indexes"]
    assert "--queue mails" in missing["commands"][0]
    (rights,) = [finding for finding in mails if finding["check"] == "rights"]
    command = "JOBMON_READER_PASSWORD=… jobmon init --queue mails --reader USER"
    assert rights["commands"][0].endswith(f" {command}")
    own_checks = [finding["check"] for finding in findings if finding["queue"] is None]
    assert own_checks == ["settings", "database", "rights"]


def test_check_of_one_queue_leaves_the_others_out(environment: dict[str, str]) -> None:
    report = json.loads(run_cli(environment, "check", "--json", "--queue", "mails").output)
    assert {finding["queue"] for finding in report["findings"]} == {None, "mails"}
    result = run_cli(environment, "check", "--queue", "mail")
    assert result.exit_code == 1
    assert "there is no queue mail; the queues are: payouts, unreachable, mails" in result.output
    result = run_cli(
        {"JOBMON_MONGO_URI": environment["JOBMON_MONGO_URI"]}, "check", "--queue", "mails"
    )
    assert result.exit_code == 2


def test_check_of_a_mistake_in_the_file_is_one_finding(environment: dict[str, str]) -> None:
    Path(environment["JOBMON_QUEUES"]).write_text("[payouts]\nprofile = 'agend'")
    result = run_cli(environment, "check")
    assert result.exit_code == 1
    (problem,) = problems(result)
    assert "queues.toml, line 2: payouts.profile: " in problem


def test_check_while_jobmons_own_database_is_unreachable_still_checks_queues(
    environment: dict[str, str],
) -> None:
    unreachable = {"JOBMON_MONGO_URI": f"mongodb://127.0.0.1:{free_port()}/app"}
    findings = json.loads(run_cli(environment | unreachable, "check", "--json").output)["findings"]
    own_findings = [finding for finding in findings if finding["queue"] is None]
    (problem,) = [finding for finding in own_findings if finding["level"] == "problem"]
    assert problem["check"] == "database"
    mail_checks = [finding["check"] for finding in findings if finding["queue"] == "mails"]
    assert "indexes" in mail_checks
    assert "collector" not in mail_checks


def test_check_does_not_try_an_unreachable_deployment_for_each_queue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches a check of many queues that waits for a timeout for each queue."""
    path = tmp_path / "queues.toml"
    path.write_text("\n".join(f"[q{index}]\ncollection = 'q{index}'" for index in range(100)))
    uri = f"mongodb://127.0.0.1:{free_port()}/app"
    settings = Settings(mongo_uri=uri, queues=str(path), server_selection_timeout_ms=50)
    inspected, inspect = list[Settings](), Deployment.inspect

    def record_inspection(queue: Settings, *arguments: Any, **options: Any) -> Deployment:
        inspected.append(queue)
        return inspect(queue, *arguments, **options)

    monkeypatch.setattr(Deployment, "inspect", record_inspection)
    findings = [finding for finding in check_queues(settings) if finding.queue]
    assert len(findings) == 100
    assert {finding.check for finding in findings} == {"database"}
    assert len(inspected) < 50


def test_init_prepares_all_queues_in_the_administrators_database(
    environment: dict[str, str], shop: MongoDb
) -> None:
    result = init(environment)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    names = [line for line in lines if line in ("payouts", "unreachable", "mails")]
    assert names == ["payouts", "mails"]
    assert "jobmon_jobId_1" in shop.payouts.index_information()
    assert "jobmon_jobId_1" in shop.mails.index_information()
    findings = json.loads(run_cli(environment, "check", "--json").output)["findings"]
    levels = [finding["level"] for finding in findings if finding["check"] == "indexes"]
    assert levels == ["ok", "ok"]


def test_init_of_one_queue_leaves_the_others_unchanged(
    environment: dict[str, str], shop: MongoDb, mongo: MongoClient[Document]
) -> None:
    before = all_names(mongo, shop.name)
    preview = init(environment, "--queue", "mails", "--reader", "reader", "--dry-run")
    assert preview.exit_code == 0, preview.output
    script = init(environment, "--queue", "mails", "--reader", "reader", "--print")
    assert script.exit_code == 0
    assert f"the jobs in {shop.name}.mails" in script.output.splitlines()[0]
    assert all_names(mongo, shop.name) == before
    result = init(environment, "--queue", "mails", "--reader", "reader")
    assert result.exit_code == 0, result.output
    assert "web service: MAILS_URI='mongodb://reader:PASSWORD@" in result.output
    assert all_names(mongo, shop.name)["indexes"]["payouts"] == before["indexes"]["payouts"]
    assert init(environment, "--remove").exit_code == 2
    assert init(environment, "--queue", "mails", "--remove").exit_code == 0
    after = all_names(mongo, shop.name)
    assert {name: after[name] for name in ("indexes", "users", "roles")} == {
        name: before[name] for name in ("indexes", "users", "roles")
    }


def test_init_refuses_a_queue_of_another_database(
    mongod: Mongod, environment: dict[str, str], shop: MongoDb, mongo: MongoClient[Document]
) -> None:
    """Catches users and indexes in a database that jobmon does not watch."""
    other = mongod.uri.replace("/?", f"/{shop.name}_other?")
    before = all_names(mongo, shop.name)
    result = init(environment, "--queue", "mails", uri=other)
    assert result.exit_code == 1
    (problem,) = problems(result)
    assert f"mails is in the database {shop.name} at 127.0.0.1:" in problem
    unreachable = init(environment, "--queue", "unreachable")
    assert "hidden" not in unreachable.output
    assert len(problems(unreachable)) == 1
    all_queues = init(environment, uri=other)
    assert f"No queue is in the database {shop.name}_other at 127.0.0.1:" in all_queues.output
    assert all_names(mongo, shop.name) == before


def test_init_works_before_the_queues_have_connection_strings(
    environment: dict[str, str], shop: MongoDb
) -> None:
    """Catches a first setup that needs the connection strings of users that do not exist yet."""
    incomplete = {name: value for name, value in environment.items() if name != "MAILS_URI"}
    result = init(incomplete)
    assert result.exit_code == 0, result.output
    assert "mails is left out: MAILS_URI is not set" in result.output
    assert "jobmon_jobId_1" not in shop.mails.index_information()
    result = init(incomplete, "--queue", "mails")
    assert result.exit_code == 0, result.output
    assert "jobmon_jobId_1" in shop.mails.index_information()
    uri = incomplete.pop("JOBMON_MONGO_URI")
    result = init(incomplete, "--queue", "mails", uri=uri)
    assert "JOBMON_MONGO_URI is not set" in result.output
    result = init(incomplete, "--queue", "payouts", uri=uri)
    assert result.exit_code == 0, result.output


def test_init_accepts_a_queue_with_an_option_of_srv_addresses(environment: dict[str, str]) -> None:
    """Catches an exception: the driver refuses such an option in the address without `+srv`."""
    srv_uri = "mongodb+srv://nowhere.invalid/shop?srvMaxHosts=2"
    result = init(environment | {"MAILS_URI": srv_uri})
    assert result.exit_code == 0, result.output
    other_uri = init(environment | {"MAILS_URI": srv_uri}, "--queue", "mails")
    assert "mails is in the database shop at nowhere.invalid, by MAILS_URI" in other_uri.output


@pytest.mark.parametrize("options", [("--jobs", "x"), ("--remove",)])
def test_init_of_several_queues_refuses_options_for_one_queue(
    environment: dict[str, str], options: tuple[str, ...]
) -> None:
    assert init(environment, *options).exit_code == 2
