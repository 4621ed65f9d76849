"""The names that job queues give to their fields and statuses, by jobmon's names.

Names are written with lower-case letters and digits only: `next_run_at` is `nextrunat`, and
`lock.until` is `lockuntil`.
"""

import re
from collections.abc import Iterable

from jobmon.domain import JobStatus

_UNIT = re.compile("(?:ms|millis|secs?|ts|timestamp|utc|iso|date|time)$")


def normalize(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Documents that group the dates of a job: `times.created`.
_DATE_GROUPS = _split("ts time times timeinfo timing timestamps dates audit schedule execution")
# jobmon proposes the field with the first of these names that the documents have.
STATUS = _split(
    "status state jobstatus jobstate taskstatus taskstate phase stage statename currentstate "
    "currentstatus"
)
DATES = {
    "createdAt": _split(
        "createdat created createdon datecreated creationdate createtime creationtime "
        "insertedat enqueuedat queuedat submittedat addedat enqueued queued submitted"
    ),
    "updatedAt": _split("updatedat updated updatedon lastupdated lastmodified modifiedat modified"),
    "nextRunAt": _split(
        "nextrunat nextrun runat runafter scheduledat scheduledfor scheduledtime "
        "scheduleat schedulefor notbefore availableat visibleat visible processafter startafter "
        "delayuntil delayeduntil waituntil nextattemptat nextattempt nexttry nextretry "
        "nextretryat retryat dueat due eta executeat executeafter triggerat triggertime "
        "nextfiretime delay"
    ),
    "startedAt": _split(
        "startedat started startedon lastrunat pickedat pickedupat processedon processingstartedat "
        "startedrunningat beganat began laststartedat laststarted lastattemptat dequeuedat "
        "dequeued"
    ),
    "finishedAt": _split(
        "finishedat finished finishedon completedat completed completedon endedat ended doneat "
        "done processedat lastfinishedat endtime publishedat sentat"
    ),
    "leaseExpiresAt": _split(
        "leaseexpiresat leaseuntil leaseexpires leaseexpiry leasedeadline lockeduntil lockuntil "
        "lockexpiresat lockexpires lockexpiry claimeduntil reserveduntil visibilitydeadline"
    ),
}
# The time when a worker took a job, without the end of the lease.
LEASE_STARTS = _split("lockedat leasedat claimedat reservedat acquiredat lockat fetchedat")
WORKERS = _split(
    "leasedby lockedby workerid workername worker claimedby reservedby takenby processedby "
    "lockowner leaseowner lockby leaseby lockedworker processor consumer runner"
)
ATTEMPT_COUNTS = _split(
    "attemptcount attempts attempt attemptsmade numattempts attemptnumber tries trycount runcount"
)
RETRY_COUNTS = _split("retries retrycount numretries retrynumber failcount failures failurecount")
REMAINING_COUNTS = _split(
    "retriesleft retriesremaining remainingretries attemptsleft attemptsremaining remainingattempts"
)
MAX_ATTEMPTS = _split("maxattempts maxtries maxruns attemptsmax attemptlimit")
MAX_RETRIES = _split("maxretries retrylimit retriesmax")
PRIORITIES = _split("priority prio")
ERRORS = _split(
    "lasterror error err errormessage lasterrormessage failreason failurereason failedreason "
    "exception errordetail excinfo lastfailreason"
)
TYPES = _split(
    "type jobtype tasktype kind jobkind jobname taskname name task job handler action command "
    "function method funcname functionname handlername eventtype topic queue queuename jobsignature"
)
PAYLOADS = _split(
    "payload data args arguments params parameters input inputs body message jobdata jobasjson"
)
_OWNERS = _split("createdby ownerid owner userid user accountid customerid requestedby")
ATTEMPT_ARRAYS = _split("attempts runs history log logs executions")

# Words in the name of a collection of jobs.
COLLECTION_WORDS = re.compile("jobs?|queues?|tasks?", re.IGNORECASE)

_WORDS = {
    JobStatus.QUEUED: (
        "queued pending waiting wait new ready scheduled enqueued created todo delayed submitted "
        "available idle inqueue notstarted"
    ),
    JobStatus.LEASED: (
        "leased running active processing inprogress started working executing locked reserved "
        "claimed taken busy acquired fetched dequeued inflight"
    ),
    JobStatus.SUCCEEDED: (
        "succeeded success successful done completed complete finished ok processed sent published"
    ),
    JobStatus.FAILED: (
        "retry retrying retryable retryscheduled willretry waitingretry waitingforretry "
        "retrypending pendingretry"
    ),
    JobStatus.DLQ: (
        "dlq dead deadletter deadlettered deadqueue exhausted discarded abandoned buried "
        "permanentlyfailed failedpermanently gaveup"
    ),
    JobStatus.CANCELLED: "cancelled canceled cancel aborted revoked killed skipped deleted",
}
# Words for a failed job that do not show whether the program tries it again.
FAILED_WORDS = _split("failed failure fail error errored timedout timeout expired stalled")
STATUS_WORDS = {word: status.value for status, words in _WORDS.items() for word in _split(words)}


def find_path(names: Iterable[str], paths: Iterable[str], *, are_dates: bool = False) -> str | None:
    """The path with the first of these names; of several paths with that name, the shallowest.

    With `are_dates`, a name may end with its unit, and a document may group the dates: `run_at_ms`,
    `times.created`.
    """
    ordered = sorted(paths, key=lambda path: (path.count("."), path))
    by_name: dict[str, str] = {}
    for path in ordered:
        by_name.setdefault(normalize(path), path)
    for path in ordered if are_dates else ():
        group, _, leaf = path.rpartition(".")
        by_name.setdefault(_UNIT.sub("", normalize(path)), path)
        if normalize(group) in _DATE_GROUPS:
            by_name.setdefault(_UNIT.sub("", normalize(leaf)), path)
    return next((by_name[name] for name in names if name in by_name), None)


def find_owner(paths: Iterable[str], payload: str | None) -> str | None:
    """The path of a field that may hold a job's owner: top-level, or in the payload."""
    inner = f"{payload}." if payload else None
    owners: dict[str, str] = {}
    for path in sorted(paths, key=len):
        if "." not in path or (inner and path.startswith(inner)):
            owners.setdefault(normalize(path.removeprefix(inner or "")), path)
    return next((owners[name] for name in _OWNERS if name in owners), None)
