"""Which limit holds a Task, what it says, and when it lets go: rule by rule."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from builders import NAMESPACE, make_queue, make_task
from taskdist.api import OrderPolicy, Reason
from taskdist.core.limits.blockers import Blocker, Scope
from taskdist.core.limits.limits import Limits
from taskdist.core.model import EMERGENCY, NORMAL, Overflow, Queue, Task, TokenRate
from taskdist.core.model import Quota as Bounds

QUEUE = (NAMESPACE, "q")


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **{"tenant": "a", **fields})


def queue(**fields: Any) -> Queue:
    return replace(make_queue().build(), **fields)


def tokens(scope: Scope, now: float) -> float:
    """What is left of the scope's rate."""
    assert scope.rate is not None
    return scope.tokens(scope.rate, now).tokens(now)


def limits_of(rules: Queue | None, leased: tuple[Task, ...] = (), now: float = 0.0) -> Limits:
    limits = Limits()
    if rules is not None:
        limits.apply_queue(rules)
    for each in leased:
        limits.enter(each)
        limits.grant(each, now)
    return limits


def asked(limits: Limits, each: Task, now: float = 0.0) -> Blocker | None:
    return limits.blocker(each, each.priority, now)


def ask(limits: Limits, each: Task, now: float = 0.0) -> Blocker | None:
    limits.enter(each)
    return asked(limits, each, now)


@dataclass(frozen=True)
class Case:
    name: str
    rules: Queue | None
    leased: tuple[Task, ...]
    asks: Task
    reason: Reason | None
    message: str = ""
    unblock: str = ""


ALLOWED = frozenset({"a", "b"})
ALARM = {"priority": EMERGENCY}

