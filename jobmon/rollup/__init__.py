"""Statistics and history whose cost grows with the changes, not with the number of jobs."""
