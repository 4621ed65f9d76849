"""The answers about queues: statistics, history, types, forecasts, and the list of queues."""

from datetime import timedelta
from typing import Any

from marshmallow import fields

from jobmon.api.answers import (
    Answer,
    array,
    boolean,
    counts,
    integer,
    mapping,
    nested,
    number,
    string,
)
from jobmon.api.fields import Date, DateOrText
from jobmon.diagnosis.forecast import Forecast, Outlook
from jobmon.diagnosis.notices import ALL_CLEAR, UNKNOWN, Level
from jobmon.rollup.gaps import GapReason
from jobmon.rollup.marks import MAX_SHOWN
from jobmon.store.labels import MAX_STATUSES, MAX_TYPES

_MILLISECOND = timedelta(milliseconds=1)


def _round_rate(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


class ForecastAnswer(Answer):
    """Whether the backlog clears at the present rates; a field is null if it is unknown."""

    outlook = string(
        "`empty`: no job is due. `clears`: within a day. `grows`: more jobs come than end. "
        "`steady`: it does not grow, and does not clear within a day. `unknown`: see `reason`.",
        enum=[outlook.value for outlook in Outlook],
    )
    text = string("The outlook as a sentence without a full stop.")
    reason = string("Why the outlook is unknown; otherwise null.", nullable=True)
    dueJobs = integer(
        "The backlog: waiting jobs that are due; for one type, all its waiting jobs.", nullable=True
    )
    arrivalsPerMinute = number("Jobs enqueued, per minute.", nullable=True)
    completionsPerMinute = number("Jobs that got a final status, per minute.", nullable=True)
    clearsInMs = integer(
        "Milliseconds until no job is due, if the outlook is `clears`; otherwise null.",
        nullable=True,
    )
    start = DateOrText("Start of the time in which the rates were counted.", data_key="from")
    end = DateOrText("End of the time in which the rates were counted.", data_key="to")

    def prepare(self, obj: Forecast | dict[str, Any]) -> dict[str, Any]:
        """The fields of a `Forecast`."""
        if isinstance(obj, dict):
            return obj
        return {
            "outlook": obj.outlook.value,
            "text": obj.text,
            "reason": obj.reason or None,
            "dueJobs": obj.backlog,
            "arrivalsPerMinute": _round_rate(obj.arrivals),
            "completionsPerMinute": _round_rate(obj.completions),
            "clearsInMs": None if obj.clears_in is None else round(obj.clears_in / _MILLISECOND),
            "start": obj.start,
            "end": obj.end,
        }


class JobStats(Answer):
    """Statistics of the queue at the time `asOf`."""

    totalJobs = integer("Number of jobs: the sum of statusCounts, unless statusCounts is null.")
    statusCounts = counts(
        "Jobs by status: always the six known statuses, and any other that occurs. At most "
        f"{MAX_STATUSES} statuses have a name, the others are `(other)`. Null in an estimate.",
        nullable=True,
    )
    typeCounts = mapping(
        fields.Dict(keys=fields.String(), values=fields.Integer()),
        f"Jobs by type, then by status. At most {MAX_TYPES:,} types have a name, the others are "
        "`(other)`. Null in an estimate.",
        nullable=True,
    )
    oldestQueuedJobAgeMs = integer(
        "Milliseconds since the oldest queued job was created; 0 if no job is queued, null if "
        "unknown.",
        nullable=True,
    )
    oldestQueuedJobAgeMsByType = counts(
        "Milliseconds since the oldest queued job of each type was created; for the 100 types with "
        "the most queued jobs."
    )
    expiredLeases = integer(
        "Leased jobs whose lease has expired; counted up to 500,000. Null if unknown.",
        nullable=True,
    )
    dueJobs = integer(
        "Waiting jobs that are due. Null if unknown: in an estimate, if documents do not record "
        "when a job is due, or if 500,000 or more jobs are due and 500,000 or more are scheduled.",
        nullable=True,
    )
    scheduledJobs = integer(
        "Waiting jobs whose nextRunAt is in the future. Null if unknown.", nullable=True
    )
    estimatedTotalJobs = integer(
        "Number of jobs according to the collection's metadata; or the sum of statusCounts, if the "
        "collection also has other documents."
    )
    reasons = mapping(
        fields.String(),
        "By field name: why the field is null or incomplete, or its number is a lower bound.",
    )
    forecast = nested(ForecastAnswer, "Whether the backlog clears at the present rates.")
    asOf = Date("The time that the statistics describe.")
    source = string(
        "`rollup`: kept by the collector. `live`: counted without a collector, a moment ago. "
        "`estimate`: counting took too long; totalJobs is from the collection's metadata.",
        enum=["rollup", "live", "estimate"],
    )


class QueueNotice(Answer):
    """Something in a queue that needs attention."""

    level = string("How urgent it is.", enum=[level.value for level in Level])
    text = string("A sentence for people.")
    since = DateOrText("When it began; null if unknown.")
    isMuted = boolean("Whether it is muted completely: see `GET /admin/jobs/mutes`.")


class QueueAnswer(Answer):
    """A watched queue. A value is null if it is unknown; `unchecked` has the reason."""

    name = string("Name of the queue: its routes and pages are below `/queues/{name}`.")
    environment = string("Configured environment of the queue, or null.", nullable=True)
    isDefault = boolean("Whether paths without `/queues/{name}` are about this queue.")
    level = string(
        "`bad` or `watch`: the level of the worst notice that is not muted. `ok`: there is none, "
        "and all checks were made. `unknown`: there is none, but some checks could not be made.",
        enum=[*(level.value for level in Level), ALL_CLEAR, UNKNOWN],
    )
    notices = array(QueueNotice, "What needs attention: the worst first, muted notices last.")
    unchecked = array(fields.String(), "Why checks could not be made, or values are unknown.")
    statusCounts = counts("Jobs by status.", nullable=True)
    oldestQueuedJobAgeMs = integer("As in `GET /admin/jobs/stats`.", nullable=True)
    forecast = nested(ForecastAnswer, "Whether the backlog clears.", nullable=True)
    finishedPerMinute = number("Attempts finished per minute, in the last hour.", nullable=True)
    failureRate = number(
        "The share of these attempts that failed, from 0 to 1; null if none finished.",
        nullable=True,
    )
    asOf = DateOrText("The time that the values describe; null if all are unknown.")
    source = string("As in `GET /admin/jobs/stats`.", nullable=True)


class QueueList(Answer):
    """The watched queues."""

    data = array(QueueAnswer, "The queues, in the order of the file of queues.")


class Percentiles(Answer):
    """Percentiles of durations with an error of at most 4 %; null without any duration."""

    p50 = integer("Median, in milliseconds.", nullable=True)
    p95 = integer("95th percentile, in milliseconds.", nullable=True)
    p99 = integer("99th percentile, in milliseconds.", nullable=True)


class Activity(Answer):
    """Activity of the queue in a period of time."""

    enqueued = integer("Jobs enqueued; null if documents have no creation time.", nullable=True)
    succeeded = integer(
        "Attempts that succeeded; null if documents have no finish time.", nullable=True
    )
    failed = integer(
        "Attempts that failed or whose lease expired; null as for `succeeded`.", nullable=True
    )
    dlq = integer("Jobs dead-lettered; null as for `succeeded`.", nullable=True)
    failureRate = number(
        "failed / (succeeded + failed), from 0 to 1; null if no attempt ended.", nullable=True
    )
    waitMs = nested(Percentiles, "How long attempts waited, from when they were due to the start.")
    runMs = nested(Percentiles, "How long attempts ran.")


class TimeSeriesStep(Activity):
    """Activity in the step that starts `at`, and the state of the whole queue at the step's end.

    The state (`statusCounts`, `oldestQueuedJobAgeMs`) is null if no collector recorded it, or if
    the series is limited to some types.
    """

    at = Date("Start of the step.")
    statusCounts = counts("Jobs by status at the end of the step.", nullable=True)
    oldestQueuedJobAgeMs = integer(
        "As in `GET /admin/jobs/stats`, at the end of the step.", nullable=True
    )


class TypeStats(Activity):
    """Activity of one type of job in the window, and its jobs by status now."""

    type = string("The type; `null` for jobs without one.")
    forecast = nested(
        ForecastAnswer,
        "Whether the type's backlog clears; null without waiting jobs.",
        nullable=True,
    )
    statusCounts = counts("Jobs of this type by status now; null if unknown.", nullable=True)
    finishedPerMinute = number(
        "Attempts that ended, per minute of the window up to `as_of`; null as for `succeeded`.",
        nullable=True,
    )


class Gap(Answer):
    """A part of the window in which runs may be missing.

    Only queues that record no attempts have gaps. Their runs are counted from changes of the jobs.
    While no changes are known, runs are counted from the jobs, and a job has only its last run.
    """

    start = Date("Start of the gap.", data_key="from")
    end = Date("End of the gap, exclusive.", data_key="to")
    reason = string(
        "`before_collector`: no collector had followed the changes yet. `stream_lost`: the server "
        "no longer had the changes after the collector's last checkpoint. `no_change_stream`: a "
        "standalone server has no change stream. `no_collector`: no collector is running. "
        "`too_many_running`: more jobs ran than a collector remembers.",
        enum=[reason.value for reason in GapReason],
    )


class WindowBounds(Answer):
    """Start and end of the window of an answer."""

    start = Date("Start of the window, widened to a whole step.", data_key="from")
    end = Date("End of the window, exclusive, widened to a whole step.", data_key="to")
    no_data_before = DateOrText(
        "The beginning of the retained history, if the requested window begins earlier: then "
        "`from` is this time, widened to a whole step. Otherwise null."
    )


class WindowMeta(WindowBounds):
    """The window of an answer, and its counted part."""

    step = integer("Length of a step in seconds.")
    as_of = Date("Activity is counted up to this time; later steps are null.")
    source = string(
        "`rollup`: kept by the collector. `live`: counted now.", enum=["rollup", "live"]
    )
    is_complete = boolean(
        "False while a collector is still counting the window: uncounted steps are null, and "
        "sums over the window cover the counted part."
    )
    gaps = array(Gap, "Parts of the window in which runs may be missing, in order.")
    reasons = mapping(
        fields.String(),
        "`data`: why all activity is null, if the window begins at `as_of` or later. "
        "`statusCounts`: why the counts of jobs by type and status are null. `type`, for "
        "`/types` only: why runs may have lost their type, and deaths may be missing.",
    )


class MarkAnswer(Answer):
    """An event that `jobmon mark` recorded, such as a deployment."""

    at = Date("The time of the mark.")
    text = string("Text of the mark, such as a version; secrets are replaced.")
    link = string("An `http` or `https` URL with more information.", nullable=True)


class TimeSeriesMeta(WindowMeta):
    """The window of a time series, and the marks in it."""

    marks = array(
        MarkAnswer,
        f"At most {MAX_SHOWN} marks of the window: the newest, in order of time. Null if jobmon's "
        "user cannot read the database JOBMON_STATE_DB.",
        nullable=True,
    )
    omitted_marks = integer(
        "Number of older marks in the window; null if `marks` is null.", nullable=True
    )


class TimeSeries(Answer):
    """Activity by step."""

    meta = nested(TimeSeriesMeta, "The window of this answer.")
    data = array(TimeSeriesStep, "Every step of the window, in order.")


class TypeList(Answer):
    """Activity by type."""

    meta = nested(WindowMeta, "The window of this answer.")
    data = array(TypeStats, "Every type with jobs now or activity in the window, by name.")
