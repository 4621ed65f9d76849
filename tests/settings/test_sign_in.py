"""Settings for sign-in at an identity provider: catches incomplete settings that are accepted."""

from typing import Any

import pytest

from jobmon.settings import Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"
REQUIRED = {
    "MONGO_URI": "mongodb://db/shop",
    "JWT_SECRET_KEY": SECRET,
    "OIDC_ISSUER": "https://id.example/realms/a",
    "OIDC_CLIENT_ID": "jobmon",
    "OIDC_CLIENT_SECRET": "hidden",
}


@pytest.fixture
def read_env(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that reads the `REQUIRED` variables and further ones (without `JOBMON_`)."""

    def read_env(**environment: str) -> Settings:
        required = dict(REQUIRED)
        if "JWT_JWKS_URL" in environment:  # another source of keys
            del required["JWT_SECRET_KEY"]
        for name, value in (required | environment).items():
            monkeypatch.setenv(f"JOBMON_{name}", value)
        return Settings.from_env()

    return read_env


def test_issuer_client_and_secret_are_enough_for_sign_in(read_env: Any) -> None:
    settings = read_env()
    assert settings.oidc_issuer == "https://id.example/realms/a"
    assert (settings.oidc_client_id, settings.oidc_client_secret) == ("jobmon", "hidden")
    assert settings.oidc_scopes == "openid profile email"
    assert settings.oidc_session_hours == 12
    assert "hidden" not in repr(settings)


def test_empty_settings_count_as_not_set(read_env: Any) -> None:
    settings = read_env(OIDC_ISSUER="", OIDC_CLIENT_ID="", OIDC_CLIENT_SECRET="")
    assert settings.oidc_issuer is settings.oidc_client_id is settings.oidc_client_secret is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OIDC_CLIENT_ID": ""}, "JOBMON_OIDC_CLIENT_ID: required with JOBMON_OIDC_ISSUER"),
        ({"OIDC_CLIENT_SECRET": ""}, "JOBMON_OIDC_CLIENT_SECRET: required with"),
        ({"OIDC_ISSUER": ""}, "JOBMON_OIDC_CLIENT_ID: also set JOBMON_OIDC_ISSUER"),
        ({"OIDC_ISSUER": "id.example"}, "JOBMON_OIDC_ISSUER: "),
        ({"OIDC_ISSUER": "ftp://id.example"}, "JOBMON_OIDC_ISSUER: "),
        ({"OIDC_ISSUER": "https://id.example/?a=b"}, "JOBMON_OIDC_ISSUER: "),
        ({"OIDC_SCOPES": "profile"}, "JOBMON_OIDC_SCOPES: The scopes must include openid."),
        ({"OIDC_SESSION_HOURS": "0"}, "JOBMON_OIDC_SESSION_HOURS: "),
        ({"OIDC_SESSION_HOURS": "721"}, "JOBMON_OIDC_SESSION_HOURS: "),
        (
            {"JWT_JWKS_URL": "https://id.example/keys"},
            "JOBMON_OIDC_CLIENT_SECRET: shorter than 32 bytes",
        ),
    ],
)
def test_incomplete_settings_are_refused_by_name(
    read_env: Any, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_env(**environment)
    assert str(caught.value).startswith(message)
    assert "hidden" not in str(caught.value)


def test_long_client_secret_is_enough_to_sign_sessions(read_env: Any) -> None:
    settings = read_env(JWT_JWKS_URL="https://id.example/keys", OIDC_CLIENT_SECRET=SECRET)
    assert (settings.jwt_secret_key, settings.oidc_client_secret) == (None, SECRET)
