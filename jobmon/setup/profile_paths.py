"""Finds the paths of a profile that no sampled document has: they may be misspelled."""

from collections.abc import Iterator
from typing import Any

from jobmon.profiles import ProfileFile, load_profile, shipped_profiles
from jobmon.profiles.conditions import to_expression
from jobmon.profiles.parser import ParsedProfile, ParsedStatus
from jobmon.profiles.sources import Source
from jobmon.setup.fields import find_used_paths
from jobmon.setup.findings import Finding, warning
from jobmon.store.connection import Connection
from jobmon.store.conversions import list_paths

# Fields that `Sample.find_absent` checks in every profile.
_CHECKED = ("jobId", "createdAt")


def check_paths(profile: str, connection: Connection) -> Iterator[Finding]:
    """A warning with the paths in a profile's own file that no job of a sample has.

    It does not check the paths of shipped profiles, nor inherited paths: they are optional.
    """
    if profile in shipped_profiles():
        return
    file = load_profile(profile)
    collection = connection.jobs.name
    inherited = [] if file.base is None else _list_key_paths(load_profile(file.base), collection)
    keys = [key for key in _list_key_paths(file, collection) if key not in inherited]
    used = find_used_paths(connection.jobs, ["_id", *(path for _, path in keys)])
    if "_id" not in used:  # no sample could be read in time
        return
    if absent := [f"{key}: {path}" for key, path in keys if path not in used]:
        yield warning(
            "profile",
            f"No sampled document of {collection} has these paths of {profile}: "
            f"{', '.join(absent)}.",
            remedy="Correct the paths that are misspelled. Others may appear only once a "
            "job has failed or finished.",
        )


def _list_key_paths(file: ProfileFile, collection: str) -> list[tuple[str, str]]:
    """The (key, path) pairs of a profile: each key that names paths of jobs, with each path."""
    keys = list(dict.fromkeys(_list_job_paths(file.parse(collection))))
    readings = [
        ("readings", path)
        for path in file.content.get("readings", {})
        # Leave out a path inside an array or a JSON text: the database does not look there.
        if not any(path.startswith(f"{outer}.") for _, outer in keys)
    ]
    return keys + readings


def _list_job_paths(parsed: ParsedProfile) -> Iterator[tuple[str, str]]:
    checked = {*_CHECKED, *parsed.always}
    for name, source in parsed.fields.items():
        if name not in checked or source.path is None:
            yield from ((f"fields.{name}", path) for path in list_inputs(source))
    yield from list_rule_paths(parsed.status, "status")
    if (repetition := parsed.repetition) is not None:
        for key, paths in vars(repetition).items():
            for path in paths if isinstance(paths, tuple) else (paths,):
                if path is not None:
                    yield f"repetition.{key}", path
    attempts, prefix = parsed.attempts, ""
    if attempts.array is not None:
        yield "attempts.array", attempts.array
        prefix = f"{attempts.array}."
    if attempts.place in ("array", "job"):
        for name, source in attempts.fields.items():
            for path in list_inputs(source):
                yield f"attempts.fields.{name}", f"{prefix}{path}"
        for key, path in list_rule_paths(attempts.status, "attempts.status"):
            yield key, f"{prefix}{path}"
        if prefix and attempts.status.path is not None:
            yield "attempts.status.path", f"{prefix}{attempts.status.path}"


def list_inputs(source: Source) -> Iterator[str]:
    """The paths in documents from which a field is read or computed."""
    yield from source.inputs
    yield from list_paths(source.computed)


def list_rule_paths(status: ParsedStatus, key: str) -> Iterator[tuple[str, str]]:
    """(key, path) pairs of the paths in the rules for a status; `key`: its key in the profile."""
    for index, rule in enumerate(status.rules):
        condition: Any = None if rule.when is None else to_expression(rule.when)
        yield from ((f"{key}.{index}.when", path) for path in list_paths(condition))
