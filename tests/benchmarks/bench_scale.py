"""How the operator starts, and takes over, where 20,000 Tasks wait; JSON on the last line.

A real API server holds the Tasks. They wait for a pool without agents, so that only reading and recovering is timed.
`start_20k_s` is from a process's start until it leads, `takeover_20k_s` from the kill of the leader until its standby
leads, `list_20k_s` one consistent list by this project's client. `requests` is what the start asked of the API server.
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from taskdist.core import COMPILED
from taskdist.kube import TASKS, ApiError, Client
from taskdist.local.stack import OperatorProcess, Stack

NAMESPACE = "bench"
ROOT = Path(__file__).resolve().parents[2]
IN_FLIGHT = 32
LEADS_SECONDS = 180.0

Object = dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def manifest(number: int) -> Object:
    return {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": f"t-{number}", "namespace": NAMESPACE},
        "spec": {
            "queue": f"q-{number % 20}",
            "type": f"type-{number % 50}",
            "tenant": f"tenant-{number % 100}",
            "payload": {"number": number, "text": "x" * 200},
        },
    }


def objects() -> list[Object]:
    """Twenty queues of one pool without agents."""
    container = {"name": "agent", "image": "taskdist:local"}
    group = "taskdist.dev/v1alpha1"
    pool: Object = {
        "apiVersion": group,
        "kind": "AgentPool",
        "metadata": {"name": "nobody"},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}},
    }
    queues = [
        {"apiVersion": group, "kind": "TaskQueue", "metadata": {"name": f"q-{n}"}, "spec": {"pools": ["nobody"]}}
        for n in range(20)
    ]
    return [pool, *queues]


async def fill(client: Client, count: int) -> None:
    numbers = iter(range(count))

    async def create() -> None:
        for number in numbers:
            try:
                await client.create(TASKS, manifest(number), NAMESPACE, timeout=60)
            except ApiError as error:
                if not error.is_already_exists:
                    raise
            if number % 2_000 == 0:
                say(f"Tasks created: {number}/{count}")

    await asyncio.gather(*(create() for _ in range(IN_FLIGHT)))


async def timed_list(client: Client, count: int) -> float:
    began = time.perf_counter()
    page = await client.list(TASKS, timeout=60)
    assert len(page.items) == count
    return time.perf_counter() - began


def metrics(operator: OperatorProcess) -> dict[str, float]:
    """Values by name with labels; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def until_it_leads(operator: OperatorProcess, count: int) -> float:
    """When it leads and holds all Tasks, on the monotonic clock."""
    deadline = time.monotonic() + LEADS_SECONDS
    while time.monotonic() < deadline:
        told = metrics(operator)
        now = time.monotonic()
        waiting = sum(value for name, value in told.items() if name.startswith("taskdist_tasks_waiting{"))
        if told.get("taskdist_leader") == 1 and waiting == count:
            return now
        time.sleep(0.02)
    raise AssertionError(f"it does not lead after {LEADS_SECONDS:g} s: {operator.log}")


def requests(operator: OperatorProcess) -> dict[str, int]:
    name = "taskdist_api_requests_total{"
    told = {k[len(name) : -1]: int(v) for k, v in metrics(operator).items() if k.startswith(name)}
    return {k: v for k, v in sorted(told.items()) if 'verb="list"' in k or v > 5}


def measure(stack: Stack, count: int, rounds: int) -> dict[str, Any]:
    starts, takeovers, asked = [], [], {}
    for number in range(rounds):
        began = time.monotonic()
        leader = stack.start_operator(f"first-{number}")
        starts.append(until_it_leads(leader, count) - began)
        asked = requests(leader)
        say(f"start {number + 1}/{rounds}: {starts[-1]:.2f} s")
        standby = stack.start_operator(f"second-{number}")
        leader.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        takeovers.append(until_it_leads(standby, count) - killed)
        say(f"takeover {number + 1}/{rounds}: {takeovers[-1]:.2f} s")
        standby.stop()
        leader.process.wait()
    return {
        "start_20k_s": round(statistics.median(starts), 2),
        "start_20k_s_most": round(max(starts), 2),
        "takeover_20k_s": round(statistics.median(takeovers), 2),
        "takeover_20k_s_most": round(max(takeovers), 2),
        "tasks": count,
        "rounds": rounds,
        "requests": asked,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as directory:
        stack = Stack.local(Path(directory), ROOT)
        try:
            stack.up(say)
            stack.kubectl("create", "namespace", NAMESPACE)
            stack.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(objects()))
            stack.operators[0].stop()

            async def prepare() -> float:
                async with Client.connect(stack.kubeconfig) as client:
                    await fill(client, options.tasks)
                    return statistics.median([await timed_list(client, options.tasks) for _ in range(3)])

            listed = asyncio.run(prepare())
            figures = measure(stack, options.tasks, options.rounds)
        finally:
            stack.down()
    print(json.dumps({"list_20k_s": round(listed, 2), **figures, "core": "compiled" if COMPILED else "plain"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
