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
_INDENT = " " * 10  # of each line of an expression; the template has the first indent
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
    stalled_after = min(rule_set.thresholds.stalled_after for rule_set in rule_sets)
    thresholds = [limits for rule_set in rule_sets for limits in rule_set.list_thresholds()]
    oldest_due = _join(_render_oldest_due(rules))
    return _RulesTemplate(template).substitute(
        stalled=_join(_render_stalled(rules)),
        least_stalled_minutes=stalled_after // timedelta(minutes=1),
        backlog_growing=_join(_render_backlog_growing(rules)),
        least_backlog_growth=f"{min(rule_set.backlog_growth for rule_set in rule_sets):g}",
        dead_letters=_join(_render_dead_letters(rules)),
        failure_rate=_join(_render_failure_rate(rules)),
        least_failure_rate=percent(min(limits.failure_rate for limits in thresholds)),
        oldest_due_alert=_RulesTemplate(_OLDEST_DUE).substitute(expression=oldest_due)
        if oldest_due
        else "",
    )


def _join(expressions: Iterator[str]) -> str:
    """One expression that is true if any of these expressions is true."""
    return indent("\nor\n".join(expressions), _INDENT).removeprefix(_INDENT)


def _render_stalled(rules: Rules) -> Iterator[str]:
    # A type's own limit has no effect: due jobs are not counted by type.
    for matcher, stalled_after in _select_queues(
        rules, lambda rules: rules.thresholds.stalled_after
    ):
        finished = _format_series("jobmon_attempts_finished_total", matcher)
        increase = f"increase({finished}[{stalled_after // timedelta(minutes=1)}m])"
        yield (
            "max by (job, queue) (jobmon_due_jobs) > 0\nand\n"
            f"sum by (job, queue) (max by (job, queue, outcome, type) ({increase})) == 0\n"
            # Without a collector no counter rises, although jobs may finish.
            "unless\nmin by (job, queue) (jobmon_counters_age_seconds) > 60\n"
            "unless\nmax by (job, queue) (jobmon_due_jobs_all_paused) == 1"
        )


def _render_backlog_growing(rules: Rules) -> Iterator[str]:
    due, before = (f"max by (job, queue) (jobmon_due_jobs{age})" for age in ("", " offset 1h"))
    for matcher, (growth, jobs) in _select_queues(
        rules, lambda rules: (rules.backlog_growth, rules.backlog_growth_jobs)
    ):
        selected = f"max by (job, queue) ({_format_series('jobmon_due_jobs', matcher)})"
        yield f"{selected} > {jobs} + {before}\nand\n{due} > {growth:g} * {before}"


def _render_dead_letters(rules: Rules) -> Iterator[str]:
    for matchers, (count,) in _select_types(rules, "dead_per_hour"):
        dead = _format_series("jobmon_jobs_dead_lettered_total", matchers)
        yield f"max by (job, queue, type) (increase({dead}[1h])) >= {count}"


def _render_failure_rate(rules: Rules) -> Iterator[str]:
    names = ("failure_rate", "failure_rate_attempts")
    for matchers, (rate, attempts) in _select_types(rules, *names):
        failed, finished = (
            _count_attempts('outcome=~"failed|expired"', matchers),
            _count_attempts(matchers),
        )
        yield f"{failed}\n/ {finished} >= {rate:g}\nand\n{finished} >= {attempts}"


def _count_attempts(*matchers: str) -> str:
    increase = f"increase({_format_series('jobmon_attempts_finished_total', *matchers)}[1h])"
    return f"sum by (job, queue, type) (max by (job, queue, outcome, type) ({increase}))"


def _render_oldest_due(rules: Rules) -> Iterator[str]:
    for matchers, (limit,) in _select_types(rules, "oldest_due"):
        if limit is not None:
            oldest = _format_series("jobmon_oldest_due_job_seconds", matchers)
            yield f"max by (job, queue, type) ({oldest}) > {limit // timedelta(seconds=1)}"


def _format_series(name: str, *matchers: str) -> str:
    labels = ",".join(filter(None, matchers))
    return f"{name}{{{labels}}}" if labels else name


def _select_queues(rules: Rules, read: Callable[[Rules], T]) -> Iterator[tuple[str, T]]:
    """(matcher, result) pairs: a matcher of queues and the result of `read` for their rules.

    If all results are equal, it is one pair with an empty matcher.
    """
    patterns, default = [pattern for pattern, _ in rules.by_queue], read(rules)
    if all(read(queue_rules) == default for _, queue_rules in rules.by_queue):
        yield "", default
        return
    yield f"queue!~{_quote_regex(patterns)}", default
    for index, (pattern, queue_rules) in enumerate(rules.by_queue):
        yield _make_matchers("queue", pattern, patterns[:index]), read(queue_rules)


def _select_types(rules: Rules, *names: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(matchers, values) pairs: matchers of queues and types, and their thresholds `names`."""

    def read(thresholds: Thresholds) -> tuple[Any, ...]:
        return tuple(getattr(thresholds, name) for name in names)

    def read_types(queue_rules: Rules) -> list[tuple[str, tuple[Any, ...]]]:
        default = read(queue_rules.thresholds)
        patterns = [pattern for pattern, _ in queue_rules.by_type]
        if all(read(thresholds) == default for _, thresholds in queue_rules.by_type):
            return [("", default)]
        return [(f"type!~{_quote_regex(patterns)}", default)] + [
            (_make_matchers("type", pattern, patterns[:index]), read(thresholds))
            for index, (pattern, thresholds) in enumerate(queue_rules.by_type)
        ]

    for queue_matchers, types in _select_queues(rules, read_types):
        for type_matchers, thresholds in types:
            yield ",".join(filter(None, (queue_matchers, type_matchers))), thresholds


def _make_matchers(label: str, pattern: str, earlier_patterns: list[str]) -> str:
    """Matchers for a pattern, without the names that an earlier pattern matches."""
    matcher = f"{label}=~{_quote_regex([pattern])}"
    if not earlier_patterns:
        return matcher
    return f"{matcher},{label}!~{_quote_regex(earlier_patterns)}"


def _quote_regex(patterns: list[str]) -> str:
    return json.dumps("|".join(map(pattern_regex, patterns)), ensure_ascii=False)
