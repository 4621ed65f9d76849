"""The time window of the pages: catches a page that shows another time than its address names, a
link that loses the window, and a past window that looks as if it were live."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from jobmon.dashboard.page_window import PRESETS, PageWindow, describe_steps
from jobmon.diagnosis.evidence import NOT_COUNTED
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, SPANS, floor
from jobmon.rollup.windows import Window

from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer
from .conftest import MakeApi, signed_in

NOW = datetime.now(UTC)
START = floor(NOW - 3 * HOUR, MINUTE)
FROM, TO = (f"{moment:%Y-%m-%dT%H:%M}:00.000Z" for moment in (START, START + HOUR))
PAST = f"from={quote(FROM)}&to={quote(TO)}"
PAGES = ("/dashboard", "/dashboard/types/mail", "/dashboard/errors", "/dashboard/workers")
HEADER_KEYS = ("o", "j", "e", "w")  # of the links to overview, jobs, errors, workers


@pytest.fixture
def history(watched: Any, monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Two failed runs in the window between FROM and TO, and one now."""
    watched.jobs.insert_one({"jobId": "1", "type": "mail", "status": "queued", "leasedBy": "w1"})
    history = ErrorHistory(NOW)
    for at in (START + MINUTE, START + 59 * MINUTE, NOW):
        history.add("timeout of 3 s", "mail", "w1", at=at)
    return history.serve(monkeypatch)


def read_text(page: Page) -> str:
    return " ".join(page.text.split())


def read_path(address: str | None) -> str:
    return urlsplit(address or "").path


def find_group_page(history: ErrorHistory) -> str:
    return f"/dashboard/errors/{next(iter(history.groups))}"


def test_range_is_described_in_words() -> None:
    windows = [PageWindow.from_range(name) for name in ("1h", "24h", "90m", "1d")]
    assert [(window.phrase, window.previous, window.beginning) for window in windows] == [
        ("the last hour", "the hour before", "an hour ago"),
        ("the last 24 hours", "the 24 hours before", "24 hours ago"),
        ("the last 90 minutes", "the 90 minutes before", "90 minutes ago"),
        ("the last day", "the day before", "1 day ago"),
    ]


def test_every_preset_has_between_60_and_168_steps() -> None:
    retention = dict.fromkeys(SPANS, 400 * DAY)
    step_counts = {}
    for preset in PRESETS:
        length = preset.query.length
        step_counts[preset.range] = (
            length / Window.from_range(NOW - length, NOW, None, retention).step
        )
    assert step_counts == {"1h": 60, "24h": 144, "7d": 168, "30d": 120}


def test_distance_to_the_period_before_is_a_number_of_whole_steps() -> None:
    window = Window(start=START, end=START + 3 * HOUR, step=10 * MINUTE)
    assert PageWindow.from_range("175m").distance(window) == 3 * HOUR
    assert PageWindow.from_range("2h").distance(window) == 2 * HOUR


def test_longer_steps_are_explained() -> None:
    hour = Window(start=START, end=START + HOUR, step=MINUTE)
    assert describe_steps(hour) == "steps of 1 min"
    coarse = Window(start=floor(START, HOUR), end=floor(START, HOUR) + HOUR, step=HOUR)
    assert describe_steps(coarse) == "steps of 1 h: finer data of this time is no longer kept"


def test_pages_show_the_window_of_their_address(admin: Viewer, history: ErrorHistory) -> None:
    """Catches a number that is about another time."""
    texts = {
        path: read_text(admin.page(f"{path}?{PAST}")) for path in (*PAGES, find_group_page(history))
    }
    assert "2 errors in this window" in texts["/dashboard/errors"]
    assert "Errors in this window2" in texts[find_group_page(history)]
    assert "Change from the time before▲ 2" in texts[find_group_page(history)]
    assert re.search(r"w1 .* 2 ?2 100%", texts["/dashboard/workers"])
    for path, text in texts.items():
        assert f"{FROM[:10]} {FROM[11:16]} to {TO[:10]} {TO[11:16]}, steps of 1 min" in text, path
    text_since = read_text(admin.page(f"/dashboard/errors?from={quote(FROM)}"))
    assert "3 errors in this window" in text_since
    assert "to now, steps of" in text_since


