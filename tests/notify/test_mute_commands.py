"""`jobmon mute`, `acknowledge`, `unmute` and `mutes` on a real server: catches a mute that is lost,
and a mute of other notices, for another time or of another queue."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import MuteMode
from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.notices import CheckKind
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.store.connection import Connection

from ..support.commands import database_uri
from ..support.queue_service import MongoDb

RunCli = Callable[..., Result]


@pytest.fixture
def run_cli(mongod: Mongod, database: MongoDb) -> RunCli:
    def run(*arguments: str, **settings: str) -> Result:
        environment = {
            "JOBMON_MONGO_URI": database_uri(mongod, database),
            "JOBMON_STATE_DB": f"{database.name}_state",
        }
        changes = {f"JOBMON_{name}": value for name, value in settings.items()}
        return CliRunner().invoke(main, arguments, env=environment | changes)

    return run


@pytest.fixture
def records(mongod: Mongod, database: MongoDb) -> Iterator[MuteRecords]:
    settings = Settings(mongo_uri=database_uri(mongod, database), state_db=f"{database.name}_state")
    connection = Connection(settings)
    yield MuteRecords(connection, connection, Redactor())
    connection.close()


def test_a_mute_is_recorded_printed_and_ended(run_cli: RunCli, records: MuteRecords) -> None:
    before = datetime.now(UTC)
    secret = "token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    result = run_cli(
        *("mute", "stalled", "--type", "mail*", "--for", "2h", "--as", "ada"),
        *("--reason", f"provider is away {secret}"),
    )
    assert result.exit_code == 0, result.output
    (mute,) = records.list_recent()
    assert (mute.kind, mute.types, mute.mode) == (CheckKind.STALLED, "mail*", MuteMode.MUTE)
    assert (mute.by.subject, mute.by.role) == ("ada", "terminal")
    length = mute.until - before
    assert timedelta(hours=2, milliseconds=-1) < length < timedelta(hours=3)  # in whole ms
    assert mute.reason.startswith("provider is away")
    assert "eyJ" not in mute.reason
    (line,) = run_cli("mutes").output.splitlines()
    assert line == result.output.strip()
    assert re.fullmatch(
        r"[0-9a-f]{8}  stalled_types of mail\*: muted by ada until .* UTC: provider is away .*",
        line,
    )
    assert run_cli("unmute", "").exit_code == 1  # an unset variable of a script ends no mute
    ended = run_cli("unmute", line[:8], "--as", "bob", "--reason", "back")
    assert ended.output.startswith("ended: stalled_types of mail*: muted by ada")
    assert run_cli("mutes").output == "No notice is muted or acknowledged.\n"
    assert "ended by bob at" in run_cli("mutes", "--all").output
    (mute,) = records.list_recent()
    assert mute.end is not None
    assert (mute.end.by.subject, mute.end.reason) == ("bob", "back")
    repeated = run_cli("unmute", mute.id)
    assert repeated.exit_code == 1
    assert repeated.output == f"Error: no mute in force with the id {mute.id}\n"


def test_an_acknowledgement_lasts_a_day_by_default(run_cli: RunCli, records: MuteRecords) -> None:
    assert run_cli("acknowledge", "expired_leases", "--reason", "on it").exit_code == 0
    (mute,) = records.list_recent()
    assert mute.mode is MuteMode.ACKNOWLEDGE
    assert mute.until - mute.at == timedelta(days=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["expired", "--for", "2"], "'--for': is not a duration, such as 30m, 2h or 3d"),
        (["expired", "--for", "31d"], "Error: --for: At most 30 days."),
        (["expired", "--for", "0m"], "Error: --for: Must be in the future."),
        (["lease", "--for", "2h"], "is not one of nothing_finishes, expired_leases, "),
        (
            ["expired", "--type", "mail", "--for", "2h"],
            "Error: --type: Only for notices about types: failure_rates, new_dead_jobs, ",
        ),
        (["expired", "--for", "2h", "--reason", " "], "Error: --reason: Required."),
    ],
)
def test_a_mistake_names_the_argument_and_records_nothing(
    run_cli: RunCli, records: MuteRecords, arguments: list[str], message: str
) -> None:
    result = run_cli("mute", "--reason", "x", *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert records.list_recent() == []


def test_a_mute_is_about_one_queue(run_cli: RunCli, tmp_path: Path) -> None:
    """Catches a mute that is recorded for another queue in the same database."""
    queues = tmp_path / "queues.toml"
    queues.write_text("[mails]\ncollection = 'mails'\n[payouts]\ncollection = 'payouts'\n")
    mute = ("mute", "all", "--for", "1h", "--reason", "x", "--as", "ada")
    assert run_cli(*mute, QUEUES=str(queues)).exit_code == 0
    assert run_cli(*mute, "--queue", "payouts", QUEUES=str(queues)).exit_code == 0
    lines = run_cli("mutes", QUEUES=str(queues)).output.splitlines()
    assert [line[10:].partition(" until")[0] for line in lines] == [
        "mails: all: muted by ada",
        "payouts: all: muted by ada",
    ]


def test_mutes_of_several_queues_end_one_by_one(run_cli: RunCli, tmp_path: Path) -> None:
    """Catches mutes with one id, which `unmute` refuses to end because the id is ambiguous."""
    queues = tmp_path / "queues.toml"
    queues.write_text("[mails]\ncollections = ['new', 'old']\n")
    mute = ("mute", "all", "--for", "1h", "--reason", "x", "--queue", "mails")
    lines = run_cli(*mute, QUEUES=str(queues)).output.splitlines()
    assert [line[10:].partition(":")[0] for line in lines] == ["mails.new", "mails.old"]
    assert run_cli("unmute", lines[0][:8], QUEUES=str(queues)).exit_code == 0
    assert run_cli("mutes", QUEUES=str(queues)).output.splitlines() == lines[1:]


def test_a_record_with_an_unknown_notice_is_skipped(
    run_cli: RunCli, records: MuteRecords, database: MongoDb
) -> None:
    assert run_cli("mute", "all", "--for", "1h", "--reason", "x").exit_code == 0
    mutes = database.client[f"{database.name}_state"].notice_mutes
    stored = mutes.find_one({"kind": "muted"})
    assert stored is not None
    mutes.insert_one(stored | {"_id": "other", "notice": "another", "request": "b"})
    assert len(records.list_recent()) == 1
