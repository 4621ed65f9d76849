"""`jobmon check` of identity providers: catches a wrong setting that `check` misses, so that
people notice it when they cannot sign in."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobmon.settings import Settings
from jobmon.setup.check import check_settings
from jobmon.setup.findings import Finding, Level

from ..support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider.listening() as provider:
        yield provider


@pytest.fixture
def check(make_settings: Callable[..., Settings], provider: IdentityProvider) -> Any:
    def check(**changes: Any) -> list[Finding]:
        settings = {
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
        }
        findings = check_settings(make_settings(**settings | changes), "jobs is", ["default"])
        return [finding for finding in findings if finding.check == "sign-in"]

    return check


def test_usable_provider_is_ok_and_its_message_has_the_redirect_uri(check: Any) -> None:
    (finding,) = check()
    assert finding.level is Level.OK
    assert "https://YOUR-HOST/dashboard/oidc/callback" in finding.message
    (finding,) = check(path_prefix="/jobmon")
    assert "https://YOUR-HOST/jobmon/dashboard/oidc/callback" in finding.message
    (finding,) = check(path_prefix="/jobmon", public_url="https://tools.example/jobmon")
    assert "redirect URI https://tools.example/jobmon/dashboard/oidc/callback." in finding.message


def test_without_a_provider_nothing_is_reported(check: Any) -> None:
    assert check(oidc_issuer=None) == []


def test_wrong_issuer_is_a_problem_that_names_the_right_one(
    check: Any, provider: IdentityProvider
) -> None:
    (finding,) = check(oidc_issuer=f"{provider.issuer}/")
    assert finding.level is Level.PROBLEM
    assert f"it names itself '{provider.issuer}'" in finding.message
    assert finding.remedy == "Correct JOBMON_OIDC_ISSUER."


@pytest.mark.parametrize(
    ("issuer", "reason"),
    [
        ("http://127.0.0.1:1", "does not answer: Connection refused."),
        ("{}/realms/none", "does not answer: the status of the answer is 404."),
    ],
)
def test_provider_that_does_not_answer_is_a_problem(
    check: Any, provider: IdentityProvider, issuer: str, reason: str
) -> None:
    (finding,) = check(oidc_issuer=issuer.format(provider.issuer))
    assert finding.level is Level.PROBLEM
    assert finding.message.endswith(reason)


def test_provider_that_does_not_support_what_jobmon_needs_is_reported(
    check: Any, provider: IdentityProvider
) -> None:
    provider.document = {"id_token_signing_alg_values_supported": ["HS256"]}
    (finding,) = check()
    assert (finding.level, "only with HS256" in finding.message) == (Level.PROBLEM, True)
    provider.document = {
        "code_challenge_methods_supported": ["plain"],
        "scopes_supported": ["openid", "email"],
    }
    pkce, scopes = check(oidc_scopes="openid groups offline_access")
    assert (pkce.level, "S256" in pkce.message) == (Level.WARNING, True)
    assert (scopes.level, "groups, offline_access" in scopes.message) == (Level.WARNING, True)
    provider.document = {"jwks_uri": f"{provider.issuer}/nothing"}
    (finding,) = check()
    assert (finding.level, "returned no keys" in finding.message) == (Level.PROBLEM, True)


def test_http_to_another_machine_is_a_warning(check: Any) -> None:
    findings = check(oidc_issuer="http://provider.invalid")
    assert [finding.level for finding in findings] == [Level.WARNING, Level.PROBLEM]
    assert "JOBMON_OIDC_ISSUER is not https" in findings[0].message


@pytest.mark.parametrize(
    ("algorithm", "path", "level", "text"),
    [
        ("RS256", "/keys", Level.OK, "has 1 key for RS256"),
        ("ES256", "/keys", Level.PROBLEM, "has no key for ES256"),
        ("RS256", "/nothing", Level.PROBLEM, "returned no keys: the status of the answer is 404."),
    ],
)
def test_keys_at_the_jwks_url_are_checked(
    check: Any, provider: IdentityProvider, algorithm: str, path: str, level: Level, text: str
) -> None:
    (finding,) = check(
        oidc_issuer=None,
        jwt_secret_key=None,
        jwt_jwks_url=provider.issuer + path,
        jwt_algorithm=algorithm,
    )
    assert (finding.level, text in finding.message) == (level, True), finding


def test_missing_package_is_a_problem_with_the_command_that_installs_it(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "authlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "jobmon.web.oidc_protocol", raising=False)
    monkeypatch.setitem(sys.modules, "authlib", None)
    (finding,) = check()
    assert finding.level is Level.PROBLEM
    assert finding.commands == ("pip install 'mongo-jobmon[oidc]'",)
