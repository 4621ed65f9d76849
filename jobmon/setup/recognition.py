"""Recognizes the collections of programs for which jobmon has a profile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from jobmon.domain import MAPPED_JOB_FIELDS, JobStatus
from jobmon.profiles import ProfileFile, load_profile, shipped_profiles
from jobmon.profiles.parser import ParsedProfile
from jobmon.setup.collection_sample import CollectionSample
from jobmon.setup.profile_paths import list_inputs, list_rule_paths
from jobmon.setup.vocabulary import PHASES, STATUS, find_status, is_known, normalize

Content = dict[str, Any]

_OWN_PROFILE = "jobmon"  # the profile for the format of `jobmon.queue`
_REQUIRED_OWN_FIELDS = ("jobId", "status", "createdAt")
# Shares of the documents that have the rarest of the fields that the program always writes. Below
# the first, the certainty is PROBABLE at most; below the second, the profile does not fit.
_ALWAYS, _MOSTLY = 0.95, 0.5
# The share of a profile's fields that each certainty needs at least. PROBABLE needs only
# `_PROBABLE_BY_NAME` if the collection has the profile's default name.
_CERTAIN, _PROBABLE, _POSSIBLE, _PROBABLE_BY_NAME = 0.75, 0.5, 0.35, 0.25
_KNOWN_STATUSES = 0.8  # the least share of statuses that the profile knows, by documents
_MIN_DISTINCTIVE = 2  # fields that together identify a program
# Names of fields that many programs use, so that they do not identify a program.
_COMMON = frozenset(
    {
        *MAPPED_JOB_FIELDS,
        *("_id", "name", "data", "error", "input", "log", "result", "message", "args", "params"),
        *("worker", "retries", "tries", "deleted", "completedAt", "_t"),
    }
)


class Certainty(StrEnum):
    """The certainty that a collection is a job queue; the greatest comes first."""

    CERTAIN = "certainly"
    PROBABLE = "probably"
    POSSIBLE = "possibly"

    @property
    def rank(self) -> int:
        """0 for the least certainty."""
        return list(reversed(Certainty)).index(self)


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A shipped profile that fits a collection.

    `score`: rank of the certainty, share and number of the profile's fields; a larger score is a
    better fit.
    """

    profile: str
    certainty: Certainty
    reasons: tuple[str, ...]
    score: tuple[int, float, int]


def recognize(
    sample: CollectionSample,
    resample: Callable[[dict[str, Any]], CollectionSample],
    read_collection: Callable[[str], CollectionSample],
) -> Recognition | None:
    """The shipped profile that fits a collection best; None if none fits.

    `resample` reads a sample of the documents that match a query. `read_collection` reads a sample
    of another collection of the database.
    """
    matches = [match for name in shipped_profiles() for match in _match(name, sample, resample)]
    for match in sorted(matches, key=lambda match: match.score, reverse=True):
        profile = load_profile(match.profile)
        if not profile.has_event_log:
            return match
        if sample.collection != profile.collection:  # the log may belong to other jobs
            continue
        log = read_collection(str(profile.attempts_collection))
        if has_events(profile, log):
            return replace(match, reasons=(*match.reasons, f"{log.collection} records job runs"))
    return None


def find_profiles_with_log(name: str) -> Iterator[ProfileFile]:
    """The shipped profiles that differ from this profile only by reading attempts from a log."""

    def drop_attempts(profile: ProfileFile) -> Content:
        return {key: value for key, value in profile.content.items() if key != "attempts"}

    profile = load_profile(name)
    for shipped in map(load_profile, shipped_profiles()):
        has_new_log = shipped.has_event_log and not profile.has_event_log
        if has_new_log and drop_attempts(shipped) == drop_attempts(profile):
            yield shipped


def has_events(profile: ProfileFile, sample: CollectionSample) -> bool:
    """Whether a collection has the fields that a profile reads from its log of attempts."""
    log = profile.content["attempts"]["log"]
    paths = {log["time"], log["fields"]["jobId"]}
    if isinstance(log["status"], dict):
        paths.add(log["status"]["path"])
    return bool(sample.documents) and paths <= sample.fields.keys()


