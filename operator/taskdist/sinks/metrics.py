"""The process's metrics. Label values are bounded by the sinks that exist, and by enums."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from taskdist.api import SinkReason
from taskdist.elected.keeper import Key
from taskdist.elected.metrics import ReadyGauge


class SinkMetrics:
    """Counters and gauges of the process that runs the sinks, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        sink = ("namespace", "sink")
        self._delivered = self._counter("taskdist_sink_delivered_total", "Ends that were told.", sink)
        self._undelivered = self._counter("taskdist_sink_undelivered_total", "Ends that were given up.", sink)
        self._lost = self._counter(
            "taskdist_sink_lost_total", "Ends whose Task was deleted before they were told.", sink
        )
        self._tries = self._counter(
            "taskdist_sink_failed_tries_total", "Tries that failed, by what that says of the end.", (*sink, "failure")
        )
        self._failures = self._counter(
            "taskdist_sink_failures_total", "How often a sink failed and was begun again.", sink
        )
        self._pending = self._gauge("taskdist_sink_pending", "Ends that are read and not told yet.", sink)
        self._lag = self._gauge("taskdist_sink_lag_seconds", "How long ago the first of them ended.", sink)
        self._ready = ReadyGauge(
            "taskdist_sink_ready", "1 if ends are told, else 0; by the reason in its status.", "sink", self.registry
        )
        self._leader = self._gauge("taskdist_sinks_leader", "1 if this process runs the sinks, else 0.", ())

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def delivered(self, key: Key) -> None:
        self._delivered.labels(*key).inc()

    def undelivered(self, key: Key) -> None:
        self._undelivered.labels(*key).inc()

    def lost(self, key: Key) -> None:
        self._lost.labels(*key).inc()

    def try_failed(self, key: Key, failure: str) -> None:
        self._tries.labels(*key, failure).inc()

    def failed(self, key: Key) -> None:
        self._failures.labels(*key).inc()

    def waiting(self, key: Key, pending: int, lag: float) -> None:
        self._pending.labels(*key).set(pending)
        self._lag.labels(*key).set(max(lag, 0.0))

    def said(self, key: Key, ready: bool, reason: SinkReason) -> None:
        """The sink says this of itself now."""
        self._ready.said(key, ready, str(reason))

    def gone(self, key: Key) -> None:
        """The sink is there no more: what was so of it is not told further. What happened stays counted."""
        self._ready.gone(key)
        for gauge in (self._pending, self._lag):
            gauge.remove_by_labels({"namespace": key[0], "sink": key[1]})

    def leads(self, leading: bool) -> None:
        self._leader.set(int(leading))
