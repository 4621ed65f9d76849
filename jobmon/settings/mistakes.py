"""The error for a missing or bad setting."""


class SettingsError(Exception):
    """A setting is missing or bad. The message is one line with its name, without any secret."""
