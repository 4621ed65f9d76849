"""docs/adapters.md: catches a profile in the tutorial that does not read the tutorial's jobs, and a
shipped profile that the page does not list."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from bson import json_util
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.profiles import load_profile, shipped_profiles
from jobmon.setup.check import check_deployment
from jobmon.store.bson_json import to_iso

from ..support.commands import database_uri
from ..support.queue_service import QueueService, init, temporary_database
from ..support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"


def read_code_blocks(language: str) -> list[str]:
    blocks = re.findall(
        rf"^ *```{language}\n(.*?)^ *```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return [dedent(block) for block in blocks]


def test_profiles_of_the_tutorial_are_valid_and_read_its_documents(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    documents = [json_util.loads(line) for line in read_code_blocks("json")[0].splitlines()]
    fields_toml, attempts_toml, extension_toml, *example_tomls = read_code_blocks("toml")
    path = tmp_path / "shop.toml"
    path.write_text(f"{fields_toml}\n{attempts_toml}")
    with temporary_database(mongo) as database:
        database.work.insert_many(documents)
        init(database_uri(mongod, database), PROFILE=str(path))
        shop = QueueService(mongod, database, profile=str(path), jobs_collection="work")
        stats = shop.get("/admin/jobs/stats")
        counts = {status: count for status, count in stats["statusCounts"].items() if count}
        assert counts == {"queued": 1, "leased": 1, "failed": 1, "succeeded": 1}
        assert stats["totalJobs"] == stats["estimatedTotalJobs"] == 4
        assert shop.list_ids() == ["74", "73", "72", "71"]
        assert shop.list_ids(sort="createdAt") == ["71", "72", "73", "74"]
        queued_at = datetime.fromtimestamp(documents[1]["queued_ms"] / 1_000, UTC)
        assert shop.list_ids(created_from=to_iso(queued_at), status="leased") == ["72"]
        assert shop.list_ids(created_to=to_iso(queued_at)) == ["71"]
        assert shop.list_ids(owner="c-17") == ["71"]
        for status, job_id in (("queued", "71"), ("failed", "73"), ("succeeded", "74")):
            assert shop.list_ids(status=status) == [job_id]
        failed = shop.get("/jobs/73")
        assert failed["createdAt"] == to_iso(queued_at + timedelta(seconds=1))
        assert failed["nextRunAt"] == documents[2]["run_at"]
        assert failed["lastError"]["message"] == "disk full"
        assert [attempt["status"] for attempt in failed["attempts"]] == ["failed"]
        leased = shop.get("/jobs/72")
        expires_at = documents[1]["locked"] + timedelta(minutes=10)
        assert leased["leaseExpiresAt"] == to_iso(expires_at)
        assert [attempt["status"] for attempt in leased["attempts"]] == ["running"]
        levels = {finding.check: finding.level for finding in check_deployment(shop.settings)}
        assert (levels["indexes"], levels["fields"]) == ("ok", "ok")
        # Move the jobs into the last minutes, whose activity is read below.
        now = datetime.now(UTC)
        for number, document in enumerate(documents[:4]):
            queued_ms = int((now - timedelta(minutes=9 - number)).timestamp() * 1_000)
            end = {"done": now - timedelta(minutes=2)} if "done" in document else {}
            change = {"$set": {"queued_ms": queued_ms} | end}
            database.work.update_one({"_id": document["_id"]}, change)
        with shop.running_collector():
            eventually(lambda: shop.activity()["enqueued"] == 4)
            eventually(lambda: shop.activity()["succeeded"] == 1)
        shop.close()
    path.write_text(extension_toml)
    assert load_profile(str(path)).content["constants"] == {"max_tries": 3}
    (events_toml,) = (block for block in example_tomls if block.startswith("[attempts.events]"))
    example_tomls.remove(events_toml)
    (nested_toml,) = (block for block in example_tomls if "lastError.object" in block)
    example_tomls.remove(nested_toml)
    path.write_text("\n".join([fields_toml, *example_tomls]))
    assert load_profile(str(path)).attempts_collection == "work_log"
    path.write_text(f"{fields_toml}\n{attempts_toml}\n{events_toml}")
    assert load_profile(str(path)).content["attempts"]["events"]["deleted"] == "succeeded"
    path.write_text(f'status.path = "state"\n{nested_toml}')
    assert load_profile(str(path)).content["fields"]["jobId"] == "_id"


@pytest.mark.parametrize("name", shipped_profiles())
def test_page_lists_every_shipped_profile(name: str) -> None:
    assert re.search(rf"^\| (`{name}`|\[`{name}`\]\(.*?\)) \|", PAGE.read_text(), re.MULTILINE)
