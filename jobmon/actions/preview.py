"""Counts the jobs that an action is for, and shows a few, before a person requests it."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobmon.actions.catalog import RequestError
from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.request import MAX_JOBS, check_target
from jobmon.actions.support import ActionSupport
from jobmon.actions.target import Target, narrow_filter
from jobmon.domain import ACTION_CONDITIONS, JobAction, explain_refusal
from jobmon.store.bson_json import to_text
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_count import ListCounter
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document

SAMPLE_SIZE = 5  # jobs
_CREATED_BEFORE_STEP = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True)
class ActionPreview:
    """How many jobs or types an action is for now, and the first jobs as lists show them.

    The count includes what only the actor finds out: a type that is paused already, or a job that
    does not meet the profile's condition. Of a filter, jobs without a creation time are left out:
    they may be newer than the request. `unsuitable`: how many of the selected ids are not counted,
    because their jobs are missing or do not allow it; None for a filter or types.
    """

    count: int
    sample: list[Document]
    unsuitable: int | None = None


class ActionPreviewer:
    """Counts jobs for the confirmation of a request; it only reads, and raises PyMongoError.

    `groups` finds the jobs of a filter with an `error_group`.

        previewer = ActionPreviewer(lists, ListCounter(planner), support, groups)
        previewer.preview("retry", Target(job_filter=JobFilter(statuses=("dlq",))))
    """

    def __init__(
        self,
        lists: JobLists,
        counter: ListCounter,
        support: ActionSupport,
        groups: GroupJobReader,
    ) -> None:
        self._lists = lists
        self._counter = counter
        self._support = support
        self._groups = groups

    def preview(self, action: str, target: Target, owner: str | None = None) -> ActionPreview:
        """The jobs that an action is for; with `owner`, only jobs of this owner.

        Raises RequestError if the queue lacks the action, if the action is not for this target, for
        an earlier request, or for more than a million jobs. Raises RefusedFilterError for a filter
        whose jobs cannot be counted.
        """
        self._support.require(action)
        check_target(action, target)
        now = datetime.now(UTC)
        if target.request_id is not None:
            message = "An earlier request has no preview: undo is for the jobs that it changed."
            raise RequestError("request", message)
        if target.types:
            return ActionPreview(count=len(target.types), sample=[])
        if target.job_filter is None:
            selected = self._lists.look_up(target.job_ids, JobFilter(), owner)
            statuses = self._support.statuses[action]
            jobs = [
                job
                for job, _ in selected
                if job.get("status") in statuses and not explain_refusal(action, job, now)
            ]
            # Several jobs can have one id: as a number and as a text, or without a unique index.
            unsuitable = len(target.job_ids) - len({to_text(job.get("jobId")) for job in jobs})
            return ActionPreview(count=len(jobs), sample=jobs[:SAMPLE_SIZE], unsuitable=unsuitable)
        # Rounded up to whole steps, so that equal previews share a count.
        until = now + (datetime.min.replace(tzinfo=UTC) - now) % _CREATED_BEFORE_STEP
        job_filter = narrow_to_action(action, target.job_filter, self._support, until)
        if job_filter is None:
            return ActionPreview(count=0, sample=[])
        if owner is not None:
            job_filter = replace(job_filter, owner=owner, is_own=True)
        if target.job_filter.error_group is not None:
            return self._preview_group(job_filter, target.job_filter.error_group)
        count = self._counter.count(job_filter, MAX_JOBS)
        if not count.is_exact:
            message = f"More than {MAX_JOBS:,} jobs match: use a filter that fewer jobs match."
            raise RequestError("expected", message)
        page = self._lists.page(job_filter, per_page=SAMPLE_SIZE)
        return ActionPreview(count=count.value, sample=page.jobs)

    def _preview_group(self, job_filter: JobFilter, group_id: str) -> ActionPreview:
        jobs = self._groups.find(job_filter, group_id)
        ids = [job_id for job in jobs[:SAMPLE_SIZE] if (job_id := to_text(job.get("jobId")))]
        # Jobs of several owners can have the same printed id.
        selected = self._lists.look_up(ids, JobFilter(), job_filter.owner)
        return ActionPreview(count=len(jobs), sample=[job for job, _ in selected][:SAMPLE_SIZE])


def require_suitable(action: str, job_filter: JobFilter, support: ActionSupport) -> JobFilter:
    """The filter, narrowed as by `narrow_to_action`; RefusedFilterError if there can be no job."""
    narrowed = narrow_to_action(action, job_filter, support)
    if narrowed is None:
        has_status = narrow_filter(job_filter, support.statuses[action]) is not None
        name = "condition" if has_status else "status"
        raise RefusedFilterError(name, f"No job with this {name} can be changed by {action}.")
    return narrowed


def narrow_to_action(
    action: str,
    job_filter: JobFilter,
    support: ActionSupport,
    created_before: datetime | None = None,
) -> JobFilter | None:
    """The filter, narrowed to jobs that an action can change; None if there can be no such job.

    `created_before`: only jobs that were created before this time, if jobs record that. A filter
    with a condition has no such bound, because no index serves both: compare each job. The result
    has no `error_group`: `GroupJobReader` selects the jobs of a group.
    """
    job_filter = replace(job_filter, error_group=None)
    narrowed = narrow_filter(job_filter, support.statuses[action])
    if narrowed is None:
        return None
    condition = ACTION_CONDITIONS.get(JobAction(action))
    if condition is not None:
        if narrowed.condition not in (None, condition):  # no job meets two conditions
            return None
        narrowed = replace(narrowed, condition=condition)
    has_bound = support.has_creation_time and narrowed.condition is None
    if created_before is not None and has_bound:
        end = narrowed.created_to
        narrowed = replace(narrowed, created_to=min(end or created_before, created_before))
    return narrowed
