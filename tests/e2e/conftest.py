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
    return new_context(browser).new_page()


def token(subject: str = "root", role: str = "admin", seconds: int = 3_600) -> str:
    app = create_app(Settings(mongo_uri="mongodb://127.0.0.1", jwt_secret_key=SECRET))
    with app.app_context():
        return issue_token(subject, role, timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def admin() -> str:
    return token()


@pytest.fixture
def visit(browser: Browser, tab: Page, admin: str) -> Iterator[Visits]:
    visits = Visits(browser, tab, admin)
    yield visits
    visits.close()
    assert visits.faults == []
