"""Measure what each shipped profile costs, compared with jobmon's own job format in the same run.

    .venv/bin/python bench/adapters.py --jobs 50000

For each profile it fills a collection with copies of a sample's documents (96% succeeded, 30 days),
creates the indexes of `jobmon init`, and times answers in one process without HTTP. It prints the
documents and index keys that the database reads for one answer, and tables of times with ratios.
"""

import argparse
import os
import random
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import ObjectId, json_util
from filling import STATUSES, fill
from flask.testing import FlaskClient
from pymongo import MongoClient
from scale import SECRET, collecting, read_cpu_s, time_p50

from jobmon.app import create_app
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import PROGRESS, rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.setup.init import run_init
from jobmon.setup.init_plan import InitOptions
from jobmon.store.connection import Connection
from jobmon.store.live_stats import LiveStats
from jobmon.web.auth import issue_token

Document = dict[str, Any]
SAMPLES = Path(__file__).parents[1] / "tests" / "adapters" / "samples"
# The sample and the collection of each profile. For `jobmon`, bench/filling.py makes the jobs.
CASES = {
    "jobmon": None,
    "agenda": ("agenda-6", "agendaJobs"),
    "pulse": ("pulse", "pulseJobs"),
    "celery": ("celery-mongodb", "celery_taskmeta"),
    "payload": ("payload", "payload-jobs"),
    "mongodb-queue": ("mongodb-queue", "mail"),
    "mongo-message-queue": ("mongo-message-queue", "_queue"),
    "mongoosejs-task": ("mongoosejs-task", "tasks"),
    "hangfire": ("hangfire-mongo", "hangfire.jobGraph"),
}
BATCH = 10_000
CHANGES, CHANGES_A_SECOND = 4_000, 500
LONGEST_WAIT_S = 150  # for the collector's first count, and for its history
SPECIAL_SHARE = 0.1  # the share of special cases among the jobs of a status that has special cases
FINAL = ("succeeded", "dlq", "cancelled")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


@dataclass(frozen=True)
class Template:
    """A document of a sample, its status as jobmon shows it, and when it was created."""

    document: Document
    status: str
    created_at: datetime


@dataclass(frozen=True)
class Cost:
    """A time in ms, and the documents and index keys that were read; None: not measured."""

    ms: float
    documents: int | None = None
    keys: int | None = None


def shift_dates(value: Any, shift: timedelta) -> Any:
    """A value with all its dates moved by `shift`; a text that is a date is moved, too."""
    match value:
        case dict():
            return {name: shift_dates(item, shift) for name, item in value.items()}
        case list():
            return [shift_dates(item, shift) for item in value]
        case datetime():
            return value + shift
        case str() if _ISO.fullmatch(value):
            moved = (datetime.fromisoformat(value) + shift).isoformat(timespec="milliseconds")
            return moved.replace("+00:00", "Z")
        case _:
            return value


def make_copy(
    template: Template, number: int, created_at: datetime, newest_created_at: datetime
) -> Document:
    """A job like the template, with dates relative to `created_at`.

    If the job has not ended, its dates are relative to now, so that a valid lease stays valid.
    """
    old_time, new_time = template.created_at, created_at
    if template.status not in FINAL:
        old_time, new_time = newest_created_at, datetime.now(UTC)
    document = shift_dates(template.document, new_time - old_time)
    if isinstance(document["_id"], ObjectId):
        second = int(created_at.timestamp()).to_bytes(4, "big")
        document["_id"] = ObjectId(second + number.to_bytes(8, "big"))
    else:
        document["_id"] = str(uuid.uuid4())
    return document


def read_templates(uri: str, settings: Settings, sample: str) -> list[Template]:
    """The jobs of a sample; stores them for a moment, so that the server computes the statuses."""
    content = json_util.loads((SAMPLES / f"{sample}.json").read_text())
    documents = content["collections"][settings.jobs_collection]["documents"]
    with MongoClient[Document](uri, tz_aware=True) as client:
        collection = client.get_default_database()[settings.jobs_collection]
        collection.insert_many(documents)
        connection = Connection(settings, client)
        statuses = {
            job["_id"]: job["status"] for job in connection.jobs.find({}, ("status", "_id"))
        }
        stored_documents = list(collection.find())
        collection.drop()
    return [
        Template(document, statuses[document["_id"]], find_creation(document))
        for document in stored_documents
        if document["_id"] in statuses
    ]


def find_creation(document: Document) -> datetime:
    """The time in the document's ObjectId, or its latest date, so that no copy has a later date."""
    if isinstance(document["_id"], ObjectId):
        created_at: datetime = document["_id"].generation_time
        return created_at
    return max(list_dates(document), default=datetime.now(UTC))


def list_dates(value: Any) -> Iterator[datetime]:
    if isinstance(value, datetime):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from list_dates(item)


