"""The dispatch loop: everything that happens enters the lease protocol here, and what it asks for leaves here.

One event loop, no locks: an input is handled to its end, its actions are carried out, then the next. Effects that
take time are tasks whose answers come back as inputs. Without leadership there is no machine and agents are refused.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from taskdist.controller.auditor import Auditor
from taskdist.controller.backlogs import HeardBacklogs
from taskdist.controller.bridge import PodFact, PoolReport
from taskdist.controller.clocks import read_clocks
from taskdist.controller.retention import Withheld
from taskdist.controller.status import QueueFacts
from taskdist.controller.status_tracker import StatusTracker
from taskdist.controller.tally import Tally
from taskdist.core import Core
from taskdist.core.agents.performance import TypePerformance
from taskdist.core.explaining.bottlenecks import Bottleneck
from taskdist.core.model import Key, Pool, Queue
from taskdist.protocol.backpressure import Doors
from taskdist.protocol.messages import AgentIdentity, FromAgent, Hello, Progress, Refused, ToAgent
from taskdist.protocol.observations import (
    Action,
    AnnotatePod,
    CloseSession,
    Notice,
    Now,
    ObservedPod,
    ObservedTask,
    PoolNotice,
    RaiseEpoch,
    ReadOutcome,
    ReadTask,
    RemovePod,
    ScalePool,
    Send,
    WriteOutcome,
    WriteStatus,
)
from taskdist.protocol.operator import Leader

_log = structlog.get_logger("taskdist.dispatch")

# How often pools and queues whose numbers changed have their status looked at, in seconds.
LOOK_SECONDS = 1.0
# How many pods whose end was seen are remembered.
MOST_DEAD_PODS = 10_000
# How soon after something happened it is asked whether a queue is full now, in seconds: a burst is looked at as one.
DOOR_SECONDS = 0.005


class Effects(Protocol):
    """Effects of the dispatch loop on the world. None of them blocks or raises."""

    async def write_status(self, action: WriteStatus) -> WriteOutcome: ...

    async def read_task(self, action: ReadTask) -> ReadOutcome: ...

    async def delete_pod(self, action: RemovePod) -> bool: ...

    async def annotate_pod(self, action: AnnotatePod) -> None: ...

    def send(self, session: int, message: ToAgent) -> None: ...

    def close(self, session: int, reason: str) -> None: ...

    def close_pod(self, pod_uid: str, reason: str) -> None: ...

    def notice(self, notice: Notice) -> None: ...

    def scaled(self, action: ScalePool) -> None: ...

    def pool_notice(self, notice: PoolNotice) -> None: ...

    def look_at(self, pools: set[Key], queues: set[Key]) -> None: ...


class Observer(Protocol):
    """A counter of what passes through the dispatch loop, for metrics."""

    def wrote(self, action: WriteStatus, outcome: WriteOutcome) -> None: ...

    def acted(self, action: Action) -> None: ...

    def received(self, message: FromAgent) -> None: ...


class Dispatcher:
    """Drives one `Leader` at a time. All methods are called on the one event loop."""

    def __init__(
        self,
        effects: Effects,
        observer: Observer,
        leads_until: Callable[[], float],
        overtaken: Callable[[], None],
        clocks: Callable[[], Now] = read_clocks,
        tally: Tally | None = None,
        raise_epoch: Callable[[RaiseEpoch], None] = lambda _action: None,
        serves: Callable[[str], bool] = lambda _namespace: True,
        withheld: Callable[[Key], Withheld] = lambda _key: Withheld(),
        heard: Callable[[str], None] = lambda _uid: None,
    ) -> None:
        """Nothing is done before `lead`.

        Args:
            tally: counts what the core does not hold; fed with each change of the view of Tasks.
            leads_until: the boot time up to which leadership is sure; asked before anything is done in its name.
            overtaken: told once when the machine has ended its leadership by itself: it saw a newer one's work.
            raise_epoch: told when only a leadership of a higher epoch will be heard.
            serves: whether a namespace is this installation's; the same for as long as a leadership lasts. What is in
                others never enters the machine, so that nothing is decided or written there.
            withheld: which of a queue's Tasks wait for the archive.
            heard: told of each Task of which its agent has reported progress, by uid.
        """
        self._effects = effects
        self._observer = observer
        self._clocks = clocks
        self._leads_until = leads_until
        self._overtaken = overtaken
        self._raise_epoch = raise_epoch
        self._serves = serves
        self._heard = heard
        self._stopping = False
        self._leader: Leader | None = None
        self._pods: dict[str, ObservedPod] = {}
        self._pools_pods: dict[Key, set[str]] = {}
        self.backlogs = HeardBacklogs(self._input, clocks, serves)
        # Pods whose end was seen, also while another led: their leases need not be waited for.
        self._dead_pods: dict[str, None] = {}
        self._inputs: deque[Callable[[Leader, Now], Iterable[Action]]] = deque()
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._looker: asyncio.TimerHandle | None = None
        self._tally = tally if tally is not None else Tally()
        self._auditor = Auditor()
        self._withheld = withheld
        self._doors = Doors()
        self._tracker = self._new_tracker()
        self._door_look: asyncio.TimerHandle | None = None

    @property
    def leader(self) -> Leader | None:
        return self._leader

    @property
    def core(self) -> Core | None:
        return self._leader.core if self._leader is not None else None

    # -- leadership ------------------------------------------------------------------------------------------------

    def lead(
        self,
        leader: Leader,
        queues: Iterable[Queue],
        pools: Iterable[Pool],
        tasks: Iterable[ObservedTask],
        closed: Iterable[Key] = (),
        performance: Iterable[tuple[Key, tuple[TypePerformance, ...]]] = (),
    ) -> None:
        """Begin a leadership with what a consistent list showed.

        `closed`: queues whose status says so; `performance`: what pools' status tells of types that ran there.
        """
        self._leader = leader
        self._stopping = False
        self._doors = Doors()
        self._tracker = self._new_tracker()
        for key in closed:
            self._doors.restore(key)
        for queue in queues:
            if self._serves(queue.namespace):
                self._take_queue(queue)
        for pool in pools:
            self.pool_applied(pool)
        self.backlogs.tell_recent()
        for of_pool, told in performance:
            leader.core.recall(of_pool, told)
        for pod in list(self._pods.values()):
            self.pod_observed(pod)
        known = [record for record in tasks if self._serves(record.task.namespace)]
        for uid in sorted({record.agent_uid for record in known} & self._dead_pods.keys()):
            self._input(lambda m, now, uid=uid: m.pod_gone(uid, now))  # type: ignore[misc]
        self._input(lambda m, now: m.recover(known, now))
        self._look_at_doors(self._doors.watched)
        self._look()

    def stop_leading(self) -> None:
        """The leadership is ending: agents are told to hold on, and nothing is decided or written any more."""
        self._stopping = True
        self._input(lambda m, now: m.renewal_failing(now))

    async def forget(self) -> None:
        """Nothing may be done in the name of the last leadership any more."""
        self._leader = None
        self._inputs.clear()
        for timer in (self._wake, self._looker, self._door_look):
            if timer is not None:
                timer.cancel()
        self._wake = self._looker = self._door_look = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._auditor.forget()
        self._tracker = self._new_tracker()

    def _new_tracker(self) -> StatusTracker:
        return StatusTracker(self._clocks, self._tally, self._doors, self._withheld)

    # -- what happened in the cluster ------------------------------------------------------------------------------

    def queue_applied(self, queue: Queue) -> None:
        if not self._serves(queue.namespace):
            return
        self._take_queue(queue)
        # What status says next is to be of this spec.
        if queue.key in self._doors.watched:
            self._look_at_doors((queue.key,))

    def _take_queue(self, queue: Queue) -> None:
        self._doors.applied(queue)
        self._input(lambda m, now: m.queue_applied(queue, now))

    def queue_deleted(self, key: Key) -> None:
        self._doors.dropped(key)
        self._tracker.queue_deleted(key)
        self._input(lambda m, now: m.queue_deleted(key, now))

    def pool_applied(self, pool: Pool) -> None:
        if not self._serves(pool.namespace):
            return
        self._input(lambda m, now: m.pool_applied(pool, now))
        self._tracker.pool_changed(pool.key)

    def pool_deleted(self, key: Key) -> None:
        self._input(lambda m, now: m.pool_deleted(key, now))
        self._tracker.pool_deleted(key)

    def task_observed(self, record: ObservedTask) -> None:
        if not self._serves(record.task.namespace):
            return
        self._input(lambda m, now: m.task_observed(record, now))

    def task_set_aside(self, uid: str) -> None:
        """The Task cannot be read. One that a leadership began without is not looked for in its books."""
        if self._leader is None or not self._leader.knows(uid):
            self._tally.gone(uid)
        self._input(lambda m, now: m.task_set_aside(uid, now))

    def task_deleted(self, uid: str) -> None:
        self._input(lambda m, now: m.task_deleted(uid, now))

    def pod_observed(self, pod: ObservedPod) -> None:
        if pod.foreign:
            # A pod that a user labels so by hand is no agent, and the user is not to lose it to a pool that
            # shrinks. One that was a pool's and was given another's label is as one that lost it.
            self.pod_gone(pod)
            return
        key = (pod.namespace, pod.pool)
        before = self._pods.get(pod.uid)
        self._pods[pod.uid] = pod
        self._pools_pods.setdefault(key, set()).add(pod.uid)
        if not self._serves(pod.namespace):
            return
        self._input(lambda m, now: m.pod_observed(pod, now))
        if before is None or (before.going, before.ended) != (pod.going, pod.ended):
            self._effects.look_at({key}, set())
        else:
            self._tracker.pool_changed(key)

    def pod_gone(self, pod: ObservedPod) -> None:
        """The pod is gone from the view; `pod` is the last that was seen of it."""
        uid = pod.uid
        if pod.dead:
            self._dead_pods[uid] = None
            if len(self._dead_pods) > MOST_DEAD_PODS:
                del self._dead_pods[next(iter(self._dead_pods))]
        known = self._pods.pop(uid, None)
        if known is None:
            return
        key = (known.namespace, known.pool)
        uids = self._pools_pods.get(key, set())
        uids.discard(uid)
        if not uids:
            self._pools_pods.pop(key, None)
        if pod.dead:
            self._input(lambda m, now: m.pod_gone(uid, now))
            self._effects.close_pod(uid, "the pod is gone")
        else:
            self._input(lambda m, now: m.pod_lost(uid, now))
        self._effects.look_at({key}, set())

    # -- what agents say (the link calls these) --------------------------------------------------------------------

    def connected(self, session: int, identity: AgentIdentity, hello: Hello) -> None:
        if self._leader is None:
            self._effects.send(session, Refused("NotLeading", "this replica does not lead; dial again", retry=True))
            self._effects.close(session, "not leading")
            return
        if not self._serves(identity.namespace):
            why = f"namespace {identity.namespace} is served by another installation"
            self._effects.send(session, Refused("NotServed", f"{why}; dial again", retry=True))
            self._effects.close(session, why)
            return
        self._input(lambda m, now: m.connected(session, identity, hello, now))
        self._tracker.pool_changed((identity.namespace, identity.pool))

    def received(self, session: int, message: FromAgent) -> None:
        self._observer.received(message)
        self._input(lambda m, now: m.received(session, message, now))
        if isinstance(message, Progress):
            self._heard(message.lease.task_uid)

    def disconnected(self, session: int) -> None:
        self._input(lambda m, now: m.disconnected(session, now))

    # -- facts for the reconciling loop ----------------------------------------------------------------------------

    def tell_pool(self, key: Key) -> PoolReport | None:
        """Return what status is to say of the pool, with its pods. It counts as told."""
        core = self.core
        if core is None:
            return None
        draining = core.pool_view(key).draining
        pods = tuple(
            PodFact(uid, pod.name, pod.going, pod.ended, uid in draining)
            for uid in sorted(self._pools_pods.get(key, ()))
            if (pod := self._pods.get(uid)) is not None
        )
        facts = self._tracker.pool(core, key)
        self._tracker.told_pool(key, facts)
        return PoolReport(facts, pods)

    def tell_queue(self, key: Key) -> QueueFacts | None:
        """Return what status is to say of the queue. It counts as told."""
        core = self.core
        if core is None:
            return None
        facts = self._tracker.queue(core, key)
        self._tracker.told_queue(key, facts)
        return facts

    def bottlenecks(self) -> tuple[Mapping[Key, Bottleneck], Mapping[Key, Bottleneck]]:
        """By queue and by pool: what holds most waiting time, where anything does for long."""
        return self._tracker.bottlenecks()

    def why_closed(self, key: Key) -> str:
        """Why the queue takes no new Tasks; empty if it does."""
        return self._doors.closed(key)

    def dead_letters(self, key: Key) -> int:
        """How many dead letters the queue has."""
        return self._tally.dead_letters(key)

    @property
    def audit_findings(self) -> int:
        """How many things the core's audit found wrong in its last whole round."""
        return self._auditor.findings

    def accepting(self) -> dict[Key, bool]:
        """By queue that can be full or drained: whether it takes new Tasks."""
        return {key: not self._doors.closed(key) for key in self._doors.watched}

    # -- the loop --------------------------------------------------------------------------------------------------

    def _input(self, step: Callable[[Leader, Now], Iterable[Action]]) -> None:
        if self._leader is None:
            return
        self._inputs.append(step)
        if self._busy:  # an effect spoke back while its action was carried out
            return
        self._busy = True
        try:
            while self._inputs and (leader := self._leader) is not None:
                step = self._inputs.popleft()
                leader.leading_until(self._leads_until())
                for action in step(leader, self._clocks()):
                    self._perform(action)
        finally:
            self._busy = False
        if self._leader is not None and self._leader.over and not self._stopping:
            self._stopping = True
            self._overtaken()
        self._arm()
        if self._door_look is None and self._leader is not None and self._doors.watched:
            self._door_look = asyncio.get_running_loop().call_later(DOOR_SECONDS, self._door_tick)

    def _arm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._leader is None:
            return
        due = self._leader.next_wake()
        if due is None:
            return
        delay = max(0.0, due - self._clocks().boot)
        self._wake = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._wake = None
        self._input(lambda m, now: m.tick(now))

    def _perform(self, action: Action) -> None:
        self._observer.acted(action)
        match action:
            case Send(session, message):
                self._effects.send(session, message)
            case WriteStatus():
                self._spawn(self._write(action))
            case ReadTask():
                self._spawn(self._read(action))
            case CloseSession(session, reason):
                self._effects.close(session, reason)
            case RemovePod():
                self._spawn(self._delete(action))
            case AnnotatePod():
                self._spawn(self._effects.annotate_pod(action))
            case ScalePool(namespace, pool):
                self._effects.scaled(action)
                self._effects.look_at({(namespace, pool)}, set())
            case PoolNotice(namespace, pool):
                self._effects.pool_notice(action)
                self._effects.look_at({(namespace, pool)}, set())
            case Notice():
                self._effects.notice(action)
            case RaiseEpoch():
                self._raise_epoch(action)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # An effect must not raise: one that does is a defect, and an answer that never comes would leak a Task.
            asyncio.get_running_loop().call_exception_handler({"message": "an effect failed", "exception": error})

    async def _write(self, action: WriteStatus) -> None:
        leader = self._leader
        outcome = await self._effects.write_status(action)
        if self._leader is leader:
            self._observer.wrote(action, outcome)
            self._input(lambda m, now: m.write_done(action.token, outcome, now))

    async def _read(self, action: ReadTask) -> None:
        leader = self._leader
        outcome = await self._effects.read_task(action)
        if self._leader is leader:
            self._input(lambda m, now: m.read_done(action.token, outcome, now))

    async def _delete(self, action: RemovePod) -> None:
        leader = self._leader
        if await self._effects.delete_pod(action) and self._leader is leader:
            self._input(lambda m, now: m.pod_absent(action.uid, now))

    def _door_tick(self) -> None:
        self._door_look = None
        self._look_at_doors(self._doors.watched)

    def _look_at_doors(self, keys: Iterable[Key]) -> None:
        """Have the status of those queues that became full, or are not any more, written at once."""
        core = self.core
        if core is None:
            return
        counts = core.queue_counts()
        turned = set[Key]()
        for key in keys:
            waiting, _leased = counts.get(key, (0, 0))
            if self._doors.look(key, waiting, self._tally.payload_bytes(key), self._withheld(key).count):
                turned.add(key)
        if turned:
            self._effects.look_at(set(), turned)

    def _look(self) -> None:
        """Have the status of pools and queues whose numbers changed looked at."""
        core = self.core
        if core is None:
            return
        self._auditor.look(core)
        self._tracker.watch(core)
        # What waits for the archive grows with time alone.
        self._look_at_doors(self._doors.watched)
        pools, queues = self._tracker.take_due(core)
        if pools or queues:
            self._effects.look_at(pools, queues)
        self._looker = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
