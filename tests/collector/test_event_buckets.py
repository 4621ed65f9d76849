"""The minutes that are counted from changes: catches a minute that was not stored, but is
treated as stored."""

from typing import Any

from pymongo.database import Database

from jobmon.collector.event_buckets import EventBuckets
from jobmon.rollup.buckets import Tally, load_bucket_tallies
from jobmon.rollup.documents import BUCKETS, OwnDatabase

from ..conftest import NOW


def test_minute_that_could_not_be_stored_is_stored_with_the_next_change(
    database: Database[dict[str, Any]],
) -> None:
    """Catches a collector that reports a lost lease after a document that BSON cannot hold."""
    rollups = OwnDatabase(database, "q")
    buckets = EventBuckets(rollups)
    # No integer of BSON holds 2**70.
    for position, enqueued, stored in (("1", 2**70, []), ("2", 3 - 2**70, [3]), ("3", 4, [7])):
        buckets.add(NOW, "mail", Tally(enqueued=enqueued), position)
        buckets.write(position)
        documents = list(rollups[BUCKETS].find())
        assert [load_bucket_tallies(document)["mail"].enqueued for document in documents] == stored
    assert documents[0]["position"] == "3"
