"""The search box without scripts: catches a text that leads to the wrong page, a missing choice,
and a job that is shown to another owner."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from ..conftest import Api
from ..support.error_history import ErrorHistory
from ..support.pages import Page, Viewer
from .conftest import MakeApi, signed_in

NOW = datetime.now(UTC)
FIELDS = ("payload.orderId", "payload.customer.name")
JOBS = "/dashboard/jobs"


def make_job(job_id: str, **fields: Any) -> dict[str, Any]:
    return {"jobId": job_id, "type": "mail", "status": "queued", "createdAt": NOW} | fields


@pytest.fixture
def shop_api(make_api: MakeApi, watched: Any, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The service over a few jobs, with a history of errors."""
    watched.jobs.insert_many(
        [
            make_job("a56e-1", payload={"orderId": 8425}, createdBy="ada"),
            make_job("a56e-2", payload={"orderId": 8426, "customer": {"name": "Ada L"}}),
            make_job("b-1", status="dlq", payload={"orderId": 8426}, createdBy="bob"),
            make_job("b-2", type="mail.bulk", createdBy="mail", lastError={"code": "E_BANK"}),
            make_job("b-3", type="send mail", createdBy="8425"),
            make_job("b/4 x", type="rare", leasedBy="w1", status="leased", leaseExpiresAt=NOW),
            make_job("job:7:x", type="ids"),
        ]
    )
    history = ErrorHistory(NOW)
    history.add({"code": "E_OTHER", "message": "timeout of 30 s"}, at=NOW - timedelta(minutes=5))
    history.add("disk full on /srv/data", at=NOW - timedelta(minutes=4))
    history.serve(monkeypatch)
    api = make_api(search_fields=FIELDS, stats_ttl_ms=600_000)
    signed_in(api).get("/dashboard")  # caches the statistics
    return api


def find_address(viewer: Viewer, text: str) -> str:
    """The address to which the box redirects; empty if it shows its own page."""
    answer = viewer.get(f"/dashboard/find?{urlencode({'q': text})}")
    assert answer.status_code in (200, 302)
    return answer.location or ""


def read_text(page: Page) -> str:
    return " ".join(page.text.split())


def read_find_page(viewer: Viewer, text: str) -> Page:
    return viewer.page(f"/dashboard/find?{urlencode({'q': text})}")


ADDRESSES: list[tuple[str, str]] = [
    # Ids and the first characters of ids; the page of a single job opens directly.
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
    # Words without a filter.
    ("8426", f"{JOBS}?payload.orderId=8426"),
    ("Ada L", f"{JOBS}/a56e-2"),
    ("queued", f"{JOBS}?status=queued"),
    ("running", f"{JOBS}/b%2F4%20x"),
    ("ada", f"{JOBS}/a56e-1"),
    ("E_BANK", f"{JOBS}/b-2"),
    ("bul", f"{JOBS}/b-2"),
    ("errors", "/dashboard/errors"),
    ("My jobs", "/dashboard/my"),
]


def test_text_with_one_meaning_opens_its_page(shop_api: Api) -> None:
    viewer = signed_in(shop_api)
    addresses = [(text, find_address(viewer, text)) for text, _ in ADDRESSES]
    assert addresses == ADDRESSES


def test_text_with_several_meanings_lists_them_with_counts(shop_api: Api) -> None:
    """Catches "mail" that opens the type, although an owner has the same name."""
    page = read_find_page(signed_in(shop_api), "mail")
    text = read_text(page)
    for expected in ("mail type, 3 jobs", "mail owner, 1 job", "mail.bulk type, 1 job"):
        assert expected in text
    addresses = page.addresses()
    assert f"{JOBS}?type=mail" in addresses
    assert "/dashboard/types/mail" in addresses
    # A list of one job leads to the job.
    assert find_address(signed_in(shop_api), "owner:mail") == f"{JOBS}/b-2"
    assert "/dashboard/find?q=owner%3Amail" in addresses
    text = read_text(read_find_page(signed_in(shop_api), "8425"))
    assert "8425 owner, 1 job" in text
    assert "8425 orderId, 1 job" in text


