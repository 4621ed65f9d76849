"""Documents as the driver decodes them, also those that it refuses to.

The server stores a binary value of the old subtype 2 whose inner length is wrong; the driver
raises on it, and with it loses every document of the reply.
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

# Decoded and made an answer, a document may need thirty times its size.
LARGE_BYTES = 256 * 1_024
# Called before a larger one is decoded, in the context where it is read.
before_large: ContextVar[Callable[[], None] | None] = ContextVar("before_large", default=None)

# How many bytes a value has, by its type; of the others the first four bytes tell.
_SIZES = {
    **dict.fromkeys((0x06, 0x0A, 0x7F, 0xFF), 0),
    0x08: 1,
    0x10: 4,
    **dict.fromkeys((0x01, 0x09, 0x11, 0x12), 8),
    0x07: 12,
    0x13: 16,
}
_MORE_THAN_TOLD = {0x02: 4, 0x0D: 4, 0x0E: 4, 0x05: 5, 0x0C: 16}
_DOCUMENTS = (0x03, 0x04)
_REGEX, _BINARY, _CODE_WITH_SCOPE = 0x0B, 0x05, 0x0F


class _Decoded(RawBSONDocument):
    """What the driver makes of a reply, handed over as bytes: a plain dict."""

    def __new__(cls, data: bytes, _: Any = None) -> Self:
        return decode(data)  # type: ignore[return-value] # a dict is what everybody wants


# As a client's `document_class`: whatever it reads is decoded by `decode`.
Decoded = cast(type[dict[str, Any]], _Decoded)


def decode(data: bytes) -> dict[str, Any]:
    """A document as a plain dict; raises on no document that a server stores.

    Dates come back aware, in UTC; one beyond Python's years as `DatetimeMS`; text that is not
    UTF-8 with replacement characters; a binary value that contradicts itself as one of subtype 128.
    """

    if len(data) > LARGE_BYTES and (check := before_large.get()) is not None:
        check()
    try:
        return bson.decode(data, _DECODED)
    except InvalidBSON:
        return bson.decode(_mended(data), _DECODED)


def _mended(data: bytes) -> bytes:
    """The document with another subtype for the binary values that contradict themselves."""
    mended = bytearray(data)
    _mend(mended, 0)
    return bytes(mended)


def _mend(data: bytearray, at: int) -> int:
    """Mend the document that begins at `at`; where it ends."""
    end: int = at + struct.unpack_from("<i", data, at)[0]
    at += 4
    while kind := data[at]:
        at = data.index(0, at + 1) + 1  # after the key
        if kind in _SIZES:
            at += _SIZES[kind]
        elif kind in _DOCUMENTS:
            at = _mend(data, at)
        elif kind == _REGEX:
            at = data.index(0, data.index(0, at) + 1) + 1
        elif kind == _CODE_WITH_SCOPE:
            code = struct.unpack_from("<i", data, at + 4)[0]
            at = _mend(data, at + 8 + code)
        else:
            length = struct.unpack_from("<i", data, at)[0]
            if (
                kind == _BINARY
                and data[at + 4] == OLD_BINARY_SUBTYPE
                and not _is_sound(data, at, length)
            ):
                data[at + 4] = USER_DEFINED_SUBTYPE
            at += length + _MORE_THAN_TOLD[kind]
    return end


def _is_sound(data: bytearray, at: int, length: int) -> bool:
    """Whether the inner length of the old binary value at `at` goes with its outer one."""
    return length >= 4 and struct.unpack_from("<i", data, at + 5)[0] == length - 4
