"""The pages that list jobs: all jobs, and the caller's own jobs."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from flask import render_template, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api.job_lists import ListPage, ListResponder
from jobmon.api.owner_counts import OwnerJobCounter
from jobmon.api.parameters import SentParameters
from jobmon.api.queries import ListFormat, ListQuery, load_list_query
from jobmon.dashboard import session
from jobmon.dashboard.action_buttons import list_selection_buttons, write_filter
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.list_form import (
    LONGEST_FIRST,
    ListForm,
    choose_fields,
    read_parameters,
)
from jobmon.dashboard.list_tabs import StatusTabs
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, CappedCount, JobCondition, JobStatus
from jobmon.store.filter import JobFilter
from jobmon.store.labels import can_filter_by
from jobmon.store.stats import QueueStats
from jobmon.web import auth
from jobmon.web.errors import ApiError, invalid_parameters
from jobmon.web.queues import current_queue

PER_PAGE = 25
# The percent-encoded ids of the jobs whose rows must not move now, separated by commas.
HELD_ROWS_HEADER = "X-Jobmon-Held"
MAX_HELD = 100  # the number of jobs on the largest page
SUGGESTED_TYPES = 200
MAX_REMOVALS = 6  # filters that an empty list offers to remove; each offer costs a query

Answer = BaseResponse | str | tuple[str, int]


class JobListPages:
    """The routes of the lists of jobs."""

    def __init__(self, responder: ListResponder, counter: OwnerJobCounter) -> None:
        self._responder = responder
        self._counter = counter

    def all_jobs(self) -> Answer:
        """All jobs, for an admin."""
        session.require_admin()
        return self._list(None)

    def own_jobs(self) -> Answer:
        """The caller's own jobs."""
        session.require_session()
        auth.require_known_queue()
        return self._list(auth.subject())

    def _list(self, owner: str | None) -> Answer:
        parameters = read_parameters()
        page, refusal = None, None
        try:
            query = load_query(parameters, owner, parameters.repeated)
            if query.format is not ListFormat.JSON:
                return self._responder.export(query)
            page = self._responder.page(query)
        except ValidationError as error:
            refusal = invalid_parameters(error.messages_dict)
        except ApiError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            refusal = error
        if refusal is not None and is_part_request():
            raise refusal
        errors = (refusal and refusal.details) or {}
        form = _make_form(parameters, errors, owner)
        stats = _read_stats(owner)
        owner_counts = None
        if owner is not None and page is not None and form.is_by_status_and_type:
            types = tuple(sorted({*parameters["type"]} - {""}))
            owner_counts = self._counter.count(current_queue(), owner, types)
        tabs = StatusTabs(form, stats or owner_counts, _read_total(page, parameters))
        has_schedule = owner is None and current_queue().known_fields.can_query("nextRunAt")
        now = datetime.now(UTC)
        context: dict[str, Any] = {
            "form": form,
            "is_own_list": owner is not None,
            "now": now,
            "stats": stats,
            "tabs": tabs.list(has_schedule=has_schedule),
            "due_links": tabs.link_due_jobs(now),
            "when_heading": _choose_heading(parameters),
            "actions": list_selection_buttons(parameters, is_own=owner is not None),
            "filter": write_filter(parameters),
            "by_duration": parameters.get("sort") == LONGEST_FIRST,
        }
        if page is not None:
            context |= {"meta": page.meta, "jobs": list(map(JobView.from_document, page.jobs))}
            context["order"] = parameters.get("sort") or f"-{page.job_filter.order_field}"
        if page is not None and is_part_request():
            context |= _find_held_rows(page.job_filter, context["jobs"], owner)
            return conditional_response(
                render_template("dashboard/_jobs.html", is_update=True, **context)
            )
        if page is not None and not page.jobs:
            context["removals"] = [
                chip
                for chip in form.all_chips[:MAX_REMOVALS]
                if self._has_jobs(chip.other_parameters, owner)
            ]
        html = render_template("dashboard/jobs.html", types=_suggest_types(stats), **context)
        return html, HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK

    def _has_jobs(self, parameters: Mapping[str, Any], owner: str | None) -> bool:
        """Whether the list with these parameters has jobs; False if they are invalid."""
        try:
            query = replace(load_query(parameters, owner), per_page=1)
            return bool(self._responder.page(query).jobs)
        except (ValidationError, ApiError) as error:
            if isinstance(error, ApiError) and error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            return False


