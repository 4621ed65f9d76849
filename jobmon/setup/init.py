"""`jobmon init`: creates indexes, roles and users for a queue.

It starts a replica set first, if requested. Before it creates anything else, it stops if a
collection does not match the settings, or if a right is missing. It removes only rights that older
versions granted too widely.
"""

from collections.abc import Iterator

from pymongo.errors import DuplicateKeyError, OperationFailure

from jobmon.actions.records import create_record_indexes
from jobmon.domain import CONTROLS, PAUSED
from jobmon.rollup.documents import state_database
from jobmon.settings import Settings
from jobmon.setup import script
from jobmon.setup.deployment import admin_client
from jobmon.setup.findings import Finding, SetupError, describe_cause, ok, problem, warning
from jobmon.setup.indexes import CreatedIndexes, PlannedIndex, State, create_index, estimate_bytes
from jobmon.setup.init_plan import InitOptions, InitPlan, find_missing_rights, make_plan
from jobmon.setup.replica_set import must_initiate, replica_set_config, start_replica_set
from jobmon.setup.users import (
    ActionRights,
    User,
    UserKind,
    connection_string,
    create_roles,
    create_users,
)
from jobmon.store.indexes import Index
from jobmon.web.revocation import RevokedTokens

_MIB = 1 << 20
# The setting for a user's connection string; for the reader it is JOBMON_MONGO_URI.
_URI_SETTINGS = {
    UserKind.COLLECTOR: "JOBMON_ROLLUP_URI",
    UserKind.ACTOR: "JOBMON_ACTOR_MONGO_URI",
}


def run_init(settings: Settings, options: InitOptions) -> Iterator[Finding]:
    """Create what is missing; each finding reports one result. Raises SetupError."""
    with admin_client(settings) as client:
        if options.replica_set:
            yield start_replica_set(client, options.replica_set)
        plan = make_plan(settings, client, options)
        if missing := find_missing_rights(plan, options):
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
    """Report what `run_init` would create, and the estimated size of each index; write nothing.

    Raises SetupError.
    """
    with admin_client(settings) as client:
        if options.replica_set and must_initiate(client, options.replica_set):
            yield ok("replica set", f"{options.replica_set} would be initiated.")
            yield ok("replica set", "To see the other steps, run this again once it has a primary.")
            return
        plan = make_plan(settings, client, options)
        yield from plan.notes
        if options.users:
            for role in plan.roles.privileges:
                yield ok("role", f"{role}: would be created, or get its missing rights")
        for user in options.users:
            yield ok("user", f"{user.describe(plan.roles)}: would be created, or get the role")
        refusals = _find_refusals(plan, options)
        for planned in plan.indexes:
            refusal = refusals.get(str(planned.index))
            yield refusal or _preview_index(planned, plan.deployment.connection.max_time_ms)
        if missing := find_missing_rights(plan, options):
            yield missing


def script_init(settings: Settings, options: InitOptions) -> Iterator[str]:
    """Lines for mongosh with the steps of `run_init`. Raises SetupError."""
    with admin_client(settings) as client:
        if options.replica_set and must_initiate(client, options.replica_set):
            name, _, member = options.replica_set.partition("/")
            yield script.replica_set_line(replica_set_config(name, member))
            yield "// To get the other steps, print the script again once the set has a primary."
            return
        plan = make_plan(settings, client, options)
        queue = f"{plan.roles.database}.{plan.roles.collections[0]}"
        yield f"// The steps of `jobmon init` for the jobs in {queue}, as lines for mongosh."
        refusals = _find_refusals(plan, options)
        yield from (f"// {note.message}" for note in (*plan.notes, *refusals.values()))
        if options.users:
            yield from script.role_lines(plan.roles)
            yield from script.user_lines(
                plan.roles, options.users, change_passwords=options.change_passwords
            )
        for name in plan.new_collections:
            yield script.collection_line(plan.roles.database, name)
        indexes = [index for index in plan.missing if str(index) not in refusals]
        yield from script.index_lines(indexes, settings.state_db, unique=options.unique)
        if options.has_own_databases:
            yield from script.revocation_lines(settings.state_db, settings.rollup_db)
        yield from script.action_lines(plan.roles)


