"""Initiates a replica set of one member, for `jobmon init --replica-set`."""

import time

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from jobmon.setup.findings import Finding, SetupError, describe_cause, ok, problem
from jobmon.store.failures import ALREADY_INITIALIZED, UNAUTHORIZED
from jobmon.store.mapping import Document
from jobmon.store.queue_key import SHARDED_CLUSTER, deployment_name

_PRIMARY_TIMEOUT_S = 60


def replica_set_config(name: str, member: str) -> Document:
    """The configuration of a replica set with one member (host:port)."""
    return {"_id": name, "members": [{"_id": 0, "host": member}]}


def must_initiate(client: MongoClient[Document], replica_set: str) -> bool:
    """Whether `start_replica_set` would initiate the set; raises SetupError for a wrong server."""
    hello = client.admin.command("hello")
    _require_suitable_server(hello, replica_set.partition("/")[0])
    return "setName" not in hello


def start_replica_set(client: MongoClient[Document], replica_set: str) -> Finding:
    """Initiate a replica set (NAME/HOST:PORT) unless it is already initiated.

    Waits until this server is the primary. Raises SetupError, and PyMongoError without a right or
    a connection.
    """
    name, _, member = replica_set.partition("/")
    _require_suitable_server(client.admin.command("hello"), name)
    outcome = "initiated"
    try:
        client.admin.command("replSetInitiate", replica_set_config(name, member))
    except OperationFailure as error:
        if error.code == UNAUTHORIZED:
            raise
        if error.code != ALREADY_INITIALIZED:
            raise _make_error(
                f"{replica_set} could not be initiated: {describe_cause(error)}.",
                "NAME must be the name in --replSet. HOST:PORT must be an address at which the "
                "server can reach itself.",
            ) from None
        outcome = "exists"
    deadline = time.monotonic() + _PRIMARY_TIMEOUT_S
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            message = f"The server did not become the primary of replica set {name}."
            raise _make_error(message, "See the log of mongod.")
        time.sleep(0.2)
    return ok("replica set", f"{name}: {outcome}")


def _require_suitable_server(hello: Document, name: str) -> None:
    """Raise SetupError for a server that cannot be a member of the replica set `name`."""
    if (current_set := hello.get("setName")) not in (None, name):
        raise _make_error(
            f"The server is in the replica set {current_set}, not in {name}.",
            f"Use --replica-set {current_set}/HOST:PORT, or leave the option out.",
        )
    if deployment_name(hello) == SHARDED_CLUSTER:
        raise _make_error(
            "The server is the mongos of a sharded cluster.",
            "Leave out --replica-set: each shard is a replica set already.",
        )
    primary = hello.get("primary")
    if hello.get("secondary") and primary:  # without a primary, this server may be elected
        raise _make_error(
            f"The server is a secondary of {name}; the primary is {primary}.",
            "Connect to the primary, or to the replica set: leave out directConnection.",
        )
    # A mongod with --replSet that is not initiated yet answers with `isreplicaset`.
    if "setName" not in hello and "isreplicaset" not in hello:
        raise _make_error(
            "The server was not started as a member of a replica set.",
            f"Start mongod with --replSet {name}, or leave out --replica-set: on a standalone "
            "server jobmon polls for changes.",
        )


def _make_error(message: str, remedy: str) -> SetupError:
    return SetupError(problem("replica set", message, remedy=remedy))
