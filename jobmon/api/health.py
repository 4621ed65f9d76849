"""`GET /healthz` and `GET /readyz`: probes for whatever keeps the service running."""

import time
from http import HTTPStatus
from typing import Any

from jobmon.api import examples
from jobmon.api.errors import unavailable
from jobmon.api.openapi import Access, Routes
from jobmon.api.schemas import Alive, Ready
from jobmon.rollup.reader import RollupReader
from jobmon.store.connection import Connection
from jobmon.store.revoked import RevokedTokens
from jobmon.store.shared import Shared


def blueprint(connection: Connection, rollup: RollupReader, revoked: RevokedTokens) -> Routes:
    """Liveness and readiness; anyone may ask."""
    routes = Routes("health", __name__, access=Access.ANYONE)

    def ping() -> float:
        started = time.perf_counter()
        connection.ping()
        return round((time.perf_counter() - started) * 1_000, 1)

    pings = Shared(ping, 0)  # anyone may ask, but not hold a connection each

    @routes.get("/healthz")
    @routes.doc(operationId="getHealth")
    @routes.response(HTTPStatus.OK, Alive, example=examples.ALIVE)
    def healthz() -> dict[str, Any]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @routes.doc(operationId="getReadiness")
    @routes.response(HTTPStatus.OK, Ready, example=examples.READY)
    @routes.alt_response(HTTPStatus.SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
    def readyz() -> dict[str, Any]:
        """The database answers, too; 503 when it does not, or when revoked tokens are lost."""
        checks: dict[str, Any] = {"database": {"ping_ms": pings.get()}, "rollup": {"fresh": True}}
        if rollup.figures() is None:
            # Not a reason to be unready: the figures are counted live instead.
            checks["rollup"] = {"fresh": False, "build": rollup.build()}
        if revoked.are_lost():
            message = "The list of revoked tokens is gone; the log has more."
            raise unavailable("revocations_lost", message)
        return {"status": "ready", "checks": checks}

    return routes
