"""The circuit breaker's rule: whether an agent fails where others of its pool succeed.

Owns what is evidence and when it is enough (M. Nygard, "Release It!", 2007, for the breaker; Envoy's outlier detection
for comparing with the other hosts, for times that grow with each ejection, and for the bound on how many are out).
Each attempt is weighed against how the type fails on the pool's other agents lately: with N attempts of the agent, F of
them failed, and E the failures that those others would have had, the breaker opens when

    N − E ≥ minAttempts,   F − E ≥ failureRatio × (N − E),   F − E > 3 × √V

with V the variance of the others' failures. A type that fails everywhere gives E = F, so no evidence; one that fails by
chance has to fail here three standard deviations more often. Each of the other agents has one vote on a type, its last
attempt, so that an agent that draws much work by failing fast does not outvote them. Refuses to hold an agent back.
"""

from collections import deque
from math import sqrt
from typing import Final

from taskdist.core.model import Breaker

# The most agents that have a vote on a type: those that tried it last.
VOTERS: Final = 64
# With fewer, three standard deviations are out of reach where half of the others fail, or just one other is known.
LEAST: Final = 10
# Standard deviations of chance by which an agent has to be worse than the others.
SIGMAS: Final = 3.0
# Probes that fail open a breaker again if an agent like the others had failed them with this chance or less.
CHANCE: Final = 0.1


class _Vote:
    """When an agent tried a type last, and whether it failed."""

    __slots__ = ("at", "failed")

    def __init__(self, at: float, failed: bool) -> None:
        self.at = at
        self.failed = failed


class Votes:
    """The last result of each agent of a pool at one type of Task."""

    __slots__ = ("_failing", "_last")

    def __init__(self) -> None:
        self._last: dict[str, _Vote] = {}
        self._failing = 0

    def cast(self, uid: str, failed: bool, now: float) -> None:
        last = self._last
        former = last.get(uid)
        if former is not None:
            self._failing -= former.failed
            del last[uid]
        last[uid] = _Vote(now, failed)
        self._failing += failed
        if len(last) > VOTERS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._last))
        self._failing -= self._last[oldest].failed
        del self._last[oldest]

    def odds(self, uid: str, now: float, window: float) -> float:
        """Return how likely one of the others fails: (1 + those that did) ÷ (1 + those that tried) in that window.

        The one that is added has failed: where nobody else tried, nothing speaks against this agent.
        """
        # Asked seldom: old votes go here, not where they are cast.
        while self._last and next(iter(self._last.values())).at < now - window:
            self._drop_oldest()
        own = self._last.get(uid)
        failing, voters = self._failing, len(self._last)
        if own is not None:
            failing -= own.failed
            voters -= 1
        return (1 + failing) / (1 + voters)


class _Seen:
    """An attempt of an agent: when it ended, whether it failed, and how the other agents do at its type."""

    __slots__ = ("at", "failed", "votes")

    def __init__(self, at: float, failed: bool, votes: Votes) -> None:
        self.at = at
        self.failed = failed
        self.votes = votes


class Evidence:
    """An agent's last attempts: twice as many as it takes to judge, and no fewer than `LEAST`."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()

    def add(self, failed: bool, votes: Votes, rules: Breaker, now: float) -> None:
        seen = self._seen
        seen.append(_Seen(now, failed, votes))
        if len(seen) > max(LEAST, 2 * rules.min_attempts):
            seen.popleft()

    def clear(self) -> None:
        self._seen.clear()

    def condemns(self, uid: str, rules: Breaker, now: float) -> tuple[int, int] | None:
        """Return (failures, attempts) if they open the breaker, else None."""
        seen = self._seen
        while seen and seen[0].at < now - rules.window_seconds:
            seen.popleft()
        failures, expected, variance = 0, 0.0, 0.0
        for each in seen:
            odds = each.votes.odds(uid, now, rules.window_seconds)
            failures += each.failed
            expected += odds
            variance += odds * (1.0 - odds)
        judged, excess = len(seen) - expected, failures - expected
        if judged < rules.min_attempts or excess < rules.failure_ratio * judged or excess <= SIGMAS * sqrt(variance):
            return None
        return failures, len(seen)


def open_seconds(rules: Breaker, times: int) -> float:
    """How long it stays open the time number `times` in a row (from 1): min(max, open × 2^(times − 1))."""
    seconds = rules.open_seconds
    for _ in range(times - 1):
        # Step by step, not as a power: large exponents would overflow long after the bound was passed.
        if seconds >= rules.max_open_seconds:
            break
        seconds *= 2.0
    return min(rules.max_open_seconds, seconds)


def most_open(rules: Breaker, ready: int) -> int:
    """How many of a pool's ready agents may have an open breaker at once: rounded down, so never all of them."""
    return ready * rules.most_open_percent // 100
