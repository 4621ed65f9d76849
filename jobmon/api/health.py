"""`GET /healthz` and `GET /readyz`: liveness and readiness probes."""

import logging
from http import HTTPStatus
from typing import Any

from pymongo.errors import PyMongoError

from jobmon.api import examples
from jobmon.api.answers import Answer, Error, array, boolean, integer, nested, number, string
from jobmon.api.fields import Date
from jobmon.api.openapi import RETRY_AFTER, Access, Routes
from jobmon.rollup.reader import RollupReader
from jobmon.store.failures import Failure, classify_failure, describe_error
from jobmon.web import auth
from jobmon.web.errors import unavailable
from jobmon.web.queues import current_queue, named_queue
from jobmon.web.revocation import RevokedTokens

log = logging.getLogger(__name__)


class Liveness(Answer):
    """The process is up."""

    status = string("`ok`.", enum=["ok"])


class DatabaseCheck(Answer):
    """Result of the check of the watched database."""

    pingMs = number("Duration of a ping, in milliseconds.")
    isReadable = boolean(
        "Whether the watched collections can be read; null if unknown.", nullable=True
    )
    reason = string("Why `isReadable` is null.", optional=True)


class BuildProgress(Answer):
    """Progress of the collector's first count."""

    counted = integer("Jobs counted so far.")
    estimated = integer("Estimated number of all jobs.")


class RollupCheck(Answer):
    """State of the collector's statistics; without fresh ones, jobs are counted live."""

    isFresh = boolean("Whether the collector's statistics are fresh.")
    build = nested(
        BuildProgress,
        "Progress of the first count, only while `isFresh` is false; null if no first count runs.",
        optional=True,
        nullable=True,
    )
    reason = string("Why the collector's statistics could not be read.", optional=True)
    failure = string(
        "Exception that stopped a collector in a web process in the last five minutes. The "
        "collector is restarted.",
        optional=True,
    )


class FailingReceiver(Answer):
    """A receiver of notifications to which messages cannot be delivered."""

    name = string("Name of the receiver.")
    since = Date("When messages began to fail.", attribute="failing_since")
    reason = string("Why the last message was not delivered.")


class NotificationCheck(Answer):
    """State of the notifications; a failure does not make the service unready."""

    failing = array(FailingReceiver, "Receivers to which messages cannot be delivered.")


class ReadinessChecks(Answer):
    """Results of the checks."""

    database = nested(DatabaseCheck, "The watched database.")
    rollup = nested(RollupCheck, "The collector.")
    notifications = nested(
        NotificationCheck, "The notifications, if the collector sends any.", optional=True
    )


class Readiness(Answer):
    """The service is ready to answer requests."""

    status = string("`ready`.", enum=["ready"])
    checks = nested(ReadinessChecks, "Results of the checks.")


def blueprint(revoked: RevokedTokens) -> Routes:
    """The probes; without a queue in the path they need no token."""
    routes = Routes("health", __name__, access=Access.ANYONE)

    @routes.get("/healthz")
    @routes.doc(operationId="getHealth")
    @routes.response(HTTPStatus.OK, Liveness, example=examples.LIVENESS)
    def healthz() -> dict[str, Any]:
        """Check that the process is up."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @routes.doc(operationId="getReadiness")
    @routes.response(HTTPStatus.OK, Readiness, example=examples.READINESS)
    @routes.alt_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        schema=Error.shared(),
        description="The watched collections cannot be read, or revoked tokens are unknown.",
        examples={name: {"value": example} for name, example in examples.NOT_READY.items()},
        headers=RETRY_AFTER,
    )
    def readyz() -> dict[str, Any]:
        """Check that the watched collections can be read.

        If they cannot be read, the answer is 503 with the reason in `details.database`. The answer
        is also 503 if the list of revoked tokens cannot be read or is lost. A database that is only
        slow counts as ready. Below the path of a queue the route needs the queue's permission.
        """
        if named_queue() is not None:  # without a token nobody learns which queues exist
            auth.require_admin()
        queue = current_queue()
        database = queue.probe.check()
        if not database.is_ready:
            raise unavailable(
                "database_unavailable",
                f"Not ready: {database.reason}.",
                details={"database": [str(database.reason)]},
            )
        _require_revocations(revoked)
        database_check: dict[str, Any] = {
            "pingMs": database.ping_ms,
            "isReadable": database.is_readable,
        }
        if database.reason is not None:
            database_check["reason"] = database.reason
        return {
            "status": "ready",
            "checks": {
                "database": database_check,
                "rollup": _check_rollup(queue.rollup),
                **_check_notifications(queue.rollup),
            },
        }

    return routes


def _require_revocations(revoked: RevokedTokens) -> None:
    """Raise ApiError 503 if the list is lost, PyMongoError if the database fails.

    A database that is only slow raises nothing.
    """
    try:
        is_lost = revoked.is_lost()
    except PyMongoError as error:
        if classify_failure(error) is Failure.TOO_SLOW:
            return
        raise
    if is_lost:
        message = "The list of revoked tokens is lost; the log has details."
        raise unavailable("revocations_lost", message)


def _check_rollup(rollup: RollupReader) -> dict[str, Any]:
    """The fields of a `RollupCheck`. Raises nothing: without a collector jobs are counted live."""
    try:
        if rollup.stats() is not None:
            return {"isFresh": True} | _describe_failure(rollup)
        if not rollup.is_readable:
            return {
                "isFresh": False,
                "reason": "jobmon's MongoDB user cannot read jobmon's own database",
            }
        return {"isFresh": False, "build": rollup.first_build()} | _describe_failure(rollup)
    except PyMongoError as error:
        log.error("could not read the rollup for readiness: %s", describe_error(error))
        return {"isFresh": False, "reason": "jobmon's own database could not be read"}


def _describe_failure(rollup: RollupReader) -> dict[str, str]:
    failure = rollup.failure()
    return {} if failure is None else {"failure": failure}


def _check_notifications(rollup: RollupReader) -> dict[str, Any]:
    try:
        receivers = rollup.notifications()
    except PyMongoError as error:
        log.error("could not read the notifications for readiness: %s", describe_error(error))
        return {}
    failing = [receiver for receiver in receivers if receiver.failing_since is not None]
    return {"notifications": {"failing": failing}} if receivers else {}
