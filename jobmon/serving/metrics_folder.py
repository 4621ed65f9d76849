"""The folder with all gunicorn workers' request counters, so that each worker can add them up.

prometheus_client maps the files there to memory. A file in the folder is locked as long as a
process of this gunicorn runs, so that a later start can remove the folders of killed services.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX, _LOCK = "jobmon-metrics-", "lock"
_NEEDED_BYTES = 512 * 1_024  # of a worker: more than all routes, methods and statuses need


def make_folder() -> str:
    """Make a folder for this process and its children; remove the folders of killed services.

    It is in memory if TMPDIR is not set and /dev/shm can be written: on a full disk, a write to a
    mapped file ends the process.
    """
    is_in_memory = "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK)  # noqa: S108
    parent = "/dev/shm" if is_in_memory else tempfile.gettempdir()  # noqa: S108
    _remove_abandoned(parent)
    while not _lock(folder := tempfile.mkdtemp(prefix=_PREFIX, dir=parent)):
        pass  # another gunicorn removed it before it was locked
    return folder


def has_space(folder: str) -> bool:
    """Whether a worker's counts can be written there; if not, the reason is logged."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_NEEDED_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        log.error("this worker's requests are not counted: %s", error)
        return False
    return True


def _lock(folder: str) -> bool:
    """Lock a folder until this process and its children have ended; False if the folder is gone."""
    lock = Path(folder, _LOCK)
    with suppress(OSError):  # not every file system has locks: without a lock, no folder is removed
        fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_SH)
    return lock.parent.is_dir()


def _remove_abandoned(parent: str) -> None:
    """Remove the folders whose lock no process holds."""
    for lock in Path(parent).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open() as file:  # held by a process, or already removed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)
