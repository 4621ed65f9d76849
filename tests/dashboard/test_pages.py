"""The pages as a browser receives them: catches content that becomes markup, a page that the
content security policy blocks, an error without a page, a page that grows with the documents, and
a database read for each viewer."""

import math
import os
import re
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import brotli
import pytest
from flask import render_template
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.dashboard import assets, overview_page, session
from jobmon.dashboard.action_buttons import ActionButtons
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.list_form import ListForm
from jobmon.demo.mongod import Mongod
from jobmon.rollup.stats import StatsReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.bson_json import to_iso
from jobmon.store.lists import JobLists
from jobmon.web.errors import unavailable

from ..conftest import DATE, NEXT_DATE, NOW, Api
from ..support.commands import database_uri, index_queue
from ..support.pages import Page, Viewer
from ..support.waiting import PATIENCE_S, eventually
from .conftest import MakeApi, signed_in

OVERVIEW, JOBS = "/dashboard", "/dashboard/jobs"
PAGES = (
    OVERVIEW,
    f"{OVERVIEW}?range=24h&by=type&text=a",
    JOBS,
    f"{JOBS}?status=queued&status=odd&type=a&type=b&sort=createdAt",
    "/dashboard/my",
    "/dashboard/schedule?window=week",
    "/dashboard/recurring",
    f"{JOBS}/j1",
    "/dashboard/sign-in",
)
IMMUTABLE = "public, max-age=31536000, immutable"
ERROR_STATUSES = {
    "/dashboard/nothing": 404,
    "/dashboard/static/nothing.js": 404,
    f"/dashboard/static/{'x' * 300}.js": 404,
    f"{JOBS}/missing": 403,
    f"{JOBS}?page=x": 422,
    f"{OVERVIEW}?range=2y": 422,
}


def make_job(**fields: Any) -> dict[str, Any]:
    return {
        "jobId": "j1",
        "type": "mail.send",
        "status": "failed",
        "payload": {"to": "ada"},
        "createdBy": "root",
        "createdAt": NOW,
        "attemptCount": 1,
        "maxAttempts": 3,
        "lastError": {"code": "E1", "message": "broken", "stack": "at line 1"},
    } | fields


def make_attempt(**fields: Any) -> dict[str, Any]:
    return {
        "jobId": "j1",
        "attemptNumber": 1,
        "status": "failed",
        "workerId": "w1",
        "startedAt": NOW,
        "finishedAt": NOW + timedelta(seconds=1),
        "error": {"code": "E1", "message": "broken", "stack": "at line 1"},
    } | fields


@pytest.fixture
def one_job(watched: Any) -> None:
    watched.jobs.insert_one(make_job())
    watched.job_attempts.insert_one(make_attempt())


def assert_clean(page: Page, name: object) -> None:
    """Fail if anything is inline or of another origin; `name` names the page in the message."""
    assert page.in_scripts == "", name
    for tag, attrs in page.elements:
        assert tag not in ("style", "iframe", "object", "embed", "base"), name
        assert tag != "script" or attrs["src"], name
        assert not [key for key in attrs if key.startswith(("on", "hx-on"))], name
        assert "style" not in attrs, name
    for address in page.addresses():
        assert re.match(r"/dashboard(?![\w.@-])|/docs$|\?|#|$", address), (name, address)


@pytest.mark.usefixtures("one_job")
def test_pages_have_nothing_inline_or_of_another_origin(admin: Viewer, visitor: Viewer) -> None:
    for path, status in {**dict.fromkeys(PAGES, 200), **ERROR_STATUSES}.items():
        assert_clean(admin.page(path, status), path)
    assert_clean(Page(visitor.get(JOBS, Sec_Fetch_Site="cross-site").text), "arrive")


# The times in the header of a page: their digits are not content of the job.
TIME = re.compile(r"\d\d:\d\d:\d\d(\.\d+Z| UTC)")
HOSTILE = (
    "\"><script>alert(1)</script><img src=x onerror=alert(2)>' onmouseover='alert(3)",
    "</textarea></title></script></style><!-- --><svg/onload=alert(4)>\"`='{{7*7}}{% raw %}",
    "javascript:alert(5)//\u202e\u0007&lt;b&gt;&quot; style=x autofocus/onfocus=alert(6) <b",
    "https://evil.example/\\?a=b#c %3Cscript%3E%00",
)


def replace_markup(text: str) -> str:
    """A text of the same length without any markup."""
    return re.sub(r"[^a-z]", "x", text)


