"""Cases of the fields of an AgentPool: how many agents, what they are and offer, and when one gets less or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from integration.controller.fields_life import own_pool
from integration.controller.lab import Lab, Register
from integration.controller.room import Object, container, metrics
from patience import until

case = Register()

TEMPLATE: Object = {"containers": [container()], "terminationGracePeriodSeconds": 5}


def change(lab: Lab, pool: str, **spec: Any) -> None:
    """Change the pool, and wait until the operator goes by it."""
    lab.room.patch("agentpools", pool, **spec)

    def observed() -> bool:
        now = lab.room.get("agentpools", pool)
        return bool(now["status"].get("observedGeneration") == now["metadata"]["generation"])

    until(observed, f"the new spec of {pool} is observed")


def desired(lab: Lab, pool: str) -> Any:
    return lab.room.status("agentpools", pool).get("desiredReplicas")


def leased(lab: Lab, queue: str) -> Any:
    return lab.room.status("taskqueues", queue).get("leased")


# -- how many --------------------------------------------------------------------------------------------------------


@case("AgentPool.replicas")
def there_are_as_many_as_it_says(lab: Lab) -> None:
    with own_pool(lab, "fixed", replicas=2) as pool:
        assert len(lab.room.pods(pool)) == 2
        lab.room.patch("agentpools", pool, replicas=1)
        lab.room.ready(1, pool)
        until(lambda: len(lab.room.pods(pool)) == 1, "the other one goes")


@case("AgentPool.scaling.minReplicas", "AgentPool.scaling.maxReplicas", "AgentPool.scaling.scaleDownDelaySeconds")
def the_bounds_hold_and_agents_stay_for_a_while(lab: Lab) -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 2, "scaleDownDelaySeconds": 0}
    with own_pool(lab, "elastic", scaling=scaling, replicas=1) as pool:
        queue = lab.queue(pools=[pool])
        done = lab.directory / "done"
        tasks = [lab.work(f"t{n}", queue, until=done) for n in range(4)]
        until(lambda: lab.room.status("agentpools", pool)["scalingReason"] == "AtMaximum", "they are not enough")
        until(lambda: leased(lab, queue) == 2, "both agents work")
        assert desired(lab, pool) == 2
        done.touch()
        lab.room.ended(*tasks)
        until(lambda: desired(lab, pool) == 1, "no fewer than minReplicas, at once", timeout=30)
        change(lab, pool, scaling={"scaleDownDelaySeconds": 4})
        (_, one), (_, other) = lab.busy("third", queue), lab.busy("fourth", queue)
        ended = time.monotonic()
        one.touch()
        other.touch()
        until(lambda: desired(lab, pool) == 1, "after the delay")
        assert time.monotonic() - ended >= 3.9


@case("AgentPool.scaling.targetQueueSeconds")
def a_target_lets_tasks_wait_for_fewer_agents(lab: Lab) -> None:
    pool = f"{lab.name}-few"
    lab.room.pool(pool, slots=1, scaling={"maxReplicas": 4, "targetQueueSeconds": 3600})
    queue = lab.queue(pools=[pool])
    done = lab.directory / "done"
    stuck = [lab.work(f"t{n}", queue, until=done) for n in range(3)]
    until(lambda: leased(lab, queue) == 1, "the first one runs")
    assert desired(lab, pool) == 1
    assert "within 3600 s" in lab.room.status("agentpools", pool)["scalingMessage"]
    lab.room.patch("agentpools", pool, scaling={"targetQueueSeconds": 0})
    until(lambda: leased(lab, queue) == 3, "each has a place")
    assert desired(lab, pool) == 3
    done.touch()
    lab.room.ended(*stuck)
    lab.room.delete("agentpools", pool)


@case("AgentPool.scaling.scaleUpStabilizationSeconds")
def agents_are_added_only_after_they_were_needed_for_a_while(lab: Lab) -> None:
    pool = f"{lab.name}-slow"
    lab.room.pool(pool, slots=1, scaling={"maxReplicas": 4, "scaleUpStabilizationSeconds": 4})
    queue = lab.queue(pools=[pool])
    begun = time.monotonic()
    tasks = [lab.work(f"t{n}", queue) for n in range(2)]
    until(lambda: desired(lab, pool) == 2, "they are needed for long enough")
    assert time.monotonic() - begun >= 3.9
    lab.room.ended(*tasks)
    lab.room.delete("agentpools", pool)


@case("AgentPool.costPerHour")
def the_cheaper_pool_grows_first(lab: Lab) -> None:
    dear, cheap = f"{lab.name}-dear", f"{lab.name}-cheap"
    for pool, price in ((dear, 2), (cheap, 1)):
        lab.room.pool(pool, slots=1, costPerHour=price, scaling={"maxReplicas": 2})
    queue = lab.queue(pools=[dear, cheap])
    done = lab.directory / "done"
    stuck = [lab.work(f"t{n}", queue, until=done) for n in range(3)]
    until(lambda: leased(lab, queue) == 3, "all run")
    assert (desired(lab, dear), desired(lab, cheap)) == (1, 2)
    done.touch()
    for status in lab.room.ended(*stuck):
        assert status["cost"] > 0
    for pool in (dear, cheap):
        lab.room.delete("agentpools", pool)


# -- what they are and offer -----------------------------------------------------------------------------------------


@case(
    "AgentPool.template.metadata.labels",
    "AgentPool.template.metadata.annotations",
    "AgentPool.template.spec.containers[].name",
    "AgentPool.reportedLabels",
)
def pods_follow_the_template_and_labels_are_believed_by_the_key(lab: Lab) -> None:
    reported = {"name": "TASKDIST_LABELS", "value": "site=here,clearance=high"}
    beside = {"name": "beside", "image": "taskdist:local", "command": ["sleep", "3600"]}
    spec = {**TEMPLATE, "containers": [beside, container(env=[reported])]}
    template = {"metadata": {"labels": {"rack": "r1"}, "annotations": {"note": "kept"}}, "spec": spec}
    with own_pool(lab, "own", template=template, reportedLabels=["site"]) as pool:
        (pod,) = lab.room.pods(pool)
        assert pod["metadata"]["labels"]["rack"] == "r1"
        assert pod["metadata"]["annotations"]["note"] == "kept"
        given = {each["name"]: {v["name"] for v in each.get("env") or ()} for each in pod["spec"]["containers"]}
        assert list(given) == ["beside", "agent"]
        assert "TASKDIST_ADDRESS" in given["agent"]
        assert "TASKDIST_ADDRESS" not in given["beside"]
        queue = lab.queue(pools=[pool])
        for name, labels in (("pods", {"rack": "r1"}), ("said", {"site": "here"})):
            assert lab.end(lab.task(name, queue, agentSelector={"matchLabels": labels}))["agent"]
        lab.passed_over(lab.task("claimed", queue, agentSelector={"matchLabels": {"clearance": "high"}}))


@case("AgentPool.slots", "AgentPool.resources", "AgentPool.skills", "AgentPool.quality")
def agents_offer_what_the_pool_says(lab: Lab) -> None:
    with own_pool(lab, "offers", slots=2, resources={"gpu": 1}, skills=["welding"], quality=0.4) as pool:
        queue = lab.queue(pools=[pool])
        assert lab.room.status("agentpools", pool)["slots"] == 2
        _, first = lab.busy("one", queue, resources={"gpu": 1})
        starved = lab.task("two", queue, resources={"gpu": 1})
        lab.passed_over(starved)
        _, second = lab.busy("three", queue)
        third = lab.task("four", queue)
        lab.passed_over(third, starved)
        first.touch()
        second.touch()
        lab.room.ended(third, starved)
        waiting: dict[str, Object] = {
            lab.task("wide", queue, slots=3): {"slots": 3},
            lab.task("skilled", queue, skills=["painting"]): {"skills": ["welding", "painting"]},
            lab.task("picky", queue, minQuality=0.5): {"quality": 0.6},
            lab.task("hungry", queue, resources={"gpu": 2}): {"resources": {"gpu": 2}},
        }
        lab.passed_over(*waiting)
        waiting.pop(f"{lab.name}-wide")  # slots are what the agent's process was started with
        for task, spec in waiting.items():
            lab.room.patch("agentpools", pool, **spec)
            assert lab.end(task)["pool"] == pool


@case("AgentPool.wattsBusy", "AgentPool.wattsIdle")
def energy_goes_by_its_watts(lab: Lab) -> None:
    flat, steep = {"wattsBusy": 36000, "wattsIdle": 35000}, {"wattsBusy": 36000, "wattsIdle": 0}
    with own_pool(lab, "flat", **flat) as first, own_pool(lab, "steep", **steep) as second:
        queue = lab.queue(pools=[first, second], strategy="Energy")
        for n in range(2):
            assert lab.end(lab.task(f"flat-{n}", queue))["pool"] == first, "a Task adds least there"
        change(lab, first, **steep)
        change(lab, second, **flat)
        for n in range(2):
            assert lab.end(lab.task(f"steep-{n}", queue))["pool"] == second
        used = lab.end(lab.work("used", queue, 0.2))["energyWh"]
        change(lab, second, wattsBusy=360000, wattsIdle=359000)
        assert lab.end(lab.work("more", queue, 0.2))["energyWh"] > 3 * used > 0


# -- when one gets less or nothing -----------------------------------------------------------------------------------


@case("AgentPool.slowStartSeconds")
def a_new_agent_gets_its_slots_one_after_the_other(lab: Lab) -> None:
    with own_pool(lab, "new", slots=3, slowStartSeconds=12) as pool:
        queue = lab.queue(pools=[pool])
        done = lab.directory / "done"
        tasks = [lab.work(f"t{n}", queue, until=done) for n in range(3)]
        seen: dict[int, None] = {}

        def all_run() -> bool:
            running = sum(lab.room.phase(task) == "Assigned" for task in tasks)
            seen[running] = None
            return running == 3

        until(all_run, "its time opens all slots")
        assert list(seen)[-3:] == [1, 2, 3]
        done.touch()
        lab.room.ended(*tasks)


BREAKER = {
    "failureRatio": 0.7,
    "minAttempts": 3,
    "windowSeconds": 300,
    "openSeconds": 3600,
    "maxOpenSeconds": 3600,
    "maxOpenPercent": 50,
}


class Trial:
    """A pool of three agents of one slot, the first of which can be made to fail.

    While the two others have succeeded, one of three like it would have failed at each attempt by the breaker's rule
    (docs/agents.md), so that it opens at the fifth failure in a row where `minAttempts` is 3.
    """

    def __init__(self, lab: Lab, suffix: str, pool: str) -> None:
        self.lab, self.suffix, self.pool = lab, suffix, pool
        self.queue = lab.queue(suffix, pools=[pool], retry={"limit": 0})
        self.bad, *self.others = sorted(lab.room.pods(pool), key=lambda pod: str(pod["metadata"]["name"]))
        self.file: Path = lab.directory / suffix
        self.file.write_text("")
        self._made = 0

    def on(self, pod: Object, count: int = 1) -> list[str]:
        """So many Tasks for this agent alone."""
        first = self._made
        self._made += count
        return [
            self.lab.task(
                f"{self.suffix}-{n}", self.queue, "fail-here", {"file": str(self.file)}, agent=pod["metadata"]["name"]
            )
            for n in range(first, self._made)
        ]

    def succeed_elsewhere(self) -> None:
        for pod in self.others:
            assert self.lab.end(self.on(pod)[0])["phase"] == "Succeeded"

    def spoil(self) -> None:
        self.file.write_text(self.bad["status"]["podIP"])

    def heal(self) -> None:
        self.file.write_text("")

    def held(self) -> float:
        """How many breakers of the pool are not closed, as the operator counts them now."""
        now = metrics(self.lab.room.stack.operators[0])
        labels = f'namespace="{self.lab.room.namespace}",pool="{self.pool}"'
        return sum(now[f'taskdist_breakers{{{labels},state="{state}"}}'] for state in ("Open", "HalfOpen"))

    def fail(self, count: int) -> int:
        """Let so many fail, or as many as it takes to open the breaker; how many did. It takes back the rest."""
        tasks = self.on(self.bad, count)

        def phases() -> list[str]:
            return [self.lab.room.phase(task) for task in tasks]

        until(lambda: self.held() or all(each == "Failed" for each in phases()), "it opens, or all have failed")
        rest = [task for task, phase in zip(tasks, phases(), strict=True) if phase == "Pending"]
        if rest:
            self.lab.passed_over(*rest)
        for task in rest:
            self.lab.room.patch("tasks", task, cancel=True)
        self.lab.room.ended(*tasks)
        return count - len(rest)


@contextmanager
def trial(lab: Lab, suffix: str, **breaker: Any) -> Iterator[Trial]:
    with own_pool(lab, suffix, replicas=3, breaker=BREAKER | breaker) as pool:
        yield Trial(lab, suffix, pool)


@case("AgentPool.breaker.enabled", "AgentPool.breaker.maxOpenPercent")
def a_breaker_opens_only_where_it_may(lab: Lab) -> None:
    with trial(lab, "off", enabled=False) as one:
        one.succeed_elsewhere()
        one.spoil()
        assert one.fail(12) == 12
        change(lab, one.pool, breaker={"enabled": True, "maxOpenPercent": 33})
        one.heal()
        one.succeed_elsewhere()
        one.spoil()
        assert one.fail(12) == 12, "one of three agents would be more"
        change(lab, one.pool, breaker={"maxOpenPercent": 34})
        assert one.fail(3) == 1
        change(lab, one.pool, breaker={"enabled": False})
        assert one.held() == 0


@case("AgentPool.breaker.failureRatio")
def a_breaker_opens_at_the_ratio(lab: Lab) -> None:
    with trial(lab, "ratio", failureRatio=1) as one:
        one.succeed_elsewhere()
        lab.room.ended(*one.on(one.bad))
        one.spoil()
        assert one.fail(12) == 10, "only once its one success is not among its last ten"


@case("AgentPool.breaker.minAttempts", "AgentPool.breaker.windowSeconds")
def a_breaker_opens_by_enough_attempts_of_late(lab: Lab) -> None:
    with trial(lab, "window", windowSeconds=1) as one:
        for _ in range(2):
            one.succeed_elsewhere()
            one.spoil()
            assert one.fail(4) == 4
            one.heal()
            time.sleep(1.1)  # all that is past now
        change(lab, one.pool, breaker={"windowSeconds": 300})
        one.succeed_elsewhere()
        one.spoil()
        assert one.fail(12) < 8, "it was the window that kept it closed"
    with trial(lab, "few", minAttempts=6) as one:
        one.succeed_elsewhere()
        one.spoil()
        assert one.fail(12) == 9


@case("AgentPool.breaker.openSeconds", "AgentPool.breaker.maxOpenSeconds", "AgentPool.breaker.probes")
def an_open_breaker_is_probed_after_a_time(lab: Lab) -> None:
    with trial(lab, "times", openSeconds=2, maxOpenSeconds=2, probes=2) as one:
        one.succeed_elsewhere()
        one.spoil()
        # Five open it; three of its probes that fail do so again, as one of three agents would have failed each.
        tasks = lab.room.ended(*one.on(one.bad, 14))
        starts = sorted(datetime.fromisoformat(each["startedAt"]).timestamp() for each in tasks)
        gaps = [round(later - former, 3) for former, later in pairwise(starts)]
        opened = [gaps[n - 1] for n in (5, 8, 11)]
        assert min(opened) >= 1.9, gaps
        assert opened[2] < 8, f"as long as the first time, not four times: {gaps}"
        one.heal()
        for left in (1, 0):
            assert lab.end(one.on(one.bad)[0])["phase"] == "Succeeded"
            assert one.held() == left
