"""The key that identifies a watched queue in jobmon's own documents."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobmon.settings import Settings
from jobmon.store.profiles import Profile

_MAX_NAME_LENGTH = 80
_DIGEST_LENGTH = 16
SHARDED_CLUSTER = "sharded cluster"


def deployment_name(hello: Mapping[str, Any]) -> str | None:
    """The replica set's name, by a server's reply to `hello`; None for a standalone server.

    A mongos names no set, and only administrators may read the id of its cluster: so all sharded
    clusters have the same name. A deployment with a name has change streams.
    """
    name: str | None = hello.get("setName")
    return SHARDED_CLUSTER if hello.get("msg") == "isdbgrid" else name


def queue_key(deployment: str | None, database: str, settings: Settings, profile: Profile) -> str:
    """A readable name, and a hash of every setting that changes the meaning of the stats.

    `deployment` is the result of `deployment_name`. Users, hosts and the order of settings do not
    change the key; a profile's file is identified by its content. A queue with its own connection
    string is also identified by its name: replica sets of two deployments often share a name.
    """
    jobs = settings.jobs_collection
    mappings: dict[str, Any] = {
        name: {"fields": dict(mapping.paths), "statuses": dict(mapping.statuses)}
        for name, mapping in (("jobs", profile.jobs), ("attempts", profile.attempts))
        if mapping is not None
    }
    identity = {
        "deployment": deployment,
        "database": database,
        "jobs": jobs,
        "attempts": settings.attempts_collection if profile.attempts is not None else None,
        "profile": profile.identity,
        "mappings": mappings,
    }
    if settings.uri_setting != Settings.uri_setting:
        identity["queue"] = settings.queue
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{database}.{jobs}"[:_MAX_NAME_LENGTH] + f"#{digest}"
