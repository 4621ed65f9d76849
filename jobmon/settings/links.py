"""Links from a job to other systems: address templates with fields, filled in for each job.

JOBMON_LINKS='Logs=https://logs.example/?q={jobId},Trace=https://trace.example/{payload.traceId}'
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from marshmallow import ValidationError

from jobmon.redaction.forms import REDACTED
from jobmon.redaction.keys import SecretKeys
from jobmon.settings.readers import parse_pairs

MAX_LINKS = 10
MAX_NAME_LENGTH = 40
MAX_TEMPLATE_LENGTH = 2_000
MAX_VALUE_LENGTH = 500  # in characters
LINK_FIELDS = ("jobId", "id", "type", "owner", "worker", "queue", "environment")
PAYLOAD = "payload."

_FIELD = re.compile(r"\{([^{}]*)\}")
_PAYLOAD_FIELD = re.compile(r"payload(?:\.[^.\s\0]{1,100}){1,10}")
_HOST = re.compile(r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9!#$%&'()*+,./:;=?@\[\]_~-]+")
# A comma belongs to an address, unless the name and the scheme of another link follow it.
_SEPARATOR = re.compile(r",(?=[^=,{}/?#&]*=\s*[A-Za-z][A-Za-z0-9+.-]*:)")


class NoLinkError(ValueError):
    """A link has no address for this job; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class LinkTemplate:
    """A link's name, and its address with fields in braces: `https://logs.example/?q={jobId}`."""

    name: str
    template: str

    @property
    def fields(self) -> list[str]:
        """The names of the fields, such as `jobId` and `payload.traceId`."""
        return _FIELD.findall(self.template)

    def fill(self, get_value: Callable[[str], Any]) -> str:
        """The address with the JSON value that `get_value` returns for each field.

        Each value is percent-encoded, so it cannot change the other parts of the address. Raises
        NoLinkError if a value is not usable in an address.
        """
        address = _FIELD.sub(lambda match: _encode(match[1], get_value(match[1])), self.template)
        if _has_dot_segment(address):
            raise NoLinkError("a value with . or .. would lead to another path")
        return address


def parse_links(text: str) -> tuple[LinkTemplate, ...]:
    """The links in a text `NAME=ADDRESS,NAME=ADDRESS`. Raises ValidationError."""
    return make_links(parse_pairs(_SEPARATOR.split(text)))


def make_links(templates: Mapping[str, str]) -> tuple[LinkTemplate, ...]:
    """The links with these templates by name. Raises ValidationError."""
    if len(templates) > MAX_LINKS:
        raise ValidationError(f"More than {MAX_LINKS} links.")
    for name, template in templates.items():
        if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise ValidationError(
                f"The name of a link has 1 to {MAX_NAME_LENGTH} printable characters."
            )
        if (fault := _find_fault(template)) is not None:
            raise ValidationError(f"{name}: {fault}")
    return tuple(LinkTemplate(name=name, template=text) for name, text in templates.items())


def check_hidden_fields(links: Iterable[LinkTemplate], redact_keys: Iterable[str]) -> None:
    """Raise ValidationError for a link with a field that redaction hides."""
    links = [link for link in links if PAYLOAD in link.template]
    keys = SecretKeys(redact_keys if links else ())
    for link in links:
        for field in link.fields:
            if field.startswith(PAYLOAD) and keys.find_secret_part(field) is not None:
                raise ValidationError(
                    f"{link.name}: redaction hides the values of {field} (JOBMON_REDACT_KEYS)."
                )


def _find_fault(template: str) -> str | None:
    """The fault of a template; None if it has none."""
    if len(template) > MAX_TEMPLATE_LENGTH:
        return f"Longer than {MAX_TEMPLATE_LENGTH:,} characters."
    if (fault := _find_field_fault(template)) is not None:
        return fault
    sample = _FIELD.sub("x", template)
    if not _URL_CHARACTERS.fullmatch(sample):
        return "Only letters A to Z, digits and the signs of URLs: percent-encode other characters."
    try:
        scheme, host = urlsplit(template)[:2]
    except ValueError:
        return "Not an address."
    if scheme not in ("http", "https") or template[len(scheme) :][:3] != "://":
        return "Not an address that begins with https:// or http://."
    if "@" in host:
        return "An address with a user is not allowed."
    if "{" in host:
        return "A field can be in the path, in the query or after #, but not in the host."
    if not _HOST.fullmatch(host):
        return "Not an address with a host."
    if _has_dot_segment(sample):
        return "The path of an address has no . or .. parts."
    return None


def _find_field_fault(template: str) -> str | None:
    for name in _FIELD.findall(template):
        if name not in LINK_FIELDS and not _PAYLOAD_FIELD.fullmatch(name):
            known = ", ".join(LINK_FIELDS)
            return f"Unknown field {{{name}}}. Known: {known}, and payload with a path."
    return None


def _encode(field: str, value: Any) -> str:
    """The percent-encoded value. Raises NoLinkError if it is not usable in an address."""
    match value:
        case None:
            raise NoLinkError(f"{field} has no value")
        case dict() | list():
            type_name = "an array" if isinstance(value, list) else "an object"
            raise NoLinkError(f"{field} is {type_name}, not a single value")
        case str():
            text = value
        case _:
            text = json.dumps(value)
    if REDACTED in text:
        raise NoLinkError(f"redaction hides {field}")
    if not text:
        raise NoLinkError(f"{field} is empty")
    if len(text) > MAX_VALUE_LENGTH:
        raise NoLinkError(f"{field} has more than {MAX_VALUE_LENGTH} characters")
    if not text.isprintable():
        raise NoLinkError(f"{field} has unprintable characters")
    return quote(text, safe="")


def _has_dot_segment(address: str) -> bool:
    """Whether the path has a part `.` or `..`, which browsers and servers would resolve."""
    path = unquote(urlsplit(address).path)
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", path))
