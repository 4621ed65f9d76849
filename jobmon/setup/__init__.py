"""`jobmon init` and `jobmon check`: prepare a deployment for jobmon, and find what is missing."""
