"""Sums over time in a recorded run: who was busy how long, where, within which window.

Owns the integrals that figures and pictures share. Times in virtual wall-clock seconds. Refuses to judge.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt

from taskdist.simulation.record import AgentLife, Attempt, Record, TaskLife

Interval = tuple[float, float]


def overlap(begin: float, end: float, window: Interval) -> float:
    """Seconds that an interval shares with the window."""
    return max(0.0, min(end, window[1]) - max(begin, window[0]))


def attempts(record: Record) -> Iterator[tuple[TaskLife, Attempt, float]]:
    """Yield each attempt with its end; one that still ran ends with the record."""
    for life in record.tasks:
        for attempt in life.attempts:
            yield life, attempt, record.ended if attempt.end is None else attempt.end


def alive(agent: AgentLife, record: Record) -> Interval | None:
    """The time of an agent from ready to gone; None if it never was ready."""
    if agent.ready is None:
        return None
    return agent.ready, record.ended if agent.gone is None else agent.gone


def paces(agent: AgentLife, end: float) -> list[tuple[float, float, float]]:
    """Stretches of like speed of an agent: begin, end and speed."""
    marks = [*agent.speeds, (end, 0.0)]
    return [(since, until, speed) for (since, speed), (until, _) in pairwise(marks) if until > since]


@dataclass(slots=True)
class Use:
    """The load of an agent within a window: its slots, and those that were busy, in slot-seconds; `work` weighs them by
    speed."""

    agent: AgentLife
    slots: float = 0.0
    busy: float = 0.0
    slots_work: float = 0.0
    busy_work: float = 0.0


def uses(record: Record, window: Interval) -> dict[str, Use]:
    """Return the load of each agent, by its uid."""
    found: dict[str, Use] = {}
    stretches: dict[str, list[tuple[float, float, float]]] = {}
    for agent in record.agents:
        life = alive(agent, record)
        if life is None:
            continue
        use = found[agent.uid] = Use(agent)
        use.slots = agent.slots * overlap(*life, window)
        stretches[agent.uid] = paces(agent, life[1])
        use.slots_work = agent.slots * sum(
            speed * overlap(begin, end, window) for begin, end, speed in stretches[agent.uid]
        )
    for life_, attempt, end in attempts(record):
        if end <= window[0] or attempt.start >= window[1]:
            continue
        use, slots = found[attempt.agent.uid], life_.task.slots
        own = stretches[attempt.agent.uid]
        seconds = overlap(attempt.start, end, window)
        use.busy += slots * seconds
        if len(own) == 1:
            use.busy_work += slots * own[0][2] * seconds
        else:
            span = (max(attempt.start, window[0]), min(end, window[1]))
            use.busy_work += slots * sum(speed * overlap(begin, until, span) for begin, until, speed in own)
    return found


def ratio(part: float, whole: float) -> float | None:
    """Divide a part by its whole; None where there is no whole."""
    return part / whole if whole else None


def variation(loads: Iterable[tuple[float, float]]) -> float | None:
    """Coefficient of variation of agents' busy fractions. Each has what was busy and what there was, in slot-seconds;
    fractions weigh as much as there was."""
    own = [(busy / slots, slots) for busy, slots in loads if slots]
    whole = sum(weight for _, weight in own)
    mean = sum(value * weight for value, weight in own) / whole if whole else 0.0
    if not mean:
        return None
    return sqrt(sum(weight * (value - mean) ** 2 for value, weight in own) / whole) / mean


def windows(window: Interval, length: float) -> list[Interval]:
    """Whole windows of this length, one after the other from the beginning."""
    count = int((window[1] - window[0]) / length + 1e-9)
    return [(window[0] + number * length, window[0] + (number + 1) * length) for number in range(count)]


def busy_by_window(record: Record, cuts: Sequence[Interval]) -> list[dict[str, Use]]:
    """Return for each window, which follow one another, the load of each agent by its uid, without speed."""
    found: list[dict[str, Use]] = [{} for _ in cuts]
    if not cuts:
        return found
    first, length = cuts[0][0], cuts[0][1] - cuts[0][0]

    def touched(begin: float, end: float) -> range:
        return range(max(0, int((begin - first) / length)), min(len(cuts), int((end - first) / length) + 1))

    for agent in record.agents:
        if (life := alive(agent, record)) is not None:
            for number in touched(*life):
                found[number][agent.uid] = Use(agent, agent.slots * overlap(*life, cuts[number]))
    for task, attempt, end in attempts(record):
        for number in touched(attempt.start, end):
            use = found[number].get(attempt.agent.uid)
            if use is not None:
                use.busy += task.task.slots * overlap(attempt.start, end, cuts[number])
    return found


def joined(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals."""
    length, reached = 0.0, -inf
    for begin, end in sorted(intervals):
        length += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return length
