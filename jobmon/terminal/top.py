"""`jobmon top`: a queue in the terminal, kept up to date."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static, TabbedContent, TabPane

from jobmon.domain import JobStatus
from jobmon.terminal.client import AnswerError, ApiClient, expecting_form
from jobmon.terminal.tables import (
    ERRORS,
    JOBS,
    TYPES,
    WORKERS,
    Columns,
    describe_meta,
    format_plain,
    show_job,
    show_stats,
)

REFRESH_S = 2.0
ROWS = 50  # rows of a list on one page
MAX_NOTICES = 3
STATUSES = (None, *(status.value for status in JobStatus))  # None: jobs of any status


@dataclass(frozen=True)
class View:
    """The tab, window, filters and page that the viewer chose."""

    tab: str
    window: str
    filters: Mapping[str, str]  # of the list of jobs
    cursor: str | None  # of the page of jobs; None for the first page


@dataclass(frozen=True)
class Tab:
    """A tab with a list: its columns, and how its rows are read."""

    title: str
    columns: Columns
    read: Callable[[ApiClient, View], Mapping[str, Any]]
    key: str  # the field that identifies a row
    filter: str | None  # the filter that selects a row's jobs; None if a row is a job


TABS = {
    "types": Tab(
        "Types", TYPES, lambda client, view: client.get_types(view.window), "type", "type"
    ),
    "errors": Tab(
        "Errors",
        ERRORS,
        lambda client, view: client.get_errors(range=view.window, per_page=ROWS),
        "id",
        "error_group",
    ),
    "workers": Tab(
        "Workers",
        WORKERS,
        lambda client, view: client.get_workers(range=view.window, per_page=ROWS),
        "name",
        "worker",
    ),
    "jobs": Tab(
        "Jobs",
        JOBS,
        lambda client, view: client.get_jobs(per_page=ROWS, cursor=view.cursor, **view.filters),
        "jobId",
        None,
    ),
}


@dataclass
class ViewData:
    """The data of a view; `failure` is the reason if they could not be read, else None.

    `answers`: the stats and the entry of the queue, shown as the `summary`. `rows`: the key and the
    cells of each row. `reasons`: why the rows are unknown or not complete.
    """

    view: View
    answers: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
    summary: RenderableType | None = None
    rows: Sequence[tuple[str | None, list[Text]]] = ()
    next_cursor: str | None = None
    reasons: Sequence[str] = ()
    failure: str | None = None


class JobScreen(ModalScreen[None]):
    """One job, kept up to date."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,u", "app.pop_screen", "Back"),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, client: ApiClient, job_id: str) -> None:
        super().__init__()
        self._client, self._job_id = client, job_id

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static("…", id="job")
        yield Footer()

    def on_mount(self) -> None:
        self.load()
        self.set_interval(REFRESH_S, self.load)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    @work(thread=True, exclusive=True)
    def load(self) -> None:
        """Read the job in a thread and show it."""
        try:
            job = self._client.get_job(self._job_id)
            with expecting_form(self._client):
                content: RenderableType = show_job(job)
        except AnswerError as error:
            content = Text(format_plain(error), style="red")
        self.app.call_from_thread(self.query_one("#job", Static).update, content)


