"""What is to happen in one history: the rules of its queue, its size, and its faults. All of it follows from a seed."""

import random
from dataclasses import dataclass, field
from typing import Any

from faults import shared
from faults.shared import Shared
from faults.trouble import FAULTS as TROUBLE
from taskdist.api import Delivery, Dispatch, OnExhausted, OnOverflow, Reclaim

FAULTS = (
    "cut",
    "cut",
    "slow_link",
    "slow_link",
    "freeze",
    "freeze",
    "operator_crash",
    "partition",
    "lost_answers",
    "lost_answers",
    "slow_writes",
    "agent_crash",
    "pod_death",
    "pod_deleted",
    "suspend_machine",
    "cancel",
    "suspend",
    "delete",
    "priority",
    "slow_hello",
    "slow_watch",
    "step_down",
    "lower_size",
    "redrive",
)


# How many of the histories have Tasks that share something.
SHARE = 0.15
# How many have faults of this kind beside the others.
SHIPPED = 0.04
USABLE = 0.3
TROUBLED = 0.12


@dataclass(slots=True)
class Plan:
    """Times in seconds of virtual time. `faults` are (time, kind, how long)."""

    tasks: int = 1
    pods: int = 2
    slots: int = 1
    operators: int = 2
    dispatch: Dispatch = Dispatch.STRICT
    reclaim: Reclaim = Reclaim.LEASE
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    fenced: bool = True
    failing: bool = True  # handlers may fail
    long_work: float = 0.3  # share of work that outlasts a lease
    longest: float = 14.0
    stubborn: float = 0.3  # share of work that ignores a request to stop
    elastic: bool = False
    faults: list[tuple[float, str, float]] = field(default_factory=list)
    gentle: bool = False  # nothing happens that may cost an attempt
    on_exhausted: OnExhausted = OnExhausted.FAIL
    agent_deaths: int = 3
    execution: float | None = None  # limits of an attempt, in seconds
    progress: float | None = None
    waiting: float | None = None  # longest time to the first start
    overflow: OnOverflow | None = None  # what becomes of a second Task that waits
    talkative: float = 0.5  # share of work that reports progress
    letters: float = 0.6  # how often the owner of a dead letter redrives or cancels it
    fateful: float = 0.0  # how often a Task that waits is ended or moved
    shared: Shared | None = None  # what its Tasks share
    shipped: bool = False  # the timings that are shipped
    arrays: bool = False  # most Tasks stand for many items
    usable: bool = False  # at the end each agent that lives takes work
    stale_lists: bool = False  # the mutant of recovery: lists as a cache would show them

    @property
    def devices(self) -> int:
        return 0 if self.shared is None else self.shared.devices

    def has(self, *kinds: str) -> bool:
        """Whether a fault of one of these kinds is drawn."""
        return any(kind in kinds for _, kind, _ in self.faults)

    @property
    def faultless(self) -> bool:
        return not self.faults


# Not both: an agent that is cut off cannot be told to hold.
GENTLE = (("cut", "slow_watch", "priority"), ("step_down", "slow_watch", "priority"))


