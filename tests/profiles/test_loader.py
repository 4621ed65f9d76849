"""Files of profiles: catches a mistake whose report lacks the line, or comes after the start."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from jobmon.app import create_app
from jobmon.profiles import FileError, load_profile, loader, shipped_profiles
from jobmon.profiles.parser import ParsedProfile, parse_profile
from jobmon.profiles.schema import profile_schema
from jobmon.profiles.toml_lines import KeyPath, find_line
from jobmon.settings import Settings, SettingsError
from jobmon.store.profiles import Profile

ROOT = Path(__file__).parents[2]
PROFILE = """\
collection = "tasks"

status = [
  { is = "leased", when = { lock = { "$gt" = "$now" } } },
  { is = "queued" },
]

[fields]
jobId = "_id"
type = "kind"
"""
LOG = """\
[attempts]
in = "log"
[attempts.log]
collection = "events"
time = "at"
status = [{ is = "succeeded", when = { e = "ok" } }, { is = "failed", when = { e = 2 } }]
fields = { jobId = "job" }
"""


def read_load_error(folder: Path, text: str) -> str:
    path = folder / "shop.toml"
    path.write_text(text)
    with pytest.raises(FileError) as raised:
        load_profile(str(path))
    return str(raised.value).removeprefix(f"{path}, ")


def test_every_shipped_profile_loads() -> None:
    assert {"agenda", "celery", "jobmon"} <= set(shipped_profiles())
    for name in shipped_profiles():
        assert load_profile(name).collection


def test_an_editor_accepts_every_shipped_profile() -> None:
    validator = Draft202012Validator(profile_schema())
    for path in (ROOT / "jobmon" / "profiles").glob("*.toml"):
        validator.validate(tomllib.loads(path.read_text()))
    assert not validator.is_valid({"fields": {"typ": "kind"}})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "kind"', "type = kind", "line 10: Invalid value"),
        ('type = "kind"', 'typ = "kind"', "line 10: fields.typ: unknown; allowed are jobId, type,"),
        ('type = "kind"', "type = 3", "line 10: fields.type: must be a text or a table"),
        (
            'type = "kind"',
            r'type = "kind\n"',
            r"line 10: fields.type: 'kind\n' is not the path of a",
        ),
        ('type = "kind"', 'type = "$kind"', "line 10: fields.type: '$kind' is not the path of a"),
        (
            '"kind"',
            '{ first = "a", last = "b" }',
            "line 10: fields.type: needs exactly one of path",
        ),
        ('"kind"', '{ json = "a" }', "line 10: fields.type: must be a value that the database"),
        ('"kind"', '{ constant = "$const.a" }', "line 10: fields.type.constant: unknown value"),
        ('"_id"', '{ length = "a" }', "line 9: fields.jobId: must be a path"),
        ('jobId = "_id"\n', "", "line 8: fields: needs jobId"),
        (
            '"$now"',
            '"$today"',
            "line 4: status.0.when.lock.$gt: unknown value $today; known are $null, $now, ",
        ),
        ('"$gt"', '"$near"', "line 4: status.0.when.lock.$near: unknown operator; allowed are"),
        ('"$gt"', '"$in"', "line 4: status.0.when.lock.$in: must be an array"),
        ('"$gt" = "$now"', '"$nin" = 5', "line 4: status.0.when.lock.$nin: must be an array"),
        ('"$gt" = "$now"', '"$not" = 5', "line 4: status.0.when.lock.$not: must have operators"),
        ('"$gt" = "$now"', '"$gt" = 08:00:00', "line 4: status.0.when.lock.$gt: must be a date"),
        ('"$gt" = "$now"', '"$type" = 9', "line 4: status.0.when.lock.$type: must be the name"),
        ('{ is = "queued" },', "", "line 4: status.0: the last rule must not have `when`"),
        ('is = "leased", ', "", "line 4: status.0: needs is"),
        (
            'collection = "tasks"',
            'recurring = { every = { "$gt" = "$now" } }',
            "line 1: recurring: must not depend on $now",
        ),
        ('collection = "tasks"', "recurring = 1", "line 1: recurring: must be true or false or a"),
        (
            'type = "kind"',
            '[repetition]\ninterval = "every"',
            "line 10: repetition: needs recurring, with a query for the recurring jobs",
        ),
        (
            'type = "kind"',
            '[repetition]\nevery = "every"',
            "line 11: repetition.every: unknown; allowed are interval, timeOfDay, timezone,",
        ),
        ("collection =", "coll =", "line 1: coll: unknown; allowed are extends"),
        ('collection = "tasks"', 'extends = "sidekiq"', "line 1: extends: 'sidekiq' is not one of"),
        (
            'type = "kind"',
            'nextRunAt = { path = "at", plus = "10 minutes" }',
            "line 10: fields.nextRunAt.plus: '10 minutes' is not a duration such as 10 min",
        ),
        (
            'type = "kind"',
            '[attempts]\nin = "array"',
            'line 10: attempts: array and in = "array" need each other',
        ),
        (
            'type = "kind"',
            '[attempts]\nin = "array"\narray = "log"\nstatus = { path = "s", names.ok = "done" }',
            "line 13: attempts.status.names.ok: 'done' is not one of running, succeeded,",
        ),
        (
            'type = "kind"',
            '[attempts]\narray = "log"',
            "line 10: attempts: needs in, with one of collection, log, array, job",
        ),
        (
            'type = "kind"',
            '[attempts]\nin = "log"',
            'line 10: attempts: log and in = "log" need each other',
        ),
        (
            'type = "kind"',
            LOG.replace('"at"', '{ last = "at" }'),
            "line 14: attempts.log.time: must be a text",
        ),
        (
            'type = "kind"\n',
            'type = "kind"\n[attempts]\nin = "job"\n[attempts.events]\ndeleted = "done"\n',
            "line 14: attempts.events.deleted: 'done' is not one of succeeded, failed, expired",
        ),
        (
            'type = "kind"\n',
            'type = "kind"\n[attempts]\nin = "job"\n[attempts.events]\n'
            'running = { until = { "$gt" = "$now" } }\n',
            "line 14: attempts.events.running: must not depend on $now",
        ),
        (
            'type = "kind"',
            LOG.replace("is =", "as ="),
            "line 15: attempts.log.status.0.as: unknown",
        ),
        ('type = "kind"', LOG.replace('"failed"', '"dlq"'), "line 15: attempts.log.status.1.is: "),
        (
            'type = "kind"',
            LOG.replace('"ok"', '{ "$lt" = "$now" }'),
            "line 15: attempts.log.status: must not",
        ),
        (
            'type = "kind"',
            LOG.replace("succeeded", "expired"),
            "line 15: attempts.log.status: needs",
        ),
        (
            'type = "kind"',
            LOG.replace(", when = { e = 2 }", ""),
            "line 15: attempts.log.status.1: needs when",
        ),
        (
            'type = "kind"',
            LOG.replace("jobId", "workerId"),
            "line 16: attempts.log.fields: needs job",
        ),
        (
            'type = "kind"',
            LOG.replace('"job"', '{ json = "job" }'),
            "line 16: attempts.log.fields.jobId: must be a path",
        ),
        ('type = "kind"', LOG.replace("time", "at"), "line 14: attempts.log.at: unknown; allowed"),
        (
            'type = "kind"',
            '[attempts]\nin = "collection"\nfields.jobId = { length = "a" }',
            "line 12: attempts.fields.jobId: must be a path, because attempts are found by it",
        ),
        (
            'type = "kind"',
            'leasedBy = { path = "by", only_in = ["leased", "finished"] }',
            "line 10: fields.leasedBy.only_in.1: 'finished' is not one of cancelled, dlq, failed, "
            "leased, queued, succeeded",
        ),
        (
            'type = "kind"\n',
            '[attempts]\nin = "job"\n[attempts.events]\nend_statuses = ["done"]',
            "line 13: attempts.events.end_statuses.0: 'done' is not one of cancelled,",
        ),
        (
            'type = "kind"',
            'lastError = { last = "log", match = { state = { "$ne" = "ok" } } }',
            "line 10: fields.lastError.match.state: must be a text, a number, true or false",
        ),
        (
            'type = "kind"',
            'lastError = { last = "log", match = { "$nor" = [] } }',
            "line 10: fields.lastError.match.$nor: must be a text, a number, true or false",
        ),
        (
            'type = "kind"',
            'lastError = { last = "log", match = { error.code = 5 } }',
            "line 10: fields.lastError.match.error: must be a text, a number, true or false at a "
            "path, which needs quotes",
        ),
        (
            'type = "kind"',
            'attemptCount = { length = "log", match = { state = "failed" } }',
            "line 10: fields.attemptCount.match: not used with length",
        ),
        (
            'collection = "tasks"',
            "where = { error.cancelled = true }",
            'line 1: where.error: must not be a table. Write a path in quotes: "error.cancelled"',
        ),
        (
            '{ lock = { "$gt" = "$now" } }',
            '{ "$or" = [{ lock.until."$gt" = "$now" }] }',
            "line 4: status.0.when.$or.0.lock: must not be a table. Write a path in quotes: "
            '"lock.until"',
        ),
        (
            '{ "$gt" = "$now" }',
            '{ "$ne" = "$now" }',
            "line 4: status.0.when.lock.$ne: $now cannot be compared with $ne; use one of $gt, ",
        ),
        (
            '{ "$gt" = "$now" }',
            '"$now"',
            "line 4: status.0.when.lock: $now cannot be compared with $eq; use one of $gt, ",
        ),
        (
            '{ "$gt" = "$now" }',
            '{ "$gt" = "$null" }',
            "line 4: status.0.when.lock.$gt: must be a number, a text, a date, true or false",
        ),
        (
            'type = "kind"',
            '[lease]\norder = ["-nextRunAt"]',
            "line 11: lease.order.0: '-nextRunAt' is not one of -priority, priority, nextRunAt",
        ),
        ('type = "kind"', "[lease]\neach_type = true", "line 10: lease: needs order"),
        (
            'type = "kind"',
            '[lease]\norder = ["nextRunAt"]\nindex = ["$a"]',
            "line 12: lease.index.0: '$a' is not the path of a field",
        ),
        (
            'type = "kind"',
            '[attempts]\nin = "array"\narray = "log"',
            "line 10: attempts: needs status: without it, no attempt has one",
        ),
        (
            'type = "kind"',
            '[readings]\nat = "rfc"',
            "line 11: readings.at: 'rfc' is not one of iso, seconds, milliseconds, microseconds",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_the_reason(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PROFILE
    assert read_load_error(tmp_path, PROFILE.replace(old, new)).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"_id"', "null", 'line 9: TOML has no null: write "$null" in a profile'),
        ('"$now" }', "None }", 'line 4: TOML has no null: write "$null" in a profile'),
        ('{ "$gt"', '{\n"$gt"', "line 4: an inline table { } has to be on one line. Write a long"),
        ('"$now" }', '"$now" # soon\n}', "line 4: an inline table { } has to be on one line"),
        ('"leased",', '"leased",\r\n', "line 4: an inline table { } has to be on one line"),
        ('"$now" }', '"$now", }', "line 4: no comma is allowed before the } of an inline table"),
        ("[fields]", "[fields.", "line 8: Invalid initial character for a key part"),
    ],
)
def test_common_syntax_errors_are_explained(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert read_load_error(tmp_path, PROFILE.replace(old, new, 1)).startswith(message)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[fields]", 'collection = "tasks"'),
        ("[fields]", "where = { a = 1 }"),
        ("[readings]", 'status = [{ is = "queued" }]'),
        ("[constants]", "where = { a = 1 }"),
        ("[attempts.fields]", 'always = ["type"]'),
    ],
)
def test_a_key_of_the_top_level_that_is_in_a_table_is_explained(
    tmp_path: Path, table: str, key: str
) -> None:
    name = key.partition(" ")[0]
    text = PROFILE.replace("[fields]\n", f"{table}\n{key}\n")
    assert read_load_error(tmp_path, text).endswith(
        f". Write {name} before the first [table]: it is not a key of a table"
    )


def test_a_profile_overrides_only_some_keys_of_the_profile_that_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "agenda"\n[constants]\nlock_lifetime = "1 h"\n[fields]\ntype = "t"')
    content = load_profile(str(path)).content
    assert content["constants"] == {"lock_lifetime": "1 h"}
    assert content["fields"]["type"] == "t"
    assert content["fields"]["jobId"] == "_id"
    assert content["status"] == load_profile("agenda").content["status"]


def test_attempts_inherit_from_the_extended_profile_only_in_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    attempts = '[attempts]\nin = "collection"\nfields.jobId = "job"\nstatus.path = "s"'
    path.write_text(f'extends = "payload"\n{attempts}')
    assert load_profile(str(path)).content["attempts"] == {
        "in": "collection",
        "fields": {"jobId": "job"},
        "status": {"path": "s"},
    }
    path.write_text('extends = "agenda-logs"\n[attempts.log]\ncollection = "my_logs"')
    profile = load_profile(str(path))
    assert profile.attempts_collection == "my_logs"
    log = load_profile("agenda-logs").content["attempts"]["log"]
    assert profile.content["attempts"]["log"] == log | {"collection": "my_logs"}


def test_a_condition_on_a_whole_document_and_a_new_status_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    rule = '{ lock = { "$gt" = "$now" } }'
    path.write_text(
        PROFILE.replace(rule, '{ lock = { "$eq" = { a = 1 } } }').replace('"leased"', '"away"')
        + 'leasedBy = { path = "by", only_in = ["away", "leased"] }'
    )
    assert load_profile(str(path)).parse("tasks").fields["leasedBy"].only_in == ("away", "leased")


def test_the_error_of_the_settings_has_the_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(PROFILE.replace("type", "typ"))
    monkeypatch.setenv("JOBMON_PROFILE", str(path))
    with pytest.raises(SettingsError, match=r"JOBMON_PROFILE: .*shop.toml, line 10: fields.typ"):
        Settings.for_init("mongodb://db")
    monkeypatch.setenv("JOBMON_PROFILE", "sidekiq")
    with pytest.raises(SettingsError, match=r"JOBMON_PROFILE: sidekiq is not one of agenda, "):
        Settings.for_init("mongodb://db")
    monkeypatch.setenv("JOBMON_PROFILE", str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"none.toml cannot be read: No such file"):
        Settings.for_init("mongodb://db")
    path.write_text(PROFILE)
    monkeypatch.setenv("JOBMON_PROFILE", str(path))
    settings = Settings.for_init("mongodb://db")
    assert (settings.profile, settings.jobs_collection) == (str(path), "tasks")


def test_a_start_parses_a_file_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a file that is parsed again for each setting, connection and search field."""
    parsed_collections: list[str] = []

    def record_parse(content: dict[str, Any], collection: str) -> ParsedProfile:
        parsed_collections.append(collection)
        return parse_profile(content, collection)

    monkeypatch.setattr(loader, "parse_profile", record_parse)
    path = tmp_path / "shop.toml"
    path.write_text(PROFILE + 'payload = "args"\n')
    settings = Settings(
        mongo_uri="mongodb://db",
        jwt_secret_key="-" * 32,
        profile=str(path),
        jobs_collection="tasks",
        search_fields=("payload.a",),
    )
    create_app(settings)
    Profile.from_settings(settings)
    assert parsed_collections == ["tasks"]
    path.write_text(PROFILE + 'payload = "input"\n')
    assert settings.find_search_paths() == {"payload.a": "input.a"}


