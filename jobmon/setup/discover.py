"""`jobmon init --discover`: finds the collections of a deployment that are job queues.

It only reads: names of databases and collections, and samples of documents. It prints names and
types of fields, statuses, and up to ten jobs of each queue without their payloads.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import monotonic

from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.profiles import FileError, load_profile, parse_file
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings, SettingsError, require_mongo_uri
from jobmon.setup.collection_sample import CollectionSample, read_sample
from jobmon.setup.deployment import admin_client
from jobmon.setup.discovery_report import Candidate, Discovery, has_user, strip_uri
from jobmon.setup.findings import SetupError, printable, refused_setting
from jobmon.setup.proposal import Proposal, propose
from jobmon.setup.recognition import Certainty, Recognition, recognize
from jobmon.store.connection import DEFAULT_DATABASE
from jobmon.store.decoding import Decoded
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.labels import label
from jobmon.store.mapping import Document
from jobmon.store.profiles import Profile
from jobmon.store.read_collection import ReadCollection

_MAX_SECONDS = 60.0
_SHOWN_JOBS = 10
_SHOWN_FIELDS = ("jobId", "type", "status", "createdAt", "attemptCount")
_TITLES = ("id", "type", "status", "created", "attempts")
_UNKNOWN = "-"
_MAX_TIME_MS = 5_000


def discover(
    uri: str, source: str, own_databases: set[str], collection: str | None = None
) -> Discovery:
    """Search the deployment of a connection string for queues; raises SetupError.

    `source`: the setting that has the connection string. `own_databases`: jobmon's own databases,
    which are not searched. `collection`: search only collections with this name; None: search all.
    """
    try:
        require_mongo_uri(uri, source)
    except SettingsError as error:
        raise SetupError(refused_setting(error)) from None
    with admin_client(Settings(mongo_uri=uri), source) as client:
        return _Search(uri, client, own_databases).run(collection)


class _Search:
    def __init__(self, uri: str, client: MongoClient[Document], own_databases: set[str]) -> None:
        self._uri = uri
        self._excluded = own_databases | {"admin", "config", "local"}
        self._client = client
        self._limits: list[str] = []
        # (database, collection) of the attempts of recognized queues.
        self._attempts_collections: set[tuple[str, str]] = set()
        self._deadline = monotonic() + _MAX_SECONDS

    def run(self, only_name: str | None) -> Discovery:
        candidates: list[Candidate] = []
        others: list[tuple[str, str]] = []
        searched = 0
        for database, name in self._list_collections(only_name):
            if monotonic() > self._deadline:
                self._limits.append(f"the search ended after {_MAX_SECONDS:.0f} s")
                break
            try:
                sample = read_sample(database, name)
            except ExecutionTimeout:
                self._limits.append(f"{database.name}.{name} did not answer in time")
                continue
            except OperationFailure:
                self._limits.append(f"{database.name}.{name} could not be read")
                continue
            searched += 1
            result = self._examine(database, sample) if sample.documents else None
            if isinstance(result, Candidate):
                candidates.append(result)
            elif result:
                others.append((sample.name, result))
        queues = [
            candidate
            for candidate in candidates
            if (candidate.sample.database, candidate.sample.collection)
            not in self._attempts_collections
        ]
        return Discovery(
            searched=searched,
            candidates=tuple(sorted(queues, key=lambda queue: -queue.certainty.rank)),
            others=tuple(others),
            limits=tuple(self._limits),
        )

    def _list_collections(self, only_name: str | None) -> Iterator[tuple[Database[Document], str]]:
        """The collections to search; the database in the connection string comes first."""
        default = self._client.get_default_database(DEFAULT_DATABASE).name
        try:
            names = set(self._client.list_database_names())
        except OperationFailure as error:
            auth_info = self._client.admin.command("connectionStatus")["authInfo"]
            if error.code != UNAUTHORIZED or not auth_info["authenticatedUsers"]:
                raise
            names = {default}
            self._limits.append(f"this user may not list databases: only {default} is searched")
        databases = sorted(names - self._excluded, key=lambda name: (name != default, name))
        for name in databases:
            database = self._client[name]
            try:
                infos = database.list_collections(nameOnly=True, authorizedCollections=True)
                collections = sorted(info["name"] for info in infos if info["type"] == "collection")
            except OperationFailure:
                self._limits.append(f"the collections of {name} could not be listed")
                continue
            for collection in collections:
                if not collection.startswith("system.") and only_name in (None, collection):
                    yield database, collection

    def _examine(
        self, database: Database[Document], sample: CollectionSample
    ) -> Candidate | str | None:
        """The queue in a collection, or the reason why a collection with signs of a queue is none.

        None if the collection has no such signs.
        """
        resample = partial(read_sample, database, sample.collection)
        try:
            recognition = recognize(sample, resample, partial(_read_sample_or_empty, database))
        except OperationFailure:
            recognition = None
        proposal = None
        if recognition is None or recognition.certainty is Certainty.POSSIBLE:
            proposal = propose(sample, resample)
        if recognition is not None and not _is_more_certain(proposal, recognition):
            if attempts := load_profile(recognition.profile).attempts_collection:
                self._attempts_collections.add((sample.database, attempts))
            candidate = Candidate(
                sample=sample,
                certainty=recognition.certainty,
                reasons=recognition.reasons,
                profile=recognition.profile,
            )
            return self._add_preview(candidate)
        if proposal is None:
            return None
        if proposal.certainty is None:
            return proposal.reasons[0]
        candidate = Candidate(
            sample=sample,
            certainty=proposal.certainty,
            reasons=tuple(proposal.reasons),
            doubts=tuple(proposal.doubts),
            text=proposal.profile,
        )
        if proposal.profile is None:
            return candidate
        return self._add_preview(replace(candidate, profile=f"./{candidate.stem}.toml"))

    def _add_preview(self, candidate: Candidate) -> Candidate:
        """The candidate with its newest jobs, as jobmon shows them, and its connection string."""
        jobs: tuple[tuple[str, ...], ...] = ()
        try:
            jobs = tuple(self._preview(candidate))
        except FileError as error:  # a field has a name that a profile cannot contain
            doubt = f"write its profile by hand: {error}"
            return replace(
                candidate, certainty=Certainty.POSSIBLE, profile=None, text=None, doubts=(doubt,)
            )
        except OperationFailure:
            self._limits.append(f"the jobs of {candidate.sample.name} could not be read")
        uri = strip_uri(self._uri, candidate.sample.database)
        return replace(candidate, jobs=jobs, uri=uri, needs_user=has_user(self._uri))

    def _preview(self, candidate: Candidate) -> Iterator[tuple[str, ...]]:
        """The row of titles, then a row of texts for each of the newest jobs by `_id`."""
        sample = candidate.sample
        options = CodecOptions(document_class=Decoded)
        collection = self._client[sample.database][sample.collection].with_options(options)
        mapping = _load_profile(candidate).jobs
        jobs = ReadCollection(sample.collection, lambda: collection, mapping, _MAX_TIME_MS)
        newest = jobs.find({}, _SHOWN_FIELDS, order=[("_id", -1)], limit=_SHOWN_JOBS)
        redactor = Redactor()
        yield _TITLES
        for job in newest:
            values = [job.get(name) for name in _SHOWN_FIELDS]
            texts = [_UNKNOWN if value is None else label(value) for value in values]
            yield tuple(printable(str(redactor.redact(text))) for text in texts)


def _read_sample_or_empty(database: Database[Document], collection: str) -> CollectionSample:
    """A sample of a collection; an empty sample if the collection cannot be read."""
    try:
        return read_sample(database, collection)
    except OperationFailure:
        return CollectionSample(database.name, collection)


def _is_more_certain(proposal: Proposal | None, recognition: Recognition) -> bool:
    """Whether the proposed profile is more certain than the recognized one."""
    if proposal is None or proposal.certainty is None or proposal.profile is None:
        return False
    return proposal.certainty.rank > recognition.certainty.rank


def _load_profile(candidate: Candidate) -> Profile:
    name = str(candidate.profile)
    file = load_profile(name) if candidate.text is None else parse_file(name, candidate.text)
    return Profile.from_file(file, candidate.sample.collection)
