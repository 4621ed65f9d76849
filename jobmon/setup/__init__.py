"""`jobmon init` prepares a deployment for jobmon; `jobmon check` reports what it lacks."""
