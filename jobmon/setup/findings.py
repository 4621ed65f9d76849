"""Findings: what `jobmon check` and `jobmon init` report about a deployment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.uri_parser import parse_uri

from jobmon.settings import SettingsError
from jobmon.store.failures import AUTHENTICATION_FAILED, UNAUTHORIZED, name_error

# MongoDB's message if a user lacks a right. It contains the command; jobmon shows only its name.
_NOT_AUTHORIZED = re.compile(
    r"not authorized on (?P<database>\S+) to execute command \{ (?P<command>\w+):"
)
SETTINGS_REMEDY = "docs/operations.md lists all settings, with links to the formats of files."


class Level(StrEnum):
    """The severity of a finding. Only a problem makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of a check: the state of one thing and, if something is wrong, the remedy.

    `commands` are lines to paste into a shell, the best line first. Lines for mongosh may follow.

        problem("database", "It does not answer.", remedy="Is it running?")
    """

    level: Level
    check: str
    message: str
    remedy: str | None = None
    commands: tuple[str, ...] = ()
    queue: str | None = None  # the queue's name, if there are several queues


ok, warning = partial(Finding, Level.OK), partial(Finding, Level.WARNING)
problem = partial(Finding, Level.PROBLEM)


class SetupError(Exception):
    """`jobmon init` cannot continue; `finding` is the problem to print."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def refused_setting(error: SettingsError) -> Finding:
    """The problem that a setting, or the file that it names, is missing or invalid."""
    return problem("settings", str(error), remedy=SETTINGS_REMEDY)


def explain_failure(error: Exception, uri: str, setting: str, no_user_remedy: str) -> Finding:
    """The problem that the database at `uri`, the value of `setting`, cannot be queried.

    `no_user_remedy`: what to do if the database requires a user and the address has none.
    """
    address = describe_address(uri)
    if isinstance(error, OperationFailure):
        if error.code == AUTHENTICATION_FAILED:
            remedy = (
                f"Check user, password and authSource in {setting}. The database keeps the "
                "password: a change in the environment alone does not change it there."
            )
            return problem(
                "database", f"{address} does not know this user or password.", remedy=remedy
            )
        if error.code == UNAUTHORIZED:
            match = _NOT_AUTHORIZED.search(str(error))
            if match is None:
                return problem("database", f"{address} requires a user.", remedy=no_user_remedy)
            return problem(
                "rights",
                f"The user in {setting} may not run {match['command']} on {match['database']}.",
                remedy="Use a user with more rights: docs/operations.md lists the required ones.",
            )
        return problem("database", f"{address} could not run a command: {describe_cause(error)}.")
    if not isinstance(error, PyMongoError | OSError):  # a bad option or name
        message = f"No connection to {address[0].lower() + address[1:]} is possible: "
        return problem("database", message + describe_cause(error))
    remedy = f"Is it running? Is the address in {setting} correct from this machine?"
    return problem("database", f"{address} does not answer: {describe_cause(error)}", remedy=remedy)


def describe_address(uri: str) -> str:
    """`The database at HOSTS`, the beginning of a message."""
    return f"The database at {split_uri(uri)[1]}"


def split_uri(uri: str) -> tuple[str, str]:
    """The scheme and the addresses of a connection string, without user and password."""
    scheme, _, rest = uri.partition("://")
    if scheme == "mongodb+srv":  # parsing it would query the DNS
        return scheme, re.split(r"[/?]", rest)[0].rpartition("@")[2]
    nodes = parse_uri(uri, warn=False)["nodelist"]
    hosts = ((f"[{host}]" if ":" in host else host, port) for host, port in nodes)  # IPv6
    return scheme, ",".join(f"{host}:{port}" if port else host for host, port in hosts)


def describe_cause(error: Exception) -> str:
    """The cause in one line, without the state that the driver appends."""
    if isinstance(error, OperationFailure):
        return f"refused with {name_error(error)}"
    if isinstance(error, ServerSelectionTimeoutError):
        return re.split(r" \(configured timeouts|, Timeout: ", str(error))[0]
    return str(error).partition(" (configured timeouts")[0]


def granted_actions(privileges: list[dict[str, Any]], database: str, collection: str) -> set[str]:
    """The actions that a user may perform on a collection (`""`: on the whole database)."""
    actions: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        is_covered = resource.get("db") in ("", database) and (
            resource.get("collection") in ("", collection)
        )
        if is_covered or resource.get("anyResource"):
            actions |= set(privilege["actions"])
    return actions


def format_setting(value: object) -> str:
    """The value of a setting in the form that its environment variable has."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def quote_shell(text: str) -> str:
    """The text in single quotes, for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def printable(text: str) -> str:
    """The first 60 characters of another program's text, safe for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text[:60])
