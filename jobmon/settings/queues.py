"""Several queues in one jobmon: the file that JOBMON_QUEUES names.

Each table is one queue, or one queue for each of its `collections`. The first is the default queue:

    [payouts]
    profile = "agenda"
    collection = "payoutJobs"
    permission = "PAYOUTS"
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from jobmon.mongo_uri import check_mongo_uri
from jobmon.profiles import FileError, ProfileFile, load_profile, shipped_profiles
from jobmon.profiles.schema import TomlMistakeError, load_schema, load_toml, read_file
from jobmon.settings.actions import ACTION_PERMISSIONS
from jobmon.settings.environment import Settings
from jobmon.settings.links import LinkTemplate, check_hidden_fields, make_links
from jobmon.settings.mistakes import SettingsError
from jobmon.settings.role_permissions import ADMIN_DASHBOARD
from jobmon.settings.search_fields import find_search_paths
from jobmon.settings.secret_files import read_variable

# A queue's name is a segment of paths, and a label of metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Table = dict[str, Any]


def load_queues(settings: Settings, *, require_uris: bool = True) -> tuple[Settings, ...]:
    """The settings of each watched queue, the default one first.

    Without JOBMON_QUEUES, there is one queue, which has `settings`. Raises SettingsError with the
    file, and the line of a mistake in it. Without `require_uris`, `mongo_uri` is empty if the
    environment does not have the queue's `uri_variable`.
    """
    if settings.queues is None:
        return (_choose_rules(settings),)
    file = settings.queues
    parse = partial(_parse_queues, settings, Path(file).parent, require_uris=require_uris)
    try:
        schema = load_schema("jobmon.settings", "queues.schema.json")
        queues = load_toml(file, read_file(file), schema, parse)
    except FileError as error:
        raise SettingsError(f"JOBMON_QUEUES: {error}") from None
    _require_known_permissions(settings, queues)
    return tuple(map(_choose_rules, queues))


def _choose_rules(queue: Settings) -> Settings:
    """The settings of a queue with only the rules for this queue."""
    if not queue.rules.by_queue:
        return queue
    return replace(queue, rules=queue.rules.for_queue(queue.queue))


def select_queues(queues: tuple[Settings, ...], name: str) -> tuple[Settings, ...]:
    """The queue `name`, else all queues named `{name}.…`. Raises SettingsError if there is none."""
    for selected in (
        tuple(queue for queue in queues if queue.queue == name),
        tuple(queue for queue in queues if queue.queue.startswith(f"{name}.")),
    ):
        if selected:
            return selected
    names = ", ".join(queue.queue for queue in queues)
    raise SettingsError(f"JOBMON_QUEUES: there is no queue {name}; the queues are: {names}")


def _parse_queues(
    settings: Settings, folder: Path, content: Table, *, require_uris: bool
) -> tuple[Settings, ...]:
    if not content:
        raise TomlMistakeError((), "needs a table for each queue, such as [payouts]")
    queues: dict[str, Settings] = {}
    names_by_jobs: dict[tuple[str, str, str], str] = {}
    for name, table in content.items():
        for queue in _parse_queue(settings, name, table, folder, require_uris=require_uris):
            if queue.queue in queues:
                raise TomlMistakeError((name,), f"a second queue named {queue.queue}")
            jobs = (queue.mongo_uri or queue.uri_setting, queue.jobs_collection, queue.profile)
            if (first_name := names_by_jobs.setdefault(jobs, queue.queue)) != queue.queue:
                message = f"watches the same jobs with the same profile as {first_name}"
                raise TomlMistakeError((name,), message)
            queues[queue.queue] = queue
    return tuple(queues.values())


def _parse_queue(
    settings: Settings, name: str, table: Table, folder: Path, *, require_uris: bool
) -> Iterator[Settings]:
    """The queue of a table, or one for each of its collections."""
    for key, excluded_key in (("uri", "uri_variable"), ("collection", "collections")):
        if key in table and excluded_key in table:
            raise TomlMistakeError((name, excluded_key), f"not together with {key}")
    file = _load_profile(name, table, folder)
    search_fields = tuple(table.get("search_fields", ()))
    try:
        payload = file.parse(table.get("collection", file.collection)).fields.get("payload")
        find_search_paths(search_fields, payload, settings.redact_keys)
    except ValidationError as error:
        raise TomlMistakeError((name, "search_fields"), str(error.messages[0])) from None
    uri, uri_setting = _find_uri(settings, name, table, require_uris=require_uris)
    common = replace(
        settings,
        queue=name,
        mongo_uri=uri,
        uri_setting=uri_setting,
        profile=file.name,
        attempts_collection=table.get("attempts_collection")
        or file.attempts_collection
        or Settings.attempts_collection,
        environment=table.get("environment", settings.environment),
        links=_parse_links(settings, name, table),
        permission=table.get("permission", ADMIN_DASHBOARD),
        owners=table.get("owners", True),
        search_fields=search_fields,
    )
    if "collections" not in table:
        _require_name(name, (name,))
        yield replace(common, jobs_collection=table.get("collection", file.collection))
    for position, collection in enumerate(table.get("collections", ())):
        full_name = f"{name}.{collection}"
        _require_name(full_name, (name, "collections", position))
        yield replace(common, queue=full_name, jobs_collection=collection)


def _load_profile(name: str, table: Table, folder: Path) -> ProfileFile:
    profile = table.get("profile", Settings.profile)
    if profile not in shipped_profiles():
        profile = str(folder / profile)
    try:
        file = load_profile(profile)
    except FileError as error:
        raise TomlMistakeError((name, "profile"), str(error)) from None
    if "attempts_collection" in table and file.attempts_collection is None:
        message = f"the profile {file.name} has no collection of attempts"
        raise TomlMistakeError((name, "attempts_collection"), message)
    return file


def _parse_links(settings: Settings, name: str, table: Table) -> tuple[LinkTemplate, ...]:
    """The links of a queue; by default the links in JOBMON_LINKS."""
    if "links" not in table:
        return settings.links
    try:
        links = make_links(table["links"])
        check_hidden_fields(links, settings.redact_keys)
    except ValidationError as error:
        raise TomlMistakeError((name, "links"), str(error.messages[0])) from None
    return links


def _require_name(name: str, path: tuple[str | int, ...]) -> None:
    if not _NAME.fullmatch(name):
        message = (
            f"{name!r} cannot be the name of a queue: up to 100 letters, digits, '_', '-' and '.', "
            "with a letter or a digit first"
        )
        raise TomlMistakeError(path, message)


def _find_uri(
    settings: Settings, name: str, table: Table, *, require_uris: bool
) -> tuple[str, str]:
    """The connection string of a queue, and where it is set. No error message has the string."""
    if "uri_variable" in table:
        key, source = "uri_variable", str(table["uri_variable"])
        uri = read_variable(source) or ""
        if not uri and require_uris:
            raise TomlMistakeError((name, key), f"the environment has no {source}")
    elif "uri" in table:
        key, source, uri = "uri", f"`uri` of {name} in JOBMON_QUEUES", str(table["uri"])
    else:
        return settings.mongo_uri, settings.uri_setting
    try:
        if uri or require_uris:
            check_mongo_uri(uri)
    except ValidationError as error:
        raise TomlMistakeError((name, key), str(error.messages[0])) from None
    return uri, source


def _require_known_permissions(settings: Settings, queues: tuple[Settings, ...]) -> None:
    known = {ADMIN_DASHBOARD, *ACTION_PERMISSIONS} | {queue.permission for queue in queues}
    granted = frozenset[str]().union(*settings.role_permissions.values())
    if unknown := granted - known:
        raise SettingsError(
            f"JOBMON_ROLE_PERMISSIONS: {', '.join(sorted(unknown))} is no permission; "
            f"the permissions are: {', '.join(sorted(known))}"
        )
