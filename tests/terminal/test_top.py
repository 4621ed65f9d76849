"""`jobmon top`: catches a table that does not follow the queue, and a failure that is hidden."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.database import Database

from jobmon.terminal import tables
from jobmon.terminal.client import AnswerError, ApiClient

from ..support.waiting import PATIENCE_S
from .test_tables import render_text

# textual is imported only by the process that runs these tests: its import takes a second of CPU.
if TYPE_CHECKING:
    from textual.pilot import Pilot

    from jobmon.terminal.top import Top

Steps = Callable[["Pilot[None]", "Top"], Awaitable[None]]


def run_top(client: ApiClient, steps: Steps, size: tuple[int, int] = (80, 24)) -> None:
    """Run the program without a terminal; `steps` presses keys and reads the screen."""

    from jobmon.terminal.top import Top  # noqa: PLC0415

    async def run() -> None:
        top = Top(client, "1h")
        async with top.run_test(size=size) as pilot:
            await steps(pilot, top)

    asyncio.run(run())


async def wait_until(pilot: "Pilot[None]", condition: Callable[[], Any]) -> Any:
    """Wait until the condition is true; returns its value."""
    for _ in range(PATIENCE_S * 20):
        if value := condition():
            return value
        await pilot.pause(0.05)
    raise AssertionError(f"{condition} did not come true")


def read_rows(top: "Top", tab: str) -> list[list[str]]:
    table = top.query_one(f"#{tab} DataTable")
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="80x24"),
        pytest.param((200, 50), id="200x50", marks=pytest.mark.long),
    ],
)
def test_types_are_shown_and_follow_the_queue(
    client: ApiClient, queue: Database[dict[str, Any]], size: tuple[int, int]
) -> None:
    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await wait_until(
            pilot, lambda: [row for row in read_rows(top, "types") if row[:2] == ["mail", "3"]]
        )
        queue.jobs.update_many({"type": "mail"}, {"$set": {"status": "dlq"}})
        # The fifth column has the dead jobs.
        await wait_until(pilot, lambda: [row for row in read_rows(top, "types") if row[4] == "3"])
        table = top.query_one("#types DataTable")
        assert table.region.bottom <= size[1]
        assert table.region.height >= 4

    run_top(client, steps, size)


def test_keys_lead_to_the_jobs_of_a_status_and_to_one_job(client: ApiClient) -> None:
    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await pilot.press("4")
        await wait_until(pilot, lambda: len(read_rows(top, "jobs")) == 4)
        await pilot.press(*"sssss")  # each press selects the next status
        await wait_until(pilot, lambda: [row[0] for row in read_rows(top, "jobs")] == ["dead"])
        await pilot.press("enter")
        await wait_until(pilot, lambda: type(top.screen).__name__ == "JobScreen")
        await pilot.press("escape", "x")  # close the job, then remove the filters
        await wait_until(pilot, lambda: len(read_rows(top, "jobs")) == 4)

    run_top(client, steps)


def test_jobs_without_an_id_and_with_the_same_id_have_a_row_each(
    client: ApiClient, queue: Database[dict[str, Any]]
) -> None:
    queue.jobs.drop_indexes()
    queue.jobs.insert_many([{"status": "dlq"} for _ in range(2)])
    queue.jobs.insert_many([{"jobId": "twice", "status": "dlq"} for _ in range(2)])

    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await pilot.press("4")
        await wait_until(pilot, lambda: len(read_rows(top, "jobs")) == 8)
        ids = [row[0] for row in read_rows(top, "jobs")]
        assert ids.count("twice") == ids.count("–") == 2

    run_top(client, steps)


def test_keys_open_the_next_and_the_previous_page_of_jobs(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.terminal.top.ROWS", 3)

    def read_title(top: "Top") -> str:
        return str(top.query_one("TabbedContent").get_tab("jobs").label)

    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await pilot.press("4")
        await wait_until(pilot, lambda: len(read_rows(top, "jobs")) == 3)
        await pilot.press("n")
        await wait_until(pilot, lambda: [row[0] for row in read_rows(top, "jobs")] == ["dead"])
        assert read_title(top) == "Jobs: all, page 2"
        await pilot.press("p")
        await wait_until(pilot, lambda: len(read_rows(top, "jobs")) == 3)
        assert read_title(top) == "Jobs: all"

    run_top(client, steps)


def test_type_leads_to_its_jobs(client: ApiClient) -> None:
    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await wait_until(pilot, lambda: read_rows(top, "types"))
        first_type = read_rows(top, "types")[0][0]
        await pilot.press("enter")
        await wait_until(pilot, lambda: read_rows(top, "jobs"))
        assert {row[1] for row in read_rows(top, "jobs")} == {first_type}

    run_top(client, steps)


def test_failure_is_shown_and_old_values_stay(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_parameters: Any) -> Any:
        raise AnswerError("no answer from http://jobmon.test\x1b[2J")

    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await wait_until(pilot, lambda: read_rows(top, "types"))
        with monkeypatch.context() as patch:
            patch.setattr(ApiClient, "get_stats", fail)
            note = top.query_one("#note")
            await wait_until(pilot, lambda: "not up to date" in str(note.content))
            assert "\\x1b" in str(note.content)
            assert read_rows(top, "types")
            patch.setattr(tables, "format_time", lambda _: "09:00:00 (1 h ago)")
            summary = top.query_one("#summary")
            await wait_until(pilot, lambda: "(1 h ago)" in render_text(summary.content))
        await wait_until(pilot, lambda: "not up to date" not in str(note.content))

    run_top(client, steps)


@pytest.mark.parametrize("method", ["get_stats", "get_types"])
def test_answer_of_another_form_is_one_line(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(client, method, lambda *_: {"data": [{}], "meta": {}})

    async def see_the_failure(pilot: "Pilot[None]", top: "Top") -> None:
        await wait_until(pilot, lambda: "unknown form" in str(top.query_one("#note").render()))

    run_top(client, see_the_failure)


def test_unknown_rows_have_their_reason(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a program that ends with a stack trace, as for workers whose names nobody records."""
    unknown = {"data": None, "meta": {"reasons": {"data": "No worker has a name."}}}
    monkeypatch.setattr(client, "get_types", lambda _: unknown)

    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        note = top.query_one("#note")
        await wait_until(pilot, lambda: str(note.render()) == "data: No worker has a name.")
        assert read_rows(top, "types") == []

    run_top(client, steps)


def test_paused_screen_keeps_its_values(client: ApiClient, queue: Database[dict[str, Any]]) -> None:
    async def steps(pilot: "Pilot[None]", top: "Top") -> None:
        await wait_until(pilot, lambda: read_rows(top, "types"))
        await pilot.press("P")
        await wait_until(pilot, lambda: str(top.query_one("#note").content) == "paused")
        await top.workers.wait_for_complete()
        old_rows = read_rows(top, "types")
        queue.jobs.delete_many({})
        top._load_again()
        await top.workers.wait_for_complete()
        assert read_rows(top, "types") == old_rows
        await pilot.press("P")
        await wait_until(pilot, lambda: read_rows(top, "types") != old_rows)

    run_top(client, steps)
