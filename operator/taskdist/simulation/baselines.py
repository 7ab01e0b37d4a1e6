"""Well-known policies to compare the core with. They are no rules of the core and no part of the operator.

Push policies give a Task to an agent the moment it comes, where it queues first come, first served: round-robin,
weighted round-robin, random, power of two choices, least loaded. `fifo` keeps one central queue and gives its first
Task to the fastest agent that is free. They ignore priority, tenants and deadlines, and do not size pools. Who may run
a Task, and what follows a failure, are the core's own rules.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from taskdist.api import Reason
from taskdist.core import events
from taskdist.core.agents.filters import Need, covers, need_of, offer_of, refusal
from taskdist.core.decisions import Assign, Decision
from taskdist.core.engine.retry import after_failure
from taskdist.core.fleet.routes import NONE, route_of
from taskdist.core.model import Agent, Key, Pool, Queue, Task
from taskdist.simulation.chance import Sequence
from taskdist.simulation.scenario import Policy


class _Server:
    """An agent, what is free on it, and the Tasks that were pushed to it."""

    __slots__ = ("agent", "free", "line", "offer", "queued", "resources", "share", "speed")

    def __init__(self, agent: Agent, pool: Pool | None, speed: float) -> None:
        self.agent = agent
        self.speed = speed
        self.free = agent.slots
        self.resources = dict(agent.resources)
        self.line: deque[Task] = deque()
        self.queued = 0
        # Of weighted round-robin: what it is owed.
        self.share = 0.0
        self.offer = offer_of(agent, pool)

    @property
    def load(self) -> float:
        """Slots asked for, running and queued, per slot."""
        return (self.agent.slots - self.free + self.queued) / self.agent.slots

    def fits(self, task: Task) -> bool:
        return task.slots <= self.free and (not task.resources or covers(self.resources.items(), task.resources))

    def take(self, task: Task, sign: int = 1) -> None:
        self.free -= sign * task.slots
        for name, amount in task.resources:
            self.resources[name] = self.resources.get(name, 0) - sign * amount


# All that decides which agents may run a Task; the last is the number of its route.
Class = tuple[Key, str | None, Need, int]


class Baseline(ABC):
    """What all baselines share: who is there, who may run what, what runs where, and back-offs."""

    def __init__(self, speeds: Mapping[str, float]) -> None:
        """`speeds` by the pool's name."""
        self._speeds = speeds
        self._queues: dict[Key, Queue] = {}
        self._pools: dict[Key, Pool] = {}
        self._servers: dict[str, _Server] = {}
        self._running: dict[str, tuple[Task, str]] = {}
        self._waiting: dict[str, Task] = {}
        self._timers: list[tuple[float, str, Task]] = []
        # By class of Tasks: the agents that may run them, by uid; kept until an agent comes or goes.
        self._capable: dict[Class, list[_Server]] = {}

    def handle(self, event: events.Event, now: float) -> list[Decision]:
        """Take an event, as the core does."""
        match event:
            case events.TaskWaiting(task):
                self._released(task.uid)
                self._waiting[task.uid] = task
                if task.not_before > now:
                    heappush(self._timers, (task.not_before, task.uid, task))
                else:
                    self._enter(task)
            case events.TaskGone(uid):
                self._released(uid)
                self._waiting.pop(uid, None)
            case events.AttemptFailed(uid):
                task = self._running[uid][0]
                return [after_failure(task, self._queues.get(task.queue_key) or Queue(*task.queue_key), event, now)]
            case events.QueueApplied(queue):
                self._queues[queue.key] = queue
            case events.PoolApplied(pool):
                self._pools[pool.key] = pool
            case events.AgentReady(agent):
                self._servers[agent.uid] = _Server(
                    agent, self._pools.get(agent.pool_key), self._speeds.get(agent.pool, 1.0)
                )
                self._capable.clear()
                self._joined()
            case events.PodGone(uid):
                server = self._servers.pop(uid, None)
                self._capable.clear()
                if server is not None:
                    self._left(server)
            case _:
                # Pods and pools: sizes are fixed here.
                pass
        return []

    def decide(self, now: float) -> list[Decision]:
        """Say which Tasks start where now."""
        while self._timers and self._timers[0][0] <= now:
            _, uid, task = heappop(self._timers)
            if self._waiting.get(uid) is task:
                self._enter(task)
        return self._place()

    def next_wake(self) -> float | None:
        """When the next back-off ends."""
        return self._timers[0][0] if self._timers else None

    def queue_counts(self) -> dict[Key, tuple[int, int]]:
        """Return by queue how many Tasks wait and how many are leased."""
        counts: dict[Key, list[int]] = {}
        for task in self._waiting.values():
            counts.setdefault(task.queue_key, [0, 0])[0] += 1
        for task, _ in self._running.values():
            counts.setdefault(task.queue_key, [0, 0])[1] += 1
        return {key: (waiting, leased) for key, (waiting, leased) in counts.items()}

    @abstractmethod
    def _enter(self, task: Task) -> None:
        """The Task may run from now on."""

    @abstractmethod
    def _place(self) -> list[Decision]:
        """Start what fits."""

    @abstractmethod
    def _joined(self) -> None:
        """An agent came."""

    @abstractmethod
    def _left(self, server: _Server) -> None:
        """An agent is gone."""

    @abstractmethod
    def _freed(self, server: _Server) -> None:
        """Slots of the agent are free again."""

    def _class(self, task: Task) -> Class:
        queue = self._queues.get(task.queue_key)
        route = NONE if queue is None else route_of(queue, task)
        return task.queue_key, task.pool, need_of(task, queue is not None and queue.allows_unfenced), route

    def _able(self, kind: Class) -> list[_Server]:
        found = self._capable.get(kind)
        if found is None:
            (namespace, name), pool, need, route = kind
            queue = self._queues.get((namespace, name))
            pools = () if queue is None or queue.paused else (pool,) if pool is not None else queue.pools
            if pools and queue is not None and route != NONE:
                # To a baseline all steps are open at once.
                pools = queue.routes[route].pools
            elif pools and need.agent is not None and pool is None:
                pools = tuple({server.agent.pool for server in self._servers.values()})
            found = self._capable[kind] = sorted(
                (
                    server
                    for server in self._servers.values()
                    if server.agent.pool in pools and refusal(need, server.offer) is None
                ),
                key=lambda server: server.agent.uid,
            )
        return found

    def _start(self, task: Task, server: _Server) -> Assign:
        del self._waiting[task.uid]
        self._running[task.uid] = (task, server.agent.uid)
        server.take(task)
        agent = server.agent
        return Assign(task.uid, agent.uid, agent.name, agent.pool, Reason.ASSIGNED, "As the baseline says.")

    def _released(self, uid: str) -> None:
        running = self._running.pop(uid, None)
        if running is not None and (server := self._servers.get(running[1])) is not None:
            server.take(running[0], -1)
            self._freed(server)


