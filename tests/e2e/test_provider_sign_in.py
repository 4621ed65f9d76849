"""Sign-in at an identity provider, in a real browser.

Catches cookies that the browser does not send after the redirect back, a policy that blocks a
redirect, and a renewal of the session that reloads the page.
"""

import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobmon.app import create_app
from jobmon.settings import Settings

from ..conftest import serve_over_http
from ..support.browser import Visits
from ..support.waiting import eventually

pytestmark = pytest.mark.long


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The URL of a provider whose users are admins, and a list that gets the user of each grant."""
    # The provider uses deprecated parts of Authlib.
    with warnings.catch_warnings(record=True, action="ignore"):
        from oidc_provider_mock import _app, run_server_in_thread  # noqa: PLC0415

        granted: list[str] = []
        list_claims = _app._user_claims_for_scope

        def add_role(user: Any, scope: str) -> dict[str, object]:
            granted.append(user.sub)
            return {**list_claims(user, scope), "role": ["admin"]}

        monkeypatch.setattr(_app, "_user_claims_for_scope", add_role)
        with run_server_in_thread(access_token_max_age=timedelta(seconds=2)) as server:
            yield f"http://localhost:{server.server_port}", granted


@pytest.fixture
def service_url(
    provider: tuple[str, list[str]],
    watched: Any,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The URL of a service whose sessions must be renewed every one or two seconds.

    For a browser, the service (127.0.0.1) and the provider (localhost) are different sites.
    """
    monkeypatch.setattr("jobmon.web.oidc.MIN_LIFETIME_S", 0)
    monkeypatch.setattr("jobmon.web.oidc.MAX_RENEWED_LIFETIME_S", 2)
    monkeypatch.setattr("jobmon.dashboard.provider_sign_in.MIN_RENEWAL_S", 0)
    monkeypatch.setattr("jobmon.web.renewals.CACHE_TTL_S", 1)
    watched.jobs.insert_one({"jobId": "the-one-job", "status": "dlq", "type": "mail"})
    settings = make_settings(
        oidc_issuer=provider[0],
        oidc_client_id="jobmon",
        oidc_client_secret="a client secret of thirty-two bytes",
        jwt_leeway_s=0,
    )
    with serve_over_http(create_app(settings, watched.client)) as url:
        yield url


def authorize(page: Page, subject: str) -> None:
    page.locator('input[name="sub"]').fill(subject)
    page.get_by_role("button", name="Authorize").click()


def test_person_signs_in_stays_signed_in_and_signs_out(
    service_url: str, provider: tuple[str, list[str]], visit: Visits
) -> None:
    issuer, granted = provider
    page = visit("about:blank", token=None)
    page.route("https://cdn.jsdelivr.net/**", lambda route: route.abort())
    page.goto(f"{service_url}/dashboard/jobs?status=dlq")
    page.get_by_role("link", name="Sign in at localhost").click()
    page.wait_for_url(f"{issuer}/**")
    authorize(page, "ada")
    page.wait_for_url(f"{service_url}/dashboard/jobs?status=dlq")
    expect(page.get_by_text("the-one-job")).to_be_visible()
    # Updates of the page renew the session: by redirects to the provider and back, not by a reload.
    page.evaluate("window.isSamePage = true")
    grants_before = len(granted)
    eventually(lambda: len(granted) >= grants_before + 3)
    assert page.evaluate("window.isSamePage") is True
    expect(page.get_by_text("the-one-job")).to_be_visible()
    # A new page renews the session, too.
    page.goto(f"{service_url}/dashboard/my")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.locator("#account summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{issuer}/oauth2/end_session**")
    page.get_by_role("button", name="End session").click()
    page.wait_for_url(f"{service_url}/dashboard/sign-in**")
    page.goto(f"{service_url}/dashboard/jobs")
    expect(page.get_by_role("link", name="Sign in at localhost")).to_be_visible()
    visit.faults.clear()  # the provider's pages load a style sheet that was aborted
