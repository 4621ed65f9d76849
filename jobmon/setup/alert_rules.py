"""The alert rules for Prometheus, with the thresholds of the overview and of notifications."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from string import Template
from textwrap import indent
from typing import Any, TypeVar

from jobmon.humanize import percent
from jobmon.settings.name_patterns import pattern_regex
from jobmon.settings.rules import Rules, Thresholds

T = TypeVar("T")
_INDENT = " " * 10  # of the lines of an expression
_OLDEST_DUE = """\
      - alert: JobmonOldestDueJob
        expr: |-
          @{expression}
        for: 2m
        labels:
          severity: warning
        annotations:
          summary: "Queue {{ $labels.queue }}: a {{ $labels.type }} job has been due for too long."
          runbook_url: docs/runbook.md#jobmonoldestduejob
"""


class _RulesTemplate(Template):
    delimiter = "@"  # expressions and annotations have `$`


def render_alert_rules(rules: Rules) -> str:
    """The file of rules as YAML; for the default rules it is deploy/prometheus/alerts.yml."""
    template = files("jobmon.setup").joinpath("alerts.yml.template").read_text(encoding="utf-8")
    rule_sets = [rules, *(queue_rules for _, queue_rules in rules.by_queue)]
    stalled_after = min(each.thresholds.stalled_after for each in rule_sets)
    failure_rates = (each.failure_rate for queue in rule_sets for each in queue.list_thresholds())
    oldest_due = _join(_oldest_due(rules))
    return _RulesTemplate(template).substitute(
        stalled=_join(_stalled(rules)),
        least_stalled_minutes=stalled_after // timedelta(minutes=1),
        backlog_growing=_join(_backlog_growing(rules)),
        least_backlog_growth=f"{min(each.backlog_growth for each in rule_sets):g}",
        dead_letters=_join(_dead_letters(rules)),
        failure_rate=_join(_failure_rate(rules)),
        least_failure_rate=percent(min(failure_rates)),
        oldest_due_alert=_RulesTemplate(_OLDEST_DUE).substitute(expression=oldest_due)
        if oldest_due
        else "",
    )


def _join(expressions: Iterator[str]) -> str:
    """One expression that is true if any is; the template has the indent of its first line."""
    return indent("\nor\n".join(expressions), _INDENT).removeprefix(_INDENT)


def _stalled(rules: Rules) -> Iterator[str]:
    for matcher, (stalled_after,) in _select_queues(rules, _read_stalled_after):
        finished = _series("jobmon_attempts_finished_total", matcher)
        increase = f"increase({finished}[{stalled_after // timedelta(minutes=1)}m])"
        yield (
            "max by (job, queue) (jobmon_due_jobs) > 0\nand\n"
            f"sum by (job, queue) (max by (job, queue, outcome, type) ({increase})) == 0"
        )


def _read_stalled_after(rules: Rules) -> tuple[timedelta]:
    """The limit of the queue, not those of its types: due jobs are not counted by type."""
    return (rules.thresholds.stalled_after,)


def _backlog_growing(rules: Rules) -> Iterator[str]:
    due, before = (f"max by (job, queue) (jobmon_due_jobs{age})" for age in ("", " offset 1h"))
    for matcher, (growth, jobs) in _select_queues(rules, _read_growth):
        selected = f"max by (job, queue) ({_series('jobmon_due_jobs', matcher)})"
        yield f"{selected} > {jobs} + {before}\nand\n{due} > {growth:g} * {before}"


def _read_growth(rules: Rules) -> tuple[float, int]:
    return rules.backlog_growth, rules.backlog_growth_jobs


def _dead_letters(rules: Rules) -> Iterator[str]:
    for matchers, (count,) in _select_types(rules, "dead_per_hour"):
        dead = _series("jobmon_jobs_dead_lettered_total", matchers)
        yield f"max by (job, queue, type) (increase({dead}[1h])) >= {count}"


def _failure_rate(rules: Rules) -> Iterator[str]:
    names = ("failure_rate", "failure_rate_attempts")
    for matchers, (rate, attempts) in _select_types(rules, *names):
        failed, finished = (
            _count_attempts('outcome=~"failed|expired"', matchers),
            _count_attempts(matchers),
        )
        yield f"{failed}\n/ {finished} >= {rate:g}\nand\n{finished} >= {attempts}"


def _count_attempts(*matchers: str) -> str:
    increase = f"increase({_series('jobmon_attempts_finished_total', *matchers)}[1h])"
    return f"sum by (job, queue, type) (max by (job, queue, outcome, type) ({increase}))"


def _oldest_due(rules: Rules) -> Iterator[str]:
    for matchers, (limit,) in _select_types(rules, "oldest_due"):
        if limit is not None:
            oldest = _series("jobmon_oldest_due_job_seconds", matchers)
            yield f"max by (job, queue, type) ({oldest}) > {limit // timedelta(seconds=1)}"


def _series(name: str, *matchers: str) -> str:
    labels = ",".join(filter(None, matchers))
    return f"{name}{{{labels}}}" if labels else name


def _select_queues(rules: Rules, read: Callable[[Rules], T]) -> Iterator[tuple[str, T]]:
    """Pairs of a matcher of queues and the result of `read` for their rules.

    If all results are equal, one pair with an empty matcher.
    """
    patterns, default = [pattern for pattern, _ in rules.by_queue], read(rules)
    if all(read(queue_rules) == default for _, queue_rules in rules.by_queue):
        yield "", default
        return
    yield f"queue!~{_quote_regex(patterns)}", default
    for index, (pattern, queue_rules) in enumerate(rules.by_queue):
        yield _make_matchers("queue", pattern, patterns[:index]), read(queue_rules)


def _select_types(rules: Rules, *names: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Pairs of the matchers of queues and types, and their thresholds with these names."""

    def read(thresholds: Thresholds) -> tuple[Any, ...]:
        return tuple(getattr(thresholds, name) for name in names)

    def read_types(queue: Rules) -> list[tuple[str, tuple[Any, ...]]]:
        default, patterns = read(queue.thresholds), [pattern for pattern, _ in queue.by_type]
        if all(read(thresholds) == default for _, thresholds in queue.by_type):
            return [("", default)]
        return [(f"type!~{_quote_regex(patterns)}", default)] + [
            (_make_matchers("type", pattern, patterns[:index]), read(thresholds))
            for index, (pattern, thresholds) in enumerate(queue.by_type)
        ]

    for queues, types in _select_queues(rules, read_types):
        for matcher, thresholds in types:
            yield ",".join(filter(None, (queues, matcher))), thresholds


def _make_matchers(label: str, pattern: str, earlier: list[str]) -> str:
    """Matchers for a pattern, without the names that an earlier pattern matches."""
    matcher = f"{label}=~{_quote_regex([pattern])}"
    return f"{matcher},{label}!~{_quote_regex(earlier)}" if earlier else matcher


def _quote_regex(patterns: list[str]) -> str:
    return json.dumps("|".join(map(pattern_regex, patterns)), ensure_ascii=False)
