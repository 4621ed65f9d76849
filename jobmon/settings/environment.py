"""The settings: read from the environment (prefix `JOBMON_`), checked, and frozen."""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from typing import Any, cast

from environs import Env, EnvValidationError
from marshmallow import ValidationError, validate

from jobmon.mongo_uri import check_mongo_uri
from jobmon.profiles import ProfileFile, load_profile
from jobmon.redaction.keys import DEFAULT_REDACT_KEYS
from jobmon.settings.actions import OWNER_ACTIONS
from jobmon.settings.links import LinkTemplate, check_hidden_fields, parse_links
from jobmon.settings.mapping import DEFAULT_PROFILE, read_mapping
from jobmon.settings.mistakes import SettingsError
from jobmon.settings.path_prefix import parse_path_prefix
from jobmon.settings.readers import read_names, read_text
from jobmon.settings.receivers import ReceiverAddress, decode_signing_secret, parse_receivers
from jobmon.settings.role_permissions import (
    ADMIN_DASHBOARD,
    DEFAULT_ROLES,
    read_role_permissions,
)
from jobmon.settings.rules import DEFAULT_RULES, Rules, load_rules
from jobmon.settings.search_fields import find_search_paths
from jobmon.settings.secret_files import open_environment
from jobmon.settings.sign_in import (
    DEFAULT_SCOPES,
    check_network,
    check_scopes,
    check_sign_in,
    check_trusted_header,
    parse_header_name,
    parse_issuer,
)
from jobmon.settings.token_keys import (
    KEY_SOURCES,
    check_secret_length,
    choose_algorithm,
    parse_pem,
    read_algorithm,
)

MAX_LEEWAY_S = 300  # because clocks differ, a token can be accepted for so long after its end
# The filters whose indexes are optional; docs/operations.md has the cost of each index.
FILTERS = ("attempts", "finished", "priority")
DEFAULT_FILTERS = ("attempts", "finished")
METRICS = ("token", "open", "off")  # who may read /metrics
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_positive = validate.Range(min=1)
_STORAGE_URI = re.compile(
    r"(memory|memcached|(redis|valkey)(s|\+unix|\+cluster|\+sentinel)?)://", re.IGNORECASE
)
_database = validate.Regexp(r'^[^/\\. "$*<>:|?\0]{1,63}\Z', error="Not a database name.")
_environment = validate.Regexp(
    r"[^\x00-\x1f\x7f]{0,40}\Z", error="Not a text of up to 40 characters."
)
_claim_path = validate.Regexp(
    r"[^.\s]+(\.[^.\s]+)*\Z", error="Not a claim or a path of claims, such as realm_access.roles."
)
_http_url = validate.URL(schemes={"http", "https"}, require_tld=False)
_public_url = validate.And(
    _http_url, validate.Regexp(r"[^?#@]*\Z", error="It must have no user, query or fragment.")
)


def require_mongo_uri(value: str, source: str) -> None:
    """Raise SettingsError for a bad connection string; `source` is the name of the setting."""
    try:
        check_mongo_uri(value)
    except ValidationError as error:
        raise SettingsError(f"{source}: {error.messages[0]}") from None


def _check_rate_limit(value: str) -> None:
    from limits import parse_many  # noqa: PLC0415 - large, and only the web service needs it

    try:
        parse_many(value)
    except ValueError:
        raise ValidationError('Not a rate limit, such as "600/minute".') from None


def _check_storage_uri(value: str) -> None:
    """Raise ValidationError for a storage that `limits` does not know: its error has the password.

    A connection string of MongoDB is checked, too.
    """
    if value.lower().startswith("mongodb"):
        check_mongo_uri(value)
    elif not _STORAGE_URI.match(value):
        raise ValidationError("Not a storage: mongodb://…, redis://…, memcached://… or memory://.")


def _check_signing_secret(value: str) -> str:
    decode_signing_secret(value)
    return value


def _parse_public_url(value: str) -> str:
    """An address without a final slash."""
    url: str = _public_url(value)
    return url.rstrip("/")


