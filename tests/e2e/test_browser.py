"""The dashboard in a real browser (Debian's Chromium), with a real web service and MongoDB server.

A test fails if a page logs an unexpected error or warning, requests another origin, or breaks the
content security policy: see `Visits`.
"""

import csv
import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from zoneinfo import ZoneInfo

import pytest
from flask import render_template
from playwright.sync_api import Locator, Page, Request, Response, Route, ViewportSize, expect
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.dashboard.status_strip import StripNotice, make_strip
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.diagnosis.notices import Level
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..conftest import DATE, SECRET
from ..support.browser import Visits, require_file, sign_in
from ..support.commands import database_uri
from ..support.preloaded import ROOT
from ..support.services import Web, serving
from ..support.waiting import eventually
from .conftest import create_token

Document = dict[str, Any]

AXE = ROOT / "jobmon/dashboard/node_modules/axe-core/axe.min.js"
WCAG_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
DESKTOP: ViewportSize = {"width": 1_280, "height": 720}
PHONE: ViewportSize = {"width": 360, "height": 740}
# Whether the page is wider than the window, after two frames: the first frame resizes the charts.
IS_WIDER = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(
  () => done(document.documentElement.scrollWidth > innerWidth))))"""
HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}</td>"


class Stack:
    """A web service and the database that it reads."""

    def __init__(self, web: Web, database: Database[Document], mongod: Mongod) -> None:
        self.url = web.url
        self.database = database
        self.mongod = mongod
        self.queue = JobQueue(database)


@pytest.fixture(scope="module")
def stack(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack that most tests share; each test has its own job type (`job_type`)."""
    name = f"browser_{uuid.uuid4().hex}"
    uri, rollups = database_uri(mongod, name), f"{name}_rollups"
    with MongoClient[Document](uri, tz_aware=True) as client:
        search_fields = ("payload.orderId",)
        create_indexes(Connection(Settings(mongo_uri=uri, search_fields=search_fields), client))
        settings = {"JOBMON_COLLECTOR": "true", "JOBMON_ROLLUP_DB": rollups, "JOBMON_WORKERS": "2"}
        settings["JOBMON_SEARCH_FIELDS"] = ",".join(search_fields)
        with serving(uri, tmp_path_factory.mktemp("browser"), **settings) as web:
            yield Stack(web, client[name], mongod)
        client.drop_database(name)
        client.drop_database(rollups)


@pytest.fixture(scope="module")
def stack_without_collector(
    tmp_path_factory: pytest.TempPathFactory, mongod: Mongod
) -> Iterator[Stack]:
    """A stack with its own MongoDB server, without a collector."""
    folder = tmp_path_factory.mktemp("without_collector")
    with (
        Mongod(folder / "data") as server,
        MongoClient[Document](server.uri, tz_aware=True) as client,
    ):
        uri = database_uri(server, "jobmon")
        create_indexes(Connection(Settings(mongo_uri=uri), client))
        settings = {
            "JOBMON_STATS_TTL_MS": "0",
            "JOBMON_THREADS": "8",
            "JOBMON_SERVER_SELECTION_TIMEOUT_MS": "1000",
            "JOBMON_QUERY_TIMEOUT_MS": "2000",
        }
        with serving(uri, folder, **settings) as web:
            yield Stack(web, client.jobmon, server)


@pytest.fixture
def empty_stack(stack_without_collector: Stack) -> Stack:
    """`stack_without_collector` with an empty queue."""
    stack_without_collector.database.jobs.delete_many({})
    stack_without_collector.database.job_attempts.delete_many({})
    return stack_without_collector


@pytest.fixture
def job_type() -> str:
    return f"type.{uuid.uuid4().hex[:8]}"


def paste_token(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def make_job(job_type: str, **fields: Any) -> Document:
    now = datetime.now(UTC)
    return {
        "jobId": str(uuid.uuid4()),
        "type": job_type,
        "status": "queued",
        "payload": {},
        "priority": 0,
        "createdBy": None,
        "createdAt": now,
        "updatedAt": now,
        "nextRunAt": now,
        "maxAttempts": 3,
        "attemptCount": 0,
        "leasedBy": None,
        "leaseExpiresAt": None,
        "finishedAt": None,
        "lastError": None,
    } | fields


def find_tile_value(page: Page, name: str) -> Locator:
    return page.locator(".tile").filter(has=page.get_by_text(name, exact=True)).locator(".value")


def list_ids(page: Page) -> list[str]:
    """The ids of the jobs that a page lists."""
    return page.locator("#job-rows .row-link").evaluate_all(
        "links => links.map(link => decodeURIComponent(link.pathname.split('/').pop()))"
    )


def get_json(page: Page, path: str, token: str) -> Any:
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
    answer = page.request.get(origin + path, headers={"Authorization": f"Bearer {token}"})
    return answer.json()


# --- Signing in ----------------------------------------------------------------------------------


def test_sign_in_takes_a_pasted_token_and_refuses_an_invalid_one(
    visit: Visits, stack: Stack, admin_token: str
) -> None:
    page = visit(f"{stack.url}/dashboard?range=24h", token=None)
    expect(page.get_by_label("Token")).to_be_focused()
    paste_token(page, "not.a.token")
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("Token not accepted. Request a new one.")
    page.reload()  # the page is the answer to a GET: a reload does not send the form again
    expect(alert).to_have_text("Token not accepted. Request a new one.")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.insert_text(f'"Authorization: Bearer {admin_token}"')
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{stack.url}/dashboard?range=24h")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    [cookie] = page.context.cookies(f"{stack.url}/dashboard")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.get_by_text("Signed in as root").first.click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{stack.url}/dashboard/jobs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_token_in_the_fragment_needs_a_click_and_leaves_no_trace(
    visit: Visits, stack: Stack, admin_token: str
) -> None:
    address = f"{stack.url}/dashboard/sign-in#state=x&access_token={admin_token}"
    page = visit(address, token=None)
    # An attacker can send such a link: it must not silently sign in the viewer as the attacker.
    sign_in_button = page.get_by_role("button", name="Sign in as")
    expect(sign_in_button).to_be_focused()
    assert sign_in_button.inner_text() == "Sign in as root"
    assert page.context.cookies() == []
    assert admin_token not in page.url
    sign_in_button.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert admin_token not in page.url
    assert [request.url for request in visit.requests if admin_token in request.url] == []
    page.go_back()
    assert admin_token not in page.url


def test_link_on_another_site_opens_the_page_with_the_session(visit: Visits, stack: Stack) -> None:
    page = visit(f"{stack.url}/dashboard/sign-in")
    [cookie] = page.context.cookies(f"{stack.url}/dashboard")
    page.context.add_cookies([{**cookie, "sameSite": "Strict"}])  # type: ignore[typeddict-item]
    page.goto("about:blank")
    page.set_content(f'<a href="{stack.url}/dashboard/jobs?status=dlq">there</a>')
    with page.expect_request(f"{stack.url}/dashboard/jobs?status=dlq") as first_request:
        page.get_by_role("link", name="there").click()
    assert first_request.value.all_headers()["sec-fetch-site"] == "cross-site"
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs?status=dlq")


# --- Overview ------------------------------------------------------------------------------------


def test_overview_shows_the_counts_of_the_json_api(
    visit: Visits, empty_stack: Stack, admin_token: str
) -> None:
    for status, count in (("queued", 1_200), ("leased", 3), ("failed", 4), ("dlq", 5)):
        lease = {"leaseExpiresAt": datetime.now(UTC) + timedelta(hours=1)}
        empty_stack.database.jobs.insert_many(
            [make_job("import.rows", status=status, **lease) for _ in range(count)]
        )
    page = visit(f"{empty_stack.url}/dashboard")
    counts = get_json(page, "/admin/jobs/stats", admin_token)["statusCounts"]
    for name, status in (
        ("Queued", "queued"),
        ("Running", "leased"),
        ("Retrying", "failed"),
        ("Dead", "dlq"),
    ):
        expect(find_tile_value(page, name)).to_have_text(f"{counts[status]:,}")
    row = page.get_by_role("row", name="import.rows")
    assert row.locator(".number").all_inner_texts()[:4] == ["1,200", "3", "4", "5"]


@pytest.mark.long
def test_tile_links_to_its_jobs_and_its_scheduled_count_to_the_schedule(
    visit: Visits, empty_stack: Stack
) -> None:
    due_at = datetime.now(UTC) + timedelta(minutes=30)
    empty_stack.database.jobs.insert_many([make_job("mail", nextRunAt=due_at) for _ in range(3)])
    page = visit(f"{empty_stack.url}/dashboard")
    page.get_by_role("link", name="3 scheduled").click()
    expect(page.get_by_role("link", name="Next hour 3")).to_be_visible()
    expect(page.locator("tr[id^=due]")).to_have_count(3)
    page.go_back()
    find_tile_value(page, "Queued").click(force=True)  # the link covers it
    expect(page).to_have_url(f"{empty_stack.url}/dashboard/jobs?status=queued")