def make_plan(seed: int, kinds: tuple[str, ...] = FAULTS, least: int = 0, **fixed: object) -> Plan:
    """Draw a plan. `fixed` sets fields, so that a history leans towards one part of the protocol."""
    rng = random.Random(seed * 7919 + 1)
    plan = Plan(
        tasks=rng.choice((1, 1, 2, 3)),
        pods=rng.choice((1, 2, 2, 3)),
        slots=rng.choice((1, 1, 2)),
        elastic=rng.random() < 0.15,
    )
    draw = rng.random()
    if draw < 0.18:
        plan.dispatch = Dispatch.LAZY
    elif draw < 0.30:
        plan.delivery = Delivery.AT_MOST_ONCE
    draw = rng.random()
    if draw < 0.15:
        plan.reclaim = Reclaim.CONFIRMED
        plan.fenced = rng.random() < 0.5
    elif draw < 0.25:
        plan.reclaim = Reclaim.FAST
    if rng.random() < 0.35:
        plan.on_exhausted, plan.agent_deaths = OnExhausted.DEAD_LETTER, rng.choice((1, 2, 3))
    if rng.random() < 0.25:
        plan.execution = rng.choice((None, 1.0, 2.0, 5.0))
        plan.progress = rng.choice((None, 1.0, 3.0))
    if rng.random() < 0.15:
        plan.waiting, plan.overflow = rng.choice((None, 0.5, 3.0)), rng.choice((None, *OnOverflow))
    elif rng.random() < 0.2:
        plan.fateful = rng.choice((0.2, 0.5))
    if rng.random() < 0.12 and kinds is FAULTS and not fixed:
        plan.gentle, kinds = True, tuple(kind for kind in rng.choice(GENTLE) if kind in kinds) or kinds
        plan.reclaim, plan.fenced = Reclaim.LEASE, True
    more = random.Random(seed * 104729 + 7)
    if more.random() < SHARE and not fixed and not plan.gentle:
        _share(plan, more)
    for _ in range(max(least, rng.choice((0, 1, 1, 2, 2, 3, 4)))):
        plan.faults.append((rng.uniform(0.05, 9.0), rng.choice(kinds), rng.choice((0.5, 2.0, 4.0, 8.0, 14.0))))
    if more.random() < SHIPPED and not fixed:
        plan.shipped = True
        if more.random() < 0.5:
            _kill_the_leader(plan, more)
    plan.usable = more.random() < USABLE and not fixed
    if more.random() < TROUBLED and not plan.gentle and kinds is FAULTS and not fixed:
        for _ in range(more.choice((1, 1, 2, 3))):
            kind = more.choice(tuple(TROUBLE))
            plan.faults.append((more.uniform(0.05, 9.0), kind, more.choice((0.5, 2.0, 8.0, 14.0))))
    for name, value in fixed.items():
        setattr(plan, name, value)
    plan.faults.sort()
    return plan


def make_array_plan(seed: int) -> Plan:
    """Draw a plan whose Tasks stand for many items. They share nothing: keys and bounds are of Tasks."""
    plan = make_plan(seed)
    plan.shared, plan.arrays = None, True
    return plan


def draw_array(rng: random.Random) -> dict[str, Any]:
    """Draw spec.array; one Task in five is none."""
    if rng.random() < 0.2:
        return {}
    count = rng.choice((1, 2, 3, 5, 8, 12, 25))
    chunk = {"maxItems": rng.choice((1, 2, 3, 5, 10)), "targetSeconds": rng.choice((0.5, 5.0, 60.0))}
    array: dict[str, Any] = {"count": count, "chunk": chunk}
    if rng.random() < 0.4:
        array["parallelism"] = rng.choice((1, 2, 3))
    if rng.random() < 0.3:
        array["completions"] = rng.randint(1, count)
    return array


def _kill_the_leader(plan: Plan, rng: random.Random) -> None:
    """One leader is killed, and nothing else happens that may cost an attempt: with what is shipped, that does not."""
    plan.gentle, plan.reclaim, plan.fenced, plan.shared = True, Reclaim.LEASE, True, None
    plan.long_work, plan.longest = 0.8, 40.0
    plan.faults = [(rng.uniform(1.0, 9.0), "operator_crash", rng.choice((0.5, 4.0)))]
    if rng.random() < 0.5:
        plan.faults.append((rng.uniform(0.05, 9.0), rng.choice(("slow_watch", "priority")), 4.0))


def _share(plan: Plan, rng: random.Random) -> None:
    """Its Tasks are more, and share something. Keys are of one queue: no Task moves to another."""
    plan.shared = shared.draw(rng)
    plan.tasks = rng.choice((2, 3, 4, 5))
    plan.overflow, plan.fateful = None, 0.0
    if plan.shared.wide:
        plan.slots = max(2, plan.slots)
    elif plan.shared.devices:
        plan.slots = rng.choice((1, 2, 3))
    if plan.shared.twins:
        plan.on_exhausted = OnExhausted.FAIL  # duplicates wait as long as their original is a dead letter
