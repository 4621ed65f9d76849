"""`jobmon init`: creates indexes, roles and users for a queue, and removes nothing.

It checks everything before it creates anything: it stops at a collection that does not match the
settings, and at a missing right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure

from jobmon.actions.records import RECORD_INDEXES
from jobmon.actions.support import find_support
from jobmon.domain import CONTROLS, PAUSED
from jobmon.rollup.documents import state_database
from jobmon.settings import Settings
from jobmon.setup import script
from jobmon.setup.deployment import (
    ADMIN_URI,
    COLLECTION_SETTINGS,
    Deployment,
    admin_client,
    explain_unsuitable_kind,
    find_jobs_elsewhere,
    initiate_replica_set,
    replica_set_config,
)
from jobmon.setup.fields import ExpectedFields, Sample, expected_fields
from jobmon.setup.findings import (
    Finding,
    SetupError,
    describe,
    granted_actions,
    ok,
    problem,
    warning,
)
from jobmon.setup.indexes import (
    MadeIndexes,
    PlannedIndex,
    State,
    create_index,
    estimate_bytes,
    plan_indexes,
)
from jobmon.setup.search_fields import find_unused_fields
from jobmon.setup.users import (
    ActionRights,
    QueueRoles,
    User,
    UserKind,
    connection_string,
    create_roles,
    create_users,
)
from jobmon.store.connection import Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.indexes import Index
from jobmon.store.mapping import Document
from jobmon.store.queue_key import SHARDED_CLUSTER, deployment_name
from jobmon.web.revocation import RevokedTokens

_MIB = 1 << 20
# Where the connection string of a user is set, instead of in JOBMON_MONGO_URI.
_URI_SETTINGS = {
    UserKind.COLLECTOR: "JOBMON_ROLLUP_URI",
    UserKind.ACTOR: "JOBMON_ACTOR_MONGO_URI",
}


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """What to create besides the indexes of a queue that has documents."""

    users: Sequence[User] = ()
    replica_set: str | None = None  # NAME/HOST:PORT
    create: bool = False  # also collections and every index, for an empty queue
    unique: bool = False
    change_passwords: bool = False
    has_own_databases: bool = True  # jobmon's own databases are in this deployment


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What to create in a deployment."""

    deployment: Deployment
    roles: QueueRoles
    samples: dict[str, Sample]  # by collection; empty ones have none
    new_collections: list[str]
    indexes: list[PlannedIndex]
    notes: list[Finding]

    @property
    def missing(self) -> list[Index]:
        """The indexes to create."""
        return [planned.index for planned in self.indexes if planned.state is State.MISSING]


def run_init(settings: Settings, options: InitOptions) -> Iterator[Finding]:
    """Create what is missing; each finding reports one result. Raises SetupError."""
    with admin_client(settings) as client:
        if options.replica_set:
            yield _start_replica_set(client, options.replica_set)
        plan = _make_plan(settings, client, options)
        if missing := _missing_rights(plan, options):
            raise SetupError(missing)
        yield from plan.notes
        if options.users:
            yield from create_roles(client, plan.roles)
            yield from create_users(
                client, plan.roles, options.users, change_passwords=options.change_passwords
            )
        yield from _create_indexes(plan, options)
        if options.has_own_databases:
            yield from _create_revocations(plan)
        if plan.roles.actions is not None:
            yield _prepare_actions(plan, plan.roles.actions)
        for user in options.users:
            yield _describe_connection(plan, user)


def preview_init(settings: Settings, options: InitOptions) -> Iterator[Finding]:
    """Report what `run_init` would create, and the estimated size of each index. Writes nothing.

    Raises SetupError.
    """
    with admin_client(settings) as client:
        if options.replica_set and not _is_initiated(client):
            yield ok("replica set", f"{options.replica_set} would be started.")
            yield ok("replica set", "Run this again once it has a primary to see the other steps.")
            return
        plan = _make_plan(settings, client, options)
        yield from plan.notes
        if options.users:
            for role in plan.roles.privileges:
                yield ok("role", f"{role}: would be created, or get its missing rights")
        for user in options.users:
            yield ok("user", f"{user.describe(plan.roles)}: would be created, or get the role")
        sizes = estimate_bytes(plan.deployment.connection, plan.missing)
        for planned in plan.indexes:
            yield _preview_index(planned, sizes.get(str(planned.index)))
        if missing := _missing_rights(plan, options):
            yield missing


