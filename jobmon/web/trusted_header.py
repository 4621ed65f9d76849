"""Reads the person whom a proxy in front of jobmon has signed in and names in a header.

Anybody can send such a header. So it counts only on connections from the addresses in the settings.
Only the proxy may have these addresses, and it must replace a header that its own client sends.
"""

import ipaddress

from flask import Request

from jobmon.settings import Settings
from jobmon.web.claims import Caller

MAX_HEADER_LENGTH = 1_000  # of a header's value, in characters


class TrustedHeader:
    """Reads the headers of JOBMON_TRUSTED_USER_HEADER and JOBMON_TRUSTED_GROUPS_HEADER."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._user = settings.trusted_user_header or ""
        self._groups = settings.trusted_groups_header
        self._networks = [ipaddress.ip_network(text) for text in settings.trusted_header_from]

    def is_sent(self, request: Request) -> bool:
        """Whether a request has the header, trusted or not."""
        return self._user in request.headers

    def read_caller(self, request: Request) -> Caller | None:
        """The named person with their groups as roles; None if the name is refused.

        A name is refused if it is from an untrusted address, is empty, too long or not plain text,
        or has a comma: a comma joins the values of a header that is sent twice.
        """
        user = _decode(request.headers.get(self._user, ""))
        if not user or "," in user or not self._is_from_proxy(request):
            return None
        groups_text = _decode(request.headers.get(self._groups, "")) if self._groups else ""
        groups = [name for group in groups_text.split(",") if (name := group.strip())]
        return Caller.from_roles(user, groups, self._settings)

    def _is_from_proxy(self, request: Request) -> bool:
        """Whether the connection itself is from a trusted address; its headers do not count."""
        original = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
        try:
            peer = ipaddress.ip_address(original.get("REMOTE_ADDR") or "")
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._networks)


def _decode(value: str) -> str:
    """A header's value as text: WSGI has its bytes as Latin-1. Empty if not plain or too long."""
    try:
        text = value.encode("latin-1").decode().strip()
    except UnicodeError:
        return ""
    return text if text.isprintable() and len(text) <= MAX_HEADER_LENGTH else ""
