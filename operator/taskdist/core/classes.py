"""Equivalence classes of Tasks and of agents.

A `Shape` is all Tasks that no rule can tell apart but by order. An `AgentClass` is all agents that no filter can tell
apart. A `Profile` is all shapes that the same agent classes serve, with the same room and of the same budgets: one bit
says whether any of them can be placed, and a limit holds all that a tenant has of one. Refuses to know which class fits
which: `matching` keeps that.
"""

from collections import Counter, OrderedDict
from math import inf, log
from typing import TYPE_CHECKING, Final, NamedTuple

from taskdist.api import Reason, Strategy
from taskdist.core.filters import Need, Offer
from taskdist.core.model import Key, Placement, Queue, Route
from taskdist.core.performance import PACE_MEMORY, STEP, TO_JUDGE, TYPES, Track, nine_in_ten
from taskdist.core.rings import HashRing, Roll
from taskdist.core.roster import AgentRecord, Roster
from taskdist.core.routes import NONE
from taskdist.core.staffing import Inflow

if TYPE_CHECKING:
    from taskdist.core.estimates import Estimate
    from taskdist.core.lines import Line

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
        # By band and tenant.
        self.lines: dict[tuple[int, str], Line] = {}
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
