"""What a receiver gets of the notices: catches another text than the pages show."""

from dataclasses import replace
from datetime import timedelta

from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.notify.problems import Findings, find_problems
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.series import History
from jobmon.settings.receivers import ReceiverAddress

from ..diagnosis.test_attention import NOW, Step, evidence, overdue_since, texts

REDACTOR = Redactor()
STEPS: dict[int, Step] = {59: {"mail.a": (0, 40, 2), "pdf": (0, 40, 3), "mail.b": (40, 0, 0)}}
EVIDENCE = evidence(
    {("queued", "mail.a"): 1},
    STEPS,
    expired_leases=3,
    due=1,
    overdue_by_type=overdue_since(slow=timedelta(hours=1)),
)


def find(receiver: ReceiverAddress) -> Findings:
    return find_problems(EVIDENCE, receiver, REDACTOR)


def test_a_receiver_of_everything_gets_what_the_pages_show() -> None:
    found = find(ReceiverAddress(name="a", url="https://a/"))
    assert sorted(each.text for each in found.problems.values()) == sorted(texts(EVIDENCE))
    assert found.unknown == frozenset()
    failures = found.problems[CheckKind.FAILURES]
    assert (failures.level, failures.count) == (Level.WATCH, 2)
    assert failures.types == {"mail.a", "pdf"}
    assert found.problems[CheckKind.LEASES].address.startswith("/dashboard/jobs?condition=expired")
    assert failures.address == "/dashboard?range=1h&only=failing#types-title"


def test_a_receiver_of_urgent_notices_gets_no_others() -> None:
    found = find(ReceiverAddress(name="a", url="https://a/", level="bad"))
    assert found.problems.keys() == {CheckKind.LEASES, CheckKind.STALLED, CheckKind.DEAD}


def test_a_receiver_of_some_types_gets_notices_about_only_these() -> None:
    """Catches a notice of all types, or one whose numbers are those of others."""
    found = find(ReceiverAddress(name="a", url="https://a/", types=("mail.*", "x")))
    assert {kind: each.text for kind, each in found.problems.items()} == {
        CheckKind.DEAD: "2 jobs died in the last hour, all mail.a",
        CheckKind.FAILURES: "100% of mail.a attempts failed in the last hour",
    }
    assert all(each.types == {"mail.a"} for each in found.problems.values())


def test_checks_that_were_not_made_are_unknown() -> None:
    hour = EVIDENCE.hour
    assert isinstance(hour, History)
    gap = Gap(start=NOW - timedelta(minutes=5), end=NOW, reason=GapReason.NO_COLLECTOR)
    given = replace(evidence(), hour=replace(hour, activity={}, gaps=(gap,)))
    found = find_problems(given, ReceiverAddress(name="a", url="https://a/"), REDACTOR)
    assert found == Findings({}, frozenset({CheckKind.DEAD, CheckKind.FAILURES}))


def test_a_secret_in_the_name_of_a_type_is_hidden() -> None:
    name = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    given = evidence({}, {59: {name: (0, 40, 0)}})
    found = find_problems(given, ReceiverAddress(name="a", url="https://a/"), REDACTOR)
    assert "eyJ" not in repr(found)
    assert "[redacted]" in found.problems[CheckKind.FAILURES].text
