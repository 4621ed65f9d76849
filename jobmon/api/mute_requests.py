"""`POST /admin/jobs/mutes…`: add and end mutes of notices, only with JOBMON_ACTIONS."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from marshmallow import fields, validate

from jobmon.actions.catalog import RequestError
from jobmon.actions.mutes import Mute, MuteMode
from jobmon.actions.request import MAX_REASON_LENGTH, truncate_to_ms
from jobmon.api import action_examples
from jobmon.api.action_queries import describe_record_id
from jobmon.api.body import Body
from jobmon.api.fields import IsoDate, default_none, describe
from jobmon.api.job_actions import make_person
from jobmon.api.mutes import MuteAnswer
from jobmon.api.openapi import Access, Routes
from jobmon.diagnosis.notices import CheckKind
from jobmon.settings.actions import NOTICES_MUTE
from jobmon.web import auth
from jobmon.web.errors import ApiError, invalid
from jobmon.web.queues import current_queue

log = structlog.get_logger("jobmon.actions")

_MUTE_ID = describe_record_id("mute_id", "Id of the mute.", action_examples.MUTE["id"])


class MuteBody(Body):
    """The notices to mute or acknowledge, until when, and why."""

    mode = fields.String(
        load_default=MuteMode.MUTE.value,
        validate=validate.OneOf([mode.value for mode in MuteMode]),
        **describe("`mute`: send no message. `acknowledge`: send no reminder."),
    )
    kind = fields.String(
        load_default=default_none,
        validate=validate.OneOf([kind.value for kind in CheckKind]),
        **describe(
            "The check whose notices are muted. Without it, the notices of all checks are muted; "
            "`acknowledge` requires it.",
            nullable=True,
        ),
    )
    types = fields.String(
        load_default="",
        **describe("Only these types: a name or a pattern such as `mail.*`; empty for all types."),
    )
    until = IsoDate(
        required=True,
        **describe("When it ends: at most 30 days from now. ISO 8601; UTC if it has no offset."),
    )
    reason = fields.String(
        required=True,
        validate=validate.Length(1, MAX_REASON_LENGTH),
        **describe("Why; shown on the pages and in the records."),
    )


class MuteEndBody(Body):
    """Why a person ends a mute."""

    is_required = False

    reason = fields.String(
        load_default="", validate=validate.Length(max=MAX_REASON_LENGTH), **describe("Why.")
    )


def blueprint() -> Routes:
    """The routes that change mutes; they need the queue's permission and NOTICES_MUTE."""
    routes = Routes("mutes", __name__, access=Access.ADMIN, url_prefix="/admin/jobs/mutes")

    @routes.post("")
    @routes.doc(operationId="muteNotices")
    @routes.arguments(MuteBody, location="json", example=action_examples.MUTE_BODY)
    @routes.response(HTTPStatus.CREATED, MuteAnswer, example=action_examples.MUTE)
    def mute(body: dict[str, Any]) -> Mute:
        """Mute or acknowledge notices for a while; needs NOTICES_MUTE.

        No message about a muted notice is sent until the mute ends. About an acknowledged notice
        messages are sent only if it gets worse and when it is over. Pages show both kinds.
        """
        require_right()
        kind = body["kind"]
        return add_mute(
            body["until"],
            kind=None if kind is None else CheckKind(kind),
            types=body["types"],
            mode=MuteMode(body["mode"]),
            reason=body["reason"],
        )

    @routes.post("/<string(length=20):mute_id>/end", parameters=[_MUTE_ID])
    @routes.doc(operationId="endMute")
    @routes.arguments(
        MuteEndBody, location="json", required=False, example={"reason": "it is back"}
    )
    @routes.document_error(
        HTTPStatus.NOT_FOUND, "not_found", "There is no such mute in the last 30 days."
    )
    @routes.response(HTTPStatus.OK, MuteAnswer, example=action_examples.MUTE)
    def end(body: dict[str, Any], mute_id: str) -> Mute:
        """End a mute or an acknowledgement now; needs NOTICES_MUTE.

        If the notice still exists, messages about it are sent again.
        """
        require_right()
        return end_mute(mute_id, body["reason"])

    return routes


def may_mute() -> bool:
    """Whether the caller may mute the notices of the queue; False without JOBMON_ACTIONS."""
    has_actions = current_queue().actions is not None
    return has_actions and auth.is_admin() and auth.has_permission(NOTICES_MUTE)


def require_right() -> None:
    """Raise ApiError 403 unless the caller may mute notices."""
    if not may_mute():
        raise auth.permission_error(NOTICES_MUTE)


def add_mute(until: datetime, **options: Any) -> Mute:
    """Record a mute of the caller, with the `options` of `Mute`; raises ApiError 422.

    It does not check the caller's right.
    """
    try:
        now = truncate_to_ms(datetime.now(UTC))
        mute = Mute(by=make_person(), at=now, until=until, **options)
    except RequestError as error:
        raise invalid(error.field, str(error)) from None
    added = current_queue().mutes.add(mute)
    log.info(
        "notices muted",
        mute=added.id,
        mode=added.mode.value,
        kind=added.kind and added.kind.value,
        until=added.until.isoformat(),
        user=added.by.subject,
        address=added.by.address,
    )
    return added


def end_mute(mute_id: str, reason: str) -> Mute:
    """Record that the caller ends a mute, without a check of the right; raises ApiError 404."""
    ended = current_queue().mutes.end(find_mute(mute_id), make_person(), reason)
    log.info("mute ended", mute=mute_id, user=auth.subject())
    return ended


def find_mute(mute_id: str) -> Mute:
    """A mute that `list_recent` lists; raises ApiError 404 if none has this id."""
    for mute in current_queue().mutes.list_recent():
        if mute.id == mute_id:
            return mute
    raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such mute.")
