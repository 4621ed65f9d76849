"""Jobs that a program wrote in an odd form: catches one that stops all requests of its queue."""

from typing import Any

import pytest
from bson import Int64

from jobmon.actions.state import Phase
from jobmon.actions.target import Target
from jobmon.actor.batches import MALFORMED, REFUSED

from .conftest import ActingQueue

MAX_DOCUMENT_BYTES = 16 * 1_024 * 1_024
DOCUMENT_TOO_LARGE = 17_419  # the server's error code
DEEP = 178  # a job can nest a value so deep; a record, which contains it, cannot


def nest(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"leasedBy": nest(DEEP)},
        {"leasedBy": "x" * 9_000_000},
        {"attemptCount": Int64(2**63 - 1)},
        {"_id": nest(DEEP)},
        {"_id": nest(DEEP), "status": "x"},
    ],
    ids=["deep value", "long value", "number", "deep _id", "deep _id, other status"],
)
def test_job_with_a_value_that_no_record_can_contain_is_skipped(
    queue: ActingQueue, fields: dict[str, Any]
) -> None:
    queue.add("odd", "dlq")
    queue.add("good", "dlq")
    odd = queue.job("odd") | fields
    queue.jobs.delete_one({"jobId": "odd"})
    queue.jobs.insert_one(odd)
    filed = queue.file("retry", Target(job_ids=("odd", "good")), expected=2)
    queue.act()
    state = queue.state(filed)
    assert (state.phase, state.counts.done, state.counts.skipped) == (Phase.FINISHED, 1, 1)
    page = queue.requests.list_outcomes(filed.request.id)
    results = {(outcome.result, outcome.reason) for outcome in page.outcomes}
    assert results == {("done", ""), ("skipped", MALFORMED)}
    assert queue.job("odd") == odd
    assert queue.job("good")["status"] == "queued"


def test_long_status_of_a_skipped_job_is_cut_in_its_reason(queue: ActingQueue) -> None:
    queue.add("odd")
    queue.jobs.update_one({}, {"$set": {"status": "x" * 1_000}})
    filed = queue.file("retry", "odd")
    queue.act()
    reason = f"it is {1_000 * 'x'}"[:200]
    assert queue.outcomes(filed) == {"odd": ("skipped", reason)}


def test_change_that_the_database_refuses_is_skipped_with_its_error(queue: ActingQueue) -> None:
    """Catches a job of nearly 16 MB, which the change makes too large, that is tried forever."""
    queue.add("full", "dlq")
    queue.add("good", "dlq")
    queue.jobs.update_one({"jobId": "full"}, {"$set": {"payload": ""}})
    size = queue.jobs.aggregate(
        [{"$match": {"jobId": "full"}}, {"$project": {"size": {"$bsonSize": "$$ROOT"}}}]
    ).next()["size"]
    queue.jobs.update_one(
        {"jobId": "full"}, {"$set": {"payload": "x" * (MAX_DOCUMENT_BYTES - size)}}
    )
    filed = queue.file("retry", Target(job_ids=("full", "good")), expected=2)
    queue.act()
    assert queue.state(filed).phase == Phase.FINISHED
    assert queue.outcomes(filed) == {
        "full": ("skipped", REFUSED.format(error=DOCUMENT_TOO_LARGE)),
        "good": ("done", ""),
    }
