"""The error for a missing or bad setting, with the place where people correct it."""

from enum import StrEnum


class MistakePlace(StrEnum):
    """The place where people have to correct a setting."""

    ENVIRONMENT = "environment"
    QUEUES_FILE = "queues_file"  # the file that JOBMON_QUEUES names
    PROFILE_FILE = "profile_file"
    RULES_FILE = "rules_file"  # the file that JOBMON_RULES names


class SettingsError(Exception):
    """A setting is missing or bad. The message is one line with its name, without any secret."""

    def __init__(self, message: str, place: MistakePlace = MistakePlace.ENVIRONMENT) -> None:
        super().__init__(message)
        self.place = place
