"""The pages that list jobs: all of them, and the caller's own."""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from flask import render_template, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api.job_lists import ListResponder
from jobmon.api.queries import ListFormat, ListParameters, ListQuery, OwnListParameters
from jobmon.api.search import read_search
from jobmon.dashboard import session
from jobmon.dashboard.formatting import instant
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.domain import JobStatus
from jobmon.store.labels import is_filter
from jobmon.web import auth
from jobmon.web.errors import ApiError
from jobmon.web.queues import current_queue

PER_PAGE = 25
HELD_ROWS_HEADER = "X-Jobmon-Held"  # percent-encoded job ids of these rows, separated by commas
SUGGESTED_TYPES = 200
SUGGESTED_STATUSES = 20
# The labels of the filters; parameters without a field keep their names.
LABELS = {
    "status": "Status",
    "job_id": "Job id",
    "type": "Type",
    "owner": "Owner",
    "error_code": "Error code",
    "worker": "Worker",
    "condition": "Condition",
    "finished_from": "Finished since",
    "finished_to": "Finished before",
    "created_from": "From",
    "created_to": "To",
    "sort": "Order",
}
_PARAMETER = re.compile(rf"\b({'|'.join(LABELS)})\b")

Page = BaseResponse | str | tuple[str, int]


class JobListPages:
    """The routes of the lists of jobs."""

    def __init__(self, responder: ListResponder) -> None:
        self._responder = responder

    def all_jobs(self) -> Page:
        """All jobs, for an admin."""
        session.require_admin()
        return self._list(None)

    def own_jobs(self) -> Page:
        """The caller's own jobs."""
        session.require_session()
        auth.require_owners()
        return self._list(auth.subject())

    def _list(self, owner: str | None) -> Page:
        schema = ListParameters() if owner is None else OwnListParameters()
        parameters, errors, shown = _list_parameters(), {}, None
        jobs: list[JobView] = []
        is_page = parameters.get("format", ListFormat.JSON) == ListFormat.JSON
        try:
            defaults = {"per_page": PER_PAGE} if is_page else {}
            query: ListQuery = schema.load(defaults | parameters)
            if owner is not None:
                query = query.confine_to(owner)
            if query.format is not ListFormat.JSON:
                return self._responder.export(query)
            parameters = _show_window(parameters, query)
            page = self._responder.page(query)
            jobs += map(JobView.from_document, page.jobs)
            shown = {"meta": page.meta, "jobs": jobs}
        except ValidationError as error:
            errors = error.messages_dict
        except ApiError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            errors = error.details or {}
        search_fields = current_queue().settings.search_fields
        filters = [*search_fields, *(name for name in LABELS if name != "sort")]
        context = {
            "parameters": parameters,
            "errors": {name: _show_error(name, texts) for name, texts in errors.items()},
            "labels": LABELS,
            "filtered": any(parameters.get(name) for name in filters),
            "shown": shown,
            "now": datetime.now(UTC),
            "own": owner is not None,
            "finds_owners": current_queue().known_fields.can_query("createdBy"),
            "finds_codes": current_queue().known_fields.can_query("lastError.code"),
            "search_fields": search_fields,
            "path": request.script_root + request.path,
        }
        if is_part_request() and shown is not None:
            context |= self._held_rows(query, jobs, owner)
            return conditional_response(render_template("dashboard/_jobs.html", **context))
        types, statuses = self._suggestions() if owner is None else ([], [])
        html = render_template(
            "dashboard/jobs.html", types=types, unknown_statuses=statuses, **context
        )
        return html, HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK

    def _held_rows(
        self, query: ListQuery, shown: list[JobView], owner: str | None
    ) -> dict[str, Any]:
        """The rows that a browser keeps in place although they are no longer on the page.

        `held`: the present state of these jobs, each with whether it still matches the filters.
        `gone`: the ids of those that no longer exist.
        """
        ids = [unquote(held) for held in request.headers.get(HELD_ROWS_HEADER, "").split(",")]
        missing = list(dict.fromkeys(filter(None, ids[:PER_PAGE])))
        for job in shown:
            if job.id in missing:
                missing.remove(job.id)
        found = current_queue().lists.look_up(missing, query.job_filter, owner)
        held = [(JobView.from_document(job), matches) for job, matches in found]
        existing = {job.id for job, _ in held}
        return {"held": held, "gone": [job_id for job_id in missing if job_id not in existing]}

    def _suggestions(self) -> tuple[list[str], list[str]]:
        """The types of the queue, and its statuses in addition to the known ones."""
        stats = current_queue().stats.stats()
        types = sorted(filter(is_filter, stats.type_counts() or {}))
        unknown = set(stats.status_counts() or {}) - set(JobStatus)
        return types[:SUGGESTED_TYPES], sorted(filter(is_filter, unknown))[:SUGGESTED_STATUSES]


def _list_parameters() -> dict[str, Any]:
    """The list's parameters in this request's address; empty ones are left out."""
    repeated = ("status", "type")
    fields = ListParameters().fields
    single = {field.data_key or name for name, field in fields.items()} - set(repeated)
    parameters: dict[str, Any] = {
        name: [value for value in request.args.getlist(name) if value] for name in repeated
    }
    given = {name: request.args[name] for name in single if request.args.get(name)}
    return parameters | given | read_search(request.args)


def _show_window(parameters: dict[str, Any], query: ListQuery) -> dict[str, Any]:
    """The parameters with a time window as the times of creation, for which the form has fields."""
    names = ("from", "to", "range")
    if not any(name in parameters for name in names):
        return parameters
    kept = {name: value for name, value in parameters.items() if name not in names}
    created = {
        "created_from": instant(query.job_filter.created_from),
        "created_to": instant(query.job_filter.created_to),
    }
    return kept | {name: text for name, text in created.items() if text}


def _show_error(name: str, messages: Any) -> str:
    """The messages about a parameter as one line, with the labels of the page.

    The messages about a repeated parameter are a dictionary, by its position.
    """
    if name == "cursor":
        return "This page link is no longer valid."
    if isinstance(messages, dict):
        messages = [text for texts in messages.values() for text in texts]
    text = _PARAMETER.sub(lambda found: f'"{LABELS[found[0]]}"', " ".join(dict.fromkeys(messages)))
    return f"{LABELS.get(name, name)}: {text}"
