"""Small scenarios for tests: `playing(stream(...), pools={...})` gives the record of one run."""

from pathlib import Path
from typing import Any

from taskdist.simulation import parse
from taskdist.simulation.record import Record
from taskdist.simulation.runs import play
from taskdist.simulation.workload import jobs

NOWHERE = Path("/nonexistent")


def stream(
    arrivals: dict[str, Any] | None = None, service: Any = 1, count: int | None = None, **more: Any
) -> dict[str, Any]:
    """A stream of Tasks of queue `q` and type `work`; by default one Task at 0."""
    task = {"queue": "q", "type": "work"} | more.pop("task", {})
    made: dict[str, Any] = {"arrivals": arrivals or {"burst": {"at": 0, "count": 1}}, "service": service, "task": task}
    return made | ({"count": count} if count is not None else {}) | more


def scenario(
    *streams: dict[str, Any], pools: dict[str, dict[str, Any]] | None = None, queue: Any = None, **more: Any
) -> dict[str, Any]:
    """A scenario of queue `q`, which uses all pools; by default one pool `p` of one agent with one slot."""
    pools = pools or {"p": {"replicas": 1}}
    return {
        "queues": [{"metadata": {"name": "q"}, "spec": {"pools": list(pools)} | (queue or {})}],
        "pools": [{"metadata": {"name": name}, "spec": spec} for name, spec in pools.items()],
        "workload": {"streams": list(streams) or [stream()]},
        **more,
    }


def played(given: dict[str, Any], seed: int = 1) -> Record:
    """The record of the scenario's only variant."""
    loaded = parse(given, NOWHERE)
    return play(loaded.scenario, jobs(loaded.scenario.workload.streams, loaded.rows, seed), seed)


def playing(*streams: dict[str, Any], seed: int = 1, **more: Any) -> Record:
    return played(scenario(*streams, **more), seed)


def waits(record: Record) -> list[float]:
    """First start − created, in the order of arrival."""
    return [life.started - life.job.created for life in record.tasks if life.started is not None]


def starts(record: Record) -> list[float]:
    """When each Task first started, in seconds from the beginning, in the order of arrival."""
    return [life.started - record.begun for life in record.tasks if life.started is not None]


def ends(record: Record) -> list[float]:
    """When each Task ended, in seconds from the beginning, in the order of arrival."""
    return [life.ended - record.begun for life in record.tasks if life.ended is not None]
