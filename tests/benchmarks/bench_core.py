"""How fast the core decides with all rules on. Prints progress, then one line of JSON.

A decision is a grant with its events: a Task is submitted, the best waiting one is granted, a running one ends. The
waiting Tasks stay as many as they were, so each cycle works on full indices; the large ones among them have waited long
enough to have agents held for them. `heap_ratio` relates its cost to one heap
push and pop among 100,000 entries in the same process, which carries over between machines: measured slice by slice
right after each other, so that what else the machine does meets both, and the median and quartiles of the slices told.
`growth_*` relate the cost at the large size to that at the small one.
"""

import argparse
import gc
import heapq
import json
import random
import statistics
import sys
import time
import tracemalloc
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from taskdist.api import Phase
from taskdist.controller.collector import settle_collector
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PodSeen, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import (
    ZONE,
    Agent,
    Breaker,
    Budget,
    Match,
    Placement,
    Pool,
    Preference,
    Queue,
    Quota,
    Requirement,
    Route,
    RouteStep,
    Task,
    Timeouts,
    TokenRate,
)

NAMESPACE = "bench"
POOLS = 4
QUEUES = 10
SLOTS = 4
SLICES = 20
TENANTS = tuple(f"t{n}" for n in range(8))
KEYS = 5_000
# Of twenty classes one takes of a rate, one of a number, and one would rather run in a zone.
BUDGETS = {0: (("q0", "tokens", 100),), 1: (("q0", "seats", 1),)}
NEAR = Placement(preferred=(Preference(1, (Requirement(ZONE, "In", frozenset({"a"})),)),))
SKILLS = tuple(frozenset(skills) for skills in ((), (), (), ("gpu",), ("io",), ("gpu", "io")))


class Load:
    """A stream of Tasks in many classes: queues, types, skills, sizes and priorities mixed by a fixed seed."""

    def __init__(self, classes: int) -> None:
        self._random = random.Random(7)
        self._classes = [
            (n, f"q{n % QUEUES}", f"type{n}", self._random.choice(SKILLS), self._random.choice((1, 1, 1, 1, 2)))
            for n in range(classes)
        ]
        self._made = 0

    @property
    def now(self) -> float:
        """When the last one came: a thousand come in a second."""
        return self._made * 0.001

    def next(self) -> Task:
        self._made += 1
        number, queue, kind, skills, slots = self._classes[self._random.randrange(len(self._classes))]
        uid = f"{self._made:08x}-0000-4000-8000-000000000000"
        created = self.now
        return Task(
            uid,
            NAMESPACE,
            f"task-{self._made}",
            queue,
            kind,
            created,
            self._random.randrange(5),
            None,
            slots,
            (),
            skills,
            tenant=self._random.choice(TENANTS),
            deadline=created + self._random.uniform(60, 7200) if self._random.random() < 0.5 else None,
            concurrency_key=f"key-{self._random.randrange(KEYS)}" if self._random.random() < 0.2 else None,
            budgets=BUDGETS.get(number % 20, ()),
            placement=NEAR if number % 20 == 2 else None,
        )


def rules(number: int) -> Queue:
    """A queue with every rule on: weights, aging, a route of two steps for what is large; quotas, rates, budgets and
    keys that are asked each time and seldom hold."""
    names = tuple(f"p{n}" for n in range(POOLS))
    large = Route("large", (RouteStep(names[1::2]), RouteStep(names, 5.0)), Match(min_slots=2))
    return Queue(
        NAMESPACE,
        f"q{number}",
        names,
        weight=1 + number % 3,
        critical_path_first=number == 0,
        tenant_weights=tuple((tenant, 1 + at % 4) for at, tenant in enumerate(TENANTS)),
        aging_step=3600.0,
        expected_service=1.0,
        quota=Quota(waiting=1_000_000, leased=100_000, slots=400_000, payload_bytes=1 << 40),
        tenant_quota=Quota(leased=50_000, slots=200_000),
        rate=TokenRate(100_000.0, 100_000),
        tenant_rate=TokenRate(50_000.0, 50_000),
        concurrency_limit=2,
        hold_after=0.5,
        timeouts=Timeouts(waiting=86_400.0),
        routes=(large,),
        budgets=(Budget("tokens", rate=TokenRate(1_000_000.0, 10_000_000)), Budget("seats", 100_000)),
    )


