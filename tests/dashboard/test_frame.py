"""The header and the navigation of every page: catches a page without the caller or the
environment, and a page that names a queue to a caller who may not see it."""

from pathlib import Path
from typing import Any

import pytest

from ..support.pages import Page, Viewer
from ..support.queues import serve_queues
from .conftest import MakeApi, signed_in

PATHS = ("/dashboard", "/dashboard/jobs", "/dashboard/my", "/dashboard/nothing", "/docs")


def test_every_page_has_the_caller_navigation_and_environment(make_api: MakeApi) -> None:
    api = make_api(environment="PROD <1>")
    admin, ada = signed_in(api, "<i>root</i>"), signed_in(api, "ada", "user")
    for path in PATHS:
        page = Page(admin.get(path).text)
        assert "Signed in as <i>root</i>" in page.text, path
        assert page.all("a", href="/dashboard/jobs"), path
        assert page.all("a", href="/docs"), path
        assert page.all("form", action="/dashboard/sign-out"), path
        assert "Printed by: <i>root</i>" in page.text
        assert page.all("span", **{"class": "environment env-prod"}), path
        assert "PROD <1>" in page.text
        is_missing = path == "/dashboard/nothing"  # an error page shows no time of an update
        assert bool(page.all("time", id="updated")) != is_missing, path
    page = ada.page("/dashboard/nothing", 404)
    assert "Signed in as ada" in page.text
    assert page.all("a", href="/dashboard/my")
    assert not page.all("a", href="/dashboard/jobs")


def test_page_without_a_session_names_no_queue_or_environment(
    make_api: MakeApi, watched: Any
) -> None:
    api = make_api(environment="PROD")
    for viewer in (Viewer(api.app), signed_in(api, seconds=-60)):
        for path, status in (
            ("/dashboard/sign-in", 200),
            ("/dashboard/nothing", 404),
            ("/docs", 200),
        ):
            answer = viewer.get(path)
            assert answer.status_code == status
            assert "PROD" not in answer.text
            assert watched.name not in answer.text
            assert not Page(answer.text).all("nav")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/dashboard", "overview"),
        ("/dashboard/jobs", "filters"),
        ("/dashboard/my", "filters"),
        ("/dashboard/errors", "filters"),
        ("/dashboard/workers", "workers"),
        ("/dashboard/schedule", "schedule"),
    ],
)
def test_second_skip_link_leads_past_the_controls(admin: Viewer, path: str, target: str) -> None:
    page = admin.page(path)
    first, second = page.all("a", **{"class": "skip"})
    assert (first["href"], second["href"]) == ("#main", f"#{target}")
    assert [attrs for _, attrs in page.elements if attrs.get("id") == target]


def test_docs_page_has_the_theme_of_the_dashboard(admin: Viewer) -> None:
    admin.client.set_cookie("jobmon_theme", "dark", path="/")
    (html,) = admin.page("/docs").all("html")
    assert html["data-theme"] == "dark"


@pytest.mark.parametrize("queue", ["internal", "nothing"])
def test_hidden_queue_looks_like_a_missing_queue(watched: Any, tmp_path: Path, queue: str) -> None:
    owner = signed_in(serve_queues(watched, tmp_path), "ada", "user")
    page = owner.page(f"/queues/{queue}/dashboard/my", 404)
    assert "There is no queue of this name." in page.text
    assert "Queue: " not in page.text
    labels = [attrs["aria-label"] for attrs in page.all("summary") if "aria-label" in attrs]
    assert labels == ["Queue: All queues"]
