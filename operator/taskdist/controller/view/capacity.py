"""Queues and pools as the view tells them: counts, what is left of limits, who takes what, and what holds most up."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from taskdist.api import view as shapes
from taskdist.controller.view.problems import missing, only
from taskdist.controller.view.tasks import LEVELS
from taskdist.core.explaining.bottlenecks import Bottleneck
from taskdist.core.model import Key, Queue
from taskdist.core.views import AgentState, AgentView
from taskdist.protocol import explanations
from taskdist.protocol.operator import Leader

MOST_ROWS = 100
MOST_AGENTS = 500


class Facts(Protocol):
    """What is known beside the core."""

    def why_closed(self, key: Key) -> str:
        """Why the queue takes no new Tasks; empty if it does."""
        ...

    def dead_letters(self, key: Key) -> int: ...

    def bottlenecks(self) -> tuple[Mapping[Key, Bottleneck], Mapping[Key, Bottleneck]]:
        """By queue, and by pool."""
        ...


class Capacity:
    """Finds queues and pools in the leader's memory.

    Args:
        leader: whoever leads in this process. Raises Problem where nobody does.
        stalled: what keeps a pool from having agents, as its status says.
    """

    def __init__(
        self, leader: Callable[[], Leader], facts: Facts, stalled: Callable[[Key], str], wall: Callable[[], float]
    ) -> None:
        self._leader = leader
        self._facts = facts
        self._stalled = stalled
        self._wall = wall

    def queues(self, namespace: str, after: str) -> shapes.QueueList:
        """Return the next ones by name."""
        leader = self._leader()
        keys, more = _next(leader.state.queues, namespace, after)
        items = self._queues(leader, [leader.state.queues[key] for key in keys])
        return shapes.QueueList(items=items, continue_=more)

    def queue(self, namespace: str, name: str) -> shapes.QueueView:
        """Raises Problem."""
        leader = self._leader()
        queue = leader.state.queues.get((namespace, name))
        if queue is None:
            raise missing("TaskQueue", namespace, name)
        return self._queues(leader, [queue])[0]

    def pools(self, namespace: str, after: str) -> shapes.PoolList:
        """Return the next ones by name."""
        leader = self._leader()
        keys, more = _next(leader.state.pools, namespace, after)
        states = leader.core.agent_states()
        rows = [shapes.PoolRow(**self._pool(leader, key, states.get(key, {}))) for key in keys]
        return shapes.PoolList(items=rows, continue_=more)

    def pool(self, namespace: str, name: str) -> shapes.PoolDetail:
        """Raises Problem."""
        leader, key = self._leader(), (namespace, name)
        if key not in leader.state.pools:
            raise missing("AgentPool", namespace, name)
        agents = leader.core.agents(key)
        states: dict[AgentState, int] = defaultdict(int)
        for each in agents:
            states[each.state] += 1
        return shapes.PoolDetail(
            **self._pool(leader, key, states),
            agents=[_agent(each) for each in agents[:MOST_AGENTS]],
            left_out=max(0, len(agents) - MOST_AGENTS),
        )

    def _queues(self, leader: Leader, queues: Iterable[Queue]) -> list[shapes.QueueView]:
        by_level: dict[Key, list[tuple[int, int, int]]] = defaultdict(list)
        for (key, level), (waiting, leased) in leader.core.level_counts().items():
            by_level[key].append((level, waiting, leased))
        return [self._queue(leader, each, sorted(by_level[each.key], reverse=True)) for each in queues]

    def _queue(self, leader: Leader, queue: Queue, levels: list[tuple[int, int, int]]) -> shapes.QueueView:
        closed = self._facts.why_closed(queue.key)
        return shapes.QueueView(
            name=queue.name,
            namespace=queue.namespace,
            pools=list(queue.all_pools),
            paused=queue.paused,
            accepting=not closed,
            why_not=closed,
            waiting=sum(waiting for _, waiting, _ in levels),
            leased=sum(leased for _, _, leased in levels),
            dead_letters=self._facts.dead_letters(queue.key),
            outside=explanations.outside(leader.core.outside(queue.key)),
            levels=[
                shapes.LevelCount(level=LEVELS[at], waiting=waiting, leased=leased) for at, waiting, leased in levels
            ],
            limits=[
                shapes.Limit(
                    name=each.name, left=round(each.level, 3), capacity=each.capacity, per_second=each.per_second
                )
                for each in leader.core.levels(queue.key, self._wall())
            ],
            bottleneck=_bottleneck(self._facts.bottlenecks()[0].get(queue.key)),
        )

    def _pool(self, leader: Leader, key: Key, states: Mapping[AgentState, int]) -> dict[str, Any]:
        now = leader.core.pool_view(key)
        return {
            "namespace": key[0],
            "name": key[1],
            "desired": now.desired,
            "reason": now.reason.value,
            "message": now.message,
            "pods": now.pods,
            "ready": now.ready,
            "slots": now.slots,
            "busy_slots": now.busy_slots,
            "states": {state.value: count for state, count in sorted(states.items())},
            "stalled": self._stalled(key),
            "bottleneck": _bottleneck(self._facts.bottlenecks()[1].get(key)),
        }


def after(query: Mapping[str, str]) -> str:
    """Where a page begins. Raises Problem where anything else is asked."""
    only(query, "continue")
    return query.get("continue", "")


def _next(known: Iterable[Key], namespace: str, after: str) -> tuple[list[Key], str]:
    """The next ones of the namespace by name, and what to ask for those after them."""
    found = heapq.nsmallest(MOST_ROWS + 1, (key for key in known if key[0] == namespace and key[1] > after))
    return found[:MOST_ROWS], found[MOST_ROWS - 1][1] if len(found) > MOST_ROWS else ""


def _agent(agent: AgentView) -> shapes.AgentRow:
    return shapes.AgentRow.model_construct(
        name=agent.name,
        uid=agent.uid,
        state=agent.state.value,
        slots=agent.slots,
        busy_slots=agent.busy_slots,
        breaker=agent.breaker.value,
        attempts=agent.attempts,
        pace=None if agent.pace is None else round(agent.pace, 3),
        success_rate=None if agent.success is None else round(agent.success, 3),
    )


def _bottleneck(found: Bottleneck | None) -> shapes.Bottleneck | None:
    if found is None:
        return None
    held = found.holdup
    return shapes.Bottleneck(
        reason=held.reason.value,
        what=held.what,
        tasks=held.tasks,
        part=round(found.part, 3),
        message=found.message,
        unblock=held.found.unblock,
        command=held.found.command,
    )
