"""The keys that check tokens: their source and their algorithm."""

from collections.abc import Mapping
from typing import Any

from environs import Env
from marshmallow import ValidationError, validate

from jobmon.settings.mistakes import SettingsError

SHARED_SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
MIN_SECRET_BYTES = 32
KEY_SOURCES = ("jwt_secret_key", "jwt_public_key", "jwt_jwks_url")


def check_secret_length(value: str) -> None:
    """Raise ValidationError for a secret that is too short."""
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValidationError(f"Shorter than {MIN_SECRET_BYTES} bytes.")


def read_algorithm(env: Env, name: str, _: str) -> str | None:
    """The algorithm; None if none is set, because the default depends on the source of keys."""
    return env.str(
        name, None, validate=validate.OneOf(SHARED_SECRET_ALGORITHMS + PUBLIC_KEY_ALGORITHMS)
    )


def parse_pem(value: str) -> str:
    """A PEM key; its line ends can be written as `\\n`, as many tools require."""
    return value.replace("\\n", "\n")


def choose_algorithm(values: Mapping[str, Any]) -> dict[str, str]:
    """The `jwt_algorithm`, by the source of keys.

    Raises SettingsError unless exactly one source is set, and its keys work with the algorithm.
    """
    sources = [name for name in KEY_SOURCES if values[name]]
    if len(sources) != 1:
        names = ", ".join(f"JOBMON_{name.upper()}" for name in KEY_SOURCES)
        raise SettingsError(f"Set exactly one of {names} ({len(sources)} are set)")
    allowed = SHARED_SECRET_ALGORITHMS if values["jwt_secret_key"] else PUBLIC_KEY_ALGORITHMS
    algorithm = values["jwt_algorithm"] or allowed[0]
    if algorithm not in allowed:
        raise SettingsError(
            f"JOBMON_JWT_ALGORITHM: {algorithm} cannot be used with JOBMON_{sources[0].upper()}; "
            f"use one of {', '.join(allowed)}"
        )
    if values["jwt_public_key"]:
        import jwt  # noqa: PLC0415 - large, and only the web service needs it

        try:
            verifier = jwt.get_algorithm_by_name(algorithm)
            is_too_short = verifier.check_key_length(verifier.prepare_key(values["jwt_public_key"]))
        except (jwt.InvalidKeyError, TypeError, ValueError):
            raise SettingsError(
                f"JOBMON_JWT_PUBLIC_KEY: not a public key in PEM form for {algorithm}"
            ) from None
        if is_too_short:
            raise SettingsError(f"JOBMON_JWT_PUBLIC_KEY: too short for {algorithm}")
    return {"jwt_algorithm": algorithm}
