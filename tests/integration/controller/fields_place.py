"""Cases of the fields that say where a Task may run, would rather run, and how its agent is picked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from integration.controller.fields_life import own_pool
from integration.controller.lab import PLAIN, Lab, Register
from integration.controller.room import Object, container

case = Register()

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"


def template(labels: Object) -> Object:
    pod = {"containers": [container()], "terminationGracePeriodSeconds": 5}
    return {"metadata": {"labels": labels}, "spec": pod}


@contextmanager
def two_pools(lab: Lab) -> Iterator[tuple[str, str]]:
    """Two agents of three slots each: one in zone a, plain and dear; one in zone b, quick, poor and cheap."""
    dear = {"costPerHour": 3, "quality": 0.9, "template": template({ZONE: "a", REGION: "west", "disk": "hdd"})}
    cheap = {"costPerHour": 1, "quality": 0.4, "template": template({ZONE: "b", REGION: "east", "disk": "ssd"})}
    with own_pool(lab, "dear", slots=3, **dear) as first, own_pool(lab, "cheap", slots=3, **cheap) as second:
        yield first, second


@case("Task.zones", "Task.regions", "Task.maxCostPerHour", "Task.minQuality")
def where_it_may_run(lab: Lab) -> None:
    with two_pools(lab) as (dear, cheap):
        queue = lab.queue(pools=[cheap, dear])
        needs: dict[str, tuple[Object, str]] = {
            "zone-a": ({"zones": ["a"]}, dear),
            "zone-b": ({"zones": ["b"]}, cheap),
            "west": ({"regions": ["west"]}, dear),
            "east": ({"regions": ["east"]}, cheap),
            "cheap": ({"maxCostPerHour": 1}, cheap),
            "good": ({"minQuality": 0.5}, dear),
        }
        for name, (need, pool) in needs.items():
            assert lab.end(lab.task(name, queue, **need))["pool"] == pool, name
        nowhere = [
            lab.task("no-zone", queue, zones=["c"]),
            lab.task("no-region", queue, regions=["south"]),
            lab.task("no-price", queue, maxCostPerHour=0.5),
            lab.task("no-quality", queue, minQuality=1),
        ]
        lab.passed_over(*nowhere)
        # A pool's new terms count at once.
        lab.room.patch("agentpools", cheap, costPerHour=0.5)
        assert lab.end(nowhere[2])["pool"] == cheap


@case(
    "Task.preferred[].weight",
    "Task.preferred[].selector.matchLabels",
    "Task.preferred[].selector.matchExpressions[].key",
    "Task.preferred[].selector.matchExpressions[].operator",
    "Task.preferred[].selector.matchExpressions[].values",
    "Task.waitForPreferredSeconds",
)
def where_it_would_rather_run(lab: Lab) -> None:
    with two_pools(lab) as (dear, cheap):
        queue = lab.queue(pools=[cheap, dear])
        hdd: Object = {"weight": 1, "selector": {"matchLabels": {"disk": "hdd"}}}
        ssd: Object = {
            "weight": 2,
            "selector": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}]},
        }
        for number in range(2):
            assert lab.end(lab.task(f"hdd-{number}", queue, preferred=[hdd]))["pool"] == dear
            assert lab.end(lab.task(f"both-{number}", queue, preferred=[hdd, ssd]))["pool"] == cheap
        _, done = lab.busy("taken", queue, slots=3, preferred=[ssd])
        assert lab.end(lab.task("at-once", queue, preferred=[ssd]))["pool"] == dear
        waits = lab.task("waits", queue, preferred=[ssd], waitForPreferredSeconds=600)
        lab.passed_over(waits)
        shortly = lab.task("shortly", queue, preferred=[ssd], waitForPreferredSeconds=1)
        assert lab.end(shortly)["pool"] == dear
        done.touch()
        assert lab.end(waits)["pool"] == cheap


@case("Task.stickyKey")
def a_key_goes_where_it_was(lab: Lab) -> None:
    with own_pool(lab, "several", slots=2, replicas=1) as pool:
        lab.room.patch("agentpools", pool, replicas=3)
        lab.room.ready(3, pool)
        queue = lab.queue(pools=[pool], strategy="RoundRobin")
        agents = [lab.end(lab.task(f"k{n}", queue, stickyKey="k"))["agent"] for n in range(4)]
        assert len(set(agents)) == 1
        assert len({lab.end(lab.task(f"free-{n}", queue))["agent"] for n in range(3)}) == 3


@case("TaskQueue.strategy")
def the_queue_s_strategy_picks_the_agent(lab: Lab) -> None:
    with two_pools(lab) as (dear, cheap):
        queue = lab.queue(pools=[dear, cheap], strategy="Cost")
        gate, done = lab.busy("gate", queue)
        assert lab.room.status("tasks", gate)["pool"] == cheap
        # The least busy is the dear one; the cheap one has room and is taken all the same.
        assert lab.end(lab.task("cheap", queue))["pool"] == cheap
        lab.room.patch("taskqueues", queue, strategy="LeastLoaded")
        assert lab.end(lab.task("least", queue))["pool"] == dear
        done.touch()
    assert lab.end(lab.task("elsewhere", PLAIN))["phase"] == "Succeeded"
