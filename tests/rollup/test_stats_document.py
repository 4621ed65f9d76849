"""The stored stats: catches numbers that contradict each other."""

from collections import Counter

import pytest

from jobmon.rollup.stats_document import dump_stats, load_stats
from jobmon.store.stats import QueueHealth

from ..conftest import NOW


@pytest.mark.parametrize(("due", "expected"), [(9, 3), (2, 2), (0, 0), (None, None)])
def test_no_more_jobs_are_due_than_wait(due: int | None, expected: int | None) -> None:
    """Catches health from before the counts: jobs that have started since then still count."""
    counts = Counter({("queued", "mail"): 2, ("failed", "sms"): 1, ("leased", "mail"): 6})
    health = QueueHealth(
        estimated_total=9,
        expired_leases=0,
        due=due,
        scheduled=0,
        oldest_queued=None,
        oldest_queued_by_type={},
    )
    assert load_stats(dump_stats(counts, health, NOW)).health.due == expected
