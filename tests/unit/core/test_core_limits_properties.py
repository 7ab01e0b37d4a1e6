"""Whatever is granted, released and changed: limits hold what they must, and tell of all that they let go.

Checked against a model that keeps nothing but the list of Tasks and counts anew for each question.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from builders import NAMESPACE, make_queue, make_task
from taskdist.api import OrderPolicy
from taskdist.core.limits.blockers import (
    Blocker,
    FewSlots,
    Forbidden,
    FullEmergency,
    FullKey,
    FullQuota,
    FullSlots,
    NoToken,
)
from taskdist.core.limits.limits import Limits
from taskdist.core.model import EMERGENCY, Key, Queue, Task, TokenRate
from taskdist.core.model import Quota as Bounds

QUEUES, TENANTS, KEYS = ("q", "r"), ("a", "b"), ("k", "l")
# What holds: its kind, the queue, and the tenant or the key.
Name = tuple[type[Blocker], Key, str | None]


def name_of(blocker: Blocker) -> Name:
    whose = blocker.use.key if isinstance(blocker, FullKey) else blocker.tenant
    return (type(blocker), blocker.book.rules.key, whose)


@dataclass
class Model:
    """All Tasks, each with whether it is leased, and all grants that took tokens."""

    rules: dict[Key, Queue] = field(default_factory=dict)
    tasks: dict[str, tuple[Task, bool]] = field(default_factory=dict)
    # By (queue, tenant or None): tokens at a time.
    tokens: dict[tuple[Key, str | None], tuple[float, float]] = field(default_factory=dict)
    # Of ordering keys: uids that were started in this life, the last one whose attempt ended at the end.
    started: list[str] = field(default_factory=list)

    def queue(self, key: Key) -> Queue:
        return self.rules.get(key) or Queue(*key)

    def level(self, key: Key, whose: str | None, rate: TokenRate, now: float) -> float:
        tokens, at = self.tokens.get((key, whose), (float(rate.burst), 0.0))
        return min(float(rate.burst), tokens + (now - at) * rate.per_second)

    def rates(self, task: Task) -> list[tuple[str | None, TokenRate]]:
        rules = self.queue(task.queue_key)
        return [
            (whose, rate) for whose, rate in ((None, rules.rate), (task.tenant, rules.tenant_rate)) if rate is not None
        ]

    def spend(self, task: Task, number: int, now: float) -> None:
        for whose, rate in self.rates(task):
            left = self.level(task.queue_key, whose, rate, now) - number
            self.tokens[task.queue_key, whose] = (min(float(rate.burst), left), now)

    def holding(self, task: Task, now: float) -> list[Name]:
        """Return all that holds the waiting Task, first things first."""
        key, rules = task.queue_key, self.queue(task.queue_key)
        here = [each for each, leased in self.tasks.values() if leased and each.queue_key == key]
        mine = [each for each in here if each.tenant == task.tenant]
        emergency = task.priority == EMERGENCY and rules.policy is OrderPolicy.PRIORITY
        found: list[Name] = []
        if emergency and task.tenant not in rules.emergency:
            found.append((Forbidden, key, task.tenant))
        for bounds, those, whose in ((rules.quota, here, None), (rules.tenant_quota, mine, task.tenant)):
            if bounds.leased is not None and len(those) + 1 > bounds.leased:
                found.append((FullQuota, key, whose))
            if bounds.slots is not None and task.slots > bounds.slots:
                found.append((FewSlots, key, whose))
            elif bounds.slots is not None and sum(each.slots for each in those) + task.slots > bounds.slots:
                found.append((FullSlots, key, whose))
        if emergency and sum(each.priority == EMERGENCY for each in mine) >= rules.emergency_leased:
            found.append((FullEmergency, key, task.tenant))
        if task.concurrency_key is not None:
            holders = sum(each.concurrency_key == task.concurrency_key for each in here)
            if holders >= rules.concurrency_limit:
                found.append((FullKey, key, task.concurrency_key))
        if not emergency:
            found += [
                (NoToken, key, whose) for whose, rate in self.rates(task) if self.level(key, whose, rate, now) < 1
            ]
        return found

    def in_turn(self, task: Task) -> bool:
        if task.ordering_key is None:
            return True
        same = [
            (each, leased)
            for each, leased in self.tasks.values()
            if (each.queue_key, each.ordering_key) == (task.queue_key, task.ordering_key)
        ]
        if any(leased for _, leased in same):
            return False
        uids = {each.uid for each, _ in same}
        if started := [uid for uid in self.started if uid in uids]:
            return started[-1] == task.uid
        return task.uid == min(same, key=lambda each: (not each[0].attempted, each[0].created, each[0].uid))[0].uid

    def turns(self) -> set[str]:
        return {uid for uid, (task, leased) in self.tasks.items() if not leased and self.in_turn(task)}

    def waiting(self) -> list[Task]:
        return [task for task, leased in self.tasks.values() if not leased]

    def leased(self) -> list[Task]:
        return [task for task, leased in self.tasks.values() if leased]


bounds = st.builds(Bounds, leased=st.none() | st.integers(1, 3), slots=st.none() | st.integers(1, 5))
# Powers of two, so that the model's sums are exact.
rates = st.none() | st.builds(TokenRate, st.sampled_from((0.25, 0.5, 1.0)), st.integers(1, 3))


def rules_of(name: str, rate: TokenRate | None, tenant_rate: TokenRate | None) -> st.SearchStrategy[Queue]:
    return st.builds(
        Queue,
        st.just(NAMESPACE),
        st.just(name),
        policy=st.sampled_from((OrderPolicy.PRIORITY, OrderPolicy.PRIORITY, OrderPolicy.FIFO)),
        quota=bounds,
        tenant_quota=bounds,
        emergency=st.frozensets(st.sampled_from(TENANTS)),
        emergency_leased=st.integers(1, 2),
        concurrency_limit=st.integers(1, 2),
        rate=st.just(rate),
        tenant_rate=st.just(tenant_rate),
    )


def tasks(uid: str, queue: str) -> st.SearchStrategy[Task]:
    return st.builds(
        lambda **fields: replace(make_task(uid).build(), queue=queue, **fields),
        tenant=st.sampled_from(TENANTS),
        created=st.integers(0, 2).map(float),
        priority=st.sampled_from((0, 2, 2, EMERGENCY)),
        slots=st.sampled_from((1, 1, 2, 3)),
        concurrency_key=st.none() | st.sampled_from(KEYS),
        ordering_key=st.none() | st.none() | st.sampled_from(KEYS),
        payload_bytes=st.integers(0, 3),
        attempted=st.sampled_from((False, False, False, True)),
    )


class LimitsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits, self.model = Limits(), Model()
        self.number = 0
        # Tasks that were held, each under what held it, until that was reported.
        self.parked: dict[str, Blocker] = {}
        self.rates: dict[str, tuple[TokenRate | None, TokenRate | None]] = {}

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in QUEUES:
            # Rates stay: what a change does to tokens is a matter of when it is looked at.
            self.rates[name] = (data.draw(rates), data.draw(rates))
            self.apply(data, name)

    def told(self, blockers: list[Blocker]) -> list[Name]:
        assert len(set(map(id, blockers))) == len(blockers)
        held = set(map(id, blockers))
        self.parked = {uid: blocker for uid, blocker in self.parked.items() if id(blocker) not in held}
        return [name_of(blocker) for blocker in blockers]

    def pick(self, data: st.DataObject, tasks: list[Task]) -> Task:
        return data.draw(st.sampled_from(tasks))

    def apply(self, data: st.DataObject, name: str) -> None:
        queue = data.draw(rules_of(name, *self.rates[name]))
        self.model.rules[queue.key] = queue
        self.told(self.limits.apply_queue(queue))

    @rule(data=st.data(), name=st.sampled_from(QUEUES))
    def change_rules(self, data: st.DataObject, name: str) -> None:
        self.apply(data, name)

    @rule(data=st.data(), number=st.integers(1, 3))
    def enter(self, data: st.DataObject, number: int) -> None:
        for _ in range(number):
            self.number += 1
            # Uids do not follow the order of coming.
            task = data.draw(tasks(f"{self.number * 7 % 10}-{self.number}", data.draw(st.sampled_from(QUEUES))))
            turns = self.model.turns()
            over = self.limits.enter(task)
            self.model.tasks[task.uid] = (task, False)
            assert turns - self.model.turns() == (set() if over is None else {over})

    @precondition(lambda self: self.model.waiting())
    @rule(data=st.data(), number=st.integers(1, 4))
    def try_to_grant(self, data: st.DataObject, number: int) -> None:
        for _ in range(number):
            if waiting := self.model.waiting():
                self.ask(self.pick(data, waiting))

    def ask(self, task: Task) -> None:
        # Asked first, without a trace: the books are looked at after each step.
        asked = self.limits.holding(task, task.priority, self.now)
        found = self.limits.blocker(task, task.priority, self.now)
        assert (None if asked is None else name_of(asked)) == (None if found is None else name_of(found))
        holding = self.model.holding(task, self.now)
        assert (None if found is None else name_of(found)) == (holding[0] if holding else None)
        assert self.limits.in_turn(task) == self.model.in_turn(task)
        if found is not None:
            self.parked[task.uid] = found
            assert all(found.describe(self.now))
            opens = found.opens_at(self.now)
            assert (opens is not None) == isinstance(found, NoToken)
            assert opens is None or opens > self.now
        elif self.model.in_turn(task):
            self.grant(task, token=True)

    def grant(self, task: Task, *, token: bool) -> None:
        self.limits.grant(task, self.now, token=token)
        self.model.tasks[task.uid] = (task, True)
        self.parked.pop(task.uid, None)
        if token:
            self.model.spend(task, 1, self.now)

    @precondition(lambda self: self.model.waiting())
    @rule(data=st.data())
    def find_leased(self, data: st.DataObject) -> None:
        self.grant(self.pick(data, self.model.waiting()), token=False)

    def ended(self, task: Task, turns: set[str]) -> None:
        self.model.tasks[task.uid] = (task, False)
        if task.ordering_key is not None:
            self.model.started = [uid for uid in self.model.started if uid != task.uid] + [task.uid]
        # The end of an attempt hands no turn to another Task: those are told by `leave` alone.
        assert self.model.turns() <= turns | {task.uid}

    @precondition(lambda self: self.model.leased())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        task, turns = self.pick(data, self.model.leased()), self.model.turns()
        told = self.told(self.limits.release(task, self.now))
        assert all(kind is not NoToken for kind, _, _ in told)
        self.ended(task, turns)

    @precondition(lambda self: self.model.leased())
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        task, turns = self.pick(data, self.model.leased()), self.model.turns()
        self.told(self.limits.refund(task, self.now))
        self.model.spend(task, -1, self.now)
        self.ended(task, turns)

    @precondition(lambda self: self.model.waiting())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        task, turns = self.pick(data, self.model.waiting()), self.model.turns()
        freed = self.limits.leave(task)
        del self.model.tasks[task.uid]
        self.parked.pop(task.uid, None)
        assert set(freed) == self.model.turns() - turns

    @precondition(lambda self: self.model.waiting())
    @rule(data=st.data(), queue=st.sampled_from(QUEUES), priority=st.sampled_from((0, 2, EMERGENCY)))
    def change(self, data: st.DataObject, queue: str, priority: int) -> None:
        task, turns = self.pick(data, self.model.waiting()), self.model.turns()
        new = replace(task, queue=queue, priority=priority)
        freed = self.limits.change(task, new)
        self.model.tasks[task.uid] = (new, False)
        self.parked.pop(task.uid, None)
        if queue != task.queue:
            self.model.started = [uid for uid in self.model.started if uid != task.uid]
        # Whose turn it is now, and whose it was until now.
        changed = (self.model.turns() ^ turns) - {task.uid}
        assert changed <= set(freed)

    @rule(quarters=st.integers(1, 12))
    def wait(self, quarters: int) -> None:
        self.now += quarters / 4
        for kind, key, whose in self.told(self.limits.due(self.now)):
            # Others are those of tenants that had no Tasks left.
            if kind is NoToken:
                rate = self.model.queue(key).rate if whose is None else self.model.queue(key).tenant_rate
                assert rate is not None
                assert self.model.level(key, whose, rate, self.now) >= 1

    @precondition(lambda self: self.limits.next_due() is not None)
    @rule()
    def wait_for_a_token(self) -> None:
        due = self.limits.next_due()
        assert due is not None
        assert due > self.now
        self.now = due
        assert self.told(self.limits.due(self.now))

    @invariant()
    def what_is_parked_is_held_by_that_still(self) -> None:
        for uid, blocker in self.parked.items():
            task, _ = self.model.tasks[uid]
            assert name_of(blocker) in self.model.holding(task, self.now), f"{uid} was not told of"

    @invariant()
    def rates_that_hold_are_due(self) -> None:
        opens = [blocker.opens_at(self.now) for blocker in self.parked.values() if isinstance(blocker, NoToken)]
        due = self.limits.next_due()
        assert not opens or (due is not None and due <= min(at for at in opens if at is not None))

    @invariant()
    def the_books_are_right(self) -> None:
        assert list(self.limits.findings(self.model.tasks.values())) == []

    @invariant()
    def turns_are_the_models(self) -> None:
        for task in self.model.waiting():
            assert self.limits.in_turn(task) == self.model.in_turn(task)


LimitsMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLimits = LimitsMachine.TestCase


# Order under limits: a scheduler of a few lines that parks whole lines, with room for all.

LineKey = tuple[str, str, int, bool]


@dataclass
class Scheduler:
    """Grants best first; what a limit holds is parked, as a line or alone, until the limit is reported."""

    limits: Limits
    model: Model
    starts: list[tuple[float, Task]] = field(default_factory=list)
    lines: dict[int, tuple[Blocker, set[tuple[int, LineKey]]]] = field(default_factory=dict)
    alone: dict[str, Blocker] = field(default_factory=dict)

    def line(self, task: Task) -> tuple[int, LineKey]:
        return (task.priority, (task.queue, task.tenant, task.slots, task.priority == EMERGENCY))

    def told(self, blockers: list[Blocker]) -> None:
        for blocker in blockers:
            self.lines.pop(id(blocker), None)
            self.alone = {uid: each for uid, each in self.alone.items() if each is not blocker}

    def decide(self, now: float) -> None:
        self.told(self.limits.due(now))
        while True:
            parked = set().union(*(lines for _, lines in self.lines.values()))
            ready = [
                task
                for task in self.model.waiting()
                if self.line(task) not in parked and task.uid not in self.alone and self.limits.in_turn(task)
            ]
            if not ready:
                break
            task = min(ready, key=rank)
            found = self.limits.blocker(task, task.priority, now)
            if found is None:
                earlier = [each for each in self.model.waiting() if rank(each) < rank(task)]
                passed = [
                    each.uid for each in earlier if self.model.in_turn(each) and not self.model.holding(each, now)
                ]
                assert not passed, f"{task.uid} passes {passed}"
                self.limits.grant(task, now)
                self.model.spend(task, 1, now)
                self.model.tasks[task.uid] = (task, True)
                self.starts.append((now, task))
            elif found.whole:
                self.lines.setdefault(id(found), (found, set()))[1].add(self.line(task))
            else:
                self.alone[task.uid] = found
        # Nothing waits that could go.
        for task in self.model.waiting():
            assert not self.model.in_turn(task) or self.model.holding(task, now), task.uid

    def end(self, task: Task, now: float) -> None:
        self.told(self.limits.release(task, now))
        self.limits.leave(task)
        del self.model.tasks[task.uid]


def rank(task: Task) -> tuple[int, float, str]:
    return (-task.priority, task.created, task.uid)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rate=rates, tenant_rate=rates)
def test_no_task_passes_an_earlier_one_that_no_limit_holds(
    data: st.DataObject, rate: TokenRate | None, tenant_rate: TokenRate | None
) -> None:
    limits, model = Limits(), Model()
    scheduler = Scheduler(limits, model)
    rules = data.draw(rules_of("q", rate, tenant_rate))
    model.rules[rules.key] = rules
    limits.apply_queue(rules)
    now = 0.0
    for number in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(("enter", "enter", "end", "wait", "due"))):
            case "enter":
                task = data.draw(tasks(f"{number:02}", "q"))
                limits.enter(task)
                model.tasks[task.uid] = (task, False)
            case "end" if leased := model.leased():
                scheduler.end(data.draw(st.sampled_from(leased)), now)
            case "wait":
                now += data.draw(st.integers(1, 8)) / 4
            case "due" if (due := limits.next_due()) is not None:
                now = due
            case _:
                pass
        scheduler.decide(now)


@given(
    rate=st.builds(TokenRate, st.sampled_from((0.3, 1.0, 7.0, 1000.0)), st.integers(1, 4)),
    gaps=st.lists(st.sampled_from((0.0, 0.001, 0.4, 1.0, 30.0)), min_size=1, max_size=40),
)
def test_starts_keep_to_the_rate_over_every_window(rate: TokenRate, gaps: list[float]) -> None:
    limits, model = Limits(), Model()
    rules = replace(make_queue().build(), rate=rate)
    model.rules[rules.key] = rules
    limits.apply_queue(rules)
    now, starts = 1_700_000_000.0, []
    for number, gap in enumerate(gaps):
        due = limits.next_due()
        # To the very moment that was said, now and then.
        now = max(now + gap, due if due is not None and number % 2 else now)
        limits.due(now)
        task = make_task(str(number)).build()
        limits.enter(task)
        if limits.blocker(task, task.priority, now) is None:
            limits.grant(task, now)
            starts.append(now)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            window = starts[last] - starts[first]
            # Times near 1.7e9 s are 0.24 µs apart.
            assert last - first + 1 <= rate.burst + (window + 1e-6) * rate.per_second + 1e-6


@given(rate=st.builds(TokenRate, st.floats(0.001, 1e5), st.integers(1, 1000)), data=st.data())
def test_a_token_is_there_at_the_moment_that_was_said(rate: TokenRate, data: st.DataObject) -> None:
    limits = Limits()
    limits.apply_queue(replace(make_queue().build(), rate=rate))
    now = data.draw(st.floats(1.6e9, 2e9))
    probe = make_task("probe").build()
    limits.enter(probe)
    for number in range(data.draw(st.integers(rate.burst, rate.burst + 5))):
        task: Any = make_task(str(number)).build()
        limits.enter(task)
        limits.grant(task, now)
    found = limits.blocker(probe, probe.priority, now)
    assert found is not None
    opens = found.opens_at(now)
    assert opens is not None
    assert opens > now or rate.per_second > 1e4
    assert limits.due(opens) == [found]
    assert limits.blocker(probe, probe.priority, opens) is None
    assert limits._books[probe.queue_key].tokens(rate, opens).tokens(opens) >= 1
