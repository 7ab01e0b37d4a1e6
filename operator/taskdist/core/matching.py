"""Who may serve whom: equivalence classes of Tasks and of agents, and which of the one fit which of the other.

Owns three kinds of interned classes. A `Shape` is all Tasks that no rule can tell apart but by order. An
`AgentClass` is all agents that no filter can tell apart. A `Profile` is all shapes that the same agent classes serve
and that take the same room, so that one bit says whether any of them can be placed. Each pair is tried against the
filters once. Refuses to know which Tasks wait in which order, or which agents are free.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf, log
from typing import TYPE_CHECKING, Final, NamedTuple

from taskdist.api import Reason, Strategy
from taskdist.core.filters import Need, Offer, need_of, offer_of, prospective, refusal, tasks_at_once
from taskdist.core.model import EMERGENCY, REGION, ZONE, Agent, Key, Placement, Pool, Queue, Route, Task
from taskdist.core.order import is_emergency
from taskdist.core.performance import PACE_MEMORY, STEP, TO_JUDGE, TYPES, Track, nine_in_ten
from taskdist.core.rings import HashRing, Roll
from taskdist.core.roster import AgentRecord, Roster
from taskdist.core.routes import NONE, opened, route_of
from taskdist.core.staffing import Inflow

if TYPE_CHECKING:
    from taskdist.core.estimates import Estimate
    from taskdist.core.waiting import Line

# What a class is set back for each step by which an attempt is expected to end late.
LATE: Final = 1_000_000
# The mean of a class's pace is not believed before so many attempts.
PACES_TO_JUDGE: Final = 20

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
ADAPTIVE: Final = Strategy.ADAPTIVE

Resources = tuple[tuple[str, int], ...]
# Pools that could serve waiting Tasks if they grew, first choice first, with how many one new agent runs at once.
Candidates = tuple[tuple[Key, int], ...]


class Demand:
    """Eligible Tasks that wait for room in the same pools, without those that a limit holds."""

    __slots__ = ("candidates", "excess", "inflow", "shapes", "tasks")

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        # What comes of them: kept only while a pool has a target for how long Tasks wait.
        self.inflow = Inflow()
        self.tasks = 0
        self.shapes = 0
        # How many of them quotas keep from starting beside the others, as of the last time that this was asked.
        self.excess = 0

    @property
    def startable(self) -> int:
        """Tasks that may start once there is room."""
        return max(0, self.tasks - self.excess)


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
        "tracks",
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
        """Its pace as far as it is believed."""
        return self.pace if self._paces >= PACES_TO_JUDGE else 1.0

    def observed(self, work: "Work", seconds: float, ratio: float) -> None:
        """An attempt took so long, so many times as long as expected."""
        track = self.tracks.get(work)
        if track is None:
            if len(self.tracks) >= TYPES:
                self.tracks.popitem(last=False)
            track = self.tracks[work] = Track()
        else:
            self.tracks.move_to_end(work)
        track.add(seconds, ratio)
        self._paces = min(self._paces + 1, PACE_MEMORY)
        self.pace += (ratio - self.pace) / self._paces
        if self._paces >= PACES_TO_JUDGE:
            self.swiftness = round(log(self.pace) / STEP) if self.pace > 0 else -1000

    def rank(self, shape: "Shape", left: float) -> int:
        """Order classes for a Task that has to end in `left` seconds (infinity: whenever): lower is better.

        Where nine attempts in ten end in time goes before where they do not, those nearer to it before those farther
        off, in steps of a fifth; else the swifter at the type. A deadline that is over decides nothing. A class of
        which too little is known is taken to be in time, so that it is tried.
        """
        track = self.tracks.get(shape.work)
        swiftness = track.swiftness if track is not None and track.sure else self.swiftness
        if left == inf or left <= 0.0:
            return swiftness
        if track is not None and track.seconds.count >= TO_JUDGE:
            long = nine_in_ten(track.seconds.mean, track.seconds.variance)
        elif self._paces >= PACES_TO_JUDGE and (known := shape.estimate) is not None and known.count >= TO_JUDGE:
            long = nine_in_ten(known.mean, known.variance) * self.pace
        else:
            return swiftness
        return swiftness if long <= left else swiftness + LATE * (1 + round(log(long / left) / STEP))


class Census:
    """Which skills Tasks ask for, and how often classes got other members: what tells which skills are scarce."""

    __slots__ = ("asked", "version")

    def __init__(self) -> None:
        self.asked: frozenset[str] = frozenset()
        self.version = 0


class Profile:
    """Shapes that the same agent classes serve, as early in their routes, and that take the same room."""

    __slots__ = ("_census", "_counted", "_several", "_tiers", "key", "number", "rosters", "scarcity", "shapes", "slots")

    def __init__(self, number: int, key: "ProfileKey", rosters: list[Roster], census: Census) -> None:
        self.number = number
        self.key = key
        self.slots = key[1]
        self.rosters = rosters
        self.shapes = 0
        # By step of a route: the rosters that are asked first of all that have room. None where there are no steps.
        self._tiers: list[list[Roster]] = []
        for tier in key[3]:
            self._tiers.append([roster for roster in rosters if tier >> roster.kind.number & 1])
        self._census = census
        self._counted = -1
        # Whether its classes differ in their skills; what these are worth to others, by class.
        self._several = any(roster.kind.offer.skills != rosters[0].kind.offer.skills for roster in rosters)
        self.scarcity: dict[int, float] = {}

    def tier(self) -> int:
        """Return which tier competes now, from 0: the earliest step that has room. Past the last if none has."""
        for number, tier in enumerate(self._tiers):
            for roster in tier:
                if roster.room >= self.slots:
                    return number
        return len(self._tiers)

    def nearest(self) -> list[Roster]:
        """Return the rosters that compete now: those of the earliest step that has room."""
        if not self._tiers:
            return self.rosters
        number = self.tier()
        return self._tiers[number] if number < len(self._tiers) else self.rosters

    def choose(self, shape: "Shape", left: float) -> AgentRecord:
        """Return the agent to take: best class, fewest scarce skills, least busy, least busy time so far, uid.

        `left`: the seconds until the Task's deadline. One must have room.
        """
        if self._several:
            return self.among(self.nearest(), shape, left)
        best: tuple[int, tuple[float, tuple[float, str, int, AgentRecord]]] | None = None
        for roster in self.nearest():
            if roster.room >= self.slots:
                rank = roster.kind.rank(shape, left)
                if best is None or rank <= best[0]:
                    found = (rank, roster.best())
                    if best is None or found < best:
                        best = found
        assert best is not None, "the mask of free profiles names one that no agent has room for"
        return best[1][1][3]

    def among(self, rosters: list[Roster], shape: "Shape", left: float) -> AgentRecord:
        """Choose likewise among some of its rosters."""
        if self._several and self._counted != self._census.version:
            self._weigh()
        best: tuple[int, float, tuple[float, tuple[float, str, int, AgentRecord]]] | None = None
        for roster in rosters:
            if roster.room >= self.slots:
                rank = roster.kind.rank(shape, left)
                scarcity = self.scarcity.get(roster.kind.number, 0.0)
                if best is None or rank < best[0] or (rank == best[0] and scarcity <= best[1]):
                    found = (rank, scarcity, roster.best())
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
        for roster in self.rosters:
            skills = sorted(roster.kind.offer.skills & self._census.asked)
            scarce = sum([1.0 - having[skill] / agents for skill in skills], 0.0) if agents else 0.0
            self.scarcity[roster.kind.number] = scarce


# (agent classes that serve it, slots, resources; the same classes by step of a route, none where it has only one step)
ProfileKey = tuple[int, int, Resources, tuple[int, ...]]
# What a Task takes of budgets: queue, name, amount.
Budgets = tuple[tuple[str, str, int], ...]
# What few Tasks have: the one agent that may run them; the number of their route, and of the step that their wait has
# opened; what they take of budgets; where they may and would rather run, and whether they wait for that.
Special = tuple[str | None, int, int, Budgets, Placement | None, bool]
# Behind what agents are asked for: whether its Tasks are emergencies, which may use any pool; what else they have.
ShapeKey = tuple[Key, str | None, str, int, Resources, frozenset[str], tuple[object, ...], bool, Special | None]
# The queue and type of a Task.
Work = tuple[Key, str]


class Contest(NamedTuple):
    """Whose agents compete, and how one of them is picked: those of a step of a route, counted from 1; step 0: all that
    may serve, or, on a route, those of none of its steps."""

    queue: Key
    rule: str
    step: int
    strategy: Strategy


class Shape:
    """Tasks that no rule can tell apart but by order."""

    __slots__ = (
        "candidates",
        "closed",
        "contests",
        "demand",
        "eligible",
        "eligible_since",
        "estimate",
        "gated",
        "gated_since",
        "key",
        "lines",
        "need",
        "patient",
        "pool",
        "pools",
        "profile",
        "queue",
        "queue_key",
        "route",
        "serving",
        "step",
        "steps",
        "strategy",
        "tasks",
        "tiers",
        "work",
    )

    def __init__(self, key: ShapeKey, need: Need) -> None:
        self.key = key
        self.queue_key: Key = key[0]
        self.pool = key[1]
        self.work: Work = (key[0], key[2])
        # The route that its Tasks take and the step that their wait has opened; `steps` are open in all.
        self.route: Route | None = None
        special = key[8]
        self.step = special[2] if special is not None else NONE
        self.steps = 0
        # By open step: the agent classes that serve it and that no earlier step has. Nothing if there is only one.
        self.tiers: tuple[int, ...] = ()
        # Who competes there, and by which strategy; None where that differs by tier.
        self.contests: tuple[Contest, ...] = ()
        self.strategy: Strategy | None = ADAPTIVE
        self.patient = special is not None and special[5]
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
        # The sums of the times at which the latter two began to wait.
        self.eligible_since = 0.0
        self.gated_since: dict[Reason, float] = {}


class Catalogue:
    """The interned classes, kept right as queues, pools and agents come, change and go."""

    def __init__(
        self,
        rehome: Callable[[Shape, Profile | None], None],
        redirect: Callable[[Shape, Demand | None, Demand | None], None],
        resized: Callable[[Roster], None],
        relabelled: Callable[[], None],
        renamed: Callable[[AgentRecord], None] = lambda agent: None,
    ) -> None:
        """`rehome(shape, profile)` puts a shape's Tasks under a profile, or under none while it is closed.
        `redirect(shape, former, demand)` counts them where they want room now.

        `resized(roster)` hears of rosters whose servable profiles may have changed. `relabelled()` enrols every agent
        anew, because selectors ask for a further label and agents that were alike may differ now. `renamed(agent)` does
        so for one, because Tasks ask for it by its name.
        """
        self.queues: dict[Key, Queue] = {}
        self.pools: dict[Key, Pool] = {}
        self.shapes: dict[ShapeKey, Shape] = {}
        self.classes: dict[Offer, AgentClass] = {}
        self.profiles: dict[ProfileKey, Profile] = {}
        self.demands: dict[Candidates, Demand] = {}
        # Grows whenever a pool or the set of demands changes.
        self.version = 0
        # Whether any pool has a target for how long Tasks wait.
        self.timed = False
        # Agents that get less than they offer, by uid; kept by who holds them back.
        self.guarded: dict[str, AgentRecord] = {}
        self._by_number: dict[int, AgentClass] = {}
        self._by_queue: dict[Key, dict[ShapeKey, Shape]] = {}
        self._by_pool: dict[Key, dict[Offer, AgentClass]] = {}
        self._label_keys: set[str] = set()
        self._census = Census()
        self._rehome = rehome
        self._redirect = redirect
        self._resized = resized
        self._relabelled = relabelled
        self._renamed = renamed
        # Agents that are enrolled, by namespace and name, and the names that Tasks ask for.
        self._by_name: dict[Key, dict[str, AgentRecord]] = {}
        self._asked: set[Key] = set()
        # By pool: how many agents it has to stay; and the pools that have all that they may.
        self._counted: dict[Key, int] = {}
        self._grown: set[Key] = set()
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
            if Strategy.SPREAD in queue.strategies:
                self._look_at({ZONE})
            self._resolve_all(self._by_queue.get(queue.key, {}).values())

    def drop_queue(self, key: Key) -> None:
        if self.queues.pop(key, None) is not None:
            self._resolve_all(self._by_queue.get(key, {}).values())

    def apply_pool(self, pool: Pool) -> None:
        former = self.pools.get(pool.key)
        if former != pool:
            self.pools[pool.key] = pool
            self._pools_changed()
            self._judge(pool.key)
            alike = former is not None and (former.cost_per_hour, former.quality) == (pool.cost_per_hour, pool.quality)
            if not alike and self._by_pool.get(pool.key):
                self._relabelled()
            self._resolve_namespace(pool.namespace)

    def drop_pool(self, key: Key) -> None:
        if self.pools.pop(key, None) is not None:
            self._pools_changed()
            self._judge(key)
            self._resolve_namespace(key[0])

    def _pools_changed(self) -> None:
        self.version += 1
        self.timed = any(pool.target_queue > 0.0 for pool in self.pools.values())

    def count(self, pool: Key, agents: int) -> None:
        """So many of the pool's agents are there to stay now."""
        if self._counted.get(pool, 0) == agents:
            return
        if agents:
            self._counted[pool] = agents
        else:
            del self._counted[pool]
        if self._judge(pool):
            for shape in list(self.shapes.values()):
                if shape.route is not None and shape.queue_key[0] == pool[0] and pool[1] in shape.route.pools:
                    self._resolve(shape)

    def _judge(self, pool: Key) -> bool:
        """Note whether the pool has all agents that it may; return whether that is new."""
        shape = self.pools.get(pool)
        grown = shape is not None and self._counted.get(pool, 0) >= shape.maximum
        if grown == (pool in self._grown):
            return False
        if grown:
            self._grown.add(pool)
        else:
            self._grown.discard(pool)
        return True

    # Shapes.

    def shape_of(self, task: Task, step: int = 0, relaxed: bool = False) -> Shape:
        """Return the Task's shape, if its wait has opened this step of its route; `relaxed`: it has waited long enough
        for an agent that it prefers."""
        queue = (task.namespace, task.queue)
        rules, placement = self.queues.get(queue), task.placement
        route = NONE if rules is None or not rules.routes else route_of(rules, task)
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
            None
            if route == NONE and task.agent is None and not task.budgets and placement is None
            else (task.agent, route, NONE if route == NONE else step, task.budgets, placement, patient),
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
            if task.agent is not None:
                self._ask(task.namespace, task.agent)
            self._resolve(shape)
        return shape

    def _look_at(self, labels: set[str]) -> None:
        """From now on these labels tell agents apart."""
        if not labels <= self._label_keys:
            self._label_keys |= labels
            self._relabelled()

    def _ask(self, namespace: str, name: str) -> None:
        """Tell the agents of this name from others, because a Task asks for it."""
        if (namespace, name) not in self._asked:
            self._asked.add((namespace, name))
            for agent in list(self._by_name.get((namespace, name), {}).values()):
                self._renamed(agent)

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
        # Agents that no Task asks for by name any more are like others again.
        asked = {(key[0][0], key[8][0]) for key in self.shapes if key[8] is not None and key[8][0] is not None}
        for name in self._asked - asked:
            self._asked.discard(name)
            for agent in list(self._by_name.get(name, {}).values()):
                self._renamed(agent)

    def _resolve_all(self, shapes: Iterable[Shape]) -> None:
        for shape in list(shapes):
            self._resolve(shape)

    def _resolve_namespace(self, namespace: str) -> None:
        self._resolve_all(shape for shape in self.shapes.values() if shape.queue_key[0] == namespace)

    def _resolve(self, shape: Shape) -> None:
        """Work out anew what may serve the shape."""
        queue, special = self.queues.get(shape.queue_key), shape.key[8]
        shape.queue = queue or Queue(*shape.queue_key)
        shape.need = replace(shape.need, allows_unfenced=queue is not None and queue.allows_unfenced)
        number = NONE if special is None else special[1]
        shape.route = shape.queue.routes[number] if NONE < number < len(shape.queue.routes) else None
        shape.tiers, shape.steps = (), 0
        if shape.route is not None:
            shape.pools = self._routed(shape, shape.route)
        else:
            shape.pools = self._named(shape)
        shape.closed = (
            Reason.QUEUE_NOT_FOUND
            if queue is None
            else Reason.QUEUE_PAUSED
            if queue.paused
            else Reason.AGENT_NOT_FOUND
            if not shape.pools and shape.need.agent is not None
            else Reason.POOL_NOT_FOUND
            if not shape.pools
            else None
        )
        shape.serving = self._serving(shape, shape.pools)
        if shape.steps > 1 or (shape.route is not None and shape.key[7]):
            assert shape.route is not None
            self._part(shape, shape.route)
        else:
            shape.contests = (_contest(shape, shape.route, 0 if shape.route is None else 1),)
        alike = len({contest.strategy for contest in shape.contests}) == 1
        shape.strategy = shape.contests[0].strategy if alike else None
        self._settle(shape)

    def _serving(self, shape: Shape, pools: Iterable[Key]) -> int:
        """The agent classes of these pools that may run the shape's Tasks."""
        serving = 0
        for pool in pools:
            for kind in self._by_pool.get(pool, {}).values():
                if refusal(shape.need, kind.offer) is None:
                    serving |= 1 << kind.number
        return serving

    def _named(self, shape: Shape) -> tuple[Key, ...]:
        """The pools of a shape without a route: the Task's own, its agent's, or its queue's."""
        namespace = shape.queue_key[0]
        if shape.need.agent is not None:
            of_agent = self._by_name.get((namespace, shape.need.agent), {}).values()
            found = {agent.kind.offer.pool for agent in of_agent if agent.kind is not None}
            return tuple(
                key for key in sorted(found) if key in self.pools and (shape.pool is None or key[1] == shape.pool)
            )
        queue = self.queues.get(shape.queue_key)
        names = (shape.pool,) if shape.pool is not None else queue.pools if queue is not None else ()
        if shape.key[7] and shape.pool is None:
            names = (*names, *self._others(namespace, names))
        return tuple(key for name in names if (key := (namespace, name)) in self.pools)

    def _others(self, namespace: str, names: Sequence[str]) -> list[str]:
        """The namespace's pools but for these: emergencies may use them, too."""
        return sorted(name for space, name in self.pools if space == namespace and name not in names)

    def _routed(self, shape: Shape, route: Route) -> tuple[Key, ...]:
        """The pools of the route's open steps, in their order; of an emergency, all steps and then all other pools."""
        namespace = shape.queue_key[0]
        if shape.key[7]:
            shape.steps = len(route.steps)
        else:
            shape.steps = opened(route, shape.step, lambda name: self._may_grow(shape, (namespace, name)))
        names = [name for step in route.steps[: shape.steps] for name in step.pools]
        if shape.key[7]:
            names += self._others(namespace, names)
        return tuple(key for name in dict.fromkeys(names) if (key := (namespace, name)) in self.pools)

    def _may_grow(self, shape: Shape, key: Key) -> bool:
        """Whether the pool may yet get an agent for the shape's Tasks, because they wait."""
        pool = self.pools.get(key)
        if pool is None or not pool.elastic or key in self._grown:
            return False
        # What the Task would rather have leads it to no other step: it takes what is here once it has waited for that.
        return bool(self._offers(replace(shape.need, patient=False) if shape.patient else shape.need, pool))

    def _part(self, shape: Shape, route: Route) -> None:
        """Part the serving classes by the step that has them first; last come those of no step."""
        tiers: list[int] = []
        contests: list[Contest] = []
        seen = 0
        for number, step in enumerate(route.steps[: shape.steps], 1):
            keys = [(shape.queue_key[0], name) for name in step.pools]
            tier = self._serving(shape, [key for key in keys if key in self.pools]) & ~seen
            seen |= tier
            if tier:
                tiers.append(tier)
                contests.append(_contest(shape, route, number))
        if shape.serving & ~seen or not tiers:
            tiers.append(shape.serving & ~seen)
            contests.append(_contest(shape, route, 0))
        shape.contests = tuple(contests)
        shape.tiers = tuple(tiers) if len(tiers) > 1 else ()

    def _settle(self, shape: Shape) -> None:
        """Put the shape's Tasks where its state says."""
        self._place(shape, None if shape.closed else self._profile(shape))
        self._demand(shape, () if shape.closed else self._candidates(shape))

    def kinds(self, pool: Key) -> list[AgentClass]:
        """Return the classes of the pool's agents, without those that have no member now."""
        return [kind for kind in self._by_pool.get(pool, {}).values() if kind.members]

    def _candidates(self, shape: Shape) -> Candidates:
        """Pools where the Tasks lack nothing but room: judged by their agents, or by their word if none is known.

        None for a Task that waits for one agent: another one would not help.
        """
        if shape.need.agent is not None:
            return ()
        found: list[tuple[Key, int]] = []
        for key in shape.pools:
            offers = self._offers(shape.need, self.pools[key])
            if offers:
                found.append((key, max(tasks_at_once(offer.slots, offer.resources, shape.need) for offer in offers)))
        return tuple(found)

    def _offers(self, need: Need, pool: Pool) -> list[Offer]:
        """What agents of the pool offer that may serve the need: those it has, or one that it could have."""
        kinds = self.kinds(pool.key)
        offers = [kind.offer for kind in kinds] if kinds else [prospective(pool)]
        return [offer for offer in offers if refusal(need, offer) is None]

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
        key = (shape.serving, shape.need.slots, shape.need.resources, shape.tiers)
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
                if shape.need.agent is not None:
                    continue
                if shape.route is not None:
                    if shape.queue_key[0] == offer.pool[0]:
                        self._resolve(shape)
                elif offer.pool in shape.pools:
                    if refusal(shape.need, offer) is None:
                        shape.serving |= 1 << kind.number
                    self._settle(shape)
        else:
            agent.kind = kind
            kind.join(agent)
            self._census.version += 1
            if len(kind.members) == 1:
                self._repopulated(kind)
        name = (offer.pool[0], agent.offer.name)
        agent.enrolled = name
        self._by_name.setdefault(name, {})[agent.uid] = agent
        self._named_anew(name)

    def dismiss(self, agent: AgentRecord) -> None:
        """Take the agent out of its class. Its rosters must have been left before."""
        kind, agent.kind = agent.kind, None
        if kind is None:
            return
        kind.leave(agent)
        self._census.version += 1
        if not kind.members:
            self._repopulated(kind)
        name, agent.enrolled = agent.enrolled, None
        if name is not None:
            named = self._by_name[name]
            del named[agent.uid]
            if not named:
                del self._by_name[name]
            self._named_anew(name)

    def _named_anew(self, name: Key) -> None:
        """The agents of this name are others now."""
        if name in self._asked:
            for shape in list(self.shapes.values()):
                if shape.need.agent == name[1] and shape.queue_key[0] == name[0]:
                    self._resolve(shape)

    def _repopulated(self, kind: AgentClass) -> None:
        """A class has its first member again, or lost its last: what could serve by growing may be judged anew.

        Empty classes stay: an agent of the kind mostly comes back.
        """
        for shape in list(self.shapes.values()):
            if shape.route is not None and shape.queue_key[0] == kind.offer.pool[0]:
                self._resolve(shape)
            elif kind.offer.pool in shape.pools and not shape.closed:
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
            if not shape.serving & forgotten:
                continue
            if shape.route is not None:
                self._resolve(shape)
            else:
                shape.serving &= ~forgotten
                self._settle(shape)
        self._sweep_classes_at = max(256, 2 * len(self.classes))

    def _project(self, agent: Agent) -> Offer:
        """Only labels that a selector asks for tell agents apart; else every pod name would be a class of its own."""
        labels = tuple(sorted((key, value) for key, value in agent.labels if key in self._label_keys))
        offer = offer_of(agent, self.pools.get(agent.pool_key))
        name = agent.name if (agent.namespace, agent.name) in self._asked else ""
        return replace(offer, resources=tuple(sorted(agent.resources)), labels=labels, name=name)


def _contest(shape: Shape, route: Route | None, step: int) -> Contest:
    """Who competes in a step of the route; 0: all that serve, or, on a route, those of none of its steps."""
    own = route.steps[step - 1].strategy if route is not None and step else None
    rule = "" if route is None else route.name
    return Contest(shape.queue_key, rule, step, shape.queue.strategy if own is None else own)


def _labels_asked(task: Task) -> set[str]:
    """Keys of the labels that decide where the Task may, or would rather, run."""
    asked = {requirement.key for requirement in task.selector}
    placement = task.placement
    if placement is not None:
        asked |= {requirement.key for each in placement.preferred for requirement in each.selector}
        asked |= {ZONE} if placement.zones else set()
        asked |= {REGION} if placement.regions else set()
    return asked