def _match(
    name: str,
    sample: CollectionSample,
    resample: Callable[[dict[str, Any]], CollectionSample],
) -> Iterator[Recognition]:
    """One recognition if the profile fits, else none."""
    profile = load_profile(name)
    parsed = profile.parse(sample.collection)
    if parsed.where:
        if not set(parsed.where) <= sample.top_level:
            return
        sample = resample(parsed.where)
    least_share = _find_least_share(name, parsed, sample) if sample.documents else 0.0
    used = _list_used_fields(parsed)
    reads_status = parsed.status.path is not None
    if least_share < _MOSTLY or (not reads_status and _has_unread_status(sample, used)):
        return
    present = used & sample.top_level
    distinctive = present - _COMMON
    # A date in an unusual form also identifies the program.
    dated = {source.path for source in parsed.fields.values() if source.reading} & present
    is_own = name == _OWN_PROFILE
    has_default_name = sample.collection == profile.collection and not is_own
    if not (is_own or has_default_name or len(distinctive) + len(dated) >= _MIN_DISTINCTIVE):
        return
    share = len(present) / len(used)
    certainty = _choose_certainty(share, has_default_name=has_default_name)
    if certainty is None:
        return
    reasons = [
        f"its documents have {len(present)} of the {len(used)} fields that the profile {name} "
        f"reads, among them {', '.join(sorted(distinctive or present)[:4])}"
    ]
    if has_default_name:
        reasons.append(f"{sample.collection} is the default name of the collection in that profile")
    if unknown := _describe_unknown_statuses(parsed, sample):
        certainty = Certainty.POSSIBLE
        reasons.append(f"but it has statuses that the profile does not know: {unknown}")
    elif least_share < _ALWAYS:
        if certainty is Certainty.CERTAIN:
            certainty = Certainty.PROBABLE
        reasons.append("but not every document has the fields that the program always writes")
    elif certainty is not Certainty.CERTAIN:
        missing = ", ".join(sorted(used - present)[:4])
        reasons.append(f"but no document of the sample has {missing}")
    has_log = profile.has_event_log  # a profile with a log fits better than one without
    yield Recognition(
        profile=name,
        certainty=certainty,
        reasons=tuple(reasons),
        score=(certainty.rank, round(share, 1), len(present) + has_log),
    )


def _choose_certainty(share: float, *, has_default_name: bool) -> Certainty | None:
    if share >= _CERTAIN:
        return Certainty.CERTAIN
    if share >= _PROBABLE or (has_default_name and share >= _PROBABLE_BY_NAME):
        return Certainty.PROBABLE
    return Certainty.POSSIBLE if share >= _POSSIBLE else None


def _list_used_fields(parsed: ParsedProfile) -> set[str]:
    """The top-level fields of the documents that a profile reads, without the _id."""
    sources = (source for name, source in parsed.fields.items() if name != "attempts")
    paths = [path for source in sources for path in list_inputs(source)]
    paths += [path for _, path in list_rule_paths(parsed.status, "status")]
    if parsed.status.path is not None:
        paths.append(parsed.status.path)
    return {path.partition(".")[0] for path in paths} - {"_id"}


def _has_unread_status(sample: CollectionSample, used: set[str]) -> bool:
    """Whether most documents have a status in a field that the profile does not read.

    Then another program wrote them, even if it uses the same names for dates and locks.
    """

    def is_status(path: str) -> bool:
        words = [word for word in sample.fields[path].value_counts or () if is_known(word)]
        meanings = {find_status(word, words) for word in words}
        name = normalize(path)
        # One phase for all jobs may be anything; one status may be that of jobs that all failed.
        least_meanings = 2 if name in PHASES else 1
        has_meanings = len(meanings) >= least_meanings
        return name in STATUS and has_meanings and sample.share(path) >= _MOSTLY

    return any(map(is_status, sample.top_level - used))


def _find_least_share(name: str, parsed: ParsedProfile, sample: CollectionSample) -> float:
    """The share of documents with the rarest of the fields that the program always writes.

    Fewer documents may have all these fields. 0 if a date has another form than the profile reads.
    """

    def find_share(path: str) -> float:
        sampled = sample.fields.get(path.partition(".")[0])
        return sampled.present / sample.documents if sampled else 0.0

    shares = [1.0]
    for field in _REQUIRED_OWN_FIELDS if name == _OWN_PROFILE else parsed.always:
        is_status = field == "status" and parsed.status.path is not None
        paths = (str(parsed.status.path),) if is_status else parsed.fields[field].inputs
        shares.append(max(map(find_share, paths), default=0.0))
    for source in parsed.fields.values():
        date = sample.fields.get(source.path or "")
        if source.reading and date and date.documents and date.date_form != source.reading:
            return 0.0
    return min(shares)


def _describe_unknown_statuses(parsed: ParsedProfile, sample: CollectionSample) -> str:
    """The statuses that a profile does not know, as text; empty if few documents have one."""
    sampled = sample.fields.get(parsed.status.path or "")
    if sampled is None or not sampled.documents:
        return ""
    if sampled.value_counts is None:
        return "too many or unusual ones"
    unknown = sampled.value_counts.keys() - parsed.status.names.keys() - set(JobStatus)
    known_share = 1 - sum(sampled.value_counts[status] for status in unknown) / sampled.documents
    return "" if known_share >= _KNOWN_STATUSES else ", ".join(sorted(unknown)[:4])
