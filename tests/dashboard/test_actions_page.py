"""The pages about actions: catches a button that the caller may not use or that the job's state
does not allow, a confirmation that counts other jobs, and a form that another site sends."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.actions import requests
from jobmon.actions.records import ActionRecords
from jobmon.actions.requests import ActionRequests, JobOutcome, OutcomePage
from jobmon.settings import ADMIN_DASHBOARD
from jobmon.settings.actions import ACTION_PERMISSIONS, JOBS_CANCEL
from jobmon.store import paused_types

from ..conftest import NOW, Api
from ..support.pages import PART, Page, Viewer
from .conftest import MakeApi, signed_in

ROLES = {
    "admin": frozenset({ADMIN_DASHBOARD, *ACTION_PERMISSIONS}),
    "reader": frozenset({ADMIN_DASHBOARD}),
    "canceller": frozenset({ADMIN_DASHBOARD, JOBS_CANCEL}),
}
CONFIRM, FILE = "/dashboard/actions/confirm", "/dashboard/actions"


@pytest.fixture
def make_actions_api(make_api: MakeApi, watched: Any) -> MakeApi:
    """A function that creates a service with actions over four jobs; its arguments are settings."""

    def make(**settings: Any) -> Api:
        watched.jobs.delete_many({})
        watched.jobs.insert_many(
            {"jobId": job_id, "status": status, "type": "mail", "createdAt": NOW} | fields
            for job_id, status, fields in (
                ("dead-1", "dlq", {"createdBy": "ada"}),
                ("dead-2", "dlq", {"createdBy": "bob"}),
                ("later", "queued", {"nextRunAt": datetime.now(UTC) + timedelta(days=1)}),
                ("ended", "succeeded", {}),
            )
        )
        return make_api(**{"actions": True, "role_permissions": ROLES} | settings)

    return make


OUTCOME = JobOutcome(
    request_id="",
    key="dead-1",
    job_id="dead-1",
    result="done",
    reason="",
    at=NOW,
    before={},
    after={},
)


@pytest.fixture
def api(make_actions_api: MakeApi) -> Api:
    return make_actions_api()


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[JobOutcome]:
    """The outcomes of every request, for the test to fill: mongomock cannot list them."""
    listed: list[JobOutcome] = []
    monkeypatch.setattr(
        ActionRequests, "list_outcomes", lambda *_, **__: OutcomePage(outcomes=listed)
    )
    return listed


@pytest.fixture(autouse=True)
def actor_absence(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """How many `seconds` ago an actor last worked (None: never); mongomock cannot measure it."""
    absence: dict[str, float | None] = {"seconds": 0}
    monkeypatch.setattr(ActionRecords, "find_actor_absence_s", lambda _: absence["seconds"])
    monkeypatch.setattr(requests, "ACTOR_CACHE_MS", 0)
    return absence


def list_buttons(page: Page) -> list[str | None]:
    """The actions of the buttons on a page."""
    return [button["value"] for button in page.all("button", name="action")]


def read_hidden_fields(page: Page) -> dict[str, str]:
    return {str(field["name"]): str(field["value"]) for field in page.all("input", type="hidden")}


def file_request(viewer: Viewer, **form: Any) -> str:
    """File a request through its confirmation; returns the address of its page."""
    fields = read_hidden_fields(viewer.page_of_form(CONFIRM, form)) | {"reason": "back"} | form
    answer = viewer.post(FILE, fields)
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def test_job_has_a_button_for_each_possible_action_of_the_caller(api: Api) -> None:
    admin = signed_in(api)
    assert list_buttons(admin.page("/dashboard/jobs/dead-1")) == ["retry"]
    waiting = ["run_now", "reschedule", "prioritize", "cancel"]
    assert list_buttons(admin.page("/dashboard/jobs/later")) == waiting
    assert list_buttons(admin.page("/dashboard/jobs/ended")) == []
    canceller, reader = signed_in(api, role="canceller"), signed_in(api, role="reader")
    assert list_buttons(canceller.page("/dashboard/jobs/later")) == ["cancel"]
    assert list_buttons(reader.page("/dashboard/jobs/later")) == []


def test_owner_has_the_buttons_that_owner_actions_allows(make_actions_api: MakeApi) -> None:
    api = make_actions_api(owner_actions=("retry",))
    ada = signed_in(api, "ada", "user")
    assert list_buttons(ada.page("/dashboard/jobs/dead-1")) == ["retry"]
    my_page = ada.page("/dashboard/my")
    assert list_buttons(my_page) == ["retry"]
    boxes = my_page.all("input", type="checkbox", form="selection")
    assert [box["value"] for box in boxes] == ["dead-1"]
    # An owner cannot choose all matching jobs: the filter would also select jobs of other owners.
    assert [choice["value"] for choice in my_page.all("input", name="scope")] == ["selected"]
    ada = signed_in(make_actions_api(), "ada", "user")
    assert list_buttons(ada.page("/dashboard/jobs/dead-1")) == []


PAGES = ("/dashboard/jobs/dead-1", "/dashboard/jobs?status=dlq", "/dashboard/types/mail")


@pytest.mark.parametrize("path", PAGES)
def test_pages_show_a_reason_instead_of_buttons_after_a_minute_without_an_actor(
    api: Api, actor_absence: dict[str, float | None], path: str
) -> None:
    admin = signed_in(api)
    actor_absence["seconds"] = requests.ACTOR_ABSENCE_S
    assert {"retry", "pause_type"} & {*list_buttons(admin.page(path))}
    for seconds in (requests.ACTOR_ABSENCE_S + 0.1, None):
        actor_absence["seconds"] = seconds
        page = admin.page(path)
        assert list_buttons(page) == []
        assert "No actions are possible now: no actor is running." in page.text
        assert page.all("input", form="selection") == []
    assert "No actions" not in signed_in(api, role="reader").page(path).text
    # A form that was already open in a browser still works: its request waits, and expires.
    question = admin.page_of_form(CONFIRM, {"action": "retry", "id": "dead-1"})
    assert "No actor is running: the request waits" in question.text


def test_pages_work_when_the_records_of_the_actor_cannot_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise AutoReconnect

    monkeypatch.setattr(ActionRecords, "find_actor_absence_s", fail)
    page = signed_in(api).page("/dashboard/jobs?status=dlq")
    assert list_buttons(page) == []
    assert "their records cannot be read" in page.text


def test_owner_gets_the_same_answer_for_foreign_and_missing_jobs(make_actions_api: MakeApi) -> None:
    ada = signed_in(make_actions_api(owner_actions=("retry",)), "ada", "user")
    for job_id in ("dead-2", "none"):
        question = ada.page_of_form(CONFIRM, {"action": "retry", "id": ["dead-1", job_id]})
        assert "Retry 1 job?" in question.text
        assert "1 of the selected jobs cannot be changed in this way" in question.text
        assert ada.post(CONFIRM, {"action": "retry", "id": job_id}).status_code == 403
    assert ada.post(CONFIRM, {"action": "retry", "filter": "?status=dlq"}).status_code == 403
    assert ada.post(CONFIRM, {"action": "retry"}).status_code == 422
    file_request(ada, action="retry", id=["dead-1", "dead-2"])


def test_list_has_boxes_and_buttons_only_for_callers_who_may_request_actions(api: Api) -> None:
    admin = signed_in(api)
    page = admin.page("/dashboard/jobs?status=dlq")
    assert [box["value"] for box in page.all("input", type="checkbox", form="selection")] == [
        "dead-2",
        "dead-1",
    ]
    assert list_buttons(page) == ["retry"]
    assert read_hidden_fields(page)["filter"] == "?status=dlq"
    assert "delete" not in list_buttons(admin.page("/dashboard/jobs"))
    reader_page = signed_in(api, role="reader").page("/dashboard/jobs?status=dlq")
    assert list_buttons(reader_page) == []
    assert reader_page.all("input", form="selection") == []


def test_list_of_the_longest_runs_offers_actions_only_on_selected_jobs(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an action on all jobs that match the filters: the list shows only some of them."""
    monkeypatch.setattr(
        "jobmon.api.longest_runs.LongestRunReader.list", lambda *_: ([{"jobId": "a"}], "")
    )
    page = signed_in(api).page("/dashboard/jobs?sort=-duration")
    assert [radio["value"] for radio in page.all("input", name="scope")] == ["selected"]


