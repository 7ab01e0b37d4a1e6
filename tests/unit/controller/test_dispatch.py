"""The dispatch loop with the real machine and core, and effects that only remember."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from taskdist.api import Phase, Priority, Reason
from taskdist.controller import dispatch, status_tracker
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.retention import Withheld
from taskdist.controller.snapshot import snapshot
from taskdist.controller.status import QueueFacts
from taskdist.controller.tally import Tally
from taskdist.core import Core
from taskdist.core.agents.performance import TypePerformance
from taskdist.core.model import Breaker, Key, Overflow, Pool, Queue, Task
from taskdist.observability.metrics import Snapshot
from taskdist.protocol.backlogs import SeenBacklog
from taskdist.protocol.messages import (
    AgentIdentity,
    Failure,
    Final,
    FromAgent,
    Grant,
    Hello,
    Hold,
    Ping,
    Progress,
    Refused,
    Result,
    ToAgent,
    Welcome,
)
from taskdist.protocol.observations import (
    Action,
    AnnotatePod,
    Found,
    Notice,
    Now,
    ObservedPod,
    ObservedTask,
    PoolNotice,
    ReadOutcome,
    ReadTask,
    RemovePod,
    ScalePool,
    WriteOutcome,
    WriteStatus,
    Written,
)
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import LeaderSettings

RECORD = ObservedTask(Task("t1", "ns", "a", "q", "echo", 1.0), 10)
AGENT = AgentIdentity("p1", "pod", "ns", "pool", "u")
HELLO = Hello(1, "instance", 1, 0.0)


class Remembered:
    """Effects and observer in one: every write succeeds, everything is noted."""

    def __init__(self) -> None:
        self.sent: list[ToAgent] = []
        self.closed: list[str] = []
        self.writes: list[WriteStatus] = []
        self.looked: list[tuple[set[Key], set[Key]]] = []
        self.pool_notices: list[PoolNotice] = []
        self.absent = False
        self.annotated: list[AnnotatePod] = []
        # Tasks other than the one that all tests know.
        self.others: dict[str, ObservedTask] = {}
        self.news = asyncio.Event()

    async def write_status(self, action: WriteStatus) -> WriteOutcome:
        self.writes.append(action)
        self.news.set()
        status = action.status
        record = replace(
            self.others.get(action.uid, RECORD),
            resource_version=action.resource_version + 1,
            phase=Phase(status["phase"]),
            attempt=status.get("attempt", 1),
            epoch=status.get("epoch", 1),
            agent_uid=status.get("agentUid", ""),
        )
        return Written(record, b'{"n":1}')

    async def read_task(self, action: ReadTask) -> ReadOutcome:
        return Found(RECORD)

    async def delete_pod(self, action: RemovePod) -> bool:
        return self.absent

    async def annotate_pod(self, action: AnnotatePod) -> None:
        self.annotated.append(action)

    def send(self, session: int, message: ToAgent) -> None:
        self.sent.append(message)
        self.news.set()

    def close(self, session: int, reason: str) -> None:
        self.closed.append(reason)

    def close_pod(self, pod_uid: str, reason: str) -> None:
        self.closed.append(reason)

    def notice(self, notice: Notice) -> None: ...

    def scaled(self, action: ScalePool) -> None: ...

    def pool_notice(self, notice: PoolNotice) -> None:
        self.pool_notices.append(notice)

    def look_at(self, pools: set[Key], queues: set[Key]) -> None:
        self.looked.append((pools, queues))
        self.news.set()

    def wrote(self, action: WriteStatus, outcome: WriteOutcome) -> None: ...

    def acted(self, action: Action) -> None: ...

    def received(self, message: FromAgent) -> None: ...

    async def until_looked_at(self, queue: Key) -> None:
        async with asyncio.timeout(5):
            while not any(queue in queues for _, queues in self.looked):
                self.news.clear()
                await self.news.wait()

    async def until_sent(self, kind: type[ToAgent]) -> ToAgent:
        async with asyncio.timeout(5):
            while True:
                for message in self.sent:
                    if isinstance(message, kind):
                        return message
                self.news.clear()
                await self.news.wait()


class Room:
    def __init__(self) -> None:
        self.effects = Remembered()
        self.overtaken = 0
        self.tally = Tally()
        self.now = Now(5.0, 100.0)
        # Namespaces that another installation serves.
        self.others: set[str] = set()
        self.withheld = Withheld()
        # Tasks whose agents reported progress.
        self.heard: list[str] = []
        self.dispatcher = Dispatcher(
            self.effects,
            self.effects,
            lambda: math.inf,
            self._overtaken,
            lambda: self.now,
            self.tally,
            serves=lambda namespace: namespace not in self.others,
            withheld=lambda _key: self.withheld,
            heard=self.heard.append,
        )

    def _overtaken(self) -> None:
        self.overtaken += 1

    def lead(self, epoch: int = 1) -> None:
        self.dispatcher.lead(
            Leader(Core(), epoch, LeaderSettings()), [Queue("ns", "q", ("pool",))], [Pool("ns", "pool")], [RECORD]
        )

    def connect(self) -> None:
        self.dispatcher.pod_observed(ObservedPod("p1", "ns", "pod", "pool", 1.0, ready=True))
        self.dispatcher.connected(7, AGENT, HELLO)
        self.dispatcher.received(7, Ping(1.0))


@asynccontextmanager
async def leading(epoch: int = 1) -> AsyncIterator[Room]:
    room = Room()
    room.lead(epoch)
    try:
        yield room
    finally:
        await room.dispatcher.forget()


async def test_without_leadership_an_agent_is_sent_elsewhere() -> None:
    room = Room()
    room.dispatcher.connected(7, AGENT, HELLO)
    (answer,) = room.effects.sent
    assert isinstance(answer, Refused)
    assert answer.retry
    assert room.effects.closed == ["not leading"]


async def test_a_waiting_task_is_written_then_granted_with_its_payload() -> None:
    async with leading() as room:
        room.connect()
        grant = await room.effects.until_sent(Grant)
    assert isinstance(grant, Grant)
    assert (grant.lease.task_uid, grant.lease.attempt, grant.payload) == ("t1", 1, b'{"n":1}')
    (write,) = room.effects.writes
    assert (write.status["phase"], write.status["agentUid"]) == ("Assigned", "p1")
    assert isinstance(room.effects.sent[0], Welcome)


async def test_whoever_follows_a_task_is_told_once_the_leader_has_the_progress() -> None:
    async with leading() as room:
        room.connect()
        grant = await room.effects.until_sent(Grant)
        assert isinstance(grant, Grant)
        assert room.heard == [], "a ping is no progress"
        leader = room.dispatcher.leader
        assert leader is not None
        room.dispatcher.received(7, Progress(grant.lease, 0.5, "page 1"))
        assert room.heard == ["t1"]
        lease = leader.state.tasks["t1"].lease
        assert lease is not None
        assert lease.progress is not None
        assert lease.progress["fraction"] == 0.5


@pytest.mark.parametrize("known_before", [pytest.param(True, id="recovered"), pytest.param(False, id="observed")])
async def test_nothing_is_done_in_a_namespace_that_another_installation_serves(known_before: bool) -> None:
    room = Room()
    room.others.add("ns")
    own = ObservedTask(Task("t2", "own", "a", "q", "echo", 1.0), 10)
    queues = [Queue(namespace, "q", ("pool",), drained=True) for namespace in ("ns", "own")]
    pools, records = [Pool("ns", "pool"), Pool("own", "pool")], [RECORD, own]
    leader = Leader(Core(), 1, LeaderSettings())
    if known_before:
        room.dispatcher.pod_observed(ObservedPod("p1", "ns", "pod", "pool", 1.0, ready=True))
        closed = [queue.key for queue in queues]
        room.dispatcher.lead(leader, queues, pools, records, closed, [(pool.key, ()) for pool in pools])
    else:
        room.dispatcher.lead(leader, [], [], [])
        for queue in queues:
            room.dispatcher.queue_applied(queue)
        for pool in pools:
            room.dispatcher.pool_applied(pool)
        room.dispatcher.pod_observed(ObservedPod("p1", "ns", "pod", "pool", 1.0, ready=True))
        for record in records:
            room.dispatcher.task_observed(record)
    assert leader.knows("t2")
    assert not leader.knows("t1")
    assert leader.core.queue_counts().keys() == {("own", "q")}
    unheard_of, there = (replace(leader.core.pool_view((ns, "pool")), key=("", "")) for ns in ("no", "own"))
    assert replace(leader.core.pool_view(("ns", "pool")), key=("", "")) == unheard_of != there
    assert room.dispatcher.accepting().keys() == {("own", "q")}
    room.dispatcher.connected(7, AGENT, HELLO)
    (answer,) = room.effects.sent
    assert isinstance(answer, Refused)
    assert answer.retry
    assert answer.message == "namespace ns is served by another installation; dial again"
    assert len(room.effects.closed) == 1
    room.dispatcher.queue_deleted(("ns", "q"))
    room.dispatcher.pool_deleted(("ns", "pool"))
    room.dispatcher.task_deleted("t1")
    assert not room.effects.writes
    # The next leadership serves it.
    await room.dispatcher.forget()
    room.others.clear()
    room.effects.sent.clear()
    room.lead(2)
    room.connect()
    grant = await room.effects.until_sent(Grant)
    assert isinstance(grant, Grant)
    assert grant.lease.task_uid == "t1"
    await room.dispatcher.forget()


async def test_the_end_of_a_leadership_tells_agents_to_hold_and_nothing_after() -> None:
    async with leading() as room:
        room.connect()
        await room.effects.until_sent(Grant)
        room.dispatcher.stop_leading()
        assert isinstance(room.effects.sent[-1], Hold)
        before = len(room.effects.sent)
        room.dispatcher.received(7, Ping(2.0))
        assert len(room.effects.sent) == before
        assert room.overtaken == 0


async def test_a_newer_leaders_work_is_reported_once() -> None:
    async with leading(epoch=1) as room:
        for version in (11, 12):
            room.dispatcher.task_observed(
                replace(RECORD, resource_version=version, phase=Phase.ASSIGNED, attempt=1, epoch=2, agent_uid="p9")
            )
        assert room.overtaken == 1


async def test_facts_are_nobodys_without_leadership() -> None:
    room = Room()
    assert room.dispatcher.tell_pool(("ns", "pool")) is None
    assert room.dispatcher.tell_queue(("ns", "q")) is None
    async with leading() as led:
        assert led.dispatcher.tell_queue(("ns", "q")) == QueueFacts(1, 0)
        view = led.dispatcher.tell_pool(("ns", "pool"))
        assert view is not None
        assert view.facts.desired == 1


async def test_what_waits_at_sources_is_told_to_each_leader_that_begins_soon_enough() -> None:
    room = Room()
    room.others.add("elsewhere")
    queue = ("ns", "q")
    for told in (SeenBacklog(queue, "s", 7), SeenBacklog(queue, "over", 9), SeenBacklog(("elsewhere", "q"), "s", 9)):
        room.dispatcher.backlogs.hear(told)
    room.dispatcher.backlogs.hear(SeenBacklog(queue, "over", 0))
    for boot, outside in ((80.0, 7), (100.0, 0)):
        room.now = Now(boot, boot)
        room.lead(1)
        try:
            assert room.dispatcher.tell_queue(("ns", "q")) == QueueFacts(1, 0, outside=outside)
        finally:
            await room.dispatcher.forget()


async def test_a_question_is_no_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 3600.0)
    room = Room()
    core = Core()
    room.dispatcher.lead(
        Leader(core, 1, LeaderSettings()), [Queue("ns", "q", ("pool",))], [Pool("ns", "pool")], [RECORD]
    )
    try:
        said = room.dispatcher._tracker
        for _ in range(2):
            assert said.queue(core, ("ns", "q")) == QueueFacts(1, 0)
            assert said.pool(core, ("ns", "pool")).desired == 1
            assert said.take_due(core)[1] == {("ns", "q")}, "nothing was told of it yet"
        room.dispatcher.tell_queue(("ns", "q"))
        room.dispatcher.tell_pool(("ns", "pool"))
        assert said.take_due(core) == (set(), set())
    finally:
        await room.dispatcher.forget()


async def test_a_pod_that_appears_or_ends_has_its_pool_looked_at() -> None:
    async with leading() as room:
        pod = ObservedPod("p1", "ns", "pod", "pool", 1.0)
        room.dispatcher.pod_observed(pod)
        room.effects.looked.clear()
        room.dispatcher.pod_observed(replace(pod, ready=True))
        assert room.effects.looked == []
        room.dispatcher.pod_observed(replace(pod, ended=True))
        room.dispatcher.pod_gone(replace(pod, ended=True, may_run=False))
        assert room.effects.looked == [({("ns", "pool")}, set())] * 2
        assert room.effects.closed[-1] == "the pod is gone"


async def test_a_foreign_pod_is_nobodys_and_one_that_becomes_so_is_lost() -> None:
    async with leading() as room:
        pod = ObservedPod("p1", "ns", "pod", "pool", 1.0)

        def seen() -> list[str]:
            view = room.dispatcher.tell_pool(("ns", "pool"))
            return [each.name for each in view.pods] if view is not None else []

        before = seen()
        room.dispatcher.pod_observed(replace(pod, uid="foreign", name="foreign", foreign=True))
        assert seen() == before
        room.dispatcher.pod_observed(pod)
        assert seen() == [*before, "pod"]
        room.dispatcher.pod_observed(replace(pod, pool="another", foreign=True))
        assert seen() == before
        other = room.dispatcher.tell_pool(("ns", "another"))
        assert other is None or other.pods == ()
        room.dispatcher.pod_observed(pod)
        assert seen() == [*before, "pod"]


async def test_a_pod_that_leaves_the_view_alive_keeps_its_session_and_its_lease() -> None:
    async with leading() as room:
        room.connect()
        grant = await room.effects.until_sent(Grant)
        assert isinstance(grant, Grant)
        room.dispatcher.pod_gone(ObservedPod("p1", "ns", "pod", "pool", 1.0, ready=True, may_run=True))
        assert room.effects.closed == []
        assert len(room.effects.writes) == 1
        room.dispatcher.received(7, Result(grant.lease, b"{}"))
        await room.effects.until_sent(Final)
        assert room.effects.writes[-1].status["phase"] == "Succeeded"


async def test_an_end_that_was_seen_while_another_led_counts_at_the_takeover() -> None:
    room = Room()
    for uid, ended in (("p1", True), ("p2", False)):
        pod = ObservedPod(uid, "ns", uid, "pool", 1.0, may_run=True)
        room.dispatcher.pod_observed(pod)
        room.dispatcher.pod_gone(replace(pod, deleting=ended, may_run=not ended))
    held = [
        replace(
            RECORD,
            task=replace(RECORD.task, uid=uid, name=uid),
            phase=Phase.ASSIGNED,
            attempt=1,
            epoch=1,
            agent_uid=f"p{uid}",
        )
        for uid in "12"
    ]
    room.dispatcher.lead(Leader(Core(), 2, LeaderSettings()), [], [], held)
    await asyncio.sleep(0)
    assert [write.uid for write in room.effects.writes] == ["1"]
    await room.dispatcher.forget()


POOL = ("ns", "pool")


async def test_what_a_pool_tells_of_its_types_changes_once_a_minute() -> None:
    now = [5.0]
    effects = Remembered()
    dispatcher = Dispatcher(effects, effects, lambda: math.inf, lambda: None, lambda: Now(now[0], 100.0))
    recalled = (TypePerformance("old", 7, 1.0, 0.5, 1.0),)
    pool = Pool("ns", "pool")
    dispatcher.lead(Leader(Core(), 1, LeaderSettings()), [], [pool], [], performance=[(POOL, recalled)])
    try:

        def told() -> dict[str, int]:
            view = dispatcher.tell_pool(POOL)
            assert view is not None
            return {each.type: each.attempts for each in view.facts.performance.types}

        assert told() == {"old": 7}
        assert dispatcher.core is not None
        dispatcher.core.recall(POOL, [TypePerformance("new", 1, 1.0, 0.0, 1.0)])
        now[0] += 59.0
        assert told() == {"old": 7}
        now[0] += 1.0
        assert told() == {"new": 1, "old": 7}
        dispatcher.core.recall(POOL, [TypePerformance("newer", 1, 1.0, 0.0, 1.0)])
        now[0] += 59.0
        assert told() == {"new": 1, "old": 7}
    finally:
        await dispatcher.forget()


async def test_a_breaker_that_opens_is_told_and_its_pool_looked_at() -> None:
    """Of five agents one fails where the others succeed, all connected to one leadership."""
    tasks: list[ObservedTask] = []
    for n in range(40):
        task = replace(RECORD.task, uid=f"t{n}", name=f"t{n}", created=float(n))
        tasks.append(replace(RECORD, task=task))
    room = Room()
    room.effects.others = {each.task.uid: each for each in tasks}
    pool = Pool("ns", "pool", minimum=5, maximum=5, breaker=Breaker(min_attempts=3))
    room.dispatcher.lead(Leader(Core(), 1, LeaderSettings()), [Queue("ns", "q", ("pool",))], [pool], tasks)
    try:
        core = room.dispatcher.core
        assert core is not None
        for n in range(5):
            room.dispatcher.pod_observed(ObservedPod(f"p{n}", "ns", f"pod{n}", "pool", 1.0, ready=True))
            identity = replace(AGENT, pod_uid=f"p{n}", pod_name=f"pod{n}")
            room.dispatcher.connected(7 + n, identity, replace(HELLO, instance_id=f"i{n}"))
            room.dispatcher.received(7 + n, Ping(1.0))
        answered = 0
        room.effects.looked.clear()
        async with asyncio.timeout(10):
            while not room.effects.pool_notices:
                grants = [each for each in room.effects.sent if isinstance(each, Grant)]
                for grant in grants[answered:]:
                    answered += 1
                    holder = next(w.status["agentUid"] for w in room.effects.writes if w.uid == grant.lease.task_uid)
                    session = 7 + int(holder[1:])
                    if holder == "p0":
                        failed = Failure(grant.lease, Reason.HANDLER_ERROR, "boom", retryable=False)
                        room.dispatcher.received(session, failed)
                    else:
                        room.dispatcher.received(session, Result(grant.lease, b"{}"))
                await asyncio.sleep(0)
        (notice,) = room.effects.pool_notices
        assert (notice.namespace, notice.pool, notice.reason, notice.warning) == (*POOL, Reason.BREAKER_OPEN, True)
        assert ({POOL}, set()) in room.effects.looked
        view = room.dispatcher.tell_pool(POOL)
        assert view is not None
        assert [each.name for each in view.facts.breakers] == ["pod0"]
        taken = snapshot(room.dispatcher, room.tally, 1)
        assert taken.breakers == {(*POOL, "Open"): 1, (*POOL, "HalfOpen"): 0}
    finally:
        await room.dispatcher.forget()


KEY = ("ns", "q")


async def test_a_queue_that_becomes_full_is_looked_at_at_once_and_again_when_it_is_not() -> None:
    async with leading() as room:
        room.dispatcher.queue_applied(Queue("ns", "q", ("pool",), overflow=Overflow(2, 1)))
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0)
        room.effects.looked.clear()
        second = replace(RECORD, task=replace(RECORD.task, uid="t2", name="b"))
        room.dispatcher.task_observed(second)
        await room.effects.until_looked_at(KEY)
        assert room.dispatcher.accepting() == {KEY: False}
        facts = room.dispatcher.tell_queue(KEY)
        assert facts is not None
        assert facts.waiting == 2
        assert "highWater is 2" in facts.closed
        room.effects.looked.clear()
        room.dispatcher.task_deleted("t2")
        await room.effects.until_looked_at(KEY)
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0)


async def test_a_door_is_of_the_spec_that_was_seen_last() -> None:
    async with leading() as room:
        for drained in (True, False):
            room.effects.looked.clear()
            room.dispatcher.queue_applied(Queue("ns", "q", ("pool",), drained=drained))
            facts = room.dispatcher.tell_queue(KEY)
            assert facts is not None
            assert bool(facts.closed) is drained
            assert KEY in {key for _, queues in room.effects.looked for key in queues}


async def test_a_new_leader_s_first_word_on_a_door_is_of_the_spec_that_is() -> None:
    room = Room()
    room.dispatcher.lead(
        Leader(Core(), 1, LeaderSettings()), [Queue("ns", "q", ("pool",))], [Pool("ns", "pool")], [RECORD], [KEY]
    )
    try:
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0)
    finally:
        await room.dispatcher.forget()


async def test_a_queue_that_a_former_leader_closed_opens_only_below_its_low_mark() -> None:
    room = Room()
    queue = Queue("ns", "q", ("pool",), overflow=Overflow(5, 0))
    room.dispatcher.lead(Leader(Core(), 1, LeaderSettings()), [queue], [Pool("ns", "pool")], [RECORD], [KEY])
    try:
        assert room.dispatcher.accepting() == {KEY: False}
        room.dispatcher.task_deleted("t1")
        async with asyncio.timeout(5):
            while not room.dispatcher.accepting()[KEY]:
                room.effects.news.clear()
                await room.effects.news.wait()
    finally:
        await room.dispatcher.forget()


async def test_dead_letters_are_among_a_queue_s_numbers() -> None:
    async with leading() as room:
        room.tally.seen(replace(RECORD, task=replace(RECORD.task, uid="t2"), phase=Phase.DEAD_LETTERED))
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0, 1)


async def test_gauges_are_counted_and_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with leading() as room:
        room.dispatcher.queue_applied(Queue("ns", "q", ("pool",), drained=True))
        urgent = replace(RECORD, task=replace(RECORD.task, uid="t2", name="b", priority=Priority.HIGH.level))
        room.tally.seen(RECORD)
        room.tally.seen(urgent)
        room.dispatcher.task_observed(urgent)
        dead = replace(RECORD, task=replace(RECORD.task, uid="t3", name="c"), phase=Phase.DEAD_LETTERED)
        room.tally.seen(dead)
        room.dispatcher.task_observed(dead)
        async with asyncio.timeout(5):
            while room.dispatcher.accepting().get(KEY, True):
                await room.effects.news.wait()
                room.effects.news.clear()
        monkeypatch.setattr(Leader, "live", None)
        now = snapshot(room.dispatcher, room.tally, 3)
    assert now.waiting == {(*KEY, Priority.NORMAL): 1, (*KEY, Priority.HIGH): 1}
    assert set(now.leased.values()) == {0}
    assert now.reasons == {(*KEY, Reason.NO_AGENT): 2}
    assert now.dead_letters == {KEY: 1}
    assert now.accepting == {KEY: False}
    assert (now.leader, now.epoch, now.conservation_error) == (True, 3, 0)
    assert snapshot(room.dispatcher, room.tally, None) == Snapshot()


async def test_what_holds_tasks_for_long_is_told_of_their_queue_and_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.005)
    async with leading() as room:
        room.dispatcher.queue_applied(Queue("ns", "q", ("pool",), paused=True))
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0)
        assert room.dispatcher.tell_pool(("ns", "pool")) is not None
        # The Task has waited for 99 s: what holds it is said once it has been seen to hold it for 30 s.
        async with asyncio.timeout(5):
            while not room.dispatcher.bottlenecks()[0]:
                room.now = Now(room.now.boot + 1.0, room.now.wall + 1.0)
                await asyncio.sleep(0.005)
        assert room.now.wall >= 130.0
        facts, view = room.dispatcher.tell_queue(KEY), room.dispatcher.tell_pool(("ns", "pool"))
        assert facts is not None
        assert view is not None
        assert facts.bottleneck is not None
        assert (facts.bottleneck.reason, facts.bottleneck.what) == (Reason.QUEUE_PAUSED, "spec.paused")
        assert view.facts.bottleneck == facts.bottleneck
        # Its numbers change from look to look: that is no reason to have a status written.
        await asyncio.sleep(0.05)
        room.effects.looked.clear()
        room.now = Now(room.now.boot + 20.0, room.now.wall + 20.0)
        await asyncio.sleep(0.05)
        assert room.effects.looked == []
        now = snapshot(room.dispatcher, room.tally, 1)
        assert set(now.bottlenecks.values()) == {(Reason.QUEUE_PAUSED, "spec.paused")}
        assert now.waiting_seconds[*KEY, Reason.QUEUE_PAUSED] > 99.0
        await room.dispatcher.forget()
        room.lead(2)
        assert room.dispatcher.tell_queue(KEY) == QueueFacts(1, 0), "another leader sees for itself"


async def test_figures_alone_are_told_of_a_bounded_number_of_queues_at_a_look_and_each_gets_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 3600.0)
    keys = [("ns", f"q{n}") for n in range(3 * status_tracker.FIGURES_A_LOOK)]
    async with leading() as room:
        for key in keys:
            room.dispatcher.queue_applied(Queue(*key, ("pool",)))
            assert room.dispatcher.tell_queue(key) == QueueFacts()
            task = Task(f"uid-{key[1]}", "ns", f"t-{key[1]}", key[1], "echo", 1.0)
            room.dispatcher.task_observed(ObservedTask(task, 20))
        told: list[Key] = []
        for _ in range(3):
            room.effects.looked.clear()
            room.now = Now(room.now.boot + 1.0, room.now.wall)
            room.dispatcher._look()
            (looked,) = [queues & set(keys) for _, queues in room.effects.looked]
            assert len(looked) == status_tracker.FIGURES_A_LOOK
            for key in looked:
                assert room.dispatcher.tell_queue(key) == QueueFacts(1, 0)
            told += looked
        assert sorted(told) == sorted(keys)


async def test_a_queue_that_closes_is_told_at_once_whatever_figures_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(status_tracker, "FIGURES_A_LOOK", 0)
    async with leading() as room:
        assert room.dispatcher.tell_queue(KEY) is not None
        monkeypatch.setattr(room.dispatcher._doors, "closed", lambda key: "full")
        room.effects.looked.clear()
        room.dispatcher._look()
        assert (set(), {KEY}) in [(pools - {("ns", "pool")}, queues) for pools, queues in room.effects.looked]


async def test_conservation_compares_what_the_api_server_has_with_what_the_leader_knows() -> None:
    async with leading() as room:
        error = {}

        def look(when: str) -> None:
            error[when] = snapshot(room.dispatcher, room.tally, 1).conservation_error

        def seen(record: ObservedTask) -> None:
            room.tally.seen(record)
            room.dispatcher.task_observed(record)

        room.tally.seen(RECORD)
        look("a Task that waits")
        room.connect()
        await room.effects.until_sent(Grant)
        look("a lease")
        other = replace(RECORD, task=replace(RECORD.task, uid="t2", name="b"))
        room.tally.seen(other)
        look("a Task of which the leader never heard")
        room.dispatcher.task_observed(other)
        look("it heard")
        for version, phase in ((11, Phase.DEAD_LETTERED), (12, Phase.CANCELLED)):
            seen(replace(other, resource_version=version, phase=phase))
            look(f"another that is {phase}")
        room.tally.gone("t1")
        room.dispatcher.task_deleted("t1")
        look("the leased one was deleted and runs yet")
        room.tally.gone("t2")
        look("a deletion of which the leader never heard")
    never = {"a Task of which the leader never heard": 1, "a deletion of which the leader never heard": -1}
    assert error == dict.fromkeys(error, 0) | never


async def test_what_the_audit_finds_is_counted_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.001)
    async with leading() as room:
        assert room.dispatcher.core is not None
        with capture_logs() as said:
            room.dispatcher.core._tasks["t1"].line = None
            async with asyncio.timeout(5):
                while not room.dispatcher.audit_findings:
                    room.now = Now(room.now.boot + 1.0, room.now.wall + 1.0)
                    await asyncio.sleep(0.002)
            # Some rounds more: nothing is said twice.
            await asyncio.sleep(0.02)
        assert snapshot(room.dispatcher, room.tally, 1).audit_findings == 1
    (error,) = [each for each in said if each["log_level"] == "error"]
    assert error["finding"] == "Task t1 does not stand in exactly one place"
    assert room.dispatcher.audit_findings == 0, "another leader sees for itself"


async def test_what_waits_for_the_archive_closes_the_queue_and_opens_it_again_with_time_alone() -> None:
    async with leading() as room:
        room.dispatcher.queue_applied(Queue("ns", "q", ("pool",), archive_backlog=10))
        for count, closed in ((9, False), (10, True), (9, False)):
            room.withheld = Withheld(count, room.now.wall - 90.0)
            room.dispatcher._look()
            facts = room.dispatcher.tell_queue(KEY)
            assert facts is not None
            assert bool(facts.closed) is closed
            assert facts.unarchived is not None
