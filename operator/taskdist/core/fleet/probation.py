"""Agents that get less work than they offer: those whose circuit breaker is open or half open, and those that are new.

Owns the state of breakers and of slow starts, and their times. An open breaker gives the agent nothing. A half-open one
gives it one Task at a time; so many successes close it, a failure opens it again for twice as long. A new agent takes a
further Task only while fewer slots are busy than its time has opened, rounded down: 1 + (slots − 1) × age ÷
slowStartSeconds (as slow start in nginx and Envoy). Of a pool's ready agents no more than `most_open_percent` are held
at once; where fewer are ready than before, those are let go that opened the fewest times in a row. Refuses to judge:
that is the breaker's rule.
"""

from collections import deque
from heapq import heappop, heappush
from math import inf, nextafter
from sys import maxsize
from typing import NamedTuple

from taskdist.api import BreakerState, Reason
from taskdist.core.agents.circuit_breaker import CHANCE, Evidence, most_open, open_seconds
from taskdist.core.agents.performance import TypeBook
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.decisions import BreakerTurned, Decision
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.fleet import Fleet
from taskdist.core.model import Breaker, Key, Pool, Task
from taskdist.core.views import BreakerView


class TrippedBreaker:
    """A circuit breaker that is open or half open.

    `since`: when it took its present state; `times`: how often in a row it opened.
    """

    __slots__ = ("agent", "doubt", "passed", "pool", "since", "state", "times", "until")

    def __init__(self, agent: AgentRecord, pool: Key) -> None:
        self.agent = agent
        self.pool = pool
        self.state = BreakerState.OPEN
        self.times = 0
        # Half open: probes that succeeded; how likely an ordinary agent had failed all probes since the last success.
        self.passed = 0
        self.doubt = 1.0
        self.since = 0.0
        self.until = 0.0


class SlowStart:
    """The slow start of a new agent: its slots open one after the other over `seconds`, from `since` on."""

    __slots__ = ("agent", "seconds", "since")

    def __init__(self, agent: AgentRecord, since: float, seconds: float) -> None:
        self.agent = agent
        self.since = since
        self.seconds = seconds

    def cap(self, now: float) -> int:
        """Return how many slots may be busy by now."""
        slots = self.agent.slots
        return max(1, min(slots, 1 + int((slots - 1) * (now - self.since) / self.seconds + 1e-6)))

    def next(self, now: float) -> float:
        """Return when one slot more opens."""
        return self.since + self.seconds * self.cap(now) / (self.agent.slots - 1)


class _Visit(NamedTuple):
    """When an agent is to be looked at; it may be gone by then."""

    at: float
    uid: str


class _Ready(NamedTuple):
    """How many agents of a pool were ready at a version of the fleet."""

    version: int
    agents: int


