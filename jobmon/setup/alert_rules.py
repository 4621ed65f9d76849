"""The alert rules for Prometheus, with the thresholds of the overview and of notifications."""

import json
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from string import Template
from textwrap import indent
from typing import Any

from jobmon.humanize import percent
from jobmon.settings.rules import Rules, Thresholds, pattern_regex

_INDENT = " " * 10  # of the lines of an expression
_OLDEST_DUE = """\
      - alert: JobmonOldestDueJob
        expr: |-
          @{expression}
        for: 2m
        labels:
          severity: warning
        annotations:
          summary: "Queue {{ $labels.queue }}: a {{ $labels.type }} job is due for too long."
          runbook_url: docs/runbook.md#jobmonoldestduejob
"""


class _RulesTemplate(Template):
    delimiter = "@"  # expressions and annotations have `$`


def render_alert_rules(rules: Rules) -> str:
    """The file of rules as YAML; for the default rules it is deploy/prometheus/alerts.yml."""
    template = files("jobmon.setup").joinpath("alerts.yml.template").read_text(encoding="utf-8")
    minutes = rules.thresholds.stalled_after // timedelta(minutes=1)
    oldest_due = "\nor\n".join(_oldest_due(rules))
    return _RulesTemplate(template).substitute(
        stalled_minutes=minutes,
        backlog_growth=f"{rules.backlog_growth:g}",
        backlog_growth_jobs=rules.backlog_growth_jobs,
        dead_letters=_indent("\nor\n".join(_dead_letters(rules))),
        failure_rate=_indent("\nor\n".join(_failure_rate(rules))),
        least_failure_rate=percent(min(each.failure_rate for each in rules.list_thresholds())),
        oldest_due_alert=_RulesTemplate(_OLDEST_DUE).substitute(expression=_indent(oldest_due))
        if oldest_due
        else "",
    )


def _indent(expression: str) -> str:
    """An expression for a placeholder that is already indented."""
    return indent(expression, _INDENT).removeprefix(_INDENT)


def _dead_letters(rules: Rules) -> Iterator[str]:
    for types, (count,) in _select_types(rules, "dead_per_hour"):
        dead = _series("jobmon_jobs_dead_lettered_total", types)
        yield f"max by (job, queue, type) (increase({dead}[1h])) >= {count}"


def _failure_rate(rules: Rules) -> Iterator[str]:
    names = ("failure_rate", "failure_rate_attempts")
    for types, (rate, attempts) in _select_types(rules, *names):
        failed, finished = (
            _count_attempts('outcome=~"failed|expired"', types),
            _count_attempts(types),
        )
        yield f"{failed}\n/ {finished} >= {rate:g}\nand\n{finished} >= {attempts}"


def _count_attempts(*matchers: str) -> str:
    increase = f"increase({_series('jobmon_attempts_finished_total', *matchers)}[1h])"
    return f"sum by (job, queue, type) (max by (job, queue, outcome, type) ({increase}))"


def _oldest_due(rules: Rules) -> Iterator[str]:
    for types, (limit,) in _select_types(rules, "oldest_due"):
        if limit is not None:
            oldest = _series("jobmon_oldest_due_job_seconds", types)
            yield f"max by (job, queue, type) ({oldest}) > {limit // timedelta(seconds=1)}"


def _series(name: str, *matchers: str) -> str:
    given = ",".join(filter(None, matchers))
    return f"{name}{{{given}}}" if given else name


def _select_types(rules: Rules, *names: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """These thresholds, and a matcher of the label `type` for the types that have them."""

    def read(thresholds: Thresholds) -> tuple[Any, ...]:
        return tuple(getattr(thresholds, name) for name in names)

    default, patterns = read(rules.thresholds), [pattern for pattern, _ in rules.by_type]
    if all(read(thresholds) == default for _, thresholds in rules.by_type):
        yield "", default
        return
    yield f"type!~{_quote(patterns)}", default
    for number, (pattern, thresholds) in enumerate(rules.by_type):
        matcher = f"type=~{_quote([pattern])}"
        if earlier := patterns[:number]:  # the first pattern that matches counts
            matcher += f",type!~{_quote(earlier)}"
        yield matcher, read(thresholds)


def _quote(patterns: list[str]) -> str:
    return json.dumps("|".join(map(pattern_regex, patterns)), ensure_ascii=False)
