"""The roles and users of one watched queue: they may read it, and nothing of it can they write.

Nothing here takes a right from anybody, but for `remove_users`, which takes what was made here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote_plus

from pymongo import MongoClient

from jobmon.setup.findings import Finding, ok, split_uri, warning
from jobmon.store.mapping import Document

READER_ROLE = "jobmonReader"
COLLECTOR_ROLE = "jobmonCollector"
# The last two are for `jobmon check`.
READING = ("find", "changeStream", "listIndexes", "collStats")
WRITING = ("find", "insert", "update", "remove", "createCollection", "createIndex")
MADE_BY = {"madeBy": "jobmon init"}  # kept with a user that was made here
# Of an admin's connection string: what is the admin's own, or of one connection only.
_OWN_OPTIONS = frozenset(
    {"authsource", "authmechanism", "authmechanismproperties", "directconnection", "replicaset"}
    | {"tlscertificatekeyfile", "tlscertificatekeyfilepassword", "serverselectiontimeoutms"}
)


@dataclass(frozen=True)
class QueueRoles:
    """The two roles of the queue in `database`, whose first collection holds the jobs.

    They are roles of `admin`, because they span two databases, and named after the queue, so that
    no queue's set-up touches those of another one.
    """

    database: str
    collections: Sequence[str]
    own_databases: Sequence[str]  # jobmon's own

    @property
    def reader(self) -> str:
        """The name of the web service's role."""
        return f"{READER_ROLE}.{self.database}.{self.collections[0]}"

    @property
    def collector(self) -> str:
        """The name of the collector's role, which `jobmon revoke` needs, too."""
        return f"{COLLECTOR_ROLE}.{self.database}.{self.collections[0]}"

    @property
    def privileges(self) -> dict[str, list[Document]]:
        """What each role may do: all of it, and nothing of it writes to `database`."""
        watched: list[Document] = [
            {"resource": {"db": self.database, "collection": name}, "actions": list(READING)}
            for name in self.collections
        ]
        own = [{"db": name, "collection": ""} for name in self.own_databases]
        return {
            role: [*watched, *({"resource": each, "actions": list(actions)} for each in own)]
            for role, actions in ((self.reader, ("find",)), (self.collector, WRITING))
        }


@dataclass(frozen=True, kw_only=True)
class User:
    """A user to make; `password` is None where it is only described."""

    name: str
    is_collector: bool = False
    password: str | None = None

    def role(self, roles: QueueRoles) -> Document:
        """The role that it gets, as MongoDB names it."""
        return {"role": roles.collector if self.is_collector else roles.reader, "db": "admin"}

    def describe(self, roles: QueueRoles) -> str:
        """`jobmon@shop: may read jobs and job_attempts, read jobmon_rollups`."""
        verb = "write" if self.is_collector else "read"
        watched, own = " and ".join(roles.collections), " and ".join(roles.own_databases)
        return f"{self.name}@{roles.database}: may read {watched}, {verb} {own}"


def create_roles(client: MongoClient[Document], roles: QueueRoles) -> Iterator[Finding]:
    """Make the roles, or add to them what they lack; raises PyMongoError."""
    admin = client["admin"]
    for name, privileges in roles.privileges.items():
        if admin.command("rolesInfo", name)["roles"]:
            admin.command("grantPrivilegesToRole", name, privileges=privileges)
            yield ok("role", f"{name}: exists")
        else:
            admin.command("createRole", name, privileges=privileges, roles=[])
            yield ok("role", f"{name}: created")


