"""Finds out what the statuses of a collection mean to jobmon, for a proposed profile."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import PyMongoError

from jobmon.domain import JobStatus
from jobmon.setup.collection_sample import CollectionSample, SampledField
from jobmon.setup.status_rules import StateFields, StatusRule
from jobmon.setup.vocabulary import find_status, is_failure, is_known
from jobmon.store.labels import label
from jobmon.store.mapping import Document

Resample = Callable[..., CollectionSample]  # `read_sample` of a collection
_MAX_SEARCHES = 5


def add_rare_statuses(
    sample: CollectionSample, status: SampledField, resample: Resample
) -> str | None:
    """Add documents with other statuses to a sample; returns a doubt if some may be missing.

    Among many jobs that have ended, a sample may contain no job that waits or runs.
    """
    for _ in range(_MAX_SEARCHES):
        counts = status.value_counts
        if counts is None or not status.has_only("string"):
            return None
        known_count = len(counts)
        try:
            resample({status.path: {"$nin": [*counts, None]}}, add_to=sample)
        except PyMongoError:
            break
        if len(counts) == known_count:
            return None
    return f"{status.path} may have more values than these: the search for rare ones did not end"


@dataclass(kw_only=True)
class StatusMeanings:
    """The meanings of the statuses that `status` holds.

    `state`: the fields that also show the state. `outcome`: how an ended job ended. `doubts`: what
    a person should check.
    """

    status: SampledField
    names: list[str]
    resample: Resample
    state: StateFields
    outcome: SampledField | None = None
    doubts: list[str] = field(default_factory=list)
    _signs: dict[str, list[str]] = field(default_factory=dict)

    def find(self) -> dict[str, tuple[str, str]]:
        """(jobmon's status, reason) for each status whose meaning is known; adds doubts."""
        meanings: dict[str, tuple[str, str]] = {}
        unknown: list[str] = []
        for name in self.names:
            if (status := find_status(name, self.names)) is not None:
                is_usual = status == find_status(name)
                reason = (
                    "by its name" if is_usual else "unsure: another status has the usual meaning"
                )
                meanings[name] = (status, reason)
            elif is_failure(name):
                meanings[name] = self._explain_failed(name)
            else:
                unknown.append(name)
        signs_by_name = {name: self._list_signs(name) for name in unknown if not is_known(name)}
        self._signs = {name: signs for name, signs in signs_by_name.items() if signs is not None}
        known = {meaning for meaning, _ in meanings.values()}
        for name in unknown:
            if (status := self._infer(name, known)) is not None:
                signs = ", ".join(self._signs[name]) or "neither a start nor a lease"
                meanings[name] = (status, f"unsure: only such jobs have {signs}")
                self.doubts.append(f"the status {name} is read as {status}: such jobs have {signs}")
            else:
                self.doubts.append(f"the status {name} is unknown: it is shown under its own name")
        return meanings

    def describe(self, name: str) -> str:
        """What documents with an unknown status have, as the end of a comment."""
        signs = self._signs.get(name)
        return f": such jobs have {', '.join(signs)}" if signs else ""

    def make_rules(self, meanings: dict[str, tuple[str, str]]) -> list[StatusRule]:
        """Rules, if other fields show which jobs run or how a job ended; else none. Adds doubts."""
        is_text = self.status.has_only("string")  # the label of a number matches no number
        names = [name for name in self.names if is_text and _has_rule(name)]
        by_meaning: dict[str, list[str]] = {}
        for name in names:
            by_meaning.setdefault(meanings.get(name, (name,))[0], []).append(name)
        rules: list[StatusRule] = []
        if JobStatus.LEASED not in {meaning for meaning, _ in meanings.values()}:
            rules += self._list_lease_rules(by_meaning.get(JobStatus.QUEUED, []))
            if not rules:
                self.doubts.append(
                    f"no value of {self.status.path} is for jobs that run: if one is, name it "
                    "leased"
                )
        if not by_meaning.keys() & {JobStatus.FAILED, JobStatus.DLQ}:
            rules += self._list_outcome_rules(by_meaning.get(JobStatus.SUCCEEDED, []))
        if not rules:
            return []
        rules += [
            StatusRule(meanings.get(name, (name,))[0], {self.status.path: name}) for name in names
        ]
        return [*rules, StatusRule("other", {})]

    def _list_lease_rules(self, waiting: list[str]) -> list[StatusRule]:
        """The rule for leased jobs with one of these statuses, if there are any; adds a doubt."""
        lease = self.state.find_lease()
        if not waiting or not lease:
            return []
        leased = StatusRule(JobStatus.LEASED, {self.status.path: {"$in": waiting}} | lease)
        try:
            if not self.resample(self.state.to_query(leased)).documents:
                return []
        except PyMongoError:
            return []
        self.doubts.append(
            f"no status is for jobs that run: those with {', '.join(waiting)} count as running "
            f"by {', '.join(lease)}"
        )
        return [leased]

    def _list_outcome_rules(self, ended: list[str]) -> Iterator[StatusRule]:
        """Rules for jobs with one of these statuses that did not succeed; adds doubts."""
        outcome = self.outcome
        if outcome is None or not ended:
            return
        for name in sorted(outcome.value_counts or ()):
            meaning = JobStatus.DLQ if is_failure(name) else find_status(name)
            if meaning in (JobStatus.DLQ, JobStatus.CANCELLED) and _has_rule(name):
                when = {self.status.path: {"$in": ended}, outcome.path: name}
                self.doubts.append(
                    f"jobs with {', '.join(ended)} count as {meaning} if {outcome.path} is {name}"
                )
                yield StatusRule(meaning, when)

    def _list_signs(self, name: str) -> list[str] | None:
        """The fields that show the state and that all documents with a status have.

        None if no document could be read: then the meaning stays unknown.
        """
        try:
            sample = self._read(name)
        except PyMongoError:
            return None
        if not sample.documents:
            return None
        return [
            field.path
            for field in self.state.list_signs()
            if self.state.count_set(sample, field) == sample.documents
        ]

    def _read(self, name: str, query: Document | None = None) -> CollectionSample:
        """A sample of the documents with a status, which may be no text, that match a query."""
        values = [value for value in (name, *_parse(name)) if label(value) == name]
        return self.resample({self.status.path: {"$in": values}} | (query or {}))

    def _infer(self, name: str, known: set[str]) -> str | None:
        """The status that follows from the fields of such jobs, if no other status has these."""
        if name not in self._signs or list(self._signs.values()).count(self._signs[name]) > 1:
            return None
        status = self.state.infer(self._signs[name])
        has_lease = any(
            self.state.infer(signs) == JobStatus.LEASED for signs in self._signs.values()
        )
        if status is None or status in known or (status == JobStatus.QUEUED and not has_lease):
            return None
        if status == JobStatus.DLQ and self._has_retries(name):
            return None
        others = [
            other for other, signs in self._signs.items() if self.state.infer(signs) == status
        ]
        return status if others == [name] else None

    def _has_retries(self, name: str) -> bool:
        """Whether jobs with this status may be due again after they ended or failed."""
        retries = self.state.find_retries(self._signs[name])
        try:
            return bool(retries) and self._read(name, retries).documents > 0
        except PyMongoError:
            return True

    def _explain_failed(self, name: str) -> tuple[str, str]:
        """(FAILED or DLQ, reason) for a status such as `error`.

        A failure that is not known to be retried is read as dead-lettered: then it is not missed.
        """
        meanings = {find_status(status, self.names) for status in self.names}
        if JobStatus.FAILED in meanings:
            return JobStatus.DLQ, "another status is for retries"
        if JobStatus.DLQ in meanings:
            return JobStatus.FAILED, "another status is for dead jobs"
        if self._are_due_again(name):
            due = self.state.due.path if self.state.due else ""
            reason = f"{due} is set again after their last run"
            self.doubts.append(
                f"{name} is read as “a retry is due”, because {reason}: change it to dlq if they "
                "are not tried again"
            )
            return JobStatus.FAILED, f"unsure: {reason}"
        self.doubts.append(
            f"{name} is read as dead-lettered, because the documents do not show that such jobs "
            "are tried again: change it to failed if they are"
        )
        return JobStatus.DLQ, "unsure: no document shows a retry"

    def _are_due_again(self, name: str) -> bool:
        """Whether each job with this status is due after its last run, unlike succeeded jobs.

        If no date shows the last run: whether each is due at all, unlike succeeded jobs. If no job
        has succeeded: unlike waiting jobs with such a date.
        """
        due, last_run = self.state.due, self.state.last_run
        if due is None:
            return False
        conditions: list[Document] = [{due.path: {"$ne": None}}]
        has_last_run = last_run is not None and last_run.date_form == due.date_form
        if last_run is not None and has_last_run:
            conditions.append({"$expr": {"$gt": [f"${due.path}", f"${last_run.path}"]}})
        not_due_again: Document = {"$nor": [{"$and": conditions}]}
        failed: Document = {self.status.path: name}
        try:
            if self.resample(failed | not_due_again).documents:
                return False
            if self.resample(self._make_query(JobStatus.SUCCEEDED)).documents:
                query = self._make_query(JobStatus.SUCCEEDED) | not_due_again
                return self.resample(query).documents > 0
            if last_run is None or not has_last_run or not self.resample(failed).documents:
                return False
            # A date that waiting jobs have, and that is always earlier, is no last run.
            waiting = self._make_query(JobStatus.QUEUED) | {last_run.path: {"$ne": None}}
            has_waiting = self.resample(waiting).documents > 0
            return not has_waiting or self.resample(waiting | not_due_again).documents > 0
        except PyMongoError:
            return False

    def _make_query(self, status: JobStatus) -> Document:
        names = [name for name in self.names if find_status(name, self.names) == status]
        return {self.status.path: {"$in": names}}


def _has_rule(name: str) -> bool:
    """Whether a rule can have this label: `$` starts a constant, and no text has a label's quotes.

    `label` quotes the empty text, for instance.
    """
    return not name.startswith(("$", '"'))


def _parse(name: str) -> list[Any]:
    """The values that are no texts and may have this label."""
    values: list[Any] = [True, False]
    with suppress(ValueError):
        values.append(float(name))
    with suppress(ValueError):
        values.append(int(name))
    return values
