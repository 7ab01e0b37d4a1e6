"""Items a second from the first one sent to the last result read, beside Celery, its `chunks`, and dramatiq on Redis.

`nothing` and `millisecond` are one array Task each, `payload` is `Client.map` over distinct payloads, whose results are
compared with what was sent. Each system is alone on the same cores while it is measured, with as many worker processes;
rounds alternate, and the last line has medians and spread, as JSON.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from taskdist.client import AsyncClient
from taskdist.core import COMPILED
from taskdist.kube import AGENTPOOLS, TASKS, Client
from taskdist.local.controlplane import free_ports
from taskdist.local.stack import Stack

NAMESPACE, QUEUE = "bench", "bench"
ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "agents" / "of_items.py"
RIVALS = Path(__file__).parent / "rivals"
WORKLOADS = ("nothing", "millisecond", "payload")
OURS, CELERY, CHUNKS, DRAMATIQ = "taskdist", "celery", "celery_chunks", "dramatiq"
# As many items to one of Celery's chunks as one of ours has at most without further words.
CHUNK = 1000
PATIENCE = 1800.0
WARM = 100


@dataclass(frozen=True)
class Plan:
    """How many items of each workload, and by how many worker processes."""

    counts: Mapping[str, int]
    processes: int
    python: Path


Runs = dict[str, dict[str, list[float]]]
"""Items a second by workload and system, one of each round."""


# -- Celery and dramatiq -----------------------------------------------------------------------------------------------


@contextmanager
def redis() -> Iterator[str]:
    """A server of its own, in memory, on loopback; what is yielded is its address."""
    (port,) = free_ports(1)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="taskdist-redis-") as directory:
        process = subprocess.Popen(["redis-server", *options], cwd=directory, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while not _answers(port):
                assert process.poll() is None, "redis-server has ended"
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def rivals(plan: Plan, runs: Runs) -> None:
    """Measure each of the others on each workload."""
    commands = {
        CELERY: ["celery_items.py"],
        CHUNKS: ["celery_items.py", "--chunks", str(CHUNK)],
        DRAMATIQ: ["dramatiq_items.py"],
    }
    for name, (script, *more) in commands.items():
        for what, count in plan.counts.items():
            with redis() as address:
                told = [what, "--count", str(count), "--processes", str(plan.processes), *more]
                ran = subprocess.run(
                    [plan.python, RIVALS / script, *told],
                    env={**os.environ, "REDIS": address, "PYTHONPATH": ""},
                    stdout=subprocess.PIPE,
                    timeout=PATIENCE,
                    check=True,
                )
            note(runs, what, name, count / json.loads(ran.stdout.splitlines()[-1])["seconds"])


# -- ours --------------------------------------------------------------------------------------------------------------


@contextmanager
def stack(processes: int) -> Iterator[Stack]:
    """Control plane, operator, and one agent with so many worker processes."""
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as directory:
        made = Stack.local(Path(directory), ROOT, stays=False)
        try:
            made.up(say)
            queue, pool = made.demo_objects("agents", QUEUE, AGENT)
            pool["spec"] = {"replicas": 1, "slots": processes, "template": pool["spec"]["template"]}
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            made.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(space))
            made.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all([queue, pool]))
            yield made
        finally:
            made.down()


async def ours(kubeconfig: Path | None, plan: Plan, runs: Runs) -> None:
    """Measure ours on each workload."""
    async with Client.connect(kubeconfig) as kube, AsyncClient(namespace=NAMESPACE, kubeconfig=kubeconfig) as client:
        await _agent_is_ready(kube)
        measures: dict[str, Callable[[int], Awaitable[None]]] = {
            "nothing": lambda count: array(kube, "nothing", count),
            "millisecond": lambda count: array(kube, "millisecond", count),
            "payload": lambda count: mapped(client, count),
        }
        for what, count in plan.counts.items():
            await measures[what](WARM)  # what the first ones cost is not asked
            begun = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                await measures[what](count)
            note(runs, what, OURS, count / (time.monotonic() - begun))


async def _agent_is_ready(kube: Client) -> None:
    async with asyncio.timeout(240):
        while True:
            status = (await kube.get(AGENTPOOLS, "agents", NAMESPACE)).get("status") or {}
            if status.get("readyReplicas"):
                return
            await asyncio.sleep(0.5)


async def array(kube: Client, what: str, count: int) -> None:
    """Have so many items run as one Task, and see that each of them succeeded."""
    name = f"{what}-{count}"
    spec = {"queue": QUEUE, "type": what, "array": {"count": count}}
    body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "Task", "metadata": {"name": name}, "spec": spec}
    await kube.create(TASKS, body, NAMESPACE)
    while True:
        status = (await kube.get(TASKS, name, NAMESPACE)).get("status") or {}
        if status.get("phase") not in (None, "Pending", "Assigned"):
            break
        await asyncio.sleep(0.05)
    assert status["phase"] == "Succeeded", status
    assert status["array"]["succeeded"] == f"0-{count - 1}", status["array"]


async def mapped(client: AsyncClient, count: int) -> None:
    """Have a handler give back so many payloads, each another one, and see that it did."""
    payloads = [{"n": number, "text": f"item {number}"} for number in range(count)]
    results = [each.value async for each in client.map(QUEUE, "payload", payloads, ordered=True)]
    assert results == payloads


# -- what is told ------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def note(runs: Runs, what: str, name: str, rate: float) -> None:
    runs[what][name].append(rate)
    say(f"{what} by {name}: {rate:.0f} items a second")


def figures(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Return medians of items that do nothing, then all by workload, with the least and the most of all rounds."""
    told: dict[str, Any] = {}
    for name, key in ((OURS, "items"), (CELERY, CELERY), (CHUNKS, CHUNKS), (DRAMATIQ, DRAMATIQ)):
        if rates := runs["nothing"].get(name):
            told[f"{key}_per_second"] = round(median(rates))
    for what, of in runs.items():
        middle = {name: median(rates) for name, rates in of.items()}
        each = {
            name: {"per_second": round(middle[name]), "least": round(min(rates)), "most": round(max(rates))}
            for name, rates in of.items()
        }
        times: dict[str, float] = {}
        if plain := [middle[name] for name in (CELERY, DRAMATIQ) if name in middle]:
            times["times_the_better_plain_one"] = round(middle[OURS] / max(plain), 2)
        if CHUNKS in middle:
            times["times_celery_chunks"] = round(middle[OURS] / middle[CHUNKS], 2)
        told[what] = each | times
    return told


