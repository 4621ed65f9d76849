"""Settings: catches a bad value that is accepted, and an error message that shows a secret."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from limits.storage import SCHEMES

from jobmon.app import create_app
from jobmon.settings import Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"
REQUIRED = {"MONGO_URI": "mongodb://u:hidden@db/shop", "JWT_SECRET_KEY": SECRET}


def dump_public_key(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


RSA_KEY = dump_public_key(rsa.generate_private_key(65_537, 2_048))
EC_KEY = dump_public_key(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def read_env(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that reads the settings after it has set variables; later calls keep them."""

    def read_env(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(f"JOBMON_{name}", value)
        return Settings.from_env()

    return read_env


def test_settings_with_only_the_required_variables_use_defaults(read_env: Any) -> None:
    settings = read_env(**REQUIRED)
    assert settings == Settings(mongo_uri=REQUIRED["MONGO_URI"], jwt_secret_key=SECRET)
    assert settings.jobs_collection == "jobs"
    assert settings.attempts_collection == "job_attempts"
    assert settings.stats_ttl_ms == 2_000
    assert settings.rate_limit is settings.rate_limit_per_address is None
    assert settings.role_permissions == {"admin": {"ADMIN_DASHBOARD"}}


# By the name of a setting: the text of its variable, and the value that the text sets.
TEXTS_AND_VALUES: dict[str, tuple[str, Any]] = {
    "jobs_collection": ("tasks", "tasks"),
    "attempts_collection": ("tries", "tries"),
    "stats_ttl_ms": ("0", 0),
    "query_timeout_ms": ("7", 7),
    "server_selection_timeout_ms": ("8", 8),
    "jwt_algorithm": ("HS512", "HS512"),
    "jwt_issuer": ("https://id", "https://id"),
    "jwt_audience": ("jobmon", "jobmon"),
    "jwt_leeway_s": ("9", 9),
    "role_claim": ("realm_access.roles", "realm_access.roles"),
    "subject_claim": ("https://id.example/user", "https://id.example/user"),
    "role_permissions": (
        "ops=ADMIN_DASHBOARD,sre=ADMIN_DASHBOARD",
        dict.fromkeys(["admin", "ops", "sre"], frozenset({"ADMIN_DASHBOARD"})),
    ),
    "redact_keys": ("a,b", ("a", "b")),
    "rate_limit": ("10/second;600/minute", "10/second;600/minute"),
    "rate_limit_per_address": ("5/second", "5/second"),
    "rate_limit_storage_uri": ("redis://cache", "redis://cache"),
    "threads": ("3", 3),
    "rollup_db": ("rollups", "rollups"),
    "state_db": ("lasting", "lasting"),
    "rollup_uri": ("mongodb://db2", "mongodb://db2"),
    "collector": ("true", True),
    "minute_retention_days": ("1", 1),
    "hour_retention_days": ("2", 2),
    "day_retention_days": ("3", 3),
    "log_level": ("DEBUG", "DEBUG"),
    "metrics": ("open", "open"),
    "metrics_max_types": ("7", 7),
    "trusted_proxies": ("2", 2),
    "path_prefix": ("/tools/jobmon/", "/tools/jobmon"),
    "workers": ("3", 3),
    "job_fields": (
        "createdBy=kwargs.user_id,jobId=_id",
        {"createdBy": "kwargs.user_id", "jobId": "_id"},
    ),
    "attempt_fields": ("startedAt=began", {"startedAt": "began"}),
    "status_names": ("PAUSED=queued", {"PAUSED": "queued"}),
    "attempt_status_names": ("ok=succeeded", {"ok": "succeeded"}),
}


def test_variables_set_the_settings_with_their_names(read_env: Any) -> None:
    texts = {name.upper(): text for name, (text, _) in TEXTS_AND_VALUES.items()}
    values = {name: value for name, (_, value) in TEXTS_AND_VALUES.items()}
    expected = Settings(mongo_uri=REQUIRED["MONGO_URI"], jwt_secret_key=SECRET, **values)
    assert read_env(**REQUIRED, **texts) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONGO_URI", "postgres://u:hidden@db"),
        ("MONGO_URI", "mongodb://u:hidden@db:port"),
        ("MONGO_URI", ""),
        ("JOBS_COLLECTION", "a$b"),
        ("ATTEMPTS_COLLECTION", ""),
        ("STATS_TTL_MS", "-1"),
        ("QUERY_TIMEOUT_MS", "0"),
        ("QUERY_TIMEOUT_MS", "soon"),
        ("SERVER_SELECTION_TIMEOUT_MS", "1.5"),
        ("JWT_SECRET_KEY", "hidden, and too short"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_LEEWAY_S", "-1"),
        ("JWT_LEEWAY_S", "86400"),
        ("ROLE_CLAIM", ""),
        ("ROLE_CLAIM", "a..b"),
        ("SUBJECT_CLAIM", ".sub"),
        *((name, "hidden\n") for name in ("ROLE_CLAIM", "SUBJECT_CLAIM", "ENVIRONMENT")),
        ("JWT_ALGORITHM", "RS256"),
        ("ROLE_PERMISSIONS", "ops=EVERYTHING"),
        ("ROLE_PERMISSIONS", "ops"),
        ("ROLE_PERMISSIONS", '{"ops": ["hidden"'),
        ("ROLE_PERMISSIONS", '{"ops": "ADMIN_DASHBOARD"}'),
        ("ROLE_PERMISSIONS", '{"ops": [1]}'),
        ("ROLE_PERMISSIONS", '{"ops": ["hidden"]}'),
        ("ROLE_PERMISSIONS", '{"ops": ["ADMIN_DASHBOARD"], "ops": []}'),
        ("RATE_LIMIT", "a lot"),
        ("RATE_LIMIT_PER_ADDRESS", "a lot"),
        ("RATE_LIMIT_STORAGE_URI", "reddis://:hidden@cache"),
        ("RATE_LIMIT_STORAGE_URI", "async+redis://:hidden@cache"),
        ("RATE_LIMIT_STORAGE_URI", "mongodb://u:hidden@"),
        ("RATE_LIMIT_STORAGE_URI", ""),
        ("THREADS", "0"),
        ("ROLLUP_DB", "a.b"),
        ("ROLLUP_URI", "http://hidden"),
        ("COLLECTOR", "perhaps"),
        ("DAY_RETENTION_DAYS", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("METRICS", "some"),
        ("METRICS_MAX_TYPES", "0"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "10.0.0.1"),
        ("PATH_PREFIX", "jobmon"),
        ("PATH_PREFIX", "//jobmon"),
        ("PATH_PREFIX", "/jobmon//"),
        ("PATH_PREFIX", "/a/../jobmon"),
        ("PATH_PREFIX", "/./jobmon"),
        ("PATH_PREFIX", "/job mon"),
        ("PATH_PREFIX", "/jobmon\n"),
        ("PATH_PREFIX", "/%6aobmon"),
        ("PATH_PREFIX", '/"><script>'),
        ("PATH_PREFIX", "https://tools.example/jobmon"),
        ("PATH_PREFIX", "/" + 200 * "x"),
        ("PATH_PREFIX", "/jobs"),
        ("PATH_PREFIX", "/queues/jobmon"),
        ("PROFILE", "sidekiq"),
        ("JOB_FIELDS", "color=colour"),
        ("JOB_FIELDS", "jobId"),
        ("JOB_FIELDS", "jobId="),
        ("JOB_FIELDS", "jobId=$where"),
        ("JOB_FIELDS", "createdBy=.user"),
        ("JOB_FIELDS", "createdBy=data..user"),
        ("JOB_FIELDS", "createdBy=data.user."),
        ("JOB_FIELDS", "createdBy=data.$user"),
        ("ATTEMPT_FIELDS", "createdBy=user"),
        ("ATTEMPT_FIELDS", "jobId=job id"),
        ("STATUS_NAMES", "done=finished"),
        ("STATUS_NAMES", "running=running"),  # a status of attempts
        ("ATTEMPT_STATUS_NAMES", "dead=dlq"),  # a status of jobs
    ],
)
def test_settings_with_a_bad_value_are_refused_by_name_without_secrets(
    read_env: Any, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_env(**REQUIRED | {name: value})
    assert f"JOBMON_{name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_storages_of_rate_limits_are_those_of_the_library(read_env: Any) -> None:
    """Catches a storage that the check refuses, or one that only `limits` refuses."""
    schemes = [scheme for scheme in SCHEMES if not scheme.startswith("async+")]
    for scheme in schemes:
        uri = f"{scheme}://cache"
        assert read_env(**REQUIRED, RATE_LIMIT_STORAGE_URI=uri).rate_limit_storage_uri == uri


def test_empty_settings_about_documents_count_as_not_set(read_env: Any, tmp_path: Path) -> None:
    """Catches an error about a variable without a value, as compose sets it."""
    assert read_env(**REQUIRED, PROFILE="", QUEUES="", RULES="").profile == "jobmon"
    queues = tmp_path / "queues.toml"
    queues.write_text("[mails]")
    assert read_env(QUEUES=str(queues)).queues == str(queues)
    assert read_env(QUEUES="", PROFILE="agenda", ATTEMPTS_COLLECTION="").profile == "agenda"


def test_roles_with_commas_and_equals_signs_can_be_set_as_json(read_env: Any) -> None:
    """Catches an LDAP group whose name the form with commas would split."""
    group = "CN=ops,OU=groups+x"
    permissions = f'{{"{group}": ["ADMIN_DASHBOARD", "JOBS_RETRY"], "guests": []}}'
    assert read_env(**REQUIRED, ROLE_PERMISSIONS=permissions).role_permissions == {
        "admin": {"ADMIN_DASHBOARD"},
        group: {"ADMIN_DASHBOARD", "JOBS_RETRY"},
        "guests": frozenset(),
    }


def test_path_prefix_of_the_root_differs_from_none(read_env: Any) -> None:
    """Catches a root prefix that counts as not set: then a proxy's header could set the prefix."""
    prefixes = {"/": "", "/jobs.v2": "/jobs.v2", "/a-b/c_d~/..e/": "/a-b/c_d~/..e"}
    for value, prefix in prefixes.items():
        assert read_env(**REQUIRED, PATH_PREFIX=value).path_prefix == prefix
    assert read_env(PATH_PREFIX="").path_prefix is None


@pytest.mark.parametrize(
    ("profile", "collection"),
    [("agenda", "agendaJobs"), ("celery", "celery_taskmeta"), ("jobmon", "jobs")],
)
def test_profile_sets_the_default_collection(read_env: Any, profile: str, collection: str) -> None:
    assert read_env(**REQUIRED, PROFILE=profile).jobs_collection == collection
    assert read_env(PROFILE=profile, JOBS_COLLECTION="tasks").jobs_collection == "tasks"


def test_mapping_with_an_unknown_name_lists_the_known_ones(read_env: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"JOBMON_JOB_FIELDS: Unknown: color\. Known: jobId, type,"
    ):
        read_env(**REQUIRED, JOB_FIELDS="color=colour")
    with pytest.raises(SettingsError, match=r"Unknown: finished\..* queued, leased,"):
        read_env(JOB_FIELDS="", STATUS_NAMES="done=finished")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ATTEMPT_FIELDS": "startedAt=_id"}, "ATTEMPT_FIELDS: startedAt cannot be at _id"),
        ({"JOB_FIELDS": "type=_id"}, "JOB_FIELDS: type cannot be at _id: only jobId and createdAt"),
        ({"JOB_FIELDS": "jobId=_id.n"}, "JOB_FIELDS: jobId cannot be at _id.n"),
        ({"JOB_FIELDS": "type=kind,createdBy=kind"}, "type and createdBy cannot both be at kind"),
        ({"JOB_FIELDS": "type=status"}, "type and status cannot both be at status"),
        ({"JOB_FIELDS": "type=a,type=b"}, "JOB_FIELDS: Given more than once: type"),
        ({"STATUS_NAMES": "a=queued,a=dlq"}, "STATUS_NAMES: Given more than once: a"),
        *(
            ({"PROFILE": profile, name: value}, f"{name}: Not used with JOBMON_PROFILE={profile}")
            for profile in ("agenda", "celery")
            for name, value in {
                "ATTEMPTS_COLLECTION": "tries",
                "ATTEMPT_FIELDS": "startedAt=began",
                "ATTEMPT_STATUS_NAMES": "ok=succeeded",
            }.items()
        ),
        (
            {"PROFILE": "agenda", "STATUS_NAMES": "disabled=cancelled"},
            "STATUS_NAMES: Not used with JOBMON_PROFILE=agenda",
        ),
    ],
)
def test_mapping_that_cannot_be_used_is_refused_by_name(
    read_env: Any, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"JOBMON_.*{message}"):
        read_env(**REQUIRED, **variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"JOB_FIELDS": "jobId=_id,createdAt=_id"},
        {"JOB_FIELDS": "createdAt=at,updatedAt=at,nextRunAt=at,finishedAt=at,startedAt=began"},
        {"JOB_FIELDS": "type=status,status=state"},
        {"JOB_FIELDS": "attempts=tries,attemptCount=tries"},
        {"JOB_FIELDS": "payload=input,createdBy=input.user.id"},
        {"ATTEMPT_FIELDS": "jobId=_id"},
        {"PROFILE": "agenda", "JOB_FIELDS": "status=state", "STATUS_NAMES": "ok=succeeded"},
        {"PROFILE": "celery", "STATUS_NAMES": "PAUSED=queued", "ATTEMPT_FIELDS": ""},
    ],
)
def test_unusual_but_valid_mapping_is_accepted(read_env: Any, variables: dict[str, str]) -> None:
    read_env(**REQUIRED, **variables)