def make_documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job and an attempt with `text` in every field that can contain a text."""
    error = {"code": text, "message": text, "stack": text}
    key = text.replace(".", ",").replace("$", "S").replace("\0", "")
    fields = {
        "jobId": text,
        "type": text,
        "createdBy": text,
        "leasedBy": text,
        "lastError": error,
        "payload": {key: [text, {key: text}]},
    }
    unusual_types = {"status": text, "updatedAt": text, "nextRunAt": text, "finishedAt": text}
    return (
        make_job(**fields, **unusual_types, leaseExpiresAt=text),
        make_attempt(jobId=text, status=text, workerId=text, startedAt=text, error=error),
    )


def load_pages(make_api: MakeApi, watched: Any, text: str) -> dict[str, Page]:
    """The pages, by name, over documents with `text` in every field; parameters have it, too."""
    for collection, document in zip(
        (watched.jobs, watched.job_attempts), make_documents(text), strict=True
    ):
        collection.delete_many({})
        collection.insert_one(document)
    due = datetime.now(UTC) - timedelta(hours=1)
    watched.jobs.insert_one({"status": "queued", "type": text, "createdAt": due, "nextRunAt": due})
    api = make_api()
    client = signed_in(api, subject=text).client

    def read_page(path: str, expected: int = 200, /, **query: str) -> Page:
        answer = client.get(path, query_string=query or None)
        page = Page(answer.text)
        assert answer.status_code == expected, page.text[-600:]
        return page

    with api.app.test_request_context(JOBS):
        context = _make_list_context(text)
        rows = Page(render_template("dashboard/_jobs.html", actions=ActionButtons(), **context))
    address = next(address for address in rows.addresses() if address.startswith(f"{JOBS}/"))
    return {
        "overview": read_page(OVERVIEW, text=text),
        "overview of all": read_page(OVERVIEW),
        "jobs": read_page(JOBS),
        "jobs with this type": read_page(JOBS, status=text, type=text, owner=text),
        "jobs with this error": read_page(JOBS, error_code=text),
        "jobs with wrong dates": read_page(
            JOBS, 422, created_from=text, sort=text, cursor=text, job_id=text
        ),
        "my jobs": read_page("/dashboard/my", type=text),
        "job": read_page(address),
        "sign in": read_page("/dashboard/sign-in", then=text),
        "sign in before jobs": Page(api.client.get(JOBS, query_string={"type": text}).text),
        "unknown range": read_page(OVERVIEW, 422, range=text),
        "unknown job": read_page(JOBS + "/" + "x" * len(text), 403),
    }


def _make_list_context(text: str) -> dict[str, Any]:
    """The values for the rows of a list: a job with the id `text`, and `text` as a reason."""
    job = JobView(id=text, type="t", status="s", attempt_count=1)
    meta = {"total": 1, "total_is_exact": True, "page": 1, "total_pages": 1}
    meta |= {"page_is_exact": False, "reasons": {"page": text}}
    return {
        "form": ListForm(JOBS, {"status": [], "type": []}, (), {}),
        "meta": meta,
        "jobs": [job],
        "is_own_list": True,
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_content_never_becomes_markup(make_api: MakeApi, watched: Any, text: str) -> None:
    harmless = load_pages(make_api, watched, replace_markup(text))
    hostile = load_pages(make_api, watched, text)
    for name, page in hostile.items():
        assert page.skeleton == harmless[name].skeleton, name
        assert page.ends == harmless[name].ends, name
        assert page.comments == [], name
        assert_clean(page, name)
    # The text is shown unchanged. The page of the job was opened by its link in the list.
    assert text in hostile["job"].text
    assert text in hostile["overview of all"].text
    assert f"{text} is stalled" in hostile["overview of all"].text
    assert "49" not in TIME.sub("", hostile["job"].text)  # the value of {{7*7}}


def test_secrets_stay_hidden_in_pages(admin: Viewer, watched: Any) -> None:
    secret = {"password": "hunter2", "deep": [{"apiKey": "hunter2", "ok": "shown"}]}
    error = {"code": "E", "message": {"token": "hunter2"}, "stack": {"cookie": "hunter2"}}
    watched.jobs.insert_one(make_job(payload=secret, lastError=error))
    watched.job_attempts.insert_one(make_attempt(error=error))
    for path in (f"{JOBS}/j1", JOBS, f"{JOBS}?format=csv", f"{JOBS}?format=ndjson"):
        answer = admin.get(path)
        assert answer.status_code == 200
        assert "hunter2" not in answer.text, path
    page = admin.page(f"{JOBS}/j1")
    assert "[redacted]" in page.text
    assert "shown" in page.text


@pytest.mark.usefixtures("one_job")
def test_part_is_304_until_the_queue_changes(
    make_api: MakeApi, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_page, "CACHE_TTL_S", 0)
    admin = signed_in(make_api())
    paths = ("/dashboard/overview", JOBS, f"{JOBS}/j1", "/dashboard/my")
    tags = {}
    for path in (*paths, "/dashboard/charts"):
        first = admin.get(path, part=True, Accept_Encoding="br")
        assert first.status_code == 200
        assert first.headers["Cache-Control"] == "no-store"
        tags[path] = first.headers["ETag"]
        again = admin.get(path, part=True, Accept_Encoding="br", If_None_Match=tags[path])
        assert (again.status_code, again.data) == (304, b""), path
        assert again.headers["ETag"] == tags[path]
        weak_tag = f"W/{tags[path]}"  # as nginx makes it
        weak = admin.get(path, part=True, Accept_Encoding="br", If_None_Match=weak_tag)
        assert weak.status_code == 304, path
    watched.jobs.update_one({}, {"$set": {"status": "dlq", "finishedAt": NOW}})
    for path in paths:
        changed = admin.get(path, part=True, Accept_Encoding="br", If_None_Match=tags[path])
        assert changed.status_code == 200, path
        assert changed.headers["ETag"] != tags[path]


@pytest.mark.usefixtures("one_job")
def test_overview_is_compressed_once_for_all_viewers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an overview that is compressed for each of a hundred viewers, each second."""
    compressed: list[bytes] = []
    compress = brotli.compress

    def record(content: bytes, **options: Any) -> bytes:
        compressed.append(content)
        return bytes(compress(content, **options))

    monkeypatch.setattr(brotli, "compress", record)
    monkeypatch.setattr(overview_page, "CACHE_TTL_S", math.inf)
    tag = ""
    for subject, status in (("ada", 200), ("bob", 200), ("ada", 304), ("bob", 304)):
        answer = signed_in(api, subject).get(
            "/dashboard/overview",
            part=True,
            Accept_Encoding="br",
            If_None_Match=tag if status == 304 else "",
        )
        assert answer.status_code == status
        tag = answer.headers["ETag"]
    assert len(compressed) == 1


def test_charts_are_json_columns_of_the_same_length(admin: Viewer) -> None:
    answer = admin.get("/dashboard/charts")
    assert answer.content_type == "application/json"
    assert len(answer.json["at"]) in (60, 61)
    assert len(answer.json["succeeded"]) == len(answer.json["at"])


