"""Checks what actions on jobs need: a user for requests, a user for the actor, and an actor."""

from collections.abc import Iterator
from dataclasses import replace

from pymongo.errors import PyMongoError

from jobmon.actions.records import (
    ACTOR_LEASES,
    DECISIONS,
    MUTES,
    OUTCOMES,
    PROGRESS,
    ActionRecords,
)
from jobmon.actions.support import find_support
from jobmon.domain import CONTROLS
from jobmon.humanize import duration
from jobmon.rollup.documents import STATE, OwnDatabase, state_database
from jobmon.settings import Settings
from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, describe_cause, granted_actions, ok, problem, warning
from jobmon.setup.rights import OWN_WRITES, WRITES, read_privileges
from jobmon.setup.users import UserKind, list_state_rights
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized

ACTOR_URI = "JOBMON_ACTOR_MONGO_URI"
# For requests and mutes, and to know whether an actor works.
_REQUEST_COLLECTIONS = (DECISIONS, MUTES, PROGRESS, OUTCOMES, ACTOR_LEASES)
_GRANT = "Run `jobmon init --actor USER`: it also grants this to the queue's other users."


def check_requester(deployment: Deployment) -> Iterator[Finding]:
    """Report whether the web service may store requests, and whether it may also change records.

    `deployment` must be the deployment with jobmon's own databases.
    """
    settings = deployment.settings
    if settings.actor_mongo_uri is not None and settings.has_key:
        yield warning(
            "actor",
            f"{ACTOR_URI} is set together with the key for tokens: a web service with these "
            "settings has the connection string of a user who may change jobs.",
            remedy="Set it only in the environment of `jobmon actor`.",
        )
    if not settings.actions or not deployment.users:
        return
    needed = list_state_rights(UserKind.READER, has_actions=True)
    granted = {
        name: granted_actions(deployment.privileges, settings.state_db, name)
        for name in _REQUEST_COLLECTIONS
    }
    missing = [
        f"{action} in {name}"
        for name in _REQUEST_COLLECTIONS
        for action in sorted(set(needed[name]) - granted[name])
    ]
    if missing and not settings.has_key and _may_write_statistics(deployment):
        yield ok(
            "actor",
            "This is the collector's user, who needs no right to store requests. To check the web "
            "service's user, run `jobmon check` with the settings of the web service.",
        )
    elif missing:
        yield problem(
            "actor",
            f"The web service's user may not {', '.join(missing)}, in {settings.state_db}: "
            "actions or mutes are refused.",
            remedy=_GRANT,
            commands=(deployment.init_command("--actor"),),
        )
    elif any((granted[name] & OWN_WRITES) - set(needed[name]) for name in _REQUEST_COLLECTIONS):
        yield warning(
            "actor",
            "The web service's user may also change records of actions in "
            f"{settings.state_db}; it needs to write nothing but new {DECISIONS} and {MUTES}.",
            remedy="Create a user with `jobmon init --actor USER --reader USER`.",
        )
    else:
        yield ok("actor", "The web service's user may store requests, but not change records.")


def _may_write_statistics(deployment: Deployment) -> bool:
    granted = granted_actions(deployment.privileges, deployment.settings.rollup_db, STATE)
    return granted >= OWN_WRITES


def check_actor(deployment: Deployment, own_connection: Connection) -> Iterator[Finding]:
    """Report the rights of the actor's user, if its URI is set, and whether an actor works.

    Reports nothing if neither JOBMON_ACTIONS nor JOBMON_ACTOR_MONGO_URI is set. `own_connection`
    reads jobmon's own databases. Raises PyMongoError.
    """
    settings = deployment.settings
    if not settings.actions and settings.actor_mongo_uri is None:
        return
    support = find_support(settings)
    if not support.list_actions():
        yield ok("actor", f"There are no actions for this queue. {support.reason}")
        return
    if support.has_type_actions:
        yield from _check_controls(deployment)
    has_own_uri = settings.uri_setting != Settings.uri_setting
    # With a key for tokens, this is the web service's environment: then a queue's own URI is for
    # the web service's user, and the actor's user is not known.
    if settings.actor_mongo_uri is not None and not (has_own_uri and settings.has_key):
        yield from _check_user(deployment, own_connection)
    yield _check_presence(deployment, own_connection)


