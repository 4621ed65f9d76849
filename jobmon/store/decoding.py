"""Decodes every document that a server stores, also those that the driver refuses.

A binary value of the old subtype 2 has its length twice. The server stores two that differ; the
driver raises then, without the position, and every document of the reply is lost.
"""

import struct
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self, cast

import bson
from bson.binary import OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument

_DECODED: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=bson.DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)

# Decoded and encoded as an answer, a document may need thirty times its size in memory.
LARGE_BYTES = 256 * 1_024
# Called before a larger document is decoded, in the context of the reader.
before_large: ContextVar[Callable[[], None] | None] = ContextVar("before_large", default=None)

# The size of a value in bytes, by its type. The others begin with a length, which leaves out some.
_SIZES = {
    **dict.fromkeys((0x06, 0x0A, 0x7F, 0xFF), 0),
    0x08: 1,
    0x10: 4,
    **dict.fromkeys((0x01, 0x09, 0x11, 0x12), 8),
    0x07: 12,
    0x13: 16,
}
_BEYOND_LENGTH = {0x02: 4, 0x0D: 4, 0x0E: 4, 0x05: 5, 0x0C: 16}
_DOCUMENTS = (0x03, 0x04)
_REGEX, _BINARY, _CODE_WITH_SCOPE = 0x0B, 0x05, 0x0F


class _Decoded(RawBSONDocument):
    """A document class that receives the undecoded bytes and returns a dict."""

    def __new__(cls, data: bytes, _: Any = None) -> Self:
        return decode(data)  # type: ignore[return-value] # all readers expect a dict


# For a client's `document_class`: `decode` is called for each document that it reads.
Decoded = cast(type[dict[str, Any]], _Decoded)


def decode(data: bytes) -> dict[str, Any]:
    """A document as a dict; never raises for a document that a server stores.

    Dates are aware, in UTC, and `DatetimeMS` outside of the years 1 to 9999. Text that is not UTF-8
    has replacement characters. A binary value with two different lengths gets the subtype 128.
    """

    if len(data) > LARGE_BYTES and (check := before_large.get()) is not None:
        check()
    try:
        return bson.decode(data, _DECODED)
    except InvalidBSON:
        return bson.decode(_repair(data), _DECODED)


def _repair(data: bytes) -> bytes:
    """The document with the subtype 128 for each binary value with two different lengths."""
    repaired = bytearray(data)
    _repair_document(repaired, 0)
    return bytes(repaired)


def _repair_document(data: bytearray, at: int) -> int:
    """Repair the document that begins at `at`; returns where it ends."""
    end: int = at + struct.unpack_from("<i", data, at)[0]
    at += 4
    while kind := data[at]:
        at = data.index(0, at + 1) + 1  # after the key
        if kind in _SIZES:
            at += _SIZES[kind]
        elif kind in _DOCUMENTS:
            at = _repair_document(data, at)
        elif kind == _REGEX:
            at = data.index(0, data.index(0, at) + 1) + 1
        elif kind == _CODE_WITH_SCOPE:
            code = struct.unpack_from("<i", data, at + 4)[0]
            at = _repair_document(data, at + 8 + code)
        else:
            length = struct.unpack_from("<i", data, at)[0]
            if (
                kind == _BINARY
                and data[at + 4] == OLD_BINARY_SUBTYPE
                and not _has_one_length(data, at, length)
            ):
                data[at + 4] = USER_DEFINED_SUBTYPE
            at += length + _BEYOND_LENGTH[kind]
    return end


def _has_one_length(data: bytearray, at: int, length: int) -> bool:
    """Whether the inner length of the old binary value at `at` fits its outer one."""
    return length >= 4 and struct.unpack_from("<i", data, at + 5)[0] == length - 4
