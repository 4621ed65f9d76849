"""Checks the search fields: whether jobs have values in them, and whether redaction hides these.

It reads payloads, but no finding shows a value.
"""

from collections.abc import Iterator
from typing import Any

from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.setup.fields import find_used_paths
from jobmon.setup.findings import Finding, ok, problem, warning
from jobmon.store.bson_json import to_json
from jobmon.store.connection import Connection
from jobmon.store.indexes import search_index
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import NoIndexError

_SAMPLE_SIZE = 200  # jobs
_MAX_BYTES = 100_000  # the check skips larger jobs


def find_unused_fields(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """A warning with the fields in which no job of a sample has a value."""
    paths = connection.jobs.mapping.search_paths
    used = find_used_paths(connection.jobs, paths.values(), require_value=True)
    if unused := [name for name, path in paths.items() if path not in used]:
        yield warning(
            "search",
            f"No job of a sample has a value in {', '.join(unused)}: a search there finds nothing.",
            remedy=f"Correct {settings.describe_setting('search_fields')} if a name is misspelled.",
        )


def check_search_fields(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """Report whether sampled jobs have the search fields, and whether redaction hides values."""
    fields = connection.jobs.mapping.search_paths
    if not fields:
        return
    redactor = Redactor(settings.redact_keys)
    findings = list(find_unused_fields(settings, connection))
    for name in fields:
        jobs = _read_sample(connection, name)
        if hidden_count := sum(_is_hidden(job, name, redactor) for job in jobs):
            setting = settings.describe_setting("search_fields")
            findings.append(
                problem(
                    "search",
                    f"Redaction hides the value of {name} in {hidden_count} of {len(jobs)} jobs, "
                    "but a search that ends in `*` can find it character by character.",
                    remedy=f"Remove {name} from {setting}.",
                )
            )
    yield from findings or [ok("search", f"Jobs have the fields {', '.join(fields)}.")]


def _read_sample(connection: Connection, name: str) -> list[Document]:
    """Jobs that have the field, with their payload; the newest jobs if its index is missing."""
    has_field: list[Document] = [{"$match": {name: {"$exists": True}}}]
    try:
        return _read_jobs(connection, has_field, search_index(name))
    except NoIndexError:
        return _read_jobs(connection, [{"$sort": {"_id": -1}}], [("_id", 1)])


def _read_jobs(connection: Connection, first_stages: list[Document], index: Keys) -> list[Document]:
    is_small = {"$lte": [{"$bsonSize": "$$ROOT"}, _MAX_BYTES]}
    pipeline = [
        *first_stages,
        {"$limit": _SAMPLE_SIZE},
        {"$match": {"$expr": is_small}},
        {"$project": {"payload": True}},
    ]
    jobs, mapping = connection.jobs, connection.jobs.mapping
    return jobs.aggregate(pipeline, index=index, require_index=True, transform=mapping.to_contract)


def _is_hidden(job: Document, name: str, redactor: Redactor) -> bool:
    """Whether redaction changes the value of the field in this job."""
    payload, parts = to_json(job.get("payload")), name.split(".")[1:]
    return _get_values(payload, parts) != _get_values(redactor.redact(payload), parts)


def _get_values(value: Any, parts: list[str]) -> list[Any]:
    """The values at a path, even inside arrays."""
    if isinstance(value, list):
        return [inner for element in value for inner in _get_values(element, parts)]
    if not parts:
        return [value]
    if not isinstance(value, dict) or parts[0] not in value:
        return []
    return _get_values(value[parts[0]], parts[1:])
