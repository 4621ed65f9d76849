"""The labels by which statuses, types and workers are counted and filtered."""

from collections.abc import Iterable
from typing import Any

from bson import DBRef, Decimal128

from jobmon.store.bson_json import is_uuid, number_to_json, to_text
from jobmon.store.truncate import CUT

MAX_LABEL_LENGTH = 200
# How many values are counted by name; all other values are counted together as `(other)`.
MAX_STATUSES, MAX_TYPES = 100, 5_000
OTHER = "(other)"
_DOCUMENT = "{…}"
_QUOTED = ("null", "")


def label(value: Any) -> str:
    """The label of a status or a type: its text, at most 200 characters and a `…`.

    Documents share the label `{…}`, so that no value in them is shown. The text `(other)` becomes
    `(other)…`, because `(other)` means the values that are not counted by name. The text `null`,
    the empty text and texts that end in `*` are in quotes: without quotes, a filter by them means a
    missing value, no filter, or a beginning.
    """
    shown = to_text(_drop_secrets(value))
    if shown == OTHER:
        return OTHER + CUT
    is_prefix = shown.endswith("*") and len(shown) + 2 <= MAX_LABEL_LENGTH
    if value is not None and (shown in _QUOTED or is_prefix):
        return f'"{shown}"'
    return shown if len(shown) <= MAX_LABEL_LENGTH else f"{shown[:MAX_LABEL_LENGTH]}{CUT}"


def worker_label(value: Any) -> str | None:
    """The label of a worker's name; None if it is missing or empty."""
    return None if value is None or value == "" else label(value)


def is_filter(value_label: str) -> bool:
    """Whether a filter by this label finds exactly the jobs that are counted under it."""
    is_whole = len(value_label) <= MAX_LABEL_LENGTH
    is_one = value_label not in (OTHER, OTHER + CUT, _DOCUMENT) and not value_label.endswith("*")
    return is_whole and is_one


class LabelBudget:
    """Gives the first `limit` values labels of their own, and counts the others as `(other)`.

    A writer that gives each job a type of its own must not make the stats grow with the jobs. While
    `(other)` is in use, no new value gets a label: its jobs may be counted as `(other)` already.
    """

    def __init__(self, limit: int, always: Iterable[str] = ()) -> None:
        self._limit = limit
        self._always = frozenset(always)
        self._labels = set(self._always)

    def learn(self, labels: Iterable[str]) -> None:
        """Add labels that are in use already."""
        self._labels.update(labels)

    def forget(self, *, all_but: Iterable[str]) -> None:
        """Free all labels except these; nothing is freed while `(other)` is in use."""
        if len(self._labels) < self._limit:
            return
        used = set(all_but)
        if OTHER not in used:
            self._labels = used | self._always

    def label(self, value: Any) -> str:
        """The label to count `value` under."""
        value_label = label(value)
        if value_label not in self._labels:
            if OTHER in self._labels or len(self._labels) >= self._limit:
                value_label = OTHER
            self._labels.add(value_label)
        return value_label


def _drop_secrets(value: Any) -> Any:
    """`value` without the contents of documents, and no longer than a label needs."""
    match value:
        case dict() | DBRef():
            return _DOCUMENT
        case list():
            return [_drop_secrets(inner) for inner in value[:MAX_LABEL_LENGTH]]
        case str() | bytes() if not is_uuid(value):
            return value[: MAX_LABEL_LENGTH + 1]
        case float() | Decimal128():
            return number_to_json(value)
        case _:
            return value
