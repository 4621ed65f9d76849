"""Actions in a real browser, with a real actor.

Catches a button that changes no job, and a page that is unusable with the keyboard, on a phone or
without scripts.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, Route, expect
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.actor.acting import acting
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.settings.actions import ACTION_PERMISSIONS
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..conftest import SECRET
from ..support.browser import Visits
from ..support.commands import database_uri
from ..support.services import serving
from ..support.waiting import eventually
from .test_browser import IS_WIDER, PHONE, WCAG_TAGS, find_violations

Document = dict[str, Any]


class ActingStack:
    """A web service with actions, its database, and an actor in this process."""

    def __init__(self, url: str, database: Database[Document], settings: Settings) -> None:
        self.url = url
        self.database = database
        self.queue = JobQueue(database)
        self.settings = settings

    def add_dead_jobs(self, job_type: str, count: int, code: str = "EHOST") -> None:
        """Add dead-lettered jobs of a type; `code` is the code of their error."""
        for number in range(count):
            self.queue.enqueue(job_type, job_id=f"{job_type}-{number}", max_attempts=1)
            lease = self.queue.lease("w1", types=[job_type])
            assert lease is not None
            self.queue.report_failure(lease, code, "no answer")

    def count_jobs(self, job_type: str, status: str) -> int:
        return self.database.jobs.count_documents({"type": job_type, "status": status})


@pytest.fixture(scope="module")
def stack(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActingStack]:
    name = f"actions_{uuid.uuid4().hex}"
    uri = database_uri(mongod, name)
    databases = {"rollup_db": f"{name}_rollups", "state_db": f"{name}_state"}
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, actions=True, **databases)
    environment = {
        "JOBMON_ACTIONS": "true",
        "JOBMON_ROLE_PERMISSIONS": "admin=" + "+".join(("ADMIN_DASHBOARD", *ACTION_PERMISSIONS)),
        "JOBMON_ROLLUP_DB": databases["rollup_db"],
        "JOBMON_STATE_DB": databases["state_db"],
        "JOBMON_COLLECTOR": "true",
        "JOBMON_WORKERS": "1",
    }
    with ExitStack() as cleanup:
        client = cleanup.enter_context(MongoClient[Document](uri, tz_aware=True))
        for database in (name, *databases.values()):
            cleanup.callback(client.drop_database, database)
        create_indexes(Connection(settings, client))
        JobQueue(client[name]).create_indexes()
        folder = tmp_path_factory.mktemp("actions")
        web = cleanup.enter_context(serving(uri, folder, **environment))
        cleanup.enter_context(acting(settings))
        yield ActingStack(web.url, client[name], settings)


@pytest.fixture
def job_type() -> str:
    return f"type.{uuid.uuid4().hex[:8]}"


def confirm_with_reason(page: Page, reason: str, button: str) -> None:
    page.locator("#confirm").get_by_label("Reason").fill(reason)
    page.locator("#confirm").get_by_role("button", name=button, exact=True).click()


def test_selected_dead_jobs_are_retried_and_their_timeline_names_the_person(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    stack.add_dead_jobs(job_type, 5)
    page = visit(f"{stack.url}/dashboard/jobs?status=dlq&type={job_type}")
    retry_button = page.locator("#selection").get_by_role("button", name="Retry")
    expect(retry_button).to_be_disabled()
    checkboxes = page.locator("#job-rows").get_by_role("checkbox", name=f"Select {job_type}")
    checkboxes.nth(0).click()
    checkboxes.nth(3).click(modifiers=["Shift"])
    expect(page.locator("#selected-count")).to_have_text("(4)")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Retry 4 jobs?")).to_be_visible()
    assert find_violations(page, WCAG_TAGS) == []
    page.locator("#confirm").get_by_role("button", name="Retry 4 jobs").click()
    assert page.url.endswith(f"type={job_type}")  # the browser sends no form without a reason
    confirm_with_reason(page, "provider is back", "Retry 4 jobs")
    page.wait_for_url("**/dashboard/actions/*")
    expect(page.locator("#action")).to_contain_text("4 retried of 4 jobs")
    assert find_violations(page, WCAG_TAGS) == []
    assert (stack.count_jobs(job_type, "queued"), stack.count_jobs(job_type, "dlq")) == (4, 1)
    page.locator(".outcomes .row-link").first.click()
    expect(page.locator(".timeline")).to_contain_text("Retried by root: provider is back")


def test_all_jobs_of_an_error_group_are_retried_and_undone(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    code = f"E{uuid.uuid4().hex[:6].upper()}"
    stack.add_dead_jobs(job_type, 30, code)

    page = visit(f"{stack.url}/dashboard/errors")
    page.get_by_role("link", name=re.compile(code)).click()
    page.get_by_role("button", name="Retry these 30 dead jobs").click()
    expect(page.get_by_role("heading", name="Retry 30 jobs?")).to_be_visible()
    confirm_with_reason(page, "fixed", "Retry 30 jobs")
    expect(page.locator("#action")).to_contain_text("30 retried of 30 jobs")
    assert stack.count_jobs(job_type, "queued") == 30
    page.get_by_role("button", name="Undo").click()
    confirm_with_reason(page, "too early", "Undo 30 jobs")
    expect(page.locator("#action")).to_contain_text("30 undone of 30 jobs")
    assert stack.count_jobs(job_type, "dlq") == 30


@pytest.mark.long
def test_toast_of_an_action_stays_until_it_is_dismissed(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    stack.queue.enqueue(job_type, job_id=f"{job_type}-waits")
    page = visit(f"{stack.url}/dashboard/jobs/{job_type}-waits")
    page.keyboard.press("x")
    page.locator("#confirm").get_by_role("button", name="Cancel 1 job").click()
    toast = page.locator(".toast").filter(has_text="Cancel 1 job")
    expect(toast).to_contain_text("1 cancelled")
    expect(page.locator(".heading").first).to_contain_text("cancelled")
    page.goto(f"{stack.url}/dashboard/actions")
    expect(toast).to_contain_text("1 cancelled")
    assert find_violations(page, WCAG_TAGS) == []
    toast.get_by_role("button", name="Dismiss").click()
    expect(toast).to_have_count(0)
    page.reload()
    expect(page.locator("#actions")).to_contain_text("Cancel 1 job")
    expect(toast).to_have_count(0)


def test_progress_is_requested_once_at_a_time_and_waits_while_the_service_is_busy(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    """Catches a page that sends a slow or busy service one more request each second."""
    stack.queue.enqueue(job_type, job_id=f"{job_type}-waits")
    page = visit(f"{stack.url}/dashboard/jobs/{job_type}-waits", clock=True)
    pending: list[Route] = []
    page.route("**/toast", lambda route: pending.append(route))  # noqa: PLW0108 - not a method
    page.keyboard.press("x")
    page.locator("#confirm").get_by_role("button", name="Cancel 1 job").click()
    toast = page.locator(".toast").filter(has_text="Cancel 1 job")
    expect(toast).to_have_count(1)
    page.clock.run_for(5_000)
    (route,) = eventually(lambda: page.title() and pending)  # title() lets the browser's events in
    route.fulfill(status=503, headers={"X-Error-Code": "overloaded", "Retry-After": "30"})
    page.clock.run_for(24_000)
    assert pending == [route]
    page.unroute_all()
    page.clock.run_for(37_000)
    expect(toast).to_contain_text("1 cancelled")


def test_action_that_is_refused_shows_the_message(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    """Catches a dialog that shows only the code of an error."""
    stack.add_dead_jobs(job_type, 1)
    page = visit(f"{stack.url}/dashboard/jobs?status=dlq&type={job_type}")
    for status, message in ((404, "There is no such job."), (422, "ids: <b>Too many.</b>")):
        refusal = {"status": status, "headers": {"X-Error-Code": "refused"}, "body": message}
        page.route("**/actions/confirm", lambda route, _, refusal=refusal: route.fulfill(**refusal))
        page.locator("#job-rows").get_by_role("checkbox", name=f"Select {job_type}").check()
        page.keyboard.press("r")
        heading = page.locator("#confirm").get_by_role("heading")
        expect(heading).to_have_text(f"Not possible. {message}")
        page.get_by_role("button", name="Close").click()


def test_paused_type_is_resumed_on_the_page_of_a_waiting_job(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    """Catches a link that leaves the page, and a page that still shows the pause afterwards."""
    stack.queue.enqueue(job_type, job_id=f"{job_type}-waits")
    page = visit(f"{stack.url}/dashboard/types/{job_type}")
    page.get_by_role("button", name="Pause this type").click()
    confirm_with_reason(page, "provider is down", "Pause 1 type")
    expect(page.locator(".paused")).to_be_visible()
    page.goto(f"{stack.url}/dashboard/jobs/{job_type}-waits")
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("by root: provider is down. No worker takes the job")
    url = page.url
    verdict.get_by_role("link", name="Resume the type").click()
    page.locator("#confirm").get_by_role("button", name="Resume 1 type").click()
    expect(page.locator(".toast").filter(has_text="Resume 1 type")).to_contain_text("1 resumed")
    expect(verdict).not_to_contain_text("paused")
    assert page.url == url
    assert stack.queue.lease("w1", types=[job_type]) is not None


def test_page_ticks_once_a_second(stack: ActingStack, visit: Visits) -> None:
    """Catches progress of actions that is requested twice a second."""
    page = visit(f"{stack.url}/dashboard/jobs", clock=True)
    expect(page.locator("#freshness")).to_have_text("live")
    page.evaluate("window.ticks = 0")
    page.evaluate("document.addEventListener('jobmon:tick', () => { window.ticks += 1; })")
    page.clock.run_for(5_000)
    assert page.evaluate("window.ticks") in (5, 6)  # real time passes, too


def test_answers_for_the_buttons_do_not_hide_that_the_page_gets_no_data(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    """Catches a page that shows "live" with old data, because its buttons are up to date."""
    page = visit(f"{stack.url}/dashboard/types/{job_type}", clock=True)
    expect(page.locator("#freshness")).to_have_text("live")
    headers = {"X-Error-Code": "database_unavailable"}
    page.route("**/dashboard/types/*", lambda route: route.fulfill(status=503, headers=headers))
    for _ in range(5):
        with page.expect_response("**/type-actions*"):
            page.clock.run_for(2_000)
    expect(page.locator("#freshness")).to_have_text(
        re.compile(r"Database not responding · data 1?\d s old")
    )


def test_new_time_of_a_job_is_entered_in_the_zone_of_the_viewer(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    stack.queue.enqueue(job_type, job_id=f"{job_type}-waits")
    page = visit(f"{stack.url}/dashboard/jobs/{job_type}-waits")
    page.get_by_role("button", name="Reschedule").click()
    moment = (datetime.now(UTC) + timedelta(days=30)).replace(second=0, microsecond=0)
    local = moment.astimezone(ZoneInfo("Europe/Berlin"))
    page.get_by_label("New time (Europe/Berlin)").fill(f"{local:%Y-%m-%dT%H:%M}")
    page.locator("#confirm").get_by_role("button", name="Reschedule 1 job").click()
    toast = page.locator(".toast").filter(has_text="Reschedule 1 job")
    expect(toast).to_contain_text("1 rescheduled")
    job = stack.database.jobs.find_one({"jobId": f"{job_type}-waits"})
    assert job is not None
    assert job["nextRunAt"] == moment


def test_jobs_are_retried_on_a_phone_without_scripts(
    stack: ActingStack, visit: Visits, job_type: str
) -> None:
    stack.add_dead_jobs(job_type, 3)
    page = visit(
        f"{stack.url}/dashboard/jobs?status=dlq&type={job_type}",
        java_script_enabled=False,
        viewport=PHONE,
    )
    page.get_by_role("checkbox", name=f"Select {job_type}").nth(1).check()
    page.locator("#selection").get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name="Retry 1 job?")).to_be_visible()
    page.get_by_role("button", name="Retry 1 job").click()
    page.wait_for_url("**/dashboard/actions/*")
    expect(page.get_by_role("heading", name="Retry 1 job")).to_be_visible()
    eventually(lambda: page.reload() and page.get_by_text("1 retried of 1 job").count())
    assert stack.count_jobs(job_type, "queued") == 1


def check_phone(page: Page) -> None:
    """Check that the page fits the screen, the sizes of controls, and both themes' contrast."""
    assert not page.evaluate(IS_WIDER)
    assert find_violations(page, ["color-contrast", "target-size"]) == []
    page.emulate_media(color_scheme="dark")
    assert find_violations(page, ["color-contrast"]) == []
    page.emulate_media(color_scheme="light")


@pytest.mark.long
def test_pages_of_an_action_fit_a_phone(stack: ActingStack, visit: Visits, job_type: str) -> None:
    stack.add_dead_jobs(job_type, 1)
    page = visit(f"{stack.url}/dashboard/jobs?status=dlq&type={job_type}", viewport=PHONE)
    page.get_by_role("checkbox", name=f"Select {job_type}").check()
    check_phone(page)
    page.locator("#selection").get_by_role("button", name="Retry").click()
    expect(page.locator("#confirm h1")).to_be_visible()
    check_phone(page)
    page.locator("#confirm").get_by_role("button", name="Retry 1 job").click()
    page.locator(".toast a").click()
    expect(page.locator("#action")).to_contain_text("1 retried of 1 job")
    assert not page.evaluate(IS_WIDER)
    page.goto(f"{stack.url}/dashboard/actions")
    check_phone(page)
