"""`jobmon mark`: catches a mark in the watched database or in a wrong queue, a stored secret, a
mark that is never deleted, and a failure with exit code 0."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.cli import main
from jobmon.collector import mark_writer
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings

from ..conftest import Api
from ..support.commands import database_uri

pytestmark = pytest.mark.real
RunMark = Callable[..., Result]
MongoDb = Database[dict[str, Any]]


@pytest.fixture
def state_db(database: MongoDb) -> MongoDb:
    return database.client[f"{database.name}_state"]


@pytest.fixture
def run_mark(mongod: Mongod, database: MongoDb, state_db: MongoDb) -> RunMark:
    """Runs `jobmon mark` as a deployment does, without JOBMON_JWT_SECRET_KEY."""
    environment = {
        "JOBMON_MONGO_URI": database_uri(mongod, database),
        "JOBMON_STATE_DB": state_db.name,
    }
    return lambda *arguments, **variables: CliRunner().invoke(
        main, ["mark", *arguments], env=environment | variables
    )


@pytest.fixture
def api(
    mongod: Mongod,
    database: MongoDb,
    state_db: MongoDb,
    make_settings: Callable[..., Settings],
) -> Iterator[Api]:
    uri = database_uri(mongod, database)
    app = create_app(make_settings(mongo_uri=uri, state_db=state_db.name))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


def read_marks(state_db: MongoDb) -> list[dict[str, Any]]:
    return list(state_db.marks.find().sort("at"))


def format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_a_mark_is_in_the_series_and_writes_nothing_to_the_watched_database(
    mongo: MongoClient[dict[str, Any]], database: MongoDb, run_mark: RunMark, api: Api
) -> None:
    at = format_time(datetime.now(UTC) - timedelta(minutes=20))
    link = "https://ci.example.com/42"
    databases_before = mongo.list_database_names()
    assert run_mark("v2.31", "--link", link, "--at", at).output == "marked: v2.31\n"
    meta = api.get_as_admin("/admin/jobs/timeseries").json["meta"]
    assert meta["marks"] == [{"at": at, "text": "v2.31", "link": link}]
    assert database.list_collection_names() == []
    assert {*mongo.list_database_names()} - {*databases_before} == {f"{database.name}_state"}


def test_a_mark_has_the_present_time_by_default_and_is_deleted_with_the_history(
    run_mark: RunMark, state_db: MongoDb
) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert run_mark("  v1  ", JOBMON_DAY_RETENTION_DAYS="30").exit_code == 0
    (mark,) = read_marks(state_db)
    assert before <= mark["at"] <= datetime.now(UTC)
    assert mark["text"] == "v1"
    assert mark["expiresAt"] - mark["at"] == timedelta(days=30)
    indexes = state_db.marks.index_information()
    assert indexes["expiresAt_1"]["expireAfterSeconds"] == 0
    assert "queue_1_format_1_at_1" in indexes


def test_a_repeated_mark_replaces_the_first(run_mark: RunMark, state_db: MongoDb) -> None:
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for link in ("https://ci.example.com/1", "https://ci.example.com/2"):
        assert run_mark("v1", "--at", at, "--link", link).exit_code == 0
    assert run_mark("v2", "--at", at).exit_code == 0
    assert sorted((mark["text"], mark["link"]) for mark in read_marks(state_db)) == [
        ("v1", "https://ci.example.com/2"),
        ("v2", None),
    ]


def test_a_time_with_an_offset_is_stored_in_utc(run_mark: RunMark, state_db: MongoDb) -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    local = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert run_mark("v1", "--at", local.isoformat()).exit_code == 0
    assert run_mark("v2", "--at", at.replace(tzinfo=None).isoformat()).exit_code == 0
    assert [mark["at"] for mark in read_marks(state_db)] == [at, at]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("v1\x07",), "text contains U+0007, a character that is not printed."),
        ((" ",), "text is empty."),
        (("v1", "--at", "yesterday"), "at is not a time in ISO 8601, such as"),
        (("v1", "--at", "9999-12-31T23:59-12:00"), "at is not a time in ISO 8601, such as"),
        (("v1", "--at", "9999-12-31"), "at is in the future."),
        (("v1", "--at", "1999-12-31"), "at is before the retained history (400 days)."),
        (("v1", "--link", "javascript:1"), "link must be an address such as https://"),
    ],
)
def test_an_invalid_mark_is_refused_and_the_message_names_the_field(
    run_mark: RunMark, state_db: MongoDb, arguments: tuple[str, ...], message: str
) -> None:
    result = run_mark(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: not marked: {message}")
    assert result.output.count("\n") == 1
    assert read_marks(state_db) == []


def test_secrets_are_redacted_before_a_mark_is_stored(run_mark: RunMark, state_db: MongoDb) -> None:
    link = "https://ci.example.com/?token=abcdefgh1234"
    assert run_mark("v1 password=hunter2hunter2 badge=x", "--link", link).exit_code == 0
    assert run_mark("v2 badge=x", JOBMON_REDACT_KEYS="badge").exit_code == 0
    texts = " ".join(str(mark) for mark in read_marks(state_db))
    assert "hunter2" not in texts
    assert "abcdefgh1234" not in texts
    assert "v1 password=[redacted] badge=x" in texts
    assert "v2 badge=[redacted]" in texts


def test_beyond_the_limit_the_oldest_marks_are_deleted(
    run_mark: RunMark, state_db: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mark_writer, "MAX_KEPT", 3)
    now = datetime.now(UTC)
    state_db.marks.insert_one({"_id": "other", "queue": "other", "at": now - timedelta(days=9)})
    for age_days in (5, 4, 3, 2, 1):
        at = now - timedelta(days=age_days)
        result = run_mark(f"v{age_days}", "--at", at.isoformat())
        assert result.exit_code == 0, result.output
    assert [mark.get("text") for mark in read_marks(state_db)] == [None, "v3", "v2", "v1"]
    result = run_mark("v0", "--at", (now - timedelta(days=6)).isoformat())
    assert result.exit_code == 1
    assert result.output == "not marked: it is not among the 3 newest marks, which are kept\n"
    assert len(read_marks(state_db)) == 4


def test_the_limit_also_holds_for_marks_of_the_same_time(
    run_mark: RunMark, state_db: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mark_writer, "MAX_KEPT", 3)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    assert run_mark("older", "--at", (at - timedelta(days=1)).isoformat()).exit_code == 0
    outcomes = {}
    for text in ("v1", "v2", "v3", "v4"):
        outcomes[text] = run_mark(text, "--at", at.isoformat()).exit_code
        assert len(read_marks(state_db)) == min(3, len(outcomes) + 1)
    assert {mark["at"] for mark in read_marks(state_db)} == {at}
    is_last_kept = "v4" in {mark["text"] for mark in read_marks(state_db)}
    assert [*outcomes.values()] == [0, 0, 0, int(not is_last_kept)]


def test_all_queues_or_the_named_queues_are_marked_and_each_failure_is_reported(
    run_mark: RunMark, state_db: MongoDb, tmp_path: Path
) -> None:
    file = tmp_path / "queues.toml"
    unreachable_uri = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=50"
    reachable = '[mails]\ncollection = "mails"\n\n[many]\ncollections = ["a", "b"]\n'
    file.write_text(reachable)
    result = run_mark("v1", JOBMON_QUEUES=str(file))
    assert result.output == "mails: marked: v1\nmany.a: marked: v1\nmany.b: marked: v1\n"
    assert len({mark["queue"] for mark in read_marks(state_db)}) == 3
    for name, count in (("mails", 1), ("many", 2), ("many.b", 1)):
        state_db.marks.delete_many({})
        result = run_mark("v2", "--queue", name, JOBMON_QUEUES=str(file))
        assert (result.exit_code, len(read_marks(state_db))) == (0, count)
    result = run_mark("v3", "--queue", "none", JOBMON_QUEUES=str(file))
    assert result.exit_code == 1
    assert "there is no queue none; the queues are: mails, many.a, many.b" in result.output
    file.write_text(f'[unreachable]\nuri = "{unreachable_uri}"\n\n{reachable}')
    state_db.marks.delete_many({})
    result = run_mark("v4", JOBMON_QUEUES=str(file), JOBMON_SERVER_SELECTION_TIMEOUT_MS="100")
    assert result.exit_code == 1
    assert result.stderr.startswith("unreachable: not marked: ServerSelectionTimeoutError")
    assert len(read_marks(state_db)) == 3
