"""Whatever happens, in whatever order: the promises hold, by a checker that knows nothing of the core's indices."""

import itertools
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders import NAMESPACE, make_agent, make_pool, make_queue
from checkers import Mirror
from oracle import Oracle
from taskdist.api import (
    Delivery,
    OnDependencyFailure,
    OnHopeless,
    OnOverflow,
    OrderPolicy,
    Phase,
    Reason,
    Reclaim,
    Strategy,
)
from taskdist.core import Core
from taskdist.core.decisions import Decision, Fail, Retry, Spill
from taskdist.core.events import (
    AgentDrained,
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    AttemptUsed,
    Event,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    QueueDeleted,
    TaskEnded,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import (
    REGION,
    ZONE,
    Agent,
    Breaker,
    Budget,
    Match,
    Overflow,
    Parent,
    Placement,
    Pool,
    Preference,
    Queue,
    Quota,
    Requirement,
    Route,
    RouteStep,
    Task,
    Timeouts,
    TokenRate,
)
from truth import untrue

POOLS, QUEUES, SKILLS, TYPES = ("p1", "p2", "p3"), ("q1", "q2", "q3"), ("gpu", "io"), ("work", "rest")
TENANTS = ("x", "y")


def mostly(plain: Any, others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Three times of four the plain value: where all is odd, nothing ever runs."""
    return st.one_of(st.just(plain), st.just(plain), st.just(plain), others)


def limits(most: int) -> st.SearchStrategy[Quota]:
    few = mostly(None, st.integers(1, most))
    return st.builds(Quota, mostly(None, st.integers(2, 8)), few, few, mostly(None, st.integers(4, 12)))


skills = mostly(frozenset(), st.frozensets(st.sampled_from(SKILLS), max_size=2))
resources = mostly((), st.integers(1, 4).map(lambda amount: (("mem", amount),)))
labels = st.one_of(
    st.just(()),
    st.sampled_from(("a", "b")).map(lambda zone: (("zone", zone),)),
    st.sampled_from(("z", "y")).map(lambda zone: ((ZONE, zone), (REGION, "r"))),
)
selectors = mostly(
    (),
    st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")).map(
        lambda operator: (Requirement("zone", operator, frozenset({"a"} if "In" in operator else ())),)
    ),
)
rates = mostly(None, st.builds(TokenRate, st.sampled_from((0.125, 1.0)), st.integers(1, 2)))
# Two routes overlap, so that which is first matters; steps of one pool, of several, and of the same ones again.
steps = st.lists(
    st.builds(
        RouteStep,
        st.lists(st.sampled_from((*POOLS, "none")), min_size=1, max_size=2, unique=True).map(tuple),
        st.sampled_from((0.0, 0.0, 4.5, 30.0)),
        st.none() | st.sampled_from(Strategy),
    ),
    min_size=1,
    max_size=3,
).map(lambda found: (replace(found[0], after=0.0), *found[1:]))
matches = st.builds(
    Match,
    mostly((), st.sampled_from("ab").map(lambda value: (Requirement("tier", "In", frozenset({value})),))),
    mostly(frozenset(), st.just(frozenset({"work"}))),
    mostly(frozenset(), st.sets(st.integers(0, 5), min_size=1).map(frozenset)),
    mostly(frozenset(), st.just(frozenset({"x"}))),
    mostly(1, st.just(2)),
    mostly(None, st.just(2)),
)
routes = st.lists(st.builds(Route, st.sampled_from(("r", "s")), steps, matches), max_size=2).map(tuple)
budgets = st.lists(
    st.one_of(
        st.builds(Budget, st.just("b"), st.integers(1, 4)),
        st.builds(
            lambda per_second, burst: Budget("c", rate=TokenRate(per_second, burst)),
            st.sampled_from((0.125, 1.0)),
            st.integers(1, 4),
        ),
    ),
    max_size=2,
    unique_by=lambda each: each.name,
).map(tuple)
uses = mostly(
    (),
    st.lists(
        st.tuples(st.sampled_from(("q1", "q2")), st.sampled_from("bc"), st.integers(1, 4)),
        min_size=1,
        max_size=2,
        unique_by=lambda each: each[:2],
    ).map(lambda found: tuple(sorted(found))),
)
queues = st.builds(
    Queue,
    st.just(NAMESPACE),
    st.sampled_from(QUEUES),
    st.lists(st.sampled_from(POOLS), min_size=1, max_size=3, unique=True).map(tuple),
    paused=mostly(False, st.booleans()),
    delivery=st.sampled_from(Delivery),
    reclaim=st.sampled_from(Reclaim),
    weight=st.integers(1, 3),
    policy=mostly(OrderPolicy.PRIORITY, st.sampled_from(OrderPolicy)),
    level=st.integers(0, 4),
    critical_path_first=st.booleans(),
    tenant_weights=st.sampled_from(((), (("x", 3),))),
    emergency=st.sampled_from((frozenset({"x"}), frozenset(), frozenset(TENANTS))),
    emergency_leased=st.integers(1, 2),
    aging_step=st.sampled_from((0.0, 15.0, 300.0)),
    on_hopeless=st.sampled_from(OnHopeless),
    max_queue_seconds=st.sampled_from((20.0, 3600.0)),
    expected_service=st.sampled_from((1.0, 10.0)),
    hold_after=mostly(0.0, st.sampled_from((5.0, 30.0))),
    quota=mostly(Quota(), limits(4)),
    tenant_quota=mostly(Quota(), limits(3)),
    rate=rates,
    tenant_rate=rates,
    concurrency_limit=st.integers(1, 2),
    overflow=mostly(
        None,
        st.builds(
            Overflow, st.integers(2, 5), st.just(1), st.sampled_from(OnOverflow), st.none() | st.sampled_from(QUEUES)
        ),
    ),
    timeouts=st.builds(Timeouts, mostly(None, st.sampled_from((10.0, 50.0)))),
    routes=st.just(()) | routes,
    budgets=budgets,
    strategy=st.sampled_from(Strategy),
)
preferences = st.sampled_from(("a", "b")).map(
    lambda zone: (Preference(2, (Requirement("zone", "In", frozenset({zone})),)),)
)
placements = mostly(
    None,
    st.builds(
        Placement,
        mostly((), st.sampled_from((("z",), ("z", "y")))),
        mostly((), st.just(("r",))),
        mostly(None, st.sampled_from((0.0, 1.0))),
        mostly(0.0, st.just(0.5)),
        st.one_of(st.just(()), preferences),
        st.sampled_from((0.0, 5.0, 60.0)),
    ),
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
        cost_per_hour=draw(st.sampled_from((0.0, 1.0, 2.0))),
        watts_busy=draw(st.sampled_from((0.0, 50.0))),
        quality=draw(mostly(1.0, st.just(0.3))),
        target_queue=draw(mostly(0.0, st.sampled_from((5.0, 60.0)))) if elastic else 0.0,
        scale_up_delay=draw(mostly(0.0, st.just(20.0))) if elastic else 0.0,
        breaker=draw(st.sampled_from((None, Breaker(0.5, 1, open_seconds=5.0, probes=1, most_open_percent=60)))),
        slow_start=draw(mostly(0.0, st.just(20.0))),
    )


def tasks(uid: str, now: float, parents: tuple[Parent, ...] = ()) -> st.SearchStrategy[Task]:
    return st.builds(
        Task,
        st.just(uid),
        st.just(NAMESPACE),
        st.just(uid),
        st.sampled_from(QUEUES),
        mostly("work", st.sampled_from(TYPES)),
        st.sampled_from((0.0, 1.0, 2.0, 20.0)).map(lambda ago: max(0.0, now - ago)),
        st.sampled_from((0, 1, 2, 2, 3, 4, 5)),
        mostly(None, st.sampled_from(POOLS)),
        st.sampled_from((1, 1, 1, 2, 3)),
        resources,
        skills,
        selectors,
        suspended=mostly(False, st.booleans()),
        not_before=mostly(0.0, st.sampled_from((5.0, 60.0)).map(lambda later: now + later)),
        tenant=st.sampled_from(TENANTS),
        deadline=mostly(None, st.sampled_from((5.0, 60.0)).map(lambda later: now + later)),
        waiting_limit=mostly(None, st.sampled_from((0.0, 30.0))),
        concurrency_key=mostly(None, st.sampled_from("kl")),
        ordering_key=mostly(None, st.just("o")),
        parents=st.just(parents),
        on_parent_failure=st.sampled_from(OnDependencyFailure),
        payload_bytes=mostly(0, st.integers(1, 5)),
        labels=st.sampled_from(((), (("tier", "a"),), (("tier", "b"),))),
        agent=mostly(None, mostly(None, st.integers(0, 9).map(lambda number: f"a{number}"))),
        budgets=uses,
        placement=placements,
        sticky_key=mostly(None, st.just("s")),
    )


ROUTES = {
    "q1": (
        Route(
            "two", (RouteStep(("p1",)), RouteStep(("p2",), 4.5, Strategy.PACK)), Match((Requirement("tier", "Exists"),))
        ),
        Route("slow", (RouteStep(("p2",)), RouteStep(("none", "p3"), 30.0)), Match(types=frozenset({"rest"}))),
    ),
    "q2": (
        Route(
            "all",
            (
                RouteStep(("p2",), strategy=Strategy.PACK),
                RouteStep(("p1",), 4.5),
                RouteStep(("p3",), 30.0, Strategy.ROUND_ROBIN),
            ),
        ),
    ),
}


class CoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.core, self.twin = Core(), Core()
        # All that the core was told and asked, to make another one like it.
        self.told_so_far: list[tuple[Event | None, float, int | None]] = []
        self.mirror = Mirror()
        self.names = itertools.count()
        # Ends and moves that were decided and are yet to be recorded; dead letters.
        self.verdicts: dict[str, Fail | Spill] = {}
        self.letters: dict[str, Task] = {}
        # Whether decisions were cut short: those that come later are about a moment that is over.
        self.cut = False
        self.asked = 0
        for queue, served_by in (("q1", ("p1", "p2")), ("q2", ("p2",)), ("q3", ("p3", "p1"))):
            rules = make_queue(queue).pools(*served_by).build()
            rules = replace(rules, hold_after=0.0, emergency=frozenset({"x"}), routes=ROUTES.get(queue, ()))
            self.told(QueueApplied(replace(rules, budgets=(Budget("b", 3), Budget("c", rate=TokenRate(0.125, 4))))))
        self.told(PoolApplied(make_pool("p1").slots(2).elastic(2, 4, 30.0).build()))
        self.told(PoolApplied(make_pool("p2").slots(4).elastic(1, 3, 0.0).build()))
        self.told(PoolApplied(make_pool("p3").slots(3).fixed(3).build()))
        for pool in ("p1", "p1", "p2", "p3", "p3"):
            uid = f"a{next(self.names)}"
            self.told(PodSeen(uid, NAMESPACE, uid, pool, 0.0))
            self.told(AgentReady(make_agent(uid).pool(pool).slots(2).resources(mem=4).skills(*SKILLS).build()))
        self.decided(None)

    def told(self, event: Event) -> list[Decision]:
        if isinstance(event, TaskWaiting | TaskLeased | TaskHeld | TaskGone):
            self.verdicts.pop(event.uid if isinstance(event, TaskGone) else event.task.uid, None)
        self.told_so_far.append((event, self.now, None))
        answers = self.core.handle(event, self.now)
        assert answers == self.twin.handle(event, self.now)
        self.mirror.take(event, self.now)
        return list(answers)

    def waits(self, task: Task) -> None:
        self.told(TaskWaiting(self.mirror.pinned(task)))

    def ends(self, uid: str, phase: Phase | None) -> None:
        """Once it has ended it stays so: a dead letter has not."""
        task = self.task(uid)
        if phase is Phase.DEAD_LETTERED:
            self.letters[uid] = task
        self.told(TaskGone(uid, phase))

    def task(self, uid: str) -> Task:
        return self.mirror.leased[uid][0] if uid in self.mirror.leased else self.mirror.waiting[uid]

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
            self.waits(self.new(data))
        self.decided(limit)

    def new(self, data: st.DataObject) -> Task:
        uids = sorted([*self.known(), *self.mirror.ended])
        parents = data.draw(mostly([], st.lists(st.sampled_from(uids), max_size=2, unique=True))) if uids else []
        uid = f"t{next(self.names)}"
        return data.draw(tasks(uid, self.now, tuple(Parent(parent, parent) for parent in parents)))

    @rule(data=st.data())
    def submit_a_parent_late(self, data: st.DataObject) -> None:
        """Tasks come in any order when a leader begins."""
        child, parent = self.new(data), self.new(data)
        self.waits(replace(child, parents=(*child.parents, Parent(parent.name, parent.uid))))
        self.waits(parent)
        self.decided(None)

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
            phases = mostly(Phase.SUCCEEDED, st.sampled_from((Phase.FAILED, Phase.CANCELLED, None)))
            self.reports(data)
            self.ends(self.some(data, self.mirror.leased), data.draw(phases))
        if decides:
            self.decided(None)

    def reports(self, data: st.DataObject) -> None:
        """Now and then an attempt says what it used of budgets, its own or others; so may one that spent nothing."""
        spending = [uid for uid, (task, _) in self.mirror.leased.items() if task.budgets]
        if not spending or data.draw(st.booleans()):
            return
        uid = self.some(data, [*spending, *self.known()] if data.draw(mostly(False, st.just(True))) else spending)
        used = data.draw(uses.filter(bool))
        own = tuple((queue, name, amount) for queue, name, amount in self.task(uid).budgets)
        if data.draw(mostly(True, st.just(False))):
            used = tuple(
                (queue, name, data.draw(st.sampled_from((0, amount, 2 * amount + 1)))) for queue, name, amount in own
            )
        self.told(AttemptUsed(uid, used))
        if data.draw(st.booleans()):
            self.decided(None)

    @precondition(lambda self: self.mirror.leased)
    @rule(
        data=st.data(),
        retryable=st.booleans(),
        counted=st.booleans(),
        started=st.booleans(),
        died=st.sampled_from("ab"),
    )
    def fail(self, data: st.DataObject, retryable: bool, counted: bool, started: bool, died: str) -> None:
        uid = self.some(data, self.mirror.leased)
        task = self.mirror.leased[uid][0]
        self.reports(data)
        dead = data.draw(mostly("", st.just(died)))
        answers = self.told(AttemptFailed(uid, Reason.HANDLER_ERROR, "boom", retryable, counted, started, dead))
        assert len(answers) == 1
        answer = answers[0]
        if isinstance(answer, Retry):
            self.waits(
                replace(
                    task,
                    failures=answer.failures,
                    not_before=answer.not_before,
                    deaths=answer.deaths,
                    attempted=task.attempted or started,
                )
            )
        else:
            assert isinstance(answer, Fail)
            self.ends(uid, answer.phase)

    @precondition(lambda self: self.mirror.paid)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        """The assignment could not be written: the grant is as if it never was."""
        uid = self.some(data, self.mirror.paid)
        if uid not in self.mirror.failed:
            task = self.mirror.leased[uid][0]
            self.told(TaskWaiting(self.mirror.pinned(task) if task.parents else task))

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data(), fails=mostly(False, st.booleans()))
    def record(self, data: st.DataObject, fails: bool) -> None:
        """What was decided of a waiting Task is recorded, or cannot be, and it goes on."""
        uid = self.some(data, self.verdicts)
        verdict, task = self.verdicts.pop(uid), self.mirror.waiting[uid]
        if fails:
            self.waits(task)
        elif isinstance(verdict, Fail):
            self.ends(uid, verdict.phase)
        else:
            self.waits(replace(task, queue=verdict.queue, spilled=True))

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        uid = self.some(data, self.letters)
        self.waits(replace(self.letters.pop(uid), failures=0, deaths=(), attempted=True, redriven=True))

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
        fresh = self.mirror.pinned(self.new(data))
        uid = self.some(data, [*self.known(), fresh.uid])
        task = fresh if uid == fresh.uid else self.mirror.pinned(self.task(uid))
        match data.draw(st.integers(0, 5)):
            case 0:
                self.told(TaskHeld(task, Reason.RECOVERING))
            case 1:
                agent = self.some(data, [*self.pods(), "unknown"])
                if agent not in self.mirror.deleting:
                    self.told(TaskLeased(task, agent))
            case 2:
                if uid in self.known():
                    self.ends(uid, None)
                elif self.mirror.ended:
                    gone = self.some(data, self.mirror.ended)
                    phase = self.mirror.ended[gone]
                    if phase is not None and phase.terminal:
                        self.told(TaskEnded(gone, phase))
            case _:
                if uid not in self.mirror.leased:
                    self.waits(
                        replace(
                            task,
                            priority=fresh.priority,
                            pool=fresh.pool,
                            agent=fresh.agent,
                            labels=fresh.labels,
                            suspended=fresh.suspended,
                        )
                    )

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

    # Decisions.

    def decided(self, limit: int | None) -> int:
        """Decide, and check. Where agents may be held, now and then one by one, so that it is known when they are."""
        fresh, self.mirror.fresh = self.mirror.fresh, set()
        self.asked += 1
        holds = any(queue.hold_after for queue in self.mirror.queues.values())
        step = 1 if holds and self.asked % 2 else limit
        made = 0
        while limit is None or made < limit or not made:
            bound = step if limit is None or step is None else min(step, limit)
            kept = self.kept() | self.resting()
            decisions = self.core.decide(self.now, bound)
            self.told_so_far.append((None, self.now, bound))
            assert decisions == self.twin.decide(self.now, bound)
            assert bound is None or len(decisions) <= bound
            kept |= self.kept() | self.resting()
            for decision in decisions:
                self.carried_out(decision, kept)
            made += len(decisions)
            if not decisions or bound is None:
                self.cut = bound == 0
                break
            if step == limit:
                self.cut = True
                break
        else:
            self.cut = True
        if not self.cut:
            broken = self.mirror.overflown(fresh)
            assert not broken, broken
        return made

    def carried_out(self, decision: Decision, kept: set[str]) -> None:
        broken = self.mirror.apply(decision, self.now, kept)
        assert not broken or (self.cut and isinstance(decision, Fail | Spill)), broken
        if isinstance(decision, Fail | Spill):
            self.verdicts[decision.task_uid] = decision

    def kept(self) -> set[str]:
        return {
            reservation.agent.uid for reservation in self.core._reservations
        } | self.core._catalogue.on_probation.keys()

    def resting(self) -> set[str]:
        return {agent.uid for agent in self.core._fleet.agents.values() if agent.resting}

    @rule()
    def settle(self) -> None:
        self.decided(None)
        assert not self.decided(None), "the core said all there was to say, and then said more"
        broken = self.mirror.at_rest(self.now, self.kept())
        assert not broken, broken
        self.holds_are_justified()
        for uid in self.resting():
            pool = self.mirror._pool_of(uid)
            assert pool is not None
            assert pool.target_queue, "only a pool where Tasks may wait lets agents rest"
        broken = self.mirror.overheld()
        assert not broken, broken
        wake = self.core.next_wake()
        assert wake is None or wake > self.now
        for key, desired in self.mirror.desired.items():
            assert self.core.pool_view(key).desired == desired
            if not self.mirror.pools[key].elastic:
                assert desired == self.mirror.pools[key].minimum
        if wake is not None:
            half = self.now + (wake - self.now) / 2
            assert not self.core.decide(half), "something to say before the wake that was announced"
            self.told_so_far.append((None, half, None))
            assert not self.twin.decide(half)
            self.now = half

    @precondition(lambda self: self.mirror.waiting.keys() - self.mirror.ending)
    @rule(data=st.data())
    def take_away_what_is_named(self, data: st.DataObject) -> None:
        """What an explanation names, once it is gone, lets the Task go, or another reason is shown."""
        copy = Core()
        for event, now, limit in self.told_so_far:
            if event is None:
                copy.decide(now, limit)
            else:
                copy.handle(event, now)
        uid = self.some(data, self.mirror.waiting.keys() - self.mirror.ending)
        assert copy.explain(uid, self.now) == self.core.explain(uid, self.now)
        leased = {each: task for each, (task, _) in self.mirror.leased.items()}
        mirror = self.mirror
        Oracle(copy, uid, self.now, mirror.queues, mirror.pools, mirror.waiting, leased).run()

    def holds_are_justified(self) -> None:
        pools = Counter(reservation.agent.pool for reservation in self.core._reservations)
        assert all(number == 1 for number in pools.values())
        for reservation in self.core._reservations:
            task = self.mirror.waiting[reservation.record.task.uid]
            queue = self.mirror.queue(task)
            assert task.slots > 1 or task.resources
            assert queue.hold_after
            assert self.now - task.created >= queue.hold_after
            assert self.mirror.eligible(task, self.now)
            assert not self.mirror.limited(task, self.now)
            assert self.mirror.open(reservation.agent.uid)
            assert self.mirror.suits(task, reservation.agent.uid)
            assert not self.mirror.fits(task, reservation.agent.uid) or self.mirror.short_of_tokens(task, self.now)[0]

    @invariant()
    def books_are_sound(self) -> None:
        assert self.core.audit() == []
        assert not self.core.inspect(3), "what is looked at while all goes on"
        waiting = Counter(task.queue_key for task in self.mirror.waiting.values())
        leased = Counter(task.queue_key for task, _ in self.mirror.leased.values())
        assert self.core.queue_counts() == {key: (waiting[key], leased[key]) for key in waiting | leased}

    def waiting_times_add_up(self) -> None:
        """What holds most is said by classes: one by one it comes to the same."""
        expected: dict[tuple[tuple[str, str], Reason], list[float]] = {}
        for uid, task in self.mirror.waiting.items():
            why = self.core.why(uid, self.now)
            assert why is not None
            waited = self.now - self.core._tasks[uid].since
            assert waited <= self.now - task.created + 1e-9
            expected.setdefault((task.queue_key, why.reason), []).append(waited)
        for queue, found in self.core.holdups(self.now)[0].items():
            for reason in {each.reason for each in found}:
                those = [each for each in found if each.reason is reason]
                one_by_one = expected[queue, reason]
                assert sum(each.tasks for each in those) == len(one_by_one)
                assert abs(sum(each.seconds for each in those) - sum(one_by_one)) < 1e-6

    @invariant()
    def every_wait_has_its_reason(self) -> None:
        reasons: Counter[tuple[tuple[str, str], Reason]] = Counter()
        for uid, task in self.mirror.waiting.items():
            found = self.core.explain(uid, self.now)
            assert found is not None
            assert found.message
            assert found.unblock, found
            reasons[task.queue_key, found.reason] += 1
            assert found.position is None or 1 <= found.position <= len(self.mirror.waiting)
            broken = untrue(self.mirror, task, found.reason, self.now)
            assert not broken, (uid, broken, found)
        assert self.core.waiting_by_reason(self.now) == reasons
        self.waiting_times_add_up()
        assert all(self.core.explain(uid, self.now) is None for uid in self.mirror.leased)


def _of(machine: type[CoreMachine], examples: int, steps: int) -> Any:
    machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return machine.TestCase


class _Further(CoreMachine):
    """The same, further."""


class _Longer(CoreMachine):
    """The same, at length."""


# A few in each change's check, more with all tests, and many in the long run: half of them on CI, which takes an hour.
TestCore = _of(CoreMachine, 25, 40)
TestCoreFurther = pytest.mark.statistical(_of(_Further, 100, 40))
TestCoreAtLength = pytest.mark.long(_of(_Longer, 500 if os.environ.get("CI") else 1000, 60))