def test_shared_part_contains_nothing_about_a_viewer(api: Api, watched: Any) -> None:
    watched.jobs.insert_one(make_job(createdBy="ada"))
    first, second = signed_in(api, "viewer-1"), signed_in(api, "viewer-2")
    second.client.set_cookie("jobmon_theme", "dark", path="/dashboard")
    part, same_part = (viewer.get("/dashboard/overview", part=True) for viewer in (first, second))
    assert part.data == same_part.data
    assert "viewer" not in part.text
    page = second.get(OVERVIEW).text
    assert "viewer-2" in page
    assert "viewer-1" not in page


def test_simultaneous_viewers_share_one_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[None] = []
    may_end = threading.Event()
    stats = StatsReader.stats

    def read_slowly(reader: StatsReader) -> Any:
        reads.append(None)
        assert may_end.wait(PATIENCE_S)
        return stats(reader)

    monkeypatch.setattr(StatsReader, "stats", read_slowly)
    monkeypatch.setattr(overview_page, "CACHE_TTL_S", 60)
    viewers = [signed_in(api, f"viewer-{index}") for index in range(8)]
    statuses: list[int] = []
    paths = (OVERVIEW, "/dashboard/overview")
    threads = [
        threading.Thread(target=lambda v=viewer, p=path: statuses.append(v.get(p).status_code))
        for viewer in viewers
        for path in paths
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: reads)
    may_end.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 16
    assert len(reads) == 1


INVALID_QUERIES = [  # of a list, each with the message on the page
    ("page=0", "page: Must"),
    ("per_page=1000", "per_page: Must"),
    ("job_id=abc", "Must have at least 4 characters."),
    ("created_from=yesterday", "Not a valid datetime."),
    (f"created_from={NEXT_DATE}&created_to={DATE}", 'Must be later than "Created from".'),
    (f"condition=expired&due_to={DATE}", 'Cannot be combined with "Due before".'),
    ("sort=type", "Must be one of"),
    (
        "sort=nextRunAt",
        '"Condition: due now", "Due from", "Due before", or "Status" with queued or',
    ),
    ("sort=nextRunAt", "or retrying. Show the newest first"),
    ("cursor=!", "This page link is no longer valid."),
    ("format=xml", "format: Must"),
    ("format=csv&page=2", "page: Cannot"),
    ("owner=ada&owner=&owner=bob", "Given more than once."),
    (f"from={DATE}&created_from={NEXT_DATE}", "Given more than once."),
    ("status=" + "s" * 201, "Longer than"),
    ("&".join(f"type=t{index}" for index in range(21)), "Longer than"),
]


def test_list_with_an_invalid_parameter_names_it_and_keeps_the_form(admin: Viewer) -> None:
    for query, message in INVALID_QUERIES:
        page = admin.page(f"{JOBS}?{query}", 422)
        assert message in page.text, query
        assert [attrs for _, attrs in page.elements if attrs.get("role") == "alert"], query
        assert not page.all("div", id="jobs")
    page = admin.page(f"{JOBS}?job_id=abc&type=mail&owner=ada&status=dlq&status=odd", 422)
    values = {attrs.get("name"): attrs.get("value") for attrs in reversed(page.all("input"))}
    assert (values["job_id"], values["owner"], values["type"]) == ("abc", "ada", "mail")
    boxes = [box["value"] for box in page.all("input", type="checkbox") if "checked" in box]
    assert boxes == ["dlq", "odd"]
    assert page.all("input", **{"name": "job_id", "aria-invalid": "true"})
    assert JOBS in page.addresses()  # the link that clears the filters


def test_link_below_the_error_of_a_filter_without_a_field_opens_the_list(ada: Viewer) -> None:
    """Catches a link to an address that still has the refused filter."""
    refused = ada.get("/dashboard/my?worker=w1&type=mail")
    assert refused.status_code == 422
    assert '<a href="/dashboard/my?type=mail">Open without it</a>' in refused.text


def test_rows_name_the_event_of_their_date(admin: Viewer, watched: Any) -> None:
    """Catches a date without its event: due, finished or the end of a lease."""
    past, soon = (datetime.now(UTC) + sign * timedelta(hours=3) for sign in (-1, 1))
    leased = {"status": "leased", "leasedBy": "w1", "nextRunAt": past}
    watched.jobs.insert_many(
        [
            make_job(jobId="1", status="queued", nextRunAt=past),
            make_job(jobId="2", status="failed", nextRunAt=soon),
            make_job(jobId="3", leaseExpiresAt=soon, **leased),
            make_job(jobId="4", leaseExpiresAt=past, **leased),
            make_job(jobId="5", status="dlq", nextRunAt=past, finishedAt=past),
            make_job(jobId="6", status="odd", nextRunAt=past),
        ]
    )
    text = admin.page(f"{JOBS}?sort=createdAt").text
    events = re.findall(r"(due|lease ends|lease ended|finished) (?=20\d\d-)", text)
    assert events == ["due", "due", "lease ends", "lease ended", "finished"]
    dates = admin.page(JOBS).all("time", **{"data-as": "relative"})
    assert len(dates) == len(events)


def test_list_ignores_empty_filters(admin: Viewer, one_job: None) -> None:
    page = admin.page(f"{JOBS}?status=&type=&owner=&page=&created_from=&sort=&format=&cursor=")
    assert page.all("tr", id="job-j1")
    assert not [box for box in page.all("input", type="checkbox") if "checked" in box]


