"""The pages answer an operator's questions about a queue with errors, in a browser.

Catches an answer that is missing on the pages, or needs more than two clicks from the overview.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Locator, Page, expect
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.collector.samples import QueueSamples
from jobmon.demo.mongod import Mongod
from jobmon.rollup.buckets import QueueSample, floor
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..support.browser import Visits
from ..support.commands import database_uri
from ..support.services import serving
from ..support.waiting import eventually

Document = dict[str, Any]
MINUTE = timedelta(minutes=1)


class JobWriter:
    """Collects jobs and their attempts, and writes them to the database of a queue."""

    def __init__(self, database: Database[Document], now: datetime) -> None:
        self._database = database
        self.now = now
        self._jobs: list[Document] = []
        self._attempts: list[Document] = []

    def add_job(self, job_type: str, status: str, created_at: datetime, **fields: Any) -> str:
        """Add a job; returns its id."""
        job_id = str(uuid.uuid4())
        self._jobs.append(
            {
                "jobId": job_id,
                "type": job_type,
                "status": status,
                "payload": {"order": len(self._jobs)},
                "priority": 0,
                "createdBy": "alice",
                "createdAt": created_at,
                "updatedAt": created_at,
                "nextRunAt": created_at,
                "maxAttempts": 3,
                "attemptCount": 0,
                "leasedBy": None,
                "leaseExpiresAt": None,
                "finishedAt": None,
                "lastError": None,
            }
            | fields
        )
        return job_id

    def add_finished(
        self,
        job_type: str,
        ended_at: datetime,
        *,
        run_time: timedelta = timedelta(milliseconds=80),
        error: Document | None = None,
        worker: str = "worker-1",
    ) -> str:
        """Add a job that succeeded, or was dead-lettered with `error`; returns its id."""
        status = "succeeded" if error is None else "dlq"
        job_id = self.add_job(
            job_type,
            status,
            ended_at - MINUTE,
            updatedAt=ended_at,
            finishedAt=ended_at,
            attemptCount=1,
            lastError=error,
        )
        self._attempts.append(
            {
                "jobId": job_id,
                "attemptNumber": 1,
                "status": "succeeded" if error is None else "failed",
                "workerId": worker,
                "startedAt": ended_at - run_time,
                "finishedAt": ended_at,
                "error": error,
            }
        )
        return job_id

    def insert(self) -> None:
        """Write the added jobs and attempts to the database."""
        self._database.jobs.insert_many(self._jobs)
        self._database.job_attempts.insert_many(self._attempts)

    def write_samples(self, rollup: OwnDatabase) -> None:
        """Write the samples that a collector would have written in the last hour."""
        samples = QueueSamples(rollup, {MINUTE: timedelta(days=1)})
        for age in range(60, 0, -1):
            moment = self.now - age * MINUTE
            queued = [job for job in self._jobs if job["status"] == "queued"]
            waiting = sum(job["createdAt"] <= moment for job in queued)
            sample = QueueSample(status_counts={"queued": waiting}, oldest_queued_ms=None)
            samples.write(moment, sample)


def make_error(code: str, message: str) -> Document:
    stack = f"Error: {message}\n    at send (/app/src/{code.lower()}.js:10:5)"
    return {"code": code, "message": message, "stack": stack}


class IncidentJobs:
    """Adds jobs of the last 40 minutes to a queue; has the jobs that the tests ask about."""

    def __init__(self, queue: JobWriter) -> None:
        now = queue.now
        self.errors_since = now - 12 * MINUTE
        for number in range(240):
            ended_at = now - timedelta(seconds=10 * number + 30)
            queue.add_finished("mail", ended_at, worker=f"worker-{number % 2 + 1}")
        for number in range(30):
            ended_at = self.errors_since + timedelta(seconds=20 * number)
            refusal = make_error("E_SMTP", f"mailbox of user {4_000 + number} refused the message")
            queue.add_finished("mail", ended_at, error=refusal)
        for number in range(6):
            timeout = make_error("ETIMEDOUT", f"no answer within {number + 3} s")
            queue.add_finished("pay", now - number * MINUTE, error=timeout, worker="worker-3")
        self.slow = queue.add_finished("mail", now - 5 * MINUTE, run_time=timedelta(seconds=41))
        self.running = queue.add_job(
            "pay",
            "leased",
            now - 2 * MINUTE,
            leasedBy="worker-3",
            leaseExpiresAt=now + 60 * MINUTE,
            attemptCount=1,
        )
        for number in range(400):  # more jobs are enqueued than finish
            queue.add_job("mail", "queued", now - timedelta(seconds=6 * number + 60))
        self.waiting = queue.add_job("mail", "queued", now - timedelta(seconds=30))
        for number in range(7):
            due = now + (number + 20) * MINUTE
            queue.add_job("digest", "queued", now - MINUTE, nextRunAt=due)


class Incident(NamedTuple):
    """The URL of a web service, and the jobs in its queue."""

    url: str
    jobs: IncidentJobs


@pytest.fixture(scope="module")
def incident(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    name = f"night_{uuid.uuid4().hex}"
    uri, rollups = database_uri(mongod, name), f"{name}_rollups"
    settings = {"JOBMON_COLLECTOR": "true", "JOBMON_ROLLUP_DB": rollups}
    with MongoClient[Document](uri, tz_aware=True) as client:
        connection = Connection(Settings(mongo_uri=uri, rollup_db=rollups), client)
        create_indexes(connection)
        queue = JobWriter(client[name], datetime.now(UTC))
        jobs = IncidentJobs(queue)
        queue.insert()
        queue.write_samples(OwnDatabase(rollup_database(connection), connection.queue_key))
        environment = {"JOBMON_MONGO_URI": uri, "JOBMON_ROLLUP_DB": rollups}
        mark = ["mark", "v2.31", "--at", (jobs.errors_since - MINUTE).isoformat()]
        command = [str(Path(sys.executable).with_name("jobmon")), *mark]
        subprocess.run(command, env=os.environ | environment, check=True)
        with serving(uri, tmp_path_factory.mktemp("incident"), **settings) as web:
            complete_history = {"name": "progress", "completeUntil": {"$ne": None}}
            eventually(lambda: client[rollups].state.find_one(complete_history))
            yield Incident(web.url, jobs)
        client.drop_database(name)
        client.drop_database(rollups)


class ShortVisit:
    """A visit that begins on the overview and has two clicks at most."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        self.main = page.locator("main")

    def click(self, target: Locator) -> None:
        """Click a link or a button; a third click fails the test."""
        self.clicks += 1
        assert self.clicks <= 2
        target.click()

    def expect_texts(self, *texts: str, where: Locator | None = None) -> None:
        """Wait until the page shows these texts."""
        for text in texts:
            expect(where or self.main).to_contain_text(text)


