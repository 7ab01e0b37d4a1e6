"""The strategies themselves, each with its source.

Those that rank: the class of the best rank that has room, and in it the least busy agent or the fullest. Those that
take turns, draw lots or hash: single agents, `MOST_AGENTS` at most. Ties go to the least cumulative busy time, then to
the uid. Refuses to know who may run what.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from math import ceil
from typing import Final

from taskdist.api import Strategy
from taskdist.core.agents.filters import label
from taskdist.core.agents.rings import HashRing, Roll, around, round_from
from taskdist.core.agents.roster import AgentClass, AgentRecord, HeapAgent, Roster
from taskdist.core.model import REGION, ZONE, Key, Pool
from taskdist.core.placement.strategies import MOST_AGENTS, Ask, Picker, draws, least_busy
from taskdist.core.primitives.hashing import hashed

# How far above the average an agent of a ring may be filled. Keys move by O(1 ÷ ε²) of the ideal for a bound of 1 + ε.
BOUND: Final = 1.25


class Adaptive(Picker):
    """Least expected completion, then fewest scarce skills, then least busy, then least busy time so far, then uid.

    Expected completion is the class's pace in steps of a fifth: nobody waits for a busy agent, so the time that a Task
    takes there is all of it.
    """

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        agent = ask.profile.among(ask.rosters, ask.shape, ask.left)
        return agent, agent.busy / agent.slots


class LeastLoaded(Picker):
    """The least busy fraction of slots: join the shortest queue (Winston, "Optimality of the shortest line
    discipline", J. Appl. Prob. 14, 1977), among agents that need not queue."""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        busy, agent = least_busy(ask.rosters)
        return agent, busy


class Ranked(Picker):
    """Strategies that rank agents by their class, lowest first. Of equals they take the least busy, or the fullest."""

    fullest = False

    def prepare(self, ask: Ask) -> None:
        """Look at all candidates before the first rank is asked."""

    @abstractmethod
    def rank(self, agent: AgentRecord, kind: AgentClass, ask: Ask) -> float:
        """Return the rank of the class, from which this agent would be taken."""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        self.prepare(ask)
        best: HeapAgent | None = None
        least, first = 0.0, 0.0
        for roster in ask.rosters:
            entry = roster.fullest(ask.slots) if self.fullest else roster.best()
            busy = entry.agent.busy / roster.slots
            rank, busy = self.rank(entry.agent, roster.kind, ask), -busy if self.fullest else busy
            if best is None or (rank, busy, entry) < (least, first, best):
                best, least, first = entry, rank, busy
        assert best is not None, "nobody has room"
        return best.agent, least


class Pack(Ranked):
    """The fullest agent that has room: best fit (Johnson et al., "Worst-case performance bounds for simple
    one-dimensional packing algorithms", SIAM J. Comput. 3, 1974). Room for large Tasks stays whole, others fall idle.
    """

    fullest = True

    def rank(self, agent: AgentRecord, _kind: AgentClass, _ask: Ask) -> float:
        return -agent.busy / agent.slots

    def words(self, agent: AgentRecord, _score: float) -> str:
        return f"the fullest with room, {agent.busy} of {agent.slots} slots busy"


class Spread(Ranked):
    """The zone whose slots are least busy, and in it the least busy agent: losing a zone costs as little as can be
    (Kubernetes, "Pod topology spread constraints")."""

    def __init__(self) -> None:
        self._loads: dict[str, float] = {}

    def prepare(self, ask: Ask) -> None:
        slots: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        for roster in ask.competing:
            kind = roster.kind
            zone = label(kind.offer, ZONE) or ""
            slots[zone] += kind.open * kind.offer.slots
            taken[zone] += kind.busy_slots
        self._loads = {zone: taken[zone] / most for zone, most in slots.items() if most}

    def rank(self, _agent: AgentRecord, kind: AgentClass, _ask: Ask) -> float:
        return self._loads[label(kind.offer, ZONE) or ""]

    def words(self, _agent: AgentRecord, score: float) -> str:
        return f"{score:.0%} of its zone's slots are busy"


class BestPerforming(Ranked):
    """The class with the least observed service time beside what is expected of the type; then the least busy.

    Weighting servers by their rate is the fastest-server-first rule (Armony, "Dynamic routing in large-scale service
    systems with heterogeneous servers", Queueing Systems 51, 2005).
    """

    def rank(self, _agent: AgentRecord, kind: AgentClass, _ask: Ask) -> float:
        return kind.judged

    def words(self, _agent: AgentRecord, score: float) -> str:
        return f"its like take {score:.2f} times as long as expected of the type"


class ZoneAware(Ranked):
    """The nearest zone with room, in the order of the Task's zones, then of its regions; there the least busy agent.

    Spills as soon as the nearer ones are full: with c local slots and a local load of a, the part that spills is
    Erlang's loss formula B(c, a) (Erlang, 1917).
    """

    def rank(self, _agent: AgentRecord, kind: AgentClass, ask: Ask) -> float:
        placement = ask.task.placement
        if placement is None:
            return 0.0
        zone = _nearness(label(kind.offer, ZONE), placement.zones)
        region = _nearness(label(kind.offer, REGION), placement.regions)
        return float(zone * (1 + len(placement.regions)) + region)

    def words(self, _agent: AgentRecord, score: float) -> str:
        return "in the nearest zone" if score <= 0.0 else f"nearer zones are full, {score:g} further off"


def _nearness(place: str | None, allowed: tuple[str, ...]) -> int:
    return allowed.index(place) if place in allowed else len(allowed)


class _Priced(Ranked):
    """Strategies that rank by what a pool tells of its agents."""

    fullest = True

    def __init__(self, pools: Mapping[Key, Pool]) -> None:
        self._pools = pools


class Cost(_Priced):
    """The least cost of the Task: costPerHour of the slots that it takes × how long its class takes; then the fullest.

    Expensive agents fall idle first, so that an elastic pool lets them go.
    """

    def rank(self, _agent: AgentRecord, kind: AgentClass, ask: Ask) -> float:
        pool = self._pools.get(kind.offer.pool)
        return 0.0 if pool is None else pool.cost_per_hour / kind.offer.slots * ask.slots * kind.judged

    def words(self, _agent: AgentRecord, score: float) -> str:
        return f"its slots cost least for the Task, {score:g} an hour of expected service"


class Energy(_Priced):
    """The least energy for the Task: the watts that its slots add, and the idle watts of an agent that would else go.

    Power rises from idle to busy in a straight line with the slots taken (Barroso and Hölzle, "The case for
    energy-proportional computing", IEEE Computer 40, 2007), so that work belongs on few agents.
    """

    def rank(self, agent: AgentRecord, kind: AgentClass, ask: Ask) -> float:
        pool = self._pools.get(kind.offer.pool)
        if pool is None:
            return 0.0
        watts = (pool.watts_busy - pool.watts_idle) / kind.offer.slots * ask.slots
        if pool.elastic and not agent.leases:
            watts += pool.watts_idle
        return watts * kind.judged

    def words(self, _agent: AgentRecord, score: float) -> str:
        return f"the Task adds {score:g} W there, the least of all"


# Turns.


def _rolls(rosters: list[Roster]) -> list[Roll]:
    found: list[Roll] = []
    for roster in rosters:
        kind = roster.kind
        if kind.roll is None:
            kind.roll = Roll(kind.members)
        found.append(kind.roll)
    return found


def _find(rosters: list[Roster], uid: str) -> AgentRecord:
    for roster in rosters:
        agent = roster.kind.members.get(uid)
        if agent is not None:
            return agent
    raise AssertionError("a roll names an agent that is no member")


def _following(ask: Ask, last: str) -> Iterator[AgentRecord]:
    """Yield the next `MOST_AGENTS` agents after the last one, by uid and around."""
    for uid in islice(round_from(_rolls(ask.rosters), last), MOST_AGENTS):
        yield _find(ask.rosters, uid)


class RoundRobin(Picker):
    """The next agent by uid, after the one that was picked last, that has room (Kleinrock, "Analysis of a time-shared
    processor", 1964). After more than `MOST_AGENTS` full ones in a row: the least busy of all."""

    def __init__(self) -> None:
        self._last = ""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        for number, agent in enumerate(_following(ask, self._last)):
            if ask.fits(agent):
                self._last = agent.uid
                return agent, float(number)
        _, agent = least_busy(ask.rosters)
        self._last = agent.uid
        return agent, float(MOST_AGENTS)

    def words(self, _agent: AgentRecord, score: float) -> str:
        return "next in turn" if score <= 0.0 else f"next in turn with room, after {score:g} without"


class SmoothWeighted(Picker):
    """Agents in proportion to their slots, as evenly as can be: each is owed its part of every pick, and of those that
    are owed at least 1 ÷ (2n − 2) the one goes first that would be owed 1 less that first.

    That is Tijdeman's rule ("The chairman assignment problem", Discrete Mathematics 32, 1980): counted from the first
    pick, no agent strays from its exact part by more than 1 − 1 ÷ (2n − 2) picks, so by less than two in any window.
    nginx's smooth weighted round robin is its cousin without that bound. Of more than `MOST_AGENTS` agents with room,
    so many at a time, by uid and around.
    """

    def __init__(self) -> None:
        self._owed: dict[str, float] = {}
        self._last = ""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        met = list(_following(ask, self._last))
        if len(met) == MOST_AGENTS:
            self._last = met[-1].uid
        found = [agent for agent in met if ask.fits(agent)]
        if not found:
            _, agent = least_busy(ask.rosters)
            return agent, 0.0
        kinds = [roster.kind for roster in ask.competing]
        if len(self._owed) > 16 * MOST_AGENTS + 2 * sum([len(kind.members) for kind in kinds]):
            # Most are of agents that are no more.
            known = [kind.members for kind in kinds]
            self._owed = {uid: owed for uid, owed in self._owed.items() if any(uid in each for each in known)}
        whole = float(sum([agent.slots for agent in found]))
        least = 1.0 / (2 * len(found) - 2) if len(found) > 1 else 0.0
        best: tuple[bool, float, float, str] | None = None
        chosen = found[0]
        for agent in found:
            part = agent.slots / whole
            owed = self._owed[agent.uid] = self._owed.get(agent.uid, 0.0) + part
            # What agents that come and go leave behind may owe nobody anything.
            due = (owed < least - 1e-9, (1.0 - least - owed) / part, agent.weight, agent.uid)
            if best is None or due < best:
                best, chosen = due, agent
        owed = self._owed[chosen.uid]
        self._owed[chosen.uid] = owed - 1.0
        return chosen, owed

    def words(self, agent: AgentRecord, score: float) -> str:
        return f"it was owed {score:.2f} of a turn by its {agent.slots} slots"


# Lots.


def _lot(ask: Ask, number: int) -> AgentRecord:
    """Return one of the agents with room, each as likely as the others."""
    chance = draws(ask.task, number)
    many = [roster.roomy(ask.slots) for roster in ask.rosters]
    at = chance % sum(many)
    for roster, agents in zip(ask.rosters, many, strict=True):
        if at < agents:
            return roster.draw(ask.slots, hashed(ask.task.uid, str(chance)))
        at -= agents
    raise AssertionError("nobody has room")


class Random(Picker):
    """Any agent with room, each as likely as the others: a hash of the Task's uid and attempt decides."""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        return _lot(ask, 0), 0.0

    def words(self, _agent: AgentRecord, _score: float) -> str:
        return "drawn by lot"


class PowerOfTwo(Picker):
    """The less busy of two that are drawn by lot (Mitzenmacher, "The power of two choices in randomized load
    balancing", IEEE TPDS 12, 2001)."""

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        two = [_lot(ask, number) for number in (1, 2)]
        agent = min(two, key=lambda each: (each.busy / each.slots, each.weight, each.uid))
        return agent, agent.busy / agent.slots

    def words(self, agent: AgentRecord, _score: float) -> str:
        return f"the less busy of two drawn by lot, {agent.busy} of {agent.slots} slots busy"


class ConsistentHash(Picker):
    """The key's home on a ring of agents; if that is full or filled beyond its bound, the next on the ring at once.

    The bound is ⌈`BOUND` × the busy part of all slots × its own slots⌉ (Mirrokni, Thorup and Zadimoghaddam,
    "Consistent hashing with bounded loads", SODA 2018). Past `MOST_AGENTS` agents, the first with room that was met,
    and the least busy if there was none. The key is the Task's stickyKey, or its type.
    """

    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        task = ask.task
        taken = ask.slots + sum([roster.kind.busy_slots for roster in ask.competing])
        slots = sum([roster.kind.open * roster.kind.offer.slots for roster in ask.competing])
        part = BOUND * taken / slots
        point = hashed(task.type if task.sticky_key is None else task.sticky_key)
        seen: set[str] = set()
        roomy: AgentRecord | None = None
        for uid in around(_rings(ask.rosters), point):
            if uid in seen:
                continue
            seen.add(uid)
            agent = _find(ask.rosters, uid)
            if ask.fits(agent):
                if agent.busy + ask.slots <= ceil(part * agent.slots):
                    return agent, float(len(seen) - 1)
                roomy = roomy or agent
            if len(seen) == MOST_AGENTS:
                break
        if roomy is None:
            _, roomy = least_busy(ask.rosters)
        return roomy, float(len(seen))

    def words(self, _agent: AgentRecord, score: float) -> str:
        return "home of its key" if score <= 0.0 else f"{score:g} on from its key's home, which is full or at its bound"


def _rings(rosters: list[Roster]) -> list[HashRing]:
    found: list[HashRing] = []
    for roster in rosters:
        kind = roster.kind
        if kind.ring is None:
            kind.ring = HashRing([(agent.uid, agent.name) for agent in kind.members.values()])
        found.append(kind.ring)
    return found


def picker(strategy: Strategy, pools: Mapping[Key, Pool]) -> Picker:
    """Make the strategy of this name."""
    match strategy:
        case Strategy.ROUND_ROBIN:
            return RoundRobin()
        case Strategy.SMOOTH_WEIGHTED:
            return SmoothWeighted()
        case Strategy.LEAST_LOADED | Strategy.AFFINITY:
            return LeastLoaded()
        case Strategy.RANDOM:
            return Random()
        case Strategy.POWER_OF_TWO:
            return PowerOfTwo()
        case Strategy.CONSISTENT_HASH:
            return ConsistentHash()
        case Strategy.SPREAD:
            return Spread()
        case Strategy.PACK:
            return Pack()
        case Strategy.PERFORMANCE:
            return BestPerforming()
        case Strategy.ZONE_AWARE:
            return ZoneAware()
        case Strategy.COST:
            return Cost(pools)
        case Strategy.ENERGY:
            return Energy(pools)
        case _:
            return Adaptive()
