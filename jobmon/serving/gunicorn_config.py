"""gunicorn's configuration, for `jobmon run` and `gunicorn wsgi:app`.

`JOBMON_BIND`, `JOBMON_WORKERS` and `JOBMON_THREADS` set the most important values; gunicorn's own
command line overrides every value. A worker has more threads than `JOBMON_THREADS`: see
`web.admission`.
"""

import logging
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from jobmon import logs
from jobmon.collector.collecting import collecting
from jobmon.notify.delivery import open_receivers
from jobmon.serving import metrics_folder, stopping
from jobmon.settings import Settings, SettingsError, load_queues, read_variable
from jobmon.signals import end_soon
from jobmon.web.admission import pool_size
from jobmon.web.rate_limit import require_shared_storage

log = logging.getLogger(__name__)

_SCRIPTS = Path(__file__).parents[1] / "dashboard/static/vendor"
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's variable


def _read_text(name: str, default: str) -> str:
    """A setting, also from a file; the default if it is empty or cannot be read.

    `on_starting` refuses a file that cannot be read.
    """
    try:
        return read_variable(name) or default
    except SettingsError:
        return default


def _read_number(name: str, default: int) -> int:
    """A setting as a number; the default if it is not a number; `on_starting` then exits."""
    value = _read_text(name, "").strip()
    return int(value) if value.isdecimal() else default


bind = _read_text("JOBMON_BIND", "127.0.0.1:8000")
workers = _read_number("JOBMON_WORKERS", Settings.workers)
threads = pool_size(_read_number("JOBMON_THREADS", Settings.threads))
worker_class = "jobmon.serving.worker.BufferedWorker"
timeout = 30
graceful_timeout = 20  # seconds after SIGTERM, for requests that are under way
keepalive = 15
limit_request_line = 8_190  # a cursor over unusual documents can be long
control_socket_disable = True
# Only jobmon/web/proxies.py trusts proxies' headers, if JOBMON_TRUSTED_PROXIES is set. By default,
# gunicorn would trust the headers of any program on this machine.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""


class logger_class(Logger):  # noqa: N801 - the setting's name
    """Logs gunicorn's lines as jobmon's own; `jobmon.web.request_log` logs the requests."""

    def setup(self, cfg: Config) -> None:
        """Pass gunicorn's lines to the root logger."""
        super().setup(cfg)
        level = _read_text("JOBMON_LOG_LEVEL", "INFO")
        logs.configure(level if level in logging.getLevelNamesMapping() else "INFO")
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def on_starting(server: Any) -> None:
    """Exit with one line if a setting is wrong; else prepare the process for its workers."""
    if server.cfg.preload_app:
        sys.exit("jobmon: --preload (preload_app) is not supported: leave it out")
    if "h2" in server.cfg.http_protocols:
        sys.exit("jobmon: --http-protocols h2 is not supported: a proxy in front can speak it")
    try:
        settings = Settings.from_env()
        require_shared_storage(settings, server.cfg.workers)
        logs.configure(settings.log_level, logs.find_secrets(settings, load_queues(settings)))
        if settings.collector:
            open_receivers(settings)
    except SettingsError as error:
        sys.exit(f"jobmon: {error}")
    logs.warn_of_deprecated_settings()
    _log_actions(settings)
    if not _SCRIPTS.is_dir():
        log.warning(
            "the scripts of the pages are not built; run `make assets` (pages work without)"
        )
    stopping.keep_signals_while_forking()
    # The workers count their requests in the files of a folder. When a worker ends, its files stay,
    # because a counter must never fall; only files of gauges would have to be removed.
    os.environ.pop(_METRICS_FOLDER, None)
    if settings.metrics != "off":
        server.jobmon_metrics_folder = os.environ[_METRICS_FOLDER] = metrics_folder.make_folder()


def _log_actions(settings: Settings) -> None:
    """Log that actions can be requested, and warn of the actor's connection string."""
    if settings.actions:
        owners = ", ".join(settings.owner_actions) or "nothing"
        log.info("actions can be requested; owners may request: %s", owners)
    if settings.actor_mongo_uri is not None:
        log.warning(
            "JOBMON_ACTOR_MONGO_URI is set: the web service has the connection string of a user who"
            " may change jobs; set it only in the environment of `jobmon actor`"
        )


def when_ready(server: Any) -> None:
    """Let the master refuse new connections before it stops."""
    stopping.refuse_before_stopping(server)


def pre_exec(server: Any) -> None:
    """Let SIGUSR2 start a second master if the first one is `python -m gunicorn`.

    gunicorn would run its own `__main__.py` as a file: Python then imports gunicorn's `http` in
    place of the standard library's.
    """
    arguments = server.START_CTX["args"]
    if Path(arguments[1]).parts[-2:] == ("gunicorn", "__main__.py"):
        arguments[1:2] = ["-m", "gunicorn"]


def post_fork(_: Any, worker: Any) -> None:
    """Prepare a worker before it imports the app."""
    stopping.exit_while_booting(worker)
    folder = os.environ.get(_METRICS_FOLDER)
    if folder and not metrics_folder.has_space(folder):
        # prometheus_client reads the variable on import: without it, the counts stay in memory.
        worker.jobmon_metrics_folder = os.environ.pop(_METRICS_FOLDER)


def on_exit(server: Any) -> None:
    """Remove the folder with the workers' request counters."""
    if folder := getattr(server, "jobmon_metrics_folder", None):
        shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Name the metrics folder again and, with JOBMON_COLLECTOR, run a collector in each worker.

    For each queue, the collector of one worker counts.
    """
    if folder := getattr(worker, "jobmon_metrics_folder", None):
        os.environ[_METRICS_FOLDER] = folder  # its /metrics adds up the other workers' counts
    worker.jobmon_resources = ExitStack()
    settings = Settings.from_env()
    if settings.collector:
        worker.jobmon_resources.enter_context(collecting(settings))


def worker_exit(_: Any, worker: Any) -> None:
    """Release the collector's lease at once; requests have ended or were cut off."""
    end_soon()
    if resources := getattr(worker, "jobmon_resources", None):
        resources.close()