def test_pages_do_not_mention_actions_unless_they_are_enabled(
    make_api: MakeApi, watched: Any
) -> None:
    watched.jobs.insert_one({"jobId": "dead", "status": "dlq", "createdAt": NOW})
    admin = signed_in(make_api(role_permissions=ROLES))
    for path in ("/dashboard/jobs", "/dashboard/jobs/dead", "/dashboard/types/mail"):
        text = admin.get(path).text
        assert "dashboard/actions" not in text
        assert "actions.js" not in text
    assert admin.get("/dashboard/actions").status_code == 404
    assert admin.post(FILE, {"action": "retry", "id": "dead"}).status_code == 405


def test_confirmation_counts_and_lists_the_jobs_that_will_change(api: Api) -> None:
    admin = signed_in(api)
    form = {"action": "retry", "id": ["dead-1", "dead-2", "ended"], "scope": "selected"}
    page = admin.page_of_form(CONFIRM, form | {"filter": "?status=dlq"})
    assert "Retry 2 jobs?" in page.text
    assert "1 of the selected jobs cannot be changed in this way" in page.text
    assert "No actor is running" not in page.text
    assert "dead-1" in page.text
    assert read_hidden_fields(page)["expected"] == "2"
    assert "filter" not in read_hidden_fields(page)
    assert page.all("textarea", name="reason")[0].keys() >= {"required"}
    fields = read_hidden_fields(
        admin.page_of_form(CONFIRM, form | {"filter": "?status=dlq", "scope": "all"})
    )
    assert (fields["filter"], "id" in fields) == ("?status=dlq", False)


