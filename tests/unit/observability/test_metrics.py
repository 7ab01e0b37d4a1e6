"""Names and labels are a contract with dashboards and alerts; the hot path must stay out of the gauges."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskdist.api import Phase, Priority, Reason
from taskdist.observability.metrics import Metrics, Snapshot, measure_loop_lag
from taskdist.observability.serve import HealthServer, MetricsServer

FULL = Snapshot(
    waiting={("ns", "q", Priority.HIGH): 3, ("ns", "q", Priority.NORMAL): 7},
    leased={("ns", "q", Priority.NORMAL): 2},
    reasons={("ns", "q", Reason.NO_FREE_SLOTS): 9, ("ns", "q", Reason.SUSPENDED): 1},
    waiting_seconds={("ns", "q", Reason.NO_FREE_SLOTS): 90.5},
    bottlenecks={("ns", "q", "TaskQueue"): (Reason.NO_FREE_SLOTS, "skill gpu")},
    dead_letters={("ns", "q"): 6},
    unarchived={("ns", "q"): 12},
    accepting={("ns", "q"): False},
    agents={("ns", "p", "ready"): 4, ("ns", "p", "draining"): 1},
    breakers={("ns", "p", "Open"): 3},
    slots_busy={("ns", "p"): 2},
    slots_total={("ns", "p"): 8},
    link_sessions=5,
    leader=True,
    epoch=9,
    unknown_writes=1,
    conservation_error=-1,
    audit_findings=2,
    limits={("ns", "q", "budgets/b"): (1.5, 4)},
    writes=(7, 3),
    informers={"pods": {"expired": 2, "differences": 1}},
)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("taskdist_tasks_waiting", {"namespace": "ns", "queue": "q", "priority": "High"}, 3),
        ("taskdist_tasks_waiting", {"namespace": "ns", "queue": "q", "priority": "Normal"}, 7),
        ("taskdist_tasks_leased", {"namespace": "ns", "queue": "q", "priority": "Normal"}, 2),
        ("taskdist_tasks_waiting_by_reason", {"namespace": "ns", "queue": "q", "reason": "NoFreeSlots"}, 9),
        ("taskdist_tasks_waiting_by_reason", {"namespace": "ns", "queue": "q", "reason": "Suspended"}, 1),
        ("taskdist_waiting_seconds", {"namespace": "ns", "queue": "q", "reason": "NoFreeSlots"}, 90.5),
        (
            "taskdist_bottleneck",
            {"namespace": "ns", "kind": "TaskQueue", "name": "q", "reason": "NoFreeSlots", "what": "skill gpu"},
            1,
        ),
        ("taskdist_dead_letters", {"namespace": "ns", "queue": "q"}, 6),
        ("taskdist_tasks_unarchived", {"namespace": "ns", "queue": "q"}, 12),
        ("taskdist_queue_accepting", {"namespace": "ns", "queue": "q"}, 0),
        ("taskdist_agents", {"namespace": "ns", "pool": "p", "state": "ready"}, 4),
        ("taskdist_agents", {"namespace": "ns", "pool": "p", "state": "draining"}, 1),
        ("taskdist_breakers", {"namespace": "ns", "pool": "p", "state": "Open"}, 3),
        ("taskdist_slots", {"namespace": "ns", "pool": "p", "state": "busy"}, 2),
        ("taskdist_slots", {"namespace": "ns", "pool": "p", "state": "total"}, 8),
        ("taskdist_link_sessions", {}, 5),
        ("taskdist_leader", {}, 1),
        ("taskdist_leader_epoch", {}, 9),
        ("taskdist_unknown_writes", {}, 1),
        ("taskdist_conservation_error", {}, -1),
        ("taskdist_audit_findings", {}, 2),
        ("taskdist_limit_level", {"namespace": "ns", "queue": "q", "limit": "budgets/b"}, 1.5),
        ("taskdist_limit_capacity", {"namespace": "ns", "queue": "q", "limit": "budgets/b"}, 4),
        ("taskdist_status_writes", {"state": "queued"}, 7),
        ("taskdist_status_writes", {"state": "in_flight"}, 3),
        ("taskdist_informer_events_total", {"resource": "pods", "event": "expired"}, 2),
        ("taskdist_informer_differences_total", {"resource": "pods"}, 1),
    ],
)
def test_gauges_come_from_the_snapshot(name: str, labels: dict[str, str], value: float) -> None:
    assert Metrics(lambda: FULL).registry.get_sample_value(name, labels) == value


QUEUE = {"namespace": "ns", "queue": "q"}


@pytest.mark.parametrize(
    ("act", "name", "labels", "value"),
    [
        pytest.param(
            lambda m: m.dispatched("ns", "q", 0.002), "taskdist_dispatch_seconds_sum", QUEUE, 0.002, id="dispatch"
        ),
        pytest.param(
            lambda m: m.dispatched("ns", "q", -0.5), "taskdist_dispatch_seconds_sum", QUEUE, 0.0, id="clocks-disagree"
        ),
        pytest.param(
            lambda m: m.dispatched("ns", "q", 599),
            "taskdist_dispatch_seconds_bucket",
            QUEUE | {"le": "600.0"},
            1,
            id="ten-minutes-have-a-bucket",
        ),
        pytest.param(
            lambda m: m.dispatched("ns", "q", 0.0009),
            "taskdist_dispatch_seconds_bucket",
            QUEUE | {"le": "0.001"},
            1,
            id="a-millisecond-has-a-bucket",
        ),
        pytest.param(lambda m: m.started("ns", "q", 1), "taskdist_start_seconds_count", QUEUE, 1, id="start"),
        pytest.param(
            lambda m: m.ended("ns", "q", Phase.FAILED, Reason.RETRIES_EXHAUSTED),
            "taskdist_tasks_ended_total",
            QUEUE | {"phase": "Failed", "reason": "RetriesExhausted"},
            1,
            id="ended",
        ),
        pytest.param(
            lambda m: m.dead_lettered("ns", "q", Reason.POISONED),
            "taskdist_tasks_dead_lettered_total",
            QUEUE | {"reason": "Poisoned"},
            1,
            id="dead-lettered",
        ),
        pytest.param(lambda m: m.duplicate("ns", "q"), "taskdist_tasks_duplicate_total", QUEUE, 1, id="duplicate"),
        pytest.param(lambda m: m.deleted("ns", "q"), "taskdist_tasks_deleted_total", QUEUE, 1, id="deleted"),
        pytest.param(
            lambda m: m.decided("Scale", Reason.IDLE),
            "taskdist_decisions_total",
            {"kind": "Scale", "reason": "Idle"},
            1,
            id="decision",
        ),
        pytest.param(
            lambda m: m.decided("Undrain"),
            "taskdist_decisions_total",
            {"kind": "Undrain", "reason": ""},
            1,
            id="decision-without-a-reason",
        ),
        pytest.param(
            lambda m: m.api_request("patch", "tasks.taskdist.dev/status", "409", 0.01),
            "taskdist_api_requests_total",
            {"verb": "patch", "resource": "tasks.taskdist.dev/status", "outcome": "409"},
            1,
            id="request",
        ),
        pytest.param(
            lambda m: m.api_request("watch", "pods", "200", 300),
            "taskdist_api_request_seconds_count",
            {"verb": "watch", "resource": "pods"},
            None,
            id="a-watch-has-no-latency",
        ),
        pytest.param(
            lambda m: m.link_refused("Expired"), "taskdist_link_refused_total", {"reason": "Expired"}, 1, id="refused"
        ),
        pytest.param(lambda m: m.loop_lagged(0.1), "taskdist_loop_lag_seconds_sum", {}, 0.1, id="lag"),
    ],
)
def test_counts(act: Callable[[Metrics], None], name: str, labels: dict[str, str], value: float | None) -> None:
    metrics = Metrics()
    act(metrics)
    assert metrics.registry.get_sample_value(name, labels) == value


def test_the_snapshot_is_taken_at_each_scrape_and_never_otherwise() -> None:
    taken: list[int] = []

    def snapshot() -> Snapshot:
        taken.append(1)
        return Snapshot(link_sessions=len(taken))

    metrics = Metrics()
    metrics.observe(snapshot)
    metrics.dispatched("ns", "q", 1)
    assert not taken
    assert [metrics.registry.get_sample_value("taskdist_link_sessions") for _ in range(2)] == [1, 2]


def test_a_queue_that_is_gone_takes_its_series_along() -> None:
    metrics = Metrics()
    for queue in ("q", "other"):
        metrics.dispatched("ns", queue, 1)
        metrics.ended("ns", queue, Phase.SUCCEEDED, Reason.COMPLETED)
        metrics.dead_lettered("ns", queue, Reason.POISONED)
        metrics.duplicate("ns", queue)
        metrics.deleted("ns", queue)
    metrics.forget_queue("ns", "q")
    queues = {s.labels["queue"] for f in metrics.registry.collect() for s in f.samples if "queue" in s.labels}
    assert queues == {"other"}


async def test_lag_is_measured() -> None:
    class Seen(Metrics):
        def __init__(self) -> None:
            super().__init__()
            self.first: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def loop_lagged(self, seconds: float) -> None:
            if not self.first.done():
                self.first.set_result(seconds)

    metrics = Seen()
    task = asyncio.create_task(measure_loop_lag(metrics, every=0.001))
    assert await asyncio.wait_for(metrics.first, 10) > -0.001
    task.cancel()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param("text/plain", "text/plain", id="text"),
        pytest.param("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", id="openmetrics"),
    ],
)
async def test_metrics_are_served(accept: str, content_type: str) -> None:
    metrics = Metrics(lambda: FULL)
    server = MetricsServer(metrics, 0, host="127.0.0.1")
    port = await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept}) as answer,
        ):
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(content_type)
            text = await answer.text()
    finally:
        await server.stop()
        await server.stop()
    families = {family.name: family for family in text_string_to_metric_families(text.removesuffix("# EOF\n"))}
    assert families["taskdist_conservation_error"].samples[0].value == -1


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [("/healthz", 200, "ok\n"), ("/readyz", 503, "the cache is not synced\n"), ("/metrics", 404, None)],
)
async def test_health_is_served(path: str, status: int, text: str | None) -> None:
    server = HealthServer(0, healthy=lambda: None, ready=lambda: "the cache is not synced", host="127.0.0.1")
    port = await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            assert answer.status == status
            if text is not None:
                assert await answer.text() == text
    finally:
        await server.stop()


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind() -> None:
    async with HealthServer(0, healthy=lambda: None, ready=lambda: None, host="127.0.0.1") as first:
        assert first._runner is not None
        port = first._runner.addresses[0][1]
        with pytest.raises(OSError, match="address already in use"):
            await MetricsServer(Metrics(), port, host="127.0.0.1").start()
