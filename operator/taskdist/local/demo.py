"""The demo: the main job on real parts, end to end, and a report that a second computation confirms.

Owns the order of things and what is shown. What runs is what users get: the manifests, the operator as its own process
with the chart's rights and nothing more, kubectl, and agents that are pods of an AgentPool.
"""

from __future__ import annotations

import ast
import asyncio
import json
import runpy
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from taskdist.api import Phase
from taskdist.kube import AGENTPOOLS, TASKS, Client, KubeError
from taskdist.local.door import Door
from taskdist.local.stack import DEFINITIONS, Stack, StackError

NAMESPACE = "demo"
QUEUE = POOL = "analysis"
MAX_SOURCE_BYTES = 48 * 1024
# What the Dockerfile's base image has unless told otherwise.
IMAGE_PYTHON = (3, 11)
TIMEOUT_SECONDS = 300.0
# How long after the last Task the pool may take to shrink.
SHRINK_SECONDS = 60.0

Object = dict[str, Any]


class DemoFailed(Exception):
    """The demo did not do what it promises; the message says what and where to look."""


class Size(NamedTuple):
    """How many agents the pool had from a time on, in seconds since the job began."""

    at: float
    replicas: int


@dataclass
class Observed:
    """Observations while the job ran."""

    seconds: float = 0.0
    sizes: list[Size] = field(default_factory=list)

    @property
    def shrank(self) -> bool:
        """Whether the pool has grown, and gone back to less."""
        return self.sizes[-1].replicas < max(size.replicas for size in self.sizes)

    def size(self, at: float, replicas: int) -> None:
        if not self.sizes or self.sizes[-1].replicas != replicas:
            self.sizes.append(Size(at, replicas))


def modules(limit: int, *, root: Path | None = None, portable: bool = False) -> list[Path]:
    """Return source files of this Python's standard library, a spread of `limit` of them, always the same ones.

    `portable` leaves out what only a newer Python than the image's would parse.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
    found = sorted(
        path
        for path in root.rglob("*.py")
        if not skipped & set(path.relative_to(root).parts)
        and path.stat().st_size <= MAX_SOURCE_BYTES
        and not (portable and not _parses(path))
    )
    step = max(1, len(found) // limit)
    return found[::step][:limit]


def _parses(path: Path) -> bool:
    try:
        ast.parse(path.read_bytes(), feature_version=IMAGE_PYTHON)
    except (SyntaxError, ValueError):
        return False
    return True


def manifests(files: Iterable[Path], *, inline: bool) -> list[Object]:
    """Return one Task for each file. `inline` sends the source along, for agents that do not share this disk."""
    tasks = []
    for number, path in enumerate(files):
        payload = {"source": path.read_text("utf-8", "replace")} if inline else {"path": str(path)}
        tasks.append(
            {
                "apiVersion": "taskdist.dev/v1alpha1",
                "kind": "Task",
                "metadata": {"name": f"analyse-{number:03d}", "namespace": NAMESPACE},
                "spec": {"queue": QUEUE, "type": "analyse", "payload": payload},
            }
        )
    return tasks


def direct_totals(files: Iterable[Path], agent: Path) -> Counter[str]:
    """Compute the same job here, without any of the parts that the demo shows."""
    analyse = runpy.run_path(str(agent))["analyse_source"]
    return totals(analyse(path.read_bytes()).model_dump() for path in files)


def totals(results: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Add up the numbers of all results."""
    total: Counter[str] = Counter()
    for result in results:
        total.update({k: v for k, v in result.items() if isinstance(v, int)})
    return total


