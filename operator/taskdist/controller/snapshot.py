"""What the metrics show of this moment, taken from the machine that runs. Asked at each scrape."""

from taskdist.controller.dispatch import Dispatcher
from taskdist.observability.metrics import Snapshot


def snapshot(dispatcher: Dispatcher, epoch: int | None) -> Snapshot:
    """Return the gauges; those of a replica that does not lead are zero."""
    leader = dispatcher.leader
    if leader is None:
        return Snapshot(leader=epoch is not None, epoch=epoch or 0)
    return Snapshot(leader=epoch is not None, epoch=epoch or 0)
