"""Fixtures: a browser, and visits to the dashboard as an admin."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

from ..conftest import SECRET
from ..support.browser import CHROMIUM, FLAGS, Visits, new_context, require_file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_file(CHROMIUM, "no browser (apt-get install chromium-headless-shell)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Page:
    """The tab that the first page of each test opens in: a new tab takes a second of CPU."""
    return new_context(browser).new_page()


def create_token(subject: str = "root", role: str = "admin", seconds: int = 3_600) -> str:
    """A token that is valid for `seconds`."""
    app = create_app(Settings(mongo_uri="mongodb://127.0.0.1", jwt_secret_key=SECRET))
    with app.app_context():
        return issue_token(subject, role, timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def admin_token() -> str:
    return create_token()


@pytest.fixture
def visit(browser: Browser, tab: Page, admin_token: str) -> Iterator[Visits]:
    """Opens pages, signed in as an admin; the test fails if a page has a fault."""
    visits = Visits(browser, tab, admin_token)
    yield visits
    visits.close()
    assert visits.faults == []