def percentile(values: list[float], share: float) -> float:
    """Return the nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def watch_job(
    kubeconfig: Path | None, count: int, console: Console, check: Callable[[], None]
) -> tuple[list[Object], Observed]:
    """Show progress until all Tasks ended and the pool has shrunk again; return the Tasks and what was seen.

    `check` is called again and again, and raises where it makes no sense to go on.
    """
    observed = Observed()
    started = time.monotonic()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    async with Client.connect(kubeconfig) as client:
        with Progress(*columns, console=console) as bar:
            line = bar.add_task("Tasks", total=count, note="")
            told = 0.0
            while True:
                check()
                elapsed = time.monotonic() - started
                tasks = (await client.list(TASKS, NAMESPACE)).items
                pool = (await client.get(AGENTPOOLS, POOL, NAMESPACE)).get("status") or {}
                phases = Counter((t.get("status") or {}).get("phase", "Pending") for t in tasks)
                observed.size(elapsed, int(pool.get("replicas", 0)))
                ended = sum(phases[p] for p in Phase if p.terminal)
                note = f"{phases[Phase.ASSIGNED]} assigned, {phases[Phase.PENDING]} waiting, "
                note += f"{pool.get('readyReplicas', 0)}/{pool.get('desiredReplicas', 0)} agents"
                bar.update(line, completed=ended, note=note)
                if not console.is_terminal and elapsed - told >= 5:
                    told = elapsed
                    console.print(f"  {ended}/{count} ended; {note}")
                if ended == count and not observed.seconds:
                    observed.seconds = elapsed
                if ended == count and (observed.shrank or elapsed > observed.seconds + SHRINK_SECONDS):
                    return tasks, observed
                if elapsed > TIMEOUT_SECONDS:
                    raise DemoFailed(
                        f"after {TIMEOUT_SECONDS:.0f} s: {dict(phases)}, pool sizes {observed.sizes}; "
                        f"see `kubectl -n {NAMESPACE} get tq,ap,tk` and the logs"
                    )
                await asyncio.sleep(0.4)


def report(tasks: list[Object], observed: Observed, direct: Counter[str], console: Console) -> bool:
    """Print the tables; return whether every Task succeeded and the totals agree."""
    statuses = [t["status"] for t in tasks]
    phases = Counter(s["phase"] for s in statuses)
    table = Table("phase", "Tasks", title=f"{len(tasks)} Tasks in {observed.seconds:.1f} s")
    for phase, number in phases.most_common():
        table.add_row(phase, str(number))
    console.print(table)
    agents = Counter(s.get("agent") or "none" for s in statuses)
    table = Table("agent", "Tasks", title="by agent")
    for agent, number in sorted(agents.items()):
        table.add_row(agent, str(number))
    console.print(table)
    waits = [_seconds(t["metadata"]["creationTimestamp"], t["status"].get("assignedAt")) for t in tasks]
    known = [w for w in waits if w is not None]
    console.print(
        f"queue time: p50 {percentile(known, 0.5):.2f} s, p99 {percentile(known, 0.99):.2f} s "
        "(creation is stamped in whole seconds)"
    )
    console.print("pool size: " + ", ".join(f"{size} at {at:.1f} s" for at, size in observed.sizes))
    found = totals(s.get("result") or {} for s in statuses)
    table = Table("", "by the agents", "computed directly", title="totals")
    for key in sorted(found | direct):
        table.add_row(key, f"{found[key]:,}", f"{direct[key]:,}")
    console.print(table)
    if phases[Phase.SUCCEEDED] != len(tasks):
        console.print("[red]not every Task succeeded")
        return False
    if found != direct:
        console.print("[red]the totals differ")
        return False
    grew, last = max(size.replicas for size in observed.sizes), observed.sizes[-1].replicas
    if not observed.shrank:
        console.print(f"[red]the pool did not shrink again: it has {last} agents and nothing to do")
        return False
    console.print(f"[green]every Task succeeded, the totals agree; the pool grew to {grew} and shrank to {last}")
    return True


def _seconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def run(stack: Stack, count: int, samples: Path, console: Console) -> bool:
    """Run the job on a stack that is up; True if all is as promised."""
    files = modules(count, portable=not stack.shares_disk)
    agent = samples / "agents" / "analyse.py"
    stack.make_namespace(NAMESPACE)
    stack.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(stack.demo_objects(POOL, QUEUE, agent)))
    wanted = manifests(files, inline=not stack.shares_disk)
    # One of them comes in by HTTP, where the gateway can run beside the rest.
    door, last = (Door(stack, NAMESPACE), wanted.pop()) if stack.shares_disk and len(wanted) > 1 else (None, None)
    console.print(
        f"kubectl apply: a TaskQueue, an AgentPool, and {len(wanted)} Tasks, one for each source file", soft_wrap=True
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as tasks:
        json.dump({"apiVersion": "v1", "kind": "List", "items": wanted}, tasks)
        tasks.flush()
        applying = subprocess.Popen(
            [*stack.kubectl_command, "apply", "-f", tasks.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if door is not None and last is not None:
            door.open({"name": last["metadata"]["name"], **last["spec"]})
            console.print(f"by HTTP: one more, POST {door.url}", soft_wrap=True)
        check = door.check if door is not None else lambda: None
        ended, observed = asyncio.run(watch_job(stack.kubeconfig, len(files), console, check))
        _, problems = applying.communicate()
        if applying.returncode:
            raise DemoFailed(f"kubectl apply failed: {problems.strip()}")
    good = report(ended, observed, direct_totals(files, agent), console)
    if door is not None:
        told = door.answer()
        console.print(f"by HTTP: {told['name']} {told['phase']}, its result {json.dumps(told.get('result'))}")
        good &= told["phase"] == Phase.SUCCEEDED
    return good


def hints(stack: Stack) -> str:
    """What to try on a demo that goes on, and how to end it."""
    command, payload = Path(sys.executable).parent / "taskdist", '{"source": "print(1)"}'
    lines = [
        f"kubectl -n {NAMESPACE} get tq,ap,tk",
        f"kubectl -n {NAMESPACE} describe ap/{POOL} tk/analyse-000",
        f"{command} submit {QUEUE} -n {NAMESPACE} --type analyse --payload '{payload}' --wait",
    ]
    if stack.kubeconfig is not None:
        lines.insert(0, f"export KUBECONFIG={stack.kubeconfig}")
    end = stack.removal or ["make demo-stop"]
    return "\n  ".join(["\nIt goes on running. Try:", *lines]) + "\n  ".join(["\nand to end it:", *end])


def main(directory: Path, *, count: int, keep: bool, cluster: str, image: str, root: Path) -> int:
    """Bring the stack up, run the job, take everything down again. Returns the exit code."""
    console = Console()

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style or None, soft_wrap=True, highlight=False, markup=False)

    if cluster == "current" and ":" not in image.rpartition("/")[2]:
        say(
            "CLUSTER=current needs an image that the cluster has or can pull: build the Dockerfile, push or load it, "
            "and say IMAGE=REPOSITORY:TAG",
            "red",
        )
        return 2
    samples = root / "manifests" / "samples"
    stack = Stack.current(root, image) if cluster == "current" else Stack.local(directory, root)
    # Whoever ends the demo from outside must not leave its processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    good = False
    try:
        stack.up(say)
        good = run(stack, count, samples, console)
        if not good:
            say(_where_to_look(stack))
        elif keep:
            say(hints(stack))
    except (DemoFailed, StackError, KubeError) as error:
        say(f"the demo failed: {error}", "red")
        say(_where_to_look(stack))
    finally:
        if not (keep and good):
            good &= _down(stack, say)
    return 0 if good else 1


def _where_to_look(stack: Stack) -> str:
    return stack.diagnosis(NAMESPACE) or f"logs: {stack.logs}"


def _down(stack: Stack, say: Callable[[str], None]) -> bool:
    brought = stack.removal
    try:
        stack.down()
    except StackError as error:
        say(str(error))
        return False
    if brought:
        say("removed again: " + "; ".join(brought))
        if any(each.startswith("helm") for each in brought):
            say("The resource definitions stay, as Tasks of others would go with them. To remove them:")
            say(f"  kubectl delete crd {' '.join(DEFINITIONS)}")
    return True
