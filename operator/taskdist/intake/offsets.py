"""The offsets of a partition that are dealt with, and up to where that may be told to the broker. Pure.

A broker that counts by offsets is told one number for all messages before it. So an offset is given only once all
before it are dealt with, however many after it are.
"""

from collections import deque


class Partition:
    """The messages of one partition that were read. `start`: the offset that is read first."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._read: deque[int] = deque()
        self._open: set[int] = set()

    @property
    def next(self) -> int:
        """The offset from which on nothing was read yet."""
        return self._next

    @property
    def watermark(self) -> int:
        """The offset before which all messages are dealt with."""
        return self._read[0] if self._read else self._next

    @property
    def span(self) -> int:
        """The number of offsets that would be read once more if all ended now."""
        return self._next - self.watermark

    def read(self, offset: int) -> None:
        """Take note of a message that was read. Offsets rise, and may have gaps: not each of them is a message."""
        assert offset >= self._next, "what was read is not read again"
        self._read.append(offset)
        self._open.add(offset)
        self._next = offset + 1

    def done(self, offset: int) -> None:
        """Take note of a message that is dealt with."""
        self._open.remove(offset)
        while self._read and self._read[0] not in self._open:
            self._read.popleft()
