"""The page of one job."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from flask import Response, jsonify, render_template

from jobmon.api.answers import JobDetail
from jobmon.api.explaining import read_explanation
from jobmon.api.job_actions import read_done_actions
from jobmon.api.job_lists import ListResponder
from jobmon.api.jobs import get_callers_job, get_detailed_job
from jobmon.api.links import list_links
from jobmon.api.parameters import read_parameter
from jobmon.dashboard import session
from jobmon.dashboard.action_buttons import list_job_buttons, list_type_buttons
from jobmon.dashboard.job_place import find_place
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.dashboard.time_axis import make_time_axis
from jobmon.dashboard.timeline import add_actions, is_finished, make_timeline
from jobmon.diagnosis.explanation import ExplanationCode
from jobmon.domain import JobStatus
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.queues import current_queue

MAX_RAW_LENGTH = 20_000  # in characters
JUST_CHANGED = timedelta(seconds=30)
MAX_RECORD_AGE_S = 10.0  # for cached records of actions, unless the job has just changed


@dataclass(frozen=True, kw_only=True)
class RawJson:
    """A value as indented JSON, cut after `MAX_RAW_LENGTH` characters."""

    text: str
    is_cut: bool

    @classmethod
    def dump(cls, value: Any) -> Self:
        """The JSON of a value; a long value is encoded only up to the cut."""
        encoder = json.JSONEncoder(indent=2, ensure_ascii=False)
        text = ""
        for piece in encoder.iterencode(value):
            text += piece[: MAX_RAW_LENGTH + 1]
            if len(text) > MAX_RAW_LENGTH:
                return cls(text=text[:MAX_RAW_LENGTH], is_cut=True)
        return cls(text=text, is_cut=False)


def _choose_max_age_s(job: Document, now: datetime) -> float:
    """How old the records of actions on a job may be, in seconds.

    They are read every time for 30 s after a change of the job, but not for a running job: each
    heartbeat changes it.
    """
    changed_at = job.get("updatedAt")
    if not isinstance(changed_at, datetime) or job.get("status") == JobStatus.LEASED:
        return MAX_RECORD_AGE_S
    age = now - changed_at.replace(tzinfo=changed_at.tzinfo or UTC)
    return 0.0 if age < JUST_CHANGED else MAX_RECORD_AGE_S


class JobPage:
    """The routes of the page of one job."""

    def __init__(self, lists: ListResponder) -> None:
        self._lists = lists

    def page(self, job_id: str) -> Response | str:
        """One job, for its owner or an admin; with `format=json`, the same answer as the API's."""
        session.require_session()
        auth.require_known_queue()
        if read_parameter("format") == "json":
            return jsonify(JobDetail().dump(get_detailed_job(job_id)))
        document, now = get_callers_job(job_id), datetime.now(UTC)
        job = JobView.from_document(document, detail=True)
        max_age_s = _choose_max_age_s(document, now)
        done, unknown_reason = read_done_actions(current_queue(), document, max_age_s)
        explanation = read_explanation(current_queue(), document, now)
        is_paused = explanation.code is ExplanationCode.TYPE_PAUSED
        context = {
            "job": job,
            "may_resume": is_paused and bool(list_type_buttons(is_paused=True).kinds),
            "actions": list_job_buttons(document, now),
            "actions_unknown_reason": unknown_reason,
            "explanation": explanation,
            "links": list_links(current_queue().settings, document),
            "raw": RawJson.dump(job.payload),
            "steps": add_actions(make_timeline(job, now), done or []),
            "newest_attempt": f"attempt-{len(job.attempts)}",
            "axis": make_time_axis(job, now),
            "has_expired_lease": job.has_expired_lease(now),
            "is_finished": is_finished(job),
            "can_query_codes": current_queue().known_fields.can_query("lastError.code"),
        }
        if is_part_request():
            return conditional_response(render_template("dashboard/_job.html", **context))
        # Not for updates of the open page: its links keep the neighbors, though the list changes.
        place = find_place(self._lists, document)
        return render_template("dashboard/job.html", place_in_list=place, **context)

    def page_by_query(self) -> Response | str:
        """The job with the parameter `id`, for ids that cannot be in a path: see `job_address`."""
        return self.page(read_parameter("id"))
