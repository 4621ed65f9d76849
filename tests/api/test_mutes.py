"""Mutes over HTTP: catches a mute without its person or end, and a bad mute that is accepted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.actions import mute_records
from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import Mute, MuteMode
from jobmon.actions.request import Person
from jobmon.app import create_app
from jobmon.diagnosis.notices import CheckKind
from jobmon.redaction.redactor import Redactor
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.settings.actions import NOTICES_MUTE

from ..conftest import Api

ADA = Person(subject="ada", role="ops", address="10.0.0.1")


def test_mutes_are_listed_newest_first_with_their_persons_and_ends(api: Api) -> None:
    connection = api.app.extensions["jobmon_connection"]
    records = MuteRecords(connection, connection, Redactor())
    now = datetime.now(UTC)
    older = records.add(
        Mute(kind=None, by=ADA, until=now + timedelta(hours=1), reason="move", at=now)
    )
    records.end(older, Person(subject="bob"), "done")
    newer = Mute(
        kind=CheckKind.STALLED,
        types="mail*",
        mode=MuteMode.MUTE,
        by=ADA,
        at=now + timedelta(milliseconds=1),
        until=now + timedelta(hours=2),
        reason="away",
    )
    records.add(newer)
    mutes: list[dict[str, Any]] = api.get_as_admin("/admin/jobs/mutes").json["data"]
    assert [(mute["kind"], mute["types"], mute["isActive"]) for mute in mutes] == [
        ("stalled_types", "mail*", True),
        (None, "", False),
    ]
    assert mutes[0]["by"] == {"subject": "ada", "role": "ops", "address": "10.0.0.1"}
    assert mutes[0]["endedAt"] is None
    assert mutes[1]["endedBy"]["subject"] == "bob"


def test_list_of_few_mutes_is_read_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, find = [], MuteRecords._find

    def record_query(records: MuteRecords, own: Any, query: dict[str, Any]) -> list[dict[str, Any]]:
        queries.append(query)
        return find(records, own, query)

    monkeypatch.setattr(MuteRecords, "_find", record_query)
    assert api.get_as_admin("/admin/jobs/mutes").json == {"data": []}
    assert len(queries) == 1


def test_an_old_mute_stays_active_after_many_newer_ones(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mute_records, "MAX_LISTED", 3)
    connection = api.app.extensions["jobmon_connection"]
    records = MuteRecords(connection, connection, Redactor())
    now = datetime.now(UTC)

    def add_mute(days_ago: int, length: timedelta) -> Mute:
        at = now - timedelta(days=days_ago)
        return records.add(Mute(kind=None, by=ADA, at=at, until=at + length, reason="move"))

    oldest, ended = (add_mute(days_ago, timedelta(days=30)) for days_ago in (20, 19))
    records.end(ended, ADA)
    newer = [add_mute(days_ago, timedelta(days=1)) for days_ago in (5, 4, 3, 2)]
    assert [mute.id for mute in records.find_active(now).mutes] == [oldest.id]
    recent_mutes = records.list_recent()
    assert [mute.id for mute in recent_mutes] == [
        *(mute.id for mute in reversed(newer[1:])),
        ended.id,
        oldest.id,
    ]
    assert [mute.id for mute in recent_mutes if mute.end is not None] == [ended.id]
    assert "have an effect" not in caplog.text
    add_mute(1, timedelta(days=30))
    records.list_recent()
    assert "only the newest 3 mutes whose time is not over have an effect" in caplog.text


def test_a_mute_is_added_and_ended_and_a_bad_one_is_refused(
    make_settings: Callable[..., Settings], watched: Any
) -> None:
    permissions = {"admin": frozenset({ADMIN_DASHBOARD, NOTICES_MUTE})}
    settings = make_settings(actions=True, role_permissions=permissions)
    api = Api(create_app(settings, watched.client))
    headers = {"Authorization": f"Bearer {api.token('ada', 'admin')}"}

    def post(path: str, body: Any) -> Any:
        return api.client.post(f"/admin/jobs/mutes{path}", json=body, headers=headers)

    until = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    body = {"kind": "new_dead_jobs", "types": "mail.*", "until": until, "reason": "known"}
    mute = post("", body)
    assert mute.status_code == 201, mute.text
    assert (mute.json["mode"], mute.json["by"]["subject"]) == ("mute", "ada")
    assert mute.json["isActive"] is True
    ended = post(f"/{mute.json['id']}/end", {"reason": "repaired"})
    assert (ended.status_code, ended.json["isActive"]) == (200, False)
    assert ended.json["endedBy"]["subject"] == "ada"
    assert post(f"/{'0' * 20}/end", {}).status_code == 404
    for changes, field in (
        ({"kind": "other"}, "kind"),
        ({"until": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}, "until"),
        ({"until": "soon"}, "until"),
        ({"until": "0001-01-01T00:00:00+23:59"}, "until"),
        ({"reason": ""}, "reason"),
        ({"kind": "expired_leases"}, "types"),
        ({"mode": "acknowledge", "kind": None}, "kind"),
        ({"minutes": 5}, "minutes"),
    ):
        answer = post("", body | changes)
        assert answer.status_code == 422, changes
        assert field in answer.json["error"]["details"], answer.text