def test_list_filters_by_search_fields_and_keeps_them_in_links(
    make_api: MakeApi, watched: Any
) -> None:
    watched.jobs.insert_many(
        [make_job(jobId=f"j{index}", payload={"order": {"id": index % 2}}) for index in range(9)]
    )
    api = make_api(search_fields=("payload.order.id", "payload.customer"))
    for viewer, path in ((signed_in(api), JOBS), (signed_in(api, role="user"), "/dashboard/my")):
        names = [box.get("name") or "" for box in viewer.page(path).all("input")]
        fields = [name for name in names if "payload" in name]
        assert fields == ["payload.order.id", "payload.customer"]
        page = viewer.page(f"{path}?payload.order.id=1&per_page=2")
        (box,) = page.all("input", name="payload.order.id")
        assert box["value"] == "1"
        assert len([row for row in page.all("tr") if row.get("id")]) == 2
        links = [
            attrs["href"] or "" for attrs in page.all("a") if "rel" in attrs or "download" in attrs
        ]
        assert len(links) == 3
        assert all("payload.order.id=1" in link for link in links)
        assert "No jobs match" in viewer.page(f"{path}?payload.customer=ada").text
        assert "x: Not a field" in viewer.page(f"{path}?payload.x=1", 422).text
    assert not signed_in(make_api()).page(JOBS).all("input", name="payload.order.id")


def test_list_links_to_its_next_and_previous_page(real_api: Api, database: Any) -> None:
    admin = signed_in(real_api)
    database.jobs.insert_many(
        [make_job(jobId=f"job-{n:02d}", createdAt=NOW + timedelta(seconds=n)) for n in range(60)]
    )

    def list_rows(page: Page) -> list[str]:
        return [row["id"] or "" for row in page.all("tr") if row.get("id")]

    def find_link(page: Page, rel: str) -> str:
        return next((attrs["href"] or "" for attrs in page.all("a", rel=rel)), "")

    first = admin.page(f"{JOBS}?job_id=job-")
    second = admin.page(find_link(first, "next"))
    third = admin.page(find_link(second, "next"))
    assert [row for page in (first, second, third) for row in list_rows(page)] == [
        f"job-job-{n:02d}" for n in reversed(range(60))
    ]
    assert (find_link(third, "next"), find_link(first, "prev")) == ("", "")
    assert list_rows(admin.page(find_link(third, "prev"))) == list_rows(second)


def test_empty_page_offers_to_remove_the_filter_that_excludes_all_jobs(
    admin: Viewer, watched: Any
) -> None:
    """Catches an offer that depends on the page: its link leads to the first page."""
    watched.jobs.insert_one(make_job(status="queued"))
    page = admin.page(f"{JOBS}?status=dlq&page=5")
    assert "There are jobs without one of these filters:" in page.text


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, ("newer", "older")),
        ({"sort": "createdAt"}, ("older", "newer")),
        ({"due_from": NOW.isoformat()}, ("later", "sooner")),
        ({"due_from": NOW.isoformat(), "sort": "nextRunAt"}, ("sooner", "later")),
    ],
)
def test_links_to_other_pages_name_the_order_of_the_list(
    real_api: Api, database: Any, parameters: dict[str, str], words: tuple[str, str]
) -> None:
    """Catches "older" in a list that is in the order of another date."""
    create_indexes(real_api.app.extensions["jobmon_connection"])
    jobs = [make_job(jobId=f"job-{index}", nextRunAt=NOW, finishedAt=NOW) for index in range(3)]
    database.jobs.insert_many(jobs)
    admin = signed_in(real_api)
    query = urlencode({**parameters, "per_page": 1})
    first = admin.page(f"{JOBS}?{query}")
    (link,) = first.all("a", rel="next")
    second = admin.page(link["href"] or "")
    assert f"← {words[0]}" in second.text
    assert f"{words[1]} →" in second.text


def test_overview_of_a_real_queue_shows_its_activity(real_api: Api, database: Any) -> None:
    now = datetime.now(UTC)
    create_indexes(real_api.app.extensions["jobmon_connection"])
    database.jobs.insert_one(make_job(status="dlq", createdAt=now, finishedAt=now))
    database.job_attempts.insert_one(
        make_attempt(startedAt=now - timedelta(seconds=3), finishedAt=now)
    )
    admin = signed_in(real_api)
    page = admin.page(OVERVIEW)
    assert "1 job died in the last hour: mail.send" in page.text
    assert re.search(r"Failure rate\s+100%", page.text)
    columns = admin.get("/dashboard/charts").json
    totals = {name: sum(filter(None, columns[name])) for name in ("enqueued", "failed", "dlq")}
    assert totals == {"enqueued": 1, "failed": 1, "dlq": 1}


def test_overview_without_the_indexes_has_no_history(real_api: Api, database: Any) -> None:
    database.jobs.insert_one(make_job(finishedAt=NOW))
    admin = signed_in(real_api)
    text = admin.page(OVERVIEW).text
    assert "mail.send" in text
    assert (
        "new dead jobs, failure rates (indexes are missing). Create them with jobmon init" in text
    )
    assert "All clear" not in text
    charts = admin.get("/dashboard/charts", part=True)
    assert (charts.status_code, charts.headers["X-Error-Code"]) == (503, "indexes_missing")
    assert real_api.get_as_admin("/admin/jobs/timeseries").status_code == 503


