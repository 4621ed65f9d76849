"""A sample queue to try jobmon with: a real database, a workload, and the web service."""
