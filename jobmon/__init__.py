"""jobmon: a monitor and admin API for job queues kept in MongoDB."""

__version__ = "0.1.0"  # kept here, so that it is known without an installation
