"""The links of a job to other systems, as JOBMON_LINKS defines them."""

from typing import Any

from bson import DBRef

from jobmon.api.fields import redact
from jobmon.settings import Settings
from jobmon.settings.links import MAX_VALUE_LENGTH, PAYLOAD, NoLinkError
from jobmon.store.bson_json import to_json, to_text
from jobmon.store.mapping import Document

# In a document {name: KEY, value: SECRET}, only a text of at most this length can be the KEY.
_MAX_NAME_LENGTH = 200


def list_links(settings: Settings, job: Document) -> list[dict[str, str | None]]:
    """The links of a job (from `JobStore.get_job`): the `name` and the `url` of each.

    `url` is None if it cannot be made from the job; `reason` explains it.
    """
    if not settings.links:
        return []
    values = _read_values(settings, job)

    def get_value(field: str) -> Any:
        if field.startswith(PAYLOAD):
            return _read_payload(job.get("payload"), field.removeprefix(PAYLOAD).split("."))
        return values[field]

    links: list[dict[str, str | None]] = []
    for link in settings.links:
        try:
            links.append({"name": link.name, "url": link.fill(get_value), "reason": None})
        except NoLinkError as error:
            links.append({"name": link.name, "url": None, "reason": str(error)})
    return links


def _read_values(settings: Settings, job: Document) -> dict[str, Any]:
    """The values that a link can contain, as JSON, except values of the payload."""
    attempts = job.get("attempts") or [{}]
    job_id = _to_value(job.get("jobId"))
    return {
        "jobId": job_id,
        "id": job_id,
        "type": _to_value(job.get("type")),
        "owner": _to_value(job.get("createdBy")),
        "worker": redact(_to_value(job.get("leasedBy") or attempts[-1].get("workerId"))),
        "queue": settings.queue,
        "environment": settings.environment,
    }


def _to_value(value: Any) -> Any:
    """A value as text, as lists print it; a document or an array as JSON, None as None."""
    if value is None or isinstance(value, dict | list | DBRef):
        return to_json(value)
    return to_text(value)


def _read_payload(payload: Any, path: list[str]) -> Any:
    """The value at a path of the payload as JSON, redacted; None if there is no such path.

    If the path goes on below a text or a list, the value is this text or list: redaction can
    replace an object with a text.
    """
    value = redact(_select_part(payload, path))
    for key in path:
        if not isinstance(value, dict):
            return value if value is None or isinstance(value, str | list) else None
        value = value.get(key)
    return value


def _select_part(value: Any, path: list[str]) -> Any:
    """The part of a document that is needed to redact the value at a path.

    The whole document may have 16 MB. The part includes the short texts next to each key of the
    path, because one of them may name the value as a secret.
    """
    if isinstance(value, dict) and path:
        key, *inner = path
        short_texts = {
            name: text
            for name, text in value.items()
            if isinstance(text, str) and len(text) <= _MAX_NAME_LENGTH
        }
        return short_texts | ({key: _select_part(value[key], inner)} if key in value else {})
    if isinstance(value, dict | list | DBRef):
        return [] if isinstance(value, list) else {}
    if path:  # a text or a number has no fields
        return None
    return value[: MAX_VALUE_LENGTH + 1] if isinstance(value, str) else value