@pytest.fixture
def overview_visit(visit: Visits, incident: Incident) -> ShortVisit:
    return ShortVisit(visit(f"{incident.url}/dashboard"))


def test_overview_shows_what_fails_why_and_since_when(overview_visit: ShortVisit) -> None:
    top_errors = overview_visit.main.locator("section", has_text="Top errors")
    row = top_errors.locator("tbody tr").first
    overview_visit.expect_texts("E_SMTP", "refused the message", "new since", "30", where=row)
    overview_visit.click(row.locator("a.row-link"))
    overview_visit.expect_texts("send (app/src/e_smtp.js)", "mailbox of user")


def test_overview_shows_each_cause_of_the_dead_jobs(overview_visit: ShortVisit) -> None:
    causes = overview_visit.main.locator("section", has_text="Top errors").locator("tbody tr")
    expect(causes).to_have_count(2)
    overview_visit.click(overview_visit.main.get_by_role("link", name="All errors"))
    overview_visit.expect_texts("E_SMTP", "ETIMEDOUT")


def test_workers_page_shows_that_a_worker_runs_and_its_job(
    overview_visit: ShortVisit, incident: Incident
) -> None:
    overview_visit.click(overview_visit.page.get_by_role("link", name="Workers"))
    row = overview_visit.main.locator("tr", has_text="worker-3")
    overview_visit.expect_texts("running", "pay", incident.jobs.running[:8], where=row)


