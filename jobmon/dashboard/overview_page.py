"""The routes of the overview: the page, its part for updates, and the data of the charts."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from flask import Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api.mute_requests import may_mute
from jobmon.api.parameters import read_parameter
from jobmon.dashboard import session
from jobmon.dashboard.action_buttons import list_type_buttons
from jobmon.dashboard.charts import list_marks, make_chart_columns, make_past_columns
from jobmon.dashboard.error_rows import read_top_errors
from jobmon.dashboard.facts import PreviousPeriod, gather_facts, read_previous
from jobmon.dashboard.overview import make_overview
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.type_table import MAX_SEARCH_LENGTH, SORTS, TYPES_SHOWN, select_types
from jobmon.diagnosis.evidence import Missing
from jobmon.diagnosis.evidence_reader import gather_evidence
from jobmon.diagnosis.notices import TypeCondition
from jobmon.rollup.series import NoCollectorError, TooManyTypesError
from jobmon.single_flight import SingleFlightCache
from jobmon.web import auth
from jobmon.web.compression import SharedContent
from jobmon.web.errors import invalid, unavailable
from jobmon.web.json_text import dump_json
from jobmon.web.queues import current_queue

CACHE_TTL_S = 1  # how long viewers of the same overview share one answer
CACHE_SIZE = 100
DEFAULT_SORT = "-queued"
PREVIOUS = "previous"


@dataclass(frozen=True, kw_only=True)
class OverviewQuery:
    """The parameters of an overview: its time window, and the filters and order of its types.

    `compare` is `previous` to compare the window with the period before it, or empty. `type` limits
    the charts to a type. `by` is the order of the types, `text` a part of their names, `only` a
    `TypeCondition`; an empty filter selects all types.
    """

    window: PageWindow
    compare: str
    type: str
    by: str
    text: str
    only: str

    @classmethod
    def from_request(cls) -> Self:
        """The query in this request's address; raises ApiError 422 if a parameter is bad."""
        return cls._read(request.query_string)

    @classmethod
    @lru_cache(CACHE_SIZE)
    def _read(cls, _query_string: bytes) -> Self:
        """The query in this request, cached by its query string, which open pages send again."""
        window = PageWindow.from_request("1h")
        by = read_parameter("by", DEFAULT_SORT)
        if by.removeprefix("-") not in SORTS:
            raise invalid("by", f"One of {', '.join(SORTS)}; with a leading - in descending order.")
        only = read_parameter("only")
        if only not in ("", *TypeCondition):
            raise invalid("only", f"One of {', '.join(TypeCondition)}.")
        compare = read_parameter("compare")
        if compare not in ("", PREVIOUS):
            raise invalid("compare", f"Only {PREVIOUS}.")
        text = read_parameter("text")[:MAX_SEARCH_LENGTH]
        job_type = read_parameter("type")
        return cls(window=window, compare=compare, type=job_type, by=by, text=text, only=only)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in the addresses of the overview, without `type`."""
        choices = {"by": self.by, "text": self.text, "only": self.only, "compare": self.compare}
        return {**self.window.parameters, **choices}


class OverviewPage:
    """The routes of the overview."""

    def __init__(self) -> None:
        self._answers: SingleFlightCache[SharedContent] = SingleFlightCache(CACHE_SIZE)

    def page(self) -> BaseResponse | str:
        """The overview; callers who may not see it are redirected to their own jobs."""
        session.require_session()
        if not auth.is_admin():
            auth.require_known_queue()
            return redirect(url_for("dashboard.own_jobs"))
        query = OverviewQuery.from_request()
        return render_template(
            "dashboard/overview.html",
            part=self._part(query).text,
            window=query.window,
            shown_window=query.window.resolve(current_queue().series, datetime.now(UTC)),
            parameters=query.parameters,
            may_mute=may_mute(),
            may_resume=bool(list_type_buttons(is_paused=True).kinds),
        )

    def part(self) -> Response:
        """The part of the overview that updates itself."""
        session.require_admin()
        return self._part(OverviewQuery.from_request()).respond("text/html")

    def charts(self) -> Response:
        """The data of `make_chart_columns`, with marks and the lines of the period before."""
        session.require_admin()
        query = OverviewQuery.from_request()
        key = (query.window, query.compare, query.type)
        content = self._share(key, lambda: self._read_charts(query))
        return content.respond("application/json")

    def _part(self, query: OverviewQuery) -> SharedContent:
        return self._share(query, lambda: self._render(query))

    def _share(self, key: Hashable, render: Callable[[], str]) -> SharedContent:
        # The path of the queue is part of the addresses in the answer.
        shared_key = request.script_root, key
        return self._answers.get(shared_key, lambda: SharedContent(render().encode()), CACHE_TTL_S)

    def _render(self, query: OverviewQuery) -> str:
        """The part, the same for all viewers: it must contain nothing about a caller."""
        queue, now = current_queue(), datetime.now(UTC)
        facts = gather_facts(queue, query.window, now, compares=bool(query.compare))
        view = make_overview(facts, queue.mutes.find_active(now))
        only = view.types_by_condition[query.only] if query.only else None
        rows = select_types(view.types, query.by, query.text, only)
        paused = facts.evidence.pauses
        return render_template(
            "dashboard/_overview.html",
            overview=view,
            rows=rows[:TYPES_SHOWN],
            type_count=len(rows),
            paused=paused,
            other_paused_types=sorted(paused.keys() - {row.name for row in rows[:TYPES_SHOWN]}),
            top_errors=read_top_errors(queue, query.window, facts.window),
            window=query.window,
            parameters=query.parameters,
        )

    def _read_charts(self, query: OverviewQuery) -> str:
        queue = current_queue()
        window = query.window.resolve(queue.series, datetime.now(UTC))
        try:
            history = queue.series.history_by_step(window, (query.type,) if query.type else ())
        except TooManyTypesError:
            raise invalid("type", "Too many job types in this window to show one alone.") from None
        except NoCollectorError:
            evidence = gather_evidence(queue, datetime.now(UTC))
            code = "collector_unavailable"
            if (
                isinstance(evidence.hour_by_minute, Missing)
                and evidence.hour_by_minute.lacks_indexes
            ):
                code = "indexes_missing"
            elif evidence.has_collector:
                code = "history_unavailable"
            raise unavailable(code, "There is no history of this window.") from None
        unknown = queue.known_fields.unknown
        columns = make_chart_columns(history, window.step, unknown)
        columns["marks"] = list_marks(queue.marks.find(window.start, window.end))
        previous = None
        if query.compare and not query.type:
            previous = read_previous(queue, window, query.window.distance(window))
        columns["previous"] = (
            make_past_columns(previous.history_by_step, window.step, unknown)
            if isinstance(previous, PreviousPeriod)
            else None
        )
        return dump_json(columns)
