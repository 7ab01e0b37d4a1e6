"""What counts as the death of an agent, and what becomes of its leases where it is not known."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import POOL_LABEL, REMOVED_BY_ANNOTATION, Dispatch, Phase, Reclaim
from taskdist.protocol import convert
from taskdist.protocol.messages import LeaseName, Ping, Renew, Result
from taskdist.protocol.observations import ObservedPod, RemovePod, WriteStatus, Written
from unit.protocol.desk import A1, EPOCH, QUEUE, Desk, assigned, record, running

CONFIRMED = replace(QUEUE, reclaim=Reclaim.CONFIRMED)
U1 = ObservedPod("u1", "ns", "p-1", "p", 0.0, ready=True, may_run=True)
State = dict[str, dict[str, int]]
RUNS: State = {"running": {}}
OVER: State = {"terminated": {"exitCode": 0}}
WAITS: State = {"waiting": {}}


def last_seen(
    state: State | None, *, grace: int | None = None, phase: str = "Running", node: str = "n"
) -> dict[str, Any]:
    """The last state of a pod that left the view. `grace`: of its deletion, if it was deleted."""
    deleted = (
        {} if grace is None else {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
    )
    statuses = [] if state is None else [{"name": "agent", "restartCount": 0, "state": state}]
    return {
        "metadata": {"uid": "u1", "namespace": "ns", "name": "p-1", "labels": {POOL_LABEL: "p"}, **deleted},
        "spec": {"containers": [{"name": "agent"}], **({"nodeName": node} if node else {})},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


@pytest.mark.parametrize(
    ("obj", "dead"),
    [
        pytest.param(last_seen(OVER, grace=30), True, id="a graceful deletion that was carried out"),
        pytest.param(last_seen(OVER, grace=0), True, id="its kubelet ends a graceful deletion with grace 0"),
        pytest.param(last_seen(OVER, phase="Failed"), True, id="its containers have ended for good"),
        pytest.param(last_seen(None, phase="Failed"), True, id="never started by its node"),
        pytest.param(last_seen(None, grace=30, phase="Pending", node=""), True, id="deleted before it had a node"),
        pytest.param(last_seen(RUNS), False, id="the label was taken"),
        pytest.param(last_seen(OVER), False, id="the label was taken while its container restarts"),
        pytest.param(last_seen(RUNS, grace=0), False, id="deleted by force"),
        pytest.param(last_seen(RUNS, grace=30), False, id="deleted by force while its node did not answer"),
        pytest.param(last_seen(WAITS, grace=30), False, id="deleted by force between two starts"),
        pytest.param(last_seen(RUNS, phase="Failed"), False, id="called failed as its node is gone, by nobody there"),
        pytest.param(last_seen(RUNS, grace=0, phase="Failed"), False, id="the same, and deleted"),
    ],
)
def test_death_is_what_its_node_has_said(obj: dict[str, Any], dead: bool) -> None:
    assert convert.observed_pod(obj).dead is dead


def lost(queue: Any = QUEUE) -> Desk:
    desk = running(queue)
    desk.do("pod_observed", U1)
    assert desk.do("pod_lost", "u1") == []
    return desk


def test_an_agent_out_of_sight_keeps_its_lease_while_it_is_heard_and_its_result_counts() -> None:
    desk = lost()
    for seconds in range(0, 60, 5):
        desk.t = 1000.0 + seconds
        desk.says(1, Ping(desk.t))
        assert desk.sent(Renew) == [Renew(EPOCH, desk.t, (A1,))]
    desk.says(1, Result(A1, b"{}"))
    assert desk.phase == "Succeeded"


def test_an_agent_out_of_sight_gets_nothing_new_until_it_is_seen_again() -> None:
    desk = Desk(QUEUE, pods=1)
    desk.do("pod_observed", U1)
    desk.connect(1)
    desk.do("pod_lost", "u1")
    desk.do("task_observed", replace(assigned(), phase=Phase.PENDING, attempt=0, agent_uid=""))
    assert desk.writes == []
    desk.do("pod_observed", U1)
    assert desk.phase == "Assigned"


@pytest.mark.parametrize("queue", [QUEUE, CONFIRMED], ids=["Lease", "Confirmed"])
def test_its_lease_runs_to_its_end_before_another_may_have_the_task(queue: Any) -> None:
    desk = lost(queue)
    desk.do("disconnected", 1)
    desk.at(1016.0)
    assert desk.writes[1:] == []
    desk.at(1016.1)
    if queue is CONFIRMED:
        assert [action.uid for action in desk.out if isinstance(action, RemovePod)] == ["u1"]
        desk.do("pod_absent", "u1")
        desk.at(1046.2)
    assert desk.write().status["reason"] == "LeaseExpired"


def test_confirmed_goes_on_waiting_for_a_pod_that_is_out_of_sight_and_there() -> None:
    desk = lost(CONFIRMED)
    desk.do("disconnected", 1)
    for n in range(1, 5):
        desk.at(1000.0 + 31.0 * n)
        assert [type(action) for action in desk.out if not isinstance(action, RemovePod)][1:] == []
    assert not [write for write in desk.writes[1:] if isinstance(write, WriteStatus)]
    desk.do("pod_observed", replace(U1, deleting=True, may_run=False, ended=True))
    assert desk.write().status["reason"] == "AgentLost"


def test_a_phase_alone_is_no_death() -> None:
    desk = running()
    desk.do("pod_observed", replace(U1, ended=True))
    assert desk.out == []
    desk.do("pod_observed", replace(U1, ended=True, may_run=False))
    assert desk.write().status["reason"] == "AgentLost"


@pytest.mark.parametrize(
    ("seen_to_die", "at"), [(False, 1121.2), (True, 1000.0)], ids=["nobody saw its end", "its end was seen"]
)
def test_at_a_takeover_an_agent_that_no_list_shows_is_waited_for_unless_it_was_seen_to_end(
    seen_to_die: bool, at: float
) -> None:
    desk = Desk(QUEUE, pods=0)
    fresh = type(desk.leader)(desk.leader.core, EPOCH)
    desk.leader = fresh
    if seen_to_die:
        desk.do("pod_gone", "u1")
    desk.do("recover", [assigned(epoch=EPOCH - 1)])
    if not seen_to_die:
        desk.at(at - 1.0)
        assert desk.writes == []
        desk.at(at)
    assert desk.write().status["reason"] == ("AgentLost" if seen_to_die else "LeaseExpired")


# --- pods that a former leader marked, to delete them ---


def deletions(desk: Desk) -> list[tuple[str, int]]:
    return [(action.uid, action.epoch) for action in desk.out if isinstance(action, RemovePod)]


def test_a_pod_that_a_former_leader_marked_gets_no_work_and_is_deleted() -> None:
    """Its deletion may be on the way: whoever gave it work would see that killed."""
    desk = Desk(QUEUE, pods=0)
    desk.do("pod_observed", replace(U1, removed_by=EPOCH - 1))
    assert deletions(desk) == [("u1", EPOCH)]
    desk.connect(1)
    desk.do("task_observed", replace(assigned(), phase=Phase.PENDING, attempt=0, agent_uid=""))
    assert desk.writes == []
    desk.do("pod_observed", replace(U1, removed_by=EPOCH - 1, ready=False))
    assert deletions(desk) == [], "once"


def test_nothing_is_deleted_before_it_is_known_what_is_held_there() -> None:
    desk = Desk(QUEUE, pods=0)
    desk.leader = type(desk.leader)(desk.leader.core, EPOCH)
    desk.do("pod_observed", replace(U1, removed_by=EPOCH - 1))
    assert deletions(desk) == []
    desk.do("recover", [assigned(epoch=EPOCH - 1)])
    assert deletions(desk) == []
    desk.at(1121.2)
    desk.answer(Written(replace(assigned(30), phase=Phase.PENDING)))
    assert deletions(desk) == [("u1", EPOCH)]


def test_a_marked_pod_that_turns_out_to_hold_something_is_deleted_once_it_does_not() -> None:
    """What a former leader sent without recording it is known once its agent says so."""
    lazy = replace(QUEUE, dispatch=Dispatch.LAZY)
    desk = Desk(lazy, pods=0)
    desk.leader = type(desk.leader)(desk.leader.core, EPOCH)
    desk.do("queue_applied", lazy)
    desk.do("pod_observed", replace(U1, removed_by=EPOCH - 1))
    desk.do("recover", [record()])
    former = LeaseName("a", 1, EPOCH - 1)
    desk.connect(1, 1, former)
    desk.answer(Written(assigned(11, epoch=EPOCH - 1)))
    for _ in range(13):  # until nobody else can hold such a lease any more
        desk.says(1, Ping(desk.t))
        assert deletions(desk) == []
        desk.at(desk.t + 10.0)
    assert deletions(desk) == []
    desk.says(1, Result(former, b"{}"))
    desk.answer(Written(record(12, phase=Phase.SUCCEEDED, attempt=1, epoch=EPOCH, agent_uid="u1")))
    assert deletions(desk) == [("u1", EPOCH)]


@pytest.mark.parametrize("pod", [replace(U1, removed_by=EPOCH), replace(U1, removed_by=EPOCH - 1, deleting=True)])
def test_what_is_being_deleted_is_not_deleted_again(pod: ObservedPod) -> None:
    desk = Desk(QUEUE, pods=0)
    desk.do("pod_observed", pod)
    assert deletions(desk) == []


@pytest.mark.parametrize(
    ("mark", "epoch"), [(None, 0), ("", 0), ("7", 7), ("-1", 1), ("x", 1), ("9" * 400, 1), ("٣", 1)]
)
def test_a_mark_is_read_whatever_somebody_wrote(mark: str | None, epoch: int) -> None:
    obj = last_seen(RUNS)
    obj["metadata"]["annotations"] = None if mark is None else {REMOVED_BY_ANNOTATION: mark}
    assert convert.observed_pod(obj).removed_by == epoch
