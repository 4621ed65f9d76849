"""Creates the web service: `create_app` connects all of its parts."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask
from pymongo import MongoClient

from jobmon import __version__, logs, tracing
from jobmon.api import actions, admin, health, jobs, metrics, mute_requests, openapi
from jobmon.api import queues as queue_list
from jobmon.api.export import EXPORTS, ExportSlots
from jobmon.api.job_lists import ListResponder
from jobmon.api.owner_counts import OwnerJobCounter
from jobmon.api.queues import QueueSummaries
from jobmon.api.workers import WorkerReader
from jobmon.dashboard import views
from jobmon.dashboard.errors_page import ErrorPages
from jobmon.dashboard.job_page import JobPage
from jobmon.dashboard.list_pages import JobListPages
from jobmon.dashboard.overview_page import OverviewPage
from jobmon.dashboard.queues_page import QueuesPage
from jobmon.dashboard.schedule_page import SchedulePage
from jobmon.dashboard.type_page import TypePage
from jobmon.dashboard.workers_page import WorkersPage
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.web import (
    admission,
    auth,
    compression,
    proxies,
    rate_limit,
    request_log,
    security_headers,
    token_commands,
)
from jobmon.web import queues as queue_paths
from jobmon.web.json_text import JSONProvider
from jobmon.web.queues import WatchedQueues
from jobmon.web.sessions import SessionKeys

if TYPE_CHECKING:
    from jobmon.dashboard.provider_sign_in import ProviderSignIn

# gunicorn stops if a worker exits with this code: a restart cannot correct a bad setting.
EXIT_BAD_SETTINGS = 3


class _Service(Flask):
    """Flask without async views: Flask would check at each request whether a view is async."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function, unchanged."""
        return func


def create_app(
    settings: Settings | None = None, client: MongoClient[dict[str, Any]] | None = None
) -> Flask:
    """The web service as a Flask application.

    Without `settings`, the environment is read. For a bad setting, one line with its name is
    printed, and SystemExit with code 3 is raised. A `client`, such as mongomock's, is used instead
    of a new connection.

        app = create_app(Settings(mongo_uri="mongodb://localhost/app", jwt_secret_key=secret))
    """
    try:
        settings = settings or Settings.from_env()
        watched = load_queues(settings)
        logs.configure(settings.log_level, logs.find_secrets(settings, watched))
        sign_in = _open_sign_in(settings)
        limit_storage = rate_limit.open_storage(settings)
    except SettingsError as error:
        sys.stderr.write(f"jobmon: {error}\n")
        raise SystemExit(EXIT_BAD_SETTINGS) from None
    app = _Service(__name__, static_folder=None)
    app.config.update(
        API_TITLE="jobmon",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        PROVIDE_AUTOMATIC_OPTIONS=False,  # OPTIONS gets 405: no caller needs a CORS preflight
    )
    app.json = JSONProvider(app)
    app.extensions["jobmon_settings"] = settings
    app.extensions[EXPORTS] = ExportSlots()
    redactor = app.extensions["jobmon_redactor"] = Redactor(settings.redact_keys)
    queues = WatchedQueues(settings, watched, redactor, client)
    app.extensions["jobmon_connection"] = queues.own
    queue_paths.register(app, queues)
    proxies.register(app, settings)
    security_headers.register(app)
    tracing.instrument(app)
    request_log.register(app)
    metrics.register(app, settings)
    auth.register(app, settings, queues.own)
    token_commands.register(app)
    rate_limit.register(app, settings, limit_storage)
    admission.register(app, settings, queues)
    _add_routes(app, queues, sign_in, has_actions=settings.actions)
    compression.register(app)
    return app


def _open_sign_in(settings: Settings) -> "ProviderSignIn | None":
    """The pages to sign in at the identity provider; None if the settings name no provider.

    Raises SettingsError if Authlib, an extra package, is not installed.
    """
    if settings.oidc_issuer is None:
        return None
    try:
        # Imported only with a provider: Authlib is an extra, and its import takes time.
        from jobmon.dashboard.provider_sign_in import ProviderSignIn  # noqa: PLC0415
        from jobmon.web.oidc import IdentityProvider  # noqa: PLC0415
        from jobmon.web.renewals import Renewals  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"JOBMON_OIDC_ISSUER: the package {error.name} is missing: "
            "pip install 'mongo-jobmon[oidc]'"
        ) from None
    renewals = Renewals(SessionKeys(settings))
    return ProviderSignIn(IdentityProvider(settings), renewals, settings.oidc_session_hours)


def _add_routes(
    app: Flask, queues: WatchedQueues, sign_in: "ProviderSignIn | None", *, has_actions: bool
) -> None:
    """Add the JSON API and the pages; both use the same readers and counters."""
    api = openapi.DocumentedApi(app)
    lists, workers, summaries = ListResponder(), WorkerReader(), QueueSummaries(queues)
    counter = OwnerJobCounter()
    job_routes = jobs.blueprint(lists, counter)
    if has_actions:
        actions.add_owner_route(job_routes)
    for routes in (
        job_routes,
        admin.blueprint(lists, workers, len(queues)),
        queue_list.blueprint(summaries),
        *([actions.blueprint(), mute_requests.blueprint()] if has_actions else ()),
        health.blueprint(app.extensions["jobmon_revoked"]),
    ):
        api.register_blueprint(routes)
    app.register_blueprint(openapi.blueprint())
    app.register_blueprint(
        views.blueprint(
            overview=OverviewPage(),
            jobs=JobListPages(lists, counter),
            job=JobPage(lists),
            errors=ErrorPages(),
            workers=WorkersPage(workers),
            types=TypePage(lists, workers),
            schedule=SchedulePage(lists),
            queues=QueuesPage(summaries),
            has_actions=has_actions,
            sign_in=sign_in,
        )
    )
