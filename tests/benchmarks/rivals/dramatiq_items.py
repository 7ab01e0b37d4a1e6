"""How many items a second dramatiq takes through, on Redis, with each result read back.

As many worker processes as asked for, of one thread each; results kept in Redis. JSON on the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["REDIS"]), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def nothing(number: int) -> None:
    """Do nothing."""


@dramatiq.actor
def millisecond(number: int) -> None:
    time.sleep(0.001)


@dramatiq.actor
def payload(value: dict[str, Any]) -> dict[str, Any]:
    return value


def measure(what: str, count: int) -> float:
    """Return how many seconds it takes from the first item sent to the last result read."""
    actor = broker.get_actor(what)
    items = [{"n": n, "text": f"item {n}"} if what == "payload" else n for n in range(count)]
    begun = time.monotonic()
    sent = dramatiq.group(actor.message(each) for each in items).run()
    results = list(sent.get_results(block=True, timeout=600_000))
    took = time.monotonic() - begun
    assert results == (items if what == "payload" else [None] * count)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("nothing", "millisecond", "payload"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    told = parser.parse_args()
    here = Path(__file__)
    command = [sys.executable, "-m", "dramatiq", here.stem, "-p", str(told.processes), "-t", "1", "--skip-logging"]
    worker = subprocess.Popen(command, cwd=here.parent, stdout=sys.stderr)
    try:
        measure(told.what, 100)  # what the first ones cost is not asked
        took = measure(told.what, told.count)
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"seconds": round(took, 3), "items_per_second": round(told.count / took)}))


if __name__ == "__main__":
    main()