def test_overview_with_a_collector_but_no_indexes_is_not_all_clear(
    mongod: Mongod, database: Any, make_settings: Callable[..., Settings]
) -> None:
    """Catches "All clear" although 86 jobs are overdue, and the advice to start a collector."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    database.jobs.insert_many(
        make_job(jobId=f"j{index}", status=status, createdAt=long_ago, nextRunAt=long_ago)
        | {"finishedAt": long_ago if status == "dlq" else None}
        for index, status in enumerate(["queued"] * 86 + ["dlq"] * 60)
    )
    rollups = f"{database.name}_rollups"
    settings = make_settings(mongo_uri=database_uri(mongod, database), rollup_db=rollups)
    try:
        with collecting(settings):
            api = Api(create_app(settings))
            eventually(lambda: api.get_as_admin("/admin/jobs/stats").json["source"] == "rollup")
            for address in (OVERVIEW, f"{OVERVIEW}?range=24h"):
                text = signed_in(api).page(address).text
                assert "All clear" not in text
                assert re.search(r"Not checked: .*stalled types, new dead jobs", text)
                assert "(indexes are missing). Create them with jobmon init" in text
                assert "Start jobmon collector" not in text
                assert "no collector" not in text.lower()
            charts = signed_in(api).get("/dashboard/charts?range=24h", part=True)
            assert charts.headers["X-Error-Code"] == "indexes_missing"
            api.app.extensions["jobmon_connection"].client.close()
    finally:
        database.client.drop_database(rollups)


def test_notice_links_to_exactly_the_jobs_that_it_counts(real_api: Api, database: Any) -> None:
    create_indexes(real_api.app.extensions["jobmon_connection"])
    now = datetime.now(UTC)
    past, soon = now - timedelta(minutes=30), now + timedelta(minutes=30)
    kinds = {
        "stuck": [{"status": "leased", "leaseExpiresAt": past}] * 3,
        "held": [{"status": "leased", "leaseExpiresAt": soon}] * 4,
        "died": [{"status": "dlq", "finishedAt": past}] * 5,
        "dead": [{"status": "dlq", "finishedAt": now - timedelta(days=2)}] * 6,
        "late": [{"status": "queued", "nextRunAt": past}] * 7,
        "later": [{"status": "queued", "nextRunAt": soon}] * 8,
        "retry": [{"status": "failed", "nextRunAt": past}] * 2,
    }
    database.jobs.insert_many(
        make_job(
            jobId=f"{kind}-{index}", type=kind, createdAt=past, **{"finishedAt": None} | fields
        )
        for kind, jobs in kinds.items()
        for index, fields in enumerate(jobs)
    )
    admin = signed_in(real_api)
    overview = admin.page(OVERVIEW)
    links = {link["href"] or "" for link in overview.all("a", dir="auto")}
    counts = [
        int(match[1])
        for link in links
        if "condition" in link or "finished_from" in link
        if (match := re.search(r"([\d,]+) jobs?\n", admin.page(link).text))
    ]
    assert sorted(counts) == [3, 5, 9]  # stuck, died in the last hour, due
    text = overview.text
    assert "3 jobs stuck" in text
    assert "5 jobs died in the last hour" in text
    assert "while 9 jobs are due" in text
    table = admin.page(next(link for link in links if "only=stalled" in link))
    assert "2 stalled types" in table.text
    assert {row["id"] for row in table.all("tr") if "id" in row} == {"type-late", "type-retry"}


def test_unknown_page_or_parameter_value_is_an_error_page_that_names_it(admin: Viewer) -> None:
    assert "Page not found" in admin.page("/dashboard/nothing", 404).text
    assert "Page not found" in admin.page("/dashboard/jobs/", 404).text
    for query, name in (
        ("by=colour", "by"),
        ("by=--type", "by"),
        ("only=odd", "only"),
    ):
        page = admin.page(f"{OVERVIEW}?{query}", 422)
        assert page.all("dl")
        assert f"{name}One of" in page.text
        assert admin.get(f"/dashboard/overview?{query}", part=True).status_code == 422


def test_repeated_parameter_of_a_page_is_refused(admin: Viewer, one_job: None) -> None:
    """Catches a page that shows its first value, although the API refuses the parameter."""
    for path, name, *values in (
        (OVERVIEW, "by", "type", "-queued"),
        (OVERVIEW, "text", "mail", "sms"),
        ("/dashboard/schedule", "window", "hour", "day"),
        ("/dashboard/recurring", "cursor", "a", "b"),
        ("/dashboard/find", "q", "a", "b"),
        ("/dashboard/type", "name", "a", "b"),
        ("/dashboard/job", "id", "j1", "j2"),
    ):
        for last in values:
            page = admin.page(f"{path}?{name}={values[0]}&{name}=&{name}={last}", 422)
            assert f"{name}Given more than once." in page.text
    assert admin.page(f"{OVERVIEW}?by=type&by=")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{JOBS}?type=mail&error_group=0", "error_group: There is no such group of errors"),
        (f"{JOBS}?priority=x&page=0", "priority: Not a valid integer. page: Must "),
        ("/dashboard/overview?only=odd", "only: One of "),
    ],
)
def test_part_of_a_refused_list_has_the_reason(admin: Viewer, path: str, message: str) -> None:
    """Catches an open page that shows "no longer exists" instead of the bad parameter."""
    part = admin.get(path, part=True)
    assert (part.status_code, part.headers["X-Error-Code"]) == (422, "validation_error")
    assert part.content_type == "text/plain; charset=utf-8"
    assert part.text.startswith(message)


def test_charts_of_a_day_without_a_collector_are_unavailable(admin: Viewer) -> None:
    assert re.search(
        r"Failure rate\s+–\s+no collector is running", admin.page(f"{OVERVIEW}?range=24h").text
    )
    answer = admin.get("/dashboard/charts?range=24h", part=True)
    assert answer.status_code == 503
    assert answer.text.startswith("There is no history of this window")
    assert answer.headers["X-Error-Code"] == "collector_unavailable"


def test_runs_of_jobs_that_were_deleted_have_a_reason_for_their_type(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    """Catches a number of a type, or of deaths, that is too low and looks right."""
    index_queue(real_api.app.extensions["jobmon_settings"])
    now = datetime.now(UTC)
    run = {"status": "failed", "startedAt": now, "finishedAt": now, "attemptNumber": 1}
    database.job_attempts.insert_one({"jobId": "deleted", **run})

    def read_reason() -> str:
        meta = real_api.get_as_admin("/admin/jobs/types").json["meta"]
        return str(meta["reasons"].get("type", ""))

    eventually(lambda: read_reason().startswith("Of 1 run the type is null"))
    assert "Of 1 run the type is null" in signed_in(real_api).page(OVERVIEW).text
    database.jobs.insert_one({"jobId": "typeless", "createdAt": now - timedelta(days=1)})
    eventually(lambda: not read_reason())


def test_form_that_is_answered_with_503_is_not_reloaded(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a reload by GET, which does not send the form again."""

    def refuse() -> None:
        raise unavailable("overloaded", "Too many requests at once.")

    monkeypatch.setattr(session, "require_same_origin", refuse)
    answer = admin.post("/dashboard/sign-out")
    assert answer.status_code == 503
    page = Page(answer.text)
    assert "Go back and send the form again." in page.text
    assert "data-reload-after" not in answer.text
    assert "Reload now" not in page.text