def test_request_that_is_confirmed_twice_is_filed_once(
    api: Api, outcomes: list[JobOutcome], watched: Any
) -> None:
    admin = signed_in(api)
    page = admin.page_of_form(CONFIRM, {"action": "retry", "filter": "?type=mail&status=dlq"})
    form = read_hidden_fields(page) | {"reason": "<b>back</b>"}
    first, second = (admin.post(FILE, form) for _ in range(2))
    assert first.status_code == second.status_code == 303
    assert first.location == second.location
    outcomes.append(
        replace(
            OUTCOME,
            before={"status": "dlq", "password": "p1"},
            after={"status": "queued", "password": "p2"},
        )
    )
    request_page = admin.page(first.location)
    assert "Retry 2 jobs" in request_page.text
    assert "waiting for an actor" in request_page.text
    assert "<b>back</b>" in request_page.text
    assert re.search(r"status:\s+dlq\s+→\s+queued", request_page.text)
    assert "p1" not in request_page.text
    list_page = admin.page("/dashboard/actions")
    assert list_page.text.count("Retry 2 jobs") == 1
    assert all(text in list_page.text for text in ("root", "127.0.0.1", "<b>back</b>"))


@pytest.mark.parametrize(
    ("form", "key", "name"),
    [
        ({"action": "pause_type", "type": "mail"}, "mail", "mail"),
        ({"action": "retry", "filter": "?status=dlq"}, 7, "unknown id"),
    ],
)
def test_outcome_without_a_job_id_has_the_name_of_the_type_or_an_unknown_id(
    api: Api, outcomes: list[JobOutcome], form: dict[str, Any], key: Any, name: str
) -> None:
    """Catches the word "type" in place of a type that was skipped, or of a job that is gone."""
    admin = signed_in(api)
    skipped = replace(OUTCOME, key=key, job_id=None, result="skipped", reason="no change")
    outcomes.append(skipped)
    html = admin.get(file_request(admin, **form)).text
    assert re.findall(r'<td class="c-id"><span dir="auto">(.*?)</span></td>', html) == [name]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"action": "retry", "scope": "selected", "filter": "?status=dlq"}, "Select a job first."),
        ({"action": "explode", "id": "dead-1"}, "Must be one of"),
        ({"action": "delete", "id": "dead-1"}, "Deletion is switched off"),
        ({"action": "retry", "filter": "?stats=dlq"}, "There is no filter stats."),
        ({"action": "retry", "filter": "?payload.x=1"}, "payload.x"),
    ],
)
def test_confirmation_shows_mistakes_in_a_form(
    api: Api, form: dict[str, Any], message: str
) -> None:
    assert message in signed_in(api).page_of_form(CONFIRM, form, 422).text


