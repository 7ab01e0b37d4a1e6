"""What the core knows of Tasks, queues, pools and agents: values without payloads, times in wall-clock seconds."""

from dataclasses import dataclass, field
from typing import Final

from taskdist.api import (
    Delivery,
    Dispatch,
    OnDependencyFailure,
    OnExhausted,
    OnHopeless,
    OnOverflow,
    OrderPolicy,
    Phase,
    Priority,
    Reclaim,
    Strategy,
)

# Levels, as numbers: higher goes first. Aging ends below the one that stands apart.
EMERGENCY: Final = Priority.EMERGENCY.level
TOP: Final = Priority.CRITICAL.level
NORMAL: Final = Priority.NORMAL.level

# Where agents are: labels that Kubernetes gives nodes and, from 1.35 on, their pods.
ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
TOPOLOGY: Final = (ZONE, REGION)

# (namespace, name): how queues and pools are referred to.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on an agent's label; `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Preference:
    """A wish of a Task: labels that its agent should carry, and the weight of having them."""

    weight: int
    selector: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a Task may run, beyond its selector. Zones and regions are the allowed ones, nearest first; empty: any.

    `wait`: seconds in which only agents may run it that meet one of the preferences.
    """

    zones: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    max_cost: float | None = None  # of the agent, an hour
    min_quality: float = 0.0
    preferred: tuple[Preference, ...] = ()
    wait: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether it waits for an agent that it prefers."""
        return self.wait > 0 and bool(self.preferred)


@dataclass(frozen=True, slots=True)
class Parent:
    """A Task that another depends on: its name, its uid once it was seen, and how it ended once it has.

    `gone` is one that was deleted before it ended: it counts as failed.
    """

    name: str
    uid: str = ""
    phase: Phase | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A Task as the core sees it. Times are seconds since the Unix epoch; `priority` is a level, 0 to 5.

    `queue` is the one it waits in, `not_before` the later of its own word and its back-off. `waiting_limit` is the
    longest time from `created` to the first start, None for the queue's word.
    """

    uid: str
    namespace: str
    name: str
    queue: str
    type: str
    created: float
    priority: int = NORMAL
    pool: str | None = None
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    selector: tuple[Requirement, ...] = ()
    suspended: bool = False
    failures: int = 0
    not_before: float = 0.0
    tenant: str = ""
    deadline: float | None = None
    waiting_limit: float | None = None
    concurrency_key: str | None = None
    ordering_key: str | None = None
    parents: tuple[Parent, ...] = ()
    on_parent_failure: OnDependencyFailure = OnDependencyFailure.FAIL
    payload_bytes: int = 0
    # Uids of agents that died while they ran it.
    deaths: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()  # its own, by which it is routed
    agent: str | None = None  # the only one that may run it, by the name of its pod
    budgets: tuple[tuple[str, str, int], ...] = ()  # what an attempt takes: queue, name of its budget, amount
    attempted: bool = False  # it was started before
    spilled: bool = False  # it waits in another queue than its own
    redriven: bool = False  # it was a dead letter: whoever redrove it wants it run, be its deadline hopeless or not
    placement: Placement | None = None
    sticky_key: str | None = None
    put_off: float = 0.0  # seconds for which its handlers have put it off in all
    throttled: bool = False  # the last of them did, and `not_before` is as it asked
    objects: bool = False  # its payload is in an object store: only an agent that has one may run it

    @property
    def queue_key(self) -> Key:
        return (self.namespace, self.queue)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Back-off after failure n (from 1): min(max_seconds, initial_seconds × factor^(n − 1)), less jitter.

    `reasons` are those of failures that are tried again; empty means all. `throttled_seconds` bounds for how long in
    all a Task may be put off by its handlers.
    """

    limit: int = 3
    initial_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 300.0
    jitter: float = 0.0
    reasons: frozenset[str] = frozenset()
    agent_deaths: int = 3
    on_exhausted: OnExhausted = OnExhausted.FAIL
    throttled_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Upper bounds on what a queue, or each tenant in it, may have at once. None: no bound."""

    waiting: int | None = None
    leased: int | None = None
    slots: int | None = None
    payload_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRate:
    """A bucket of `burst` tokens that fills at `per_second`; the grant of an attempt takes one."""

    per_second: float
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount that Tasks share: at most `limit` is held at once, or attempts spend it as it comes at `rate`."""

    name: str
    limit: int | None = None
    rate: TokenRate | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The condition under which a Task takes a route. A field that is empty matches every Task."""

    labels: tuple[Requirement, ...] = ()
    types: frozenset[str] = frozenset()
    levels: frozenset[int] = frozenset()
    tenants: frozenset[str] = frozenset()
    min_slots: int = 1
    max_slots: int | None = None


@dataclass(frozen=True, slots=True)
class RouteStep:
    """One step of a route: pools whose agents compete for its Tasks.

    It opens `after` seconds of waiting after the step before. `strategy` None: the queue's.
    """

    pools: tuple[str, ...]
    after: float = 0.0
    strategy: Strategy | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A rule of a queue that sends matching Tasks to other pools, step by step."""

    name: str
    steps: tuple[RouteStep, ...]
    match: Match = field(default_factory=Match)

    @property
    def pools(self) -> tuple[str, ...]:
        """Return the pools of all steps, each once."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.pools))


@dataclass(frozen=True, slots=True)
class Overflow:
    """The bound on a queue's waiting Tasks, and what happens to Tasks that come beyond it."""

    high_water: int
    low_water: int
    action: OnOverflow = OnOverflow.REJECT
    spill_to: str | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a Task may take; None: no limit."""

    waiting: float | None = None
    execution: float | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A TaskQueue's rules. Also the defaults for Tasks whose queue is gone."""

    namespace: str
    name: str
    pools: tuple[str, ...] = ()
    paused: bool = False
    dispatch: Dispatch = Dispatch.STRICT
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    reclaim: Reclaim = Reclaim.LEASE
    lease_seconds: float = 15.0
    hold_seconds: float = 120.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    drained: bool = False
    weight: int = 1
    policy: OrderPolicy = OrderPolicy.PRIORITY
    level: int = NORMAL  # at which a Fifo or DeadlineFirst queue competes
    critical_path_first: bool = False
    tenant_weights: tuple[tuple[str, int], ...] = ()
    tenant_weight: int = 1  # of those not named
    emergency: frozenset[str] = frozenset()  # tenants that may use that level
    emergency_leased: int = 10
    aging_step: float = 300.0  # 0: never
    on_hopeless: OnHopeless = OnHopeless.RUN
    max_queue_seconds: float = 3600.0
    expected_service: float = 10.0
    hold_after: float = 60.0  # 0: never
    quota: Quota = field(default_factory=Quota)
    tenant_quota: Quota = field(default_factory=Quota)
    rate: TokenRate | None = None
    tenant_rate: TokenRate | None = None
    concurrency_limit: int = 1
    overflow: Overflow | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    routes: tuple[Route, ...] = ()
    budgets: tuple[Budget, ...] = ()
    strategy: Strategy = Strategy.ADAPTIVE
    archive_backlog: int | None = None  # Tasks over their time that wait for the archive; None: none waits for it

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    @property
    def all_pools(self) -> tuple[str, ...]:
        """Return the pools that it or one of its routes names, each once."""
        return tuple(dict.fromkeys([*self.pools, *(name for route in self.routes for name in route.pools)]))

    @property
    def strategies(self) -> frozenset[Strategy]:
        """Return its own strategy and those that steps of its routes name."""
        steps = [step.strategy for route in self.routes for step in route.steps if step.strategy is not None]
        return frozenset([self.strategy, *steps])

    @property
    def allows_unfenced(self) -> bool:
        """Whether agents may serve it whose handlers cannot be stopped by force."""
        return self.reclaim is not Reclaim.LEASE


