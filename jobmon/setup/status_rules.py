"""Proposes rules for the status of jobs from their flags, dates and locks.

For queues without a field for the status, or with one that does not show which jobs run.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobmon.domain import JobStatus
from jobmon.profiles.conditions import parse_query, resolve_now
from jobmon.setup.collection_sample import CollectionSample, SampledField
from jobmon.setup.vocabulary import LEASE_TOKENS, STATE_FIELDS, find_path, normalize

Query = dict[str, Any]

_FIRST_DATE = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StatusRule:
    """A status, and the query for its jobs as in a profile. Without a query: for all other jobs."""

    status: str
    when: Query

    def format(self) -> str:
        """The rule as a line of a profile."""
        when = f", when = {to_toml(self.when)}" if self.when else ""
        return f"  {{ is = {to_toml(self.status)}{when} }},"


@dataclass(kw_only=True)
class StateFields:
    """The fields that show the state of a job; None if there is no such field.

    `paths`: the fields that are not in the payload. `error`: what went wrong, or a count of errors.
    `doubts`: what a person should check. `is_clear`: no rule matches all documents of the sample.
    """

    sample: CollectionSample
    paths: list[str]
    due: SampledField | None
    started: SampledField | None
    finished: SampledField | None
    updated: SampledField | None
    lease_end: SampledField | None
    lease_start: SampledField | None
    worker: SampledField | None
    count: SampledField | None
    max_attempts: SampledField | None
    error: SampledField | None
    doubts: list[str] = field(default_factory=list)
    is_clear: bool = True

    def make_rules(self) -> list[StatusRule]:
        """The rules, the last one for all other jobs; adds doubts."""
        rules = list(self._list_rules())
        found = {rule.status for rule in rules}
        paths = dict.fromkeys(path for rule in rules for path in rule.when if path != "$expr")
        self.doubts.append(
            f"no field holds a status: the rules are made of {', '.join(paths)}"
            if paths
            else "no field shows a state: every job counts as queued"
        )
        self.is_clear = not any(map(self._is_always_true, rules))
        if not self.is_clear:
            self.doubts.append(
                "every document of the sample has the same state: compare the first rules with "
                "jobs that wait"
            )
        if JobStatus.LEASED not in found:
            self.doubts.append(
                "no field shows that a job runs: such jobs count as queued or failed"
            )
        if JobStatus.SUCCEEDED not in found:
            self.doubts.append(
                "no field shows that a job has succeeded: if the program deletes such jobs, add "
                '[attempts.events] with deleted = "succeeded", so that their runs are counted'
            )
        if JobStatus.FAILED in found and JobStatus.DLQ not in found:
            limit = (
                f"{{ {_quote(self.count.path)} = {{ {_quote('$gte')} = N }} }}"
                if self.count
                else "…"
            )
            self.doubts.append(
                "no field shows that a job is dead: if jobs stay after their last attempt, add "
                f'{{ is = "dlq", when = {limit} }} before the rule of failed'
            )
        return [*rules, StatusRule(JobStatus.QUEUED, {})]

    def find_lease(self) -> Query:
        """The query for the jobs that run; empty if no field shows it."""
        if (flag := self.find_flag(JobStatus.LEASED)) is not None:
            return _is_set(flag)
        if self.lease_end is not None:
            is_always_set = self.sample.share(self.lease_end.path) == 1
            if is_always_set and not self.lease_end.unset_dates:
                return {self.lease_end.path: {"$gt": "$now"}}
            return _is_set(self.lease_end)
        for lease in (self.lease_start, self.worker):
            if lease is not None:
                return _is_set(lease)
        # A lease moves the date from which a message is visible.
        if self.due is not None and hides_leased(self.due):
            token = self._find_field(LEASE_TOKENS, lambda sampled: sampled.has_only("string"))
            if (evidence := token or self.count) is not None:
                return {self.due.path: {"$gt": "$now"}} | _is_set(evidence)
        return {}

    @property
    def last_run(self) -> SampledField | None:
        """A date that each run sets."""
        return self.started or self.lease_start or self.updated

    def list_signs(self) -> list[SampledField]:
        """The fields that show that a run has started, has ended or has failed."""
        ends = (self.finished, self.error, *self._find_end_dates().values())
        starts = (self.started, self.lease_end, self.lease_start, self.worker)
        return [item for item in (*starts, *ends) if item is not None]

    def _find_end_dates(self) -> dict[JobStatus, SampledField]:
        """The date that a job gets when it dies, and when it is cancelled, by that status."""
        flags = {status: self.find_flag(status) for status in (JobStatus.DLQ, JobStatus.CANCELLED)}
        return {status: flag for status, flag in flags.items() if flag and flag.date_form}

    def infer(self, signs: list[str]) -> str | None:
        """The status of jobs that have only these fields of `list_signs`; None if it is unclear."""
        for status, date in self._find_end_dates().items():
            if date.path in signs:
                return status
        if self.finished is not None and self.finished.path in signs:
            has_error = self.error is not None and self.error.path in signs
            return JobStatus.DLQ if has_error else JobStatus.SUCCEEDED
        if not signs:
            return JobStatus.QUEUED
        is_error = self.error is not None and self.error.path in signs
        return None if is_error or self.finished is None else JobStatus.LEASED

    def find_retries(self, signs: list[str]) -> Query:
        """The query for jobs that are due again after they ended or failed; empty without a date.

        `signs`: the fields of `list_signs` that such jobs have.
        """
        dates = (self._find_end_dates().get(JobStatus.DLQ), self.finished)
        end = next((date for date in dates if date and date.path in signs), None)
        return self._is_due_after(end)

    def count_set(self, sample: CollectionSample, sign: SampledField) -> int:
        """How many documents of a sample have a value that is no empty text and no unset date."""
        sampled = sample.fields.get(sign.path)
        if sampled is None:
            return 0
        return sampled.documents - sampled.empty_texts - sampled.unset_dates

    def to_query(self, rule: StatusRule) -> Query:
        """The query of a rule for MongoDB."""
        forms = {path: sampled.date_form for path, sampled in self.sample.fields.items()}
        readings = {path: form for path, form in forms.items() if form}
        query: Query = resolve_now(parse_query(rule.when, {}, readings, ()), datetime.now(UTC))
        return query

    def find_flag(self, status: JobStatus) -> SampledField | None:
        """The flag or date that only jobs with this status have."""

        def accept(sampled: SampledField) -> bool:
            is_count = status is JobStatus.DLQ and sampled.has_only("number")
            return is_flag(sampled) and not is_count

        return self._find_field(STATE_FIELDS[status], accept)

    def _find_field(self, names: Iterable[str], accept: Any) -> SampledField | None:
        fields = self.sample.fields
        path = find_path(names, [path for path in self.paths if accept(fields[path])])
        return None if path is None else fields[path]

    def _list_rules(self) -> Iterator[StatusRule]:
        lease = self.find_lease()
        flag = self.find_flag(JobStatus.LEASED)
        has_flag = flag is not None and flag.date_form is None
        if has_flag:  # a flag is reset when the run ends; a date of a lease may stay
            yield StatusRule(JobStatus.LEASED, lease)
        dead = self.find_flag(JobStatus.DLQ)
        if dead is not None:
            yield StatusRule(JobStatus.DLQ, _is_set(dead) | self._exclude_retries(dead))
        if (cancelled := self.find_flag(JobStatus.CANCELLED)) is not None:
            yield StatusRule(JobStatus.CANCELLED, _is_set(cancelled))
        done = self.find_flag(JobStatus.SUCCEEDED) or _drop_last_run(self.finished)
        if done is not None:
            if dead is None and self.error is not None:
                self.doubts.append(
                    f"a job that has ended and has {self.error.path} is read as dead-lettered: "
                    "change this rule to succeeded if an error stays after a later success"
                )
                yield StatusRule(JobStatus.DLQ, _is_set(done) | _has_error(self.error))
            yield StatusRule(JobStatus.SUCCEEDED, _is_set(done))
        started = _drop_last_run(self.started)
        if not lease and started is not None:
            lease = _is_set(started)
        if lease and not has_flag:
            yield StatusRule(JobStatus.LEASED, lease)
        if self.count is not None and self._starts_at_zero(self.count):
            attempted = _is_set(self.count)
            if self.max_attempts is not None and dead is None:
                paths = [f"${self.count.path}", f"${self.max_attempts.path}"]
                yield StatusRule(JobStatus.DLQ, attempted | {"$expr": {"$gte": paths}})
            yield StatusRule(JobStatus.FAILED, attempted)
        elif dead is not None and dead.date_form is not None:
            yield StatusRule(JobStatus.FAILED, _is_set(dead))
        elif self.error is not None and dead is None:
            yield StatusRule(JobStatus.FAILED, _has_error(self.error))

    def _exclude_retries(self, failure: SampledField) -> Query:
        """The query for jobs that are not due again after the date of a failure."""
        retries = self._is_due_after(failure)
        return {"$expr": {"$not": [retries["$expr"]]}} if retries else {}

    def _is_due_after(self, end: SampledField | None) -> Query:
        """The query for jobs that are due after they ended or failed; empty if they have died."""
        due = self.due
        if due is None or end is None or end.date_form is None or due.date_form != end.date_form:
            return {}
        is_failure = normalize(end.path.rpartition(".")[2]).startswith("fail")
        if end is not self.finished and not is_failure:
            return {}
        return {"$expr": {"$gt": [f"${due.path}", f"${end.path}"]}}

    def _is_always_true(self, rule: StatusRule) -> bool:
        """Whether all documents of the sample have a value where the rule requires one."""
        return all(
            isinstance(condition, dict)
            and {"$ne", "$nin"} & condition.keys()
            and self.count_set(self.sample, self.sample.fields[path]) == self.sample.documents
            for path, condition in rule.when.items()
        )

    def _starts_at_zero(self, count: SampledField) -> bool:
        """Whether some jobs have no attempt yet; else the number may count down."""
        has_zero = count.value_counts is None or "0" in count.value_counts
        return has_zero or self.sample.share(count.path) < 1


def hides_leased(due: SampledField | None) -> bool:
    """Whether a lease moves the due date: the date from which a message is visible again."""
    return due is not None and normalize(due.path).startswith("visib")


def is_flag(sampled: SampledField) -> bool:
    """Whether all values are true or false, 1 or 0, or dates."""
    values = sampled.value_counts
    is_binary = sampled.has_only("number") and values is not None and values.keys() <= {"0", "1"}
    return sampled.has_only("bool") or is_binary or sampled.date_form is not None


def to_toml(value: Any) -> str:
    """A value of a profile in one line."""
    match value:
        case dict():
            items = [f"{_quote(key)} = {to_toml(item)}" for key, item in value.items()]
            return f"{{ {', '.join(items)} }}"
        case list():
            return f"[{', '.join(map(to_toml, value))}]"
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        case _:
            return json.dumps(value, ensure_ascii=False)


def _is_set(sampled: SampledField) -> Query:
    """The query for the documents that have a value at a path: a date, true, a text, a count."""
    path = sampled.path
    if sampled.has_only("bool"):
        return {path: True}
    if sampled.has_only("number"):
        return {path: {"$gt": 0}}
    if sampled.date_form == "date" and sampled.unset_dates:
        return {path: {"$gt": _FIRST_DATE}}
    if sampled.empty_texts:
        return {path: {"$nin": ["$null", ""]}}
    return {path: {"$ne": "$null"}}


def _has_error(error: SampledField) -> Query:
    """The query for the documents with an error; it needs no index of long texts."""
    if error.has_only("number"):
        return _is_set(error)
    empty: Any = [] if error.has_only("array") else ""  # null and a missing value are less
    return {"$expr": {"$gt": [f"${error.path}", empty]}}


def _drop_last_run(date: SampledField | None) -> SampledField | None:
    """None for a date such as `lastRunAt`, which stays while the job waits for its next run."""
    is_last = date is not None and normalize(date.path.rpartition(".")[2]).startswith("last")
    return None if is_last else date


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
