"""Faults that the plain histories lack: what people do to queues and pools, what nodes do to pods, and stepped clocks.

Each is a short function on the world; `FAULTS` names them as a plan draws them. A fault that takes something away gives
it back after a while, so that everything can come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults.machines import AgentMachine
    from faults.world import World

LEASES = (4.5, 6.0, 12.0)
HOLDS = (8.0, 20.0, 40.0)
STEPS = (-30.0, -3.0, 3.0, 30.0)


def _unready(world: World, lasts: float) -> None:
    """An agent's pod is not ready for a while."""
    machine = _one(world)
    if machine is not None:
        world.set_ready(machine.pod, False)
        world.after(lasts, world.set_ready, machine.pod, True)


def _queue_edited(world: World, lasts: float) -> None:
    rng = world.rng
    world.edit_queue(replace(world.queue, lease_seconds=rng.choice(LEASES), hold_seconds=rng.choice(HOLDS)))


def _queue_deleted(world: World, lasts: float) -> None:
    world.show_queue(False)
    world.after(lasts, world.show_queue, True)


def _pool_edited(world: World, lasts: float) -> None:
    """Its agents may use one slot less for a while."""
    if world.pool.slots > 1:
        world.edit_pool(replace(world.pool, slots=world.pool.slots - 1))
        world.after(lasts, _given_back, world)


def _given_back(world: World) -> None:
    world.edit_pool(replace(world.pool, slots=world.plan.slots))


def _pool_deleted(world: World, lasts: float) -> None:
    world.show_pool(False)
    world.after(lasts, world.show_pool, True)


def _operator_clock(world: World, lasts: float) -> None:
    """The wall clock of an operator's node steps."""
    world.rng.choice(world.operators).wall_off += world.rng.choice(STEPS)


def _agent_clock(world: World, lasts: float) -> None:
    machine = _one(world)
    if machine is not None:
        machine.wall_off += world.rng.choice(STEPS)


def _rolled(world: World, lasts: float) -> None:
    """The pool grows by one again, or shrinks: while leaders change, too."""
    plan = world.plan
    if not plan.elastic:
        world.resize(max(1, world.pool.minimum - 1))
        world.after(lasts, world.resize, plan.pods)


def _label_lost(world: World, lasts: float) -> None:
    """Somebody takes the pool's label from a pod: it is out of sight, and its agent goes on."""
    machine = _one(world)
    if machine is not None:
        machine.hide()


def _forced(world: World, lasts: float) -> None:
    """A node is cut off and its pod deleted by force: what runs there ends once the node is back."""
    machine = _one(world)
    if machine is not None and not machine.hidden:
        machine.cut(lasts)
        machine.hide()
        world.after(lasts, machine.die, 0.0)


FAULTS: dict[str, Callable[[World, float], None]] = {
    "unready": _unready,
    "queue_edited": _queue_edited,
    "queue_deleted": _queue_deleted,
    "pool_edited": _pool_edited,
    "pool_deleted": _pool_deleted,
    "operator_clock": _operator_clock,
    "agent_clock": _agent_clock,
    "rolled": _rolled,
    "label_lost": _label_lost,
    "forced": _forced,
}


def _one(world: World) -> AgentMachine | None:
    machines = [machine for machine in world.agents.values() if not machine.gone]
    return world.rng.choice(machines) if machines else None
