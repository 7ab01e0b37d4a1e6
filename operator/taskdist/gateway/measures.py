"""The gateway's metrics."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds, 1 ms to 5 min: a wait is as long as the Task.
DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TASKS = "taskdist_gateway_tasks"
WAITING = "taskdist_gateway_waiting"
SILENT = "taskdist_gateway_watch_silent_seconds"
GAUGES = {
    TASKS: "Tasks in view.",
    WAITING: "Requests that wait for a Task or stream.",
    SILENT: "For how long the watch of Tasks has said nothing; infinite before the first list.",
}


class Measures:
    """What is counted as it happens, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "taskdist_gateway_requests",
            "Requests, by method, path as the description has it, and status.",
            ("method", "path", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "taskdist_gateway_request_seconds",
            "How long answers took to begin; a wait for a Task is as long as the Task.",
            ("method", "path"),
            buckets=DELAYS,
            registry=self.registry,
        )

        self._deliveries = Counter(
            "taskdist_gateway_deliveries",
            "Deliveries of webhooks, each event of a batch for itself, by source and by what became of them.",
            ("namespace", "source", "outcome"),
            registry=self.registry,
        )

    def delivery(self, namespace: str, source: str, outcome: str) -> None:
        """Count a delivery to a source that is there: names that strangers make up are no labels."""
        self._deliveries.labels(namespace, source, outcome).inc()

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        # A method is the caller's word: those that no route has are one.
        known = method if method in ("GET", "POST", "PATCH", "DELETE") else "other"
        self._requests.labels(known, path, str(status)).inc()
        self._seconds.labels(known, path).observe(seconds)

    def show(self, look: Callable[[], Mapping[str, float]]) -> None:
        """Show the gauges too, looked up at each scrape."""
        self.registry.register(_Gauges(look))


class _Gauges(Collector):
    def __init__(self, look: Callable[[], Mapping[str, float]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        for name, value in self._look().items():
            yield GaugeMetricFamily(name, GAUGES[name], value)
