"""Pages far from the first: catches requests that keep the database busy, and a milestone on the
wrong side of a page."""

import threading
from typing import Any

import pytest

from jobmon.store import deep_pages
from jobmon.store.deep_pages import BusyPagesError, DeepPages
from jobmon.store.filter import JobFilter, ListPlan
from jobmon.store.milestones import Milestone, Milestones

from ..support.waiting import PATIENCE_S, eventually, is_waiting

ALL_JOBS = JobFilter(plan=ListPlan([("createdAt", -1)]))


def test_a_far_page_is_read_once_for_all_callers_and_a_third_page_is_refused() -> None:
    """Catches a slow query for each of many requests for far pages."""
    skips, may_return = list[int](), threading.Event()

    def read(_: JobFilter, start: Any, limit: int, *, ascending: bool, skip: int = 0) -> Any:
        assert start is None
        assert not ascending
        skips.append(skip)
        assert may_return.wait(PATIENCE_S)
        return [{"_id": skip}] * limit

    reader, pages = DeepPages(None, read), list[object]()  # type: ignore[arg-type]

    def read_page(skip: int) -> None:
        pages.append(reader.read(ALL_JOBS, None, skip, 1, ascending=False))

    far = deep_pages.FAR_SKIP
    callers = [threading.Thread(target=read_page, args=[skip]) for skip in (far, far + 1, far, far)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(map(is_waiting, callers)))
    with pytest.raises(BusyPagesError):
        read_page(far + 2)
    may_return.set()
    for caller in callers:
        caller.join()
    read_page(far + 2)
    read_page(1)
    assert sorted(skips) == [1, far, far + 1, far + 2]
    assert len(pages) == 6


@pytest.mark.parametrize(
    ("position", "after", "expected"),
    [
        (0, True, (1_000, 10)),
        (10, True, (1_000, 10)),
        (11, True, (2_000, 20)),
        (21, True, None),
        (9, False, None),
        (10, False, (1_000, 10)),
        (24, False, (1_000, 10)),
        (25, False, (2_000, 20)),
    ],
)
def test_the_nearest_milestone_is_on_the_right_side_for_any_number_of_older_uncounted_jobs(
    position: int, after: bool, expected: tuple[int, int] | None
) -> None:
    """The expected result has the date of the milestone in ms, and its number of older jobs."""
    milestones = Milestones(
        (("dlq", "a"), ("dlq", "b"), ("queued", "a")),
        (Milestone(1_000, (4, 6, 9)), Milestone(2_000, (10, 10, 9), uncounted=5)),
    )
    nearest = milestones.find(position, ["dlq"], [], after=after)
    assert (nearest and (nearest[0].at_ms, nearest[1])) == expected


def test_milestones_by_status_only_are_not_used_for_a_type() -> None:
    milestones = Milestones((("dlq", None),), (Milestone(1_000, (4,)),))
    assert milestones.find(2, ["dlq"], ["a"], after=True) is None
    assert milestones.find(2, ["dlq"], [], after=True) == (milestones.entries[0], 4)