def test_filter_without_jobs_offers_names_that_begin_with_its_value(shop_api: Api) -> None:
    page = read_find_page(signed_in(shop_api), "status:queued type:mai")
    assert f"{JOBS}?status=queued&type=mail" in page.addresses()
    query = urlencode({"q": "status:queued type:mail.bulk"})
    assert f"/dashboard/find?{query}" in page.addresses()


def test_words_of_an_error_lead_to_its_group(shop_api: Api) -> None:
    viewer = signed_in(shop_api)
    for text in ("timeout", "OF timeout", "e_oth"):
        assert find_address(viewer, text).startswith("/dashboard/errors/"), text
    text = read_text(read_find_page(viewer, "o"))
    assert "error: timeout of <duration>" in text
    assert "disk full on <path>" in text


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
def test_text_without_a_result_shows_why_and_examples(
    shop_api: Api, text: str, sentence: str
) -> None:
    page = read_find_page(signed_in(shop_api), text)
    assert sentence in read_text(page)
    assert "status:dead type:mail" in read_text(page)
    assert "orderId:8425" in read_text(page)
    (box,) = page.all("input", id="find")
    assert box["value"] == text[:1_000]


def test_owner_finds_only_their_own_jobs(shop_api: Api) -> None:
    """Catches a box through which an owner learns that another job exists."""
    ada = signed_in(shop_api, "ada", "user")
    for text in ("a56e-1", "orderId:8425", "8425", "id:a56e-1", "status:queued"):
        assert find_address(ada, text) == f"{JOBS}/a56e-1", text
    assert find_address(ada, "id:a56e-") == f"{JOBS}/a56e-1"
    # The answer to a text of other owners' jobs is the answer to a text that no job has.
    texts = ("b-1", "8426", "mail.bulk", "w1", "E_BANK", "timeout", "bob", "never-seen")
    answers = {
        read_text(read_find_page(ada, text)).partition("Nothing")[2].replace(text, "")
        for text in texts
    }
    assert len(answers) == 1
    assert answers.pop().startswith(" found for “”.")
    # The list refuses these filters, in the same way for every value.
    assert find_address(ada, "owner:bob") == "/dashboard/my?owner=bob"
    assert find_address(ada, "orderId:8426") == "/dashboard/my?payload.orderId=8426"
    assert "owner:" not in read_text(read_find_page(ada, ""))
    part = ada.page("/dashboard/find?q=b-1", part=True)
    assert not part.all("li")


def test_pages_of_a_queue_have_the_box(shop_api: Api) -> None:
    viewer = signed_in(shop_api)
    for path in ("/dashboard", JOBS, f"{JOBS}/b-1", "/dashboard/my", "/dashboard/find"):
        page = viewer.page(path)
        assert [form["action"] for form in page.all("form", **{"class": "find"})] == [
            "/dashboard/find"
        ]


def test_part_for_the_script_has_an_option_for_each_suggestion(shop_api: Api) -> None:
    part = signed_in(shop_api).page("/dashboard/find?q=stat", part=True)
    assert [option["data-text"] for option in part.all("li", role="option")] == ["status:"]
    part = signed_in(shop_api).page("/dashboard/find?q=dea", part=True)
    assert [option["data-address"] for option in part.all("li", role="option")] == [
        "/dashboard/find?q=status%3Adead"
    ]


def test_text_and_names_never_become_markup(shop_api: Api, watched: Any) -> None:
    markup = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    watched.jobs.insert_one(
        make_job("c-1", type="t", createdBy=markup, payload={"orderId": markup})
    )
    viewer = signed_in(shop_api)
    for part in (False, True):
        page = viewer.page(f"/dashboard/find?{urlencode({'q': markup})}", part=part)
        assert page.all("li" if part else "a")
        assert markup in page.text
        assert not page.all("img")
        assert not [script for script in page.all("script") if "src" not in script]


def test_page_without_a_result_names_what_was_not_searched(admin: Viewer) -> None:
    text = read_text(read_find_page(admin, "never-seen"))
    assert "Types were not searched: no collector keeps statistics." in text
    assert "Errors were not searched: no collector keeps a history." in text
