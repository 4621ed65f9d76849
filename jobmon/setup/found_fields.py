"""Finds the fields of a queue's jobs in a sample, by their names and values."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pymongo.errors import PyMongoError

from jobmon.domain import JobStatus
from jobmon.redaction.redactor import Redactor
from jobmon.setup.collection_sample import CollectionSample, SampledField
from jobmon.setup.status_rules import StateFields, hides_leased, is_flag
from jobmon.setup.statuses import Resample, add_rare_statuses
from jobmon.setup.vocabulary import (
    ATTEMPT_COUNTS,
    COLLECTION_WORDS,
    DATES,
    ERROR_COUNTS,
    ERRORS,
    LEASE_STARTS,
    MAX_ATTEMPTS,
    OTHER_CONTENTS,
    OUTCOMES,
    PAYLOAD_DOCUMENTS,
    PAYLOADS,
    QUEUE_NAMES,
    REMAINING_COUNTS,
    REMOVALS,
    RETRY_COUNTS,
    STATE_FIELDS,
    STATUS,
    WORKERS,
    find_path,
    find_status,
    is_failure,
    is_known,
    normalize,
)

MOST_DOCUMENTS = 0.9  # a share of documents
IDS = ("string", "objectId", "number")
_NEARLY_ALL = 0.95
_LEAST_STATUS_SHARE = 0.2  # the share of documents with a status, if its values are clear
_MAX_STATUSES = 15


class FoundFields:
    """The fields of jobs in a sample; None for those that the documents do not have.

    `resample` reads a sample of the documents that match a query. `doubts`: what a person should
    check.
    """

    def __init__(self, sample: CollectionSample, resample: Resample) -> None:
        self._sample = sample
        self._resample = resample
        self.used: set[str] = set()
        self.doubts: list[str] = []
        self.payload: SampledField | None = None  # `find` reads it
        self.payload = self.find(PAYLOADS, _is_content, nested=False) or self.find(
            PAYLOAD_DOCUMENTS,
            lambda sampled: sampled.has_only("object") or sampled.is_json,
            nested=False,
        )
        self.has_arguments = (
            self.payload is not None and normalize(self.payload.path) not in OTHER_CONTENTS
        )
        self._status_counts = Counter[str]()
        self.status = self._find_status()
        self.outcome = self.find(OUTCOMES, _has_failures) if self.status else None
        self.dates = {name: self._find_date(name) for name in DATES}
        if self.status is None and hides_leased(self.dates["nextRunAt"]):
            self._read_removal_as_end()
        self.lease_start = self.find(LEASE_STARTS, is_date, are_dates=True)
        self.worker = self.find(WORKERS, lambda sampled: sampled.has_only(*IDS))
        self.attempts = self.find(ATTEMPT_COUNTS, is_number)
        self.retries = self.find(RETRY_COUNTS, is_number)
        self._remaining = self.find(REMAINING_COUNTS, is_number)
        self.max_attempts = self.find(MAX_ATTEMPTS, is_number)
        limit = self.attempts
        if limit is not None and self.max_attempts is None and self._is_limit(limit):
            self.attempts, self.max_attempts = None, limit
        self.error = self.find(
            ERRORS, lambda sampled: sampled.has_only("string", "object", "array")
        )
        self.error_count = self.find(
            ERROR_COUNTS, lambda sampled: sampled.has_only("number", "array")
        )
        self._running = self.find(STATE_FIELDS[JobStatus.LEASED], is_flag)

    def _is_limit(self, attempts: SampledField) -> bool:
        """Whether all jobs that never started have attempts; another field counts the retries.

        A released job may have attempts without a start: then others that never started have none.
        Adds a doubt, unless some have 0: a limit is not 0, but it may be missing.
        """
        started = self.dates["startedAt"]
        if self.retries is None or started is None:
            return False
        waiting = {started.path: None, self.retries.path: 0}

        def has(condition: Any) -> bool:
            return self._resample(waiting | {attempts.path: condition}).documents > 0

        try:
            if has(0) or not has({"$gt": 0}):
                return False
            is_limit = not has(None)
        except PyMongoError:
            return False
        self.doubts.append(
            f"{attempts.path} is read as the limit of attempts, because every job that never "
            "started has some: replace maxAttempts with attemptCount if it counts runs"
            if is_limit
            else f"{attempts.path} is read as the count of attempts, because some jobs that never "
            "started have none: replace attemptCount with maxAttempts if it is their limit"
        )
        return is_limit

    def _read_removal_as_end(self) -> None:
        """Read the date of a removal as the end, if no other date is one; adds a doubt."""
        removal = None if self.dates["finishedAt"] else self.find(REMOVALS, is_date)
        if removal is not None:
            self.dates["finishedAt"] = removal
            self.doubts.append(
                f"a job with {removal.path} counts as succeeded: if the program also removes jobs "
                "after their last attempt, add a rule of dlq before that of succeeded"
            )

    def has_queue_name(self) -> bool:
        """Whether the collection is named like a queue, or its documents name their queue."""
        has_word = COLLECTION_WORDS.search(self._sample.collection) is not None
        # The payload may be the whole message.
        names = {path.rpartition(".")[2] for path in self._sample.fields if path.count(".") < 2}
        return has_word or find_path(QUEUE_NAMES, names) is not None

    def has_state_array(self) -> bool:
        """Whether an array has a document for each state that a job had."""
        arrays = (sampled for sampled in self._sample.fields.values() if sampled.types["array"])
        return any(normalize(key) in STATUS for sampled in arrays for key in sampled.keys)

    def make_state_fields(self) -> StateFields:
        count = self.attempts or self.retries
        payload = f"{self.payload.path}." if self.payload else None
        return StateFields(
            sample=self._sample,
            paths=[
                path
                for path, sampled in self._sample.fields.items()
                if sampled.documents and not (payload and path.startswith(payload))
            ],
            due=self.dates["nextRunAt"],
            started=self.dates["startedAt"],
            finished=self.dates["finishedAt"],
            updated=self.dates["updatedAt"],
            lease_end=self.dates["leaseExpiresAt"],
            lease_start=self.lease_start,
            worker=self.worker,
            count=count,
            max_attempts=self.max_attempts if self.attempts else None,
            error=self.error or self.error_count,
            doubts=self.doubts,
        )

    def find(
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
            if path not in self.used
            and path.count(".") <= (1 if nested else 0)
            and not path.startswith("_id.")
            and sampled.documents
            and self._sample.share(path) >= share
            and accept(sampled)
        ]
        if self.payload is not None:  # a field of the payload is no field of the job
            paths = [path for path in paths if not path.startswith(f"{self.payload.path}.")]
        path = find_path(names, paths, are_dates=are_dates)
        if path is None:
            return None
        self.used.add(path)
        return self._sample.fields[path]

    def _find_status(self) -> SampledField | None:
        """The field of the status; adds documents with rare statuses to the sample."""
        status = self.find(STATUS, _is_status, share=MOST_DOCUMENTS) or self._find_by_values()
        if status is None:
            return None
        # The counts without the documents that are added are those of a random sample.
        self._status_counts.update(status.value_counts)
        if doubt := add_rare_statuses(self._sample, status, self._resample):
            self.doubts.append(doubt)
        return status if _is_status(status) else None

    def _find_by_values(self) -> SampledField | None:
        """A field of any name whose values are words for the statuses of jobs."""

        def has_status_words(sampled: SampledField) -> bool:
            counts = sampled.value_counts if sampled.has_only("string") else None
            if counts is None or not _is_status(sampled):
                return False
            known = sum(counts[name] for name in counts if is_known(name))
            meanings = {find_status(name, counts) for name in counts if is_known(name)}
            is_active = bool(meanings & {JobStatus.QUEUED, JobStatus.LEASED})
            return is_active and len(meanings) > 1 and known >= MOST_DOCUMENTS * counts.total()

        names = [normalize(path) for path in self._sample.fields]
        return self.find(names, has_status_words, share=_LEAST_STATUS_SHARE)

    def _find_date(self, name: str) -> SampledField | None:
        share = _NEARLY_ALL if name == "createdAt" else 0.0
        return self.find(DATES[name], is_date, share=share, are_dates=True)

    def list_signs(self) -> list[str]:
        """The signs of a queue that the documents have, each with its fields."""
        groups = {
            "a worker's lease": (
                *(self.worker, self.dates["leaseExpiresAt"], self.lease_start),
                self._running if self.status is None else None,
            ),
            "attempts": (self.attempts, self.retries, self._remaining, self.max_attempts),
            "a due date": (self.dates["nextRunAt"],),
            "the start of a run": (self.dates["startedAt"],),
        }
        signs = {sign: [item.path for item in group if item] for sign, group in groups.items()}
        return [f"{sign} ({', '.join(paths)})" for sign, paths in signs.items() if paths]

    def list_statuses(self) -> list[str]:
        if self.status is None or self.status.value_counts is None:
            return []
        return [status for status, _ in self.status.value_counts.most_common()]

    def recognize_statuses(self, statuses: list[str]) -> tuple[float, set[str | None]]:
        """The share of documents with a known status, and the meanings of the known statuses."""
        known = [name for name in statuses if is_known(name)]
        total = self._status_counts.total()
        share = sum(self._status_counts[name] for name in known) / total if total else 0.0
        return share, {find_status(name, statuses) for name in known}


def _is_content(sampled: SampledField) -> bool:
    return sampled.has_only("object", "array", "string")


def is_date(sampled: SampledField) -> bool:
    return sampled.date_form is not None


def is_mixed_date(sampled: SampledField) -> bool:
    """Whether some values look like dates, but not all have one form that jobmon reads."""
    return sampled.date_form is None and sampled.has_dates


def is_number(sampled: SampledField) -> bool:
    return sampled.has_only("number")


def _has_failures(sampled: SampledField) -> bool:
    """Whether the values are a few texts, and one is a word for a failure."""
    return sampled.has_only("string") and any(map(is_failure, sampled.value_counts or ()))


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
