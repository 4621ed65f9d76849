"""What a text of the search box may mean: catches a scan where an index is missing, unknown names
without a reason, a secret, and a text that causes a fault."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.api.search_meanings import Meanings, find_meanings
from jobmon.web.queues import current_queue

from ..conftest import NOW, Api
from ..store.test_queries import profiled
from ..support.error_history import ErrorHistory


def find(api: Api, text: str) -> Meanings:
    """The meanings for an operator."""
    with api.app.test_request_context():
        return find_meanings(current_queue(), text)


def test_without_indexes_no_document_is_read_and_nothing_is_suggested(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.insert_many(
        {"jobId": f"mail-{index}", "type": "mail", "createdBy": "mail", "createdAt": NOW}
        for index in range(20)
    )
    with profiled(database) as entries:
        meanings = find(real_api, "mail")
    assert meanings.found == ()
    assert meanings.reasons.keys() == {"types", "workers", "errors"}
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
    found = find(api, "bank").found
    assert (found[-1].kind, found[-1].value, found[-1].title) == ("error", group, "E_BANK")
    assert "hunter2" not in str(found)
    assert [item.text for item in found if item.kind == "jobs"] == ["worker:bank-1"]
    _, completed = find(api, "code:e_").found
    assert completed.value == "E_BANK"
    # A search for a secret in a name or a message finds no worker and no error.
    assert find(api, "abcdefgh12345678").found == ()
    assert find(api, "hunter2").found == ()


@pytest.mark.parametrize(
    "text", ["", " ", "\0", '"', "::", "type:*", "orderId:*", "\ud7ff:x", "x" * 1_000]
)
def test_odd_texts_are_answered(api: Api, text: str) -> None:
    assert find(api, text).reasons.keys() <= {"types", "workers", "errors"}


@pytest.mark.parametrize("text", ["priority:x", "attempts:0", "is:nope", "type:*"])
def test_a_filter_that_lists_refuse_is_a_problem_and_no_meaning(api: Api, text: str) -> None:
    meanings = find(api, text)
    assert meanings.found == ()
    (problem,) = meanings.search.problems
    assert problem.startswith(f"`{text}` cannot be searched: ")
