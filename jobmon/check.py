"""`jobmon check`: what a deployment has of all that jobmon needs and what it lacks, in plain words.

It only reads, and little: a sample of the newest documents, the lists of names and indexes, what
the user may do. No finding repeats a password or what a job holds.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from pymongo.errors import (
    AutoReconnect,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.uri_parser import parse_uri

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.rollup.changes import SWEEP_S
from jobmon.rollup.lease import LEASES
from jobmon.rollup.reader import BUILD, FIGURES, MAX_AGE_MS, SNAPSHOT
from jobmon.rollup.throughput import STATE
from jobmon.settings import PROFILES, Settings
from jobmon.store.connection import DEFAULT_DATABASE, Connection
from jobmon.store.indexes import Index, missing_indexes
from jobmon.store.names import Document
from jobmon.store.watched import Watched

SAMPLE = 200  # newest documents of each collection whose fields are looked at
CLOCKS_MAY_DIFFER_BY = timedelta(seconds=1)
_CLOCK_TRIES = 3
_OTHERS = 50  # other collections, and databases, that are looked at when jobs are not found
_ALIKE = 3  # this many of a job's own fields make a collection look like jobs

_UNAUTHORIZED, _AUTHENTICATION_FAILED, _NOT_A_REPLICA_SET = 13, 18, 40573
_WRITES = frozenset(
    {"insert", "update", "remove", "createIndex", "dropIndex", "dropCollection", "collMod"}
    | {"dropDatabase", "renameCollectionSameDB", "convertToCapped", "bypassDocumentValidation"}
)
_ROLLUP_WRITES = frozenset({"insert", "update", "remove"})


# The settings that say what is watched: `jobmon init` reads them, too.
_OF_INIT = (
    "profile",
    "jobs_collection",
    "attempts_collection",
    "job_fields",
    "attempt_fields",
    "status_names",
    "attempt_status_names",
)


class Level(StrEnum):
    """How bad a finding is. Only a problem makes the check fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: what it is like and, if something is amiss, what to do.

    `commands` are lines to paste, the first way first.
    """

    check: str
    level: Level
    says: str
    do: str | None = None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Field:
    """What a field of the contract holds, and what is lost without it.

    It is looked for in documents with one of `statuses` only, if there are any named. `instead`
    serves as well. Without an `essential` one there is not much to show.
    """

    name: str
    types: tuple[str, ...]
    lost: str
    essential: bool = False
    statuses: tuple[str, ...] = ()
    instead: str | None = None


_NUMBER = ("int", "long", "double")
_DATE, _TEXT = ("date",), ("string",)
_FINISHED = (JobStatus.SUCCEEDED, JobStatus.DLQ, JobStatus.CANCELLED)
_FAULTY = (JobStatus.FAILED, JobStatus.DLQ)
_ENDED = (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.EXPIRED)

# The contract's fields: the one place in this module that names them.
JOB_FIELDS = (
    _Field("jobId", _TEXT, "a job cannot be opened or followed", essential=True),
    _Field("status", _TEXT, "every job counts as having no status", essential=True),
    _Field("type", _TEXT, "jobs are not told apart by what they do"),
    _Field("createdAt", _DATE, "lists have no order, and ages are not known", essential=True),
    _Field("updatedAt", _DATE, "changes are found late where there is no change stream"),
    _Field("createdBy", ("objectId", "string"), "nobody but an admin sees a job"),
    _Field("payload", ("object",), "jobs are shown without their input"),
    _Field("priority", _NUMBER, "no priority is shown"),
    _Field("nextRunAt", _DATE, "jobs that are due are not told from scheduled ones"),
    _Field("maxAttempts", _NUMBER, "it is not shown how many attempts are left"),
    _Field("attemptCount", _NUMBER, "attempts are not counted in lists", instead="attempts"),
    _Field("leasedBy", _TEXT, "the worker is not shown", statuses=(JobStatus.LEASED,)),
    _Field("leaseExpiresAt", _DATE, "dead workers are not noticed", statuses=(JobStatus.LEASED,)),
    _Field("finishedAt", _DATE, "dead letters are not in the charts", statuses=_FINISHED),
    _Field("lastError", ("object",), "errors are not shown in lists", statuses=_FAULTY),
)
ATTEMPT_FIELDS = (
    _Field("jobId", _TEXT, "no attempt belongs to a job", essential=True),
    _Field("attemptNumber", _NUMBER, "attempts have no order", essential=True),
    _Field("status", _TEXT, "succeeded and failed attempts are not told apart", essential=True),
    _Field("workerId", _TEXT, "the worker is not shown"),
    _Field("startedAt", _DATE, "times of waiting and running are not known"),
    _Field("finishedAt", _DATE, "throughput and run times are not known", statuses=_ENDED),
    _Field("error", ("object",), "an attempt's error is not shown", statuses=("failed",)),
)
_OF_A_JOB = frozenset({"jobId", "status", "type", "payload", "nextRunAt", "maxAttempts"})


def examine(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Finding]:
    """Look at everything, telling each finding as it is made.

    Ends early when the database does not answer, within `server_selection_timeout_ms`. `clock`
    is this machine's, in UTC.
    """
    yield _of_settings(settings)
    connection = Connection(settings)
    try:
        client = connection.client
    except (PyMongoError, OSError, ValueError) as error:  # a name or a file that is not there
        yield _problem("database", f"{_where(settings)} cannot be connected to: {_short(error)}")
        return
    with client:
        yield from _Examination(settings, connection, clock).findings()


def refused(error: Exception) -> Finding:
    """The finding that a setting is missing or bad."""
    return _problem(
        "settings", str(error), do="Set it in the environment; docs/operations.md lists them all."
    )


class _Examination:
    """One look at one deployment; later checks build on what earlier ones learnt."""

    def __init__(
        self, settings: Settings, connection: Connection, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._clock = clock
        self._watched = [connection.jobs.collection]
        if connection.attempts is not None:
            self._watched.append(connection.attempts.collection)
        self._hello: Document = {}
        self._user: Document = {}  # who is signed in, and what they may do
        self._kinds: dict[str, str] = {}  # collections and views of the database
        self._unreadable: set[str] = set()
        self._present: set[str] = set()  # which of the watched collections exist
        self._has_updates = True  # some sampled job says when it was changed

    def findings(self) -> Iterator[Finding]:
        try:
            admin = self._connection.client.admin
            self._hello = admin.command("hello")
            status = admin.command("connectionStatus", showPrivileges=True)
            self._user = status["authInfo"]
            self._kinds = self._kinds_of_collections()
        except PyMongoError as error:
            yield self._no_database(error)
            return
        checks = {
            "database": self._database,
            "clock": self._clocks,
            "rights": self._rights,
            "collections": self._collections,
            "indexes": self._indexes,
            "fields": self._fields,
            "changes": self._changes,
            "collector": self._collector,
        }
        for name, check in checks.items():
            try:
                yield from check()
            except PyMongoError as error:
                yield _problem(name, f"could not be checked: {_short(error)}")
                if isinstance(error, AutoReconnect):  # it went away: the rest would wait in vain
                    return

    def _kinds_of_collections(self) -> dict[str, str]:
        """Collections and views that the user may know of, each with which of the two it is."""
        try:
            found = self._connection.database.list_collections(
                nameOnly=True, authorizedCollections=True
            )
            return {collection["name"]: collection["type"] for collection in found}
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED and self._user["authenticatedUsers"]:
                return {}  # without a single right; which ones are missing is told later
            raise

    def _no_database(self, error: PyMongoError) -> Finding:
        where = _where(self._settings)
        if isinstance(error, OperationFailure):
            if error.code == _AUTHENTICATION_FAILED:
                do = "Check user, password and authSource in JOBMON_MONGO_URI."
                return _problem("database", f"{where} does not know this user or password.", do=do)
            if error.code == _UNAUTHORIZED:
                do = "Put a user into JOBMON_MONGO_URI; `jobmon init --reader USER` makes one."
                return _problem("database", f"{where} answers only to users who sign in.", do=do)
        within = self._settings.server_selection_timeout_ms / 1_000
        do = "Is it running, and is the address in JOBMON_MONGO_URI right as seen from here?"
        says = f"{where} does not answer within {within:g} s: {_short(error)}"
        return _problem("database", says, do=do)

    def _database(self) -> Iterator[Finding]:
        version = self._connection.client.admin.command("buildInfo")["version"]
        members = len(self._hello.get("hosts", ()))
        if self._hello.get("msg") == "isdbgrid":
            kind = "a sharded cluster"
        elif "setName" in self._hello:
            kind = f"replica set {self._hello['setName']}, {_many(members, 'member')}"
        else:
            kind = "a standalone server"
        yield _ok("database", f"{_where(self._settings)} answers: MongoDB {version}, {kind}.")

    def _clocks(self) -> Iterator[Finding]:
        client = self._connection.client
        tries = []
        for _ in range(_CLOCK_TRIES):
            before = self._clock()
            theirs = client.admin.command("hello", codec_options=client.codec_options)["localTime"]
            took = self._clock() - before
            # Their clock was read somewhere in between.
            tries.append((took / 2, theirs - (before + took / 2)))
        uncertain, ahead = min(tries)
        how = "ahead of" if ahead > timedelta() else "behind"
        says = (
            f"The database's clock is {_ms(abs(ahead))} {how} this machine's "
            f"(± {_ms(uncertain)}, half of a round trip)."
        )
        if abs(ahead) - uncertain > CLOCKS_MAY_DIFFER_BY:
            do = "Ages and expired leases are off by that much: run NTP on both machines."
            yield _warning("clock", says, do=do)
        else:
            yield _ok("clock", says)

    def _rights(self) -> Iterator[Finding]:
        users = self._user["authenticatedUsers"]
        refusals = []
        for what, where, attempt in self._needed():
            if not _allowed(attempt):
                refusals.append(f"{what} {where}")
                self._unreadable.add(where)
        if refusals:
            do = "Give the user what `jobmon init --reader USER` would give it."
            says = f"The user may not {'; may not '.join(refusals)}."
            yield _problem("rights", says, do=do, commands=(self._init("--reader USER"),))
        elif users:
            names = ", ".join(f"{user['user']}@{user['db']}" for user in users)
            yield _ok("rights", f"User {names} may read all that jobmon reads.")
        if not users:
            yield _warning(
                "rights",
                "Nobody has to sign in to this database: who reaches it may read and change all.",
                do="Turn on its authentication, then make a user who may only read.",
                commands=(self._init("--reader USER"),),
            )
            return
        privileges = self._user["authenticatedUserPrivileges"]
        for watched in self._watched:
            writes = sorted(_granted(privileges, watched.database.name, watched.name) & _WRITES)
            if writes:
                yield _warning(
                    "rights",
                    f"The user may also change {watched.name} ({', '.join(writes)}); "
                    "jobmon never does, and need not be able to.",
                    do="Make a user who may only read.",
                    commands=(self._init("--reader USER"),),
                )
        yield self._rights_to_figures(privileges)

    def _rights_to_figures(self, privileges: list[Document]) -> Finding:
        """Whether a collector could write, as the user in JOBMON_ROLLUP_URI if that is set."""
        settings = self._settings
        if settings.rollup_uri:
            try:
                with Connection(replace(settings, mongo_uri=settings.rollup_uri)).client as client:
                    status = client.admin.command("connectionStatus", showPrivileges=True)
            except (PyMongoError, OSError, ValueError) as error:
                says = f"The collector's connection does not work: {_short(error)}."
                return _problem("rights", says, do="Correct JOBMON_ROLLUP_URI.")
            privileges = status["authInfo"]["authenticatedUserPrivileges"]
        if _granted(privileges, settings.rollup_db, STATE) >= _ROLLUP_WRITES:
            return _ok("rights", f"A collector may write {settings.rollup_db} with these settings.")
        says = f"A collector may not write {settings.rollup_db} with these settings"
        if settings.rollup_uri or settings.collector:
            do = "Give the collector a user of its own in JOBMON_ROLLUP_URI."
            command = self._init("--collector USER")
            return _problem("rights", f"{says}.", do=do, commands=(command,))
        return _ok("rights", f"{says}; the web service needs not.")

    def _needed(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Everything that jobmon does to read, to be tried."""
        limit = self._connection.max_time_ms
        count: list[Document] = [{"$collStats": {"count": {}}}]
        for watched in self._watched:
            name = watched.name
            yield "read", name, partial(watched.find_one, {}, {"_id": True}, max_time_ms=limit)
            yield "list the indexes of", name, watched.list_indexes
            if name in self._kinds:  # there are no statistics of what is not there
                statistics = partial(watched.aggregate, count, maxTimeMS=limit)
                yield "read the size (collStats) of", name, statistics
        state = self._connection.rollups[STATE]
        read_state = partial(state.find_one, {}, {"_id": True}, max_time_ms=limit)
        yield "read", self._settings.rollup_db, read_state

    def _collections(self) -> Iterator[Finding]:
        database, kinds = self._connection.database, self._kinds
        settings = ("JOBMON_JOBS_COLLECTION", "JOBMON_ATTEMPTS_COLLECTION")
        for watched, setting in zip(self._watched, settings, strict=False):
            where, is_jobs = f"{database.name}.{watched.name}", watched is self._watched[0]
            if watched.name not in kinds:
                if watched.name in self._unreadable:  # said already, and it may well be there
                    continue
                elsewhere = self._elsewhere(set(kinds)) if is_jobs else None
                yield Finding(
                    check="collections",
                    level=Level.PROBLEM if is_jobs else Level.WARNING,
                    says=f"There is no collection {where}.",
                    do=elsewhere
                    or f"Set {setting} if it has another name; or let `jobmon init` make it.",
                    commands=() if elsewhere else (self._init(),),
                )
                continue
            self._present.add(watched.name)
            number = watched.estimated_document_count(maxTimeMS=self._connection.max_time_ms)
            if kinds[watched.name] == "view":
                do = f"Set {setting} to the collection that the view is of."
                says = f"{where} is a view: it has no indexes and no change stream."
                yield _problem("collections", says, do=do)
            elif number:
                yield _ok("collections", f"{where} holds about {_many(number, 'document')}.")
            else:
                elsewhere = self._elsewhere(set(kinds)) if is_jobs else None
                yield _warning("collections", f"{where} is empty.", do=elsewhere)

    def _elsewhere(self, names: set[str]) -> str | None:
        """Where the jobs may be instead: a collection that looks like them, or a database."""
        jobs = self._watched[0]
        others = names - {watched.name for watched in self._watched}
        alike = [
            name
            for name in sorted(others)[:_OTHERS]
            if not name.startswith("system.") and self._looks_like_jobs(name)
        ]
        if alike:
            return f"These look like jobs: {', '.join(alike)}. Set JOBMON_JOBS_COLLECTION to one."
        client, own = self._connection.client, self._settings.rollup_db
        databases = client.list_database_names()
        skipped = {"admin", "config", "local", own, jobs.database.name}
        holding = [
            name
            for name in sorted(set(databases) - skipped)[:_OTHERS]
            if jobs.name in client[name].list_collection_names(authorizedCollections=True)
        ]
        if holding:
            return (
                f"There is a collection {jobs.name} in: {', '.join(holding)}. "
                "The database is the one that JOBMON_MONGO_URI names after the address, "
                f"{DEFAULT_DATABASE} if it names none."
            )
        return None

    def _looks_like_jobs(self, name: str) -> bool:
        collection = self._connection.database[name]
        paths = self._connection.jobs.names.paths
        fields = {paths[field] for field in _OF_A_JOB & paths.keys()} - {"_id"}
        newest = collection.find(
            {},
            dict.fromkeys(fields, True),
            sort=[("_id", -1)],
            limit=1,
            max_time_ms=self._connection.max_time_ms,
        )
        try:
            return any(len(fields & document.keys()) >= _ALIKE for document in newest)
        except OperationFailure:
            return False

    def _indexes(self) -> Iterator[Finding]:
        missing = [
            index
            for index in missing_indexes(self._connection)
            if index.collection.name in self._present
        ]
        if missing:
            lines = tuple(map(_create_index, missing))
            yield _problem(
                "indexes",
                f"{_many(len(missing), 'index', 'indexes')} missing: without, queries read "
                "far more than they show.",
                do="Make them, as a user who may: all by the first line, or each in mongosh.",
                commands=(self._init(), *lines),
            )
        elif self._present:
            yield _ok("indexes", "Every index that jobmon's queries need is there.")

    def _fields(self) -> Iterator[Finding]:
        tables = (JOB_FIELDS, ATTEMPT_FIELDS)
        known: tuple[type[StrEnum], ...] = (JobStatus, AttemptStatus)
        both = (self._connection.jobs, self._connection.attempts)
        for watched, fields, statuses in zip(both, tables, known, strict=True):
            if watched is None or watched.collection.name not in self._present:
                continue
            wanted = fields
            if self._settings.profile != Settings.profile:
                # What others keep comes and goes, and is read in more ways than one.
                wanted = tuple(field for field in fields if field.essential)
            sample = _Sample(watched, wanted)
            if watched is self._connection.jobs:
                self._has_updates = not sample.size or bool(sample.types("updatedAt"))
            found = [*sample.absent(), *sample.odd_types(), *sample.unknown_statuses(statuses)]
            yield from found
            if sample.size and not found:
                says = f"The newest {sample.size} of {sample.name} have the fields that they need."
                yield _ok("fields", says)

    def _changes(self) -> Iterator[Finding]:
        try:
            with self._watched[0].watch(max_await_time_ms=1):
                yield _ok("changes", "Changes are told as they happen (change stream).")
                return
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                yield _problem(
                    "changes",
                    f"The user may not follow changes of {self._watched[0].name} "
                    "(changeStream): a collector would not work.",
                    do="Give the user what `jobmon init --reader USER` would give it.",
                    commands=(self._init("--reader USER"),),
                )
                return
            if error.code != _NOT_A_REPLICA_SET:
                raise
        says = "This server has no change streams: the collector asks for what was updated"
        if self._has_updates:
            do = "A replica set, of one member even, tells of changes and deletions at once."
            says += f", and finds deletions within {SWEEP_S:g} s."
        else:
            do = "Let writers set updatedAt at every change, or make it a replica set."
            says += f", but no job has updatedAt: changes show within {SWEEP_S:g} s only."
        yield _warning("changes", says, do=do)

    def _collector(self) -> Iterator[Finding]:
        rollups = self._connection.rollups
        limit = self._connection.max_time_ms
        age: Document = {"$set": {"ageMs": {"$subtract": ["$$NOW", "$at"]}}}
        keep: Document = {"$project": {"ageMs": 1, "counted": 1, "estimated": 1, "watched": 1}}
        state = {
            document["_id"]: document
            for document in rollups[STATE].aggregate(
                [{"$match": {"_id": {"$in": [FIGURES, BUILD, SNAPSHOT]}}}, age, keep],
                maxTimeMS=limit,
            )
        }
        held: Document = {"_id": "collector", "$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        lease = rollups[LEASES].find_one(held, max_time_ms=limit)
        start = {
            "do": "Start a collector beside the web service, or set JOBMON_COLLECTOR=true for it.",
            "commands": ("jobmon collector",),
        }
        watched = state.get(SNAPSHOT, {}).get("watched", self._watched[0].full_name)
        if watched != self._watched[0].full_name:
            do = "Give each watched database a JOBMON_ROLLUP_DB of its own."
            says = f"The figures in {rollups.name} are of {watched}, not of what is watched here."
            yield _problem("collector", says, do=do)
        elif _is_fresh(state.get(FIGURES)):
            by = f"collector {lease['holder']}" if lease else "a collector that has just ended"
            seconds = max(0, state[FIGURES]["ageMs"]) / 1_000
            yield _ok("collector", f"The figures are {seconds:.1f} s old, kept by {by}.")
        elif _is_fresh(state.get(BUILD)):
            counted, estimated = state[BUILD]["counted"], state[BUILD]["estimated"]
            says = f"A first count is under way: {counted:,} of about {estimated:,} jobs."
            yield _ok("collector", says)
        elif lease:
            says = f"Collector {lease['holder']} is at work, but has no fresh figures."
            yield _warning("collector", says, do="Its log says why.")
        elif FIGURES in state:
            old = timedelta(seconds=round(state[FIGURES]["ageMs"] / 1_000))
            says = f"No collector runs, the figures are {old} (h:mm:ss) old. Each look counts anew."
            yield _warning("collector", says, **start)  # type: ignore[arg-type]
        else:
            says = f"No collector ever ran on {rollups.name}: each look counts the jobs anew."
            yield _warning("collector", says, **start)  # type: ignore[arg-type]

    def _init(self, options: str = "") -> str:
        """The command line that makes what is missing, to be given a name and a password."""
        settings = self._settings
        usual = replace(
            Settings(mongo_uri="", profile=settings.profile),
            jobs_collection=PROFILES[settings.profile],
        )
        given = ""
        for name in _OF_INIT:
            value = getattr(settings, name)
            if value != getattr(usual, name) or (name == "profile" and value != Settings.profile):
                given += f"JOBMON_{name.upper()}='{_as_set(value)}' "
        if options and settings.rollup_db != Settings.rollup_db:  # only users have to do with it
            given += f"JOBMON_ROLLUP_DB='{settings.rollup_db}' "
        user = "ADMIN:PASSWORD@" if self._user["authenticatedUsers"] else ""
        scheme, hosts = _hosts(settings.mongo_uri)
        uri = f"{scheme}://{user}{hosts}/{self._connection.database.name}"
        if "setName" in self._hello and scheme == "mongodb":
            uri += f"?replicaSet={self._hello['setName']}"
        if user:
            uri += ("&" if "?" in uri else "?") + "authSource=admin"
        secret = options.partition("--")[2].partition(" ")[0].upper()
        password = f"JOBMON_{secret}_PASSWORD=… " if secret else ""
        command = f"{given}JOBMON_ADMIN_MONGO_URI='{uri}' {password}jobmon init {options}"
        return command.rstrip()


class _Sample:
    """Of the newest documents, which fields they have, and of which types. Index: _id."""

    def __init__(self, watched: Watched, fields: tuple[_Field, ...]) -> None:
        self._names = watched.names
        paths = self._names.paths
        derived = self._names.derived is not None
        self.name = watched.collection.name
        self._setting = "JOB_FIELDS" if fields[0] in JOB_FIELDS else "ATTEMPT_FIELDS"
        self._fields = [
            field
            for field in fields
            if field.name in paths and not (derived and field.name == "status")
        ]
        # Types, names and statuses: nothing else that the documents hold comes here.
        types = {field.name: {"$type": f"${paths[field.name]}"} for field in self._fields}
        names = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}
        status: Any = None
        if "status" in paths and not derived:
            is_text = {"$eq": [{"$type": f"${paths['status']}"}, "string"]}
            status = {"$cond": [is_text, f"${paths['status']}", None]}
        pipeline: list[Document] = [
            {"$sort": {"_id": -1}},
            {"$limit": SAMPLE},
            {
                "$project": {
                    "_id": 0,
                    "types": types,
                    "names": names,
                    "status": {"$ifNull": [status, None]},
                }
            },
        ]
        self._documents = list(
            watched.collection.aggregate(pipeline, hint={"_id": 1}, maxTimeMS=watched.max_time_ms)
        )
        for document in self._documents:
            document["status"] = self._names.status(document["status"])
        self.size = len(self._documents)

    def types(self, field: str) -> Counter[str]:
        """How often the field has which type, where it is there at all."""
        found = Counter(document["types"].get(field, "missing") for document in self._documents)
        del found["missing"]
        return found

    def absent(self) -> Iterator[Finding]:
        """Fields that no document has in which they are to be expected."""
        names = {name for document in self._documents for name in document["names"]}
        for field in self._fields:
            expected = [
                document
                for document in self._documents
                if not field.statuses or document["status"] in field.statuses
            ]
            if not expected or field.instead in names:
                continue
            if any(document["types"][field.name] != "missing" for document in expected):
                continue
            path = self._names.paths[field.name]
            alike = sorted(name for name in names if _squeezed(name) == _squeezed(path))
            where = f"with status {' or '.join(field.statuses)} " if field.statuses else ""
            yield Finding(
                check="fields",
                level=Level.PROBLEM if field.essential else Level.WARNING,
                says=f"None of the newest {len(expected)} of {self.name} {where}has "
                f"{path}: {field.lost}.",
                do=f"Set JOBMON_{self._setting}={field.name}={_printable(alike[0])} if that is it."
                if alike
                else None,
            )

    def odd_types(self) -> Iterator[Finding]:
        """Fields that hold something else than agreed."""
        for field in self._fields:
            path = self._names.paths[field.name]
            agreed = ("string", "objectId") if path == "_id" else field.types
            found = self.types(field.name)
            odd = {kind: found[kind] for kind in found if kind not in (*agreed, "null")}
            if odd:
                told = ", ".join(f"{number} times {kind}" for kind, number in sorted(odd.items()))
                yield _warning(
                    "fields",
                    f"{path} in {self.name} should be {' or '.join(agreed)}, but is "
                    f"{told} (of {self.size}). It is shown as it is; by it, no job is found.",
                )

    def unknown_statuses(self, known: type[StrEnum]) -> Iterator[Finding]:
        """Statuses that the contract does not have."""
        found = Counter(
            document["status"] for document in self._documents if document["status"] is not None
        )
        unknown = {status: found[status] for status in found if status not in set(known)}
        if unknown:
            told = ", ".join(f"{_printable(name)} ({unknown[name]})" for name in sorted(unknown))
            yield _warning(
                "fields",
                f"Unknown statuses in {self.name}: {told}, of {self.size}. They are shown and "
                "counted under their own names.",
            )


