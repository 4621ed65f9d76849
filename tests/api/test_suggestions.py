"""Suggestions for the search box over HTTP: catches a scan where an index is missing, unknown names
without a reason, a secret, and a text that causes a fault."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from ..conftest import NOW, Api
from ..store.test_queries import profiled
from ..support.error_history import ErrorHistory

PATH = "/admin/jobs/suggestions"


def suggest(api: Api, text: str) -> dict[str, Any]:
    answer = api.get_as_admin(PATH, q=text)
    assert answer.status_code == 200, answer.text
    suggestions: dict[str, Any] = answer.json
    return suggestions


def test_without_indexes_no_document_is_read_and_nothing_is_suggested(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.insert_many(
        {"jobId": f"mail-{index}", "type": "mail", "createdBy": "mail", "createdAt": NOW}
        for index in range(20)
    )
    with profiled(database) as entries:
        answer = suggest(real_api, "mail")
    assert answer["data"] == []
    assert answer["meta"]["reasons"].keys() == {"types", "workers", "errors"}
    assert [entry for entry in entries if entry.get("docsExamined")] == []


def test_names_that_the_collector_knows_are_completed(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    history = ErrorHistory(now)
    group = history.add(
        {"code": "E_BANK", "message": "password=hunter2 refused"},
        worker="bank-1",
        at=now - timedelta(minutes=3),
    )
    history.add("disk full", worker="token=abcdefgh12345678", at=now - timedelta(minutes=2))
    history.serve(monkeypatch)
    watched.jobs.insert_one({"jobId": "j", "type": "pay"})
    suggestions = suggest(api, "bank")["data"]
    assert {"kind": "error", "value": group, "title": "E_BANK"}.items() <= suggestions[-1].items()
    assert "hunter2" not in str(suggestions)
    assert [item["text"] for item in suggestions if item["kind"] == "jobs"] == ["worker:bank-1"]
    _, completed = suggest(api, "code:e_")["data"]
    assert completed["value"] == "E_BANK"
    # A search for a secret in a name or a message finds no worker and no error.
    assert suggest(api, "abcdefgh12345678")["data"] == []
    assert suggest(api, "hunter2")["data"] == []


@pytest.mark.parametrize(
    "text", ["", " ", "\0", '"', "::", "type:*", "orderId:*", "\ud7ff:x", "x" * 1_000]
)
def test_odd_texts_are_answered(api: Api, text: str) -> None:
    assert suggest(api, text)["meta"]["reasons"].keys() <= {"types", "workers", "errors"}


@pytest.mark.parametrize("text", ["priority:x", "attempts:0", "is:nope", "type:*"])
def test_a_filter_that_lists_refuse_is_a_problem_and_no_suggestion(api: Api, text: str) -> None:
    answer = suggest(api, text)
    assert answer["data"] == []
    (problem,) = answer["meta"]["problems"]
    assert problem.startswith(f"`{text}` cannot be searched: ")


def test_text_that_is_too_long_is_refused(api: Api) -> None:
    answer = api.get_as_admin(PATH, q="x" * 1_001)
    assert answer.status_code == 422
    assert answer.json["error"]["details"].keys() == {"q"}
