"""Cases of the fields that say which Task goes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from integration.controller.lab import PLAIN, SOLO, Lab, Register
from patience import until

case = Register()


def from_now(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@case("Task.priority")
def a_higher_level_goes_first(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    with lab.solo_taken():
        for level in ("Low", "Critical", "Background", "High", "Normal"):
            lab.work(level.lower(), queue, priority=level)
    assert lab.sequence() == ["critical", "high", "normal", "low", "background"]


@case("Task.deadline")
def what_must_start_first_goes_first(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    with lab.solo_taken():
        lab.work("late", queue, deadline=from_now(3000))
        lab.work("early", queue, deadline=from_now(1000))
        lab.work("middle", queue, deadline=from_now(2000))
    assert lab.sequence() == ["early", "middle", "late"]


@case("TaskQueue.deadlines.maxQueueSeconds")
def a_task_without_a_deadline_has_one_for_its_order(lab: Lab) -> None:
    patient = lab.queue("patient", pools=[SOLO])
    with lab.solo_taken():
        lab.work("dated", patient, deadline=from_now(600))
        lab.work("undated", patient)
    hasty = lab.queue("hasty", pools=[SOLO], deadlines={"maxQueueSeconds": 5})
    with lab.solo_taken():
        lab.work("dated-2", hasty, deadline=from_now(600))
        lab.work("undated-2", hasty)
    assert lab.sequence() == ["dated", "undated", "undated-2", "dated-2"]


@case("TaskQueue.order.policy")
def a_queue_may_ignore_levels(lab: Lab) -> None:
    fifo = lab.queue("fifo", pools=[SOLO], order={"policy": "Fifo"})
    with lab.solo_taken():
        lab.work("first", fifo, priority="Low")
        lab.next_second()
        lab.work("second", fifo, priority="Critical", deadline=from_now(20))
    dated = lab.queue("dated", pools=[SOLO], order={"policy": "DeadlineFirst"})
    with lab.solo_taken():
        lab.work("later", dated, priority="Critical", deadline=from_now(900))
        lab.work("sooner", dated, priority="Low", deadline=from_now(300))
    assert lab.sequence() == ["first", "second", "sooner", "later"]


@case("TaskQueue.order.level")
def such_a_queue_competes_at_a_level_of_its_own(lab: Lab) -> None:
    plain = lab.queue("plain", pools=[SOLO])
    fifo = lab.queue("fifo", pools=[SOLO], order={"policy": "Fifo", "level": "High"})
    with lab.solo_taken():
        lab.work("normal", plain)
        lab.work("fifo", fifo, priority="Background")
        lab.work("critical", plain, priority="Critical")
    assert lab.sequence() == ["critical", "fifo", "normal"]


@case("TaskQueue.order.criticalPathFirst")
def the_longest_chain_goes_first(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO], order={"criticalPathFirst": True})
    with lab.solo_taken():
        lab.work("alone", queue)
        lab.next_second()
        root = lab.work("root", queue)
        middle = lab.work("middle", queue, dependsOn=[{"name": root}])
        lab.work("leaf", queue, dependsOn=[{"name": middle}])
    assert lab.sequence()[:2] == ["root", "middle"]


@case("TaskQueue.weight")
def queues_share_by_weight(lab: Lab) -> None:
    heavy = lab.queue("heavy", pools=[SOLO], weight=3)
    light = lab.queue("light", pools=[SOLO])
    with lab.solo_taken():
        # Were it by age alone, these would go first.
        for i in range(8):
            lab.work(f"light-{i}", light, 0.05)
        lab.next_second()
        for i in range(8):
            lab.work(f"heavy-{i}", heavy, 0.05)
    assert 5 <= sum(name.startswith("heavy") for name in lab.sequence()[:8]) <= 7


@case("TaskQueue.tenants.weights[].name", "TaskQueue.tenants.weights[].weight", "Task.tenant")
def tenants_share_by_weight(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO], tenants={"weights": [{"name": "heavy", "weight": 3}]})
    with lab.solo_taken():
        # Were it by age alone, these would go first.
        for i in range(8):
            lab.work(f"light-{i}", queue, 0.05, tenant="light")
        lab.next_second()
        for i in range(8):
            lab.work(f"heavy-{i}", queue, 0.05, tenant="heavy")
    assert 5 <= sum(name.startswith("heavy") for name in lab.sequence()[:8]) <= 7


@case("TaskQueue.tenants.defaultWeight")
def tenants_that_are_not_named_have_a_weight_too(lab: Lab) -> None:
    tenants = {"weights": [{"name": "named", "weight": 1}], "defaultWeight": 3}
    queue = lab.queue(pools=[SOLO], tenants=tenants)
    with lab.solo_taken():
        # Were it by age alone, these would go first.
        for i in range(8):
            lab.work(f"named-{i}", queue, 0.05, tenant="named")
        lab.next_second()
        for i in range(8):
            lab.work(f"other-{i}", queue, 0.05, tenant="other")
    assert 5 <= sum(name.startswith("other") for name in lab.sequence()[:8]) <= 7


@case("TaskQueue.tenants.emergency")
def emergency_is_for_tenants_that_are_named(lab: Lab) -> None:
    queue = lab.queue(tenants={"emergency": ["allowed"]})
    stranger = lab.task("stranger", queue, priority="Emergency", tenant="stranger")
    allowed = lab.task("allowed", queue, priority="Emergency", tenant="allowed")
    assert lab.end(allowed)["phase"] == "Succeeded"
    lab.passed_over(stranger)
    lab.room.patch("tasks", stranger, priority="High")
    assert lab.end(stranger)["phase"] == "Succeeded"


@case("TaskQueue.tenants.emergencyLeased")
def emergencies_have_a_cap(lab: Lab) -> None:
    queue = lab.queue(tenants={"emergency": ["a", "b"], "emergencyLeased": 1})
    first, done = lab.busy("first", queue, priority="Emergency", tenant="a")
    second = lab.task("second", queue, priority="Emergency", tenant="a")
    other = lab.task("other", queue, priority="Emergency", tenant="b")
    assert lab.end(other)["phase"] == "Succeeded"
    lab.passed_over(second)
    done.touch()
    lab.room.ended(first, second)


@case("TaskQueue.aging.stepSeconds")
def waiting_lifts_a_task(lab: Lab) -> None:
    aging = lab.queue("aging", pools=[SOLO], aging={"stepSeconds": 0.2})
    ageless = lab.queue("ageless", pools=[SOLO], aging={"stepSeconds": 0})
    with lab.solo_taken():
        lab.work("old", aging, priority="Background")
        lab.work("stays", ageless, priority="Background")
        for _ in range(2):
            lab.next_second()
        lab.work("high", ageless, priority="High")
    assert lab.sequence() == ["old", "high", "stays"]


@case("TaskQueue.deadlines.onHopeless")
def what_cannot_be_in_time_ends_as_the_queue_says(lab: Lab) -> None:
    ends = {}
    for answer in ("Run", "Fail", "DeadLetter"):
        queue = lab.queue(answer.lower(), deadlines={"onHopeless": answer})
        ends[answer] = lab.task(answer.lower(), queue, deadline=from_now(-5))
    assert lab.end(ends["Run"])["phase"] == "Succeeded"
    status = lab.end(ends["Fail"])
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineHopeless")
    assert lab.room.in_phase(ends["DeadLetter"], "DeadLettered")["reason"] == "DeadlineHopeless"


@case("TaskQueue.expectedServiceSeconds")
def what_a_new_type_takes_is_said_by_the_queue(lab: Lab) -> None:
    long = lab.queue("long", deadlines={"onHopeless": "Fail"}, expectedServiceSeconds=600)
    short = lab.queue("short", deadlines={"onHopeless": "Fail"}, expectedServiceSeconds=0.1)
    hopeless = lab.task("hopeless", long, "fresh", deadline=from_now(60))
    feasible = lab.task("feasible", short, "fresh", deadline=from_now(60))
    assert lab.end(hopeless)["reason"] == "DeadlineHopeless"
    assert lab.end(feasible)["phase"] == "Succeeded"


@case("TaskQueue.largeTasks.holdAfterSeconds")
def an_agent_is_held_for_a_large_task(lab: Lab) -> None:
    pool = f"{lab.name}-duo"
    lab.room.pool(pool, slots=2, replicas=1, ready=1)
    queue = lab.queue(pools=[pool], largeTasks={"holdAfterSeconds": 0.5}, expectedServiceSeconds=30)
    first, done = lab.busy("first", queue)
    large = lab.work("large", queue, slots=2)
    lab.seen()
    for _ in range(2):
        lab.next_second()
    small = lab.work("small", queue, priority="High")
    lab.passed_over(large, small)
    done.touch()
    lab.room.ended(first, large, small)
    assert lab.sequence() == ["large", "small"]
    lab.room.delete("agentpools", pool)


@case("Task.notBefore")
def a_task_waits_for_its_time(lab: Lab) -> None:
    queue = lab.queue()
    task = lab.work("later", queue, notBefore=from_now(2.5))
    lab.passed_over(task)
    status = lab.end(task)
    assert datetime.fromisoformat(status["startedAt"]) >= datetime.fromisoformat(
        lab.room.get("tasks", task)["spec"]["notBefore"]
    )


@case("Task.dependsOn[].name")
def a_task_waits_for_those_it_depends_on(lab: Lab) -> None:
    queue = lab.queue()
    parent, done = lab.busy("parent", queue)
    child = lab.task("child", queue, dependsOn=[{"name": parent}])
    lab.passed_over(child)
    done.touch()
    assert lab.end(child)["phase"] == "Succeeded"
    pinned = lab.room.status("tasks", child)["dependencies"]
    uid = lab.room.get("tasks", parent)["metadata"]["uid"]
    assert [(each["name"], each["uid"]) for each in pinned] == [(parent, uid)]


@case("Task.onDependencyFailure")
def what_a_failed_parent_means(lab: Lab) -> None:
    queue = lab.queue(retry={"limit": 0})
    parent = lab.task("parent", queue, "fail")
    children = {
        answer: lab.task(answer.lower(), queue, dependsOn=[{"name": parent}], onDependencyFailure=answer)
        for answer in ("Fail", "Skip", "Run")
    }
    ends = {answer: lab.end(child) for answer, child in children.items()}
    assert (ends["Fail"]["phase"], ends["Fail"]["reason"]) == ("Failed", "DependencyFailed")
    assert (ends["Skip"]["phase"], ends["Skip"]["reason"]) == ("Cancelled", "Skipped")
    assert ends["Run"]["phase"] == "Succeeded"


@case("Task.orderingKey")
def tasks_of_one_key_run_one_after_the_other(lab: Lab) -> None:
    queue = lab.queue()
    first, done = lab.busy("first", queue, orderingKey="k")
    lab.next_second()
    second = lab.work("second", queue, 0.2, orderingKey="k")
    lab.next_second()
    third = lab.work("third", queue, orderingKey="k", priority="Critical")
    other = lab.task("other", queue, orderingKey="another")
    assert lab.end(other)["phase"] == "Succeeded"
    lab.passed_over(second, third)
    done.touch()
    lab.room.ended(first, second, third)
    assert lab.sequence() == ["second", "third"]
    assert not lab.overlap(second, third)


@case("Task.queue", "TaskQueue.paused")
def a_task_waits_in_its_queue(lab: Lab) -> None:
    paused = lab.queue("paused", paused=True)
    held = lab.task("held", paused)
    lab.passed_over(held)
    lab.room.patch("taskqueues", paused, paused=False)
    assert lab.end(held)["phase"] == "Succeeded"


@case("TaskQueue.pools", "Task.pool")
def a_queue_and_a_task_say_on_which_pools(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    assert lab.end(lab.task("of-the-queue", queue))["pool"] == SOLO
    assert lab.end(lab.task("of-its-own", queue, pool="p"))["pool"] == "p"
    assert lab.end(lab.task("plain", PLAIN))["pool"] == "p"
    nowhere = lab.task("nowhere", queue, pool="missing")
    lab.passed_over(nowhere)
    lab.room.patch("tasks", nowhere, pool="p")
    assert lab.end(nowhere)["pool"] == "p"
    until(lambda: lab.room.phase(nowhere) == "Succeeded", "it went on")
