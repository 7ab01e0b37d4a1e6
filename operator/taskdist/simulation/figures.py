"""The figures of a run, computed from its record alone.

Each is defined here once, exactly; the page on the simulator says the same in words. Times in seconds, slots of agents
weighted by the time they lived. Refuses to know which policy made the record.
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any, NamedTuple

from taskdist.core.cost import share
from taskdist.simulation.fairness import fairness, weight
from taskdist.simulation.gates import Gates
from taskdist.simulation.inversions import Checker
from taskdist.simulation.levels import NAMES, Levels
from taskdist.simulation.record import Outcome, Record, TaskLife
from taskdist.simulation.spans import Interval, Use, attempts, busy_by_window, overlap, ratio, uses, variation, windows

WINDOW = 30.0
"""Seconds of the windows over which load variance is taken once more."""

Figures = dict[str, Any]


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value of rank ⌈part · n⌉ among ordered values: the smallest that at least this part of them do not exceed."""
    return ordered[max(0, ceil(part * len(ordered) - 1e-9) - 1)]


def summary(values: Iterable[float]) -> dict[str, float | None]:
    """Mean, percentiles and maximum; all null without values."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    return {
        "mean": sum(ordered) / len(ordered),
        "p50": percentile(ordered, 0.50),
        "p95": percentile(ordered, 0.95),
        "p99": percentile(ordered, 0.99),
        "max": ordered[-1],
    }


def arrival_window(record: Record) -> Interval:
    """From the first arrival to the last: before and after it load is not what the scenario says."""
    if not record.tasks:
        return record.begun, record.begun
    return record.tasks[0].job.created, record.tasks[-1].job.created


def wait(life: TaskLife, record: Record) -> float:
    """First start − created; for a Task that never started, up to its own end or that of the run."""
    until = life.started
    if until is None:
        until = record.ended if life.ended is None else life.ended
    return until - life.job.created


def eligible_wait(life: TaskLife, gates: Gates) -> float:
    """The part of the wait in which no gate held the Task."""
    until = life.started
    return sum(end - begin for begin, end in gates.spans(life) if until is None or end <= until)


class Measured(NamedTuple):
    """What the figures need of one Task. `met` None: it has no deadline."""

    life: TaskLife
    wait: float
    eligible_wait: float
    turnaround: float | None
    met: bool | None


def measured(life: TaskLife, record: Record, gates: Gates) -> Measured:
    """Measure a Task once, for all groups that it is in."""
    done = life.ended if life.outcome is Outcome.COMPLETED else None
    deadline = life.job.deadline
    return Measured(
        life,
        wait(life, record),
        eligible_wait(life, gates),
        None if done is None else done - life.job.created,
        # A deadline and an end that are the same sum of times may differ by rounding.
        None if deadline is None or life.outcome is Outcome.WITHDRAWN else done is not None and done <= deadline + 1e-9,
    )


def of_tasks(tasks: Sequence[Measured]) -> Figures:
    """What is said of all Tasks, and of each group of them.

    Deadline success: results accepted by the deadline ÷ all accepted Tasks that have one, but those that their users
    cancelled; null if there is none.
    """
    due = [each.met for each in tasks if each.met is not None]
    return {
        "tasks": len(tasks),
        "completed": sum(each.turnaround is not None for each in tasks),
        "wait": summary(each.wait for each in tasks),
        "eligible_wait": summary(each.eligible_wait for each in tasks),
        "turnaround": summary(each.turnaround for each in tasks if each.turnaround is not None),
        "deadline_success": ratio(sum(due), len(due)),
        "retries": sum(each.life.retries for each in tasks),
        "dead_lettered": _ended(tasks, Outcome.DEAD_LETTERED),
        "failed": _ended(tasks, Outcome.FAILED),
        "cancelled": _ended(tasks, Outcome.CANCELLED, Outcome.WITHDRAWN),
    }


def _ended(tasks: Sequence[Measured], *outcomes: Outcome) -> int:
    return sum(each.life.outcome in outcomes for each in tasks)


def of_agents(within: Sequence[Use], whole: Sequence[Use], record: Record) -> Figures:
    """How much of the slots was used within a window, and what the agents cost from their pods' making to their end.

    `whole`: the same over the whole run, since energy is drawn then too.
    """
    cost = energy = 0.0
    for use in whole:
        agent = use.agent
        traits = record.traits[agent.pool]
        slots = agent.slots * ((record.ended if agent.gone is None else agent.gone) - agent.born)
        cost += share(slots, agent.slots, traits.cost_per_hour)
        energy += share(use.busy, agent.slots, traits.watts) + share(slots - use.busy, agent.slots, traits.idle_watts)
    return {
        "utilization": ratio(sum(use.busy_work for use in within), sum(use.slots_work for use in within)),
        "slot_utilization": ratio(sum(use.busy for use in within), sum(use.slots for use in within)),
        "cost": cost,
        "energy_wh": energy,
    }


def load_variance(record: Record, found: Sequence[Use]) -> float | None:
    """The coefficient of variation of the agents' busy fractions, in the pool where it is largest."""
    each = [_variation(use for use in found if use.agent.pool == pool) for pool in _pools(record)]
    return max((value for value in each if value is not None), default=None)


