"""The pages about errors: catches a group that is only in the API, a link that leads to no page,
content that becomes markup, and unknown errors that look like no errors."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.store.known_fields import KnownFields
from jobmon.store.labels import OTHER

from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer

PAGE = "/dashboard/errors"
NOW = datetime.now(UTC) - timedelta(seconds=30)
REFUSED = {
    "code": "E_BANK",
    "message": "account 4711 <b>refused</b>",
    "stack": "Error: refused\n    at pay (/app/<i>pay</i>.js:3:14)",
}


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Six errors in three groups: four timeouts, a refusal, and one that cannot be grouped."""
    history = ErrorHistory(NOW)
    for index in range(4):
        history.add("timeout of 3000 ms", f"type-{index}", f"w-{index}", at=NOW - 2 * index * HOUR)
    history.add(REFUSED, "mail", "w1", at=NOW - 10 * MINUTE)
    history.add(OTHER, at=NOW - 10 * MINUTE)
    return history.serve(monkeypatch)


def list_links(page: Page) -> list[str]:
    """The addresses of the rows, without their queries."""
    return [attrs["href"].partition("?")[0] for attrs in page.all("a", **{"class": "row-link"})]


def read_text(page: Page) -> str:
    return " ".join(page.text.split())


def find_group_id(history: ErrorHistory, code: str | None) -> str:
    return next(group_id for group_id, group in history.groups.items() if group.code == code)


def test_list_has_each_group_with_its_counts(admin: Viewer, history: ErrorHistory) -> None:
    page = admin.page(PAGE)
    timeout, refused = find_group_id(history, None), find_group_id(history, "E_BANK")
    assert list_links(page)[0] == f"{PAGE}/{timeout}"
    assert set(list_links(page)) == {
        f"{PAGE}/{timeout}",
        f"{PAGE}/{refused}",
        f"{PAGE}/{quote(OTHER)}",
    }
    text = read_text(page)
    assert "3 groups, 6 errors in the last 24 hours" in text
    assert "timeout of <duration>" in text
    assert "E_BANK account <value> <b>refused</b> new since" in text
    assert "(other): errors that could not be grouped" in text
    assert "type-0 1 type-1 1 (other) 2" in text
    assert f"{PAGE}?range=1h&sort=-count" in page.addresses()
    assert "/dashboard/errors?range=24h&sort=-firstSeen" in page.addresses()


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("range=1h", "3 groups, 3 errors in the last hour"),
        ("status=new", "1 group, 1 error"),
        ("type=type-2", "1 group, 1 error"),
        ("type=&type=type-2&status=&worker=&sort=&cursor=", "1 group, 1 error"),
        ("worker=w-2", "1 group, 1 error"),
        ("type=none", "0 groups, 0 errors"),
        ("sort=firstSeen", "3 groups, 6 errors"),
    ],
)
@pytest.mark.usefixtures("history")
def test_list_can_be_filtered(admin: Viewer, query: str, count: str) -> None:
    page = admin.page(f"{PAGE}?{query}")
    assert count in read_text(page)
    assert ("No errors match these filters" in page.text) == count.startswith("0")


@pytest.mark.parametrize(
    "query", ["range=2y", "sort=x", "status=old", "cursor=x", "worker=a&worker=b"]
)
@pytest.mark.usefixtures("history")
def test_list_with_a_bad_parameter_is_refused(admin: Viewer, query: str) -> None:
    text = read_text(admin.page(f"{PAGE}?{query}", 422))
    assert f"Invalid parameter {query.partition('=')[0]}" in text


@pytest.mark.usefixtures("history")
def test_many_groups_are_divided_into_pages(admin: Viewer, history: ErrorHistory) -> None:
    for index in range(60):
        history.add({"code": f"E{index}", "message": "boom"}, at=NOW)
    first_page = admin.page(PAGE)
    second_page = admin.page(
        next(address for address in first_page.addresses() if "cursor=" in address)
    )
    assert (len(list_links(first_page)), len(list_links(second_page))) == (50, 13)
    assert not set(list_links(first_page)) & set(list_links(second_page))


