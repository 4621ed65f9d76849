# gunicorn reads this file by itself, so that a bare `gunicorn wsgi:app` is served right.
from jobmon.serving import *  # noqa: F403
