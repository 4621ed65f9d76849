"""Masks the variable parts of an error's message, so that errors of one cause have one pattern.

The result depends on the text alone: it is the same after a restart, and in each collector.
Libraries that learn patterns from a stream of texts (drain3) do not have this property.
"""

import re
from functools import lru_cache

from jobmon.store.truncate import CUT

MAX_PATTERN_LENGTH = 300
_MAX_TEXT_LENGTH = 1_000  # a text of this length or more is regarded as truncated
_MIN_RANDOM_LENGTH = 16  # a shorter word without digits is not regarded as an id
_MIN_ENCODED_LENGTH = 24  # of base64 with `/` or `+`, and of a hexadecimal number without digits

# Technical names, and constants such as `MAX_SIZE`: they are not variable parts.
_TECHNICAL_WORDS = re.compile(
    r"(?i:utf[-_]?(?:8|16|32)|ascii7?|sha[-_]?(?:1|2|3|224|256|384|512)|md[45]|base(?:32|58|64)"
    r"|https?[12]?|h[23]c?|ipv?[46]|inet[46]|s3|ec2|oauth[12]|x509|k8s|i18n|l10n|e2e|b2[bc]|p12"
    r"|mp[34]|u?int(?:8|16|32|64|128)|float(?:32|64)|decimal128|win(?:32|64)|x(?:86|64)|arm64"
    r"|[hrep]s(?:256|384|512)|aes[-_]?(?:128|192|256)|tlsv?1|log4j2?|web3|neo4j|psycopg[23]?"
    r"|urllib3|boto3|h264|h265|latin1|v[1-9])"
    r"|E11000|P[1-6]0\d\d|ORA-\d{5}|TS\d{4}|[A-Z]+(?:_[A-Z0-9]*[A-Z][A-Z0-9]*)+"
)
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_IP = r"\d{1,3}(?:\.\d{1,3}){3}"
_IPV6 = rf"(?:[0-9a-fA-F]{{0,4}}:){{2,7}}(?:{_IP}|[0-9a-fA-F]{{0,4}})"
_HOST = r"[A-Za-z0-9_](?:[\w-]{0,62}\.){1,9}[A-Za-z][\w-]{0,62}"
_TOP_DOMAINS = (
    "com|net|org|io|dev|app|cloud|local|internal|lan|svc|co|eu|de|fr|uk|nl|it|es|pl|ch|at|us|ca|au"
    "|jp|cn|br|info|biz"
)
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?"
_ZONE = r"(?:\s?(?:Z|UTC|GMT)?(?:[+-]\d{2}:?\d{2})?(?:\s\([A-Z][\w ]{2,40}\))?)"
_DECIMAL = r"\d++(?:[.,_]\d++){0,9}+(?:[eE][+-]?\d++)?+"
_DURATION_UNIT = (
    r"(?:\s?(?:[nµμu]s|ms(?:ecs?)?|s(?:ecs?)?|(?:milli|micro|nano)?seconds?|mins?|minutes?|hrs?"
    r"|hours?|days?|weeks?)|[mhd])"
)
_SIZE_UNIT = r"\s?(?:[kKMGT]i?[Bb]|B|[Bb]ytes?|(?:kilo|mega|giga)bytes?)(?:/s)?"
_END = r"(?!\w)"
_NUMBER_END = r"(?![\w@/\\+]|[.:\-]\w)"

_NUMBER = rf"[+-]?{_DECIMAL}"

# Numbers that show the cause, and dates with a month's name. They are searched only in a line that
# contains one of `_CAUSES` or `_MONTHS`.
_PHRASES = rf"""
    (?P<kept>(?i:status(?:[ ]?code)?|http(?:/\d(?:\.\d)?|[ ]?error)?!?|smtp|response[ ]code)
        ["']?[ :=\[(]{{1,3}}(?:status:[ ])?[1-5]\d\d{_END}
      |(?i:exit(?:ed)?(?:[ ]with)?(?:[ ](?:code|status))?|signal)[ :=]{{1,2}}\d{{1,3}}{_END}
      |(?i:errno)[ :=]{{1,2}}-?\d{{1,5}}{_END}
      |(?i:answered|responded|returned)(?:[ ]with)?[ ][45]\d\d(?=[ ][A-Z]|[.,]?\Z)
      |SQLSTATE[ =:\[]{{1,2}}\w{{5}}{_END})
    |(?P<named_date>(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{{0,6}},?[ ])?
        (?:\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}|{_MONTH}[ ]{{1,2}}\d{{1,2}}(?:,?[ ]\d{{4}})?)
        (?:[ ,T]{{1,2}}{_CLOCK}{_ZONE})?(?:[ ]\d{{4}})?{_END})
    |"""
