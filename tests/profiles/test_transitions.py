"""Transitions of profiles: catches an invalid transition that is accepted, and a transition that
leads to a wrong status."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.profiles import FileError, load_profile
from jobmon.profiles.conditions import Now
from jobmon.profiles.stored_values import encode_date
from jobmon.profiles.transitions import RequestedValue, Transition

from ..adapters.test_samples import load_sample
from ..support.queue_service import QueueService, temporary_database

PROFILE = """\
status = { path = "state", names = { done = "succeeded", new = "queued" } }
readings = { due = "milliseconds" }
fields = { jobId = "_id" }
constants = { low = -10 }

[transitions]
run_now = { from = ["queued"], when = { lock = "$null" }, set = { due = "$now" }, inc = { n = 1 } }
reschedule = { from = ["queued"], set = { due = "$value", "meta.by" = "ada" }, unset = ["error"] }
cancel = { from = ["queued", "failed"], set = { priority = "$const.low", lock = "$null" } }
delete = { from = ["succeeded"], delete = true }
"""


def load_transitions(folder: Path, text: str) -> dict[str, Transition]:
    path = folder / "shop.toml"
    path.write_text(text)
    return dict(load_profile(str(path)).parse("work").transitions)


def test_transition_has_its_condition_and_changes(tmp_path: Path) -> None:
    assert load_transitions(tmp_path, PROFILE) == {
        "run_now": Transition(
            statuses=("queued",),
            when={"lock": None},
            changes={"due": Now("milliseconds")},
            increments={"n": 1},
        ),
        "reschedule": Transition(
            statuses=("queued",),
            changes={"due": RequestedValue("milliseconds"), "meta.by": "ada"},
            removals=("error",),
        ),
        "cancel": Transition(
            statuses=("queued", "failed"), changes={"priority": -10, "lock": None}
        ),
        "delete": Transition(statuses=("succeeded",), deletes=True),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("run_now", "run", "line 7: transitions.run: unknown; allowed are retry, run_now,"),
        ('["succeeded"]', '["done"]', "line 10: transitions.delete.from.0: 'done' is not one of"),
        ('from = ["succeeded"], ', "", "line 10: transitions.delete: needs from"),
        ("delete = true", "delete = false", "line 10: transitions.delete: needs either delete or"),
        (
            "delete = true",
            "delete = true, inc = { n = 1 }",
            "line 10: transitions.delete: needs either delete or",
        ),
        ("$value", "$now", 'line 8: transitions.reschedule.set: "$value" is for reschedule and'),
        ("$now", "$value", 'line 7: transitions.run_now.set: "$value" is for reschedule and pri'),
        (
            "$now",
            "$today",
            "line 7: transitions.run_now.set.due: unknown value $today; "
            "known are $null, $now, $value, ",
        ),
        ("inc = { n", "inc = { due", "line 7: transitions.run_now: changes due twice"),
        ('["error"]', '["meta"]', "line 8: transitions.reschedule: changes meta twice"),
        ('["error"]', '["_id.n"]', "line 8: transitions.reschedule: _id.n cannot be changed"),
        ('"ada"', "[1]", "line 8: transitions.reschedule.set.meta.by: must be a single value"),
        ("n = 1", 'n = "1"', "line 7: transitions.run_now.inc.n: must be a number"),
        ('lock = "$null" },', 'lock = { "$near" = 1 } },', "line 7: transitions.run_now.when.lock"),
    ],
)
def test_mistake_in_a_transition_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PROFILE
    with pytest.raises(FileError) as raised:
        load_transitions(tmp_path, PROFILE.replace(old, new, 1))
    assert str(raised.value).removeprefix(f"{tmp_path / 'shop.toml'}, ").startswith(message)


def test_transitions_and_lease_order_do_not_change_the_profiles_identity(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(PROFILE)
    identity = load_profile(str(path)).identity
    path.write_text(PROFILE.partition("[transitions]")[0])
    assert load_profile(str(path)).identity == identity
    path.write_text(PROFILE + '[lease]\norder = ["nextRunAt"]\n')
    assert load_profile(str(path)).identity == identity


def make_update(transition: Transition, value: Any) -> dict[str, Any]:
    """The update for a transition that only sets fields."""

    def resolve(change: Any) -> Any:
        if isinstance(change, Now):
            return encode_date(datetime.now(UTC), change.reading)
        return value if isinstance(change, RequestedValue) else change

    return {"$set": {path: resolve(change) for path, change in transition.changes.items()}}


def test_transitions_of_agenda_lead_to_the_right_status(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    transitions = load_profile("agenda").parse("agendaJobs").transitions
    # Job type, status before, action, its value, status after, whether the job is due afterwards.
    steps = [
        ("bad email", "dlq", "retry", None, "failed", True),
        ("retry pay", "failed", "run_now", None, "failed", True),
        ("later", "queued", "run_now", None, "queued", True),
        ("no worker", "queued", "reschedule", in_an_hour, "queued", False),
        ("dies", "leased", "release", None, "queued", True),
        ("low", "queued", "prioritize", 20, "queued", True),
        ("cron nightly", "queued", "disable", None, "disabled", False),
        ("cron nightly", "disabled", "enable", None, "queued", False),
    ]
    with temporary_database(mongo) as database:
        load_sample(database, "agenda-6")
        due_times = {"cron nightly": in_an_hour, "low": datetime.now(UTC)}
        for name, due_time in due_times.items():
            database.agendaJobs.update_one({"name": name}, {"$set": {"nextRunAt": due_time}})
        queue = QueueService(mongod, database, profile="agenda", jobs_collection="agendaJobs")
        for name, old_status, action, value, new_status, is_due in steps:
            assert old_status in transitions[action].statuses
            (job,) = queue.get("/admin/jobs/queue", type=name)["data"]
            assert job["status"] == old_status, name
            database.agendaJobs.update_one({"name": name}, make_update(transitions[action], value))
            (job,) = queue.get("/admin/jobs/queue", type=name)["data"]
            assert job["status"] == new_status, name
            assert (datetime.fromisoformat(job["nextRunAt"]) <= datetime.now(UTC)) == is_due, name
        (low_job,) = queue.get("/admin/jobs/queue", type="low")["data"]
        assert low_job["priority"] == 20
        queue.close()
    assert transitions["cancel"].deletes
    assert transitions["delete"].deletes
