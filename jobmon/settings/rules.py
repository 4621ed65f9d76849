"""The thresholds from which a queue needs attention: the file that JOBMON_RULES names.

The overview, notifications and the alert rules of `jobmon alerts` use the same thresholds:

    failure_rate = 0.3

    [types."report.*"]
    stalled_after_minutes = 60

    [queues.payouts]
    dead_per_hour = 5
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from jobmon.profiles.schema import FileError, load_schema, load_toml, read_file
from jobmon.settings.mistakes import SettingsError
from jobmon.settings.name_patterns import matches_any


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The thresholds that can be set for single types.

    `failure_rate`: the least share of failed attempts in an hour that is too high; it does not
    count if the hour has fewer than `failure_rate_attempts` attempts. `stalled_after`: how long a
    job may be due while no job of its type runs or finishes. `oldest_due`: how long a job may be
    due; None for no limit. `dead_per_hour`: the least number of dead jobs in an hour that is too
    high.
    """

    failure_rate: float = 0.2
    failure_rate_attempts: int = 20
    stalled_after: timedelta = timedelta(minutes=10)
    oldest_due: timedelta | None = None
    dead_per_hour: int = 1

    def is_failing(self, finished: int, rate: float) -> bool:
        """Whether the failure rate of `finished` attempts is too high."""
        return finished >= self.failure_rate_attempts and rate >= self.failure_rate


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All thresholds, with the defaults.

    `by_type`: (pattern, thresholds) pairs, with patterns of types such as `mail.*`. `by_queue`:
    (pattern, rules) pairs. The first pattern that matches is used. A backlog is growing if in an
    hour it grew by more than `backlog_growth_jobs` jobs, and to more than `backlog_growth` times
    its earlier size.
    """

    thresholds: Thresholds = Thresholds()
    by_type: tuple[tuple[str, Thresholds], ...] = ()
    backlog_growth: float = 1.2
    backlog_growth_jobs: int = 20
    by_queue: tuple[tuple[str, "Rules"], ...] = ()

    def for_queue(self, name: str) -> "Rules":
        """The rules of a queue, without the rules of other queues."""
        for pattern, rules in self.by_queue:
            if matches_any(name, (pattern,)):
                return rules
        return replace(self, by_queue=()) if self.by_queue else self

    def for_type(self, name: str) -> Thresholds:
        """The thresholds of a type."""
        for pattern, thresholds in self.by_type:
            if matches_any(name, (pattern,)):
                return thresholds
        return self.thresholds

    def restrict(self, name: str) -> "Rules":
        """The rules with the thresholds of this type as thresholds for all types."""
        return replace(self, thresholds=self.for_type(name), by_type=())

    def list_thresholds(self) -> list[Thresholds]:
        """The general thresholds, then the thresholds of each pattern of types."""
        return [self.thresholds, *(thresholds for _, thresholds in self.by_type)]


DEFAULT_RULES = Rules()


def load_rules(file: str | None) -> Rules:
    """The rules in a file; the defaults for None.

    Raises SettingsError with the file, the line, the key and the allowed values.
    """
    if file is None:
        return DEFAULT_RULES
    try:
        schema = load_schema("jobmon.settings", "rules.schema.json")
        return load_toml(file, read_file(file), schema, _build_rules)
    except FileError as error:
        raise SettingsError(f"JOBMON_RULES: {error}") from None


def _build_rules(content: Mapping[str, Any]) -> Rules:
    tables = content.get("queues", {})
    return replace(
        _build_queue_rules(content, {}),
        by_queue=tuple(
            (pattern, _build_queue_rules(content, table)) for pattern, table in tables.items()
        ),
    )


def _build_queue_rules(content: Mapping[str, Any], queue: Mapping[str, Any]) -> Rules:
    """The rules in a queue's table; a missing value is from the top of the file, or the default.

    The queue's own tables of types come first, because the first matching pattern is used.
    """
    thresholds = _build_thresholds(Thresholds(), {**content, **queue})
    types = [*queue.get("types", {}).items(), *content.get("types", {}).items()]
    backlog = {
        name: value for name, value in {**content, **queue}.items() if name.startswith("backlog_")
    }
    return Rules(
        thresholds=thresholds,
        by_type=tuple((pattern, _build_thresholds(thresholds, table)) for pattern, table in types),
        **backlog,
    )


def _build_thresholds(base: Thresholds, table: Mapping[str, Any]) -> Thresholds:
    """The thresholds in a table; a threshold that it lacks is from `base`."""
    names = ("failure_rate", "failure_rate_attempts", "dead_per_hour")
    values: dict[str, Any] = {name: table[name] for name in names if name in table}
    for name in ("stalled_after", "oldest_due"):
        if (minutes := table.get(f"{name}_minutes")) is not None:
            values[name] = timedelta(minutes=minutes)
    return replace(base, **values)