def short_load_variance(record: Record, window: Interval) -> float | None:
    """The same within windows of 30 s: the mean over them, in the pool where it is largest."""
    cuts = busy_by_window(record, windows(window, WINDOW))
    worst: list[float] = []
    for pool in _pools(record):
        values = [_variation(use for use in cut.values() if use.agent.pool == pool) for cut in cuts]
        known = [value for value in values if value is not None]
        if known:
            worst.append(sum(known) / len(known))
    return max(worst, default=None)


def _variation(found: Iterable[Use]) -> float | None:
    return variation((use.busy, use.slots) for use in found)


def _pools(record: Record) -> list[str]:
    return [name for _, name in record.pools]


def lost(record: Record) -> int:
    """Accepted Tasks that neither ended nor are known to the scheduler any more, or are known although they ended."""
    unended = sum(life.outcome in (Outcome.WAITING, Outcome.RUNNING) and bool(life.eligible) for life in record.tasks)
    return abs(unended - record.known)


def figures(record: Record) -> Figures:
    """All figures of a run."""
    window = arrival_window(record)
    levels, gates = Levels(record), Gates(record)
    # The checker follows the whole log, and the gates with it: what they say of spans is known after that.
    overtaken = sum(1 for _ in Checker(record, levels, gates).found())
    found = list(uses(record, window).values())
    whole = list(uses(record, (record.begun, record.ended)).values())
    accepted = [measured(life, record, gates) for life in record.tasks if life.eligible]
    overall = of_tasks(accepted)
    agents = of_agents(found, whole, record)
    return {
        "tasks": overall["tasks"],
        "completed": overall["completed"],
        "lost": lost(record),
        "wait": overall["wait"],
        "eligible_wait": overall["eligible_wait"],
        "turnaround": overall["turnaround"],
        "deadline_success": overall["deadline_success"],
        "utilization": agents["utilization"],
        "slot_utilization": agents["slot_utilization"],
        "load_variance": load_variance(record, found),
        "load_variance_30s": short_load_variance(record, window),
        "fairness_jain": fairness(record, window, levels, gates),
        "priority_inversions": overtaken,
        "retries": overall["retries"],
        "dead_lettered": overall["dead_lettered"],
        "failed": overall["failed"],
        "cancelled": overall["cancelled"],
        "cost": agents["cost"],
        "energy_wh": agents["energy_wh"],
        "per_level": _grouped(accepted, lambda life: NAMES[life.task.priority], descending),
        "per_queue": _grouped(accepted, lambda life: life.task.queue),
        "per_tenant": _tenants(accepted, record, window),
        "per_pool": {
            pool: _pool(
                pool,
                [use for use in found if use.agent.pool == pool],
                [use for use in whole if use.agent.pool == pool],
                record,
            )
            for pool in _pools(record)
        },
        "decisions": record.decisions,
        "decisions_per_second": ratio(record.decisions, record.seconds) if record.seconds else None,
        "events": record.events,
        "span_seconds": record.ended - record.begun,
    }


def descending(level: str) -> int:
    """Levels are listed from the highest on."""
    return -NAMES.index(level)


def _grouped(
    tasks: Sequence[Measured], key: Callable[[TaskLife], str], order: Callable[[str], Any] = str
) -> dict[str, Figures]:
    groups: dict[str, list[Measured]] = {}
    for each in tasks:
        groups.setdefault(key(each.life), []).append(each)
    return {name: of_tasks(groups[name]) for name in sorted(groups, key=order)}


def _tenants(tasks: Sequence[Measured], record: Record, window: Interval) -> dict[str, Figures]:
    found = _grouped(tasks, lambda life: life.job.tenant)
    seconds = dict.fromkeys(found, 0.0)
    for life, attempt, end in attempts(record):
        seconds[life.job.tenant] += life.task.slots * overlap(attempt.start, end, window)
    whole = sum(seconds.values())
    for name, each in found.items():
        each["weight"] = _weight(record, name)
        each["slot_seconds"] = seconds[name]
        each["share"] = ratio(seconds[name], whole)
    return found


def _weight(record: Record, tenant: str) -> int | None:
    """The tenant's weight; null if it has several, in queues that weigh it differently."""
    weights = {weight(queue, tenant) for queue in record.queues.values()}
    return weights.pop() if len(weights) == 1 else None


def _pool(name: str, found: Sequence[Use], whole: Sequence[Use], record: Record) -> Figures:
    return {
        "agents": sum(agent.pool == name for agent in record.agents),
        "attempts": sum(attempt.agent.pool == name for life in record.tasks for attempt in life.attempts),
        **of_agents(found, whole, record),
        "load_variance": _variation(found),
    }
