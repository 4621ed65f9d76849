"""Finds out what the statuses of a collection mean to jobmon, for a proposed profile."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pymongo.errors import PyMongoError

from jobmon.domain import JobStatus
from jobmon.setup.collection_sample import CollectionSample, SampledField
from jobmon.setup.vocabulary import FAILED_WORDS, STATUS_WORDS, normalize
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
    """The meanings of the statuses at a path.

    `due`: the date from which a job may run. `last_run`: a date that each run sets; `due` is later
    only if the program set it again after a run. `doubts`: what a person should check.
    """

    path: str
    names: list[str]
    resample: Resample
    due: SampledField | None
    last_run: SampledField | None
    doubts: list[str] = field(default_factory=list)

    def find(self) -> dict[str, tuple[str, str]]:
        """(jobmon's status, reason) for each status whose meaning is known; adds doubts."""
        meanings: dict[str, tuple[str, str]] = {}
        for name in self.names:
            if (status := STATUS_WORDS.get(normalize(name))) is not None:
                meanings[name] = (status, "by its name")
            elif normalize(name) in FAILED_WORDS:
                meanings[name] = self._explain_failed(name)
            else:
                self.doubts.append(f"the status {name} is unknown: it is shown under its own name")
        return meanings

    def _explain_failed(self, name: str) -> tuple[str, str]:
        """(FAILED or DLQ, reason) for a status such as `error`.

        A failure that is not known to be retried is read as dead-lettered: then it is not missed.
        """
        meanings = {STATUS_WORDS.get(normalize(status)) for status in self.names}
        if JobStatus.FAILED in meanings:
            return JobStatus.DLQ, "another status is for retries"
        if JobStatus.DLQ in meanings:
            return JobStatus.FAILED, "another status is for dead jobs"
        if self._are_due_again(name):
            due = self.due.path if self.due else ""
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

        If no date shows the last run: whether each is due at all, unlike succeeded jobs.
        """
        if self.due is None:
            return False
        conditions: list[Document] = [{self.due.path: {"$ne": None}}]
        has_last_run = self.last_run is not None and self.last_run.date_form == self.due.date_form
        if self.last_run is not None and has_last_run:
            conditions.append({"$expr": {"$gt": [f"${self.due.path}", f"${self.last_run.path}"]}})
        not_due_again: Document = {"$nor": [{"$and": conditions}]}
        failed: Document = {self.path: name}
        succeeded: Document = {
            self.path: {
                "$in": [
                    status
                    for status in self.names
                    if STATUS_WORDS.get(normalize(status)) == JobStatus.SUCCEEDED
                ]
            }
        }
        try:
            if self.resample(failed | not_due_again).documents:
                return False
            if self.resample(succeeded).documents:
                return self.resample(succeeded | not_due_again).documents > 0
            return has_last_run and self.resample(failed).documents > 0
        except PyMongoError:
            return False