def test_form_with_a_missing_or_bad_value_files_nothing_and_keeps_its_values(api: Api) -> None:
    admin = signed_in(api)
    form = {"action": "retry", "filter": "?status=dlq"}
    fields = read_hidden_fields(admin.page_of_form(CONFIRM, form))
    page = admin.page_of_form(FILE, fields | {"reset_attempts": "1"}, 422)
    assert "Required for more than one job or type." in page.text
    assert page.all("input", name="reset_attempts")[0].keys() >= {"checked"}
    assert read_hidden_fields(page)["key"] == fields["key"]
    page = admin.page_of_form(FILE, {"action": "prioritize", "id": "later", "priority": "1e9"}, 422)
    assert "Not a whole number." in page.text
    page = admin.page_of_form(FILE, {"action": "reschedule", "id": "later"}, 422)
    assert "Required for reschedule." in page.text
    assert admin.page("/dashboard/actions").text.count("Retry") == 0


def test_script_gets_a_toast_for_one_job_and_an_address_for_several(api: Api) -> None:
    admin = signed_in(api)
    answer = admin.client.post(FILE, data={"action": "retry", "id": "dead-1"}, headers=PART)
    assert (answer.status_code, "X-Jobmon-Location" in answer.headers) == (201, False)
    (toast,) = Page(answer.text).all("div", **{"class": "toast"})
    assert admin.page(str(toast["data-toast"])).all("div", **{"class": "toast"})
    several = {"action": "retry", "id": ["dead-1", "dead-2"], "reason": "x"}
    answer = admin.client.post(FILE, data=several, headers=PART)
    assert answer.headers["X-Jobmon-Location"].startswith("/dashboard/actions/")
    question = admin.client.post(CONFIRM, data=several, headers=PART)
    assert "<html" not in question.text


@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://attacker.example"}],
    ids=lambda headers: next(iter(headers)),
)
def test_forms_of_other_sites_are_refused(api: Api, headers: dict[str, str]) -> None:
    admin = signed_in(api)
    address = file_request(admin, action="retry", id="dead-1")
    for path, form in (
        (CONFIRM, {"action": "retry", "id": "dead-1"}),
        (FILE, {"action": "retry", "id": "dead-1"}),
        (address, {"decision": "stop"}),
    ):
        assert admin.post(path, form, **headers).status_code == 403
    assert "waiting for an actor" in admin.page("/dashboard/actions").text


def test_offered_decisions_depend_on_the_phase_and_on_the_caller(
    make_actions_api: MakeApi, outcomes: list[JobOutcome]
) -> None:
    api = make_actions_api(actions_approval_above=1)
    admin = signed_in(api)
    address = file_request(admin, action="retry", filter="?status=dlq")

    def list_decisions(viewer: Viewer) -> list[str | None]:
        return [button["value"] for button in viewer.page(address).all("button", name="decision")]

    approver = signed_in(api, "bob")
    assert list_decisions(admin) == ["reject", "stop"]
    assert list_decisions(approver) == ["approve", "reject", "stop"]
    assert list_decisions(signed_in(api, role="reader")) == []
    refused = signed_in(api, role="reader").post(address, {"decision": "approve"})
    assert refused.status_code == 403
    assert approver.post(address, {"decision": "approve"}).status_code == 303
    assert list_decisions(admin) == ["pause", "stop"]
    admin.post(address, {"decision": "stop"})
    assert list_decisions(admin) == []
    assert admin.post(address, {"decision": "pause"}).status_code == 409
    assert admin.post(address, {"decision": "file"}).status_code == 422


