"""Creates the roles and users of one watched queue: only the actor's user may change jobs.

It removes only rights that `jobmon init` granted: `remove_users` removes the roles, and
`create_roles` removes the rights that older versions granted on all of JOBMON_STATE_DB.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote_plus

from pymongo import MongoClient

from jobmon.actions.records import ACTOR_LEASES, DECISIONS, MUTES, OUTCOMES, PROGRESS
from jobmon.domain import CONTROLS
from jobmon.rollup.documents import MARKS
from jobmon.setup.findings import Finding, ok, split_uri, warning
from jobmon.store.mapping import Document
from jobmon.web.revocation import REVOKED

# Actions of MongoDB's privileges. Only `jobmon check` needs the last two of READING.
READING = ("find", "changeStream", "listIndexes", "collStats")
WRITING = ("find", "insert", "update", "remove", "createCollection", "createIndex")
MADE_BY = {"madeBy": "jobmon init"}  # stored with each user that `jobmon init` creates
# Options of a user's connection string that are not copied for another user.
_USERS_OPTIONS = frozenset(
    {"authsource", "authmechanism", "authmechanismproperties", "directconnection", "replicaset"}
    | {"tlscertificatekeyfile", "tlscertificatekeyfilepassword", "serverselectiontimeoutms"}
)


class UserKind(StrEnum):
    """The process that signs in as the user; `jobmon init` has an option with the same name."""

    READER = "reader"
    COLLECTOR = "collector"
    ACTOR = "actor"


# What each user needs in JOBMON_STATE_DB. The collector itself only reads mutes there; but `jobmon
# revoke`, `jobmon mark` and `jobmon mute` use the same user.
_STATE_RIGHTS: Mapping[UserKind, Mapping[str, tuple[str, ...]]] = {
    UserKind.READER: dict.fromkeys(
        (REVOKED, MARKS, MUTES, DECISIONS, PROGRESS, OUTCOMES, ACTOR_LEASES), ("find",)
    ),
    UserKind.COLLECTOR: {
        REVOKED: ("find", "insert", "update", "createIndex"),
        MARKS: ("find", "insert", "update", "remove", "createIndex"),
        MUTES: ("find", "insert", "createIndex"),
    },
    UserKind.ACTOR: {
        DECISIONS: ("find",),
        PROGRESS: ("find", "insert"),
        OUTCOMES: ("find", "insert"),
        ACTOR_LEASES: ("find", "insert", "update", "remove"),
    },
}
_INSERTED_BY_READERS = (DECISIONS, MUTES)  # a reader's user inserts here if there are actions


def list_state_rights(kind: UserKind, *, has_actions: bool) -> dict[str, tuple[str, ...]]:
    """The actions that a user needs on each collection of JOBMON_STATE_DB."""
    may_insert = _INSERTED_BY_READERS if has_actions and kind is UserKind.READER else ()
    return {
        name: (*rights, "insert") if name in may_insert else rights
        for name, rights in _STATE_RIGHTS[kind].items()
    }


class OwnDatabaseNames(NamedTuple):
    """The names of jobmon's own databases: JOBMON_ROLLUP_DB and JOBMON_STATE_DB."""

    rollups: str
    state: str


@dataclass(frozen=True, kw_only=True)
class ActionRights:
    """The rights of the actor's user, which may update documents of these watched `collections`.

    `may_pause`: the user may also update the list of paused types. `may_delete`: the user may
    also delete documents.
    """

    collections: Sequence[str]
    may_pause: bool = True
    may_delete: bool = False


