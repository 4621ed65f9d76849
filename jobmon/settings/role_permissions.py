"""The permissions of roles: JOBMON_ROLE_PERMISSIONS.

    ops=ADMIN_DASHBOARD,on-call=ADMIN_DASHBOARD+JOBS_RETRY
    {"CN=ops,OU=groups": ["ADMIN_DASHBOARD", "JOBS_RETRY"]}

The second form, JSON, is for names of roles that have a comma or an equals sign.
"""

import json
from typing import Any

from environs import Env
from marshmallow import ValidationError

from jobmon.settings.actions import ACTION_PERMISSIONS
from jobmon.settings.readers import parse_pairs, read_text, refuse_duplicates

ADMIN_DASHBOARD = "ADMIN_DASHBOARD"
DEFAULT_ROLES = {"admin": frozenset({ADMIN_DASHBOARD})}

RolePermissions = dict[str, frozenset[str]]


def read_role_permissions(env: Env, name: str) -> RolePermissions:
    """The permissions by role; `load_queues` checks them if a file of queues defines more names."""
    has_queues_file = bool(env.str("QUEUES", None))

    def parse(text: str) -> RolePermissions:
        permissions = (_parse_json if text.lstrip().startswith("{") else _parse_pairs)(text)
        known = (ADMIN_DASHBOARD, *ACTION_PERMISSIONS)
        if frozenset().union(*permissions.values()) - set(known) and not has_queues_file:
            raise ValidationError(f"Permissions are {', '.join(known)}.")
        return permissions

    configured: RolePermissions = read_text(env, name, {}, parse=parse)
    return DEFAULT_ROLES | configured


def _parse_pairs(text: str) -> RolePermissions:
    pairs = parse_pairs(text.split(","))
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
    refuse_duplicates(name for name, _ in pairs)
    return dict(pairs)
