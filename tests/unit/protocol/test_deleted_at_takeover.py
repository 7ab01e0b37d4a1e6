"""Tasks that were deleted and are there yet, kept by a finalizer, when a leader takes over."""

from typing import Any

from taskdist.api import Delivery, Phase, Reclaim
from taskdist.core.model import Task
from taskdist.protocol.messages import Cancel, LeaseName, Stopped
from taskdist.protocol.observations import Found, ObservedTask, ReadTask, Terms
from unit.protocol.desk import EPOCH, QUEUE, Desk

FORMER = LeaseName("a", 1, EPOCH - 1)
TERMS = Terms(15.0, 120.0, Reclaim.LEASE, Delivery.AT_LEAST_ONCE, True)


def keyed(uid: str, version: int, **more: Any) -> ObservedTask:
    return ObservedTask(Task(uid, "ns", f"task-{uid}", "q", "work", 1.0, concurrency_key="k"), version, **more)


def deleted() -> ObservedTask:
    fields: dict[str, Any] = {"agent_uid": "u1", "agent_name": "p-1", "pool": "p", "terms": TERMS, "deleting": True}
    return keyed("a", 11, phase=Phase.ASSIGNED, attempt=1, epoch=EPOCH - 1, **fields)


def assigned_to(desk: Desk) -> list[tuple[str, str]]:
    return [(write.uid, write.status["agentUid"]) for write in desk.writes if write.status["phase"] == "Assigned"]


def test_its_key_is_free_once_its_agent_has_stopped_it() -> None:
    desk = Desk(QUEUE, deleted(), keyed("b", 20))
    desk.connect(2, 2)
    assert assigned_to(desk) == []
    desk.connect(1, 1, FORMER)
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [FORMER]
    assert assigned_to(desk) == []
    desk.says(1, Stopped(FORMER))
    assert [uid for uid, _ in assigned_to(desk)] == ["b"]


def test_its_key_is_free_once_its_lease_has_ended() -> None:
    desk = Desk(QUEUE, deleted(), keyed("b", 20))
    desk.connect(2, 2)
    desk.at(desk.t + 100)
    assert assigned_to(desk) == []
    desk.at(desk.t + 100)
    assert assigned_to(desk) == [("b", "u2")]


def test_an_agent_that_speaks_of_one_that_is_over_is_told_so_after_one_read() -> None:
    desk = Desk(QUEUE)
    desk.connect(1, 1, FORMER)
    (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
    desk.do("read_done", read.token, Found(deleted()))
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [FORMER]
    assert not [action for action in desk.out if isinstance(action, ReadTask)]
