"""`jobmon collector`: catches a check that passes although the collector does not work, a collector
that continues after an unexpected error, and a collector that requires a key for tokens."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo.database import Database

from jobmon.cli import main
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..support.commands import database_uri
from ..support.waiting import PATIENCE_S, eventually

Db = Database[dict[str, Any]]
# A collector whose history thread raises an unexpected exception.
FAILING_COLLECTOR = """
from jobmon.collector.history_writer import HistoryWriter
def fail(*_): raise KeyError("raised by the test")
HistoryWriter._count_young = fail
from jobmon.cli import main
main(["collector"])
"""


@pytest.fixture
def environment(mongod: Mongod, database: Db) -> dict[str, str]:
    """The environment of a collector, without a key for tokens."""
    return {
        "JOBMON_MONGO_URI": database_uri(mongod, database),
        "JOBMON_ROLLUP_DB": f"{database.name}_rollups",
    }


@pytest.fixture
def connection(
    environment: dict[str, str], make_settings: Callable[..., Settings]
) -> Iterator[Connection]:
    uri, rollup_db = environment.values()
    yield (connection := Connection(make_settings(mongo_uri=uri, rollup_db=rollup_db)))
    connection.client.close()


def run_check(environment: dict[str, str], option: str = "--check") -> Result:
    return CliRunner().invoke(main, ["collector", option], env=environment)


def passes_liveness(environment: dict[str, str]) -> bool:
    return run_check(environment, "--check-liveness").exit_code == 0


def test_check_fails_without_a_collector_and_passes_with_one(
    environment: dict[str, str], connection: Connection
) -> None:
    create_indexes(connection)
    result = run_check(environment)
    assert (result.exit_code, result.output) == (1, "no collector works for this queue\n")
    assert not passes_liveness(environment)
    with collecting(connection.settings):
        eventually(lambda: run_check(environment).output.startswith("stats: "))
        eventually(lambda: run_check(environment).exit_code == 0)
        assert passes_liveness(environment)
    assert run_check(environment).exit_code == 1


@pytest.mark.parametrize(("name", "label"), [("stats", "stats"), ("progress", "history")])
def test_check_fails_if_the_stats_or_the_history_are_old(
    environment: dict[str, str], connection: Connection, name: str, label: str
) -> None:
    own, now = OwnDatabase(rollup_database(connection), connection.queue_key), datetime.now(UTC)
    lease = {"holder": "x", "expiresAt": now + timedelta(hours=1)}
    own["leases"].insert_one(own.new("collector", lease))
    own["state"].insert_many([own.new("stats", {"at": now}), own.new("progress", {"at": now})])
    assert run_check(environment).exit_code == 0
    own["state"].update_one({"name": name}, {"$set": {"at": now - timedelta(hours=1)}})
    result = run_check(environment)
    assert result.exit_code == 1
    (age_s,) = re.findall(rf"{label}: ([\d.]+) s old", result.output)
    assert float(age_s) >= 3_600
    assert not passes_liveness(environment)
    # A restart cannot help a history whose indexes were dropped.
    connection.jobs.collection.insert_one({"jobId": "a"})
    assert ("jobmon init" in run_check(environment).output) is (label == "history")
    assert passes_liveness(environment) is (label == "history")


def test_check_names_missing_indexes_only_if_they_are_missing(
    environment: dict[str, str], connection: Connection
) -> None:
    """Catches a collector without a history, as in its first seconds, that needs no `init`."""
    own, now = OwnDatabase(rollup_database(connection), connection.queue_key), datetime.now(UTC)
    lease = {"holder": "x", "expiresAt": now + timedelta(hours=1)}
    own["leases"].insert_one(own.new("collector", lease))
    own["state"].insert_one(own.new("stats", {"at": now}))
    connection.jobs.collection.insert_one({"jobId": "a"})
    assert "jobmon init" in run_check(environment).output
    create_indexes(connection)
    result = run_check(environment)
    assert result.exit_code == 1
    assert result.output.startswith("stats: 0")
    assert "history: none, collector" in result.output
    assert "jobmon init" not in result.output
    assert passes_liveness(environment)


def test_check_fails_with_one_line_if_no_database_responds(environment: dict[str, str]) -> None:
    """Catches a liveness probe that restarts a collector again and again during an outage."""
    unreachable = {
        "JOBMON_MONGO_URI": "mongodb://u:hidden@127.0.0.1:1/shop",
        "JOBMON_SERVER_SELECTION_TIMEOUT_MS": "50",
    }
    result = run_check(environment | unreachable)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "hidden" not in result.output
    assert passes_liveness(environment | unreachable)


def test_liveness_passes_if_only_the_database_of_the_statistics_is_unreachable(
    environment: dict[str, str],
) -> None:
    unreachable = {
        "JOBMON_ROLLUP_URI": "mongodb://127.0.0.1:1/",
        "JOBMON_SERVER_SELECTION_TIMEOUT_MS": "500",
    }
    result = run_check(environment | unreachable)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "jobmon's own database" in result.output
    assert passes_liveness(environment | unreachable)


def test_unexpected_error_ends_the_process_with_code_1_and_logs_the_stack(
    environment: dict[str, str], connection: Connection
) -> None:
    create_indexes(connection)
    process = subprocess.run(
        [sys.executable, "-c", FAILING_COLLECTOR],
        env=dict(os.environ) | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if "the collector failed" in line]
    assert "in fail" in line
    assert "KeyError" in line


@pytest.mark.parametrize("command", [["check", "--json"], ["collector", "--check"]])
def test_key_for_tokens_is_optional_but_checked_if_it_is_set(
    environment: dict[str, str], command: list[str]
) -> None:
    result = CliRunner().invoke(main, command, env=environment)
    assert "JOBMON_JWT_SECRET_KEY" not in result.output
    assert result.exit_code in (0, 1)
    result = CliRunner().invoke(main, command, env=environment | {"JOBMON_JWT_SECRET_KEY": "short"})
    assert "JOBMON_JWT_SECRET_KEY" in result.output
