"""The failed items of an array are tried again alone: by the dead letter itself, or by a new array."""

from typing import Any

import pytest

from memory_cluster import MemoryCluster, call
from taskdist.client import AsyncClient, Client, TaskdistError
from taskdist.client.changing import REDRIVE_OF
from taskdist.client.testing import FakeBackend
from taskdist.kube import TASKS

ITEMS = [{"n": n} for n in range(6)]
ENDED = {"reason": "RetriesExhausted", "array": {"succeeded": "0,2-4", "failed": "1,5", "commit": "1-1"}}


def array(cluster: MemoryCluster, phase: str, status: Any = None, **spec: Any) -> None:
    cluster.task("a", {"phase": phase} | ENDED | (status or {}), array={"items": ITEMS, "completions": 6}, **spec)


async def test_a_dead_letter_waits_again_itself() -> None:
    cluster = MemoryCluster()
    array(cluster, "DeadLettered")
    async with AsyncClient(backend=cluster) as client:
        first, second = await client.redrive_failed("a"), await client.redrive_failed("a")
    assert (first.name, first.created, second.created) == ("a", True, False)
    assert [each for each in cluster.calls if each.startswith("patch a")] == [
        "patch a {'metadata': {'uid': 'uid-a'}, 'spec': {'redrive': 1}}"
    ]


@pytest.mark.parametrize("phase", ["Failed", "Cancelled", "Succeeded"])
async def test_of_one_that_has_ended_a_new_array_gets_the_failed_items(phase: str) -> None:
    cluster = MemoryCluster()
    array(cluster, phase, idempotencyKey="k", priority="High", cancel=True)
    async with AsyncClient(backend=cluster) as client:
        made, again = await client.redrive_failed("a"), await client.redrive_failed("a")
    assert (made.name, made.created, again.name, again.created) == ("a-failed-uid-a", True, made.name, False)
    spec = made.obj["spec"]
    assert spec == {"queue": "q", "type": "t", "priority": "High", "array": {"items": [{"n": 1}, {"n": 5}]}}
    assert made.obj["metadata"]["labels"] == {REDRIVE_OF: "uid-a"}


@pytest.mark.parametrize(
    ("phase", "status", "spec", "words"),
    [
        pytest.param("Assigned", {}, {"count": 6}, "once it has ended", id="it runs"),
        pytest.param("Failed", {}, {"count": 6}, "onExhausted: DeadLetter", id="its items are indexes"),
        pytest.param("Succeeded", {"array": {"succeeded": "0-5"}}, {"count": 6}, "none of its items", id="none failed"),
        pytest.param("DeadLettered", {}, None, "is no array", id="no array"),
    ],
)
def test_what_cannot_be_is_said(phase: str, status: Any, spec: Any, words: str) -> None:
    cluster = MemoryCluster()
    cluster.task("a", {"phase": phase} | ENDED | status, **({"array": spec} if spec else {}))
    with Client(backend=cluster) as client, pytest.raises(TaskdistError, match=words):
        client.redrive_failed("a")
    said = call(cluster, "redrive", "a", "--failed")
    assert (said.code, words in said.err) == (1, True)


def test_the_command_says_which_task_tries_them() -> None:
    cluster = MemoryCluster()
    array(cluster, "Failed")
    assert "2 items would be tried again (1,5)" in call(cluster, "redrive", "a", "--failed", "--dry-run").out
    assert "are tried again by task.taskdist.dev/a-failed-uid-a" in call(cluster, "redrive", "a", "--failed").out
    assert "were already tried again by" in call(cluster, "redrive", "a", "--failed").out
    assert call(cluster, "redrive", "--all", "--failed").code == 2
    assert (str(TASKS), "ns", "a-failed-uid-a") in cluster.objects


async def test_the_new_array_runs_them_and_no_others() -> None:
    with FakeBackend() as fake:
        fake.queue("work", retry={"limit": 0})
        ran: list[int] = []

        def odd(payload: dict[str, Any]) -> dict[str, Any]:
            ran.append(payload["n"])
            if len(ran) <= 6 and payload["n"] in (1, 5):
                raise RuntimeError("not yet")
            return payload

        fake.handler("odd")(odd)
        async with AsyncClient(backend=fake) as client:
            seen = [each async for each in client.map("work", "odd", ITEMS)]
            task = next(each.task for each in seen if each.error is not None)
            assert task is not None
            state = await client.wait(await client.redrive_failed(task), timeout=20)
        assert (state.phase, sorted(ran[6:])) == ("Succeeded", [1, 5])