def script_init(settings: Settings, options: InitOptions) -> Iterator[str]:
    """The steps of `run_init` as lines for mongosh; writes nothing. Raises SetupError."""
    with admin_client(settings) as client:
        if options.replica_set and not _is_initiated(client):
            name, _, member = options.replica_set.partition("/")
            yield script.replica_set_line(replica_set_config(name, member))
            yield "// Print the script again once it has a primary: then it has the other steps."
            return
        plan = _make_plan(settings, client, options)
        queue = f"{plan.roles.database}.{plan.roles.collections[0]}"
        yield f"// The steps of `jobmon init` for the jobs in {queue}, as lines for mongosh."
        yield from (f"// {note.message}" for note in plan.notes)
        if options.users:
            yield from script.role_lines(plan.roles)
            yield from script.user_lines(
                plan.roles, options.users, change_passwords=options.change_passwords
            )
        for name in plan.new_collections:
            yield script.collection_line(plan.roles.database, name)
        yield from script.index_lines(
            plan.missing, plan.deployment.settings.state_db, unique=options.unique
        )
        yield from script.action_lines(plan.roles)


def _start_replica_set(client: MongoClient[Document], replica_set: str) -> Finding:
    name, _, member = replica_set.partition("/")
    _refuse_server(client.admin.command("hello"), name)
    try:
        made = initiate_replica_set(client, name, member)
    except TimeoutError as error:
        raise SetupError(
            problem("replica set", str(error), remedy="See the log of mongod.")
        ) from None
    except OperationFailure as error:
        if error.code == UNAUTHORIZED:
            raise
        raise SetupError(
            problem(
                "replica set",
                f"{replica_set} could not be started: {describe(error)}.",
                remedy="NAME must be that of --replSet. HOST:PORT must be an address at which the "
                "server reaches itself.",
            )
        ) from None
    return ok("replica set", f"{name}: {'initiated' if made else 'exists'}")


def _refuse_server(hello: Document, name: str) -> None:
    """Raise SetupError for a server that cannot start the replica set of this name."""
    if (present := hello.get("setName")) not in (None, name):
        raise SetupError(
            problem(
                "replica set",
                f"The server is in the replica set {present}, not in {name}.",
                remedy=f"Use --replica-set {present}/HOST:PORT, or leave the option out.",
            )
        )
    if deployment_name(hello) == SHARDED_CLUSTER:
        raise SetupError(
            problem(
                "replica set",
                "The server is the mongos of a sharded cluster.",
                remedy="Leave out --replica-set: each shard is a replica set already.",
            )
        )
    if "setName" not in hello and "isreplicaset" not in hello:
        raise SetupError(
            problem(
                "replica set",
                "The server was not started as a member of a replica set.",
                remedy=f"Start mongod with --replSet {name}, or leave out --replica-set: on a "
                "standalone server jobmon polls.",
            )
        )


def _is_initiated(client: MongoClient[Document]) -> bool:
    return "setName" in client.admin.command("hello")