def create_users(
    client: MongoClient[Document],
    roles: QueueRoles,
    users: Iterable[User],
    *,
    change_passwords: bool = False,
) -> Iterator[Finding]:
    """Make users of the watched database, or give the role to those that exist.

    The roles must exist. Another role of a user stays. The password of a user that was not made
    here stays, too, unless `change_passwords`. Raises PyMongoError.
    """
    database = client[roles.database]
    for user in users:
        role, described = user.role(roles), user.describe(roles)
        found = database.command("usersInfo", user.name)["users"]
        if not found:
            database.command(
                "createUser", user.name, pwd=user.password, roles=[role], customData=MADE_BY
            )
            yield ok("user", f"{described}: created")
            continue
        (existing,) = found
        has_role = role in existing["roles"]
        if not has_role:
            database.command("grantRolesToUser", user.name, roles=[role])
        is_ours = _was_made_here(existing)
        sets_password = is_ours or change_passwords
        if sets_password:
            database.command("updateUser", user.name, pwd=user.password)
        yield _describe_existing(
            described, existing, role, has_role=has_role, sets_password=sets_password
        )


def _describe_existing(
    described: str, existing: Document, role: Document, *, has_role: bool, sets_password: bool
) -> Finding:
    """What became of a user that existed."""
    others = [f"{other['role']}@{other['db']}" for other in existing["roles"] if other != role]
    says = f"{described}: exists, {'had the role' if has_role else 'role added'}"
    says += ", password set" if sets_password else ", password not changed"
    if others:
        says += f"; it also has {', '.join(others)}"
    if sets_password:
        return ok("user", says)
    return warning(
        "user",
        f"{says}. `jobmon init` did not make it.",
        do="To give it this password run it again with --change-passwords; or name another user.",
    )


def users_to_drop(client: MongoClient[Document], roles: QueueRoles) -> list[Document]:
    """The users that were made here and have the roles of this queue only."""
    return [
        user
        for user in _users_of(client, roles)
        if _was_made_here(user) and not _other_roles(user, roles)
    ]


def remove_users(
    client: MongoClient[Document], roles: QueueRoles, *, dry_run: bool
) -> Iterator[Finding]:
    """Drop the roles, and with them `users_to_drop`; raises PyMongoError."""
    admin, database = client["admin"], client[roles.database]
    outcome = "would be removed" if dry_run else "removed"
    dropped = users_to_drop(client, roles)
    for user in _users_of(client, roles):
        name = f"{user['user']}@{roles.database}"
        if user in dropped:
            if not dry_run:
                database.command("dropUser", user["user"])
            yield ok("user", f"{name}: {outcome}")
        else:  # dropping the role takes it from the user
            others = _other_roles(user, roles)
            why = "has other roles" if others else "was not made by `jobmon init`"
            yield ok("user", f"{name}: stays, without the role; it {why}")
    for role in admin.command("rolesInfo", sorted(roles.privileges))["roles"]:
        if not dry_run:
            admin.command("dropRole", role["role"])
        yield ok("role", f"{role['role']}: {outcome}")


def _users_of(client: MongoClient[Document], roles: QueueRoles) -> list[Document]:
    """The users of the watched database who have one of these roles."""
    users: list[Document] = client[roles.database].command("usersInfo", 1)["users"]
    return [user for user in users if len(_other_roles(user, roles)) < len(user["roles"])]


def _other_roles(user: Document, roles: QueueRoles) -> list[Document]:
    ours = roles.privileges.keys()
    return [role for role in user["roles"] if role["db"] != "admin" or role["role"] not in ours]


def _was_made_here(user: Document) -> bool:
    return bool(user.get("customData", {}).get("madeBy") == MADE_BY["madeBy"])


def connection_string(admin_uri: str, user: str, database: str, replica_set: str | None) -> str:
    """How a user of `database` connects, with PASSWORD where the password belongs.

    Addresses and options such as TLS are those of the admin's connection string.
    """
    scheme, hosts = split_uri(admin_uri)
    options = {"authSource": database}
    if replica_set is not None and scheme == "mongodb":
        options["replicaSet"] = replica_set
    kept = [
        option
        for option in admin_uri.partition("?")[2].split("&")
        if option and option.partition("=")[0].lower() not in _OWN_OPTIONS
    ]
    query = "&".join([*(f"{name}={value}" for name, value in options.items()), *kept])
    return f"{scheme}://{quote_plus(user)}:PASSWORD@{hosts}/{database}?{query}"
