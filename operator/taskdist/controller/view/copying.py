"""A copy of what a leader knows of one namespace, as events that bring another core to where its own stands.

It is made in parts, so that none keeps the dispatch loop: a Task is copied as it is when its turn comes. Another
process puts the parts together. Compiled values do not pickle by themselves, so the core's are written by their fields.
"""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copyreg import dispatch_table
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from io import BytesIO
from operator import attrgetter
from typing import Any, BinaryIO, TypeVar

from taskdist import core
from taskdist.core.events import (
    AgentReady,
    Event,
    PodSeen,
    PoolApplied,
    QueueApplied,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.limits.levels import Level
from taskdist.core.model import Agent, Key, Pool, Queue
from taskdist.protocol.observations import ObservedPod
from taskdist.protocol.operator import Leader
from taskdist.protocol.operator.books import CoreState, TaskEntry
from taskdist.simulation.what_if import Snapshot, likely

# So many things of other namespaces are passed over as one step.
PASSED_OVER = 256

ThingT = TypeVar("ThingT")


@dataclass(slots=True)
class Part:
    """A part of a copy: as much of a snapshot."""

    events: list[Event] = field(default_factory=list)
    since: dict[str, float] = field(default_factory=dict)
    services: dict[tuple[Key, str], list[float]] = field(default_factory=dict)
    levels: dict[Key, list[Level]] = field(default_factory=dict)


Piece = Callable[[Part], None]


class Copy:
    """The copy of one namespace, begun now. `tasks` counts those that were copied so far."""

    def __init__(self, leader: Leader, namespace: str, now: float) -> None:
        self.tasks = 0
        self._leader = leader
        self._namespace = namespace
        self._now = now
        state = leader.state
        # References alone: this is the one look at all there is.
        self._queues, self._pools = list(state.queues.values()), list(state.pools.values())
        self._pods, self._agents = list(state.pods.values()), list(state.told.values())
        self._entries = list(state.tasks.values())
        self._services: set[tuple[Key, str]] = set()

    def pieces(self) -> Iterator[Piece]:
        """Yield what puts a little into a part each, in the order in which a core is to hear of it."""
        where = attrgetter("namespace")
        yield from self._of(self._queues, where, self._queue)
        yield from self._of(self._pools, where, self._pool)
        yield from self._of(self._pods, where, self._pod)
        yield from self._of(self._agents, where, self._agent)
        yield from self._of(self._entries, attrgetter("record.task.namespace"), self._task)

    def _of(
        self, all_: Sequence[ThingT], where: Callable[[ThingT], str], put: Callable[[ThingT, Part], None]
    ) -> Iterator[Piece]:
        for number, each in enumerate(all_):
            if where(each) == self._namespace:
                yield partial(put, each)
            elif not number % PASSED_OVER:
                yield _nothing

    def _queue(self, queue: Queue, part: Part) -> None:
        part.events.append(QueueApplied(queue))
        part.levels[queue.key] = list(self._leader.core.levels(queue.key, self._now))

    def _pool(self, pool: Pool, part: Part) -> None:
        part.events.append(PoolApplied(pool))

    def _pod(self, pod: ObservedPod, part: Part) -> None:
        if pod.uid in self._leader.state.pods and not pod.going and not pod.ended:
            seen = PodSeen(pod.uid, pod.namespace, pod.name, pod.pool, pod.created, pod.template, pod.trouble)
            part.events.append(seen)

    def _agent(self, agent: Agent, part: Part) -> None:
        if agent.uid in self._leader.state.told:
            part.events.append(AgentReady(agent))

    def _task(self, entry: TaskEntry, part: Part) -> None:
        told, lease = entry.told or entry.record.task, entry.lease
        if entry.core is CoreState.WAITING:
            part.events.append(TaskWaiting(told))
        elif entry.core is CoreState.HELD and entry.held_for is not None:
            part.events.append(TaskHeld(told, entry.held_for))
        elif entry.core is CoreState.LEASED and lease is not None:
            part.events.append(TaskLeased(told, lease.agent_uid))
            part.since[entry.uid] = lease.assigned_at or entry.record.assigned_at or self._now
        else:
            return
        self.tasks += 1
        of = (told.queue_key, told.type)
        if of not in self._services:
            self._services.add(of)
            if (known := self._leader.core.service_time(*of)) is not None:
                part.services[of] = likely(known)


def _nothing(_part: Part) -> None:
    """Nothing of this namespace was there."""


def written(part: Part) -> bytes:
    """Write a part for another process."""
    data = BytesIO()
    pickler = pickle.Pickler(data, protocol=5)
    pickler.dispatch_table = _TABLE
    pickler.dump((part.events, part.since, part.services, part.levels))
    return data.getvalue()


def read(source: BinaryIO, now: float) -> Snapshot:
    """Put together all parts that were written there. Read them of nobody but this program: they may make anything."""
    whole = Part()
    with suppress(EOFError):
        while True:
            found, since, services, levels = pickle.load(source)
            whole.events += found
            whole.since |= since
            whole.services |= services
            whole.levels |= levels
    return Snapshot(now, whole.events, whole.since, whole.services, whole.levels)


def _by_fields(kind: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[Any, ...]]]:
    names = [each.name for each in fields(kind) if each.init]
    of = attrgetter(*names)
    if len(names) == 1:
        return lambda value: (kind, (of(value),))
    return lambda value: (kind, of(value))


def _kinds() -> Iterator[type[Any]]:
    """Return all dataclasses of the core, of which its events are made."""
    for name, module in list(sys.modules.items()):
        for each in list(vars(module).values()) if name.startswith(f"{core.__name__}.") else ():
            if isinstance(each, type) and is_dataclass(each) and each.__module__ == name and fields(each):
                yield each


_TABLE = {**dispatch_table, **{kind: _by_fields(kind) for kind in _kinds()}}
