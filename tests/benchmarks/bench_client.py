"""Tasks submitted and results read back by one client: how many a second, by which requests, at what cost to it.

First `submit_many` and the results of all, then `map`, each of so many Tasks. JSON on the last line.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from taskdist.client import AsyncClient, Submission, SubmittedTask
from taskdist.kube import AGENTPOOLS, Client
from taskdist.local.stack import Stack

NAMESPACE = "bench"
ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "agents" / "of_clients.py"


async def ready(kubeconfig: Path | None, agents: int) -> None:
    async with Client.connect(kubeconfig) as client, asyncio.timeout(240):
        while True:
            status = (await client.get(AGENTPOOLS, "agents", NAMESPACE)).get("status") or {}
            if status.get("readyReplicas") == agents:
                return
            await asyncio.sleep(1)


class Clock:
    """What one part took: time, the client's own CPU, requests."""

    def __init__(self, count: int, asked: Counter[str]) -> None:
        self._count = count
        self._asked = asked
        asked.clear()
        self._began, self._cpu = time.monotonic(), time.process_time()

    def figures(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._began
        return {
            "seconds": round(seconds, 1),
            "per_second": round(self._count / seconds),
            "client_cpu_ms_per_task": round(1000 * (time.process_time() - self._cpu) / self._count, 2),
            "requests": dict(self._asked.most_common()),
        }


async def measure(kubeconfig: Path | None, agents: int, count: int) -> dict[str, Any]:
    await ready(kubeconfig, agents)
    asked: Counter[str] = Counter()
    figures: dict[str, Any] = {"tasks": count}

    def note(verb: str, what: str, outcome: str, seconds: float) -> None:
        asked[f"{verb} {what} {outcome}"] += 1

    async with AsyncClient(namespace=NAMESPACE, kubeconfig=kubeconfig, on_request=note) as client:
        clock = Clock(count, asked)
        made = await client.submit_many([Submission("bench", "echo", {"n": n}) for n in range(count)])
        tasks = [each for each in made if isinstance(each, SubmittedTask)]
        assert len(tasks) == count, next(each for each in made if not isinstance(each, SubmittedTask))
        figures["submit_many"] = clock.figures()
        clock = Clock(count, asked)
        results = await asyncio.gather(*(client.result(each) for each in tasks))
        assert [each["n"] for each in results] == list(range(count))
        figures["results"] = clock.figures()
        print(json.dumps(figures), file=sys.stderr, flush=True)
        del made, tasks, results
        clock = Clock(count, asked)
        seen = [False] * count
        async for done in client.map("bench", "echo", ({"n": n} for n in range(count))):
            seen[done.value["n"]] = True
        assert all(seen)
        figures["map"] = clock.figures()
    # Watches are counted as they end.
    figures["watches"] = {key: number for key, number in asked.items() if key.startswith("watch")}
    figures["client_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as directory:
        stack = Stack.local(Path(directory), ROOT)
        try:
            stack.up(lambda text: print(text, file=sys.stderr, flush=True))
            queue, pool = stack.demo_objects("agents", "bench", AGENT)
            pool["spec"] = {
                "replicas": options.agents,
                "slots": options.slots,
                "template": pool["spec"]["template"],
            }
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(space))
            stack.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all([queue, pool]))
            figures = asyncio.run(measure(stack.kubeconfig, options.agents, options.count))
        finally:
            stack.down()
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
