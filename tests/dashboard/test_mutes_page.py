"""Muting a notice on the overview: catches a form that another site sends, and a mute by a caller
without the permission."""

from typing import Any

import pytest

from jobmon.settings import ADMIN_DASHBOARD
from jobmon.settings.actions import NOTICES_MUTE

from ..conftest import NOW, Api
from ..support.pages import Page, Viewer
from ..support.waiting import eventually
from .conftest import MakeApi, signed_in

ROLES = {
    "admin": frozenset({ADMIN_DASHBOARD, NOTICES_MUTE}),
    "reader": frozenset({ADMIN_DASHBOARD}),
}
FORM = {"kind": "expired_leases", "minutes": "240", "mode": "mute", "reason": "provider is <away>"}
MUTES = "notice_mutes"


@pytest.fixture
def api(make_api: MakeApi, watched: Any) -> Api:
    watched.jobs.insert_one(
        {"jobId": "a", "status": "leased", "leaseExpiresAt": NOW, "createdAt": NOW}
    )
    return make_api(actions=True, role_permissions=ROLES)


@pytest.fixture
def mute_records(api: Api, watched: Any) -> Any:
    return watched.client[api.app.extensions["jobmon_settings"].state_db][MUTES]


def list_mute_addresses(page: Page) -> list[str | None]:
    return [link["href"] for link in page.all("a") if "mute" in (link.get("class") or "")]


def await_text(viewer: Viewer, text: str) -> Page:
    """Wait until the overview has this text; viewers share an overview for up to a second."""

    def find() -> Page | None:
        page = viewer.page("/dashboard")
        return page if text in page.text else None

    return eventually(find)


def test_notice_is_muted_and_unmuted_on_the_page(api: Api, mute_records: Any) -> None:
    admin = signed_in(api, "ada")
    overview = admin.page("/dashboard")
    assert "/dashboard/mutes/confirm?kind=expired_leases" in list_mute_addresses(overview)
    question = admin.page("/dashboard/mutes/confirm?kind=expired_leases")
    assert [field["value"] for field in question.all("input", name="kind")] == ["expired_leases"]
    answer = admin.post("/dashboard/mutes", FORM)
    assert (answer.status_code, answer.location) == (303, "/dashboard")
    (stored,) = mute_records.find({"kind": "muted"})
    assert (stored["by"]["subject"], stored["notice"]) == ("ada", "expired_leases")
    muted = await_text(admin, "muted by ada")
    assert "provider is <away>" in muted.text
    assert "1 job stuck" in muted.text
    unmute = f"/dashboard/mutes/confirm?id={stored['request']}"
    assert unmute in list_mute_addresses(muted)
    question = admin.page(unmute)
    assert "provider is <away>" in question.text
    assert "End mute · " in question.text
    ended = admin.post("/dashboard/mutes/end", {"id": stored["request"], "reason": "back"})
    assert ended.status_code == 303
    assert mute_records.find_one({"kind": "unmuted"})["reason"] == "back"
    eventually(lambda: "muted by ada" not in admin.page("/dashboard").text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reason": " "}, "Required."),
        ({"types": "mail*"}, "Only for notices about types"),
        ({"reason": "x" * 501}, "At most 500 characters"),
    ],
)
def test_form_with_a_mistake_is_shown_again_with_a_message(
    api: Api, mute_records: Any, fields: dict[str, str], message: str
) -> None:
    page = signed_in(api).page_of_form("/dashboard/mutes", FORM | fields, status=422)
    assert message in page.text
    (chosen_minutes,) = page.all("option", selected=None)  # type: ignore[arg-type]
    assert chosen_minutes["value"] == "240"
    assert mute_records.count_documents({}) == 0


@pytest.mark.parametrize("fields", [{"kind": "other"}, {"minutes": "99999"}, {"mode": "forever"}])
def test_value_not_offered_by_the_form_is_refused(
    api: Api, mute_records: Any, fields: dict[str, str]
) -> None:
    assert signed_in(api).post("/dashboard/mutes", FORM | fields).status_code == 422
    assert mute_records.count_documents({}) == 0


def test_form_of_another_site_mutes_nothing(api: Api, mute_records: Any) -> None:
    admin = signed_in(api)
    for path in ("/dashboard/mutes", "/dashboard/mutes/end"):
        answer = admin.post(path, FORM, Sec_Fetch_Site="cross-site")
        assert answer.status_code == 403
    assert mute_records.count_documents({}) == 0


def test_caller_without_the_permission_sees_no_mute_links_and_cannot_mute(
    api: Api, mute_records: Any
) -> None:
    reader = signed_in(api, role="reader")
    overviews = reader.page("/dashboard").all("div", id="overview")
    # The part that viewers share has the links; they are visible only below the class `may-mute`.
    assert [div.get("class") for div in overviews] == [None]
    assert reader.post("/dashboard/mutes", FORM).status_code == 403
    assert reader.get("/dashboard/mutes/confirm?kind=expired_leases").status_code == 403
    assert mute_records.count_documents({}) == 0
    overviews = signed_in(api).page("/dashboard").all("div", id="overview")
    assert [div.get("class") for div in overviews] == ["may-mute"]
