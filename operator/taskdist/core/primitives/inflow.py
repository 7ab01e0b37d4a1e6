"""Recent arrivals: their rate, their mean service time, and the load that they would be.

Sums that fade exponentially: what came a `WINDOW` ago weighs 1/e of what comes now. Refuses to know what it is that
comes.
"""

from math import exp
from typing import Final

# Arrivals are averaged over about `WINDOW` seconds. The first ones say little of the usual rate: they count as if they
# had come within `LEAST_SPAN` seconds.
WINDOW: Final = 300.0
LEAST_SPAN: Final = 120.0
# The present rate is averaged over no fewer seconds.
LEAST_HORIZON: Final = 1.0
USUAL_HORIZON: Final = 10.0


class Inflow:
    """Recent arrivals of Tasks and their expected service times, as sums that fade exponentially."""

    __slots__ = ("_at", "_begun", "_horizon", "_lately", "_seconds", "_tasks")

    def __init__(self) -> None:
        # The seconds over which the present rate is averaged.
        self._horizon = USUAL_HORIZON
        self._begun = -1.0
        self._at = 0.0
        self._tasks = 0.0
        self._seconds = 0.0
        self._lately = 0.0

    def add(self, seconds: float, at: float) -> None:
        """Add a Task that came at `at` and is expected to take `seconds`."""
        if self._begun < 0.0:
            self._begun = self._at = at
        elif at > self._at:
            passed = at - self._at
            fade = exp(-passed / WINDOW)
            self._tasks *= fade
            self._seconds *= fade
            self._lately *= exp(-passed / self._horizon)
            self._at = at
        self._tasks += 1.0
        self._seconds += seconds
        self._lately += 1.0

    def rate(self, now: float) -> float:
        """Return the present rate of arrivals, in Tasks a second."""
        return self._lately * exp(min(0.0, self._at - now) / self._horizon) / self._horizon

    def look_ahead(self, seconds: float) -> None:
        """Average the present rate over as many seconds as are looked ahead, so that it does not follow chance."""
        horizon = max(LEAST_HORIZON, seconds)
        if horizon != self._horizon:
            self._lately *= horizon / self._horizon
            self._horizon = horizon

    @property
    def tasks(self) -> float:
        """How many came lately, in weights that fade."""
        return self._tasks

    @property
    def service(self) -> float:
        """Seconds that one takes on average; 0 before the first one came."""
        return self._seconds / self._tasks if self._tasks > 0.0 else 0.0

    def load(self, now: float) -> float:
        """Return the offered load: how many Tasks are being served at a time if none waits."""
        if self._begun < 0.0:
            return 0.0
        fade = exp(min(0.0, self._at - now) / WINDOW)
        seen = 1.0 - exp(-max(LEAST_SPAN, now - self._begun) / WINDOW)
        return self._seconds * fade / (WINDOW * seen)
