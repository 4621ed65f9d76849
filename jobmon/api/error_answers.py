"""The answers about groups of errors."""

from marshmallow import fields

from jobmon.api.answers import Answer, array, boolean, counts, integer, mapping, nested, string
from jobmon.api.fields import Date, DateOrText, FreeText, Text
from jobmon.api.queue_answers import Gap, WindowBounds
from jobmon.diagnosis.error_kinds import GroupStatus

MAX_NAMES = 10  # types or workers of a group that are counted by name; the others: `(other)`


class FailedJobAnswer(Answer):
    """A job that failed with an error of the group."""

    jobId = string("Id of the job, which may have been deleted.", attribute="job_id")
    type = string("Type of the job.")
    workerId = FreeText("Worker that ran it; null if unknown.", attribute="worker")
    failedAt = Date("When it failed.", attribute="at")


class ErrorGroupAnswer(Answer):
    """Errors with the same code, message without its variable parts, and function that raised them.

    The function and its file are the `frame`. A group with the pattern `(other messages)` has the
    errors of one code whose messages have no group of their own. The group `(other)` has all other
    errors; its code, pattern and frame are null.
    """

    id = string("Id of the group. The same kind of error has the same id in every queue.")
    code = Text("Code of the errors, or the class of their exception.")
    pattern = Text(
        "Message of the errors, with its variable parts as `<value>`, `<text>`, `<host>`, "
        "`<duration>` and so on; empty if they have no message."
    )
    frame = Text("Function and file of the application that raised the errors; null if unknown.")
    status = string(
        "`new`: first seen in the hour before `meta.as_of`, and not in the first 15 minutes of "
        "counting. `ongoing`: not new, and last seen in the 15 minutes before `meta.as_of`. "
        "`quiet`: neither. Null if unknown.",
        enum=[*(status.value for status in GroupStatus), None],
        nullable=True,
    )
    firstSeen = DateOrText("When it was first seen, even before the window; null if unknown.")
    lastSeen = DateOrText("When it was last seen; null if unknown.")
    count = integer("Errors in the window; null if unknown.", nullable=True)
    previousCount = integer(
        "Errors in the period of the same length that ends where the window begins, with the same "
        "`type` or `worker`. Null if that period is not retained or not counted completely, and if "
        "the group has no error in the window.",
        nullable=True,
    )
    growth = integer("`count` minus `previousCount`; null if either is unknown.", nullable=True)
    typeCounts = counts(
        f"Errors by type of job: the {MAX_NAMES} types with the most errors, and `(other)`. Null "
        "with `worker`.",
        nullable=True,
    )
    workerCounts = counts(
        f"Errors by worker: the {MAX_NAMES} workers with the most errors, and `(other)`. Errors of "
        "unknown workers are not counted. Null with `type`, or if no worker is known.",
        nullable=True,
    )
    trend = array(
        fields.Integer(), "Errors by step, up to `meta.as_of`. Null with `worker`.", nullable=True
    )
    jobs = array(
        FailedJobAnswer,
        "The last jobs that failed with this error, even before the window; the newest first.",
    )
    reasons = mapping(fields.String(), "By field name: why it is null, if a reason is known.")


class ErrorGroupDetail(ErrorGroupAnswer):
    """A group of errors, with one error as a sample."""

    message = FreeText("Message of one error of the group, with secrets replaced.")
    stack = FreeText("Stack trace of the same error, with secrets replaced.")


class ErrorGroupMeta(WindowBounds):
    """The window of an answer about errors."""

    step = integer("Length of a step in seconds.")
    as_of = Date("Errors are counted up to this time.")
    is_complete = boolean("False while a collector is still counting the window.")
    gaps = array(Gap, "Parts of the window in which runs may be missing, in order.")


class ErrorGroupListMeta(ErrorGroupMeta):
    """The window of a list of groups, and the totals of the window."""

    total = integer("Matching groups with errors in the window; null if unknown.", nullable=True)
    total_errors = integer(
        "All errors of the requested types or worker in the window; null if unknown.", nullable=True
    )
    ungrouped_errors = integer(
        "The part of `total_errors` in the group `(other)`; null if unknown.", nullable=True
    )
    next_cursor = string("`cursor` of the next page; null on the last page.", nullable=True)
    reasons = mapping(
        fields.String(),
        "`data`: why `data` and the totals are null. `total_errors`: why it is a lower bound.",
    )


class ErrorGroupList(Answer):
    """A page of groups of errors."""

    meta = nested(ErrorGroupListMeta, "The window of this answer, and its totals.")
    data = array(
        ErrorGroupAnswer, "The groups, in the order of `sort`; null if unknown.", nullable=True
    )


class ErrorGroupInWindow(Answer):
    """A group of errors in a window."""

    meta = nested(ErrorGroupMeta, "The window of this answer.")
    data = nested(ErrorGroupDetail, "The group.")