def _check_controls(deployment: Deployment) -> Iterator[Finding]:
    """A warning if the user may not read which types are paused."""
    database = deployment.connection.database.name
    if deployment.users and "find" not in granted_actions(
        deployment.privileges, database, CONTROLS
    ):
        yield warning(
            "actor",
            f"The user may not read {CONTROLS}: pages and messages do not show paused types.",
            remedy=_GRANT,
            commands=(deployment.init_command("--actor"),),
        )


def _check_user(deployment: Deployment, own_connection: Connection) -> Iterator[Finding]:
    """Compare the rights of the actor's user with the rights that `jobmon init --actor` grants."""
    queue_settings = deployment.settings.choose_actor_uri()
    own_settings = own_connection.settings.choose_actor_uri()
    try:
        users, queue_privileges = read_privileges(queue_settings)
        is_same_uri = queue_settings.mongo_uri == own_settings.mongo_uri
        own_privileges = queue_privileges if is_same_uri else read_privileges(own_settings)[1]
    except (PyMongoError, OSError, ValueError) as error:
        setting = queue_settings.uri_setting
        setting = ACTOR_URI if setting == Settings.uri_setting else setting
        message = f"The actor's connection does not work: {describe_cause(error)}."
        yield problem("actor", message, remedy=f"Correct {setting}.")
        return
    if not users:  # another check reports that there is no authentication
        return
    missing, extra = [], []
    state_db = deployment.settings.state_db
    for database, name, needed in _list_needed_rights(deployment):
        privileges = own_privileges if database == state_db else queue_privileges
        granted = granted_actions(privileges, database, name)
        missing += [f"{action} in {name}" for action in sorted(needed - granted)]
        extra += [f"{action} in {name}" for action in sorted((granted & WRITES) - needed)]
    if missing:
        yield problem(
            "actor",
            f"The actor's user may not {', '.join(missing)}.",
            remedy="Run `jobmon init --actor` to grant that; all other rights stay.",
            commands=(deployment.init_command("--actor"),),
        )
    if extra:
        yield warning(
            "actor",
            f"The actor's user may also {', '.join(extra)}; the actor does not need that.",
            remedy="Create a user with `jobmon init --actor`.",
            commands=(deployment.init_command("--actor"),),
        )
    if not missing and not extra:
        yield ok("actor", f"User {users[0]['user']}@{users[0]['db']} may do what the actor needs.")


def _list_needed_rights(deployment: Deployment) -> Iterator[tuple[str, str, set[str]]]:
    """The rights that `jobmon init --actor` grants, as (database, collection, actions)."""
    rights = deployment.action_rights(find_support(deployment.settings))
    roles = replace(deployment.roles, own=deployment.own_database_names, actions=rights)
    for privilege in roles.privileges[roles.name(UserKind.ACTOR)]:
        resource = privilege["resource"]
        yield resource["db"], resource["collection"], set(privilege["actions"])


def _check_presence(deployment: Deployment, own_connection: Connection) -> Finding:
    settings = deployment.settings
    database = OwnDatabase(state_database(own_connection), deployment.connection.queue_key)
    try:
        absence_s = ActionRecords(database, settings.actions_retention_days).find_actor_absence_s()
    except PyMongoError as error:
        if not is_unauthorized(error):
            raise
        return ok("actor", f"This user may not read {ACTOR_LEASES}: an actor may work, or none.")
    if absence_s == 0:
        return ok("actor", "An actor works for this queue.")
    message = "No actor has ever worked for this queue"
    if absence_s is not None:
        ended = duration(1_000 * absence_s)
        message = f"No actor works for this queue; the last one ended {ended} ago"
    return warning(
        "actor",
        f"{message}: pages have no buttons for actions, and a request expires after "
        f"{settings.actions_expire_minutes} minutes.",
        remedy=f"Start an actor, with the user of `jobmon init --actor` in {ACTOR_URI}.",
        commands=("jobmon actor",),
    )
