"""Reads the text of the search box, such as `status:dead type:mail` or `orderId:8425`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marshmallow import ValidationError

from jobmon.api.queries import REPEATABLE, load_list_query
from jobmon.domain import JOB_STATUS_WORDS, JobCondition, JobStatus
from jobmon.settings.search_fields import PAYLOAD
from jobmon.web.errors import invalid_parameters

MAX_TEXT_LENGTH = 1_000  # in characters
MAX_PARTS = 20
# Each key (the word before a colon) with the parameter of a list of jobs that it sets. If several
# keys set a parameter, the first one is shown.
KEYS = {
    "id": "job_id",
    "type": "type",
    "status": "status",
    "owner": "owner",
    "worker": "worker",
    "code": "error_code",
    "group": "error_group",
    "is": "condition",
    "attempts": "min_attempts",
    "priority": "priority",
    "jobid": "job_id",
    "job_id": "job_id",
    "createdby": "owner",
    "leasedby": "worker",
    "error": "error_code",
    "error_code": "error_code",
    "condition": "condition",
}
# Keys that only a list of all jobs has.
OPERATOR_KEYS = ("owner", "worker", "code", "group", "is")
# What a person may write for a status, each with the stored status.
STATUSES = {status.value: status.value for status in JobStatus} | {
    word: status for status, word in JOB_STATUS_WORDS.items()
}
_CONDITIONS = [condition.value for condition in JobCondition]
_FIRST_KEYS = {parameter: key for key, parameter in reversed(KEYS.items())}
_QUOTES = '"\u201c\u201d\u201e'  # phones type curved quotes
# A quoted value with or without a key, or a word without spaces. The last quote may be missing.
_PART = re.compile(
    rf"(?:[^\s:={_QUOTES}]+[:=])?[{_QUOTES}][^{_QUOTES}]*(?:[{_QUOTES}]\*?(?=\s|\Z)|\Z)|\S+"
)
_QUOTED = re.compile(rf"[{_QUOTES}]([^{_QUOTES}]*)(?:[{_QUOTES}](\*?))?")
_KEYED = re.compile(r"([^\s:=]+)[:=](.*)", re.DOTALL)
_LIKE_A_KEY = re.compile(r"([A-Za-z_][\w.-]*)[:=]")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the text: a value with the parameter of its key, or a word without a key.

    The `parameter` of such a word is empty. `start` is the position of the part in the text.
    """

    parameter: str
    value: str
    start: int


