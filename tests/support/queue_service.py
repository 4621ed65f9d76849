"""The service over another program's queue, with the indexes of `jobmon init` and a collector."""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import PROGRESS, STATS, rollup_database
from jobmon.settings import Settings
from jobmon.store.connection import Connection

from ..conftest import SECRET, Api
from . import commands
from .commands import database_uri
from .waiting import eventually

Answer = dict[str, Any]
MongoDb = Database[dict[str, Any]]


@contextmanager
def temporary_database(mongo: MongoClient[dict[str, Any]]) -> Iterator[MongoDb]:
    """An empty database on the real server; drops it and jobmon's own after the block."""
    database = mongo[f"test_{uuid.uuid4().hex}"]
    yield database
    for suffix in ("", "_rollups", "_state"):
        mongo.drop_database(f"{database.name}{suffix}")


def init(uri: str, *options: str, **settings: str) -> list[str]:
    """Run `jobmon init` with these `JOBMON_` settings; returns the indexes that then exist."""
    result = commands.init(uri, *options, **settings)
    assert result.exit_code == 0, result.output
    outcomes = commands.outcomes(result)
    return [index for index, outcome in outcomes.items() if not outcome.startswith("not created")]


class QueueService:
    """The service over a database, with methods for an admin's requests; `changes` are settings."""

    def __init__(self, mongod: Mongod, database: MongoDb, **changes: Any) -> None:
        settings = Settings(
            mongo_uri=database_uri(mongod, database), jwt_secret_key=SECRET, stats_ttl_ms=0
        )
        self.database = database
        self.settings = replace(settings, rollup_db=f"{database.name}_rollups", **changes)
        self.api = Api(create_app(self.settings))
        self.connection: Connection = self.api.app.extensions["jobmon_connection"]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The service with these settings, but the tests' token key and no cache of statistics."""
        queue = cls.__new__(cls)
        queue.settings = replace(settings, jwt_secret_key=SECRET, stats_ttl_ms=0)
        queue.api = Api(create_app(queue.settings))
        queue.connection = queue.api.app.extensions["jobmon_connection"]
        queue.database = queue.connection.database
        return queue

    def close(self) -> None:
        self.connection.client.close()

    def get(self, path: str, **query: Any) -> Answer:
        answer = self.api.get_as_admin(path, **query)
        assert answer.status_code == 200, answer.text
        content: Answer = answer.json
        return content

    def list_ids(self, **query: Any) -> list[str]:
        """The ids of the jobs in a list, read by its cursors in up to three pages.

        Asserts that the cursors lead back through the same pages, and that the total, an export,
        the first page and the last one by its number agree with these ids.
        """
        first = self.get("/admin/jobs/queue", per_page=1, **query)
        query["per_page"] = max(2, -(-first["meta"]["total"] // 3))
        pages, cursor = [], ""
        while cursor is not None:
            page = self.get("/admin/jobs/queue", cursor=cursor, **query)
            pages.append([job["jobId"] for job in page["data"]])
            cursor = page["meta"]["next_cursor"]
        pages_back, cursor = pages[-1:], page["meta"]["prev_cursor"]
        while cursor is not None:
            previous = self.get("/admin/jobs/queue", cursor=cursor, **query)
            pages_back.append([job["jobId"] for job in previous["data"]])
            cursor = previous["meta"]["prev_cursor"]
        assert pages_back[::-1] == pages
        ids = [job_id for page_ids in pages for job_id in page_ids]
        assert page["meta"]["total"] == len(ids) == len(set(ids))
        assert page["meta"]["total_is_exact"] or page["meta"]["reasons"]
        assert [job["jobId"] for job in first["data"]] == ids[:1]
        del query["per_page"]
        last = self.get("/admin/jobs/queue", per_page=1, page=len(ids) or 1, **query)["data"]
        assert [job["jobId"] for job in last] == ids[-1:]
        assert self.export_ids(**query) == ids
        return ids

    def export_ids(self, **query: Any) -> list[str]:
        answer = self.api.get_as_admin("/admin/jobs/queue", format="ndjson", **query)
        assert answer.status_code == 200
        *jobs, _ = map(json.loads, answer.text.splitlines())
        return [job["jobId"] for job in jobs]

    @contextmanager
    def running_collector(self) -> Iterator[None]:
        """Run a collector; the block starts when it has counted all jobs and attempts."""
        # The service uses an earlier collector's statistics for five seconds: delete them, and wait
        # until the service no longer uses them.
        rollup_database(self.connection).state.delete_one({"name": STATS})
        eventually(lambda: self.get("/admin/jobs/stats")["source"] != "rollup")
        started = datetime.now(UTC)
        with collecting(self.settings):
            eventually(lambda: self.get("/admin/jobs/stats")["source"] == "rollup")
            eventually(lambda: self.get("/admin/jobs/timeseries")["meta"]["source"] == "rollup")
            # Without this wait, a test could end the collector before its history is complete.
            complete = {"name": PROGRESS, "completeUntil": {"$gte": started}}
            eventually(lambda: rollup_database(self.connection).state.find_one(complete))
            yield

    def activity(self) -> Answer:
        """The sums of the last hour's steps by name; None if no step has a value."""
        steps = self.get("/admin/jobs/timeseries")["data"]
        counts_by_name = {
            name: [step[name] for step in steps if step[name] is not None]
            for name in ("enqueued", "succeeded", "failed", "dlq")
        }
        return {name: sum(counts) if counts else None for name, counts in counts_by_name.items()}

    def sampled_counts(self, status: str) -> list[int]:
        """The number of jobs with a status in each of the last hour's steps that has a sample."""
        steps = self.get("/admin/jobs/timeseries")["data"]
        return [step["statusCounts"].get(status, 0) for step in steps if step["statusCounts"]]

    def metric(self, name: str) -> dict[str, float]:
        """The values of a metric by its labels, without the label `queue`."""
        text = re.sub(r'queue="[^"]*",?', "", self.api.get_as_admin("/metrics").text)
        lines = text.replace("{}", "").splitlines()
        samples = (line.rpartition(" ") for line in lines if line.startswith(name))
        return {labels.removeprefix(name): float(value) for labels, _, value in samples}


def drop_derived(detail: Answer) -> None:
    """Remove the fields that jobmon computes: explanation, links, and the group of each error."""
    del detail["explanation"], detail["errorGroup"], detail["links"]
    for attempt in detail["attempts"]:
        del attempt["errorGroup"]
