"""Findings: what `jobmon check` and `jobmon init` print about a deployment, in words of our own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pymongo.errors import (
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.uri_parser import parse_uri

from jobmon.store.failures import AUTHENTICATION_FAILED, UNAUTHORIZED, name_error

# How MongoDB refuses a user who is signed in; the command's own values are not repeated.
_NOT_AUTHORIZED = re.compile(
    r"not authorized on (?P<database>\S+) to execute command \{ (?P<command>\w+):"
)


class Level(StrEnum):
    """How bad a finding is. Only a problem makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: what it is like and, if something is amiss, what to do.

    `commands` are lines to paste, the first way first.
    """

    check: str
    level: Level
    says: str
    do: str | None = None
    commands: tuple[str, ...] = ()


class SetupError(Exception):
    """A command cannot go on; `finding` is the problem to print."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def ok(check: str, says: str) -> Finding:
    """A finding that all is as it should be."""
    return Finding(check=check, level=Level.OK, says=says)


def warning(
    check: str, says: str, *, do: str | None = None, commands: tuple[str, ...] = ()
) -> Finding:
    """A finding that something could be better."""
    return Finding(check=check, level=Level.WARNING, says=says, do=do, commands=commands)


def problem(
    check: str, says: str, *, do: str | None = None, commands: tuple[str, ...] = ()
) -> Finding:
    """A finding that something does not work."""
    return Finding(check=check, level=Level.PROBLEM, says=says, do=do, commands=commands)


def refused_setting(error: Exception) -> Finding:
    """The finding that a setting is missing or bad."""
    return problem(
        "settings", str(error), do="Set it in the environment; docs/operations.md lists them all."
    )


def unreachable(error: Exception, uri: str, setting: str, no_user: str) -> Finding:
    """The problem that nothing can be asked of the database at `uri`, which `setting` holds.

    `no_user` is the remedy where the database wants a user and the connection string names none.
    """
    where = describe_address(uri)
    if isinstance(error, OperationFailure):
        if error.code == AUTHENTICATION_FAILED:
            do = (
                f"Check user, password and authSource in {setting}. A password is kept in the "
                "database: changing it in the environment alone changes nothing there."
            )
            return problem("database", f"{where} does not know this user or password.", do=do)
        if error.code == UNAUTHORIZED:
            refused = _NOT_AUTHORIZED.search(str(error))
            if refused is None:
                return problem(
                    "database", f"{where} answers only to users who sign in.", do=no_user
                )
            return problem(
                "rights",
                f"The user in {setting} may not run {refused['command']} on {refused['database']}.",
                do="Use a user with more rights: docs/operations.md has what is needed.",
            )
        return problem("database", f"{where} could not run a command: {describe(error)}.")
    if not isinstance(error, PyMongoError | OSError):  # a bad option or name
        return problem("database", f"{where} cannot be connected to: {describe(error)}")
    do = f"Is it running, and is the address in {setting} right as seen from here?"
    return problem("database", f"{where} does not answer: {describe(error)}", do=do)


def describe_address(uri: str) -> str:
    """`The database at HOSTS`."""
    return f"The database at {split_uri(uri)[1]}"


def split_uri(uri: str) -> tuple[str, str]:
    """Scheme and addresses of a connection string: never the user or the password."""
    scheme, _, rest = uri.partition("://")
    if scheme == "mongodb+srv":  # parsing it would ask the DNS
        return scheme, re.split(r"[/?]", rest)[0].rpartition("@")[2]
    nodes = parse_uri(uri, warn=False)["nodelist"]
    return scheme, ",".join(f"{host}:{port}" if port else str(host) for host, port in nodes)


def describe(error: Exception) -> str:
    """The cause in a line, without what the driver adds about its own state."""
    if isinstance(error, OperationFailure):
        return f"refused with {name_error(error)}"
    if isinstance(error, ServerSelectionTimeoutError):
        return re.split(r" \(configured timeouts|, Timeout: ", str(error))[0]
    return str(error).partition(" (configured timeouts")[0]


def granted(privileges: list[dict[str, Any]], database: str, collection: str) -> set[str]:
    """The actions that a user may do to a collection; "" names a database as a whole."""
    actions: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        covers = resource.get("db") in ("", database) and (
            resource.get("collection") in ("", collection)
        )
        if covers or resource.get("anyResource"):
            actions |= set(privilege["actions"])
    return actions


def as_setting(value: object) -> str:
    """A setting's value as it stands in the environment."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={word}" for name, word in value.items())
    return str(value)


def printable(text: str) -> str:
    """What another program wrote, safe for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:60])


def count(number: int, one: str, many: str | None = None) -> str:
    """`3 members`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
