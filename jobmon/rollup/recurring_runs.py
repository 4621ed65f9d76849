"""The stored form, in jobmon's own database, of runs of recurring jobs that a collector saw.

A document has the newest runs of one job, in the order in which they started. It also has the
position of the last change that was counted when the document was written.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Any

from jobmon.rollup.documents import require_type
from jobmon.store.bson_json import encode_key
from jobmon.store.mapping import Document
from jobmon.store.repetition import Repetition

RECURRING_RUNS = "recurring_runs"  # the collection
MAX_RUNS = 20  # of a job
MAX_JOBS = 1_000  # of a queue
MAX_ERROR_LENGTH = 300  # characters of a code or a message


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run that is over: its dates (UTC), its outcome, and how often the job ran then.

    `ended_at` is None if the lease expired, because then the end is unknown. `code` and `message`
    belong to its error, and are redacted.
    """

    status: str
    started_at: datetime | None
    ended_at: datetime | None
    code: str | None
    message: str | None
    repetition: Repetition


def run_list_name(job_id: Any) -> str:
    """The name of the document with the runs of the job that has this _id."""
    return f"runs:{hashlib.blake2b(encode_key(job_id), digest_size=16).hexdigest()}"


def dump_runs(runs: Iterable[RecordedRun]) -> Document:
    return {
        "runs": [
            [run.started_at, run.ended_at, run.status, run.code, run.message, list(run.repetition)]
            for run in runs
        ]
    }


def load_runs(document: Document) -> list[RecordedRun]:
    """The stored runs.

    Raises KeyError, TypeError or ValueError for another document.
    """
    return [
        RecordedRun(
            status=require_type(status, str),
            started_at=require_type(started_at, datetime, NoneType),
            ended_at=require_type(ended_at, datetime, NoneType),
            code=require_type(code, str, NoneType),
            message=require_type(message, str, NoneType),
            repetition=Repetition(*repetition),
        )
        for started_at, ended_at, status, code, message, repetition in document["runs"]
    ]
