"""Jobs and attempts with arbitrary values, written as raw BSON.

A driver writes only well-formed values. This module also writes deprecated types, text that is not
UTF-8, duplicate keys, and dates outside the calendar's range.
"""

# ruff: noqa: E501 - tables of values are easiest to read in rows

import random
import struct
from typing import NamedTuple

from bson import Decimal128, ObjectId
from bson.raw_bson import RawBSONDocument

from jobmon.store.decoding import decode

from ..conftest import DATE, NOW

# All secret values contain this text, so it must not be in any answer.
PLANTED = "pl4nted"
SECRET_KEYS = [b"password", b"apiKey", b"x-auth-token", b"clientSecret", b"PIN", b"card_number"]

OID = ObjectId("65f0c0ffee0123456789abcd")
OWNERS = ["ada", str(OID)]  # the owners that have tokens
ARRAY_TYPE = 0x04
STATUSES = ["queued", "leased", "succeeded", "failed", "dlq", "cancelled", "odd"]
NOW_MS = round(NOW.timestamp() * 1_000)


class Value(NamedTuple):
    """A BSON value: the number of its BSON type, and its bytes."""

    bson_type: int
    data: bytes


Fields = list[tuple[bytes, Value]]


def text(value: str | bytes, bson_type: int = 0x02) -> Value:
    encoded = value.encode() if isinstance(value, str) else value
    return Value(bson_type, struct.pack("<i", len(encoded) + 1) + encoded + b"\0")


def int64(value: int) -> Value:
    return Value(0x12, struct.pack("<q", value))


def int32(value: int) -> Value:
    return Value(0x10, struct.pack("<i", value))


def date(ms: int) -> Value:
    return Value(0x09, struct.pack("<q", ms))


def double(value: float) -> Value:
    return Value(0x01, struct.pack("<d", value))


def binary(data: bytes, subtype: int) -> Value:
    return Value(0x05, struct.pack("<iB", len(data), subtype) + data)


def decimal(value: str) -> Value:
    return Value(0x13, Decimal128(value).bid)


def encode_pairs(pairs: list[tuple[bytes, Value]]) -> bytes:
    """The bytes of a document with these keys and values, in this order."""
    body = b"".join(bytes([value.bson_type]) + key + b"\0" + value.data for key, value in pairs)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def document(*pairs: tuple[bytes, Value]) -> Value:
    return Value(0x03, encode_pairs(list(pairs)))


def array(*values: Value) -> Value:
    pairs = [(str(index).encode(), value) for index, value in enumerate(values)]
    return Value(ARRAY_TYPE, encode_pairs(pairs))


def code_with_scope(code: str, scope: Value) -> Value:
    data = text(code).data + scope.data
    return Value(0x0F, struct.pack("<i", len(data) + 4) + data)


def make_secret(number: int = 0) -> Value:
    """A text that no answer may show."""
    return text(f"{PLANTED}-{number}")


NULL, UNDEFINED = Value(0x0A, b""), Value(0x06, b"")
MIN_KEY, MAX_KEY = Value(0xFF, b""), Value(0x7F, b"")
SECRET_DOCUMENT = document((b"password", make_secret()), (b"seen", int32(1)))
REFERENCE = document(
    (b"$ref", text("users")), (b"$id", Value(0x07, OID.binary)), (b"token", make_secret())
)

STRINGS = [
    text(value)
    for value in (
        "", " ", "x", "null", "true", "0", "a.b$c", "$type", "\0", "a\0b", "\r\n", "\x1b[31m",
        "\x7f\x80", "\ufeff", "\u202egnp.exe", "\u2028", "\U0010ffff", "é" * 300, "=1+1", "@x", "-2",
        "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "%s%n%00",
        "../../etc/passwd", f"{DATE}T03:00:00Z", "9999-12-31T23:59:59.999+23:59", "0001-01-01",
        "x" * 5_000, '{"password": 1}', "other", "\ud7ff", "a,b;c\"d", "line\u0085end", "\t",
    )
] + [text(value) for value in (b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"a\xf0\x9f", b"\xed\xbf\xbf")]  # fmt: skip

NUMBERS = [
    *(int32(value) for value in (0, 1, -1, 2**31 - 1, -(2**31))),
    *(int64(value) for value in (0, 2**53 + 1, 2**63 - 1, -(2**63))),
    *(double(value) for value in (0.0, -0.0, 0.1, 1e308, -1e308, 5e-324, 2.0**63, 1e21)),
    *(double(float(value)) for value in ("nan", "inf", "-inf")),
    Value(0x01, b"\x01\x00\x00\x00\x00\x00\xf0\x7f"),  # a signalling NaN
    *(
        decimal(value)
        for value in ("0", "-0", "1.10", "NaN", "-NaN", "sNaN", "Infinity", "-Infinity")
    ),
    *(decimal(value) for value in ("9E+6144", "-9E+6144", "1E+4299", "1E+400", "1E-6176")),
    Value(0x13, b"\xff" * 14 + b"\xff\x6f"),  # not canonical
]

