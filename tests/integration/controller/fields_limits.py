"""Cases of the fields that say how much may be there at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from integration.controller.lab import Lab, Register
from integration.controller.room import Object
from patience import until

case = Register()


@contextmanager
def operator_stopped(lab: Lab) -> Iterator[None]:
    """Within, nobody keeps `accepting` up to date. Shorter than its leadership lasts."""
    process = lab.room.stack.operators[0].process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def payload(size: int) -> Object:
    """A payload of exactly so many bytes of JSON."""
    return {"x": "y" * (size - len('{"x":""}'))}


@case("TaskQueue.drained")
def a_drained_queue_takes_none_and_works_off_what_it_has(lab: Lab) -> None:
    queue = lab.queue(paused=True)
    there = lab.task("there", queue)
    lab.seen()
    lab.room.patch("taskqueues", queue, drained=True, paused=False)
    assert lab.end(there)["phase"] == "Succeeded"
    lab.accepting(queue, False)
    assert queue in lab.refused(queue)


@case("TaskQueue.quota.waiting")
def a_quota_of_what_waits(lab: Lab) -> None:
    queue = lab.queue(paused=True, quota={"waiting": 2})
    tasks = [lab.task(f"t{i}", queue) for i in range(2)]
    lab.accepting(queue, False)
    assert queue in lab.refused(queue)
    lab.room.patch("tasks", tasks[0], cancel=True)
    lab.accepting(queue, True)


@case("TaskQueue.quota.payloadBytes")
def a_quota_of_payloads(lab: Lab) -> None:
    queue = lab.queue(paused=True, quota={"payloadBytes": 1000})
    lab.task("most", queue, payload=payload(1000))
    lab.accepting(queue, False)
    assert queue in lab.refused(queue)


@case("TaskQueue.quota.leased")
def a_quota_of_what_runs(lab: Lab) -> None:
    queue = lab.queue(quota={"leased": 1})
    _, done = lab.busy("first", queue)
    second = lab.task("second", queue)
    lab.passed_over(second)
    done.touch()
    assert lab.end(second)["phase"] == "Succeeded"


@case("TaskQueue.quota.slots")
def a_quota_of_slots(lab: Lab) -> None:
    queue = lab.queue(quota={"slots": 2})
    _, done = lab.busy("first", queue)
    large = lab.task("large", queue, slots=2)
    lab.passed_over(large)
    done.touch()
    assert lab.end(large)["phase"] == "Succeeded"


@case("TaskQueue.quota.perTenant.waiting")
def a_tenant_s_quota_of_what_waits(lab: Lab) -> None:
    queue = lab.queue(paused=True, quota={"perTenant": {"waiting": 1}})
    first = lab.task("first", queue, tenant="a")
    lab.seen()
    second = lab.task("second", queue, tenant="a")
    other = lab.task("other", queue, tenant="b")
    status = lab.end(second)
    assert (status["phase"], status["reason"]) == ("Failed", "QueueFull")
    lab.passed_over(first, other)


@case("TaskQueue.quota.perTenant.payloadBytes")
def a_tenant_s_quota_of_payloads(lab: Lab) -> None:
    queue = lab.queue(paused=True, quota={"perTenant": {"payloadBytes": 1000}})
    first = lab.task("first", queue, payload=payload(900), tenant="a")
    lab.seen()
    second = lab.task("second", queue, payload=payload(200), tenant="a")
    other = lab.task("other", queue, payload=payload(200), tenant="b")
    assert lab.end(second)["reason"] == "QueueFull"
    lab.passed_over(first, other)


@case("TaskQueue.quota.perTenant.leased")
def a_tenant_s_quota_of_what_runs(lab: Lab) -> None:
    queue = lab.queue(quota={"perTenant": {"leased": 1}})
    _, done = lab.busy("first", queue, tenant="a")
    second = lab.task("second", queue, tenant="a")
    assert lab.end(lab.task("other", queue, tenant="b"))["phase"] == "Succeeded"
    lab.passed_over(second)
    done.touch()
    assert lab.end(second)["phase"] == "Succeeded"


@case("TaskQueue.quota.perTenant.slots")
def a_tenant_s_quota_of_slots(lab: Lab) -> None:
    queue = lab.queue(quota={"perTenant": {"slots": 2}})
    _, done = lab.busy("first", queue, tenant="a")
    large = lab.task("large", queue, slots=2, tenant="a")
    assert lab.end(lab.task("other", queue, slots=2, tenant="b"))["phase"] == "Succeeded"
    lab.passed_over(large)
    done.touch()
    assert lab.end(large)["phase"] == "Succeeded"


@case("TaskQueue.rate.queue.perSecond", "TaskQueue.rate.queue.burst")
def a_rate_of_starts(lab: Lab) -> None:
    queue = lab.queue(rate={"queue": {"perSecond": 2, "burst": 2}})
    names = [lab.work(f"t{i}", queue) for i in range(5)]
    lab.room.ended(*names)
    starts = sorted(first for first, _ in lab.spans().values())
    assert starts[4] - starts[1] > 1.2, "the others one every half second"
    assert starts[1] - starts[0] < 0.4 * (starts[4] - starts[1]), "two start at once"


@case("TaskQueue.rate.perTenant.perSecond", "TaskQueue.rate.perTenant.burst")
def a_rate_for_each_tenant(lab: Lab) -> None:
    queue = lab.queue(rate={"perTenant": {"perSecond": 0.01, "burst": 2}})
    names = [lab.task(f"a{i}", queue, tenant="a") for i in range(3)]
    other = lab.task("b", queue, tenant="b")
    assert lab.end(other)["phase"] == "Succeeded"
    lab.seen()
    lab.passed_over(*[name for name in names if lab.room.phase(name) != "Succeeded"])
    assert sum(lab.room.phase(name) == "Succeeded" for name in names) == 2


@case("TaskQueue.concurrencyLimit", "Task.concurrencyKey")
def tasks_of_one_key_run_up_to_a_limit(lab: Lab) -> None:
    queue = lab.queue(concurrencyLimit=2)
    done = [lab.busy(f"t{i}", queue, concurrencyKey="k")[1] for i in range(2)]
    third = lab.task("third", queue, concurrencyKey="k")
    assert lab.end(lab.task("other", queue, concurrencyKey="another"))["phase"] == "Succeeded"
    lab.passed_over(third)
    for file in done:
        file.touch()
    assert lab.end(third)["phase"] == "Succeeded"


@case("Task.idempotencyKey")
def a_task_is_run_once_for_its_key(lab: Lab) -> None:
    queue = lab.queue()
    first = lab.work("first", queue, idempotencyKey="k")
    lab.end(first)
    again = lab.work("again", queue, idempotencyKey="k")
    status = lab.end(again)
    assert (status["phase"], status["reason"], status["duplicateOf"]) == ("Succeeded", "Duplicate", first)
    assert lab.sequence() == ["first"]


@case("TaskQueue.overflow.highWater", "TaskQueue.overflow.lowWater")
def a_full_queue_refuses_until_it_has_room(lab: Lab) -> None:
    queue = lab.queue(paused=True, overflow={"highWater": 3, "lowWater": 1})
    tasks = [lab.task(f"t{i}", queue) for i in range(3)]
    lab.accepting(queue, False)
    assert queue in lab.refused(queue)
    lab.room.patch("tasks", tasks[0], cancel=True)
    lab.end(tasks[0])
    lab.passed_over(*tasks[1:])
    assert lab.room.status("taskqueues", queue)["accepting"] is False, "two are more than the low water mark"
    lab.room.patch("tasks", tasks[1], cancel=True)
    lab.accepting(queue, True)


@case("TaskQueue.overflow.action", "TaskQueue.overflow.spillTo")
def what_slips_past_is_rejected_or_spilled(lab: Lab) -> None:
    other = lab.queue("other")
    water = {"highWater": 1, "lowWater": 0}
    strict = lab.queue("strict", paused=True, overflow=water)
    spilling = lab.queue("spilling", paused=True, overflow={**water, "action": "Spill", "spillTo": other})
    with operator_stopped(lab):
        rejected = [lab.task(f"strict-{i}", strict) for i in range(3)]
        spilled = [lab.task(f"spilling-{i}", spilling) for i in range(3)]

    def statuses(names: list[str], phase: str) -> list[Object]:
        found = [lab.room.status("tasks", name) for name in names]
        return [status for status in found if status["phase"] == phase]

    until(lambda: len(statuses(rejected, "Failed")) == 2, "two of the three are rejected")
    assert {status["reason"] for status in statuses(rejected, "Failed")} == {"QueueFull"}
    until(lambda: len(statuses(spilled, "Succeeded")) == 2, "two of the three run elsewhere")
    assert {status["spilledTo"] for status in statuses(spilled, "Succeeded")} == {other}
    assert len(statuses(rejected, "Pending")) == len(statuses(spilled, "Pending")) == 1
