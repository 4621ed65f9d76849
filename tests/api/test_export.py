"""`format=csv` and `format=ndjson`: catches a lost job, a cut file that looks complete, a cell
that a spreadsheet runs as a formula, an export that is held in memory, and too many exports."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from flask import Flask
from marshmallow import Schema
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect, ExecutionTimeout

from jobmon.api.answers import JobSummary
from jobmon.api.export import _FORMULA, MAX_EXPORTS
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store import lists as lists_module
from jobmon.store.lists import JobLists
from jobmon.store.summaries import SUMMARY_FIELDS, summarize
from jobmon.web.json_text import dump_json

from ..conftest import DATE, NOW, SECRET, Api
from ..fuzz.documents import (
    NOW_MS,
    NULL,
    PLANTED,
    TYPED_JOB_VALUES,
    Dice,
    Value,
    build_document,
    date,
    document,
    int32,
    make_secret,
    text,
)
from ..support.commands import database_uri

QUEUE = "/admin/jobs/queue"
HEADER = (
    "jobId,type,status,priority,createdBy,createdAt,updatedAt,nextRunAt,maxAttempts,attemptCount,"
    "leasedBy,leaseExpiresAt,finishedAt,lastErrorCode,lastErrorMessage"
)


def read_by_cursors(api: Api, path: str, token: str, **query: Any) -> list[dict[str, Any]]:
    jobs, cursor = [], ""
    while cursor is not None:
        page = api.get(path, token=token, per_page=7, cursor=cursor, **query).json
        jobs += page["data"]
        cursor = page["meta"]["next_cursor"]
    return jobs


def make_cells(job: dict[str, Any]) -> dict[str, str]:
    """The cells of a job's row in CSV, by column."""
    error = job.pop("lastError") or {"code": None, "message": None}
    cells = job | {"lastErrorCode": error["code"], "lastErrorMessage": error["message"]}
    return {name: "" if value is None else str(value) for name, value in cells.items()}


@pytest.fixture(scope="module")
def sixty_jobs_api(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[Api]:
    """The service, with its indexes, over sixty jobs."""
    database = mongo["test_export"]
    database.jobs.insert_many(
        {
            "jobId": f"job-{index}",
            "createdBy": ["ada", "bob"][index % 5 == 0],
            "status": ["dlq", "queued"][index % 2],
            "createdAt": None if index % 9 == 0 else NOW + timedelta(seconds=index // 3),
            "lastError": {"code": "E", "message": 'a "quoted",\nbroken line', "stack": "not shown"},
            "payload": {"secret": 1},
        }
        for index in range(60)
    )
    uri = database_uri(mongod, database)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET))
    connection = app.extensions["jobmon_connection"]
    create_indexes(connection)
    yield Api(app)
    connection.client.close()
    mongo.drop_database(database.name)


@pytest.mark.parametrize("sort", ["-createdAt", "createdAt"])
@pytest.mark.parametrize("path", [QUEUE, "/jobs"])
@pytest.mark.parametrize(
    "query", [{}, {"status": "dlq"}, {"job_id": "job-1"}, {"created_from": f"{DATE}T03:00:10Z"}]
)
def test_an_export_equals_the_list_by_cursors(
    sixty_jobs_api: Api,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    query: dict[str, str],
    sort: str,
) -> None:
    monkeypatch.setattr(lists_module, "BATCH", 10)
    token = sixty_jobs_api.token("ada")
    expected = read_by_cursors(sixty_jobs_api, path, token, sort=sort, **query)
    assert len(expected) > 5

    ndjson_file = sixty_jobs_api.get(path, token=token, sort=sort, format="ndjson", **query)
    assert ndjson_file.content_type == "application/x-ndjson"
    *jobs, end = map(json.loads, ndjson_file.text.splitlines())
    assert jobs == expected
    assert end == {"end": True, "rows": len(expected)}

    csv_file = sixty_jobs_api.get(path, token=token, sort=sort, format="csv", **query)
    assert csv_file.content_type == "text/csv; charset=utf-8"
    assert csv_file.text.split("\r\n", 1)[0] == HEADER
    *rows, end_row = csv.DictReader(io.StringIO(csv_file.text, newline=""))
    assert rows == [make_cells(job) for job in expected]
    assert [*end_row.values()] == ["#end", str(len(expected)), *[""] * 13]


def test_a_file_has_a_name(api: Api) -> None:
    for file_format in ("csv", "ndjson"):
        answer = api.get_as_admin(QUEUE, format=file_format)
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith('attachment; filename="jobs-')
        assert disposition.endswith(f'Z.{file_format}"')
        assert answer.headers["Cache-Control"] == "no-store"
        answer.close()


def test_a_file_without_jobs_has_only_its_end(api: Api) -> None:
    assert api.get_as_admin(QUEUE, format="ndjson").text == '{"end": true, "rows": 0}\n'
    assert api.get_as_admin(QUEUE, format="csv").text == f"{HEADER}\r\n#end,0{',' * 13}\r\n"


