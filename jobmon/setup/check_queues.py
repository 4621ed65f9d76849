"""`jobmon check` of several queues: checks each queue, and jobmon's own databases once.

Up to 32 queues are checked at the same time: deployments that do not answer share one timeout.
Findings are in the order of the queues in the file.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from pymongo.errors import AutoReconnect, PyMongoError

from jobmon.humanize import count
from jobmon.settings import Settings, load_queues, select_queues
from jobmon.setup.actor_check import check_requester
from jobmon.setup.check import NO_USER_REMEDY, DeploymentCheck, check_deployment, check_settings
from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, Level, describe_address, explain_failure, ok
from jobmon.setup.rights import check_own_databases
from jobmon.store.connection import Connection

_MAX_PARALLEL = 32


def check_queues(settings: Settings, name: str | None = None) -> Iterator[Finding]:
    """Check all queues, or the queue or table with this name; a queue's findings have its name.

    Without JOBMON_QUEUES it checks the only queue. Raises SettingsError for a bad file or name.
    """
    if settings.queues is None:
        yield from check_deployment(settings)
        return
    queues = load_queues(settings)
    names = [queue.queue for queue in queues]
    yield from check_settings(settings, count(len(queues), "queue is", "queues are"), names)
    if name is not None:
        queues = select_queues(queues, name)
    own_connection = Connection(replace(settings, queue=""))  # printed commands get no --queue
    try:
        own_findings = list(_check_own_deployment(own_connection))
        yield from own_findings
        readable = own_connection if own_findings[0].level is Level.OK else None
        check = partial(_check_queue, readable, {})
        with ThreadPoolExecutor(_MAX_PARALLEL) as pool:
            for queue, findings in zip(queues, pool.map(check, queues), strict=True):
                yield from (replace(finding, queue=queue.queue) for finding in findings)
    finally:
        own_connection.close()


def _check_own_deployment(own_connection: Connection) -> Iterator[Finding]:
    """Check jobmon's own databases, in the deployment of JOBMON_MONGO_URI."""
    settings = own_connection.settings
    try:
        deployment = Deployment.inspect(settings, own_connection)
        address = describe_address(settings.mongo_uri)
        yield ok("database", f"{address} has jobmon's own databases: {deployment.describe_kind()}.")
        yield from check_own_databases(deployment)
        yield from check_requester(deployment)
    except (PyMongoError, OSError, ValueError) as error:
        yield explain_failure(error, settings.mongo_uri, settings.uri_setting, NO_USER_REMEDY)


def _check_queue(
    own_connection: Connection | None, unreachable: dict[str, Exception], queue: Settings
) -> list[Finding]:
    """Check a queue; a deployment that did not answer, in `unreachable`, is not queried again."""
    address = describe_address(queue.mongo_uri)
    connection = Connection(queue)
    try:
        if address in unreachable:
            raise unreachable[address]
        deployment = Deployment.inspect(queue, connection, has_own_databases=False)
        return list(DeploymentCheck(deployment, own_connection).findings())
    except (PyMongoError, OSError, ValueError) as error:
        if isinstance(error, AutoReconnect):
            unreachable[address] = error
        return [explain_failure(error, queue.mongo_uri, queue.uri_setting, NO_USER_REMEDY)]
    finally:
        connection.close()
