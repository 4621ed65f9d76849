"""Sessions of people who signed in at an identity provider: their tokens and sealed cookies.

A session has a token, which is checked like any other token, and a cookie with the provider's
tokens, encrypted; the server stores no session. The key that signs and the key that encrypts are
derived from one secret setting.
"""

import base64
import json
import secrets
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jwt
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jobmon.settings import Settings
from jobmon.web.claims import put_claim

KEY_ID = "jobmon-session"  # the `kid` of the tokens of sessions
ENDS_AT = "session_ends_at"  # the claim with the end of the session, in seconds since 1970, UTC
_ALGORITHM = "HS256"
_MAX_UNSEALED_BYTES = 64 * 1_024


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session from sign-in to its end; all its tokens have the same id, and are revoked by it.

    Times are in seconds since 1970, UTC. `refresh_token` and `id_token` are the provider's, and
    `provider_subject` is the person's `sub` at the provider.
    """

    id: str
    began_at: int
    ends_at: int
    renewed_at: float
    provider_subject: str
    refresh_token: str | None
    id_token: str | None

    @classmethod
    def begin(cls, hours: int, **provider_fields: Any) -> "Session":
        """A new session that ends after `hours` at the latest, with the fields of the provider."""
        now = int(time.time())
        ends_at = now + hours * 3_600
        session_id = secrets.token_urlsafe(16)
        return cls(id=session_id, began_at=now, ends_at=ends_at, renewed_at=now, **provider_fields)


class SessionKeys:
    """Signs the tokens of sessions, and seals (encrypts) values that only jobmon may read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        secret = settings.jwt_secret_key or settings.oidc_client_secret or ""
        self._signing_key = _derive_key(secret, "session tokens")
        self._sealing = Fernet(base64.urlsafe_b64encode(_derive_key(secret, "sealed cookies")))

    def issue_token(
        self, session: Session, subject: str, roles: Sequence[str], lifetime_s: float
    ) -> str:
        """A token that expires after `lifetime_s`, but at the end of the session at the latest.

        Its `iat` is the start of the session, so that `jobmon revoke --sub` ends the whole session.
        """
        claims: dict[str, Any] = {
            "iat": session.began_at,
            "exp": min(int(time.time() + lifetime_s), session.ends_at),
            "jti": session.id,
            ENDS_AT: session.ends_at,
        }
        put_claim(claims, self._settings.role_claim, list(roles))
        put_claim(claims, self._settings.subject_claim, subject)
        return jwt.encode(claims, self._signing_key, _ALGORITHM, {"kid": KEY_ID})

    def read_token(self, token: str) -> dict[str, Any]:
        """The claims of a valid token of a session; raises jwt.PyJWTError for any other."""
        options: Any = {"require": ["exp", "iat", "jti", ENDS_AT], "verify_sub": False}
        claims: dict[str, Any] = jwt.decode(
            token,
            self._signing_key,
            [_ALGORITHM],
            options=options,
            leeway=self._settings.jwt_leeway_s,
        )
        return claims

    def seal(self, purpose: str, content: Any) -> str:
        """Encrypt a JSON value as a text that only `unseal` for the same purpose can read."""
        packed = zlib.compress(json.dumps([purpose, content]).encode())
        return self._sealing.encrypt(packed).decode()

    def seal_session(self, session: Session, max_length: int) -> str:
        """Encrypt a session, without its provider's tokens if the text would exceed `max_length`.

        Without the ID token, the provider may ask the person to confirm the sign-out. If the
        refresh token is left out, too, the session ends when its own token expires.
        """
        without_id = replace(session, id_token=None)
        for candidate in (session, without_id, replace(without_id, refresh_token=None)):
            sealed = self.seal("session", asdict(candidate))
            if len(sealed) <= max_length:
                break
        return sealed

    def unseal(self, purpose: str, sealed: str, max_age_s: int | None = None) -> Any:
        """The value that `seal` encrypted for this purpose; None for other or too old texts."""
        try:
            packed = self._sealing.decrypt(sealed.encode(errors="replace"), max_age_s)
        except InvalidToken:
            return None
        unpacking = zlib.decompressobj()
        sealed_for, content = json.loads(unpacking.decompress(packed, _MAX_UNSEALED_BYTES))
        return content if sealed_for == purpose else None

    def unseal_session(self, sealed: str) -> Session | None:
        """The session in a sealed text; None if it has ended, and for any other text."""
        content = self.unseal("session", sealed)
        if content is None or content.get("ends_at", 0) <= time.time():
            return None
        try:
            return Session(**content)
        except TypeError:  # another version of jobmon sealed it, with other fields
            return None


def is_session_token(token: str) -> bool:
    """Whether a token names the key of sessions; its signature is not checked here."""
    try:
        return jwt.get_unverified_header(token).get("kid") == KEY_ID
    except jwt.PyJWTError:
        return False


def _derive_key(secret: str, purpose: str) -> bytes:
    """A key of 32 bytes, which reveals neither the secret nor the key for another purpose."""
    info = f"jobmon {purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