def _prepare_actions(plan: InitPlan, actions: ActionRights) -> Finding:
    """Create the indexes on the records of actions, and the list of paused types."""
    connection = plan.deployment.connection
    try:
        if actions.may_pause:
            controls = connection.database[CONTROLS]
            no_types = {"$setOnInsert": {"types": list[str]()}}
            controls.update_one({"_id": PAUSED}, no_types, upsert=True)
        if plan.roles.own is not None:
            create_record_indexes(state_database(connection))
    except OperationFailure as error:
        return warning(
            "actions",
            f"The records of actions could not be prepared: {describe_cause(error)}.",
            remedy="Use a user who may create collections and indexes in "
            f"{plan.roles.database} and {plan.deployment.settings.state_db}.",
        )
    return ok("actions", "collections for actions: exist")


def _create_indexes(plan: InitPlan, options: InitOptions) -> Iterator[Finding]:
    created = CreatedIndexes(plan.deployment.connection)
    is_recorded, refusals = True, _find_refusals(plan, options)
    for planned in plan.indexes:
        if planned.state is not State.MISSING:
            yield _describe_unchanged(planned)
            continue
        index = planned.index
        if refusal := refusals.get(str(index)):
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
            yield problem("index", f"{index}: could not be created: {describe_cause(error)}.")
            continue
        is_unique = options.unique and index.may_be_unique
        yield ok("index", f"{index}: created{', unique' if is_unique else ''}, as {name}")
        try:
            created.add(index, name)
        except OperationFailure as error:
            if is_recorded:
                is_recorded = False
                yield warning(
                    "index",
                    f"This could not be recorded in {plan.deployment.settings.state_db}: "
                    f"{describe_cause(error)}.",
                    remedy="`jobmon init --remove` will not remove the indexes created now.",
                )


def _create_revocations(plan: InitPlan) -> Iterator[Finding]:
    """Create the list of revoked tokens, so that jobmon notices if the list disappears later."""
    try:
        RevokedTokens(plan.deployment.connection).create()
    except OperationFailure as error:
        yield warning(
            "revocations",
            f"The list of revoked tokens could not be created: {describe_cause(error)}.",
            remedy="`jobmon revoke` creates it when the first token is revoked.",
        )


def _describe_unchanged(planned: PlannedIndex) -> Finding:
    if planned.state is State.EXISTS:
        return ok("index", f"{planned.index}: exists")
    return ok(
        "index",
        f"{planned.index}: not created, no document in the samples has {planned.index.path}",
    )


def _find_refusals(plan: InitPlan, options: InitOptions) -> dict[str, Finding]:
    """The problems of missing indexes that --unique cannot create, by the index's description."""
    indexes = plan.missing if options.unique else []
    refusals = {str(index): _refuse_unique(plan, index) for index in indexes}
    return {name: refusal for name, refusal in refusals.items() if refusal is not None}


def _refuse_unique(plan: InitPlan, index: Index) -> Finding | None:
    """The problem that a unique index would refuse documents that lack its fields, or None."""
    sample = plan.samples.get(index.collection.name)
    if sample is None or not index.may_be_unique:
        return None
    for path, _ in index.keys:
        if lacking_count := sample.count_without(path):
            return problem(
                "index",
                f"{index}: not created; a unique index would refuse documents without {path}, "
                f"and {lacking_count} of the newest {sample.size} have none.",
                remedy="Run it again without --unique.",
            )
    return None


def _preview_index(planned: PlannedIndex, max_time_ms: int) -> Finding:
    if planned.state is not State.MISSING:
        return _describe_unchanged(planned)
    estimate = "size unknown"
    if (size_bytes := estimate_bytes(planned.index, max_time_ms)) is not None:
        estimate = f"about {max(size_bytes / _MIB, 0.1):,.1f} MiB"
    setting = planned.index.setting
    purpose = f" (for filters of lists: `{setting}` in JOBMON_FILTERS)" if setting else ""
    return ok("index", f"{planned.index}: would be created, {estimate}{purpose}")


def _describe_connection(plan: InitPlan, user: User) -> Finding:
    deployment = plan.deployment
    uri = connection_string(
        deployment.settings.mongo_uri, user.name, plan.roles.database, deployment.replica_set
    )
    setting = deployment.settings.uri_setting
    if setting == Settings.uri_setting and user.kind in _URI_SETTINGS:
        setting = _URI_SETTINGS[user.kind]
    process = "web service" if user.kind is UserKind.READER else user.kind
    return ok("connection", f"{process}: {setting}='{uri}'")
