"""The one inequality of all timings: a killed leader costs no attempt with what is shipped, and settings keep it so."""

from __future__ import annotations

import random
from typing import Any

import pytest

from taskdist.api import TaskQueue
from taskdist.controller.seen import seen_queue
from taskdist.controller.settings import Settings
from taskdist.controller.status import QueueFacts, SpecVerdict, queue_status
from taskdist.controller.succession import DEFAULT_LEASE_SECONDS, Succession
from taskdist.kube import Timing
from taskdist.kube.election import Election, LeaseRecord, ReadLease, Wait, WriteLease
from taskdist.protocol.settings import AgentSettings, LeaderSettings

SHIPPED = Settings.from_env({"TASKDIST_NAMESPACE": "sys"})


def test_the_shipped_defaults_fit_together_with_room() -> None:
    succession = Succession(SHIPPED.timing)
    assert DEFAULT_LEASE_SECONDS == 15
    assert succession.outlasted_by(DEFAULT_LEASE_SECONDS)
    # ping 1 + retry 1 + patience 5.1 + takeover 3 + redial 1
    assert succession.longest == pytest.approx(11.1)
    assert SHIPPED.least_lease == DEFAULT_LEASE_SECONDS


@pytest.mark.parametrize("seed", range(20))
def test_a_successor_is_there_before_any_agent_asks_its_work_to_stop(seed: int) -> None:
    """The dead leader renewed, the successor looked and the agent pinged at any moment of their own rounds."""
    rng = random.Random(seed)
    timing, agent, leader = SHIPPED.timing, AgentSettings(), LeaderSettings()
    died = 100.0
    renewed = died - rng.random() * 0.001 if seed % 2 else died - rng.random() * timing.retry
    pinged = died - rng.random() * leader.ping_seconds
    election = Election("next", timing)
    now, version = died - 10 * timing.retry + rng.random() * timing.retry, "0"
    while not isinstance(action := election.next(now), WriteLease):
        if isinstance(action, Wait):
            now = action.until
        else:
            assert isinstance(action, ReadLease)
            version = "dead" if now >= renewed else str(int(now * 10))
            election.read(LeaseRecord("dead", 1, timing.lease, version), now)
    answered = now + Succession(timing).takeover + agent.redial_seconds
    stops = pinged + DEFAULT_LEASE_SECONDS - agent.fence(DEFAULT_LEASE_SECONDS)
    assert answered < stops
    assert answered - pinged <= Succession(timing).longest


@pytest.mark.parametrize(
    ("timing", "least"),
    [
        pytest.param(Timing(5, 3, 1), 15, id="shipped"),
        pytest.param(Timing(3, 2, 0.4), 12, id="quick"),
        pytest.param(Timing(15, 10, 2), 26, id="slow"),
        pytest.param(Timing(5.01, 3, 1), 16, id="a fraction, which a Lease cannot hold"),
    ],
)
def test_the_least_lease_is_the_shortest_that_outlasts_a_change(timing: Timing, least: int) -> None:
    succession = Succession(timing)
    assert succession.least_lease == least
    assert succession.outlasted_by(least)
    assert not succession.outlasted_by(least - 1)


def test_the_advice_to_shorten_the_leader_s_lease_is_good_advice() -> None:
    advised = Succession(Timing(15, 10, 1)).longest_leadership
    assert advised == 5
    assert Succession(Timing(advised, 3, 1)).outlasted_by(DEFAULT_LEASE_SECONDS)
    assert not Succession(Timing(advised + 0.2, 3, 1)).outlasted_by(DEFAULT_LEASE_SECONDS)


def queue(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "q", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "1"}
    return {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": metadata,
        "spec": {"pools": ["p"], **spec},
    }


@pytest.mark.parametrize(
    ("spec", "counts_as", "raised"),
    [
        pytest.param({}, (15, 120), False, id="default"),
        pytest.param({"leaseSeconds": 60}, (60, 120), False, id="longer"),
        pytest.param({"leaseSeconds": 3}, (15, 120), True, id="too short"),
        pytest.param({"leaseSeconds": 3, "holdSeconds": 10}, (15, 15), True, id="too short, with a hold as short"),
    ],
)
def test_a_queue_s_lease_that_is_too_short_is_raised_and_its_status_says_so(
    spec: dict[str, Any], counts_as: tuple[float, float], raised: bool
) -> None:
    seen = seen_queue(queue(**spec), least_lease=SHIPPED.least_lease).queue
    assert (seen.lease_seconds, seen.hold_seconds) == counts_as
    model = TaskQueue.model_validate(queue(**spec))
    status = queue_status(model, QueueFacts(), SpecVerdict(), 0.0, SHIPPED.least_lease)
    found = {c["type"]: c for c in status["conditions"]}
    assert ("LeaseRaised" in found) is raised
    if raised:
        assert found["LeaseRaised"]["status"] == "True"
        assert "spec.leaseSeconds is 3 and counts as 15" in found["LeaseRaised"]["message"]
    assert found["Ready"]["status"] == "True"