def test_no_job_looks_like_the_end_of_a_file(api: Api, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "#end", "type": "1", "end": True, "rows": 1})
    table = list(csv.reader(io.StringIO(api.get_as_admin(QUEUE, format="csv").text, newline="")))
    assert [row[0] for row in table] == ["jobId", "'#end", "#end"]
    job, end = map(json.loads, api.get_as_admin(QUEUE, format="ndjson").text.splitlines())
    assert (job["jobId"], "end" in job) == ("#end", False)
    assert end == {"end": True, "rows": 1}


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\nplain", "'\nplain"),
        ("＝1+1", "'＝1+1"),
        ("＋1", "'＋1"),
        ("－1", "'－1"),
        ("＠SUM(A1)", "'＠SUM(A1)"),
        (" =1+1", "' =1+1"),
        ("\u00a0＝1", "'\u00a0＝1"),
        ("\ufeff@x", "'\ufeff@x"),
        (" a=1", " a=1"),
        ("#end", "'#end"),
        ("#ending", "#ending"),
        ("a=1", "a=1"),
        ("'=1", "'=1"),
        ("", ""),
        ("nul\0 and é", "nul\0 and é"),
    ],
)
def test_a_cell_is_never_a_formula(api: Api, watched: Any, value: str, cell: str) -> None:
    job = {"jobId": value, "type": value, "lastError": {"code": value, "message": value}}
    watched.jobs.insert_one({**job, "priority": -7})
    table = api.get_as_admin(QUEUE, format="csv").text
    row, _ = csv.DictReader(io.StringIO(table, newline=""))
    names = ("jobId", "type", "lastErrorCode", "lastErrorMessage")
    assert [row[name] for name in names] == [cell] * 4
    assert row["priority"] == "-7"
    line, _ = api.get_as_admin(QUEUE, format="ndjson").text.splitlines()
    assert json.loads(line)["jobId"] == value


# An Agenda job: names of its fields, each with usual values.
AGENDA_JOB = {
    b"name": [text("email.send")],
    b"data": [document((b"password", make_secret()))],
    b"priority": [int32(0)],
    b"nextRunAt": [date(NOW_MS), NULL],
    b"lastRunAt": [date(NOW_MS)],
    b"lastFinishedAt": [date(NOW_MS + 5), date(NOW_MS - 5)],
    b"lastModifiedBy": [text("worker-1")],
    b"lockedAt": [date(NOW_MS), NULL],
    b"failedAt": [date(NOW_MS + 5), NULL],
    b"failReason": [text("password=hunter2"), text("x" * 20_000)],
    b"failCount": [int32(2)],
    b"repeatInterval": [text("5 minutes"), NULL],
}
ODD_JOB_COUNT = 150


def read_by_schema(app: Flask) -> list[dict[str, Any]]:
    """All jobs as marshmallow's own code serializes them."""
    jobs = app.extensions["jobmon_connection"].jobs.find({}, SUMMARY_FIELDS, transform=summarize)
    schema = JobSummary()
    with app.app_context():
        answers = [Schema.dump(schema, job) for job in jobs]
    return [json.loads(dump_json(answer)) for answer in answers]


@pytest.mark.parametrize(
    ("profile", "collection", "fields"),
    [
        ("jobmon", "jobs", TYPED_JOB_VALUES | {b"priority": [int32(5)]}),
        ("agenda", "agendaJobs", AGENDA_JOB),
    ],
    ids=["jobmon", "agenda"],
)
def test_rows_of_odd_jobs_equal_the_output_of_the_schema(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    profile: str,
    collection: str,
    fields: dict[bytes, list[Value]],
) -> None:
    """Catches rows that show a value or a missing field in another way, or a secret."""
    for index in range(ODD_JOB_COUNT):
        ids = {"_id": Value(0x07, ObjectId().binary), "jobId": text(f"job-{index}")}
        database[collection].insert_one(build_document(Dice(index).draw_fields(fields), **ids))
    settings = Settings(
        mongo_uri=database_uri(mongod, database),
        jwt_secret_key=SECRET,
        profile=profile,
        jobs_collection=collection,
    )
    api = Api(create_app(settings))
    with closing(api.app.extensions["jobmon_connection"].client):
        expected = {job["jobId"]: job for job in read_by_schema(api.app)}
        assert len(expected) == ODD_JOB_COUNT

        lines = api.get_as_admin(QUEUE, format="ndjson").text
        *jobs, end = map(json.loads, lines.removesuffix("\n").split("\n"))
        assert {job["jobId"]: job for job in jobs} == expected
        assert end == {"end": True, "rows": ODD_JOB_COUNT}

        table = api.get_as_admin(QUEUE, format="csv").text
        *rows, _ = csv.DictReader(io.StringIO(table, newline=""))
        rows_by_id = {row["jobId"].removeprefix("'"): row for row in rows}
        for job_id, job in expected.items():
            for name, cell in make_cells(job).items():
                assert rows_by_id[job_id][name] in (cell, f"'{cell}")
        for file_text in (lines, table):
            assert PLANTED not in file_text
            assert "hunter2" not in file_text


