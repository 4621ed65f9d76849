"""The routes of the original design, for comparison: every request counts the jobs."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, current_app, request

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web import auth

routes = Blueprint("original", __name__, url_prefix="/original")
routes.before_request(auth.require_admin)


def jobs() -> Any:
    """The watched collection, as an object of pymongo."""
    return current_app.extensions["jobmon_connection"].jobs.collection


@routes.get("/stats")
def stats() -> dict[str, Any]:
    """Answer with the total, the counts by status (a `$group`), and the age of the oldest job."""
    groups = jobs().aggregate([{"$group": {"_id": "$status", "count": {"$sum": 1}}}])
    oldest = jobs().find_one({"status": "queued"}, sort=[("createdAt", 1)])
    now = datetime.now(UTC)
    return {
        "totalJobs": jobs().estimated_document_count(),
        "statusCounts": {str(group["_id"]): group["count"] for group in groups},
        "oldestQueuedJobAgeMs": (now - oldest["createdAt"]).total_seconds() * 1_000
        if oldest
        else 0,
    }


@routes.get("/queue")
def queue() -> dict[str, Any]:
    """Answer with a page of the matching jobs, by `skip`, and the number of all matching jobs."""
    query = {name: request.args[name] for name in ("status", "type") if name in request.args}
    page, per_page = int(request.args.get("page", 1)), int(request.args.get("per_page", 20))
    matching = jobs().find(query, {"payload": 0}).sort("createdAt", -1)
    data = [str(job) for job in matching.skip((page - 1) * per_page).limit(per_page)]
    return {"total": jobs().count_documents(query), "data": data}


def create(settings: Settings | None = None) -> Flask:
    """jobmon with the original design's routes in addition to its own."""
    app = create_app(settings)
    app.register_blueprint(routes)
    return app
