"""Cases of the fields that say where a Task goes, and of what it shares with others on the way."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from integration.controller.lab import SOLO, Lab, Register
from integration.controller.room import Object, container
from patience import until

case = Register()

SOLO_ONLY = [{"pools": [SOLO]}]


def way(name: str, steps: list[Object], **match: Any) -> Object:
    return {"name": name, "match": match, "steps": steps}


def route_of(lab: Lab, name: str) -> Object:
    """By which way an ended Task came to its pool, all of whose agents were alike."""
    status = lab.end(name)
    assert status["phase"] == "Succeeded"
    assert status["route"]["pool"] == status["pool"]
    assert (status["route"]["strategy"], status["route"]["score"]) == ("Adaptive", 0)
    return way_of(status["route"])


def way_of(route: Object) -> Object:
    return {name: route[name] for name in ("rule", "step", "pool")}


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


@case("TaskQueue.routes[].name", "TaskQueue.routes[].match.matchLabels")
def the_first_route_that_matches_is_taken_and_told(lab: Lab) -> None:
    routes = [
        way("gold", SOLO_ONLY, matchLabels={"tier": "gold"}),
        way("labelled", [{"pools": ["p"]}], matchExpressions=[{"key": "tier", "operator": "Exists"}]),
    ]
    queue = lab.queue(pools=[SOLO], routes=routes)
    gold = lab.task("gold", queue, labels={"tier": "gold"})
    tin = lab.task("tin", queue, labels={"tier": "tin"})
    plain = lab.task("plain", queue)
    assert route_of(lab, gold) == {"rule": "gold", "step": 1, "pool": SOLO}
    assert route_of(lab, tin) == {"rule": "labelled", "step": 1, "pool": "p"}
    assert route_of(lab, plain) == {"rule": "", "step": 0, "pool": SOLO}


@case(
    "TaskQueue.routes[].match.matchExpressions[].key",
    "TaskQueue.routes[].match.matchExpressions[].operator",
    "TaskQueue.routes[].match.matchExpressions[].values",
)
def a_route_for_labels_by_expressions(lab: Lab) -> None:
    expressions = [{"key": "tier", "operator": "NotIn", "values": ["gold", "silver"]}]
    queue = lab.queue(routes=[way("others", SOLO_ONLY, matchExpressions=expressions)])
    assert route_of(lab, lab.task("tin", queue, labels={"tier": "tin"}))["rule"] == "others"
    assert route_of(lab, lab.task("silver", queue, labels={"tier": "silver"}))["rule"] == ""


@case(
    "TaskQueue.routes[].match.types",
    "TaskQueue.routes[].match.levels",
    "TaskQueue.routes[].match.tenants",
    "TaskQueue.routes[].match.maxSlots",
)
def a_route_for_what_a_task_is(lab: Lab) -> None:
    match = {"types": ["echo"], "levels": ["High", "Critical"], "tenants": ["a", "b"], "maxSlots": 1}
    queue = lab.queue(routes=[way("narrow", SOLO_ONLY, **match)])
    fitting: Object = {"priority": "High", "tenant": "a"}
    assert route_of(lab, lab.task("all", queue, **fitting))["pool"] == SOLO
    assert route_of(lab, lab.work("type", queue, **fitting))["pool"] == "p"
    assert route_of(lab, lab.task("level", queue, **{**fitting, "priority": "Low"}))["pool"] == "p"
    assert route_of(lab, lab.task("tenant", queue, **{**fitting, "tenant": "c"}))["pool"] == "p"
    assert route_of(lab, lab.task("slots", queue, slots=2, **fitting))["pool"] == "p"


@case("TaskQueue.routes[].match.minSlots")
def a_route_for_large_tasks(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO], routes=[way("large", [{"pools": ["p"]}], minSlots=2)])
    assert route_of(lab, lab.task("large", queue, slots=2)) == {"rule": "large", "step": 1, "pool": "p"}
    assert route_of(lab, lab.task("small", queue))["rule"] == ""


@case("TaskQueue.routes[].steps[].pools")
def a_full_pool_sends_tasks_on_at_once(lab: Lab) -> None:
    """The pool cannot grow: there is nothing to wait for. Once it has room, it is the first choice again."""
    queue = lab.queue(routes=[way("chain", [{"pools": [SOLO]}, {"pools": ["missing", "p"], "afterSeconds": 3600}])])
    first, done = lab.busy("first", queue)
    assert way_of(lab.room.status("tasks", first)["route"]) == {"rule": "chain", "step": 1, "pool": SOLO}
    assert route_of(lab, lab.task("second", queue)) == {"rule": "chain", "step": 2, "pool": "p"}
    done.touch()
    lab.end(first)
    assert route_of(lab, lab.task("third", queue))["step"] == 1


@case("TaskQueue.routes[].steps[].afterSeconds")
def a_pool_that_may_grow_is_waited_for(lab: Lab) -> None:
    """Its agents never come up, and it may have more of them: the Task waits as long as the next step says."""
    stuck = f"{lab.name[:20]}-stuck"
    pod = {"containers": [container(["sleep", "1000"])], "terminationGracePeriodSeconds": 1}
    lab.room.pool(stuck, template={"spec": pod}, scaling={"minReplicas": 0, "maxReplicas": 4})
    try:
        queue = lab.queue(routes=[way("chain", [{"pools": [stuck]}, {"pools": ["p"], "afterSeconds": 4}])])
        name = lab.task("waits", queue)
        until(lambda: lab.room.pods(stuck), "the first pool grows for it")
        lab.passed_over(name)
        assert route_of(lab, name) == {"rule": "chain", "step": 2, "pool": "p"}
        task = lab.room.get("tasks", name)
        assert seconds_between(task["metadata"]["creationTimestamp"], task["status"]["assignedAt"]) >= 4
    finally:
        lab.room.delete("agentpools", stuck)


@case("TaskQueue.routes[].steps[].strategy")
def each_step_picks_by_its_own_strategy(lab: Lab) -> None:
    """The first step's pool has one agent of one slot; once it is busy, the fullest of the second's goes first, while
    Tasks without a route go where the least is busy."""
    steps: list[Object] = [{"pools": [SOLO]}, {"pools": ["p"], "strategy": "Pack"}]
    queue = lab.queue(pools=["p"], routes=[way("chain", steps, types=["echo", "trace"], maxSlots=1)])
    _, first = lab.busy("first", queue)
    one, second = lab.busy("second", queue)
    full = lab.room.status("tasks", one)["agent"]
    for name in ("packed", "packed-again"):
        packed = lab.end(lab.task(name, queue))
        told = {"rule": "chain", "step": 2, "pool": "p", "strategy": "Pack", "score": -0.5}
        assert (packed["agent"], packed["route"]) == (full, told)
    assert "Pack, score -0.5" in lab.room.taskdist("explain", f"{lab.name}-packed")
    plain = lab.end(lab.task("plain", queue, pool="p"))
    assert (plain["agent"] != full, plain["route"]["strategy"], plain["route"]["score"]) == (True, "Adaptive", 0)
    lab.room.patch("taskqueues", queue, routes=[way("chain", [{"pools": ["p"], "strategy": "LeastLoaded"}])])
    assert lab.end(lab.task("least", queue))["agent"] != full
    first.touch()
    second.touch()


@case("Task.agent")
def a_task_runs_on_the_agent_it_names(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    agents = sorted(pod["metadata"]["name"] for pod in lab.room.pods("p"))
    for agent in agents:
        name = lab.task(f"on-{agent[-3:]}", queue, agent=agent)
        assert lab.end(name)["agent"] == agent
    moved, freed = (lab.task(suffix, queue, agent="nobody") for suffix in ("moved", "freed"))
    lab.passed_over(moved, freed)
    assert "no agent of this name" in lab.room.taskdist("explain", moved)
    lab.room.patch("tasks", moved, agent=agents[0])
    lab.room.patch("tasks", freed, agent=None)
    assert lab.end(moved)["agent"] == agents[0]
    assert lab.end(freed)["pool"] == SOLO


@case(
    "TaskQueue.budgets[].name",
    "TaskQueue.budgets[].kind",
    "TaskQueue.budgets[].limit",
    "Task.budgets[].name",
    "Task.budgets[].amount",
)
def a_budget_is_held_over_queues(lab: Lab) -> None:
    queue = lab.queue(budgets=[{"name": "seats", "kind": "Concurrent", "limit": 3}])
    other = lab.queue("other")
    shared = f"{queue}/seats"
    _, done = lab.busy("first", queue, budgets=[{"name": "seats", "amount": 2}])
    large = lab.task("large", other, budgets=[{"name": shared, "amount": 2}])
    assert lab.end(lab.task("small", other, budgets=[{"name": shared}]))["phase"] == "Succeeded"
    unknown = lab.task("unknown", other, budgets=[{"name": "seats"}])
    lab.passed_over(large, unknown)
    assert "2 of 3 are held" in lab.room.taskdist("explain", large)
    assert "defines no budget seats" in lab.room.taskdist("explain", unknown)
    done.touch()
    assert lab.end(large)["phase"] == "Succeeded"
    lab.room.patch("taskqueues", other, budgets=[{"name": "seats", "kind": "Concurrent", "limit": 1}])
    assert lab.end(unknown)["phase"] == "Succeeded"


@case("TaskQueue.budgets[].perSecond", "TaskQueue.budgets[].burst")
def a_budget_is_spent_and_comes_back(lab: Lab) -> None:
    queue = lab.queue(budgets=[{"name": "tokens", "kind": "Rate", "perSecond": 20, "burst": 40}])
    names = [lab.work(f"t{number}", queue, budgets=[{"name": "tokens", "amount": 30}]) for number in range(3)]
    lab.room.ended(*names)
    starts = sorted(first for first, _ in lab.spans().values())
    assert starts[1] - starts[0] > 0.5, "20 are missing after the first"
    assert starts[2] - starts[1] > 1.0, "30 are missing after the second"


@case()
def what_was_used_of_a_budget_comes_back(lab: Lab) -> None:
    """The budget is full once, and then not for hours: each Task starts as the one before used nothing."""
    queue = lab.queue(budgets=[{"name": "tokens", "kind": "Rate", "perSecond": 0.001, "burst": 40}])
    other = lab.queue("other")
    shared, takes = f"{queue}/tokens", [{"name": f"{queue}/tokens", "amount": 40}]
    first = lab.task("first", queue, type="spend", payload={"budget": "tokens", "used": 0}, budgets=takes)
    assert lab.end(first)["phase"] == "Succeeded"
    failing = {"budget": shared, "used": 0, "fails": True}
    assert lab.end(lab.task("fails", other, type="spend", payload=failing, budgets=takes))["phase"] == "Failed"
    more = {"budget": shared, "used": 100}
    assert lab.end(lab.task("more", other, type="spend", payload=more, budgets=takes))["phase"] == "Succeeded"
    lab.passed_over(lab.task("small", other, budgets=[{"name": shared}]))


@case()
def a_rate_is_kept_for_the_first(lab: Lab) -> None:
    queue = lab.queue(budgets=[{"name": "tokens", "kind": "Rate", "perSecond": 20, "burst": 60}])
    lab.end(lab.work("first", queue, budgets=[{"name": "tokens", "amount": 60}]))
    large = lab.work("large", queue, budgets=[{"name": "tokens", "amount": 60}])
    lab.next_second()
    small = [lab.work(f"small{number}", queue, budgets=[{"name": "tokens", "amount": 5}]) for number in range(3)]
    lab.room.ended(large, *small)
    assert lab.sequence()[:2] == ["first", "large"]
