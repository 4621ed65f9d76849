"""The payload fields that can be searched: checks their names and finds their paths."""

import re
from collections.abc import Iterable, Sequence

from marshmallow import ValidationError

from jobmon.profiles.sources import Source
from jobmon.redaction.keys import SecretKeys
from jobmon.settings.readers import refuse_duplicates

# Each field has an index in the watched collection, where MongoDB allows 64 indexes.
MAX_SEARCH_FIELDS = 10
PAYLOAD = "payload"
_FIELD = re.compile(rf"{PAYLOAD}(?:\.[^$.,\s\0\[\]]{{1,100}}){{1,10}}")
_POSITION = re.compile(r"\.[0-9]+(?=\.|$)")


def find_search_paths(
    fields: Sequence[str], payload: Source | None, redact_keys: Iterable[str]
) -> dict[str, str]:
    """By field name: its path in documents. `payload`: where the profile finds the payload.

    Raises ValidationError for a field that is not in the payload, that redaction hides, or that no
    index can have.
    """
    if len(fields) > MAX_SEARCH_FIELDS:
        raise ValidationError(f"More than {MAX_SEARCH_FIELDS} fields: each needs an index.")
    refuse_duplicates(fields)
    if not fields:  # `SecretKeys` is slow to create, and there may be a hundred queues
        return {}
    keys = SecretKeys(redact_keys)
    return {name: _find_path(name, payload, keys) for name in fields}


def _find_path(name: str, payload: Source | None, keys: SecretKeys) -> str:
    if not _FIELD.fullmatch(name):
        raise ValidationError(f"{name} is not a field of the payload, such as payload.orderId.")
    inner = name.removeprefix(f"{PAYLOAD}.")
    if (hidden := keys.find_secret_part(inner)) is not None:
        raise ValidationError(
            f"{name} cannot be searched: redaction hides the values of {hidden} "
            "(JOBMON_REDACT_KEYS)."
        )
    if _POSITION.search(name):
        raise ValidationError(
            f"{name} has a position in an array: leave it out, as in payload.items.sku, which "
            "finds each element."
        )
    path = payload.find_path(inner) if payload is not None and not payload.only_in else None
    if path is None:
        raise ValidationError(
            f"{name} cannot be searched: the profile computes it, or gives a payload to only some "
            "jobs or none, so no index is possible."
        )
    return path
