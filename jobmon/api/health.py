"""`GET /healthz` and `GET /readyz`: probes for whatever keeps the service running."""

import time
from http import HTTPStatus
from typing import Any

from flask_smorest import Blueprint

from jobmon.api.schemas import Health
from jobmon.rollup.reader import RollupReader
from jobmon.store.connection import Connection


def blueprint(connection: Connection, rollup: RollupReader) -> Blueprint:
    """Liveness and readiness; anyone may ask."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    @routes.response(HTTPStatus.OK, Health)
    def healthz() -> dict[str, Any]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @routes.response(HTTPStatus.OK, Health)
    def readyz() -> dict[str, Any]:
        """The database answers, too; 503 when it does not."""
        started = time.perf_counter()
        connection.ping()
        took_ms = round((time.perf_counter() - started) * 1_000, 1)
        checks: dict[str, Any] = {"database": {"ping_ms": took_ms}, "rollup": {"fresh": True}}
        if rollup.figures() is None:
            # Not a reason to be unready: the figures are counted live instead.
            checks["rollup"] = {"fresh": False, "build": rollup.build()}
        return {"status": "ready", "checks": checks}

    return routes
