"""Decodes every document that a server stores, even those that the driver refuses.

A binary value of the old subtype 2 contains its length twice. A server also stores a value whose
two lengths differ. The driver then raises an error that names no value: the whole reply is lost.
"""

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
_WITH_NAIVE_DATES = _DECODED.with_options(tz_aware=False)

# To decode a document and encode it as an answer may need thirty times its size in memory.
LARGE_BYTES = 256 * 1_024
# Called in the reader's context before a larger document or reply is decoded. May raise an error.
large_document_check: ContextVar[Callable[[], None] | None] = ContextVar(
    "large_document_check", default=None
)

# The size of a value in bytes, by its BSON type. Values of the types in `_BEYOND_LENGTH` begin with
# a length, which does not count these bytes.
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


class _DecodedWithNaiveDates(RawBSONDocument):
    """Like `_Decoded`, but the dates have no time zone."""

    def __new__(cls, data: bytes, _: Any = None) -> Self:
        return decode(data, _WITH_NAIVE_DATES)  # type: ignore[return-value]


# For a client's `document_class`: `decode` is called for each reply that the client reads.
Decoded = cast(type[dict[str, Any]], _Decoded)
# For a collection: dates have no time zone, so decoding a date takes a third of the time.
WITH_NAIVE_DATES = CodecOptions(cast(type[dict[str, Any]], _DecodedWithNaiveDates))


def decode(data: bytes, options: CodecOptions[dict[str, Any]] = _DECODED) -> dict[str, Any]:
    """A document as a dict, for every document that a server stores.

    Dates are in UTC, by default aware, and `DatetimeMS` beyond the years 1 to 9999. U+FFFD replaces
    invalid UTF-8. A binary value with two different lengths gets the subtype 128. Only
    `large_document_check` raises an error.
    """
    if len(data) > LARGE_BYTES and (check := large_document_check.get()) is not None:
        check()
    try:
        return bson.decode(data, options)
    except InvalidBSON:
        repaired = bytearray(data)
        _repair(repaired)
        return bson.decode(repaired, options)


def _repair(data: bytearray, start: int = 0) -> int:
    """Give the subtype 128 to each binary value with two different lengths, in place.

    The document begins at index `start`; returns the index after its end.
    """
    end = start + _read_int(data, start)
    index = start + 4
    while bson_type := data[index]:
        index = data.index(0, index + 1) + 1  # after the key
        if bson_type in _SIZES:
            index += _SIZES[bson_type]
        elif bson_type in _DOCUMENTS:
            index = _repair(data, index)
        elif bson_type == _REGEX:
            index = data.index(0, data.index(0, index) + 1) + 1
        elif bson_type == _CODE_WITH_SCOPE:
            index = _repair(data, index + 8 + _read_int(data, index + 4))
        else:
            length = _read_int(data, index)
            is_old = bson_type == _BINARY and data[index + 4] == OLD_BINARY_SUBTYPE
            if is_old and (length < 4 or _read_int(data, index + 5) != length - 4):
                data[index + 4] = USER_DEFINED_SUBTYPE
            index += length + _BEYOND_LENGTH[bson_type]
    return end


def _read_int(data: bytearray, index: int) -> int:
    return int.from_bytes(data[index : index + 4], "little", signed=True)
