"""Patterns of messages: catches one cause in many groups, and several causes in one group."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmon.diagnosis.message_pattern import MAX_PATTERN_LENGTH, mask_message


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        # Node.js and HTTP clients
        ("connect ECONNREFUSED 127.0.0.1:5432", "connect ECONNREFUSED <host>"),
        ("connect ECONNREFUSED ::1:6379", "connect ECONNREFUSED <host>"),
        ("connect ECONNREFUSED [fe80::1]:6379", "connect ECONNREFUSED <host>"),
        ("getaddrinfo ENOTFOUND hooks.customer-7.com", "getaddrinfo ENOTFOUND <host>"),
        ("timeout of 3000ms exceeded", "timeout of <duration> exceeded"),
        ("Request failed with status code 503", "Request failed with status code 503"),
        ("Response code 404 (Not Found)", "Response code 404 (Not Found)"),
        ("HTTP error! status: 404", "HTTP error! status: 404"),
        (
            "Cannot read properties of undefined (reading 'name')",
            "Cannot read properties of undefined (reading <text>)",
        ),
        (
            "Unexpected token 'a', \"abc…\" is not valid JSON",
            "Unexpected token <text> is not valid JSON",
        ),
        (
            "ENOENT: no such file or directory, open '/tmp/a b.csv'",
            "ENOENT: no such file or directory, open <text>",
        ),
        ('Request failed: {"a": [1, {"b": "}"}]} (3rd)', "Request failed: <data> (<value>)"),
        ('Request failed: {"a": [1, {"b', "Request failed: <data>"),
        # MongoDB's driver
        (
            'E11000 duplicate key error collection: shop.users index: u_1 dup key: { u: "a@b.c" }',
            "E11000 duplicate key error collection: shop.users index: u_<value>"
            " dup key: { u: <text> }",
        ),
        (
            "Operation `users.find()` buffering timed out after 10000ms",
            "Operation <text> buffering timed out after <duration>",
        ),
        (
            "mongo-0.svc.cluster.local:27017: [Errno -2] Name or service not known",
            "<host>: [Errno -2] Name or service not known",
        ),
        # Python
        ("[Errno 104] Connection reset by peer", "[Errno 104] Connection reset by peer"),
        (
            "'utf-8' codec can't decode byte 0xff in position 12",
            "<text> codec can't decode byte <value> in position <value>",
        ),
        (
            "HTTPSConnectionPool(host='api.x.com', port=443): Read timed out.",
            "HTTPSConnectionPool(host=<text>, port=<value>): Read timed out.",
        ),
        (
            "404 Client Error: Not Found for url: https://x.org/a?b=1.",
            "<value> Client Error: Not Found for url: <url>",
        ),
        ("b'abc' is no text", "<text> is no text"),
        # databases, processes and mail
        (
            "SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry 'x'",
            "SQLSTATE[23000]: Integrity constraint violation: <value> Duplicate entry <text>",
        ),
        ("process exited with code 137", "process exited with code 137"),
        (
            "(1062, \"Duplicate entry '12' for key 'users.email'\")",
            "(1062) Duplicate entry <text> for key <text>",
        ),
        ("(1205, 'Lock wait timeout exceeded')", "(1205) Lock wait timeout exceeded"),
        (
            "Request ID: 9CA0E4F2B3; Extended: wNpsEFT8Vb+EAR9fZRf/cy2xMr+/nKcfQMaYB==",
            "Request ID: <value>; Extended: <value>",
        ),
        ("The receiver answered 502 Bad Gateway.", "The receiver answered 502 Bad Gateway."),
        ("The query returned 500 rows", "The query returned <value> rows"),
        ("SMTP 550 mailbox unavailable", "SMTP 550 mailbox unavailable"),
        # texts of programs
        ("card declined, 402", "card declined, <value>"),
        ("ids 1, 2, 3 not found", "ids <value> not found"),
        ("Failed to open C:\\Users\\bob\\x.txt", "Failed to open <path>"),
        ("read/write of application/json failed", "read/write of application/json failed"),
        ("user’s “long” text, one's 'x' and don't", "user’s <text> text, one's <text> and don't"),
        ("utf8 sha256 HTTP2 ERR_HTTP2_CANCEL P2002", "utf8 sha256 HTTP2 ERR_HTTP2_CANCEL P2002"),
        ("facade of deadbeef", "facade of deadbeef"),
        ("\n\n  second line \nthird", "second line"),
        ("{\n  bad JSON\n}", "bad JSON"),
        ("<html><title>502 Bad Gateway</title>", "<html><title><value> Bad Gateway</title>"),
        ("token=[redacted] expired", "token=[redacted] expired"),
        ("", ""),
    ],
)
def test_mask_message_of_a_known_program_masks_only_the_values(message: str, pattern: str) -> None:
    assert mask_message(message) == pattern


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("connection refused", "connection reset"),
        ("Request failed with status code 503", "Request failed with status code 404"),
        ("process exited with code 137", "process exited with code 1"),
        ("connect ECONNREFUSED 10.0.0.1:80", "connect ETIMEDOUT 10.0.0.1:80"),
        ("index: email_1 dup key: { email: 1 }", "index: phone_1 dup key: { phone: 1 }"),
        ("java.lang.String cannot be cast", "java.lang.Integer cannot be cast"),
        ("P2002 failed", "P2025 failed"),
    ],
)
def test_mask_message_of_two_causes_keeps_them_apart(first: str, second: str) -> None:
    assert mask_message(first) != mask_message(second)


HEX, QUOTED_CHARACTERS = "0123456789abcdef", string.ascii_letters + " .,:;()/@-"
TOKENS = {
    "number": st.integers(-(10**12), 10**12).map(str),
    "decimal": st.floats(-1e9, 1e9, allow_nan=False).map(lambda number: f"{number:.2f}"),
    "duration": st.tuples(
        st.integers(0, 10**6), st.sampled_from(["ms", " ms", "s", " seconds", "h", " min"])
    ).map(lambda pair: f"{pair[0]}{pair[1]}"),
    "size": st.tuples(st.integers(0, 10**6), st.sampled_from([" bytes", "KB", " MiB", "GB"])).map(
        lambda pair: f"{pair[0]}{pair[1]}"
    ),
    "object id": st.text(HEX, min_size=24, max_size=24),
    "uuid": st.uuids().map(str),
    "ulid": st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=25, max_size=25).map(
        lambda text: "0" + text
    ),
    "hex": st.integers(0, 2**64).map(hex),
    "double-quoted": st.text(QUOTED_CHARACTERS, max_size=50).map('"{}"'.format),
    "single-quoted": st.text(QUOTED_CHARACTERS, max_size=50).map("'{}'".format),
    "path": st.lists(st.text(string.ascii_letters + "0-_.", min_size=1), min_size=1).map(
        lambda parts: "/" + "/".join(parts)
    ),
    "url": st.tuples(
        st.sampled_from(["http", "https", "redis", "mongodb+srv"]),
        st.text(string.ascii_letters + string.digits + "/?&=%-_.", min_size=1, max_size=60),
    ).map("://".join),
    "email": st.emails(domains=st.sampled_from(["example.org", "mail.example.com"])).filter(
        lambda address: address.replace("@", "").replace(".", "").isalnum()
    ),
    "IPv4 address": st.tuples(
        st.ip_addresses(v=4).map(str), st.sampled_from(["", ":80", ":65535"])
    ).map("".join),
    "IPv6 address": st.ip_addresses(v=6)
    .filter(lambda ip: int(ip) > 9)
    .map(lambda ip: f"[{ip}]:443"),
    "host": st.tuples(
        st.text(string.ascii_lowercase, min_size=1, max_size=9), st.integers(10, 65_535)
    ).map(lambda pair: f"{pair[0]}.internal:{pair[1]}"),
    "date": st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z"),
    "clock": st.times().map(lambda moment: moment.isoformat(timespec="seconds")),
}
WORDS = st.sampled_from(
    ["user", "order", "payment", "failed", "refused", "reset", "missing", "queue", "is", "not"]
)


@pytest.mark.parametrize("kind", TOKENS)
@settings(max_examples=25)
@given(data=st.data())
def test_mask_message_of_any_value_depends_only_on_the_words(
    kind: str, data: st.DataObject
) -> None:
    """Catches a group for each id, number or path."""
    before, after = data.draw(WORDS), data.draw(WORDS)
    first, second = data.draw(TOKENS[kind]), data.draw(TOKENS[kind])
    mark = data.draw(st.sampled_from(["", ",", ".", ")", ";"]))
    patterns = {mask_message(f"{before} {value}{mark} {after}") for value in (first, second)}
    assert len(patterns) == 1, (first, second, patterns)
    assert patterns.pop().split()[0] == before


@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, min_size=1, max_size=12))
def test_mask_message_of_other_words_is_another_pattern(
    first: list[str], second: list[str]
) -> None:
    assert (mask_message(" ".join(first)) == mask_message(" ".join(second))) == (first == second)


@given(st.text(max_size=1_500))
def test_mask_message_of_any_text_is_one_short_line(text: str) -> None:
    pattern = mask_message(text)
    assert len(pattern) <= MAX_PATTERN_LENGTH
    assert pattern == " ".join(pattern.split())


@given(st.integers(0, 600), st.integers(0, 600))
def test_mask_message_of_a_truncated_text_ignores_its_cut_word(first: int, second: int) -> None:
    """Catches a pattern that depends on the length of a value before the cut."""
    message = "open {}: denied because " + "the owner of this file is unknown " * 60
    texts = [message.format("/" + "x" * (length + 1))[:1_000] + "…" for length in (first, second)]
    patterns = [mask_message(text) for text in texts]
    assert patterns[0][:200] == patterns[1][:200]


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "a.", "1.", "'a", "é'", '"', '\\"a', "1h1,", "a@", "a.a@-", "/", "a/", "::", "1e::",
     "{", '{"', "[[", "=", "a=", "Jan ", "1.1.1.", "“a", "http://", "status ", "aA1", "\\'a", "[{'",
     "aA", "1,", "f:", "-a", "~/", "Mon, ", "1 Jan", "x1-", "<value>", "0x", "b'"],
)  # fmt: skip
def test_mask_message_of_a_repeated_text_is_one_short_line(unit: str) -> None:
    """Catches a search that takes minutes because a message repeats the beginning of a value."""
    pattern = mask_message((unit * 1_000)[:1_000])
    assert len(pattern) <= MAX_PATTERN_LENGTH
    assert "\n" not in pattern
