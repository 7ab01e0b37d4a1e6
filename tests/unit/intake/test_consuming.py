"""The decisions over a broker's messages, in virtual time: whatever fails between any two steps, none is lost, none has
two Tasks, and those of one key are made in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.intake.consuming import (
    PARALLEL,
    Acknowledge,
    Action,
    Consume,
    Consumption,
    Create,
    DeadLetter,
    GiveBack,
    Pause,
    Why,
)
from taskdist.intake.mapping import Mapped
from taskdist.intake.message import Poison, PoisonReason

KEYS = ("a", "b", "")
NOT_JSON = Poison(PoisonReason.NOT_JSON, "the body is no JSON")


def mapped(number: int, key: str = "", queue: str = "q") -> Mapped:
    return Mapped(str(number), {"queue": queue, "type": "t", **({"orderingKey": key} if key else {})}, {})


def consuming(*messages: Mapped | Poison, queue: str | None = "q", parallel: int = PARALLEL) -> Consumption:
    """Make one that consumes, and to which these messages came with the tags 1, 2, …"""
    made = Consumption(queue, parallel)
    assert made.actions(0) == [Consume()]
    for tag, each in enumerate(messages, 1):
        made.delivered(tag, each)
    return made


def creates(actions: list[Action]) -> list[int]:
    return [each.tag for each in actions if isinstance(each, Create)]


def test_a_message_is_acknowledged_once_its_task_is_there() -> None:
    made = consuming(mapped(1))
    assert made.actions(0) == [Create(1, mapped(1))]
    assert made.actions(0) == []
    made.taken(1, 1)
    assert made.actions(1) == [Acknowledge(1)]
    assert made.in_hand == ()


def test_of_one_key_one_is_at_work_at_a_time_and_others_go_beside_it() -> None:
    made = consuming(mapped(1, "a"), mapped(2, "a"), mapped(3, "b"), mapped(4), mapped(5))
    assert creates(made.actions(0)) == [1, 3, 4, 5]
    made.taken(3, 1)
    assert creates(made.actions(1)) == []
    made.taken(1, 1)
    assert creates(made.actions(1)) == [2]


def test_no_more_tasks_are_created_at_a_time_than_allowed() -> None:
    made = consuming(*(mapped(number) for number in range(5)), parallel=2)
    assert creates(made.actions(0)) == [1, 2]
    made.taken(2, 0)
    assert creates(made.actions(0)) == [3]


def test_a_queue_that_is_full_by_the_watch_pauses_and_goes_on_when_it_is_not() -> None:
    made = consuming(mapped(1), mapped(2))
    made.told({"q": "full"})
    assert made.actions(0) == [Pause()]
    assert made.trouble() == (Why.FULL, "full")
    assert made.actions(100) == []
    made.told({})
    actions = made.actions(100)
    assert creates(actions) == [1, 2]
    assert actions[-1] == Consume()
    assert made.trouble() is None


def test_another_queue_that_is_full_pauses_nothing_unless_a_message_is_for_it() -> None:
    made = consuming(mapped(1), queue=None)
    made.told({"other": "full"})
    assert creates(made.actions(0)) == [1]
    made.delivered(2, mapped(2, queue="other"))
    assert made.actions(0) == [Pause()]


def test_a_queue_that_refuses_is_tried_by_one_message_with_growing_pauses() -> None:
    made = consuming(mapped(1), mapped(2))
    assert creates(made.actions(0)) == [1, 2]
    made.turned_away(1, Why.FULL, "full", 0)
    made.turned_away(2, Why.FULL, "full", 0)
    assert made.actions(0) == [Pause()]
    assert made.wake(0) == 1
    assert creates(made.actions(1)) == [1]
    made.turned_away(1, Why.FULL, "full", 1)
    assert made.wake(1) == 3
    assert creates(made.actions(3)) == [1]
    made.taken(1, 3)
    actions = made.actions(3)
    assert (actions[0], creates(actions), actions[-1]) == (Acknowledge(1), [2], Consume())


def test_a_probe_that_is_not_answered_is_not_the_last_one() -> None:
    made = consuming(mapped(1), mapped(2))
    made.actions(0)
    made.turned_away(1, Why.FULL, "full", 0)
    made.turned_away(2, Why.FULL, "full", 0)
    assert creates(made.actions(1)) == [1]
    made.turned_away(1, Why.FAILING, "down", 1)
    assert made.wake(1) == 2
    assert creates(made.actions(2)) == [1]


def test_an_api_server_that_is_away_costs_no_redelivery_for_ten_minutes_and_one_then() -> None:
    made = consuming(mapped(1, "a"), mapped(2, "a"))
    now = 0.0
    assert creates(made.actions(now)) == [1]
    while now < 600:
        made.turned_away(1, Why.FAILING, "down", now)
        assert GiveBack((1, 2)) not in made.actions(now)
        assert made.trouble() == (Why.FAILING, "down")
        now = made.wake(now) or 0
        if now < 600:
            assert creates(made.actions(now)) == [1]
    assert made.actions(600)[0] == GiveBack((1, 2))
    assert made.in_hand == ()
    assert Consume() in made.actions(640), "and is asked again later"


def test_what_is_refused_alone_goes_to_the_dead_letters_in_the_end() -> None:
    made = consuming(mapped(1, "a"), mapped(2, "a"), mapped(3))
    made.actions(0)
    made.turned_away(1, Why.REFUSED, "tenant x may not", 0)
    made.taken(3, 5)
    assert made.actions(5) == [Acknowledge(3), Create(1, mapped(1, "a"))], "tried again, and nothing else is held up"
    made.turned_away(1, Why.REFUSED, "tenant x may not", 5)
    assert made.trouble() is None
    (action,) = made.actions(600)
    assert isinstance(action, DeadLetter)
    assert (action.tag, action.poison.reason) == (1, PoisonReason.REFUSED)
    assert "tenant x may not" in str(action.poison)
    made.dead_lettered(1)
    assert made.actions(601) == [Acknowledge(1), Create(2, mapped(2, "a"))]


def test_where_all_are_refused_they_are_kept_then_given_back_and_none_is_a_dead_letter() -> None:
    made = consuming(mapped(1), mapped(2))
    made.actions(0)
    for tag in (1, 2):
        made.turned_away(tag, Why.REFUSED, "quota", 0)
    assert made.trouble() == (Why.REFUSED, "quota")
    assert made.actions(600) == [Pause(), GiveBack((1, 2))]
    assert made.actions(630) == [Consume()]


def test_what_is_too_much_is_given_back_with_all_behind_it_and_comes_again() -> None:
    made = consuming(mapped(1, "a"), mapped(2))
    made.crowded(3)
    made.delivered(4, mapped(4, "a"))
    assert made.actions(0) == [Pause(), GiveBack((3, 4)), Create(1, mapped(1, "a")), Create(2, mapped(2))]
    made.delivered(5, mapped(5))
    assert made.actions(0) == [GiveBack((5,))], "it was on its way"
    made.taken(1, 0)
    assert made.actions(0) == [Acknowledge(1)]
    made.taken(2, 0)
    assert made.actions(0) == [Acknowledge(2), Consume()]


def test_what_was_too_much_comes_again_at_once_where_nothing_is_in_hand_any_more() -> None:
    made = consuming()
    made.crowded(1)
    assert made.actions(0) == [Pause(), GiveBack((1,)), Consume()]


def test_poison_is_acknowledged_once_it_lies_with_the_dead_letters() -> None:
    made = consuming(NOT_JSON, mapped(2))
    assert made.actions(0) == [Create(2, mapped(2)), DeadLetter(1, NOT_JSON)]
    made.turned_away(1, Why.DEAD_LETTERS, "no such exchange", 0)
    assert made.actions(0) == [Pause()]
    assert made.trouble() == (Why.DEAD_LETTERS, "no such exchange")
    assert made.actions(1) == [DeadLetter(1, NOT_JSON)]
    made.dead_lettered(1)
    assert made.actions(1) == [Acknowledge(1), Consume()]


def test_what_the_api_server_refuses_for_good_holds_its_key_until_it_is_put_away() -> None:
    made = consuming(mapped(1, "a"), mapped(2, "a"))
    made.actions(0)
    made.poisoned(1, NOT_JSON)
    assert made.actions(0) == [DeadLetter(1, NOT_JSON)]
    made.dead_lettered(1)
    assert made.actions(0) == [Acknowledge(1), Create(2, mapped(2, "a"))]


# -- whole histories ---------------------------------------------------------------------------------------------------

PREFETCH = 4
STEPS = (
    *("deliver",) * 4,
    *("do",) * 8,
    *("land",) * 4,
    *("answer",) * 4,
    *("tick", "hour", "kill", "late", "down", "full", "told", "quota", "policy", "no exchange", "publish", "crowd"),
)


@dataclass
class _Operation:
    """A request that is under way: what it asked, whether it was carried out, and what is answered."""

    action: Create | DeadLetter
    number: int
    landed: bool = False
    fate: str = ""


@dataclass
class _World:
    """Broker, API server, and the process between them. Each `step` is one thing that happens in one of them."""

    messages: dict[int, Mapped | Poison] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)
    unacknowledged: dict[int, int] = field(default_factory=dict)
    asked: bool = False
    tasks: list[int] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    now: float = 0.0
    faults: set[str] = field(default_factory=set)
    made: Consumption = field(default_factory=lambda: Consumption("q"))
    outbox: deque[Action] = field(default_factory=deque)
    under_way: list[_Operation] = field(default_factory=list)
    lost: list[_Operation] = field(default_factory=list)
    _tags: int = 0

    def step(self, what: str, number: int) -> None:
        match what:
            case "publish":
                self._publish(number)
            case "deliver":
                self._deliver()
            case "do":
                self._do()
            case "land":
                self._land(number)
            case "answer":
                self._answer(number)
            case "tick":
                self.now += number % 40
            case "hour":
                self.now += 700
            case "kill":
                self.kill()
            case "late":
                if self.lost:
                    self._carry_out(self.lost.pop(number % len(self.lost)))
            case "told":
                self.made.told({"q": "full"} if "full" in self.faults else {})
            case _:
                self.faults ^= {what}

    def kill(self) -> None:
        """The process, or its connection, is gone. What it had under way may still be carried out, much later."""
        self.lost += [each for each in self.under_way if not each.landed]
        self.ready = sorted([*self.ready, *self.unacknowledged.values()])
        self.unacknowledged.clear()
        self.under_way, self.outbox, self.asked, self.made = [], deque(), False, Consumption("q")

    def _publish(self, number: int) -> None:
        index = len(self.messages)
        self.messages[index] = NOT_JSON if number % 7 == 0 else mapped(index, KEYS[number % 3])
        self.ready.append(index)

    def _deliver(self) -> None:
        if self.asked and self.ready and len(self.unacknowledged) < PREFETCH:
            self._tags += 1
            index = self.unacknowledged[self._tags] = self.ready.pop(0)
            if "crowd" in self.faults and self.made.in_hand:
                self.made.crowded(self._tags)
            else:
                self.made.delivered(self._tags, self.messages[index])

    def _do(self) -> None:
        if not self.outbox:
            self.outbox.extend(self.made.actions(self.now))
        if not self.outbox:
            return
        match action := self.outbox.popleft():
            case Acknowledge(tag):
                number = self.unacknowledged.pop(tag)
                assert number in self.tasks or number in self.dead, "it is dealt with"
            case GiveBack(tags):
                assert not self.asked, "or they would come again at once"
                self.ready = sorted([*self.ready, *(self.unacknowledged.pop(tag) for tag in tags)])
            case Consume():
                self.asked = True
            case Pause():
                self.asked = False
            case _:
                self.under_way.append(_Operation(action, self.unacknowledged[action.tag]))

    def _land(self, number: int) -> None:
        waiting = [each for each in self.under_way if not each.landed]
        if waiting:
            operation = waiting[number % len(waiting)]
            operation.landed = True
            if "down" in self.faults and number % 2 and isinstance(operation.action, Create):
                operation.fate = "failed"  # never arrived
            else:
                operation.fate = self._carry_out(operation)

    def _carry_out(self, operation: _Operation) -> str:
        index = operation.number
        if isinstance(operation.action, DeadLetter):
            if "no exchange" in self.faults:
                return "unpublished"
            self.dead.append(index)
            return "published"
        if "full" in self.faults:
            return "full"
        if "quota" in self.faults or ("policy" in self.faults and self._refused(index)):
            return "refused"
        if index % 5 == 4:
            return "invalid"
        if index not in self.tasks:
            self.tasks.append(index)
        return "taken"

    @staticmethod
    def _refused(index: int) -> bool:
        return index % 5 == 3

    def _answer(self, number: int) -> None:
        answered = [each for each in self.under_way if each.landed]
        if not answered:
            return
        operation = answered[number % len(answered)]
        self.under_way.remove(operation)
        tag, fate = operation.action.tag, operation.fate
        if isinstance(operation.action, Create) and "down" in self.faults:
            fate = "failed"  # the answer is lost
        match fate:
            case "taken":
                self.made.taken(tag, self.now)
            case "invalid":
                self.made.poisoned(tag, NOT_JSON)
            case "published":
                self.made.dead_lettered(tag)
            case "unpublished":
                self.made.turned_away(tag, Why.DEAD_LETTERS, fate, self.now)
            case _:
                why = {"full": Why.FULL, "refused": Why.REFUSED, "failed": Why.FAILING}[fate]
                self.made.turned_away(tag, why, fate, self.now)

    def calm(self) -> None:
        """No more faults: within a bounded time all is dealt with."""
        self.faults.clear()
        self.made.told({})
        for _ in range(200 + 60 * len(self.messages)):
            if not self.ready and not self.unacknowledged and not self.outbox:
                return
            for what in ("do", "do", "do", "deliver", "do", "land", "answer", "do"):
                self.step(what, 0)
            if not self.outbox and not self.under_way and (wake := self.made.wake(self.now)) is not None:
                self.now = wake
        raise AssertionError(f"it stands still: {self}")

    def check(self) -> None:
        for index, made in self.messages.items():
            poison = isinstance(made, Poison) or index % 5 == 4
            assert (index in self.tasks) is not poison or (self._refused(index) and index in self.dead), index
            assert index in self.dead if poison else (index not in self.dead or self._refused(index)), index
        assert len(self.tasks) == len(set(self.tasks))
        for key in KEYS[:2]:
            order = [each for each in self.tasks if self.key(each) == key]
            assert order == sorted(order), f"key {key}: {order}"

    def key(self, index: int) -> str:
        made = self.messages[index]
        return str(made.spec.get("orderingKey", "")) if isinstance(made, Mapped) else ""


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1000)), max_size=150),
)
def test_whatever_fails_between_any_two_steps_nothing_is_lost_or_made_twice_and_keys_keep_their_order(
    published: list[int], steps: list[tuple[str, int]]
) -> None:
    world = _World()
    for number in published:
        world.step("publish", number)
    for what, number in steps:
        world.step(what, number)
        assert len(world.unacknowledged) <= PREFETCH
    world.calm()
    for operation in world.lost:
        world._carry_out(operation)
    world.check()


@pytest.mark.parametrize("fault", ["kill", "down", "full", "quota", "policy", "no exchange"])
def test_each_fault_at_each_step_of_a_short_history(fault: str) -> None:
    """Try one fault before each of the steps of an undisturbed run."""
    plain = ("do", "deliver", "deliver", "deliver", "do", "do", "land", "answer", "do", "land", "answer", "do", "do")
    for place in range(len(plain) + 1):
        for lasting in (False, True):
            world = _World()
            for number in (0, 3, 6, 1, 4):
                world.step("publish", number + 1)
            for at, what in enumerate(plain):
                if at == place or (lasting and at > place and fault == "kill"):
                    world.step(fault, 0)
                world.step(what, at)
                if at == place + 3 and not lasting and fault != "kill":
                    world.step(fault, 0)
            world.calm()
            world.check()


def test_what_is_withdrawn_while_it_waits_is_given_up_at_once() -> None:
    made = consuming(mapped(1, "a"), mapped(2, "a"), mapped(3, "a"))
    assert creates(made.actions(0)) == [1]
    made.withdrawn([2, 3, 99])
    assert made.actions(0) == [GiveBack((2, 3))]
    assert made.in_hand == (1,)
    made.delivered(4, mapped(4, "a"))
    made.taken(1, 1)
    assert made.actions(1) == [Acknowledge(1), Create(4, mapped(4, "a"))]


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        pytest.param(lambda made: made.taken(1, 1), [Acknowledge(1)], id="taken: acknowledged"),
        pytest.param(lambda made: made.poisoned(1, NOT_JSON), [GiveBack((1,))], id="poison: left to who has it now"),
        pytest.param(
            lambda made: made.turned_away(1, Why.FAILING, "no answer", 1), [GiveBack((1,))], id="turned away: given up"
        ),
        pytest.param(
            lambda made: made.turned_away(1, Why.REFUSED, "a quota", 1), [GiveBack((1,))], id="refused: given up"
        ),
    ],
)
def test_what_is_withdrawn_while_it_is_at_work_ends_with_its_answer(
    answer: Callable[[Consumption], None], then: list[Action]
) -> None:
    made = consuming(mapped(1))
    assert creates(made.actions(0)) == [1]
    made.withdrawn([1])
    assert made.actions(0) == []
    answer(made)
    assert made.actions(1) == then
    assert (made.in_hand, made.trouble(), made.actions(100)) == ((), None, [])


def test_a_dead_letter_that_is_withdrawn_on_its_way_is_acknowledged_once_it_lies_there() -> None:
    made = consuming(NOT_JSON)
    assert made.actions(0) == [DeadLetter(1, NOT_JSON)]
    made.withdrawn([1])
    made.dead_lettered(1)
    assert made.actions(1) == [Acknowledge(1)]


def test_messages_of_a_group_are_dealt_with_one_after_the_other_whatever_their_ordering_keys_are() -> None:
    made = consuming()
    messages: list[Mapped | Poison] = [mapped(1, "a"), NOT_JSON, mapped(3, "b"), mapped(4)]
    for tag, each in enumerate(messages, 1):
        made.delivered(tag, each, "g" if tag < 4 else "h")
    assert made.actions(0) == [Create(1, mapped(1, "a")), Create(4, mapped(4))]
    made.taken(1, 0)
    assert made.actions(0) == [Acknowledge(1), DeadLetter(2, NOT_JSON)]
    made.dead_lettered(2)
    assert made.actions(0) == [Acknowledge(2), Create(3, mapped(3, "b"))]


def test_what_is_turned_away_holds_its_group_and_no_other() -> None:
    made = consuming()
    for tag, group in enumerate("ggh", 1):
        made.delivered(tag, mapped(tag), group)
    made.actions(0)
    made.turned_away(1, Why.REFUSED, "a quota", 0)
    made.taken(3, 0)
    assert made.actions(0) == [Acknowledge(3)]
    assert made.actions(1) == [Create(1, mapped(1))]
