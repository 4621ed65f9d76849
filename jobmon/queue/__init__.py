"""The job queue for producers and workers: enqueue, lease, report.

Every change of a job is one atomic, conditional update. So two workers never hold leases of one job
at the same time, and a report from a worker that lost its lease changes nothing. The attempt's
document is written right after the job's; if the process crashes between the two, `recover` writes
the attempt's end. The web service and the collector never import this package.

    queue = JobQueue(MongoClient(uri).jobmon)
    queue.create_indexes()
    queue.enqueue("email.send", {"to": "ada@example.com"}, created_by="ada")
    if lease := queue.lease("worker-1"):
        queue.report_success(lease)

Times are from the worker's own clock, in UTC. So the clocks of all workers must agree to within a
small part of a lease.
"""

from jobmon.queue.changes import JobChange, RefusedActionError, RetryPolicy
from jobmon.queue.job_queue import JobQueue, Lease, LeaseLostError

__all__ = [
    "JobChange",
    "JobQueue",
    "Lease",
    "LeaseLostError",
    "RefusedActionError",
    "RetryPolicy",
]
