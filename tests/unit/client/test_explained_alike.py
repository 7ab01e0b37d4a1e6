"""The leader and the cluster's objects explain a Task in the same words: one table, asked both ways."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from memory_cluster import ASSIGNED, FAILED_STATUS, SUCCEEDED, MemoryCluster
from taskdist.api import Priority
from taskdist.api.meta import Model
from taskdist.api.view import Changes, TaskRow
from taskdist.client import AsyncClient
from taskdist.client.backend import Source
from taskdist.client.errors import NoAnswer, TaskdistError
from taskdist.client.explaining import explain
from taskdist.client.explaining_queues import explain_queue
from taskdist.client.questions import AnswerT, Question
from taskdist.common.times import utc
from taskdist.controller.view.capacity import Capacity
from taskdist.controller.view.explaining import Explaining
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.tasks import Tasks
from taskdist.core import Core
from taskdist.core.explaining.bottlenecks import Bottleneck
from taskdist.core.model import Key
from taskdist.kube import AGENTPOOLS, LEASES, PODS, TASKQUEUES, TASKS, TASKSOURCES, ApiError, Obj, Store
from taskdist.protocol import convert, explanations
from taskdist.protocol.backlogs import SeenBacklog, seen_backlog
from taskdist.protocol.messages import AgentIdentity, Hello, Ping
from taskdist.protocol.observations import Now, ObservedTask
from taskdist.protocol.operator import Leader


class _Facts:
    """What is known beside the core: nothing here."""

    def why_closed(self, _key: Key) -> str:
        return ""

    def dead_letters(self, _key: Key) -> int:
        return 0

    def bottlenecks(self) -> tuple[dict[Key, Bottleneck], dict[Key, Bottleneck]]:
        return {}, {}


class Led:
    """The view of a leader that has taken over what a cluster in memory holds. Over the wire: its answers are JSON."""

    lease = "taskdist-system/taskdist"

    def __init__(self, cluster: MemoryCluster, *, arrays: bool = True) -> None:
        now = Now(1000.0, time.time())
        store: Store[ObservedTask] = Store(convert.observed_task)
        leader = self.leader = Leader(Core(), 1)
        pools = self._of(cluster, AGENTPOOLS)
        for obj in self._of(cluster, TASKQUEUES):
            leader.queue_applied(convert.queue(obj), now)
        for obj in pools:
            leader.pool_applied(convert.pool(obj), now)
        for obj in self._of(cluster, TASKS):
            store.put(obj)
        pods = [replace(convert.observed_pod(obj), foreign=False, may_run=True) for obj in self._of(cluster, PODS)]
        for pod in pods:
            leader.pod_observed(pod, now)
        leader.recover(list(store), now)
        for number, pod in enumerate(pods):
            all_ = [part for each in store for part in (each.array.parts.values() if each.array else (each,))]
            held = [each for each in all_ if each.agent_uid == pod.uid and each.phase.value == "Assigned"]
            names = tuple(each.lease_name for each in held)
            labels = tuple(
                sorted(
                    next(o for o in self._of(cluster, PODS) if o["metadata"]["uid"] == pod.uid)["metadata"][
                        "labels"
                    ].items()
                )
            )
            hello = Hello(1, "instance", 100, 0.0, labels=labels, leases=names, arrays=arrays)
            if pod.ready:
                leader.connected(number, AgentIdentity(pod.uid, pod.name, pod.namespace, pod.pool, "p"), hello, now)
                leader.received(number, Ping(0.0), now)
        stalled = {(cluster.namespace, each["metadata"]["name"]): explanations.stalled(each) for each in pools}
        tasks = Tasks(store, lambda: leader, lambda: time.time())
        for obj in self._of(cluster, TASKSOURCES):
            leader.backlog_seen(seen_backlog(obj), now)
        self._capacity = Capacity(tasks.leader, _Facts(), lambda key: stalled.get(key, ""), time.time)
        self._explaining = Explaining(tasks, lambda key: stalled.get(key, ""), lambda: "taskdist-0")

    @staticmethod
    def _of(cluster: MemoryCluster, resource: Any) -> list[Obj]:
        return [obj for (kind, _, _), obj in cluster.objects.items() if kind == str(resource)]

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        _, _, _, namespace, kind, name, *_ = question.path.split("/")
        told: Model = (
            self._explaining.explain(namespace, name) if kind == "tasks" else self._capacity.queue(namespace, name)
        )
        return question.read(told.model_dump_json(by_alias=True, exclude_none=True).encode())

    def progress(self, namespace: str, name: str) -> AbstractAsyncContextManager[AsyncIterator[TaskRow]]:
        raise NoAnswer("not here")


class Nobody(Led):
    """Nobody who leads is reached."""

    def __init__(self) -> None:
        """Nothing is looked at."""

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        raise NoAnswer("the leader cannot be asked: no route to host")


def queue(cluster: MemoryCluster, **spec: Any) -> None:
    # The cluster's Tasks are all very old: none is lifted.
    given = {"pools": ["p"], "aging": {"stepSeconds": 0}} | spec
    cluster.add(TASKQUEUES, {"metadata": {"name": "q"}, "spec": given})


def pool(cluster: MemoryCluster, **spec: Any) -> None:
    template = {"metadata": {"labels": {"zone": "a"}}, "spec": {"containers": [{"name": "agent"}]}}
    cluster.add(AGENTPOOLS, {"metadata": {"name": "p"}, "spec": {"template": template} | spec})


def pod(cluster: MemoryCluster, *, ready: bool = True) -> None:
    body = {
        "metadata": {"name": "p-0", "labels": {"taskdist.dev/pool": "p", "zone": "a"}},
        "spec": {"containers": [{"name": "agent"}], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }
    cluster.add(PODS, body)


@pytest.fixture
def cluster() -> MemoryCluster:
    """A queue, a pool, one agent that is busy, and a Task that waits behind another."""
    made = MemoryCluster()
    queue(made)
    pool(made)
    pod(made)
    made.task("runs", ASSIGNED | {"agentUid": "uid-p-0", "epoch": 1})
    made.task("first", priority="High")
    made.task("a")
    lease = {"holderIdentity": "taskdist-0", "leaseDurationSeconds": 60, "renewTime": "2999-01-01T00:00:00Z"}
    made.add(LEASES, {"metadata": {"name": "taskdist", "namespace": "taskdist-system"}, "spec": lease})
    return made


def source(cluster: MemoryCluster, name: str, messages: int, *, oldest: str = "", said: float = 0.0) -> None:
    """A source that has told its backlog so many seconds ago."""
    backlog = {"messages": messages, "at": utc(time.time() - said)} | ({"oldest": oldest} if oldest else {})
    body = {"metadata": {"name": name}, "spec": {"task": {"queue": "q"}}, "status": {"backlog": backlog}}
    cluster.add(TASKSOURCES, body)


OLD, OLDER = "2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        pytest.param([], None, id="none"),
        pytest.param([("s", 5, "")], {"messages": 5, "source": "s"}, id="one that tells no age"),
        pytest.param(
            [("s", 5, OLD), ("t", 2, OLDER), ("u", 90, "")],
            {"messages": 97, "source": "t", "oldest": OLDER},
            id="the oldest is named",
        ),
        pytest.param([("s", 5, ""), ("t", 9, "")], {"messages": 14, "source": "t"}, id="without ages: the most"),
        pytest.param([("s", 5, "soon")], {"messages": 5, "source": "s"}, id="an age that is none"),
    ],
)
async def test_what_waits_at_sources_is_told_alike(
    cluster: MemoryCluster, sources: list[tuple[str, int, str]], told: dict[str, Any] | None
) -> None:
    for name, messages, oldest in sources:
        source(cluster, name, messages, oldest=oldest)
    source(cluster, "long-silent", 1000, said=3600.0)
    led = Led(cluster)
    led.leader.backlog_seen(SeenBacklog(("ns", "q"), "long-silent", 0), Now(1000.0, time.time()))
    for found in (await explain(cluster, "a", view=led), await explain_queue(cluster, "q", led)):
        assert (found.story.get("outside"), found.told_by) == (told, Source.LEADER)
    for found in (await explain(cluster, "a"), await explain_queue(cluster, "q", Nobody())):
        assert (found.story.get("outside"), found.told_by) == (told, Source.CLUSTER)
    runs = await explain(cluster, "runs", view=led)
    assert "outside" not in runs.story, "it waits for nothing"


async def test_a_queue_is_told_alike(cluster: MemoryCluster) -> None:
    queue(cluster, pools=["p", "p2"], paused=True)
    obj = cluster.objects[(str(TASKQUEUES), cluster.namespace, "q")]
    cluster.add(TASKQUEUES, obj | {"status": {"waiting": 2, "leased": 1}})
    by_leader = (await explain_queue(cluster, "q", Led(cluster))).story
    assert [each["level"] for each in by_leader.pop("levels")] == ["High", "Normal"]
    found = await explain_queue(cluster, "q", Nobody())
    assert by_leader == found.story
    assert "found out from the cluster's objects instead" in found.not_asked
    with pytest.raises(NoAnswer):
        await explain_queue(cluster, "q", Nobody(), Source.LEADER)


async def test_where_sources_may_not_be_read_the_queue_says_how_much_waits(cluster: MemoryCluster) -> None:
    source(cluster, "s", 5)
    obj = cluster.objects[(str(TASKQUEUES), cluster.namespace, "q")]
    cluster.add(TASKQUEUES, obj | {"status": {"waitingOutside": 7}})
    cluster.errors[f"list {TASKSOURCES}"] = ApiError(403, "Forbidden", "you may not")
    assert (await explain_queue(cluster, "q")).story["outside"] == {"messages": 7}


def stall(cluster: MemoryCluster) -> None:
    condition = {"type": "Stalled", "status": "True", "reason": "InvalidTemplate", "message": "no such field"}
    made = cluster.objects[(str(AGENTPOOLS), cluster.namespace, "p")]
    cluster.add(AGENTPOOLS, made | {"status": {"conditions": [condition]}})


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        pytest.param(lambda c: None, "Queued", id="behind another"),
        pytest.param(lambda c: queue(c, paused=True), "QueuePaused", id="paused"),
        pytest.param(lambda c: queue(c, pools=["elsewhere"]), "PoolNotFound", id="no-pool"),
        pytest.param(lambda c: c.task("a", queue="x"), "QueueNotFound", id="no-queue"),
        pytest.param(lambda c: pod(c, ready=False), "NoAgent", id="no-agent"),
        pytest.param(lambda c: c.task("a", suspend=True), "Suspended", id="suspended"),
        pytest.param(lambda c: c.task("a", skills=["gpu"]), "SkillMissing", id="skill"),
        pytest.param(lambda c: c.task("a", slots=5), "TooLarge", id="too-large"),
        pytest.param(
            lambda c: c.task("a", agentSelector={"matchLabels": {"zone": "b"}}), "LabelsMismatch", id="labels"
        ),
        pytest.param(
            lambda c: c.task("a", {"failures": 1, "retryAfter": "2999-01-01T00:00:00Z"}), "BackingOff", id="backing off"
        ),
        pytest.param(lambda c: c.task("a", dependsOn=[{"name": "first"}]), "Dependency", id="a parent"),
        pytest.param(
            lambda c: [c.task(name, idempotencyKey="k") for name in ("a", "0")], "Duplicate", id="a duplicate"
        ),
        pytest.param(stall, "Queued", id="its pool is stalled"),
        pytest.param(
            lambda c: c.task("a", {"attempt": 2, "cost": 0.5, "energyWh": 3.0, "attempts": FAILED_STATUS["attempts"]}),
            "Queued",
            id="it has failed before",
        ),
    ],
)
async def test_why_a_task_waits_is_told_alike(cluster: MemoryCluster, arrange: Any, reason: str) -> None:
    arrange(cluster)
    found = await explain(cluster, "a", view=Led(cluster))
    by_leader = found.story
    assert (by_leader["reason"], found.warnings, found.not_asked) == (reason, (), "")
    by_objects = (await explain(cluster, "a")).story
    assert by_leader.pop("operator") == {"leads": True, "lease": "taskdist-system/taskdist", "holder": "taskdist-0"}
    assert by_objects.pop("operator")["leads"] is True
    assert list(by_leader.items()) == list(by_objects.items())


async def test_what_runs_or_has_ended_is_told_alike(cluster: MemoryCluster) -> None:
    cluster.task("done", SUCCEEDED | {"route": {"pool": "p"}})
    cluster.task("failed", FAILED_STATUS)
    cluster.task("dead", FAILED_STATUS | {"phase": "DeadLettered"})
    led = Led(cluster)
    for name in ("runs", "done", "failed", "dead"):
        found = await explain(cluster, name, view=led)
        assert found._replace(told_by=Source.CLUSTER) == await explain(cluster, name), name


async def test_who_is_not_reached_is_said_and_the_objects_are_asked(cluster: MemoryCluster) -> None:
    found = await explain(cluster, "a", view=Nobody())
    assert found.story == (await explain(cluster, "a")).story
    line = "the leader cannot be asked: no route to host; found out from the cluster's objects instead"
    assert found.not_asked == line
    with pytest.raises(NoAnswer):
        await explain(cluster, "a", view=Nobody(), source=Source.LEADER)


async def test_what_would_be_if_is_played_on_the_objects(cluster: MemoryCluster) -> None:
    found = await explain(cluster, "a", Changes(priority=Priority.CRITICAL), view=Nobody())
    assert ("what_if" in found.story, "instead" in found.not_asked) == (True, True)
    with pytest.raises(TaskdistError, match="for Tasks that wait"):
        await explain(cluster, "runs", Changes(priority=Priority.CRITICAL), view=Nobody())


def test_the_leader_knows_no_task_of_that_name(cluster: MemoryCluster) -> None:
    with pytest.raises(Problem) as refused:
        Led(cluster)._explaining.explain("ns", "none-such")
    assert refused.value.status == 404


async def test_a_program_is_answered_by_the_leader_and_hears_once_that_it_is_not(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    by_objects = (await explain(cluster, "a")).story
    async with AsyncClient(backend=cluster, view=Led(cluster)) as client:
        story = await client.explain("a")
    assert story | {"operator": None} == by_objects | {"operator": None}
    assert story["operator"]["holder"] == "taskdist-0"
    assert not caplog.messages
    async with AsyncClient(backend=cluster, view=Nobody()) as client:
        assert [await client.explain("a"), await client.explain("a")] == [by_objects, by_objects]
    assert len(caplog.messages) == 1
    assert "no route to host" in caplog.messages[0]
