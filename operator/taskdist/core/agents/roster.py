"""The agents with room, in the order in which they are to be chosen.

Owns who is free and who is least loaded: by busy fraction, then by busy time per slot so far, then by uid.
Refuses to know Tasks beyond the slots and resources they take.
"""

from collections import OrderedDict
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from math import inf, log
from sys import maxsize
from typing import Final

from taskdist.api import BreakerState
from taskdist.core.agents.circuit_breaker import Evidence
from taskdist.core.agents.filters import Offer
from taskdist.core.agents.performance import PACE_MEMORY, PACE_STEP, TO_JUDGE, TYPES_OF_ONE, Conduct, Track, nine_in_ten
from taskdist.core.agents.rings import HashRing, Roll
from taskdist.core.model import Agent, Key, Trouble
from taskdist.core.primitives.hashing import scatter
from taskdist.core.primitives.service_times import Estimate

# The penalty in rank for each step by which an attempt is expected to end late.
LATE_PENALTY: Final = 1_000_000
# The attempts after which the mean of a class's pace counts.
PACES_TO_JUDGE: Final = 20

Resources = tuple[tuple[str, int], ...]
# The queue and type of a Task.
Work = tuple[Key, str]


class Lease:
    """What one attempt holds of its agent, and when it is expected to end (`ends`, as of its grant)."""

    __slots__ = ("ends", "resources", "slots", "uid")

    def __init__(self, ends: float, uid: str, slots: int, resources: Resources) -> None:
        self.ends = ends
        self.uid = uid
        self.slots = slots
        self.resources = resources


class Departure(Enum):
    """Whether an agent is to go, and how far that has come."""

    STAYS = auto()
    DRAINING = auto()  # it was chosen to go
    DRAINED = auto()  # it has been told, and holds nothing
    DELETING = auto()  # the deletion of its pod was decided


class Availability(Enum):
    """Which Tasks may take the free slots of an agent that serves."""

    FOR_ALL = auto()
    RESERVED = auto()  # one that needs much room at once, and what ends before it starts
    RESTING = auto()  # none as long as others have room: its pool could do without it


# Named once: compiled code finds a constant at once, the member of a class by asking the class.
STAYS: Final = Departure.STAYS
DRAINING: Final = Departure.DRAINING
DRAINED: Final = Departure.DRAINED
DELETING: Final = Departure.DELETING
FOR_ALL: Final = Availability.FOR_ALL
RESERVED: Final = Availability.RESERVED
RESTING: Final = Availability.RESTING
CLOSED: Final = BreakerState.CLOSED
OPEN: Final = BreakerState.OPEN


