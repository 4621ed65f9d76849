"""Describes the queues that `jobmon init --discover` found, and writes their settings to files."""

import os
import re
import secrets
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from jobmon.humanize import count
from jobmon.setup.collection_sample import CollectionSample
from jobmon.setup.findings import SetupError, problem, quote_shell, split_uri
from jobmon.setup.recognition import Certainty

_SHOWN_OTHERS = 20
_SIGN_IN = "jobmon token --sub admin --role admin"
# Options of a connection string that contain no secret, and that the queue's reader also needs.
_KEPT_OPTIONS = ("replicaset", "authsource", "tls", "ssl", "directconnection", "readpreference")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A collection that is or may be a queue.

    `profile`: the value of JOBMON_PROFILE; None if the queue cannot be watched yet. `text`: the
    content of the profile's file; None for a shipped profile. `uri`: the connection string for the
    settings, without a user. `needs_user`: whether the searched connection string has a user.
    `jobs`: the rows of the preview; the first row has the titles.
    """

    sample: CollectionSample
    certainty: Certainty
    reasons: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    profile: str | None = None
    text: str | None = None
    uri: str = ""
    needs_user: bool = False
    jobs: tuple[tuple[str, ...], ...] = ()

    @property
    def stem(self) -> str:
        """The name of the queue's files, without the suffix; each collection has its own."""
        return quote(self.sample.name, safe="")


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The result of a search, the most certain queues first.

    `searched`: the number of searched collections. `others`: (name, reason) pairs of collections
    that have signs of a queue, but are none. `limits`: what was not searched or read, and why.
    """

    searched: int
    candidates: tuple[Candidate, ...]
    others: tuple[tuple[str, str], ...]
    limits: tuple[str, ...]


def describe_discovery(discovery: Discovery) -> Iterator[str]:
    """The lines to print: each queue with its reasons, files and jobs; then other collections."""
    queues = count(len(discovery.candidates), "possible queue")
    searched = count(discovery.searched, "collection")
    yield f"{searched} searched, {queues} found. Nothing was written to MongoDB."
    for candidate in discovery.candidates:
        yield from ("", *_describe_candidate(candidate))
    if discovery.others:
        yield from ("", "Not queues, although they have signs of one:")
        yield from (f"  {name}: {reason}" for name, reason in discovery.others[:_SHOWN_OTHERS])
        if (hidden := len(discovery.others) - _SHOWN_OTHERS) > 0:
            yield f"  and {hidden} more"
    if discovery.limits:
        yield from ("", "Limits of this search:", *(f"  {limit}" for limit in discovery.limits))


def write_files(discovery: Discovery, folder: Path) -> Iterator[str]:
    """Write the profile and the settings of each queue; yields a line for each file.

    It keeps existing files. Only the owner of a new file can read it. The settings have a new
    JOBMON_JWT_SECRET_KEY. A collection that is only possibly a queue gets no file. Raises
    SetupError.
    """
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _make_write_error(folder, error) from None
    for candidate in discovery.candidates:
        if candidate.profile is None or candidate.certainty is Certainty.POSSIBLE:
            yield f"{candidate.sample.name} is only possibly a queue: no file was written for it."
            if candidate.profile is not None:
                yield "To use it, copy its files from the output above."
            continue
        settings = folder / f"{candidate.stem}.env"
        if candidate.text is not None:
            yield _write_file(folder / f"{candidate.stem}.toml", candidate.text)
        text = _format_settings(candidate, str(folder), secrets.token_urlsafe(32))
        command = f"set -a; . {shlex.quote(str(settings))}; {_SIGN_IN}; jobmon run"
        yield f"{_write_file(settings, text)} To see the queue: {command}"


def _write_file(path: Path, text: str) -> str:
    try:
        with open(path, "x", encoding="utf-8", opener=_open_private) as file:
            file.write(text)
    except FileExistsError:
        return f"{path} exists and was kept."
    except OSError as error:
        raise _make_write_error(path, error) from None
    return f"{path} was written."


def _make_write_error(path: Path, error: OSError) -> SetupError:
    message = f"{path} cannot be written: {error.strerror}."
    return SetupError(problem("files", message, remedy="Choose another folder."))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _describe_candidate(candidate: Candidate) -> Iterator[str]:
    profile = f"with the profile {candidate.profile}" if candidate.profile else "without a profile"
    yield f"{candidate.sample.name}: {candidate.certainty} a queue, {profile}"
    yield from (f"  because {reason}" for reason in candidate.reasons[:1])
    yield from (
        f"  {'' if reason.startswith('but') else 'and '}{reason}"
        for reason in candidate.reasons[1:]
    )
    yield from (f"  unsure: {doubt}" for doubt in candidate.doubts)
    if candidate.text is not None:
        yield from ("", f"  {candidate.stem}.toml:", *_indent(candidate.text))
    if candidate.profile:
        yield from ("", f"  {candidate.stem}.env:", *_indent(_format_settings(candidate)))
    if len(candidate.jobs) > 1:
        yield from ("", "  Its newest jobs, as jobmon shows them:")
        widths = [max(map(len, column)) for column in zip(*candidate.jobs, strict=True)]
        for row in candidate.jobs:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield f"    {'  '.join(cells).rstrip()}"


def _indent(text: str) -> Iterable[str]:
    return (f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))


def _format_settings(candidate: Candidate, folder: str = ".", key: str | None = None) -> str:
    """The settings for a shell, Docker Compose or systemd; the profile's file is in `folder`."""
    name = candidate.stem
    lines = [f"# Settings for {candidate.sample.name}. In a shell: set -a; . {folder}/{name}.env"]
    if candidate.needs_user:
        lines += [
            "# Add the read-only user that `jobmon init --reader USER` creates:",
            "# mongodb://USER:PASSWORD@HOST/…",
        ]
    settings = {
        "MONGO_URI": candidate.uri,
        "PROFILE": str(candidate.profile).replace("./", f"{folder}/", 1),
        "JOBS_COLLECTION": candidate.sample.collection,
    }
    lines += [f"JOBMON_{name}={quote_shell(value)}" for name, value in settings.items()]
    lines.append("# The secret that signs tokens, at least 32 bytes:")
    lines.append(f"JOBMON_JWT_SECRET_KEY='{key}'" if key else "# JOBMON_JWT_SECRET_KEY=…")
    return "\n".join([*lines, ""])


def has_user(uri: str) -> bool:
    return "@" in re.split(r"[/?]", uri.partition("://")[2])[0]


def strip_uri(uri: str, database: str) -> str:
    """The connection string with this database, without its user and most options.

    If it has a user, `authSource` is this database: there `jobmon init --reader` creates users.
    """
    scheme, hosts = split_uri(uri)
    options = [
        (name, value)
        for name, value in parse_qsl(uri.partition("?")[2])
        if name.lower() in _KEPT_OPTIONS
    ]
    if has_user(uri):
        options = [pair for pair in options if pair[0].lower() != "authsource"]
        options.append(("authSource", database))
    separator = "?" if options else ""
    return f"{scheme}://{hosts}/{database}{separator}{urlencode(options)}"
