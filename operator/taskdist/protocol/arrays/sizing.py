"""Sizes of chunks: how many items the next part of an array gets, from the time that items were seen to take.

With s the mean seconds of an item (each finished chunk counts with all its items, those before it with half), R
the items that nobody has yet and P the parts at once:

    size = min(max(target / s, 1), maxItems, grown, max(R / 2P, target / 10s, 1))
    grown = max(2 x largest, min(8 x largest, target / 10s)), where largest is that of the measured chunks

`grown` lets a wrong first guess cost little: the first chunk has one item, and sizes grow eightfold while a chunk is
short, then twofold. Where arrays of the same kind ran before, s is what items took there at first, and the first chunk
fills a tenth of the target at most. The last bound is the "factoring" of Hummel, Schonberg and Flynn (Communications of
the ACM 35(8), 1992): half of what is left is shared out at a time, so that all end at about the same time; but no chunk
gets so small that handing it out costs more than running it. After a chunk that failed the next one has at most half as
many items, and from then on sizes grow twofold only.
"""

from dataclasses import dataclass, field

from taskdist.core.model import Key, Queue

# A queue, and the type of its Tasks.
Kind = tuple[Key, str]

# The share that the items of former chunks have in the mean, each time that another one is measured.
KEPT = 0.5
# A chunk is short up to this share of the target time.
SHORT = 0.1
# How much larger than all before a chunk may be, and one that is short yet.
GROWTH, SHORT_GROWTH = 2, 8

# Of so many kinds of arrays it is kept what their items took.
MOST_KINDS = 1000

# As many parts wait as run, and at least so many: demand grows with what agents take, not with the count.
LEAST_BLANKS = 16


def bounds_waiting(queue: Queue) -> bool:
    """Return whether the queue bounds how many Tasks wait."""
    return queue.quota.waiting is not None or queue.tenant_quota.waiting is not None or queue.overflow is not None


def blanks(left: int, size: int, running: int, parallelism: int, *, alone: bool) -> int:
    """Return how many parts are to wait for agents, where `left` items wait and `running` parts have agents.

    `alone`: one at most. So an array counts as the one Task that it is where the queue bounds how many wait.
    """
    most = 1 if alone else max(LEAST_BLANKS, running)
    return max(0, min(parallelism - running, -(-left // size), most))


@dataclass(slots=True)
class ChunkSizes:
    """The measured times of one array's items, and the size of its next chunk."""

    most: int  # items of one chunk
    target: float  # seconds that a chunk should take
    items: float = 0.0  # that were measured, the last ones most
    seconds: float = 0.0  # that these took
    largest: int = 0  # items of the largest chunk that was measured
    wary: bool = False  # one has failed

    def measured(self, items: int, seconds: float) -> None:
        """A chunk of so many items took this long. What cannot have been measured is left out."""
        if items <= 0 or not 0.0 <= seconds < float("inf"):
            return
        self.items = KEPT * self.items + items
        self.seconds = KEPT * self.seconds + seconds
        self.largest = max(self.largest, items)

    def failed(self, items: int) -> None:
        """A chunk failed when it had begun so many items, and which one is to blame is not known: begin smaller."""
        self.largest, self.wary = min(self.largest, items // (2 * GROWTH)), True

    def next(self, left: int, at_once: int) -> int:
        """Return the size of the next chunk, where `left` items wait and `at_once` parts run; at least 1."""
        if not self.items:
            return 1
        short = self.filling(self.target * SHORT)
        grown = GROWTH * self.largest
        if not self.wary:
            grown = max(grown, min(SHORT_GROWTH * self.largest, short))
        shared = max(-(-left // (2 * max(at_once, 1))), short)
        return max(1, min(self.filling(self.target), grown, shared))

    def filling(self, seconds: float) -> int:
        """Return how many items take about this long, within the bound."""
        each = self.seconds / self.items
        if each * self.most <= seconds:
            return self.most
        return max(1, int(seconds / each))


@dataclass(slots=True)
class Paces:
    """What items of each kind of array took of late, so that the next array of the kind need not begin with one item.

    A kind is a queue and a type. Those that were measured last are kept.
    """

    kinds: dict[Kind, ChunkSizes] = field(default_factory=dict)

    def measured(self, kind: Kind, items: int, seconds: float) -> None:
        """A chunk of an array of this kind took this long."""
        pace = self.kinds.pop(kind, None) or ChunkSizes(1, 0.0)  # it is measured by, and has no chunks of its own
        pace.measured(items, seconds)
        self.kinds[kind] = pace
        if len(self.kinds) > MOST_KINDS:
            del self.kinds[next(iter(self.kinds))]

    def begin(self, kind: Kind, most: int, target: float) -> ChunkSizes:
        """Return the sizes of a new array of this kind."""
        sizes, pace = ChunkSizes(most, target), self.kinds.get(kind)
        if pace is not None and pace.items:
            sizes.items, sizes.seconds = pace.items, pace.seconds
            sizes.largest = min(pace.largest, max(1, sizes.filling(target * SHORT) // SHORT_GROWTH))
        return sizes
