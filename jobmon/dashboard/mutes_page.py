"""The forms that mute or acknowledge notices, and that end a mute."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobmon.actions.mutes import MuteMode
from jobmon.api.job_actions import queue_actions
from jobmon.api.mute_requests import add_mute, end_mute, find_mute, require_right
from jobmon.api.parameters import read_parameter
from jobmon.dashboard import session
from jobmon.dashboard.mute_lines import MuteLine
from jobmon.diagnosis.notices import KINDS_BY_TYPE, CheckKind
from jobmon.web.errors import ApiError, invalid

# The durations of a mute: the words on the form, and the minutes.
MINUTES = {
    "1 hour": 60,
    "2 hours": 120,
    "4 hours": 240,
    "8 hours": 480,
    "1 day": 1_440,
    "3 days": 4_320,
    "7 days": 10_080,
}
DEFAULT_MINUTES = 120


def confirm() -> str:
    """The question before a kind of notices is muted, or before the mute with the `id` ends."""
    _require_right()
    if mute_id := read_parameter("id"):
        line = MuteLine(mute=find_mute(mute_id))
        return render_template("dashboard/confirm.html", question="unmute", line=line)
    return _render_question(_read_kind(read_parameter("kind")))


def file() -> BaseResponse | tuple[str, int]:
    """Mute or acknowledge, then redirect to the overview.

    A bad `types` or `reason` shows the question again; other bad values raise ApiError 422.
    """
    _require_right()
    session.require_same_origin()
    form, kind = request.form, _read_kind(request.form.get("kind", ""))
    minutes = form.get("minutes", "")
    if minutes not in map(str, MINUTES.values()):
        raise invalid("minutes", "One of the given times.")
    mode = form.get("mode", "")
    if mode not in list(MuteMode):
        raise invalid("mode", "Unknown.")
    try:
        add_mute(
            datetime.now(UTC) + timedelta(minutes=int(minutes)),
            kind=kind,
            types=form.get("types", "").strip(),
            mode=MuteMode(mode),
            reason=form.get("reason", "").replace("\r\n", "\n"),
        )
    except ApiError as error:
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        messages = error.details or {}
        return _render_question(kind, messages), HTTPStatus.UNPROCESSABLE_ENTITY
    return redirect(url_for("dashboard.home"), HTTPStatus.SEE_OTHER)


def end() -> BaseResponse:
    """End a mute, then redirect to the overview."""
    _require_right()
    session.require_same_origin()
    end_mute(request.form.get("id", ""), request.form.get("reason", "")[:500])
    return redirect(url_for("dashboard.home"), HTTPStatus.SEE_OTHER)


def _require_right() -> None:
    session.require_admin()
    queue_actions()  # raises ApiError 404 if actions are switched off
    require_right()


def _read_kind(text: str) -> CheckKind:
    if text not in list(CheckKind):
        raise invalid("kind", "Unknown.")
    return CheckKind(text)


def _render_question(kind: CheckKind, messages: dict[str, Any] | None = None) -> str:
    return render_template(
        "dashboard/confirm.html",
        question="mute",
        notice_kind=kind.value,
        notices=kind.value.replace("_", " "),
        has_types=kind in KINDS_BY_TYPE,
        minutes_by_words=MINUTES,
        values={"minutes": str(DEFAULT_MINUTES), **request.form},
        messages=messages or {},
    )
