"""The permissions of roles: JOBMON_ROLE_PERMISSIONS.

    ops=ADMIN_DASHBOARD,on-call=ADMIN_DASHBOARD+JOBS_RETRY
    {"CN=ops,OU=groups": ["ADMIN_DASHBOARD", "JOBS_RETRY"]}

The second form, JSON, is for names of roles that have a comma or an equals sign.
"""

import json
from collections.abc import Mapping
from typing import Any

from environs import Env
from marshmallow import ValidationError

from jobmon.settings.actions import ACTION_PERMISSIONS
from jobmon.settings.mapping import read_pairs

ADMIN_DASHBOARD = "ADMIN_DASHBOARD"
DEFAULT_ROLES = {"admin": frozenset({ADMIN_DASHBOARD})}

RolePermissions = dict[str, frozenset[str]]


def read_role_permissions(env: Env, name: str) -> RolePermissions:
    """The permissions by role; `load_queues` checks them if a file of queues defines more names."""
    has_queues_file = bool(env.str("QUEUES", None))

    def check(permissions: RolePermissions) -> None:
        known = {ADMIN_DASHBOARD, *ACTION_PERMISSIONS}
        if frozenset().union(*permissions.values()) - known and not has_queues_file:
            names = ", ".join((ADMIN_DASHBOARD, *ACTION_PERMISSIONS))
            raise ValidationError(f"Permissions are {names}.")

    if (env.str(name, None) or "").lstrip().startswith("{"):
        configured: RolePermissions = {}

        def parse(text: str) -> None:
            configured.update(_parse_json(text))
            check(configured)

        env.str(name, validate=parse)
    else:
        pairs = read_pairs(env, name, lambda value: check(_split_permissions(value)))
        configured = _split_permissions(pairs)
    return DEFAULT_ROLES | configured


def _split_permissions(pairs: Mapping[str, str]) -> RolePermissions:
    return {role: frozenset(map(str.strip, granted.split("+"))) for role, granted in pairs.items()}


def _parse_json(text: str) -> RolePermissions:
    """The permissions by role in a JSON object; raises ValidationError."""
    try:
        value: dict[str, Any] = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except ValueError as error:
        position = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValidationError(f"Not JSON{position}.") from None
    for role, granted in value.items():
        if not (isinstance(granted, list) and all(isinstance(name, str) for name in granted)):
            raise ValidationError(
                f'{role}: not a list of permissions, such as ["ADMIN_DASHBOARD"].'
            )
    return {role: frozenset(granted) for role, granted in value.items()}


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValidationError(f"Given more than once: {', '.join(duplicates)}.")
    return dict(pairs)
