"""Counts the jobs that are due in the next hour, day and week, for the JSON route and the page."""

from http import HTTPStatus
from typing import Any

from flask import Response
from marshmallow import fields

from jobmon.api import queue_examples
from jobmon.api.answers import Answer, array, boolean, counts, integer, mapping, string
from jobmon.api.fields import Date
from jobmon.api.openapi import Routes
from jobmon.api.shared_response import SharedResponse
from jobmon.store.schedule import MAX_KEYS, Schedule, ScheduledWindow
from jobmon.web.queues import WatchedQueue, current_queue


class ScheduledStepAnswer(Answer):
    """Scheduled jobs in a period of the future."""

    start = Date("Start of the period.", data_key="from")
    end = Date("End of the period, exclusive.", data_key="to")
    count = integer(
        "Jobs that become due in the period; null if not counted.", nullable=True, attribute="jobs"
    )
    isExact = boolean(
        "Whether `count` is exact; otherwise it is null or a lower bound.", attribute="is_exact"
    )
    typeCounts = counts(
        "These jobs by type: the 20 types with the most jobs in the window, and `(other)`.",
        attribute="types",
    )


class ScheduledWindowAnswer(ScheduledStepAnswer):
    """Scheduled jobs in the next hour, day or week."""

    name = string("Name of the window.", enum=["hour", "day", "week"])
    step = integer("Length of a step in seconds; the first and the last step may be shorter.")
    steps = array(ScheduledStepAnswer, "Every step of the window, in order.")

    def prepare(self, obj: ScheduledWindow) -> dict[str, Any]:
        """The fields of the window, with its step in seconds."""
        return vars(obj) | {"step": round(obj.step.total_seconds())}


class ScheduleAnswer(Answer):
    """The jobs that become due in the next hour, day and week."""

    asOf = Date("When the jobs were counted: the windows begin at this time.")
    windows = array(
        ScheduledWindowAnswer,
        "The windows; null if nothing was counted. In each window at most the soonest "
        f"{MAX_KEYS:,} jobs are counted; the count of later steps is null.",
        nullable=True,
    )
    reasons = mapping(fields.String(), "`windows`: why it is null or the counts are not exact.")


def add_routes(routes: Routes, queue_count: int) -> None:
    """Add `/schedule` to the routes of operators; its cache has an entry for each queue."""
    response = SharedResponse(ScheduleAnswer.shared(), queue_count)

    @routes.get("/schedule")
    @routes.doc(operationId="getSchedule")
    @routes.response(HTTPStatus.OK, ScheduleAnswer, example=queue_examples.SCHEDULE)
    def schedule() -> Response:
        """Get how many jobs are due in the next hour, day and week.

        Waiting jobs with a nextRunAt in the future are counted by step and type.
        `GET /admin/jobs/queue?condition=scheduled&sort=nextRunAt` lists the jobs themselves.
        """
        queue = current_queue()
        counted = queue.schedule.schedule()
        return response.respond(counted, lambda: _format_schedule(queue, counted))


def _format_schedule(queue: WatchedQueue, counted: Schedule) -> dict[str, Any]:
    return {
        "asOf": counted.as_of,
        "windows": counted.windows or None,
        "reasons": explain_schedule(queue, counted),
    }


def explain_schedule(queue: WatchedQueue, schedule: Schedule) -> dict[str, str]:
    """By field name: why the field is null or not exact."""
    if schedule.reason:
        return {"windows": schedule.reason}
    if not all(window.is_exact for window in schedule.windows):
        return {"windows": f"only the soonest {schedule.limit:,} jobs of a window are read"}
    stats = queue.stats.cached_stats()
    reason = "" if stats is None else stats.health.unknown.get("scheduled", "")
    return {"windows": reason} if reason else {}