def test_page_of_a_group_has_its_message_jobs_types_workers_and_chart(
    admin: Viewer, history: ErrorHistory
) -> None:
    page = admin.page(f"{PAGE}/{find_group_id(history, 'E_BANK')}")
    text = read_text(page)
    assert "account 4711 <b>refused</b>" in text
    assert "at pay (/app/<i>pay</i>.js:3:14)" in text
    assert "pay (app/<i>pay</i>.js)" in text
    assert "/dashboard/jobs/job-4" in page.addresses()
    assert "/dashboard/types/mail?range=24h" in page.addresses()
    assert "/dashboard/workers?worker=w1&range=24h" in page.addresses()
    assert "/dashboard/jobs?error_code=E_BANK" in page.addresses()
    chart_address = page.all("section", id="charts")[0]["data-url"]
    columns = admin.get(chart_address).json
    assert len(columns["at"]) == len(columns["errors"])
    assert sum(filter(None, columns["errors"])) == 1
    assert columns["completedSteps"] <= len(columns["at"])
    assert read_text(admin.page(f"{PAGE}/{OTHER}")).count("could not be grouped") == 1
    assert admin.get(f"{PAGE}/0000000000000000").status_code == 404


def test_group_without_a_recorded_code_has_no_link_to_a_list_by_code(
    admin: Viewer, history: ErrorHistory
) -> None:
    group_id = history.add("TypeError: x is null", at=NOW)
    addresses = admin.page(f"{PAGE}/{group_id}").addresses()
    assert not [address for address in addresses if "error_code" in address]


def test_pages_without_a_collector_give_the_reason(admin: Viewer) -> None:
    text = read_text(admin.page(PAGE))
    assert "Errors are not known: no collector is running." in text
    assert "jobmon collector" in text
    assert "Not known: no collector is running" in read_text(admin.page("/dashboard"))
    assert admin.get(f"{PAGE}/{OTHER}").status_code == 503


@pytest.mark.usefixtures("history")
def test_list_of_a_queue_without_end_times_gives_the_reason(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownFields, "unknown", frozenset({"finishedAt"}))
    assert "Errors are not known: succeeded or dead jobs do not record" in read_text(
        admin.page(PAGE)
    )


def test_incomplete_history_is_not_shown_as_no_errors(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = ErrorHistory(NOW).serve(monkeypatch)
    assert "No errors in this window" in admin.page(PAGE).text
    assert "No attempt failed in the last hour" in read_text(admin.page("/dashboard"))
    history.overrides = {"is_complete": False}
    assert "No known errors in this window" in admin.page(PAGE).text
    assert "the collector is still counting" in admin.page(PAGE).text
    history.overrides = {"gaps": (Gap(start=NOW, end=NOW + MINUTE, reason=GapReason.STREAM_LOST),)}
    page = read_text(admin.page("/dashboard?range=24h"))
    assert "Not known: runs may be missing" in page


@pytest.mark.usefixtures("history")
def test_overview_has_the_five_most_frequent_errors(admin: Viewer, history: ErrorHistory) -> None:
    group_ids = [
        history.add({"code": f"E{index}", "message": "boom"}, at=NOW) for index in [*range(7)] * 2
    ]
    page = admin.page("/dashboard")
    top = [address for address in list_links(page) if address.startswith(PAGE)]
    assert len(top) == 5
    assert set(top) < {f"{PAGE}/{group_id}" for group_id in group_ids}
    assert "All 10 groups" in page.text
    assert f"{PAGE}?range=1h" in page.addresses()


def test_job_links_to_the_groups_of_its_errors(
    admin: Viewer, ada: Viewer, watched: Any, history: ErrorHistory
) -> None:
    watched.jobs.insert_one(
        {"jobId": "j", "status": "dlq", "createdBy": "ada", "lastError": REFUSED, "createdAt": NOW}
    )
    link = f"{PAGE}/{find_group_id(history, 'E_BANK')}"
    assert link in admin.page("/dashboard/jobs/j").addresses()
    assert link not in ada.page("/dashboard/jobs/j").addresses()
    list_text = read_text(admin.page("/dashboard/jobs"))
    assert "E_BANK account 4711 <b>refused</b>" in list_text
