"""The page of the workers: catches a silent worker that looks healthy, a wrong number or link, and
unknown workers shown as no workers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.settings.rules import Rules, Thresholds

from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer
from .conftest import MakeApi, signed_in

PAGE = "/dashboard/workers"
NOW = datetime.now(UTC)
ODD_NAME = '<b>w "2"</b>/..&worker=x'


def read_text(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.fixture
def worker_history(watched: Any, monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Three workers: w1 holds an expired lease, ODD_NAME runs seven jobs, `idle` runs none."""

    def make_job(job_id: str, worker: str, until_expiry: timedelta) -> dict[str, Any]:
        lease = {
            "leasedBy": worker,
            "leaseExpiresAt": NOW + until_expiry,
            "startedAt": NOW - MINUTE,
        }
        return {"jobId": job_id, "type": "<i>pay</i>", "status": "leased", **lease}

    watched.jobs.insert_many([make_job("stuck", "w1", -2 * MINUTE)])
    watched.jobs.insert_many(make_job(f"held-{index}", ODD_NAME, HOUR) for index in range(7))
    history = ErrorHistory(NOW)
    history.add("timeout of 30 s", "mail", "w1", at=NOW - 5 * MINUTE, took=MINUTE)
    history.succeed("mail", "idle", at=NOW - 5 * MINUTE, took=MINUTE)
    return history.serve(monkeypatch)


@pytest.mark.usefixtures("worker_history")
def test_page_lists_each_worker_and_silent_workers_first(admin: Viewer) -> None:
    page = admin.page(PAGE)
    text = read_text(page)
    assert "3 workers, 1 silent" in text
    assert text.index("lease expired") < text.index("<b>w") < text.index("idle")
    assert "its lease has expired" in text
    assert "<i>pay</i>" in text
    assert "and 2 more" in text
    addresses = page.addresses()
    assert "/dashboard/jobs/stuck" in addresses
    assert f"{PAGE}?worker=w1&range=1h" in addresses
    assert any(address.startswith("/dashboard/errors/") for address in addresses)
    assert not page.all("b")


@pytest.mark.usefixtures("worker_history")
def test_name_of_a_worker_links_to_a_page_about_only_this_worker(admin: Viewer) -> None:
    links = [attrs["href"] for attrs in admin.page(PAGE).all("a", title=ODD_NAME)]
    page = admin.page(str(links[0]))
    text = read_text(page)
    assert ODD_NAME in text
    assert len(page.all("th", scope="row")) == 1
    assert "stuck" not in text
    assert "Top errors" in text
    w1_text = read_text(admin.page(f"{PAGE}?worker=w1"))
    assert "timeout" in w1_text
    assert "ErrorCountChangeFirst seenLast seen" in w1_text  # no columns for types and trend
    assert "No such worker in this window" in read_text(admin.page(f"{PAGE}?worker=none"))


@pytest.mark.usefixtures("worker_history")
@pytest.mark.parametrize(
    ("query", "first_name"),
    [("sort=name", ODD_NAME), ("sort=-failures", "w1"), ("text=DLE", "idle")],
)
def test_table_can_be_sorted_and_searched(admin: Viewer, query: str, first_name: str) -> None:
    titles = [attrs.get("title") for attrs in admin.page(f"{PAGE}?{query}").all("a")]
    names = [title for title in titles if title in {"w1", "idle", ODD_NAME}]
    assert names[0] == first_name


def test_page_without_a_collector_shows_leases_and_the_reason(admin: Viewer, watched: Any) -> None:
    watched.jobs.insert_one({"jobId": "a", "status": "leased", "leasedBy": "w1"})
    text = read_text(admin.page(PAGE))
    assert "1 worker " in text
    assert "Attempts: no collector keeps a history" in text


def test_page_distinguishes_no_workers_from_unknown_workers(make_api: MakeApi) -> None:
    viewer = signed_in(make_api(profile="celery", jobs_collection="celery_taskmeta"))
    assert "No workers in this window" in read_text(viewer.page(PAGE))
    viewer = signed_in(make_api(profile="mongodb-queue", jobs_collection="mail"))
    text = read_text(viewer.page(PAGE))
    assert "Workers are not known: the documents do not record which worker runs a job." in text
    assert "No workers" not in text


@pytest.mark.usefixtures("worker_history")
@pytest.mark.parametrize(("threshold", "is_marked"), [(0.4, True), (0.6, False)])
def test_failure_rate_of_a_worker_is_marked_by_the_thresholds_of_the_rules(
    make_api: MakeApi, worker_history: ErrorHistory, threshold: float, is_marked: bool
) -> None:
    """No notice and no alert is about the failure rate of one worker: only the page marks it."""
    # With this success, one of two attempts of w1 failed.
    worker_history.succeed("mail", "w1", at=NOW - 4 * MINUTE, took=MINUTE)
    thresholds = Thresholds(failure_rate=threshold, failure_rate_attempts=2)
    page = signed_in(make_api(rules=Rules(thresholds=thresholds))).page(PAGE)
    assert bool(page.all("td", **{"data-label": "failed", "class": "number bad"})) == is_marked


def test_many_workers_are_shown_in_pages_and_a_page_after_the_last_is_the_last(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = ErrorHistory(NOW)
    for index in range(120):
        history.succeed("mail", f"pod-{index:03}", at=NOW - MINUTE)
    history.serve(monkeypatch)
    page = admin.page(f"{PAGE}?page=3&sort=name")
    assert "page 3 of 3" in read_text(page)
    assert len(page.all("th", scope="row")) == 20
    assert "page 3 of 3" in read_text(admin.page(f"{PAGE}?page=9&sort=name"))


@pytest.mark.parametrize("query", ["sort=age", "page=0", "range=1y", "page=x", "worker=a&worker=b"])
def test_page_refuses_a_bad_parameter(admin: Viewer, query: str) -> None:
    assert query.partition("=")[0] in admin.page(f"{PAGE}?{query}", 422).text


@pytest.mark.usefixtures("worker_history")
def test_part_request_returns_only_the_table(admin: Viewer) -> None:
    part = admin.get(PAGE, part=True)
    assert "<html" not in part.text
    assert "worker-rows" in part.text
