"""The metrics of the MCP door over HTTP."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds, 5 ms to 10 min: a wait is as long as the Task.
DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Measures:
    """Counters of requests and their times, in a registry of its own."""

    def __init__(self, under_way: Callable[[], float] = lambda: 0.0) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "taskdist_mcp_requests", "Requests over HTTP, by status.", ("status",), registry=self.registry
        )
        self._seconds = Histogram(
            "taskdist_mcp_request_seconds",
            "How long requests took; a wait for a Task is as long as the Task.",
            buckets=DELAYS,
            registry=self.registry,
        )
        calls = Gauge("taskdist_mcp_calls", "Calls under way.", registry=self.registry)
        calls.set_function(under_way)

    def request(self, status: int, seconds: float) -> None:
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