def test_settings_for_init_need_only_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_PROFILE", "agenda")
    monkeypatch.setenv("JOBMON_JOB_FIELDS", "createdBy=data.userId")
    settings = Settings.for_init("mongodb://db/shop")
    assert settings == Settings(
        mongo_uri="mongodb://db/shop",
        profile="agenda",
        jobs_collection="agendaJobs",
        job_fields={"createdBy": "data.userId"},
    )
    monkeypatch.setenv("JOBMON_PROFILE", "sidekiq")
    with pytest.raises(SettingsError, match="JOBMON_PROFILE"):
        Settings.for_init("mongodb://db/shop")


def test_settings_for_init_refuse_a_secret_that_is_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", "too short")
    with pytest.raises(SettingsError, match=r"JOBMON_JWT_SECRET_KEY: Shorter than 32 bytes"):
        Settings.for_init("mongodb://db/shop")


def test_settings_without_a_database_are_refused_by_name(read_env: Any) -> None:
    with pytest.raises(SettingsError, match="JOBMON_MONGO_URI"):
        read_env(JWT_SECRET_KEY=SECRET)


def test_settings_with_several_errors_list_all_of_them(read_env: Any) -> None:
    with pytest.raises(SettingsError, match=r"JOBMON_STATS_TTL_MS.*JOBMON_LOG_LEVEL"):
        read_env(**REQUIRED, STATS_TTL_MS="x", LOG_LEVEL="x")


