"""Makes conditions for searches in the payload: an index serves each of them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bson.regex import Regex

from jobmon.store.mapping import Document
from jobmon.store.text_values import list_typed_values

_ANY_END = "*"


@dataclass(frozen=True, kw_only=True)
class SearchTerm:
    """A search for jobs that have any of `texts` in a field of the payload, also inside arrays.

    `field`: its declared name, `payload.orderId`. A text means each value that is written in this
    way: a string, a number of any type, an ObjectId, a UUID, a boolean or a date. `text*` means all
    strings with this beginning. A text in double quotes means only the string in the quotes, even
    with a `*`, and the string with its quotes.

    >>> SearchTerm(field="payload.orderId", texts=("8425",)).condition()
    {'$in': ['8425', 8425]}
    """

    field: str
    texts: tuple[str, ...]
    # The texts that redaction hides: they find no strings.
    hidden: tuple[str, ...] = ()

    @property
    def has_prefix(self) -> bool:
        """Whether strings are searched by their beginning: no index has them in list order."""
        return any(map(is_prefix, self.texts))

    def hide(self, is_secret: Callable[[str], bool]) -> "SearchTerm":
        """The term without the strings that are secret; it may be empty then."""
        hidden = tuple(text for text in self.texts if is_secret(_read_string(text)))
        return replace(self, hidden=hidden)

    def condition(self) -> Document:
        """The condition on the field. A text never becomes an operator of a query."""
        return {"$in": [value for text in self.texts for value in self._list_values(text)]}

    @property
    def is_empty(self) -> bool:
        return not self.condition()["$in"]

    def _list_values(self, text: str) -> Iterator[Any]:
        is_hidden, string = text in self.hidden, _read_string(text)
        if is_prefix(text):
            if not is_hidden:
                yield prefix_pattern(text)
            return
        if not is_hidden:
            yield text
            if string != text:
                yield string
        if string == text:
            yield from list_typed_values(text)


def explain_unsearchable(text: str) -> str | None:
    """The reason why no index can find the strings that a text with `*` means; None if it can."""
    if not is_prefix(text):
        return None
    if text == _ANY_END:
        return "Needs a character before `*`."
    # A pattern cannot contain NUL, and with an escaped `\|` MongoDB does not use an index.
    if "\0" in text or "\\|" in text:
        return "Before `*` neither `\\|` nor NUL is possible."
    return None


def is_prefix(text: str) -> bool:
    """Whether a text ends in `*`: it means all strings with this beginning."""
    return text.endswith(_ANY_END)


def matches_filter(value_label: str, filter_text: str) -> bool:
    """Whether a filter by a text, which may end in `*`, finds the jobs with a label."""
    if not is_prefix(filter_text):
        return value_label == filter_text
    prefix = filter_text.removesuffix(_ANY_END)  # a label that ends in `*` is in quotes
    return value_label.startswith((prefix, f'"{prefix}'))


def prefix_pattern(text: str) -> Regex[str]:
    """The pattern of the strings that a text with `*` means; its `^` lets an index serve it."""
    return Regex(f"^{re.escape(_read_string(text))}")


def _read_string(text: str) -> str:
    """The string that a text means, without its quotes or its `*`."""
    if is_prefix(text):
        return text.removesuffix(_ANY_END)
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text
