"""Queues and pools as the view tells them: by level, by limit, by agent; and pages of many."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from taskdist.api import Reason
from taskdist.controller.view.capacity import MOST_AGENTS, MOST_ROWS, Capacity, after
from taskdist.controller.view.problems import Problem
from taskdist.core.decisions import Explanation
from taskdist.core.explaining.bottlenecks import Bottleneck, Holdup
from taskdist.core.model import Key, Pool, Queue, TokenRate
from unit.controller.view.room import NOW, Room, obj

FOUND = Explanation(Reason.NO_AGENT, "No agent is ready.", "Raise maxReplicas.", command="kubectl scale p")


class Facts:
    """What is known beside the core, as the dispatcher tells it."""

    def __init__(self) -> None:
        self.closed, self.dead = "", 0
        self.held: dict[Key, Bottleneck] = {}

    def why_closed(self, _key: Key) -> str:
        return self.closed

    def dead_letters(self, _key: Key) -> int:
        return self.dead

    def bottlenecks(self) -> tuple[Mapping[Key, Bottleneck], Mapping[Key, Bottleneck]]:
        return self.held, self.held


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def capacity(room: Room, facts: Facts) -> Capacity:
    return Capacity(room.view.leader, facts, lambda key: f"{key[1]} is stalled", lambda: NOW.wall)


def wire(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = answer.to_wire()
    return told


def test_a_queue_is_told_by_level(room: Room, facts: Facts, capacity: Capacity) -> None:
    for name, priority in (("a", "High"), ("b", "High"), ("c", "Low")):
        room.put(obj(name, spec={"priority": priority}))
    room.lead()
    room.written(room.agent())
    facts.dead = 3
    told = wire(capacity.queue("ns", "q"))
    assert told["levels"] == [
        {"level": "High", "waiting": 1, "leased": 1},
        {"level": "Low", "waiting": 1, "leased": 0},
    ]
    assert (told["waiting"], told["leased"], told["deadLetters"], told["pools"]) == (2, 1, 3, ["p"])
    assert (told["accepting"], told["whyNot"]) == (True, "")
    assert "bottleneck" not in told


def test_a_queue_says_why_it_takes_nothing_and_what_holds_it_up(room: Room, facts: Facts, capacity: Capacity) -> None:
    key = ("ns", "q")
    facts.closed = "spec.quota.waiting is 10"
    facts.held[key] = Bottleneck(Holdup(Reason.NO_AGENT, "agents of pool p", 7, 700.0, FOUND), 0.75)
    told = wire(capacity.queue(*key))
    assert (told["accepting"], told["whyNot"]) == (False, "spec.quota.waiting is 10")
    found = told["bottleneck"]
    assert (found["reason"], found["what"], found["tasks"], found["part"]) == ("NoAgent", "agents of pool p", 7, 0.75)
    assert (found["unblock"], found["command"]) == ("Raise maxReplicas.", "kubectl scale p")


def test_what_is_left_of_a_rate_is_told_as_of_now(room: Room, capacity: Capacity) -> None:
    assert room.leader is not None
    room.leader.queue_applied(Queue("ns", "q", ("p",), rate=TokenRate(0.5, 4)), NOW)
    room.put(obj("a"))
    room.lead()
    room.written(room.agent())
    (limit,) = wire(capacity.queue("ns", "q"))["limits"]
    assert limit == {"name": "rate.queue", "left": 3.0, "capacity": 4, "perSecond": 0.5}


def test_a_pool_is_told_with_its_agents(room: Room, facts: Facts, capacity: Capacity) -> None:
    assert room.leader is not None
    room.leader.pool_applied(Pool("ns", "p", minimum=2, maximum=2), NOW)
    room.put(obj("a"))
    room.lead()
    room.written(room.agent("p-1"))
    room.agent("p-0")
    told = wire(capacity.pool("ns", "p"))
    assert [(each["name"], each["state"], each["slots"], each["busySlots"]) for each in told["agents"]] == [
        ("p-0", "idle", 1, 0),
        ("p-1", "busy", 1, 1),
    ]
    assert {each["breaker"] for each in told["agents"]} == {"Closed"}
    assert (told["states"], told["ready"], told["slots"], told["busySlots"]) == ({"busy": 1, "idle": 1}, 2, 2, 1)
    assert (told["stalled"], told["leftOut"]) == ("p is stalled", 0)
    (row,) = wire(capacity.pools("ns", ""))["items"]
    assert row == {name: value for name, value in told.items() if name not in ("agents", "leftOut")}


def test_agents_beyond_the_most_are_counted(room: Room, capacity: Capacity) -> None:
    assert room.leader is not None
    room.leader.pool_applied(Pool("ns", "p", minimum=MOST_AGENTS + 2, maximum=MOST_AGENTS + 2), NOW)
    for number in range(MOST_AGENTS + 2):
        room.agent(f"p-{number:04}")
    told = capacity.pool("ns", "p")
    assert (len(told.agents), told.left_out, told.states) == (MOST_AGENTS, 2, {"idle": MOST_AGENTS + 2})


def test_pages_go_by_name_and_miss_nothing(room: Room, capacity: Capacity) -> None:
    assert room.leader is not None
    names = [f"n{number:03}" for number in range(MOST_ROWS + 1)]
    for name in reversed(names):
        room.leader.queue_applied(Queue("many", name), NOW)
        room.leader.pool_applied(Pool("many", name), NOW)
    for ask in (capacity.queues, capacity.pools):
        first = ask("many", "")
        second = ask("many", first.continue_)
        assert [each.name for each in (*first.items, *second.items)] == names
        assert second.continue_ == ""


def test_what_is_not_there_is_said(room: Room, capacity: Capacity) -> None:
    for ask, kind in ((capacity.queue, "TaskQueue"), (capacity.pool, "AgentPool")):
        with pytest.raises(Problem, match=f"no {kind} x in namespace ns") as refused:
            ask("ns", "x")
        assert refused.value.status == 404
    with pytest.raises(Problem, match="'limit' is no parameter: there is continue"):
        after({"limit": "3"})
    room.leader = None
    asks: list[Callable[[str, str], object]] = [capacity.queue, capacity.pool, capacity.queues, capacity.pools]
    for each in asks:
        with pytest.raises(Problem) as refused:
            each("ns", "q")
        assert refused.value.status == 421