@pytest.mark.parametrize(
    "sources",
    [
        {},
        {"JWT_SECRET_KEY": SECRET, "JWT_PUBLIC_KEY": RSA_KEY},
        {"JWT_PUBLIC_KEY": RSA_KEY, "JWT_JWKS_URL": "https://id/keys"},
    ],
)
def test_settings_need_exactly_one_source_of_keys(read_env: Any, sources: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="exactly one of JOBMON_JWT_SECRET_KEY"):
        read_env(MONGO_URI="mongodb://db", **sources)


@pytest.mark.parametrize(
    ("source", "algorithm", "expected"),
    [
        ({"JWT_SECRET_KEY": SECRET}, None, "HS256"),
        ({"JWT_PUBLIC_KEY": RSA_KEY}, None, "RS256"),
        ({"JWT_PUBLIC_KEY": EC_KEY}, "ES256", "ES256"),
        ({"JWT_JWKS_URL": "https://id/keys"}, None, "RS256"),
    ],
)
def test_algorithm_is_set_or_follows_from_the_source_of_keys(
    read_env: Any, source: dict[str, str], algorithm: str | None, expected: str
) -> None:
    options = {"JWT_ALGORITHM": algorithm} if algorithm else {}
    assert read_env(MONGO_URI="mongodb://db", **source, **options).jwt_algorithm == expected


