"""Delivery: at least once, in order of a key, and a position that is true at any moment."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskdist.common.backoff import Backoff
from taskdist.outgoing.delivery import Delivery, Failure, Lowest, Room, Rules
from taskdist.outgoing.ends import End

RULES = Rules(in_flight=2, waits=Backoff(first=1, most=8), max_attempts=3, give_up_seconds=100)


def end(version: int, key: str = "", body: bytes = b"{}") -> End:
    return End(f"e{version}", "team", f"t{version}", f"u{version}", version, key or f"k{version}", "", body)


def delivery(*ends: End, rules: Rules = RULES, **bounds: Any) -> Delivery:
    made = Delivery(rules, **bounds)
    for each in ends:
        made.add(each)
        made.heard_up_to(each.version)
    return made


def sent(made: Delivery, now: float = 0.0) -> list[str]:
    return [each.id for each in made.due(now)]


def test_of_one_key_one_is_on_its_way_and_keys_do_not_wait_for_each_other() -> None:
    made = delivery(end(1, "a"), end(2, "a"), end(3, "b"))
    assert sent(made) == ["e1", "e3"]
    assert sent(made) == []
    made.told("e1")
    assert sent(made) == ["e2"]


def test_so_many_are_on_their_way_and_no_more() -> None:
    made = delivery(end(1), end(2), end(3))
    assert sent(made) == ["e1", "e2"]
    made.told("e2")
    assert sent(made) == ["e3"]


def test_one_that_fails_holds_back_its_key_only_and_comes_again_after_growing_waits() -> None:
    made = delivery(end(1, "a"), end(2, "a"), end(3, "b"))
    sent(made)
    assert made.failed("e1", Failure.FAILED, 0.0) is False
    made.told("e3")
    assert (sent(made, 0.9), made.wake()) == ([], 1.0)
    assert sent(made, 1.0) == ["e1"]
    made.failed("e1", Failure.FAILED, 1.0)
    assert (sent(made, 2.9), made.wake()) == ([], 3.0)
    assert sent(made, 3.0) == ["e1"]
    made.told("e1")
    assert sent(made, 3.0) == ["e2"]


@pytest.mark.parametrize(
    ("failure", "others", "tries"),
    [
        pytest.param(Failure.FAILED, True, 3, id="given up once others were taken"),
        pytest.param(Failure.FAILED, False, None, id="not while the receiver takes nothing at all"),
        pytest.param(Failure.REJECTED, True, 3, id="a refusal, no later than any failure"),
        pytest.param(Failure.UNAVAILABLE, True, None, id="not where the end has no part in it"),
    ],
)
def test_an_end_that_no_try_helps_is_given_up(failure: Failure, others: bool, tries: int | None) -> None:
    made = delivery(end(1), end(2, "other"))
    now, tried = 0.0, 0
    sent(made, now)
    if others:
        made.told("e2")
    while tried < 10:
        tried += 1
        if made.failed("e1", failure, now):
            break
        now += 8
        assert "e1" in sent(made, now)
    else:
        tried = 0
    assert (tried or None) == tries


def test_a_refusal_is_given_up_after_fewer_tries() -> None:
    made = delivery(end(1), end(2, "other"), rules=Rules(waits=Backoff(first=1, most=1), max_attempts=50))
    sent(made)
    made.told("e2")
    tries = 1
    while not made.failed("e1", Failure.REJECTED, float(tries)):
        tries += 1
        assert sent(made, float(tries)) == ["e1"]
    assert tries == 5


@pytest.mark.parametrize("failure", list(Failure))
def test_after_its_time_an_end_is_given_up_in_any_case(failure: Failure) -> None:
    made = delivery(end(1), end(2, "k1"))
    sent(made, 5.0)
    assert made.failed("e1", failure, 104.9) is False
    # The last try is at that time, not a whole wait later.
    assert made.wake() == 105.0
    assert sent(made, 105.0) == ["e1"]
    assert made.failed("e1", failure, 105.0) is True
    assert made.position == 1
    # Where no receiver was found, it rests first.
    then = made.wake()
    assert then is not None
    assert (then > 105.0) == (failure is Failure.UNAVAILABLE)
    assert sent(made, max(then, 105.0)) == ["e2"]


def test_a_receiver_that_asks_for_rest_is_left_alone() -> None:
    made = delivery(end(1), end(2), end(3))
    sent(made)
    made.failed("e1", Failure.UNAVAILABLE, 0.0)
    made.told("e2")
    made.rest(30.0)
    assert (sent(made, 29.0), made.wake()) == ([], 30.0)
    assert sent(made, 30.0) == ["e3", "e1"]


@pytest.mark.parametrize(
    ("over", "position"),
    [
        pytest.param([], 9, id="nothing is told"),
        pytest.param([10], 19, id="the first is told"),
        pytest.param([20, 30], 9, id="all but the first are told"),
        pytest.param([20, 10], 29, id="the first two are told"),
        pytest.param([10, 20, 30], 40, id="all are told, and more was heard that is no end"),
    ],
)
def test_the_position_never_passes_what_is_not_told(over: list[int], position: int) -> None:
    made = delivery(end(10), end(20), end(30), rules=Rules())
    made.heard_up_to(40)
    sent(made)
    for version in over:
        made.told(f"e{version}")
    assert made.position == position


def test_an_end_that_comes_again_is_sent_once() -> None:
    made = delivery(end(1), end(1))
    assert sent(made) == ["e1"]
    made.told("e1")
    made.add(End(**{**{name: getattr(end(1), name) for name in End.__slots__}, "version": 7}))
    made.heard_up_to(7)
    assert (sent(made), made.position, made.pending) == ([], 7, 0)


def test_bodies_beyond_their_bound_are_left_out_and_their_place_is_kept() -> None:
    made = delivery(*(end(at, "a", b"12345") for at in (1, 2, 3)), most_bytes=10)
    bodies = []
    for at in (1, 2, 3):
        (one,) = made.due(0.0)
        bodies.append(one.body)
        made.told(f"e{at}")
    assert bodies == [b"12345", b"12345", b""]


def test_a_body_that_is_seen_again_is_kept_once_there_is_room() -> None:
    made = delivery(end(1, "a", b"12345"), end(2, "a", b"12345"), most_bytes=5)
    sent(made)
    made.refresh(end(2, "a", b"12345"))
    made.told("e1")
    made.refresh(end(2, "a", b"12345"))
    assert [one.body for one in made.due(0.0)] == [b"12345"]


def test_there_is_room_for_so_many() -> None:
    made = delivery(end(1), end(2), most_ends=3)
    assert made.room == 1
    sent(made)
    made.gone("e1")
    assert made.room == 2


def test_another_history_begins_anew_and_loses_nothing() -> None:
    made = delivery(end(50, "a"), end(60, "b"), rules=Rules())
    sent(made)
    made.told("e50")
    made.forget_versions()
    assert made.position == 0
    # In the new history both stand at other versions, and the first may have ended otherwise.
    made.add(End("e50", "team", "t50", "u50", 5, "a", "", b"{}"))
    made.add(End("e60", "team", "t60", "u60", 6, "b", "", b"{}"))
    made.heard_up_to(9)
    assert (sent(made), made.position) == (["e50"], 4)
    made.told("e50")
    assert made.position == 5
    made.told("e60")
    assert made.position == 9


@given(st.lists(st.integers(1, 40), unique=True), st.integers(1, 8))
def test_of_a_list_the_lowest_versions_are_kept_in_order(versions: list[int], most: int) -> None:
    kept = Lowest(most, most_bytes=6)
    for version in versions:
        kept.add(end(version))
    assert [each.version for each in kept.in_order()] == sorted(versions)[:most]
    assert sum(len(each.body) for each in kept.in_order()) <= 6
    assert kept.more == (len(versions) > most)


def asked(made: Delivery, seconds: float, failure: Failure | None) -> list[float]:
    """Send what is due for so long, each answered at once; return when each was sent."""
    now, sent = 0.0, []
    while now <= seconds:
        for each in made.due(now):
            sent.append(now)
            if failure is None:
                made.told(each.id)
            else:
                made.failed(each.id, failure, now)
        wake = made.wake()
        if wake is None:
            break
        now = max(wake, now + 0.001)
    return sent


def test_a_receiver_that_is_down_is_asked_no_more_often_however_many_ends_wait() -> None:
    made = Delivery(Rules(in_flight=16, waits=Backoff(first=1, most=300)))
    for version in range(1, 10_001):
        made.add(end(version, str(version)))
    sent = asked(made, 3600, Failure.UNAVAILABLE)
    assert len(sent) < 16 + 9 + 3600 / 300 + 2
    assert len([each for each in sent if each < 60]) < 16 + 7


def test_once_it_is_back_all_go_out_at_once() -> None:
    made = Delivery(Rules(in_flight=16, waits=Backoff(first=1, most=8)))
    for version in range(1, 1001):
        made.add(end(version, str(version)))
    asked(made, 100, Failure.UNAVAILABLE)
    probe = made.due(200.0)
    assert len(probe) == 1
    made.told(probe[0].id)
    assert len(made.due(200.0)) == 16


@pytest.mark.parametrize("failure", [Failure.FAILED, Failure.REJECTED])
def test_a_receiver_that_answers_is_not_taken_for_one_that_is_down(failure: Failure) -> None:
    made = Delivery(Rules(in_flight=2, waits=Backoff(first=1, most=8)))
    for version in range(1, 101):
        made.add(end(version, str(version)))
    assert len([each for each in asked(made, 0.5, failure) if each < 0.5]) == 100


def test_some_that_no_receiver_takes_do_not_slow_the_others() -> None:
    """Such as those of one routing key, whose queue is full."""
    made, now, told = Delivery(Rules(in_flight=4, waits=Backoff(first=1, most=8))), 0.0, 0
    for version in range(1, 401):
        made.add(end(version, str(version)))
    while (found := made.due(now)) and now < 1:
        for each in found:
            if each.version % 2:
                made.failed(each.id, Failure.UNAVAILABLE, now)
            else:
                made.told(each.id)
                told += 1
        now += 0.001
    assert told == 200


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=120))
def test_all_deliveries_of_a_process_share_their_room_and_each_has_a_little_in_any_case(
    steps: list[tuple[int, bool]],
) -> None:
    shared = Room(most_ends=10, least_ends=2, most_bytes=20)
    made = [Delivery(RULES, most_ends=8, most_bytes=9, shared=shared) for _ in range(5)]
    for number, (which, comes) in enumerate(steps, 1):
        each = made[which]
        if comes and each.room:
            each.add(end(number, str(number)))
        elif not comes:
            for due in each.due(0.0):
                each.told(due.id)
        held = [other.pending for other in made]
        assert shared.ends == sum(held) <= 10 + 5 * 2
        assert all(other.room for other, count in zip(made, held, strict=True) if count < 2)
        assert all(other.has_room_for_a_list for other, count in zip(made, held, strict=True) if not count)
        # Of each one body has room in any case.
        assert shared.bytes <= 20 + 5 * 2
    for each in made:
        each.close()
    assert (shared.ends, shared.bytes) == (0, 0)


def test_a_list_waits_until_half_of_what_fits_is_free() -> None:
    made = Delivery(RULES, most_ends=4)
    for version in range(1, 5):
        made.add(end(version, str(version)))
    assert not made.has_room_for_a_list
    first, second = made.due(0.0)[:2]
    made.told(first.id)
    assert not made.has_room_for_a_list
    made.told(second.id)
    assert made.has_room_for_a_list


@dataclass
class Receiver:
    """What it took, in order, and of each end only the first time."""

    took: list[int] = field(default_factory=list)

    def take(self, version: int) -> None:
        if version not in self.took:
            self.took.append(version)


class Deliveries(RuleBasedStateMachine):
    """Any order of ends, answers, failures, lists and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[int, str] = {}  # of the ends that there are, by version
        self.receiver = Receiver()
        self.kept = 0  # the position that outlives a crash
        self.now = 0.0
        self.begin()

    def begin(self) -> None:
        rules = Rules(in_flight=3, waits=Backoff(first=1, most=4), max_attempts=10**6, give_up_seconds=1e9)
        self.made = Delivery(rules, self.kept, most_ends=4, most_bytes=5)
        self.flying: list[int] = []
        self.stale = True

    def _end(self, version: int) -> End:
        return end(version, self.keys[version])

    @rule(key=st.sampled_from("abc"), gap=st.integers(1, 3))
    def a_task_ends(self, key: str, gap: int) -> None:
        self.keys[max(self.keys, default=0) + gap] = key

    @rule()
    @precondition(lambda self: self.stale)
    def it_is_listed(self) -> None:
        kept = Lowest(self.made.room, most_bytes=5)
        # In the order of names, which is none.
        for version in sorted(self.keys, key=lambda each: (each * 7) % 11):
            if version > self.made.heard:
                kept.add(self._end(version))
        found = kept.in_order()
        for each in found:
            self.made.add(each)
        if not kept.more:
            self.made.heard_up_to(max(self.keys, default=0))
            self.stale = False
        elif found:
            self.made.heard_up_to(found[-1].version)

    @rule(most=st.integers(1, 5))
    @precondition(lambda self: not self.stale)
    def it_is_watched(self, most: int) -> None:
        for version in sorted(each for each in self.keys if each > self.made.heard)[:most]:
            if self.made.room:
                self.made.add(self._end(version))
                self.made.heard_up_to(version)

    @rule()
    def the_watch_is_lost(self) -> None:
        self.stale = True

    @rule(passes=st.floats(0, 10))
    def what_is_due_is_sent(self, passes: float) -> None:
        self.now += passes
        for each in self.made.due(self.now):
            assert each.key not in [self.keys[other] for other in self.flying]
            self.flying.append(each.version)

    @rule(data=st.data(), arrived=st.booleans(), failure=st.sampled_from(list(Failure)))
    @precondition(lambda self: self.flying)
    def one_is_answered(self, data: st.DataObject, arrived: bool, failure: Failure) -> None:
        version = data.draw(st.sampled_from(self.flying))
        self.flying.remove(version)
        if arrived:
            self.receiver.take(version)
            self.made.told(f"e{version}")
        else:
            self.made.failed(f"e{version}", failure, self.now)

    @rule(until=st.floats(0, 5))
    def the_receiver_asks_for_rest(self, until: float) -> None:
        self.made.rest(self.now + until)

    @rule()
    def the_position_is_kept(self) -> None:
        self.kept = self.made.position

    @rule(data=st.data())
    def it_crashes(self, data: st.DataObject) -> None:
        # Whatever is on its way may have arrived.
        for version in self.flying:
            if data.draw(st.booleans()):
                self.receiver.take(version)
        self.begin()

    @invariant()
    def all_up_to_the_position_is_told(self) -> None:
        assert [each for each in self.keys if each <= self.made.position and each not in self.receiver.took] == []

    @invariant()
    def the_order_of_each_key_is_kept(self) -> None:
        for key in "abc":
            took = [version for version in self.receiver.took if self.keys[version] == key]
            assert took == sorted(took)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.made.pending <= 4

    def teardown(self) -> None:
        """In the end all is told, whatever happened."""
        for _ in range(4 * len(self.keys) + 20):
            if self.stale:
                self.it_is_listed()
            else:
                self.it_is_watched(5)
            self.now += 10
            for each in self.made.due(self.now):
                self.flying.append(each.version)
            for version in self.flying:
                self.receiver.take(version)
                self.made.told(f"e{version}")
            self.flying.clear()
        assert sorted(self.receiver.took) == sorted(self.keys)
        assert self.made.position == max(self.keys, default=0)
        self.the_order_of_each_key_is_kept()


Deliveries.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDeliveries = Deliveries.TestCase
