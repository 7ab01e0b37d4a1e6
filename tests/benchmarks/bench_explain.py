"""How long an explanation takes where much waits; JSON on the last line.

100,000 waiting Tasks of 1,000 classes, ten queues, four tenants and five levels, 1,000 busy agents. Asked at random,
and of those at the end of the order, where most is to be counted.
"""

import gc
import json
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PodSeen, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import Agent, Pool, Queue, Task

NAMESPACE = "bench"
QUEUES, POOLS, AGENTS, SLOTS, CLASSES, WAITING = 10, 4, 1_000, 4, 1_000, 100_000
TENANTS = tuple((f"tenant{number}", number + 1) for number in range(4))


def prepared(tenants: int = len(TENANTS)) -> tuple[Core, list[Task], float]:
    """Return a core in which all agents are busy and so many Tasks wait, these Tasks, and the time."""
    core, chance, now = Core(), random.Random(7), 0.0
    for number in range(POOLS):
        core.handle(PoolApplied(Pool(NAMESPACE, f"p{number}", SLOTS, maximum=AGENTS)), now)
    for number in range(QUEUES):
        pools = tuple(f"p{(number + each) % POOLS}" for each in range(2))
        core.handle(QueueApplied(Queue(NAMESPACE, f"q{number}", pools, tenant_weights=TENANTS, hold_after=0)), now)
    for number in range(AGENTS):
        uid, pool = f"agent-{number}", f"p{number % POOLS}"
        core.handle(PodSeen(uid, NAMESPACE, uid, pool, now), now)
        core.handle(AgentReady(Agent(uid, NAMESPACE, uid, pool, SLOTS)), now)
    classes = [(f"q{n % QUEUES}", f"type{n}", chance.choice((1, 1, 1, 2))) for n in range(CLASSES)]
    tasks: dict[str, Task] = {}
    for number in range(WAITING + 20_000):
        queue, kind, slots = classes[chance.randrange(CLASSES)]
        now = number * 0.001
        task = Task(f"{number:08x}", NAMESPACE, f"task-{number}", queue, kind, now, chance.randrange(5), slots=slots)
        tasks[task.uid] = replace(task, tenant=TENANTS[chance.randrange(tenants)][0])
        core.handle(TaskWaiting(tasks[task.uid]), now)
    # Enough of them run and end for every class to be known.
    while len(tasks) > WAITING:
        now += 0.5
        for decision in core.decide(now):
            if isinstance(decision, Assign):
                del tasks[decision.task_uid]
                if len(tasks) > WAITING:
                    core.handle(TaskGone(decision.task_uid), now + 0.25)
    core.decide(now)
    return core, list(tasks.values()), now


def milliseconds(core: Core, tasks: Iterable[Task], now: float) -> list[float]:
    found = []
    for task in tasks:
        begun = time.process_time()
        explanation = core.explain(task.uid, now)
        found.append(1e3 * (time.process_time() - begun))
        assert explanation is not None
        assert explanation.position is not None
    return sorted(found)


def main() -> None:
    core, tasks, now = prepared()
    gc.collect()
    gc.freeze()
    chance = random.Random(1)
    anywhere = milliseconds(core, chance.sample(tasks, 200), now)
    last = sorted(tasks, key=lambda task: (task.priority, -task.created))[:50]
    behind = milliseconds(core, last, now)
    whys = []
    for task in chance.sample(tasks, 200):
        begun = time.process_time()
        core.why(task.uid, now)
        whys.append(1e3 * (time.process_time() - begun))
    begun = time.process_time()
    core.waiting_by_reason(now)
    counted = 1e3 * (time.process_time() - begun)
    figures = {
        "explain_p50_ms": round(anywhere[len(anywhere) // 2], 2),
        "explain_max_ms": round(max(anywhere[-1], behind[-1]), 2),
        "why_p50_ms": round(sorted(whys)[100], 3),
        "waiting_by_reason_ms": round(counted, 2),
    }
    print(f"{len(tasks)} waiting in {CLASSES} classes", file=sys.stderr)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
