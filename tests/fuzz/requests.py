"""Requests with arbitrary and malformed parts, as a WSGI server passes them to the app."""

# ruff: noqa: E501 - tables of values are easiest to read in rows

import base64
import io
import string
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, unquote_to_bytes

import bson

from jobmon.store.cursor import Cursor
from jobmon.web.admission import MAX_BODY_BYTES

from ..conftest import DATE, NOW
from . import documents

ROUTES = [
    "/jobs",
    "/jobs/job-1",
    "/admin/jobs/queue",
    "/admin/jobs/stats",
    "/admin/jobs/timeseries",
    "/admin/jobs/types",
    "/admin/jobs/suggestions",
    "/metrics",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/",
    "/dashboard",
    "/dashboard/",
    "/dashboard/overview",
    "/dashboard/charts",
    "/dashboard/jobs",
    "/dashboard/jobs/job-1",
    "/dashboard/my",
    "/dashboard/find",
    "/dashboard/sign-in",
    "/dashboard/session",
    "/dashboard/sign-out",
    "/dashboard/static/jobmon.css",
    "/dashboard/static/vendor/htmx.min.js",
]
METHODS = ["GET"] * 24 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "X"]

ODD_TEXT = [
    "", " ", "\0", "%", "%00", "%ff", "%c0%80", "%ed%a0%80", "%F0%9F", "..", "../..", ".", "/", "//",
    "\\", "%2F", "%2e%2e", "%5c", "?", "#", ";", "\r\nX: y", "%0d%0aSet-Cookie:x=1", "\u202e", "\ufeff",
    "\ud7ff", "é", "𝕏", "x" * 300, "x" * 9_000, "$where", "{$gt:''}", "[]", "__proto__", "null", "true",
    "NaN", "Infinity", "1e999", "-1", "0", "1", "2147483648", "9223372036854775808", "9" * 400,
    "00000000000000000001", "+1", " 1", "1 ", "1.0", "0x1", "١", "1_0", "<script>", "'\"", "{{7*7}}",
    DATE, f"{DATE}T03:00:00Z", f"{DATE}T03:00:00+23:59", "0001-01-01T00:00:00-23:59",
    "9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59.999999-23:59", f"{NOW:%G-W%V-1}", f"{DATE}T24:00:00",
    "10000-01-01", "-000001-01-01", "now", "65f0c0ffee0123456789abcd", "65F0C0FFEE0123456789ABCD",
    "job-", "job-1", "createdAt", "-createdAt", "csv", "ndjson", "json", "queued", "dlq", "email.send",
    "1h", "24h", "7d", "30d", "previous", "due", "-done", "type", "60", "3600", "604800", "61", "100", "101", "E1", "ada",
]  # fmt: skip
LETTERS = string.ascii_letters + string.digits + "%$.[]{}:+-_ \0é\u202e𝕏"
PARAMETERS = [
    "status", "type", "owner", "created_from", "created_to", "error_code", "job_id", "sort", "page",
    "per_page", "cursor", "format", "from", "to", "step", "range", "by", "text", "then", "v", "other",
    "finished_from", "finished_to", "condition", "compare", "only", "q",
]  # fmt: skip
HEADERS: dict[str, list[str]] = {
    "Accept": ["*/*", "text/html", "application/openmetrics-text; version=1.0.0", "a/b;q=x", ";,", "x" * 900],
    "Accept-Encoding": ["gzip", "br", "zstd", "identity;q=0", "*;q=0", ";q", "gzip;q=nan"],
    "If-None-Match": ["*", '"x"', 'W/"x"', "x", '"', "é"],
    "If-Modified-Since": ["Thu, 01 Jan 1970 00:00:00 GMT", "x", "Thu, 99 Jan 99999 00:00:00 GMT"],
    "Range": ["bytes=0-1", "bytes=-1", "bytes=9-1", "bytes=0-" + "9" * 40, "x=1", "bytes=,"],
    "If-Range": ['"x"', "x"],
    "X-Request-ID": ["x", "\x00", "é" * 100, "x" * 900],
    "Cookie": ["jobmon_session=x", "jobmon_theme=dark", "jobmon_theme=\"><script>", "=;=", "a", "x=\xff"],
    "X-Forwarded-For": ["1.2.3.4", "x", ","],
    "X-Forwarded-Proto": ["https", "x"],
    "X-Forwarded-Host": ["evil.example", "a b"],
    "X-Forwarded-Prefix": ["/x", "//evil.example"],
    "Forwarded": ["for=x;host=evil.example"],
    "Host": ["localhost", "evil.example:99999", "a b", "", "[::1", "é", "x/y", "user@x"],
    "Origin": ["null", "http://evil.example", "http://localhost", "x"],
    "Referer": ["http://evil.example", "x"],
    "Sec-Fetch-Site": ["cross-site", "same-origin", "none", "x"],
    "HX-Request": ["true", "x"],
    "HX-Current-URL": ["http://localhost/dashboard", "x"],
    "HX-Target": ["jobs", "<x>"],
    "X-Jobmon-Part": ["1"],
    "Content-Type": ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "x;charset=é", ""],
    "Content-Encoding": ["gzip"],
    "Transfer-Encoding": ["chunked", "x"],
    "Content-Length": ["0", "-1", "x", "99999999999", "5"],
    "Expect": ["100-continue"],
    "Upgrade": ["websocket"],
    "X-HTTP-Method-Override": ["DELETE"],
}  # fmt: skip
BODIES = [
    *[b""] * 2,  # drawn twice as often
    b"{}",
    b"token=x",
    b"token=" + b"x" * 70_000,
    b"\xff\xfe",
    b"--x\r\n",
    b"then=//evil.example&token=x",
]
# The names of valid tokens, `none` for no Authorization header, and wrong Authorization headers.
CREDENTIALS = ["admin"] * 20 + ["ada"] * 4 + ["none"] * 2 + ["", "Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Basic eDp5", "Bearer é", "Bearer " + "x" * 5_000, "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."]  # fmt: skip


