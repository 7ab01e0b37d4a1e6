"""The process's metrics. Label values are bounded by the sources that exist, and by enums."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from taskdist.api import SourceReason
from taskdist.elected.keeper import Key
from taskdist.elected.metrics import ReadyGauge


class SourceMetrics:
    """Counters and gauges of the process that runs the sources, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        source = ("namespace", "source")
        self._created = self._counter("taskdist_source_created_total", "Tasks that were created.", source)
        self._duplicates = self._counter(
            "taskdist_source_duplicates_total", "Messages whose Task was there already: they came again.", source
        )
        self._rejected = self._counter(
            "taskdist_source_rejected_total", "Messages of which no Task can be made.", (*source, "reason")
        )
        self._refused = self._counter(
            "taskdist_source_refused_total", "Tasks that were not taken now, and are tried again.", source
        )
        self._skipped = self._counter(
            "taskdist_source_skipped_total", "Runs of cron that were missed and not made up for.", source
        )
        self._failures = self._counter(
            "taskdist_source_failures_total", "How often a source failed and was begun again.", source
        )
        self._lag = self._gauge(
            "taskdist_source_lag_seconds", "How late the oldest run or message is that has no Task yet.", source
        )
        self._backlog = self._gauge(
            "taskdist_source_backlog_messages", "Messages that wait at a source's broker or in hand.", source
        )
        self._ready = ReadyGauge(
            "taskdist_source_ready",
            "1 if the source makes Tasks, else 0; by the reason in its status.",
            "source",
            self.registry,
        )
        self._leader = self._gauge("taskdist_sources_leader", "1 if this process runs the sources, else 0.", ())

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def created(self, key: Key) -> None:
        self._created.labels(*key).inc()

    def duplicate(self, key: Key) -> None:
        self._duplicates.labels(*key).inc()

    def rejected(self, key: Key, reason: str) -> None:
        self._rejected.labels(*key, reason).inc()

    def refused(self, key: Key) -> None:
        self._refused.labels(*key).inc()

    def skipped(self, key: Key, count: int) -> None:
        self._skipped.labels(*key).inc(count)

    def failed(self, key: Key) -> None:
        self._failures.labels(*key).inc()

    def lag(self, key: Key, seconds: float) -> None:
        self._lag.labels(*key).set(max(seconds, 0.0))

    def backlog(self, key: Key, messages: int) -> None:
        self._backlog.labels(*key).set(messages)

    def said(self, key: Key, ready: bool, reason: SourceReason) -> None:
        """The source says this of itself now."""
        self._ready.said(key, ready, str(reason))

    def gone(self, key: Key) -> None:
        """The source is there no more: what was so of it is not told further. What happened stays counted."""
        self._ready.gone(key)
        for gauge in (self._lag, self._backlog):
            gauge.remove_by_labels({"namespace": key[0], "source": key[1]})

    def leads(self, leading: bool) -> None:
        self._leader.set(int(leading))
