"""The settings: from the environment, and from a file that lists several queues."""

from jobmon.settings.environment import (
    ADMIN_DASHBOARD,
    MistakePlace,
    Settings,
    SettingsError,
    require_mongo_uri,
)
from jobmon.settings.mapping import MAPPING_SETTINGS
from jobmon.settings.queues import load_queues, select_queues

__all__ = [
    "ADMIN_DASHBOARD",
    "MAPPING_SETTINGS",
    "MistakePlace",
    "Settings",
    "SettingsError",
    "load_queues",
    "require_mongo_uri",
    "select_queues",
]
