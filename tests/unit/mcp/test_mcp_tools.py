"""The tools, asked over the protocol: what each does, and what each refusal says to do."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from memory_cluster import MemoryView
from taskdist.api import Progress
from taskdist.api.view import Course, ExpectedStart, Explanation, TaskDetail, WhatIf
from taskdist.client.testing import FakeBackend
from taskdist.common import times
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, TASKSOURCES, ApiError, Unreachable
from unit.mcp.door import add_pod, add_pool, add_task, door, ran


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend("demo") as fake:
        yield fake


ACTIONS = {
    "task-queue": {"queues", "submit", "inspect", "wait", "explain", "cancel", "redrive"},
    "load-balancer": {"pools", "agents", "load", "strategies", "bottlenecks"},
    "scheduler": {"order", "what_if", "simulate"},
}
OTHERS = {"get_distribution_context", "get_progress", "get_delivery_notification"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tools_are_there_typed_and_taught(fake: FakeBackend, mode: str) -> None:
    async with door(fake, mode=mode) as asked:
        tools = {each.name: each for each in (await asked.client.list_tools()).tools}
    assert set(tools) == {*ACTIONS, *OTHERS}
    for name, tool in tools.items():
        assert tool.output_schema is not None
        assert tool.output_schema["properties"]
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (name != "task-queue")
        assert len(tool.description or "") > 200
    for name, actions in ACTIONS.items():
        described = set(re.findall(r"^- (\w+):", tools[name].description or "", re.MULTILINE))
        typed = set(tools[name].input_schema["properties"]["request"]["discriminator"]["mapping"])
        assert described == typed == actions


INSTEAD = "the leader cannot be asked: there is none here; found out from the cluster's objects instead"


async def test_the_leader_tells_place_start_and_progress_of_a_task(fake: FakeBackend) -> None:
    fake.hold()
    fake.queue("q")
    await add_task(fake, "t", status={"phase": "Assigned", "attempt": 2, "progress": {"fraction": 0.25}})
    uid = (await fake.get(TASKS, "t"))["metadata"]["uid"]
    view = MemoryView()
    at = datetime(2999, 1, 1, tzinfo=UTC)
    view.answers["/v1/namespaces/demo/tasks/t"] = TaskDetail(
        name="t",
        namespace="demo",
        uid=uid,
        queue="q",
        type="work",
        level="Normal",
        age=1.0,
        phase="Assigned",
        created=at,
        attempt=2,
        progress=Progress(fraction=0.75, message="page 9"),
        position=3,
        expected_start=ExpectedStart(at=at, earliest=at, latest=at),
    )
    async with door(fake, view=view) as asked:
        told = await asked.ask("task-queue", request={"action": "inspect", "task": "t"})
    task = told["task"]
    assert (task["position"], task["progress"], task["progress_message"]) == (3, 0.75, "page 9")
    assert task["expected_start"]["at"] == "2999-01-01T00:00:00Z"
    assert "warnings" not in told
    del view.answers["/v1/namespaces/demo/tasks/t"]
    async with door(fake, view=view) as asked:
        told = await asked.ask("task-queue", request={"action": "inspect", "task": "t"})
    assert (told["task"]["progress"], told["warnings"]) == (0.25, [INSTEAD])


async def test_the_leader_explains_and_plays_and_it_is_said_where_it_does_not(fake: FakeBackend) -> None:
    fake.hold()
    fake.queue("q")
    await add_pool(fake)
    await add_task(fake, "t", status={"phase": "Pending"})
    view = MemoryView()
    explain = {"action": "explain", "task": "t"}
    what_if = {"action": "what_if", "task": "t", "agents": {"p": 2}}
    async with door(fake, view=view) as asked:
        found = await asked.ask("task-queue", request=explain)
        played = await asked.ask("scheduler", request=what_if)
    assert found["warnings"] == [INSTEAD]
    assert INSTEAD in played["warnings"]
    view.explanations["t"] = Explanation(
        task="demo/t", queue="q", phase="Pending", reason="AgentHeld", message="p-0 is held", position=4
    )
    told = WhatIf(as_it_is=Course(starts=0.0), changed=Course(starts=0.5))
    view.answers["/v1/namespaces/demo/tasks/t/what-if"] = told
    async with door(fake, view=view) as asked:
        found = await asked.ask("task-queue", request=explain)
        played = await asked.ask("scheduler", request=what_if)
    assert (found["explanation"]["reason"], found["explanation"]["position"]) == ("AgentHeld", 4)
    assert played["comparison"]["changed"]["starts"] == 0.5
    assert "warnings" not in found
    assert "warnings" not in played
    assert view.asked[-1].body == b'{"agents":{"p":2}}'


async def test_queues_tell_what_waits_at_sources(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.queue("idle")
    backlog = {"messages": 12, "at": times.utc(time.time()), "oldest": "2026-01-01T00:00:00Z"}
    spec = {"task": {"queue": "q"}}
    await fake.create(TASKSOURCES, {"metadata": {"name": "orders"}, "spec": spec, "status": {"backlog": backlog}})
    async with door(fake) as asked:
        told = await asked.ask("task-queue", request={"action": "queues"})
        report = await asked.report("taskdist://queues/q")
    idle, busy = told["queues"]
    assert (busy["waiting_outside"], busy["oldest_source"], busy["oldest_outside"]) == (
        12,
        "orders",
        "2026-01-01T00:00:00Z",
    )
    assert "12 messages without a Task yet at sources" in told["said"]
    assert idle.get("waiting_outside") is None
    assert "12 without a Task yet; the oldest, at orders, since 2026-01-01T00:00:00Z" in report


async def test_a_task_goes_from_submission_to_its_result(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.handler("greet")(lambda payload: {"greeting": f"Hello, {payload['name']}!"})
    wanted = {"action": "submit", "queue": "q", "type": "greet", "payload": {"name": "you"}, "idempotency_key": "k"}
    async with door(fake) as asked:
        first = await asked.ask("task-queue", request=wanted)
        again = await asked.ask("task-queue", request=wanted)
        done = await asked.ask("task-queue", request={"action": "wait", "task": first["task"]["name"]})
    assert (first["created"], again["created"]) == (True, False)
    assert first["task"]["name"] == again["task"]["name"]
    assert done["task"]["result"] == {"greeting": "Hello, you!"}
    assert done["task"]["over"] is True
    assert len(fake.tasks()) == 1


async def test_all_that_may_be_said_of_a_task_reaches_its_spec(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.hold()
    said = {
        "name": "a",
        "priority": "High",
        "tenant": "red",
        "deadline": "2040-01-01T00:00:00Z",
        "not_before": "2039-01-01T00:00:00Z",
        "execution_timeout": 60.0,
        "waiting_timeout": 30.0,
        "ttl": 0,
        "depends_on": ["b"],
        "ordering_key": "o",
        "concurrency_key": "c",
        "skills": ["gpu"],
        "slots": 2,
        "resources": {"memory": 4},
        "pool": "fake",
        "labels": {"team": "a"},
    }
    async with door(fake) as asked:
        await asked.ask("task-queue", request={"action": "submit", "queue": "q", "type": "t", **said})
    (task,) = fake.tasks()
    assert task["metadata"]["labels"] == {"team": "a"}
    assert task["spec"] == {
        "queue": "q",
        "type": "t",
        "priority": "High",
        "tenant": "red",
        "deadline": "2040-01-01T00:00:00Z",
        "notBefore": "2039-01-01T00:00:00Z",
        "timeouts": {"executionSeconds": 60.0, "waitingSeconds": 30.0},
        "ttlSecondsAfterFinished": 0,
        "dependsOn": [{"name": "b"}],
        "orderingKey": "o",
        "concurrencyKey": "c",
        "skills": ["gpu"],
        "slots": 2,
        "resources": {"memory": 4},
        "pool": "fake",
    }


async def test_a_likely_slip_is_told_with_the_call_that_made_it(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.handler("greet")(lambda payload: {})
    async with door(fake) as asked:
        slip = await asked.ask("task-queue", request={"action": "submit", "queue": "q", "type": "gret"})
        right = await asked.ask("task-queue", request={"action": "submit", "queue": "q", "type": "greet"})
    assert slip["warnings"] == ["no agent of pool fake handles type 'gret'; did you mean 'greet'?"]
    assert "warnings" not in right


async def test_waiting_in_vain_says_that_it_goes_on(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.hold()
    await add_task(fake, "a")
    async with door(fake) as asked:
        answer = await asked.ask("task-queue", request={"action": "wait", "task": "a", "timeout_seconds": 0})
    assert answer["task"]["over"] is False
    assert "It goes on" in answer["said"]


async def test_a_task_is_cancelled_and_a_dead_letter_redriven(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.hold()
    await add_task(fake, "a")
    await add_task(fake, "b", status={"phase": "DeadLettered", "reason": "HandlerError"})
    async with door(fake) as asked:
        await asked.ask("task-queue", request={"action": "cancel", "task": "a"})
        ended = await asked.ask("task-queue", request={"action": "wait", "task": "a"})
        late = await asked.ask("task-queue", request={"action": "cancel", "task": "a"})
        redriven = await asked.ask("task-queue", request={"action": "redrive", "task": "b"})
    assert ended["task"]["phase"] == late["task"]["phase"] == "Cancelled"
    assert redriven["said"] == "task b waits again."
    assert redriven["task"]["phase"] == "Pending"


async def test_tasks_are_listed_by_what_is_asked_for(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.queue("other")
    fake.hold()
    for number in range(3):
        await add_task(fake, f"a{number}")
    await add_task(fake, "b", "other", status={"phase": "Failed", "reason": "HandlerError", "message": "no such file"})
    async with door(fake) as asked:
        some = await asked.ask("task-queue", request={"action": "inspect", "queue": "q", "most": 2})
        every = await asked.ask("task-queue", request={"action": "inspect", "queue": "q", "most": 3})
        failed = await asked.ask("task-queue", request={"action": "inspect", "phase": "Failed"})
    assert ([each["name"] for each in some["tasks"]], some["more"]) == (["a0", "a1"], True)
    assert (len(every["tasks"]), every["more"]) == (3, False)
    assert [(each["name"], each["message"]) for each in failed["tasks"]] == [("b", "no such file")]


async def test_queues_say_whether_they_take_tasks_and_what_holds_them_up(fake: FakeBackend) -> None:
    fake.queue("open")
    fake.queue("shut", drained=True)
    held = {"type": "Bottleneck", "status": "True", "reason": "NoFreeSlots", "message": "12 Tasks wait for a slot."}
    await fake.patch(TASKQUEUES, "open", {"status": {"waiting": 12, "leased": 3, "conditions": [held]}})
    async with door(fake) as asked:
        answer = await asked.ask("task-queue", request={"action": "queues"})
        bottlenecks = await asked.ask("load-balancer", request={"action": "bottlenecks"})
    opened, shut = answer["queues"]
    assert answer["said"] == "2 queues: 12 Tasks waiting, 3 running. No new ones are taken by shut."
    assert opened["bottleneck"] == "NoFreeSlots: 12 Tasks wait for a slot."
    assert (shut["accepting"], shut["why_not_accepting"]) == (False, "spec.drained is true")
    assert bottlenecks["bottlenecks"] == [
        {"kind": "TaskQueue", "name": "open", "what": "NoFreeSlots: 12 Tasks wait for a slot."}
    ]


async def test_an_object_that_cannot_be_read_hides_no_other(fake: FakeBackend) -> None:
    fake.queue("q")
    await fake.create(TASKQUEUES, {"metadata": {"name": "odd"}, "spec": {"pools": 3}})
    async with door(fake) as asked:
        answer = await asked.ask("task-queue", request={"action": "queues"})
        refusal = await asked.refused("task-queue", request={"action": "queues", "queue": "odd"})
    assert [each["name"] for each in answer["queues"]] == ["q"]
    (warning,) = answer["warnings"]
    assert "TaskQueue odd cannot be read: spec.pools" in warning
    assert "TaskQueue odd cannot be read: spec.pools" in refusal


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such Task": ("task-queue", {"action": "inspect", "task": "nope"}, "List the Tasks that are there"),
    "no such queue, with the nearest": ("task-queue", {"action": "queues", "queue": "qq"}, "Did you mean 'q'?"),
    "no such queue, with those there are": ("task-queue", {"action": "queues", "queue": "xyz"}, "There are: full, q."),
    "no such pool": ("load-balancer", {"action": "agents", "pool": "fak"}, "Did you mean 'fake'?"),
    "no such queue to order": ("scheduler", {"action": "order", "queue": "qq"}, "Did you mean 'q'?"),
    "a full queue": ("task-queue", {"action": "submit", "queue": "full", "type": "t"}, "Submit it again in 30 s"),
    "a Task that is not taken": (
        "task-queue",
        {"action": "submit", "queue": "q", "type": "no type"},
        "Mend spec.type and submit again",
    ),
    "a Task that is no dead letter": (
        "task-queue",
        {"action": "redrive", "task": "a"},
        "Task a is Pending: only a dead letter can be redriven.",
    ),
    "a change of nothing": ("scheduler", {"action": "what_if", "task": "a"}, "Say what would be different"),
    "a change of a pool that is not there": (
        "scheduler",
        {"action": "what_if", "task": "a", "agents": {"nope": 1}},
        "no such AgentPool",
    ),
    "an action that there is not": ("task-queue", {"action": "drop"}, "'queues', 'submit', 'inspect'"),
    "a field that there is not": ("task-queue", {"action": "wait", "task": "a", "for": 3}, "request.wait.for"),
    "a field that is missing": ("task-queue", {"action": "submit", "queue": "q"}, "request.submit.type"),
    "a time out of bounds": (
        "task-queue",
        {"action": "wait", "task": "a", "timeout_seconds": 1e9},
        "less than or equal to 600",
    ),
}


@pytest.mark.parametrize(("tool", "request_", "words"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_says_what_to_do(fake: FakeBackend, tool: str, request_: dict[str, Any], words: str) -> None:
    fake.queue("q")
    fake.queue("full", drained=True)
    fake.hold()
    await add_task(fake, "a")
    async with door(fake) as asked:
        said = await asked.refused(tool, request=request_)
    assert words in said


TROUBLE = {
    "no right": (ApiError(403, "Forbidden", "tasks is forbidden"), "`get`, `list`, `watch`, `create` and `patch`"),
    "out of reach": (Unreachable("connection refused"), "look at the kubeconfig or the address of the gateway"),
    "no such kind": (ApiError(404, "NotFound", "the server could not find the requested resource"), "install taskdist"),
}


@pytest.mark.parametrize(("trouble", "words"), TROUBLE.values(), ids=TROUBLE.keys())
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        pytest.param("task-queue", {"request": {"action": "inspect"}}, id="task-queue"),
        pytest.param("load-balancer", {"request": {"action": "load"}}, id="load-balancer"),
        pytest.param("scheduler", {"request": {"action": "order"}}, id="scheduler"),
        pytest.param("get_progress", {}, id="progress"),
    ],
)
async def test_a_cluster_in_trouble_is_told(
    fake: FakeBackend, tool: str, arguments: dict[str, Any], trouble: ApiError | Unreachable, words: str
) -> None:
    async with door(fake) as asked:
        fake.fail_requests(trouble)
        assert words in await asked.refused(tool, **arguments)


async def test_pools_agents_and_their_load(fake: FakeBackend) -> None:
    await fake.patch(AGENTPOOLS, "fake", {"spec": {"slots": 4}})
    breaker = {"agent": "p-1", "state": "Open", "since": "2026-03-01T11:00:00Z"}
    figures = {"type": "work", "count": 7, "meanSeconds": 2.5, "successRate": 0.5}
    status: dict[str, Any] = {"readyReplicas": 2, "desiredReplicas": 3, "slots": 8, "busySlots": 4}
    status |= {"breakers": [breaker], "performance": [figures], "scalingReason": "Queued", "scalingMessage": "2 wait."}
    await add_pool(fake, slots=4, skills=["gpu"], costPerHour=1.5, scaling={"maxReplicas": 5}, status=status)
    await add_pod(fake, "p-0")
    await add_pod(fake, "p-1")
    fake.hold()
    await add_task(fake, "a", status=ran("p-0", 1.0, None), slots=3)
    await add_task(fake, "b", status=ran("p-1", 1.0, None))
    async with door(fake) as asked:
        pools = await asked.ask("load-balancer", request={"action": "pools", "pool": "p"})
        agents = await asked.ask("load-balancer", request={"action": "agents", "pool": "p"})
        load = await asked.ask("load-balancer", request={"action": "load"})
    assert pools["pools"] == [
        {
            "name": "p",
            "agents_ready": 2,
            "agents_wanted": 3,
            "agents_least": 0,
            "agents_most": 5,
            "wanted_because": "Queued: 2 wait.",
            "slots": 8,
            "busy_slots": 4,
            "utilization": 0.5,
            "slots_per_agent": 4,
            "skills": ["gpu"],
            "resources": {},
            "cost_per_hour": 1.5,
            "quality": 1.0,
            "types": [{"type": "work", "attempts": 7, "mean_seconds": 2.5, "success_rate": 0.5}],
            "open_breakers": [{"agent": "p-1", "state": "Open", "since": "2026-03-01T11:00:00+00:00"}],
        }
    ]
    assert agents["agents"] == [
        {"name": "p-0", "ready": True, "slots": 4, "busy_slots": 3, "tasks": ["a"], "breaker": "Closed"},
        {"name": "p-1", "ready": True, "slots": 4, "busy_slots": 1, "tasks": ["b"], "breaker": "Open"},
    ]
    empty, full = load["load"]
    assert empty == {"pool": "fake", "agents": 0, "slots": 0, "busy_slots": 0}
    # Busy fractions of 0.75 and 0.25: a mean of 0.5, a deviation of 0.25.
    assert full == {
        "pool": "p",
        "agents": 2,
        "slots": 8,
        "busy_slots": 4,
        "utilization": 0.5,
        "load_variance": 0.5,
        "fullest": "p-0",
        "emptiest": "p-1",
    }


async def test_strategies_are_told_with_what_they_do(fake: FakeBackend) -> None:
    route = {
        "name": "large",
        "match": {"type": "scan"},
        "steps": [{"pools": ["p"], "strategy": "Cost"}, {"pools": ["p"]}],
    }
    fake.queue("q", strategy="LeastLoaded", routes=[route])
    async with door(fake) as asked:
        answer = await asked.ask("load-balancer", request={"action": "strategies"})
    assert answer["strategies"] == [
        {"queue": "q", "strategy": "LeastLoaded", "routes": {"large": ["Cost", "LeastLoaded"]}}
    ]
    assert "Pack (fullest first)" in answer["rules"]


@pytest.fixture
async def busy(fake: FakeBackend) -> FakeBackend:
    """One agent of one slot, busy; three Tasks wait, of which one goes before those that came earlier."""
    fake.queue("q", pools=["p"], expectedServiceSeconds=10)
    fake.hold()
    await add_pool(fake, slots=1, replicas=1)
    now = time.time()
    await add_task(fake, "running", status=ran("p-0", now - 1, None, agentUid=await add_pod(fake, "p-0")))
    for number, level in enumerate(["Normal", "Normal", "High"]):
        await add_task(fake, f"t{number}", created=now - 9 + number, priority=level)
    return fake


async def test_the_order_is_that_in_which_they_would_start(busy: FakeBackend) -> None:
    async with door(busy) as asked:
        answer = await asked.ask("scheduler", request={"action": "order", "queue": "q"})
        first = await asked.ask("scheduler", request={"action": "order", "most": 1})
    assert [(each["task"], each["position"]) for each in answer["order"]] == [("t2", 1), ("t0", 2), ("t1", 3)]
    assert {each["reason"] for each in answer["order"]} == {"Queued"}
    assert answer["said"] == "3 Tasks waiting in queue q. Next: t2 (Queued)."
    assert ([each["task"] for each in first["order"]], first["waiting"]) == (["t2"], 3)


def starts(course: dict[str, Any]) -> str:
    return str(course["expected_start"]["at"])


async def test_what_if_compares_as_it_is_with_the_change(busy: FakeBackend) -> None:
    async with door(busy) as asked:
        raised = await asked.ask("scheduler", request={"action": "what_if", "task": "t1", "priority": "Critical"})
        more = await asked.ask("scheduler", request={"action": "simulate", "queue": "q", "agents": {"p": 3}})
    for answer in (raised, more):
        assert starts(answer["comparison"]["changed"]) < starts(answer["comparison"]["as_it_is"])
    assert more["comparison"]["task"] == "t1"
    assert more["said"].startswith("3 Tasks waiting in queue q; the last of them, t1 starts at ")


async def test_nothing_that_waits_needs_no_simulation(fake: FakeBackend) -> None:
    fake.queue("q")
    async with door(fake) as asked:
        answer = await asked.ask("scheduler", request={"action": "simulate", "queue": "q", "agents": {"fake": 3}})
    assert answer["said"] == "Nothing waits in queue q."


async def test_what_agents_cannot_help_is_not_simulated(fake: FakeBackend) -> None:
    fake.queue("q")
    fake.hold()
    await add_task(fake, "a", suspend=True)
    async with door(fake) as asked:
        said = await asked.refused("scheduler", request={"action": "simulate", "queue": "q", "agents": {"fake": 3}})
    assert "action order says what each waits for" in said
