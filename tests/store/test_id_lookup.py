"""The lookup of a job with its attempts by one command, on the real server: catches a join that
fails for more than 16 MB, and a join that compares ids by a collation."""

from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.id_lookup import IdLookup
from jobmon.store.jobs import JobStore
from jobmon.store.mapping import Document

from ..support.commands import database_uri

CASE_INSENSITIVE = {"locale": "en", "strength": 2}


@pytest.fixture
def connection(mongod: Mongod, database: Database[Document]) -> Any:
    connection = Connection(Settings(mongo_uri=database_uri(mongod, database)))
    with connection.client:
        yield connection


def find_joined_jobs(connection: Connection) -> list[tuple[Document, list[Document]]] | None:
    """The job `a` with its two newest attempts, by one command; None if that is not possible."""
    assert connection.attempts is not None
    jobs, attempts, query = IdLookup(connection.jobs), IdLookup(connection.attempts), {"jobId": "a"}
    order = [("attemptNumber", -1)]
    return jobs.find_joined(query, attempts, query, limit=2, order=order)


def add_attempts(database: Database[Document], count: int, **fields: Any) -> None:
    database.job_attempts.insert_many(
        [{"jobId": "a", "attemptNumber": number, **fields} for number in range(1, count + 1)]
    )


def test_one_command_reads_a_job_with_its_newest_attempts(
    connection: Connection, database: Database[Document]
) -> None:
    database.jobs.insert_many([{"jobId": "a", "type": "mail"}, {"jobId": "A"}])
    add_attempts(database, 3)
    joined = find_joined_jobs(connection)
    assert joined is not None
    ((job, attempts),) = joined
    assert (job["jobId"], job["type"]) == ("a", "mail")
    assert [attempt["attemptNumber"] for attempt in attempts] == [3, 2]


def test_a_job_with_attempts_of_more_than_16_mb_is_read_by_two_commands(
    connection: Connection, database: Database[Document]
) -> None:
    database.jobs.insert_one({"jobId": "a"})
    add_attempts(database, 2, error={"stack": "x" * 9_000_000})
    assert find_joined_jobs(connection) is None
    job = JobStore(connection).get_job("a")
    assert job is not None
    lengths = [len(attempt["error"]["stack"]) for attempt in job["attempts"]]
    assert [attempt["attemptNumber"] for attempt in job["attempts"]] == [1, 2]
    # All attempts share a budget of 2 million characters, the newest first.
    assert lengths[0] <= 2_001
    assert 1_999_000 < lengths[1] < 2_000_000


@pytest.mark.parametrize("collated_name", ["jobs", "job_attempts"])
def test_ids_are_not_compared_by_a_collation(
    connection: Connection, database: Database[Document], collated_name: str
) -> None:
    database.create_collection(collated_name, collation=CASE_INSENSITIVE)
    database[collated_name].create_index("jobId")
    database.jobs.insert_many([{"jobId": "A", "type": "other"}, {"jobId": "a", "type": "mail"}])
    add_attempts(database, 1)
    database.job_attempts.insert_one({"jobId": "A", "attemptNumber": 7})
    assert find_joined_jobs(connection) is None
    job = JobStore(connection).get_job("a")
    assert job is not None
    assert job["type"] == "mail"
    assert [attempt["attemptNumber"] for attempt in job["attempts"]] == [1]