class AgentRecord:
    """An agent and its pod, as far as either is known: the one may be seen before the other."""

    __slots__ = (
        "availability",
        "breaker",
        "busy",
        "busy_seconds",
        "cap",
        "conduct",
        "created",
        "departure",
        "enrolled",
        "evidence",
        "gone",
        "home",
        "idle_since",
        "kind",
        "leases",
        "name",
        "namespace",
        "open_in",
        "outdated",
        "pod_seen",
        "pool",
        "ready",
        "reported",
        "resources_free",
        "rosters",
        "since",
        "slots",
        "soonest",
        "stamp",
        "starting",
        "template",
        "trouble",
        "uid",
        "warm",
        "weight",
    )

    def __init__(self, uid: str, now: float) -> None:
        self.uid = uid
        self.namespace = ""
        self.name = ""
        # Its pool, and that with its agents.
        self.pool: Key | None = None
        self.home: PoolMembers | None = None
        self.created = now
        # What its pod was made from; `outdated`: its pool's agents are made from something else by now.
        self.template = ""
        self.outdated = False
        self.pod_seen = False
        self.gone = False
        self.ready = False
        self.departure = STAYS
        self.availability = FOR_ALL
        # Its pod was seen from its creation on: when it is ready, that tells how long agents take to start.
        self.starting = False
        # What keeps its pod from coming up; says nothing while it is ready.
        self.trouble: Trouble | None = None
        self.breaker = CLOSED
        # It takes a further Task only while fewer of its slots are busy. `warm`: it was ready before, in this life of
        # the core.
        self.cap = maxsize
        self.warm = False
        # What was seen of it, and what its breaker is judged by; None before its first attempt ended.
        self.conduct: Conduct | None = None
        self.evidence: Evidence | None = None
        self.reported: Agent | None = None
        # Of the offer; 0 while there is none.
        self.slots = 0
        self.kind: AgentClass | None = None
        # Under which namespace and name it is enrolled.
        self.enrolled: Key | None = None
        # The class that counts it as open.
        self.open_in: AgentClass | None = None
        # What it holds, and when the first of that is expected to end.
        self.leases: dict[str, Lease] = {}
        self.soonest = inf
        self.busy = 0
        self.resources_free: dict[str, int] = {}
        # Busy time per slot up to `since`, in seconds; `weight` orders agents of the same busy fraction.
        self.busy_seconds = 0.0
        self.since = now
        self.idle_since = now
        self.weight = 0.0
        self.stamp = 0
        self.rosters: list[Roster] = []

    @property
    def open(self) -> bool:
        """Whether new work may go there."""
        return self.serving and self.availability is FOR_ALL and self.breaker is not OPEN

    @property
    def serving(self) -> bool:
        """Whether it is ready and stays."""
        return self.ready and self.departure is STAYS and not self.gone

    @property
    def reservable(self) -> bool:
        """Whether it can be reserved."""
        return self.serving and self.breaker is not OPEN and self.cap >= self.slots

    @property
    def counted(self) -> bool:
        """Whether it counts towards the pool's size: its pod exists and stays."""
        return (self.pod_seen or self.ready) and not self.gone and self.departure is STAYS

    @property
    def failing(self) -> bool:
        """Whether its pod does not come up."""
        return self.trouble is not None and not self.ready

    @property
    def leaving(self) -> bool:
        """Whether it was chosen to go and may yet be kept."""
        return self.departing and self.departure is not DELETING and not self.gone

    @property
    def departing(self) -> bool:
        """Whether it was chosen to go."""
        return self.departure is not STAYS

    @property
    def reserved(self) -> bool:
        return self.availability is RESERVED

    @property
    def resting(self) -> bool:
        return self.availability is RESTING

    def book_busy_time(self, now: float) -> None:
        """Book its busy time until now. Called before `busy` changes, or what it reports."""
        if now > self.since:
            if self.busy and self.slots:
                self.busy_seconds += (now - self.since) * self.busy / self.slots
            self.since = now

    def fits(self, wanted: tuple[tuple[str, int], ...]) -> bool:
        if not wanted:
            return True
        free = self.resources_free
        return all(free.get(name, 0) >= amount for name, amount in wanted)


class HeapAgent:
    """An agent in a roster, as it stood when it was entered. It is dead once the agent has another stamp."""

    __slots__ = ("agent", "stamp", "weight")

    def __init__(self, agent: AgentRecord) -> None:
        self.agent = agent
        self.weight = agent.weight
        self.stamp = agent.stamp

    @property
    def live(self) -> bool:
        return self.agent.stamp == self.stamp

    def __lt__(self, other: "HeapAgent") -> bool:
        if self.weight != other.weight:
            return self.weight < other.weight
        mine, theirs = self.agent.uid, other.agent.uid
        return mine < theirs if mine != theirs else self.stamp < other.stamp


# The most draws from a bucket before its live entries are counted. At most two thirds of its entries are dead.
DRAWS: Final = 24


