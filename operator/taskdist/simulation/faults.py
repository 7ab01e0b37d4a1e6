"""What goes wrong in a scenario: agents that die or slow down, zones that are lost, attempts that fail.

Owns the words and the plan of when; chance is keyed by the number of the fault or of the Task's attempt, so that it
is the same for all variants. Refuses to carry anything out.
"""

from typing import Annotated, Literal

from pydantic import Field

from taskdist.simulation.base import Fraction, NotNegative, Part, Positive
from taskdist.simulation.chance import Chance


class AgentDeath(Part):
    """An agent dies every `every` seconds, with all it runs; a new one is ready `replaceAfter` seconds later.

    The operator hears of it `detectAfter` seconds after the death, and replaces it no sooner. `pools` None: of any.
    """

    every: Positive
    replace_after: NotNegative = 5.0
    detect_after: NotNegative = 0.0
    pools: list[str] | None = None


class SlowAgent(Part):
    """Every `every` seconds an agent's speed is multiplied by `factor`, for `for` seconds."""

    every: Positive
    factor: Positive = 0.25
    for_: Positive = Field(default=30.0, alias="for")
    pools: list[str] | None = None


class ZoneLoss(Part):
    """At `at`, all agents of the zone die; they are replaced `for` seconds later."""

    zone: str
    at: NotNegative
    for_: Positive = Field(default=60.0, alias="for")
    detect_after: NotNegative = 0.0


class AttemptFailure(Part):
    """Each attempt fails with this probability, at this part of its service: uniform, or always the same."""

    probability: Fraction
    at: Literal["uniform"] | Annotated[float, Field(gt=0, le=1)] = "uniform"


class BadAgent(Part):
    """From each whole 1 ÷ `share` agents of a pool in the order of their places, one is bad: each of its attempts fails
    with this probability. `share` 0.1: the 10th, the 20th and so on. `pools` None: of all.

    It is bad from `from` on, for `for` seconds (None: to the end), and so is whoever takes its place.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    at: Literal["uniform"] | Annotated[float, Field(gt=0, le=1)] = "uniform"
    from_: NotNegative = Field(default=0.0, alias="from")
    for_: Positive | None = Field(default=None, alias="for")
    pools: list[str] | None = None


class Faults(Part):
    """All that goes wrong."""

    agent_death: AgentDeath | None = None
    slow_agent: SlowAgent | None = None
    zone_loss: list[ZoneLoss] = Field(default_factory=list)
    attempt_failure: AttemptFailure | None = None
    bad_agents: BadAgent | None = None


class Failures:
    """Whether and where in its service an attempt fails: by Task and attempt, whichever agent runs it when."""

    __slots__ = ("_at", "_chance", "_probability")

    def __init__(self, failure: AttemptFailure | None, seed: int) -> None:
        self._probability = failure.probability if failure is not None else 0.0
        self._at = failure.at if failure is not None else "uniform"
        self._chance = Chance(seed, "attempt-failure")

    def fraction(self, task: int, attempt: int) -> float | None:
        """Return the part of the service after which this attempt (from 1) fails; None if it does not fail."""
        if not self._probability:
            return None
        number = (task << 20) + attempt
        uniform = self._chance(number)
        if uniform >= self._probability:
            return None
        # What is below the probability is uniform there.
        return uniform / self._probability if self._at == "uniform" else self._at


class BadAgents:
    """Whether and where in its service an attempt fails because of the agent that runs it."""

    __slots__ = ("_chance", "_fault")

    def __init__(self, fault: BadAgent | None, seed: int) -> None:
        self._fault = fault
        self._chance = Chance(seed, "bad-agents")

    def bad(self, pool: str, ordinal: int, elapsed: float) -> bool:
        """Whether the agent in this place of the pool is bad so long after the run began."""
        fault = self._fault
        if fault is None or (fault.pools is not None and pool not in fault.pools):
            return False
        if elapsed < fault.from_ or (fault.for_ is not None and elapsed >= fault.from_ + fault.for_):
            return False
        # So that of any first places the share is right, rounded down.
        return int((ordinal + 1) * fault.share + 1e-9) > int(ordinal * fault.share + 1e-9)

    def fraction(self, pool: str, ordinal: int, elapsed: float, task: int, attempt: int) -> float | None:
        """Return the part of the service after which this attempt (from 1) fails; None if it does not for this."""
        fault = self._fault
        if fault is None or not self.bad(pool, ordinal, elapsed):
            return None
        uniform = self._chance((task << 20) + attempt)
        if uniform >= fault.probability:
            return None
        return uniform / fault.probability if fault.at == "uniform" else fault.at