def test_job_page_explains_why_the_job_has_not_run(
    overview_visit: ShortVisit, incident: Incident
) -> None:
    overview_visit.click(overview_visit.main.get_by_role("link", name="401"))
    overview_visit.click(overview_visit.main.locator("a.row-link").first)
    overview_visit.expect_texts("400 due jobs of its type are ahead of it")
    assert incident.jobs.waiting in overview_visit.page.url


def test_overview_shows_the_mark_of_the_release(overview_visit: ShortVisit) -> None:
    overview_visit.expect_texts("v2.31")


def test_schedule_shows_what_is_due_in_the_next_hour(overview_visit: ShortVisit) -> None:
    overview_visit.click(overview_visit.main.get_by_role("link", name="7 scheduled"))
    overview_visit.expect_texts("Next hour", "digest 7")


def test_type_page_shows_the_slowest_attempts(
    overview_visit: ShortVisit, incident: Incident
) -> None:
    row = overview_visit.main.get_by_role("rowheader", name="mail", exact=True)
    overview_visit.click(row.get_by_role("link"))
    slowest = overview_visit.main.locator("section", has_text="Slowest attempts")
    overview_visit.expect_texts("41 s", incident.jobs.slow[:8], where=slowest)


def test_overview_shows_that_the_backlog_does_not_clear(overview_visit: ShortVisit) -> None:
    overview_visit.expect_texts("does not clear at this rate")


def fill_filter(page: Page, label: str, text: str) -> None:
    """Type into a filter of the list, which applies at once."""
    url = page.url
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")
    expect(page).not_to_have_url(url)


def test_jobs_with_an_error_code_between_two_times_are_exported(
    visit: Visits, incident: Incident
) -> None:
    page = visit(f"{incident.url}/dashboard/jobs?type=mail&error_code=E_SMTP", timezone_id="UTC")
    page.get_by_text("More filters").click()
    # The fields take whole minutes. In two minutes six jobs failed: one every 20 seconds.
    begin = incident.jobs.errors_since.replace(second=0, microsecond=0) + 2 * MINUTE
    fill_filter(page, "Finished from", f"{begin:%Y-%m-%dT%H:%M}")
    page.get_by_text("More filters").click()
    fill_filter(page, "Finished before", f"{begin + 2 * MINUTE:%Y-%m-%dT%H:%M}")
    expect(page.locator("#job-count")).to_have_text("6 jobs")
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON").click()
    *jobs, end = map(json.loads, download.value.path().read_text().splitlines())
    assert end == {"end": True, "rows": 6}
    assert {(job["type"], job["lastError"]["code"]) for job in jobs} == {("mail", "E_SMTP")}


def test_list_shows_the_scheduled_jobs_of_the_next_hour(visit: Visits, incident: Incident) -> None:
    page = visit(f"{incident.url}/dashboard/jobs")
    page.get_by_role("link", name="Scheduled 7").click()
    page.get_by_role("link", name="hour", exact=True).click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(7)
    expect(page.locator("#job-rows td.c-when").first).to_contain_text("due in")
    expect(page.get_by_role("columnheader", name="Due")).to_be_visible()


def test_list_shows_the_longest_run_first(visit: Visits, incident: Incident) -> None:
    page = visit(f"{incident.url}/dashboard/jobs")
    page.get_by_label("Order").select_option("longest run first")
    first = page.locator("#job-rows tbody tr").first
    expect(first.locator(".row-link")).to_have_attribute("title", incident.jobs.slow)
    expect(first).to_contain_text("ran 41 s")