DATES = [
    date(ms)
    for ms in (
        0, -1, 1, NOW_MS, NOW_MS, NOW_MS + 1, NOW_MS - 400 * 86_400_000, 253_402_300_799_999,
        253_402_300_800_000, -62_135_596_800_000, -62_135_596_800_001, 8_640_000_000_000_001,
        2**63 - 1, -(2**63), 2**62, -(2**62),
    )
]  # fmt: skip

BINARIES = [
    *(
        binary(data, subtype)
        for subtype in (*range(10), 128, 255)
        for data in (b"", b"abc", b"x" * 15, b"x" * 16, b"x" * 17)
    ),
    binary(struct.pack("<i", 3) + b"abc", 2),
    binary(struct.pack("<i", 2**31 - 1), 2),
    binary(struct.pack("<i", -1) + b"a", 2),
]

OTHER_TYPES = [
    NULL,
    UNDEFINED,
    MIN_KEY,
    MAX_KEY,
    Value(0x07, OID.binary),
    Value(0x07, b"\0" * 12),
    Value(0x07, b"\xff" * 12),
    Value(0x08, b"\0"),
    Value(0x08, b"\1"),
    *(Value(0x0B, pattern) for pattern in (b"\0\0", b"^a\0i\0", b"(\0imxs\0", b"\xff\0\xff\0", b"a\0zz\0")),
    Value(0x0C, text("users").data + OID.binary),
    Value(0x0C, text(b"\xff").data + OID.binary),
    text("f()", 0x0D),
    text(b"\xff", 0x0D),
    text("symbol", 0x0E),
    text("", 0x0E),
    text(b"\xff", 0x0E),
    code_with_scope("f()", SECRET_DOCUMENT),
    code_with_scope("", document()),
    *(Value(0x11, struct.pack("<II", *parts)) for parts in ((0, 0), (1, 2), (2**32 - 1, 2**32 - 1))),
]  # fmt: skip

CONTAINERS = [
    document(),
    array(),
    SECRET_DOCUMENT,
    REFERENCE,
    array(SECRET_DOCUMENT, array(SECRET_DOCUMENT), REFERENCE),
    array(date(NOW_MS), date(NOW_MS + 5)),
    array(text("x"), date(NOW_MS - 9), NULL),
    array(NULL, NULL),
    array(double(float("nan")), decimal("sNaN")),
    array(*[int32(number) for number in range(120)]),
    Value(ARRAY_TYPE, encode_pairs([(b"x", text("not")), (b"0", text("numbered")), (b"0", NULL)])),
    document((b"", text("empty key")), (b".", NULL), (b"a.b", NULL), (b"$gt", text(""))),
    document((b"$ref", int32(1)), (b"$id", NULL), (b"$db", int32(2))),
    document((b"$ref", text("c"))),
    document((b"$oid", text("x")), (b"$date", NULL)),
    document((b"a", int32(1)), (b"a", int32(2)), (b"password", make_secret()), (b"password", NULL)),
    document((b"\xff\xfe", int32(1)), ("\u202e".encode(), int32(1)), (b"__class__", NULL)),
    document((b"at", date(2**63 - 1)), (b"n", double(float("nan")))),
]


def nest(levels: int, innermost: Value, in_array: bool = False) -> Value:
    """A value inside `levels` documents or arrays."""
    value = innermost
    for _ in range(levels):
        value = array(value) if in_array else document((b"a", value))
    return value


KEYS = [b"a", b"b.c", b"$x", b"", "ключ".encode(), b"code", b"message", b"n", b"\xff"]
ERROR_FIELDS = (b"lastError", b"error")
# By field: values of its type; for the fields of errors see `Dice.draw_error`.
TYPED_JOB_VALUES = {
    b"type": [text("email.send"), text("payout.execute")],
    b"status": [text(status) for status in STATUSES],
    b"payload": [SECRET_DOCUMENT, REFERENCE],
    b"createdBy": [text("ada"), Value(0x07, OID.binary)],
    b"createdAt": [date(NOW_MS + ms) for ms in (0, 0, 1, 1_000, -86_400_000)],
    b"updatedAt": [date(NOW_MS)],
    b"nextRunAt": [date(NOW_MS), date(4 * NOW_MS)],
    b"maxAttempts": [int32(5)],
    b"attemptCount": [int32(2), *NUMBERS],
    b"leasedBy": [text("worker-1")],
    b"leaseExpiresAt": [date(NOW_MS)],
    b"finishedAt": [date(NOW_MS), NULL],
    b"lastError": [],
    b"attempts": [
        array(SECRET_DOCUMENT, document((b"error", SECRET_DOCUMENT), (b"startedAt", date(0))))
    ],
}
TYPED_ATTEMPT_VALUES = {
    b"attemptNumber": [int32(1), int32(2), *NUMBERS],
    b"status": [text(status) for status in ("running", "succeeded", "failed", "expired")],
    b"workerId": [text("worker-1")],
    b"eligibleAt": [date(NOW_MS), *DATES],
    b"startedAt": [date(NOW_MS + 5), *DATES],
    b"finishedAt": [date(NOW_MS + 9), *DATES],
    b"error": [],
}

