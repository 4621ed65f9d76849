"""Decides what `jobmon init` creates in a deployment, before it creates anything."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pymongo import MongoClient

from jobmon.actions.support import find_support
from jobmon.settings import Settings
from jobmon.setup.deployment import (
    ADMIN_URI,
    COLLECTION_SETTINGS,
    Deployment,
    explain_unsuitable_kind,
    find_jobs_elsewhere,
)
from jobmon.setup.fields import ExpectedFields, Sample, expected_fields
from jobmon.setup.findings import Finding, SetupError, granted_actions, problem, warning
from jobmon.setup.indexes import PlannedIndex, State, plan_indexes
from jobmon.setup.search_fields import find_unused_fields
from jobmon.setup.users import ActionRights, QueueRoles, User, UserKind
from jobmon.store.connection import Connection
from jobmon.store.indexes import Index
from jobmon.store.mapping import Document
from jobmon.store.read_collection import ReadCollection


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """The options of `jobmon init`: what to create besides the indexes of a queue."""

    users: Sequence[User] = ()
    replica_set: str | None = None  # NAME/HOST:PORT
    create: bool = False  # for an empty queue: create its collections, and every index
    unique: bool = False
    change_passwords: bool = False
    has_own_databases: bool = True  # whether jobmon's own databases are in this deployment


@dataclass(frozen=True, kw_only=True)
class InitPlan:
    """The roles, collections and indexes to create in a deployment."""

    deployment: Deployment
    roles: QueueRoles
    samples: dict[str, Sample]  # by the collection's name; an empty collection has none
    new_collections: list[str]
    indexes: list[PlannedIndex]
    notes: list[Finding]

    @property
    def missing(self) -> list[Index]:
        """The indexes to create."""
        return [planned.index for planned in self.indexes if planned.state is State.MISSING]


def make_plan(settings: Settings, client: MongoClient[Document], options: InitOptions) -> InitPlan:
    """Decide what to create; raises SetupError if documents are missing or unsuitable."""
    connection = Connection(settings, client)
    deployment = Deployment.inspect(
        settings, connection, has_own_databases=options.has_own_databases
    )
    samples: dict[str, Sample] = {}
    new_collections, empty, notes = [], [], []
    expected = expected_fields(settings, connection)
    setting_names = map(settings.describe_setting, COLLECTION_SETTINGS)
    for fields, setting in zip(expected, setting_names, strict=False):
        collection = fields.collection.collection
        kind = deployment.kinds.get(collection.name)
        if kind is None:  # there is no such collection, or the user may not read it: this raises
            collection.find_one({}, {"_id": True}, max_time_ms=connection.max_time_ms)
        elif sample := _read_sample(fields, kind, setting):
            samples[collection.name] = sample
            continue
        is_jobs = fields.collection is connection.jobs
        # The program that writes a log also creates the log's indexes, under names of its own.
        if options.create and (is_jobs or connection.profile.log is None):
            empty.append(collection.name)
            if kind is None:
                new_collections.append(collection.name)
        elif is_jobs:
            raise SetupError(_explain_no_documents(deployment, fields.collection, kind, setting))
        else:
            notes.append(_explain_no_index(fields.collection, kind, setting))
    if connection.jobs.collection.name in samples:
        notes += find_unused_fields(settings, connection)
    return InitPlan(
        deployment=deployment,
        roles=replace(deployment.roles, actions=_find_action_rights(deployment, options)),
        samples=samples,
        new_collections=new_collections,
        indexes=plan_indexes(
            settings, connection, [*samples, *empty], include_unused=options.create
        ),
        notes=notes,
    )


def _find_action_rights(deployment: Deployment, options: InitOptions) -> ActionRights | None:
    """The rights of the actor's user; None without --actor. Raises SetupError without actions."""
    if all(user.kind is not UserKind.ACTOR for user in options.users):
        return None
    support = find_support(deployment.settings)
    if not support.list_actions():
        raise SetupError(
            problem("actions", support.reason, remedy="Leave out --actor for this queue.")
        )
    return deployment.action_rights(support)


def _read_sample(fields: ExpectedFields, kind: str, setting: str) -> Sample | None:
    """A sample; None if the profile reads no document. Raises SetupError if it cannot be used."""
    if unsuitable := explain_unsuitable_kind(fields.collection.collection.full_name, kind, setting):
        raise SetupError(unsuitable)
    sample = Sample(fields)
    if not sample.size:
        return None
    if unusable := sample.explain_unusable():
        raise SetupError(unusable)
    return sample


def _explain_no_documents(
    deployment: Deployment, watched: ReadCollection, kind: str | None, setting: str
) -> Finding:
    elsewhere = find_jobs_elsewhere(deployment, ADMIN_URI)
    return problem(
        "collections",
        f"{_describe_absence(watched, kind)}: jobmon cannot see whether it is "
        "the right collection, and which fields its documents have.",
        remedy=elsewhere
        or f"If it has another name, set {setting}. For a new, empty queue, add --create: it "
        "creates the collections and every index.",
    )


def _explain_no_index(watched: ReadCollection, kind: str | None, setting: str) -> Finding:
    return warning(
        "collections",
        f"{_describe_absence(watched, kind)}: no index is created for it.",
        remedy=f"If it has another name, set {setting}. Otherwise run this again once it holds "
        "documents.",
    )


def _describe_absence(watched: ReadCollection, kind: str | None) -> str:
    name = watched.collection.full_name
    if kind is None:
        return f"There is no collection {name}"
    if watched.mapping.where and watched.estimated_count():
        return f"No document of {name} matches `where` of the profile"
    return f"{name} is empty"


def find_missing_rights(plan: InitPlan, options: InitOptions) -> Finding | None:
    """The problem that the user lacks rights for roles, users, collections or indexes, or None."""
    deployment, database = plan.deployment, plan.roles.database
    if not deployment.users:  # no authentication
        return None
    needed: list[tuple[str, str, set[str]]] = []  # database, collection, actions
    if options.users:
        needed += [
            ("admin", "", {"createRole", "grantRole", "revokeRole", "viewRole"}),
            (database, "", {"changePassword", "createUser", "viewUser"}),
        ]
    needed += [(database, name, {"createCollection"}) for name in plan.new_collections]
    names = dict.fromkeys(index.collection.name for index in plan.missing)
    needed += [(database, name, {"createIndex"}) for name in names]
    lacking = [
        f"{', '.join(sorted(missing))} on {'.'.join(filter(None, (granted_on, collection)))}"
        for granted_on, collection, actions in needed
        if (missing := actions - granted_actions(deployment.privileges, granted_on, collection))
    ]
    if not lacking:
        return None
    user = deployment.users[0]
    return problem(
        "rights",
        f"The user {user['user']}@{user['db']} in {ADMIN_URI} may not {'; '.join(lacking)}.",
        remedy=f"Use a user with readWrite on {database} and, for roles and users, "
        "userAdminAnyDatabase. Or add --print to the same options, and let an administrator run "
        "the printed lines in mongosh.",
    )
