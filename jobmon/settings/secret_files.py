"""Settings whose value is in a file: `JOBMON_MONGO_URI_FILE` names the file of `JOBMON_MONGO_URI`.

So a container can get its secrets as files: other processes may see its environment.
"""

import os
from typing import Any

from environs import Env

from jobmon.profiles.schema import FileError, read_file
from jobmon.settings.deprecated import FILE_SUFFIX, choose_name
from jobmon.settings.mistakes import SettingsError


def read_variable(name: str) -> str | None:
    """The value of an environment variable, or the content of the file that `{name}_FILE` names.

    Reads a deprecated name of the variable, too. Strips white space around a file's text. Raises
    SettingsError if the file cannot be read, or if both variables are set.
    """
    return _read(choose_name(name))


def open_environment() -> Env:
    """The environment, for environs; raises one SettingsError for all `_FILE` mistakes."""
    errors = []
    for name in sorted(os.environ):
        if name.startswith("JOBMON_") and name.endswith(FILE_SUFFIX):
            try:
                _read(name.removesuffix(FILE_SUFFIX))
            except SettingsError as error:
                errors.append(str(error))
    if errors:
        raise SettingsError("; ".join(errors))
    return _Environment(eager=False)


class _Environment(Env):
    def _get_value(self, env_key: str, default: Any) -> Any:
        value = read_variable(env_key)
        return default if value is None else value


def _read(name: str) -> str | None:
    path = os.environ.get(name + FILE_SUFFIX)
    if not path:
        return os.environ.get(name)
    if os.environ.get(name):
        raise SettingsError(f"{name}: set either {name} or {name}{FILE_SUFFIX}, not both")
    try:
        return read_file(path).strip()
    except FileError as error:
        raise SettingsError(f"{name}{FILE_SUFFIX}: {error}") from None
