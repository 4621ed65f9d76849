"""Muting a notice on the page: catches a form of another site, and a mute without the right."""

from typing import Any

import pytest

from jobmon.settings import ADMIN_DASHBOARD
from jobmon.settings.actions import NOTICES_MUTE

from ..conftest import NOW, Api
from ..support.pages import Page, Viewer
from ..support.waiting import eventually
from .conftest import Make, signed_in

ROLES = {
    "admin": frozenset({ADMIN_DASHBOARD, NOTICES_MUTE}),
    "reader": frozenset({ADMIN_DASHBOARD}),
}
FORM = {"kind": "expired_leases", "minutes": "120", "mode": "mute", "reason": "provider is <away>"}
MUTES = "notice_mutes"


@pytest.fixture
def api(service: Make, watched: Any) -> Api:
    watched.jobs.insert_one(
        {"jobId": "a", "status": "leased", "leaseExpiresAt": NOW, "createdAt": NOW}
    )
    return service(actions=True, role_permissions=ROLES)


@pytest.fixture
def records(api: Api, watched: Any) -> Any:
    return watched.client[api.app.extensions["jobmon_settings"].state_db][MUTES]


def links(page: Page) -> list[str | None]:
    return [link["href"] for link in page.all("a") if "mute" in (link.get("class") or "")]


def await_text(viewer: Viewer, text: str) -> Page:
    """The overview once it has this text: it is shared for a second."""

    def find() -> Page | None:
        page = viewer.page("/dashboard")
        return page if text in page.text else None

    return eventually(find)


def test_notice_is_muted_and_unmuted_on_the_page(api: Api, records: Any) -> None:
    admin = signed_in(api, "ada")
    overview = admin.page("/dashboard")
    assert "/dashboard/mutes/confirm?kind=expired_leases" in links(overview)
    question = admin.page("/dashboard/mutes/confirm?kind=expired_leases")
    assert [field["value"] for field in question.all("input", name="kind")] == ["expired_leases"]
    answer = admin.post("/dashboard/mutes", FORM)
    assert (answer.status_code, answer.location) == (303, "/dashboard")
    (stored,) = records.find({"kind": "muted"})
    assert (stored["by"]["subject"], stored["notice"]) == ("ada", "expired_leases")
    muted = await_text(admin, "muted by ada")
    assert "provider is <away>" in muted.text
    assert "1 job stuck" in muted.text
    end = f"/dashboard/mutes/confirm?id={stored['request']}"
    assert end in links(muted)
    assert "provider is <away>" in admin.page(end).text
    ended = admin.post("/dashboard/mutes/end", {"id": stored["request"], "reason": "back"})
    assert ended.status_code == 303
    assert records.find_one({"kind": "unmuted"})["reason"] == "back"
    eventually(lambda: "muted by ada" not in admin.page("/dashboard").text)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reason": " "}, "Required."),
        ({"types": "mail*"}, "Only for notices about types"),
        ({"reason": "x" * 501}, "At most 500 characters"),
    ],
)
def test_a_mistake_in_the_form_is_shown_with_the_form(
    api: Api, records: Any, changed: dict[str, str], message: str
) -> None:
    page = signed_in(api).page_of_form("/dashboard/mutes", FORM | changed, status=422)
    assert message in page.text
    (chosen,) = page.all("option", selected=None)  # type: ignore[arg-type]
    assert chosen["value"] == "120"
    assert records.count_documents({}) == 0


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"kind": "other"}, 422), ({"minutes": "99999"}, 422), ({"mode": "forever"}, 422)],
)
def test_a_form_that_the_page_does_not_have_is_refused(
    api: Api, records: Any, changed: dict[str, str], status: int
) -> None:
    assert signed_in(api).post("/dashboard/mutes", FORM | changed).status_code == status
    assert records.count_documents({}) == 0


def test_a_form_of_another_site_mutes_nothing(api: Api, records: Any) -> None:
    admin = signed_in(api)
    for path in ("/dashboard/mutes", "/dashboard/mutes/end"):
        answer = admin.post(path, FORM, Sec_Fetch_Site="cross-site")
        assert answer.status_code == 403
    assert records.count_documents({}) == 0


def test_without_the_permission_the_page_has_no_link(api: Api, records: Any) -> None:
    reader = signed_in(api, role="reader")
    classes = [div.get("class") for div in reader.page("/dashboard").all("div", id="overview")]
    assert classes == [None]
    assert reader.post("/dashboard/mutes", FORM).status_code == 403
    assert reader.get("/dashboard/mutes/confirm?kind=expired_leases").status_code == 403
    assert records.count_documents({}) == 0
    admin = signed_in(api).page("/dashboard").all("div", id="overview")
    assert [div.get("class") for div in admin] == ["may-mute"]
