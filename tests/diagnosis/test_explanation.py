"""Explanations: catches a wrong condition, a claim from unknown values, and a text that puts a past
event into the future."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.diagnosis.explanation import Explanation, ExplanationCode, explain
from jobmon.diagnosis.job_facts import JobFacts, QueueFacts
from jobmon.domain import CappedCount
from jobmon.rollup.buckets import HOUR, MINUTE, Tally
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.histogram import bucket
from jobmon.rollup.series import Activity, History
from jobmon.store.lease_order import Place
from jobmon.store.paused_types import TypePause

from ..conftest import NOW
from .test_forecast import make_evidence as make_forecast_evidence

SECOND = timedelta(seconds=1)
Code = ExplanationCode


def job(status: str | None = "queued", **changes: Any) -> JobFacts:
    defaults = {"job_type": "mail", "created_at": NOW - HOUR, "attempt": None, "max_attempts": 5}
    return JobFacts(status=status, **(defaults | changes))


def place(ahead: int = 0, *, tied: int = 0, is_exact: bool = True, **changes: Any) -> Place:
    values: dict[str, Any] = {"same_type": ahead, "outranking": 0} | changes
    return Place(ahead=CappedCount(ahead, is_exact), tied=CappedCount(tied, True), **values)


def ended(count: int, run_ms: int | None = None) -> Activity:
    """The activity of `count` attempts that succeeded, each after `run_ms` (None: unknown)."""
    tally = Tally()
    tally.outcomes["succeeded"] = count
    if run_ms is not None:
        tally.run[bucket(run_ms)] = count
    return Activity.from_tallies([tally])


def make_recent(**counts: int) -> History[str]:
    return History(NOW, "rollup", {job_type: ended(count) for job_type, count in counts.items()})


def make_evidence(*ended_in_block: int, others: int = 0, **changes: Any) -> Evidence:
    """A queue in whose blocks so many attempts of mail ended, and in each block `others` of sms."""
    blocks = {"mail": [(0, count) for count in ended_in_block], "sms": [(0, others)] * 3}
    recent = {10 * MINUTE: make_recent(mail=ended_in_block[-1], sms=others)}
    return make_forecast_evidence(blocks, **{"recent": recent} | changes)


def facts(**changes: Any) -> QueueFacts:
    """The facts of a queue in which twenty attempts of mail end each minute."""
    defaults: dict[str, Any] = {
        "place": place(),
        "evidence": make_evidence(200, 200, 200),
        "recent": make_recent(mail=60),
    }
    return QueueFacts(**defaults | changes)


def text(explanation: Explanation) -> str:
    return explanation.format_text(NOW)


@pytest.mark.parametrize(
    ("job_facts", "code", "sentence"),
    [
        (
            job(next_run_at=NOW + 3 * MINUTE),
            Code.NOT_DUE,
            "Not due yet: it is due in 3 min.",
        ),
        (
            job(next_run_at=NOW + 3 * MINUTE, is_recurring=True),
            Code.NOT_DUE,
            "The next run is due in 3 min.",
        ),
        (
            job("failed", next_run_at=NOW + 90 * SECOND, attempt=2),
            Code.RETRY_SCHEDULED,
            "The last attempt failed. Retry 2 of 4 is due in 1 min 30 s.",
        ),
        (
            job("failed", next_run_at=NOW + MINUTE, attempt=2, max_attempts=None),
            Code.RETRY_SCHEDULED,
            "The last attempt failed. Retry 2 is due in 1 min.",
        ),
        (
            job("failed", next_run_at=NOW + MINUTE, attempt=7),
            Code.RETRY_SCHEDULED,
            "The last attempt failed. Retry 7 is due in 1 min.",
        ),
        (
            job("failed", next_run_at=NOW + MINUTE),
            Code.RETRY_SCHEDULED,
            "The last attempt failed. The next one is due in 1 min.",
        ),
        (
            job("succeeded", finished_at=NOW - MINUTE, attempt=1),
            Code.SUCCEEDED,
            "It succeeded 1 min ago.",
        ),
        (
            job("succeeded", finished_at=NOW - MINUTE, attempt=3),
            Code.SUCCEEDED,
            "Attempt 3 succeeded 1 min ago.",
        ),
        (job("succeeded"), Code.SUCCEEDED, "It succeeded."),
        (
            job("cancelled", finished_at=NOW - MINUTE),
            Code.CANCELLED,
            "It was cancelled 1 min ago.",
        ),
        (
            job("dlq", finished_at=NOW - 2 * HOUR, attempt=5),
            Code.ATTEMPTS_USED_UP,
            "All 5 attempts are used up: it died 2 h ago, and is not retried.",
        ),
        (
            job("dlq", attempt=6),
            Code.ATTEMPTS_USED_UP,
            "All 5 attempts are used up: it died, and is not retried.",
        ),
        (
            job("dlq", attempt=1, max_attempts=1),
            Code.ATTEMPTS_USED_UP,
            "Its only attempt is used up: it died, and is not retried.",
        ),
        (
            job("dlq", attempt=2, max_attempts=2),
            Code.ATTEMPTS_USED_UP,
            "Both attempts are used up: it died, and is not retried.",
        ),
        (
            job("dlq", finished_at=NOW - HOUR, attempt=2),
            Code.DEAD,
            "It died 1 h ago after attempt 2 of 5, and is not retried.",
        ),
        (job("dlq", max_attempts=None), Code.DEAD, "It died, and is not retried."),
        (job("dlq", max_attempts=0, attempt=2), Code.DEAD, "It died after attempt 2, and is not "
         "retried."),
        (
            job(None),
            Code.OTHER_STATUS,
            "It has no status, so it is unknown whether it will be started.",
        ),
        (
            job("on-hold"),
            Code.OTHER_STATUS,
            'Its status is "on-hold": it is unknown whether it will be started.',
        ),
        (
            job("disabled"),
            Code.OTHER_STATUS,
            'Its status is "disabled": it is unknown whether it will be started.',
        ),
        (
            job("disabled", has_shipped_rules=True),
            Code.OTHER_STATUS,
            "It is disabled, and not started until it is enabled.",
        ),
    ],
)  # fmt: skip
def test_a_condition_has_its_code_and_text(job_facts: JobFacts, code: str, sentence: str) -> None:
    explanation = explain(job_facts, QueueFacts(), NOW)
    assert (explanation.code, text(explanation)) == (code, sentence)
    assert (explanation.ahead, explanation.expected_start) == (None, None)


def test_since_is_the_end_of_the_job_or_has_a_reason() -> None:
    assert explain(job("dlq", finished_at=NOW - HOUR), QueueFacts(), NOW).since == NOW - HOUR
    unknown = explain(job("dlq"), QueueFacts(), NOW)
    assert unknown.since is None
    assert unknown.reasons == {"since": "the end of the job is not recorded"}


# --- Due jobs ------------------------------------------------------------------------------------

DUE = job(next_run_at=NOW - 4 * MINUTE)


def test_a_due_job_is_behind_others_and_starts_at_the_rate_of_its_type() -> None:
    # With the job itself, 240 jobs of its type start at 20 a minute. The 173 jobs of other types
    # that are ahead are not more than usual.
    busy = make_evidence(200, 200, 200, others=200)
    explanation = explain(DUE, facts(place=place(412, same_type=239), evidence=busy), NOW)
    assert explanation.code is Code.WAITING
    assert text(explanation) == (
        "It became due 4 min ago; 412 due jobs are ahead of it, 239 of its type. "
        "At the present rate it starts in about 12 min."
    )
    assert (explanation.since, explanation.until) == (NOW - 4 * MINUTE, None)
    assert explanation.ahead == CappedCount(412, True)
    assert explanation.expected_start == NOW + 12 * MINUTE
    assert explanation.reasons == {}


@pytest.mark.parametrize(
    ("job_place", "part"),
    [
        (place(), "; no due job is ahead of it. At"),
        (place(1), "; 1 due job of its type is ahead of it. At"),
        (place(1, same_type=0), "; 1 due job is ahead of it, none of its type. At"),
        (place(2, each_type=True), "; 2 due jobs of its type are ahead of it. At"),
        (
            place(2, tied=3),
            "; 2 due jobs are ahead of it, and 3 have the same place in the order. At",
        ),
        (
            place(0, tied=1),
            "; no due job is ahead of it, and 1 has the same place in the order. At",
        ),
        (place(10_000, is_exact=False), "; more than 10,000 due jobs are ahead of it."),
    ],
)
def test_the_text_has_the_known_number_of_jobs_ahead(job_place: Place, part: str) -> None:
    assert part in text(explain(DUE, facts(place=job_place), NOW))


def test_a_number_of_jobs_ahead_that_is_not_exact_has_a_reason() -> None:
    capped = explain(DUE, facts(place=place(10_000, is_exact=False)), NOW)
    assert capped.ahead == CappedCount(10_000, False)
    assert capped.reasons == {
        "ahead": "more jobs are ahead than are counted",
        "expectedStart": "the exact number of jobs ahead is unknown",
    }
    tied = explain(DUE, facts(place=place(2, tied=3)), NOW)
    assert tied.ahead == CappedCount(2, True)
    assert tied.reasons == {"ahead": "3 other due jobs have the same place in the order"}
    unknown = explain(DUE, facts(place=place(0, is_exact=False)), NOW)
    assert unknown.ahead is None
    assert unknown.reasons["ahead"] == "too many jobs would have to be read"


def test_a_retry_that_is_due_has_its_number() -> None:
    retry = job("failed", attempt=2, next_run_at=NOW - MINUTE)
    assert text(explain(retry, facts(), NOW)).startswith("Retry 2 of 4 became due 1 min ago; no")


@pytest.mark.parametrize(
    ("job_facts", "since", "beginning"),
    [
        (job(), NOW - HOUR, "It has been due since it was created 1 h ago; no"),
        (job(created_at=None), None, "It is due; no"),
        (job(attempt=1), None, "It is due; no"),
        (job(is_recurring=True), None, "The next run is due; no"),
        (
            job("failed"),
            None,
            "The last attempt failed. The next one is due; no",
        ),
        (
            job(unreadable=frozenset({"nextRunAt"})),
            None,
            "It waits. When it is due is unknown: nextRunAt is not a date.",
        ),
        (
            job(unknown=frozenset({"nextRunAt"})),
            None,
            "It waits. The documents do not record when it is due.",
        ),
    ],
)
def test_a_missing_due_date_is_not_guessed(
    job_facts: JobFacts, since: datetime | None, beginning: str
) -> None:
    explanation = explain(job_facts, facts(), NOW)
    assert (explanation.code, explanation.since) == (Code.WAITING, since)
    assert text(explanation).startswith(beginning)
    if job_facts.unreadable or job_facts.unknown:
        assert (explanation.ahead, explanation.expected_start) == (None, None)
        assert explanation.reasons.keys() == {"ahead", "expectedStart"}


GAP = Gap(start=NOW - HOUR, end=NOW - 5 * MINUTE, reason=GapReason.STREAM_LOST)


def add_gap(queue: Evidence) -> Evidence:
    """The queue with a gap in its histories, during which runs may be missing."""
    assert not isinstance(queue.blocks, Missing)
    recent = queue.recent[10 * MINUTE]
    assert not isinstance(recent, Missing)
    return replace(
        queue,
        blocks=tuple(replace(block, gaps=(GAP,)) for block in queue.blocks),
        recent={10 * MINUTE: replace(recent, gaps=(GAP,))},
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"place": "indexes are missing"}, "how many jobs are ahead: indexes are missing"),
        ({"evidence": Missing(reason="no collector")}, "no collector"),
        ({"evidence": make_evidence(0, 0, 0)}, "fewer than 20 attempts of its type ended"),
        ({"evidence": make_evidence(10, 200, 400)}, "the rate of its type varied too much"),
        ({"evidence": add_gap(make_evidence(200, 200, 200))}, "may be missing from the history"),
        (
            {"evidence": make_evidence(200, 200, 200, unknown=frozenset({"finishedAt"}))},
            "do not record when they finished",
        ),
        ({"recent": make_recent(sms=9)}, "no attempt of its type has ended in the last minutes"),
        ({"recent": Missing(reason="still counting")}, "still counting"),
        ({"place": place(9, outranking=1)}, "jobs of its type with a higher priority are ahead"),
        ({"place": place(900, same_type=0)}, "more jobs of other types are ahead than usual"),
        ({"place": place(9_999, same_type=9_999), "evidence": make_evidence(10, 10, 10)}, "a day"),
    ],
)
def test_no_start_is_expected_without_reliable_rates(changes: dict[str, Any], reason: str) -> None:
    explanation = explain(DUE, facts(**changes), NOW)
    assert explanation.expected_start is None
    assert reason in explanation.reasons["expectedStart"]
    assert "present rate" not in text(explanation)


def steps(step: timedelta, **counts: int) -> History[datetime]:
    """A history with ended attempts; `ago_3` counts those of the step that began 3 steps ago."""
    activity = {
        NOW - int(name.removeprefix("ago_")) * step: ended(count) for name, count in counts.items()
    }
    return History(NOW, "rollup", activity)


STALLED = {"evidence": make_evidence(0, 0, 0)}


@pytest.mark.parametrize(
    ("histories", "length"),
    [
        ({"hour_by_minute": steps(MINUTE, ago_32=5, ago_5=0)}, "for 31 min."),
        (
            {"hour_by_minute": steps(MINUTE, ago_5=0), "day_by_hour": steps(HOUR, ago_6=2)},
            "for 5 h.",
        ),
        (
            {"hour_by_minute": steps(MINUTE, ago_5=0), "day_by_hour": steps(HOUR, ago_1=2)},
            "for 1 h.",
        ),
        (
            {"hour_by_minute": steps(MINUTE, ago_5=0), "day_by_hour": steps(HOUR, ago_6=0)},
            "for more than 1 d.",
        ),
        ({"hour_by_minute": steps(MINUTE, ago_5=0)}, "for more than 1 h."),
        ({"hour_by_minute": replace(steps(MINUTE, ago_9=3), gaps=(GAP,))}, "for more than 10 min."),
        ({}, "for more than 10 min."),
    ],
)
def test_a_type_without_started_jobs_is_stalled(histories: dict[str, Any], length: str) -> None:
    late = job(next_run_at=NOW - 25 * MINUTE)
    explanation = explain(late, facts(place=place(7), **STALLED | histories), NOW)
    assert explanation.code is Code.TYPE_STALLED
    silence = "No attempt of its type runs, and none has ended"
    assert text(explanation) == f"It became due 25 min ago. {silence} {length}"
    assert (explanation.ahead, explanation.expected_start) == (CappedCount(7, True), None)
    assert explanation.reasons == {"expectedStart": "no job of its type seems to be started"}


# --- Leased jobs ---------------------------------------------------------------------------------

RUNNING = job(
    "leased",
    attempt=2,
    worker="w3",
    started_at=NOW - 90 * SECOND,
    lease_expires_at=NOW + 30 * SECOND,
)


def test_a_running_job_has_its_worker_and_start() -> None:
    explanation = explain(RUNNING, QueueFacts(), NOW)
    assert (explanation.code, explanation.since, explanation.until) == (
        Code.RUNNING,
        NOW - 90 * SECOND,
        NOW + 30 * SECOND,
    )
    assert text(explanation) == (
        "Attempt 2 of 5 started 1 min 30 s ago on w3; the lease ends in 30 s."
    )


def test_a_start_that_is_not_recorded_is_not_guessed() -> None:
    leased = replace(RUNNING, started_at=None, worker=None, attempt=None)
    explanation = explain(leased, QueueFacts(), NOW)
    sentences = "It is leased; the lease ends in 30 s. No start of the attempt is recorded."
    assert text(explanation) == sentences
    assert explanation.reasons == {"since": "the start of the attempt is not recorded"}


def test_a_job_that_runs_longer_than_usual_has_its_own_code() -> None:
    many, few = ended(200, run_ms=10_000), ended(99, run_ms=1_000)
    for runs, period in (
        ((("in the last hour", many),), "in the last hour"),
        ((("in the last hour", few), ("in the last 24 h", many)), "in the last 24 h"),
    ):
        explanation = explain(RUNNING, QueueFacts(runs=runs), NOW)
        assert (explanation.code, explanation.since) == (Code.RUNNING_LONG, NOW - 90 * SECOND)
        assert text(explanation) == (
            "Attempt 2 of 5 started 1 min 30 s ago on w3; the lease ends in 30 s. 99% of the runs "
            f"of its type took up to about {round((many.run.p99 or 0) / 1_000)} s {period}."
        )


@pytest.mark.parametrize(
    "activity",
    [
        ended(99, run_ms=1_000),  # too few for a 99th percentile
        ended(500),  # without run times
        ended(500, run_ms=90_000),
        ended(500, run_ms=88_000),  # in the histogram's bucket of 90 s
    ],
)
def test_no_run_is_long_if_the_usual_time_is_unknown_or_similar(activity: Activity) -> None:
    explanation = explain(RUNNING, QueueFacts(runs=(("in the last hour", activity),)), NOW)
    assert explanation.code is Code.RUNNING


def test_an_expired_lease_has_the_last_sign_of_its_worker() -> None:
    expired = replace(
        RUNNING, lease_expires_at=NOW - 4 * MINUTE, updated_at=NOW - 4 * MINUTE - 30 * SECOND
    )
    explanation = explain(expired, QueueFacts(), NOW)
    assert (explanation.code, explanation.since) == (Code.LEASE_EXPIRED, NOW - 4 * MINUTE)
    assert text(explanation) == (
        "The lease of w3 expired 4 min ago; the job was last changed 4 min 30 s ago. "
        "No other worker has taken the job."
    )
    changed = explain(replace(expired, updated_at=NOW - MINUTE, worker=None), QueueFacts(), NOW)
    assert text(changed) == "Its lease expired 4 min ago. No other worker has taken the job."


def test_a_lease_that_ends_now_has_expired() -> None:
    explanation = explain(replace(RUNNING, lease_expires_at=NOW), QueueFacts(), NOW)
    assert explanation.code is Code.LEASE_EXPIRED


def test_a_lease_without_an_end_does_not_expire() -> None:
    explanation = explain(replace(RUNNING, lease_expires_at=None), QueueFacts(), NOW)
    assert (explanation.code, explanation.until) == (Code.RUNNING, None)
    sentence = "Attempt 2 of 5 started 1 min 30 s ago on w3; it is unknown whether it still runs."
    assert text(explanation) == sentence


def test_an_assumed_length_of_a_lease_is_in_the_text() -> None:
    assumed = replace(RUNNING, assumed_lease=10 * MINUTE)
    assert text(explain(assumed, QueueFacts(), NOW)).endswith(
        "; the lease ends in 30 s, if a lease lasts 10 min."
    )
    expired = explain(replace(assumed, lease_expires_at=NOW - MINUTE), QueueFacts(), NOW)
    assert text(expired).startswith("The lease of w3 expired 1 min ago, if a lease lasts 10 min. ")


# --- Clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job_facts",
    [
        replace(RUNNING, started_at=NOW + 3 * SECOND),
        job("succeeded", finished_at=NOW + 3 * SECOND),
        job(created_at=NOW + 3 * SECOND),
    ],
)
def test_no_past_event_is_in_the_future_if_the_writers_clock_is_ahead(job_facts: JobFacts) -> None:
    runs = (("in the last hour", ended(200, run_ms=10)),)
    sentences = text(explain(job_facts, facts(runs=runs), NOW))
    assert "in 3 s" not in sentences
    assert " now" in sentences


def test_a_job_is_due_from_its_exact_time_on() -> None:
    assert explain(job(next_run_at=NOW), facts(), NOW).code is Code.WAITING
    almost = explain(job(next_run_at=NOW + SECOND / 1_000), facts(), NOW)
    assert (almost.code, text(almost)) == (Code.NOT_DUE, "Not due yet: it is due now.")


PAUSE = TypePause(since=NOW - 2 * HOUR, by="ada", reason="provider is down")


def test_a_due_job_of_a_paused_type_waits_for_a_person() -> None:
    """Catches an expected start although no worker takes the job."""
    waiting = job(next_run_at=NOW - 5 * MINUTE)
    assert explain(waiting, facts(), NOW).expected_start is not None
    explanation = explain(waiting, facts(pause=PAUSE), NOW)
    assert explanation.code is Code.TYPE_PAUSED
    assert text(explanation) == (
        "It became due 5 min ago. Its type was paused 2 h ago by ada: provider is down. "
        "No worker takes the job until the type is resumed."
    )
    assert explanation.expected_start is None
    assert explanation.reasons == {"expectedStart": "its type is paused"}
    assert (explanation.since, explanation.ahead) == (NOW - 5 * MINUTE, CappedCount(0, True))
    unknown = explain(waiting, facts(pause=TypePause()), NOW)
    assert "It became due 5 min ago. Its type is paused. No worker" in text(unknown)


def test_a_job_of_a_paused_type_that_is_not_due_yet_shows_the_pause() -> None:
    explanation = explain(job(next_run_at=NOW + 3 * MINUTE), facts(pause=PAUSE), NOW)
    assert explanation.code is Code.NOT_DUE
    assert text(explanation) == (
        "Not due yet: it is due in 3 min. Its type was paused 2 h ago by ada: provider is down. "
        "No worker takes the job until the type is resumed."
    )


def test_jobs_ahead_are_not_exact_while_other_types_are_paused() -> None:
    due = job(next_run_at=NOW - MINUTE)
    with_others = facts(place=place(7, same_type=2), has_other_pauses=True)
    reasons = explain(due, with_others, NOW).reasons
    assert reasons["ahead"] == "jobs of paused types are counted, too"
    assert "ahead" not in explain(due, facts(place=place(7), has_other_pauses=True), NOW).reasons
