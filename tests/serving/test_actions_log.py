"""The log lines about actions at the start of a web service.

Catches a web service that accepts requests for actions, or may change jobs, without a log line.
"""

import logging
from collections.abc import Callable

import pytest

from jobmon.serving import gunicorn_config
from jobmon.settings import Settings


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"actions": True}, ["actions can be requested; owners may request: nothing"]),
        (
            {"actions": True, "owner_actions": ("retry", "cancel")},
            ["actions can be requested; owners may request: retry, cancel"],
        ),
        (
            {"actor_mongo_uri": "mongodb://actor:secret-7f@127.0.0.1/shop"},
            [
                "JOBMON_ACTOR_MONGO_URI is set: the web service has the connection string of a "
                "user who may change jobs; set it only in the environment of `jobmon actor`"
            ],
        ),
    ],
    ids=["off", "on", "for owners", "with the actor's user"],
)
def test_start_logs_that_actions_are_on_and_warns_about_the_actors_user(
    make_settings: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    lines: list[str],
) -> None:
    with caplog.at_level(logging.INFO):
        gunicorn_config._log_actions(make_settings(**changes))
    assert [record.getMessage() for record in caplog.records] == lines
