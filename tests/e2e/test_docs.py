"""`/docs`, the viewer of the API (Swagger UI), in a real browser.

Catches a viewer that breaks the content security policy, requests another origin, or does not send
the token.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ..conftest import Api, serve_over_http
from ..support.browser import CHROMIUM, FLAGS, require_file
from ..support.preloaded import ROOT

pytestmark = pytest.mark.long

SWAGGER_UI = ROOT / "jobmon/dashboard/static/vendor/swagger-ui-bundle.js"


@pytest.fixture
def service_url(api: Api) -> Iterator[str]:
    """The URL of the service over an in-memory database."""
    with serve_over_http(api.app) as url:
        yield url


@pytest.fixture
def docs(service_url: str) -> Iterator[tuple[Page, list[str]]]:
    """The page `/docs`, and the faults that it has shown so far."""
    require_file(CHROMIUM, "no browser (apt-get install chromium-headless-shell)")
    require_file(SWAGGER_UI, "not built (make assets)")
    faults: list[str] = []

    def record_request(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != service_url:
            faults.append(f"requested {url}")

    def record_message(level: str, text: str) -> None:
        if level in ("error", "warning"):
            faults.append(text)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("console", lambda message: record_message(message.type, message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: record_request(request.url))
        page.goto(f"{service_url}/docs")
        yield page, faults
        browser.close()


def test_docs_list_jobs_with_a_token_and_break_no_policy(
    api: Api, watched: Any, docs: tuple[Page, list[str]]
) -> None:
    watched.jobs.insert_one({"jobId": "the-one-job", "status": "queued"})
    page, faults = docs
    paths = api.get("/openapi.json").json["paths"]
    methods = [name for path in paths.values() for name in path if name in ("get", "post")]
    expect(page.locator(".opblock")).to_have_count(len(methods))
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".modal-ux input").fill(api.token())
    page.locator(".modal-ux button.authorize").click()
    page.locator(".modal-ux button.btn-done").click()
    list_jobs = page.locator("#operations-admin-listJobs")
    list_jobs.locator(".opblock-summary-control").click()
    expect(list_jobs.get_by_text("Repeat it to match any of several values").first).to_be_visible()
    list_jobs.locator(".try-out__btn").click()
    list_jobs.locator("button.execute").click()
    answer = list_jobs.locator(".live-responses-table .response").first
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text("the-one-job")
    assert faults == []
