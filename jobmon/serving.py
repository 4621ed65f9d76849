"""How gunicorn serves jobmon; `jobmon run` and `gunicorn wsgi:app` both use it.

`JOBMON_BIND`, `JOBMON_WORKERS` and `JOBMON_THREADS` are the knobs; gunicorn's own command line
overrides all of it.
"""

import os
import sys
from typing import Any

from jobmon.settings import Settings, SettingsError

bind = os.environ.get("JOBMON_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("JOBMON_WORKERS", "2"))
threads = int(os.environ.get("JOBMON_THREADS", "8"))
worker_class = "gthread"
timeout = 30
graceful_timeout = 20  # what SIGTERM leaves requests that are under way
keepalive = 15
limit_request_line = 8_190  # a cursor over odd documents can be long
control_socket_disable = True
accesslog = None


def on_starting(_: Any) -> None:
    """Refuse to start on a bad setting: one line, before any worker is made."""
    try:
        Settings.from_env()
    except SettingsError as error:
        sys.exit(f"jobmon: {error}")
