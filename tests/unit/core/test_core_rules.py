"""The rules of order, sentence by sentence, on the core as a whole: named cases, small enough to follow by hand."""

from dataclasses import replace
from math import nextafter
from typing import Any

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import Delivery, OnHopeless, OnOverflow, OrderPolicy, Phase, Reason
from taskdist.core import Core, order
from taskdist.core.decisions import Assign, Decision, Fail, Scale, Spill
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    Event,
    PoolApplied,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import EMERGENCY, TOP, Overflow, Queue, Quota, Task, Timeouts, TokenRate


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **{"tenant": "a", **fields})


def queue(name: str = "q", **fields: Any) -> Queue:
    """A queue of pool `p`, without aging and holds unless they are asked for."""
    return replace(make_queue(name).build(), **{"aging_step": 0.0, "hold_after": 0.0, **fields})


class World:
    """A core with pools `p` and `other`, and the queue `q` unless others are given."""

    def __init__(self, *queues: Queue, slots: int = 0) -> None:
        self.core = Core()
        self.told(PoolApplied(make_pool().fixed(9).build()), PoolApplied(make_pool("other").fixed(9).build()))
        self.told(*(QueueApplied(each) for each in queues or (queue(),)))
        if slots:
            self.told(AgentReady(make_agent("a").slots(slots).build()))
        self.core.decide(0.0)

    def told(self, *events: Event | Task, now: float = 0.0) -> list[Decision]:
        answers = []
        for event in events:
            answers += self.core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)
        return answers

    def decides(self, now: float = 0.0) -> list[Decision]:
        found = self.core.decide(now)
        assert self.core.audit() == []
        return found

    def starts(self, now: float = 0.0) -> list[str]:
        return [each.task_uid for each in self.decides(now) if isinstance(each, Assign)]

    def ends(self, uid: str, now: float = 0.0) -> list[str]:
        """It ends, and its slot is given anew."""
        self.told(TaskGone(uid, Phase.SUCCEEDED), now=now)
        return self.starts(now)

    def fates(self, now: float = 0.0) -> list[tuple[str, Reason, Phase]]:
        return [(each.task_uid, each.reason, each.phase) for each in self.decides(now) if isinstance(each, Fail)]

    def why(self, uid: str, now: float = 0.0) -> Reason | None:
        found = self.core.why(uid, now)
        return None if found is None else found.reason

    def order(self, now: float = 0.0, seconds: float = 0.0, most: int = 99) -> str:
        """Serve all that waits on one slot, one after the other, each for so many seconds."""
        self.told(AgentReady(make_agent("one").build()), now=now)
        found = ""
        started = self.starts(now)
        while started and len(found) < most:
            (uid,) = started
            found += uid[0]
            now += seconds
            started = self.ends(uid, now)
        return found


