"""Reads the person whom a proxy in front of jobmon has signed in and names in a header.

Anybody can send such a header. So it counts only on connections from the addresses in the settings.
Only the proxy may have these addresses, and it must replace a header that its own client sends.
"""

import ipaddress
import logging

from flask import Request

from jobmon.settings import Settings
from jobmon.web.claims import Caller

MAX_NAME_LENGTH = 1_000  # of a person's name, in characters; gunicorn limits the groups

log = logging.getLogger(__name__)


class TrustedHeader:
    """Reads the headers of JOBMON_TRUSTED_USER_HEADER and JOBMON_TRUSTED_GROUPS_HEADER."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._user_header = settings.trusted_user_header or ""
        self._groups_header = settings.trusted_groups_header or ""
        self._is_logged = False  # whether unreadable groups were logged
        self._networks = [ipaddress.ip_network(text) for text in settings.trusted_header_from]

    def is_sent(self, request: Request) -> bool:
        """Whether a request has the header, trusted or not."""
        return self._user_header in request.headers

    def read_caller(self, request: Request) -> Caller | None:
        """The named person with their groups as roles; None if the name is refused.

        A name is refused if it is from an untrusted address, is empty, too long or not plain text,
        or has a comma: a comma joins the values of a header that is sent twice.
        """
        user = _decode(request.headers.get(self._user_header, ""))
        if not user or len(user) > MAX_NAME_LENGTH or "," in user:
            return None
        if not self._is_from_proxy(request):
            return None
        return Caller.from_roles(user, self._read_groups(request), self._settings)

    def _read_groups(self, request: Request) -> list[str]:
        """The person's groups; none, with a warning once, if the header is not plain text."""
        text = _decode(request.headers.get(self._groups_header, "")) if self._groups_header else ""
        if text is None and not self._is_logged:
            self._is_logged = True
            message = "groups are ignored: %s is not plain text in UTF-8"
            log.warning(message, self._groups_header)
        return [name for group in (text or "").split(",") if (name := group.strip())]

    def _is_from_proxy(self, request: Request) -> bool:
        """Whether the connection itself is from a trusted address; its headers do not count."""
        original = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
        try:
            peer = ipaddress.ip_address(original.get("REMOTE_ADDR") or "")
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._networks)


def _decode(value: str) -> str | None:
    """A header's value as text: WSGI has its bytes as Latin-1. None if it is not plain UTF-8."""
    try:
        text = value.encode("latin-1").decode().strip()
    except UnicodeError:
        return None
    return text if text.isprintable() else None
