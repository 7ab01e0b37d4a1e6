"""Whatever the API server holds: readers set aside what they cannot read, and all others are served."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odd_objects import POOLS, QUEUES, SINKS, SOURCES, TASKS, Obj, named, twisted
from taskdist.api import Phase
from taskdist.controller.keepers import Keepers
from taskdist.controller.retention import Retention
from taskdist.controller.seen import seen_pool, seen_queue
from taskdist.controller.status import PoolFacts, QueueFacts, SpecVerdict, pool_status, queue_status, unreadable_status
from taskdist.controller.tally import Tally
from taskdist.controller.trust import seen_pod
from taskdist.kube import Added, Aside, Store
from taskdist.protocol import convert, reading
from taskdist.protocol.messages import Grant
from taskdist.protocol.observations import Gone, ObservedTask, Written
from unit.protocol.desk import QUEUE, Desk, assigned, record

FUZZ = settings(max_examples=20, suppress_health_check=list(HealthCheck), deadline=None)

KINDS: dict[str, tuple[Any, Callable[[Obj], Any]]] = {
    "Task": (TASKS, convert.observed_task),
    "TaskQueue": (QUEUES, seen_queue),
    "AgentPool": (POOLS, seen_pool),
    "TaskSource": (SOURCES, reading.task_source),
    "TaskSink": (SINKS, reading.task_sink),
}
EACH = pytest.mark.parametrize("kind", KINDS)


@EACH
@FUZZ
@given(data=st.data())
def test_what_the_schema_admits_is_read(kind: str, data: st.DataObject) -> None:
    """The API server's bounds and the readers' are the same, or its objects would be set aside."""
    objects, read = KINDS[kind]
    obj = named(data.draw(objects), "x")
    store = Store(read)
    (event,) = store.put(obj)
    assert not isinstance(event, Aside), event


@EACH
@FUZZ
@given(data=st.data())
def test_what_another_release_wrote_is_read_or_set_aside(kind: str, data: st.DataObject) -> None:
    objects, read = KINDS[kind]
    store = Store(read)
    for version in (1, 2, 3):
        obj = named(data.draw(twisted(objects)), "x", version)
        store.put(obj)
        assert ("uid-x" in store) is True
    store.remove(named({}, "x", 9))
    assert len(store) == 0


PODS = st.fixed_dictionaries(
    {"spec": st.just({"containers": [{"name": "agent"}]})},
    optional={
        "status": st.fixed_dictionaries(
            {},
            optional={
                "phase": st.sampled_from(["Running", "Failed", "Resting"]),
                "conditions": st.just([{"type": "Ready", "status": "True"}]),
                "containerStatuses": st.just(
                    [
                        {
                            "name": "agent",
                            "restartCount": 3,
                            "state": {"terminated": {"finishedAt": "10000-01-01T00:00:00Z"}},
                        }
                    ]
                ),
            },
        )
    },
)


@FUZZ
@given(twisted(PODS.map(copy.deepcopy)))
def test_a_pod_of_any_form_is_read_or_set_aside(obj: Obj) -> None:
    Store(seen_pod).put(named(obj, "x", labels={"taskdist.dev/pool": "p"}))


@settings(FUZZ, max_examples=15)
@given(st.lists(QUEUES, max_size=2), st.lists(POOLS, max_size=2), st.lists(TASKS, min_size=1, max_size=6), st.data())
def test_whatever_is_admitted_a_normal_task_is_served(
    queues: list[Obj], pools: list[Obj], tasks: list[Obj], data: st.DataObject
) -> None:
    """All of it in one leadership, with agents of two pools; then a Task of a plain queue gets its agent."""
    desk = Desk(QUEUE)
    desk.t = time.time()
    tally, retention = Tally(), Retention()
    for name, obj in zip(("a", "p"), pools, strict=False):
        if name != "p":
            desk.do("pool_applied", seen_pool(named(obj, name)).pool)
    for name, obj in zip(("a", "0"), queues, strict=False):
        seen = seen_queue(named(obj, name))
        desk.do("queue_applied", seen.queue)
        retention.queue_applied(seen.queue.key, seen.keep)
    view: Store[ObservedTask] = Store(convert.observed_task)
    for number, obj in enumerate(tasks):
        obj["spec"]["queue"] = data.draw(st.sampled_from(["a", "0", "none"]))
        # What another leader wrote ends this one, and is not what is asked here.
        status = {**obj.get("status", {}), "epoch": 0}
        for event in view.put(named({**obj, "status": status}, f"t{number}")):
            assert isinstance(event, Added)
            tally.seen(event.new)
            retention.seen(event.new)
            desk.do("task_observed", event.new)
    desk.connect(1)
    desk.connect(2, 2)
    for step in (0.1, 1.0, 31.0, 4000.0, 1e8):
        desk.at(desk.t + step)
        for each in view:
            desk.leader.core.explain(each.task.uid, desk.t)
    retention.due(desk.t, 100)
    assert not desk.leader.over
    desk.connect(3)
    desk.connect(4, 2)
    for uid in [each.task.uid for each in view]:
        desk.do("task_deleted", uid)
    # What is being written of one is not known before it is answered, and keeps its agent so long.
    for write in list(desk.writes):
        desk.do("write_done", write.token, Gone())
    desk.do("task_observed", record())
    (write,) = [each for each in desk.writes if each.uid == "a"]
    assert write.status["phase"] == Phase.ASSIGNED
    pod = write.status["agentUid"]
    desk.do("write_done", write.token, Written(assigned(pod=pod)))
    assert [each.name for each in desk.sent(Grant)] == ["task-a"]


@FUZZ
@given(QUEUES, POOLS)
def test_status_of_whatever_is_admitted_can_be_written(queue: Obj, pool: Obj) -> None:
    queue_status(reading.task_queue(named(queue, "q")), QueueFacts(), SpecVerdict(), time.time())
    pool_status(reading.agent_pool(named(pool, "p")), PoolFacts(), 0, SpecVerdict(), "", time.time())


@FUZZ
@given(twisted(QUEUES), twisted(POOLS))
async def test_keepers_take_whatever_they_see(queue: Obj, pool: Obj) -> None:
    nothing = cast("Any", None)
    keepers = Keepers(nothing, nothing, nothing, "operators", nothing, nothing, lambda: True)
    keepers._queue_work.ask = keepers._pool_work.ask = lambda key: None  # type: ignore[method-assign]
    keepers.queue_seen(named(queue, "q"))
    keepers.pool_seen(named(pool, "p"))
    for body, error in keepers._odd.values():
        unreadable_status(body, error.reason, str(error), time.time())
