"""Finds the groups to which the errors of jobs belong."""

import logging
from collections.abc import Iterable
from typing import Any

from flask import current_app
from pymongo.errors import PyMongoError

from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web.queues import WatchedQueue

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 50  # the newest attempts of a job: only their errors are looked up


def add_error_groups(queue: WatchedQueue, job: Document, *, may_see: bool) -> Document:
    """The job and its attempts, each with `errorGroup`: the id of the group of its error.

    The id is None without an error, without a known group, for attempts before the newest 50, and
    always if `may_see` is false or the groups cannot be read.
    """
    attempts = job["attempts"]
    errors = [job.get("lastError"), *(attempt.get("error") for attempt in attempts[-MAX_ATTEMPTS:])]
    job_group, *newest_groups = _try_find_groups(queue, errors) if may_see else [None] * len(errors)
    groups = [None] * (len(attempts) - len(newest_groups)) + newest_groups
    return {
        **job,
        "errorGroup": job_group,
        "attempts": [
            {**attempt, "errorGroup": group}
            for attempt, group in zip(attempts, groups, strict=True)
        ],
    }


def _try_find_groups(queue: WatchedQueue, errors: list[Any]) -> list[str | None]:
    """The result of `find_error_groups`; None for each error if the groups cannot be read."""
    try:
        return find_error_groups(queue, errors)
    except PyMongoError as error:  # the job can be shown without its groups
        log.error("the groups of a job's errors could not be read: %s", describe_error(error))
        return [None] * len(errors)


def find_error_groups(queue: WatchedQueue, errors: Iterable[Any]) -> list[str | None]:
    """The id of the group of each error; None without an error or a known group.

    Raises PyMongoError.
    """
    redactor = current_app.extensions["jobmon_redactor"]
    kinds = [
        None if error is None else classify_error(prepare_error(error, None, redactor))
        for error in errors
    ]
    # For each error: the ids of its own group, and of the group for other messages with its code.
    candidates = [() if kind is None else (kind.id, fold_kind(kind).id) for kind in kinds]
    ids = {group_id for pair in candidates for group_id in pair}
    known_ids = queue.rollup.known_error_groups(ids) if ids else frozenset()
    return [
        next((group_id for group_id in pair if group_id in known_ids), None) for pair in candidates
    ]
