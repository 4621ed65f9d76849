"""Settings whose value is in a file: `JOBMON_MONGO_URI_FILE` names the file of `JOBMON_MONGO_URI`.

So a secret that a container gets as a file is in no environment, which other processes may see.
"""

import os
from pathlib import Path

from environs import FileAwareEnv

from jobmon.settings.mistakes import SettingsError

_SUFFIX = "_FILE"


def read_variable(name: str) -> str | None:
    """The value of an environment variable, or the content of the file that `{name}_FILE` names.

    White space at both ends of a file is removed. Raises SettingsError if the file cannot be read,
    or if both variables are set.
    """
    path = os.environ.get(name + _SUFFIX)
    if not path:
        return os.environ.get(name)
    if os.environ.get(name):
        raise SettingsError(f"{name}: set either {name} or {name}{_SUFFIX}, not both")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{name}{_SUFFIX}: {path} cannot be read: {reason}") from None


def open_environment() -> FileAwareEnv:
    """The environment as environs reads it; raises SettingsError for each file that is unusable."""
    errors = []
    for name in sorted(os.environ):
        if name.startswith("JOBMON_") and name.endswith(_SUFFIX):
            try:
                read_variable(name.removesuffix(_SUFFIX))
            except SettingsError as error:
                errors.append(str(error))
    if errors:
        raise SettingsError("; ".join(errors))
    return FileAwareEnv(eager=False, strip_whitespace=True)