def test_overview_shows_a_change_without_reload_and_gets_304_without_a_change(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    stack.queue.enqueue(job_type)
    page = visit(f"{stack.url}/dashboard?text={job_type}")
    page.evaluate("window.notReloaded = true")
    queued = page.get_by_role("row", name=job_type).locator(".c-queued")
    expect(queued).to_have_text("1")
    statuses: list[int] = []

    def record_status(response: Response) -> None:
        if urlsplit(response.url).path == "/dashboard/overview":
            statuses.append(response.status)

    page.on("response", record_status)
    page.wait_for_function("() => document.querySelector('#overview').dataset.etag")
    for _ in range(2):
        with page.expect_response(
            lambda response: "/dashboard/overview" in response.url and response.status == 304
        ):
            pass
    stack.queue.enqueue(job_type)
    expect(queued).to_have_text("2")
    assert page.evaluate("window.notReloaded")
    assert statuses.count(304) >= 2


def test_notices_link_to_their_jobs(visit: Visits, empty_stack: Stack) -> None:
    now = datetime.now(UTC)
    past, due_at = now - timedelta(minutes=5), now - timedelta(minutes=30)
    empty_stack.database.jobs.insert_many(
        [
            make_job("stuck.job", status="leased", leaseExpiresAt=past, leasedBy="worker-9"),
            make_job("dead.job", status="dlq", finishedAt=past),
            make_job("stalled.job", createdAt=due_at, updatedAt=due_at, nextRunAt=due_at),
        ]
    )
    page = visit(f"{empty_stack.url}/dashboard")
    notices = page.get_by_role("region", name="Status", exact=True)
    expect(notices).to_contain_text("1 job stuck: its lease expired")
    stalled = "stalled.job is stalled: oldest due job waiting 30 min, none finished in 10 min"
    expect(notices).to_contain_text(stalled)
    expect(notices).to_contain_text("1 job died in the last hour: dead.job")
    expect(notices).to_contain_text("No collector is running")
    expect(page).to_have_title("● 4 problems · Overview · jobmon")
    notices.get_by_role("link", name="stuck").click()
    expect(page.locator(".c-type").last).to_have_text("stuck.job")
    expect(page.get_by_label("Condition")).to_have_value("expired")
    page.go_back()
    notices.get_by_text(re.compile(r"^\d more$")).click()
    notices.get_by_role("link", name="died in the last hour").click()
    expect(page.locator(".count")).to_have_text("1 job")
    expect(page.get_by_label("Finished from")).not_to_have_value("")
    page.get_by_label("Finished from").press("Enter")
    expect(page.locator(".count")).to_have_text("1 job")


def render_strip(texts: list[str]) -> str:
    """The HTML of the status strip with these notices."""
    notices = [StripNotice(level=Level.BAD, text=text, since=datetime.now(UTC)) for text in texts]
    app = create_app(Settings(mongo_uri="mongodb://127.0.0.1", jwt_secret_key=SECRET))
    with app.test_request_context():
        strip = make_strip(notices, "All clear.")
        return render_template("dashboard/_status_strip.html", strip=strip)


def get_top_and_height(element: Locator) -> tuple[float, float]:
    """The upper edge and the height of an element, in pixels."""
    box = element.bounding_box()
    assert box
    return box["y"], box["height"]


@pytest.mark.long
def test_numbers_stay_in_their_place_with_nine_notices_and_3000_types(
    visit: Visits, empty_stack: Stack
) -> None:
    """Catches notices that push the numbers down or off the screen."""
    empty_stack.database.jobs.insert_many(
        [make_job(f"job_type.{number}") for number in range(3_000)]
    )
    wide: ViewportSize = {"width": 1_440, "height": 900}
    page = visit(f"{empty_stack.url}/dashboard/sign-in", viewport=wide, java_script_enabled=False)
    texts = [f"{number} jobs of a type died: {'long name ' * 12}" for number in range(9)]
    first_tile, positions = page.locator(".tile").first, []
    for strip in (render_strip([]), render_strip(texts[:1]), render_strip(texts)):

        def replace_strip(route: Route, _: Request, strip: str = strip) -> None:
            answer = route.fetch()
            section = re.compile('<section class="strip".*?</section>', re.DOTALL)
            body = section.sub(lambda _: strip, answer.text())
            route.fulfill(status=answer.status, content_type="text/html", body=body)

        page.route(re.compile(r"/dashboard$"), replace_strip)
        page.goto(f"{empty_stack.url}/dashboard")
        expect(page.locator("#types tbody tr")).to_have_count(50)
        assert get_top_and_height(page.locator(".strip"))[1] <= 88
        positions.append(get_top_and_height(first_tile))
    assert positions == positions[:1] * 3
    assert sum(positions[0]) <= 250  # the lower edge of the first tile
    page.get_by_text("6 more").click()
    expect(page.get_by_text(texts[-1])).to_be_visible()
    assert get_top_and_height(first_tile) == positions[0]
    start = datetime.now(UTC) - timedelta(hours=3)
    end = start + timedelta(hours=1)
    page.goto(f"{empty_stack.url}/dashboard?from={start:%FT%H:%MZ}&to={end:%FT%H:%MZ}")
    expect(page.locator("#types tbody tr")).to_have_count(50)
    assert get_top_and_height(first_tile) == positions[0]
    page.set_viewport_size(PHONE)
    assert get_top_and_height(page.locator(".strip"))[1] <= 88


def test_charts_have_labels_and_values_in_the_legend(
    visit: Visits, empty_stack: Stack, admin_token: str
) -> None:
    now = datetime.now(UTC)
    for minutes in range(1, 50):
        started_at = now - timedelta(minutes=minutes)
        job = make_job("charted", status="succeeded", createdAt=started_at, finishedAt=started_at)
        job["nextRunAt"] = started_at - timedelta(seconds=1)
        empty_stack.database.jobs.insert_one(job)
        empty_stack.database.job_attempts.insert_one(
            {"jobId": job["jobId"], "attemptNumber": 1, "status": "succeeded"}
            | {"startedAt": started_at, "finishedAt": started_at + timedelta(milliseconds=250)}
        )
    page = visit(f"{empty_stack.url}/dashboard/sign-in", clock=True)

    def are_all_counted() -> bool:
        steps = get_json(page, "/admin/jobs/timeseries", admin_token)["data"]
        return sum(step["enqueued"] or 0 for step in steps) == 49

    eventually(are_all_counted)  # without a collector, live counts are cached for two seconds
    page.goto(f"{empty_stack.url}/dashboard")
    charts = page.get_by_role("img")
    expect(charts).to_have_count(3)
    expect(charts.first).to_have_attribute(
        "aria-label", re.compile(r"Throughput\. succeeded: 4\d in total; failed: 0 in total")
    )
    expect(charts.last).to_have_attribute("aria-label", re.compile("p50: 2.. ms at the end"))
    assert (
        charts.locator("canvas").evaluate_all(
            "all => all.map(c => c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            ".data.some(value => value > 0))"
        )
        == [True] * 3
    )

    overlay = charts.first.locator(".u-over")
    overlay.hover(position={"x": 600, "y": 60})
    legends, moments = page.locator(".chart-legend"), page.locator(".moment")
    expect(legends.first).to_contain_text("succeeded 1")
    expect(legends.nth(2)).to_contain_text(re.compile("p50 2.. ms"))
    expect(moments).to_have_text([re.compile(r", \d\d:\d\d$")] * 3)  # one cursor for all three
    page.mouse.move(5, 5)
    expect(moments).to_have_text(["in total", "latest", "latest"])
    expect(legends.first).to_contain_text("enqueued 49")
    succeeded = page.get_by_role("button", name="succeeded")
    succeeded.click()
    expect(succeeded).to_have_attribute("aria-pressed", "false")
    succeeded.click()

    empty_stack.database.jobs.insert_one(make_job("charted"))

    def shows_new_job() -> bool:
        page.clock.fast_forward(11_000)  # charts are requested every ten seconds
        return "enqueued: 50 in total" in (charts.first.get_attribute("aria-label") or "")

    eventually(shows_new_job)


# Counts the pixels of a chart that have about the colour of `succeeded`.
COUNT_SUCCEEDED_PIXELS = """chart => {
  const canvas = chart.querySelector("canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const [red, green, blue] = getComputedStyle(document.documentElement)
    .getPropertyValue("--chart-succeeded").trim().match(/[0-9a-f]{2}/g)
    .map(hex => parseInt(hex, 16));
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const near = (a, b) => Math.abs(a - b) < 12;
    if (near(data[i], red) && near(data[i + 1], green) && near(data[i + 2], blue)) count += 1;
  }
  return count;
}"""


def make_chart_data(succeeded: list[int | None], took_ms: int | None = 250) -> dict[str, Any]:
    """Charts of 60 minutes, the last not over; only `succeeded` and durations have values."""
    now = int(datetime.now(UTC).timestamp()) // 60 * 60
    columns: dict[str, Any] = dict.fromkeys(("enqueued", "failed", "dlq"), [None] * 60)
    percentiles = [f"{duration}P{rank}" for duration in ("wait", "run") for rank in (50, 95, 99)]
    columns |= dict.fromkeys(percentiles, [took_ms] * 60)
    columns |= {
        "at": list(range(now - 3_600, now, 60)),
        "succeeded": succeeded,
        "completedSteps": 59,
    }
    columns["step"] = 60
    return columns | {"gaps": [], "marks": [], "previous": None}


