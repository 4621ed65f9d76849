"""The answers about requests for actions, and the functions that fill their fields."""

from datetime import datetime
from typing import Any

from marshmallow import fields

from jobmon.actions.catalog import ACTIONS
from jobmon.actions.preview import SAMPLE_SIZE
from jobmon.actions.records import HISTORY_KINDS, Result
from jobmon.actions.request import ActionRequest
from jobmon.actions.requests import JobOutcome
from jobmon.actions.state import ActionState, Phase
from jobmon.actions.target import Target, TargetKind
from jobmon.api.answers import (
    Answer,
    JobSummary,
    array,
    boolean,
    integer,
    nested,
    string,
)
from jobmon.api.fields import DateOrText, RedactedJson, Text
from jobmon.store.bson_json import to_iso
from jobmon.store.filter import JobFilter

# By phase: the decisions that a person can take. A phase without an entry has none.
DECISIONS: dict[Phase, tuple[str, ...]] = {
    Phase.AWAITING_APPROVAL: ("approve", "reject", "stop"),
    Phase.WAITING: ("pause", "stop"),
    Phase.RUNNING: ("pause", "stop"),
    Phase.PAUSED: ("resume", "stop"),
}
_ACTION = "The action."


class PersonAnswer(Answer):
    """Who requested or decided something."""

    subject = string("The `sub` of the token; for a command in a terminal, the name of the user.")
    role = string("The roles of the token, or `terminal`.", nullable=True)
    address = string("The IP address of the client.", nullable=True)


class ActionTarget(Answer):
    """The jobs or types that a request is for."""

    kind = string("How the jobs or types were chosen.", enum=list(TargetKind))
    ids = array(fields.String(), "Ids of jobs, or null.", nullable=True)
    filter = RedactedJson("The filters by parameter name, or null.")
    types = array(fields.String(), "Types of jobs, or null.", nullable=True)
    requestId = string("For `undo`: the earlier request; otherwise null.", nullable=True)


class ActionRecord(Answer):
    """A step of a request: what a person decided, or what the actor did."""

    kind = string("The step.", enum=list(HISTORY_KINDS))
    at = DateOrText("When it was recorded.")
    by = nested(PersonAnswer, "Who decided; null for the actor.", nullable=True)
    reason = string("Why; may be empty.")


class ActionAnswer(Answer):
    """A request for an action, and its progress."""

    id = string("Id of the request.")
    action = string(_ACTION, enum=list(ACTIONS))
    phase = string(
        "Phase of the request. `waiting`: no actor has begun it. `refused`: an actor could not "
        "carry it out, see `phaseReason`.",
        enum=list(Phase),
    )
    phaseReason = string("Why it is paused, expired, rejected or refused; may be empty.")
    target = nested(ActionTarget, "The jobs or types to change.")
    by = nested(PersonAnswer, "Who filed the request.")
    at = DateOrText("When it was filed.")
    reason = string("Why, as the person wrote it; secrets are replaced.")
    expected = integer("The number of jobs or types that the person confirmed.")
    done = integer("Number of jobs or types that were changed.")
    skipped = integer("Number of jobs or types that were not changed; each outcome has a reason.")
    possible = integer("In a dry run: number of jobs or types that would have been changed.")
    runAt = DateOrText("For `reschedule`: the new time.")
    priority = integer("For `prioritize`: the new priority.", nullable=True)
    isReset = boolean("For `retry`: whether each job gets its original number of attempts again.")
    isDryRun = boolean("Whether it is a dry run: no job is changed.")
    isApprovalNeeded = boolean("Whether another person has to approve it.")
    claimedAt = DateOrText("When an actor began; null before that.")
    progressAt = DateOrText(
        "When the actor last recorded progress; null until the actor begins, and after the end."
    )
    endedAt = DateOrText("When it ended; null before that.")


class ActionWithHistory(ActionAnswer):
    """A request for an action with its history: one row or line of a file."""

    history = array(ActionRecord, "The steps, in order of time.")


class ActionDetail(ActionAnswer):
    """A request for an action with its history, and what the caller may do."""

    isActorRunning = boolean(
        "Whether an actor is running. Without an actor, requests wait, and later expire."
    )
    decisions = array(
        fields.String(),
        "What the caller may do now, such as `stop` or `undo`. Each is the end of a path: "
        "`POST /admin/actions/{action_id}/stop`.",
    )
    history = array(ActionRecord, "The steps, in order of time.")


class ActionListMeta(Answer):
    """Position of a page of requests, and whether an actor is running."""

    next_cursor = string("`cursor` of the next page; null on the last page.", nullable=True)
    is_actor_running = boolean("Whether an actor is running.")


