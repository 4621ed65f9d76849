"""How gunicorn serves jobmon; `jobmon run` and `gunicorn wsgi:app` both use it.

`JOBMON_BIND`, `JOBMON_WORKERS` and `JOBMON_THREADS` are the knobs; gunicorn's own command line
overrides all of it. Of a worker's threads `JOBMON_THREADS` work at a time; what the others are for
stands in `web.admission`.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from jobmon import logs
from jobmon.rollup.collector import collecting
from jobmon.settings import Settings, SettingsError
from jobmon.signals import end_soon
from jobmon.web.admission import pool_size
from jobmon.web.rate_limit import require_shared_storage
from jobmon.worker import refuse_connections

log = logging.getLogger(__name__)

_SCRIPTS = Path(__file__).parent / "dashboard/static/vendor"


def _number(name: str, default: int) -> int:
    """A setting that `on_starting` refuses if it is no number, in a line and by its name."""
    given = os.environ.get(name, "")
    return int(given) if given.isdecimal() else default


bind = os.environ.get("JOBMON_BIND", "127.0.0.1:8000")
workers = _number("JOBMON_WORKERS", Settings.workers)
threads = pool_size(_number("JOBMON_THREADS", Settings.threads))
worker_class = "jobmon.worker.BufferedWorker"
timeout = 30
graceful_timeout = 20  # what SIGTERM leaves requests that are under way
keepalive = 15
limit_request_line = 8_190  # a cursor over odd documents can be long
control_socket_disable = True
# Proxies' headers are read in jobmon/web/security_headers.py only, from JOBMON_TRUSTED_PROXIES;
# gunicorn would trust any program on this machine.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""


class logger_class(Logger):  # noqa: N801 - the setting's name
    """gunicorn's lines are logged as ours are; requests are logged by `jobmon.web.request_log`."""

    def setup(self, cfg: Config) -> None:
        """Let our handler have what gunicorn logs."""
        super().setup(cfg)
        level = os.environ.get("JOBMON_LOG_LEVEL", "INFO")
        logs.configure(level if level in logging.getLevelNamesMapping() else "INFO")
        self.error_log.handlers.clear()
        self.error_log.propagate = True


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's variable
_METRICS_BYTES = 512 * 1_024  # of a worker: more than all routes, methods and statuses need


def on_starting(server: Any) -> None:
    """Refuse to start on a bad setting: one line, before any worker is made."""
    if server.cfg.preload_app:
        sys.exit("jobmon: --preload (preload_app) is not supported: leave it out")
    if "h2" in server.cfg.http_protocols:
        sys.exit("jobmon: --http-protocols h2 is not supported: a proxy in front can speak it")
    try:
        settings = Settings.from_env()
        require_shared_storage(settings, server.cfg.workers)
    except SettingsError as error:
        sys.exit(f"jobmon: {error}")
    logs.configure(settings.log_level, logs.find_secrets(settings))
    if not _SCRIPTS.is_dir():
        log.warning("the pages work without their scripts, which are not built: run `make assets`")
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _STOP_SIGNALS),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOP_SIGNALS),
        after_in_child=_end_on_signals,
    )
    # The workers count their requests in files of this folder. The files of a worker that has
    # ended stay, because a counter never falls; only gauges would have to be removed.
    os.environ.pop(_METRICS_FOLDER, None)
    if settings.metrics != "off":
        server.jobmon_metrics_folder = os.environ[_METRICS_FOLDER] = _make_metrics_folder()


def when_ready(server: Any) -> None:
    """Have SIGTERM refuse new connections first, so that none is left in the queue at the end."""
    stop = signal.getsignal(signal.SIGTERM)

    def refuse_and_stop(number: int, frame: Any) -> None:
        # A socket that systemd or a new master has, too, goes on.
        is_last = not (server.reexec_pid or server.master_pid or server.systemd)
        if os.getpid() == server.pid and is_last and not server.cfg.reuse_port:
            refuse_connections(server.LISTENERS)
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, refuse_and_stop)


def pre_exec(server: Any) -> None:
    """Let SIGUSR2 start a second master where the first one is `python -m gunicorn`.

    gunicorn would run its own `__main__.py` as a file: Python then takes gunicorn's `http` for
    the standard library's.
    """
    arguments = server.START_CTX["args"]
    if Path(arguments[1]).parts[-2:] == ("gunicorn", "__main__.py"):
        arguments[1:2] = ["-m", "gunicorn"]


_STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def _end_on_signals() -> None:
    """Let a signal end a worker that is just forked.

    gunicorn's handler in it is still the master's, which only takes note: the signal would be lost,
    and the worker killed when `graceful_timeout` is over.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _end_while_booting(worker: Any) -> None:
    """Let SIGTERM end a worker that loads the app: it has no request that could be finished."""
    finish = worker.handle_exit

    def handle_exit(number: int, frame: Any) -> None:
        if worker.booted:
            finish(number, frame)
        else:
            os._exit(0)

    worker.handle_exit = handle_exit


def post_fork(_: Any, worker: Any) -> None:
    """Prepare a worker before it imports the app."""
    _end_while_booting(worker)
    folder = os.environ.get(_METRICS_FOLDER)
    if folder and not _has_room(folder):
        # prometheus_client reads the variable when the app imports it: this worker counts apart.
        worker.jobmon_metrics_folder = os.environ.pop(_METRICS_FOLDER)


def _make_metrics_folder() -> str:
    """A folder for the workers' counts: in memory, for a full disk ends who writes a mapped file.

    TMPDIR overrides that.
    """
    in_memory = "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK)  # noqa: S108
    return tempfile.mkdtemp(prefix="jobmon-metrics-", dir="/dev/shm" if in_memory else None)  # noqa: S108


def _has_room(folder: str) -> bool:
    """Whether a worker's counts can be written there; the log has the reason if not."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_METRICS_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        log.error("this worker's requests are not counted: %s", error)
        return False
    return True


def on_exit(server: Any) -> None:
    """Remove the workers' counts with the service."""
    if folder := getattr(server, "jobmon_metrics_folder", None):
        shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """With JOBMON_COLLECTOR, each worker tries to be the collector; one of them is."""
    if folder := getattr(worker, "jobmon_metrics_folder", None):
        os.environ[_METRICS_FOLDER] = folder  # so that its /metrics has the others' counts
    worker.jobmon_resources = ExitStack()
    settings = Settings.from_env()
    if settings.collector:
        worker.jobmon_resources.enter_context(collecting(settings))


def worker_exit(_: Any, worker: Any) -> None:
    """Release the collector's lease at once; no request is under way any more."""
    end_soon()
    if resources := getattr(worker, "jobmon_resources", None):
        resources.close()
