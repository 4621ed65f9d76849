"""The receivers of notifications: JOBMON_NOTIFY_URLS."""

import base64
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from urllib.parse import unquote_plus, urlsplit

from marshmallow import ValidationError

from jobmon.redaction.keys import SecretKeys
from jobmon.settings.name_patterns import matches_any

LEVELS = ("bad", "watch")
WEBHOOK_SCHEMES = ("http", "https")
SIGNING_PREFIX = "whsec_"  # the prefix of Standard Webhooks; the secret follows it in Base64
MIN_SIGNING_BYTES = 24
MAX_RECEIVERS = 20
_MIN_TOKEN_LENGTH = 16
_OPTIONS = ("name", "level", "types", "queues")
_OPTION = re.compile(r"([?&])jobmon_(\w*)=([^&\s]*)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_SECRET_KEYS = SecretKeys()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclass(frozen=True, kw_only=True)
class ReceiverAddress:
    """The address of a receiver, and the notifications to send there.

    `url` is a secret: it may have a token. `name` appears in the log and in metrics. The level
    `bad` means only bad notices. `types` and `queues` are patterns such as `mail.*`; empty for all.
    """

    name: str
    url: str = field(repr=False)
    level: str = "watch"
    types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    @property
    def is_webhook(self) -> bool:
        """Whether this receiver gets signed JSON over HTTP."""
        return urlsplit(self.url).scheme.lower() in WEBHOOK_SCHEMES

    def accepts_queue(self, queue: str) -> bool:
        """Whether this receiver gets the notifications of a queue."""
        return not self.queues or matches_any(queue, self.queues)


def parse_receivers(text: str) -> tuple[ReceiverAddress, ...]:
    """The receivers in a text of addresses that are separated by spaces or line ends.

    Raises ValidationError, with the position of the address: the address itself is a secret.
    """
    parsed = [_parse_address(position, part) for position, part in enumerate(text.split(), start=1)]
    if len(parsed) > MAX_RECEIVERS:
        raise ValidationError(f"More than {MAX_RECEIVERS} addresses.")
    name_counts = Counter(options["name"] for _, options in parsed if "name" in options)
    if duplicates := [name for name, uses in name_counts.items() if uses > 1]:
        raise ValidationError(f"Two addresses have the jobmon_name {duplicates[0]}.")
    used_names = set(name_counts)
    return tuple(_make_receiver(url, options, used_names) for url, options in parsed)


def decode_signing_secret(secret: str) -> bytes:
    """The key of JOBMON_NOTIFY_SECRET: its bytes, or the Base64 after `whsec_`, decoded.

    Raises ValidationError.
    """
    key = secret.encode()
    if secret.startswith(SIGNING_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
        except ValueError:
            raise ValidationError(f"Not Base64 after {SIGNING_PREFIX}.") from None
    if len(key) < MIN_SIGNING_BYTES:
        raise ValidationError(f"Shorter than {MIN_SIGNING_BYTES} bytes.")
    return key


def find_address_secrets(url: str) -> set[str]:
    """The address, and its parts that may be a token or a password."""
    parts = urlsplit(url)
    secret_text = url.partition("://")[2]
    # A token can be in any part of an Apprise address; the host of a webhook is no secret.
    if parts.scheme in WEBHOOK_SCHEMES:
        credentials = parts.netloc.rpartition("@")[0]
        secret_text = credentials + secret_text.removeprefix(parts.netloc)
    words = re.split(r"[/?&=#:@]+", secret_text)
    tokens = {word for word in words if len(word) >= _MIN_TOKEN_LENGTH}
    query = (pair.partition("=") for pair in parts.query.split("&"))
    passwords = [value for name, _, value in query if _SECRET_KEYS.includes(name)]
    passwords.append(parts.password or "")
    return {url, *tokens, *passwords, *map(unquote_plus, passwords)} - {""}


def _parse_address(position: int, address: str) -> tuple[str, Mapping[str, str]]:
    """The address without jobmon's own options, and these options."""
    options = {name: unquote_plus(value) for _, name, value in _OPTION.findall(address)}
    if unknown := options.keys() - set(_OPTIONS):
        known = ", ".join(f"jobmon_{name}" for name in _OPTIONS)
        raise ValidationError(
            f"Address {position}: unknown option jobmon_{min(unknown)}. Known: {known}."
        )
    if options.get("level", "watch") not in LEVELS:
        raise ValidationError(f"Address {position}: jobmon_level is {' or '.join(LEVELS)}.")
    if "name" in options and not _NAME.fullmatch(options["name"]):
        raise ValidationError(
            f"Address {position}: jobmon_name has up to 60 letters, digits, '_', '.' and '-', "
            "first a letter or a digit."
        )
    url = _OPTION.sub(lambda match: "?" if match[1] == "?" else "", address)
    url = url.replace("?&", "?").removesuffix("?")
    try:
        is_address = bool(_SCHEME.match(url) and (urlsplit(url).netloc or urlsplit(url).path))
    except ValueError:
        is_address = False
    if not is_address:
        raise ValidationError(f"Address {position}: not of the form https://… or SERVICE://….")
    return url, options


def _make_receiver(url: str, options: Mapping[str, str], used_names: set[str]) -> ReceiverAddress:
    """A receiver; without a name in its options, its name is new, and is added to `used_names`."""
    # A default name has only the scheme: `/readyz` shows it to anybody, and a host may be a token.
    scheme = urlsplit(url).scheme.lower()
    default = "webhook" if scheme in WEBHOOK_SCHEMES else re.sub(r"[^a-z0-9]", "-", scheme)[:50]
    names = chain([default], (f"{default}-{suffix}" for suffix in count(2)))
    name = options.get("name") or next(name for name in names if name not in used_names)
    used_names.add(name)
    return ReceiverAddress(
        name=name,
        url=url,
        level=options.get("level", "watch"),
        types=_split(options.get("types", "")),
        queues=_split(options.get("queues", "")),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))