class Push(Baseline):
    """Each Task goes to an agent's own queue as soon as it comes; there it stays."""

    def __init__(self, speeds: Mapping[str, float], policy: Policy, seed: int) -> None:
        super().__init__(speeds)
        self._draw = Sequence(seed, "push")
        self._choose = {
            Policy.ROUND_ROBIN: self._round_robin,
            Policy.WEIGHTED_ROUND_ROBIN: self._weighted,
            Policy.RANDOM: self._random,
            Policy.POWER_OF_TWO: self._power_of_two,
            Policy.LEAST_LOADED: self._least_loaded,
        }[policy]
        self._turn: dict[Class, int] = {}
        self._homeless: deque[Task] = deque()
        # Agents where a Task may be able to start, in the order of events.
        self._stirred: dict[str, _Server] = {}

    def _enter(self, task: Task) -> None:
        kind = self._class(task)
        able = self._able(kind)
        if not able:
            self._homeless.append(task)
            return
        server = self._choose(kind, able)
        server.line.append(task)
        server.queued += task.slots
        self._stirred[server.agent.uid] = server

    def _place(self) -> list[Decision]:
        decisions: list[Decision] = []
        for server in self._stirred.values():
            while server.line and server.fits(server.line[0]):
                task = server.line.popleft()
                server.queued -= task.slots
                decisions.append(self._start(task, server))
        self._stirred.clear()
        return decisions

    def _joined(self) -> None:
        homeless, self._homeless = self._homeless, deque()
        for task in homeless:
            self._enter(task)

    def _left(self, server: _Server) -> None:
        self._stirred.pop(server.agent.uid, None)
        for task in server.line:
            self._enter(task)

    def _freed(self, server: _Server) -> None:
        self._stirred[server.agent.uid] = server

    def _round_robin(self, kind: Class, able: list[_Server]) -> _Server:
        turn = self._turn.get(kind, 0)
        self._turn[kind] = turn + 1
        return able[turn % len(able)]

    def _weighted(self, _kind: Class, able: list[_Server]) -> _Server:
        # Smooth weighted round-robin, as in nginx: each is owed its weight, the one owed most pays for all.
        total, best = 0.0, able[0]
        for server in able:
            weight = server.agent.slots * server.speed
            total += weight
            server.share += weight
            if server.share > best.share:
                best = server
        best.share -= total
        return best

    def _random(self, _kind: Class, able: list[_Server]) -> _Server:
        return able[int(self._draw() * len(able))]

    def _power_of_two(self, _kind: Class, able: list[_Server]) -> _Server:
        first = able[int(self._draw() * len(able))]
        second = able[int(self._draw() * len(able))]
        return second if second.load < first.load else first

    def _least_loaded(self, _kind: Class, able: list[_Server]) -> _Server:
        # From a random place on, so that ties go to all alike.
        start = int(self._draw() * len(able))
        best, least = able[start], able[start].load
        for at in range(start + 1 - len(able), start):
            load = able[at].load
            if load < least:
                best, least = able[at], load
        return best


