"""Finds what a text of the search box may mean: jobs, and names that the collector knows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property

from marshmallow import ValidationError

from jobmon.api.fields import redact
from jobmon.api.queries import MIN_ID_PREFIX, ListQuery, load_list_query
from jobmon.api.search_text import (
    STATUSES,
    SearchText,
    explain_refused,
    format_filters,
    list_keys,
    parse_search,
    shown_key,
    to_parameters,
)
from jobmon.domain import JOB_STATUS_WORDS, CappedCount
from jobmon.rollup.buckets import HOUR
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.series import NoCollectorError
from jobmon.store.bson_json import to_text
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.labels import can_filter_by, label
from jobmon.store.mapping import Document
from jobmon.store.search import is_prefix
from jobmon.store.stats import QueueStats
from jobmon.web.queues import WatchedQueue

# Inexact meanings of one kind. Lists of jobs are of one kind if they have the same note.
MAX_PER_KIND = 4
MAX_MEANINGS = 12  # in total
NO_STATISTICS = "no collector keeps statistics"
NO_HISTORY = "no collector keeps a history"

Filters = Mapping[str, list[str]]

# The parameters that are not named like their field of the job, each with the field.
_FIELDS = {"owner": "createdBy", "error_code": "lastError.code"}


class MeaningKind(StrEnum):
    """What a text may mean."""

    JOB = "job"
    JOBS = "jobs"  # a list of jobs
    ERROR = "error"  # a group of errors
    TYPE = "type"  # the page of a type
    WORKER = "worker"  # the page of a worker
    KEY = "key"  # the beginning of a filter


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """Something that a text may mean.

    `value`: the id of a job or of a group of errors, a name, a key, or the title of a list.
    `title`: its title for people. `note`: a description for people. `text`: the search text that
    finds exactly this meaning; None if no text does. `filters`: the filters of the list of jobs.
    `jobs`: how many jobs match; None if unknown. `is_exact`: whether the text is the whole value or
    name, not only a part.
    """

    kind: MeaningKind
    value: str
    title: str
    note: str
    text: str | None = None
    filters: Filters = field(default_factory=dict)
    jobs: CappedCount | None = None
    is_exact: bool = False


@dataclass(frozen=True, kw_only=True)
class Meanings:
    """The meanings of a text, the exact ones first; `reasons`: why some names were not searched."""

    search: SearchText
    found: tuple[Meaning, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def find_meanings(queue: WatchedQueue, text: str, owner: str | None = None) -> Meanings:
    """The meanings of a text in a queue; raises PyMongoError.

    It reads the collector's statistics and history, and a bounded number of index keys. With
    `owner`, only the jobs of this owner are searched.
    """
    fields = queue.settings.search_fields
    search = explain_refused(parse_search(text, fields), fields)
    finder = _Finder(queue, search, owner)
    meanings: dict[tuple[str, str], Meaning] = {}
    inexact_counts: Counter[tuple[str, str]] = Counter()
    for meaning in finder.find():
        key = meaning.kind, str(meaning.filters) if meaning.filters else meaning.value
        count_key = meaning.kind, meaning.note if meaning.filters else ""
        if key in meanings or (not meaning.is_exact and inexact_counts[count_key] == MAX_PER_KIND):
            continue
        meanings[key] = meaning
        inexact_counts[count_key] += not meaning.is_exact
    ranked = sorted(meanings.values(), key=lambda meaning: not meaning.is_exact)
    return Meanings(search=search, found=tuple(ranked[:MAX_MEANINGS]), reasons=finder.reasons)


def make_list_query(filters: Filters, owner: str | None = None) -> ListQuery:
    """The query for jobs with these filters; ValidationError if they cannot be combined."""
    return load_list_query(to_parameters(filters), owner)


class _Finder:
    """Finds what a text means; with `owner`, among the jobs of this owner."""

    def __init__(self, queue: WatchedQueue, search: SearchText, owner: str | None) -> None:
        self._queue = queue
        self._search = search
        self._owner = owner
        self._fields = queue.settings.search_fields
        self._filters = search.filters
        self._phrase = " ".join(search.words)
        self.reasons: dict[str, str] = {}

    def find(self) -> Iterator[Meaning]:
        """Every meaning, the most important first; some meanings come twice."""
        search = self._search
        if not search.parts:
            return
        yield from self._find_ids()
        if self._phrase:
            yield from self._find_values()
            yield from self._find_by_each_word()
        elif not search.problems:
            yield self._make_list(search.text, "filters", self._filters, is_exact=True)
        if self._owner is None:
            yield from self._complete_names()
            yield from self._find_errors()
        yield from self._complete_keys()

    def _find_ids(self) -> Iterator[Meaning]:
        """The job whose id is the text; for a beginning of ids, their list and their first jobs."""
        typed = self._filters.get("job_id", [self._phrase])[0]
        for text in dict.fromkeys(filter(None, (self._search.text, typed))):
            if (job := self._find_job(text)) is not None:
                yield _describe_job(job, is_exact=True)
        if self._owner is None and len(typed) >= MIN_ID_PREFIX:
            jobs = self._queue.finder.find_by_prefix(typed, MAX_PER_KIND)
            if len(jobs) > 1:
                filters = {**self._filters, "job_id": [typed]}
                yield self._make_list(f"{typed}…", "beginning of the id", filters)
            yield from map(_describe_job, jobs)

    def _find_job(self, job_id: str) -> Document | None:
        if self._owner is None:
            return self._queue.finder.find(job_id)
        looked_up = self._queue.lists.look_up([job_id], JobFilter(), self._owner)
        return looked_up[0][0] if looked_up else None

    def _find_values(self) -> Iterator[Meaning]:
        """The lists of jobs that have all words together as status, type, owner or other value.

        For a type and a worker, the page, too.
        """
        phrase = self._phrase
        candidates = {"status": STATUSES.get(phrase.lower(), phrase), "type": phrase}
        if self._owner is None:
            candidates |= dict.fromkeys(("owner", "worker", "error_code"), phrase)
        for parameter, value in (candidates | dict.fromkeys(self._fields, phrase)).items():
            if parameter in self._filters:
                continue
            count = self._count(parameter, value)
            if count is None or not count.value:
                continue
            if parameter != "worker" or self._queue.known_fields.can_filter_by_worker:
                note = shown_key(parameter, self._fields)
                filters = {**self._filters, parameter: [value]}
                yield replace(
                    self._make_list(_show_value(parameter, value), note, filters, is_exact=True),
                    jobs=None if self._filters or parameter == "worker" else count,
                )
            if self._owner is None and parameter in ("type", "worker"):
                yield _describe_page(parameter, value)

    def _find_by_each_word(self) -> Iterator[Meaning]:
        """The list of jobs if each of several words is a status or a type: `dead mail`."""
        words = self._search.words
        filters = {name: [*values] for name, values in self._filters.items()}
        if len(words) < 2:
            return
        for word in words:
            status = STATUSES.get(word.lower())
            if status is None and not ((count := self._count("type", word)) and count.value):
                return
            filters.setdefault("type" if status is None else "status", []).append(status or word)
        yield self._make_list(self._search.text, "filters", filters, is_exact=True)

    def _make_list(
        self, title: str, note: str, filters: Filters, *, is_exact: bool = False
    ) -> Meaning:
        count = self._count_by_stats(filters)
        return Meaning(
            kind=MeaningKind.JOBS,
            value=title,
            title=title,
            note=note,
            text=format_filters(filters, self._fields),
            filters=filters,
            jobs=None if count is None else CappedCount(count, True),
            is_exact=is_exact,
        )

    def _count_by_stats(self, filters: Filters) -> int | None:
        """How many jobs match, by the cached statistics; None if the statistics do not show it."""
        types = filters.get("type", ())
        has_prefix = any(map(is_prefix, types))
        if self._owner is not None or has_prefix or filters.keys() - {"status", "type"}:
            return None
        stats = self._stats
        return None if stats is None else stats.count_matching(filters.get("status", ()), types)

    def _count(self, parameter: str, value: str) -> CappedCount | None:
        """How many jobs have this value; None if unknown or too expensive to count.

        For a worker: 1 if its name is known, else 0.
        """
        if parameter == "worker":
            return CappedCount(int(value in self._workers), is_exact=False)
        if (count := self._count_by_stats({parameter: [value]})) is not None:
            return CappedCount(count, True)
        if parameter == "status" and self._owner is None:
            return None  # if rules define the status, counting it may read many jobs
        if not self._queue.known_fields.can_query(_FIELDS.get(parameter, parameter)):
            return None
        try:
            query = make_list_query({parameter: [value]}, self._owner)
            if self._owner is not None:
                return self._queue.stats.count(query.job_filter)
            return self._queue.finder.count(self._queue.lists.prepare(query.job_filter))
        except (ValidationError, RefusedFilterError):
            return None

    def _complete_names(self) -> Iterator[Meaning]:
        """The lists of jobs with a status, type, worker or code that completes the last part.

        The last part is the value after the last key, or all words without a key. A type or a
        worker also has a page.
        """
        last_part = self._search.parts[-1]
        text, parameters = last_part.value, [last_part.parameter]
        if not last_part.parameter:
            text, parameters = self._phrase, ["status", "type", "worker"]
        other_filters = {
            name: [
                value for value in values if (name, value) != (last_part.parameter, last_part.value)
            ]
            for name, values in self._filters.items()
        }
        for parameter in parameters:
            has_list = parameter != "worker" or self._queue.known_fields.can_filter_by_worker
            for index, name in enumerate(
                _select_names(text, self._list_names(parameter), parameter)
            ):
                if has_list:
                    values = [*other_filters.get(parameter, ()), name]
                    filters = {**other_filters, parameter: values}
                    note = shown_key(parameter, self._fields)
                    yield self._make_list(_show_value(parameter, name), note, filters)
                is_first = index == 0 and not any(other_filters.values())
                if parameter in ("type", "worker") and (is_first or not has_list):
                    yield _describe_page(parameter, name)

    def _list_names(self, parameter: str) -> Iterable[str]:
        match parameter:
            case "status":
                counts = None if self._stats is None else self._stats.status_counts()
                return filter(can_filter_by, counts or JOB_STATUS_WORDS)
            case "type":
                return self._types
            case "worker":
                return self._workers
            case "error_code":
                groups = [] if self._history is None else self._history.groups.values()
                codes = {str(redact(group.code)) for group in groups if group.code is not None}
                return codes if self._queue.known_fields.can_query("lastError.code") else ()
        return ()

    def _find_errors(self) -> Iterator[Meaning]:
        """The groups of errors whose code or message contains every word, the latest first."""
        words = [word.casefold() for word in self._search.words]
        if not words or self._filters or self._history is None:
            return
        groups = sorted(self._history.groups.values(), key=lambda group: group.last_seen)
        for group in reversed(groups):
            code, pattern = redact(group.code), redact(group.pattern)
            text = f"{code or ''} {pattern}".casefold()
            if all(word in text for word in words):
                yield Meaning(
                    kind=MeaningKind.ERROR,
                    value=group.id,
                    title=code or pattern,
                    note=f"error: {pattern}" if code else "error",
                )

    def _complete_keys(self) -> Iterator[Meaning]:
        """The keys that begin with the last word; none if the last part has a key."""
        last_part = self._search.parts[-1]
        if last_part.parameter:
            return
        for key in list_keys(self._fields, is_operator=self._owner is None):
            if last_part.value and key.lower().startswith(last_part.value.lower()):
                text = self._search.replace_last(f"{key}:")
                yield Meaning(kind=MeaningKind.KEY, value=key, title=text, note="filter", text=text)

    # --- The collector's statistics and history

    @cached_property
    def _stats(self) -> QueueStats | None:
        stats = self._queue.stats.cached_stats()
        if stats is None or stats.counts is None:
            self.reasons["types"] = NO_STATISTICS
            return None
        return stats

    @cached_property
    def _types(self) -> frozenset[str]:
        counts = None if self._stats is None else self._stats.counts
        return frozenset(filter(can_filter_by, (job_type for _, job_type in counts or ())))

    @cached_property
    def _history(self) -> RunHistory | None:
        """The history of the last hour, with all known groups of errors."""
        now = datetime.now(UTC)
        try:
            return self._queue.runs.read(self._queue.series.window(now - HOUR, now, None))
        except NoCollectorError:
            self.reasons |= dict.fromkeys(("errors", "workers"), NO_HISTORY)
            return None

    @cached_property
    def _workers(self) -> frozenset[str]:
        """The workers that run a job or ended one in the last hour, if redaction keeps the name."""
        running = {job.worker for job in self._queue.running.read().jobs}
        details = None if self._history is None else self._history.details
        ended = {worker for worker, _ in details.worker_types} if details is not None else set()
        names = (name for name in running | ended if name is not None and can_filter_by(name))
        return frozenset(name for name in names if redact(name) == name)


def _select_names(text: str, names: Iterable[str], parameter: str) -> list[str]:
    """At most four names that contain a text: names that begin with it first, then the shortest.

    There are few statuses: they must begin with the text.
    """
    part = text.casefold()
    shown = {name: _show_value(parameter, name).casefold() for name in names}
    matches = str.startswith if parameter == "status" else str.__contains__
    matching = [name for name in shown if matches(shown[name], part)]
    matching.sort(key=lambda name: (not shown[name].startswith(part), len(name), name))
    return matching[:MAX_PER_KIND]


def _show_value(parameter: str, value: str) -> str:
    """A value as people read it: a status by its word."""
    return JOB_STATUS_WORDS.get(value, value) if parameter == "status" else value


def _describe_job(job: Document, *, is_exact: bool = False) -> Meaning:
    job_id = to_text(job.get("jobId")) or ""
    status = label(job.get("status"))
    return Meaning(
        kind=MeaningKind.JOB,
        value=job_id,
        title=job_id,
        note=f"job, {label(job.get('type'))}, {JOB_STATUS_WORDS.get(status, status)}",
        text=format_filters({"job_id": [job_id]}, ()),
        is_exact=is_exact,
    )


def _describe_page(parameter: str, name: str) -> Meaning:
    kind = MeaningKind.TYPE if parameter == "type" else MeaningKind.WORKER
    return Meaning(kind=kind, value=name, title=name, note=f"page of the {parameter}")
