"""Settings, read once from the environment (prefix `JOBMON_`) and frozen."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

import jwt
from environs import Env, EnvError, EnvValidationError
from limits import parse_many
from marshmallow import ValidationError, validate
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from jobmon.domain import (
    ATTEMPT_FIELDS,
    MAPPED_JOB_FIELDS,
    AttemptStatus,
    JobStatus,
)
from jobmon.redaction import DEFAULT_REDACT_KEYS

ADMIN_DASHBOARD = "ADMIN_DASHBOARD"
PERMISSIONS = frozenset({ADMIN_DASHBOARD})
DEFAULT_ROLES = {"admin": frozenset({ADMIN_DASHBOARD})}

SHARED_SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
MIN_SECRET_BYTES = 32
_KEY_SOURCES = ("jwt_secret_key", "jwt_public_key", "jwt_jwks_url")
MAX_LEEWAY_S = 300  # for clocks that differ; more would be a longer life for every token
# Whose documents are watched, with the collection that they are in by default.
PROFILES = {"jobmon": "jobs", "agenda": "agendaJobs", "celery": "celery_taskmeta"}
METRICS = ("token", "open", "off")  # who may scrape


class SettingsError(Exception):
    """A setting is missing or bad. The message is one line that names it, without its value."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Each field is `JOBMON_` and its name in capitals."""

    mongo_uri: str = field(repr=False)
    profile: str = "jobmon"
    jobs_collection: str = "jobs"
    attempts_collection: str = "job_attempts"
    job_fields: Mapping[str, str] = field(default_factory=dict)
    attempt_fields: Mapping[str, str] = field(default_factory=dict)
    status_names: Mapping[str, str] = field(default_factory=dict)
    attempt_status_names: Mapping[str, str] = field(default_factory=dict)
    rollup_uri: str | None = field(default=None, repr=False)
    rollup_db: str = "jobmon_rollups"
    state_db: str = "jobmon_state"
    collector: bool = False
    minute_retention_days: int = 2
    hour_retention_days: int = 35
    day_retention_days: int = 400
    server_selection_timeout_ms: int = 2_000
    query_timeout_ms: int = 5_000
    slow_query_ms: int = 500
    stats_ttl_ms: int = 2_000
    jwt_algorithm: str = "HS256"
    jwt_secret_key: str | None = field(default=None, repr=False)
    jwt_public_key: str | None = None
    jwt_jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_leeway_s: int = 5
    role_claim: str = "role"
    subject_claim: str = "sub"
    role_permissions: Mapping[str, frozenset[str]] = field(default_factory=DEFAULT_ROLES.copy)
    redact_keys: tuple[str, ...] = DEFAULT_REDACT_KEYS
    workers: int = 2
    threads: int = 8
    rate_limit: str | None = None
    rate_limit_per_address: str | None = None
    rate_limit_storage_uri: str = field(default="memory://", repr=False)
    log_level: str = "INFO"
    metrics: str = "token"
    metrics_max_types: int = 100
    trusted_proxies: int = 0

    @property
    def has_key(self) -> bool:
        """Whether tokens can be checked."""
        return any((self.jwt_secret_key, self.jwt_public_key, self.jwt_jwks_url))

    @classmethod
    def of_watched(cls, mongo_uri: str, name: str = "JOBMON_ADMIN_MONGO_URI") -> "Settings":
        """What the environment says of the watched documents, for a database that it need not name.

        SettingsError names every setting that is wrong; `name` is where the URI comes from. A
        secret that is too short is one: the web service, started next, would never start.
        """
        try:
            _mongo_uri(mongo_uri)
        except ValidationError as error:
            raise SettingsError(f"{name}: {error.messages[0]}") from None
        env = Env(eager=False)
        with env.prefixed("JOBMON_"):
            values = _watched(env)
            env.str("JWT_SECRET_KEY", None, validate=_long_enough)
        _seal(env)
        return cls(mongo_uri=mongo_uri, **values)

    @classmethod
    def from_env(cls, *, require_keys: bool = True) -> "Settings":
        """Read and check the environment; SettingsError names every setting that is wrong.

        Without `require_keys` no key for tokens needs to be set: only the web service has a use
        for one.
        """
        env = Env(eager=False)
        with env.prefixed("JOBMON_"):
            values: dict[str, Any] = {
                "mongo_uri": env.str("MONGO_URI", validate=_mongo_uri),
                **_watched(env),
                "rollup_uri": env.str("ROLLUP_URI", None, validate=_mongo_uri),
                "rollup_db": env.str("ROLLUP_DB", cls.rollup_db, validate=_database),
                "state_db": env.str("STATE_DB", cls.state_db, validate=_database),
                "collector": env.bool("COLLECTOR", default=cls.collector),
                "minute_retention_days": env.int(
                    "MINUTE_RETENTION_DAYS", cls.minute_retention_days, validate=_positive
                ),
                "hour_retention_days": env.int(
                    "HOUR_RETENTION_DAYS", cls.hour_retention_days, validate=_positive
                ),
                "day_retention_days": env.int(
                    "DAY_RETENTION_DAYS", cls.day_retention_days, validate=_positive
                ),
                "server_selection_timeout_ms": env.int(
                    "SERVER_SELECTION_TIMEOUT_MS",
                    cls.server_selection_timeout_ms,
                    validate=_positive,
                ),
                "query_timeout_ms": env.int(
                    "QUERY_TIMEOUT_MS", cls.query_timeout_ms, validate=_positive
                ),
                "slow_query_ms": env.int("SLOW_QUERY_MS", cls.slow_query_ms, validate=_positive),
                "stats_ttl_ms": env.int(
                    "STATS_TTL_MS", cls.stats_ttl_ms, validate=validate.Range(min=0)
                ),
                "jwt_secret_key": env.str("JWT_SECRET_KEY", None, validate=_long_enough),
                "jwt_public_key": _pem(env.str("JWT_PUBLIC_KEY", None)),
                "jwt_jwks_url": env.str("JWT_JWKS_URL", None, validate=_http_url),
                "jwt_algorithm": env.str(
                    "JWT_ALGORITHM",
                    None,
                    validate=validate.OneOf(SHARED_SECRET_ALGORITHMS + PUBLIC_KEY_ALGORITHMS),
                ),
                "jwt_issuer": env.str("JWT_ISSUER", None) or None,
                "jwt_audience": env.str("JWT_AUDIENCE", None) or None,
                "jwt_leeway_s": env.int(
                    "JWT_LEEWAY_S", cls.jwt_leeway_s, validate=validate.Range(0, MAX_LEEWAY_S)
                ),
                "role_claim": env.str("ROLE_CLAIM", cls.role_claim, validate=_claim_path),
                "subject_claim": env.str("SUBJECT_CLAIM", cls.subject_claim, validate=_claim_path),
                "role_permissions": _role_permissions(
                    _pairs(env, "ROLE_PERMISSIONS", _known_permissions)
                ),
                "redact_keys": tuple(env.list("REDACT_KEYS", list(DEFAULT_REDACT_KEYS))),
                "workers": env.int("WORKERS", cls.workers, validate=_positive),
                "threads": env.int("THREADS", cls.threads, validate=_positive),
                "rate_limit": env.str("RATE_LIMIT", None, validate=_rate_limit),
                "rate_limit_per_address": env.str(
                    "RATE_LIMIT_PER_ADDRESS", None, validate=_rate_limit
                ),
                "rate_limit_storage_uri": env.str(
                    "RATE_LIMIT_STORAGE_URI", cls.rate_limit_storage_uri
                ),
                "log_level": env.str(
                    "LOG_LEVEL",
                    cls.log_level,
                    validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]),
                ),
                "metrics": env.str("METRICS", cls.metrics, validate=validate.OneOf(METRICS)),
                "metrics_max_types": env.int(
                    "METRICS_MAX_TYPES", cls.metrics_max_types, validate=_positive
                ),
                "trusted_proxies": env.int(
                    "TRUSTED_PROXIES", cls.trusted_proxies, validate=validate.Range(min=0)
                ),
            }
        _seal(env)
        if not require_keys and not any(values[name] for name in _KEY_SOURCES):
            return cls(**(values | {"jwt_algorithm": values["jwt_algorithm"] or cls.jwt_algorithm}))
        return cls(**(values | _key_source(values)))


