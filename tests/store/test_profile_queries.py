"""The queries for jobs with a derived status: catches a list of failed jobs, which wait for a
retry, that reads every finished job."""

from pathlib import Path
from typing import Any

import mongomock
import pytest
from bson import json_util

from jobmon.domain import FINAL_STATUSES
from jobmon.profiles import load_profile
from jobmon.settings import Settings
from jobmon.store.connection import Connection

SAMPLES = Path(__file__).parents[1] / "adapters" / "samples"


# Not with the profile payload: there, only hasError distinguishes dead-lettered from failed jobs.
@pytest.mark.parametrize(
    ("profile", "sample"),
    [
        ("agenda", "agenda-6"),
        ("pulse", "pulse"),
        ("mongo-message-queue", "mongo-message-queue"),
    ],
)
def test_no_finished_job_is_read_for_the_list_of_failed_jobs(profile: str, sample: str) -> None:
    client: Any = mongomock.MongoClient("mongodb://127.0.0.1/watched")
    settings = Settings(
        mongo_uri="mongodb://127.0.0.1/watched",
        profile=profile,
        jobs_collection=load_profile(profile).collection,
    )
    connection = Connection(settings, client)
    derived, jobs = connection.jobs.mapping.derived, connection.jobs.collection
    content = json_util.loads((SAMPLES / f"{sample}.json").read_text())
    jobs.insert_many(content["collections"][jobs.name]["documents"])
    assert derived is not None

    def find_ids(*statuses: str) -> set[Any]:
        queries = [derived.needs[status] for status in statuses if status in derived.needs]
        return {job["_id"] for job in jobs.find({"$or": queries})}

    finished_ids, failed_ids = find_ids(*FINAL_STATUSES), find_ids("failed")
    assert finished_ids
    assert failed_ids
    assert finished_ids & failed_ids == set()
