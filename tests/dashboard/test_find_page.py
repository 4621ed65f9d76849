"""The search box without scripts: catches a text that leads to the wrong page, a choice that is
missing, and another owner's job that is found."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from ..conftest import Api
from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer
from .conftest import Make, signed_in

NOW = datetime.now(UTC)
FIELDS = ("payload.orderId", "payload.customer.name")
JOBS = "/dashboard/jobs"


def job(job_id: str, **fields: Any) -> dict[str, Any]:
    return {"jobId": job_id, "type": "mail", "status": "queued", "createdAt": NOW} | fields


@pytest.fixture
def shop(service: Make, watched: Any, monkeypatch: pytest.MonkeyPatch) -> Api:
    """A service over a few jobs, with a history of errors."""
    watched.jobs.insert_many(
        [
            job("a56e-1", payload={"orderId": 8425}, createdBy="ada"),
            job("a56e-2", payload={"orderId": 8426, "customer": {"name": "Ada L"}}),
            job("b-1", status="dlq", payload={"orderId": 8426}, createdBy="bob"),
            job("b-2", type="mail.bulk", createdBy="mail", lastError={"code": "E_BANK"}),
            job("b-3", type="send mail", createdBy="8425"),
            job("b/4 x", type="rare", leasedBy="w1", status="leased", leaseExpiresAt=NOW),
            job("job:7:x", type="ids"),
        ]
    )
    history = ErrorHistory(NOW)
    history.add({"code": "E_OTHER", "message": "timeout of 30 s"}, at=NOW - timedelta(minutes=5))
    history.add("disk full on /srv/data", at=NOW - timedelta(minutes=4))
    history.serve(monkeypatch)
    api = service(search_fields=FIELDS, stats_ttl_ms=600_000)
    signed_in(api).get("/dashboard")  # the statistics are kept from then on
    return api


def find(viewer: Viewer, text: str) -> str:
    """The address that the box leads to; or an empty text, if it shows a page of its own."""
    answer = viewer.get(f"/dashboard/find?{urlencode({'q': text})}")
    assert answer.status_code in (200, 302)
    return answer.location or ""


def words(page: Page) -> str:
    return " ".join(page.text.split())


def result(viewer: Viewer, text: str) -> Page:
    return viewer.page(f"/dashboard/find?{urlencode({'q': text})}")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        # Ids, whole ones first; one hit opens at once.
        ("a56e-1", f"{JOBS}/a56e-1"),
        ("b-1", f"{JOBS}/b-1"),
        ("b/4 x", f"{JOBS}/b%2F4%20x"),
        ("job:7:x", f"{JOBS}/job%3A7%3Ax"),
        ("job:7", f"{JOBS}/job%3A7%3Ax"),
        ("a56e", f"{JOBS}?job_id=a56e"),
        ("id:a56e", f"{JOBS}?job_id=a56e"),
        ("id:b-1", f"{JOBS}/b-1"),
        # Filters.
        ("orderId:8425", f"{JOBS}/a56e-1"),
        ("orderId:8426", f"{JOBS}?payload.orderId=8426"),
        ('customer.name:"Ada L"', f"{JOBS}/a56e-2"),
        ("status:queued type:mail", f"{JOBS}?status=queued&type=mail"),
        ("status:dead type:mail", f"{JOBS}/b-1"),
        ("dead mail", f"{JOBS}/b-1"),
        ("owner:never", f"{JOBS}?owner=never"),
        # Words.
        ("8426", f"{JOBS}?payload.orderId=8426"),
        ("Ada L", f"{JOBS}/a56e-2"),
        ("queued", f"{JOBS}?status=queued"),
        ("running", f"{JOBS}/b%2F4%20x"),
        ("ada", f"{JOBS}/a56e-1"),
        ("E_BANK", f"{JOBS}/b-2"),
        ("bul", f"{JOBS}/b-2"),
        ("errors", "/dashboard/errors"),
        ("My jobs", "/dashboard/my"),
    ],
)
def test_text_with_one_meaning_opens_it(shop: Api, text: str, address: str) -> None:
    assert find(signed_in(shop), text) == address


def test_text_with_several_meanings_lists_them_with_counts(shop: Api) -> None:
    """Catches "mail" that opens the type although it is an owner, too."""
    page = result(signed_in(shop), "mail")
    shown = words(page)
    for expected in ("mail type, 3 jobs", "mail owner, 1 job", "mail.bulk type, 1 job"):
        assert expected in shown
    addresses = page.addresses()
    assert f"{JOBS}?type=mail" in addresses
    assert "/dashboard/types/mail" in addresses
    # A list of one job leads to the job.
    assert find(signed_in(shop), "owner:mail") == f"{JOBS}/b-2"
    assert "/dashboard/find?q=owner%3Amail" in addresses
    both = words(result(signed_in(shop), "8425"))
    assert "8425 owner, 1 job" in both
    assert "8425 orderId, 1 job" in both


def test_filter_without_jobs_offers_longer_names(shop: Api) -> None:
    page = result(signed_in(shop), "status:queued type:mai")
    assert f"{JOBS}?status=queued&type=mail" in page.addresses()
    one = urlencode({"q": "status:queued type:mail.bulk"})
    assert f"/dashboard/find?{one}" in page.addresses()


def test_words_of_an_error_lead_to_its_group(shop: Api) -> None:
    viewer = signed_in(shop)
    for text in ("timeout", "OF timeout", "e_oth"):
        assert find(viewer, text).startswith("/dashboard/errors/"), text
    several = result(viewer, "o")
    assert "error: timeout of <duration>" in words(several)
    assert "disk full on <path>" in words(several)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("never-seen", "Nothing found for “never-seen”."),
        ("color:red", "“color:” is not a filter."),
        ("", "Write an id or at least its first 4 characters"),
        ("payload.password:x", "JOBMON_SEARCH_FIELDS has payload.orderId, payload.customer.name."),
        ("x" * 1_001, "The text is too long"),
        ("owner:a owner:b", "Write owner: only once."),
        ("owner:", "Write a value after owner:."),
    ],
)
def test_text_that_nothing_understands_is_answered_with_examples(
    shop: Api, text: str, sentence: str
) -> None:
    page = result(signed_in(shop), text)
    assert sentence in words(page)
    assert "status:dead type:mail" in words(page)
    assert "orderId:8425" in words(page)
    (box,) = page.all("input", id="find")
    assert box["value"] == text[:1_000]


def test_owner_finds_only_their_own_jobs(shop: Api) -> None:
    """Catches a box through which an owner learns that another job exists."""
    ada = signed_in(shop, "ada", "user")
    for text in ("a56e-1", "orderId:8425", "8425", "id:a56e-1", "status:queued"):
        assert find(ada, text) == f"{JOBS}/a56e-1", text
    assert find(ada, "id:a56e-") == f"{JOBS}/a56e-1"
    others = ("b-1", "8426", "mail.bulk", "w1", "E_BANK", "timeout", "bob")
    pages = ((text, words(result(ada, text)).partition("Nothing")[2]) for text in others)
    unknown = [shown.replace(text, "") for text, shown in pages]
    assert unknown[0].startswith(" found for “”.")
    assert len(set(unknown)) == 1
    # These filters are refused by the list, in the same way for every value.
    assert find(ada, "owner:bob") == "/dashboard/my?owner=bob"
    assert find(ada, "orderId:8426") == "/dashboard/my?payload.orderId=8426"
    assert "owner:" not in words(result(ada, ""))
    part = ada.page("/dashboard/find?q=b-1", part=True)
    assert not part.all("li")


def test_every_page_of_a_queue_has_the_box(shop: Api) -> None:
    viewer = signed_in(shop)
    for path in ("/dashboard", JOBS, f"{JOBS}/b-1", "/dashboard/my", "/dashboard/find"):
        page = viewer.page(path)
        assert [form["action"] for form in page.all("form", **{"class": "find"})] == [
            "/dashboard/find"
        ]


def test_part_has_an_option_for_each_suggestion(shop: Api) -> None:
    part = signed_in(shop).page("/dashboard/find?q=stat", part=True)
    assert [option["data-text"] for option in part.all("li", role="option")] == ["status:"]
    part = signed_in(shop).page("/dashboard/find?q=dea", part=True)
    assert [option["data-address"] for option in part.all("li", role="option")] == [
        "/dashboard/find?q=status%3Adead"
    ]


def test_text_and_names_never_become_markup(shop: Api, watched: Any) -> None:
    odd = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    watched.jobs.insert_one(job("c-1", type="t", createdBy=odd, payload={"orderId": odd}))
    viewer = signed_in(shop)
    for part in (False, True):
        page = viewer.page(f"/dashboard/find?{urlencode({'q': odd})}", part=part)
        assert page.all("li" if part else "a")
        assert odd in page.text
        assert not page.all("img")
        assert not [script for script in page.all("script") if "src" not in script]


def test_page_without_a_result_names_what_was_not_searched(admin: Viewer) -> None:
    shown = words(result(admin, "never-seen"))
    assert "Names of types were not searched: no collector keeps statistics." in shown
    assert "Names of errors were not searched: no collector keeps a history." in shown
