"""Metrics of the dispatch loop: counts what passes through it, and changes nothing."""

from collections.abc import Callable

from taskdist.api import Phase, Reason
from taskdist.observability.metrics import Metrics
from taskdist.protocol.messages import FromAgent, LeaseName, Started
from taskdist.protocol.observations import (
    Action,
    Now,
    ObservedTask,
    PoolNotice,
    RemovePod,
    ScalePool,
    WriteOutcome,
    WriteStatus,
    Written,
)

# Times of Tasks that end without ever being assigned here are dropped beyond this many.
MOST_TIMES = 200_000


class MetricsObserver:
    """Feeds `Metrics`. Times are this operator's own: from when it first saw the Task, not the API server's stamp."""

    def __init__(self, metrics: Metrics, clocks: Callable[[], Now]) -> None:
        self._metrics = metrics
        self._clocks = clocks
        self._seen: dict[str, float] = {}
        self._assigned: dict[LeaseName, tuple[float, str, str]] = {}

    def seen(self, record: ObservedTask) -> None:
        """A Task was created while this operator looked on."""
        if record.phase is Phase.PENDING and record.attempt == 0:
            if len(self._seen) >= MOST_TIMES:
                self._seen.clear()
            self._seen[record.task.uid] = self._clocks().boot

    def wrote(self, action: WriteStatus, outcome: WriteOutcome) -> None:
        if not isinstance(outcome, Written):
            return
        record, now = outcome.record, self._clocks().boot
        namespace, queue = record.task.queue_key
        since = self._seen.get(record.task.uid)
        phase = action.status.get("phase")
        if phase == Phase.ASSIGNED:
            if since is not None and record.attempt == 1:
                self._metrics.dispatched(namespace, queue, now - since)
            if len(self._assigned) >= MOST_TIMES:
                self._assigned.clear()
            self._assigned[LeaseName(record.task.uid, record.attempt, record.epoch)] = (now, namespace, queue)
            self._metrics.decided("Assign", Reason.ASSIGNED)
        elif phase is not None and Phase(phase).terminal:
            reason = Reason(action.status.get("reason") or Reason.COMPLETED)
            self._metrics.ended(namespace, queue, Phase(phase), reason)
            self._seen.pop(record.task.uid, None)
            self._assigned.pop(LeaseName(record.task.uid, record.attempt, record.epoch), None)
            if action.status.get("duplicateOf"):
                self._metrics.duplicate(namespace, queue)
            if phase == Phase.FAILED:
                self._metrics.decided("Fail", reason)
        elif phase == Phase.DEAD_LETTERED:
            reason = Reason(action.status.get("reason") or Reason.DEAD_LETTERED)
            self._metrics.dead_lettered(namespace, queue, reason)
            self._metrics.decided("DeadLetter", reason)
            self._assigned.pop(LeaseName(record.task.uid, record.attempt, record.epoch), None)
        elif phase == Phase.PENDING and record.failures:
            self._metrics.decided("Retry", Reason(action.status["reason"]) if action.status.get("reason") else None)

    def acted(self, action: Action) -> None:
        match action:
            case ScalePool():
                self._metrics.decided("Scale", action.reason)
            case RemovePod():
                self._metrics.decided("DeletePod", action.reason)
            case PoolNotice():
                self._metrics.decided("Breaker", action.reason)
            case _:
                pass

    def received(self, message: FromAgent) -> None:
        if isinstance(message, Started):
            known = self._assigned.pop(message.lease, None)
            if known is not None:
                since, namespace, queue = known
                self._metrics.started(namespace, queue, self._clocks().boot - since)