def test_links_keep_the_window(admin: Viewer, history: ErrorHistory) -> None:
    """Catches a click that leads to another time."""
    window_path = re.compile("/dashboard(/(overview|charts|errors|types|workers).*)?")
    for path in (*PAGES, find_group_page(history)):
        page = admin.page(f"{path}?{PAST}")
        links = page.all("a")
        # In the header the link to the jobs has the window; other links to jobs have none.
        header = [link["href"] for link in links if link.get("data-go") in HEADER_KEYS]
        assert len(header) == len(HEADER_KEYS)
        addresses = [link["href"] for link in links if "aria-label" not in link]
        addresses += [attrs.get("hx-get") or attrs.get("data-url") for _, attrs in page.elements]
        kept = [address for address in addresses if window_path.fullmatch(read_path(address))]
        for address in header + kept:
            parameters = parse_qs(urlsplit(address or "").query)
            is_preset = "range" in parameters  # a link that changes the window
            assert is_preset or (parameters["from"], parameters["to"]) == ([FROM], [TO]), address


def test_header_keeps_only_a_window_that_the_address_names(admin: Viewer) -> None:
    def list_links(address: str) -> list[str]:
        links = admin.page(address).all("a")
        return [link["href"] or "" for link in links if link.get("data-go") in HEADER_KEYS]

    assert list_links("/dashboard") == [
        "/dashboard",
        "/dashboard/jobs",
        "/dashboard/errors",
        "/dashboard/workers",
    ]
    assert all(link.endswith("?range=7d") for link in list_links("/dashboard?range=7d"))
    finished = f"finished_from={quote(FROM)}&finished_to={quote(TO)}"
    for query in (PAST, finished):
        for link in list_links(f"/dashboard/jobs?{query}"):
            assert parse_qs(urlsplit(link).query) == {"from": [FROM], "to": [TO]}
    assert list_links("/dashboard/schedule?range=nonsense")[0] == "/dashboard"


def test_form_has_the_window_and_keeps_the_other_parameters(admin: Viewer) -> None:
    page = admin.page(f"/dashboard?{PAST}&by=type&only=failing")
    fields = {field["name"]: field["value"] for field in page.all("input", type="datetime-local")}
    assert fields == {"from": FROM[:16], "to": TO[:16]}
    (form,) = page.all("form", id="window-form")
    assert (form["method"], form["action"]) == ("get", "/dashboard")
    assert page.all("input", type="hidden", name="by", value="type")
    assert page.all("a", href="/dashboard?by=type&only=failing&range=24h")
    # Without scripts the browser sends these fields, in UTC.
    text = read_text(admin.page(f"/dashboard?from={fields['from']}&to={fields['to']}&by=type"))
    assert f"{FROM[:10]} {FROM[11:16]} to" in text
    assert "in the last hour" in admin.page("/dashboard?from=&to=").text


def test_form_keeps_the_name_of_a_type_from_the_query(admin: Viewer) -> None:
    page = admin.page("/dashboard/type?name=..")
    assert page.all("form", action="/dashboard/type")
    assert page.all("input", type="hidden", name="name", value="..")
    assert page.all("a", href="/dashboard/type?name=..&range=7d")


def test_past_window_is_not_updated(admin: Viewer, history: ErrorHistory) -> None:
    for path in (*PAGES, find_group_page(history)):
        (note,) = admin.page(f"{path}?{PAST}").all("span", id="finished")
        assert note["data-note"] == "past window, not updated"
        for query in ("range=7d", f"from={quote(FROM)}"):
            assert not admin.page(f"{path}?{query}").all("span", id="finished")


def test_past_window_that_is_still_counted_is_updated(admin: Viewer, history: ErrorHistory) -> None:
    """Catches an open page that never shows the minutes that are counted after it was opened."""
    history.as_of = START + 30 * MINUTE
    assert not admin.page(f"/dashboard/errors?{PAST}").all("span", id="finished")
    history.as_of, history.overrides = NOW, {"is_complete": False}
    for path in ("/dashboard/errors", "/dashboard/workers"):
        assert not admin.page(f"{path}?{PAST}").all("span", id="finished")


def find_since_link(page: Page) -> str:
    (link,) = page.all("a", **{"class": "since"})
    return link["href"] or ""


def test_since_link_of_a_notice_leads_to_the_window_since_then(admin: Viewer, watched: Any) -> None:
    """Catches a link "since 14:05" that leads to a window with another start."""
    expired = floor(NOW - HOUR, MINUTE).replace(second=7)
    lease = {"leasedBy": "w1", "leaseExpiresAt": expired}
    watched.jobs.insert_one({"jobId": "1", "type": "mail", "status": "leased", **lease})
    link = find_since_link(admin.page("/dashboard?by=type&range=7d"))
    assert link == f"?from={quote(f'{expired:%FT%T}.000Z')}"
    page = admin.page(f"/dashboard{link}")
    assert f"{expired:%F %H:%M} to now" in read_text(page)
    assert find_since_link(page) == link


