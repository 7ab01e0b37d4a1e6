"""Sets of small numbers as integers, and a tree that joins many such sets.

Owns the arithmetic only; what the numbers stand for is the callers' business.
"""

from collections.abc import Iterator


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers in the set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def has(mask: int, number: int) -> bool:
    """Whether the number is in the set."""
    return mask >> number & 1 == 1


class OrTree:
    """Leaves hold sets; the root holds their union. Updates and searches cost O(log leaves)."""

    __slots__ = ("_nodes", "_size")

    def __init__(self, leaves: int = 1) -> None:
        size = 1
        while size < leaves:
            size *= 2
        self._size = size
        self._nodes = [0] * (2 * size)

    @property
    def union(self) -> int:
        return self._nodes[1]

    def __getitem__(self, leaf: int) -> int:
        return self._nodes[self._size + leaf] if leaf < self._size else 0

    def __setitem__(self, leaf: int, mask: int) -> None:
        if leaf >= self._size:
            self._grow(leaf + 1)
        nodes = self._nodes
        at = self._size + leaf
        if nodes[at] == mask:
            return
        nodes[at] = mask
        while at > 1:
            joined = nodes[at] | nodes[at ^ 1]
            at >>= 1
            if nodes[at] == joined:
                return
            nodes[at] = joined

    def first(self, wanted: int) -> int | None:
        """Return the lowest leaf whose set meets `wanted`, if any does."""
        nodes = self._nodes
        if not nodes[1] & wanted:
            return None
        at = 1
        while at < self._size:
            at *= 2
            if not nodes[at] & wanted:
                at += 1
        return at - self._size

    def _grow(self, leaves: int) -> None:
        grown = OrTree(leaves)
        for leaf in range(self._size):
            grown[leaf] = self._nodes[self._size + leaf]
        self._size, self._nodes = grown._size, grown._nodes
