"""How many items a second Celery takes through, on Redis, with each result read back.

One worker of as many processes as asked for (prefork, as it comes), JSON throughout, results kept in Redis. With
`--chunks` items go by its own `chunks`, so many to a message. JSON on the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

from celery import Celery, group

app = Celery("items", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(
    task_serializer="json", result_serializer="json", accept_content=["json"], worker_hijack_root_logger=False
)


@app.task(name="nothing")
def nothing(number: int) -> None:
    """Do nothing."""


@app.task(name="millisecond")
def millisecond(number: int) -> None:
    time.sleep(0.001)


@app.task(name="payload")
def payload(value: dict[str, Any]) -> dict[str, Any]:
    return value


def measure(what: str, count: int, chunk: int) -> float:
    """Return how many seconds it takes from the first item sent to the last result read."""
    task = app.tasks[what]
    items = [({"n": n, "text": f"item {n}"} if what == "payload" else n,) for n in range(count)]
    begun = time.monotonic()
    if chunk:
        results = list(chain.from_iterable(task.chunks(items, chunk).apply_async().get(disable_sync_subtasks=False)))
    else:
        results = group(task.s(*each) for each in items).apply_async().get()
    took = time.monotonic() - begun
    assert results == ([each for (each,) in items] if what == "payload" else [None] * count)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("nothing", "millisecond", "payload"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    told = parser.parse_args()
    here = Path(__file__)
    command = [sys.executable, "-m", "celery", "-A", here.stem, "worker", "-c", str(told.processes), "-l", "ERROR"]
    # What it prints is no part of the answer.
    env = {**os.environ, "C_FORCE_ROOT": "1"}
    worker = subprocess.Popen(command, cwd=here.parent, env=env, stdout=sys.stderr)
    try:
        while not app.control.ping(timeout=1):
            assert worker.poll() is None, "the worker has ended"
        measure(told.what, 100, told.chunks and 10)  # what the first ones cost is not asked
        took = measure(told.what, told.count, told.chunks)
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"seconds": round(took, 3), "items_per_second": round(told.count / took)}))


if __name__ == "__main__":
    main()
