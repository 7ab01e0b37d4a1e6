"""How even the shares of tenants were that competed: Jain's index over the times when they really did.

Shares say something only while tenants stay backlogged for the same agents at the same level. Those times are found
in the record, and the index of each is weighted by its length (Jain, Chiu, Hawe: A Quantitative Measure of Fairness,
DEC-TR-301, 1984). Refuses to judge shorter times, in which a few Tasks decide.
"""

from collections.abc import Iterable, Mapping

from taskdist.core.agents.filters import need_of
from taskdist.core.fleet.routes import NONE, route_of
from taskdist.core.model import Key, Queue, Task
from taskdist.simulation.gates import Gates
from taskdist.simulation.levels import Levels
from taskdist.simulation.record import Record
from taskdist.simulation.spans import Interval, attempts, joined, overlap

LENGTH = 20
"""How many mean services such a time lasts at least."""
COVER = 0.05
"""The part of the span that all such times make at least; below it there is no index."""

# Tenants compete within a level of a queue for the same agents: those that the same pools and the same filters leave.
Contest = tuple[Key, int, object]


def jain(shares: Iterable[float]) -> float:
    """(Σx)² ÷ (n · Σx²): 1 if all are alike, 1/n if one has all."""
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def fairness(record: Record, window: Interval, levels: Levels, gates: Gates) -> float | None:
    """Return the index within the window, or None if tenants hardly competed. `gates` followed the whole log."""
    if len({life.job.tenant for life in record.tasks}) < 2:
        return None
    durations = [end - attempt.start for _, attempt, end in attempts(record)]
    if not durations or window[1] <= window[0]:
        return None
    least = LENGTH * sum(durations) / len(durations)
    contests: dict[Contest, dict[str, list[Interval]]] = {}
    served: dict[Contest, list[tuple[str, float, float, int]]] = {}
    for life in record.tasks:
        key, agents = life.task.queue_key, _agents(record, life.task)
        for span in gates.spans(life):
            for begin, end, level in levels.steps(life, span):
                waits = contests.setdefault((key, level, agents), {}).setdefault(life.job.tenant, [])
                waits.append((begin, end))
        for attempt in life.attempts:
            end = record.ended if attempt.end is None else attempt.end
            contest = (key, levels(life, attempt.start), agents)
            served.setdefault(contest, []).append((life.job.tenant, attempt.start, end, life.task.slots))
    total = length = 0.0
    covered: list[Interval] = []
    for contest, tenants in contests.items():
        backlogs = {tenant: _merged(waits, window, least) for tenant, waits in tenants.items()}
        for names, period in rivalries(backlogs, least):
            shares = dict.fromkeys(names, 0.0)
            for tenant, begin, end, slots in served.get(contest, ()):
                if tenant in shares:
                    shares[tenant] += slots * overlap(begin, end, period)
            queue = record.queues.get(contest[0])
            seconds = period[1] - period[0]
            total += seconds * jain(shares[tenant] / weight(queue, tenant) for tenant in names)
            length += seconds
            covered.append(period)
    if joined(covered) < COVER * (window[1] - window[0]):
        return None
    return total / length


def weight(queue: Queue | None, tenant: str) -> int:
    """The tenant's weight in the queue."""
    if queue is None:
        return 1
    return dict(queue.tenant_weights).get(tenant, queue.tenant_weight)


def _agents(record: Record, task: Task) -> object:
    queue = record.queues.get(task.queue_key)
    route = route_of(queue, task) if queue is not None else NONE
    names = (
        queue.routes[route].pools if queue is not None and route != NONE else queue.pools if queue is not None else ()
    )
    pools = frozenset((task.pool,) if task.pool is not None else names)
    return pools, need_of(task, queue is not None and queue.allows_unfenced)


def _merged(waits: list[Interval], window: Interval, least: float) -> list[Interval]:
    """Times in which at least one waits, within the window; those that are too short are left out."""
    found: list[Interval] = []
    for begin, end in sorted(waits):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > begin:
            found.append((begin, end))
    inside = [(max(begin, window[0]), min(end, window[1])) for begin, end in found]
    return [(begin, end) for begin, end in inside if end - begin >= least]


def rivalries(backlogs: Mapping[str, list[Interval]], least: float) -> list[tuple[tuple[str, ...], Interval]]:
    """Return every maximal time in which at least two tenants stay backlogged, with all that do.

    Maximal: a longer one would have fewer tenants. Times may overlap; each is given once.
    """
    found: set[tuple[tuple[str, ...], Interval]] = set()
    begins = sorted({begin for spans in backlogs.values() for begin, _ in spans})
    for begin in begins:
        there = sorted(
            ((end, tenant) for tenant, spans in backlogs.items() for since, end in spans if since <= begin < end),
            reverse=True,
        )
        for end in sorted({end for end, _ in there}):
            names = tuple(sorted(tenant for until, tenant in there if until >= end))
            if len(names) < 2 or end - begin < least:
                continue
            # It must begin when the last of them became backlogged, or it could begin earlier with the same.
            latest = max(
                since for tenant in names for since, until in backlogs[tenant] if since <= begin and until >= end
            )
            if latest == begin:
                found.add((names, (begin, end)))
    return sorted(found, key=lambda each: (each[1], each[0]))