@dataclass(frozen=True)
class QueueRoles:
    """The roles of the queue in `database`; the first of its `collections` holds the jobs.

    They are roles of `admin`, because they span several databases. Their names contain the queue,
    so that the setup of one queue never changes the roles of another queue. The actor has a role
    only with `actions`.
    """

    database: str
    collections: Sequence[str]
    own: OwnDatabaseNames | None  # None if jobmon's own databases are in another deployment
    actions: ActionRights | None = None

    def name(self, kind: UserKind) -> str:
        """The name of the role for users of a kind: `jobmonReader.shop.jobs`."""
        return f"jobmon{kind.title()}.{self.database}.{self.collections[0]}"

    @property
    def names(self) -> list[str]:
        """The names of all roles that can exist for the queue."""
        return [self.name(kind) for kind in UserKind]

    @property
    def privileges(self) -> dict[str, list[Document]]:
        """All privileges of each role; only the actor's role may write to `database`."""
        kinds = [kind for kind in UserKind if kind is not UserKind.ACTOR or self.actions]
        return {self.name(kind): list(self._list_privileges(kind)) for kind in kinds}

    @property
    def superseded(self) -> list[Document]:
        """The privileges on all of JOBMON_STATE_DB that older versions granted."""
        if self.own is None or self.own.state == self.own.rollups:
            return []
        return [self._grant(self.own.state, "", WRITING)]

    def _list_privileges(self, kind: UserKind) -> Iterator[Document]:
        for name in self.collections:
            yield self._grant(self.database, name, self._list_watched_rights(kind, name))
        if self.own is not None and kind is not UserKind.ACTOR:
            rollup_rights = WRITING if kind is UserKind.COLLECTOR else ("find",)
            yield self._grant(self.own.rollups, "", rollup_rights)
        if self.actions is not None and self.actions.may_pause:
            control_rights = ("find", "update") if kind is UserKind.ACTOR else ("find",)
            yield self._grant(self.database, CONTROLS, control_rights)
        if self.own is not None:
            state_rights = list_state_rights(kind, has_actions=self.actions is not None)
            for name, rights in state_rights.items():
                yield self._grant(self.own.state, name, rights)

    def _list_watched_rights(self, kind: UserKind, name: str) -> tuple[str, ...]:
        """The actions that users of a kind may perform on a watched collection."""
        if kind is not UserKind.ACTOR or self.actions is None:
            return READING
        if name not in self.actions.collections:
            return ("find",)
        return ("find", "update", "remove") if self.actions.may_delete else ("find", "update")

    @staticmethod
    def _grant(database: str, collection: str, actions: Iterable[str]) -> Document:
        resource = {"db": database, "collection": collection}
        return {"resource": resource, "actions": list(actions)}


@dataclass(frozen=True, kw_only=True)
class User:
    """A user to create; `password` may be None if no user is created, as with --dry-run."""

    name: str
    kind: UserKind = UserKind.READER
    password: str | None = None

    def role(self, roles: QueueRoles) -> Document:
        """The role to grant, in MongoDB's form."""
        return {"role": roles.name(self.kind), "db": "admin"}

    def describe(self, roles: QueueRoles) -> str:
        """The rights in words: `jobmon@shop: may read jobs and job_attempts, read …`."""
        text = f"{self.name}@{roles.database}: may read {' and '.join(roles.collections)}"
        if self.kind is UserKind.ACTOR and roles.actions is not None:
            verb = "update and delete" if roles.actions.may_delete else "update"
            return f"{text}, {verb} documents of {' and '.join(roles.actions.collections)}"
        if roles.own is not None:
            verb = "write" if self.kind is UserKind.COLLECTOR else "read"
            text += f", {verb} {roles.own.rollups} and collections of {roles.own.state}"
        return text


def create_roles(client: MongoClient[Document], roles: QueueRoles) -> Iterator[Finding]:
    """Create roles, or add missing rights and remove superseded rights; raises PyMongoError."""
    admin = client["admin"]
    for name, privileges in roles.privileges.items():
        existing = admin.command("rolesInfo", name, showPrivileges=True)["roles"]
        if not existing:
            admin.command("createRole", name, privileges=privileges, roles=[])
            yield ok("role", f"{name}: created")
            continue
        admin.command("grantPrivilegesToRole", name, privileges=privileges)
        resources = [privilege["resource"] for privilege in existing[0]["privileges"]]
        too_wide = [grant for grant in roles.superseded if grant["resource"] in resources]
        if too_wide:
            admin.command("revokePrivilegesFromRole", name, privileges=too_wide)
        narrowed = ", with fewer rights than an older version granted" if too_wide else ""
        yield ok("role", f"{name}: exists{narrowed}")


