"""What the loop knows of those who act in the world: attempts that run, agents, pools.

Values that the loop changes as time goes. Refuses to act by itself.
"""

from taskdist.core.model import Pool
from taskdist.simulation.record import AgentLife, Attempt, TaskLife
from taskdist.simulation.scenario import Traits


class Running:
    """An attempt that runs on an agent that lives. `left` is service at speed 1, as of `since`."""

    __slots__ = ("agent", "attempt", "due", "fails", "left", "life", "since")

    def __init__(
        self, life: TaskLife, attempt: Attempt, agent: "SimAgent", left: float, fails: bool, now: float
    ) -> None:
        self.life = life
        self.attempt = attempt
        self.agent = agent
        self.left = left
        self.fails = fails
        self.since = now
        self.due = 0.0


class SimAgent:
    """An agent as the world has it. `held` are the Tasks that the scheduler believes there."""

    __slots__ = ("dead", "draining", "held", "life", "running", "slowed", "speed")

    def __init__(self, life: AgentLife, speed: float) -> None:
        self.life = life
        self.speed = speed
        self.slowed = 0
        self.dead = False
        self.draining = False
        self.held: dict[str, TaskLife] = {}
        self.running: dict[str, Running] = {}


class SimPool:
    """A pool as the world has it. `desired` is what the scheduler last said; `awaited` replacements are under way."""

    __slots__ = ("agents", "awaited", "desired", "made", "ordinals", "pool", "traits")

    def __init__(self, pool: Pool, traits: Traits) -> None:
        self.pool = pool
        self.traits = traits
        self.desired = pool.minimum
        self.agents: dict[str, SimAgent] = {}
        self.ordinals: set[int] = set()
        self.awaited = 0
        self.made = 0

    @property
    def draws(self) -> tuple[float, float, float]:
        """What an agent costs an hour, its watts when busy and when idle: the scenario's word, else the pool's."""
        said, pool = self.traits, self.pool
        cost = pool.cost_per_hour if said.cost_per_hour is None else said.cost_per_hour
        if said.watts is None:
            return cost, pool.watts_busy, pool.watts_idle if said.idle_watts is None else said.idle_watts
        return cost, said.watts, said.watts if said.idle_watts is None else said.idle_watts

    @property
    def staying(self) -> int:
        return sum(not agent.draining and not agent.dead for agent in self.agents.values()) + self.awaited
