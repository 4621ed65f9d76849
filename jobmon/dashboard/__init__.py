"""The pages about queues, jobs, types, errors, workers, schedules and actions; the sign-in."""
