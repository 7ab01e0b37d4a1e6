"""Changes that the informers tell, passed on to the parts of the operator that they concern."""

import time
from collections.abc import Callable
from typing import Any

from taskdist.api import Dispatch
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.epochs import Epochs, went_back
from taskdist.controller.observer import MetricsObserver
from taskdist.controller.payloads import RecentPayloads
from taskdist.controller.retention import Retention
from taskdist.controller.seen import SeenPool, SeenQueue, is_new_spec
from taskdist.controller.tally import Tally
from taskdist.controller.trust import SeenPod
from taskdist.controller.view.wire import View
from taskdist.core.model import Key
from taskdist.kube import Added, Change, Deleted, Store, Updated
from taskdist.observability.metrics import Metrics
from taskdist.protocol import convert
from taskdist.protocol.observations import ObservedTask


class Hearing:
    """Takes in changes of Tasks, pods, queues and pools: the informers' `on_event`.

    Args:
        look_at: has kopf's side look at pools and queues whose spec is new.
        fail: ends the process.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        view: View,
        epochs: Epochs,
        tally: Tally,
        retention: Retention,
        payloads: RecentPayloads,
        queues: Store[SeenQueue],
        observer: MetricsObserver,
        metrics: Metrics,
        look_at: Callable[[set[Key], set[Key]], None],
        fail: Callable[[], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._view = view
        self._epochs = epochs
        self._tally = tally
        self._retention = retention
        self._payloads = payloads
        self._queues = queues
        self._observer = observer
        self._metrics = metrics
        self._look_at = look_at
        self._fail = fail

    def read(self, obj: dict[str, Any]) -> ObservedTask:
        """Read a Task as the API server sent it: the informer's transform."""
        record = convert.observed_task(obj)
        self._epochs.on_task(record.epoch)
        queue = self._queues.find(*record.task.queue_key)
        if queue is not None and queue.queue.dispatch is Dispatch.LAZY and record.fault is None:
            self._payloads.seen(record, convert.payload(obj))
        return record

    def task(self, event: Change[ObservedTask]) -> None:
        if isinstance(event, Deleted):
            self._tally.gone(event.old.task.uid)
            self._payloads.gone(event.old.task.uid)
            self._retention.gone(event.old, time.time())
            self._dispatcher.task_deleted(event.old.task.uid)
            self._view.task_event(event)
            return
        if isinstance(event, Updated) and went_back(event.old, event.new):
            self._fail()
            return
        self._tally.seen(event.new)
        self._retention.seen(event.new)
        if isinstance(event, Added):
            self._observer.seen(event.new)
        self._dispatcher.task_observed(event.new)
        self._view.task_event(event)

    def pod(self, event: Change[SeenPod]) -> None:
        if isinstance(event, Deleted):
            self._dispatcher.pod_gone(event.old.record)
        else:
            self._dispatcher.pod_observed(event.new.record)

    def queue(self, event: Change[SeenQueue]) -> None:
        if isinstance(event, Deleted):
            key = event.old.queue.key
            self._dispatcher.queue_deleted(key)
            self._retention.queue_deleted(key)
            self._metrics.forget_queue(*key)
            return
        self._retention.queue_applied(event.new.queue.key, event.new.keep)
        # Most changes are of status, which is our own word.
        if not isinstance(event, Updated) or event.new.queue != event.old.queue:
            self._dispatcher.queue_applied(event.new.queue)
        if is_new_spec(event):
            self._look_at(set(), {event.new.queue.key})

    def pool(self, event: Change[SeenPool]) -> None:
        if isinstance(event, Deleted):
            self._dispatcher.pool_deleted(event.old.pool.key)
            return
        # As of queues: most changes are of status.
        if not isinstance(event, Updated) or event.new.pool != event.old.pool:
            self._dispatcher.pool_applied(event.new.pool)
        if is_new_spec(event):
            self._look_at({event.new.pool.key}, set())
