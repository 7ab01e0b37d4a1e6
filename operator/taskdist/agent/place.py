"""The place of a worker in its chunk: which item it is at, in memory that it shares with its supervisor.

When a worker dies, this is all that is known of what it did: so the item that it died at fails, and the others do not.
User code runs in the worker and may write there: what is read is a number within the chunk, or nothing.
"""

import mmap
import os
import struct

from taskdist.agent.outcomes import Failed, Outcome, Returned
from taskdist.api import Reason
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, encode
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet, Span
from taskdist.protocol.messages import Grant

_NUMBER = struct.Struct("=q")
NOWHERE = -1


class Place:
    """A number in shared memory: how many items of the chunk have ended, or NOWHERE."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _NUMBER.size)

    @classmethod
    def create(cls) -> tuple["Place", int]:
        """Return a new one, at NOWHERE, and the descriptor that a worker opens it by. The caller closes that."""
        descriptor = os.memfd_create("taskdist-place")
        os.ftruncate(descriptor, _NUMBER.size)
        place = cls(descriptor)
        place.put(NOWHERE)
        return place, descriptor

    def put(self, ended: int) -> None:
        """So many items have ended, and the next one begins."""
        _NUMBER.pack_into(self._memory, 0, ended)

    def read(self, items: int) -> int | None:
        """Return how many of so many items had ended when the next one began; None if none is known to have begun."""
        ended: int = _NUMBER.unpack_from(self._memory, 0)[0]
        return ended if 0 <= ended < items else None

    def close(self) -> None:
        self._memory.close()


def died_at(grant: Grant, place: Place, how: str) -> Outcome:
    """Return what is told of an attempt whose worker died: of a chunk only the item that it died at has failed.

    What those before it returned died with the worker: they are given back as items that were begun, so that they are
    run again unless their queue delivers at most once.
    """
    failed = Failed(Reason.HANDLER_CRASHED, f"{how} while it ran the attempt")
    items = IndexSet(tuple(Span(*span) for span in grant.chunk.spans)) if grant.chunk is not None else EMPTY
    if (ended := place.read(len(items))) is None:
        return failed
    before, begun = items.take(ended), items.take(ended + 1)
    said = [FailedItems(begun - before, failed.reason, f"{how} while it ran the item")]
    if before:
        said.append(FailedItems(before, Reason.GIVEN_BACK, f"{how} before it told what they returned"))
    return Returned(encode(ChunkResult(failed=tuple(said), left=items - begun)))
