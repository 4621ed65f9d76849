"""Builds the request for an action that tests and benchmarks send to an actor."""

from jobmon.actions.request import ActionRequest, Person
from jobmon.actions.target import Target
from jobmon.store.filter import JobFilter


def retry_all_dead(count: int) -> ActionRequest:
    """A request by ada to retry all dead-lettered jobs; she confirmed that there are `count`."""
    return ActionRequest(
        action="retry",
        target=Target(job_filter=JobFilter(statuses=("dlq",))),
        by=Person(subject="ada"),
        expected=count,
        reason="the provider is back",
    )