SCALARS = STRINGS + NUMBERS + DATES + BINARIES + OTHER_TYPES
DEEP_VALUES = [
    nest(levels, SECRET_DOCUMENT, in_array)
    for levels in (13, 60, 100, 170)
    for in_array in (False, True)
]
VALUES = SCALARS + CONTAINERS + DEEP_VALUES
# An _id cannot be an array, undefined or a regex.
ID_VALUES = [value for value in VALUES if value.bson_type not in (ARRAY_TYPE, 0x06, 0x0B)]


class Dice(random.Random):
    """Draws values. The same seed draws the same values."""

    def draw_value(self) -> Value:
        return self.draw_tree() if self.random() < 0.15 else self.choice(VALUES)

    def draw_typed_or_any(self, *typed_values: Value) -> Value:
        return self.choice(typed_values) if self.random() < 0.5 else self.draw_value()

    def draw_secret(self) -> tuple[bytes, Value]:
        """A key whose value redaction hides, and a secret value."""
        value = make_secret(self.randrange(10**6))
        return self.choice(SECRET_KEYS), self.choice(
            [value, array(value, SECRET_DOCUMENT), SECRET_DOCUMENT]
        )

    def draw_tree(self) -> Value:
        """A tree of arbitrary values, with secrets at any depth."""
        remaining = self.randint(1, 40)

        def grow(depth: int) -> Value:
            nonlocal remaining
            remaining -= 1
            if remaining <= 0 or depth > 8 or self.random() < 0.3:
                return self.choice(VALUES if depth < 3 else SCALARS)
            if self.random() < 0.3:
                return array(*(grow(depth + 1) for _ in range(self.randint(0, 4))))
            pairs = [(self.choice(KEYS), grow(depth + 1)) for _ in range(self.randint(0, 4))]
            if self.random() < 0.5:
                pairs.insert(self.randint(0, len(pairs)), self.draw_secret())
            return document(*pairs)

        return grow(0)

    def draw_error(self) -> Value:
        pairs = [
            (key, self.draw_typed_or_any(text("E1"), text("broken")))
            for key in (b"code", b"message", b"stack")
            if self.random() < 0.8
        ]
        if self.random() < 0.5:
            pairs.insert(self.randint(0, len(pairs)), self.draw_secret())
        return self.draw_typed_or_any(NULL, document(*pairs), document(*pairs))

    def draw_fields(self, typed_values: dict[bytes, list[Value]]) -> Fields:
        """About nine of ten fields, half of them with a value of their type.

        It omits a createdAt with a value that has no defined order in a list.
        """
        fields = [
            (name, self.draw_error() if name in ERROR_FIELDS else self.draw_typed_or_any(*values))
            for name, values in typed_values.items()
            if self.random() < 0.9
        ]
        return [
            (name, value) for name, value in fields if name != b"createdAt" or _has_order(value)
        ]


def _has_order(value: Value) -> bool:
    """Whether a list by this value has a defined order.

    It has none for an array in an array, and for `undefined`, which drivers no longer write.
    """
    if value.bson_type != ARRAY_TYPE:
        return value != UNDEFINED
    return not any(isinstance(inner, list) for inner in decode(value.data).values())


def draw_job(seed: int) -> Fields:
    """The fields of a job, without `_id`, jobId and priority."""
    return Dice(seed).draw_fields(TYPED_JOB_VALUES)


def draw_attempt(seed: int) -> Fields:
    """The fields of an attempt, without jobId."""
    return Dice(seed).draw_fields(TYPED_ATTEMPT_VALUES)


def draw_id(seed: int) -> Value:
    """A value for `_id`: an ObjectId, or any other value, which may repeat."""
    dice = Dice(f"id {seed}")
    value = dice.choice(ID_VALUES) if dice.random() < 0.3 else int64(dice.randrange(10**6))
    return value if dice.random() < 0.5 else Value(0x07, dice.randbytes(12))


def build_document(fields: Fields, **leading_fields: Value) -> RawBSONDocument:
    """A document to insert: `leading_fields`, then `fields`."""
    leading_pairs = [(name.encode(), value) for name, value in leading_fields.items()]
    return RawBSONDocument(encode_pairs(leading_pairs + fields))
