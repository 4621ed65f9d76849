"""Database and process faults under load, for minutes: what was answered, how soon all was right.

    .venv/bin/python -m bench.faults                  # everything, some twenty minutes
    .venv/bin/python -m bench.faults kill freeze      # some of it

Ends with 1 if an answer was wrong, or if anything was lost or doubled.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.faults import ReplicaSet, Scene, await_counted, children, compare, scene

# What must be undone after the recovery goes on the stack.
Fault = Callable[[Scene, ExitStack], None]
A_SECOND = 12  # jobs: what two workers can do between a hundred deaths
DRAINS_WITHIN_S = 600
chance = random.Random()  # noqa: S311 - what to kill next


def kill(stage: Scene, after: ExitStack) -> None:
    """The primary is killed."""
    member = stage.servers.await_primary()
    stage.servers.kill(member)
    after.callback(stage.servers.start, member)


def step_down(stage: Scene, _: ExitStack) -> None:
    """The primary steps down."""
    stage.servers.step_down()


def freeze(stage: Scene, after: ExitStack) -> None:
    """The primary is frozen for 20 s."""
    member = stage.servers.await_primary()
    os.kill(member.pid, signal.SIGSTOP)
    thaw_at = time.monotonic() + 20
    after.callback(os.kill, member.pid, signal.SIGCONT)
    after.callback(lambda: time.sleep(max(0.0, thaw_at - time.monotonic())))


def all_frozen(stage: Scene, _: ExitStack) -> None:
    """All members are frozen for 20 s."""
    for member in stage.servers.members:
        os.kill(member.pid, signal.SIGSTOP)
    time.sleep(20)
    for member in stage.servers.members:
        os.kill(member.pid, signal.SIGCONT)


def all_down(stage: Scene, _: ExitStack) -> None:
    """All members are killed, and gone for a minute."""
    for member in stage.servers.members:
        stage.servers.kill(member)
    time.sleep(60)
    stage.servers.start(*stage.servers.members)


def processes(stage: Scene, _: ExitStack) -> None:
    """Every second or so a gunicorn worker, the collector or a queue worker is killed."""
    until, killed = (
        time.monotonic() + stage.seconds,
        dict.fromkeys(("web", "collector", "queue"), 0),
    )
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.5, 2))
        kind = chance.choice(tuple(killed))
        killed[kind] += 1
        if kind == "web":
            os.kill(chance.choice(children(stage.web.process.pid)), signal.SIGKILL)
        elif kind == "collector":
            stage.restart_collector()
        else:
            stage.writers.replace(chance.randrange(len(stage.writers.workers)))
    print(f"killed: {killed}", flush=True)


FAULTS: dict[str, Fault] = {
    "step_down": step_down,
    "kill": kill,
    "freeze": freeze,
    "all_frozen": all_frozen,
    "all_down": all_down,
    "processes": processes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600, help="of killing processes")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        with (
            ReplicaSet(folder / "mongod") as servers,
            scene(servers, folder, viewers=arguments.viewers, a_second=A_SECOND) as stage,
        ):
            stage.seconds = arguments.seconds
            right = [measure(stage, name) for name in arguments.faults]
            stage.servers.await_all()
            stage.writers.drain(DRAINS_WITHIN_S)
            stats, metrics = await_counted(stage.port, stage.token, stage.writers)
            print("at the end:", compare(stage.writers, stats, metrics), flush=True)
            return 0 if all(right) else 1
    finally:
        shutil.rmtree(folder)


def measure(stage: Scene, name: str) -> bool:
    """One fault, and how it went; whether no answer was wrong."""
    stage.servers.await_all()
    stage.viewers.take()
    began = time.monotonic()
    with ExitStack() as after:
        FAULTS[name](stage, after)
        stage.servers.await_primary()
        took_s = time.monotonic() - began
        served_s, figures_s = stage.recovery()
    answers, longest_s, wrong = stage.viewers.take()
    print(f"{name}: {FAULTS[name].__doc__}")
    print(
        f"  a primary after {took_s:.1f} s; served {served_s:.1f} s after that, figures right "
        f"{figures_s:.1f} s after a majority took writes"
    )
    for key in sorted(answers):
        print(f"  {answers[key]:6d} x {key}, the longest {longest_s[key]:.2f} s")
    for said in wrong[:5]:
        print(f"  WRONG: {said}")
    print(flush=True)
    stage.every_thread_answers(2, 8)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
