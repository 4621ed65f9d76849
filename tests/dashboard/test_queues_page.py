"""The pages of several queues: catches a link that leaves the queue, and a queue without a link."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import render_template

from jobmon.api.queues import QueueSummary
from jobmon.dashboard.queues_page import QueueRow
from jobmon.diagnosis.notices import Level, Notice
from jobmon.domain import JobStatus

from ..conftest import Api
from ..support.pages import Page, Viewer
from ..support.queues import serve_queues
from .conftest import signed_in


@pytest.fixture
def queues_api(watched: Any, tmp_path: Path) -> Api:
    return serve_queues(watched, tmp_path)


@pytest.fixture
def chief(queues_api: Api) -> Viewer:
    """A viewer who may see all queues."""
    return signed_in(queues_api, "ada", "chief")


def list_links(page: Page) -> list[str]:
    return [attrs["href"] or "" for attrs in page.all("a")]


@pytest.mark.parametrize("path", ["", "/sign-in", "/no-page", "/jobs", "/queues"])
def test_without_a_token_pages_do_not_show_whether_a_queue_exists(
    queues_api: Api, path: str
) -> None:
    existing, missing = (
        queues_api.client.get(f"/queues/{name}/dashboard{path}") for name in ("mails", "nothing")
    )
    assert existing.status_code == missing.status_code
    assert existing.text == missing.text.replace("/queues/nothing", "/queues/mails")


@pytest.mark.parametrize("path", ["", "/jobs", "/my", "/jobs/payouts", "/overview"])
def test_every_link_of_a_page_stays_in_its_queue(chief: Viewer, path: str) -> None:
    page = chief.page(f"/queues/payouts/dashboard{path}")
    own_addresses = ("/queues/payouts/dashboard", "/queues/payouts/docs")
    # The menu links to the same list of other queues; the form to sign out is the same for all.
    menu = [
        f"/queues/{name}/dashboard{part}" for name in ("mails", "internal") for part in ("", path)
    ]
    menu += ["/dashboard/queues", "/dashboard/sign-out"]
    for address in page.addresses():
        is_file = address.startswith("/dashboard/static/")
        is_relative = address.startswith(("?", "#"))
        is_own = address.startswith(own_addresses)
        is_menu = address in menu
        assert is_own or is_file or is_relative or is_menu, address


def test_first_page_lists_the_queues_and_links_to_them(chief: Viewer) -> None:
    assert chief.get("/").location == "/dashboard/queues"
    assert chief.get("/queues/payouts").location == "/queues/payouts/dashboard"
    answer = chief.get("/dashboard/queues")
    page = Page(answer.text)
    for name in ("mails", "payouts", "internal"):
        assert f"/queues/{name}/dashboard" in list_links(page)
        assert page.all("tr", id=f"queue-{name}")
    assert "all clear" not in page.text  # the states are unknown: no collector runs
    part = chief.get("/dashboard/queues", part=True)
    assert part.status_code == 200
    assert "<html" not in part.text


def test_queue_with_only_muted_notices_is_not_all_clear(queues_api: Api) -> None:
    muted = tuple(Notice(level=Level.BAD, text=text) for text in ("2 jobs died", "1 job stuck"))
    row = QueueRow(
        name="mails", environment=None, address="/", summary=QueueSummary(level="ok", muted=muted)
    )
    with queues_api.app.test_request_context():
        text = render_template("dashboard/_queues.html", rows=[row])
        clear_row = replace(row, summary=QueueSummary(level="ok"))
        assert "all clear" in render_template("dashboard/_queues.html", rows=[clear_row])
    (level,) = (span for span in Page(text).all("span") if "level" in (span.get("class") or ""))
    assert level["class"] == "level muted"
    assert "all clear" not in text
    assert "Muted: 2 jobs died and 1 more" in text
    assert "needs attention" not in text


@pytest.mark.parametrize(
    ("queued", "oldest_ms", "shown"),
    [(None, 0, "none"), (None, None, "–"), (0, 0, "none"), (1, 0, "0 ms")],
)
def test_queue_without_queued_jobs_has_no_oldest_job(
    queues_api: Api, queued: int | None, oldest_ms: int | None, shown: str
) -> None:
    """Catches an age of 0 ms for no queued job, if the jobs could not be counted."""
    counts = None if queued is None else dict.fromkeys(JobStatus, 0) | {JobStatus.QUEUED: queued}
    summary = QueueSummary(status_counts=counts, oldest_queued_ms=oldest_ms)
    row = QueueRow(name="mails", environment=None, address="/", summary=summary)
    with queues_api.app.test_request_context():
        text = render_template("dashboard/_queues.html", rows=[row])
    assert re.findall(r'<td class="number">(.*?)</td>', text)[0] == shown


def test_caller_without_a_permission_gets_links_to_own_jobs(queues_api: Api) -> None:
    owner = signed_in(queues_api, "ada", "user")
    page = Page(owner.get("/dashboard/queues").text)
    assert "/queues/mails/dashboard/my" in list_links(page)
    assert not page.all("tr", id="queue-internal")
    assert "Worst notice" not in page.text
    assert owner.get("/queues/payouts/dashboard").location == "/queues/payouts/dashboard/my"


def test_menu_leads_to_the_same_page_of_other_queues(chief: Viewer) -> None:
    page = Page(chief.get("/queues/payouts/dashboard/jobs?status=dlq").text)
    assert page.all("details", id="queue-menu")
    assert "/queues/mails/dashboard/jobs" in list_links(page)
    assert "/dashboard/queues" in list_links(page)


def test_service_with_one_queue_has_no_menu(api: Api) -> None:
    page = Page(signed_in(api).get("/dashboard").text)
    assert not page.all("details", id="queue-menu")
    assert signed_in(api).get("/").location == "/dashboard"


def test_sign_in_leads_back_to_the_page_of_a_queue(queues_api: Api, watched: Any) -> None:
    viewer = Viewer(queues_api.app)
    refused = viewer.get("/queues/payouts/dashboard/jobs?status=dlq")
    assert refused.status_code == 401
    (target_field,) = Page(refused.text).all("input", name="then")
    assert target_field["value"] == "/queues/payouts/dashboard/jobs?status=dlq"
    (form,) = Page(refused.text).all("form", id="sign-in")
    data = {"token": queues_api.token("ada", "chief"), "then": target_field["value"]}
    answer = viewer.post(str(form["action"]), data)
    assert (answer.status_code, answer.location) == (303, target_field["value"])
    assert viewer.get(answer.location).status_code == 200
    assert viewer.get("/queues/mails/dashboard").status_code == 200


def test_page_of_an_unknown_queue_leads_to_the_list_of_queues(chief: Viewer) -> None:
    answer = chief.get("/queues/nothing/dashboard/jobs")
    assert answer.status_code == 404
    page = Page(answer.text)
    assert "There is no queue of this name." in page.text
    assert "/dashboard/queues" in list_links(page)
    assert "/queues/nothing/dashboard/jobs" not in list_links(page)


def test_search_box_of_the_first_page_leads_to_a_queue(queues_api: Api, chief: Viewer) -> None:
    (form,) = Page(chief.get("/dashboard/queues").text).all("form", role="search")
    address = form["action"]
    assert address == "/dashboard/queues/find"
    assert chief.get(f"{address}?q=AYOU").location == "/queues/payouts/dashboard"
    page = Page(chief.get(f"{address}?q=a56e").text)
    assert "/queues/mails/dashboard/find?q=a56e" in list_links(page)
    assert "/queues/payouts/dashboard/find?q=a56e" in list_links(page)
    owner = signed_in(queues_api, "ada", "user")
    addresses = list_links(Page(owner.get(f"{address}?q=internal").text))
    assert "/queues/mails/dashboard/find?q=internal" in addresses
    assert not [link for link in addresses if link.startswith("/queues/internal")]
