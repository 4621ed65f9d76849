"""jobmon: a read-only monitor and admin API for a job queue kept in MongoDB."""

__version__ = "0.1.0"  # here only: pyproject.toml reads it, and a checkout is served uninstalled