# Priority is global among the queues that share a pool; then the queue's share, the tenant's share, deadline, created.


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        pytest.param(
            [task("a", priority=0), task("b", priority=4, queue="r"), task("c", priority=2), task("d", priority=3)],
            "bdca",
            id="levels-are-global",
        ),
        pytest.param(
            [task("a"), task("b", created=9.0, queue="r"), task("c", created=1.0)], "abc", id="queues-take-turns"
        ),
        pytest.param(
            [task("a"), task("b", created=1.0), task("c", created=9.0, tenant="z")], "acb", id="tenants-take-turns"
        ),
        pytest.param([task("a", deadline=90.0), task("b", deadline=80.0, created=5.0)], "ba", id="then-deadline"),
        pytest.param([task("a", deadline=3700.0), task("b"), task("c", deadline=3500.0)], "cba", id="none-is-an-hour"),
        pytest.param([task("a", created=5.0), task("b", created=4.0)], "ba", id="then-age"),
        pytest.param([task("b"), task("a")], "ab", id="then-uid"),
    ],
)
def test_order(tasks: list[Task], expected: str) -> None:
    world = World(queue(), queue("r"))
    world.told(*tasks)
    assert world.order(seconds=1.0) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(OrderPolicy.PRIORITY, "xcabhl", id="Priority"),
        pytest.param(OrderPolicy.FIFO, "habcxl", id="Fifo"),
        pytest.param(OrderPolicy.DEADLINE_FIRST, "hxcabl", id="DeadlineFirst"),
    ],
)
def test_a_queue_with_an_order_of_its_own_competes_at_one_level_and_ignores_its_tasks(
    policy: OrderPolicy, expected: str
) -> None:
    own = queue(policy=policy, level=2, emergency=frozenset("a"), aging_step=1.0)
    world = World(replace(own, aging_step=0.0), queue("r"))
    world.told(
        task("a", priority=2, created=0.0, tenant="a"),
        task("b", priority=2, created=1.0, tenant="a"),
        task("c", priority=2, created=2.0, deadline=70.0),
        task("x", priority=EMERGENCY, created=3.0, deadline=60.0),
        task("h", priority=3 if policy is not OrderPolicy.PRIORITY else 1, queue="r"),
        task("l", priority=1 if policy is not OrderPolicy.PRIORITY else 0, queue="r"),
    )
    assert world.order() == expected


# Eligible is a Task that no gate holds.


@pytest.mark.parametrize(
    ("rules", "gated", "reason"),
    [
        pytest.param({}, {"not_before": 9.0}, Reason.SCHEDULED, id="notBefore"),
        pytest.param({}, {"not_before": 9.0, "failures": 1}, Reason.BACKING_OFF, id="back-off"),
        pytest.param(
            {}, {"not_before": 9.0, "failures": 1, "throttled": True}, Reason.THROTTLED, id="put-off-by-its-handler"
        ),
        pytest.param({}, {"suspended": True}, Reason.SUSPENDED, id="suspended"),
        pytest.param({"paused": True}, {}, Reason.QUEUE_PAUSED, id="paused"),
        pytest.param({"quota": Quota(leased=0)}, {}, Reason.QUOTA_EXCEEDED, id="quota"),
        pytest.param({"rate": TokenRate(0.1, 0)}, {}, Reason.RATE_LIMITED, id="rate"),
        pytest.param({"concurrency_limit": 0}, {"concurrency_key": "k"}, Reason.QUEUED, id="key-never-used"),
    ],
)
def test_what_a_gate_holds_neither_starts_nor_holds_up_others(
    rules: dict[str, Any], gated: dict[str, Any], reason: Reason
) -> None:
    world = World(queue(**rules), queue("r"), slots=1)
    world.told(task("t", priority=TOP, **gated), task("u", priority=0, queue="r"))
    if reason is Reason.QUEUED:
        assert world.starts() == ["t"]  # the API has no limit of 0
        return
    assert world.starts() == ["u"]
    assert world.why("t") is reason


# Fair shares.


