"""Sends a message as signed JSON, in the form of Standard Webhooks (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import ssl
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from jobmon import __version__
from jobmon.download import DeadlineHandler
from jobmon.notify.message import Message

TIMEOUT_S = 10.0  # for the whole attempt, but each connection may take as long


class DeliveryError(Exception):
    """A receiver did not accept a message; the text is the reason, without address and secrets."""


class _RedirectRefusal(HTTPRedirectHandler):
    """Follows no redirect: a message with credentials would go to an address that nobody chose."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def sign(key: bytes, message_id: str, sent_at: int, body: bytes) -> str:
    """The value of `webhook-signature`: an HMAC-SHA256 of `id.timestamp.body`, in Base64."""
    signed = f"{message_id}.{sent_at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def send_webhook(url: str, key: bytes, message: Message) -> None:
    """POST a message; raises DeliveryError unless the answer is 2xx."""
    body, sent_at = message.render_json(), int(time.time())
    address, credentials = _split_credentials(url)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"jobmon/{__version__}",
        "webhook-id": message.id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": sign(key, message.id, sent_at, body),
    }
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    request = Request(address, body, headers, method="POST")  # noqa: S310 - http(s), as checked
    opener = build_opener(DeadlineHandler(time.monotonic() + TIMEOUT_S), _RedirectRefusal)
    try:
        opener.open(request, timeout=TIMEOUT_S).close()
    except HTTPError as error:
        error.close()
        redirected = " (redirects are not followed)" if 300 <= error.code < 400 else ""
        raise DeliveryError(f"it answered HTTP {error.code}{redirected}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise DeliveryError(_describe_failure(error)) from None


def _describe_failure(error: Exception) -> str:
    """Why a receiver could not be reached, without the text of `error`: it can have the address."""
    cause = error.reason if isinstance(error, URLError) else error
    match cause:
        case TimeoutError():
            return f"no answer in {TIMEOUT_S:g} s"
        case ssl.SSLCertVerificationError():
            return "its certificate is not valid"
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return f"not reachable ({type(cause).__name__})"


def _split_credentials(url: str) -> tuple[str, str]:
    """The URL without credentials and fragment; the credentials as `user:password` or empty."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host, fragment="")), unquote(credentials)
