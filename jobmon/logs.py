"""How jobmon logs: one JSON object a line, or readable lines where a terminal reads them.

Everything goes to standard error through one formatter, what libraries log too. A line has
`timestamp` (UTC), `level`, `logger`, `event` and, while a request is served, its `request_id`.
No secret gets past the formatter: neither those that jobmon was given, nor what looks like a token,
nor a password in an address, nor what an exception quotes of the data that it stumbled over.
Characters that change how a line looks (controls, writing direction, invisible ones) are escaped.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from pymongo.errors import OperationFailure, PyMongoError
from structlog.typing import EventDict, Processor

from jobmon.redaction import REDACTED, TOKENS
from jobmon.settings import Settings

# Shorter ones would be found in words that are none.
_SHORTEST_SECRET = 6
_LOOKS_SECRET = (
    (TOKENS, REDACTED),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]+"), rf"\1 {REDACTED}"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{REDACTED}@"),
)
# What these say is about the program or the machine, not about data.
_SPEAK = (OSError, ImportError, AttributeError, NameError)

# C1 and DEL; soft hyphen, Arabic letter mark; zero widths, directions and line separators; joiners
# and directions; byte order mark; interlinear marks; tags. JSON itself escapes the C0 controls.
_MISLEADING = (
    "\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_NOT_IN_JSON = re.compile(f"[{_MISLEADING}]")
_NOT_ON_A_TERMINAL = re.compile(f"[\\x00-\\x1f{_MISLEADING}]")
_NOT_IN_A_STACK = re.compile(f"[\\x00-\\x08\\x0b-\\x1f{_MISLEADING}]")  # it has line feeds and tabs

_FIRST = ("timestamp", "level", "logger", "event")  # a line is read from its start

# A command that sets up no logging prints what it found: Python would add our warnings to that.
logging.getLogger("jobmon").addHandler(logging.NullHandler())

_secrets: set[str] = set()


def configure(level: str) -> None:
    """Log to standard error from `level` on, unless somebody else has set up logging here."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *_ABOUT,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_formatter(readable=sys.stderr.isatty()))
        root.addHandler(handler)
    if any(_is_ours(handler) for handler in root.handlers):
        root.setLevel(level)
    # At DEBUG the driver logs commands and answers, with all that is in them.
    logging.getLogger("pymongo").setLevel(logging.INFO)


def hide(settings: Settings) -> None:
    """Never let these settings' secrets into a log."""
    uris = (settings.mongo_uri, settings.rollup_uri, settings.rate_limit_storage_uri)
    passwords = [urlsplit(uri).password or "" for uri in uris if uri]
    given = {settings.jwt_secret_key or "", *passwords, *map(unquote, passwords)}
    _secrets.update(secret for secret in given if len(secret) >= _SHORTEST_SECRET)


def without_secrets(value: Any) -> Any:
    """`value` with every secret in its texts replaced, at any depth."""
    match value:
        case str():
            for secret in _secrets:
                value = value.replace(secret, REDACTED)
            for pattern, replacement in _LOOKS_SECRET:
                value = pattern.sub(replacement, value)
            return value
        case dict():
            return {key: without_secrets(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_secrets(inner) for inner in value]
        case _:
            return value


def cause(error: PyMongoError) -> str:
    """What went wrong, in a line; of a refusal only its name, for its text quotes the query."""
    if isinstance(error, OperationFailure):
        details = error.details or {}
        return f"{type(error).__name__} {details.get('codeName', error.code)}"
    return f"{type(error).__name__}: {str(error).split(', Timeout:')[0]}"


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)


def _formatter(*, readable: bool) -> logging.Formatter:
    render: list[Processor] = [
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        _escape_in_json,
    ]
    if readable:
        console = structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
        render = [_escape_for_a_terminal, console]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_ABOUT,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _with_stack,
            _in_order_and_without_secrets,
            *render,
        ],
    )


def _in_order_and_without_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in _FIRST if name in event}
    told: dict[str, Any] = without_secrets({**first, **event})
    return told


def _escape_in_json(_: Any, __: str, line: Any) -> str:
    """A line of JSON that means the same and looks like what it is."""
    return _NOT_IN_JSON.sub(_as_json, str(line))


def _escape_for_a_terminal(_: Any, __: str, event: EventDict) -> EventDict:
    return {
        name: _escaped(value, _NOT_IN_A_STACK if name == "exception" else _NOT_ON_A_TERMINAL)
        for name, value in event.items()
    }


def _escaped(value: Any, characters: re.Pattern[str]) -> Any:
    match value:
        case str():
            return characters.sub(_as_json, value)
        case dict():
            return {name: _escaped(inner, characters) for name, inner in value.items()}
        case list():
            return [_escaped(inner, characters) for inner in value]
        case _:
            return value


def _as_json(character: re.Match[str]) -> str:
    return json.dumps(character.group())[1:-1]


def _with_stack(_: Any, __: str, event: EventDict) -> EventDict:
    """An exception as its stack, without what it might quote."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = "".join(_stack(error)).rstrip()
    return event


def _stack(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _stack(before)
        yield "\nwhich led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    if isinstance(error, PyMongoError):
        yield cause(error)
    elif isinstance(error, _SPEAK):
        said = str(error).replace("\n", "\n    ")  # no line of it looks like one of the log
        yield f"{type(error).__name__}: {said}"
    else:
        yield type(error).__name__


_ABOUT: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
