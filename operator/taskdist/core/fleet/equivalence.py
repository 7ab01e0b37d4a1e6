"""Equivalence classes of Tasks, and what is known of each class.

A `Shape` is all Tasks that no rule can tell apart but by order. A `Profile` is all shapes that the same agent classes
serve, with the same room, route tiers and budgets: one bit says whether any of them can be placed, and a limit holds
all that a tenant has of one. Refuses to know which class fits which: `catalogue` keeps that.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from taskdist.api import Reason, Strategy
from taskdist.core.agents.filters import Need
from taskdist.core.agents.roster import AgentRecord, HeapAgent, Resources, Roster, Work
from taskdist.core.fleet.routes import NONE
from taskdist.core.model import Key, Placement, Queue, Route
from taskdist.core.primitives.bitsets import has
from taskdist.core.primitives.inflow import Inflow

if TYPE_CHECKING:
    from taskdist.core.primitives.service_times import Estimate

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
ADAPTIVE: Final = Strategy.ADAPTIVE


class Candidate(NamedTuple):
    """A pool that could serve waiting Tasks if it grew, and how many of them one new agent runs at once."""

    pool: Key
    at_once: int


# First choice first.
Candidates = tuple[Candidate, ...]


class Demand:
    """Eligible Tasks that wait for room in the same pools, without those that a limit holds."""

    __slots__ = ("assumed_service", "candidates", "excess", "inflow", "shapes", "tasks")

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        # What comes of them: kept only while a pool has a target for how long Tasks wait.
        self.inflow = Inflow()
        # How many seconds each takes, where none has come of which that is known.
        self.assumed_service = 0.0
        self.tasks = 0
        self.shapes = 0
        # How many of them quotas keep from starting beside the others, as of the last time that this was asked.
        self.excess = 0

    @property
    def service(self) -> float:
        """How many seconds each is expected to take; 0 where that is not known."""
        return self.inflow.service or self.assumed_service

    @property
    def startable(self) -> int:
        """Tasks that may start once there is room."""
        return max(0, self.tasks - self.excess)


class Census:
    """The skills that Tasks ask for. `version` grows with each change of skills or members: then the scarcity of
    skills has to be worked out anew."""

    __slots__ = ("asked", "version")

    def __init__(self) -> None:
        self.asked: frozenset[str] = frozenset()
        self.version = 0


class Profile:
    """Shapes that the same agent classes serve in the same steps of their routes, and that take of the same budgets."""

    __slots__ = ("_census", "_counted", "_several", "_tiers", "key", "number", "rosters", "scarcity", "shapes", "slots")

    def __init__(self, number: int, key: "ProfileKey", rosters: list[Roster], census: Census) -> None:
        self.number = number
        self.key = key
        self.slots = key.slots
        self.rosters = rosters
        self.shapes = 0
        # By step of a route: the rosters that are asked first of all that have room. None where there are no steps.
        self._tiers: list[list[Roster]] = []
        for tier in key.tiers:
            self._tiers.append([roster for roster in rosters if has(tier, roster.kind.number)])
        self._census = census
        self._counted = -1
        # Whether its classes differ in their skills; what these are worth to others, by class.
        self._several = any(roster.kind.offer.skills != rosters[0].kind.offer.skills for roster in rosters)
        self.scarcity: dict[int, float] = {}

    def tier(self) -> int:
        """Return the tier that competes, by number from 0: the earliest with room; past the last if none has."""
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
        best: HeapAgent | None = None
        least, busy = 0, 0.0
        for roster in self.nearest():
            if roster.room >= self.slots:
                rank = roster.kind.rank(shape.work, shape.estimate, left)
                if best is None or rank < least or (rank == least and roster.goes_before(busy, best)):
                    best, least, busy = roster.best(), rank, roster.busy
        assert best is not None, "the mask of free profiles names one that no agent has room for"
        return best.agent

    def among(self, rosters: list[Roster], shape: "Shape", left: float) -> AgentRecord:
        """Choose in the same way among some of its rosters."""
        if self._several and self._counted != self._census.version:
            self._weigh()
        best: HeapAgent | None = None
        least, scarcest, busy = 0, 0.0, 0.0
        for roster in rosters:
            if roster.room >= self.slots:
                rank = roster.kind.rank(shape.work, shape.estimate, left)
                scarcity = self.scarcity.get(roster.kind.number, 0.0)
                if (
                    best is None
                    or rank < least
                    or (rank == least and scarcity < scarcest)
                    or (rank == least and scarcity == scarcest and roster.goes_before(busy, best))
                ):
                    best, least, scarcest, busy = roster.best(), rank, scarcity, roster.busy
        assert best is not None, "the mask of free profiles names one that no agent has room for"
        return best.agent

    def _weigh(self) -> None:
        """Work out how scarce each class's skills are: a skill is as scarce as the part of the serving agents that lack
        it."""
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


# What a Task takes of budgets: queue, name, amount.
Budgets = tuple[tuple[str, str, int], ...]


class Taking(NamedTuple):
    """The budgets that Tasks take of, whatever the amounts: their namespace, and queue and name of each."""

    namespace: str
    budgets: tuple[tuple[str, str], ...]


class ProfileKey(NamedTuple):
    """What the shapes of a profile have in common.

    `serving` are the agent classes that serve them, as bits; `tiers` the same by step of a route, none where there is
    only one step. `taking` is None where nothing is taken of budgets.
    """

    serving: int
    slots: int
    resources: Resources
    tiers: tuple[int, ...]
    taking: Taking | None


class Special(NamedTuple):
    """What few Tasks have, as a part of their shape.

    `agent` is the only one that may run them. `route` is the number of their route, `step` that of the step which
    their wait has opened. `patient`: they wait for an agent that their placement prefers. `objects`: their payload is
    in an object store.
    """

    agent: str | None = None
    route: int = NONE
    step: int = NONE
    budgets: Budgets = ()
    placement: Placement | None = None
    patient: bool = False
    objects: bool = False


NOTHING_SPECIAL: Final = Special()
# What makes a shape, as `shape_of` puts it together: the shape tells its parts by name. A plain tuple, for one is made
# of each Task that comes.
ShapeKey = tuple[Key, str | None, str, int, Resources, frozenset[str], tuple[object, ...], bool, Special | None]


class Contest(NamedTuple):
    """One competition for Tasks: a queue's route step and its strategy. Pickers keep their memory by it.

    Steps count from 1. Step 0: outside of any route step.
    """

    queue: Key
    rule: str
    step: int
    strategy: Strategy


class Shape:
    """Tasks that no rule can tell apart but by order."""

    __slots__ = (
        "budgets",
        "candidates",
        "closed",
        "contests",
        "demand",
        "eligible",
        "eligible_since",
        "emergency",
        "estimate",
        "gated",
        "gated_since",
        "key",
        "need",
        "patient",
        "pool",
        "pools",
        "profile",
        "queue",
        "queue_key",
        "route",
        "serving",
        "special",
        "step",
        "steps",
        "strategy",
        "taking",
        "tasks",
        "tiers",
        "work",
    )

    def __init__(self, key: ShapeKey, need: Need) -> None:
        queue, pool, type, _, _, _, _, emergency, special = key
        self.key = key
        self.queue_key = queue
        self.pool = pool
        self.work: Work = (queue, type)
        # Whether its Tasks are emergencies, which may use any pool.
        self.emergency = emergency
        self.special = NOTHING_SPECIAL if special is None else special
        # The route that its Tasks take and the step that their wait has opened; `steps` are open in all.
        self.route: Route | None = None
        self.step = self.special.step
        self.steps = 0
        # By open step: the agent classes that serve it and that no earlier step has. Nothing if there is only one.
        self.tiers: tuple[int, ...] = ()
        # Who competes there, and by which strategy; None where that differs by tier.
        self.contests: tuple[Contest, ...] = ()
        self.strategy: Strategy | None = ADAPTIVE
        self.patient = self.special.patient
        # What its Tasks take, and of which budgets.
        self.budgets = self.special.budgets
        namespace, _ = queue
        names = tuple([(of, name) for of, name, _ in self.budgets])
        self.taking = Taking(namespace, names) if names else None
        # The queue's rules; the defaults if it is gone.
        self.queue = Queue(*queue)
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
        # Waiting Tasks of this shape: all of them, the eligible ones, and the others by the gate that holds them.
        self.tasks = 0
        self.eligible = 0
        self.gated: Counter[Reason] = Counter()
        # The sums of the times at which the latter two began to wait.
        self.eligible_since = 0.0
        self.gated_since: dict[Reason, float] = {}

    @property
    def namespace(self) -> str:
        namespace, _ = self.queue_key
        return namespace


def contest_in(shape: Shape, route: Route | None, step: int) -> Contest:
    """Return the contest of a route's step. Step 0: all that serve or, on a route, those of none of its steps."""
    own = route.steps[step - 1].strategy if route is not None and step else None
    rule = "" if route is None else route.name
    return Contest(shape.queue_key, rule, step, shape.queue.strategy if own is None else own)
