"""Sizes of chunks: how many items the next part of an array gets, from the time that items were seen to take.

With s the mean seconds of an item (each finished chunk counts a third, all before it two thirds), R the items that
nobody has yet and P the parts at once:

    size = min(max(target / s, 1), maxItems, 2 x largest measured chunk, max(R / 2P, target / 10s, 1))

The third bound lets a wrong first guess cost little: the first chunk has one item. The last one is the "factoring" of
Hummel, Schonberg and Flynn (Communications of the ACM 35(8), 1992): half of what is left is shared out at a time, so
that all end at about the same time; but no chunk gets so small that handing it out costs more than running it.
"""

from dataclasses import dataclass

# The share of the newest chunk in the mean time of an item.
WEIGHT = 1 / 3
# At the end of an array chunks get smaller, down to this share of what fills the target time.
LEAST_SHARE = 0.1

# As many parts wait as run, and at least so many: demand grows with what agents take, not with the count.
LEAST_BLANKS = 16


def blanks(left: int, size: int, running: int, parallelism: int) -> int:
    """Return how many parts are to wait for agents, where `left` items wait and `running` parts have agents."""
    return max(0, min(parallelism - running, -(-left // size), max(LEAST_BLANKS, running)))


@dataclass(slots=True)
class ChunkSizes:
    """The measured times of one array's items, and the size of its next chunk."""

    most: int  # items of one chunk
    target: float  # seconds that a chunk should take
    mean: float | None = None  # seconds of an item; None: none was measured
    largest: int = 0  # items of the largest chunk that was measured

    def measured(self, items: int, seconds: float) -> None:
        """A chunk of so many items took this long. What cannot have been measured is left out."""
        if items <= 0 or not 0.0 <= seconds < float("inf"):
            return
        each = seconds / items
        self.mean = each if self.mean is None else self.mean + WEIGHT * (each - self.mean)
        self.largest = max(self.largest, items)

    def next(self, left: int, at_once: int) -> int:
        """Return the size of the next chunk, where `left` items wait and `at_once` parts run; at least 1."""
        if self.mean is None:
            return 1
        filling = self._filling(self.target)
        shared = max(-(-left // (2 * max(at_once, 1))), self._filling(self.target * LEAST_SHARE))
        return max(1, min(filling, 2 * self.largest, shared))

    def _filling(self, seconds: float) -> int:
        """Return how many items take about this long, within the bound."""
        if not self.mean or self.mean * self.most <= seconds:
            return self.most
        return max(1, int(seconds / self.mean))
