"""The status of a sink, written by this process alone, on the version that was last seen."""

from collections.abc import Callable
from datetime import UTC, datetime

from taskdist.api import SinkReason, TaskSink, TaskSinkStatus
from taskdist.api.tasksink import Undelivered
from taskdist.common.times import read
from taskdist.elected.keeper import Key
from taskdist.kube import TASKSINKS, Client
from taskdist.kube.conditions import MESSAGE_LENGTH, told_conditions
from taskdist.kube.own_status import OwnStatus
from taskdist.outgoing.delivery import Delivery
from taskdist.outgoing.ends import End
from taskdist.sinks.metrics import SinkMetrics

# Reasons for which only a change of the sink helps.
_STALLED = (SinkReason.INVALID_TEMPLATE, SinkReason.RECEIVER_GONE, SinkReason.UNREADABLE)


class Reporter:
    """The status of one sink, as it is to be.

    Args:
        leading: whether this process leads; asked before each write.
    """

    def __init__(
        self,
        client: Client,
        sink: TaskSink,
        metrics: SinkMetrics,
        leading: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._own = OwnStatus(client, TASKSINKS, sink.metadata, leading)
        self._metadata = sink.metadata
        self._now = now
        self.metrics = metrics
        self.status: TaskSinkStatus = sink.status.model_copy(deep=True)

    @property
    def key(self) -> Key:
        return self._metadata.namespace, self._metadata.name

    def say(self, reason: SinkReason, message: str) -> None:
        """Say how it is. Nothing is written before `flush`."""
        ready, stalled = reason is SinkReason.DELIVERING, reason in _STALLED
        settled = ready or stalled or reason is SinkReason.SUSPENDED
        self.status.observed_generation = self._metadata.generation
        self.status.conditions = told_conditions(
            self.status.conditions,
            str(reason),
            message,
            self._metadata.generation,
            self._now().timestamp(),
            ready=ready,
            stalled=stalled,
            settled=settled,
        )
        self.metrics.said(self.key, ready, reason)

    def delivered(self) -> None:
        self.metrics.delivered(self.key)
        self.status.delivered += 1

    def lost(self) -> None:
        self.metrics.lost(self.key)
        self.status.lost += 1

    def undelivered(self, end: End, why: str) -> None:
        """An end is given up."""
        self.metrics.undelivered(self.key)
        self.status.undelivered += 1
        at = self._now().replace(microsecond=0)
        self.status.last_undelivered = Undelivered(id=end.id[:128], task=end.name, message=why[:MESSAGE_LENGTH], at=at)

    def look(self, delivery: Delivery) -> None:
        """Take over how far it is."""
        oldest = read(delivery.oldest() or None)
        self.status.position = delivery.position
        self.status.pending = delivery.pending
        self.status.oldest = None if oldest is None else oldest.astimezone(UTC).replace(microsecond=0)
        lag = 0.0 if oldest is None else (self._now() - oldest).total_seconds()
        self.metrics.waiting(self.key, delivery.pending, lag)

    async def confirm(self) -> None:
        """Make sure that the sink is there and as it was. Raises `Gone`, `Changed` or `KubeError`."""
        await self._own.confirm()

    async def flush(self, *, conditions_only: bool = False) -> None:
        """Write the status, if it is not what was written last. Raises like `confirm`.

        `conditions_only`: the rest of it could not be read, and stays as it is.
        """
        patch = {"oldest": None, "lastUndelivered": None} | self.status.to_wire()
        await self._own.flush(patch, conditions_only=conditions_only)


def position_of(sink: TaskSink) -> int:
    """Up to where all is told, as its status says; 0 where that is of another history: etcd was restored since."""
    version = sink.metadata.resource_version
    written = int(version) if version.isdecimal() else 0
    return sink.status.position if sink.status.position < written else 0
