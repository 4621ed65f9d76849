"""`jobmon check` and `jobmon init` through a simulated mongos: catches a check that fails there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.check import check_deployment
from jobmon.setup.findings import SetupError
from jobmon.setup.init import run_init
from jobmon.setup.init_plan import InitOptions

from ..conftest import NOW
from ..support.mongos import Router

pytestmark = pytest.mark.real


@pytest.fixture
def settings(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Settings]:
    database.jobs.insert_one({"jobId": "a", "type": "t", "status": "queued", "createdAt": NOW})
    with Router(mongod.address) as router:
        yield make_settings(mongo_uri=f"mongodb://{router.address}/{database.name}")


def test_check_works_through_mongos(settings: Settings) -> None:
    messages = [finding.message for finding in check_deployment(settings)]
    assert any(message.endswith("a sharded cluster.") for message in messages)
    assert not any("could not be checked" in message for message in messages)


def test_init_of_a_replica_set_through_mongos_is_refused(settings: Settings) -> None:
    with pytest.raises(SetupError, match="the mongos of a sharded cluster"):
        list(run_init(settings, InitOptions(replica_set="rs0/localhost:27017")))
