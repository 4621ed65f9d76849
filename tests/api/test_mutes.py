"""`GET /admin/jobs/mutes`, and the mutes on the page: catches one that hides who made it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import Mute, MuteMode
from jobmon.actions.request import Person
from jobmon.diagnosis.notices import CheckKind
from jobmon.redaction.redactor import Redactor

from ..conftest import Api

ADA = Person(subject="ada", role="ops", address="10.0.0.1")


def test_mutes_are_listed_with_their_person_and_their_end(api: Api) -> None:
    connection = api.app.extensions["jobmon_connection"]
    records = MuteRecords(connection, connection, Redactor())
    now = datetime.now(UTC)
    first = records.add(
        Mute(kind=None, by=ADA, until=now + timedelta(hours=1), reason="move", at=now)
    )
    records.end(first, Person(subject="bob"), "done")
    second = Mute(
        kind=CheckKind.STALLED,
        types="mail*",
        mode=MuteMode.MUTE,
        by=ADA,
        at=now + timedelta(milliseconds=1),
        until=now + timedelta(hours=2),
        reason="away",
    )
    records.add(second)
    found: list[dict[str, Any]] = api.get_as_admin("/admin/jobs/mutes").json["data"]
    assert [(each["kind"], each["types"], each["isActive"]) for each in found] == [
        ("stalled_types", "mail*", True),
        (None, "", False),
    ]
    assert found[0]["by"] == {"subject": "ada", "role": "ops", "address": "10.0.0.1"}
    assert found[0]["endedAt"] is None
    assert found[1]["endedBy"]["subject"] == "bob"
