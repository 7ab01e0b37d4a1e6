"""The figures of a run, computed from its record alone.

Each is defined here once, exactly; the page on the simulator says the same in words. Times in seconds, slots of agents
weighted by the time they lived. Refuses to know which policy made the record.
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any

from taskdist.simulation.fairness import fairness
from taskdist.simulation.inversions import Level, inversions, own_priority
from taskdist.simulation.record import Outcome, Record, TaskLife
from taskdist.simulation.spans import Interval, Use, busy_by_window, overlap, ratio, uses, variation, windows

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
    """First start − created; up to the end of the run for a Task that never started."""
    started = life.started
    return (record.ended if started is None else started) - life.job.created


def eligible_wait(life: TaskLife, record: Record) -> float:
    """The part of the wait in which no gate held the Task."""
    until = life.started
    total = 0.0
    for begin, end in life.waits(record.ended):
        total += end - begin
        if until is not None and end >= until:
            break
    return total


def deadline_success(lives: Iterable[TaskLife]) -> float | None:
    """Results accepted by the deadline ÷ all accepted Tasks that have one; null if none has."""
    # A deadline and an end that are the same sum of times may differ by rounding.
    due = [(life, life.job.deadline + 1e-9) for life in lives if life.job.deadline is not None]
    met = sum(
        life.outcome is Outcome.COMPLETED and life.ended is not None and life.ended <= deadline
        for life, deadline in due
    )
    return ratio(met, len(due))


def of_tasks(lives: Sequence[TaskLife], record: Record) -> Figures:
    """What is said of all Tasks, and of each group of them."""
    return {
        "tasks": len(lives),
        "completed": sum(life.outcome is Outcome.COMPLETED for life in lives),
        "wait": summary(wait(life, record) for life in lives),
        "eligible_wait": summary(eligible_wait(life, record) for life in lives),
        "turnaround": summary(
            life.ended - life.job.created
            for life in lives
            if life.outcome is Outcome.COMPLETED and life.ended is not None
        ),
        "deadline_success": deadline_success(lives),
        "retries": sum(life.retries for life in lives),
        "dead_lettered": sum(life.outcome is Outcome.FAILED for life in lives),
    }


def of_agents(within: Sequence[Use], whole: Sequence[Use], record: Record) -> Figures:
    """How much of the slots was used within a window, and what the agents cost from their pods' making to their end.

    `whole`: the same over the whole run, since energy is drawn then too.
    """
    cost = energy = 0.0
    for use in whole:
        agent = use.agent
        traits = record.traits[agent.pool]
        hours = ((record.ended if agent.gone is None else agent.gone) - agent.born) / 3600
        cost += traits.cost_per_hour * hours
        energy += traits.idle_watts * hours + (traits.watts - traits.idle_watts) * use.busy / agent.slots / 3600
    return {
        "utilization": ratio(sum(use.busy_work for use in within), sum(use.slots_work for use in within)),
        "slot_utilization": ratio(sum(use.busy for use in within), sum(use.slots for use in within)),
        "cost": cost,
        "energy_wh": energy,
    }


def load_variance(record: Record, found: Sequence[Use]) -> float | None:
    """The coefficient of variation of the agents' busy fractions, in the pool where it is largest."""
    each = [variation(use for use in found if use.agent.pool == pool) for pool in _pools(record)]
    return max((value for value in each if value is not None), default=None)


def short_load_variance(record: Record, window: Interval) -> float | None:
    """The same within windows of 30 s: the mean over them, in the pool where it is largest."""
    cuts = busy_by_window(record, windows(window, WINDOW))
    worst: list[float] = []
    for pool in _pools(record):
        values = [variation(use for use in cut.values() if use.agent.pool == pool) for cut in cuts]
        known = [value for value in values if value is not None]
        if known:
            worst.append(sum(known) / len(known))
    return max(worst, default=None)


def _pools(record: Record) -> list[str]:
    return [name for _, name in record.pools]


def lost(record: Record) -> int:
    """Accepted Tasks that neither ended nor are known to the scheduler any more, or are known although they ended."""
    unended = sum(life.outcome in (Outcome.WAITING, Outcome.RUNNING) and bool(life.eligible) for life in record.tasks)
    return abs(unended - record.known)


def figures(record: Record, level: Level = own_priority) -> Figures:
    """All figures of a run."""
    window = arrival_window(record)
    found = list(uses(record, window).values())
    whole = list(uses(record, (record.begun, record.ended)).values())
    accepted = [life for life in record.tasks if life.eligible]
    overall = of_tasks(accepted, record)
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
        "fairness_jain": fairness(record, window, level),
        "priority_inversions": len(inversions(record, level)),
        "retries": overall["retries"],
        "dead_lettered": overall["dead_lettered"],
        "cost": agents["cost"],
        "energy_wh": agents["energy_wh"],
        "per_level": _grouped(accepted, record, lambda life: str(level(life, life.job.created)), descending),
        "per_queue": _grouped(accepted, record, lambda life: life.task.queue),
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
    return -int(level)


def _grouped(
    lives: Sequence[TaskLife],
    record: Record,
    key: Callable[[TaskLife], str],
    order: Callable[[str], Any] = str,
) -> Figures:
    groups: dict[str, list[TaskLife]] = {}
    for life in lives:
        groups.setdefault(key(life), []).append(life)
    return {name: of_tasks(groups[name], record) for name in sorted(groups, key=order)}


def _tenants(lives: Sequence[TaskLife], record: Record, window: Interval) -> Figures:
    found = _grouped(lives, record, lambda life: life.job.tenant)
    seconds = dict.fromkeys(found, 0.0)
    for life in lives:
        for attempt in life.attempts:
            end = record.ended if attempt.end is None else attempt.end
            seconds[life.job.tenant] += life.task.slots * overlap(attempt.start, end, window)
    for name, each in found.items():
        each["weight"] = record.tenants.get(name, 1.0)
        each["slot_seconds"] = seconds[name]
        each["share"] = ratio(seconds[name], sum(seconds.values()))
    return found


def _pool(name: str, found: Sequence[Use], whole: Sequence[Use], record: Record) -> Figures:
    return {
        "agents": sum(agent.pool == name for agent in record.agents),
        "attempts": sum(attempt.agent.pool == name for life in record.tasks for attempt in life.attempts),
        **of_agents(found, whole, record),
        "load_variance": variation(found),
    }
