"""Links from a job to other systems: catches a link with a secret, a wrong reason for a missing
link, and a link that is shown to a caller who may not see the job."""

from collections.abc import Callable
from typing import Any

import pytest

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.settings.links import make_links

from ..conftest import Api

TEMPLATES = {
    "Logs": "https://logs.example/{environment}/{queue}?id={jobId}&owner={owner}&worker={worker}",
    "Trace": "https://trace.example/{type}/{payload.trace.id}",
}


@pytest.fixture
def make_api(watched: Any, make_settings: Callable[..., Settings]) -> Callable[..., Api]:
    """A function that creates the service with these links; `changes` are other settings."""

    def make(templates: dict[str, str], **changes: Any) -> Api:
        settings = make_settings(links=make_links(templates), **changes)
        return Api(create_app(settings, watched.client))

    return make


def test_only_owners_and_admins_get_the_links_of_a_job(
    make_api: Callable[..., Api], watched: Any
) -> None:
    api = make_api(TEMPLATES, environment="PROD EU")
    watched.jobs.insert_many(
        [
            {
                "jobId": 7,
                "type": "a/b",
                "createdBy": "ada",
                "payload": {"trace": {"id": "t?1"}},
                "status": "succeeded",
            },
            {"jobId": "j2", "createdBy": "ada", "leasedBy": "w2", "payload": "text"},
        ]
    )
    watched.job_attempts.insert_one({"jobId": 7, "attemptNumber": 1, "workerId": "w1"})
    expected = [
        {
            "name": "Logs",
            "url": "https://logs.example/PROD%20EU/default?id=7&owner=ada&worker=w1",
            "reason": None,
        },
        {"name": "Trace", "url": "https://trace.example/a%2Fb/t%3F1", "reason": None},
    ]
    for subject, role in (("root", "admin"), ("ada", "user")):
        token = api.token(subject, role)
        assert api.get("/jobs/7", token=token).json["links"] == expected
        logs, trace = api.get("/jobs/j2", token=token).json["links"]
        assert logs["url"].endswith("id=j2&owner=ada&worker=w2")
        assert trace == {"name": "Trace", "url": None, "reason": "type has no value"}
    answer = api.get_as_owner("/jobs/7", "bob")
    assert answer.status_code == 403
    assert "logs.example" not in answer.text


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "payload.a.b has no value"),
        ({"a": None}, "payload.a.b has no value"),
        ({"a": 1}, "payload.a.b has no value"),
        ({"a": {"b": None}}, "payload.a.b has no value"),
        ({"a": {"b": {"c": 1}}}, "payload.a.b is an object, not a single value"),
        ({"a": {"b": [1, 2]}}, "payload.a.b is an array, not a single value"),
        ({"a": [{"b": 1}]}, "payload.a.b is an array, not a single value"),
        ({"a": {"b": "x" * 1_000_000}}, "payload.a.b has more than 500 characters"),
        ({"a": {"b": "Bearer abcdefgh12345"}}, "redaction hides payload.a.b"),
        ({"a": {"b": "4111 1111 1111 1111"}}, "redaction hides payload.a.b"),
        ({"a": {"name": "password", "b": "x", "value": "y"}}, None),
        ("a text", "payload.a.b has no value"),
        (None, "payload.a.b has no value"),
    ],
)
def test_a_link_has_either_an_address_or_the_reason_why_it_has_none(
    make_api: Callable[..., Api], watched: Any, payload: Any, reason: str | None
) -> None:
    api = make_api({"Link": "https://x.example/?v={payload.a.b}"})
    watched.jobs.insert_one({"jobId": "j", "payload": payload})
    (link,) = api.get_as_admin("/jobs/j").json["links"]
    assert link["reason"] == reason
    assert (link["url"] is None) == (reason is not None)


def test_a_value_that_the_key_next_to_it_marks_as_secret_is_in_no_link(
    make_api: Callable[..., Api], watched: Any
) -> None:
    api = make_api({"Link": "https://x.example/?v={payload.header.value}"})
    header = {"name": "x-api-key", "value": "abc", "other": "x" * 1_000}
    watched.jobs.insert_one({"jobId": "j", "payload": {"header": header}})
    answer = api.get_as_admin("/jobs/j").json
    assert answer["payload"]["header"]["value"] == "[redacted]"
    assert answer["links"] == [
        {"name": "Link", "url": None, "reason": "redaction hides payload.header.value"}
    ]
