"""The questions that an operator asks at night, answered in a browser from the overview: catches an
answer that needs more than two clicks, or that is not on the page."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
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


class Queue:
    """A queue after a bad night, with the jobs and attempts of the last 40 minutes."""

    def __init__(self, database: Database[Document], now: datetime) -> None:
        self._database = database
        self.now = now
        self._jobs: list[Document] = []
        self._attempts: list[Document] = []

    def add(self, job_type: str, status: str, created: datetime, **fields: Any) -> str:
        """Add a job and return its id."""
        job_id = str(uuid.uuid4())
        self._jobs.append(
            {
                "jobId": job_id,
                "type": job_type,
                "status": status,
                "payload": {"order": len(self._jobs)},
                "priority": 0,
                "createdBy": "alice",
                "createdAt": created,
                "updatedAt": created,
                "nextRunAt": created,
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

    def run(
        self,
        job_type: str,
        ended: datetime,
        *,
        run_time: timedelta = timedelta(milliseconds=80),
        error: Document | None = None,
        worker: str = "worker-1",
    ) -> str:
        """Add a job that succeeded, or died of `error`. Return its id."""
        status = "succeeded" if error is None else "dlq"
        job_id = self.add(
            job_type,
            status,
            ended - MINUTE,
            updatedAt=ended,
            finishedAt=ended,
            attemptCount=1,
            lastError=error,
        )
        self._attempts.append(
            {
                "jobId": job_id,
                "attemptNumber": 1,
                "status": "succeeded" if error is None else "failed",
                "workerId": worker,
                "startedAt": ended - run_time,
                "finishedAt": ended,
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


class NightJobs:
    """The jobs that the questions are about, added to a queue."""

    def __init__(self, queue: Queue) -> None:
        now = queue.now
        self.bad_since = now - 12 * MINUTE
        for number in range(240):
            ended = now - timedelta(seconds=10 * number + 30)
            queue.run("mail", ended, worker=f"worker-{number % 2 + 1}")
        for number in range(30):
            ended = self.bad_since + timedelta(seconds=20 * number)
            refused = make_error("E_SMTP", f"mailbox of user {4_000 + number} refused the message")
            queue.run("mail", ended, error=refused)
        for number in range(6):
            late = make_error("ETIMEDOUT", f"no answer within {number + 3} s")
            queue.run("pay", now - number * MINUTE, error=late, worker="worker-3")
        self.slow = queue.run("mail", now - 5 * MINUTE, run_time=timedelta(seconds=41))
        self.running = queue.add(
            "pay",
            "leased",
            now - 2 * MINUTE,
            leasedBy="worker-3",
            leaseExpiresAt=now + 60 * MINUTE,
            attemptCount=1,
        )
        for number in range(400):  # more jobs are enqueued than finish
            queue.add("mail", "queued", now - timedelta(seconds=6 * number + 60))
        self.waiting = queue.add("mail", "queued", now - timedelta(seconds=30))
        for number in range(7):
            due = now + (number + 20) * MINUTE
            queue.add("digest", "queued", now - MINUTE, nextRunAt=due)


@pytest.fixture(scope="module")
def night(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, NightJobs]]:
    """The address of a service that reads such a queue, and the jobs in the queue."""
    name = f"night_{uuid.uuid4().hex}"
    uri, rollups = database_uri(mongod, name), f"{name}_rollups"
    settings = {"JOBMON_COLLECTOR": "true", "JOBMON_ROLLUP_DB": rollups}
    with MongoClient[Document](uri, tz_aware=True) as client:
        connection = Connection(Settings(mongo_uri=uri, rollup_db=rollups), client)
        create_indexes(connection)
        queue = Queue(client[name], datetime.now(UTC))
        night = NightJobs(queue)
        queue.insert()
        queue.write_samples(OwnDatabase(rollup_database(connection), connection.queue_key))
        environment = {"JOBMON_MONGO_URI": uri, "JOBMON_ROLLUP_DB": rollups}
        mark = ["mark", "v2.31", "--at", (night.bad_since - MINUTE).isoformat()]
        command = [str(Path(sys.executable).with_name("jobmon")), *mark]
        subprocess.run(command, env=os.environ | environment, check=True)
        with serving(uri, tmp_path_factory.mktemp("night"), **settings) as web:
            counted = {"name": "progress", "completeUntil": {"$ne": None}}
            eventually(lambda: client[rollups].state.find_one(counted))
            yield web.url, night
        client.drop_database(name)
        client.drop_database(rollups)


class ShortVisit:
    """A visit that begins on the overview and has two clicks at most."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        self.main = page.locator("main")

    def click(self, target: Locator) -> None:
        """Follow a link or press a button."""
        self.clicks += 1
        assert self.clicks <= 2
        target.click()

    def shows(self, *texts: str, where: Locator | None = None) -> None:
        """Wait until the page shows these texts."""
        for text in texts:
            expect(where or self.main).to_contain_text(text)