def test_page_without_the_database_is_503_with_the_reason(api_without_database: Api) -> None:
    admin = signed_in(api_without_database)
    for path in (OVERVIEW, f"{JOBS}/a%3Fb?x=1"):
        answer = admin.get(path)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        page = Page(answer.text)
        assert "Database not responding" in page.text
        assert page.all("section", **{"data-reload-after": answer.headers["Retry-After"]})
        assert "jobmon is up and retrying" in page.text
        # A signed-in viewer still has the links to the other pages.
        links = [link["data-go"] for link in page.all("a") if "data-go" in link]
        assert links == ["o", "j", "e", "w", "s", "m", "d"]
        assert page.all("form", action="/dashboard/sign-out")
        assert "user:" not in answer.text
        assert path in page.addresses()  # the link to try again
    for path in ("/dashboard/overview", "/dashboard/charts"):
        part = admin.get(path, part=True)
        assert part.status_code == 503
        assert part.text == "The database does not answer. Try again."
        assert part.headers["X-Error-Code"] == "database_unavailable"
        assert int(part.headers["Retry-After"]) > 0


def test_page_without_session_and_database_has_no_navigation(api_without_database: Api) -> None:
    for viewer in (Viewer(api_without_database.app), signed_in(api_without_database, seconds=-60)):
        assert not viewer.page(OVERVIEW, 401).all("nav")


def read_held_rows(viewer: Viewer, path: str, ids: Collection[str]) -> dict[str, tuple[bool, bool]]:
    """The held rows outside the list: by id, whether a row is unmatched, and gone."""
    held = ",".join(quote(name, safe="") for name in ids)
    page = Page(viewer.get(path, part=True, X_Jobmon_Held=held).text)
    elements = [(tag, attrs) for tag, attrs in page.elements if tag in ("table", "tr")]
    start = elements.index(("table", {"hidden": None, "id": "held-rows"})) + 1
    return {
        str(attrs["id"]): (attrs.get("class") == "unmatched", "data-gone" in attrs)
        for _, attrs in elements[start:]
    }


def test_held_rows_show_their_present_state(admin: Viewer, ada: Viewer, watched: Any) -> None:
    """Catches a finished job that stays "running" because the mouse pointer holds its row."""
    names = ("still/leased,1", "done", "elsewhere", "deleted?")
    watched.jobs.insert_many(
        [
            {"jobId": names[0], "status": "leased", "createdBy": "ada"},
            {"jobId": names[1], "status": "succeeded", "createdBy": "ada"},
            {"jobId": names[2], "status": "leased", "createdBy": "bob"},
        ]
    )
    # The two other held jobs match: they are among the rows of the list.
    assert read_held_rows(admin, f"{JOBS}?status=leased", names) == {
        "job-done": (True, False),
        "job-deleted%3F": (False, True),
    }
    # This held job matches, but is on the second page of the list.
    rows = read_held_rows(admin, f"{JOBS}?status=leased&per_page=1", names)
    assert rows["job-still/leased%2C1"] == (False, False)
    assert read_held_rows(ada, "/dashboard/my?status=leased", names) == {
        "job-done": (True, False),
        "job-elsewhere": (False, True),  # another owner's job looks like an unknown job
        "job-deleted%3F": (False, True),
    }
    assert "held-rows" not in admin.get(f"{JOBS}?status=leased", part=True).text
    ids = ",".join(f"x{index}" for index in range(500))
    assert admin.get(JOBS, part=True, X_Jobmon_Held=ids).text.count("data-gone") == 100  # at most


