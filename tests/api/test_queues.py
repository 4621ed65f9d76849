"""`GET /queues`: catches statistics that a caller sees without the permission, and a queue that
looks healthy although it cannot be read."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.actions.mutes import Mute
from jobmon.actions.request import Person
from jobmon.api import queues as queues_module
from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web.queues import WatchedQueue

from ..conftest import NOW, Api
from ..support.queues import serve_queues
from ..support.waiting import PATIENCE_S, eventually

STATISTICS = (
    "statusCounts",
    "oldestQueuedJobAgeMs",
    "forecast",
    "finishedPerMinute",
    "failureRate",
    "asOf",
    "source",
)


@pytest.fixture
def queues_api(watched: Any, tmp_path: Path) -> Api:
    return serve_queues(watched, tmp_path)


def list_queues(api: Api, role: str) -> dict[str, Any]:
    """The queues that the role sees, by name."""
    answer = api.get("/queues", token=api.token("ada", role))
    assert answer.status_code == 200
    return {queue["name"]: queue for queue in answer.json["data"]}


def test_every_queue_has_its_own_statistics(queues_api: Api, watched: Any) -> None:
    watched.payouts.insert_many([{"status": "dlq", "type": "x"}, {"status": "odd", "type": "x"}])
    by_name = list_queues(queues_api, "chief")
    assert list(by_name) == ["mails", "payouts", "internal"]
    assert by_name["mails"]["statusCounts"]["queued"] == 1
    payout_counts = by_name["payouts"]["statusCounts"]
    assert payout_counts["dlq"] == payout_counts["odd"] == 1
    assert [queue["isDefault"] for queue in by_name.values()] == [True, False, False]
    assert [queue["environment"] for queue in by_name.values()] == ["production", None, None]
    assert {queue["source"] for queue in by_name.values()} == {"live"}


def test_without_a_collector_no_queue_is_ok(queues_api: Api) -> None:
    for queue in list_queues(queues_api, "chief").values():
        assert queue["level"] != "ok"
        assert any("no collector is running" in reason for reason in queue["unchecked"])


def test_statistics_need_the_permission_of_the_queue(queues_api: Api) -> None:
    for role, visible_names in (("admin", {"mails", "internal"}), ("payroll", {"payouts"})):
        for name, queue in list_queues(queues_api, role).items():
            has_statistics = name in visible_names
            assert (queue["statusCounts"] is not None) == has_statistics, (role, name)
            if not has_statistics:
                assert {queue[field] for field in STATISTICS} == {None}
                assert (queue["level"], queue["notices"]) == ("unknown", [])
                assert queue["unchecked"] == [
                    "Your role does not have the permission of this queue."
                ]


def test_notices_have_the_time_when_their_condition_began(queues_api: Api, watched: Any) -> None:
    expired_at = NOW.replace(microsecond=0)
    lease = {"status": "leased", "type": "x", "leasedBy": "w1"}
    watched.payouts.insert_many([lease | {"leaseExpiresAt": end} for end in (expired_at, None)])
    notices = list_queues(queues_api, "chief")["payouts"]["notices"]
    assert [notice["since"] for notice in notices if "stuck" in notice["text"]] == [
        f"{expired_at:%Y-%m-%dT%H:%M:%S}.000Z"
    ]


def test_a_muted_notice_is_listed_but_does_not_set_the_level(queues_api: Api, watched: Any) -> None:
    """Catches a queue that seems to need attention although its overview shows no notice."""
    expired = {"status": "leased", "type": "x", "leasedBy": "w1", "leaseExpiresAt": NOW}
    for name in ("mails", "payouts"):
        watched[name].insert_one(dict(expired))
    queues = queues_api.app.extensions["jobmon_queues"].open_all()
    (mutes,) = (queue.mutes for queue in queues if queue.name == "payouts")
    until = datetime.now(UTC) + timedelta(hours=1)
    mutes.add(Mute(kind=None, by=Person(subject="ada"), until=until, reason="known"))
    by_name = list_queues(queues_api, "chief")
    assert by_name["mails"]["level"] == "bad"
    assert not any(notice["isMuted"] for notice in by_name["mails"]["notices"])
    assert by_name["payouts"]["level"] == "unknown"  # no collector runs
    assert [notice["text"] for notice in by_name["payouts"]["notices"] if notice["isMuted"]] == [
        notice["text"] for notice in by_name["mails"]["notices"]
    ]


def test_a_queue_that_is_closed_to_owners_is_not_listed_for_them(queues_api: Api) -> None:
    assert list(list_queues(queues_api, "user")) == ["mails", "payouts"]
    assert list(list_queues(queues_api, "payroll")) == ["mails", "payouts"]


def test_each_queue_has_its_own_search_fields(
    watched: Any, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    """Catches a search by a field of another queue, for which this queue has no index."""
    path = tmp_path / "queues.toml"
    path.write_text(
        '[orders]\nsearch_fields = ["payload.id"]\n'
        '[mails]\ncollection = "mails"\nsearch_fields = ["payload.to"]'
    )
    watched.jobs.insert_one({"jobId": "o1", "payload": {"id": 1}})
    watched.mails.insert_one({"jobId": "m1", "payload": {"id": 1, "to": "ada"}})
    api = Api(create_app(make_settings(queues=str(path)), watched.client))
    answers = {
        (queue, name): api.get_as_admin(f"/queues/{queue}/admin/jobs/queue", **{name: value})
        for queue in ("orders", "mails")
        for name, value in {"payload.id": "1", "payload.to": "ada"}.items()
    }
    assert [answer.status_code for answer in answers.values()] == [200, 422, 422, 200]
    (order,) = answers["orders", "payload.id"].json["data"]
    (mail,) = answers["mails", "payload.to"].json["data"]
    assert (order["jobId"], mail["jobId"]) == ("o1", "m1")
    assert "payload.id" in answers["mails", "payload.id"].json["error"]["details"]


def test_a_single_queue_is_listed_with_the_name_default(api: Api) -> None:
    (queue,) = api.get_as_admin("/queues").json["data"]
    assert (queue["name"], queue["isDefault"], queue["environment"]) == ("default", True, None)
    assert api.get_as_admin("/queues/default/admin/jobs/stats").status_code == 200


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (AutoReconnect("x"), "Not read: "),
        (RuntimeError("x"), "Not read: jobmon failed; its log has the reason."),
    ],
)
def test_a_queue_that_cannot_be_read_is_unknown_with_a_reason(
    queues_api: Api, monkeypatch: pytest.MonkeyPatch, fault: Exception, reason: str
) -> None:
    gather = queues_module.gather_evidence

    def fail_for_payouts(queue: WatchedQueue, *arguments: Any) -> Any:
        if queue.name == "payouts":
            raise fault
        return gather(queue, *arguments)

    monkeypatch.setattr(queues_module, "gather_evidence", fail_for_payouts)
    by_name = list_queues(queues_api, "chief")
    assert by_name["mails"]["statusCounts"]["queued"] == 1
    assert (by_name["payouts"]["level"], by_name["payouts"]["statusCounts"]) == ("unknown", None)
    assert by_name["payouts"]["unchecked"][0].startswith(reason)


def test_a_queue_that_does_not_answer_does_not_delay_another(
    watched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches outdated statistics of the silent queue, and a thread for each request to it."""
    queues_toml = """
        [mails]
        [silent]
        uri = "mongodb://127.0.0.2/watched"
        collection = "payouts"
        permission = "PAYOUTS"
    """
    monkeypatch.setattr(queues_module, "CACHE_TTL_MS", 0)
    monkeypatch.setattr(queues_module, "WAIT_S", 0.05)
    monkeypatch.setattr(queues_module, "SHORT_WAIT_S", 0.01)
    monkeypatch.setattr(queues_module, "SUMMARY_TTL_S", 0.0)
    monkeypatch.setattr(queues_module, "PAUSE_FACTOR", 0)
    monkeypatch.setattr(queues_module, "MAX_AGE_S", 1.0)
    api = serve_queues(watched, tmp_path, queues_toml)
    answers_again, is_silent, read_times = threading.Event(), threading.Event(), []
    gather = queues_module.gather_evidence

    def wait_while_silent(queue: WatchedQueue, *arguments: Any) -> Any:
        if queue.name == "silent" and is_silent.is_set():
            read_times.append(time.monotonic())
            assert answers_again.wait(PATIENCE_S)
        return gather(queue, *arguments)

    monkeypatch.setattr(queues_module, "gather_evidence", wait_while_silent)

    def read_counts(name: str) -> Any:
        return list_queues(api, "chief")[name]["statusCounts"]

    eventually(lambda: read_counts("silent"))
    is_silent.set()
    eventually(lambda: read_counts("silent") is None)
    assert list_queues(api, "chief")["silent"]["level"] == "unknown"
    eventually(lambda: read_counts("mails"))
    assert len(read_times) == 1  # one thread waits for the queue, not one for each request
    is_silent.clear()
    answers_again.set()
    eventually(lambda: read_counts("silent"))


def test_a_slow_queue_is_shown_after_it_was_read(
    queues_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a queue that is never shown because reading it takes longer than callers wait."""
    gather = queues_module.gather_evidence

    def read_slowly(queue: WatchedQueue, *arguments: Any) -> Any:
        evidence = gather(queue, *arguments)
        assert can_finish.wait(PATIENCE_S)
        return evidence

    can_finish = threading.Event()
    monkeypatch.setattr(queues_module, "gather_evidence", read_slowly)
    monkeypatch.setattr(queues_module, "WAIT_S", 0.0)
    monkeypatch.setattr(queues_module, "SHORT_WAIT_S", 0.0)
    mails = list_queues(queues_api, "chief")["mails"]
    assert mails["statusCounts"] is None
    assert mails["unchecked"] == ["Not known yet: it is being read for the first time."]
    can_finish.set()
    eventually(lambda: list_queues(queues_api, "chief")["mails"]["statusCounts"])
