"""The stats of a queue: catches a type without jobs whose count is shown as unknown."""

import pytest

from jobmon.store.stats import QueueHealth, QueueStats

from ..conftest import NOW

NO_HEALTH = QueueHealth(
    estimated_total=0,
    expired_leases=None,
    due=None,
    scheduled=None,
    oldest_queued=None,
    oldest_queued_by_type={},
)


@pytest.mark.parametrize(
    ("counted_type", "jobs_of_idle_type"),
    [("sms", {}), ("(other)", None)],
    ids=["all types are counted by name", "some types are counted as (other)"],
)
def test_type_without_jobs_has_no_count_only_if_its_jobs_may_be_in_other(
    counted_type: str, jobs_of_idle_type: dict[str, int] | None
) -> None:
    counts = {("queued", "mail"): 1, ("queued", counted_type): 2}
    stats = QueueStats(as_of=NOW, source="live", counts=counts, total=3, health=NO_HEALTH)
    assert stats.type_counts_for(["mail", "idle", "(other)"]) == {
        "mail": {"queued": 1},
        "idle": jobs_of_idle_type,
        "(other)": {"queued": 2},
    }