def _of_settings(settings: Settings) -> Finding:
    keys = {
        "a shared secret": settings.jwt_secret_key,
        "a public key": settings.jwt_public_key,
        "an identity provider's keys": settings.jwt_jwks_url,
    }
    by = next((name for name, value in keys.items() if value), "no key")
    watched = f"{settings.jobs_collection} and {settings.attempts_collection} are"
    if settings.profile != Settings.profile:
        watched = f"{settings.jobs_collection} is"
    says = f"The settings are valid: {watched} watched, tokens checked by {by}"
    return _ok("settings", f"{says} ({settings.jwt_algorithm}).")


def _ok(check: str, says: str) -> Finding:
    return Finding(check=check, level=Level.OK, says=says)


def _warning(
    check: str, says: str, *, do: str | None = None, commands: tuple[str, ...] = ()
) -> Finding:
    return Finding(check=check, level=Level.WARNING, says=says, do=do, commands=commands)


def _problem(
    check: str, says: str, *, do: str | None = None, commands: tuple[str, ...] = ()
) -> Finding:
    return Finding(check=check, level=Level.PROBLEM, says=says, do=do, commands=commands)


def _allowed(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OperationFailure as error:
        return error.code != _UNAUTHORIZED  # what else is amiss, a later check says
    return True


def _granted(privileges: list[Document], database: str, collection: str) -> set[str]:
    """What the user may do to a collection; an empty name in a privilege stands for all."""
    actions: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        covers = resource.get("db") in ("", database) and (
            resource.get("collection") in ("", collection)
        )
        if covers or resource.get("anyResource"):
            actions |= set(privilege["actions"])
    return actions


def _create_index(index: Index) -> str:
    """The line that makes it in mongosh."""
    fields = ", ".join(f'"{field}": {order}' for field, order in index.keys)
    options = ", {unique: true}" if index.unique else ""
    collection = index.collection.name
    name = f".{collection}" if collection.isidentifier() else f'.getCollection("{collection}")'
    return f"db{name}.createIndex({{{fields}}}{options})"


def _as_set(value: object) -> str:
    """A setting's value as it stands in the environment."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={said}" for name, said in value.items())
    return str(value)


def _hosts(uri: str) -> tuple[str, str]:
    """Scheme and addresses of a connection string: never the user or the password."""
    scheme, _, rest = uri.partition("://")
    if scheme == "mongodb+srv":  # parsing it would ask the DNS
        return scheme, re.split(r"[/?]", rest)[0].rpartition("@")[2]
    nodes = parse_uri(uri, warn=False)["nodelist"]
    return scheme, ",".join(f"{host}:{port}" if port else str(host) for host, port in nodes)


def _where(settings: Settings) -> str:
    return f"The database at {_hosts(settings.mongo_uri)[1]}"


def _short(error: Exception) -> str:
    """The cause in a line, without what the driver adds about its own state."""
    if isinstance(error, OperationFailure):
        return f"refused with {(error.details or {}).get('codeName', error.code)}"
    if isinstance(error, ServerSelectionTimeoutError):
        return re.split(r" \(configured timeouts|, Timeout: ", str(error))[0]
    return str(error).partition(" (configured timeouts")[0]


def _is_fresh(document: Document | None) -> bool:
    return document is not None and document["ageMs"] <= MAX_AGE_MS


def _squeezed(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _printable(text: str) -> str:
    """What another program wrote, safe for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:60])


def _ms(time: timedelta) -> str:
    return f"{time / timedelta(milliseconds=1):,.0f} ms"


def _many(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
