"""How much capacity keeps waits below a target: for what waits now, and for what is likely to come.

Owns two formulas and the decaying sums that feed the second. Amounts are in any one unit of capacity (slots, agents),
times in seconds.

*What waits* is a matter of Little's law (1961). N Tasks in a system, of which each is to spend at most T waiting and S
being served, leave it at a rate of N ÷ (S + T), which occupies N·S ÷ (S + T). Where what is busy now does not take in
all that waits within T, the rest needs capacity that is there only after the time D that an agent takes to start; from
then on each takes in one Task at once and 1 ÷ S a second: (n·S − B·T) ÷ (S + T − D) more than the B that are busy.

*What comes* is a matter of square-root staffing. With an offered load a = λ·S, c = a + β·√a keeps all waiting below T
but for a part ε of it, if P(W > T) = P(W > 0) · exp(−(c − a)·T ÷ S) ≤ ε, where P(W > 0) = 1 ÷ (1 + β·Φ(β) ÷ φ(β))
(Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", Operations Research 29, 1981; for
M/M/c the exponential is exact).

Refuses to know pools, agents and bounds.
"""

from math import erf, exp, pi, sqrt

# Of the Tasks, so many may wait longer than the target.
LATE = 0.05
# Arrivals are averaged over about so many seconds; of the first ones it is not believed that they are usual.
WINDOW = 300.0
SETTLED = 120.0
# No more than so many standard deviations are ever added to a load.
MOST_MARGIN = 8.0


class Inflow:
    """Tasks that come, each with the seconds that it is expected to take: sums that fade."""

    __slots__ = ("_at", "_begun", "_seconds", "_tasks")

    def __init__(self) -> None:
        self._begun = -1.0
        self._at = 0.0
        self._tasks = 0.0
        self._seconds = 0.0

    def add(self, seconds: float, at: float) -> None:
        """A Task came then."""
        if self._begun < 0.0:
            self._begun = self._at = at
        elif at > self._at:
            fade = exp((self._at - at) / WINDOW)
            self._tasks *= fade
            self._seconds *= fade
            self._at = at
        self._tasks += 1.0
        self._seconds += seconds

    @property
    def service(self) -> float:
        """Seconds that one takes on average; 0 before the first one came."""
        return self._seconds / self._tasks if self._tasks > 0.0 else 0.0

    def load(self, now: float) -> float:
        """Return how many of them are being served at a time, if none waits."""
        if self._begun < 0.0:
            return 0.0
        fade = exp(min(0.0, self._at - now) / WINDOW)
        seen = 1.0 - exp(-max(SETTLED, now - self._begun) / WINDOW)
        return self._seconds * fade / (WINDOW * seen)


def for_backlog(busy: float, waiting: float, service: float, target: float, start: float) -> float:
    """Return the capacity with which all that waits now starts within the target.

    `start`: how long it takes until more capacity is there. Without a target, or where nothing is known of how long
    Tasks take: an own place for each.
    """
    if service <= 0.0:
        return busy + waiting
    short = waiting * service - busy * target
    if short <= 0.0:
        return (busy + waiting) * service / (service + target)
    return min(busy + waiting, busy + short / (service + max(0.0, target - start)))


def for_arrivals(load: float, service: float, target: float) -> float:
    """Return the capacity with which at most `LATE` of what comes at this load waits longer than the target."""
    if load <= 0.0 or service <= 0.0:
        return load
    root = sqrt(load)
    low, high = 0.0, MOST_MARGIN
    for _ in range(30):
        middle = (low + high) / 2.0
        if _late(middle, root, service, target) > LATE:
            low = middle
        else:
            high = middle
    return load + high * root


def _late(beta: float, root: float, service: float, target: float) -> float:
    """The part that waits longer than the target, with so many square roots of the load to spare."""
    density = exp(-beta * beta / 2.0) / sqrt(2.0 * pi)
    below = (1.0 + erf(beta / sqrt(2.0))) / 2.0
    return exp(-beta * root * target / service) / (1.0 + beta * below / density)