_CAUSES = (
    *("status", "http", "smtp", "response", "answered", "responded", "returned"),
    *("exit", "signal", "errno", "sqlstate"),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# The first alternative that matches at a position consumes what it matches. Each repetition is
# possessive or short, so that the time grows in proportion to the length of the text.
_PARTS = rf"""
    [^\W\d_]{{1,15}}+(?:['\u2019][^\W\d_]{{1,15}}+){{0,2}}+
        (?![\w@/\\+\-'\u2019]|[.:]{{1,2}}\w|:/|:\\|(?<=[bBrRuU])")
    |(?=[\d+\-])(?:
      (?P<date>\d{{4}}(?P<_1>[\-/.])\d{{1,2}}(?P=_1)\d{{1,2}}(?:[T ]{_CLOCK}{_ZONE})?{_END}
        |\d{{1,2}}(?P<_2>[./])\d{{1,2}}(?P=_2)\d{{4}}(?:[ ,]{{1,2}}{_CLOCK}{_ZONE})?{_END}
        |\d{{2}}:\d{{2}}:\d{{2}}(?:[.,]\d{{1,9}})?{_ZONE}{_END})
      |(?P<host>{_IP}(?::\d{{1,5}}|/\d{{1,2}})?+{_END}(?!\.\w))
      |(?P<duration>{_NUMBER}{_DURATION_UNIT}
        (?:[ ]?{_DECIMAL}{_DURATION_UNIT}){{0,3}}+{_NUMBER_END})
      |(?P<size>{_NUMBER}{_SIZE_UNIT}{_NUMBER_END})
      |(?P<value>{_NUMBER}(?:[ ]?%)?{_NUMBER_END}))
    |(?P<text>(?=["'`\u201c\u00ab\u2018bBrRuU])(?:
      [bBrRuU]{{0,2}}"(?:[^"\\]|\\.?)*+(?:"|\Z)|`[^`]*+(?:`|\Z)
      |(?<![^\W_])[bBrRuU]{{0,2}}'[^']*+'(?!\w)
      |\u201c[^\u201c\u201d]*+\u201d|\u00ab[^\u00ab\u00bb]*+\u00bb|\u2018[^\u2018\u2019]*+\u2019))
    |(?P<url>[A-Za-z][A-Za-z0-9+.\-]{{1,20}}+://[^\s"'<>`]++)
    |(?P<path>(?=[A-Za-z/\\.~])(?<![\w)\]}}<])(?:[A-Za-z]:\\|\\\\|~?/|\.{{1,2}}/)
        [^\s"'`<>(){{}}\[\],;:|]++(?::\d++){{0,2}})
    |(?P<address>\[{_IPV6}(?:%\w{{1,16}})?\](?::\d{{1,5}})?{_END}
      |(?=[0-9a-fA-F]{{0,4}}:[0-9a-fA-F:]{{0,39}}?\d){_IPV6}(?:%\w{{1,16}})?{_END}(?!:))
    |(?P<token>[\w$](?:[\w$=]|[.:@/+%~\-](?=[\w$=/+]))*+)
    """
_WITH_PHRASES = re.compile(_PHRASES + _PARTS, re.VERBOSE)
_WITHOUT_PHRASES = re.compile(_PARTS, re.VERBOSE)
# A line in which this finds nothing has no variable part.
_VARIABLE = re.compile(r"[\d\"'`\u201c\u00ab\u2018/\\@:\[{]|\w\.\w|\w{16}")
# The forms of whole tokens, which contain no space.
_TOKEN = re.compile(
    rf"""
    (?P<email>[\w.+%\-]{{1,64}}@[\w\-]{{1,63}}(?:\.[\w\-]{{1,63}}){{0,8}})
    |(?P<hex>{_UUID}|0[xX][0-9a-fA-F]+|[0-9a-fA-F]{{6,}})
    |(?P<host>(?:{_HOST}|localhost|{_IP}):\d{{2,5}}
      |(?:[a-z0-9_][\w\-]{{0,62}}\.){{1,9}}(?:{_TOP_DOMAINS})
      |[a-z][a-z0-9\-]{{0,80}}-[0-9a-f]{{6,10}}-[bcdfghjklmnpqrstvwxz2456789]{{5}})
    |(?P<path>[\w.$@\-]+(?:/[\w.$@~+=%\-]+)+(?::\d+){{0,2}})
    """,
    re.VERBOSE,
)
_MARKS = frozenset("@:/.-")
_WORD = re.compile(r"[^\W_]+")
_NAME_WITH_NUMBER = re.compile(r"([^\W\d_]+)\d+")
_CASE_CHANGE = re.compile(r"[a-z][A-Z]")
_REPEATED = re.compile(r"(<[a-z]+>)(?:[-_.:/+=,;$ ]{0,2}\1)++")
# An error of a database as Python prints it: `(1062, "Duplicate entry 'x' for key 'y'")`.
_NUMBERED = re.compile(r"\((-?\d{1,6}), ([\"'])(.*?)(?:\2\)?)?")
_DATA_START = re.compile(r"[{\[]\s?[\"'{\[]")
_DATA_MARK = re.compile(r"[{}\[\]]|\"(?:[^\"\\]|\\.?)*+(?:\"|\Z)")


@lru_cache(2_048)
def mask_message(message: str) -> str:
    """The first line that has a word, with its variable parts replaced; at most 300 characters.

    >>> mask_message("connect ECONNREFUSED 10.0.0.7:5432 after 3000 ms")
    'connect ECONNREFUSED <host> after <duration>'
    """
    line = _first_line(message)
    if numbered := _NUMBERED.fullmatch(line):
        return f"({numbered[1]}) {_mask_line(numbered[3])}"[:MAX_PATTERN_LENGTH].rstrip()
    if _VARIABLE.search(line):
        line = _mask_line(line)
    return line[:MAX_PATTERN_LENGTH].rstrip()


def mask_ids(text: str) -> str:
    """A name or a path with the numbers and ids in it replaced by `<value>`."""
    return _REPEATED.sub(r"\1", _WORD.sub(_mask_word, text))


def _first_line(message: str) -> str:
    """The first line that has a word, without its last word if the text was truncated there."""
    text = message[:_MAX_TEXT_LENGTH]
    is_truncated = len(message) >= _MAX_TEXT_LENGTH or text.endswith(CUT)
    lines = text.splitlines()
    line = next((line for line in lines if _WORD.search(line)), "")
    if is_truncated and lines and line == lines[-1]:
        line = line.rpartition(" ")[0]
    return " ".join(line.split())


def _mask_line(line: str) -> str:
    if ("{" in line or "[" in line) and _DATA_START.search(line):
        line = _mask_data(line)
    lowered = line.lower()
    parts = (
        _WITH_PHRASES if any(word in lowered for word in (*_CAUSES, *_MONTHS)) else _WITHOUT_PHRASES
    )
    return _REPEATED.sub(r"\1", parts.sub(_mask_part, line))


def _mask_data(line: str) -> str:
    """`line` with `<data>` for each part like JSON, up to its closing bracket or the end."""
    parts, position = [], 0
    while start := _DATA_START.search(line, position):
        parts += [line[position : start.start()], "<data>"]
        depth, position = 0, len(line)
        for mark in _DATA_MARK.finditer(line, start.start()):
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark[0], 0)
            if depth == 0:
                position = mark.end()
                break
    return "".join([*parts, line[position:]])


