"""Equivalence classes of Tasks, and what is known of each class.

A `Shape` is all Tasks that no rule can tell apart but by order. A `Profile` is all shapes that the same agent classes
serve, with the same room, route tiers and budgets: one bit says whether any of them can be placed, and a limit holds
all that a tenant has of one. Refuses to know which class fits which: `catalogue` keeps that.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from taskdist.api import Reason, Strategy
from taskdist.core.agents.filters import Need
from taskdist.core.agents.roster import AgentRecord, Resources, Roster, Work
from taskdist.core.fleet.routes import NONE
from taskdist.core.model import Key, Placement, Queue, Route
from taskdist.core.primitives.inflow import Inflow

if TYPE_CHECKING:
    from taskdist.core.primitives.service_times import Estimate

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
ADAPTIVE: Final = Strategy.ADAPTIVE

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


class Census:
    """The skills that Tasks ask for. `version` counts the changes of skills and members.

    If it is another, the scarcity of skills has to be worked out anew.
    """

    __slots__ = ("asked", "version")

    def __init__(self) -> None:
        self.asked: frozenset[str] = frozenset()
        self.version = 0


class Profile:
    """Shapes that the same agent classes serve, as early in their routes, and that the same limits of a tenant hold."""

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
                rank = roster.kind.rank(shape.work, shape.estimate, left)
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
                rank = roster.kind.rank(shape.work, shape.estimate, left)
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


# What a Task takes of budgets: queue, name, amount.
Budgets = tuple[tuple[str, str, int], ...]
# Of which budgets, whatever the amounts: the namespace, and queue and name of each; None where nothing is taken.
Taking = tuple[str, tuple[tuple[str, str], ...]] | None
# (agent classes that serve it, slots, resources; the same classes by step of a route, none where it has only one step;
# of which budgets it takes)
ProfileKey = tuple[int, int, Resources, tuple[int, ...], Taking]
# What few Tasks have: the one agent that may run them; the number of their route, and of the step that their wait has
# opened; what they take of budgets; where they may and would rather run, and whether they wait for that.
Special = tuple[str | None, int, int, Budgets, Placement | None, bool]
# Behind what agents are asked for: whether its Tasks are emergencies, which may use any pool; what else they have.
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
        "step",
        "steps",
        "strategy",
        "taking",
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
        # What its Tasks take, and of which budgets.
        self.budgets: Budgets = special[3] if special is not None else ()
        names = tuple([(queue, name) for queue, name, _ in self.budgets])
        self.taking: Taking = (key[0][0], names) if names else None
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
        # Tasks of this shape that wait: all, those that no gate of their own holds, and the others by what holds them.
        self.tasks = 0
        self.eligible = 0
        self.gated: Counter[Reason] = Counter()
        # The sums of the times at which the latter two began to wait.
        self.eligible_since = 0.0
        self.gated_since: dict[Reason, float] = {}


def contest_of(shape: Shape, route: Route | None, step: int) -> Contest:
    """Who competes in a step of the route; 0: all that serve, or, on a route, those of none of its steps."""
    own = route.steps[step - 1].strategy if route is not None and step else None
    rule = "" if route is None else route.name
    return Contest(shape.queue_key, rule, step, shape.queue.strategy if own is None else own)
