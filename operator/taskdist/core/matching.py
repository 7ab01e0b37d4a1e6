"""Who may serve whom: equivalence classes of Tasks and of agents, and which of the one fit which of the other.

Owns three kinds of interned classes. A `Shape` is all Tasks that no rule can tell apart but by order. An
`AgentClass` is all agents that no filter can tell apart. A `Profile` is all shapes that the same agent classes serve
and that take the same room, so that one bit says whether any of them can be placed. Each pair is tried against the
filters once. Refuses to know which Tasks wait in which order, or which agents are free.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

from taskdist.api import Reason, Strategy
from taskdist.core.filters import Need, Offer, need_of, offer_of, prospective, refusal, tasks_at_once
from taskdist.core.model import EMERGENCY, REGION, ZONE, Agent, Key, Placement, Pool, Queue, Task
from taskdist.core.order import is_emergency
from taskdist.core.rings import HashRing, Roll
from taskdist.core.roster import AgentRecord, Roster

if TYPE_CHECKING:
    from taskdist.core.estimates import Estimate
    from taskdist.core.waiting import Line

# The mean of a class's pace is that of so many attempts lately, and is not believed before so many.
PACE_MEMORY = 1000
PACES_TO_JUDGE = 20
_STEP = log(1.2)

Resources = tuple[tuple[str, int], ...]
# Pools that could serve waiting Tasks if they grew, first choice first, with how many one new agent runs at once.
Candidates = tuple[tuple[Key, int], ...]


class Demand:
    """Eligible Tasks that wait for room in the same pools, without those that a limit holds."""

    __slots__ = ("candidates", "shapes", "tasks")

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.tasks = 0
        self.shapes = 0


class AgentClass:
    """Agents that no filter can tell apart. `members` are those whose offer is known, ready or not.

    `open` counts those that new work may go to, `taken` the busy ones among their slots.
    """

    __slots__ = (
        "_paces",
        "members",
        "number",
        "offer",
        "open",
        "pace",
        "ring",
        "roll",
        "rosters",
        "swiftness",
        "taken",
    )

    def __init__(self, number: int, offer: Offer) -> None:
        self.number = number
        self.offer = offer
        self.members: dict[str, AgentRecord] = {}
        self.open = 0
        self.taken = 0
        self.rosters: dict[Resources, Roster] = {}
        # How long its agents take, as a multiple of what is expected of the type over all agents, on average; and that
        # in steps of a fifth, so that classes as good as alike are not told apart by chance.
        self.pace = 1.0
        self.swiftness = 0
        self._paces = 0
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
        """Its pace as far as it is believed."""
        return self.pace if self._paces >= PACES_TO_JUDGE else 1.0

    def observed(self, ratio: float) -> None:
        """An attempt took so many times as long as expected."""
        self._paces = min(self._paces + 1, PACE_MEMORY)
        self.pace += (ratio - self.pace) / self._paces
        if self._paces >= PACES_TO_JUDGE:
            self.swiftness = round(log(self.pace) / _STEP) if self.pace > 0 else -1000


class Census:
    """Which skills Tasks ask for, and how often classes got other members: what tells which skills are scarce."""

    __slots__ = ("asked", "version")

    def __init__(self) -> None:
        self.asked: frozenset[str] = frozenset()
        self.version = 0


class Profile:
    """Shapes that the same agent classes serve and that take the same room."""

    __slots__ = ("_census", "_counted", "_several", "key", "number", "rosters", "scarcity", "shapes", "slots")

    def __init__(self, number: int, key: "ProfileKey", rosters: list[Roster], census: Census) -> None:
        self.number = number
        self.key = key
        self.slots = key[1]
        self.rosters = rosters
        self.shapes = 0
        self._census = census
        self._counted = -1
        # Whether its classes differ in their skills; what these are worth to others, by roster.
        self._several = any(roster.kind.offer.skills != rosters[0].kind.offer.skills for roster in rosters)
        self.scarcity: list[float] = [0.0] * len(rosters)

    def choose(self) -> AgentRecord:
        """Return the agent to take: swiftest class, fewest scarce skills, least busy, least busy time so far, uid.

        One must have room.
        """
        if self._several:
            return self._least(self.rosters)
        best: tuple[int, tuple[float, tuple[float, str, int, AgentRecord]]] | None = None
        for roster in self.rosters:
            if roster.room >= self.slots:
                swiftness = roster.kind.swiftness
                if best is None or swiftness <= best[0]:
                    found = (swiftness, roster.best())
                    if best is None or found < best:
                        best = found
        assert best is not None, "the mask of free profiles names one that no agent has room for"
        return best[1][1][3]

    def among(self, rosters: list[Roster]) -> AgentRecord:
        """Choose likewise among some of its rosters, which have room."""
        return self._least(rosters)

    def _least(self, rosters: list[Roster]) -> AgentRecord:
        if self._several and self._counted != self._census.version:
            self._weigh()
        some = len(rosters) < len(self.rosters)
        best: tuple[int, float, tuple[float, tuple[float, str, int, AgentRecord]]] | None = None
        for at, roster in enumerate(self.rosters):
            if roster.room >= self.slots and (not some or roster in rosters):
                swiftness, scarcity = roster.kind.swiftness, self.scarcity[at]
                if best is None or swiftness < best[0] or (swiftness == best[0] and scarcity <= best[1]):
                    found = (swiftness, scarcity, roster.best())
                    if best is None or found < best:
                        best = found
        assert best is not None, "the mask of free profiles names one that no agent has room for"
        return best[2][1][3]

    def _weigh(self) -> None:
        """A skill that Tasks ask for is as scarce as the part of the agents that lack it, of all that serve here."""
        self._counted = self._census.version
        agents = 0
        having: Counter[str] = Counter()
        for roster in self.rosters:
            members = len(roster.kind.members)
            agents += members
            for skill in roster.kind.offer.skills & self._census.asked:
                having[skill] += members
        for at, roster in enumerate(self.rosters):
            skills = sorted(roster.kind.offer.skills & self._census.asked)
            self.scarcity[at] = sum([1.0 - having[skill] / agents for skill in skills], 0.0) if agents else 0.0


# (agent classes that serve it, slots, resources)
ProfileKey = tuple[int, int, Resources]
# The last but two says whether its Tasks are emergencies: those may use any pool. The last, whether they wait for an
# agent that they prefer.
ShapeKey = tuple[Key, str | None, str, int, Resources, frozenset[str], tuple[object, ...], bool, Placement | None, bool]


class Shape:
    """Tasks that no rule can tell apart but by order."""

    __slots__ = (
        "candidates",
        "closed",
        "demand",
        "eligible",
        "estimate",
        "gated",
        "key",
        "lines",
        "need",
        "patient",
        "pool",
        "pools",
        "profile",
        "queue",
        "queue_key",
        "serving",
        "tasks",
    )

    def __init__(self, key: ShapeKey, need: Need) -> None:
        self.key = key
        self.queue_key: Key = key[0]
        self.pool = key[1]
        self.patient = key[9]
        # The queue's rules; the defaults if it is gone.
        self.queue = Queue(*key[0])
        self.need = need
        # Why none of its Tasks may run, whatever the agents.
        self.closed: Reason | None = None
        # Pools that exist and may serve it, in the queue's order.
        self.pools: tuple[Key, ...] = ()
        self.serving = 0
        self.profile: Profile | None = None
        self.candidates: Candidates = ()
        self.demand: Demand | None = None
        # What its Tasks' type takes, kept by whoever asked last: good until it is forgotten.
        self.estimate: Estimate | None = None
        # By band and tenant.
        self.lines: dict[tuple[int, str], Line] = {}
        # Tasks of this shape that wait: all, those that no gate of their own holds, and the others by what holds them.
        self.tasks = 0
        self.eligible = 0
        self.gated: Counter[Reason] = Counter()


class Catalogue:
    """The interned classes, kept right as queues, pools and agents come, change and go."""

    def __init__(
        self,
        rehome: Callable[[Shape, Profile | None], None],
        redirect: Callable[[Shape, Demand | None, Demand | None], None],
        resized: Callable[[Roster], None],
        relabelled: Callable[[], None],
    ) -> None:
        """`rehome(shape, profile)` puts a shape's Tasks under a profile, or under none while it is closed.
        `redirect(shape, former, demand)` counts them where they want room now.

        `resized(roster)` hears of rosters whose servable profiles may have changed. `relabelled()` enrols every agent
        anew, because selectors ask for a further label and agents that were alike may differ now.
        """
        self.queues: dict[Key, Queue] = {}
        self.pools: dict[Key, Pool] = {}
        self.shapes: dict[ShapeKey, Shape] = {}
        self.classes: dict[Offer, AgentClass] = {}
        self.profiles: dict[ProfileKey, Profile] = {}
        self.demands: dict[Candidates, Demand] = {}
        # Grows whenever a pool or the set of demands changes.
        self.version = 0
        self._by_number: dict[int, AgentClass] = {}
        self._by_queue: dict[Key, dict[ShapeKey, Shape]] = {}
        self._by_pool: dict[Key, dict[Offer, AgentClass]] = {}
        self._label_keys: set[str] = set()
        self._census = Census()
        self._rehome = rehome
        self._redirect = redirect
        self._resized = resized
        self._relabelled = relabelled
        self._free_classes: list[int] = []
        self._free_profiles: list[int] = []
        self._free_leaves: list[int] = []
        self._leaves = 0
        self._sweep_at = 1024
        self._sweep_classes_at = 256

    # Queues and pools.

    def queue(self, key: Key) -> Queue:
        """Return the queue's rules; defaults where it does not exist."""
        return self.queues.get(key) or Queue(*key)

    def apply_queue(self, queue: Queue) -> None:
        if self.queues.get(queue.key) != queue:
            self.queues[queue.key] = queue
            if queue.strategy is Strategy.SPREAD:
                self._look_at({ZONE})
            self._resolve_all(self._by_queue.get(queue.key, {}).values())

    def drop_queue(self, key: Key) -> None:
        if self.queues.pop(key, None) is not None:
            self._resolve_all(self._by_queue.get(key, {}).values())

    def apply_pool(self, pool: Pool) -> None:
        former = self.pools.get(pool.key)
        if former != pool:
            self.pools[pool.key] = pool
            self.version += 1
            alike = former is not None and (former.cost, former.quality) == (pool.cost, pool.quality)
            if not alike and self._by_pool.get(pool.key):
                self._relabelled()
            self._resolve_namespace(pool.namespace)

    def drop_pool(self, key: Key) -> None:
        if self.pools.pop(key, None) is not None:
            self.version += 1
            self._resolve_namespace(key[0])

    # Shapes.

    def shape_of(self, task: Task, relaxed: bool = False) -> Shape:
        """Return the Task's shape; `relaxed`: it has waited long enough for an agent that it prefers."""
        queue = (task.namespace, task.queue)
        placement = task.placement
        patient = placement is not None and not relaxed and placement.waits
        key = (
            queue,
            task.pool,
            task.type,
            task.slots,
            task.resources,
            task.skills,
            task.selector,
            task.priority >= EMERGENCY and is_emergency(self.queue(queue), task),
            placement,
            patient,
        )
        shape = self.shapes.get(key)
        if shape is None:
            if len(self.shapes) >= self._sweep_at:
                self._sweep()
            shape = self.shapes[key] = Shape(key, need_of(task, False, patient))
            self._by_queue.setdefault(shape.queue_key, {})[key] = shape
            self._look_at(_labels_asked(task))
            if not task.skills <= self._census.asked:
                self._census.asked |= task.skills
                self._census.version += 1
            self._resolve(shape)
        return shape

    def _look_at(self, labels: set[str]) -> None:
        """From now on these labels tell agents apart."""
        if not labels <= self._label_keys:
            self._label_keys |= labels
            self._relabelled()

    def _sweep(self) -> None:
        """Forget shapes without Tasks, so that the table follows what is there."""
        for shape in [shape for shape in self.shapes.values() if not shape.tasks]:
            self._place(shape, None)
            self._demand(shape, ())
            del self.shapes[shape.key]
            of_queue = self._by_queue[shape.queue_key]
            del of_queue[shape.key]
            if not of_queue:
                del self._by_queue[shape.queue_key]
        self._sweep_at = max(1024, 2 * len(self.shapes))

    def _resolve_all(self, shapes: Iterable[Shape]) -> None:
        for shape in list(shapes):
            self._resolve(shape)

    def _resolve_namespace(self, namespace: str) -> None:
        self._resolve_all(shape for shape in self.shapes.values() if shape.queue_key[0] == namespace)

    def _resolve(self, shape: Shape) -> None:
        """Work out anew what may serve the shape."""
        namespace = shape.queue_key[0]
        queue = self.queues.get(shape.queue_key)
        shape.queue = queue or Queue(*shape.queue_key)
        names = (shape.pool,) if shape.pool is not None else queue.pools if queue is not None else ()
        if shape.key[7] and shape.pool is None:
            names = (*names, *sorted(name for space, name in self.pools if space == namespace and name not in names))
        shape.pools = tuple(key for name in names if (key := (namespace, name)) in self.pools)
        shape.need = replace(shape.need, allows_unfenced=queue is not None and queue.allows_unfenced)
        shape.closed = (
            Reason.QUEUE_NOT_FOUND
            if queue is None
            else Reason.QUEUE_PAUSED
            if queue.paused
            else Reason.POOL_NOT_FOUND
            if not shape.pools
            else None
        )
        shape.serving = 0
        for pool in shape.pools:
            for kind in self._by_pool.get(pool, {}).values():
                if refusal(shape.need, kind.offer) is None:
                    shape.serving |= 1 << kind.number
        self._settle(shape)

    def _settle(self, shape: Shape) -> None:
        """Put the shape's Tasks where its state says."""
        self._place(shape, None if shape.closed else self._profile(shape))
        self._demand(shape, () if shape.closed else self._candidates(shape))

    def kinds(self, pool: Key) -> list[AgentClass]:
        """Return the classes of the pool's agents, without those that have no member now."""
        return [kind for kind in self._by_pool.get(pool, {}).values() if kind.members]

    def _candidates(self, shape: Shape) -> Candidates:
        """Pools where the Tasks lack nothing but room: judged by their agents, or by their word if none is known."""
        found: list[tuple[Key, int]] = []
        for key in shape.pools:
            pool = self.pools[key]
            kinds = self.kinds(key)
            if kinds:
                offers = [kind.offer for kind in kinds if shape.serving >> kind.number & 1]
            else:
                offer = prospective(pool)
                offers = [offer] if refusal(shape.need, offer) is None else []
            if offers:
                found.append((key, max(tasks_at_once(offer.slots, offer.resources, shape.need) for offer in offers)))
        return tuple(found)

    def _demand(self, shape: Shape, candidates: Candidates) -> None:
        if candidates == shape.candidates:
            return
        former, demand = shape.demand, None
        if candidates:
            demand = self.demands.get(candidates)
            if demand is None:
                demand = self.demands[candidates] = Demand(candidates)
                self.version += 1
            demand.shapes += 1
        self._redirect(shape, former, demand)
        shape.candidates, shape.demand = candidates, demand
        if former is not None:
            former.shapes -= 1
            if not former.shapes:
                del self.demands[former.candidates]
                self.version += 1

    def _place(self, shape: Shape, profile: Profile | None) -> None:
        former = shape.profile
        if profile is former:
            return
        if profile is not None:
            profile.shapes += 1
        self._rehome(shape, profile)
        shape.profile = profile
        if former is not None:
            former.shapes -= 1
            if not former.shapes:
                self._retire(former)

    # Profiles.

    def _profile(self, shape: Shape) -> Profile:
        key = (shape.serving, shape.need.slots, shape.need.resources)
        profile = self.profiles.get(key)
        if profile is None:
            number = self._free_profiles.pop() if self._free_profiles else len(self.profiles)
            kinds = [kind for kind in self._by_number.values() if shape.serving >> kind.number & 1]
            rosters = [self._roster(kind, shape.need.resources) for kind in kinds]
            profile = self.profiles[key] = Profile(number, key, rosters, self._census)
            for roster in rosters:
                roster.attach(number, profile.slots)
                self._resized(roster)
        return profile

    def _retire(self, profile: Profile) -> None:
        del self.profiles[profile.key]
        self._free_profiles.append(profile.number)
        for roster in profile.rosters:
            roster.detach(profile.number)
            self._resized(roster)
            if not roster.masks[-1]:
                self._disband(roster)

    def _roster(self, kind: AgentClass, resources: Resources) -> Roster:
        roster = kind.rosters.get(resources)
        if roster is None:
            if self._free_leaves:
                leaf = self._free_leaves.pop()
            else:
                leaf = self._leaves
                self._leaves += 1
            roster = kind.rosters[resources] = Roster(kind, resources, leaf)
            for agent in kind.members.values():
                if agent.open:
                    roster.join(agent)
        return roster

    def _disband(self, roster: Roster) -> None:
        for agent in roster.agents():
            agent.rosters.remove(roster)
        del roster.kind.rosters[roster.resources]
        self._free_leaves.append(roster.leaf)

    # Agents.

    def enrol(self, agent: AgentRecord) -> None:
        """Put the agent into the class of its offer. Its rosters must have been left before."""
        assert agent.offer is not None
        offer = self._project(agent.offer)
        if agent.kind is not None and agent.kind.offer == offer:
            return
        self.dismiss(agent)
        kind = self.classes.get(offer)
        if kind is None:
            if len(self.classes) >= self._sweep_classes_at:
                self._sweep_classes()
            number = self._free_classes.pop() if self._free_classes else len(self._by_number)
            kind = self.classes[offer] = self._by_number[number] = AgentClass(number, offer)
            self._by_pool.setdefault(offer.pool, {})[offer] = kind
            kind.join(agent)
            agent.kind = kind
            self._census.version += 1
            for shape in list(self.shapes.values()):
                if offer.pool in shape.pools:
                    if refusal(shape.need, offer) is None:
                        shape.serving |= 1 << kind.number
                    self._settle(shape)
            return
        agent.kind = kind
        kind.join(agent)
        self._census.version += 1
        if len(kind.members) == 1:
            self._repopulated(kind)

    def dismiss(self, agent: AgentRecord) -> None:
        """Take the agent out of its class. Its rosters must have been left before."""
        kind, agent.kind = agent.kind, None
        if kind is None:
            return
        kind.leave(agent)
        self._census.version += 1
        if not kind.members:
            self._repopulated(kind)

    def _repopulated(self, kind: AgentClass) -> None:
        """A class has its first member again, or lost its last: what could serve by growing may be judged anew.

        Empty classes stay: an agent of the kind mostly comes back.
        """
        for shape in list(self.shapes.values()):
            if kind.offer.pool in shape.pools and not shape.closed:
                self._demand(shape, self._candidates(shape))

    def _sweep_classes(self) -> None:
        """Forget classes without agents: agents may report ever new amounts of a resource."""
        empty = [kind for kind in self.classes.values() if not kind.members]
        for kind in empty:
            del self.classes[kind.offer]
            del self._by_number[kind.number]
            self._free_classes.append(kind.number)
            of_pool = self._by_pool[kind.offer.pool]
            del of_pool[kind.offer]
            if not of_pool:
                del self._by_pool[kind.offer.pool]
        forgotten = sum(1 << kind.number for kind in empty)
        for shape in list(self.shapes.values()):
            if shape.serving & forgotten:
                shape.serving &= ~forgotten
                self._settle(shape)
        self._sweep_classes_at = max(256, 2 * len(self.classes))

    def _project(self, agent: Agent) -> Offer:
        """Only labels that a selector asks for tell agents apart; else every pod name would be a class of its own."""
        labels = tuple(sorted((key, value) for key, value in agent.labels if key in self._label_keys))
        offer = offer_of(agent, self.pools.get(agent.pool_key))
        return replace(offer, resources=tuple(sorted(agent.resources)), labels=labels)


def _labels_asked(task: Task) -> set[str]:
    """Keys of the labels that decide where the Task may, or would rather, run."""
    asked = {requirement.key for requirement in task.selector}
    placement = task.placement
    if placement is not None:
        asked |= {requirement.key for each in placement.preferred for requirement in each.selector}
        asked |= {ZONE} if placement.zones else set()
        asked |= {REGION} if placement.regions else set()
    return asked
