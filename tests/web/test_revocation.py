"""Revoked tokens: catches a revoked token that is accepted by a route or a page, a list that is
lost or grows without limit, and a crash while the database is unreachable."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from click.testing import CliRunner, Result
from pymongo.database import Database
from pymongo.errors import AutoReconnect, ExecutionTimeout, OperationFailure

from jobmon.app import create_app
from jobmon.cli import main
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.web import revocation
from jobmon.web.claims import token_id
from jobmon.web.revocation import REVOKED, RevokedTokens

from ..conftest import SECRET, Api
from ..support.commands import database_uri
from ..support.pages import Viewer
from ..support.waiting import eventually
from .test_auth import CLAIMS, read_outcome, sign_token, time_from_now

Revoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _disable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the list for each request; the test of the cache sets another time."""
    monkeypatch.setattr(revocation, "CACHE_MS", 0)


@pytest.fixture
def state_database(database: Database[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """The database of the list of revoked tokens; the rollups are in `<its name>_rollups`."""
    yield (state_database := database.client[f"{database.name}_state"])
    for name in (state_database.name, f"{state_database.name}_rollups"):
        database.client.drop_database(name)


@pytest.fixture
def revoke(mongod: Mongod, state_database: Database[dict[str, Any]]) -> Revoke:
    """A function that runs `jobmon revoke …` for the service, with `stdin` as its input."""
    environment = {
        "JOBMON_MONGO_URI": "mongodb://127.0.0.1:1/never",
        "JOBMON_ROLLUP_URI": mongod.uri,
        "JOBMON_ROLLUP_DB": f"{state_database.name}_rollups",
        "JOBMON_STATE_DB": state_database.name,
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    return lambda *arguments, stdin="", **changes: CliRunner().invoke(
        main, ["revoke", *arguments], stdin, environment | changes
    )


@pytest.fixture
def api(
    mongod: Mongod, state_database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Api]:
    names = {"rollup_db": f"{state_database.name}_rollups", "state_db": state_database.name}
    app = create_app(make_settings(mongo_uri=mongod.uri, **names))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


def read_entries(state_database: Database[dict[str, Any]]) -> dict[str, datetime | None]:
    documents = state_database[REVOKED].find({"_id": {"$type": "string"}})
    return {entry["_id"]: entry.get("expiresAt") for entry in documents}


def test_token_from_standard_input_is_revoked_until_it_expires(
    api: Api, revoke: Revoke, state_database: Database[dict[str, Any]]
) -> None:
    token, valid_token = api.token(seconds=600), api.token(seconds=600)
    assert [read_outcome(api, token), read_outcome(api, valid_token)] == [200, 200]
    result = revoke("--token-stdin", stdin=f"Bearer {token}\n")
    assert result.exit_code == 0, result.output
    assert token not in result.output
    assert [read_outcome(api, token), read_outcome(api, valid_token)] == ["token_invalid", 200]
    refused = api.get("/jobs", token=token)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    ((entry_id, expires_at),) = read_entries(state_database).items()
    assert result.output == f"revoked: {entry_id}\n"
    # The entry expires an hour after its token.
    remaining_s = (expires_at - datetime.now(UTC)).total_seconds()
    assert 3_600 + 590 < remaining_s <= 3_600 + 600


def test_token_is_revoked_by_its_jti(
    api: Api, revoke: Revoke, state_database: Database[dict[str, Any]]
) -> None:
    token = sign_token(CLAIMS | {"jti": "leaked-1", "exp": time_from_now(hours=1)})
    assert read_outcome(api, token) == 200
    assert revoke("leaked-1").output == "revoked: leaked-1\n"
    assert read_outcome(api, token) == "token_invalid"
    assert read_outcome(api, sign_token(CLAIMS | {"jti": "LEAKED-1"})) == 200
    assert read_entries(state_database) == {"leaked-1": None}


def test_token_in_place_of_its_jti_is_refused(api: Api, revoke: Revoke) -> None:
    """Catches the message that a token is revoked, while it is still accepted."""
    token = sign_token(CLAIMS)
    result = revoke(token)
    assert result.exit_code == 2
    assert result.output.endswith("Error: This is a token, not its JTI: use --token-stdin.\n")
    assert token not in result.output
    assert read_outcome(api, token) == 200


def test_revoking_by_id_needs_no_key_but_revoking_a_token_does(api: Api, revoke: Revoke) -> None:
    """The container of the collector may write the list, but it has no key for tokens."""
    no_key: dict[str, Any] = {"JOBMON_JWT_SECRET_KEY": None}
    assert revoke("leaked-2", **no_key).output == "revoked: leaked-2\n"
    assert read_outcome(api, sign_token(CLAIMS | {"jti": "leaked-2"})) == "token_invalid"
    result = revoke("--token-stdin", stdin=sign_token(CLAIMS), **no_key)
    assert result.exit_code == 1
    assert result.output.startswith(
        "Error: no key to check the token with: set JOBMON_JWT_SECRET_KEY"
    )


def test_token_without_a_jti_is_revoked_by_all_its_claims(api: Api, revoke: Revoke) -> None:
    token, later_token = sign_token(CLAIMS | {"iat": 1}), sign_token(CLAIMS | {"iat": 2})
    assert revoke("--token-stdin", stdin=token).exit_code == 0
    # The same claims in another order are the same token, even if signed again.
    reordered = sign_token({"iat": 1, **dict(reversed(CLAIMS.items()))})
    outcomes = [read_outcome(api, sent_token) for sent_token in (token, reordered, later_token)]
    assert outcomes == ["token_invalid", "token_invalid", 200]


def test_only_earlier_tokens_of_a_subject_are_revoked(api: Api, revoke: Revoke) -> None:
    issued, without_iat = api.token("ada"), sign_token({"sub": "ada", "role": "admin"})
    early = sign_token({"sub": "ada", "role": "admin", "iat": time_from_now(hours=-5), "jti": "x"})
    adams_token = api.token("adam")
    result = revoke("--sub", "ada")
    assert result.output == "revoked: all tokens of ada issued until now\n"
    assert {read_outcome(api, token) for token in (issued, without_iat, early)} == {"token_invalid"}
    assert read_outcome(api, adams_token) == 200
    # A token's iat is in whole seconds.
    eventually(lambda: read_outcome(api, api.token("ada")) == 200)
    assert read_outcome(api, issued) == "token_invalid"
    # A token may have the id `sub adam`: `--list` writes the subject adam in the same way.
    assert revoke("sub adam").exit_code == 0
    assert read_outcome(api, adams_token) == 200


def test_list_shows_each_revoked_token_and_when_its_entry_ends(api: Api, revoke: Revoke) -> None:
    assert revoke("--list").output == ""
    revoke("b")
    revoke("--token-stdin", stdin=sign_token(CLAIMS | {"jti": "a", "exp": 4_102_444_800}))
    assert revoke("--list").output == "a\tuntil 2100-01-01T01:00:00+00:00\nb\tforever\n"
    revoke("--sub", "ada")
    assert revoke("--list").output.splitlines()[2].startswith("sub ada\tissued before 20")


def test_token_with_an_expiry_that_is_also_revoked_by_its_id_is_revoked_for_ever(
    revoke: Revoke, state_database: Database[dict[str, Any]]
) -> None:
    token = sign_token(CLAIMS | {"jti": "a", "exp": 4_102_444_800})
    for arguments in (("--token-stdin",), ("a",), ("--token-stdin",)):
        assert revoke(*arguments, stdin=token).exit_code == 0
    assert read_entries(state_database) == {"a": None}


def test_token_that_is_revoked_twice_is_refused_until_the_later_end(
    revoke: Revoke, state_database: Database[dict[str, Any]]
) -> None:
    ends = []
    for exp in (4_102_444_800, 4_102_444_900, 4_102_444_700):
        token = sign_token(CLAIMS | {"jti": "a", "exp": exp})
        assert revoke("--token-stdin", stdin=token).exit_code == 0
        ends.append((read_entries(state_database)["a"] or datetime.now(UTC)).timestamp() - 3_600)
    assert ends == [4_102_444_800, 4_102_444_900, 4_102_444_900]


@pytest.mark.parametrize("exp", [10**15, 253_402_300_799, 10**30])
def test_token_that_expires_after_the_year_9999_is_revoked_for_ever(
    api: Api, revoke: Revoke, state_database: Database[dict[str, Any]], exp: int
) -> None:
    token = sign_token(CLAIMS | {"jti": "a", "exp": exp})
    assert revoke("--token-stdin", stdin=token).exit_code == 0
    assert (read_entries(state_database), read_outcome(api, token)) == (
        {"a": None},
        "token_invalid",
    )


def test_entry_is_deleted_after_its_end(
    revoke: Revoke, api: Api, state_database: Database[dict[str, Any]]
) -> None:
    revoke("permanent")  # creates the index
    state_database[REVOKED].insert_one({"_id": "expired", "expiresAt": datetime.now(UTC)})
    eventually(lambda: read_entries(state_database) == {"permanent": None})


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "The token is not valid."),
        ("x.y.z", "The token is not valid."),
        (
            sign_token(CLAIMS, "another secret of thirty-two bytes or more"),
            "The token is not valid.",
        ),
        (sign_token(CLAIMS | {"exp": time_from_now(hours=-1)}), "The token has expired."),
        (sign_token(CLAIMS | {"sub": ""}), "The token is not valid."),
        (sign_token(CLAIMS | {"padding": "x" * 8_190}), "The token is not valid."),
    ],
    ids=["nothing", "garbage", "forged", "expired", "no subject", "too long"],
)
def test_invalid_token_is_not_revoked(
    revoke: Revoke, state_database: Database[dict[str, Any]], token: str, message: str
) -> None:
    result = revoke("--token-stdin", stdin=token)
    assert (result.exit_code, result.output) == (1, f"Error: nothing to revoke: {message}\n")
    assert read_entries(state_database) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a", "--list"),
        ("a", "--token-stdin"),
        ("--list", "--token-stdin"),
        ("",),
        ("a", "--sub", "b"),
        ("--sub", ""),
    ],
)
def test_revoke_needs_exactly_one_argument(revoke: Revoke, arguments: tuple[str, ...]) -> None:
    result = revoke(*arguments)
    assert result.exit_code == 2
    assert "Give one of" in result.output


