"""The log: one JSON object a line; on a terminal, lines for people.

Lines of jobmon and of libraries go to standard error through one formatter. A line has
`timestamp` (UTC), `level`, `logger`, `event` and, while a request is served, its `request_id`.
The formatter removes secrets: jobmon's own, texts that look like a token, and passwords in
addresses. It omits the messages of most exceptions, which may quote data. It escapes characters
that change how a line looks (controls, writing direction, invisible ones).
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import orjson
import structlog
from pymongo.errors import PyMongoError
from structlog.typing import EventDict, Processor

from jobmon.redaction.forms import REDACTED, hide_keys_and_urls, hide_tokens
from jobmon.settings import Settings
from jobmon.settings.deprecated import list_warnings
from jobmon.settings.receivers import find_address_secrets
from jobmon.store.failures import describe_error

# In characters: a shorter text is a part of ordinary words, too.
_MIN_SECRET_LENGTH = 6
# Exceptions whose messages describe the program or the machine, and quote no data.
_LOGGED_MESSAGES = (OSError, ImportError, AttributeError, NameError)

# DEL and C1 controls; soft hyphen, Arabic letter mark, Mongolian vowel separator; zero widths,
# directions and line separators; joiners and directions; byte order mark; interlinear marks; tags.
# JSON itself escapes the C0 controls.
_MISLEADING = (
    "\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_ESCAPED_IN_JSON = re.compile(f"[{_MISLEADING}]")
_ESCAPED_ON_TERMINAL = re.compile(f"[\\x00-\\x1f{_MISLEADING}]")
_ESCAPED_IN_STACK = re.compile(f"[\\x00-\\x08\\x0b-\\x1f{_MISLEADING}]")  # keeps line feeds, tabs

_FIRST_KEYS = ("timestamp", "level", "logger", "event")
_PLAIN_TYPES = {str, int, float, bool, type(None)}

# Without this handler, commands that do not call `configure` would print warnings to stderr.
logging.getLogger("jobmon").addHandler(logging.NullHandler())


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    """Log to standard error from `level` on, and hide `secrets`.

    If another program has added handlers to the root logger, its handlers and level do not change.
    In a process with several apps, the secrets of all apps are hidden.

    >>> configure(settings.log_level, find_secrets(settings, queues))
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *_SHARED_PROCESSORS,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_make_handler())
    for formatter in (existing.formatter for existing in root.handlers):
        if isinstance(formatter, LogFormatter):
            formatter.secrets.update(secrets)
            root.setLevel(level)
    # At DEBUG the driver logs commands and replies with all their data.
    logging.getLogger("pymongo").setLevel(logging.INFO)


def _make_handler() -> logging.Handler:
    is_terminal, is_replaced = sys.stderr.isatty(), sys.stderr is not sys.__stderr__
    handler: logging.Handler
    if is_terminal or is_replaced:  # a program may close the file of a replaced sys.stderr
        handler = logging.StreamHandler()
    else:
        handler = _LineHandler(sys.stderr.fileno())
    handler.setFormatter(LogFormatter(is_terminal=is_terminal))
    return handler


def warn_of_deprecated_settings() -> None:
    """Log a warning for each deprecated name of a setting; a service calls it when it starts."""
    for message in list_warnings():
        logging.getLogger("jobmon.settings").warning(message)


def find_secrets(settings: Settings, queues: Sequence[Settings]) -> set[str]:
    """The secrets in the settings of a process and of its queues.

    These are the keys for tokens and webhooks, the client secret, the passwords in connection
    strings, and the parts of notification addresses that may be tokens. Short secrets are left out.
    """
    uris = [settings.mongo_uri, settings.rollup_uri, settings.rate_limit_storage_uri]
    uris += (queue.actor_mongo_uri for queue in (settings, *queues))
    uris += (queue.mongo_uri for queue in queues)
    passwords = [urlsplit(uri).password or "" for uri in uris if uri]
    secrets = {
        settings.jwt_secret_key or "",
        settings.oidc_client_secret or "",
        settings.notify_secret or "",
        *passwords,
        *map(unquote, passwords),
    }
    secrets.update(*(find_address_secrets(receiver.url) for receiver in settings.notify_urls))
    return {secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH}


