"""The settings of sign-in at an identity provider (OpenID Connect), checked together."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, validate

from jobmon.settings.mistakes import SettingsError
from jobmon.settings.token_keys import MIN_SECRET_BYTES

DEFAULT_SCOPES = "openid profile email"
_is_url = validate.URL(schemes={"http", "https"}, require_tld=False)


def check_issuer(value: str) -> None:
    """Raise ValidationError for a text that is no issuer; an empty one counts as not set."""
    if value:
        _is_url(value)
        if "?" in value or "#" in value:
            raise ValidationError("An issuer has neither a query nor a fragment.")


def check_scopes(value: str) -> None:
    """Raise ValidationError for scopes without `openid`."""
    if "openid" not in value.split():
        raise ValidationError("The scopes must include openid.")


def check_sign_in(values: Mapping[str, Any]) -> None:
    """Raise SettingsError if only a part of the settings is set.

    Without `jwt_secret_key`, sessions are signed with a key that is derived from the client secret.
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
