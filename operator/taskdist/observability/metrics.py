"""The operator's metrics: names, labels, buckets.

Things that happen are counted as they happen. Things that are so (how many wait, how many slots are free) cost nothing
until somebody scrapes: they come from a snapshot that is taken then. Label values are bounded by what exists now (the
gauges) or by enums and the number of queues (the counters); Task names never become labels.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import taskdist
from taskdist.api import Phase, Priority, Reason
from taskdist.core import COMPILED

# Seconds, 1 ms to 10 min: a dispatch takes a few ms where a slot is free and as long as the work ahead where none is.
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Seconds, 1 ms to 30 s: requests to the API server, and how late the event loop is.
DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

QueueLevel = tuple[str, str, Priority]
"""Namespace, queue, the Tasks' own level."""
QueueReason = tuple[str, str, Reason]
"""Namespace, queue, why its Tasks wait."""
QueueKey = tuple[str, str]
"""Namespace, queue."""
PoolState = tuple[str, str, str]
"""Namespace, pool, state of the agent."""
PoolKey = tuple[str, str]
"""Namespace, pool."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Values of the gauges at one moment. The defaults are those of a replica that does not lead."""

    waiting: Mapping[QueueLevel, int] = field(default_factory=dict)
    leased: Mapping[QueueLevel, int] = field(default_factory=dict)
    reasons: Mapping[QueueReason, int] = field(default_factory=dict)
    """Tasks that wait, by why."""
    waiting_seconds: Mapping[QueueReason, float] = field(default_factory=dict)
    """For how long those have waited that something scarce holds, in all."""
    bottlenecks: Mapping[tuple[str, str, str], tuple[Reason, str]] = field(default_factory=dict)
    """By namespace, name and kind: why, and what holds most waiting time, where anything does for long."""
    dead_letters: Mapping[QueueKey, int] = field(default_factory=dict)
    accepting: Mapping[QueueKey, bool] = field(default_factory=dict)
    """Queues that can be full or drained: whether new Tasks are taken."""
    agents: Mapping[PoolState, int] = field(default_factory=dict)
    breakers: Mapping[PoolState, int] = field(default_factory=dict)
    """Agents whose circuit breaker is in this state: Open or HalfOpen."""
    slots_busy: Mapping[PoolKey, int] = field(default_factory=dict)
    slots_total: Mapping[PoolKey, int] = field(default_factory=dict)
    limits: Mapping[tuple[str, str, str], tuple[float, int]] = field(default_factory=dict)
    """By namespace, queue and limit: what is left of a rate or budget, and how much there is at most."""
    link_sessions: int = 0
    leader: bool = False
    epoch: int = 0
    api_silent_seconds: float = 0.0
    """For how long the API server has not answered; of every replica, whether or not it leads."""
    unknown_writes: int = 0
    """Status writes whose outcome is not known yet."""
    writes: tuple[int, int] = (0, 0)
    """Status writes that wait for a place, and those under way."""
    informers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By resource: what has happened to the view of it since the start, by word. `differences` is a bug."""
    conservation_error: int = 0
    """Tasks that the API server has, less those that wait, are leased or have ended. Anything but 0 is a bug."""
    unarchived: Mapping[QueueKey, int] = field(default_factory=dict)
    """Tasks that are over their time and wait for the archive."""
    audit_findings: int = 0
    """What the last round of the core's audit found wrong. Anything but 0 is a bug."""
    set_aside: Mapping[tuple[str, Reason], int] = field(default_factory=dict)
    """By kind: objects that this release cannot read, and leaves as they are."""


