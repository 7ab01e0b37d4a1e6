"""A token bucket: how many attempts may start in a time, or how much they may spend.

Owns the arithmetic of one bucket. Refuses to know who takes a token, or who waits for one. The token bucket is that of
RFC 3290, appendix A, here with tokens below zero for those that may not be kept waiting.
"""

from typing import Final

from taskdist.core.model import TokenRate

# So many of a bucket's highest levels are remembered; beyond that an earlier one counts as a later one.
PEAKS: Final = 64


class _Peak:
    """How many tokens there were at a time."""

    __slots__ = ("at", "level")

    def __init__(self, at: float, level: float) -> None:
        self.at = at
        self.level = level


class Bucket:
    """A token bucket: full with `burst` tokens at first, `per_second` more each second; a grant takes one, or an
    amount.

    Over any window of t seconds what is taken by grants that waited for it is at most burst + per_second × t. What is
    given back late is less than what was taken if the bucket would have been full in between: then it would have had no
    room for what came, had the token never been taken.
    """

    __slots__ = ("_at", "_peaks", "_tokens", "rate")

    def __init__(self, rate: TokenRate) -> None:
        self.rate = rate
        # This many were there at that time; before the first use it has always been full.
        self._tokens = float(rate.burst)
        self._at = 0.0
        # Levels right before takes: those that no later one reaches.
        self._peaks: list[_Peak] = []

    def adopt(self, rate: TokenRate, now: float) -> None:
        """Adopt other terms. Tokens stay, as far as the new burst has room for them."""
        if rate is not self.rate:
            self._tokens = min(self.tokens(now), float(rate.burst))
            self._at = now
            self.rate = rate

    def opens_at(self, amount: float = 1.0) -> float:
        """Return the time from which so many tokens are there: exactly when `has` turns true."""
        return self._at if self._tokens >= amount else self._at + (amount - self._tokens) / self.rate.per_second

    def has(self, amount: float, now: float) -> bool:
        return self._tokens >= amount or now >= self._at + (amount - self._tokens) / self.rate.per_second

    def has_token(self, now: float) -> bool:
        return self.has(1.0, now)

    def tokens(self, now: float) -> float:
        """Return how many tokens are there. Below zero: how many were taken ahead."""
        tokens, rate = self._tokens, self.rate
        if now > self._at:
            tokens = min(rate.burst, tokens + (now - self._at) * rate.per_second)
        # What was promised for this moment is there at this moment, whatever was rounded.
        return 1.0 if tokens < 1.0 and self.has_token(now) else tokens

    def full(self, now: float) -> bool:
        """Whether it is as if it had never been used."""
        return self.tokens(now) >= self.rate.burst

    def take(self, now: float, amount: float = 1.0) -> None:
        """Take tokens, whether they are there or not."""
        tokens, peaks = self.tokens(now), self._peaks
        while peaks and peaks[-1].level <= tokens:
            peaks.pop()
        if not peaks or peaks[-1].at != now:
            peaks.append(_Peak(now, tokens))
            if len(peaks) > PEAKS:
                peaks[:2] = [_Peak(peaks[1].at, peaks[0].level)]
        self._tokens = tokens - amount
        self._at = now

    def fill(self, tokens: float, now: float) -> None:
        """Set how many tokens were there at that time."""
        self._tokens = min(float(self.rate.burst), tokens)
        self._at = now
        self._peaks = []

    def give_back(self, now: float, *, since: float, amount: float = 1.0) -> None:
        """Return tokens that were taken at `since` and not used. Below zero: more were used than taken."""
        tokens = self.tokens(now)
        if amount > 0.0:
            highest = tokens
            for peak in self._peaks:
                if peak.at > since and peak.level > highest:
                    highest = peak.level
            amount = max(0.0, min(amount, self.rate.burst - highest))
            self._peaks = [_Peak(each.at, each.level + amount) if each.at > since else each for each in self._peaks]
        self._tokens = tokens + amount
        self._at = now


def under(bucket: Bucket | None, rate: TokenRate, now: float) -> Bucket:
    """Return the bucket under its present terms: a new one if there is none yet."""
    if bucket is None:
        return Bucket(rate)
    if bucket.rate is not rate:
        bucket.adopt(rate, now)
    return bucket
