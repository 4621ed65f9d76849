"""Proposes a profile for a collection that looks like a queue, with a reason for each line."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pymongo.errors import PyMongoError

from jobmon.domain import JobStatus
from jobmon.humanize import count
from jobmon.setup.collection_sample import WITHOUT_ZONE, CollectionSample, SampledField
from jobmon.setup.found_fields import (
    IDS,
    MOST_DOCUMENTS,
    FoundFields,
    is_date,
    is_mixed_date,
    is_number,
)
from jobmon.setup.recognition import Certainty
from jobmon.setup.status_rules import StatusRule
from jobmon.setup.statuses import Resample, StatusMeanings
from jobmon.setup.vocabulary import (
    ATTEMPT_ARRAYS,
    DATES,
    FAILURE_DATES,
    MAX_RETRIES,
    PRIORITIES,
    TYPES,
    find_owner,
    find_path,
    find_status,
    is_failure,
    normalize,
)

_CLEARLY_KNOWN = 0.75  # share of known statuses if both waiting and running jobs have one
# Statuses that a proposed rule derives from a flag, a lock or a date.
_SHOWN_BY_FIELDS = {JobStatus.LEASED.value, JobStatus.SUCCEEDED.value, JobStatus.DLQ.value}
_FEW_TYPES = 20  # a field with at most this many values may hold the type
_JOB_REFERENCES = ("jobid", "taskid", "job", "task")
_ERROR_KEYS = {"code", "message", "stack"}


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
        self._sample, self._resample = sample, resample
        self._found = FoundFields(sample, resample)
        self._doubts = self._found.doubts
        self._readings: dict[str, str] = {}

    def propose(self) -> Proposal | None:
        found = self._found
        signs = found.list_signs()
        statuses = found.list_statuses()
        known_share, meanings = found.recognize_statuses(statuses)
        if self._is_log(statuses):
            return Proposal(
                certainty=None,
                reasons=["its documents refer to jobs in another collection: attempts, or a log"],
            )
        if found.status is None:
            return self._propose_rules(signs)
        values = f"{found.status.path} has {count(len(statuses), 'distinct value')}"
        active = meanings & {JobStatus.QUEUED, JobStatus.LEASED}
        has_job_statuses = known_share >= MOST_DOCUMENTS and bool(active)
        has_queue_name = found.has_queue_name()
        is_clear = len(meanings) > 2 and (
            (known_share >= _CLEARLY_KNOWN and len(active) == 2)
            or (has_job_statuses and found.has_arguments)
        )
        if len(signs) >= 2:
            has_job_sign = found.has_arguments or has_queue_name or found.worker
            is_probable = has_job_statuses and has_job_sign and len(statuses) > 1
            certainty = Certainty.PROBABLE if is_probable else Certainty.POSSIBLE
        elif signs and has_job_statuses and (found.payload or has_queue_name):
            is_probable = len(active) == 2 and found.payload and has_queue_name
            certainty = Certainty.PROBABLE if is_probable else Certainty.POSSIBLE
        elif is_clear or (found.payload and (has_queue_name or found.worker)):
            certainty = Certainty.POSSIBLE
        else:
            present = f"only {signs[0]}" if signs else "no worker, attempts, due date or start"
            return Proposal(
                certainty=None, reasons=[f"{values}, but of the signs of a queue it has {present}"]
            )
        reasons = [values]
        if known_share >= MOST_DOCUMENTS:
            reasons.append("these are words for the statuses of jobs")
        if signs:
            reasons.append(f"it has {', '.join(signs)}")
        profile = self._format_profile(found.status, statuses)
        return Proposal(certainty=certainty, reasons=reasons, doubts=self._doubts, profile=profile)

    def _propose_rules(self, signs: list[str]) -> Proposal | None:
        """A proposal for a collection without a field for the status."""
        found = self._found
        has_queue_name = found.has_queue_name()
        is_outbox = "outbox" in normalize(self._sample.collection)
        if len(signs) < 2 and not (has_queue_name and (found.payload or signs or is_outbox)):
            return None
        state = found.make_state_fields()
        rules = state.make_rules()
        reasons = [f"it has {', '.join(signs)}"] if signs else []
        statuses = {rule.status for rule in rules} & _SHOWN_BY_FIELDS
        if not statuses and found.has_state_array():
            return Proposal(
                certainty=Certainty.POSSIBLE,
                reasons=reasons,
                doubts=[
                    "an array seems to hold its states, so write its rules yourself: "
                    "docs/adapters.md, “Examples”"
                ],
            )
        if not statuses and (status := _find_status_in_name(self._sample.collection)):
            rules = [StatusRule(status, {})]
            self._doubts[:] = [
                "only the collection's name shows the state: if the other states are in other "
                "collections, watch each as a queue: docs/operations.md, “Several queues”"
            ]
            reasons.append(f"its name has a word for jobs that are {status}")
            is_clear = bool(signs and found.payload)
        else:
            has_job_sign = bool(
                has_queue_name or found.worker or (found.payload and found.attempts)
            )
            is_clear = len(signs) >= 2 and bool(statuses) and has_job_sign and state.is_clear
        if found.payload is not None:
            reasons.append(f"{found.payload.path} may hold arguments")
        paths = (found.payload, found.dates["nextRunAt"], found.attempts, found.dates["createdAt"])
        partial = [item.path for item in paths if item and 0.5 < self._sample.share(item.path) < 1]
        where = self._make_where(partial[0]) if partial else []
        return Proposal(
            certainty=Certainty.PROBABLE if is_clear else Certainty.POSSIBLE,
            reasons=reasons,
            doubts=self._doubts,
            profile=self._format_rules(rules, where),
        )

    def _is_log(self, statuses: list[str]) -> bool:
        """Whether the documents refer to jobs, each of which may have several documents."""
        path = find_path(_JOB_REFERENCES, self._sample.top_level)
        if path is None or self._found.dates["nextRunAt"] or self._found.payload:
            return False
        reference = self._sample.fields[path]
        is_unique = len(reference.distinct) == reference.documents
        has_queued = JobStatus.QUEUED in {find_status(name) for name in statuses}
        return not (reference.types["object"] or (is_unique and has_queued))

    def _format_profile(self, status: SampledField, statuses: list[str]) -> str:
        state = self._found.make_state_fields()
        found = StatusMeanings(
            status=status,
            names=statuses,
            resample=self._resample,
            state=state,
            outcome=self._found.outcome,
            doubts=self._doubts,
        )
        meanings = found.find()
        names = {meaning for meaning, _ in meanings.values()}
        rules = found.make_rules(meanings)
        null = ("other" if rules else "null") if JobStatus.QUEUED in names else JobStatus.QUEUED
        is_partial = self._sample.share(status.path) < 1
        where = self._make_where(status.path, null) if is_partial else []
        jobs = status.present if where else self._sample.documents
        is_waiting = null == JobStatus.QUEUED and status.documents < jobs
        if rules and is_waiting:
            rules.insert(-1, StatusRule(null, {status.path: "$null"}))
        if rules:
            return self._format_rules(rules, where)
        lines = ["", "[status]", f"path = {_quote(status.path)}", "", "[status.names]"]
        for name in statuses:
            if name in meanings:
                meaning, reason = meanings[name]
                lines.append(f"{_quote(name)} = {_quote(meaning)}  # {reason}")
            else:
                lines.append(f'# {_quote(name)} = "…"  # unsure{found.describe(name)}')
        if is_waiting:
            lines.append('null = "queued"  # unsure: documents without a status may wait')
            names.add(null)
        return self._format(where + lines, names)

    def _format_rules(self, rules: list[StatusRule], where: list[str]) -> str:
        lines = ["", "# The first rule that matches counts.", "status = ["]
        lines += [*(rule.format() for rule in rules), "]"]
        return self._format(where + lines, {rule.status for rule in rules})

    def _make_where(self, path: str, status: str | None = None) -> list[str]:
        """The line that leaves out documents without this path, if they are no jobs; adds a doubt.

        They are none if they lack other fields of jobs, too. `status`: that of jobs without `path`.
        """
        try:
            others = self._resample({path: {"$exists": False}})
        except PyMongoError:
            return []
        least_share = MOST_DOCUMENTS * self._sample.share(path)
        common = {used for used in self._found.used if self._sample.share(used) >= least_share}
        runs = (self._found.outcome, *self._found.make_state_fields().list_signs())
        common -= {path, *(item.path for item in runs if item)}  # jobs that wait have no run
        is_other = any(others.share(used) < MOST_DOCUMENTS for used in common)
        if others.documents and (is_other or status is not None):
            meaning = "left out" if is_other else f"jobs with the status {status}"
            self._doubts.append(f"documents without {path} are {meaning}")
        if not (others.documents and is_other):
            return []
        where = f'{{ {_quote(path)} = {{ "$exists" = true }} }}'
        return [f"where = {where}  # documents without {path} are no jobs"]

    def _format(self, first_lines: list[str], statuses: set[str]) -> str:
        """The text of the profile; `first_lines` define which documents are jobs, and the status.

        `statuses`: those that jobs may have.
        """
        fields = self._map_fields(statuses)
        forms = {path: self._sample.fields[path].forms for path in self._readings}
        if without_zone := [path for path in forms if forms[path][WITHOUT_ZONE]]:
            self._doubts.append(
                f"dates in {', '.join(without_zone)} have no time zone: they are read as UTC"
            )
        lines = [
            f"# Proposed by `jobmon init --discover` from {self._sample.documents} documents.",
            "# Compare it with what your program does; docs/adapters.md describes the format.",
            f"collection = {_quote(self._sample.collection)}",
            *first_lines,
        ]
        if self._readings:
            lines += ["", "[readings]"]
            lines += [f"{_quote(path)} = {_quote(form)}" for path, form in self._readings.items()]
        lines += ["", "[fields]", *fields, "", "[attempts]", 'in = "job"', ""]
        return "\n".join(lines)

    def _map_fields(self, statuses: set[str]) -> list[str]:
        lines = [_format_line("jobId", '"_id"', "every document has it"), self._map_type()]
        if self._found.payload is not None:
            lines.append(self._map_payload(self._found.payload))
        priority = self._found.find(PRIORITIES, is_number)
        waiting = ["queued", "failed"] if "queued" in statuses else []
        leased = ["leased"] if "leased" in statuses else []
        lines += self._map_creation()
        for name, sampled, only_in in (
            ("priority", priority, []),
            ("updatedAt", self._found.dates["updatedAt"], []),
            ("nextRunAt", self._found.dates["nextRunAt"], waiting),
            ("startedAt", self._found.dates["startedAt"], []),
            ("finishedAt", *self._find_end(statuses)),
            ("leasedBy", self._found.worker, leased),
            ("leaseExpiresAt", self._found.dates["leaseExpiresAt"], leased),
            ("attemptCount", self._found.attempts, []),
            ("maxAttempts", self._found.max_attempts, []),
        ):
            if sampled is not None:
                lines.append(self._make_line(name, sampled, only_in))
        lines += self._map_error()
        self._note_unmapped()
        return lines

    def _map_payload(self, payload: SampledField) -> str:
        value = _quote(payload.path)
        if payload.is_json:
            value = f"{{ json = {value} }}"
        return _format_line("payload", value, self._describe(payload))

    def _find_end(self, statuses: set[str]) -> tuple[SampledField | None, list[str]]:
        """The date of the end of a run; without one, the date when a job died."""
        if (finished := self._found.dates["finishedAt"]) is not None:
            return finished, []
        return self._found.find(FAILURE_DATES, is_date), ["dlq"] if "dlq" in statuses else []

    def _make_line(self, name: str, sampled: SampledField, only_in: Sequence[str] = ()) -> str:
        value = _quote(sampled.path)
        if only_in:
            value = f"{{ path = {value}, only_in = {json.dumps(only_in)} }}"
        if sampled.date_form not in (None, "date") and name.endswith("At"):
            self._readings[sampled.path] = str(sampled.date_form)
        return _format_line(name, value, self._describe(sampled))

    def _explain_reading(self, date: SampledField) -> str:
        """How to declare the form of a date that no field reads yet, as the end of a sentence."""
        if date.date_form in (None, "date"):
            return ""
        return f", and {_quote(date.path)} = {_quote(str(date.date_form))} to [readings]"

    def _describe(self, sampled: SampledField) -> str:
        types = ", ".join(kind for kind, _ in sampled.types.most_common(3))
        return f"{types} in {sampled.documents} of {self._sample.documents} documents"

    def _map_type(self) -> str:
        def has_types(sampled: SampledField) -> bool:
            limit = max(_FEW_TYPES, sampled.documents // 2)
            has_few_values = sampled.value_counts is not None and len(sampled.distinct) <= limit
            return sampled.has_only("string") and has_few_values

        type_field = self._found.find(TYPES, has_types, share=MOST_DOCUMENTS, nested=False)
        if type_field is None:
            return _format_line("type", '{ constant = "$collection" }', "no field names the types")
        comment = f"{self._describe(type_field)}, {len(type_field.distinct)} distinct"
        return _format_line("type", _quote(type_field.path), comment)

    def _map_creation(self) -> list[str]:
        if (created := self._found.dates["createdAt"]) is not None:
            return [self._make_line("createdAt", created)]
        id_field = self._sample.fields.get("_id")
        if id_field is not None and id_field.has_only("objectId"):
            return [_format_line("createdAt", '"_id"', "the time in the ObjectId")]
        self._doubts.append("no field has the time of creation in every document")
        return []

    def _map_error(self) -> list[str]:
        error = self._found.error or self._found.error_count
        if error is None or error.has_only("number") or (error.types["array"] and error.keys):
            return []
        if error.has_only("array"):
            value = f"{{ last = {_quote(error.path)} }}"
            return [_format_line("lastError", value, self._describe(error))]
        if error.types["object"] and not error.keys & _ERROR_KEYS:
            self._doubts.append(f"{error.path} has no code, message or stack: it is not mapped")
            return []
        return [self._make_line("lastError", error)]

    def _note_unmapped(self) -> None:
        """Add doubts about useful fields whose meaning their names do not show."""
        found = self._found
        if found.attempts is None and found.retries is not None:
            self._doubts.append(
                f"{found.retries.path} may count retries or failures: if it counts retries, add "
                f"attemptCount = {{ path = {_quote(found.retries.path)}, plus = 1 }}"
            )
        for name in DATES:
            if found.dates[name] is None and (date := found.find(DATES[name], is_mixed_date)):
                self._doubts.append(
                    f"{date.path} has dates in several forms, or in one that jobmon cannot read: "
                    "it is not mapped"
                )
        max_retries = found.find(MAX_RETRIES, is_number)
        if max_retries is not None and found.max_attempts is None:
            self._doubts.append(
                f"{max_retries.path} may limit retries: then add maxAttempts = "
                f"{{ path = {_quote(max_retries.path)}, plus = 1 }}"
            )
        if found.lease_start is not None and found.dates["leaseExpiresAt"] is None:
            self._doubts.append(
                f"how long a lease lasts after {found.lease_start.path} is in the program: add "
                f'leaseExpiresAt = {{ path = {_quote(found.lease_start.path)}, plus = "… min" }}'
                f"{self._explain_reading(found.lease_start)}"
            )
        paths = [path for path, sampled in self._sample.fields.items() if sampled.has_only(*IDS)]
        if (owner := find_owner(paths, found.payload.path if found.payload else None)) is not None:
            self._doubts.append(
                f"{owner} may be a job's owner: users would see the jobs with their id there. If "
                f"that is right, add createdBy = {_quote(owner)}"
            )
        array = found.find(
            ATTEMPT_ARRAYS, lambda sampled: sampled.has_only("array") and bool(sampled.keys)
        )
        if array is not None:
            self._doubts.append(
                f'the array {array.path} may hold attempts: see `in = "array"` in docs/adapters.md'
            )


def _find_status_in_name(collection: str) -> str | None:
    """The status in the name of a collection that holds jobs of one state: `jobs.failed`."""
    for word in re.findall(r"[A-Z]?[a-z]+", collection):
        if (status := find_status(word)) is not None:
            return status
        if is_failure(word):
            return JobStatus.DLQ
    return None


def _format_line(name: str, value: str, comment: str) -> str:
    return f"{name} = {value}  # {comment}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
