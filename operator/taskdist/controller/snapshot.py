"""The gauges of this moment, taken from the leadership at each scrape of the metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from taskdist.api import AgentPool, BreakerState, Priority, Reason, TaskQueue
from taskdist.controller.clocks import read_clocks
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.tally import Tally
from taskdist.kube import Informer
from taskdist.observability.metrics import QueueLevel, Snapshot


def snapshot(
    dispatcher: Dispatcher,
    tally: Tally,
    epoch: int | None,
    set_aside: Mapping[tuple[str, Reason], int] | None = None,
) -> Snapshot:
    """Return the gauges; those of a replica that does not lead are empty."""
    leader = dispatcher.leader
    if leader is None:
        return Snapshot(leader=epoch is not None, epoch=epoch or 0)
    core, stats = leader.core, leader.stats()
    waiting: dict[QueueLevel, int] = {}
    leased: dict[QueueLevel, int] = {}
    for (key, level), counts in core.level_counts().items():
        waiting[*key, Priority.of(level)], leased[*key, Priority.of(level)] = counts
    agents: dict[tuple[str, str, str], int] = {}
    busy: dict[tuple[str, str], int] = {}
    total: dict[tuple[str, str], int] = {}
    for key, states in core.agent_states().items():
        for state, count in states.items():
            agents[*key, str(state)] = count
        view = core.pool_view(key)
        busy[key], total[key] = view.busy_slots, view.slots
    breakers: dict[tuple[str, str, str], int] = {}
    for key in core.agent_states():
        for turned in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            breakers[*key, str(turned)] = sum(each.state is turned for each in core.breakers(key))
    reasons = {(*key, reason): count for (key, reason), count in core.waiting_by_reason(read_clocks().wall).items()}
    seconds: dict[tuple[str, str, Reason], float] = {}
    of_queues, _of_pools = core.holdups(read_clocks().wall)
    for key, holdups in of_queues.items():
        for each in holdups:
            seconds[*key, each.reason] = seconds.get((*key, each.reason), 0.0) + each.seconds
    bottlenecks = {
        (*key, kind): (found.holdup.reason, found.holdup.what)
        for kind, those in zip((TaskQueue.kind, AgentPool.kind), dispatcher.bottlenecks(), strict=True)
        for key, found in those.items()
    }
    return Snapshot(
        waiting=waiting,
        leased=leased,
        reasons=reasons,
        waiting_seconds=seconds,
        bottlenecks=bottlenecks,
        dead_letters=tally.all_dead_letters(),
        accepting=dispatcher.accepting(),
        agents=agents,
        breakers=breakers,
        slots_busy=busy,
        slots_total=total,
        limits={
            (*key, each.name): (each.level, each.capacity)
            for key, levels in core.all_levels(read_clocks().wall).items()
            for each in levels
        },
        link_sessions=stats.sessions,
        leader=epoch is not None,
        epoch=epoch or 0,
        unknown_writes=stats.unknown_writes,
        conservation_error=tally.accepted - stats.accounted,
        audit_findings=dispatcher.audit_findings,
        set_aside=set_aside or {},
    )


def with_ends(found: Snapshot, writes: tuple[int, int], informers: Iterable[Informer[Any]]) -> Snapshot:
    """Return the snapshot with how writing and watching go, on whichever replica."""
    counts = {str(each.resource): asdict(each.counts) for each in informers}
    return replace(found, writes=writes, informers=counts)