@pytest.mark.long
def test_charts_draw_a_single_value_and_show_a_sentence_if_there_are_none(
    visit: Visits, stack: Stack
) -> None:
    unknown: list[int | None] = [None] * 60
    page = visit(f"{stack.url}/dashboard/sign-in")
    pixels = {}
    for name, values in (
        ("single", [*unknown[:30], 7, *unknown[31:]]),
        ("unfinished", [*unknown[:-1], 7]),
    ):
        data = make_chart_data(values, None)
        page.route("**/dashboard/charts*", lambda route, _, data=data: route.fulfill(json=data))
        page.goto(f"{stack.url}/dashboard")
        charts = page.get_by_role("img")
        expect(charts).to_have_count(1)
        expect(charts).to_have_attribute("aria-label", re.compile("succeeded: 7 in total"))
        pixels[name] = charts.evaluate(COUNT_SUCCEEDED_PIXELS)
    assert pixels["single"] > 4
    assert pixels["unfinished"] > 4
    sentences = page.locator(".chart .nothing")
    no_duration = "No attempt with a known duration ended in the last hour."
    expect(sentences).to_have_text([no_duration] * 2)
    for values, sentence in (
        (unknown, "No data in the last hour."),
        ([0] * 60, "Nothing was enqueued and no attempt ended in the last hour."),
    ):
        data = make_chart_data(values, None)
        page.route("**/dashboard/charts*", lambda route, _, data=data: route.fulfill(json=data))
        page.goto(f"{stack.url}/dashboard")
        expect(sentences.first).to_have_text(sentence)
        expect(page.locator("canvas")).to_have_count(0)  # no axis


def test_description_of_a_chart_has_the_durations_of_its_legend(
    visit: Visits, stack: Stack
) -> None:
    """Catches a description for screen readers that includes the step in progress."""
    data = make_chart_data([1] * 60)
    data |= {f"runP{rank}": [*[250] * 59, 900] for rank in (50, 95, 99)}
    page = visit(f"{stack.url}/dashboard/sign-in")
    page.route("**/dashboard/charts*", lambda route: route.fulfill(json=data))
    page.goto(f"{stack.url}/dashboard")
    description = re.compile("p50: 250 ms at the end, 250 ms at most")
    expect(page.get_by_role("img").last).to_have_attribute("aria-label", description)
    expect(page.locator(".chart-legend").last).to_contain_text("p50 250 ms")


def test_page_whose_charts_are_refused_shows_the_reason_until_there_is_data(
    visit: Visits, stack: Stack
) -> None:
    """Catches an empty place without a reason."""
    page = visit(f"{stack.url}/dashboard/sign-in", clock=True)
    refusal = {"status": 403, "headers": {"X-Error-Code": "permission_denied"}}
    body = "You do not have the permission ADMIN_DASHBOARD."
    page.route("**/dashboard/charts*", lambda route: route.fulfill(**refusal, body=body))
    page.goto(f"{stack.url}/dashboard")
    message = page.locator("#charts .nothing").first
    expect(message).to_have_text(f"No charts. {body}")
    page.unroute_all()
    page.route("**/dashboard/charts*", lambda route: route.fulfill(status=401))
    page.clock.run_for(11_000)
    expect(message).to_have_text("No charts. Reload this page to sign in again.")
    page.unroute_all()
    data = make_chart_data([5] * 60)
    page.route("**/dashboard/charts*", lambda route: route.fulfill(json=data))
    page.clock.run_for(11_000)
    expect(page.get_by_role("img")).to_have_count(3)


def test_charts_that_have_no_history_any_more_are_replaced_by_the_reason(
    visit: Visits, stack: Stack
) -> None:
    """Catches charts that end when the collector stopped, and look as if nothing ran since then."""
    page = visit(f"{stack.url}/dashboard?range=24h", clock=True)
    expect(page.locator(".chart")).to_have_count(3)
    headers = {"X-Error-Code": "collector_unavailable"}
    refusal = {"status": 503, "headers": headers, "body": "No collector."}
    page.route("**/dashboard/charts?*", lambda route: route.fulfill(**refusal))
    page.clock.run_for(11_000)
    expect(page.locator("#charts > .nothing")).to_contain_text("no collector is running")
    expect(page.locator(".chart")).to_have_count(0)
    page.unroute_all()
    page.clock.run_for(11_000)
    expect(page.locator(".chart")).to_have_count(3)


@pytest.mark.long
def test_charts_shade_the_time_before_the_first_data(visit: Visits, stack: Stack) -> None:
    page = visit(f"{stack.url}/dashboard/sign-in")
    shaded_pixels = []
    for known_minutes in (60, 30):
        data = make_chart_data([*[None] * (60 - known_minutes), *[5] * known_minutes])
        page.route("**/dashboard/charts*", lambda route, _, data=data: route.fulfill(json=data))
        page.goto(f"{stack.url}/dashboard")
        expect(page.get_by_role("img")).to_have_count(3)
        count_shaded = COUNT_SUCCEEDED_PIXELS.replace("--chart-succeeded", "--chart-shade")
        shaded_pixels.append(page.get_by_role("img").first.evaluate(count_shaded))
        label = page.get_by_role("img").first.get_attribute("aria-label") or ""
        assert ("No data before" in label) == (known_minutes < 60)
    assert shaded_pixels[1] > shaded_pixels[0] + 10_000


