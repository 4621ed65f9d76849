"""Create the pictures and the recording for README.md and docs/ in headless Chromium.

    make screenshots

Writes docs/overview.png, docs/jobs.png, docs/job-dark.png, docs/top.png, docs/action.png and
docs/tour.webp.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
from invented_history import History
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pymongo import MongoClient
from recording import record_tour
from scale import end_process

from jobmon.demo.mongod import Mongod, free_port
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document
from jobmon.terminal.client import ApiClient
from jobmon.terminal.top import Top

DOCS = Path(__file__).parents[1] / "docs"
WIDE, SMALL = {"width": 1280, "height": 800}, {"width": 1000, "height": 640}
HISTORY_HOURS = 1.5
CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium-headless-shell")
    or shutil.which("chromium")
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
COLLECT_TIMEOUT_MS = 120_000  # until the page shows what the collector counted
HISTORY_WAIT_MS = 15_000  # the collector counts the jobs first, then their history
TERMINAL_SIZE, TOP_WAIT_S = (110, 30), 5  # columns and rows; until `jobmon top` shows the errors


@contextmanager
def serve_demo(state: Path) -> Iterator[tuple[str, str]]:
    """Run `jobmon demo` with invented history; yields its address and the token of an admin."""
    with Mongod(state / "mongodb") as mongod:
        fill(mongod.uri)
    with serve(state) as served:
        yield served


def fill(uri: str) -> None:
    """Add the invented history to an empty database."""
    with MongoClient[Document](uri) as client:
        connection = Connection(Settings(mongo_uri=uri), client)
        History(HISTORY_HOURS).fill(
            client.jobmon, OwnDatabase(rollup_database(connection), connection.queue_key)
        )
        create_indexes(connection)


@contextmanager
def serve_with_actor(state: Path) -> Iterator[tuple[str, str]]:
    """Like `serve_demo`, but with actions and an actor, and without workers."""
    with Mongod(state / "mongodb") as mongod:
        fill(mongod.uri)
        environment = {
            "JOBMON_MONGO_URI": mongod.uri.replace("/?", "/jobmon?"),
            "JOBMON_ACTIONS": "true",
            "JOBMON_ROLE_PERMISSIONS": "admin=ADMIN_DASHBOARD+JOBS_RETRY+JOBS_CANCEL+JOBS_EDIT",
        }
        command = [sys.executable, "-m", "jobmon.cli", "actor"]
        actor = subprocess.Popen(command, env={**os.environ, **environment})
        try:
            with serve(state, environment) as served:
                yield served
        finally:
            end_process(actor)


@contextmanager
def serve(state: Path, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Run `jobmon demo`; yields its address and the token of an admin."""
    port, log = free_port(), state / "log"
    command = [sys.executable, "-m", "jobmon.cli", "demo", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--state", str(state)],
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
    try:
        while not (token := re.search(r"admin's token:\n(\S+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", token[1]
    finally:
        end_process(process)


def take_screenshot(page: Page, name: str, colours: int | None = None) -> None:
    """Save a picture of the page. `colours` limits their number, so that the file is smaller."""
    file = DOCS / f"{name}.png"
    page.mouse.move(0, 0)
    page.screenshot(path=file)
    if colours is not None:
        with Image.open(file) as picture:
            reduced = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        reduced.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1_024:.0f} KB")


def sign_in(page: Page, url: str, token: str) -> None:
    page.goto(f"{url}/dashboard")
    page.fill("#token", token)
    page.click("text=Sign in >> nth=-1")


def take_action_screenshot(page: Page, url: str) -> None:
    """Save a picture of the dialog that asks before all dead jobs of a type are retried."""
    expect(page.locator("#overview")).to_be_visible()
    page.goto(f"{url}/dashboard/jobs?status=dlq&type=webhook.deliver")
    page.check("#selection [name=scope][value=all]")
    page.click("#selection button[value=retry]")
    page.fill("dialog textarea", "the receiver is back")
    take_screenshot(page, "action", colours=64)


def take_terminal_screenshot(browser: Browser, url: str, token: str) -> None:
    """Save a picture of `jobmon top` with the errors of the last hour."""

    async def draw_as_svg() -> str:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers) as http:
            top = Top(ApiClient(http), "1h")
            async with top.run_test(size=TERMINAL_SIZE) as viewer:
                await viewer.press("2")  # the tab of the errors
                await viewer.pause(TOP_WAIT_S)
                return top.export_screenshot(title="jobmon top")

    with ThreadPoolExecutor(1) as pool:  # this thread already runs Playwright's event loop
        svg = pool.submit(asyncio.run, draw_as_svg()).result()
    page = browser.new_page()
    page.set_content(f"<style>body {{ margin: 0; width: 1100px }}</style>{svg}")
    picture = DOCS / "top.png"
    page.locator("svg").screenshot(path=picture)
    print(f"{picture}: {picture.stat().st_size / 1_024:.0f} KB")


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    ten_minutes_ago = datetime.now(UTC) - timedelta(minutes=10)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serve_demo(Path(folder)) as (url, token):
            page = browser.new_page(viewport=WIDE, color_scheme="light")
            sign_in(page, url, token)
            # Wait until the collector has counted: first the jobs, then their history.
            expect(page.locator("#types .c-done").nth(1)).not_to_have_text(
                "–", timeout=COLLECT_TIMEOUT_MS
            )
            expect(page.locator(".chart canvas")).to_have_count(3, timeout=COLLECT_TIMEOUT_MS)
            expect(page.get_by_text("No collector")).to_have_count(0, timeout=COLLECT_TIMEOUT_MS)
            page.wait_for_timeout(HISTORY_WAIT_MS)
            expect(page.get_by_text("still counting")).to_have_count(0, timeout=COLLECT_TIMEOUT_MS)
            page.reload()
            expect(page.locator(".chart canvas")).to_have_count(3)
            take_screenshot(page, "overview")
            page.goto(f"{url}/dashboard/jobs?status=failed&status=dlq")
            take_screenshot(page, "jobs")
            page.emulate_media(color_scheme="dark")
            # A job of the invented history: the stacks of other jobs have paths of this machine.
            filters = {"status": "dlq", "type": "webhook.deliver"}
            filters["created_to"] = ten_minutes_ago.isoformat()
            page.goto(f"{url}/dashboard/jobs?{urlencode(filters)}")
            page.locator(".row-link").first.click()
            expect(page.locator("#payload")).to_be_visible()
            take_screenshot(page, "job-dark")
            take_terminal_screenshot(browser, url, token)
            page.emulate_media(color_scheme="light")
            record_tour(page, url, DOCS / "tour.webp")
        with (
            tempfile.TemporaryDirectory() as second_folder,
            serve_with_actor(Path(second_folder)) as (url, token),
        ):
            page = browser.new_page(viewport=SMALL, color_scheme="light")
            sign_in(page, url, token)
            take_action_screenshot(page, url)
        browser.close()


if __name__ == "__main__":
    main()
