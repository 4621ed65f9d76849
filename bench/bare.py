"""The bare stack, for comparison: the same queries by Flask, PyJWT, pymongo and orjson alone."""

import os
from typing import Any

import jwt
import orjson
from flask import Flask, Response, abort, request
from pymongo import DESCENDING, MongoClient

SECRET = os.environ["JOBMON_JWT_SECRET_KEY"]
NEWEST_FIRST = [("createdAt", DESCENDING), ("_id", DESCENDING)]

app = Flask(__name__)
client: MongoClient[dict[str, Any]] = MongoClient(os.environ["JOBMON_MONGO_URI"], connect=False)


@app.before_request
def check_token() -> None:
    """Refuse a request without a valid token."""
    if request.path == "/healthz":
        return
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        jwt.decode(token, SECRET, ["HS256"])
    except jwt.InvalidTokenError:
        abort(401)


@app.get("/healthz")
def report_health() -> Response:
    """Show that the process runs."""
    return answer({"status": "ok"})


@app.get("/jobs/<job_id>")
def show_job(job_id: str) -> Response:
    """Answer with a job and its attempts."""
    database = client.get_default_database()
    job = database.jobs.find_one({"jobId": job_id})
    attempts = list(database.job_attempts.find({"jobId": job_id}).sort("attemptNumber"))
    return answer({"job": job, "attempts": attempts})


@app.get("/admin/jobs/queue")
def list_jobs() -> Response:
    """Answer with a page of jobs, without the total."""
    query = {name: request.args[name] for name in ("status", "type") if name in request.args}
    jobs = client.get_default_database().jobs.find(query, {"payload": 0}).sort(NEWEST_FIRST)
    return answer({"data": list(jobs.limit(int(request.args.get("per_page", 20)) + 1))})


def answer(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content, default=str), mimetype="application/json")
