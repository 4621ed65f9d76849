"""Actions that a person files on a page for jobs of a running program: catches a change that the
program does not notice, and a job that the program runs twice."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.actor.acting import acting
from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.settings.actions import JOBS_EDIT, JOBS_RETRY

from ..conftest import SECRET, Api
from ..dashboard.conftest import signed_in
from ..support.commands import database_uri, index_queue
from ..support.pages import Viewer
from ..support.processes import end_process
from ..support.queue_service import temporary_database
from ..support.waiting import PATIENCE_S, eventually

COLLECTIONS = {"agenda-5": "agendaJobs", "agenda-6": "agendaJobs", "pulse": "pulseJobs"}
ROLES = {"admin": frozenset({ADMIN_DASHBOARD, JOBS_RETRY, JOBS_EDIT})}


def file_action(viewer: Viewer, action: str, job_id: str) -> str:
    """File an action with the forms of the pages. Return the address of the request's page."""
    form_page = viewer.page_of_form("/dashboard/actions/confirm", {"action": action, "id": job_id})
    fields = {field["name"]: field["value"] for field in form_page.all("input", type="hidden")}
    answer = viewer.post("/dashboard/actions", fields)
    assert answer.status_code == 303, answer.text
    return str(answer.location)


@pytest.mark.usefixtures("run_agenda")  # installs the packages
@pytest.mark.parametrize(
    "library",
    ["agenda-6", *(pytest.param(name, marks=pytest.mark.long) for name in ("agenda-5", "pulse"))],
)
def test_running_program_runs_jobs_after_actions_on_a_page(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], library: str
) -> None:
    with temporary_database(mongo) as database:
        uri = database_uri(mongod, database)
        settings = Settings(
            mongo_uri=uri,
            profile=library.partition("-")[0],
            jobs_collection=COLLECTIONS[library],
            jwt_secret_key=SECRET,
            actions=True,
            role_permissions=ROLES,
            rollup_db=f"{database.name}_rollups",
            state_db=database.name,
        )
        script = str(Path(__file__).parent / "scheduler.mjs")
        program = subprocess.Popen(["node", script, library, uri], stdout=subprocess.PIPE)
        assert program.stdout is not None
        try:
            ids = json.loads(program.stdout.readline())
            index_queue(settings)
            app = create_app(settings)
            with acting(settings):
                viewer = signed_in(Api(app))
                path = f"/dashboard/jobs/{ids['fails']}"
                retry_button = {"name": "action", "value": "retry"}
                eventually(lambda: viewer.page(path).all("button", **retry_button))
                addresses = [
                    file_action(viewer, "retry", ids["fails"]),
                    file_action(viewer, "run_now", ids["waits"]),
                ]
                runs = json.loads(program.stdout.readline())
                assert runs == {"fails": 2, "waits": 1}
                for address in addresses:
                    eventually(lambda address=address: "finished" in viewer.page(address).text)
                assert program.wait(PATIENCE_S) == 0
            app.extensions["jobmon_connection"].client.close()
        finally:
            if program.poll() is None:
                end_process(program)
            program.stdout.close()
