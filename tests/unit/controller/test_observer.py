"""What the metrics of the dispatch loop count: each lease that a write gives, also where one write gives several."""

from typing import Any

from taskdist.api import Reason
from taskdist.controller.observer import MetricsObserver
from taskdist.core.model import Pool, Queue, RetryPolicy
from taskdist.observability.metrics import Metrics
from taskdist.protocol import convert
from taskdist.protocol.messages import Failure, Result, Started
from taskdist.protocol.observations import Now, Written
from unit.protocol.test_arrays import Array


class Watched(Array):
    """An array whose writes are counted."""

    def watch(self) -> None:
        self.metrics = Metrics()
        self.observer = MetricsObserver(self.metrics, lambda: Now(self.t, self.t))
        self.observer.seen(self.record)

    def stand(self) -> list[Any]:
        write = self.write()
        self.land(write)
        outcome = Written(self.record, convert.payload(self.obj))
        self.observer.wrote(write, outcome)
        return self.do("write_done", write.token, outcome)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def decided(self, kind: str, reason: str) -> float:
        return self.count("taskdist_decisions_total", kind=kind, reason=reason)


def test_each_chunk_of_an_array_is_counted_once() -> None:
    retry = RetryPolicy(initial_seconds=60.0)
    desk = Watched(
        {"count": 100}, Queue("ns", "q", pools=("p",), retry=retry), pool=Pool("ns", "p", slots=4, minimum=2, maximum=2)
    )
    desk.watch()
    desk.join(1, slots=4)
    desk.stand()
    granted = desk.granted()
    assert len(granted) == 4
    queue = {"namespace": "ns", "queue": "q"}
    assert desk.decided("Assign", "Assigned") == 4
    assert desk.count("taskdist_dispatch_seconds_count", **queue) == 1
    for grant in granted:
        desk.observer.received(Started(grant.lease, 0.0))
    assert desk.count("taskdist_start_seconds_count", **queue) == 4
    # A write that brings a result, the end of an attempt, and one more lease.
    desk.t += 1.0
    desk.says(1, Failure(granted[0].lease, Reason.HANDLER_CRASHED, "segfault"))
    first = desk.write()
    desk.land(first)
    outcome = Written(desk.record, b"{}")
    desk.observer.wrote(first, outcome)
    assert desk.decided("Assign", "Assigned") == 4
    assert desk.decided("Retry", "HandlerCrashed") == 1
    desk.do("write_done", first.token, outcome)
    desk.stand()
    assert desk.decided("Assign", "Assigned") == 5
    desk.says(1, Result(granted[1].lease, b"{}", since_start=0.1))
    desk.stand()
    assert desk.count("taskdist_dispatch_seconds_count", **queue) == 1
