"""The page of one job."""

from datetime import UTC, datetime

from flask import Response, render_template, request

from jobmon.api.explaining import read_explanation
from jobmon.api.jobs import get_callers_job
from jobmon.dashboard import session
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.dashboard.time_axis import time_axis
from jobmon.dashboard.timeline import is_finished, timeline
from jobmon.web import auth
from jobmon.web.queues import current_queue


class JobPage:
    """The routes of the page of one job."""

    def page(self, job_id: str) -> Response | str:
        """One job, for its owner or an admin."""
        session.require_session()
        auth.require_owners()
        document, now = get_callers_job(job_id), datetime.now(UTC)
        job = JobView.from_document(document, detail=True)
        context = {
            "job": job,
            "explanation": read_explanation(current_queue(), document, now),
            "steps": timeline(job, now),
            "newest_attempt": f"attempt-{len(job.attempts)}",
            "axis": time_axis(job, now),
            "lease_expired": job.has_expired_lease(now),
            "finished": is_finished(job),
            "finds_codes": current_queue().known_fields.can_query("lastError.code"),
        }
        if is_part_request():
            return conditional_response(render_template("dashboard/_job.html", **context))
        return render_template("dashboard/job.html", **context)

    def page_by_query(self) -> Response | str:
        """One job whose id a path cannot contain: see `formatting.job_address`."""
        return self.page(request.args.get("id", ""))