class ActionList(Answer):
    """A page of requests, the newest first."""

    meta = nested(ActionListMeta, "Position of the page.")
    data = array(ActionAnswer, "The requests.")


class ActionPreviewAnswer(Answer):
    """What a request would do now; nothing is stored."""

    action = string(_ACTION, enum=list(ACTIONS))
    text = string("What will be done, in words.")
    warnings = array(fields.String(), "Warnings for the person, as sentences.")
    count = integer("How many jobs or types would be changed now: send it as `expected`.")
    unsuitable = integer(
        "How many of the ids would not be changed; null for a filter or types.", nullable=True
    )
    isReasonNeeded = boolean("Whether the request needs a `reason`.")
    isApprovalNeeded = boolean(
        "Whether another person has to approve the request, because of the number of jobs or types."
    )
    isActorRunning = boolean("Whether an actor is running.")
    expiresAfterMinutes = integer("Minutes that a request waits for an actor; then it expires.")
    sample = array(JobSummary, f"The first jobs that would be changed: at most {SAMPLE_SIZE}.")


class JobOutcomeAnswer(Answer):
    """The outcome of one job or type of a request."""

    jobId = Text(
        "Id of the job; null for a type, and for a job that was found by a filter or for `undo` "
        "but no longer existed.",
        attribute="job_id",
    )
    result = string("The result; `possible` only in a dry run.", enum=list(Result))
    reason = string("Why it was skipped, or why the result is uncertain; otherwise empty.")
    at = DateOrText("When the outcome was recorded.")
    before = RedactedJson("The changed fields with their earlier values; empty if skipped.")
    after = RedactedJson(
        "The same fields with their new values; empty if skipped, and for a deleted job."
    )


class OutcomeListMeta(Answer):
    """Position of a page of outcomes."""

    next_cursor = string("`cursor` of the next page; null on the last page.", nullable=True)


class OutcomeList(Answer):
    """A page of the outcomes of a request."""

    meta = nested(OutcomeListMeta, "Position of the page.")
    data = array(JobOutcomeAnswer, "The outcomes, in order of the jobs' `_id`.")


def format_target(target: Target) -> dict[str, Any]:
    """The fields of an `ActionTarget`."""
    return {
        "kind": target.kind.value,
        "ids": list(target.job_ids) or None,
        "filter": None if target.job_filter is None else list_filters(target.job_filter),
        "types": list(target.types) or None,
        "requestId": target.request_id,
    }


# The fields of `JobFilter` that are parameters of the same name with one value.
_SINGLE_VALUE_FILTERS = (
    *("owner", "error_code", "error_group", "worker", "job_id"),
    *("created_from", "created_to", "finished_from", "finished_to", "due_from", "due_to"),
    *("min_attempts", "priority"),
)


def list_filters(job_filter: JobFilter) -> dict[str, Any]:
    """The filters as parameters of `GET /admin/jobs/queue`, each a text or a list of texts."""
    parameters: dict[str, Any] = {
        "status": list(job_filter.statuses) or None,
        "type": list(job_filter.types) or None,
        "condition": job_filter.condition and job_filter.condition.value,
        **{name: _format_value(getattr(job_filter, name)) for name in _SINGLE_VALUE_FILTERS},
        **{term.field: list(term.texts) for term in job_filter.search},
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _format_value(value: Any) -> str | None:
    if value is None:
        return None
    return to_iso(value) if isinstance(value, datetime) else str(value)


def format_state(state: ActionState) -> dict[str, Any]:
    """The fields of an `ActionAnswer`."""
    request = state.request
    return {
        "id": request.id,
        "action": request.action,
        "phase": state.phase.value,
        "phaseReason": state.reason,
        "target": format_target(request.target),
        "by": request.by,
        "at": request.at,
        "reason": request.reason,
        "expected": request.expected,
        "done": state.counts.done,
        "skipped": state.counts.skipped,
        "possible": state.counts.possible,
        "runAt": request.run_at,
        "priority": request.priority,
        "isReset": request.reset_attempts,
        "isDryRun": request.dry_run,
        "isApprovalNeeded": request.needs_approval,
        "claimedAt": state.claimed_at,
        "progressAt": state.progress_at,
        "endedAt": state.ended_at,
    }


def format_done(
    outcome: JobOutcome, request: ActionRequest, *, shows_person: bool
) -> dict[str, Any]:
    """The fields of a `DoneAction`; `by` and `reason` are None unless `shows_person`."""
    return {
        "requestId": request.id,
        "action": request.action,
        "result": outcome.result,
        "skipReason": outcome.reason,
        "at": outcome.at,
        "by": request.by.subject if shows_person else None,
        "reason": request.reason if shows_person else None,
    }