def _watched(env: Env) -> dict[str, Any]:
    """How the watched documents are told."""
    profile = env.str("PROFILE", "jobmon", validate=validate.OneOf(PROFILES))
    jobs = PROFILES.get(profile or "", "jobs")
    has_attempts = profile in (None, "jobmon")  # the others' last one is in the job itself

    def used(check: Callable[[Any], Any], *, where: bool) -> Callable[[Any], Any]:
        return check if where else _not_used_by(profile)

    known_fields = _fields_of(
        MAPPED_JOB_FIELDS, at_id=("jobId", "createdAt"), all_of_them=has_attempts
    )
    job_fields = _pairs(env, "JOB_FIELDS", known_fields)
    has_status = profile != "agenda" or "status" in job_fields
    return {
        "profile": profile,
        "jobs_collection": env.str("JOBS_COLLECTION", jobs, validate=_collection),
        "attempts_collection": env.str(
            "ATTEMPTS_COLLECTION",
            Settings.attempts_collection,
            validate=used(_collection, where=has_attempts),
        ),
        "job_fields": job_fields,
        "attempt_fields": _pairs(
            env,
            "ATTEMPT_FIELDS",
            used(_fields_of(ATTEMPT_FIELDS, at_id=("jobId",)), where=has_attempts),
        ),
        "status_names": _pairs(env, "STATUS_NAMES", used(_words_of(JobStatus), where=has_status)),
        "attempt_status_names": _pairs(
            env, "ATTEMPT_STATUS_NAMES", used(_words_of(AttemptStatus), where=has_attempts)
        ),
    }


