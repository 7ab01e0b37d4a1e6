"""The main path: what a user applies becomes a result on the Task, cheaply, and every view of it tells the truth."""

from __future__ import annotations

import asyncio

from integration.controller.room import Room, metrics
from patience import until
from taskdist.core import COMPILED
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import AsyncClient


def test_an_applied_task_ends_with_its_result_and_kubectl_wait_sees_it(shared: Room) -> None:
    manifest = f"""
apiVersion: taskdist.dev/v1alpha1
kind: Task
metadata: {{name: hello, namespace: {shared.namespace}}}
spec: {{queue: q, type: echo, payload: {{answer: 42}}}}
"""
    shared.stack.kubectl("apply", "-f", "-", stdin=manifest)
    said = shared.kubectl("wait", "--for=condition=Complete", "task/hello", "--timeout=30s")
    assert "condition met" in said
    status = shared.status("tasks", "hello")
    assert status["phase"] == "Succeeded"
    assert status["result"] == {"answer": 42}
    assert (status["attempt"], status["failures"]) == (1, 0)
    assert status["agent"] in {p["metadata"]["name"] for p in shared.pods()}
    assert status["assignedAt"] <= status["startedAt"] <= status["finishedAt"]


async def test_a_task_costs_three_writes_in_its_whole_life(shared: Room, control_plane: ControlPlane) -> None:
    client = await AsyncClient(control_plane.access).open()
    seen: dict[str, set[str]] = {}
    names = {f"write-{i}" for i in range(10)}
    try:
        version = (await client.request("GET", shared.path("tasks")))["metadata"]["resourceVersion"]
        for name in sorted(names):
            await asyncio.to_thread(shared.task, name)
        async with asyncio.timeout(30):
            open_ = set(names)
            async for event in client.watch(shared.path("tasks"), version):
                task = event["object"]
                name = task["metadata"].get("name", "")
                if name in names:
                    seen.setdefault(name, set()).add(task["metadata"]["resourceVersion"])
                    if (task.get("status") or {}).get("phase") == "Succeeded":
                        open_.discard(name)
                if not open_:
                    break
        # Nothing is written after the end either: what the API server holds is what was seen last.
        for name in names:
            now = (await client.request("GET", shared.path("tasks", name)))["metadata"]["resourceVersion"]
            assert now in seen[name]
    finally:
        await client.close()
    assert {name: len(versions) for name, versions in seen.items()} == dict.fromkeys(names, 3)


def test_a_lazy_task_that_may_start_at_once_is_not_read_before_it_is_sent(shared: Room) -> None:
    shared.queue("lazy", dispatch="Lazy")

    def reads() -> float:
        told = metrics(shared.stack.operators[0]).items()
        return sum(v for k, v in told if 'verb="get"' in k and 'resource="tasks.taskdist.dev"' in k and "_total" in k)

    shared.task("lazy-0", queue="lazy")
    shared.ended("lazy-0")
    before = reads()
    for number in range(1, 6):
        shared.task(f"lazy-{number}", queue="lazy")
        shared.ended(f"lazy-{number}")
    assert reads() == before


def test_no_event_is_written_for_a_task_that_goes_well(shared: Room) -> None:
    shared.task("quiet")
    shared.ended("quiet")
    # Events are written in their order: once that of a later Task is there, one of this Task would be as well.
    shared.task("loud", "fail-permanently")
    shared.event("Task", "loud", "HandlerError")
    assert shared.events("Task", "quiet") == []


def test_conditions_of_queue_and_pool_tell_the_truth_and_columns_are_filled(shared: Room) -> None:
    sound = {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Bottleneck": "False"}
    for plural, name, own in (("agentpools", "p", "Healthy"), ("taskqueues", "q", "Accepting")):

        def settled(plural: str = plural, name: str = name, own: str = own) -> bool:
            found = {c["type"]: c["status"] for c in shared.status(plural, name).get("conditions") or []}
            return found == {**sound, own: "True"}

        until(settled, f"{plural}/{name} is ready")
        assert shared.status(plural, name)["observedGeneration"] == shared.get(plural, name)["metadata"]["generation"]
    shared.kubectl("wait", "--for=condition=Ready", "ap/p", "tq/q", "--timeout=10s")
    shared.task("column")
    shared.ended("column")
    for kind in ("tq/q", "ap/p", "tk/column"):
        header, line = shared.kubectl("get", kind).splitlines()
        assert len(header.split()) >= 4
        assert "<none>" not in line, f"{header}\n{line}"
        assert "<unknown>" not in line


def test_metrics_after_a_run_are_plausible(shared: Room) -> None:
    before = metrics(shared.stack.operators[0])
    for i in range(5):
        shared.task(f"metric-{i}")
    shared.ended(*(f"metric-{i}" for i in range(5)))
    after = metrics(shared.stack.operators[0])
    assert after["taskdist_conservation_error"] == 0
    assert after["taskdist_leader"] == 1
    assert after["taskdist_unknown_writes"] == 0
    assert after["taskdist_link_sessions"] >= 2
    core = "compiled" if COMPILED else "plain"
    assert [k for k in after if k.startswith("taskdist_build_info") and f'core="{core}"' in k], "what runs is tested"
    assign = 'taskdist_decisions_total{kind="Assign",reason="Assigned"}'
    assert after[assign] - before.get(assign, 0) == 5
    ours = f'namespace="{shared.namespace}"'
    slots = {k: v for k, v in after.items() if k.startswith("taskdist_slots{") and ours in k and 'pool="p"' in k}
    assert sum(v for k, v in slots.items() if 'state="total"' in k) == 4
    ended = [k for k in after if k.startswith("taskdist_") and "ended" in k and ours in k and "Succeeded" in k]
    assert ended, [k for k in after if ours in k]
