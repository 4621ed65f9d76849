"""Proposes a profile for a collection that looks like a queue, with a reason for each line."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pymongo.errors import PyMongoError

from jobmon.domain import JobStatus
from jobmon.humanize import count
from jobmon.redaction.redactor import Redactor
from jobmon.setup.collection_sample import WITHOUT_ZONE, CollectionSample, SampledField
from jobmon.setup.recognition import Certainty
from jobmon.setup.statuses import Resample, StatusMeanings, add_rare_statuses
from jobmon.setup.vocabulary import (
    ATTEMPT_ARRAYS,
    ATTEMPT_COUNTS,
    COLLECTION_WORDS,
    DATES,
    ERRORS,
    FAILED_WORDS,
    LEASE_STARTS,
    MAX_ATTEMPTS,
    MAX_RETRIES,
    PAYLOADS,
    PRIORITIES,
    REMAINING_COUNTS,
    RETRY_COUNTS,
    STATUS,
    STATUS_WORDS,
    TYPES,
    WORKERS,
    find_owner,
    find_path,
    normalize,
)

_MAX_STATUSES = 15
_MOST_DOCUMENTS, _NEARLY_ALL = 0.9, 0.95  # shares of documents
_FEW_TYPES = 20  # a field with at most this many values may hold the type
_JOB_REFERENCES = ("jobid", "taskid", "job", "task")
_ERROR_KEYS = {"code", "message", "stack"}
_IDS = ("string", "objectId", "number")


@dataclass(kw_only=True)
class Proposal:
    """Whether a collection is a queue, and the text of a profile for it.

    `certainty`: None if it does not look like a queue; then `reasons` explain why not. `doubts`:
    what a person who knows the program should check. `profile`: None without a queue or a status.
    """

    certainty: Certainty | None
    reasons: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    profile: str | None = None


def propose(sample: CollectionSample, resample: Resample) -> Proposal | None:
    """A proposal; None if a collection has no status, is no log, and has at most one queue sign.

    `resample` reads a sample of the documents that match a query.
    """
    return _Proposer(sample, resample).propose()


class _Proposer:
    def __init__(self, sample: CollectionSample, resample: Resample) -> None:
        self._sample = sample
        self._resample = resample
        self._used: set[str] = set()
        self._doubts: list[str] = []
        self._readings: dict[str, str] = {}
        self._payload: SampledField | None = None  # `_find` reads it
        self._payload = self._find(PAYLOADS, _is_content, nested=False)
        self._status_counts = Counter[str]()
        self._status = self._find_status()
        self._dates = {name: self._find_date(name) for name in DATES}
        self._lease_start = self._find(LEASE_STARTS, _is_date, are_dates=True)
        self._worker = self._find(WORKERS, lambda sampled: sampled.has_only(*_IDS))
        self._attempts = self._find(ATTEMPT_COUNTS, _is_number)
        self._retries = self._find(RETRY_COUNTS, _is_number)
        self._remaining = self._find(REMAINING_COUNTS, _is_number)
        self._max_attempts = self._find(MAX_ATTEMPTS, _is_number)

    def propose(self) -> Proposal | None:
        signs = self._list_signs()
        statuses = self._list_statuses()
        known_share, meanings = self._recognize_statuses(statuses)
        if self._is_log(statuses):
            return Proposal(
                certainty=None,
                reasons=["its documents refer to jobs in another collection: attempts, or a log"],
            )
        if self._status is None:
            if len(signs) < 2:
                return None
            return Proposal(
                certainty=Certainty.POSSIBLE,
                reasons=[f"it has {', '.join(signs)}"],
                doubts=[
                    "no field holds a status, so write its rules yourself: docs/adapters.md, "
                    "“Write a profile in five steps”"
                ],
            )
        values = f"{self._status.path} has {count(len(statuses), 'distinct value')}"
        active = meanings & {JobStatus.QUEUED, JobStatus.LEASED}
        has_job_statuses = known_share >= _MOST_DOCUMENTS and bool(active)
        has_queue_name = COLLECTION_WORDS.search(self._sample.collection) is not None
        if len(signs) >= 2:
            has_job_sign = self._payload or has_queue_name or self._worker
            is_probable = has_job_statuses and has_job_sign and len(statuses) > 1
            certainty = Certainty.PROBABLE if is_probable else Certainty.POSSIBLE
        elif signs and has_job_statuses and (self._payload or has_queue_name):
            is_clear = len(active) == 2 and self._payload and has_queue_name
            certainty = Certainty.PROBABLE if is_clear else Certainty.POSSIBLE
        else:
            present = f"only {signs[0]}" if signs else "no worker, attempts, due date or start"
            return Proposal(
                certainty=None, reasons=[f"{values}, but of the signs of a queue it has {present}"]
            )
        reasons = [values, f"it has {', '.join(signs)}"]
        if known_share >= _MOST_DOCUMENTS:
            reasons.insert(1, "these are words for the statuses of jobs")
        profile = self._format_profile(self._status, statuses)
        return Proposal(certainty=certainty, reasons=reasons, doubts=self._doubts, profile=profile)

    def _find(
        self,
        names: Iterable[str],
        accept: Callable[[SampledField], bool],
        *,
        share: float = 0.0,
        nested: bool = True,
        are_dates: bool = False,
    ) -> SampledField | None:
        """The field with the first of these names that `accept` accepts; later calls skip it.

        With `nested`, fields of embedded documents are searched, too.
        """
        paths = [
            path
            for path, sampled in self._sample.fields.items()
            if path not in self._used
            and path.count(".") <= (1 if nested else 0)
            and not path.startswith("_id.")
            and sampled.documents
            and self._sample.share(path) >= share
            and accept(sampled)
        ]
        if self._payload is not None:  # a field of the payload is no field of the job
            paths = [path for path in paths if not path.startswith(f"{self._payload.path}.")]
        path = find_path(names, paths, are_dates=are_dates)
        if path is None:
            return None
        self._used.add(path)
        return self._sample.fields[path]

    def _find_status(self) -> SampledField | None:
        """The field of the status; adds documents with rare statuses to the sample."""
        status = self._find(STATUS, _is_status, share=_MOST_DOCUMENTS)
        if status is None:
            return None
        # The counts without the documents that are added are those of a random sample.
        self._status_counts.update(status.value_counts)
        if doubt := add_rare_statuses(self._sample, status, self._resample):
            self._doubts.append(doubt)
        return status if _is_status(status) else None

    def _find_date(self, name: str) -> SampledField | None:
        share = _NEARLY_ALL if name == "createdAt" else 0.0
        return self._find(DATES[name], _is_date, share=share, are_dates=True)

    def _list_signs(self) -> list[str]:
        """The signs of a queue that the documents have, each with its fields."""
        groups = {
            "a worker's lease": (self._worker, self._dates["leaseExpiresAt"], self._lease_start),
            "attempts": (self._attempts, self._retries, self._remaining, self._max_attempts),
            "a due date": (self._dates["nextRunAt"],),
            "the start of a run": (self._dates["startedAt"],),
        }
        signs = {sign: [item.path for item in group if item] for sign, group in groups.items()}
        return [f"{sign} ({', '.join(paths)})" for sign, paths in signs.items() if paths]

    def _is_log(self, statuses: list[str]) -> bool:
        """Whether the documents refer to jobs, each of which may have several documents."""
        path = find_path(_JOB_REFERENCES, self._sample.top_level)
        if path is None or self._dates["nextRunAt"] is not None or self._payload is not None:
            return False
        reference = self._sample.fields[path]
        is_unique = len(reference.distinct) == reference.documents
        has_queued = JobStatus.QUEUED in {STATUS_WORDS.get(normalize(name)) for name in statuses}
        return not (reference.types["object"] or (is_unique and has_queued))

    def _list_statuses(self) -> list[str]:
        if self._status is None or self._status.value_counts is None:
            return []
        return [status for status, _ in self._status.value_counts.most_common()]

    def _recognize_statuses(self, statuses: list[str]) -> tuple[float, set[str | None]]:
        """The share of documents with a known status, and the meanings of the known statuses."""
        known = [name for name in statuses if normalize(name) in {*STATUS_WORDS, *FAILED_WORDS}]
        total = self._status_counts.total()
        share = sum(self._status_counts[name] for name in known) / total if total else 0.0
        return share, {STATUS_WORDS.get(normalize(name)) for name in known}

    def _format_profile(self, status: SampledField, statuses: list[str]) -> str:
        meanings = StatusMeanings(
            path=status.path,
            names=statuses,
            resample=self._resample,
            due=self._dates["nextRunAt"],
            last_run=self._dates["startedAt"] or self._lease_start or self._dates["updatedAt"],
            doubts=self._doubts,
        ).find()
        fields = self._map_fields({meaning for meaning, _ in meanings.values()})
        forms = {path: self._sample.fields[path].forms for path in self._readings}
        if without_zone := [path for path in forms if forms[path][WITHOUT_ZONE]]:
            self._doubts.append(
                f"dates in {', '.join(without_zone)} have no time zone: they are read as UTC"
            )
        lines = [
            f"# Proposed by `jobmon init --discover` from {self._sample.documents} documents.",
            "# Compare it with what your program does; docs/adapters.md describes the format.",
            f"collection = {_quote(self._sample.collection)}",
        ]
        if self._sample.share(status.path) < 1 and self._has_other_documents(status.path):
            where = f'{{ {_quote(status.path)} = {{ "$exists" = true }} }}'
            lines.append(f"where = {where}  # documents without a status are no jobs")
        lines += ["", "[status]", f"path = {_quote(status.path)}", "", "[status.names]"]
        for name in statuses:
            if name in meanings:
                meaning, reason = meanings[name]
                lines.append(f"{_quote(name)} = {_quote(meaning)}  # {reason}")
            else:
                lines.append(f'# {_quote(name)} = "…"  # unsure')
        if self._readings:
            lines += ["", "[readings]"]
            lines += [f"{_quote(path)} = {_quote(form)}" for path, form in self._readings.items()]
        lines += ["", "[fields]", *fields, "", "[attempts]", 'in = "job"', ""]
        return "\n".join(lines)

    def _has_other_documents(self, status: str) -> bool:
        """Whether documents without a status lack other fields of jobs, too; adds a doubt."""
        try:
            others = self._resample({status: {"$exists": False}})
        except PyMongoError:
            return False
        common = [path for path in self._used if self._sample.share(path) >= _MOST_DOCUMENTS]
        is_other = any(others.share(path) < _MOST_DOCUMENTS for path in common if path != status)
        if others.documents:
            meaning = "left out" if is_other else "jobs with the status null"
            self._doubts.append(f"documents without {status} are {meaning}")
        return bool(others.documents) and is_other

    def _map_fields(self, statuses: set[str]) -> list[str]:
        lines = [_format_line("jobId", '"_id"', "every document has it"), self._map_type()]
        if self._payload is not None:
            lines.append(self._make_line("payload", self._payload))
        priority = self._find(PRIORITIES, _is_number)
        waiting = ["queued", "failed"] if "queued" in statuses else []
        leased = ["leased"] if "leased" in statuses else []
        lines += self._map_creation()
        for name, sampled, only_in in (
            ("priority", priority, []),
            ("updatedAt", self._dates["updatedAt"], []),
            ("nextRunAt", self._dates["nextRunAt"], waiting),
            ("startedAt", self._dates["startedAt"], []),
            ("finishedAt", self._dates["finishedAt"], []),
            ("leasedBy", self._worker, leased),
            ("leaseExpiresAt", self._dates["leaseExpiresAt"], leased),
            ("attemptCount", self._attempts, []),
            ("maxAttempts", self._max_attempts, []),
        ):
            if sampled is not None:
                lines.append(self._make_line(name, sampled, only_in))
        lines += self._map_error()
        self._note_unmapped()
        return lines

    def _make_line(self, name: str, sampled: SampledField, only_in: Sequence[str] = ()) -> str:
        value = _quote(sampled.path)
        if only_in:
            value = f"{{ path = {value}, only_in = {json.dumps(only_in)} }}"
        if sampled.date_form not in (None, "date") and name.endswith("At"):
            self._readings[sampled.path] = str(sampled.date_form)
        return _format_line(name, value, self._describe(sampled))

    def _describe(self, sampled: SampledField) -> str:
        types = ", ".join(kind for kind, _ in sampled.types.most_common(3))
        return f"{types} in {sampled.documents} of {self._sample.documents} documents"

    def _map_type(self) -> str:
        def has_types(sampled: SampledField) -> bool:
            limit = max(_FEW_TYPES, sampled.documents // 2)
            has_few_values = sampled.value_counts is not None and len(sampled.distinct) <= limit
            return sampled.has_only("string") and has_few_values

        type_field = self._find(TYPES, has_types, share=_MOST_DOCUMENTS, nested=False)
        if type_field is None:
            return _format_line("type", '{ constant = "$collection" }', "no field names the types")
        comment = f"{self._describe(type_field)}, {len(type_field.distinct)} distinct"
        return _format_line("type", _quote(type_field.path), comment)

    def _map_creation(self) -> list[str]:
        if (created := self._dates["createdAt"]) is not None:
            return [self._make_line("createdAt", created)]
        id_field = self._sample.fields.get("_id")
        if id_field is not None and id_field.has_only("objectId"):
            return [_format_line("createdAt", '"_id"', "the time in the ObjectId")]
        self._doubts.append("no field has the time of creation in every document")
        return []

    def _map_error(self) -> list[str]:
        error = self._find(ERRORS, lambda sampled: sampled.has_only("string", "object"))
        if error is None:
            return []
        if error.types["object"] and not error.keys & _ERROR_KEYS:
            self._doubts.append(f"{error.path} has no code, message or stack: it is not mapped")
            return []
        return [self._make_line("lastError", error)]

    def _note_unmapped(self) -> None:
        """Add doubts about useful fields whose meaning their names do not show."""
        if self._attempts is None and self._retries is not None:
            self._doubts.append(
                f"{self._retries.path} may count retries or failures: if it counts retries, add "
                f"attemptCount = {{ path = {_quote(self._retries.path)}, plus = 1 }}"
            )
        max_retries = self._find(MAX_RETRIES, _is_number)
        if max_retries is not None and self._max_attempts is None:
            self._doubts.append(
                f"{max_retries.path} may limit retries: then add maxAttempts = "
                f"{{ path = {_quote(max_retries.path)}, plus = 1 }}"
            )
        if self._lease_start is not None and self._dates["leaseExpiresAt"] is None:
            self._doubts.append(
                f"how long a lease lasts after {self._lease_start.path} is in the program: add "
                f'leaseExpiresAt = {{ path = {_quote(self._lease_start.path)}, plus = "… min" }}'
            )
        paths = [path for path, sampled in self._sample.fields.items() if sampled.has_only(*_IDS)]
        if (owner := find_owner(paths, self._payload.path if self._payload else None)) is not None:
            self._doubts.append(
                f"{owner} may be a job's owner: users would see the jobs with their id there. If "
                f"that is right, add createdBy = {_quote(owner)}"
            )
        array = self._find(
            ATTEMPT_ARRAYS, lambda sampled: sampled.has_only("array") and bool(sampled.keys)
        )
        if array is not None:
            self._doubts.append(
                f'the array {array.path} may hold attempts: see `in = "array"` in docs/adapters.md'
            )


def _is_content(sampled: SampledField) -> bool:
    return sampled.has_only("object", "array", "string")


def _is_date(sampled: SampledField) -> bool:
    return sampled.date_form is not None


def _is_number(sampled: SampledField) -> bool:
    return sampled.has_only("number")


def _is_status(sampled: SampledField) -> bool:
    values = sampled.value_counts
    if (
        values is None
        or len(values) > _MAX_STATUSES
        or not sampled.has_only("string", "number", "bool")
    ):
        return False
    redactor = Redactor()
    return all(value.isprintable() and redactor.redact(value) == value for value in values)


def _format_line(name: str, value: str, comment: str) -> str:
    return f"{name} = {value}  # {comment}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
