"""The page of a type: catches a count of another type, a name without a page, a link that leads to
other jobs, and an unknown count that looks like zero."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from jobmon.dashboard.type_facts import TypeFacts, make_type_tiles, restrict_stats
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.store.labels import OTHER, label
from jobmon.store.running_jobs import RunningJob, RunningJobs
from jobmon.store.stats import QueueHealth, QueueStats

from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer
from .test_overview import make_facts

NOW = datetime.now(UTC)
NAMES = [
    "mail",
    "a/b//c",
    "..",
    ".",
    "x y+z%2F",
    "<script>alert(1)</script>",
    "null",
    '"null"',
    '""',
    "(other)",
    "\u202eevil",
    "line\nbreak",
    "?q=1#f",
    "t" * 201,
]


def read_text(page: Page) -> str:
    return " ".join(page.text.split())


def make_address(name: str, query: str = "") -> str:
    if name in (".", ".."):
        return f"/dashboard/type?name={name}"
    return f"/dashboard/types/{quote(name, safe='')}{query}"


@pytest.fixture
def shop_history(watched: Any, monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Jobs and runs of the types mail and pay."""

    def make_job(
        job_id: str, status: str, age: timedelta, job_type: str = "mail", **fields: Any
    ) -> Any:
        dates = {"createdAt": NOW - age, "nextRunAt": NOW - age}
        return {"jobId": job_id, "type": job_type, "status": status, **dates, **fields}

    leased = {"leasedBy": "w1", "leaseExpiresAt": NOW + HOUR}
    expired = {"leasedBy": "w2", "leaseExpiresAt": NOW - MINUTE}
    watched.jobs.insert_many(
        [
            make_job("old-retry", "failed", 3 * HOUR),
            *(make_job(f"new-{index}", "queued", index * MINUTE) for index in range(3)),
            make_job("oldest-of-all", "queued", 9 * HOUR, "pay"),
            make_job("runs", "leased", HOUR, **leased),
            make_job("pays", "leased", HOUR, "pay", **expired),
            make_job("dead", "dlq", HOUR, finishedAt=NOW),
        ]
    )
    history = ErrorHistory(NOW)
    history.add("timeout of 30 s", "mail", "w1", at=NOW - 5 * MINUTE, took=90 * MINUTE)
    history.add("account 12 is closed", "pay", "w2", at=NOW - 5 * MINUTE, took=95 * MINUTE)
    history.succeed("mail", "w3", at=NOW - 5 * MINUTE, took=MINUTE)
    history.succeed("pay", "w1", at=NOW - 5 * MINUTE, took=MINUTE)
    return history.serve(monkeypatch)


@pytest.mark.usefixtures("shop_history")
def test_page_has_only_data_of_the_type(admin: Viewer) -> None:
    page = admin.page(make_address("mail"))
    text = read_text(page)
    assert "Queued 3 4 due" in text
    assert "Running 1 no expired leases" in text
    assert "Retrying 1" in text
    assert "Dead 1" in text
    assert "Oldest waiting job: old-retry" in text
    assert "timeout of" in text
    assert "account" not in text
    assert "1 h 30 min" in text
    assert "1 h 35 min" not in text
    addresses = page.addresses()
    (charts,) = page.all("section", id="charts")
    assert charts["data-url"] == "/dashboard/charts?range=1h&type=mail"
    assert charts["data-jobs"] == "/dashboard/jobs?type=mail"
    assert "/dashboard/jobs?status=queued&type=mail" in addresses
    assert "/dashboard/workers?worker=w1&range=1h" in addresses
    assert "/dashboard/workers?worker=w2&range=1h" not in addresses
    assert "/dashboard/errors?range=1h&type=mail" in addresses
    for link in ("/dashboard/jobs?status=queued&type=mail", "/dashboard/jobs?type=mail"):
        assert "pays" not in read_text(admin.page(link))


