"""Arrays are explained in the same words by the leader and by the cluster's objects, and counted alike everywhere."""

from typing import Any

import pytest

from memory_cluster import ASSIGNED, MemoryCluster, call
from taskdist.api import Priority
from taskdist.api.view import Changes, Items
from taskdist.client import AsyncClient
from taskdist.client.backend import Source
from taskdist.client.explained import items_of
from taskdist.client.explaining import explain, order
from taskdist.client.states import story
from taskdist.kube import LEASES, TASKS
from unit.client.test_explained_alike import Led, pod, pool, queue

FAR = "2999-01-01T00:00:00Z"
PART = {"phase": "Assigned", "attempt": 1, "epoch": 1, "agent": "p-0", "agentUid": "uid-p-0", "pool": "p"}
RUNS = {"phase": "Assigned", "reason": "Assigned", "epoch": 1, "attempt": 3}
FAILED = [{"index": 3, "reason": "HandlerError", "message": "ValueError: three"}]


def account(**more: Any) -> dict[str, Any]:
    return {"array": {"done": "2/9", "succeeded": "0-1", "commit": "1-9", **more}}


@pytest.fixture
def cluster() -> MemoryCluster:
    """A queue, a pool, and one agent of one slot, which is busy."""
    made = MemoryCluster()
    queue(made)
    pool(made)
    pod(made)
    made.task("runs", ASSIGNED | {"agentUid": "uid-p-0", "epoch": 1})
    lease = {"holderIdentity": "taskdist-0", "leaseDurationSeconds": 60, "renewTime": FAR}
    made.add(LEASES, {"metadata": {"name": "taskdist", "namespace": "taskdist-system"}, "spec": lease})
    return made


async def alike(cluster: MemoryCluster) -> dict[str, Any]:
    """What both tell of the array `a`."""
    found = await explain(cluster, "a", view=Led(cluster))
    by_leader, by_objects = found.story, (await explain(cluster, "a")).story
    settled = found.story["phase"] not in ("Pending", "Assigned")
    assert (found.told_by, found.warnings) == (Source.CLUSTER if settled else Source.LEADER, ())
    by_leader.pop("operator", None)
    by_objects.pop("operator", None)
    assert list(by_leader.items()) == list(by_objects.items())
    return by_leader


@pytest.mark.parametrize(
    ("arrange", "spec", "reason"),
    [
        pytest.param(lambda c: None, {}, "Queued", id="every agent is busy"),
        pytest.param(lambda c: queue(c, paused=True), {}, "QueuePaused", id="its queue is paused"),
        pytest.param(lambda c: pod(c, ready=False), {}, "NoAgent", id="no agent is ready"),
        pytest.param(lambda c: None, {"queue": "x"}, "QueueNotFound", id="there is no queue"),
        pytest.param(lambda c: None, {"suspend": True}, "Suspended", id="it is suspended"),
        pytest.param(lambda c: None, {"skills": ["gpu"]}, "SkillMissing", id="no agent has its skill"),
        pytest.param(lambda c: None, {"dependsOn": [{"name": "runs"}]}, "Dependency", id="a parent has not ended"),
        pytest.param(lambda c: queue(c, quota={"leased": 1}), {}, "QuotaExceeded", id="the quota is full"),
    ],
)
async def test_an_array_waits_for_what_its_first_chunk_waits_for(
    cluster: MemoryCluster, arrange: Any, spec: dict[str, Any], reason: str
) -> None:
    arrange(cluster)
    cluster.task("a", array={"count": 40}, **spec)
    told = await alike(cluster)
    assert (told["phase"], told["reason"]) == ("Pending", reason)
    assert told["items"] == {"count": 40, "waiting": 40}


async def test_agents_that_take_no_chunks_are_named(cluster: MemoryCluster) -> None:
    cluster.task("a", array={"count": 40})
    told = (await explain(cluster, "a", view=Led(cluster, arrays=False))).story
    assert told["reason"] == "SkillMissing"
    assert "takes chunks of an array's items" in told["message"]
    # The cluster's objects do not tell it: what the operator wrote stands.
    cluster.task("a", {"reason": "SkillMissing", "message": told["message"]}, array={"count": 40})
    found = (await explain(cluster, "a")).story
    assert (found["reason"], found["message"]) == (told["reason"], told["message"])


async def test_that_agents_take_chunks_is_no_skill_that_they_offer(cluster: MemoryCluster) -> None:
    cluster.task("a", skills=["gpu"])
    assert "they offer: none" in (await explain(cluster, "a", view=Led(cluster))).story["message"]


async def test_a_duplicate_array_waits_for_the_other(cluster: MemoryCluster) -> None:
    for name in ("a", "0"):
        cluster.task(name, array={"count": 40}, idempotencyKey="k")
    assert (await alike(cluster))["reason"] == "Duplicate"


async def test_while_chunks_run_it_is_told_why_the_rest_waits(cluster: MemoryCluster) -> None:
    del cluster.objects[(str(TASKS), cluster.namespace, "runs")]
    cluster.task(
        "a", RUNS | account(parts={"1-91": PART | {"items": "2,4-5"}}, failed="3", errors=FAILED), array={"count": 9}
    )
    told = await alike(cluster)
    items = {"count": 9, "succeeded": 2, "failed": 1, "running": 3, "waiting": 3, "parts": 1, "agents": ["p-0"]}
    assert (told["phase"], told["items"], told["errors"]) == ("Assigned", items, FAILED)
    assert (told["waits"]["reason"], told["waits"]["position"]) == ("Queued", 1)


