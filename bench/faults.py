"""Cause faults of the database and of processes under load; check answers and measure recovery.

    .venv/bin/python -m bench.faults                  # all faults, about twenty minutes
    .venv/bin/python -m bench.faults kill freeze      # some of them

Exits with 1 if an answer was wrong, or if a job was lost or duplicated.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from tests.support.faults import (
    ReplicaSet,
    SystemUnderLoad,
    await_full_count,
    check_nothing_lost,
    system_under_load,
)
from tests.support.processes import child_processes

# A fault puts callbacks on the stack that repair the damage after the measurement.
Fault = Callable[[SystemUnderLoad, ExitStack], None]
JOBS_A_SECOND = 12  # two workers can finish these jobs, even if they are often killed
DRAINS_WITHIN_S = 600
SMALL_DISK_MIB = 600
rng = random.Random()  # noqa: S311 - chooses what to kill next


def kill_primary(system: SystemUnderLoad, repairs: ExitStack) -> None:
    """Kills the primary."""
    member = system.servers.await_primary()
    system.servers.kill(member)
    repairs.callback(system.servers.start, member)


def step_down(system: SystemUnderLoad, _: ExitStack) -> None:
    """Makes the primary step down."""
    system.servers.step_down()


def freeze_primary(system: SystemUnderLoad, repairs: ExitStack) -> None:
    """Freezes the primary for 20 s."""
    member = system.servers.await_primary()
    os.kill(member.pid, signal.SIGSTOP)
    thaw_at = time.monotonic() + 20
    repairs.callback(os.kill, member.pid, signal.SIGCONT)
    repairs.callback(lambda: time.sleep(max(0.0, thaw_at - time.monotonic())))


def freeze_all(system: SystemUnderLoad, _: ExitStack) -> None:
    """Freezes all members for 20 s."""
    for member in system.servers.members:
        os.kill(member.pid, signal.SIGSTOP)
    time.sleep(20)
    for member in system.servers.members:
        os.kill(member.pid, signal.SIGCONT)


def kill_all(system: SystemUnderLoad, _: ExitStack) -> None:
    """Kills all members and starts them after a minute."""
    for member in system.servers.members:
        system.servers.kill(member)
    time.sleep(60)
    system.servers.start(*system.servers.members)


def fill_disk(system: SystemUnderLoad, repairs: ExitStack) -> None:
    """Fills the primary's disk until the primary dies. Needs root: it mounts a small disk."""
    member = system.servers.members[0]
    while system.servers.await_primary() is not member:
        system.servers.step_down()
        system.servers.await_all()
    filler = member.data / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    os.waitid(os.P_PID, member.pid, os.WEXITED | os.WNOWAIT)
    repairs.callback(system.servers.start, member)
    repairs.callback(filler.unlink)
    repairs.callback(system.servers.kill, member)


@contextmanager
def mounted_small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system in memory at this folder."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m"]
    subprocess.run(["mount", *options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def kill_processes(system: SystemUnderLoad, _: ExitStack) -> None:
    """Kills a gunicorn worker, the collector or a queue worker every 0.5 to 2 s."""
    until, killed = (
        time.monotonic() + system.kill_for_s,
        dict.fromkeys(("web", "collector", "queue"), 0),
    )
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.5, 2))
        kind = rng.choice(tuple(killed))
        killed[kind] += 1
        if kind == "web":
            os.kill(rng.choice(child_processes(system.web.process.pid)), signal.SIGKILL)
        elif kind == "collector":
            system.restart_collector()
        else:
            system.writers.replace_worker(rng.randrange(len(system.writers.workers)))
    print(f"killed: {killed}", flush=True)


FAULTS: dict[str, Fault] = {
    "step_down": step_down,
    "kill": kill_primary,
    "freeze": freeze_primary,
    "all_frozen": freeze_all,
    "all_down": kill_all,
    "disk_full": fill_disk,
    "processes": kill_processes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600, help="how long to kill processes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    faults = arguments.faults
    if "disk_full" in faults and os.geteuid() != 0:
        print("disk_full is skipped: it needs root", flush=True)
        faults.remove("disk_full")
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with (
            mounted_small_disk(folder / "mongod" / "0") if "disk_full" in faults else nullcontext(),
            ReplicaSet(folder / "mongod") as servers,
            system_under_load(
                servers, folder, viewer_count=arguments.viewers, jobs_per_second=JOBS_A_SECOND
            ) as system,
        ):
            system.kill_for_s = arguments.seconds
            results = [measure(system, name) for name in faults]
            system.servers.await_all()
            system.writers.drain(DRAINS_WITHIN_S)
            stats, metrics = await_full_count(system.port, system.token, system.writers)
            print("final counts:", check_nothing_lost(system.writers, stats, metrics), flush=True)
            return 0 if all(results) else 1


def measure(system: SystemUnderLoad, name: str) -> bool:
    """Cause one fault and print its results; returns whether every answer was correct."""
    system.servers.await_all()
    system.viewers.take_results()
    began = time.monotonic()
    with ExitStack() as repairs:
        FAULTS[name](system, repairs)
        system.servers.await_primary()
        took_s = time.monotonic() - began
        served_s, counted_s = system.await_recovery()
    answers, longest_s, wrong_answers = system.viewers.take_results()
    print(f"{name}: {FAULTS[name].__doc__}")
    print(
        f"  new primary after {took_s:.1f} s; all requests answered {served_s:.1f} s after that, "
        f"statistics up to date {counted_s:.1f} s after the first majority write"
    )
    for key in sorted(answers):
        print(f"  {answers[key]:6d} x {key}, longest {longest_s[key]:.2f} s")
    for line in wrong_answers[:5]:
        print(f"  WRONG: {line}")
    print(flush=True)
    system.check_all_threads_answer(2, 8)
    return not wrong_answers


if __name__ == "__main__":
    sys.exit(main())
