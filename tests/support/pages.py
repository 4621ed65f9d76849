"""Parses pages, and requests them with a client that keeps cookies."""

from html.parser import HTMLParser
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

PART = {"HX-Request": "true"}  # htmx sends this header, and gets only a part of a page
# Attributes whose values are addresses.
ADDRESS_NAMES = ("href", "src", "action", "formaction", "poster", "data", "hx-get", "data-url")


class Page(HTMLParser):
    """The elements of a page with their attributes, its end tags, its comments and its text.

    `elements` are pairs of a tag and its attributes. `in_scripts` is the text of the script and
    style elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ends: list[str] = []
        self.comments: list[str] = []
        self.text = ""
        self.in_scripts = ""
        self._last_tag = ""  # empty after an end tag
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._last_tag = tag

    def handle_endtag(self, tag: str) -> None:
        self.ends.append(tag)
        self._last_tag = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._last_tag in ("script", "style"):
            self.in_scripts += data.strip()

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """The tags and the names of their attributes: data of jobs must not add any."""
        return [(tag, tuple(attrs)) for tag, attrs in self.elements]

    def all(self, tag: str, **required: str) -> list[dict[str, str | None]]:
        """The attributes of each element `tag` whose attributes have the `required` values."""
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and required.items() <= attrs.items()
        ]

    def addresses(self) -> list[str]:
        """The addresses that the page loads, links to or submits to."""
        return [
            attrs[name] or ""
            for _, attrs in self.elements
            for name in ADDRESS_NAMES
            if name in attrs
        ]


class Viewer:
    """A client with cookies, as a browser has."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()

    def get(self, path: str, *, part: bool = False, **headers: str) -> TestResponse:
        """GET with headers, where `Sec_Fetch_Site` means Sec-Fetch-Site. `part`: add `PART`."""
        return self.client.get(path, headers=_header_names(headers) | (PART if part else {}))

    def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> TestResponse:
        return self.client.post(path, data=form, headers=_header_names(headers))

    def page_of_form(self, path: str, form: dict[str, Any], status: int = 200) -> Page:
        """POST a form; returns the page in the answer."""
        answer = self.post(path, form)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    def page(self, path: str, status: int = 200, *, part: bool = False) -> Page:
        answer = self.get(path, part=part)
        assert answer.status_code == status, answer.text
        assert answer.content_type == "text/html; charset=utf-8"
        return Page(answer.text)


def _header_names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
