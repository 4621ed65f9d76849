"""Writes JSON with orjson, ten times as fast as Python's own module.

A JSON answer ends with a line feed, as Flask's own do, so that a shell's prompt is on a new line.
"""

import json
from typing import Any

import orjson
from flask.json.provider import DefaultJSONProvider

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_LINE_OPTIONS = _OPTIONS | orjson.OPT_APPEND_NEWLINE


class JSONProvider(DefaultJSONProvider):
    """Flask's own provider, but with `dump_json`, and with keys in their original order."""

    sort_keys = False
    ensure_ascii = False

    def dumps(self, obj: Any, **options: Any) -> str:
        """`obj` as JSON; Flask's own provider writes it if options such as an indent are given."""
        options.pop("separators", None)  # Flask's separators have no spaces either
        return super().dumps(obj, **options) if options else dump_json(obj)


def encode_json(value: Any) -> bytes:
    """`value` as JSON without spaces; raises TypeError for a value that JSON cannot represent."""
    return _encode(value, _OPTIONS)


def encode_line(value: Any) -> bytes:
    """`encode_json` with a line feed at the end."""
    return _encode(value, _LINE_OPTIONS)


def _encode(value: Any, options: int) -> bytes:
    try:
        return orjson.dumps(value, _default, options)
    except TypeError:
        # orjson writes neither integers beyond 64 bits nor unpaired surrogates.
        text = json.dumps(value, default=_default, ensure_ascii=False, separators=(",", ":"))
        end = "\n" if options & orjson.OPT_APPEND_NEWLINE else ""
        return f"{text}{end}".encode(errors="replace")


def dump_json(value: Any) -> str:
    """`encode_json` as a text."""
    return encode_json(value).decode()


_default = DefaultJSONProvider.default
