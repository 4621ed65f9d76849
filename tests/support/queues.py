"""A service over several queues in one in-memory database."""

from pathlib import Path
from typing import Any

from pymongo.database import Database

from jobmon.app import create_app
from jobmon.settings import Settings

from ..conftest import SECRET, Api

QUEUES_FILE = """
[mails]
collection = "mails"
environment = "production"

[payouts]
collection = "payouts"
permission = "PAYOUTS"

[internal]
collection = "internal"
owners = false
"""
ROLES = {
    "admin": frozenset({"ADMIN_DASHBOARD"}),
    "payroll": frozenset({"PAYOUTS"}),
    "chief": frozenset({"PAYOUTS", "ADMIN_DASHBOARD"}),
}


def serve_queues(
    watched: Database[dict[str, Any]], folder: Path, text: str = QUEUES_FILE, **options: Any
) -> Api:
    """The service over the queues in a file with this text; `options` are further settings.

    Each collection of `QUEUES_FILE` gets one job of the owner ada; the job's id and type are the
    queue's name.
    """
    path = folder / "queues.toml"
    path.write_text(text)
    for name in ("mails", "payouts", "internal"):
        watched[name].insert_one(
            {"jobId": name, "type": name, "status": "queued", "createdBy": "ada"}
        )
    settings = Settings(
        mongo_uri="mongodb://127.0.0.1/watched",
        jwt_secret_key=SECRET,
        stats_ttl_ms=0,
        queues=str(path),
        role_permissions=ROLES,
        **options,
    )
    return Api(create_app(settings, watched.client))