@pytest.mark.parametrize(
    ("source", "algorithm"),
    [
        ({"JWT_PUBLIC_KEY": RSA_KEY}, "HS256"),
        ({"JWT_PUBLIC_KEY": RSA_KEY}, "ES256"),
        ({"JWT_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----"}, "RS256"),
        ({"JWT_JWKS_URL": "https://id/keys"}, "HS256"),
        ({"JWT_JWKS_URL": "file:///etc/passwd"}, "RS256"),
    ],
)
def test_algorithm_that_does_not_match_the_key_is_refused(
    read_env: Any, source: dict[str, str], algorithm: str
) -> None:
    with pytest.raises(SettingsError, match="JOBMON_JWT_"):
        read_env(MONGO_URI="mongodb://db", JWT_ALGORITHM=algorithm, **source)


def test_public_key_that_is_too_short_is_refused(read_env: Any) -> None:
    short_key = dump_public_key(rsa.generate_private_key(65_537, 1_024))
    for algorithm in ("RS256", "PS512"):
        with pytest.raises(
            SettingsError, match=f"JOBMON_JWT_PUBLIC_KEY: too short for {algorithm}"
        ):
            read_env(MONGO_URI="mongodb://db", JWT_PUBLIC_KEY=short_key, JWT_ALGORITHM=algorithm)


