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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from tests.support.faults import ReplicaSet, Scene, await_counted, children, compare, scene

# What must be undone after the recovery goes on the stack.
Fault = Callable[[Scene, ExitStack], None]
A_SECOND = 12  # jobs: what two workers can do between a hundred deaths
DRAINS_WITHIN_S = 600
SMALL_DISK_MIB = 600
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


def disk_full(stage: Scene, after: ExitStack) -> None:
    """The primary's disk is full, until that ends it (only as root: it gets a small disk)."""
    member = stage.servers.members[0]
    while stage.servers.await_primary() is not member:
        stage.servers.step_down()
        stage.servers.await_all()
    filler = member.data / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    os.waitid(os.P_PID, member.pid, os.WEXITED | os.WNOWAIT)
    after.callback(stage.servers.start, member)
    after.callback(filler.unlink)
    after.callback(stage.servers.kill, member)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for what will be in this folder."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m"]
    subprocess.run(["mount", *options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
    "disk_full": disk_full,
    "processes": processes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600, help="of killing processes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    faults = arguments.faults
    if "disk_full" in faults and os.geteuid() != 0:
        print("without disk_full: it takes root", flush=True)
        faults.remove("disk_full")
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        with (
            small_disk(folder / "mongod" / "0") if "disk_full" in faults else nullcontext(),
            ReplicaSet(folder / "mongod") as servers,
            scene(servers, folder, viewers=arguments.viewers, a_second=A_SECOND) as stage,
        ):
            stage.seconds = arguments.seconds
            right = [measure(stage, name) for name in faults]
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
