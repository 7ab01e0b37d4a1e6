"""Pods that go out of sight while their agents live: what is kept of them, and what they get once they are back."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from taskdist.api import Phase
from taskdist.core.model import Task
from taskdist.protocol.messages import Ping, Result
from taskdist.protocol.observations import ObservedPod, ObservedTask, RemovePod, Written
from unit.protocol.desk import A1, EPOCH, POOL, QUEUE, Desk, assigned, record

POD = ObservedPod("u1", "ns", "p-1", "p", 0.0, ready=True)
OTHER = ObservedTask(Task("b", "ns", "task-b", "q", "work", 0.0), 20)
ONE = replace(POOL, minimum=1, maximum=1)


def busy() -> Desk:
    """The only agent, u1, holds Task `a`."""
    desk = Desk(QUEUE, record(), pods=1, pool=ONE)
    desk.connect(1)
    desk.answer(Written(assigned(), b"{}"))
    return desk


def lose(desk: Desk, how: str) -> None:
    if how == "label":
        desk.do("pod_lost", "u1")
    else:
        desk.do("pod_observed", replace(POD, ended=True, ready=False))


def finish(desk: Desk) -> None:
    desk.says(1, Result(A1, b"{}"))
    desk.answer(Written(record(13, phase=Phase.SUCCEEDED, attempt=1, epoch=EPOCH, agent_uid="u1")))


@pytest.mark.parametrize("how", ["label", "phase"])
@pytest.mark.parametrize("back", ["busy", "idle"])
def test_an_agent_that_was_lost_with_its_work_and_is_back_gets_more(how: str, back: str) -> None:
    desk = busy()
    lose(desk, how)
    if back == "busy":
        desk.do("pod_observed", POD)
        assert desk.leader.core.audit() == []
        finish(desk)
    else:
        finish(desk)
        desk.do("pod_observed", POD)
    desk.do("task_observed", OTHER)
    assert [write.status["agentUid"] for write in desk.writes if write.uid == "b"] == ["u1"]
    assert desk.leader.core.audit() == []


def test_an_agent_that_was_lost_while_it_drained_and_is_back_is_deleted_once_it_is_free() -> None:
    desk = busy()
    desk.do("pool_applied", replace(ONE, minimum=0, maximum=0))
    desk.do("pod_lost", "u1")
    desk.do("pod_observed", POD)
    finish(desk)
    deleted = [action.uid for action in desk.out if isinstance(action, RemovePod)]
    for _ in range(5):
        desk.says(1, Ping(desk.t))
        desk.at(desk.t + 30.0)
        deleted += [action.uid for action in desk.out if isinstance(action, RemovePod)]
    assert deleted == ["u1"]


def lease_ends(desk: Desk) -> None:
    desk.at(desk.t + 1000.0)
    desk.answer(Written(record(13, attempt=1, epoch=EPOCH, agent_uid="u1")))


def session_ends(desk: Desk) -> None:
    desk.do("disconnected", 1)


def pod_is_lost(desk: Desk) -> None:
    desk.do("pod_lost", "u1")


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param((finish, session_ends, pod_is_lost), id="its pod last"),
        pytest.param((pod_is_lost, finish, session_ends), id="its session last"),
        pytest.param((pod_is_lost, session_ends, lease_ends), id="its lease last"),
    ],
)
def test_nothing_is_kept_of_an_agent_that_is_lost_for_good(ends: tuple[Callable[[Desk], None], ...]) -> None:
    desk = busy()
    state = desk.leader.state
    for end in ends:
        assert ("u1" in state.last_confirmed, "u1" in state.heard) == (True, True)
        end(desk)
    assert (state.last_confirmed, state.heard) == ({}, set())