def _make_plan(settings: Settings, client: MongoClient[Document], options: InitOptions) -> _Plan:
    """Decide what to create; raises SetupError if the documents do not match the settings."""
    connection = Connection(settings, client)
    deployment = Deployment.inspect(
        settings, connection, has_own_databases=options.has_own_databases
    )
    samples: dict[str, Sample] = {}
    new_collections, empty, notes = [], [], []
    expected = expected_fields(settings, connection)
    names = map(settings.describe_setting, COLLECTION_SETTINGS)
    for fields, setting in zip(expected, names, strict=False):
        collection = fields.collection.collection
        kind = deployment.kinds.get(collection.name)
        if kind is None:  # a user without the right to read it cannot list it: fail here
            collection.find_one({}, {"_id": True}, max_time_ms=connection.max_time_ms)
        elif sample := _read_sample(fields, kind, setting):
            samples[collection.name] = sample
            continue
        is_jobs = fields.collection is connection.jobs
        # The program that writes a log creates its indexes, under names that are not the default.
        if options.create and (is_jobs or connection.profile.log is None):
            empty.append(collection.name)
            if kind is None:
                new_collections.append(collection.name)
        elif is_jobs:
            raise SetupError(_explain_no_documents(deployment, collection.full_name, kind, setting))
        else:
            notes.append(
                warning(
                    "collections",
                    f"{_describe_absence(collection.full_name, kind)}: no index is created for it.",
                    remedy=f"If it has another name, set {setting}. Otherwise run this again "
                    "once it holds documents.",
                )
            )
    if connection.jobs.collection.name in samples:
        notes += find_unused_fields(settings, connection)
    return _Plan(
        deployment=deployment,
        roles=replace(deployment.roles, actions=_find_action_rights(deployment, options)),
        samples=samples,
        new_collections=new_collections,
        indexes=plan_indexes(settings, connection, [*samples, *empty], every=options.create),
        notes=notes,
    )


def _find_action_rights(deployment: Deployment, options: InitOptions) -> ActionRights | None:
    """The rights of an actor's user, if one is to be created; SetupError if it could do nothing."""
    if all(user.kind is not UserKind.ACTOR for user in options.users):
        return None
    settings = deployment.settings
    support = find_support(settings)
    if not support.list_actions():
        raise SetupError(
            problem("actions", support.reason, remedy="Leave out --actor for this queue.")
        )
    is_own = support.transitions is None
    names = deployment.connection.collection_names
    return ActionRights(
        # Only the library of jobmon records in the attempts how an action ends one.
        collections=names if is_own else names[:1],
        has_controls=is_own,
        may_delete=settings.actions_allow_delete,
        state_db=settings.state_db if deployment.has_own_databases else None,
    )


def _prepare_actions(plan: _Plan, actions: ActionRights) -> Finding:
    """Create the indexes of the records of actions, and the list of paused types."""
    connection = plan.deployment.connection
    try:
        if actions.has_controls:
            controls = connection.database[CONTROLS]
            created = {"$setOnInsert": {"types": list[str]()}}
            controls.update_one({"_id": PAUSED}, created, upsert=True)
        if actions.state_db is not None:
            for name, keys, how in RECORD_INDEXES:
                state_database(connection)[name].create_index(keys, **how)
    except OperationFailure as error:
        return warning(
            "actions",
            f"The records of actions could not be prepared: {describe(error)}.",
            remedy="Use a user who may create collections and indexes in "
            f"{plan.roles.database} and {plan.deployment.settings.state_db}.",
        )
    return ok("actions", "the records of actions, and the list of paused types: exist")


def _read_sample(fields: ExpectedFields, kind: str, setting: str) -> Sample | None:
    """A sample of a collection; None if it is empty. SetupError if its documents are unsuitable."""
    if unfit := explain_unsuitable_kind(fields.collection.collection.full_name, kind, setting):
        raise SetupError(unfit)
    sample = Sample(fields)
    if not sample.size:
        return None
    if unusable := sample.explain_unusable():
        raise SetupError(unusable)
    return sample


def _explain_no_documents(
    deployment: Deployment, where: str, kind: str | None, setting: str
) -> Finding:
    elsewhere = find_jobs_elsewhere(deployment, ADMIN_URI)
    return problem(
        "collections",
        f"{_describe_absence(where, kind)}: jobmon cannot see whether it is "
        "the right collection, and which fields its documents have.",
        remedy=elsewhere
        or f"If it has another name, set {setting}. For a new, empty queue, add --create: it "
        "creates the collections and every index.",
    )


def _describe_absence(where: str, kind: str | None) -> str:
    return f"There is no collection {where}" if kind is None else f"{where} is empty"


