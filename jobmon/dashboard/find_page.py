"""The page of the search box: opens the page that a text means, or lists what it may mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import redirect, render_template, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api.parameters import read_parameter
from jobmon.api.search_meanings import (
    Meaning,
    MeaningKind,
    Meanings,
    find_meanings,
    make_list_query,
)
from jobmon.api.search_text import list_keys, parse_search, shown_key, to_parameters
from jobmon.dashboard import session
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.dashboard.queues_page import queue_address
from jobmon.domain import CappedCount
from jobmon.humanize import grouped
from jobmon.page_addresses import error_address, job_address, query, type_address, worker_address
from jobmon.store.bson_json import to_text
from jobmon.store.filter import RefusedFilterError
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.queues import all_queues, current_queue

# The address of a page, by the text that opens it.
PAGES = {
    "overview": "/dashboard",
    "jobs": "/dashboard/jobs",
    "errors": "/dashboard/errors",
    "workers": "/dashboard/workers",
    "schedule": "/dashboard/schedule",
    "recurring": "/dashboard/recurring",
    "my jobs": "/dashboard/my",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A meaning of a text, and the address that a click on this choice opens."""

    meaning: Meaning
    address: str

    @property
    def note(self) -> str:
        """What the text means in this choice, and the number of matching jobs if known."""
        if (jobs := self.meaning.jobs) is None:
            is_list = self.meaning.kind is MeaningKind.JOBS
            return f"jobs by {self.meaning.note}" if is_list else self.meaning.note
        unit = "job" if jobs == CappedCount(1, True) else "jobs"
        more = "" if jobs.is_exact else " or more"
        return f"{self.meaning.note}, {grouped(jobs.value)} {unit}{more}"


def find_queue() -> BaseResponse | str:
    """Open the only queue whose name contains the text, or list queues to search in."""
    session.require_session()
    text = read_parameter("q").strip()
    queues = [queue for queue in all_queues().all_settings() if auth.may_know(queue)]
    matching = [queue for queue in queues if text.lower() in queue.queue.lower()]
    if is_part_request():
        return ""  # no suggestions: the script finds the queues in the menu of the page
    if text and len(matching) == 1:
        return redirect(queue_address(matching[0]) + "/dashboard")
    choices = [
        (queue.queue, f"{queue_address(queue)}/dashboard/find{query(q=text)}")
        for queue in matching or queues
    ]
    return render_template(
        "dashboard/find_queue.html", search=parse_search(text, ()), choices=choices
    )


def find() -> BaseResponse | str:
    """Open the page that the text means, or list all choices; for a script, suggestions."""
    session.require_session()
    auth.require_known_queue()
    owner = None if auth.is_admin() else auth.subject()
    text = read_parameter("q").strip()
    meanings = find_meanings(current_queue(), text, owner)
    context = {
        "choices": [
            Choice(meaning=meaning, address=request.script_root + _link_address(meaning, owner))
            for meaning in meanings.found
        ],
        "search": meanings.search,
        "reasons": meanings.reasons,
    }
    if is_part_request():
        return conditional_response(render_template("dashboard/_suggestions.html", **context))
    if (address := _choose_address(meanings, owner)) is not None:
        return redirect(request.script_root + address)
    fields = current_queue().settings.search_fields
    return render_template(
        "dashboard/find.html",
        keys=list_keys(fields, is_operator=owner is None),
        field=shown_key(fields[0], fields) if fields else None,
        **context,
    )


def _choose_address(meanings: Meanings, owner: str | None) -> str | None:
    """The address of the page to open at once; None to list the choices.

    The id of a job comes first, then the name of a page, then the meaning if there is only one.
    """
    exact = [meaning for meaning in meanings.found if meaning.is_exact]
    if exact and exact[0].kind is MeaningKind.JOB:
        return job_address(exact[0].value)
    if meanings.search.problems:
        return None
    if not exact and owner is None and (page := PAGES.get(meanings.search.text.lower())):
        return page
    main_meanings = exact or _drop_secondary(meanings.found)
    if len(main_meanings) != 1:
        return None
    (meaning,) = main_meanings
    if meaning.kind is not MeaningKind.JOBS:
        return _page_address(meaning, owner)
    jobs = _read_first_jobs(meaning, owner)
    if jobs == [] and len(meanings.found) > 1:
        return None  # no job has this value: list all meanings
    job_id = to_text(jobs[0].get("jobId")) if jobs and len(jobs) == 1 else None
    return _page_address(meaning, owner) if job_id is None else job_address(job_id)


def _drop_secondary(meanings: Sequence[Meaning]) -> list[Meaning]:
    """The meanings without keys of filters, and without those that a list of jobs covers."""
    has_ids = any("job_id" in meaning.filters for meaning in meanings)
    secondary = {MeaningKind.KEY, *([MeaningKind.JOB] if has_ids else [])}
    if any(meaning.kind is MeaningKind.JOBS for meaning in meanings):
        secondary |= {MeaningKind.TYPE, MeaningKind.WORKER}
    return [meaning for meaning in meanings if meaning.kind not in secondary]


def _read_first_jobs(meaning: Meaning, owner: str | None) -> list[Document] | None:
    """At most two jobs of a list; None if the list is refused: its page explains why."""
    try:
        job_filter = make_list_query(meaning.filters, owner).job_filter
        return current_queue().lists.page(job_filter, per_page=2).jobs
    except (ValidationError, RefusedFilterError):
        return None


def _page_address(meaning: Meaning, owner: str | None) -> str:
    """The address of the page of a meaning."""
    match meaning.kind:
        case MeaningKind.JOB:
            return job_address(meaning.value)
        case MeaningKind.JOBS:
            path = "/dashboard/jobs" if owner is None else "/dashboard/my"
            return path + query(**to_parameters(meaning.filters))
        case MeaningKind.ERROR:
            return error_address(meaning.value)
        case MeaningKind.TYPE:
            return type_address(meaning.value)
        case MeaningKind.WORKER:
            return worker_address(meaning.value)
    return f"/dashboard/find{query(q=meaning.text)}"


def _link_address(meaning: Meaning, owner: str | None) -> str:
    """The address that a choice opens; for a list of one job, a search that opens this job."""
    if meaning.jobs == CappedCount(1, True) and meaning.text is not None:
        return f"/dashboard/find{query(q=meaning.text)}"
    return _page_address(meaning, owner)
