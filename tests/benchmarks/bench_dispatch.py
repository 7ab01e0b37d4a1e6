"""Dispatch latency: create-acknowledged → handler started, beside a lone status patch in the same run.

50 agents, 20 Tasks a second. Blocks of Tasks and blocks of lone patches alternate, so that both see the same machine.
Both clocks are this machine's: the handler's own first statement says when it started. JSON on the last line.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from taskdist.core import COMPILED
from taskdist.kube import AGENTPOOLS, TASKS, Client
from taskdist.local.stack import Stack

NAMESPACE = "bench"
ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "agents" / "sample.py"

Object = dict[str, Any]


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def manifest(name: str, queue: str) -> Object:
    return {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"queue": queue, "type": "stamp"},
    }


def objects(stack: Stack, agents: int, slots: int) -> list[Object]:
    queue, pool = stack.demo_objects("agents", "bench", AGENT)
    pool["spec"] = {"replicas": agents, "slots": slots, "template": pool["spec"]["template"]}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, queue, pool]


async def paced(rate: float, count: int, work: Any) -> None:
    """Start `work(i)` at the given rate, whatever the earlier ones do."""
    begin = time.monotonic()
    started = []
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        started.append(asyncio.create_task(work(number)))
    await asyncio.gather(*started)


async def wait_for_agents(client: Client, agents: int) -> None:
    async with asyncio.timeout(240):
        while True:
            status = (await client.get(AGENTPOOLS, "agents", NAMESPACE)).get("status") or {}
            print(f"agents ready: {status.get('readyReplicas', 0)}/{agents}", file=sys.stderr, flush=True)
            if status.get("readyReplicas") == agents:
                return
            await asyncio.sleep(2)


async def measure(kubeconfig: Path | None, agents: int, rate: float, blocks: int, seconds: float) -> dict[str, Any]:
    acknowledged: dict[str, float] = {}
    patches: list[float] = []
    async with Client.connect(kubeconfig) as client:
        await wait_for_agents(client, agents)
        # Nobody serves its queue: it stays Pending, and nobody else writes it.
        await client.create(TASKS, manifest("lone", "nobody"), NAMESPACE)

        for block in range(blocks):

            async def create(number: int, block: int = block) -> None:
                name = f"t-{block}-{number}"
                await client.create(TASKS, manifest(name, "bench"), NAMESPACE)
                acknowledged[name] = time.time()

            async def patch(number: int, block: int = block) -> None:
                began = time.perf_counter()
                body = {"status": {"message": f"{block}-{number}"}}
                await client.patch(TASKS, "lone", body, NAMESPACE, subresource="status")
                patches.append(time.perf_counter() - began)

            count = int(rate * seconds)
            await paced(rate, count, create)
            await paced(rate, count, patch)
            print(f"block {block + 1}/{blocks}", file=sys.stderr, flush=True)
        async with asyncio.timeout(60):
            while True:
                tasks = {t["metadata"]["name"]: t for t in (await client.list(TASKS, NAMESPACE)).items}
                waiting = [n for n in acknowledged if tasks[n]["status"]["phase"] != "Succeeded"]
                if not waiting:
                    break
                await asyncio.sleep(0.5)
    # The first block warms both up.
    latencies = [
        tasks[name]["status"]["result"]["started"] - at
        for name, at in acknowledged.items()
        if not name.startswith("t-0-")
    ]
    patches = patches[len(patches) // blocks :]
    return {
        "dispatch_p50_ms": round(1000 * percentile(latencies, 0.5), 2),
        "dispatch_p99_ms": round(1000 * percentile(latencies, 0.99), 2),
        "lone_patch_p50_ms": round(1000 * percentile(patches, 0.5), 2),
        "lone_patch_p99_ms": round(1000 * percentile(patches, 0.99), 2),
        "ratio_p50": round(percentile(latencies, 0.5) / percentile(patches, 0.5), 2),
        "tasks": len(latencies),
        "agents": agents,
        "rate": rate,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--slots", type=int, default=1, help="of each agent: so many warm processes it has")
    parser.add_argument("--rate", type=float, default=20.0, help="Tasks a second")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskdist-bench-") as directory:
        stack = Stack.local(Path(directory), ROOT)
        try:
            stack.up(lambda text: print(text, file=sys.stderr, flush=True))
            namespace, *rest = objects(stack, options.agents, options.slots)
            stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
            stack.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(rest))
            figures = asyncio.run(
                measure(stack.kubeconfig, options.agents, options.rate, options.blocks, options.seconds)
            )
        finally:
            stack.down()
    # The operator and the agents run from what PYTHONPATH names, as this process does.
    print(json.dumps({**figures, "core": "compiled" if COMPILED else "plain"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
