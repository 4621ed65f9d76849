"""Actions in a service with several queues, from the HTTP request to the changed job: catches a
request for one queue that is carried out or shown in another queue."""

from pathlib import Path
from typing import Any

import jwt
from pymongo import MongoClient

from jobmon.actor.acting import acting
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.settings import ADMIN_DASHBOARD, Settings, load_queues
from jobmon.settings.actions import JOBS_EDIT, JOBS_RETRY

from ..conftest import SECRET, Api
from ..support.commands import database_uri, index_queue
from ..support.queue_service import temporary_database
from ..support.waiting import eventually

QUEUES_TOML = """
[one]
[two]
collection = "second"
attempts_collection = "second_attempts"
permission = "SECOND"
"""
ROLES = {
    "admin": frozenset({ADMIN_DASHBOARD, "SECOND", JOBS_RETRY, JOBS_EDIT}),
    "retrier of one": frozenset({ADMIN_DASHBOARD, JOBS_RETRY}),
}


def add_dead_job(queue: JobQueue, job_id: str) -> None:
    queue.enqueue("mail", job_id=job_id, max_attempts=1)
    lease = queue.lease("w1")
    assert lease is not None
    queue.report_failure(lease, "E", "no answer")


def test_a_request_is_carried_out_and_shown_only_in_its_queue(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(QUEUES_TOML)
    with temporary_database(mongo) as database:
        settings = Settings(
            mongo_uri=database_uri(mongod, database),
            queues=str(file),
            jwt_secret_key=SECRET,
            actions=True,
            role_permissions=ROLES,
            rollup_db=f"{database.name}_rollups",
            state_db=database.name,
        )
        for queue_settings in load_queues(settings):
            index_queue(queue_settings)
        queue_one = JobQueue(database)
        queue_two = JobQueue(database, jobs="second", attempts="second_attempts")
        for job_queue in (queue_one, queue_two):
            job_queue.create_indexes()
            for job_id in ("same", "kept"):
                add_dead_job(job_queue, job_id)
        app = create_app(settings)
        api = Api(app)

        def post(path: str, body: dict[str, Any], role: str = "admin") -> Any:
            token = jwt.encode({"sub": "ada", "role": role, "exp": 2**33}, SECRET, "HS256")
            return api.client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})

        def read(path: str) -> Any:
            token = jwt.encode({"sub": "ada", "role": "admin", "exp": 2**33}, SECRET, "HS256")
            return api.get(path, token=token)

        def read_statuses(collection: str) -> dict[str, str]:
            return {job["jobId"]: job["status"] for job in database[collection].find()}

        with acting(settings):
            retry = {"action": "retry", "ids": ["same"]}
            assert post("/queues/two/admin/actions", retry, "retrier of one").status_code == 403
            request_id = post("/queues/two/admin/actions", retry).json["id"]
            address = f"/queues/two/admin/actions/{request_id}"
            eventually(lambda: read(address).json["phase"] == "finished")
            assert read_statuses("second") == {"same": "queued", "kept": "dlq"}
            assert read_statuses("jobs") == {"same": "dlq", "kept": "dlq"}
            assert read(f"/queues/one/admin/actions/{request_id}").status_code == 404
            assert read("/queues/one/admin/actions").json["data"] == []
            assert read("/queues/one/jobs/same").json["actions"]["done"] == []
            # A path without the name of a queue is for the first queue.
            request_id = post("/admin/actions", retry).json["id"]
            eventually(lambda: read(f"/admin/actions/{request_id}").json["phase"] == "finished")
            assert read_statuses("jobs") == {"same": "queued", "kept": "dlq"}
        app.extensions["jobmon_connection"].client.close()
