"""Tokens and sealed cookies of sessions: catches a value that is accepted although it was forged or
is for another purpose, and a cookie that is too large for a browser."""

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web import sessions as sessions_module
from jobmon.web.sessions import Session, SessionKeys, is_session_token
from jobmon.web.token_commands import _read_token

from ..conftest import SECRET, Api
from .test_auth import EC_KEY, KEY, STATS, Provider, make_provider_token, read_outcome, to_pem

MakeSettings = Callable[..., Settings]
OIDC = {
    "oidc_issuer": "https://id.example",
    "oidc_client_id": "jobmon",
    "oidc_client_secret": "a client secret of thirty-two bytes",
}


@pytest.fixture
def keys(make_settings: MakeSettings) -> SessionKeys:
    return SessionKeys(make_settings(**OIDC))


def begin_session(**fields: Any) -> Session:
    defaults = {"provider_subject": "7", "refresh_token": "refresh", "id_token": "id"}
    return Session.begin(12, **defaults | fields)


def test_token_has_subject_and_roles_at_the_paths_of_the_settings(
    make_settings: MakeSettings,
) -> None:
    paths = {"role_claim": "realm_access.roles", "subject_claim": "https://id.example/user"}
    keys = SessionKeys(make_settings(**OIDC, **paths))
    session = begin_session()
    claims = keys.read_token(keys.issue_token(session, "ada", ["admin", "ops"], 300))
    assert claims["realm_access"] == {"roles": ["admin", "ops"]}
    assert claims["https://id.example/user"] == "ada"
    assert (claims["jti"], claims["iat"]) == (session.id, session.began_at)
    assert claims["session_ends_at"] == session.ends_at == session.began_at + 12 * 3_600


def test_token_never_outlives_its_session(keys: SessionKeys) -> None:
    session = begin_session()
    assert keys.read_token(keys.issue_token(session, "a", [], 10**9))["exp"] == session.ends_at


def test_forged_or_incomplete_token_is_refused(
    keys: SessionKeys, make_settings: MakeSettings
) -> None:
    now = int(time.time())
    claims = {"iat": now, "exp": now + 60, "jti": "x", "session_ends_at": now + 60, "sub": "root"}
    header = {"kid": sessions_module.KEY_ID}
    for key, algorithm in ((SECRET, "HS256"), (None, "none"), (KEY, "RS256")):
        forged = jwt.encode(claims, key, algorithm, header)
        assert is_session_token(forged)
        with pytest.raises(jwt.PyJWTError):
            keys.read_token(forged)
    other_keys = SessionKeys(make_settings(**OIDC, jwt_secret_key=SECRET[::-1]))
    with pytest.raises(jwt.InvalidSignatureError):
        keys.read_token(other_keys.issue_token(begin_session(), "root", ["admin"], 60))
    for name in claims.keys() - {"sub"}:
        incomplete = {key: value for key, value in claims.items() if key != name}
        with pytest.raises(jwt.MissingRequiredClaimError):
            keys.read_token(jwt.encode(incomplete, keys._signing_key, "HS256", header))


def test_sealed_text_can_be_unsealed_only_for_its_purpose(
    keys: SessionKeys, make_settings: MakeSettings
) -> None:
    sealed = keys.seal("flow", {"state": "x"})
    assert keys.unseal("flow", sealed) == {"state": "x"}
    assert keys.unseal("session", sealed) is None
    assert keys.unseal_session(sealed) is None
    other_keys = SessionKeys(make_settings(**OIDC, jwt_secret_key=SECRET[::-1]))
    sealed_with_other_keys = other_keys.seal("flow", {})
    for text in (sealed[:-4] + "AAAA", sealed[:40], "", "é", "a.b.c", sealed_with_other_keys):
        assert keys.unseal("flow", text) is None, text
    assert keys.unseal("flow", sealed, max_age_s=-1) is None


def test_sealed_session_can_be_unsealed_until_it_ends(keys: SessionKeys) -> None:
    session = begin_session()
    assert keys.unseal_session(keys.seal_session(session, 4_000)) == session
    ended = replace(session, ends_at=int(time.time()) - 1)
    assert keys.unseal_session(keys.seal_session(ended, 4_000)) is None
    incomplete = keys.seal("session", {"id": "x", "ends_at": session.ends_at})
    assert keys.unseal_session(incomplete) is None


def test_sealed_session_leaves_out_tokens_that_are_too_long(keys: SessionKeys) -> None:
    long_token = secrets.token_urlsafe(4_000)
    for fields, expected in (
        ({"id_token": long_token}, ("refresh", None)),
        ({"id_token": long_token, "refresh_token": long_token}, (None, None)),
        ({"refresh_token": long_token}, (None, None)),
    ):
        sealed = keys.seal_session(begin_session(**fields), 4_000)
        assert len(sealed) <= 4_000
        session = keys.unseal_session(sealed)
        assert session is not None
        assert (session.refresh_token, session.id_token) == expected, fields


@pytest.fixture
def provider() -> Any:
    with Provider.listening() as provider:
        yield provider


def test_session_is_accepted_whatever_keys_check_other_tokens(
    watched: Any, make_settings: MakeSettings, provider: Provider
) -> None:
    """Catches a session's token that is checked with the keys of other tokens."""
    for settings in (
        {},
        {"jwt_secret_key": None, "jwt_public_key": to_pem(EC_KEY), "jwt_algorithm": "ES256"},
        {"jwt_issuer": "https://another.example", "jwt_audience": "another"},
        {"jwt_secret_key": None, "jwt_jwks_url": provider.url, "jwt_algorithm": "RS256"},
    ):
        api = Api(create_app(make_settings(**OIDC, **settings), watched.client))
        keys: SessionKeys = api.app.extensions["jobmon_session_keys"]
        token = keys.issue_token(begin_session(), "root", ["admin"], 300)
        assert [read_outcome(api, token) for _ in range(2)] == [200, 200], settings
        without_role = keys.issue_token(begin_session(), "root", [], 300)
        assert read_outcome(api, without_role) == "permission_denied"
        expired = keys.issue_token(begin_session(), "root", ["admin"], -60)
        assert read_outcome(api, expired) == "token_expired"
    # The last settings name the keys of a provider, but a session's token needs none of them.
    provider.is_broken = True
    assert read_outcome(api, token) == 200


def test_session_token_needs_a_provider_in_the_settings_and_the_key_of_sessions(
    watched: Any, make_settings: MakeSettings, keys: SessionKeys, provider: Provider
) -> None:
    api = Api(create_app(make_settings(), watched.client))
    token = keys.issue_token(begin_session(), "root", ["admin"], 300)
    assert read_outcome(api, token) == "token_invalid"
    settings = {"jwt_secret_key": None, "jwt_jwks_url": provider.url, "jwt_algorithm": "RS256"}
    api = Api(create_app(make_settings(**OIDC, **settings), watched.client))
    # The token names the key of sessions, but the provider signed it.
    assert read_outcome(api, make_provider_token(sessions_module.KEY_ID), STATS) == "token_invalid"


def test_revocation_of_a_token_lasts_until_an_hour_after_its_session(
    watched: Any, make_settings: MakeSettings
) -> None:
    """Catches a revocation that is deleted while the session can still be renewed."""
    api = Api(create_app(make_settings(**OIDC), watched.client))
    session = begin_session()
    with api.app.test_request_context():
        keys: SessionKeys = api.app.extensions["jobmon_session_keys"]
        revoked = _read_token(keys.issue_token(session, "ada", [], 60))
    assert revoked == (session.id, datetime.fromtimestamp(session.ends_at + 3_600, UTC))