def test_public_key_with_escaped_line_ends_is_accepted(read_env: Any) -> None:
    escaped_key = RSA_KEY.replace("\n", "\\n")
    assert read_env(MONGO_URI="mongodb://db", JWT_PUBLIC_KEY=escaped_key).jwt_public_key == RSA_KEY


def test_settings_are_frozen_and_their_repr_hides_secrets() -> None:
    settings = Settings(mongo_uri="mongodb://u:hidden@db", jwt_secret_key="hidden" * 6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.mongo_uri = "other"
    assert "hidden" not in repr(settings)


def test_create_app_with_a_bad_setting_exits_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", "nonsense")
    with pytest.raises(SystemExit) as caught:
        create_app()
    assert caught.value.code == 3  # gunicorn does not start the worker again
    printed = capsys.readouterr().err
    assert printed.startswith("jobmon: JOBMON_MONGO_URI")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", ()),
        ("priority", ("priority",)),
        (" attempts, priority,attempts", ("attempts", "priority")),
    ],
)
def test_filters_name_optional_indexes(read_env: Any, text: str, filters: tuple[str, ...]) -> None:
    assert read_env(**REQUIRED).filters == ("attempts", "finished")
    assert read_env(**REQUIRED, FILTERS=text).filters == filters
    with pytest.raises(SettingsError, match="JOBMON_FILTERS: Unknown: owner"):
        read_env(**REQUIRED, FILTERS="attempts,owner")