@dataclass(slots=True)
class _Line:
    """Tasks that the same agents may run, first come first."""

    heap: list[tuple[float, str, Task]]
    closed: bool = False


class CentralFifo(Baseline):
    """One queue; its first Task that fits anywhere starts on the fastest agent where it does."""

    def __init__(self, speeds: Mapping[str, float]) -> None:
        super().__init__(speeds)
        self._lines: dict[Class, _Line] = {}
        self._fastest: dict[Class, list[_Server]] = {}

    def _enter(self, task: Task) -> None:
        line = self._lines.setdefault(self._class(task), _Line([]))
        heappush(line.heap, (task.created, task.uid, task))

    def _place(self) -> list[Decision]:
        decisions: list[Decision] = []
        # A line is closed for now when its first Task fits nowhere: nothing gets freer by starting others.
        for line in self._lines.values():
            line.closed = not self._anything_free
        while True:
            best: tuple[tuple[float, str, Task], Class, _Line] | None = None
            for kind, line in self._lines.items():
                if not line.closed and line.heap and (best is None or line.heap[0][:2] < best[0][:2]):
                    best = (line.heap[0], kind, line)
            if best is None:
                return decisions
            (_, _, task), kind, line = best
            server = next((server for server in self._by_speed(kind) if server.fits(task)), None)
            if server is None:
                line.closed = True
            else:
                heappop(line.heap)
                decisions.append(self._start(task, server))

    @property
    def _anything_free(self) -> bool:
        return any(server.free for server in self._servers.values())

    def _by_speed(self, kind: Class) -> list[_Server]:
        found = self._fastest.get(kind)
        if found is None:
            able = self._able(kind)
            found = self._fastest[kind] = sorted(able, key=lambda each: (-each.speed, each.agent.uid))
        return found

    def _joined(self) -> None:
        self._fastest.clear()

    def _left(self, _server: _Server) -> None:
        self._fastest.clear()

    def _freed(self, server: _Server) -> None:
        pass


def baseline(policy: Policy, speeds: Mapping[str, float], seed: int) -> Baseline:
    """Return the scheduler of this policy, which is not the core's."""
    return CentralFifo(speeds) if policy is Policy.FIFO else Push(speeds, policy, seed)
