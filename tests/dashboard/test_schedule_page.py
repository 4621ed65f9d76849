"""The pages about scheduled and recurring jobs: catches a wrong count, order or link, and an
unknown schedule that looks empty."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.api.recurring import JobRepetition, RecurringResult
from jobmon.dashboard.schedule_page import _make_bars
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.recurrence import Recurrence
from jobmon.domain import CappedCount
from jobmon.setup.indexes import create_indexes
from jobmon.store.repetition import Repetition
from jobmon.store.schedule import ScheduledStep, ScheduledWindow

from ..conftest import NOW
from ..support.pages import Viewer
from ..support.queue_service import MongoDb, QueueService
from .conftest import MakeApi, signed_in

PAGE = "/dashboard/schedule"
HOUR = timedelta(hours=1)


def insert_jobs(watched: Any, *delays_h: float) -> None:
    """Insert a job for each delay in hours: the job `in-30` is due in 30 hours."""
    now = datetime.now(UTC)
    watched.jobs.insert_many(
        {
            "jobId": f"in-{hours}",
            "type": f"<b>type-{hours % 2}</b>",
            "status": "queued",
            "createdAt": now,
            "nextRunAt": now + hours * HOUR,
        }
        for hours in delays_h
    )


def test_page_has_the_counts_of_each_window_and_the_soonest_jobs_in_order(
    admin: Viewer, watched: Any
) -> None:
    insert_jobs(watched, -1, 30, 0.5, 20, 400, 21)
    page = admin.page(PAGE)
    tiles = [attrs["href"] for attrs in page.all("a", **{"class": "tile"})]
    assert tiles == [f"{PAGE}?window={name}" for name in ("hour", "day", "week")]
    words = page.text.split()
    assert [words[words.index(unit) + 1] for unit in ("hour", "hours", "days")] == ["1", "3", "4"]
    jobs = [attrs["href"] for attrs in page.all("a", **{"class": "row-link"})]
    assert jobs == [f"/dashboard/jobs/in-{hours}" for hours in (0.5, 20, 21, 30, 400)]
    assert "<b>type-1</b>" in page.text
    assert len(page.all("rect", width="8")) in (24, 25)  # a bar for each hour that the day touches


def test_page_links_to_the_list_of_all_scheduled_jobs(admin: Viewer, watched: Any) -> None:
    insert_jobs(watched, *range(1, 40))
    page = admin.page(PAGE)
    address = "/dashboard/jobs?condition=scheduled&sort=nextRunAt"
    assert address in page.addresses()
    assert "All 39 scheduled jobs" in page.text
    assert "page 1 of 2" in " ".join(admin.page(address).text.split())


def test_overview_links_to_the_schedule(admin: Viewer, watched: Any) -> None:
    insert_jobs(watched, -1, 1, 2)
    overview = admin.page("/dashboard")
    assert PAGE in [attrs["href"] for attrs in overview.all("a") if "data-go" not in attrs]
    assert "1 due (incl. retries), 2 scheduled" in " ".join(overview.text.split())


def test_page_of_a_queue_without_due_times_gives_the_reason(make_api: MakeApi) -> None:
    viewer = signed_in(make_api(profile="celery", jobs_collection="celery_taskmeta"))
    page = viewer.page(PAGE)
    assert "The schedule is not known: the documents do not record when a job is due." in page.text
    assert not page.all("rect", width="8")


def test_page_refuses_an_unknown_window(admin: Viewer) -> None:
    assert "hour, day, week" in admin.page(f"{PAGE}?window=month", 422).text


@pytest.mark.parametrize(
    ("types", "is_exact", "count", "height", "note"),
    [
        ({"a": 3, "b": 1}, True, "4", 100.0, "4 jobs: 3 a, 1 b"),
        ({"a": 1}, True, "1", 25.0, "1 job: 1 a"),
        ({"a": 1}, False, "1+", 25.0, "1+ jobs: 1 a"),
        (None, False, "–", None, "not counted"),
    ],
)
def test_bar_of_a_step_has_its_count_height_and_note(
    types: dict[str, int] | None, is_exact: bool, count: str, height: float | None, note: str
) -> None:
    highest = ScheduledStep(start=NOW, end=NOW + HOUR, jobs=4, is_exact=True, types={})
    step = ScheduledStep(
        start=NOW,
        end=NOW + HOUR,
        jobs=None if types is None else sum(types.values()),
        is_exact=is_exact,
        types=types or {},
    )
    window = ScheduledWindow(
        name="day",
        start=NOW,
        end=NOW + 2 * HOUR,
        step=HOUR,
        jobs=5,
        is_exact=is_exact,
        steps=(highest, step),
        types={},
    )
    _, bar = _make_bars(window)
    assert (bar.count, bar.height, bar.note) == (count, height, note)


def test_recurring_jobs_are_shown_with_their_interval_and_runs(
    mongod: Mongod, database: MongoDb
) -> None:
    now = datetime.now(UTC)
    database.agendaJobs.insert_one(
        {
            "name": "<i>nightly</i>",
            "nextRunAt": now - HOUR,
            "repeatInterval": "0 3 * * *",
            "repeatTimezone": "Europe/Berlin",
            "repeatAt": None,
        }
    )
    queue = QueueService(mongod, database, profile="agenda", jobs_collection="agendaJobs")
    create_indexes(queue.connection)
    viewer = signed_in(queue.api)
    page = viewer.page("/dashboard/recurring")
    text = " ".join(page.text.split())
    assert "1 recurring job" in text
    assert "<i>nightly</i> at 03:00 every day Europe/Berlin overdue: due" in text
    assert "Runs before the last one are unknown: no collector has followed the changes" in text
    (link,) = page.all("a", **{"class": "row-link"})
    job = " ".join(viewer.page(str(link["href"])).text.split())
    assert "at 03:00 every day Europe/Berlin" in job
    assert "Newest runs No run is known yet." in job
    assert viewer.get("/dashboard/recurring?cursor=x").status_code == 422
    queue.close()


def test_missed_runs_that_are_unknown_do_not_look_like_none(
    admin: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By job: the missed runs, and why they, or all earlier runs, are unknown.
    missed: dict[str, tuple[int | None, str, str]] = {
        "fine": (0, "", ""),
        "late": (2, "", ""),
        "later": (2, "not stored", ""),
        "skips": (None, "the job has days to skip", ""),
        "unseen": (None, "no run was seen", "no run was seen"),
    }
    jobs = [
        {
            "jobId": name,
            "type": name,
            "repetition": JobRepetition(
                Repetition(interval="1 hour"),
                Recurrence(
                    interval_text="every hour",
                    runs=(),
                    last_run=None,
                    missed=number,
                    missed_reason=reason,
                ),
                no_history,
            ),
        }
        for name, (number, reason, no_history) in missed.items()
    ]
    result = RecurringResult(NOW, jobs=jobs, total=CappedCount(len(jobs), is_exact=True))
    monkeypatch.setattr("jobmon.dashboard.schedule_page.list_recurring", lambda *_: result)
    page = admin.page("/dashboard/recurring")
    text = " ".join(page.text.split())
    assert (
        "fine every hour none – late every hour none – 2 missed later every hour none – at least "
        "2 missed skips every hour none – missed: unknown unseen every hour none – missed: unknown"
    ) in text
    assert "Other missed runs are unknown for 1 job on this page: not stored." in text
    assert "Missed runs are unknown for 1 job on this page: the job has days to skip." in text
    assert "Runs before the last one are unknown for 1 job on this page: no run was seen." in text


def test_page_of_recurring_jobs_gives_the_reason_if_the_queue_has_none(admin: Viewer) -> None:
    page = admin.page("/dashboard/recurring")
    assert "No job of this kind of queue is known to run repeatedly." in page.text


def test_row_of_a_job_without_an_id_has_an_element_id_of_its_own(
    admin: Viewer, watched: Any
) -> None:
    """Catches that the second row gets the element id of the job `2`, which an update replaces."""
    soon = datetime.now(UTC) + HOUR
    watched.jobs.insert_many(
        [
            {"jobId": "2", "type": "a", "status": "queued", "nextRunAt": soon},
            {"type": "a", "status": "queued", "nextRunAt": soon + HOUR},
        ]
    )
    rows = [attrs["id"] for attrs in admin.page(PAGE).all("tr") if "id" in attrs]
    assert rows == ["due-2", "row-2"]
