"""What the gateway knows of queues: whether they take Tasks, and when one that is full should be asked again."""

from typing import NamedTuple

from taskdist.client.states import closed_by
from taskdist.core.model import Queue
from taskdist.gateway.board import Board
from taskdist.gateway.problems import Problem
from taskdist.kube import Aside, Change, Deleted, Obj
from taskdist.protocol import convert
from taskdist.protocol.backpressure import Cause, marks

SHORTEST, LONGEST = 1.0, 300.0
"""Of a wait that is advised, in seconds."""


class SeenQueue(NamedTuple):
    """What is kept of a queue."""

    queue: Queue
    closed: str | None
    """Why it takes no Tasks; None where it takes them."""


def seen_queue(obj: Obj) -> SeenQueue:
    """The informer's transform."""
    return SeenQueue(convert.queue(obj), closed_by(obj))


class Queues:
    """All queues, as their status last said."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._queues: dict[tuple[str, str], SeenQueue] = {}

    def hear(self, event: Change[SeenQueue] | Aside) -> None:
        """Take in a change: the informer's `on_event`."""
        if isinstance(event, Aside):
            return
        if isinstance(event, Deleted):
            self._queues.pop(event.old.queue.key, None)
            self._board.queue_gone(event.old.queue.key)
        else:
            self._queues[event.new.queue.key] = event.new

    def is_closed(self, namespace: str, name: str) -> bool:
        """Whether the queue takes no Tasks, as far as is known."""
        found = self._queues.get((namespace, name))
        return found is not None and found.closed is not None

    def full(self, namespace: str, name: str, otherwise: float) -> Problem:
        """Return the answer to a Task for this queue, whose door is closed; `otherwise`: when to ask, if nothing tells.

        What the API server refuses by may be a moment ahead of what is known here.
        """
        found = self._queues.get((namespace, name))
        words = "Submit again later." if found is None or found.closed is None else found.closed
        seconds = otherwise if found is None else self._seconds(found.queue) or otherwise
        return Problem(
            429, f"TaskQueue {name} takes no new Tasks now. {words}", reason="QueueFull", retry_after=seconds
        )

    def _seconds(self, queue: Queue) -> float | None:
        """Return when the queue should be open again: what is above its low mark ÷ how fast its Tasks end."""
        speed = self._board.ends_per_second(*queue.key)
        lows = [mark.low for mark in marks(queue) if mark.cause is not Cause.PAYLOAD]
        if not speed or not lows:
            return None
        above = self._board.pending(*queue.key) - min(lows)
        return min(LONGEST, max(SHORTEST, above / speed))