class Roster:
    """The open agents of one class that have some named resources free, in buckets by busy slots.

    All agents of a class have as many slots, so the lowest bucket holds both the least loaded agents and those
    with the most room. Agents in a bucket gather busy time at one rate: their order does not change as time goes.
    """

    __slots__ = ("_buckets", "_live", "_occupied", "kind", "leaf", "masks", "resources", "room", "servable", "slots")

    def __init__(self, kind: "AgentClass", resources: tuple[tuple[str, int], ...], leaf: int) -> None:
        self.kind = kind
        self.slots = kind.offer.slots
        self.resources = resources
        self.leaf = leaf
        # By number of free slots: the profiles that such an agent can serve.
        self.masks = [0] * (self.slots + 1)
        self._buckets: list[list[HeapAgent]] = [[] for _ in range(self.slots)]
        self._live = [0] * self.slots
        self._occupied = 0
        # The most free slots that any of its agents has; the profiles that it could take a Task of now.
        self.room = 0
        self.servable = 0

    def _show(self, occupied: int) -> None:
        """Note which buckets hold agents, as bits, and what follows from it."""
        self._occupied = occupied
        self.room = self.slots + 1 - (occupied & -occupied).bit_length() if occupied else 0
        self.servable = self.masks[self.room]

    def attach(self, profile: int, slots: int) -> None:
        for free in range(slots, self.slots + 1):
            self.masks[free] |= 1 << profile
        self._show(self._occupied)

    def detach(self, profile: int) -> None:
        self.masks = [mask & ~(1 << profile) for mask in self.masks]
        self._show(self._occupied)

    def join(self, agent: AgentRecord) -> None:
        """Enter the agent where it belongs now, if it has room."""
        busy = agent.busy
        if busy >= self.slots or busy >= agent.cap or (self.resources and not agent.fits(self.resources)):
            return
        bucket, live = self._buckets[busy], self._live[busy]
        if len(bucket) > 8 + 2 * live:
            bucket[:] = [entry for entry in bucket if entry.live]
            heapify(bucket)
        heappush(bucket, HeapAgent(agent))
        self._live[busy] = live + 1
        agent.rosters.append(self)
        if not live:
            self._show(self._occupied | 1 << busy)

    def leave(self, busy: int) -> None:
        """Count out an agent that was entered at this many busy slots. Its entry is dead by its stamp."""
        live = self._live[busy] = self._live[busy] - 1
        if not live:
            self._buckets[busy].clear()
            self._show(self._occupied & ~(1 << busy))

    def best(self) -> HeapAgent:
        """Return the entry of the agent to choose, which is the least busy. The roster must not be empty."""
        return self._first(self.slots - self.room)

    def fullest(self, slots: int) -> HeapAgent:
        """Return the entry of the busiest agent that still has so many slots free; of several that are as busy, the
        one with the least busy time. There must be one."""
        return self._first((self._occupied & ((1 << (self.slots - slots + 1)) - 1)).bit_length() - 1)

    @property
    def busy(self) -> float:
        """The busy fraction of its least busy agents."""
        return (self.slots - self.room) / self.slots

    def goes_before(self, busy: float, entry: HeapAgent) -> bool:
        """Whether its best agent is to be chosen before one of another roster that is busy so far."""
        mine = self.busy
        return mine < busy or (mine == busy and self.best() < entry)

    def _first(self, busy: int) -> HeapAgent:
        bucket = self._buckets[busy]
        while not bucket[0].live:
            heappop(bucket)
        return bucket[0]

    def roomy(self, slots: int) -> int:
        """Return how many of its agents have this many slots free."""
        return sum(self._live[: self.slots - slots + 1])

    def draw(self, slots: int, chance: int) -> AgentRecord:
        """Return a random agent with this many slots free: all are as likely where `chance` is evenly spread."""
        left = chance % self.roomy(slots)
        chance //= self.roomy(slots)
        for busy in range(self.slots - slots + 1):
            live = self._live[busy]
            if left >= live:
                left -= live
                continue
            bucket = self._buckets[busy]
            for _ in range(DRAWS):
                entry = bucket[chance % len(bucket)]
                if entry.live:
                    return entry.agent
                chance = scatter(chance)
            return sorted([entry for entry in bucket if entry.live])[left].agent
        raise AssertionError("no agent of the roster has room")

    def agents(self) -> list[AgentRecord]:
        """Return its agents, in no particular order."""
        return [entry.agent for bucket in self._buckets for entry in bucket if entry.live]


