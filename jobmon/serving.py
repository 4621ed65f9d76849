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


_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# In bytes, by what prometheus_client calls its files: more than every route and method needs.
_ROOM_FOR_COUNTS = {"counter": 128 * 1_024, "histogram": 256 * 1_024}
_RATES = "JOBMON_RATE_LIMIT_STORAGE_URI"


def on_starting(server: Any) -> None:
    """Refuse to start on a bad setting: one line, before any worker is made."""
    if server.cfg.preload_app:
        sys.exit("jobmon: --preload (preload_app) is not supported: leave it out")
    if "h2" in server.cfg.http_protocols:
        sys.exit("jobmon: --http-protocols h2 is not supported: a proxy in front can speak it")
    try:
        settings = Settings.from_env()
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
    # Here the workers add up what they answered. A worker that has ended left its counts there,
    # and they must stay: a counter never falls. Only gauges would have to be taken out.
    os.environ.pop(_COUNTS, None)
    if settings.metrics != "off":
        os.environ[_COUNTS] = _folder("metrics")
    if (settings.rate_limit or settings.rate_limit_per_address) and _RATES not in os.environ:
        os.environ[_RATES] = f"sqlite://{_folder('rates')}/hits"


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


_without_counts: list[str] = []


def post_fork(_: Any, worker: Any) -> None:
    """Take the room for what a worker counts before it counts.

    The files are mapped to memory: a count that the disk has no room for would end the worker.
    One that finds no room serves all the same, and counts for itself only.
    """
    _end_while_booting(worker)
    if _COUNTS not in os.environ:
        return
    folder = Path(os.environ[_COUNTS])
    for kind, size in _ROOM_FOR_COUNTS.items():
        file, new = folder / f"{kind}_{os.getpid()}.db", folder / f"{os.getpid()}.new"
        if file.exists():  # of one before with this number: its counts stay
            continue
        try:
            new.write_bytes(bytes(size))
            new.rename(file)  # the others read all that is there at any moment
        except OSError as error:
            log.error("this worker's requests are not counted: %s", error)
            new.unlink(missing_ok=True)
            # prometheus_client looks for it when it is imported, with the app.
            _without_counts.append(os.environ.pop(_COUNTS))
            return


_folders: list[str] = []


def _folder(name: str) -> str:
    """A folder of this service's own, for what its workers share."""
    _folders.append(tempfile.mkdtemp(prefix=f"jobmon-{name}-"))
    return _folders[-1]


def on_exit(_: Any) -> None:
    """Take what the workers shared away with the service."""
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


_of_worker = ExitStack()


def post_worker_init(_: Any) -> None:
    """With JOBMON_COLLECTOR, each worker offers to be the collector; one of them is."""
    if _without_counts:
        os.environ[_COUNTS] = _without_counts.pop()  # what the others count is told
    settings = Settings.from_env()
    if settings.collector:
        _of_worker.enter_context(collecting(settings))


def worker_exit(_: Any, __: Any) -> None:
    """Hand the collector's lease over at once; no request is under way any more."""
    end_soon()
    _of_worker.close()
