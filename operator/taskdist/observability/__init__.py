"""What the operator shows of itself: metrics, logs, Kubernetes Events, and the small servers that carry them.

Takes plain values and never looks into another room's state; decides nothing. Nothing is set up at import: the
composition root builds each part and passes it on.
"""

from taskdist.observability.events import Recorder, Subject
from taskdist.observability.logs import bind_task, configure
from taskdist.observability.metrics import Metrics, Snapshot
from taskdist.observability.serve import HealthServer, MetricsServer

__all__ = [
    "HealthServer",
    "Metrics",
    "MetricsServer",
    "Recorder",
    "Snapshot",
    "Subject",
    "bind_task",
    "configure",
]
