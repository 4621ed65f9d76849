"""`jobmon check`: checks whether a deployment has what jobmon needs, and reports what is missing.

It writes nothing. It reads samples of the documents, the names of collections and indexes, the
user's rights, jobmon's own databases, and the identity provider's keys. No finding contains a
password or a job's payload.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from jobmon.collector.changes import SWEEP_S
from jobmon.diagnosis.evidence import CREATE_INDEXES, READ_THE_LOG, START_A_COLLECTOR
from jobmon.humanize import count, duration
from jobmon.profiles import load_profile
from jobmon.rollup.reader import MAX_STATS_AGE_MS, RollupReader
from jobmon.settings import Settings, SettingsError
from jobmon.settings.deprecated import list_warnings
from jobmon.settings.name_patterns import matches_any
from jobmon.setup.actor_check import check_actor, check_requester
from jobmon.setup.collection_sample import read_sample
from jobmon.setup.deployment import (
    COLLECTION_SETTINGS,
    Deployment,
    explain_unsuitable_kind,
    find_jobs_elsewhere,
)
from jobmon.setup.fields import Sample, expected_fields, find_used_paths, list_computed_fields
from jobmon.setup.findings import (
    Finding,
    describe_address,
    describe_cause,
    explain_failure,
    ok,
    problem,
    refused_setting,
    warning,
)
from jobmon.setup.indexes import State, plan_indexes
from jobmon.setup.links import check_links
from jobmon.setup.profile_paths import check_paths
from jobmon.setup.recognition import find_profiles_with_log, has_events
from jobmon.setup.rights import check_rights, find_refused_actions
from jobmon.setup.script import create_index_line
from jobmon.setup.search_fields import check_search_fields
from jobmon.setup.sharding import check_sharding
from jobmon.setup.sign_in_check import check_sign_in
from jobmon.store.connection import Connection
from jobmon.store.failures import NOT_A_REPLICA_SET, UNAUTHORIZED
from jobmon.store.mapping import Document
from jobmon.web.rate_limit import require_shared_storage

TOLERATED_CLOCK_DIFFERENCE = timedelta(seconds=1)
_CLOCK_TRIES = 3
NO_USER_REMEDY = "Put a user into the connection string; `jobmon init --reader USER` creates one."


def check_deployment(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Finding]:
    """Check everything; yields the findings of each check before the next check begins.

    Ends after `server_selection_timeout_ms` if the database does not answer. `clock` returns this
    machine's time, in UTC.
    """
    subject = f"{settings.jobs_collection} is"
    if load_profile(settings.profile).attempts_collection is not None:
        subject = f"{settings.jobs_collection} and {settings.attempts_collection} are"
    yield from check_settings(settings, subject, [settings.queue])
    connection = Connection(settings)
    try:
        with connection.client:
            deployment = Deployment.inspect(settings, connection)
            yield from DeploymentCheck(deployment, connection, clock).findings()
    except (PyMongoError, OSError, ValueError) as error:
        yield explain_failure(error, settings.mongo_uri, settings.uri_setting, NO_USER_REMEDY)


def check_settings(settings: Settings, subject: str, queues: Sequence[str]) -> Iterator[Finding]:
    """Report invalid or deprecated settings, the key for tokens, unused rules, sign-in problems.

    `subject`: the part of a message before "watched", such as `jobs is`. `queues`: the names of all
    queues.
    """
    try:
        require_shared_storage(settings, settings.workers)
    except SettingsError as error:
        yield refused_setting(error)
    else:
        yield _describe_settings(settings, subject)
    for message in list_warnings():
        yield warning("settings", message, remedy="docs/versions.md lists deprecated settings.")
    yield from _check_rules(settings, queues)
    yield from check_sign_in(settings)


class DeploymentCheck:
    """The checks of one queue in its deployment; later checks use the results of earlier checks.

    `own_connection` reads jobmon's own databases; without it, collector and actor are not checked.
    """

    def __init__(
        self,
        deployment: Deployment,
        own_connection: Connection | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._own_connection = own_connection
        self._deployment = deployment
        self._settings = deployment.settings
        self._connection = deployment.connection
        self._clock = clock
        self._collections = deployment.watched_collections
        self._unreadable: set[str] = set()
        self._filled: set[str] = set()  # the watched collections that hold documents

    def findings(self) -> Iterator[Finding]:
        checks = {
            "database": self._check_database,
            "clock": self._check_clocks,
            "rights": self._check_rights,
            "collections": self._check_collections,
            "sharding": lambda: check_sharding(self._deployment),
            "indexes": self._check_indexes,
            "fields": self._check_fields,
            "search": self._check_search,
            "links": self._check_links,
            "profile": self._check_profile,
            "attempts": self._check_logs,
            "changes": self._check_changes,
            "collector": self._check_collector,
            "actor": self._check_actor,
        }
        for name, check in checks.items():
            try:
                yield from check()
            except PyMongoError as error:
                yield problem(name, f"could not be checked: {describe_cause(error)}")
                if isinstance(error, AutoReconnect):  # later checks would fail, too
                    return

    def _check_database(self) -> Iterator[Finding]:
        version = self._connection.client.admin.command("buildInfo")["version"]
        address = describe_address(self._settings.mongo_uri)
        yield ok(
            "database", f"{address} answers: MongoDB {version}, {self._deployment.describe_kind()}."
        )

    def _check_clocks(self) -> Iterator[Finding]:
        measured = []  # (uncertainty, difference) pairs
        for _ in range(_CLOCK_TRIES):
            sent_at = self._clock()
            server_time = self._connection.server_time()
            round_trip = self._clock() - sent_at
            # The server read its clock at an unknown moment of the round trip.
            measured.append((round_trip / 2, server_time - (sent_at + round_trip / 2)))
        uncertainty, difference = min(measured)
        direction = "ahead of" if difference > timedelta() else "behind"
        message = (
            f"The database's clock is {_format_ms(abs(difference))} {direction} this machine's "
            f"(± {_format_ms(uncertainty)}, half of a round trip)."
        )
        if abs(difference) - uncertainty > TOLERATED_CLOCK_DIFFERENCE:
            remedy = "Ages and expired leases are wrong by that much: run NTP on both machines."
            yield warning("clock", message, remedy=remedy)
        else:
            yield ok("clock", message)

    def _check_rights(self) -> Iterator[Finding]:
        refused = find_refused_actions(self._deployment)
        self._unreadable = {name for action, name in refused if action == "read"}
        yield from check_rights(self._deployment, refused)

    def _check_collections(self) -> Iterator[Finding]:
        kinds = self._deployment.kinds
        settings = map(self._settings.describe_setting, COLLECTION_SETTINGS)
        for collection, setting in zip(self._collections, settings, strict=False):
            name, is_jobs = collection.full_name, collection is self._collections[0]
            if collection.name not in kinds:
                if collection.name in self._unreadable:  # it may exist, but the user may not see it
                    continue
                elsewhere = find_jobs_elsewhere(self._deployment) if is_jobs else None
                report = problem if is_jobs else warning
                yield report(
                    "collections",
                    f"There is no collection {name}.",
                    remedy=elsewhere
                    or f"If it has another name, set {setting}. For a new queue in jobmon's own "
                    "format, create it with `jobmon init --create`.",
                    commands=() if elsewhere else (self._deployment.init_command("--create"),),
                )
            elif unsuitable := explain_unsuitable_kind(name, kinds[collection.name], setting):
                yield unsuitable
            else:
                size = collection.estimated_document_count(maxTimeMS=self._connection.max_time_ms)
                if size:
                    self._filled.add(collection.name)
                    yield ok("collections", f"{name} holds about {count(size, 'document')}.")
                    yield from _check_collation(collection)
                else:
                    elsewhere = find_jobs_elsewhere(self._deployment) if is_jobs else None
                    yield warning("collections", f"{name} is empty.", remedy=elsewhere)

    def _check_indexes(self) -> Iterator[Finding]:
        if not self._filled:  # the fields are not known yet
            return
        planned = plan_indexes(self._settings, self._connection, self._filled)
        missing = [plan.index for plan in planned if plan.state is State.MISSING]
        if missing:
            lines = tuple(create_index_line(index) for index in missing)
            yield problem(
                "indexes",
                f"{count(len(missing), 'index', 'indexes')} missing: without them, queries read "
                "far more documents than they return.",
                remedy=f"{CREATE_INDEXES} Or create each in mongosh.",
                commands=(self._deployment.init_command(), *lines),
            )
        elif self._collections[0].name in self._filled:  # else no index of the jobs was checked
            yield ok("indexes", "All indexes that jobmon's queries need exist.")

    def _check_fields(self) -> Iterator[Finding]:
        for expected in expected_fields(self._settings, self._connection):
            if expected.collection.collection.name not in self._filled:
                continue
            sample = Sample(expected)
            if not sample.size and expected.collection.mapping.where:
                yield warning(
                    "fields",
                    f"None of the documents of {sample.name} matches `where` of the profile "
                    f"{self._settings.profile}: jobmon shows none of them.",
                    remedy="If it is the right collection, correct `where`.",
                )
            mistakes = [
                *sample.find_absent(),
                *sample.find_odd_types(),
                *sample.find_unknown_statuses(expected.statuses),
            ]
            yield from mistakes
            if sample.size and not mistakes:
                message = (
                    f"Each required field occurs among the newest {sample.size} of {sample.name}."
                )
                yield ok("fields", message)

    def _check_search(self) -> Iterator[Finding]:
        if self._settings.jobs_collection in self._filled:
            yield from check_search_fields(self._settings, self._connection)

    def _check_links(self) -> Iterator[Finding]:
        if self._settings.jobs_collection in self._filled:
            yield from check_links(self._settings, self._connection)

    def _check_profile(self) -> Iterator[Finding]:
        if fields := list_computed_fields(self._connection.jobs.mapping):
            message = f"{self._settings.profile} computes these, so no index serves them: "
            yield ok("profile", f"{message}{'; '.join(fields)}.")
        if self._settings.jobs_collection in self._filled:
            yield from check_paths(self._settings.profile, self._connection)

    def _check_logs(self) -> Iterator[Finding]:
        """A warning if the queue has a log of runs that another shipped profile reads."""
        for profile in find_profiles_with_log(self._settings.profile):
            log = str(profile.attempts_collection)
            if log not in self._deployment.kinds:
                continue
            try:
                sample = read_sample(self._connection.database, log)
            except OperationFailure:  # `jobmon init` grants this right only for that profile
                continue
            if has_events(profile, sample):
                yield warning(
                    "attempts",
                    f"{log} records each run, but the profile {self._settings.profile} reads only "
                    "the last run of each job.",
                    remedy=f"Set {self._settings.describe_setting('profile')} to {profile.name} "
                    "everywhere, and run `jobmon init` for the right to read it.",
                )

    def _check_changes(self) -> Iterator[Finding]:
        try:
            with self._collections[0].watch(max_await_time_ms=1):
                yield ok("changes", "The server reports changes at once (change stream).")
                return
        except OperationFailure as error:
            if error.code == UNAUTHORIZED:
                if self._collections[0].name not in self._unreadable:
                    yield problem(
                        "changes",
                        f"The user may not open a change stream on {self._collections[0].name} "
                        "(changeStream): a collector would not work.",
                        remedy="Run `jobmon init` to grant it; all other rights stay.",
                        commands=(self._deployment.init_command("--reader"),),
                    )
                return
            if error.code != NOT_A_REPLICA_SET:
                raise
        jobs = self._connection.jobs
        paths = [jobs.mapping.paths[name] for name in jobs.mapping.dated_fields]
        dates, message = " or ".join(paths), "This server has no change streams"
        remedy = (
            "To see all changes at once, start mongod with --replSet (and --keyFile if it has "
            "users), then run `jobmon init --replica-set NAME/HOST:PORT`."
        )
        is_filled = self._collections[0].name in self._filled
        if not paths:
            message += f": changes appear within {SWEEP_S:g} s."
        elif not is_filled or find_used_paths(jobs, paths, require_value=True):
            message += f": the collector finds jobs with a new {dates} within a second, and "
            message += f"changes without a new date, such as a deletion, within {SWEEP_S:g} s."
        else:
            message += f", and no examined job has {dates}: changes appear within {SWEEP_S:g} s."
            remedy += f" Or set {dates} at every change of a job."
        if self._connection.profile.attempts is None:
            message += " Runs are counted from the jobs, which keep only their last run."
        yield warning("changes", message, remedy=remedy)

    def _check_actor(self) -> Iterator[Finding]:
        if self._deployment.has_own_databases:
            yield from check_requester(self._deployment)
        if self._own_connection is not None:
            yield from check_actor(self._deployment, self._own_connection)

    def _check_collector(self) -> Iterator[Finding]:
        if self._own_connection is None:
            return
        reader = RollupReader(self._connection, self._own_connection)
        name = self._settings.rollup_db
        leader, age_s, build = reader.leader(), reader.stats_age_s(), reader.first_build()
        if age_s is not None and age_s * 1_000 <= MAX_STATS_AGE_MS:
            writer = f"collector {leader}" if leader else "a collector that has just stopped"
            yield ok("collector", f"The statistics are {age_s:.1f} s old, kept by {writer}.")
        elif build is not None:
            counted, estimated = build["counted"], build["estimated"]
            message = f"A first count is in progress: {counted:,} of about {estimated:,} jobs."
            yield ok("collector", message)
        elif leader:
            message = f"Collector {leader} is running, but its statistics are not up to date."
            yield warning("collector", message, remedy=READ_THE_LOG)
        else:
            message = f"No collector has stored statistics of this queue in {name}: "
            if age_s is not None:
                age = duration(1_000 * age_s)
                message = f"No collector is running, and its statistics are {age} old. "
            message += "jobmon counts the jobs when somebody requests statistics."
            yield warning(
                "collector", message, remedy=START_A_COLLECTOR, commands=("jobmon collector",)
            )


def _check_collation(collection: Collection[Document]) -> Iterator[Finding]:
    """A warning if the collection compares strings by the rules of a language."""
    try:
        (id_index,) = (index for index in collection.list_indexes() if index["name"] == "_id_")
    except (OperationFailure, ValueError):  # no `_id_` index, or no right: another check reports it
        return
    if (collation := id_index.get("collation")) is not None:
        rules = f"locale {collation['locale']}, strength {collation.get('strength', 3)}"
        yield warning(
            "collections",
            f"{collection.full_name} has a default collation ({rules}): the queue's own program "
            "may treat different ids and owners as equal. jobmon and the indexes of `jobmon init` "
            "compare them exactly.",
        )


def _describe_settings(settings: Settings, subject: str) -> Finding:
    keys = {
        "a shared secret": settings.jwt_secret_key,
        "a public key": settings.jwt_public_key,
        "an identity provider's keys": settings.jwt_jwks_url,
    }
    key = next((name for name, value in keys.items() if value), None)
    message = f"The settings are valid: {subject} watched"
    if key is None:
        return ok("settings", f"{message}. No key for tokens is set; the web service needs one.")
    return ok("settings", f"{message}, tokens checked by {key} ({settings.jwt_algorithm}).")


def _check_rules(settings: Settings, queues: Sequence[str]) -> Iterator[Finding]:
    """A warning for thresholds whose pattern matches no queue: a name may have a typo."""
    unused = [
        pattern
        for pattern, _ in settings.rules.by_queue
        if not any(matches_any(queue, [pattern]) for queue in queues)
    ]
    if unused:
        yield warning(
            "settings",
            f"JOBMON_RULES has thresholds for queues that do not exist: {', '.join(unused)}.",
            remedy=f"The queues are {', '.join(queues[:20])}.",
        )


def _format_ms(time: timedelta) -> str:
    return f"{time / timedelta(milliseconds=1):,.0f} ms"
