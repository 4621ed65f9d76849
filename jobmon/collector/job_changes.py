"""Reads change events: the new values of the job's fields that a profile needs."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from bson import Timestamp

from jobmon.store.bson_json import encode_key, make_aware
from jobmon.store.conversions import get_at_path, overlap
from jobmon.store.mapping import Document

_OPERATIONS = ("insert", "update", "replace", "delete")


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """One change of a job.

    `position` orders the changes of a stream. `document`: the whole document of an insert or a
    replacement. An update has new values by path (`written`), paths that it `removed`, and the new
    lengths of arrays by path (`shortened`).
    """

    operation: str
    job_id: Any
    position: str
    at: datetime
    document: Document | None
    written: Mapping[str, Any]
    removed: tuple[str, ...]
    shortened: Mapping[str, int]

    @cached_property
    def key(self) -> bytes:
        """The job's _id as bytes, to use as a key of a dictionary."""
        return encode_key(self.job_id)

    @cached_property
    def _changed_paths(self) -> tuple[str, ...]:
        return (*self.written, *self.removed, *self.shortened)

    def is_relevant(self, fields: Collection[str]) -> bool:
        """Whether an update changes one of these top-level fields."""
        return any(path.partition(".")[0] in fields for path in self._changed_paths)

    def has_written(self, path: str) -> bool:
        """Whether the change set the value at this path, a part of it, or a value around it.

        A value that was set to null does not count. An insert or a replacement sets the values that
        are in its document.
        """
        if self.document is not None:
            return get_at_path(self.document, path) is not None
        return any(
            value is not None and overlap(name, path) for name, value in self.written.items()
        )

    def has_changed(self, path: str) -> bool:
        """Whether an update changed the value at this path, a part of it, or a value around it."""
        return any(overlap(name, path) for name in self._changed_paths)

    def has_replaced(self, path: str) -> bool:
        """Whether an update set or removed the whole value at this path."""
        return any(
            path == name or path.startswith(f"{name}.") for name in (*self.written, *self.removed)
        )


def read_change(event: Document) -> JobChange | None:
    """The change in an event that has the form of `project_events`; None if it changes no job."""
    if event["operationType"] not in _OPERATIONS:
        return None
    update = event.get("updateDescription") or {}
    return JobChange(
        operation=event["operationType"],
        job_id=event["documentKey"]["_id"],
        position=event["_id"]["_data"],
        at=_read_time(event),
        document=event.get("fullDocument"),
        written={field["k"]: field["v"] for field in update.get("updatedFields") or ()},
        removed=tuple(update.get("removedFields") or ()),
        shortened={item["field"]: item["newSize"] for item in update.get("truncatedArrays") or ()},
    )


def _read_time(event: Document) -> datetime:
    """When the change was made, by the server's clock; before MongoDB 6.0 in whole seconds."""
    time: datetime | Timestamp = event.get("wallTime") or event["clusterTime"]
    return time.as_datetime() if isinstance(time, Timestamp) else make_aware(time).astimezone(UTC)


def project_events(fields: Collection[str]) -> Document:
    """The projection of change events for `read_change`, with these top-level fields of jobs."""
    top_level_field = {"$arrayElemAt": [{"$split": ["$$this.k", "."]}, 0]}
    updated = {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
    names = {"$literal": sorted(fields)}
    return {
        "documentKey": True,
        "operationType": True,
        "clusterTime": True,
        "wallTime": True,
        "fullDocument": dict.fromkeys(["_id", *fields], True),
        "updateDescription": {
            "updatedFields": {
                "$filter": {"input": updated, "cond": {"$in": [top_level_field, names]}}
            },
            "removedFields": True,
            "truncatedArrays": True,
        },
    }


def apply_change(document: Document, change: JobChange) -> Document:
    """The document after an update. `document` itself does not change."""
    changed = dict(document)
    for path, size in change.shortened.items():
        elements = get_at_path(changed, path)
        if isinstance(elements, list):
            _write_path(changed, path.split("."), elements[:size])
    for path in change.removed:
        _write_path(changed, path.split("."), None, is_removed=True)
    return replace_values(changed, change.written)


def replace_values(document: Document, values: Mapping[str, Any]) -> Document:
    """The document with these values, by path. `document` itself does not change."""
    changed = dict(document)
    for path, value in values.items():
        _write_path(changed, path.split("."), value)
    return changed


def _write_path(parent: Document, path: list[str], value: Any, *, is_removed: bool = False) -> None:
    """Write or remove a value at a path in `parent`; inner documents and arrays are copied."""
    name, *inner = path
    if not inner:
        if is_removed:
            parent.pop(name, None)
        else:
            parent[name] = value
        return
    child = parent.get(name)
    if isinstance(child, list):
        parent[name] = _write_element(child, inner, value, is_removed=is_removed)
        return
    copied = dict(child) if isinstance(child, Mapping) else {}
    _write_path(copied, inner, value, is_removed=is_removed)
    parent[name] = copied


def _write_element(
    elements: list[Any], path: list[str], value: Any, *, is_removed: bool
) -> list[Any]:
    """A copy of the array after `_write_path`; the path begins with an element's index.

    To remove an element, the server sets it to null.
    """
    name, *inner = path
    if not name.isdecimal() or int(name) > len(elements):
        return elements  # the change was not to this array
    copied = [*elements, None][: max(len(elements), int(name) + 1)]
    if inner:
        element = copied[int(name)]
        # `_write_path` changes only documents, so put the element into one.
        holder: Document = {"": dict(element) if isinstance(element, Mapping) else element}
        _write_path(holder, ["", *inner], value, is_removed=is_removed)
        copied[int(name)] = holder[""]
    else:
        copied[int(name)] = value
    return copied


def select_paths(document: Document, paths: Iterable[str]) -> Document:
    """The values at these paths, and the _id. An array in a path is kept with all its elements."""
    selected: Document = {"_id": document["_id"]} if "_id" in document else {}
    for path in paths:
        source: Any = document
        target = selected
        *parents, last = path.split(".")
        for name in parents:
            source = source.get(name)
            if not isinstance(source, dict):
                if source is not None:
                    target[name] = source
                break
            target = target.setdefault(name, {})
        else:
            if last in source:
                target[last] = source[last]
    return selected
