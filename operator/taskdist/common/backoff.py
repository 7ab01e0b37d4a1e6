"""How long to wait before trying again. Knows numbers only: no clock, no sleeping.

All that waits before another try asks here. Three do not, and say why: a Task's retries follow the policy that its
queue's user wrote, with chance out of a hash so that a replay decides alike (`core`); the protocol is pure, and draws
nothing; a server's own Retry-After is its word.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waits in seconds: `first`, then `factor` times as long each time, up to `most`.

    Tries are counted from 0, the first one again. The count belongs to the caller, who knows what a success is.
    """

    first: float = 0.1
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    """The share of each wait that `wait` leaves to chance, so that many clients do not come back together."""

    def full(self, attempt: int) -> float:
        """The wait before try `attempt` without chance: for what only one process on one machine does."""
        # The exponent is capped: a float overflows near 2**1024, long after `most` has taken over.
        return min(self.most, self.first * self.factor ** min(attempt, 64))

    def wait(self, attempt: int, rng: random.Random) -> float:
        """The wait before try `attempt`, spread by chance: at most the full one, and more than (1 - jitter) of it."""
        return self.full(attempt) * (1 - self.jitter * rng.random())
