"""How long to wait before trying again. Knows numbers only: no clock, no sleeping."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waits with jitter, in seconds."""

    first: float = 0.1
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    """The share of each wait that is left to chance, so that many clients do not come back together."""

    def wait(self, attempt: int, rng: random.Random) -> float:
        """The wait before try `attempt` (0 is the first one again)."""
        # The exponent is capped: a float overflows near 2**1024, long after `most` has taken over.
        full = min(self.most, self.first * self.factor ** min(attempt, 64))
        return full * (1 - self.jitter * rng.random())