def test_revoke_without_a_database_prints_one_line_without_the_password(revoke: Revoke) -> None:
    unreachable = {
        "JOBMON_MONGO_URI": "mongodb://u:hidden@127.0.0.1:1/?serverSelectionTimeoutMS=50",
        "JOBMON_SERVER_SELECTION_TIMEOUT_MS": "50",
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    result = CliRunner().invoke(main, ["revoke", "a"], env=unreachable)
    assert result.exit_code == 1
    assert result.output.startswith("Error: not revoked: ServerSelectionTimeoutError")
    assert len(result.output.splitlines()) == 1
    assert "hidden" not in result.output


def test_revoking_ends_the_sessions_that_began_with_the_token(api: Api, revoke: Revoke) -> None:
    token = api.token()
    viewer = Viewer(api.app)
    assert viewer.post("/dashboard/session", {"token": token}).status_code == 303
    assert viewer.get("/dashboard/jobs").status_code == 200
    revoke("--token-stdin", stdin=token)
    assert "no longer valid" in viewer.page("/dashboard/jobs", 401).text
    part = viewer.get("/dashboard/overview", part=True)
    assert (part.status_code, part.headers["HX-Refresh"]) == (401, "true")
    visitor = Viewer(api.app)
    refused = visitor.post("/dashboard/session", {"token": token})
    assert "refused=token_invalid" in refused.location
    assert "Set-Cookie" not in refused.headers
    assert "Token not accepted" in visitor.get(refused.location).text


class RevokedList:
    """A collection with one entry, whose reads fail with `fault` if it is set."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.reads = 0

    def find(self, *_: Any) -> Any:
        self.reads += 1
        if self.fault:
            raise self.fault
        return self

    def max_time_ms(self, _: int) -> list[dict[str, Any]]:
        return [{"_id": "a"}]


@pytest.fixture
def revoked_list(monkeypatch: pytest.MonkeyPatch) -> RevokedList:
    revoked_list = RevokedList()
    monkeypatch.setattr(RevokedTokens, "_collection", lambda _: revoked_list)
    return revoked_list


def test_list_is_read_once_a_second(
    real_api: Api, revoked_list: RevokedList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "CACHE_MS", 1_000)
    tokens = RevokedTokens(real_api.app.extensions["jobmon_connection"])
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert [tokens.includes(name, "ada", 0) for name in ("a", "b", "a")] == [True, False, True]
    assert revoked_list.reads == 1
    now += 1.1
    assert tokens.includes("a", "ada", 0)
    assert revoked_list.reads == 2


ROUTES = ["/jobs", "/jobs/x", "/admin/jobs/stats", "/admin/jobs/queue", "/dashboard/my"]


def test_routes_are_503_while_the_list_is_unreadable(api: Api, revoked_list: RevokedList) -> None:
    revoked_list.fault = AutoReconnect("db.internal:27017")
    for path in ROUTES:
        answer = api.get(path, token=api.token())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), path
        assert "internal" not in answer.text
        # A request without a valid token is refused without the list.
        assert api.get(path).status_code == 401, path
        assert api.get(path, token="x.y.z").status_code == 401, path
    refused = Viewer(api.app).post("/dashboard/session", {"token": api.token()})
    assert "refused=database_unavailable" in refused.location
    assert [api.get(path).status_code for path in ("/healthz", "/docs")] == [200] * 2
    assert api.get("/readyz").status_code == 503
    # /metrics still answers, so that Prometheus can read that the database is unreachable.
    assert api.get_as_admin("/metrics").status_code == 200
    assert api.get_as_owner("/metrics", "ada").status_code == 403
    revoked_list.fault = None
    assert [api.get_as_admin(path).status_code for path in ROUTES if path != "/jobs/x"] == [200] * 4


def test_list_without_the_right_to_read_it_is_one_warning_and_refuses_no_token(
    api: Api, revoked_list: RevokedList, caplog: pytest.LogCaptureFixture
) -> None:
    revoked_list.fault = OperationFailure("not authorized", 13)
    assert [api.get_as_admin("/jobs").status_code for _ in range(3)] == [200] * 3
    assert caplog.text.count("no right to read the list of revoked tokens") == 1


def test_revoked_tokens_stay_revoked_when_the_rollups_are_dropped(
    api: Api, revoke: Revoke, state_database: Database[dict[str, Any]]
) -> None:
    token = api.token()
    revoke("--token-stdin", stdin=token)
    state_database.client.drop_database(f"{state_database.name}_rollups")
    assert read_outcome(api, token) == "token_invalid"
    assert api.get("/readyz").status_code == 200
    restarted = Api(create_app(api.app.extensions["jobmon_settings"]))
    assert read_outcome(restarted, token) == "token_invalid"
    restarted.app.extensions["jobmon_connection"].client.close()


@pytest.mark.parametrize("lost_part", ["database", "collection", "entries", "rights"])
def test_lost_list_is_an_error_and_its_tokens_stay_refused(
    api: Api,
    revoke: Revoke,
    state_database: Database[dict[str, Any]],
    lost_part: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token, valid_token = api.token("ada"), api.token("bob")
    revoke("--token-stdin", stdin=token)
    revoke("--sub", "carol")
    carols_token = sign_token(CLAIMS | {"sub": "carol", "iat": time_from_now(hours=-1), "jti": "c"})
    tokens = (token, carols_token, valid_token)
    expected = ["token_invalid", "token_invalid", 200]
    assert [read_outcome(api, sent_token) for sent_token in tokens] == expected
    with monkeypatch.context() as patch:
        match lost_part:
            case "database":
                state_database.client.drop_database(state_database.name)
            case "collection":
                state_database[REVOKED].drop()
            case "entries":
                state_database[REVOKED].delete_many({})
            case "rights":
                unreadable = RevokedList(OperationFailure("not authorized", 13))
                patch.setattr(RevokedTokens, "_collection", lambda _: unreadable)
        for _ in range(3):
            assert [read_outcome(api, sent_token) for sent_token in tokens] == expected
        answer = api.get("/readyz")
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "revocations_lost")
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len([record for record in errors if "list of revoked tokens" in record.message]) == 1
    if lost_part != "rights":
        # A new process finds out that the list existed, but it does not know the entries.
        restarted = Api(create_app(api.app.extensions["jobmon_settings"]))
        assert restarted.get("/readyz").status_code == 503
        restarted.app.extensions["jobmon_connection"].client.close()
        revoke("other")
    assert api.get("/readyz").status_code == 200
    assert [read_outcome(api, sent_token) for sent_token in tokens] == expected


def test_service_without_a_list_is_ready(api: Api) -> None:
    assert (read_outcome(api, api.token()), api.get("/readyz").status_code) == (200, 200)


def test_init_creates_the_list_so_that_its_loss_is_noticed(
    mongod: Mongod, api: Api, state_database: Database[dict[str, Any]]
) -> None:
    environment = {
        "JOBMON_ADMIN_MONGO_URI": database_uri(mongod, f"{state_database.name}_rollups"),
        "JOBMON_ROLLUP_DB": f"{state_database.name}_rollups",
        "JOBMON_STATE_DB": state_database.name,
    }
    assert CliRunner().invoke(main, ["init", "--create"], env=environment).exit_code == 0
    assert api.get("/readyz").status_code == 200
    state_database[REVOKED].drop()
    assert api.get("/readyz").json["error"]["code"] == "revocations_lost"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AutoReconnect("unreachable"), (503, "database_unavailable")),
        (ExecutionTimeout("slow", 50), (200, None)),
    ],
)
def test_readiness_depends_on_why_the_list_cannot_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: tuple[int, str | None]
) -> None:
    monkeypatch.setattr(RevokedTokens, "_find", Mock(side_effect=error))
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json.get("error", {}).get("code")) == expected
    assert "lost" not in answer.text


def test_entry_of_an_unknown_form_still_refuses_its_id_or_subject(
    api: Api, state_database: Database[dict[str, Any]]
) -> None:
    """Catches an entry of a later version, or a broken entry, that refuses nothing."""
    entries = [
        {"_id": "leaked", "format": 99, "expiresAt": "soon"},
        {"_id": {"sub": "ada"}, "before": "now"},
        {"_id": {"sub": "bob"}},
        {"_id": 7},
    ]
    state_database[REVOKED].insert_many(entries)
    tokens = (sign_token(CLAIMS | {"jti": "leaked"}), api.token("ada"), api.token("bob"))
    assert [read_outcome(api, token) for token in tokens] == ["token_invalid"] * 3
    assert read_outcome(api, api.token("carol")) == 200


def test_id_of_a_token_is_its_jti_or_depends_on_all_its_claims() -> None:
    ids = {
        token_id({"jti": jti, "sub": sub, "exp": exp})
        for jti in (None, "")
        for sub in ("a", "b")
        for exp in (1, 2)
    }
    assert len(ids) == 8
    assert token_id({"jti": "x", "sub": "a"}) == token_id({"jti": "x", "sub": "b"}) == "x"


def test_each_issued_token_has_its_own_id(api: Api) -> None:
    ids = [jwt.decode(api.token(), SECRET, ["HS256"])["jti"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(jti) >= 32 for jti in ids)
