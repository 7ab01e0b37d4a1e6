"""Rules on routes and shared budgets: ways that lead nowhere, and amounts that are never there."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from taskdist.api import BudgetKind, Route
from taskdist.core import commands
from taskdist.core.fleet.routes import opens_at
from taskdist.core.model import Match
from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.setup import QueueDoc, Setup

# What the API server refuses.


@rule(Severity.ERROR)
def route_begins_late(setup: Setup) -> Iterator[Flaw]:
    """A route whose first step opens after a wait.

    There is no step before it in which to wait. The API server refuses it.
    """
    for queue in setup.queues.values():
        for place, route in enumerate(queue.spec.routes):
            if route.steps[0].after_seconds > 0:
                steps = [_step(step) for step in route.steps]
                del steps[0]["afterSeconds"]
                path = f"spec.routes[{place}].steps"
                mend = Mend("Leave it out.", _routes(queue, place, {**_written(route), "steps": steps}))
                yield Flaw(queue.manifest, path, "afterSeconds of the first step is not 0", mend)


@rule(Severity.ERROR)
def route_sizes_crossed(setup: Setup) -> Iterator[Flaw]:
    """A route for Tasks of at least more slots than at most.

    No Task is of such a size. The API server refuses it.
    """
    for queue in setup.queues.values():
        for place, route in enumerate(queue.spec.routes):
            match = route.match
            if match.min_slots is not None and match.max_slots is not None and match.min_slots > match.max_slots:
                written = _written(route)
                mended = {**written, "match": {**written["match"], "maxSlots": match.min_slots}}
                path = f"spec.routes[{place}].match.minSlots"
                message = f"{match.min_slots} is more than maxSlots, {match.max_slots}"
                yield Flaw(queue.manifest, path, message, Mend("Raise maxSlots.", _routes(queue, place, mended)))


@rule(Severity.ERROR)
def budget_of_two_kinds(setup: Setup) -> Iterator[Flaw]:
    """A budget that lacks what its kind asks for, or has what the other kind does.

    Concurrent has a limit; Rate has perSecond and burst. The API server refuses anything else.
    """
    for queue in setup.queues.values():
        for place, budget in enumerate(queue.spec.budgets):
            rated = budget.per_second is not None or budget.burst is not None
            if budget.kind is BudgetKind.CONCURRENT and (budget.limit is None or rated):
                wanted: dict[str, Any] = {"limit": budget.limit or 1}
                field, words = "limit", "Concurrent has a limit, and that only"
            elif budget.kind is BudgetKind.RATE and (
                budget.per_second is None or budget.burst is None or budget.limit is not None
            ):
                wanted = {"perSecond": number(budget.per_second or 1.0), "burst": budget.burst or 1}
                field, words = "perSecond", "Rate has perSecond and burst, and these only"
            else:
                continue
            budgets = [each.to_wire() for each in queue.spec.budgets]
            budgets[place] = {"name": budget.name, "kind": budget.kind.value, **wanted}
            mend = Mend("Write what its kind takes.", patch("spec.budgets", budgets))
            yield Flaw(queue.manifest, f"spec.budgets[{place}].{field}", f"a budget of the kind {words}", mend)


# What is allowed and yet wrong.


@rule(Severity.WARNING)
def route_pool_not_found(setup: Setup) -> Iterator[Flaw]:
    """A step of a route names a pool that is not there.

    It is passed over as if it were not named; a route without any of its pools holds its Tasks (PoolNotFound).
    """
    for queue in setup.queues.values():
        known = setup.names("AgentPool", queue.rules.namespace)
        for place, route in enumerate(queue.spec.routes):
            none = not any(name in known for step in route.steps for name in step.pools)
            for stage, step in enumerate(route.steps):
                for which, name in enumerate(step.pools):
                    if name in known:
                        continue
                    near = get_close_matches(name, [each for each in known if each not in step.pools], 1)
                    steps = [_step(each) for each in route.steps]
                    steps[stage]["pools"] = [each for each in step.pools if each != name] + near
                    kept = [each for each in steps if each["pools"]]
                    if kept and kept[0] is not steps[0]:
                        kept[0].pop("afterSeconds", None)
                    words = "Create the pool" + (f", or did you mean {near[0]}?" if near else ", or leave it out.")
                    change = _routes(queue, place, {**_written(route), "steps": kept} if kept else None)
                    path = f"spec.routes[{place}].steps[{stage}].pools[{which}]"
                    severity = Severity.ERROR if none and known else None
                    yield Flaw(queue.manifest, path, f"there is no AgentPool {name}", Mend(words, change), severity)


@rule(Severity.WARNING)
def route_never_taken(setup: Setup) -> Iterator[Flaw]:
    """A route behind one that all Tasks take.

    The first route that matches is taken, and one that asks for nothing matches all.
    """
    for queue in setup.queues.values():
        routes = queue.rules.routes
        for place, route in enumerate(routes[:-1]):
            if route.match == Match():
                kept = [_written(each) for each in queue.spec.routes]
                behind = ", ".join(each.name for each in routes[place + 1 :])
                change = patch("spec.routes", [*kept[:place], *kept[place + 1 :], kept[place]])
                message = f"all Tasks take the route {route.name} before it: {behind} is never reached"
                path = f"spec.routes[{place + 1}]"
                yield Flaw(queue.manifest, path, message, Mend(f"Put {route.name} last.", change))
                break


@rule(Severity.WARNING)
def step_never_reached(setup: Setup) -> Iterator[Flaw]:
    """A step of a route that adds nothing, or that opens only once its Tasks have waited too long.

    Opened steps stay open, so that a pool of an earlier step brings nothing new. A Task that has waited for as long as
    the queue allows is failed, and sees later steps only for lack of room in the earlier ones.
    """
    for queue in setup.queues.values():
        longest = queue.rules.timeouts.waiting
        for place, route in enumerate(queue.rules.routes):
            seen: set[str] = set()
            for stage, step in enumerate(route.steps):
                rest = [_step(each) for each in queue.spec.routes[place].steps]
                at = opens_at(route, stage, 0.0)
                path = f"spec.routes[{place}].steps[{stage}]"
                if set(step.pools) <= seen:
                    del rest[stage]
                    message = f"earlier steps of {route.name} have all of its pools: {', '.join(step.pools)}"
                    change = _routes(queue, place, {**_written(queue.spec.routes[place]), "steps": rest})
                    yield Flaw(queue.manifest, path, message, Mend("Take it out.", change))
                elif longest is not None and at >= longest:
                    message = f"it opens after {number(at)} s, and Tasks wait {number(longest)} s at most"
                    change = patch("spec.timeouts.waitingSeconds", number(2 * at))
                    mend = Mend("Let it open earlier, or let Tasks wait longer.", change)
                    yield Flaw(queue.manifest, f"{path}.afterSeconds", message, mend)
                seen |= set(step.pools)


@rule(Severity.ERROR)
def budget_not_found(setup: Setup) -> Iterator[Flaw]:
    """A Task takes of a budget that nobody defines.

    It waits (BudgetNotFound) until the queue that it names has such a budget.
    """
    for doc in setup.tasks.values():
        for queue, name, _ in doc.task.budgets:
            owner = setup.queues.get((doc.task.namespace, queue))
            if owner is not None:
                known = [each.name for each in owner.rules.budgets]
                if name not in known:
                    near = get_close_matches(name, known, 1)
                    words = f"Did you mean {near[0]}?" if near else f"Define it in queue {queue}."
                    yield Flaw(doc.manifest, "spec.budgets", f"queue {queue} has no budget {name}", Mend(words))
            elif (setup.whole or setup.queues) and not setup.has("TaskQueue", doc.task.namespace, queue):
                mend = Mend("Name the budget of another queue, or create the queue.")
                severity = None if setup.whole else Severity.WARNING
                message = f"there is no TaskQueue {queue} to have a budget {name}"
                yield Flaw(doc.manifest, "spec.budgets", message, mend, severity)


@rule(Severity.ERROR)
def task_above_budget(setup: Setup) -> Iterator[Flaw]:
    """A Task takes more of a budget than there ever is.

    It waits for ever (BudgetShort): more than the limit of a Concurrent one, or than the burst of a Rate.
    """
    for doc in setup.tasks.values():
        for queue, name, amount in doc.task.budgets:
            owner = setup.queues.get((doc.task.namespace, queue))
            for budget in owner.rules.budgets if owner is not None else ():
                most = budget.limit if budget.rate is None else budget.rate.burst
                if owner is None or budget.name != name or most is None or amount <= most:
                    continue
                field = "limit" if budget.rate is None else "burst"
                written = [commands.budget(each) for each in owner.rules.budgets]
                raised = [{**each, field: amount} if each["name"] == name else each for each in written]
                mend = Mend(f"Raise {field}.", patch("spec.budgets", raised), owner.manifest)
                message = f"{amount} of the budget {queue}/{name}; its {field} is {most}"
                yield Flaw(doc.manifest, "spec.budgets", message, mend)


def _step(step: Any) -> dict[str, Any]:
    wait = {"afterSeconds": number(step.after_seconds)} if step.after_seconds else {}
    strategy = {"strategy": step.strategy.value} if step.strategy is not None else {}
    return {"pools": list(step.pools), **wait, **strategy}


def _written(route: Route) -> dict[str, Any]:
    match = {key: value for key, value in route.match.to_wire().items() if value}
    return {"name": route.name, **({"match": match} if match else {}), "steps": [_step(each) for each in route.steps]}


def _routes(queue: QueueDoc, place: int, route: dict[str, Any] | None) -> dict[str, Any]:
    """All routes of the queue with this one in its place, or without it: lists are written as a whole."""
    routes = [_written(each) for each in queue.spec.routes]
    routes[place : place + 1] = [] if route is None else [route]
    return patch("spec.routes", routes)


WRITTEN = (route_begins_late, route_sizes_crossed, budget_of_two_kinds)
RULES = (route_pool_not_found, route_never_taken, step_never_reached, budget_not_found, task_above_budget)
