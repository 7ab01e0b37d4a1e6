"""Sets of item indexes as sorted ranges, and their text: `0-99,105,110-119`.

Items are handed out in runs and end in runs, so that a set of a million takes a few ranges. Each operation costs as
much as there are ranges, however many indexes they hold.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

# What an index can be at most, and so the longest text of one.
MOST_ITEMS = 1_000_000


class Span(NamedTuple):
    """A run of indexes, both ends included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class IndexSet:
    """A set of indexes. `spans` are in order, and no two of them touch."""

    spans: tuple[Span, ...] = ()

    @staticmethod
    def span(first: int, last: int) -> "IndexSet":
        """Return all from `first` to `last`; empty if `last` is less."""
        return IndexSet((Span(first, last),)) if first <= last else EMPTY

    @staticmethod
    def of(indexes: Iterable[int]) -> "IndexSet":
        """Return these indexes, in whatever order they come."""
        return _joined([Span(each, each) for each in sorted(set(indexes))])

    @staticmethod
    def union(sets: Iterable["IndexSet"]) -> "IndexSet":
        """Return what any of the sets holds."""
        spans = [span for each in sets for span in each.spans]
        spans.sort()
        return _joined(spans)

    @staticmethod
    def parse(text: str) -> "IndexSet":
        """Read the text of a set. Raises ValueError for what `str` never gives, so that a set has one text only."""
        spans: list[Span] = []
        for word in text.split(",") if text else ():
            first, dash, last = word.partition("-")
            span = Span(_number(first), _number(last if dash else first))
            if span.first > span.last or (dash and span.first == span.last):
                raise ValueError(f"{word!r} is no range")
            if spans and span.first <= spans[-1].last + 1:
                raise ValueError(f"{word!r} is no range in order")
            spans.append(span)
        return IndexSet(tuple(spans))

    def __str__(self) -> str:
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.spans)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.spans:
            yield from range(first, last + 1)

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self.spans, index, key=itemgetter(0)) - 1
        return at >= 0 and index <= self.spans[at].last

    def __or__(self, other: "IndexSet") -> "IndexSet":
        if not self.spans or not other.spans:
            return self if self.spans else other
        return IndexSet.union((self, other))

    def __sub__(self, other: "IndexSet") -> "IndexSet":
        if not self.spans or not other.spans:
            return self
        left: list[Span] = []
        others, at = other.spans, 0
        for first, last in self.spans:
            while at < len(others) and others[at].last < first:
                at += 1
            n = at
            while n < len(others) and others[n].first <= last:
                if others[n].first > first:
                    left.append(Span(first, others[n].first - 1))
                first = others[n].last + 1
                n += 1
            if first <= last:
                left.append(Span(first, last))
        return IndexSet(tuple(left))

    def __and__(self, other: "IndexSet") -> "IndexSet":
        return self - (self - other)

    def __le__(self, other: "IndexSet") -> bool:
        return not self - other

    def take(self, count: int) -> "IndexSet":
        """Return the lowest `count` of them."""
        taken: list[Span] = []
        for first, last in self.spans:
            if count <= 0:
                break
            end = min(last, first + count - 1)
            taken.append(Span(first, end))
            count -= end - first + 1
        return IndexSet(tuple(taken))


EMPTY = IndexSet()


def _joined(spans: list[Span]) -> IndexSet:
    """Join sorted spans that overlap or touch."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.first <= joined[-1].last + 1:
            if span.last > joined[-1].last:
                joined[-1] = Span(joined[-1].first, span.last)
        else:
            joined.append(span)
    return IndexSet(tuple(joined))


def _number(text: str) -> int:
    """Read an index. `int` takes signs, spaces and digits of other scripts as well."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 7 or (text[0] == "0" and len(text) > 1):
        raise ValueError(f"{text[:20]!r} is no index")
    if (number := int(text)) >= MOST_ITEMS:
        raise ValueError(f"{number} is beyond the last index of any array")
    return number