def _seal(env: Env) -> None:
    try:
        env.seal()
    except EnvValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except EnvError as error:
        raise SettingsError(str(error)) from None


def _one_line(error: EnvValidationError) -> str:
    messages = cast(Mapping[str, list[str]], error.error_messages)
    return "; ".join(f"{name}: {' '.join(said)}" for name, said in messages.items())


def _key_source(values: Mapping[str, Any]) -> dict[str, str]:
    """The algorithm that goes with the one source of keys that is set (contract, section 4)."""
    chosen = [name for name in _KEY_SOURCES if values[name]]
    if len(chosen) != 1:
        names = ", ".join(f"JOBMON_{name.upper()}" for name in _KEY_SOURCES)
        raise SettingsError(f"Set exactly one of {names} ({len(chosen)} are set)")
    allowed = SHARED_SECRET_ALGORITHMS if values["jwt_secret_key"] else PUBLIC_KEY_ALGORITHMS
    algorithm = values["jwt_algorithm"] or allowed[0]
    if algorithm not in allowed:
        raise SettingsError(
            f"JOBMON_JWT_ALGORITHM: {algorithm} does not go with JOBMON_{chosen[0].upper()}; "
            f"one of {', '.join(allowed)} does"
        )
    if values["jwt_public_key"]:
        try:
            named = jwt.get_algorithm_by_name(algorithm)
            too_short = named.check_key_length(named.prepare_key(values["jwt_public_key"]))
        except (jwt.InvalidKeyError, TypeError, ValueError):
            raise SettingsError(
                f"JOBMON_JWT_PUBLIC_KEY: not a public key in PEM form for {algorithm}"
            ) from None
        if too_short:
            raise SettingsError(f"JOBMON_JWT_PUBLIC_KEY: too short for {algorithm}")
    return {"jwt_algorithm": algorithm}


def _pem(value: str | None) -> str | None:
    """A PEM key; many places that set an environment can hold its line ends only as `\\n`."""
    return value.replace("\\n", "\n") if value else None


def _pairs(env: Env, name: str, check: Callable[[Mapping[str, str]], None]) -> dict[str, str]:
    """What is given as `a=b,c=d`, after `check`."""

    def split(items: list[str]) -> dict[str, str]:
        pairs = (item.partition("=") for item in items if item)
        return {key.strip(): value.strip() for key, _, value in pairs}

    def check_all(items: list[str]) -> None:
        if not all("=" in item for item in items if item):
            raise ValidationError("Not of the form a=b,c=d.")
        times = Counter(item.partition("=")[0].strip() for item in items if item)
        if twice := [key for key, count in times.items() if count > 1]:
            raise ValidationError(f"Given more than once: {', '.join(twice)}.")
        if pairs := split(items):
            check(pairs)

    return split(env.list(name, [], validate=check_all) or [])