def fill_part(uri: str, name: str, templates: list[Template], start: int, count: int) -> None:
    """Insert one batch of jobs, whose numbers begin at `start`."""
    rng = random.Random(start)  # noqa: S311
    by_status: dict[str, list[Template]] = {}
    for template in templates:
        by_status.setdefault(template.status, []).append(template)
    # The status of the copies for a status that the sample lacks.
    default_status = next(status for status in FINAL if status in by_status)
    first, step = datetime.now(UTC) - timedelta(days=30), timedelta(days=30) / count
    newest_created_at = max(template.created_at for template in templates)
    numbers = range(start, min(start + BATCH, count))

    def choose_template() -> Template:
        """Usually the first template of a random status; its other templates are special cases."""
        usual, *special = by_status.get(rng.choice(STATUSES), by_status[default_status])
        return rng.choice(special) if special and rng.random() < SPECIAL_SHARE else usual

    documents = [
        make_copy(
            choose_template(),
            number,
            first + step * number,
            newest_created_at,
        )
        for number in numbers
    ]
    with MongoClient[Document](uri) as client:
        client.get_default_database()[name].insert_many(documents, ordered=False)


def fill_profile(settings: Settings, count: int) -> Settings:
    """Fill a database with jobs of a profile and index them; returns the settings to watch it."""
    uri = settings.mongo_uri
    if (case := CASES[settings.profile]) is None:
        fill(uri, count)
    else:
        sample, collection = case
        settings = replace(settings, jobs_collection=collection)
        templates = read_templates(uri, settings, sample)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            parts = [
                pool.submit(fill_part, uri, collection, templates, start, count)
                for start in range(0, count, BATCH)
            ]
            for part in parts:
                part.result()
    for finding in run_init(settings, InitOptions()):
        if finding.level != "ok":
            print(f"  {finding.message}", flush=True)
    return settings


def change_jobs(uri: str, name: str, ids: list[Any]) -> None:
    """Overwrite the fields of jobs with the fields of other jobs, at a steady rate."""
    with MongoClient[Document](uri) as client:
        collection = client.get_default_database()[name]
        documents = list(collection.find({"_id": {"$in": ids}}))
        random.Random(1).shuffle(documents)  # noqa: S311
        started = time.monotonic()
        for number in range(CHANGES):
            content = dict(documents[number % len(documents)])
            content["_id"] = ids[number % len(ids)]
            content.pop("jobId", None)
            collection.update_one({"_id": content.pop("_id")}, {"$set": content})
            time.sleep(max(0.0, started + number / CHANGES_A_SECOND - time.monotonic()))


def measure_answer(client: FlaskClient, database: Any, path: str, token: str) -> Cost:
    """The median time of an answer, and the documents and keys that the database reads for it."""
    headers = {"Authorization": f"Bearer {token}"}

    def answer() -> None:
        response = client.get(path, headers=headers)
        if response.status_code != 200:
            raise RuntimeError(f"{path}: {response.text}")

    took_ms = time_p50(answer, 1)
    time.sleep(2.1)  # a cached count expires
    database.command("profile", 2)
    answer()
    database.command("profile", 0)
    operations = list(database.system.profile.find({"appName": "jobmon"}))
    database.system.profile.drop()
    return Cost(
        took_ms,
        sum(operation.get("docsExamined", 0) for operation in operations),
        sum(operation.get("keysExamined", 0) for operation in operations),
    )


def measure(
    server: Mongod, profile: str, count: int, *, has_collector: bool = True
) -> dict[str, Cost]:
    """The costs with `count` jobs of a profile, by name of the measurement; drops the databases."""
    uri = server.uri.replace("/?", f"/{profile}?")
    settings = Settings(
        mongo_uri=uri,
        profile=profile,
        jwt_secret_key=SECRET,
        query_timeout_ms=120_000,
        stats_ttl_ms=0,
        rollup_db=f"{profile}_rollups",
        log_level="ERROR",
    )
    settings = fill_profile(settings, count)
    connection = Connection(settings)
    try:
        return measure_filled(server, settings, connection, has_collector=has_collector)
    finally:
        for name in (profile, settings.rollup_db):
            connection.client.drop_database(name)
        connection.close()


