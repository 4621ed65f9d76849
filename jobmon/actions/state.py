"""The state of a request, concluded from its records."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from jobmon.actions.records import Decision, Progress, Record, Result
from jobmon.actions.request import ActionRequest
from jobmon.store.mapping import Document

# How long a request waits for its approval, and how long it can be paused.
MAX_APPROVAL_WAIT = timedelta(hours=24)
MAX_PAUSE = timedelta(days=7)
# A request that is older expires, even while it runs: the actor does not read it any more.
MAX_AGE = MAX_APPROVAL_WAIT + MAX_PAUSE + timedelta(days=1)
_TOO_OLD = f"It was filed more than {MAX_AGE.days} days ago."
_PAUSED_TOO_LONG = f"It was paused for more than {MAX_PAUSE.days} days."


class Phase(StrEnum):
    """The phase of a request."""

    AWAITING_APPROVAL = "awaiting_approval"
    WAITING = "waiting"  # for an actor
    RUNNING = "running"
    PAUSED = "paused"  # by a person, even before it runs, or interrupted by the actor
    STOPPING = "stopping"  # it stops after the present batch
    FINISHED = "finished"
    STOPPED = "stopped"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REFUSED = "refused"  # by the actor, with the reason


FINAL_PHASES = (Phase.FINISHED, Phase.STOPPED, Phase.REJECTED, Phase.EXPIRED, Phase.REFUSED)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers of jobs or types with each result so far."""

    done: int = 0
    skipped: int = 0
    possible: int = 0  # in a dry run

    @property
    def total(self) -> int:
        return self.done + self.skipped + self.possible

    def dump(self) -> dict[str, int]:
        """The stored form: the counts by result."""
        return {
            Result.DONE.value: self.done,
            Result.SKIPPED.value: self.skipped,
            Result.POSSIBLE.value: self.possible,
        }

    def add(self, results: Iterable[str]) -> "Counts":
        """The counts with these results added; `self` is not changed."""
        added = Counter(results)
        return Counts.load({name: count + added[name] for name, count in self.dump().items()})

    @classmethod
    def load(cls, counts: Mapping[str, int]) -> "Counts":
        """The counts that `dump` stored; a missing count is 0."""
        return cls(**{result.value: int(counts.get(result.value, 0)) for result in Result})


@dataclass(frozen=True, kw_only=True)
class ActionState:
    """A request with its phase; `reason` is why it is paused, expired, rejected or refused.

    `progress_at`: when the actor claimed it or ended its last batch; None before the claim, and
    when the request is over. `history`: its records in order of time, without intents and batches.
    """

    request: ActionRequest
    phase: Phase
    reason: str = ""
    counts: Counts = Counts()
    claimed_at: datetime | None = None
    progress_at: datetime | None = None
    ended_at: datetime | None = None
    history: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the actor will do nothing more for it."""
        return self.phase in FINAL_PHASES

    @property
    def expected(self) -> int:
        """The number of jobs or types that the person confirmed."""
        return self.request.expected


def conclude_state(
    request: ActionRequest,
    stored: Iterable[Document],
    last_batch: Document | None,
    now: datetime,
) -> ActionState:
    """The state of a request at `now`.

    `stored`: its records in order of time, without intents and batches. `last_batch`: its newest
    batch record, required only while it runs.
    """
    history = tuple(Record.load(document) for document in stored)
    first_records = {record.kind: record for record in reversed(history)}
    counts, progress_at = Counts(), None
    claimed = first_records.get(Progress.CLAIMED)
    finished = first_records.get(Progress.FINISHED)
    if finished is not None:
        counts = Counts.load(finished.details["counts"])
    elif last_batch is not None:
        counts, progress_at = Counts.load(last_batch["counts"]), last_batch["at"]
    elif claimed is not None:
        progress_at = claimed.at
    phase, reason, ended_at = _conclude_phase(request, history, first_records, now)
    if ended_at is None and now > (until := request.at + MAX_AGE):
        phase, reason, ended_at = Phase.EXPIRED, _TOO_OLD, until
    return ActionState(
        request=request,
        phase=phase,
        reason=reason,
        counts=counts,
        claimed_at=None if claimed is None else claimed.at,
        progress_at=progress_at if ended_at is None else None,
        ended_at=ended_at,
        history=history,
    )


def _conclude_phase(
    request: ActionRequest,
    history: Sequence[Record],
    first_records: Mapping[Decision | Progress, Record],
    now: datetime,
) -> tuple[Phase, str, datetime | None]:
    """The phase, its reason, and since when the request is over (None if it is not)."""
    if (finished := first_records.get(Progress.FINISHED)) is not None:
        return Phase(finished.details["phase"]), finished.reason, finished.at
    if (expired := first_records.get(Progress.EXPIRED)) is not None:
        return Phase.EXPIRED, expired.reason, expired.at
    is_claimed = Progress.CLAIMED in first_records
    if (stopped := first_records.get(Decision.STOPPED)) is not None:
        return (Phase.STOPPING, "", None) if is_claimed else (Phase.STOPPED, "", stopped.at)
    if not is_claimed:
        if (rejected := first_records.get(Decision.REJECTED)) is not None:
            return Phase.REJECTED, rejected.reason, rejected.at
        return _conclude_waiting(request, history, now)
    return _conclude_running(history, now)


def _conclude_waiting(
    request: ActionRequest, history: Sequence[Record], now: datetime
) -> tuple[Phase, str, datetime | None]:
    starts_at = request.at
    if request.needs_approval:
        approval = find_approval(request, history)
        if approval is None:
            until = request.at + MAX_APPROVAL_WAIT
            if now > until:
                return Phase.EXPIRED, "Nobody approved it within a day.", until
            return Phase.AWAITING_APPROVAL, "", None
        starts_at = approval.at
    last_record = _find_last_pause_or_resumption(history)
    if last_record is not None:
        if last_record.kind is Decision.PAUSED:
            return _conclude_paused(last_record, now)
        starts_at = max(starts_at, last_record.at)
    until = starts_at + timedelta(seconds=request.valid_s)
    if now > until:
        return Phase.EXPIRED, f"No actor took it within {request.valid_s // 60} minutes.", until
    return Phase.WAITING, "", None


def _conclude_running(
    history: Sequence[Record], now: datetime
) -> tuple[Phase, str, datetime | None]:
    last_record = _find_last_pause_or_resumption(history)
    if last_record is None or last_record.kind is Decision.RESUMED:
        return Phase.RUNNING, "", None
    return _conclude_paused(last_record, now)


def _conclude_paused(pause: Record, now: datetime) -> tuple[Phase, str, datetime | None]:
    until = pause.at + MAX_PAUSE
    if now > until:
        return Phase.EXPIRED, _PAUSED_TOO_LONG, until
    return Phase.PAUSED, pause.reason, None


def _find_last_pause_or_resumption(history: Sequence[Record]) -> Record | None:
    """The last record that pauses, resumes or interrupts the request."""
    kinds = (Decision.PAUSED, Decision.RESUMED, Progress.INTERRUPTED)
    return next((record for record in reversed(history) if record.kind in kinds), None)


def find_approval(request: ActionRequest, history: Iterable[Record]) -> Record | None:
    """The first approval by another person than the one who filed the request; None without one."""
    approvals = (record for record in history if record.kind is Decision.APPROVED)
    valid_approvals = (
        record for record in approvals if record.by and record.by.subject != request.by.subject
    )
    return next(valid_approvals, None)
