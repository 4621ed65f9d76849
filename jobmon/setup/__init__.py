"""Setting jobmon up: `jobmon init` prepares a deployment, `jobmon check` examines one."""
