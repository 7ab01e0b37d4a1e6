"""What a start costs while a limit holds all others that wait, by kind of limit; JSON on the last line.

Twenty thousand Tasks of eight tenants and five levels wait for one limit; whenever it opens, one starts. The figures
are microseconds for a Task's coming, another one's end and the start, with Tasks of 10 and of 1,000 types.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from taskdist.api import OrderPolicy, Phase
from taskdist.controller.collector import settle_collector
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PodSeen, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import Agent, Budget, Pool, Queue, Quota, Task, TokenRate

NAMESPACE, SLOTS, AGENTS, WAITING, STARTS = "bench", 4, 500, 20_000, 300
TENANTS, LEVELS, TYPES = 8, 5, (10, 1_000)

Fields = dict[str, Any]


class Case(NamedTuple):
    """The queue's limit, what Tasks have because of it, and the seconds after which it opens by time; 0 if never."""

    limit: Fields
    task: Callable[[random.Random], Fields] = lambda chance: {}
    opens: float = 0.0


def some(chance: random.Random) -> Fields:
    return {"budgets": (("q", "b", chance.randrange(400, 600)),)}


CASES = {
    "quota": Case({"quota": Quota(leased=100)}),
    "quota, two slots": Case({"quota": Quota(slots=200)}, lambda chance: {"slots": 2}),
    "tenants' quota": Case({"tenant_quota": Quota(leased=12)}),
    "rate": Case({"rate": TokenRate(10.0, 10)}, opens=0.1),
    "budget held": Case({"budgets": (Budget("b", 100),)}, lambda chance: {"budgets": (("q", "b", 1),)}),
    "budget in time": Case(
        {"budgets": (Budget("b", rate=TokenRate(10.0, 10)),)}, lambda chance: {"budgets": (("q", "b", 1),)}, 0.1
    ),
    "budget held, 200 amounts": Case({"budgets": (Budget("b", 50_000),)}, some),
    "budget in time, 200 amounts": Case({"budgets": (Budget("b", rate=TokenRate(5_000.0, 5_000)),)}, some, 0.1),
    "one key": Case({"concurrency_limit": 100}, lambda chance: {"concurrency_key": "k"}),
    "100 keys": Case({}, lambda chance: {"concurrency_key": f"k{chance.randrange(100)}"}),
    "fifo, quota": Case({"quota": Quota(leased=100), "policy": OrderPolicy.FIFO}),
    "fifo, tenants' quota": Case({"tenant_quota": Quota(leased=12), "policy": OrderPolicy.FIFO}),
}


class Line:
    """A queue with the limit, many agents with room, and the Tasks that come to it."""

    def __init__(self, case: Case, types: int) -> None:
        self._case, self._types, self._chance, self._made = case, types, random.Random(1), 0
        self.core, self.running = Core(), list[str]()
        self.core.handle(PoolApplied(Pool(NAMESPACE, "p", SLOTS, minimum=AGENTS, maximum=AGENTS)), 0.0)
        self.core.handle(QueueApplied(Queue(NAMESPACE, "q", ("p",), **case.limit)), 0.0)
        for number in range(AGENTS):
            uid = f"agent-{number}"
            self.core.handle(PodSeen(uid, NAMESPACE, uid, "p", 0.0), 0.0)
            self.core.handle(AgentReady(Agent(uid, NAMESPACE, uid, "p", SLOTS)), 0.0)
        self.core.decide(0.0)
        for _ in range(WAITING):
            self.core.handle(TaskWaiting(self._task()), 0.0)
        self.start(0.0)

    def _task(self) -> Task:
        self._made += 1
        uid, chance = f"{self._made:08x}", self._chance
        kind, tenant, level = chance.randrange(self._types), chance.randrange(TENANTS), chance.randrange(LEVELS)
        fields = self._case.task(chance)
        slots, created = fields.pop("slots", 1), self._made * 1e-4
        return Task(uid, NAMESPACE, uid, "q", f"type{kind}", created, level, None, slots, tenant=f"t{tenant}", **fields)

    def start(self, now: float) -> int:
        started = [each.task_uid for each in self.core.decide(now) if isinstance(each, Assign)]
        self.running += started
        return len(started)

    def step(self, now: float) -> int:
        """One comes, one ends, and what may starts."""
        self.core.handle(TaskWaiting(self._task()), now)
        if self.running:
            uid = self.running.pop(self._chance.randrange(len(self.running)))
            self.core.handle(TaskGone(uid, Phase.SUCCEEDED), now)
        return self.start(now)


def microseconds(case: Case, types: int) -> float:
    line, started, now = Line(case, types), 0, 1.0
    settle_collector()
    begun = time.process_time()
    while started < STARTS:
        now += case.opens or 0.001
        started += line.step(now)
    taken = time.process_time() - begun
    problems = line.core.audit()
    if problems:
        raise SystemExit(f"the core's books are wrong: {problems[:3]}")
    return 1e6 * taken / started


def main() -> None:
    figures: dict[str, dict[str, int]] = {}
    for name, case in CASES.items():
        figures[name] = {str(types): round(microseconds(case, types)) for types in TYPES}
        print(f"{name}: {figures[name]}", file=sys.stderr)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
