"""jobmon: a read-only monitor and admin API for a job queue kept in MongoDB."""

__version__ = "0.1.0"  # pyproject.toml reads it; a checkout works uninstalled
