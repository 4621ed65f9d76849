"""The pages: of queues, jobs, types, errors, workers and actions, and the sign-in."""
