"""The facts that explain a job: the values in its document, and facts about its queue."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.domain import WAITING_STATUSES, JobStatus
from jobmon.rollup.series import Activity, History
from jobmon.store.lease_order import Place
from jobmon.store.paused_types import TypePause

_NOT_READ = Missing(reason="it was not read")


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """The values in a job's document; dates are aware. A missing value is None.

    `job_type` is the label of its type. `started_at` is the start of the attempt that runs,
    `attempt` the number of attempts so far. `unreadable`: the fields that should hold a date but
    hold another value; they are None. `unknown`: the fields that no job has (`KnownFields`).
    `has_shipped_rules`: the status follows from the rules of a shipped profile. `assumed_lease` is
    how long a lease lasts by the profile, if the documents do not have its end.
    """

    status: str | None
    job_type: str = "null"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    next_run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_expires_at: datetime | None = None
    worker: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    is_recurring: bool = False
    unreadable: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    has_shipped_rules: bool = False
    assumed_lease: timedelta | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether it waits, and its nextRunAt is not in the future or is missing or unknown."""
        is_early = self.next_run_at is not None and self.next_run_at > now
        return self.status in WAITING_STATUSES and not is_early

    @property
    def due_since(self) -> datetime | None:
        """When it is or was due: nextRunAt, else its creation if it never ran; None if unknown."""
        if "nextRunAt" in self.unknown | self.unreadable:
            return None
        is_new = self.status == JobStatus.QUEUED and not self.attempt and not self.is_recurring
        return self.next_run_at or (self.created_at if is_new else None)


@dataclass(frozen=True, kw_only=True)
class QueueFacts:
    """Facts about a job's queue; a text or a `Missing` is the reason why a fact is unknown.

    `evidence` has the stats, the blocks and the newest activity by type; `recent` is the last three
    minutes by type. `hour_by_minute` and `day_by_hour` are of the job's type. `runs`: for periods
    of different length, the shortest first, the words for the period and the activity of the job's
    type. `pause`: the pause of its type; None if the type is not paused. `has_other_pauses`:
    whether other types are paused.
    """

    place: Place | str = "it was not counted"
    evidence: Evidence | Missing = _NOT_READ
    recent: History[str] | Missing = _NOT_READ
    hour_by_minute: History[datetime] | Missing = _NOT_READ
    day_by_hour: History[datetime] | Missing = _NOT_READ
    runs: tuple[tuple[str, Activity], ...] = ()
    pause: TypePause | None = None
    has_other_pauses: bool = False
