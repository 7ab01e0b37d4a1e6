"""Whatever happens, in whatever order: the promises hold, by a checker that knows nothing of the core's indices."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders import NAMESPACE, make_agent, make_pool, make_queue
from checkers import Mirror
from taskdist.api import Delivery, Reason, Reclaim
from taskdist.core import Core
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import (
    AgentDrained,
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    Event,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Agent, Pool, Queue, Requirement, Task

POOLS, QUEUES, SKILLS, TYPES = ("p1", "p2", "p3"), ("q1", "q2", "q3"), ("gpu", "io"), ("work", "rest")


def mostly(plain: Any, others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Three times of four the plain value: where all is odd, nothing ever runs."""
    return st.one_of(st.just(plain), st.just(plain), st.just(plain), others)


skills = mostly(frozenset(), st.frozensets(st.sampled_from(SKILLS), max_size=2))
resources = mostly((), st.integers(1, 4).map(lambda amount: (("mem", amount),)))
labels = st.one_of(st.just(()), st.sampled_from(("a", "b")).map(lambda zone: (("zone", zone),)))
selectors = mostly(
    (),
    st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")).map(
        lambda operator: (Requirement("zone", operator, frozenset({"a"} if "In" in operator else ())),)
    ),
)
queues = st.builds(
    Queue,
    st.just(NAMESPACE),
    st.sampled_from(QUEUES),
    st.lists(st.sampled_from(POOLS), min_size=1, max_size=3, unique=True).map(tuple),
    paused=mostly(False, st.booleans()),
    delivery=st.sampled_from(Delivery),
    reclaim=st.sampled_from(Reclaim),
    aging_step=st.sampled_from((0.0, 15.0, 300.0)),
    hold_after=st.just(0.0),
)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    minimum = draw(st.integers(0, 2))
    elastic = draw(st.booleans())
    return Pool(
        NAMESPACE,
        draw(st.sampled_from(POOLS)),
        draw(st.integers(1, 4)),
        (("mem", 4),),
        frozenset(SKILLS),
        draw(labels),
        elastic,
        minimum,
        minimum + draw(st.integers(1, 3)) if elastic else minimum,
        draw(st.sampled_from((0.0, 30.0))),
    )


def tasks(uid: str) -> st.SearchStrategy[Task]:
    return st.builds(
        Task,
        st.just(uid),
        st.just(NAMESPACE),
        st.just("task"),
        st.sampled_from(QUEUES),
        mostly("work", st.sampled_from(TYPES)),
        st.integers(0, 3).map(float),
        st.integers(0, 4),
        mostly(None, st.sampled_from(POOLS)),
        st.sampled_from((1, 1, 1, 2, 3)),
        resources,
        skills,
        selectors,
        suspended=mostly(False, st.booleans()),
        failures=st.integers(0, 4),
        not_before=mostly(0.0, st.sampled_from((20.0, 60.0, 200.0))),
    )


class CoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.core, self.twin = Core(), Core()
        self.mirror = Mirror()
        self.names = itertools.count()
        for queue, served_by in (("q1", ("p1", "p2")), ("q2", ("p2",)), ("q3", ("p3", "p1"))):
            self.told(QueueApplied(replace(make_queue(queue).pools(*served_by).build(), hold_after=0.0)))
        self.told(PoolApplied(make_pool("p1").slots(2).elastic(2, 4, 30.0).build()))
        self.told(PoolApplied(make_pool("p2").slots(4).elastic(1, 3, 0.0).build()))
        self.told(PoolApplied(make_pool("p3").slots(3).fixed(3).build()))
        for pool in ("p1", "p1", "p2", "p3", "p3"):
            uid = f"a{next(self.names)}"
            self.told(PodSeen(uid, NAMESPACE, uid, pool, 0.0))
            self.told(AgentReady(make_agent(uid).pool(pool).slots(2).resources(mem=4).skills(*SKILLS).build()))

    def told(self, event: Event) -> list[object]:
        answers = self.core.handle(event, self.now)
        assert answers == self.twin.handle(event, self.now)
        self.mirror.take(event)
        return list(answers)

    def some(self, data: st.DataObject, names: object) -> str:
        return data.draw(st.sampled_from(sorted(names)))  # type: ignore[call-overload,no-any-return]

    def known(self) -> list[str]:
        return [*self.mirror.waiting, *self.mirror.leased]

    def pods(self) -> set[str]:
        return set(self.mirror.pods) - self.mirror.gone

    # Hypothesis picks every rule about as often: what keeps a system busy has rules of its own, the rest shares some.

    @rule(data=st.data(), number=st.integers(1, 3), limit=st.none() | st.integers(0, 3))
    def submit(self, data: st.DataObject, number: int, limit: int | None) -> None:
        for _ in range(number):
            self.told(TaskWaiting(data.draw(tasks(f"t{next(self.names)}"))))
        self.decided(limit)

    @rule(data=st.data(), number=st.integers(1, 2), pool=st.sampled_from(POOLS))
    def agents_join(self, data: st.DataObject, number: int, pool: str) -> None:
        for _ in range(number):
            uid = f"a{next(self.names)}"
            self.told(PodSeen(uid, NAMESPACE, uid, pool, self.now))
            if data.draw(mostly(True, st.booleans())):
                self.offer(data, uid)
        self.decided(None)

    @precondition(lambda self: self.mirror.leased)
    @rule(data=st.data(), number=st.integers(1, 3), decides=st.booleans())
    def finish(self, data: st.DataObject, number: int, decides: bool) -> None:
        for _ in range(min(number, len(self.mirror.leased))):
            self.told(TaskGone(self.some(data, self.mirror.leased)))
        if decides:
            self.decided(None)

    @precondition(lambda self: self.mirror.leased)
    @rule(data=st.data(), retryable=st.booleans(), counted=st.booleans(), started=st.booleans())
    def fail(self, data: st.DataObject, retryable: bool, counted: bool, started: bool) -> None:
        uid = self.some(data, self.mirror.leased)
        task = self.mirror.leased[uid][0]
        answers = self.told(AttemptFailed(uid, Reason.HANDLER_ERROR, "boom", retryable, counted, started))
        assert len(answers) == 1
        answer = answers[0]
        if isinstance(answer, Retry):
            again = replace(task, failures=answer.failures, not_before=answer.not_before)
            self.told(TaskWaiting(again))
        else:
            assert isinstance(answer, Fail)
            self.told(TaskGone(uid))

    @rule(data=st.data())
    def reconfigure(self, data: st.DataObject) -> None:
        """A queue or a pool is changed; one time of four it goes."""
        match data.draw(st.integers(0, 7)):
            case 0:
                self.told(QueueDeleted((NAMESPACE, data.draw(st.sampled_from(QUEUES)))))
            case 1:
                self.told(PoolDeleted((NAMESPACE, data.draw(st.sampled_from(POOLS)))))
            case 2 | 3 | 4:
                self.told(QueueApplied(data.draw(queues)))
            case _:
                self.told(PoolApplied(data.draw(pools())))

    @rule(data=st.data())
    def steer(self, data: st.DataObject) -> None:
        """A Task is changed, taken back, held, found with an agent, or deleted."""
        uid = self.some(data, [*self.known(), f"t{next(self.names)}"])
        match data.draw(st.integers(0, 4)):
            case 0:
                self.told(TaskHeld(data.draw(tasks(uid)), Reason.RECOVERING))
            case 1:
                agent = self.some(data, [*self.pods(), "unknown"])
                if agent not in self.mirror.deleting:
                    self.told(TaskLeased(data.draw(tasks(uid)), agent))
            case 2:
                self.told(TaskGone(uid))
            case _:
                self.told(TaskWaiting(data.draw(tasks(uid))))

    @precondition(lambda self: self.pods())
    @rule(data=st.data())
    def agents_change(self, data: st.DataObject) -> None:
        """A pod's agent comes, changes what it offers, falls silent, or the pod goes."""
        uid = self.some(data, self.pods())
        match data.draw(st.integers(0, 4)):
            case 0:
                self.told(PodGone(uid))
            case 1:
                self.told(AgentNotReady(uid))
            case _:
                self.offer(data, uid)

    @precondition(lambda self: self.mirror.draining - self.mirror.gone)
    @rule(data=st.data())
    def drained(self, data: st.DataObject) -> None:
        uid = self.some(data, self.mirror.draining - self.mirror.gone)
        self.told(AgentDrained(uid))
        self.decided(None)
        if uid in self.mirror.deleting:
            self.told(PodGone(uid))

    def offer(self, data: st.DataObject, uid: str) -> None:
        offers = st.builds(
            Agent,
            st.just(uid),
            st.just(NAMESPACE),
            st.just(uid),
            st.just(self.mirror.pods[uid][1]),
            st.integers(1, 4),
            st.integers(1, 4).map(lambda amount: (("mem", amount),)),
            mostly(frozenset(SKILLS), st.frozensets(st.sampled_from(SKILLS))),
            mostly(None, st.frozensets(st.sampled_from(TYPES), min_size=1)),
            labels,
            mostly(True, st.booleans()),
        )
        self.told(AgentReady(data.draw(offers)))

    @rule(seconds=st.sampled_from((0.5, 5.0, 40.0)), limit=st.none() | st.integers(0, 3))
    def time_goes(self, seconds: float, limit: int | None) -> None:
        self.now += seconds
        self.decided(limit)

    def decided(self, limit: int | None) -> int:
        decisions = self.core.decide(self.now, limit)
        assert decisions == self.twin.decide(self.now, limit)
        assert limit is None or len(decisions) <= limit
        for decision in decisions:
            assert not self.mirror.apply(decision, self.now)
        return len(decisions)

    @rule()
    def settle(self) -> None:
        self.decided(None)
        assert not self.decided(None), "the core said all there was to say, and then said more"
        assert not self.mirror.at_rest(self.now)
        wake = self.core.next_wake()
        assert wake is None or wake > self.now
        for key, desired in self.mirror.desired.items():
            assert self.core.pool_view(key).desired == desired
            if not self.mirror.pools[key].elastic:
                assert desired == self.mirror.pools[key].minimum
        if wake is not None:
            half = self.now + (wake - self.now) / 2
            assert not self.core.decide(half), "something to say before the wake that was announced"
            assert not self.twin.decide(half)

    @invariant()
    def books_are_sound(self) -> None:
        assert self.core.audit() == []
        waiting = Counter(task.queue_key for task in self.mirror.waiting.values())
        leased = Counter(task.queue_key for task, _ in self.mirror.leased.values())
        assert self.core.queue_counts() == {key: (waiting[key], leased[key]) for key in waiting | leased}

    @invariant()
    def every_wait_has_its_reason(self) -> None:
        reasons: Counter[tuple[tuple[str, str], Reason]] = Counter()
        for uid, task in self.mirror.waiting.items():
            found = self.core.explain(uid, self.now)
            assert found is not None
            assert found.message
            assert found.unblock
            reasons[task.queue_key, found.reason] += 1
            if found.position is not None:
                least, most = self.position(task)
                assert least <= found.position <= most
        assert self.core.waiting_by_reason(self.now) == reasons
        assert all(self.core.explain(uid, self.now) is None for uid in self.mirror.leased)

    def position(self, task: Task) -> tuple[int, int]:
        # A back-off ends when the core is asked to decide, so Tasks due since then are not eligible yet.
        due = {
            uid
            for uid in self.mirror.waiting
            if (why := self.core.why(uid, self.now)) and why.reason in (Reason.BACKING_OFF, Reason.SCHEDULED)
        }
        others = Mirror(self.mirror.queues, self.mirror.pools)
        others.waiting = {uid: other for uid, other in self.mirror.waiting.items() if uid not in due}
        others.held = self.mirror.held
        return others.position(task, self.now)


CoreMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCore = CoreMachine.TestCase