class Request(NamedTuple):
    """A request to a WSGI app. `credential` is one of `CREDENTIALS`."""

    method: str
    path: bytes
    query: str
    headers: dict[str, str]
    body: bytes
    credential: str

    def build_environ(self, tokens: dict[str, str]) -> dict[str, Any]:
        """The environ of PEP 3333; `tokens` are the valid tokens by name."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path.decode("latin-1"),
            "QUERY_STRING": self.query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if self.body:
            environ["CONTENT_LENGTH"] = str(len(self.body))
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            is_content = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
            environ[key if is_content else f"HTTP_{key}"] = value.encode().decode("latin-1")
        token = tokens.get(self.credential)
        if token and b"dashboard" in self.path:  # pages read only the cookie
            environ["HTTP_COOKIE"] = f"jobmon_session={token}"
        elif token:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        elif self.credential != "none":
            environ["HTTP_AUTHORIZATION"] = self.credential.encode().decode("latin-1")
        return environ

    @property
    def has_valid_token(self) -> bool:
        return self.credential in ("admin", "ada")

    @property
    def has_large_body(self) -> bool:
        """Whether the announced length of the body is more than any route accepts."""
        return self._announced_bytes > MAX_BODY_BYTES

    @property
    def has_cut_body(self) -> bool:
        """Whether the body is shorter than its announced length."""
        return len(self.body) < self._announced_bytes

    @property
    def _announced_bytes(self) -> int:
        announced = self.headers.get("Content-Length", str(len(self.body)))
        # A chunked body announces no length.
        is_sized = announced.isdecimal() and "chunked" not in self.headers.values()
        return int(announced) if is_sized else 0


def _draw_text(dice: documents.Dice) -> str:
    if dice.random() < 0.7:
        return dice.choice(ODD_TEXT)
    return "".join(dice.choice(LETTERS) for _ in range(dice.randrange(9)))


def _draw_cursor(dice: documents.Dice) -> str:
    """A valid cursor, or a cursor with other values, an operator, or bytes cut, added or changed."""
    cursor = Cursor(
        date=NOW,
        id=dice.randrange(9),
        page=dice.choice([1, 2, 9]),
        oldest_first=dice.random() < 0.3,
        backwards=dice.random() < 0.5,
        by_page=dice.random() < 0.1,
    )
    encoded = cursor.encode()
    data = bytearray(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    change = dice.choice(["none", *["values"] * 3, "cut", "flipped", "inserted", "operator"])
    match change:
        case "values":
            fields = {  # by the keys of an encoded cursor: `c` is the date, `i` the _id
                b"c": dice.draw_value(),
                b"i": dice.draw_value(),
                b"p": documents.int32(2),
                b"o": documents.Value(8, bytes([dice.random() < 0.3])),
                b"b": documents.Value(8, bytes([dice.random() < 0.5])),
            }
            if dice.random() < 0.2:
                fields[dice.choice([*fields, b"x"])] = dice.draw_value()
            data = bytearray(documents.encode_pairs(list(fields.items())))
        case "cut":
            data = data[: dice.randrange(len(data))]
        case "flipped":
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case "inserted":
            index = dice.randrange(len(data))
            data[index:index] = dice.randbytes(dice.randint(1, 9))
        case "operator":
            fields_with_operator = {"c": NOW, "i": {"$gt": ""}, "p": 1, "o": False, "b": False}
            data = bytearray(bson.encode(fields_with_operator))
    return base64.urlsafe_b64encode(data).decode().rstrip("=" if dice.random() < 0.9 else "")


def make_request(seed: int) -> Request:
    """Draw a request. The same seed draws the same request."""
    dice = documents.Dice(seed)
    path = dice.choice(ROUTES)
    match dice.randrange(16):  # most paths stay unchanged
        case 0:
            path += dice.choice(["/", "//", "/.", "/..", "%2F", "%00", "/x", ".json", " "])
        case 1:
            last_part = quote(_draw_text(dice), safe=dice.choice(["", "/%"]))
            path = f"{path.rpartition('/')[0]}/{last_part}"
        case 2:
            path = _draw_text(dice)
    names = [dice.choice(PARAMETERS) if dice.random() < 0.9 else _draw_text(dice) for _ in range(4)]
    pairs = [(name, _draw_text(dice)) for name in names[: dice.choice([0, 0, 1, 1, 1, 2, 4])]]
    if dice.random() < 0.25:
        pairs.append(("cursor", _draw_cursor(dice)))
    has_escapes = dice.random() < 0.5  # `%ff` stays an escape; otherwise it is quoted as text
    query = "&".join(
        f"{quote_plus(name)}={quote(value, safe='%') if has_escapes else quote_plus(value)}"
        for name, value in pairs
    )
    header_names = dice.sample(sorted(HEADERS), dice.choice([0, 0, 0, 1, 2, 3]))
    return Request(
        method=dice.choice(METHODS),
        path=unquote_to_bytes(path.partition("?")[0]),
        query=query[:8_000],
        headers={name: dice.choice(HEADERS[name]) for name in header_names},
        body=dice.choice(BODIES),
        credential=dice.choice(CREDENTIALS),
    )
