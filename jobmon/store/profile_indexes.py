"""Lists the additional indexes of a profile, which its rules, types or due times need.

The index of the lease order is not in this list: the queue's own program creates it under another
name, and would fail if jobmon had created an index with the same keys.
"""

from collections.abc import Sequence

from jobmon.profiles.conditions import list_index_fields
from jobmon.profiles.parser import Rule
from jobmon.store.mapping import FieldMapping, Keys


def list_profile_indexes(jobs: FieldMapping, rules: Sequence[Rule]) -> tuple[Keys, ...]:
    """The keys of each index, in the documents' names. No index is a prefix of another.

    A rule has an index for its fields. If the rule has one value for each field, the keys of the
    list order follow.
    """
    order = jobs.paths["createdAt"]
    in_list_order: Keys = ([] if order == "_id" else [(order, -1)]) + [("_id", -1)]
    indexes: list[Keys] = []
    waiting = _list_waiting_keys(jobs) if rules else []
    for rule in rules:
        fields, is_equality = list_index_fields(rule.when or {})
        # If the index of the waiting jobs has just these fields, it serves the rule, too.
        if fields and list(fields) != [name for name, _ in waiting if name != "_id"]:
            keys: Keys = [(name, 1) for name in fields]
            indexes.append(keys + in_list_order if is_equality else keys)
    indexes.append(waiting)
    for path in jobs.alternatives.get("type", ()):
        indexes.append([(path, 1), *in_list_order])
    unique = [keys for i, keys in enumerate(indexes) if keys and keys not in indexes[:i]]
    return tuple(
        keys
        for keys in unique
        if not any(keys == longer[: len(keys)] and keys != longer for longer in unique)
    )


def _list_waiting_keys(jobs: FieldMapping) -> Keys:
    """The keys that have waiting jobs in the order of nextRunAt; empty if that has no path."""
    if (due := jobs.paths.get("nextRunAt")) is None:
        return []
    finished = jobs.paths.get("finishedAt") if jobs.date_decides_waiting else None
    paths = dict.fromkeys(path for path in (due, "_id", finished) if path is not None)
    return [(path, 1) for path in paths]
