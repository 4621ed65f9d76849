"""The settings of sign-in at an identity provider or by a proxy, checked together."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, validate

from jobmon.settings.mistakes import SettingsError
from jobmon.settings.token_keys import MIN_SECRET_BYTES

DEFAULT_SCOPES = "openid profile email"
parse_header_name = validate.Regexp(
    r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*\Z", error="Not the name of a header, such as X-Forwarded-User."
)
_require_url = validate.URL(schemes={"http", "https"}, require_tld=False)


def parse_issuer(value: str) -> str:
    """The issuer; raises ValidationError for a bad one."""
    _require_url(value)
    if "?" in value or "#" in value:
        raise ValidationError("An issuer has neither a query nor a fragment.")
    return value


def check_scopes(value: str) -> None:
    """Raise ValidationError for scopes without `openid`."""
    if "openid" not in value.split():
        raise ValidationError("The scopes must include openid.")


def check_sign_in(values: Mapping[str, Any]) -> None:
    """Raise SettingsError if only a part of the settings is set, or the client secret is too short.

    Without `jwt_secret_key`, a key that is derived from the client secret signs sessions.
    """
    if not values["oidc_issuer"]:
        for name in ("oidc_client_id", "oidc_client_secret"):
            if values[name]:
                raise SettingsError(f"JOBMON_{name.upper()}: also set JOBMON_OIDC_ISSUER")
        return
    for name in ("oidc_client_id", "oidc_client_secret"):
        if not values[name]:
            raise SettingsError(f"JOBMON_{name.upper()}: required with JOBMON_OIDC_ISSUER")
    is_short = len(values["oidc_client_secret"].encode()) < MIN_SECRET_BYTES
    if is_short and not values["jwt_secret_key"]:
        raise SettingsError(
            f"JOBMON_OIDC_CLIENT_SECRET: shorter than {MIN_SECRET_BYTES} bytes: request a longer "
            "one, or set JOBMON_JWT_SECRET_KEY, which signs sessions"
        )


def check_network(text: str) -> None:
    """Raise ValidationError for a text that is neither an IP address nor a network."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValidationError(
            f"{text!r} is neither an IP address nor a network, such as 10.0.0.0/24."
        ) from None


def check_trusted_header(values: Mapping[str, Any]) -> None:
    """Raise SettingsError if only a part of the settings of the trusted header is set."""
    if not values["trusted_user_header"]:
        for name in ("trusted_groups_header", "trusted_header_from"):
            if values[name]:
                setting = f"JOBMON_{name.upper()}"
                raise SettingsError(f"{setting}: also set JOBMON_TRUSTED_USER_HEADER")
        return
    if not values["trusted_header_from"]:
        raise SettingsError(
            "JOBMON_TRUSTED_USER_HEADER: also set JOBMON_TRUSTED_HEADER_FROM, the addresses of the "
            "proxy: anybody else can send this header"
        )
    if not values["trusted_proxies"]:
        raise SettingsError("JOBMON_TRUSTED_USER_HEADER: also set JOBMON_TRUSTED_PROXIES")