def test_no_formula_begins_with_a_letter_or_a_digit() -> None:
    """Catches an unescaped formula: a cell that begins with a letter or a digit is not checked."""
    first_characters = [chr(code) for code in range(0x10000) if _FORMULA.match(f"{chr(code)}=1")]
    assert len(first_characters) > 50
    assert not any(character.isalnum() for character in first_characters)


def make_batches(
    *batches_or_faults: list[dict[str, Any]] | Exception, read_indexes: list[int] | None = None
) -> Any:
    """A `JobLists.batches` that yields batches or raises faults, and records what was read."""

    def batches(*_: Any, **__: Any) -> Iterator[list[dict[str, Any]]]:
        for index, batch_or_fault in enumerate(batches_or_faults):
            if read_indexes is not None:
                read_indexes.append(index)
            if isinstance(batch_or_fault, Exception):
                raise batch_or_fault
            yield batch_or_fault

    return batches


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
def test_a_batch_is_read_after_the_previous_one_was_sent(
    api: Api, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    read_indexes: list[int] = []
    batches = [[{"jobId": f"{batch}-{index}"} for index in range(3)] for batch in range(50)]
    monkeypatch.setattr(JobLists, "batches", make_batches(*batches, read_indexes=read_indexes))
    answer = api.get_as_admin(QUEUE, format=file_format)
    sent_count = 0
    for chunk in answer.iter_encoded():
        sent_count += chunk.count(b"-2")  # the last job of each batch
        assert len(read_indexes) <= sent_count + 1
    assert sent_count == len(read_indexes) == 50


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
def test_a_fault_during_an_export_closes_the_connection_and_is_logged_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, file_format: str
) -> None:
    fault = ExecutionTimeout("hidden", 50, {"codeName": "MaxTimeMSExpired"})
    monkeypatch.setattr(JobLists, "batches", make_batches([{"jobId": "first"}], fault))
    for _ in range(3):  # more exports than a caller may run at once: each must release its slot
        caplog.clear()
        answer = api.get_as_admin(QUEUE, format=file_format)
        assert answer.status_code == 200
        content = b""
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - the chunks before it matter
            for chunk in answer.iter_encoded():
                content += chunk
        answer.close()
        assert b"first" in content
        assert b"#end" not in content
        assert b'"end"' not in content
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "MaxTimeMSExpired" in record.getMessage()
        assert "hidden" not in caplog.text


def test_a_fault_before_the_first_byte_is_a_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobLists, "batches", make_batches(AutoReconnect("hidden")))
    for _ in range(3):
        answer = api.get_as_admin(QUEUE, format="csv")
        assert answer.status_code == 503
        assert answer.json["error"]["code"] == "database_unavailable"
        assert "Content-Disposition" not in answer.headers


def test_exports_are_limited_per_caller_and_in_total(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches one caller who takes all exports, and a slot that is never released."""
    monkeypatch.setattr(JobLists, "batches", make_batches([{"jobId": "a"}], [{"jobId": "b"}]))

    def start_export(owner: str) -> Any:
        return api.get_as_owner("/jobs", owner, format="ndjson")

    running_exports = [start_export("ada")]
    for refused in (start_export("ada"), api.get_as_owner("/jobs", "ada", format="csv")):
        assert refused.status_code == 429
        assert refused.json["error"]["code"] == "rate_limited"
        assert "You already have an export" in refused.json["error"]["message"]
        assert int(refused.headers["Retry-After"]) > 0
    assert api.get_as_owner("/jobs", "ada").status_code == 200
    running_exports += [start_export(f"owner-{index}") for index in range(MAX_EXPORTS - 1)]
    assert {answer.status_code for answer in running_exports} == {200}
    assert str(MAX_EXPORTS) in api.get_as_admin(QUEUE, format="csv").json["error"]["message"]
    running_exports.pop().close()  # as if the caller disconnected
    next_export = api.get_as_admin(QUEUE, format="ndjson")
    *jobs, _ = map(json.loads, next_export.text.splitlines())
    assert [job["jobId"] for job in jobs] == ["a", "b"]
    next_export.close()  # must not release a slot again: the end of the file has released it
    headers = {"Authorization": f"Bearer {api.token()}"}
    api.client.head(f"{QUEUE}?format=csv", headers=headers).close()
    running_exports.append(api.get_as_admin(QUEUE, format="csv"))
    assert {answer.status_code for answer in running_exports} == {200}
    assert start_export("eve").status_code == 429
    for answer in running_exports:
        answer.close()
    assert start_export("ada").status_code == 200