class AgentClass:
    """Agents that no filter can tell apart. `members` are all whose offer is known, ready or not.

    `open` counts those that new work may go to, `busy_slots` the busy ones among their slots.
    """

    __slots__ = (
        "_paces",
        "busy_slots",
        "members",
        "number",
        "offer",
        "open",
        "pace",
        "ring",
        "roll",
        "rosters",
        "swiftness",
        "tracks",
    )

    def __init__(self, number: int, offer: Offer) -> None:
        self.number = number
        self.offer = offer
        self.members: dict[str, AgentRecord] = {}
        self.open = 0
        self.busy_slots = 0
        self.rosters: dict[Resources, Roster] = {}
        # How long its agents take, as a multiple of what is expected of the type over all agents, on average; and that
        # in steps of a fifth, so that classes as good as alike are not told apart by chance.
        self.pace = 1.0
        self.swiftness = 0
        self._paces = 0
        # By what Tasks do: the same, of each.
        self.tracks: OrderedDict[Work, Track] = OrderedDict()
        # Its members in order, kept from when a strategy first asks for it.
        self.roll: Roll | None = None
        self.ring: HashRing | None = None

    def join(self, agent: AgentRecord) -> None:
        self.members[agent.uid] = agent
        if self.roll is not None:
            self.roll.add(agent.uid)
        if self.ring is not None:
            self.ring.add(agent.uid, agent.name)

    def leave(self, agent: AgentRecord) -> None:
        del self.members[agent.uid]
        if self.roll is not None:
            self.roll.remove(agent.uid)
        if self.ring is not None:
            self.ring.remove(agent.uid)

    @property
    def judged(self) -> float:
        """Its pace; 1 before there are enough attempts to judge by."""
        return self.pace if self._paces >= PACES_TO_JUDGE else 1.0

    def observed(self, work: Work, seconds: float, ratio: float) -> None:
        """Add an attempt: its seconds, and their ratio to what was expected of the type."""
        track = self.tracks.get(work)
        if track is None:
            if len(self.tracks) >= TYPES_OF_ONE:
                self.tracks.popitem(last=False)
            track = self.tracks[work] = Track()
        else:
            self.tracks.move_to_end(work)
        track.add(seconds, ratio)
        self._paces = min(self._paces + 1, PACE_MEMORY)
        self.pace += (ratio - self.pace) / self._paces
        if self._paces >= PACES_TO_JUDGE:
            self.swiftness = round(log(self.pace) / PACE_STEP) if self.pace > 0 else -1000

    def rank(self, work: Work, known: Estimate | None, left: float) -> int:
        """Order classes for Tasks of this queue and type that have to end in `left` seconds: lower is better.

        `left` is infinite for those without a deadline, `known` is what such Tasks take over all agents.

        Where nine attempts in ten end in time goes before where they do not, those nearer to it before those farther
        off, in steps of a fifth; else the swifter at the type. A deadline that is over decides nothing. A class of
        which too little is known is taken to be in time, so that it is tried.
        """
        track = self.tracks.get(work)
        swiftness = track.swiftness if track is not None and track.sure else self.swiftness
        if left == inf or left <= 0.0:
            return swiftness
        if track is not None and track.seconds.count >= TO_JUDGE:
            long = nine_in_ten(track.seconds.mean, track.seconds.variance)
        elif self._paces >= PACES_TO_JUDGE and known is not None and known.count >= TO_JUDGE:
            long = nine_in_ten(known.mean, known.variance) * self.pace
        else:
            return swiftness
        return swiftness if long <= left else swiftness + LATE_PENALTY * (1 + round(log(long / left) / PACE_STEP))


class PoolMembers:
    """The agents and pods of one pool. `counted` is how many are there to stay."""

    __slots__ = ("agents", "busy", "counted", "draining", "failing", "idle", "outdated", "ready", "resting")

    def __init__(self) -> None:
        self.agents: dict[str, AgentRecord] = {}
        self.busy = 0
        self.counted = 0
        # Of those, how many are ready.
        self.ready = 0
        # Counted ones that hold nothing.
        self.idle: dict[str, AgentRecord] = {}
        # Counted ones whose pods do not come up.
        self.failing: dict[str, AgentRecord] = {}
        # Counted ones that are to be replaced.
        self.outdated: dict[str, AgentRecord] = {}
        # Counted ones that get nothing new as long as the others have room.
        self.resting: dict[str, AgentRecord] = {}
        # Those that were chosen to go and whose deletion was not decided yet.
        self.draining: dict[str, AgentRecord] = {}
