"""What is so after the core's events and decisions, kept as plain values, and what the rules say of it.

Every question is answered by looking at everything: slow and plain on purpose. Nothing here is the core's.
"""

from dataclasses import dataclass, field
from math import inf

from taskdist.api import OnDependencyFailure, OrderPolicy, Phase, Strategy
from taskdist.core.model import (
    EMERGENCY,
    REGION,
    TOP,
    ZONE,
    Agent,
    Budget,
    Key,
    Parent,
    Pool,
    Queue,
    Requirement,
    Route,
    Task,
    TokenRate,
)

EDGE = 1e-9


@dataclass
class Bucket:
    """A bucket of tokens, replayed. Where its terms changed it is not known how many are there: between two numbers."""

    rate: TokenRate
    least: float
    most: float
    at: float
    # How many were there right before each take: (time, at least, at most).
    levels: list[tuple[float, float, float]] = field(default_factory=list)
    # When it was first used, and when its terms changed last.
    born: float = -inf
    changed: float = -inf

    @classmethod
    def full(cls, rate: TokenRate, now: float) -> "Bucket":
        return cls(rate, rate.burst, rate.burst, now, born=now)

    def settle(self, now: float) -> None:
        more = (now - self.at) * self.rate.per_second
        self.least = min(self.rate.burst, self.least + more)
        self.most = min(self.rate.burst, self.most + more)
        self.at = now

    def take(self, tokens: float, now: float) -> None:
        self.settle(now)
        self.levels.append((now, self.least, self.most))
        self.least -= tokens
        self.most -= tokens

    def give_back(self, tokens: float, since: float, now: float) -> None:
        """So many were taken at `since` in vain; below zero: so many more. It never held more than its burst."""
        self.settle(now)
        if tokens <= 0.0:
            self.least += tokens
            self.most += tokens
            return
        if since < self.born or since <= self.changed:
            # Whoever was granted under other terms, or none, may not have paid, and is given back all the same.
            self.most = min(self.rate.burst, self.most + tokens)
            return
        later = [level for level in self.levels if level[0] > since]
        most = max([self.most, *(level[2] for level in later)])
        least = max([self.least, *(level[1] for level in later)])
        # The fuller it may have been meanwhile, the less of it comes back.
        fewest = max(0.0, min(tokens, self.rate.burst - most))
        self.least += fewest
        self.most = min(self.rate.burst, self.most + max(0.0, min(tokens, self.rate.burst - least)))
        self.levels = [(at, low + fewest * (at > since), high + tokens * (at > since)) for at, low, high in self.levels]

    def doubt(self, rate: TokenRate, now: float) -> None:
        self.settle(now)
        self.changed = now
        self.rate = rate
        self.least, self.most = min(self.least, rate.burst), rate.burst


