"""Pages far from the first without milestones: catches requests that keep the database busy."""

import threading
from typing import Any

import pytest

from jobmon.store import deep_pages
from jobmon.store.deep_pages import BusyPagesError, DeepPages, FoundPage
from jobmon.store.filter import JobFilter, ListPlan
from jobmon.store.milestones import Milestone, Milestones

from ..support.waiting import PATIENCE_S, eventually

ALL = JobFilter(plan=ListPlan([("createdAt", -1)]))


def test_callers_of_the_same_far_page_share_it_and_others_beyond_two_are_refused() -> None:
    """Catches 32 requests for far pages, each with a query that takes a second or longer."""
    running, may_end = list[int](), threading.Event()

    def read(_: JobFilter, start: Any, limit: int, *, ascending: bool, skip: int = 0) -> Any:
        assert start is None
        assert not ascending
        running.append(skip)
        assert may_end.wait(PATIENCE_S)
        return [{"_id": skip}] * limit

    pages, found = DeepPages(None, read), list[FoundPage]()  # type: ignore[arg-type]

    def get(skip: int) -> None:
        found.append(pages.read(ALL, None, skip, 1, ascending=False))

    far = deep_pages.FAR_SKIP
    threads = [threading.Thread(target=get, args=(skip,)) for skip in (far, far + 1, far, far)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(running) == 2)
    with pytest.raises(BusyPagesError):
        get(far + 2)
    may_end.set()
    for thread in threads:
        thread.join()
    get(far + 2)
    get(1)
    assert sorted(running) == [1, far, far + 1, far + 2]
    assert len(found) == 6


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
def test_a_milestone_is_on_the_right_side_whatever_its_uncounted_jobs_are(
    position: int, after: bool, expected: tuple[int, int] | None
) -> None:
    milestones = Milestones(
        (("dlq", "a"), ("dlq", "b"), ("queued", "a")),
        (Milestone(1_000, (4, 6, 9)), Milestone(2_000, (10, 10, 9), uncounted=5)),
    )
    found = milestones.find(position, ["dlq"], [], after=after)
    assert (found and (found[0].at_ms, found[1])) == expected


def test_milestones_by_status_only_are_not_used_for_a_type() -> None:
    milestones = Milestones((("dlq", None),), (Milestone(1_000, (4,)),))
    assert milestones.find(2, ["dlq"], ["a"], after=True) is None
    assert milestones.find(2, ["dlq"], [], after=True) == (milestones.found[0], 4)
