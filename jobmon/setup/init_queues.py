"""Decides which queues `jobmon init` prepares, usually all in the administrator's database."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from jobmon.settings import Settings, load_queues, select_queues
from jobmon.setup.deployment import ADMIN_URI, admin_client
from jobmon.setup.findings import Finding, SetupError, problem, split_uri, warning
from jobmon.store.connection import DEFAULT_DATABASE
from jobmon.store.mapping import Document

OWN_URI = "JOBMON_MONGO_URI"  # the setting with the address of jobmon's own databases


@dataclass(frozen=True, kw_only=True)
class InitTarget:
    """A queue to prepare; its settings have the administrator's connection string.

    `has_own_databases`: whether jobmon's own databases are in the queue's deployment.
    """

    settings: Settings
    has_own_databases: bool = True


@dataclass(frozen=True)
class _DatabaseAddress:
    """A database and the addresses of its deployment, as `host:port` in lower case."""

    hosts: frozenset[str]
    database: str

    @classmethod
    def from_uri(cls, uri: str) -> "_DatabaseAddress":
        # Without options: the parser refuses options that need mongodb+srv, such as srvMaxHosts.
        uri_without_srv = uri.partition("?")[0].replace("mongodb+srv", "mongodb", 1)
        database = parse_uri(uri_without_srv)["database"] or DEFAULT_DATABASE
        hosts = {host.lower() for host in split_uri(uri)[1].split(",")}
        if uri.startswith("mongodb+srv"):
            with suppress(PyMongoError, OSError):  # if DNS fails, only the SRV name is compared
                nodes = parse_uri(uri, warn=False)["nodelist"]
                hosts |= {f"{host}:{port}".lower() for host, port in nodes}
        return cls(frozenset(hosts), database)

    @classmethod
    def from_client(cls, uri: str, client: MongoClient[Document]) -> "_DatabaseAddress":
        """The database in a connection string, with the addresses of all replica set members."""
        address = cls.from_uri(uri)
        members = {str(host).lower() for host in client.admin.command("hello").get("hosts", ())}
        return replace(address, hosts=address.hosts | members)

    def describe(self) -> str:
        return f"the database {self.database} at {','.join(sorted(self.hosts))}"


def find_targets(
    settings: Settings, own_uri: str, name: str | None
) -> tuple[list[InitTarget], list[Finding]]:
    """The queues to prepare, and findings about queues that are not prepared.

    `settings` have the administrator's connection string; `own_uri` is JOBMON_MONGO_URI, or empty.
    Without JOBMON_QUEUES there is one queue. With it, these are the queues with this `name` or, if
    it is None, all queues in the administrator's database. Raises SetupError and SettingsError.
    """
    if settings.queues is None:
        return [InitTarget(settings=settings)], []
    queues = load_queues(replace(settings, mongo_uri=own_uri), require_uris=False)
    if name is not None:
        queues = select_queues(queues, name)
    with admin_client(settings) as client:
        admin_address = _DatabaseAddress.from_client(settings.mongo_uri, client)
    # The database of a queue may not be known yet: then the queue's name must be given.
    selected = [
        queue
        for queue in queues
        if (_is_in_database(queue, admin_address) if queue.mongo_uri else name is not None)
    ]
    notes = list(_describe_unknown_databases(queues)) if name is None else []
    if not selected:
        raise SetupError(_explain_no_queue(queues, admin_address))
    own_address = _DatabaseAddress.from_uri(own_uri) if own_uri else None
    targets = [
        _make_target(queue, settings.mongo_uri, admin_address, own_address) for queue in selected
    ]
    return targets, notes


def _make_target(
    queue: Settings,
    admin_uri: str,
    admin_address: _DatabaseAddress,
    own_address: _DatabaseAddress | None,
) -> InitTarget:
    has_own_databases = queue.uri_setting == OWN_URI
    if not has_own_databases:
        if own_address is None:
            raise SetupError(
                problem(
                    "queues",
                    f"{queue.queue} has a connection string of its own, and {OWN_URI} is not set: "
                    "jobmon's own databases may be in the same deployment or in another one.",
                    remedy=f"Set {OWN_URI}, too.",
                )
            )
        has_own_databases = bool(own_address.hosts & admin_address.hosts)
    return InitTarget(
        settings=replace(queue, mongo_uri=admin_uri), has_own_databases=has_own_databases
    )


def _is_in_database(queue: Settings, admin_address: _DatabaseAddress) -> bool:
    address = _DatabaseAddress.from_uri(queue.mongo_uri)
    return address.database == admin_address.database and bool(address.hosts & admin_address.hosts)


def _describe_unknown_databases(queues: Sequence[Settings]) -> Iterator[Finding]:
    for queue in queues:
        if not queue.mongo_uri:
            yield warning(
                "queues",
                f"{queue.queue} is left out: {queue.uri_setting} is not set, so its database is "
                "not known.",
                remedy=f"Set {queue.uri_setting}, or add --queue {queue.queue} to prepare it in "
                f"the database of {ADMIN_URI}.",
            )


def _explain_no_queue(queues: Sequence[Settings], admin_address: _DatabaseAddress) -> Finding:
    places = (
        f"{queue.queue} is in {_DatabaseAddress.from_uri(queue.mongo_uri).describe()}, by "
        f"{queue.uri_setting}"
        if queue.mongo_uri
        else f"{queue.queue} is in an unknown database"
        for queue in queues
    )
    return problem(
        "queues",
        f"No queue is in {admin_address.describe()}, to which {ADMIN_URI} leads: "
        f"{'; '.join(places)}.",
        remedy=f"Set {ADMIN_URI} to an administrator of one of these, or choose a queue with "
        "--queue.",
    )
