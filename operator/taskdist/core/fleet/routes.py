"""Routes: which pools a Task may go to, by which rule, and from when on.

Owns which route a Task takes and how many of its steps are open. A step opens after a wait, or at once when no pool of
the steps before it can grow any more for the Task: such a pool gives it a free slot or none, and a free slot of an
earlier step is step_taken first. So a Task goes on to a later step exactly when nothing before it has room and nothing
before it is going to get more. Opened steps stay open. Refuses to know agents, and to measure the wait.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from taskdist.core.agents.filters import fulfils
from taskdist.core.model import Match, Queue, Route, Task

# The number of the route of a Task that has none.
NONE: Final = -1


def route_of(queue: Queue, task: Task) -> int:
    """Return the number of the first route that the Task matches, `NONE` if there is none."""
    if task.pool is None and task.agent is None:
        labels = dict(task.labels)
        for number, route in enumerate(queue.routes):
            if matches(route.match, task, labels):
                return number
    return NONE


def matches(match: Match, task: Task, labels: dict[str, str]) -> bool:
    """Whether the Task, which carries these labels, takes a route with this match."""
    return (
        (not match.types or task.type in match.types)
        and (not match.levels or task.priority in match.levels)
        and (not match.tenants or task.tenant in match.tenants)
        and task.slots >= match.min_slots
        and (match.max_slots is None or task.slots <= match.max_slots)
        and all(fulfils(requirement, labels) for requirement in match.labels)
    )


def opens_at(route: Route, step: int, since: float) -> float:
    """Return when the step opens to a Task that waits since then, infinity if there is none of that number."""
    if step >= len(route.steps):
        return inf
    at = since
    for each in route.steps[: step + 1]:
        at += each.after
    return at


def reached(route: Route, since: float, now: float) -> int:
    """Return the number of the last step, from 0, that is open to a Task that waits since then."""
    last = 0
    while opens_at(route, last + 1, since) <= now:
        last += 1
    return last


def opened(route: Route, step: int, may_grow: Callable[[str], bool]) -> int:
    """Return how many steps are open to a Task whose wait has opened this one.

    `may_grow(pool)` says whether the pool exists and may yet get an agent that could run it.
    """
    count, judged = step + 1, 0
    while count < len(route.steps):
        while judged < count:
            if any(may_grow(name) for name in route.steps[judged].pools):
                return count
            judged += 1
        count += 1
    return count


def step_taken(route: Route | None, pool: str) -> tuple[str, int]:
    """Return the route's name and the number of the step, from 1, by which a Task came to the pool.

    A pool of several steps is of the first; an emergency's, which may be of none, of step 0.
    """
    if route is None:
        return "", 0
    for number, step in enumerate(route.steps, 1):
        if pool in step.pools:
            return route.name, number
    return route.name, 0
