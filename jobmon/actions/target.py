"""What a request changes: selected jobs, jobs that match a filter, types, or an earlier request."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from jobmon.actions.catalog import RequestError
from jobmon.domain import JobCondition
from jobmon.rollup.documents import MalformedError, require_type
from jobmon.store.filter import JobFilter
from jobmon.store.mapping import Document
from jobmon.store.search import SearchTerm

MAX_IDS = 1_000
MAX_TYPES = 100
MAX_ID_LENGTH = 1_000  # characters

_TEXT_LISTS = ("statuses", "types")
_TEXTS = ("owner", "error_code", "error_group", "worker", "job_id", "order_by")
_DATES = tuple(f"{date}_{end}" for date in ("created", "finished", "due") for end in ("from", "to"))
_NUMBERS = ("min_attempts", "priority")
_STORED = {*_TEXT_LISTS, *_TEXTS, *_DATES, *_NUMBERS, "condition", "is_own", "search"}


class TargetKind(StrEnum):
    """How the jobs of a request are chosen."""

    IDS = "ids"
    FILTER = "filter"
    TYPES = "types"
    REQUEST = "request"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a request is for: exactly one of the four fields has a value.

    `job_ids`: printed ids of jobs. `job_filter`: the filter of a list of jobs. `types`: names of
    types. `request_id`: an earlier request, for the jobs that it changed. RequestError if a field
    is not valid.

        Target(job_ids=("a1", "a2")); Target(job_filter=JobFilter(statuses=("dlq",)))
    """

    job_ids: tuple[str, ...] = ()
    job_filter: JobFilter | None = None
    types: tuple[str, ...] = ()
    request_id: str | None = None

    def __post_init__(self) -> None:
        values = (self.job_ids or None, self.job_filter, self.types or None, self.request_id)
        if sum(value is not None for value in values) != 1:
            raise RequestError("ids", "Give either ids, a filter, types or a request.")
        if len(self.job_ids) > MAX_IDS:
            raise RequestError("ids", f"At most {MAX_IDS:,} ids; use a filter for more jobs.")
        if any(not job_id or len(job_id) > MAX_ID_LENGTH for job_id in self.job_ids):
            raise RequestError("ids", f"An id has 1 to {MAX_ID_LENGTH:,} characters.")
        if len(set(self.job_ids)) != len(self.job_ids):
            raise RequestError("ids", "An id is given twice.")
        if len(set(self.types)) != len(self.types):
            raise RequestError("type", "A type is given twice.")
        if len(self.types) > MAX_TYPES:
            raise RequestError("type", f"At most {MAX_TYPES} types.")

    @property
    def kind(self) -> TargetKind:
        """How the jobs are chosen."""
        if self.job_filter is not None:
            return TargetKind.FILTER
        if self.request_id is not None:
            return TargetKind.REQUEST
        return TargetKind.IDS if self.job_ids else TargetKind.TYPES

    @property
    def listed_count(self) -> int:
        """The number of selected ids or types; 0 for a filter or an earlier request."""
        return len(self.job_ids) + len(self.types)

    @property
    def is_single(self) -> bool:
        """Whether it is one job by its id, or one type."""
        return self.listed_count == 1

    def dump(self) -> Document:
        if self.job_filter is not None:
            return {"filter": dump_filter(self.job_filter)}
        if self.request_id is not None:
            return {"request": self.request_id}
        return {"ids": list(self.job_ids)} if self.job_ids else {"types": list(self.types)}

    @classmethod
    def load(cls, stored: Any) -> Self:
        """The target that `dump` stored; ValueError, KeyError or TypeError for another form."""
        document = require_type(stored, dict)
        if "filter" in document:
            return cls(job_filter=load_filter(document["filter"]))
        if "request" in document:
            return cls(request_id=require_type(document["request"], str))
        return cls(
            job_ids=_load_texts(document.get("ids", [])),
            types=_load_texts(document.get("types", [])),
        )


def dump_filter(job_filter: JobFilter) -> Document:
    """The stored form of a filter, without the fields that `ListPlanner` adds."""
    stored: Document = {
        name: getattr(job_filter, name)
        for name in (*_TEXTS, *_DATES, *_NUMBERS)
        if getattr(job_filter, name) is not None
    }
    stored |= {name: list(value) for name in _TEXT_LISTS if (value := getattr(job_filter, name))}
    if job_filter.condition is not None:
        stored["condition"] = job_filter.condition.value
    if job_filter.is_own:
        stored["is_own"] = True
    if job_filter.search:
        stored["search"] = [
            {"field": term.field, "texts": list(term.texts)} for term in job_filter.search
        ]
    return stored


def load_filter(stored: Any) -> JobFilter:
    """The filter that `dump_filter` stored; ValueError, KeyError or TypeError for another form."""
    document = require_type(stored, dict)
    if unknown := document.keys() - _STORED:
        raise MalformedError(f"unknown condition {sorted(unknown)[0]}")
    conditions: dict[str, Any] = {
        name: require_type(document[name], kind)
        for names, kind in ((_TEXTS, str), (_DATES, datetime), (_NUMBERS, int))
        for name in names
        if name in document
    }
    conditions |= {name: _load_texts(document[name]) for name in _TEXT_LISTS if name in document}
    if "condition" in document:
        conditions["condition"] = JobCondition(document["condition"])
    search = tuple(
        SearchTerm(field=require_type(term["field"], str), texts=_load_texts(term["texts"]))
        for term in document.get("search", [])
    )
    return JobFilter(**conditions, search=search, is_own=bool(document.get("is_own", False)))


def narrow_filter(job_filter: JobFilter, statuses: tuple[str, ...]) -> JobFilter | None:
    """The filter, narrowed to jobs with one of these statuses; None if it excludes them all."""
    narrowed = tuple(status for status in job_filter.statuses or statuses if status in statuses)
    return replace(job_filter, statuses=narrowed) if narrowed else None


def _load_texts(stored: Any) -> tuple[str, ...]:
    return tuple(require_type(text, str) for text in require_type(stored, list))
