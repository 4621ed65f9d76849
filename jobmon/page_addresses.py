"""The addresses of the pages, without the prefix of a queue or a proxy."""

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlencode

NO_WINDOW: Mapping[str, str] = {}


def instant(moment: str | datetime | None) -> str:
    """A moment in ISO 8601; a text is returned unchanged, None as an empty text."""
    if isinstance(moment, datetime):
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return moment or ""


def query(**parameters: object) -> str:
    """The non-empty parameters as a query string, `?…`; a list or tuple repeats its parameter."""
    filled = {name: value for name, value in parameters.items() if value not in (None, "", (), [])}
    return f"?{urlencode(filled, doseq=True)}" if filled else ""


def job_address(job_id: str, /, **parameters: object) -> str:
    """The address of a job's page."""
    if job_id in ("", ".", ".."):
        # Clients remove `.` and `..` from a path, even percent-encoded; `query` drops an empty id.
        return (
            f"/dashboard/job?{urlencode({'id': job_id})}{query(**parameters).replace('?', '&', 1)}"
        )
    return f"/dashboard/jobs/{quote(job_id, safe='')}{query(**parameters)}"


def worker_address(name: str, window: Mapping[str, str] = NO_WINDOW) -> str:
    """The address of the page of a worker; `window` is the query of a time window."""
    return f"/dashboard/workers{query(worker=name, **window)}"


def type_address(name: str, window: Mapping[str, str] = NO_WINDOW) -> str:
    """The address of the page of the type with the label `name`.

    `window` is the query of a time window.
    """
    if name in (".", ".."):  # clients remove them from a path
        return f"/dashboard/type{query(name=name, **window)}"
    return f"/dashboard/types/{quote(name, safe='')}{query(**window)}"


def error_address(group_id: str, window: Mapping[str, str] = NO_WINDOW) -> str:
    """The address of the page of a group of errors; `window` is the query of a time window."""
    return f"/dashboard/errors/{quote(group_id, safe='')}{query(**window)}"
