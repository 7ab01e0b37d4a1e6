"""Status of pools and queues: kstatus conditions tell the truth."""

from typing import Any

import pytest

from taskdist.api import AgentPool, BreakerState, Reason, TaskQueue
from taskdist.controller.retention import Withheld
from taskdist.controller.status import (
    PoolFacts,
    QueueFacts,
    SpecVerdict,
    ToldCause,
    pool_status,
    queue_status,
    waits_for_archive,
)
from taskdist.core.agents.performance import AgentPerformance, PoolPerformance, TypePerformance
from taskdist.core.model import Trouble
from taskdist.core.views import BreakerView, FailingPods
from taskdist.protocol import convert

NOW = 1_750_000_000.0


def make_pool(status: dict[str, Any] | None = None) -> AgentPool:
    return AgentPool.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 2},
            "spec": {"template": {"spec": {"containers": [{}]}}},
            "status": status or {},
        }
    )


def flags(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status["conditions"]}


@pytest.mark.parametrize(
    ("facts", "pods", "verdict", "problem", "expected", "reason"),
    [
        pytest.param(
            PoolFacts(desired=2, ready=2),
            2,
            SpecVerdict(),
            "",
            ("True", "False", "False"),
            "AgentsReady",
            id="as it should be",
        ),
        pytest.param(
            PoolFacts(desired=2, ready=1),
            2,
            SpecVerdict(),
            "",
            ("False", "True", "False"),
            "Progressing",
            id="one starts",
        ),
        pytest.param(
            PoolFacts(desired=0, ready=1),
            1,
            SpecVerdict(),
            "",
            ("False", "True", "False"),
            "Progressing",
            id="one leaves",
        ),
        pytest.param(
            PoolFacts(desired=4, ready=4, outdated=2, surge=1),
            4,
            SpecVerdict(),
            "",
            ("False", "True", "False"),
            "Progressing",
            id="agents of an older template are replaced",
        ),
        pytest.param(PoolFacts(), 0, SpecVerdict(), "", ("True", "False", "False"), "AgentsReady", id="scaled to zero"),
        pytest.param(
            PoolFacts(desired=1),
            0,
            SpecVerdict(Reason.INVALID_TEMPLATE, "fix it"),
            "",
            ("False", "False", "True"),
            "InvalidTemplate",
            id="only the user can mend it",
        ),
        pytest.param(
            PoolFacts(desired=1),
            0,
            SpecVerdict(),
            "exceeded quota",
            ("False", "False", "True"),
            "CreateRefused",
            id="the API server refuses the pod",
        ),
    ],
)
def test_pool_conditions(
    facts: PoolFacts, pods: int, verdict: SpecVerdict, problem: str, expected: tuple[str, str, str], reason: str
) -> None:
    status = pool_status(make_pool(), facts, pods, verdict, problem, NOW)
    got = flags(status)
    assert (got["Ready"], got["Reconciling"], got["Stalled"]) == expected
    assert {c["reason"] for c in status["conditions"] if c["type"] not in ("Bottleneck", "Healthy")} == {reason}
    assert got["Healthy"] == "True"
    assert status["observedGeneration"] == 2
    assert status["selector"] == "taskdist.dev/pool=p"


def test_transition_time_moves_only_with_the_status() -> None:
    first = pool_status(make_pool(), PoolFacts(desired=1, ready=1), 1, SpecVerdict(), "", NOW)
    second = pool_status(make_pool(first), PoolFacts(desired=2, ready=1), 1, SpecVerdict(), "", NOW + 10)
    third = pool_status(make_pool(second), PoolFacts(desired=3, ready=1), 1, SpecVerdict(), "", NOW + 20)

    def since(status: dict[str, Any]) -> str:
        return str(next(c["lastTransitionTime"] for c in status["conditions"] if c["type"] == "Ready"))

    assert since(first) != since(second) == since(third)


