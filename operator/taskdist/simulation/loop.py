"""The discrete-event loop: virtual time, agents and work around a scheduler that cannot tell it from the real world.

Owns what the world does: Tasks come, attempts take their time, end or fail, agents start, slow down, die. Each moment
is handled as the operator's dispatch does it: all that happened goes to the scheduler, then it decides, then its
decisions are carried out. Refuses to decide anything itself, to read a clock, and to draw chance that depends on the
order of events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import inf, nextafter
from typing import Any, Protocol

from taskdist.api import Phase, Reason
from taskdist.core import events
from taskdist.core.decisions import (
    Assign,
    BreakerTurned,
    Decision,
    DeletePod,
    Drain,
    Fail,
    Retry,
    Scale,
    Spill,
    Undrain,
)
from taskdist.core.model import ZONE, Agent, Key, Parent, Pool, Queue
from taskdist.simulation.actors import Running, SimAgent, SimPool
from taskdist.simulation.chance import Chance
from taskdist.simulation.faults import BadAgents, Failures, Faults
from taskdist.simulation.record import AgentLife, Attempt, Outcome, PoolTraits, Record, Step, TaskLife
from taskdist.simulation.scenario import Traits
from taskdist.simulation.workload import EPOCH, Job

PROGRESS_EVENTS = 5_000
_PHASES = {
    Outcome.COMPLETED: Phase.SUCCEEDED,
    Outcome.FAILED: Phase.FAILED,
    Outcome.DEAD_LETTERED: Phase.DEAD_LETTERED,
    Outcome.CANCELLED: Phase.CANCELLED,
    Outcome.WITHDRAWN: Phase.CANCELLED,
}
_OUTCOMES = {
    Phase.FAILED: Outcome.FAILED,
    Phase.DEAD_LETTERED: Outcome.DEAD_LETTERED,
    Phase.CANCELLED: Outcome.CANCELLED,
}


class Scheduler(Protocol):
    """Who decides: the core, or a baseline that takes the same events and gives the same decisions."""

    def handle(self, event: events.Event, now: float) -> list[Decision]: ...

    def decide(self, now: float) -> list[Decision]: ...

    def next_wake(self) -> float | None: ...

    def queue_counts(self) -> dict[Key, tuple[int, int]]: ...


class UnknownDecision(TypeError):
    """The scheduler decided what this loop cannot carry out."""


@dataclass(frozen=True, slots=True)
class World:
    """All of a scenario but its Tasks and its scheduler."""

    queues: tuple[Queue, ...]
    pools: tuple[Pool, ...]
    traits: dict[str, Traits]
    faults: Faults = field(default_factory=Faults)
    until: float | None = None
    seed: int = 1


class Loop:
    """One run of one scheduler over one list of Tasks."""

    def __init__(self, world: World, jobs: Sequence[Job], scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler
        self._tasks = [TaskLife(job) for job in jobs]
        self._by_uid = {life.task.uid: life for life in self._tasks}
        self._pools = {pool.key: SimPool(pool, world.traits.get(pool.name) or Traits()) for pool in world.pools}
        self._queues = {queue.key: queue for queue in world.queues}
        self._agents: dict[str, SimAgent] = {}
        self._lives: list[AgentLife] = []
        self._log: list[tuple[float, Step, TaskLife, AgentLife | None]] = []
        # Tasks that depend on others that have not come, by the others' names.
        self._awaited: dict[str, list[TaskLife]] = {}
        self._failures = Failures(world.faults.attempt_failure, world.seed)
        self._bad = BadAgents(world.faults.bad_agents, world.seed)
        # What will happen: time, number (so that equal times keep their order), what, with what. Faults that come
        # whatever happens do not count as `coming`: a run does not go on for their sake.
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._pushed = 0
        self._coming = 0
        self._now = EPOCH
        self._open = 0
        self._decisions = 0
        self._events = 0

    def run(self, progress: Callable[[int, int], None] | None = None) -> Record:
        """Play until all Tasks have ended, or nothing can happen any more, or time is up.

        `progress` hears now and then how many of how many Tasks have ended.
        """
        self._begin()
        tasks, heap, scheduler = self._tasks, self._heap, self._scheduler
        coming, last, told = 0, len(tasks), PROGRESS_EVENTS
        limit = inf if self._world.until is None else EPOCH + self._world.until
        self._decide()
        while coming < last or self._open:
            wake = scheduler.next_wake()
            at = tasks[coming].job.created if coming < last else inf
            if wake is not None and wake < at:
                # What time alone was to bring was said just now: strictly later, or the loop would stand still.
                at = wake if wake > self._now else nextafter(self._now, inf)
            elif at == inf and not self._coming:
                break
            if heap and heap[0][0] < at:
                at = heap[0][0]
            if at > limit:
                self._now = limit
                break
            self._now = at
            while coming < last and tasks[coming].job.created <= at:
                self._arrive(tasks[coming])
                coming += 1
            while heap and heap[0][0] <= at:
                _, _, what, which = heappop(heap)
                what(which)
            self._decide()
            if progress is not None and self._events >= told:
                told = self._events + PROGRESS_EVENTS
                progress(coming - self._open, last)
        if progress is not None:
            progress(coming - self._open, last)
        return self._record()

    # The start.

    def _begin(self) -> None:
        for queue in self._world.queues:
            self._tell(events.QueueApplied(queue))
        for pool in self._pools.values():
            self._tell(events.PoolApplied(pool.pool))
        for pool in self._pools.values():
            for _ in range(pool.desired):
                self._ready(self._make(pool))
        faults = self._world.faults
        if faults.agent_death is not None:
            self._later(EPOCH + faults.agent_death.every, self._death, 1, counts=False)
        if faults.slow_agent is not None:
            self._later(EPOCH + faults.slow_agent.every, self._slow, 1, counts=False)
        for loss in faults.zone_loss:
            self._later(EPOCH + loss.at, self._lose_zone, loss, counts=False)

    def _later(self, at: float, what: Callable[[Any], None], which: Any, counts: bool = True) -> None:
        self._pushed += 1
        if counts:
            self._coming += 1
            heappush(self._heap, (at, self._pushed, self._counted, (what, which)))
        else:
            heappush(self._heap, (at, self._pushed, what, which))

    def _counted(self, item: tuple[Callable[[Any], None], Any]) -> None:
        self._coming -= 1
        item[0](item[1])

    def _tell(self, event: events.Event) -> list[Decision]:
        self._events += 1
        return self._scheduler.handle(event, self._now)

    # Tasks.

    def _arrive(self, life: TaskLife) -> None:
        self._open += 1
        if life.job.cancelled is not None:
            self._later(life.job.cancelled, self._withdraw, life)
        for parent in life.task.parents:
            if (other := self._by_uid[parent.name]).ended is None and not other.eligible:
                self._awaited.setdefault(parent.name, []).append(life)
        self._wait(life)
        for child in self._awaited.pop(life.task.name, ()):
            if child.ended is None:
                self._pin(child)
                self._tell(events.TaskWaiting(child.task))

    def _pin(self, life: TaskLife) -> None:
        """Name the uids of the Task's parents that have come, and how they ended if they did."""
        if not life.task.parents:
            return
        pinned = []
        for parent in life.task.parents:
            other = self._by_uid[parent.name]
            known = other is life or bool(other.eligible)
            pinned.append(Parent(parent.name, other.task.uid if known else "", _PHASES.get(other.outcome)))
        life.task = replace(life.task, parents=tuple(pinned))

    def _withdraw(self, life: TaskLife) -> None:
        """Its user cancels the Task: it stops at once where it runs."""
        if life.ended is not None:
            return
        last = life.attempts[-1] if life.attempts else None
        if life.outcome is Outcome.RUNNING and last is not None:
            agent = self._agents[last.agent.uid]
            agent.running.pop(life.task.uid, None)
            del agent.held[life.task.uid]
            last.end = self._now if last.end is None else last.end
            self._log.append((self._now, Step.STOPS, life, last.agent))
            self._end(life, Outcome.WITHDRAWN, Phase.CANCELLED)
            self._emptied(agent)
        else:
            self._end(life, Outcome.WITHDRAWN, Phase.CANCELLED)

    def _emptied(self, agent: SimAgent) -> None:
        if agent.draining and not agent.held and not agent.dead:
            self._tell(events.AgentDrained(agent.life.uid))

    def _wait(self, life: TaskLife) -> None:
        self._pin(life)
        life.eligible.append(max(self._now, life.task.not_before))
        self._log.append((self._now, Step.WAITS, life, None))
        self._tell(events.TaskWaiting(life.task))

    def _start(self, decision: Assign) -> None:
        life, agent = self._by_uid[decision.task_uid], self._agents[decision.agent_uid]
        agent.held[life.task.uid] = life
        self._log.append((self._now, Step.STARTS, life, agent.life))
        life.outcome = Outcome.RUNNING
        attempt = Attempt(agent.life, self._now)
        life.attempts.append(attempt)
        if agent.dead:
            # Granted to one whose death is not known yet: nothing runs, which is found out with the death.
            attempt.begun, attempt.end = False, self._now
            return
        fraction = self._failures.fraction(life.job.index, len(life.attempts))
        if fraction is None:
            fraction = self._bad.fraction(
                agent.life.pool, agent.life.ordinal, self._now - EPOCH, life.job.index, len(life.attempts)
            )
        left = life.job.service * (1.0 if fraction is None else fraction)
        running = agent.running[life.task.uid] = Running(life, attempt, agent, left, fraction is not None, self._now)
        self._expect(running)
        queue = self._queues.get(life.task.queue_key)
        limit = life.job.execution or (queue.timeouts.execution if queue is not None else None)
        if limit is not None:
            self._later(self._now + limit, self._time_out, running)

    def _expect(self, running: Running) -> None:
        running.due = self._now + running.left / running.agent.speed
        self._later(running.due, self._due, running)

    def _due(self, running: Running) -> None:
        life, agent = running.life, running.agent
        # Superseded: the agent died, or its speed changed.
        if running.due != self._now or agent.running.get(life.task.uid) is not running:
            return
        del agent.running[life.task.uid], agent.held[life.task.uid]
        running.attempt.end = self._now
        self._log.append((self._now, Step.STOPS, life, agent.life))
        if running.fails:
            self._fail(life, Reason.HANDLER_ERROR, "The scenario let it fail.")
        else:
            running.attempt.completed = True
            self._end(life, Outcome.COMPLETED, Phase.SUCCEEDED)
        self._emptied(agent)

    def _time_out(self, running: Running) -> None:
        life, agent = running.life, running.agent
        if agent.running.get(life.task.uid) is not running:
            return
        del agent.running[life.task.uid], agent.held[life.task.uid]
        running.attempt.end = self._now
        self._log.append((self._now, Step.STOPS, life, agent.life))
        self._fail(life, Reason.EXECUTION_TIMED_OUT, "It ran longer than it may.")
        self._emptied(agent)

    def _fail(self, life: TaskLife, reason: Reason, message: str, died: str = "") -> None:
        for decision in self._tell(events.AttemptFailed(life.task.uid, reason, message, died=died)):
            self._carry_out(decision)

    def _end(self, life: TaskLife, outcome: Outcome, phase: Phase) -> None:
        life.outcome, life.ended = outcome, self._now
        self._log.append((self._now, Step.ENDS, life, None))
        self._open -= 1
        self._tell(events.TaskGone(life.task.uid, phase))

    # Decisions.

    def _decide(self) -> None:
        # What its decisions bring about at once may let it decide more.
        while True:
            told = self._events
            # Grants first: what the others bring about, the scheduler hears after it has made them all.
            for decision in sorted(self._scheduler.decide(self._now), key=lambda each: not isinstance(each, Assign)):
                self._carry_out(decision)
            if self._events == told:
                return

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Assign():
                self._decisions += 1
                self._start(decision)
            case Retry(uid, not_before, failures, deaths=deaths):
                life = self._by_uid[uid]
                life.retries += 1
                life.outcome = Outcome.WAITING
                life.task = replace(life.task, not_before=not_before, failures=failures, deaths=deaths, attempted=True)
                self._wait(life)
            case Fail(uid, phase=phase):
                self._decisions += 1
                self._end(self._by_uid[uid], _OUTCOMES[phase], phase)
            case Spill(uid, queue):
                life = self._by_uid[uid]
                life.task = replace(life.task, queue=queue)
                self._tell(events.TaskWaiting(life.task))
            case Scale(pool, replicas):
                self._pools[pool].desired = replicas
                self._fill(self._pools[pool])
            case Drain(uid):
                agent = self._agents[uid]
                agent.draining = True
                if not agent.held:
                    self._tell(events.AgentDrained(uid))
            case Undrain(uid):
                self._agents[uid].draining = False
            case DeletePod(uid):
                self._remove(self._agents[uid])
            case BreakerTurned():
                pass  # a word to people
            case _:
                raise UnknownDecision(f"the simulator cannot carry out {type(decision).__name__}")

    # Agents.

    def _fill(self, pool: SimPool) -> None:
        while pool.staying < pool.desired:
            agent = self._make(pool)
            self._later(self._now + pool.traits.start_seconds, self._ready, agent)

    def _make(self, pool: SimPool) -> SimAgent:
        ordinal = next(number for number in range(len(pool.ordinals) + 1) if number not in pool.ordinals)
        pool.ordinals.add(ordinal)
        pool.made += 1
        spec, zones = pool.pool, pool.traits.zones
        zone = zones[ordinal % len(zones)]
        # Ends in how many were made, so that no two are the same; ordinals stay with their place in the pool.
        uid = f"{spec.name}-{ordinal:04d}-{pool.made:05d}"
        offer = Agent(
            uid=uid,
            namespace=spec.namespace,
            name=f"{spec.name}-{ordinal}",
            pool=spec.name,
            slots=spec.slots,
            resources=spec.resources,
            skills=spec.skills,
            labels=(*spec.labels, (ZONE, zone)),
        )
        life = AgentLife(offer, ordinal, zone, self._now)
        self._lives.append(life)
        agent = self._agents[uid] = pool.agents[uid] = SimAgent(life, pool.traits.speed)
        self._tell(events.PodSeen(uid, spec.namespace, offer.name, spec.name, self._now, spec.template))
        return agent

    def _ready(self, agent: SimAgent) -> None:
        if agent.dead or agent.life.uid not in self._agents:
            return
        agent.life.ready = self._now
        agent.life.speeds.append((self._now, agent.speed))
        self._tell(events.AgentReady(agent.life.agent))

    def _remove(self, agent: SimAgent) -> None:
        """Its pod is gone, and whatever it ran is known to be over."""
        life = agent.life
        pool = self._pools[life.agent.pool_key]
        if life.gone is None:
            life.gone = self._now
        del self._agents[life.uid], pool.agents[life.uid]
        if not agent.dead:
            pool.ordinals.discard(life.ordinal)
        self._tell(events.PodGone(life.uid))
        for held in list(agent.held.values()):
            self._log.append((self._now, Step.STOPS, held, life))
            self._fail(held, Reason.AGENT_LOST, "Its agent died.", died=life.uid)
        agent.held.clear()
        self._fill(pool)

    # Faults.

    def _living(self, pools: Sequence[str] | None) -> list[SimAgent]:
        """Agents that are ready, in an order that does not depend on what happened to them."""
        found = [
            agent
            for pool in self._pools.values()
            if pools is None or pool.pool.name in pools
            for agent in pool.agents.values()
            if agent.life.ready is not None and not agent.dead
        ]
        return sorted(found, key=lambda agent: (agent.life.pool, agent.life.ordinal))

    def _victim(self, purpose: str, number: int, pools: Sequence[str] | None) -> SimAgent | None:
        living = self._living(pools)
        return living[int(Chance(self._world.seed, purpose)(number) * len(living))] if living else None

    def _death(self, number: int) -> None:
        fault = self._world.faults.agent_death
        assert fault is not None
        self._later(EPOCH + (number + 1) * fault.every, self._death, number + 1, counts=False)
        victim = self._victim("agent-death", number, fault.pools)
        if victim is not None:
            self._kill(victim, fault.detect_after, fault.replace_after)

    def _lose_zone(self, loss: Any) -> None:
        for agent in self._living(None):
            if agent.life.zone == loss.zone:
                self._kill(agent, loss.detect_after, loss.for_)

    def _kill(self, agent: SimAgent, detect_after: float, replace_after: float) -> None:
        agent.dead = True
        agent.life.gone = self._now
        for running in agent.running.values():
            running.attempt.end = self._now
        agent.running.clear()
        pool = self._pools[agent.life.agent.pool_key]
        pool.awaited += 1
        if detect_after:
            self._later(self._now + detect_after, self._find_dead, agent)
        else:
            self._remove(agent)
        # Its place is taken again by its replacement and by nobody before, and not before its death is known.
        self._later(self._now + max(replace_after, detect_after), self._replace, (pool, agent.life.ordinal))

    def _find_dead(self, agent: SimAgent) -> None:
        # The scheduler may have let it go meanwhile, for other reasons.
        if agent.life.uid in self._agents:
            self._remove(agent)

    def _replace(self, place: tuple[SimPool, int]) -> None:
        pool, ordinal = place
        pool.awaited -= 1
        pool.ordinals.discard(ordinal)
        # A pool that shrank meanwhile needs none.
        if pool.staying < pool.desired:
            self._ready(self._make(pool))

    def _slow(self, number: int) -> None:
        fault = self._world.faults.slow_agent
        assert fault is not None
        self._later(EPOCH + (number + 1) * fault.every, self._slow, number + 1, counts=False)
        victim = self._victim("slow-agent", number, fault.pools)
        if victim is not None:
            self._pace(victim, 1)
            self._later(self._now + fault.for_, self._recover, victim, counts=False)

    def _recover(self, agent: SimAgent) -> None:
        if not agent.dead and agent.life.uid in self._agents:
            self._pace(agent, -1)

    def _pace(self, agent: SimAgent, slowed: int) -> None:
        """Give the agent the speed of one more, or one fewer, fault, and what it runs a new end."""
        fault = self._world.faults.slow_agent
        assert fault is not None
        former = agent.speed
        agent.slowed += slowed
        agent.speed = self._pools[agent.life.agent.pool_key].traits.speed * fault.factor**agent.slowed
        agent.life.speeds.append((self._now, agent.speed))
        for running in agent.running.values():
            running.left = max(0.0, running.left - (self._now - running.since) * former)
            running.since = self._now
            self._expect(running)

    def _record(self) -> Record:
        traits = {pool.pool.name: PoolTraits(pool.traits.speed, *pool.draws) for pool in self._pools.values()}
        return Record(
            begun=EPOCH,
            ended=self._now,
            tasks=self._tasks,
            agents=self._lives,
            log=self._log,
            queues=self._queues,
            pools={pool.key: pool for pool in self._world.pools},
            traits=traits,
            known=sum(waiting + leased for waiting, leased in self._scheduler.queue_counts().values()),
            decisions=self._decisions,
            events=self._events,
        )
