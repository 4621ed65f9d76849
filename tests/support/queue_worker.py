"""A queue worker in its own process: `python -m tests.support.queue_worker URI WORKER-ID`."""

import random
import sys
import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from jobmon.queue import JobQueue, LeaseLostError, RetryPolicy

RETRY = RetryPolicy(base_ms=50, cap_ms=200)
LEASE_MS = 2_000


def run_worker(uri: str, worker_id: str) -> None:
    """Lease and report jobs until this process is killed; go on if the database fails."""
    client = MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=1_000)
    queue = JobQueue(client.get_default_database(), retry=RETRY)
    recover_at = 0.0
    while True:
        try:
            if time.monotonic() > recover_at:
                recover_at = time.monotonic() + 0.5
                queue.recover()
            lease = queue.lease(worker_id, lease_ms=LEASE_MS)
            if lease is None:
                time.sleep(0.1)
                continue
            time.sleep(random.uniform(0.0, 0.02))
            if random.random() < 0.2:
                queue.report_failure(lease, "ETIMEDOUT", "no answer")
            else:
                queue.report_success(lease)
        except LeaseLostError:
            continue
        except PyMongoError:
            time.sleep(0.1)


if __name__ == "__main__":
    run_worker(*sys.argv[1:])
