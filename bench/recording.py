"""Record a short tour of the pages as an animated WebP; bench/screenshots.py calls this.

A recording is a list of frames: pictures of the page, each with its duration. Therefore the length
of the recording does not depend on the speed of this machine.
"""

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

SIZE = (960, 600)
# How long a frame is shown: a page to read, a short look, and a step of a movement.
READ_MS, GLANCE_MS, MOVE_MS = 2_600, 900, 60
MOVES = 8  # frames of the pointer on its way to an element
# Screenshots have no pointer, so the page draws one.
POINTER = """() => {
  const pointer = document.createElement("div");
  pointer.id = "recorded-pointer";
  pointer.style.cssText = "position:fixed;left:0;top:0;width:18px;height:18px;z-index:9999;" +
    "margin:-9px;border-radius:50%;background:#1d4ed8aa;border:2px solid #fff;pointer-events:none";
  document.body.append(pointer);
}"""
MOVE = """([x, y]) => {
  document.getElementById("recorded-pointer").style.transform = `translate(${x}px, ${y}px)`;
}"""


class Recording:
    """The frames of a page, with a pointer that moves to each clicked element."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._frames: list[Image.Image] = []
        self._durations_ms: list[int] = []
        self._pointer: tuple[float, ...] = (SIZE[0] * 0.6, SIZE[1] * 0.8)

    def show(self, duration_ms: int) -> None:
        """Add the page's present look as a frame that lasts `duration_ms`."""
        if not self.page.evaluate("() => Boolean(document.getElementById('recorded-pointer'))"):
            self.page.evaluate(POINTER)
        self.page.evaluate(MOVE, list(self._pointer))
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self._frames.append(image.resize(SIZE, Image.Resampling.LANCZOS))
        self._durations_ms.append(duration_ms)

    def click(self, target: Locator) -> None:
        """Move the pointer to an element, click it, and wait for the page that it opens."""
        box = target.bounding_box()
        if box is None:
            raise ValueError(f"{target} is not visible")
        start, end = self._pointer, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for step in range(1, MOVES + 1):
            self._pointer = tuple(
                first + (last - first) * step / MOVES
                for first, last in zip(start, end, strict=True)
            )
            self.show(MOVE_MS)
        self.show(GLANCE_MS)
        self.await_page(target.click)

    def await_page(self, act: Callable[[], None]) -> None:
        """Call `act`, which opens another page, and wait until that page is loaded."""
        old_url = self.page.url
        act()
        self.page.wait_for_url(lambda url: url != old_url)
        self.page.wait_for_load_state("networkidle")

    def save(self, file: Path) -> None:
        """Write the frames as an animated WebP that repeats."""
        first, *following = self._frames
        first.save(
            file,
            save_all=True,
            append_images=following,
            duration=self._durations_ms,
            loop=0,
            quality=75,
            method=6,
        )
        seconds = sum(self._durations_ms) / 1_000
        print(f"{file}: {file.stat().st_size / 1_024:.0f} KB, {seconds:.0f} s")


def record_tour(page: Page, url: str, file: Path) -> None:
    """Record the way from the overview to a group of errors, one of its jobs, and a search."""
    recording = Recording(page)
    page.goto(f"{url}/dashboard")
    expect(page.locator(".chart canvas")).to_have_count(3)
    recording.show(READ_MS)
    recording.click(page.get_by_role("navigation").get_by_role("link", name="Errors", exact=True))
    recording.show(READ_MS)
    recording.click(page.locator("main table tbody a").first)
    recording.show(READ_MS)
    recording.click(page.locator(".row-link").first)
    recording.show(READ_MS)
    page.keyboard.press("/")
    for letter in "status:dead":
        page.keyboard.type(letter)
        recording.show(MOVE_MS)
    page.wait_for_load_state("networkidle")
    recording.show(GLANCE_MS)
    recording.await_page(lambda: page.keyboard.press("Enter"))
    recording.show(READ_MS)
    recording.save(file)