def _setting(
    read: Callable[..., Any], default: Any = ..., *, is_secret: bool = False, **options: Any
) -> Any:
    """A field whose value the function `read` gets from a variable, with these `options`."""
    metadata = {"read": partial(read, **options)}
    if default is ...:
        return field(repr=not is_secret, metadata=metadata)
    return field(default=default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings. Most have a variable with `JOBMON_` and their name in capitals.

    Only `mongo_uri` is required; the web service also needs one source of keys for tokens:

        settings = Settings(mongo_uri="mongodb://db/shop", jwt_secret_key=secret)
    """

    mongo_uri: str = _setting(Env.str, is_secret=True, validate=check_mongo_uri)
    queues: str | None = _setting(read_text, None)  # the file that lists several queues
    # For each queue in that file, `load_queues` sets these six, `mongo_uri`, `rules` and some of
    # the settings of the documents.
    queue: str = "default"
    uri_setting: str = "JOBMON_MONGO_URI"  # where `mongo_uri` was set, for messages
    environment: str | None = _setting(read_text, None, parse=_environment)
    links: tuple[LinkTemplate, ...] = _setting(read_text, (), parse=parse_links)
    permission: str = ADMIN_DASHBOARD  # for the admin routes and pages of the queue
    owners: bool = True  # whether owners may see their own jobs
    # The settings of the watched documents: `read_mapping` checks these together.
    profile: str = DEFAULT_PROFILE
    jobs_collection: str = "jobs"
    attempts_collection: str = "job_attempts"
    job_fields: Mapping[str, str] = field(default_factory=dict)
    attempt_fields: Mapping[str, str] = field(default_factory=dict)
    status_names: Mapping[str, str] = field(default_factory=dict)
    attempt_status_names: Mapping[str, str] = field(default_factory=dict)
    search_fields: tuple[str, ...] = ()
    # Out of FILTERS: the filters that have an index
    filters: tuple[str, ...] = _setting(read_names, DEFAULT_FILTERS, known=FILTERS)
    # jobmon's own databases
    rollup_uri: str | None = _setting(Env.str, None, is_secret=True, validate=check_mongo_uri)
    rollup_db: str = _setting(Env.str, "jobmon_rollups", validate=_database)
    state_db: str = _setting(Env.str, "jobmon_state", validate=_database)
    collector: bool = _setting(Env.bool, False)
    minute_retention_days: int = _setting(Env.int, 2, validate=_positive)
    hour_retention_days: int = _setting(Env.int, 35, validate=_positive)
    day_retention_days: int = _setting(Env.int, 400, validate=_positive)
    # Actions on jobs: requested in the web service, carried out by `jobmon actor`
    actions: bool = _setting(Env.bool, False)
    actor_mongo_uri: str | None = _setting(Env.str, None, is_secret=True, validate=check_mongo_uri)
    actions_per_second: int = _setting(Env.int, 500, validate=_positive)
    actions_expire_minutes: int = _setting(Env.int, 15, validate=_positive)
    actions_approval_above: int | None = _setting(Env.int, None, validate=validate.Range(min=0))
    actions_retention_days: int = _setting(Env.int, 90, validate=_positive)
    actions_allow_delete: bool = _setting(Env.bool, False)
    owner_actions: tuple[str, ...] = _setting(read_names, (), known=OWNER_ACTIONS)
    rules: Rules = DEFAULT_RULES  # in the file that JOBMON_RULES names
    # Notifications, sent by the collector
    notify_urls: tuple[ReceiverAddress, ...] = _setting(
        read_text, (), is_secret=True, parse=parse_receivers
    )
    notify_secret: str | None = _setting(
        read_text, None, is_secret=True, parse=_check_signing_secret
    )
    notify_delay_s: int = _setting(Env.int, 120, validate=validate.Range(0, 86_400))
    notify_repeat_hours: int = _setting(Env.int, 24, validate=validate.Range(0, 8_760))
    public_url: str | None = _setting(read_text, None, parse=_parse_public_url)
    # Queries
    server_selection_timeout_ms: int = _setting(Env.int, 2_000, validate=_positive)
    query_timeout_ms: int = _setting(Env.int, 5_000, validate=_positive)
    slow_query_ms: int = _setting(Env.int, 500, validate=_positive)
    stats_ttl_ms: int = _setting(Env.int, 2_000, validate=validate.Range(min=0))
    # Tokens
    jwt_algorithm: str = _setting(read_algorithm, "HS256")
    jwt_secret_key: str | None = _setting(
        Env.str, None, is_secret=True, validate=check_secret_length
    )
    jwt_public_key: str | None = _setting(read_text, None, parse=parse_pem)
    jwt_jwks_url: str | None = _setting(Env.str, None, validate=_http_url)
    jwt_issuer: str | None = _setting(read_text, None)
    jwt_audience: str | None = _setting(read_text, None)
    jwt_leeway_s: int = _setting(Env.int, 5, validate=validate.Range(0, MAX_LEEWAY_S))
    role_claim: str = _setting(Env.str, "role", validate=_claim_path)
    subject_claim: str = _setting(Env.str, "sub", validate=_claim_path)
    role_permissions: Mapping[str, frozenset[str]] = field(
        default_factory=DEFAULT_ROLES.copy, metadata={"read": read_role_permissions}
    )
    redact_keys: tuple[str, ...] = _setting(read_names, DEFAULT_REDACT_KEYS)
    # Sign-in at an identity provider (OpenID Connect); `check_sign_in` checks these together.
    oidc_issuer: str | None = _setting(read_text, None, parse=parse_issuer)
    oidc_client_id: str | None = _setting(read_text, None)
    oidc_client_secret: str | None = _setting(read_text, None, is_secret=True)
    oidc_scopes: str = _setting(Env.str, DEFAULT_SCOPES, validate=check_scopes)
    oidc_session_hours: int = _setting(Env.int, 12, validate=validate.Range(1, 720))
    # The web service
    workers: int = _setting(Env.int, 2, validate=_positive)
    # Requests that a process answers at the same time. With fewer slots, requests would often wait
    # and be handed from thread to thread, which costs more than a few threads that wait.
    threads: int = _setting(Env.int, 16, validate=_positive)
    rate_limit: str | None = _setting(Env.str, None, validate=_check_rate_limit)
    rate_limit_per_address: str | None = _setting(Env.str, None, validate=_check_rate_limit)
    rate_limit_storage_uri: str = _setting(
        Env.str, "memory://", is_secret=True, validate=_check_storage_uri
    )
    log_level: str = _setting(Env.str, "INFO", validate=validate.OneOf(LOG_LEVELS))
    metrics: str = _setting(Env.str, "token", validate=validate.OneOf(METRICS))
    metrics_max_types: int = _setting(Env.int, 100, validate=_positive)
    trusted_proxies: int = _setting(Env.int, 0, validate=validate.Range(min=0))
    # A proxy that names the person in a header; `check_trusted_header` checks these together.
    trusted_user_header: str | None = _setting(read_text, None, parse=parse_header_name)
    trusted_groups_header: str | None = _setting(read_text, None, parse=parse_header_name)
    trusted_header_from: tuple[str, ...] = _setting(read_names, (), check=check_network)
    path_prefix: str | None = _setting(read_text, None, parse=parse_path_prefix)

    def __post_init__(self) -> None:
        """Raise SettingsError for bad search fields and for links to values that redaction hides.

        Also for a webhook without JOBMON_NOTIFY_SECRET, which signs the messages to webhooks.
        """
        if self.notify_secret is None and any(receiver.is_webhook for receiver in self.notify_urls):
            raise SettingsError("JOBMON_NOTIFY_SECRET: not set. It signs what webhooks receive")
        # `load_queues` checks links that are set in a file of queues.
        for setting, check in (
            (self.describe_setting("search_fields"), self.find_search_paths),
            ("JOBMON_LINKS", lambda: check_hidden_fields(self.links, self.redact_keys)),
        ):
            try:
                check()
            except ValidationError as error:
                raise SettingsError(f"{setting}: {error.messages[0]}") from None

    def read_profile(self) -> ProfileFile:
        """The profile, with the field paths and names of statuses in these settings."""
        return load_profile(self.profile).override(
            fields=self.job_fields,
            statuses=self.status_names,
            attempt_fields=self.attempt_fields,
            attempt_statuses=self.attempt_status_names,
        )

    def find_search_paths(self) -> dict[str, str]:
        """The path in documents of each search field; raises ValidationError for a bad one."""
        if not self.search_fields:
            return {}
        payload = self.read_profile().parse(self.jobs_collection).fields.get("payload")
        return find_search_paths(self.search_fields, payload, self.redact_keys)

    def describe_setting(self, name: str) -> str:
        """For messages: the place where `mongo_uri` or a setting of the documents is set."""
        if name == "mongo_uri":
            return self.uri_setting
        if self.queues is None:
            return f"JOBMON_{name.upper()}"
        key = "collection" if name == "jobs_collection" else name
        return f"`{key}` of {self.queue} in JOBMON_QUEUES"

    def choose_actor_uri(self) -> "Settings":
        """The settings with the actor's connection string, unless the queue has its own string."""
        if self.actor_mongo_uri is None or self.uri_setting != Settings.uri_setting:
            return self
        return replace(self, mongo_uri=self.actor_mongo_uri)

    @property
    def has_key(self) -> bool:
        """Whether a key to check tokens is set."""
        return any((self.jwt_secret_key, self.jwt_public_key, self.jwt_jwks_url))

    @classmethod
    def from_env(cls, *, require_keys: bool = True) -> "Settings":
        """Read and check the environment.

        Raises SettingsError for all bad values at once, or for the first values that do not fit
        together. Without `require_keys` no key for tokens is required: most commands use none.
        """
        env = open_environment()
        with env.prefixed("JOBMON_"):
            values = read_mapping(env)
            rules_file = read_text(env, "RULES", None)
            for setting in fields(cls):
                if "read" in setting.metadata:
                    default = () if setting.default is MISSING else (setting.default,)
                    read = setting.metadata["read"]
                    values[setting.name] = read(env, setting.name.upper(), *default)
        _raise_errors(env)
        values["rules"] = load_rules(rules_file)
        if require_keys or any(values[name] for name in KEY_SOURCES):
            values |= choose_algorithm(values)
        check_sign_in(values)
        check_trusted_header(values)
        return cls(**values | {"jwt_algorithm": values["jwt_algorithm"] or cls.jwt_algorithm})

    @classmethod
    def for_init(cls, mongo_uri: str) -> "Settings":
        """The settings for `jobmon init`, with an administrator's connection string.

        Raises SettingsError for all bad values at once, also for a JWT secret that is too short:
        the web service would not start with it.
        """
        require_mongo_uri(mongo_uri, "JOBMON_ADMIN_MONGO_URI")
        env = open_environment()
        with env.prefixed("JOBMON_"):
            values = read_mapping(env)
            values["queues"] = read_text(env, "QUEUES", None)
            values["filters"] = read_names(env, "FILTERS", DEFAULT_FILTERS, known=FILTERS)
            values["redact_keys"] = read_names(env, "REDACT_KEYS", DEFAULT_REDACT_KEYS)
            values["actions_allow_delete"] = env.bool("ACTIONS_ALLOW_DELETE", False)
            env.str("JWT_SECRET_KEY", None, validate=check_secret_length)
        _raise_errors(env)
        return cls(mongo_uri=mongo_uri, **values)


def _raise_errors(env: Env) -> None:
    """Raise one SettingsError for all bad values."""
    try:
        env.seal()
    except EnvValidationError as error:
        errors = cast(Mapping[str, list[str]], error.error_messages)
        texts = (f"{name}: {' '.join(messages)}" for name, messages in errors.items())
        raise SettingsError("; ".join(texts)) from None
