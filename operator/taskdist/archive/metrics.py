"""The archive's metrics: names and labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class State:
    """Values of the gauges at one moment."""

    active: bool = False
    backlog: int = 0
    backlog_bytes: int = 0
    lag_seconds: float = 0.0


class ArchiveMetrics:
    """Counters and gauges of one archive process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._state: Callable[[], State] = State
        self._archived = self._counter(
            "taskdist_archive_tasks_total",
            "Ended Tasks that were read: new in the database, replaced by a later state, known already, or past the "
            "months that are kept.",
            "outcome",
        )
        self._bare = Counter(
            "taskdist_archive_bare_total",
            "Tasks that the database took only without what users wrote.",
            registry=self.registry,
        )
        self._failures = self._counter("taskdist_archive_failures_total", "What failed and was tried again.", "part")
        self._words = Counter(
            "taskdist_archive_words_total", "Words to the operator that were written.", registry=self.registry
        )
        self._dropped = Counter(
            "taskdist_archive_months_dropped_total", "Months of ended Tasks that were dropped.", registry=self.registry
        )
        self.registry.register(_Gauges(lambda: self._state()))

    def observe(self, state: Callable[[], State]) -> None:
        """From now on take the gauges from here."""
        self._state = state

    def archived(self, outcome: str, count: int) -> None:
        """Count Tasks that were read, by outcome: new, replaced, known or expired."""
        self._archived.labels(outcome).inc(count)

    def bare(self, count: int) -> None:
        self._bare.inc(count)

    def failed(self, part: str) -> None:
        """`part`: database, tasks or word."""
        self._failures.labels(part).inc()

    def told(self) -> None:
        self._words.inc()

    def dropped(self, months: int) -> None:
        self._dropped.inc(months)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, (label,), registry=self.registry)


class _Gauges(Collector):
    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        now = self._state()
        yield GaugeMetricFamily(
            "taskdist_archive_active", "1 where this process holds the lock and writes.", int(now.active)
        )
        yield GaugeMetricFamily("taskdist_archive_backlog", "Ended Tasks that are read and not committed.", now.backlog)
        yield GaugeMetricFamily("taskdist_archive_backlog_bytes", "What they take, about.", now.backlog_bytes)
        yield GaugeMetricFamily(
            "taskdist_archive_lag_seconds", "How long ago the first of them ended; 0 without any.", now.lag_seconds
        )