def test_dates_of_attempts_in_an_array_are_read_in_their_stored_form() -> None:
    """Catches an attempt whose start is unknown although the profile has the form of the date."""
    attempts = {
        "in": "array",
        "array": "log",
        "status": {"path": "state"},
        "fields": {"startedAt": "at", "finishedAt": {"first": "steps", "path": "end"}},
    }
    content = {
        "status": {"path": "state"},
        "readings": {"log.at": "iso", "log.steps.end": "seconds"},
        "fields": {"jobId": "_id"},
        "attempts": attempts,
    }
    fields = parse_profile(content, "tasks").attempts.fields
    attempt = {"at": "1970-01-01T00:00:01Z", "steps": [{"end": 2}]}
    dates = [fields[name].read(attempt) for name in ("startedAt", "finishedAt")]
    assert dates == [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2)]


def test_find_line_returns_the_line_of_a_key() -> None:
    text = '''# a comment
a = 1
"b.c" = """
two = 2
"""
[d]
e = { f = [1, { g = "x = 1 # no" }], 'h' = true }
[[d.i]]
j = 1979-05-27T07:32:00Z
[[d.i]]
k.l = [
  1, # one
  { m = { n = [ # nested
    2,
  ] } },
]
'''
    lines: dict[KeyPath, int] = {
        ("a",): 2,
        ("b.c",): 3,
        ("d", "e", "f", 1, "g"): 7,
        ("d", "e", "h"): 7,
        ("d", "e", "none"): 7,
        ("d", "i", 0, "j"): 9,
        ("d", "i", 1, "k", "l"): 11,
        ("d", "i", 1, "k", "l", 1, "m"): 13,
        ("d", "i", 1, "k", "l", 1, "m", "n", 0): 14,
        ("none",): 1,
    }
    assert {path: find_line(text, path) for path in lines} == lines


@pytest.mark.parametrize(
    "value", [r'"\U0001F600"', '"\\t\t"', '"""a""""', "'''a'''''", '""""""', '"\u2028"'], ids=ascii
)
def test_find_line_accepts_every_string_of_toml(value: str) -> None:
    """Catches a mistake that is reported as a failure of jobmon, or with another line."""
    assert find_line(f"a = {value}\nb = 1\n", ("b",)) == 2
