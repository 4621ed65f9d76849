"""The page of one job: catches a payload that makes the page large, a button that copies only a
part of the payload, and a link to another system that differs from the API's."""

import itertools
import json
from datetime import timedelta
from typing import Any

import pytest

from jobmon.dashboard.job_page import MAX_RAW_LENGTH, RawJson
from jobmon.settings.links import make_links

from ..conftest import NOW
from ..support.pages import Page, Viewer
from .conftest import MakeApi, signed_in

JOB = "/dashboard/jobs/j1"


def insert_job(watched: Any, **fields: Any) -> None:
    job = {"jobId": "j1", "type": "t", "status": "dlq", "createdBy": "ada", "createdAt": NOW}
    watched.jobs.insert_one(job | fields)


def test_page_has_the_same_links_as_the_api(make_api: MakeApi, watched: Any) -> None:
    links = make_links(
        {"Logs": "https://logs.example/?q={payload.q}", "Trace": "https://x.example/{payload.id}"}
    )
    api = make_api(links=links)
    insert_job(watched, payload={"q": '"><script>&//evil'})
    for viewer, subject, role in (
        (signed_in(api), "root", "admin"),
        (signed_in(api, "ada", "user"), "ada", "user"),
    ):
        page = viewer.page(JOB)
        logs, trace = api.get("/jobs/j1", token=api.token(subject, role)).json["links"]
        (link,) = page.all("a", target="_blank")
        address = "https://logs.example/?q=%22%3E%3Cscript%3E%26%2F%2Fevil"
        assert link["href"] == logs["url"] == address
        assert link["rel"] == "noopener noreferrer"
        assert f"Trace: {trace['reason']}" in page.text
    assert "logs.example" not in signed_in(api, "bob", "user").get(JOB).text


def test_json_of_a_job_is_the_answer_of_the_api(make_api: MakeApi, watched: Any) -> None:
    api = make_api()
    insert_job(watched, jobId="..", payload={"password": "x", "n": 1})
    ada = signed_in(api, "ada", "user")
    addresses = ada.page("/dashboard/job?id=..").addresses()
    address = next(address for address in addresses if "json" in address)
    answer = ada.get(address)
    assert answer.content_type == "application/json"
    assert answer.json == api.get_as_owner("/job", "ada", id="..").json
    assert answer.json["payload"] == {"password": "[redacted]", "n": 1}
    assert signed_in(api, "bob", "user").get(address).status_code == 403
    assert Viewer(api.app).get(address).status_code == 401


def test_short_payload_can_be_copied_as_json(admin: Viewer, watched: Any) -> None:
    payload = {"a": [1, None, True], "é": "<b>", "token": "x"}
    insert_job(watched, payload=payload)
    page = admin.page(JOB)
    assert page.all("button", **{"data-copy-of": "raw-payload"})
    start = page.text.index("{\n")
    payload_on_page, _ = json.JSONDecoder().raw_decode(page.text[start:])
    assert payload_on_page == payload | {"token": "[redacted]"}


@pytest.mark.parametrize("length", [301, 5_000, 1_000_000])
def test_long_text_is_folded_and_the_page_stays_small(
    admin: Viewer, watched: Any, length: int
) -> None:
    insert_job(watched, payload={"text": "x" * length, "list": ["y" * 5_000] * 200})
    answer = admin.get(JOB)
    assert len(answer.data) < 150_000
    page = Page(answer.text)
    assert page.all("details", **{"class": "long"})
    shown = "the first 40,000 of" if length > 40_000 else "all"
    assert f"show {shown} {length:,} characters" in page.text
    # The payload is cut, so it has no button that copies it.
    assert not page.all("button", **{"data-copy-of": "raw-payload"})
    assert f"These are the first {MAX_RAW_LENGTH:,} characters." in page.text


def test_raw_json_of_an_endless_value_is_cut() -> None:
    class Endless(dict[str, Any]):
        def items(self) -> Any:
            yield from ((f"k{index}", index) for index in itertools.count())

    raw_json = RawJson.dump(Endless(a=1))
    assert (len(raw_json.text), raw_json.is_cut) == (MAX_RAW_LENGTH, True)
    assert RawJson.dump([1]) == RawJson(text="[\n  1\n]", is_cut=False)


def test_header_of_a_job_has_its_status_next_step_and_error(admin: Viewer, watched: Any) -> None:
    insert_job(
        watched,
        status="failed",
        attemptCount=2,
        maxAttempts=5,
        nextRunAt=NOW + timedelta(days=400),
        lastError={"code": "E1", "message": "broken"},
    )
    header = admin.page(JOB).text.partition("Payload")[0]
    assert "retrying" in header
    assert "2 of 5 attempts" in header
    assert "Retry 2 of 4 is due" in header
    assert "E1 broken" in header
