"""jobmon: a monitor and admin API for job queues kept in MongoDB."""

__version__ = "0.1.0"  # pyproject.toml reads it, so it is known even without an installation
