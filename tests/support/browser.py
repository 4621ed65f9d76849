"""Opens pages of the dashboard in Chromium, and records the faults of these pages."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from .waiting import PATIENCE_S

# Chromium without windows opens a page with a quarter of the CPU time that full Chromium needs.
HEADLESS_SHELL = shutil.which("chromium-headless-shell")
CHROMIUM = Path(HEADLESS_SHELL or "/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# The browser logs answers with these statuses as errors, but some tests expect such answers.
EXPECTED_MESSAGES = re.compile(
    r"(responded with a status of|Status Error Code) (401|403|404|422|503)"
)
expect.set_options(timeout=1_000 * PATIENCE_S)
VIEWER_OPTIONS = {"timezone_id": "Europe/Berlin", "locale": "en-GB"}


def require_file(file: Path, remedy: str) -> None:
    """If the file does not exist, skip the test (in CI: fail it) with the remedy as the reason."""
    if not file.exists():
        message = f"{file}: {remedy}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A new browser profile of a viewer in Berlin; `options` are Playwright's and override this."""
    context = browser.new_context(**VIEWER_OPTIONS | options)
    context.set_default_timeout(1_000 * PATIENCE_S)
    return context


def sign_in(context: BrowserContext, origin: str, token: str) -> None:
    cookie = {"name": "jobmon_session", "value": token, "url": f"{origin}/dashboard"}
    context.add_cookies([cookie])  # type: ignore[list-item]


class Visits:
    """Opens pages, and records their requests and descriptions of their faults.

    The first page of a test opens in `tab`, which all tests share, because a new tab takes a second
    of CPU. Each further page, and a page with options or a `clock`, opens in a new browser profile.
    """

    def __init__(self, browser: Browser, tab: Page, token: str) -> None:
        self._browser = browser
        self._tab = tab
        self._token = token
        self._is_tab_in_use = False
        self._contexts: list[BrowserContext] = []
        self._tab_listeners: list[tuple[Any, Callable[..., None]]] = []  # event and listener
        self.faults: list[str] = []
        self.requests: list[Request] = []

    def __call__(
        self, url: str, *, token: str | None = "", clock: bool = False, **options: Any
    ) -> Page:
        """Open the page at `url`, signed in as an admin or with `token` (None: not signed in).

        With `clock` the test can change the page's time.
        """
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        if options or clock or self._is_tab_in_use:
            context = new_context(self._browser, **options)
            self._contexts.append(context)
            page = context.new_page()
        else:
            page, self._is_tab_in_use = self._tab, True
        if token is not None:
            sign_in(page.context, origin, token or self._token)
        if clock:
            page.clock.install()
        self._listen(page, origin)
        page.goto(url)
        return page

    def _listen(self, page: Page, origin: str) -> None:
        listeners: dict[Any, Callable[[Any], None]] = {
            "console": self._record_message,
            "pageerror": lambda error: self.faults.append(str(error)),
            "dialog": lambda dialog: self.faults.append(f"a dialog: {dialog.message}"),
            "request": lambda request: self._record_request(request, origin),
        }
        for event, listener in listeners.items():
            page.on(event, listener)
            if page is self._tab:
                self._tab_listeners.append((event, listener))

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not EXPECTED_MESSAGES.search(message.text):
            self.faults.append(message.text)

    def _record_request(self, request: Request, origin: str) -> None:
        self.requests.append(request)
        if not request.url.startswith(f"{origin}/"):
            self.faults.append(f"requests another origin: {request.url}")

    def count_requests(self, path: str) -> int:
        """How many requests the pages have sent to `path`."""
        return sum(urlsplit(request.url).path == path for request in self.requests)

    def close(self) -> None:
        """Close the pages, and reset the shared tab."""
        while self._contexts:
            self._contexts.pop().close()
        while self._tab_listeners:
            self._tab.remove_listener(*self._tab_listeners.pop())
        if self._is_tab_in_use:
            self._tab.unroute_all()
            self._tab.goto("about:blank")
            self._tab.mouse.move(0, 0)
            self._tab.emulate_media(color_scheme="light")
            self._tab.set_viewport_size({"width": 1_280, "height": 720})
            self._tab.context.clear_cookies()
            self._is_tab_in_use = False