class Metrics:
    """All metrics of one process, in a registry of its own or in one that is given."""

    def __init__(
        self, snapshot: Callable[[], Snapshot] = Snapshot, *, registry: CollectorRegistry | None = None
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry(auto_describe=True)
        self._snapshot = snapshot
        self._dispatch = self._histogram(
            "taskdist_dispatch_seconds",
            "From this operator's first sight of a new Task to its first assignment being written.",
            WAITS,
            ("namespace", "queue"),
        )
        self._start = self._histogram(
            "taskdist_start_seconds",
            "From an assignment being written to the agent's word that the handler runs.",
            WAITS,
            ("namespace", "queue"),
        )
        self._ended = self._counter(
            "taskdist_tasks_ended_total", "Tasks that ended.", ("namespace", "queue", "phase", "reason")
        )
        self._dead_lettered = self._counter(
            "taskdist_tasks_dead_lettered_total", "Tasks that became dead letters.", ("namespace", "queue", "reason")
        )
        self._duplicates = self._counter(
            "taskdist_tasks_duplicate_total",
            "Tasks that ended as another one of their idempotency key did.",
            ("namespace", "queue"),
        )
        self._deleted = self._counter(
            "taskdist_tasks_deleted_total",
            "Ended Tasks and dead letters deleted because their time to live was over.",
            ("namespace", "queue"),
        )
        self._decisions = self._counter("taskdist_decisions_total", "Decisions of the core.", ("kind", "reason"))
        self._requests = self._counter(
            "taskdist_api_requests_total", "Requests to the API server.", ("verb", "resource", "outcome")
        )
        self._request_seconds = self._histogram(
            "taskdist_api_request_seconds", "How long the API server took to answer.", DELAYS, ("verb", "resource")
        )
        self._refused = self._counter("taskdist_link_refused_total", "Agents that the link turned away.", ("reason",))
        self._views = self._counter(
            "taskdist_view_requests_total", "Questions to the leader's view, by path and outcome.", ("path", "outcome")
        )
        self._view_seconds = self._histogram(
            "taskdist_view_request_seconds", "How long the view took to answer; streams left out.", DELAYS, ("path",)
        )
        self._lag = self._histogram(
            "taskdist_loop_lag_seconds", "How late the dispatch loop wakes: what else kept it busy.", DELAYS, ()
        )
        self.registry.register(_Gauges(lambda: self._snapshot()))

    def observe(self, snapshot: Callable[[], Snapshot]) -> None:
        """From now on take the gauges from here. It is called at each scrape and should cost little."""
        self._snapshot = snapshot

    def dispatched(self, namespace: str, queue: str, seconds: float) -> None:
        """A Task's first assignment stands, so long after it was first seen (creation is stamped in whole seconds)."""
        self._dispatch.labels(namespace, queue).observe(max(seconds, 0.0))

    def started(self, namespace: str, queue: str, seconds: float) -> None:
        """The handler runs, so long after the assignment was written."""
        self._start.labels(namespace, queue).observe(max(seconds, 0.0))

    def ended(self, namespace: str, queue: str, phase: Phase, reason: Reason) -> None:
        self._ended.labels(namespace, queue, str(phase), str(reason)).inc()

    def dead_lettered(self, namespace: str, queue: str, reason: Reason) -> None:
        self._dead_lettered.labels(namespace, queue, str(reason)).inc()

    def duplicate(self, namespace: str, queue: str) -> None:
        self._duplicates.labels(namespace, queue).inc()

    def deleted(self, namespace: str, queue: str) -> None:
        """A Task was deleted because its time to live was over."""
        self._deleted.labels(namespace, queue).inc()

    def decided(self, kind: str, reason: Reason | None = None) -> None:
        """The core decided: `kind` is the decision's name (Assign, Retry, …)."""
        self._decisions.labels(kind, str(reason) if reason is not None else "").inc()

    def api_request(self, verb: str, resource: str, outcome: str, seconds: float) -> None:
        """A request to the API server came to its end: an HTTP status, or a word where no answer came."""
        self._requests.labels(verb, resource, outcome).inc()
        # A watch lasts as long as it lasts: that says nothing about the server.
        if verb != "watch":
            self._request_seconds.labels(verb, resource).observe(seconds)

    def link_refused(self, reason: str) -> None:
        """The link turned an agent away; `reason` is one of a fixed set of words, never what the agent sent."""
        self._refused.labels(reason).inc()

    def view_asked(self, path: str, outcome: str, seconds: float) -> None:
        """The view was asked: `path` has no names in it, `outcome` is a status, or `gone` if who asked went away."""
        self._views.labels(path, outcome).inc()
        if not path.endswith("/progress"):
            self._view_seconds.labels(path).observe(seconds)

    def loop_lagged(self, seconds: float) -> None:
        self._lag.observe(max(seconds, 0.0))

    def forget_queue(self, namespace: str, queue: str) -> None:
        """The queue is gone: drop its series, so that short-lived queues do not add up."""
        of_queues = (self._dispatch, self._start, self._ended, self._dead_lettered, self._duplicates, self._deleted)
        for metric in of_queues:
            metric.remove_by_labels({"namespace": namespace, "queue": queue})

    def _counter(self, name: str, text: str, labels: Iterable[str]) -> Counter:
        return Counter(name, text, tuple(labels), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str]) -> Histogram:
        return Histogram(name, text, tuple(labels), buckets=buckets, registry=self.registry)


