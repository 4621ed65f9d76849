"""The page with a row for each watched queue, and the menu that leads to the queues."""

from dataclasses import dataclass

from flask import Response, request

from jobmon.api.queues import QueueSummaries, QueueSummary, list_queues
from jobmon.dashboard import session
from jobmon.dashboard.parts import render_page
from jobmon.diagnosis.notices import UNKNOWN, Level
from jobmon.settings import Settings
from jobmon.web import auth
from jobmon.web.queues import all_queues, current_queue, current_settings, root_path

# The levels in the order of their rows; rows with other levels follow.
_ORDER = (Level.BAD, Level.WATCH, UNKNOWN)
_PATH = "/dashboard/queues"
# From these pages the menu leads to the same page of another queue, from others to its overview.
_SAME_PAGES = (
    "/dashboard",
    "/dashboard/jobs",
    "/dashboard/errors",
    "/dashboard/my",
    "/dashboard/schedule",
)


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """A queue on the page; `address` leads to its overview, or to the caller's own jobs."""

    name: str
    environment: str | None
    address: str
    summary: QueueSummary | None  # None for a caller who may see only own jobs

    @property
    def rank(self) -> int:
        """The position of the row's level in `_ORDER`; one more than the last for other levels."""
        level = None if self.summary is None else self.summary.level
        return _ORDER.index(level) if level in _ORDER else len(_ORDER)


class QueuesPage:
    """The route of the page."""

    def __init__(self, summaries: QueueSummaries) -> None:
        self._summaries = summaries

    def page(self) -> Response | str:
        """All queues that the caller may know."""
        session.require_session()
        rows = [_make_row(queue, summary) for queue, summary in list_queues(self._summaries)]
        rows.sort(key=lambda row: row.rank)
        return render_page("queues", rows=rows)


def _make_row(queue: Settings, summary: QueueSummary | None) -> QueueRow:
    page = "/dashboard/my" if summary is None else "/dashboard"
    return QueueRow(
        name=queue.queue,
        environment=queue.environment,
        address=queue_address(queue) + page,
        summary=summary,
    )


def queue_address(queue: Settings) -> str:
    """The prefix of the addresses of a queue's pages, without a final slash."""
    return f"{root_path()}/queues/{queue.queue}"


def is_about_one_queue() -> bool:
    """Whether this request is for a page of one queue; False if a signed-in caller may not know it.

    Without a valid token, it is the same whether or not the queue exists.
    """
    if request.path.startswith(_PATH):
        return False
    current = current_settings()
    return not auth.is_authenticated() or (current is not None and auth.may_know(current))


@dataclass(frozen=True, kw_only=True)
class ShownQueue:
    """The queue that a page is about; without a name, `name` is that of its collection."""

    name: str
    environment: str | None


def find_shown_queue() -> ShownQueue | None:
    """The queue of this page; None without one, or if the caller is unknown or may not know it."""
    current = current_settings()
    if current is None or not auth.is_authenticated() or not is_about_one_queue():
        return None
    name = current.queue
    if current.queues is None:  # the only queue has no name
        name = current_queue().connection.jobs.collection.full_name
    return ShownQueue(name=name, environment=current.environment)


def make_menu() -> list[tuple[str, str]] | None:
    """(name, address) of each queue in the menu; None for one queue, or without a valid token."""
    queues = all_queues()
    if len(queues) == 1 or not auth.is_authenticated():
        return None
    path = request.path if request.path in _SAME_PAGES else "/dashboard"
    return [
        (queue.queue, queue_address(queue) + path)
        for queue in queues.all_settings()
        if auth.may_know(queue)
    ]
