"""`GET /admin/jobs/…`: catches a filter that matches too many jobs, a page with wrong numbers, and
wrong statistics."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from bson import ObjectId
from pymongo.errors import ExecutionTimeout

from jobmon.api.job_lists import SKIPPING
from jobmon.rollup.stats import StatsReader
from jobmon.store import list_count
from jobmon.store import stats as stats_module
from jobmon.store.live_stats import LiveStats

from ..conftest import NOW, Api
from ..support.pages import Viewer

QUEUE, STATS = "/admin/jobs/queue", "/admin/jobs/stats"
STATUSES = ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]


@pytest.fixture
def fifty_jobs(watched: Any) -> Any:
    """Jobs 0 to 49, from the oldest to the newest; five are created in each second."""
    watched.jobs.insert_many(
        {
            "_id": ObjectId(f"{index:024x}"),
            "jobId": str(index),
            "status": ["queued", "dlq", "odd"][index % 3],
            "type": ["email.send", "payout.execute"][index % 2],
            "createdAt": NOW + timedelta(seconds=index // 5),
        }
        for index in range(50)
    )
    return watched


def read_ids(answer: Any) -> list[int]:
    return [int(job["jobId"]) for job in answer.json["data"]]


def read_total(api: Api, path: str = QUEUE, **query: Any) -> tuple[int, bool]:
    """The total of the list, and whether it is exact."""
    meta = api.get_as_admin(path, per_page=1, **query).json["meta"]
    return meta["total"], meta["total_is_exact"]


def test_an_admin_gets_the_newest_jobs_first_and_equal_dates_by_id(
    api: Api, fifty_jobs: Any
) -> None:
    answer = api.get_as_admin(QUEUE)
    assert answer.status_code == 200
    assert read_ids(answer) == list(range(49, 29, -1))
    meta = answer.json["meta"]
    assert isinstance(meta.pop("next_cursor"), str)
    assert meta == {
        "page": 1,
        "per_page": 20,
        "total": 50,
        "total_is_exact": True,
        "total_pages": 3,
        "prev_cursor": None,
        "page_is_exact": True,
        "reasons": {"next_cursor": SKIPPING},  # mongomock's index may hold arrays
    }


@pytest.mark.parametrize(
    ("query", "expected", "expected_meta"),
    [
        ({"page": 3}, range(9, -1, -1), (3, 20, 50, 3)),
        ({"page": 2, "per_page": 25}, range(24, -1, -1), (2, 25, 50, 2)),
        ({"page": 4}, [], (4, 20, 50, 3)),
        ({"page": 10**30}, [], (10**30, 20, 50, 3)),
        ({"per_page": 100}, range(49, -1, -1), (1, 100, 50, 1)),
        ({"status": "no such"}, [], (1, 20, 0, 0)),
    ],
)
def test_the_last_page_and_pages_beyond_it_have_no_next_cursor(
    api: Api, fifty_jobs: Any, query: dict[str, Any], expected: Any, expected_meta: tuple[int, ...]
) -> None:
    answer = api.get_as_admin(QUEUE, **query)
    assert read_ids(answer) == list(expected)
    names = ("page", "per_page", "total", "total_pages")
    meta = answer.json["meta"]
    assert meta == dict(zip(names, expected_meta, strict=True)) | {
        "total_is_exact": True,
        "next_cursor": None,
        "prev_cursor": meta["prev_cursor"],
        "page_is_exact": True,
        "reasons": {"prev_cursor": SKIPPING} if meta["prev_cursor"] else {},  # as above
    }
    assert (meta["prev_cursor"] is not None) == (meta["page"] > 1 and expected != [])


@pytest.mark.parametrize("per_page", [1, 7, 10, 49, 50])
def test_cursors_visit_every_job_once(api: Api, fifty_jobs: Any, per_page: int) -> None:
    visited, page, query = [], 0, {"per_page": per_page}
    while True:
        answer = api.get_as_admin(QUEUE, **query)
        page += 1
        visited += read_ids(answer)
        assert answer.json["meta"]["page"] == page
        assert answer.json["meta"]["total"] == 50
        if answer.json["meta"]["next_cursor"] is None:
            break
        query["cursor"] = answer.json["meta"]["next_cursor"]
    assert visited == list(range(49, -1, -1))


def test_totals_beyond_the_count_limit_come_from_the_statistics(
    api: Api, fifty_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 10)
    assert read_total(api) == (50, True)
    assert read_total(api, status="dlq", type="email.send") == (8, True)
    assert read_total(api, status="dlq") == (17, True)
    assert read_total(api, status=["dlq", "odd"]) == (33, True)


def test_stats_of_an_empty_queue_are_zero(api: Api) -> None:
    stats = api.get_as_admin(STATS).json
    as_of = datetime.fromisoformat(stats.pop("asOf"))
    forecast = stats.pop("forecast")
    assert forecast["outlook"] == "empty"  # known even without a collector
    assert timedelta(0) <= datetime.now(UTC) - as_of < timedelta(minutes=1)
    assert stats == {
        "totalJobs": 0,
        "statusCounts": dict.fromkeys(STATUSES, 0),
        "typeCounts": {},
        "oldestQueuedJobAgeMs": 0,
        "oldestQueuedJobAgeMsByType": {},
        "expiredLeases": 0,
        "dueJobs": 0,
        "scheduledJobs": 0,
        "estimatedTotalJobs": 0,
        "reasons": {},
        "source": "live",
    }


def test_stats_count_every_job_under_its_own_status(api: Api, watched: Any) -> None:
    counts = {"queued": 15, "dlq": 3, "succeeded": 12, "on-hold": 2, 7: 1, None: 1}
    jobs = [{"status": status} for status, count in counts.items() for _ in range(count)]
    watched.jobs.insert_many([*jobs, {}])
    answer = api.get_as_admin(STATS)
    assert answer.status_code == 200
    assert answer.json["statusCounts"] == dict.fromkeys(STATUSES, 0) | {
        "queued": 15,
        "dlq": 3,
        "succeeded": 12,
        "on-hold": 2,
        "7": 1,
        "null": 2,
    }
    assert answer.json["totalJobs"] == 35 == sum(answer.json["statusCounts"].values())
    assert answer.json["estimatedTotalJobs"] == 35


def test_stats_have_types_ages_leases_and_due_jobs(api: Api, watched: Any) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    past = {minutes: now - timedelta(minutes=minutes) for minutes in (1, 2, 3, 60)}
    in_an_hour = now + timedelta(hours=1)
    watched.jobs.insert_many(
        [
            {"status": "queued", "type": "a", "createdAt": past[3], "nextRunAt": past[3]},
            {"status": "queued", "type": "a", "createdAt": past[2], "nextRunAt": in_an_hour},
            {"status": "queued", "type": "b", "createdAt": past[1]},
            {"status": "queued", "type": "b", "createdAt": "long ago"},
            {"status": "failed", "type": "a", "createdAt": past[60], "nextRunAt": in_an_hour},
            {"status": "leased", "type": "a", "leaseExpiresAt": past[1]},
            {"status": "leased", "type": "a", "leaseExpiresAt": in_an_hour},
            {"status": "succeeded", "type": "b", "leaseExpiresAt": past[1], "createdAt": past[60]},
        ]
    )
    stats = api.get_as_admin(STATS).json
    as_of = datetime.fromisoformat(stats["asOf"])

    def age_ms(minutes: int) -> int:
        return (as_of - past[minutes]) // timedelta(milliseconds=1)

    assert stats["typeCounts"] == {
        "a": {"queued": 2, "failed": 1, "leased": 2},
        "b": {"queued": 2, "succeeded": 1},
    }
    assert stats["oldestQueuedJobAgeMs"] == pytest.approx(age_ms(3), abs=1)
    assert stats["oldestQueuedJobAgeMsByType"] == {
        "a": pytest.approx(age_ms(3), abs=1),
        "b": pytest.approx(age_ms(1), abs=1),
    }
    assert (stats["expiredLeases"], stats["dueJobs"], stats["scheduledJobs"]) == (1, 3, 2)


def test_stats_of_jobs_without_a_date_are_null_with_a_reason_and_not_in_metrics(
    api: Api, watched: Any
) -> None:
    """Catches a number or a text that is read as a date: a job that is 0 ms old, or is due."""
    micros = 1_700_000_000_000_000
    odd_dates: list[dict[str, Any]] = [
        {
            "createdAt": micros / 1e6,
            "nextRunAt": micros // 1_000,
            "leaseExpiresAt": micros // 1_000,
        },
        {"createdAt": micros, "nextRunAt": micros, "leaseExpiresAt": micros},
        {"createdAt": "2026", "nextRunAt": "2026", "leaseExpiresAt": "2026"},
    ]
    for status in ("queued", "leased"):
        watched.jobs.insert_many({"status": status, "type": "t", **dates} for dates in odd_dates)
    stats = api.get_as_admin(STATS).json
    fields = ("oldestQueuedJobAgeMs", "expiredLeases", "dueJobs", "scheduledJobs")
    assert {field: stats[field] for field in fields} == dict.fromkeys(fields)
    assert stats["oldestQueuedJobAgeMsByType"] == {}
    due_reason = "nextRunAt of 3 waiting jobs is not a date"
    age_reason = "createdAt of the queued jobs is not a date, or missing"
    type_reason = "or the type is not a text"
    assert stats["reasons"] == {
        "oldestQueuedJobAgeMs": age_reason,
        "oldestQueuedJobAgeMsByType": f"not known for 1 of 1 types: {age_reason}, {type_reason}",
        "expiredLeases": "leaseExpiresAt of 3 leased jobs is not a date",
        "dueJobs": due_reason,
        "scheduledJobs": due_reason,
    }
    metrics = api.get_as_admin("/metrics").text
    for name in ("oldest_queued_job_age", "expired_leases", "due_jobs", "scheduled_jobs"):
        assert f"\njobmon_{name}" not in metrics, name
    viewer = Viewer(api.app)
    viewer.post("/dashboard/session", {"token": api.token()})
    assert "nothing waits" not in viewer.page("/dashboard").text


def test_counts_by_date_have_a_reason_if_some_dates_are_odd(api: Api, watched: Any) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    watched.jobs.insert_many(
        [
            {"status": "queued", "type": "t", "createdAt": now, "nextRunAt": 7},
            {
                "status": "queued",
                "type": "t",
                "createdAt": now,
                "nextRunAt": now - timedelta(hours=1),
            },
            {"status": "leased", "leaseExpiresAt": "soon"},
            {"status": "leased", "leaseExpiresAt": now - timedelta(hours=1)},
        ]
    )
    stats = api.get_as_admin(STATS).json
    counts = (stats["expiredLeases"], stats["dueJobs"], stats["scheduledJobs"])
    assert counts == (1, 1, None)
    assert set(stats["reasons"]) == {"expiredLeases", "dueJobs", "scheduledJobs"}


def test_a_job_from_the_future_has_no_negative_age(api: Api, watched: Any) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    watched.jobs.insert_one({"status": "queued", "createdAt": tomorrow})
    assert api.get_as_admin(STATS).json["oldestQueuedJobAgeMs"] == 0


def test_a_count_that_takes_too_long_becomes_an_estimate(
    api: Api, fifty_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_timeout(_: LiveStats) -> Any:
        raise ExecutionTimeout("operation exceeded time limit", 50)

    monkeypatch.setattr(LiveStats, "_counts_by_status_and_type", raise_timeout)
    stats = api.get_as_admin(STATS).json
    assert (stats["totalJobs"], stats["source"]) == (50, "estimate")
    assert stats["statusCounts"] is None
    assert stats["typeCounts"] is None
    assert stats["dueJobs"] is None
    unknown = {"statusCounts", "typeCounts", "dueJobs", "oldestQueuedJobAgeMsByType"}
    assert unknown <= stats["reasons"].keys()
    types = api.get_as_admin("/admin/jobs/types").json
    assert list(types["meta"]["reasons"]) == ["statusCounts"]
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 10)
    assert read_total(api) == (50, False)
    assert read_total(api, status="dlq") == (10, False)


def test_types_beyond_the_limit_are_counted_together(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches statistics without a limit on their size: every job may have its own type."""
    monkeypatch.setattr(stats_module, "MAX_TYPES", 2)
    monkeypatch.setattr(stats_module, "MAX_STATUSES", 7)
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 4)
    rows = [("queued", "large")] * 9 + [("dlq", "small")] * 6 + [("odd", "one")] * 5
    rows += [("odder", "two")] * 3
    watched.jobs.insert_many({"status": status, "type": job_type} for status, job_type in rows)
    stats = api.get_as_admin(STATS).json
    assert stats["typeCounts"] == {
        "large": {"queued": 9},
        "small": {"dlq": 6},
        "(other)": {"odd": 5, "(other)": 3},
    }
    assert stats["totalJobs"] == 23 == sum(stats["statusCounts"].values())
    for query, expected in (
        ({"type": "large"}, (9, True)),
        ({"type": "one"}, (4, False)),  # five jobs, but the statistics do not list their type
        ({"type": "two"}, (3, True)),
        ({"type": "(other)"}, (0, True)),
        ({"status": "odd"}, (5, True)),
        ({"status": "odder"}, (3, True)),
        ({"status": "leased"}, (0, True)),
    ):
        assert read_total(api, **query) == expected


def test_types_are_serialized_once_for_the_same_counts(
    api: Api, fifty_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.rollup.series.count_activity", lambda *_: {})  # mongomock lacks it
    (queue,) = api.app.extensions["jobmon_queues"].open_all()
    stats = queue.stats.stats()
    monkeypatch.setattr(StatsReader, "stats", lambda _: stats)
    forecasts = Mock(return_value={})
    monkeypatch.setattr("jobmon.api.admin.read_type_forecasts", forecasts)
    window = {"from": NOW.isoformat(), "to": (NOW + timedelta(hours=1)).isoformat()}
    first, second = (api.get_as_admin("/admin/jobs/types", **window) for _ in range(2))
    assert [row["type"] for row in first.json["data"]] == ["email.send", "payout.execute"]
    assert first.data == second.data
    assert forecasts.call_count == 1


def test_health_needs_no_token(api: Api) -> None:
    assert api.get("/healthz").json == {"status": "ok"}
    ready = api.get("/readyz").json
    assert ready["status"] == "ready"
    assert ready["checks"]["database"]["pingMs"] >= 0
    assert ready["checks"]["rollup"] == {"isFresh": False, "build": None}
