"""The claims of a token: where subject and roles are, and which tokens are for access."""

import hashlib
import json
from typing import Any

# The claims in which issuers put the type of a token, without `_` and `-`.
_TYPE_CLAIMS = ("type", "typ", "tokentype", "tokenuse", "use")


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
    found = (find_claim(claims.get(path[:dot]), path[dot + 1 :]) for dot in dots)
    return next((value for value in found if value is not None), None)


def put_claim(claims: dict[str, Any], path: str, value: Any) -> None:
    """Set the value that `find_claim` finds at a path."""
    name = root_claim(path)
    if name == path:
        claims[name] = value
    else:
        put_claim(claims.setdefault(name, {}), path[len(name) + 1 :], value)


def is_refresh_token(claims: dict[str, Any]) -> bool:
    """Whether a token only serves to obtain others; issuers differ in the claim for its type."""
    types = [
        str(value).lower()
        for name, value in claims.items()
        if name.lower().replace("_", "").replace("-", "") in _TYPE_CLAIMS
    ]
    return any(word in name for name in types for word in ("refresh", "offline"))


def token_id(claims: dict[str, Any]) -> str:
    """The id by which a token is revoked: its `jti`, or else a hash of all its claims."""
    if claims["jti"]:
        return str(claims["jti"])
    return "sha256:" + hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()
