"""Serves the app with gunicorn: its configuration, and a worker that slow clients cannot hold."""