def test_held_row_in_the_list_of_the_longest_runs_matches_by_status_and_type(
    admin: Viewer, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches dates that are compared with the last run: the longest run may be an earlier one."""
    watched.jobs.insert_many(
        [
            {"jobId": "again", "type": "mail", "status": "queued", "finishedAt": None},
            {"jobId": "other", "type": "push", "status": "queued", "finishedAt": None},
        ]
    )
    monkeypatch.setattr(
        "jobmon.api.longest_runs.LongestRunReader.list", lambda *_: ([{"jobId": "a"}], "")
    )
    path = f"{JOBS}?sort=-duration&type=mail&finished_from={to_iso(NOW)}"
    assert read_held_rows(admin, path, ("again", "other")) == {
        "job-again": (False, False),
        "job-other": (True, False),
    }


@pytest.mark.parametrize(
    ("status", "shown_as"),
    [
        ("failed", "Attempt 1 failed on an unnamed worker"),  # the job is its own last attempt
        ("dlq", "Attempt 1 failed on an unnamed worker"),
        ("queued", "Last error"),
        ("leased", "Last error"),
        ("cancelled", "Last error"),
    ],
)
def test_page_of_a_job_shows_the_stack_once_with_and_without_attempts(
    admin: Viewer, watched: Any, status: str, shown_as: str
) -> None:
    watched.jobs.insert_one(make_job(status=status))
    page = admin.page(f"{JOBS}/j1")
    assert shown_as in " ".join(page.text.split())
    assert page.text.count("at line 1") == 1
    assert page.all("a", href=f"{JOBS}?error_code=E1")
    watched.job_attempts.insert_one(make_attempt())
    assert admin.page(f"{JOBS}/j1").text.count("at line 1") == 1


def test_server_error_is_a_page_without_internals(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("hidden")

    monkeypatch.setattr(JobLists, "page", fail)
    page = admin.page(JOBS, 500)
    assert "See the log of jobmon for the cause" in page.text
    assert "hidden" not in page.text


def test_pages_without_jobs_explain_why(admin: Viewer, ada: Viewer) -> None:
    assert "The queue is empty" in admin.page(OVERVIEW).text
    assert "No jobs yet" in admin.page(JOBS).text
    assert "No jobs match these filters" in admin.page(f"{JOBS}?status=dlq").text
    assert "createdBy is ada" in ada.page("/dashboard/my").text


ODD_DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"jobId": None, "type": None, "status": None},
    {"jobId": 7, "type": 8, "status": 9, "createdBy": 10, "priority": "high"},
    {"jobId": ["a"], "type": {"b": 1}, "status": [], "payload": "text", "lastError": "broken"},
    {"jobId": "", "type": "", "status": "", "createdAt": "", "attempts": 3, "maxAttempts": 1.5},
    {"jobId": "odd", "attempts": [None, {}, {"error": []}], "payload": [[], {}, None, True, 1.5]},
    {"jobId": "late", "nextRunAt": "soon", "status": "queued", "maxAttempts": "many"},
    {"jobId": "n", "attemptCount": float("nan"), "maxAttempts": float("inf"), "status": "failed"},
]


def test_pages_show_documents_with_unexpected_types_of_values(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_many([dict(document) for document in ODD_DOCUMENTS])
    assert len(admin.page(JOBS).all("tr")) == 1 + len(ODD_DOCUMENTS)
    assert admin.page(OVERVIEW).all("table", id="types")
    for name in ("odd", "late", "n"):
        admin.page(f"{JOBS}/{name}")
        assert admin.get(f"{JOBS}/{name}", part=True).status_code == 200


ODD_IDS = ("a/b", "/a", "a//b", "a?b=c", "a#b", "100%", "a%2Fb", "a b", "ü\u202e", "a\nb")
ODD_IDS += ("a\\b", "+")


def test_link_to_a_job_with_any_id_opens_its_page(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_many(
        make_job(jobId=job_id, type=f"type.{index:02}", createdAt=NOW - timedelta(minutes=index))
        for index, job_id in enumerate(ODD_IDS)
    )
    links = [link for link in admin.page(JOBS).all("a") if "row-link" in (link.get("class") or "")]
    assert len(links) == len(ODD_IDS)
    for index, link in enumerate(links):
        page = admin.page(link["href"] or "")
        assert f"type.{index:02}" in page.text
        (part,) = page.all("div", id="job")
        assert f"type.{index:02}" in admin.get(part["hx-get"] or "", part=True).text


def assert_smaller(answer: Any, limit_bytes: int) -> None:
    assert answer.status_code == 200
    assert len(answer.data) < limit_bytes, len(answer.data)


def test_pages_with_large_documents_have_a_bounded_size(admin: Viewer, watched: Any) -> None:
    long_id = "i" * 5_000
    error = {"code": "E", "message": "m" * 100_000, "stack": "s" * 100_000}
    watched.jobs.insert_many(
        [
            make_job(jobId=long_id, payload={"text": "x" * 1_000_000}, lastError=error),
            make_job(
                jobId="wide",
                payload={f"k{n}": {f"k{m}": [1] * 10 for m in range(50)} for n in range(50)},
            ),
            make_job(jobId="deep", payload=make_nested(100)),
            make_job(jobId="list", payload=[{"a": index} for index in range(10_000)]),
        ]
    )
    short_error = {"code": "E", "message": "m" * 10_000, "stack": "s" * 10_000}
    watched.job_attempts.insert_many(
        [make_attempt(jobId="wide", attemptNumber=n, error=short_error) for n in range(1, 301)]
    )
    assert_smaller(admin.get(f"{JOBS}/{long_id}"), 120_000)
    assert_smaller(admin.get(f"{JOBS}/wide"), 300_000)
    assert_smaller(admin.get(f"{JOBS}/deep"), 60_000)
    assert_smaller(admin.get(f"{JOBS}/list"), 70_000)
    assert_smaller(admin.get(JOBS), 100_000)


def make_nested(levels: int) -> Any:
    return {"in": make_nested(levels - 1)} if levels else "bottom"


def test_page_with_many_types_has_a_bounded_size(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_many(
        [
            make_job(jobId=f"j{n}", type=f"type-{n:04d}-{'t' * (5_000 if n < 100 else 9)}")
            for n in range(2_000)
        ]
    )
    answer = admin.get(OVERVIEW)
    assert_smaller(answer, 150_000)
    page = Page(answer.text)
    assert len(page.all("tr")) == 1 + overview_page.TYPES_SHOWN
    assert "Showing 50 of 2,000: search or sort to see others" in page.text
    jobs = admin.get(JOBS)
    assert_smaller(jobs, 150_000)
    options = [option["value"] or "" for option in Page(jobs.text).all("option")]
    assert 0 < sum(value.startswith("type-") for value in options) <= 200
    assert "Showing 50 of 100" in admin.page(f"{OVERVIEW}?text=e-01").text
    text = admin.page(f"{OVERVIEW}?text=E-0001").text
    assert "type-0001" in text
    assert "type-0002" not in text


def test_versioned_file_is_cached_forever_and_others_are_not(visitor: Viewer) -> None:
    addresses = visitor.page("/dashboard/sign-in").addresses()
    files = [address for address in addresses if "/static/" in address]
    assert len(files) >= 3
    for address in files:
        answer = visitor.get(address)
        assert answer.status_code == 200
        assert re.search(r"/static/v-[0-9a-f]{12}/", address)
        assert answer.headers["Cache-Control"] == IMMUTABLE
    # An address without the hash, or with another version's, serves the present file.
    for address in ("jobmon.css", "v-000000000000/jobmon.css"):
        answer = visitor.get(f"/dashboard/static/{address}")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")


def test_files_have_the_media_types_that_browsers_need(visitor: Viewer) -> None:
    types = {
        name: visitor.get(f"/dashboard/static/{name}").mimetype
        for name in ("jobmon.js", "jobmon.css", "icon.svg")
    }
    assert list(types.values()) == ["text/javascript", "text/css", "image/svg+xml"]


@pytest.mark.parametrize("path", ["../views.py", "%2e%2e/views.py", "/etc/passwd", "..%5cviews.py"])
def test_no_file_outside_static_is_served(visitor: Viewer, path: str) -> None:
    assert visitor.get(f"/dashboard/static/{path}").status_code == 404


def test_first_visit_loads_less_than_150_kb(admin: Viewer) -> None:
    if not (assets.FOLDER / "vendor").is_dir() and not os.environ.get("CI"):
        pytest.skip("static/vendor is not built: make assets")
    first = admin.get(OVERVIEW, Accept_Encoding="gzip")
    addresses = admin.page(OVERVIEW).addresses()
    loaded = [address for address in addresses if address.startswith("/dashboard/static/")]
    assert len([name for name in loaded if "/vendor/" in name]) == 4
    for path in loaded:  # this list grows by the modules that each file imports
        imported = re.findall(
            r'^import .* from "(\./\w+\.js)";$', admin.get(path).text, re.MULTILINE
        )
        loaded += {urljoin(path, name) for name in imported} - set(loaded)
    assert len([name for name in loaded if "/vendor/" not in name]) > 10
    assert {admin.get(path).headers["Cache-Control"] for path in loaded} == {IMMUTABLE}
    answers = [first, *(admin.get(path, Accept_Encoding="gzip") for path in loaded)]
    large = [answer for answer in answers if len(answer.data) > 1_000]
    assert {answer.headers["Content-Encoding"] for answer in large} == {"gzip"}
    assert sum(len(answer.data) for answer in answers) < 150_000


def test_pages_without_the_built_files_do_not_link_to_them(
    admin: Viewer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    styles = ("jobmon.css", "statistics.css", "jobs.css")
    for name in ("icon.svg", *styles, "jobmon.js", "charts.js"):
        (tmp_path / name).write_bytes((assets.FOLDER / name).read_bytes())
    monkeypatch.setattr(assets, "FOLDER", tmp_path)
    for path in (OVERVIEW, JOBS, "/dashboard/sign-in"):
        page = admin.page(path)
        assert "vendor" not in " ".join(page.addresses())
        assert "" not in page.addresses()


def test_root_redirects_to_the_overview(visitor: Viewer) -> None:
    for path in ("/", "/dashboard/"):
        answer = visitor.get(path)
        assert (answer.status_code, answer.location) == (302, "/dashboard")


def test_page_has_the_theme_in_the_cookie_or_else_that_of_the_system(admin: Viewer) -> None:
    themes = {"dark": "dark", "light": "light", '"><b>': "system", "": "system"}
    for value, shown_as in themes.items():
        admin.client.set_cookie("jobmon_theme", value, path="/dashboard")
        (html,) = admin.page("/dashboard/my").all("html")
        assert html["data-theme"] == shown_as


def test_pages_truncate_long_texts(admin: Viewer, watched: Any) -> None:
    text = "x" * 500_000
    error = {"code": text, "message": text}
    job = {"jobId": "j", "type": text, "createdBy": text, "status": text, "lastError": error}
    watched.jobs.insert_one(job)
    for path in ("/dashboard/jobs", "/dashboard/jobs/j"):
        assert len(admin.get(path).text) < 100_000, path


def test_page_of_a_job_begins_with_its_explanation(watched: Any, admin: Viewer) -> None:
    """Catches a page on which an operator has to search why the job does not run."""
    due = datetime.now(UTC) + timedelta(minutes=5)
    watched.jobs.insert_one(make_job(nextRunAt=due, attemptCount=6, maxAttempts=9))
    watched.job_attempts.insert_many(make_attempt(attemptNumber=number) for number in range(1, 7))
    page = admin.page(f"{JOBS}/j1")
    explanation = page.text.partition("Attempts")[0]
    assert "The last attempt failed. Retry 6 of 8 is due" in explanation
    assert "E1 broken" in explanation
    order = ["Next retry", "Attempt 6", "Attempts 1 to 5 the same error", "Enqueued"]
    positions = [page.text.index(name) for name in order]
    assert positions == sorted(positions)
    details = page.all("details")
    stacks = [attrs for attrs in details if (attrs.get("id") or "").startswith("stack-")]
    assert [(attrs["id"], "open" in attrs) for attrs in stacks] == [
        ("stack-attempt-6", True),
        ("stack-attempt-1-and-after", False),
    ]
    assert "/dashboard/workers?worker=w1" in page.addresses()
    # The part is the same until the job changes, so that a browser gets 304.
    assert admin.get(f"{JOBS}/j1", part=True).data == admin.get(f"{JOBS}/j1", part=True).data