async def test_as_many_chunks_as_it_allows_are_out(cluster: MemoryCluster) -> None:
    del cluster.objects[(str(TASKS), cluster.namespace, "runs")]
    cluster.task("a", RUNS | account(parts={"1-91": PART | {"items": "2"}}), array={"count": 9, "parallelism": 1})
    told = (await alike(cluster))["waits"]
    assert (told["reason"], "spec.array.parallelism" in told["message"]) == ("Queued", True)


async def test_failed_items_wait_for_their_next_try(cluster: MemoryCluster) -> None:
    again = [{"failures": 1, "notBefore": FAR, "items": "2-8"}]
    cluster.task("a", RUNS | account(retrying=again), array={"count": 9})
    told = await alike(cluster)
    assert (told["items"]["waiting"], told["items"]["retrying"]) == (7, 7)
    assert told["waits"]["reason"] == "BackingOff"
    assert "7 items that failed are tried again" in told["waits"]["message"]


async def test_where_all_runs_nothing_is_said_to_wait(cluster: MemoryCluster) -> None:
    del cluster.objects[(str(TASKS), cluster.namespace, "runs")]
    cluster.task("a", RUNS | account(parts={"1-91": PART | {"items": "2-8"}}), array={"count": 9})
    assert "waits" not in await alike(cluster)


ENDED = account(succeeded="0-2,4-8", failed="3", errors=FAILED, done="8/9")


@pytest.mark.parametrize("phase", ["Failed", "DeadLettered", "Cancelled", "Succeeded"])
async def test_how_it_ended_is_told_alike(cluster: MemoryCluster, phase: str) -> None:
    cluster.task("a", {"phase": phase, "reason": "RetriesExhausted", "message": "8 of 9"} | ENDED, array={"count": 9})
    told = await alike(cluster)
    assert told["items"] == {"count": 9, "succeeded": 8, "failed": 1}
    assert told["errors"] == FAILED


async def test_what_if_is_played_for_the_first_chunk(cluster: MemoryCluster) -> None:
    cluster.task("a", array={"count": 40})
    found = await explain(cluster, "a", Changes(priority=Priority.CRITICAL))
    assert found.story["what_if"]["changed"]["starts"] > 0


async def test_an_array_has_one_place_in_the_order(cluster: MemoryCluster) -> None:
    cluster.task("a", array={"count": 40})
    cluster.task("b", priority="High")
    stories, _ = await order(cluster)
    assert [each["task"] for each in stories] == ["b", "a"]


@pytest.mark.parametrize(
    "status",
    [{"array": "no"}, {"array": {"succeeded": "x"}}, {"array": {"parts": {"1-1": {}}}}, {"array": {"failed": "0-99"}}],
)
def test_what_cannot_be_read_is_told_as_of_any_task(cluster: MemoryCluster, status: dict[str, Any]) -> None:
    obj = cluster.task("a", RUNS | status, array={"count": 9})
    assert items_of(obj) is None
    assert story(obj) == "task a: Assigned"
    assert call(cluster, "get", "a").code == 0


def test_items_in_words() -> None:
    cluster = MemoryCluster()
    parts = {f"1-{n}": PART | {"items": str(10 + n), "agent": f"p-{n}"} for n in range(12)}
    obj = cluster.task("a", RUNS | account(parts=parts, failed="3", resultsDropped=5), array={"count": 30})
    assert story(obj) == (
        "task a: Assigned, 2 of 30 done, 1 failed, 12 running in 12 chunks on p-0, p-1, p-10, p-11, p-2, p-3, p-4, "
        "p-5, p-6, p-7 and 2 more, 15 waiting; 5 results found no room in status"
    )
    found = items_of(obj)
    assert found is not None
    assert found.count == found.succeeded + found.failed + found.running + found.waiting
    assert isinstance(found, Items)


def test_the_command_shows_how_items_stand(cluster: MemoryCluster) -> None:
    cluster.task(
        "a", RUNS | account(parts={"1-91": PART | {"items": "2"}}, failed="3", errors=FAILED), array={"count": 9}
    )
    lines = call(cluster, "get").out.splitlines()
    assert lines[0].split()[4:7] == ["PHASE", "DONE", "REASON"]
    assert next(each for each in lines if each.startswith("a ")).split()[3:5] == ["Assigned", "2/9"]
    assert "Items of a: 2 of 9 done, 1 failed, 1 running in 1 chunk on p-0, 5 waiting" in call(cluster, "get", "a").out
    said = call(cluster, "explain", "a").out
    assert "Items:" in said
    assert "Next waits:" in said
    assert "ValueError: three" in said


async def test_a_program_hears_of_items(cluster: MemoryCluster) -> None:
    cluster.task("a", array={"count": 40})
    async with AsyncClient(backend=cluster) as client:
        assert (await client.explain("a"))["items"]["waiting"] == 40
