"""Counts of failed runs, for the assertions of tests."""

from collections import Counter

from jobmon.rollup.run_details import RunDetails


def count_by_group(details: RunDetails) -> Counter[str]:
    """The number of failed runs in each group of errors, by the group's id."""
    groups: Counter[str] = Counter()
    for (group, _), count in details.by_type.items():
        groups[group] += count
    return groups
