"""The matching of Tasks and agents: which agent classes may serve which shapes of Tasks.

Interns shapes and agent classes, and keeps the matching right as queues, pools and agents change. Each pair is tried
against the filters once. Knows nothing of the order of Tasks, or of free agents.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from taskdist.api import Reason, Strategy
from taskdist.core.agents.filters import (
    Need,
    Offer,
    labels_asked,
    need_of,
    offer_of,
    prospective,
    refusal,
    tasks_at_once,
)
from taskdist.core.agents.roster import AgentClass, AgentRecord, Roster
from taskdist.core.fleet.equivalence import (
    Candidate,
    Candidates,
    Contest,
    Demand,
    Profile,
    Shape,
    ShapeKey,
    Special,
    contest_in,
)
from taskdist.core.fleet.profiles import Profiles
from taskdist.core.fleet.routes import NONE, opened, route_of
from taskdist.core.model import EMERGENCY, ZONE, Agent, Key, Pool, Queue, Route, Task
from taskdist.core.order import is_emergency


class Catalogue:
    """All shapes and agent classes, and which serve which, as queues, pools and agents come, change and go."""

    def __init__(
        self,
        rehome: Callable[[Shape, Profile | None], None],
        redirect: Callable[[Shape, Demand | None, Demand | None], None],
        resized: Callable[[Roster], None],
        relabelled: Callable[[], None],
        renamed: Callable[[AgentRecord], None] = lambda _: None,
    ) -> None:
        """`rehome(shape, profile)` puts a shape's Tasks under a profile, or under none while it is closed.
        `redirect(shape, former, demand)` counts them where they want room now.

        `resized(roster)` hears of rosters whose servable profiles may have changed. `relabelled()` enrols every agent
        anew, because selectors ask for a further label and agents that were alike may differ now. `renamed(agent)` does
        so for one, because Tasks ask for it by its name.
        """
        self._pairing = Profiles(rehome, redirect, resized)
        self.profiles = self._pairing.profiles
        self.demands = self._pairing.demands
        self._by_number = self._pairing.by_number
        self._census = self._pairing.census
        self.queues: dict[Key, Queue] = {}
        self.pools: dict[Key, Pool] = {}
        self.shapes: dict[ShapeKey, Shape] = {}
        self.classes: dict[Offer, AgentClass] = {}
        # Whether any pool has a target for how long Tasks wait.
        self.timed = False
        # Agents that get less work than they offer, by uid. Kept by `probation`.
        self.on_probation: dict[str, AgentRecord] = {}
        # Agents whose pods do not come up, by uid; kept by the fleet.
        self.failing: dict[str, AgentRecord] = {}
        self._by_queue: dict[Key, dict[ShapeKey, Shape]] = {}
        self._by_pool: dict[Key, dict[Offer, AgentClass]] = {}
        self._label_keys: set[str] = set()
        self._relabelled = relabelled
        self._renamed = renamed
        # Agents that are enrolled, by namespace and name, and the names that Tasks ask for.
        self._by_name: dict[Key, dict[str, AgentRecord]] = {}
        self._asked: set[Key] = set()
        # By pool: how many agents it has to stay; and the pools that have all that they may.
        self._counted: dict[Key, int] = {}
        self._grown: set[Key] = set()
        self._free_classes: list[int] = []
        self._sweep_at = 1024
        self._sweep_classes_at = 256

    # Queues and pools.

    @property
    def version(self) -> int:
        """Grows whenever a pool or the set of demands changes."""
        return self._pairing.version

    def queue(self, key: Key) -> Queue:
        """Return the queue's rules; defaults where it does not exist."""
        return self.queues.get(key) or Queue(*key)

    def apply_queue(self, queue: Queue) -> None:
        if self.queues.get(queue.key) != queue:
            self.queues[queue.key] = queue
            if Strategy.SPREAD in queue.strategies:
                self._look_at({ZONE})
            self._resolve_all(self._by_queue.get(queue.key, {}).values())

    def drop_queue(self, key: Key) -> None:
        if self.queues.pop(key, None) is not None:
            self._resolve_all(self._by_queue.get(key, {}).values())

    def apply_pool(self, pool: Pool) -> None:
        former = self.pools.get(pool.key)
        if former != pool:
            self.pools[pool.key] = pool
            self._pools_changed()
            self._judge(pool.key)
            alike = former is not None and (former.cost_per_hour, former.quality) == (pool.cost_per_hour, pool.quality)
            if not alike and self._by_pool.get(pool.key):
                self._relabelled()
            self._resolve_namespace(pool.namespace)

    def drop_pool(self, key: Key) -> None:
        pool = self.pools.pop(key, None)
        if pool is not None:
            self._pools_changed()
            self._judge(key)
            self._resolve_namespace(pool.namespace)

    def _pools_changed(self) -> None:
        self._pairing.version += 1
        self.timed = any(pool.target_queue > 0.0 for pool in self.pools.values())

    def count(self, pool: Key, agents: int) -> None:
        """Note how many agents of the pool are there to stay."""
        if self._counted.get(pool, 0) == agents:
            return
        if agents:
            self._counted[pool] = agents
        else:
            del self._counted[pool]
        if self._judge(pool):
            namespace, name = pool
            for shape in list(self.shapes.values()):
                if shape.route is not None and shape.namespace == namespace and name in shape.route.pools:
                    self._resolve(shape)

    def _judge(self, pool: Key) -> bool:
        """Note whether the pool has all the agents that it may have; return whether that has changed."""
        shape = self.pools.get(pool)
        grown = shape is not None and self._counted.get(pool, 0) >= shape.maximum
        if grown == (pool in self._grown):
            return False
        if grown:
            self._grown.add(pool)
        else:
            self._grown.discard(pool)
        return True

    # Shapes.

    def shape_of(self, task: Task, step: int = 0, relaxed: bool = False) -> Shape:
        """Return the Task's shape. `step`: the step of its route that its wait has opened; `relaxed`: it no longer
        waits for an agent that it prefers."""
        queue = (task.namespace, task.queue)
        rules, placement = self.queues.get(queue), task.placement
        route = NONE if rules is None or not rules.routes else route_of(rules, task)
        patient = placement is not None and not relaxed and placement.waits
        key = (
            queue,
            task.pool,
            task.type,
            task.slots,
            task.resources,
            task.skills,
            task.selector,
            task.priority >= EMERGENCY and is_emergency(self.queue(queue), task),
            None
            if route == NONE and task.agent is None and not task.budgets and placement is None and not task.objects
            else Special(
                task.agent, route, NONE if route == NONE else step, task.budgets, placement, patient, task.objects
            ),
        )
        shape = self.shapes.get(key)
        if shape is None:
            if len(self.shapes) >= self._sweep_at:
                self._sweep()
            shape = self.shapes[key] = Shape(key, need_of(task, False, patient))
            self._by_queue.setdefault(shape.queue_key, {})[key] = shape
            self._look_at(labels_asked(task))
            if not task.skills <= self._census.asked:
                self._census.asked |= task.skills
                self._census.version += 1
            if task.agent is not None:
                self._ask(task.namespace, task.agent)
            self._resolve(shape)
        return shape

    def _look_at(self, labels: set[str]) -> None:
        """Tell agents apart by these labels from now on."""
        if not labels <= self._label_keys:
            self._label_keys |= labels
            self._relabelled()

    def _ask(self, namespace: str, name: str) -> None:
        """Tell the agents of this name from others, because a Task asks for it."""
        if (namespace, name) not in self._asked:
            self._asked.add((namespace, name))
            for agent in list(self._by_name.get((namespace, name), {}).values()):
                self._renamed(agent)

    def _sweep(self) -> None:
        """Forget shapes without Tasks, so that the table follows what is there."""
        for shape in [shape for shape in self.shapes.values() if not shape.tasks]:
            self._pairing.place(shape, None)
            self._pairing.want(shape, ())
            del self.shapes[shape.key]
            of_queue = self._by_queue[shape.queue_key]
            del of_queue[shape.key]
            if not of_queue:
                del self._by_queue[shape.queue_key]
        self._sweep_at = max(1024, 2 * len(self.shapes))
        # Agents that no Task asks for by name any more are like others again.
        agents = [(shape.namespace, shape.special.agent) for shape in self.shapes.values()]
        asked = {(namespace, agent) for namespace, agent in agents if agent is not None}
        for name in self._asked - asked:
            self._asked.discard(name)
            for agent in list(self._by_name.get(name, {}).values()):
                self._renamed(agent)

    def _resolve_all(self, shapes: Iterable[Shape]) -> None:
        for shape in list(shapes):
            self._resolve(shape)

    def _resolve_namespace(self, namespace: str) -> None:
        self._resolve_all(shape for shape in self.shapes.values() if shape.namespace == namespace)

    def _resolve(self, shape: Shape) -> None:
        """Work out anew which pools and agent classes may serve the shape."""
        queue, number = self.queues.get(shape.queue_key), shape.special.route
        shape.queue = queue or Queue(*shape.queue_key)
        shape.need = replace(shape.need, allows_unfenced=queue is not None and queue.allows_unfenced)
        shape.route = shape.queue.routes[number] if NONE < number < len(shape.queue.routes) else None
        shape.tiers, shape.steps = (), 0
        if shape.route is not None:
            shape.pools = self._routed(shape, shape.route)
        else:
            shape.pools = self._named(shape)
        shape.closed = (
            Reason.QUEUE_NOT_FOUND
            if queue is None
            else Reason.QUEUE_PAUSED
            if queue.paused
            else Reason.AGENT_NOT_FOUND
            if not shape.pools and shape.need.agent is not None
            else Reason.POOL_NOT_FOUND
            if not shape.pools
            else None
        )
        shape.serving = self._serving(shape, shape.pools)
        if shape.steps > 1 or (shape.route is not None and shape.emergency):
            assert shape.route is not None
            self._part(shape, shape.route)
        else:
            shape.contests = (contest_in(shape, shape.route, 0 if shape.route is None else 1),)
        alike = len({contest.strategy for contest in shape.contests}) == 1
        shape.strategy = shape.contests[0].strategy if alike else None
        self._file(shape)

    def _serving(self, shape: Shape, pools: Iterable[Key]) -> int:
        """Return the agent classes of these pools that may run the shape's Tasks, as bits."""
        serving = 0
        for pool in pools:
            for kind in self._by_pool.get(pool, {}).values():
                if refusal(shape.need, kind.offer) is None:
                    serving |= 1 << kind.number
        return serving

    def _named(self, shape: Shape) -> tuple[Key, ...]:
        """Return the pools of a shape without a route: the Task's own, its agent's, or its queue's."""
        namespace = shape.namespace
        if shape.need.agent is not None:
            of_agent = self._by_name.get((namespace, shape.need.agent), {}).values()
            found = {agent.kind.offer.pool for agent in of_agent if agent.kind is not None}
            keys = [key for key in sorted(found) if key in self.pools]
            return tuple(key for key in keys if shape.pool is None or key == (namespace, shape.pool))
        queue = self.queues.get(shape.queue_key)
        names = (shape.pool,) if shape.pool is not None else queue.pools if queue is not None else ()
        if shape.emergency and shape.pool is None:
            names = (*names, *self._others(namespace, names))
        return tuple(key for name in names if (key := (namespace, name)) in self.pools)

    def _others(self, namespace: str, names: Sequence[str]) -> list[str]:
        """Return the namespace's other pools: emergencies may use them, too."""
        return sorted(name for space, name in self.pools if space == namespace and name not in names)

    def _routed(self, shape: Shape, route: Route) -> tuple[Key, ...]:
        """Return the pools of the route's open steps, in order; for emergencies those of all steps, then all others."""
        namespace = shape.namespace
        if shape.emergency:
            shape.steps = len(route.steps)
        else:
            shape.steps = opened(route, shape.step, lambda name: self._may_grow(shape, (namespace, name)))
        names = [name for step in route.steps[: shape.steps] for name in step.pools]
        if shape.emergency:
            names += self._others(namespace, names)
        return tuple(key for name in dict.fromkeys(names) if (key := (namespace, name)) in self.pools)

    def _may_grow(self, shape: Shape, key: Key) -> bool:
        """Whether the pool may yet get an agent for the shape's Tasks, because they wait."""
        pool = self.pools.get(key)
        if pool is None or not pool.elastic or key in self._grown:
            return False
        # What the Task would rather have leads it to no other step: it takes what is here once it has waited for that.
        return bool(self._offers(replace(shape.need, patient=False) if shape.patient else shape.need, pool))

    def _part(self, shape: Shape, route: Route) -> None:
        """Part the serving classes by the first step that has them; classes of no step come last."""
        tiers: list[int] = []
        contests: list[Contest] = []
        seen = 0
        for number, step in enumerate(route.steps[: shape.steps], 1):
            keys = [(shape.namespace, name) for name in step.pools]
            tier = self._serving(shape, [key for key in keys if key in self.pools]) & ~seen
            seen |= tier
            if tier:
                tiers.append(tier)
                contests.append(contest_in(shape, route, number))
        if shape.serving & ~seen or not tiers:
            tiers.append(shape.serving & ~seen)
            contests.append(contest_in(shape, route, 0))
        shape.contests = tuple(contests)
        shape.tiers = tuple(tiers) if len(tiers) > 1 else ()

    def _file(self, shape: Shape) -> None:
        """Put the shape under its profile and its demand, or under none while it is closed."""
        self._pairing.place(shape, None if shape.closed else self._pairing.of(shape))
        self._pairing.want(shape, () if shape.closed else self._candidates(shape))

    def kinds(self, pool: Key) -> list[AgentClass]:
        """Return the classes of the pool's agents, without those that have no member now."""
        return [kind for kind in self._by_pool.get(pool, {}).values() if kind.members]

    def _candidates(self, shape: Shape) -> Candidates:
        """Return the pools where the Tasks lack nothing but room, judged by their agents or else by their spec.

        None for a Task that waits for one agent: another one would not help.
        """
        if shape.need.agent is not None:
            return ()
        found: list[Candidate] = []
        for key in shape.pools:
            offers = self._offers(shape.need, self.pools[key])
            if offers:
                at_once = max(tasks_at_once(offer.slots, offer.resources, shape.need) for offer in offers)
                found.append(Candidate(key, at_once))
        return tuple(found)

    def _offers(self, need: Need, pool: Pool) -> list[Offer]:
        """Return the offers in the pool that may serve the need: of its agents or, if it has none, of one it could
        start."""
        kinds = self.kinds(pool.key)
        offers = [kind.offer for kind in kinds] if kinds else [prospective(pool)]
        return [offer for offer in offers if refusal(need, offer) is None]

    # Agents.

    def enrol(self, agent: AgentRecord) -> None:
        """Put the agent into the class of its offer. Its rosters must have been left before."""
        assert agent.reported is not None
        offer = self._project(agent.reported)
        if agent.kind is not None and agent.kind.offer == offer:
            return
        self.dismiss(agent)
        kind = self.classes.get(offer)
        if kind is None:
            if len(self.classes) >= self._sweep_classes_at:
                self._sweep_classes()
            number = self._free_classes.pop() if self._free_classes else len(self._by_number)
            kind = self.classes[offer] = self._by_number[number] = AgentClass(number, offer)
            self._by_pool.setdefault(offer.pool, {})[offer] = kind
            kind.join(agent)
            agent.kind = kind
            self._census.version += 1
            for shape in list(self.shapes.values()):
                if shape.need.agent is not None:
                    continue
                if shape.route is not None:
                    if shape.namespace == offer.namespace:
                        self._resolve(shape)
                elif offer.pool in shape.pools:
                    if refusal(shape.need, offer) is None:
                        shape.serving |= 1 << kind.number
                    self._file(shape)
        else:
            agent.kind = kind
            kind.join(agent)
            self._census.version += 1
            if len(kind.members) == 1:
                self._repopulated(kind)
        name = (offer.namespace, agent.reported.name)
        agent.enrolled = name
        self._by_name.setdefault(name, {})[agent.uid] = agent
        self._named_anew(name)

    def dismiss(self, agent: AgentRecord) -> None:
        """Take the agent out of its class. Its rosters must have been left before."""
        kind, agent.kind = agent.kind, None
        if kind is None:
            return
        kind.leave(agent)
        self._census.version += 1
        if not kind.members:
            self._repopulated(kind)
        name, agent.enrolled = agent.enrolled, None
        if name is not None:
            named = self._by_name[name]
            del named[agent.uid]
            if not named:
                del self._by_name[name]
            self._named_anew(name)

    def _named_anew(self, name: Key) -> None:
        """Resolve the shapes again that ask for an agent of this name."""
        if name in self._asked:
            namespace, agent = name
            for shape in list(self.shapes.values()):
                if shape.need.agent == agent and shape.namespace == namespace:
                    self._resolve(shape)

    def _repopulated(self, kind: AgentClass) -> None:
        """A class has got its first member, or lost its last: judge anew which pools could serve by growing.

        Empty classes stay: an agent of the kind mostly comes back.
        """
        for shape in list(self.shapes.values()):
            if shape.route is not None and shape.namespace == kind.offer.namespace:
                self._resolve(shape)
            elif kind.offer.pool in shape.pools and not shape.closed:
                self._pairing.want(shape, self._candidates(shape))

    def _sweep_classes(self) -> None:
        """Forget classes without agents: agents may report ever new amounts of a resource."""
        empty = [kind for kind in self.classes.values() if not kind.members]
        for kind in empty:
            del self.classes[kind.offer]
            del self._by_number[kind.number]
            self._free_classes.append(kind.number)
            of_pool = self._by_pool[kind.offer.pool]
            del of_pool[kind.offer]
            if not of_pool:
                del self._by_pool[kind.offer.pool]
        forgotten = sum(1 << kind.number for kind in empty)
        for shape in list(self.shapes.values()):
            if not shape.serving & forgotten:
                continue
            if shape.route is not None:
                self._resolve(shape)
            else:
                shape.serving &= ~forgotten
                self._file(shape)
        self._sweep_classes_at = max(256, 2 * len(self.classes))

    def _project(self, agent: Agent) -> Offer:
        """Return the agent's offer, with the labels that selectors ask for only: else every pod would be a class."""
        labels = tuple(sorted((key, value) for key, value in agent.labels if key in self._label_keys))
        offer = offer_of(agent, self.pools.get(agent.pool_key))
        name = agent.name if (agent.namespace, agent.name) in self._asked else ""
        return replace(offer, resources=tuple(sorted(agent.resources)), labels=labels, name=name)