def measure_filled(
    server: Mongod, settings: Settings, connection: Connection, *, has_collector: bool
) -> dict[str, Cost]:
    """The costs with a filled collection; without `has_collector`, only the costs of counts."""
    live, segments = LiveStats(connection), SegmentMap(connection.jobs)
    stats = live.count()
    costs = {
        "stats, live": measure_work(live.count),
        "CPU of the database for live stats": measure_cpu(live.count, server.pid),
        "CPU of the database for the first count": measure_cpu(
            lambda: segments.build(lambda _: None), server.pid
        ),
    }
    status_counts = stats.status_counts() or {}
    counts = {status: count for status, count in status_counts.items() if count}
    print(f"  {counts}, types: {len(stats.type_counts() or {})}", flush=True)
    if not has_collector:
        return costs
    app = create_app(settings)
    client, database = app.test_client(), connection.client[connection.database.name]
    with app.app_context():
        token = issue_token("root", "admin", timedelta(hours=9))
    collection = database[settings.jobs_collection]
    ids = [job["_id"] for job in collection.find({}, {"_id": 1}).sort("_id", -1).limit(1_000)]
    cpu_without_collector = measure_changes(server, settings, ids, None)
    started = time.monotonic()
    environment = {
        "JOBMON_PROFILE": settings.profile,
        "JOBMON_JOBS_COLLECTION": settings.jobs_collection,
        "JOBMON_ROLLUP_DB": settings.rollup_db,
    }
    with collecting(settings.mongo_uri, **environment) as collector_pid:
        reader = RollupReader(connection)
        while reader.stats() is None:
            time.sleep(0.05)
            if time.monotonic() - started > LONGEST_WAIT_S:
                raise RuntimeError("no first count")
        costs["first count"] = Cost((time.monotonic() - started) * 1_000)
        await_history(connection)
        costs["first count with 30 days of history"] = Cost((time.monotonic() - started) * 1_000)
        database_s, collector_s = measure_changes(server, settings, ids, collector_pid)
        database_s -= cpu_without_collector[0]
        for name, added_s in (("database", database_s), ("collector", collector_s)):
            added_ms = added_s * 1_000 / CHANGES * 1_000
            costs[f"CPU of the {name} for 1,000 changes"] = Cost(added_ms)
        longest_type_name = max(stats.type_counts() or {"": {}}, key=len)
        headers = {"Authorization": f"Bearer {token}"}
        jobs = client.get("/admin/jobs/queue", headers=headers).json["data"]
        paths = {
            "stats": "/admin/jobs/stats",
            "first page": "/admin/jobs/queue",
            "a job": f"/jobs/{jobs[0]['jobId']}",
            "by type": f"/admin/jobs/queue?type={longest_type_name}",
        } | {f"by status {status}": f"/admin/jobs/queue?status={status}" for status in counts}
        for name, path in paths.items():
            costs[name] = measure_answer(client, database, path, token)
    app.extensions["jobmon_connection"].close()
    for name, cost in costs.items():
        reads = ""
        if cost.documents is not None:
            reads = f", reads {cost.documents:,} documents and {cost.keys:,} keys"
        print(f"  {name}: {cost.ms:,.1f} ms{reads}", flush=True)
    return costs


def await_history(connection: Connection) -> None:
    """Wait until the collector has counted the history, at most `LONGEST_WAIT_S`."""
    state, until = rollup_database(connection).state, time.monotonic() + LONGEST_WAIT_S
    while "completeUntil" not in (state.find_one({"name": PROGRESS}) or {}):
        if time.monotonic() > until:
            print(f"  no history after {LONGEST_WAIT_S} s", flush=True)
            return
        time.sleep(0.1)


def measure_work(work: Callable[[], object]) -> Cost:
    """The time of one call."""
    started = time.perf_counter()
    work()
    return Cost((time.perf_counter() - started) * 1_000)


def measure_cpu(work: Callable[[], object], pid: int) -> Cost:
    """The CPU time of a process during a call; other processes change it less than wall time."""
    cpu_before_s = read_cpu_s(pid)
    work()
    return Cost((read_cpu_s(pid) - cpu_before_s) * 1_000)


def measure_changes(
    server: Mongod, settings: Settings, ids: list[Any], collector_pid: int | None
) -> tuple[float, float]:
    """The CPU seconds of the database and of the collector (0 without one) while jobs change."""
    pids = [server.pid] + ([collector_pid] if collector_pid else [])
    cpu_before_s = [read_cpu_s(pid) for pid in pids]
    change_jobs(settings.mongo_uri, settings.jobs_collection, ids)
    used_s = [read_cpu_s(pid) - start_s for pid, start_s in zip(pids, cpu_before_s, strict=True)]
    return used_s[0], used_s[1] if collector_pid else 0.0


def print_table(results: dict[str, dict[str, Cost]], names: list[str]) -> None:
    """Print a row for each profile: times, each with its ratio to jobmon's own format."""
    print("\n| | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    for profile, costs in results.items():
        cells = []
        for name in names:
            if (cost := costs.get(name)) is None:
                cells.append("")
                continue
            jobmon_cost = results["jobmon"].get(name)
            ratio = f" ({cost.ms / jobmon_cost.ms:.1f})" if jobmon_cost and jobmon_cost.ms else ""
            cells.append(f"{cost.ms:,.1f} ms{ratio}")
        print(f"| {profile} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--profiles", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument(
        "--only-counts", action="store_true", help="Measure no answers and start no collector."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        results: dict[str, dict[str, Cost]] = {}
        with Mongod(folder, cache_gb=4) as server:
            for profile in dict.fromkeys(["jobmon", *arguments.profiles]):
                print(f"{profile}: {arguments.jobs:,} jobs", flush=True)
                results[profile] = measure(
                    server, profile, arguments.jobs, has_collector=not arguments.only_counts
                )
    names = list(dict.fromkeys(name for costs in results.values() for name in costs))
    print_table(results, [name for name in names if not name.startswith("by status")])
    if not arguments.only_counts:
        print_table(results, [name for name in names if name.startswith("by status")])
    print(f"load of the last 15 minutes: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