@pytest.fixture
def begin_visit(visit: Visits, night: tuple[str, NightJobs]) -> Callable[[], ShortVisit]:
    """A function that begins a new visit on the overview."""
    url = night[0]
    visited: list[Page] = []

    def begin() -> ShortVisit:
        if visited:
            visited[0].goto(f"{url}/dashboard")
        else:
            visited.append(visit(f"{url}/dashboard"))
        return ShortVisit(visited[0])

    return begin


def test_what_fails_why_and_since_when(begin_visit: Callable[[], ShortVisit]) -> None:
    short_visit = begin_visit()
    worst = short_visit.main.locator("section", has_text="Top errors").locator("tbody tr").first
    short_visit.shows("E_SMTP", "refused the message", "new since", "30", where=worst)
    short_visit.click(worst.locator("a.row-link"))
    short_visit.shows("send (app/src/e_smtp.js)", "mailbox of user")


def test_one_cause_or_several_of_the_dead(begin_visit: Callable[[], ShortVisit]) -> None:
    short_visit = begin_visit()
    causes = short_visit.main.locator("section", has_text="Top errors").locator("tbody tr")
    expect(causes).to_have_count(2)
    short_visit.click(short_visit.main.get_by_role("link", name="All errors"))
    short_visit.shows("E_SMTP", "ETIMEDOUT")


def test_is_worker_3_alive_and_what_does_it_run(
    begin_visit: Callable[[], ShortVisit], night: tuple[str, NightJobs]
) -> None:
    short_visit = begin_visit()
    short_visit.click(short_visit.page.get_by_role("link", name="Workers"))
    row = short_visit.main.locator("tr", has_text="worker-3")
    short_visit.shows("running", "pay", night[1].running[:8], where=row)


def test_why_has_this_job_not_run_and_when_will_it(
    begin_visit: Callable[[], ShortVisit], night: tuple[str, NightJobs]
) -> None:
    short_visit = begin_visit()
    short_visit.click(short_visit.main.get_by_role("link", name="401"))
    short_visit.click(short_visit.main.locator("a.row-link").first)
    short_visit.shows("400 due jobs of its type are ahead of it")
    assert night[1].waiting in short_visit.page.url


def test_what_changed_when_it_began(
    begin_visit: Callable[[], ShortVisit], night: tuple[str, NightJobs]
) -> None:
    short_visit = begin_visit()
    short_visit.shows("v2.31")


def test_what_is_due_in_the_next_hour(begin_visit: Callable[[], ShortVisit]) -> None:
    short_visit = begin_visit()
    short_visit.click(short_visit.main.get_by_role("link", name="7 scheduled"))
    short_visit.shows("Next hour", "digest 7")


def test_which_jobs_of_a_type_were_slowest(
    begin_visit: Callable[[], ShortVisit], night: tuple[str, NightJobs]
) -> None:
    short_visit = begin_visit()
    row = short_visit.main.get_by_role("rowheader", name="mail", exact=True)
    short_visit.click(row.get_by_role("link"))
    slowest = short_visit.main.locator("section", has_text="Slowest attempts")
    short_visit.shows("41 s", night[1].slow[:8], where=slowest)


