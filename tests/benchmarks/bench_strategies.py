"""What a pick costs by each strategy, where many agents have room; JSON on the last line.

Half of all slots are busy, so that nobody waits: a Task is submitted and granted, and one chosen by lot ends. Two pools
of like agents in three zones. The figures are microseconds for all three steps, at 100, 1,000 and 5,000 agents.
"""

import json
import random
import sys
import time
from typing import Any

from taskdist.api import Phase, Strategy
from taskdist.controller.collector import settle_collector
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PodSeen, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import ZONE, Agent, Pool, Queue, Task

NAMESPACE, SLOTS, STEPS, TYPES = "bench", 4, 5_000, 20
SIZES = (100, 1_000, 5_000)


def prepared(strategy: Strategy, agents: int) -> tuple[Core, list[str]]:
    """Return a core with half of its slots busy, and the uids of what runs."""
    core = Core()
    pools = ("p0", "p1")
    for number, name in enumerate(pools):
        cost: dict[str, Any] = {"cost_per_hour": 1.0 + number, "watts_busy": 100.0 + 50 * number, "watts_idle": 40.0}
        core.handle(PoolApplied(Pool(NAMESPACE, name, SLOTS, minimum=agents, maximum=agents, **cost)), 0.0)
    core.handle(QueueApplied(Queue(NAMESPACE, "q", pools, strategy=strategy)), 0.0)
    for number in range(agents):
        uid, pool = f"agent-{number}", pools[number % 2]
        core.handle(PodSeen(uid, NAMESPACE, uid, pool, 0.0), 0.0)
        labels = ((ZONE, "abc"[number % 3]),)
        core.handle(AgentReady(Agent(uid, NAMESPACE, uid, pool, SLOTS, labels=labels)), 0.0)
    running = []
    for number in range(agents * SLOTS // 2):
        core.handle(TaskWaiting(task(number)), 0.0)
        running += [each.task_uid for each in core.decide(0.0) if isinstance(each, Assign)]
    return core, running


def task(number: int) -> Task:
    return Task(f"{number:08x}", NAMESPACE, f"t{number}", "q", f"type{number % TYPES}", number * 0.001)


def microseconds(strategy: Strategy, agents: int) -> float:
    core, running = prepared(strategy, agents)
    chance = random.Random(1)
    settle_collector()
    tasks = [task(1_000_000 + number) for number in range(STEPS)]
    begun = time.process_time()
    for each in tasks:
        core.handle(TaskWaiting(each), each.created)
        granted = [decision.task_uid for decision in core.decide(each.created) if isinstance(decision, Assign)]
        at = chance.randrange(len(running))
        core.handle(TaskGone(running[at], Phase.SUCCEEDED), each.created)
        (running[at],) = granted
    return 1e6 * (time.process_time() - begun) / STEPS


def main() -> None:
    found = {}
    for strategy in Strategy:
        found[strategy.value] = [round(microseconds(strategy, agents), 1) for agents in SIZES]
        print(f"{strategy.value:<16}" + "".join(f"{each:>9.1f} µs" for each in found[strategy.value]), file=sys.stderr)
    print(json.dumps({"agents": SIZES, "microseconds": found}))


if __name__ == "__main__":
    main()