def test_owner_sees_only_own_requests_and_acts_only_on_own_jobs(
    make_actions_api: MakeApi, outcomes: list[JobOutcome]
) -> None:
    api = make_actions_api(owner_actions=("retry",))
    ada, bob = signed_in(api, "ada", "user"), signed_in(api, "bob", "user")
    address = file_request(ada, action="retry", id="dead-1")
    assert "Retry 1 job" in ada.page(address).text
    missing_address = re.sub("[0-9a-f]{20}$", "0" * 20, address)
    for path in (address, f"{address}/toast"):
        foreign, missing = bob.get(path), bob.get(path.replace(address, missing_address))
        assert (foreign.status_code, missing.status_code) == (403, 403)
        assert foreign.data == missing.data
    assert ada.get("/dashboard/actions").status_code == 403
    # A request of the time when ada was an admin may be for the jobs of others.
    earlier_address = file_request(signed_in(api, "ada"), action="retry", id="dead-2")
    assert ada.get(earlier_address).status_code == 403
    for form in (
        {"action": "retry", "id": "dead-2"},
        {"action": "retry", "id": ["dead-2", "ended"]},
        {"action": "retry", "filter": "?status=dlq"},
        {"action": "pause_type", "type": "mail"},
        {"action": "cancel", "id": "dead-1"},
    ):
        assert ada.post(CONFIRM, form).status_code == 403, form
        assert ada.post(FILE, form | {"reason": "x"}).status_code == 403, form


def test_timeline_of_a_job_shows_a_done_action(
    api: Api, monkeypatch: pytest.MonkeyPatch, outcomes: list[JobOutcome]
) -> None:
    admin = signed_in(api)
    address = file_request(admin, action="retry", id="dead-1", reason="provider is back")
    with api.app.test_request_context():
        queues = api.app.extensions["jobmon_queues"]
        records: ActionRecords = queues.open(queues.default).actions.requests.records
    outcome = {"key": 1, "jobId": "dead-1", "result": "done", "reason": "", "dryRun": False}
    records.add_outcomes(address.rpartition("/")[2], [outcome | {"before": {}, "after": {}}])
    text = " ".join(admin.page("/dashboard/jobs/dead-1").text.split())
    assert "Retried by root: provider is back" in text
    assert text.index("Retried by root") < text.index("Enqueued")


def test_type_page_offers_to_pause_the_type(api: Api) -> None:
    page = signed_in(api).page("/dashboard/types/mail")
    assert list_buttons(page) == ["pause_type"]
    question = signed_in(api).page_of_form(CONFIRM, {"action": "pause_type", "type": "mail"})
    assert "Workers will take no more jobs of the type mail" in question.text
    assert read_hidden_fields(question)["type"] == "mail"


def test_pages_of_a_queue_keep_its_path(api: Api) -> None:
    viewer = signed_in(api)
    page = Page(viewer.post(f"/queues/default{CONFIRM}", {"action": "retry", "id": "dead-1"}).text)
    assert page.all("form", **{"data-file": None})[0]["action"] == f"/queues/default{FILE}"
    answer = viewer.post(f"/queues/default{FILE}", {"action": "retry", "id": "dead-1"})
    assert answer.location.startswith(f"/queues/default{FILE}/")


def set_paused_types(watched: Any, *names: str) -> None:
    watched.job_controls.replace_one({"_id": "paused"}, {"types": [*names]}, upsert=True)


@pytest.mark.parametrize(
    ("path", "form", "then"),
    [
        (
            "/dashboard/actions",
            {"then": "/dashboard/jobs?status=dlq"},
            "/dashboard/jobs?status=dlq",
        ),
        ("/dashboard/actions", {"then": "https://evil.example"}, ""),
        ("/dashboard/mutes", {"kind": "stalled_types"}, ""),
    ],
)
def test_form_after_the_end_of_the_session_leads_back_to_the_page_that_had_it(
    api: Api, path: str, form: dict[str, str], then: str
) -> None:
    """Catches a sign-in that leads to an address without a page, because it only takes forms."""
    page = Viewer(api.app).page_of_form(path, form, 401)
    assert page.all("input", name="then")[0]["value"] == then


def test_the_forms_of_a_request_lead_back_to_its_page(api: Api) -> None:
    admin = signed_in(api)
    address = file_request(admin, action="retry", id="dead-1")
    assert [field["value"] for field in admin.page(address).all("input", name="then")] == [address]


@pytest.fixture
def _uncached_paused_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused_types, "CACHE_MS", 0)


