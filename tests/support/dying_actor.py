"""An actor in its own process, which kills itself when it reaches STEP for the COUNT-th time:
`python -m tests.support.dying_actor STEP COUNT`, with the settings in the environment."""

import itertools
import os
import signal
import sys
import time

from jobmon.actor.acting import acting
from jobmon.settings import Settings


def run_until_step(step: str, count: int) -> None:
    """Act until the actor reaches the step for the `count`-th time; with 0, act forever."""
    times_reached = itertools.count(1)

    def die_at_step(reached_step: str) -> None:
        if reached_step == step and next(times_reached) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    with acting(Settings.from_env(require_keys=False), on_step=die_at_step):
        while True:
            time.sleep(1)


if __name__ == "__main__":
    run_until_step(sys.argv[1], int(sys.argv[2]))
