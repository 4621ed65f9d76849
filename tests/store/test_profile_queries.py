"""The queries for jobs of a derived status: catches a list of few jobs to retry that reads every
job that has ended."""

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


# Payload is left out: only hasError distinguishes its dead jobs from those that are retried.
@pytest.mark.parametrize(
    ("profile", "sample"),
    [
        ("agenda", "agenda-6"),
        ("pulse", "pulse"),
        ("mongo-message-queue", "mongo-message-queue"),
    ],
)
def test_a_job_that_has_ended_is_not_read_for_a_list_of_retries(profile: str, sample: str) -> None:
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

    def find(*statuses: str) -> set[Any]:
        queries = [derived.needs[status] for status in statuses if status in derived.needs]
        return {job["_id"] for job in jobs.find({"$or": queries})}

    ended, retried = find(*FINAL_STATUSES), find("failed")
    assert ended
    assert retried
    assert ended & retried == set()
