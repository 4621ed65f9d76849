# gunicorn finds this file here, so that `gunicorn wsgi:app` serves jobmon like `jobmon run`.
from jobmon.serving.gunicorn_config import *  # noqa: F403
