"""Puts a run together: the world of a variant, its scheduler, its Tasks, and what came of it.

Owns which seeds and variants are played in which order. The clock that measures how fast decisions were is the
caller's.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from taskdist.core import Core
from taskdist.protocol import convert
from taskdist.simulation.baselines import baseline
from taskdist.simulation.figures import Figures, figures
from taskdist.simulation.loading import Loaded
from taskdist.simulation.loop import Loop, Scheduler, World
from taskdist.simulation.record import Record
from taskdist.simulation.scenario import NAMESPACE, Policy, PoolManifest, QueueManifest, Scenario
from taskdist.simulation.workload import Job, jobs

Clock = Callable[[], float]
Progress = Callable[[str, int, int, int], None]
"""Hears the variant, the seed, and how many of how many Tasks have ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """One variant under one seed."""

    variant: str
    seed: int
    record: Record
    figures: Figures


def world(scenario: Scenario, seed: int) -> World:
    """All of the scenario but Tasks and scheduler."""
    return World(
        queues=tuple(convert.queue(_object(queue)) for queue in scenario.queues),
        pools=tuple(convert.pool(_object(pool)) for pool in scenario.pools),
        traits={pool.metadata.name: scenario.traits(pool.metadata.name) for pool in scenario.pools},
        faults=scenario.faults,
        until=scenario.until,
        seed=seed,
    )


def _object(manifest: QueueManifest | PoolManifest) -> dict[str, Any]:
    """The manifest as the API server would have it."""
    return {
        "metadata": {"name": manifest.metadata.name, "namespace": NAMESPACE, "labels": manifest.metadata.labels},
        "spec": manifest.spec.to_wire(),
    }


def scheduler(policy: Policy, world: World) -> Scheduler:
    """The real core, or a baseline."""
    if policy is Policy.CORE:
        return Core()
    return baseline(policy, {name: traits.speed for name, traits in world.traits.items()}, world.seed)


def play(
    scenario: Scenario,
    coming: list[Job],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock | None = None,
) -> Record:
    """Run one variant over these Tasks."""
    there = world(scenario, seed)
    loop = Loop(there, coming, scheduler(scenario.policy, there))
    if clock is None:
        return loop.run(progress)
    begun = clock()
    record = loop.run(progress)
    record.seconds = clock() - begun
    return record


def play_all(
    loaded: Loaded, seeds: Iterable[int], progress: Progress | None = None, clock: Clock | None = None
) -> Iterator[Run]:
    """Run every variant under every seed, seed by seed, each on the same Tasks as the others of its seed."""
    for seed in seeds:
        coming = jobs(loaded.scenario.workload.streams, loaded.rows, seed)
        for name, scenario in loaded.variants.items():

            def heard(ended: int, of: int, name: str = name, seed: int = seed) -> None:
                if progress is not None:
                    progress(name, seed, ended, of)

            record = play(scenario, coming, seed, heard if progress is not None else None, clock)
            yield Run(name, seed, record, figures(record))