@pytest.mark.parametrize(
    ("path", "name"), [("/dashboard/types/mail", "mail"), ("/dashboard/type?name=..", "..")]
)
def test_since_link_of_a_stalled_type_keeps_the_type(
    admin: Viewer, watched: Any, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    watched.jobs.insert_one({"jobId": "1", "type": name, "status": "queued"})
    monkeypatch.setattr("jobmon.dashboard.type_facts.stalled_types", lambda _: {name: HOUR})
    link = find_since_link(admin.page(path))
    parameters = parse_qs(urlsplit(link).query)
    since = datetime.fromisoformat(parameters.pop("from")[0])
    assert abs(datetime.now(UTC) - HOUR - since) < MINUTE
    assert parameters == ({} if name == "mail" else {"name": [name]})
    page = admin.page(path.partition("?")[0] + link)
    assert f"{since:%F %H:%M} to now" in read_text(page)
    assert page.all("h1")
    assert name in read_text(page)


def test_window_in_the_future_is_unknown(admin: Viewer, history: ErrorHistory) -> None:
    """Catches a future window that shows no jobs instead of unknown numbers."""
    future = "&".join(
        f"{name}={quote(f'{at:%FT%TZ}')}"
        for name, at in (("from", NOW + DAY), ("to", NOW + DAY + HOUR))
    )
    for path in (*PAGES, find_group_page(history)):
        text = read_text(admin.page(f"{path}?{future}"))
        assert NOT_COUNTED.reason in text, path
        assert not re.search(r"\b0 (attempts|jobs|errors|groups|died) in", text), path
        assert "this window0" not in text, path
    columns = admin.get(f"/dashboard/charts?{future}").json
    assert set(columns["enqueued"]) == set(columns["succeeded"]) == {None}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("from=yesterday", "from"),
        (f"from={quote(TO)}&to={quote(FROM)}", "from"),
        ("to=1999-12-31", "to"),
        (f"from={quote(FROM)}&to=9999-12-31", "to"),
        ("range=2y", "range"),
        ("range=0h", "range"),
        (f"range=1h&from={quote(FROM)}", "range"),
        ("range=1h&range=24h", "range"),
        (f"from={quote(FROM)}&from={quote(TO)}", "from"),
    ],
    ids=[
        *("a word", "reversed", "too early", "too late", "years", "no length", "range and from"),
        *("two ranges", "two starts"),
    ],
)
def test_invalid_window_is_an_error_that_names_the_parameter(
    admin: Viewer, query: str, parameter: str
) -> None:
    for path in PAGES:
        page = admin.page(f"{path}?{query}", 422)
        assert f"Invalid parameter {parameter}" in read_text(page), path


def test_page_with_an_invalid_window_links_to_itself_without_the_window(admin: Viewer) -> None:
    page = admin.page("/dashboard/type?name=..&name=&range=bad", 422)
    assert "/dashboard/type?name=..&name=" in page.addresses()


def test_window_longer_than_the_history_names_where_the_data_begin(make_api: MakeApi) -> None:
    admin = signed_in(make_api(day_retention_days=40, hour_retention_days=3))
    text = read_text(admin.page("/dashboard?range=90d"))
    assert f"no data before {floor(NOW - 40 * DAY, DAY):%Y-%m-%d} 00:00" in text
    month = read_text(admin.page("/dashboard?range=30d"))
    assert "steps of 1 d: finer data of this time is no longer kept" in month
    assert "no data before" not in month


def test_list_uses_a_window_as_the_time_of_creation(admin: Viewer, watched: Any) -> None:
    for name, at in (("inside", START + MINUTE), ("before", START - MINUTE), ("now", NOW)):
        watched.jobs.insert_one({"jobId": name, "type": "mail", "createdAt": at})
    page = admin.page(f"/dashboard/jobs?{PAST}")
    assert [row["id"] for row in page.all("tr") if "data-job" in row] == ["job-inside"]
    assert page.all("input", type="hidden", name="created_from", value=FROM)
    assert page.all("input", type="hidden", name="created_to", value=TO)
    recent = admin.page("/dashboard/jobs?range=60m")
    assert [row["id"] for row in recent.all("tr") if "data-job" in row] == ["job-now"]
    refused = admin.page(f"/dashboard/jobs?range=1h&created_from={FROM}", 422)
    assert "Cannot be combined" in refused.text
