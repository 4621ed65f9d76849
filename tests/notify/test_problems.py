"""The notices that a receiver gets: catches a text that differs from the pages."""

from dataclasses import replace
from datetime import timedelta

from jobmon.actions.mutes import ActiveMutes, Mute
from jobmon.actions.request import Person
from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.domain import CappedCount
from jobmon.notify.problems import FoundProblems, find_problems
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.series import History
from jobmon.settings.receivers import ReceiverAddress
from jobmon.store.paused_types import TypePause

from ..diagnosis.test_attention import NOW, Step, make_evidence, overdue_since, texts

REDACTOR = Redactor()
STEPS: dict[int, Step] = {59: {"mail.a": (0, 40, 2), "pdf": (0, 40, 3), "mail.b": (40, 0, 0)}}
EVIDENCE = make_evidence(
    {("queued", "mail.a"): 1},
    STEPS,
    expired_leases=3,
    due=1,
    overdue_by_type=overdue_since(slow=timedelta(hours=1)),
)


def find_problems_for(receiver: ReceiverAddress) -> FoundProblems:
    return find_problems(EVIDENCE, receiver, REDACTOR)


def test_receiver_of_everything_gets_the_notices_of_the_pages() -> None:
    found = find_problems_for(ReceiverAddress(name="a", url="https://a/"))
    assert sorted(problem.text for problem in found.problems.values()) == sorted(texts(EVIDENCE))
    assert found.unknown == frozenset()
    failures = found.problems[CheckKind.FAILURES]
    assert (failures.level, failures.count) == (Level.WATCH, 2)
    assert failures.types == {"mail.a", "pdf"}
    assert found.problems[CheckKind.LEASES].address.startswith("/dashboard/jobs?condition=expired")
    assert failures.address == "/dashboard?range=1h&only=failing#types-title"


def test_a_receiver_of_urgent_notices_gets_only_urgent_notices() -> None:
    found = find_problems_for(ReceiverAddress(name="a", url="https://a/", level="bad"))
    assert found.problems.keys() == {CheckKind.LEASES, CheckKind.STALLED, CheckKind.DEAD}


def test_a_receiver_of_some_types_gets_only_notices_about_these_types() -> None:
    """Catches a notice about all types, and a count that includes other types."""
    found = find_problems_for(ReceiverAddress(name="a", url="https://a/", types=("mail.*", "x")))
    assert {kind: problem.text for kind, problem in found.problems.items()} == {
        CheckKind.DEAD: "2 jobs died in the last hour, all mail.a",
        CheckKind.FAILURES: "100% of mail.a attempts failed in the last hour",
    }
    assert all(problem.types == {"mail.a"} for problem in found.problems.values())


def test_a_receiver_of_some_types_gets_no_notice_about_jobs_that_were_all_retried() -> None:
    receiver = ReceiverAddress(name="a", url="https://a/", types=("mail.*",))
    retried = replace(EVIDENCE, new_dead=CappedCount(0, True))
    assert CheckKind.DEAD not in find_problems(retried, receiver, REDACTOR).problems


def test_a_type_whose_runs_may_be_counted_as_other_is_not_stalled_for_its_receiver() -> None:
    """Catches a false alarm only for a receiver of some types; the page shows no notice."""
    evidence = make_evidence(
        {("queued", "mail.a"): 1},
        {59: {"(other)": (5, 0, 0)}},
        due=1,
        overdue_by_type=overdue_since(**{"mail.a": timedelta(hours=1)}),
    )
    for types in ((), ("mail.*",)):
        receiver = ReceiverAddress(name="a", url="https://a/", types=types)
        found = find_problems(evidence, receiver, REDACTOR)
        assert CheckKind.STALLED not in found.problems
        assert CheckKind.STALLED in found.unknown


def test_a_mute_of_some_paused_types_does_not_hide_the_others() -> None:
    """Catches a mute that hides the pause of another type, or makes a paused type stalled."""
    pauses = {"mail.a": TypePause(), "slow": TypePause()}
    person, until = Person(subject="ada"), NOW + timedelta(days=1)
    mute = Mute(
        kind=CheckKind.PAUSED, types="mail.*", by=person, at=NOW, until=until, reason="known"
    )
    found = find_problems(
        replace(EVIDENCE, pauses=pauses),
        ReceiverAddress(name="a", url="https://a/"),
        REDACTOR,
        ActiveMutes((mute,)),
    )
    assert found.problems[CheckKind.PAUSED].text == "slow is paused"
    assert found.muted == {CheckKind.PAUSED: frozenset({"mail.a"})}
    assert CheckKind.STALLED not in found.problems


def test_checks_without_data_are_unknown() -> None:
    hour = EVIDENCE.hour_by_type
    assert isinstance(hour, History)
    gap = Gap(start=NOW - timedelta(minutes=5), end=NOW, reason=GapReason.NO_COLLECTOR)
    without_history = replace(make_evidence(), hour_by_type=replace(hour, activity={}, gaps=(gap,)))
    found = find_problems(without_history, ReceiverAddress(name="a", url="https://a/"), REDACTOR)
    assert found == FoundProblems({}, frozenset({CheckKind.DEAD, CheckKind.FAILURES}))


def test_a_secret_in_the_name_of_a_type_is_hidden() -> None:
    name = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    with_secret = make_evidence({}, {59: {name: (0, 40, 0)}})
    found = find_problems(with_secret, ReceiverAddress(name="a", url="https://a/"), REDACTOR)
    assert "eyJ" not in repr(found)
    assert "[redacted]" in found.problems[CheckKind.FAILURES].text
