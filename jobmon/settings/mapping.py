"""The settings that describe the watched documents, read and checked together."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from environs import Env
from marshmallow import ValidationError, validate

from jobmon.domain import ATTEMPT_FIELDS, MAPPED_JOB_FIELDS, AttemptStatus, JobStatus
from jobmon.profiles import FileError, ProfileFile, load_profile
from jobmon.settings.readers import read_names, read_pairs, read_text

DEFAULT_PROFILE = "jobmon"
_ATTEMPTS = "job_attempts"
MAPPING_SETTINGS: tuple[str, ...] = (
    "profile",
    "jobs_collection",
    "attempts_collection",
    "job_fields",
    "attempt_fields",
    "status_names",
    "attempt_status_names",
    "search_fields",
)

check_collection = validate.Regexp(r"^[^$\0]{1,200}\Z", error="Not a collection name.")


def read_mapping(env: Env) -> dict[str, Any]:
    """The settings that describe the watched documents; the profile decides which are allowed.

    With a file of queues, none of these variables is allowed: the file and its profiles are used.
    """
    if env.str("QUEUES", None):
        refuse = _make_refusal("JOBMON_QUEUES: that file replaces it")
        for name in MAPPING_SETTINGS:
            env.str(name.upper(), None, validate=refuse)
        return {}
    # If the profile cannot be loaded, the other settings are checked as for the default profile.
    profile = read_text(env, "PROFILE", load_profile(DEFAULT_PROFILE), parse=_load_profile)
    has_attempts = profile.attempts_collection is not None
    attempts = profile.attempts_collection or _ATTEMPTS  # the default

    def check_if_used(is_used: bool, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return check if is_used else _make_refusal(f"JOBMON_PROFILE={profile.name}: remove it")

    check_job_fields = _make_fields_check(
        MAPPED_JOB_FIELDS,
        allowed_at_id=("jobId", "createdAt"),
        has_defaults=profile.name == DEFAULT_PROFILE,
    )
    job_fields = read_pairs(env, "JOB_FIELDS", check_job_fields)
    has_status = profile.has_status_field or "status" in job_fields
    can_map_attempts = has_attempts and not profile.has_event_log
    check_attempt_fields = _make_fields_check(ATTEMPT_FIELDS, allowed_at_id=("jobId",))
    attempt_fields = read_pairs(
        env, "ATTEMPT_FIELDS", check_if_used(can_map_attempts, check_attempt_fields)
    )
    has_attempt_status = profile.has_attempt_status_field or "status" in attempt_fields
    return {
        "profile": profile.name,
        "jobs_collection": env.str(
            "JOBS_COLLECTION", profile.collection, validate=check_collection
        ),
        "attempts_collection": env.str(
            "ATTEMPTS_COLLECTION", attempts, validate=check_if_used(has_attempts, check_collection)
        )
        or attempts,
        "job_fields": job_fields,
        "attempt_fields": attempt_fields,
        "status_names": read_pairs(
            env, "STATUS_NAMES", check_if_used(has_status, _make_statuses_check(JobStatus))
        ),
        "attempt_status_names": read_pairs(
            env,
            "ATTEMPT_STATUS_NAMES",
            check_if_used(has_attempt_status, _make_statuses_check(AttemptStatus)),
        ),
        "search_fields": read_names(env, "SEARCH_FIELDS"),  # `find_search_paths` checks them
    }


def _make_fields_check(
    known: tuple[str, ...], *, allowed_at_id: tuple[str, ...], has_defaults: bool = True
) -> Callable[[Mapping[str, str]], None]:
    """A function that checks field paths; only the fields in `allowed_at_id` can be at `_id`.

    With `has_defaults`, a field that is not mapped is at the path that equals its name.
    """

    def check(paths: Mapping[str, str]) -> None:
        unknown = set(paths) - set(known)
        if unknown:
            raise ValidationError(
                f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(known)}."
            )
        if not all(re.fullmatch(r"[^$.\s\0]+(\.[^$.\s\0]+)*", path) for path in paths.values()):
            raise ValidationError("Not the path of a field, as in jobId=job_id.")
        for name, path in paths.items():
            if path.startswith("_id.") or (path == "_id" and name not in allowed_at_id):
                raise ValidationError(
                    f"{name} cannot be at {path}: only {' and '.join(allowed_at_id)} can be at _id."
                )
        defaults = dict(zip(known, known, strict=True)) if has_defaults else {}
        _refuse_shared_paths(defaults | dict(paths))

    return check


def _refuse_shared_paths(paths: Mapping[str, str]) -> None:
    """Raise ValidationError if two fields share a path; dates, attempts and `_id` can be shared."""
    names_by_path: dict[str, str] = {}
    for name, path in paths.items():
        if path == "_id" or name.endswith("At") or name in ("attempts", "attemptCount"):
            continue
        if path in names_by_path:
            raise ValidationError(f"{names_by_path[path]} and {name} cannot both be at {path}.")
        names_by_path[path] = name


def _load_profile(name: str) -> ProfileFile:
    try:
        return load_profile(name)
    except FileError as error:
        raise ValidationError(str(error)) from None


def _make_refusal(reason: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value:  # Docker Compose sets a variable without a value to an empty text
            raise ValidationError(f"Not used with {reason}.")

    return check


def _make_statuses_check(statuses: type[StrEnum]) -> Callable[[Mapping[str, str]], None]:
    def check(names: Mapping[str, str]) -> None:
        unknown = set(names.values()) - set(statuses)
        if unknown:
            raise ValidationError(
                f"Unknown: {', '.join(sorted(unknown))}. Write your status first, then one of "
                f"{', '.join(statuses)}: done=succeeded."
            )

    return check