def prepared(waiting: int, agents: int, classes: int) -> tuple[Core, Load, deque[str]]:
    """Return a saturated core with so many waiting Tasks, and the leased ones in the order of their start."""
    core, load = Core(), Load(classes)
    for number in range(POOLS):
        skills = frozenset({"gpu", "io"}) if number % 2 else frozenset({"io"})
        elastic = number == 0
        bounds = (elastic, 0 if elastic else agents, agents)
        labels, target = ((ZONE, "ab"[number // 2]),), 60.0 if elastic else 0.0
        pool = Pool(NAMESPACE, f"p{number}", SLOTS, (), skills, labels, *bounds, breaker=Breaker(), slow_start=30.0)
        pool = replace(pool, target_queue=target)
        core.handle(PoolApplied(pool), 0.0)
    for number in range(QUEUES):
        core.handle(QueueApplied(rules(number)), 0.0)
    for number in range(agents):
        uid, pool_name = f"agent-{number}", f"p{number % POOLS}"
        skills = frozenset({"gpu", "io"}) if number % 2 else frozenset({"io"})
        core.handle(PodSeen(uid, NAMESPACE, uid, pool_name, 0.0), 0.0)
        labels = ((ZONE, "ab"[number % POOLS // 2]),)
        core.handle(AgentReady(Agent(uid, NAMESPACE, uid, pool_name, SLOTS, (), skills, labels=labels)), 0.0)
    leased: deque[str] = deque()
    while True:
        core.handle(TaskWaiting(load.next()), load.now)
        granted = [each.task_uid for each in core.decide(load.now) if isinstance(each, Assign)]
        leased.extend(granted)
        if not granted and sum(count for count, _ in core.queue_counts().values()) > 50:
            break
    for _ in range(waiting - 51):
        core.handle(TaskWaiting(load.next()), load.now)
    leased.extend(each.task_uid for each in core.decide(load.now) if isinstance(each, Assign))
    return core, load, deque(random.Random(3).sample(list(leased), len(leased)))


class Steps:
    """Pushes and pops of one heap."""

    def __init__(self, entries: int = 100_000) -> None:
        self._random = random.Random(1)
        self._heap = [(self._random.random(), number) for number in range(entries)]
        heapq.heapify(self._heap)

    def seconds(self, steps: int) -> float:
        """Return how long a push and a pop take on average, over so many."""
        heap, fresh = self._heap, [(self._random.random(), number) for number in range(steps)]
        begun = time.process_time()
        for entry in fresh:
            heapq.heappush(heap, entry)
            heapq.heappop(heap)
        return (time.process_time() - begun) / steps


class Pace(NamedTuple):
    """Seconds a decision; how many times that of a heap step right after it, over `SLICES` slices of the run."""

    seconds: float
    ratios: list[float]


def pace(waiting: int, agents: int, classes: int, decisions: int) -> Pace:
    core, load, leased = prepared(waiting, agents, classes)
    steps = Steps()
    # As the operator does.
    settle_collector()
    ratios, spent, all_done = [], 0.0, 0
    for _ in range(SLICES):
        tasks = [load.next() for _ in range(2 * decisions // SLICES)]
        done, begun = 0, time.process_time()
        for task in tasks:
            now = task.created
            core.handle(TaskWaiting(task), now)
            core.handle(TaskGone(leased.popleft(), Phase.SUCCEEDED), now)
            for decision in core.decide(now):
                if isinstance(decision, Assign):
                    leased.append(decision.task_uid)
                    done += 1
            if done >= decisions // SLICES:
                break
        took = time.process_time() - begun
        spent, all_done = spent + took, all_done + done
        ratios.append(took / done / steps.seconds(10_000))
    gc.unfreeze()
    problems = core.audit()
    if problems:
        raise SystemExit(f"the core's books are wrong: {problems[:3]}")
    print(f"{waiting} waiting, {agents} agents, {classes} classes: {1e6 * spent / all_done:.1f} µs", file=sys.stderr)
    return Pace(spent / all_done, ratios)


def bytes_per_waiting_task(waiting: int = 20_000) -> float:
    """Bytes of a waiting Task in the core, its own value included."""
    core, load = Core(), Load(1000)
    core.handle(QueueApplied(Queue(NAMESPACE, "q0", ("p0",))), 0.0)
    for _ in range(5_000):
        core.handle(TaskWaiting(load.next()), 0.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(waiting):
        core.handle(TaskWaiting(load.next()), 0.0)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / waiting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000, help="decisions measured per size")
    count = parser.parse_args().decisions
    full = pace(100_000, 1_000, 1_000, count)
    few_waiting = pace(1_000, 1_000, 1_000, count)
    few_agents = pace(100_000, 10, 1_000, count)
    many_agents = pace(100_000, 5_000, 1_000, count)
    low, middle, high = statistics.quantiles(full.ratios, n=4)
    figures = {
        "decisions_per_second": round(1 / full.seconds),
        "heap_ratio": round(middle, 1),
        "heap_ratio_quartiles": [round(low, 1), round(high, 1)],
        "growth_waiting": round(full.seconds / few_waiting.seconds, 2),
        "growth_agents": round(many_agents.seconds / few_agents.seconds, 2),
        "bytes_per_waiting_task": round(bytes_per_waiting_task()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