def test_breakers_that_are_not_closed_are_told() -> None:
    breakers = tuple(
        BreakerView(f"u{n}", f"a{n:02}", BreakerState.OPEN if n else BreakerState.HALF_OPEN, NOW, NOW + 30)
        for n in range(40)
    )
    status = pool_status(make_pool(), PoolFacts(desired=80, ready=80, breakers=breakers), 80, SpecVerdict(), "", NOW)
    expected = {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Healthy": "False", "Bottleneck": "False"}
    assert flags(status) == expected
    said = next(c for c in status["conditions"] if c["type"] == "Healthy")
    assert said["reason"] == "BreakerOpen"
    assert "a00 (HalfOpen), a01 (Open)" in said["message"]
    assert said["message"].endswith("and 32 more")
    assert (status["openBreakers"], len(status["breakers"])) == (40, 32)
    assert status["breakers"][0] == {"agent": "a00", "state": "HalfOpen", "since": "2025-06-15T15:06:40Z"}
    AgentPool.model_validate({**make_pool().to_wire(), "status": status})


def test_what_is_known_of_types_is_told() -> None:
    weak = AgentPerformance("a", 12, 11 / 12, 1.23456, 0.98765)
    known = PoolPerformance(0.98765, (TypePerformance("work", 12, 1.23456, 0.5, 11 / 12),), (weak,))
    status = pool_status(make_pool(), PoolFacts(performance=known), 0, SpecVerdict(), "", NOW)
    assert status["efficiency"] == 0.99
    assert status["weakest"] == [{"agent": "a", "count": 12, "successRate": 0.917, "pace": 1.23, "efficiency": 0.99}]
    assert status["performance"] == [
        {"type": "work", "count": 12, "meanSeconds": 1.23, "deviationSeconds": 0.5, "successRate": 0.917}
    ]
    model = make_pool(status)
    assert convert.performance(model.to_wire()) == (TypePerformance("work", 12, 1.23, 0.5, 0.917),)


def test_last_scaled_is_when_the_number_wanted_changed() -> None:
    first = pool_status(make_pool(), PoolFacts(desired=1), 0, SpecVerdict(), "", NOW)
    same = pool_status(make_pool(first), PoolFacts(desired=1), 1, SpecVerdict(), "", NOW + 10)
    more = pool_status(make_pool(first), PoolFacts(desired=2), 1, SpecVerdict(), "", NOW + 10)
    assert "lastScaledAt" in first
    assert "lastScaledAt" not in same
    assert more["lastScaledAt"] > first["lastScaledAt"]


def test_queue_that_nothing_serves_is_stalled() -> None:
    queue = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": {"pools": ["p"]}})
    good = queue_status(queue, QueueFacts(3, 1), SpecVerdict(), NOW)
    assert (good["waiting"], good["leased"], flags(good)["Ready"]) == (3, 1, "True")
    bad = queue_status(queue, QueueFacts(3, 1), SpecVerdict(Reason.POOL_NOT_FOUND, "create it"), NOW)
    assert (flags(bad)["Ready"], flags(bad)["Stalled"]) == ("False", "True")
    assert bad["conditions"][0]["message"] == "create it"


def test_a_closed_queue_says_so_and_is_ready_all_the_same() -> None:
    queue = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": {"pools": ["p"]}})
    taken = queue_status(queue, QueueFacts(1, 2, 3), SpecVerdict(), NOW)
    assert (taken["accepting"], taken["deadLettered"], flags(taken)["Accepting"]) == (True, 3, "True")
    full = queue_status(queue, QueueFacts(closed="the mark is 10"), SpecVerdict(), NOW)
    assert (full["accepting"], flags(full)["Accepting"], flags(full)["Ready"]) == (False, "False", "True")
    said = next(c for c in full["conditions"] if c["type"] == "Accepting")
    assert (said["reason"], said["message"]) == ("QueueFull", "the mark is 10")


def test_a_queue_tells_of_tasks_that_wait_long_for_the_archive() -> None:
    spec = {"pools": ["p"], "archive": True}
    queue = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": spec})
    for withheld in (Withheld(), Withheld(4, NOW - 59)):
        facts = QueueFacts(unarchived=waits_for_archive(withheld, NOW))
        assert flags(queue_status(queue, facts, SpecVerdict(), NOW))["Archived"] == "True"
    facts = QueueFacts(unarchived=waits_for_archive(Withheld(4, NOW - 60), NOW))
    status = queue_status(queue, facts, SpecVerdict(), NOW)
    said = next(c for c in status["conditions"] if c["type"] == "Archived")
    assert (said["status"], said["reason"]) == ("False", "ArchiveBehind")
    assert said["message"].startswith("4 Tasks are over their time and not deleted")
    assert facts.presses_beyond(QueueFacts())
    assert not facts.presses_beyond(QueueFacts(unarchived=waits_for_archive(Withheld(9, NOW - 70), NOW)))
    plain = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": {"pools": ["p"]}})
    assert "Archived" not in flags(queue_status(plain, facts, SpecVerdict(), NOW))


@pytest.mark.parametrize("kind", ["pool", "queue"])
def test_a_bottleneck_is_a_condition_and_its_numbers_are_no_news(kind: str) -> None:
    held = ToldCause(Reason.NO_FREE_SLOTS, "skill gpu", "3 Tasks wait for skill gpu.")
    for found, expected in ((None, ("False", "NoBottleneck")), (held, ("True", "NoFreeSlots"))):
        if kind == "pool":
            status = pool_status(make_pool(), PoolFacts(bottleneck=found), 0, SpecVerdict(), "", NOW)
        else:
            queue = TaskQueue.model_validate({"metadata": {"name": "q"}, "spec": {"pools": ["p"]}})
            status = queue_status(queue, QueueFacts(bottleneck=found), SpecVerdict(), NOW)
        (condition,) = [each for each in status["conditions"] if each["type"] == "Bottleneck"]
        assert (condition["status"], condition["reason"]) == expected
        assert flags(status)["Ready"] == "True"
    assert held == ToldCause(Reason.NO_FREE_SLOTS, "skill gpu", "4 Tasks wait for skill gpu.")
    assert held != ToldCause(Reason.NO_FREE_SLOTS, "slots", "3 Tasks wait for skill gpu.")


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(PoolFacts(failing=FailingPods(1, "p-1-0", Trouble("Unschedulable", "no node"))), id="pods fail"),
        pytest.param(PoolFacts(held_back=True), id="it is not grown for that"),
    ],
)
def test_what_keeps_pods_from_coming_up_is_told_at_once(now: PoolFacts) -> None:
    assert now.presses_beyond(PoolFacts())
    assert PoolFacts().presses_beyond(now)
    assert not now.presses_beyond(now)
