"""Loads profiles: shipped profiles by their name, other profiles from a `.toml` file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from jobmon.profiles.parser import ParsedProfile, parse_profile
from jobmon.profiles.schema import (
    FileError,
    TomlMistakeError,
    load_toml,
    profile_schema,
    read_file,
)

Content = dict[str, Any]

_SUFFIX = ".toml"
_CACHED_FILES = 100
# A profile that extends another profile adds entries to these tables, or replaces entries.
_MERGED_TABLES = (
    "fields",
    "readings",
    "constants",
    "attempts",
    "log",
    "events",
    "names",
    "transitions",
    "repetition",
)

# Statistics do not depend on these tables.
_UNCOUNTED_TABLES = ("lease", "repetition", "transitions")


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    """The content of a profile's file, merged with the profile that it extends.

    `name`: the name of a shipped profile, or the path of a file. `base`: the name of the extended
    profile; None if it extends none.
    """

    name: str
    content: Content
    base: str | None = None
    # The parsed profile by collection: the settings and each connection use it.
    _parsed: dict[str, ParsedProfile] = field(default_factory=dict, init=False, repr=False)

    @property
    def collection(self) -> str:
        """The default collection of the jobs."""
        return str(self.content.get("collection", "jobs"))

    @property
    def attempts_collection(self) -> str | None:
        """The default collection of the attempts or of their log; None if jobs contain them."""
        attempts = self.content.get("attempts", {})
        if self.has_event_log:
            return str(attempts["log"]["collection"])
        if attempts.get("in") != "collection":
            return None
        return str(attempts.get("collection", "job_attempts"))

    @property
    def has_event_log(self) -> bool:
        """Whether the collection of attempts has several documents for each attempt: its events."""
        return bool(self.content.get("attempts", {}).get("in") == "log")

    @property
    def has_status_field(self) -> bool:
        """Whether the status is stored in a field, so that settings can rename its values."""
        return isinstance(self.content.get("status"), dict)

    @property
    def has_shipped_status(self) -> bool:
        """Whether its `status` is unchanged from the shipped profile that it is or extends."""
        shipped = self.base or self.name
        if shipped not in shipped_profiles():
            return False
        return self.content.get("status") == _load_shipped(shipped).content.get("status")

    @property
    def has_attempt_status_field(self) -> bool:
        """`has_status_field` for the status of attempts in a collection of their own."""
        attempts = self.content.get("attempts", {})
        is_field = isinstance(attempts.get("status"), dict)
        return self.attempts_collection is not None and not self.has_event_log and is_field

    @property
    def identity(self) -> str:
        """The name of a shipped profile, or a hash of the content that statistics depend on.

        Statistics of profiles with different identities are stored apart.
        """
        if self.name in shipped_profiles():
            return self.name
        counted = {name: self.content[name] for name in self.content.keys() - _UNCOUNTED_TABLES}
        canonical = json.dumps(counted, sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def override(
        self,
        *,
        fields: Mapping[str, str],
        statuses: Mapping[str, str],
        attempt_fields: Mapping[str, str],
        attempt_statuses: Mapping[str, str],
    ) -> "ProfileFile":
        """The profile, in which these paths and names of statuses replace others."""
        if not (fields or statuses or attempt_fields or attempt_statuses):
            return self
        paths = dict(fields)
        changes: Content = {"fields": paths}
        if (path := paths.pop("status", None)) is not None:
            rules = self.content["status"] if not self.has_status_field else ()
            # Other parts of the profile may refer to the statuses of its rules.
            names = {rule["is"]: rule["is"] for rule in rules} | dict(statuses)
            changes["status"] = {"path": path, "names": names}
        elif statuses:
            changes["status"] = {"names": dict(statuses)}
        if self.attempts_collection is not None and not self.has_event_log:
            attempt_paths = dict(attempt_fields)
            attempts: Content = {"fields": attempt_paths}
            if (path := attempt_paths.pop("status", None)) is not None:
                attempts["status"] = {"path": path, "names": dict(attempt_statuses)}
            elif attempt_statuses:
                attempts["status"] = {"names": dict(attempt_statuses)}
            changes["attempts"] = attempts
        content = _merge(self.content, changes)
        # Renamed: another program's documents, whose lease order is unknown.
        if statuses or fields.keys() - {"createdBy"}:
            content.pop("lease", None)
            content.pop("transitions", None)  # they would write to the profile's own fields
        return replace(self, content=content)

    def parse(self, collection: str) -> ParsedProfile:
        """The parsed profile for the jobs in a collection; raises TomlMistakeError."""
        if collection not in self._parsed:
            self._parsed[collection] = parse_profile(self.content, collection)
        return self._parsed[collection]


@cache
def shipped_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with jobmon."""
    names = (entry.name for entry in files("jobmon.profiles").iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def load_profile(name: str) -> ProfileFile:
    """The shipped profile of this name, or the profile in a `.toml` file; raises FileError."""
    if name in shipped_profiles():
        return _load_shipped(name)
    if not name.endswith(_SUFFIX):
        raise FileError(f"{name} is not one of {', '.join(shipped_profiles())}, nor a .toml file")
    return parse_file(name, read_file(name))


@cache
def _load_shipped(name: str) -> ProfileFile:
    text = files("jobmon.profiles").joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    return parse_file(name, text)


@lru_cache(_CACHED_FILES)
def parse_file(name: str, text: str) -> ProfileFile:
    """The profile with this text; `name` is the file's name, for messages. Raises FileError."""

    def build(content: Content) -> ProfileFile:
        if (base := content.pop("extends", None)) is not None:
            if base not in shipped_profiles() or base == name:
                allowed = ", ".join(shipped_profiles())
                raise TomlMistakeError(("extends",), f"{base!r} is not one of {allowed}")
            inherited = dict(_load_shipped(base).content)
            if "status" in content:  # transitions name the statuses that they were written for
                inherited.pop("transitions", None)
            content = _merge(inherited, content)
        profile = ProfileFile(name=name, content=content, base=base)
        profile.parse(profile.collection)
        return profile

    return load_toml(name, text, profile_schema(), build)


def _merge(base: Content, changes: Content) -> Content:
    """`base` with `changes`: `_MERGED_TABLES` and `status` are merged, other values are replaced.

    `attempts` is replaced if `changes` moves the attempts.
    """
    merged = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        merged[name] = value
        if isinstance(inner, dict) and isinstance(value, dict):
            is_merged = name in (*_MERGED_TABLES, "status")
            if is_merged and not (name == "attempts" and _moves_attempts(inner, value)):
                merged[name] = _merge(inner, value)
    return merged


def _moves_attempts(base: Content, changes: Content) -> bool:
    """Whether `changes` puts attempts in another place, where the base's paths do not apply.

    "job" and "log" are one place: a job without events in the log is read as with "job".
    """
    places = {base.get("in"), changes.get("in", base.get("in"))}
    return len(places) > 1 and not places <= {"job", "log"}