def test_charts_with_marks_and_the_hour_before_open_the_jobs_of_a_bar(
    visit: Visits, stack: Stack
) -> None:
    """Catches a bar whose click does not show the jobs that finished in its minute."""
    data = make_chart_data([5] * 60)
    starts = data["at"]
    marks = {
        starts[0] - 9: "old",
        starts[20] + 30: "v1",
        starts[40]: "<b>v2</b>",
        starts[40] + 1: "settings",
    }
    data["marks"] = [{"at": moment, "text": text} for moment, text in marks.items()]
    data["previous"] = {"succeeded": [7] * 60, "waitP95": [900] * 60, "runP95": [None] * 60}
    page = visit(f"{stack.url}/dashboard/sign-in")
    page.route("**/dashboard/charts*", lambda route: route.fulfill(json=data))
    page.goto(f"{stack.url}/dashboard?compare=previous")
    expect(page.locator("#charts")).to_have_attribute("data-url", re.compile("compare=previous"))
    chart = page.locator(".chart").first
    plot = chart.locator(".uplot")
    expect(plot).to_have_attribute(
        "aria-label", re.compile("succeeded, the hour before: 420 in total")
    )
    expect(chart.locator(".chart-legend")).to_contain_text("succeeded, the hour before 420")
    # In each of three charts: v1, and one line for the two marks of one minute. `old` is too early.
    expect(page.locator(".chart .mark")).to_have_count(2 * 3)
    shared_line = chart.locator(".mark").last
    expect(shared_line.locator(".text")).to_be_hidden()
    shared_line.locator(".flag").focus()
    expect(shared_line.locator(".text")).to_be_visible()
    expect(shared_line.locator(".text")).to_contain_text(re.compile(r"<b>v2</b>\n.*settings"))

    overlay = chart.locator(".u-over")
    box = overlay.bounding_box()
    assert box
    position = {"x": box["width"] * 40.5 / 60, "y": 90}
    overlay.hover(position=position)
    expect(chart.locator(".chart-legend")).to_contain_text("succeeded, the hour before 7")
    expect(chart.locator(".moment")).to_contain_text("▾ <b>v2</b>")
    overlay.click(position=position)
    page.wait_for_url(re.compile("finished_from"))
    moments = [datetime.fromtimestamp(moment, UTC) for moment in (starts[40], starts[41])]
    query = parse_qs(urlsplit(page.url).query)
    assert [query[name] for name in ("finished_from", "finished_to")] == [
        [f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"] for moment in moments
    ]
    expect(page.get_by_label("Finished before")).to_be_visible()


def test_keyboard_moves_the_cursor_of_a_chart_and_chooses_a_time(
    visit: Visits, stack: Stack
) -> None:
    """Catches a time that only a pointer can choose, and a cursor that no screen reader reads."""
    data = make_chart_data([*range(59), None])
    starts = data["at"]
    data["marks"] = [{"at": starts[40] + 30, "text": "v1"}]
    data["gaps"] = [[starts[40] + 10, starts[40] + 20]]
    page = visit(f"{stack.url}/dashboard/sign-in")
    page.route("**/dashboard/charts*", lambda route: route.fulfill(json=data))
    page.goto(f"{stack.url}/dashboard")
    cursors = page.get_by_role("slider")
    expect(cursors).to_have_count(3)
    cursor = page.get_by_role("slider", name="Cursor of Throughput")
    cursor.focus()
    moments, legends = page.locator(".moment"), page.locator(".chart-legend")
    expect(moments.first).to_contain_text("(so far)")  # the cursor begins at the newest step
    for key, index in (
        ("Home", 0),
        ("ArrowLeft", 0),
        ("ArrowRight", 1),
        ("End", 59),
        ("PageDown", 49),
        ("PageDown", 39),
        ("ArrowUp", 40),
    ):
        cursor.press(key)
        expect(cursor).to_have_attribute("aria-valuenow", str(index))
    expect(cursor).to_have_attribute("aria-valuetext", re.compile(r"succeeded 40, .*, ▾ v1$"))
    expect(legends.first).to_contain_text("succeeded 40")
    expect(moments.nth(1)).to_contain_text("▾ v1")  # one cursor for all three
    expect(moments.first).to_contain_text("(runs may be missing)")
    cursor.press("Escape")
    expect(moments.first).to_have_text("in total")
    cursor.press("Enter")
    finished = page.locator(".chart").first.get_by_role("link", name="Finished")
    expect(finished).to_be_focused()
    assert find_violations(page, WCAG_TAGS) == []
    finished.press("Enter")
    page.wait_for_url(re.compile("finished_from"))
    moment = datetime.fromtimestamp(starts[40], UTC)
    query = parse_qs(urlsplit(page.url).query)
    assert query["finished_from"] == [f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"]


@pytest.mark.long
def test_selected_steps_of_a_chart_keep_their_times_after_an_update(
    visit: Visits, stack: Stack
) -> None:
    data = make_chart_data([*range(60)])
    page = visit(f"{stack.url}/dashboard/sign-in", clock=True)
    page.route("**/dashboard/charts*", lambda route: route.fulfill(json=data))
    page.goto(f"{stack.url}/dashboard")
    cursor = page.get_by_role("slider", name="Cursor of Throughput")
    cursor.focus()
    for key in ("End", "PageDown", "Shift+PageDown"):
        cursor.press(key)
    legend, selection = page.locator(".chart-legend").first, page.locator(".u-select").first
    expect(legend).to_contain_text("succeeded 39")
    value_text, box = cursor.get_attribute("aria-valuetext"), selection.bounding_box()
    assert value_text is not None
    assert box is not None
    times = [data["at"][39], data["at"][49] + 60]
    # Five minutes later: the five oldest steps are gone, and five new ones follow.
    data |= {name: [*data[name][5:], *data[name][:5]] for name in ("succeeded", "at")}
    data["at"][-5:] = [data["at"][54] + 60 * step for step in range(1, 6)]
    page.clock.run_for(11_000)
    expect(cursor).to_have_attribute("aria-valuenow", "34")
    expect(cursor).to_have_attribute("aria-valuetext", value_text)
    expect(legend).to_contain_text("succeeded 39")
    moved = selection.bounding_box()
    assert moved is not None
    assert moved["x"] < box["x"] - 5
    assert moved["width"] == pytest.approx(box["width"], abs=2)
    cursor.press("Enter")
    page.wait_for_url(re.compile("from="))
    query = parse_qs(urlsplit(page.url).query)
    bounds = [datetime.fromisoformat(query[name][0]).timestamp() for name in ("from", "to")]
    assert bounds == times


@pytest.mark.long
def test_the_address_keeps_range_order_and_search_of_the_type_table(
    visit: Visits, empty_stack: Stack
) -> None:
    empty_stack.database.jobs.insert_many(
        [make_job("alpha"), make_job("alpha"), make_job("beta", status="dlq"), make_job("gamma")]
    )
    page = visit(f"{empty_stack.url}/dashboard")
    types = page.locator("#types tbody th")
    expect(types).to_have_text(["alpha", "gamma", "beta"])
    page.locator("#types").get_by_role("link", name="Dead", exact=True).click()
    expect(types.first).to_have_text("beta")
    expect(page.get_by_role("columnheader", name="Dead")).to_have_attribute(
        "aria-sort", "descending"
    )
    page.get_by_role("link", name="24 hours", exact=True).click()
    expect(page.get_by_role("link", name="24 hours", exact=True)).to_have_attribute(
        "aria-current", "true"
    )
    expect(page.locator("#charts")).to_have_text(re.compile("no collector is running"))
    assert parse_qs(urlsplit(page.url).query) == {"range": ["24h"], "by": ["-dead"]}
    search_box = page.get_by_role("searchbox", name="Find a type")
    search_box.press_sequentially("alp")
    empty_stack.database.jobs.insert_one(make_job("alpha"))
    alphas = page.get_by_role("row", name="alpha").locator(".c-queued")
    expect(alphas).to_have_text("3")
    expect(search_box).to_have_value("alp")  # an update keeps the text in the search box
    search_box.press("Enter")
    expect(types).to_have_text(["alpha"])
    types.get_by_role("link").click()
    expect(page.get_by_role("heading", name="alpha", level=1)).to_be_visible()
    assert parse_qs(urlsplit(page.url).query) == {"range": ["24h"]}
    page.get_by_role("link", name="Jobs of this type").click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(3)
    assert parse_qs(urlsplit(page.url).query) == {"type": ["alpha"]}


# --- Jobs ----------------------------------------------------------------------------------------


def test_filters_apply_at_once_and_are_kept_in_the_address(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    error = {"code": "E_ODD", "message": "odd"}
    matching = [
        make_job(f"{job_type}.a", status="dlq", lastError=error, createdBy="ann"),
        make_job(f"{job_type}.b", status="failed", lastError=error),
    ]
    other_jobs = [
        make_job(f"{job_type}.a"),
        make_job(f"{job_type}.c", status="dlq", lastError=error),
    ]
    stack.database.jobs.insert_many(matching + other_jobs)
    page = visit(f"{stack.url}/dashboard/jobs")
    rows, type_field = page.locator("#job-rows tbody tr"), page.get_by_label("Type", exact=True)
    page.get_by_label("Error code").fill("E_ODD")
    type_field.fill(f"{job_type}.a")  # the focus leaves the error code: its filter applies
    expect(page).to_have_url(re.compile("error_code=E_ODD"))
    expect(type_field).to_be_focused()  # in the new page
    type_field.fill(f"{job_type}.a")
    type_field.press("Enter")
    expect(rows).to_have_count(1)
    page.get_by_text("More filters").click()
    page.get_by_label("Also type").fill(f"{job_type}.b")
    page.get_by_label("Also type").press("Enter")
    expect(rows).to_have_count(2)
    page.get_by_text("More filters").click()
    for status, word in (("failed", "Retrying"), ("dlq", "Dead")):
        page.get_by_role("checkbox", name=word).check()  # the new page reopens the menu
        expect(page).to_have_url(re.compile(f"status={status}"))
        expect(page.get_by_role("checkbox", name=word)).to_be_focused()
    expect(page.get_by_role("link", name="Remove Status: dead")).to_be_visible()
    assert parse_qs(urlsplit(page.url).query) == {
        "status": ["failed", "dlq"],
        "type": [f"{job_type}.a", f"{job_type}.b"],
        "error_code": ["E_ODD"],
    }
    page.reload()
    assert set(list_ids(page)) == {job["jobId"] for job in matching}
    page.get_by_role("link", name=f"Remove Type: {job_type}.b").click()
    expect(rows).to_have_count(1)
    page.get_by_role("link", name="Remove Error code: E_ODD").click()
    expect(page).not_to_have_url(re.compile("E_ODD"))
    page.go_back()
    expect(page.get_by_label("Error code")).to_have_value("E_ODD")
    page.get_by_text("More filters").click()
    page.get_by_label("Job id", exact=True).fill(matching[0]["jobId"][:9])
    page.get_by_label("Job id", exact=True).press("Enter")
    expect(page).to_have_url(re.compile("job_id="))
    assert list_ids(page) == [matching[0]["jobId"]]


def test_filters_apply_by_a_button_without_scripts(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    stack.database.jobs.insert_many([make_job(job_type), make_job(job_type, status="dlq")])
    page = visit(f"{stack.url}/dashboard/jobs", java_script_enabled=False)
    page.get_by_label("Type", exact=True).fill(job_type)
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(2)
    page.locator("#status-tabs").get_by_role("link", name=re.compile("^Dead")).click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(1)
    page.locator("#job-rows .row-link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(job_type)


@pytest.mark.long
def test_row_opens_by_a_click_anywhere_and_is_marked_after_back(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    stack.database.jobs.insert_many([make_job(job_type) for _ in range(3)])
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}")
    job_id = list_ids(page)[1]
    cell = page.locator("#job-rows tbody tr").nth(1).locator(".c-type")
    with page.context.expect_page() as new_tab:
        cell.click(button="middle")
    expect(new_tab.value).to_have_url(
        f"{stack.url}/dashboard/jobs/{job_id}?list=all&type={job_type}"
    )
    new_tab.value.close()
    box = cell.bounding_box()
    assert box
    page.mouse.move(box["x"] + 8, box["y"] + 15)  # select a part of the type
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 15)
    page.mouse.up()
    assert page.evaluate("getSelection().toString()")
    expect(page).to_have_url(re.compile(r"\?type="))
    cell.click()
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs/{job_id}?list=all&type={job_type}")
    page.go_back()
    expect(page.locator("tr.selected .row-link")).to_have_attribute("title", job_id)
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.locator("tr.selected")).to_have_count(0)


@pytest.mark.long
def test_table_head_stays_visible_and_covers_no_focused_row(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    """Catches a head that scrolls away, and a head that covers a focused link (WCAG 2.4.11)."""
    stack.database.jobs.insert_many([make_job(f"{job_type}.{number:02}") for number in range(20)])
    page = visit(f"{stack.url}/dashboard?by=type&text={job_type}")
    page.set_viewport_size({"width": 1_280, "height": 400})
    rows, head = page.locator("#types tbody tr"), page.locator("#types thead th").first
    expect(rows).to_have_count(20)
    rows.last.scroll_into_view_if_needed()
    bar_bottom = sum(get_top_and_height(page.locator(".bar")))
    eventually(lambda: abs(get_top_and_height(head)[0] - bar_bottom) < 1)
    rows.nth(1).locator(".row-link").focus()
    assert (
        get_top_and_height(rows.nth(1).locator(".row-link"))[0] >= sum(get_top_and_height(head)) - 1
    )
    rows.nth(1).locator(".c-wait").click()
    expect(page).to_have_url(re.compile(rf"/dashboard/types/{re.escape(job_type)}\.01\?"))


def test_date_filter_is_entered_in_the_zone_of_the_viewer_and_sent_in_utc(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    typed, zone = f"{DATE}T12:30", "America/New_York"
    moment = datetime.fromisoformat(typed).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    earlier_job = make_job(job_type, createdAt=moment - timedelta(minutes=1))
    later_job = make_job(job_type, createdAt=moment + timedelta(minutes=1))
    stack.database.jobs.insert_many([earlier_job, later_job])
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}", timezone_id=zone)
    page.get_by_text("More filters").click()
    page.get_by_label("Created from").fill(typed)
    page.get_by_label("Created from").press("Enter")
    expect(page.locator("#job-rows tbody tr")).to_have_count(1)
    assert list_ids(page) == [later_job["jobId"]]
    assert parse_qs(urlsplit(page.url).query)["created_from"] == [
        f"{moment:%Y-%m-%dT%H:%M}:00.000Z"
    ]
    expect(page.get_by_label("Created from")).to_have_value(typed)
    created = page.locator("td.c-created time")
    expect(created).to_have_text(re.compile(r"12:31"))
    expect(created).to_have_attribute("title", re.compile(f"{moment:%Y-%m-%dT}"))


def test_row_under_the_pointer_stays_in_place_while_jobs_arrive(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    first_job = stack.queue.enqueue(job_type)
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}")
    second_job = stack.queue.enqueue(job_type)
    expect(page.locator("#job-rows tbody tr")).to_have_count(2)  # without a reload
    row = page.locator("#job-rows tbody tr").first
    row.hover()
    box = row.bounding_box()
    third_job = stack.queue.enqueue(job_type)
    assert stack.queue.cancel(second_job)
    expect(row.locator(".status")).to_have_text("cancelled")
    button = page.get_by_role("button", name="Show 1 newer job")
    expect(button).to_be_visible()
    assert list_ids(page) == [second_job, first_job]
    page.mouse.wheel(0, 0)
    assert box
    assert row.bounding_box() == box
    button.click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(3)
    assert list_ids(page) == [third_job, second_job, first_job]
    expect(button).to_have_count(0)


def find_held_rows_notice(page: Page) -> Locator:
    return page.locator("#freshness", has_text="rows held")


@pytest.mark.long
def test_held_rows_that_no_longer_match_show_their_status(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    lease = {"status": "leased", "leaseExpiresAt": datetime.now(UTC) + timedelta(hours=1)}
    job_ids = [f"{job_type}-{number}" for number in range(4)]
    stack.database.jobs.insert_many([make_job(job_type, jobId=id_, **lease) for id_ in job_ids])
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}&status=leased")
    rows = page.locator("#job-rows tbody tr")
    expect(rows).to_have_count(4)
    expect(find_held_rows_notice(page)).to_have_count(0)
    order = list_ids(page)
    rows.nth(2).hover()
    expect(page.locator("#freshness")).to_have_text("live · rows held: pointer on the table")
    success = {"status": "succeeded", "finishedAt": datetime.now(UTC)}
    stack.database.jobs.update_one({"jobId": job_ids[0]}, {"$set": success})
    stack.database.jobs.delete_one({"jobId": job_ids[1]})
    for job_id, status in ((job_ids[0], "succeeded"), (job_ids[1], "deleted")):
        row = page.locator(f'[id="job-{job_id}"]')
        expect(row.locator(".status")).to_have_text(status)
    expect(page.locator("#job-rows tr.unmatched")).to_have_count(2)
    assert find_violations(page, ["color-contrast"]) == []
    expect(page.locator(".count")).to_have_text("2 jobs")
    assert list_ids(page) == order
    page.mouse.move(5, 5)
    expect(rows).to_have_count(2)
    expect(find_held_rows_notice(page)).to_have_count(0)
    page.locator("#job-rows .row-link").first.focus()
    expect(page.locator("#freshness")).to_have_text("live · rows held: focus in the table")
    stack.database.jobs.update_many({"type": job_type}, {"$set": {"status": "dlq"}})
    expect(page.locator("#job-rows tr.unmatched")).to_have_count(2)
    expect(page.locator(".count")).to_have_text("0 jobs")
    expect(page.locator("#job-rows .row-link").first).to_be_focused()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    expect(page.get_by_role("heading", name="No jobs match these filters")).to_be_visible()


def add_dead_jobs(stack: Stack, job_type: str, code: str, count: int) -> None:
    """Add dead jobs of a type, each with a failed attempt and an error with this code."""
    now = datetime.now(UTC)
    jobs = [make_job(job_type, status="dlq", attemptCount=1) for _ in range(count)]
    for number, job in enumerate(jobs):
        job["lastError"] = {
            "code": code,
            "message": f"account {number} is refused",
            "stack": f"Error: account {number} is refused\n    at pay (/app/pay.js:3:14)",
        }
    stack.database.jobs.insert_many(jobs)
    stack.database.job_attempts.insert_many(
        {"jobId": job["jobId"], "attemptNumber": 1, "status": "failed", "workerId": "w1"}
        | {"startedAt": now, "finishedAt": now, "error": job["lastError"]}
        for job in jobs
    )


@pytest.mark.long
def test_types_keep_their_order_under_the_pointer_and_with_the_focus(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    names = [f"{job_type}.{letter}" for letter in "abc"]

    def enqueue(name: str, count: int) -> None:
        stack.database.jobs.insert_many([make_job(name) for _ in range(count)])

    for number, name in enumerate(names):
        enqueue(name, 9 - number)
    add_dead_jobs(stack, "failing", f"E_{job_type[-6:]}", 1)
    page = visit(f"{stack.url}/dashboard?text={job_type}")
    expect(page.locator(".chart")).to_have_count(3)
    # The page also has a table of errors: it must not be counted as a table of types.
    expect(page.get_by_role("region", name="Top errors").locator("tbody tr").first).to_be_visible()
    types = page.locator("#types tbody th")
    expect(types).to_have_text(names)
    row = page.locator("#types tbody tr").nth(1)
    row.locator(".c-queued").hover()
    expect(page.locator("#freshness")).to_have_text("live · rows held: pointer on the table")
    enqueue(names[2], 20)
    last = page.locator("#types tbody tr").nth(2).locator(".c-queued")
    expect(last).to_have_text("27")
    expect(types).to_have_text(names)
    page.mouse.move(5, 5)
    expect(types).to_have_text([names[2], names[0], names[1]])
    link = types.get_by_role("link", name=names[1])
    link.focus()
    enqueue(names[1], 40)
    expect(page.get_by_role("row", name=names[1]).locator(".c-queued")).to_have_text("48")
    expect(types).to_have_text([names[2], names[0], names[1]])
    expect(link).to_be_focused()
    link.blur()
    expect(types.first).to_have_text(names[1])


def test_back_restores_the_filters_of_the_list(visit: Visits, stack: Stack, job_type: str) -> None:
    stack.database.jobs.insert_many([make_job(job_type), make_job(job_type, status="dlq")])
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}")
    expect(page.locator("#job-rows tbody tr")).to_have_count(2)
    page.locator("select[name=sort]").select_option("oldest first")
    expect(page).to_have_url(re.compile("sort=createdAt"))
    page.get_by_label("Owner").fill(f"nobody {job_type}")
    page.get_by_label("Owner").press("Enter")
    expect(page.get_by_role("heading", name="No jobs match these filters")).to_be_visible()
    suggestions = page.get_by_role("region", name="Filters to remove")
    expect(suggestions.get_by_role("link")).to_have_text([re.compile("Owner: nobody")])
    for _ in range(2):
        page.go_back()
    expect(page.locator("#job-rows tbody tr")).to_have_count(2)
    expect(page.get_by_label("Owner")).to_have_value("")
    expect(page.locator("select[name=sort]")).to_have_value("")


def test_paused_list_sends_no_requests_until_resumed(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    stack.queue.enqueue(job_type)
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}", clock=True)
    expect(page.locator("#freshness")).to_have_text("live")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
    page.wait_for_load_state("networkidle")
    requests = visit.count_requests("/dashboard/jobs")
    stack.queue.enqueue(job_type)
    page.clock.run_for(30_000)
    expect(page.locator("#freshness")).to_have_text(re.compile("data 3. s old"))
    assert visit.count_requests("/dashboard/jobs") == requests
    page.get_by_role("button", name="Paused").click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(2)


def test_page_of_a_busy_service_waits_before_its_next_request(visit: Visits, stack: Stack) -> None:
    """Catches a page that sends as many requests as before while the service refuses them."""
    page = visit(f"{stack.url}/dashboard/jobs", clock=True)
    expect(page.locator("#freshness")).to_have_text("live")
    headers = {"X-Error-Code": "overloaded", "Retry-After": "30"}
    page.route("**/dashboard/jobs", lambda route: route.fulfill(status=503, headers=headers))
    page.clock.run_for(5_000)
    expect(page.locator("#freshness")).to_have_text(re.compile("jobmon is busy · data . s old"))
    requests = visit.count_requests("/dashboard/jobs")
    page.clock.run_for(24_000)
    assert visit.count_requests("/dashboard/jobs") == requests
    page.unroute_all()
    page.clock.run_for(37_000)  # the wait is up to twice as long, at random
    expect(page.locator("#freshness")).to_have_text("live")


def test_open_list_whose_filter_is_refused_shows_the_reason(visit: Visits, stack: Stack) -> None:
    page = visit(f"{stack.url}/dashboard/jobs?owner=nobody")
    expect(page.locator("#freshness")).to_have_text("live")
    refusal = {"status": 422, "headers": {"X-Error-Code": "validation_error"}, "body": "owner: bad"}
    page.route("**/dashboard/jobs?owner=nobody", lambda route: route.fulfill(**refusal))
    expect(page.get_by_role("alert")).to_contain_text("is no longer valid. owner: bad Below is")


def test_list_copies_an_id_and_exports_the_filtered_jobs(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    dead_jobs = [make_job(job_type, status="dlq") for _ in range(30)]
    stack.database.jobs.insert_many([*dead_jobs, make_job(job_type)])
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = visit(f"{stack.url}/dashboard/jobs?type={job_type}&status=dlq", **options)
    page.get_by_role("button", name="Copy the job id").first.click()
    expect(page.get_by_text("Copied")).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == list_ids(page)[0]
    exported = {}
    for name in ("CSV", "NDJSON"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        text = download.value.path().read_text(encoding="utf-8-sig")
        *rows, end = (
            csv.DictReader(text.splitlines())
            if name == "CSV"
            else map(json.loads, text.splitlines())
        )
        exported[name] = {row["jobId"] for row in rows}
        end_values = {"CSV": ["#end", "30"], "NDJSON": [True, 30]}
        assert list(end.values())[:2] == end_values[name]
    dead_ids = {job["jobId"] for job in dead_jobs}
    assert exported == {"CSV": dead_ids, "NDJSON": dead_ids}


# --- One job -------------------------------------------------------------------------------------


def test_job_page_shows_the_timeline_and_updates_until_the_job_is_finished(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    queue = stack.queue
    payload_with_secrets = {"apiKey": "sk_live", "deep": [{"password": "hunter2"}], "to": "ada"}
    job_id = queue.enqueue(job_type, payload_with_secrets, created_by="ada", max_attempts=3)
    lease = queue.lease("worker-7", types=[job_type])
    assert lease
    queue.report_failure(lease, "E_BANK", "The bank is closed.", stack="at line 1\n  at line 2")
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = visit(f"{stack.url}/dashboard/jobs/{job_id}", **options)
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text(re.compile("Retry 1 of 2 (is|became) due "))
    expect(verdict).to_contain_text("E_BANK The bank is closed.")
    steps = page.locator(".timeline > li")
    expect(steps.locator("strong")).to_have_text(["Next retry", "Attempt 1", "Enqueued"])
    expect(steps.nth(1)).to_contain_text("failed on worker-7")
    expect(steps.nth(1)).to_contain_text(re.compile(r"waited \d+ ms\s+ran \d+ ms"))
    expect(steps.nth(1)).to_contain_text("E_BANK The bank is closed.")
    expect(steps.nth(0)).to_contain_text("attempt 2 of 3")
    expect(page.locator(".axis svg")).to_be_visible()

    stack_text = page.get_by_text("at line 2")
    expect(stack_text).to_be_visible()  # the stack of the newest attempt is open
    page.get_by_role("button", name="Copy the stack").click()
    expect(page.get_by_text("Copied")).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == "at line 1\n  at line 2"

    payload = page.locator("#payload")
    expect(payload).to_contain_text("apiKey [redacted]")
    assert "hunter2" not in page.content()
    nested = payload.locator("details").last
    expect(nested).to_have_js_property("open", False)
    nested.locator("summary").click()
    expect(nested).to_contain_text("password [redacted]")

    lease = eventually(lambda: queue.lease("worker-8", types=[job_type]))
    expect(steps.locator("strong").first).to_have_text("Lease expires")
    expect(verdict).to_contain_text("Attempt 2 of 3 started")
    expect(stack_text).to_be_visible()  # opened details stay open
    expect(nested).to_have_js_property("open", True)
    queue.report_success(lease)
    expect(page.locator(".heading .status")).to_have_text("succeeded")
    expect(steps.locator("strong").first).to_have_text("Succeeded")
    expect(verdict).to_contain_text("Attempt 2 succeeded")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    expect(stack_text).to_be_visible()

    page.clock.install()
    page.reload()
    page.wait_for_load_state("networkidle")
    requests = visit.count_requests(f"/dashboard/jobs/{job_id}")
    page.clock.run_for(30_000)
    assert visit.count_requests(f"/dashboard/jobs/{job_id}") == requests

    page.get_by_role("link", name="More jobs of this type").click()
    assert parse_qs(urlsplit(page.url).query) == {"type": [job_type]}
    page.go_back()
    page.get_by_role("link", name="ada").click()
    assert parse_qs(urlsplit(page.url).query) == {"owner": ["ada"]}
    assert job_id in list_ids(page)


def test_job_page_shows_that_its_job_was_deleted(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    job_id = stack.queue.enqueue(job_type)
    page = visit(f"{stack.url}/dashboard/jobs/{job_id}")
    expect(page.locator("#freshness")).to_have_text("live")
    stack.database.jobs.delete_one({"jobId": job_id})
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This job no longer exists")
    expect(alert).to_have_count(1)
    expect(page.locator("#freshness")).to_have_text("")
    expect(page.locator("#job")).to_have_class("ended")


def test_job_page_shows_an_expired_lease_in_red(visit: Visits, stack: Stack, job_type: str) -> None:
    later = datetime.now(UTC) + timedelta(minutes=30)
    job = make_job(job_type, status="leased", leasedBy="w2", leaseExpiresAt=later)
    stack.database.jobs.insert_one(job)
    page = visit(f"{stack.url}/dashboard/jobs/{job['jobId']}")
    step = page.locator(".timeline > li").first
    expect(step).to_have_text(re.compile(r"Lease expires in \d+ min.* \(w2\)"))
    expect(page).to_have_title(f"running · {job_type} · jobmon")
    now = datetime.now(UTC)
    # The page must show the end of the lease without another change of the job.
    short_lease = {"leaseExpiresAt": now + timedelta(seconds=3), "updatedAt": now}
    stack.database.jobs.update_one({"_id": job["_id"]}, {"$set": short_lease})
    expect(page.get_by_text("lease expired", exact=True)).to_be_visible()
    expect(page).to_have_title(f"lease expired · {job_type} · jobmon")
    expect(step).to_have_text(re.compile(r"Lease expired \d+ s ago \(w2\)|Lease expired now"))
    assert step.evaluate("element => getComputedStyle(element).color") == "rgb(179, 38, 30)"


# --- Keyboard ------------------------------------------------------------------------------------


def await_scripts(page: Page) -> None:
    """Wait until the scripts of a new page run: keys that are pressed before that are lost."""
    expect(page.get_by_role("combobox", name="Search")).to_be_visible()


def test_keyboard_shortcuts_open_pages_and_move_between_rows(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    older, newer = stack.queue.enqueue(job_type), stack.queue.enqueue(job_type)
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = visit(f"{stack.url}/dashboard", **options)
    keyboard = page.keyboard
    keyboard.type("gj")
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    await_scripts(page)
    keyboard.press("/")
    search_box = page.get_by_role("combobox", name="Search")
    expect(search_box).to_be_focused()
    keyboard.type("jkgo?/")  # these keys are no shortcuts in a field
    expect(search_box).to_have_value("jkgo?/")
    for _ in range(3):  # close the suggestions, empty the box, leave the box
        keyboard.press("Escape")
    expect(search_box).not_to_be_focused()
    keyboard.type("gm")
    expect(page.get_by_role("heading", level=1)).to_have_text("My jobs")
    await_scripts(page)
    keyboard.type("gs")
    expect(page.get_by_role("heading", level=1)).to_have_text("Schedule")
    page.goto(f"{stack.url}/dashboard/jobs?type={job_type}")
    for key, job_id in (("j", newer), ("j", older), ("j", older), ("k", newer)):
        keyboard.press(key)
        expect(page.locator(".row-link:focus")).to_have_attribute("title", job_id)
    expect(page.locator("tr.selected")).to_have_count(1)
    keyboard.press("p")
    expect(page.locator(".row-link:focus")).to_have_attribute("title", newer)
    keyboard.press("n")
    expect(page.locator(".row-link:focus")).to_have_attribute("title", older)
    keyboard.press("p")
    keyboard.press("Shift+P")
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    keyboard.press("Enter")
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs/{newer}?list=all&type={job_type}")
    await_scripts(page)
    keyboard.press("n")
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs/{older}?list=all&type={job_type}")
    await_scripts(page)
    keyboard.press("p")
    expect(page.locator(".id")).to_contain_text(newer)
    await_scripts(page)
    keyboard.press("c")
    expect(page.get_by_text("Copied")).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == newer
    keyboard.press("u")
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs?type={job_type}")
    await_scripts(page)
    keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    keyboard.type("go")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_search_box_opens_an_order_a_type_and_a_page(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    """Catches a page on which a viewer cannot search for an order number with the keyboard."""
    order_id = str(uuid.uuid4().int)[:9]
    job_id = stack.queue.enqueue(job_type, {"orderId": int(order_id)})
    stack.queue.enqueue(job_type)
    page = visit(f"{stack.url}/dashboard/schedule")
    keyboard, search_box = page.keyboard, page.get_by_role("combobox", name="Search")
    keyboard.press("/")
    keyboard.type(order_id)
    keyboard.press("Enter")
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs/{job_id}")
    await_scripts(page)
    # The search finds a type by a part of its name: here the part after `type.`.
    options = page.get_by_role("option")
    keyboard.press("/")
    keyboard.type(f"type:{job_type[5:]}")
    suggestion = options.filter(has_text=job_type).first
    expect(suggestion).to_be_visible()
    while suggestion.get_attribute("aria-selected") != "true":
        keyboard.press("ArrowDown")
    suggestion_id = str(suggestion.get_attribute("id"))
    expect(search_box).to_have_attribute("aria-activedescendant", suggestion_id)
    assert find_violations(page, WCAG_TAGS) == []
    keyboard.press("Escape")
    expect(search_box).to_have_attribute("aria-expanded", "false")
    keyboard.press("ArrowDown")
    suggestion.click()
    expect(page).to_have_url(f"{stack.url}/dashboard/jobs?type={job_type}")
    await_scripts(page)
    keyboard.press("Control+k")
    expect(options.filter(has_text="Workers")).to_be_visible()
    assert all(name.strip() for name in options.locator("span:first-child").all_inner_texts())
    keyboard.type("err")
    keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Errors")
    await_scripts(page)
    page.set_viewport_size(PHONE)
    size = search_box.bounding_box()
    assert size is not None
    assert min(size["width"], size["height"]) >= 44
    heading_position = page.get_by_role("heading", level=1).bounding_box()
    search_box.click()
    keyboard.type("status:de")
    expect(options.filter(has_text="dead")).to_be_visible()
    # The suggestions cover a part of the page; they do not move it.
    assert page.get_by_role("heading", level=1).bounding_box() == heading_position
    assert not page.evaluate(IS_WIDER)
    page.set_viewport_size(DESKTOP)


@pytest.mark.long
def test_search_box_searches_after_the_palette_was_closed(visit: Visits, stack: Stack) -> None:
    """Catches Enter that opens a page, as in the palette, instead of searching for the text."""
    page = visit(f"{stack.url}/dashboard/schedule")
    keyboard, search_box = page.keyboard, page.get_by_role("combobox", name="Search")
    keyboard.press("Control+k")
    expect(page.get_by_role("option").filter(has_text="Errors")).to_be_visible()
    keyboard.press("Escape")
    expect(search_box).to_have_attribute("aria-expanded", "false")
    keyboard.press("Escape")
    expect(search_box).not_to_be_focused()
    search_box.click()
    keyboard.type("err")
    keyboard.press("Enter")
    page.wait_for_url(re.compile("find[?]q=err"))


# After each key, records the focused element in `reached` if it has a visible ring around it.
# `rounds` counts how often the focus has left the page.
RECORD_FOCUS = """() => {
  window.reached = new WeakSet(); // an attribute of the element would be lost at an update
  window.rounds = 0;
  addEventListener("keyup", () => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const hasRing = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    if (hasRing) window.reached.add(element); // of a date field, one part with a ring is enough
    if (element === document.body) window.rounds += 1;
  }, true);
}"""
CONTROLS_WITHOUT_FOCUS = """() => [...document.querySelectorAll(
  "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]
  .filter(element => element.checkVisibility({ visibilityProperty: true }))
  .filter(element => !window.reached.has(element))
  .map(element => element.outerHTML.slice(0, 200))"""


def test_tab_reaches_every_control_with_a_visible_focus(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    job_id = stack.queue.enqueue(job_type, {"a": {"b": 1}})
    page = visit(f"{stack.url}/dashboard/sign-in", token=None)
    unreached = {}
    for path in (
        "/dashboard/sign-in",
        f"/dashboard?text={job_type}",
        f"/dashboard/jobs?type={job_type}&status=queued",
        f"/dashboard/jobs/{job_id}",
    ):
        page.goto(stack.url + path)
        page.evaluate(RECORD_FOCUS)
        for _ in range(16):
            for _ in range(10):
                page.keyboard.press("Tab")
            # The first round may start in the middle of the page: the second reaches the others.
            if page.evaluate("window.rounds >= 2"):
                break
        unreached[path] = page.evaluate(CONTROLS_WITHOUT_FOCUS)
        sign_in(page.context, stack.url, create_token())
    assert unreached == {path: [] for path in unreached}


# --- Appearance ----------------------------------------------------------------------------------


def get_background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.long
def test_printed_page_is_light_with_its_origin_and_absolute_times(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    job_id = stack.queue.enqueue(job_type, {"text": "x" * 400})
    page = visit(f"{stack.url}/dashboard/jobs/{job_id}", color_scheme="dark")
    created = page.locator(".facts time").first
    expect(created).to_have_text(re.compile(r"\d+ s ago|now"))
    expect(page.locator(".print-head")).to_be_hidden()
    page.emulate_media(media="print", color_scheme="dark")
    expect(created).to_have_text(re.compile(r"\d+ \w{3} \d{4}, \d\d:\d\d:\d\d"))
    head = page.locator(".print-head")
    expect(head).to_contain_text(f"Queue: {stack.database.name}.jobs")
    expect(head).to_contain_text(
        re.compile(r"Printed by: root\s+Printed at: \d+ \w{3} \d{4}, .* CE?S?T")
    )
    expect(page.locator(".bar")).to_be_hidden()
    expect(page.get_by_role("button")).to_have_count(0)
    assert get_background(page) == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="dark")
    expect(created).to_have_text(re.compile(r"\d+ s ago|now"))
    page.get_by_role("button", name="Open all").click()
    expect(page.locator("#payload").get_by_text("x" * 400)).to_be_visible()


def test_theme_follows_the_system_or_the_choice_of_the_viewer(visit: Visits, stack: Stack) -> None:
    light, dark = "rgb(246, 247, 249)", "rgb(17, 22, 29)"
    page = visit(f"{stack.url}/dashboard", color_scheme="dark")
    assert get_background(page) == dark
    page.emulate_media(color_scheme="light")
    assert get_background(page) == light
    page.keyboard.press("t")  # light
    page.keyboard.press("t")  # dark, although the system is light
    assert get_background(page) == dark
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert get_background(page) == dark


def fill_pages(stack: Stack, job_type: str) -> dict[str, str]:
    """Add jobs, so that the pages have content; returns the path of each page by its name."""
    now = datetime.now(UTC)
    error = {"code": "E_ODD", "message": "It went wrong.", "stack": "at line 1\n" * 30}
    failed_job = make_job(
        job_type,
        status="failed",
        lastError=error,
        attemptCount=1,
        createdBy="root",
        payload={"to": "ada", "lines": [{"value": number} for number in range(5)]},
    )
    stack.database.jobs.insert_many(
        [
            failed_job,
            *(
                make_job(job_type, status=status)
                for status in ("queued", "leased", "dlq", "succeeded")
            ),
        ]
    )
    stack.database.job_attempts.insert_one(
        {"jobId": failed_job["jobId"], "attemptNumber": 1, "status": "failed", "workerId": "w1"}
        | {"startedAt": now - timedelta(seconds=2), "finishedAt": now, "error": error}
    )
    group = classify_error(error).id
    rollups = stack.database.client[f"{stack.database.name}_rollups"]
    eventually(lambda: rollups.errors.find_one({"group": group}))
    return {
        "overview": f"/dashboard?text={job_type}",
        "errors": "/dashboard/errors?range=1h",
        "error": f"/dashboard/errors/{group}?range=1h",
        "jobs": f"/dashboard/jobs?type={job_type}&type=other&status=failed",
        "no match": "/dashboard/jobs?type=never",
        "wrong filter": "/dashboard/jobs?job_id=ab",
        "job": f"/dashboard/jobs/{failed_job['jobId']}",
        "my jobs": "/dashboard/my",
        "search": f"/dashboard/find?q={job_type[:5]}",
        "no result": "/dashboard/find?q=never:seen",
        "schedule": "/dashboard/schedule",
        "recurring": "/dashboard/recurring",
        "unknown job": "/dashboard/jobs/never",
        "wrong address": "/dashboard?range=2h",
        "sign in": "/dashboard/sign-in",
    }


# Every run of the tests checks these pages; only `make test-long` checks the others.
MAIN_PAGES = ("overview", "errors", "error", "jobs", "schedule", "wrong filter", "job", "sign in")


def open_all_details(page: Page) -> None:
    """Wait until the charts are drawn, and open all details."""
    if page.locator("#charts").count():
        charts = 1 if page.locator("[data-charts=errors]").count() else 3
        expect(page.locator(".chart")).to_have_count(charts)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")


def find_violations(page: Page, rules_or_tags: list[str]) -> list[tuple[str, str, str]]:
    """The rule, HTML and summary of each violation on the page, for these rules or tags of axe."""
    require_file(AXE, "no axe (make test installs it)")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    options = {
        "runOnly": {
            "type": "tag" if rules_or_tags == WCAG_TAGS else "rule",
            "values": rules_or_tags,
        },
        "resultTypes": ["violations"],
    }
    report = page.evaluate("options => axe.run(options)", options)
    return [
        (violation["id"], node["html"], node["failureSummary"])
        for violation in report["violations"]
        for node in violation["nodes"]
    ]


def check_page(page: Page, url: str) -> dict[str, Any]:
    """The violations of WCAG on the page at `url`, and whether it is wider than a phone."""
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESKTOP)
    page.goto(url)
    open_all_details(page)
    viewport = page.locator("meta[name=viewport]")
    expect(viewport).to_have_attribute("content", "width=device-width, initial-scale=1")
    violations = find_violations(page, WCAG_TAGS)
    page.set_viewport_size(PHONE)
    return {"desktop": violations, "wider than a phone": page.evaluate(IS_WIDER)}


def list_faults(checks: dict[str, dict[str, Any]]) -> list[tuple[str, str, Any]]:
    """The page, the check and its result, for each check that found a fault."""
    return [
        (page_name, check, result)
        for page_name, results in checks.items()
        for check, result in results.items()
        if result
    ]


def test_main_pages_are_accessible_in_both_themes_and_fit_a_phone(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    page = visit(f"{stack.url}/dashboard/sign-in")
    paths = fill_pages(stack, job_type)
    checks: dict[str, dict[str, Any]] = {}
    for name in MAIN_PAGES:
        checks[name] = check_page(page, stack.url + paths[name])
        checks[name]["on a phone"] = find_violations(page, ["target-size"])
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(DESKTOP)
        checks[name]["dark"] = find_violations(page, ["color-contrast"])
    page.keyboard.press("?")
    checks["help"] = {"dark": find_violations(page, WCAG_TAGS)}
    assert list_faults(checks) == []


@pytest.mark.long
def test_other_pages_are_accessible_and_fit_a_phone(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    page = visit(f"{stack.url}/dashboard/sign-in")
    checks = {
        name: check_page(page, stack.url + path)
        for name, path in fill_pages(stack, job_type).items()
        if name not in MAIN_PAGES
    }
    assert list_faults(checks) == []


# --- Errors --------------------------------------------------------------------------------------


def test_errors_link_from_the_overview_to_their_cause_and_a_job(
    visit: Visits, stack: Stack, job_type: str
) -> None:
    code = f"E_{job_type[-6:]}"
    add_dead_jobs(stack, job_type, code, 60)
    page = visit(f"{stack.url}/dashboard")
    top = page.get_by_role("region", name="Top errors")
    row = top.get_by_role("row").filter(has_text=code)
    expect(row).to_contain_text("account <value> is refused")
    expect(row).to_contain_text("new since")
    expect(row).to_contain_text(f"{job_type} 60")
    row.locator(".row-link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(code)
    expect(page.locator("pre")).to_contain_text("at pay (/app/pay.js:3:14)")
    expect(page.get_by_role("img", name=re.compile("Errors. errors: 60 in total"))).to_be_visible()
    page.locator(".row-link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(job_type)
    page.get_by_role("link", name="errors like this").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(code)


# --- States --------------------------------------------------------------------------------------


def test_empty_queue_shows_what_to_check(visit: Visits, empty_stack: Stack) -> None:
    page = visit(f"{empty_stack.url}/dashboard")
    expect(page.get_by_role("heading", name="The queue is empty")).to_be_visible()
    expect(page.get_by_text("JOBMON_MONGO_URI")).to_be_visible()
    empty_stack.queue.enqueue("first.job")
    expect(page.get_by_role("row", name="first.job")).to_be_visible()
    expect(page.get_by_role("heading", name="The queue is empty")).to_have_count(0)
    page.goto(f"{empty_stack.url}/dashboard/jobs?type=another")
    expect(page.get_by_role("heading", name="No jobs match these filters")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(1)
    page.goto(f"{empty_stack.url}/dashboard/my")
    expect(page.get_by_text("jobs whose createdBy is root")).to_be_visible()


def test_overview_without_the_database_keeps_its_values_and_shows_their_age(
    visit: Visits, empty_stack: Stack
) -> None:
    empty_stack.queue.enqueue("queued.job")
    page = visit(f"{empty_stack.url}/dashboard")
    expect(find_tile_value(page, "Queued")).to_have_text("1")
    expect(page.locator("#freshness")).to_have_text("live")
    os.kill(empty_stack.mongod.pid, signal.SIGSTOP)
    try:
        stale = re.compile(r"Database not responding · data \d+ s old")
        expect(page.locator("#freshness")).to_have_text(stale)
        expect(find_tile_value(page, "Queued")).to_have_text("1")
        expect(page.locator("html")).to_have_class(re.compile(r"\bis-stale\b"))
        assert find_violations(page, ["color-contrast"]) == []
        page.emulate_media(color_scheme="dark")
        assert find_violations(page, ["color-contrast"]) == []
        new_page = visit(f"{empty_stack.url}/dashboard/jobs")
        expect(new_page.get_by_role("heading", level=1)).to_have_text("Database not responding")
        expect(new_page.get_by_role("navigation", name="Main", exact=True)).to_be_visible()
    finally:
        os.kill(empty_stack.mongod.pid, signal.SIGCONT)
    expect(page.locator("#freshness")).to_have_text("live")
    expect(new_page.get_by_role("heading", level=1)).to_have_text("Jobs")
    empty_stack.queue.enqueue("queued.job")
    expect(find_tile_value(page, "Queued")).to_have_text("2")


@pytest.mark.long
def test_long_large_and_right_to_left_texts_fit(visit: Visits, stack: Stack, job_type: str) -> None:
    arabic = "إرسال البريد الإلكتروني"
    long_texts = make_job(
        job_type,
        jobId=f"{job_type}/" + "x" * 5_000,
        createdBy="o" * 900,
        lastError={"code": "C" * 900, "message": "m" * 5_000, "stack": "s" * 30_000},
        status="dlq",
    )
    many_keys = {f"key {number}": "v" * 90 for number in range(5_000)}
    large_payload = make_job(job_type, payload={"text": "t" * 500_000, "many": many_keys})
    right_to_left = make_job(f"{job_type} {arabic}", payload={arabic: arabic}, createdBy=arabic)
    stack.database.jobs.insert_many([long_texts, large_payload, right_to_left])
    types = f"type={job_type}&type={quote(right_to_left['type'])}"
    page = visit(f"{stack.url}/dashboard/jobs?{types}")
    too_wide = []
    for job in (None, long_texts, large_payload, right_to_left):
        if job:
            page.goto(f"{stack.url}/dashboard/jobs/{quote(job['jobId'], safe='')}")
            expect(page.get_by_role("heading", level=1)).to_contain_text(job_type)
        else:
            expect(page.locator("#job-rows tbody tr")).to_have_count(3)
        open_all_details(page)
        for viewport in (DESKTOP, PHONE):
            page.set_viewport_size(viewport)
            if page.evaluate(IS_WIDER):
                too_wide.append((page.url[:100], viewport["width"]))
        assert len(page.content()) < 300_000
    assert too_wide == []
    expect(page.get_by_role("heading", level=1)).to_have_attribute("dir", "auto")
    expect(page.locator("#payload .string")).to_have_css("direction", "rtl")


def test_content_of_a_job_never_becomes_markup(visit: Visits, stack: Stack, job_type: str) -> None:
    hostile = make_job(
        job_type + HOSTILE,
        jobId=job_type + HOSTILE,
        status="failed",
        createdBy=HOSTILE,
        payload={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]},
        lastError={"code": HOSTILE, "message": HOSTILE, "stack": HOSTILE},
    )
    malformed = make_job(
        job_type, status=HOSTILE, createdAt=HOSTILE, nextRunAt=HOSTILE, maxAttempts=HOSTILE
    )
    stack.database.jobs.insert_many([hostile, malformed])
    stack.database.job_attempts.insert_one(
        {"jobId": hostile["jobId"], "attemptNumber": 1, "status": HOSTILE, "workerId": HOSTILE}
        | {"startedAt": datetime.now(UTC), "error": hostile["lastError"]}
    )
    page = visit(f"{stack.url}/dashboard?text={job_type}")
    expect(page.locator("#types tbody th")).to_have_count(2)
    paths = [
        f"/dashboard?text={job_type}{quote(HOSTILE)}",
        f"/dashboard/jobs?type={quote(hostile['type'])}&type={job_type}",
        f"/dashboard/jobs?owner={quote(HOSTILE)}&job_id=x{quote(HOSTILE)}",
        f"/dashboard/jobs?status={quote(HOSTILE)}",
        f"/dashboard?range={quote(HOSTILE)}",
        f"/dashboard/{quote(HOSTILE)}",
        f"/dashboard/jobs/{quote(hostile['jobId'], safe='')}",
    ]
    paths_without_text = paths[-3:-1]  # these pages do not repeat a bad range or address
    for path in paths:
        page.goto(stack.url + path)
        open_all_details(page)
        assert page.locator("main img, main script, main [onerror]").count() == 0, path
        if path not in paths_without_text:
            assert "7*7" in page.locator("main").inner_html(), path
    expect(page.locator(".timeline")).to_contain_text(HOSTILE)
    stack.database.jobs.update_one({"jobId": hostile["jobId"]}, {"$set": {"priority": 77}})
    expect(page.locator(".facts")).to_contain_text("77")  # a script has inserted the texts again
    assert page.locator("main img, main script, main [onerror]").count() == 0
