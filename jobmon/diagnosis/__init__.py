"""Conclusions from what is known of a queue, its jobs, errors and workers: pure functions."""