def test_workers_have_only_their_attempts_of_the_type(
    admin: Viewer, shop_history: ErrorHistory
) -> None:
    text = read_text(admin.page(make_address("mail")))
    workers = text[text.index("Workers in the last hour") : text.index("Slowest")]
    assert "w1 running" in workers
    assert "1 1 100% 1 h 28 min" in workers  # attempts, failures, share and p95 of w1
    assert "w3 idle" in workers
    assert "w2" not in workers
    assert "Top error" not in workers
    shop_history.overrides["untyped_until"] = NOW - 30 * MINUTE
    assert "Some attempts that ended before" in read_text(
        admin.page(make_address("mail", "?range=24h"))
    )
    unknown = read_text(admin.page(make_address("nothing")))
    assert "None known: some attempts that ended before" in unknown
    shop_history.overrides.clear()
    assert "No worker runs it now or ended" in read_text(
        admin.page(make_address("nothing", "?range=24h"))
    )


@pytest.mark.usefixtures("shop_history")
def test_page_counts_the_expired_leases_of_the_type(admin: Viewer) -> None:
    assert "Running 1 1 with an expired lease" in read_text(admin.page(make_address("pay")))


@pytest.mark.usefixtures("shop_history")
def test_other_ranges_and_the_part_of_the_page_are_about_the_same_type(admin: Viewer) -> None:
    page = admin.page(make_address("mail"))
    assert f"{make_address('mail')}?range=7d" in page.addresses()
    assert "last 7 days" in read_text(admin.page(make_address("mail", "?range=7d")))
    part = admin.get(make_address("mail"), part=True)
    assert "<html" not in part.text
    assert "Oldest waiting job" in part.text
    assert "range" in admin.page(make_address("mail", "?range=1y"), 422).text


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:9])
def test_type_with_any_name_has_a_page_and_a_row_that_links_to_it(
    admin: Viewer, watched: Any, name: str
) -> None:
    # The stored type. A missing type has the label null; "null" and "" have labels in quotes.
    value = {"null": None, '"null"': "null", '""': "", "(other)": "x"}.get(name, name)
    watched.jobs.insert_one({"jobId": "1", "type": value, "status": "queued", "createdAt": NOW})
    page = admin.page(make_address(name if name == "(other)" else label(value)))
    assert not [script for script in page.all("script") if "src" not in script]
    (heading,) = [attrs for tag, attrs in page.elements if tag == "h1"]
    assert heading["dir"] == "auto"
    if name != "(other)":
        assert "Queued 1" in read_text(page)
        (link,) = admin.page("/dashboard").all("a", **{"class": "row-link"})
        assert str(link["href"]).startswith(make_address(label(value)))
        assert admin.get(str(link["href"])).status_code == 200
    if len(name) <= 200 and name != "(other)":
        (job,) = admin.page("/dashboard/jobs?" + find_list_query(page)).all("tr", id="job-1")
        assert job


def find_list_query(page: Page) -> str:
    """The query of the list to which the tile of queued jobs links."""
    links = [link for link in page.addresses() if link.startswith("/dashboard/jobs?status=queued&")]
    return links[0].partition("?")[2]


def test_unknown_type_has_a_page_that_shows_no_jobs(admin: Viewer) -> None:
    assert "No jobs of this type" in read_text(admin.page(make_address("nothing")))


def test_job_page_and_notice_link_to_the_page_of_the_type(admin: Viewer, watched: Any) -> None:
    due_at = datetime.now(UTC) - HOUR
    due = {"createdAt": due_at, "nextRunAt": due_at}
    watched.jobs.insert_one({"jobId": "1", "type": "a/b", "status": "queued", **due})
    assert make_address("a/b") in admin.page("/dashboard/jobs/1").addresses()
    overview = admin.page("/dashboard")
    assert "a/b is stalled" in read_text(overview)
    notice = next(link for link in overview.addresses() if link.startswith(make_address("a/b")))
    assert notice.endswith("?range=1h")
    assert "Stalled: oldest due job waiting 1 h, none finished in 10 min" in read_text(
        admin.page(make_address("a/b"))
    )


def test_owner_sees_no_links_to_pages_for_admins(ada: Viewer, watched: Any) -> None:
    leased = {"status": "leased", "leasedBy": "w1", "leaseExpiresAt": NOW + HOUR}
    watched.jobs.insert_one({"jobId": "1", "type": "mail", "createdBy": "ada", **leased})
    page = ada.page("/dashboard/jobs/1")
    assert "w1" in page.text
    links = [link for link in page.addresses() if "/types/" in link or "/workers" in link]
    assert links == []


