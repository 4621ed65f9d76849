"""Tokens at gunicorn's door: would catch a worker that goes on taking a revoked token, and a huge
token that costs more than a refusal."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo.database import Database

from jobmon.embedded import Mongod

from ..conftest import SECRET, Api
from ..waiting import eventually
from .test_serving import ROOT, Web

HOLDS_WITHIN_S = 2
WORKERS = 3


@pytest.fixture
def web(mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path) -> Iterator[Web]:
    own = f"own_{uuid4().hex}"
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    web = Web(uri, tmp_path / "log", JOBMON_ROLLUP_DB=own, JOBMON_WORKERS=str(WORKERS))
    web.revoking = {"JOBMON_MONGO_URI": uri, "JOBMON_ROLLUP_DB": own}  # type: ignore[attr-defined]
    try:
        eventually(web.answers)
        yield web
    finally:
        web.stop()
        database.client.drop_database(own)


def test_a_revoked_token_opens_no_worker_after_two_seconds(web: Web, api: Api) -> None:
    token, other = api.token(), api.token()
    assert {web.get("/jobs", token) for _ in range(4 * WORKERS)} == {200}
    environment = dict(os.environ) | {"JOBMON_JWT_SECRET_KEY": SECRET, **web.revoking}
    done = subprocess.run(
        [sys.executable, "-m", "jobmon.cli", "revoke", "--token-stdin"],
        input=token,
        text=True,
        capture_output=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    revoked_at = time.monotonic()
    eventually(lambda: {web.get("/jobs", token) for _ in range(4 * WORKERS)} == {401})
    # Once the list was kept for its time nobody can have an older one.
    eventually(lambda: time.monotonic() > revoked_at + HOLDS_WITHIN_S)
    assert {web.get("/jobs", token) for _ in range(8 * WORKERS)} == {401}
    assert {web.get("/jobs", other) for _ in range(WORKERS)} == {200}