@dataclass(frozen=True, slots=True)
class Breaker:
    """The settings of circuit breakers: when one opens for an agent, and how it closes again. Times in seconds."""

    failure_ratio: float = 0.8
    min_attempts: int = 5
    window_seconds: float = 600.0
    open_seconds: float = 30.0
    max_open_seconds: float = 1800.0
    probes: int = 3
    most_open_percent: int = 50


@dataclass(frozen=True, slots=True)
class Pool:
    """An AgentPool's template and bounds. With `scaling` off, minimum and maximum are both `spec.replicas`."""

    namespace: str
    name: str
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()  # of the pod template
    elastic: bool = False
    minimum: int = 1
    maximum: int = 1
    scale_down_delay: float = 60.0
    template: str = ""  # names what its agents are made from; those of another one are replaced
    breaker: Breaker | None = None
    slow_start: float = 0.0  # seconds; 0: a new agent gets all it offers at once
    reported_labels: frozenset[str] = frozenset()  # keys under which agents may report labels of themselves
    cost_per_hour: float = 0.0  # of one agent, in any one currency
    watts_busy: float = 0.0  # of one agent with all slots busy
    watts_idle: float = 0.0
    quality: float = 1.0
    target_queue: float = 0.0  # how long Tasks may wait for room; 0: each has an own place at once
    scale_up_delay: float = 0.0  # more agents are wanted only after more were needed for so long

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that is connected and ready. `types` None means that it takes any type."""

    uid: str
    namespace: str
    name: str
    pool: str
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    types: frozenset[str] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    fenced: bool = True
    objects: bool = False  # it fetches payloads from an object store

    @property
    def pool_key(self) -> Key:
        return (self.namespace, self.pool)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not come up. Equal as long as the cause is the same, so that it is told once.

    Attributes:
        cause: Kubernetes' own word for it, such as CrashLoopBackOff.
        message: what is known of it, in a few words.
        container: whose output of its last run tells more; empty where no container has run.
    """

    cause: str
    message: str
    container: str = ""
