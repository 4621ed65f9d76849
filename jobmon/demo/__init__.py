"""A sample queue to look at: a real database, a workload, and the service in front of it."""