def create_users(
    client: MongoClient[Document],
    roles: QueueRoles,
    users: Iterable[User],
    *,
    change_passwords: bool = False,
) -> Iterator[Finding]:
    """Create users of the watched database, or grant the role to users that exist.

    The roles must exist. An existing user keeps its other roles. Its password is changed only if
    `jobmon init` created the user, or with `change_passwords`. Raises PyMongoError.
    """
    database = client[roles.database]
    for user in users:
        role, description = user.role(roles), user.describe(roles)
        users_info = database.command("usersInfo", user.name)["users"]
        if not users_info:
            database.command(
                "createUser", user.name, pwd=user.password, roles=[role], customData=MADE_BY
            )
            yield ok("user", f"{description}: created")
            continue
        (existing,) = users_info
        has_role = role in existing["roles"]
        if not has_role:
            database.command("grantRolesToUser", user.name, roles=[role])
        sets_password = _is_made_by_init(existing) or change_passwords
        if sets_password:
            database.command("updateUser", user.name, pwd=user.password)
        yield _describe_existing(
            description, existing, role, has_role=has_role, sets_password=sets_password
        )


def _describe_existing(
    description: str, existing: Document, role: Document, *, has_role: bool, sets_password: bool
) -> Finding:
    other_roles = [f"{held['role']}@{held['db']}" for held in existing["roles"] if held != role]
    message = f"{description}: exists, {'had the role' if has_role else 'role added'}"
    message += ", password set" if sets_password else ", password not changed"
    if other_roles:
        message += f"; it also has {', '.join(other_roles)}"
    if sets_password:
        return ok("user", message)
    return warning(
        "user",
        f"{message}. `jobmon init` did not create it.",
        remedy="To set its password, add --change-passwords. Or choose another name.",
    )


def list_removable_users(client: MongoClient[Document], roles: QueueRoles) -> list[Document]:
    """The users that `jobmon init` created and that have only the roles of this queue."""
    return [
        user
        for user in _list_users(client, roles)
        if _is_made_by_init(user) and not _list_other_roles(user, roles)
    ]


def remove_users(
    client: MongoClient[Document], roles: QueueRoles, *, dry_run: bool
) -> Iterator[Finding]:
    """Drop the roles, and the users of `list_removable_users`; raises PyMongoError."""
    admin, database = client["admin"], client[roles.database]
    outcome = "would be removed" if dry_run else "removed"
    dropped = list_removable_users(client, roles)
    for user in _list_users(client, roles):
        name = f"{user['user']}@{roles.database}"
        if user in dropped:
            if not dry_run:
                database.command("dropUser", user["user"])
            yield ok("user", f"{name}: {outcome}")
        else:  # `dropRole` below takes the role from this user
            has_others = bool(_list_other_roles(user, roles))
            reason = "has other roles" if has_others else "was not created by `jobmon init`"
            yield ok("user", f"{name}: kept, without the role; it {reason}")
    for role in admin.command("rolesInfo", sorted(roles.names))["roles"]:
        if not dry_run:
            admin.command("dropRole", role["role"])
        yield ok("role", f"{role['role']}: {outcome}")


def _list_users(client: MongoClient[Document], roles: QueueRoles) -> list[Document]:
    """The users of the watched database who have one of these roles."""
    users: list[Document] = client[roles.database].command("usersInfo", 1)["users"]
    return [user for user in users if len(_list_other_roles(user, roles)) < len(user["roles"])]


def _list_other_roles(user: Document, roles: QueueRoles) -> list[Document]:
    names = roles.names
    return [role for role in user["roles"] if role["db"] != "admin" or role["role"] not in names]


def _is_made_by_init(user: Document) -> bool:
    return bool(user.get("customData", {}).get("madeBy") == MADE_BY["madeBy"])


def connection_string(
    uri: str, user: str, database: str, replica_set: str | None, auth_source: str | None = None
) -> str:
    """The connection string of another user, with PASSWORD in place of the password.

    It has the addresses and the options of `uri`, except `_USERS_OPTIONS`. `auth_source`: the
    database of the user, by default `database`. An empty `user` is for a server without users.
    """
    scheme, hosts = split_uri(uri)
    options = []
    if user:
        options.append(f"authSource={auth_source or database}")
        hosts = f"{quote_plus(user)}:PASSWORD@{hosts}"
    if replica_set is not None and scheme == "mongodb":
        options.append(f"replicaSet={replica_set}")
    options += [
        option
        for option in uri.partition("?")[2].split("&")
        if option and option.partition("=")[0].lower() not in _USERS_OPTIONS
    ]
    query = f"?{'&'.join(options)}" if options else ""
    return f"{scheme}://{hosts}/{database}{query}"