@dataclass
class State:
    """Tasks, agents and rules as they stand."""

    queues: dict[Key, Queue] = field(default_factory=dict)
    pools: dict[Key, Pool] = field(default_factory=dict)
    waiting: dict[str, Task] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    leased: dict[str, tuple[Task, str]] = field(default_factory=dict)
    # How Tasks ended, or None for those deleted before; dead letters too, which have not.
    ended: dict[str, Phase | None] = field(default_factory=dict)
    # Of the leased: whose attempt has failed, and when who took tokens.
    failed: set[str] = field(default_factory=set)
    paid: dict[str, float] = field(default_factory=dict)
    # Of the waiting: of whom it was decided that they end or go elsewhere, and who of them counts no more.
    ending: set[str] = field(default_factory=set)
    turned_away: set[str] = field(default_factory=set)
    # Who came since the last decisions.
    fresh: set[str] = field(default_factory=set)
    # By uid: when its last attempt ended, as a number that grows. It goes first of its ordering key then.
    returned: dict[str, int] = field(default_factory=dict)
    buckets: dict[tuple[Key, str | None], Bucket] = field(default_factory=dict)
    # By queue and name: what budgets may spend; by uid: what the leased have spent of them.
    purses: dict[tuple[Key, str], Bucket] = field(default_factory=dict)
    spent: dict[str, dict[tuple[Key, str], int]] = field(default_factory=dict)
    # Of the waiting: since when nothing of their own holds them, at the earliest and at the latest.
    since: dict[str, tuple[float, float]] = field(default_factory=dict)
    now: float = 0.0
    agents: dict[str, Agent] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    pods: dict[str, Key] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    # Whose breakers are open or half open.
    doubted: set[str] = field(default_factory=set)
    desired: dict[Key, int] = field(default_factory=dict)
    successes: int = 0

    def queue(self, task: Task) -> Queue:
        return self.queues.get(task.queue_key) or Queue(*task.queue_key)

    # What each agent has.

    def busy(self, uid: str) -> int:
        return sum(task.slots for task, agent in self.leased.values() if agent == uid)

    def free(self, uid: str) -> tuple[int, dict[str, int]]:
        agent = self.agents[uid]
        resources = dict(agent.resources)
        for task, holder in self.leased.values():
            if holder == uid:
                for name, amount in task.resources:
                    resources[name] = resources.get(name, 0) - amount
        return agent.slots - self.busy(uid), resources

    def idle(self, uid: str) -> bool:
        return all(agent != uid for _, agent in self.leased.values())

    def open(self, uid: str) -> bool:
        return uid in self.ready and uid not in self.draining | self.deleting | self.gone

    # Gates of the Task's own.

    def eligible(self, task: Task, now: float) -> bool:
        """Whether neither the Task nor its queue holds it; limits may."""
        queue = self.queues.get(task.queue_key)
        return (
            queue is not None
            and not queue.paused
            and not task.suspended
            and task.not_before <= now
            and task.uid not in self.held
            and task.uid not in self.ending
            and not self.blamed(task)
            and not self.awaited(task)
            and self.in_turn(task)
        )

    def parents(self, task: Task) -> list[Parent]:
        """Return its parents as they are now."""
        return [
            Parent(each.name, each.uid, self.ended[each.uid], self.ended[each.uid] is None)
            if each.uid in self.ended
            else each
            for each in task.parents
        ]

    def blamed(self, task: Task) -> list[Parent]:
        """Return the parents for which it ends without having run."""
        if task.on_parent_failure is OnDependencyFailure.RUN:
            return []
        return [each for each in self.parents(task) if each.gone or each.phase in (Phase.FAILED, Phase.CANCELLED)]

    def awaited(self, task: Task) -> list[Parent]:
        """Return the parents that have not ended."""
        return [each for each in self.parents(task) if not over(each)]

    def in_turn(self, task: Task) -> bool:
        key = (task.queue_key, task.ordering_key)
        if task.ordering_key is None:
            return True
        if any((each.queue_key, each.ordering_key) == key for each, _ in self.leased.values()):
            return False
        mine = self._turn(task)
        others = [
            each
            for each in self.waiting.values()
            if (each.queue_key, each.ordering_key) == key and each.uid not in self.turned_away
        ]
        return all(self._turn(each) >= mine for each in others)

    def _turn(self, task: Task) -> tuple[int, bool, float, str]:
        return -self.returned.get(task.uid, 0), not task.attempted, task.created, task.uid

    # Limits.

    def emergency(self, task: Task) -> bool:
        return task.priority >= EMERGENCY and self.queue(task).policy is OrderPolicy.PRIORITY

    def rates(self, task: Task) -> list[tuple[tuple[Key, str | None], TokenRate]]:
        queue = self.queue(task)
        found: list[tuple[tuple[Key, str | None], TokenRate]] = []
        if queue.rate is not None:
            found.append(((task.queue_key, None), queue.rate))
        if queue.tenant_rate is not None:
            found.append(((task.queue_key, task.tenant), queue.tenant_rate))
        return found

    def tokens(self, task: Task, now: float) -> tuple[float, float]:
        """Return how many tokens are there for it, at least and at most: of the bucket that has fewest."""
        least = most = float("inf")
        for name, rate in self.rates(task):
            bucket = self.buckets.setdefault(name, Bucket.full(rate, now))
            bucket.settle(now)
            least, most = min(least, bucket.least), min(most, bucket.most)
        return least, most

    def limited(self, task: Task, now: float) -> list[str]:
        """Name the limits that hold it for sure, but for tokens."""
        queue = self.queue(task)
        leased = [each for each, _ in self.leased.values() if each.queue_key == task.queue_key]
        mine = [each for each in leased if each.tenant == task.tenant]
        found = []
        for name, bounds, those in (("queue", queue.quota, leased), ("tenant", queue.tenant_quota, mine)):
            if bounds.leased is not None and len(those) >= bounds.leased:
                found.append(f"the quota of its {name}")
            if bounds.slots is not None and sum(each.slots for each in those) + task.slots > bounds.slots:
                found.append(f"the slots of its {name}")
        if self.emergency(task):
            if task.tenant not in queue.emergency:
                found.append("not being allowed an emergency")
            if sum(each.priority >= EMERGENCY for each in mine) >= queue.emergency_leased:
                found.append("the cap of emergencies")
        if task.concurrency_key is not None:
            holders = sum(each.concurrency_key == task.concurrency_key for each in leased)
            if holders >= queue.concurrency_limit:
                found.append("its concurrency key")
        for name, of, amount in task.budgets:
            budget = self.budget(task, name, of)
            if budget is None:
                found.append(f"the lack of a budget {of}")
            elif budget.limit is not None:
                held = sum(
                    taken
                    for each, _ in self.leased.values()
                    if each.namespace == task.namespace
                    for where, what, taken in each.budgets
                    if (where, what) == (name, of)
                )
                if held + amount > budget.limit:
                    found.append(f"the budget {of}")
        return found

    def short_of_tokens(self, task: Task, now: float) -> tuple[bool, bool]:
        """Return whether it may be that no token is there, and whether it is sure."""
        if self.emergency(task):
            return False, False
        least, most = self.tokens(task, now)
        doubtful, sure = least < 1 + EDGE, most < 1 - EDGE
        for _, amount, rate, bucket in self.spending(task, now):
            bucket.settle(now)
            doubtful = doubtful or bucket.least < amount + EDGE or amount > rate.burst
            doubtful = doubtful or self.claimed(task, now)
            sure = sure or bucket.most < amount - EDGE * max(1, amount) or amount > rate.burst
        return doubtful, sure

    def claimed(self, task: Task, now: float) -> bool:
        """Whether what is there of its budgets may be kept for another one, which goes first and waits for more."""
        return any(
            self.goes_short(each, now) for each in self.sharers(task) if self.level(each, now) >= self.level(task, now)
        )

    def sharers(self, task: Task) -> list[Task]:
        """The others that wait and take of a budget that it takes of, as far as it is spent."""
        mine = {(queue, name) for queue, name, _ in task.budgets if self.is_rate(task, queue, name)}
        return [
            each
            for each in self.waiting.values()
            if each.uid != task.uid
            and each.namespace == task.namespace
            and any((queue, name) in mine for queue, name, _ in each.budgets)
        ]

    def is_rate(self, task: Task, queue: str, name: str) -> bool:
        budget = self.budget(task, queue, name)
        return budget is not None and budget.rate is not None

    def goes_short(self, task: Task, now: float) -> bool:
        """Whether it may wait for what comes to a budget with time."""
        for _, amount, rate, bucket in self.spending(task, now):
            bucket.settle(now)
            if amount <= rate.burst and bucket.least < amount + EDGE:
                return True
        return False

    def waits_for(self, task: Task, now: float) -> tuple[str, str] | None:
        """The budget that it waits for and surely for nothing else than that time brings what is missing."""
        spending = self.spending(task, now)
        if len(spending) != 1 or self.emergency(task) or not self.eligible(task, now) or self.limited(task, now):
            return None
        (_, name), amount, rate, bucket = spending[0]
        bucket.settle(now)
        if self.tokens(task, now)[0] < 1 + EDGE or amount > rate.burst or bucket.most >= amount - EDGE * max(1, amount):
            return None
        return spending[0][0][0][1], name

    def budget(self, task: Task, queue: str, name: str) -> Budget | None:
        rules = self.queues.get((task.namespace, queue))
        return next((each for each in rules.budgets if each.name == name), None) if rules is not None else None

    def spending(self, task: Task, now: float) -> list[tuple[tuple[Key, str], int, TokenRate, Bucket]]:
        """The budgets that it spends of, how much, and what they hold."""
        found = []
        for queue, name, amount in task.budgets:
            budget, key = self.budget(task, queue, name), ((task.namespace, queue), name)
            if budget is not None and budget.rate is not None:
                bucket = self.purses.setdefault(key, Bucket.full(budget.rate, now))
                found.append((key, amount, budget.rate, bucket))
        return found

    def overfull(self, task: Task) -> bool:
        """Whether it is one too many of those that wait."""
        queue = self.queue(task)
        counted = [
            each
            for uid, each in self.waiting.items()
            if each.queue_key == task.queue_key and uid not in self.turned_away
        ]
        leased = [each for each, _ in self.leased.values() if each.queue_key == task.queue_key]
        full = queue.overflow.high_water if queue.overflow is not None else None
        for bounds, most, of in (
            (queue.quota, full, lambda each: True),
            (queue.tenant_quota, None, lambda each: each.tenant == task.tenant),
        ):
            waiting = [each for each in counted if of(each)]
            payload = sum(each.payload_bytes for each in [*waiting, *(each for each in leased if of(each))])
            if any(bound is not None and len(waiting) > bound for bound in (bounds.waiting, most)):
                return True
            if bounds.payload_bytes is not None and payload > bounds.payload_bytes and task.payload_bytes:
                return True
        return False

    # Order.

    def base(self, task: Task) -> int:
        queue = self.queue(task)
        return task.priority if queue.policy is OrderPolicy.PRIORITY else min(queue.level, TOP)

    def children(self, task: Task) -> list[Task]:
        return [
            each
            for uid, each in self.waiting.items()
            if uid not in self.held and any(parent.uid == task.uid for parent in self.awaited(each))
        ]

    def lift(self, task: Task) -> int:
        """The highest level of those that wait for it, directly or not."""
        return max((min(TOP, max(self.base(each), self.lift(each))) for each in self.children(task)), default=0)

    def chain(self, task: Task) -> int:
        return max((1 + self.chain(each) for each in self.children(task)), default=0)

    def level(self, task: Task, now: float) -> int:
        """The level with what waiting adds, one for each step up to Critical, and with what others lend."""
        queue, base = self.queue(task), self.base(task)
        if queue.policy is not OrderPolicy.PRIORITY or base >= EMERGENCY:
            return base
        base = max(base, self.lift(task))
        steps = max(0, int((now - task.created) // queue.aging_step)) if queue.aging_step else 0
        return min(TOP, base + steps)

    def behind(self, task: Task, other: Task) -> bool:
        """Whether the other is first, whatever shares say and whatever is known of how long they take.

        That can be told within one tenant's line, for Tasks without a deadline.
        """
        queue = self.queue(task)
        if task.queue_key != other.queue_key or task.deadline is not None or other.deadline is not None:
            return False
        if queue.policy is OrderPolicy.PRIORITY and task.tenant != other.tenant:
            return False
        chains = (self.chain(task), self.chain(other)) if queue.critical_path_first else (0, 0)
        return (-chains[1], other.created, other.uid) < (-chains[0], task.created, task.uid)

    # Who may run where.

    def observe(self, now: float) -> None:
        """Note since when nothing of their own holds those that wait."""
        self.now = now
        for uid, task in self.waiting.items():
            free = not task.suspended and task.not_before <= now and uid not in self.held and uid not in self.ending
            if not free or self.blamed(task) or self.awaited(task):
                self.since.pop(uid, None)
            elif not self.in_turn(task):
                # Whether that was noticed is not known.
                if uid in self.since:
                    self.since[uid] = (self.since[uid][0], float("inf"))
            elif uid not in self.since:
                self.since[uid] = (min(now, max(task.created, task.not_before)), now)
            elif self.since[uid][1] > now:
                self.since[uid] = (self.since[uid][0], now)
        for uid in [uid for uid in self.since if uid not in self.waiting]:
            del self.since[uid]

    def route(self, task: Task) -> Route | None:
        if task.pool is not None or task.agent is not None:
            return None
        return next((each for each in self.queue(task).routes if self.matches(task, each)), None)

    @staticmethod
    def matches(task: Task, route: Route) -> bool:
        match, most = route.match, route.match.max_slots
        return (
            (not match.types or task.type in match.types)
            and (not match.levels or task.priority in match.levels)
            and (not match.tenants or task.tenant in match.tenants)
            and match.min_slots <= task.slots <= (task.slots if most is None else most)
            and all(meets(dict(task.labels), each) for each in match.labels)
        )

    def step(self, task: Task, pool: str) -> int:
        """The number of the step that has the pool, from 0; past the last for pools of none."""
        route = self.route(task)
        steps = route.steps if route is not None else ()
        return next((number for number, each in enumerate(steps) if pool in each.pools), len(steps))

    def strategy(self, task: Task, pool: str) -> Strategy:
        """How an agent of the pool is picked: by the step that has it, or by the queue."""
        route, step = self.route(task), self.step(task, pool)
        own = route.steps[step].strategy if route is not None and step < len(route.steps) else None
        return self.queue(task).strategy if own is None else own

    def steps_open(self, task: Task, route: Route, sure: bool) -> int:
        """How many steps of its route are open, at least (`sure`) or at most."""
        if self.emergency(task):
            return len(route.steps)
        since = self.since.get(task.uid, (self.now, self.now))[sure]
        slack = -1e-6 if sure else 1e-6
        opens, open_by_wait = since, 1
        for step in route.steps[1:]:
            opens += step.after
            if opens > self.now + slack and step.after:
                break
            open_by_wait += 1
        found = open_by_wait
        while found < len(route.steps) and not any(
            self.may_grow(task, (task.namespace, name)) for step in route.steps[:found] for name in step.pools
        ):
            found += 1
        return found

    def may_grow(self, task: Task, key: Key) -> bool:
        """Whether the pool may get another agent, and that may run the Task."""
        pool = self.pools.get(key)
        if pool is None or not pool.elastic or len(self.counted(key)) >= pool.maximum:
            return False
        there = [
            uid
            for uid, agent in self.agents.items()
            if agent.pool_key == key
            and uid not in self.gone
            and (uid in self.pods or uid in self.ready or not self.idle(uid))
        ]
        if there:
            return any(self.able(task, uid) for uid in there)
        idle = Agent("", key[0], "", key[1], pool.slots, pool.resources, pool.skills, None, pool.labels)
        return self.able_as(task, idle, known=False)

    def counted(self, key: Key) -> set[str]:
        """The pool's agents that are there to stay."""
        uids = (set(self.pods) | self.ready) - self.gone - self.draining - self.deleting
        return {uid for uid in uids if (self.agents[uid].pool_key if uid in self.agents else self.pods[uid]) == key}

    def pools_of(self, task: Task, sure: bool = False) -> set[Key]:
        """The pools that may serve the Task now: surely, or at most."""
        queue, route = self.queues.get(task.queue_key), self.route(task)
        names = set(queue.pools) if queue is not None else set()
        if route is not None:
            names = {name for each in route.steps[: self.steps_open(task, route, sure)] for name in each.pools}
        if self.emergency(task) or task.agent is not None:
            names |= {name for namespace, name in self.pools if namespace == task.namespace}
        if task.pool is not None:
            names = {task.pool}
        return {(task.namespace, name) for name in names if (task.namespace, name) in self.pools}

    def suits(self, task: Task, uid: str, sure: bool = False) -> bool:
        """Whether the agent may run the Task, were it idle and open."""
        return self.agents[uid].pool_key in self.pools_of(task, sure) and self.able(task, uid)

    def able(self, task: Task, uid: str) -> bool:
        return self.able_as(task, self.agents[uid])

    def able_as(self, task: Task, agent: Agent, known: bool = True) -> bool:
        """Whether such an agent could run the Task, were it of the right pool. One not `known` is yet to come: where
        its pool says nothing of that, it may come to be anywhere."""
        return (
            task.agent in (None, agent.name)
            and (agent.types is None or task.type in agent.types)
            and task.skills <= agent.skills
            and all(meets(dict(agent.labels), requirement) for requirement in task.selector)
            and (agent.fenced or self.queue(task).allows_unfenced)
            and agent.slots >= task.slots
            and all(dict(agent.resources).get(name, 0) >= amount for name, amount in task.resources)
            and self._placed(task, agent, known)
        )

    def _placed(self, task: Task, agent: Agent, known: bool) -> bool:
        """Whether the agent is where the Task allows, and as cheap and good as it asks."""
        asked, pool, labels = task.placement, self.pools.get(agent.pool_key), dict(agent.labels)
        if asked is None or pool is None:
            return asked is None
        return (
            (not asked.zones or labels.get(ZONE, None if known else asked.zones[0]) in asked.zones)
            and (not asked.regions or labels.get(REGION, None if known else asked.regions[0]) in asked.regions)
            and (asked.max_cost is None or pool.cost_per_hour <= asked.max_cost)
            and pool.quality >= asked.min_quality
        )

    def prefers(self, task: Task, uid: str) -> bool:
        """Whether the agent meets any of what the Task prefers, or it does not mind."""
        asked, labels = task.placement, dict(self.agents[uid].labels)
        if asked is None or not asked.preferred:
            return True
        return any(all(meets(labels, each) for each in one.selector) for one in asked.preferred)

    def patient_enough(self, task: Task, uid: str, now: float) -> bool:
        """Whether the Task may go there by now: it can not have begun to wait before it was created."""
        return self.prefers(task, uid) or task.placement is None or now >= task.created + task.placement.wait

    def takes_any(self, task: Task, uid: str) -> bool:
        """Whether the Task need not wait for another agent, for sure."""
        return self.prefers(task, uid) or task.placement is None or not task.placement.wait

    def fits(self, task: Task, uid: str, sure: bool = False) -> bool:
        if not (self.open(uid) and self.suits(task, uid, sure)):
            return False
        slots, resources = self.free(uid)
        return slots >= task.slots and all(resources.get(name, 0) >= amount for name, amount in task.resources)

    def could_start(self, task: Task, now: float) -> bool:
        """Whether nothing but room may hold the Task, for sure."""
        return self.eligible(task, now) and not self.limited(task, now) and not self.short_of_tokens(task, now)[0]


def over(parent: Parent) -> bool:
    return parent.gone or (parent.phase is not None and parent.phase.terminal)


def meets(labels: dict[str, str], requirement: Requirement) -> bool:
    value = labels.get(requirement.key)
    return {
        "In": value is not None and value in requirement.values,
        "NotIn": value is None or value not in requirement.values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[requirement.operator]