def test_does_it_clear_by_itself(begin_visit: Callable[[], ShortVisit]) -> None:
    short_visit = begin_visit()
    short_visit.shows("does not clear at this rate")


def fill(page: Page, label: str, text: str) -> None:
    """Type into a filter of the list, which applies at once."""
    shown = page.url
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")
    expect(page).not_to_have_url(shown)


def test_jobs_that_failed_with_a_code_between_two_times_as_a_file(
    visit: Visits, night: tuple[str, NightJobs]
) -> None:
    url, jobs_of_night = night
    page = visit(f"{url}/dashboard/jobs?type=mail&error_code=E_SMTP", timezone_id="UTC")
    page.get_by_text("More filters").click()
    # The fields take whole minutes. In two minutes six jobs failed: one every 20 seconds.
    begin = jobs_of_night.bad_since.replace(second=0, microsecond=0) + 2 * MINUTE
    fill(page, "Finished from", f"{begin:%Y-%m-%dT%H:%M}")
    page.get_by_text("More filters").click()
    fill(page, "Finished before", f"{begin + 2 * MINUTE:%Y-%m-%dT%H:%M}")
    expect(page.locator("#job-count")).to_have_text("6 jobs")
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON").click()
    *jobs, end = map(json.loads, download.value.path().read_text().splitlines())
    assert end == {"end": True, "rows": 6}
    assert {(job["type"], job["lastError"]["code"]) for job in jobs} == {("mail", "E_SMTP")}


def test_scheduled_jobs_of_the_next_hour(visit: Visits, night: tuple[str, NightJobs]) -> None:
    page = visit(f"{night[0]}/dashboard/jobs")
    page.get_by_role("link", name="Scheduled 7").click()
    page.get_by_role("link", name="hour", exact=True).click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(7)
    expect(page.locator("#job-rows td.c-when").first).to_contain_text("due in")
    expect(page.get_by_role("columnheader", name="Due")).to_be_visible()


def test_slow_jobs_only(visit: Visits, night: tuple[str, NightJobs]) -> None:
    page = visit(f"{night[0]}/dashboard/jobs")
    page.get_by_label("Order").select_option("longest run first")
    first = page.locator("#job-rows tbody tr").first
    expect(first.locator(".row-link")).to_have_attribute("title", night[1].slow)
    expect(first).to_contain_text("ran 41 s")


def read_window(page: Page) -> tuple[datetime, datetime]:
    """The start and end of the time window in the page's address."""
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


def test_what_changed_between_two_times(
    begin_visit: Callable[[], ShortVisit], visit: Visits, night: tuple[str, NightJobs]
) -> None:
    """Catches a drag that sets no window, and an address that shows a colleague another window."""
    page = begin_visit().page
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
    begin_visit: Callable[[], ShortVisit], night: tuple[str, NightJobs]
) -> None:
    page = begin_visit().page
    start = floor(night[1].bad_since - 8 * MINUTE, MINUTE)
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


def test_which_jobs_finished_at_a_time_of_a_chart(begin_visit: Callable[[], ShortVisit]) -> None:
    short_visit = begin_visit()
    overlay = short_visit.page.locator(".u-over").first
    expect(overlay).to_be_visible()
    box = overlay.bounding_box()
    assert box
    short_visit.clicks += 1
    overlay.click(position={"x": box["width"] * 0.7, "y": box["height"] - 2})
    short_visit.page.wait_for_url(re.compile("finished_from"))
    query = parse_qs(urlsplit(short_visit.page.url).query)
    assert query["status"] == ["succeeded"]
    bounds = [datetime.fromisoformat(query[f"finished_{name}"][0]) for name in ("from", "to")]
    assert bounds[1] - bounds[0] == MINUTE
    expect(short_visit.page.locator("#job-count")).to_have_text("6 jobs")