class Top(App[None]):
    """The counts and notices of a queue above four tables."""

    TITLE = "jobmon"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: auto; max-height: 50%; padding: 0 1; }
    #note { height: auto; padding: 0 1; color: $text-error; }
    Screen { overflow: hidden; }
    TabbedContent { height: 1fr; }
    ContentSwitcher { height: 1fr; }
    TabPane { padding: 0; height: 1fr; }
    DataTable { height: 1fr; }
    JobScreen { align: center middle; }
    JobScreen VerticalScroll {
        width: 96%; height: 90%; padding: 0 1; border: round $primary; background: $surface;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "open('types')", "Types"),
        Binding("2", "open('errors')", "Errors"),
        Binding("3", "open('workers')", "Workers"),
        Binding("4", "open('jobs')", "Jobs"),
        Binding("s", "switch_status", "Status"),
        Binding("x", "clear_filters", "All jobs"),
        Binding("n", "turn_page(1)", "Next", show=False),
        Binding("p", "turn_page(-1)", "Previous", show=False),
        Binding("j", "move(1)", "Down", show=False),
        Binding("k", "move(-1)", "Up", show=False),
        Binding("P", "pause", "Pause"),
        Binding("question_mark", "help", "Keys"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, client: ApiClient, window: str) -> None:
        super().__init__()
        self._client, self._window = client, window
        self._job_filters: dict[str, str] = {}
        self._cursors: list[str | None] = [None]  # of each page of jobs from the first to the shown
        self._next_cursor: str | None = None
        self._is_paused = False
        self._answers: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None  # the shown ones

    def compose(self) -> ComposeResult:
        yield Static("…", id="summary")
        yield Static("", id="note")
        with TabbedContent(id="tabs"):
            for name, tab in TABS.items():
                with TabPane(tab.title, id=name):
                    yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        for name, tab in TABS.items():
            heads = [head.removeprefix(">") for head in tab.columns.heads]
            self._table(name).add_columns(*heads)
        self._focus_table()
        self.load()
        self.set_interval(REFRESH_S, self._load_again)

    def _load_again(self) -> None:
        if not self._is_paused:
            self.load()

    @property
    def tab(self) -> str:
        """The name of the tab that is shown."""
        return self.query_one(TabbedContent).active or "types"

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}").query_one(DataTable)

    @property
    def view(self) -> View:
        """The view that is shown now."""
        return View(self.tab, self._window, dict(self._job_filters), self._cursors[-1])

    @work(thread=True, exclusive=True)
    def load(self) -> None:
        """Read the data of the view in a thread, and show them."""
        view = self.view
        try:
            data = self._read(view)
        except AnswerError as error:
            data = ViewData(view, failure=str(error))
        self.call_from_thread(self._show, data)

    def _read(self, view: View) -> ViewData:
        tab, queue = TABS[view.tab], self._client.get_queue()
        stats, answer = self._client.get_stats(), tab.read(self._client, view)
        with expecting_form(self._client):
            answers = stats, _limit_notices(queue)
            return ViewData(
                view,
                answers=answers,
                summary=show_stats(*answers),
                rows=[(row[tab.key], tab.columns.cells(row)) for row in answer["data"] or ()],
                next_cursor=answer["meta"].get("next_cursor"),
                reasons=describe_meta(answer["meta"]),
            )

    def _show(self, data: ViewData) -> None:
        if data.view != self.view:  # the viewer has chosen another view, which is being read
            return
        note = " · ".join([*(["paused"] if self._is_paused else ()), *data.reasons])
        if data.failure is not None:
            note = f"not up to date: {format_plain(data.failure)}"
        self.query_one("#note", Static).update(Text(note))
        self._answers, summary = data.answers or self._answers, data.summary
        if summary is None and self._answers is not None:  # after a failure the shown age must grow
            summary = show_stats(*self._answers)
        if summary is not None:
            heading = " ".join(filter(None, (self._client.address, self._client.queue)))
            content = Group(Text(heading, style="bold"), summary)
            self.query_one("#summary", Static).update(content)
        if data.failure is None:
            self._next_cursor = data.next_cursor
            self._fill(data.view.tab, data.rows)

    def _fill(self, name: str, rows: Iterable[tuple[str | None, list[Text]]]) -> None:
        """Replace the rows; the cursor stays on its row, or at its position if the row is gone."""
        table = self._table(name)
        position = table.cursor_row
        cursor_key = self._find_cursor_key(name)
        table.clear()
        for key, cells in rows:
            # Without a key, Enter opens nothing: the job has no id, or the same as another job.
            is_new = key is not None and key not in table.rows
            table.add_row(*cells, key=key if is_new else None)
        if cursor_key is not None and cursor_key in table.rows:
            position = table.get_row_index(cursor_key)
        table.move_cursor(row=min(position, max(table.row_count - 1, 0)), animate=False)

    def _find_cursor_key(self, name: str) -> str | None:
        table = self._table(name)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a job, or the jobs of a type, an error group or a worker."""
        key, name = event.row_key.value, self.tab
        if key is None:
            return
        if (filter_name := TABS[name].filter) is None:
            self.push_screen(JobScreen(self._client, key))
        else:
            self._show_jobs({filter_name: key})

    def on_tabbed_content_tab_activated(self) -> None:
        """Read the data of the tab that was opened."""
        self._focus_table()
        self.load()

    def action_open(self, name: str) -> None:
        """Show a tab."""
        self.query_one(TabbedContent).active = name

    def action_switch_status(self) -> None:
        """Show the jobs of the next status."""
        current = STATUSES.index(self._job_filters.get("status"))
        filters = {name: value for name, value in self._job_filters.items() if name != "status"}
        status = STATUSES[(current + 1) % len(STATUSES)]
        self._show_jobs(filters | ({"status": status} if status else {}))

    def action_clear_filters(self) -> None:
        """Show all jobs."""
        self._show_jobs({})

    def _show_jobs(self, filters: dict[str, str]) -> None:
        self._job_filters, self._cursors = filters, [None]
        self._update_jobs_title()
        if self.tab == "jobs":
            self.load()
        else:
            self.action_open("jobs")

    def _update_jobs_title(self) -> None:
        filters = ", ".join(
            f"{name} {format_plain(value)}" for name, value in self._job_filters.items()
        )
        page = f", page {len(self._cursors)}" if len(self._cursors) > 1 else ""
        title = f"Jobs: {filters or 'all'}{page}"
        self.query_one(TabbedContent).get_tab("jobs").label = Text(title)

    def action_turn_page(self, step: int) -> None:
        """Show the next or the previous page of jobs."""
        if self.tab != "jobs":
            return
        if step > 0 and self._next_cursor is not None:
            self._cursors.append(self._next_cursor)
        elif step < 0 and len(self._cursors) > 1:
            self._cursors.pop()
        else:
            return
        self._next_cursor = None
        self._update_jobs_title()
        self.load()

    def action_move(self, rows: int) -> None:
        """Move the cursor of the table."""
        table = self._table(self.tab)
        table.move_cursor(row=table.cursor_row + rows, animate=False)

    def action_pause(self) -> None:
        """Pause the updates of the counts and tables, or continue them."""
        self._is_paused = not self._is_paused
        self.query_one("#note", Static).update(Text("paused" if self._is_paused else ""))

    def action_help(self) -> None:
        """Show what the keys do."""
        self.notify(
            "1-4 tables · j k move · Enter opens · Esc goes back · s next status of the jobs · "
            "x all jobs · n p pages of jobs · P pause · q quit",
            title="Keys",
            timeout=15,
        )

    def _focus_table(self) -> None:
        self._table(self.tab).focus()


def _limit_notices(queue: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry of a queue with its first three notices, and one line for all further notices."""
    notices = queue.get("notices") or []
    if len(notices) <= MAX_NOTICES:
        return queue
    more_notices = {"level": "watch", "text": f"and {len(notices) - MAX_NOTICES} more"}
    return {**queue, "notices": [*notices[:MAX_NOTICES], more_notices]}
