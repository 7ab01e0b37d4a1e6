"""Sessions: versions, refusals, drains, and agents that come back while their pod is going."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Delivery
from taskdist.core import Core
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import Disconnect, Exit, SendUp
from taskdist.protocol.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    VERSION_REFUSED,
    AgentIdentity,
    Drain,
    Grant,
    Hello,
    LeaseName,
    Ping,
    Refused,
    Renew,
    Result,
    Welcome,
    spoken_version,
)
from taskdist.protocol.observations import (
    CloseSession,
    Conflict,
    Now,
    ObservedPod,
    RaiseEpoch,
    Send,
    WriteStatus,
    Written,
)
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import AgentSettings, Capabilities, LeaderSettings
from unit.protocol.desk import A1, EPOCH, QUEUE, Desk, assigned, record, running

A = LeaseName("a", 1, 5)
WHO = AgentIdentity("u1", "p-1", "ns", "p")
POD = ObservedPod("u1", "ns", "p-1", "p", 0.0, ready=True)


def agent(held: bool = False) -> AgentEnd:
    """An agent that epoch 5 has welcomed, with work in its hands or not."""
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    end.connected(100.0)
    end.received(Welcome(5, 2), 100.0)
    if held:
        end.received(Grant(A, "ns", "task-a", "work", 1, 100.0, 15.0, 120.0), 100.0)
    return end


def comes_back(end: AgentEnd, at: float = 103.0) -> Hello:
    """Its next session, and the hello that opens it."""
    end.disconnected(at)
    (said,) = [a.message for a in end.connected(at) if isinstance(a, SendUp)]
    assert isinstance(said, Hello)
    return said


# --- drains are the leader's word ---


@pytest.mark.parametrize("draining", [False, True], ids=["the new leader does not", "the new leader drains too"])
def test_a_change_of_leader_during_a_drain_leaves_the_new_leaders_word(draining: bool) -> None:
    end = agent()
    end.received(Drain(), 101.0)
    comes_back(end)
    end.received(Welcome(6, 2, draining=draining), 103.0)
    assert end.ready is not draining
    end.received(Drain(undo=True), 104.0)
    assert end.ready


def welcomed(desk: Desk, version: int = PROTOCOL_VERSION) -> tuple[list[Welcome], list[Drain]]:
    """What the agent of u1 hears when it comes: before its first word, and after."""
    desk.do("connected", 9, WHO, Hello(version, "i", 1, 2000.0))
    first = desk.sent(Welcome)
    desk.says(9, Ping(2000.0))
    return first, desk.sent(Drain)


@pytest.mark.parametrize("deleting", [False, True], ids=["alive", "being deleted"])
def test_a_welcome_says_whether_the_agent_drains(deleting: bool) -> None:
    desk = Desk()
    desk.do("pod_observed", replace(POD, deleting=deleting))
    (welcome,), drains = welcomed(desk)
    assert welcome.draining is deleting
    assert drains == []


def test_an_agent_of_version_1_hears_of_drains_in_their_own_message() -> None:
    desk = Desk()
    assert welcomed(desk, 1)[1] == [Drain(undo=True)]
    desk.do("pod_observed", replace(POD, deleting=True))
    assert welcomed(desk, 1)[1] == [Drain()]


def test_a_drain_between_the_welcome_and_the_first_word_is_told() -> None:
    desk = Desk()
    desk.do("connected", 9, WHO, Hello(PROTOCOL_VERSION, "i", 1, 2000.0))
    desk.do("pod_observed", replace(POD, deleting=True))
    desk.says(9, Ping(2000.0))
    assert desk.sent(Drain) == [Drain()]


# --- which process has ended, and which speaks ---


def ended(*instances: str, **more: Any) -> ObservedPod:
    return replace(POD, ended_instances=instances, **more)


def test_the_end_of_the_present_instance_is_its_death() -> None:
    desk = running()
    desk.do("pod_observed", ended("i"))
    assert (desk.phase, desk.write().status["reason"]) == ("Pending", "AgentLost")


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(ended("i0"), id="of the one before"),
        pytest.param(ended(), id="one that left no name"),
    ],
)
def test_no_other_word_of_an_end_touches_a_live_agent(pod: ObservedPod) -> None:
    """Status comes late: a restart that it shows may be the one that brought the present instance."""
    desk = running()
    desk.do("pod_observed", pod)
    assert not [a for a in desk.out if isinstance(a, WriteStatus | CloseSession)]
    desk.says(1, Result(A1, b"{}"))
    assert desk.phase == "Succeeded"


def test_a_late_word_of_an_end_spares_the_successor() -> None:
    desk = running()
    desk.connect(7, 1, instance="i2")
    desk.do("pod_observed", ended("i"))
    assert not [a for a in desk.out if isinstance(a, CloseSession)]
    desk.do("pod_observed", ended("i2", "i"))
    assert [a.session for a in desk.out if isinstance(a, CloseSession)] == [7]


@pytest.mark.parametrize(
    "clocks",
    [
        pytest.param({"boot": 1.0, "started": 10.0}, id="rebooted with a late clock"),
        pytest.param({"boot": 1e6, "started": 10.0}, id="the node's clock stepped back"),
        pytest.param({"boot": 1.0, "started": 1e10}, id="rebooted with an early clock"),
    ],
)
def test_whatever_its_clocks_say_a_restarted_agent_is_taken(clocks: dict[str, Any]) -> None:
    desk = running()
    desk.do("connected", 7, WHO, Hello(PROTOCOL_VERSION, "i2", 1, **clocks))
    desk.says(7, Ping(clocks["boot"]))
    assert [a.session for a in desk.out if isinstance(a, CloseSession)] == [1]
    assert desk.write().status["reason"] == "AgentLost"
    desk.answer(Written(record(12, attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")))
    desk.says(7, Ping(clocks["boot"] + 1))
    assert len(desk.sent(Renew)) == 1


@pytest.mark.parametrize(("instance", "closed"), [("i", 2), ("i2", 2)], ids=["same process", "another process"])
def test_the_first_word_of_a_session_whose_successor_has_spoken_comes_too_late(instance: str, closed: int) -> None:
    desk = Desk()
    for session, name in ((2, "i"), (3, instance)):
        desk.do("connected", session, WHO, Hello(PROTOCOL_VERSION, name, 1, 10.0 * session))
    desk.says(3, Ping(30.0))
    desk.says(2, Ping(20.0))
    assert [a.session for a in desk.out if isinstance(a, CloseSession)] == [closed]


def test_the_first_word_of_a_process_that_has_ended_comes_too_late() -> None:
    desk = Desk(QUEUE, record())
    desk.do("connected", 2, WHO, Hello(PROTOCOL_VERSION, "i", 1, 20.0))
    desk.do("pod_observed", ended("i"))
    desk.says(2, Ping(20.0))
    assert [a.session for a in desk.out if isinstance(a, CloseSession)] == [2]
    assert desk.writes == []


# --- a pod that is going ---


@pytest.mark.parametrize("delivery", list(Delivery))
def test_what_a_draining_agent_finishes_after_it_came_back_is_accepted(delivery: Delivery) -> None:
    desk = running(replace(QUEUE, delivery=delivery))
    desk.do("pod_observed", replace(POD, deleting=True))
    desk.do("disconnected", 1)
    desk.t += 3.0
    desk.connect(3, 1, A1)
    desk.says(3, Result(A1, b"{}"))
    assert desk.phase == "Succeeded"


def test_an_agent_whose_node_was_given_up_comes_back_with_its_work() -> None:
    """The cluster had lost the node and called the pod failed; nothing says that its container has ended."""
    desk = running()
    desk.do("pod_observed", replace(POD, ended=True))
    desk.do("disconnected", 1)
    desk.t += 3.0
    desk.do("connected", 3, WHO, Hello(PROTOCOL_VERSION, "i", 1, desk.t, leases=(A1,)))
    (welcome,) = desk.sent(Welcome)
    assert welcome.draining
    desk.says(3, Ping(desk.t))
    desk.says(3, Result(A1, b"{}"))
    assert desk.phase == "Succeeded"


def test_an_agent_whose_pod_has_ended_for_sure_is_refused() -> None:
    desk = Desk()
    desk.do("pod_observed", replace(POD, ended=True, may_run=False))
    desk.do("connected", 3, WHO, Hello(PROTOCOL_VERSION, "i", 1, desk.t))
    assert [refused.reason for refused in desk.sent(Refused)] == ["PodEnded"]


def test_a_draining_agent_gets_no_more_work() -> None:
    desk = Desk(QUEUE, record(), pods=1)
    desk.do("pod_observed", replace(POD, deleting=True))
    desk.connect(1)
    assert desk.writes == []


# --- epochs only grow, also after a restore ---


def named(leadership: str) -> Desk:
    return Desk(leadership=leadership)


@pytest.mark.parametrize(
    ("hello", "above"),
    [
        pytest.param({"highest_epoch": EPOCH + 9, "leadership": "other"}, EPOCH + 9, id="a later leadership"),
        pytest.param({"highest_epoch": EPOCH, "leadership": "other"}, EPOCH, id="another of this epoch"),
        pytest.param({"leases": (LeaseName("x", 1, EPOCH + 2),)}, EPOCH + 2, id="by a lease of version 1"),
        pytest.param({"highest_epoch": EPOCH, "leadership": "mine"}, None, id="this one"),
        pytest.param({"highest_epoch": EPOCH, "leadership": ""}, None, id="one without a name"),
        pytest.param({"highest_epoch": EPOCH - 1, "leadership": "other"}, None, id="a former one"),
        pytest.param({}, None, id="none"),
    ],
)
def test_a_leader_goes_above_what_an_agent_has_seen(hello: dict[str, Any], above: int | None) -> None:
    desk = named("mine")
    desk.do("connected", 1, WHO, Hello(PROTOCOL_VERSION, "i", 1, 2000.0, **hello))
    asked = [a for a in desk.out if isinstance(a, RaiseEpoch)]
    if above is None:
        assert asked == []
        (welcome,) = desk.sent(Welcome)
        assert (welcome.epoch, welcome.leadership) == (EPOCH, "mine")
        return
    assert [(a.above, a.pod_uid, a.namespace, a.pool) for a in asked] == [(above, "u1", "ns", "p")]
    (refused,) = desk.sent(Refused)
    assert (refused.reason, refused.retry) == ("EpochBehind", True)
    assert f"has seen epoch {above}" in refused.message


def test_an_epoch_that_no_count_of_leaderships_explains_is_not_believed() -> None:
    desk = named("mine")
    desk.do("connected", 1, WHO, Hello(PROTOCOL_VERSION, "i", 1, 2000.0, highest_epoch=2**50))
    assert [a for a in desk.out if isinstance(a, RaiseEpoch)] == []
    assert "delete the pod" in desk.sent(Refused)[0].message


def test_an_agent_says_the_highest_epoch_it_has_seen_and_whose_it_was() -> None:
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    said = []
    for at, welcome in ((1.0, Welcome(5, 2, leadership="a")), (2.0, Welcome(7, 2, leadership="b")), (3.0, None)):
        hello = comes_back(end, at)
        said.append((hello.highest_epoch, hello.leadership))
        if welcome is not None:
            end.received(welcome, at)
    assert said == [(0, ""), (5, "a"), (7, "b")]


@pytest.mark.parametrize(
    ("welcome", "taken"),
    [
        pytest.param(Welcome(5, 2, leadership="b"), False, id="another of the same epoch"),
        pytest.param(Welcome(5, 2, leadership="a"), True, id="the same"),
        pytest.param(Welcome(5, 2), True, id="one of version 1"),
        pytest.param(Welcome(6, 2, leadership="b"), True, id="a later one"),
        pytest.param(Welcome(4, 2, leadership="b"), False, id="an earlier one"),
    ],
)
def test_an_agent_takes_one_leadership_of_an_epoch(welcome: Welcome, taken: bool) -> None:
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    end.connected(1.0)
    end.received(Welcome(5, 2, leadership="a"), 1.0)
    comes_back(end, 2.0)
    out = end.received(welcome, 2.0)
    assert end.ready is taken
    assert bool([a for a in out if isinstance(a, Disconnect)]) is not taken


def test_an_installation_made_anew_is_taken_after_one_change_of_leader() -> None:
    """Epoch 1 once more, at both ends: the agent has served epochs up to 17 of the installation before."""
    end = AgentEnd("i1", Capabilities(slots=1), AgentSettings(silence_seconds=1e6))
    end.connected(1.0)
    end.received(Welcome(17, 1, leadership="before"), 1.0)
    epochs, welcomed = [1], False
    while not welcomed:
        leader = Leader(Core(), epochs[-1], leadership=f"anew-{len(epochs)}")
        now = Now(1000.0, 1000.0)
        out = [*leader.recover([], now), *leader.connected(1, WHO, comes_back(end, float(len(epochs))), now)]
        for action in out:
            if isinstance(action, Send):
                end.received(action.message, float(len(epochs)))
            elif isinstance(action, RaiseEpoch):
                epochs.append(action.above + 1)
        welcomed = end.ready
        assert len(epochs) <= 2
    assert epochs == [1, 18]


def test_a_write_that_meets_an_older_task_than_it_was_for_is_tried_again_after_a_pause() -> None:
    """As after a restore: what stands is older than what is known here, so each write meets the same."""
    desk = Desk(QUEUE, record(10))
    desk.connect(1)
    for _ in range(3):
        desk.answer(Conflict(record(4)))
        assert not [a for a in desk.out if isinstance(a, WriteStatus)]
        desk.at(desk.t + LeaderSettings().retry_seconds - 0.01)
        assert not [a for a in desk.out if isinstance(a, WriteStatus)]
        desk.at(desk.t + 0.02)
        desk.says(1, Ping(desk.t))
        assert desk.writes[-1].resource_version == 10
        desk.out = [desk.writes[-1]]


def test_a_write_that_another_overtook_is_tried_again_at_once() -> None:
    desk = Desk(QUEUE, record(10))
    desk.connect(1)
    desk.answer(Conflict(record(11)))
    assert desk.write().resource_version == 11


# --- versions ---


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        pytest.param(PROTOCOL_VERSION, OLDEST_VERSION, PROTOCOL_VERSION, id="same release"),
        pytest.param(PROTOCOL_VERSION - 1, 0, PROTOCOL_VERSION - 1, id="release before"),
        pytest.param(PROTOCOL_VERSION + 1, PROTOCOL_VERSION, PROTOCOL_VERSION, id="release after"),
        pytest.param(PROTOCOL_VERSION + 1, 0, None, id="release after that speaks one only"),
        pytest.param(PROTOCOL_VERSION + 2, PROTOCOL_VERSION + 1, None, id="too new"),
        pytest.param(OLDEST_VERSION - 1, 0, None, id="too old"),
        pytest.param(PROTOCOL_VERSION, PROTOCOL_VERSION + 5, None, id="oldest beyond newest"),
    ],
)
def test_a_session_speaks_the_newest_version_that_both_know(newest: int, oldest: int, spoken: int | None) -> None:
    assert spoken_version(newest, oldest) == spoken
    desk = Desk()
    desk.do("connected", 1, WHO, Hello(newest, "i", 1, 0.0, oldest_version=oldest))
    if spoken is None:
        (refused,) = desk.sent(Refused)
        assert (refused.reason, refused.retry) == (VERSION_REFUSED, True)
        assert [a for a in desk.out if isinstance(a, CloseSession)]
    else:
        (welcome,) = desk.sent(Welcome)
        assert welcome.protocol_version == spoken


def test_an_agent_whose_version_is_refused_says_the_one_before_and_then_its_own() -> None:
    end = agent(held=True)
    said = []
    for _ in range(3):
        said.append(comes_back(end).protocol_version)
        end.received(Refused(VERSION_REFUSED, "another", retry=False), 103.0)
    assert said == [PROTOCOL_VERSION, PROTOCOL_VERSION - 1, PROTOCOL_VERSION]
    comes_back(end)
    end.received(Welcome(6, 2), 103.0)
    assert comes_back(end).protocol_version == PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("refused", "held", "exits"),
    [
        pytest.param(Refused(VERSION_REFUSED, "", retry=False), True, False, id="version, with work"),
        pytest.param(Refused(VERSION_REFUSED, "", retry=False), False, False, id="version, idle"),
        pytest.param(Refused("NotLeading", ""), False, False, id="for now"),
        pytest.param(Refused("BadMessage", "", retry=False), True, False, id="for good, with work"),
        pytest.param(Refused("BadMessage", "", retry=False), False, True, id="for good, idle"),
    ],
)
def test_no_refusal_ends_an_agent_with_its_work(refused: Refused, held: bool, exits: bool) -> None:
    end = agent(held)
    comes_back(end)
    out = end.received(refused, 103.0)
    assert [type(a) for a in out] == ([Exit, Disconnect] if exits else [Disconnect])
    assert len(end.leases) == held


def test_refused_work_runs_to_the_end_of_its_lease_and_its_result_is_told_to_whoever_takes_it() -> None:
    end = agent(held=True)
    for at in (103.0, 105.0, 107.0):
        comes_back(end, at)
        end.received(Refused(VERSION_REFUSED, "another", retry=False), at)
    end.finished(A, b"{}", 108.0)
    for at in (200.0, 210.0):
        comes_back(end, at)
        end.received(Refused(VERSION_REFUSED, "another", retry=False), at)
    assert comes_back(end, 300.0).leases == (A,)
    out = end.received(Welcome(6, 2), 300.0)
    assert Result(A, b"{}") in [a.message for a in out if isinstance(a, SendUp)]


def test_the_operator_takes_a_result_of_an_agent_of_the_release_before() -> None:
    desk = Desk(QUEUE, record())
    desk.do("connected", 1, WHO, Hello(1, "i", 1, 1000.0))
    desk.says(1, Ping(1000.0))
    desk.answer(Written(assigned(), b"{}"))
    desk.says(1, Result(A1, b"{}"))
    assert desk.phase == "Succeeded"