@dataclass(frozen=True, kw_only=True)
class SearchText:
    """A parsed search text. `problems`: why a part cannot be searched, as sentences."""

    text: str
    parts: tuple[Part, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def filters(self) -> dict[str, list[str]]:
        """The values of each parameter of a list of jobs, without the words that have no key."""
        filters: dict[str, list[str]] = {}
        for part in self.parts:
            if part.parameter and part.value not in filters.get(part.parameter, ()):
                filters.setdefault(part.parameter, []).append(part.value)
        return filters

    @property
    def words(self) -> list[str]:
        """The words without a key."""
        return [part.value for part in self.parts if not part.parameter]

    @property
    def unknown_keys(self) -> list[str]:
        """The beginnings of words that look like a key but are no key: `color` in `color:red`."""
        return [match[1] for word in self.words if (match := _LIKE_A_KEY.match(word))]

    def replace_last(self, part: str) -> str:
        """The text, with `part` in place of its last part."""
        return self.text[: self.parts[-1].start] + part


def parse_search(text: str, fields: Sequence[str]) -> SearchText:
    """Read a text; `fields` are the fields of the payload that can be searched.

    A key is one of `KEYS`, or a field: the last names of its path are enough if they are unique.
    The case of a key does not matter. Any other part is a word, even with a colon, as in some ids.

    >>> parse_search("status:dead orderId:8425", ["payload.orderId"]).filters
    {'status': ['dlq'], 'payload.orderId': ['8425']}
    """
    text = text.strip()
    if len(text) > MAX_TEXT_LENGTH:
        problem = f"The text is too long: write at most {MAX_TEXT_LENGTH:,} characters."
        return SearchText(text=text[:MAX_TEXT_LENGTH], problems=(problem,))
    problems: list[str] = []
    parts: list[Part] = []
    lacks_value = False  # whether the last part is only a key and a colon
    for match in _PART.finditer(text):
        parameter, raw = _split_key(match[0], fields, problems)
        if lacks_value and not parameter:
            key_part = parts.pop()  # `type: mail`: the space after the colon has no meaning
            parts.append(_make_part(key_part.parameter, raw, key_part.start))
        else:
            parts.append(_make_part(parameter, raw, match.start()))
        lacks_value = bool(parameter) and not raw
    if len(parts) > MAX_PARTS:
        problems.append(f"Write at most {MAX_PARTS} words and filters.")
    search = SearchText(text=text, parts=tuple(parts[:MAX_PARTS]))
    return replace(search, problems=(*problems, *_check_values(search.filters, fields)))


def explain_refused(search: SearchText, fields: Sequence[str]) -> SearchText:
    """The text; if it has no problems, with one for each filter that a list of jobs refuses.

    A short `job_id` is no problem: it may be a whole id.
    """
    filters = {name: values for name, values in search.filters.items() if name != "job_id"}
    try:
        load_list_query(to_parameters(filters), None)
    except ValidationError as error:
        messages = invalid_parameters(error.messages_dict).details or {}
        problems = (
            f"`{shown_key(parameter, fields)}:{values[0] if len(values) == 1 else ''}` "
            f"cannot be searched: {message}"
            for parameter, values in filters.items()
            for message in messages.get(parameter, ())
        )
        return replace(search, problems=search.problems or tuple(problems))
    return search


def _split_key(part: str, fields: Sequence[str], problems: list[str]) -> tuple[str, str]:
    """The parameter and the typed value of a part; the parameter of a word is empty."""
    keyed = _KEYED.fullmatch(part)
    if keyed is None:
        return "", part
    key, value = keyed.groups()
    parameters = _find_parameters(key, fields)
    if len(parameters) == 1:
        return parameters[0], value
    if parameters:
        problems.append(f"`{key}:` is ambiguous: write {' or '.join(parameters)}.")
    elif key.startswith(f"{PAYLOAD}."):
        searchable = ", ".join(fields) or "no field"
        problems.append(f"`{key}` cannot be searched: JOBMON_SEARCH_FIELDS has {searchable}.")
    return "", part


def _find_parameters(key: str, fields: Sequence[str]) -> list[str]:
    """The parameters that a key may mean; several if it is ambiguous."""
    if (parameter := KEYS.get(key.lower())) is not None:
        return [parameter]
    if key in fields:
        return [key]
    same_case = [name for name in fields if name.endswith(f".{key}")]
    return same_case or [name for name in fields if f".{name}".lower().endswith(f".{key.lower()}")]


def _make_part(parameter: str, raw: str, start: int) -> Part:
    quoted = _QUOTED.fullmatch(raw)
    if parameter == "status" and raw.lower() in _CONDITIONS:
        return Part(parameter="condition", value=raw.lower(), start=start)
    value = STATUSES.get(raw.lower(), raw) if parameter == "status" else raw
    if quoted is not None:
        inner, star = quoted[1], quoted[2] or ""
        keeps_quotes = not star and _needs_quotes(parameter, inner)
        value = f'"{inner}"' if keeps_quotes else f"{inner}{star}"
    return Part(parameter=parameter, value=value, start=start)


def _needs_quotes(parameter: str, inner: str) -> bool:
    """Whether the text in quotes means something else without them: then they are kept."""
    is_label = parameter in REPEATABLE and (inner in ("null", "") or inner.endswith("*"))
    return is_label or parameter.startswith(f"{PAYLOAD}.")


def _check_values(filters: Mapping[str, list[str]], fields: Sequence[str]) -> Iterator[str]:
    """A sentence about each parameter that has no value, or too many values."""
    for parameter, values in filters.items():
        key = shown_key(parameter, fields)
        if "" in values:
            yield f"Write a value after `{key}:`."
        elif len(values) > 1 and parameter not in (*REPEATABLE, *fields):
            yield f"Write `{key}:` only once."


def shown_key(parameter: str, fields: Sequence[str]) -> str:
    """The key that is shown for a parameter: of a field, the shortest one that means it."""
    if parameter in _FIRST_KEYS:
        return _FIRST_KEYS[parameter]
    names = parameter.split(".")
    keys = (".".join(names[-length:]) for length in range(1, len(names) + 1))
    return next((key for key in keys if _find_parameters(key, fields) == [parameter]), parameter)


def list_keys(fields: Sequence[str], *, is_operator: bool) -> list[str]:
    """The shown key of every parameter, for operators or for owners of jobs."""
    keys = [key for key in _FIRST_KEYS.values() if is_operator or key not in OPERATOR_KEYS]
    order = list(KEYS)
    return sorted(keys, key=order.index) + [shown_key(name, fields) for name in fields]


def format_filters(filters: Mapping[str, list[str]], fields: Sequence[str]) -> str | None:
    """The search text for these filters; None if no text has this meaning.

    >>> format_filters({"status": ["dlq"], "type": ["send mail"]}, [])
    'status:dead type:"send mail"'
    """
    parts = [
        _format_part(parameter, value, fields)
        for parameter, values in filters.items()
        for value in values
    ]
    known_parts = [part for part in parts if part is not None]
    return " ".join(known_parts) if len(known_parts) == len(parts) else None


def _format_part(parameter: str, value: str, fields: Sequence[str]) -> str | None:
    """The part of a search text for one value of a filter; None if no text has this meaning."""
    shown = JOB_STATUS_WORDS.get(value, value) if parameter == "status" else value
    key = shown_key(parameter, fields)
    for form in (shown, f'"{shown}"', f'"{shown.removesuffix("*")}"*'):
        part = f"{key}:{form}"
        if parse_search(part, fields).filters == {parameter: [value]}:
            return part
    return None


def to_parameters(filters: Mapping[str, list[str]]) -> dict[str, Any]:
    """The filters as parameters of a list of jobs: a list if several values are possible."""
    return {
        name: values if name in REPEATABLE or name.startswith(f"{PAYLOAD}.") else values[0]
        for name, values in filters.items()
    }
