"""Checks whether the identity providers in the settings answer with the data that jobmon needs."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from jobmon.download import FAILURES, download
from jobmon.humanize import count
from jobmon.settings import Settings
from jobmon.settings.token_keys import PUBLIC_KEY_ALGORITHMS
from jobmon.setup.findings import Finding, ok, problem, warning
from jobmon.web.jwks import parse_keys

CHECK = "sign-in"
TIMEOUT_S = 5.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_sign_in(settings: Settings) -> Iterator[Finding]:
    """Check JOBMON_JWT_JWKS_URL and JOBMON_OIDC_ISSUER, if they are set."""
    if settings.jwt_jwks_url:
        yield from _warn_of_http("JOBMON_JWT_JWKS_URL", settings.jwt_jwks_url)
        yield _check_keys(settings.jwt_jwks_url, settings.jwt_algorithm, "JOBMON_JWT_JWKS_URL")
    if settings.oidc_issuer:
        yield from _warn_of_http("JOBMON_OIDC_ISSUER", settings.oidc_issuer)
        yield from _check_issuer(settings, settings.oidc_issuer)


def _warn_of_http(setting: str, url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        message = f"{setting} is not https: an attacker in the network can sign in as anybody."
        yield warning(CHECK, message, remedy="Use the https address.")


def _check_keys(url: str, algorithm: str, setting: str) -> Finding:
    try:
        keys = parse_keys(json.loads(download(url, time.monotonic() + TIMEOUT_S)), algorithm)
    except FAILURES as error:
        remedy = f"Is the address in {setting} correct, and reachable from this machine?"
        return problem(CHECK, f"{url} returned no keys: {_describe(error)}.", remedy=remedy)
    if not keys:
        remedy = "Set JOBMON_JWT_ALGORITHM to the algorithm with which the provider signs."
        return problem(CHECK, f"{url} has no key for {algorithm}.", remedy=remedy)
    return ok(CHECK, f"{url} has {count(len(keys), 'key')} for {algorithm}.")


def _check_issuer(settings: Settings, issuer: str) -> Iterator[Finding]:
    try:
        from jobmon.web.oidc_protocol import (  # noqa: PLC0415 - Authlib is an extra
            DiscoveryError,
            read_discovery,
        )
    except ModuleNotFoundError as error:
        message = f"JOBMON_OIDC_ISSUER needs the package {error.name}: the service does not start."
        yield problem(CHECK, message, commands=("pip install 'mongo-jobmon[oidc]'",))
        return
    try:
        document = read_discovery(issuer)
    except DiscoveryError as error:
        message = f"The identity provider {issuer} cannot be used: {error}."
        yield problem(CHECK, message, remedy="Correct JOBMON_OIDC_ISSUER.")
        return
    except FAILURES as error:
        message = f"The identity provider {issuer} does not answer: {_describe(error)}."
        remedy = "Is JOBMON_OIDC_ISSUER correct, and reachable from this machine?"
        yield problem(CHECK, message, remedy=remedy)
        return
    mistakes = list(_check_document(settings, document))
    yield from mistakes
    if not mistakes:
        address = settings.public_url or f"https://YOUR-HOST{settings.path_prefix or ''}"
        yield ok(
            CHECK,
            f"The identity provider {issuer} answers. It must know the redirect URI "
            f"{address}/dashboard/oidc/callback.",
        )


def _check_document(settings: Settings, document: dict[str, Any]) -> Iterator[Finding]:
    """The mistakes in a discovery document; `read_discovery` checked its issuer and addresses."""
    offered = document.get("id_token_signing_alg_values_supported") or ["RS256"]
    usable = [name for name in offered if name in PUBLIC_KEY_ALGORITHMS]
    if not usable:
        remedy = "Let it sign jobmon's ID tokens with a private key, for instance with RS256."
        names = ", ".join(map(str, offered))
        yield problem(CHECK, f"The provider signs ID tokens only with {names}.", remedy=remedy)
    else:
        keys = [_check_keys(document["jwks_uri"], name, "JOBMON_OIDC_ISSUER") for name in usable]
        if all(finding.level != "ok" for finding in keys):
            yield keys[0]
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        yield warning(CHECK, "The provider does not list PKCE by S256, which jobmon always uses.")
    scopes = document.get("scopes_supported")
    missing = set(settings.oidc_scopes.split()) - set(scopes if isinstance(scopes, list) else ())
    if isinstance(scopes, list) and missing:
        names = ", ".join(sorted(missing))
        message = f"The provider does not list the scopes {names} of JOBMON_OIDC_SCOPES."
        yield warning(CHECK, message, remedy="Remove them if it refuses the sign-in.")


def _describe(error: Exception) -> str:
    """The reason why a download failed, without the address."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)[:200]
