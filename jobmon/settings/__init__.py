"""The settings: from the environment, and from a file that lists several queues."""

from jobmon.settings.environment import Settings, require_mongo_uri
from jobmon.settings.mapping import MAPPING_SETTINGS
from jobmon.settings.mistakes import SettingsError
from jobmon.settings.queues import load_queues, select_queues
from jobmon.settings.role_permissions import ADMIN_DASHBOARD
from jobmon.settings.secret_files import read_variable

__all__ = [
    "ADMIN_DASHBOARD",
    "MAPPING_SETTINGS",
    "Settings",
    "SettingsError",
    "load_queues",
    "read_variable",
    "require_mongo_uri",
    "select_queues",
]
