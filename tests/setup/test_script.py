"""`jobmon init --print` under Node.js: catches lines that mongosh does not understand, and a script
with another effect than the command."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.setup.replica_set import replica_set_config
from jobmon.setup.script import replica_set_line

from ..support.commands import all_names, database_uri, init
from ..support.waiting import PATIENCE_S

NODE = shutil.which("node")
EMULATOR = Path(__file__).parent / "mongosh.js"
USERS = ("--reader", "reader", "--collector", "o'neill")

pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
Client = MongoClient[dict[str, Any]]
MongoDb = Database[dict[str, Any]]


@pytest.fixture
def shop(database: MongoDb) -> MongoDb:
    queue = JobQueue(database)
    queue.enqueue("email.send", created_by="ada")
    assert queue.lease("worker-1")
    return database


def undo_init(mongo: Client, shop: MongoDb) -> None:
    for role in mongo.admin.command("rolesInfo", 1)["roles"]:
        if shop.name in role["role"]:
            mongo.admin.command("dropRole", role["role"])
    shop.command("dropAllUsersFromDatabase")
    for name in ("jobs", "job_attempts"):
        shop[name].drop_indexes()
    shop.drop_collection("job_controls")
    for name in ("rollups", "state"):
        mongo.drop_database(f"{shop.name}_{name}")


def run_script(script: str, mongo: Client, shop: MongoDb, folder: Path) -> list[str]:
    """Run the script in the emulator, and send the commands that it prints to the server.

    Returns the names of the commands.
    """
    state = {
        "indexes": {
            shop.name: {
                name: [dict(index) for index in shop[name].list_indexes()]
                for name in shop.list_collection_names()
            }
        },
        "roles": [role["role"] for role in mongo.admin.command("rolesInfo", 1)["roles"]],
        "users": {shop.name: [user["user"] for user in shop.command("usersInfo", 1)["users"]]},
    }
    (folder / "state.json").write_text(json.dumps(state, default=str))
    (folder / "script.js").write_text(script)
    result = subprocess.run(
        [str(NODE), str(EMULATOR), str(folder / "state.json"), str(folder / "script.js")],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert result.returncode == 0, result.stderr
    names = []
    for entry in json.loads(result.stdout):
        command = entry["command"]
        for index in command.get("indexes", ()):
            index["key"] = dict(index["key"])
        mongo[entry["db"]].command(command)
        names.append(next(iter(command)))
    return names


def read_setup(mongo: Client, shop: MongoDb) -> dict[str, Any]:
    """What `jobmon init` creates: roles, users, collections, indexes and its record of indexes."""
    roles = all_names(mongo, shop.name)["roles"]
    listed_roles = (
        mongo.admin.command({"rolesInfo": roles, "showPrivileges": True})["roles"] if roles else []
    )
    return {
        "names": {**all_names(mongo, shop.name), "databases": None},
        "indexes": [
            sorted(map(dict, shop[name].list_indexes()), key=lambda index: index["name"])
            for name in ("jobs", "job_attempts")
        ],
        "privileges": {role["role"]: sorted(map(str, role["privileges"])) for role in listed_roles},
        "users": [
            (user["user"], user["roles"], user.get("customData"))
            for user in shop.command("usersInfo", 1)["users"]
        ],
        "paused types": shop.job_controls.find_one(),
        "records": {
            name: sorted(
                (index["name"], index.get("expireAfterSeconds"))
                for index in mongo[f"{shop.name}_state"][name].list_indexes()
            )
            for name in ("action_decisions", "action_progress", "action_outcomes", "notice_mutes")
        },
        "revocations": [
            {name: value for name, value in entry.items() if name != "since"}
            for suffix in ("state", "rollups")
            for entry in mongo[f"{shop.name}_{suffix}"].revoked_tokens.find()
        ],
        "remembered": [
            {name: value for name, value in entry.items() if name != "at"}
            for entry in mongo[f"{shop.name}_state"].init_indexes.find().sort("_id")
        ],
    }


@pytest.mark.parametrize(
    "options", [(), ("--unique",), ("--create",), ("--actor", "actor")], ids=str
)
def test_script_has_the_same_effect_as_the_command(
    mongod: Mongod, mongo: Client, shop: MongoDb, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = read_setup(mongo, shop)
    script_result = init(database_uri(mongod, shop), *USERS, *options, "--print")
    assert script_result.exit_code == 0, script_result.output
    assert read_setup(mongo, shop) == before  # --print writes nothing
    assert "readerpw" not in script_result.output
    result = init(database_uri(mongod, shop), *USERS, *options)
    assert result.exit_code == 0, result.output
    setup_by_command = read_setup(mongo, shop)
    assert setup_by_command["remembered"]
    assert len(setup_by_command["revocations"]) == 2
    undo_init(mongo, shop)
    run_script(script_result.output, mongo, shop, tmp_path)
    assert read_setup(mongo, shop) == setup_by_command
    # A right that an older version granted: the script revokes it.
    privilege = {"resource": {"db": f"{shop.name}_state", "collection": ""}, "actions": ["find"]}
    role = f"jobmonReader.{shop.name}.jobs"
    mongo.admin.command("grantPrivilegesToRole", role, privileges=[privilege])
    run_script(script_result.output, mongo, shop, tmp_path)
    assert read_setup(mongo, shop) == setup_by_command
    removal = init(database_uri(mongod, shop), "--remove", "--print")
    assert removal.exit_code == 0, removal.output
    assert read_setup(mongo, shop) == setup_by_command
    run_script(removal.output, mongo, shop, tmp_path)
    shop.drop_collection("job_controls")  # --remove keeps it, because workers read it
    kept_lists = {"records": None, "revocations": None}
    assert read_setup(mongo, shop) | kept_lists == before | kept_lists


def test_script_asks_once_for_the_password_of_each_user(
    mongod: Mongod, mongo: Client, shop: MongoDb, tmp_path: Path
) -> None:
    """Catches a new user whose password is set twice, with two prompts."""
    script = init(database_uri(mongod, shop), *USERS, "--change-passwords", "--print").output
    first_run, second_run = (run_script(script, mongo, shop, tmp_path) for _ in range(2))
    assert (first_run.count("createUser"), first_run.count("updateUser")) == (2, 0)
    assert (second_run.count("createUser"), second_run.count("updateUser")) == (0, 2)


def test_script_creates_the_collections_of_a_new_queue(
    mongod: Mongod, mongo: Client, shop: MongoDb, tmp_path: Path
) -> None:
    names = ("--jobs", "my-jobs", "--attempts", "my-attempts", "--create")
    script_result = init(database_uri(mongod, shop), *names, "--print")
    run_script(script_result.output, mongo, shop, tmp_path)
    assert {"my-jobs", "my-attempts"} <= set(shop.list_collection_names())
    assert "status_1_finishedAt_1__id_1" in shop["my-jobs"].index_information()


def test_script_of_a_failed_init_is_empty(mongod: Mongod, shop: MongoDb) -> None:
    result = init(database_uri(mongod, shop), "--jobs", "nothing", "--print")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "There is no collection" in result.stderr


def test_script_escapes_names() -> None:
    name = '"); db.dropDatabase(); ("\n\u2028'
    line = replica_set_line(replica_set_config(name, "a:1"))
    assert "\n" not in line
    assert "\u2028" not in line
    assert json.loads(line.removeprefix("rs.initiate(").removesuffix(");"))["_id"] == name