def _mask_part(part: re.Match[str]) -> str:
    match part.lastgroup:
        case None | "kept":
            return part[0]
        case "token":
            return _mask_token(part[0])
        case "named_date":
            return "<date>"
        case "address":
            return "<host>"
        case kind:
            return f"<{kind}>"


def _mask_token(token: str) -> str:
    has_digit = any(map(str.isdigit, token))
    if not has_digit and len(token) < _MIN_RANDOM_LENGTH and _MARKS.isdisjoint(token):
        return token
    if _TECHNICAL_WORDS.fullmatch(token):
        return token
    form = _TOKEN.fullmatch(token)
    match form.lastgroup if form else None:
        case "path":
            folders, _, name = token.rpartition("/")
            is_path = "/" in folders or "." in name
            if is_path and not _is_encoded(token, has_digit=has_digit):
                return "<path>"
        case "hex" if has_digit or len(token) >= _MIN_ENCODED_LENGTH:
            return "<value>"
        case "email" | "host" as kind:
            return f"<{kind}>"
    if _is_encoded(token, has_digit=has_digit) or _is_random(token):
        return "<value>"
    return _WORD.sub(_mask_word, token) if has_digit else token


def _mask_word(match: re.Match[str]) -> str:
    word = match[0]
    if not any(map(str.isdigit, word)) or _TECHNICAL_WORDS.fullmatch(word):
        return "<value>" if _is_random(word) else word
    named = _NAME_WITH_NUMBER.fullmatch(word)
    is_hex = len(word) >= 6 and all(letter in "0123456789abcdefABCDEF" for letter in word)
    return f"{named[1]}<value>" if named and not is_hex else "<value>"


def _is_encoded(token: str, *, has_digit: bool) -> bool:
    """Whether a token has the form of base64, or of an id of random letters and digits."""
    minimum = _MIN_ENCODED_LENGTH if "/" in token or "+" in token else _MIN_RANDOM_LENGTH
    if not has_digit or len(token) < minimum or any(mark in token for mark in ".:@"):
        return False
    return token.lower() != token != token.upper() and not _is_camel_case(token)


def _is_random(token: str) -> bool:
    """Whether a token has too many capitals and changes of case to consist of words."""
    if len(token) < _MIN_RANDOM_LENGTH or token.islower() or token.isupper():
        return False
    letters = sum(map(str.isalpha, token))
    capitals = sum(map(str.isupper, token))
    return capitals >= 0.3 * letters and len(_CASE_CHANGE.findall(token)) >= 4


def _is_camel_case(token: str) -> bool:
    """Whether at most a quarter of a token is capitals and digits, as in `sendInvoiceEmail2`."""
    capitals = sum(map(str.isupper, token))
    digits = sum(map(str.isdigit, token))
    return capitals + digits <= len(token) / 4
