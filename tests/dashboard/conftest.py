"""Fixtures of the dashboard's tests: services, and viewers of their pages."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web.auth import SESSION_COOKIE

from ..conftest import Api
from ..support.pages import Viewer

MakeApi = Callable[..., Api]


@pytest.fixture
def make_api(
    watched: Any, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> MakeApi:
    """A function that creates a service over `watched`; mongomock cannot count its activity."""
    monkeypatch.setattr("jobmon.rollup.series.count_activity", lambda *_: {})

    def make(**settings: Any) -> Api:
        return Api(create_app(make_settings(**settings), watched.client))

    return make


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


@pytest.fixture
def admin(api: Api) -> Viewer:
    return signed_in(api)


@pytest.fixture
def ada(api: Api) -> Viewer:
    return signed_in(api, "ada", "user")


@pytest.fixture
def visitor(api: Api) -> Viewer:
    """A viewer without a session."""
    return Viewer(api.app)


def signed_in(api: Api, subject: str = "root", role: str = "admin", seconds: int = 600) -> Viewer:
    """A viewer with a session that ends in `seconds`; it has expired if they are negative."""
    viewer = Viewer(api.app)
    viewer.client.set_cookie(
        SESSION_COOKIE, api.token(subject, role, seconds), path="/", domain="localhost"
    )
    return viewer


@pytest.fixture
def api_without_database(make_settings: Callable[..., Settings]) -> Iterator[Api]:
    """The service over a database that does not answer."""
    settings = make_settings(
        mongo_uri="mongodb://user:hidden@127.0.0.1:1/x", server_selection_timeout_ms=50
    )
    app = create_app(settings)
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()
