"""Reads the claims of a token: who the caller is, its times, and whether it is for access."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from jobmon.settings import Settings

# The claims in which issuers put the type of a token, without `_` and `-`.
_TYPE_CLAIMS = ("type", "typ", "tokentype", "tokenuse", "use")


@dataclass(frozen=True)
class Caller:
    """Who sends a request; `permissions` are what their roles grant."""

    subject: str
    roles: tuple[str, ...]
    permissions: frozenset[str]

    @classmethod
    def from_roles(cls, subject: str, roles: Iterable[str], settings: Settings) -> Self:
        """A caller with the permissions that the settings grant to these roles."""
        roles = tuple(roles)
        granted = (settings.role_permissions.get(role, frozenset()) for role in roles)
        return cls(subject, roles, frozenset[str]().union(*granted))


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """What a valid token's claims mean. Times are in seconds since 1970, UTC."""

    id: str  # the token can be revoked by it
    caller: Caller
    issued_at: float  # 0 for a token without `iat`
    begins_at: int
    ends_at: float  # infinite for a token that does not expire

    @classmethod
    def from_claims(cls, claims: dict[str, Any], settings: Settings) -> Self | None:
        """The token with these checked claims; None if it has no subject.

        Raises ValueError, TypeError or OverflowError if a time is no number, or if the subject has
        an unpaired surrogate.
        """
        subject = find_claim(claims, settings.subject_claim)
        if not isinstance(subject, str) or not subject:
            return None
        subject.encode()  # raises UnicodeEncodeError, which is a ValueError
        role_claim = find_claim(claims, settings.role_claim)
        roles = role_claim if isinstance(role_claim, list) else [role_claim]
        names = [role for role in roles if isinstance(role, str)]
        return cls(
            id=token_id(claims),
            caller=Caller.from_roles(subject, names, settings),
            issued_at=float(claims.get("iat", 0)),
            # Whole seconds, as PyJWT reads them.
            begins_at=max(int(claims.get(name, 0)) for name in ("nbf", "iat")),
            ends_at=int(claims["exp"]) if "exp" in claims else math.inf,
        )


def root_claim(path: str) -> str:
    """The claim that a path begins with; the name of a claim may be a URL, which contains dots."""
    return path if "://" in path else path.partition(".")[0]


def find_claim(claims: Any, path: str) -> Any:
    """The value at a path such as `realm_access.roles`, or None; names may contain dots.

    >>> find_claim({"realm_access": {"roles": ["admin"]}}, "realm_access.roles")
    ['admin']
    """
    if not isinstance(claims, dict):
        return None
    if path in claims:
        return claims[path]
    dots = (index for index, character in enumerate(path) if character == ".")
    values = (find_claim(claims.get(path[:dot]), path[dot + 1 :]) for dot in dots)
    return next((value for value in values if value is not None), None)


def put_claim(claims: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path, so that `find_claim` finds it."""
    name = root_claim(path)
    if name == path:
        claims[name] = value
    else:
        put_claim(claims.setdefault(name, {}), path[len(name) + 1 :], value)


def is_refresh_token(claims: dict[str, Any]) -> bool:
    """Whether a token only serves to obtain other tokens, by any claim that has its type."""
    types = [
        str(value).lower()
        for name, value in claims.items()
        if name.lower().replace("_", "").replace("-", "") in _TYPE_CLAIMS
    ]
    return any(word in token_type for token_type in types for word in ("refresh", "offline"))


def token_id(claims: dict[str, Any]) -> str:
    """The id by which a token is revoked: its `jti`, or else a hash of all its claims."""
    if claims["jti"]:  # None in the claims of a token without one
        return str(claims["jti"])
    return "sha256:" + hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()
