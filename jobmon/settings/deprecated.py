"""Settings that have a new name: the old name still works, with a warning.

docs/versions.md has the policy, and a table of these settings.
"""

import os
from collections.abc import Mapping

FILE_SUFFIX = "_FILE"

# The new name by the old name. If several old names of a setting are set, the first here is used.
RENAMED: Mapping[str, str] = {
    "JOBMON_KEEP_MINUTES_DAYS": "JOBMON_MINUTE_RETENTION_DAYS",
    "JOBMON_KEEP_HOURS_DAYS": "JOBMON_HOUR_RETENTION_DAYS",
    "JOBMON_KEEP_DAYS_DAYS": "JOBMON_DAY_RETENTION_DAYS",
}


def is_set(name: str) -> bool:
    """Whether a variable, or its variant with `_FILE`, is set and not empty."""
    return bool(os.environ.get(name) or os.environ.get(name + FILE_SUFFIX))


def choose_name(name: str) -> str:
    """The name under which to read a setting: an old name if it is set and the new one is not."""
    if is_set(name):
        return name
    return next((old for old, new in RENAMED.items() if new == name and is_set(old)), name)


def list_warnings() -> list[str]:
    """A sentence for each old name in the environment: what to change, without the value."""
    warnings = []
    for old, new in RENAMED.items():
        if not is_set(old):
            continue
        if choose_name(new) == old:
            warnings.append(f"{old} is deprecated: rename it to {new}.")
        else:
            warnings.append(f"{old} is ignored, because {choose_name(new)} is set: remove {old}.")
    return warnings
