"""Facts that status tells of pools and queues: what is true now, what was told last, whose status is to be written.

Questions (`pool`, `queue`) remember nothing. `told_pool` and `told_queue` do: they are called with what goes into
status. It writes nothing itself, and goes by the clocks and the core that it is given.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import replace

from taskdist.api import Reason
from taskdist.controller.levels import ToldLevels
from taskdist.controller.retention import Withheld
from taskdist.controller.status import PoolFacts, QueueFacts, ToldCause, waits_for_archive
from taskdist.controller.tally import Tally
from taskdist.core import Core, views
from taskdist.core.agents.performance import PoolPerformance
from taskdist.core.explaining.bottlenecks import Bottleneck, Damper
from taskdist.core.model import Key
from taskdist.protocol.backpressure import Doors
from taskdist.protocol.observations import Now

# How many pools and queues at most have status written at one look because of figures alone, over all of them. Each
# write costs the API server what a Task's costs, and a Task starts no sooner for it.
FIGURES_A_LOOK = 10
# How often it is asked what holds Tasks up, in seconds.
BOTTLENECK_SECONDS = 5.0
# How often what is known of how a pool's agents do is told, in seconds.
PERFORMANCE_SECONDS = 60.0


class StatusTracker:
    """Compares the facts of pools and queues with those that status told last, for one leadership."""

    def __init__(
        self, clocks: Callable[[], Now], tally: Tally, doors: Doors, withheld: Callable[[Key], Withheld]
    ) -> None:
        self._clocks = clocks
        self._tally = tally
        self._doors = doors
        self._withheld = withheld
        self._changed_pools: set[Key] = set()
        self._pools: dict[Key, PoolFacts] = {}
        self._queues: dict[Key, QueueFacts] = {}
        # When the facts of a pool or queue were last told (boot time).
        self._pools_at: dict[Key, float] = {}
        self._queues_at: dict[Key, float] = {}
        # When what is known of how a pool's agents do was last told (boot time).
        self._performance_at: dict[Key, float] = {}
        self._levels = ToldLevels()
        self._queue_watch, self._pool_watch = Damper(), Damper()
        # What holds most waiting time of queues and of what pools could serve, as of the last watch.
        self._queue_holds: Mapping[Key, Bottleneck] = {}
        self._pool_holds: Mapping[Key, Bottleneck] = {}
        self._watched_at = 0.0

    # -- questions -------------------------------------------------------------------------------------------------

    def pool(self, core: Core, key: Key) -> PoolFacts:
        """Return what status is to say of the pool now."""
        view, bottleneck = core.pool_view(key), _held(self._pool_holds.get(key))
        return _facts(view, core.breakers(key), self._performance(core, key), bottleneck)

    def queue(self, core: Core, key: Key) -> QueueFacts:
        """Return what status is to say of the queue now."""
        return self._queue(core, key, core.queue_counts().get(key, (0, 0)))

    def bottlenecks(self) -> tuple[Mapping[Key, Bottleneck], Mapping[Key, Bottleneck]]:
        """By queue and by pool: what holds most waiting time, where anything does for long."""
        return self._queue_holds, self._pool_holds

    def _queue(self, core: Core, key: Key, counts: tuple[int, int]) -> QueueFacts:
        wall = self._clocks().wall
        levels = self._levels.due(key, core.levels(key, wall), wall)
        held = _held(self._queue_holds.get(key))
        unarchived = waits_for_archive(self._withheld(key), wall)
        dead, outside = self._tally.dead_letters(key), core.waiting_outside(key)
        return QueueFacts(*counts, dead, self._doors.closed(key), held, levels, unarchived, outside)

    def _performance(self, core: Core, key: Key) -> PoolPerformance:
        """Return how the pool's agents do, as told last until that is old: each Task changes it."""
        told = self._pools.get(key)
        recent = self._clocks().boot < self._performance_at.get(key, 0.0) + PERFORMANCE_SECONDS
        if told is not None and told.performance.types and recent:
            return told.performance
        return core.performance(key)

    # -- what happens ----------------------------------------------------------------------------------------------

    def told_pool(self, key: Key, facts: PoolFacts) -> None:
        """Status says this of the pool now."""
        boot = self._clocks().boot
        if key not in self._pools or facts.performance is not self._pools[key].performance:
            self._performance_at[key] = boot
        self._pools[key] = facts
        self._pools_at[key] = boot

    def told_queue(self, key: Key, facts: QueueFacts) -> None:
        """Status says this of the queue now."""
        self._levels.told(key, facts.limits)
        self._queues[key] = facts
        self._queues_at[key] = self._clocks().boot

    def pool_changed(self, key: Key) -> None:
        """Something about the pool is other than it was: the next `take_due` compares."""
        self._changed_pools.add(key)

    def pool_deleted(self, key: Key) -> None:
        """Nothing is told of the pool any more."""
        for of_pool in (self._pools, self._pools_at, self._performance_at):
            of_pool.pop(key, None)

    def queue_deleted(self, key: Key) -> None:
        """Nothing is told of the queue any more."""
        for of_queue in (self._queues, self._queues_at):
            of_queue.pop(key, None)
        self._levels.forget(key)

    def watch(self, core: Core) -> None:
        """Look, every now and then, at what holds Tasks up."""
        wall = self._clocks().wall
        if not self._watched_at <= wall < self._watched_at + BOTTLENECK_SECONDS:
            self._watched_at = wall
            of_queues, of_pools = core.holdups(wall)
            self._queue_holds = self._queue_watch.look(of_queues, wall)
            self._pool_holds = self._pool_watch.look(of_pools, wall)

    def take_due(self, core: Core) -> tuple[set[Key], set[Key]]:
        """Return the pools and the queues whose status is to be written: all that press, few of those with new figures.

        Those that were told of longest ago come first, so that each gets its turn.
        """
        pools, queues, stale = set[Key](), set[Key](), list[tuple[float, bool, Key]]()
        changed, self._changed_pools = self._changed_pools, set()
        for key in changed | self._pools.keys():
            told, facts = self._pools.get(key), self.pool(core, key)
            # A message alone is no reason to write: it may name numbers that change with every Task.
            if told is None or facts.presses_beyond(told):
                pools.add(key)
            elif replace(facts, reason=told.reason, message=told.message) != told:
                stale.append((self._pools_at.get(key, 0.0), True, key))
        counts = core.queue_counts()
        for key in counts.keys() | self._tally.all_dead_letters().keys() | self._queues.keys():
            last, now = self._queues.get(key), self._queue(core, key, counts.get(key, (0, 0)))
            if last is None or now.presses_beyond(last):
                queues.add(key)
            elif now != last:
                stale.append((self._queues_at.get(key, 0.0), False, key))
        for _, of_pool, key in heapq.nsmallest(FIGURES_A_LOOK, stale):
            (pools if of_pool else queues).add(key)
        return pools, queues


def _held(found: Bottleneck | None) -> ToldCause | None:
    return None if found is None else ToldCause(found.holdup.reason, found.holdup.what, found.message)


def _facts(
    view: views.PoolView,
    breakers: tuple[views.BreakerView, ...],
    performance: PoolPerformance,
    bottleneck: ToldCause | None,
) -> PoolFacts:
    return PoolFacts(
        view.desired,
        view.reason,
        view.message,
        view.ready,
        view.slots,
        view.busy_slots,
        view.surge,
        view.outdated,
        breakers,
        performance,
        bottleneck,
        view.failing,
        view.reason is Reason.PODS_FAILING,
    )
