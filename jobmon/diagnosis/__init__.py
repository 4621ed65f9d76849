"""Conclusions about a queue, its jobs, errors and workers: pure functions, and one reader."""
