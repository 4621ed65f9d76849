"""The pages: the overview, lists of jobs, single jobs, and the sign-in."""
