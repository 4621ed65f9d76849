"""`GET /admin/jobs/mutes`: which notices are muted or acknowledged, by whom, until when and why."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from jobmon.actions.mutes import Mute, MuteMode
from jobmon.api import action_examples
from jobmon.api.action_answers import PersonAnswer
from jobmon.api.answers import Answer, array, boolean, nested, string
from jobmon.api.fields import DateOrText
from jobmon.api.openapi import Routes
from jobmon.diagnosis.notices import CheckKind
from jobmon.web.queues import current_queue


class MuteAnswer(Answer):
    """A mute or an acknowledgement of notices."""

    id = string("Id of the mute.")
    mode = string(
        "`mute`: no message is sent. `acknowledge`: no reminder is sent.", enum=list(MuteMode)
    )
    kind = string(
        "The check whose notices are muted; null for all checks.",
        enum=list(CheckKind),
        nullable=True,
    )
    types = string("A pattern of types, such as `mail.*`; empty for all types.")
    by = nested(PersonAnswer, "The person who muted or acknowledged the notices.")
    at = DateOrText("When it was added.")
    until = DateOrText("When it ends, unless a person ends it earlier.")
    reason = string("Why, as the person wrote it; secrets are replaced.")
    isActive = boolean("Whether it is active now.")
    endedAt = DateOrText("When a person ended it early; null if nobody did.")
    endedBy = nested(PersonAnswer, "The person who ended it; null if nobody did.", nullable=True)

    def prepare(self, obj: Mute) -> dict[str, Any]:
        """The fields of a mute."""
        end = obj.end
        return vars(obj) | {
            "isActive": obj.is_active(datetime.now(UTC)),
            "endedAt": end and end.at,
            "endedBy": end and end.by,
        }


class MuteList(Answer):
    """The newest 1,000 mutes of the last 30 days, and the newest 1,000 with a future `until`."""

    data = array(MuteAnswer, "The mutes, the newest first.")


def add_routes(routes: Routes) -> None:
    """Add `/mutes` to the routes of operators."""

    @routes.get("/mutes")
    @routes.doc(operationId="listMutes")
    @routes.response(HTTPStatus.OK, MuteList, example=action_examples.MUTE_LIST)
    def mutes() -> dict[str, Any]:
        """List the mutes of the last 30 days, even mutes that have ended.

        No message about a muted notice is sent, but pages show it.
        """
        return {"data": current_queue().mutes.list_recent()}
