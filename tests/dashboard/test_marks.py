"""Marks on the overview: catches a mark that is missing in the charts or the list, a mark that
becomes markup, and a page that does not show that the marks could not be read."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest

from jobmon.rollup import marks
from jobmon.rollup.documents import MARKS, OwnDatabase, state_database
from jobmon.rollup.marks import Mark, MarkReader
from jobmon.store.connection import Connection

from ..conftest import Api
from ..support.error_history import ErrorHistory
from ..support.pages import Viewer

OVERVIEW = "/dashboard"


@pytest.fixture(autouse=True)
def _disable_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "CACHE_S", 0)
    monkeypatch.setattr("jobmon.dashboard.overview_page.CACHE_TTL_S", 0)


def store_marks(api: Api, *texts: str, link: str | None = None) -> list[datetime]:
    """Store marks with these texts, one a minute, the newest a minute ago; returns their times."""
    connection: Connection = api.app.extensions["jobmon_connection"]
    own_database = OwnDatabase(state_database(connection), connection.queue_key)
    now = datetime.now(UTC).replace(microsecond=0)
    times = [now - timedelta(minutes=minutes) for minutes in range(len(texts), 0, -1)]
    own_database[MARKS].insert_many(
        own_database.new(str(at), Mark(at=at, text=text, link=link).dump())
        for at, text in zip(times, texts, strict=True)
    )
    return times


def test_charts_and_list_have_the_marks_of_the_range(api: Api, admin: Viewer) -> None:
    assert "Deployments and other marks" not in admin.get(OVERVIEW).text
    link = "https://ci.example.com/42"
    times = store_marks(api, *(f"v{index}" for index in range(7)), link=link)
    answer = admin.get("/dashboard/charts").json
    assert answer["marks"] == [
        {"at": at.timestamp(), "text": f"v{index}"} for index, at in enumerate(times)
    ]
    page = admin.get(OVERVIEW).text
    positions = [page.index(f">v{index}</a>") for index in range(7)]
    assert positions == sorted(positions, reverse=True)  # the newest first
    assert page.count(f'href="{link}" rel="noopener noreferrer"') == 7
    assert "<summary>2 more</summary>" in page


def test_every_chart_has_the_marks_of_its_window(
    api: Api, admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a chart without the deployment of its window, or with one of another window."""
    history = ErrorHistory(datetime.now(UTC))
    group = history.add("timeout", "mail", at=datetime.now(UTC))
    history.serve(monkeypatch)
    times = store_marks(api, "v0", "v1", "v2", "v3")
    start, end = (quote(f"{at:%FT%TZ}") for at in (times[1], times[1] + timedelta(seconds=1)))
    window = f"from={start}&to={end}"  # one second, which the service extends to the whole minute
    for path in (
        f"/dashboard/charts?{window}",
        f"/dashboard/charts?type=mail&{window}",
        f"/dashboard/errors/{group}/chart?{window}",
    ):
        assert [mark["text"] for mark in admin.get(path).json["marks"]] == ["v1"], path
    page = admin.page(f"{OVERVIEW}?{window}")
    assert "v1" in page.text
    assert "v2" not in page.text


def test_time_of_a_mark_links_to_the_window_since_the_mark(api: Api, admin: Viewer) -> None:
    newest = store_marks(api, "v1", "v2")[-1]
    link = admin.page(OVERVIEW).all("a", **{"class": "at"})[0]
    assert link["href"] == f"?from={quote(f'{newest:%FT%T}.000Z')}"
    page = admin.page(f"{OVERVIEW}{link['href']}")
    assert f"{newest:%F %H:%M} to now" in " ".join(page.text.split())
    assert "v2" in page.text
    assert "v1" not in page.text


def test_older_marks_that_are_not_shown_are_counted(
    api: Api, admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "MAX_SHOWN", 1)
    store_marks(api, "v1", "v2", "v3")
    page = admin.get(OVERVIEW).text
    assert "v3" in page
    assert "v2" not in page
    assert "2 older marks of this window are not shown" in page


def test_text_and_link_of_a_mark_never_become_markup(api: Api, admin: Viewer) -> None:
    store_marks(api, "<script>alert(1)</script>", link='https://example.com/"onclick="alert(1)')
    page = admin.get(OVERVIEW).text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'href="https://example.com/&#34;onclick=' in page


def test_overview_without_the_right_to_read_marks_reports_them_as_unknown(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable: Any = Mock(return_value=None)
    monkeypatch.setattr(MarkReader, "find", unreadable)
    assert "Marks of deployments are not known" in admin.get(OVERVIEW).text
    assert admin.get("/dashboard/charts").json["marks"] == []
