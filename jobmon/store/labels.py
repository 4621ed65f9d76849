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
    """The label of a status or a type: its text; after 200 characters, `…` replaces the rest.

    Documents share the label `{…}`, so that no value in them is shown. The text `(other)` becomes
    `(other)…`, because `(other)` means the values that are not counted by name.

    In quotes are: the text `null`, which means a missing value in a filter; the empty text, which
    means no filter; a text of at most 198 characters that ends in `*`, which means a prefix.
    """
    text = to_text(_drop_secrets(value))
    if text == OTHER:
        return OTHER + CUT
    is_prefix = text.endswith("*") and len(text) + 2 <= MAX_LABEL_LENGTH
    if value is not None and (text in _QUOTED or is_prefix):
        return f'"{text}"'
    return text if len(text) <= MAX_LABEL_LENGTH else f"{text[:MAX_LABEL_LENGTH]}{CUT}"


def worker_label(value: Any) -> str | None:
    """The label of a worker's name; None if it is missing or empty."""
    return None if value is None or value == "" else label(value)


def can_filter_by(value_label: str) -> bool:
    """Whether a filter by this label finds the jobs that are counted by it: see `label_values`."""
    is_whole = len(value_label) <= MAX_LABEL_LENGTH
    is_shared = value_label in (OTHER, OTHER + CUT, _DOCUMENT) or value_label.endswith("*")
    return is_whole and not is_shared


class LabelBudget:
    """Gives the first values their own labels, at most `limit`, and all later values `(other)`.

    So the stats do not grow with the jobs, even if each job has another type. The labels in
    `always` count as given from the start. While `(other)` is in use, no new value gets its own
    label, because jobs with this value may already be counted as `(other)`.
    """

    def __init__(self, limit: int, always: Iterable[str] = ()) -> None:
        self._limit = limit
        self._always = frozenset(always)
        self._labels = set(self._always)

    def learn(self, labels: Iterable[str]) -> None:
        """Add labels that are in use already."""
        self._labels.update(labels)

    def forget(self, *, all_but: Iterable[str]) -> None:
        """At the limit, free all labels except these and `always`; none if these have `(other)`."""
        if len(self._labels) < self._limit:
            return
        in_use = set(all_but)
        if OTHER not in in_use:
            self._labels = in_use | self._always

    def label(self, value: Any) -> str:
        """The label under which `value` is counted."""
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
