"""The choice of one agent among those that have room: one interface, and a strategy for each name in the API.

Owns the choice and its words. A preference of the Task goes before any strategy, a sticky key before all but a ring.
`Adaptive`, where the Task says no more than that, is the index's own order and does not come here. Strategies that
rank classes cost as much as there are classes; those that look at single agents look at `MOST_AGENTS` at most, in an
order that follows from uids. Refuses clocks and chance: what is drawn follows from the Task's uid and its attempt.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from taskdist.api import Strategy
from taskdist.core.agents.filters import worth
from taskdist.core.agents.roster import AgentRecord, HeapAgent, Roster
from taskdist.core.fleet.equivalence import Contest, Profile, Shape
from taskdist.core.model import Key, Pool, Task
from taskdist.core.primitives.bitsets import has
from taskdist.core.primitives.hashing import hashed

# The most agents that are looked at one by one.
MOST_AGENTS: Final = 64
# The most sticky keys whose last agent is remembered.
STICKY: Final = 100_000


@dataclass(frozen=True, slots=True)
class Choice:
    """The agent that was chosen, the score that decided, and the words for it."""

    agent: AgentRecord
    score: float
    message: str


class Ask:
    """One request for an agent: the Task, its shape and profile, the rosters that compete, and those that have room."""

    __slots__ = ("competing", "left", "profile", "rosters", "shape", "slots", "task")

    def __init__(
        self,
        task: Task,
        shape: Shape,
        profile: Profile,
        competing: list[Roster],
        rosters: list[Roster],
        left: float,
    ) -> None:
        self.task = task
        self.shape = shape
        self.profile = profile
        self.slots = profile.slots
        self.competing = competing
        self.rosters = rosters
        # Seconds until its deadline, infinite without one.
        self.left = left

    def fits(self, agent: AgentRecord) -> bool:
        """Whether the member of one of the rosters' classes has room."""
        return (
            agent.open
            and agent.busy < agent.cap
            and agent.slots - agent.busy >= self.slots
            and agent.fits(self.shape.need.resources)
        )


class Picker(ABC):
    """A strategy: takes one agent for a request.

    Its memory is of one contest. Turns, and what agents are owed, follow from picks among the same agents: picks of
    another step would upset them.
    """

    @abstractmethod
    def pick(self, ask: Ask) -> tuple[AgentRecord, float]:
        """Return the agent and the score by which it was taken. One has room."""

    def words(self, agent: AgentRecord, _score: float) -> str:
        """Say what the score means, as of before the Task is there."""
        return f"{agent.busy} of its {agent.slots} slots are busy"


def current_contest(shape: Shape, agent: AgentRecord | None = None) -> Contest:
    """Return the contest that is open for Tasks of the shape: that of the earliest step with room or, if `agent` is
    given, that of the agent's step."""
    contests = shape.contests
    if len(contests) == 1:
        return contests[0]
    tier = 0
    if agent is not None and agent.kind is not None:
        while tier < len(shape.tiers) and not has(shape.tiers[tier], agent.kind.number):
            tier += 1
    elif shape.profile is not None:
        tier = shape.profile.tier()
    return contests[min(tier, len(contests) - 1)]


def least_busy(rosters: list[Roster]) -> tuple[float, AgentRecord]:
    """Return the least busy agent with its busy fraction: then by busy time so far, then by uid."""
    best: HeapAgent | None = None
    busy = 0.0
    for roster in rosters:
        if best is None or roster.goes_before(busy, best):
            best, busy = roster.best(), roster.busy
    assert best is not None, "nobody has room"
    return busy, best.agent


class Strategies:
    """The strategies of all queues and of their route steps, with what each remembers."""

    def __init__(
        self,
        agents: Mapping[str, AgentRecord],
        pools: Mapping[Key, Pool],
        made: Callable[[Strategy, Mapping[Key, Pool]], Picker],
    ) -> None:
        """`agents` by uid and `pools` as they stand; `made` makes the strategy of a contest."""
        self._agents = agents
        self._pools = pools
        self._made = made
        self._pickers: dict[Contest, Picker] = {}
        # By queue and key: the uid of the agent that had it last.
        self._last: OrderedDict[tuple[Key, str], str] = OrderedDict()

    def forget(self, queue: Key) -> None:
        """Forget what the queue's strategies remember: it is gone, or its routes are others."""
        for contest in [contest for contest in self._pickers if contest.queue == queue]:
            del self._pickers[contest]

    def choose(self, task: Task, shape: Shape, profile: Profile, contest: Contest, left: float) -> Choice:
        """Choose the agent for the Task, which has to end in `left` seconds. There must be an agent with room.

        `contest` is the one that is open now.
        """
        strategy = contest.strategy
        competing = profile.nearest()
        rosters = [roster for roster in competing if roster.room >= profile.slots]
        preferred = 0
        if task.placement is not None and task.placement.preferred:
            rosters, preferred = self._preferred(task, rosters)
        ask = Ask(task, shape, profile, competing, rosters, left)
        sticky = _sticky(task, strategy)
        agent = None if sticky is None else self._where_last(ask, sticky)
        if agent is not None:
            score, words = 1.0, f"it had the last Task of {'type' if task.sticky_key is None else 'stickyKey'} {sticky}"
        else:
            picker = self._picker(contest)
            agent, score = picker.pick(ask)
            words = picker.words(agent, score)
        if sticky is not None:
            self._note(shape.queue_key, sticky, agent.uid)
        if preferred:
            words += f"; it meets preferences of weight {preferred}"
        return Choice(agent, score, f"{strategy.value}: {words}.")

    @staticmethod
    def _preferred(task: Task, rosters: list[Roster]) -> tuple[list[Roster], int]:
        """Return the rosters that meet most of the Task's preferences, and the weight of what they meet."""
        assert task.placement is not None
        values = [worth(task.placement.preferred, roster.kind.offer) for roster in rosters]
        most = max(values)
        return [roster for roster, value in zip(rosters, values, strict=True) if value == most], most

    def _where_last(self, ask: Ask, key: str) -> AgentRecord | None:
        uid = self._last.get((ask.shape.queue_key, key))
        agent = None if uid is None else self._agents.get(uid)
        if agent is None or not ask.fits(agent):
            return None
        kinds = [roster.kind for roster in ask.rosters]
        return agent if agent.kind in kinds else None

    def _note(self, queue: Key, key: str, uid: str) -> None:
        last = self._last
        last[queue, key] = uid
        last.move_to_end((queue, key))
        if len(last) > STICKY:
            last.popitem(last=False)

    def _picker(self, contest: Contest) -> Picker:
        found = self._pickers.get(contest)
        if found is None:
            found = self._pickers[contest] = self._made(contest.strategy, self._pools)
        return found


def _sticky(task: Task, strategy: Strategy) -> str | None:
    """Return the key whose Tasks go where the last one went. None on a ring: keys have homes of their own there."""
    if strategy is Strategy.CONSISTENT_HASH:
        return None
    if task.sticky_key is not None:
        return task.sticky_key
    return task.type if strategy is Strategy.AFFINITY else None


def draws(task: Task, number: int) -> int:
    """Return a pseudo-random number for the Task's attempt, another one for each `number`."""
    return hashed(task.uid, str(task.failures), str(len(task.deaths)), str(number))
