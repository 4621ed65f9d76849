"""The words of the contract: catches a status that is missing or misspelt."""

from jobmon.domain import JobStatus


def test_the_statuses_are_the_contracts() -> None:
    assert [*JobStatus] == ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]