def test_charts_of_a_type_have_a_step_for_each_minute(admin: Viewer) -> None:
    answer = admin.get("/dashboard/charts?range=1h&type=mail")
    assert answer.status_code == 200
    assert answer.json is not None
    assert len(answer.json["at"]) >= 60


def make_stats(counts: dict[tuple[str, str], int] | None) -> QueueStats:
    health = QueueHealth(
        estimated_total=9,
        expired_leases=7,
        due=9,
        scheduled=0,
        oldest_queued=None,
        oldest_queued_by_type={},
    )
    return QueueStats(as_of=NOW, source="rollup", counts=counts, total=9, health=health)


def test_counts_of_a_type_that_may_be_folded_into_other_are_unknown() -> None:
    running = RunningJobs(as_of=NOW)
    counted = {("queued", "a"): 2, ("dlq", OTHER): 5}
    assert restrict_stats(make_stats(counted), "a", running).counts == {("queued", "a"): 2}
    assert restrict_stats(make_stats(counted), "b", running).counts is None
    assert restrict_stats(make_stats(counted), OTHER, running).counts == {("dlq", OTHER): 5}
    assert restrict_stats(make_stats({("queued", "a"): 2}), "b", running).counts == {}
    assert restrict_stats(make_stats(None), "a", running).counts is None


@pytest.mark.parametrize(
    ("running", "types", "expired"),  # types: of the jobs that were read
    [
        ({}, "abaa", 2),
        ({"is_complete": False}, "abaa", 2),  # the last job that was read has a valid lease
        ({"is_complete": False}, "aba", None),
        ({"reason": "an index is missing"}, "abaa", None),
    ],
    ids=str,
)
def test_expired_leases_of_a_type_are_unknown_unless_all_of_them_were_read(
    running: dict[str, Any], types: str, expired: int | None
) -> None:
    jobs = tuple(
        RunningJob("1", job_type, expires_at=NOW + (index - 2.5) * MINUTE)
        for index, job_type in enumerate(types)
    )
    stats = restrict_stats(make_stats({}), "a", RunningJobs(as_of=NOW, jobs=jobs, **running))
    assert stats.health.expired_leases == expired


def make_type_facts(counts: dict[tuple[str, str], int] | None, running: RunningJobs) -> TypeFacts:
    """The facts of type a without history, and with these jobs by status and type."""
    facts = make_facts(has_history=False)
    stats = restrict_stats(make_stats(counts), "a", running)
    return TypeFacts(
        name="a",
        facts=replace(facts, evidence=replace(facts.evidence, stats=stats)),
        forecast=None,
        oldest=None,
        oldest_unknown="",
        due=None,
        stalled_for=None,
    )


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        ((None, -1, 1), "1+ with an expired lease"),
        ((None, 1), "lease times unknown"),
        ((1,), "no expired leases"),
    ],
    ids=str,
)
def test_leases_without_a_readable_end_are_not_counted_as_valid(
    ends: tuple[int | None, ...], note: str
) -> None:
    """`ends` are the ends of the leases, in minutes from now; None if it is not a date."""
    jobs = tuple(
        RunningJob("1", "a", expires_at=None if end is None else NOW + end * MINUTE) for end in ends
    )
    facts = make_type_facts({("leased", "a"): len(ends)}, RunningJobs(as_of=NOW, jobs=jobs))
    notes = {tile.name: tile.note for tile in make_type_tiles(facts)}
    assert notes["Running"] == note


def test_expired_leases_are_unknown_if_no_job_that_was_read_has_a_known_end() -> None:
    running = RunningJobs(as_of=NOW, jobs=(RunningJob("1", "b"),), is_complete=False)
    assert restrict_stats(make_stats({}), "a", running).health.expired_leases is None


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({("dlq", "a"): 1}, "No job of this type is waiting."),
        ({("queued", OTHER): 9}, "It is not known how many jobs of this type are waiting."),
        (None, "It is not known how many jobs of this type are waiting."),
    ],
    ids=["counted", "folded", "estimate"],
)
def test_strip_does_not_claim_that_no_job_waits_if_the_jobs_are_not_counted(
    counts: dict[tuple[str, str], int] | None, sentence: str
) -> None:
    assert make_type_facts(counts, RunningJobs(as_of=NOW)).strip.sentence == sentence