def main() -> int:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="items that do nothing; a fifth of that of others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(cores), help="for all that runs")
    parser.add_argument("--processes", type=int, default=2, help="that run items")
    parser.add_argument("--python", type=Path, default=ROOT / "build" / "rivals" / "bin" / "python")
    parser.add_argument("--alone", action="store_true", help="measure nobody else")
    options = parser.parse_args()
    if not options.alone and shutil.which("redis-server") is None:
        parser.error("redis-server is missing: install it (Debian: apt-get install redis-server), or use --alone")
    os.sched_setaffinity(0, cores[: options.cores])  # and whatever is started from here
    few = max(1, options.count // 5)
    plan = Plan(dict(zip(WORKLOADS, (options.count, few, few), strict=True)), options.processes, options.python)
    runs: Runs = defaultdict(lambda: defaultdict(list))

    def of_ours() -> None:
        with stack(options.processes) as made:
            asyncio.run(ours(made.kubeconfig, plan, runs))

    def of_others() -> None:
        if not options.alone:
            rivals(plan, runs)

    for number in range(options.rounds):
        for part in (of_ours, of_others) if number % 2 else (of_others, of_ours):
            part()
    given = {"counts": plan.counts, "rounds": options.rounds, "cores": options.cores, "processes": options.processes}
    print(json.dumps({**figures(runs), **given, "core": "compiled" if COMPILED else "plain"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
