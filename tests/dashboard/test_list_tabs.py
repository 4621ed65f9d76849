"""The tabs of a list of jobs: catches a wrong number of jobs, and a 0 for an unknown number."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobmon.api.owner_counts import OwnerCounts
from jobmon.dashboard.list_form import ListForm
from jobmon.dashboard.list_tabs import StatusTabs, Tab
from jobmon.domain import CappedCount
from jobmon.store.labels import OTHER
from jobmon.store.stats import QueueHealth, QueueStats

# By status and type: the number of jobs.
COUNTS = {
    ("queued", "mail"): 5,
    ("queued", "mail.bulk"): 2,
    ("dlq", "mail"): 3,
    ("dlq", "pay"): 1,
    ("odd", "pay"): 4,
}


def make_stats(counts: dict[tuple[str, str], int] | None = COUNTS, **health: Any) -> QueueStats:
    defaults: dict[str, Any] = {
        "estimated_total": 9,
        "expired_leases": 0,
        "due": 1,
        "scheduled": 6,
        "oldest_queued": None,
        "oldest_queued_by_type": {},
    }
    return QueueStats(
        as_of=datetime.now(UTC),
        source="rollup",
        counts=counts,
        total=15,
        health=QueueHealth(**defaults | health),
    )


def make_tabs(
    stats: QueueStats | OwnerCounts | None, total: CappedCount | None = None, **filters: Any
) -> dict[str, Tab]:
    parameters = {"status": [], "type": []} | filters
    tabs = StatusTabs(ListForm("/jobs", parameters, (), {}), stats, total)
    return {tab.label: tab for tab in tabs.list(has_schedule=True)}


def read_counts(tabs: dict[str, Tab]) -> dict[str, int | None]:
    return {label: tab.count for label, tab in tabs.items()}


def test_tabs_have_the_counts_of_the_stats_for_the_filtered_types() -> None:
    empty_tabs = {"Running": 0, "Retrying": 0, "Succeeded": 0, "Cancelled": 0}
    counted = {"All": 15, "Queued": 7, "Scheduled": 6, "Dead": 4, "Odd": 4}
    assert read_counts(make_tabs(make_stats())) == empty_tabs | counted
    counted = {"All": 10, "Queued": 7, "Scheduled": None, "Dead": 3, "Odd": 0}
    mail_tabs = make_tabs(make_stats(), type=["mail*"])
    assert read_counts(mail_tabs) == empty_tabs | counted
    assert mail_tabs["Scheduled"].reason == "Scheduled jobs are not counted by type"
    assert make_tabs(make_stats(), type=["x*"])["All"].count == 0
    assert make_tabs(make_stats(), type=["pay", "mail.bulk"])["All"].count == 7


@pytest.mark.parametrize(
    ("stats", "filters", "reason"),
    [
        (make_stats(), {"owner": "ada"}, "Counted only for a status and a type"),
        (make_stats(None), {}, "Counting the jobs took longer"),
        (make_stats(COUNTS | {("dlq", OTHER): 9}), {"type": ["rare"]}, "There are too many"),
        (make_stats(COUNTS | {("dlq", OTHER): 9}), {"type": ["ma*"]}, "There are too many"),
    ],
)
def test_tab_with_an_unknown_count_has_the_reason(
    stats: QueueStats, filters: dict[str, Any], reason: str
) -> None:
    tab = make_tabs(stats, **filters)["Dead"]
    assert tab.count is None
    assert tab.reason.startswith(reason)


def test_scheduled_tab_without_an_exact_count_has_the_reason() -> None:
    unknown = {"scheduled": "no job has a time"}
    tab = make_tabs(make_stats(scheduled=None, unknown=unknown))["Scheduled"]
    assert (tab.count, tab.reason) == (None, "No job has a time")
    tab = make_tabs(make_stats(unknown=unknown))["Scheduled"]
    assert (tab.count, tab.is_exact, tab.reason) == (6, False, "No job has a time")


def test_total_of_the_list_is_the_count_of_the_only_current_tab() -> None:
    tabs = make_tabs(make_stats(), CappedCount(10_000, False), status=["dlq"], owner="ada")
    assert (tabs["Dead"].count, tabs["Dead"].is_exact) == (10_000, False)
    assert [tab.label for tab in tabs.values() if tab.is_current] == ["Dead"]
    tabs = make_tabs(None, CappedCount(3, True), status=["dlq"])
    assert [label for label, count in read_counts(tabs).items() if count is not None] == ["Dead"]
    tabs = make_tabs(make_stats(), CappedCount(3, True), status=["dlq", "failed"])
    assert [tab.label for tab in tabs.values() if tab.is_current] == ["Retrying", "Dead"]
    assert tabs["Dead"].count == 4


def test_tab_keeps_only_filters_and_sorts_that_its_jobs_can_have() -> None:
    filters = {"type": ["mail"], "due_to": "2", "finished_to": "3", "cursor": "c", "per_page": "9"}
    tabs = make_tabs(make_stats(), sort="nextRunAt", status=["queued"], **filters)
    assert {label: tabs[label].address for label in ("All", "Queued", "Scheduled", "Dead")} == {
        "All": "/jobs?type=mail&due_to=2&finished_to=3&per_page=9",
        "Queued": "/jobs?status=queued&type=mail&sort=nextRunAt&due_to=2&per_page=9",
        "Scheduled": "/jobs?type=mail&sort=nextRunAt&due_to=2&per_page=9&condition=scheduled",
        "Dead": "/jobs?status=dlq&type=mail&finished_to=3&per_page=9",
    }


def test_schedule_links_lead_to_the_jobs_that_are_due_soon() -> None:
    now = datetime.now(UTC)
    parameters = {"status": [], "type": [], "condition": "scheduled"}
    tabs = StatusTabs(ListForm("/jobs", parameters, (), {}), None, None)
    assert list(tabs.link_due_jobs(now)) == ["hour", "24 hours", "7 days"]
    assert "condition=scheduled&due_to=" in tabs.link_due_jobs(now)["hour"]


def test_tabs_of_an_owner_have_the_counts_of_the_owners_jobs() -> None:
    owner_counts = OwnerCounts(
        as_of=datetime.now(UTC),
        total=CappedCount(10_000, False),
        by_status={"queued": CappedCount(1_000, False), "dlq": CappedCount(3, True)},
        reasons={"queued": "there are more than 1,000", "failed": "no index"},
    )
    tabs = make_tabs(owner_counts, CappedCount(2, True), status=["leased"])
    tab_counts = {label: (tab.count, tab.is_exact, tab.reason) for label, tab in tabs.items()}
    assert tab_counts["All"] == (10_000, False, "")
    assert tab_counts["Queued"] == (1_000, False, "There are more than 1,000")
    assert (tab_counts["Running"], tab_counts["Dead"]) == ((2, True, ""), (3, True, ""))
    assert tab_counts["Retrying"] == (None, True, "No index")
