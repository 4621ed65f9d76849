"""The parameters that search the payload (`payload.orderId=8425`): reading and documenting them.

Each queue has its own fields, in JOBMON_SEARCH_FIELDS; the store refuses others.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jobmon.store.search import explain_unsearchable

MAX_VALUES = 10  # of a parameter
MAX_VALUE_LENGTH = 1_000  # in characters
_NAME = re.compile(r"payload(?:[.\[].*)?", re.DOTALL)


def is_search(name: str) -> bool:
    """Whether a parameter searches the payload."""
    return _NAME.fullmatch(name) is not None


def read_search(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """The texts to search for, by parameter, without empty texts."""
    search = {}
    for name in filter(is_search, parameters):
        values = parameters[name]
        texts = [values] if isinstance(values, str) else values
        if texts := list(dict.fromkeys(filter(None, texts))):
            search[name] = texts
    return search


def check_search(search: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """By parameter: messages about texts that cannot be searched for."""
    mistakes = {}
    for name, texts in search.items():
        messages = [message for text in texts if (message := explain_unsearchable(text))]
        if len(texts) > MAX_VALUES:
            messages.append(f"More than {MAX_VALUES} values.")
        if any(len(text) > MAX_VALUE_LENGTH for text in texts):
            messages.append(f"Longer than {MAX_VALUE_LENGTH:,} characters.")
        if messages:
            mistakes[name] = messages
    return mistakes


def document_search(fields: Iterable[str]) -> list[dict[str, Any]]:
    """The OpenAPI parameters for these fields of the payload."""
    text_schema = {"type": "string", "maxLength": MAX_VALUE_LENGTH}
    return [
        {
            "in": "query",
            "name": name,
            "description": (
                f"Jobs with this value in `{name}`, even inside an array: the text, or a number, "
                "ObjectId, UUID, boolean or date with this written form. `text*` matches texts "
                'that begin with `text`, `"text"` (in quotes) only the text. Repeat it to match '
                "any of several values. Only in queues with this field in JOBMON_SEARCH_FIELDS."
            ),
            "schema": {"type": "array", "items": text_schema, "maxItems": MAX_VALUES},
            "style": "form",
            "explode": True,
        }
        for name in fields
    ]