async def measure_loop_lag(metrics: Metrics, every: float = 0.25) -> None:
    """Until cancelled: sleep, and see how much later than asked this loop wakes."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        metrics.loop_lagged(loop.time() - due)


class _Gauges(Collector):
    """Turns a snapshot into metric families, at scrape time."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot()
        yield _level("taskdist_tasks_waiting", "Tasks that wait.", now.waiting)
        yield _level("taskdist_tasks_leased", "Tasks that an agent holds.", now.leased)
        reasons = GaugeMetricFamily(
            "taskdist_tasks_waiting_by_reason", "Tasks that wait, by why.", labels=("namespace", "queue", "reason")
        )
        for (namespace, queue, reason), count in sorted(now.reasons.items()):
            reasons.add_metric((namespace, queue, str(reason)), count)
        yield reasons
        seconds = GaugeMetricFamily(
            "taskdist_waiting_seconds",
            "For how long Tasks that something scarce holds have waited, in all.",
            labels=("namespace", "queue", "reason"),
        )
        for (namespace, queue, reason), total in sorted(now.waiting_seconds.items()):
            seconds.add_metric((namespace, queue, str(reason)), total)
        yield seconds
        bottlenecks = GaugeMetricFamily(
            "taskdist_bottleneck",
            "1 for what holds most waiting time of a queue, or of what a pool could serve.",
            labels=("namespace", "kind", "name", "reason", "what"),
        )
        for (namespace, name, kind), (reason, what) in sorted(now.bottlenecks.items()):
            bottlenecks.add_metric((namespace, kind, name, str(reason), what), 1)
        yield bottlenecks
        yield _queues("taskdist_dead_letters", "Dead letters.", now.dead_letters)
        yield _queues(
            "taskdist_tasks_unarchived",
            "Tasks that are over their time and not deleted, as the archive does not have them.",
            now.unarchived,
        )
        yield _queues(
            "taskdist_queue_accepting",
            "1 where the queue takes new Tasks, 0 where it is full or drained.",
            now.accepting,
        )
        agents = GaugeMetricFamily("taskdist_agents", "Agents by state.", labels=("namespace", "pool", "state"))
        for key, count in sorted(now.agents.items()):
            agents.add_metric(key, count)
        yield agents
        breakers = GaugeMetricFamily(
            "taskdist_breakers",
            "Agents whose circuit breaker is open or half open.",
            labels=("namespace", "pool", "state"),
        )
        for key, count in sorted(now.breakers.items()):
            breakers.add_metric(key, count)
        yield breakers
        slots = GaugeMetricFamily("taskdist_slots", "Slots of agents.", labels=("namespace", "pool", "state"))
        for state, by_pool in (("busy", now.slots_busy), ("total", now.slots_total)):
            for pool, count in sorted(by_pool.items()):
                slots.add_metric((*pool, state), count)
        yield slots
        level = GaugeMetricFamily(
            "taskdist_limit_level", "What is left of a rate or budget.", labels=("namespace", "queue", "limit")
        )
        capacity = GaugeMetricFamily(
            "taskdist_limit_capacity", "The most that is there of it.", labels=("namespace", "queue", "limit")
        )
        for limit, (left, most) in sorted(now.limits.items()):
            level.add_metric(limit, left)
            capacity.add_metric(limit, most)
        yield level
        yield capacity
        yield GaugeMetricFamily("taskdist_link_sessions", "Agents connected now.", now.link_sessions)
        yield GaugeMetricFamily(
            "taskdist_api_silent_seconds",
            "For how long the API server has not answered this replica; 0 while it does.",
            now.api_silent_seconds,
        )
        yield GaugeMetricFamily("taskdist_leader", "1 where this replica leads.", int(now.leader))
        yield GaugeMetricFamily("taskdist_leader_epoch", "Number of the last leadership of this replica.", now.epoch)
        writes = GaugeMetricFamily(
            "taskdist_status_writes", "Status writes that wait for a place, or are under way.", labels=("state",)
        )
        for state, count in zip(("queued", "in_flight"), now.writes, strict=True):
            writes.add_metric((state,), count)
        yield writes
        events = CounterMetricFamily(
            "taskdist_informer_events", "What happened to the views of the API server.", labels=("resource", "event")
        )
        differences = CounterMetricFamily(
            "taskdist_informer_differences",
            "Objects that a comparison found wrong in a view. Must read 0.",
            labels=("resource",),
        )
        for resource, counts in sorted(now.informers.items()):
            for event, count in counts.items():
                if event == "differences":
                    differences.add_metric((resource,), count)
                else:
                    events.add_metric((resource, event), count)
        yield events
        yield differences
        yield GaugeMetricFamily(
            "taskdist_unknown_writes", "Status writes whose outcome is not known yet.", now.unknown_writes
        )
        yield GaugeMetricFamily(
            "taskdist_conservation_error",
            "Tasks that the API server has, less those that wait, are leased or have ended. Must read 0.",
            now.conservation_error,
        )
        yield GaugeMetricFamily(
            "taskdist_audit_findings",
            "What the last round of the core's audit of its own books found wrong. Must read 0.",
            now.audit_findings,
        )
        aside = GaugeMetricFamily(
            "taskdist_objects_set_aside",
            "Objects that this release of the operator cannot read, and leaves as they are.",
            labels=("kind", "reason"),
        )
        for (kind, reason), count in sorted(now.set_aside.items()):
            aside.add_metric((kind, str(reason)), count)
        yield aside
        build = GaugeMetricFamily(
            "taskdist_build_info", "Always 1; labels tell version and form of the core.", labels=("version", "core")
        )
        build.add_metric((taskdist.__version__, "compiled" if COMPILED else "plain"), 1)
        yield build


def _queues(name: str, text: str, counts: Mapping[QueueKey, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("namespace", "queue"))
    for key, count in sorted(counts.items()):
        family.add_metric(key, int(count))
    return family


def _level(name: str, text: str, counts: Mapping[QueueLevel, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("namespace", "queue", "priority"))
    for (namespace, queue, level), count in sorted(counts.items()):
        family.add_metric((namespace, queue, str(level)), count)
    return family
