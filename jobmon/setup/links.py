"""Checks the links from jobs to other systems: whether jobs have the fields that links need."""

from collections.abc import Iterator

from jobmon.humanize import count
from jobmon.settings import Settings
from jobmon.settings.links import PAYLOAD
from jobmon.setup.fields import find_used_paths
from jobmon.setup.findings import Finding, ok, warning
from jobmon.store.connection import Connection


def check_links(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """A warning with the fields that no job of a sample has; nothing if there are no links."""
    if not settings.links:
        return
    paths = _find_paths(settings)
    used = find_used_paths(connection.jobs, paths.values(), require_value=True)
    if unused := [name for name, path in paths.items() if path not in used]:
        yield warning(
            "links",
            f"No job of a sample has a value in {', '.join(unused)}: links that need it have no "
            "address.",
            remedy=f"Correct {settings.describe_setting('links')} if a name is misspelled.",
        )
    else:
        yield ok("links", f"{count(len(settings.links), 'link')} to other systems can be made.")


def _find_paths(settings: Settings) -> dict[str, str]:
    """The path in documents of each payload field in links, by its name; no computed fields."""
    payload = settings.read_profile().parse(settings.jobs_collection).fields.get("payload")
    names = (name for link in settings.links for name in link.fields if name.startswith(PAYLOAD))
    paths = {
        name: payload.find_path(name.removeprefix(PAYLOAD)) if payload is not None else None
        for name in names
    }
    return {name: path for name, path in paths.items() if path is not None}