def _role_permissions(configured: Mapping[str, str]) -> dict[str, frozenset[str]]:
    granted = {role: frozenset({permission}) for role, permission in configured.items()}
    return DEFAULT_ROLES | granted


_positive = validate.Range(min=1)
_collection = validate.Regexp(r"^[^$\0]{1,200}$", error="Not a collection name.")
_database = validate.Regexp(r'^[^/\\. "$*<>:|?\0]{1,63}$', error="Not a database name.")
_claim_path = validate.Regexp(
    r"[^.\s]+(\.[^.\s]+)*$", error="Not a claim, nor a path of claims as in realm_access.roles."
)
_http_url = validate.URL(schemes={"http", "https"}, require_tld=False)


_SRV_ADDRESS = re.compile(r"mongodb\+srv://([^@/?]*@)?[^@/?:,\s\[\]]+([/?].*)?")


def _mongo_uri(value: str) -> None:
    # The value may hold a password, so no message repeats any of it.
    if value.startswith("mongodb+srv://"):
        # The driver's parser would ask the DNS, which may be away while the service starts.
        if not _SRV_ADDRESS.fullmatch(value):
            raise ValidationError(
                "Not of the form mongodb+srv://USER:PASSWORD@HOST/DATABASE: one host name, no port."
            )
        return
    try:
        parse_uri(value, warn=False)
    except (PyMongoError, ValueError):
        raise ValidationError(
            "Not a MongoDB connection string (mongodb://… or mongodb+srv://…)."
        ) from None
    except OSError:  # of a certificate: the driver looks at it while it parses
        raise ValidationError("A file that it names cannot be read.") from None


def _long_enough(value: str) -> None:
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValidationError(f"Shorter than {MIN_SECRET_BYTES} bytes.")


def _known_permissions(value: Mapping[str, str]) -> None:
    unknown = set(value.values()) - PERMISSIONS
    if unknown:
        raise ValidationError(f"Permissions are {', '.join(sorted(PERMISSIONS))}.")


def _fields_of(
    known: tuple[str, ...], *, at_id: tuple[str, ...], all_of_them: bool = True
) -> Callable[[Mapping[str, str]], None]:
    """A check of a mapping; with `all_of_them`, what is not mapped has its own name."""

    def check(value: Mapping[str, str]) -> None:
        unknown = set(value) - set(known)
        if unknown:
            raise ValidationError(f"Unknown: {', '.join(sorted(unknown))}. {', '.join(known)} are.")
        if not all(re.fullmatch(r"[^$.\s\0]+(\.[^$.\s\0]+)*", path) for path in value.values()):
            raise ValidationError("Not the name of a field, as in jobId=job_id.")
        for name, path in value.items():
            if path.startswith("_id.") or (path == "_id" and name not in at_id):
                raise ValidationError(
                    f"{name} cannot be at {path}: only {' and '.join(at_id)} can be at _id."
                )
        defaults = dict(zip(known, known, strict=True)) if all_of_them else {}
        _refuse_shared_paths(defaults | dict(value))

    return check


def _refuse_shared_paths(paths: Mapping[str, str]) -> None:
    """Two fields that mean different things cannot be one; dates and numbers of attempts can."""
    held: dict[str, str] = {}
    for name, path in paths.items():
        if path == "_id" or name.endswith("At") or name in ("attempts", "attemptCount"):
            continue
        if path in held:
            raise ValidationError(f"{held[path]} and {name} cannot both be at {path}.")
        held[path] = name


def _not_used_by(profile: str | None) -> Callable[[Any], None]:
    def check(_: Any) -> None:
        raise ValidationError(f"Not used with JOBMON_PROFILE={profile}: remove it.")

    return check


def _words_of(statuses: type[StrEnum]) -> Callable[[Mapping[str, str]], None]:
    def check(value: Mapping[str, str]) -> None:
        unknown = set(value.values()) - set(statuses)
        if unknown:
            raise ValidationError(
                f"Unknown: {', '.join(sorted(unknown))}. {', '.join(statuses)} are, "
                "each after their own word, as in done=succeeded."
            )

    return check


def _rate_limit(value: str) -> None:
    try:
        parse_many(value)
    except ValueError:
        raise ValidationError('Not a rate limit, such as "600/minute".') from None
