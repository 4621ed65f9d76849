"""Creates indexes, and runs `jobmon init` as its command line does, also on a server with users."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

# Words in the messages of the MongoDB driver; `jobmon init` must not print these messages.
DRIVER_WORDS = re.compile(r"full error|errmsg|configured timeouts|Topology|codeName|Traceback")


def database_uri(mongod: Mongod, database: Database[dict[str, Any]] | str) -> str:
    """The connection string of a database on this server."""
    name = database if isinstance(database, str) else database.name
    address, separator, options = mongod.uri.partition("?")
    return f"{address}{name}{separator}{options}"


@contextmanager
def guarded_server(folder: Path) -> Iterator[Mongod]:
    """A server as Docker Compose starts it: a root user, a key file, and no replica set yet."""
    key = folder / "replica.key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    with (
        Mongod(folder / "data", replica_set=None) as open_server,
        MongoClient[dict[str, Any]](open_server.uri) as client,
    ):
        client.admin.command("createUser", "root", pwd="rootpw", roles=["root"])
    with Mongod(folder / "data", initiate=False, options=("--keyFile", str(key))) as server:
        yield server


def make_uri(server: Mongod, user: str, options: str = "replicaSet=rs0") -> str:
    """The connection string of a user whose password is the user's name and `pw`."""
    return f"mongodb://{user}:{user}pw@{server.address}/shop?{options}"


def init_as_root(server: Mongod) -> Result:
    """Run `jobmon init` as root: it starts the replica set, and creates indexes and two users."""
    environment = {
        "JOBMON_ADMIN_MONGO_URI": make_uri(
            server, "root", "authSource=admin&directConnection=true"
        ),
        "JOBMON_READER_PASSWORD": "readerpw",
        "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
    }
    command = ["init", "--create", "--replica-set", f"rs0/{server.address}"]
    command += ["--reader", "reader", "--collector", "collector"]
    result = CliRunner().invoke(main, command, env=environment)
    assert result.exit_code == 0, result.output
    return result


def index_queue(settings: Settings) -> None:
    """Create the indexes of the queue that these settings watch."""
    # On a busy machine creating many indexes takes longer than the default limit.
    connection = Connection(replace(settings, query_timeout_ms=60_000))
    create_indexes(connection)
    connection.client.close()


def init(uri: str, *options: str, **settings: str) -> Result:
    """Run `jobmon init` with `JOBMON_` settings; the queue's database names jobmon's databases."""
    database = re.sub(r".*/(\w*)(\?.*)?$", r"\1", uri)
    environment = {
        "JOBMON_ADMIN_MONGO_URI": uri,
        "JOBMON_ROLLUP_DB": f"{database}_rollups",
        "JOBMON_STATE_DB": f"{database}_state",
        "JOBMON_READER_PASSWORD": "readerpw",
        "JOBMON_COLLECTOR_PASSWORD": "collectorpw",
        "JOBMON_ACTOR_PASSWORD": "actorpw",
    }
    changes = {f"JOBMON_{name}": value for name, value in settings.items()}
    result = CliRunner().invoke(main, ["init", *options], env=environment | changes)
    assert not DRIVER_WORDS.search(result.output), result.output
    return result


def outcomes(result: Result) -> dict[str, str]:
    """The outcome of each index by its description: `created`, `exists`, …"""
    lines = [line.split(maxsplit=2) for line in result.output.splitlines() if line[:1] != " "]
    indexes = [text.split(": ", 1) for _, check, text in lines if check == "index"]
    return {index: outcome.partition(",")[0] for index, outcome in indexes}


def problems(result: Result) -> list[str]:
    """The lines that describe problems, without the indented lines below them."""
    return [line for line in result.output.splitlines() if line.startswith("problem ")]


def all_names(client: MongoClient[dict[str, Any]], database: str) -> dict[str, Any]:
    """The names of all that `jobmon init` can create: databases, indexes, users and roles."""
    db = client[database]
    return {
        "databases": sorted(name for name in client.list_database_names() if database in name),
        "indexes": {
            name: sorted(db[name].index_information())
            for name in sorted(db.list_collection_names(filter={"type": "collection"}))
        },
        "users": sorted(user["user"] for user in db.command("usersInfo", 1)["users"]),
        "roles": sorted(
            role["role"]
            for role in client.admin.command("rolesInfo", 1)["roles"]
            if database in role["role"]
        ),
    }
