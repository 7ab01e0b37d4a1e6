"""Metrics of the dispatch loop: counts what passes through it, and changes nothing."""

from collections.abc import Callable
from typing import Any

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
        phase = action.status.get("phase")
        if phase == Phase.ASSIGNED:
            for lease in _given(action, record):
                since = self._seen.pop(record.task.uid, None)
                if since is not None:
                    self._metrics.dispatched(namespace, queue, now - since)
                if len(self._assigned) >= MOST_TIMES:
                    self._assigned.clear()
                self._assigned[lease] = (now, namespace, queue)
                self._metrics.decided("Assign", Reason.ASSIGNED)
            for reason in _put_back(action):
                self._metrics.decided("Retry", reason)
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


def _given(action: WriteStatus, record: ObservedTask) -> list[LeaseName]:
    """The leases that a write gives: that of its Task, or of an array those of any number of parts."""
    if record.array is None:
        return [record.lease_name]
    written = _parts(action)
    return [
        part.lease_name
        for key, part in record.array.parts.items()
        if part.phase is Phase.ASSIGNED and "attempt" in written.get(key, ())
    ]


def _put_back(action: WriteStatus) -> list[Reason | None]:
    """Why parts of an array wait for another try by this write."""
    waiting = [part for part in _parts(action).values() if part.get("phase") == Phase.PENDING and part.get("failures")]
    return [Reason(part["reason"]) if part.get("reason") else None for part in waiting]


def _parts(action: WriteStatus) -> dict[str, dict[str, Any]]:
    written = (action.status.get("array") or {}).get("parts") or {}
    return {key: part for key, part in written.items() if part is not None}
