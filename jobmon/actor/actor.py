"""Takes the requests for one queue and carries them out: a batch of each request in turn."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pymongo.errors import OperationFailure

from jobmon.actions.catalog import RequestError
from jobmon.actions.records import ACTOR, ACTOR_LEASES, ActionRecords, Progress
from jobmon.actions.request import ActionRequest
from jobmon.actions.requests import read_states
from jobmon.actions.state import MAX_AGE, ActionState, Counts, Phase
from jobmon.actions.support import find_support
from jobmon.actions.target import TargetKind
from jobmon.actor.batches import BatchRunner, OverLimitError, Recovery
from jobmon.actor.job_changes import make_job_changes
from jobmon.actor.targets import TargetReader
from jobmon.actor.type_pauses import change_types, examine_types
from jobmon.collector.leader import LeaderLease, LeaseLostError
from jobmon.humanize import count
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, state_database
from jobmon.store.connection import Connection
from jobmon.store.failures import Failure, classify_failure, is_unauthorized, name_error
from jobmon.store.filter import RefusedFilterError

log = logging.getLogger(__name__)

POLL_S = 0.5
BATCH = 100  # jobs
_LEASE_RETRY_S = 1.0
# Jobs can begin to match a filter after the person has confirmed their number. The request may
# change so many more jobs: this share of the confirmed number, but at least `_MIN_EXTRA` jobs.
_EXTRA_SHARE, _MIN_EXTRA = 0.1, 10
OVER_LIMIT = "More jobs match than the {expected:,} that were confirmed."
OVER_APPROVED = "More jobs match than the {expected:,} that were approved: file a new request."
OVER_APPROVAL = "More than {limit:,} jobs match, which need an approval: file a new request."
NO_RIGHT = (
    "The actor's database user lacks a right ({error}): `jobmon check` names it, and `jobmon init "
    "--actor` grants it. Then resume the request."
)
QUERY_FAILED = "A query for its next jobs failed ({error}): resume it, or use another filter."
NO_ACTOR = "No actor made progress for {minutes} minutes."


class Actor:
    """The actor of one queue. If several processes act on a queue, only the lease holder works.

    The user of `connection` needs the right to write the watched jobs; `own` is the connection to
    jobmon's own database. `on_step` is for tests: it is called after each step of a batch with the
    step's name.
    """

    def __init__(
        self,
        connection: Connection,
        own: Connection,
        redactor: Redactor,
        stop: threading.Event,
        *,
        holder: str,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._settings = connection.settings
        self._stop = stop
        self._on_step = on_step
        self._support = find_support(connection.settings)
        database = OwnDatabase(state_database(own), connection.queue_key)
        self._records = ActionRecords(database, self._settings.actions_retention_days)
        self._reader = TargetReader(connection, self._records, self._support, redactor)
        self._lease = LeaderLease(database, holder, name=ACTOR, collection=ACTOR_LEASES)
        self._over: set[str] = set()  # ids of requests for which nothing remains to do

    def run(self) -> None:
        """Work until `stop` is set; raises PyMongoError."""
        try:
            while not self._stop.is_set():
                if not self._lease.take():
                    self._stop.wait(_LEASE_RETRY_S)
                    continue
                self._over.clear()
                try:
                    self.recover_all()
                    while not self._stop.is_set():
                        if not self.run_round():
                            self._stop.wait(POLL_S)
                except LeaseLostError:
                    log.warning("another actor works on this queue now")
        finally:
            if self._stop.is_set():
                self.release()

    def release(self) -> None:
        """End the lease now, so that another actor can take it at once."""
        self._lease.end()

    def run_round(self) -> bool:
        """Do the next step of each open request, the oldest first; False if all of them wait.

        Raises LeaseLostError if another actor has the lease, and PyMongoError.
        """
        has_worked = False
        self._lease.renew()
        for state in self._list_open():
            if self._stop.is_set():
                break
            self._lease.renew()
            started = time.monotonic()
            job_count = self._advance(state)
            has_worked = has_worked or job_count is not None
            if job_count:
                min_duration_s = job_count / self._settings.actions_per_second
                self._stop.wait(max(0.0, min_duration_s - (time.monotonic() - started)))
        return has_worked

    def _list_open(self) -> list[ActionState]:
        """The requests of the last `MAX_AGE` that are not known to be over, the oldest first."""
        cursors = self._records.list_requested(datetime.now(UTC) - MAX_AGE)
        ids = [cursor.request_id for cursor in cursors]
        open_ids = [request_id for request_id in reversed(ids) if request_id not in self._over]
        states = read_states(self._records, open_ids, self._settings)
        readable = {state.request.id for state in states}
        self._over.update(request_id for request_id in open_ids if request_id not in readable)
        self._over.intersection_update(ids)
        return states

    def recover_all(self) -> None:
        """Examine the unfinished batches of an earlier actor, before a new batch begins."""
        for state in self._list_open():
            if state.claimed_at is None or not self._has_batches(state.request):
                continue
            if state.phase is Phase.RUNNING and not self._is_stale(state):
                with self._interrupting_without_right(state):
                    self._make_runner(state.request).recover(Recovery.COMPLETE)
            elif state.phase in (Phase.RUNNING, Phase.PAUSED):
                with _suppressing_missing_right():
                    self._make_runner(state.request).recover(Recovery.WAIT)

    def _advance(self, state: ActionState) -> int | None:
        """Do the next step of a request; returns how many jobs got an outcome in it.

        None if the request waits for a person or is over.
        """
        match state.phase:
            case Phase.WAITING:
                return self._claim(state)
            case Phase.RUNNING:
                return self._continue(state)
            case Phase.STOPPING:
                self._stop_request(state.request)
                return 0
            case Phase.AWAITING_APPROVAL | Phase.PAUSED:
                return None
            case Phase.EXPIRED:
                is_recorded = any(record.kind is Progress.EXPIRED for record in state.history)
                if state.request.id not in self._over and not is_recorded:
                    fields = {"reason": state.reason}
                    self._records.add_progress(state.request.id, Progress.EXPIRED, fields)
                    log.warning("request %s expired: %s", state.request.id, state.reason)
        self._over.add(state.request.id)
        return None

    def _claim(self, state: ActionState) -> int | None:
        request = state.request
        fields = {"copy": request.dump(), "actor": self._lease.holder}
        if not self._records.add_progress(request.id, Progress.CLAIMED, fields):
            return None
        log.info(
            "request %s: %s for %s by %s",
            request.id,
            request.action,
            count(request.expected, "type" if request.target.types else "job"),
            request.by.subject,
        )
        return self._continue(state)

    def _continue(self, state: ActionState) -> int | None:
        request = state.request
        try:
            self._support.require(request.action)  # settings can change after the claim
        except RequestError as error:
            self._finish(request, Phase.REFUSED, str(error))
            return 0
        if self._is_stale(state):
            reason = NO_ACTOR.format(minutes=_find_idle_time(state) // timedelta(minutes=1))
            self._interrupt(state, reason)
            return None
        with self._interrupting_without_right(state):
            if request.target.kind is not TargetKind.TYPES:
                return self._run_batch(state)
            outcomes = change_types(self._connection, self._records, request)
            self._records.add_outcomes(request.id, outcomes)
            self._finish(request, Phase.FINISHED)
            return 0
        return None

    @contextmanager
    def _interrupting_without_right(self, state: ActionState) -> Iterator[None]:
        """Interrupt a request whose changes the actor's user may not make: a retry cannot help."""
        try:
            yield
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            self._interrupt(state, NO_RIGHT.format(error=name_error(error)))

    def _run_batch(self, state: ActionState) -> int | None:
        """Run the next batch of a request; returns the same as `_advance`."""
        request = state.request
        runner = self._make_runner(request)
        last_batch = runner.recover(Recovery.COMPLETE)
        if last_batch is not None and last_batch["position"] is None:
            self._finish(request, Phase.FINISHED)
            return 0
        counts = Counts() if last_batch is None else Counts.load(last_batch["counts"])
        size = min(BATCH, self._settings.actions_per_second)
        limit, reason = self._find_limit(state)
        remaining = None if limit is None else limit - counts.done - counts.possible
        try:
            batch_end = runner.run(last_batch, size, remaining)
        except OverLimitError:
            self._interrupt(state, reason, is_over_limit=True)
            return None
        except (RefusedFilterError, RequestError) as error:
            self._finish(request, Phase.REFUSED, str(error))
            return 0
        except OperationFailure as error:
            if classify_failure(error) not in (None, Failure.TOO_SLOW, Failure.TOO_LARGE):
                raise
            # Tried again and again, it would hold up all newer requests.
            self._interrupt(state, QUERY_FAILED.format(error=name_error(error)))
            return None
        if batch_end["position"] is None:
            self._finish(request, Phase.FINISHED)
        return Counts.load(batch_end["counts"]).total - counts.total

    def _stop_request(self, request: ActionRequest) -> None:
        """Record what an earlier actor changed without recording it, and the end of the request."""
        if self._has_batches(request):
            with _suppressing_missing_right():
                self._make_runner(request).recover(Recovery.STOP)
        elif self._support.has(request.action):
            outcomes = examine_types(self._connection, self._records, request)
            self._records.add_outcomes(request.id, outcomes)
        self._finish(request, Phase.STOPPED)

    def _has_batches(self, request: ActionRequest) -> bool:
        """Whether a request has batches that this actor can examine: the queue has its action.

        A request for types has none. After a change of settings the queue can lack the action of a
        claimed request.
        """
        return request.target.kind is not TargetKind.TYPES and self._support.has(request.action)

    def _find_limit(self, state: ActionState) -> tuple[int | None, str]:
        """The limit of jobs that the request may change, and its reason; (None, "") without one."""
        request, max_unapproved = state.request, self._settings.actions_approval_above
        is_lifted = any(
            record.kind is Progress.INTERRUPTED and record.details.get("isOverLimit")
            for record in state.history
        )
        limits: list[tuple[int, str]] = []
        # Who resumes a request cannot extend what another person has approved.
        has_limit = request.needs_approval or not is_lifted
        if request.target.kind is TargetKind.FILTER and has_limit:
            extra = max(_MIN_EXTRA, int(request.expected * _EXTRA_SHARE))
            reason = OVER_APPROVED if request.needs_approval else OVER_LIMIT
            limits.append((request.expected + extra, reason.format(expected=request.expected)))
        if max_unapproved is not None and not request.needs_approval and not request.dry_run:
            limits.append((max_unapproved, OVER_APPROVAL.format(limit=max_unapproved)))
        return min(limits, default=(None, ""))

    def _is_stale(self, state: ActionState) -> bool:
        """Whether a claimed request has had no new record for longer than it is valid.

        Then a person has to resume it.
        """
        max_idle = timedelta(seconds=state.request.valid_s)
        return state.claimed_at is not None and _find_idle_time(state) > max_idle

    def _interrupt(self, state: ActionState, reason: str, *, is_over_limit: bool = False) -> None:
        fields = {"reason": reason, "isOverLimit": is_over_limit}
        request_id, newest = state.request.id, state.history[-1].at
        self._records.add_progress(request_id, Progress.INTERRUPTED, fields, after=newest)
        log.warning("request %s is interrupted: %s", request_id, reason)

    def _finish(self, request: ActionRequest, phase: Phase, reason: str = "") -> None:
        counts = Counts.load(self._records.count_outcomes(request.id))
        fields = {"phase": phase.value, "reason": reason, "counts": counts.dump()}
        self._records.add_progress(request.id, Progress.FINISHED, fields)
        self._over.add(request.id)
        log.info(
            "request %s is %s: %d done, %d skipped%s",
            request.id,
            phase,
            counts.done,
            counts.skipped,
            f" ({reason})" if reason else "",
        )

    def _make_runner(self, request: ActionRequest) -> BatchRunner:
        changes = make_job_changes(self._connection, self._records, self._support, request)
        return BatchRunner(self._records, self._reader, changes, request, self._end_step)

    def _end_step(self, step: str) -> None:
        """Keep the lease during a slow batch; raises LeaseLostError if another actor has it."""
        self._on_step(step)
        self._lease.renew()


def _find_idle_time(state: ActionState) -> timedelta:
    """The time since the last record of a request: of a decision, of a batch, or another one."""
    times = [record.at for record in state.history]
    times += [state.progress_at] if state.progress_at else []
    return datetime.now(UTC) - max(times)


@contextmanager
def _suppressing_missing_right() -> Iterator[None]:
    """Leave what an earlier actor began, if the database user lacks the right to complete it."""
    try:
        yield
    except OperationFailure as error:
        if not is_unauthorized(error):
            raise
        log.warning("an earlier batch is not completed: %s", name_error(error))