@pytest.mark.usefixtures("_uncached_paused_types")
def test_type_page_shows_whether_the_type_is_paused_and_offers_the_other_state(
    api: Api, watched: Any
) -> None:
    admin, part_path = signed_in(api), "/dashboard/type-actions?name=mail"
    for path in ("/dashboard/types/mail", part_path):
        set_paused_types(watched, "other")
        assert list_buttons(admin.page(path)) == ["pause_type"]
        assert admin.page(path).all("span", **{"class": "paused"}) == []
        set_paused_types(watched, "mail")
        assert list_buttons(admin.page(path)) == ["resume_type"]
        assert len(admin.page(path).all("span", **{"class": "paused"})) == 1
    assert read_hidden_fields(admin.page(part_path)) == {
        "type": "mail",
        "then": "/dashboard/types/mail",
    }
    assert list_buttons(signed_in(api, role="reader").page("/dashboard/types/mail")) == []


@pytest.mark.usefixtures("_uncached_paused_types")
def test_type_page_offers_both_states_if_the_paused_types_cannot_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paused_types.PausedTypes, "find", lambda _: None)
    page = signed_in(api).page("/dashboard/types/mail")
    assert list_buttons(page) == ["pause_type", "resume_type"]
    assert signed_in(api).get("/dashboard").status_code == 200


@pytest.mark.usefixtures("_uncached_paused_types")
def test_overview_marks_paused_types_with_a_link_that_resumes_them(api: Api, watched: Any) -> None:
    set_paused_types(watched, "mail", "gone")
    page = signed_in(api).page("/dashboard")
    assert len(page.all("span", **{"class": "paused"})) == 2
    assert "Other paused types: gone" in page.text
    links = [link["href"] or "" for link in page.all("a", **{"class": "resume"})]
    assert [link.partition("&then")[0] for link in links] == [
        f"{CONFIRM}?action=resume_type&type={name}" for name in ("mail", "gone")
    ]
    assert page.all("div", id="overview", **{"class": "may-resume may-mute"})
    reader_page = signed_in(api, role="reader").page("/dashboard")
    assert [div.get("class") for div in reader_page.all("div", id="overview")] == [None]
    set_paused_types(watched)
    assert signed_in(api).page("/dashboard/overview?by=type").all("a", **{"class": "resume"}) == []


@pytest.mark.usefixtures("_uncached_paused_types")
def test_page_of_a_job_of_a_paused_type_names_the_pause_and_lets_admins_resume_it(
    api: Api, watched: Any
) -> None:
    """Catches a page that does not name the pause, or that shows an owner the link to end it."""
    job = {"jobId": "waits", "status": "queued", "type": "mail", "createdBy": "ada"}
    watched.jobs.insert_one(job | {"nextRunAt": datetime.now(UTC) - timedelta(minutes=5)})
    set_paused_types(watched, "other")
    admin, owner = signed_in(api), signed_in(api, "ada", "user")
    assert "Its type is paused" not in admin.page("/dashboard/jobs/waits").text
    set_paused_types(watched, "mail")
    page = admin.page("/dashboard/jobs/waits")
    assert "Its type is paused. No worker takes the job until the type is resumed." in page.text
    (link,) = [address for address in page.addresses() if "resume_type" in address]
    assert link == f"{CONFIRM}?action=resume_type&type=mail&then=%2Fdashboard%2Fjobs%2Fwaits"
    assert admin.get(link).status_code == 200
    assert "Its type is paused" in owner.page("/dashboard/jobs/waits").text
    assert "resume_type" not in owner.get("/dashboard/jobs/waits").text
    overview = admin.page("/dashboard").text
    assert "mail is paused" in overview
    assert "All clear" not in overview


def test_page_of_a_job_reads_its_action_records_again_only_if_the_job_just_changed(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a query each second for every open page."""
    reads: list[str] = []

    def read(_: Any, job_id: str, limit: int) -> list[Any]:
        reads.append(job_id)
        return []

    monkeypatch.setattr(ActionRequests, "_read_job_outcomes", read)
    admin = signed_in(api)
    now = datetime.now(UTC)
    for expected, changed_at in ((1, now - timedelta(days=1)), (4, now)):
        watched.jobs.update_one({"jobId": "dead-1"}, {"$set": {"updatedAt": changed_at}})
        for _ in range(3):
            assert admin.get("/dashboard/jobs/dead-1", part=True).status_code == 200
        assert len(reads) == expected
