"""Status of pools and queues: kstatus conditions tell the truth."""

from typing import Any

import pytest

from taskdist.api import AgentPool, Reason, TaskQueue
from taskdist.controller.status import Held, PoolFacts, QueueFacts, Verdict, pool_status, queue_status

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
            Verdict(),
            "",
            ("True", "False", "False"),
            "AgentsReady",
            id="as it should be",
        ),
        pytest.param(
            PoolFacts(desired=2, ready=1), 2, Verdict(), "", ("False", "True", "False"), "Progressing", id="one starts"
        ),
        pytest.param(
            PoolFacts(desired=0, ready=1), 1, Verdict(), "", ("False", "True", "False"), "Progressing", id="one leaves"
        ),
        pytest.param(
            PoolFacts(desired=4, ready=4, outdated=2, surge=1),
            4,
            Verdict(),
            "",
            ("False", "True", "False"),
            "Progressing",
            id="agents of an older template are replaced",
        ),
        pytest.param(PoolFacts(), 0, Verdict(), "", ("True", "False", "False"), "AgentsReady", id="scaled to zero"),
        pytest.param(
            PoolFacts(desired=1),
            0,
            Verdict(Reason.INVALID_TEMPLATE, "fix it"),
            "",
            ("False", "False", "True"),
            "InvalidTemplate",
            id="only the user can mend it",
        ),
        pytest.param(
            PoolFacts(desired=1),
            0,
            Verdict(),
            "exceeded quota",
            ("False", "False", "True"),
            "CreateRefused",
            id="the API server refuses the pod",
        ),
    ],
)
def test_pool_conditions(
    facts: PoolFacts, pods: int, verdict: Verdict, problem: str, expected: tuple[str, str, str], reason: str
) -> None:
    status = pool_status(make_pool(), facts, pods, verdict, problem, NOW)
    got = flags(status)
    assert (got["Ready"], got["Reconciling"], got["Stalled"]) == expected
    assert {c["reason"] for c in status["conditions"] if c["type"] != "Bottleneck"} == {reason}
    assert status["observedGeneration"] == 2
    assert status["selector"] == "taskdist.dev/pool=p"


def test_transition_time_moves_only_with_the_status() -> None:
    first = pool_status(make_pool(), PoolFacts(desired=1, ready=1), 1, Verdict(), "", NOW)
    second = pool_status(make_pool(first), PoolFacts(desired=2, ready=1), 1, Verdict(), "", NOW + 10)
    third = pool_status(make_pool(second), PoolFacts(desired=3, ready=1), 1, Verdict(), "", NOW + 20)

    def since(status: dict[str, Any]) -> str:
        return str(next(c["lastTransitionTime"] for c in status["conditions"] if c["type"] == "Ready"))

    assert since(first) != since(second) == since(third)


def test_last_scaled_is_when_the_number_wanted_changed() -> None:
    first = pool_status(make_pool(), PoolFacts(desired=1), 0, Verdict(), "", NOW)
    same = pool_status(make_pool(first), PoolFacts(desired=1), 1, Verdict(), "", NOW + 10)
    more = pool_status(make_pool(first), PoolFacts(desired=2), 1, Verdict(), "", NOW + 10)
    assert "lastScaledAt" in first
    assert "lastScaledAt" not in same
    assert more["lastScaledAt"] > first["lastScaledAt"]


def test_queue_that_nothing_serves_is_stalled() -> None:
    queue = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": {"pools": ["p"]}})
    good = queue_status(queue, QueueFacts(3, 1), Verdict(), NOW)
    assert (good["waiting"], good["leased"], flags(good)["Ready"]) == (3, 1, "True")
    bad = queue_status(queue, QueueFacts(3, 1), Verdict(Reason.POOL_NOT_FOUND, "create it"), NOW)
    assert (flags(bad)["Ready"], flags(bad)["Stalled"]) == ("False", "True")
    assert bad["conditions"][0]["message"] == "create it"


def test_a_closed_queue_says_so_and_is_ready_all_the_same() -> None:
    queue = TaskQueue.model_validate({"metadata": {"name": "q", "generation": 1}, "spec": {"pools": ["p"]}})
    taken = queue_status(queue, QueueFacts(1, 2, 3), Verdict(), NOW)
    assert (taken["accepting"], taken["deadLettered"], flags(taken)["Accepting"]) == (True, 3, "True")
    full = queue_status(queue, QueueFacts(closed="the mark is 10"), Verdict(), NOW)
    assert (full["accepting"], flags(full)["Accepting"], flags(full)["Ready"]) == (False, "False", "True")
    said = next(c for c in full["conditions"] if c["type"] == "Accepting")
    assert (said["reason"], said["message"]) == ("QueueFull", "the mark is 10")


@pytest.mark.parametrize("kind", ["pool", "queue"])
def test_a_bottleneck_is_a_condition_and_its_numbers_are_no_news(kind: str) -> None:
    held = Held(Reason.NO_FREE_SLOTS, "skill gpu", "3 Tasks wait for skill gpu.")
    for found, expected in ((None, ("False", "NoBottleneck")), (held, ("True", "NoFreeSlots"))):
        if kind == "pool":
            status = pool_status(make_pool(), PoolFacts(bottleneck=found), 0, Verdict(), "", NOW)
        else:
            queue = TaskQueue.model_validate({"metadata": {"name": "q"}, "spec": {"pools": ["p"]}})
            status = queue_status(queue, QueueFacts(bottleneck=found), Verdict(), NOW)
        (condition,) = [each for each in status["conditions"] if each["type"] == "Bottleneck"]
        assert (condition["status"], condition["reason"]) == expected
        assert flags(status)["Ready"] == "True"
    assert held == Held(Reason.NO_FREE_SLOTS, "skill gpu", "4 Tasks wait for skill gpu.")
    assert held != Held(Reason.NO_FREE_SLOTS, "slots", "3 Tasks wait for skill gpu.")