def read_window(page: Page) -> tuple[datetime, datetime]:
    """The start and end of the time window in the page's URL."""
    query = parse_qs(urlsplit(page.url).query)
    start, end = (datetime.fromisoformat(query[name][0]) for name in ("from", "to"))
    return start, end


def drag(page: Page, start: float, end: float) -> None:
    """Drag over the first chart; `start` and `end` are fractions of its width."""
    box = page.locator(".u-over").first.bounding_box()
    assert box
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], height, steps=4)
    page.mouse.up()


def test_dragged_window_is_kept_on_other_pages_and_for_a_colleague(
    overview_visit: ShortVisit, visit: Visits, incident: Incident
) -> None:
    """Catches a drag that sets no window, and a URL that shows a colleague another window."""
    page = overview_visit.page
    chart = page.get_by_role("img", name="Throughput")
    expect(chart).to_be_visible()
    drag(page, 0.6, 0.75)
    page.wait_for_url(re.compile("from="))
    start, end = read_window(page)
    assert timedelta(minutes=8) <= end - start <= timedelta(minutes=11)
    expect(page.locator("#freshness")).to_have_text("past window, not updated")
    expect(chart).to_have_attribute("aria-label", re.compile(r"succeeded: [1-9]\d* in total"))
    label = chart.get_attribute("aria-label")
    page.get_by_role("link", name="Errors", exact=True).click()
    assert read_window(page) == (start, end)
    page.go_back()
    colleague = visit(page.url, timezone_id="America/New_York")
    expect(colleague.get_by_role("img", name="Throughput")).to_have_attribute(
        "aria-label", label or ""
    )
    # The keyboard also sets a window.
    colleague.get_by_role("slider", name="Cursor of Throughput").focus()
    for key in ("Home", "Shift+ArrowRight", "Shift+ArrowRight", "Enter"):
        colleague.keyboard.press(key)
    colleague.wait_for_url(re.compile(quote(f"{start + 3 * MINUTE:%Y-%m-%dT%H:%M}:00.000Z")))
    assert read_window(colleague) == (start, start + 3 * MINUTE)


def test_window_is_typed_in_the_time_zone_of_the_viewer(
    overview_visit: ShortVisit, incident: Incident
) -> None:
    page = overview_visit.page
    start = floor(incident.jobs.errors_since - 8 * MINUTE, MINUTE)
    page.get_by_text("Other times").click()
    local = start.astimezone(ZoneInfo("Europe/Berlin"))
    page.get_by_label("From", exact=True).fill(f"{local:%Y-%m-%dT%H:%M}")
    page.get_by_label("To", exact=True).fill(f"{local + 10 * MINUTE:%Y-%m-%dT%H:%M}")
    page.get_by_label("Time window").get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("from="))
    assert read_window(page) == (start, start + 10 * MINUTE)
    expect(page.locator(".window-menu summary")).to_contain_text(f"{local:%H:%M}")
    page.locator(".window-menu summary").click()
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{local:%Y-%m-%dT%H:%M}")


def test_click_on_a_chart_shows_the_jobs_that_finished_then(overview_visit: ShortVisit) -> None:
    overlay = overview_visit.page.locator(".u-over").first
    expect(overlay).to_be_visible()
    box = overlay.bounding_box()
    assert box
    overview_visit.clicks += 1
    overlay.click(position={"x": box["width"] * 0.7, "y": box["height"] - 2})
    overview_visit.page.wait_for_url(re.compile("finished_from"))
    query = parse_qs(urlsplit(overview_visit.page.url).query)
    assert query["status"] == ["succeeded"]
    bounds = [datetime.fromisoformat(query[f"finished_{name}"][0]) for name in ("from", "to")]
    assert bounds[1] - bounds[0] == MINUTE
    expect(overview_visit.page.locator("#job-count")).to_have_text("6 jobs")