def log_event(logger: logging.Logger, event: str, fields: Mapping[str, Any]) -> None:
    """Log an event at INFO like structlog, in half of its time: for the line of each request."""
    if not logger.isEnabledFor(logging.INFO):
        return
    record = logging.LogRecord(logger.name, logging.INFO, "", 0, "", (), None)
    # The attributes that structlog gives to the records of its events.
    record.__dict__ |= {
        "msg": {
            "timestamp": datetime.now(UTC).isoformat()[:-6] + "Z",
            "level": "info",
            "logger": logger.name,
            "event": event,
            **fields,
        },
        "_logger": logger,
        "_name": "info",
    }
    logger.handle(record)


class _LineHandler(logging.Handler):
    """Writes each line to a file descriptor with one system call, and without a lock.

    Python lets other threads run during the call. If one of them waited for the lock then, each
    request would cost two more changes of thread. The kernel keeps lines of up to 4 kB whole, of
    other processes, too (PIPE_BUF); longer ones are mixed only if the reader of a pipe is behind.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def createLock(self) -> None:  # noqa: N802 - the name in `logging`
        """Use no lock."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            while line:  # a signal can interrupt the call after a part of a long line
                line = line[os.write(self._descriptor, line) :]
        except Exception:  # noqa: BLE001 - as in the handlers of `logging`
            self.handleError(record)


class LogFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats the records of structlog and of `logging`; hides `secrets`."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.secrets: set[str] = set()
        self._is_terminal = is_terminal
        render: list[Processor] = [
            structlog.processors.JSONRenderer(
                ensure_ascii=False, default=str, separators=(",", ":")
            ),
            _escape_json,
        ]
        if is_terminal:
            console = structlog.dev.ConsoleRenderer(
                exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
            render = [_escape_for_terminal, console]
        super().__init__(
            foreign_pre_chain=_SHARED_PROCESSORS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _add_stack,
                self._hide_secrets,
                *render,
            ],
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        is_event = hasattr(record, "_logger") and not self._is_terminal  # structlog sets `_logger`
        line = self._format_plain(cast(EventDict, record.msg)) if is_event else None
        return super().format(record) if line is None else line

    def _format_plain(self, event: EventDict) -> str | None:
        """The line of an event with plain values, no exception and no secret; None for all others.

        One search of the joined texts takes a third of the time of a search of each.
        """
        if not _PLAIN_TYPES.issuperset(map(type, event.values())) or event.get("exc_info"):
            return None
        texts = "\n".join([value for value in event.values() if type(value) is str])
        if self._hide(texts) != texts:
            return None
        try:
            line = orjson.dumps(_put_first_keys(event)).decode()
        except TypeError:  # half of a surrogate pair, or a number beyond 64 bits
            return None
        return _escape_json(None, "", line)

    def _hide_secrets(self, _: Any, __: str, event: EventDict) -> EventDict:
        """The event without secrets; `_FIRST_KEYS` are in front."""
        hidden: dict[str, Any] = _change_texts(_put_first_keys(event), self._hide)
        return hidden

    def _hide(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        lowered = text.lower()
        return hide_tokens(hide_keys_and_urls(text, lowered), lowered)


def _put_first_keys(event: EventDict) -> EventDict:
    """The event with `_FIRST_KEYS` in front."""
    return {**{name: event[name] for name in _FIRST_KEYS if name in event}, **event}


def _change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with each text in it changed, at any depth; keys do not change."""
    match value:
        case str():
            return change(value)
        case dict():
            return {key: _change_texts(inner, change) for key, inner in value.items()}
        case list() | tuple():
            return [_change_texts(inner, change) for inner in value]
        case _:
            return value


def _escape_json(_: Any, __: str, line: Any) -> str:
    """The same JSON, with misleading characters as `\\u` escapes."""
    return _ESCAPED_IN_JSON.sub(_escape, str(line))


def _escape_for_terminal(_: Any, __: str, event: EventDict) -> EventDict:
    escaped: EventDict = {}
    for name, value in event.items():
        pattern = _ESCAPED_IN_STACK if name == "exception" else _ESCAPED_ON_TERMINAL
        escaped[name] = _change_texts(value, partial(pattern.sub, _escape))
    return escaped


def _escape(character: re.Match[str]) -> str:
    return json.dumps(character.group())[1:-1]


def _add_stack(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by `exception`: the stack, without messages that may quote data."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = "".join(_format_stack(error)).rstrip()
    return event


def _format_stack(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _format_stack(cause)
        yield "\nwhich led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    if isinstance(error, PyMongoError):
        yield describe_error(error)
    elif isinstance(error, _LOGGED_MESSAGES):
        message = str(error).replace("\n", "\n    ")  # so that none looks like a line of the log
        yield f"{type(error).__name__}: {message}"
    else:
        yield type(error).__name__


_SHARED_PROCESSORS: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