CASES = [
    Case("no limits", queue(), (task("1"),), task("t"), None),
    Case("unknown queue", None, (task("1"),), task("t"), None),
    Case("below the quota", queue(quota=Bounds(leased=2)), (task("1"),), task("t"), None),
    Case(
        "queue's quota of Tasks",
        queue(quota=Bounds(leased=2)),
        (task("1"), task("2", tenant="b")),
        task("t", tenant="c"),
        Reason.QUOTA_EXCEEDED,
        "Queue q runs 2 of at most 2 Tasks.",
        "Wait for one of them to end, or raise spec.quota.leased of TaskQueue q.",
    ),
    Case(
        "another queue's Tasks do not count",
        queue(quota=Bounds(leased=1)),
        (task("1", queue="other"),),
        task("t"),
        None,
    ),
    Case("as many slots as are left", queue(quota=Bounds(slots=5)), (task("1", slots=3),), task("t", slots=2), None),
    Case(
        "queue's quota of slots",
        queue(quota=Bounds(slots=5)),
        (task("1", slots=3),),
        task("t", slots=3),
        Reason.QUOTA_EXCEEDED,
        "Queue q occupies 3 of at most 5 slots.",
        "Wait for Tasks to end, or raise spec.quota.slots of TaskQueue q.",
    ),
    Case(
        "more slots than the quota has",
        queue(quota=Bounds(slots=5)),
        (),
        task("t", slots=6),
        Reason.QUOTA_EXCEEDED,
        "Queue q may occupy 5 slots in all: the Task asks for more.",
        "Raise spec.quota.slots of TaskQueue q, or create the Task again with fewer slots.",
    ),
    Case(
        "tenant's quota of Tasks",
        queue(tenant_quota=Bounds(leased=1)),
        (task("1"),),
        task("t"),
        Reason.QUOTA_EXCEEDED,
        "Tenant a of queue q runs 1 of at most 1 Tasks.",
        "Wait for one of them to end, or raise spec.quota.perTenant.leased of TaskQueue q.",
    ),
    Case("another tenant's", queue(tenant_quota=Bounds(leased=1)), (task("1", tenant="b"),), task("t"), None),
    Case(
        "tenant's quota of slots",
        queue(tenant_quota=Bounds(slots=2)),
        (task("1", slots=2),),
        task("t"),
        Reason.QUOTA_EXCEEDED,
        "Tenant a of queue q occupies 2 of at most 2 slots.",
        "Wait for Tasks to end, or raise spec.quota.perTenant.slots of TaskQueue q.",
    ),
    Case(
        "the queue's comes before the tenant's",
        queue(quota=Bounds(leased=1), tenant_quota=Bounds(leased=1)),
        (task("1"),),
        task("t"),
        Reason.QUOTA_EXCEEDED,
        "Queue q runs 1 of at most 1 Tasks.",
    ),
    Case(
        "concurrency key, one at a time by default",
        queue(),
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k"),
        Reason.KEY_IN_USE,
        "Queue q runs 1 of at most 1 Tasks of the concurrency key k.",
        "Wait for one of them to end; if more may run at once, raise spec.concurrencyLimit of TaskQueue q.",
    ),
    Case(
        "a queue that is not there keeps keys apart",
        None,
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k"),
        Reason.KEY_IN_USE,
    ),
    Case("another key", queue(), (task("1", concurrency_key="j"),), task("t", concurrency_key="k"), None),
    Case(
        "the same key in another queue",
        queue(),
        (task("1", concurrency_key="k", queue="other"),),
        task("t", concurrency_key="k"),
        None,
    ),
    Case(
        "a key that two may hold",
        queue(concurrency_limit=2),
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k"),
        None,
    ),
    Case("Emergency", queue(emergency=ALLOWED), (), task("t", **ALARM), None),
    Case(
        "Emergency of another tenant",
        queue(emergency=frozenset({"b"})),
        (),
        task("t", **ALARM),
        Reason.TENANT_NOT_ALLOWED,
        "Tenant a may not use the level Emergency in queue q.",
        "Lower the Task's priority, or add the tenant to spec.tenants.emergency of TaskQueue q.",
    ),
    Case(
        "where priority is ignored, Emergency is",
        queue(policy=OrderPolicy.FIFO),
        (),
        task("t", **ALARM),
        None,
    ),
    Case(
        "Emergency's own quota",
        queue(emergency=ALLOWED, emergency_leased=1),
        (task("1", **ALARM),),
        task("t", **ALARM),
        Reason.QUOTA_EXCEEDED,
        "Tenant a of queue q runs 1 of at most 1 Tasks of the level Emergency.",
        "Wait for one of them to end, or raise spec.tenants.emergencyLeased of TaskQueue q.",
    ),
    Case(
        "which is each tenant's",
        queue(emergency=ALLOWED, emergency_leased=1),
        (task("1", tenant="b", **ALARM), task("2")),
        task("t", **ALARM),
        None,
    ),
    Case(
        "and nothing to other Tasks",
        queue(emergency=ALLOWED, emergency_leased=1),
        (task("1", **ALARM),),
        task("t"),
        None,
    ),
    Case(
        "Emergency obeys quotas",
        queue(emergency=ALLOWED, quota=Bounds(leased=1)),
        (task("1"),),
        task("t", **ALARM),
        Reason.QUOTA_EXCEEDED,
        "Queue q runs 1 of at most 1 Tasks.",
    ),
    Case(
        "Emergency obeys keys",
        queue(emergency=ALLOWED),
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k", **ALARM),
        Reason.KEY_IN_USE,
    ),
    Case(
        "queue's rate",
        queue(rate=TokenRate(0.5, 2)),
        (task("1"), task("2", tenant="b")),
        task("t", tenant="c"),
        Reason.RATE_LIMITED,
        "Queue q may start 0.5 attempts a second, 2 at once; the next in 2 s.",
        "Wait 2 s, or raise spec.rate.queue of TaskQueue q.",
    ),
    Case(
        "tenant's rate",
        queue(tenant_rate=TokenRate(4, 1)),
        (task("1"),),
        task("t"),
        Reason.RATE_LIMITED,
        "Tenant a of queue q may start 4 attempts a second, 1 at once; the next in 0.25 s.",
        "Wait 0.25 s, or raise spec.rate.perTenant of TaskQueue q.",
    ),
    Case(
        "the queue's rate before the tenant's",
        queue(rate=TokenRate(1, 1), tenant_rate=TokenRate(4, 1)),
        (task("1"),),
        task("t"),
        Reason.RATE_LIMITED,
        "Queue q may start 1 attempts a second, 1 at once; the next in 1 s.",
    ),
    Case("another tenant's rate", queue(tenant_rate=TokenRate(4, 1)), (task("1", tenant="b"),), task("t"), None),
    Case(
        "Emergency skips rates",
        queue(emergency=ALLOWED, rate=TokenRate(1, 1), tenant_rate=TokenRate(1, 1)),
        (task("1"),),
        task("t", **ALARM),
        None,
    ),
    Case(
        "permission before quota",
        queue(quota=Bounds(leased=1)),
        (task("1"),),
        task("t", **ALARM),
        Reason.TENANT_NOT_ALLOWED,
    ),
    Case(
        "quota before key",
        queue(quota=Bounds(leased=1)),
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k"),
        Reason.QUOTA_EXCEEDED,
    ),
    Case(
        "key before rate",
        queue(rate=TokenRate(1, 1)),
        (task("1", concurrency_key="k"),),
        task("t", concurrency_key="k"),
        Reason.KEY_IN_USE,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_limit_that_holds(case: Case) -> None:
    limits = limits_of(case.rules, case.leased)
    found = ask(limits, case.asks)
    assert (None if found is None else found.reason) == case.reason
    if found is not None:
        message, unblock = found.describe(0.0)
        assert message == (case.message or message)
        assert unblock == (case.unblock or unblock)
        # Keys hold single Tasks; all else holds every Task like this one.
        assert found.whole == (found.reason is not Reason.KEY_IN_USE)
        # One object for one limit.
        assert asked(limits, case.asks) is found


# What lets a Task go, and that it is told.

HELD: list[tuple[str, Queue, Task, Task]] = [
    ("queue's Tasks", queue(quota=Bounds(leased=1)), task("1", tenant="b"), task("t")),
    ("queue's slots", queue(quota=Bounds(slots=2)), task("1", slots=2, tenant="b"), task("t")),
    ("tenant's Tasks", queue(tenant_quota=Bounds(leased=1)), task("1"), task("t")),
    ("tenant's slots", queue(tenant_quota=Bounds(slots=2)), task("1", slots=1), task("t", slots=2)),
    ("key", queue(), task("1", concurrency_key="k"), task("t", concurrency_key="k")),
    ("Emergency", queue(emergency=ALLOWED, emergency_leased=1), task("1", **ALARM), task("t", **ALARM)),
]


@pytest.mark.parametrize(("rules", "first", "second"), [case[1:] for case in HELD], ids=[case[0] for case in HELD])
def test_the_end_of_an_attempt_opens_what_it_held_once(rules: Queue, first: Task, second: Task) -> None:
    limits = limits_of(rules, (first,))
    found = ask(limits, second)
    assert found is not None
    assert found.opens_at(0.0) is None
    assert limits.release(first, 5.0) == [found]
    assert asked(limits, second, 5.0) is None
    # Nobody has asked in vain since.
    limits.grant(first, 5.0)
    assert limits.release(first, 6.0) == []
    assert list(limits.findings([(first, False), (second, False)])) == []


@pytest.mark.parametrize("wanted", [(3, 2), (2, 3)], ids=["larger first", "smaller first"])
def test_slots_open_for_the_smallest_that_asked(wanted: tuple[int, int]) -> None:
    one, another, large = task("1"), task("2"), task("3", slots=4)
    limits = limits_of(queue(quota=Bounds(slots=6)), (one, another, large))
    found = {ask(limits, task(f"t{slots}", slots=slots)) for slots in wanted}
    assert len(found) == 1
    assert limits.release(one, 1.0) == []  # 1 slot is free, 2 and 3 are asked for
    assert limits.release(another, 2.0) == [*found]
    # Only the larger one asks again.
    assert {asked(limits, task("t3", slots=3), 2.0)} == found
    assert limits.release(large, 3.0) == [*found]


def test_what_stays_shut_is_not_reported() -> None:
    # Leases that were found at a change of leader may be more than the quota allows.
    first, second = task("1"), task("2")
    limits = limits_of(queue(quota=Bounds(leased=1)), (first, second))
    found = ask(limits, task("t"))
    assert limits.release(first, 1.0) == []
    assert limits.release(second, 2.0) == [found]


@pytest.mark.parametrize(
    ("former", "rules", "asks"),
    [
        (queue(quota=Bounds(leased=1)), queue(quota=Bounds(leased=2)), task("t")),
        (queue(quota=Bounds(slots=2)), queue(), task("t", slots=3)),
        (queue(tenant_quota=Bounds(slots=1)), queue(tenant_quota=Bounds(slots=2)), task("t")),
        (queue(), queue(emergency=ALLOWED), task("t", **ALARM)),
        (queue(emergency=ALLOWED, emergency_leased=1), queue(emergency=ALLOWED), task("t", **ALARM)),
        (queue(), queue(concurrency_limit=2), task("t", concurrency_key="k")),
        (queue(rate=TokenRate(1, 1)), queue(), task("t")),
        (queue(tenant_rate=TokenRate(1, 1)), queue(), task("t")),
    ],
    ids=["Tasks", "too few slots", "tenant", "permission", "Emergency", "key", "rate", "tenant's rate"],
)
def test_other_rules_report_all_that_was_shut(former: Queue, rules: Queue, asks: Task) -> None:
    holder = task("1", concurrency_key="k", priority=asks.priority)
    limits = limits_of(former, (holder,))
    found = ask(limits, asks)
    assert found is not None
    assert limits.apply_queue(former) == []
    assert limits.apply_queue(rules) == [found]
    assert asked(limits, asks) is None
    assert limits.next_due() is None


def test_a_queue_that_is_gone_has_no_limits() -> None:
    first, second = task("1"), task("t")
    limits = limits_of(queue(quota=Bounds(leased=1)), (first,))
    found = ask(limits, second)
    assert limits.drop_queue(QUEUE) == [found]
    assert limits.drop_queue(QUEUE) == []
    assert asked(limits, second) is None
    # And when it comes back, it counts what is there.
    assert limits.apply_queue(queue(quota=Bounds(leased=1))) == []
    assert asked(limits, second) is not None


# Rates.


def test_a_rate_says_when_and_is_due_then() -> None:
    limits = limits_of(queue(rate=TokenRate(0.5, 1)), (task("1"),), now=10.0)
    second = task("2")
    found = ask(limits, second, 10.5)
    assert found is not None
    assert found.opens_at(10.5) == 12.0
    assert limits.next_due() == 12.0
    assert limits.due(11.999) == []
    assert limits.due(12.0) == [found]
    assert limits.due(12.0) == []
    assert limits.next_due() is None
    assert asked(limits, second, 12.0) is None


def test_a_token_that_nobody_waits_for_is_not_due() -> None:
    limits = limits_of(queue(rate=TokenRate(0.5, 1)), (task("1"),))
    assert limits.next_due() is None


def test_a_write_that_failed_returns_its_token_and_its_place() -> None:
    first, second, third = task("1"), task("2", tenant="b"), task("3")
    rules = queue(rate=TokenRate(0.1, 1), tenant_rate=TokenRate(0.1, 1), quota=Bounds(leased=2))
    limits = limits_of(rules, (first,))
    of_queue = ask(limits, second, 1.0)
    assert of_queue is not None
    assert limits.refund(first, 2.0) == [of_queue]
    assert asked(limits, second, 2.0) is None
    assert limits.next_due() is None
    # A release returns none.
    limits.grant(second, 2.0)
    assert ask(limits, third, 2.0) is of_queue
    assert limits.release(second, 3.0) == []
    assert limits.next_due() == 12.0


def test_a_token_that_comes_back_may_come_sooner_but_not_now() -> None:
    leased = (task("1", **ALARM), task("2", **ALARM))
    limits = limits_of(queue(rate=TokenRate(1, 1), emergency=ALLOWED), leased)
    found = ask(limits, task("t"))
    assert limits.next_due() == 2.0
    assert limits.refund(leased[0], 0.0) == []
    assert limits.next_due() == 1.0
    assert limits.due(1.0) == [found]


def test_emergency_takes_tokens_ahead() -> None:
    limits = limits_of(queue(rate=TokenRate(1, 2), emergency=ALLOWED), tuple(task(f"{n}", **ALARM) for n in range(5)))
    assert tokens(limits._books[QUEUE], 0.0) == -3
    found = ask(limits, task("t"))
    assert found is not None
    assert found.opens_at(0.0) == 4.0
    # Further ones keep those that wait waiting.
    late = task("late", **ALARM)
    limits.enter(late)
    limits.grant(late, 3.0)
    assert limits.next_due() == 5.0
    assert limits.due(4.0) == []
    assert limits.due(5.0) == [found]


def test_recovered_leases_take_no_token() -> None:
    limits = Limits()
    limits.apply_queue(queue(rate=TokenRate(1, 1)))
    found = task("1")
    limits.enter(found)
    limits.grant(found, 0.0, token=False)
    assert ask(limits, task("2")) is None


@pytest.mark.parametrize(
    ("former", "rate", "opens"),
    [
        (TokenRate(0.1, 1), TokenRate(1, 1), 5.5),  # half a token is there, the rest comes faster
        (TokenRate(0.1, 1), TokenRate(0.1, 10), 10.0),  # room for more, but not more tokens
        (TokenRate(0.2, 5), TokenRate(0.2, 1), None),  # what has no room is lost, one token is there
    ],
    ids=["faster", "larger", "smaller"],
)
def test_tokens_stay_when_the_rate_changes(former: TokenRate, rate: TokenRate, opens: float | None) -> None:
    limits = limits_of(queue(rate=former), (task("1"),))
    limits.apply_queue(queue(rate=rate))
    found = ask(limits, task("t"), 5.0)
    assert (None if found is None else found.opens_at(5.0)) == opens


def test_an_idle_tenant_keeps_its_debt() -> None:
    first, second = task("1"), task("2")
    limits = limits_of(queue(tenant_rate=TokenRate(0.1, 1)), (first,))
    limits.release(first, 1.0)
    limits.leave(first)
    accounts = limits._books[QUEUE].accounts.values()
    assert accounts
    assert all(account.idle for account in accounts)
    found = ask(limits, second, 2.0)
    assert found is not None
    assert found.opens_at(2.0) == 10.0


# Ordering keys.


def ordered(uid: str, created: float, **fields: Any) -> Task:
    return task(uid, created=created, ordering_key="o", **fields)


def test_the_oldest_has_the_turn() -> None:
    limits = Limits()
    young, old, same = ordered("a", 2.0), ordered("z", 1.0), ordered("y", 1.0)
    limits.enter(young)
    assert limits.in_turn(young)
    limits.enter(old)
    assert not limits.in_turn(young)
    assert limits.in_turn(old)
    limits.enter(same)  # created in the same second: by uid
    assert [each.uid for each in (young, old, same) if limits.in_turn(each)] == ["y"]
    assert limits.turn(old) == ("y", 3)
    assert limits.in_turn(task("free"))


def test_the_turn_passes_at_the_end_for_good() -> None:
    limits = Limits()
    first, second, third = (ordered(str(n), float(n)) for n in range(3))
    for each in (first, second, third):
        limits.enter(each)
    limits.grant(first, 0.0)
    assert not limits.in_turn(second)
    limits.release(first, 1.0)  # it backs off
    assert not limits.in_turn(second)
    assert limits.in_turn(first)
    limits.grant(first, 2.0)
    limits.release(first, 3.0)
    assert limits.leave(first) == ["1"]
    assert limits.in_turn(second)
    assert limits.leave(third) == []  # it had not the turn
    assert limits.leave(second) == []
    assert list(limits.findings([])) == []


@pytest.mark.parametrize("end", ["release", "refund"])
def test_what_was_started_goes_before_what_is_older(end: str) -> None:
    limits = Limits()
    first, older = ordered("b", 5.0), ordered("a", 5.0)
    limits.enter(first)
    limits.grant(first, 6.0)
    limits.enter(older)  # heard of late
    assert not limits.in_turn(older)
    getattr(limits, end)(first, 7.0)
    assert limits.in_turn(first)
    assert not limits.in_turn(older)
    assert limits.leave(first) == ["a"]


def test_what_a_former_leader_started_goes_before_what_is_older() -> None:
    limits = Limits()
    limits.enter(ordered("a", 1.0))
    limits.enter(ordered("b", 2.0, attempted=True))
    assert limits.in_turn(ordered("b", 2.0))
    assert not limits.in_turn(ordered("a", 1.0))


def test_two_leases_of_one_key_found_at_a_change_of_leader() -> None:
    first, second, third = (ordered(str(n), float(n)) for n in range(3))
    for ends in ((first, second), (second, first)):
        limits = Limits()
        for each in (first, second, third):
            limits.enter(each)
        for each in (first, second):
            limits.grant(each, 0.0, token=False)
        limits.release(ends[0], 1.0)
        assert not any(limits.in_turn(each) for each in (ends[0], third))
        limits.release(ends[1], 2.0)
        # The last one to be over goes on, and nothing waits for ever.
        assert limits.in_turn(ends[1])
        assert limits.leave(ends[1]) == [ends[0].uid]
        assert limits.leave(ends[0]) == ["2"]


def test_the_turn_waits_for_the_last_lease_of_a_key() -> None:
    first, second, third = (ordered(str(n), float(n)) for n in range(3))
    limits = Limits()
    for each in (first, second, third):
        limits.enter(each)
    for each in (first, second):
        limits.grant(each, 0.0, token=False)
    limits.release(first, 1.0)
    assert limits.leave(first) == []
    limits.release(second, 2.0)
    assert limits.leave(second) == ["2"]


def test_a_task_that_spills_takes_its_place_elsewhere() -> None:
    limits = Limits()
    first, second = ordered("1", 1.0, payload_bytes=7), ordered("2", 2.0)
    limits.enter(first)
    limits.enter(second)
    spilled = replace(first, queue="other")
    assert limits.change(first, replace(first, failures=1)) == []
    assert limits.change(first, spilled) == ["2"]
    assert limits.in_turn(spilled)
    book = limits._books[NAMESPACE, "other"]
    assert (book.waiting, book.payload_bytes) == (1, 7)
    assert list(limits.findings([(spilled, False), (second, False)])) == []


def test_a_change_keeps_the_turn_of_what_was_started() -> None:
    limits = Limits()
    first, older = ordered("b", 5.0), ordered("a", 5.0)
    for each in (first, older):
        limits.enter(each)
    limits.grant(first, 6.0)
    limits.release(first, 7.0)
    again = replace(first, failures=1, not_before=20.0, priority=NORMAL + 1)
    assert limits.change(first, again) == []
    assert limits.in_turn(again)


# Counters of what waits.


@pytest.mark.parametrize(
    ("rules", "waiting", "payload"),
    [
        (queue(), None, None),
        (queue(quota=Bounds(waiting=3, payload_bytes=30)), None, None),
        (
            queue(quota=Bounds(waiting=2, payload_bytes=29)),
            "Queue q holds 3 waiting Tasks, more than its spec.quota.waiting of 2.",
            "Queue q holds 30 bytes of payload, more than its spec.quota.payloadBytes of 29.",
        ),
        (
            queue(tenant_quota=Bounds(waiting=1, payload_bytes=19)),
            "Tenant a of queue q holds 2 waiting Tasks, more than its spec.quota.perTenant.waiting of 1.",
            "Tenant a of queue q holds 20 bytes of payload, more than its spec.quota.perTenant.payloadBytes of 19.",
        ),
        (
            queue(overflow=Overflow(2, 1)),
            "Queue q holds 3 waiting Tasks, more than its spec.overflow.highWater of 2.",
            None,
        ),
    ],
    ids=["none", "as many as may", "queue", "tenant", "high water"],
)
def test_what_is_one_too_many(rules: Queue, waiting: str | None, payload: str | None) -> None:
    limits = limits_of(rules)
    tasks = [task("1", payload_bytes=10), task("2", payload_bytes=10, tenant="b"), task("3", payload_bytes=10)]
    for each in tasks:
        limits.enter(each)
    assert limits.over_waiting(tasks[-1]) == waiting
    assert limits.over_payload(tasks[-1]) == payload
    # What was granted waits no longer, and its payload is still there.
    limits.grant(tasks[0], 0.0)
    assert limits.over_waiting(tasks[-1]) is None
    assert limits.over_payload(tasks[-1]) == payload


def test_a_task_without_payload_is_not_too_many_bytes() -> None:
    limits = limits_of(queue(quota=Bounds(payload_bytes=5)))
    limits.enter(task("1", payload_bytes=6))
    limits.enter(task("2"))
    assert limits.over_payload(task("2")) is None


def test_counts_by_queue_and_tenant() -> None:
    limits = limits_of(queue(rate=TokenRate(1, 5)), (task("1", slots=3, payload_bytes=4), task("2", tenant="b")))
    limits.enter(task("3", payload_bytes=5))
    book = limits._books[QUEUE]
    assert (book.waiting, book.leased, book.slots, book.payload_bytes, tokens(book, 1.0)) == (1, 2, 4, 9, 4.0)
    assert sorted(book.accounts) == ["a", "b"]
    own = book.accounts["a"]
    assert (own.waiting, own.leased, own.slots, own.rate) == (1, 1, 3, None)


# Memory and audit.


def test_a_limit_is_reported_when_its_tenant_has_no_tasks_left() -> None:
    # Another object may stand for the limit when the tenant comes back.
    limits, alarm = limits_of(queue()), task("1", **ALARM)
    found = ask(limits, alarm)
    limits.leave(alarm)
    assert limits.due(0.0) == [found]
    assert limits.due(0.0) == []
    assert ask(limits, alarm) is not found


def test_the_rate_of_a_tenant_without_tasks_is_due_all_the_same() -> None:
    first, second = task("1"), task("2")
    limits = limits_of(queue(tenant_rate=TokenRate(1, 1)), (first,))
    found = ask(limits, second)
    limits.release(first, 0.0)
    limits.leave(first)
    limits.leave(second)
    assert limits.due(0.5) == []
    assert limits.due(1.0) == [found]


def test_nothing_is_kept_of_what_is_gone() -> None:
    limits = Limits()
    rules = queue(
        quota=Bounds(leased=1), tenant_quota=Bounds(leased=1), tenant_rate=TokenRate(100, 1), emergency=frozenset({"b"})
    )
    limits.apply_queue(rules)
    now, told = 0.0, set[Blocker]()
    for number in range(1000):
        now += 1.0
        fields = {"tenant": f"t{number}", "concurrency_key": f"k{number}", "ordering_key": f"o{number}"}
        first, second = task(f"a{number}", **fields), task(f"b{number}", **fields)
        lost = task(f"c{number}", tenant=f"t{number}", queue="nowhere", ordering_key="o")
        alarm = task(f"d{number}", tenant=f"t{number}", **ALARM)
        for each in (first, second, lost, alarm):
            limits.enter(each)
        limits.grant(first, now)
        assert asked(limits, second, now) is not None
        assert asked(limits, alarm, now) is not None
        limits.release(first, now)
        for each in (first, second, lost, alarm):
            limits.leave(each)
        told |= set(limits.due(now))
    assert len(limits._books) == 1
    # Buckets are kept until they are full again; they are looked through when they have doubled.
    assert len(limits._accounts) == len(limits._idle) <= 66
    assert not limits._active.timed
    book = limits._books[QUEUE]
    assert not book.keys
    assert len(book.watched) <= 66
    assert len(told) >= 900
    assert list(limits._ordering_keys.sizes()) == []
    assert list(limits.findings([])) == []
    limits.drop_queue(QUEUE)
    assert not limits._books
    assert not limits._accounts
    assert not limits._idle


def tampered() -> tuple[Limits, list[tuple[Task, bool]]]:
    leased = task("1", slots=2, payload_bytes=3, concurrency_key="k", **ALARM)
    waiting = ordered("2", 1.0, payload_bytes=4)
    limits = limits_of(queue(quota=Bounds(leased=1)), (leased,))
    assert ask(limits, waiting) is not None
    return limits, [(leased, True), (waiting, False)]


BREAKS: list[tuple[str, Callable[[Any], object], str]] = [
    ("queue", lambda book: setattr(book, "waiting", 5), "queue"),
    ("tenant", lambda book: setattr(book.accounts["a"], "slots", 5), "tenant"),
    ("Emergency", lambda book: setattr(book.accounts["a"], "emergency", 0), "Emergency"),
    ("key", lambda book: setattr(book.keys["k"], "held", 2), "concurrency key"),
]


def test_the_audit_is_content_with_what_is_right() -> None:
    limits, tasks = tampered()
    assert list(limits.findings(tasks)) == []


@pytest.mark.parametrize(("spoil", "word"), [each[1:] for each in BREAKS], ids=[each[0] for each in BREAKS])
def test_the_audit_sees_a_wrong_count(spoil: Callable[[Any], object], word: str) -> None:
    limits, tasks = tampered()
    spoil(limits._books[QUEUE])
    assert any(word in finding for finding in limits.findings(tasks))


def test_the_audit_sees_a_missing_task() -> None:
    limits, tasks = tampered()
    found = list(limits.findings(tasks[:1]))
    assert any(finding.startswith("ordering key") for finding in found)


def test_the_audit_sees_what_was_not_reported() -> None:
    limits, tasks = tampered()
    limits._books[QUEUE].leased = 0
    assert any("was not reported" in finding for finding in limits.findings(tasks))