@pytest.mark.parametrize(
    ("rules", "tasks", "expected"),
    [
        pytest.param(
            [queue(tenant_weights=(("a", 3),))],
            [task(f"{'ab'[n % 2]}{n}", tenant="ab"[n % 2]) for n in range(40)],
            {"a": 15, "b": 5},
            id="of-tenants",
        ),
        pytest.param(
            [queue(tenant_weight=2, tenant_weights=(("b", 2),))],
            [task(f"{'ab'[n % 2]}{n}", tenant="ab"[n % 2]) for n in range(40)],
            {"a": 10, "b": 10},
            id="of-tenants-not-named",
        ),
        pytest.param(
            [queue(weight=3), queue("r")],
            [task(f"{'ab'[n % 2]}{n}", queue="qr"[n % 2]) for n in range(40)],
            {"a": 15, "b": 5},
            id="of-queues",
        ),
        pytest.param(
            [queue(), queue("r")],
            [
                *(task(f"{'ab'[n % 2]}{n:02d}", tenant="ab"[n % 2]) for n in range(40)),
                *(task(f"c{n:02d}", queue="r") for n in range(20)),
            ],
            {"a": 5, "b": 5, "c": 10},
            id="of-queues-before-tenants",
        ),
        pytest.param(
            [queue(policy=OrderPolicy.FIFO, tenant_weights=(("b", 9),))],
            [task(f"{'ab'[n // 20]}{n:02d}", tenant="ab"[n // 20]) for n in range(40)],
            {"a": 20},
            id="not-in-a-queue-with-an-order-of-its-own",
        ),
    ],
)
def test_shares_follow_weights(rules: list[Queue], tasks: list[Task], expected: dict[str, int]) -> None:
    world = World(*rules)
    world.told(*tasks)
    served = world.order(seconds=10.0, most=20)
    assert {who: served.count(who) for who in set(served)} == expected


@pytest.mark.parametrize(
    ("former", "now", "expected"),
    [
        pytest.param(OrderPolicy.FIFO, OrderPolicy.PRIORITY, "ababab", id="tenants-come"),
        pytest.param(OrderPolicy.PRIORITY, OrderPolicy.FIFO, "aaabbb", id="tenants-go"),
    ],
)
def test_shares_are_those_of_the_present_rules(former: OrderPolicy, now: OrderPolicy, expected: str) -> None:
    """Though the Tasks' level is the same before and after."""
    world = World(queue(policy=former, level=2))
    world.told(*(task(f"{'ab'[n // 3]}{n}", tenant="ab"[n // 3], priority=2, created=n) for n in range(6)))
    world.told(QueueApplied(queue(policy=now, level=2)))
    assert world.order(seconds=10.0) == expected


def test_a_late_comer_starts_at_the_present() -> None:
    world = World()
    world.told(*(task(f"a{n:02d}") for n in range(60)))
    assert world.order(seconds=10.0, most=20) == "a" * 20
    for uid in list(world.core._tasks):
        if world.core._tasks[uid].agent is not None:
            world.told(TaskGone(uid, Phase.SUCCEEDED), now=200.0)
    world.told(*(task(f"b{n:02d}", tenant="b", created=200.0) for n in range(20)), now=200.0)
    served = world.order(200.0, seconds=10.0, most=20)
    assert abs(served.count("a") - 10) <= 1


@pytest.mark.parametrize("fails", [False, True], ids=["succeeded", "failed"])
def test_what_was_charged_is_trued_up_by_what_it_took(fails: bool) -> None:
    """Ten seconds are expected of both; a's Task took a hundred, so that b has nine more turns than a."""
    world = World(queue(expected_service=10.0), slots=1)
    world.told(*(task(f"a{n:02d}") for n in range(9)), *(task(f"b{n:02d}", tenant="b") for n in range(20)))
    (first,) = world.starts()
    assert first == "a00"
    if fails:
        world.told(AttemptFailed(first, Reason.HANDLER_ERROR, "boom"), now=100.0)
        world.told(task(first, failures=1, not_before=1000.0), now=100.0)
    else:
        world.told(TaskGone(first, Phase.FAILED), now=100.0)
    now, served = 100.0, ""
    started = world.starts(now)
    while "a" not in served:
        (uid,) = started
        served += uid[0]
        now += 10.0
        started = world.ends(uid, now)
    assert len(served) - 1 in (10, 11)


def test_a_grant_that_was_not_written_costs_nothing() -> None:
    world = World(slots=1)
    world.told(*(task(f"a{n}") for n in range(3)), *(task(f"b{n}", tenant="b") for n in range(3)))
    for _ in range(4):
        (uid,) = world.starts()
        assert uid == "a0"
        world.told(task(uid))
    assert world.starts() == ["a0"]


def test_a_queue_that_its_own_limit_held_does_not_save_up() -> None:
    """It had one Task at a time running for long while the other queue had the rest; then its quota goes."""
    tight = queue("r", quota=Quota(leased=1), expected_service=10.0)
    world = World(queue(expected_service=10.0), tight)
    world.told(TaskLeased(task("far", queue="r"), "elsewhere"))
    world.told(
        *(task(f"a{n:03d}") for n in range(100)), *(task(f"b{n:03d}", queue="r", created=1.0) for n in range(60))
    )
    assert world.order(seconds=10.0, most=50) == "a" * 50
    (running,) = (uid for uid, record in world.core._tasks.items() if record.agent is not None and uid != "far")
    world.told(TaskGone(running, Phase.SUCCEEDED), QueueApplied(replace(tight, quota=Quota())), now=500.0)
    served = world.order(500.0, seconds=10.0, most=20)
    assert abs(served.count("b") - 10) <= 1


# Aging.


@pytest.mark.parametrize(
    ("step", "waited", "starts"),
    [
        pytest.param(10.0, 9.0, "n", id="not-yet"),
        pytest.param(10.0, 10.0, "o", id="one-step-one-level"),
        pytest.param(10.0, 1000.0, "o", id="up-to-critical"),
        pytest.param(0.0, 1000.0, "n", id="never"),
    ],
)
def test_waiting_promotes_by_one_level_per_step(step: float, waited: float, starts: str) -> None:
    world = World(queue(aging_step=step))
    world.told(task("o", priority=2))
    world.told(task("n", priority=3, created=waited), now=waited)
    assert world.order(waited)[0] == starts


def test_waiting_never_promotes_into_emergency() -> None:
    world = World(queue(aging_step=1.0, emergency=frozenset("a")))
    world.told(task("o", priority=4), task("n", priority=EMERGENCY, created=1e6), now=1e6)
    assert world.order(1e6) == "no"


def test_each_promotion_is_announced() -> None:
    world = World(queue(aging_step=10.0))
    world.told(task("t", priority=1, created=5.0), now=5.0)
    for at in (15.0, 25.0, 35.0):
        assert world.core.next_wake() == at
        world.decides(at)
    assert world.core.next_wake() is None


@pytest.mark.parametrize("step", [5e-324, 1e-300, 1e-18, 1e-9, 0.5, 10.0, 1e300], ids=str)
@pytest.mark.parametrize("waited", [0.0, 9.999, 10.0, 25.0, 1e9], ids=lambda seconds: f"{seconds:g} s")
def test_a_step_of_aging_may_be_as_short_or_long_as_the_api_server_takes(step: float, waited: float) -> None:
    """A step that is too short to be counted lifts at once, and neither ends nor holds up the leader."""
    created = 1.7e9
    q, t = queue(aging_step=step), task("a", priority=1, created=created)
    lifted = order.level(q, t, created + waited) - 1
    # Said in another way: how many of the three promotions below the top are due.
    due = sum(created + waited >= created + count * step for count in (1, 2, 3))
    assert lifted == due


def test_fairness_holds_inside_the_aged_level() -> None:
    """a's Tasks are old and many, b's are of the level that those have reached: both have half of it."""
    world = World(queue(aging_step=10.0))
    world.told(*(task(f"a{n:02d}", priority=1) for n in range(20)), now=10.0)
    world.told(*(task(f"b{n:02d}", priority=2, tenant="b", created=10.0) for n in range(20)), now=10.0)
    assert abs(world.order(10.0, seconds=0.1, most=20).count("a") - 10) <= 1


# Deadlines.


@pytest.mark.parametrize(
    ("hopeless", "fate"),
    [
        pytest.param(OnHopeless.RUN, None, id="Run"),
        pytest.param(OnHopeless.FAIL, Phase.FAILED, id="Fail"),
        pytest.param(OnHopeless.DEAD_LETTER, Phase.DEAD_LETTERED, id="DeadLetter"),
    ],
)
def test_hopeless_ones_go_after_those_that_can_make_it(hopeless: OnHopeless, fate: Phase | None) -> None:
    world = World(queue(on_hopeless=hopeless, expected_service=10.0))
    world.told(task("h", deadline=15.0), task("f", created=1.0), now=1.0)
    # At 5 it could still be met.
    assert world.core.next_wake() == (nextafter(5.0, 6.0) if fate else None)
    if fate is None:
        assert world.order(6.0) == "fh"
    else:
        assert world.fates(6.0) == [("h", Reason.DEADLINE_HOPELESS, fate)]
        assert world.order(6.0) == "f"


def test_a_latest_start_that_is_now_can_be_met_now() -> None:
    world = World(queue(on_hopeless=OnHopeless.FAIL, expected_service=10.0), slots=1)
    world.told(task("t", deadline=15.0), now=5.0)
    assert world.starts(5.0) == ["t"]


def test_hopeless_ones_of_a_higher_level_still_go_first() -> None:
    world = World(queue(expected_service=10.0))
    world.told(task("h", deadline=1.0, priority=3), task("f", priority=2))
    assert world.order() == "hf"


def test_the_latest_start_is_fixed_at_enqueue() -> None:
    """Were it worked out anew, what is learnt in between would turn the order round."""
    world = World(queue(expected_service=50.0), slots=1)
    world.told(task("x", type="slow", priority=4))
    assert world.starts() == ["x"]
    world.told(task("s", type="slow", deadline=100.0), task("t", deadline=105.0), now=1.0)
    assert world.ends("x", 2.0) == ["s"]


# Emergency.

CAPPED = queue(emergency=frozenset("a"), emergency_leased=2)


def emergency(uid: str, **fields: Any) -> Task:
    return task(uid, priority=EMERGENCY, **fields)


def test_emergencies_skip_shares() -> None:
    world = World(CAPPED)
    world.told(
        *(task(f"b{n}", tenant="b") for n in range(3)), emergency("e1", created=5.0), emergency("e2", created=6.0)
    )
    assert world.order()[:2] == "ee"


def test_emergencies_skip_rates_and_leave_a_debt() -> None:
    world = World(replace(CAPPED, rate=TokenRate(0.5, 1)), slots=9)
    world.told(emergency("e1"), emergency("e2"), task("t"))
    assert world.starts() == ["e1", "e2"]
    assert world.core.next_wake() == 4.0  # from −1 to 1 at one in two seconds
    assert world.starts(3.9) == []
    assert world.starts(4.0) == ["t"]


@pytest.mark.parametrize(
    ("rules", "fields", "reason"),
    [
        pytest.param({"quota": Quota(leased=1)}, {}, Reason.QUOTA_EXCEEDED, id="the-queues-quota"),
        pytest.param({"tenant_quota": Quota(slots=1)}, {}, Reason.QUOTA_EXCEEDED, id="the-tenants-quota"),
        pytest.param({"emergency_leased": 1}, {}, Reason.QUOTA_EXCEEDED, id="the-cap"),
        pytest.param({}, {"concurrency_key": "k"}, Reason.KEY_IN_USE, id="keys"),
        pytest.param({}, {"ordering_key": "k"}, Reason.OUT_OF_TURN, id="order"),
        pytest.param({}, {"slots": 9}, Reason.NO_FREE_SLOTS, id="capacity"),
        pytest.param({}, {"skills": frozenset({"x"})}, Reason.SKILL_MISSING, id="what-agents-can"),
        pytest.param({"emergency": frozenset("b")}, {}, Reason.TENANT_NOT_ALLOWED, id="who-may"),
    ],
)
def test_emergencies_obey(rules: dict[str, Any], fields: dict[str, Any], reason: Reason) -> None:
    world = World(replace(CAPPED, **rules), slots=9)
    world.told(TaskLeased(emergency("e", **{**fields, "slots": 1, "skills": frozenset()}), "a"))
    world.told(
        emergency("t", **fields), task("u", created=9.0, tenant="b") if "quota" not in rules else task("u", queue="x")
    )
    assert "t" not in world.starts()
    assert world.why("t") is reason


def test_emergencies_use_any_pool_that_is_able() -> None:
    world = World(CAPPED)
    world.told(AgentReady(make_agent("far").slots(3).pool("other").build()))
    world.told(task("t", priority=TOP), emergency("e"), emergency("named", pool="p"))
    assert world.starts() == ["e"]
    assert world.why("t") is Reason.NO_AGENT


def test_once_allowed_an_emergency_starts() -> None:
    world = World(queue(), slots=1)
    world.told(emergency("e"))
    assert world.starts() == []
    world.told(QueueApplied(CAPPED))
    assert world.starts() == ["e"]


# Waiting time-outs.


@pytest.mark.parametrize(
    ("rules", "fields", "at"),
    [
        pytest.param(Timeouts(waiting=5.0), {}, 5.0, id="the-queues"),
        pytest.param(Timeouts(waiting=5.0), {"waiting_limit": 9.0}, 9.0, id="its-own-word-counts"),
        pytest.param(Timeouts(), {"waiting_limit": 9.0}, 9.0, id="its-own"),
        pytest.param(Timeouts(waiting=5.0), {"not_before": 50.0}, 5.0, id="although-scheduled"),
        pytest.param(Timeouts(waiting=5.0), {"attempted": True}, None, id="not-once-it-was-started"),
        pytest.param(Timeouts(), {}, None, id="none"),
    ],
)
def test_a_task_that_waits_too_long_fails(rules: Timeouts, fields: dict[str, Any], at: float | None) -> None:
    world = World(queue(timeouts=rules))
    world.told(task("t", **fields))
    if at is None:
        assert world.fates(1000.0) == []
        return
    assert world.core.next_wake() == at
    assert world.fates(at - 0.1) == []
    assert world.fates(at) == [("t", Reason.WAITED_TOO_LONG, Phase.FAILED)]


# Rates.


def test_the_first_in_order_takes_the_token_that_comes() -> None:
    world = World(queue(rate=TokenRate(0.1, 1)), queue("r"), slots=9)
    world.told(task("x"))
    assert world.starts() == ["x"]
    world.told(task("low", priority=1), now=1.0)
    assert world.starts(1.0) == []
    world.told(task("high", priority=3, created=2.0), task("free", queue="r", priority=0), now=2.0)
    assert world.starts(2.0) == ["free"]
    assert world.core.next_wake() == 10.0
    assert world.starts(10.0) == ["high"]
    assert world.starts(20.0) == ["low"]


def test_every_attempt_takes_a_token_and_an_unwritten_one_returns_it() -> None:
    world = World(queue(rate=TokenRate(0.1, 1)), slots=9)
    world.told(task("t"))
    assert world.starts() == ["t"]
    world.told(task("t"), now=1.0)
    assert world.starts(1.0) == ["t"]
    world.told(AttemptFailed("t", Reason.HANDLER_ERROR, "boom"), task("t", failures=1), now=2.0)
    assert world.starts(2.0) == []
    assert world.starts(11.0) == ["t"]


def test_another_rate_counts_from_when_it_is_told() -> None:
    world = World(queue(rate=TokenRate(0.001, 1)), slots=9)
    world.told(task("x"))
    assert world.starts() == ["x"]
    world.told(QueueApplied(queue(rate=TokenRate(1.0, 5))), now=10.0)
    world.told(*(task(f"t{n}") for n in range(9)), now=14.0)
    assert len(world.starts(14.0)) == 4


# Overflow.


@pytest.mark.parametrize("target", [None, "spare", "nowhere"])
def test_what_slips_past_a_full_queue_is_turned_away_newest_first(target: str | None) -> None:
    action = OnOverflow.REJECT if target is None else OnOverflow.SPILL
    world = World(queue(overflow=Overflow(2, 1, action, target)), queue("spare"))
    world.told(*(task(uid, created=created) for uid, created in (("c", 3.0), ("a", 1.0), ("d", 4.0), ("b", 2.0))))
    found = [(type(each), each.task_uid) for each in world.decides(4.0) if isinstance(each, Fail | Spill)]
    kind = Spill if target == "spare" else Fail
    assert found == [(kind, "d"), (kind, "c")]
    assert world.decides(4.0) == []


def test_nothing_is_turned_away_that_was_there_when_the_core_began() -> None:
    core = Core()
    core.handle(QueueApplied(queue(overflow=Overflow(2, 1))), 0.0)
    for number in range(5):
        core.handle(TaskWaiting(task(f"t{number}")), 0.0)
    assert core.decide(0.0) == []
    core.handle(TaskWaiting(task("new", created=1.0)), 1.0)
    assert [each.task_uid for each in core.decide(1.0) if isinstance(each, Fail)] == ["new"]


def test_nothing_is_turned_away_that_was_started_before() -> None:
    world = World(queue(overflow=Overflow(1, 1)))
    world.told(task("a"))
    assert world.fates() == []
    world.told(task("t", attempted=True, created=9.0), now=9.0)
    assert world.fates(9.0) == []


# Suspend, cancel, queues paused and gone.


@pytest.mark.parametrize(
    ("before", "stop", "go"),
    [
        pytest.param([], task("t", suspended=True), task("t"), id="suspended"),
        pytest.param([task("t", not_before=1.0)], task("t", suspended=True), task("t"), id="while-scheduled"),
        pytest.param([], QueueApplied(queue(paused=True)), QueueApplied(queue()), id="paused"),
        pytest.param([], QueueDeleted((NAMESPACE, "q")), QueueApplied(queue()), id="queue-gone"),
        pytest.param([], TaskHeld(task("t"), Reason.RECOVERING), task("t"), id="held"),
    ],
)
def test_what_is_stopped_goes_on_where_it_was(before: list[Task], stop: Event | Task, go: Event | Task) -> None:
    world = World(slots=1)
    world.told(task("t"), *before, stop)
    assert world.starts(5.0) == []
    world.told(task("later", created=1.0), go, now=5.0)
    assert world.starts(5.0) == ["t"]


def test_leased_tasks_of_a_queue_that_is_gone_finish_under_defaults() -> None:
    world = World(queue(delivery=Delivery.AT_MOST_ONCE), slots=1)
    world.told(task("t"))
    world.starts()
    world.told(QueueDeleted((NAMESPACE, "q")))
    (answer,) = world.told(AttemptFailed("t", Reason.HANDLER_ERROR, "boom"))
    assert not isinstance(answer, Fail)


# Pools.


@pytest.mark.parametrize(
    ("rules", "fields", "agents"),
    [
        pytest.param({}, {}, 5, id="nothing-holds-them"),
        pytest.param({"quota": Quota(leased=1)}, {}, 1, id="quota"),
        pytest.param({"tenant_quota": Quota(slots=1)}, {}, 1, id="tenants-quota"),
        pytest.param({"rate": TokenRate(0.001, 1)}, {}, 1, id="rate"),
        pytest.param({}, {"concurrency_key": "k"}, 1, id="key"),
        pytest.param({}, {"ordering_key": "o"}, 1, id="order"),
        pytest.param({"paused": True}, {}, 1, id="paused"),
        pytest.param({}, {"suspended": True}, 1, id="suspended"),
        pytest.param({}, {"not_before": 50.0}, 1, id="scheduled"),
    ],
)
def test_pools_grow_only_for_what_no_limit_holds(rules: dict[str, Any], fields: dict[str, Any], agents: int) -> None:
    world = World(queue(**{**rules, "paused": False}))
    world.told(PoolApplied(make_pool().elastic(0, 9, 0.0).build()), AgentReady(make_agent("a").build()))
    world.told(task("x", **{**fields, "suspended": False, "not_before": 0.0}))
    assert world.starts() == ["x"]
    world.told(QueueApplied(queue(**rules)), *(task(f"t{n}", created=1.0, **fields) for n in range(4)), now=1.0)
    sizes = [each.replicas for each in world.decides(1.0) if isinstance(each, Scale)]
    assert (sizes[-1] if sizes else 1) == agents
