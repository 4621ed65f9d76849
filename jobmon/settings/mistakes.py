"""The error for a setting that is missing or bad, with the place where to correct it."""

from enum import StrEnum


class MistakePlace(StrEnum):
    """The place where a setting has to be corrected."""

    ENVIRONMENT = "environment"
    QUEUES_FILE = "queues_file"  # the file that JOBMON_QUEUES names
    PROFILE_FILE = "profile_file"
    RULES_FILE = "rules_file"  # the file that JOBMON_RULES names


class SettingsError(Exception):
    """A setting is missing or bad. The message is one line that names it, without any secret."""

    def __init__(self, message: str, place: MistakePlace = MistakePlace.ENVIRONMENT) -> None:
        super().__init__(message)
        self.place = place
