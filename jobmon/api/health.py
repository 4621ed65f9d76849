"""`GET /healthz` and `GET /readyz`: probes for whatever keeps the service running."""

import logging
from http import HTTPStatus
from typing import Any

from pymongo.errors import PyMongoError

from jobmon.api import examples
from jobmon.api.openapi import RETRY_AFTER, Access, Routes
from jobmon.api.schemas import Error, Liveness, Readiness
from jobmon.rollup.reader import RollupReader
from jobmon.store.failures import Failure, classify_failure
from jobmon.store.probe import DatabaseProbe
from jobmon.web.errors import unavailable
from jobmon.web.revocation import RevokedTokens

log = logging.getLogger(__name__)


def blueprint(probe: DatabaseProbe, rollup: RollupReader, revoked: RevokedTokens) -> Routes:
    """Liveness and readiness; anyone may ask."""
    routes = Routes("health", __name__, access=Access.ANYONE)

    @routes.get("/healthz")
    @routes.doc(operationId="getHealth")
    @routes.response(HTTPStatus.OK, Liveness, example=examples.ALIVE)
    def healthz() -> dict[str, Any]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @routes.doc(operationId="getReadiness")
    @routes.response(HTTPStatus.OK, Readiness, example=examples.READY)
    @routes.alt_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        schema=Error,
        description="The watched collections cannot be read, or revoked tokens are not known.",
        examples={name: {"value": example} for name, example in examples.NOT_READY.items()},
        headers=RETRY_AFTER,
    )
    def readyz() -> dict[str, Any]:
        """The watched collections can be read; if not, `details.database` says why.

        503 also when the list of revoked tokens is lost.
        """
        database = probe.look()
        if not database.ready:
            raise unavailable(
                "database_unavailable",
                f"Not ready: {database.reason}.",
                details={"database": [str(database.reason)]},
            )
        if _are_lost(revoked):
            message = "The list of revoked tokens is gone; the log has more."
            raise unavailable("revocations_lost", message)
        checked: dict[str, Any] = {"ping_ms": database.ping_ms, "readable": database.readable}
        if database.reason is not None:
            checked["reason"] = database.reason
        return {"status": "ready", "checks": {"database": checked, "rollup": _rollup(rollup)}}

    return routes


def _are_lost(revoked: RevokedTokens) -> bool:
    """Whether the list is lost; a database that went away since the probe looked raises instead."""
    try:
        return revoked.are_lost()
    except PyMongoError as error:
        match classify_failure(error):
            case None:
                log.error("readiness lacks the revoked tokens", exc_info=error)
                return True
            case Failure.TOO_SLOW:
                return False
            case _:
                raise
    except Exception as error:  # whatever is stored there, the probe answers
        log.error("readiness lacks the revoked tokens", exc_info=error)
        return True


def _rollup(rollup: RollupReader) -> dict[str, Any]:
    """Never a reason to be unready: without a collector's figures they are counted live."""
    try:
        if rollup.figures() is not None:
            return {"fresh": True} | _failure(rollup)
        if not rollup.is_readable:
            return {"fresh": False, "reason": "the user may not read jobmon's own database"}
        return {"fresh": False, "build": rollup.build()} | _failure(rollup)
    except Exception as error:  # whatever is stored there, the probe answers
        log.error("readiness lacks the rollup", exc_info=error)
        return {"fresh": False, "reason": "jobmon's own database could not be read"}


def _failure(rollup: RollupReader) -> dict[str, str]:
    failure = rollup.failure()
    return {} if failure is None else {"failure": failure}