class Probation:
    """Caps the slots of agents whose breaker is not closed, and of new agents that start slowly."""

    def __init__(self, fleet: Fleet, catalogue: Catalogue) -> None:
        self._fleet = fleet
        self._catalogue = catalogue
        self._breakers: dict[str, TrippedBreaker] = {}
        self._starts: dict[str, SlowStart] = {}
        self._times: list[_Visit] = []
        self._turned: deque[BreakerTurned] = deque()
        # The fleet's version at which no pool had more open breakers than it may.
        self._let_go_at = -1
        self._ready: dict[Key, _Ready] = {}

    # What happens.

    def came(self, agent: AgentRecord, now: float) -> None:
        """Begin the slow start of an agent that has become ready for the first time."""
        new, agent.warm = not agent.warm, True
        pool = self._pool(agent)
        # Pods that are older than this life of the core were at work before it; the API server stamps whole seconds.
        new = new and agent.created > (self._fleet.origin or 0.0) - 1.0
        if new and pool is not None and pool.slow_start and agent.slots > 1:
            self._starts[agent.uid] = SlowStart(agent, now, pool.slow_start)
            self._look(agent, now)

    def ended(
        self, agent: AgentRecord, task: Task, book: TypeBook, failed: bool, since: float | None, now: float
    ) -> None:
        """Judge an attempt of the Task that began at `since` and has ended: as a probe, or as evidence."""
        pool = self._pool(agent)
        rules = None if pool is None else pool.breaker
        if pool is None or rules is None:
            return
        # A Task that failed before may fail anywhere: it says nothing of the agent that tries it again.
        first = task.failures == 0
        if first:
            book.votes.cast(agent.uid, failed, now)
        breaker = self._breaker_of(agent)
        if breaker is not None:
            probe = breaker.state is BreakerState.HALF_OPEN and since is not None and since >= breaker.since
            if probe and (first or not failed):
                odds = book.votes.odds(agent.uid, now, rules.window_seconds) if failed else None
                self._probed(breaker, rules, odds, now)
            return
        if not first:
            return
        evidence = agent.evidence
        if evidence is None:
            evidence = agent.evidence = Evidence()
        evidence.add(failed, book.votes, rules, now)
        if failed:
            found = evidence.condemns(agent.uid, rules, now)
            if found is not None and self._held(pool.key) < most_open(rules, self._ready_of(pool.key)):
                breaker = self._breakers[agent.uid] = TrippedBreaker(agent, pool.key)
                failures, attempts = found
                why = f"{failures} of its last {attempts} attempts failed, where other agents of the pool succeed"
                self._open(breaker, rules, why, now)

    def changed(self, former: Pool | None, pool: Pool, now: float) -> None:
        """Adopt the pool's new rules."""
        if pool.breaker is None and former is not None and former.breaker is not None:
            self._close_all(pool.key, "the pool's breaker is off", now)
        if not pool.slow_start:
            for start in [each for each in self._starts.values() if each.agent.pool == pool.key]:
                del self._starts[start.agent.uid]
                self._apply(start.agent, now)

    def dropped(self, pool: Key, now: float) -> None:
        """Close the breakers of a pool that is gone."""
        self._close_all(pool, "the pool is gone", now)

    # What time brings.

    def due(self, now: float) -> None:
        """Do what is due by now, and close breakers where more are open than may be."""
        while self._times and self._times[0].at <= now:
            agent = self._fleet.agents.get(heappop(self._times).uid)
            if agent is not None:
                self._look(agent, now)
        if (self._breakers or self._starts) and self._fleet.version != self._let_go_at:
            self._let_go(now)
            self._let_go_at = self._fleet.version

    def next_due(self) -> float | None:
        return self._times[0].at if self._times else None

    def tell(self, decisions: list[Decision], most: int) -> bool:
        """Add the decisions that tell of turned breakers. Return False if `most` cut them short."""
        while self._turned:
            if len(decisions) >= most:
                return False
            decisions.append(self._turned.popleft())
        return True

    # Views.

    def breakers(self, pool: Key) -> tuple[BreakerView, ...]:
        """Return the breakers of the pool that are not closed, by the names of their agents."""
        found = [
            BreakerView(breaker.agent.uid, breaker.agent.name, breaker.state, breaker.since, breaker.until)
            for breaker in self._breakers.values()
            if breaker.pool == pool
        ]
        return tuple(sorted(found, key=lambda each: (each.name, each.uid)))

    def findings(self) -> list[str]:
        """Return every broken invariant in words."""
        broken = []
        for uid, agent in self._fleet.agents.items():
            breaker, start = self._breakers.get(uid), self._starts.get(uid)
            state = BreakerState.CLOSED if breaker is None or breaker.agent is not agent else breaker.state
            if agent.breaker is not state:
                broken.append(f"agent {uid}: its breaker counts as {agent.breaker} and is {state}")
            held = (breaker is not None and breaker.agent is agent) or (start is not None and start.agent is agent)
            if (agent.cap != maxsize) != held or (self._catalogue.on_probation.get(uid) is agent) != held:
                broken.append(f"agent {uid} may have {agent.cap} slots busy, which nobody says")
        return broken

    # How it is done.

    def _pool(self, agent: AgentRecord) -> Pool | None:
        return None if agent.pool is None else self._catalogue.pools.get(agent.pool)

    def _breaker_of(self, agent: AgentRecord) -> TrippedBreaker | None:
        """Return the agent's breaker if it is not closed. An agent that was forgotten and came back is another one."""
        breaker = self._breakers.get(agent.uid)
        return breaker if breaker is not None and breaker.agent is agent else None

    def _open(self, breaker: TrippedBreaker, rules: Breaker, why: str, now: float) -> None:
        breaker.times += 1
        seconds = open_seconds(rules, breaker.times)
        breaker.state, breaker.since, breaker.until = BreakerState.OPEN, now, now + seconds
        breaker.passed, breaker.doubt = 0, 1.0
        if breaker.agent.evidence is not None:
            breaker.agent.evidence.clear()
        heappush(self._times, _Visit(breaker.until, breaker.agent.uid))
        self._apply(breaker.agent, now)
        self._turn(breaker, BreakerState.OPEN, f"{why}; it gets no Tasks for {seconds:g} s.")

    def _probed(self, breaker: TrippedBreaker, rules: Breaker, odds: float | None, now: float) -> None:
        """Count a probe that ended. `odds`, if it failed: how likely the other agents fail at the type."""
        if odds is None:
            breaker.passed += 1
            breaker.doubt = 1.0
            if breaker.passed >= rules.probes:
                self._close(breaker, f"{breaker.passed} attempts to probe it succeeded", now)
            return
        breaker.doubt *= odds
        if breaker.doubt <= CHANCE + 1e-9:
            self._open(breaker, rules, "an attempt to probe it failed", now)

    def _close(self, breaker: TrippedBreaker, why: str, now: float) -> None:
        del self._breakers[breaker.agent.uid]
        if breaker.agent.evidence is not None:
            breaker.agent.evidence.clear()
        self._apply(breaker.agent, now)
        self._turn(breaker, BreakerState.CLOSED, f"{why}; it gets Tasks as any other agent.")

    def _close_all(self, pool: Key, why: str, now: float) -> None:
        for breaker in [each for each in self._breakers.values() if each.pool == pool]:
            self._close(breaker, why, now)

    def _turn(self, breaker: TrippedBreaker, state: BreakerState, why: str) -> None:
        agent = breaker.agent
        reason = Reason.BREAKER_CLOSED if state is BreakerState.CLOSED else Reason.BREAKER_OPEN
        message = f"Agent {agent.name}: {why}"
        self._turned.append(BreakerTurned(agent.uid, agent.name, breaker.pool, state, reason, message))

    def _look(self, agent: AgentRecord, now: float) -> None:
        """Do what is due for the agent."""
        breaker = self._breaker_of(agent)
        if breaker is not None and breaker.state is BreakerState.OPEN and breaker.until <= now:
            breaker.state, breaker.since = BreakerState.HALF_OPEN, now
        start = self._starts.get(agent.uid)
        if start is not None:
            if start.cap(now) >= agent.slots:
                del self._starts[agent.uid]
            else:
                # Strictly later, or rounding could have it looked at without end.
                heappush(self._times, _Visit(max(start.next(now), nextafter(now, inf)), agent.uid))
        self._apply(agent, now)

    def _apply(self, agent: AgentRecord, now: float) -> None:
        """Set the agent's cap and breaker state to what its breaker and its age allow."""
        breaker, known = self._breaker_of(agent), self._fleet.agents.get(agent.uid) is agent
        start = self._starts.get(agent.uid)
        cap = maxsize if start is None else start.cap(now)
        state = BreakerState.CLOSED
        if breaker is not None:
            cap, state = 1, breaker.state
        if known and cap != maxsize:
            self._catalogue.on_probation[agent.uid] = agent
        else:
            self._catalogue.on_probation.pop(agent.uid, None)
        if not known or (agent.cap == cap and agent.breaker is state):
            return

        def held_back(agent: AgentRecord) -> None:
            agent.cap, agent.breaker = cap, state

        self._fleet.change(agent, now, held_back)

    def _held(self, pool: Key) -> int:
        """Return how many of the pool's ready agents have a breaker that is not closed."""
        return sum(breaker.pool == pool and breaker.agent.serving for breaker in self._breakers.values())

    def _ready_of(self, pool: Key) -> int:
        known = self._ready.get(pool)
        if known is None or known.version != self._fleet.version:
            ready = sum(agent.serving for agent in self._fleet.members(pool).agents.values())
            known = self._ready[pool] = _Ready(self._fleet.version, ready)
        return known.agents

    def _let_go(self, now: float) -> None:
        """Forget agents that are gone; close breakers where too many are open, those first that opened least often."""
        agents = self._fleet.agents
        for uid in [uid for uid, start in self._starts.items() if agents.get(uid) is not start.agent]:
            del self._starts[uid]
            self._catalogue.on_probation.pop(uid, None)
        for uid in [uid for uid, breaker in self._breakers.items() if agents.get(uid) is not breaker.agent]:
            del self._breakers[uid]
            self._catalogue.on_probation.pop(uid, None)
        for key in sorted({breaker.pool for breaker in self._breakers.values()}):
            pool = self._catalogue.pools.get(key)
            if pool is None or pool.breaker is None:
                continue
            over = self._held(key) - most_open(pool.breaker, self._ready_of(key))
            if over > 0:
                least = sorted(
                    (breaker for breaker in self._breakers.values() if breaker.pool == key and breaker.agent.serving),
                    key=lambda breaker: (breaker.times, breaker.since, breaker.agent.uid),
                )
                for breaker in least[:over]:
                    self._close(breaker, "too few other agents of its pool are ready", now)
