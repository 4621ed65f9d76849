"""Run the real Celery until its MongoDB backend has stored a result in each state.

    python celery_app.py URI EXTENDED

It sends the tasks, waits for their results, and prints JSON: the task ids by case. It ends while
`run` and `progress` are still running. Messages stay in the memory of this process. Results are
stored in the database of the URI. With EXTENDED=1 a result also has its task's name and arguments.
"""

import json
import os
import sys
import time
from typing import Any

from celery import Celery, Task, chain, group
from celery.app.trace import setup_worker_optimizations
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject

WORKER = "worker-1@shop"
ADA = {"user_id": "ada", "api_key": "hidden"}

app = Celery("shop", set_as_current=True)
app.conf.update(
    broker_url="memory://",
    result_backend=sys.argv[1],
    result_extended=sys.argv[2] == "1",
    task_track_started=True,
)


@app.task(name="add")
def add(a: int, b: int, **_: Any) -> int:
    return a + b


@app.task(name="refuse")
def refuse(**_: Any) -> None:
    raise ValueError("The bank refused.", 402)


@app.task(name="retry", bind=True, max_retries=2)
def retry(self: Task, **_: Any) -> None:
    raise self.retry(exc=TimeoutError("The bank did not answer."), countdown=3_600)


@app.task(name="recover", bind=True, max_retries=1, default_retry_delay=0)
def recover(self: Task, **_: Any) -> str:
    if not self.request.retries:
        raise self.retry(exc=TimeoutError("The bank did not answer."))
    return "recovered"


@app.task(name="run")
def run(**_: Any) -> None:
    time.sleep(600)


@app.task(name="progress", bind=True)
def progress(self: Task, **_: Any) -> None:
    self.update_state(state="PROGRESS", meta={"done": 3, "of": 10})
    time.sleep(600)


@app.task(name="ignore")
def ignore(**_: Any) -> None:
    raise Ignore


@app.task(name="reject")
def reject(**_: Any) -> None:
    raise Reject("Not for us.")


@app.task(name="forget", ignore_result=True)
def forget(**_: Any) -> None:
    pass


def send_tasks() -> dict[str, str]:
    """Send the tasks of all cases and wait for their results. Return the task ids by case."""
    results = {
        "add": add.delay(2, 3, **ADA),
        "refuse": refuse.delay(**ADA),
        "retry": retry.delay(**ADA),
        "recover": recover.delay(user_id="bob"),
        "run": run.delay(**ADA),
        "progress": progress.delay(user_id="bob"),
        "ignore": ignore.delay(),
        "reject": reject.delay(),
        "forget": forget.delay(),
        "expired": add.apply_async((1, 1), expires=-1),
    }
    group_result = group(add.s(1, 1), add.s(2, 2)).delay()
    results["first of a group"], results["second of a group"] = group_result
    results["end of a chain"] = chain(add.s(1, 1), add.s(2)).delay()
    results["start of a chain"] = results["end of a chain"].parent
    group_result.save()
    unfinished = {"retry": "RETRY", "run": "STARTED", "progress": "PROGRESS", "ignore": "STARTED"}
    for name, result in results.items():
        while name in unfinished and result.state != unfinished[name]:
            time.sleep(0.02)
        while name not in unfinished and name != "forget" and not result.ready():
            time.sleep(0.02)
    return {name: result.id for name, result in results.items()}


if __name__ == "__main__":
    setup_worker_optimizations(app, WORKER)  # adds the worker's name to the results
    options: dict[str, Any] = {"pool": "threads", "concurrency": 6, "hostname": WORKER}
    with start_worker(app, perform_ping_check=False, loglevel="WARNING", **options):
        sys.stdout.write(json.dumps(send_tasks()))
        sys.stdout.flush()
        os._exit(0)