def _missing_rights(plan: _Plan, options: InitOptions) -> Finding | None:
    """The problem that the user lacks rights for a part of the plan, or None."""
    deployment, database = plan.deployment, plan.roles.database
    if not deployment.users:  # no authentication
        return None
    needed: list[tuple[str, str, set[str]]] = []
    if options.users:
        needed += [
            ("admin", "", {"createRole", "grantRole", "viewRole"}),
            (database, "", {"createUser", "viewUser"}),
        ]
    needed += [(database, name, {"createCollection"}) for name in plan.new_collections]
    names = dict.fromkeys(index.collection.name for index in plan.missing)
    needed += [(database, name, {"createIndex"}) for name in names]
    lacking = [
        f"{', '.join(sorted(lacks))} on {'.'.join(filter(None, (where, collection)))}"
        for where, collection, actions in needed
        if (lacks := actions - granted_actions(deployment.privileges, where, collection))
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


def _create_indexes(plan: _Plan, options: InitOptions) -> Iterator[Finding]:
    made = MadeIndexes(plan.deployment.connection)
    is_recorded = True
    for planned in plan.indexes:
        if planned.state is not State.MISSING:
            yield _describe_unchanged(planned)
            continue
        index = planned.index
        if options.unique and (refusal := _refuse_unique(plan, index)):
            yield refusal
            continue
        try:
            name = create_index(index, unique=options.unique)
        except DuplicateKeyError:
            yield problem(
                "index",
                f"{index}: cannot be unique, two documents have the same values.",
                remedy="Run it again without --unique.",
            )
            continue
        except OperationFailure as error:
            yield problem("index", f"{index}: could not be created: {describe(error)}.")
            continue
        is_unique = options.unique and index.may_be_unique
        yield ok("index", f"{index}: created{', unique' if is_unique else ''}, as {name}")
        try:
            made.add(index, name)
        except OperationFailure as error:
            if is_recorded:
                is_recorded = False
                yield warning(
                    "index",
                    f"This could not be recorded in {plan.deployment.settings.state_db}: "
                    f"{describe(error)}.",
                    remedy="`jobmon init --remove` will not remove the indexes created now.",
                )


def _create_revocations(plan: _Plan) -> Iterator[Finding]:
    """Create the list of revoked tokens, so that jobmon notices when it disappears."""
    try:
        RevokedTokens(plan.deployment.connection).create()
    except OperationFailure as error:
        yield warning(
            "revocations",
            f"The list of revoked tokens could not be created: {describe(error)}.",
            remedy="`jobmon revoke` creates it when the first token is revoked.",
        )


def _describe_unchanged(planned: PlannedIndex) -> Finding:
    if planned.state is State.EXISTS:
        return ok("index", f"{planned.index}: exists")
    return ok(
        "index",
        f"{planned.index}: not created, no document in the samples has {planned.index.path}",
    )


def _refuse_unique(plan: _Plan, index: Index) -> Finding | None:
    """The problem that a unique index would refuse documents like the present ones, or None."""
    sample = plan.samples.get(index.collection.name)
    if sample is None or not index.may_be_unique:
        return None
    for path, _ in index.keys:
        if lacking := sample.count_without(path):
            return problem(
                "index",
                f"{index}: not created; a unique index would refuse documents without {path}, "
                f"and {lacking} of the newest {sample.size} have none.",
                remedy="Run it again without --unique.",
            )
    return None


def _preview_index(planned: PlannedIndex, size: int | None) -> Finding:
    if planned.state is not State.MISSING:
        return _describe_unchanged(planned)
    estimate = "size unknown" if size is None else f"about {max(size / _MIB, 0.1):,.1f} MiB"
    setting = planned.index.setting
    chosen = f" (for filters of lists: `{setting}` in JOBMON_FILTERS)" if setting else ""
    return ok("index", f"{planned.index}: would be created, {estimate}{chosen}")


def _describe_connection(plan: _Plan, user: User) -> Finding:
    deployment = plan.deployment
    uri = connection_string(
        deployment.settings.mongo_uri, user.name, plan.roles.database, deployment.replica_set
    )
    setting = deployment.settings.uri_setting
    if setting == Settings.uri_setting and user.kind in _URI_SETTINGS:
        setting = _URI_SETTINGS[user.kind]
    whose = "web service" if user.kind is UserKind.READER else user.kind
    return ok("connection", f"{whose}: {setting}='{uri}'")
