"""Creates the web service: `create_app` connects all of its parts."""

import sys
from typing import Any

from flask import Flask
from pymongo import MongoClient

from jobmon import __version__, logs, tracing
from jobmon.api import admin, health, jobs, metrics, openapi
from jobmon.api.job_lists import ListResponder
from jobmon.dashboard import views
from jobmon.dashboard.job_pages import JobPages
from jobmon.dashboard.overview_page import OverviewPage
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.series import SeriesReader
from jobmon.rollup.stats import StatsReader
from jobmon.settings import Settings, SettingsError
from jobmon.store.connection import Connection
from jobmon.store.jobs import JobStore
from jobmon.store.known_fields import KnownFields
from jobmon.store.lists import JobLists
from jobmon.store.probe import DatabaseProbe
from jobmon.web import (
    admission,
    auth,
    compression,
    rate_limit,
    request_log,
    security_headers,
    token_commands,
)

# gunicorn does not restart a process with this code: a new attempt cannot fix a bad setting.
EXIT_BAD_SETTINGS = 3


def create_app(
    settings: Settings | None = None, client: MongoClient[dict[str, Any]] | None = None
) -> Flask:
    """The web service as a Flask application.

    Without `settings` they are read from the environment; if one is bad, the process ends with a
    line that names it. A `client`, for example of mongomock, is used instead of a new connection.

        app = create_app(Settings(mongo_uri="mongodb://localhost/app", jwt_secret_key=secret))
    """
    if settings is None:
        settings = _settings_from_env()
    logs.configure(settings.log_level, logs.find_secrets(settings))
    app = Flask(__name__, static_folder=None)
    app.config.update(
        API_TITLE="jobmon",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        PROVIDE_AUTOMATIC_OPTIONS=False,  # an OPTIONS request has no token
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.extensions["jobmon_settings"] = settings
    redactor = app.extensions["jobmon_redactor"] = Redactor(settings.redact_keys)
    security_headers.register(app, settings)

    connection = Connection(settings, client)
    app.extensions["jobmon_connection"] = connection
    probe = DatabaseProbe(connection, settings.server_selection_timeout_ms)
    rollup = RollupReader(connection)
    stats = StatsReader(connection, rollup)
    series = SeriesReader(connection, rollup)
    store, lists = JobStore(connection), JobLists(connection, redactor)
    known_fields = KnownFields(connection)
    responder = ListResponder(lists, stats)
    tracing.instrument(app)
    request_log.register(app)
    queue_metrics = metrics.QueueMetrics(
        probe, stats, rollup, known_fields, settings.metrics_max_types
    )
    metrics.register(app, settings, queue_metrics)
    auth.register(app, settings, connection)
    token_commands.register(app)
    rate_limit.register(app, settings)
    admission.register(app, settings)
    api = openapi.DocumentedApi(app)
    for routes in (
        jobs.blueprint(store, responder),
        admin.blueprint(responder, series, stats, known_fields),
        health.blueprint(probe, rollup, app.extensions["jobmon_revoked"]),
    ):
        api.register_blueprint(routes)
    app.register_blueprint(openapi.blueprint())
    overview_page = OverviewPage(stats, series, known_fields)
    job_pages = JobPages(store, lists, responder, stats, known_fields)
    app.register_blueprint(views.blueprint(overview_page, job_pages))
    compression.register(app)
    return app


def _settings_from_env() -> Settings:
    try:
        return Settings.from_env()
    except SettingsError as error:
        sys.stderr.write(f"jobmon: {error}\n")
        raise SystemExit(EXIT_BAD_SETTINGS) from None