def load_query(
    parameters: Mapping[str, Any], owner: str | None, repeated: Collection[str] = ()
) -> ListQuery:
    """The query with these parameters; a page has 25 jobs by default. Raises ValidationError.

    `repeated`: as in `SentParameters`.
    """
    is_page = parameters.get("format", ListFormat.JSON) == ListFormat.JSON
    defaults = {"per_page": PER_PAGE} if is_page else {}
    return load_list_query(SentParameters({**defaults, **parameters}, repeated), owner)


def _make_form(parameters: dict[str, Any], errors: dict[str, Any], owner: str | None) -> ListForm:
    queue = current_queue()
    fields = choose_fields(
        parameters,
        queue.settings.search_fields,
        queue.known_fields.can_query,
        is_own=owner is not None,
    )
    return ListForm(request.script_root + request.path, parameters, fields, errors)


def _read_stats(owner: str | None) -> QueueStats | None:
    """The stats for the tabs; None for an owner, or for a page update if none are cached."""
    if owner is not None:
        return None
    stats = current_queue().stats
    return stats.cached_stats() if is_part_request() else stats.stats()


def _read_total(page: ListPage | None, parameters: dict[str, Any]) -> CappedCount | None:
    """How many jobs match the filters; None if unknown."""
    if page is None or "data" in page.meta["reasons"] or parameters.get("sort") == LONGEST_FIRST:
        return None
    return CappedCount(page.meta["total"], page.meta["total_is_exact"])


def _choose_heading(parameters: dict[str, Any]) -> str:
    """The heading of the column of dates: one name if all jobs show the same date."""
    statuses = set(parameters["status"])
    condition = parameters.get("condition")
    for heading, names in (
        ("Due", ("due_from", "due_to")),
        ("Finished", ("finished_from", "finished_to")),
    ):
        if any(parameters.get(name) for name in names):
            return heading
    if condition:
        return "Lease" if condition == JobCondition.EXPIRED else "Due"
    for heading, dated_statuses in (
        ("Due", WAITING_STATUSES),
        ("Lease", (JobStatus.LEASED,)),
        ("Finished", FINAL_STATUSES),
    ):
        if statuses and statuses <= set(dated_statuses):
            return heading
    return "Due, lease or finish"


def _suggest_types(stats: QueueStats | None) -> list[str]:
    counts = (stats and stats.type_counts()) or {}
    return sorted(filter(can_filter_by, counts))[:SUGGESTED_TYPES]


def _find_held_rows(
    job_filter: JobFilter, shown: list[JobView], owner: str | None
) -> dict[str, Any]:
    """The rows that a browser keeps in place although their jobs are no longer on the page.

    `held_rows`: these jobs in their present state, each with whether it still matches the filters.
    `gone_ids`: the ids of jobs that no longer exist, or that the caller has no right to see.
    """
    ids = [unquote(held_id) for held_id in request.headers.get(HELD_ROWS_HEADER, "").split(",")]
    on_page = {"", *(job.id for job in shown)}
    off_page = [held_id for held_id in dict.fromkeys(ids) if held_id not in on_page][:MAX_HELD]
    looked_up = current_queue().lists.look_up(off_page, job_filter, owner)
    held_rows = [(JobView.from_document(job), is_matching) for job, is_matching in looked_up]
    existing = {job.id for job, _ in held_rows}
    return {
        "held_rows": held_rows,
        "gone_ids": [job_id for job_id in off_page if job_id not in existing],
    }
